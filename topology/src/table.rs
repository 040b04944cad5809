//! The oracle's answers for all pairs of hosts, as data and as text for people.

use crate::index::Name;
use crate::oracle::{Dial, Hop, Oracle, SourcePort};
use std::fmt;
use std::net::SocketAddr;

/// One dial of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Who dials.
    pub from: Name,
    /// Whom it means to reach.
    pub to: Name,
    /// Where.
    pub address: SocketAddr,
    /// What becomes of it. Compare `answered_by` with `to`: it may be another.
    pub dial: Dial,
}

/// All dials from each host to each address of each other host. Prints as columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// In the order of the fleet's file, first by dialler, then by target.
    pub rows: Vec<Row>,
}

impl Oracle {
    /// All pairs; of ten thousand hosts that is a hundred million dials, so ask for single ones there.
    pub fn table(&self) -> Table {
        let nodes = &self.index.nodes;
        let mut rows = vec![];
        for from in nodes {
            for (id, to) in nodes.iter().enumerate().filter(|(_, to)| to.name != from.name) {
                rows.extend(self.addresses(id).into_iter().map(|address| Row {
                    from: from.name.clone(),
                    to: to.name.clone(),
                    address,
                    dial: self.dial(&from.name, address),
                }));
            }
        }
        Table { rows }
    }
}

impl Row {
    fn cells(&self) -> [String; 6] {
        let dial = &self.dial;
        let result = match (&dial.failure, &dial.answered_by) {
            (Some(failure), _) => failure.to_string(),
            (None, Some(by)) if *by == self.to => "ok".into(),
            (None, by) => format!("answered by {}", by.as_deref().unwrap_or("nobody")),
        };
        let hops: Vec<String> = dial.hops.iter().map(Hop::to_string).collect();
        let over = if hops.is_empty() { "-".into() } else { hops.join(" ") };
        let seen_as = dial.seen_as.map_or("-".into(), |source| {
            let port = match source.port {
                SourcePort::Own => "",
                SourcePort::OwnIfFree => ", port kept if free",
                SourcePort::Random => ", random port",
            };
            format!("{}{port}", source.address)
        });
        [self.from.to_string(), self.to.to_string(), self.address.to_string(), result, over, seen_as]
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["FROM", "TO", "AT", "RESULT", "OVER", "SEEN AS"].map(str::to_owned);
        let lines: Vec<[String; 6]> = std::iter::once(head).chain(self.rows.iter().map(Row::cells)).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 6] = std::array::from_fn(width);
        for line in &lines {
            let padded: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            writeln!(f, "{}", padded.join("  ").trim_end())?;
        }
        Ok(())
    }
}

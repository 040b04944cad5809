//! Figures of large meshes: detection, false accusations, convergence and traffic against size and loss.
//!
//! Each row is measured in [`measure`] on [`crowd::Crowd`]s of one size under one loss: some live for a minute each, in
//! which hosts die in two ways, one lives in peace for ten, and one starts with nobody known to anybody. This file has
//! the shapes, writes the table, holds it against the [`goals`], and gives the plot. What is shared between the
//! hosts of one process, and how a packet is counted, stands in [`crowd`] and under the table. Nothing here judges: a
//! sweep does.

pub mod crowd;
pub mod goals;
mod measure;
mod plot;

#[cfg(test)]
use measure::figures;
pub use measure::{Effort, row};

use crowd::{Kind, PACKET_BYTES, PAYLOAD_MAX};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// Sizes that the shipped figures are made for.
pub const SIZES: [usize; 5] = [6, 30, 100, 1_000, 10_000];
/// Losses, in percent, that they are made for.
pub const LOSSES: [u32; 3] = [0, 5, 25];

const SECOND: u64 = 1_000_000;

/// How long it took until all hosts that lived knew of a death, over the deaths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// Deaths.
    pub deaths: usize,
    /// Half of them, in seconds.
    pub median_s: f64,
    /// 99 of a hundred: of fewer than a hundred the slowest.
    pub p99_s: f64,
    /// Pairs of a dead and a living host that never learned within the run.
    pub missed: u64,
}

/// One size under one loss.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Hosts.
    pub hosts: usize,
    /// Packets lost, in percent.
    pub loss: u32,
    /// Crashes: the kernel closes connections.
    pub crash: Detection,
    /// Power cuts: nobody is told.
    pub power_off: Detection,
    /// From a start with nobody known until everybody has held everybody to be alive, in seconds; `None` when that was
    /// not measured, infinite when it did not come about.
    pub converged_s: Option<f64>,
    /// Accusations published of hosts that lived, an hour and host.
    pub false_accusations: f64,
    /// Times that a host held another to be down that lived.
    pub false_downs: u64,
    /// Virtual time in which those two were counted.
    pub watched: Duration,
    /// Of a hundred beliefs at the end of the lives with deaths, those that were right.
    pub right_percent: f64,
    /// Payload a host sends, in bytes a second, in peace.
    pub payload: f64,
    /// The same on the wire, reckoned.
    pub wire: f64,
    /// On the wire, over the lives with deaths.
    pub wire_deaths: f64,
    /// In peace, of each kind: messages and payload bytes, a host and second.
    pub kinds: BTreeMap<Kind, (f64, f64)>,
    /// Virtual time that was simulated.
    pub simulated: Duration,
    /// CPU time that it took.
    pub cpu: Duration,
    /// The process's peak of memory since the row before, in MiB; `None` where the system does not say.
    pub peak_mib: Option<u64>,
}

/// All rows.
#[derive(Clone, Debug)]
pub struct Figures {
    /// By size, then loss.
    pub rows: Vec<Row>,
    /// What all of it came from.
    pub seed: u64,
}

impl Figures {
    /// Tables, with what has to be known to read them, and what falls short of the goals.
    pub fn to_markdown(&self) -> String {
        let mut out = format!(
            "Made by `scripts/figures` (`sim figures`, seed {}) from bare membership cores. \"Known by all\" is from a death until \
             the last host that lives holds the dead one to be down: median and 99 of a hundred deaths (of fewer than a \
             hundred the slowest). False downs count each pair of a host and another that it took for dead and that lived.\n\n",
            self.seed
        );
        out += "| hosts | loss | process dies: known by all, median / p99 | power goes: known by all, median / p99 | deaths of each \
                kind | false downs | in | false accusations, an hour and host | cold start until all know all | right at the end |\n";
        out += "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";
        for row in &self.rows {
            let cold = match row.converged_s {
                Some(seconds) if seconds.is_finite() => format!("{seconds:.1} s"),
                Some(_) => "never".to_owned(),
                None => "–".to_owned(),
            };
            let _ = writeln!(
                out,
                "| {} | {} % | {} | {} | {} | {} | {} | {:.1} | {cold} | {:.2} % |",
                plot::number(row.hosts as f64),
                row.loss,
                words(&row.crash),
                words(&row.power_off),
                row.crash.deaths,
                row.false_downs,
                match row.watched.as_secs() {
                    short if short < 60 => format!("{short} s"),
                    long => format!("{} min", long / 60),
                },
                row.false_accusations,
                row.right_percent,
            );
        }
        out += "\nWhat one host sends, bytes a second. By kind, in peace: messages a second × bytes of each.\n\n";
        out += "| hosts | loss | payload | on the wire | with deaths | probes | replies | accusations | answers to them | presences | \
                comparisons | CPU | memory |\n";
        out += "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";
        for row in &self.rows {
            let Row { hosts, loss, payload, wire, wire_deaths, .. } = row;
            let memory = row.peak_mib.map_or_else(|| "?".to_owned(), |mib| format!("{mib} MiB"));
            let kinds = [Kind::Probe, Kind::Reply, Kind::Accusation, Kind::Alive, Kind::Presence, Kind::Digest];
            let kinds = kinds.map(|kind| match row.kinds.get(&kind) {
                Some((messages, bytes)) if *messages > 0.0 => format!("{messages:.2} × {:.0}", bytes / messages),
                _ => "–".to_owned(),
            });
            let _ = writeln!(
                out,
                "| {} | {loss} % | {payload:.0} | {wire:.0} | {wire_deaths:.0} | {} | {:.0} s | {memory} |",
                plot::number(*hosts as f64),
                kinds.join(" | "),
                row.cpu.as_secs_f64(),
            );
        }
        let _ = write!(
            out,
            "\nA message counts with {PACKET_BYTES} bytes for each {PAYLOAD_MAX} of its own (Ethernet, IP, TCP with time stamps: 66; \
             Noise and Yamux: 30), and again each time it is sent again; pure acknowledgements and heartbeats of the ledger \
             are not in it. A lost packet is sent again after 200 ms, then 400 ms, and so on, and what follows on the \
             connection waits: loss is that of TCP, the worse case. Gossip floods to about eight neighbours. Hosts of \
             {} and more start converged, and under much loss live for seconds only, in which nobody's power goes: words about \
             false accusations fill the memory of one machine. Shared between all hosts of a run, and therefore not in its memory and CPU as often \
             as there are hosts, are the table of members, each presence, and each statement with the verification of its \
             signature.\n\n",
            plot::number(SIZES[4] as f64),
        );
        out += &goals::to_markdown(self);
        out
    }

    /// A plot: detection and traffic against size, a line for each loss.
    pub fn to_svg(&self) -> String {
        plot::svg(self)
    }

    /// The row of a size and loss.
    pub fn row(&self, hosts: usize, loss: u32) -> Option<&Row> {
        self.rows.iter().find(|row| (row.hosts, row.loss) == (hosts, loss))
    }
}

fn words(detection: &Detection) -> String {
    let Detection { deaths, median_s, p99_s, missed } = detection;
    if *deaths == 0 {
        return "–".to_owned();
    }
    let missed = if *missed > 0 { format!(", {missed} pairs never") } else { String::new() };
    format!("{median_s:.2} / {p99_s:.2} s{missed}")
}

#[cfg(test)]
mod tests {
    use super::crowd::{Crowd, Death};
    use super::*;

    #[test]
    fn a_death_is_known_to_all_and_nobody_else_is_taken_for_dead() {
        let figures = figures(&[6, 30], &[0, 5], 1, Effort::SMALL);
        for row in &figures.rows {
            assert_eq!((row.false_downs, row.crash.missed, row.power_off.missed), (0, 0, 0), "{row:?}");
            assert!(row.crash.p99_s < 10.0 && row.power_off.p99_s < 15.0, "{row:?}");
            assert!(row.crash.median_s > 0.3, "a death that is known before anybody could know: {row:?}");
            assert!(row.right_percent > 99.99, "{row:?}");
            assert!(row.payload > 10.0 && row.wire > row.payload, "{row:?}");
            assert!(row.converged_s.is_some_and(|s| s > 0.0 && s < 20.0), "{row:?}");
        }
        let (table, plot) = (figures.to_markdown(), figures.to_svg());
        assert!(table.contains("| 30 | 5 % |"), "{table}");
        assert!(plot.starts_with("<svg") && plot.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn the_same_seed_gives_the_same_figures() {
        let run = || {
            let mut crowd = Crowd::new(30, 25, 9);
            crowd.run_until(5 * SECOND);
            crowd.kill(2, Death::PowerOff);
            crowd.run_until(12 * SECOND);
            (crowd.counts.payload, crowd.counts.kinds.clone(), crowd.counts.detected.clone())
        };
        assert_eq!(run(), run());
    }
}

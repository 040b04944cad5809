//! The goals that the watchers were built for, and what the figures say of each.
//!
//! It changes nothing and fails nothing: a goal that is missed stands in the table for everybody to read.

use super::{Detection, Figures, Row};
use std::fmt::Write as _;

/// One goal beside what was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// What was asked for.
    pub what: String,
    /// What came out.
    pub measured: String,
    /// Whether that is enough.
    pub met: bool,
}

/// Most that a host may send more in a mesh of 10,000 than in one of 100 for it to be called flat.
const FLAT: f64 = 1.1;

/// Every goal of which the sizes and losses were measured.
pub fn goals(figures: &Figures) -> Vec<Goal> {
    let within = |hosts: usize, what: &str, part: fn(&Row) -> Detection, limit_s: f64| {
        let found = part(figures.row(hosts, 0)?);
        Some(Goal {
            what: format!("{what} is known by all {hosts} hosts within {limit_s:.1} s (p99, no loss)"),
            measured: format!("{:.2} s", found.p99_s),
            met: found.p99_s <= limit_s && found.missed == 0,
        })
    };
    let crash = |row: &Row| row.crash;
    let power_off = |row: &Row| row.power_off;
    let flat = || {
        let (small, large) = (figures.row(100, 0)?.payload, figures.row(10_000, 0)?.payload);
        Some(Goal {
            what: "what a host sends is flat from 100 to 10,000 hosts (no loss)".into(),
            measured: format!("{small:.0} and {large:.0} B/s"),
            met: large <= small * FLAT,
        })
    };
    let never_down = figures.rows.iter().filter(|row| row.loss == 25).map(|row| {
        let minutes = row.watched.as_secs_f64() / 60.0;
        Some(Goal {
            what: format!("no live host of {} is taken for dead in 10 minutes at 25 % loss", row.hosts),
            measured: format!("{} pairs in {minutes:.0} minutes", row.false_downs),
            met: row.false_downs == 0 && minutes >= 10.0,
        })
    });
    let idle = || {
        let row = figures.row(30, 0)?;
        Some(Goal {
            what: "a host that does not vote sends at most 1 kB/s when idle (the watchers' part of it, 30 hosts)"
                .into(),
            measured: format!("{:.0} B/s on the wire, {:.0} of them payload", row.wire, row.payload),
            met: row.wire <= 1_000.0,
        })
    };
    let goals = [
        within(6, "a host whose process died", crash, 1.0),
        within(30, "a host whose process died", crash, 1.5),
        within(6, "a host without power", power_off, 3.0),
        within(30, "a host without power", power_off, 3.0),
        within(1_000, "a host without power", power_off, 5.0),
        flat(),
        idle(),
    ];
    goals.into_iter().chain(never_down).flatten().collect()
}

pub(super) fn to_markdown(figures: &Figures) -> String {
    let mut out = "| goal | measured | |\n|---|---|---|\n".to_owned();
    for Goal { what, measured, met } in goals(figures) {
        let _ = writeln!(out, "| {what} | {measured} | {} |", if met { "met" } else { "**falls short**" });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{Effort, figures};
    use super::*;

    #[test]
    fn a_goal_that_is_missed_is_said_to_be_missed() {
        let mut figures = figures(&[6], &[0], 3, Effort::SMALL);
        assert!(goals(&figures).iter().all(|goal| goal.met), "{:?}", goals(&figures));
        figures.rows[0].crash.p99_s = 1.01;
        figures.rows[0].power_off.missed = 1;
        assert!(goals(&figures).iter().all(|goal| !goal.met));
        assert_eq!(to_markdown(&figures).matches("falls short").count(), 2);
    }
}

//! What a sweep tried, and what it left untried.

use crate::draw::KINDS;
use crate::stage::Played;
use std::collections::{BTreeMap, BTreeSet};

/// Counts over many runs.
#[derive(Default)]
pub struct Table {
    /// Invariants that must be judged, and actions that must be done.
    invariants: BTreeSet<&'static str>,
    expected: BTreeSet<&'static str>,
    done: BTreeMap<&'static str, u64>,
    skipped: BTreeMap<&'static str, u64>,
    exercised: BTreeMap<&'static str, u64>,
}

impl Table {
    /// These must be tried, or the sweep has left something out.
    pub fn expecting(invariants: &[&'static str], actions: &[&'static str]) -> Table {
        let zero = |names: &[&'static str]| names.iter().map(|name| (*name, 0)).collect();
        let expected = actions.iter().copied().collect();
        Table {
            invariants: invariants.iter().copied().collect(),
            expected,
            done: zero(actions),
            skipped: BTreeMap::new(),
            exercised: zero(invariants),
        }
    }

    /// Adds a run.
    pub fn add(&mut self, played: &Played) {
        let pairs = [
            (&mut self.done, &played.done),
            (&mut self.skipped, &played.skipped),
            (&mut self.exercised, &played.exercised),
        ];
        for (all, one) in pairs {
            for (name, count) in one {
                *all.entry(name).or_default() += count;
            }
        }
    }

    /// What was never judged or never done.
    pub fn untried(&self) -> Vec<String> {
        let zero = |counts: &BTreeMap<&'static str, u64>, name| counts.get(name).is_none_or(|count| *count == 0);
        let invariants = self.invariants.iter().filter(|name| zero(&self.exercised, *name));
        let kinds = self.expected.iter().filter(|kind| zero(&self.done, *kind));
        let invariants = invariants.map(|name| format!("invariant {name}"));
        invariants.chain(kinds.map(|kind| format!("action {kind}"))).collect()
    }

    /// As lines for people and scripts.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{:<44} {:>12}", "INVARIANT", "JUDGED")];
        lines.extend(self.exercised.iter().map(|(name, count)| format!("{name:<44} {count:>12}")));
        lines.push(format!("{:<20} {:>11} {:>11} {:>12}", "ACTION", "", "DONE", "SKIPPED"));
        let kinds: BTreeSet<&&'static str> = self.done.keys().chain(self.skipped.keys()).collect();
        let fault = |name: &str| KINDS.iter().any(|kind| kind.fault && kind.name == name);
        for kind in kinds {
            let of = |counts: &BTreeMap<&'static str, u64>| counts.get(*kind).copied().unwrap_or_default();
            let mark = if fault(kind) { "fault" } else { "" };
            lines.push(format!("{kind:<20} {mark:>11} {:>11} {:>12}", of(&self.done), of(&self.skipped)));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_is_expected_and_never_judged_or_done_is_untried() {
        let mut table = Table::expecting(&["one-leader", "no-loss"], &["crash", "cut"]);
        let counts = |pairs: &[(&'static str, u64)]| pairs.iter().copied().collect();
        table.add(&Played {
            failure: None,
            ended: Duration::ZERO,
            done: counts(&[("crash", 2)]),
            skipped: counts(&[("clone", 1), ("crash", 1)]),
            exercised: counts(&[("one-leader", 9), ("no-loss", 0), ("of-others", 0)]),
        });
        assert_eq!(table.untried(), ["invariant no-loss", "action cut"]);
    }
}

//! What is committed is never lost and never changed.
//!
//! At one index every ledger has one head, over all hosts and all their restarts; and at the end some
//! ledger still reaches as far as any ever did. A host's own index may go back when it restarts from an
//! older snapshot: that loses nothing. Never looks into entries; the head is the hash of all of them.

use super::{HostSeen, Invariant, Name, Truth};
use std::collections::BTreeMap;
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub struct CommittedStays {
    heads: BTreeMap<u64, ([u8; 32], Name)>,
    last: BTreeMap<Name, u64>,
    judged: u64,
}

impl Invariant for CommittedStays {
    fn name(&self) -> &'static str {
        "committed-stays"
    }

    fn source(&self) -> &'static str {
        "Ongaro, Consensus (2014), 3.6: leader completeness and state machine safety"
    }

    fn look(&mut self, _at: Duration, host: &HostSeen<'_>, _truth: &dyn Truth) -> Result<(), String> {
        let (index, head) = (host.ledger.index(), host.ledger.head());
        if self.last.insert(host.name.clone(), index) == Some(index)
            && self.heads.get(&index).is_some_and(|h| h.0 == head)
        {
            return Ok(());
        }
        self.judged += 1;
        let (known, by) = self.heads.entry(index).or_insert_with(|| (head, host.name.clone()));
        match *known == head {
            true => Ok(()),
            false => Err(format!("{} and {by} differ in what they have at index {index}", host.name)),
        }
    }

    fn finish(&mut self, _at: Duration) -> Result<(), String> {
        let reached = self.heads.last_key_value().map_or(0, |(index, _)| *index);
        let have = self.last.values().copied().max().unwrap_or(0);
        match have < reached {
            true => Err(format!("index {reached} was committed, and the longest ledger ends at {have}")),
            false => Ok(()),
        }
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fleet, second};
    use super::*;

    #[test]
    fn another_entry_at_the_same_index_is_caught() {
        let mut fleet = Fleet::of(3);
        let mut rule = CommittedStays::default();
        let mut other = fleet.clone();
        assert_eq!(rule.look(second(1), &fleet.seen(1), &fleet), Ok(()));
        fleet.submit(1, 1, "one");
        assert_eq!(rule.look(second(2), &fleet.seen(1), &fleet), Ok(()));
        assert_eq!(rule.look(second(3), &other.seen(2), &fleet), Ok(()), "behind is not different");
        other.submit(1, 2, "two");
        assert!(rule.look(second(4), &other.seen(2), &fleet).is_err());
    }

    #[test]
    fn an_end_that_falls_short_is_caught() {
        let mut fleet = Fleet::of(3);
        let mut rule = CommittedStays::default();
        let before = fleet.clone();
        fleet.submit(1, 1, "one");
        rule.look(second(1), &fleet.seen(1), &fleet).unwrap();
        assert_eq!(rule.finish(second(2)), Ok(()));
        rule.look(second(3), &before.seen(1), &fleet).unwrap();
        assert!(rule.finish(second(4)).is_err());
    }
}

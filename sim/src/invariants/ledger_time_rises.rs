//! Ledger time never goes back: not on a host, and not from one index to a later one on any host.
//!
//! Expiry is judged by it, so that a jump back would bring back to life what has ended. How fast it runs is no
//! matter here. Never reads a host's wall clock.

use super::{HostSeen, Invariant, Name, Truth};
use std::collections::BTreeMap;
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub struct LedgerTimeRises {
    times: BTreeMap<u64, u64>,
    last: BTreeMap<Name, u64>,
    judged: u64,
}

impl Invariant for LedgerTimeRises {
    fn name(&self) -> &'static str {
        "ledger-time-rises"
    }

    fn source(&self) -> &'static str {
        "Lamport, Time, Clocks (1978); incident of the wall clock that jumped; rule 8 of the design"
    }

    fn look(&mut self, _at: Duration, host: &HostSeen<'_>, _truth: &dyn Truth) -> Result<(), String> {
        let (index, time) = (host.ledger.index(), host.ledger.time_ms());
        if self.last.insert(host.name.clone(), index) == Some(index) {
            return Ok(());
        }
        self.judged += 1;
        let before = self.times.range(..=index).next_back();
        if let Some((earlier, was)) = before.filter(|(_, was)| **was > time) {
            return Err(format!("{}: {time} ms at index {index}, {was} ms at {earlier}", host.name));
        }
        let after = self.times.range(index..).next();
        if let Some((later, is)) = after.filter(|(_, is)| **is < time) {
            return Err(format!("{}: {time} ms at index {index}, {is} ms at {later}", host.name));
        }
        self.times.insert(index, time);
        Ok(())
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fleet, second};
    use super::*;
    use mesh::mutants::{Mutant, with};

    #[test]
    fn time_that_goes_back_is_caught() {
        let mut fleet = Fleet::of(2);
        let mut rule = LedgerTimeRises::default();
        assert_eq!(rule.look(second(1), &fleet.seen(1), &fleet), Ok(()));
        fleet.stamp(1_000_000);
        assert_eq!(rule.look(second(2), &fleet.seen(1), &fleet), Ok(()));
        fleet.stamp(500);
        assert_eq!(rule.look(second(3), &fleet.seen(1), &fleet), Ok(()), "taken as the last");
        with(Some(Mutant::LedgerTimeIsWallClock), || fleet.stamp(500));
        assert!(rule.look(second(4), &fleet.seen(1), &fleet).is_err());
    }
}

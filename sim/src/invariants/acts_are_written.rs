//! Nothing is done that is not in the ledger, with who asked and why; and the order of a leader is there by the leader.
//!
//! A ledger is looked at after each step, so what is done in a step may have been written in it. Who stopped by what it
//! did cannot be looked at, and where it votes alone nobody else has its ledger yet: it has until it is looked at again,
//! another shows it sooner, or the run ends. No time is too long for that, for nothing is forgiven by it.

use super::{Deed, Fact, HostSeen, Invariant, Name, Truth};
use mesh::limits::{GRACE_MS_MAX, TEXT_BYTES_MAX};
use mesh::warrant::OrderHash;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub struct ActsAreWritten {
    written: BTreeSet<OrderHash>,
    /// How many lines the trail of each host's ledger ended with at its last look, by index.
    looked: BTreeMap<Name, u64>,
    /// Who was looked at in this step.
    seen: BTreeSet<Name>,
    done: Vec<Deed>,
    judged: u64,
}

impl ActsAreWritten {
    fn judge(&mut self, deed: &Deed) -> Result<(), String> {
        let (host, id) = (&deed.host, deed.order.id);
        self.judged += 1;
        if !self.written.contains(&deed.hash) {
            return Err(format!("{host} carried out {id}, which is in no ledger"));
        }
        let said = [&deed.order.reason, &deed.order.requester];
        if said.iter().any(|text| text.is_empty() || text.len() > TEXT_BYTES_MAX) {
            return Err(format!("{host} carried out {id}, and nobody can say who asked for it and why"));
        }
        if deed.order.act.grace_ms() > GRACE_MS_MAX {
            return Err(format!("{host} carried out {id}, whose grace has no end"));
        }
        Ok(())
    }
}

impl Invariant for ActsAreWritten {
    fn name(&self) -> &'static str {
        "acts-are-written"
    }

    fn source(&self) -> &'static str {
        "rule 3 of the design: written before done; incident 18; write-ahead logging, Gray and Reuter (1993)"
    }

    fn fact(&mut self, _at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        if let Fact::Carried(deed) = fact {
            self.done.push((**deed).clone());
        }
        Ok(())
    }

    fn look(&mut self, _at: Duration, host: &HostSeen<'_>, _truth: &dyn Truth) -> Result<(), String> {
        self.seen.insert(host.name.clone());
        let looked = self.looked.entry(host.name.clone()).or_default();
        if *looked != host.ledger.index() {
            *looked = host.ledger.index();
            let new = host.ledger.healing().orders().rev().take_while(|w| !self.written.contains(&w.hash));
            self.written.extend(new.map(|w| w.hash).collect::<Vec<_>>());
        }
        Ok(())
    }

    fn step(&mut self, _at: Duration) -> Result<(), String> {
        let seen = std::mem::take(&mut self.seen);
        for deed in std::mem::take(&mut self.done) {
            match self.written.contains(&deed.hash) || seen.contains(&deed.host) {
                true => self.judge(&deed)?,
                false => self.done.push(deed),
            }
        }
        Ok(())
    }

    fn finish(&mut self, _at: Duration) -> Result<(), String> {
        std::mem::take(&mut self.done).iter().try_for_each(|deed| self.judge(deed))
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fleet, deed, second, write};
    use super::*;

    #[test]
    fn what_is_in_no_ledger_or_says_nothing_is_caught() {
        let mut fleet = Fleet::of(2);
        let mut rule = ActsAreWritten::default();
        let order = deed(&fleet, 1, 1);
        let good = write(&mut fleet, order);
        let judge = |rule: &mut ActsAreWritten, deed: Deed| {
            rule.fact(second(1), &Fact::Carried(Box::new(deed)), &fleet).unwrap();
            rule.look(second(1), &fleet.seen(1), &fleet).unwrap();
            rule.step(second(1))
        };
        assert_eq!(judge(&mut rule, good.clone()), Ok(()));
        assert!(judge(&mut rule, deed(&fleet, 1, 2)).is_err());
        let mut silent = good;
        silent.order.reason.clear();
        assert!(judge(&mut rule, silent).is_err());
        // Who stops by its act shows its ledger later; what nobody ever shows was not written.
        let order = deed(&fleet, 1, 3);
        let stopped = |deed: &Deed| {
            let mut rule = ActsAreWritten::default();
            rule.fact(second(2), &Fact::Carried(Box::new(deed.clone())), &Fleet::of(2)).unwrap();
            assert_eq!(rule.step(second(2)), Ok(()));
            rule
        };
        assert!(stopped(&order).finish(second(900)).is_err());
        let mut back = stopped(&order);
        back.look(second(3), &fleet.seen(1), &fleet).unwrap();
        assert!(back.step(second(3)).is_err(), "its own ledger does not know of it");
        let mut other = stopped(&order);
        other.look(second(3), &fleet.seen(2), &fleet).unwrap();
        assert_eq!(other.step(second(3)), Ok(()), "another may not have heard yet");
        let order = write(&mut fleet, order);
        other = stopped(&order);
        other.look(second(400), &fleet.seen(1), &fleet).unwrap();
        assert_eq!((other.step(second(400)), other.finish(second(900))), (Ok(()), Ok(())));
    }
}

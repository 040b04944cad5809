//! By every ledger at most one host is being healed at a time, and no more hosts in a day than the budget says.
//!
//! Read from the trail, which says who wrote what: what a person orders counts for the budget of others and is bound by
//! none itself. A host that is being healed already goes on.

use super::{Fact, HostSeen, Invariant, Name, Truth};
use mesh::healing::{DAY_MS, Event, Kind, Line, Taken};
use mesh::identity::PeerKey;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What was written so shortly before, in milliseconds, the leader may not have known of when it wrote.
const UNREAD_MS: u64 = 10_000;

/// See the module.
#[derive(Default)]
pub struct HealsAreRationed {
    /// Of each ledger at its last look: its index.
    looked: BTreeMap<Name, u64>,
    /// Of whom a liar writes what it likes: no honest leader answers for that.
    lied: Option<PeerKey>,
    judged: u64,
}

impl Invariant for HealsAreRationed {
    fn name(&self) -> &'static str {
        "heals-are-rationed"
    }

    fn source(&self) -> &'static str {
        "rule 6 of the design: never more than one host, nor more than the budget"
    }

    fn fact(&mut self, _at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        if let Fact::Lied { about, ends } = fact {
            self.lied = (!ends).then_some(*about);
        }
        Ok(())
    }

    fn look(&mut self, _at: Duration, host: &HostSeen<'_>, _truth: &dyn Truth) -> Result<(), String> {
        let (ledger, name) = (host.ledger, host.name);
        let looked = self.looked.entry(name.clone()).or_default();
        if *looked == ledger.index() {
            return Ok(());
        }
        *looked = ledger.index();
        let record = ledger.healing();
        let open: Vec<String> = record.cases().filter(|(_, c)| c.stage.is_open()).map(|(k, _)| k.short()).collect();
        if open.len() > 1 {
            return Err(format!("{name}: {} are being healed at one time", open.join(" and ")));
        }
        let now = ledger.time_ms();
        let opens = |line: &&Line| {
            matches!(line.kind, Kind::Case(Event::Blamed | Event::Down | Event::Ordered)) && line.at_ms == now
        };
        let Some(line) = record.audit().lines().rev().take(8).find(opens) else { return Ok(()) };
        // A host that is noted to be down while it is being healed is not healed anew.
        let stepped = |key: &PeerKey| record.steps(now).any(|step| step.host == *key && step.at_ms == now);
        let Some(healed) = line.host.filter(stepped).filter(|key| self.lied != Some(*key)) else { return Ok(()) };
        self.judged += 1;
        let known = |step: &&Taken| step.host != healed && step.at_ms + UNREAD_MS <= now;
        let others: BTreeSet<PeerKey> = record.steps(now).filter(known).map(|s| s.host).collect();
        let allowed = (ledger.roster().len() * record.policy().budget_percent as usize / 100).max(1);
        match others.len() < allowed {
            true => Ok(()),
            false => Err(format!(
                "{name}: {} is healed after {} others within {} h, and {allowed} hosts may be",
                healed.short(),
                others.len(),
                DAY_MS / 3_600_000
            )),
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
    fn two_at_a_time_are_caught() {
        let mut fleet = Fleet::of(5);
        let mut rule = HealsAreRationed::default();
        fleet.case(4, Event::Blamed);
        assert_eq!(rule.look(second(1), &fleet.seen(1), &fleet), Ok(()));
        assert_eq!(rule.exercised(), 1);
        fleet.case(5, Event::Blamed);
        assert!(rule.look(second(2), &fleet.seen(1), &fleet).is_err());
    }

    #[test]
    fn more_than_the_budget_in_a_day_are_caught() {
        let mut fleet = Fleet::of(5);
        let mut rule = HealsAreRationed::default();
        for event in [Event::Down, Event::Recovered, Event::Lapsed] {
            fleet.case(4, event);
        }
        fleet.stamp(100_000);
        fleet.case(5, Event::Down);
        assert!(rule.look(second(2), &fleet.seen(1), &fleet).is_err(), "one of five may be");
    }
}

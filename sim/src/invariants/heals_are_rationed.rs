//! By every ledger at most one host is being healed at a time, and no more hosts in a day than the budget says.
//!
//! Read from the trail, which says who wrote what: what a person orders counts for the budget of others and is bound by
//! none itself. A host that is being healed already goes on.

use super::steps::{Steps, UNREAD_MS};
use super::{Fact, HostSeen, Invariant, Truth};
use mesh::healing::{DAY_MS, Taken};
use mesh::identity::PeerKey;
use std::collections::BTreeSet;
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub struct HealsAreRationed {
    steps: Steps,
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
        self.steps.fact(fact);
        Ok(())
    }

    fn look(&mut self, _at: Duration, host: &HostSeen<'_>, _truth: &dyn Truth) -> Result<(), String> {
        let (ledger, name) = (host.ledger, host.name);
        if !self.steps.has_gone_on(host) {
            return Ok(());
        }
        let record = ledger.healing();
        let open: Vec<String> = record.cases().filter(|(_, c)| c.stage.is_open()).map(|(k, _)| k.short()).collect();
        if open.len() > 1 {
            return Err(format!("{name}: {} are being healed at one time", open.join(" and ")));
        }
        let now = ledger.time_ms();
        let Some((healed, _)) = self.steps.newest(host, 8) else { return Ok(()) };
        self.judged += 1;
        // Who was only down for a moment was not healed.
        let known = |step: &&Taken| step.host != healed && !step.idle && step.at_ms + UNREAD_MS <= now;
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
    use mesh::healing::Event;

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
        for event in [Event::Down, Event::Recovered, Event::Returned] {
            fleet.case(4, event);
        }
        fleet.stamp(100_000);
        fleet.case(3, Event::Down);
        assert_eq!(rule.look(second(2), &fleet.seen(1), &fleet), Ok(()), "who came back by itself was not healed");
        for event in [Event::Recovered, Event::Lapsed] {
            fleet.case(3, event);
        }
        fleet.stamp(200_000);
        fleet.case(5, Event::Down);
        assert!(rule.look(second(2), &fleet.seen(1), &fleet).is_err(), "one of five may be");
    }
}

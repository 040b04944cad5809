//! While a person has stopped healing, or a host, and while nothing has helped, no leader takes a step; and between two
//! steps on one host there is its cool-down.
//!
//! Read from the trail of each ledger: what was written there shortly before, the leader may not have known.

use super::steps::{Steps, UNREAD_MS};
use super::{Fact, HostSeen, Invariant, Truth};
use mesh::healing::{Kind, Line, Record, Rung, Taken};
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub struct StopsAreHeeded {
    steps: Steps,
    judged: u64,
}

/// What a step that was just written went against.
fn unheeded(record: &Record, line: &Line) -> Option<&'static str> {
    let (now, policy) = (line.at_ms, record.policy());
    let known = |l: &&Line| l.at_ms + UNREAD_MS <= now;
    let since = |kind: fn(&Kind) -> bool| record.audit().lines().rev().find(|l| kind(&l.kind));
    if policy.heal == 0 && since(|kind| *kind == Kind::Policy).filter(known).is_some() {
        return Some("healing is off");
    }
    let began = |stop: &mesh::healing::Measure| {
        let its = |l: &&Line| l.kind == Kind::Began(stop.stop) && l.host == stop.host;
        record.audit().lines().rev().find(its).filter(known).is_some()
    };
    if record.measures.pause(now).is_some_and(began) {
        return Some("the mesh is paused");
    }
    let host = line.host?;
    if record.measures.of(&host, now).is_some_and(began) {
        return Some("a person holds it");
    }
    let own: Vec<&Taken> = record.steps(now).rev().filter(|s| s.host == host).skip(1).collect();
    if own.first().is_some_and(|last| last.at_ms + policy.cool_ms > now) {
        return Some("its last step was not long ago");
    }
    let told = |s: &&Taken| s.rung >= Rung::Restart && s.at_ms > record.cleared_ms() && s.at_ms < now;
    let tries = record.steps(now).rev().filter(told).filter(|s| s.helped.is_some());
    let row: Vec<&Taken> = tries.take_while(|s| s.helped == Some(false)).collect();
    let frozen = row.len() as u64 >= policy.storm && row.first().is_some_and(|s| s.at_ms + policy.quiet_ms > now);
    frozen.then_some("nothing has helped lately")
}

impl Invariant for StopsAreHeeded {
    fn name(&self) -> &'static str {
        "stops-are-heeded"
    }

    fn source(&self) -> &'static str {
        "rules 6 and 8 of the design; incidents 4 and 5"
    }

    fn fact(&mut self, _at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        self.steps.fact(fact);
        Ok(())
    }

    fn look(&mut self, _at: Duration, host: &HostSeen<'_>, _truth: &dyn Truth) -> Result<(), String> {
        if !self.steps.has_gone_on(host) {
            return Ok(());
        }
        let Some((healed, line)) = self.steps.newest(host, 1) else { return Ok(()) };
        self.judged += 1;
        match unheeded(host.ledger.healing(), line) {
            None => Ok(()),
            Some(what) => Err(format!("{}: {} is healed, though {what}", host.name, healed.short())),
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
    use mesh::healing::{Event, Measure, Policy, Stop};

    #[test]
    fn a_step_while_healing_is_off_or_paused_is_caught() {
        let mut fleet = Fleet::of(5);
        let mut rule = StopsAreHeeded::default();
        fleet.case(4, Event::Blamed);
        assert_eq!(rule.look(second(1), &fleet.seen(1), &fleet), Ok(()));
        fleet.case(4, Event::Lapsed);
        fleet.heal(mesh::healing::Entry::Policy(Policy { heal: 0, ..Policy::default() }));
        fleet.stamp(60_000);
        fleet.case(5, Event::Blamed);
        assert!(rule.look(second(2), &fleet.seen(1), &fleet).is_err());
        fleet.case(5, Event::Lapsed);
        fleet.heal(mesh::healing::Entry::Policy(Policy::default()));
        let by = super::super::fixture::key(1);
        let pause = Measure { stop: Stop::Pause, host: None, by, reason: "so".into(), until_ms: 900_000 };
        fleet.heal(mesh::healing::Entry::Measure(pause));
        fleet.stamp(120_000);
        fleet.case(3, Event::Blamed);
        assert!(rule.look(second(3), &fleet.seen(1), &fleet).is_err());
    }

    #[test]
    fn a_step_before_the_cool_down_is_over_is_caught() {
        let mut fleet = Fleet::of(5);
        let mut rule = StopsAreHeeded::default();
        for event in [Event::Blamed, Event::Lapsed, Event::Blamed] {
            fleet.case(4, event);
        }
        assert!(rule.look(second(2), &fleet.seen(1), &fleet).is_err());
    }
}

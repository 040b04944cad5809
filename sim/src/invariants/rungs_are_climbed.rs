//! A rung of healing counts when its order had its chance: one that reached nobody before its leader was lost is taken
//! back, and no other is.
//!
//! An order that reached nobody did nothing, and whoever counts it as tried goes on to something stronger without cause.
//! One that was received was done, and taking it back would have it done again. Whether an order reached its target is
//! the world's word; which orders cases wait for, and what became of them, is read from each ledger.

use super::{Fact, HostSeen, Invariant, Name, Truth};
use mesh::healing::{Event, Kind, Line, Written};
use mesh::identity::PeerKey;
use mesh::ledger::Ledger;
use mesh::warrant::{OrderHash, OrderId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Of a ledger at its last look: its index, and the orders that cases waited for.
type Seen = (u64, BTreeMap<PeerKey, OrderId>);

/// See the module.
#[derive(Default)]
pub struct RungsAreClimbed {
    carried: BTreeSet<OrderHash>,
    looked: BTreeMap<Name, Seen>,
    judged: u64,
}

fn waiting(ledger: &Ledger) -> BTreeMap<PeerKey, OrderId> {
    ledger.healing().cases().filter_map(|(host, case)| Some((*host, case.order.as_ref()?.id))).collect()
}

impl RungsAreClimbed {
    /// What is wrong with how a case stopped waiting for an order, if anything is.
    fn wrong(&self, ledger: &Ledger, written: &Written, event: Event) -> Option<&'static str> {
        let leads = ledger.leader()?.1;
        let received = written.receipt.is_some() || written.proof.is_some();
        let lost = written.order.fence < leads;
        match event {
            Event::Expired if lost && !received && !self.carried.contains(&written.hash) => {
                Some("counts as tried, and reached nobody before its leader was lost")
            }
            Event::Withdrawn if received => Some("is taken back, and was received"),
            Event::Withdrawn if !lost => Some("is taken back by the leader that wrote it, and may be on its way"),
            _ => None,
        }
    }
}

impl Invariant for RungsAreClimbed {
    fn name(&self) -> &'static str {
        "rungs-are-climbed"
    }

    fn source(&self) -> &'static str {
        "rule 7 of the design: no timer is proof; `Healing`, the ladder"
    }

    fn fact(&mut self, _at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        if let Fact::Carried(deed) = fact {
            self.carried.insert(deed.hash);
        }
        Ok(())
    }

    fn look(&mut self, _at: Duration, host: &HostSeen<'_>, _truth: &dyn Truth) -> Result<(), String> {
        let ledger = host.ledger;
        let before = self.looked.get(host.name).filter(|(index, _)| *index <= ledger.index());
        if before.is_some_and(|(index, _)| *index == ledger.index()) {
            return Ok(());
        }
        let (now, record) = (waiting(ledger), ledger.healing());
        let (_, waited) = before.cloned().unwrap_or_default();
        self.looked.insert(host.name.clone(), (ledger.index(), now.clone()));
        for (of, id) in waited.into_iter().filter(|(of, id)| now.get(of) != Some(id)) {
            let its = |line: &&Line| line.host == Some(of) && line.at_ms == ledger.time_ms();
            let ended =
                record.audit().lines().rev().take_while(|line| line.at_ms == ledger.time_ms()).find_map(|line| {
                    match line.kind {
                        Kind::Case(event @ (Event::Expired | Event::Withdrawn)) if its(&line) => Some(event),
                        _ => None,
                    }
                });
            let written = record.orders().find(|written| written.order.id == id);
            let (Some(event), Some(written)) = (ended, written) else { continue };
            self.judged += 1;
            if let Some(what) = self.wrong(ledger, written, event) {
                return Err(format!("{}: {id} for {} {what}", host.name, of.short()));
            }
        }
        Ok(())
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::super::Deed;
    use super::super::fixture::{Fleet, deed, second, write};
    use super::*;
    use mesh::healing::{Entry, Withdraw};
    use mesh::identity::Keys;
    use mesh::mutants::{Mutant, with};
    use mesh::order::{Act, Gently};
    use mesh::warrant::Receipt;
    use mesh::wire::Signed;

    /// Host 4 is down, and a restart of it is ordered by the leader.
    fn ordered() -> (Fleet, Deed, RungsAreClimbed) {
        let mut fleet = Fleet::of(4);
        fleet.voters(&[1, 2, 3]);
        fleet.case(4, Event::Down);
        let mut order = deed(&fleet, 4, 1);
        order.order.act = Act::Restart(Gently { grace_ms: 10 });
        let mut order = write(&mut fleet, order);
        order.hash = fleet.ledger.healing().orders().next_back().expect("it is written").hash;
        fleet.wait(&order);
        let mut rule = RungsAreClimbed::default();
        assert_eq!(look(&mut rule, &fleet), Ok(()));
        (fleet, order, rule)
    }

    fn look(rule: &mut RungsAreClimbed, fleet: &Fleet) -> Result<(), String> {
        rule.look(second(1), &fleet.seen(1), fleet)
    }

    fn take_back(fleet: &mut Fleet, by: u8, order: &Deed) {
        let withdraw = Withdraw { host: order.key, order: order.order.id, why: "so".into() };
        with(Some(Mutant::WithdrawsWhatArrived), || fleet.heal_by(by, Entry::Withdraw(withdraw)));
    }

    #[test]
    fn who_counts_what_reached_nobody_is_caught() {
        let (mut fleet, order, mut rule) = ordered();
        let (mut same, mut done) = (fleet.clone(), RungsAreClimbed::default());
        assert_eq!(look(&mut done, &fleet), Ok(()));
        fleet.elect(2);
        let mut back = fleet.clone();
        fleet.case(4, Event::Expired);
        assert!(look(&mut rule, &fleet).is_err(), "its leader was lost before");
        done.fact(second(1), &Fact::Carried(Box::new(order.clone())), &fleet).unwrap();
        assert_eq!(look(&mut done, &fleet), Ok(()), "it was done, though no receipt came");
        let (_, _, mut rule) = ordered();
        same.case(4, Event::Expired);
        assert_eq!((look(&mut rule, &same), rule.exercised()), (Ok(()), 1), "its leader had its time");
        let (_, _, mut rule) = ordered();
        take_back(&mut back, 2, &order);
        assert_eq!((look(&mut rule, &back), rule.exercised()), (Ok(()), 1), "and another gives it anew");
    }

    #[test]
    fn who_takes_back_what_may_arrive_or_has_arrived_is_caught() {
        let (mut fleet, order, mut rule) = ordered();
        take_back(&mut fleet, 1, &order);
        assert!(look(&mut rule, &fleet).is_err(), "it is its leader's own");
        let (mut fleet, order, mut rule) = ordered();
        let (mesh, id, boot) = (order.order.mesh, order.order.id, order.life.boot);
        let receipt = Receipt { mesh, id, order: order.hash, boot, start: 1 };
        fleet.heal_by(4, Entry::Receipt(Signed::seal(&Keys::from_seed([4; 32]), &receipt)));
        fleet.elect(2);
        take_back(&mut fleet, 2, &order);
        assert!(look(&mut rule, &fleet).is_err(), "its target has it");
    }
}

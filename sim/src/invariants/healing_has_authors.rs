//! Each line of the trail of healing is by somebody who may: a signer, the leader, or the host itself; and a case that
//! waits for an order waits for one that is written.

use super::{HostSeen, Invariant, Name, Truth};
use mesh::healing::{Event, Kind, Line};
use mesh::identity::PeerKey;
use mesh::ledger::Ledger;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Lines that one look may find new.
const NEW_MAX: usize = 64;

/// See the module.
#[derive(Default)]
pub struct HealingHasAuthors {
    /// Of each host's ledger: index and time of the last look, and who signed then.
    looked: BTreeMap<Name, (u64, u64, BTreeSet<PeerKey>)>,
    judged: u64,
}

fn signers(ledger: &Ledger) -> BTreeSet<PeerKey> {
    ledger.roster().members().filter(|(_, member)| member.signer).map(|(key, _)| *key).collect()
}

/// What is wrong with a line, if anything is. Its author may have signed `before`, and have left in the same batch.
fn wrong(ledger: &Ledger, line: &Line, before: &BTreeSet<PeerKey>) -> Option<&'static str> {
    let signs = before.contains(&line.by) || ledger.roster().member(&line.by).is_some_and(|member| member.signer);
    // Between two leaders nobody can tell who led before.
    let leads = ledger.leader().is_none_or(|(leader, _)| leader == line.by);
    let own = line.host == Some(line.by);
    let fine = match line.kind {
        Kind::Policy | Kind::Resumed | Kind::Case(Event::Cleared) => signs,
        Kind::Began(_) | Kind::Lifted(_) => signs || own,
        Kind::Case(_) => leads,
        Kind::Ordered => signs || leads,
        Kind::Told(_) => signs || leads || own,
        Kind::Receipt => true, // the target has signed it
        Kind::Proved => own,
    };
    if !fine {
        return Some("may not");
    }
    let written = |l: &Line| l.kind == Kind::Ordered && l.order == line.order;
    let unwritten = line.kind == Kind::Case(Event::Ordered) && !ledger.healing().audit().lines().rev().any(written);
    unwritten.then_some("notes an order that is not written")
}

impl Invariant for HealingHasAuthors {
    fn name(&self) -> &'static str {
        "healing-has-authors"
    }

    fn source(&self) -> &'static str {
        "rule 3 of the design: signed by its author, `apply` checks power"
    }

    fn look(&mut self, _at: Duration, host: &HostSeen<'_>, _truth: &dyn Truth) -> Result<(), String> {
        let ledger = host.ledger;
        let (index, at_ms, signed) = self.looked.entry(host.name.clone()).or_default();
        let by_one = *index + 1 >= ledger.index();
        if *index == ledger.index() {
            return Ok(());
        }
        let since = std::mem::replace(at_ms, ledger.time_ms());
        let before = std::mem::replace(signed, signers(ledger));
        *index = ledger.index();
        if !by_one {
            return Ok(()); // who led then and who signed then cannot be told any more
        }
        let new = ledger.healing().audit().lines().rev().take(NEW_MAX).take_while(|l| l.at_ms > since);
        for line in new {
            self.judged += 1;
            if let Some(what) = wrong(ledger, line, &before) {
                return Err(format!("{}: {} {what}: {:?}", host.name, line.by, line.kind));
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
    use super::super::fixture::{Fleet, second};
    use super::*;
    use mesh::mutants::{Mutant, with};

    #[test]
    fn a_line_of_somebody_who_may_not_is_caught() {
        let mut fleet = Fleet::of(3);
        let mut rule = HealingHasAuthors::default();
        rule.look(second(1), &fleet.seen(1), &fleet).unwrap();
        fleet.case(3, Event::Blamed);
        assert_eq!(rule.look(second(1), &fleet.seen(1), &fleet), Ok(()));
        let clear = mesh::healing::Clear { host: None, why: "go on".into() };
        with(Some(Mutant::HealByAnybody), || fleet.heal_by(2, mesh::healing::Entry::Clear(clear)));
        assert!(rule.look(second(1), &fleet.seen(1), &fleet).is_err());
        assert_eq!(rule.exercised(), 2);
    }
}

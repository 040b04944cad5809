//! A build runs on no more hosts at a time than it asks to be built on.
//!
//! Two hosts with the same build are twice the work and a race between their reports (incident 11). Judged in every
//! ledger, of attempts that the ledger says run or have succeeded. Never judges what truly runs on a host that the
//! mesh has given up: that one cannot be told.

use super::{HostSeen, Invariant, Name, Truth};
use mesh::build::End;
use std::collections::BTreeMap;
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub struct RunsOnce {
    last: BTreeMap<Name, u64>,
    judged: u64,
}

impl Invariant for RunsOnce {
    fn name(&self) -> &'static str {
        "runs-once"
    }

    fn source(&self) -> &'static str {
        "incident 11: two hosts claimed one package; rule 3 of the design: assigned once, in the ledger"
    }

    fn look(&mut self, _at: Duration, host: &HostSeen<'_>, _truth: &dyn Truth) -> Result<(), String> {
        if self.last.insert(host.name.clone(), host.ledger.index()) == Some(host.ledger.index()) {
            return Ok(());
        }
        for build in host.ledger.builds().running() {
            self.judged += 1;
            let (runs, wanted) = (build.running().count(), build.spec.confirm as usize);
            let has = build.attempts.iter().filter(|a| a.outcome().is_some_and(|o| o.end == End::Done)).count();
            if runs + has > wanted {
                return Err(format!(
                    "{}: {runs} attempts of {} run, {has} succeeded, {wanted} wanted",
                    host.name, build.id
                ));
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
    fn a_build_on_two_hosts_is_caught() {
        let (mut fleet, mut rule) = (Fleet::of(3), RunsOnce::default());
        let build = fleet.submit(1, 1, "one");
        fleet.assign(build, 1, 2);
        assert_eq!(rule.look(second(1), &fleet.seen(1), &fleet), Ok(()));
        with(Some(Mutant::AssignsWhatRuns), || fleet.assign(build, 2, 3));
        assert!(rule.look(second(2), &fleet.seen(1), &fleet).is_err());
    }
}

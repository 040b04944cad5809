//! A build that fails is not tried for ever: as often as it asks for by its own fault, a few times by its hosts'.
//!
//! A misconfigured host drained a queue in a minute (incident 8). Attempts that were lost with their host are nobody's
//! fault and count for nothing but the ledger's own bound. Attempts that ran when the last failure came may still end.

use super::{HostSeen, Invariant, Name, Truth};
use mesh::build::End;
use mesh::limits::ATTEMPTS_MAX;
use std::collections::BTreeMap;
use std::time::Duration;

/// So many failures in phases that are the host's own end a build.
const BY_HOSTS_MAX: usize = 3;

/// See the module.
#[derive(Default)]
pub struct TriesAreBounded {
    last: BTreeMap<Name, u64>,
    judged: u64,
}

impl Invariant for TriesAreBounded {
    fn name(&self) -> &'static str {
        "tries-are-bounded"
    }

    fn source(&self) -> &'static str {
        "incident 8: one build claimed 500 times in a minute; rule 10 of the design: everything is bounded"
    }

    fn look(&mut self, _at: Duration, host: &HostSeen<'_>, _truth: &dyn Truth) -> Result<(), String> {
        if self.last.insert(host.name.clone(), host.ledger.index()) == Some(host.ledger.index()) {
            return Ok(());
        }
        for build in host.ledger.builds().iter().filter(|build| build.attempts.len() > 1) {
            self.judged += 1;
            let failed = || build.attempts.iter().filter_map(|a| a.outcome()).filter(|o| o.end != End::Done);
            let by_command = failed().filter(|o| o.phase.is_command()).count();
            let by_hosts = failed().count() - by_command;
            let beside = (build.spec.confirm as usize).saturating_sub(1);
            let (own, hosts) = (build.spec.retries as usize + 1 + beside, BY_HOSTS_MAX + beside);
            if by_command > own || by_hosts > hosts || build.attempts.len() > ATTEMPTS_MAX as usize {
                let (id, all) = (build.id, build.attempts.len());
                return Err(format!(
                    "{}: {id} has failed {by_command} times by itself and {by_hosts} times by hosts, in {all} attempts; \
                     {own} and {hosts} are the most",
                    host.name
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
    fn a_build_that_fails_again_and_again_is_caught() {
        let naive = Some(Mutant::RetriesWithoutBound);
        for (mutant, well) in [(None, true), (naive, false)] {
            let (mut fleet, mut rule) = (Fleet::of(3), TriesAreBounded::default());
            let build = fleet.submit(1, 1, "one");
            let mut seen = Ok(());
            for attempt in 1..=3 {
                let host = 2 + (attempt % 2) as u8;
                with(mutant, || fleet.fail(build, attempt, host));
                seen = seen.and(rule.look(second(1), &fleet.seen(1), &fleet));
            }
            assert_eq!(seen.is_ok(), well, "{seen:?}");
            assert!(rule.exercised() > 0);
        }
    }
}

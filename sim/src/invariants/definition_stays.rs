//! What a build is stays as it was submitted: in every ledger, at all times, and in every retry of it.
//!
//! A flag that each retry appended to a name made all retries fail (incident 16). Never judges what became of a
//! build ([`super::ends_once`]), nor who asked for it ([`super::authorship`]).

use super::{HostSeen, Invariant, Name, Truth};
use mesh::build::{BuildId, BuildSpec};
use std::collections::BTreeMap;
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub struct DefinitionStays {
    specs: BTreeMap<BuildId, BuildSpec>,
    last: BTreeMap<Name, u64>,
    judged: u64,
}

impl Invariant for DefinitionStays {
    fn name(&self) -> &'static str {
        "definition-stays"
    }

    fn source(&self) -> &'static str {
        "incident 16: a job's definition is immutable, attempts are separate"
    }

    fn look(&mut self, _at: Duration, host: &HostSeen<'_>, _truth: &dyn Truth) -> Result<(), String> {
        if self.last.insert(host.name.clone(), host.ledger.index()) == Some(host.ledger.index()) {
            return Ok(());
        }
        for build in host.ledger.builds().iter() {
            let known = self.specs.entry(build.id).or_insert_with(|| build.spec.clone());
            if *known != build.spec {
                return Err(format!("{}: {} is not what it was", host.name, build.id));
            }
            if let Some(of) = build.retry_of {
                self.judged += 1;
                let first = self.specs.get(&of);
                if first.is_some_and(|first| *first != build.spec) {
                    return Err(format!("{}: {} is tried again as {}, which differs", host.name, of, build.id));
                }
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
    fn a_retry_that_is_another_build_is_caught() {
        for (mutant, well) in [(None, true), (Some(Mutant::RetryChangesTheBuild), false)] {
            let (mut fleet, mut rule) = (Fleet::of(3), DefinitionStays::default());
            let build = fleet.submit(1, 1, "one");
            fleet.cancel(build);
            with(mutant, || fleet.retry(build));
            assert_eq!(rule.look(second(1), &fleet.seen(1), &fleet).is_ok(), well);
            assert_eq!(rule.exercised(), 1);
        }
    }
}

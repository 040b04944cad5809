//! A request that is sent again is the same request: it has the same builds, and no more of them.
//!
//! Names are unique in a scenario, so that two builds of one name are one too many, unless one repeats the
//! other by its owner's wish. Never judges what a request asks for.

use super::{Fact, HostSeen, Invariant, Name, Truth};
use mesh::build::BuildId;
use std::collections::BTreeMap;
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub struct RequestsCountOnce {
    answers: BTreeMap<u64, Vec<BuildId>>,
    last: BTreeMap<Name, u64>,
    judged: u64,
}

impl Invariant for RequestsCountOnce {
    fn name(&self) -> &'static str {
        "requests-count-once"
    }

    fn source(&self) -> &'static str {
        "Ongaro, Consensus (2014), 6.3: sessions make a retry linearisable"
    }

    fn fact(&mut self, _at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        if let Fact::Accepted { request, builds } = fact {
            self.judged += 1;
            let known = self.answers.entry(*request).or_insert_with(|| builds.clone());
            if known != builds {
                return Err(format!("request {request} was answered with {known:?}, and then with {builds:?}"));
            }
        }
        Ok(())
    }

    fn look(&mut self, _at: Duration, host: &HostSeen<'_>, _truth: &dyn Truth) -> Result<(), String> {
        if self.last.insert(host.name.clone(), host.ledger.index()) == Some(host.ledger.index()) {
            return Ok(());
        }
        let mut names = BTreeMap::new();
        for build in host.ledger.builds().iter().filter(|b| b.retry_of.is_none()) {
            if let Some(other) = names.insert(build.spec.name.as_str(), build.id) {
                let name = &build.spec.name;
                return Err(format!("{}: {other} and {} are both `{name}`, asked for once", host.name, build.id));
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
    fn a_retry_that_makes_a_second_build_is_caught() {
        let mut fleet = Fleet::of(2);
        let mut rule = RequestsCountOnce::default();
        let accepted = |build| Fact::Accepted { request: 1, builds: vec![build] };
        let build = fleet.submit(1, 1, "one");
        assert_eq!(rule.fact(second(1), &accepted(build), &fleet), Ok(()));
        let again = fleet.submit(1, 1, "one");
        assert_eq!(rule.fact(second(1), &accepted(again), &fleet), Ok(()));
        assert_eq!(rule.look(second(1), &fleet.seen(1), &fleet), Ok(()));
        let naive = with(Some(Mutant::RequestIdIgnored), || fleet.submit(1, 1, "one"));
        assert!(rule.fact(second(2), &accepted(naive), &fleet).is_err());
        assert!(rule.look(second(2), &fleet.seen(1), &fleet).is_err());
    }
}

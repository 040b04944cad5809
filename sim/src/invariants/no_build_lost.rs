//! A build that a client was told of is in every ledger that reaches as far, until the ledger's own bound.
//!
//! That it also ends is liveness, which the stage judges. Never asks what became of it
//! ([`super::ends_once`]).

use super::{Fact, HostSeen, Invariant, Name, Truth};
use mesh::build::BuildId;
use mesh::limits::FINISHED_BUILDS_MAX;
use std::collections::BTreeMap;
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub struct NoBuildLost {
    /// Builds that clients know; the lowest index at which each was seen.
    accepted: BTreeMap<BuildId, Option<u64>>,
    /// Index at a host's last look, and the accepted builds that it lacked.
    last: BTreeMap<Name, (u64, Vec<BuildId>)>,
    judged: u64,
}

impl Invariant for NoBuildLost {
    fn name(&self) -> &'static str {
        "no-build-lost"
    }

    fn source(&self) -> &'static str {
        "Ongaro, Consensus (2014), 6.3: what a client was told stands; rule 3 of the design"
    }

    fn fact(&mut self, _at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        if let Fact::Accepted { builds, .. } = fact {
            for build in builds {
                self.accepted.entry(*build).or_default();
            }
            self.last.clear(); // every ledger is asked for them
        }
        Ok(())
    }

    fn look(&mut self, _at: Duration, host: &HostSeen<'_>, _truth: &dyn Truth) -> Result<(), String> {
        let index = host.ledger.index();
        if self.last.get(host.name).is_some_and(|(last, _)| *last == index) {
            return Ok(());
        }
        let builds = host.ledger.builds();
        let full = builds.iter().filter(|b| b.state.is_final()).count() >= FINISHED_BUILDS_MAX;
        let mut lacks = vec![];
        for (build, first) in &mut self.accepted {
            self.judged += 1;
            match (builds.get(*build), *first) {
                (Some(_), _) => *first = Some(first.map_or(index, |first| first.min(index))),
                (None, Some(first)) if index >= first && !full => {
                    return Err(format!("{} does not know {build} any more at index {index}", host.name));
                }
                (None, _) => lacks.push(*build),
            }
        }
        self.last.insert(host.name.clone(), (index, lacks));
        Ok(())
    }

    fn finish(&mut self, _at: Duration) -> Result<(), String> {
        let longest = self.last.values().max_by_key(|(index, _)| *index);
        match longest {
            Some((index, lacks)) if !lacks.is_empty() => {
                Err(format!("clients were told of {lacks:?}, which the longest ledger lacks, at {index}"))
            }
            _ => Ok(()),
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
    fn a_build_that_a_client_knows_and_no_ledger_is_caught() {
        let mut fleet = Fleet::of(3);
        let mut other = fleet.clone();
        let mut rule = NoBuildLost::default();
        let build = fleet.submit(1, 1, "one");
        rule.fact(second(1), &Fact::Accepted { request: 1, builds: vec![build] }, &fleet).unwrap();
        assert_eq!(rule.look(second(1), &other.seen(2), &fleet), Ok(()), "behind is well");
        assert!(rule.finish(second(1)).is_err());
        assert_eq!(rule.look(second(2), &fleet.seen(1), &fleet), Ok(()));
        assert_eq!(rule.finish(second(2)), Ok(()));
        for _ in 0..2 {
            other.elect(2); // as far, without the build
        }
        assert!(rule.look(second(3), &other.seen(2), &fleet).is_err());
    }
}

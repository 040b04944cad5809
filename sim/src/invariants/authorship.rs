//! The ledger says of nobody what he did not do: builds were asked for by who it names, attempts put forward by a
//! leader and ended by their host.
//!
//! Compared with what hosts truly did, which no ledger can show by itself: a forged entry that counts looks
//! like any other there. Judged only of kinds that the tier tells ([`Fact::Asked`], [`Fact::Proposed`],
//! [`Fact::Ended`]). Never verifies a signature itself.

use super::{Fact, HostSeen, Invariant, Name, Truth};
use mesh::build::{Attempt, BuildId};
use mesh::identity::PeerKey;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub struct Authorship {
    asked: BTreeSet<(PeerKey, String)>,
    proposed: BTreeSet<(BuildId, Attempt, PeerKey)>,
    ended: BTreeSet<(BuildId, Attempt, PeerKey)>,
    last: BTreeMap<Name, u64>,
    judged: u64,
}

impl Invariant for Authorship {
    fn name(&self) -> &'static str {
        "authorship"
    }

    fn source(&self) -> &'static str {
        "rule 3 of the design: signed by its author; Lamport, Shostak and Pease (1982), signed messages"
    }

    fn fact(&mut self, _at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        match fact {
            Fact::Asked { key, names, .. } => self.asked.extend(names.iter().map(|name| (*key, name.clone()))),
            Fact::Proposed { build, attempt, to, .. } => {
                self.proposed.insert((*build, *attempt, *to));
            }
            Fact::Ended { key, build, attempt } => {
                self.ended.insert((*build, *attempt, *key));
            }
            _ => {}
        }
        Ok(())
    }

    fn look(&mut self, _at: Duration, host: &HostSeen<'_>, _truth: &dyn Truth) -> Result<(), String> {
        if self.last.insert(host.name.clone(), host.ledger.index()) == Some(host.ledger.index()) {
            return Ok(());
        }
        for build in host.ledger.builds().iter() {
            self.judged += 1;
            let (id, by, at) = (build.id, build.by, host.name);
            if !self.asked.is_empty() && !self.asked.contains(&(by, build.spec.name.clone())) {
                return Err(format!("{at}: {id} is said to be {by}'s, who never asked for `{}`", build.spec.name));
            }
            for attempt in &build.attempts {
                let it = (id, attempt.number, attempt.host);
                if !self.proposed.is_empty() && !self.proposed.contains(&it) {
                    return Err(format!("{at}: attempt {} of {id} was given by no leader", it.1));
                }
                if attempt.outcome().is_some() && !self.ended.is_empty() && !self.ended.contains(&it) {
                    return Err(format!("{at}: attempt {} of {id} did not end on {}", it.1, it.2));
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
    use super::super::fixture::{Fleet, key, second};
    use super::*;

    #[test]
    fn what_nobody_did_is_caught() {
        let mut fleet = Fleet::of(3);
        let build = fleet.submit(1, 1, "one");
        fleet.assign(build, 1, 2);
        fleet.done(build, 1, 2, &[2, 3]);
        let (attempt, fence) = (Attempt(1), Default::default());
        let asked = |n| Fact::Asked { key: key(n), request: 1, names: vec!["one".into()] };
        let proposed = |n| Fact::Proposed { key: key(1), fence, build, attempt, to: key(n) };
        let ended = |n| Fact::Ended { key: key(n), build, attempt };
        for (facts, well) in [
            ([asked(1), proposed(2), ended(2)], true),
            ([asked(2), proposed(2), ended(2)], false),
            ([asked(1), proposed(3), ended(2)], false),
            ([asked(1), proposed(2), ended(3)], false),
        ] {
            let mut rule = Authorship::default();
            for fact in &facts {
                rule.fact(second(1), fact, &fleet).unwrap();
            }
            assert_eq!(rule.look(second(2), &fleet.seen(1), &fleet).is_ok(), well, "{facts:?}");
        }
    }
}

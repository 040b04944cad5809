//! Nobody speaks with a key that never was a member, nor with one that its own ledger has taken out.
//!
//! A host that has not heard of a revocation yet may still speak with who was revoked: it cannot know.
//! Admission and joining are not speaking. Never asks for names or addresses.

use super::{Fact, HostSeen, Invariant, Name, Truth};
use mesh::identity::PeerKey;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub struct NoStrangers {
    /// Every key that any ledger ever had as a member.
    ever: BTreeSet<PeerKey>,
    /// Whom each host's ledger had taken out at its last look, with the index of that.
    out: BTreeMap<Name, (u64, BTreeSet<PeerKey>)>,
    judged: u64,
}

impl Invariant for NoStrangers {
    fn name(&self) -> &'static str {
        "no-strangers"
    }

    fn source(&self) -> &'static str {
        "rule 9 of the design: nobody joins uninvited, and a revoked key is out everywhere"
    }

    fn fact(&mut self, _at: Duration, fact: &Fact, truth: &dyn Truth) -> Result<(), String> {
        match fact {
            Fact::Spoke { host, with } => {
                self.judged += 1;
                if !self.ever.contains(with) && !truth.is_member(with) {
                    return Err(format!("{host} speaks with {with}, who was never a member"));
                }
                if self.out.get(host).is_some_and(|(_, out)| out.contains(with)) {
                    return Err(format!("{host} speaks with {with}, though its ledger has taken that out"));
                }
            }
            Fact::Stopped { host } | Fact::Wiped { host } => {
                self.out.remove(host); // it may come back with an older ledger
            }
            _ => {}
        }
        Ok(())
    }

    fn look(&mut self, _at: Duration, host: &HostSeen<'_>, _truth: &dyn Truth) -> Result<(), String> {
        let index = host.ledger.index();
        if self.out.get(host.name).is_none_or(|(last, _)| *last != index) {
            let roster = host.ledger.roster();
            self.ever.extend(roster.members().map(|(key, _)| *key));
            let out = roster.all_revoked().map(|(key, _)| *key).collect();
            self.out.insert(host.name.clone(), (index, out));
        }
        Ok(())
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fleet, key, name, second};
    use super::*;

    #[test]
    fn strangers_and_the_revoked_are_caught() {
        let mut fleet = Fleet::of(3);
        let mut rule = NoStrangers::default();
        let spoke = |n| Fact::Spoke { host: name(1), with: key(n) };
        assert_eq!(rule.look(second(1), &fleet.seen(1), &fleet), Ok(()));
        assert_eq!(rule.fact(second(1), &spoke(3), &fleet), Ok(()));
        assert!(rule.fact(second(1), &spoke(77), &fleet).is_err());
        fleet.evict(3);
        assert_eq!(rule.fact(second(2), &spoke(3), &fleet), Ok(()), "it has not heard of it");
        assert_eq!(rule.look(second(2), &fleet.seen(1), &fleet), Ok(()));
        assert!(rule.fact(second(3), &spoke(3), &fleet).is_err());
    }
}

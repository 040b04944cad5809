//! Whoever had to agree to a deed did: for this very order, this very nonce, and as what the target knows them to be.
//!
//! A leader's order needs the leader, who is one of the voters, and a majority of them, two of which are not the target;
//! a person's order needs that person, who is a signer. Counted are signatures that hosts truly gave, a voter that lies
//! among them: whatever a warrant carries. A key that the target knows to be out counts for nothing.

use super::{Deed, Fact, Invariant, Truth};
use mesh::identity::PeerKey;
use mesh::warrant::{Authority, OrderHash};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Signatures that are remembered: none is of use for longer than a nonce is.
const KEPT_MAX: usize = 4_096;

/// An order, a nonce, an epoch.
type Over = (OrderHash, [u8; 32], u64);

/// See the module.
#[derive(Default)]
pub struct ActsAreAgreed {
    given: BTreeMap<Over, BTreeSet<PeerKey>>,
    oldest: VecDeque<Over>,
    judged: u64,
}

impl ActsAreAgreed {
    fn keep(&mut self, over: Over, signer: PeerKey) {
        let by = self.given.entry(over).or_default();
        if by.is_empty() {
            self.oldest.push_back(over);
        }
        by.insert(signer);
        if self.oldest.len() > KEPT_MAX
            && let Some(over) = self.oldest.pop_front()
        {
            self.given.remove(&over);
        }
    }

    fn judge(&self, deed: &Deed) -> Result<(), String> {
        let known = &deed.known;
        let chain = known.voters();
        let author = deed.author;
        let may = match deed.order.authority {
            Authority::Person => known.is_signer(&author),
            Authority::Leader => chain.voters().contains(&author),
        };
        if !may {
            let (host, id) = (&deed.host, deed.order.id);
            return Err(format!("{host} carried out {id} of {author}, who is no signer or does not vote"));
        }
        let Some(nonce) = deed.nonce else { return Ok(()) };
        let by = self.given.get(&(deed.hash, nonce, chain.epoch()));
        let by: BTreeSet<PeerKey> = by.into_iter().flatten().copied().filter(|key| !known.is_revoked(key)).collect();
        let hand = self.given.range((deed.hash, nonce, 0)..=(deed.hash, nonce, u64::MAX));
        let own = hand.flat_map(|(_, by)| by).any(|key| *key == deed.author) && !known.is_revoked(&deed.author);
        let (host, id) = (&deed.host, deed.order.id);
        if !own {
            return Err(format!("{host} carried out {id}, for which {author} wrote no signature over this nonce"));
        }
        if deed.order.authority == Authority::Person {
            return Ok(());
        }
        let voters = chain.voters();
        let valid = by.intersection(voters).count();
        let others = by.intersection(voters).filter(|key| **key != deed.key).count();
        if valid < chain.majority() || others < 2 {
            let needed = chain.majority();
            return Err(format!("{host} carried out {id}, signed by {valid} of {needed} voters, {others} others"));
        }
        if deed.order.force {
            return Err(format!("{host} carried out {id}, which no person forced"));
        }
        Ok(())
    }
}

impl Invariant for ActsAreAgreed {
    fn name(&self) -> &'static str {
        "acts-are-agreed"
    }

    fn source(&self) -> &'static str {
        "rules 2 and 5 of the design; Lamport, Shostak and Pease, The Byzantine generals problem (1982)"
    }

    fn fact(&mut self, _at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        match fact {
            Fact::Signed(given) => {
                self.keep((given.hash, given.hello.nonce, given.epoch), given.by);
                Ok(())
            }
            Fact::SignedBlindly { by, order, nonce, epoch } => {
                self.keep((*order, *nonce, *epoch), *by);
                Ok(())
            }
            Fact::Carried(deed) => {
                self.judged += 1;
                self.judge(deed)
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
    use super::super::Signature;
    use super::super::fixture::{Fleet, deed, key, second, signature};
    use super::*;

    #[test]
    fn too_few_signatures_and_those_over_something_else_are_caught() {
        let mut fleet = Fleet::of(5);
        fleet.voters(&[1, 2, 3]);
        let leaders = deed(&fleet, 4, 1);
        let judge = |given: Vec<Signature>, deed: &Deed| {
            let mut rule = ActsAreAgreed::default();
            for one in given {
                rule.fact(second(1), &Fact::Signed(Box::new(one)), &fleet).unwrap();
            }
            rule.fact(second(1), &Fact::Carried(Box::new(deed.clone())), &fleet)
        };
        let by = |n: u8| signature(&fleet, n, &leaders);
        assert_eq!(judge(vec![by(1), by(2)], &leaders), Ok(()));
        assert!(judge(vec![by(1)], &leaders).is_err(), "one of two");
        assert!(judge(vec![by(2), by(3)], &leaders).is_err(), "not the author");
        assert!(judge(vec![by(1), by(4)], &leaders).is_err(), "one is no voter");
        let mut other = by(2);
        other.hello.nonce = [9; 32];
        assert!(judge(vec![by(1), other], &leaders).is_err(), "another nonce");
        let mut old = by(2);
        old.epoch -= 1;
        assert!(judge(vec![by(1), old], &leaders).is_err(), "another epoch");
        // The jury counts a liar for what it is: one voter, who can neither stand in for the author nor be two.
        let with_liar = |honest: u8, liar: u8| {
            let mut rule = ActsAreAgreed::default();
            let (order, nonce, epoch) = (leaders.hash, leaders.nonce.unwrap(), by(1).epoch);
            rule.fact(second(1), &Fact::Signed(Box::new(by(honest))), &fleet).unwrap();
            let blindly = Fact::SignedBlindly { by: key(liar), order, nonce, epoch };
            rule.fact(second(1), &blindly, &fleet).unwrap();
            rule.fact(second(1), &Fact::Carried(Box::new(leaders.clone())), &fleet)
        };
        assert_eq!(with_liar(1, 3), Ok(()));
        assert!(with_liar(1, 1).is_err(), "no second voter");
        assert!(with_liar(1, 4).is_err(), "one that does not vote");
        assert!(with_liar(2, 3).is_err(), "a majority without the leader");
        let mut hand = leaders.clone();
        hand.order.authority = Authority::Person;
        assert_eq!(judge(vec![by(1)], &hand), Ok(()));
        hand.author = key(2);
        assert!(judge(vec![by(1)], &hand).is_err());
    }
}

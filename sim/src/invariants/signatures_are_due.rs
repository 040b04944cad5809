//! A voter signs only what it may, by its own ledger and its own view, and for one hello of one order, ever.
//!
//! A signer under its own order by hand signs a hello of the order's target, in the life that the order is for. Judged
//! from what the signing host truly had before it, not from what it was told.

use super::{Fact, Invariant, Signature, Truth};
use mesh::identity::PeerKey;
use mesh::limits::ORDER_MS_MAX;
use mesh::warrant::OrderHash;
use std::collections::BTreeMap;
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub struct SignaturesAreDue {
    /// The nonce that each voter has signed under each order.
    signed: BTreeMap<(PeerKey, OrderHash), [u8; 32]>,
    judged: u64,
}

/// What is wrong with a signature, if anything is.
fn wrong(given: &Signature) -> Option<&'static str> {
    let Signature { order, hello, .. } = given;
    if given.greeter != order.target {
        return Some("for a hello of somebody else");
    }
    if hello.boot != order.boot || (!order.act.is_reboot() && hello.start != order.start) {
        return Some("for another life than the order's");
    }
    if hello.highest > order.fence {
        return Some("though the target has seen a later fence");
    }
    let voter = given.voter.as_ref()?;
    let lives = order.expires_ms > voter.now_ms && order.expires_ms <= voter.now_ms.saturating_add(ORDER_MS_MAX);
    let tests = [
        (voter.votes && !voter.suspended, "and may not"),
        (voter.written, "and its ledger does not hold it, open"),
        (voter.leader == Some((given.author, order.fence)), "and another leads by its ledger"),
        (lives, "and it has ended, or never does"),
        (!order.force, "though no person forced it"),
        (voter.held_back.is_none(), "against its own judgement"),
    ];
    tests.into_iter().find(|(holds, _)| !holds).map(|(_, what)| what)
}

impl Invariant for SignaturesAreDue {
    fn name(&self) -> &'static str {
        "signatures-are-due"
    }

    fn source(&self) -> &'static str {
        "rules 3, 5 and 6 of the design: every voter checks for itself; Castro and Liskov, PBFT (1999)"
    }

    fn fact(&mut self, _at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        let Fact::Signed(given) = fact else { return Ok(()) };
        self.judged += 1;
        let (by, id) = (given.by, given.order.id);
        if let Some(what) = wrong(given) {
            return Err(format!("{by} signed {id} {what}"));
        }
        if given.voter.is_some() {
            let nonce = *self.signed.entry((by, given.hash)).or_insert(given.hello.nonce);
            if nonce != given.hello.nonce {
                return Err(format!("{by} signed {id} for two hellos"));
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
    use super::super::fixture::{Fleet, deed, key, second, signature};
    use super::*;

    #[test]
    fn each_thing_that_may_not_be_signed_is_caught() {
        let mut fleet = Fleet::of(4);
        fleet.voters(&[1, 2, 3]);
        let good = signature(&fleet, 2, &deed(&fleet, 4, 1));
        let judge = |given: &Signature| {
            SignaturesAreDue::default().fact(second(1), &Fact::Signed(Box::new(given.clone())), &fleet)
        };
        assert_eq!(judge(&good), Ok(()));
        let changes: [fn(&mut Signature); 9] = [
            |s| s.greeter = key(3),
            |s| s.hello.boot.0[0] ^= 1,
            |s| s.hello.highest.term = u64::MAX,
            |s| s.order.expires_ms = 0,
            |s| s.order.force = true,
            |s| s.author = key(3),
            |s| s.voter.as_mut().unwrap().written = false,
            |s| s.voter.as_mut().unwrap().suspended = true,
            |s| s.voter.as_mut().unwrap().held_back = Some("it builds".into()),
        ];
        for change in changes {
            let mut bad = good.clone();
            change(&mut bad);
            assert!(judge(&bad).is_err(), "{bad:?}");
        }
        let mut rule = SignaturesAreDue::default();
        let mut again = good.clone();
        again.hello.nonce = [8; 32];
        assert_eq!(rule.fact(second(1), &Fact::Signed(Box::new(good)), &fleet), Ok(()));
        assert!(rule.fact(second(1), &Fact::Signed(Box::new(again)), &fleet).is_err());
    }
}

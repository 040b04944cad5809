//! An order is carried out once, wherever and however often it arrives.
//!
//! By its id and by its hash: two orders that share an id are one for whoever reads the trail. Copies of a host count
//! with their original, for an order names the key that they share.

use super::{Fact, Invariant, Name, Truth};
use mesh::warrant::{OrderHash, OrderId};
use std::collections::BTreeMap;
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub struct ActsOnce {
    ids: BTreeMap<OrderId, Name>,
    hashes: BTreeMap<OrderHash, Name>,
    judged: u64,
}

impl Invariant for ActsOnce {
    fn name(&self) -> &'static str {
        "acts-once"
    }

    fn source(&self) -> &'static str {
        "rule 2 of the design: that it has not acted on; Lampson, Atomic transactions (1981), idempotence"
    }

    fn fact(&mut self, _at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        let Fact::Carried(deed) = fact else { return Ok(()) };
        self.judged += 1;
        let before = self.ids.insert(deed.order.id, deed.host.clone());
        let before = before.or(self.hashes.insert(deed.hash, deed.host.clone()));
        match before {
            None => Ok(()),
            Some(first) => Err(format!("{} carried out {} after {first} had", deed.host, deed.order.id)),
        }
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fleet, deed, second};
    use super::*;

    #[test]
    fn a_second_time_is_caught_and_another_order_is_not() {
        let fleet = Fleet::of(2);
        let mut rule = ActsOnce::default();
        let mut judge = |deed| rule.fact(second(1), &Fact::Carried(Box::new(deed)), &fleet);
        let first = deed(&fleet, 1, 1);
        assert_eq!(judge(first.clone()), Ok(()));
        assert_eq!(judge(deed(&fleet, 1, 2)), Ok(()));
        assert!(judge(first.clone()).is_err());
        let mut shared = deed(&fleet, 2, 3);
        shared.order.id = first.order.id;
        assert!(judge(shared).is_err(), "another order of the same id");
    }
}

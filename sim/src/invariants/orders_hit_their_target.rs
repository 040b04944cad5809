//! An order is carried out by the process whose key it names, on no other, and once.
//!
//! Whatever address the order reached: DHCP and hypervisors move those. Fences are
//! [`super::fences_rise`]'s. Never judges whether the order was a good one.

use super::{Fact, Invariant, Truth};
use mesh::identity::PeerKey;
use std::collections::BTreeSet;
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub struct OrdersHitTheirTarget {
    carried: BTreeSet<(PeerKey, u64)>,
    judged: u64,
}

impl Invariant for OrdersHitTheirTarget {
    fn name(&self) -> &'static str {
        "orders-hit-their-target"
    }

    fn source(&self) -> &'static str {
        "rules 1 and 2 of the design: the target decides; Saltzer, Reed and Clark, End-to-end arguments (1984)"
    }

    fn fact(&mut self, _at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        let Fact::Carried { host, key, named, order, .. } = fact else { return Ok(()) };
        self.judged += 1;
        if key != named {
            return Err(format!("{host} ({key}) carried out order {order}, which names {named}"));
        }
        match self.carried.insert((*named, *order)) {
            true => Ok(()),
            false => Err(format!("{host} carried out order {order} again")),
        }
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
    fn another_host_and_a_second_time_are_caught() {
        let fleet = Fleet::of(2);
        let mut rule = OrdersHitTheirTarget::default();
        let carried = |host: u8, order| Fact::Carried {
            host: name(host),
            key: key(host),
            named: key(1),
            order,
            fence: Default::default(),
        };
        assert_eq!(rule.fact(second(1), &carried(1, 1), &fleet), Ok(()));
        assert_eq!(rule.fact(second(1), &carried(1, 2), &fleet), Ok(()));
        assert!(rule.fact(second(2), &carried(2, 3), &fleet).is_err());
        assert!(rule.fact(second(2), &carried(1, 2), &fleet).is_err());
    }
}

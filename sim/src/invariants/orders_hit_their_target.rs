//! An order is carried out by the host whose key it names, in the life that it names, and on no other.
//!
//! Whatever address the order reached: DHCP and hypervisors move those. The life is the boot, and for a restart of the
//! service its start number too: whoever has restarted since is another. That an order is carried out once is
//! [`super::acts_once`]'s. Never judges whether the order was a good one.

use super::{Fact, Invariant, Truth};
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub struct OrdersHitTheirTarget {
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
        let Fact::Carried(deed) = fact else { return Ok(()) };
        self.judged += 1;
        let (host, order) = (&deed.host, &deed.order);
        if deed.key != order.target {
            return Err(format!("{host} ({}) carried out {}, which names {}", deed.key, order.id, order.target));
        }
        if deed.life.boot != order.boot {
            let (named, is) = (order.boot, deed.life.boot);
            return Err(format!("{host} carried out {} in boot {is:?}, which names boot {named:?}", order.id));
        }
        if !order.act.is_reboot() && deed.life.start != order.start {
            let (named, is) = (order.start, deed.life.start);
            return Err(format!("{host} carried out {} in start {is}, which names start {named}", order.id));
        }
        Ok(())
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fleet, deed, key, second};
    use super::*;
    use mesh::order::{Act, BootId, Gently};

    #[test]
    fn another_host_and_another_life_are_caught() {
        let fleet = Fleet::of(2);
        let mut rule = OrdersHitTheirTarget::default();
        let judge =
            |rule: &mut OrdersHitTheirTarget, deed| rule.fact(second(1), &Fact::Carried(Box::new(deed)), &fleet);
        let good = deed(&fleet, 1, 1);
        assert_eq!(judge(&mut rule, good.clone()), Ok(()));
        let mut other = good.clone();
        other.order.target = key(2);
        assert!(judge(&mut rule, other).is_err());
        let mut rebooted = good.clone();
        rebooted.life.boot = BootId([9; 16]);
        assert!(judge(&mut rule, rebooted).is_err());
        let mut restarted = good;
        restarted.life.start += 1;
        assert_eq!(judge(&mut rule, restarted.clone()), Ok(()), "a machine reboots whatever its service has done");
        restarted.order.act = Act::Restart(Gently { grace_ms: 1 });
        assert!(judge(&mut rule, restarted).is_err());
    }
}

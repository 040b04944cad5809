//! No leader's order is carried out by a host with which nothing has been wrong lately, and none is set aside.
//!
//! What is wrong is the world's word: the host was down, cut off, asleep or short of something, or its builds failed on
//! it, some minutes ago at most. What a person orders is that person's affair.

use super::{Fact, Invariant, Truth};
use mesh::warrant::Authority;
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub struct HealthyIsNotHealed {
    judged: u64,
}

impl Invariant for HealthyIsNotHealed {
    fn name(&self) -> &'static str {
        "healthy-is-not-healed"
    }

    fn source(&self) -> &'static str {
        "rules 5 and 6 of the design; incidents 1, 9 and 13"
    }

    fn fact(&mut self, _at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        if let Fact::SetAside { host, ails: false, .. } = fact {
            return Err(format!("{host} is well, and was set aside"));
        }
        let Fact::Carried(deed) = fact else { return Ok(()) };
        if deed.order.authority == Authority::Person {
            return Ok(());
        }
        self.judged += 1;
        match deed.ails {
            true => Ok(()),
            false => Err(format!("{} is well, and carried out {}: {}", deed.host, deed.order.id, deed.order.reason)),
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
    fn a_leader_that_heals_the_well_is_caught() {
        let fleet = Fleet::of(2);
        let mut rule = HealthyIsNotHealed::default();
        let mut judge = |deed| rule.fact(second(1), &Fact::Carried(Box::new(deed)), &fleet);
        let mut deed = deed(&fleet, 1, 1);
        assert_eq!(judge(deed.clone()), Ok(()));
        deed.ails = false;
        assert!(judge(deed.clone()).is_err());
        deed.order.authority = Authority::Person;
        assert_eq!(judge(deed), Ok(()));
    }
}

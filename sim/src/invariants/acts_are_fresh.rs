//! A deed is of now: of this mesh, for a nonce that is at most ten seconds old, of an order that has not ended, and, when
//! a leader ordered it, by a roster that is at most a week old.
//!
//! All by the host's own clocks, as the simulation has them, and by the roster as the host has it: what a host cut off
//! from all others cannot know it cannot be asked for.

use super::{Fact, Invariant, Truth};
use mesh::limits::{NONCE_MS_MAX, ROSTER_MS_MAX};
use mesh::warrant::Authority;
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub struct ActsAreFresh {
    judged: u64,
}

impl Invariant for ActsAreFresh {
    fn name(&self) -> &'static str {
        "acts-are-fresh"
    }

    fn source(&self) -> &'static str {
        "rules 2 and 8 of the design; Needham and Schroeder (1978), Denning and Sacco (1981) on replayed messages"
    }

    fn fact(&mut self, _at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        let Fact::Carried(deed) = fact else { return Ok(()) };
        self.judged += 1;
        let (host, order, known) = (&deed.host, &deed.order, &deed.known);
        let late = |what: String| Err(format!("{host} carried out {}, {what}", order.id));
        if order.mesh != known.mesh() {
            return late("which is of another mesh".into());
        }
        if deed.took_ms > NONCE_MS_MAX {
            return late(format!("{} ms after its nonce", deed.took_ms));
        }
        if order.expires_ms <= known.as_of_ms() {
            return late(format!("which ended {} ms before", known.as_of_ms() - order.expires_ms));
        }
        let age_ms = known.age_ms(deed.life.wall_ms);
        if order.authority == Authority::Leader && age_ms > ROSTER_MS_MAX {
            return late(format!("by a roster that is {age_ms} ms old"));
        }
        Ok(())
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::super::Deed;
    use super::super::fixture::{Fleet, deed, second};
    use super::*;

    #[test]
    fn what_is_late_is_caught() {
        let fleet = Fleet::of(2);
        let mut rule = ActsAreFresh::default();
        let mut judge = |change: fn(&mut Deed)| {
            let mut deed = deed(&fleet, 1, 1);
            change(&mut deed);
            rule.fact(second(1), &Fact::Carried(Box::new(deed)), &fleet)
        };
        assert_eq!(judge(|_| ()), Ok(()));
        assert!(judge(|deed| deed.took_ms = NONCE_MS_MAX + 1).is_err());
        assert!(judge(|deed| deed.order.expires_ms = deed.known.as_of_ms()).is_err());
        assert!(judge(|deed| deed.life.wall_ms += ROSTER_MS_MAX + 1).is_err());
        assert!(judge(|deed| deed.order.mesh.0[0] ^= 1).is_err());
    }
}

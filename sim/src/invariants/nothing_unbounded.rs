//! No table of a host grows beyond its bound.
//!
//! Bounds are those of `limits.rs` and of each table; the tier shows value and bound. Never judges memory,
//! which the allocator rounds.

use super::{HostSeen, Invariant, Truth};
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub struct NothingUnbounded {
    judged: u64,
}

impl Invariant for NothingUnbounded {
    fn name(&self) -> &'static str {
        "nothing-unbounded"
    }

    fn source(&self) -> &'static str {
        "rule 10 of the design: everything is bounded"
    }

    fn look(&mut self, _at: Duration, host: &HostSeen<'_>, _truth: &dyn Truth) -> Result<(), String> {
        self.judged += host.sizes.len() as u64;
        match host.sizes.iter().find(|size| size.value > size.bound) {
            Some(size) => Err(format!("{}: {} {}, at most {}", host.name, size.value, size.what, size.bound)),
            None => Ok(()),
        }
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::super::Size;
    use super::super::fixture::{Fleet, second};
    use super::*;

    #[test]
    fn one_too_many_is_caught() {
        let fleet = Fleet::of(1);
        let mut rule = NothingUnbounded::default();
        for (value, well) in [(7, true), (8, true), (9, false)] {
            let sizes = [Size { what: "leads", value, bound: 8 }];
            let seen = HostSeen { sizes: &sizes, ..fleet.seen(1) };
            assert_eq!(rule.look(second(1), &seen, &fleet).is_ok(), well);
        }
        assert_eq!(rule.exercised(), 3);
    }
}

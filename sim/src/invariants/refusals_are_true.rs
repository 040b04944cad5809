//! A target calls a key expelled only when the mesh has expelled it.
//!
//! Whoever brings a warrant brings what the target lacks of the roster as well; a false link must teach it nothing, or a
//! liar could keep every signer's order away.

use super::{Fact, Invariant, Truth};
use mesh::warrant::Refusal;
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub struct RefusalsAreTrue {
    judged: u64,
}

impl Invariant for RefusalsAreTrue {
    fn name(&self) -> &'static str {
        "refusals-are-true"
    }

    fn source(&self) -> &'static str {
        "rule 3 of the design: nobody speaks for others"
    }

    fn fact(&mut self, _at: Duration, fact: &Fact, truth: &dyn Truth) -> Result<(), String> {
        let Fact::Refused { host, refusal } = fact else { return Ok(()) };
        self.judged += 1;
        match refusal {
            Refusal::Revoked(key) if truth.is_member(key) => {
                Err(format!("{host} holds {key} to be out, which is enrolled"))
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
    use super::super::fixture::{Fleet, key, name, second};
    use super::*;

    #[test]
    fn one_that_is_held_to_be_out_and_is_not_is_caught() {
        let mut fleet = Fleet::of(3);
        let mut rule = RefusalsAreTrue::default();
        let refused = Fact::Refused { host: name(2), refusal: Refusal::Revoked(key(3)) };
        assert!(rule.fact(second(1), &refused, &fleet).is_err());
        fleet.evict(3);
        assert_eq!(rule.fact(second(1), &refused, &fleet), Ok(()));
    }
}

//! The leader neither orders nor sets aside a host where that harms more than it can help; nor does it hold a package
//! for broken that is not, give the next build at once to a host that has just failed one after another, or let one
//! back that nobody has tried out.
//!
//! What speaks against a step is the world's word at the moment of writing: its target's own veto, that it may not come
//! back, that it is the only path of others or one of the last voters, that nobody else builds, that it builds or has
//! come back, that one host alone cannot hear it, that everything fails everywhere. What the target does about an order
//! that should not have been written is [`super::vetoes_hold`]'s.

use super::{Fact, Invariant, Truth};
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub struct HealsDoNoHarm {
    judged: u64,
}

impl Invariant for HealsDoNoHarm {
    fn name(&self) -> &'static str {
        "heals-do-no-harm"
    }

    fn source(&self) -> &'static str {
        "rules 5 and 6 of the design, `Healing`; incidents 2, 3, 9 and 13"
    }

    fn fact(&mut self, _at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        let (host, against, what) = match fact {
            Fact::Ordered { host, against } => (host, against, "ordered about"),
            Fact::SetAside { host, against, .. } => (host, against, "set aside"),
            Fact::Given { host, against } => (host, against, "given a build"),
            Fact::LetBack { host, against } => (host, against, "let back"),
            Fact::Held { package, against: Some(against) } => {
                return Err(format!("{package} is held to be broken, though {against}"));
            }
            _ => return Ok(()),
        };
        self.judged += 1;
        match against {
            None => Ok(()),
            Some(against) => Err(format!("{host} is {what}, though {against}")),
        }
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fleet, name, second};
    use super::*;

    #[test]
    fn a_step_with_something_against_it_is_caught() {
        let fleet = Fleet::of(2);
        let mut rule = HealsDoNoHarm::default();
        let mut ordered = |against| rule.fact(second(1), &Fact::Ordered { host: name(2), against }, &fleet);
        assert_eq!(ordered(None), Ok(()));
        assert!(ordered(Some("it is protected")).is_err());
        let aside = Fact::SetAside { host: name(2), ails: true, against: Some("no other host would build") };
        assert!(rule.fact(second(1), &aside, &fleet).is_err());
    }
}

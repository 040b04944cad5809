//! A mesh goes on by a record of recovery that its owner's key has signed and by no other, and under a fence above all
//! that were before: whoever led the lost mesh, and does not know that it is lost, has no effect on the recovered one.

use super::{Fact, Invariant, Truth};
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub struct RecoveriesAreOwned {
    judged: u64,
}

impl Invariant for RecoveriesAreOwned {
    fn name(&self) -> &'static str {
        "recoveries-are-owned"
    }

    fn source(&self) -> &'static str {
        "rule 4 of the design and `Ledger, lease and leader`: a new epoch above every old fence"
    }

    fn fact(&mut self, _at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        let Fact::Recovered { by_owner, fence, above } = fact else { return Ok(()) };
        self.judged += 1;
        if !by_owner {
            return Err("the mesh goes on by a record that its owner has not signed".into());
        }
        match fence {
            Some(fence) if fence > above => Ok(()),
            Some(fence) => Err(format!("the recovered mesh is led under fence {fence}, and the lost one had {above}")),
            None => Err("nobody leads the recovered mesh".into()),
        }
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fleet, second};
    use super::*;
    use mesh::lease::Fence;

    #[test]
    fn a_recovery_by_anybody_or_under_an_old_fence_is_caught() {
        let (fleet, mut rule) = (Fleet::of(2), RecoveriesAreOwned::default());
        let above = Fence { epoch: 0, term: 9 };
        let mut told = |by_owner, fence: Option<(u64, u64)>| {
            let fence = fence.map(|(epoch, term)| Fence { epoch, term });
            rule.fact(second(1), &Fact::Recovered { by_owner, fence, above }, &fleet).is_ok()
        };
        assert!(told(true, Some((1, 1))));
        assert!(!told(false, Some((1, 1))));
        assert!(!told(true, Some((0, 9))));
        assert!(!told(true, Some((0, 1))));
        assert!(!told(true, None));
        assert_eq!(rule.exercised(), 5);
    }
}

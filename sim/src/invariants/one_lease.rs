//! At most one host holds a valid lease at any true time.
//!
//! Each host judges by its own clock; the truth is all of them at one moment. Never looks at who Raft
//! calls leader: two of those are legal, two that may act are not. What was done under a lease is
//! [`super::fences_rise`].

use super::{HostSeen, Invariant, Name, Truth};
use mesh::lease::Fence;
use std::collections::BTreeMap;
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub struct OneLease {
    /// Who was seen with a lease in this step.
    held: BTreeMap<Name, Fence>,
    judged: u64,
}

fn judge(held: &BTreeMap<Name, Fence>) -> Result<(), String> {
    match held.len() {
        0 | 1 => Ok(()),
        _ => Err(format!("held at once: {held:?}")),
    }
}

impl Invariant for OneLease {
    fn name(&self) -> &'static str {
        "one-lease"
    }

    fn source(&self) -> &'static str {
        "Gray and Cheriton, Leases (1989); Ongaro, Consensus (2014), 6.4.1"
    }

    fn look(&mut self, _at: Duration, host: &HostSeen<'_>, truth: &dyn Truth) -> Result<(), String> {
        if let Some(fence) = host.lease {
            self.judged += 1;
            self.held.insert(host.name.clone(), fence);
            let mut now: BTreeMap<Name, Fence> = truth.leases().into_iter().collect();
            now.insert(host.name.clone(), fence);
            judge(&now)?;
        }
        Ok(())
    }

    fn step(&mut self, _at: Duration) -> Result<(), String> {
        judge(&std::mem::take(&mut self.held))
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fleet, second};
    use super::*;

    #[test]
    fn a_lease_that_moves_is_well_and_two_at_once_are_not() {
        let fleet = Fleet::of(3);
        let fence = |term| Some(Fence { epoch: 0, term });
        let mut rule = OneLease::default();
        assert_eq!(rule.look(second(1), &fleet.seen_with_lease(1, fence(1)), &fleet), Ok(()));
        assert_eq!(rule.step(second(1)), Ok(()));
        assert_eq!(rule.look(second(9), &fleet.seen_with_lease(2, fence(2)), &fleet), Ok(()));
        assert_eq!(rule.step(second(9)), Ok(()));
        // The naive leader acts on while another was elected.
        assert_eq!(rule.look(second(9), &fleet.seen_with_lease(1, fence(1)), &fleet), Ok(()));
        assert_eq!(rule.look(second(9), &fleet.seen_with_lease(2, fence(2)), &fleet), Ok(()));
        assert!(rule.step(second(9)).is_err());
        assert_eq!(rule.exercised(), 4);
    }
}

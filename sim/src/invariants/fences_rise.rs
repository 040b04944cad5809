//! No effect with a lower fence comes after one with a higher.
//!
//! Effects are attempts that a ledger takes (by the fence under which they were put forward) and attempts that
//! begin. Judged for each ledger and each host by itself: between hosts there is no before. That a fence is held by
//! one host alone is [`super::one_lease`]; orders that are carried out are [`super::acts_are_fenced`]'s.

use super::{Fact, HostSeen, Invariant, Name, Truth};
use mesh::build::{Attempt, BuildId};
use mesh::identity::PeerKey;
use mesh::lease::Fence;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Of a ledger.
type Seen = (u64, Fence, BTreeSet<(BuildId, Attempt)>);

/// See the module.
#[derive(Default)]
pub struct FencesRise {
    /// The highest fence under which each assignment was put forward.
    proposed: BTreeMap<(BuildId, Attempt, PeerKey), Fence>,
    /// Of each ledger at its last look: index, the leader's fence, the attempts it had.
    ledgers: BTreeMap<Name, Seen>,
    /// The highest fence that had an effect on a host, of each kind.
    highest: BTreeMap<(Name, &'static str), Fence>,
    judged: u64,
}

impl FencesRise {
    fn effect(&mut self, host: &Name, what: &'static str, fence: Fence) -> Result<(), String> {
        self.judged += 1;
        let highest = self.highest.entry((host.clone(), what)).or_default();
        if fence < *highest {
            return Err(format!("{host}: {what} under fence {fence} after {highest}"));
        }
        *highest = fence;
        Ok(())
    }
}

impl Invariant for FencesRise {
    fn name(&self) -> &'static str {
        "fences-rise"
    }

    fn source(&self) -> &'static str {
        "Burrows, Chubby (2006), sequencers; rule 4 of the design"
    }

    fn fact(&mut self, _at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        match fact {
            Fact::Proposed { fence, build, attempt, to, .. } => {
                let highest = self.proposed.entry((*build, *attempt, *to)).or_default();
                *highest = (*highest).max(*fence);
                Ok(())
            }
            Fact::Began { host, fence: Some(fence), .. } => self.effect(host, "an attempt began", *fence),
            Fact::Wiped { host } => {
                self.highest.retain(|(of, _), _| of != host);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn look(&mut self, _at: Duration, host: &HostSeen<'_>, _truth: &dyn Truth) -> Result<(), String> {
        let ledger = host.ledger;
        let before = self.ledgers.get(host.name).filter(|(index, ..)| *index <= ledger.index());
        if before.is_some_and(|(index, ..)| *index == ledger.index()) {
            return Ok(());
        }
        let (_, floor, had) = before.cloned().unwrap_or_default();
        let fence = ledger.leader().map_or(floor, |(_, fence)| fence);
        if fence < floor {
            return Err(format!("{}: the ledger's leader has fence {fence} after {floor}", host.name));
        }
        let mut have = BTreeSet::new();
        let told = if self.proposed.is_empty() { 0 } else { usize::MAX };
        let builds = ledger.builds().iter().take(told);
        for (build, attempt) in builds.flat_map(|b| b.attempts.iter().map(move |a| (b.id, a))) {
            have.insert((build, attempt.number));
            let by = self.proposed.get(&(build, attempt.number, attempt.host));
            if let Some(by) = by.filter(|_| !had.contains(&(build, attempt.number))) {
                self.judged += 1;
                if *by < floor {
                    let number = attempt.number;
                    return Err(format!("{}: attempt {number} of {build} under {by} after {floor}", host.name));
                }
            }
        }
        self.ledgers.insert(host.name.clone(), (ledger.index(), fence, have));
        Ok(())
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fleet, key, second};
    use super::*;

    #[test]
    fn an_attempt_of_a_leader_that_was_is_caught() {
        let mut fleet = Fleet::of(3);
        let mut rule = FencesRise::default();
        let build = fleet.submit(1, 1, "one");
        let later = fleet.submit(1, 2, "two");
        let proposed = |build, term| Fact::Proposed {
            key: key(1),
            fence: Fence { epoch: 0, term },
            build,
            attempt: Attempt(1),
            to: key(2),
        };
        rule.fact(second(1), &proposed(build, 1), &fleet).unwrap();
        fleet.assign(build, 1, 2);
        assert_eq!(rule.look(second(1), &fleet.seen(3), &fleet), Ok(()));
        fleet.elect(3);
        assert_eq!(rule.look(second(2), &fleet.seen(3), &fleet), Ok(()));
        // As if the entry of the leader before had counted.
        rule.fact(second(3), &proposed(later, 1), &fleet).unwrap();
        fleet.assign(later, 1, 2);
        assert!(rule.look(second(3), &fleet.seen(3), &fleet).is_err());
        assert!(rule.exercised() >= 2);
    }
}

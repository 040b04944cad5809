//! Nobody acts below the highest fence that it has verified, nor before its disk holds what it took on; and nobody
//! holds a fence for verified that no leader ever had.
//!
//! Verified is what the host's own ledger says, and the fence of a leader's warrant that it accepted. A person's order
//! is checked against it and raises nothing. What a wiped disk has forgotten is not to be asked for.

use super::{Fact, HostSeen, Invariant, Name, Truth};
use mesh::lease::Fence;
use mesh::warrant::Authority;
use std::collections::BTreeMap;
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub struct ActsAreFenced {
    /// Of each host the highest fence of a leader's warrant that it has acted on.
    acted: BTreeMap<Name, Fence>,
    /// What hosts said in this step that they had verified.
    said: Vec<(Name, Fence)>,
    /// The highest fence that anybody led under, by any ledger or lease.
    led: Fence,
    judged: u64,
}

impl Invariant for ActsAreFenced {
    fn name(&self) -> &'static str {
        "acts-are-fenced"
    }

    fn source(&self) -> &'static str {
        "Burrows, Chubby (2006), sequencers; rules 2 and 4 of the design"
    }

    fn fact(&mut self, _at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        match fact {
            Fact::Greeted { host, highest } => {
                self.said.push((host.clone(), *highest));
                Ok(())
            }
            Fact::Wiped { host } => {
                self.acted.remove(host);
                Ok(())
            }
            Fact::Carried(deed) => {
                self.judged += 1;
                let (host, order) = (&deed.host, &deed.order);
                let acted = self.acted.entry(host.clone()).or_default();
                let floor = (*acted).max(deed.known.leader().map(|(_, fence)| fence).unwrap_or_default());
                if order.fence < floor {
                    return Err(format!("{host} carried out {} under fence {} after {floor}", order.id, order.fence));
                }
                if !deed.stored {
                    return Err(format!("{host} acts on {} before its disk holds it", order.id));
                }
                if order.authority == Authority::Leader {
                    *acted = order.fence;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn look(&mut self, _at: Duration, host: &HostSeen<'_>, _truth: &dyn Truth) -> Result<(), String> {
        let ledger = host.ledger.leader().map(|(_, fence)| fence);
        self.led = self.led.max(ledger.unwrap_or_default()).max(host.lease.unwrap_or_default());
        Ok(())
    }

    fn step(&mut self, _at: Duration) -> Result<(), String> {
        let unearned = std::mem::take(&mut self.said).into_iter().find(|(_, highest)| *highest > self.led);
        match unearned {
            None => Ok(()),
            Some((host, highest)) => {
                Err(format!("{host} holds fence {highest} for verified, and nobody has led above {}", self.led))
            }
        }
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fleet, deed, name, second};
    use super::*;

    fn fence(term: u64) -> Fence {
        Fence { epoch: 0, term }
    }

    #[test]
    fn a_lower_fence_and_an_unstored_deed_are_caught() {
        let fleet = Fleet::of(2);
        let mut rule = ActsAreFenced::default();
        let mut judge = |deed| rule.fact(second(1), &Fact::Carried(Box::new(deed)), &fleet);
        let with = |id, term, authority| {
            let mut deed = deed(&fleet, 1, id);
            (deed.order.fence, deed.order.authority) = (fence(term), authority);
            deed
        };
        assert_eq!(judge(with(1, 9, Authority::Person)), Ok(()), "raises nothing");
        assert_eq!(judge(with(2, 3, Authority::Leader)), Ok(()));
        assert!(judge(with(3, 2, Authority::Leader)).is_err());
        assert!(judge(with(4, 2, Authority::Person)).is_err());
        let mut unstored = with(5, 3, Authority::Leader);
        unstored.stored = false;
        assert!(judge(unstored).is_err());
    }

    #[test]
    fn a_fence_that_nobody_had_is_caught() {
        let fleet = Fleet::of(2);
        let mut rule = ActsAreFenced::default();
        rule.look(second(1), &fleet.seen(1), &fleet).unwrap();
        let mut says = |term| {
            rule.fact(second(1), &Fact::Greeted { host: name(2), highest: fence(term) }, &fleet).unwrap();
            rule.step(second(1))
        };
        assert_eq!(says(1), Ok(()));
        assert!(says(u64::MAX).is_err());
    }
}

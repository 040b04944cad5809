//! A protected host never acts, and one that does not allow it never reboots, whoever orders it and however.

use super::{Fact, Invariant, Truth};
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub struct VetoesHold {
    judged: u64,
}

impl Invariant for VetoesHold {
    fn name(&self) -> &'static str {
        "vetoes-hold"
    }

    fn source(&self) -> &'static str {
        "rule 2 of the design: its own veto wins over everything; incident 2"
    }

    fn fact(&mut self, _at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        let Fact::Carried(deed) = fact else { return Ok(()) };
        self.judged += 1;
        let (host, id) = (&deed.host, deed.order.id);
        if deed.life.protected {
            return Err(format!("{host} is protected, and carried out {id}"));
        }
        match deed.order.act.is_reboot() && !deed.life.allow_reboot {
            true => Err(format!("{host} does not allow reboots, and carried out {id}")),
            false => Ok(()),
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
    use mesh::order::{Act, Gently};

    #[test]
    fn a_host_that_acts_against_its_own_word_is_caught() {
        let fleet = Fleet::of(2);
        let mut rule = VetoesHold::default();
        let mut judge = |deed| rule.fact(second(1), &Fact::Carried(Box::new(deed)), &fleet);
        let mut deed = deed(&fleet, 1, 1);
        assert_eq!(judge(deed.clone()), Ok(()));
        deed.life.allow_reboot = false;
        assert!(judge(deed.clone()).is_err());
        deed.order.act = Act::Restart(Gently { grace_ms: 1 });
        assert_eq!(judge(deed.clone()), Ok(()));
        deed.life.protected = true;
        assert!(judge(deed).is_err());
    }
}

//! What [`judge`](super::judge) said, kept for as long as it holds.
//!
//! Judging walks every build that the ledger remembers. A small ledger is judged anew whenever it has changed, a large
//! one at most so often; so a verdict can be late by [`REST`], and is never wrong for longer. Who keeps one looks again
//! by itself: this has no clock.

use super::{Rules, Verdict, judge};
use crate::ledger::Ledger;
use crate::time::Time;
use std::sync::Arc;
use std::time::Duration;

/// Builds up to which judging costs less than the entry that made it due.
const SMALL: usize = 500;
/// Between two judgements of a larger ledger: ten thousand builds take some milliseconds.
const REST: Duration = Duration::from_secs(1);

/// Everything that a judgement rests on: batches that were applied, ledger time, and the rules.
type Of = (u64, u64, Rules);

/// Verdicts on one ledger as it grows.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    of: Option<Of>,
    at: Time,
    verdicts: Arc<[Verdict]>,
}

impl Judge {
    /// The verdicts on a ledger by the rules of its policy; `now` is this host's own time, which never goes back.
    pub fn verdicts(&mut self, ledger: &Ledger, now: Time) -> Arc<[Verdict]> {
        let rules = ledger.healing().policy().blame;
        let of = (ledger.index(), ledger.time_ms(), rules);
        let stale = self.of.is_none_or(|had| had != of);
        let tired = self.of.is_some() && ledger.builds().len() > SMALL && now.since(self.at) < REST;
        if stale && !tired {
            (self.of, self.at) = (Some(of), now);
            self.verdicts = judge(ledger, &rules).into();
        }
        self.verdicts.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{pass, tried_in};
    use super::*;
    use crate::build::Phase;
    use crate::ledger::tests::{World, spec};

    #[test]
    fn a_small_ledger_is_judged_at_once_and_a_large_one_a_little_later() {
        let (mut world, mut judge) = (World::new(3), Judge::default());
        let mut now = Time::from_millis(1);
        let fails = |world: &mut World, n: usize| {
            tried_in(world, &format!("p{n}"), &[(2, Some(Phase::Store))], 10);
        };
        for n in 0..3 {
            assert_eq!(judge.verdicts(&world.ledger, now)[..], []);
            fails(&mut world, n);
        }
        let rests = judge.verdicts(&world.ledger, now);
        assert!(matches!(rests[..], [Verdict::Rest { failures: 3, .. }]), "{rests:?}");
        let same = judge.verdicts(&world.ledger, now);
        assert!(Arc::ptr_eq(&rests, &same), "nothing has changed, and nothing is judged anew");
        world.submit((0..=SMALL).map(|n| spec(&format!("q{n}"), &[])).collect());
        pass(&mut world, 1);
        fails(&mut world, 3);
        assert!(Arc::ptr_eq(&rests, &judge.verdicts(&world.ledger, now)), "not so soon after the last");
        now = now + REST;
        assert!(matches!(judge.verdicts(&world.ledger, now)[..], [Verdict::Rest { failures: 4, .. }]));
    }
}

//! How late answers come that do come: what patience adapts to.
//!
//! On a connection that keeps order one lost packet holds up all that follows, for as long as its retransmissions take:
//! 0.2 s, then 0.6, 1.4, 3.0, 6.2 ... in all (RFC 6298). Such a silence looks like a death and is none, and a watcher that
//! has just seen some must expect the next. So it keeps the longest wait that ended in an answer, for each of its
//! subjects; what is remembered halves with time. What most of the subjects have in common is the watcher's own
//! link and multiplies its patience with all (the local health of Lifeguard: Dadgar et al., 2017); the longest wait
//! is used rather than a fitted distribution (phi accrual: Hayashibara et al., SRDS 2004), because back-off doubles, so that
//! the tail is heavy and a mean says nothing of it.
//!
//! Numbers only. What follows from them is decided in [`super::Membership`].

use crate::time::Time;
use std::time::Duration;

/// The longest wait of late.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lateness {
    longest: Duration,
    at: Time,
}

impl Lateness {
    /// An answer came after so long.
    pub fn note(&mut self, waited: Duration, half_life: Duration, now: Time) {
        if waited >= self.now(half_life, now) {
            *self = Lateness { longest: waited, at: now };
        }
    }

    /// What is left of it now.
    pub fn now(&self, half_life: Duration, now: Time) -> Duration {
        Duration::from_micros(faded(self.longest.as_micros() as u64, now.since(self.at), half_life))
    }
}

/// Accusations that the accused had to refute: false alarms, as all hosts hear them. The more of them there are in the
/// whole mesh, the longer a watcher waits whose own answers are late; without that all of them together would say more
/// the larger the mesh is, and every word costs every host.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Alarms {
    /// In thousandths.
    level: u64,
    at: Time,
}

impl Alarms {
    /// One more.
    pub fn heard(&mut self, half_life: Duration, now: Time) {
        *self = Alarms { level: faded(self.level, now.since(self.at), half_life) + 1_000, at: now };
    }

    /// By how much patience grows, in thousandths: by itself for each `each` alarms of late.
    pub fn factor(&self, each: u64, half_life: Duration, now: Time) -> u64 {
        1_000 + faded(self.level, now.since(self.at), half_life) / each.max(1)
    }
}

/// What halves in each half life, and between two halvings goes in a straight line.
fn faded(amount: u64, age: Duration, half_life: Duration) -> u64 {
    let (age, half) = (age.as_micros(), half_life.as_micros().max(1));
    let halvings = u32::try_from(age / half).unwrap_or(u32::MAX);
    let amount = u128::from(amount.checked_shr(halvings).unwrap_or_default());
    (amount - amount * (age % half) / (2 * half)) as u64
}

/// What the subjects have in common: at least a quarter of them are as late, and never one alone of several.
pub(super) fn common(mut each: Vec<Duration>) -> Duration {
    each.sort_unstable();
    let place = (each.len() * 3 / 4).min(each.len().saturating_sub(2));
    each.get(place).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HALF: Duration = Duration::from_secs(60);

    #[test]
    fn one_that_is_late_says_nothing_of_the_others() {
        let s = Duration::from_secs;
        assert_eq!(common(vec![]), s(0));
        assert_eq!(common(vec![s(3)]), s(3));
        assert_eq!(common(vec![s(3), s(0)]), s(0));
        assert_eq!(common(vec![s(9), s(0), s(0), s(0), s(0), s(0), s(0), s(0)]), s(0));
        assert_eq!(common(vec![s(9), s(0), s(4), s(0), s(0), s(0), s(0), s(0)]), s(4));
    }

    proptest! {
        /// Beside it a model that keeps every wait, each halving by itself.
        #[test]
        fn it_is_the_longest_of_all_waits_each_forgotten_in_time(waits in prop::collection::vec((0u64..30_000, 0u64..90_000), 1..20)) {
            let (mut late, mut now, mut all) = (Lateness::default(), Time::default(), vec![]);
            for (waited, pause) in waits {
                now = now + Duration::from_millis(pause);
                let waited = Duration::from_millis(waited);
                late.note(waited, HALF, now);
                all.push((waited, now));
                let model = all
                    .iter()
                    .map(|(waited, at)| {
                        let halves = now.since(*at).as_secs_f64() / 60.0;
                        waited.as_secs_f64() / 2f64.powf(halves.floor()) * (1.0 - halves.fract() / 2.0)
                    })
                    .fold(0.0, f64::max);
                let got = late.now(HALF, now).as_secs_f64();
                // A longer wait that is older may fall behind by the bend of the line: six of a hundred.
                prop_assert!((got - model).abs() < 0.13 * model.max(0.01), "{got} for {model}");
            }
        }
    }
}

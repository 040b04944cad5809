//! Ledger time: what a leader stamps on its batches.
//!
//! It never goes back, and moves with the leader's own monotonic clock. Only at the start of a term may
//! it step, to the wall clock, and only when the wall clocks of a majority of the voters agree within a
//! minute: one host with a wrong clock can neither end everybody's invitations nor keep them alive.

use crate::mutants::{self, Mutant};
use crate::time::Time;

/// Wall clocks that differ by more than this do not agree, in milliseconds.
pub const AGREE_MS: u64 = 60_000;

/// A leader's stamp for one term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerClock {
    base_ms: u64,
    since: Time,
}

impl LedgerClock {
    /// Starts a term. `last_ms` is the ledger's time, `wall_ms` this host's wall clock, `offsets_ms` how far
    /// the other voters' wall clocks are ahead of it, `majority` of how many (this host included).
    pub fn start(last_ms: u64, wall_ms: u64, offsets_ms: &[i64], majority: usize, now: Time) -> Self {
        let agree = 1 + offsets_ms.iter().filter(|o| o.unsigned_abs() <= AGREE_MS).count();
        let base_ms = match agree >= majority {
            _ if mutants::on(Mutant::LedgerTimeIsWallClock) => wall_ms,
            true => wall_ms.max(last_ms),
            false => last_ms,
        };
        LedgerClock { base_ms, since: now }
    }

    /// Ledger time now.
    pub fn now_ms(&self, now: Time) -> u64 {
        self.base_ms.saturating_add(now.since(self.since).as_millis() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_steps_only_with_a_majority_and_never_back() {
        let t = Time::from_millis;
        let alone = LedgerClock::start(1_000, 500_000, &[], 1, t(0));
        assert_eq!(alone.now_ms(t(250)), 500_250);
        let disputed = LedgerClock::start(1_000, 500_000, &[-499_000, -498_000], 2, t(0));
        assert_eq!(disputed.now_ms(t(250)), 1_250, "two voters think it is much earlier");
        let agreed = LedgerClock::start(1_000, 500_000, &[10, -498_000], 2, t(0));
        assert_eq!(agreed.now_ms(t(0)), 500_000);
        let behind = LedgerClock::start(900_000, 500_000, &[0, 0], 2, t(0));
        assert_eq!(behind.now_ms(t(5)), 900_005);
    }
}

//! What a person has put a stop to for a while: a block, a drain, a pause. Each has an author, a reason and an end
//! (rule 8, incidents 4 and 5), and is shown until then. Nothing here decides what else follows.

use crate::identity::PeerKey;
use crate::limits::{MEASURE_MS_MAX, MEASURES_MAX, TEXT_BYTES_MAX};
use serde::{Deserialize, Serialize};
use serde_repr::{Deserialize_repr, Serialize_repr};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};

/// What is stopped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize_repr, Deserialize_repr)]
#[repr(u8)]
pub enum Stop {
    /// A host gets no builds, and what runs there is taken from it.
    Block = 0,
    /// A host gets no more builds; what runs there ends.
    Drain = 1,
    /// Nobody gets builds and nobody is healed.
    Pause = 2,
}

/// A stop, for a while.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Measure {
    /// What.
    pub stop: Stop,
    /// Which host; `None` for a pause, which is everybody's.
    pub host: Option<PeerKey>,
    /// Who put it there.
    pub by: PeerKey,
    /// Why, in words.
    pub reason: String,
    /// Ledger time at which it ends, in milliseconds since 1970.
    pub until_ms: u64,
}

/// Why a measure was refused. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MeasureError {
    /// No reason, or a novel.
    #[error("a block, drain or pause has a reason, of {TEXT_BYTES_MAX} bytes at most")]
    Reason,
    /// No end.
    #[error("a block, drain or pause has an end, within thirty days")]
    End,
    /// A pause of a host, or a block of everybody.
    #[error("a block or drain names one host, a pause names none")]
    Host,
    /// No room.
    #[error("more than {MEASURES_MAX} blocks, drains and pauses at one time")]
    Full,
}

/// All measures that have not ended; at most one for each stop and host.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Measures {
    all: Vec<Measure>,
}

impl Measures {
    /// Puts one in place, instead of the one before of the same stop and host.
    ///
    /// # Errors
    /// [`MeasureError`]; nothing is changed.
    pub fn put(&mut self, measure: Measure, now_ms: u64) -> Result<(), MeasureError> {
        if !(1..=TEXT_BYTES_MAX).contains(&measure.reason.len()) {
            return Err(MeasureError::Reason);
        }
        if measure.until_ms <= now_ms || measure.until_ms > now_ms.saturating_add(MEASURE_MS_MAX) {
            return Err(MeasureError::End);
        }
        if (measure.stop == Stop::Pause) == measure.host.is_some() {
            return Err(MeasureError::Host);
        }
        let others = |m: &&Measure| m.until_ms > now_ms && (m.stop, m.host) != (measure.stop, measure.host);
        if self.all.iter().filter(others).count() >= MEASURES_MAX {
            return Err(MeasureError::Full);
        }
        self.all.retain(|m| others(&m));
        self.all.push(measure);
        Ok(())
    }

    /// Ends one early. False when there was none.
    pub fn lift(&mut self, stop: Stop, host: Option<PeerKey>, now_ms: u64) -> bool {
        let there = self.in_force(now_ms).any(|m| (m.stop, m.host) == (stop, host));
        self.all.retain(|m| m.until_ms > now_ms && (m.stop, m.host) != (stop, host));
        there
    }

    /// Ends all of a host's, which is out.
    pub(super) fn forget(&mut self, host: &PeerKey) {
        self.all.retain(|m| m.host != Some(*host));
    }

    /// Those that have not ended.
    pub fn in_force(&self, now_ms: u64) -> impl Iterator<Item = &Measure> {
        self.all.iter().filter(move |m| m.until_ms > now_ms)
    }

    /// The pause that holds, if any.
    pub fn pause(&self, now_ms: u64) -> Option<&Measure> {
        self.in_force(now_ms).find(|m| m.stop == Stop::Pause)
    }

    /// What holds a host, if anything does: a block rather than a drain.
    pub fn of(&self, host: &PeerKey, now_ms: u64) -> Option<&Measure> {
        self.in_force(now_ms).filter(|m| m.host == Some(*host)).min_by_key(|m| m.stop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Keys;

    fn measure(stop: Stop, host: Option<u8>, until_ms: u64) -> Measure {
        let key = |n: u8| Keys::from_seed([n; 32]).key();
        Measure { stop, host: host.map(key), by: key(1), reason: "moving house".into(), until_ms }
    }

    #[test]
    fn what_is_temporary_ends() {
        let mut all = Measures::default();
        all.put(measure(Stop::Drain, Some(2), 100), 0).unwrap();
        all.put(measure(Stop::Pause, None, 50), 0).unwrap();
        all.put(measure(Stop::Drain, Some(2), 80), 0).unwrap();
        let host = measure(Stop::Drain, Some(2), 0).host.unwrap();
        assert_eq!(all.in_force(0).count(), 2, "the same one again takes the place of the one before");
        assert_eq!((all.pause(49).is_some(), all.pause(50)), (true, None));
        assert_eq!((all.of(&host, 79).is_some(), all.of(&host, 80)), (true, None));
        assert!(all.lift(Stop::Drain, Some(host), 10));
        assert!(!all.lift(Stop::Drain, Some(host), 10));
        assert_eq!(all.in_force(10).count(), 1);
    }

    #[test]
    fn what_has_no_reason_no_end_or_no_place_is_refused() {
        let mut all = Measures::default();
        let silent = Measure { reason: String::new(), ..measure(Stop::Pause, None, 9) };
        let cases = [
            (silent, MeasureError::Reason),
            (measure(Stop::Pause, None, 5), MeasureError::End),
            (measure(Stop::Pause, None, MEASURE_MS_MAX + 6), MeasureError::End),
            (measure(Stop::Pause, Some(2), 9), MeasureError::Host),
            (measure(Stop::Block, None, 9), MeasureError::Host),
        ];
        for (measure, error) in cases {
            assert_eq!(all.put(measure, 5), Err(error));
        }
        let host = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            PeerKey::from_bytes(bytes)
        };
        for n in 0..MEASURES_MAX {
            let block = Measure { host: Some(host(n)), ..measure(Stop::Block, None, 9) };
            all.put(block, 5).unwrap();
        }
        assert_eq!(all.put(measure(Stop::Pause, None, 9), 5), Err(MeasureError::Full));
        assert_eq!(all.put(measure(Stop::Pause, None, 90), 9), Ok(()), "the ended ones make room");
    }
}

//! Which process of a key this host serves, so that no key leads twice.
//!
//! A voter's promise is made to a key. Two processes of one key (a copied state folder, a restored backup) would
//! each be kept the promise that was made to the other, and both could hold a lease. So a host serves one
//! process of a key at a time. Another one is served only if it has a higher start number, and only when a
//! promise to the first has run out: as long as the first is served, no other is. Nothing here knows Raft;
//! [`super::serve`] asks before it passes a request on. What the answering side is, is the business of [`super::peers`].

use super::peers::Process;
use mesh::identity::PeerKey;
use mesh::time::Time;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The processes that are served, and when each was served last. As many as there are hosts that may ask.
pub(super) struct Askers {
    /// How long a promise may last, by this host's clock.
    promise: Duration,
    served: Mutex<BTreeMap<PeerKey, (Process, Time)>>,
}

/// Why a process is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Other {
    /// It has no higher start number than the one that is served.
    Twin,
    /// It is a later start, but what was promised to the one before still holds.
    TooEarly,
}

impl Askers {
    pub(super) fn new(promise: Duration) -> Askers {
        Askers { promise, served: Mutex::default() }
    }

    /// Notes that this process is served now.
    ///
    /// # Errors
    /// When it must not be.
    pub(super) fn serve(&self, peer: PeerKey, process: Process, now: Time) -> Result<(), Other> {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, last)) = served.get(&peer).filter(|(known, _)| *known != process) {
            if process.start <= known.start {
                return Err(Other::Twin);
            }
            if now < *last + self.promise {
                return Err(Other::TooEarly);
            }
        }
        served.insert(peer, (process, now));
        Ok(())
    }

    /// Forgets who is no member any more.
    pub(super) fn forget(&self, peer: &PeerKey) {
        self.served.lock().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::identity::Keys;

    const PROMISE: Duration = Duration::from_secs(4);
    const FIRST: Process = Process { start: 3, origin: 7 };
    const TWIN: Process = Process { start: 3, origin: 8 };
    const NEXT: Process = Process { start: 4, origin: 9 };

    fn at(secs: u64) -> Time {
        Time::from_millis(secs * 1_000)
    }

    #[test]
    fn one_process_of_a_key_is_served_and_a_later_start_waits_for_the_promise() {
        let (askers, peer, other) =
            (Askers::new(PROMISE), Keys::from_seed([1; 32]).key(), Keys::from_seed([2; 32]).key());
        assert_eq!(askers.serve(peer, FIRST, at(0)), Ok(()));
        assert_eq!(askers.serve(other, TWIN, at(0)), Ok(()), "of another key");
        assert_eq!(askers.serve(peer, FIRST, at(3)), Ok(()));
        assert_eq!(askers.serve(peer, NEXT, at(6)), Err(Other::TooEarly));
        assert_eq!(askers.serve(peer, TWIN, at(9)), Err(Other::Twin), "however late");
        assert_eq!(askers.serve(peer, NEXT, at(7)), Ok(()));
        assert_eq!(askers.serve(peer, FIRST, at(99)), Err(Other::Twin), "the earlier start is over");
        askers.forget(&peer);
        assert_eq!(askers.serve(peer, FIRST, at(99)), Ok(()));
    }
}

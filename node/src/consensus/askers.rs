//! Which process of a key this host serves, so that no key leads twice.
//!
//! A voter's promise is made to a key. Two processes of one key (a copied state folder, a restored backup) would
//! each be kept the promise that was made to the other: both could hold a lease, and both could lead in one term,
//! by one vote. So a host serves one process of a key at a time. Another one is served only when a promise to the
//! first has run out, and only in a later term; as long as the first is served, no other is. A term counts from when
//! it was on the asker's disk: one that is only sounded out (a pre-vote) is forgotten in a crash, and the next process,
//! which is as far as the first, asks for it again. Nothing here knows Raft:
//! [`super::serve`] asks before it passes a request on. Who *answers* is the business of [`super::peers`].

use super::peers::Process;
use mesh::identity::PeerKey;
use mesh::time::Time;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The processes that are served: as many as there are hosts that may ask.
pub(super) struct Askers {
    /// How long a promise may last, by this host's clock.
    promise: Duration,
    served: Mutex<BTreeMap<PeerKey, Served>>,
}

/// The term of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Term {
    /// On the asker's disk.
    Own(u64),
    /// The next one, should there be a majority for it.
    Sounded(u64),
}

struct Served {
    process: Process,
    /// The highest term that it spoke of as its own.
    term: u64,
    /// When it was served last.
    last: Time,
}

impl Askers {
    pub(super) fn new(promise: Duration) -> Askers {
        Askers { promise, served: Mutex::default() }
    }

    /// Whether this process is served now, with a request of this term; if so, that is noted.
    pub(super) fn serves(&self, peer: PeerKey, process: Process, term: Term, now: Time) -> bool {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let (term, own) = match term {
            Term::Own(term) => (term, term),
            Term::Sounded(term) => (term, 0),
        };
        let known = served.entry(peer).or_insert(Served { process, term: own, last: now });
        if known.process != process && (now < known.last + self.promise || term <= known.term) {
            return false;
        }
        *known = Served { process, term: known.term.max(own), last: now };
        true
    }

    /// Forgets who is no member any more.
    pub(super) fn forget(&self, peer: &PeerKey) {
        self.served.lock().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::Term::{Own, Sounded};
    use super::*;
    use mesh::identity::Keys;

    const PROMISE: Duration = Duration::from_secs(4);
    const FIRST: Process = Process { start: 3, origin: 7 };
    const OTHER: Process = Process { start: 4, origin: 8 };

    fn at(secs: u64) -> Time {
        Time::from_millis(secs * 1_000)
    }

    #[test]
    fn another_process_waits_for_the_promise_and_for_a_later_term() {
        let (askers, peer) = (Askers::new(PROMISE), Keys::from_seed([1; 32]).key());
        assert!(askers.serves(peer, FIRST, Own(5), at(0)));
        assert!(askers.serves(Keys::from_seed([2; 32]).key(), OTHER, Own(5), at(0)), "of another key");
        assert!(askers.serves(peer, FIRST, Own(4), at(3)), "a late request");
        assert!(!askers.serves(peer, OTHER, Own(6), at(6)), "promised until 7");
        assert!(!askers.serves(peer, OTHER, Own(5), at(7)), "the first may lead in this term");
        assert!(!askers.serves(peer, OTHER, Sounded(5), at(7)), "and nobody else need ask for it");
        assert!(askers.serves(peer, OTHER, Own(6), at(7)));
        assert!(!askers.serves(peer, FIRST, Own(7), at(8)), "now the other is served");
        assert!(askers.serves(peer, FIRST, Own(7), at(11)));
        askers.forget(&peer);
        assert!(askers.serves(peer, OTHER, Own(1), at(11)));
    }

    #[test]
    fn a_term_that_was_only_sounded_out_is_open_to_the_next_process() {
        let (askers, peer) = (Askers::new(PROMISE), Keys::from_seed([1; 32]).key());
        assert!(askers.serves(peer, FIRST, Own(5), at(0)));
        // It would stand in 6, has no majority, and dies; its disk says 5. The next one sounds out 6 as well, and were
        // that refused, it would for ever: without a majority for the question it never gets any further.
        assert!(askers.serves(peer, FIRST, Sounded(6), at(1)));
        assert!(!askers.serves(peer, OTHER, Sounded(6), at(4)), "promised until 5");
        assert!(askers.serves(peer, OTHER, Sounded(6), at(5)));
        assert!(askers.serves(peer, OTHER, Own(6), at(5)));
        assert!(!askers.serves(peer, FIRST, Sounded(6), at(10)), "that is the other's now");
    }
}

//! The lease: whether the leader may act at this moment.
//!
//! **A lease is not a lock.** A grant says that no other host can hold one at this time, provided clocks
//! run no more than 5 % apart. It does not say that what was begun under it ends in time: so every
//! effect carries the [`Fence`], and whoever is affected refuses a lower one than it has seen.
//!
//! The promise behind it (Gray and Cheriton, 1989; leader leases in the Raft dissertation, 6.4.1): a voter
//! that acknowledged a leader grants nobody else a vote for one lease *of its own clock*, and a voter that
//! has just started grants none for 1.05 leases, for it may have forgotten such a promise. The leader
//! counts from the moment *before* it asked, and stops a margin earlier. With `margin` at least 5 % of
//! `lease`, a leader whose clock is 5 % slower than a voter's still stops first:
//! `(lease - margin) / 0.95 <= lease`.
//!
//! | Raft state | voters | quorum last acknowledged | lease |
//! |---|---|---|---|
//! | not leader | any | any | none |
//! | leader, no longer a voter | any | any | none |
//! | leader | itself alone | any | from now on, always |
//! | leader | several | never | none |
//! | leader | several | less than `lease - margin` ago | until then |
//! | leader | several | earlier | none |
//!
//! Nothing here measures time or knows Raft; crate `node` fills [`LeaseInput`].

use crate::mutants::{self, Mutant};
use crate::time::Time;
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
use std::fmt;
use std::time::Duration;

/// The number that outlives a leader: the epoch of recovery, then the Raft term. Of two leaders the later
/// one has the greater fence. Shown as `epoch.term`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize_tuple, Deserialize_tuple)]
pub struct Fence {
    /// Raised by every recovery from a lost majority, above all terms before it.
    pub epoch: u64,
    /// Raft's term: at most one leader in each.
    pub term: u64,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.term)
    }
}
impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Leave to act as the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What every effect carries.
    pub fence: Fence,
    /// On this host's clock; at this moment the grant is over.
    pub until: Time,
}

/// Everything a grant depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseInput {
    /// Raft says that this host leads.
    pub is_leader: bool,
    /// This host is a voter of the newest membership it knows. A removed leader leads on for a while,
    /// so that its removal is heard of; it must not act.
    pub is_voter: bool,
    /// No other host votes: nobody can be elected elsewhere.
    pub sole_voter: bool,
    /// When the requests were *sent* that a quorum has acknowledged.
    pub last_quorum_acked: Option<Time>,
    /// How long a voter keeps its promise.
    pub lease: Duration,
    /// How much earlier the leader stops.
    pub margin: Duration,
    /// Epoch of recovery.
    pub epoch: u64,
    /// Raft's term.
    pub term: u64,
}

/// The grant that holds at `now`, if any: the table above.
pub fn grant(input: &LeaseInput, now: Time) -> Option<Grant> {
    if !input.is_leader || !input.is_voter {
        return None;
    }
    let naive = mutants::on(Mutant::LeadershipIsLease);
    let from = if input.sole_voter || naive { now } else { input.last_quorum_acked? };
    // An acknowledgement from the future is a clock that went back: it never lengthens a lease.
    let until = from.min(now) + input.lease.saturating_sub(input.margin);
    (now < until).then_some(Grant { fence: Fence { epoch: input.epoch, term: input.term }, until })
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;

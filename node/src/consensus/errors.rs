//! Why consensus did not start, propose or change its membership, and whether anything was done all the same.

use mesh::identity::PeerKey;
use mesh::limits::BATCH_BYTES_MAX;
use std::io;

/// Why consensus did not start. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database cannot be opened or read.
    #[error("cannot open the ledger's database: {0}")]
    Store(#[from] io::Error),
    /// The times contradict each other.
    #[error("impossible timing: {0}")]
    Timing(String),
    /// openraft refused what it found.
    #[error("the ledger cannot be started from what is in its database: {0}")]
    Raft(String),
}

/// Why a proposal has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Not written: only the leader takes proposals.
    #[error("this host does not lead the mesh")]
    NotLeader {
        /// Who does, as far as known.
        leader: Option<PeerKey>,
    },
    /// Unknown outcome: it may still be committed.
    #[error("no answer in time; the entry may still be committed")]
    Timeout,
    /// Unknown outcome: another leader took over; it may still be committed.
    #[error("another leader took over; the entry may still be committed")]
    Lost {
        /// Who leads now, as far as known.
        leader: Option<PeerKey>,
    },
    /// Not written: larger than one payload may be.
    #[error("a batch of {0} bytes is larger than the {BATCH_BYTES_MAX} allowed")]
    TooLarge(usize),
    /// Unknown outcome: consensus has stopped here.
    #[error("the ledger has stopped on this host: {0}")]
    Stopped(String),
}

/// Why the membership was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Nothing was done: only the leader changes the membership.
    #[error("this host does not lead the mesh")]
    NotLeader {
        /// Who does, as far as known.
        leader: Option<PeerKey>,
    },
    /// Nothing was done: another change is under way. Try again when it is committed.
    #[error("another change of the membership is under way")]
    InProgress,
    /// Nothing was done: a new voter has to be a learner first.
    #[error("{0:?} is not a learner yet: add it, and wait until it has caught up")]
    NotLearner(PeerKey),
    /// Nothing was done: the change makes no sense.
    #[error("refused: {0}")]
    Refused(String),
    /// Unknown outcome.
    #[error("no answer in time; the change may still be committed")]
    Timeout,
    /// Unknown outcome.
    #[error("the ledger has stopped on this host: {0}")]
    Stopped(String),
}

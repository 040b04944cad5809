//! openraft's type configuration and short names for its types. No behaviour.

use super::rt::NodeRuntime;
use mesh::identity::PeerKey;
use openraft::type_config::alias;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One proposal: bytes whose meaning only the state machine knows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Payload(#[serde(with = "serde_bytes")] pub Vec<u8>);

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What became of a proposal: where it is in the log, and the state machine's answer.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Applied {
    /// Index in the log.
    pub index: u64,
    /// Term of the leader that wrote it.
    pub term: u64,
    /// The state machine's answer.
    #[serde(with = "serde_bytes")]
    pub result: Vec<u8>,
}

openraft::declare_raft_types!(
    /// One voter per key and one leader per term: the term alone orders leaders.
    pub TypeConfig:
        D = Payload,
        R = Applied,
        NodeId = PeerKey,
        Node = openraft::EmptyNode,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = NodeRuntime,
);

pub(super) type Vote = alias::VoteOf<TypeConfig>;
pub(super) type LogId = alias::LogIdOf<TypeConfig>;
pub(super) type Entry = alias::EntryOf<TypeConfig>;
pub(super) type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
pub(super) type Snapshot = alias::SnapshotOf<TypeConfig, Vec<u8>>;
pub(super) type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub(super) type Raft = openraft::Raft<TypeConfig, super::machine::Machine>;
pub(super) type Metrics = openraft::RaftMetrics<TypeConfig>;

/// The term that an entry was written in.
pub(super) fn term_of(id: &LogId) -> u64 {
    id.committed_leader_id().term
}

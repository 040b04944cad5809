//! What may stand in the ledger: entries, each signed by its author, in batches that a leader stamps.

use crate::build::{Attempt, BuildId, BuildSpec, Outcome};
use crate::healing;
use crate::identity::{Keys, PeerKey};
use crate::lease::Fence;
use crate::limits::{ENTRY_BYTES_MAX, TEXT_BYTES_MAX};
use crate::roster::{MeshId, VoterChange};
use crate::tagged;
use crate::wire::{Label, Signed};
use serde::{Deserialize, Serialize};
use serde_repr::{Deserialize_repr, Serialize_repr};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
use std::collections::BTreeSet;

/// Made once by a client; the same id twice is the same request, however often it is sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(#[serde(with = "serde_bytes")] pub [u8; 16]);

/// One entry: what its author wants, for which mesh, and (when the author acts as leader) under which fence.
#[derive(Clone, PartialEq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Entry {
    /// The mesh.
    pub mesh: MeshId,
    /// Makes a repeated submission harmless.
    pub request: RequestId,
    /// Set on what only a leader may do; void when it is not the present one (rule 4).
    pub fence: Option<Fence>,
    /// What is wanted.
    pub command: Command,
}
impl Label for Entry {
    const LABEL: &'static str = "mesh/entry/v1";
    const MAX: usize = ENTRY_BYTES_MAX;
}

impl Entry {
    /// Signs an entry.
    pub fn seal(keys: &Keys, mesh: MeshId, request: RequestId, fence: Option<Fence>, command: Command) -> Signed {
        Signed::seal(keys, &Entry { mesh, request, fence, command })
    }
}

/// Whether an entry, genuine or not, takes out one of these.
pub fn takes_out(entry: &Signed, peers: &BTreeSet<PeerKey>) -> bool {
    let command = entry.open::<Entry>().map(|entry| entry.command);
    matches!(command, Ok(Command::Revoke(revoke)) if peers.contains(&revoke.peer))
}

tagged! {
    /// What an entry does.
    #[derive(Clone, PartialEq, Debug)]
    pub enum Command {
        /// A new leader says so: the first entry of its term.
        1 => Lead(Lead),
        /// A member brings a joiner's request.
        2 => Enrol(Enrol),
        /// A signer takes a host out, or a host leaves.
        3 => Revoke(Revoke),
        /// The leader brings the next voter set, signed by a majority of the present one.
        4 => Voters(VoterChange),
        /// A member submits builds.
        5 => Submit(Submit),
        /// The leader gives attempts to hosts.
        6 => Assign(Assign),
        /// A host tells how attempts ended.
        7 => Report(Report),
        /// The leader takes attempts from hosts that are down or have restarted.
        8 => Lose(Lose),
        /// A member cancels builds.
        9 => Cancel(Cancel),
        /// A member submits a finished build again.
        10 => Retry(Retry),
        /// Healing: policy, blocks, orders, cases and what came of them.
        11 => Heal(healing::Entry),
        /// A signer gives a host another name.
        12 => Rename(Rename),
        /// A signer takes a lost host out and invites its successor.
        13 => Replace(Replace),
        /// A member has met a second record of the present epoch of recovery.
        14 => Dispute(VoterChange),
    }
}

impl Command {
    /// The ledger level from which on it may be written: a program of a lower one would stop at it.
    pub fn level(&self) -> u32 {
        match self {
            Command::Heal(healing::Entry::Change(change)) if change.event >= healing::Event::Returned => 7,
            Command::Heal(healing::Entry::Withdraw(_)) => 6,
            Command::Heal(healing::Entry::Archive(_)) => 5,
            Command::Heal(_) => 2,
            Command::Rename(_) | Command::Replace(_) => 3,
            Command::Dispute(_) => 4,
            _ => 1,
        }
    }
}

/// See [`Command::Lead`].
#[derive(Clone, PartialEq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Lead {
    /// Version of the leader's program, for people.
    pub version: String,
}

/// See [`Command::Enrol`].
#[derive(Clone, PartialEq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Enrol {
    /// The joiner's signed [`crate::roster::JoinRequest`].
    pub join: Signed,
}

/// See [`Command::Revoke`].
#[derive(Clone, PartialEq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Revoke {
    /// Who.
    pub peer: PeerKey,
    /// Whether it may never be invited again.
    pub banned: bool,
    /// Why.
    pub reason: String,
}

/// See [`Command::Rename`].
#[derive(Clone, PartialEq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Rename {
    /// Who.
    pub peer: PeerKey,
    /// Its new name.
    pub name: String,
}

/// See [`Command::Replace`].
#[derive(Clone, PartialEq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Replace {
    /// Whose key is taken out.
    pub peer: PeerKey,
    /// The author's [`crate::roster::Invitation`] of the successor: of the same name and powers.
    pub invitation: Signed,
    /// Why.
    pub reason: String,
}

/// See [`Command::Submit`].
#[derive(Clone, PartialEq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Submit {
    /// The builds; their needs name each other.
    pub specs: Vec<BuildSpec>,
}

/// See [`Command::Assign`].
#[derive(Clone, PartialEq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Assign {
    /// The attempts.
    pub attempts: Vec<Assignment>,
}

/// One attempt for one host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Assignment {
    /// Of which build.
    pub build: BuildId,
    /// The next number of that build.
    pub attempt: Attempt,
    /// Who runs it.
    pub host: PeerKey,
    /// The host's start number: a host that has restarted since has lost the attempt.
    pub start: u64,
}

/// See [`Command::Report`].
#[derive(Clone, PartialEq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Report {
    /// The ends.
    pub ends: Vec<AttemptEnd>,
}

/// How one attempt ended.
#[derive(Clone, PartialEq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct AttemptEnd {
    /// Of which build.
    pub build: BuildId,
    /// Which.
    pub attempt: Attempt,
    /// What came of it.
    pub outcome: Outcome,
    /// Storage receipts ([`crate::build::Receipt`]) of the hosts that hold its blobs.
    pub receipts: Vec<Signed>,
}

/// See [`Command::Lose`].
#[derive(Clone, PartialEq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Lose {
    /// The attempts.
    pub attempts: Vec<Lost>,
}

/// An attempt that its host lost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Lost {
    /// Of which build.
    pub build: BuildId,
    /// Which.
    pub attempt: Attempt,
    /// Why, in words.
    pub reason: String,
}

/// See [`Command::Cancel`].
#[derive(Clone, PartialEq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Cancel {
    /// The builds.
    pub builds: Vec<BuildId>,
    /// Why, in words.
    pub reason: String,
}

/// See [`Command::Retry`].
#[derive(Clone, PartialEq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Retry {
    /// The build.
    pub build: BuildId,
}

/// What a leader puts into the log: entries as they came, and the time it stamps on them.
#[derive(Clone, PartialEq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Batch {
    /// Ledger time in milliseconds since 1970. An earlier one than the last is taken as the last.
    pub time_ms: u64,
    /// The entries.
    pub entries: Vec<Signed>,
}

/// Why an entry had no effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize_repr, Deserialize_repr)]
#[repr(u8)]
pub enum Code {
    /// It had its effect.
    Ok = 0,
    /// Signature or encoding is wrong.
    Invalid = 1,
    /// Its author is not enrolled, or may not do this.
    Forbidden = 2,
    /// Its fence is not the present one.
    Stale = 3,
    /// What it names does not exist.
    Unknown = 4,
    /// What it names is not in a state that allows it.
    Conflict = 5,
    /// A bound would be exceeded.
    Full = 6,
    /// Too few storage receipts.
    Receipts = 7,
}

/// The answer to one entry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Reply {
    /// What became of it.
    pub code: Code,
    /// In words, when it is not [`Code::Ok`].
    pub text: String,
    /// Builds it made.
    pub builds: Vec<BuildId>,
}

impl Reply {
    /// It had its effect.
    pub fn ok() -> Self {
        Reply { code: Code::Ok, text: String::new(), builds: vec![] }
    }
    /// It made builds.
    pub fn made(builds: Vec<BuildId>) -> Self {
        Reply { builds, ..Reply::ok() }
    }
    /// It had none.
    pub fn refused(code: Code, text: impl Into<String>) -> Self {
        let mut text = text.into();
        if text.len() > TEXT_BYTES_MAX {
            text = crate::roster::cut(&text);
        }
        Reply { code, text, builds: vec![] }
    }
    /// Whether it had its effect.
    pub fn is_ok(&self) -> bool {
        self.code == Code::Ok
    }
}

//! What `mesh recover` asks and is told, as JSON. The recovery key is not in it: who has it signs the record.

use super::types::HostState;
use mesh::identity::PeerKey;
use serde::{Deserialize, Serialize};

/// A recovery as it would be, with the host that is asked as the heir.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryPlan {
    /// [`super::types::VERSION`].
    pub version: u32,
    /// The mesh's name.
    pub mesh: String,
    /// Whose log would go on.
    pub heir: String,
    /// The epoch that would begin.
    pub epoch: u64,
    /// How far that log goes: epoch, term and index of its last entry.
    pub log: String,
    /// All hosts, with how far their logs go, of those that answered.
    pub hosts: Vec<RecoveryHost>,
    /// The public half of the key that has to sign.
    #[serde(with = "super::types::text")]
    pub recovery_key: PeerKey,
    /// What it has to sign, in hexadecimal digits. Missing while something speaks against it.
    pub record: Option<String>,
    /// What speaks against it.
    pub problem: Option<String>,
    /// What to do then.
    pub hint: Option<String>,
}

/// One host of a [`RecoveryPlan`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryHost {
    /// Its name.
    pub host: String,
    /// What is believed of it.
    pub state: HostState,
    /// Whether it votes.
    pub voter: bool,
    /// How far its log goes.
    pub log: Option<String>,
}

/// A record to be followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoverRequest {
    /// As `mesh recover --print` printed it.
    pub record: String,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// [`super::types::VERSION`].
    pub version: u32,
    /// In words.
    pub text: String,
}

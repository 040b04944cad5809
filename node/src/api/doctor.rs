//! What a daemon tells `mesh doctor` of its mesh, as JSON: facts, not judgements. `driver::doctor` fills it,
//! [`crate::doctor`] judges.

use super::types::{HostState, PathKind, Warning};
use serde::{Deserialize, Serialize};

/// The mesh as one host sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshFacts {
    /// [`super::types::VERSION`].
    pub version: u32,
    /// The host that answers.
    pub host: String,
    /// For how long its daemon has run.
    pub up_ms: u64,
    /// Who leads.
    pub leader: Option<String>,
    /// How many hosts may invite and evict.
    pub signers: u32,
    /// Whether another host has dialled this one at an address of its own lately.
    pub reached: bool,
    /// Where it listens, as multiaddrs.
    pub listening: Vec<String>,
    /// Every host of the roster, sorted by name.
    pub hosts: Vec<HostFacts>,
    /// What ends by itself.
    pub ending: Vec<Ending>,
    /// Everything that status warns of.
    pub warnings: Vec<Warning>,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Its name.
    pub name: String,
    /// What is believed of it.
    pub state: HostState,
    /// Why, when it is not alive.
    pub why: String,
    /// How it is reached.
    pub path: PathKind,
    /// Hosts behind whose masquerades it is.
    pub behind: Vec<String>,
    /// Whether it relays for others.
    pub relays: bool,
    /// How far its wall clock is ahead of this host's.
    pub clock_ms: Option<i64>,
    /// Its version; empty when unknown.
    pub program: String,
    /// Whether its service starts at boot, when known.
    pub boot_enabled: Option<bool>,
}

/// Something temporary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// What, for example `the block of izar`.
    pub what: String,
    /// Why it was made.
    pub reason: String,
    /// When it ends, from now.
    pub left_ms: u64,
    /// What to do when it should not end, or should end now.
    pub advice: String,
}

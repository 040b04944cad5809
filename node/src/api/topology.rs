//! What `mesh topology` is told, as JSON: every host with every lead to it, as one host sees them. Decides nothing;
//! `driver::topology` fills it, [`crate::cli`] draws it.

use super::ping::PingLead;
use super::types::{HostState, PathKind, text};
use mesh::identity::PeerKey;
use serde::{Deserialize, Serialize};

/// Where everybody is, as one host sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// [`super::types::VERSION`].
    pub version: u32,
    /// The mesh's name.
    pub mesh: String,
    /// The host that answers: all paths begin there.
    pub host: String,
    /// Every host of the roster, this one included, sorted by name.
    pub hosts: Vec<Place>,
}

/// One host, and where it may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// Its key.
    #[serde(with = "text")]
    pub peer: PeerKey,
    /// What the view says.
    pub state: HostState,
    /// How it is reached.
    pub path: PathKind,
    /// Through whom, when over a relay that is known.
    pub relay: Option<String>,
    /// The other end of the direct connection in use.
    pub address: Option<String>,
    /// Whether it relays for hosts that nobody can dial.
    pub offers_relay: bool,
    /// Every lead to it with its history, the one that was proved last first; of this host itself, where it listens.
    pub leads: Vec<PingLead>,
}

impl Place {
    /// The hosts behind whose masquerades it is, each once, in the order of its leads.
    pub fn behind(&self) -> Vec<&str> {
        let mut found: Vec<&str> = vec![];
        for nat in self.leads.iter().filter_map(|lead| lead.nat_of.as_deref()) {
            if !found.contains(&nat) {
                found.push(nat);
            }
        }
        found
    }
}

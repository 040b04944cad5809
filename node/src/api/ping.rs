//! What `mesh ping` is told, as JSON: how a host is reached, and every lead to it with its history. Decides nothing;
//! `driver::ping` fills it, [`crate::cli`] shows it.

use super::types::{PathKind, text};
use mesh::identity::PeerKey;
use serde::{Deserialize, Serialize};

/// How a host is reached, and what was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingReport {
    /// [`super::types::VERSION`].
    pub version: u32,
    /// The host's name.
    pub host: String,
    /// Its key.
    #[serde(with = "text")]
    pub peer: PeerKey,
    /// How it is reached.
    pub path: PathKind,
    /// Through whom, when over a relay that is known.
    pub relay: Option<String>,
    /// The other end of the connection.
    pub address: Option<String>,
    /// Round trips through the mesh's own connection, in microseconds.
    pub round_trips_us: Vec<u64>,
    /// Why there are fewer round trips than were asked for.
    pub error: Option<String>,
    /// Every lead to it and what came of it, the one that was proved last first.
    pub leads: Vec<PingLead>,
}

/// A lead to a host, with its history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingLead {
    /// A multiaddr; the bare IP of one that was only seen; the relay's key in one through a relay.
    pub addr: String,
    /// How it came here.
    pub source: String,
    /// Who said so; nobody when this host knows by itself.
    pub observer: Option<String>,
    /// Since it came first.
    pub first_ms: u64,
    /// Since a handshake with the host last succeeded on it.
    pub proved_ms: Option<u64>,
    /// Why it failed since.
    pub failed: Option<String>,
    /// Since that failure.
    pub failed_ms: Option<u64>,
    /// Another host that answered there.
    pub answered_by: Option<String>,
    /// The host whose masquerade this is.
    pub nat_of: Option<String>,
    /// Until it is forgotten; what is configured is not.
    pub expires_ms: Option<u64>,
}

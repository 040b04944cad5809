//! A fleet that has been checked: plain data, names resolved by [`crate::check`]. Never made by hand:
//! [`Fleet::parse`], [`Fleet::load`] and [`Fleet::generated`] are the ways in. On to [`crate::Oracle`].

use crate::error::{FleetError, Wrong};
use crate::limits::FILE_BYTES_MAX;
use crate::raw;
use ipnet::Ipv4Net;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

/// A whole fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// What people call it.
    pub name: String,
    /// Its networks by name. No two overlap.
    pub networks: BTreeMap<String, Network>,
    /// Its masquerades, in the order of the file.
    pub masquerades: Vec<Masquerade>,
    /// Its plain routes, in the order of the file.
    pub routes: Vec<Route>,
    /// Its port forwards, in the order of the file.
    pub forwards: Vec<Forward>,
    /// Its hosts, in the order of the file.
    pub hosts: Vec<Host>,
}

/// What kind of network it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkKind {
    /// One site's wire.
    #[default]
    Lan,
    /// Between sites: the Internet, or a carrier's network.
    Wan,
    /// Laid over others (WireGuard and the like), so that it can be switched off alone. What carries it is not modelled.
    Overlay,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its addresses.
    pub cidr: Ipv4Net,
    /// Its kind.
    pub kind: NetworkKind,
    /// Round trip between two of its hosts, in milliseconds.
    pub round_trip_ms: u64,
    /// Packets lost, in thousandths.
    pub loss_per_mille: u32,
}

/// What a mapping or a filter of a masquerade looks at, in the terms of RFC 4787 (4.1 and 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dependence {
    /// At nothing: one mapping serves for all far sides; a mapping lets everybody in.
    EndpointIndependent,
    /// At the far side's address.
    AddressDependent,
    /// At the far side's address and port.
    AddressAndPortDependent,
}

/// What port the outside sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ports {
    /// The inside's own, unless another flow has it (Linux's default).
    #[default]
    Preserved,
    /// An unforeseeable one (`fully-random`).
    Random,
}

/// How a masquerade treats what passes. A first dial never depends on it; hole punching does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nat {
    /// What a mapping depends on. "Symmetric" NAT is [`Dependence::AddressAndPortDependent`].
    pub mapping: Dependence,
    /// Who may use a mapping from outside.
    pub filtering: Dependence,
    /// What port the outside sees.
    pub ports: Ports,
}

impl Nat {
    /// Linux's masquerade as it comes: ports are kept, and as long as they are, all far sides see one
    /// port; only the far side that was dialled may answer.
    pub const LINUX: Nat = Nat {
        mapping: Dependence::EndpointIndependent,
        filtering: Dependence::AddressAndPortDependent,
        ports: Ports::Preserved,
    };
    /// Linux's masquerade with `fully-random`: symmetric.
    pub const SYMMETRIC: Nat = Nat {
        mapping: Dependence::AddressAndPortDependent,
        filtering: Dependence::AddressAndPortDependent,
        ports: Ports::Random,
    };
}

/// A router that gives its own address to whatever leaves a network through it. No way back in but by a [`Forward`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masquerade {
    /// The host that does it. It need not have an address of its own inside: then the inside sees `address`.
    pub router: String,
    /// The network that is hidden.
    pub inside: String,
    /// The network that is reached, and through it whatever its router reaches.
    pub outside: String,
    /// The source address that the outside sees.
    pub address: Ipv4Addr,
    /// How it treats what passes.
    pub nat: Nat,
    /// Round trip between the two networks, in milliseconds.
    pub round_trip_ms: u64,
}

/// A plain route, one way: hosts of `from` send to `to` through the router, and their addresses are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The host that passes it on; it has an address on both networks.
    pub router: String,
    /// Whose hosts have the route.
    pub from: String,
    /// Where it leads.
    pub to: String,
    /// Round trip between the two networks, in milliseconds.
    pub round_trip_ms: u64,
}

/// A port of a masquerading router that leads to a host inside, for what comes from outside. Inside hosts that
/// dial it get the router itself (no hairpin).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The router.
    pub router: String,
    /// The network that it takes dials from.
    pub outside: String,
    /// The router's port there.
    pub port: u16,
    /// The host that gets them.
    pub to: String,
    /// That host's address.
    pub to_address: Ipv4Addr,
    /// That host's port.
    pub to_port: u16,
}

/// What a host's work was before the mesh: only a label, but for [`Role::Router`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Routed between sites.
    Gateway,
    /// Gave out the work.
    Orchestrator,
    /// Did the work.
    Drone,
    /// A bare router: no member of a mesh, and listens on nothing unless it says so.
    Router,
    /// Carries the traffic of others.
    Relay,
}

/// A service manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// systemd.
    Systemd,
    /// OpenRC.
    Openrc,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name, unique in the fleet.
    pub name: String,
    /// Its address on each network it is on. Empty for one that shares.
    pub addresses: BTreeMap<String, Ipv4Addr>,
    /// The host whose addresses it uses (a container without a network of its own).
    pub shares: Option<String>,
    /// Where it listens, on every address; `None` for one that cannot be dialled.
    pub port: Option<u16>,
    /// Cores it offers to builds.
    pub cores: u32,
    /// What it was.
    pub role: Role,
    /// Never to be rebooted by the mesh.
    pub protected: bool,
    /// What starts it at boot, where that is known.
    pub service: Option<Service>,
}

impl Fleet {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`FleetError`], with line, column and field where there is one.
    pub fn load(file: &Path) -> Result<Fleet, FleetError> {
        let name = file.display().to_string();
        match std::fs::read_to_string(file) {
            Ok(text) => Fleet::parse(&name, &text),
            Err(error) => Err(FleetError::Unreadable { file: name, text: error.to_string() }),
        }
    }

    /// Checks a text; `file` is what errors call it.
    ///
    /// # Errors
    /// [`FleetError::Invalid`].
    pub fn parse(file: &str, text: &str) -> Result<Fleet, FleetError> {
        let parsed = if text.len() > FILE_BYTES_MAX {
            let text = format!("{} bytes, and {FILE_BYTES_MAX} are allowed", text.len());
            Err(Wrong { at: 0, field: "fleet".into(), text })
        } else {
            raw::parse(text)
        };
        parsed.and_then(raw::Fleet::check).map_err(|wrong| wrong.placed(file, text))
    }

    /// The reference fleet.
    ///
    /// # Errors
    /// Never, as a test shows.
    pub fn alpha_centauri() -> Result<Fleet, FleetError> {
        Fleet::parse("alpha-centauri.toml", crate::ALPHA_CENTAURI)
    }

    /// A host by name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// All cores offered to builds.
    pub fn cores(&self) -> u32 {
        self.hosts.iter().map(|host| host.cores).sum()
    }
}

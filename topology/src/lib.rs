//! Fleets as data: hosts, the networks they are on, and the masquerades between those.
//!
//! A fleet is a TOML file (`fleets/*.toml`), loaded strictly: an unknown field, a name that nothing
//! has, or an address outside of its network is an error with its line and column. [`Fleet::path`] is
//! the oracle that simulator and tests ask: who reaches whom, and seen as which address. Nothing here
//! touches a real network; no address here ever identifies a host (incident 1).
#![warn(missing_docs)]
#![forbid(unsafe_code)]

use ipnet::Ipv4Net;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path as FilePath;
use toml::Spanned;

/// The reference fleet, as shipped.
pub const ALPHA_CENTAURI: &str = include_str!("../fleets/alpha-centauri.toml");

/// Why a fleet could not be loaded. Nothing is kept of one that fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FleetError {
    /// The file could not be read.
    #[error("{file}: {text}; give the path of a fleet file such as topology/fleets/alpha-centauri.toml")]
    Unreadable {
        /// Path as given.
        file: String,
        /// What the system said.
        text: String,
    },
    /// The text is not a fleet; line and column count from 1.
    #[error("{file}:{line}:{column}: {text}")]
    Invalid {
        /// Name given for the text.
        file: String,
        /// Line of the mistake.
        line: usize,
        /// Column of the mistake, in characters.
        column: usize,
        /// What is wrong, and what is allowed.
        text: String,
    },
}

/// A whole fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// What people call it.
    pub name: String,
    /// Its networks by name.
    pub networks: BTreeMap<String, Network>,
    /// Its masquerades, in the order of the file.
    pub masquerades: Vec<Masquerade>,
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
    /// Laid over others (WireGuard and the like).
    Overlay,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its addresses.
    pub cidr: Ipv4Net,
    /// Its kind.
    pub kind: NetworkKind,
}

/// A router that gives its own address to whatever leaves a network through it. There is no way back in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masquerade {
    /// The host that does it.
    pub router: String,
    /// The network that is hidden.
    pub inside: String,
    /// The network that is reached.
    pub outside: String,
    /// The source address that the outside sees.
    pub address: Ipv4Addr,
    /// Round trip between the two networks, in milliseconds.
    pub round_trip_ms: u64,
}

/// What a host's work was before the mesh: only a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Routed between sites.
    Gateway,
    /// Gave out the work.
    Orchestrator,
    /// Did the work.
    Drone,
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
    /// Its address on each network it is on.
    pub addresses: BTreeMap<String, Ipv4Addr>,
    /// Cores it offers to builds.
    pub cores: u32,
    /// What it was.
    pub role: Role,
    /// Never to be rebooted by the mesh.
    pub protected: bool,
    /// What starts it at boot, where that is known.
    pub service: Option<Service>,
}

/// How traffic of one host gets to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// On a network that both are on.
    Direct {
        /// The source address that the far side sees.
        seen_as: Ipv4Addr,
    },
    /// Through a masquerade: the far side sees the router.
    Masqueraded {
        /// The router's name.
        router: String,
        /// The source address that the far side sees.
        seen_as: Ipv4Addr,
    },
    /// Not at all.
    None,
}

impl Fleet {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`FleetError`], with line and column where there is one.
    pub fn load(file: &FilePath) -> Result<Fleet, FleetError> {
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
        let invalid = |at: usize, what: String| {
            let before = &text[..at.min(text.len())];
            let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
            let line = before.matches('\n').count() + 1;
            let column = before[line_start..].chars().count() + 1;
            FleetError::Invalid { file: file.to_owned(), line, column, text: what }
        };
        let raw: raw::Fleet = toml::from_str(text)
            .map_err(|error| invalid(error.span().map_or(0, |span| span.start), error.message().to_owned()))?;
        raw.check().map_err(|(at, what)| invalid(at, what))
    }

    /// The reference fleet.
    ///
    /// # Errors
    /// Never, as a test shows.
    pub fn alpha_centauri() -> Result<Fleet, FleetError> {
        Fleet::parse("alpha-centauri.toml", ALPHA_CENTAURI)
    }

    /// A host by name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// All cores offered to builds.
    pub fn cores(&self) -> u32 {
        self.hosts.iter().map(|host| host.cores).sum()
    }

    /// The oracle: how traffic from `from` gets to `to`, and what `to` sees. Whether anybody listens
    /// there is another question: behind a masquerade, it is the router that would answer.
    pub fn path(&self, from: &str, to: Ipv4Addr) -> Path {
        let Some(host) = self.host(from) else { return Path::None };
        let target = self.networks.iter().find(|(_, network)| network.cidr.contains(&to)).map(|(name, _)| name);
        let Some(target) = target else { return Path::None };
        if let Some(own) = host.addresses.get(target) {
            return Path::Direct { seen_as: *own };
        }
        let through = |masq: &&Masquerade| masq.outside == *target && host.addresses.contains_key(&masq.inside);
        match self.masquerades.iter().find(through) {
            Some(masq) => Path::Masqueraded { router: masq.router.clone(), seen_as: masq.address },
            None => Path::None,
        }
    }
}

/// The file's own form, before its names and addresses have been checked against each other.
mod raw {
    use super::*;

    /// Where it is wrong (offset in bytes), and what.
    type Wrong = (usize, String);

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Fleet {
        name: String,
        #[serde(default)]
        network: Vec<Network>,
        #[serde(default)]
        masquerade: Vec<Masquerade>,
        #[serde(default)]
        host: Vec<Host>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Network {
        name: Spanned<String>,
        cidr: Ipv4Net,
        #[serde(default)]
        kind: NetworkKind,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Masquerade {
        router: Spanned<String>,
        inside: Spanned<String>,
        outside: Spanned<String>,
        address: Spanned<Ipv4Addr>,
        #[serde(default)]
        round_trip_ms: u64,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Host {
        name: Spanned<String>,
        addresses: BTreeMap<String, Spanned<Ipv4Addr>>,
        cores: u32,
        role: Role,
        #[serde(default)]
        protected: bool,
        service: Option<Service>,
    }

    fn unknown(kind: &str, name: &Spanned<String>) -> Wrong {
        (name.span().start, format!("no {kind} of this fleet is called `{}`", name.get_ref()))
    }

    impl Fleet {
        pub fn check(self) -> Result<super::Fleet, Wrong> {
            let mut networks = BTreeMap::new();
            for raw in self.network {
                let at = raw.name.span().start;
                let (name, network) = (raw.name.into_inner(), super::Network { cidr: raw.cidr, kind: raw.kind });
                if networks.insert(name.clone(), network).is_some() {
                    return Err((at, format!("a second network is called `{name}`")));
                }
            }
            let mut hosts: Vec<super::Host> = vec![];
            let mut taken = BTreeSet::new();
            for raw in self.host {
                let at = raw.name.span().start;
                let name = raw.name.into_inner();
                if hosts.iter().any(|host| host.name == name) {
                    return Err((at, format!("a second host is called `{name}`")));
                }
                let mut addresses = BTreeMap::new();
                for (network, address) in raw.addresses {
                    let (at, address) = (address.span().start, address.into_inner());
                    let Some(known) = networks.get(&network) else {
                        return Err((at, format!("no network of this fleet is called `{network}`")));
                    };
                    if !known.cidr.contains(&address) {
                        return Err((at, format!("{address} is not in `{network}`, which is {}", known.cidr)));
                    }
                    if !taken.insert(address) {
                        return Err((at, format!("{address} is taken by another host")));
                    }
                    addresses.insert(network, address);
                }
                hosts.push(super::Host {
                    name,
                    addresses,
                    cores: raw.cores,
                    role: raw.role,
                    protected: raw.protected,
                    service: raw.service,
                });
            }
            let mut masquerades = vec![];
            for raw in self.masquerade {
                for network in [&raw.inside, &raw.outside] {
                    if !networks.contains_key(network.get_ref()) {
                        return Err(unknown("network", network));
                    }
                }
                let router = hosts.iter().find(|host| host.name == *raw.router.get_ref());
                let router = router.ok_or_else(|| unknown("host", &raw.router))?;
                let address = *raw.address.get_ref();
                if router.addresses.get(raw.outside.get_ref()) != Some(&address) {
                    let text =
                        format!("{address} is not the address of `{}` on `{}`", router.name, raw.outside.get_ref());
                    return Err((raw.address.span().start, text));
                }
                masquerades.push(super::Masquerade {
                    router: raw.router.into_inner(),
                    inside: raw.inside.into_inner(),
                    outside: raw.outside.into_inner(),
                    address,
                    round_trip_ms: raw.round_trip_ms,
                });
            }
            Ok(super::Fleet { name: self.name, networks, masquerades, hosts })
        }
    }
}

#[cfg(test)]
#[path = "fleet_tests.rs"]
mod tests;

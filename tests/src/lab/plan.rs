//! What a fleet is in a kernel: ports, addresses, routes, masquerades and forwards, as lines for `ip` and `nft`. Pure:
//! nothing is run here, [`super::build`] does. Ways are the oracle's ([`Oracle::routes`]), so that the lab and the
//! simulator are the same fleet.

use super::command::{Done, Trouble};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::time::Duration;
use topology::{Fleet, Oracle, Ports};

/// Longest name of an interface (IFNAMSIZ less its end).
const INTERFACE_CHARS_MAX: usize = 15;

/// A machine's place on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub host: String,
    pub network: String,
    /// The interface's name on the host.
    pub interface: String,
    pub address: Ipv4Addr,
    /// Whether the address is of this network: a masquerading router need not have one inside.
    pub native: bool,
    /// What a frame takes through it, either way; a wire in user space where it is not zero.
    pub delay: Duration,
    /// What it carries in each direction: a wire in user space where it is limited.
    pub bits_per_s: Option<u64>,
}

/// Every port of a fleet, in the order of its hosts.
pub fn ports(fleet: &Fleet) -> Vec<Port> {
    let mut ports: Vec<Port> = vec![];
    let port = |host: &str, network: &str, address: Ipv4Addr, native: bool| Port {
        host: host.into(),
        network: network.into(),
        interface: interface(fleet, network),
        address,
        native,
        // Between two hosts a frame and its answer pass four times through a port.
        delay: Duration::from_millis(fleet.networks[network].round_trip_ms) / 4,
        bits_per_s: None,
    };
    for host in &fleet.hosts {
        ports.extend(host.addresses.iter().map(|(network, address)| port(&host.name, network, *address, true)));
        for masquerade in fleet.masquerades.iter().filter(|m| m.router == host.name) {
            if !ports.iter().any(|p| p.host == host.name && p.network == masquerade.inside) {
                ports.push(port(&host.name, &masquerade.inside, masquerade.address, false));
            }
        }
    }
    let masquerades = fleet.masquerades.iter().map(|m| (&m.router, &m.inside, &m.outside, m.round_trip_ms));
    let routes = fleet.routes.iter().map(|r| (&r.router, &r.from, &r.to, r.round_trip_ms));
    let mut counted = BTreeSet::new();
    for (router, near, far, round_trip_ms) in masquerades.chain(routes) {
        // The way back over the same router is the same cable.
        if counted.insert((router, near.min(far), near.max(far)))
            && let Some(port) = ports.iter_mut().find(|p| p.host == *router && p.network == *near)
        {
            port.delay += Duration::from_millis(round_trip_ms) / 2;
        }
    }
    ports
}

fn interface(fleet: &Fleet, network: &str) -> String {
    match network.len() <= INTERFACE_CHARS_MAX {
        true => network.into(),
        false => format!("net{}", fleet.networks.keys().position(|n| n == network).unwrap_or_default()),
    }
}

/// Which hosts pass on what is not for them.
pub fn is_router(fleet: &Fleet, host: &str) -> bool {
    fleet.masquerades.iter().any(|m| m.router == host) || fleet.routes.iter().any(|r| r.router == host)
}

/// The machine whose addresses a host has: itself, or the one it shares with.
///
/// # Errors
/// No host is called so.
pub fn machine<'f>(fleet: &'f Fleet, host: &str) -> Done<&'f str> {
    let found = fleet.host(host).ok_or_else(|| {
        let names: Vec<&str> = fleet.hosts.iter().map(|h| h.name.as_str()).collect();
        Trouble(format!("no host is called {host}; there are {}", names.join(", ")))
    })?;
    Ok(found.shares.as_deref().unwrap_or(&found.name))
}

/// A machine's addresses, as lines for `ip -batch`.
pub fn addresses(ports: &[Port], fleet: &Fleet, host: &str) -> String {
    let mut lines = String::from("link set lo up\n");
    for port in ports.iter().filter(|p| p.host == host) {
        let Port { interface, address, .. } = port;
        let cidr = fleet.networks[&port.network].cidr;
        let bits = if port.native { cidr.prefix_len() } else { 32 };
        // A card keeps its hardware address over a reboot; neighbours rely on it.
        let [a, b, c, d] = address.octets();
        let _ = writeln!(lines, "link set dev {interface} address 02:4d:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
        let _ = writeln!(lines, "addr add {address}/{bits} dev {interface}\nlink set dev {interface} up");
    }
    lines
}

/// A machine's ways beyond its networks, as lines for `ip -batch`; none by default, so that what the oracle does not
/// know of cannot be reached.
///
/// # Errors
/// The oracle does not know the host.
pub fn routes(ports: &[Port], fleet: &Fleet, oracle: &Oracle, off: &BTreeSet<String>, host: &str) -> Done<String> {
    let mut lines = String::new();
    let on = |network: &str| ports.iter().find(|p| p.host == host && p.network == network);
    for port in ports.iter().filter(|p| p.host == host && !p.native && !off.contains(&p.network)) {
        let cidr = fleet.networks[&port.network].cidr;
        let _ = writeln!(lines, "route replace {cidr} dev {} src {} proto static", port.interface, port.address);
    }
    for hop in oracle.routes(host).map_err(|e| Trouble(e.to_string()))? {
        let own = on(&hop.over).ok_or_else(|| Trouble(format!("{host} has no port on {}", hop.over)))?;
        let router = ports.iter().find(|p| p.host == *hop.router && p.network == *hop.over);
        let via = router.ok_or_else(|| Trouble(format!("{} has no port on {}", hop.router, hop.over)))?.address;
        let to = fleet.networks[&*hop.to].cidr;
        let _ = writeln!(
            lines,
            "route replace {to} via {via} dev {} onlink src {} proto static",
            own.interface, own.address
        );
    }
    Ok(lines)
}

/// A router's masquerades and forwards, as rules for `nft`; empty for others.
pub fn translation(ports: &[Port], fleet: &Fleet, host: &str) -> String {
    let interface = |network: &str| ports.iter().find(|p| p.host == host && p.network == network).map(|p| &p.interface);
    let (mut before, mut after) = (String::new(), String::new());
    for forward in fleet.forwards.iter().filter(|f| f.router == host) {
        let Some(port) = ports.iter().find(|p| p.host == host && p.network == forward.outside) else { continue };
        for protocol in ["tcp", "udp"] {
            let _ = writeln!(
                before,
                "iifname \"{}\" ip daddr {} {protocol} dport {} counter dnat to {}:{}",
                port.interface, port.address, forward.port, forward.to_address, forward.to_port
            );
        }
    }
    for masquerade in fleet.masquerades.iter().filter(|m| m.router == host) {
        let (Some(inside), Some(outside)) = (interface(&masquerade.inside), interface(&masquerade.outside)) else {
            continue;
        };
        let how = if masquerade.nat.ports == Ports::Random { " fully-random" } else { "" };
        let _ = writeln!(after, "iifname \"{inside}\" oifname \"{outside}\" counter masquerade{how}");
    }
    match before.is_empty() && after.is_empty() {
        true => String::new(),
        false => format!(
            "table ip lab {{\nchain before {{ type nat hook prerouting priority dstnat; policy accept;\n{before}}}\nchain after {{ \
             type nat hook postrouting priority srcnat; policy accept;\n{after}}}\n}}\n"
        ),
    }
}

/// What is cut, and what is lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Faults {
    /// Networks that are switched off.
    pub off: BTreeSet<String>,
    /// Pairs of machines, each sorted.
    pub pairs: BTreeSet<(String, String)>,
    /// Pairs of networks, each sorted.
    pub networks: BTreeSet<(String, String)>,
    /// Packets lost on a network, in thousandths, where it is not what the fleet says.
    pub loss_per_mille: BTreeMap<String, u32>,
}

impl Faults {
    /// The oracle with these faults; `down` are machines without power.
    ///
    /// # Errors
    /// A name that the fleet does not have.
    pub fn oracle(&self, fleet: &Fleet, down: &BTreeSet<String>) -> Done<Oracle> {
        let told = |e: topology::UnknownName| Trouble(e.to_string());
        let mut oracle = Oracle::new(fleet);
        for network in &self.off {
            oracle = oracle.without(network).map_err(told)?;
        }
        for host in down {
            oracle = oracle.down(host).map_err(told)?;
        }
        for (one, other) in &self.pairs {
            oracle = oracle.cut(one, other).map_err(told)?;
        }
        for (one, other) in &self.networks {
            oracle = oracle.cut_networks(one, other).map_err(told)?;
        }
        Ok(oracle)
    }

    /// Where a machine can be dialled: its addresses, and the forwards that lead to it.
    fn dialled_at(fleet: &Fleet, ports: &[Port], host: &str) -> Vec<String> {
        let own = fleet.host(host).into_iter().flat_map(|h| h.addresses.values().map(|a| format!("ip daddr {a}")));
        let forwards = fleet.forwards.iter().filter(|f| machine(fleet, &f.to).is_ok_and(|m| m == host)).flat_map(|f| {
            let at = ports.iter().find(|p| p.host == f.router && p.network == f.outside).map(|p| p.address);
            at.into_iter().flat_map(|at| ["tcp", "udp"].map(|p| format!("ip daddr {at} {p} dport {}", f.port)))
        });
        own.chain(forwards).collect()
    }

    /// What a network drops between its ports. `devices` are the names of the network's own ends by machine.
    pub fn on_network(
        &self,
        fleet: &Fleet,
        ports: &[Port],
        devices: &BTreeMap<String, String>,
        network: &str,
    ) -> String {
        let mut rules = String::new();
        let device = |host: &str| devices.get(host);
        for (one, other) in &self.pairs {
            for (from, to) in [(one, other), (other, one)] {
                let Some(entry) = device(from) else { continue };
                // As neighbours on a way; resolving of addresses goes on, so that it is silence and not an error.
                if let Some(exit) = device(to) {
                    let _ = writeln!(rules, "iifname \"{entry}\" oifname \"{exit}\" ether type ip counter drop");
                }
                // As ends. What a router sends for others has its address too: see on_host.
                if !is_router(fleet, from) {
                    for place in Self::dialled_at(fleet, ports, to) {
                        let _ = writeln!(rules, "iifname \"{entry}\" {place} counter drop");
                    }
                }
            }
        }
        let loss = self.loss_per_mille.get(network).copied().unwrap_or(fleet.networks[network].loss_per_mille);
        if loss > 0 {
            let _ = writeln!(rules, "ether type ip numgen random mod 1000 < {loss} counter drop");
        }
        // Named first, so that there is something to delete: the whole is one transaction.
        format!(
            "table bridge cuts\ndelete table bridge cuts\ntable bridge cuts {{\nchain between {{ type filter hook forward \
             priority 0; policy accept;\n{rules}}}\n}}\n"
        )
    }

    /// What a machine drops: a router between cut networks, and what it dials itself.
    pub fn on_host(&self, fleet: &Fleet, ports: &[Port], host: &str) -> String {
        let (mut passed, mut sent) = (String::new(), String::new());
        let interface =
            |network: &str| ports.iter().find(|p| p.host == host && p.network == network).map(|p| &p.interface);
        for (one, other) in &self.networks {
            if let (Some(one), Some(other)) = (interface(one), interface(other)) {
                let _ = writeln!(passed, "iifname \"{one}\" oifname \"{other}\" counter drop");
                let _ = writeln!(passed, "iifname \"{other}\" oifname \"{one}\" counter drop");
            }
        }
        if is_router(fleet, host) {
            for (one, other) in &self.pairs {
                let far = if one == host { other } else { one };
                if one == host || other == host {
                    for place in Self::dialled_at(fleet, ports, far) {
                        let _ = writeln!(sent, "{place} counter drop");
                    }
                }
            }
        }
        format!(
            "table ip cuts\ndelete table ip cuts\ntable ip cuts {{\nchain passed {{ type filter hook forward priority 0; policy \
             accept;\n{passed}}}\nchain sent {{ type filter hook output priority 0; policy accept;\n{sent}}}\n}}\n"
        )
    }
}

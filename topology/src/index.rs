//! A fleet by number, with its ways worked out: built once, asked by [`crate::Oracle`] for each step of a packet
//! at the cost of a few look-ups in ordered maps.
//!
//! A way of two or more networks is the one over the fewest; of equals, the one whose first step stands first in the
//! file (masquerades before routes). Each router on it decides anew by the same rule, so every step comes nearer.

use crate::fleet::{Fleet, Ports};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Shared, because each answer carries names.
pub(crate) type Name = Arc<str>;
pub(crate) type HostId = usize;
pub(crate) type NetworkId = usize;

/// A host that has addresses, or one that shares those of another.
pub(crate) struct Node {
    pub name: Name,
    /// Itself, or the host that it shares with.
    pub machine: HostId,
    pub port: Option<u16>,
    /// Where it is attached, and what source address its packets have there.
    pub attached: BTreeMap<NetworkId, Ipv4Addr>,
    /// What it answers to.
    pub own: BTreeSet<Ipv4Addr>,
}

/// One step from a network to another.
pub(crate) struct Way {
    pub from: NetworkId,
    pub to: NetworkId,
    pub router: HostId,
    pub masquerade: Option<(Ipv4Addr, Ports)>,
    pub round_trip_ms: u64,
}

pub(crate) struct Index {
    pub nodes: Vec<Node>,
    pub by_name: BTreeMap<Name, HostId>,
    by_address: BTreeMap<Ipv4Addr, HostId>,
    pub networks: Vec<(Name, u64)>,
    pub network_by_name: BTreeMap<Name, NetworkId>,
    by_start: BTreeMap<Ipv4Addr, (Ipv4Addr, NetworkId)>,
    pub ways: Vec<Way>,
    by_step: BTreeMap<(HostId, NetworkId, NetworkId), usize>,
    listeners: BTreeMap<(HostId, u16), HostId>,
    pub forwards: BTreeMap<(HostId, NetworkId, u16), (Ipv4Addr, u16, HostId)>,
}

impl Index {
    pub(crate) fn new(fleet: &Fleet) -> Index {
        let mut index = Index {
            nodes: vec![],
            by_name: BTreeMap::new(),
            by_address: BTreeMap::new(),
            networks: vec![],
            network_by_name: BTreeMap::new(),
            by_start: BTreeMap::new(),
            ways: vec![],
            by_step: BTreeMap::new(),
            listeners: BTreeMap::new(),
            forwards: BTreeMap::new(),
        };
        for (id, (name, network)) in fleet.networks.iter().enumerate() {
            let name = Name::from(name.as_str());
            index.networks.push((name.clone(), network.round_trip_ms));
            index.network_by_name.insert(name, id);
            index.by_start.insert(network.cidr.network(), (network.cidr.broadcast(), id));
        }
        for (id, host) in fleet.hosts.iter().enumerate() {
            index.by_name.insert(Name::from(host.name.as_str()), id);
        }
        for (id, host) in fleet.hosts.iter().enumerate() {
            let machine = host.shares.as_deref().and_then(|of| index.by_name.get(of)).copied().unwrap_or(id);
            let attached: BTreeMap<NetworkId, Ipv4Addr> =
                host.addresses.iter().map(|(network, ip)| (index.network_by_name[network.as_str()], *ip)).collect();
            index.by_address.extend(attached.values().map(|ip| (*ip, id)));
            index.listeners.extend(host.port.map(|port| ((machine, port), id)));
            let own = attached.values().copied().collect();
            index.nodes.push(Node { name: host.name.as_str().into(), machine, port: host.port, attached, own });
        }
        for masq in &fleet.masquerades {
            let router = index.by_name[masq.router.as_str()];
            let from = index.network_by_name[masq.inside.as_str()];
            let to = index.network_by_name[masq.outside.as_str()];
            index.nodes[router].attached.entry(from).or_insert(masq.address);
            let masquerade = Some((masq.address, masq.nat.ports));
            index.way(Way { from, to, router, masquerade, round_trip_ms: masq.round_trip_ms });
        }
        for route in &fleet.routes {
            let router = index.by_name[route.router.as_str()];
            let from = index.network_by_name[route.from.as_str()];
            let to = index.network_by_name[route.to.as_str()];
            index.way(Way { from, to, router, masquerade: None, round_trip_ms: route.round_trip_ms });
        }
        for forward in &fleet.forwards {
            let router = index.by_name[forward.router.as_str()];
            let outside = index.network_by_name[forward.outside.as_str()];
            let to = (forward.to_address, forward.to_port, index.by_name[forward.to.as_str()]);
            index.forwards.insert((router, outside, forward.port), to);
        }
        index
    }

    fn way(&mut self, way: Way) {
        self.by_step.insert((way.router, way.from, way.to), self.ways.len());
        self.ways.push(way);
    }

    /// The network that an address belongs to.
    pub(crate) fn network_of(&self, ip: Ipv4Addr) -> Option<NetworkId> {
        let (_, (last, id)) = self.by_start.range(..=ip).next_back()?;
        (ip <= *last).then_some(*id)
    }

    /// The host that has an address.
    pub(crate) fn owner(&self, ip: Ipv4Addr) -> Option<HostId> {
        self.by_address.get(&ip).copied()
    }

    /// Who listens on a port of a machine.
    pub(crate) fn listener(&self, machine: HostId, port: u16) -> Option<HostId> {
        self.listeners.get(&(machine, port)).copied()
    }

    /// The step that a router makes from one network to another, if that is a way of the fleet.
    pub(crate) fn step(&self, router: HostId, from: NetworkId, to: NetworkId) -> Option<&Way> {
        self.by_step.get(&(router, from, to)).map(|way| &self.ways[*way])
    }
}

/// From each network to each other that it has a way to: how many steps, and which is the first.
pub(crate) struct Ways(Vec<BTreeMap<NetworkId, (usize, usize)>>);

impl Ways {
    /// With these networks switched off: whatever leads through them is not there.
    pub(crate) fn new(index: &Index, off: &BTreeSet<NetworkId>) -> Ways {
        let mut into: Vec<Vec<usize>> = vec![vec![]; index.networks.len()];
        for (id, way) in index.ways.iter().enumerate() {
            if !off.contains(&way.from) && !off.contains(&way.to) {
                into[way.to].push(id);
            }
        }
        let mut table = vec![BTreeMap::new(); index.networks.len()];
        for target in 0..index.networks.len() {
            // Breadth first, backwards from the target: ever farther networks.
            let mut open = VecDeque::from([(target, 0)]);
            while let Some((network, steps)) = open.pop_front() {
                for way in &into[network] {
                    let from = index.ways[*way].from;
                    if from == target {
                        continue;
                    }
                    match table[from].get_mut(&target) {
                        None => {
                            table[from].insert(target, (steps + 1, *way));
                            open.push_back((from, steps + 1));
                        }
                        Some(known) if (steps + 1, *way) < *known => *known = (steps + 1, *way),
                        Some(_) => {}
                    }
                }
            }
        }
        Ways(table)
    }

    /// The first step towards `target` from any of these networks.
    pub(crate) fn first(&self, from: impl Iterator<Item = NetworkId>, target: NetworkId) -> Option<usize> {
        from.filter_map(|network| self.0[network].get(&target)).min().map(|(_, way)| *way)
    }
}

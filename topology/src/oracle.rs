//! The oracle: what becomes of a dial. Pure, and the reference for the simulator and the kernel lab.
//!
//! It says what a Linux host and Linux routers do: addresses are answered at whatever interface they are dialled,
//! routes are static (nothing routes around a fault), a masquerade renames what passes from its inside to its
//! outside, and a dial stands only when the answer finds the way back through the same masquerades. It never
//! says who somebody *is*: [`Dial::seen_as`] is an address that several hosts may have in common (incident 1).

use crate::fleet::{Fleet, Ports};
use crate::index::{HostId, Index, Name, NetworkId, Way, Ways};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// What becomes of one dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dial {
    /// Networks and routers that the packets pass, in order; as far as they came, if it failed. None within a machine.
    pub hops: Vec<Hop>,
    /// The source that the far side sees, if anybody saw it.
    pub seen_as: Option<Source>,
    /// The host that answers; `None` when none does.
    pub answered_by: Option<Name>,
    /// Why nobody answers, or why the answer does not come back; `None` when the dial succeeds.
    pub failure: Option<Failure>,
    /// Round trip over all hops, in milliseconds.
    pub round_trip_ms: u64,
}

impl Dial {
    /// Whether a connection stands in the end.
    pub fn succeeds(&self) -> bool {
        self.failure.is_none()
    }
}

/// What packets pass.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hop {
    /// A network, by name.
    Network(Name),
    /// A router, by its host's name.
    Router(Name),
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hop::Network(name) => f.write_str(name),
            Hop::Router(name) => write!(f, "({name})"),
        }
    }
}

/// Where a dial seems to come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// The address.
    pub address: Ipv4Addr,
    /// What is known of the port.
    pub port: SourcePort,
}

/// What is known of a source port; the worst of all masquerades passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourcePort {
    /// The dialler's own.
    Own,
    /// The dialler's own, unless another flow through the same router has it.
    OwnIfFree,
    /// Any.
    Random,
}

/// Why a dial fails.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Failure {
    /// Someone on the way has no route there (at once: network unreachable).
    #[error("no route at {at}")]
    NoRoute {
        /// The host that has none.
        at: Name,
    },
    /// Nobody on that network has the address (host unreachable, after some seconds).
    #[error("nobody has it on {network}")]
    Nobody {
        /// The network.
        network: Name,
    },
    /// The machine with that address does not listen on that port (at once).
    #[error("refused by {by}")]
    Refused {
        /// The host that has the address.
        by: Name,
    },
    /// A host is down or a link is cut on the way there or back (no answer at all).
    #[error("lost after {after}")]
    Lost {
        /// The last host that had the packet.
        after: Name,
    },
    /// It arrives, and the answer does not find back (no answer at all).
    #[error("no way back at {at}")]
    NoWayBack {
        /// The host where the answer strays.
        at: Name,
    },
    /// No host of the fleet is called so.
    #[error("no host is called {name}")]
    NoSuchHost {
        /// The name.
        name: Name,
    },
}

/// A fault was asked for at a place that the fleet does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no {kind} of this fleet is called `{name}`")]
pub struct UnknownName {
    /// `host` or `network`.
    pub kind: &'static str,
    /// The name.
    pub name: String,
}

/// A line of a host's route table, for building it in a kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextHop {
    /// The network that it leads to.
    pub to: Name,
    /// The network over which it leaves.
    pub over: Name,
    /// The router that takes it.
    pub router: Name,
    /// Whether that router masquerades what the host sends there.
    pub masqueraded: bool,
}

/// Answers for one fleet, with faults. Cheap to clone; [`Oracle::new`] is what costs.
#[derive(Clone)]
pub struct Oracle {
    pub(crate) index: Arc<Index>,
    ways: Arc<Ways>,
    off: BTreeSet<NetworkId>,
    down: BTreeSet<HostId>,
    cuts: BTreeSet<(HostId, HostId)>,
    network_cuts: BTreeSet<(NetworkId, NetworkId)>,
}

fn pair(one: usize, other: usize) -> (usize, usize) {
    (one.min(other), one.max(other))
}

impl Oracle {
    /// Works out all ways of a fleet. Nothing is down and nothing cut.
    pub fn new(fleet: &Fleet) -> Oracle {
        let index = Arc::new(Index::new(fleet));
        let off = BTreeSet::new();
        let ways = Arc::new(Ways::new(&index, &off));
        Oracle { index, ways, off, down: BTreeSet::new(), cuts: BTreeSet::new(), network_cuts: BTreeSet::new() }
    }

    /// With a network switched off: its addresses and all ways through it are gone.
    ///
    /// # Errors
    /// [`UnknownName`].
    pub fn without(mut self, network: &str) -> Result<Oracle, UnknownName> {
        self.off.insert(self.network_id(network)?);
        self.ways = Arc::new(Ways::new(&self.index, &self.off));
        Ok(self)
    }

    /// With a host down, and whatever shares its addresses. Routes that lead through it stay, and lose packets.
    ///
    /// # Errors
    /// [`UnknownName`].
    pub fn down(mut self, host: &str) -> Result<Oracle, UnknownName> {
        self.down.insert(self.host_id(host)?);
        Ok(self)
    }

    /// With nothing passing between two hosts: neither when they are the ends of a dial nor when they are neighbours
    /// on its way.
    ///
    /// # Errors
    /// [`UnknownName`].
    pub fn cut(mut self, one: &str, other: &str) -> Result<Oracle, UnknownName> {
        self.cuts.insert(pair(self.host_id(one)?, self.host_id(other)?));
        Ok(self)
    }

    /// With no router passing anything between two networks, in either direction.
    ///
    /// # Errors
    /// [`UnknownName`].
    pub fn cut_networks(mut self, one: &str, other: &str) -> Result<Oracle, UnknownName> {
        self.network_cuts.insert(pair(self.network_id(one)?, self.network_id(other)?));
        Ok(self)
    }

    fn host_id(&self, name: &str) -> Result<HostId, UnknownName> {
        self.index.by_name.get(name).copied().ok_or_else(|| UnknownName { kind: "host", name: name.into() })
    }

    fn network_id(&self, name: &str) -> Result<NetworkId, UnknownName> {
        let id = self.index.network_by_name.get(name).copied();
        id.ok_or_else(|| UnknownName { kind: "network", name: name.into() })
    }

    /// What becomes of a dial. Addresses that are not IPv4 have no route.
    pub fn dial(&self, from: &str, to: SocketAddr) -> Dial {
        let mut dial = Dial { hops: vec![], seen_as: None, answered_by: None, failure: None, round_trip_ms: 0 };
        let Some(from_id) = self.index.by_name.get(from).copied() else {
            dial.failure = Some(Failure::NoSuchHost { name: from.into() });
            return dial;
        };
        let walk = match to.ip() {
            IpAddr::V4(ip) => self.walk(from_id, (ip, to.port()), &mut dial),
            IpAddr::V6(_) => Err(Failure::NoRoute { at: from.into() }),
        };
        dial.failure = walk.err();
        dial
    }

    /// Each address at which a host may be dialled (its own, and the forwards that lead to it), and what becomes of
    /// it from there. Empty for a host without a port.
    pub fn reach(&self, from: &str, to_host: &str) -> Vec<(SocketAddr, Dial)> {
        let Some(to) = self.index.by_name.get(to_host).copied() else { return vec![] };
        self.addresses(to).into_iter().map(|at| (at, self.dial(from, at))).collect()
    }

    /// A host's route table beyond the networks it is on.
    ///
    /// # Errors
    /// [`UnknownName`].
    pub fn routes(&self, host: &str) -> Result<Vec<NextHop>, UnknownName> {
        let machine = self.index.nodes[self.host_id(host)?].machine;
        let line = |to: NetworkId| {
            let Some(Next::Router(way)) = self.next(machine, to) else { return None };
            let name = |network: NetworkId| self.index.networks[network].0.clone();
            let router = self.index.nodes[way.router].name.clone();
            Some(NextHop { to: name(to), over: name(way.from), router, masqueraded: way.masquerade.is_some() })
        };
        Ok((0..self.index.networks.len()).filter_map(line).collect())
    }

    pub(crate) fn addresses(&self, host: HostId) -> Vec<SocketAddr> {
        let node = &self.index.nodes[host];
        let own = &self.index.nodes[node.machine].own;
        let mut all: Vec<SocketAddr> =
            node.port.iter().flat_map(|port| own.iter().map(|ip| SocketAddr::from((*ip, *port)))).collect();
        for ((router, outside, port), (_, _, to)) in &self.index.forwards {
            if *to == host {
                all.push((self.index.nodes[*router].attached[outside], *port).into());
            }
        }
        all
    }

    fn name(&self, host: HostId) -> Name {
        self.index.nodes[host].name.clone()
    }

    fn is_down(&self, host: HostId) -> bool {
        self.down.contains(&host) || self.down.contains(&self.index.nodes[host].machine)
    }

    /// How a machine sends towards a network.
    fn next(&self, machine: HostId, target: NetworkId) -> Option<Next<'_>> {
        if self.off.contains(&target) {
            return None;
        }
        let attached = &self.index.nodes[machine].attached;
        if attached.contains_key(&target) {
            return Some(Next::There);
        }
        let on = attached.keys().copied().filter(|network| !self.off.contains(network));
        Some(Next::Router(&self.index.ways[self.ways.first(on, target)?]))
    }

    /// One step of a packet that a machine has and does not keep.
    fn step(&self, at: HostId, came_over: Option<NetworkId>, to: Ipv4Addr) -> Result<Step<'_>, Failure> {
        let target = self.index.network_of(to);
        let next = target.and_then(|target| Some((target, self.next(at, target)?)));
        let (over, receiver) = match next {
            None => return Err(Failure::NoRoute { at: self.name(at) }),
            Some((target, Next::There)) => match self.index.owner(to) {
                Some(owner) => (target, owner),
                None => return Err(Failure::Nobody { network: self.index.networks[target].0.clone() }),
            },
            Some((_, Next::Router(way))) => (way.from, way.router),
        };
        let cut_here = came_over.is_some_and(|from| self.network_cuts.contains(&pair(from, over)));
        if cut_here || self.is_down(receiver) || self.cuts.contains(&pair(at, receiver)) {
            return Err(Failure::Lost { after: self.name(at) });
        }
        let way = came_over.and_then(|from| self.index.step(at, from, over));
        Ok(Step { over, receiver, way })
    }

    /// The way there: fills in `dial` as it goes.
    fn walk(&self, from: HostId, mut to: (Ipv4Addr, u16), dial: &mut Dial) -> Result<(), Failure> {
        let start = self.index.nodes[from].machine;
        if self.is_down(from) {
            return Err(Failure::Lost { after: self.name(from) });
        }
        if self.index.network_of(to.0).is_none_or(|network| self.off.contains(&network)) {
            return Err(Failure::NoRoute { at: self.name(start) });
        }
        let mut flow = Flow { start, renamed: vec![], passed: BTreeSet::new() };
        let (mut at, mut came_over, mut source) = (start, None, None);
        loop {
            if self.index.nodes[at].own.contains(&to.0) {
                let forward = came_over.and_then(|network| {
                    let its_own = self.index.nodes[at].attached.get(&network) == Some(&to.0);
                    self.index.forwards.get(&(at, network, to.1)).filter(|_| its_own)
                });
                match forward {
                    None => break,
                    Some((address, port, _)) => {
                        flow.renamed.push(Renamed::Destination(at));
                        to = (*address, *port);
                    }
                }
            }
            if at != start {
                dial.hops.push(Hop::Router(self.name(at)));
                flow.passed.insert(at);
            }
            let step = self.step(at, came_over, to.0)?;
            let (name, round_trip_ms) = &self.index.networks[step.over];
            dial.hops.push(Hop::Network(name.clone()));
            dial.round_trip_ms += round_trip_ms + step.way.map_or(0, |way| way.round_trip_ms);
            let own = Source { address: self.index.nodes[at].attached[&step.over], port: SourcePort::Own };
            let mut now = source.unwrap_or(own);
            if let Some((address, ports)) = step.way.and_then(|way| way.masquerade) {
                flow.renamed.push(Renamed::Source(at, now.address));
                let port = match ports {
                    Ports::Preserved => SourcePort::OwnIfFree,
                    Ports::Random => SourcePort::Random,
                };
                now = Source { address, port: now.port.max(port) };
            }
            source = Some(now);
            (at, came_over) = (step.receiver, Some(step.over));
        }
        let seen_as = source.unwrap_or(Source { address: to.0, port: SourcePort::Own });
        dial.seen_as = Some(seen_as);
        let refused = Failure::Refused { by: self.name(at) };
        let listener = self.index.listener(at, to.1).filter(|host| !self.is_down(*host));
        let ends = pair(from, listener.unwrap_or(at));
        if self.cuts.contains(&ends) && ends.0 != ends.1 {
            dial.seen_as = None;
            return Err(Failure::Lost { after: self.name(from) });
        }
        self.way_back(at, seen_as.address, flow)?;
        let listener = listener.ok_or(refused)?;
        dial.answered_by = Some(self.name(listener));
        Ok(())
    }

    /// Whether what the far side answers comes back to where the dial began, with each renaming undone.
    fn way_back(&self, mut at: HostId, mut to: Ipv4Addr, mut flow: Flow) -> Result<(), Failure> {
        let mut came_over = None;
        if at == flow.start && flow.renamed.is_empty() {
            return Ok(());
        }
        loop {
            if flow.renamed.last() == Some(&Renamed::Destination(at)) {
                flow.renamed.pop();
            }
            let stray = Failure::NoWayBack { at: self.name(at) };
            if let Some(Renamed::Source(router, inner)) = flow.renamed.last()
                && *router == at
                && came_over.is_some()
            {
                to = *inner;
                flow.renamed.pop();
            } else if self.index.nodes[at].own.contains(&to) {
                let home = at == flow.start && flow.renamed.is_empty();
                return if home { Ok(()) } else { Err(stray) };
            }
            let step = self.step(at, came_over, to).map_err(|failure| match failure {
                lost @ Failure::Lost { .. } => lost,
                _ => stray.clone(),
            })?;
            // A router that has not seen the dial would take the answer for a new flow and rename it.
            if !flow.passed.contains(&at) && step.way.is_some_and(|way| way.masquerade.is_some()) {
                return Err(stray);
            }
            (at, came_over) = (step.receiver, Some(step.over));
        }
    }
}

enum Next<'a> {
    There,
    Router(&'a Way),
}

struct Step<'a> {
    over: NetworkId,
    receiver: HostId,
    /// The way of the fleet that this step is, if it is one.
    way: Option<&'a Way>,
}

/// What routers remember of a dial.
struct Flow {
    start: HostId,
    renamed: Vec<Renamed>,
    passed: BTreeSet<HostId>,
}

#[derive(PartialEq, Eq)]
enum Renamed {
    /// By a masquerade, which remembers the address from before.
    Source(HostId, Ipv4Addr),
    /// By a forward.
    Destination(HostId),
}

impl Oracle {
    /// Which hosts are seen with each address by whoever answers `observer`'s port: more than one host under one
    /// address is what must never be taken for an identity.
    pub fn seen_at(&self, observer: &str) -> BTreeMap<Ipv4Addr, BTreeSet<Name>> {
        let mut seen: BTreeMap<Ipv4Addr, BTreeSet<Name>> = BTreeMap::new();
        for node in &self.index.nodes {
            for (_, dial) in self.reach(&node.name, observer) {
                if let (true, Some(source)) = (dial.succeeds(), dial.seen_as) {
                    seen.entry(source.address).or_default().insert(node.name.clone());
                }
            }
        }
        seen
    }
}

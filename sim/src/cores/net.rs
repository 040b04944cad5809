//! The model network: who reaches whom by the fleet's oracle, connections, loss, cuts, masquerades.
//!
//! A connection carries each direction in order. Under loss a message waits for its retransmissions (200 ms,
//! doubled), and what follows waits behind it. A cut direction holds what is sent until it is mended; a
//! masquerade that forgot its connections leaves them dead, and nobody is told. The
//! identity of both ends is proved when it begins; what the answerer learns of the other's address is what the
//! oracle shows. Nothing here knows what a message means.

use super::kit::Dice;
use super::message::{Message, RTO, ms};
use mesh::identity::PeerKey;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use topology::{Fleet, Hop, Oracle};

/// One way over one hop, beside what the fleet says, in microseconds.
const WIRE: u64 = 250;
/// The longest pause of a kernel's retransmissions that is modelled.
const BACKOFF_MAX: u64 = 8_000_000;

/// How one host gets to another's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// Who sits there.
    pub to: usize,
    /// The networks that it passes.
    pub networks: Vec<String>,
    /// The routers that pass it on.
    pub routers: Vec<usize>,
    /// One of them masquerades.
    pub masqueraded: bool,
    /// What the far side sees.
    pub seen_as: Ipv4Addr,
    /// One way, in microseconds.
    pub latency: u64,
}

impl Way {
    /// From a host to itself.
    pub fn within(host: usize) -> Way {
        let (networks, routers) = (vec![], vec![]);
        Way { to: host, networks, routers, masqueraded: false, seen_as: Ipv4Addr::LOCALHOST, latency: 50 }
    }
}

/// One end of a connection.
#[derive(Clone, Debug)]
pub struct End {
    /// Host and generation of its process.
    pub host: (usize, u64),
    /// Its key.
    pub key: PeerKey,
    /// It has not been told that the connection is gone.
    pub open: bool,
    /// When the last message to it arrives.
    last: u64,
    /// Messages to it that wait for a mended link, and since when.
    held: Vec<(u64, Message)>,
}

/// A connection; `ends[0]` dialled.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Dialler and answerer.
    pub ends: [End; 2],
    /// Its way.
    pub way: Way,
    /// The address that was dialled.
    pub address: String,
    /// Its masquerade has forgotten it.
    pub forgotten: bool,
}

/// The network and all that is wrong with it.
pub struct Net {
    /// The fleet, as it is now: addresses can be moved (then [`Net::moved`]).
    pub fleet: Fleet,
    homes: Vec<BTreeMap<String, Ipv4Addr>>,
    oracle: Oracle,
    ways: RefCell<BTreeMap<(usize, String), Option<Way>>>,
    names: BTreeMap<String, usize>,
    /// Power by host.
    pub powered: Vec<bool>,
    /// Connections by number.
    pub connections: BTreeMap<u64, Connection>,
    count: u64,
    /// Directions that carry nothing.
    pub cuts: BTreeSet<(usize, usize)>,
    /// Networks that are down.
    pub down: BTreeSet<String>,
    /// Packets lost of a hundred.
    pub loss: u32,
}

impl Net {
    /// Of a fleet; hosts are numbered as it lists them.
    pub fn new(fleet: Fleet) -> Net {
        let names = fleet.hosts.iter().enumerate().map(|(n, h)| (h.name.clone(), n)).collect();
        let powered = vec![true; fleet.hosts.len()];
        let (connections, cuts, down) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        let homes = fleet.hosts.iter().map(|host| host.addresses.clone()).collect();
        let (oracle, ways) = (Oracle::new(&fleet), RefCell::default());
        Net { fleet, homes, oracle, ways, names, powered, connections, count: 0, cuts, down, loss: 0 }
    }

    /// Adds a machine to the fleet.
    pub fn add(&mut self, host: topology::Host) {
        self.names.insert(host.name.clone(), self.fleet.hosts.len());
        self.homes.push(host.addresses.clone());
        self.fleet.hosts.push(host);
        self.powered.push(true);
        self.moved();
    }

    /// Addresses have changed: the oracle is asked anew.
    pub fn moved(&mut self) {
        self.oracle = Oracle::new(&self.fleet);
        self.ways.borrow_mut().clear();
    }

    /// The number of a host.
    pub fn number(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// Where a host listens, as it tells others.
    pub fn addresses_of(&self, host: usize) -> Vec<String> {
        let at = &self.fleet.hosts[host];
        let machine = at.shares.as_ref().and_then(|name| self.fleet.host(name)).unwrap_or(at);
        let port = at.port.unwrap_or_default();
        machine.addresses.values().filter(|_| port > 0).map(|ip| format!("/ip4/{ip}/tcp/{port}")).collect()
    }

    /// Addresses of routers that forward to a host; its owner has written them into everybody's configuration.
    pub fn forwards_to(&self, host: usize) -> Vec<String> {
        let name = &self.fleet.hosts[host].name;
        let forwards = self.fleet.forwards.iter().filter(|f| f.to == *name);
        let address = |f: &topology::Forward| {
            let ip = self.fleet.host(&f.router)?.addresses.get(&f.outside)?;
            Some(format!("/ip4/{ip}/tcp/{}", f.port))
        };
        forwards.filter_map(address).collect()
    }

    /// The way to an address, when there is one and somebody listens there.
    pub fn way(&self, from: usize, address: &str) -> Option<Way> {
        let key = (from, address.to_owned());
        if let Some(known) = self.ways.borrow().get(&key) {
            return known.clone();
        }
        let way = self.ask(from, address);
        self.ways.borrow_mut().insert(key, way.clone());
        way
    }

    fn ask(&self, from: usize, address: &str) -> Option<Way> {
        let mut parts = address.strip_prefix("/ip4/")?.split('/');
        let ip: Ipv4Addr = parts.next()?.parse().ok()?;
        let port: u16 = parts.nth(1)?.parse().ok()?;
        let to = SocketAddr::V4(SocketAddrV4::new(ip, port));
        let dial = self.oracle.dial(&self.fleet.hosts[from].name, to);
        let answered = dial.answered_by.as_ref().filter(|_| dial.succeeds())?;
        let to = self.number(answered).filter(|to| *to != from)?;
        let seen_as = dial.seen_as?.address;
        let (mut networks, mut routers) = (vec![], vec![]);
        for hop in &dial.hops {
            match hop {
                Hop::Network(name) => networks.push(name.to_string()),
                Hop::Router(name) => routers.extend(self.number(name)),
            }
        }
        let masqueraded = !self.fleet.hosts[from].addresses.values().any(|own| *own == seen_as);
        let latency = dial.round_trip_ms * 500 + WIRE * (dial.hops.len() as u64).max(1);
        Some(Way { to, networks, routers, masqueraded, seen_as, latency })
    }

    /// Whether two hosts could talk now: a way from either to the other carries packets both ways.
    pub fn meet(&self, one: usize, two: usize) -> bool {
        let works = |from: usize, to: usize| {
            let all = self.addresses_of(to).into_iter().chain(self.forwards_to(to));
            let mut ways = all.filter_map(|address| self.way(from, &address)).filter(|way| way.to == to);
            ways.any(|way| self.carries(from, to, &way) && self.carries(to, from, &way))
        };
        works(one, two) || works(two, one)
    }

    /// Whether a way carries packets in this direction now.
    pub fn carries(&self, from: usize, to: usize, way: &Way) -> bool {
        !self.cuts.contains(&(from, to))
            && !way.networks.iter().any(|network| self.down.contains(network))
            && self.powered[from]
            && way.routers.iter().all(|router| self.powered[*router])
    }

    /// Pairs of hosts that do not hear each other, though they could meet: one of them at least says what it has to
    /// say on a connection that carries nothing. Everybody speaks on the oldest.
    pub fn silent(&self) -> BTreeSet<(usize, usize)> {
        let (mut used, mut silent) = (BTreeSet::new(), BTreeSet::new());
        for connection in self.connections.values() {
            let hosts = [connection.ends[0].host.0, connection.ends[1].host.0];
            let both = || {
                self.carries(hosts[0], hosts[1], &connection.way) && self.carries(hosts[1], hosts[0], &connection.way)
            };
            let dead = connection.forgotten || !both();
            for end in (0..2).filter(|end| connection.ends[*end].open) {
                let (from, to) = (hosts[end], hosts[1 - end]);
                if used.insert((from, to)) && dead {
                    silent.insert((from.min(to), from.max(to)));
                }
            }
        }
        silent
    }

    /// How long a message takes, with its retransmissions.
    pub fn delay(&self, latency: u64, dice: &mut Dice) -> u64 {
        let mut delay = latency + dice.below(latency / 10 + 1);
        let mut pause = RTO;
        while self.loss > 0 && dice.percent(self.loss) && delay < 60_000_000 {
            delay += pause;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
        delay
    }

    /// Makes a connection of a handshake that went well.
    pub fn connect(&mut self, ends: [((usize, u64), PeerKey); 2], way: Way, address: String) -> u64 {
        self.count += 1;
        let end = |(host, key)| End { host, key, open: true, last: 0, held: vec![] };
        let [dialler, answerer] = ends;
        let ends = [end(dialler), end(answerer)];
        self.connections.insert(self.count, Connection { ends, way, address, forgotten: false });
        self.count
    }

    /// Sends on a connection: when it arrives, or `None` when it waits or is lost.
    pub fn send(
        &mut self,
        id: u64,
        from: usize,
        message: Message,
        now: u64,
        dice: &mut Dice,
    ) -> Option<(u64, Message)> {
        let connection = self.connections.get(&id)?;
        let (one, two) = (connection.ends[from].host.0, connection.ends[1 - from].host.0);
        if connection.forgotten {
            return None;
        }
        let carries = self.carries(one, two, &connection.way);
        let delay = self.delay(connection.way.latency, dice);
        let end = &mut self.connections.get_mut(&id)?.ends[1 - from];
        if !carries || !end.held.is_empty() {
            end.held.push((now, message));
            return None;
        }
        end.last = (now + delay).max(end.last + 1);
        Some((end.last, message))
    }

    /// Messages that wait and can go now: connection, end, arrival, message.
    pub fn release(&mut self, now: u64, dice: &mut Dice) -> Vec<(u64, bool, u64, Message)> {
        let mut out = vec![];
        let waiting: Vec<(u64, usize)> = self
            .connections
            .iter()
            .flat_map(|(id, c)| (0..2).filter(|end| !c.ends[*end].held.is_empty()).map(|end| (*id, end)))
            .collect();
        for (id, end) in waiting {
            let Some(connection) = self.connections.get(&id) else { continue };
            let (from, to) = (connection.ends[1 - end].host.0, connection.ends[end].host.0);
            if connection.forgotten || !self.carries(from, to, &connection.way) {
                continue;
            }
            let latency = connection.way.latency;
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            let held = std::mem::take(&mut connection.ends[end].held);
            // The kernel tries again after twice the pause before: up to as long again as it was cut.
            let since = held.first().map_or(0, |(at, _)| now.saturating_sub(*at));
            let mut at = now + latency + dice.below(since.clamp(ms(200), BACKOFF_MAX));
            at = at.max(connection.ends[end].last + 1);
            for (_, message) in held {
                out.push((id, end == 1, at, message));
                at += 1;
            }
            connection.ends[end].last = at;
        }
        out
    }

    /// A masquerading router forgets its connections.
    pub fn forget(&mut self, router: usize) {
        for connection in self.connections.values_mut() {
            connection.forgotten |= connection.way.masqueraded && connection.way.routers.contains(&router);
        }
    }

    /// Whether a host is where the fleet has it.
    pub fn is_home(&self, host: usize) -> bool {
        self.homes.get(host).is_none_or(|home| *home == self.fleet.hosts[host].addresses)
    }

    /// Whether every host is where the fleet has it.
    pub fn all_home(&self) -> bool {
        (0..self.fleet.hosts.len()).all(|host| self.is_home(host))
    }

    /// Gives everybody the address back that the fleet has for it. Gives those that were elsewhere.
    pub fn go_home(&mut self) -> Vec<usize> {
        let away: Vec<usize> = (0..self.fleet.hosts.len()).filter(|host| !self.is_home(*host)).collect();
        for host in &away {
            self.fleet.hosts[*host].addresses = self.homes[*host].clone();
        }
        self.moved();
        away
    }

    /// All connections with a host, whose addresses have changed under them, are dead.
    pub fn unroot(&mut self, host: usize) {
        for connection in self.connections.values_mut() {
            connection.forgotten |= connection.ends.iter().any(|end| end.host.0 == host);
        }
    }
}

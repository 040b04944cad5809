//! Who has which address at this moment, and which ways are open: the simulated internet above turmoil's wires.
//!
//! Each host is one turmoil host with a wire of its own (an address of 172.16.0.0/16 that no node ever
//! sees), which carries its bytes with their latency. What nodes do see is decided here, and can change
//! while they run: a host's addresses on the networks of its fleet, masquerades (the far side sees the
//! router's address, and dialling that reaches the router), cuts in one direction, networks that are
//! down, packets that are lost. A connection belongs to two hosts and two addresses: it stands while both still have theirs, waits while
//! its way is cut, and is reset when an address goes elsewhere or a router forgets it.
//!
//! [`crate::transport`] asks before each dial, and holds a [`Leg`] for each end of each connection.

mod leg;
mod ways;

use crate::trace::{Event, Trace};
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;
use topology::{Failure, Fleet, Hop, Host, Network as Net, NetworkKind, Oracle, Role};

/// Where every node listens, unless its fleet says otherwise.
pub const PORT: u16 = 7400;
/// How long a host looks for an address that nobody has before it gives up, as ARP does.
const NOBODY_THERE: Duration = Duration::from_secs(3);
/// How long a dial goes on without an answer. libp2p's own bound is shorter.
const SILENCE: Duration = Duration::from_secs(60);

/// What a dialled host's kernel is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It has no power: silence.
    Off,
    /// It runs, with nobody listening: a refusal.
    Kernel,
    /// Its program runs.
    Program,
}

struct Station {
    wire: Ipv4Addr,
    power: Power,
}

struct Table {
    /// Who has which address at this moment.
    fleet: Fleet,
    /// What that comes to, but for networks that are down.
    oracle: Oracle,
    down: BTreeSet<String>,
    stations: BTreeMap<Arc<str>, Station>,
    cuts: BTreeSet<(Arc<str>, Arc<str>)>,
    legs: Vec<Weak<Leg>>,
    dialling: Vec<Waker>,
    /// Listeners that want to know when addresses change.
    listening: Vec<Waker>,
    /// Connections on their way, by the number that their first bytes say.
    introduced: BTreeMap<u64, Introduction>,
    next_introduction: u64,
    resets: u64,
}

/// What the accepting end has to know of a connection.
struct Introduction {
    from: Arc<str>,
    way: Way,
    to: SocketAddr,
}

/// The network; clones are the same one.
#[derive(Clone)]
pub struct Network {
    table: Arc<Mutex<Table>>,
    loss_percent: Arc<AtomicU32>,
    trace: Trace,
}

/// One end of a connection.
pub struct Leg {
    /// Whose end it is.
    pub host: Arc<str>,
    /// Who is at the other end, truly.
    pub other: Arc<str>,
    /// Networks and routers that the connection goes through.
    pub hops: Vec<Hop>,
    /// This end's address.
    pub local: SocketAddr,
    /// The other end's, as this end sees it.
    pub remote: SocketAddr,
    blocked: AtomicBool,
    reset: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
}

/// A way to a listener, as a dial finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// Whom it leads to.
    pub to: Arc<str>,
    /// The turmoil host that carries it, and the port there.
    pub wire: SocketAddr,
    /// Networks and routers that it goes through.
    pub hops: Vec<Hop>,
    /// The dialler's own address.
    pub source: Ipv4Addr,
    /// What the far side sees.
    pub seen_as: Ipv4Addr,
}

/// What a dial comes upon.
enum Found {
    Way(Way),
    /// Nobody has the address.
    Nobody,
    /// Packets or their answers stray.
    Silence,
}

fn no_route(host: &str, to: IpAddr) -> io::Error {
    io::Error::new(io::ErrorKind::NetworkUnreachable, format!("no route from {host} to {to}"))
}

fn through(hops: &[Hop], router: &str) -> bool {
    hops.iter().any(|hop| matches!(hop, Hop::Router(name) if **name == *router))
}

impl Table {
    fn station(&self, name: &str) -> Option<&Station> {
        self.stations.get(name)
    }

    /// A host's addresses; one that shares another's has those.
    fn addresses(&self, name: &str) -> BTreeMap<String, Ipv4Addr> {
        let Some(host) = self.fleet.host(name) else { return BTreeMap::new() };
        match &host.shares {
            Some(other) => self.fleet.host(other).map(|h| h.addresses.clone()).unwrap_or_default(),
            None => host.addresses.clone(),
        }
    }

    fn has(&self, name: &str, ip: IpAddr) -> bool {
        matches!(ip, IpAddr::V4(ip) if self.addresses(name).values().any(|own| *own == ip))
    }

    fn find(&self, from: &str, to: SocketAddr) -> io::Result<Found> {
        let dial = self.oracle.dial(from, to);
        match dial.failure {
            None => {}
            Some(Failure::Nobody { .. }) => return Ok(Found::Nobody),
            Some(Failure::Lost { .. } | Failure::NoWayBack { .. }) => return Ok(Found::Silence),
            Some(Failure::Refused { by }) => {
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, format!("{by} refused {from} at {to}")));
            }
            Some(Failure::NoRoute { .. } | Failure::NoSuchHost { .. }) => return Err(no_route(from, to.ip())),
        }
        let (Some(answers), Some(seen)) = (dial.answered_by, dial.seen_as) else { return Ok(Found::Silence) };
        let Some(station) = self.station(&answers) else { return Ok(Found::Silence) };
        let port = self.fleet.host(&answers).and_then(|h| h.port).unwrap_or(PORT);
        let own = self.addresses(from);
        let on_the_way = dial.hops.iter().find_map(|hop| match hop {
            Hop::Network(network) => own.get(&**network).copied(),
            Hop::Router(_) => None,
        });
        let source = on_the_way.unwrap_or(seen.address);
        let wire = SocketAddr::new(station.wire.into(), port);
        Ok(Found::Way(Way { to: Arc::from(&*answers), wire, hops: dial.hops, source, seen_as: seen.address }))
    }

    fn is_off(&self, name: &str) -> bool {
        self.station(name).is_some_and(|station| station.power == Power::Off)
    }

    /// Whether a router on the way has no power, or a network is down.
    fn is_broken(&self, hops: &[Hop]) -> bool {
        hops.iter().any(|hop| match hop {
            Hop::Network(name) => self.down.contains(&**name),
            Hop::Router(name) => self.is_off(name),
        })
    }

    /// Whether packets go both ways between two hosts: what a handshake needs.
    fn is_open(&self, one: &Arc<str>, way: &Way) -> bool {
        !self.cuts.contains(&(one.clone(), way.to.clone()))
            && !self.cuts.contains(&(way.to.clone(), one.clone()))
            && !self.is_off(&way.to)
            && !self.is_broken(&way.hops)
    }

    /// Whether what the other end sends reaches this one.
    fn is_blocked(&self, leg: &Leg) -> bool {
        self.cuts.contains(&(leg.other.clone(), leg.host.clone())) || self.is_broken(&leg.hops)
    }

    fn spare<'a>(&self, networks: impl Iterator<Item = &'a String>) -> BTreeMap<String, Ipv4Addr> {
        let taken: BTreeSet<Ipv4Addr> = self.fleet.hosts.iter().flat_map(|h| h.addresses.values().copied()).collect();
        let spare = |network: &String| {
            let spare = self.fleet.networks.get(network)?.cidr.hosts().filter(|ip| !taken.contains(ip)).nth(100)?;
            Some((network.clone(), spare))
        };
        networks.filter_map(spare).collect()
    }

    /// Works out all ways anew.
    fn reroute(&mut self) {
        let mut oracle = Oracle::new(&self.fleet);
        for network in &self.down {
            // Only networks of this fleet are ever in the set.
            oracle = oracle.clone().without(network).unwrap_or(oracle);
        }
        self.oracle = oracle;
    }

    /// Tells every leg how things are now, and wakes whoever waits.
    fn refresh(&mut self) {
        self.legs.retain(|leg| leg.strong_count() > 0);
        for leg in self.legs.iter().filter_map(Weak::upgrade) {
            let blocked = self.is_blocked(&leg);
            if leg.blocked.swap(blocked, Ordering::Relaxed) && !blocked {
                leg.wake();
            }
        }
        self.dialling.drain(..).for_each(Waker::wake);
    }

    fn reset(&mut self, which: impl Fn(&Leg) -> bool) {
        for leg in self.legs.iter().filter_map(Weak::upgrade).filter(|leg| which(leg)) {
            self.resets += 1;
            leg.reset.store(true, Ordering::Relaxed);
            leg.wake();
        }
    }
}

impl Network {
    /// The networks of a fleet, and whatever of its hosts is added.
    pub fn of(fleet: &Fleet, trace: Trace) -> Network {
        let table = Table {
            fleet: fleet.clone(),
            oracle: Oracle::new(fleet),
            down: BTreeSet::new(),
            stations: BTreeMap::new(),
            cuts: BTreeSet::new(),
            legs: vec![],
            dialling: vec![],
            listening: vec![],
            introduced: BTreeMap::new(),
            next_introduction: 0,
            resets: 0,
        };
        Network { table: Arc::new(Mutex::new(table)), loss_percent: Arc::default(), trace }
    }

    /// One network, 10.0.0.0/8, called `lan`, without routers.
    ///
    /// # Panics
    /// Never: the prefix is one.
    pub fn flat(trace: Trace) -> Network {
        let cidr = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8);
        let lan = Net { cidr, kind: NetworkKind::Lan, round_trip_ms: 0, loss_per_mille: 0 };
        let fleet = Fleet {
            name: "flat".to_owned(),
            networks: [("lan".to_owned(), lan)].into(),
            masquerades: vec![],
            routes: vec![],
            forwards: vec![],
            hosts: vec![],
        };
        Network::of(&fleet, trace)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self, what: &str) {
        self.trace.record("network", Event::Fault(what));
    }

    /// Adds a host, with these addresses where it is not one of the fleet; gives the address of its wire.
    pub fn add(&self, name: &str, addresses: BTreeMap<String, Ipv4Addr>) -> IpAddr {
        let mut table = self.lock();
        let number = table.stations.len() as u16 + 1;
        let [high, low] = number.to_be_bytes();
        let wire = Ipv4Addr::new(172, 16, high, low);
        table.stations.insert(name.into(), Station { wire, power: Power::Off });
        if table.fleet.host(name).is_none() {
            table.fleet.hosts.push(Host {
                name: name.to_owned(),
                addresses,
                shares: None,
                port: Some(PORT),
                cores: 1,
                role: Role::Drone,
                protected: false,
                service: None,
            });
            table.reroute();
        }
        wire.into()
    }

    /// A host's addresses at this moment.
    pub fn addresses(&self, name: &str) -> Vec<Ipv4Addr> {
        self.lock().addresses(name).into_values().collect()
    }

    /// Where a host listens.
    pub fn port(&self, name: &str) -> u16 {
        self.lock().fleet.host(name).and_then(|host| host.port).unwrap_or(PORT)
    }

    /// Addresses that nobody has, on the same networks as a host's.
    pub fn spare_addresses(&self, like: &str) -> BTreeMap<String, Ipv4Addr> {
        let table = self.lock();
        table.spare(table.addresses(like).keys())
    }

    /// Gives a host that has none addresses that nobody has, on these networks.
    pub fn give_spare<'a>(&self, name: &str, networks: impl Iterator<Item = &'a String>) {
        self.fault(&format!("{name} gets new addresses"));
        let mut table = self.lock();
        let addresses = table.spare(networks);
        if let Some(host) = table.fleet.hosts.iter_mut().find(|host| host.name == name) {
            host.addresses = addresses;
        }
        table.reroute();
        table.refresh();
    }

    /// Whether a host passes on what others send.
    pub fn is_router(&self, name: &str) -> bool {
        let table = self.lock();
        table.fleet.masquerades.iter().any(|m| m.router == name) || table.fleet.routes.iter().any(|r| r.router == name)
    }

    /// The quickest round trip between two hosts, in milliseconds, whoever dials.
    pub fn round_trip_ms(&self, one: &str, other: &str) -> Option<u64> {
        let table = self.lock();
        let ways = table.oracle.reach(one, other).into_iter().chain(table.oracle.reach(other, one));
        ways.filter(|(_, dial)| dial.succeeds()).map(|(_, dial)| dial.round_trip_ms).min()
    }

    /// A host's addresses, if they are others than `known`; else the waker is called when any host's change.
    pub fn readdressed(&self, name: &str, known: &[Ipv4Addr], waker: &Waker) -> Option<Vec<Ipv4Addr>> {
        let mut table = self.lock();
        let addresses = table.addresses(name);
        if !addresses.values().eq(known) {
            return Some(addresses.into_values().collect());
        }
        if !table.listening.iter().any(|kept| kept.will_wake(waker)) {
            table.listening.push(waker.clone());
        }
        None
    }

    /// Says what a host's kernel is up to. A router without power has forgotten its connections when it is back.
    pub fn set_power(&self, name: &str, power: Power) {
        let mut table = self.lock();
        let Some(station) = table.stations.get_mut(name) else { return };
        let before = std::mem::replace(&mut station.power, power);
        if before == Power::Off && power != Power::Off {
            table.reset(|leg| through(&leg.hops, name));
        }
        table.refresh();
    }

    /// Whether nothing that `from` sends reaches `to`.
    pub fn is_cut(&self, from: &str, to: &str) -> bool {
        self.lock().cuts.contains(&(from.into(), to.into()))
    }

    /// Whether anything at all is cut, down or without power.
    pub fn is_harmed(&self) -> bool {
        let table = self.lock();
        !table.cuts.is_empty() || !table.down.is_empty() || table.stations.values().any(|s| s.power == Power::Off)
    }

    /// Whether two hosts cannot talk with each other, or only one way, although both have power; or could until
    /// a network that both are on went down.
    pub fn is_severed(&self, one: &str, two: &str) -> bool {
        let table = self.lock();
        if table.is_off(one) || table.is_off(two) {
            return false;
        }
        let pair = |a: &str, b: &str| (Arc::from(a), Arc::from(b));
        if table.cuts.contains(&pair(one, two)) || table.cuts.contains(&pair(two, one)) {
            return true;
        }
        let (ones, twos) = (table.addresses(one), table.addresses(two));
        if table.down.iter().any(|network| ones.contains_key(network) && twos.contains_key(network)) {
            return true;
        }
        if !table.stations.values().any(|s| s.power == Power::Off) {
            return false;
        }
        let ways = [(one, two), (two, one)].map(|(from, to)| table.oracle.reach(from, to));
        !ways.iter().flatten().any(|(_, dial)| dial.succeeds() && !table.is_broken(&dial.hops))
    }

    /// All cuts.
    pub fn cuts(&self) -> Vec<(Arc<str>, Arc<str>)> {
        self.lock().cuts.iter().cloned().collect()
    }

    /// Cuts one direction between two hosts, or mends it. What is sent meanwhile waits.
    pub fn set_cut(&self, from: &str, to: &str, cut: bool) {
        self.fault(&format!("{} {from} -> {to}", if cut { "cut" } else { "mend" }));
        let mut table = self.lock();
        let pair = (Arc::from(from), Arc::from(to));
        let _ = if cut { table.cuts.insert(pair) } else { table.cuts.remove(&pair) };
        table.refresh();
    }

    /// Takes a network down, or up. False when there is none of the name, or it was so before.
    pub fn set_up(&self, network: &str, up: bool) -> bool {
        let mut table = self.lock();
        if !table.fleet.networks.contains_key(network) {
            return false;
        }
        let changed = if up { table.down.remove(network) } else { table.down.insert(network.to_owned()) };
        if changed {
            table.reroute();
        }
        table.refresh();
        drop(table);
        if changed {
            self.fault(&format!("network {network} {}", if up { "up" } else { "down" }));
        }
        changed
    }

    /// Names of networks that are down.
    pub fn down(&self) -> Vec<String> {
        self.lock().down.iter().cloned().collect()
    }

    /// Of a hundred packets so many are lost.
    pub fn set_loss(&self, percent: u32) {
        self.fault(&format!("loss {percent} %"));
        self.loss_percent.store(percent, Ordering::Relaxed);
    }

    /// See [`Network::set_loss`].
    pub fn loss_percent(&self) -> u32 {
        self.loss_percent.load(Ordering::Relaxed)
    }

    /// Ends of connections that were reset by what moved or was forgotten.
    pub fn resets(&self) -> u64 {
        self.lock().resets
    }

    /// A router forgets its connections: both ends find theirs reset. False when it is no router.
    pub fn forget(&self, router: &str) -> bool {
        let mut table = self.lock();
        if !table.fleet.masquerades.iter().any(|m| m.router == router) {
            return false;
        }
        table.reset(|leg| through(&leg.hops, router));
        drop(table);
        self.fault(&format!("{router} forgets its connections"));
        true
    }

    /// A host gives up its addresses on the networks where `of` has some, and gets those; `of` gets `instead` (its
    /// own old ones, for a swap) or nothing there. Connections from and to addresses that moved are reset.
    pub fn take_addresses(&self, name: &str, of: &str, swap: bool) {
        self.fault(&format!("{name} {} the addresses of {of}", if swap { "swaps" } else { "takes" }));
        let mut table = self.lock();
        let (ones, twos) = (table.addresses(name), table.addresses(of));
        let (mut new_ones, mut new_twos) = (ones.clone(), twos.clone());
        let mut moved = BTreeSet::new();
        for (network, ip) in &twos {
            let own = ones.get(network);
            if swap && own.is_none() {
                continue;
            }
            moved.extend([*ip].into_iter().chain(own.copied()));
            new_ones.insert(network.clone(), *ip);
            let _ = match own.filter(|_| swap) {
                Some(own) => new_twos.insert(network.clone(), *own),
                None => new_twos.remove(network),
            };
        }
        for (name, addresses) in [(name, new_ones), (of, new_twos)] {
            if let Some(host) = table.fleet.hosts.iter_mut().find(|host| host.name == name) {
                host.addresses = addresses;
            }
        }
        table.reroute();
        let has_moved = |at: &SocketAddr| matches!(at.ip(), IpAddr::V4(ip) if moved.contains(&ip));
        table.reset(|leg| has_moved(&leg.local) || has_moved(&leg.remote));
        table.listening.drain(..).for_each(Waker::wake);
        table.refresh();
    }

    /// Finds the way of a dial, waiting as a real one would where nobody answers.
    ///
    /// # Errors
    /// When there is no route, nobody at the address, or a refusal.
    pub async fn dial(&self, from: &Arc<str>, to: SocketAddr) -> io::Result<Way> {
        let found = self.lock().find(from, to)?;
        let way = match found {
            Found::Way(way) => way,
            Found::Nobody => {
                tokio::time::sleep(NOBODY_THERE).await;
                let text = format!("nobody answers at {} for {from}", to.ip());
                return Err(io::Error::new(io::ErrorKind::HostUnreachable, text));
            }
            Found::Silence => {
                tokio::time::sleep(SILENCE).await;
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{to} does not answer {from}")));
            }
        };
        let open = poll_fn(|cx| {
            let mut table = self.lock();
            if table.is_open(from, &way) {
                return Poll::Ready(());
            }
            table.dialling.push(cx.waker().clone());
            Poll::Pending
        });
        if tokio::time::timeout(SILENCE, open).await.is_err() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{to} does not answer {from}")));
        }
        // The address may have gone elsewhere meanwhile.
        let again = self.lock().find(from, to)?;
        match again {
            Found::Way(again) if again == way => {}
            _ => return Err(io::Error::new(io::ErrorKind::HostUnreachable, format!("{to} is gone from {from}"))),
        }
        match self.lock().station(&way.to).map(|s| s.power) {
            Some(Power::Program) => Ok(way),
            _ => Err(io::Error::new(io::ErrorKind::ConnectionRefused, format!("{to} refused {from}"))),
        }
    }

    /// Announces a connection to its far end; the number is the first that is sent on it.
    pub fn introduce(&self, from: &Arc<str>, way: &Way, to: SocketAddr) -> u64 {
        let mut table = self.lock();
        table.next_introduction += 1;
        let number = table.next_introduction;
        table.introduced.insert(number, Introduction { from: from.clone(), way: way.clone(), to });
        number
    }

    /// The accepting end of a connection that was introduced; `port` is the dialler's.
    pub fn accept(&self, number: u64, port: u16) -> Option<Arc<Leg>> {
        let Introduction { from, way, to } = self.lock().introduced.remove(&number)?;
        let seen = SocketAddr::new(way.seen_as.into(), port);
        Some(self.stands(Leg::new(&way.to, &from, way.hops, to, seen)))
    }

    /// Keeps one end of a connection that stands now.
    pub fn stands(&self, leg: Leg) -> Arc<Leg> {
        let mut table = self.lock();
        let leg = Arc::new(leg);
        // It may have moved while the connection came about. What came through a router or a forward has other
        // addresses than its hosts'.
        let routed = leg.hops.iter().any(|hop| matches!(hop, Hop::Router(_)));
        let theirs = table.has(&leg.host, leg.local.ip()) && table.has(&leg.other, leg.remote.ip());
        if !(routed || theirs) {
            leg.reset.store(true, Ordering::Relaxed);
        }
        leg.blocked.store(table.is_blocked(&leg), Ordering::Relaxed);
        if table.legs.len() == table.legs.capacity() {
            table.legs.retain(|leg| leg.strong_count() > 0);
        }
        table.legs.push(Arc::downgrade(&leg));
        leg
    }
}

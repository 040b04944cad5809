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
use topology::Fleet;

/// How long a host looks for an address that nobody has before it gives up, as ARP does.
const NOBODY_THERE: Duration = Duration::from_secs(3);
/// How long a dial goes on without an answer. libp2p's own bound is shorter.
const SILENCE: Duration = Duration::from_secs(60);

/// A network that hosts can be on.
#[derive(Clone, Debug)]
struct Net {
    cidr: Ipv4Net,
    up: bool,
}

/// What hides a network behind one host's address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Masquerade {
    router: Arc<str>,
    inside: String,
    outside: String,
}

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
    addresses: BTreeMap<String, Ipv4Addr>,
    power: Power,
}

#[derive(Default)]
struct Table {
    networks: BTreeMap<String, Net>,
    masquerades: Vec<Masquerade>,
    stations: BTreeMap<Arc<str>, Station>,
    cuts: BTreeSet<(Arc<str>, Arc<str>)>,
    legs: Vec<Weak<Leg>>,
    dialling: Vec<Waker>,
    /// Listeners that want to know when addresses change.
    listening: Vec<Waker>,
    /// Connections on their way, by the number that their first bytes say.
    introduced: BTreeMap<u64, Introduction>,
    next_introduction: u64,
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
    /// The router that the connection goes through.
    pub via: Option<Arc<str>>,
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
    /// The turmoil host that carries it.
    pub wire: IpAddr,
    /// The router that it goes through.
    pub via: Option<Arc<str>>,
    /// The dialler's own address.
    pub source: Ipv4Addr,
    /// What the far side sees.
    pub seen_as: Ipv4Addr,
}

fn no_route(host: &str, to: IpAddr) -> io::Error {
    io::Error::new(io::ErrorKind::NetworkUnreachable, format!("no route from {host} to {to}"))
}

impl Table {
    fn station(&self, name: &str) -> Option<&Station> {
        self.stations.get(name)
    }

    /// The network of an address, if it carries packets.
    fn network_of(&self, ip: Ipv4Addr) -> Option<(&String, &Net)> {
        self.networks.iter().find(|(_, net)| net.cidr.contains(&ip))
    }

    fn owner(&self, ip: Ipv4Addr) -> Option<(&Arc<str>, &Station)> {
        self.stations.iter().find(|(_, station)| station.addresses.values().any(|a| *a == ip))
    }

    fn way(&self, from: &str, to: IpAddr) -> io::Result<Option<Way>> {
        let (Some(me), IpAddr::V4(ip)) = (self.station(from), to) else { return Err(no_route(from, to)) };
        let Some((network, net)) = self.network_of(ip) else { return Err(no_route(from, to)) };
        if !net.up {
            return Ok(None);
        }
        let (source, seen_as, via) = match me.addresses.get(network) {
            Some(own) => (*own, *own, None),
            None => {
                let through = self.masquerades.iter().find_map(|m| {
                    let inside = me.addresses.get(&m.inside).filter(|_| m.outside == *network)?;
                    let outside = self.station(&m.router)?.addresses.get(&m.outside)?;
                    Some((*inside, *outside, Some(m.router.clone())))
                });
                through.or_else(|| self.inward(from, network)).ok_or_else(|| no_route(from, to))?
            }
        };
        let Some((name, station)) = self.owner(ip) else { return Ok(None) };
        Ok(Some(Way { to: name.clone(), wire: station.wire.into(), via, source, seen_as }))
    }

    /// A router reaches the network that it hides.
    fn inward(&self, from: &str, network: &str) -> Option<(Ipv4Addr, Ipv4Addr, Option<Arc<str>>)> {
        let masquerade = self.masquerades.iter().find(|m| &*m.router == from && m.inside == network)?;
        let own = *self.station(from)?.addresses.get(&masquerade.outside)?;
        Some((own, own, None))
    }

    /// Whether packets go both ways between two hosts: what a handshake needs.
    fn is_open(&self, one: &Arc<str>, two: &Arc<str>, via: Option<&Arc<str>>) -> bool {
        let silent = |name: &Arc<str>| self.station(name).is_none_or(|s| s.power == Power::Off);
        !self.cuts.contains(&(one.clone(), two.clone()))
            && !self.cuts.contains(&(two.clone(), one.clone()))
            && !silent(two)
            && via.is_none_or(|router| !silent(router))
    }

    /// Whether what the other end sends reaches this one.
    fn is_blocked(&self, leg: &Leg) -> bool {
        let down = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => self.network_of(ip).is_some_and(|(_, net)| !net.up),
            IpAddr::V6(_) => false,
        };
        self.cuts.contains(&(leg.other.clone(), leg.host.clone()))
            || down(leg.local.ip())
            || down(leg.remote.ip())
            || leg.via.as_ref().is_some_and(|r| self.station(r).is_none_or(|s| s.power == Power::Off))
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
            leg.reset.store(true, Ordering::Relaxed);
            leg.wake();
        }
    }
}

impl Network {
    /// A network without hosts, of these networks and masquerades.
    fn with(networks: BTreeMap<String, Net>, masquerades: Vec<Masquerade>, trace: Trace) -> Network {
        let table = Table { networks, masquerades, ..Table::default() };
        Network { table: Arc::new(Mutex::new(table)), loss_percent: Arc::default(), trace }
    }

    /// One network, 10.0.0.0/8, called `lan`, without routers.
    ///
    /// # Panics
    /// Never: the prefix is one.
    pub fn flat(trace: Trace) -> Network {
        let cidr = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8);
        Network::with(BTreeMap::from([("lan".to_owned(), Net { cidr, up: true })]), vec![], trace)
    }

    /// The networks of a fleet.
    pub fn of(fleet: &Fleet, trace: Trace) -> Network {
        let networks = fleet.networks.iter().map(|(name, n)| (name.clone(), Net { cidr: n.cidr, up: true })).collect();
        let one = |m: &topology::Masquerade| Masquerade {
            router: m.router.as_str().into(),
            inside: m.inside.clone(),
            outside: m.outside.clone(),
        };
        Network::with(networks, fleet.masquerades.iter().map(one).collect(), trace)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self, what: &str) {
        self.trace.record("network", Event::Fault(what));
    }

    /// Adds a host with its addresses; gives the address of its wire.
    pub fn add(&self, name: &str, addresses: BTreeMap<String, Ipv4Addr>) -> IpAddr {
        let mut table = self.lock();
        let number = table.stations.len() as u16 + 1;
        let [high, low] = number.to_be_bytes();
        let wire = Ipv4Addr::new(172, 16, high, low);
        table.stations.insert(name.into(), Station { wire, addresses, power: Power::Off });
        wire.into()
    }

    /// A host's addresses at this moment.
    pub fn addresses(&self, name: &str) -> Vec<Ipv4Addr> {
        self.lock().station(name).map(|s| s.addresses.values().copied().collect()).unwrap_or_default()
    }

    /// Addresses that nobody has, on the same networks as a host's.
    pub fn spare_addresses(&self, like: &str) -> BTreeMap<String, Ipv4Addr> {
        let table = self.lock();
        let Some(station) = table.station(like) else { return BTreeMap::new() };
        let spare = |network: &String| {
            let hosts = table.networks.get(network)?.cidr.hosts();
            let spare = hosts.filter(|ip| table.owner(*ip).is_none()).nth(100)?;
            Some((network.clone(), spare))
        };
        station.addresses.keys().filter_map(spare).collect()
    }

    /// A host's addresses, if they are others than `known`; else the waker is called when any host's change.
    pub fn readdressed(&self, name: &str, known: &[Ipv4Addr], waker: &Waker) -> Option<Vec<Ipv4Addr>> {
        let mut table = self.lock();
        let station = table.station(name)?;
        if !station.addresses.values().eq(known) {
            return Some(station.addresses.values().copied().collect());
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
            table.reset(|leg| leg.via.as_deref() == Some(name));
        }
        table.refresh();
    }

    /// Whether nothing that `from` sends reaches `to`.
    pub fn is_cut(&self, from: &str, to: &str) -> bool {
        self.lock().cuts.contains(&(from.into(), to.into()))
    }

    /// Whether any cut concerns a host.
    pub fn is_touched(&self, name: &str) -> bool {
        self.lock().cuts.iter().any(|(from, to)| &**from == name || &**to == name)
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
        let changed = table.networks.get_mut(network).is_some_and(|net| std::mem::replace(&mut net.up, up) != up);
        table.refresh();
        drop(table);
        if changed {
            self.fault(&format!("network {network} {}", if up { "up" } else { "down" }));
        }
        changed
    }

    /// Names of networks that are down.
    pub fn down(&self) -> Vec<String> {
        self.lock().networks.iter().filter(|(_, net)| !net.up).map(|(name, _)| name.clone()).collect()
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

    /// A router forgets its connections: both ends find theirs reset. False when it is no router.
    pub fn forget(&self, router: &str) -> bool {
        let mut table = self.lock();
        if !table.masquerades.iter().any(|m| &*m.router == router) {
            return false;
        }
        table.reset(|leg| leg.via.as_deref() == Some(router));
        drop(table);
        self.fault(&format!("{router} forgets its connections"));
        true
    }

    /// A host gives up its addresses on the networks where `of` has some, and gets those; `of` gets `instead` (its
    /// own old ones, for a swap) or nothing there. Connections from and to addresses that moved are reset.
    pub fn take_addresses(&self, name: &str, of: &str, swap: bool) {
        self.fault(&format!("{name} {} the addresses of {of}", if swap { "swaps" } else { "takes" }));
        let mut table = self.lock();
        let (Some(one), Some(two)) = (table.station(name), table.station(of)) else { return };
        let (ones, twos) = (one.addresses.clone(), two.addresses.clone());
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
            if let Some(station) = table.stations.get_mut(name) {
                station.addresses = addresses;
            }
        }
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
        let found = self.lock().way(from, to.ip())?;
        let Some(way) = found else {
            tokio::time::sleep(NOBODY_THERE).await;
            let text = format!("nobody answers at {} for {from}", to.ip());
            return Err(io::Error::new(io::ErrorKind::HostUnreachable, text));
        };
        let open = poll_fn(|cx| {
            let mut table = self.lock();
            if table.is_open(from, &way.to, way.via.as_ref()) {
                return Poll::Ready(());
            }
            table.dialling.push(cx.waker().clone());
            Poll::Pending
        });
        if tokio::time::timeout(SILENCE, open).await.is_err() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{to} does not answer {from}")));
        }
        // The address may have gone elsewhere meanwhile.
        let again = self.lock().way(from, to.ip())?;
        match again {
            Some(again) if again == way => {}
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
        Some(self.stands(Leg::new(&way.to, &from, way.via, to, seen)))
    }

    /// Keeps one end of a connection that stands now.
    pub fn stands(&self, leg: Leg) -> Arc<Leg> {
        let mut table = self.lock();
        let leg = Arc::new(leg);
        let has = |name: &str, ip: IpAddr| match ip {
            IpAddr::V4(ip) => table.station(name).is_some_and(|s| s.addresses.values().any(|a| *a == ip)),
            IpAddr::V6(_) => false,
        };
        // It may have moved while the connection came about.
        if !has(&leg.host, leg.local.ip()) || (leg.via.is_none() && !has(&leg.other, leg.remote.ip())) {
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

impl Leg {
    /// One end of a connection between these hosts and addresses.
    pub fn new(host: &Arc<str>, other: &Arc<str>, via: Option<Arc<str>>, local: SocketAddr, remote: SocketAddr) -> Leg {
        Leg {
            host: host.clone(),
            other: other.clone(),
            via,
            local,
            remote,
            blocked: AtomicBool::new(false),
            reset: AtomicBool::new(false),
            wakers: Mutex::default(),
        }
    }

    /// Whether nothing arrives here at the moment. The waker is called when that ends.
    pub fn is_blocked(&self, waker: &Waker) -> bool {
        let blocked = self.blocked.load(Ordering::Relaxed);
        if blocked {
            self.keep(waker);
        }
        blocked
    }

    /// Whether the connection was reset. The waker is called when that comes.
    pub fn is_reset(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }

    /// Remembers whom to wake when something about this leg changes.
    pub fn keep(&self, waker: &Waker) {
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if !wakers.iter().any(|kept| kept.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }

    fn wake(&self) {
        let wakers = std::mem::take(&mut *self.wakers.lock().unwrap_or_else(PoisonError::into_inner));
        wakers.into_iter().for_each(Waker::wake);
    }
}

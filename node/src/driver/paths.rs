//! Which way to which host: direct if it can be, else through a member that relays, and away from the relay as soon
//! as something better stands; by TCP if it can be, and away from QUIC in the same way.
//!
//! Every host relays for members, and one that has been dialled from elsewhere offers it. A host that has no direct connection with somebody
//! who seems to live waits behind two relays, of different networks where there are, and says so in its presence;
//! whoever cannot dial it directly dials it there, by the relay's key. libp2p then tries to punch a hole (DCUtR); we
//! try the direct leads again from time to time. A host that falls silent on a connection that stands is dialled once
//! more beside it, at every lead: long before anybody may take it for dead, and long before the connection ends by
//! itself, it is heard on another path if there is one. No protocol knows of any of this: streams take the best connection
//! there is. Who is believed to live is `mesh::membership`'s, what an address is worth `mesh::addresses`'s.

use super::Inner;
use super::shared::lock;
use super::watch::{ip_of, plain};
use crate::net::{Multiaddr, Path, relay_of};
use mesh::addresses::Failure;
use mesh::identity::PeerKey;
use mesh::membership::State;
use mesh::time::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// Relays that a host waits behind: any one may be lost.
const RELAYS: usize = 2;
/// How long a direct dial has before a relay is dialled beside it; it may take ten seconds to fail.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same for the peer with the larger key, so that not both dial.
const MORE_PATIENCE: Duration = Duration::from_secs(3);
/// How long nobody need have been reached directly before this host waits behind relays.
const NEED_AFTER: Duration = Duration::from_secs(2);
/// A dial through a relay that has not been heard of for so long may be tried again.
const CIRCUIT_WITHIN: Duration = Duration::from_secs(10);
/// A relay that has not given a reservation is not asked again for so long.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// The first dial for something better than a relayed connection, and the longest pause between two: they fail as long as
/// the network is as it is.
const BETTER_MIN: Duration = Duration::from_secs(10);
const BETTER_MAX: Duration = Duration::from_secs(600);
/// The first dial for something better than QUIC: mostly it stands only because it was first, as when a host came back.
const TCP_AFTER: Duration = Duration::from_secs(3);
/// Whoever has been dialled from elsewhere relays for so long after.
const REACHABLE_FOR: Duration = Duration::from_secs(600);

/// A host that has not answered for so long on the connection that stands is dialled beside it: half of what it takes
/// to be accused, and more than any one lost packet takes.
const MUTE_AFTER: Duration = Duration::from_millis(800);
/// Connections that have had so long to bring an answer and have not are no better than the first.
const MUTE_FOR_LONG: Duration = Duration::from_secs(5);
/// The shortest and the longest pause between two such dials of one host: on a bad link it is silent now and then.
const AROUND_MIN: Duration = Duration::from_secs(5);
const AROUND_MAX: Duration = Duration::from_secs(60);

/// What is remembered of ways.
#[derive(Default)]
pub struct Paths {
    /// Since when there is no direct connection.
    apart: BTreeMap<PeerKey, Time>,
    /// When a dial through a relay was begun that is not known to have ended.
    circuits: BTreeMap<PeerKey, Time>,
    better: BTreeMap<PeerKey, Search>,
    /// Relays that were asked for a reservation and have not given one, and until when they are not asked again.
    asked: BTreeMap<PeerKey, Time>,
    /// When a silent host may next be dialled beside its connection, and the pause after that.
    around: BTreeMap<PeerKey, (Time, Duration)>,
    /// When a member last reached us from elsewhere.
    reached: Option<Time>,
    offering: bool,
}

/// Dials for something better than what stands.
struct Search {
    /// Than a relay, or than QUIC: what is found out about the one says nothing of the other.
    beside_relay: bool,
    /// When the next is due.
    at: Time,
    /// The pause after that.
    pause: Duration,
}

impl Inner {
    /// A connection stands: what that proves, and what it only claims.
    pub(super) fn learn_path(&self, peer: PeerKey, address: &Multiaddr, dialed: bool) {
        let now = self.now();
        self.circuit_settled(peer, address);
        if dialed {
            lock(&self.addresses).proved(peer, &plain(address), now);
            self.leads_changed.notify_one();
        } else if !address.iter().any(|part| part == libp2p::multiaddr::Protocol::P2pCircuit)
            && let Some(ip) = ip_of(address)
        {
            lock(&self.addresses).observed(peer, ip, now);
            if !ip.is_loopback() {
                lock(&self.paths).reached = Some(now);
            }
        }
    }

    /// A dial of this address has come to an end.
    pub(super) fn circuit_settled(&self, peer: PeerKey, address: &Multiaddr) {
        if relay_of(address).is_some() {
            lock(&self.paths).circuits.remove(&peer);
        }
    }

    pub(super) fn on_reserved(&self, relay: PeerKey, ended: Option<String>) {
        let host = self.name_of(&relay);
        match ended {
            None => {
                tracing::info!(host, "this host waits behind a relay");
                lock(&self.paths).asked.remove(&relay); // should it end, it is asked again at once
            }
            Some(why) => tracing::info!(host, why, "not behind a relay"),
        }
        self.tell_paths();
    }

    /// Whether this host passes on others' circuits.
    pub(super) fn offers_relay(&self) -> bool {
        lock(&self.paths).offering
    }

    fn tell_paths(&self) {
        let facts = self.presence_facts();
        lock(&self.members).set_facts(facts, self.now());
    }

    /// Looks after the ways to everybody. Called every tick. True when all ways are direct and in use.
    pub(super) fn tend_paths(&self) -> bool {
        let others = self.others();
        let mut calm = true;
        for peer in &others {
            calm &= self.tend_path(*peer);
        }
        {
            let paths = &mut *lock(&self.paths);
            paths.apart.retain(|peer, _| others.contains(peer));
            paths.circuits.retain(|peer, _| others.contains(peer));
            paths.better.retain(|peer, _| others.contains(peer));
            paths.around.retain(|peer, _| others.contains(peer));
            let now = self.now();
            paths.asked.retain(|_, until| *until > now);
        }
        self.tend_offer();
        self.tend_reservations(&others);
        calm
    }

    /// True when there is nothing to better.
    fn tend_path(&self, peer: PeerKey) -> bool {
        let now = self.now();
        match self.net.path(peer) {
            Some(Path::Direct) if self.mute_for(&peer) >= MORE_PATIENCE => {
                // Connected by the book only: as good as apart.
                lock(&self.paths).apart.entry(peer).or_insert(now);
                self.dial_circuit(peer, true);
                false
            }
            Some(Path::Direct) => {
                lock(&self.paths).apart.remove(&peer);
                if self.net.is_by_quic(peer) {
                    self.seek_better(peer, false);
                } else {
                    lock(&self.paths).better.remove(&peer);
                }
                true // it does as it is
            }
            Some(Path::Relayed(_)) => {
                lock(&self.paths).apart.entry(peer).or_insert(now);
                self.seek_better(peer, true);
                false
            }
            None => {
                self.dial(peer);
                let since = {
                    let paths = &mut *lock(&self.paths);
                    paths.better.remove(&peer);
                    *paths.apart.entry(peer).or_insert(now)
                };
                let patience = if self.me < peer { PATIENCE } else { MORE_PATIENCE };
                if now >= since + patience {
                    self.dial_circuit(peer, false);
                }
                false
            }
        }
    }

    /// Dials a peer beside its connection from time to time, where a better one may be had: than a relay's at every lead,
    /// than one over QUIC by TCP. Whoever has the larger key begins later, so that not both dial.
    fn seek_better(&self, peer: PeerKey, beside_relay: bool) {
        let now = self.now();
        let after = if beside_relay { BETTER_MIN } else { TCP_AFTER };
        let first = if self.me < peer { after } else { after + MORE_PATIENCE };
        let begin = || Search { beside_relay, at: now + first, pause: BETTER_MIN };
        {
            let paths = &mut *lock(&self.paths);
            let search = paths.better.entry(peer).or_insert_with(begin);
            if search.beside_relay != beside_relay {
                *search = begin();
            }
            if now < search.at {
                return;
            }
            (search.at, search.pause) = (now + search.pause, (search.pause * 2).min(BETTER_MAX));
        }
        let leads: Vec<Multiaddr> =
            self.leads_to(&peer).into_iter().filter(|lead| beside_relay || is_tcp(lead)).collect();
        if !leads.is_empty() {
            self.net.dial_beside(peer, leads);
        }
    }

    /// How long a connected host has not answered us there. Zero for one that this host does not watch.
    fn mute_for(&self, peer: &PeerKey) -> Duration {
        let since = lock(&self.members).mute_since(peer);
        since.map_or(Duration::ZERO, |since| self.now().since(since))
    }

    /// A host is about to be probed. When it has been silent for long, a younger connection is turned to, and where
    /// there is none yet another dial is begun.
    pub(super) fn find_way_around(&self, peer: PeerKey) {
        let (now, mute) = (self.now(), self.mute_for(&peer));
        if mute < MUTE_AFTER {
            return;
        }
        let here = tokio::time::Instant::now();
        if self.net.turn(peer, here.checked_sub(mute.min(MUTE_FOR_LONG)).unwrap_or(here)) {
            tracing::info!(host = self.name_of(&peer), "silent on one connection: another is used");
            lock(&self.probe_out).remove(&peer); // the next one is asked there
            return;
        }
        {
            let paths = &mut *lock(&self.paths);
            let (at, pause) = paths.around.entry(peer).or_insert((now, AROUND_MIN));
            if now < *at {
                return;
            }
            if now > *at + 2 * *pause {
                *pause = AROUND_MIN; // it has been well in between
            }
            (*at, *pause) = (now + *pause, (*pause * 2).min(AROUND_MAX));
        }
        let leads = self.leads_to(&peer);
        if !leads.is_empty() {
            tracing::debug!(host = self.name_of(&peer), ?leads, "silent: dialled beside its connection");
            self.net.dial_beside(peer, leads);
        }
    }

    /// Dials through the first relay that the peer waits behind and that we stand in connection with.
    fn dial_circuit(&self, peer: PeerKey, beside: bool) {
        let now = self.now();
        if lock(&self.paths).circuits.get(&peer).is_some_and(|at| now < *at + CIRCUIT_WITHIN) {
            return;
        }
        let relays = lock(&self.addresses).relays(&peer, now);
        match relays.iter().find(|relay| self.net.path(**relay) == Some(Path::Direct)) {
            Some(relay) => {
                lock(&self.paths).circuits.insert(peer, now);
                match beside {
                    true => self.net.dial_via_beside(peer, *relay),
                    false => self.net.dial_via(peer, *relay),
                }
            }
            None => {
                for relay in relays {
                    let why = Failure::Other(format!("no direct connection with {}", self.name_of(&relay)));
                    let lead = mesh::addresses::circuit_through(&relay);
                    lock(&self.addresses).failed(peer, &lead, why, now);
                }
            }
        }
    }

    /// Offers to relay as long as members reach this host by themselves.
    fn tend_offer(&self) {
        let now = self.now();
        let standing = self
            .net
            .any_connection(|c| !c.dialed && !c.relayed && ip_of(&c.address).is_some_and(|ip| !ip.is_loopback()));
        let changed = {
            let paths = &mut *lock(&self.paths);
            if standing {
                paths.reached = Some(now);
            }
            let offer = paths.reached.is_some_and(|at| now < at + REACHABLE_FOR);
            let changed = offer != paths.offering;
            paths.offering = offer;
            changed.then_some(offer)
        };
        if let Some(offer) = changed {
            tracing::info!(offer, "offering to relay for members that cannot be dialled");
            self.tell_paths();
        }
    }

    /// Waits behind relays while somebody who seems to live cannot be reached directly.
    fn tend_reservations(&self, others: &BTreeSet<PeerKey>) {
        let now = self.now();
        let held = self.net.reserved();
        if held.len() >= RELAYS || !self.needs_relay(others) {
            return;
        }
        let mut offers = vec![];
        let mut held_at = vec![];
        for peer in others {
            let Some(at) = self.net.best(*peer).filter(|c| !c.relayed) else { continue };
            let network = ip_of(&at.address).map(network);
            if held.contains(peer) {
                held_at.push(network);
            } else if lock(&self.addresses).offers_relay(peer) && !lock(&self.paths).asked.contains_key(peer) {
                offers.push((*peer, network));
            }
        }
        for relay in choose(&offers, &held_at, RELAYS - held.len()) {
            lock(&self.paths).asked.insert(relay, now + ASK_AGAIN);
            self.net.reserve(relay);
        }
    }

    fn needs_relay(&self, others: &BTreeSet<PeerKey>) -> bool {
        let now = self.now();
        let members = lock(&self.members);
        let lives = |peer: &PeerKey| {
            members.host(peer).is_some_and(|h| h.presence.is_some() && !matches!(h.state, State::Down | State::Left))
        };
        let paths = lock(&self.paths);
        others.iter().any(|peer| paths.apart.get(peer).is_some_and(|at| now >= *at + NEED_AFTER) && lives(peer))
    }
}

fn is_tcp(lead: &Multiaddr) -> bool {
    lead.iter().any(|part| matches!(part, libp2p::multiaddr::Protocol::Tcp(_)))
}

/// What counts as one network: what shares a cable, a router or a provider's rack more often than not.
fn network(ip: IpAddr) -> [u8; 6] {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            [4, a, b, c, 0, 0]
        }
        IpAddr::V6(ip) => {
            let mut net = [0; 6];
            net.copy_from_slice(&ip.octets()[..6]);
            net
        }
    }
}

/// Picks relays among the offers: of networks that hold none yet, then of any.
fn choose<N: Ord + Clone>(offers: &[(PeerKey, N)], held: &[N], wanted: usize) -> Vec<PeerKey> {
    let mut taken: BTreeSet<N> = held.iter().cloned().collect();
    let mut chosen: Vec<PeerKey> = vec![];
    for (peer, network) in offers {
        if chosen.len() < wanted && taken.insert(network.clone()) {
            chosen.push(*peer);
        }
    }
    for (peer, _) in offers {
        if chosen.len() < wanted && !chosen.contains(peer) {
            chosen.push(*peer);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::identity::Keys;

    #[test]
    fn relays_are_of_different_networks_where_there_are() {
        let [a, b, c] = [1, 2, 3].map(|n| Keys::from_seed([n; 32]).key());
        let at = |text: &str| network(text.parse().unwrap());
        let near = at("10.9.1.1");
        assert_eq!(near, at("10.9.1.200"));
        assert_eq!(near, at("::ffff:10.9.1.7"), "the same address in other clothes");
        let far = at("10.9.2.1");
        let offers = [(a, near), (b, near), (c, far)];
        assert_eq!(choose(&offers, &[], 2), [a, c], "the naive choice is the first two");
        assert_eq!(choose(&offers, &[near], 1), [c]);
        assert_eq!(choose(&offers[..2], &[], 2), [a, b], "better of one network than one alone");
        assert_eq!(choose(&offers[..2], &[near], 1), [a]);
        assert_ne!(at("2001:db8:1::1"), at("2001:db8:2::1"));
    }
}

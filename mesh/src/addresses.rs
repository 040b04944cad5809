//! The table of leads: where a peer might be reached, who said so, and what came of trying.
//!
//! An address is never an identity (rule 1). It is *proved* only by a handshake that this host began
//! with the peer's id on that very address; until then it is somebody's claim. The source address of
//! an inbound connection is only ever shown: behind a masquerade it is another host's (incident 1).
//! Nothing here dials: the driver asks for [`Addresses::leads`], dials, and reports the outcome.
//!
//! A host that others cannot dial waits behind relays, and says so in its presence: `/p2p/RELAY/p2p-circuit`. A relay
//! is named by its key and never by an address, so that a circuit is not one more address to be wrong. A host that
//! passes on others' circuits says [`OFFER`]. Nobody can say either for somebody else.

use crate::identity::PeerKey;
use crate::membership::ADDRESS_BYTES_MAX;
use crate::mutants::{self, Mutant};
use crate::time::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

#[path = "addresses_kept.rs"]
mod kept;

pub use kept::{KEPT_BYTES_MAX, KEPT_MAX, KEPT_PEERS_MAX, Kept};

/// Leads kept of one peer: interfaces of both families and an overlay, with room for old ones.
pub const LEADS_MAX: usize = 16;
/// Leads kept of one peer that came by mDNS: whoever makes them up takes no room from others.
pub const MDNS_MAX: usize = 4;
/// Observed source addresses kept of one peer.
pub const OBSERVED_MAX: usize = 4;
/// A lead that was not proved, nor told again, for so long is forgotten (incident 17).
pub const LEAD_LIFE: Duration = Duration::from_secs(24 * 3_600);
/// First pause after a failed dial; doubled by each further one.
pub const RETRY_MIN: Duration = Duration::from_millis(500);
/// Longest pause: a host that comes back is found within this. One that knows
/// nobody else's address waits to be dialled; a refused dial costs next to nothing.
pub const RETRY_MAX: Duration = Duration::from_secs(5);

/// What a host that relays for others says among its addresses.
pub const OFFER: &str = "/p2p-circuit";

/// Where a lead comes from, the most trusted first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Source {
    /// This host's configuration.
    Configured,
    /// An invitation.
    Invitation,
    /// An interface or listener of this host itself.
    Interface,
    /// The peer's own presence, by gossip.
    Gossip,
    /// The peer's identify message.
    Identify,
    /// Somebody on this host's own network, by mDNS: anybody there can say so of any peer.
    Mdns,
    /// The peer's own presence: it waits behind this relay.
    Relay,
    /// The source of an inbound connection: shown, never dialled.
    Observed,
}

/// Why a dial failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// Nobody listens there.
    Refused,
    /// Nobody answered.
    Timeout,
    /// Another peer answered.
    Peer(PeerKey),
    /// Anything else, in words.
    Other(String),
}

/// One address of one peer, and its history.
#[derive(Clone, Debug)]
pub struct Lead {
    /// How it came here; the best source when there were several.
    pub source: Source,
    /// Who said so; `None` when this host knows by itself.
    pub observer: Option<PeerKey>,
    /// When it came first.
    pub first_seen: Time,
    /// When it was told last.
    pub last_seen: Time,
    /// When a handshake with this peer last succeeded on it.
    pub proved: Option<Time>,
    /// The last failure since then.
    pub failed: Option<(Time, Failure)>,
    failures: u32,
    /// It was proved before the last restart, and no other peer has answered there since.
    kept: bool,
    /// The peer was there at some time, whoever has answered since.
    was_its: bool,
    /// The peer claims it: its newest presence names it, or the invitation does while no presence is known.
    claimed: bool,
}

impl Lead {
    fn fresh(&self) -> Time {
        self.proved.unwrap_or(self.last_seen).max(self.last_seen)
    }

    fn lives(&self, now: Time) -> bool {
        self.source == Source::Configured || now < self.fresh() + LEAD_LIFE || mutants::on(Mutant::LeadsNeverExpire)
    }

    /// Something to dial without a relay.
    fn is_direct(&self) -> bool {
        !matches!(self.source, Source::Observed | Source::Relay)
    }

    fn next_try(&self) -> Option<Time> {
        let (at, _) = self.failed.as_ref()?;
        let pause = RETRY_MIN * 2u32.saturating_pow(self.failures.saturating_sub(1).min(16));
        Some(*at + pause.min(RETRY_MAX))
    }
}

/// One line of the table for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// The multiaddr, or the bare IP of an observed one.
    pub addr: String,
    /// How it came here.
    pub source: Source,
    /// A handshake has succeeded on it, and nothing has failed since.
    pub proved: bool,
    /// Since the proof, or since it was told when there is none.
    pub age_ms: u64,
    /// It is this host's, which masquerades for the peer.
    pub nat_of: Option<PeerKey>,
    /// The last failure since the proof.
    pub failed: Option<Failure>,
    /// Who said so; `None` when this host knows by itself.
    pub observer: Option<PeerKey>,
    /// Since it came first.
    pub first_ms: u64,
    /// Since a handshake last succeeded on it, if one has.
    pub proved_ms: Option<u64>,
    /// Since that failure.
    pub failed_ms: Option<u64>,
    /// Until it is forgotten, unless it is told or proved again. What is configured is not.
    pub expires_ms: Option<u64>,
}

/// The table. Addresses are multiaddrs without `/p2p`, observed ones bare IPs.
#[derive(Clone, Debug)]
pub struct Addresses {
    me: PeerKey,
    peers: BTreeMap<PeerKey, BTreeMap<String, Lead>>,
    /// Who offers to relay, by its last presence.
    offers: BTreeSet<PeerKey>,
}

/// The lead to a peer that waits behind a relay.
pub fn circuit_through(relay: &PeerKey) -> String {
    format!("/p2p/{relay}{OFFER}")
}

/// The relay of such a lead.
pub fn relay_in(addr: &str) -> Option<PeerKey> {
    addr.strip_prefix("/p2p/")?.strip_suffix(OFFER)?.parse().ok()
}

impl Addresses {
    /// An empty table of this host.
    pub fn new(me: PeerKey) -> Self {
        Addresses { me, peers: BTreeMap::new(), offers: BTreeSet::new() }
    }

    /// Who is enrolled. Forgets whoever no longer is.
    pub fn set_members(&mut self, members: &BTreeSet<PeerKey>) {
        self.peers.retain(|peer, _| *peer == self.me || members.contains(peer));
        self.offers.retain(|peer| members.contains(peer));
        // Also whom no address is known of: it may answer where another was looked for.
        for member in members {
            self.peers.entry(*member).or_default();
        }
    }

    /// Takes a lead. Our own listeners are learned for our own key, as [`Source::Interface`]. What
    /// is no address, or only a source, is not taken: `false`.
    pub fn learn(&mut self, peer: PeerKey, addr: &str, source: Source, observer: Option<PeerKey>, now: Time) -> bool {
        if source == Source::Observed || addr.len() > ADDRESS_BYTES_MAX || !addr.starts_with('/') {
            return false;
        }
        let fits = match source {
            Source::Relay => relay_in(addr).is_some_and(|relay| relay != peer && relay != self.me),
            _ => !addr.split('/').any(|part| part == "p2p" || part == "p2p-circuit"),
        };
        if !fits {
            return false;
        }
        if ip_of(addr).is_some_and(leads_nowhere) {
            return false;
        }
        self.note(peer, addr, source, observer, now);
        true
    }

    /// Where this host no longer listens: the address may be another's by now (incident 17).
    pub fn forget_own(&mut self, addr: &str) {
        if !mutants::on(Mutant::LeadsNeverExpire)
            && let Some(own) = self.peers.get_mut(&self.me)
        {
            own.remove(addr);
        }
    }

    /// What a peer's presence names now. Leads of older presences go, unless they are proved; a relay that it
    /// no longer waits behind goes in any case.
    pub fn learn_presence(&mut self, peer: PeerKey, addrs: &[String], now: Time) {
        if mutants::on(Mutant::FirstAddressForEver) && self.peers.get(&peer).is_some_and(|leads| !leads.is_empty()) {
            return;
        }
        match addrs.iter().any(|addr| addr == OFFER) {
            true => self.offers.insert(peer),
            false => self.offers.remove(&peer),
        };
        if let Some(leads) = self.peers.get_mut(&peer) {
            leads.retain(|addr, lead| lead.source != Source::Relay || addrs.contains(addr));
            leads.retain(|addr, lead| lead.source != Source::Gossip || lead.proved.is_some() || addrs.contains(addr));
            for (addr, lead) in leads.iter_mut() {
                lead.claimed = addrs.contains(addr);
                if lead.source == Source::Gossip && !addrs.contains(addr) {
                    lead.source = Source::Identify; // proved once, but the peer no longer claims it
                }
            }
        }
        for addr in addrs {
            let source = if addr.ends_with(OFFER) { Source::Relay } else { Source::Gossip };
            self.learn(peer, addr, source, Some(peer), now);
        }
    }

    /// Whether a peer offers to relay for others.
    pub fn offers_relay(&self, peer: &PeerKey) -> bool {
        self.offers.contains(peer)
    }

    /// A dial of ours to this address ended in a handshake with this peer.
    pub fn proved(&mut self, peer: PeerKey, addr: &str, now: Time) {
        let known = self.peers.get(&peer).and_then(|leads| leads.get(addr)).map(|lead| lead.source);
        let source = match known {
            Some(Source::Mdns) => Source::Mdns, // where it came from stays to be seen
            _ if relay_in(addr).is_some() => Source::Relay,
            _ => Source::Identify,
        };
        self.note(peer, addr, source, None, now);
        if let Some(lead) = self.peers.get_mut(&peer).and_then(|leads| leads.get_mut(addr)) {
            lead.proved = Some(now);
            lead.was_its = true;
            lead.failed = None;
            lead.failures = 0;
        }
    }

    /// A dial of ours failed. When another peer answered, the address is proved for *that* one.
    pub fn failed(&mut self, peer: PeerKey, addr: &str, reason: Failure, now: Time) {
        let other = match reason {
            Failure::Peer(other) if other != peer => Some(other),
            _ => None,
        };
        if let Some(lead) = self.peers.get_mut(&peer).and_then(|leads| leads.get_mut(addr)) {
            if other.is_some() {
                lead.proved = None;
                lead.kept = false;
            }
            lead.failed = Some((now, reason));
            lead.failures = lead.failures.saturating_add(1);
        }
        // Only of peers that are known: a stranger that answers gets no line in the table.
        if let Some(other) = other.filter(|other| self.peers.contains_key(other)) {
            self.proved(other, addr, now);
        }
    }

    /// An inbound connection of the peer came from this IP. A claim, and never dialled.
    pub fn observed(&mut self, peer: PeerKey, ip: IpAddr, now: Time) {
        let me = self.me;
        self.note(peer, &ip.to_canonical().to_string(), Source::Observed, Some(me), now);
    }

    /// Where to dial the peer directly, most promising first: proved, then by source. Without what is backing
    /// off, expired, observed, or proved to be another peer's.
    pub fn leads(&self, peer: &PeerKey, now: Time) -> Vec<String> {
        let Some(leads) = self.peers.get(peer) else { return Vec::new() };
        if mutants::on(Mutant::FirstAddressForEver)
            && let Some((addr, _)) =
                leads.iter().filter(|(_, l)| l.source != Source::Observed).min_by_key(|(_, l)| l.first_seen)
        {
            return vec![addr.clone()];
        }
        let mut usable: Vec<(&String, &Lead)> = leads
            .iter()
            .filter(|(_, lead)| lead.is_direct() && lead.lives(now))
            .filter(|(_, lead)| lead.next_try().is_none_or(|at| at <= now))
            .filter(|(addr, lead)| lead.proved.is_some() || !self.is_anothers(peer, addr))
            .collect();
        usable.sort_by_key(|(addr, lead)| {
            let proved = lead.proved.filter(|_| lead.failed.is_none());
            (std::cmp::Reverse(proved), lead.source, lead.failures, (*addr).clone())
        });
        usable.into_iter().map(|(addr, _)| addr.clone()).collect()
    }

    /// The same for somebody else's use: what came by mDNS is not passed on before it is proved.
    pub fn worth_telling(&self, peer: &PeerKey, now: Time) -> Vec<String> {
        let told = |addr: &String| {
            let lead = self.peers.get(peer).and_then(|leads| leads.get(addr));
            lead.is_some_and(|lead| lead.source != Source::Mdns || lead.proved.is_some())
        };
        self.leads(peer, now).into_iter().filter(told).collect()
    }

    /// As [`Addresses::leads`], without QUIC where a TCP lead has not failed since it was proved or told: when a process dies, its
    /// kernel closes TCP in that moment, and QUIC merely falls silent. QUIC is for where TCP does not get through.
    pub fn first_leads(&self, peer: &PeerKey, now: Time) -> Vec<String> {
        let mut leads = self.leads(peer, now);
        let tcp = |addr: &String| addr.contains("/tcp/");
        let well = |addr: &String| self.peers.get(peer).and_then(|l| l.get(addr)).is_some_and(|l| l.failed.is_none());
        if leads.iter().any(|addr| tcp(addr) && well(addr)) {
            leads.retain(tcp);
        }
        leads
    }

    /// The relays that the peer says it waits behind, most promising first; without what is backing off.
    pub fn relays(&self, peer: &PeerKey, now: Time) -> Vec<PeerKey> {
        let Some(leads) = self.peers.get(peer) else { return Vec::new() };
        let mut due: Vec<(&String, &Lead)> = leads
            .iter()
            .filter(|(_, lead)| lead.source == Source::Relay && lead.lives(now))
            .filter(|(_, lead)| lead.next_try().is_none_or(|at| at <= now))
            .collect();
        due.sort_by_key(|(addr, lead)| {
            (std::cmp::Reverse(lead.proved.filter(|_| lead.failed.is_none())), lead.failures, (*addr).clone())
        });
        due.into_iter().filter_map(|(addr, _)| relay_in(addr)).collect()
    }

    /// Where the peer may be found, in the order of the addresses, whatever has been tried lately: what to remember.
    pub fn known(&self, peer: &PeerKey, now: Time) -> Vec<String> {
        let may = |(addr, lead): &(&String, &Lead)| {
            lead.source != Source::Observed
                && lead.lives(now)
                && (lead.proved.is_some() || !self.is_anothers(peer, addr))
        };
        self.peers.get(peer).into_iter().flatten().filter(may).map(|(addr, _)| addr.clone()).collect()
    }

    /// When the next lead of the peer may be tried; `None` when there is none at all.
    pub fn next_try(&self, peer: &PeerKey, now: Time) -> Option<Time> {
        let usable = |(addr, lead): &(&String, &Lead)| {
            lead.is_direct() && lead.lives(now) && (lead.proved.is_some() || !self.is_anothers(peer, addr))
        };
        self.peers.get(peer)?.iter().filter(usable).map(|(_, lead)| lead.next_try().unwrap_or(now).max(now)).min()
    }

    /// Whose masquerade an address of a peer is: its IP is another peer's, proved by a handshake, or its own
    /// interface, or both claimed by it and seen as the source of its connection; and neither proved for, nor
    /// claimed by, the peer itself. `addr` is a multiaddr or a bare IP. Loopback is everybody's, and told apart by port.
    pub fn nat_of(&self, peer: &PeerKey, addr: &str) -> Option<PeerKey> {
        self.whose(peer, addr, |lead| lead.proved.is_some())
    }

    /// The same, when of what another was proved at only such leads say that an address is its own.
    fn whose(&self, peer: &PeerKey, addr: &str, is_its: impl Fn(&Lead) -> bool) -> Option<PeerKey> {
        let ip = ip_of(addr).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())?;
        let at = |lead: &(&String, &Lead)| lead.1.source != Source::Observed && ip_of(lead.0) == Some(ip);
        let owns = |lead: &Lead| lead.proved.is_some() || lead.source == Source::Interface;
        let has = |lead: &Lead| owns(lead) || lead.claimed || lead.kept || lead.source == Source::Configured;
        let leads = self.peers.get(peer)?;
        if leads.iter().filter(at).any(|(_, lead)| has(lead)) {
            return None;
        }
        // Who was met on an address of this host's own has shared it once: a container and its host move together, and back.
        let shares = leads.iter().filter(at).any(|(_, lead)| lead.was_its);
        let mut others = self.peers.iter().filter(|(other, _)| *other != peer && !(shares && **other == self.me));
        let bare = ip.to_canonical().to_string();
        let came_from_it = |leads: &BTreeMap<String, Lead>| {
            leads.contains_key(&bare) && leads.iter().filter(at).any(|(_, lead)| lead.claimed)
        };
        others
            .find(|(_, leads)| {
                let its = |lead: &Lead| is_its(lead) || lead.source == Source::Interface;
                came_from_it(leads) || leads.iter().filter(at).any(|(_, lead)| its(lead))
            })
            .map(|(other, _)| *other)
    }

    /// The table of one peer for people. Expired leads are not in it.
    pub fn rows(&self, peer: &PeerKey, now: Time) -> Vec<Row> {
        let row = |(addr, lead): (&String, &Lead)| Row {
            addr: addr.clone(),
            source: lead.source,
            proved: lead.proved.is_some() && lead.failed.is_none(),
            age_ms: now.since(lead.proved.unwrap_or(lead.last_seen)).as_millis() as u64,
            nat_of: self.nat_of(peer, addr),
            failed: lead.failed.as_ref().map(|(_, reason)| reason.clone()),
            observer: lead.observer,
            first_ms: now.since(lead.first_seen).as_millis() as u64,
            proved_ms: lead.proved.map(|at| now.since(at).as_millis() as u64),
            failed_ms: lead.failed.as_ref().map(|(at, _)| now.since(*at).as_millis() as u64),
            expires_ms: (lead.source != Source::Configured)
                .then(|| (lead.fresh() + LEAD_LIFE).since(now).as_millis() as u64),
        };
        self.peers.get(peer).into_iter().flatten().filter(|(_, lead)| lead.lives(now)).map(row).collect()
    }

    /// The routers that a peer is behind, when no proved address of its own leads past them.
    pub fn only_behind(&self, peer: &PeerKey, now: Time) -> BTreeSet<PeerKey> {
        let living = || self.peers.get(peer).into_iter().flatten().filter(|(_, lead)| lead.lives(now));
        let mut proved = living().filter(|(_, lead)| lead.proved.is_some() && lead.failed.is_none());
        if proved.any(|(addr, _)| self.nat_of(peer, addr).is_none()) {
            return BTreeSet::new();
        }
        living().filter_map(|(addr, _)| self.nat_of(peer, addr)).filter(|router| router != peer).collect()
    }

    /// Drops what has expired.
    pub fn expire(&mut self, now: Time) {
        for leads in self.peers.values_mut() {
            leads.retain(|_, lead| lead.lives(now));
        }
    }

    /// Another peer answered on this very address (port included), or its IP is a masquerade. An address that changed
    /// hands is not: the peer has claimed it since, and who had it before does so no more. Where the peer was invited or has
    /// been met, in this life of the host or an earlier one, it is tried again once whoever was met there since has been
    /// dialled in vain.
    fn is_anothers(&self, peer: &PeerKey, addr: &str) -> bool {
        let own = self.peers.get(peer).and_then(|leads| leads.get(addr));
        let claimed = own.filter(|own| own.claimed).map(|own| own.last_seen);
        let told = own.is_some_and(|own| own.source == Source::Invitation || own.was_its);
        let holds = |lead: &Lead| lead.proved.is_some() && !(told && lead.failed.is_some());
        let same = |(other, leads): (&PeerKey, &BTreeMap<String, Lead>)| {
            other != peer
                && leads.get(addr).is_some_and(|lead| {
                    let changed_hands = !lead.claimed && claimed > lead.proved;
                    (holds(lead) && !changed_hands) || (*other == self.me && lead.source == Source::Interface)
                })
        };
        self.peers.iter().any(same) || self.whose(peer, addr, holds).is_some()
    }

    fn note(&mut self, peer: PeerKey, addr: &str, source: Source, observer: Option<PeerKey>, now: Time) {
        let leads = self.peers.entry(peer).or_default();
        if let Some(lead) = leads.get_mut(addr) {
            if source == Source::Mdns && lead.source != source {
                return; // a stranger's word refreshes nobody's
            }
            lead.last_seen = now;
            lead.claimed |= source == Source::Gossip;
            if source < lead.source {
                lead.source = source;
                lead.observer = observer;
            }
            return;
        }
        let class = |source: Source| match source {
            Source::Observed => OBSERVED_MAX,
            Source::Mdns => MDNS_MAX,
            _ => LEADS_MAX,
        };
        let alike = |lead: &Lead| match (lead.source, source) {
            (Source::Observed | Source::Mdns, _) | (_, Source::Observed | Source::Mdns) => lead.source == source,
            _ => true,
        };
        let max = if mutants::on(Mutant::LeadsNeverExpire) { usize::MAX } else { class(source) };
        if leads.values().filter(|lead| alike(lead)).count() >= max {
            // The least promising goes: configured and proved ones stay, then the freshest.
            let worst = leads
                .iter()
                .filter(|(_, lead)| alike(lead) && lead.source != Source::Configured)
                .filter(|(_, lead)| source != Source::Mdns || lead.proved.is_none())
                .min_by_key(|(addr, lead)| (lead.proved, lead.last_seen, (*addr).clone()))
                .map(|(addr, _)| addr.clone());
            match worst {
                Some(worst) => leads.remove(&worst),
                None => return,
            };
        }
        let lead = Lead {
            source,
            observer,
            first_seen: now,
            last_seen: now,
            proved: None,
            failed: None,
            failures: 0,
            kept: false,
            was_its: false,
            claimed: matches!(source, Source::Invitation | Source::Gossip),
        };
        leads.insert(addr.to_owned(), lead);
    }
}

/// Where somebody may listen, but nowhere that another host could go.
fn leads_nowhere(ip: IpAddr) -> bool {
    let zoned = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()); // needs a zone that is ours alone
    ip.is_unspecified() || ip.is_multicast() || zoned
}

/// The IP of a multiaddr that begins with one, or of a bare IP.
fn ip_of(addr: &str) -> Option<IpAddr> {
    let ip = match addr.strip_prefix("/ip4/").or_else(|| addr.strip_prefix("/ip6/")) {
        Some(rest) if !addr.contains("/p2p-circuit") => rest.split('/').next()?,
        Some(_) => return None, // the relay's, not the peer's
        None => addr,
    };
    ip.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
#[path = "addresses_tests.rs"]
mod tests;

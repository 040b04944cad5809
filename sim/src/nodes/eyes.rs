//! What truly happened in a step, told to the jury: seen from outside of the hosts, never by their word alone.
//!
//! A host in whose program nothing was polled since the last look has done nothing, and is not looked at.

use super::acts::Told;
use super::stage::NodesStage;
use crate::invariants::{Fact, HostSeen, Jury, Name, Size, Truth, Violation};
use crate::stage::{Failure, Stage};
use mesh::build::BlobId;
use mesh::identity::PeerKey;
use mesh::lease::Fence;
use mesh::ledger::Ledger;
use mesh::membership::State;
use mesh::warrant::{Order, OrderHash, OrderId};
use node::blobs::memory::MemoryBlobs;
use node::driver::{Deed, Inner, Word};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// For so long a host has to be without any fault to be called fit: connections are dialled anew within 5 s of
/// their loss, and one that went silent is closed after 15 s.
const FIT_AFTER: Duration = Duration::from_secs(20);

/// Of a hundred packets so many may be lost before a host counts as unfit.
const LOSS_FIT: u32 = 1;
/// How often hosts are looked over for faults, beside after each action.
const FIT_EVERY_MS: u128 = 50;
/// How often tables are measured: they grow slowly.
const SIZES_EVERY_MS: u128 = 100;

/// Words of a host that somebody keeps, to say them again.
const KEPT_MAX: usize = 64;

/// What was seen of a host the last time.
#[derive(Default)]
struct Seen {
    polls: u64,
    /// Key and start number of the node that ran.
    ran: Option<(PeerKey, u64)>,
    beliefs: BTreeMap<PeerKey, State>,
    connections: BTreeSet<PeerKey>,
    opened: u64,
    deeds: u64,
    words: u64,
    well: bool,
    cut_off: Vec<Name>,
    fit: bool,
    well_since: Option<Duration>,
}

/// All that was seen so far.
#[derive(Default)]
pub struct Eyes {
    seen: BTreeMap<String, Seen>,
    names: BTreeMap<String, Name>,
    markers: usize,
    /// Something was done to the fleet since the last look.
    pub(super) acted: bool,
    /// What each host has sent, the newest at the end: kept by nobody in particular.
    pub(super) said: BTreeMap<String, VecDeque<Word>>,
    /// Orders that were carried out, since this was asked last.
    pub(super) carried: u64,
    /// Every order that has stood in a ledger, with its name in signatures and who signed it.
    pub(super) orders: BTreeMap<OrderId, (OrderHash, Order, PeerKey)>,
    /// What was done from outside and is told with the next look.
    pub(super) untold: Vec<Fact>,
    truth: World,
}

/// What is true of the whole fleet.
#[derive(Default)]
struct World {
    index: u64,
    members: BTreeSet<PeerKey>,
    blobs: Vec<(PeerKey, MemoryBlobs)>,
    leases: Vec<(Name, Fence)>,
}

impl Truth for World {
    fn holds(&self, host: &PeerKey, blob: BlobId) -> Option<bool> {
        let mut stores = self.blobs.iter().filter(|(key, _)| key == host).peekable();
        stores.peek()?;
        Some(stores.any(|(_, store)| store.holds(blob)))
    }

    fn is_member(&self, key: &PeerKey) -> bool {
        self.members.contains(key)
    }

    fn leases(&self) -> Vec<(Name, Fence)> {
        self.leases.clone()
    }
}

impl Eyes {
    pub(super) fn name(&mut self, name: &str) -> Name {
        self.names.entry(name.to_owned()).or_insert_with(|| name.into()).clone()
    }
}

fn failed(violation: Violation) -> Failure {
    Failure::Safety(violation)
}

impl NodesStage {
    /// Tells the jury what happened since the last look.
    pub(super) fn look(&mut self, jury: &mut Jury) -> Result<(), Failure> {
        let at = self.elapsed();
        for fact in std::mem::take(&mut self.eyes.untold) {
            self.tell(jury, at, &fact)?;
        }
        for (request, builds) in self.answered() {
            let fact = Fact::Accepted { request, builds };
            self.tell(jury, at, &fact)?;
        }
        let names: Vec<String> = self.nodes.stations.keys().cloned().collect();
        let mut active = vec![];
        for name in &names {
            // What an intruder believes among its own is nobody's affair.
            if let Some(node) = self.look_at_process(name, jury, at)?.filter(|_| !self.intrudes(name)) {
                active.push((name, node));
            }
        }
        for (name, node) in &active {
            self.note_voters(name, node.raft_voters());
            self.read_orders(node);
        }
        self.look_at_truth(&active);
        self.look_at_leases();
        self.look_at_builds(jury, at)?;
        for (name, node) in &active {
            self.look_at_deeds(name, node, jury, at)?;
            self.listen(name, node);
            self.look_at_views(name, node, jury, at)?;
        }
        if std::mem::take(&mut self.eyes.acted) || at.as_millis().is_multiple_of(FIT_EVERY_MS) {
            self.look_at_fitness(&names, jury, at)?;
        }
        for (name, node) in active {
            self.show(name, &node, jury, at)?;
        }
        jury.step(at).map_err(failed)
    }

    pub(super) fn tell(&self, jury: &mut Jury, at: Duration, fact: &Fact) -> Result<(), Failure> {
        jury.fact(at, fact, &self.eyes.truth).map_err(failed)
    }

    /// Whether a process came or went. Gives the node if something happened in it.
    fn look_at_process(&mut self, name: &str, jury: &mut Jury, at: Duration) -> Result<Option<Arc<Inner>>, Failure> {
        let Some(station) = self.nodes.stations.get(name) else { return Ok(None) };
        let (node, polls) = (station.node(), station.host.current().polls());
        let host = self.eyes.name(name);
        let seen = self.eyes.seen.entry(name.to_owned()).or_default();
        let runs = node.as_ref().map(|node| (node.key(), node.start_number()));
        let before = std::mem::replace(&mut seen.ran, runs);
        let quiet = std::mem::replace(&mut seen.polls, polls) == polls;
        if before != runs {
            seen.beliefs.clear();
            seen.connections.clear();
            seen.opened = 0;
            seen.deeds = 0;
            seen.words = 0;
            if before.is_some() {
                // With a process its health ends; the jury knows that.
                (seen.well, seen.fit, seen.well_since) = (false, false, None);
                self.tell(jury, at, &Fact::Stopped { host: host.clone() })?;
            }
            if let Some((key, start)) = runs {
                self.tell(jury, at, &Fact::Started { host, key, start })?;
            }
        }
        Ok(node.filter(|_| !quiet || before != runs))
    }

    /// The roster of the longest ledger, and whose blobs are where.
    fn look_at_truth(&mut self, active: &[(&String, Arc<Inner>)]) {
        let longest = active.iter().map(|(_, node)| (node.ledger(Ledger::index), node)).max_by_key(|(index, _)| *index);
        let (stations, truth) = (&self.nodes.stations, &mut self.eyes.truth);
        if truth.blobs.len() != stations.len() || longest.as_ref().is_some_and(|(index, _)| *index > truth.index) {
            truth.blobs = stations.values().map(|s| (s.desk.key.get(), s.blobs.clone())).collect();
        }
        if let Some((index, node)) = longest
            && index > truth.index
        {
            truth.index = index;
            let members: BTreeSet<PeerKey> = node.ledger(|l| l.roster().members().map(|(key, _)| *key).collect());
            let gone: BTreeSet<PeerKey> = truth.members.difference(&members).copied().collect();
            truth.members = members;
            if !gone.is_empty() {
                let is_gone = |name: &String| stations.get(name).is_some_and(|s| gone.contains(&s.desk.key.get()));
                self.members.retain(|name| !is_gone(name));
            }
        }
    }

    /// Something happened to the network that every host may feel for a moment.
    pub(super) fn disturb_all(&mut self) {
        let names: Vec<Name> = self.eyes.seen.keys().map(|name| Name::from(name.as_str())).collect();
        for (name, seen) in &mut self.eyes.seen {
            seen.well_since = None;
            // Connections may be dead that nobody closed: no link worked for a moment. What is so now is told next.
            seen.cut_off = names.iter().filter(|other| ***other != **name).cloned().collect();
            let host = Name::from(name.as_str());
            self.eyes.untold.push(Fact::CutOff { host, from: seen.cut_off.clone() });
        }
    }

    fn look_at_builds(&mut self, jury: &mut Jury, at: Duration) -> Result<(), Failure> {
        let new = self.nodes.markers.since(self.eyes.markers);
        self.eyes.markers += new.len();
        for marker in new {
            let Some(key) = self.key(&marker.host) else { continue };
            let host = self.eyes.name(&marker.host);
            let fact = Fact::Began { host, key, build: marker.build, attempt: marker.attempt, fence: None };
            self.tell(jury, at, &fact)?;
        }
        Ok(())
    }

    /// Every lease that is held, each by its holder's own clock.
    fn look_at_leases(&mut self) {
        let mut leases = vec![];
        for (name, station) in self.nodes.stations.iter().filter(|(_, station)| !station.intrudes()) {
            let Some(node) = station.node() else { continue };
            if let Some(fence) = station.host.current().enter(|| node.lease_now()) {
                leases.push((self.eyes.name(name), fence));
            }
        }
        self.eyes.truth.leases = leases;
    }

    pub(super) fn look_at_deeds(
        &mut self,
        name: &str,
        node: &Arc<Inner>,
        jury: &mut Jury,
        at: Duration,
    ) -> Result<(), Failure> {
        let Some(seen) = self.eyes.seen.get_mut(name) else { return Ok(()) };
        let key = node.key();
        let (count, new) = node.deeds_since(seen.deeds);
        seen.deeds = count;
        for deed in new {
            let fact = match deed {
                Deed::Proposed { fence, build, attempt, to } => Fact::Proposed { key, fence, build, attempt, to },
                Deed::Acts { order, target, act, fence, known } => {
                    let told = Told { order, target, act, fence, known };
                    self.eyes.carried += 1;
                    Fact::Carried(Box::new(self.deed(name, node, &told)))
                }
                Deed::Ended { build, attempt } => Fact::Ended { key, build, attempt },
            };
            self.tell(jury, at, &fact)?;
        }
        Ok(())
    }

    /// Keeps what a host has sent since the last look.
    fn listen(&mut self, name: &str, node: &Inner) {
        let Some(seen) = self.eyes.seen.get_mut(name) else { return };
        let (count, new) = node.words_since(seen.words);
        seen.words = count;
        if !new.is_empty() {
            let said = self.eyes.said.entry(name.to_owned()).or_default();
            said.extend(new);
            said.drain(..said.len().saturating_sub(KEPT_MAX));
        }
    }

    fn look_at_views(&mut self, name: &str, node: &Arc<Inner>, jury: &mut Jury, at: Duration) -> Result<(), Failure> {
        let host = self.eyes.name(name);
        let Some(seen) = self.eyes.seen.get_mut(name) else { return Ok(()) };
        let mut facts = vec![];
        for (of, state) in node.beliefs() {
            if seen.beliefs.insert(of, state) != Some(state) {
                facts.push(Fact::Believes { host: host.clone(), of, state });
            }
        }
        let connections: BTreeSet<PeerKey> = node.connections().into_iter().collect();
        let opened = node.opened();
        let streams = (opened.count - seen.opened.min(opened.count)) as usize;
        let mut spoken: BTreeSet<PeerKey> = connections.difference(&seen.connections).copied().collect();
        spoken.extend(opened.latest.iter().rev().take(streams));
        (seen.connections, seen.opened) = (connections, opened.count);
        facts.extend(spoken.into_iter().map(|with| Fact::Spoke { host: host.clone(), with }));
        facts.iter().try_for_each(|fact| self.tell(jury, at, fact))
    }

    fn look_at_fitness(&mut self, names: &[String], jury: &mut Jury, at: Duration) -> Result<(), Failure> {
        for name in names {
            let (well, host) = (self.is_well(name), self.eyes.name(name));
            let cut_off: Vec<Name> = self.cut_off(name).iter().map(|other| self.eyes.name(other)).collect();
            let harmed = !well || !cut_off.is_empty() || self.nodes.network.loss_percent() > LOSS_FIT;
            let Some(seen) = self.eyes.seen.get_mut(name) else { continue };
            let mut facts = vec![];
            if seen.cut_off != cut_off {
                seen.cut_off.clone_from(&cut_off);
                facts.push(Fact::CutOff { host: host.clone(), from: cut_off });
            }
            if std::mem::replace(&mut seen.well, well) != well {
                facts.push(Fact::Well { host: host.clone(), well });
            }
            let since = match harmed {
                false => *seen.well_since.get_or_insert(at),
                true => {
                    seen.well_since = None;
                    at
                }
            };
            let fit = !harmed && at - since >= FIT_AFTER;
            if std::mem::replace(&mut seen.fit, fit) != fit {
                facts.push(Fact::Fit { host, fit });
            }
            facts.iter().try_for_each(|fact| self.tell(jury, at, fact))?;
        }
        Ok(())
    }

    fn show(&mut self, name: &str, node: &Arc<Inner>, jury: &mut Jury, at: Duration) -> Result<(), Failure> {
        let host = self.eyes.name(name);
        let Some(station) = self.nodes.stations.get(name) else { return Ok(()) };
        let lease = station.host.current().enter(|| node.lease_now());
        let presences = node.presences();
        let sizes = if at.as_millis().is_multiple_of(SIZES_EVERY_MS) { node.sizes() } else { vec![] };
        let sizes: Vec<Size> = sizes.into_iter().map(|(what, value, bound)| Size { what, value, bound }).collect();
        let (key, start) = (node.key(), node.start_number());
        let truth = &self.eyes.truth;
        let judged = node.ledger(|ledger| {
            let seen = HostSeen { name: &host, key, start, ledger, lease, presences: &presences, sizes: &sizes };
            jury.look(at, &seen, truth)
        });
        judged.map_err(failed)
    }
}

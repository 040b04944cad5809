//! Tier 1: the cores of `mesh` in a bare event loop, without libp2p and without tokio.
//!
//! Real are membership, addresses, roster, ledger, placement, lease and ledger time, all signatures, and the driver's
//! logic around them ([`host`] and its parts). Modelled are the network ([`net`], from a fleet's
//! oracle), disks ([`disk`]), Raft ([`raft`]) and the builds, which take time and leave names of blobs. A statement of
//! gossip is verified once for all hosts that get it ([`message::Said`]); entries of the ledger by each host.
//!
//! One thread, one queue of events, one source of randomness: a plan and its seed give the same hash wherever it is
//! played ([`record`]). [`Cores`] is the [`crate::stage::Stage`] of a plan; large meshes without a ledger are in
//! [`crate::figures`].

mod admit;
mod blobs;
pub mod disk;
mod events;
mod execute;
mod faults;
mod heal;
pub mod host;
pub mod kit;
mod lead;
mod lies;
pub mod message;
pub mod net;
mod orders;
mod owners;
pub mod raft;
pub mod record;
mod stage;
mod submit;
mod target;
mod watch;

pub(crate) use heal::policy as quick_policy;
pub use stage::{Cores, run_cores, run_cores_at};

use crate::invariants::Fact;
use events::DIAL_TIMEOUT;
use host::Machine;
use kit::{Dice, Queue};
use mesh::build::{BlobId, BuildId};
use mesh::identity::PeerKey;
use mesh::membership::Checked;
use mesh::wire::Signed;
use message::{Dial, Event, Knock, Message, NoWay, Said, ms};
use net::Net;
use record::Record;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// What was sent and is kept, of each host, to be sent again late.
const KEPT_MAX: usize = 64;
/// A sync of a healthy disk.
const SYNC: u64 = 300;

/// What came of the orders of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Orders that stood in the ledger and were brought.
    pub brought: u64,
    /// Deeds.
    pub acts: u64,
    /// Orders that came again, and were answered with their receipt.
    pub again: u64,
    /// Warrants that targets refused, by the name of the refusal.
    pub refused: BTreeMap<String, u64>,
    /// Signatures that voters withheld, by their reason.
    pub withheld: BTreeMap<String, u64>,
}

/// The simulation, but for its hosts: what a process may act upon.
pub struct Cx {
    /// True time, in microseconds.
    pub now: u64,
    /// What is to come.
    pub queue: Queue<Event>,
    /// All randomness.
    pub dice: Dice,
    /// The network.
    pub net: Net,
    /// The running hash.
    pub record: Record,
    facts: Vec<(Duration, Fact)>,
    active: BTreeSet<usize>,
    said: BTreeMap<u64, Rc<Said>>,
    manifests: BTreeMap<BlobId, BlobId>,
    accepted: BTreeMap<u64, Vec<BuildId>>,
    doors: BTreeMap<u64, Knock>,
    numbers: u64,
    kept: BTreeMap<usize, VecDeque<Rc<Said>>>,
    reports: BTreeMap<usize, VecDeque<Signed>>,
    /// What came of orders.
    pub orders: Orders,
    kept_orders: VecDeque<(PeerKey, Vec<Vec<u8>>)>,
    /// Warrants that are brought again, by the number of their hearing.
    replays: BTreeMap<u64, (usize, Vec<Vec<u8>>)>,
    keys: BTreeMap<PeerKey, usize>,
    dirty: bool,
}

impl Cx {
    fn new(net: Net, seed: u64, record: Record) -> Cx {
        Cx {
            now: 0,
            queue: Queue::default(),
            dice: Dice::new(seed),
            net,
            record,
            facts: vec![],
            active: BTreeSet::new(),
            said: BTreeMap::new(),
            manifests: BTreeMap::new(),
            accepted: BTreeMap::new(),
            doors: BTreeMap::new(),
            numbers: 0,
            kept: BTreeMap::new(),
            reports: BTreeMap::new(),
            orders: Orders::default(),
            kept_orders: VecDeque::new(),
            replays: BTreeMap::new(),
            keys: BTreeMap::new(),
            dirty: true,
        }
    }

    /// Something truly happened.
    pub fn fact(&mut self, fact: Fact) {
        let text = format!("{fact:?}");
        self.record.note(self.now, 0, 1, message::hash(text.as_bytes()), || text.clone());
        self.facts.push((Duration::from_micros(self.now), fact));
    }

    /// Wakes a process at a time.
    pub fn wake(&mut self, host: usize, generation: u64, at: u64) {
        self.queue.push(at, Event::Wake(host, generation));
    }

    /// Sends on a connection, from one of its ends.
    pub fn send(&mut self, id: u64, end: usize, message: Message) {
        if let Some((at, message)) = self.net.send(id, end, message, self.now, &mut self.dice) {
            self.queue.push(at, Event::Arrive(id, end == 0, message));
        }
    }

    /// Sends what waited for links that are mended now.
    pub fn release(&mut self) {
        for (id, to_answerer, at, message) in self.net.release(self.now, &mut self.dice) {
            self.queue.push(at, Event::Arrive(id, to_answerer, message));
        }
    }

    /// One end closes a connection; the other is told when the network carries it.
    pub fn close(&mut self, id: u64, end: usize) {
        let Some(connection) = self.net.connections.get_mut(&id) else { return };
        connection.ends[end].open = false;
        self.dirty = true;
        self.tell_gone(id, 1 - end);
    }

    /// An end of a connection is told that it is gone, when the network carries that.
    fn tell_gone(&mut self, id: u64, end: usize) {
        let Some(connection) = self.net.connections.get(&id) else { return };
        let (from, to) = (connection.ends[1 - end].host.0, connection.ends[end].host.0);
        if !connection.forgotten && connection.ends[end].open && self.net.carries(from, to, &connection.way) {
            let delay = self.net.delay(connection.way.latency, &mut self.dice);
            self.queue.push(self.now + delay, Event::Gone(id, end == 1));
        }
    }

    /// Dials a peer at some addresses at once; the first that is answered by it wins.
    pub fn dial(&mut self, from: (usize, u64), peer: PeerKey, addresses: Vec<String>) {
        for address in addresses {
            let way = self.net.way(from.0, &address);
            let (at, fails) = match &way {
                None => (self.now + ms(5), Some(NoWay::Timeout)),
                // What is lost is sent again, but nobody waits for that longer than for anything else.
                Some(way) => match 4 * self.net.delay(way.latency, &mut self.dice) {
                    long if long > DIAL_TIMEOUT => (self.now + DIAL_TIMEOUT, Some(NoWay::Timeout)),
                    delay => (self.now + delay, None),
                },
            };
            self.queue.push(at, Event::Dialled(Box::new(Dial { from, peer, address, fails, way })));
        }
    }

    /// A statement, verified once for all hosts.
    pub fn said(&mut self, bytes: Vec<u8>) -> Rc<Said> {
        let id = message::hash(&bytes);
        let make = || {
            let checked = Checked::open(&bytes).ok();
            Rc::new(Said { id, checked, bytes: bytes.clone() })
        };
        self.said.entry(id).or_insert_with(make).clone()
    }

    fn keep(&mut self, host: usize, said: &Rc<Said>) {
        let kept = self.kept.entry(host).or_default();
        kept.push_back(said.clone());
        if kept.len() > KEPT_MAX {
            kept.pop_front();
        }
    }

    fn keep_report(&mut self, host: usize, entry: &Signed) {
        let kept = self.reports.entry(host).or_default();
        kept.push_back(entry.clone());
        if kept.len() > KEPT_MAX {
            kept.pop_front();
        }
    }

    fn keep_order(&mut self, target: PeerKey, frames: &[Vec<u8>]) {
        self.kept_orders.push_back((target, frames.to_vec()));
        if self.kept_orders.len() > KEPT_MAX {
            self.kept_orders.pop_front();
        }
    }

    /// Where a host finds a member by its owner's configuration: at what routers forward to it; and, where the member
    /// could never dial this host, at its own addresses.
    fn configured(&self, host: usize, peer: &PeerKey) -> Vec<String> {
        let Some(other) = self.keys.get(peer).copied().filter(|other| *other != host) else { return vec![] };
        let mut addresses = self.net.forwards_to(other);
        if self.way_between(other, host).is_none() {
            addresses.extend(self.net.addresses_of(other));
        }
        addresses
    }

    /// The manifest of one file.
    fn manifest(&mut self, file: BlobId) -> BlobId {
        let manifest = BlobId::of(&file.0);
        self.manifests.insert(manifest, file);
        manifest
    }

    /// A manifest and what it lists.
    fn whole(&self, manifest: BlobId) -> Vec<BlobId> {
        [manifest].into_iter().chain(self.manifests.get(&manifest).copied()).collect()
    }

    fn accepted(&mut self, request: u64, builds: &[BuildId]) {
        self.accepted.insert(request, builds.to_vec());
    }

    fn door(&mut self, knock: Knock) -> u64 {
        self.numbers += 1;
        self.doors.insert(self.numbers, knock);
        self.numbers
    }

    fn take_door(&mut self, number: u64) -> Option<Knock> {
        self.doors.remove(&number)
    }

    fn answer_door(&mut self, member: usize, knock: Knock) {
        if let Some(way) = self.door_way(knock.from.0, member)
            && self.net.carries(member, knock.from.0, &way)
        {
            let delay = self.net.delay(way.latency, &mut self.dice);
            self.queue.push(self.now + delay, Event::Knock(Box::new(knock)));
        }
    }

    /// How a joiner's request gets to a member: where only the member could dial, its owner carries it.
    fn door_way(&self, joiner: usize, member: usize) -> Option<net::Way> {
        self.way_between(joiner, member).or_else(|| self.way_between(member, joiner))
    }

    fn way_between(&self, from: usize, to: usize) -> Option<net::Way> {
        let all = self.net.addresses_of(to).into_iter().chain(self.net.forwards_to(to));
        all.into_iter().find_map(|address| self.net.way(from, &address))
    }

    /// Has a disk sync what it has not, when none is under way.
    fn sync(&mut self, m: &mut Machine) {
        if m.syncing || m.disk.written() <= m.disk.asked {
            return;
        }
        m.syncing = true;
        m.disk.asked = m.disk.written();
        let at = self.now + SYNC + self.dice.below(SYNC) + ms(m.disk.slow_ms);
        self.queue.push(at, Event::Synced(m.number, m.generation, m.disk.written()));
    }
}

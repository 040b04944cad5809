//! A large mesh of membership cores alone: probes, accusations and gossip, no ledger, no builds.
//!
//! It starts converged: every core knows every presence. The table of members, the presences and every verified
//! statement are shared between all cores of the process (one copy, one verification, where a mesh of machines has one each),
//! or 10,000 hosts would be a hundred million presences; what each host believes is its own. Gossip floods over
//! a graph in which each host has some eight neighbours. Messages travel in order on a stream for each pair, and
//! wait for their retransmissions under loss. Counting is all that is done here; see [`super::Figures`].

use crate::cores::kit::{Dice, Queue};
use crate::det::derive;
use mesh::identity::{Keys, PeerKey};
use mesh::membership::{
    Accusation, Checked, Config, Input, Members, Membership, Output, Own, PresenceFacts, Record, State, Statement,
};
use mesh::time::Time;
use mesh::wire::decode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// Neighbours that a host seeks for gossip; with those that sought it, about twice as many.
const SEEKS: usize = 4;
/// Bytes that go with each packet: Ethernet, IP and TCP with time stamps (66), Noise and Yamux (30).
pub const PACKET_BYTES: u64 = 96;
/// Bytes that fit into one.
pub const PAYLOAD_MAX: u64 = 1_350;
/// A retransmission comes after this, then after twice as long.
const RTO: u64 = 200_000;
/// One way, in microseconds: from a site's wire to a far site.
const LATENCY: (u64, u64) = (250, 20_000);

/// How a host ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Death {
    /// Its process dies, and the kernel closes its connections.
    Crash,
    /// Its power goes, and nobody is told.
    PowerOff,
}

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// A watcher asks.
    Probe,
    /// The subject answers.
    Reply,
    /// Part of a comparison.
    Digest,
    /// Gossip: a host of itself.
    Presence,
    /// Gossip: a watcher of its subject.
    Accusation,
    /// Gossip: an accused host, or whoever heard it.
    Alive,
    /// Gossip: a host that goes.
    Farewell,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 7] =
        [Kind::Probe, Kind::Reply, Kind::Digest, Kind::Presence, Kind::Accusation, Kind::Alive, Kind::Farewell];

    fn of(message: &Message) -> Kind {
        match message {
            Message::Probe(_) => Kind::Probe,
            Message::Reply(_) => Kind::Reply,
            Message::Digest(_) => Kind::Digest,
            Message::Gossip(said) => said.kind,
            Message::Connected | Message::Disconnected => Kind::Farewell, // never sent as bytes
        }
    }

    fn of_statement(statement: &Statement) -> Kind {
        match statement {
            Statement::Presence(_) => Kind::Presence,
            Statement::Alive(_) => Kind::Alive,
            Statement::Accusation(_) => Kind::Accusation,
            Statement::Farewell(_) => Kind::Farewell,
        }
    }
}

struct Said {
    checked: Arc<Checked>,
    kind: Kind,
    bytes: u64,
    /// When each host hears it first, by what is under way; 0 for who says it. What comes later is counted, but kept
    /// nowhere: it would do nothing.
    due: std::cell::RefCell<Vec<u64>>,
}

enum Message {
    Probe(Vec<u8>),
    Reply(Vec<u8>),
    Digest(Vec<u8>),
    Gossip(Rc<Said>),
    Connected,
    Disconnected,
}

enum Event {
    Wake(u32),
    /// It tells of itself.
    Announce(u32),
    Arrive(u32, u32, Message),
}

/// What was counted.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Bytes of messages sent, with what was sent again.
    pub payload: u64,
    /// The same with what each packet costs.
    pub wire: u64,
    /// Messages of each kind, and their payload.
    pub kinds: BTreeMap<Kind, (u64, u64)>,
    /// Accusations published of hosts that lived.
    pub false_accusations: u64,
    /// How often a host held one that lived to be down.
    pub false_downs: u64,
    /// For each death, when each host that lived learned of it (for the last time), in microseconds after it.
    pub detected: BTreeMap<(Death, u32), BTreeMap<u32, u64>>,
}

/// The mesh.
pub struct Crowd {
    now: u64,
    queue: Queue<Event>,
    dice: Dice,
    keys: Vec<PeerKey>,
    numbers: BTreeMap<PeerKey, u32>,
    cores: Vec<Option<Membership>>,
    armed: Vec<u64>,
    near: Vec<Vec<u32>>,
    streams: BTreeMap<(u32, u32), u64>,
    said: BTreeMap<u64, Rc<Said>>,
    died: BTreeMap<u32, (Death, u64)>,
    loss: u32,
    /// In a mesh that began with nobody known: whom each host has held to be alive, a bit each, and how many in all.
    met: Option<(Vec<Vec<u64>>, u64)>,
    /// What was counted so far.
    pub counts: Counts,
}

impl Crowd {
    /// A mesh of so many hosts, all of whom know each other.
    pub fn new(hosts: usize, loss: u32, seed: u64) -> Crowd {
        Crowd::begin(hosts, loss, seed, false)
    }

    /// The same, but nobody has heard of anybody: all start within a second.
    pub fn cold(hosts: usize, loss: u32, seed: u64) -> Crowd {
        let mut crowd = Crowd::begin(hosts, loss, seed, true);
        for host in 0..hosts as u32 {
            let at = crowd.dice.below(1_000_000);
            crowd.queue.push(at, Event::Announce(host));
        }
        crowd
    }

    fn begin(hosts: usize, loss: u32, seed: u64, cold: bool) -> Crowd {
        let mut dice = Dice::new(seed);
        let made = (0..hosts as u64).map(|n| Keys::from_seed(derive(seed, "crowd", n)));
        let mut made: Vec<Keys> = made.collect();
        made.sort_by_key(Keys::key);
        let keys: Vec<PeerKey> = made.iter().map(Keys::key).collect();
        let members = Members::new(keys.iter().copied(), 0);
        let (mut cores, mut records) = (vec![], vec![]);
        for (n, own_keys) in made.into_iter().enumerate() {
            let own = Own {
                keys: own_keys,
                mesh: [7; 32],
                start: 1,
                store: [3; 16],
                machine_id: derive(seed, "machine", n as u64),
                boot_id: [1; 16],
                nonce: dice.draw(),
            };
            let mut core = Membership::new(own, dice.draw(), Config::default(), Time::default());
            core.set_members(&members, Time::default());
            let addresses = vec![format!("/ip4/10.{}.{}.{}/tcp/7400", n >> 16, n >> 8 & 255, n & 255)];
            let facts = PresenceFacts { name: format!("h{n}"), addresses, cores: 8, ..PresenceFacts::default() };
            core.set_facts(facts, Time::default());
            while let Some(output) = core.poll() {
                if let Output::Publish(bytes) = output
                    && let Ok(Statement::Presence(signed)) = decode::<Statement>(&bytes, 8 << 10)
                    && let Ok(record) = Record::open(&signed)
                {
                    records.push(record);
                }
            }
            cores.push(Some(core));
        }
        for core in cores.iter_mut().flatten().filter(|_| !cold) {
            core.learn(&records, Time::default());
            while core.poll().is_some() {}
        }
        let numbers = keys.iter().enumerate().map(|(n, key)| (*key, n as u32)).collect();
        let mut crowd = Crowd {
            now: 0,
            queue: Queue::default(),
            dice,
            keys,
            numbers,
            armed: vec![u64::MAX; hosts],
            cores,
            near: vec![vec![]; hosts],
            streams: BTreeMap::new(),
            said: BTreeMap::new(),
            died: BTreeMap::new(),
            loss,
            met: cold.then(|| (vec![vec![0; hosts.div_ceil(64)]; hosts], 0)),
            counts: Counts::default(),
        };
        crowd.meet();
        crowd
    }

    /// Connections for gossip, and between watchers and those they watch.
    fn meet(&mut self) {
        let hosts = self.keys.len() as u32;
        for host in 0..hosts {
            let seeks = SEEKS.min(hosts as usize - 1);
            for _ in 0..seeks {
                let other = self.dice.below(u64::from(hosts)) as u32;
                if other != host && !self.near[host as usize].contains(&other) {
                    self.near[host as usize].push(other);
                    self.near[other as usize].push(host);
                }
            }
        }
        if hosts as usize <= 2 * SEEKS + 1 {
            self.near = (0..hosts).map(|host| (0..hosts).filter(|other| *other != host).collect()).collect();
        }
        for host in 0..hosts {
            let Some(core) = &self.cores[host as usize] else { continue };
            let watched: Vec<u32> = core.watches().filter_map(|key| self.numbers.get(key).copied()).collect();
            for other in watched {
                self.connect(host, other);
            }
            self.arm(host);
        }
    }

    fn connect(&mut self, one: u32, two: u32) {
        let at = self.now + self.dice.below(LATENCY.1);
        self.queue.push(at, Event::Arrive(two, one, Message::Connected));
        self.queue.push(at, Event::Arrive(one, two, Message::Connected));
    }

    fn time(&self) -> Time {
        Time::from_micros(self.now)
    }

    /// Lets the mesh live until then, in microseconds.
    pub fn run_until(&mut self, end: u64) {
        while let Some((at, event)) = self.queue.pop_by(end) {
            self.now = at;
            match event {
                Event::Wake(host) if self.armed[host as usize] == at => {
                    self.armed[host as usize] = u64::MAX;
                    let now = self.time();
                    if let Some(core) = &mut self.cores[host as usize] {
                        core.handle_timeout(now);
                    }
                    self.drain(host);
                }
                Event::Wake(_) => {} // it had something to do before
                Event::Announce(host) => {
                    let now = self.time();
                    if let Some(core) = &mut self.cores[host as usize] {
                        core.announce(now);
                    }
                    self.drain(host);
                }
                Event::Arrive(from, to, message) => self.arrive(from, to, message),
            }
        }
        self.now = end;
    }

    /// In a mesh that began with nobody known: runs until everybody has held everybody to be alive, and says when,
    /// in microseconds. `None` when that was not so by the end.
    pub fn run_until_met(&mut self, end: u64) -> Option<u64> {
        let all = (self.keys.len() * (self.keys.len() - 1)) as u64;
        loop {
            if self.met.as_ref().is_some_and(|(_, pairs)| *pairs == all) {
                return Some(self.now);
            }
            if self.now >= end {
                return None;
            }
            self.run_until(self.now + 10_000);
        }
    }

    fn meets(&mut self, host: u32, peer: PeerKey) {
        let (Some((met, pairs)), Some(other)) = (&mut self.met, self.numbers.get(&peer)) else { return };
        let (word, bit) = (*other as usize / 64, 1u64 << (other % 64));
        let seen = &mut met[host as usize][word];
        *pairs += u64::from(*seen & bit == 0);
        *seen |= bit;
    }

    fn arrive(&mut self, from: u32, to: u32, message: Message) {
        let (now, by) = (self.time(), self.keys[from as usize]);
        let Some(core) = &mut self.cores[to as usize] else { return };
        let input = match message {
            Message::Probe(bytes) => Input::Probe { from: by, bytes },
            Message::Reply(bytes) => Input::Reply { from: by, bytes },
            Message::Digest(bytes) => Input::Digest { from: by, bytes },
            Message::Connected => Input::Connected(by),
            Message::Disconnected => Input::Disconnected(by),
            Message::Gossip(said) => {
                if said.due.borrow()[to as usize] < self.now {
                    return; // one that was sent later has overtaken it
                }
                core.handle(Input::Checked(said.checked.clone()), now);
                self.spread(to, Some(from), &said);
                return self.drain(to);
            }
        };
        core.handle(input, now);
        self.drain(to);
    }

    fn drain(&mut self, host: u32) {
        while let Some(output) = self.cores[host as usize].as_mut().and_then(Membership::poll) {
            match output {
                Output::Probe { to, bytes } => self.send_to(host, to, bytes.len(), Message::Probe(bytes)),
                Output::Reply { to, bytes } => self.send_to(host, to, bytes.len(), Message::Reply(bytes)),
                Output::Digest { to, bytes } => self.send_to(host, to, bytes.len(), Message::Digest(bytes)),
                Output::Publish(bytes) => self.publish(host, &bytes),
                Output::Reach(peer) => {
                    // A dead host answers no dial: refused or timed out, its watcher learns nothing else.
                    if let Some(other) = self.numbers.get(&peer).copied().filter(|o| self.cores[*o as usize].is_some())
                    {
                        self.connect(host, other);
                    }
                }
                Output::Changed { peer, to: State::Alive, .. } => self.meets(host, peer),
                Output::Changed { peer, to: State::Down, .. } => {
                    self.down(host, peer);
                    let now = self.time(); // a connection to a host that is down is closed
                    if let Some(core) = &mut self.cores[host as usize] {
                        core.handle(Input::Disconnected(peer), now);
                    }
                }
                _ => {}
            }
        }
        self.arm(host);
    }

    fn down(&mut self, host: u32, peer: PeerKey) {
        let Some(number) = self.numbers.get(&peer) else { return };
        match self.died.get(number) {
            Some((death, at)) => {
                self.counts.detected.entry((*death, *number)).or_default().insert(host, self.now - at);
            }
            None => self.counts.false_downs += 1,
        }
    }

    fn publish(&mut self, host: u32, bytes: &[u8]) {
        let id = crate::cores::message::hash(bytes);
        let hosts = self.keys.len();
        let (Ok(checked), Ok(statement)) = (Checked::open(bytes), decode::<Statement>(bytes, 8 << 10)) else { return };
        let kind = Kind::of_statement(&statement);
        if let Statement::Accusation(signed) = statement
            && let Ok(accusation) = decode::<Accusation>(&signed.body, 8 << 10)
            && self.numbers.get(&accusation.subject).is_some_and(|number| !self.died.contains_key(number))
        {
            self.counts.false_accusations += 1;
        }
        let make = || Rc::new(Said { checked, kind, bytes: bytes.len() as u64, due: vec![u64::MAX; hosts].into() });
        let said = self.said.entry(id).or_insert_with(make).clone();
        said.due.borrow_mut()[host as usize] = 0;
        self.spread(host, None, &said);
    }

    fn spread(&mut self, host: u32, from: Option<u32>, said: &Rc<Said>) {
        for n in 0..self.near[host as usize].len() {
            let other = self.near[host as usize][n];
            if Some(other) != from {
                self.send(host, other, said.bytes, Message::Gossip(said.clone()));
            }
        }
    }

    fn send_to(&mut self, host: u32, to: PeerKey, len: usize, message: Message) {
        if let Some(to) = self.numbers.get(&to).copied() {
            self.send(host, to, len as u64, message);
        }
    }

    fn send(&mut self, from: u32, to: u32, len: u64, message: Message) {
        let mut delay = LATENCY.0 + self.dice.below(LATENCY.1 - LATENCY.0);
        let (mut pause, mut times) = (RTO, 1);
        while self.loss > 0 && self.dice.percent(self.loss) && times < 12 {
            delay += pause;
            pause *= 2;
            times += 1;
        }
        let kind = self.counts.kinds.entry(Kind::of(&message)).or_default();
        *kind = (kind.0 + times, kind.1 + len * times);
        self.counts.payload += len * times;
        self.counts.wire += (len + len.div_ceil(PAYLOAD_MAX).max(1) * PACKET_BYTES) * times;
        let last = self.streams.entry((from, to)).or_default();
        *last = (*last + 1).max(self.now + delay);
        let at = *last;
        let comes_first = match &message {
            Message::Gossip(said) => {
                let due = &mut said.due.borrow_mut()[to as usize];
                let first = at < *due;
                *due = at.min(*due);
                first
            }
            _ => true,
        };
        if comes_first && self.cores[to as usize].is_some() {
            self.queue.push(at, Event::Arrive(from, to, message));
        }
    }

    fn arm(&mut self, host: u32) {
        let Some((at, _)) = self.cores[host as usize].as_ref().and_then(Membership::poll_timeout) else { return };
        let at = at.as_micros().max(self.now + 1);
        if at < self.armed[host as usize] {
            self.armed[host as usize] = at;
            self.queue.push(at, Event::Wake(host));
        }
    }

    /// Ends so many hosts that live.
    pub fn kill(&mut self, count: usize, death: Death) {
        for _ in 0..count {
            let victim = loop {
                let victim = self.dice.below(self.keys.len() as u64) as u32;
                if self.cores[victim as usize].is_some() {
                    break victim;
                }
            };
            self.cores[victim as usize] = None;
            self.died.insert(victim, (death, self.now));
            self.counts.detected.insert((death, victim), BTreeMap::new());
            if death == Death::Crash {
                for other in 0..self.keys.len() as u32 {
                    let key = self.keys[victim as usize];
                    let near = |core: &Membership| core.host(&key).is_some_and(|view| view.connected);
                    if self.cores[other as usize].as_ref().is_some_and(near) {
                        let at = self.now + LATENCY.0 + self.dice.below(LATENCY.1);
                        self.queue.push(at, Event::Arrive(victim, other, Message::Disconnected));
                    }
                }
            }
        }
    }

    /// Of a hundred pairs of a host that lives and any other, in how many the first is right about the second; seen
    /// with at most 200 pairs of eyes.
    pub fn right_percent(&self) -> f64 {
        let (mut right, mut all) = (0u64, 0u64);
        let lives: Vec<usize> = (0..self.cores.len()).filter(|n| self.cores[*n].is_some()).collect();
        for host in lives.iter().step_by(lives.len().div_ceil(200)) {
            let Some(core) = &self.cores[*host] else { continue };
            for (number, key) in self.keys.iter().enumerate().filter(|(n, _)| n != host) {
                let state = core.host(key).map(|view| view.state);
                let wanted = if self.cores[number].is_some() { State::Alive } else { State::Down };
                right += u64::from(state == Some(wanted));
                all += 1;
            }
        }
        right as f64 * 100.0 / all.max(1) as f64
    }

    /// How late answers come to each host that lives, in seconds, in order ([`Membership::lateness`]).
    pub fn latenesses(&self) -> Vec<f64> {
        let now = self.time();
        let mut all: Vec<f64> = self.cores.iter().flatten().map(|core| core.lateness(now).as_secs_f64()).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    /// Virtual time, in microseconds.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Whether a host lives.
    pub fn lives(&self, host: u32) -> bool {
        self.cores.get(host as usize).is_some_and(Option::is_some)
    }

    /// Hosts that live.
    pub fn living(&self) -> usize {
        self.cores.iter().flatten().count()
    }
}

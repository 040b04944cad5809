//! A few cores and a tiny network between them, in virtual time.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

pub const MESH: [u8; 32] = [9; 32];

pub fn keys(host: usize) -> Keys {
    Keys::from_seed([host as u8 + 1; 32])
}

pub fn own(host: usize, start: u64) -> Own {
    let id = host as u8;
    Own { keys: keys(host), mesh: MESH, start, store: [id; 16], machine_id: [id; 32], boot_id: [id; 16], nonce: 1 }
}

pub struct World {
    pub now: Time,
    pub cores: Vec<Option<Membership>>,
    pub config: Config,
    pub delay: Duration,
    pub loss_percent: u64,
    /// From, to: nothing passes directly.
    pub cuts: BTreeSet<(usize, usize)>,
    /// Not served until then.
    pub stalled: BTreeMap<usize, Time>,
    /// Everything that became known: when, at which host, what.
    pub log: Vec<(Time, usize, Output)>,
    pub published: Vec<Vec<u8>>,
    pub probes: u64,
    /// Over every output of every core of a small world, bytes and all.
    pub trace: blake3::Hasher,
    queue: BTreeMap<(Time, u64), (usize, Input)>,
    timers: BTreeSet<(Time, usize)>,
    count: u64,
    random: u64,
    members: Arc<Members>,
    hosts: BTreeMap<PeerKey, usize>,
    keys: Vec<PeerKey>,
    /// Nobody's answer or refutation is passed on: the naive variant without fresh word.
    pub mute: bool,
    /// Accept digests; without, only gossip and probes carry news.
    pub digests: bool,
    /// Gossip that is lost for good, in percent.
    pub unheard_percent: u64,
    /// Everything between two hosts travels on one stream that keeps order: a lost packet is sent again after 200 ms, then
    /// after twice as long each time, and holds up what follows. When the last message of each arrives.
    pub ordered: Option<BTreeMap<(usize, usize), Time>>,
    /// Hosts that ask, and do not answer.
    pub dumb: BTreeSet<usize>,
}

impl World {
    pub fn new(hosts: usize, seed: u64, config: Config) -> World {
        World::placed(hosts, seed, config, |_| 0)
    }

    /// Hosts in several networks.
    pub fn placed(hosts: usize, seed: u64, config: Config, network: impl Fn(usize) -> u64) -> World {
        let mut world = World {
            now: Time::from_millis(1_000),
            cores: Vec::new(),
            config,
            delay: Duration::from_millis(2),
            loss_percent: 0,
            cuts: BTreeSet::new(),
            stalled: BTreeMap::new(),
            log: Vec::new(),
            published: Vec::new(),
            probes: 0,
            trace: blake3::Hasher::new(),
            queue: BTreeMap::new(),
            timers: BTreeSet::new(),
            count: 0,
            random: seed ^ 0x5eed,
            members: Members::placed((0..hosts).map(|h| (keys(h).key(), network(h))), 0),
            keys: (0..hosts).map(|h| keys(h).key()).collect(),
            hosts: (0..hosts).map(|h| (keys(h).key(), h)).collect(),
            mute: false,
            digests: true,
            unheard_percent: 0,
            ordered: None,
            dumb: BTreeSet::new(),
        };
        world.cores.resize_with(hosts, || None);
        for host in 0..hosts {
            world.start(host, 1);
        }
        world
    }

    pub fn start(&mut self, host: usize, start: u64) {
        let mut core = Membership::new(own(host, start), self.random() ^ host as u64, self.config.clone(), self.now);
        core.set_members(&self.members, self.now);
        core.set_facts(PresenceFacts { name: format!("h{host}"), cores: 4, ..Default::default() }, self.now);
        core.set_load(3, 1_700_000_000_000 + self.now.as_millis(), self.now);
        self.cores[host] = Some(core);
        for other in 0..self.cores.len() {
            if other != host && self.cores[other].is_some() && !self.cut(host, other) {
                self.connect(host, other);
            }
        }
        self.drain(host);
    }

    /// Power off; `closes` when the peers' kernels get to know.
    pub fn kill(&mut self, host: usize, closes: bool) {
        self.cores[host] = None;
        if closes {
            for other in 0..self.cores.len() {
                self.later(self.delay, other, Input::Disconnected(keys(host).key()));
            }
        }
    }

    pub fn core(&mut self, host: usize) -> &mut Membership {
        self.cores[host].as_mut().expect("runs")
    }

    pub fn give(&mut self, host: usize, input: Input) {
        let now = self.now;
        self.core(host).handle(input, now);
        self.drain(host);
    }

    pub fn state(&self, at: usize, of: usize) -> State {
        self.cores[at].as_ref().expect("runs").host(&self.keys[of]).expect("enrolled").state
    }

    pub fn run(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        self.timers = (0..self.cores.len()).filter_map(|h| Some((self.timer(h)?, h))).collect();
        loop {
            let timer = self.timers.first().copied();
            let message = self.queue.keys().next().copied();
            let at = timer.map(|t| t.0).into_iter().chain(message.map(|m| m.0)).min();
            let Some(at) = at.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            if let Some(key) = message.filter(|m| m.0 <= at) {
                let (to, input) = self.queue.remove(&key).expect("was first");
                if let Some(until) = self.stalled.get(&to).filter(|until| **until > self.now) {
                    let wait = until.since(self.now);
                    self.later(wait, to, input);
                } else if self.cores[to].is_some() {
                    let old = self.timer(to);
                    self.give(to, input);
                    self.reset(to, old);
                }
            } else if let Some((old, host)) = timer {
                let now = self.now;
                self.core(host).handle_timeout(now);
                self.drain(host);
                self.reset(host, Some(old));
            }
        }
        self.now = end;
    }

    fn timer(&self, host: usize) -> Option<Time> {
        let (at, _) = self.cores[host].as_ref()?.poll_timeout()?;
        Some(at.max(self.stalled.get(&host).copied().unwrap_or_default()))
    }

    fn reset(&mut self, host: usize, old: Option<Time>) {
        self.timers.extend(self.timer(host).map(|at| (at, host)));
        if let Some(old) = old.filter(|old| self.timer(host) != Some(*old)) {
            self.timers.remove(&(old, host));
        }
    }

    pub fn drain(&mut self, host: usize) {
        while let Some(output) = self.cores[host].as_mut().and_then(Membership::poll) {
            if self.cores.len() <= SMALL {
                self.trace.update(format!("{:?} {host} {output:?}", self.now).as_bytes()); // slow
            }
            match output {
                Output::Probe { to, bytes } => {
                    self.probes += 1;
                    let input = Input::Probe { from: self.keys[host], bytes };
                    self.send(host, self.index(&to), input);
                }
                Output::Reply { .. } if self.dumb.contains(&host) => {}
                Output::Reply { to, bytes } => {
                    let input = Input::Reply { from: self.keys[host], bytes };
                    self.send(host, self.index(&to), input);
                }
                Output::Publish(bytes) => {
                    if self.mute && matches!(decode(&bytes, STATEMENT_BYTES_MAX), Ok(Statement::Alive(_))) {
                        continue;
                    }
                    // In a small world everybody verifies for himself.
                    let checked = (self.cores.len() > SMALL).then(|| Checked::open(&bytes).expect("is ours"));
                    let input = checked.map_or_else(|| Input::Statement(bytes.clone()), Input::Checked);
                    for to in (0..self.cores.len()).filter(|to| *to != host) {
                        self.gossip(host, to, input.clone());
                    }
                    self.published.push(bytes);
                }
                Output::Digest { to, bytes } => {
                    let input = Input::Digest { from: self.keys[host], bytes };
                    let to = self.index(&to);
                    if self.digests {
                        self.send(host, to, input);
                    }
                }
                Output::Reach(peer) => {
                    let to = self.index(&peer);
                    if self.cores[to].is_some() && !self.cut(host, to) && !self.cut(to, host) {
                        self.connect(host, to);
                    }
                }
                known => self.log.push((self.now, host, known)),
            }
        }
    }

    /// Who went down in whose eyes, though it ran.
    pub fn downs(&self) -> Vec<(Time, usize, usize)> {
        let down = |(at, by, output): &(Time, usize, Output)| match output {
            Output::Changed { peer, to: State::Down, .. } => Some((*at, *by, self.index(peer))),
            _ => None,
        };
        self.log.iter().filter_map(down).collect()
    }

    pub fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random >> 33
    }

    fn index(&self, peer: &PeerKey) -> usize {
        self.hosts[peer]
    }

    fn cut(&self, from: usize, to: usize) -> bool {
        self.cuts.contains(&(from, to))
    }

    fn lost(&mut self) -> bool {
        self.random() % 100 < self.loss_percent
    }

    fn send(&mut self, from: usize, to: usize, input: Input) {
        if !self.cut(from, to) && self.ordered.is_some() {
            self.in_order(from, to, input);
        } else if !self.cut(from, to) && !self.lost() {
            self.later(self.delay, to, input);
        }
    }

    /// Gossip runs over streams that repeat what is lost, and around a broken link.
    fn gossip(&mut self, from: usize, to: usize, input: Input) {
        if self.unheard_percent > 0 && self.random() % 100 < self.unheard_percent {
            return;
        }
        if self.ordered.is_some() && !self.cut(from, to) {
            return self.in_order(from, to, input);
        }
        let mut delay = self.delay;
        if self.cut(from, to) {
            let around = |k: usize| self.cores[k].is_some() && !self.cut(from, k) && !self.cut(k, to);
            if !(0..self.cores.len()).any(|k| k != from && k != to && around(k)) {
                return;
            }
            delay *= 2;
        }
        while self.lost() {
            delay += Duration::from_millis(200);
        }
        self.later(delay, to, input);
    }

    fn in_order(&mut self, from: usize, to: usize, input: Input) {
        let (mut delay, mut pause) = (self.delay, Duration::from_millis(200));
        while self.lost() {
            delay += pause;
            pause *= 2;
        }
        let last = self.ordered.as_mut().expect("asked before").entry((from, to)).or_default();
        *last = (*last).max(self.now + delay);
        let wait = last.since(self.now);
        self.later(wait, to, input);
    }

    fn connect(&mut self, a: usize, b: usize) {
        self.later(self.delay, a, Input::Connected(self.keys[b]));
        self.later(self.delay, b, Input::Connected(self.keys[a]));
    }

    fn later(&mut self, delay: Duration, to: usize, input: Input) {
        self.count += 1;
        self.queue.insert((self.now + delay, self.count), (to, input));
    }
}

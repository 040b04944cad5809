//! The fleet, its log, and time.

use super::Size;
use super::count::Counts;
use super::journey::Journey;
use super::target::{Deadline, Open};
use super::temper::Temper;
use crate::det::derive;
use crate::draw::Dice;
use crate::invariants::{Fact, HostSeen, Jury, Name, Truth, Violation, of_walks};
use mesh::blame::Verdict;
use mesh::build::BlobId;
use mesh::healing;
use mesh::identity::{Keys, PeerKey};
use mesh::lease::Fence;
use mesh::ledger::{Batch, Command, Enrol, Entry, Lead, Ledger, Reply, RequestId};
use mesh::order::BootId;
use mesh::placement::{HostNow, View};
use mesh::roster::{Cosignature, Genesis, Invitation, JoinRequest, VoterChange, invitation_proof};
use mesh::time::Time;
use mesh::warrant::{Approved, Guard, Known, Notes, OrderId};
use mesh::wire::{Signed, encode};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use topology::{Fleet, Nat, Oracle};

/// Wall clock of the world when it begins, in milliseconds since 1970.
pub const WALL_MS: u64 = 1_767_225_600_000;
/// Batches that the ledger which lags may be behind.
const BEHIND_MAX: usize = 60;

/// What is truly wrong with a host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ill {
    /// Nothing.
    Well,
    /// Its daemon hangs; the guard beside it answers.
    Hangs,
    /// What it builds fails.
    Broken,
}

/// How one build ended on one host.
#[derive(Clone, Copy)]
pub struct End {
    /// Ledger time.
    pub at_ms: u64,
    pub build: u64,
    pub bad: bool,
    /// By the host's own fault.
    pub own: bool,
    /// It could not get its inputs, whose fault that is.
    pub inputs: bool,
    pub took_ms: u64,
}

/// A machine.
pub struct Host {
    pub name: Name,
    pub keys: Keys,
    /// Tells it from its copies.
    pub machine: u64,
    pub boots: u64,
    pub start: u64,
    pub guard: Vec<u8>,
    pub notes: Vec<u8>,
    /// What its daemon has written of the roster.
    pub known: Arc<Known>,
    /// Guard, notes and start number, copied away.
    pub backup: Option<(Vec<u8>, Vec<u8>, u64)>,
    /// The next writes do not reach the disk.
    pub disk_fails: bool,
    pub member: bool,
    pub signer: bool,
    pub power: bool,
    pub ill: Ill,
    pub ailed_ms: u64,
    /// It follows the ledger that lags.
    pub lags: bool,
    pub skew_ms: i64,
    pub protected: bool,
    pub allow_reboot: bool,
    pub boot_enabled: Option<bool>,
    pub only_path_of: Vec<PeerKey>,
    /// Who cannot hear it, though it is up.
    pub missed_by: BTreeSet<PeerKey>,
    pub progress: bool,
    /// How builds have ended here, as the world had it.
    pub ends: Vec<End>,
    /// It is set aside for what failed on it.
    pub charged: bool,
    pub copy_of: Option<usize>,
    pub seat: Option<usize>,
    pub hearings: BTreeMap<u64, Open>,
}

impl Host {
    pub fn key(&self) -> PeerKey {
        self.keys.key()
    }
    pub fn boot(&self) -> BootId {
        let mut boot = [0; 16];
        boot[..8].copy_from_slice(&self.machine.to_le_bytes());
        boot[8..].copy_from_slice(&self.boots.to_le_bytes());
        BootId(boot)
    }
    pub fn up(&self) -> bool {
        self.power && self.ill != Ill::Hangs
    }
}

pub struct World {
    pub seed: u64,
    pub dice: Dice,
    pub now_ms: u64,
    pub temper: Temper,
    pub hosts: Vec<Host>,
    /// Where who is dialled is believed to sit, by key; moves with delay.
    pub believed: BTreeMap<PeerKey, usize>,
    /// Who sits at each place of the fleet.
    pub seats: Vec<Option<usize>>,
    places: Vec<(String, SocketAddr)>,
    oracle: Oracle,
    ways: BTreeMap<(usize, usize), Option<usize>>,
    pub fresh: Ledger,
    pub late: Ledger,
    pub backlog: VecDeque<(u64, u64, Vec<u8>)>,
    pub verdicts: [([u64; 4], Vec<Verdict>); 2],
    pub view: View,
    pub term: u64,
    pub leader: usize,
    /// Leaders that do not know that they lead no more.
    pub deposed: Vec<(usize, Fence)>,
    pub journeys: Vec<Journey>,
    pub deadlines: Vec<Deadline>,
    /// Warrants that somebody has kept: target, frames.
    pub kept: VecDeque<(PeerKey, Vec<Vec<u8>>)>,
    pub kept_signatures: VecDeque<Approved>,
    pub joins: BTreeMap<PeerKey, Signed>,
    /// The owner's.
    pub recovery: Keys,
    /// The ledger as it was before the last recovery.
    pub before: Option<Ledger>,
    /// Two recoveries of one epoch are known.
    pub disputed: bool,
    pub bad_tree: bool,
    pub builds: u64,
    pub numbers: u64,
    pub counts: Counts,
    /// The last lies, for whoever reads why a run failed.
    pub lately: VecDeque<String>,
    pub jury: Jury,
    pub failure: Option<Violation>,
}

struct Seen<'a>(&'a Ledger);

impl Truth for Seen<'_> {
    fn holds(&self, _: &PeerKey, _: BlobId) -> Option<bool> {
        None
    }
    fn is_member(&self, key: &PeerKey) -> bool {
        self.0.roster().is_member(key)
    }
}

impl World {
    pub fn new(seed: u64, size: Size) -> World {
        let mut dice = Dice::new(seed, "orders");
        let sites = dice.between(1, size.sites) as usize;
        let each = dice.between(8_u64.div_ceil(sites as u64).min(size.hosts), size.hosts) as usize;
        let temper = Temper::drawn(&mut dice);
        let (masqueraded, overlay) = (dice.percent(70), dice.percent(50));
        let made = Fleet::generated(sites, each, masqueraded, overlay, Nat::LINUX);
        let Ok(fleet) = made else { panic!("no fleet of {sites} by {each}") };
        let port = |host: &topology::Host| {
            let ip = *host.addresses.values().next()?;
            Some((host.name.clone(), SocketAddr::new(ip.into(), topology::limits::PORT_DEFAULT)))
        };
        let places: Vec<(String, SocketAddr)> = fleet.hosts.iter().filter_map(port).collect();
        let keys = |name: &str| Keys::from_seed(derive(seed, &format!("keys of {name}"), 0));
        let first = keys(&places[0].0);
        let genesis = Genesis {
            name: "orders".into(),
            host: places[0].0.clone(),
            recovery: keys("recovery").key(),
            wall_ms: WALL_MS,
            nonce: [7; 16],
            machine_id: [0; 32],
            store_id: [0; 16],
        };
        let ledger = match Ledger::found(&Signed::seal(&first, &genesis)) {
            Ok(ledger) => ledger,
            Err(error) => panic!("no ledger: {error}"),
        };
        let known = Arc::new(Known::of(&ledger));
        let mut hosts = vec![];
        for (n, (name, _)) in places.iter().enumerate() {
            let keys = keys(name);
            let allowed = |dice: &mut Dice, percent| dice.percent(percent);
            hosts.push(Host {
                name: name.as_str().into(),
                guard: Guard::new(ledger.mesh(), keys.key()).bytes(),
                notes: Notes::default().bytes(),
                keys,
                machine: n as u64,
                boots: 1,
                start: 1,
                known: known.clone(),
                backup: None,
                disk_fails: false,
                member: n == 0,
                signer: n == 0,
                power: true,
                ill: Ill::Well,
                ailed_ms: 0,
                lags: false,
                skew_ms: 0,
                protected: allowed(&mut dice, 8),
                allow_reboot: allowed(&mut dice, 85),
                boot_enabled: if allowed(&mut dice, temper.boot_percent) {
                    Some(true)
                } else {
                    [None, Some(false)][n % 2]
                },
                only_path_of: vec![],
                missed_by: BTreeSet::new(),
                progress: false,
                ends: vec![],
                charged: false,
                copy_of: None,
                seat: Some(n),
                hearings: BTreeMap::new(),
            });
        }
        let believed = hosts.iter().enumerate().map(|(n, h)| (h.key(), n)).collect();
        let mut world = World {
            seed,
            dice,
            now_ms: 1_000,
            temper,
            believed,
            seats: (0..hosts.len()).map(Some).collect(),
            hosts,
            oracle: Oracle::new(&fleet),
            places,
            ways: BTreeMap::new(),
            late: ledger.clone(),
            fresh: ledger,
            backlog: VecDeque::new(),
            verdicts: Default::default(),
            view: View::new(),
            term: 0,
            leader: 0,
            deposed: vec![],
            journeys: vec![],
            deadlines: vec![],
            kept: VecDeque::new(),
            kept_signatures: VecDeque::new(),
            joins: BTreeMap::new(),
            recovery: keys("recovery"),
            before: None,
            disputed: false,
            bad_tree: false,
            builds: 0,
            numbers: 0,
            counts: Counts::default(),
            lately: VecDeque::new(),
            jury: Jury::new(of_walks()),
            failure: None,
        };
        world.assemble();
        world
    }

    fn assemble(&mut self) {
        self.elect(0);
        let all = self.hosts.len();
        for host in 1..all {
            // Routers of generated fleets are hosts as well; a few at the end stay out until an address is free.
            if host + 2 >= all {
                self.seats[host] = None;
                self.hosts[host].seat = None;
                continue;
            }
            let signer = host < 4;
            self.enrol(host, signer);
            if host % 7 == 3 {
                let behind = self.hosts[host - 1].key();
                self.hosts[host].only_path_of = vec![behind];
            }
        }
        let policy = self.temper.policy();
        self.write(0, None, Command::Heal(healing::Entry::Policy(policy)));
        let voters = [3, 3, 5][self.dice.below(3) as usize].min(self.members().len());
        let set: BTreeSet<usize> = self.members().into_iter().take(voters).collect();
        self.change_voters(&set);
        self.catch_up();
    }

    pub fn members(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|h| self.hosts[*h].member && self.hosts[*h].copy_of.is_none()).collect()
    }

    /// A member at random.
    pub fn any(&mut self) -> usize {
        let members = self.members();
        members[self.dice.below(members.len() as u64) as usize]
    }

    /// One of those members that are such, if there is one.
    pub fn some(&mut self, such: impl Fn(&Host) -> bool) -> Option<usize> {
        let fit: Vec<usize> = self.members().into_iter().filter(|h| such(&self.hosts[*h])).collect();
        self.dice.one(&fit).copied()
    }

    pub fn host_of(&self, key: &PeerKey) -> Option<usize> {
        self.hosts.iter().position(|h| h.key() == *key && h.copy_of.is_none())
    }

    pub fn voters(&self) -> Vec<usize> {
        self.fresh.voters().voters().iter().filter_map(|key| self.host_of(key)).collect()
    }

    pub fn fence(&self) -> Fence {
        Fence { epoch: self.fresh.recovery_epoch(), term: self.term }
    }

    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub fn order_id(&mut self) -> OrderId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.dice.number().to_le_bytes());
        id[8..].copy_from_slice(&self.number().to_le_bytes());
        OrderId(id)
    }

    pub fn request(&mut self) -> RequestId {
        RequestId(self.order_id().0)
    }

    /// A host's own clock.
    pub fn own(&self, host: usize) -> Time {
        Time::from_millis(self.now_ms + 1_000_000 * self.hosts[host].machine)
    }

    /// A host's wall clock.
    pub fn wall(&self, host: usize) -> u64 {
        (WALL_MS + self.now_ms).saturating_add_signed(self.hosts[host].skew_ms)
    }

    /// The ledger that a host follows.
    pub fn ledger(&self, host: usize) -> &Ledger {
        if self.hosts[host].lags { &self.late } else { &self.fresh }
    }

    /// Tells the jury.
    pub fn fact(&mut self, fact: Fact) {
        let at = Duration::from_millis(self.now_ms);
        let said = self.jury.fact(at, &fact, &Seen(&self.fresh));
        self.failure = self.failure.take().or(said.err());
    }

    /// Signs a command and has it committed; the answer of the ledger.
    pub fn write(&mut self, by: usize, fence: Option<Fence>, command: Command) -> Reply {
        let request = self.request();
        let entry = Entry::seal(&self.hosts[by].keys, self.fresh.mesh(), request, fence, command);
        self.commit(vec![entry]).pop().unwrap_or_else(|| Reply::refused(mesh::ledger::Code::Invalid, "no answer"))
    }

    pub fn commit(&mut self, entries: Vec<Signed>) -> Vec<Reply> {
        let payload = encode(&Batch { time_ms: WALL_MS + self.now_ms, entries });
        let index = self.fresh.index() + 1;
        let replies = self.fresh.apply(index, self.term, &payload);
        self.backlog.push_back((index, self.term, payload));
        if self.backlog.len() > BEHIND_MAX {
            self.lag_on(1);
        }
        let (at, name): (_, Name) = (Duration::from_millis(self.now_ms), "the ledger".into());
        let key = self.hosts[self.leader].key();
        let seen =
            HostSeen { name: &name, key, start: 1, ledger: &self.fresh, lease: None, presences: &[], sizes: &[] };
        let said = self.jury.look(at, &seen, &Seen(&self.fresh)).and_then(|()| self.jury.step(at));
        self.failure = self.failure.take().or(said.err());
        replies
    }

    /// The ledger that lags gets so many batches.
    pub fn lag_on(&mut self, batches: usize) {
        for _ in 0..batches {
            let Some((index, term, payload)) = self.backlog.pop_front() else { return };
            self.late.apply(index, term, &payload);
        }
    }

    /// It gets all.
    pub fn catch_up(&mut self) {
        self.lag_on(self.backlog.len());
        self.tell_guards();
    }

    /// Daemons write for their guards what they know of the roster.
    pub fn tell_guards(&mut self) {
        let (fresh, late) = (Arc::new(Known::of(&self.fresh)), Arc::new(Known::of(&self.late)));
        for host in self.hosts.iter_mut().filter(|h| h.up()) {
            host.known = if host.lags { late.clone() } else { fresh.clone() };
        }
    }

    /// Another term begins, led by this voter.
    pub fn elect(&mut self, host: usize) {
        if self.term > 0 && host != self.leader && self.dice.percent(60) {
            self.deposed.push((self.leader, self.fence()));
            if self.deposed.len() > 4 {
                self.deposed.remove(0);
            }
        }
        self.term += 1;
        self.leader = host;
        self.hosts[host].lags = false;
        let fence = self.fence();
        self.write(host, Some(fence), Command::Lead(Lead { version: "sim".into() }));
    }

    /// The leader brings another set of voters, signed by the present ones.
    pub fn change_voters(&mut self, set: &BTreeSet<usize>) {
        let body = self.fresh.voters().next(&set.iter().map(|h| self.hosts[*h].key()).collect());
        let signatures = self.voters().into_iter().map(|v| Cosignature::new(&self.hosts[v].keys, &body)).collect();
        let (by, fence) = (self.leader, self.fence());
        self.write(by, Some(fence), Command::Voters(VoterChange { body, signatures }));
    }

    /// A signer's invitation, and the request of who has it.
    pub fn join_request(&mut self, host: usize, inviter: usize, signer: bool) -> Signed {
        let mesh = self.fresh.mesh();
        let one_time = Keys::from_seed(derive(self.seed, "one-time", self.numbers));
        self.numbers += 1;
        let expires_ms = self.fresh.time_ms() + 3_600_000;
        let name = format!("{}-{}", self.hosts[host].name, self.numbers);
        let invitation = Invitation { mesh, key: one_time.key(), name, signer, expires_ms };
        let invitation = Signed::seal(&self.hosts[inviter].keys, &invitation);
        let keys = &self.hosts[host].keys;
        let proof = one_time.sign(&invitation_proof(&mesh, &keys.key()));
        let mut machine_id = [0; 32];
        machine_id[..8].copy_from_slice(&(self.hosts[host].machine + 1).to_le_bytes());
        let mut store_id = [1; 16];
        store_id[..8].copy_from_slice(&self.hosts[host].machine.to_le_bytes());
        Signed::seal(keys, &JoinRequest { mesh, invitation, proof, machine_id, store_id })
    }

    pub fn enrol(&mut self, host: usize, signer: bool) -> bool {
        let inviter = if self.hosts[0].member { Some(0) } else { self.some(|h| h.signer) };
        let Some(inviter) = inviter else { return false };
        let join = self.join_request(host, inviter, signer);
        let reply = self.write(inviter, None, Command::Enrol(Enrol { join: join.clone() }));
        if reply.is_ok() {
            let at = &mut self.hosts[host];
            (at.member, at.signer) = (true, signer);
            let key = at.key();
            if signer {
                self.joins.insert(key, join);
            }
            let now =
                HostNow { alive: true, start: 1, cores: 4, memory_mib: 1_000, caught_up: true, ..HostNow::default() };
            self.view.insert(key, now);
        }
        reply.is_ok()
    }

    /// Who answers when somebody at one place dials another: by the fleet's oracle, and whoever sits there now.
    pub fn dial(&mut self, from: usize, place: usize) -> Option<usize> {
        let from = self.hosts[from].seat?;
        let (places, oracle) = (&self.places, &self.oracle);
        let answers = *self.ways.entry((from, place)).or_insert_with(|| {
            if from == place {
                return Some(place);
            }
            let dial = oracle.dial(&places[from].0, places[place].1);
            let by = dial.answered_by.as_ref().filter(|_| dial.succeeds())?;
            places.iter().position(|(name, _)| *name == **by)
        });
        self.seats[answers?].filter(|host| self.hosts[*host].power)
    }

    /// Who is seen where a host's traffic comes from, as a naive program would find it: the router before it.
    pub fn seen_as(&mut self, host: usize) -> Option<usize> {
        let seat = self.hosts[host].seat?;
        let site = self.places[seat].0.split('-').next().unwrap_or_default().to_owned();
        self.places.iter().position(|(name, _)| *name == format!("{site}-router"))
    }

    pub fn finish(&mut self) {
        let said = self.jury.finish(Duration::from_millis(self.now_ms));
        self.failure = self.failure.take().or(said.err());
        if let Some(failure) = &mut self.failure {
            let lately: Vec<&str> = self.lately.iter().map(String::as_str).collect();
            failure.text = format!("{} (the last lies: {})", failure.text, lately.join("; "));
        }
        self.counts.hosts = self.hosts.len() as u64;
        self.counts.judged = self.jury.exercised();
    }

    pub fn hash(&mut self) -> String {
        let text = format!("{:?} {:?} {}", self.fresh.head(), self.counts, self.dice.number());
        blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
    }
}

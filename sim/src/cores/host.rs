//! A host: a machine, and the process on it that joins the cores of `mesh` as the node's driver does.
//!
//! A [`Process`] owns what a daemon has in memory: membership, addresses, Raft, its copy of the ledger, attempts.
//! It is given events and its machine, and gives messages, writes, dials and timers to the simulation ([`Cx`]).
//! The parts of the driver follow in `watch.rs`, `submit.rs`, `lead.rs`, `execute.rs` and `admit.rs`, each after
//! the file of the same work in `node::driver`.

use super::Cx;
use super::disk::{Disk, Write};
use super::execute::Jobs;
use super::kit::Clock;
use super::lead::Leading;
use super::message::Message;
use super::raft::{Payload, Raft};
use super::submit::Batcher;
use crate::invariants::{Fact, Name};
use mesh::addresses::{Addresses, Source};
use mesh::blame::Judge;
use mesh::clock::LedgerClock;
use mesh::identity::{Keys, PeerKey};
use mesh::ledger::{Changes, Ledger, RequestId};
use mesh::membership::{self, Membership};
use mesh::placement::View;
use mesh::roster::{MeshId, mesh_id};
use mesh::time::Time;
use node::consensus::Timing;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Housekeeping: views, dials, load.
pub const TICK: Duration = Duration::from_millis(500);

/// What stays when the process ends.
pub struct Machine {
    /// Its number.
    pub number: usize,
    /// Its name.
    pub name: Name,
    /// The key in its state folder.
    pub keys: Keys,
    /// Its clocks.
    pub clock: Clock,
    /// Its disk.
    pub disk: Disk,
    /// A copy of the disk, from a backup.
    pub backup: Option<Disk>,
    /// Cores that it offers.
    pub cores: u32,
    /// How often it has booted.
    pub boots: u64,
    /// How many processes it has had.
    pub generation: u64,
    /// Random id of the state folder.
    pub store_id: [u8; 16],
    /// Of the machine.
    pub machine_id: [u8; 32],
    /// A sync of the disk is under way.
    pub syncing: bool,
    /// The voters that it last proposed as the leader, and their epoch.
    pub proposed: Option<(u64, BTreeSet<PeerKey>)>,
    /// Its own veto of every order.
    pub protected: bool,
    /// Whether it may be rebooted.
    pub allow_reboot: bool,
    /// When a build last broke on it, by its own fault.
    pub broke: u64,
    /// Orders that are being heard.
    pub hearings: super::target::Hearings,
}

impl Machine {
    /// It has come to a mesh: its files are there before anything is said.
    pub fn enrol(&mut self, folder: super::disk::Folder) {
        let guard = mesh::warrant::Guard::new(mesh_id(&folder.genesis), self.keys.key());
        let notes = mesh::warrant::Notes::default();
        self.disk.enrol(folder, guard.bytes(), notes.bytes());
    }
}

/// Leave to act while the process lives.
pub struct Env<'a> {
    /// Its machine.
    pub m: &'a mut Machine,
    /// The simulation.
    pub cx: &'a mut Cx,
}

impl Env<'_> {
    /// The machine's monotonic clock.
    pub fn own(&self) -> Time {
        self.m.clock.own(self.cx.now)
    }

    /// The machine's wall clock.
    pub fn wall_ms(&self) -> u64 {
        self.m.clock.wall(self.cx.now)
    }
}

/// An open connection, as one end sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number.
    pub id: u64,
    /// Which end.
    pub end: usize,
    /// The peer is enrolled, as far as this host knows; else it may only give us the log.
    pub member: bool,
}

/// Why a process does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoStart {
    /// The host ran before, and its ledger's store is empty: it is to be evicted and invited again.
    LedgerGone,
    /// What must not happen.
    Broken(String),
}

/// What a daemon has in memory.
pub struct Process {
    pub(super) me: PeerKey,
    pub(super) host: usize,
    pub(super) generation: u64,
    pub(super) mesh: MeshId,
    pub(super) start: u64,
    pub(super) born: Time,
    pub(super) members: Membership,
    pub(super) addresses: Addresses,
    pub(super) raft: Raft,
    pub(super) ledger: Ledger,
    pub(super) told: BTreeSet<PeerKey>,
    pub(super) lines: BTreeMap<PeerKey, Vec<Line>>,
    pub(super) dialling: BTreeMap<PeerKey, usize>,
    pub(super) newcomers: bool,
    pub(super) seen: BTreeSet<u64>,
    pub(super) view: View,
    /// What blame says of the ledger as it is.
    pub(super) judge: Judge,
    pub(super) batcher: Batcher,
    pub(super) leading: Leading,
    pub(super) jobs: Jobs,
    pub(super) clock: Option<(u64, LedgerClock)>,
    pub(super) outcast: BTreeSet<PeerKey>,
    pub(super) tick_at: Time,
    pub(super) keep_leads_at: Time,
    pub(super) woken_at: Option<Time>,
    pub(super) leaving: bool,
    /// It gives its vote to another until then, and leaves.
    pub(super) retiring: Option<Time>,
    pub(super) requests: u64,
    pub(super) known: BTreeMap<PeerKey, (u64, u64)>,
    pub(super) orders: super::orders::Orders,
    /// Orders of its own that it has begun to bring.
    pub(super) tried: BTreeSet<mesh::warrant::OrderId>,
    /// Orders of its own that it has written.
    pub(super) written: BTreeMap<mesh::warrant::OrderId, mesh::wire::Signed>,
    /// Writes of consensus that are not on the disk yet: the disk's number, which counts blobs as well, and its own.
    unsynced: VecDeque<(u64, u64)>,
}

impl Process {
    /// Starts on a machine that is enrolled. Counts its start number up, synced before it speaks.
    ///
    /// # Errors
    /// When its state folder does not hold a mesh, or its ledger is gone. What it promised is gone with it.
    pub fn start(env: &mut Env<'_>, timing: Timing) -> Result<Process, NoStart> {
        let folder = env.m.disk.folder.clone().ok_or_else(|| NoStart::Broken("not enrolled".into()))?;
        if env.m.disk.start > 0 && !env.m.disk.made {
            return Err(NoStart::LedgerGone);
        }
        env.m.disk.made = true;
        let mut ledger = Ledger::found(&folder.genesis).map_err(|e| NoStart::Broken(e.to_string()))?;
        let start = env.m.disk.start + 1;
        if !mesh::mutants::on(mesh::mutants::Mutant::StartNumberNotSynced) {
            env.m.disk.start = start;
        }
        let (me, now) = (env.m.keys.key(), env.own());
        let store = env.m.disk.store.clone();
        let mut raft = Raft::new(me, timing, store, env.m.disk.written(), now, &mut env.cx.dice);
        if folder.genesis.by == me && raft.store.log.is_empty() {
            raft.initialize();
        }
        let own = membership::Own {
            keys: env.m.keys.clone(),
            mesh: mesh_id(&folder.genesis).0,
            start,
            store: env.m.store_id,
            machine_id: env.m.machine_id,
            boot_id: env.m.boot().0,
            nonce: env.cx.dice.draw(),
        };
        let members = Membership::new(own, env.cx.dice.draw(), membership::Config::default(), Time::default());
        ledger.take_changes();
        let mut process = Process {
            me,
            host: env.m.number,
            generation: env.m.generation,
            mesh: mesh_id(&folder.genesis),
            start,
            born: now,
            members,
            addresses: Addresses::new(me),
            raft,
            ledger,
            told: folder.known.iter().map(|k| k.peer).collect(),
            lines: BTreeMap::new(),
            dialling: BTreeMap::new(),
            newcomers: false,
            seen: BTreeSet::new(),
            view: View::new(),
            judge: Judge::default(),
            batcher: Batcher::default(),
            leading: Leading::default(),
            jobs: Jobs::default(),
            clock: None,
            outcast: BTreeSet::new(),
            tick_at: Time::default(),
            keep_leads_at: Time::default(),
            woken_at: None,
            leaving: false,
            retiring: None,
            requests: 0,
            known: BTreeMap::new(),
            orders: super::orders::Orders::default(),
            tried: BTreeSet::new(),
            written: BTreeMap::new(),
            unsynced: VecDeque::new(),
        };
        let all = folder.known.iter().map(|k| k.peer).chain([me]).collect();
        process.addresses.set_members(&all);
        for known in &folder.known {
            for address in &known.addresses {
                process.addresses.learn(known.peer, address, Source::Invitation, None, Time::default());
            }
        }
        process.listen(env);
        process.apply(env);
        process.recall_leads(env);
        process.changed(env, Changes { roster: true, ..Changes::default() });
        let name = env.m.name.clone();
        env.cx.fact(Fact::Started { host: name, key: me, start });
        process.settle(env);
        Ok(process)
    }

    /// Time since this process was born.
    pub(super) fn now(&self, env: &Env<'_>) -> Time {
        Time::default() + env.own().since(self.born)
    }

    pub(super) fn request_id(&mut self, env: &mut Env<'_>) -> RequestId {
        self.requests += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&env.cx.dice.draw().to_le_bytes());
        id[8..].copy_from_slice(&self.requests.to_le_bytes());
        RequestId(id)
    }

    /// A message has come on a connection.
    pub fn arrived(&mut self, env: &mut Env<'_>, line: (u64, usize), from: PeerKey, message: Message) {
        let Some(found) = self.lines.get(&from).and_then(|l| l.iter().find(|l| (l.id, l.end) == line)).copied() else {
            return; // it was closed here meanwhile
        };
        if !found.member && !message.brings_the_log() {
            return;
        }
        self.spoke(env, from, &message);
        let now = self.now(env);
        use membership::Input;
        match message {
            Message::Probe(bytes) => self.members.handle(Input::Probe { from, bytes }, now),
            Message::Reply(bytes) => self.members.handle(Input::Reply { from, bytes }, now),
            Message::Digest(bytes) => self.members.handle(Input::Digest { from, bytes }, now),
            Message::Gossip(said) => self.gossiped(env, Some(from), &said),
            Message::Raft(talk) if !self.raft.hears(&from, &talk) => {
                self.send(env, from, Message::Stranger(self.ledger.voters().epoch()));
            }
            Message::Stranger(epoch) => {
                let links = self.ledger.voters().after(epoch).to_vec();
                if !links.is_empty() {
                    self.send(env, from, Message::Voters(links));
                }
            }
            Message::Voters(links) => self.shown_voters(from, links),
            Message::Raft(talk) => {
                let own = env.own();
                self.raft.hear(from, talk, own, &mut env.cx.dice);
            }
            Message::Submit(number, entries) => self.take_in(env, from, number, entries),
            Message::Submitted(number, answer) => self.forwarded(env, number, answer),
            Message::Cosign(number, body) => {
                let answer = self.cosign(env, from, &body);
                self.send(env, from, Message::Cosigned(number, answer));
            }
            Message::Cosigned(number, answer) => self.cosigned(env, from, number, answer),
            Message::Want(number, ids) => {
                let has = ids.iter().all(|id| env.m.disk.shows(*id));
                self.send(env, from, Message::Have(number, has));
            }
            Message::Have(number, has) => self.fetched(env, number, has),
            Message::Hold(number, receipt) => self.asked_to_hold(env, from, number, receipt),
            Message::Bring(number, frames) => {
                let path = super::target::Path::Line(line.0, line.1);
                let known = mesh::warrant::Known::of(&self.ledger);
                super::target::brought(env.m, env.cx, Some(known), path, number, &frames);
            }
            Message::Answer(number, frame) => self.answered_by_target(env, Some(from), number, &frame),
            Message::Sign(number, pair) => self.asked_to_sign(env, from, number, &pair),
            Message::Signs(number, answer) => self.signed_by(env, from, number, answer),
            Message::Held(number, answer) => self.held(env, from, number, answer),
        }
        self.settle(env);
    }

    /// A timer has fired.
    pub fn woken(&mut self, env: &mut Env<'_>) {
        self.woken_at = None;
        let (now, own) = (self.now(env), env.own());
        if self.members.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.members.handle_timeout(now);
        }
        if self.raft.due().is_some_and(|at| at <= own) {
            self.raft.tick(own, &mut env.cx.dice);
        }
        if self.tick_at <= now {
            self.tick_at = now + TICK;
            self.tick(env);
        }
        self.deliver_due(env);
        self.jobs_due(env);
        self.orders_due(env);
        if self.leading.at <= now {
            self.lead(env);
        }
        self.settle(env);
    }

    /// The disk says that so many writes are on it.
    pub fn synced(&mut self, env: &mut Env<'_>, written: u64) {
        let own = env.own();
        let mut own_count = None;
        while let Some((_, count)) = self.unsynced.pop_front_if(|(at, _)| *at <= written) {
            own_count = Some(count);
        }
        if let Some(count) = own_count {
            self.raft.synced(count, own);
        }
        self.blobs_synced(env, written);
        self.notes_synced(env, written);
        self.settle(env);
    }

    /// Does what the cores ask for, until none asks for more.
    pub(super) fn settle(&mut self, env: &mut Env<'_>) {
        for _ in 0..64 {
            let mut did = self.drain(env);
            let ops = std::mem::take(&mut self.raft.ops);
            did |= !ops.is_empty();
            if let Some(at) = ops.into_iter().map(|op| env.m.disk.write(Write::Raft(op))).last() {
                self.unsynced.push_back((at, self.raft.written()));
            }
            let out = std::mem::take(&mut self.raft.out);
            did |= !out.is_empty();
            for (to, talk) in out {
                self.send(env, to, Message::Raft(talk));
            }
            did |= self.apply(env);
            let changes = self.ledger.take_changes();
            if changes != Changes::default() {
                self.changed(env, changes);
                did = true;
            }
            did |= self.read_own_writes(env);
            if std::mem::take(&mut self.leading.woken) {
                self.lead(env);
                did = true;
            }
            if !did {
                break;
            }
        }
        env.cx.sync(env.m);
        self.arm(env);
    }

    /// Applies what is committed.
    fn apply(&mut self, env: &mut Env<'_>) -> bool {
        let before = self.raft.applied;
        while self.raft.applied < self.raft.store.commit {
            let Some(item) = self.raft.store.log.get(self.raft.applied as usize).cloned() else { break };
            self.raft.applied += 1;
            let replies = match &item.payload {
                Payload::Blank => {
                    self.ledger.begin_term(item.term);
                    self.leading.woken = true;
                    vec![]
                }
                Payload::Members(_) => vec![],
                Payload::Batch(bytes) => self.ledger.apply(self.raft.applied, item.term, bytes),
            };
            self.proposed(env, self.raft.applied, item.term, replies);
        }
        before != self.raft.applied
    }

    /// Sees to it that the process is woken when something is due.
    fn arm(&mut self, env: &mut Env<'_>) {
        let own = |at: Time| self.born + at.since(Time::default());
        let dues = [
            self.members.poll_timeout().map(|(at, _)| own(at)),
            self.raft.due(),
            Some(own(self.tick_at)),
            Some(own(self.leading.at)),
            self.batcher.due().map(own),
            self.jobs.due().map(own),
            self.orders.due().map(own),
        ];
        let Some(due) = dues.into_iter().flatten().min() else { return };
        if self.woken_at.is_none_or(|at| due < at) {
            self.woken_at = Some(due);
            let at = env.m.clock.when(due).max(env.cx.now + 1);
            env.cx.wake(self.host, self.generation, at);
        }
    }

    /// The ledger's leave to act as the leader at this moment.
    pub fn grant(&self, clock: &Clock, now: u64) -> Option<mesh::lease::Grant> {
        self.raft.grant(clock.own(now))
    }
}

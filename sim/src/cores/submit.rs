//! How entries reach the ledger: gathered, proposed here when this host leads, else sent to the leader. After
//! `node::driver::submit`, whose rule holds here too: whatever ends without an answer is sent again until its deadline.

use super::host::{Env, Process};
use super::message::Message;
use crate::invariants::Fact;
use mesh::blame::Verdict;
use mesh::build::{Attempt, BuildId};
use mesh::clock::LedgerClock;
use mesh::identity::PeerKey;
use mesh::ledger::{Batch, Code, Command, Entry, Reply};
use mesh::restraint::wakes_ms;
use mesh::time::Time;
use mesh::wire::{Signed, encode};
use std::collections::BTreeMap;
use std::time::Duration;

const BATCH_ENTRIES_MAX: usize = 256;
const IN_FLIGHT_MAX: usize = 4;
/// How long one try to reach the leader may take.
const TRY: Duration = Duration::from_secs(10);
/// How long a proposal waits for its commit: one and a half leases.
const PROPOSED: Duration = Duration::from_millis(7_500);
const PAUSE: Duration = Duration::from_millis(50);
/// Between two empty batches: the first may be on its way still.
const LET_PASS: Duration = Duration::from_secs(1);

/// Who waits for an entry's answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asker {
    /// The leader's loop.
    Leader,
    /// An attempt.
    Report(BuildId, Attempt),
    /// A client with the request of this number.
    Client(u64),
    /// A joiner's request, by number.
    Joiner(u64),
    /// Another host, which forwarded it: who, in which message, at which place.
    Peer(PeerKey, u64, usize),
    /// A person's order, by number.
    ByHand(u64),
    /// Nobody.
    Nobody,
}

struct Pending {
    entry: Signed,
    deadline: Time,
    asker: Asker,
}

enum Stage {
    /// Tried again then.
    Rests(Time),
    /// With the leader.
    Forwarded { to: PeerKey, until: Time },
    /// In our own log.
    Proposed { index: u64, term: u64, until: Time },
}

struct Delivery {
    entries: Vec<Pending>,
    stage: Stage,
}

/// Another host's entries, answered when all are.
struct Taken {
    left: usize,
    last: u64,
    replies: Vec<Option<Reply>>,
}

/// Entries on their way.
#[derive(Default)]
pub struct Batcher {
    waiting: Vec<Pending>,
    flying: BTreeMap<u64, Delivery>,
    taken: BTreeMap<(PeerKey, u64), Taken>,
    /// Answered by the leader, not yet applied here: index, deadline.
    unread: Vec<(u64, Time, Asker, Reply)>,
    numbers: u64,
}

impl Batcher {
    /// When something is due.
    pub fn due(&self) -> Option<Time> {
        let stages = self.flying.values().map(|d| match d.stage {
            Stage::Rests(at) | Stage::Forwarded { until: at, .. } | Stage::Proposed { until: at, .. } => at,
        });
        stages.chain(self.unread.iter().map(|u| u.1)).min()
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
}

impl Process {
    /// Brings an entry into the ledger; its asker is answered.
    pub(super) fn submit(&mut self, env: &mut Env<'_>, entry: Signed, within: Duration, asker: Asker) {
        let deadline = self.now(env) + within;
        self.batcher.waiting.push(Pending { entry, deadline, asker });
        self.fly(env);
    }

    fn fly(&mut self, env: &mut Env<'_>) {
        while !self.batcher.waiting.is_empty() && self.batcher.flying.len() < IN_FLIGHT_MAX {
            let count = self.batcher.waiting.len().min(BATCH_ENTRIES_MAX);
            let entries: Vec<Pending> = self.batcher.waiting.drain(..count).collect();
            let number = self.batcher.number();
            let stage = Stage::Rests(self.now(env));
            self.batcher.flying.insert(number, Delivery { entries, stage });
            self.try_once(env, number);
        }
    }

    fn try_once(&mut self, env: &mut Env<'_>, number: u64) {
        let (now, own) = (self.now(env), env.own());
        let Some(mut delivery) = self.batcher.flying.remove(&number) else { return };
        let (late, still): (Vec<_>, Vec<_>) = delivery.entries.into_iter().partition(|p| p.deadline <= now);
        delivery.entries = still;
        let entries: Vec<Signed> = delivery.entries.iter().map(|p| p.entry.clone()).collect();
        if !entries.is_empty() {
            delivery.stage = Stage::Rests(now + PAUSE);
            match self.raft.leader() {
                Some(leader) if leader == self.me && !self.must_wait(env, &entries) => {
                    let payload = encode(&Batch { time_ms: self.ledger_time_ms(env), entries });
                    if let Some((index, term)) = self.raft.propose(payload, own) {
                        delivery.stage = Stage::Proposed { index, term, until: now + PROPOSED };
                    }
                }
                Some(leader) if self.send(env, leader, Message::Submit(number, entries)) => {
                    delivery.stage = Stage::Forwarded { to: leader, until: now + TRY };
                }
                _ => {}
            }
            self.batcher.flying.insert(number, delivery);
        }
        for pending in late {
            self.answered(env, pending.asker, None);
        }
    }

    /// Whether one of them takes out a voter whose yes may be needed for the voters that come.
    fn must_wait(&self, env: &mut Env<'_>, entries: &[Signed]) -> bool {
        let leads = self.raft.grant(env.own()).map(|grant| (self.me, grant.fence));
        self.leading.coming.keeps_back(&self.ledger, leads, &self.raft.members().voters(), entries)
    }

    /// What is due is tried again.
    pub(super) fn deliver_due(&mut self, env: &mut Env<'_>) {
        let now = self.now(env);
        let due = |d: &Delivery| match d.stage {
            Stage::Rests(at) | Stage::Forwarded { until: at, .. } | Stage::Proposed { until: at, .. } => at <= now,
        };
        let numbers: Vec<u64> = self.batcher.flying.iter().filter(|(_, d)| due(d)).map(|(n, _)| *n).collect();
        for number in numbers {
            self.try_once(env, number);
        }
        self.read_own_writes(env);
        self.fly(env);
    }

    fn rest(&mut self, env: &Env<'_>, which: impl Fn(&Stage) -> bool) {
        let at = self.now(env) + PAUSE;
        for delivery in self.batcher.flying.values_mut().filter(|d| which(&d.stage)) {
            delivery.stage = Stage::Rests(at);
        }
    }

    /// The connection to a leader is gone.
    pub(super) fn forward_failed(&mut self, env: &Env<'_>, peer: PeerKey) {
        self.rest(env, |stage| matches!(stage, Stage::Forwarded { to, .. } if *to == peer));
    }

    /// The leader has answered.
    pub(super) fn forwarded(&mut self, env: &mut Env<'_>, number: u64, answer: Option<(u64, Vec<Reply>)>) {
        let now = self.now(env);
        let Some(delivery) = self.batcher.flying.get_mut(&number) else { return };
        if !matches!(delivery.stage, Stage::Forwarded { .. }) {
            return;
        }
        match answer {
            Some((index, replies)) if replies.len() == delivery.entries.len() => self.done(env, number, index, replies),
            _ => delivery.stage = Stage::Rests(now + PAUSE),
        }
    }

    /// An entry of our log was applied: whoever proposed it is answered, or it was somebody else's.
    pub(super) fn proposed(&mut self, env: &mut Env<'_>, at: u64, of: u64, replies: Vec<Reply>) {
        let found = |d: &Delivery| matches!(d.stage, Stage::Proposed { index, .. } if index == at);
        let Some(number) = self.batcher.flying.iter().find(|(_, d)| found(d)).map(|(n, _)| *n) else { return };
        let Some(delivery) = self.batcher.flying.get_mut(&number) else { return };
        let ours = matches!(delivery.stage, Stage::Proposed { term, .. } if term == of);
        if ours && replies.len() == delivery.entries.len() {
            self.done(env, number, at, replies);
        } else {
            delivery.stage = Stage::Rests(Time::default() + env.own().since(self.born) + PAUSE);
        }
    }

    fn done(&mut self, env: &mut Env<'_>, number: u64, index: u64, replies: Vec<Reply>) {
        let Some(delivery) = self.batcher.flying.remove(&number) else { return };
        for (pending, reply) in delivery.entries.into_iter().zip(replies) {
            self.batcher.unread.push((index, pending.deadline, pending.asker, reply));
        }
        self.read_own_writes(env);
        self.fly(env);
    }

    /// Whoever waits is answered once this host's own ledger shows what it did.
    pub(super) fn read_own_writes(&mut self, env: &mut Env<'_>) -> bool {
        let (now, index) = (self.now(env), self.ledger.index());
        let (ready, unread): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.batcher.unread).into_iter().partition(|u| u.0 <= index || u.1 <= now);
        self.batcher.unread = unread;
        let did = !ready.is_empty();
        for (index, _, asker, reply) in ready {
            self.answered(env, asker, Some((index, reply)));
        }
        did
    }

    fn answered(&mut self, env: &mut Env<'_>, asker: Asker, answer: Option<(u64, Reply)>) {
        let reply = answer.as_ref().map(|(_, reply)| reply.clone());
        match asker {
            Asker::Leader => self.led(env, reply),
            Asker::Report(build, attempt) => self.reported(env, build, attempt, reply),
            Asker::Client(request) => {
                if let Some(reply) = reply.filter(Reply::is_ok) {
                    let builds = reply.builds;
                    if !builds.is_empty() {
                        env.cx.accepted(request, &builds);
                        env.cx.fact(Fact::Accepted { request, builds });
                    }
                }
            }
            Asker::Joiner(number) => self.enrolled(env, number, reply),
            Asker::Peer(peer, number, place) => {
                let Some(taken) = self.batcher.taken.get_mut(&(peer, number)) else { return };
                let Some((index, reply)) = answer else {
                    self.batcher.taken.remove(&(peer, number));
                    self.send(env, peer, Message::Submitted(number, None));
                    return;
                };
                taken.replies[place] = Some(reply);
                taken.last = taken.last.max(index);
                taken.left -= 1;
                self.answer_taken(env, peer, number);
            }
            Asker::ByHand(number) => self.written_by_hand(env, number, reply.is_some_and(|reply| reply.is_ok())),
            Asker::Nobody => {}
        }
    }

    fn answer_taken(&mut self, env: &mut Env<'_>, peer: PeerKey, number: u64) {
        if self.batcher.taken.get(&(peer, number)).is_some_and(|taken| taken.left == 0)
            && let Some(taken) = self.batcher.taken.remove(&(peer, number))
        {
            let replies = taken.replies.into_iter().flatten().collect();
            self.send(env, peer, Message::Submitted(number, Some((taken.last, replies))));
        }
    }

    /// The other end: a member sends entries because we lead.
    pub(super) fn take_in(&mut self, env: &mut Env<'_>, peer: PeerKey, number: u64, entries: Vec<Signed>) {
        if self.raft.leader() != Some(self.me) {
            self.send(env, peer, Message::Submitted(number, None));
            return;
        }
        let mut taken = Taken { left: entries.len(), last: 0, replies: vec![None; entries.len()] };
        let mut good = vec![];
        for (place, entry) in entries.into_iter().enumerate() {
            if entry.open::<Entry>().is_ok_and(|e| e.fence.is_none()) {
                good.push((place, entry));
            } else {
                taken.replies[place] =
                    Some(Reply::refused(Code::Invalid, "not readable, or not the sender's to write"));
                taken.left -= 1;
            }
        }
        self.batcher.taken.insert((peer, number), taken);
        for (place, entry) in good {
            self.submit(env, entry, TRY, Asker::Peer(peer, number, place));
        }
        self.answer_taken(env, peer, number);
    }

    /// The stamp of a batch: this term's clock.
    fn ledger_time_ms(&mut self, env: &Env<'_>) -> u64 {
        let (now, term) = (self.now(env), self.raft.store.term);
        match self.clock {
            Some((of, clock)) if of == term => clock.now_ms(now),
            _ => {
                let voters = self.ledger.voters().voters();
                let others = voters.iter().filter(|v| **v != self.me);
                let offsets: Vec<i64> = others.filter_map(|v| self.members.host(v)?.wall_offset_ms).collect();
                let (last_ms, majority) = (self.ledger.time_ms(), voters.len() / 2 + 1);
                let clock = LedgerClock::start(last_ms, env.wall_ms(), &offsets, majority, now);
                self.clock = Some((term, clock));
                clock.now_ms(now)
            }
        }
    }

    /// Lets ledger time pass with an empty batch, when something that stands waits for it. After
    /// `node::driver::restrain`.
    pub(super) fn let_time_pass(&mut self, env: &mut Env<'_>, verdicts: &[Verdict]) {
        let (now, own) = (self.now(env), env.own());
        let at_ms = wakes_ms(&self.ledger, verdicts);
        let time_ms = self.ledger_time_ms(env);
        if time_ms >= at_ms && now.since(self.leading.let_pass) >= LET_PASS {
            self.leading.let_pass = now;
            self.raft.propose(encode(&Batch { time_ms, entries: vec![] }), own);
        }
    }

    /// Signs a command of this host's own and submits it.
    pub(super) fn ask(&mut self, env: &mut Env<'_>, command: Command, within: Duration, asker: Asker) {
        let request = self.request_id(env);
        let entry = Entry::seal(&env.m.keys, self.mesh, request, None, command);
        self.submit(env, entry, within, asker);
    }

    /// Gives entries as they are to whoever leads, as a program that keeps no rules would.
    pub(super) fn slip_in(&mut self, env: &mut Env<'_>, entry: Signed) {
        let own = env.own();
        match self.raft.leader() {
            Some(leader) if leader == self.me => {
                let payload = encode(&Batch { time_ms: self.ledger_time_ms(env), entries: vec![entry] });
                self.raft.propose(payload, own);
            }
            Some(leader) => {
                let number = self.batcher.number();
                self.send(env, leader, Message::Submit(number, vec![entry]));
            }
            None => {}
        }
        self.settle(env);
    }
}

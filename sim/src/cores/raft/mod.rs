//! A model of Raft under the ledger: terms, votes, log matching, joint majorities, lease and boot quarantine.
//!
//! After Ongaro's dissertation (2014) with pre-vote, leader leases and learners, as the node's consensus is set up.
//! It is no openraft: no snapshots, no client sessions, and a log of a few thousand entries at most. What it writes
//! is a list of [`Op`]s for the disk; what must not be said before it is synced waits for [`Raft::synced`].
//! Messages are of one voter to another and already authenticated. Leading is in `leading.rs`.

mod leading;

use crate::cores::kit::Dice;
use mesh::identity::PeerKey;
use mesh::mutants::{Mutant, on};
use mesh::time::Time;
use node::consensus::Timing;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Who votes (several sets: a majority of each is needed) and who only listens.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Members {
    /// One set, or the old and the new one.
    pub joint: Vec<BTreeSet<PeerKey>>,
    /// Those that get the log and do not vote.
    pub learners: BTreeSet<PeerKey>,
}

impl Members {
    /// Everybody who votes.
    pub fn voters(&self) -> BTreeSet<PeerKey> {
        self.joint.iter().flatten().copied().collect()
    }

    fn votes(&self, peer: &PeerKey) -> bool {
        self.joint.iter().any(|set| set.contains(peer))
    }

    fn quorum(&self, has: impl Fn(&PeerKey) -> bool) -> bool {
        !self.joint.is_empty() && self.joint.iter().all(|set| set.iter().filter(|p| has(p)).count() > set.len() / 2)
    }

    /// The greatest value that a majority of each set has reached.
    fn reached<T: Ord + Copy>(&self, of: impl Fn(&PeerKey) -> Option<T>) -> Option<T> {
        let each = self.joint.iter().map(|set| {
            let mut values: Vec<Option<T>> = set.iter().map(&of).collect();
            values.sort_unstable();
            values.get((set.len() - 1) / 2).copied().flatten()
        });
        each.min().flatten()
    }
}

/// What an entry of the log carries.
#[derive(Clone, Debug)]
pub enum Payload {
    /// A new leader's first.
    Blank,
    /// An encoded batch of the ledger.
    Batch(Arc<[u8]>),
    /// Who votes from here on.
    Members(Arc<Members>),
}

/// An entry of the log.
#[derive(Clone, Debug)]
pub struct Item {
    /// The leader's term.
    pub term: u64,
    /// What it carries.
    pub payload: Payload,
}

/// What a disk keeps of Raft.
#[derive(Clone, Debug, Default)]
pub struct Store {
    /// The present term.
    pub term: u64,
    /// Whom this host voted for in it.
    pub voted: Option<PeerKey>,
    /// The log, from index 1.
    pub log: Vec<Arc<Item>>,
    /// Up to where it is known to be committed.
    pub commit: u64,
}

/// A write to the disk.
#[derive(Clone, Debug)]
pub enum Op {
    /// Term and vote.
    Vote(u64, Option<PeerKey>),
    /// Cuts the log off behind this index.
    Cut(u64),
    /// Appends to the log.
    Append(Arc<Item>),
    /// The commit mark.
    Commit(u64),
}

impl Store {
    /// Does it.
    pub fn write(&mut self, op: &Op) {
        match op {
            Op::Vote(term, voted) => (self.term, self.voted) = (*term, *voted),
            Op::Cut(index) => self.log.truncate(*index as usize),
            Op::Append(item) => self.log.push(item.clone()),
            Op::Commit(index) => self.commit = *index,
        }
    }

    /// Index and term of the last entry.
    pub fn last(&self) -> (u64, u64) {
        (self.log.len() as u64, self.log.last().map_or(0, |item| item.term))
    }

    /// The term of an entry; 0 before the first.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        if index == 0 { Some(0) } else { self.log.get(index as usize - 1).map(|item| item.term) }
    }
}

/// What voters and learners say to each other.
#[derive(Clone, Debug)]
pub enum Talk {
    /// Would you vote for me, or: do.
    Ask {
        /// The term asked for.
        term: u64,
        /// Only a question.
        pre: bool,
        /// Index and term of the candidate's last entry.
        last: (u64, u64),
    },
    /// The answer.
    Vote {
        /// The term that was asked for, or a higher one that is known.
        term: u64,
        /// Of a mere question.
        pre: bool,
        /// Yes.
        granted: bool,
    },
    /// A leader's heartbeat, with entries or without.
    Append {
        /// The leader's term.
        term: u64,
        /// Index and term of the entry before these.
        before: (u64, u64),
        /// Entries.
        items: Vec<Arc<Item>>,
        /// The leader's commit mark.
        commit: u64,
        /// The leader's clock when it sent this.
        sent: Time,
    },
    /// The answer.
    Appended {
        /// The follower's term.
        term: u64,
        /// The last index that agrees; or, when none did, the next to try.
        index: Result<u64, u64>,
        /// From the heartbeat.
        sent: Time,
    },
}

impl Talk {
    /// Bytes on a wire, about.
    pub fn size(&self) -> usize {
        match self {
            Talk::Append { items, .. } => 80 + items.iter().map(|item| item.size()).sum::<usize>(),
            Talk::Ask { .. } | Talk::Vote { .. } | Talk::Appended { .. } => 60,
        }
    }
}

impl Item {
    fn size(&self) -> usize {
        match &self.payload {
            Payload::Blank => 16,
            Payload::Batch(bytes) => 16 + bytes.len(),
            Payload::Members(members) => 16 + 34 * (members.voters().len() + members.learners.len()),
        }
    }
}

enum Role {
    Follower,
    /// Votes so far; only asking at first.
    Candidate {
        pre: bool,
        votes: BTreeSet<PeerKey>,
    },
    Leader(leading::Leader),
}

/// Raft on one host, from a start of its process to the end of it.
pub struct Raft {
    me: PeerKey,
    timing: Timing,
    /// The log as this process has it, synced or not.
    pub store: Store,
    /// Writes that the disk has not been given yet.
    pub ops: Vec<Op>,
    written: u64,
    synced: u64,
    /// Writes, and the last index once they are synced.
    marks: VecDeque<(u64, u64)>,
    durable: u64,
    gated: VecDeque<(u64, PeerKey, Talk)>,
    /// To be sent now.
    pub out: Vec<(PeerKey, Talk)>,
    role: Role,
    leader: Option<PeerKey>,
    heard: Option<Time>,
    elect_at: Time,
    /// No vote and no candidacy before this.
    pub quiet_until: Time,
    members: Vec<(u64, Arc<Members>)>,
    /// Voters by the ledger, at their epoch, and those that have shown since that they vote: a host that is behind may not
    /// know the newest by its log. As `node::consensus::vouched`.
    vouched: (u64, BTreeSet<PeerKey>),
    shown: BTreeSet<PeerKey>,
    /// The term in which this process has accepted a leader, and whom.
    accepted: Option<(u64, PeerKey)>,
    /// Up to where the owner has applied the log.
    pub applied: u64,
}

impl Raft {
    /// A process starts over what the disk holds.
    pub fn new(me: PeerKey, timing: Timing, store: Store, written: u64, now: Time, dice: &mut Dice) -> Raft {
        let mut raft = Raft {
            me,
            timing,
            durable: store.log.len() as u64,
            store,
            ops: vec![],
            written,
            synced: written,
            marks: VecDeque::new(),
            gated: VecDeque::new(),
            out: vec![],
            role: Role::Follower,
            leader: None,
            heard: None,
            elect_at: now,
            quiet_until: now,
            members: vec![],
            vouched: (0, BTreeSet::new()),
            shown: BTreeSet::new(),
            accepted: None,
            applied: 0,
        };
        for (index, item) in (1..).zip(&raft.store.log) {
            if let Payload::Members(members) = &item.payload {
                raft.members.push((index, members.clone()));
            }
        }
        if !raft.alone() && !on(Mutant::NoBootQuarantine) {
            raft.quiet_until = now + raft.timing.quarantine();
        }
        if !raft.alone() {
            raft.rest(now, dice);
        }
        raft
    }

    /// The first host's log begins with itself as the only voter.
    pub fn initialize(&mut self) {
        if self.store.log.is_empty() {
            let members = Members { joint: vec![BTreeSet::from([self.me])], learners: BTreeSet::new() };
            self.append(Item { term: 0, payload: Payload::Members(Arc::new(members)) });
        }
    }

    /// The newest membership known, committed or not.
    pub fn members(&self) -> Members {
        self.members.last().map(|(_, members)| (**members).clone()).unwrap_or_default()
    }

    /// Whether this host leads, in which term.
    pub fn leads(&self) -> Option<u64> {
        matches!(self.role, Role::Leader(_)).then_some(self.store.term)
    }

    /// Who leads, as far as this host knows.
    pub fn leader(&self) -> Option<PeerKey> {
        self.leader
    }

    fn alone(&self) -> bool {
        self.members.last().is_some_and(|(_, m)| m.joint.iter().all(|s| s.len() == 1 && s.contains(&self.me)))
    }

    fn newest(&self) -> Option<&Arc<Members>> {
        self.members.last().map(|(_, members)| members)
    }

    /// Campaigns later. Not before the own promise to a leader is over: a candidate votes for itself.
    fn rest(&mut self, now: Time, dice: &mut Dice) {
        let spread = (self.timing.lease - self.timing.election_min).as_micros() as u64;
        let promised = self.heard.map_or(now, |at| at + self.timing.lease);
        let at = now.max(promised) + self.timing.election_min + Duration::from_micros(dice.below(spread));
        self.elect_at = at.max(self.quiet_until);
    }

    fn write(&mut self, op: Op) {
        self.store.write(&op);
        self.ops.push(op);
        self.written += 1;
    }

    /// How many writes it has asked for, by its own count.
    pub fn written(&self) -> u64 {
        self.written
    }

    fn append(&mut self, item: Item) -> u64 {
        let index = self.store.log.len() as u64 + 1;
        if let Payload::Members(members) = &item.payload {
            self.members.push((index, members.clone()));
        }
        self.write(Op::Append(Arc::new(item)));
        self.marks.push_back((self.written, index));
        index
    }

    fn cut(&mut self, index: u64) {
        self.write(Op::Cut(index));
        self.durable = self.durable.min(index);
        self.marks.retain(|(_, last)| *last <= index);
        self.members.retain(|(at, _)| *at <= index);
    }

    /// Says something, but not before all that is written is synced.
    fn promise(&mut self, to: PeerKey, talk: Talk) {
        if self.synced >= self.written || on(Mutant::AckBeforeSync) {
            self.out.push((to, talk));
        } else {
            self.gated.push_back((self.written, to, talk));
        }
    }

    /// So many of its writes, by its own count, are on the disk.
    pub fn synced(&mut self, written: u64, now: Time) {
        self.synced = self.synced.max(written);
        while let Some((_, last)) = self.marks.pop_front_if(|(mark, _)| *mark <= written) {
            self.durable = last;
        }
        while let Some((_, to, talk)) = self.gated.pop_front_if(|(mark, _, _)| *mark <= written) {
            self.out.push((to, talk));
        }
        self.count_votes(now);
        self.advance(now);
    }

    /// When [`Raft::tick`] is due.
    pub fn due(&self) -> Option<Time> {
        match &self.role {
            Role::Leader(leader) => Some(leader.beat_at),
            _ => self.may_campaign().then_some(self.elect_at.max(self.quiet_until)),
        }
    }

    /// A voter, or one that is taken out by an entry that is not committed: who has the longest log may have to lead once
    /// more for it to be (Ongaro 2014, section 4.2.2). As openraft.
    fn may_campaign(&self) -> bool {
        let committed = self.members.iter().rfind(|(at, _)| *at <= self.store.commit).map(|(_, members)| members);
        self.newest().into_iter().chain(committed).any(|members| members.votes(&self.me))
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Time, dice: &mut Dice) {
        if matches!(self.role, Role::Leader(_)) {
            self.beat(now);
        } else if self.due().is_some_and(|at| now >= at) {
            self.rest(now, dice);
            self.leader = None;
            self.ask(true, now);
        }
    }

    fn ask(&mut self, pre: bool, now: Time) {
        if !pre {
            self.write(Op::Vote(self.store.term + 1, Some(self.me)));
        }
        let term = if pre { self.store.term + 1 } else { self.store.term };
        self.role = Role::Candidate { pre, votes: BTreeSet::from([self.me]) };
        let talk = Talk::Ask { term, pre, last: self.store.last() };
        let mut others = self.members().voters();
        others.remove(&self.me);
        for peer in others {
            self.promise(peer, talk.clone());
        }
        self.count_votes(now);
    }

    fn count_votes(&mut self, now: Time) {
        let Role::Candidate { pre, votes } = &self.role else { return };
        let (pre, won) = (*pre, self.newest().is_some_and(|m| m.quorum(|p| votes.contains(p))));
        if won && pre {
            self.ask(false, now);
        } else if won && (self.synced >= self.written || on(Mutant::AckBeforeSync)) {
            self.lead(now);
        }
    }

    fn follow(&mut self, term: u64) {
        if term > self.store.term {
            self.write(Op::Vote(term, None));
        }
        self.role = Role::Follower;
    }

    /// Whether this host may hear such things from a peer: one that votes, as far as this host can know.
    fn knows(&self, peer: &PeerKey) -> bool {
        self.newest().is_none_or(|m| m.votes(peer)) || self.vouched.1.contains(peer) || self.shown.contains(peer)
    }

    /// The ledger's voters, at their epoch, and whom a newcomer was told of. What was shown is walked anew for others.
    pub fn vouch(&mut self, epoch: u64, voters: BTreeSet<PeerKey>) {
        if self.vouched.0 != epoch {
            self.shown.clear();
        }
        self.vouched = (epoch, voters);
    }

    /// A peer has shown that it votes.
    pub fn shown(&mut self, peer: PeerKey) {
        self.shown.insert(peer);
    }

    /// Whether what a peer says is heard. Whom this process has accepted as the leader of a term it hears to the end of
    /// that, whatever the part of the log that has come so far says of voters.
    pub fn hears(&self, from: &PeerKey, talk: &Talk) -> bool {
        match talk {
            Talk::Ask { .. } => self.knows(from),
            Talk::Append { term, .. } => {
                self.knows(from) || (*term == self.store.term && self.accepted == Some((*term, *from)))
            }
            Talk::Vote { .. } | Talk::Appended { .. } => true,
        }
    }

    /// Somebody who is heard said something, on its own connection.
    pub fn hear(&mut self, from: PeerKey, talk: Talk, now: Time, dice: &mut Dice) {
        match talk {
            Talk::Ask { term, pre, last } => self.asked(from, term, pre, last, now, dice),
            Talk::Append { term, before, items, commit, sent } => {
                self.appended(from, term, before, items, commit, sent, now, dice);
            }
            Talk::Vote { term, pre, granted } => self.voted(from, term, pre, granted, now),
            Talk::Appended { term, index, sent } => self.answered(from, term, index, sent, now),
        }
    }

    fn asked(&mut self, from: PeerKey, term: u64, pre: bool, last: (u64, u64), now: Time, dice: &mut Dice) {
        if now < self.quiet_until {
            return;
        }
        let bound = match &self.role {
            Role::Leader(_) => self.acked(now).is_some_and(|at| now < at + self.timing.lease),
            _ => self.heard.is_some_and(|at| now < at + self.timing.lease),
        };
        // A voter that acknowledged a leader gives nobody else its vote for a lease.
        let bound = bound && self.leader != Some(from);
        let newer = (last.1, last.0) >= (self.store.last().1, self.store.last().0);
        if bound || term < self.store.term || !newer || (pre && term == self.store.term) {
            self.out.push((from, Talk::Vote { term: self.store.term, pre, granted: false }));
            return;
        }
        if !pre {
            if term > self.store.term {
                self.follow(term);
                self.leader = None;
            }
            if self.store.voted.is_some_and(|to| to != from) {
                self.out.push((from, Talk::Vote { term, pre, granted: false }));
                return;
            }
            if self.store.voted.is_none() {
                self.write(Op::Vote(term, Some(from)));
            }
            self.rest(now, dice);
        }
        self.promise(from, Talk::Vote { term, pre, granted: true });
    }

    fn voted(&mut self, from: PeerKey, term: u64, of_pre: bool, granted: bool, now: Time) {
        let wanted = |pre: bool| if pre { self.store.term + 1 } else { self.store.term };
        match &mut self.role {
            Role::Candidate { pre, votes } if granted && *pre == of_pre && term == wanted(*pre) => {
                votes.insert(from);
                self.count_votes(now);
            }
            _ if !granted && term > self.store.term => self.follow(term),
            _ => {}
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn appended(
        &mut self,
        from: PeerKey,
        term: u64,
        before: (u64, u64),
        items: Vec<Arc<Item>>,
        commit: u64,
        sent: Time,
        now: Time,
        dice: &mut Dice,
    ) {
        if term < self.store.term {
            let index = Err(self.store.last().0 + 1);
            self.out.push((from, Talk::Appended { term: self.store.term, index, sent }));
            return;
        }
        self.follow(term);
        self.leader = Some(from);
        self.accepted = Some((term, from));
        self.heard = Some(now);
        self.rest(now, dice);
        if self.store.term_at(before.0) != Some(before.1) {
            if before.0 <= self.store.commit {
                return; // of what is committed nothing is given up: an answer would be asked for again, at once, for ever
            }
            let next = (self.store.last().0 + 1).min(before.0).max(self.store.commit + 1);
            self.promise(from, Talk::Appended { term, index: Err(next), sent });
            return;
        }
        let agreed = before.0 + items.len() as u64;
        for (index, item) in (before.0 + 1..).zip(items) {
            match self.store.term_at(index) {
                Some(term) if term == item.term => continue,
                Some(_) => self.cut(index - 1),
                None => {}
            }
            self.append((*item).clone());
        }
        let commit = commit.min(agreed);
        if commit > self.store.commit {
            self.write(Op::Commit(commit));
        }
        self.promise(from, Talk::Appended { term, index: Ok(agreed), sent });
    }
}

#[cfg(test)]
mod tests;

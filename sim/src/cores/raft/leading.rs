//! The leader's half: replication, commit by majority, changes of the membership, the lease.

use super::*;
use mesh::lease::{Grant, LeaseInput, grant};

/// Entries in one message.
const ITEMS_MAX: usize = 256;
/// A follower whose log ends so close to ours may become a voter.
const CAUGHT_UP: u64 = 256;

struct Progress {
    /// The next entry to send.
    next: u64,
    /// Known to be there, and synced.
    matched: u64,
    /// When the newest message that it answered was sent.
    acked: Option<Time>,
    /// When something was sent that is not answered yet.
    waits: Option<Time>,
}

pub(super) struct Leader {
    peers: BTreeMap<PeerKey, Progress>,
    pub beat_at: Time,
    /// Where its term begins.
    first: u64,
    /// Since when it is a voter no more.
    removed: Option<Time>,
}

impl Raft {
    pub(super) fn lead(&mut self, now: Time) {
        let first = self.store.last().0 + 1;
        self.role = Role::Leader(Leader { peers: BTreeMap::new(), beat_at: now, first, removed: None });
        self.leader = Some(self.me);
        self.append(Item { term: self.store.term, payload: Payload::Blank });
        self.beat(now);
    }

    /// When the messages were sent that a majority has answered.
    pub(super) fn acked(&self, now: Time) -> Option<Time> {
        let Role::Leader(leader) = &self.role else { return None };
        let of = |p: &PeerKey| if *p == self.me { Some(now) } else { leader.peers.get(p)?.acked };
        self.newest()?.reached(of)
    }

    pub(super) fn beat(&mut self, now: Time) {
        let members = self.members();
        let is_voter = members.joint.last().is_some_and(|set| set.contains(&self.me));
        let committed = self.members.last().is_some_and(|(at, _)| *at <= self.store.commit);
        let Role::Leader(leader) = &mut self.role else { return };
        leader.beat_at = now + self.timing.heartbeat;
        if !is_voter && committed {
            // Long enough that its removal is heard of, and no grant of before is left.
            let since = *leader.removed.get_or_insert(now);
            if now >= since + self.timing.lease {
                self.role = Role::Follower;
                self.leader = None;
                return;
            }
        }
        let last = self.store.last().0;
        let wanted: BTreeSet<PeerKey> =
            members.voters().into_iter().chain(members.learners).filter(|p| *p != self.me).collect();
        leader.peers.retain(|peer, _| wanted.contains(peer));
        for peer in &wanted {
            let progress = Progress { next: last + 1, matched: 0, acked: None, waits: None };
            leader.peers.entry(*peer).or_insert(progress);
        }
        for peer in wanted {
            self.replicate(peer, now, true);
        }
    }

    fn replicate(&mut self, peer: PeerKey, now: Time, always: bool) {
        let (last, lease) = (self.store.last().0, self.timing.lease);
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.peers.get_mut(&peer) else { return };
        if progress.waits.is_some_and(|at| now.since(at) > lease / 2) {
            progress.next = progress.matched + 1; // lost with a connection, perhaps
            progress.waits = None;
        }
        if progress.next > last && !always {
            return;
        }
        let before = progress.next - 1;
        let items: Vec<Arc<Item>> = self.store.log[before as usize..].iter().take(ITEMS_MAX).cloned().collect();
        progress.next += items.len() as u64;
        if !items.is_empty() {
            progress.waits.get_or_insert(now);
        }
        let before = (before, self.store.term_at(before).unwrap_or(0));
        let talk = Talk::Append { term: self.store.term, before, items, commit: self.store.commit, sent: now };
        self.out.push((peer, talk));
    }

    fn spread(&mut self, now: Time, always: bool) {
        let Role::Leader(leader) = &self.role else { return };
        for peer in leader.peers.keys().copied().collect::<Vec<_>>() {
            self.replicate(peer, now, always);
        }
    }

    pub(super) fn answered(&mut self, from: PeerKey, term: u64, index: Result<u64, u64>, sent: Time, now: Time) {
        if term > self.store.term {
            self.follow(term);
            self.leader = None;
            return;
        }
        let last = self.store.last().0;
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.peers.get_mut(&from).filter(|_| term == self.store.term) else { return };
        progress.acked = progress.acked.max(Some(sent));
        match index {
            Ok(matched) => {
                progress.matched = progress.matched.max(matched.min(last));
                progress.next = progress.next.max(progress.matched + 1);
                if progress.matched + 1 >= progress.next {
                    progress.waits = None;
                }
                self.replicate(from, now, false);
                self.advance(now);
            }
            Err(next) => {
                progress.next = next.clamp(1, last + 1);
                progress.waits = None;
                self.replicate(from, now, true);
            }
        }
    }

    /// Commits what a majority holds, of the present term and with it all before (dissertation, 3.6.2).
    pub(super) fn advance(&mut self, now: Time) {
        let Role::Leader(leader) = &self.role else { return };
        let own = if on(Mutant::AckBeforeSync) { self.store.last().0 } else { self.durable };
        let of = |p: &PeerKey| Some(if *p == self.me { own } else { leader.peers.get(p).map_or(0, |o| o.matched) });
        let reached = self.newest().and_then(|m| m.reached(of)).unwrap_or(0);
        if reached > self.store.commit && self.store.term_at(reached) == Some(self.store.term) {
            self.write(Op::Commit(reached));
            self.spread(now, true);
            self.leave_joint(now);
        }
    }

    /// A joint membership that is committed is followed by the new one alone.
    fn leave_joint(&mut self, now: Time) {
        let Some((at, members)) = self.members.last().cloned() else { return };
        if at > self.store.commit || members.joint.len() < 2 {
            return;
        }
        let new = members.joint.last().cloned().unwrap_or_default();
        let dropped: BTreeSet<PeerKey> = members.voters().difference(&new).copied().collect();
        let learners = members.learners.union(&dropped).filter(|p| !new.contains(p)).copied().collect();
        self.change(Members { joint: vec![new], learners }, now);
    }

    fn change(&mut self, members: Members, now: Time) {
        self.append(Item { term: self.store.term, payload: Payload::Members(Arc::new(members)) });
        self.beat(now);
        self.advance(now);
    }

    /// Whether a change of the membership can begin: this host leads, has committed in its term, and none is under way.
    pub fn may_change(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let committed = self.members.last().is_some_and(|(at, m)| *at <= self.store.commit && m.joint.len() == 1);
        committed && self.store.commit >= leader.first
    }

    /// Makes learners of peers, or strangers of learners.
    pub fn set_learners(&mut self, learners: BTreeSet<PeerKey>, now: Time) {
        let joint = self.members().joint;
        self.change(Members { joint, learners }, now);
    }

    /// Begins the way to other voters, over a joint membership.
    pub fn set_voters(&mut self, voters: BTreeSet<PeerKey>, now: Time) {
        let Members { mut joint, learners } = self.members();
        joint.push(voters);
        self.change(Members { joint, learners }, now);
    }

    /// Proposes a batch. Gives its index and term, when this host leads.
    pub fn propose(&mut self, batch: Vec<u8>, now: Time) -> Option<(u64, u64)> {
        let term = self.leads()?;
        let index = self.append(Item { term, payload: Payload::Batch(batch.into()) });
        self.spread(now, false);
        Some((index, term))
    }

    /// Whether the log of a peer ends close to ours.
    pub fn is_caught_up(&self, peer: &PeerKey) -> bool {
        let last = self.store.last().0;
        match &self.role {
            Role::Leader(_) if *peer == self.me => true,
            Role::Leader(leader) => {
                leader.peers.get(peer).is_some_and(|p| p.acked.is_some() && last - p.matched.min(last) <= CAUGHT_UP)
            }
            _ => false,
        }
    }

    /// Leave to act as the leader, by the rule of [`mesh::lease`].
    pub fn grant(&self, now: Time) -> Option<Grant> {
        let term = self.leads()?;
        let own = self.applied > 0 && self.store.term_at(self.applied) == Some(term);
        if on(Mutant::LeadershipIsLease) {
            let fence = mesh::lease::Fence { epoch: 0, term };
            return own.then_some(Grant { fence, until: now + self.timing.lease });
        }
        let input = LeaseInput {
            is_leader: own,
            is_voter: self.members().joint.last().is_some_and(|set| set.contains(&self.me)),
            sole_voter: self.alone(),
            last_quorum_acked: self.acked(now),
            lease: self.timing.lease,
            margin: self.timing.margin,
            epoch: 0,
            term,
        };
        grant(&input, now)
    }
}

//! What is known of the hosts that answer, so that nobody's log goes back unnoticed.
//!
//! A key is meant to have one process, whose log never gets shorter than what it acknowledged: that was on
//! its disk. A copied state folder, an old backup or a disk that lied breaks this. openraft takes such an
//! answer for a bug and panics; without that check it would count entries that are held nowhere. So each
//! answer is compared with what was acknowledged in this leadership before openraft sees it, and counts only
//! if it comes from the one process of its key that this host has accepted. A process that takes over from
//! another has to have a higher start number, and has to show that it holds what was acknowledged. Nothing
//! here sends or decides membership: [`super::rpc`] asks, the driver evicts and adds.

use super::types::{LogId, Vote};
use mesh::identity::PeerKey;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One process of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The start number: goes up with each start of a state folder.
    pub start: u64,
    /// Fingerprint of state folder, machine, boot and process, as in [`mesh::membership::origin`].
    pub origin: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Every peer's [`Record`], and who is known to be cloned.
#[derive(Default)]
pub(super) struct Peers {
    records: Mutex<BTreeMap<PeerKey, Arc<Record>>>,
    suspended: Mutex<BTreeSet<PeerKey>>,
    learners: Mutex<BTreeSet<PeerKey>>,
}

/// One peer as the leader's clients of it share it.
pub(super) struct Record {
    peer: PeerKey,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    term: u64,
    process: Option<Process>,
    acked: Option<LogId>,
    refused: Option<String>,
    /// It was a voter when it was refused: nobody knows what else it has promised and forgotten.
    held: bool,
    /// The last other process that was told off, so that the log says so once.
    told: Option<Process>,
}

/// What to do with a process that has just said which one it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// The one whose answers count.
    Same,
    /// A new one, which has to show that it holds this entry before anything it says counts.
    MustHold(LogId),
}

impl Peers {
    /// The record of a peer, for a new client.
    pub(super) fn record(&self, peer: PeerKey) -> Arc<Record> {
        let fresh = || Arc::new(Record { peer, kept: Mutex::default() });
        lock(&self.records).entry(peer).or_insert_with(fresh).clone()
    }

    /// Forgets a peer that was removed from the membership; clients that are left keep the old record.
    pub(super) fn forget(&self, peer: PeerKey) {
        lock(&self.records).remove(&peer);
    }

    /// Replaces the hosts whose answers count for nothing because their key is alive twice.
    pub(super) fn suspend(&self, peers: BTreeSet<PeerKey>) {
        *lock(&self.suspended) = peers;
    }

    /// Replaces the hosts that have no vote in any membership that counts now.
    pub(super) fn set_learners(&self, learners: BTreeSet<PeerKey>) {
        *lock(&self.learners) = learners;
    }

    /// Whether nothing hangs on a host's answers but what it holds itself.
    pub(super) fn is_learner(&self, peer: &PeerKey) -> bool {
        lock(&self.learners).contains(peer)
    }

    /// Whether a host's key is alive twice.
    pub(super) fn is_suspended(&self, peer: &PeerKey) -> bool {
        lock(&self.suspended).contains(peer)
    }

    /// Whether [`Peers::refused`] names anybody.
    pub(super) fn refuses_any(&self) -> bool {
        lock(&self.records).values().any(|record| lock(&record.kept).refused.is_some())
    }

    /// Whose logs went back, why each is refused, and whether it voted then.
    pub(super) fn refused(&self, voters: &BTreeSet<PeerKey>) -> BTreeMap<PeerKey, (String, bool)> {
        let records = lock(&self.records);
        let refused = records.iter().filter_map(|(peer, record)| {
            let mut kept = lock(&record.kept);
            let why = kept.refused.clone()?;
            kept.held |= voters.contains(peer);
            Some((*peer, (why, kept.held)))
        });
        refused.collect()
    }
}

impl Record {
    /// Begins a request of the leader of `vote`: what the peer has acknowledged to it up to now.
    pub(super) fn begin(&self, vote: &Vote) -> Option<LogId> {
        let mut kept = lock(&self.kept);
        let term = vote.leader_id.term;
        if term > kept.term {
            // What was acknowledged to another leader may rightly have been replaced since.
            (kept.term, kept.acked) = (term, None);
            if !kept.held {
                kept.refused = None;
            }
        }
        kept.acked.filter(|_| kept.term == term)
    }

    /// Whether a stream to this process may still be used.
    pub(super) fn is_current(&self, process: Process) -> bool {
        let kept = lock(&self.kept);
        kept.process == Some(process) && kept.refused.is_none()
    }

    /// A process answers a new stream.
    ///
    /// # Errors
    /// Why it does not count.
    pub(super) fn meet(&self, process: Process) -> Result<Met, String> {
        let mut kept = lock(&self.kept);
        let Some(known) = kept.process else {
            kept.process = Some(process);
            return Ok(Met::Same);
        };
        if known == process {
            return kept.refused.clone().map_or(Ok(Met::Same), Err);
        }
        if process.start > known.start {
            return Ok(match kept.acked {
                Some(acked) => Met::MustHold(acked),
                None => match &kept.refused {
                    Some(why) => return Err(why.clone()),
                    None => {
                        kept.process = Some(process);
                        Met::Same
                    }
                },
            });
        }
        let why = format!(
            "another process of its key answers (start {}, where {} is known): a cloned disk or a restored backup",
            process.start, known.start
        );
        if kept.told.replace(process) != Some(process) {
            tracing::warn!(peer = %self.peer.short(), why, "answers of a host are not counted");
        }
        Err(why)
    }

    /// A new process has shown that it holds what was acknowledged. False when a newer one came meanwhile.
    pub(super) fn accept(&self, process: Process) -> bool {
        let mut kept = lock(&self.kept);
        if kept.process.is_some_and(|known| known != process && known.start >= process.start) {
            return false;
        }
        (kept.process, kept.refused, kept.held) = (Some(process), None, false);
        true
    }

    /// The peer holds the leader's log up to `id`.
    ///
    /// # Errors
    /// When another process has taken over meanwhile: the answer must not count.
    pub(super) fn holds(&self, process: Process, vote: &Vote, id: Option<LogId>) -> Result<(), String> {
        let mut kept = lock(&self.kept);
        if kept.process != Some(process) || kept.refused.is_some() {
            return Err("another process of its key has taken over meanwhile".to_owned());
        }
        if kept.term == vote.leader_id.term {
            kept.acked = kept.acked.max(id);
        }
        Ok(())
    }

    /// The peer does not hold `id`. `before` is what it had acknowledged when it was asked.
    ///
    /// # Errors
    /// When that contradicts what it acknowledged: the answer must not be seen by openraft.
    pub(super) fn lacks(
        &self,
        process: Process,
        vote: &Vote,
        before: Option<LogId>,
        id: Option<LogId>,
    ) -> Result<(), String> {
        let mut kept = lock(&self.kept);
        let (Some(id), true) = (id, kept.term == vote.leader_id.term) else { return Ok(()) };
        if kept.acked.is_none_or(|acked| acked.index < id.index) {
            return Ok(());
        }
        if before.is_none_or(|acked| acked.index < id.index) {
            return Err("an answer from before it acknowledged more".to_owned());
        }
        if kept.process.is_some_and(|known| known != process && known.start >= process.start) {
            return Err("another process of its key has taken over meanwhile".to_owned());
        }
        let why = format!(
            "its log went back: it acknowledged entry {} and now lacks entry {}; a restored backup, a cloned disk, \
             or a disk that lost what it had synced",
            kept.acked.map_or(0, |acked| acked.index),
            id.index
        );
        tracing::warn!(peer = %self.peer.short(), start = process.start, why, "a host is sent nothing more");
        (kept.process, kept.refused) = (Some(process), Some(why.clone()));
        Err(why)
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::TypeConfig;
    use super::*;
    use mesh::identity::Keys;

    const FIRST: Process = Process { start: 1, origin: 7 };
    const TWIN: Process = Process { start: 1, origin: 8 };
    const NEXT: Process = Process { start: 2, origin: 9 };

    fn peer() -> PeerKey {
        Keys::from_seed([1; 32]).key()
    }

    fn vote(term: u64) -> Vote {
        Vote::new_committed(term, peer())
    }

    fn id(index: u64) -> Option<LogId> {
        Some(LogId::new(openraft::type_config::alias::CommittedLeaderIdOf::<TypeConfig>::new(1), index))
    }

    fn acked(index: u64) -> (Peers, Arc<Record>) {
        let peers = Peers::default();
        let record = peers.record(peer());
        assert_eq!(record.begin(&vote(1)), None);
        assert_eq!(record.meet(FIRST), Ok(Met::Same));
        record.holds(FIRST, &vote(1), id(index)).unwrap();
        (peers, record)
    }

    #[test]
    fn searching_for_where_the_logs_part_is_no_reversion() {
        let (_, record) = acked(10);
        let before = record.begin(&vote(1));
        assert_eq!(record.lacks(FIRST, &vote(1), before, id(11)), Ok(()));
        assert_eq!(record.lacks(FIRST, &vote(1), before, None), Ok(()));
        record.holds(FIRST, &vote(1), id(20)).unwrap();
        assert!(record.lacks(FIRST, &vote(1), before, id(15)).is_err(), "an old answer is not handed on");
        assert!(record.is_current(FIRST), "but says nothing against it");
    }

    #[test]
    fn a_log_that_went_back_is_refused_until_a_later_start_holds_all() {
        let (peers, record) = acked(10);
        let before = record.begin(&vote(1));
        assert!(record.lacks(FIRST, &vote(1), before, id(10)).is_err());
        assert!(!record.is_current(FIRST) && record.meet(FIRST).is_err());
        assert!(record.holds(FIRST, &vote(1), id(10)).is_err(), "nor is it counted");
        assert!(peers.refused(&BTreeSet::new())[&peer()].0.contains("went back"));
        assert_eq!(record.meet(NEXT), Ok(Met::MustHold(id(10).unwrap())));
        assert!(record.accept(NEXT));
        assert!(peers.refused(&BTreeSet::new()).is_empty());
        assert!(record.is_current(NEXT) && record.meet(FIRST).is_err(), "there is no way back");
    }

    #[test]
    fn of_two_processes_of_one_start_the_first_counts() {
        let (_, record) = acked(10);
        assert!(record.meet(TWIN).is_err());
        assert!(record.holds(TWIN, &vote(1), id(11)).is_err());
        assert!(!record.accept(TWIN));
        let before = record.begin(&vote(1));
        assert!(record.lacks(TWIN, &vote(1), before, id(10)).is_err());
        assert!(record.is_current(FIRST), "the twin's log says nothing of the first's");
    }

    #[test]
    fn a_new_leadership_begins_anew_but_a_voter_stays_refused() {
        for voter in [false, true] {
            let (peers, record) = acked(10);
            let before = record.begin(&vote(1));
            assert!(record.lacks(FIRST, &vote(1), before, id(4)).is_err());
            peers.refused(&voter.then(peer).into_iter().collect());
            assert_eq!(record.begin(&vote(2)), None);
            assert_eq!(record.meet(FIRST).is_err(), voter);
            assert_eq!(record.meet(NEXT).is_err(), voter, "no later start makes it remember either");
            peers.forget(peer());
            assert_eq!(peers.record(peer()).meet(FIRST), Ok(Met::Same), "removed and added again");
        }
    }
}

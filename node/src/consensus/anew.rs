//! Beginning anew after a majority was lost for good: another log, with nothing of the old one's promises.
//!
//! The heir's log begins with the state that the recovery names and with itself as the only voter; its terms go on
//! from the last, so that they never repeat. Everybody else's begins empty, and is fed by the heir like that of a host
//! that has just joined. The change is one transaction of the database and its last: whoever made it starts again. From
//! then on a host speaks of Raft only with those that keep the log of the same recovery, told by the hash of its record
//! ([`super::rpc::Hello`]): what the lost voters may still say reaches nobody. Whether a record is genuine and which
//! state it names, the driver knows.

use super::Consensus;
use super::disk::{Anew, Era};
use super::types::{LogId, SnapshotMeta, StoredMembership, Vote, term_of};
use openraft::{EntryPayload, Membership};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// Bytes of entries that are read at a time.
const READ_BYTES: usize = 1 << 20;

/// How far a log goes, and of which recovery it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Epoch of recovery.
    pub epoch: u64,
    /// Which recovery of that epoch.
    pub era: u64,
    /// Term of the last entry.
    pub term: u64,
    /// Its index.
    pub index: u64,
}

impl Position {
    /// Whether the host with this one has all that the other knows to be committed, and more (Ongaro and Ousterhout,
    /// 2014, 5.4.1). Logs of two recoveries of one epoch cannot be compared: neither is ahead.
    pub fn is_ahead_of(&self, other: &Position) -> bool {
        match self.epoch == other.epoch {
            true => self.era == other.era && (self.term, self.index) > (other.term, other.index),
            false => self.epoch > other.epoch,
        }
    }

    /// Whether both are of one epoch, and of two recoveries.
    pub fn contends_with(&self, other: &Position) -> bool {
        self.epoch == other.epoch && self.era != other.era
    }
}

/// An entry of the log that may never have been committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Where it stands.
    pub index: u64,
    /// The term of the leader that wrote it.
    pub term: u64,
    /// `None` when it says nothing but that the term has begun.
    pub payload: Option<Vec<u8>>,
}

/// A name for the log that a recovery begins; zero is the first log's.
pub(super) fn era_of(record: &[u8]) -> u64 {
    let hash = blake3::hash(record);
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_be_bytes(first).max(1)
}

impl Consensus {
    /// The epoch of recovery.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// The record of the recovery that this log belongs to.
    pub fn record(&self) -> Option<Vec<u8>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How far the log here goes, committed or not.
    ///
    /// # Errors
    /// When the database is closed.
    pub fn position(&self) -> io::Result<Position> {
        let (last, _) = self.store.upgrade()?.last();
        let (term, index) = last.map_or((0, 0), |id| (term_of(&id), id.index));
        Ok(Position { epoch: self.epoch(), era: self.era.load(Ordering::Relaxed), term, index })
    }

    /// The entries after this one, in order, committed or not. Membership is left out.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn stored_after(&self, index: u64) -> io::Result<Vec<Stored>> {
        let store = self.store.upgrade()?;
        let (mut next, mut all) = (index + 1, vec![]);
        loop {
            let some = store.read(next, u64::MAX, READ_BYTES).await?;
            let Some(last) = some.last() else { return Ok(all) };
            next = last.log_id.index + 1;
            for entry in some {
                let (index, term) = (entry.log_id.index, term_of(&entry.log_id));
                let payload = match entry.payload {
                    EntryPayload::Blank => None,
                    EntryPayload::Normal(payload) => Some(payload.0),
                    EntryPayload::Membership(_) => continue,
                };
                all.push(Stored { index, term, payload });
            }
        }
    }

    /// Ends the log here and begins the one of a recovery with this state, this host its only voter. When it returns
    /// well, consensus has stopped, and the host has to start again.
    ///
    /// # Errors
    /// When the database cannot be written: then it is as before, and consensus has stopped all the same.
    pub async fn inherit(&self, epoch: u64, record: Vec<u8>, state: Vec<u8>) -> io::Result<()> {
        let store = self.store.upgrade()?;
        let (last, vote) = store.last();
        let last = last.ok_or_else(|| io::Error::other("this host has no log that could go on"))?;
        let term = term_of(&last).max(vote.map_or(0, |vote| vote.leader_id.term));
        let voters =
            Membership::new(vec![BTreeSet::from([self.me])], BTreeMap::from([(self.me, openraft::EmptyNode {})]))
                .map_err(|e| io::Error::other(e.to_string()))?;
        let meta = SnapshotMeta {
            last_log_id: Some(last),
            last_membership: StoredMembership::new(Some(LogId::new(*last.committed_leader_id(), last.index)), voters),
        };
        let heir = Some((Vote::new(term, self.me), meta, state));
        self.shutdown().await;
        store.begin_anew(Anew { era: Era { epoch, record }, heir, ground: None }).await
    }

    /// Leaves the log here for the one of a recovery, which another host goes on with. `ground` is the applied state of
    /// before. True when there was no log yet: then it was only said which one it will be, and consensus goes on. Else
    /// consensus has stopped, and the host has to start again.
    ///
    /// # Errors
    /// When the database cannot be written: then it is as before.
    pub async fn follow(&self, epoch: u64, record: Vec<u8>, ground: Vec<u8>) -> io::Result<bool> {
        let store = self.store.upgrade()?;
        let era = Era { epoch, record: record.clone() };
        let fresh = || store.last().0.is_none();
        if fresh() {
            // First who is spoken with, then whether somebody of before had spoken meanwhile.
            self.era.store(era_of(&record), Ordering::Relaxed);
            store.save_era(era.clone()).await?;
            self.epoch.fetch_max(epoch, Ordering::Relaxed);
            *self.record.lock().unwrap_or_else(PoisonError::into_inner) = Some(record);
            if fresh() {
                return Ok(true);
            }
        }
        self.shutdown().await;
        store.begin_anew(Anew { era, heir: None, ground: Some(ground) }).await?;
        Ok(false)
    }
}

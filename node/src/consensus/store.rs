//! Raft's log on disk, with group commit.
//!
//! Changes queue up for one task, which takes all that wait, writes them in one transaction with one sync,
//! and then tells everybody in order. Votes, truncations and snapshots are waited for; entries are
//! reported to openraft when they are synced; a commit mark rides along with the next batch. Newer entries
//! stay in memory for replication, and entries that are not synced yet are only there. The first error
//! ends it: every change from then on fails, and openraft stops the node.

use super::disk::{Anew, Change, Disk, Era, Found, WeakDisk};
use super::rt::Scope;
use super::types::{Entry, LogId, SnapshotMeta, TypeConfig, Vote};
use crate::seams::Blocking;
use mesh::mutants::{self, Mutant};
use mesh::wire;
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// Changes that wait for the disk. openraft itself waits when there are more.
const QUEUE: usize = 1_024;
/// Changes in one transaction.
const BATCH: usize = 1_024;
/// Bytes of synced entries kept in memory for followers that are nearly up to date.
const RECENT_BYTES: usize = 16 << 20;
/// Synced entries kept in memory.
const RECENT_ENTRIES: usize = 8_192;
/// Bytes of entries in one answer to openraft: a replication request must fit its frame.
/// Small enough for a slow uplink to carry it in one lease.
const READ_BYTES: usize = 512 << 10;

enum Done {
    Appended(u64, IOFlushed<TypeConfig>),
    Waited(oneshot::Sender<io::Result<()>>),
    Nobody,
}

struct Job {
    change: Change,
    done: Done,
}

#[derive(Default)]
struct Memory {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// A suffix of the log without gaps, with each entry's encoded size.
    recent: BTreeMap<u64, (Entry, usize)>,
    recent_bytes: usize,
    /// Entries before this index are synced, so they may leave the memory.
    synced: u64,
}

impl Memory {
    fn drop_from(&mut self, index: u64) {
        for (_, (_, bytes)) in self.recent.split_off(&index) {
            self.recent_bytes -= bytes;
        }
    }
    fn drop_upto(&mut self, index: u64) {
        while let Some(first) = self.recent.first_entry().filter(|first| *first.key() <= index) {
            self.recent_bytes -= first.remove().1;
        }
    }
    fn trim(&mut self) {
        while self.recent_bytes > RECENT_BYTES || self.recent.len() > RECENT_ENTRIES {
            match self.recent.first_entry().filter(|first| *first.key() < self.synced) {
                Some(first) => self.recent_bytes -= first.remove().1,
                None => break,
            }
        }
    }
}

/// Handle to the log; clones share it.
#[derive(Clone)]
pub(super) struct Store {
    disk: Disk,
    memory: Arc<Mutex<Memory>>,
    jobs: mpsc::Sender<Job>,
    blocking: Blocking,
}

/// See [`Store::downgrade`].
#[derive(Clone)]
pub(super) struct WeakStore {
    disk: WeakDisk,
    memory: Arc<Mutex<Memory>>,
    jobs: mpsc::WeakSender<Job>,
    blocking: Blocking,
}

impl WeakStore {
    pub(super) fn upgrade(&self) -> io::Result<Store> {
        let (disk, jobs) = self.disk.upgrade().zip(self.jobs.upgrade()).ok_or_else(closed)?;
        Ok(Store { disk, memory: self.memory.clone(), jobs, blocking: self.blocking })
    }
}

impl Store {
    /// Takes what a start found and begins the task that writes.
    pub(super) fn start(disk: Disk, found: &Found, scope: &Scope, blocking: Blocking) -> Store {
        let memory = Memory {
            vote: found.vote,
            committed: found.committed,
            purged: found.purged,
            last: found.last,
            synced: found.last.map_or(0, |id| id.index + 1),
            ..Memory::default()
        };
        let (jobs, queue) = mpsc::channel(QUEUE);
        let store = Store { disk, memory: Arc::new(Mutex::new(memory)), jobs, blocking };
        let writer =
            Writer { disk: store.disk.clone(), memory: store.memory.clone(), blocking, committed: found.committed };
        scope.spawn(writer.run(queue));
        store
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn put(&self, change: Change, done: Done) -> io::Result<()> {
        self.jobs.send(Job { change, done }).await.map_err(|_| closed())
    }

    async fn put_and_wait(&self, change: Change) -> io::Result<()> {
        let (tx, rx) = oneshot::channel();
        self.put(change, Done::Waited(tx)).await?;
        rx.await.map_err(|_| closed())?
    }

    /// A handle that keeps nothing open.
    pub(super) fn downgrade(&self) -> WeakStore {
        let (disk, memory) = (self.disk.downgrade(), self.memory.clone());
        WeakStore { disk, memory, jobs: self.jobs.downgrade(), blocking: self.blocking }
    }

    /// The last entry, and the vote.
    pub(super) fn last(&self) -> (Option<LogId>, Option<Vote>) {
        let memory = self.memory();
        (memory.last, memory.vote)
    }

    /// Says which recovery a log belongs to that has not begun yet.
    pub(super) async fn save_era(&self, era: Era) -> io::Result<()> {
        self.put_and_wait(Change::Era(era)).await
    }

    /// Ends this log and begins another: when this returns, that is on the disk, and nothing can be written any more.
    pub(super) async fn begin_anew(&self, anew: Anew) -> io::Result<()> {
        self.put_and_wait(Change::Anew(Box::new(anew))).await
    }

    /// Stores a snapshot in place of the one before; returns when it is on the disk.
    pub(super) async fn save_snapshot(&self, meta: SnapshotMeta, bytes: Arc<Vec<u8>>) -> io::Result<()> {
        self.put_and_wait(Change::Snapshot(meta, bytes)).await
    }

    /// The newest stored snapshot.
    pub(super) async fn snapshot(&self) -> io::Result<Option<(SnapshotMeta, Vec<u8>)>> {
        let disk = self.disk.clone();
        self.blocking.run(move || disk.snapshot()).await
    }

    /// Entries in order, from memory where they are, at most `bytes_max` (but at least one).
    pub(super) async fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let older = {
            let memory = self.memory();
            let start = start.max(memory.purged.map_or(0, |id| id.index + 1));
            let end = end.min(memory.last.map_or(0, |id| id.index + 1));
            if start >= end {
                return Ok(Vec::new());
            }
            match memory.recent.first_key_value() {
                Some((first, _)) if *first <= start => {
                    let mut bytes = 0;
                    let fits = |(_, (entry, size)): (&u64, &(Entry, usize))| {
                        let first = bytes == 0;
                        bytes += size;
                        (first || bytes <= bytes_max).then(|| entry.clone())
                    };
                    return Ok(memory.recent.range(start..end).map_while(fits).collect());
                }
                Some((first, _)) => start..end.min(*first),
                None => start..end,
            }
        };
        let disk = self.disk.clone();
        self.blocking.run(move || disk.entries(older, bytes_max)).await
    }
}

fn closed() -> io::Error {
    io::Error::other("the ledger's database is closed, or failed before: look for the first error in the log")
}

struct Writer {
    disk: Disk,
    memory: Arc<Mutex<Memory>>,
    blocking: Blocking,
    committed: Option<LogId>,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = Vec::new();
        while queue.recv_many(&mut jobs, BATCH).await > 0 {
            let last = jobs.iter().position(|job| matches!(job.change, Change::Anew(_)));
            if let Some(last) = last {
                jobs.truncate(last + 1); // whoever waits for what came later hears that the database is closed
                queue.close();
            }
            let (mut changes, done): (Vec<Change>, Vec<Done>) =
                jobs.drain(..).map(|job| (job.change, job.done)).unzip();
            changes.extend(self.commit_mark(&done).filter(|_| last.is_none()).map(Change::Committed));
            let disk = self.disk.clone();
            let result = self.blocking.run(move || disk.write(&changes)).await;
            if let Err(error) = &result {
                tracing::error!(%error, "the ledger cannot be written; this host stops taking part in it");
                queue.close(); // openraft hears of it by the first answer; whoever waits, by the closed queue
            }
            for done in done {
                let answer = match &result {
                    Ok(()) => Ok(()),
                    Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
                };
                match done {
                    Done::Appended(last, callback) => {
                        if answer.is_ok() {
                            let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
                            memory.synced = memory.synced.max(last + 1);
                            memory.trim();
                        }
                        callback.io_completed(answer);
                    }
                    Done::Waited(tx) => drop(tx.send(answer)), // a caller that went away needs no answer
                    Done::Nobody => {}
                }
            }
            if result.is_err() || last.is_some() {
                return;
            }
        }
    }

    /// The commit mark to store with this batch: never beyond what the batch makes durable, because a start
    /// applies the log up to the mark.
    fn commit_mark(&mut self, done: &[Done]) -> Option<LogId> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = done.iter().filter_map(|d| if let Done::Appended(last, _) = d { Some(*last) } else { None }).max();
        let durable = memory.synced.max(batch.map_or(0, |last| last + 1));
        let mark = memory.committed.filter(|mark| mark.index < durable && Some(*mark) != self.committed)?;
        self.committed = Some(mark);
        Some(mark)
    }
}

impl RaftLogReader<TypeConfig> for Store {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<Entry>> {
        let (mut next, end) = bounds(&range);
        let mut all = Vec::new();
        loop {
            let mut some = self.read(next, end, usize::MAX).await?;
            match some.last() {
                Some(last) => next = last.log_id.index + 1,
                None => return Ok(all),
            }
            all.append(&mut some);
        }
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, READ_BYTES).await
    }

    /// Replays the log in bites: a start must not hold all of it in memory at once.
    async fn entries_stream<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> impl futures::Stream<Item = io::Result<Entry>> + OptionalSend {
        let (next, end) = bounds(&range);
        let bite = (self.clone(), next, VecDeque::new());
        Box::pin(futures::stream::try_unfold(bite, move |(store, mut next, mut ready)| async move {
            if ready.is_empty() {
                ready = store.read(next, end, READ_BYTES).await?.into();
            }
            let Some(entry): Option<Entry> = ready.pop_front() else { return Ok(None) };
            next = entry.log_id.index + 1;
            Ok(Some((entry, (store, next, ready))))
        }))
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.memory().vote)
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(i) => *i,
        Bound::Excluded(i) => i + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(i) => i.saturating_add(1),
        Bound::Excluded(i) => *i,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogStorage<TypeConfig> for Store {
    type LogReader = Store;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let memory = self.memory();
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: memory.last })
    }

    async fn get_log_reader(&mut self) -> Store {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.put_and_wait(Change::Vote(*vote)).await?;
        self.memory().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.memory().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.memory().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut encoded = Vec::new();
        let last = {
            let mut memory = self.memory();
            for entry in entries {
                let bytes = wire::encode(&entry);
                memory.last = Some(entry.log_id);
                memory.recent_bytes += bytes.len();
                memory.recent.insert(entry.log_id.index, (entry.clone(), bytes.len()));
                encoded.push((entry.log_id.index, bytes));
            }
            memory.last.map_or(0, |id| id.index)
        };
        if mutants::on(Mutant::AckBeforeSync) {
            callback.io_completed(Ok(()));
            return self.put(Change::Append(encoded), Done::Nobody).await;
        }
        self.put(Change::Append(encoded), Done::Appended(last, callback)).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |id| id.index + 1);
        {
            let mut memory = self.memory();
            memory.drop_from(from);
            memory.last = last;
        }
        let done = self.put_and_wait(Change::Truncate(from)).await;
        let mut memory = self.memory();
        memory.synced = memory.synced.min(from);
        done
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        {
            let mut memory = self.memory();
            memory.purged = Some(upto);
            memory.last = memory.last.max(Some(upto));
            memory.drop_upto(upto.index);
        }
        self.put(Change::Purge(upto), Done::Nobody).await
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;

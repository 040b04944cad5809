//! The database file of the ledger: what is written, in one synced transaction per batch.
//!
//! Blocking functions only; [`super::store`] decides when and where they run. Nothing is cached here but
//! by redb. A transaction that failed leaves the file as it was before; the caller stops using it.

use super::types::{Entry, LogId, SnapshotMeta, Vote};
use mesh::wire;
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, Table, TableDefinition};
use serde::de::DeserializeOwned;
use std::io;
use std::ops::{Bound, Range};
use std::sync::{Arc, Weak};

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// redb's page cache: the log is read once at start and written at its end, so a small one does.
const CACHE_BYTES: usize = 8 << 20;

/// One change of the file.
pub(super) enum Change {
    /// Entries, encoded, by index.
    Append(Vec<(u64, Vec<u8>)>),
    /// The vote: a promise, so it must be on disk before it is given.
    Vote(Vote),
    /// Everything from this index on is gone: a newer leader wrote something else.
    Truncate(u64),
    /// Everything up to and with this entry is in a snapshot and gone from the log.
    Purge(LogId),
    /// The newest snapshot, in place of the one before.
    Snapshot(SnapshotMeta, Arc<Vec<u8>>),
    /// How far the log is known to be committed.
    Committed(LogId),
    /// Which recovery the log belongs to, where there is no log yet.
    Era(Era),
    /// Everything of the lost mesh's log is gone, and another begins. The last change of an open file.
    Anew(Box<Anew>),
}

/// A recovery, as consensus needs to know it: what it says is the driver's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Era {
    /// Its epoch.
    pub epoch: u64,
    /// Its record.
    pub record: Vec<u8>,
}

/// How a log begins anew.
pub(super) struct Anew {
    pub era: Era,
    /// The heir's: the vote that its terms go on from, and the state that its log begins with.
    pub heir: Option<(Vote, SnapshotMeta, Vec<u8>)>,
    /// Everybody else's: the applied state of before, until the heir's arrives.
    pub ground: Option<Vec<u8>>,
}

/// What a start finds.
#[derive(Default)]
pub(super) struct Found {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
    pub snapshot: Option<(SnapshotMeta, Vec<u8>)>,
    pub era: Option<Era>,
    pub ground: Option<Vec<u8>>,
}

/// A boxed backend, as redb wants a concrete one.
#[derive(Debug)]
struct Boxed(Box<dyn StorageBackend>);

type LockResult<T> = Result<T, redb::BackendError>;

impl StorageBackend for Boxed {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> LockResult<bool> {
        self.0.try_lock_range(start, end)
    }
    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> LockResult<bool> {
        self.0.try_lock_shared_range(start, end)
    }
    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> LockResult<()> {
        self.0.lock_range(start, end)
    }
    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> LockResult<()> {
        self.0.lock_shared_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> LockResult<()> {
        self.0.unlock_range(start, end)
    }
    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> LockResult<bool> {
        self.0.query_lock_range(start, end)
    }
}

pub(super) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> io::Result<T> {
    ciborium::from_reader(bytes).map_err(|e| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{what} in the ledger's database is damaged: {e}"))
    })
}

fn failed(error: impl Into<redb::Error>) -> io::Error {
    match error.into() {
        redb::Error::Io(error) => error,
        error => io::Error::other(format!("the ledger's database failed: {error}")),
    }
}

/// The open database.
#[derive(Clone)]
pub(super) struct Disk(Arc<Database>);

/// The database, as long as somebody else keeps it open.
#[derive(Clone)]
pub(super) struct WeakDisk(Weak<Database>);

impl WeakDisk {
    pub(super) fn upgrade(&self) -> Option<Disk> {
        self.0.upgrade().map(Disk)
    }
}

impl Disk {
    /// Opens or makes the database and reads all but the log's entries.
    pub(super) fn open(backend: Box<dyn StorageBackend>) -> io::Result<(Disk, Found)> {
        let db = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(Boxed(backend)).map_err(failed)?;
        let disk = Disk(Arc::new(db));
        disk.write(&[])?; // makes the tables
        let found = disk.find()?;
        Ok((disk, found))
    }

    pub(super) fn downgrade(&self) -> WeakDisk {
        WeakDisk(Arc::downgrade(&self.0))
    }

    fn find(&self) -> io::Result<Found> {
        let read = self.0.begin_read().map_err(failed)?;
        let meta = read.open_table(META).map_err(failed)?;
        let get = |key: &str| -> io::Result<Option<Vec<u8>>> {
            Ok(meta.get(key).map_err(failed)?.map(|bytes| bytes.value().to_vec()))
        };
        let mut found = Found::default();
        if let Some(bytes) = get("vote")? {
            found.vote = Some(decode("the vote", &bytes)?);
        }
        if let Some(bytes) = get("committed")? {
            found.committed = Some(decode("the commit mark", &bytes)?);
        }
        if let Some(bytes) = get("purged")? {
            found.purged = Some(decode("the purge mark", &bytes)?);
        }
        if let (Some(head), Some(body)) = (get("snapshot")?, get("snapshot-bytes")?) {
            found.snapshot = Some((decode("the snapshot", &head)?, body));
        }
        if let (Some(epoch), Some(record)) = (get("epoch")?, get("record")?) {
            found.era = Some(Era { epoch: decode("the epoch of recovery", &epoch)?, record });
        }
        found.ground = get("ground")?;
        let log = read.open_table(LOG).map_err(failed)?;
        found.last = match log.last().map_err(failed)? {
            Some((_, bytes)) => Some(decode::<Entry>("the last entry", bytes.value())?.log_id),
            None => found.purged,
        };
        Ok(found)
    }

    /// Writes a batch in one transaction. Returns when it is on the disk.
    pub(super) fn write(&self, changes: &[Change]) -> io::Result<()> {
        let write = self.0.begin_write().map_err(failed)?; // Durability::Immediate
        {
            let mut log = write.open_table(LOG).map_err(failed)?;
            let mut meta = write.open_table(META).map_err(failed)?;
            let set = |meta: &mut Table<'_, &str, &[u8]>, key: &str, bytes: &[u8]| {
                meta.insert(key, bytes).map(|_| ()).map_err(failed)
            };
            for change in changes {
                match change {
                    Change::Append(entries) => {
                        for (index, bytes) in entries {
                            log.insert(index, bytes.as_slice()).map_err(failed)?;
                        }
                    }
                    Change::Truncate(from) => log.retain_in(*from.., |_, _| false).map_err(failed)?,
                    Change::Purge(upto) => {
                        log.retain_in(..=upto.index, |_, _| false).map_err(failed)?;
                        set(&mut meta, "purged", &wire::encode(upto))?;
                    }
                    Change::Vote(vote) => set(&mut meta, "vote", &wire::encode(vote))?,
                    Change::Committed(id) => set(&mut meta, "committed", &wire::encode(id))?,
                    Change::Snapshot(head, body) => {
                        set(&mut meta, "snapshot", &wire::encode(head))?;
                        set(&mut meta, "snapshot-bytes", body)?;
                        meta.remove("ground").map_err(failed)?;
                    }
                    Change::Era(era) => {
                        set(&mut meta, "epoch", &wire::encode(&era.epoch))?;
                        set(&mut meta, "record", &era.record)?;
                    }
                    Change::Anew(anew) => {
                        log.retain(|_, _| false).map_err(failed)?;
                        meta.retain(|_, _| false).map_err(failed)?;
                        set(&mut meta, "epoch", &wire::encode(&anew.era.epoch))?;
                        set(&mut meta, "record", &anew.era.record)?;
                        if let Some((vote, head, body)) = &anew.heir {
                            set(&mut meta, "vote", &wire::encode(vote))?;
                            set(&mut meta, "snapshot", &wire::encode(head))?;
                            set(&mut meta, "snapshot-bytes", body)?;
                            if let Some(last) = &head.last_log_id {
                                set(&mut meta, "purged", &wire::encode(last))?;
                            }
                        }
                        if let Some(ground) = &anew.ground {
                            set(&mut meta, "ground", ground)?;
                        }
                    }
                }
            }
        }
        write.commit().map_err(failed)
    }

    /// Entries from the file, in order, at most `bytes_max` (but at least one).
    pub(super) fn entries(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let read = self.0.begin_read().map_err(failed)?;
        let log = read.open_table(LOG).map_err(failed)?;
        let mut bytes = 0;
        let mut entries = Vec::new();
        for row in log.range(range).map_err(failed)? {
            let (_, value) = row.map_err(failed)?;
            bytes += value.value().len();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(decode("an entry", value.value())?);
        }
        Ok(entries)
    }

    /// The newest snapshot.
    pub(super) fn snapshot(&self) -> io::Result<Option<(SnapshotMeta, Vec<u8>)>> {
        let read = self.0.begin_read().map_err(failed)?;
        let meta = read.open_table(META).map_err(failed)?;
        let head = meta.get("snapshot").map_err(failed)?;
        let body = meta.get("snapshot-bytes").map_err(failed)?;
        match (head, body) {
            (Some(head), Some(body)) => Ok(Some((decode("the snapshot", head.value())?, body.value().to_vec()))),
            _ => Ok(None),
        }
    }
}

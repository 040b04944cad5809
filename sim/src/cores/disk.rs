//! What a machine keeps when its process ends, and what of it when its power goes.
//!
//! A write is in the kernel's hands at once and on the disk after a sync. A process that dies loses nothing; a power
//! cut loses what was not synced: all of it, or all but the first part. A disk may be slow, and it may lie.

use super::raft::{Op, Store};
use mesh::build::BlobId;
use mesh::wire::Signed;
use node::driver::Known;
use std::collections::{BTreeSet, VecDeque};

/// What the state folder of a member holds; written and synced before its node starts.
#[derive(Clone, Debug)]
pub struct Folder {
    /// The mesh's founding record.
    pub genesis: Signed,
    /// A member's word that this host is enrolled.
    pub credential: Signed,
    /// Members as told when this host joined.
    pub known: Vec<Known>,
}

/// A write.
#[derive(Clone, Debug)]
pub enum Write {
    /// Of consensus.
    Raft(Op),
    /// A blob.
    Blob(BlobId),
    /// What the guard remembers: the whole file, instead of what was there.
    Guard(Vec<u8>),
    /// What this host has signed for as a voter, likewise.
    Notes(Vec<u8>),
    /// What the guard knows of the roster, likewise.
    Known(Vec<u8>),
}

/// A machine's disk.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// The state folder.
    pub folder: Option<Folder>,
    /// The start number of the last process.
    pub start: u64,
    /// The ledger's store, as far as it is synced.
    pub store: Store,
    /// There is a store: made at the host's first start, before anything is said.
    pub made: bool,
    /// Blobs, as far as they are synced.
    pub blobs: BTreeSet<BlobId>,
    /// What the guard knows of the roster, as the daemon has written it.
    pub known: Option<Vec<u8>>,
    guard: Option<Vec<u8>>,
    notes: Vec<u8>,
    /// Where peers were, as the daemon keeps it: a file that nobody syncs, and that may be older than all else.
    pub leads: Option<Vec<u8>>,
    waiting: VecDeque<Write>,
    /// Writes that are on the disk.
    done: u64,
    /// Up to which write it has said that it synced.
    reported: u64,
    /// Up to which write a sync was asked for.
    pub asked: u64,
    /// Milliseconds of a sync, beyond the usual.
    pub slow_ms: u64,
    /// It says that it synced, and did not.
    pub lies: bool,
}

impl Disk {
    /// Takes a write into the kernel's hands. Gives its number.
    pub fn write(&mut self, write: Write) -> u64 {
        self.waiting.push_back(write);
        self.written()
    }

    /// How many writes there were.
    pub fn written(&self) -> u64 {
        self.done + self.waiting.len() as u64
    }

    fn keep(&mut self, count: usize) {
        for write in self.waiting.drain(..count) {
            match write {
                Write::Raft(op) => self.store.write(&op),
                Write::Blob(id) => {
                    self.blobs.insert(id);
                }
                Write::Guard(bytes) => self.guard = Some(bytes),
                Write::Notes(bytes) => self.notes = bytes,
                Write::Known(bytes) => self.known = Some(bytes),
            }
        }
        self.done += count as u64;
    }

    /// A sync of the first so many writes has ended, as the disk says.
    pub fn synced(&mut self, written: u64) {
        self.reported = self.reported.max(written);
        if !self.lies {
            self.keep((written.saturating_sub(self.done) as usize).min(self.waiting.len()));
        }
    }

    /// Whether a blob can be read: it is on the disk, or the kernel still has it, whatever the disk says.
    pub fn shows(&self, blob: BlobId) -> bool {
        self.blobs.contains(&blob) || self.waiting.iter().any(|write| matches!(write, Write::Blob(id) if *id == blob))
    }

    /// The guard's file, as whoever reads it now sees it; none before the host has a mesh.
    pub fn guard(&self) -> Option<&[u8]> {
        let newest = self.waiting.iter().rev().find_map(|write| match write {
            Write::Guard(bytes) => Some(bytes),
            _ => None,
        });
        newest.or(self.guard.as_ref()).map(Vec::as_slice)
    }

    /// The voter's notes, likewise; empty before the first.
    pub fn notes(&self) -> &[u8] {
        let newest = self.waiting.iter().rev().find_map(|write| match write {
            Write::Notes(bytes) => Some(bytes),
            _ => None,
        });
        newest.unwrap_or(&self.notes)
    }

    /// Makes the files of a host that has just come to a mesh, synced before anything is said.
    pub fn enrol(&mut self, folder: Folder, guard: Vec<u8>, notes: Vec<u8>) {
        (self.folder, self.guard, self.notes) = (Some(folder), Some(guard), notes);
    }

    /// How many writes are not on the disk.
    pub fn unsynced(&self) -> usize {
        self.waiting.len()
    }

    /// The process is dead, the kernel is not: everything gets there.
    pub fn settle(&mut self) {
        self.keep(self.waiting.len());
    }

    /// The power is gone: so many of the writes that were not synced are there all the same. `true` when some are
    /// gone that were reported as synced.
    pub fn cut(&mut self, kept: usize) -> bool {
        self.keep(kept.min(self.waiting.len()));
        self.waiting.clear();
        self.asked = self.done;
        std::mem::replace(&mut self.reported, self.done) > self.done
    }
}

//! A disk that outlives its host: redb's storage over memory that the harness owns.
//!
//! What was synced stays, whatever happens. What was only written stays when a process dies (the
//! kernel still has it) and is lost, whole or in part, when the power goes: [`Loss`]. Handles of a host
//! that crashed are dead: a database that is dropped with its host must not write a clean ending.

use crate::papers::Papers;
use crate::trace::{Event, Trace};
use node::guard::Paper;
use node::seams::OpenStore;
use redb::StorageBackend;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a disk writes at once or not at all.
const SECTOR_BYTES: usize = 512;

/// What becomes of unsynced writes at a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// They stay: the process died, the kernel did not.
    Nothing,
    /// They are all lost.
    Unsynced,
    /// A disk with a cache lost power: of each write, in no order, some sectors made it. The seed says which.
    Some(u64),
}

/// All that is on a disk: the ledger's store, and the guard's papers beside it.
#[derive(Clone)]
pub struct Whole {
    store: Vec<u8>,
    papers: Papers,
}

/// A disk; clones are the same disk.
#[derive(Clone)]
pub struct Disk {
    host: Arc<str>,
    trace: Trace,
    image: Arc<Mutex<Image>>,
}

#[derive(Default)]
struct Image {
    /// As the running host sees it.
    current: Vec<u8>,
    /// As a power cut would leave it, unsynced writes lost.
    durable: Vec<u8>,
    /// What `current` has and `durable` has not.
    pending: Vec<Change>,
    /// Which handle is alive.
    handle: u64,
    /// How many more changes and syncs succeed before the power goes.
    power_for: Option<u64>,
    /// Syncs are reported and not made.
    lies: bool,
    /// The guard's papers, beside the store.
    papers: Papers,
    /// Crashes up to now.
    life: u64,
}

enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Resize(usize),
}

impl Disk {
    /// An empty disk of a host.
    pub fn new(host: &str, trace: Trace) -> Disk {
        Disk { host: host.into(), trace, image: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Image> {
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens it; the handle before this one is dead from now on.
    pub fn open(&self) -> Handle {
        let mut image = self.lock();
        image.handle += 1;
        Handle { disk: self.clone(), number: image.handle }
    }

    /// The store seam of a host.
    pub fn open_store(&self) -> OpenStore {
        let disk = self.clone();
        Box::new(move || Ok(Box::new(disk.open())))
    }

    /// The host crashes: call this before its tasks are dropped.
    pub fn crash(&self, loss: Loss) {
        let mut image = self.lock();
        image.handle += 1;
        image.life += 1;
        image.power_for = None;
        let pending = std::mem::take(&mut image.pending);
        match loss {
            Loss::Nothing => {
                image.pending = pending;
                return;
            }
            Loss::Unsynced => image.papers.lose(|| false),
            Loss::Some(seed) => {
                let mut dice = Dice::new(seed);
                for change in &pending {
                    image.keep_some(change, &mut dice);
                }
                image.papers.lose(|| dice.toss());
            }
        }
        image.current = image.durable.clone();
    }

    /// Lets the power go after this many further changes and syncs: everything fails from then on.
    pub fn fail_after(&self, changes: u64) {
        self.lock().power_for = Some(changes);
    }

    /// From now on syncs are reported and not made, or made again; what was not made is made then.
    pub fn lie(&self, on: bool) {
        let mut image = self.lock();
        image.lies = on;
        if !on {
            image.sync();
        }
    }

    /// Whether syncs are only reported.
    pub fn lies(&self) -> bool {
        self.lock().lies
    }

    /// A copy of all that is on it, the guard's papers too.
    pub fn copy_whole(&self) -> Whole {
        let image = self.lock();
        Whole { store: image.current.clone(), papers: image.papers.clone() }
    }

    /// Everything on it is replaced, the guard's papers too. Call it while no host runs on it.
    pub fn replace_whole(&self, whole: Whole) {
        self.replace(whole.store);
        let mut image = self.lock();
        image.papers = whole.papers;
        image.papers.sync();
    }

    pub(crate) fn life(&self) -> u64 {
        self.lock().life
    }

    pub(crate) fn read_paper(&self, life: u64, paper: Paper) -> io::Result<Option<Vec<u8>>> {
        let image = self.lock();
        match image.life == life && image.power_for != Some(0) {
            true => Ok(image.papers.get(paper).cloned()),
            false => Err(self.crashed()),
        }
    }

    /// Beside its place, synced, renamed: three changes, each with power or without.
    pub(crate) fn write_paper(&self, life: u64, paper: Paper, bytes: &[u8]) -> io::Result<()> {
        let mut image = self.lock();
        for last in [false, false, true] {
            if image.life != life || image.power_for == Some(0) {
                return Err(self.crashed());
            }
            image.power_for = image.power_for.map(|left| left - 1);
            if last {
                let synced = !image.lies;
                image.papers.put(paper, bytes, synced);
            }
        }
        Ok(())
    }

    fn crashed(&self) -> io::Error {
        io::Error::new(io::ErrorKind::BrokenPipe, format!("{} has crashed", self.host))
    }

    /// A copy of what is on it, as the running host sees it.
    pub fn copy(&self) -> Vec<u8> {
        self.lock().current.clone()
    }

    /// Everything on it is replaced. Call it while no host runs on it.
    pub fn replace(&self, bytes: Vec<u8>) {
        let mut image = self.lock();
        image.handle += 1;
        image.pending.clear();
        image.durable = bytes.clone();
        image.current = bytes;
    }

    /// Bytes on it, as the running host sees it.
    pub fn len(&self) -> u64 {
        self.lock().current.len() as u64
    }

    /// Whether nothing was ever written to it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Coin tosses out of a seed.
struct Dice(blake3::OutputReader);

impl Dice {
    fn new(seed: u64) -> Dice {
        let mut hasher = blake3::Hasher::new_derive_key("mesh sim 2026 lost writes v1");
        Dice(hasher.update(&seed.to_le_bytes()).finalize_xof())
    }

    fn toss(&mut self) -> bool {
        let mut byte = [0];
        self.0.fill(&mut byte);
        byte[0] & 1 == 1
    }
}

impl Image {
    /// Everything that was written becomes durable.
    fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            apply(&mut self.durable, &change);
        }
        self.papers.sync();
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.current, &change);
        self.pending.push(change);
    }

    fn keep_some(&mut self, change: &Change, dice: &mut Dice) {
        match change {
            Change::Resize(_) if dice.toss() => apply(&mut self.durable, change),
            Change::Resize(_) => {}
            Change::Write { offset, bytes } => {
                let mut at = 0;
                while at < bytes.len() {
                    let end = bytes.len().min(at + SECTOR_BYTES - (offset + at) % SECTOR_BYTES);
                    if dice.toss() && offset + end <= self.durable.len() {
                        self.durable[offset + at..offset + end].copy_from_slice(&bytes[at..end]);
                    }
                    at = end;
                }
            }
        }
    }
}

fn apply(image: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Resize(len) => image.resize(*len, 0),
        Change::Write { offset, bytes } => image[*offset..offset + bytes.len()].copy_from_slice(bytes),
    }
}

/// An open disk, as redb sees it.
pub struct Handle {
    disk: Disk,
    number: u64,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({} of {})", self.number, self.disk.host)
    }
}

impl Handle {
    fn alive(&self) -> io::Result<MutexGuard<'_, Image>> {
        let image = self.disk.lock();
        if image.handle != self.number || image.power_for == Some(0) {
            return Err(self.disk.crashed());
        }
        Ok(image)
    }

    /// As [`Handle::alive`], and uses up some of the power that is left.
    fn changing(&self) -> io::Result<MutexGuard<'_, Image>> {
        let mut image = self.alive()?;
        image.power_for = image.power_for.map(|left| left - 1);
        Ok(image)
    }
}

fn range(image: &[u8], offset: u64, len: usize) -> io::Result<std::ops::Range<usize>> {
    let start = usize::try_from(offset).map_err(io::Error::other)?;
    match start.checked_add(len) {
        Some(end) if end <= image.len() => Ok(start..end),
        _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end of the disk")),
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.alive()?.current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let image = self.alive()?;
        out.copy_from_slice(&image.current[range(&image.current, offset, out.len())?]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.changing()?.change(Change::Resize(usize::try_from(len).map_err(io::Error::other)?));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut image = self.changing()?;
        let range = range(&image.current, offset, data.len())?;
        image.change(Change::Write { offset: range.start, bytes: data.to_vec() });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut image = self.changing()?;
        let mut hasher = blake3::Hasher::new();
        let mut len = 0;
        for change in &image.pending {
            match change {
                Change::Write { offset, bytes } => {
                    len += bytes.len() as u64;
                    hasher.update(&(*offset as u64).to_le_bytes()).update(&(bytes.len() as u64).to_le_bytes());
                    hasher.update(bytes);
                }
                Change::Resize(to) => {
                    hasher.update(&u64::MAX.to_le_bytes()).update(&(*to as u64).to_le_bytes());
                }
            }
        }
        if !image.lies {
            image.sync();
        }
        drop(image);
        self.disk.trace.record(&self.disk.host, Event::Committed { len, hash: *hasher.finalize().as_bytes() });
        Ok(())
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;

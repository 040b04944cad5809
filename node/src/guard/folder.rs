//! The papers as files, in `guard/` below the state folder: 0600, in a folder of mode 0700.
//!
//! The lock is `flock` on a file that is never replaced, so that daemon and guard, and two tasks of one of them, keep each
//! other out; a daemon that was stopped while it held it keeps the guard waiting for [`LOCK_TRIES`] and no longer. A paper is written beside its place, synced, renamed, and the folder synced.

use super::{Paper, Store, StoreError, Vault};
use mesh::identity::Keys;
use mesh::ledger::Ledger;
use mesh::wire::Signed;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_nanosleep};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Tries for the lock: five seconds. Who holds it writes a small file and syncs it.
const LOCK_TRIES: u32 = 500;
/// Between two tries.
const LOCK_PAUSE: TimeSpec = TimeSpec::new(0, 10_000_000);

/// In the state folder, outside of `guard/`: its papers were made. From then on they have to be there.
const MARK: &str = "guarded";

/// A folder with the papers.
#[derive(Clone, Debug)]
pub struct FolderVault {
    root: PathBuf,
}

/// Makes the papers of a state folder that has never had any: when its host comes into a mesh, or when it is older than
/// warrants. Whether it did.
///
/// # Errors
/// When the disk says no; it is tried again at the next start.
pub fn provide(state_folder: &Path, keys: &Keys, genesis: &Signed) -> Result<bool, StoreError> {
    let disk = |error| StoreError::Disk { paper: Paper::Guard, error };
    let mark = state_folder.join(MARK);
    if mark.try_exists().map_err(disk)? {
        return Ok(false);
    }
    let founded = Ledger::found(genesis).map_err(|e| disk(io::Error::other(e.to_string())))?;
    Store::new(Arc::new(FolderVault::of(state_folder)), founded.mesh(), keys.key()).make(&founded)?;
    let marked = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&mark);
    marked.and_then(|file| file.sync_all()).and_then(|()| File::open(state_folder)?.sync_all()).map_err(disk)?;
    Ok(true)
}

impl FolderVault {
    /// The papers below this state folder. Nothing is made yet.
    pub fn of(state_folder: &Path) -> FolderVault {
        FolderVault { root: state_folder.join("guard") }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

impl Vault for FolderVault {
    fn lock(&self) -> io::Result<Box<dyn Send>> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&self.root)?;
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(self.file("lock"))?;
        let mut file = file;
        for _ in 0..LOCK_TRIES {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(held) => return Ok(Box::new(held)),
                Err((back, Errno::EWOULDBLOCK)) => file = back,
                Err((_, error)) => return Err(error.into()),
            }
            // No clock of tokio's here: whoever blocks has a thread to itself.
            let _ = clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::empty(), &LOCK_PAUSE);
        }
        Err(io::Error::new(io::ErrorKind::WouldBlock, "another process holds its lock and does not let go"))
    }

    fn read(&self, paper: Paper) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.file(paper.name())) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(paper.bytes_max() as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > paper.bytes_max() {
            let text = format!("it is larger than {} bytes", paper.bytes_max());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(Some(bytes))
    }

    fn write(&self, paper: Paper, bytes: &[u8]) -> io::Result<()> {
        let beside = self.file(&format!(".{}.new", paper.name())); // one name: whoever writes holds the lock
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, self.file(paper.name()))?;
        File::open(&self.root)?.sync_all()
    }
}

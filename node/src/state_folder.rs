//! The state folder: everything that makes this host this host, on disk.
//!
//! ```text
//! seed         32 bytes in hex, 0600; the identity. Refused when group or others can read it
//! store-id     32 bytes in hex; made once, tells a cloned folder from its original
//! genesis      what the mesh began with         credential   what lets this host in
//! start        how often the daemon has started, synced before it is used
//! mesh.toml    configuration                    ledger.redb  the ledger
//! blobs/       content-addressed store          work/        builds while they run
//! ssh-port     where the guard's sshd listens, when `mesh install --ssh` has made one
//! leads        where others were last reached; helps the next start, and may be removed
//! guard/       what decides about warrants ([`crate::guard`]); `guarded` says that it was made
//! mesh.sock    the API, 0600                    daemon.log   what a detached daemon says
//! lock         one daemon a folder
//! ```
//! The folder itself is 0711: a build without a sandbox runs as the build user and must be able to
//! *pass through* to its folder below `work/`, but cannot list what else is here; every file is 0600.
//! Nothing here talks to a network or decides anything; [`crate::cli`] finds the folder, the driver uses it.

mod service;

use mesh::identity::Keys;
use mesh::mutants::{self, Mutant};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Longest path of a Unix socket: `sun_path` has 108 bytes, the last is zero.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Small files (genesis, credential) are read up to this size: what is larger is not ours.
const SMALL_FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a state folder could not be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// There is no state folder where we looked.
    #[error("no state folder at {}", list(.0))]
    Missing(Vec<PathBuf>),
    /// The folder already belongs to a mesh.
    #[error("{} already belongs to a mesh", .0.display())]
    Enrolled(PathBuf),
    /// The folder has a seed, but no mesh.
    #[error("{} has no {what} yet", path.display())]
    Unfinished {
        /// The folder.
        path: PathBuf,
        /// Which file is missing.
        what: &'static str,
    },
    /// Group or others can read a secret.
    #[error("{} can be read by others (mode {mode:04o})", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to someone else.
    #[error("{} belongs to {owner}, and you are {me}", path.display())]
    Foreign {
        /// File or folder.
        path: PathBuf,
        /// Whose it is.
        owner: String,
        /// Who asks.
        me: String,
    },
    /// A file has content that it cannot have.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Another daemon runs on this folder.
    #[error("another daemon uses {}{}", path.display(), holder(*pid))]
    Busy {
        /// The folder.
        path: PathBuf,
        /// Its process id, when it could be read.
        pid: Option<u32>,
    },
    /// The socket's path does not fit into a socket address.
    #[error("the socket path {} has {} bytes, and the system allows {SOCKET_PATH_BYTES_MAX}", .0.display(), .0.as_os_str().len())]
    SocketPathTooLong(PathBuf),
    /// The system said no.
    #[error("cannot {what} {}: {error}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(" or ")
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or(String::new(), |pid| format!(" (process {pid})"))
}

impl FolderError {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            FolderError::Missing(_) => "start a mesh with `mesh init`, or join one with `mesh join TOKEN`".into(),
            FolderError::Enrolled(_) => {
                "use another folder with --dir; a host that has left joins anew with a new folder".into()
            }
            FolderError::Unfinished { .. } => "run `mesh init` or `mesh join TOKEN` to finish it".into(),
            FolderError::Open { path, .. } => format!(
                "chmod 600 {}; if somebody may have read it, enrol this host anew with `mesh join`",
                path.display()
            ),
            FolderError::Foreign { owner, .. } => format!("run as {owner}, or use a folder of your own with --dir"),
            FolderError::Damaged { .. } => "restore the file, or enrol this host anew in another folder".into(),
            FolderError::Busy { .. } => "`mesh status` asks the one that runs; use --dir for a second host".into(),
            FolderError::SocketPathTooLong(_) => "use a shorter --dir".into(),
            FolderError::Io { error, .. } if error.kind() == io::ErrorKind::StorageFull => {
                "make room on that disk".into()
            }
            FolderError::Io { .. } => "check the path and its permissions, or choose another with --dir".into(),
        }
    }
}

/// Where a state folder may be, in the order of looking. Filled from the environment by [`Places::from_env`].
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// `--dir`.
    pub flag: Option<PathBuf>,
    /// `MESH_DIR`.
    pub mesh_dir: Option<PathBuf>,
    /// `XDG_STATE_HOME`.
    pub xdg_state_home: Option<PathBuf>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// The system's folder, `/var/lib/mesh`.
    pub system: PathBuf,
}

/// A folder that was found, and what a person should know about how.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// The folder.
    pub path: PathBuf,
    /// Said on standard error when it is not plain which folder was meant.
    pub note: Option<String>,
}

impl Places {
    /// From `--dir` and the environment. Relative XDG folders are ignored, as XDG says.
    pub fn from_env(flag: Option<PathBuf>) -> Self {
        let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        Places {
            flag,
            mesh_dir: var("MESH_DIR"),
            xdg_state_home: var("XDG_STATE_HOME").filter(|p| p.is_absolute()),
            home: var("HOME"),
            system: PathBuf::from("/var/lib/mesh"),
        }
    }

    fn explicit(&self) -> Option<&PathBuf> {
        self.flag.as_ref().or(self.mesh_dir.as_ref())
    }

    fn user(&self) -> Option<PathBuf> {
        let base = self.xdg_state_home.clone().or_else(|| self.home.as_ref().map(|h| h.join(".local/state")))?;
        Some(base.join("mesh"))
    }

    /// Where `init` and `join` make a folder: the one that was named, else root's in the system
    /// (builds must be able to pass through, and /root is closed), else the user's.
    pub fn for_new(&self) -> PathBuf {
        if let Some(path) = self.explicit() {
            return path.clone();
        }
        let root = nix::unistd::geteuid().is_root() && self.xdg_state_home.is_none();
        self.user().filter(|_| !root).unwrap_or_else(|| self.system.clone())
    }

    /// The folder that a command means: the one that was named, else the user's, else the system's.
    ///
    /// # Errors
    /// [`FolderError::Missing`] when there is none.
    pub fn find(&self) -> Result<Found, FolderError> {
        if let Some(path) = self.explicit() {
            return match path.is_dir() {
                true => Ok(Found { path: path.clone(), note: None }),
                false => Err(FolderError::Missing(vec![path.clone()])),
            };
        }
        let candidates: Vec<PathBuf> = self.user().into_iter().chain([self.system.clone()]).collect();
        // `seed` may be unreadable but is still there to be seen: the folder can be passed through.
        let mut found = candidates.iter().filter(|p| p.join("seed").exists()).cloned();
        let Some(path) = found.next() else { return Err(FolderError::Missing(candidates)) };
        let note = match found.next() {
            Some(other) => Some(format!(
                "using {} of {}; there is also {} of {} (choose with --dir)",
                path.display(),
                owner_of(&path),
                other.display(),
                owner_of(&other)
            )),
            None if path == self.system => Some(format!("using {} of {}", path.display(), owner_of(&path))),
            None => None,
        };
        Ok(Found { path, note })
    }
}

/// The name of a path's owner, for people.
pub fn owner_of(path: &Path) -> String {
    fs::metadata(path).map_or_else(|_| "nobody known".into(), |m| user_name(m.uid()))
}

fn user_name(uid: u32) -> String {
    match nix::unistd::User::from_uid(uid.into()) {
        Ok(Some(user)) => user.name,
        _ => format!("user {uid}"),
    }
}

/// The lock on a folder: whoever holds it is its daemon. Released when dropped, or when the process ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: Flock<File>,
}

/// A state folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateFolder {
    root: PathBuf,
}

impl StateFolder {
    /// Makes the folder, its seed and its store id. A folder that an earlier `join` left unfinished is
    /// taken up again with its seed: a retry by the same key is harmless, by another it is not.
    ///
    /// # Errors
    /// [`FolderError::Enrolled`] when it already belongs to a mesh; as [`StateFolder::open`].
    pub fn create(path: &Path) -> Result<Self, FolderError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o711);
        builder.create(path).map_err(|e| io_error("make", path, e))?;
        let root = fs::canonicalize(path).map_err(|e| io_error("open", path, e))?;
        let folder = StateFolder { root };
        folder.own()?;
        if folder.has("genesis") {
            return Err(FolderError::Enrolled(folder.root));
        }
        folder.socket_path()?;
        let set = |p: &Path| fs::set_permissions(p, fs::Permissions::from_mode(0o711));
        set(&folder.root).map_err(|e| io_error("set the mode of", &folder.root, e))?;
        for sub in [folder.blobs(), folder.work()] {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(if sub.ends_with("work") { 0o711 } else { 0o700 });
            builder.create(&sub).map_err(|e| io_error("make", &sub, e))?;
        }
        for name in ["seed", "store-id"] {
            if !folder.has(name) {
                let mut bytes = [0; 32];
                getrandom::fill(&mut bytes)
                    .map_err(|e| io_error("make", &folder.file(name), io::Error::other(e.to_string())))?;
                folder.write(name, (hex(&bytes) + "\n").as_bytes())?;
            }
        }
        folder.keys()?;
        Ok(folder)
    }

    /// Opens a folder that belongs to a host.
    ///
    /// # Errors
    /// When it is missing, somebody else's, or its seed is open to others.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let root = match fs::canonicalize(path) {
            Ok(root) => root,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(FolderError::Missing(vec![path.to_owned()])),
            Err(e) => return Err(io_error("open", path, e)),
        };
        let folder = StateFolder { root };
        if !folder.has("seed") {
            return Err(FolderError::Missing(vec![folder.root]));
        }
        folder.keys()?;
        folder.socket_path()?;
        Ok(folder)
    }

    fn own(&self) -> Result<(), FolderError> {
        let uid = fs::metadata(&self.root).map_err(|e| io_error("open", &self.root, e))?.uid();
        match uid == nix::unistd::geteuid().as_raw() {
            true => Ok(()),
            false => Err(foreign(&self.root)),
        }
    }

    /// The folder's path, canonical.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Whether it belongs to a mesh: genesis and credential are there, or (for the first host) will be
    /// once `init` has written the genesis.
    pub fn is_enrolled(&self) -> bool {
        self.has("genesis")
    }

    /// The host's keys.
    ///
    /// # Errors
    /// When the seed is somebody else's, open to others, or damaged.
    pub fn keys(&self) -> Result<Keys, FolderError> {
        Ok(Keys::from_seed(self.secret("seed")?))
    }

    /// The random number that this folder was given when it was made.
    ///
    /// # Errors
    /// As [`StateFolder::keys`].
    pub fn store_id(&self) -> Result<[u8; 32], FolderError> {
        self.secret("store-id")
    }

    /// Counts a start of the daemon: reads, adds one, syncs, returns. Two at once get two numbers.
    ///
    /// # Errors
    /// When the number is damaged, or lost while there is a ledger: a number used twice would make a
    /// restart look like none.
    pub fn next_start(&self) -> Result<u64, FolderError> {
        let guard = self.file("start.lock");
        let file = open_private(&guard).map_err(|e| io_error("open", &guard, e))?;
        let _held = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| io_error("lock", &guard, e.into()))?;
        let path = self.file("start");
        let damaged = |what: &str| FolderError::Damaged { path: path.clone(), what: what.to_owned() };
        let last = match self.read("start") {
            Ok(bytes) => std::str::from_utf8(&bytes)
                .ok()
                .and_then(|text| text.trim().parse::<u64>().ok())
                .ok_or_else(|| damaged("is not a number"))?,
            Err(FolderError::Unfinished { .. }) if self.has("ledger.redb") => {
                return Err(damaged("is missing, though there is a ledger"));
            }
            Err(FolderError::Unfinished { .. }) => 0,
            Err(error) => return Err(error),
        };
        let next = last.checked_add(1).ok_or_else(|| damaged("is at its end"))?;
        if !mutants::on(Mutant::StartNumberNotSynced) {
            self.write("start", format!("{next}\n").as_bytes())?;
        }
        Ok(next)
    }

    /// What the mesh began with.
    ///
    /// # Errors
    /// [`FolderError::Unfinished`] before `init` or `join`.
    pub fn genesis(&self) -> Result<Vec<u8>, FolderError> {
        self.read("genesis")
    }

    /// What lets this host in.
    ///
    /// # Errors
    /// [`FolderError::Unfinished`] before `init` or `join`.
    pub fn credential(&self) -> Result<Vec<u8>, FolderError> {
        self.read("credential")
    }

    /// Stores the genesis, synced. Write the credential first: a folder with a genesis counts as enrolled.
    ///
    /// # Errors
    /// When the disk says no; the old file is whole then.
    pub fn write_genesis(&self, bytes: &[u8]) -> Result<(), FolderError> {
        self.write("genesis", bytes)
    }

    /// Stores the credential, synced.
    ///
    /// # Errors
    /// When the disk says no; the old file is whole then.
    pub fn write_credential(&self, bytes: &[u8]) -> Result<(), FolderError> {
        self.write("credential", bytes)
    }

    /// Notes, synced, that this host was taken out of its mesh: its key is of no more use there.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn write_outcast(&self) -> Result<(), FolderError> {
        self.write("outcast", b"")
    }

    /// Where other hosts were reached, as the last start left it.
    ///
    /// # Errors
    /// [`FolderError::Unfinished`] when nothing was kept.
    pub fn leads(&self) -> Result<Vec<u8>, FolderError> {
        self.read("leads")
    }

    /// Keeps where other hosts were reached.
    ///
    /// # Errors
    /// When the disk says no; the old file is whole then.
    pub fn write_leads(&self, bytes: &[u8]) -> Result<(), FolderError> {
        self.write("leads", bytes)
    }

    /// Whether this host was taken out of its mesh.
    pub fn is_outcast(&self) -> bool {
        self.has("outcast")
    }

    /// Stores `mesh.toml`, unless there is one.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn write_config(&self, text: &str) -> Result<(), FolderError> {
        if self.has("mesh.toml") { Ok(()) } else { self.write("mesh.toml", text.as_bytes()) }
    }

    /// Takes the folder for one daemon.
    ///
    /// # Errors
    /// [`FolderError::Busy`] when another holds it.
    pub fn lock(&self) -> Result<FolderLock, FolderError> {
        let path = self.file("lock");
        let file = open_private(&path).map_err(|e| io_error("open", &path, e))?;
        let mut held = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => held,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                let pid = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
                return Err(FolderError::Busy { path: self.root.clone(), pid });
            }
            Err((_, error)) => return Err(io_error("lock", &path, error.into())),
        };
        held.set_len(0)
            .and_then(|()| held.write_all(format!("{}\n", std::process::id()).as_bytes()))
            .map_err(|e| io_error("write", &path, e))?;
        Ok(FolderLock { _file: held })
    }

    /// Where the API's socket is.
    ///
    /// # Errors
    /// [`FolderError::SocketPathTooLong`].
    pub fn socket_path(&self) -> Result<PathBuf, FolderError> {
        let path = self.file("mesh.sock");
        match path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            true => Ok(path),
            false => Err(FolderError::SocketPathTooLong(path)),
        }
    }

    /// Where the configuration is; it need not exist.
    pub fn config(&self) -> PathBuf {
        self.file("mesh.toml")
    }
    /// Where the ledger's database is.
    pub fn ledger(&self) -> PathBuf {
        self.file("ledger.redb")
    }
    /// Where blobs are.
    pub fn blobs(&self) -> PathBuf {
        self.file("blobs")
    }
    /// Where builds run.
    pub fn work(&self) -> PathBuf {
        self.file("work")
    }
    /// Where a detached daemon writes.
    pub fn log(&self) -> PathBuf {
        self.file("daemon.log")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn has(&self, name: &str) -> bool {
        self.file(name).exists()
    }

    fn secret(&self, name: &'static str) -> Result<[u8; 32], FolderError> {
        let path = self.file(name);
        let mode = fs::metadata(&path).map_err(|e| io_error("open", &path, e))?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(FolderError::Open { path, mode });
        }
        let text = self.read(name)?;
        std::str::from_utf8(&text)
            .ok()
            .and_then(|text| unhex(text.trim()))
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .ok_or(FolderError::Damaged { path, what: "is not 64 hexadecimal digits".into() })
    }

    fn read(&self, name: &'static str) -> Result<Vec<u8>, FolderError> {
        let path = self.file(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(FolderError::Unfinished { path: self.root.clone(), what: name });
            }
            Err(e) => return Err(io_error("open", &path, e)),
        };
        let mut bytes = Vec::new();
        file.take(SMALL_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| io_error("read", &path, e))?;
        if bytes.len() as u64 > SMALL_FILE_BYTES_MAX {
            return Err(FolderError::Damaged { path, what: format!("is larger than {SMALL_FILE_BYTES_MAX} bytes") });
        }
        Ok(bytes)
    }

    /// Writes a file whole or not at all: beside it, synced, renamed, the folder synced.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), FolderError> {
        let path = self.file(name);
        let beside = self.file(&format!(".{name}.{}", std::process::id()));
        let done = (|| {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            File::open(&self.root)?.sync_all()
        })();
        done.map_err(|e| {
            let _ = fs::remove_file(&beside); // best effort: the error below is the one that matters
            io_error("write", &path, e)
        })
    }
}

impl crate::seams::Notes for StateFolder {
    fn read(&self) -> Option<Vec<u8>> {
        self.leads().ok()
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.write_leads(bytes).map_err(io::Error::other)
    }
}

fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn foreign(path: &Path) -> FolderError {
    let me = user_name(nix::unistd::geteuid().as_raw());
    FolderError::Foreign { path: path.to_owned(), owner: owner_of(path), me }
}

fn io_error(what: &'static str, path: &Path, error: io::Error) -> FolderError {
    let theirs = fs::metadata(path).is_ok_and(|m| m.uid() != nix::unistd::geteuid().as_raw());
    if error.kind() == io::ErrorKind::PermissionDenied && theirs {
        return foreign(path);
    }
    FolderError::Io { what, path: path.to_owned(), error }
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Bytes from hexadecimal digits; `None` when they are not.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    let text = text.as_bytes();
    text.len().is_multiple_of(2).then_some(())?;
    text.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
#[path = "state_folder_tests.rs"]
mod tests;

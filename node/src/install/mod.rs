//! `mesh install`: makes the init system start the daemon at boot, and with `--ssh` a door of its own for the guard.
//!
//! What has to be written is worked out first as a [`Plan`] of files, links and copies below a root, and only then done:
//! so it can be shown without being done, made in an image that is not running, done twice with the same outcome, and
//! undone. Nothing is overwritten or removed that does not carry our [`MARK`]. Starting and stopping what was written
//! is [`crate::cli`]'s; the texts are in [`units`] and [`door`], what is wrong with an installation says [`check`].

pub mod check;
pub mod door;
pub mod units;

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

/// In every file of ours: what carries it may be replaced and removed by us, what does not may not.
pub const MARK: &str = "Written by `mesh install`";

/// Where programs are copied to that lie where the service could not run them, or others could replace them.
pub const PROGRAMS: &str = "/usr/local/lib/mesh";

/// Larger files are none of ours.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What starts services on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// systemd.
    Systemd,
    /// OpenRC.
    OpenRc,
}

impl Init {
    /// The one that runs here.
    pub fn running(root: &Path) -> Option<Init> {
        match (root.join("run/systemd/system").is_dir(), root.join("run/openrc").is_dir()) {
            (true, _) => Some(Init::Systemd),
            (_, true) => Some(Init::OpenRc),
            _ => None,
        }
    }

    /// The one that would run if this root was booted.
    pub fn installed(root: &Path) -> Option<Init> {
        let any = |files: &[&str]| files.iter().any(|file| fs::symlink_metadata(root.join(file)).is_ok());
        match Init::running(root) {
            Some(init) => Some(init),
            None if any(&["usr/lib/systemd/systemd", "lib/systemd/systemd"]) => Some(Init::Systemd),
            None if any(&["sbin/openrc-run", "usr/sbin/openrc-run", "usr/bin/openrc-run"]) => Some(Init::OpenRc),
            None => None,
        }
    }

    /// Where the file of a service is, and the link that starts it at boot.
    pub fn places(self, service: &str) -> (PathBuf, PathBuf) {
        match self {
            Init::Systemd => (
                format!("/etc/systemd/system/{service}.service").into(),
                format!("/etc/systemd/system/multi-user.target.wants/{service}.service").into(),
            ),
            Init::OpenRc => {
                (format!("/etc/init.d/{service}").into(), format!("/etc/runlevels/default/{service}").into())
            }
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Init::Systemd => "systemd",
            Init::OpenRc => "OpenRC",
        }
    }
}

/// The daemon's service.
pub const SERVICE: &str = "mesh";
/// The guard's door.
pub const DOOR_SERVICE: &str = "mesh-guard";

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// For which init system.
    pub init: Init,
    /// The state folder, as the service will see it.
    pub folder: PathBuf,
    /// Whom the daemon runs as, when not root.
    pub user: Option<String>,
    /// The `mesh` that runs now.
    pub program: PathBuf,
    /// The guard's door, too.
    pub door: Option<door::Door>,
}

/// One thing to write. Paths are as they are inside of the root.
#[derive(Clone, PartialEq, Eq)]
pub enum Item {
    /// A file with this text and these permission bits.
    File {
        /// Where.
        path: PathBuf,
        /// What.
        text: String,
        /// Bits.
        mode: u32,
    },
    /// A symbolic link.
    Link {
        /// Where.
        path: PathBuf,
        /// To what.
        to: PathBuf,
    },
    /// A program, copied.
    Copy {
        /// Where.
        path: PathBuf,
        /// From what, outside of the root.
        from: PathBuf,
    },
}

impl Item {
    /// Where it is.
    pub fn path(&self) -> &Path {
        let (Item::File { path, .. } | Item::Link { path, .. } | Item::Copy { path, .. }) = self;
        path
    }
}

/// What has to be there. Secrets are not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Plan(pub Vec<Item>);

/// Why nothing was installed, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Something of another's is in the way. Nothing was changed.
    #[error("{} is there already and not of our making", .0.display())]
    Foreign(PathBuf),
    /// A path that cannot stand in the file of a service.
    #[error("`{}` has characters that the file of a service cannot hold", .0.display())]
    OddPath(PathBuf),
    /// `mesh-guard` is not there.
    #[error("there is no mesh-guard beside {}", .0.display())]
    NoGuard(PathBuf),
    /// The system said no.
    #[error("cannot write {}: {error}", path.display())]
    Io {
        /// On what.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

impl InstallError {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            InstallError::Foreign(_) => "move it away if it is not needed any more, then run `mesh install` again",
            InstallError::OddPath(_) => "use letters, digits and `/ . _ - +` only; choose the folder with --dir",
            InstallError::NoGuard(_) => "build it with `cargo build --profile dist -p node --bins`",
            InstallError::Io { .. } => "`mesh install` needs root",
        }
    }
}

/// A path as the file of a service can hold it without any quoting.
fn plain(path: &Path) -> Result<&str, InstallError> {
    let odd = || InstallError::OddPath(path.to_owned());
    let text = path.to_str().ok_or_else(odd)?;
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"/._-+".contains(&b);
    if path.is_absolute() && text.bytes().all(fine) { Ok(text) } else { Err(odd()) }
}

/// Why a file may be replaced by somebody who is not root, in sshd's own terms: each part of its path belongs to root and
/// nobody else may write to it.
pub fn unsafe_part(root: &Path, path: &Path) -> Option<String> {
    let mut at = root.to_owned();
    for part in path.components() {
        if let Component::Normal(name) = part {
            at.push(name);
        }
        let shown = || Path::new("/").join(at.strip_prefix(root).unwrap_or(&at)).display().to_string();
        match fs::metadata(&at) {
            Err(error) => return Some(format!("{}: {error}", shown())),
            Ok(meta) if meta.uid() != 0 => return Some(format!("{} belongs to user {}", shown(), meta.uid())),
            Ok(meta) if meta.mode() & 0o022 != 0 => {
                return Some(format!("{} can be written to by others (mode {:04o})", shown(), meta.mode() & 0o7777));
            }
            Ok(_) => {}
        }
    }
    None
}

/// Where a program of ours will be run from: where it is, if nobody but root can change it there and services see it;
/// else a copy.
fn placed(root: &Path, program: &Path) -> (PathBuf, Option<Item>) {
    let hidden = ["/home", "/root", "/tmp", "/var/tmp", "/run"].iter().any(|folder| program.starts_with(folder));
    if !hidden
        && root.join(program.strip_prefix("/").unwrap_or(program)).is_file()
        && unsafe_part(root, program).is_none()
    {
        return (program.to_owned(), None);
    }
    let path = Path::new(PROGRAMS).join(program.file_name().unwrap_or_default());
    (path.clone(), Some(Item::Copy { path, from: program.to_owned() }))
}

impl Plan {
    /// What a wish comes to.
    ///
    /// # Errors
    /// [`InstallError::OddPath`], [`InstallError::NoGuard`].
    pub fn of(wish: &Wish, root: &Path) -> Result<Plan, InstallError> {
        let mut items = vec![];
        let (program, copy) = placed(root, &wish.program);
        items.extend(copy);
        let service = units::Service {
            folder: plain(&wish.folder)?,
            program: plain(&program)?,
            user: wish.user.as_deref(),
            in_tmp: wish.folder.starts_with("/tmp"),
        };
        items.extend(service_items(wish.init, SERVICE, &units::daemon(wish.init, &service)));
        if wish.init == Init::OpenRc && root.join("etc/logrotate.d").is_dir() {
            items.push(Item::File { path: units::LOGROTATE.into(), text: units::logrotate(), mode: 0o644 });
        }
        if let Some(door) = &wish.door {
            let guard = wish.program.with_file_name("mesh-guard");
            let (guard, copy) = match placed(root, &guard) {
                (_, Some(Item::Copy { from, .. })) if !from.is_file() => {
                    return Err(InstallError::NoGuard(wish.program.clone()));
                }
                placed => placed,
            };
            items.extend(copy);
            items.extend(door.items(plain(&wish.folder)?, plain(&guard)?));
            items.extend(service_items(wish.init, DOOR_SERVICE, &units::door(wish.init, door)));
        }
        Ok(Plan(items))
    }

    /// Writes what differs; the paths that did.
    ///
    /// # Errors
    /// [`InstallError::Foreign`] before anything is written; [`InstallError::Io`] in the middle, and a second run goes on.
    pub fn apply(&self, root: &Path) -> Result<Vec<PathBuf>, InstallError> {
        for item in &self.0 {
            if !item.is_free(root) {
                return Err(InstallError::Foreign(item.path().to_owned()));
            }
        }
        let mut changed = vec![];
        for item in &self.0 {
            let failed = |error| InstallError::Io { path: item.path().to_owned(), error };
            if !item.stands(root) {
                item.write(root).map_err(failed)?;
                changed.push(item.path().to_owned());
            }
        }
        Ok(changed)
    }
}

fn service_items(init: Init, service: &str, text: &str) -> [Item; 2] {
    let (file, link) = init.places(service);
    let mode = if init == Init::OpenRc { 0o755 } else { 0o644 };
    [Item::File { path: file.clone(), text: text.to_owned(), mode }, Item::Link { path: link, to: file }]
}

/// Where something is, seen from outside of the root.
pub(crate) fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn read_small(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Whether a file is of our making.
pub(crate) fn is_ours(path: &Path) -> bool {
    read_small(path).is_ok_and(|text| text.contains(MARK))
}

impl Item {
    /// Whether nothing of another's is in the way.
    fn is_free(&self, root: &Path) -> bool {
        let path = below(root, self.path());
        match (fs::symlink_metadata(&path), self) {
            (Err(_), _) => true,
            (Ok(meta), Item::Link { .. }) => meta.is_symlink(),
            (Ok(meta), Item::Copy { .. }) => meta.is_file(),
            // A key has no place for a mark; its folder is ours alone.
            (Ok(meta), Item::File { path: inside, .. }) => {
                meta.is_file() && (inside.starts_with(door::FOLDER) || is_ours(&path))
            }
        }
    }

    /// Whether it is there as it should be.
    fn stands(&self, root: &Path) -> bool {
        let path = below(root, self.path());
        match self {
            Item::Link { to, .. } => fs::read_link(&path).is_ok_and(|is| is == *to),
            Item::File { text, mode, .. } => {
                let bits = fs::symlink_metadata(&path).map(|m| m.is_file() && m.mode() & 0o7777 == *mode);
                bits.unwrap_or(false) && read_small(&path).is_ok_and(|is| is == *text)
            }
            Item::Copy { from, .. } => {
                let hash = |file: &Path| {
                    let mut hasher = blake3::Hasher::new();
                    io::copy(&mut fs::File::open(file)?, &mut hasher).map(|_| hasher.finalize())
                };
                matches!((hash(&path), hash(from)), (Ok(one), Ok(other)) if one == other)
            }
        }
    }

    /// Beside it, synced, renamed: a power cut leaves the old or the new.
    fn write(&self, root: &Path) -> io::Result<()> {
        let path = below(root, self.path());
        let folder = path.parent().unwrap_or(root);
        fs::create_dir_all(folder)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let beside = folder.join(format!(".{name}.mesh-new"));
        let _ = fs::remove_file(&beside);
        let create = |mode| fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside);
        match self {
            Item::Link { to, .. } => symlink(to, &beside)?,
            Item::File { text, mode, .. } => {
                let mut file = create(*mode)?;
                file.write_all(text.as_bytes())?;
                file.set_permissions(fs::Permissions::from_mode(*mode))?; // whatever the umask is
                file.sync_all()?;
            }
            Item::Copy { from, .. } => {
                let mut file = create(0o755)?;
                io::copy(&mut fs::File::open(from)?, &mut file)?;
                file.set_permissions(fs::Permissions::from_mode(0o755))?;
                file.sync_all()?;
            }
        }
        fs::rename(&beside, &path)?;
        fs::File::open(folder)?.sync_all()
    }
}

/// What an uninstalled machine has nothing of: all paths that any [`Plan`] can have, for both init systems. `door_only`:
/// the guard's door alone.
fn possible(door_only: bool) -> Vec<PathBuf> {
    let services: &[&str] = if door_only { &[DOOR_SERVICE] } else { &[DOOR_SERVICE, SERVICE] };
    let mut paths = vec![];
    for service in services {
        for init in [Init::Systemd, Init::OpenRc] {
            let (file, link) = init.places(service);
            paths.extend([link, file]); // a link without its file is worse than the other way round
        }
    }
    paths.extend([door::host_key(), door::config()]);
    if !door_only {
        paths.extend(["mesh", "mesh-guard"].map(|name| Path::new(PROGRAMS).join(name)));
        paths.push(units::LOGROTATE.into());
    }
    paths
}

/// Removes what is of our making; the paths that were there, and those that are another's and stay. With `dry`, only says so.
///
/// # Errors
/// [`InstallError::Io`]; a second run goes on.
pub fn remove(root: &Path, door_only: bool, dry: bool) -> Result<(Vec<PathBuf>, Vec<PathBuf>), InstallError> {
    let (mut gone, mut kept) = (vec![], vec![]);
    // What a link leads to says whose it is, so look at all before the first one goes.
    let found: Vec<(PathBuf, bool)> = possible(door_only)
        .into_iter()
        .filter(|path| fs::symlink_metadata(below(root, path)).is_ok())
        .map(|path| {
            let ours = belongs(root, &path);
            (path, ours)
        })
        .collect();
    for (path, ours) in found {
        if !ours {
            kept.push(path);
            continue;
        }
        if !dry {
            fs::remove_file(below(root, &path)).map_err(|error| InstallError::Io { path: path.clone(), error })?;
        }
        gone.push(path);
    }
    if !dry {
        for folder in [door::FOLDER, PROGRAMS] {
            let _ = fs::remove_dir(below(root, Path::new(folder))); // empty, or not ours alone
        }
    }
    Ok((gone, kept))
}

/// Whether one of the [`possible`] paths is of our making.
fn belongs(root: &Path, path: &Path) -> bool {
    let at = below(root, path);
    if path.starts_with(PROGRAMS) || path.starts_with(door::FOLDER) {
        return true;
    }
    match fs::read_link(&at) {
        Ok(to) => is_ours(&below(root, &to)) || !below(root, &to).exists(),
        Err(_) => is_ours(&at),
    }
}

#[cfg(test)]
mod tests;

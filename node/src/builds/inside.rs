//! A folder that is held by a descriptor and never left.
//!
//! Every path is walked part by part with O_NOFOLLOW: a symbolic link on the way is an error, whoever
//! made it and wherever it points. All calls block. Users: [`super::unpack`], [`super::place`],
//! [`super::collect`].

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path};

/// User and group that files are given to; `None` leaves them the daemon's.
pub type Owner = Option<(u32, u32)>;

const DIR: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// A folder, and who owns what is made in it.
pub struct Inside {
    root: OwnedFd,
    owner: Owner,
}

/// The plain parts of a relative path. `.` parts are dropped.
///
/// # Errors
/// When it is absolute or has a `..` in it.
pub fn parts(path: &Path) -> io::Result<Vec<&OsStr>> {
    path.components()
        .filter(|c| !matches!(c, Component::CurDir))
        .map(|c| match c {
            Component::Normal(part) if !part.as_bytes().contains(&0) => Ok(part),
            _ => Err(refuse(path, "leaves its folder")),
        })
        .collect()
}

/// `InvalidData` that names the path and says why.
pub fn refuse(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("`{}` {why}", path.display()))
}

fn named(path: &Path, errno: Errno) -> io::Error {
    match errno {
        Errno::ELOOP | Errno::ENOTDIR => refuse(path, "has a symbolic link or a file where a folder should be"),
        errno => {
            let error = io::Error::from(errno);
            io::Error::new(error.kind(), format!("`{}`: {error}", path.display()))
        }
    }
}

impl Inside {
    /// Holds a folder that exists.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(folder: &Path, owner: Owner) -> io::Result<Self> {
        let root = nix::fcntl::open(folder, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|e| named(folder, e))?;
        Ok(Inside { root, owner })
    }

    /// The descriptor of the folder.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    fn give(&self, fd: impl AsFd) -> Result<(), Errno> {
        match self.owner {
            Some((uid, gid)) => fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))),
            None => Ok(()),
        }
    }

    fn walk(&self, parts: &[&OsStr], make: bool, path: &Path) -> io::Result<OwnedFd> {
        let mut at = self.root.try_clone()?;
        for part in parts {
            let next = match openat(&at, *part, DIR, Mode::empty()) {
                Err(Errno::ENOENT) if make => match mkdirat(&at, *part, Mode::from_bits_truncate(0o755)) {
                    Ok(()) | Err(Errno::EEXIST) => openat(&at, *part, DIR, Mode::empty()).and_then(|fd| {
                        self.give(&fd)?;
                        Ok(fd)
                    }),
                    Err(errno) => Err(errno),
                },
                other => other,
            };
            at = next.map_err(|e| named(path, e))?;
        }
        Ok(at)
    }

    fn parent(&self, path: &Path, make: bool) -> io::Result<(OwnedFd, OsString)> {
        let parts = parts(path)?;
        let Some((name, folders)) = parts.split_last() else {
            return Err(refuse(path, "names no file"));
        };
        Ok((self.walk(folders, make, path)?, (*name).to_owned()))
    }

    /// Makes a folder and those above it. Its owner may always enter and change it.
    ///
    /// # Errors
    /// When a part is no folder.
    pub fn make_folder(&self, path: &Path, mode: u32) -> io::Result<()> {
        let parts = parts(path)?;
        if parts.is_empty() {
            return Ok(());
        }
        let folder = self.walk(&parts, true, path)?;
        fchmod(&folder, Mode::from_bits_truncate((mode & 0o777) | 0o700)).map_err(|e| named(path, e))
    }

    /// Makes a file, in place of any file or link of that name.
    ///
    /// # Errors
    /// When a part of the way is no folder, or a folder has that name.
    pub fn make_file(&self, path: &Path, mode: u32) -> io::Result<File> {
        let (parent, name) = self.vacant(path)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&parent, name.as_os_str(), flags, Mode::from_bits_truncate(0o600))
            .and_then(|fd| {
                self.give(&fd)?;
                fchmod(&fd, Mode::from_bits_truncate(mode & 0o777))?;
                Ok(fd)
            })
            .map_err(|e| named(path, e))?;
        Ok(File::from(file))
    }

    /// Makes a symbolic link. Where it points is not looked at: nobody here follows it.
    ///
    /// # Errors
    /// As [`Inside::make_file`].
    pub fn make_link(&self, path: &Path, target: &Path) -> io::Result<()> {
        let (parent, name) = self.vacant(path)?;
        symlinkat(target, &parent, name.as_os_str()).map_err(|e| named(path, e))?;
        if let Some((uid, gid)) = self.owner {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            fchownat(&parent, name.as_os_str(), uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(|e| named(path, e))?;
        }
        Ok(())
    }

    /// Gives a file a second name. Both are inside.
    ///
    /// # Errors
    /// As [`Inside::make_file`], and when the first name is not there.
    pub fn make_hard_link(&self, path: &Path, first: &Path) -> io::Result<()> {
        let (from, from_name) = self.parent(first, false)?;
        let (parent, name) = self.vacant(path)?;
        linkat(&from, from_name.as_os_str(), &parent, name.as_os_str(), AtFlags::empty()).map_err(|e| named(first, e))
    }

    fn vacant(&self, path: &Path) -> io::Result<(OwnedFd, OsString)> {
        let (parent, name) = self.parent(path, true)?;
        match unlinkat(&parent, name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok((parent, name)),
            Err(Errno::EISDIR) => Err(refuse(path, "is a folder already")),
            Err(errno) => Err(named(path, errno)),
        }
    }

    /// Opens a regular file for reading. Never waits for a pipe or a device.
    ///
    /// # Errors
    /// When it is anything else, or not there.
    pub fn open_file(&self, path: &Path) -> io::Result<File> {
        let (parent, name) = self.parent(path, false)?;
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let file = openat(&parent, name.as_os_str(), flags, Mode::empty()).map_err(|e| named(path, e))?;
        let file = File::from(file);
        if file.metadata()?.is_file() { Ok(file) } else { Err(refuse(path, "is no regular file")) }
    }

    /// The target text of a symbolic link.
    ///
    /// # Errors
    /// When it is none.
    pub fn read_link(&self, path: &Path) -> io::Result<Vec<u8>> {
        let (parent, name) = self.parent(path, false)?;
        readlinkat(&parent, name.as_os_str()).map(OsStringExt::into_vec).map_err(|e| named(path, e))
    }
}

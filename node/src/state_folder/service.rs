//! What `mesh install` asks of a state folder and notes in it: whether a daemon uses it, and where its guard's sshd listens.

use super::{FolderError, StateFolder, io_error};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::io;

impl StateFolder {
    /// The process of the daemon that uses the folder; `None` when none does. Leaves nothing behind.
    pub fn holder(&self) -> Option<u32> {
        let path = self.file("lock");
        let file = File::open(&path).ok()?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                Some(fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0))
            }
            _ => None,
        }
    }

    /// Where the guard's sshd listens; `None` when there is none.
    pub fn ssh_port(&self) -> Option<u16> {
        let text = self.read("ssh-port").ok()?;
        std::str::from_utf8(&text).ok()?.trim().parse().ok().filter(|port| *port != 0)
    }

    /// Notes where the guard's sshd listens, or that there is none: the daemon attests it at its next start.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn write_ssh_port(&self, port: Option<u16>) -> Result<(), FolderError> {
        let path = self.file("ssh-port");
        match port {
            Some(port) => self.write("ssh-port", format!("{port}\n").as_bytes()),
            None => match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &path, e)),
                _ => Ok(()),
            },
        }
    }
}

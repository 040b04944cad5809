//! What builds of a daemon that was killed may have left running: found by evidence, and ended.
//!
//! bubblewrap ties its processes to each other early in its life, not at its very start: when a daemon is
//! killed while a sandbox is being set up, the inner half can wait for the outer one for good. It does
//! no harm but to be there, and to keep the folder of its build busy. At start, before the work folder is
//! emptied, a daemon ends what is provably an earlier life's: a bubblewrap whose command line binds a
//! folder of this very work folder, or a process without a terminal (a person who looks around has one)
//! that works or is rooted inside of it. The work folder is locked with the state folder, so nobody who
//! lives has builds in it. Processes are ended by number.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How often /proc is looked through: a process that is being ended may just have started another.
const ROUNDS_MAX: usize = 5;

/// How long a killed process may take to be gone.
const DEATH_MS_MAX: i32 = 1_000;

/// Ends them all, and waits a moment until they are gone. Blocks; call it at start. Returns how many there were.
pub fn end_leftovers(work: &Path) -> usize {
    // /proc names real paths; a command line names what the daemon was told.
    let places: BTreeSet<_> = [Some(work.to_owned()), fs::canonicalize(work).ok()].into_iter().flatten().collect();
    let mut ended = 0;
    for _ in 0..ROUNDS_MAX {
        let found: Vec<Held> = processes().into_iter().filter_map(|pid| Held::with_evidence(pid, &places)).collect();
        if found.is_empty() {
            return ended;
        }
        ended += found.len();
        for process in &found {
            let killed = process.kill();
            let Held { pid, why, .. } = process;
            tracing::warn!(pid, why, ?killed, "ended a process that an earlier life of this daemon left behind");
        }
        for process in &found {
            process.wait();
        }
    }
    tracing::warn!(work = %work.display(), "processes of an earlier life cannot be ended, or come back");
    ended
}

/// A process held by a descriptor, so that its number cannot become another's in between.
struct Held {
    pid: i32,
    why: String,
    descriptor: OwnedFd,
}

impl Held {
    /// Looked at again once held: what was seen before may have been another's.
    fn with_evidence(pid: i32, places: &BTreeSet<PathBuf>) -> Option<Held> {
        evidence(pid, places)?;
        // SAFETY: the call takes numbers alone, and the descriptor it gives is nobody else's.
        let descriptor = unsafe {
            let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
            (fd >= 0).then(|| OwnedFd::from_raw_fd(fd as i32))?
        };
        Some(Held { pid, why: evidence(pid, places)?, descriptor })
    }

    fn kill(&self) -> io::Result<()> {
        let (fd, nothing) = (self.descriptor.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
        // SAFETY: the descriptor is open; no information goes with the signal.
        let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, nothing, 0) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Until it is gone.
    fn wait(&self) {
        let mut asked = libc::pollfd { fd: self.descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, which lives as long as the call.
        unsafe { libc::poll(&mut asked, 1, DEATH_MS_MAX) };
    }
}

/// All processes but this one and the first.
fn processes() -> Vec<i32> {
    let own = std::process::id() as i32;
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid > 1 && *pid != own).collect()
}

/// Why a process is an earlier life's, when it is. One that has ended has neither folders nor a command line.
fn evidence(pid: i32, places: &BTreeSet<PathBuf>) -> Option<String> {
    let inside = |path: &Path| places.iter().any(|place| path.starts_with(place));
    for what in ["cwd", "root"] {
        if let Ok(path) = fs::read_link(format!("/proc/{pid}/{what}"))
            && inside(&path)
            && !has_terminal(pid)
        {
            return Some(format!("its {what} is {}", path.display()));
        }
    }
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let folder = bound_by_bwrap(&line).map(Path::new).find(|folder| inside(folder))?;
    Some(format!("it is a bwrap that binds {}", folder.display()))
}

/// Whether a process has a controlling terminal; so it is said of one that cannot be asked.
fn has_terminal(pid: i32) -> bool {
    let terminal = |stat: String| stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(4).map(|number| number != "0");
    fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(terminal).unwrap_or(true)
}

/// The folders that a command line of bubblewrap binds for writing; none for other programs.
fn bound_by_bwrap(line: &[u8]) -> impl Iterator<Item = &OsStr> {
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let is_bwrap = Path::new(OsStr::from_bytes(words[0])).file_name() == Some(OsStr::new("bwrap"));
    // Behind `--` is the build's own command, which may say what it likes.
    let own = words.iter().position(|word| *word == b"--").unwrap_or(words.len());
    let own: Vec<&OsStr> = words[..own].iter().map(|word| OsStr::from_bytes(word)).collect();
    let pairs: Vec<&OsStr> =
        own.windows(2).filter(|pair| is_bwrap && pair[0] == "--bind").map(|pair| pair[1]).collect();
    pairs.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Child, Command};

    fn sleeper(change: impl FnOnce(&mut Command)) -> Child {
        let mut command = Command::new("sleep");
        command.arg("86400");
        // SAFETY: a system call alone; whoever runs the tests may have a terminal, which builds have not.
        unsafe { command.pre_exec(|| Ok(nix::unistd::setsid().map(drop)?)) };
        change(&mut command);
        command.spawn().unwrap()
    }

    /// A process that looks like bubblewrap: `sh` under its name, which takes what follows for parameters.
    fn looks_like_bwrap(name: &str, folder: &Path) -> Child {
        let mut command = Command::new("sh");
        // A builtin, so that the shell does not become another program and lose the words.
        command.arg0(name).args(["-c", "read line", "--bind"]).arg(folder).args(["/build", "--", "true"]);
        command.stdin(std::process::Stdio::piped());
        command.spawn().unwrap()
    }

    #[test]
    fn an_earlier_lifes_processes_are_ended_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let (work, other) = (dir.path().join("work"), dir.path().join("work-of-another"));
        for folder in [&work, &other] {
            fs::create_dir_all(folder.join("12.1")).unwrap();
        }
        let theirs = [
            looks_like_bwrap("/usr/bin/bwrap", &work.join("12.1")),
            sleeper(|command| _ = command.current_dir(work.join("12.1"))),
        ];
        let others = [
            looks_like_bwrap("/usr/bin/bwrap", &other.join("12.1")),
            looks_like_bwrap("an-editor", &work.join("12.1")), // names the folder, and is none of ours
            sleeper(|command| _ = command.current_dir(&other)),
            sleeper(|_| ()),
        ];
        // A link to the folder is the same folder.
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&work, &link).unwrap();
        // Children of this process: what was killed stays as a remainder without folders, which is no evidence.
        assert_eq!(end_leftovers(&link), 2);
        for mut child in theirs {
            assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        }
        for mut child in others {
            assert_eq!(child.try_wait().unwrap(), None, "ended a process of somebody else");
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(end_leftovers(&work), 0);
    }

    #[test]
    fn words_of_the_build_itself_are_no_evidence() {
        let bound = |line: &[u8]| bound_by_bwrap(line).map(OsStr::to_owned).collect::<Vec<_>>();
        assert_eq!(bound(b"/usr/bin/bwrap\0--ro-bind\0/usr\0/usr\0--bind\0/w/1\0/build\0--\0x\0"), ["/w/1"]);
        assert!(bound(b"bwrap\0--dev\0/dev\0--\0bwrap\0--bind\0/w/1\0").is_empty());
        assert!(bound(b"bwrapper\0--bind\0/w/1\0").is_empty());
        assert!(bound(b"").is_empty());
    }
}

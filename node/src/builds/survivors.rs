//! Processes that outlive their build: found and ended.
//!
//! Under bubblewrap there are none: the kernel ends all of a process namespace with its first, whose
//! remains fall to the daemon when bubblewrap itself was quicker, and have to be reaped. Without a sandbox a build can leave its process group (`setsid`). The daemon is therefore a *subreaper*:
//! orphans become its children. After each such build it looks at its children once, ends those that
//! carry the attempt's mark in their environment, and with them, generation by generation, all that
//! they leave behind. An orphan that has wiped its environment is ended when no other build without a
//! sandbox runs. Limits: such an orphan lives on until then; and when the daemon itself is killed,
//! only the command goes with it. Children that the daemon started otherwise stay in its own process
//! group and are never touched. Whoever needs more uses the sandbox.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getpgrp};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The variable that marks all processes of an attempt.
pub const MARK: &str = "MESH_ATTEMPT_ID";

/// How often the children are looked at before giving up on ones that multiply faster.
const ROUNDS_MAX: usize = 200;

/// The children that builds were started as. One set a process, because orphans fall to the process:
/// two hosts in one (a test) must not take each other's for theirs.
#[derive(Clone, Copy, Default)]
pub struct Children;

static KNOWN: Mutex<Known> = Mutex::new(Known { pids: BTreeSet::new(), unboxed: 0 });

struct Known {
    pids: BTreeSet<i32>,
    unboxed: usize,
}

impl Children {
    /// Makes this process the one that orphans fall to.
    ///
    /// # Errors
    /// When the kernel refuses (it is older than 3.4).
    pub fn adopt_orphans(&self) -> io::Result<()> {
        Ok(nix::sys::prctl::set_child_subreaper(true)?)
    }

    fn lock(&self) -> MutexGuard<'static, Known> {
        KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a child in a way that no sweep can take it for an orphan.
    ///
    /// # Errors
    /// As `start`.
    pub fn start<T>(&self, unboxed: bool, start: impl FnOnce() -> io::Result<(T, Option<u32>)>) -> io::Result<T> {
        let mut known = self.lock();
        let (child, pid) = start()?;
        known.pids.extend(pid.map(|pid| pid as i32));
        known.unboxed += usize::from(unboxed);
        Ok(child)
    }

    /// Forgets a child that has been waited for.
    pub fn ended(&self, pid: u32, unboxed: bool) {
        let mut known = self.lock();
        known.pids.remove(&(pid as i32));
        known.unboxed -= usize::from(unboxed && known.unboxed > 0);
    }

    /// Ends all orphans of an attempt. Cheap when there are none.
    pub async fn sweep(&self, mark: &str) {
        for _ in 0..ROUNDS_MAX {
            if !self.sweep_once(Some(mark)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await; // a killed process takes a moment to die
        }
        tracing::warn!(mark, "processes of a build without a sandbox multiply faster than they can be ended");
    }

    /// Reaps orphans that have ended. Each costs a process number until then.
    pub fn reap(&self) {
        self.sweep_once(None);
    }

    /// Reaps what has ended, and kills what carries the mark. True when there was something to kill.
    fn sweep_once(&self, mark: Option<&str>) -> bool {
        let known = self.lock(); // held: no child is started, or becomes unknown, in between
        let mut found = false;
        for pid in children() {
            if known.pids.contains(&pid) {
                continue;
            }
            let Some((state, group)) = state_and_group(pid) else { continue };
            if group == getpgrp().as_raw() {
                continue;
            }
            let pid_ = Pid::from_raw(pid);
            if state != 'Z' {
                let Some(mark) = mark else { continue };
                let ours = match marked(pid) {
                    Some(theirs) => theirs == mark.as_bytes(),
                    None => known.unboxed <= 1,
                };
                if !ours {
                    continue;
                }
                let _ = kill(pid_, Signal::SIGKILL);
                found = true;
            }
            let _: Result<_, Errno> = waitpid(pid_, Some(WaitPidFlag::WNOHANG));
        }
        found
    }
}

/// All children of this process, whichever thread they are booked on.
fn children() -> Vec<i32> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// State and process group, from behind the command's name, which may hold anything.
fn state_and_group(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(1)?.parse().ok()?))
}

/// The mark in a process's environment.
fn marked(pid: i32) -> Option<Vec<u8>> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mark = environ.split(|b| *b == 0).find_map(|var| var.strip_prefix(MARK.as_bytes())?.strip_prefix(b"="))?;
    Some(mark.to_vec())
}

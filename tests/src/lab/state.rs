//! What is written down of a lab, so that another process can go on with it and an interrupted one can be removed: a
//! folder below [`base`], with `state.json` and each host's own files. Removal is one script, run by whoever ends a
//! lab and by its guardian, a process that waits for the builder's death.

use super::command::{Done, Trouble, hold};
use super::plan::Faults;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Removes all that carries a lab's prefix: $1 prefix, $2 folder. Processes by id, and only those in its namespaces.
const REMOVE: &str = r#"
inside() { for n in /run/netns/"$1"-*; do [ ! -e "$n" ] || ip netns pids "${n##*/}" 2>/dev/null; done; }
i=0
while pids=$(inside "$1") && [ -n "$pids" ] && [ $i -lt 200 ]; do
    kill -9 $pids 2>/dev/null
    i=$((i + 1))
    sleep 0.02
done
for n in /run/netns/"$1"-*; do [ ! -e "$n" ] || ip netns del "${n##*/}"; done
rm -rf "$2"
[ ! -e "$2" ]
"#;

/// Waits for a word or for the end of standard input; a word means that all is well and the lab stays.
const GUARD: &str = "read -r word && exit 0\n";

/// A process by id and start, so that another one with the same id is not taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    pub started: u64,
}

impl Process {
    /// The process with this id, if there is one.
    pub fn find(pid: u32) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Field 22, counted from behind the name, which may hold anything; field 3 is the state.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        (fields.next()? != "Z").then_some(())?;
        Some(Process { pid, started: fields.nth(18)?.parse().ok()? })
    }

    pub fn is_there(self) -> bool {
        Process::find(self.pid) == Some(self)
    }
}

/// A host that has power, or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Power {
    /// Its namespace stands and its ports are plugged in.
    pub on: bool,
    /// Its first process.
    pub init: Option<Process>,
    /// Names of its networks' ends of its ports.
    pub devices: BTreeMap<String, String>,
}

/// All that is written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// What people call the lab.
    pub name: String,
    /// The fleet's file.
    pub fleet: String,
    /// Without this process the lab is to be removed. None for one that outlives its builder.
    pub owner: Option<Process>,
    pub hosts: BTreeMap<String, Power>,
    pub faults: Faults,
    /// How many ports were ever made.
    pub ports: u32,
}

/// Where labs are: in memory, if the machine has a place there for what a few builds leave (removing the hundreds of
/// folders of a mesh's hosts takes seconds on a busy disk); else on disk. `MESH_LAB_DIR` names another place.
pub fn base() -> PathBuf {
    const ROOM_BYTES: u64 = 2 << 30;
    if let Some(place) = std::env::var_os("MESH_LAB_DIR") {
        return place.into();
    }
    let shared = nix::sys::statvfs::statvfs("/dev/shm").map(|s| s.blocks() * s.fragment_size());
    let place = if shared.is_ok_and(|room| room >= ROOM_BYTES) { "/dev/shm" } else { "/var/tmp" };
    Path::new(place).join("mesh-lab")
}

/// What all of a lab's namespaces begin with.
pub fn prefix(name: &str) -> String {
    format!("mesh-lab-{name}")
}

impl State {
    pub fn load(name: &str) -> Done<State> {
        let file = base().join(name).join("state.json");
        let text = fs::read_to_string(&file).map_err(|e| Trouble(format!("no lab is called {name} ({e})")))?;
        serde_json::from_str(&text).map_err(|e| Trouble(format!("{}: {e}", file.display())))
    }

    pub fn save(&self) -> Done {
        let folder = base().join(&self.name);
        let text = serde_json::to_string_pretty(self).map_err(|e| Trouble(e.to_string()))?;
        fs::write(folder.join("state.new"), text)?;
        Ok(fs::rename(folder.join("state.new"), folder.join("state.json"))?)
    }
}

/// Names of all labs that are there, whole or not.
pub fn names() -> Vec<String> {
    let entries = fs::read_dir(base()).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Removes a lab, whatever is left of it.
pub fn remove(name: &str) -> Done {
    let folder = base().join(name);
    let out = Command::new("sh").args(["-c", REMOVE, "sh"]).arg(prefix(name)).arg(&folder).output()?;
    let _ = fs::remove_dir(base()); // the last one takes the folder with it
    match out.status.success() {
        true => Ok(()),
        false => Err(Trouble(format!("{name} cannot be removed: {}", crate::daemon::said(&out)))),
    }
}

/// Removes labs whose owner is gone. A folder without a state is one that is being made, or was left in that moment.
pub fn remove_stale() -> Vec<String> {
    const BEING_MADE: Duration = Duration::from_secs(60);
    let is_stale = |name: &String| match State::load(name) {
        Ok(state) => state.owner.is_some_and(|owner| !owner.is_there()),
        Err(_) => {
            let age = fs::metadata(base().join(name)).and_then(|m| m.modified()).ok().and_then(|m| m.elapsed().ok());
            age.is_some_and(|age| age > BEING_MADE)
        }
    };
    let stale: Vec<String> = names().into_iter().filter(is_stale).collect();
    stale.into_iter().filter(|name| remove(name).is_ok()).collect()
}

/// Removes a lab when this process dies, whatever it dies of.
#[derive(Debug)]
pub struct Guardian {
    child: Child,
    alive: Option<OwnedFd>,
}

impl Guardian {
    pub fn start(name: &str, folder: &Path) -> Done<Guardian> {
        let (read, write) = nix::unistd::pipe().map_err(|e| Trouble(format!("pipe: {e}")))?;
        for end in [&read, &write] {
            // SAFETY: sets a flag of a descriptor that is ours.
            unsafe { libc::fcntl(end.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{GUARD}{REMOVE}"), "sh"]).arg(prefix(name)).arg(folder);
        command.stdin(Stdio::from(read)).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: setsid(2) is async-signal-safe. What ends a whole group is not to end the guardian.
        unsafe {
            command.pre_exec(|| match libc::setsid() {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            });
        }
        let child = command.spawn()?;
        hold(Some(write.as_raw_fd()));
        Ok(Guardian { child, alive: Some(write) })
    }

    /// The lab stays.
    pub fn dismiss(mut self) -> Done {
        hold(None);
        if let Some(alive) = self.alive.take() {
            nix::unistd::write(&alive, b"stay\n").map_err(|e| Trouble(format!("guardian: {e}")))?;
        }
        self.child.wait()?;
        Ok(())
    }

    /// The lab goes; it is gone when this returns.
    pub fn dispose(&mut self) -> bool {
        hold(None);
        self.alive = None;
        self.child.wait().is_ok_and(|status| status.success())
    }
}

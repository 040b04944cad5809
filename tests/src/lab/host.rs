//! One host of a lab: network, mount, UTS and PID namespaces around a first process, and its own state: /etc and
//! /var/lib over the machine's, and /root, /run, /tmp and the mesh's folder of its own. What runs on it is entered by
//! the first process's id, and ends with it.

use super::command::{Done, Trouble, path};
use super::state::Process;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Where a host has the mesh's state, in its own eyes.
pub const MESH_DIR: &str = "/var/lib/mesh";

/// PID 1: $1 folder of the host, $2 its name. `wait` in between reaps what lost its parent.
const INIT: &str = r#"
set -e
umount -lR /run/netns 2>/dev/null || :
hostname "$2"
for d in etc lib; do mkdir -p "$1/$d.upper" "$1/$d.work"; done
mkdir -p "$1/root" "$1/tmp" "$1/mesh"
chmod 700 "$1/root"; chmod 1777 "$1/tmp"
mount -t overlay -o "lowerdir=/etc,upperdir=$1/etc.upper,workdir=$1/etc.work" overlay /etc
mount -t overlay -o "lowerdir=/var/lib,upperdir=$1/lib.upper,workdir=$1/lib.work" overlay /var/lib
mkdir -p /var/lib/mesh
mount --bind "$1/mesh" /var/lib/mesh
mount --bind "$1/root" /root
mount --bind "$1/tmp" /tmp
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/sshd
echo "$2" >/etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$2" >/etc/hosts
[ -s "$1/machine-id" ] || tr -d - </proc/sys/kernel/random/uuid >"$1/machine-id"
cp "$1/machine-id" /etc/machine-id
cd /
echo ready
exec >/dev/null 2>&1
while :; do sleep 3600 & wait $!; done
"#;

/// A host whose first process has been started and has not yet said that it is ready.
#[derive(Debug)]
pub struct Starting {
    name: String,
    child: Child,
}

/// Starts a host's first process in a network namespace. `with_us`: it dies when the calling thread dies.
///
/// # Errors
/// It cannot be started.
pub fn start(name: &str, namespace: &str, folder: &Path, with_us: bool) -> Done<Starting> {
    fs::create_dir_all(folder)?;
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", path(namespace).display()));
    command.args(["unshare", "--pid", "--fork", "--kill-child", "--uts", "--mount", "--propagation", "private"]);
    command.args(["--mount-proc", "bash", "-c", INIT, "init"]).arg(folder).arg(name);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(fs::File::create(folder.join("console.log"))?);
    // SAFETY: setsid(2) and prctl(2) are async-signal-safe. An interrupt of ours is not the host's.
    unsafe {
        command.pre_exec(move || {
            let done = libc::setsid() != -1 && (!with_us || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0);
            if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
    let child = command.spawn().map_err(|e| Trouble(format!("{name}: nsenter: {e}")))?;
    Ok(Starting { name: name.into(), child })
}

impl Starting {
    /// Waits until it is ready: its first process, and what has to be waited for when it is gone.
    ///
    /// # Errors
    /// It ended instead; why stands in its `console.log`.
    pub fn ready(mut self, folder: &Path) -> Done<(Process, Child)> {
        let mut line = String::new();
        let out = self.child.stdout.take().ok_or_else(|| Trouble("no pipe".into()))?;
        BufReader::new(out).read_line(&mut line)?;
        let above = self.child.id();
        let children = fs::read_to_string(format!("/proc/{above}/task/{above}/children")).unwrap_or_default();
        let first = children.split_whitespace().next().and_then(|pid| pid.parse().ok()).and_then(Process::find);
        match (line.trim(), first) {
            ("ready", Some(first)) => Ok((first, self.child)),
            _ => {
                let _ = self.child.kill();
                let _ = self.child.wait();
                let console = fs::read_to_string(folder.join("console.log")).unwrap_or_default();
                Err(Trouble(format!("{} did not come up\n{console}", self.name)))
            }
        }
    }
}

/// The words before a command that is to run on a host.
pub fn enter(init: Process) -> Vec<String> {
    let pid = init.pid.to_string();
    ["nsenter", "-t", &pid, "-n", "-u", "-m", "-p", "--"].map(str::to_owned).to_vec()
}

/// Makes a command one of a host: the `mesh` of this tree, the host's own folder and home.
pub fn dress(command: &mut Command, mesh: Option<&Path>) {
    let folder = mesh.and_then(Path::parent).map(PathBuf::from).into_iter();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::env::join_paths(folder.chain(std::env::split_paths(&path))).unwrap_or(path);
    command
        .env("PATH", all)
        .env("MESH_DIR", MESH_DIR)
        .env("HOME", "/root")
        .env_remove("XDG_STATE_HOME")
        .current_dir("/");
}

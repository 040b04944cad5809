//! A machine that really boots: a root file system with an init system of its own, run by systemd-nspawn in a network
//! namespace of [`crate::netns`]. Whatever it writes goes into a layer above a root that `scripts/boot-test` has made, and
//! survives its reboots. When it asks to be rebooted nspawn ends and is started again, as firmware does with a machine.
//!
//! Dropped, it is powered off by the end of its first process, and the layer is gone.

use crate::bounded;
use crate::daemon::{PATIENCE, ask, said, signal};
use crate::program::mesh;
use crate::status::Status;
use crate::tree::root;
use crate::wait_for;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// nspawn's way of saying that the guest wants to be started again.
const REBOOT: i32 = 133;

/// Booting and going down, on a loaded machine.
const BOOT: Duration = Duration::from_secs(180);

/// A guest.
#[derive(Debug)]
pub struct Guest {
    name: String,
    namespace: String,
    folder: tempfile::TempDir,
    child: Option<Child>,
}

/// Where `scripts/boot-test` makes its roots.
pub fn roots() -> PathBuf {
    std::env::var_os("MESH_BOOT_ROOTS").map_or_else(|| root().join("target/boot"), PathBuf::from)
}

impl Guest {
    /// A machine with the root of this init system (`systemd` or `openrc`), not yet booted, in a network namespace.
    #[track_caller]
    pub fn new(init: &str, namespace: &str) -> Guest {
        let lower = roots().join(init);
        assert!(lower.join("etc").is_dir(), "no root for {init} in {}: scripts/boot-test makes it", roots().display());
        let folder = tempfile::Builder::new().prefix("mesh-guest-").tempdir_in(roots()).expect("folder");
        for name in ["upper", "work", "root"] {
            fs::create_dir(folder.path().join(name)).expect("folder");
        }
        let at = |name: &str| folder.path().join(name).display().to_string();
        let layers = format!("lowerdir={},upperdir={},workdir={}", lower.display(), at("upper"), at("work"));
        let mounted =
            bounded::output(Command::new("mount").args(["-t", "overlay", "-o", &layers, "overlay", &at("root")]));
        assert!(mounted.status.success(), "{}", said(&mounted));
        let guest = Guest { name: format!("mesh-{init}"), namespace: namespace.into(), folder, child: None };
        let bin = guest.root().join("root/bin");
        fs::create_dir_all(&bin).expect("folder");
        for program in ["mesh", "mesh-guard"] {
            let from = mesh().with_file_name(program);
            fs::copy(&from, bin.join(program)).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
        }
        guest
    }

    /// Its files, as this machine sees them.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// The mesh's state folder, as this machine sees it.
    pub fn state(&self) -> PathBuf {
        self.root().join("var/lib/mesh")
    }

    /// Switches it on, and returns when it has started what it starts at boot.
    #[track_caller]
    pub fn boot(&mut self) {
        // Debian's sysvinit puts its interfaces down before a reboot; a machine's own setup would put them up again.
        let up = bounded::output(Command::new("ip").args(["-n", &self.namespace, "link", "set", "eth0", "up"]));
        assert!(up.status.success(), "{}", said(&up));
        let console = fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("console"));
        let console = console.expect("console");
        let mut command = Command::new("systemd-nspawn");
        command.args(["--quiet", "--register=no", "--keep-unit", "--console=read-only", "--resolv-conf=off"]);
        // Of a private network nspawn lets a guest be the master, but not of one that was made for it.
        command.arg("--capability=CAP_NET_ADMIN");
        command.arg("-D").arg(self.root());
        command.arg(format!("--machine={}-{}", self.name, std::process::id()));
        command.arg(format!("--network-namespace-path=/run/netns/{}", self.namespace));
        command.arg("--boot");
        command.stdin(Stdio::null()).stdout(console.try_clone().expect("console")).stderr(console);
        // SAFETY: prctl(2) is async-signal-safe. nspawn ends its guest when it ends.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        self.child = Some(command.spawn().expect("systemd-nspawn; scripts/boot-test installs it"));
        let up = wait_for(BOOT, || {
            let first = self.first()?;
            // systemd has its own word for it; OpenRC's default level is the last thing that sysvinit starts.
            let script = "if [ -d /run/systemd/system ]; then \
                          case $(systemctl is-system-running) in running|degraded) ;; *) false;; esac; \
                          else [ \"$(rc-status -r)\" = default ] && ! [ -e /run/openrc/rc.starting ]; fi";
            let out = enter(first, &["sh", "-c", script]).output().ok()?;
            out.status.success().then_some(())
        });
        assert!(up.is_some(), "{} did not boot\n{}", self.name, self.console());
    }

    /// Its first process, as this machine numbers it.
    fn first(&self) -> Option<u32> {
        first_below(self.child.as_ref()?.id())
    }

    /// Runs a command in it to its end, whatever that is.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> Output {
        let first = self.first().unwrap_or_else(|| panic!("{} is not running\n{}", self.name, self.console()));
        bounded::output(&mut enter(first, words))
    }

    /// The same for a command that has to succeed; its standard output without the last newline, and standard error.
    #[track_caller]
    pub fn ok(&self, words: &[&str]) -> (String, String) {
        let out = self.run(words);
        assert!(out.status.success(), "{}: {words:?}: {}\n{}\n{}", self.name, out.status, said(&out), self.console());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        (text(&out.stdout), text(&out.stderr))
    }

    /// Runs a command that takes the machine down, waits until it asks to be started again, and starts it.
    #[track_caller]
    pub fn reboot_by(&mut self, words: &[&str]) {
        let first = self.first().expect("it runs");
        // The command itself may be ended on the way down.
        let mut asked = enter(first, words).stdin(Stdio::null()).spawn().expect("nsenter");
        let child = self.child.as_mut().expect("it runs");
        let ended = wait_for(BOOT, || child.try_wait().expect("our own child"));
        let _ = asked.wait();
        let Some(status) = ended else { panic!("{} does not go down\n{}", self.name, self.console()) };
        assert_eq!(
            status.code(),
            Some(REBOOT),
            "it asked for something else than a reboot: {status}\n{}",
            self.console()
        );
        self.child = None;
        self.boot();
    }

    /// What its daemon says of the mesh; `None` while nobody answers.
    pub fn status(&self) -> Option<Status> {
        ask(&self.state(), "GET", "/v1/status", "").map(Status)
    }

    /// The process of the daemon in its own numbering, as the daemon's lock names it.
    #[track_caller]
    pub fn daemon(&self) -> u32 {
        let text = fs::read_to_string(self.state().join("lock")).expect("a daemon has run");
        text.trim().parse().expect("a process id")
    }

    /// The end of what it wrote on its console.
    pub fn console(&self) -> String {
        let bytes = fs::read(self.folder.path().join("console")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        format!("--- console of {}\n{}", self.name, lines[lines.len().saturating_sub(60)..].join("\n"))
    }
}

/// A command in the namespaces of a guest's first process.
fn enter(first: u32, words: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["-t", &first.to_string(), "-m", "-u", "-i", "-n", "-p", "-r", "-w", "--"]).args(words);
    command.env_clear().stdin(Stdio::null());
    command.env("PATH", "/root/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("HOME", "/root").env("NO_COLOR", "1").env("LC_ALL", "C.UTF-8");
    command
}

impl Drop for Guest {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.console());
        }
        if let Some(mut child) = self.child.take() {
            // Its first process takes everything of it along.
            if let Some(first) = first_below(child.id()) {
                signal(first, libc::SIGKILL);
            }
            if wait_for(PATIENCE, || child.try_wait().ok().flatten()).is_none() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        let root = self.root();
        let unmounted = || Command::new("umount").arg(&root).output().is_ok_and(|o| o.status.success());
        if wait_for(PATIENCE, || unmounted().then_some(())).is_none() && !std::thread::panicking() {
            panic!("{} is still in use", root.display());
        }
    }
}

/// The child of nspawn that is the first process of a guest: it has numbers of its own.
fn first_below(nspawn: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children")).ok()?;
    let here = fs::read_link("/proc/self/ns/pid").ok()?;
    let own = |pid: &u32| fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|numbers| numbers != here);
    children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).find(own)
}

/// Whether a path of the guest is there; a link counts, wherever it leads.
pub fn is_there(root: &Path, path: &str) -> bool {
    fs::symlink_metadata(root.join(path.trim_start_matches('/'))).is_ok()
}

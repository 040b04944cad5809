//! The sandbox: how a build's command is started so that it is not a way in.
//!
//! With bubblewrap the build sees /usr and a few files of /etc read-only, its own folder at `/build`,
//! and has its own processes, devices and (unless asked) a network of loopback only; the daemon's
//! state, /home, /run and all sockets are not there. As root, bwrap sets up and `setpriv` then drops
//! to the build user; the build's environment is set only after that (`env -i`), because LD_PRELOAD
//! must not reach a program that still has rights. Builds of network = true share the host's network
//! namespace, and with it abstract Unix sockets. Without bubblewrap there is the build user and its
//! process group, nothing more. Running and killing is in [`super::run`].

use super::inside::Owner;
use mesh::build::{BuildSpec, Sandbox};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// Where a build finds its folder, on every host alike, so that outputs agree bit for bit.
pub const BUILD_FOLDER: &str = "/build";

/// What a build's PATH is, on every host alike.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Files of /etc that compilers and packaging tools read, and nothing that is secret.
const ETC: &[&str] = &[
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "debian_version",
    "debhelper",
    "dpkg",
    "environment.d",
    "fonts",
    "gentoo-release",
    "gitconfig",
    "group",
    "hosts",
    "java",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "magic",
    "magic.mime",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "perl",
    "pkgconfig",
    "portage",
    "protocols",
    "python3",
    "services",
    "sgml",
    "ssl/certs",
    "ssl/openssl.cnf",
    "texmf",
    "timezone",
    "xml",
];

/// What the host allows and offers to all builds.
#[derive(Clone, Debug, Default)]
pub struct SandboxConfig {
    /// The build user, when the daemon is root; `None` runs builds as the daemon's own user.
    pub owner: Owner,
    /// Folders besides the usual that builds may read, at the same path.
    pub extra_read_only: Vec<PathBuf>,
}

/// Starts commands. The parts that never change are worked out once.
pub struct Launcher {
    bwrap: Option<PathBuf>,
    fixed: Vec<OsString>,
    owner: Owner,
}

/// One command to start.
pub struct Launch<'a> {
    /// What to run.
    pub spec: &'a BuildSpec,
    /// The build's folder on the host.
    pub folder: &'a Path,
    /// Whether it has a `needs/` to be made read-only.
    pub needs: bool,
    /// `MESH_BUILD`, `MESH_ATTEMPT` and the like.
    pub env: &'a [(&'a str, String)],
    /// Standard output and error.
    pub output: OwnedFd,
    /// Where bwrap tells what it did.
    pub status: OwnedFd,
}

/// Why nothing was started, as a sentence for a person.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The sandbox is not there.
    #[error("bubblewrap is not installed: apt-get install bubblewrap")]
    NoBubblewrap,
    /// The program is not there, or may not be executed.
    #[error("`{0}` cannot be run: {1}")]
    Program(String, io::Error),
    /// The host failed.
    #[error("cannot start the command: {0}")]
    Host(#[from] io::Error),
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_absolute() && file.is_file())
}

impl Launcher {
    /// Looks at the host once.
    pub fn new(config: &SandboxConfig) -> Self {
        Launcher { bwrap: find("bwrap"), fixed: fixed_arguments(config), owner: config.owner }
    }

    /// The command, ready to be spawned. Must be spawned on a thread that outlives it (a worker of the
    /// runtime): the kernel kills the child when that thread ends.
    ///
    /// # Errors
    /// When the sandbox is missing or the folder is gone.
    pub fn command(&self, launch: Launch<'_>) -> Result<Command, LaunchError> {
        let user = self.owner.filter(|_| launch.spec.sandbox == Sandbox::None);
        let mut command = match launch.spec.sandbox {
            Sandbox::Bubblewrap => self.bubblewrap(&launch)?,
            Sandbox::None => plain(&launch)?,
        };
        let folder = fs::File::open(launch.folder)?;
        command
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stderr(Stdio::from(launch.output.try_clone()?))
            .stdout(Stdio::from(launch.output));
        let boxed = launch.spec.sandbox == Sandbox::Bubblewrap;
        let (status, daemon) = (launch.status, nix::unistd::getpid());
        // SAFETY: between fork and exec only system calls are made; nothing allocates.
        unsafe {
            command.pre_exec(move || {
                close_all_at_exec();
                if boxed {
                    keep_across_exec(status.as_raw_fd())?;
                }
                nix::unistd::fchdir(&folder)?;
                limits(user.is_some())?;
                if let Some((uid, gid)) = user {
                    nix::unistd::setgroups(&[])?;
                    nix::unistd::setgid(gid.into())?;
                    nix::unistd::setuid(uid.into())?;
                    prctl::set_no_new_privs()?;
                }
                // Last: a change of user clears it.
                prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
                if nix::unistd::getppid() != daemon {
                    return Err(io::Error::from_raw_os_error(libc::ESRCH));
                }
                Ok(())
            });
        }
        Ok(command)
    }

    fn bubblewrap(&self, launch: &Launch<'_>) -> Result<Command, LaunchError> {
        let mut command = Command::new(self.bwrap.as_ref().ok_or(LaunchError::NoBubblewrap)?);
        command.env_clear().args(&self.fixed);
        if launch.spec.network {
            command.args(["--ro-bind-try", "/etc/resolv.conf", "/etc/resolv.conf"]);
        } else {
            command.arg("--unshare-net");
        }
        command.args(["--bind".as_ref(), launch.folder.as_os_str(), BUILD_FOLDER.as_ref()]);
        if launch.needs {
            let needs = launch.folder.join("needs");
            command.args(["--ro-bind".as_ref(), needs.as_os_str(), "/build/needs".as_ref()]);
        }
        command
            .args(["--chdir", BUILD_FOLDER, "--json-status-fd"])
            .arg(launch.status.as_raw_fd().to_string())
            .arg("--");
        if let Some((uid, gid)) = self.owner {
            let (uid, gid) = (format!("--reuid={uid}"), format!("--regid={gid}"));
            command.args(["/usr/bin/setpriv", &uid, &gid, "--clear-groups", "--inh-caps=-all", "--no-new-privs", "--"]);
        }
        // `env` takes words with `=` for variables: a program of such a name cannot be told apart.
        if launch.spec.command[0].contains('=') {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "a program's name has no `=`; use sh -c");
            return Err(LaunchError::Program(launch.spec.command[0].clone(), error));
        }
        command.args(["/usr/bin/env", "-i", "--"]);
        for (key, value) in environment(launch, "/tmp") {
            command.arg(format!("{key}={value}"));
        }
        command.args(&launch.spec.command);
        Ok(command)
    }
}

fn plain(launch: &Launch<'_>) -> Result<Command, LaunchError> {
    let mut command = Command::new(&launch.spec.command[0]);
    command.args(&launch.spec.command[1..]).env_clear();
    command.envs(environment(launch, &launch.folder.to_string_lossy()));
    Ok(command)
}

fn environment(launch: &Launch<'_>, home: &str) -> Vec<(String, String)> {
    let own = [("PATH", PATH), ("HOME", home), ("LC_ALL", "C.UTF-8")];
    let own = own.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned()));
    let ids = launch.env.iter().map(|(k, v)| ((*k).to_owned(), v.clone()));
    own.chain(launch.spec.env.iter().cloned()).chain(ids).collect()
}

/// No descriptor that the daemon inherited or some library forgot reaches a build.
fn close_all_at_exec() {
    // SAFETY: marks descriptors only. Kernels before 5.11 refuse; ours are marked when they are made.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

fn keep_across_exec(fd: RawFd) -> nix::Result<()> {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    // SAFETY: the descriptor is owned by the closure that calls this.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map(drop)
}

/// No core files; no file that could not be stored; dies before the daemon when memory is short.
/// Memory itself is not limited: placement counts it.
fn limits(build_user: bool) -> nix::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    setrlimit(Resource::RLIMIT_FSIZE, mesh::limits::BLOB_BYTES_MAX, mesh::limits::BLOB_BYTES_MAX)?;
    if build_user {
        setrlimit(Resource::RLIMIT_NPROC, 16_384, 16_384)?;
    }
    let flags = nix::fcntl::OFlag::O_WRONLY | nix::fcntl::OFlag::O_CLOEXEC;
    if let Ok(fd) = nix::fcntl::open(c"/proc/self/oom_score_adj", flags, nix::sys::stat::Mode::empty()) {
        let _ = nix::unistd::write(&fd, b"500"); // a container may forbid it
    }
    Ok(())
}

/// The arguments of bwrap that are the same for every build.
fn fixed_arguments(config: &SandboxConfig) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    let mut add = |words: &[&str]| args.extend(words.iter().map(Into::into));
    add(&["--die-with-parent", "--new-session", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]);
    add(&["--unshare-cgroup-try", "--hostname", "build"]);
    match config.owner {
        Some(_) => add(&["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]),
        None => add(&["--unshare-user"]),
    }
    add(&["--ro-bind", "/usr", "/usr"]);
    for name in ["bin", "sbin", "lib", "lib64", "lib32", "libx32"] {
        let path = format!("/{name}");
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_symlink() => add(&["--symlink", &format!("usr/{name}"), &path]),
            Ok(meta) if meta.is_dir() => add(&["--ro-bind", &path, &path]),
            _ => {}
        }
    }
    // bubblewrap makes missing parents for root alone; the build user has to pass through them.
    for parent in ["/etc", "/var", "/var/lib"] {
        add(&["--perms", "0755", "--dir", parent]);
    }
    for name in ETC {
        let path = format!("/etc/{name}");
        if Path::new(&path).exists() {
            add(&["--ro-bind-try", &path, &path]);
        }
    }
    add(&["--ro-bind-try", "/var/lib/dpkg", "/var/lib/dpkg", "--proc", "/proc", "--dev", "/dev"]);
    for scratch in ["/tmp", "/var/tmp", "/dev/shm"] {
        add(&["--perms", "1777", "--tmpfs", scratch]);
    }
    for path in &config.extra_read_only {
        let path = path.to_string_lossy();
        add(&["--ro-bind-try", &path, &path]);
    }
    args
}

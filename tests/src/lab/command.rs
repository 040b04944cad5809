//! Commands of the machine that build a lab (`ip`, `nft`, `nsenter`), each run to its end, with an error that says
//! what was asked and what came back. Nothing here knows of fleets; [`super::Lab`] does.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// What a lab could not do, and why.
#[derive(Debug)]
pub struct Trouble(pub String);

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Trouble {}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Trouble(error.to_string())
    }
}

/// What lab functions give.
pub type Done<T = ()> = Result<T, Trouble>;

/// An error out of a text.
pub fn trouble<T>(text: impl Into<String>) -> Done<T> {
    Err(Trouble(text.into()))
}

/// Held open by every command while it runs: the guardian of a lab cleans up only when nobody holds it any more, so
/// that no command of an interrupted lab makes something after the cleaning.
static HELD: Mutex<Option<i32>> = Mutex::new(None);

/// Names the descriptor that commands hold; `None` for none.
pub(super) fn hold(descriptor: Option<i32>) {
    *HELD.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = descriptor;
}

/// Runs a command that has to succeed, with this on its standard input; its standard output.
///
/// # Errors
/// It cannot be started, or fails.
pub fn run(program: &str, args: &[&str], input: &str) -> Done<String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let held = *HELD.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(descriptor) = held {
        // SAFETY: fcntl(2) is async-signal-safe and touches no memory of ours.
        unsafe {
            command.pre_exec(move || match libc::fcntl(descriptor, libc::F_SETFD, 0) {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            });
        }
    }
    let what = || format!("{program} {}", args.join(" "));
    let mut child = command.spawn().map_err(|e| Trouble(format!("{}: {e}", what())))?;
    let write = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let out = child.wait_with_output().map_err(|e| Trouble(format!("{}: {e}", what())))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        return trouble(format!("{}: {}\n{}\n--- input\n{input}", what(), out.status, said.trim_end()));
    }
    write.transpose().map_err(|e| Trouble(format!("{}: {e}", what())))?;
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs lines of `ip` in a namespace.
///
/// # Errors
/// One of them failed.
pub fn ip(namespace: &str, lines: &str) -> Done {
    match lines.trim().is_empty() {
        true => Ok(()),
        false => run("ip", &["-n", namespace, "-batch", "-"], lines).map(drop),
    }
}

/// Loads rules of nftables in a namespace, all or none.
///
/// # Errors
/// They are refused.
pub fn nft(namespace: &str, rules: &str) -> Done {
    run("nsenter", &[&format!("--net={}", path(namespace).display()), "nft", "-f", "-"], rules).map(drop)
}

/// Where a named namespace is.
pub fn path(namespace: &str) -> PathBuf {
    Path::new("/run/netns").join(namespace)
}

/// Calls a function in a network namespace, on a thread of its own: sockets and devices that it opens are there,
/// wherever they are used afterwards.
///
/// # Errors
/// The namespace cannot be entered.
pub fn inside<T: Send>(namespace: &str, f: impl FnOnce() -> T + Send) -> Done<T> {
    let file = File::open(path(namespace)).map_err(|e| Trouble(format!("namespace {namespace}: {e}")))?;
    std::thread::scope(|scope| {
        let inside = scope.spawn(move || {
            nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET)
                .map_err(|e| Trouble(format!("setns({}): {e}", file.as_raw_fd())))?;
            Ok(f())
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

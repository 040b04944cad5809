//! Running one command to its end: its log, its timeout, its death.
//!
//! Whatever happens, the process group is gone when [`run`] returns, and gets SIGKILL when its future
//! is dropped. Files are not this module's: [`crate::machine`] prepares and collects them.

use super::sandbox::{Launch, LaunchError, Launcher};
use super::survivors::{Children, MARK};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::FusedFuture;
use mesh::build::{BuildSpec, Sandbox};
use mesh::limits::LOG_BYTES_MAX;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// How long a command has to end itself after SIGTERM.
pub const GRACE: Duration = Duration::from_secs(2);

/// Of a log that is too long, this much of its end is kept.
const LOG_TAIL_BYTES: usize = 1 << 20;

/// Most bytes sent at once.
const LOG_CHUNK_BYTES: usize = 64 << 10;

/// Why the command is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// By itself.
    Ended,
    /// Killed at its timeout.
    TimedOut,
    /// Killed because it was cancelled.
    Cancelled,
}

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Why.
    pub why: Why,
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// False when bubblewrap failed before it started the command.
    pub started: bool,
    /// Milliseconds from start to end.
    pub took_ms: u64,
}

/// One command to run.
pub struct Run<'a> {
    /// What to run.
    pub spec: &'a BuildSpec,
    /// The build's folder on the host.
    pub folder: &'a Path,
    /// Whether it has a `needs/`.
    pub needs: bool,
    /// `b12`, its attempt, and a mark that no other attempt on this host has.
    pub env: [(&'static str, String); 2],
    /// See [`super::survivors`].
    pub mark: String,
}

struct Guard<'a> {
    children: &'a Children,
    pid: u32,
    unboxed: bool,
    armed: bool,
}

impl Guard<'_> {
    fn signal(&self, signal: Signal) {
        // The group lives as long as one of its processes does, so its number is not another's.
        let _ = killpg(Pid::from_raw(self.pid as i32), signal);
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.signal(Signal::SIGKILL); // the future was dropped; tokio reaps the child
        }
        self.children.ended(self.pid, self.unboxed);
    }
}

/// Runs a command and sends its output to `log`.
///
/// # Errors
/// When it could not be started; nothing is left then.
pub async fn run(
    launcher: &Launcher,
    children: &Children,
    run: Run<'_>,
    log: &mpsc::Sender<Bytes>,
    cancel: &CancellationToken,
) -> Result<Ran, LaunchError> {
    let (output, write_output) = io::pipe()?;
    let (mut status, write_status) = io::pipe()?;
    let [build, attempt] = run.env;
    let env = [build, attempt, (MARK, run.mark.clone())];
    let mut command = launcher.command(Launch {
        spec: run.spec,
        folder: run.folder,
        needs: run.needs,
        env: &env,
        output: OwnedFd::from(write_output),
        status: OwnedFd::from(write_status),
    })?;
    let unboxed = run.spec.sandbox == Sandbox::None;
    let started = Instant::now();
    let spawned = children.start(unboxed, || command.spawn().map(|child| (child.id(), child)).map(|(id, c)| (c, id)));
    let mut child = spawned.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied if unboxed => {
            LaunchError::Program(run.spec.command[0].clone(), error)
        }
        _ => LaunchError::Host(error),
    })?;
    drop(command); // with it go our writing ends
    let pid = child.id().unwrap_or_default();
    let mut guard = Guard { children, pid, unboxed, armed: true };
    let output = Receiver::from_owned_fd(OwnedFd::from(output))?;
    let mut forward = Box::pin(forward(output, log).fuse());
    let until = started + Duration::from_secs(run.spec.timeout_s);
    let (why, exit) = loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => break (Why::Cancelled, end(&mut child, &guard).await?),
            exit = child.wait() => break (Why::Ended, exit?),
            () = tokio::time::sleep_until(until) => break (Why::TimedOut, end(&mut child, &guard).await?),
            () = &mut forward, if !forward.is_terminated() => {}
        }
    };
    let took_ms = started.elapsed().as_millis() as u64;
    guard.signal(Signal::SIGKILL); // what the command left running in its group
    guard.armed = false;
    if unboxed {
        children.sweep(&run.mark).await;
    }
    if !forward.is_terminated() {
        let _ = timeout(Duration::from_secs(10), forward).await;
    }
    if !unboxed {
        children.reap();
    }
    let code = exit.code().unwrap_or_else(|| 128 + exit.signal().unwrap_or(0));
    let started = why != Why::Ended || unboxed || bubblewrap_started(&mut status, exit);
    Ok(Ran { why, code, started, took_ms })
}

/// SIGTERM to the group, SIGKILL when that did not help.
async fn end(child: &mut Child, guard: &Guard<'_>) -> io::Result<ExitStatus> {
    guard.signal(Signal::SIGTERM);
    if let Ok(exit) = timeout(GRACE, child.wait()).await {
        return exit;
    }
    guard.signal(Signal::SIGKILL);
    child.wait().await
}

/// bwrap reports the exit code only of a command that it did start.
fn bubblewrap_started(status: &mut io::PipeReader, exit: ExitStatus) -> bool {
    let mut text = String::new();
    // All writers are gone with the namespace; the read cannot wait for long.
    let read = nonblocking(status).and_then(|()| status.read_to_string(&mut text));
    exit.success() || text.contains("exit-code") || matches!(read, Err(e) if e.kind() != io::ErrorKind::WouldBlock)
}

fn nonblocking(pipe: &io::PipeReader) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    Ok(fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop)?)
}

/// Sends output on as it comes, until the last writer is gone. Reads on when nobody listens or the log
/// is full, so that the command never waits for a pipe that nobody empties.
async fn forward(mut output: Receiver, log: &mpsc::Sender<Bytes>) {
    let head_bytes = LOG_BYTES_MAX - LOG_TAIL_BYTES as u64;
    let (mut sent, mut cut) = (0u64, 0u64);
    let mut tail: VecDeque<u8> = VecDeque::new();
    let mut buffer = vec![0; LOG_CHUNK_BYTES];
    while let Ok(n @ 1..) = output.read(&mut buffer).await {
        let head = (head_bytes - sent).min(n as u64) as usize;
        if head > 0 {
            sent += head as u64;
            let _ = log.send(Bytes::copy_from_slice(&buffer[..head])).await;
        }
        tail.extend(&buffer[head..n]);
        let over = tail.len().saturating_sub(LOG_TAIL_BYTES);
        cut += over as u64;
        tail.drain(..over);
    }
    if cut > 0 {
        let note = format!("\n[mesh: {cut} bytes of the log were cut here; at most {LOG_BYTES_MAX} are kept]\n");
        let _ = log.send(note.into()).await;
    }
    for chunk in Vec::from(tail).chunks(LOG_CHUNK_BYTES) {
        let _ = log.send(Bytes::copy_from_slice(chunk)).await;
    }
}

//! Commands and their pipes with an end to every wait: a program that hangs fails its test, and the test says
//! what had been seen of it until then.

use crate::daemon::PATIENCE;
use crate::wait_for;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Bytes of a pipe, read by a thread of its own so that whoever looks never blocks.
#[derive(Debug)]
pub struct Pipe {
    seen: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Pipe {
    pub fn new(mut from: impl Read + Send + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = seen.clone();
        let reader = std::thread::spawn(move || {
            let mut chunk = [0; 8 << 10];
            while let Ok(n @ 1..) = from.read(&mut chunk) {
                into.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&chunk[..n]);
            }
        });
        Pipe { seen, reader }
    }

    /// All that came until now.
    pub fn seen(&self) -> Vec<u8> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen()).into_owned()
    }

    fn has_ended(&self) -> bool {
        self.reader.is_finished()
    }
}

/// A child whose output is read while it runs. Dropped, it is ended.
#[derive(Debug)]
pub struct Running {
    child: Child,
    what: String,
    pub stdout: Pipe,
    pub stderr: Pipe,
}

impl Running {
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        Self::start_into(command, Stdio::piped())
    }

    /// With a standard output of one's own, of which nothing is seen here.
    #[track_caller]
    pub fn start_into(command: &mut Command, stdout: impl Into<Stdio>) -> Self {
        let what = what(command);
        command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{what} cannot be started: {e}"));
        let stdout = child.stdout.take().map_or_else(|| Pipe::new(std::io::empty()), Pipe::new);
        let stderr = Pipe::new(child.stderr.take().expect("piped"));
        Running { child, what, stdout, stderr }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has written these words on standard output.
    #[track_caller]
    pub fn wait_said(&self, words: &str) {
        if wait_for(PATIENCE, || self.stdout.text().contains(words).then_some(())).is_none() {
            panic!("{} did not say {words:?} within {PATIENCE:?}\n{}", self.what, self.so_far());
        }
    }

    /// Waits for its end, and for the end of its pipes: somebody who inherited them may live on.
    #[track_caller]
    pub fn end(mut self) -> Output {
        let ended = wait_for(PATIENCE, || self.child.try_wait().expect("our own child"));
        let Some(status) = ended else {
            panic!("{} did not end within {PATIENCE:?}\n{}", self.what, self.so_far());
        };
        let closed = || (self.stdout.has_ended() && self.stderr.has_ended()).then_some(());
        if wait_for(PATIENCE, closed).is_none() {
            panic!("{} ended ({status}), but somebody else holds its pipes open\n{}", self.what, self.so_far());
        }
        self.output(status)
    }

    fn output(&self, status: ExitStatus) -> Output {
        Output { status, stdout: self.stdout.seen(), stderr: self.stderr.seen() }
    }

    fn so_far(&self) -> String {
        format!("--- stdout so far\n{}--- stderr so far\n{}", self.stdout.text(), self.stderr.text())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs a command to its end, whatever that is.
#[track_caller]
pub fn output(command: &mut Command) -> Output {
    Running::start(command).end()
}

/// The command line, cut: an argument may be as long as a test likes.
fn what(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy().chars().take(60).collect::<String>()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_seen_while_it_runs_and_ended_when_dropped() {
        let running = Running::start(Command::new("sh").args(["-c", "echo begun; echo why >&2; exec sleep 1000"]));
        running.wait_said("begun\n");
        let pid = running.pid();
        drop(running);
        assert!(!std::path::Path::new("/proc").join(pid.to_string()).exists(), "it is gone");
        let out = output(Command::new("sh").args(["-c", "echo a; echo b >&2; exit 3"]));
        assert_eq!((out.status.code(), &out.stdout[..], &out.stderr[..]), (Some(3), &b"a\n"[..], &b"b\n"[..]));
    }
}

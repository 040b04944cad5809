//! One daemon with a state folder of its own, driven by its command line as a person would.
//!
//! It is ended by its process id when dropped, whatever happens; its log is shown when the test fails,
//! and a line at ERROR in it fails a test that would have passed.

use crate::bounded;
use crate::program::mesh;
use crate::status::Status;
use crate::wait_for;
use serde_json::Value;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Longer than anything takes on a loaded machine with two cores; a wait that ends well never sees it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A host's own configuration, as far as tests vary it.
#[derive(Clone, Debug)]
pub struct Settings {
    pub cores: u32,
    /// Whether builds without a sandbox are allowed.
    pub allow_none: bool,
    pub tags: Vec<String>,
    /// Ten times quicker elections: right for tests, and ten times the heartbeats of a real mesh.
    pub lan: bool,
    /// More lines of mesh.toml, below its tables.
    pub more: String,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { cores: 2, allow_none: true, tags: vec![], lan: true, more: String::new() }
    }
}

impl Settings {
    fn toml(&self, listen: SocketAddr) -> String {
        let Settings { cores, allow_none, tags, lan, more } = self;
        format!(
            "listen = [\"{listen}\"]\ncores = {cores}\ntags = {tags:?}\n[sandbox]\nallow_none = {allow_none}\n[timing]\nlan = \
             {lan}\n{more}\n"
        )
    }
}

/// A daemon, running or not.
#[derive(Debug)]
pub struct Daemon {
    pub name: String,
    pub dir: PathBuf,
    pub listen: SocketAddr,
    namespace: Option<String>,
    log_filter: Option<&'static str>,
    child: Option<Child>,
    /// Words that excuse a line at ERROR: a test that breaks something expects to hear of it.
    excused: Vec<&'static str>,
}

impl Daemon {
    /// A state folder below `parent`, configured, not yet a host of any mesh.
    pub fn new(parent: &Path, name: &str, listen: SocketAddr, settings: &Settings) -> Self {
        let dir = parent.join(name);
        fs::create_dir(&dir).expect("state folder");
        fs::write(dir.join("mesh.toml"), settings.toml(listen)).expect("mesh.toml");
        Daemon { name: name.into(), dir, listen, namespace: None, log_filter: None, child: None, excused: vec![] }
    }

    /// Runs it, and everything that talks to it, in a network namespace.
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Logs what MESH_LOG says, for a test that reads the log.
    pub fn with_log(mut self, filter: &'static str) -> Self {
        self.log_filter = Some(filter);
        self
    }

    /// A line at ERROR with these words does not fail the test.
    pub fn excuse(&mut self, words: &'static str) {
        self.excused.push(words);
    }

    /// `mesh --dir DIR …`, ready to be run.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = match &self.namespace {
            None => Command::new(mesh()),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(mesh());
                command
            }
        };
        command.arg("--dir").arg(&self.dir).args(args).stdin(Stdio::null()).env("NO_COLOR", "1").env_remove("MESH_DIR");
        command
    }

    /// Runs a command to its end, whatever that is. One without an end fails the test.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Output {
        bounded::output(&mut self.command(args))
    }

    /// Runs a command that has to succeed; its standard output without the last newline.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert!(out.status.success(), "{}: mesh {args:?} ended with {}\n{}", self.name, out.status, said(&out));
        String::from_utf8_lossy(&out.stdout).trim_end().to_owned()
    }

    /// Runs a command that has to fail; what it said on standard error.
    #[track_caller]
    pub fn fails(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert!(!out.status.success(), "{}: mesh {args:?} succeeded\n{}", self.name, said(&out));
        String::from_utf8_lossy(&out.stderr).into_owned()
    }

    /// Starts `mesh up` and waits for its line. Its log goes to `DIR/../NAME.log`.
    #[track_caller]
    pub fn up(&mut self) {
        self.try_up().unwrap_or_else(|why| panic!("{}: {why}\n{}", self.name, self.log_tail(40)));
    }

    /// The same for a start that may be refused.
    ///
    /// # Errors
    /// How it ended instead of becoming ready.
    pub fn try_up(&mut self) -> Result<String, String> {
        assert!(self.child.is_none(), "{} is up already", self.name);
        let log = OpenOptions::new().create(true).append(true).open(self.log_path()).expect("log file");
        let mut command = self.command(&["up"]);
        command.stdout(Stdio::piped()).stderr(log);
        command.envs(self.log_filter.map(|filter| ("MESH_LOG", filter)));
        die_with_us(&mut command);
        let mut child = command.spawn().expect("mesh can be started");
        let stdout = child.stdout.take().expect("piped");
        let (ready, line) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = ready.send(line); // the first says that it is ready; later ones are read so that the pipe never fills
            }
        });
        match line.recv_timeout(PATIENCE) {
            Ok(line) => {
                self.child = Some(child);
                Ok(line)
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Err(format!("`mesh up` ended: {}", child.wait().expect("waited")))
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                let _ = child.wait();
                Err("`mesh up` printed no line".into())
            }
        }
    }

    pub fn is_up(&self) -> bool {
        self.child.is_some()
    }

    /// The process id of the running daemon.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap_or_else(|| panic!("{} is not up", self.name)).id()
    }

    /// Power cut: SIGKILL, and the process is gone when this returns.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("our own child");
            child.wait().expect("our own child");
        }
    }

    /// SIGTERM, and the process has ended by itself when this returns.
    #[track_caller]
    pub fn stop(&mut self) {
        if !self.end_gently() {
            panic!("{} did not end within {PATIENCE:?} of SIGTERM\n{}", self.name, self.log_tail(40));
        }
    }

    /// Waits until the daemon has ended by itself.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap_or_else(|| panic!("{} is not up", self.name));
        wait_for(PATIENCE, || child.try_wait().expect("our own child")).unwrap_or_else(|| {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{} did not end by itself within {PATIENCE:?}\n{}", self.name, self.log_tail(40))
        })
    }

    fn end_gently(&mut self) -> bool {
        let Some(mut child) = self.child.take() else { return true };
        signal(child.id(), libc::SIGCONT); // a frozen one could not end
        signal(child.id(), libc::SIGTERM);
        let ended = wait_for(PATIENCE, || child.try_wait().expect("our own child"));
        if ended.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        ended.is_some()
    }

    /// What this daemon says; `None` while it gives no answer.
    pub fn status(&self) -> Option<Status> {
        self.get("/v1/status").map(Status)
    }

    /// Asks the daemon's API directly, which is quicker than a process for each question. `None` while
    /// nobody answers.
    pub fn get(&self, path: &str) -> Option<Value> {
        self.ask("GET", path, "")
    }

    /// The same with a body.
    pub fn post(&self, path: &str, body: &str) -> Option<Value> {
        self.ask("POST", path, body)
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Option<Value> {
        ask(&self.dir, method, path, body)
    }

    /// One build with its attempts, as this daemon knows it.
    #[track_caller]
    pub fn build(&self, id: &str) -> Value {
        self.get(&format!("/v1/builds/{id}")).unwrap_or_else(|| panic!("{}: no answer about {id}", self.name))
    }

    /// Waits until a build fulfils a condition, and gives it.
    #[track_caller]
    pub fn wait_build(&self, id: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let mut last = None;
        wait_for(PATIENCE, || {
            last = self.get(&format!("/v1/builds/{id}"));
            last.clone().filter(&condition)
        })
        .unwrap_or_else(|| {
            panic!("{}: {id} not {what} within {PATIENCE:?}: {last:#?}\n{}", self.name, self.log_tail(40))
        })
    }

    /// SIGSTOP: the process is there and does nothing, as on a host that swaps itself to death.
    pub fn freeze(&self) {
        signal(self.pid(), libc::SIGSTOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        signal(self.pid(), libc::SIGCONT);
    }

    /// A full disk: no file of this process grows beyond 8 KiB from now on, which its log never does here.
    pub fn fill_disk(&self) {
        const BYTES: libc::rlim_t = 8 << 10;
        let limit = libc::rlimit { rlim_cur: BYTES, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: `limit` is a valid rlimit that outlives the call; the old one is not asked for.
        let done = unsafe {
            libc::prlimit(self.pid() as libc::pid_t, libc::RLIMIT_FSIZE, &raw const limit, std::ptr::null_mut())
        };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }

    /// Waits until this daemon's status fulfils a condition, and gives that status.
    #[track_caller]
    pub fn wait(&self, what: &str, condition: impl Fn(&Status) -> bool) -> Status {
        let mut last = None;
        wait_for(PATIENCE, || {
            last = self.status();
            last.clone().filter(&condition)
        })
        .unwrap_or_else(|| panic!("{}: not {what} within {PATIENCE:?}: {last:?}\n{}", self.name, self.log_tail(40)))
    }

    pub fn log_path(&self) -> PathBuf {
        self.dir.with_extension("log")
    }

    pub fn log(&self) -> String {
        fs::read(self.log_path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last lines of its log, for the report of a failure.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        let tail = all[all.len().saturating_sub(lines)..].join("\n");
        format!("--- log of {} ({} lines)\n{tail}", self.name, all.len())
    }

    /// Lines at ERROR that no test has excused.
    pub fn errors(&self) -> Vec<String> {
        unexcused_errors(&self.log(), &self.excused)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let ended = self.end_gently();
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail(60));
            return;
        }
        assert!(ended, "{} did not end within {PATIENCE:?} of SIGTERM\n{}", self.name, self.log_tail(40));
        let errors = self.errors();
        assert!(errors.is_empty(), "{} logged errors:\n{}\n{}", self.name, errors.join("\n"), self.log_tail(60));
    }
}

/// Asks the daemon of a state folder; `None` while nobody answers.
pub fn ask(dir: &Path, method: &str, path: &str, body: &str) -> Option<Value> {
    let mut stream = UnixStream::connect(dir.join("mesh.sock")).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: mesh\r\nconnection: close\r\ncontent-type: application/json\r\n");
    write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok()
}

/// A free port of a loopback address, for TCP and UDP alike. It is free when this returns; nobody else on
/// the machine should pick it before the daemon does, because the kernel hands out others first.
pub fn free_port(address: [u8; 4]) -> SocketAddr {
    wait_for(PATIENCE, || {
        let tcp = TcpListener::bind(SocketAddr::from((address, 0))).ok()?;
        let taken = tcp.local_addr().ok()?;
        UdpSocket::bind(taken).ok().map(|_| taken)
    })
    .expect("a free port")
}

/// Sends a signal to a process that the test has started.
pub fn signal(pid: u32, signal: libc::c_int) {
    // SAFETY: kill(2) touches no memory of ours.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

/// Ends a process that the test has started in the background, and returns when it is gone.
pub fn end_process(pid: u32) {
    let is_there = || Path::new("/proc").join(pid.to_string()).exists();
    signal(pid, libc::SIGTERM);
    if wait_for(Duration::from_secs(15), || (!is_there()).then_some(())).is_none() {
        signal(pid, libc::SIGKILL);
    }
}

/// A test that is itself killed leaves no daemon behind. The thread that starts a daemon must therefore
/// live as long as the daemon should. A write beyond the limit of a file fails rather than kills, as on a full
/// disk.
fn die_with_us(command: &mut Command) {
    // SAFETY: prctl(2) and signal(2) are async-signal-safe and touch no memory of ours.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN)
                .eq(&libc::SIG_ERR)
                .then(std::io::Error::last_os_error)
                .map_or(Ok(()), Err)
        });
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    };
}

/// Both streams of a finished command, for an error's text.
pub fn said(out: &Output) -> String {
    format!("--- stdout\n{}--- stderr\n{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// The level stands before the first colon of a line; a build's own word ERROR further on is no error of ours.
pub(crate) fn unexcused_errors(log: &str, excused: &[&str]) -> Vec<String> {
    let is_error =
        |line: &&str| line.split_whitespace().take(2).any(|word| word == "ERROR") || line.contains("panicked at");
    log.lines().filter(is_error).filter(|l| !excused.iter().any(|e| l.contains(e))).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_at_error_is_found_and_a_build_that_says_error_is_not() {
        let log = "2026-11-23T18:00:00Z  INFO mesh: up\n2026-11-23T18:00:00Z ERROR mesh: store failed\n2026-11-23T18:00:00Z  INFO mesh: build said ERROR";
        assert_eq!(unexcused_errors(log, &[]).len(), 1);
        assert_eq!(unexcused_errors(log, &["store failed"]), Vec::<String>::new());
        assert_eq!(unexcused_errors("thread 'x' panicked at src/a.rs:1:1:", &[]).len(), 1);
    }

    #[test]
    fn settings_are_a_configuration() {
        let text = Settings { tags: vec!["amd64".into()], ..Settings::default() }.toml(([127, 0, 0, 1], 7400).into());
        let table: toml::Table = toml::from_str(&text).expect("TOML");
        assert_eq!(table["listen"][0].as_str(), Some("127.0.0.1:7400"));
        assert_eq!(table["sandbox"]["allow_none"].as_bool(), Some(true));
        assert_eq!(table["tags"][0].as_str(), Some("amd64"));
    }
}

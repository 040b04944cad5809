//! What a simulation did, as one hash.
//!
//! A running BLAKE3 over every byte that a host sent or was delivered, every commit to a disk, every
//! line that the program logs (timers that fire are among them) and every fault, each with its virtual
//! time and its host. Two runs of a seed have equal hashes, or determinism is broken. It never holds a
//! `ConnectionId` or `ListenerId`: those count per process. A timeline for people is optional.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Error lines that a summary keeps; the rest is only counted.
const ERRORS_KEPT_MAX: usize = 20;

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A host gave bytes to a socket.
    Sent {
        /// Its own end.
        local: SocketAddr,
        /// The far end, as it sees it.
        remote: SocketAddr,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// A host took bytes out of a socket.
    Delivered {
        /// Its own end.
        local: SocketAddr,
        /// The far end, as it sees it.
        remote: SocketAddr,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// A disk was synced: this many bytes became durable, with this hash.
    Committed {
        /// How many.
        len: u64,
        /// Over offsets and bytes of all writes since the last sync.
        hash: [u8; 32],
    },
    /// The program logged a line.
    Logged(&'a str),
    /// The scenario did something to the world.
    Fault(&'a str),
}

/// A handle to the recorder; all handles of a simulation share one.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Recorder>>);

struct Recorder {
    hasher: blake3::Hasher,
    records: u64,
    bytes: u64,
    commits: u64,
    errors: Vec<String>,
    errors_count: u64,
    /// Time since the simulation began, as the harness last told.
    elapsed: Duration,
    /// What hosts are called that turmoil knows by address.
    names: BTreeMap<String, String>,
    timeline: Option<Box<dyn Write + Send>>,
}

/// What a finished simulation comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The hash, in hexadecimal.
    pub hash: String,
    /// Things that happened.
    pub records: u64,
    /// Bytes delivered.
    pub bytes: u64,
    /// Syncs of disks.
    pub commits: u64,
    /// Lines logged as errors.
    pub errors_count: u64,
    /// The first of them.
    pub errors: Vec<String>,
}

impl Trace {
    /// Starts; with a `timeline`, every record is also written there as a line.
    pub fn new(timeline: Option<Box<dyn Write + Send>>) -> Trace {
        Trace(Arc::new(Mutex::new(Recorder {
            hasher: blake3::Hasher::new_derive_key("mesh sim 2026 trace v1"),
            records: 0,
            bytes: 0,
            commits: 0,
            errors: vec![],
            errors_count: 0,
            elapsed: Duration::ZERO,
            names: BTreeMap::new(),
            timeline,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Recorder> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells how far the simulation has come, for records from outside of its hosts.
    pub fn set_elapsed(&self, elapsed: Duration) {
        self.lock().elapsed = elapsed;
    }

    /// Gives a name to the host of an address.
    pub fn call(&self, ip: IpAddr, name: &str) {
        self.lock().names.insert(ip.to_string(), name.to_owned());
    }

    /// Adds a record of a host (or of the harness, whatever it calls itself).
    pub fn record(&self, given: &str, event: Event<'_>) {
        // turmoil's clock rather than the system's: in the negative control of the clock, only what
        // the program does with the time may differ.
        let inside = tokio::runtime::Handle::try_current().is_ok();
        let now = inside.then(turmoil::sim_elapsed).flatten();
        let mut recorder = self.lock();
        let now = now.unwrap_or(recorder.elapsed);
        let host = recorder.names.get(given).cloned();
        recorder.add(now, host.as_deref().unwrap_or(given), event);
    }

    /// Counts a line that the program logged as an error.
    pub fn error(&self, line: &str) {
        let mut recorder = self.lock();
        recorder.errors_count += 1;
        if recorder.errors.len() < ERRORS_KEPT_MAX {
            recorder.errors.push(line.to_owned());
        }
    }

    /// The hash and the counts up to now.
    pub fn summary(&self) -> Summary {
        let mut recorder = self.lock();
        if let Some(timeline) = &mut recorder.timeline {
            // A timeline that cannot be written must not change a simulation's end.
            let _ = timeline.flush();
        }
        Summary {
            hash: recorder.hasher.finalize().to_hex().to_string(),
            records: recorder.records,
            bytes: recorder.bytes,
            commits: recorder.commits,
            errors_count: recorder.errors_count,
            errors: recorder.errors.clone(),
        }
    }
}

impl Recorder {
    fn add(&mut self, now: Duration, host: &str, event: Event<'_>) {
        self.records += 1;
        let now_us = now.as_micros() as u64;
        self.hasher.update(&now_us.to_le_bytes());
        self.part(host.as_bytes());
        match event {
            Event::Sent { local, remote, bytes } => self.segment(0, local, remote, bytes),
            Event::Delivered { local, remote, bytes } => {
                self.bytes += bytes.len() as u64;
                self.segment(1, local, remote, bytes);
            }
            Event::Committed { len, hash } => {
                self.commits += 1;
                self.hasher.update(&[2]).update(&len.to_le_bytes()).update(&hash);
            }
            Event::Logged(line) => {
                self.hasher.update(&[3]);
                self.part(line.as_bytes());
            }
            Event::Fault(what) => {
                self.hasher.update(&[4]);
                self.part(what.as_bytes());
            }
        }
        if let Some(timeline) = &mut self.timeline {
            let _ =
                writeln!(timeline, "{:>5}.{:06} {host:<12} {}", now_us / 1_000_000, now_us % 1_000_000, line(event));
        }
    }

    /// Bytes of any length, so that no two sequences of parts look alike.
    fn part(&mut self, bytes: &[u8]) {
        self.hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    }

    fn segment(&mut self, kind: u8, local: SocketAddr, remote: SocketAddr, bytes: &[u8]) {
        self.hasher.update(&[kind]);
        for end in [local, remote] {
            match end.ip() {
                IpAddr::V4(ip) => self.part(&ip.octets()),
                IpAddr::V6(ip) => self.part(&ip.octets()),
            }
            self.hasher.update(&end.port().to_le_bytes());
        }
        self.part(bytes);
    }
}

fn line(event: Event<'_>) -> String {
    let mut out = String::new();
    let short = |bytes: &[u8]| blake3::hash(bytes).to_hex()[..8].to_owned();
    let _ = match event {
        Event::Sent { local, remote, bytes } => {
            write!(out, "sent      {local} -> {remote} {:>6} B {}", bytes.len(), short(bytes))
        }
        Event::Delivered { local, remote, bytes } => {
            write!(out, "delivered {local} <- {remote} {:>6} B {}", bytes.len(), short(bytes))
        }
        Event::Committed { len, hash } => write!(out, "committed {len:>6} B {}", short(&hash)),
        Event::Logged(line) => write!(out, "log       {line}"),
        Event::Fault(what) => write!(out, "FAULT     {what}"),
    };
    out
}

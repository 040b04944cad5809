//! What a simulation did, as one hash.
//!
//! A running BLAKE3 over every byte that a host sent or was delivered, every commit to a disk, every
//! line that the program logs (timers that fire are among them) and every fault, each with its virtual
//! time and its host. Two runs of a seed have equal hashes, or determinism is broken. It never holds a
//! `ConnectionId` or `ListenerId`: those count per process.
//!
//! For people there is more, which never touches the hash: the last events of each host, for the
//! print-out of a failure, and on demand a timeline (a line an event) and a history for a picture. Nothing is
//! put into words before somebody reads it.

mod fact;
mod kept;

pub use fact::Keys;
pub use kept::{Entry, Kept, words};

use crate::action::{Action, LEADER};
use crate::invariants::Fact;
use kept::Ring;
use mesh::build::{Attempt, BuildId};
use mesh::identity::PeerKey;
use mesh::lease::Fence;
use std::collections::BTreeMap;
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
    /// An action of the plan is due.
    Acted(&'a Action),
    /// The last action made no sense, and was not done.
    Skipped(&'a str),
    /// Something truly happened.
    Fact(&'a Fact),
    /// A host holds a lease, or no longer.
    Lease(Option<Fence>),
    /// The ledger says that an attempt ended. For people: not in the hash.
    Ended {
        /// Of which build.
        build: BuildId,
        /// Which try.
        attempt: Attempt,
        /// Who had it.
        host: PeerKey,
        /// How, in a word.
        how: &'static str,
    },
    /// The run failed. For people: not in the hash.
    Failed(&'a str),
}

/// What a trace keeps for people, beside the last events.
#[derive(Default)]
pub struct Watch {
    /// Every event is written here as a line.
    pub timeline: Option<Box<dyn Write + Send>>,
    /// Facts, actions, leases and ends are kept for a picture.
    pub history: bool,
}

/// A handle to the recorder; all handles of a simulation share one.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Recorder>>);

struct Recorder {
    hasher: blake3::Hasher,
    /// Everything that happened, what is only for people too.
    count: u64,
    /// What is in the hash.
    records: u64,
    bytes: u64,
    commits: u64,
    errors: Vec<String>,
    errors_count: u64,
    /// Time since the simulation began, as the harness last told.
    elapsed: Duration,
    /// Time of the last event.
    last: Duration,
    /// What hosts are called that turmoil knows by address.
    names: BTreeMap<String, Arc<str>>,
    /// What hosts are called that are known by key.
    keys: Keys,
    /// Who took a lease last.
    leader: Option<Arc<str>>,
    rings: BTreeMap<Arc<str>, Ring>,
    timeline: Option<Box<dyn Write + Send>>,
    history: Option<Vec<Entry>>,
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
    /// Virtual time of the last event.
    pub elapsed: Duration,
}

impl Trace {
    /// Starts; with a `timeline`, every record is also written there as a line.
    pub fn new(timeline: Option<Box<dyn Write + Send>>) -> Trace {
        Trace::watched(Watch { timeline, history: false })
    }

    /// Starts, and keeps for people what they want.
    pub fn watched(watch: Watch) -> Trace {
        Trace(Arc::new(Mutex::new(Recorder {
            hasher: blake3::Hasher::new_derive_key("mesh sim 2026 trace v1"),
            count: 0,
            records: 0,
            bytes: 0,
            commits: 0,
            errors: vec![],
            errors_count: 0,
            elapsed: Duration::ZERO,
            last: Duration::ZERO,
            names: BTreeMap::new(),
            keys: Keys::new(),
            leader: None,
            rings: BTreeMap::new(),
            timeline: watch.timeline,
            history: watch.history.then(Vec::new),
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
        self.lock().names.insert(ip.to_string(), name.into());
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

    /// Adds a record of this moment: for those that need not ask for the time.
    pub fn record_at(&self, at: Duration, host: &str, event: Event<'_>) {
        self.lock().add(at, host, event);
    }

    /// Adds a fact, at its host or at `otherwise`.
    pub fn fact(&self, at: Duration, fact: &Fact, otherwise: &str) {
        let mut recorder = self.lock();
        let host = fact::host(fact, &recorder.keys).cloned();
        recorder.add(at, host.as_deref().unwrap_or(otherwise), Event::Fact(fact));
    }

    /// Whether somebody wants more than the hash: what only people read need not be looked for otherwise.
    pub fn is_watched(&self) -> bool {
        let recorder = self.lock();
        recorder.timeline.is_some() || recorder.history.is_some()
    }

    /// The last events of each host: moments and words, in order.
    pub fn last_events(&self) -> BTreeMap<String, Vec<(u64, Duration, String)>> {
        let recorder = self.lock();
        recorder.rings.iter().map(|(host, ring)| (host.to_string(), ring.lines(&recorder.keys))).collect()
    }

    /// What was kept for a picture, with what keys are called; nothing is kept any more.
    pub fn take_history(&self) -> Option<(Vec<Entry>, Keys)> {
        let mut recorder = self.lock();
        let history = recorder.history.take()?;
        Some((history, recorder.keys.clone()))
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
            elapsed: recorder.last,
        }
    }
}

impl Recorder {
    fn add(&mut self, now: Duration, host: &str, event: Event<'_>) {
        self.count += 1;
        self.last = now;
        if !matches!(event, Event::Ended { .. } | Event::Failed(_)) {
            self.records += 1;
            self.hash(now, host, event);
        }
        match event {
            Event::Fact(Fact::Started { host, key, .. }) => {
                // A copy of a host has its key: the first that had it gives the name.
                self.keys.entry(*key).or_insert_with(|| host.clone());
            }
            Event::Lease(Some(_)) => self.leader = Some(host.into()),
            _ => {}
        }
        // Whatever is done to the leader is told of the host that leads.
        let host = match &self.leader {
            Some(leader) if host == LEADER => &leader.clone(),
            _ => host,
        };
        match self.rings.get_mut(host) {
            Some(ring) => ring.add(self.count, now, event),
            None => self.rings.entry(host.into()).or_default().add(self.count, now, event),
        }
        if let Some(timeline) = &mut self.timeline {
            let now_us = now.as_micros() as u64;
            let line = line(event, &self.keys);
            let _ = writeln!(timeline, "{:>5}.{:06} {host:<12} {line}", now_us / 1_000_000, now_us % 1_000_000);
        }
        if let Some(history) = &mut self.history {
            let wanted = !matches!(
                event,
                Event::Sent { .. } | Event::Delivered { .. } | Event::Committed { .. } | Event::Logged(_)
            );
            if wanted {
                let host = host.to_owned();
                history.push(Entry { number: self.count, at: now, host, what: Kept::of(event) });
            }
        }
    }

    fn hash(&mut self, now: Duration, host: &str, event: Event<'_>) {
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
            Event::Acted(action) => {
                // What it is beyond its kind is in the plan.
                self.hasher.update(&[5]);
                self.part(action.kind().as_bytes());
            }
            Event::Skipped(why) => {
                self.hasher.update(&[8]);
                self.part(why.as_bytes());
            }
            Event::Fact(fact) => {
                self.hasher.update(&[6]);
                fact::bytes(fact, &mut |bytes| {
                    self.hasher.update(bytes);
                });
            }
            Event::Lease(fence) => {
                let fence = fence.map_or([0, 0], |fence| [fence.epoch + 1, fence.term]);
                self.hasher.update(&[7]).update(&fence[0].to_le_bytes()).update(&fence[1].to_le_bytes());
            }
            Event::Ended { .. } | Event::Failed(_) => {}
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

/// A line of the timeline; bytes are told apart by the beginning of their hash.
fn line(event: Event<'_>, keys: &Keys) -> String {
    let hash = match event {
        Event::Sent { bytes, .. } | Event::Delivered { bytes, .. } => Some(blake3::hash(bytes).to_hex()),
        Event::Committed { hash, .. } => Some(blake3::hash(&hash).to_hex()),
        _ => None,
    };
    let line = Kept::of(event).line(keys);
    match hash {
        Some(hash) => format!("{line} {}", &hash[..8]),
        None => line,
    }
}

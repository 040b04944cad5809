//! The leader's mind, as far as builds and voters go: `plan(ledger, view) -> proposals`. Pure.
//!
//! An attempt is lost when its host is down or has restarted since; a busy host never loses one
//! (incident 12). A build goes to the host with the most free cores that has what it asks for. Builds
//! are taken in the order of [`rank`], which is first come first served now; upward rank over estimated
//! seconds takes that seat later. Whether the leader may act at all is not decided here: that is
//! [`crate::lease`], and every proposal carries the fence.

mod voters;

pub use voters::{FLAPS_MAX, heir, seats};

use crate::build::{BuildSpec, End, Sandbox};
use crate::identity::PeerKey;
use crate::ledger::{Assignment, Build, Ledger, Lost};
use crate::mutants::{self, Mutant};
use std::collections::{BTreeMap, BTreeSet};

/// Attempts that one plan assigns at most: an entry stays far below its bound.
const ASSIGNMENTS_MAX: usize = 1_000;

/// What the leader believes of one host now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HostNow {
    /// Heard from and not accused: it may be given work.
    pub alive: bool,
    /// Declared down, by the rules of membership: it has lost its attempts.
    pub down: bool,
    /// Its start number.
    pub start: u64,
    /// Cores it offers.
    pub cores: u32,
    /// Memory it offers, in MiB.
    pub memory_mib: u64,
    /// Its tags.
    pub tags: Vec<String>,
    /// Whether it runs builds without a sandbox.
    pub allow_none: bool,
    /// Whether it lets builds use the network.
    pub allow_network: bool,
    /// Whether it may be given builds at all (a cloned identity may not).
    pub suspended: bool,
    /// Whether its copy of the ledger is close to the end: it may become a voter.
    pub caught_up: bool,
    /// For how long it has been in this state, in milliseconds.
    pub steady_ms: u64,
    /// In which network it is: a label (see [`crate::membership::network_of`]).
    pub network: u64,
    /// It has come back from being down again and again of late: no place for anything that has to stay.
    pub flapping: bool,
}

/// What the leader believes of all hosts.
pub type View = BTreeMap<PeerKey, HostNow>;

/// What the leader would do now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Attempts to take from hosts that lost them.
    pub lose: Vec<Lost>,
    /// Attempts to give.
    pub assign: Vec<Assignment>,
    /// The voter set to ask the voters' signatures for.
    pub voters: Option<BTreeSet<PeerKey>>,
}

/// The order in which builds are offered to hosts.
pub fn rank(ledger: &Ledger) -> impl Iterator<Item = &Build> {
    ledger.builds().wanting()
}

/// What a leader with this ledger and this view does now.
pub fn plan(ledger: &Ledger, view: &View) -> Plan {
    let lose = lost(ledger, view);
    // What is taken away in this very plan is placed by the next one, when the ledger says it is lost.
    let assign = assign(ledger, view);
    Plan { lose, assign, voters: voters::voters(ledger, view) }
}

/// An attempt that has run for longer is taken for stuck by the naive variant of incident 12.
const NAIVE_PATIENCE_MS: u64 = 5_000;

fn lost(ledger: &Ledger, view: &View) -> Vec<Lost> {
    let mut lost = vec![];
    if mutants::on(Mutant::LostHostKeepsItsBuilds) {
        return lost;
    }
    for build in ledger.builds().running() {
        for attempt in build.running() {
            let reason = match view.get(&attempt.host) {
                Some(host) if host.start > attempt.start => "its host restarted",
                Some(host) if host.down => "its host is down",
                _ if mutants::on(Mutant::BusyHostLosesItsBuilds)
                    && ledger.time_ms() > attempt.assigned_ms + NAIVE_PATIENCE_MS =>
                {
                    "its host is busy"
                }
                _ => continue,
            };
            lost.push(Lost { build: build.id, attempt: attempt.number, reason: reason.into() });
        }
    }
    lost
}

/// What is left of each host that may be given work.
struct Free<'a> {
    host: &'a HostNow,
    cores: u32,
    memory_mib: u64,
}

fn assign(ledger: &Ledger, view: &View) -> Vec<Assignment> {
    let mut free: BTreeMap<PeerKey, Free<'_>> = view
        .iter()
        .filter(|(peer, h)| h.alive && !h.suspended && h.cores > 0 && ledger.roster().is_member(peer))
        .map(|(peer, host)| (*peer, Free { host, cores: host.cores, memory_mib: host.memory_mib }))
        .collect();
    if mutants::on(Mutant::PackageFailureBlamesHost) {
        let attempts = || ledger.builds().iter().flat_map(|b| &b.attempts);
        let bad = |a: &crate::ledger::AttemptRecord| a.outcome().is_some_and(|o| o.end != End::Done);
        let failed = |peer: &PeerKey| attempts().filter(|a| a.host == *peer && bad(a)).count();
        free.retain(|peer, _| failed(peer) < 3);
    }
    for build in ledger.builds().running() {
        for attempt in build.running() {
            if let Some(slot) = free.get_mut(&attempt.host) {
                slot.cores = slot.cores.saturating_sub(build.spec.cores);
                slot.memory_mib = slot.memory_mib.saturating_sub(build.spec.memory_mib);
            }
        }
    }
    let mut room: u64 = free.values().map(|f| u64::from(f.cores)).sum();
    let mut assignments = vec![];
    for build in rank(ledger) {
        if room == 0 || assignments.len() >= ASSIGNMENTS_MAX {
            break;
        }
        let mut chosen: BTreeSet<PeerKey> = BTreeSet::new();
        for n in 0..build.wanted() {
            let Some(peer) = choose(build, &free, &chosen) else { break };
            let Some(slot) = free.get_mut(&peer) else { break };
            slot.cores -= build.spec.cores;
            slot.memory_mib = slot.memory_mib.saturating_sub(build.spec.memory_mib);
            room -= u64::from(build.spec.cores);
            chosen.insert(peer);
            assignments.push(Assignment {
                build: build.id,
                attempt: crate::build::Attempt(build.attempts.len() as u32 + 1 + n as u32),
                host: peer,
                start: slot.host.start,
            });
        }
    }
    assignments
}

/// The best host for one attempt: not one that has tried this build, unless all that could have.
fn choose(build: &Build, free: &BTreeMap<PeerKey, Free<'_>>, chosen: &BTreeSet<PeerKey>) -> Option<PeerKey> {
    let able: Vec<_> = free
        .iter()
        .filter(|(peer, f)| can_run(f.host, &build.spec) && !chosen.contains(peer) && !has_or_holds(build, peer))
        .collect();
    let fresh = able.iter().any(|(peer, _)| !build.tried_on(peer));
    able.into_iter()
        .filter(|(peer, f)| {
            f.cores >= build.spec.cores && f.memory_mib >= build.spec.memory_mib && (!fresh || !build.tried_on(peer))
        })
        // Most free cores first; among equals the lower key, so that all agree.
        .max_by(|(a, x), (b, y)| x.cores.cmp(&y.cores).then(b.cmp(a)))
        .map(|(peer, _)| *peer)
}

/// Whether the host is running this build now, or has done it: then it cannot confirm it.
fn has_or_holds(build: &Build, peer: &PeerKey) -> bool {
    let done = |a: &crate::ledger::AttemptRecord| a.outcome().is_some_and(|o| o.end == End::Done);
    build.attempts.iter().any(|a| a.host == *peer && (a.is_running() || done(a)))
}

/// Whether a host, were it idle, could run this.
pub fn can_run(host: &HostNow, spec: &BuildSpec) -> bool {
    host.cores >= spec.cores
        && host.memory_mib >= spec.memory_mib
        && spec.tags.iter().all(|t| host.tags.contains(t))
        && (spec.sandbox != Sandbox::None || host.allow_none)
        && (!spec.network || host.allow_network)
}

/// Why a queued build is not running, in words; `None` when it merely waits for its turn.
pub fn held_back(ledger: &Ledger, view: &View, build: &Build) -> Option<String> {
    if build.wanted() == 0 {
        return None;
    }
    let spec = &build.spec;
    let hosts: Vec<&HostNow> =
        view.iter().filter(|(p, h)| h.alive && ledger.roster().is_member(p)).map(|(_, h)| h).collect();
    if hosts.iter().any(|h| can_run(h, spec)) {
        return None;
    }
    let most = hosts.iter().map(|h| h.cores).max().unwrap_or(0);
    let memory = hosts.iter().map(|h| h.memory_mib).max().unwrap_or(0);
    Some(if hosts.is_empty() {
        "no host is alive".into()
    } else if spec.cores > most {
        format!("asks for {} cores; the largest host that is alive has {most}", spec.cores)
    } else if spec.memory_mib > memory {
        format!("asks for {} MiB of memory; the largest host that is alive has {memory}", spec.memory_mib)
    } else if spec.sandbox == Sandbox::None && !hosts.iter().any(|h| h.allow_none) {
        "asks for no sandbox; no host allows that ([sandbox] allow_none in mesh.toml)".into()
    } else if spec.network && !hosts.iter().any(|h| h.allow_network) {
        "asks for network; no host allows that ([sandbox] allow_network in mesh.toml)".into()
    } else {
        format!("no host that is alive has all it asks for (tags: {})", spec.tags.join(", "))
    })
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;

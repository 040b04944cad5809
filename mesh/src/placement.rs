//! The leader's mind, as far as builds and voters go: `plan(ledger, view) -> proposals`. Pure.
//!
//! An attempt is lost when its host is down or has restarted since; a busy host never loses one
//! (incident 12). A build goes to the host with the most free cores that has what it asks for and that nothing keeps
//! from building ([`crate::restraint`]); a host that is set aside gets one build, its canary, before all others. Builds
//! are taken in the order of [`rank`], which is first come first served now; upward rank over estimated
//! seconds takes that seat later. Whether the leader may act at all is not decided here: that is
//! [`crate::lease`], and every proposal carries the fence.

mod voters;

pub use voters::{FLAPS_MAX, heir, seats};

use crate::blame::next_canary;
use crate::build::{Attempt, BuildSpec, End, Sandbox};
use crate::identity::PeerKey;
use crate::ledger::{Assignment, Build, Ledger, Lost};
use crate::mutants::{self, Mutant};
use crate::restraint::Restraint;
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

/// What a leader with this ledger and this view does now; `restraint` is that ledger's.
pub fn plan(ledger: &Ledger, view: &View, restraint: &Restraint) -> Plan {
    let lose = lost(ledger, view, restraint);
    // What is taken away in this very plan is placed by the next one, when the ledger says it is lost.
    let assign = assign(ledger, view, restraint);
    Plan { lose, assign, voters: voters::voters(ledger, view) }
}

/// For how long a host must have been alive with a start below that of its attempt before the attempt is lost: given to
/// a copy of its machine that is gone since, or to what was there before a backup was brought back. Far longer than word
/// of a new start takes.
const OLDER_MS: u64 = 30_000;

/// An attempt that has run for longer is taken for stuck by the naive variant of incident 12.
const NAIVE_PATIENCE_MS: u64 = 5_000;

fn lost(ledger: &Ledger, view: &View, restraint: &Restraint) -> Vec<Lost> {
    let mut lost = vec![];
    if mutants::on(Mutant::LostHostKeepsItsBuilds) {
        return lost;
    }
    for build in ledger.builds().running() {
        for attempt in build.running() {
            let reason = match view.get(&attempt.host) {
                Some(host) if host.start > attempt.start => "its host restarted".to_owned(),
                Some(host) if host.down => "its host is down".to_owned(),
                Some(host) if host.alive && host.start < attempt.start && host.steady_ms >= OLDER_MS => {
                    "its host goes on with an older start: the one it was given to is gone".to_owned()
                }
                _ if restraint.takes(&attempt.host).is_some() => {
                    format!("its host is {}", restraint.takes(&attempt.host).unwrap_or_default())
                }
                _ if mutants::on(Mutant::BusyHostLosesItsBuilds)
                    && ledger.time_ms() > attempt.assigned_ms + NAIVE_PATIENCE_MS =>
                {
                    "its host is busy".to_owned()
                }
                _ => continue,
            };
            lost.push(Lost { build: build.id, attempt: attempt.number, reason });
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

fn assign(ledger: &Ledger, view: &View, restraint: &Restraint) -> Vec<Assignment> {
    if restraint.pause().is_some() {
        return vec![];
    }
    let works = |peer: &PeerKey, h: &HostNow| h.alive && !h.suspended && h.cores > 0 && ledger.roster().is_member(peer);
    let canaries = canaries(ledger, view, restraint, works);
    if rank(ledger).next().is_none() {
        return canaries;
    }
    let mut free: BTreeMap<PeerKey, Free<'_>> = view
        .iter()
        .filter(|(peer, h)| works(peer, h) && restraint.host(peer).is_none())
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
    let mut assignments = canaries;
    let tried = assignments.len();
    for build in rank(ledger) {
        if room == 0 || assignments.len() >= ASSIGNMENTS_MAX {
            break;
        }
        let is_canary = assignments[..tried].iter().any(|a| a.build == build.id);
        if is_canary || restraint.holds(ledger, build).is_some() {
            continue; // what else a canary wants is for the next plan
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
                attempt: Attempt(build.attempts.len() as u32 + 1 + n as u32),
                host: peer,
                start: slot.host.start,
            });
        }
    }
    assignments
}

/// One build for each host that is set aside and is to be tried out: before all others, or none would be left for it.
fn canaries(
    ledger: &Ledger,
    view: &View,
    restraint: &Restraint,
    works: impl Fn(&PeerKey, &HostNow) -> bool,
) -> Vec<Assignment> {
    let mut given: Vec<Assignment> = vec![];
    for host in restraint.canaries().iter().filter(|_| !mutants::on(Mutant::NoCanaries)) {
        let Some(now) = view.get(host).filter(|now| works(host, now)) else { continue };
        let Some(id) = next_canary(ledger, host, |spec| can_run(now, spec)) else { continue };
        let Some(build) = ledger.builds().get(id).filter(|build| restraint.holds(ledger, build).is_none()) else {
            continue;
        };
        if !given.iter().any(|a| a.build == id) {
            let attempt = Attempt(build.attempts.len() as u32 + 1);
            given.push(Assignment { build: id, attempt, host: *host, start: now.start });
        }
    }
    given
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
pub fn held_back(ledger: &Ledger, view: &View, restraint: &Restraint, build: &Build) -> Option<String> {
    if build.wanted() == 0 {
        return None;
    }
    if let Some(why) = restraint.pause() {
        return Some(why.to_owned());
    }
    if let Some(why) = restraint.holds(ledger, build) {
        return Some(why);
    }
    let spec = &build.spec;
    let members = || view.iter().filter(|(p, h)| h.alive && ledger.roster().is_member(p));
    let able: Vec<&PeerKey> = members().filter(|(_, h)| can_run(h, spec)).map(|(peer, _)| peer).collect();
    if !able.is_empty() {
        return kept_from_all(ledger, restraint, &able);
    }
    let hosts: Vec<&HostNow> = members().map(|(_, h)| h).collect();
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

/// Hosts that are named when every one that could build is kept from it.
const KEPT_NAMED_MAX: usize = 3;

/// Why none of these hosts, which could run a build, is given it; `None` when one may be.
fn kept_from_all(ledger: &Ledger, restraint: &Restraint, able: &[&PeerKey]) -> Option<String> {
    let why: Vec<(&PeerKey, &str)> = able.iter().filter_map(|peer| Some((*peer, restraint.host(peer)?))).collect();
    if why.len() < able.len() {
        return None;
    }
    let name = |peer: &PeerKey| ledger.roster().member(peer).map_or_else(|| peer.short(), |m| m.name.clone());
    let mut told: Vec<String> =
        why.iter().take(KEPT_NAMED_MAX).map(|(peer, why)| format!("{} is {why}", name(peer))).collect();
    if why.len() > KEPT_NAMED_MAX {
        told.push(format!("and {} more", why.len() - KEPT_NAMED_MAX));
    }
    Some(format!("no host that could run it is given builds: {}", told.join("; ")))
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;

//! Blame: whose fault it is that builds fail, from the ledger alone, with the attempts that say so.
//!
//! Blame comes before healing (rule 6). [`judge`] reads the ends of the last hours, charges each failure by
//! [`charge`]'s table, and gives [`Verdict`]s: a package that fails on two hosts, a host on which many packages fail that
//! are built elsewhere, a host that fails fast, or the mesh, when most hosts fail together; then no host is blamed at
//! all, for the cause is shared (a newer tree, a network). Nothing here acts, and a verdict is no order: what follows
//! is decided in [`crate::healing`]. A host's word counts for its own attempts only; it takes two to blame a package.
//!
//! It walks all builds that the ledger remembers: to be asked when builds have changed, not for every build. [`Judge`]
//! keeps what it said for as long as it holds.

mod canary;
mod charge;
mod judge;
mod verdict;

pub use canary::{Canary, canary, charge_of, next_canary};
pub use charge::{Charge, Failure, Others, charge};
pub use judge::Judge;
pub use verdict::{Evidence, Fault, Verdict};

use crate::build::{BlobId, End, Phase};
use crate::identity::PeerKey;
use crate::ledger::{AttemptRecord, Build, Ledger};
use crate::limits::EVIDENCE_MAX;
use crate::mutants::{self, Mutant};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
use std::collections::{BTreeMap, BTreeSet};

/// From when on a failure is somebody's fault. Part of the policy that the ledger holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Rules {
    /// Ends that are older, in ledger time, are charged to nobody any more, though they may excuse who has tried since; in
    /// milliseconds.
    pub window_ms: u64,
    /// Of each host the newest so many ends count.
    pub recent: u64,
    /// So many distinct packages have to fail on a host before it is blamed.
    pub packages: u64,
    /// An attempt that failed within this time of its assignment failed fast; in milliseconds.
    pub fast_ms: u64,
    /// After so many fast failures in a row a host rests.
    pub fast_failures: u64,
    /// The first rest, doubled when what is given to it afterwards fails as well; in milliseconds.
    pub rest_ms: u64,
    /// The longest rest, in milliseconds.
    pub rest_ms_max: u64,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            window_ms: 6 * 3_600_000,
            recent: 10,
            packages: 3,
            fast_ms: 10_000,
            fast_failures: 3,
            rest_ms: 30_000,
            rest_ms_max: 3_600_000,
        }
    }
}

/// What came of an attempt that says something.
#[derive(Clone, Copy)]
enum Came {
    Good,
    Bad(Failure),
}

/// One end of an attempt in the window.
struct Ended<'a> {
    build: &'a Build,
    attempt: &'a AttemptRecord,
    package: usize,
    came: Came,
}

impl Ended<'_> {
    fn evidence(&self) -> Evidence {
        Evidence { build: self.build.id, attempt: self.attempt.number }
    }
    fn failure(&self) -> Option<Failure> {
        match self.came {
            Came::Bad(failure) => Some(failure),
            Came::Good => None,
        }
    }
}

/// A definition that was tried, whoever submitted it: the same name with another command is another package.
struct Package<'a> {
    build: &'a Build,
    good: BTreeSet<PeerKey>,
    command: BTreeSet<PeerKey>,
    inputs: BTreeSet<PeerKey>,
    /// The hosts of ends that are older than the window and charged to nobody. They excuse still: inputs that nobody
    /// could get are tried again hours later, and whoever tries is not the only one.
    before: BTreeSet<(Failure, PeerKey)>,
}

impl<'a> Package<'a> {
    fn new(build: &'a Build) -> Package<'a> {
        let (good, command, inputs, before) = Default::default();
        Package { build, good, command, inputs, before }
    }

    fn count(&mut self, attempt: &AttemptRecord) {
        match failure(attempt) {
            None if attempt.outcome().is_some_and(|o| o.end == End::Done) => self.good.insert(attempt.host),
            Some(Failure::Command) => self.command.insert(attempt.host),
            Some(Failure::Inputs) => self.inputs.insert(attempt.host),
            Some(Failure::Host) | None => false,
        };
    }

    fn others(&self, host: &PeerKey) -> Others {
        let before = |of| self.before.iter().any(|(failure, other)| *failure == of && other != host);
        Others {
            good: self.good.iter().any(|other| other != host),
            failed_alike: self.command.iter().any(|other| other != host) || before(Failure::Command),
            lack_inputs: self.inputs.iter().any(|other| other != host) || before(Failure::Inputs),
        }
    }
}

/// All that the ends of the last hours say: verdicts on packages first, then on the mesh, then on hosts.
pub fn judge(ledger: &Ledger, rules: &Rules) -> Vec<Verdict> {
    let (ends, packages) = ends(ledger, rules);
    let mut verdicts = packages_at_fault(&ends, &packages);
    let mut by_host: BTreeMap<PeerKey, Vec<&Ended<'_>>> = BTreeMap::new();
    for end in &ends {
        by_host.entry(end.attempt.host).or_default().push(end);
    }
    by_host.retain(|host, _| ledger.roster().is_member(host));
    let mesh = mesh_at_fault(&by_host, rules).filter(|_| !mutants::on(Mutant::BlameNeverTheMesh));
    let frozen = mesh.is_some();
    verdicts.extend(mesh);
    for (host, ends) in &by_host {
        let elsewhere = by_host.iter().any(|(other, ends)| other != host && ends.iter().any(|e| e.failure().is_none()));
        if !frozen && (elsewhere || mutants::on(Mutant::BlameWithoutComparison)) {
            verdicts.extend(host_at_fault(*host, ends, &packages, rules));
        }
        if ledger.roster().len() > 1 {
            let shared = frozen && !mutants::on(Mutant::BlameRestsForEach);
            let rest_ms_max = if shared { rules.rest_ms } else { rules.rest_ms_max };
            verdicts.extend(rest(*host, ends, &packages, &Rules { rest_ms_max, ..*rules }));
        }
    }
    verdicts
}

/// Why a build should not be tried again though its retries would allow it: it has failed by itself on two hosts.
pub fn held(build: &Build) -> Option<Verdict> {
    let failed = |a: &&AttemptRecord| failure(a).is_some_and(|f| f == Failure::Command);
    let hosts: BTreeSet<PeerKey> = build.attempts.iter().filter(failed).map(|a| a.host).collect();
    let evidence = build.attempts.iter().filter(failed).map(|a| Evidence { build: build.id, attempt: a.number });
    (hosts.len() >= 2).then(|| Verdict::Package {
        name: build.spec.name.clone(),
        fault: Fault::Command,
        hosts: hosts.into_iter().collect(),
        evidence: evidence.collect(),
    })
}

/// How an attempt failed; `None` when it did not, or when its end says nothing: lost with its host, or cancelled.
pub(crate) fn failure(attempt: &AttemptRecord) -> Option<Failure> {
    let outcome = attempt.outcome().filter(|o| matches!(o.end, End::Failed | End::TimedOut))?;
    Some(match outcome.phase {
        Phase::Command => Failure::Command,
        _ if mutants::on(Mutant::BlameHostsPhasesOnPackage) => Failure::Command,
        Phase::Fetch | Phase::Unpack => Failure::Inputs,
        Phase::Sandbox | Phase::Store | Phase::Upload => Failure::Host,
    })
}

/// Name, inputs and command: what tells most packages apart.
type Likeness<'a> = (&'a str, Vec<BlobId>, &'a [String]);

/// The ends in the window, oldest first, and the packages that they are of.
fn ends<'a>(ledger: &'a Ledger, rules: &Rules) -> (Vec<Ended<'a>>, Vec<Package<'a>>) {
    let since_ms = match mutants::on(Mutant::BlameForEver) {
        true => 0,
        false => ledger.time_ms().saturating_sub(rules.window_ms),
    };
    // Thousands of builds may share a name and differ in what they start from.
    let mut by_name: BTreeMap<Likeness<'_>, Vec<usize>> = BTreeMap::new();
    let (mut ends, mut packages): (Vec<Ended<'_>>, Vec<Package<'_>>) = (vec![], vec![]);
    for build in ledger.builds().iter() {
        let mut tried = None;
        for attempt in build.attempts.iter().filter(|a| !a.is_running() && a.ended_ms > since_ms) {
            let came = match failure(attempt) {
                Some(failure) => Came::Bad(failure),
                None if attempt.outcome().is_some_and(|o| o.end == End::Done) => Came::Good,
                None => continue,
            };
            let spec = &build.spec;
            let blobs = spec.inputs.iter().map(|input| input.blob).collect();
            let alike = by_name.entry((&spec.name, blobs, &spec.command)).or_default();
            let package = alike.iter().copied().find(|n| packages[*n].build.spec == *spec).unwrap_or_else(|| {
                packages.push(Package::new(build));
                alike.push(packages.len() - 1);
                packages.len() - 1
            });
            packages[package].count(attempt);
            tried = Some(package);
            ends.push(Ended { build, attempt, package, came });
        }
        if let Some(package) = tried {
            let old = build.attempts.iter().filter(|a| !a.is_running() && a.ended_ms <= since_ms);
            packages[package].before.extend(old.filter_map(|a| Some((failure(a)?, a.host))));
        }
    }
    ends.sort_by_key(|e| (e.attempt.ended_ms, e.build.id, e.attempt.number));
    (ends, packages)
}

fn packages_at_fault(ends: &[Ended<'_>], packages: &[Package<'_>]) -> Vec<Verdict> {
    let mut verdicts = vec![];
    for (n, package) in packages.iter().enumerate() {
        let inputs = package.good.is_empty() && package.inputs.len() >= 2;
        let (fault, hosts) = match package.command.len() >= 2 {
            true => (Fault::Command, &package.command),
            false if inputs => (Fault::Inputs, &package.inputs),
            false => continue,
        };
        let kind = if fault == Fault::Command { Failure::Command } else { Failure::Inputs };
        let evidence = newest(ends.iter().filter(|e| e.package == n && e.failure() == Some(kind)));
        let (name, hosts) = (package.build.spec.name.clone(), hosts.iter().copied().collect());
        verdicts.push(Verdict::Package { name, fault, hosts, evidence });
    }
    verdicts
}

/// The newest ends of a host.
fn recent<'e, 'a>(ends: &'e [&'e Ended<'a>], rules: &Rules) -> &'e [&'e Ended<'a>] {
    &ends[ends.len().saturating_sub(rules.recent as usize)..]
}

/// Whether enough distinct packages are among these, and they are more than half of all.
fn telling(chosen: &[&Ended<'_>], of: usize, rules: &Rules) -> bool {
    let packages: BTreeSet<usize> = chosen.iter().map(|e| e.package).collect();
    let needed = if mutants::on(Mutant::BlameForOnePackage) { 1 } else { rules.packages };
    !packages.is_empty() && packages.len() as u64 >= needed && 2 * chosen.len() > of
}

/// Most hosts that build at all fail, whatever of: no host is the cause.
fn mesh_at_fault(by_host: &BTreeMap<PeerKey, Vec<&Ended<'_>>>, rules: &Rules) -> Option<Verdict> {
    let mut hosts = vec![];
    let mut evidence = vec![];
    for (host, ends) in by_host {
        let recent = recent(ends, rules);
        let bad: Vec<&Ended<'_>> = recent.iter().copied().filter(|e| e.failure().is_some()).collect();
        if telling(&bad, recent.len(), rules) {
            hosts.push(*host);
            evidence.extend(bad);
        }
    }
    let of = by_host.len();
    evidence.sort_by_key(|e| (e.attempt.ended_ms, e.build.id, e.attempt.number));
    (hosts.len() >= 2 && 2 * hosts.len() > of).then(|| Verdict::Mesh {
        hosts,
        of,
        evidence: newest(evidence.into_iter()),
    })
}

fn host_at_fault(host: PeerKey, ends: &[&Ended<'_>], packages: &[Package<'_>], rules: &Rules) -> Option<Verdict> {
    let recent = recent(ends, rules);
    let charged = |e: &&&Ended<'_>| charged(e, &host, packages) == Some(Charge::Host);
    let bad: Vec<&Ended<'_>> = recent.iter().filter(charged).copied().collect();
    let distinct: BTreeSet<usize> = bad.iter().map(|e| e.package).collect();
    telling(&bad, recent.len(), rules).then(|| Verdict::Host {
        host,
        packages: distinct.len(),
        evidence: newest(bad.into_iter()),
    })
}

fn charged(end: &Ended<'_>, host: &PeerKey, packages: &[Package<'_>]) -> Option<Charge> {
    Some(charge(end.failure()?, packages[end.package].others(host)))
}

/// A host whose last attempts failed fast waits, so that others can say whose fault it is: longer each time when they
/// say that it is the host's. What the package is to blame for does not count, nor what is never tried elsewhere: nobody
/// would ever say. What was given to it together fails together, and makes its rest longer once. While most hosts fail
/// together all rest alike, for the shortest time: then a queue is neither burned by what breaks everything, nor left
/// waiting when that has passed.
fn rest(host: PeerKey, ends: &[&Ended<'_>], packages: &[Package<'_>], rules: &Rules) -> Option<Verdict> {
    let fast = |e: &&&Ended<'_>| {
        e.attempt.ended_ms.saturating_sub(e.attempt.assigned_ms) <= rules.fast_ms && e.failure().is_some()
    };
    let counts = |e: &&&Ended<'_>| match charged(e, &host, packages) {
        Some(Charge::Package) => false,
        Some(Charge::Undecided) => e.build.spec.retries > 0,
        Some(Charge::Host) | None => true,
    };
    let mut row: Vec<&Ended<'_>> = ends.iter().rev().filter(counts).take_while(fast).copied().collect();
    row.reverse();
    let count = row.len() as u64;
    if count == 0 || count < rules.fast_failures || mutants::on(Mutant::BlameNoRest) {
        return None;
    }
    let (mut rests, mut opened) = (0_u32, None);
    for end in &row[rules.fast_failures.saturating_sub(1) as usize..] {
        let own = charged(end, &host, packages) == Some(Charge::Host);
        let anew = own && opened.is_none_or(|ended_ms| end.attempt.assigned_ms >= ended_ms);
        if anew || mutants::on(Mutant::BlameRestsForEach) {
            (rests, opened) = (rests + 1, Some(end.attempt.ended_ms));
        }
    }
    let doublings = rests.saturating_sub(1).min(32);
    let rest_ms = rules.rest_ms.saturating_mul(1 << doublings).min(rules.rest_ms_max);
    let until_ms = row.last()?.attempt.ended_ms.saturating_add(rest_ms);
    Some(Verdict::Rest { host, until_ms, failures: count, evidence: newest(row.into_iter()) })
}

fn newest<'e, 'a: 'e>(ends: impl DoubleEndedIterator<Item = &'e Ended<'a>>) -> Vec<Evidence> {
    let mut evidence: Vec<Evidence> = ends.rev().take(EVIDENCE_MAX).map(Ended::evidence).collect();
    evidence.reverse();
    evidence
}

#[cfg(test)]
mod property_tests;
#[cfg(test)]
pub(crate) mod tests;

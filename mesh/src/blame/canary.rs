//! A canary: one build that decides about a host that is set aside, before anything stronger is done to it.
//!
//! A canary is a build like any other, given to a host that gets no others. It says something when it was built, when
//! it failed in the host's own phases, or when its command failed, or its inputs did not come, and another host has built
//! the same; what nobody else has tried yet says nothing. Nothing here gives builds: the leader does, by [`next_canary`].

use super::{Charge, Evidence, Failure, charge, failure, held};
use crate::build::{BuildId, BuildSpec, End};
use crate::identity::PeerKey;
use crate::ledger::{AttemptRecord, Build, Ledger};
use crate::mutants::{self, Mutant};

/// Waiting builds among which a canary is looked for: each is compared with all that the ledger remembers.
const CANDIDATES_MAX: usize = 16;

/// What a host's canary says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Canary {
    /// There is none yet that says something.
    Wanted,
    /// It runs.
    Running(Evidence),
    /// It was built: the host is well.
    Passed(Evidence),
    /// It failed, and the host is to blame.
    Failed(Evidence),
}

/// What the newest telling attempt on a host says that was assigned at or after a ledger time.
pub fn canary(ledger: &Ledger, host: &PeerKey, since_ms: u64) -> Canary {
    let mut newest = (0, Canary::Wanted);
    for build in ledger.builds().iter() {
        for attempt in build.attempts.iter().filter(|a| a.host == *host && a.assigned_ms >= since_ms) {
            let evidence = Evidence { build: build.id, attempt: attempt.number };
            let says = match failure(attempt) {
                _ if attempt.is_running() => return Canary::Running(evidence),
                None if attempt.outcome().is_some_and(|o| o.end == End::Done) => Canary::Passed(evidence),
                Some(failure) if is_telling(failure, others(ledger, build, host)) => Canary::Failed(evidence),
                _ => continue,
            };
            if attempt.ended_ms >= newest.0 {
                newest = (attempt.ended_ms, says);
            }
        }
    }
    newest.1
}

/// Whether one failure is enough to do something to its host. Inputs that nobody else has tried to fetch are not: whoever
/// has them may be away. As one of many failures they count ([`charge`]), since what fails there is built elsewhere then.
fn is_telling(failure: Failure, others: super::Others) -> bool {
    let compared = others.good || others.failed_alike || mutants::on(Mutant::BlameWithoutComparison);
    charge(failure, others) == Charge::Host && (failure != Failure::Inputs || compared)
}

/// The build to give to a host as its canary: one that waits and that the host is able to run, has not been tried there
/// and is not known to be broken; one that may be tried again, for it must not fail for the sake of a sick host; best one
/// that another host has built before, for its failure would say something at once. `None` when there is none, or one runs
/// there already.
pub fn next_canary(ledger: &Ledger, host: &PeerKey, able: impl Fn(&BuildSpec) -> bool) -> Option<BuildId> {
    if ledger.builds().running().any(|b| b.running().any(|a| a.host == *host)) {
        return None;
    }
    let fit = |build: &&Build| {
        let others = others(ledger, build, host);
        able(&build.spec)
            && build.spec.retries > 0 // it may fail for its host's sake, and has to come right elsewhere
            && !build.tried_on(host)
            && held(build).is_none()
            && !others.failed_alike
            && !others.lack_inputs
    };
    let mut fitting = ledger.builds().wanting().take(CANDIDATES_MAX).filter(fit);
    let first = fitting.next()?;
    let known = |build: &&Build| others(ledger, build, host).good;
    Some(std::iter::once(first).chain(fitting).find(known).unwrap_or(first).id)
}

/// Whom an attempt's failure is charged to, by all that the ledger remembers of its package; `None` when it did not fail.
pub fn charge_of(ledger: &Ledger, build: &Build, attempt: &AttemptRecord) -> Option<Charge> {
    Some(charge(failure(attempt)?, others(ledger, build, &attempt.host)))
}

/// What other hosts have seen of the same package, as far as the ledger remembers.
fn others(ledger: &Ledger, build: &Build, host: &PeerKey) -> super::Others {
    let mut of = super::Package::new(build);
    for alike in ledger.builds().iter().filter(|b| b.spec.name == build.spec.name && b.spec == build.spec) {
        alike.attempts.iter().for_each(|attempt| of.count(attempt));
    }
    of.others(host)
}

//! What keeps builds waiting though hosts are free: measures of a person, hosts that are set aside or rest, packages
//! that are held. In words, for placement to keep and for people to read.
//!
//! A pause holds everybody, a block or drain one host; a block also takes what runs there (incidents 4 and 5: each has
//! a reason and an end, and ends by itself). A host that is being healed gets no builds but its canary, one that fails
//! fast rests (incident 8). Inputs that nobody could fetch are tried again after a while, longer each time. A package
//! that failed by itself on two hosts is not tried on a third (incident 9) until that is [`Rules::window_ms`](crate::blame::Rules::window_ms) ago, or a person asks for it again. Nothing here
//! decides who is to blame ([`crate::blame`]), nor where a build goes ([`crate::placement`]).
//!
//! Ledger time moves with its batches alone. [`wakes_ms`] says when something that stands here ends, so that a leader
//! commits an empty batch then: else a pause of a mesh that does nothing would never end. Nobody else moves it.

use crate::blame::{Fault, Verdict, held};
use crate::build::BuildId;
use crate::healing::{Case, Phase, Record, Rule, Stage, Stop, pace_ends, span, storm};
use crate::identity::PeerKey;
use crate::ledger::{AttemptRecord, Build, Ledger};
use crate::limits::{TIME_IDLE_MS_MAX, TIME_STANDS_MS_MAX};
use crate::mutants::{self, Mutant};
use std::collections::BTreeMap;

/// How far ledger time may be behind at least while a host is being healed: its cool-downs and proofs have a minute or
/// more.
const HEALING_STANDS_MS: u64 = 2_000;
/// And by this part of how long its case has stood where it does: what it waits for comes that much later at most, and
/// a host that waits for days, for a build say, keeps nobody's network busy.
const HEALING_STANDS_PART: u64 = 8;

/// Why a host gets no builds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// In a word: `blocked`, `drained`, `set aside`, `resting`.
    pub word: &'static str,
    /// In a sentence.
    pub why: String,
    /// What runs there is taken from it as well.
    pub taken: bool,
}

/// A package that is held: a build of it, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Package {
    sample: BuildId,
    why: String,
}

/// What keeps builds waiting at one moment of a ledger.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Restraint {
    pause: Option<String>,
    hosts: BTreeMap<PeerKey, Kept>,
    canaries: Vec<PeerKey>,
    packages: BTreeMap<String, Vec<Package>>,
    since_ms: u64,
}

impl Restraint {
    /// Of a ledger, with what [`crate::blame::judge`] says of it.
    pub fn new(ledger: &Ledger, verdicts: &[Verdict]) -> Restraint {
        let (record, now) = (ledger.healing(), ledger.time_ms());
        let pause = record.measures.pause(now).filter(|_| !mutants::on(Mutant::BuildsDespiteMeasures));
        let pause = pause.map(|m| format!("paused for {} more: {}", span(m.until_ms - now), m.reason));
        let named = record.measures.in_force(now).filter_map(|m| m.host);
        let cases = record.cases().map(|(host, _)| *host);
        let resting = verdicts.iter().filter_map(|v| match v {
            Verdict::Rest { host, .. } => Some(*host),
            _ => None,
        });
        let mut hosts = BTreeMap::new();
        for host in named.chain(cases).chain(resting) {
            if let Some(kept) = kept(ledger, record, verdicts, &host) {
                hosts.insert(host, kept);
            }
        }
        let due = |(host, case): (&PeerKey, &crate::healing::Case)| {
            let held = record.measures.of(host, now).is_some();
            let due = matches!(case.stage, Stage::On(_, Phase::CanaryDue)) && !case.is_returning(now);
            (due && !held).then_some(*host)
        };
        let frozen = record.policy().heal == 0 || verdicts.iter().any(|v| matches!(v, Verdict::Mesh { .. }));
        let canaries = record.cases().filter_map(due).filter(|_| !frozen && pause.is_none()).collect();
        let mut packages: BTreeMap<String, Vec<Package>> = BTreeMap::new();
        for verdict in verdicts {
            if let Verdict::Package { name, evidence, .. } = verdict
                && let Some(first) = evidence.first()
                && !mutants::on(Mutant::HeldPackagesGoOn)
                && inputs_until_ms(ledger, verdict).is_none_or(|until_ms| now < until_ms)
            {
                let package = Package { sample: first.build, why: verdict.text(ledger.roster()) };
                packages.entry(name.clone()).or_default().push(package);
            }
        }
        let since_ms = now.saturating_sub(record.policy().blame.window_ms);
        Restraint { pause, hosts, canaries, packages, since_ms }
    }

    /// Why nobody gets builds.
    pub fn pause(&self) -> Option<&str> {
        self.pause.as_deref()
    }

    /// Why a host gets none; `None` when it may, but for a pause.
    pub fn host(&self, host: &PeerKey) -> Option<&str> {
        self.hosts.get(host).map(|kept| kept.why.as_str())
    }

    /// The same in a word.
    pub fn word(&self, host: &PeerKey) -> Option<&'static str> {
        self.hosts.get(host).map(|kept| kept.word)
    }

    /// Why what runs on a host is taken from it.
    pub fn takes(&self, host: &PeerKey) -> Option<&str> {
        self.hosts.get(host).filter(|kept| kept.taken).map(|kept| kept.why.as_str())
    }

    /// Hosts that are to be given one build, which says whether they are well.
    pub fn canaries(&self) -> &[PeerKey] {
        &self.canaries
    }

    /// Why a build is not tried again: its package has failed on two hosts. One that a person asked for again is tried
    /// for its own sake, and so is one that is never tried twice: somebody waits for it.
    pub fn holds(&self, ledger: &Ledger, build: &Build) -> Option<String> {
        if mutants::on(Mutant::HeldPackagesGoOn) {
            return None;
        }
        let lately = |a: &AttemptRecord| a.outcome().is_some() && a.ended_ms > self.since_ms;
        if let Some(verdict) = held(build).filter(|_| build.attempts.iter().any(lately)) {
            return Some(verdict.text(ledger.roster()));
        }
        if build.retry_of.is_some() || build.spec.retries == 0 {
            return None;
        }
        let alike = |p: &&Package| ledger.builds().get(p.sample).is_some_and(|b| b.spec == build.spec);
        self.packages.get(&build.spec.name)?.iter().find(alike).map(|p| p.why.clone())
    }
}

/// Why one host gets no builds, by a record of healing and what blame says; a pause, which is everybody's, left out.
pub(crate) fn kept(ledger: &Ledger, record: &Record, verdicts: &[Verdict], host: &PeerKey) -> Option<Kept> {
    let now = ledger.time_ms();
    if let Some(m) = record.measures.of(host, now).filter(|_| !mutants::on(Mutant::BuildsDespiteMeasures)) {
        let word = if m.stop == Stop::Block { "blocked" } else { "drained" };
        let why = format!("{word} for {} more: {}", span(m.until_ms - now), m.reason);
        return Some(Kept { word, why, taken: m.stop == Stop::Block && !mutants::on(Mutant::BlockLeavesBuilds) });
    }
    if let Some(case) = record.case(host).filter(|_| !mutants::on(Mutant::BuildsWhereSetAside)) {
        return Some(Kept { word: "set aside", why: format!("set aside: {}", case.why), taken: false });
    }
    verdicts.iter().find_map(|v| match v {
        Verdict::Rest { host: of, until_ms, failures, .. } if of == host && *until_ms > now => {
            let told: Vec<String> = v.evidence().iter().map(ToString::to_string).collect();
            let why = format!(
                "resting for {} more: its last {failures} builds failed at once ({})",
                span(until_ms - now),
                told.join(", ")
            );
            Some(Kept { word: "resting", why, taken: false })
        }
        _ => None,
    })
}

/// When inputs that nobody could fetch or unpack are tried again, in ledger time: whoever has them may be back by then.
/// The time doubles with each try that failed. `None` for other verdicts: a command does not mend itself.
fn inputs_until_ms(ledger: &Ledger, verdict: &Verdict) -> Option<u64> {
    let Verdict::Package { fault: Fault::Inputs, evidence, .. } = verdict else { return None };
    let rules = ledger.healing().policy().blame;
    let ended = evidence.iter().filter_map(|e| {
        ledger.builds().get(e.build)?.attempts.iter().find(|a| a.number == e.attempt).map(|a| a.ended_ms)
    });
    let doublings = evidence.len().saturating_sub(2).min(32) as u32;
    let wait_ms = rules.rest_ms.saturating_mul(1 << doublings).min(rules.rest_ms_max);
    let wait_ms = if mutants::on(Mutant::InputsHeldForHours) { rules.window_ms } else { wait_ms };
    Some(ended.max().unwrap_or(0).saturating_add(wait_ms))
}

/// The ledger time at which a leader should let time pass though nothing else happens, because something that stands
/// ends then or is shown with what is left of it; when nothing waits for time, since a roster ages by it.
pub fn wakes_ms(ledger: &Ledger, verdicts: &[Verdict]) -> u64 {
    if mutants::on(Mutant::TimeStandsStill) {
        return u64::MAX;
    }
    let (record, now) = (ledger.healing(), ledger.time_ms());
    let ends = record.measures.in_force(now).map(|m| m.until_ms);
    let orders = record.orders().filter(|w| w.order.expires_ms > now && w.receipt.is_none());
    let rests = verdicts.iter().filter_map(|v| match v {
        Verdict::Rest { until_ms, .. } if *until_ms > now => Some(*until_ms),
        _ => inputs_until_ms(ledger, v).filter(|until_ms| *until_ms > now),
    });
    let stood = |since_ms: u64| now.saturating_sub(since_ms) / HEALING_STANDS_PART;
    let open = record.cases().filter(|(_, case)| case.stage.is_open());
    let looks = |case: &Case| now + stood(case.since_ms).max(HEALING_STANDS_MS);
    let healing = open.map(|(_, case)| case.waits_until_ms(record.policy(), now).unwrap_or_else(|| looks(case)));
    let storm = match storm(record, now) {
        Some(Rule::Storm { left_ms, .. }) => Some(now + left_ms),
        _ => None,
    };
    let soonest = ends.chain(orders.map(|w| w.order.expires_ms)).chain(rests).chain(healing).chain(storm).min();
    // What is left is shown to people, and what is long ago says nothing any more.
    let stands = soonest.is_some() || !verdicts.is_empty();
    let shown = stands.then(|| now + TIME_STANDS_MS_MAX);
    let paces = pace_ends(record, now).into_iter();
    soonest.into_iter().chain(shown).chain(paces).fold(now.saturating_add(TIME_IDLE_MS_MAX), u64::min)
}

#[cfg(test)]
#[path = "restraint_tests.rs"]
mod tests;

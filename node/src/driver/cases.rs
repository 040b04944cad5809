//! What `mesh why` tells of healing and blame: where a host's case stands, what was done, what is due and what holds it
//! back; and of a build, whose fault its failures are. Judges nothing: the words are blame's and healing's own.

use super::Inner;
use super::audit::line_told;
use super::plan::name;
use crate::api::healing::{BuildWhy, CaseReport, OrderTold, TryWhy};
use crate::api::types::{ApiError, BuildState, VERSION};
use mesh::blame::{Charge, Verdict, charge_of};
use mesh::build::{BuildId, End};
use mesh::healing::{Case, Facts, Phase, Rung, Stage, Written};
use mesh::identity::PeerKey;
use mesh::ledger::{AttemptRecord, AttemptState, Ledger};
use mesh::restraint::Restraint;

/// Lines of a host's trail that its story tells.
const TRAIL_MAX: usize = 30;

impl Inner {
    /// What the ledger has on one host.
    pub(super) fn make_case(&self, host: &PeerKey) -> CaseReport {
        self.healing_facts(|facts| {
            let ledger = facts.ledger;
            let (next, held) = self.plan_of(facts, host);
            let case = ledger.healing().case(host);
            let restraint = Restraint::new(ledger, facts.verdicts);
            let measures = ledger.healing().measures.in_force(ledger.time_ms());
            let trail: Vec<_> =
                ledger.healing().audit().lines().rev().filter(|l| l.host == Some(*host)).take(TRAIL_MAX).collect();
            let stage = ledger.healing().stage(host);
            CaseReport {
                stage: stage_code(stage).to_owned(),
                told: stage_words(stage, case),
                why: case.map(|case| case.why.clone()).unwrap_or_default(),
                since_ms: case.map_or(0, |case| ledger.time_ms().saturating_sub(case.since_ms)),
                kept: restraint.pause().or_else(|| restraint.host(host)).map(str::to_owned),
                measures: measures.filter(|m| m.host == Some(*host)).map(|m| self.measure_told(ledger, m)).collect(),
                blame: blame_of(facts, host),
                next,
                held,
                orders: orders_of(ledger, Some(host)),
                trail: trail.into_iter().rev().map(|line| line_told(ledger, line)).collect(),
            }
        })
    }

    pub(super) fn make_why_build(&self, id: BuildId) -> Result<BuildWhy, ApiError> {
        let detail = self.detail(id)?;
        let summary = detail.summary;
        let (tries, blame) = self
            .shared
            .with(|ledger| {
                let build = ledger.builds().get(id)?;
                let tries = build.attempts.iter().map(|attempt| try_told(ledger, id, attempt)).collect::<Vec<_>>();
                let verdicts = self.judged(ledger);
                let package = |v: &&Verdict| matches!(v, Verdict::Package { name, .. } if *name == build.spec.name);
                let blame = verdicts.iter().filter(package).map(|v| v.text(ledger.roster())).collect::<Vec<_>>();
                Some((tries, blame))
            })
            .unwrap_or_default();
        let next = next_for(id, &summary.name, summary.state, summary.held, &summary.text, &tries);
        Ok(BuildWhy {
            version: VERSION,
            build: id,
            name: summary.name,
            state: summary.state,
            because: summary.text,
            tries,
            blame,
            next,
        })
    }
}

/// What blame says that names a host, or all.
fn blame_of(facts: &Facts<'_>, host: &PeerKey) -> Vec<String> {
    let names = |verdict: &&Verdict| match verdict {
        Verdict::Host { host: of, .. } | Verdict::Rest { host: of, .. } => of == host,
        Verdict::Mesh { .. } => true,
        Verdict::Package { hosts, .. } => hosts.contains(host),
    };
    facts.verdicts.iter().filter(names).map(|verdict| verdict.text(facts.ledger.roster())).collect()
}

/// Orders that the ledger remembers, to one host or to all, oldest first.
pub(super) fn orders_of(ledger: &Ledger, host: Option<&PeerKey>) -> Vec<OrderTold> {
    let its = |written: &&Written| host.is_none_or(|host| written.order.target == *host);
    ledger.healing().orders().filter(its).map(|written| order_told(ledger, written)).collect()
}

fn order_told(ledger: &Ledger, written: &Written) -> OrderTold {
    let (order, state) = (&written.order, order_word(ledger, written));
    OrderTold {
        id: order.id.to_string(),
        host: name(ledger, &order.target),
        act: order.act.to_string(),
        by: name(ledger, &written.by),
        requester: order.requester.clone(),
        reason: order.reason.clone(),
        at_ms: written.at_ms,
        until_ms: order.expires_ms,
        state: state.to_owned(),
    }
}

/// How far an order has come.
pub(super) fn order_word(ledger: &Ledger, written: &Written) -> &'static str {
    match () {
        () if written.proof.is_some() => "proved",
        () if written.receipt.is_some() => "taken",
        () if written.order.expires_ms > ledger.time_ms() => "open",
        () => "expired",
    }
}

/// For machines.
pub(super) fn stage_code(stage: Stage) -> &'static str {
    match stage {
        Stage::Well => "well",
        Stage::On(_, Phase::Acting) => "acting",
        Stage::On(_, Phase::CanaryDue) => "canary-due",
        Stage::On(_, Phase::Trial) => "trial",
        Stage::On(_, Phase::Spent) => "spent",
        Stage::Human => "human",
    }
}

/// Where a case stands, said of its host.
pub(super) fn stage_words(stage: Stage, case: Option<&Case>) -> String {
    let is = |of: fn(&Case) -> bool| case.is_some_and(of);
    match stage {
        Stage::Well => "nothing is known against it".to_owned(),
        Stage::On(rung, Phase::Acting) => format!("its {rung} is ordered, and not proved yet"),
        Stage::On(Rung::Aside, Phase::CanaryDue) if !is(|case| case.blamed) => {
            "set aside; it was merely down, and gets builds again when it stays up, or has built a canary".to_owned()
        }
        Stage::On(Rung::Aside, Phase::CanaryDue) => "set aside; a canary build is to say whether it is well".to_owned(),
        Stage::On(rung, Phase::CanaryDue) => format!("after its {rung} a canary build is to say whether it is well"),
        Stage::On(_, Phase::Trial) => "its canary build is out".to_owned(),
        Stage::On(Rung::Aside, Phase::Spent) if is(|case| case.down) => "set aside, because it is down".to_owned(),
        Stage::On(Rung::Aside, Phase::Spent) => "set aside, and its canary failed".to_owned(),
        Stage::On(rung, Phase::Spent) => format!("its {rung} did not help"),
        Stage::Human => "handed to a human: it gets no builds until somebody says that it is well".to_owned(),
    }
}

fn try_told(ledger: &Ledger, build: BuildId, attempt: &AttemptRecord) -> TryWhy {
    let came = match &attempt.state {
        AttemptState::Running => "runs".to_owned(),
        AttemptState::Lost(why) => format!("was lost: {why}"),
        AttemptState::Cancelled => "was cancelled".to_owned(),
        AttemptState::Ended(outcome) => match outcome.end {
            End::Done => "was built".to_owned(),
            End::Cancelled => "was cancelled".to_owned(),
            End::Failed => format!("failed while {}: {}", phase_words(outcome.phase), outcome.text),
            End::TimedOut => format!("took too long: {}", outcome.text),
        },
    };
    let charged =
        ledger.builds().get(build).and_then(|build| charge_of(ledger, build, attempt)).map(|charge| match charge {
            Charge::Host => format!("that is {}'s own fault", name(ledger, &attempt.host)),
            Charge::Package => "that is the package's fault".to_owned(),
            Charge::Undecided => "whose fault that is, another host has to say".to_owned(),
        });
    TryWhy { id: format!("{build}.{}", attempt.number), host: name(ledger, &attempt.host), came, charged }
}

fn phase_words(phase: mesh::build::Phase) -> &'static str {
    use mesh::build::Phase;
    match phase {
        Phase::Fetch => "its inputs were fetched",
        Phase::Unpack => "its inputs were unpacked",
        Phase::Sandbox => "its sandbox was made",
        Phase::Command => "its command ran",
        Phase::Store => "its outputs were stored",
        Phase::Upload => "its outputs were copied",
    }
}

/// What to do about a build.
fn next_for(id: BuildId, name: &str, state: BuildState, held: bool, because: &str, tries: &[TryWhy]) -> Vec<String> {
    let mut next = vec![];
    match state {
        BuildState::Queued if held => {
            next.push(format!("`mesh logs {id}` shows how {name} fails; mend it and submit it anew"));
            next.push(format!("`mesh retry {id}` tries it once more all the same, `mesh cancel {id}` gives it up"));
        }
        BuildState::Queued if because.is_empty() => next.push("wait: it is its turn when a host is free".to_owned()),
        BuildState::Queued => next.push("`mesh status` says what to do about what it waits for".to_owned()),
        BuildState::Running => next.push(format!("`mesh logs -f {id}` shows what it does")),
        BuildState::Failed if tries.is_empty() => {
            next.push("see to the build that it needs, then retry both".to_owned())
        }
        BuildState::Failed => {
            next.push(format!("`mesh logs {id}` shows what it did; `mesh retry {id}` tries it once more"));
        }
        BuildState::Cancelled => next.push(format!("`mesh retry {id}` submits it again")),
        BuildState::Done => next.push(format!("nothing to do: `mesh fetch {id}` brings what it made")),
    }
    next
}

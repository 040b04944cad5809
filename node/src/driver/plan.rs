//! `mesh plan`: what the leader would do now, by this host's own ledger and view, and every rule that holds the rest
//! back. Nothing is done: the leader's task asks the same question, and acts by the answer.

use super::Inner;
use crate::api::healing::{PlanHeld, PlanReport, PlanStep};
use crate::api::types::VERSION;
use mesh::healing::{Facts, Held, Step, What, plan};
use mesh::identity::PeerKey;
use mesh::ledger::Ledger;

impl Inner {
    pub(super) fn make_plan(&self) -> PlanReport {
        let leads = self.consensus.grant().is_some();
        let seen_from = self.name_of(&self.me);
        let frozen = self.shared.with(|ledger| {
            let pause = ledger.healing().measures.pause(ledger.time_ms());
            let mut frozen: Vec<String> = pause.map(|m| self.measure_words(ledger, m)).into_iter().collect();
            frozen.extend(self.frozen(ledger));
            frozen
        });
        self.healing_facts(|facts| {
            let plan = plan(facts);
            PlanReport {
                version: VERSION,
                seen_from,
                leads,
                frozen,
                steps: plan.steps.iter().map(|step| step_told(facts.ledger, step)).collect(),
                held: plan.held.iter().map(|held| held_told(facts.ledger, held)).collect(),
                blame: facts.verdicts.iter().map(|verdict| verdict.text(facts.ledger.roster())).collect(),
            }
        })
    }

    /// What the plan says of one host.
    pub(super) fn plan_of(&self, facts: &Facts<'_>, host: &PeerKey) -> (Vec<PlanStep>, Vec<PlanHeld>) {
        let plan = plan(facts);
        let steps = plan.steps.iter().filter(|s| s.host == *host).map(|s| step_told(facts.ledger, s)).collect();
        let held = plan.held.iter().filter(|h| h.host == *host).map(|h| held_told(facts.ledger, h)).collect();
        (steps, held)
    }

    /// A measure in a sentence.
    pub(super) fn measure_words(&self, ledger: &Ledger, measure: &mesh::healing::Measure) -> String {
        let told = self.measure_told(ledger, measure);
        let what = match &told.host {
            Some(host) => format!("{host} is {}", told.stop.word()),
            None => "the mesh is paused: nobody gets builds, and nobody is healed".to_owned(),
        };
        format!("{what}, by {} until {} ({}): {}", told.by, moment(told.until_ms), left(told.left_ms), told.reason)
    }
}

fn step_told(ledger: &Ledger, step: &Step) -> PlanStep {
    PlanStep { host: name(ledger, &step.host), what: what_told(step.what), why: step.why.clone() }
}

fn held_told(ledger: &Ledger, held: &Held) -> PlanHeld {
    let rules = held.rules.iter().map(|rule| rule.text(ledger.roster())).collect();
    PlanHeld { host: name(ledger, &held.host), what: what_told(held.what), rules }
}

fn what_told(what: What) -> String {
    match what {
        What::Note(event) => format!("noting that {}", super::audit::event_words(event)),
        other => other.to_string(),
    }
}

pub(super) fn name(ledger: &Ledger, peer: &PeerKey) -> String {
    ledger.roster().member(peer).map_or_else(|| peer.short(), |member| member.name.clone())
}

/// A moment of ledger time, as logs write it.
pub(super) fn moment(at_ms: u64) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(at_ms / 1_000);
    humantime::format_rfc3339_seconds(at).to_string()
}

/// What is left of something, in two units at most.
pub(super) fn left(ms: u64) -> String {
    if ms < 1_000 {
        return "ends now".to_owned();
    }
    let text = humantime::format_duration(std::time::Duration::from_secs(ms / 1_000)).to_string();
    format!("{} left", text.split(' ').take(2).collect::<Vec<_>>().join(" "))
}

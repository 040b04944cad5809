//! What holds a step back: every rule asked for every step, each with its own words.
//!
//! The leader asks before it proposes, and every voter asks again, by its own ledger and its own view, before it signs
//! ([`super::objection`]). All rules that hold are given, not the first, so that `mesh plan` shows the whole truth.

use super::ladder::{Rung, Stage};
use super::measure::Stop;
use super::policy::Policy;
use super::record::{DAY_MS, Record, Taken};
use super::{Facts, Sight};
use crate::blame::{Canary, Verdict, canary};
use crate::identity::PeerKey;
use crate::mutants::{self, Mutant};
use crate::roster::Roster;
use std::collections::{BTreeMap, BTreeSet};

/// A rule that holds a step back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rule {
    /// Nothing is known of the host.
    Unknown,
    /// The policy says no.
    Off,
    /// A person paused the mesh.
    Paused {
        /// Why.
        reason: String,
        /// For how long.
        left_ms: u64,
    },
    /// Two recoveries of one epoch contend for the mesh.
    Disputed,
    /// Most hosts fail together.
    MeshFault(String),
    /// Nothing has helped lately.
    Storm {
        /// Steps in a row that did not help.
        steps: u64,
        /// For how long healing stays frozen if nobody resumes it.
        left_ms: u64,
    },
    /// A person has blocked or drained the host.
    Held {
        /// Which.
        stop: Stop,
        /// Why.
        reason: String,
        /// For how long.
        left_ms: u64,
    },
    /// Two live starts of its key.
    Suspended,
    /// Another host is being healed.
    Another(PeerKey),
    /// Enough for a day.
    Budget {
        /// Hosts that were healed in the last day.
        healed: usize,
        /// As many as may be.
        allowed: usize,
    },
    /// The last step was not long ago.
    CoolDown {
        /// For how long.
        left_ms: u64,
    },
    /// Its builds make progress.
    Progress,
    /// Too few accuse it.
    OneWord {
        /// Distinct accusers.
        accusers: usize,
        /// As many as it takes.
        needed: u64,
    },
    /// It is well again.
    Recovered,
    /// Its own veto.
    Protected,
    /// Its own veto of reboots.
    NotAllowed,
    /// It might not come back.
    NotAtBoot,
    /// Others would be cut off.
    OnlyPath(Vec<PeerKey>),
    /// The other voters are no majority.
    LastVoters {
        /// Other voters that are up.
        up: usize,
        /// A majority.
        needed: usize,
    },
    /// Too few voters to sign.
    FewSigners {
        /// Other voters that are up.
        up: usize,
    },
    /// Nobody else builds.
    LastBuilder,
    /// The case is not what the step is for.
    OtherCase(Stage),
}

impl Rule {
    /// Whether waiting does not help: then a human is called.
    pub fn is_lasting(&self) -> bool {
        matches!(
            self,
            Rule::Protected | Rule::NotAllowed | Rule::NotAtBoot | Rule::OnlyPath(_) | Rule::FewSigners { .. }
        )
    }

    /// Whether it asks if healing may act by itself; a person need not ask that.
    pub(super) fn is_for_healing_alone(&self) -> bool {
        matches!(
            self,
            Rule::Off
                | Rule::Paused { .. }
                | Rule::MeshFault(_)
                | Rule::Storm { .. }
                | Rule::Held { .. }
                | Rule::OneWord { .. }
                | Rule::Recovered
                | Rule::FewSigners { .. }
        )
    }

    /// Whether it keeps the pace and nothing else.
    pub(super) fn is_pace(&self) -> bool {
        matches!(self, Rule::Budget { .. } | Rule::CoolDown { .. } | Rule::Progress)
    }

    /// In words, with the names that the roster has for the hosts.
    pub fn text(&self, roster: &Roster) -> String {
        let name = |key: &PeerKey| roster.member(key).map_or_else(|| key.short(), |member| member.name.clone());
        match self {
            Rule::Unknown => "nothing is known of it here".into(),
            Rule::Off => "the policy says `heal = off`".into(),
            Rule::Paused { reason, left_ms } => format!("the mesh is paused for {} more: {reason}", span(*left_ms)),
            Rule::Disputed => "two recoveries of one epoch contend for this mesh: see `mesh recover`".into(),
            Rule::MeshFault(text) => text.clone(),
            Rule::Storm { steps, left_ms } => format!(
                "the last {steps} steps did not help: healing is frozen for {} more, or until a person resumes it",
                span(*left_ms)
            ),
            Rule::Held { stop, reason, left_ms } => {
                let stop = if *stop == Stop::Block { "blocked" } else { "drained" };
                format!("a person has {stop} it for {} more: {reason}", span(*left_ms))
            }
            Rule::Suspended => "its identity is suspended: two hosts run under its key".into(),
            Rule::Another(host) => format!("{} is being healed: one host at a time", name(host)),
            Rule::Budget { healed, allowed } => {
                format!("{healed} hosts were healed within a day, {allowed} may be")
            }
            Rule::CoolDown { left_ms } => format!("the last step was not long ago: in {}", span(*left_ms)),
            Rule::Progress => "its builds make progress".into(),
            Rule::OneWord { accusers, needed } => format!("{accusers} hosts say that it is down, it takes {needed}"),
            Rule::Recovered => "it is well again".into(),
            Rule::Protected => "it is protected by its own mesh.toml".into(),
            Rule::NotAllowed => "its own mesh.toml does not allow reboots".into(),
            Rule::NotAtBoot => "it is not known to start the mesh at boot: `mesh install` there".into(),
            Rule::OnlyPath(others) => {
                let others: Vec<String> = others.iter().map(name).collect();
                format!("it is the only path of {}", others.join(", "))
            }
            Rule::LastVoters { up, needed } => format!("{up} other voters are up, {needed} have to be"),
            Rule::FewSigners { up } => {
                format!("{up} other voters are up, two have to sign: a signer has to order by hand")
            }
            Rule::LastBuilder => "no other host would be left that builds".into(),
            Rule::OtherCase(stage) => format!("its case stands at {stage:?} here"),
        }
    }
}

/// A time for people.
pub(crate) fn span(ms: u64) -> String {
    match ms {
        0..60_000 => format!("{} s", ms.div_ceil(1_000)),
        60_000..7_200_000 => format!("{} min", ms.div_ceil(60_000)),
        _ => format!("{} h", ms.div_ceil(3_600_000)),
    }
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Deed {
    /// No more builds.
    Aside,
    /// One build.
    Canary,
    /// An order.
    Order { rung: Rung, by: By },
}

/// Who asks whether an order may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum By {
    /// The plan.
    Plan,
    /// A voter: it is written already, and does not wait for itself.
    Entry,
    /// A person.
    Person,
}

/// All rules that hold a deed back.
pub(super) fn rules(facts: &Facts<'_>, host: &PeerKey, deed: Deed) -> Vec<Rule> {
    let Some(sight) = facts.sights.get(host) else { return vec![Rule::Unknown] };
    let mut found = vec![];
    let mut hold = |rule: Option<Rule>, naive: Mutant| found.extend(rule.filter(|_| !mutants::on(naive)));
    everybodys(facts, host, sight, &mut hold);
    if deed == Deed::Canary {
        return found;
    }
    pace(facts, host, deed, &mut hold);
    health(facts, host, sight, deed, &mut hold);
    match deed {
        Deed::Aside => hold((!facts.others_build(host)).then_some(Rule::LastBuilder), Mutant::HealsLastBuilder),
        Deed::Order { rung, .. } => harm(facts, host, sight, rung, &mut hold),
        Deed::Canary => {}
    }
    found
}

type Hold<'h> = dyn FnMut(Option<Rule>, Mutant) + 'h;

/// What stops all healing, or everything about this host.
fn everybodys(facts: &Facts<'_>, host: &PeerKey, sight: &Sight, hold: &mut Hold<'_>) {
    let (record, now) = (facts.record, facts.now_ms());
    hold((record.policy().heal == 0).then_some(Rule::Off), Mutant::HealsWhenOff);
    let pause =
        record.measures.pause(now).map(|m| Rule::Paused { reason: m.reason.clone(), left_ms: m.until_ms - now });
    hold(pause, Mutant::HealsWhilePaused);
    hold(facts.ledger.disputed().then_some(Rule::Disputed), Mutant::HealsWhileDisputed);
    let fault = facts.verdicts.iter().find(|verdict| matches!(verdict, Verdict::Mesh { .. }));
    hold(fault.map(|v| Rule::MeshFault(v.text(facts.ledger.roster()))), Mutant::HealsThroughMeshFault);
    let held = record.measures.of(host, now);
    let held = held.map(|m| Rule::Held { stop: m.stop, reason: m.reason.clone(), left_ms: m.until_ms - now });
    hold(held, Mutant::HealsHeldHost);
    hold(sight.suspended.then_some(Rule::Suspended), Mutant::HealsSuspended);
}

/// Nothing that was tried lately has helped: healing stands still until a person resumes it, or a while has passed.
pub fn storm(record: &Record, now_ms: u64) -> Option<Rule> {
    let policy = record.policy();
    // What was tried and did not help, newest first, until something did.
    let since_ms = record.cleared_ms();
    let tries = record.steps(now_ms).rev().filter(|step| step.rung >= Rung::Restart && step.at_ms > since_ms);
    let row: Vec<&Taken> = tries.filter(|step| step.helped.is_some()).take_while(|s| s.helped == Some(false)).collect();
    let until_ms = row.first().map_or(0, |newest| newest.at_ms.saturating_add(policy.quiet_ms));
    let storm = row.len() as u64 >= policy.storm && until_ms > now_ms;
    storm.then_some(Rule::Storm { steps: row.len() as u64, left_ms: until_ms.saturating_sub(now_ms) })
}

/// Not too many, and not too fast.
fn pace(facts: &Facts<'_>, host: &PeerKey, deed: Deed, hold: &mut Hold<'_>) {
    let (record, now) = (facts.record, facts.now_ms());
    let policy = record.policy();
    let member = |key: &PeerKey| facts.ledger.roster().is_member(key);

    hold(storm(record, now), Mutant::HealsThroughStorm);

    let mut others = record.cases().filter(|(key, case)| *key != host && case.stage.is_open() && member(key));
    hold(others.next().map(|(other, _)| Rule::Another(*other)), Mutant::HealsManyAtOnce);

    // What sets aside does nothing to the host: a person waits for restarts and reboots alone.
    let person = matches!(deed, Deed::Order { by: By::Person, .. });
    let counts = |step: &&Taken| !person || step.rung > Rung::Aside;
    let steps = || record.steps(now).filter(counts);
    // Who was only down for a moment was not healed: else one power cut would take the day's budget.
    let others = steps().filter(|step| step.host != *host && !step.idle);
    let healed: BTreeSet<PeerKey> = others.map(|step| step.host).collect();
    let allowed = (facts.ledger.roster().len() * policy.budget_percent as usize / 100).max(1);
    let spent = healed.len() >= allowed;
    hold(spent.then_some(Rule::Budget { healed: healed.len(), allowed }), Mutant::HealsBeyondBudget);

    let written = matches!(deed, Deed::Order { by: By::Entry, .. });
    let own = steps().rev().filter(|s| s.host == *host).skip(usize::from(written));
    let left_ms = cool_until(policy, own).saturating_sub(now);
    hold((left_ms > 0).then_some(Rule::CoolDown { left_ms }), Mutant::HealsWithoutCoolDown);
}

/// Until when the next step on a host waits, after these steps on it, newest first; 0 without any.
fn cool_until<'a>(policy: &Policy, own: impl Iterator<Item = &'a Taken>) -> u64 {
    let own: Vec<&Taken> = own.collect();
    let Some(last) = own.first() else { return 0 };
    let doublings = (own.len() - 1).min(32) as u32;
    let wait_ms = policy.cool_ms.saturating_mul(1 << doublings).min(policy.cool_ms_max.max(policy.cool_ms));
    last.at_ms.saturating_add(wait_ms)
}

/// When cool-downs end, and days after which a step counts no more: what is held back until then is due then.
pub(crate) fn pace_ends(record: &Record, now_ms: u64) -> Vec<u64> {
    let mut own: BTreeMap<PeerKey, Vec<&Taken>> = BTreeMap::new();
    for step in record.steps(now_ms).rev() {
        own.entry(step.host).or_default().push(step);
    }
    let days = record.steps(now_ms).map(|step| step.at_ms.saturating_add(DAY_MS));
    let cool = own.into_values().map(|steps| cool_until(record.policy(), steps.into_iter()));
    days.chain(cool).filter(|end| *end > now_ms).collect()
}

/// The host as it is at this moment.
fn health(facts: &Facts<'_>, host: &PeerKey, sight: &Sight, deed: Deed, hold: &mut Hold<'_>) {
    let case = facts.record.case(host);
    // A busy host may well be set aside for what fails on it; one that is said to be down, and builds, is not down.
    let busy = sight.progress && (deed != Deed::Aside || sight.down);
    hold(busy.then_some(Rule::Progress), Mutant::HealsProgressing);
    let well = match deed {
        Deed::Aside => false,
        _ if case.is_some_and(|case| case.down) => !sight.down,
        _ => case.is_some_and(|c| matches!(canary(facts.ledger, host, c.since_ms), Canary::Passed(_))),
    };
    hold(well.then_some(Rule::Recovered), Mutant::HealsTheRecovered);
    let accusers = sight.accusers.iter().filter(|by| *by != host && facts.ledger.roster().is_member(by)).count();
    let needed = facts.record.policy().observers.max(2);
    let too_few = sight.down && (accusers as u64) < needed;
    hold(too_few.then_some(Rule::OneWord { accusers, needed }), Mutant::HealsOnOneWord);
}

/// What an order would do to the host and to others.
fn harm(facts: &Facts<'_>, host: &PeerKey, sight: &Sight, rung: Rung, hold: &mut Hold<'_>) {
    hold(sight.protected.then_some(Rule::Protected), Mutant::HealsProtected);
    if rung == Rung::Reboot {
        hold((!sight.allow_reboot).then_some(Rule::NotAllowed), Mutant::HealsNotAllowed);
        hold((sight.boot_enabled != Some(true)).then_some(Rule::NotAtBoot), Mutant::HealsNotEnabledAtBoot);
    }
    let cut_off = !sight.only_path_of.is_empty();
    hold(cut_off.then(|| Rule::OnlyPath(sight.only_path_of.clone())), Mutant::HealsOnlyPath);
    let chain = facts.ledger.voters();
    let up = chain.voters().iter().filter(|voter| *voter != host && facts.is_up(voter)).count();
    let last = chain.voters().contains(host) && up < chain.majority();
    hold(last.then_some(Rule::LastVoters { up, needed: chain.majority() }), Mutant::HealsLastVoters);
    hold((up < 2).then_some(Rule::FewSigners { up }), Mutant::HealsWithoutSigners);
}

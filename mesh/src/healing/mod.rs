//! Healing: from blame and the view to steps, one host at a time, and what holds each step back.
//!
//! The ladder ([`Stage`]): set aside, canary, restart of the service, reboot, a human. [`plan`] says what the leader
//! would do now, and for every host that needs something which rules hold it back, in words; it decides nothing that
//! the ledger does not hold: its [`Step`]s become entries, and an order a warrant that every voter examines by
//! [`objection`] with its own view. [`Record`] is what the ledger remembers. Nothing here acts, sends, or asks a clock:
//! time is the ledger's. Whose fault something is, is [`crate::blame`]'s; whether a host obeys, is its own
//! ([`crate::warrant`]).

mod archive;
mod audit;
mod entry;
mod ladder;
mod measure;
mod policy;
mod record;
mod rules;

pub use archive::{Archive, Chapter, Part, PartError, Parts, due as archive_due, read_part};
pub use audit::{Audit, Kind, Line, Remark, Told};
pub use entry::{Author, Clear, Denied, Entry, Lift, Proof, Withdraw, Written};
pub use ladder::{Event, Phase, Rung, Stage};
pub use measure::{Measure, MeasureError, Measures, Stop};
pub use policy::{Policy, PolicyError};
pub use record::{Case, Change, ChangeError, DAY_MS, Pending, Record, Taken};
pub use rules::{Rule, storm};
pub(crate) use rules::{pace_ends, span};

use crate::blame::{Canary, Verdict, canary, failure, next_canary};
use crate::build::BuildId;
use crate::identity::PeerKey;
use crate::ledger::Ledger;
use crate::limits::{CANARY_COUNTS_MS, FLAPS_FORGIVEN};
use crate::mutants::{self, Mutant};
use crate::order::{Act, BootId, Gently};
use crate::placement::{HostNow, View, can_run};
use crate::restraint::kept;
use crate::roster::Roster;
use crate::warrant::OrderId;
use rules::{By, Deed, rules};
use std::collections::{BTreeMap, BTreeSet};

/// What one host, leader or voter, sees of another now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sight {
    /// Declared down by the rules of membership, with nobody's fresh word against it.
    pub down: bool,
    /// Whose signed accusations stand.
    pub accusers: BTreeSet<PeerKey>,
    /// A build of its has made progress lately: output, or an end.
    pub progress: bool,
    /// Two live starts of its key.
    pub suspended: bool,
    /// Its present boot.
    pub boot: BootId,
    /// Its present start number.
    pub start: u64,
    /// Whether its service starts with the machine, when that can be told.
    pub boot_enabled: Option<bool>,
    /// `allow_reboot`, as it says.
    pub allow_reboot: bool,
    /// `protected`, as it says.
    pub protected: bool,
    /// Members that are reached through it and in no other way.
    pub only_path_of: Vec<PeerKey>,
    /// How often it has come back from being down in the last ten minutes.
    pub flaps: usize,
}

/// Everything that a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Who asks: it is up.
    pub me: PeerKey,
    /// Its ledger.
    pub ledger: &'a Ledger,
    /// The ledger's part of healing.
    pub record: &'a Record,
    /// What [`crate::blame::judge`] says of that ledger.
    pub verdicts: &'a [Verdict],
    /// What it believes of the hosts as builders.
    pub view: &'a View,
    /// What it sees of the hosts.
    pub sights: &'a BTreeMap<PeerKey, Sight>,
}

impl Facts<'_> {
    fn now_ms(&self) -> u64 {
        self.ledger.time_ms()
    }

    /// Whether a host is up beyond doubt.
    fn is_up(&self, host: &PeerKey) -> bool {
        let sight = self.sights.get(host);
        *host == self.me || sight.is_some_and(|s| !s.down && s.accusers.is_empty() && !s.suspended)
    }

    /// Whether builds could go to somebody else than this host.
    fn others_build(&self, host: &PeerKey) -> bool {
        let builds = |(other, now): (&PeerKey, &HostNow)| {
            other != host && now.alive && now.cores > 0 && self.record.stage(other) == Stage::Well
        };
        self.view.iter().any(builds)
    }

    fn blamed(&self, host: &PeerKey) -> Option<&Verdict> {
        self.verdicts.iter().find(|v| matches!(v, Verdict::Host { host: blamed, .. } if blamed == host))
    }
}

/// What is to be done about a host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// No more builds: an entry with this event ([`Event::Blamed`] or [`Event::Down`]).
    SetAside(Event),
    /// Give it this build: an assignment, and an entry with [`Event::Given`].
    Canary(BuildId),
    /// Order the next rung: an order, and an entry with [`Event::Ordered`].
    Order(Rung),
    /// Call a human: an entry with [`Event::HandedOver`].
    HandOver,
    /// Note what has happened: an entry with this event.
    Note(Event),
    /// Take an order back that reached nobody: [`Entry::Withdraw`].
    Withdraw(OrderId),
}

/// Something that would be done now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// To whom.
    pub host: PeerKey,
    /// What.
    pub what: What,
    /// Why, in words.
    pub why: String,
}

/// Something that is due and not done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// To whom.
    pub host: PeerKey,
    /// What.
    pub what: What,
    /// By which rules.
    pub rules: Vec<Rule>,
}

impl Held {
    /// In words, with the names that the roster has for the hosts.
    pub fn text(&self, roster: &Roster) -> String {
        let name = roster.member(&self.host).map_or_else(|| self.host.short(), |member| member.name.clone());
        let rules: Vec<String> = self.rules.iter().map(|rule| rule.text(roster)).collect();
        format!("{name}: {} is held back: {}", self.what, rules.join("; "))
    }
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            What::SetAside(_) => f.write_str("setting it aside"),
            What::Canary(build) => write!(f, "a canary build ({build})"),
            What::Order(rung) => write!(f, "a {rung}"),
            What::HandOver => f.write_str("calling a human"),
            What::Note(event) => write!(f, "noting `{event:?}`"),
            What::Withdraw(order) => write!(f, "taking back {order}, which reached nobody"),
        }
    }
}

/// What would be done now, and what holds the rest back.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// In the order of the hosts' keys. At most one of them is a deed ([`What::SetAside`] or [`What::Order`]).
    pub steps: Vec<Step>,
    /// Likewise.
    pub held: Vec<Held>,
}

/// What a leader with these facts does now.
pub fn plan(facts: &Facts<'_>) -> Plan {
    let mut plan = Plan::default();
    // A case that is open goes before one that would be opened.
    let members = || facts.ledger.roster().members().map(|(key, _)| *key);
    let open = |host: &PeerKey| facts.record.stage(host).is_open();
    for host in members().filter(open).chain(members().filter(|host| !open(host))) {
        let Some((what, why)) = due(facts, &host) else { continue };
        let deed = match what {
            What::SetAside(_) => Deed::Aside,
            What::Canary(_) => Deed::Canary,
            What::Order(rung) => Deed::Order { rung, by: By::Plan },
            What::HandOver | What::Note(_) | What::Withdraw(_) => {
                plan.steps.push(Step { host, what, why });
                continue;
            }
        };
        let mut holding = rules(facts, &host, deed);
        let busy = |s: &&Step| matches!(s.what, What::SetAside(_) | What::Order(_));
        if deed != Deed::Canary
            && !mutants::on(Mutant::HealsManyAtOnce)
            && let Some(other) = plan.steps.iter().find(busy)
        {
            holding.push(Rule::Another(other.host));
        }
        if holding.is_empty() {
            plan.steps.push(Step { host, what, why });
            continue;
        }
        // Where waiting does not help, a person has to.
        if matches!(deed, Deed::Order { .. }) && holding.iter().any(Rule::is_lasting) && !stopped(&holding) {
            let lasting: Vec<String> =
                holding.iter().filter(|r| r.is_lasting()).map(|r| r.text(facts.ledger.roster())).collect();
            let why = format!("{why}; a {} is not possible: {}", name_of(what), lasting.join("; "));
            plan.steps.push(Step { host, what: What::HandOver, why });
        }
        plan.held.push(Held { host, what, rules: holding });
    }
    plan
}

/// Whether healing as a whole stands still, or the host still has its time: then nobody is called either. A network that
/// comes back within the cool-down takes away what looked as if it would last.
fn stopped(rules: &[Rule]) -> bool {
    let stops = |rule: &Rule| {
        matches!(rule, Rule::Off | Rule::Paused { .. } | Rule::MeshFault(_) | Rule::Recovered | Rule::CoolDown { .. })
    };
    rules.iter().any(stops)
}

fn name_of(what: What) -> String {
    if let What::Order(rung) = what { rung.to_string() } else { what.to_string() }
}

/// What the ladder has next for a host, whatever holds it back.
fn due(facts: &Facts<'_>, host: &PeerKey) -> Option<(What, String)> {
    let sight = facts.sights.get(host);
    let down = sight.is_some_and(|s| s.down);
    let said = |event, why: &str| Some((What::Note(event), why.to_owned()));
    let Some(case) = facts.record.case(host) else {
        if down {
            return Some((What::SetAside(Event::Down), "it is down".into()));
        }
        let verdict = facts.blamed(host)?;
        return Some((What::SetAside(Event::Blamed), verdict.text(facts.ledger.roster())));
    };
    let (now, policy) = (facts.now_ms(), facts.record.policy());
    match case.stage {
        Stage::Well | Stage::Human => None,
        Stage::On(_, Phase::CanaryDue) if down => said(Event::Down, "it is down"),
        Stage::On(_, Phase::CanaryDue) if now >= case.since_ms.saturating_add(policy.aside_ms) => {
            said(Event::Lapsed, "no build came that could have said whether it is well; it gets builds again")
        }
        Stage::On(_, Phase::CanaryDue) if canary(facts.ledger, host, case.since_ms) != Canary::Wanted => {
            said(Event::Given, "it was given a canary")
        }
        Stage::On(rung, Phase::CanaryDue) if let Some(up_ms) = proved_by_itself(facts, host, case, rung) => {
            let why = format!("it was down and nothing else, and has been up for {}", span(up_ms));
            Some((What::Note(Event::Returned), why))
        }
        Stage::On(_, Phase::CanaryDue) if case.is_returning(now) => None,
        Stage::On(_, Phase::CanaryDue) => {
            let builder = facts.view.get(host)?;
            let build = next_canary(facts.ledger, host, |spec| can_run(builder, spec))?;
            Some((What::Canary(build), case.why.clone()))
        }
        Stage::On(_, Phase::Trial) if down => said(Event::Down, "it is down"),
        Stage::On(_, Phase::Trial) => match canary(facts.ledger, host, case.since_ms) {
            Canary::Passed(e) => Some((What::Note(Event::Passed), format!("its canary {e} was built"))),
            Canary::Failed(e) => {
                Some((What::Note(Event::Failed), format!("its canary {e} failed, and that is its own fault")))
            }
            Canary::Running(_) => None,
            Canary::Wanted => said(Event::Vanished, "its canary ended and said nothing"),
        },
        Stage::On(_, Phase::Spent)
            if case.down && !down && sight.is_some() && !mutants::on(Mutant::HealsTheRecovered) =>
        {
            said(Event::Recovered, "it is back by itself")
        }
        // All that is known against it is what failed there at that time: an order that ended without proof says nothing.
        Stage::On(_, Phase::Spent)
            if !(down || case.down)
                && sight.is_some()
                && now >= last_failure_ms(facts.ledger, host).min(case.since_ms).saturating_add(CANARY_COUNTS_MS)
                && !mutants::on(Mutant::HealsOnOldWord) =>
        {
            said(Event::Outdated, "what was known against it is an hour old")
        }
        Stage::On(rung, Phase::Spent) => Some(match rung.next() {
            Some(next) => (What::Order(next), case.why.clone()),
            None => (What::HandOver, format!("a {rung} did not help: {}", case.why)),
        }),
        Stage::On(..) => {
            let (rung, order) = record::acting(case)?;
            let proved = sight.is_some_and(|s| !s.down && is_proof(rung, (order.boot, order.start), s.boot, s.start));
            let lost = facts.ledger.leader().is_some_and(|(_, fence)| facts.record.is_lost(host, &order.id, fence));
            match proved {
                false if lost && !mutants::on(Mutant::LostOrdersClimb) => {
                    Some((What::Withdraw(order.id), case.why.clone()))
                }
                true => Some((What::Note(Event::Proved), format!("it has come back from its {rung}"))),
                false if now > order.until_ms => {
                    said(Event::Expired, "the order ended without proof that it was carried out")
                }
                false => None,
            }
        }
    }
}

/// For how long a host has been up that was down and nothing else, when that is long enough to need no canary: a canary
/// is for what builds have to say of a host, and they have said nothing against this one. One that comes and goes, or that
/// somebody misses, is tried out all the same; one that had to be healed stays up for a cool-down first.
fn proved_by_itself(facts: &Facts<'_>, host: &PeerKey, case: &record::Case, rung: Rung) -> Option<u64> {
    let sight = facts.sights.get(host)?;
    let steady = sight.accusers.is_empty() && !sight.suspended && sight.flaps <= FLAPS_FORGIVEN;
    let needed_ms = record::up_needed_ms(rung, facts.record.policy());
    let up_ms = facts.now_ms().saturating_sub(case.since_ms);
    let clean = !case.blamed && facts.blamed(host).is_none();
    ((clean && steady) || mutants::on(Mutant::ReturnIsHealth)).then_some(up_ms).filter(|up_ms| *up_ms >= needed_ms)
}

/// When a build last failed on a host, as far as the ledger remembers.
fn last_failure_ms(ledger: &Ledger, host: &PeerKey) -> u64 {
    let its = ledger.builds().iter().flat_map(|build| &build.attempts).filter(|attempt| attempt.host == *host);
    its.filter(|attempt| failure(attempt).is_some()).map(|attempt| attempt.ended_ms).max().unwrap_or(0)
}

/// A reboot is proved by another boot, a restart by a higher start number as well (rule 7).
fn is_proof(rung: Rung, meant: (BootId, u64), boot: BootId, start: u64) -> bool {
    boot != meant.0 || (rung == Rung::Restart && start > meant.1)
}

/// What is ordered on a rung; `None` for setting aside, which needs no order.
pub fn act(rung: Rung, policy: &Policy) -> Option<Act> {
    let gently = Gently { grace_ms: policy.grace_ms };
    match rung {
        Rung::Aside => None,
        Rung::Restart => Some(Act::Restart(gently)),
        Rung::Reboot => Some(Act::Reboot(gently)),
    }
}

/// What a voter has against signing an order of the leader, by its own ledger and its own view, just before it is
/// carried out; `None` when nothing. For [`crate::warrant::Own::held_back`].
pub fn objection(facts: &Facts<'_>, host: &PeerKey, id: OrderId, act: Act) -> Option<String> {
    let stage = facts.record.stage(host);
    let pending = facts.record.case(host).and_then(record::acting);
    let asked = if act.is_reboot() { Rung::Reboot } else { Rung::Restart };
    let ours = pending.is_some_and(|(rung, order)| rung == asked && order.id == id && facts.now_ms() <= order.until_ms);
    let holding = match ours {
        true => rules(facts, host, Deed::Order { rung: asked, by: By::Entry }),
        false => vec![Rule::OtherCase(stage)],
    };
    let texts: Vec<String> = holding.iter().map(|rule| rule.text(facts.ledger.roster())).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// What holds back an order that a person gives by hand. Whether healing may act by itself is not asked, nor what others
/// say of the host; what would do harm is. `force` overrides what only keeps the pace: budget, cool-down, running builds.
pub fn by_hand(facts: &Facts<'_>, host: &PeerKey, act: Act, force: bool) -> Vec<Rule> {
    let rung = if act.is_reboot() { Rung::Reboot } else { Rung::Restart };
    let passed = |rule: &Rule| rule.is_for_healing_alone() || (force && rule.is_pace());
    rules(facts, host, Deed::Order { rung, by: By::Person }).into_iter().filter(|rule| !passed(rule)).collect()
}

/// Why a host gets no builds now, in words; `None` when it may. Placement keeps it by [`crate::restraint`].
pub fn no_builds(facts: &Facts<'_>, host: &PeerKey) -> Option<String> {
    let now = facts.now_ms();
    if let Some(m) = facts.record.measures.pause(now) {
        return Some(format!("paused for {} more: {}", span(m.until_ms - now), m.reason));
    }
    kept(facts.ledger, facts.record, facts.verdicts, host).map(|kept| kept.why)
}

#[cfg(test)]
mod journey_tests;
#[cfg(test)]
mod return_tests;
#[cfg(test)]
mod rule_tests;
#[cfg(test)]
pub(crate) mod tests;

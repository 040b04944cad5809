//! What the ledger remembers of healing: the policy, measures, orders, open cases, and the steps of the
//! last day.
//!
//! Part of the replicated state: changed by committed entries alone, at ledger time, alike on every host. It keeps the
//! ladder ([`Stage::after`]) and its own bounds, and judges nothing else: whether a step should be taken is asked of
//! [`super::plan`] by the leader before, and by every voter before it signs.

use super::archive::Parts;
use super::audit::Audit;
use super::entry::Written;
use super::ladder::{Event, Phase, Rung, Stage};
use super::measure::Measures;
use super::policy::Policy;
use crate::identity::PeerKey;
use crate::limits::{HEAL_STEPS_MAX, RETURNED_MS};
use crate::order::BootId;
use crate::roster::cut;
use crate::warrant::OrderId;
use serde::{Deserialize, Serialize};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
use std::collections::{BTreeMap, VecDeque};

/// How long a step counts for budget and cool-down, in milliseconds.
pub const DAY_MS: u64 = 24 * 3_600_000;

/// An order that a case waits for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Pending {
    /// Its name.
    pub id: OrderId,
    /// The boot that it was meant for; a reboot is proved by another one.
    pub boot: BootId,
    /// The start number that it was meant for; a restart is proved by a higher one.
    pub start: u64,
    /// Ledger time until which it may be proved.
    pub until_ms: u64,
}

/// A host that is not well.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Case {
    /// Where it stands.
    pub stage: Stage,
    /// Whether it was down when last noted, and has not been back since.
    pub down: bool,
    /// Whether builds have spoken against it in this case; else all that is known against it is that it was down.
    #[serde(default)]
    pub blamed: bool,
    /// Ledger time of its stage; while a canary is out, of when it was due.
    pub since_ms: u64,
    /// Why it stands there, in words.
    pub why: String,
    /// What it waits for, while acting.
    pub order: Option<Pending>,
}

impl Case {
    /// Whether a host that was merely down has just come back: it is let back in a moment if it stays up, and a canary that
    /// takes hours would only keep it. When nothing has come of that after twice the time, it is tried out.
    pub(crate) fn is_returning(&self, now_ms: u64) -> bool {
        let back = self.stage == Stage::On(Rung::Aside, Phase::CanaryDue);
        back && !self.blamed && now_ms < self.since_ms.saturating_add(2 * RETURNED_MS)
    }

    /// The ledger time at which something about a host that waits for its canary is next decided by time alone; what else
    /// may happen to it moves ledger time by itself. `None` for a host whose state is to be looked at again and again.
    pub(crate) fn waits_until_ms(&self, policy: &Policy, now_ms: u64) -> Option<u64> {
        let Stage::On(rung, Phase::CanaryDue) = self.stage else { return None };
        let ends = [up_needed_ms(rung, policy), 2 * RETURNED_MS, policy.aside_ms]
            .map(|after| self.since_ms.saturating_add(after));
        ends.into_iter().filter(|end| *end > now_ms).min()
    }
}

/// How long a host has to be up to need no canary: one that had to be healed stays up for a cool-down.
pub(super) fn up_needed_ms(rung: Rung, policy: &Policy) -> u64 {
    if rung == Rung::Aside { RETURNED_MS } else { policy.cool_ms }
}

/// Something that was done to a host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Taken {
    /// To whom.
    pub host: PeerKey,
    /// What.
    pub rung: Rung,
    /// Ledger time.
    pub at_ms: u64,
    /// Whether it helped; `None` while nobody can say.
    pub helped: Option<bool>,
    /// Whether it was for nothing: the host was set aside while it was down, and came back by itself before anything was
    /// done to it. It counts for no budget.
    #[serde(default)]
    pub idle: bool,
}

/// A change of a case, as an entry of the leader brings it; a person's entry clears.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Change {
    /// Whose.
    pub host: PeerKey,
    /// What happens to it.
    pub event: Event,
    /// Why, in words.
    pub why: String,
    /// With [`Event::Ordered`] and with nothing else: the order.
    pub order: Option<Pending>,
}

/// Why a change was refused. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChangeError {
    /// Not in the table.
    #[error("{event:?} cannot follow {stage:?}")]
    Illegal {
        /// Where the host stands.
        stage: Stage,
        /// What was to happen.
        event: Event,
    },
    /// An order without its event, or the event without an order.
    #[error("an order comes with its event, and with no other")]
    Order,
    /// Nobody says why.
    #[error("a change of a host's case has a reason")]
    Reason,
    /// A policy that is out of its ranges.
    #[error("the policy has a value out of its range; see `mesh policy`")]
    Policy,
}

/// All that the ledger remembers of healing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    policy: Policy,
    /// Blocks, drains and pauses.
    pub measures: Measures,
    cases: BTreeMap<PeerKey, Case>,
    steps: VecDeque<Taken>,
    cleared_ms: u64,
    pub(super) orders: VecDeque<Written>,
    #[serde(default)]
    pub(super) audit: Audit,
    #[serde(default)]
    pub(super) parts: Parts,
    /// Bytes of parts that were put away just now, for whoever keeps them.
    #[serde(skip)]
    pub(super) put_away: Vec<Vec<u8>>,
}

impl Record {
    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Sets the policy.
    ///
    /// # Errors
    /// [`ChangeError::Policy`]; the policy is as before.
    pub fn set_policy(&mut self, policy: Policy) -> Result<(), ChangeError> {
        if !policy.is_sound() {
            return Err(ChangeError::Policy);
        }
        self.policy = policy;
        Ok(())
    }

    /// Where a host stands.
    pub fn stage(&self, host: &PeerKey) -> Stage {
        self.cases.get(host).map_or(Stage::Well, |case| case.stage)
    }

    /// The case of a host that is not well.
    pub fn case(&self, host: &PeerKey) -> Option<&Case> {
        self.cases.get(host)
    }

    /// All hosts that are not well.
    pub fn cases(&self) -> impl Iterator<Item = (&PeerKey, &Case)> {
        self.cases.iter()
    }

    /// What was done in the last day, oldest first.
    pub fn steps(&self, now_ms: u64) -> impl DoubleEndedIterator<Item = &Taken> {
        self.steps.iter().filter(move |step| step.at_ms.saturating_add(DAY_MS) > now_ms)
    }

    /// When a person last cleared a host: a storm ends with it.
    pub fn cleared_ms(&self) -> u64 {
        self.cleared_ms
    }

    /// A host is out of the mesh: it has no case any more, and nothing holds it. The trail keeps its story.
    pub fn forget(&mut self, host: &PeerKey) {
        self.cases.remove(host);
        self.measures.forget(host);
    }

    /// What happened, oldest first.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// What of it was put away.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The bytes of the parts that were put away since somebody last asked.
    pub(crate) fn take_put_away(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.put_away)
    }

    /// A person says that healing may go on: a storm is over.
    pub fn resume(&mut self, now_ms: u64) {
        self.cleared_ms = now_ms;
    }

    /// Changes a case.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing is changed.
    pub fn change(&mut self, change: Change, now_ms: u64) -> Result<Stage, ChangeError> {
        let Change { host, event, why, order } = change;
        let stage = self.stage(&host);
        if why.is_empty() {
            return Err(ChangeError::Reason);
        }
        if (event == Event::Ordered) != order.is_some() {
            return Err(ChangeError::Order);
        }
        let next = stage.after(event).ok_or(ChangeError::Illegal { stage, event })?;
        match (event, next) {
            (Event::Blamed | Event::Down, Stage::On(rung, _)) if stage == Stage::Well => self.step(host, rung, now_ms),
            (Event::Ordered, Stage::On(rung, _)) => self.step(host, rung, now_ms),
            (Event::Passed, _) => self.conclude(&host, true),
            (Event::Returned, _) => self.returned(&host, stage),
            (Event::Failed | Event::Expired, _) => self.conclude(&host, false),
            // Down again after its restart: that did not help.
            (Event::Down, _) => self.conclude(&host, false),
            (Event::Cleared, _) => self.cleared_ms = now_ms,
            (Event::Withdrawn, _) => self.take_back(&host, stage),
            _ => {}
        }
        if next == Stage::Well {
            self.cases.remove(&host);
        } else {
            let before = self.cases.get(&host);
            let down = match event {
                Event::Down => true,
                Event::Recovered | Event::Proved => false,
                _ => before.is_some_and(|case| case.down),
            };
            let blamed = matches!(event, Event::Blamed | Event::Failed) || before.is_some_and(|case| case.blamed);
            // A canary is looked for from when it was due, whether it was given before or after its entry.
            let since_ms = match (event, before) {
                (Event::Given | Event::Vanished, Some(case)) => case.since_ms,
                _ => now_ms,
            };
            self.cases.insert(host, Case { stage: next, down, blamed, since_ms, why: cut(&why), order });
        }
        Ok(next)
    }

    pub(super) fn step(&mut self, host: PeerKey, rung: Rung, now_ms: u64) {
        self.steps.retain(|step| step.at_ms.saturating_add(DAY_MS) > now_ms);
        self.steps.push_back(Taken { host, rung, at_ms: now_ms, helped: None, idle: false });
        if self.steps.len() > HEAL_STEPS_MAX {
            self.steps.pop_front();
        }
    }

    /// The step that a host's case is at was never taken: it counts for no budget, cool-down or storm.
    fn take_back(&mut self, host: &PeerKey, stage: Stage) {
        let Some(case) = self.cases.get(host) else { return };
        let its = |s: &Taken| {
            s.host == *host && s.at_ms == case.since_ms && matches!(stage, Stage::On(rung, _) if rung == s.rung)
        };
        if let Some(at) = self.steps.iter().rposition(its) {
            self.steps.remove(at);
        }
    }

    /// A host has come back: by itself, or because of what was done.
    fn returned(&mut self, host: &PeerKey, stage: Stage) {
        let aside = stage == Stage::On(Rung::Aside, Phase::CanaryDue);
        match self.steps.iter_mut().rev().find(|step| step.host == *host) {
            Some(last) if aside && last.rung == Rung::Aside => last.idle = true,
            _ => self.conclude(host, true),
        }
    }

    /// The last step on a host has helped, or not.
    fn conclude(&mut self, host: &PeerKey, helped: bool) {
        if let Some(last) = self.steps.iter_mut().rev().find(|step| step.host == *host) {
            last.helped.get_or_insert(helped);
        }
    }
}

/// Whether a case waits for its order.
pub(super) fn acting(case: &Case) -> Option<(Rung, &Pending)> {
    match (case.stage, &case.order) {
        (Stage::On(rung, Phase::Acting), Some(order)) => Some((rung, order)),
        _ => None,
    }
}

//! The leader's healing, and a voter's second look: [`mesh::healing`] joined to the cores.
//!
//! The plan's first step becomes entries of the ledger; an order that stands there, with its case, is brought by
//! `orders.rs`. What a host sees of another is what its membership believes; a voter that is asked to sign asks the same
//! rules again, by its own ledger and its own sights.

use super::host::{Env, Process};
use super::orders::{ORDER_MS, order_id};
use mesh::blame::Verdict;
use mesh::build::{Attempt, End};
use mesh::healing::{self, Change, Event, Facts, Pending, Policy, Sight, What, act, objection};
use mesh::identity::PeerKey;
use mesh::lease::Fence;
use mesh::ledger::{Assign, Assignment, Command};
use mesh::membership::State;
use mesh::order::BootId;
use mesh::warrant::{Authority, Order};
use mesh::wire::Signed;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A build that ended well so shortly before is progress, in milliseconds.
const PROGRESS_MS: u64 = 30_000;

/// What a run heals by: as quick as a policy may be, for a run lasts minutes and not days.
pub fn policy() -> Policy {
    Policy {
        budget_percent: 50,
        cool_ms: 60_000,
        cool_ms_max: 60_000,
        quiet_ms: 600_000,
        aside_ms: 600_000,
        proof_ms: 60_000,
        grace_ms: 500,
        ..Policy::default()
    }
}

impl Process {
    /// What this host sees of the others now.
    fn sights(&self, env: &Env<'_>) -> BTreeMap<PeerKey, Sight> {
        let now_ms = self.ledger.time_ms();
        let progress = |peer: &PeerKey| {
            self.ledger.builds().iter().flat_map(|b| &b.attempts).any(|a| {
                let done = a.outcome().is_some_and(|o| o.end == End::Done);
                a.host == *peer && done && a.ended_ms + PROGRESS_MS > now_ms
            })
        };
        let sight = |(peer, host): (&PeerKey, std::borrow::Cow<'_, mesh::membership::HostView>)| {
            let presence = host.presence.as_ref()?;
            let down = host.state == State::Down;
            let accusers = self.members.accusations(peer).filter(|heard| heard.ended.is_none());
            let seen = Sight {
                down,
                accusers: accusers.map(|heard| heard.accuser).collect(),
                progress: down && progress(peer),
                suspended: host.cloned,
                boot: BootId(presence.boot_id),
                start: presence.start,
                boot_enabled: presence.facts.boot_enabled,
                allow_reboot: presence.facts.allow_reboot,
                protected: presence.facts.protected,
                only_path_of: vec![],
                flaps: self.members.flaps(peer, env.own()),
            };
            Some((*peer, if *peer == self.me { Sight { down: false, ..seen } } else { seen }))
        };
        let mut all: BTreeMap<PeerKey, Sight> = self.members.hosts().filter_map(sight).collect();
        // Of itself a host knows more than what it last told the others.
        if let Some(own) = all.get_mut(&self.me) {
            (own.boot, own.start) = (env.m.boot(), self.start);
        }
        all
    }

    /// What blame says of the ledger as it is.
    pub(super) fn verdicts(&mut self, env: &Env<'_>) -> Arc<[Verdict]> {
        let now = self.now(env);
        self.judge.verdicts(&self.ledger, now)
    }

    fn facts<R>(&mut self, env: &Env<'_>, look: impl FnOnce(&Facts<'_>) -> R) -> R {
        let (verdicts, sights) = (self.verdicts(env), self.sights(env));
        let (ledger, view) = (&self.ledger, &self.view);
        look(&Facts { me: self.me, ledger, record: ledger.healing(), verdicts: &verdicts, view, sights: &sights })
    }

    /// What this voter's own healing says against an order.
    pub(super) fn objection(&mut self, env: &Env<'_>, order: &Order) -> Option<String> {
        self.facts(env, |facts| objection(facts, &order.target, order.id, order.act))
    }

    /// The first thing that is to be done: an order to be brought, or entries for the ledger.
    pub(super) fn heal(&mut self, env: &mut Env<'_>, fence: Fence) -> Vec<Command> {
        if let Some(signed) = self.order_to_bring(fence) {
            self.bring(env, signed);
            return vec![];
        }
        let quiet = self.ledger.healing().cases().next().is_none();
        if quiet && self.nobody_is_down() && self.verdicts(env).is_empty() {
            return vec![];
        }
        let Some(step) = self.facts(env, healing::plan).steps.into_iter().next() else { return vec![] };
        let (host, why) = (step.host, step.why);
        let change =
            |event, order| Command::Heal(healing::Entry::Change(Change { host, event, why: why.clone(), order }));
        match step.what {
            What::SetAside(event) | What::Note(event) => vec![change(event, None)],
            What::HandOver => vec![change(Event::HandedOver, None)],
            What::Withdraw(order) => {
                vec![Command::Heal(healing::Entry::Withdraw(healing::Withdraw { host, order, why: why.clone() }))]
            }
            What::Canary(build) => {
                let found = self.ledger.builds().get(build).zip(self.view.get(&host));
                let Some((found, now)) = found else { return vec![] };
                let attempt = Attempt(found.attempts.len() as u32 + 1);
                let attempts = vec![Assignment { build, attempt, host, start: now.start }];
                vec![Command::Assign(Assign { attempts }), change(Event::Given, None)]
            }
            What::Order(rung) => {
                let policy = *self.ledger.healing().policy();
                let (Some(act), Some(sight)) = (act(rung, &policy), self.sights(env).remove(&host)) else {
                    return vec![];
                };
                let now_ms = self.ledger.time_ms();
                let order = Order {
                    mesh: self.mesh,
                    id: order_id(env),
                    target: host,
                    boot: sight.boot,
                    start: sight.start,
                    act,
                    authority: Authority::Leader,
                    requester: "healing".into(),
                    fence,
                    expires_ms: now_ms + ORDER_MS,
                    force: false,
                    reason: why.clone(),
                };
                let (id, boot, start) = (order.id, order.boot, order.start);
                let pending = Pending { id, boot, start, until_ms: now_ms + policy.proof_ms };
                let signed = Signed::seal(&env.m.keys, &order);
                vec![Command::Heal(healing::Entry::Order(signed)), change(Event::Ordered, Some(pending))]
            }
        }
    }

    fn nobody_is_down(&self) -> bool {
        !self.view.values().any(|host| host.down)
    }

    /// The leader's own order for which a case waits, when nobody has taken it on and it is not under way.
    fn order_to_bring(&mut self, fence: Fence) -> Option<Signed> {
        let (record, now_ms) = (self.ledger.healing(), self.ledger.time_ms());
        let waits = |id| record.cases().any(|(_, case)| case.order.as_ref().is_some_and(|order| order.id == id));
        let due = |w: &&healing::Written| {
            w.by == self.me
                && w.order.fence == fence
                && w.order.authority == Authority::Leader
                && w.receipt.is_none()
                && w.order.expires_ms > now_ms
                && waits(w.order.id)
                && !self.brings(w.order.id)
                && !self.tried.contains(&w.order.id)
        };
        let order = record.orders().find(due)?.order.clone();
        self.tried.insert(order.id);
        self.written.remove(&order.id)
    }

    /// Keeps the signed order until it stands in the ledger with its case.
    pub(super) fn keep_written(&mut self, command: &Command) {
        if let Command::Heal(healing::Entry::Order(signed)) = command
            && let Ok(order) = signed.open::<Order>()
        {
            self.written.insert(order.id, signed.clone());
        }
    }
}

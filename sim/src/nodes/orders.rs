//! Orders by the hundred through whole nodes, in the middle of a drawn plan.
//!
//! The plan is that of `chaos`: a fleet, with masquerades or without, and half of all kinds of faults. Meanwhile signers order
//! through their node's own API and by a program of their own, warrants of before come again, and liars bend theirs
//! ([`super::bearer`]). The machines truly restart. The jury is that of all simulations, and in the end the healed mesh has
//! to come right. Nothing here is written into a plan: it comes from the seed, with dice of its own.

use super::bearer::{Errand, Shared, Tally, What};
use super::stage::NodesStage;
use crate::action::LEADER;
use crate::det::{self, Options};
use crate::draw::{Asked, Dice, Ground, draw};
use crate::invariants::{Jury, Violation, all};
use crate::log;
use crate::orders::{Counts, Ran};
use crate::plan::{Plan, Tier};
use crate::stage::{Failure, Stage};
use crate::trace::Trace;
use mesh::identity::{Keys, PeerKey};
use mesh::mutants::{Mutant, with};
use mesh::warrant::Authority;
use node::api::Control;
use node::api::order::{OrderEvent, OrderRequest};
use std::collections::BTreeMap;
use std::io::Write;

/// A walk beside a plan.
struct Walk<'a> {
    plan: &'a Plan,
    stage: NodesStage,
    dice: Dice,
    tally: Shared,
    deeds: u64,
    next_ms: u64,
}

/// Plays a seed: about so many orders, and what the plan holds. With a `timeline` what happens is written there.
///
/// # Errors
/// When no plan can be drawn, in words.
pub fn run_orders(
    seed: u64,
    orders: u64,
    grounds: &[Ground],
    mutant: Option<Mutant>,
    timeline: Option<Box<dyn Write + Send>>,
) -> Result<Ran, String> {
    let asked = Asked { scenario: "orders", tier: Tier::Nodes, seed, fleets: grounds, faults: None };
    let plan = Plan { mutant, ..draw(&asked).map_err(|error| error.to_string())? };
    Ok(det::run(seed, Options::default(), move || {
        let trace = Trace::new(timeline);
        let recording = log::record(trace.clone());
        let (counts, failure) = with(mutant, || play(&plan, orders, &trace));
        drop(recording);
        Ran { counts, failure, hash: trace.summary().hash }
    }))
}

fn play(plan: &Plan, orders: u64, trace: &Trace) -> (Counts, Option<Violation>) {
    let mut jury = Jury::new(all());
    let stage = match NodesStage::new(plan, trace) {
        Ok(stage) => stage,
        Err(text) => return (Counts::default(), Some(violation(Failure::Crash(text), std::time::Duration::ZERO))),
    };
    let (dice, tally) = (Dice::new(plan.seed, "orders"), Shared::default());
    let mut walk = Walk { plan, stage, dice, tally, deeds: 0, next_ms: 0 };
    let ended = walk.play(orders, &mut jury);
    let failure = ended.err().map(|failure| violation(failure, walk.stage.elapsed()));
    let Tally { counts, .. } = &*walk.tally.borrow();
    let mut counts = counts.clone();
    counts.acts = walk.deeds;
    counts.hosts = plan.hosts.len() as u64;
    counts.judged = jury.exercised();
    counts.leaders = walk.stage.orders_of(Authority::Leader);
    (counts, failure)
}

/// A whole node may also crash, or a healed mesh not come right: by those names.
fn violation(failure: Failure, at: std::time::Duration) -> Violation {
    match failure {
        Failure::Safety(violation) => violation,
        Failure::Crash(text) => Violation { invariant: "no-crash", at, text },
        Failure::Liveness { pending } => Violation { invariant: "liveness", at, text: pending.join("; ") },
    }
}

impl Walk<'_> {
    fn made(&self) -> u64 {
        self.tally.borrow().counts.orders()
    }

    fn play(&mut self, orders: u64, jury: &mut Jury) -> Result<(), Failure> {
        self.stage.assemble(jury)?;
        let begin = self.stage.elapsed();
        let plan = self.plan;
        let mut actions = plan.actions.iter().peekable();
        while self.stage.elapsed() < begin + plan.safety() {
            let now_ms = (self.stage.elapsed() - begin).as_millis() as u64;
            while let Some(timed) = actions.next_if(|timed| timed.at_ms <= now_ms) {
                if self.stage.act(&timed.action, jury).is_ok() {
                    *self.tally.borrow_mut().counts.harm.entry(timed.action.kind()).or_default() += 1;
                }
            }
            if now_ms >= self.next_ms && self.made() < orders {
                self.next_ms = now_ms + self.dice.between(10, 120);
                self.order();
            }
            self.step(jury)?;
        }
        self.stage.heal(jury);
        let end = self.stage.elapsed() + plan.liveness();
        loop {
            self.step(jury)?;
            let pending = self.stage.pending();
            if pending.is_empty() {
                return jury.finish(self.stage.elapsed()).map_err(Failure::Safety);
            }
            if self.stage.elapsed() >= end {
                return Err(Failure::Liveness { pending });
            }
        }
    }

    fn step(&mut self, jury: &mut Jury) -> Result<(), Failure> {
        let done = self.stage.step(jury);
        self.deeds += std::mem::take(&mut self.stage.eyes.carried);
        done
    }

    /// One order of somebody to somebody.
    fn order(&mut self) {
        let running: Vec<String> = self.stage.members.iter().filter(|name| self.stage.runs(name)).cloned().collect();
        let all: Vec<String> = self.stage.members.iter().cloned().collect();
        let (Some(by), Some(target)) = (self.dice.one(&running).cloned(), self.dice.one(&all).cloned()) else { return };
        let what = match self.dice.below(100) {
            0..6 => return self.by_the_program(&target),
            6..14 => What::Right,
            14..18 => What::Lost,
            18..45 => What::Again,
            _ => What::Lie,
        };
        let (Some(target), Some(pen)) = (self.stage.key(&target), self.stage.keys(&by)) else { return };
        let keys: BTreeMap<PeerKey, Keys> =
            self.stage.nodes.stations.keys().filter_map(|name| self.stage.keys(name)).map(|k| (k.key(), k)).collect();
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.dice.number().to_le_bytes());
        id[8..].copy_from_slice(&self.dice.number().to_le_bytes());
        let (dice, tally) = (self.dice.number(), self.tally.clone());
        let errand = Errand { what, target, pen, keys, id, dice, tally };
        drop(self.stage.nodes.ask(&by, move |node| errand.run(node)));
    }

    /// A person orders at whoever leads, or at any host, by the program's own way.
    fn by_the_program(&mut self, target: &str) {
        let by = self.stage.up(LEADER).ok().filter(|_| self.dice.percent(60));
        let running: Vec<String> = self.stage.members.iter().filter(|name| self.stage.runs(name)).cloned().collect();
        let Some(by) = by.or_else(|| self.dice.one(&running).cloned()) else { return };
        let (reboot, force) = (self.dice.percent(50), self.dice.percent(80));
        let request = OrderRequest { reboot, reason: "as ordered".into(), force, user: "owner".into() };
        let (target, tally) = (target.to_owned(), self.tally.clone());
        drop(self.stage.nodes.ask(&by, move |node| async move {
            let Ok(mut events) = Control::order(&*node, target, request).await else {
                tally.borrow_mut().counts.unwritten += 1;
                return;
            };
            while let Some(event) = events.recv().await {
                let counts = &mut tally.borrow_mut().counts;
                match event {
                    OrderEvent::Written { .. } => counts.by_hand += 1,
                    OrderEvent::Failed { .. } => *counts.withheld.entry("the program".to_owned()).or_default() += 1,
                    _ => {}
                }
            }
        }));
    }
}

impl NodesStage {
    /// The key of a host's state folder.
    fn keys(&self, name: &str) -> Option<Keys> {
        Some(self.station(name)?.desk.folder.borrow().keys.clone())
    }

    /// Orders of an authority that stand in the longest ledger there is.
    fn orders_of(&self, authority: Authority) -> u64 {
        let count = |name: &String| {
            self.nodes.ledger(name, |l| {
                (l.index(), l.healing().orders().filter(|w| w.order.authority == authority).count() as u64)
            })
        };
        self.members.iter().filter_map(count).max().map_or(0, |(_, count)| count)
    }
}

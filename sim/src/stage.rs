//! Where a plan is played: what both tiers have in common.
//!
//! A run has two phases, after TigerBeetle's simulator. In the safety phase the plan's actions happen at
//! their moments, and the [`Jury`] looks after every step. Then everything is healed, and in the
//! liveness phase whatever was submitted must end and all views must agree within a bound; the jury
//! looks on. Nothing here knows hosts, networks or nodes: a [`Stage`] does.

use crate::action::Action;
use crate::invariants::{Jury, Violation};
use crate::plan::Plan;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The program itself broke: a panic, an error where none may be, a line logged as an error.
    Crash(String),
    /// An invariant was broken.
    Safety(Violation),
    /// A healed mesh did not come right in time.
    Liveness {
        /// What was not as it must be, a line each.
        pending: Vec<String>,
    },
}

impl Failure {
    /// The exit code of `sim` for it.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Crash(_) => 1,
            Failure::Safety(_) => 2,
            Failure::Liveness { .. } => 3,
        }
    }

    /// Whether another failure is of the same kind (the same invariant): what shrinking must keep.
    pub fn is_like(&self, other: &Failure) -> bool {
        match (self, other) {
            (Failure::Safety(one), Failure::Safety(two)) => one.invariant == two.invariant,
            _ => self.code() == other.code(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Crash(text) => write!(f, "crash: {text}"),
            Failure::Safety(violation) => write!(f, "{violation}"),
            Failure::Liveness { pending } => write!(f, "not well in time: {}", pending.join("; ")),
        }
    }
}

/// A simulated fleet of one tier.
pub trait Stage {
    /// True time since the simulation began.
    fn elapsed(&self) -> Duration;

    /// Lets the fleet of the plan come together: founded, joined, everybody seen by everybody.
    ///
    /// # Errors
    /// When it does not.
    fn assemble(&mut self, jury: &mut Jury) -> Result<(), Failure>;

    /// Lets a little time pass, and shows the jury what happened and every host that did something.
    ///
    /// # Errors
    /// The program's crash, or what the jury says.
    fn step(&mut self, jury: &mut Jury) -> Result<(), Failure>;

    /// Does something to the fleet.
    ///
    /// # Errors
    /// Why it makes no sense at this moment: it is skipped, and nothing was changed.
    fn act(&mut self, action: &Action, jury: &mut Jury) -> Result<(), String>;

    /// Ends every fault that can end: hosts are started, links mended, clocks and disks put right.
    fn heal(&mut self, jury: &mut Jury);

    /// What is not yet as it must be in a healed mesh that has had its time, a line each: a build that has not
    /// ended, a host that does not see another, ledgers that differ, no leader.
    fn pending(&self) -> Vec<String>;
}

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Played {
    /// What went wrong, if anything.
    pub failure: Option<Failure>,
    /// True time at the end.
    pub ended: Duration,
    /// How often each kind of action was done.
    pub done: BTreeMap<&'static str, u64>,
    /// How often each kind of action made no sense when its moment came.
    pub skipped: BTreeMap<&'static str, u64>,
    /// How often each invariant had something to judge.
    pub exercised: BTreeMap<&'static str, u64>,
}

/// Plays a plan.
pub fn play(plan: &Plan, stage: &mut dyn Stage, jury: &mut Jury) -> Played {
    let (mut done, mut skipped) = (BTreeMap::new(), BTreeMap::new());
    let failure = act_out(plan, stage, jury, &mut done, &mut skipped).err();
    Played { failure, ended: stage.elapsed(), done, skipped, exercised: jury.exercised() }
}

type Counts = BTreeMap<&'static str, u64>;

fn act_out(
    plan: &Plan,
    stage: &mut dyn Stage,
    jury: &mut Jury,
    done: &mut Counts,
    skipped: &mut Counts,
) -> Result<(), Failure> {
    stage.assemble(jury)?;
    let begin = stage.elapsed();
    let mut actions = plan.actions.iter().peekable();
    while stage.elapsed() < begin + plan.safety() {
        let now_ms = (stage.elapsed() - begin).as_millis() as u64;
        while let Some(timed) = actions.next_if(|timed| timed.at_ms <= now_ms) {
            let counts = match stage.act(&timed.action, jury) {
                Ok(()) => &mut *done,
                Err(why) => {
                    tracing::debug!(kind = timed.action.kind(), why, "skipped");
                    &mut *skipped
                }
            };
            *counts.entry(timed.action.kind()).or_default() += 1;
        }
        stage.step(jury)?;
    }
    stage.heal(jury);
    let end = stage.elapsed() + plan.liveness();
    loop {
        stage.step(jury)?;
        let pending = stage.pending();
        if pending.is_empty() {
            break;
        }
        if stage.elapsed() >= end {
            return Err(Failure::Liveness { pending });
        }
    }
    jury.finish(stage.elapsed()).map_err(Failure::Safety)
}

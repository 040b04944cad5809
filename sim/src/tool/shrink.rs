//! `sim shrink`: a failing plan, made as small as it still fails in the same way.
//!
//! Delta debugging (Zeller & Hildebrandt, IEEE TSE 2002) over the actions; then whatever else makes a
//! plan shorter to read: fewer builds, fewer hosts, rounder and earlier moments, a shorter safety phase.
//! The liveness phase keeps its length: cut short, a mesh that is merely slow would fail as well.

use super::args::Shrink;
use super::make::{self, Source};
use super::{Io, Stages, Wrong, play, run, tell};
use crate::action::{Action, LEADER};
use crate::det::Options;
use crate::plan::Plan;
use crate::stage::Failure;
use crate::trace::Watch;
use std::time::{Duration, Instant};

/// Hosts that are left in any case: with fewer, a host that loses its disk loses the mesh, and rightly so.
const HOSTS_MIN: usize = 3;

/// Shrinks.
pub fn shrink(args: &Shrink, stages: &Stages, io: &mut Io) -> Result<u8, Wrong> {
    let plan = match &args.file {
        Some(file) => make::read(file)?,
        None => Source::new(&args.make)?.plan(args.seed)?,
    };
    let Some(mut search) = Search::new(plan, args.budget, |plan| {
        play::play(plan, Options::default(), stages, Watch::default()).played.failure
    }) else {
        return Err(Wrong::new(
            "this plan does not fail",
            "shrink one that does: `sim sweep --out FOLDER` writes them",
        ));
    };
    io.say(&format!("fails: {}", search.failure));
    let before = search.best.actions.len();
    search.shrink();
    let Search { best, failure, runs, .. } = &search;
    io.say(&format!(
        "{} of {before} actions are left, {} hosts, {} of faults, after {runs} runs",
        best.actions.len(),
        best.hosts.len(),
        tell::clock(best.safety()),
    ));
    io.say(&format!("fails: {failure}"));
    if search.is_over() {
        io.hint("the time was up: a greater --budget may find a smaller one");
    }
    match &args.out {
        Some(file) => {
            run::write(file, &best.to_text())?;
            io.say(&format!("see it again: sim replay {} --trace FILE", file.display()));
        }
        None => {
            io.data(best.to_text().trim_end());
            io.say("see it again: write this to a file, then sim replay FILE --trace TRACE");
        }
    }
    Ok(failure.code())
}

/// The smallest plan so far that fails in the same way.
pub struct Search<F> {
    /// It.
    pub best: Plan,
    /// How it fails.
    pub failure: Failure,
    /// How often a plan was played.
    pub runs: u64,
    until: Instant,
    play: F,
}

impl<F: FnMut(&Plan) -> Option<Failure>> Search<F> {
    /// Begins with a plan; nothing, when it does not fail.
    pub fn new(plan: Plan, budget: Duration, mut play: F) -> Option<Search<F>> {
        let failure = play(&plan)?;
        Some(Search { best: plan, failure, runs: 1, until: Instant::now() + budget, play })
    }

    /// Whether the time is up.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Takes a smaller plan if it fails in the same way.
    fn take(&mut self, plan: Plan) -> bool {
        if plan == self.best || self.is_over() {
            return false;
        }
        self.runs += 1;
        match (self.play)(&plan) {
            Some(failure) if failure.is_like(&self.failure) => {
                (self.best, self.failure) = (plan, failure);
                true
            }
            _ => false,
        }
    }

    fn take_with(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        let mut plan = self.best.clone();
        change(&mut plan);
        self.take(plan)
    }

    /// Until nothing gets smaller or the time is up.
    pub fn shrink(&mut self) {
        loop {
            let before = self.best.clone();
            self.fewer_actions();
            self.fewer_tasks();
            self.fewer_hosts();
            self.shorter();
            if self.best == before || self.is_over() {
                return;
            }
        }
    }

    /// `ddmin`: leaves out ever smaller parts.
    fn fewer_actions(&mut self) {
        if self.take_with(|plan| plan.actions.clear()) {
            return;
        }
        let mut parts = 2;
        while self.best.actions.len() >= 2 && !self.is_over() {
            let len = self.best.actions.len();
            let size = len.div_ceil(parts);
            let ranges = (0..len).step_by(size).map(|from| from..(from + size).min(len));
            // The later ones first: what happened after the failure goes in one piece.
            let taken = ranges.rev().any(|range| {
                self.take_with(|plan| {
                    plan.actions.drain(range);
                })
            });
            if taken {
                parts = parts.saturating_sub(1).max(2);
            } else if size == 1 {
                return;
            } else {
                parts = (parts * 2).min(len);
            }
        }
    }

    /// Leaves builds out, one by one, wherever they are submitted; a submission of nothing goes as a whole.
    fn fewer_tasks(&mut self) {
        let submitted = self.best.actions.iter().filter_map(|timed| match &timed.action {
            Action::Submit { tasks, .. } => Some(tasks.iter().map(|task| task.name.clone())),
            _ => None,
        });
        let names: Vec<String> = submitted.flatten().collect();
        for name in names.iter().rev() {
            self.take_with(|plan| {
                plan.actions.retain_mut(|timed| match &mut timed.action {
                    Action::Submit { tasks, .. } => {
                        tasks.retain(|task| task.name != *name);
                        tasks.iter_mut().for_each(|task| task.needs.retain(|need| need != name));
                        !tasks.is_empty()
                    }
                    Action::Cancel { task, .. } | Action::Retry { task, .. } => task != name,
                    _ => true,
                });
            });
        }
    }

    /// The last ones first; never the founder, never fewer than [`HOSTS_MIN`].
    fn fewer_hosts(&mut self) {
        for n in (1..self.best.hosts.len()).rev() {
            if self.best.hosts.len() <= HOSTS_MIN {
                return;
            }
            let host = self.best.hosts[n].clone();
            self.take_with(|plan| {
                plan.hosts.remove(n);
                plan.actions.retain(|timed| !concerns(&timed.action, &host));
            });
        }
    }

    fn shorter(&mut self) {
        let last = self.best.actions.last().map_or(0, |timed| timed.at_ms);
        for safety_ms in [last + 1, last + 1_000, last + 5_000, last + 15_000] {
            if safety_ms < self.best.safety_ms && self.take_with(|plan| plan.safety_ms = safety_ms) {
                break;
            }
        }
        // All after a gap come earlier, by all of the gap or half of it; then round moments.
        for n in 0..self.best.actions.len() {
            let before = if n == 0 { 0 } else { self.best.actions[n - 1].at_ms };
            for part in [1, 2] {
                let by = (self.best.actions[n].at_ms - before) / part;
                let taken = by > 0
                    && self.take_with(|plan| {
                        plan.actions[n..].iter_mut().for_each(|timed| timed.at_ms -= by);
                        plan.safety_ms -= by;
                    });
                if taken {
                    break;
                }
            }
        }
        for round in [1_000, 100, 10] {
            self.take_with(|plan| {
                plan.actions.iter_mut().for_each(|timed| timed.at_ms -= timed.at_ms % round);
            });
        }
    }
}

/// Whether an action names a host; none is changed when a host goes, those that name it go too.
fn concerns(action: &Action, host: &str) -> bool {
    // As text: an action names hosts in whole words only, and every new kind of action is seen.
    let Ok(table) = toml::Value::try_from(action) else { return true };
    host != LEADER && strings(&table).contains(&host)
}

fn strings(value: &toml::Value) -> Vec<&str> {
    match value {
        toml::Value::String(text) => vec![text],
        toml::Value::Array(all) => all.iter().flat_map(strings).collect(),
        toml::Value::Table(all) => all.values().flat_map(strings).collect(),
        _ => vec![],
    }
}

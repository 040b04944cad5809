//! Plays one plan, on a thread of its own, and catches whatever becomes of it.

use super::stages::Stages;
use super::witness::{self, Watched, Witness};
use crate::det::{self, Options};
use crate::expect::Expectations;
use crate::invariants::Jury;
use crate::log;
use crate::plan::Plan;
use crate::scenarios::{self, Scenario};
use crate::stage::{self, Failure, Played};
use crate::trace::{Entry, Event, Keys, Summary, Trace, Watch};
use mesh::mutants;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::time::Duration;

/// How a run ended, and what is left of it.
pub struct Outcome {
    /// What the stage says of it.
    pub played: Played,
    /// Hash and counts.
    pub summary: Summary,
    /// The last events of each host: number, time, words.
    pub last: BTreeMap<String, Vec<(u64, Duration, String)>>,
    /// For a picture, when one was asked for.
    pub history: Option<(Vec<Entry>, Keys)>,
    /// Random bytes drawn: to find where two runs part.
    pub random_bytes: u64,
    /// Real CPU time that it took.
    pub cpu: Duration,
}

/// Plays a plan.
pub fn play(plan: &Plan, options: Options, stages: &Stages, watch: Watch) -> Outcome {
    on_a_thread(plan.seed, options, watch, |trace| {
        mutants::with(plan.mutant, || {
            let mut all: Vec<Box<dyn crate::invariants::Invariant>> = vec![Box::new(Witness::new(trace.clone()))];
            all.extend((stages.invariants)());
            if !plan.expect.is_empty() {
                all.push(Box::new(Expectations::new(plan.expect.clone())));
            }
            let mut jury = Jury::new(all);
            let stage = stages.open(plan, trace).map_err(Failure::Crash)?;
            let mut played = stage::play(plan, &mut Watched::new(stage, trace.clone()), &mut jury);
            played.exercised.remove(witness::NAME);
            Ok(played)
        })
    })
}

/// Runs a scenario that drives itself.
pub fn drive(scenario: Scenario, seed: u64, options: Options, watch: Watch) -> Outcome {
    on_a_thread(seed, options, watch, |trace| match scenarios::drive(scenario, seed, trace) {
        Ok(()) => Ok(nothing_played(None)),
        Err(error) => Err(Failure::Crash(error.to_string())),
    })
}

fn nothing_played(failure: Option<Failure>) -> Played {
    let none = BTreeMap::new;
    Played { failure, ended: Duration::ZERO, done: none(), skipped: none(), exercised: none() }
}

fn on_a_thread(
    seed: u64,
    options: Options,
    watch: Watch,
    work: impl FnOnce(&Trace) -> Result<Played, Failure> + Send,
) -> Outcome {
    det::run(seed, options, move || {
        let trace = Trace::watched(watch);
        let recording = log::record(trace.clone());
        let mut played = match catch(|| work(&trace)) {
            Ok(Ok(played)) => played,
            Ok(Err(failure)) => nothing_played(Some(failure)),
            Err(panic) => nothing_played(Some(Failure::Crash(panic))),
        };
        drop(recording);
        let errors = trace.summary();
        if played.failure.is_none() && errors.errors_count > 0 {
            let text = format!("{} lines logged as errors: {}", errors.errors_count, errors.errors.join("; "));
            played.failure = Some(Failure::Crash(text));
        }
        if let Some(failure) = &played.failure {
            trace.record_at(played.ended.max(errors.elapsed), witness::WORLD, Event::Failed(&failure.to_string()));
        }
        Outcome {
            summary: trace.summary(),
            last: trace.last_events(),
            history: trace.take_history(),
            random_bytes: det::random_bytes_drawn(),
            cpu: det::cpu_time(),
            played,
        }
    })
}

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `work`; a panic becomes its message and place, and nothing is printed.
fn catch<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !CATCHING.get() {
                return before(info);
            }
            let text = info.payload_as_str().unwrap_or("a panic without words");
            let place = info.location().map_or(String::new(), |place| format!(" at {place}"));
            PANIC.with_borrow_mut(|first| {
                first.get_or_insert_with(|| format!("panic{place}: {text}"));
            });
        }));
    });
    CATCHING.set(true);
    // What the work has touched is thrown away with it.
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(false);
    result.map_err(|_| PANIC.take().unwrap_or_else(|| "panic".to_owned()))
}

//! What was said once comes again, to whole nodes: it changes nothing, and where old words count, that is seen.
#![allow(clippy::unwrap_used)] // helpers of tests, which clippy does not exempt

use mesh::mutants::{self, Mutant};
use sim::action::{Action, Task};
use sim::det::{self, Options};
use sim::invariants::Jury;
use sim::log;
use sim::nodes::NodesStage;
use sim::plan::{Plan, Tier, Timed};
use sim::stage::{Failure, Played, play};
use sim::trace::Trace;

/// A host speaks, works, dies and lives again; then all it ever said comes once more.
fn played(mutant: Option<Mutant>) -> Played {
    let h3 = || "h3".to_owned();
    let task = Task { name: "one".into(), takes_ms: 500, exit: 0, needs: vec![], breaks_on: vec![] };
    let actions = vec![
        (500, Action::Submit { host: h3(), request: 1, tasks: vec![task] }),
        (6_000, Action::Crash { host: h3() }),
        (7_000, Action::Start { host: h3() }),
        (18_000, Action::ReplayLate { host: h3() }),
        (20_000, Action::ReplayLate { host: h3() }),
    ];
    let plan = Plan {
        scenario: "late".into(),
        tier: Tier::Nodes,
        seed: 1,
        topology: "lan-5".into(),
        mutant,
        hosts: ["h1", "h2", "h3", "h4"].map(str::to_owned).to_vec(),
        safety_ms: 25_000,
        liveness_ms: 60_000,
        actions: actions.into_iter().map(|(at_ms, action)| Timed { at_ms, action }).collect(),
        expect: vec![],
    };
    det::run(plan.seed, Options::default(), || {
        mutants::with(plan.mutant, || {
            let trace = Trace::new(None);
            let _recording = log::record(trace.clone());
            let mut stage = NodesStage::new(&plan, &trace).unwrap();
            play(&plan, &mut stage, &mut Jury::new(sim::invariants::all()))
        })
    })
}

#[test]
fn words_that_come_again_change_nothing() {
    let played = played(None);
    assert_eq!(played.failure, None);
    assert_eq!(played.done.get("replay-late"), Some(&2), "{:?}", played.skipped);
}

#[test]
fn where_old_words_count_that_is_seen() {
    let played = played(Some(Mutant::OldStatementsCount));
    let Some(Failure::Safety(violation)) = &played.failure else { panic!("{:?}", played.failure) };
    assert_eq!(violation.invariant, "numbers-rise");
}

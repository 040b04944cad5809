//! Plans played by whole nodes.
#![allow(clippy::unwrap_used)] // helpers of tests, which clippy does not exempt

use sim::action::{Action, Task};
use sim::invariants::Jury;
use sim::nodes::run_nodes;
use sim::plan::{Plan, Tier, Timed};
use sim::stage::Played;
use sim::trace::{Summary, Trace};

fn plan(hosts: usize, seed: u64, actions: Vec<(u64, Action)>) -> Plan {
    Plan {
        scenario: "directed".into(),
        tier: Tier::Nodes,
        seed,
        topology: format!("lan-{hosts}"),
        mutant: None,
        hosts: (1..=hosts).map(|n| format!("h{n}")).collect(),
        safety_ms: 30_000,
        liveness_ms: 60_000,
        expect: vec![],
        actions: actions.into_iter().map(|(at_ms, action)| Timed { at_ms, action }).collect(),
    }
}

fn task(name: &str, takes_ms: u64) -> Task {
    Task { name: name.into(), takes_ms, exit: 0, needs: vec![], breaks_on: vec![] }
}

fn timeline() -> Option<Box<dyn std::io::Write + Send>> {
    let path = std::env::var_os("SIM_TIMELINE")?;
    Some(Box::new(std::io::BufWriter::new(std::fs::File::create(path).unwrap())))
}

fn played(plan: &Plan) -> (Played, Summary) {
    let trace = Trace::new(timeline());
    let played = run_nodes(plan, trace.clone(), || Jury::new(sim::invariants::all()));
    let summary = trace.summary();
    assert_eq!(played.failure, None, "{}\n{played:?}", plan.to_text());
    assert_eq!(summary.errors, Vec::<String>::new());
    (played, summary)
}

#[test]
fn work_ends_although_its_leader_crashes_and_another_host_loses_power() {
    let host = |name: &str| name.to_owned();
    let submit = |at: &str, request, tasks| Action::Submit { host: at.into(), request, tasks };
    let actions = vec![
        (0, submit("h2", 1, vec![task("one", 2_000), task("two", 9_000)])),
        (3_000, Action::Crash { host: host("leader") }),
        (5_000, Action::Cut { from: host("h4"), to: host("h5") }),
        (6_000, Action::PowerCut { host: host("h6") }),
        (8_000, submit("h3", 2, vec![task("three", 3_000)])),
        (15_000, Action::PowerOn { host: host("h6") }),
        (16_000, Action::Mend { from: host("h4"), to: host("h5") }),
    ];
    let plan = plan(6, 1, actions);
    let (first, summary) = played(&plan);
    assert_eq!(first.skipped.len(), 0, "{first:?}");
    assert_eq!((first, summary), played(&plan));
}

//! Every incident happens again by its naive rule, and not by ours.
#![allow(clippy::unwrap_used)] // helpers of tests, which clippy does not exempt

use mesh::mutants::Mutant;
use sim::cores::run_cores;
use sim::expect::Expectations;
use sim::invariants::{self, Jury};
use sim::nodes::run_nodes;
use sim::plan::{Plan, Tier};
use sim::scenarios::incidents::{INCIDENTS, Incident};
use sim::stage::Failure;
use sim::trace::Trace;

/// How an incident ends with a rule left out, or with none.
fn played(incident: &Incident, seed: u64, mutant: Option<Mutant>) -> Option<Failure> {
    let plan = Plan { mutant, ..incident.plan(Tier::Cores, seed) };
    let mut all = invariants::all();
    all.push(Box::new(Expectations::new(plan.expect.clone())));
    let (played, _) = run_cores(&plan, &mut Jury::new(all), None);
    assert!(!played.done.is_empty() || plan.actions.is_empty(), "{}: nothing was done", incident.name);
    played.failure
}

#[test]
fn our_rules_keep_every_incident_from_happening_again() {
    for incident in INCIDENTS {
        for seed in 1..=3 {
            let name = incident.name;
            assert_eq!(
                played(incident, seed, None),
                None,
                "see it: sim run --scenario {name} --tier cores --seed {seed} --trace FILE"
            );
        }
    }
}

#[test]
fn the_naive_rule_lets_it_happen() {
    for incident in INCIDENTS {
        let failure = played(incident, 1, Some(incident.naive));
        assert!(
            matches!(failure, Some(Failure::Safety(_) | Failure::Liveness { .. })),
            "{}: {} shows nothing: {failure:?}",
            incident.name,
            incident.naive
        );
    }
}

/// The others as well: `scripts/sweep` plays them all.
#[test]
fn on_whole_nodes_an_address_is_no_identity_either() {
    let incident = Incident::find("incident-02-container").unwrap();
    let played = |mutant| {
        let plan = Plan { mutant, ..incident.plan(Tier::Nodes, 1) };
        let jury = || {
            let mut all = invariants::all();
            all.push(Box::new(Expectations::new(plan.expect.clone())));
            Jury::new(all)
        };
        run_nodes(&plan, Trace::new(None), jury).failure
    };
    assert_eq!(played(None), None);
    let naive = played(Some(Mutant::IdentityByAddress));
    assert!(matches!(naive, Some(Failure::Safety(_))), "{naive:?}");
}

#[test]
fn numbers_and_names_are_those_of_the_list() {
    let numbers: Vec<u32> = INCIDENTS.iter().map(|i| i.name[9..11].parse().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 17]);
}

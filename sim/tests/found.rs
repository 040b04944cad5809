//! What random plans found in whole nodes, each as small as it still failed before it was mended.
#![allow(clippy::unwrap_used)] // helpers of tests, which clippy does not exempt

use sim::action::Action;
use sim::invariants::Jury;
use sim::nodes::run_nodes;
use sim::plan::{Plan, Tier, Timed};
use sim::trace::Trace;

fn h(name: &str) -> String {
    name.to_owned()
}

/// Plays it, and asks that all be well in the end and every action be done.
fn ends_well(topology: &str, hosts: &[&str], actions: Vec<(u64, Action)>) {
    let count = actions.len() as u64;
    let last = actions.last().map_or(0, |(at, _)| *at);
    let plan = Plan {
        scenario: "found".into(),
        tier: Tier::Nodes,
        seed: 1,
        topology: topology.into(),
        mutant: None,
        hosts: hosts.iter().map(|&name| name.into()).collect(),
        safety_ms: last + 6_000,
        liveness_ms: 60_000,
        actions: actions.into_iter().map(|(at_ms, action)| Timed { at_ms, action }).collect(),
        expect: vec![],
    };
    let played = run_nodes(&plan, Trace::new(None), || Jury::new(sim::invariants::all()));
    assert_eq!(played.failure, None);
    assert_eq!(played.done.values().sum::<u64>(), count, "skipped: {:?}", played.skipped);
}

/// Seeds 201 and 344. A newcomer is sent the log in pieces. The first names those of long ago as the voters, and by
/// that it refused the leader, whoever that was, for all the rest.
#[test]
fn a_newcomer_hears_a_leader_that_the_beginning_of_the_log_does_not_know() {
    let actions = vec![
        (1_000, Action::Crash { host: h("h1") }), // the founder, whom the first piece names
        (8_000, Action::Join { host: h("h7"), by: h("h2") }),
    ];
    ends_well("lan-8", &["h1", "h2", "h3", "h4", "h5", "h6"], actions);
}

/// Seed 171. A sole voter that leaves gives its seat to another. That one was away when it was asked, the change stood half
/// done, and as the old voter had no lease any more it never completed it, but was heard as Raft's leader all the same.
#[test]
fn a_seat_is_handed_over_although_the_heir_was_away_for_a_moment() {
    let actions = vec![
        (3_000, Action::Suspend { host: h("h2") }),
        (3_010, Action::Leave { host: h("h1") }),
        (4_500, Action::Resume { host: h("h2") }),
    ];
    ends_well("lan-3", &["h1", "h2"], actions);
}

/// Seed 729. Two members had swapped addresses since a token was made: whoever came with it found each where the other had
/// been, and asked neither.
#[test]
fn a_token_lets_in_although_its_members_have_swapped_addresses() {
    let actions = vec![
        (1_000, Action::Join { host: h("h3"), by: h("h1") }),
        (1_010, Action::SwapAddresses { a: h("h1"), b: h("h2") }),
    ];
    ends_well("lan-3", &["h1", "h2"], actions);
}

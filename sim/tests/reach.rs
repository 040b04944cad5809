//! Hosts that are hard to reach, played by whole nodes: each of these meshes once did not come together, or not again.
#![allow(clippy::unwrap_used)] // helpers of tests, which clippy does not exempt

use sim::action::Action;
use sim::invariants::Jury;
use sim::nodes::run_nodes;
use sim::plan::{Plan, Tier, Timed};
use sim::trace::Trace;

/// Plays actions at the second that follows the assembly, and then healing; all must be well in time.
fn comes_right(topology: &str, hosts: &[&str], actions: Vec<Action>) {
    let plan = Plan {
        scenario: "directed".into(),
        tier: Tier::Nodes,
        seed: 1,
        topology: topology.into(),
        mutant: None,
        hosts: hosts.iter().map(|name| (*name).to_owned()).collect(),
        safety_ms: 30_000,
        liveness_ms: 90_000,
        expect: vec![],
        actions: actions.into_iter().map(|action| Timed { at_ms: 1_000, action }).collect(),
    };
    let played = run_nodes(&plan, Trace::new(None), || Jury::new(sim::invariants::all()));
    assert_eq!(played.failure, None, "{}", plan.to_text());
    assert!(played.skipped.is_empty(), "{played:?}");
}

fn crash(host: &str) -> Action {
    Action::Crash { host: host.into() }
}

#[test]
fn voters_that_are_far_apart_have_a_leader() {
    comes_right("symmetric-both", &["relay", "west-router", "west-1"], vec![]);
}

#[test]
fn a_container_without_a_port_of_its_own_dials_and_is_seen() {
    comes_right("container-shares-address", &["workstation", "forgotten", "builder"], vec![]);
}

#[test]
fn a_host_behind_a_forwarded_port_is_found_where_the_others_owners_say() {
    comes_right("port-forward", &["home-1", "router", "public"], vec![]);
    comes_right("carrier-grade", &["public", "carrier-router", "home-1"], vec![]);
}

/// Nobody told the founder where the others are, and where it is now nobody knows.
#[test]
fn a_founder_that_starts_again_elsewhere_finds_the_others() {
    let take = Action::TakeAddress { host: "east-2".into(), of: "east-1".into() };
    let hosts = ["east-1", "east-2", "east-router"];
    comes_right("two-sites-masqueraded", &hosts, vec![crash("east-1"), crash("east-2"), take]);
}

/// The router can only dial, and when it comes back each of the two is where the other was.
#[test]
fn two_hosts_that_swapped_addresses_are_found_by_one_that_was_away() {
    let swap = Action::SwapAddresses { a: "east-1".into(), b: "east-2".into() };
    let hosts = ["east-2", "east-router", "east-1"];
    comes_right("two-sites-masqueraded", &hosts, vec![crash("east-router"), swap]);
}

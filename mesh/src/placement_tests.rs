use super::*;
use crate::build::*;
use crate::ledger::tests::*;
use crate::ledger::{Command, Lose, State};

fn host(cores: u32) -> HostNow {
    HostNow { alive: true, start: 1, cores, memory_mib: 1_000, caught_up: true, ..HostNow::default() }
}
fn view(hosts: &[(u8, HostNow)]) -> View {
    hosts.iter().map(|(n, h)| (keys(*n).key(), h.clone())).collect()
}
/// With nothing that keeps anybody from building; `restraint_tests.rs` has those cases.
fn planned(ledger: &Ledger, view: &View) -> Plan {
    plan(ledger, view, &Restraint::default())
}
fn hosts_of(plan: &Plan) -> Vec<(u64, PeerKey)> {
    plan.assign.iter().map(|a| (a.build.0, a.host)).collect()
}

#[test]
fn builds_go_to_the_host_with_most_free_cores() {
    let mut w = World::new(3);
    w.submit(vec![spec("a", &[]), BuildSpec { cores: 3, ..spec("b", &[]) }, spec("c", &[]), spec("d", &[])]);
    let view = view(&[(1, host(2)), (2, host(4)), (3, host(0))]);
    let plan = planned(&w.ledger, &view);
    let (h1, h2) = (keys(1).key(), keys(2).key());
    assert_eq!(hosts_of(&plan), [(1, h2), (2, h2), (3, h1), (4, h1)]);
    // As the ledger then says, nothing is free.
    for a in &plan.assign {
        let n = if a.host == h1 { 1 } else { 2 };
        assert!(w.assign(a.build, 1, n).is_ok());
    }
    w.submit(vec![spec("e", &[])]);
    assert_eq!(planned(&w.ledger, &view).assign, []);
}

#[test]
fn what_a_build_asks_for_must_be_there() {
    let cases: [(BuildSpec, HostNow, &str); 6] = [
        (BuildSpec { cores: 9, ..spec("a", &[]) }, host(8), "9 cores"),
        (BuildSpec { memory_mib: 2_000, ..spec("a", &[]) }, host(8), "2000 MiB"),
        (BuildSpec { tags: vec!["arm".into()], ..spec("a", &[]) }, host(8), "arm"),
        (BuildSpec { sandbox: Sandbox::None, ..spec("a", &[]) }, host(8), "allow_none"),
        (BuildSpec { network: true, ..spec("a", &[]) }, host(8), "allow_network"),
        (spec("a", &[]), HostNow { alive: false, ..host(8) }, "no host is alive"),
    ];
    for (spec, host, why) in cases {
        let mut w = World::new(1);
        w.submit(vec![spec]);
        let view = view(&[(1, host)]);
        assert!(planned(&w.ledger, &view).assign.is_empty(), "{why}");
        let build = w.ledger.builds().iter().next().unwrap();
        assert!(held_back(&w.ledger, &view, &Restraint::default(), build).unwrap().contains(why), "{why}");
    }
    let mut w = World::new(1);
    w.submit(vec![spec("a", &[])]);
    assert!(planned(&w.ledger, &view(&[(1, HostNow { suspended: true, ..host(8) })])).assign.is_empty());
    assert!(planned(&w.ledger, &view(&[(50, host(8))])).assign.is_empty(), "a stranger gets no work");
}

/// Incidents 7 and 12: a lost host loses its work, a busy one does not.
#[test]
fn only_a_lost_host_loses_its_work() {
    for (now, lost) in [
        (host(1), false),
        (HostNow { alive: false, ..host(1) }, false), // merely suspect
        (HostNow { alive: false, down: true, ..host(1) }, true),
        (HostNow { start: 2, ..host(1) }, true),
        (HostNow { start: 0, ..host(1) }, false), // not heard of its new start yet
        (HostNow { start: 0, steady_ms: OLDER_MS, ..host(1) }, true), // given to a copy of it, which is gone
        (HostNow { start: 0, steady_ms: OLDER_MS, alive: false, ..host(1) }, false),
    ] {
        let mut w = World::new(2);
        let id = w.submit(vec![spec("a", &[])])[0];
        w.assign(id, 1, 2);
        let plan = planned(&w.ledger, &view(&[(1, host(1)), (2, now.clone())]));
        assert_eq!(!plan.lose.is_empty(), lost, "{now:?}");
        if lost {
            assert!(w.send(1, Command::Lose(Lose { attempts: plan.lose })).is_ok());
            assert_eq!(w.state(id), State::Queued);
        }
    }
}

#[test]
fn a_failed_build_is_tried_elsewhere_first() {
    let mut w = World::new(2);
    let id = w.submit(vec![BuildSpec { retries: 5, ..spec("a", &[]) }])[0];
    w.assign(id, 1, 2);
    w.end_with(id, 1, 2, failed(Phase::Command), &[]);
    let both = view(&[(1, host(1)), (2, host(8))]);
    assert_eq!(hosts_of(&planned(&w.ledger, &both)), [(1, keys(1).key())]);
    // Host 1 is busy: rather wait for it than repeat the failure where it happened.
    let other = w.submit(vec![spec("b", &[])])[0];
    w.assign(other, 1, 1);
    assert!(planned(&w.ledger, &both).assign.is_empty());
    // Nobody else could: then where it failed.
    assert_eq!(hosts_of(&planned(&w.ledger, &view(&[(2, host(8))]))), [(1, keys(2).key())]);
}

#[test]
fn confirm_goes_to_two_hosts() {
    let mut w = World::new(2);
    w.submit(vec![BuildSpec { confirm: 2, ..spec("a", &[]) }]);
    let hosts = planned(&w.ledger, &view(&[(1, host(8)), (2, host(8))])).assign;
    assert_eq!(hosts.iter().map(|a| a.attempt.0).collect::<Vec<_>>(), [1, 2]);
    assert_ne!(hosts[0].host, hosts[1].host);
    assert_eq!(planned(&w.ledger, &view(&[(1, host(8))])).assign.len(), 1);
}

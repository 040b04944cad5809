//! Each check finds what it is for, and nothing in a mesh that is well.

use super::super::fixture::well;
use super::*;
use crate::api::types::{Ending, Warning as Told};

/// What is found when one thing is different.
fn codes(change: impl FnOnce(&mut MeshFacts)) -> Vec<String> {
    let mut facts = well();
    change(&mut facts);
    findings(&facts).into_iter().map(|finding| format!("{:?} {}", finding.severity, finding.code)).collect()
}

#[test]
fn a_mesh_that_is_well_has_no_findings() {
    assert_eq!(codes(|_| {}), Vec::<String>::new());
}

#[test]
fn each_fault_is_found_by_its_check_and_by_no_other() {
    assert_eq!(codes(|f| f.leader = None), ["Error no-leader"]);
    assert_eq!(codes(|f| f.hosts[1].state = HostState::Down), ["Warning host-down"]);
    assert_eq!(codes(|f| f.hosts[1].state = HostState::Suspect), ["Warning host-suspect"]);
    assert_eq!(codes(|f| f.hosts[1].state = HostState::Left), ["Note host-left"]);
    assert_eq!(codes(|f| f.hosts[1].path = PathKind::None), ["Warning unreachable"]);
    assert_eq!(codes(|f| f.hosts[1].clock_ms = Some(-31_000)), ["Warning clock"]);
    assert_eq!(codes(|f| f.hosts[1].clock_ms = Some(29_000)), Vec::<String>::new());
    assert_eq!(codes(|f| f.hosts[1].program = "0.2.0".into()), ["Note version"]);
    assert_eq!(codes(|f| f.hosts[1].program = String::new()), Vec::<String>::new(), "unknown");
    assert_eq!(codes(|f| f.hosts[1].boot_enabled = Some(false)), ["Warning not-at-boot"]);
    assert_eq!(codes(|f| f.hosts[1].boot_enabled = None), Vec::<String>::new(), "unknown");
    assert_eq!(codes(|f| f.signers = 1), ["Warning few-signers"]);
}

#[test]
fn a_clock_that_differs_from_most_is_this_host_s_own() {
    let mut facts = well();
    facts.hosts[1].clock_ms = Some(-3_600_000);
    facts.hosts[2].clock_ms = Some(-3_600_500);
    let found = findings(&facts);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].text.contains("the clock of this host is 3600 s off"), "{}", found[0].text);
    assert_eq!(found[0].host.as_deref(), Some("a"));
}

#[test]
fn a_masquerade_wants_a_relay_and_so_does_who_cannot_be_reached() {
    let hide = |f: &mut MeshFacts| f.hosts[1].behind = vec!["c".into()];
    assert_eq!(codes(hide), Vec::<String>::new(), "a relays");
    let without = |f: &mut MeshFacts| {
        hide(f);
        f.hosts[0].relays = false;
    };
    assert_eq!(codes(without), ["Warning masquerade-without-relay"]);
    let fresh = |f: &mut MeshFacts| {
        without(f);
        f.up_ms = 5_000;
    };
    assert_eq!(codes(fresh), Vec::<String>::new(), "it may still meet one");
    let apart = |f: &mut MeshFacts| {
        f.hosts[0].relays = false;
        f.hosts[1].path = PathKind::None;
    };
    assert_eq!(codes(apart), ["Warning unreachable", "Warning no-relay"]);
    assert_eq!(codes(|f| f.hosts[0].relays = false), Vec::<String>::new(), "all are reached: nobody needs one");
}

#[test]
fn what_ends_within_a_day_is_told_with_its_reason() {
    let end = |left_ms| Ending { what: "the block of b".into(), reason: "disk".into(), left_ms, advice: "x".into() };
    assert_eq!(codes(|f| f.ending = vec![end(48 * 3_600_000)]), Vec::<String>::new());
    let mut facts = well();
    facts.ending = vec![end(90 * 60_000)];
    let found = findings(&facts);
    assert_eq!((found[0].severity, found[0].text.as_str()), (Note, "the block of b ends in 1h 30m (disk)"));
}

#[test]
fn what_status_warns_of_is_not_lost_and_not_told_twice() {
    let told = |code: &str| Told { code: code.into(), level: Level::Warning, host: None, text: "x".into() };
    assert_eq!(codes(|f| f.warnings = vec![told("clone")]), ["Warning clone"]);
    let twice = |f: &mut MeshFacts| {
        f.warnings = vec![told("host-down")];
        f.hosts[1].state = HostState::Down;
    };
    assert_eq!(codes(twice), ["Warning host-down"]);
}

use super::*;
use crate::api::types::{Level, Warning};
use mesh::identity::Keys;

pub(crate) fn sample(state: HostState) -> WhyReport {
    WhyReport {
        version: VERSION,
        host: "gamma".into(),
        peer: Keys::from_seed([3; 32]).key(),
        seen_from: "alpha".into(),
        state,
        since_ms: 5_000,
        because: String::new(),
        heard_ms: Some(7_000),
        path: crate::api::types::PathKind::None,
        relay: None,
        round_trip_us: None,
        late_ms: 0,
        here_late_ms: 0,
        keeps_still: false,
        one_network: false,
        flaps: 0,
        start: Some(1),
        voter: false,
        builds: vec![],
        accusers: vec![],
        story: vec![],
        leads: vec![],
        warnings: vec![],
        healing: crate::api::healing::CaseReport::default(),
        next: vec![],
    }
}

fn lead(failed: &str, answered_by: Option<&str>, nat_of: Option<&str>) -> PingLead {
    PingLead {
        addr: "/ip4/10.0.0.3/tcp/7400".into(),
        source: "gossip".into(),
        observer: None,
        first_ms: 60_000,
        proved_ms: None,
        failed: Some(failed.into()),
        failed_ms: Some(500),
        answered_by: answered_by.map(str::to_owned),
        nat_of: nat_of.map(str::to_owned),
        expires_ms: None,
    }
}

fn accuser(host: &str) -> Accuser {
    let evidence = Evidence { attempts: 3, silent_ms: 1_700, heard_ms: Some(2_000), relayed: false, connected: true };
    Accuser { host: host.into(), since_ms: 900, evidence }
}

/// Each situation, and words that its advice has to have, the first advice first.
#[test]
fn every_situation_has_its_own_first_advice() {
    use HostState::{Alive, Down, Left, Suspect};
    let down = |leads| WhyReport { leads, ..sample(Down) };
    let table: Vec<(&str, WhyReport, &str)> = vec![
        ("well", sample(Alive), "nothing to do"),
        ("refuses", down(vec![lead("no answer", None, None), lead("refused", None, None)]), "no daemon listens"),
        ("silent", down(vec![lead("no answer", None, None)]), "is the machine on"),
        ("unknown", down(vec![]), "look at gamma"),
        ("moved", down(vec![lead("beta answered", Some("beta"), None)]), "now answers beta"),
        ("behind a NAT", down(vec![lead("gate answered", Some("gate"), Some("gate"))]), "look at gamma"),
        ("never heard", WhyReport { heard_ms: None, ..sample(Suspect) }, "start it there"),
        ("cut off", WhyReport { one_network: true, ..sample(Suspect) }, "link between that network"),
        ("doubted", sample(Suspect), "wait some seconds"),
        ("stopped", sample(Left), "stopped by somebody"),
        ("we are alone", WhyReport { keeps_still: true, ..sample(Suspect) }, "network of alpha"),
        ("flaps", WhyReport { flaps: 2, ..sample(Alive) }, "cable"),
        ("late", WhyReport { late_ms: 2_000, ..sample(Alive) }, "mesh ping gamma"),
        ("all are late", WhyReport { late_ms: 2_000, here_late_ms: 1_500, ..sample(Alive) }, "link of alpha"),
        ("missed by one", WhyReport { accusers: vec![accuser("beta")], ..sample(Alive) }, "beta cannot hear gamma"),
    ];
    let mut firsts = vec![];
    for (what, report, words) in table {
        let next = advice(&report);
        assert!(next.first().is_some_and(|first| first.contains(words)), "{what}: {next:?}");
        firsts.push(next[0].clone());
    }
    firsts.sort();
    firsts.dedup();
    assert!(firsts.len() >= 14, "situations that differ are told apart: {firsts:#?}");
}

#[test]
fn a_clone_and_another_warning_are_not_nothing() {
    let warned = |code: &str| {
        let warning =
            Warning { code: code.into(), level: Level::Warning, host: Some("gamma".into()), text: "t".into() };
        advice(&WhyReport { warnings: vec![warning], ..sample(HostState::Alive) })
    };
    assert!(warned("clone")[0].starts_with("stop one of the two gamma"), "{:?}", warned("clone"));
    assert!(warned("clock")[0].contains("mesh status"));
}

#[test]
fn who_is_lost_for_good_can_be_replaced_and_its_builds_need_nobody() {
    let with = |builds| advice(&WhyReport { builds, ..sample(HostState::Down) });
    assert!(with(vec![]).iter().any(|a| a.contains("mesh replace gamma")));
    assert!(!with(vec![]).iter().any(|a| a.contains("builds")));
    assert!(with(vec![BuildId(3)]).iter().any(|a| a.contains("its builds need nobody")));
}

//! The oracle's table against the real kernel, pair by pair, for every shipped fleet as it stands, and the reference
//! fleet without its overlay and without its gateway. The simulator rests on the same table. A lab that is not what its
//! fleet says is caught. Every fault on every fleet: `lab_long`.

use tests::lab::{Lab, command, dials};
use topology::SourcePort;

fn reference() -> Option<Lab> {
    Lab::for_test(topology::ALPHA_CENTAURI)
}

/// Dials every row; how many there were.
#[track_caller]
fn agrees(lab: &Lab, when: &str) -> usize {
    let (dialled, differences) = dials::compare(lab).unwrap_or_else(|why| panic!("{when}: {why}"));
    assert_eq!(differences, Vec::<String>::new(), "{when}: {} of {dialled} dials differ", differences.len());
    dialled
}

#[test]
fn the_reference_fleet_is_what_the_oracle_says() {
    let Some(mut lab) = reference() else { return };
    assert_eq!(agrees(&lab, "as it stands"), 60);
    lab.overlay(false).expect("off");
    assert_eq!(agrees(&lab, "no overlay"), 60);
    lab.power_off("Alpha-Centauri").expect("off");
    assert_eq!(agrees(&lab, "no overlay and no gateway"), 50);
    lab.boot("Alpha-Centauri").expect("boot");
    lab.overlay(true).expect("on");
    assert_eq!(agrees(&lab, "healed"), 60);
}

#[test]
fn every_shipped_fleet_is_what_the_oracle_says() {
    for (file, text) in topology::FLEETS {
        let Some(lab) = Lab::for_test(text) else { return };
        let dialled = agrees(&lab, file);
        assert!(dialled >= 9 || lab.fleet.hosts.len() == 1, "{file}: only {dialled} dials");
    }
}

#[test]
fn ports_are_kept_by_the_default_masquerade_and_not_by_a_fully_random_one() {
    let kept = |file: &str| {
        let text = topology::FLEETS.iter().find(|(name, _)| *name == file).expect("shipped").1;
        let lab = Lab::for_test(text)?;
        let all = dials::observe(&lab, &lab.oracle().expect("oracle")).expect("dials");
        Some(dials::ports_kept(&all))
    };
    let Some(preserved) = kept("alpha-centauri.toml") else { return };
    // The inside's own, unless two of the few flows have the same: never all of them.
    assert!(preserved[&SourcePort::OwnIfFree].0 > 0, "{preserved:?}");
    let random = kept("symmetric-both.toml").expect("root");
    // One in sixty thousand is kept by chance.
    assert!(random[&SourcePort::Random].1 > 0 && random[&SourcePort::Random].0 <= 1, "{random:?}");
}

#[test]
fn a_lab_without_its_masquerade_or_with_a_route_too_many_is_caught() {
    let Some(mut lab) = reference() else { return };
    lab.overlay(false).expect("off");
    let differences = |lab: &Lab| dials::compare(lab).expect("dials").1;
    let izar = lab.namespace("drone-Izar").expect("a host");
    command::ip(&izar, "route add 192.168.20.0/24 via 10.42.0.199").expect("route");
    let caught = differences(&lab);
    assert!(!caught.is_empty() && caught.iter().all(|d| d.starts_with("drone-Izar to drone-")), "{caught:#?}");
    command::ip(&izar, "route del 192.168.20.0/24").expect("route");
    assert_eq!(differences(&lab), Vec::<String>::new());
    command::nft(&lab.namespace("Alpha-Centauri").expect("a host"), "delete table ip lab").expect("table");
    let caught = differences(&lab);
    let from_inside = |d: &String| d.starts_with("drone-Meridian to ") || d.starts_with("drone-Tarn to ");
    assert!(!caught.is_empty() && caught.iter().all(from_inside), "{caught:#?}");
}

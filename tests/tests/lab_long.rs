//! What takes longer on the real kernel, run by `scripts/lab-test`: every fault that the oracle knows on every shipped
//! fleet, dial by dial.

use std::time::Instant;
use tests::lab::{Lab, dials};

/// Dials every row; how many there were.
#[track_caller]
fn agrees(lab: &Lab, when: &str) -> usize {
    let begun = Instant::now();
    let (dialled, differences) = dials::compare(lab).unwrap_or_else(|why| panic!("{when}: {why}"));
    assert_eq!(differences, Vec::<String>::new(), "{when}: {} of {dialled} dials differ", differences.len());
    eprintln!("{}, {when}: {dialled} dials agree, {:.1} s", lab.fleet.name, begun.elapsed().as_secs_f64());
    dialled
}

/// With each of these pairs cut and each of these machines without power, one after the other.
fn stands(file: &str, rows: usize, cuts: &[(&str, &str)], off: &[&str]) {
    let fleet = topology::FLEETS.iter().find(|(name, _)| *name == file).unwrap_or_else(|| panic!("no {file}")).1;
    let Some(mut lab) = Lab::for_test(fleet) else { return };
    assert_eq!(agrees(&lab, "as it stands"), rows, "a table of another size");
    for (one, other) in cuts {
        lab.cut(one, other).expect("cut");
        agrees(&lab, &format!("{one} and {other} cut"));
        lab.mend(one, other).expect("mended");
    }
    for host in off {
        lab.power_off(host).expect("off");
        agrees(&lab, &format!("{host} without power"));
        lab.boot(host).expect("boot");
    }
    assert_eq!(agrees(&lab, "healed"), rows);
}

#[test]
fn the_reference_fleet_with_faults_is_what_the_oracle_says() {
    let cuts = [("site-a", "site-b"), ("drone-Izar", "drone-Tau-Beta"), ("Izar-Orchestrator", "drone-Tarn")];
    stands("alpha-centauri.toml", 60, &cuts, &["Alpha-Centauri", "drone-Tarn"]);
}

#[test]
fn the_reference_fleet_without_its_overlay_and_with_faults_is_what_the_oracle_says() {
    let Some(mut lab) = Lab::for_test(topology::ALPHA_CENTAURI) else { return };
    lab.overlay(false).expect("off");
    lab.cut("site-a", "site-b").expect("cut");
    agrees(&lab, "no overlay, sites cut");
    lab.cut("drone-Meridian", "drone-Tarn").expect("cut");
    agrees(&lab, "no overlay, sites and two neighbours cut");
    lab.mend_all().expect("mended");
    lab.cut("Alpha-Centauri", "drone-Tarn").expect("cut");
    agrees(&lab, "no overlay, a host cut from its router");
    lab.mend_all().expect("mended");
    agrees(&lab, "no overlay, all mended");
}

#[test]
fn every_other_shipped_fleet_with_faults_is_what_the_oracle_says() {
    stands("one-host.toml", 0, &[], &["only"]);
    stands("container-shares-address.toml", 9, &[("workstation", "drone")], &["workstation"]);
    stands("port-forward.toml", 18, &[("public", "home-1"), ("home", "internet"), ("home-2", "router")], &["router"]);
    stands("carrier-grade.toml", 9, &[("home-1", "public"), ("carrier", "internet")], &["home-router"]);
    stands("symmetric-both.toml", 12, &[("east-1", "relay"), ("west", "internet")], &["west-router"]);
    stands("two-sites-masqueraded.toml", 12, &[("east-1", "east-2"), ("east", "internet")], &["east-router"]);
}

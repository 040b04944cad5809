//! The oracle's table against the real kernel, pair by pair, for every shipped fleet: as it stands, and with each fault
//! that the oracle knows. The simulator rests on the same table.

use tests::lab::{Lab, dials};

fn agrees(lab: &Lab, when: &str) -> usize {
    let begun = std::time::Instant::now();
    let (dialled, differences) = dials::compare(lab).unwrap_or_else(|why| panic!("{when}: {why}"));
    assert_eq!(differences, Vec::<String>::new(), "{when}: {} of {dialled} dials differ", differences.len());
    eprintln!("{when}: {dialled} dials agree, {:.1} s", begun.elapsed().as_secs_f64());
    dialled
}

fn fleet(file: &str) -> &'static str {
    topology::FLEETS.iter().find(|(name, _)| *name == file).unwrap_or_else(|| panic!("no {file}")).1
}

#[test]
fn the_reference_fleet_is_what_the_oracle_says() {
    let Some(mut lab) = Lab::for_test(fleet("alpha-centauri.toml")) else { return };
    assert!(agrees(&lab, "as it stands") >= 60);
    lab.overlay(false).expect("off");
    assert!(agrees(&lab, "without the overlay") >= 60);
    lab.cut("site-a", "site-b").expect("cut");
    agrees(&lab, "sites cut from each other");
    lab.cut("drone-Izar", "drone-Tau-Beta").expect("cut");
    lab.mend("site-a", "site-b").expect("mended");
    agrees(&lab, "two neighbours cut");
    lab.mend_all().expect("mended");
    lab.power_off("Alpha-Centauri").expect("off");
    agrees(&lab, "without the gateway");
    lab.overlay(true).expect("on");
    agrees(&lab, "without the gateway, over the overlay");
    lab.boot("Alpha-Centauri").expect("boot");
    agrees(&lab, "healed");
}

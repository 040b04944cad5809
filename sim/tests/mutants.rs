//! A rule left out must show: every mutant is caught from random seeds, or named with the reason why not.
//!
//! `SIM_SEED_BASE` moves the range of seeds, so that a nightly run tries others than the last.

use mesh::mutants::Mutant;
use sim::mutants::{CAUGHT, Catch, DIRECTED};

fn base() -> u64 {
    std::env::var("SIM_SEED_BASE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

#[test]
fn random_seeds_catch_the_mutants() {
    let hunt = |catch: &Catch| (catch.mutant, catch.by, catch.first(base()).unwrap());
    let hunted: Vec<_> = CAUGHT.iter().map(hunt).collect();
    for (mutant, by, seed) in &hunted {
        println!("{:<28} {by:<24} {seed:?}", mutant.name());
    }
    let missed: Vec<_> = hunted.iter().filter(|(.., seed)| seed.is_none()).map(|(mutant, ..)| mutant.name()).collect();
    assert_eq!(missed, Vec::<&str>::new(), "not caught from seed {} on", base());
}

#[test]
fn every_mutant_is_in_the_table_once() {
    let mut named: Vec<Mutant> = CAUGHT.iter().map(|c| c.mutant).chain(DIRECTED.iter().map(|(m, _)| *m)).collect();
    named.sort_unstable();
    let mut every = Mutant::ALL.to_vec();
    every.sort_unstable();
    assert_eq!(named, every);
}

/// The program itself is built without the naive variants: only this crate asks for them.
#[test]
fn the_daemon_has_no_mutants() {
    let tree = |of: &str| {
        let mut cargo = std::process::Command::new(env!("CARGO"));
        cargo.args(["tree", "--offline", "-e", "features", "-p", of, "-i", "mesh"]);
        let out = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    assert!(!tree("node").contains("feature \"mutants\""), "{}", tree("node"));
    assert!(tree("sim").contains("mesh feature \"mutants\""), "{}", tree("sim"));
}

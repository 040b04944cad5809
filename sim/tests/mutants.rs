//! A rule left out must show: every mutant is caught from random seeds, or named with the reason why not.
//!
//! `SIM_SEED_BASE` moves the range of seeds, so that a nightly run tries others than the last.
#![allow(clippy::unwrap_used)] // helpers of tests, which clippy does not exempt

use mesh::mutants::Mutant;
use sim::mutants::{CAUGHT, Catch, DIRECTED, WALKS, Walk};
use sim::orders::{Size, run};
use std::collections::{BTreeMap, BTreeSet};

/// Where the ranges begin, besides the one that is asked for.
const BASE: u64 = 7_000;

fn base() -> u64 {
    std::env::var("SIM_SEED_BASE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Hunts every mutant from a seed on; a part of them, so that parts run beside each other.
fn hunt(base: u64, part: usize) {
    let mine = CAUGHT.iter().enumerate().filter(|(n, _)| n % PARTS == part).map(|(_, catch)| catch);
    let hunted: Vec<_> = mine.map(|catch| (catch, catch.first(base).unwrap())).collect();
    for (Catch { mutant, by, within, .. }, seed) in &hunted {
        let took = seed.map(|seed| seed - base + 1);
        let by = by.join(" or ");
        println!("{:<28} {by:<24} within {within:>3} from {base}: {took:?}", mutant.name());
    }
    let missed: Vec<_> = hunted.iter().filter(|(_, seed)| seed.is_none()).map(|(c, _)| c.mutant.name()).collect();
    assert_eq!(missed, Vec::<&str>::new(), "not caught from seed {base} on");
}

/// Parts of the plans: each is half a minute where nothing else runs.
const PARTS: usize = 4;

#[test]
fn random_seeds_catch_the_first_part() {
    hunt(base(), 0);
}

#[test]
fn random_seeds_catch_the_second_part() {
    hunt(base(), 1);
}

#[test]
fn random_seeds_catch_the_third_part() {
    hunt(base(), 2);
}

#[test]
fn random_seeds_catch_the_fourth_part() {
    hunt(base(), 3);
}

#[test]
fn random_seeds_from_elsewhere_catch_the_first_part() {
    hunt(base() + BASE, 0);
}

#[test]
fn random_seeds_from_elsewhere_catch_the_second_part() {
    hunt(base() + BASE, 1);
}

#[test]
fn random_seeds_from_elsewhere_catch_the_third_part() {
    hunt(base() + BASE, 2);
}

#[test]
fn random_seeds_from_elsewhere_catch_the_fourth_part() {
    hunt(base() + BASE, 3);
}

/// Each check of a warrant, of a voter, of blame and of healing, left out on walks of small fleets.
fn hunt_on_walks(base: u64, part: usize) {
    let mut known: BTreeMap<u64, bool> = BTreeMap::new();
    let mut missed = vec![];
    for walk in WALKS.iter().enumerate().filter(|(n, _)| n % WALK_PARTS == part).map(|(_, walk)| walk) {
        let sound = |seed| *known.entry(seed).or_insert_with(|| run(seed, Size::SMALL, None).failure.is_none());
        let seed = walk.first(base, sound);
        let Walk { mutant, by, within } = walk;
        println!("{:<28} {by:<24} within {within:>3} from {base}: {:?}", mutant.name(), seed.map(|s| s - base + 1));
        if seed.is_none() {
            missed.push(mutant.name());
        }
    }
    assert_eq!(missed, Vec::<&str>::new(), "not caught from seed {base} on");
    let unsound: Vec<&u64> = known.iter().filter(|(_, sound)| !**sound).map(|(seed, _)| seed).collect();
    assert!(unsound.is_empty(), "with all rules in place: sim orders --count 1 --small --seed {unsound:?}");
}

/// Parts of the walks: each is a minute or less where nothing else runs.
const WALK_PARTS: usize = 8;

#[test]
fn walks_catch_the_first_part() {
    hunt_on_walks(base(), 0);
}

#[test]
fn walks_catch_the_second_part() {
    hunt_on_walks(base(), 1);
}

#[test]
fn walks_catch_the_third_part() {
    hunt_on_walks(base(), 2);
}

#[test]
fn walks_catch_the_fourth_part() {
    hunt_on_walks(base(), 3);
}

#[test]
fn walks_catch_the_fifth_part() {
    hunt_on_walks(base(), 4);
}

#[test]
fn walks_catch_the_sixth_part() {
    hunt_on_walks(base(), 5);
}

#[test]
fn walks_catch_the_seventh_part() {
    hunt_on_walks(base(), 6);
}

#[test]
fn walks_catch_the_eighth_part() {
    hunt_on_walks(base(), 7);
}

/// A rule that no mutant breaks is one that nobody has seen judged.
#[test]
fn every_invariant_catches_a_mutant() {
    let all = sim::invariants::all();
    let plans = CAUGHT.iter().flat_map(|catch| catch.by.iter().copied());
    let catches: BTreeSet<&str> = plans.chain(WALKS.iter().map(|walk| walk.by)).collect();
    let idle: Vec<&str> = all.iter().map(|i| i.name()).filter(|name| !catches.contains(name)).collect();
    assert_eq!(idle, Vec::<&str>::new());
}

#[test]
fn every_mutant_is_in_the_table_once() {
    let walks = WALKS.iter().map(|walk| walk.mutant);
    let directed = DIRECTED.iter().map(|(mutant, _)| *mutant);
    let mut named: Vec<Mutant> = CAUGHT.iter().map(|catch| catch.mutant).chain(walks).chain(directed).collect();
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

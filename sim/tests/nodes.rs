//! Whole nodes: the scenario goes as it must, and a seed is a run, in one process, in two, and in company.
#![allow(clippy::unwrap_used)] // helpers of tests, which clippy does not exempt

use sim::det::{Options, Source};
use sim::scenarios::{Report, Scenario, run};
use std::collections::BTreeSet;
use std::process::Command;

fn played(scenario: Scenario, seed: u64) -> Report {
    let report = run(scenario, seed, Options::default(), None);
    assert_eq!(report.result, Ok(()), "replay: sim run --scenario {scenario:?} --seed {seed}");
    assert_eq!(report.summary.errors, Vec::<String>::new(), "{scenario:?} {seed}");
    assert!(report.summary.bytes > 50_000 && report.summary.commits > 50, "hardly anything: {:?}", report.summary);
    report
}

fn equal(one: &Report, two: &Report) {
    assert_eq!(one.summary, two.summary);
    assert_eq!(one.random_bytes, two.random_bytes);
}

#[test]
fn two_runs_of_a_seed_are_equal_and_seeds_differ() {
    let mut hashes = BTreeSet::new();
    for seed in [1, 2, 3, 5, 7] {
        let first = played(Scenario::Three, seed);
        equal(&first, &played(Scenario::Three, seed));
        hashes.insert(first.summary.hash);
    }
    assert_eq!(hashes.len(), 5);
}

#[test]
fn two_runs_are_equal_beside_another_simulation() {
    let alone = played(Scenario::ThreePowerCut, 1);
    let (beside, other) = std::thread::scope(|scope| {
        let other = scope.spawn(|| played(Scenario::Three, 2));
        (played(Scenario::ThreePowerCut, 1), other.join().unwrap())
    });
    equal(&alone, &beside);
    assert_ne!(alone.summary.hash, other.summary.hash);
}

#[test]
fn two_processes_agree() {
    let in_another_process = || {
        let args = ["run", "--scenario", "three-power-cut", "--seed", "2"];
        let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let hash = in_another_process();
    assert_eq!(hash, in_another_process());
    assert_eq!(hash, played(Scenario::ThreePowerCut, 2).summary.hash, "another executable, the same bytes");
}

#[test]
fn a_real_clock_or_real_randomness_shows() {
    let simulated = played(Scenario::Three, 1).summary.hash;
    let clock = Options { clock: Source::Real, ..Options::default() };
    let randomness = Options { randomness: Source::Real, ..Options::default() };
    // How such a run ends is not asked: its leases and timers go by two clocks.
    for control in [clock, randomness] {
        let hash = || run(Scenario::Three, 1, control, None).summary.hash;
        let (one, two) = (hash(), hash());
        assert!(one != two && one != simulated, "{control:?}");
    }
}

#[test]
fn the_program_lists_what_it_plays() {
    let output = Command::new(env!("CARGO_BIN_EXE_sim")).arg("list").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let names: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names[..4], ["chaos", "swarms", "three", "three-power-cut"]);
    assert!(names[4..].iter().all(|name| name.starts_with("incident-")), "{names:?}");
}

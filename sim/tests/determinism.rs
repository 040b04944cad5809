//! Same seed, same bytes: in one process, in two, and beside another simulation. And the controls: what
//! is not simulated must show in the hash, or the hash would prove nothing.
#![allow(clippy::unwrap_used)] // helpers of tests, which clippy does not exempt

use sim::det::{self, Options, Source};
use sim::scenarios::{Report, Scenario, run};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn swarms(seed: u64, options: Options) -> Report {
    let report = run(Scenario::Swarms, seed, options, None);
    assert_eq!(report.result, Ok(()), "replay: sim run --scenario swarms --seed {seed}");
    assert_eq!(report.summary.errors, Vec::<String>::new());
    assert!(report.summary.bytes > 50_000, "hardly anything was delivered: {:?}", report.summary);
    report
}

#[test]
fn two_runs_of_a_seed_are_equal_in_one_process_and_beside_another() {
    let first = swarms(1, Options::default());
    let (second, other) = std::thread::scope(|scope| {
        let other = scope.spawn(|| swarms(2, Options::default()));
        (swarms(1, Options::default()), other.join().unwrap())
    });
    assert_eq!(first.summary, second.summary);
    assert_eq!(first.random_bytes, second.random_bytes);
    assert_ne!(first.summary.hash, other.summary.hash, "seeds must differ");
}

#[test]
fn two_runs_of_a_seed_are_equal_in_two_processes() {
    let in_another_process = || {
        let args = ["run", "--scenario", "swarms", "--seed", "1"];
        let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(args).output().expect("sim runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let hash = in_another_process();
    assert_eq!(hash, in_another_process());
    assert_eq!(hash, swarms(1, Options::default()).summary.hash, "another executable, the same bytes");
}

/// Drawn plans, as a sweep plays them: each seed twice beside others, and once more in another process, whose threads
/// share the seeds out in another way. How a seed ends is the sweeps' affair. `scripts/sweep` compares fifty a tier.
fn drawn_plans_are_equal(tier: &str, seeds: &str) {
    let swept = |more: &[&str]| {
        let args = [&["sweep", "--tier", tier, "--seeds", seeds, "--no-coverage"], more].concat();
        let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(args).output().expect("sim runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains(" differ: "), "{said}");
        (String::from_utf8_lossy(&output.stdout).into_owned(), said)
    };
    let (first, said) = swept(&["--jobs", "2", "--twice"]);
    let (second, _) = swept(&["--jobs", "3"]);
    assert!(first.lines().any(|line| line.starts_with("hash ")), "{first}{said}");
    assert_eq!(first, second, "sim sweep --tier {tier} --seeds {seeds}");
}

#[test]
fn drawn_plans_give_the_same_bytes_on_bare_cores() {
    drawn_plans_are_equal("cores", "900000..900012");
}

#[test]
fn a_drawn_plan_gives_the_same_bytes_on_whole_nodes() {
    drawn_plans_are_equal("nodes", "3..4");
}

#[test]
fn a_real_clock_or_real_randomness_shows_in_the_hash() {
    let simulated = swarms(1, Options::default()).summary.hash;
    let clock = Options { clock: Source::Real, ..Options::default() };
    let randomness = Options { randomness: Source::Real, ..Options::default() };
    for control in [clock, randomness] {
        let (one, two) = (swarms(1, control).summary.hash, swarms(1, control).summary.hash);
        assert_ne!(one, two, "{control:?}");
        assert_ne!(one, simulated, "{control:?}");
    }
}

#[test]
fn a_simulation_rules_its_thread_and_no_other() {
    let draw = |seed, options| {
        det::run(seed, options, || {
            let mut keys = std::collections::HashMap::new();
            keys.extend((0..50).map(|n| (n, ())));
            let order: Vec<i32> = keys.into_keys().collect();
            (order, rand::random::<u64>(), Instant::now(), SystemTime::now())
        })
    };
    let (one, two) = (draw(1, Options::default()), draw(1, Options::default()));
    assert_eq!(one, two);
    assert_eq!(one.3, UNIX_EPOCH + Duration::from_secs(det::EPOCH_S));
    let other = draw(2, Options::default());
    assert!(one.0 != other.0 && one.1 != other.1);
    let real = draw(1, Options { clock: Source::Real, randomness: Source::Real });
    assert!(one.0 != real.0 && one.1 != real.1 && one.3 != real.3);
    // This thread, beside them, has never left the real world.
    assert!(SystemTime::now() != UNIX_EPOCH + Duration::from_secs(det::EPOCH_S));
    assert_ne!(rand::random::<u64>(), one.1);
}

#[test]
fn derived_seeds_differ_by_every_part() {
    let seeds = [det::derive(1, "a", 1), det::derive(2, "a", 1), det::derive(1, "b", 1), det::derive(1, "a", 2)];
    assert_eq!(seeds.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
}

#[test]
fn the_program_says_how_it_went() {
    let sim = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_sim")).args(args).output().unwrap().status.code();
    assert_eq!(sim(&["run", "--scenario", "nonsense"]), Some(64));
    assert_eq!(sim(&["run", "--scenario", "swarms", "--trace", "/nowhere/at/all"]), Some(64));
    assert_eq!(sim(&["run", "--scenario", "swarms", "--repeat", "2", "--real-randomness"]), Some(4));
}

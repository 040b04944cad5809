//! The command line: it lists, runs, sweeps, replays and shrinks, and its exit codes say what it found.
//!
//! What it plays here is a small mesh of its own, [`relay`]: whoever is first among the running hosts gives
//! out the work and tells the others a little later. The hasty one acts before it tells, and a crash in
//! between gives work out twice; the careful one tells first.
#![allow(clippy::unwrap_used)] // helpers of tests, which clippy does not exempt

mod relay;

use sim::plan::Plan;
use sim::tool::{self, Io, Stages};
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// Exit code, standard output, standard error.
fn sim(stages: &Stages, words: &str) -> (u8, String, String) {
    let (out, err) = (Buffer::default(), Buffer::default());
    let mut io = Io { out: Box::new(out.clone()), err: Box::new(err.clone()), terminal: false, colour: false };
    let args = std::iter::once("sim").chain(words.split_whitespace()).map(OsString::from);
    let code = tool::main(args, stages, &mut io);
    (code, out.text(), err.text())
}

/// A folder of one test, empty.
fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A plan for [`relay`]: the leader crashes after so many milliseconds, while its work is under way.
fn plan(crash_ms: u64, liveness_ms: u64, task: &str) -> String {
    format!(
        "scenario = \"chaos\"\ntier = \"cores\"\nseed = 3\ntopology = \"alpha-centauri\"\n\
         hosts = [\"drone-Izar\", \"drone-Tarn\", \"drone-Meridian\"]\n\
         safety_ms = 2000\nliveness_ms = {liveness_ms}\n\
         [[action]]\nat_ms = 100\ndo = \"submit\"\nhost = \"leader\"\nrequest = 1\ntasks = [{task}]\n\
         [[action]]\nat_ms = {crash_ms}\ndo = \"crash\"\nhost = \"leader\"\n"
    )
}

const TASK: &str = "{ name = \"one\", takes_ms = 300 }";

#[test]
fn the_program_lists_what_there_is_and_hints_at_what_was_meant() {
    let program = |words: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(words.split(' ')).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let (code, out, err) = program("list");
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(["chaos", "swarms", "three", "three-power-cut"].iter().all(|name| out.contains(name)), "{out}");
    assert!(program("list mutants").1.contains("no-fence-check"));
    assert!(program("list faults").1.contains("swap-addresses"));
    assert!(program("list fleets").1.contains("alpha-centauri"));

    for (words, hint) in [
        ("run --scenario choas", "`chaos`"),
        ("run --faults power-cuts", "`power-cut`"),
        ("run --mutant no-fence", "`no-fence-check`"),
        ("run --topology nowhere", "sim list fleets"),
        ("run --scenario three --tier cores", "--tier"),
        ("run --scenario three --faults crash", "--scenario chaos"),
        ("shrink --scenario three", "chaos"),
        ("sweep --seeds 9..3", "0..1000"),
        ("sweep --seeds 0..9 --budget 3", "90s"),
        ("replay no-such-file", "--plan-out"),
    ] {
        let (code, out, err) = program(words);
        assert_eq!((code, out.as_str()), (64, ""), "{words}: {err}");
        assert!(err.contains(hint), "{words}: {err}");
    }
}

#[test]
fn a_run_can_be_written_replayed_and_repeated_with_one_hash() {
    let folder = folder("replayed");
    let file = folder.join("plan.toml");
    let (code, hash, err) = sim(&relay::CAREFUL, &format!("run --seed 14 --repeat 2 --plan-out {}", file.display()));
    assert_eq!(code, 0, "{err}");
    let hashes: Vec<&str> = hash.lines().collect();
    assert_eq!((hashes.len(), hashes[0]), (2, hashes[1]));
    let (code, replayed, err) = sim(&relay::CAREFUL, &format!("replay {}", file.display()));
    assert_eq!((code, replayed.trim()), (0, hashes[0]), "{err}");
    assert_ne!(sim(&relay::CAREFUL, "run --seed 12").1, replayed, "seeds must differ");

    // What is only for people does not touch the hash.
    let trace = folder.join("trace");
    let (_, watched, _) = sim(&relay::CAREFUL, &format!("replay {} --trace {}", file.display(), trace.display()));
    assert_eq!(watched, replayed);
    let timeline = std::fs::read_to_string(&trace).unwrap();
    assert!(timeline.lines().any(|line| line.contains("PLAN      request 1 at")), "{timeline}");
    assert!(timeline.lines().any(|line| line.contains("fact      begins b")), "{timeline}");
    let plan = Plan::parse("plan.toml", &std::fs::read_to_string(&file).unwrap()).unwrap();
    let svg = std::fs::read_to_string(folder.join("trace.svg")).unwrap();
    for host in &plan.hosts {
        assert!(svg.contains(&format!("id=\"lane-{host}\"")), "no lane for {host}");
    }
}

#[test]
fn what_differs_between_two_runs_has_an_exit_code_of_its_own() {
    // The relay asks nothing of clocks and randomness, but for this variant: a coin of the real world.
    let (code, _, err) = sim(&relay::RESTLESS, "run --seed 1 --repeat 8 --real-randomness");
    assert_eq!(code, 4, "{err}");
    assert!(err.contains("two runs of one seed differ"), "{err}");
    let (code, _, err) = sim(&relay::RESTLESS, "run --seed 1 --repeat 8");
    assert_eq!(code, 0, "simulated randomness is the same each time: {err}");
}

#[test]
fn exit_codes_tell_crash_safety_and_liveness_apart() {
    let folder = folder("codes");
    let run = |stages: &Stages, name: &str, text: &str| {
        let file = folder.join(name);
        std::fs::write(&file, text).unwrap();
        sim(stages, &format!("replay {}", file.display()))
    };
    let (code, _, err) = run(&relay::CAREFUL, "fine.toml", &plan(170, 5_000, TASK));
    assert_eq!(code, 0, "{err}");

    let (code, _, err) = run(&relay::HASTY, "safety.toml", &plan(170, 5_000, TASK));
    assert_eq!(code, 2, "{err}");
    for wanted in ["begun-once is broken at 1.", "b1 begins twice", "hosts: ", "drone-Tarn", "see it again: sim replay"]
    {
        assert!(err.contains(wanted), "{wanted}: {err}");
    }
    // In order, the crash before what it led to.
    let at = |what: &str| err.find(what).unwrap_or_else(|| panic!("{what}: {err}"));
    assert!(at("PLAN      crash leader") < at("stops") && at("stops") < at("FAILED"), "{err}");

    let slow = TASK.replace("300", "60000");
    let (code, _, err) = run(&relay::CAREFUL, "liveness.toml", &plan(170, 1_000, &slow));
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("b1 has not ended"), "{err}");

    let broken = TASK.replace('}', ", exit = 99 }");
    let (code, _, err) = run(&relay::CAREFUL, "crash.toml", &plan(1_900, 5_000, &broken));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("panic at sim/tests/relay/mod.rs") && err.contains("no such exit code"), "{err}");
}

#[test]
fn a_planted_failure_shrinks_to_what_makes_it() {
    let folder = folder("shrunk");
    // A seed whose plan fails, found as anybody would find it.
    let words = format!("sweep --seeds 0..400 --no-coverage --jobs 2 --out {}", folder.display());
    let (code, _, err) = sim(&relay::HASTY, &words);
    assert_eq!(code, 2, "no seed of 400 crashes the leader at the wrong moment: {err}");
    let failing: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let longest = failing.iter().max_by_key(|file| std::fs::metadata(file).unwrap().len()).unwrap();
    let before = Plan::parse("before", &std::fs::read_to_string(longest).unwrap()).unwrap();

    let small = folder.join("small.toml");
    let (code, _, err) = sim(&relay::HASTY, &format!("shrink {} --out {}", longest.display(), small.display()));
    assert_eq!(code, 2, "{err}");
    let after = Plan::parse("after", &std::fs::read_to_string(&small).unwrap()).unwrap();
    assert!(before.actions.len() > 10, "too small from the beginning: {}", before.actions.len());
    // Work, and the loss of who gave it out: nothing less breaks the rule.
    assert_eq!(after.actions.len(), 2, "{}", after.to_text());
    let mut kinds: Vec<&str> = after.actions.iter().map(|timed| timed.action.kind()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["crash", "submit"]);
    assert!(after.safety_ms < before.safety_ms && after.hosts.len() <= before.hosts.len());
    let (code, _, err) = sim(&relay::HASTY, &format!("replay {}", small.display()));
    assert_eq!(code, 2, "{err}");
    let (code, _, err) = sim(&relay::CAREFUL, &format!("shrink {}", small.display()));
    assert_eq!(code, 64, "a plan that does not fail cannot be shrunk: {err}");
    assert!(err.contains("does not fail"), "{err}");
}

#[test]
fn a_sweep_counts_what_it_tried_and_fails_for_what_it_did_not() {
    // The relay knows of crashes only.
    let (code, out, err) = sim(&relay::CAREFUL, "sweep --seeds 0..60 --jobs 2 --faults crash --twice");
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("begun-once") && out.lines().any(|line| line.starts_with("crash ")), "{out}");
    let again = sim(&relay::CAREFUL, "sweep --seeds 0..60 --jobs 3 --faults crash").1;
    assert_eq!(out, again, "neither threads nor a second run may show");

    let (code, _, err) = sim(&relay::CAREFUL, "sweep --seeds 0..60 --faults crash,suspend");
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("never tried: ") && err.contains("action suspend"), "{err}");
    assert_eq!(sim(&relay::CAREFUL, "sweep --seeds 0..60 --faults crash,suspend --no-coverage").0, 0);

    let (code, _, err) = sim(&relay::CAREFUL, "sweep --seeds 0..100000000 --no-coverage --budget 1s");
    assert_eq!(code, 6, "the budget ends it, and that is no success: {err}");
    assert!(err.contains("of 100000000 seeds: the others were not played"), "{err}");
}

#[test]
fn a_panic_is_a_crash_of_its_seed_and_ends_no_sweep() {
    let (code, out, err) = sim(&relay::PANICKY, "sweep --seeds 0..40 --jobs 2 --no-coverage");
    assert_eq!(code, 1, "{out}{err}");
    assert!(err.contains("40 of 40 seeds"), "{err}");
    assert!(
        err.contains("a third crash in one run") && err.contains("sim run --scenario chaos --tier cores --seed"),
        "{err}"
    );
}

#[test]
fn bare_cores_play_a_drawn_plan_the_same_in_every_process() {
    let folder = folder("cores");
    let (file, trace) = (folder.join("plan.toml"), folder.join("trace"));
    let program = |words: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(words.split(' ')).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap(), err)
    };
    for seed in [1, 3] {
        // Whatever comes of it, it is the same again.
        let (code, hash, err) = program(&format!("run --seed {seed} --plan-out {}", file.display()));
        assert!(code <= 3 && hash.trim().len() == 64, "{err}");
        let replay = format!("replay {} --repeat 2 --trace {}", file.display(), trace.display());
        let (again, hashes, err) = program(&replay);
        assert_eq!((again, hashes), (code, hash.repeat(2)), "{err}");
        let plan = Plan::parse("plan.toml", &std::fs::read_to_string(&file).unwrap()).unwrap();
        let svg = std::fs::read_to_string(folder.join("trace.svg")).unwrap();
        assert!(plan.hosts.iter().all(|host| svg.contains(&format!("id=\"lane-{host}\""))));
    }
}

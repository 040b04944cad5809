//! `sim sweep`: many seeds in parallel, what they tried, and which of them fail.

use super::args::{Many, Sweep};
use super::make::{Source, word};
use super::play::Outcome;
use super::table::Table;
use super::{DIFFER, ENDED, Io, Stages, UNTRIED, Wrong, run, tell};
use crate::det::Options;
use crate::draw::KINDS;
use crate::invariants::{OF_CORES, OF_ORDERS};
use crate::plan::Tier;
use crate::stage::Failure;
use crate::trace::Watch;
use std::collections::BTreeMap;
use std::io::Write;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How often a sweep says how far it is, when nobody sees a changing line.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// A seed that was run.
pub struct Ran {
    /// Which.
    pub seed: u64,
    /// How.
    pub outcome: Outcome,
    /// Whether a second run, if there was one, had another hash.
    pub differs: bool,
}

/// How to run them.
pub struct How<'a> {
    /// What makes them.
    pub source: &'a Source,
    /// Which, and by which means.
    pub many: &'a Many,
    /// Each is run twice and compared.
    pub twice: bool,
    /// When to begin no more.
    pub until: Option<Instant>,
}

/// Runs seeds and hands each to `see` as it ends, in no order; `see` may end it. Gives how many were run.
pub fn seeds(how: &How<'_>, stages: &Stages, mut see: impl FnMut(Ran) -> ControlFlow<()>) -> Result<u64, Wrong> {
    let jobs = how.many.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)).max(1);
    let (next, enough) = (AtomicU64::new(how.many.seeds.start), AtomicBool::new(false));
    let mut wrong = None;
    let mut count = 0;
    thread::scope(|scope| {
        // Bounded, so that a slow reader holds up the runs and not the memory.
        let (send, ran) = mpsc::sync_channel(jobs);
        for _ in 0..jobs {
            let (send, next, enough) = (send.clone(), &next, &enough);
            scope.spawn(move || {
                while !enough.load(Ordering::Relaxed) && how.until.is_none_or(|until| Instant::now() < until) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= how.many.seeds.end || send.send(one(how, seed, stages)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        for one in ran {
            count += 1;
            let end = match one {
                Ok(ran) => see(ran).is_break(),
                Err(error) => wrong.replace(error).is_none(),
            };
            if end {
                enough.store(true, Ordering::Relaxed);
            }
        }
    });
    wrong.map_or(Ok(count), Err)
}

fn one(how: &How<'_>, seed: u64, stages: &Stages) -> Result<Ran, Wrong> {
    let made = how.source.of(seed)?;
    let play = || run::once(&made, Options::default(), stages, Watch::default());
    let outcome = play();
    let differs = how.twice && play().summary.hash != outcome.summary.hash;
    Ok(Ran { seed, outcome, differs })
}

/// Runs the sweep.
pub fn sweep(args: &Sweep, stages: &Stages, io: &mut Io) -> Result<u8, Wrong> {
    let source = Source::new(&args.make)?;
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).map_err(|error| {
            Wrong::new(format!("{} cannot be made: {error}", folder.display()), "give another folder with --out")
        })?;
    }
    let begin = Instant::now();
    let how = How {
        source: &source,
        many: &args.many,
        twice: args.twice,
        until: args.many.budget.map(|budget| begin + budget),
    };
    let mut table = expected(&source, stages);
    let mut hashes = BTreeMap::new();
    let mut failures: BTreeMap<u64, Failure> = BTreeMap::new();
    let mut differing = vec![];
    let (mut cpu, mut simulated) = (Duration::ZERO, Duration::ZERO);
    let all = args.many.seeds.end - args.many.seeds.start;
    let mut said = begin;
    let count = seeds(&how, stages, |ran| {
        table.add(&ran.outcome.played);
        cpu += ran.outcome.cpu;
        simulated += ran.outcome.played.ended;
        if ran.differs {
            differing.push(ran.seed);
        }
        hashes.insert(ran.seed, ran.outcome.summary.hash);
        if let Some(failure) = ran.outcome.played.failure {
            clear(io);
            io.say(&format!("seed {}: {failure}", ran.seed));
            failures.insert(ran.seed, failure);
        }
        if io.terminal || said.elapsed() >= PROGRESS_EVERY {
            said = Instant::now();
            let line = format!("{} of {all} seeds, {} failed, {:.0?}", hashes.len(), failures.len(), begin.elapsed());
            if io.terminal {
                let _ = write!(io.err, "\r{line}\x1b[K");
                let _ = io.err.flush();
            } else {
                io.say(&line);
            }
        }
        ControlFlow::Continue(())
    })?;
    clear(io);

    table.lines().iter().for_each(|line| io.data(line));
    // One hash for all, in the order of the seeds: two sweeps are compared by one line.
    let mut hasher = blake3::Hasher::new_derive_key("mesh sim 2026 sweep v1");
    hashes.values().for_each(|hash| {
        hasher.update(hash.as_bytes());
    });
    io.data(&format!("hash {}", hasher.finalize().to_hex()));
    let name = format!("{} on {}", source.scenario(), word(source.tier()));
    io.say(&format!(
        "{name}: {count} of {all} seeds in {:.1?}, {} of CPU, {} of virtual time, {} failed",
        begin.elapsed(),
        tell::clock(cpu),
        tell::clock(simulated),
        failures.len()
    ));
    let code = verdict(args, &source, &table, &failures, &differing, io)?;
    let early = count < all;
    if early {
        io.error(&format!("the budget ended it after {count} of {all} seeds: the others were not played"));
    }
    // What stayed untried may be among those.
    Ok(if early && (code == 0 || code == UNTRIED) { ENDED } else { code })
}

fn clear(io: &mut Io) {
    if io.terminal {
        let _ = write!(io.err, "\r\x1b[K");
    }
}

/// What a sweep of this source has to try.
fn expected(source: &Source, stages: &Stages) -> Table {
    let all = (stages.invariants)();
    let elsewhere =
        |name: &&'static str| OF_ORDERS.contains(name) || source.tier() == Tier::Nodes && OF_CORES.contains(name);
    let invariants: Vec<&'static str> =
        all.iter().map(|invariant| invariant.name()).filter(|name| !elsewhere(name)).collect();
    // Of an action: a request that is sent again is a submission. Who asks for some faults wants to see those.
    let all = KINDS.iter().filter(|kind| source.is_drawn() && kind.name != "request-again");
    let asked = all.filter(|kind| source.faults().is_none_or(|only| only.contains(kind.name)));
    Table::expecting(&invariants, &asked.map(|kind| kind.name).collect::<Vec<_>>())
}

fn verdict(
    args: &Sweep,
    source: &Source,
    table: &Table,
    failures: &BTreeMap<u64, Failure>,
    differing: &[u64],
    io: &mut Io,
) -> Result<u8, Wrong> {
    for (seed, failure) in failures {
        let what = match failure {
            Failure::Crash(_) => "crash",
            Failure::Safety(violation) => violation.invariant,
            Failure::Liveness { .. } => "liveness",
        };
        io.error(&format!("seed {seed}: {what}: {}", source.command(*seed)));
        if let (Some(folder), Ok(plan)) = (&args.out, source.plan(*seed)) {
            let file = folder.join(format!("{}-{}-{seed}.toml", source.scenario(), word(source.tier())));
            run::write(&file, &plan.to_text())?;
        }
    }
    if let Some(folder) = args.out.as_ref().filter(|_| !failures.is_empty()) {
        io.hint(&format!("the plans are in {}: `sim shrink FILE` makes one small", folder.display()));
    }
    for seed in differing {
        io.error(&format!("two runs of seed {seed} differ: {} --repeat 2 --trace t", source.command(*seed)));
    }
    let untried = if args.no_coverage { vec![] } else { table.untried() };
    if !untried.is_empty() {
        io.error(&format!("never tried: {}", untried.join(", ")));
        io.hint("run more seeds, or say --no-coverage when they are few on purpose");
    }
    let failed = failures.values().map(Failure::code);
    // The worst is the one that may lose work: safety, then liveness, then a crash.
    let worst = failed.min_by_key(|code| [2, 3, 1].iter().position(|worse| worse == code));
    Ok(match worst {
        Some(code) => code,
        None if !differing.is_empty() => DIFFER,
        None if !untried.is_empty() => UNTRIED,
        None => 0,
    })
}

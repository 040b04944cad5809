//! `sim mutants`: a rule left out must show. Each mutant is run until a seed catches it: the seed fails with the
//! mutant, and does not without.
//!
//! By itself it plays the [tables](crate::mutants), each row's own plans or walks within its own bound: what `tests/mutants.rs`
//! plays from its seeds can be played from any. With a tier, a fleet, faults or a scenario, those plans are played, and
//! any failure will do. Judges nothing itself.

use super::args::{Make, Mutants};
use super::make::Source;
use super::sweep::{self, How, Ran};
use super::{ENDED, Io, Stages, UNTRIED, Wrong, run};
use crate::det::Options;
use crate::mutants::{DIRECTED, Row};
use crate::stage::Failure;
use crate::trace::Watch;
use mesh::mutants::Mutant;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

/// Runs them all, or the one that was asked for.
pub fn mutants(args: &Mutants, stages: &Stages, io: &mut Io) -> Result<u8, Wrong> {
    let Make { scenario, tier, topology, faults, mutant } = &args.make;
    if scenario == "chaos" && tier.is_none() && topology.is_none() && faults.is_none() {
        let only = |of: &Mutant| mutant.is_none_or(|only| only == *of);
        let rows: Vec<Row> = Row::all().filter(|row| only(&row.says().0)).collect();
        if !rows.is_empty() {
            return table(args, &rows, mutant.is_none(), io);
        }
    }
    hunt(args, stages, io)
}

/// Plays rows of the table, each from the first seed on and within its own bound.
fn table(args: &Mutants, rows: &[Row], whole: bool, io: &mut Io) -> Result<u8, Wrong> {
    let seeds = &args.many.seeds;
    let until = args.many.budget.map(|budget| Instant::now() + budget);
    let jobs = args.many.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)).max(1);
    let next = AtomicUsize::new(0);
    let (mut uncaught, mut unplayed) = (vec![], vec![]);
    let mut wrong = None;
    io.data(&format!("{:<28} {:>7} {:>7} {:>10}  CAUGHT BY", "MUTANT", "SEEDS", "WITHIN", "SEED"));
    thread::scope(|scope| {
        let (send, played) = mpsc::sync_channel(jobs);
        for _ in 0..jobs {
            let (send, next) = (send.clone(), &next);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(row) = rows.get(number) else { return };
                    let end = seeds.end.min(seeds.start.saturating_add(row.says().2));
                    let in_time = |_: &u64| until.is_none_or(|until| Instant::now() < until);
                    let mut tried = 0;
                    let caught = (seeds.start..end).take_while(in_time).find_map(|seed| {
                        tried += 1;
                        row.catches(seed).map(|catches| catches.then_some(seed)).transpose()
                    });
                    if send.send((number, tried, caught.transpose())).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        // In the table's order, whoever ends first.
        let mut ended = BTreeMap::new();
        let mut rows = rows.iter().enumerate().peekable();
        for (number, tried, caught) in played {
            ended.insert(number, (tried, caught));
            while let Some((number, row)) = rows.next_if(|(number, _)| ended.contains_key(number))
                && let Some((tried, caught)) = ended.remove(&number)
            {
                let (mutant, by, within) = row.says();
                let (seed, by) = match caught {
                    Ok(Some(seed)) => (seed.to_string(), by),
                    Ok(None) => {
                        let all = within.min(seeds.end - seeds.start);
                        if tried < all { &mut unplayed } else { &mut uncaught }.push(mutant.name());
                        ("-".to_owned(), "nothing".to_owned())
                    }
                    Err(text) => {
                        wrong = Some(Wrong::new(text, "`sim list fleets` has all"));
                        continue;
                    }
                };
                io.data(&format!("{:<28} {tried:>7} {within:>7} {seed:>10}  {by}", mutant.name()));
            }
        }
    });
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    if whole {
        io.say(&format!("{} more are shown by cases of their own: sim/tests/mutants_pure.rs", DIRECTED.len()));
    }
    Ok(verdict(&uncaught, &unplayed, io))
}

/// Looks for any seed that fails with a mutant, and not without.
fn hunt(args: &Mutants, stages: &Stages, io: &mut Io) -> Result<u8, Wrong> {
    let source = Source::new(&args.make)?;
    source.plan(args.many.seeds.start)?; // a scenario that runs by its own code has no mutants
    let only = source.mutant();
    let chosen: Vec<Mutant> = Mutant::ALL.iter().copied().filter(|m| only.is_none_or(|only| only == *m)).collect();
    let whole = source.with_mutant(None);
    let begin = Instant::now();
    let (mut uncaught, mut unplayed) = (vec![], vec![]);
    let all = args.many.seeds.end - args.many.seeds.start;
    io.data(&format!("{:<28} {:>7} {:>10}  CAUGHT BY", "MUTANT", "SEEDS", "SEED"));
    for (number, mutant) in chosen.iter().enumerate() {
        // What is left of the time is shared by those that are left.
        let left = args.many.budget.map(|budget| budget.saturating_sub(begin.elapsed()));
        let until = left.map(|left| Instant::now() + left / (chosen.len() - number) as u32);
        let mutated = source.with_mutant(Some(*mutant));
        let how = How { source: &mutated, many: &args.many, twice: false, until };
        let mut caught: Option<(u64, Failure)> = None;
        let count = sweep::seeds(&how, stages, |Ran { seed, outcome, .. }| match outcome.played.failure {
            // What fails with the rule in its place says nothing about the rule.
            Some(_) if fails(&whole, seed, stages) => ControlFlow::Continue(()),
            // Several runs end at about the same time: the least seed is the same on every machine, mostly.
            Some(failure) => {
                if caught.as_ref().is_none_or(|(before, _)| seed < *before) {
                    caught = Some((seed, failure));
                }
                ControlFlow::Break(())
            }
            None => ControlFlow::Continue(()),
        })?;
        match caught {
            Some((seed, failure)) => {
                let by = match &failure {
                    Failure::Crash(text) => format!("crash: {text}"),
                    Failure::Safety(violation) => violation.invariant.to_owned(),
                    Failure::Liveness { pending } => {
                        format!("liveness: {}", pending.first().map_or("", String::as_str))
                    }
                };
                io.data(&format!("{:<28} {count:>7} {seed:>10}  {by}", mutant.name()));
            }
            None => {
                io.data(&format!("{:<28} {count:>7} {:>10}  nothing", mutant.name(), "-"));
                if count < all { &mut unplayed } else { &mut uncaught }.push(mutant.name());
            }
        }
    }
    Ok(verdict(&uncaught, &unplayed, io))
}

fn verdict(uncaught: &[&str], unplayed: &[&str], io: &mut Io) -> u8 {
    if !unplayed.is_empty() {
        io.error(&format!("the budget ended it before all seeds were played for {}", unplayed.join(", ")));
    }
    if uncaught.is_empty() {
        return if unplayed.is_empty() { 0 } else { ENDED };
    }
    io.error(&format!("nothing catches {}", uncaught.join(", ")));
    io.hint("a rule that can be left out unnoticed is not tested: more seeds, a scenario, or an invariant");
    UNTRIED
}

/// Whether a seed fails, whatever is wrong.
fn fails(source: &Source, seed: u64, stages: &Stages) -> bool {
    let play = |made| run::once(&made, Options::default(), stages, Watch::default());
    source.of(seed).is_ok_and(|made| play(made).played.failure.is_some())
}

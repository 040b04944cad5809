//! `sim mutants`: a rule left out must show. Each mutant is run until a seed catches it: the seed fails with the
//! mutant, and does not without.

use super::args::Mutants;
use super::make::Source;
use super::sweep::{self, How, Ran};
use super::{Io, Stages, UNTRIED, Wrong, run};
use crate::det::Options;
use crate::stage::Failure;
use crate::trace::Watch;
use mesh::mutants::Mutant;
use std::ops::ControlFlow;
use std::time::Instant;

/// Runs them all, or the one that was asked for.
pub fn mutants(args: &Mutants, stages: &Stages, io: &mut Io) -> Result<u8, Wrong> {
    let source = Source::new(&args.make)?;
    source.plan(args.many.seeds.start)?; // a scenario that runs by its own code has no mutants
    let only = source.mutant();
    let chosen: Vec<Mutant> = Mutant::ALL.iter().copied().filter(|m| only.is_none_or(|only| only == *m)).collect();
    let whole = source.with_mutant(None);
    let begin = Instant::now();
    let mut uncaught = vec![];
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
                uncaught.push(mutant.name());
            }
        }
    }
    if uncaught.is_empty() {
        return Ok(0);
    }
    io.error(&format!("nothing catches {}", uncaught.join(", ")));
    io.hint("a rule that can be left out unnoticed is not tested: more seeds, a scenario, or an invariant");
    Ok(UNTRIED)
}

/// Whether a seed fails, whatever is wrong.
fn fails(source: &Source, seed: u64, stages: &Stages) -> bool {
    let play = |made| run::once(&made, Options::default(), stages, Watch::default());
    source.of(seed).is_ok_and(|made| play(made).played.failure.is_some())
}

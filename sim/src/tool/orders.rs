//! `sim orders`: orders by the thousand over generated fleets ([`crate::orders`]), and what became of them.

use super::args::{Orders, TierName};
use super::run::timeline;
use super::{ENDED, Io, UNTRIED, Wrong};
use crate::draw::Ground;
use crate::nodes::run_orders;
use crate::orders::{Counts, Ran, Size, run};
use crate::scenarios::fleets;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// From so many orders on bare cores on, an invariant that had nothing to judge fails the run: fewer may miss it.
const COVERS: u64 = 10_000;

/// What is shared by those that play.
struct Shared {
    next: u64,
    counts: Counts,
    runs: u64,
    broken: Option<(u64, Ran)>,
    wrong: Option<String>,
}

/// Plays seeds until so many orders were made, or one run breaks a rule.
pub fn orders(args: &Orders, io: &mut Io) -> Result<u8, Wrong> {
    let size = if args.small { Size::SMALL } else { Size::LARGE };
    let size = if args.small { size } else { Size { orders: size.orders.min(args.count.max(1)), ..size } };
    let nodes = args.tier == TierName::Nodes;
    let grounds: Vec<Ground> = match nodes {
        false => vec![],
        true => {
            let shipped = fleets::shipped().map_err(|error| Wrong::new(error, ""))?;
            shipped.into_iter().map(|(name, fleet)| Ground::new(name, fleet)).collect()
        }
    };
    let timeline = match &args.trace {
        Some(_) if !nodes => return Err(Wrong::new("only whole nodes have a trace", "add `--tier nodes`")),
        Some(file) => Some(timeline(file)?),
        None => None,
    };
    let timeline = Mutex::new(timeline);
    let play_one = |seed: u64| match nodes {
        true => {
            let first = (seed == args.seed).then(|| timeline.lock().ok()?.take()).flatten();
            run_orders(seed, args.count, &grounds, args.mutant, first)
        }
        false => Ok(run(seed, size, args.mutant)),
    };
    let begin = Instant::now();
    let until = args.budget.map(|budget| begin + budget);
    let (next, counts) = (args.seed, Counts::default());
    let shared = Mutex::new(Shared { next, counts, runs: 0, broken: None, wrong: None });
    let jobs = args.jobs.max(1);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| play(args, &play_one, until, &shared));
        }
    });
    let shared = shared.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    io.data(shared.counts.to_string().trim_end());
    io.say(&format!(
        "{} runs from seed {} on {jobs} threads in {:.0} s",
        shared.runs,
        args.seed,
        begin.elapsed().as_secs_f64()
    ));
    if let Some(text) = shared.wrong {
        return Err(Wrong::new(text, ""));
    }
    let Some((seed, ran)) = shared.broken else {
        let (made, asked) = (shared.counts.orders(), args.count);
        if made < asked {
            io.error(&format!("the budget ended it after {made} of {asked} orders"));
            return Ok(ENDED);
        }
        let idle = shared.counts.judged.iter().filter(|(_, n)| **n == 0).map(|(name, _)| *name);
        let idle: Vec<&str> = idle.filter(|_| !nodes && made >= COVERS).collect();
        if !idle.is_empty() {
            io.error(&format!("never judged: {}", idle.join(", ")));
        }
        return Ok(if idle.is_empty() { 0 } else { UNTRIED });
    };
    if let Some(failure) = ran.failure {
        io.error(&format!("seed {seed}: {failure}"));
        let small = if args.small { " --small" } else { "" };
        let mutant = args.mutant.map_or(String::new(), |mutant| format!(" --mutant {mutant}"));
        let count = if nodes { args.count } else { size.orders };
        let tier = if nodes { " --tier nodes" } else { "" };
        io.hint(&format!("see it again: sim orders --count {count} --seed {seed}{tier}{small}{mutant}"));
    }
    Ok(2)
}

/// Plays a seed.
type Play<'a> = dyn Fn(u64) -> Result<Ran, String> + Sync + 'a;

fn play(args: &Orders, one: &Play<'_>, until: Option<Instant>, shared: &Mutex<Shared>) {
    let lock = || shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut told = Instant::now();
    loop {
        let seed = {
            let mut shared = lock();
            let over = shared.broken.is_some() || shared.wrong.is_some();
            let enough = shared.counts.orders() >= args.count || over;
            if enough || until.is_some_and(|until| Instant::now() >= until) {
                return;
            }
            shared.next += 1;
            shared.next - 1
        };
        let ran = one(seed);
        let mut shared = lock();
        let ran = match ran {
            Ok(ran) => ran,
            Err(text) => {
                shared.wrong = Some(text);
                return;
            }
        };
        shared.counts.add(&ran.counts);
        shared.runs += 1;
        if args.verbose && told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            eprintln!("{} orders, {} acts", shared.counts.orders(), shared.counts.acts);
        }
        if ran.failure.is_some() && shared.broken.as_ref().is_none_or(|(before, _)| seed < *before) {
            shared.broken = Some((seed, ran));
        }
    }
}

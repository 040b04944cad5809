//! `sim run` and `sim replay`: one plan, watched, as often as asked.

use super::args::{Look, Replay, Run};
use super::make::{self, Made, Source};
use super::play::{self, Outcome};
use super::{DIFFER, Io, Stages, Wrong, picture, tell};
use crate::det::{Options, Source as From};
use crate::stage::Failure;
use crate::trace::Watch;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Runs a scenario.
pub fn run(args: &Run, stages: &Stages, io: &mut Io) -> Result<u8, Wrong> {
    let source = Source::new(&args.make)?;
    let made = source.of(args.seed)?;
    if let Some(file) = &args.plan_out {
        write(file, &source.plan(args.seed)?.to_text())?;
    }
    watch(&made, &args.look, &source.command(args.seed), stages, io)
}

/// Plays a plan of a file.
pub fn replay(args: &Replay, stages: &Stages, io: &mut Io) -> Result<u8, Wrong> {
    let plan = make::read(&args.file)?;
    watch(&Made::Plan(Box::new(plan)), &args.look, &format!("sim replay {}", args.file.display()), stages, io)
}

/// Writes a file.
pub fn write(file: &Path, text: &str) -> Result<(), Wrong> {
    std::fs::write(file, text).map_err(|error| {
        Wrong::new(format!("{} cannot be written: {error}", file.display()), "give a path in a folder that there is")
    })
}

/// A file for a timeline.
pub fn timeline(file: &Path) -> Result<Box<dyn Write + Send>, Wrong> {
    let open = File::create(file).map_err(|error| {
        let text = format!("the trace {} cannot be written: {error}", file.display());
        Wrong::new(text, "give a path in a folder that there is")
    })?;
    Ok(Box::new(BufWriter::new(open)))
}

/// Runs it once.
pub fn once(made: &Made, options: Options, stages: &Stages, watch: Watch) -> Outcome {
    match made {
        Made::Driven(scenario, seed) => play::drive(*scenario, *seed, options, watch),
        Made::Plan(plan) => play::play(plan, options, stages, watch),
    }
}

fn watch(made: &Made, look: &Look, again: &str, stages: &Stages, io: &mut Io) -> Result<u8, Wrong> {
    let from = |real| if real { From::Real } else { From::Simulated };
    let options = Options { clock: from(look.real_clock), randomness: from(look.real_randomness) };
    let mut first: Option<String> = None;
    let mut code = 0;
    for number in 1..=look.repeat {
        let file = look.trace.as_deref().map(|file| numbered(file, number));
        let watch = match &file {
            Some(file) => Watch { timeline: Some(timeline(file)?), history: true },
            None => Watch::default(),
        };
        let mut outcome = once(made, options, stages, watch);
        io.data(&outcome.summary.hash);
        let again = if look.trace.is_some() { again.to_owned() } else { format!("{again} --trace FILE") };
        tell::outcome(&outcome, &again, io);
        if let (Some(file), Some((history, keys))) = (&file, outcome.history.take()) {
            let plan = match made {
                Made::Plan(plan) => Some(plan.as_ref()),
                Made::Driven(..) => None,
            };
            let drawn = picture::Picture::new(plan, &history, &keys, &outcome.played, &outcome.summary).to_svg();
            let mut svg = file.as_os_str().to_owned();
            svg.push(".svg");
            write(Path::new(&svg), &drawn)?;
            io.say(&format!("timeline: {}; picture: {}", file.display(), Path::new(&svg).display()));
        }
        code = code.max(outcome.played.failure.as_ref().map_or(0, Failure::code));
        if *first.get_or_insert_with(|| outcome.summary.hash.clone()) != outcome.summary.hash {
            io.error("two runs of one seed differ");
            io.hint("with --repeat 2 --trace t, the first line that differs between t and t.2 is where they part");
            code = DIFFER;
        }
    }
    Ok(code)
}

fn numbered(file: &Path, number: u32) -> PathBuf {
    let mut file = file.as_os_str().to_owned();
    if number > 1 {
        file.push(format!(".{number}"));
    }
    file.into()
}

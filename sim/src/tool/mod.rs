//! The program `sim`: runs, sweeps, replays and shrinks.
//!
//! Data goes to standard output, everything else to standard error. What plays the plans is given from
//! outside ([`Stages`]); nothing here knows hosts or nodes.

mod args;
mod figures;
mod make;
mod mutants;
mod orders;
mod picture;
pub mod play;
mod run;
mod shrink;
pub mod stages;
mod sweep;
mod table;
mod tell;
mod witness;

pub use stages::Stages;

use crate::scenarios::incidents::Incident;
use args::{Cli, Command, Figures, List, What};
use clap::Parser;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};

/// Two runs of a seed differ.
const DIFFER: u8 = 4;

/// A sweep has proved less than it should: something stayed untried, a mutant uncaught.
const UNTRIED: u8 = 5;

/// The budget ended it before all that was asked for was played; what was played was fine.
const ENDED: u8 = 6;

/// Wrong words on the command line, or a file that cannot be used.
const USAGE: u8 = 64;

/// Where the program writes.
pub struct Io {
    /// Data.
    pub out: Box<dyn Write>,
    /// Everything else.
    pub err: Box<dyn Write>,
    /// Whether somebody watches `err`, who can be shown a line that changes.
    pub terminal: bool,
    /// Whether words may be coloured.
    pub colour: bool,
}

impl Io {
    /// The process's own.
    pub fn of_the_process() -> Io {
        let terminal = io::stderr().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Io { out: Box::new(io::stdout()), err: Box::new(io::stderr()), terminal, colour }
    }

    /// A line of data. A reader that has gone is no error.
    fn data(&mut self, line: &str) {
        let _ = writeln!(self.out, "{line}");
    }

    /// A line for people.
    fn say(&mut self, line: &str) {
        let _ = writeln!(self.err, "{line}");
    }

    fn error(&mut self, line: &str) {
        let mark = if self.colour { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
        self.say(&format!("{mark} {line}"));
    }

    fn hint(&mut self, line: &str) {
        self.say(&format!("hint: {line}"));
    }
}

/// Wrong usage: what is wrong, and what to do.
struct Wrong {
    text: String,
    hint: String,
}

impl Wrong {
    fn new(text: impl Into<String>, hint: impl Into<String>) -> Wrong {
        Wrong { text: text.into(), hint: hint.into() }
    }
}

/// Runs the program; gives its exit code.
pub fn main(args: impl IntoIterator<Item = OsString>, stages: &Stages, io: &mut Io) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let text = error.render();
            let _ = if error.use_stderr() { write!(io.err, "{text}") } else { write!(io.out, "{text}") };
            return if error.use_stderr() { USAGE } else { 0 };
        }
    };
    let done = match cli.command {
        Command::List(args) => list(&args, stages, io),
        Command::Run(args) => run::run(&args, stages, io),
        Command::Replay(args) => run::replay(&args, stages, io),
        Command::Sweep(args) => sweep::sweep(&args, stages, io),
        Command::Mutants(args) => mutants::mutants(&args, stages, io),
        Command::Shrink(args) => shrink::shrink(&args, stages, io),
        Command::Figures(args) => figures::figures(&args, io),
        Command::Orders(args) => orders::orders(&args, io),
    };
    let code = done.unwrap_or_else(|wrong| {
        io.error(&wrong.text);
        if !wrong.hint.is_empty() {
            io.hint(&wrong.hint);
        }
        USAGE
    });
    let _ = io.out.flush();
    code
}

fn list(args: &List, stages: &Stages, io: &mut Io) -> Result<u8, Wrong> {
    let lines: Vec<(String, String)> = match args.what {
        What::Scenarios => {
            let text = |name: &str, text: &str| match Incident::find(name) {
                Some(incident) => format!("{text} (--mutant {})", incident.naive),
                None => text.to_owned(),
            };
            crate::scenarios::all().map(|s| (s.name.to_owned(), text(s.name, s.text))).collect()
        }
        What::Faults => {
            let faults = crate::draw::KINDS.iter().chain(crate::draw::THEMES).filter(|kind| kind.fault);
            faults.map(|kind| (kind.name.to_owned(), kind.text.to_owned())).collect()
        }
        What::Mutants => {
            let all = ::mesh::mutants::Mutant::ALL.iter();
            all.map(|mutant| (mutant.name().to_owned(), mutant.text().trim().to_owned())).collect()
        }
        What::Fleets => {
            let fleets = crate::scenarios::fleets::shipped().map_err(|error| Wrong::new(error, ""))?;
            let text = |fleet: &topology::Fleet| {
                format!("{} hosts, {} networks, {} cores", fleet.hosts.len(), fleet.networks.len(), fleet.cores())
            };
            fleets.iter().map(|(name, fleet)| (name.clone(), text(fleet))).collect()
        }
        What::Invariants => {
            let all = (stages.invariants)();
            all.iter().map(|rule| (rule.name().to_owned(), rule.source().to_owned())).collect()
        }
    };
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (name, text) in lines {
        io.data(&format!("{name:<width$}  {text}"));
    }
    Ok(0)
}

//! The words of the command line.

use crate::draw::{KINDS, THEMES};
use crate::plan::Tier;
use clap::{Args, Parser, Subcommand, ValueEnum};
use mesh::mutants::Mutant;
use std::path::PathBuf;
use std::time::Duration;

const EXIT_CODES: &str = "Exit codes: 0 fine; 1 crash; 2 an invariant was broken; 3 a healed mesh did not come right; \
                          4 two runs of a seed differ; 5 a sweep left an invariant or a fault untried, or a mutant \
                          uncaught; 64 wrong usage.";

/// A mesh in virtual time: same seed, same bytes.
#[derive(Parser)]
#[command(name = "sim", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// List scenarios, faults, mutants, fleets or invariants
    List(List),
    /// Run a scenario and print the hash of its trace
    Run(Run),
    /// Run many seeds, in parallel
    Sweep(Sweep),
    /// Leave out each rule in turn until a seed shows it: by the table of mutants, or in the plans asked for
    Mutants(Mutants),
    /// Play a plan again that was written to a file
    Replay(Replay),
    /// Make a failing plan as small as it still fails
    Shrink(Shrink),
    /// Measure how quickly deaths are known in meshes of many hosts
    Figures(Figures),
    /// Give hosts orders by the thousand, with liars and faults in the middle
    Orders(Orders),
}

/// `sim orders`.
#[derive(Args)]
pub struct Orders {
    /// So many orders, at least
    #[arg(long, default_value_t = 10_000)]
    pub count: u64,
    /// The first seed; each run has the next
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Runs at a time
    #[arg(long, default_value_t = 1)]
    pub jobs: usize,
    /// Begin no run after this time, such as 10m
    #[arg(long, value_parser = duration)]
    pub budget: Option<Duration>,
    /// Leave out a rule: see `sim list mutants`
    #[arg(long, value_parser = mutant)]
    pub mutant: Option<Mutant>,
    /// Where: the machines of warrants alone, or whole nodes in the middle of drawn plans
    #[arg(long, value_enum, default_value_t = TierName::Cores)]
    pub tier: TierName,
    /// Few hosts and few orders a run
    #[arg(long)]
    pub small: bool,
    /// Say every ten seconds how far it is
    #[arg(long)]
    pub verbose: bool,
    /// Write what happened in the run of the first seed to FILE, a line each: whole nodes only
    #[arg(long, value_name = "FILE")]
    pub trace: Option<std::path::PathBuf>,
}

/// `sim figures`.
#[derive(Args)]
pub struct Figures {
    /// Sizes of the meshes
    #[arg(long, value_delimiter = ',', default_values_t = [6, 30, 100, 1_000])]
    pub hosts: Vec<usize>,
    /// Packets lost, of a hundred
    #[arg(long, value_delimiter = ',', default_values_t = [0, 5, 25], value_parser = clap::value_parser!(u8).range(0..=50))]
    pub losses: Vec<u8>,
    /// Where all randomness comes from
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Measure less: for a first look
    #[arg(long)]
    pub quick: bool,
    /// Also write the table and a plot to this folder
    #[arg(long)]
    pub out: Option<std::path::PathBuf>,
}

/// What to list.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// What can be run
    Scenarios,
    /// What seeds enable
    Faults,
    /// Rules that can be left out
    Mutants,
    /// Fleets that are shipped
    Fleets,
    /// What must hold
    Invariants,
}

/// `sim list`.
#[derive(Args)]
pub struct List {
    /// What to list
    #[arg(value_enum, default_value = "scenarios")]
    pub what: What,
}

/// Which simulator, as a word.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TierName {
    /// Cores in a bare event loop over a model network: fast
    Cores,
    /// Whole nodes: real
    Nodes,
}

impl TierName {
    /// The tier.
    pub fn tier(self) -> Tier {
        match self {
            TierName::Cores => Tier::Cores,
            TierName::Nodes => Tier::Nodes,
        }
    }
}

/// What makes a plan.
#[derive(Args, Clone)]
pub struct Make {
    /// What to run: see `sim list`
    #[arg(long, default_value = "chaos")]
    pub scenario: String,
    /// Which simulator plays it, instead of the scenario's own
    #[arg(long, value_enum)]
    pub tier: Option<TierName>,
    /// The fleet: a shipped one (`sim list fleets`) or a file
    #[arg(long)]
    pub topology: Option<String>,
    /// Draw only these faults: see `sim list faults`
    #[arg(long, value_delimiter = ',', value_parser = fault)]
    pub faults: Option<Vec<String>>,
    /// Leave out a rule: see `sim list mutants`
    #[arg(long, value_parser = mutant)]
    pub mutant: Option<Mutant>,
}

/// How a run is watched.
#[derive(Args)]
pub struct Look {
    /// Write what happened to FILE, a line each, and a picture to FILE.svg; of the second run to FILE.2, and so on
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Run it so many times and compare
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub repeat: u32,
    /// Negative control: the real clock of the system
    #[arg(long)]
    pub real_clock: bool,
    /// Negative control: the real randomness of the system
    #[arg(long)]
    pub real_randomness: bool,
}

/// `sim run`.
#[derive(Args)]
pub struct Run {
    /// What makes it
    #[command(flatten)]
    pub make: Make,
    /// Where all randomness comes from
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How it is watched
    #[command(flatten)]
    pub look: Look,
    /// Write the plan to this file, for `sim replay`
    #[arg(long, value_name = "FILE")]
    pub plan_out: Option<PathBuf>,
}

/// `sim replay`.
#[derive(Args)]
pub struct Replay {
    /// The plan
    pub file: PathBuf,
    /// How it is watched
    #[command(flatten)]
    pub look: Look,
}

/// Seeds and the means to run them.
#[derive(Args)]
pub struct Many {
    /// Which: `A..B` is A to B without B
    #[arg(long, value_parser = seeds, value_name = "A..B")]
    pub seeds: std::ops::Range<u64>,
    /// Runs at a time; as many as there are cores, by default
    #[arg(long)]
    pub jobs: Option<usize>,
    /// Begin no run after this time, such as 90s, 10m or 1h
    #[arg(long, value_parser = duration)]
    pub budget: Option<Duration>,
}

/// `sim sweep`.
#[derive(Args)]
pub struct Sweep {
    /// What makes the runs
    #[command(flatten)]
    pub make: Make,
    /// Which
    #[command(flatten)]
    pub many: Many,
    /// Write the plan of each failing seed into this folder
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Do not fail when an invariant or a fault stays untried: for few seeds
    #[arg(long)]
    pub no_coverage: bool,
    /// Run every seed twice and compare
    #[arg(long)]
    pub twice: bool,
}

/// `sim mutants`.
#[derive(Args)]
pub struct Mutants {
    /// What makes the runs; `--mutant` picks one
    #[command(flatten)]
    pub make: Make,
    /// At most these for each mutant
    #[command(flatten)]
    pub many: Many,
}

/// `sim shrink`.
#[derive(Args)]
pub struct Shrink {
    /// The plan; without one, `--scenario` and `--seed` make it
    #[arg(conflicts_with_all = ["scenario", "seed", "tier", "topology", "faults", "mutant"])]
    pub file: Option<PathBuf>,
    /// What makes it otherwise
    #[command(flatten)]
    pub make: Make,
    /// Where its randomness comes from
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write the small plan here instead of standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Stop trying after this time
    #[arg(long, value_parser = duration, default_value = "10m")]
    pub budget: Duration,
}

fn fault(word: &str) -> Result<String, String> {
    let known = KINDS.iter().chain(THEMES).filter(|kind| kind.fault);
    match known.clone().find(|kind| kind.name == word) {
        Some(_) => Ok(word.to_owned()),
        None => Err(format!("no fault is called `{word}`; {}", near(word, known.map(|kind| kind.name), "faults"))),
    }
}

fn mutant(word: &str) -> Result<Mutant, String> {
    let names = Mutant::ALL.iter().map(|mutant| mutant.name());
    word.parse().map_err(|error| format!("{error}; {}", near(word, names, "mutants")))
}

/// A hint: the name that looks most like a word, and where all are listed.
pub fn near<'a>(word: &str, names: impl Iterator<Item = &'a str>, what: &str) -> String {
    // Pairs of letters that both have, of all that they have (Dice's coefficient): enough to find a typing error.
    let pairs = |text: &str| text.as_bytes().windows(2).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let wanted = pairs(word);
    let both = |name: &str| pairs(name).iter().filter(|pair| wanted.contains(pair)).count();
    let alike = |name: &str| both(name) * 1_000 / (pairs(name).len() + wanted.len()).max(1);
    match names.max_by_key(|name| alike(name)).filter(|name| alike(name) > 0) {
        Some(name) => format!("did you mean `{name}`? `sim list {what}` has all"),
        None => format!("`sim list {what}` has all"),
    }
}

fn seeds(word: &str) -> Result<std::ops::Range<u64>, String> {
    let wrong = || format!("`{word}` is no range of seeds, such as 0..1000");
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    match word.split_once("..") {
        Some((first, end)) => {
            let range = number(first)?..number(end)?;
            if range.is_empty() { Err(wrong()) } else { Ok(range) }
        }
        None => {
            let only = number(word)?;
            Ok(only..only + 1)
        }
    }
}

fn duration(word: &str) -> Result<Duration, String> {
    let digits = word.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let seconds = match &word[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => 0,
    };
    match digits.parse::<u64>() {
        Ok(number) if seconds > 0 => Ok(Duration::from_secs(number.saturating_mul(seconds))),
        _ => Err(format!("`{word}` is no time, such as 90s, 10m or 1h")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn seeds_and_times_are_read_as_they_are_written() {
        assert_eq!(seeds("3..9"), Ok(3..9));
        assert_eq!(seeds("7"), Ok(7..8));
        assert!(seeds("9..3").is_err() && seeds("a..b").is_err());
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert!(duration("10").is_err() && duration("m").is_err() && duration("3 weeks").is_err());
    }

    #[test]
    fn a_typing_error_gets_the_name_that_was_meant() {
        assert!(fault("crush").unwrap_err().contains("`crash`"), "{:?}", fault("crush"));
        assert!(mutant("no-fense-check").unwrap_err().contains("`no-fence-check`"));
    }
}

//! `sim`: runs a scenario and prints the hash of its trace.
//!
//! Exit codes: 0 all as expected; 1 the scenario failed; 2 wrong usage; 3 two runs of a seed differ.

use clap::{Parser, Subcommand, ValueEnum};
use sim::det::{Options, Source};
use sim::scenarios::{self, Report, Scenario};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Whole nodes in virtual time: same seed, same bytes.
#[derive(Parser)]
#[command(name = "sim", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a scenario and print the hash of its trace
    Run(Run),
    /// List the scenarios
    List,
}

#[derive(clap::Args)]
struct Run {
    /// What to run
    #[arg(long)]
    scenario: Scenario,
    /// Where all randomness comes from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run it so many times and compare
    #[arg(long, default_value_t = 1)]
    repeat: u32,
    /// Write what happened to this file, a line each; of the second run to FILE.2, and so on
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Negative control: the real clock of the system
    #[arg(long)]
    real_clock: bool,
    /// Negative control: the real randomness of the system
    #[arg(long)]
    real_randomness: bool,
}

fn main() -> ExitCode {
    let Command::Run(args) = Cli::parse().command else {
        for value in Scenario::value_variants().iter().filter_map(ValueEnum::to_possible_value) {
            println!("{:<16} {}", value.get_name(), value.get_help().map(ToString::to_string).unwrap_or_default());
        }
        return ExitCode::SUCCESS;
    };
    let source = |real| if real { Source::Real } else { Source::Simulated };
    let options = Options { clock: source(args.real_clock), randomness: source(args.real_randomness) };
    let mut first: Option<String> = None;
    let mut code = 0;
    for number in 1..=args.repeat {
        let timeline = match args.trace.as_deref().map(|path| timeline(path, number)).transpose() {
            Ok(timeline) => timeline,
            Err(error) => {
                eprintln!("error: the trace cannot be written: {error}");
                return ExitCode::from(2);
            }
        };
        let report = scenarios::run(args.scenario, args.seed, options, timeline);
        println!("{}", report.summary.hash);
        tell(&report);
        code = code.max(u8::from(failed(&report)));
        if *first.get_or_insert_with(|| report.summary.hash.clone()) != report.summary.hash {
            eprintln!("error: two runs of seed {} differ; compare their timelines (--trace)", args.seed);
            code = 3;
        }
    }
    if code == 1 {
        let name = args.scenario.to_possible_value();
        let name = name.as_ref().map_or("?", |value| value.get_name());
        eprintln!("hint: repeat it with `sim run --scenario {name} --seed {} --trace FILE`", args.seed);
    }
    ExitCode::from(code)
}

fn timeline(path: &Path, number: u32) -> io::Result<Box<dyn Write + Send>> {
    let mut path = path.as_os_str().to_owned();
    if number > 1 {
        path.push(format!(".{number}"));
    }
    Ok(Box::new(BufWriter::new(File::create(path)?)))
}

fn failed(report: &Report) -> bool {
    report.result.is_err() || report.summary.errors_count > 0
}

fn tell(report: &Report) {
    let s = &report.summary;
    eprintln!(
        "{} records, {} bytes delivered, {} commits, {} random bytes, {:.2} CPU s",
        s.records,
        s.bytes,
        s.commits,
        report.random_bytes,
        report.cpu.as_secs_f64()
    );
    if let Err(error) = &report.result {
        eprintln!("error: {error}");
    }
    if s.errors_count > 0 {
        eprintln!("error: {} lines were logged as errors, first {}", s.errors_count, s.errors.join("\n  "));
    }
}

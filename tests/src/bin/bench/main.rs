//! What the mesh costs and how quick it is, measured beside the same work without it: `scripts/bench`.
//!
//! Figures of one run are comparable with each other; those of two machines, or of a machine that has other
//! work to do, are not. A report goes to standard output, its raw figures to the folder that was named, and nothing
//! anywhere else.

mod dispatch;
mod healing;
mod membership;
mod paths;
mod stats;
mod usage;

use std::process::ExitCode;

const USAGE: &str = "\
usage: scripts/bench dispatch | healing | membership | paths (see the script)
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["dispatch"] => {
            dispatch::run();
            Some(())
        }
        ["healing"] => {
            healing::healing();
            Some(())
        }
        ["membership", ref rest @ ..] => membership::run(rest),
        ["paths", ref rest @ ..] => paths::run(rest),
        _ => None,
    };
    match done {
        Some(()) => ExitCode::SUCCESS,
        None => {
            eprint!("{USAGE}");
            ExitCode::from(64)
        }
    }
}

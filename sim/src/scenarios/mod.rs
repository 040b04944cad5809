//! The scenarios, and how one is run.

pub mod swarms;
pub mod three;

use crate::det::{self, Options};
use crate::log;
use crate::trace::{Summary, Trace};
use crate::world::WorldError;
use std::io::Write;
use std::time::Duration;

/// What can be simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Three bare libp2p swarms gossip and echo; one crashes and comes back. The ground under the nodes.
    Swarms,
    /// Three whole nodes found a mesh, join it and build; the leader's process dies and comes back.
    Three,
    /// The same, but the leader's power goes: unsynced writes are lost and nobody is told.
    ThreePowerCut,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// Hash and counts.
    pub summary: Summary,
    /// Whether everything went as the scenario expects.
    pub result: Result<(), WorldError>,
    /// Random bytes drawn: to find where two runs part.
    pub random_bytes: u64,
    /// Real CPU time that it took.
    pub cpu: Duration,
}

/// Runs a scenario on a thread of its own.
pub fn run(scenario: Scenario, seed: u64, options: Options, timeline: Option<Box<dyn Write + Send>>) -> Report {
    det::run(seed, options, move || {
        let trace = Trace::new(timeline);
        let recording = log::record(trace.clone());
        let result = match scenario {
            Scenario::Swarms => swarms::run(seed, &trace),
            Scenario::Three => three::run(seed, &trace, three::Fault::Crash),
            Scenario::ThreePowerCut => three::run(seed, &trace, three::Fault::PowerCut),
        };
        drop(recording);
        Report { summary: trace.summary(), result, random_bytes: det::random_bytes_drawn(), cpu: det::cpu_time() }
    })
}

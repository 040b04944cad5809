//! The scenarios by name, and the fleets that they are played on.
//!
//! Most are plans: drawn from a seed (`chaos`) or written by hand (an incident), and played by
//! [`crate::stage::play`]. The oldest drive whole nodes by their own code ([`Scenario`]). A new one is a
//! line of [`BASIC`]; a new group of them is a line of [`GROUPS`].

pub mod fleets;
pub mod incidents;
pub mod swarms;
pub mod three;

use crate::det::{self, Options};
use crate::draw::{self, Asked};
use crate::log;
use crate::plan::{Plan, Tier};
use crate::trace::{Summary, Trace};
use crate::world::WorldError;
use std::io::Write;
use std::time::Duration;

/// What can be simulated by its own code, without a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Three bare libp2p swarms gossip and echo; one crashes and comes back. The ground under the nodes.
    Swarms,
    /// Three whole nodes found a mesh, join it and build; the leader's process dies and comes back.
    Three,
    /// The same, but the leader's power goes: unsynced writes are lost and nobody is told.
    ThreePowerCut,
}

/// How a scenario comes to be.
#[derive(Clone, Copy)]
pub enum Maker {
    /// By its own code.
    Driven(Scenario),
    /// As a plan; an error says in words why there is none.
    Planned(fn(&Asked<'_>) -> Result<Plan, String>),
}

/// A scenario as the command line knows it.
#[derive(Clone, Copy)]
pub struct Entry {
    /// What it is called.
    pub name: &'static str,
    /// What happens in it.
    pub text: &'static str,
    /// Which simulators play it; the first unless another is asked for.
    pub tiers: &'static [Tier],
    /// How it is made.
    pub maker: Maker,
}

/// The groups that there are.
const GROUPS: &[&[Entry]] = &[BASIC, &INCIDENTS];

/// What really happened.
const INCIDENTS: [Entry; incidents::INCIDENTS.len()] = {
    let mut entries = [BASIC[0]; incidents::INCIDENTS.len()];
    let mut n = 0;
    while n < entries.len() {
        let incidents::Incident { name, text, .. } = incidents::INCIDENTS[n];
        let maker = Maker::Planned(|asked| {
            let incident = incidents::Incident::find(asked.scenario).ok_or("no such incident")?;
            Ok(incident.plan(asked.tier, asked.seed))
        });
        entries[n] = Entry { name, text, tiers: &[Tier::Cores, Tier::Nodes], maker };
        n += 1;
    }
    entries
};

/// Chaos, and what came before plans.
const BASIC: &[Entry] = &[
    Entry {
        name: "chaos",
        text: "whatever the seed draws: a fleet, half of all kinds of faults, work",
        tiers: &[Tier::Cores, Tier::Nodes],
        maker: Maker::Planned(|asked| draw::draw(asked).map_err(|error| error.to_string())),
    },
    Entry {
        name: "swarms",
        text: "three bare libp2p swarms gossip and echo; a crash, a cut link",
        tiers: &[Tier::Nodes],
        maker: Maker::Driven(Scenario::Swarms),
    },
    Entry {
        name: "three",
        text: "three nodes found a mesh, join it and build; the leader's process dies and comes back",
        tiers: &[Tier::Nodes],
        maker: Maker::Driven(Scenario::Three),
    },
    Entry {
        name: "three-power-cut",
        text: "the same, but the leader's power goes: unsynced writes are lost",
        tiers: &[Tier::Nodes],
        maker: Maker::Driven(Scenario::ThreePowerCut),
    },
];

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Entry> {
    GROUPS.iter().copied().flatten()
}

/// A scenario by name.
pub fn find(name: &str) -> Option<&'static Entry> {
    all().find(|entry| entry.name == name)
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

/// Runs a scenario that drives itself, on a thread of its own.
pub fn run(scenario: Scenario, seed: u64, options: Options, timeline: Option<Box<dyn Write + Send>>) -> Report {
    det::run(seed, options, move || {
        let trace = Trace::new(timeline);
        let recording = log::record(trace.clone());
        let result = drive(scenario, seed, &trace);
        drop(recording);
        Report { summary: trace.summary(), result, random_bytes: det::random_bytes_drawn(), cpu: det::cpu_time() }
    })
}

/// Runs it on this thread, which [`det::run`] has made.
///
/// # Errors
/// What did not go as the scenario expects.
pub fn drive(scenario: Scenario, seed: u64, trace: &Trace) -> Result<(), WorldError> {
    match scenario {
        Scenario::Swarms => swarms::run(seed, trace),
        Scenario::Three => three::run(seed, trace, three::Fault::Crash),
        Scenario::ThreePowerCut => three::run(seed, trace, three::Fault::PowerCut),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_scenario_has_a_name_of_its_own_and_somebody_who_plays_it() {
        let names: BTreeSet<&str> = all().map(|entry| entry.name).collect();
        assert_eq!(names.len(), all().count());
        assert!(all().all(|entry| !entry.tiers.is_empty() && find(entry.name).is_some()));
    }
}

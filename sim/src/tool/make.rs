//! From the words of the command line to something that can be run, and back to the words.

use super::Wrong;
use super::args::{Make, TierName, near};
use crate::draw::{Asked, Ground};
use crate::plan::{Plan, Tier};
use crate::scenarios::{self, Maker, Scenario, fleets};
use std::collections::BTreeSet;
use std::path::Path;

/// What makes the runs of all seeds: checked once.
pub struct Source {
    make: Make,
    entry: &'static scenarios::Entry,
    tier: Tier,
    fleets: Vec<Ground>,
    faults: Option<BTreeSet<String>>,
}

/// One run.
pub enum Made {
    /// By its own code.
    Driven(Scenario, u64),
    /// As a plan.
    Plan(Box<Plan>),
}

impl Source {
    /// Checks what was asked for.
    pub fn new(make: &Make) -> Result<Source, Wrong> {
        let entry = scenarios::find(&make.scenario).ok_or_else(|| {
            let names = scenarios::all().map(|entry| entry.name);
            Wrong::new(format!("no scenario is called `{}`", make.scenario), near(&make.scenario, names, "scenarios"))
        })?;
        let tier = make.tier.map_or(entry.tiers[0], TierName::tier);
        if !entry.tiers.contains(&tier) {
            let text = format!("{} is not played on {}", entry.name, word(tier));
            return Err(Wrong::new(text, "leave --tier out"));
        }
        if matches!(entry.maker, Maker::Driven(_))
            && (make.topology.is_some() || make.faults.is_some() || make.mutant.is_some())
        {
            let text = format!("{} takes no --topology, --faults or --mutant: it runs by its own code", entry.name);
            return Err(Wrong::new(text, "--scenario chaos takes them all"));
        }
        let fleets = match &make.topology {
            Some(name) => {
                let fleet = fleets::find(name).map_err(|text| Wrong::new(text, "`sim list fleets` has all"))?;
                vec![(name.clone(), fleet)]
            }
            None => fleets::shipped().map_err(|text| Wrong::new(text, ""))?,
        };
        let fleets = fleets.into_iter().map(|(name, fleet)| Ground::new(name, fleet)).collect();
        let faults = make.faults.as_ref().map(|faults| faults.iter().cloned().collect());
        Ok(Source { make: make.clone(), entry, tier, fleets, faults })
    }

    /// The run of a seed.
    pub fn of(&self, seed: u64) -> Result<Made, Wrong> {
        let make = match self.entry.maker {
            Maker::Driven(scenario) => return Ok(Made::Driven(scenario, seed)),
            Maker::Planned(make) => make,
        };
        let (scenario, tier, fleets) = (self.entry.name, self.tier, self.fleets.as_slice());
        let mut plan = make(&Asked { scenario, tier, seed, fleets, faults: self.faults.as_ref() })
            .map_err(|text| Wrong::new(text, "`sim list fleets` has those that can be given with --topology"))?;
        plan.mutant = self.make.mutant;
        Ok(Made::Plan(Box::new(plan)))
    }

    /// The plan of a seed; an error when the scenario is none.
    pub fn plan(&self, seed: u64) -> Result<Plan, Wrong> {
        match self.of(seed)? {
            Made::Plan(plan) => Ok(*plan),
            Made::Driven(..) => {
                let text = format!("{} is no plan: it runs by its own code", self.entry.name);
                Err(Wrong::new(text, "`--scenario chaos` is one"))
            }
        }
    }

    /// The command that runs a seed again.
    pub fn command(&self, seed: u64) -> String {
        let mut words = format!("sim run --scenario {}", self.entry.name);
        if self.entry.tiers.len() > 1 {
            words += &format!(" --tier {}", word(self.tier));
        }
        words += &format!(" --seed {seed}");
        if let Some(name) = &self.make.topology {
            words += &format!(" --topology {name}");
        }
        if let Some(faults) = &self.make.faults {
            words += &format!(" --faults {}", faults.join(","));
        }
        if let Some(mutant) = self.make.mutant {
            words += &format!(" --mutant {mutant}");
        }
        words
    }

    /// The same with another mutant, or with none.
    pub fn with_mutant(&self, mutant: Option<mesh::mutants::Mutant>) -> Source {
        let make = Make { mutant, ..self.make.clone() };
        let (fleets, faults) = (self.fleets.clone(), self.faults.clone());
        Source { make, entry: self.entry, tier: self.tier, fleets, faults }
    }

    /// The mutant that was asked for.
    pub fn mutant(&self) -> Option<mesh::mutants::Mutant> {
        self.make.mutant
    }

    /// The name of the scenario.
    pub fn scenario(&self) -> &'static str {
        self.entry.name
    }

    /// The tier that plays it.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Whether a sweep of it is to try every fault: only what is drawn can.
    pub fn is_drawn(&self) -> bool {
        self.entry.name == "chaos"
    }

    /// The only faults that are drawn, if not all are.
    pub fn faults(&self) -> Option<&BTreeSet<String>> {
        self.faults.as_ref()
    }
}

/// What the command line calls a tier.
pub fn word(tier: Tier) -> &'static str {
    match tier {
        Tier::Cores => "cores",
        Tier::Nodes => "nodes",
    }
}

/// Reads a plan from a file.
pub fn read(file: &Path) -> Result<Plan, Wrong> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Wrong::new(format!("{name}: {error}"), "`sim run --plan-out FILE` writes a plan"))?;
    Plan::parse(&name, &text).map_err(|error| Wrong::new(error.to_string(), ""))
}

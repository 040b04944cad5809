//! A run as data: everything that makes it, in one file that can be replayed and shrunk.
//!
//! A plan names its scenario, tier, seed, fleet and mutant, and holds every action with its moment. It is
//! drawn from a seed ([`crate::draw`]) or written by hand (an incident); either way the same plan gives
//! the same bytes. As a file it is TOML, an `[[action]]` table each.

use crate::action::Action;
use crate::expect::Expect;
use mesh::mutants::Mutant;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Which simulator plays it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// `mesh` cores in a bare event loop over a model network.
    Cores,
    /// Whole nodes inside turmoil.
    Nodes,
}

/// An action and its moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed {
    /// Milliseconds after the fleet has come together.
    pub at_ms: u64,
    /// What is done.
    #[serde(flatten)]
    pub action: Action,
}

/// Everything that makes a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Name of the scenario that it was made for.
    pub scenario: String,
    /// Which simulator plays it.
    pub tier: Tier,
    /// Where all randomness of the run comes from.
    pub seed: u64,
    /// Name of a shipped fleet, or the path of a fleet file.
    pub topology: String,
    /// The rule that is left out, if any.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "mutant_name")]
    pub mutant: Option<Mutant>,
    /// Hosts of the fleet that are enrolled and run when the actions begin; the first founds the mesh.
    pub hosts: Vec<String>,
    /// How long faults may be made: the safety phase, in milliseconds.
    pub safety_ms: u64,
    /// How long a healed mesh may take until all is well: the liveness phase, in milliseconds.
    pub liveness_ms: u64,
    /// What is done, by rising time.
    #[serde(rename = "action", default)]
    pub actions: Vec<Timed>,
    /// What the scenario expects beyond the invariants.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expect: Vec<Expect>,
}

/// Why a plan could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {text}")]
pub struct PlanError {
    /// Its file.
    pub file: String,
    /// What is wrong, with line and column.
    pub text: String,
}

impl Plan {
    /// Reads a plan's text; `file` is what errors call it.
    ///
    /// # Errors
    /// When it is no plan.
    pub fn parse(file: &str, text: &str) -> Result<Plan, PlanError> {
        let wrong = |text: String| PlanError { file: file.to_owned(), text };
        let plan: Plan = toml::from_str(text).map_err(|e| wrong(e.to_string()))?;
        match plan.actions.windows(2).find(|pair| pair[0].at_ms > pair[1].at_ms) {
            Some(pair) => Err(wrong(format!("the action at {} ms comes after a later one", pair[1].at_ms))),
            None => Ok(plan),
        }
    }

    /// The plan as a file.
    ///
    /// # Panics
    /// Never: a plan is made of strings and numbers only.
    pub fn to_text(&self) -> String {
        match toml::to_string(self) {
            Ok(text) => text,
            Err(error) => panic!("a plan cannot be written: {error}"),
        }
    }

    /// See [`Plan::safety_ms`].
    pub fn safety(&self) -> Duration {
        Duration::from_millis(self.safety_ms)
    }

    /// See [`Plan::liveness_ms`].
    pub fn liveness(&self) -> Duration {
        Duration::from_millis(self.liveness_ms)
    }
}

mod mutant_name {
    use mesh::mutants::Mutant;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    // serde's shape for `with`
    #[allow(clippy::ref_option)]
    pub fn serialize<S: Serializer>(mutant: &Option<Mutant>, to: S) -> Result<S::Ok, S::Error> {
        match mutant {
            Some(mutant) => to.serialize_str(mutant.name()),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Mutant>, D::Error> {
        let name = Option::<String>::deserialize(from)?;
        name.map(|name| name.parse().map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::{Forgery, Task};

    #[test]
    fn a_plan_is_the_same_after_writing_and_reading() {
        let task = Task { name: "top".into(), takes_ms: 900, exit: 0, needs: vec!["base".into()], breaks_on: vec![] };
        let actions = vec![
            Timed { at_ms: 0, action: Action::Submit { host: "a".into(), request: 1, tasks: vec![task] } },
            Timed { at_ms: 70, action: Action::ClockJump { host: "leader".into(), ms: -60_000 } },
            Timed { at_ms: 70, action: Action::Forge { host: "b".into(), what: Forgery::VoterSet } },
        ];
        let plan = Plan {
            scenario: "chaos".into(),
            tier: Tier::Cores,
            seed: 7,
            topology: "one-host".into(),
            mutant: Some(Mutant::NoFenceCheck),
            hosts: vec!["a".into(), "b".into()],
            safety_ms: 60_000,
            liveness_ms: 90_000,
            actions,
            expect: vec![Expect::NeverDown { host: "a".into() }],
        };
        let text = plan.to_text();
        assert_eq!(Plan::parse("p.toml", &text).as_ref(), Ok(&plan), "{text}");
        let unknown = text.replace("forge", "forget");
        assert!(Plan::parse("p.toml", &unknown).is_err());
        let unordered = text.replace("at_ms = 0", "at_ms = 80");
        assert!(Plan::parse("p.toml", &unordered).is_err());
    }
}

//! What plays plans: the tiers and the invariants, as the command line gets them.

use crate::cores::Cores;
use crate::invariants::{self, Invariant};
use crate::nodes::NodesStage;
use crate::plan::{Plan, Tier};
use crate::stage::Stage;
use crate::trace::Trace;

/// Makes the stage of a plan; an error says in words why there is none.
pub type Open = fn(&Plan, &Trace) -> Result<Box<dyn Stage>, String>;

/// What plays plans.
#[derive(Clone, Copy)]
pub struct Stages {
    /// Tier 1.
    pub cores: Open,
    /// Tier 2.
    pub nodes: Open,
    /// What must hold; new ones for each run.
    pub invariants: fn() -> Vec<Box<dyn Invariant>>,
}

impl Stages {
    /// What is shipped.
    pub const SHIPPED: Stages = Stages {
        cores: |plan, trace| Ok(Box::new(Cores::traced(plan, trace)?)),
        nodes: |plan, trace| Ok(Box::new(NodesStage::new(plan, trace)?)),
        invariants: invariants::all,
    };

    /// Opens the stage of a plan's tier.
    ///
    /// # Errors
    /// In words.
    pub fn open(&self, plan: &Plan, trace: &Trace) -> Result<Box<dyn Stage>, String> {
        match plan.tier {
            Tier::Cores => (self.cores)(plan, trace),
            Tier::Nodes => (self.nodes)(plan, trace),
        }
    }
}

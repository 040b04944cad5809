//! Orders by the thousand: the machines of [`mesh::warrant`] and [`mesh::healing`] on many hosts of a generated fleet,
//! without a mesh around them.
//!
//! Real are orders, hellos, signatures, hearings, guards' files, voters' notes, links, ledger, blame and the plan.
//! Modelled are who sits at which address (by the fleet's oracle, with masquerades; addresses move), disks, clocks,
//! leaders and their fall, and the log: one ledger that is up to date and one that lags, each for whoever follows it
//! (records shared: an entry is verified twice and not once a host). A run is a walk: at each step something that is
//! under way goes on, or something begins, or fails, or lies, as the dice have it. The jury is that of all simulations.
//!
//! | file | what |
//! |---|---|
//! | `world.rs` | the fleet, its log, time |
//! | `temper.rs` | what a run is inclined to |
//! | `harm.rs` | what befalls hosts, leaders and addresses |
//! | `owner.rs` | what people do: policy, stops, the recovery key |
//! | `target.rs` | hearings, deeds, proofs |
//! | `journey.rs` | an order from the ledger to its receipt |
//! | `ward.rs` | healing: the leader's plan, and the builds that blame reads |
//! | `forge.rs` | whoever lies |
//! | `bend.rs` | the worst of them, who holds the keys that it takes |

mod bend;
mod count;
mod forge;
mod harm;
mod journey;
mod owner;
mod target;
mod temper;
mod ward;
mod world;

pub use count::Counts;

use crate::invariants::Violation;
use mesh::mutants::{Mutant, with};
use world::World;

/// How large a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Sites of the fleet, at most.
    pub sites: u64,
    /// Hosts of a site, at most.
    pub hosts: u64,
    /// Orders, at least.
    pub orders: u64,
}

impl Size {
    /// Few hosts: for mutants.
    pub const SMALL: Size = Size { sites: 2, hosts: 6, orders: 250 };
    /// Many hosts: for the million.
    pub const LARGE: Size = Size { sites: 6, hosts: 20, orders: 5_000 };
}

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// What was done.
    pub counts: Counts,
    /// The first rule that was broken.
    pub failure: Option<Violation>,
    /// Hash of the ledger, of all that was counted, and of the dice: equal for equal runs.
    pub hash: String,
}

/// Plays a run.
///
/// # Panics
/// When no fleet can be made: then the generator is broken.
pub fn run(seed: u64, size: Size, mutant: Option<Mutant>) -> Ran {
    with(mutant, || {
        let mut world = World::new(seed, size);
        while world.counts.orders() < size.orders && world.failure.is_none() {
            world.step();
        }
        world.finish();
        let hash = world.hash();
        Ran { counts: world.counts, failure: world.failure, hash }
    })
}

//! What a run is inclined to (swarm testing, as in [`crate::draw`]): a run in which everything may happen hides what only
//! happens when something else does not. A rule shows where no other rule holds the same step back.

use super::harm::HARMS;
use crate::draw::Dice;
use mesh::healing::Policy;

/// How often a run does what: an order under way goes on, a person orders, the leader looks, a build, a lie, a replay,
/// the late ledger gets on, or catches up, harm. All of it; mostly healing; mostly lies.
const MOODS: [[u64; 9]; 3] =
    [[48, 8, 6, 3, 17, 4, 2, 4, 8], [34, 1, 30, 4, 7, 2, 1, 5, 16], [30, 8, 4, 2, 40, 6, 2, 3, 5]];

/// What a run is inclined to.
#[derive(Clone, Debug)]
pub struct Temper {
    /// Which of the moods.
    pub mood: usize,
    /// What befalls hosts in this run: weights, in the order of [`HARMS`].
    pub harms: Vec<u64>,
    /// Hosts that may be sick at one time.
    pub sick_max: usize,
    /// How often, of a hundred, voters stay well.
    pub spares_voters: u64,
    /// How many of a hundred packages are broken by themselves.
    pub bad_percent: u64,
    /// How many of a hundred of those cannot get their inputs.
    pub gone_percent: u64,
    /// How often, of a hundred, the quickest host gets a build.
    pub quickest_percent: u64,
    /// How many of a hundred hosts start the mesh at boot.
    pub boot_percent: u64,
    /// How often, of a hundred, the leader is lost when it has just ordered.
    pub lost_percent: u64,
    /// Steps in a row without success that freeze healing.
    pub storm: u64,
    /// For how long, in milliseconds.
    pub quiet_ms: u64,
}

impl Temper {
    /// A run's, by its dice.
    pub fn drawn(dice: &mut Dice) -> Temper {
        let harms = HARMS.iter().map(|harm| if dice.percent(harm.percent) { harm.weight } else { 0 }).collect();
        let mut of = |all: &[u64]| all[dice.below(all.len() as u64) as usize];
        Temper {
            mood: of(&[0, 1, 2]) as usize,
            harms,
            sick_max: of(&[1, 3, 3, 5]) as usize,
            spares_voters: of(&[60, 60, 0]),
            bad_percent: of(&[10, 10, 25, 45]),
            gone_percent: of(&[20, 50, 100]),
            quickest_percent: of(&[0, 40, 70]),
            boot_percent: of(&[90, 90, 50]),
            lost_percent: of(&[0, 10, 40]),
            storm: of(&[1, 2, 3, 10]),
            quiet_ms: of(&[600_000, 3_600_000]),
        }
    }

    /// The weights of the run's mood.
    pub fn weights(&self) -> [u64; 9] {
        MOODS[self.mood]
    }

    /// Whether it is mostly about healing: then a leader's budget is waited for.
    pub fn heals(&self) -> bool {
        self.mood == 1
    }

    /// The policy that its fleet begins with.
    pub fn policy(&self) -> Policy {
        Policy {
            budget_percent: 50,
            cool_ms: 60_000,
            cool_ms_max: 240_000,
            storm: self.storm,
            quiet_ms: self.quiet_ms,
            aside_ms: 600_000,
            proof_ms: 600_000,
            grace_ms: 2_000,
            ..Policy::default()
        }
    }
}

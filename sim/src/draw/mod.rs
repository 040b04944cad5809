//! A plan out of a seed: which fleet, which faults, how often, and when.
//!
//! Swarm testing (Groce, Zhang, Eide, Chen & Regehr, ISSTA 2012): a run in which everything may happen
//! hides what only happens when something else does not. So each seed enables each kind of action with
//! a probability of one half, and draws how often it comes. Moments are drawn together: in bursts, and
//! right after another action; some seeds have a theme besides ([`THEMES`]). A plan is written out in full, with hosts by name, so that it can be
//! read, replayed and shrunk; only [`LEADER`](crate::action::LEADER) is left to the run. Nothing here plays a plan: see
//! [`crate::stage`].
//!
//! What a plan may not do, because nothing could be promised under it: two hosts of a run that lose what
//! their disks had promised (an emptied disk, a lying sync, a backup put back, a copied key).

mod dice;
mod faults;
mod ground;
mod themes;
mod work;

pub use dice::Dice;
pub use ground::Ground;
pub use themes::THEMES;

use crate::action::{Action, LEADER, Task};
use crate::plan::{Plan, Tier, Timed};
use ground::builds;
use mesh::blame::Rules;
use std::collections::{BTreeMap, BTreeSet};
use topology::{Fleet, NetworkKind};

/// Something that a seed enables or not.
#[derive(Clone, Copy)]
pub struct Kind {
    /// What it is called: as the action that it begins with.
    pub name: &'static str,
    /// Whether it is a fault, as against work.
    pub fault: bool,
    /// What it is, in a few words.
    pub text: &'static str,
    make: fn(&mut Draft<'_>),
}

/// How long a healed mesh may take in which no build fails, in milliseconds. What has gone silent is noticed after 15 s, and
/// dialled again within 5 s more; who is lost is helped after 20 s, and whose key is held to be alive twice is started anew,
/// up to twice, 15 s apart; then there are a quarantine and an election (10 s), and the longest chain of builds (40 s). Of
/// 820 seeds of both tiers none took 60 s, the median 7 s.
const SETTLES_MS: u64 = 120_000;

const fn work(name: &'static str, text: &'static str, make: fn(&mut Draft<'_>)) -> Kind {
    Kind { name, fault: false, text, make }
}

const fn fault(name: &'static str, text: &'static str, make: fn(&mut Draft<'_>)) -> Kind {
    Kind { name, fault: true, text, make }
}

/// Everything that can be drawn. Submissions are in every plan and come first.
pub const KINDS: &[Kind] = &[
    work("submit", "graphs of 1 to 8 builds", work::submit),
    work("request-again", "a client sends its request again", work::again),
    work("cancel", "an owner cancels a build", work::cancel),
    work("retry", "an owner has a build built again", work::retry),
    work("join", "a host is invited and joins", work::join),
    work("order", "an order to act is issued", work::order),
    fault("evict", "a signer takes a host out", work::evict),
    fault("leave", "a host says farewell and goes", work::leave),
    fault("stranger", "a host that nobody invited dials everybody", work::stranger),
    fault("forge", "an enrolled host lies", work::forge),
    fault("replay-late", "what was sent is sent again, late", work::replay_late),
    fault("crash", "a process dies", faults::crash),
    fault("power-cut", "unsynced writes are lost", faults::power_cut),
    fault("suspend", "a process stands still", faults::suspend),
    fault("slow-sync", "a disk is slow", faults::slow_sync),
    fault("lying-sync", "a disk reports syncs that it did not make", faults::lying_sync),
    fault("empty-disk", "a host comes back without its ledger", faults::empty_disk),
    fault("restore", "a host comes back with an old state", faults::restore),
    fault("clone", "a second machine has a host's key", faults::clone),
    fault("clock-rate", "clocks run fast or slow", faults::clock_rate),
    fault("clock-jump", "a wall clock is set", faults::clock_jump),
    fault("cut", "links, one way or both, of a pair, a host or a part", faults::cut),
    fault("loss", "packets are lost everywhere", faults::loss),
    fault("forget-masquerade", "a router forgets its connections", faults::forget_masquerade),
    fault("network", "an overlay goes down", faults::network),
    fault("take-address", "a host gets the address of another", faults::take_address),
    fault("swap-addresses", "two hosts get each other's address", faults::swap_addresses),
];

/// What a plan is drawn from.
pub struct Asked<'a> {
    /// Name of the scenario.
    pub scenario: &'a str,
    /// Which simulator is to play it.
    pub tier: Tier,
    /// Where all comes from.
    pub seed: u64,
    /// Fleets to choose from.
    pub fleets: &'a [Ground],
    /// The only faults that may be drawn, by the names of [`KINDS`] and [`THEMES`]; work is drawn as always.
    pub faults: Option<&'a BTreeSet<String>>,
}

/// Why no plan could be drawn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrawError {
    /// No fleet has hosts enough that reach each other.
    #[error(
        "no fleet has three hosts that reach each other, one of which builds, and {} at the most",
        ground::HOSTS_MAX
    )]
    NoFleet,
}

/// Draws a plan.
///
/// # Errors
/// When no fleet is fit for one.
pub fn draw(asked: &Asked<'_>) -> Result<Plan, DrawError> {
    let mut dice = Dice::new(asked.seed, "plan");
    let hosts_max = match asked.tier {
        Tier::Cores => 8,
        Tier::Nodes => 6,
    };
    let fit: Vec<&Ground> = asked.fleets.iter().filter(|ground| ground.is_fit()).collect();
    let Some(ground) = dice.one(&fit).copied() else { return Err(DrawError::NoFleet) };
    let fleet = &ground.fleet;

    // Sometimes all hosts that a run may have are enrolled, mostly some are left to join and to knock.
    let mut together = ground.together(&mut dice);
    // A fleet's last hosts are left out; one that builds is not among them.
    if let Some(builder) = together.iter().position(|host| builds(fleet, host)).filter(|at| *at >= hosts_max) {
        together.swap(hosts_max - 1, builder);
    }
    together.truncate(hosts_max);
    if together.len() < 3 {
        return Err(DrawError::NoFleet);
    }
    let enrolled = dice.between(3, together.len() as u64) as usize;
    let mut spare = together.split_off(enrolled);
    if !together.iter().any(|host| builds(fleet, host))
        && let Some(builder) = spare.iter().position(|host| builds(fleet, host))
    {
        std::mem::swap(&mut together[enrolled - 1], &mut spare[builder]);
    }
    let safety_ms = match asked.tier {
        Tier::Cores => dice.between(20, 60) * 1_000,
        Tier::Nodes => dice.between(20, 40) * 1_000,
    };
    let moments = (0..dice.between(1, 4)).map(|_| dice.below(safety_ms * 9 / 10)).collect();
    let frail = dice.one(&together).cloned().unwrap_or_default();
    let mut draft = Draft {
        dice,
        ground,
        fleet,
        hosts: together,
        spare,
        frail,
        safety_ms,
        moments,
        actions: vec![],
        requests: vec![],
        tasks: BTreeMap::new(),
        gone: BTreeSet::new(),
    };
    for kind in KINDS {
        // Drawn for every kind alike, so that restricting faults does not change the work of a seed.
        let (enabled, often) = (draft.dice.percent(50), 1 << draft.dice.below(3));
        let enabled = match asked.faults {
            _ if kind.name == "submit" => true,
            Some(only) if kind.fault => only.contains(kind.name),
            _ => enabled,
        };
        if enabled {
            for _ in 0..draft.dice.between(1, often) {
                (kind.make)(&mut draft);
            }
        }
    }
    // Dice of their own: what else a seed has does not depend on its theme.
    draft.dice = Dice::new(asked.seed, "theme");
    let (themed, theme) = (draft.dice.percent(themes::THEMED), draft.dice.one(THEMES).map(|theme| theme.name));
    for one in THEMES {
        let enabled = match asked.faults {
            None => themed && theme == Some(one.name),
            Some(only) => only.contains(one.name),
        };
        if enabled {
            (one.make)(&mut draft);
        }
    }
    // Stable: what was drawn first at a moment is done first.
    draft.actions.retain(|timed| timed.at_ms < safety_ms);
    draft.actions.sort_by_key(|timed| timed.at_ms);
    // A build that fails does so on two hosts before it is held, and each time its host rests; where one host is left for
    // all, it rests for each try. Seed 4599 takes 37 s for each.
    let broken = |action: &Action| match action {
        Action::Submit { tasks, .. } => tasks.iter().filter(|t| t.exit != 0 || !t.breaks_on.is_empty()).count() as u64,
        _ => 0,
    };
    let failing: u64 = draft.actions.iter().map(|timed| broken(&timed.action)).sum();
    Ok(Plan {
        scenario: asked.scenario.to_owned(),
        tier: asked.tier,
        seed: asked.seed,
        topology: ground.name.clone(),
        mutant: None,
        hosts: draft.hosts,
        safety_ms,
        liveness_ms: SETTLES_MS + Rules::default().rest_ms * failing * 3 / 2,
        actions: draft.actions,
        expect: vec![],
    })
}

/// A plan that is being drawn.
struct Draft<'a> {
    dice: Dice,
    ground: &'a Ground,
    fleet: &'a Fleet,
    /// Enrolled from the beginning; the first founds the mesh.
    hosts: Vec<String>,
    /// Not enrolled, for now.
    spare: Vec<String>,
    /// The one host that may lose what its disk promised.
    frail: String,
    safety_ms: u64,
    /// Around these, much happens.
    moments: Vec<u64>,
    actions: Vec<Timed>,
    /// Requests so far: number, host, builds, moment.
    requests: Vec<work::Request>,
    /// Every build, with the host and the moment of its submission.
    tasks: BTreeMap<String, (String, u64)>,
    /// Taken out or gone.
    gone: BTreeSet<String>,
}

impl Draft<'_> {
    /// The owner of a host submits builds under a number of their own.
    fn submitted(&mut self, number: u64, host: &str, tasks: Vec<Task>, at_ms: u64) {
        let action = Action::Submit { host: host.to_owned(), request: number, tasks: tasks.clone() };
        self.push(at_ms, action);
        self.requests.push(work::Request { number, host: host.to_owned(), tasks, at_ms });
    }

    fn push(&mut self, at_ms: u64, action: Action) {
        self.actions.push(Timed { at_ms, action });
    }

    /// A moment: in a burst, right after something else, or anywhere.
    fn moment(&mut self) -> u64 {
        match self.dice.below(10) {
            0..=3 => {
                let moment = self.dice.one(&self.moments).copied().unwrap_or_default();
                moment + self.dice.below(500)
            }
            4..=6 => match self.dice.one(&self.actions).map(|timed| timed.at_ms) {
                Some(moment) => moment + self.dice.between(0, 50),
                None => self.dice.below(5_000),
            },
            _ => self.dice.below(self.safety_ms),
        }
    }

    /// How long a fault lasts: a blink, less than a lease, some leases; or until all is healed.
    fn lasting(&mut self) -> Option<u64> {
        match self.dice.below(10) {
            0..=2 => Some(self.dice.between(1, 200)),
            3..=5 => Some(self.dice.between(200, 3_000)),
            6..=7 => Some(self.dice.between(3_000, 20_000)),
            _ => None,
        }
    }

    /// An enrolled host by name.
    fn host(&mut self) -> String {
        self.dice.one(&self.hosts).cloned().unwrap_or_default()
    }

    /// An enrolled host, or whoever leads then.
    fn host_or_leader(&mut self) -> String {
        if self.dice.percent(30) { LEADER.to_owned() } else { self.host() }
    }

    /// Two enrolled hosts.
    fn pair(&mut self) -> (String, String) {
        let mut two = self.hosts.clone();
        self.dice.shuffle(&mut two);
        (two.swap_remove(0), two.swap_remove(0))
    }

    fn overlays(&self) -> Vec<String> {
        let overlays = self.fleet.networks.iter().filter(|(_, network)| network.kind == NetworkKind::Overlay);
        overlays.map(|(name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests;

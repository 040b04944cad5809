//! A fleet to draw plans for, with what is asked of it for every seed worked out once.

use super::Dice;
use std::collections::BTreeSet;
use topology::{Fleet, Oracle};

/// Hosts of a fleet that a drawn plan can be made for: beyond that, a run is about scale, not about faults.
pub(super) const HOSTS_MAX: usize = 24;

/// Orders of a fleet's hosts that are tried, to find three that meet.
const ORDERS_MAX: usize = 64;

/// A fleet to draw plans for.
#[derive(Clone, Debug)]
pub struct Ground {
    /// What a plan calls it: the name of a shipped fleet, or a path.
    pub name: String,
    /// It.
    pub fleet: Fleet,
    /// Who reaches whom without help, by their places in the fleet.
    reaches: BTreeSet<(usize, usize)>,
}

impl Ground {
    /// Asks the oracle about each pair of hosts.
    pub fn new(name: String, fleet: Fleet) -> Ground {
        let oracle = Oracle::new(&fleet);
        let hosts = if fleet.hosts.len() > HOSTS_MAX { &[] } else { fleet.hosts.as_slice() };
        let mut reaches = BTreeSet::new();
        for (from, host) in hosts.iter().enumerate() {
            for (to, other) in hosts.iter().enumerate() {
                if oracle.reach(&host.name, &other.name).iter().any(|(_, dial)| dial.succeeds()) {
                    reaches.insert((from, to));
                }
            }
        }
        Ground { name, fleet, reaches }
    }

    /// Whether a drawn plan can be about it.
    pub fn is_fit(&self) -> bool {
        !self.together(&mut Dice::new(0, "fit")).is_empty()
    }

    /// Whether a host can dial another.
    pub(super) fn can_dial(&self, from: &str, to: &str) -> bool {
        let place = |name: &str| self.fleet.hosts.iter().position(|host| host.name == name);
        place(from).zip(place(to)).is_some_and(|pair| self.reaches.contains(&pair))
    }

    /// Hosts in any order, of each two of which one can dial the other; all can dial the first, which founds the
    /// mesh and invites them. None, or three and more of which one builds.
    pub(super) fn together(&self, dice: &mut Dice) -> Vec<String> {
        if self.reaches.is_empty() {
            return vec![];
        }
        let hosts = &self.fleet.hosts;
        let mut all: Vec<usize> = (0..hosts.len()).collect();
        // A fleet in parts has orders that find two of a part only: any that finds three will do.
        for _ in 0..ORDERS_MAX {
            dice.shuffle(&mut all);
            let mut chosen: Vec<usize> = vec![];
            for host in &all {
                let meets =
                    |other: &usize| self.reaches.contains(&(*host, *other)) || self.reaches.contains(&(*other, *host));
                if chosen.iter().all(meets) {
                    chosen.push(*host);
                }
            }
            let founder = chosen.iter().position(|founder| {
                chosen.iter().all(|host| host == founder || self.reaches.contains(&(*host, *founder)))
            });
            let Some(founder) = founder else { continue };
            chosen.swap(0, founder);
            if chosen.len() >= 3 && chosen.iter().any(|host| hosts[*host].cores > 0) {
                return chosen.into_iter().map(|host| hosts[host].name.clone()).collect();
            }
        }
        vec![]
    }
}

/// Whether a host offers cores.
pub(super) fn builds(fleet: &Fleet, host: &str) -> bool {
    fleet.host(host).is_some_and(|host| host.cores > 0)
}

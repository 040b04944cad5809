//! Who should vote: an odd number that grows with the mesh, spread over its networks, and never a host that comes and
//! goes. Pure, and one step at a time: the leader asks for the next set when the last one stands.

use super::{HostNow, View};
use crate::identity::PeerKey;
use crate::ledger::Ledger;
use std::collections::{BTreeMap, BTreeSet};

/// For how long a voter must have been down before another host takes its seat: longer than a reboot.
const REPLACE_VOTER_AFTER_MS: u64 = 600_000;
/// For how long a host must have been well before it takes the seat of one that is well too: nothing is gained in haste.
const STEADY_MS: u64 = 30_000;
/// A host that has come back from being down more often than this of late is flapping.
pub const FLAPS_MAX: usize = 2;

/// How many vote in a mesh of so many members: as few as bear a loss, and two losses or three where a mesh is so large
/// that these happen together. Every further one has to be heard before anything is decided.
pub fn seats(members: usize) -> usize {
    match members {
        0..=2 => 1,
        3..=8 => 3,
        9..=24 => 5,
        _ => 7,
    }
}

/// What is asked again and again below.
struct Choice<'a> {
    ledger: &'a Ledger,
    view: &'a View,
    present: &'a BTreeSet<PeerKey>,
    leader: PeerKey,
}

/// The voter set that should be, when it is not the present one. Consensus goes from one to the other by joint
/// majorities (Ongaro 2014, section 4.3).
pub(super) fn voters(ledger: &Ledger, view: &View) -> Option<BTreeSet<PeerKey>> {
    let (present, leader) = (ledger.voters().voters(), ledger.leader()?.0);
    let choice = Choice { ledger, view, present, leader };
    let most = seats(ledger.roster().len());
    let kept: BTreeSet<PeerKey> = present.iter().filter(|p| !choice.is_gone(p)).copied().collect();
    let next = choice.resized(kept, most)?;
    let next = if next == *present { choice.improved(next) } else { next };
    (next != *present && next.contains(&leader)).then_some(next)
}

impl Choice<'_> {
    fn is_member(&self, peer: &PeerKey) -> bool {
        self.ledger.roster().is_member(peer)
    }

    /// It can take a seat.
    fn is_fit(&self, peer: &PeerKey) -> bool {
        let fit = |h: &HostNow| h.alive && h.caught_up && !h.suspended;
        self.view.get(peer).is_some_and(fit) && self.is_member(peer)
    }

    fn flaps(&self, peer: &PeerKey) -> bool {
        self.view.get(peer).is_some_and(|h| h.flapping)
    }

    /// It has lost its seat, whoever may take it.
    fn is_gone(&self, peer: &PeerKey) -> bool {
        let gone = |h: &HostNow| h.suspended || (h.down && h.steady_ms >= REPLACE_VOTER_AFTER_MS);
        !self.is_member(peer) || self.view.get(peer).is_some_and(gone)
    }

    fn network(&self, peer: &PeerKey) -> u64 {
        self.view.get(peer).map_or(0, |h| h.network)
    }

    fn spread(&self, voters: &BTreeSet<PeerKey>) -> BTreeMap<u64, usize> {
        let mut spread = BTreeMap::new();
        for voter in voters {
            *spread.entry(self.network(voter)).or_default() += 1;
        }
        spread
    }

    /// Of those that can take a seat the one in the network with the fewest; among equals the lower key. One that flaps
    /// only where there would not be three without it: better it than nobody who could take over.
    fn newcomer(&self, voters: &BTreeSet<PeerKey>, fit: impl Fn(&PeerKey) -> bool) -> Option<PeerKey> {
        let spread = self.spread(voters);
        let here = |peer: &PeerKey| spread.get(&self.network(peer)).copied().unwrap_or_default();
        let free = self.view.keys().filter(|p| self.is_fit(p) && !voters.contains(p) && fit(p));
        let free = free.filter(|p| voters.len() < 3 || !self.flaps(p));
        free.min_by_key(|peer| (self.flaps(peer), here(peer), **peer)).copied()
    }

    /// The set brought to an odd size, as large as it can be and not above `most`. `None` when it has to stay.
    fn resized(&self, mut voters: BTreeSet<PeerKey>, most: usize) -> Option<BTreeSet<PeerKey>> {
        while voters.len() < most {
            let Some(newcomer) = self.newcomer(&voters, |p| !self.present.contains(p)) else { break };
            voters.insert(newcomer);
        }
        if most == 1 && voters.len() > 1 {
            return Some(BTreeSet::from([self.leader]));
        }
        while voters.len() > most || (voters.len() > 3 && voters.len().is_multiple_of(2)) {
            voters.remove(&self.least(&voters)?);
        }
        if voters.len() == most || voters.len() >= 3 {
            return Some(voters);
        }
        // A voter was taken out and nobody can take its seat: go on alone rather than wait for it.
        let revoked = !self.present.iter().all(|p| self.is_member(p));
        (revoked && voters.contains(&self.leader)).then(|| BTreeSet::from([self.leader]))
    }

    /// Who would be missed least: one that has no seat yet, then one that is away, then one of the network with the
    /// most; never the leader.
    fn least(&self, voters: &BTreeSet<PeerKey>) -> Option<PeerKey> {
        let spread = self.spread(voters);
        let others = voters.iter().filter(|p| **p != self.leader);
        others.max_by_key(|p| (!self.present.contains(p), !self.is_fit(p), spread[&self.network(p)], **p)).copied()
    }

    /// The set with one seat given to another host, when that makes it better: one that flaps gives way, and so does
    /// one of a network that has two seats more than another.
    fn improved(&self, voters: BTreeSet<PeerKey>) -> BTreeSet<PeerKey> {
        let calm = |peer: &PeerKey| self.view.get(peer).is_some_and(|h| h.alive && h.steady_ms >= STEADY_MS);
        let swapped = |out: &PeerKey| {
            let mut rest = voters.clone();
            rest.remove(out);
            let newcomer = self.newcomer(&rest, |p| !voters.contains(p) && calm(p) && !self.flaps(p))?;
            rest.insert(newcomer);
            Some(rest)
        };
        let unequal = |set: &BTreeSet<PeerKey>| self.spread(set).values().map(|n| n * n).sum::<usize>();
        let others = || voters.iter().filter(|p| **p != self.leader);
        if let Some(better) = others().find(|p| self.flaps(p)).and_then(swapped) {
            return better;
        }
        if !voters.iter().all(calm) {
            return voters; // one thing after the other
        }
        let spread = self.spread(&voters);
        let out = others().max_by_key(|p| (spread[&self.network(p)], **p));
        let better = out.and_then(swapped).filter(|set| unequal(set) < unequal(&voters));
        better.unwrap_or(voters)
    }
}

/// Who takes over from a sole voter that is about to leave: of the members that are alive and have caught up the
/// one with the lowest key, one that does not flap before all others. `None` when there is nobody, or when the one that
/// leaves is not the sole voter.
pub fn heir(ledger: &Ledger, view: &View, leaver: &PeerKey) -> Option<PeerKey> {
    let sole = ledger.voters().voters().iter().eq([leaver]);
    let fit = view.iter().filter(|(peer, h)| {
        *peer != leaver && h.alive && h.caught_up && !h.suspended && ledger.roster().is_member(peer)
    });
    fit.min_by_key(|(peer, h)| (h.flapping, **peer)).filter(|_| sole).map(|(peer, _)| *peer)
}

#[cfg(test)]
#[path = "voters_tests.rs"]
mod tests;

//! Whether the mesh can do without a host for good.
//!
//! A majority of the voters that is lost for good cannot be had back yet (the README's limits say so), and nothing
//! can be asked of a mesh after that. So a store is not emptied, and nobody is taken out, when that would leave
//! fewer voters than a majority with what they promised. A voter that is only down is not lost: it comes back.
//! Which voters count is asked of consensus on each host, and remembered while a host is down.

use super::Station;
use super::stage::NodesStage;
use mesh::identity::PeerKey;
use node::driver::Inner;
use std::collections::{BTreeMap, BTreeSet};

/// What is known of votes.
#[derive(Default)]
pub struct Quorum {
    /// The voters by each host's newest configuration.
    voters: BTreeMap<String, BTreeSet<PeerKey>>,
    /// Hosts whose store is gone.
    emptied: BTreeSet<String>,
    /// Hosts that somebody has begun to take out, or that have begun to leave.
    going: BTreeSet<String>,
}

impl NodesStage {
    /// Remembers what a host's consensus says of voters.
    pub(super) fn note_voters(&mut self, name: &str, voters: BTreeSet<PeerKey>) {
        if self.members.contains(name) && self.quorum.voters.get(name) != Some(&voters) {
            self.quorum.voters.insert(name.to_owned(), voters);
        }
    }

    /// Whether any ledger there is has a host among its voters, or consensus somewhere has, or had before it went down.
    pub(super) fn votes(&self, name: &str) -> bool {
        let Some(key) = self.key(name) else { return false };
        let in_ledger = |node: &Inner| node.ledger(|l| l.voters().voters().contains(&key));
        // Also of those that were taken out: until they hear of it they would elect whoever goes back to what they know.
        self.nodes.stations.values().filter_map(Station::node).any(|node| in_ledger(&node))
            || self.quorum.voters.values().any(|voters| voters.contains(&key))
    }

    /// Whether a leader may be giving its vote to another just now: a leader that leaves does, until it is out, and
    /// from the first host that has the entry on there may be no way back.
    pub(super) fn may_inherit(&self) -> bool {
        self.quorum.going.iter().any(|name| self.members.contains(name))
    }

    /// Whether a host's copy votes, by its own consensus, and the host has never heard that its key does.
    pub(super) fn came_to_vote(&self, copy: &str, of: &str) -> bool {
        let Some(key) = self.key(of) else { return false };
        let votes = self.station(copy).and_then(Station::node).is_some_and(|node| node.raft_voters().contains(&key));
        votes && self.quorum.voters.get(of).is_none_or(|voters| !voters.contains(&key))
    }

    /// Whether a host is the only voter by what its own disk says: a limit that the README states.
    pub(super) fn votes_alone(&self, name: &str) -> bool {
        let Some(alone) = self.key(name).map(|key| BTreeSet::from([key])) else { return false };
        let in_ledger = |node: &Inner| node.ledger(|l| *l.voters().voters() == alone);
        self.quorum.voters.get(name) == Some(&alone)
            || self.station(name).and_then(Station::node).is_some_and(|node| in_ledger(&node))
    }

    /// The store of a host is gone.
    pub(super) fn note_emptied(&mut self, name: &str) {
        self.quorum.emptied.insert(name.to_owned());
    }

    /// A host is about to be out.
    pub(super) fn note_going(&mut self, name: &str) {
        self.quorum.going.insert(name.to_owned());
    }

    /// Whether some voters that may count would have no majority left without this one.
    pub(super) fn is_needed(&self, name: &str) -> bool {
        let Some(key) = self.key(name) else { return false };
        let lost = |name: &String| self.quorum.emptied.contains(name) || self.quorum.going.contains(name);
        let left: BTreeSet<PeerKey> = self
            .members
            .iter()
            .filter(|other| *other != name && !lost(other))
            .filter_map(|other| self.key(other))
            .collect();
        let sets = self.quorum.voters.iter().filter(|(host, _)| self.members.contains(*host)).map(|(_, voters)| voters);
        sets.filter(|voters| voters.contains(&key)).any(|voters| voters.intersection(&left).count() <= voters.len() / 2)
    }

    /// Whether a store is gone on a host that votes: from then on each other one counts.
    pub(super) fn is_short_of_voters(&self) -> bool {
        let gone: BTreeSet<PeerKey> = self.quorum.emptied.iter().filter_map(|name| self.key(name)).collect();
        self.quorum.voters.iter().any(|(host, voters)| self.members.contains(host) && !voters.is_disjoint(&gone))
    }
}

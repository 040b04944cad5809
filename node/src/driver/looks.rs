//! What an observer beside a node may see of it: the simulator holds it against the truth.
//!
//! Looks only, each under the lock of what it looks at; nothing of the node depends on them.

use super::shared::lock;
use super::{INPUTS_MAX, Inner, submit};
use crate::net::Opened;
use mesh::build::{Attempt, BuildId};
use mesh::identity::PeerKey;
use mesh::lease::Fence;
use mesh::membership::State;
use mesh::order::Act;
use mesh::warrant::OrderId;
use std::collections::{BTreeSet, VecDeque};

/// Deeds that are remembered: more than a host does between two looks.
const DEEDS_MAX: usize = 1_024;

/// What a node did of itself, before anybody else could know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// As the leader it put an assignment forward.
    Proposed {
        /// Under which fence.
        fence: Fence,
        /// Which build.
        build: BuildId,
        /// Which try.
        attempt: Attempt,
        /// For whom.
        to: PeerKey,
    },
    /// As a target it acts on an order.
    Acts {
        /// Which order.
        order: OrderId,
        /// Whom that names.
        target: PeerKey,
        /// What it asks for.
        act: Act,
        /// Under which fence.
        fence: Fence,
    },
    /// An attempt ended here, whatever came of it.
    Ended {
        /// Which build.
        build: BuildId,
        /// Which try.
        attempt: Attempt,
    },
}

/// What a node did lately.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deeds {
    /// How much there has ever been.
    pub count: u64,
    /// The last of it, the newest at the end.
    pub latest: VecDeque<Deed>,
}

impl Inner {
    pub(super) fn note(&self, deed: Deed) {
        let mut deeds = lock(&self.deeds);
        deeds.count += 1;
        if deeds.latest.len() == DEEDS_MAX {
            deeds.latest.pop_front();
        }
        deeds.latest.push_back(deed);
    }

    /// What this node did since there were `known` deeds, as far as it is remembered, and how many there are.
    pub fn deeds_since(&self, known: u64) -> (u64, Vec<Deed>) {
        let deeds = lock(&self.deeds);
        let new = deeds.count.saturating_sub(known).min(DEEDS_MAX as u64) as usize;
        (deeds.count, deeds.latest.iter().rev().take(new).rev().copied().collect())
    }

    /// Whose node this is.
    pub fn key(&self) -> PeerKey {
        self.me
    }

    /// The start number that it goes by.
    pub fn start_number(&self) -> u64 {
        self.start
    }

    /// The fence of the lease that this host holds at this moment, by its own clock.
    pub fn lease_now(&self) -> Option<Fence> {
        self.consensus.grant().map(|grant| grant.fence)
    }

    /// Who votes by the newest membership in this host's log, committed or not.
    pub fn raft_voters(&self) -> BTreeSet<PeerKey> {
        self.consensus.voters()
    }

    /// What this host believes of every other.
    pub fn beliefs(&self) -> Vec<(PeerKey, State)> {
        let members = lock(&self.members);
        members.hosts().filter(|(peer, _)| **peer != self.me).map(|(peer, view)| (*peer, view.state)).collect()
    }

    /// Whose key this host holds to be alive twice.
    pub fn clones(&self) -> Vec<PeerKey> {
        lock(&self.members).hosts().filter(|(_, view)| view.cloned).map(|(peer, _)| *peer).collect()
    }

    /// Voters that have lost what they acknowledged, as far as this host knows as the leader: each stays out until
    /// somebody evicts it.
    pub fn gone_back(&self) -> Vec<PeerKey> {
        self.consensus.refused().into_iter().filter(|(_, (_, voted))| *voted).map(|(peer, _)| peer).collect()
    }

    /// Where this host would look for another, whether or not it is there.
    pub fn places_of(&self, peer: &PeerKey) -> Vec<String> {
        lock(&self.addresses).known(peer, self.now())
    }

    /// The newest presence of each host that this one knows: start number and sequence.
    pub fn presences(&self) -> Vec<(PeerKey, u64, u64)> {
        let members = lock(&self.members);
        let newest = members.hosts().filter_map(|(peer, view)| Some((*peer, view.presence.clone()?)));
        newest.map(|(peer, presence)| (peer, presence.start, presence.sequence)).collect()
    }

    /// With whom streams were opened lately, either way.
    pub fn opened(&self) -> Opened {
        self.net.opened()
    }

    /// Connections that stand.
    pub fn connections(&self) -> Vec<PeerKey> {
        self.net.connections().into_iter().map(|connection| connection.peer).collect()
    }

    /// Tables that must not grow without bound: what, how large, and how large at most.
    pub fn sizes(&self) -> Vec<(&'static str, u64, u64)> {
        let waiting = submit::WAITING_MAX - self.entries.capacity();
        let (members, open) = self.shared.with(|ledger| {
            let counts = ledger.builds().counts();
            (ledger.roster().len(), counts.queued + counts.running)
        });
        let probes = lock(&self.probe_in).len();
        vec![
            ("entries that wait", waiting as u64, submit::WAITING_MAX as u64),
            ("hosts believed in", lock(&self.members).hosts().count() as u64, mesh::limits::MEMBERS_MAX as u64),
            ("members", members as u64, mesh::limits::MEMBERS_MAX as u64),
            ("open builds", open, mesh::limits::OPEN_BUILDS_MAX as u64),
            ("strangers remembered", lock(&self.strangers).len() as u64, super::status::STRANGERS_MAX as u64),
            ("probe streams", probes as u64, INPUTS_MAX as u64),
        ]
    }
}

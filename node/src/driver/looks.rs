//! What an observer beside a node may see of it: the simulator holds it against the truth.
//!
//! Looks, each under the lock of what it looks at; nothing of the node depends on them. One thing can be done from
//! here: a node can be told what was said to it before ([`Inner::hear_again`]).

use super::shared::lock;
use super::{INPUTS_MAX, Inner, submit};
use crate::net::Opened;
use mesh::build::{Attempt, BuildId};
use mesh::identity::PeerKey;
use mesh::lease::Fence;
use mesh::membership::{Input, State};
use mesh::order::Act;
use mesh::warrant::{Known, OrderId};
use mesh::wire::Signed;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// Deeds that are remembered: more than a host does between two looks.
const DEEDS_MAX: usize = 1_024;
/// The same for words, which are larger.
const WORDS_MAX: usize = 16;
/// A word that is larger is not remembered.
const WORD_BYTES_MAX: usize = 2_048;

/// What a node did of itself, before anybody else could know.
#[derive(Clone, Debug)]
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
        /// By what it judged: what it knew when it said hello.
        known: Arc<Known>,
    },
    /// An attempt ended here, whatever came of it.
    Ended {
        /// Which build.
        build: BuildId,
        /// Which try.
        attempt: Attempt,
    },
}

/// What a node signed and sent, to the ledger or to all: whoever heard it can say it again at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// An entry.
    Entry(Signed),
    /// An encoded statement.
    Statement(Vec<u8>),
}

/// The last of what there has ever been of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latest<T> {
    count: u64,
    /// The newest at the end.
    latest: VecDeque<T>,
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Latest { count: 0, latest: VecDeque::new() }
    }
}

impl<T: Clone> Latest<T> {
    fn push(&mut self, one: T, max: usize) {
        self.count += 1;
        if self.latest.len() == max {
            self.latest.pop_front();
        }
        self.latest.push_back(one);
    }

    /// What came since there were `known`, as far as it is remembered, and how many there are.
    fn since(&self, known: u64) -> (u64, Vec<T>) {
        let new = self.count.saturating_sub(known).min(self.latest.len() as u64) as usize;
        (self.count, self.latest.iter().skip(self.latest.len() - new).cloned().collect())
    }
}

impl Inner {
    pub(super) fn note(&self, deed: Deed) {
        lock(&self.deeds).push(deed, DEEDS_MAX);
    }

    pub(super) fn note_entry(&self, entry: &Signed) {
        if entry.by == self.me && entry.body.len() <= WORD_BYTES_MAX {
            lock(&self.words).push(Word::Entry(entry.clone()), WORDS_MAX);
        }
    }

    pub(super) fn note_statement(&self, bytes: &[u8]) {
        if bytes.len() <= WORD_BYTES_MAX {
            lock(&self.words).push(Word::Statement(bytes.to_owned()), WORDS_MAX);
        }
    }

    /// What this node did since there were `known` deeds, as far as it is remembered, and how many there are.
    pub fn deeds_since(&self, known: u64) -> (u64, Vec<Deed>) {
        lock(&self.deeds).since(known)
    }

    /// The same of its words.
    pub fn words_since(&self, known: u64) -> (u64, Vec<Word>) {
        lock(&self.words).since(known)
    }

    /// Hears a statement as if gossip had brought it at this moment, new or old. What follows from it is done
    /// when the loop turns next.
    pub fn hear_again(&self, statement: Vec<u8>) {
        lock(&self.members).handle(Input::Statement(statement), self.now());
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

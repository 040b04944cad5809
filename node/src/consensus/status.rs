//! What is known here of the ledger's consensus, and word of its changes.

use super::types::{LogId, Metrics, StoredMembership};
use mesh::identity::PeerKey;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft_rt_sim::SimWatchReceiver;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a host is to the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Not a voter, or not part of it yet.
    Learner,
    /// A voter that follows.
    Follower,
    /// A voter that asks for votes.
    Candidate,
    /// Raft's leader. May act only while it holds a [`mesh::lease::Grant`].
    Leader,
}

/// Who takes part.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Members {
    /// Index of the entry that says so.
    pub index: u64,
    /// Who votes. During a change, the union of old and new.
    pub voters: BTreeSet<PeerKey>,
    /// Who is sent the log without a vote.
    pub learners: BTreeSet<PeerKey>,
    /// A change of voters is half done.
    pub joint: bool,
}

impl Members {
    pub(super) fn of(membership: &StoredMembership) -> Self {
        Members {
            index: membership.log_id().map_or(0, |id| id.index),
            voters: membership.voter_ids().collect(),
            learners: membership.membership().learner_ids().collect(),
            joint: membership.get_joint_config().len() > 1,
        }
    }
}

/// Consensus as this host sees it at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What this host is.
    pub role: Role,
    /// Raft's term.
    pub term: u64,
    /// Who leads, if known.
    pub leader: Option<PeerKey>,
    /// The newest membership in the log, committed or not: the one Raft counts by.
    pub effective: Members,
    /// The newest committed membership.
    pub committed: Members,
    /// Index of the last entry here.
    pub last_log: u64,
    /// Index of the last entry applied here.
    pub applied: u64,
    /// Index of the last entry in a snapshot.
    pub snapshot: u64,
    /// On the leader: how many entries each other member is known to be behind. `None`: never heard of.
    pub lag: BTreeMap<PeerKey, Option<u64>>,
    /// Why consensus has stopped on this host.
    pub stopped: Option<String>,
}

fn index(id: Option<&LogId>) -> u64 {
    id.map_or(0, |id| id.index)
}

impl Status {
    pub(super) fn of(metrics: &Metrics) -> Self {
        Status {
            role: match metrics.state {
                ServerState::Leader => Role::Leader,
                ServerState::Candidate => Role::Candidate,
                ServerState::Follower => Role::Follower,
                ServerState::Learner | ServerState::Shutdown => Role::Learner,
            },
            term: metrics.current_term,
            leader: metrics.current_leader,
            effective: Members::of(&metrics.membership_config),
            committed: Members::of(&metrics.committed_membership_config),
            last_log: metrics.last_log_index.unwrap_or(0),
            applied: index(metrics.last_applied.as_ref()),
            snapshot: index(metrics.snapshot.as_ref()),
            lag: lags(metrics).collect(),
            stopped: metrics.running_state.as_ref().err().map(ToString::to_string),
        }
    }
}

/// On the leader: how many entries each other member is known to be behind.
pub(super) fn lags(metrics: &Metrics) -> impl Iterator<Item = (PeerKey, Option<u64>)> + '_ {
    let last = metrics.last_log_index.unwrap_or(0);
    let others = metrics.replication.iter().flatten().filter(|(peer, _)| **peer != metrics.id);
    others.map(move |(peer, matched)| (*peer, matched.as_ref().map(|id| last.saturating_sub(id.index))))
}

/// What [`Changes`] tells of.
#[derive(PartialEq)]
struct Turn {
    state: ServerState,
    term: u64,
    leader: Option<PeerKey>,
    effective: Arc<StoredMembership>,
    committed: Arc<StoredMembership>,
    stopped: bool,
}

impl Turn {
    fn of(metrics: &Metrics) -> Self {
        Turn {
            state: metrics.state,
            term: metrics.current_term,
            leader: metrics.current_leader,
            effective: metrics.membership_config.clone(),
            committed: metrics.committed_membership_config.clone(),
            stopped: metrics.running_state.is_err(),
        }
    }
}

/// Word of changes of leader, term, role, membership, and of the end. Changes that follow each other quickly
/// may come as one.
pub struct Changes {
    metrics: SimWatchReceiver<Metrics>,
    last: Option<Turn>,
}

impl Changes {
    pub(super) fn of(metrics: SimWatchReceiver<Metrics>) -> Self {
        Changes { metrics, last: None }
    }

    /// The next change; at first, what is. `None` once consensus is gone and that has been told.
    pub async fn next(&mut self) -> Option<Status> {
        loop {
            // Metrics change with every heartbeat that is answered.
            let news = {
                let metrics = self.metrics.borrow_watched();
                let turn = Turn::of(&metrics);
                (self.last.as_ref() != Some(&turn)).then(|| (turn, Status::of(&metrics)))
            };
            if let Some((turn, status)) = news {
                self.last = Some(turn);
                return Some(status);
            }
            self.metrics.changed().await.ok()?;
        }
    }
}

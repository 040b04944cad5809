//! When openraft has to look at its clock.
//!
//! It looks five times in each heartbeat, on every host, whether anything can follow from that or not, and publishes
//! all its metrics after each look: in a mesh at rest most of what consensus costs. What follows from time alone is an
//! election, of a voter that follows, and a heartbeat, of a leader. So only voters that do not lead have openraft's
//! ticks; a learner has none, and a leader asks for each heartbeat when it is due.

use super::rt::{Scope, Sleep};
use super::types::{Metrics, Raft};
use mesh::identity::PeerKey;
use mesh::time::Time;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use std::time::Duration;

/// What a host has to look at the clock for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Duty {
    /// Heartbeats.
    Lead,
    /// Elections.
    Vote,
    /// Nothing.
    Listen,
}

impl Duty {
    fn of(metrics: &Metrics, me: &PeerKey) -> Duty {
        let votes = |membership: &super::types::StoredMembership| membership.voter_ids().any(|voter| voter == *me);
        match metrics.state {
            ServerState::Leader => Duty::Lead,
            ServerState::Candidate => Duty::Vote,
            _ if votes(&metrics.membership_config) || votes(&metrics.committed_membership_config) => Duty::Vote,
            _ => Duty::Listen,
        }
    }
}

/// Keeps the pace until consensus has ended.
pub(super) async fn keep(me: PeerKey, raft: Raft, scope: Scope, heartbeat: Duration) {
    let mut metrics = raft.metrics();
    let mut last = None;
    let mut due = Time::default();
    loop {
        let duty = {
            let metrics = metrics.borrow_watched();
            match metrics.running_state {
                Ok(()) => Duty::of(&metrics, &me),
                Err(_) => return,
            }
        };
        if last != Some(duty) {
            last = Some(duty);
            raft.runtime_config().tick(duty == Duty::Vote);
            due = scope.now() + heartbeat; // who has just been elected has sent an entry to everybody
        }
        let beat = async {
            match duty {
                Duty::Lead => Sleep::until(scope.clone(), due).await,
                Duty::Vote | Duty::Listen => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = beat => {
                due = scope.now() + heartbeat;
                if scope.run(raft.trigger().heartbeat()).await.is_err() {
                    return;
                }
            }
            changed = metrics.changed() => if changed.is_err() { return },
        }
    }
}

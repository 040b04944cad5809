//! When openraft has to look at its clock.
//!
//! By itself it does five times in each heartbeat, on every host, whether anything can follow from that or not, and
//! publishes all its metrics after each look: in a mesh at rest, most of what consensus costs. What follows from time
//! alone is a heartbeat, of a leader, and an election, of a voter that has heard nobody for long. So a leader asks for
//! each heartbeat when it is due, a voter has openraft's ticks while nobody leads it, and a learner has none.

use super::rt::{Moment, Scope, Sleep};
use super::timing::Timing;
use super::types::{Metrics, Raft, StoredMembership};
use mesh::identity::PeerKey;
use mesh::time::Time;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use tokio_util::sync::CancellationToken;

/// What a host has to look at the clock for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Duty {
    /// Heartbeats.
    Lead,
    /// Elections, when it hears nobody.
    Vote,
    /// Its own election: a sole voter waits for nobody.
    Alone,
    /// Nothing.
    Listen,
}

impl Duty {
    fn of(metrics: &Metrics, me: &PeerKey) -> Duty {
        let (effective, committed) = (&metrics.membership_config, &metrics.committed_membership_config);
        let votes = |membership: &StoredMembership| membership.voter_ids().any(|voter| voter == *me);
        match metrics.state {
            ServerState::Leader => Duty::Lead,
            _ if votes(effective) && effective.voter_ids().count() == 1 => Duty::Alone,
            _ if votes(effective) || votes(committed) || metrics.state == ServerState::Candidate => Duty::Vote,
            _ => Duty::Listen,
        }
    }
}

/// What keeps the pace on this host.
#[derive(Default)]
pub(super) struct Pace {
    stop: CancellationToken,
    stopped: CancellationToken,
}

impl Pace {
    /// Keeps the pace until [`Pace::stop`], or until consensus has ended by itself.
    pub(super) fn start(me: PeerKey, raft: Raft, scope: &Scope, timing: Timing) -> Pace {
        let pace = Pace::default();
        let (stop, stopped) = (pace.stop.clone(), pace.stopped.clone().drop_guard());
        let keeper = scope.clone();
        scope.spawn(async move {
            keep(me, raft, keeper, timing, &stop).await;
            drop(stopped);
        });
        pace
    }

    /// Asks openraft for nothing more once it returns: what it is asked for while it ends, it takes for an error.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.stopped.cancelled().await;
    }
}

async fn keep(me: PeerKey, raft: Raft, scope: Scope, timing: Timing, stop: &CancellationToken) {
    let mut metrics = raft.metrics();
    let (mut last, mut due) = (None, Time::default());
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
            raft.runtime_config().tick(matches!(duty, Duty::Vote | Duty::Alone));
            due = scope.now() + timing.heartbeat; // who has just been elected has sent an entry to everybody
        }
        let is_due = async {
            match duty {
                Duty::Lead | Duty::Vote => Sleep::until(scope.clone(), due).await,
                Duty::Alone | Duty::Listen => std::future::pending().await,
            }
        };
        let on_time = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = is_due => true,
            changed = metrics.changed() => match changed {
                Ok(()) => false,
                Err(_) => return,
            },
        };
        if on_time {
            let next = match duty {
                Duty::Lead => beat(&raft, &scope, &timing).await,
                _ => listen(&raft, &scope, &timing).await,
            };
            let Some(next) = next else { return };
            due = next;
        }
    }
}

/// Sends a heartbeat. When the next is due; `None` when consensus has ended.
async fn beat(raft: &Raft, scope: &Scope, timing: &Timing) -> Option<Time> {
    let next = scope.now() + timing.heartbeat;
    scope.run(raft.trigger().heartbeat()).await.ok().map(|()| next)
}

/// Gives a voter its ticks, or takes them from it. When to see about it again; `None` when consensus has ended.
///
/// openraft elects no sooner than the shortest election time-out after the vote here was changed or confirmed last, which
/// a heartbeat does; with a lease on top of that mostly, but not always.
async fn listen(raft: &Raft, scope: &Scope, timing: &Timing) -> Option<Time> {
    let heard = scope.run(raft.with_raft_state(|state| state.vote_last_modified())).await.ok()?;
    let now = scope.now();
    let until = heard.map(|Moment(at)| at + timing.election_min).filter(|until| *until > now);
    raft.runtime_config().tick(until.is_none());
    Some(until.unwrap_or(now + timing.election_min))
}

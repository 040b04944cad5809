//! Answers other hosts' Raft requests, after checking that they may ask.
//!
//! A host speaks for itself only: the candidate or leader that a request names must be the peer that the
//! connection proved. It must be a voter of the newest membership known here, or be vouched for (a host
//! that is behind does not know the newest voters yet), unless no membership is known at all. And for 1.05
//! leases after a start no vote is given, for this host may have promised otherwise before it.

use super::peers::{Peers, Process};
use super::rpc::{self, Duplex, Hello, REQUEST_BYTES_MAX, Reply, Request, SNAPSHOT_BYTES_MAX};
use super::rt::Scope;
use super::types::{Raft, Snapshot, Vote};
use mesh::identity::PeerKey;
use mesh::time::Time;
use openraft::async_runtime::watch::WatchReceiver;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Streams that one peer may have open: openraft keeps three, elections take one more each, and a peer that
/// restarted may leave old ones behind.
const STREAMS_MAX: usize = 16;

/// Why a request was not passed on to Raft.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request names another host as its author.
    #[error("{peer:?} may not speak for {claimed:?}")]
    NotYours {
        /// Who asked.
        peer: PeerKey,
        /// Whom the request names.
        claimed: PeerKey,
    },
    /// Not a voter, as far as known here.
    #[error("{0:?} is no voter that this host knows of")]
    NoVoter(PeerKey),
    /// This host started a moment ago.
    #[error("this host has just started and gives no votes yet")]
    Quarantine,
    /// The key of the asker or of this host is alive twice.
    #[error("the key of {0:?} is alive twice: it neither gives nor gets a vote")]
    Cloned(PeerKey),
    /// Leadership is handed over by a leader that is no voter any more, and by no other.
    #[error("the leader is still a voter: its lease has to run out")]
    StillVoter,
    /// Raft here has stopped.
    #[error("the ledger has stopped on this host: {0}")]
    Stopped(String),
}

/// What the answering side needs.
pub(super) struct Desk {
    pub me: PeerKey,
    /// Which process this is: said first on each stream.
    pub process: Process,
    pub peers: Arc<Peers>,
    pub raft: Raft,
    pub scope: Scope,
    /// No votes before this moment.
    pub quiet_until: Time,
    pub vouched: Mutex<BTreeSet<PeerKey>>,
    pub streams: Mutex<BTreeMap<PeerKey, usize>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts a stream for as long as it lives.
struct Seat<'a>(&'a Desk, PeerKey);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut streams = lock(&self.0.streams);
        if let Some(count) = streams.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                streams.remove(&self.1);
            }
        }
    }
}

impl Desk {
    /// Answers a stream until it ends.
    pub(super) async fn serve(self: Arc<Self>, peer: PeerKey, mut stream: Box<dyn Duplex>) -> io::Result<()> {
        let _seat = {
            let mut streams = lock(&self.streams);
            let count = streams.entry(peer).or_default();
            if *count >= STREAMS_MAX {
                let text = format!("{peer:?} has {STREAMS_MAX} Raft streams open already");
                return Err(io::Error::new(io::ErrorKind::QuotaExceeded, text));
            }
            *count += 1;
            Seat(&self, peer)
        };
        rpc::write(&mut stream, &Hello(self.process)).await?;
        loop {
            let max = if self.known(peer).is_ok() { SNAPSHOT_BYTES_MAX } else { REQUEST_BYTES_MAX };
            let Some(request) = rpc::read::<Request>(&mut stream, max).await? else { return Ok(()) };
            match self.answer(peer, request).await {
                Ok(reply) => rpc::write(&mut stream, &reply).await?,
                Err(refusal) => {
                    tracing::debug!(?peer, %refusal, "refused a request of Raft");
                    rpc::write(&mut stream, &Reply::Refused(refusal.to_string())).await?;
                    if matches!(refusal, Refusal::Stopped(_)) {
                        return Ok(()); // nothing will ever be answered here again
                    }
                }
            }
        }
    }

    async fn answer(&self, peer: PeerKey, request: Request) -> Result<Reply, Refusal> {
        match request {
            Request::Append(request) => {
                self.may_speak(peer, &request.vote)?;
                self.scope.run(self.raft.append_entries(request)).await.map(Reply::Append).map_err(stopped)
            }
            Request::Vote(mut request) => {
                self.may_speak(peer, &request.vote)?;
                self.may_vote(peer)?;
                // The flag would override our promise to the present leader on a stranger's word. Without it
                // a handover takes as long as an election.
                request.leadership_transfer = false;
                self.scope.run(self.raft.vote(request)).await.map(Reply::Vote).map_err(stopped)
            }
            Request::PreVote(request) => {
                self.may_speak(peer, &request.vote)?;
                self.may_vote(peer)?;
                self.scope.run(self.raft.pre_vote(request)).await.map(Reply::Vote).map_err(stopped)
            }
            Request::Snapshot(vote, meta, snapshot) => {
                self.may_speak(peer, &vote)?;
                let install = self.raft.install_full_snapshot(vote, Snapshot { meta, snapshot });
                self.scope.run(install).await.map(Reply::Snapshot).map_err(stopped)
            }
            Request::Transfer(request) => {
                claims(peer, request.from_leader())?;
                self.may_vote(peer)?;
                // A leader that may still act on its lease must not be replaced before the lease ends.
                if self.known(peer).is_ok() {
                    return Err(Refusal::StillVoter);
                }
                self.scope.run(self.raft.handle_transfer_leader(request)).await.map(Reply::Transfer).map_err(stopped)
            }
        }
    }

    fn may_vote(&self, peer: PeerKey) -> Result<(), Refusal> {
        if let Some(cloned) = [peer, self.me].into_iter().find(|key| self.peers.is_suspended(key)) {
            return Err(Refusal::Cloned(cloned));
        }
        if self.scope.now() < self.quiet_until { Err(Refusal::Quarantine) } else { Ok(()) }
    }

    fn may_speak(&self, peer: PeerKey, vote: &Vote) -> Result<(), Refusal> {
        claims(peer, vote)?;
        self.known(peer)
    }

    fn known(&self, peer: PeerKey) -> Result<(), Refusal> {
        let (any, voter) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let configs = metrics.membership_config.get_joint_config();
            (configs.iter().any(|c| !c.is_empty()), configs.iter().any(|c| c.contains(&peer)))
        };
        if !any || voter || lock(&self.vouched).contains(&peer) { Ok(()) } else { Err(Refusal::NoVoter(peer)) }
    }
}

fn claims(peer: PeerKey, vote: &Vote) -> Result<(), Refusal> {
    let claimed = vote.leader_id.voted_for;
    if claimed == peer { Ok(()) } else { Err(Refusal::NotYours { peer, claimed }) }
}

fn stopped(error: impl std::fmt::Display) -> Refusal {
    Refusal::Stopped(error.to_string())
}

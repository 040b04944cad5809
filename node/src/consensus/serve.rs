//! Answers other hosts' Raft requests, after checking that they may ask.
//!
//! A host speaks for itself only: the candidate or leader that a request names must be the peer that the
//! connection proved. It must be a voter of the newest membership known here, or be vouched for, at best by
//! itself ([`super::vouched`]: a host that is behind does not know the newest voters yet), unless no membership is
//! known at all. And for 1.05 leases after a start no vote is given, for this host may have promised otherwise before it.

use super::askers::{Askers, Term};
use super::peers::{Peers, Process};
use super::rpc::{self, Duplex, Hello, REQUEST_BYTES_MAX, Reply, Request, SNAPSHOT_BYTES_MAX};
use super::rt::Scope;
use super::types::{Raft, Snapshot, Vote};
use super::vouched::Vouched;
use mesh::identity::PeerKey;
use mesh::roster::VoterError;
use mesh::time::Time;
use openraft::async_runtime::watch::WatchReceiver;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// Streams that one peer may have open: openraft keeps three, elections take one more each, and a connection that went
/// dead, or a process that ended, leaves old ones behind. One more ends the oldest: what is newest is alive.
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
    /// What a host showed of the voters' chain does not hold.
    #[error("what {0:?} shows of the voters does not follow from those that this host knows: {1}")]
    Unproved(PeerKey, VoterError),
    /// This host started a moment ago.
    #[error("this host has just started and gives no votes yet")]
    Quarantine,
    /// The key of the asker or of this host is alive twice.
    #[error("the key of {0:?} is alive twice: it neither gives nor gets a vote")]
    Cloned(PeerKey),
    /// Another process of this key is served, or was a moment ago.
    #[error("what was promised to another process of {0:?} may still hold")]
    Other(PeerKey),
    /// A vote of this term was given before this host started, and nobody knows to which process.
    #[error("this host has voted in term {0} before it started")]
    Voted(u64),
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
    /// Which log is kept here.
    pub era: Arc<AtomicU64>,
    pub peers: Arc<Peers>,
    /// Which process of each key is served; none to serve all.
    pub askers: Option<Askers>,
    /// The term of the last vote before this start.
    pub voted: u64,
    pub raft: Raft,
    pub scope: Scope,
    /// No votes before this moment.
    pub quiet_until: Time,
    pub vouched: Arc<Vouched>,
    pub streams: Mutex<Seats>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The streams of each peer, the oldest first, with what ends them.
pub(super) type Seats = BTreeMap<PeerKey, VecDeque<(u64, CancellationToken)>>;

/// Counts a stream for as long as it lives.
struct Seat<'a> {
    desk: &'a Desk,
    peer: PeerKey,
    number: u64,
    end: CancellationToken,
}

impl<'a> Seat<'a> {
    fn take(desk: &'a Desk, peer: PeerKey) -> Seat<'a> {
        let (mut seats, end) = (lock(&desk.streams), CancellationToken::new());
        let taken = seats.entry(peer).or_default();
        if taken.len() >= STREAMS_MAX
            && let Some((_, oldest)) = taken.pop_front()
        {
            oldest.cancel();
        }
        let number = taken.back().map_or(0, |(last, _)| last + 1);
        taken.push_back((number, end.clone()));
        Seat { desk, peer, number, end }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut seats = lock(&self.desk.streams);
        if let Some(taken) = seats.get_mut(&self.peer) {
            taken.retain(|(number, _)| *number != self.number);
            if taken.is_empty() {
                seats.remove(&self.peer);
            }
        }
    }
}

impl Desk {
    /// Answers a stream until it ends.
    pub(super) async fn serve(self: Arc<Self>, peer: PeerKey, mut stream: Box<dyn Duplex>) -> io::Result<()> {
        let seat = Seat::take(&self, peer);
        tokio::select! {
            biased;
            () = seat.end.cancelled() => {
                Err(io::Error::other(format!("{peer:?} has opened {STREAMS_MAX} later Raft streams")))
            }
            ended = self.converse(peer, &mut stream) => ended,
        }
    }

    async fn converse(&self, peer: PeerKey, stream: &mut Box<dyn Duplex>) -> io::Result<()> {
        let own = Hello { process: self.process, era: self.era.load(Ordering::Relaxed), voters: self.vouched.epoch() };
        rpc::write(stream, &own).await?;
        let Some(Hello { process: asker, era, .. }) = rpc::read(stream, REQUEST_BYTES_MAX).await? else {
            return Ok(());
        };
        loop {
            let heard = self.known(peer).is_ok() || self.leader().is_some_and(|vote| claims(peer, &vote).is_ok());
            let max = if heard { SNAPSHOT_BYTES_MAX } else { REQUEST_BYTES_MAX };
            let Some(request) = rpc::read::<Request>(stream, max).await? else { return Ok(()) };
            if era != self.era.load(Ordering::Relaxed) {
                return Err(io::Error::other(format!("{peer:?} keeps the log of another recovery of this mesh")));
            }
            match self.answer(peer, asker, request).await {
                Ok(reply) => rpc::write(stream, &reply).await?,
                Err(refusal) => {
                    tracing::debug!(?peer, %refusal, "refused a request of Raft");
                    rpc::write(stream, &Reply::Refused(refusal.to_string())).await?;
                    if matches!(refusal, Refusal::Stopped(_) | Refusal::Unproved(..)) {
                        return Ok(()); // nothing will ever be answered here again, or to who makes things up
                    }
                }
            }
        }
    }

    async fn answer(&self, peer: PeerKey, asker: Process, request: Request) -> Result<Reply, Refusal> {
        match request {
            // Whoever is heard anyhow has nothing to show. To one that is about to take over another recovery than the one it
            // followed, nothing could be shown: what it still has of voters is of the other.
            Request::Voters(_) if self.known(peer).is_ok() => Ok(Reply::Voters(true)),
            Request::Voters(links) => {
                self.vouched.show(peer, links).map(Reply::Voters).map_err(|error| Refusal::Unproved(peer, error))
            }
            Request::Append(request) => {
                self.may_speak(peer, asker, &request.vote)?;
                self.scope.run(self.raft.append_entries(request)).await.map(Reply::Append).map_err(stopped)
            }
            Request::Vote(mut request) => {
                self.may_speak(peer, asker, &request.vote)?;
                self.may_vote(peer)?;
                let term = request.vote.leader_id.term;
                if self.askers.is_some() && term <= self.voted {
                    return Err(Refusal::Voted(term));
                }
                // The flag would override our promise to the present leader on a stranger's word. Without it
                // a handover takes as long as an election.
                request.leadership_transfer = false;
                self.scope.run(self.raft.vote(request)).await.map(Reply::Vote).map_err(stopped)
            }
            Request::PreVote(request) => {
                claims(peer, &request.vote)?;
                self.known(peer)?;
                self.is_served(peer, asker, Term::Sounded(request.vote.leader_id.term))?;
                self.may_vote(peer)?;
                self.scope.run(self.raft.pre_vote(request)).await.map(Reply::Vote).map_err(stopped)
            }
            Request::Snapshot(vote, meta, snapshot) => {
                self.may_speak(peer, asker, &vote)?;
                let install = self.raft.install_full_snapshot(vote, Snapshot { meta, snapshot });
                self.scope.run(install).await.map(Reply::Snapshot).map_err(stopped)
            }
            Request::Transfer(request) => {
                claims(peer, request.from_leader())?;
                self.is_served(peer, asker, Term::Own(request.from_leader().leader_id.term))?;
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

    fn may_speak(&self, peer: PeerKey, asker: Process, vote: &Vote) -> Result<(), Refusal> {
        claims(peer, vote)?;
        // A term has one leader. Once this host has accepted it, it hears it to the end, whatever the part of the log that
        // has come so far says of voters: a newcomer's begins with those of long ago.
        if self.leader().as_ref() != Some(vote) {
            self.known(peer)?;
        }
        self.is_served(peer, asker, Term::Own(vote.leader_id.term))
    }

    /// Whom this host has accepted as the leader, in the newest term that it knows of.
    fn leader(&self) -> Option<Vote> {
        let metrics = self.raft.metrics();
        let vote = metrics.borrow_watched().vote;
        vote.committed.then_some(vote)
    }

    fn is_served(&self, peer: PeerKey, asker: Process, term: Term) -> Result<(), Refusal> {
        let now = self.scope.now();
        let serves = |askers: &Askers| askers.serves(peer, asker, term, now);
        if self.askers.as_ref().is_none_or(serves) { Ok(()) } else { Err(Refusal::Other(peer)) }
    }

    fn known(&self, peer: PeerKey) -> Result<(), Refusal> {
        let (any, voter) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let configs = metrics.membership_config.get_joint_config();
            (configs.iter().any(|c| !c.is_empty()), configs.iter().any(|c| c.contains(&peer)))
        };
        if !any || voter || self.vouched.knows(&peer) { Ok(()) } else { Err(Refusal::NoVoter(peer)) }
    }
}

fn claims(peer: PeerKey, vote: &Vote) -> Result<(), Refusal> {
    let claimed = vote.leader_id.voted_for;
    if claimed == peer { Ok(()) } else { Err(Refusal::NotYours { peer, claimed }) }
}

fn stopped(error: impl std::fmt::Display) -> Refusal {
    Refusal::Stopped(error.to_string())
}

//! Consensus: the replicated log under the ledger, by Raft (openraft).
//!
//! Proposals go in, committed entries come out of a [`StateMachine`] in the same order everywhere, and
//! [`Consensus::grant`] says whether this host may act as the leader now. Nothing here knows what an entry
//! means, opens a connection or decides who should vote. Streams come from `node::net`, entries go to
//! `mesh::ledger`, the rule of the lease is [`mesh::lease`].

mod anew;
mod askers;
mod disk;
mod errors;
mod line;
mod machine;
mod pace;
mod peers;
mod quiet;
mod round;
mod rpc;
pub mod rt;
mod serve;
mod status;
mod store;
mod timing;
mod types;
mod vouched;

pub use anew::{Position, Stored};
pub use errors::{ChangeError, ProposeError, StartError};
pub use machine::StateMachine;
pub use peers::Process;
pub use quiet::Quiet;
pub use rpc::{Dial, Duplex};
pub use rt::{Clock, boottime};
pub use serve::Refusal;
pub use status::{Changes, Members, Role, Status};
pub use timing::Timing;
pub use types::{Applied, Payload};

use crate::seams::{Blocking, OpenStore, Spawn};
use askers::Askers;
use disk::Disk;
use futures::StreamExt;
use mesh::identity::PeerKey;
use mesh::lease::{Grant, LeaseInput};
use mesh::limits::BATCH_BYTES_MAX;
use mesh::mutants::{self, Mutant};
use mesh::roster::VoterChain;
use mesh::time::Time;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, InitializeError, RaftError};
use openraft::{ChangeMembers, EmptyNode, ServerState};
use pace::Pace;
use peers::Peers;
use rt::{Scope, Sleep};
use serve::Desk;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use store::Store;
use tokio_util::sync::CancellationToken;
use types::{Metrics, Raft, TypeConfig};
use vouched::Vouched;

/// A member this many entries behind counts as caught up: less than one batch of replication.
const CAUGHT_UP: u64 = 256;

/// What [`Consensus::start`] needs.
pub struct ConsensusConfig {
    /// This host.
    pub me: PeerKey,
    /// Which of its processes this is: a key that answers from two of them is noticed by it.
    pub process: Process,
    /// Opens the database file.
    pub store: OpenStore,
    /// Opens streams to other hosts.
    pub dial: Arc<dyn Dial>,
    /// What the log is for. In its initial state.
    pub machine: Arc<dyn StateMachine>,
    /// How fast.
    pub timing: Timing,
    /// The least epoch of recovery, part of every fence; the store knows of later ones.
    pub epoch: u64,
    /// Off only to show what it is good for: without it a restart can put two leases in force at once.
    pub boot_quarantine: bool,
    /// Off only to show what it is good for: without it a follower whose log went back stops the leader, and two
    /// processes of one key may lead at once.
    pub watch_peers: bool,
    /// Seeds election timeouts. Must differ between starts and hosts, or elections tie for ever.
    pub seed: [u8; 32],
    /// How tasks start.
    pub spawn: Spawn,
    /// Where syncs run.
    pub blocking: Blocking,
    /// The clock, [`boottime`] but in tests. It must run when tokio's clock does.
    pub clock: Clock,
}

/// Handle to consensus; clones share it.
#[derive(Clone)]
pub struct Consensus {
    me: PeerKey,
    raft: Raft,
    scope: Scope,
    timing: Timing,
    epoch: Arc<AtomicU64>,
    era: Arc<AtomicU64>,
    record: Arc<Mutex<Option<Vec<u8>>>>,
    store: store::WeakStore,
    desk: Arc<Desk>,
    peers: Arc<Peers>,
    pace: Arc<Pace>,
    end: Arc<End>,
}

/// How consensus ended on this host.
#[derive(Default)]
struct End {
    why: OnceLock<String>,
    ended: CancellationToken,
}

/// Makes an empty store where there is none yet. One that is there stays as it is.
///
/// # Errors
/// When it cannot be made or read.
pub fn make_store(store: OpenStore) -> std::io::Result<()> {
    Disk::open(store()?).map(drop)
}

impl Consensus {
    /// Opens the store, restores the applied state, and takes part again.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(config: ConsensusConfig) -> Result<Consensus, StartError> {
        let ConsensusConfig { me, process, store, dial, machine, timing, epoch, .. } = config;
        let ConsensusConfig { boot_quarantine, watch_peers, seed, spawn, blocking, clock, .. } = config;
        let scope = Scope::new(clock, spawn, seed);
        let started = scope.now();
        let raft_config = timing.config().map_err(|e| StartError::Timing(e.to_string()))?;
        let (disk, mut found) = blocking.run(move || Disk::open(store()?)).await?;
        let (snapshot, ground, era) = (found.snapshot.take(), found.ground.take(), found.era.take());
        if let Some(ground) = ground {
            // Who is a member, until the heir's state arrives.
            machine.restore(&ground).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        }
        let epoch = epoch.max(era.as_ref().map_or(0, |era| era.epoch));
        let record = era.map(|era| era.record);
        let era = Arc::new(AtomicU64::new(record.as_deref().map_or(0, anew::era_of)));
        let store = Store::start(disk, &found, &scope, blocking);
        let weak = store.downgrade();
        let machine = machine::Machine::new(machine, store.clone(), snapshot)?;
        let peers = Arc::new(Peers::default());
        let (vouched, patience) = (Arc::<Vouched>::default(), timing.lease);
        let (era_told, peers_told, vouched_told) = (era.clone(), peers.clone(), vouched.clone());
        let network = rpc::Network {
            me,
            process,
            era: era_told,
            dial,
            peers: peers_told,
            vouched: vouched_told,
            rounds: round::Rounds::default(),
            patience,
            watch_peers,
        };
        let raft = scope
            .run(Raft::new(me, Arc::new(raft_config), network, store, machine))
            .await
            .map_err(|e| StartError::Raft(e.to_string()))?;

        // Of Raft itself: what it publishes is still empty at this moment.
        let ask = raft.with_raft_state(|state| {
            (state.membership_state.effective().voter_ids().collect(), state.vote_ref().leader_id.term)
        });
        let (voters, voted): (BTreeSet<PeerKey>, u64) =
            scope.run(ask).await.map_err(|e| StartError::Raft(e.to_string()))?;
        let mut metrics = raft.metrics();
        while !voters.is_empty() && metrics.borrow_watched().membership_config.voter_ids().next().is_none() {
            // Until it is published, everybody would seem to be asking a host without a membership.
            metrics.changed().await.map_err(|e| StartError::Raft(e.to_string()))?;
        }
        let alone = voters.iter().all(|v| *v == me);
        let boot_quarantine = boot_quarantine && !mutants::on(Mutant::NoBootQuarantine);
        let quiet_until = if alone || !boot_quarantine { started } else { started + timing.quarantine() };
        let desk = Desk {
            me,
            process,
            era: era.clone(),
            peers: peers.clone(),
            askers: watch_peers.then(|| Askers::new(timing.quarantine())),
            voted,
            raft: raft.clone(),
            scope: scope.clone(),
            quiet_until,
            vouched,
            streams: Mutex::default(),
        };
        let (epoch, desk, end) = (Arc::new(AtomicU64::new(epoch)), Arc::new(desk), Arc::new(End::default()));
        let record = Arc::new(Mutex::new(record));
        let pace = Arc::new(Pace::start(me, raft.clone(), &scope, timing));
        let consensus = Consensus { me, raft, scope, timing, epoch, era, record, store: weak, desk, peers, pace, end };
        consensus.watch_for_the_end();
        consensus.begin_to_vote(quiet_until, alone && !voters.is_empty()).await;
        Ok(consensus)
    }

    fn watch_for_the_end(&self) {
        let (raft, scope, end) = (self.raft.clone(), self.scope.clone(), self.end.clone());
        let (mut metrics, peers) = (raft.metrics(), self.peers.clone());
        self.scope.spawn(async move {
            let mut known = None;
            loop {
                let (runs, membership) = {
                    let metrics = metrics.borrow_watched();
                    (metrics.running_state.is_ok(), metrics.membership_config.clone())
                };
                if known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &membership)) {
                    peers.set_learners(membership.membership().learner_ids().collect());
                    known = Some(membership);
                }
                if !runs || metrics.changed().await.is_err() {
                    break;
                }
            }
            let told = metrics.borrow_watched().running_state.clone().err();
            let why = match told {
                Some(error) => error.to_string(),
                // A core that panicked has told nobody; who asks it for something hears of it.
                None => match scope.run(raft.with_raft_state(|_| ())).await {
                    Ok(()) => "it went away without a word".to_owned(),
                    Err(error) => error.to_string(),
                },
            };
            let _ = end.why.set(why); // set once, here
            end.ended.cancel();
        });
    }

    /// Waits until consensus has stopped on this host, whatever the reason, and gives that. Nothing can be
    /// proposed or learned here from then on.
    pub async fn ended(&self) -> String {
        self.end.ended.cancelled().await;
        self.end.why.get().cloned().unwrap_or_default()
    }

    /// Elections begin when the quarantine is over. A sole voter has nobody to wait for, not even for an
    /// election timeout.
    async fn begin_to_vote(&self, quiet_until: Time, sole: bool) {
        if self.scope.now() < quiet_until {
            let this = self.clone();
            let mut metrics = self.raft.metrics();
            self.scope.spawn(async move {
                let mut sleep = Sleep::until(this.scope.clone(), quiet_until);
                loop {
                    tokio::select! {
                        biased;
                        () = &mut sleep => break,
                        change = metrics.changed() => if change.is_err() { return },
                    }
                }
                this.raft.runtime_config().elect(true);
            });
            return;
        }
        self.raft.runtime_config().elect(true);
        if sole && let Err(error) = self.scope.run(self.raft.trigger().elect(false)).await {
            tracing::error!(%error, "the sole voter cannot begin to lead");
        }
    }

    /// Makes this host the first and only voter of a new log. Does nothing when there is a log already.
    ///
    /// # Errors
    /// When consensus has stopped.
    pub async fn initialize_single(&self) -> Result<(), ChangeError> {
        let members = BTreeMap::from([(self.me, EmptyNode {})]);
        match self.scope.run(self.raft.initialize(members)).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(error)) => Err(ChangeError::Refused(error.to_string())),
            Err(RaftError::Fatal(error)) => Err(ChangeError::Stopped(error.to_string())),
        }
    }

    /// Proposes an entry and waits until it is applied here, for one lease and a half at most.
    ///
    /// # Errors
    /// See [`ProposeError`]: not all of them mean that the entry was not written.
    pub async fn propose(&self, payload: Vec<u8>) -> Result<Applied, ProposeError> {
        let many = self.propose_many(vec![payload]).await;
        many.into_iter().next().unwrap_or(Err(ProposeError::Timeout))
    }

    /// Proposes entries that follow each other in the log, with one sync for all. One result for each.
    pub async fn propose_many(&self, payloads: Vec<Vec<u8>>) -> Vec<Result<Applied, ProposeError>> {
        let count = payloads.len();
        if let Some(large) = payloads.iter().map(Vec::len).find(|len| *len > BATCH_BYTES_MAX) {
            return vec![Err(ProposeError::TooLarge(large)); count];
        }
        let mut results = Vec::with_capacity(count);
        let write = async {
            let answers = self.raft.client_write_many(payloads.into_iter().map(Payload)).await;
            let mut answers = match answers {
                Ok(answers) => answers,
                Err(error) => return Some(ProposeError::Stopped(error.to_string())),
            };
            while let Some(answer) = answers.next().await {
                results.push(match answer {
                    Ok(Ok(written)) => Ok(written.response),
                    Ok(Err(ClientWriteError::ForwardToLeader(to))) => {
                        Err(ProposeError::NotLeader { leader: to.leader_id })
                    }
                    Ok(Err(ClientWriteError::LogEntryDiscarded(to))) => {
                        Err(ProposeError::Lost { leader: to.leader_id })
                    }
                    Ok(Err(error)) => Err(ProposeError::Stopped(error.to_string())),
                    Err(error) => Err(ProposeError::Stopped(error.to_string())),
                });
            }
            None
        };
        let rest = self.within(write).await.unwrap_or(Some(ProposeError::Timeout));
        results.resize(count, Err(rest.unwrap_or(ProposeError::Timeout)));
        results
    }

    /// Runs a call of openraft for one lease and a half at most: by then a leader that cannot reach a
    /// quorum has lost its lease, and another may lead.
    async fn within<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        let sleep = Sleep::until(self.scope.clone(), self.scope.now() + self.timing.lease * 3 / 2);
        self.scope
            .run(async {
                tokio::select! {
                    biased;
                    value = call => Some(value),
                    () = sleep => None,
                }
            })
            .await
    }

    /// Whether this host may act as the leader now. No await, no network. Ask again before every effect.
    pub fn grant(&self) -> Option<Grant> {
        let now = self.scope.now();
        let input = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let configs = metrics.membership_config.get_joint_config();
            LeaseInput {
                // Not before its own first entry is applied: until then older ones may be missing here.
                is_leader: metrics.state == ServerState::Leader
                    && metrics.running_state.is_ok()
                    && metrics.last_applied.is_some_and(|id| types::term_of(&id) == metrics.current_term),
                is_voter: configs.last().is_some_and(|newest| newest.contains(&self.me)),
                sole_voter: configs.iter().all(|c| c.len() == 1 && c.contains(&self.me)),
                last_quorum_acked: metrics.last_quorum_acked.map(|at| at.into_inner().0),
                lease: self.timing.lease,
                margin: self.timing.margin,
                epoch: self.epoch.load(Ordering::Relaxed),
                term: metrics.current_term,
            }
        };
        mesh::lease::grant(&input, now)
    }

    /// Whether this host leads Raft only until a change of voters that leaves it out is complete. It has no grant then,
    /// and for as long as it is heard nobody else will lead: it has to complete the change.
    pub fn is_on_its_way_out(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let configs = metrics.membership_config.get_joint_config();
        // As for a grant: until its own first entry is applied, older ones may be missing here.
        metrics.state == ServerState::Leader
            && metrics.running_state.is_ok()
            && metrics.last_applied.is_some_and(|id| types::term_of(&id) == metrics.current_term)
            && configs.len() > 1
            && configs.last().is_some_and(|newest| !newest.contains(&self.me))
    }

    /// Now, by the clock that the lease is measured with.
    pub fn now(&self) -> mesh::time::Time {
        self.scope.now()
    }

    /// Who leads, as far as known here. Whether it may act, only its own grant says.
    pub fn leader(&self) -> Option<PeerKey> {
        self.raft.metrics().borrow_watched().current_leader
    }

    /// Raft's term.
    pub fn term(&self) -> u64 {
        self.raft.metrics().borrow_watched().current_term
    }

    /// Who votes, by the newest membership in the log, committed or not.
    pub fn voters(&self) -> BTreeSet<PeerKey> {
        self.raft.metrics().borrow_watched().membership_config.voter_ids().collect()
    }

    /// Who is sent the log without a vote, by the newest membership in the log.
    pub fn learners(&self) -> BTreeSet<PeerKey> {
        self.raft.metrics().borrow_watched().membership_config.membership().learner_ids().collect()
    }

    /// Everything that is known here.
    pub fn status(&self) -> Status {
        let status = Status::of(&self.raft.metrics().borrow_watched());
        Status { stopped: status.stopped.or_else(|| self.end.why.get().cloned()), ..status }
    }

    /// On the leader: whose logs are shorter than what they acknowledged, and why each is sent nothing more.
    /// True for one that voted when that was seen: what else it promised and forgot, nobody knows.
    pub fn refused(&self) -> BTreeMap<PeerKey, (String, bool)> {
        match self.leads() && self.peers.refuses_any() {
            true => self.peers.refused(&self.voters()),
            false => BTreeMap::new(), // from an earlier leadership, if at all: old news
        }
    }

    /// Names hosts whose key is alive twice, in place of those named before: nothing that either copy says
    /// counts, they are sent nothing, and get and give no vote. This host may be one of them.
    pub fn suspend(&self, peers: BTreeSet<PeerKey>) {
        self.peers.suspend(peers);
    }

    /// Word of changes.
    pub fn changes(&self) -> Changes {
        Changes::of(self.raft.metrics())
    }

    /// The members whose log is nearly as long as this leader's. None on any other host.
    pub fn caught_up(&self) -> BTreeSet<PeerKey> {
        let near = |(peer, lag): (PeerKey, Option<u64>)| lag.is_some_and(|lag| lag <= CAUGHT_UP).then_some(peer);
        status::lags(&self.raft.metrics().borrow_watched()).filter_map(near).collect()
    }

    /// Index of the last entry here.
    pub fn last_log(&self) -> u64 {
        self.raft.metrics().borrow_watched().last_log_index.unwrap_or_default()
    }

    /// Index of the last entry applied here.
    pub fn applied(&self) -> u64 {
        self.raft.metrics().borrow_watched().last_applied.map_or(0, |id| id.index)
    }

    /// Whether this host leads Raft, with a grant or not.
    pub fn leads(&self) -> bool {
        self.raft.metrics().borrow_watched().state == ServerState::Leader
    }

    /// Waits until this host leads Raft. For ever once consensus has ended.
    pub async fn elected(&self) {
        let mut metrics = self.raft.metrics();
        while metrics.borrow_watched().state != ServerState::Leader {
            if metrics.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Sends a host the log from now on. Leader only.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn add_learner(&self, peer: PeerKey) -> Result<Applied, ChangeError> {
        if self.status().effective.voters.contains(&peer) {
            return Err(ChangeError::Refused(format!("{peer:?} votes already")));
        }
        self.change(self.raft.add_learner(peer, EmptyNode {}, false)).await
    }

    /// Makes exactly these hosts the voters; voters that are not among them become learners. Leader only.
    ///
    /// # Errors
    /// See [`ChangeError`]. After `Timeout` or `NotLeader` half of the change may stand
    /// ([`Members::joint`]): call it again.
    pub async fn change_voters(&self, voters: BTreeSet<PeerKey>) -> Result<Applied, ChangeError> {
        if voters.is_empty() || voters.len() > mesh::limits::VOTERS_MAX {
            return Err(ChangeError::Refused(format!(
                "a mesh has 1 to {} voters, not {}",
                mesh::limits::VOTERS_MAX,
                voters.len()
            )));
        }
        self.change(self.raft.change_membership(voters, true)).await
    }

    /// Removes a host from the log, voter or learner. Leader only. A leader that removes itself stops acting
    /// at once and leads on for one lease, so that the others hear of it.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn remove(&self, peer: PeerKey) -> Result<Applied, ChangeError> {
        let peers = BTreeSet::from([peer]);
        let change = if self.status().effective.voters.contains(&peer) {
            ChangeMembers::RemoveVoters(peers)
        } else {
            ChangeMembers::RemoveNodes(peers)
        };
        let removed = self.change(self.raft.change_membership(change, false)).await?;
        self.peers.forget(peer);
        self.desk.askers.iter().for_each(|askers| askers.forget(&peer));
        Ok(removed)
    }

    async fn change(&self, call: impl Future<Output = WriteOutcome>) -> Result<Applied, ChangeError> {
        match self.within(call).await {
            Some(Ok(done)) => Ok(done.data),
            None => Err(ChangeError::Timeout),
            Some(Err(RaftError::Fatal(error))) => Err(ChangeError::Stopped(error.to_string())),
            Some(Err(RaftError::APIError(error))) => Err(match error {
                ClientWriteError::ForwardToLeader(to) => ChangeError::NotLeader { leader: to.leader_id },
                ClientWriteError::LogEntryDiscarded(_) => ChangeError::Timeout,
                ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_)) => {
                    ChangeError::InProgress
                }
                ClientWriteError::ChangeMembershipError(ChangeMembershipError::LearnerNotFound(e)) => {
                    ChangeError::NotLearner(e.node_id)
                }
                error => ChangeError::Refused(error.to_string()),
            }),
        }
    }

    /// Waits until the entry of this index is applied here. False when consensus stopped before.
    pub async fn wait_applied(&self, index: u64) -> bool {
        let mut metrics = self.raft.metrics();
        loop {
            {
                let now: &Metrics = &metrics.borrow_watched();
                if now.last_applied.is_some_and(|applied| applied.index >= index) {
                    return true;
                }
                if now.running_state.is_err() {
                    return false;
                }
            }
            if metrics.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Says who may lead although the log here does not say so yet: the ledger's voters, and whom a newcomer was `told`
    /// of. Replaces what was said before. Others are shown this chain when they lack some of it, and show theirs.
    pub fn vouch(&self, chain: VoterChain, told: BTreeSet<PeerKey>) {
        self.desk.vouched.set(chain, told);
    }

    /// Answers a peer's Raft stream until it ends. `peer` is who the connection proved it is.
    ///
    /// # Errors
    /// When the stream fails, or carries what no honest host sends.
    pub async fn serve(&self, peer: PeerKey, stream: Box<dyn Duplex>) -> io::Result<()> {
        self.desk.clone().serve(peer, stream).await
    }

    /// How long until this host votes; zero when it does.
    pub fn quarantine_left(&self) -> Duration {
        self.desk.quiet_until.since(self.scope.now())
    }

    /// Stops taking part. What was acknowledged is on the disk.
    pub async fn shutdown(&self) {
        self.pace.stop().await;
        if let Err(error) = self.scope.run(self.raft.shutdown()).await {
            tracing::warn!(%error, "the ledger did not end well");
        }
    }
}

type WriteOutcome =
    Result<openraft::raft::ClientWriteResponse<TypeConfig>, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>;

#[cfg(test)]
mod test_disk;
#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;

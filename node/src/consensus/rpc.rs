//! Raft's requests between hosts: framed CBOR over streams that somebody else opens.
//!
//! The asking side keeps one stream for each of openraft's clients of a peer (entries, heartbeats, snapshots,
//! and one for each election), so that nothing large holds a heartbeat back; a stream that failed or was
//! given up is dropped with its answer. The answering side is in [`super::serve`]; the first thing it says is
//! which process it is. Whose key is at the other end was proved by the connection; which of its answers
//! openraft may see is [`super::peers`]'s rule.

use super::line::{self, Line, Way};
use super::peers::{Met, Peers, Process, Record};
use super::round::Rounds;
use super::rt::NodeRuntime;
use super::types::{LogId, Snapshot, SnapshotMeta, TypeConfig, Vote};
use super::vouched::Vouched;
use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite};
use mesh::identity::PeerKey;
use mesh::roster::VoterChange;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, RaftNetworkFactory, RaftNetworkV2};
use openraft_rt::AsyncRuntime;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A request other than a snapshot. openraft sends at most half a MiB of entries, or one entry of at most
/// `mesh::limits::BATCH_BYTES_MAX`.
pub(super) const REQUEST_BYTES_MAX: usize = 8 << 20;
/// A request with a snapshot in it.
pub(super) const SNAPSHOT_BYTES_MAX: usize = 256 << 20;
/// Any answer.
pub(super) const REPLY_BYTES_MAX: usize = 64 << 10;
/// Nesting of a message: a membership inside an entry inside a request is about ten deep.
const DEPTH_MAX: usize = 32;
/// This part of a heartbeat's time may be spent on opening a stream.
const OPENS: u32 = 4;
/// For this part of a heartbeat's time an answer may wait for those of the others.
const GATHERS: u32 = 20;
/// A learner that has answered a heartbeat hears no other of the same content for so long. It gives no vote and no
/// lease, so its silence delays nothing; and with the mesh grow its learners, while its voters do not.
const LEARNER_EVERY: Duration = Duration::from_secs(30);
/// Memory for a frame is taken as it arrives, not as it is announced.
const CHUNK: usize = 64 << 10;

const _: () = assert!(mesh::limits::BATCH_BYTES_MAX <= REQUEST_BYTES_MAX / 2);

/// Both directions of a stream to one peer.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Opens streams to peers.
#[async_trait]
pub trait Dial: Send + Sync + 'static {
    /// Opens a Raft stream to exactly this peer, on whatever connection stands.
    ///
    /// # Errors
    /// When there is none.
    async fn open(&self, peer: PeerKey) -> io::Result<Box<dyn Duplex>>;
}

/// The first message of a stream, from either side: which process it is, and which log it keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    #[serde(flatten)]
    pub process: Process,
    /// Zero in a mesh that was never recovered, as from programs that know of no recovery.
    #[serde(default, skip_serializing_if = "is_first")]
    pub era: u64,
    /// Said by who answers: the epoch of the voters that it can prove. Whoever asks shows it what it lacks of the chain.
    /// None from programs that would not understand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voters: Option<u64>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_first(era: &u64) -> bool {
    *era == 0
}

#[derive(Serialize, Deserialize)]
pub(super) enum Request {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    Snapshot(Vote, SnapshotMeta, #[serde(with = "serde_bytes")] Vec<u8>),
    Transfer(TransferLeaderRequest<TypeConfig>),
    /// Why the asker may ask: links of the voters' chain that the other end lacks, oldest first.
    Voters(Vec<VoterChange>),
}

#[derive(Serialize, Deserialize)]
pub(super) enum Reply {
    Append(AppendEntriesResponse<TypeConfig>),
    Vote(VoteResponse<TypeConfig>),
    Snapshot(SnapshotResponse<TypeConfig>),
    Transfer(TransferLeaderResponse<TypeConfig>),
    Refused(String),
    /// Whether the asker votes by what it has shown.
    Voters(bool),
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Writes one message with its length, in one piece: each piece becomes a packet of its own.
pub(super) async fn write<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin + ?Sized),
    message: &T,
) -> io::Result<()> {
    let bytes = mesh::wire::encode(message);
    crate::net::frame::write_frame(stream, &bytes).await
}

/// Reads one message of at most `max` bytes; `None` when the stream ended before it.
pub(super) async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin + ?Sized),
    max: usize,
) -> io::Result<Option<T>> {
    let mut len = [0; 4];
    match stream.read_exact(&mut len).await {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let len = u32::from_be_bytes(len) as usize;
    if len > max {
        return Err(invalid(format!("a message of {len} bytes where {max} are allowed")));
    }
    let mut bytes = Vec::with_capacity(len.min(CHUNK));
    while bytes.len() < len {
        let at = bytes.len();
        bytes.resize(len.min(at + CHUNK), 0);
        stream.read_exact(&mut bytes[at..]).await?;
    }
    let mut rest = bytes.as_slice();
    let message = ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH_MAX)
        .map_err(|e| invalid(format!("malformed message: {e}")))?;
    if rest.is_empty() { Ok(Some(message)) } else { Err(invalid(format!("{} bytes behind a message", rest.len()))) }
}

/// Makes openraft's clients.
pub(super) struct Network {
    pub me: PeerKey,
    /// Which process this is.
    pub process: Process,
    /// Which log it keeps.
    pub era: Arc<AtomicU64>,
    pub dial: Arc<dyn Dial>,
    pub peers: Arc<Peers>,
    pub vouched: Arc<Vouched>,
    /// Answers to heartbeats that belong together.
    pub rounds: Rounds,
    /// How long a request with entries may take: a slow uplink needs more than a heartbeat does.
    pub patience: Duration,
    /// See `ConsensusConfig::watch_peers`.
    pub watch_peers: bool,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;
    async fn new_client(&mut self, peer: PeerKey, _node: &EmptyNode) -> Client {
        Client {
            me: self.me,
            own: self.process,
            era: self.era.clone(),
            peer,
            dial: self.dial.clone(),
            record: self.peers.record(peer),
            peers: self.peers.clone(),
            vouched: self.vouched.clone(),
            rounds: self.rounds.clone(),
            patience: self.patience,
            watch_peers: self.watch_peers,
            way: Mutex::default(),
            told: None,
        }
    }
}

/// One of openraft's clients of a peer.
pub(super) struct Client {
    me: PeerKey,
    own: Process,
    era: Arc<AtomicU64>,
    peer: PeerKey,
    dial: Arc<dyn Dial>,
    peers: Arc<Peers>,
    vouched: Arc<Vouched>,
    rounds: Rounds,
    record: Arc<Record>,
    patience: Duration,
    watch_peers: bool,
    /// The mutex is never contended; it makes the client `Sync`, as openraft wants it.
    way: Mutex<Way>,
    /// The last heartbeat that was answered well, and when: whose it was, and what was committed.
    told: Option<(Instant, Vote, Option<LogId>)>,
}

impl Client {
    /// Asks the peer, whichever process of it answers, and says which did. With `leading` only one that
    /// holds what was acknowledged to this vote is asked. A stream that is not open in `opens` is left to the
    /// next call.
    async fn call(
        &mut self,
        request: &Request,
        leading: Option<&Vote>,
        opens: Duration,
        within: Duration,
    ) -> Result<(Process, Reply), Unreachable<TypeConfig>> {
        // Taken out: when this future is dropped half-way, the stream goes with it, and no later call can
        // take this answer for its own.
        let kept = std::mem::take(self.way());
        if self.watch_peers && self.peers.is_suspended(&self.peer) {
            return Err(self.unreachable("its key is alive twice: neither answer counts"));
        }
        let (fresh, line) = match kept {
            Way::Open(line) if !self.watch_peers || self.record.is_current(line.process) => (false, line),
            Way::Opening(opening) => (true, self.opened(opening, opens).await?),
            Way::Open(_) | Way::None => {
                let opening = line::open(self.dial.clone(), self.hello(), self.peer, self.patience);
                (true, self.opened(opening, opens).await?)
            }
        };
        let exchange = async {
            let mut line = line;
            let early = match fresh {
                true => {
                    self.show_voters(&mut line).await?;
                    self.greet(&mut line, leading).await?
                }
                false => None,
            };
            let reply = match early {
                Some(reply) => reply,
                None => line.ask(request).await?,
            };
            Ok::<_, io::Error>((line, reply))
        };
        let outcome = match NodeRuntime::timeout(within, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer from {:?} in {within:?}", self.peer)))
            }
        };
        let (line, reply) = outcome.map_err(|e| Unreachable::new(&e))?;
        if let Reply::Refused(why) = reply {
            // The stream goes too: at its other end may be what is left of a host that has started anew.
            return Err(self.unreachable(&format!("refused: {why}")));
        }
        let process = line.process;
        *self.way() = Way::Open(line);
        Ok((process, reply))
    }

    fn hello(&self) -> Hello {
        Hello { process: self.own, era: self.era.load(Ordering::Relaxed), voters: None }
    }

    fn way(&mut self) -> &mut Way {
        self.way.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a stream stands; one that does not yet is kept.
    async fn opened(
        &mut self,
        mut opening: BoxFuture<'static, io::Result<Line>>,
        within: Duration,
    ) -> Result<Line, Unreachable<TypeConfig>> {
        match NodeRuntime::timeout(within, &mut opening).await {
            Ok(line) => line.map_err(|e| Unreachable::new(&e)),
            Err(_) => {
                *self.way() = Way::Opening(opening);
                Err(self.unreachable("a stream is being opened"))
            }
        }
    }

    /// A host that was away while the voters changed would take this one for a stranger: it is shown what it missed.
    async fn show_voters(&self, line: &mut Line) -> io::Result<()> {
        let links = line.voters.map(|epoch| self.vouched.links(epoch)).unwrap_or_default();
        if links.is_empty() {
            return Ok(());
        }
        match line.ask(&Request::Voters(links)).await? {
            Reply::Voters(_) => Ok(()), // whether it hears us then, it says when it is asked for something
            Reply::Refused(why) => Err(io::Error::other(format!("refused: {why}"))),
            _ => Err(io::Error::other("no plain answer to a chain of voters")),
        }
    }

    /// Judges the process at the end of a new stream. Before a leader counts on a process that has
    /// taken over from another, that one has to hold what the other acknowledged: it is asked by a heartbeat.
    /// Gives an answer to that which openraft has to see instead of the one to its own request.
    async fn greet(&self, line: &mut Line, leading: Option<&Vote>) -> io::Result<Option<Reply>> {
        if !self.watch_peers {
            return Ok(None);
        }
        let process = line.process;
        let (Met::MustHold(acked), Some(vote)) = (self.record.meet(process).map_err(io::Error::other)?, leading) else {
            return Ok(None);
        };
        let question =
            AppendEntriesRequest { vote: *vote, prev_log_id: Some(acked), entries: vec![], leader_commit: None };
        match line.ask(&Request::Append(question)).await? {
            Reply::Append(AppendEntriesResponse::Success) if self.record.accept(process) => Ok(None),
            Reply::Append(AppendEntriesResponse::Conflict) => {
                let before = self.record.begin(vote);
                let answer = self.record.lacks(process, vote, before, Some(acked));
                Err(io::Error::other(answer.err().unwrap_or_else(|| "another leadership has begun".to_owned())))
            }
            reply @ (Reply::Append(AppendEntriesResponse::HigherVote(_)) | Reply::Refused(_)) => Ok(Some(reply)),
            _ => Err(io::Error::other("no plain answer to a heartbeat")),
        }
    }

    /// Compares an answer to entries after `prev` and up to `last` with what was acknowledged before.
    fn check(&self, process: Process, asked: &Asked, reply: &AppendEntriesResponse<TypeConfig>) -> Result<(), String> {
        if !self.watch_peers {
            return Ok(());
        }
        match reply {
            AppendEntriesResponse::Success => self.record.holds(process, &asked.vote, asked.last),
            AppendEntriesResponse::PartialSuccess(upto) => self.record.holds(process, &asked.vote, *upto),
            AppendEntriesResponse::Conflict => self.record.lacks(process, &asked.vote, asked.before, asked.prev),
            AppendEntriesResponse::HigherVote(_) => Ok(()),
        }
    }

    /// Whether the peer is a learner that has answered this very heartbeat a short while ago.
    fn has_heard(&self, vote: &Vote, committed: Option<LogId>) -> bool {
        let told = self
            .told
            .as_ref()
            .is_some_and(|(at, by, what)| at.elapsed() < LEARNER_EVERY && by == vote && *what == committed);
        told && self.peers.is_learner(&self.peer)
    }

    /// A host whose key is alive twice asks for no votes: two candidates would stand under one name.
    fn may_stand(&self) -> Result<(), Unreachable<TypeConfig>> {
        match self.watch_peers && self.peers.is_suspended(&self.me) {
            true => Err(Unreachable::from_string("the key of this host is alive twice: it asks for no votes")),
            false => Ok(()),
        }
    }

    fn unreachable(&self, why: &str) -> Unreachable<TypeConfig> {
        Unreachable::from_string(format!("{:?}: {why}", self.peer))
    }
}

/// What an append asked for.
struct Asked {
    vote: Vote,
    prev: Option<LogId>,
    last: Option<LogId>,
    /// What the peer had acknowledged when it was asked.
    before: Option<LogId>,
}

fn unexpected() -> Unreachable<TypeConfig> {
    Unreachable::from_string("an answer to another question")
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        // The next heartbeat follows soon: what is left of this one's time has to be enough for an answer.
        let (opens, within) = match request.entries.is_empty() {
            true => (option.soft_ttl() / OPENS, option.soft_ttl()),
            false => (self.patience, self.patience),
        };
        let asked = Asked {
            vote: request.vote,
            prev: request.prev_log_id,
            last: request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id),
            before: self.record.begin(&request.vote),
        };
        let beat = request.entries.is_empty().then_some((request.vote, request.leader_commit));
        if beat.is_some_and(|(vote, committed)| self.has_heard(&vote, committed)) {
            // An error, and never a made-up answer: should it have become a voter this moment, it has promised nothing.
            // It names nobody: in a large mesh it is made many times a second, and a name is reckoned from the key.
            return Err(Unreachable::from_string("a learner that has heard this lately").into());
        }
        let round = beat.map(|_| self.rounds.ask(option.hard_ttl() / GATHERS));
        match self.call(&Request::Append(request), Some(&asked.vote), opens, within).await? {
            (process, Reply::Append(reply)) => match self.check(process, &asked, &reply) {
                Ok(()) => {
                    let well = matches!(reply, AppendEntriesResponse::Success);
                    self.told = beat.filter(|_| well).map(|(vote, committed)| (Instant::now(), vote, committed));
                    if let Some(round) = round.filter(|_| well) {
                        round.answered().await; // any other answer is news
                    }
                    Ok(reply)
                }
                Err(why) => Err(self.unreachable(&why).into()),
            },
            _ => Err(unexpected().into()),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.may_stand()?;
        let ttl = option.soft_ttl();
        match self.call(&Request::Vote(request), None, ttl, ttl).await? {
            (_, Reply::Vote(reply)) => Ok(reply),
            _ => Err(unexpected().into()),
        }
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.may_stand()?;
        let ttl = option.soft_ttl();
        match self.call(&Request::PreVote(request), None, ttl, ttl).await? {
            (_, Reply::Vote(reply)) => Ok(reply),
            _ => Err(unexpected().into()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        self.record.begin(&vote);
        let last = snapshot.meta.last_log_id;
        let request = Request::Snapshot(vote, snapshot.meta, snapshot.snapshot);
        let ttl = option.soft_ttl();
        let call = self.call(&request, Some(&vote), ttl, ttl);
        let (process, reply) = tokio::select! {
            biased;
            closed = cancel => return Err(closed.into()),
            reply = call => reply?,
        };
        match reply {
            Reply::Snapshot(reply) if self.watch_peers && reply.vote == vote => {
                self.record.holds(process, &vote, last).map_err(|why| self.unreachable(&why))?;
                Ok(reply)
            }
            Reply::Snapshot(reply) => Ok(reply),
            _ => Err(unexpected().into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let ttl = option.soft_ttl();
        match self.call(&Request::Transfer(request), None, ttl, ttl).await? {
            (_, Reply::Transfer(reply)) => Ok(reply),
            _ => Err(unexpected().into()),
        }
    }
}

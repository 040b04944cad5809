//! Raft's requests between hosts: framed CBOR over streams that somebody else opens.
//!
//! The asking side keeps one stream for each of openraft's clients of a peer (entries, heartbeats, snapshots,
//! and one for each election), so that nothing large holds a heartbeat back; a stream that failed or was
//! given up is dropped with its answer. The answering side is in [`super::serve`]. Who is at the other end
//! was proved by the connection; nothing is believed about that here.

use super::rt::NodeRuntime;
use super::types::{Snapshot, SnapshotMeta, TypeConfig, Vote};
use async_trait::async_trait;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use mesh::identity::PeerKey;
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
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A request other than a snapshot. openraft sends at most half a MiB of entries, or one entry of at most
/// `mesh::limits::BATCH_BYTES_MAX`.
pub(super) const REQUEST_BYTES_MAX: usize = 8 << 20;
/// A request with a snapshot in it.
pub(super) const SNAPSHOT_BYTES_MAX: usize = 256 << 20;
/// Any answer.
const REPLY_BYTES_MAX: usize = 64 << 10;
/// Nesting of a message: a membership inside an entry inside a request is about ten deep.
const DEPTH_MAX: usize = 32;
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

#[derive(Serialize, Deserialize)]
pub(super) enum Request {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    Snapshot(Vote, SnapshotMeta, #[serde(with = "serde_bytes")] Vec<u8>),
    Transfer(TransferLeaderRequest<TypeConfig>),
}

#[derive(Serialize, Deserialize)]
pub(super) enum Reply {
    Append(AppendEntriesResponse<TypeConfig>),
    Vote(VoteResponse<TypeConfig>),
    Snapshot(SnapshotResponse<TypeConfig>),
    Transfer(TransferLeaderResponse<TypeConfig>),
    Refused(String),
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Writes one message with its length.
pub(super) async fn write<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin + ?Sized),
    message: &T,
) -> io::Result<()> {
    let bytes = mesh::wire::encode(message);
    let len = u32::try_from(bytes.len()).map_err(|_| invalid(format!("a message of {} bytes", bytes.len())))?;
    stream.write_all(&len.to_be_bytes()).await?;
    stream.write_all(&bytes).await?;
    stream.flush().await
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
    pub dial: Arc<dyn Dial>,
    /// How long a request with entries may take: a slow uplink needs more than a heartbeat does.
    pub patience: Duration,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;
    async fn new_client(&mut self, peer: PeerKey, _node: &EmptyNode) -> Client {
        Client { peer, dial: self.dial.clone(), patience: self.patience, stream: Mutex::new(None) }
    }
}

/// One of openraft's clients of a peer.
pub(super) struct Client {
    peer: PeerKey,
    dial: Arc<dyn Dial>,
    patience: Duration,
    /// The mutex is never contended; it makes the client `Sync`, as openraft wants it.
    stream: Mutex<Option<Box<dyn Duplex>>>,
}

impl Client {
    async fn call(&mut self, request: &Request, within: Duration) -> Result<Reply, Unreachable<TypeConfig>> {
        // Taken out: when this future is dropped half-way, the stream goes with it, and no later call can
        // take this answer for its own.
        let kept = self.stream.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let exchange = async {
            let mut stream = match kept {
                Some(stream) => stream,
                None => self.dial.open(self.peer).await?,
            };
            write(&mut stream, request).await?;
            let reply = read(&mut stream, REPLY_BYTES_MAX).await?;
            Ok::<_, io::Error>((stream, reply.ok_or(io::ErrorKind::UnexpectedEof)?))
        };
        let outcome = match NodeRuntime::timeout(within, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer from {:?} in {within:?}", self.peer)))
            }
        };
        let (stream, reply) = outcome.map_err(|e| Unreachable::new(&e))?;
        if let Reply::Refused(why) = reply {
            // The stream goes too: at its other end may be what is left of a host that has started anew.
            return Err(Unreachable::from_string(format!("{:?} refused: {why}", self.peer)));
        }
        *self.stream.get_mut().unwrap_or_else(PoisonError::into_inner) = Some(stream);
        Ok(reply)
    }
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
        let within = if request.entries.is_empty() { option.soft_ttl() } else { self.patience };
        match self.call(&Request::Append(request), within).await? {
            Reply::Append(reply) => Ok(reply),
            _ => Err(unexpected().into()),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(&Request::Vote(request), option.soft_ttl()).await? {
            Reply::Vote(reply) => Ok(reply),
            _ => Err(unexpected().into()),
        }
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(&Request::PreVote(request), option.soft_ttl()).await? {
            Reply::Vote(reply) => Ok(reply),
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
        let request = Request::Snapshot(vote, snapshot.meta, snapshot.snapshot);
        let call = self.call(&request, option.soft_ttl());
        let reply = tokio::select! {
            biased;
            closed = cancel => return Err(closed.into()),
            reply = call => reply?,
        };
        match reply {
            Reply::Snapshot(reply) => Ok(reply),
            _ => Err(unexpected().into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(&Request::Transfer(request), option.soft_ttl()).await? {
            Reply::Transfer(reply) => Ok(reply),
            _ => Err(unexpected().into()),
        }
    }
}

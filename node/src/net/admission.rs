//! Admission: one exchange of credentials as part of the connection's upgrade, before a Swarm, and so
//! any protocol, sees the connection. Wrapped once around the finished transport, so that TCP, QUIC and
//! a simulated network take the same path.
//!
//! The dialler opens one stream: Hello (its credential), Welcome (the listener's), Accept; or, in place
//! of any of these, Refuse with a reason. A joiner says Join instead and is sent away with the answer:
//! it comes back as a member. Nothing is shown to a peer other than the one that was dialled, and a
//! listener shows nothing to a dialler that it does not admit. The verdict is [`Admission`]'s; it is
//! kept in a book, from which the gate lets connections in.

use super::errors::links;
use super::hello::{Message, Reason, Refusal};
use super::muxer::{Mortal, drive, first_stream};
use super::rested::Rested;
use super::{frame, lock};
use async_trait::async_trait;
use either::Either;
use futures::future::FutureExt;
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::core::connection::ConnectedPoint;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::transport::timeout::{TransportTimeout, TransportTimeoutError};
use libp2p::core::{Endpoint, Transport};
use libp2p::multiaddr::Protocol as Part;
use libp2p::{Multiaddr, PeerId};
use mesh::identity::PeerKey;
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// Connecting and its handshake, before admission: longer, and the address is as good as dead.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// The whole exchange. One round trip, on a slow link and a busy host.
pub(crate) const HELLO_DEADLINE: Duration = Duration::from_secs(5);

/// The same when it goes through the ledger.
pub(crate) const JOIN_DEADLINE: Duration = Duration::from_secs(15);

/// How long a refused peer has to read the reason before the connection goes.
const LINGER: Duration = Duration::from_millis(500);

/// Bytes thrown away while lingering.
const LINGER_BYTES_MAX: usize = 64 << 10;

/// How far a peer is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For catching up with the ledger, and nothing else: what it says otherwise is refused.
    CatchUp,
    /// All protocols.
    Member,
}

/// Who may enter. The keys of peers are proved by the handshake before any of this is asked.
#[async_trait]
pub trait Admission: Send + Sync + 'static {
    /// Our own credential.
    fn present(&self) -> Vec<u8>;

    /// Judges the credential that a peer presented. Called under a lock and twice for some
    /// connections: it must not wait, and must not call [`super::Net`].
    ///
    /// # Errors
    /// The refusal that the peer is told.
    fn judge(&self, peer: PeerKey, credential: &[u8]) -> Result<Level, Refusal>;

    /// Settles a joiner's request through the ledger. `Ok` is the answer to give.
    ///
    /// # Errors
    /// The refusal that the joiner is told.
    async fn join(&self, peer: PeerKey, request: Vec<u8>) -> Result<Vec<u8>, Refusal>;
}

/// Why a connection was not admitted, or ended with the exchange.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// We refused the peer; `None` when its key is unusable.
    #[error("refused a peer: {refusal}")]
    WeRefused {
        /// Who.
        peer: Option<PeerKey>,
        /// Why.
        refusal: Refusal,
    },
    /// The peer refused us.
    #[error("{peer} refused us: {refusal}")]
    RefusedBy {
        /// Who.
        peer: PeerKey,
        /// Why.
        refusal: Refusal,
    },
    /// Another peer answered than the one that was dialled. Nothing was shown to it.
    #[error("{} answered at the address of the peer that was dialled", answered.map_or_else(|| "an unusable key".into(), |p| p.to_string()))]
    AnsweredBy {
        /// Who answered; `None` when its key is unusable.
        answered: Option<PeerKey>,
    },
    /// The connection broke during the exchange.
    #[error("lost {peer} during admission: {text}")]
    Lost {
        /// Who.
        peer: PeerKey,
        /// How.
        text: String,
    },
    /// No failure: a joiner got its answer, and the connection has served.
    #[error("{peer} has its answer and will connect anew")]
    Joined {
        /// Who.
        peer: PeerKey,
    },
}

/// Who is admitted at present. Grows with the roster at most: only what [`Admission::judge`] let in.
#[derive(Default)]
pub(crate) struct Book(Mutex<BTreeMap<PeerKey, Level>>);

impl Book {
    pub(crate) fn level(&self, peer: PeerKey) -> Option<Level> {
        lock(&self.0).get(&peer).copied()
    }

    /// Judges and writes down in one step, so that no revocation falls in between.
    fn admit(&self, peer: PeerKey, judge: impl FnOnce() -> Result<Level, Refusal>) -> Result<Level, Refusal> {
        let mut book = lock(&self.0);
        let level = judge()?;
        book.insert(peer, level);
        Ok(level)
    }

    /// Strikes a peer out, until it is judged anew.
    pub(crate) fn revoke(&self, peer: PeerKey) {
        lock(&self.0).remove(&peer);
    }

    /// Changes how far an admitted peer is let in. Nothing happens to one that is not admitted.
    pub(crate) fn set_level(&self, peer: PeerKey, level: Level) {
        if let Some(entry) = lock(&self.0).get_mut(&peer) {
            *entry = level;
        }
    }
}

/// Conducts the exchange on every new connection.
pub(crate) struct Usher {
    pub(crate) policy: Arc<dyn Admission>,
    pub(crate) book: Arc<Book>,
}

/// How an exchange failed, from inside it.
enum Fault {
    We(Refusal),
    They(Refusal),
    Lost(io::Error),
    Joined,
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Fault::We(refusal)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Lost(error)
    }
}

/// Wraps admission around a transport.
pub(crate) fn wrap(transport: Boxed<(PeerId, StreamMuxerBox)>, usher: Arc<Usher>) -> Boxed<(PeerId, StreamMuxerBox)> {
    TransportTimeout::new(transport, CONNECT_DEADLINE)
        .and_then(move |(peer, muxer), point| usher.admit(peer, muxer, point).boxed())
        .map_err(|error| match error {
            Either::Left(error) => plain(error),
            Either::Right(error) => io::Error::other(error),
        })
        .boxed()
}

/// A transport's error without the wrapping of its deadline.
fn plain(error: TransportTimeoutError<io::Error>) -> io::Error {
    match error {
        TransportTimeoutError::Timeout => io::Error::new(io::ErrorKind::TimedOut, "no answer in time"),
        TransportTimeoutError::TimerError(error) | TransportTimeoutError::Other(error) => error,
    }
}

impl AdmitError {
    /// Finds the verdict inside a transport's error.
    pub(crate) fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a AdmitError> {
        links(error).find_map(|error| error.downcast_ref())
    }
}

/// The peer id that an address ends with.
fn named_peer(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Part::P2p(peer)) => Some(peer),
        _ => None,
    }
}

impl Usher {
    async fn admit(
        self: Arc<Self>,
        peer_id: PeerId,
        mut muxer: StreamMuxerBox,
        point: ConnectedPoint,
    ) -> Result<(PeerId, StreamMuxerBox), AdmitError> {
        let key = PeerKey::from_peer_id(&peer_id);
        if let ConnectedPoint::Dialer { address, .. } = &point {
            // The Swarm compares only after this upgrade, when the credential would have been shown.
            if named_peer(address) != Some(peer_id) {
                return Err(AdmitError::AnsweredBy { answered: key });
            }
        }
        let Some(peer) = key else {
            let refusal = Refusal::new(Reason::BadKey, "a peer of a mesh has a strong ed25519 key");
            return Err(AdmitError::WeRefused { peer: None, refusal });
        };
        let opens = matches!(point, ConnectedPoint::Dialer { role_override: Endpoint::Dialer, .. });
        let deadline = Instant::now() + HELLO_DEADLINE;
        let mut stream = match timeout_at(deadline, first_stream(&mut muxer, opens)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(AdmitError::Lost { peer, text: error.to_string() }),
            // It never opened a stream, so there is none to answer on.
            Err(_) => return Err(AdmitError::WeRefused { peer: Some(peer), refusal: Reason::Deadline.into() }),
        };
        drive(&mut muxer, async {
            let outcome = match opens {
                true => self.as_dialer(&mut stream, peer, deadline).await,
                false => self.as_listener(&mut stream, peer, deadline).await,
            };
            conclude(&mut stream, peer, outcome).await
        })
        .await?;
        Ok((peer_id, Mortal::wrap(Rested::wrap(muxer))))
    }

    async fn as_dialer<S>(&self, stream: &mut S, peer: PeerKey, deadline: Instant) -> Result<(), Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        within(deadline, async {
            send(stream, &Message::Hello(ByteBuf::from(self.policy.present()))).await?;
            let Message::Welcome(credential) = receive(stream).await? else { return Err(unexpected()) };
            self.book.admit(peer, || self.policy.judge(peer, &credential))?;
            Ok(send(stream, &Message::Accept(())).await?)
        })
        .await
    }

    async fn as_listener<S>(&self, stream: &mut S, peer: PeerKey, deadline: Instant) -> Result<(), Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match within(deadline, receive(stream)).await? {
            Message::Hello(credential) => {
                within(deadline, async {
                    self.policy.judge(peer, &credential)?;
                    send(stream, &Message::Welcome(ByteBuf::from(self.policy.present()))).await?;
                    let Message::Accept(()) = receive(stream).await? else { return Err(unexpected()) };
                    // Judged again: the peer may have been revoked while it took its time.
                    self.book.admit(peer, || self.policy.judge(peer, &credential))?;
                    Ok(())
                })
                .await
            }
            Message::Join(request) => {
                within(Instant::now() + JOIN_DEADLINE, async {
                    let answer = self.policy.join(peer, request.into_vec()).await?;
                    send(stream, &Message::Joined(ByteBuf::from(answer))).await?;
                    Err(Fault::Joined)
                })
                .await
            }
            _ => Err(unexpected()),
        }
    }
}

/// Ends the exchange on its stream, so that the other side learns how it ended.
async fn conclude<S>(stream: &mut S, peer: PeerKey, outcome: Result<(), Fault>) -> Result<(), AdmitError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match outcome {
        Ok(()) => {
            let _ = stream.close().now_or_never(); // the end is no secret, but nobody waits for it
            Ok(())
        }
        Err(Fault::They(refusal)) => Err(AdmitError::RefusedBy { peer, refusal }),
        Err(Fault::Lost(error)) => Err(AdmitError::Lost { peer, text: error.to_string() }),
        Err(Fault::Joined) => {
            linger(stream, None).await;
            Err(AdmitError::Joined { peer })
        }
        Err(Fault::We(refusal)) => {
            linger(stream, Some(&refusal)).await;
            Err(AdmitError::WeRefused { peer: Some(peer), refusal })
        }
    }
}

/// Says the last word and waits, a little, until the other side has hung up: a connection that is
/// dropped at once takes the word with it.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, refusal: Option<&Refusal>) {
    let last_word = async {
        if let Some(Refusal { reason, text }) = refusal {
            send(stream, &Message::Refuse(((*reason).into(), text.clone()))).await?;
        }
        stream.close().await?;
        let (mut sink, mut total) = ([0; 256], 0);
        while total < LINGER_BYTES_MAX {
            match stream.read(&mut sink).await? {
                0 => break,
                n => total += n,
            }
        }
        io::Result::Ok(())
    };
    let _ = timeout(LINGER, last_word).await; // whoever does not listen does not learn
}

async fn within<T>(deadline: Instant, f: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    timeout_at(deadline, f).await.unwrap_or_else(|_| Err(Fault::We(Reason::Deadline.into())))
}

fn unexpected() -> Fault {
    Fault::We(Refusal::new(Reason::Malformed, "unexpected message"))
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, message: &Message) -> io::Result<()> {
    frame::write_frame(stream, &message.encode()).await
}

async fn receive<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Message, Fault> {
    let bytes = frame::read_frame(stream, Message::MAX).await.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => Fault::We(Refusal::new(Reason::Malformed, error.to_string())),
        _ => Fault::Lost(error),
    })?;
    match Message::decode(&bytes)? {
        Message::Refuse((reason, text)) => Err(Fault::They(Refusal::new(Reason::from(reason), text))),
        message => Ok(message),
    }
}

/// A joiner's side of the exchange, on a connection that no Swarm has seen.
pub(crate) async fn ask_to_join(
    muxer: &mut StreamMuxerBox,
    peer: PeerKey,
    request: Vec<u8>,
) -> Result<Vec<u8>, AdmitError> {
    let mut stream =
        first_stream(muxer, true).await.map_err(|error| AdmitError::Lost { peer, text: error.to_string() })?;
    drive(muxer, async {
        let answer = async {
            send(&mut stream, &Message::Join(ByteBuf::from(request))).await?;
            match receive(&mut stream).await? {
                Message::Joined(answer) => Ok(answer.into_vec()),
                _ => Err(unexpected()),
            }
        };
        match answer.await {
            Ok(answer) => {
                let _ = timeout(LINGER, stream.close()).await;
                Ok(answer)
            }
            Err(fault) => {
                conclude(&mut stream, peer, Err(fault)).await?;
                unreachable!("a fault stays one")
            }
        }
    })
    .await
}

//! The network of a node: libp2p over QUIC and TCP, admission before any protocol, streams, gossip.
//!
//! A task owns the Swarm; [`Net`] is the handle to it. Peers are dialled by their key and
//! by nothing else, and whoever is not admitted ([`admission`]) meets no protocol at all. What peers
//! *say* of addresses is handed on as a claim and never acted upon here: which address to dial, when a
//! connection is dead, who is revoked, is for the driver to decide and is only done here.

pub mod admission;
mod errors;
pub mod frame;
mod gate;
pub mod hello;
mod introduce;
mod join;
mod muxer;
mod neighbours;
mod paths;
mod relaying;
mod rested;
mod streams;
mod swarm;
pub mod transport;

pub use admission::{Admission, AdmitError, Level};
pub use gate::Limits;
pub use hello::{Reason, Refusal};
pub use join::{JoinError, join_once};
pub use libp2p::Multiaddr;
pub use paths::{Path, Stream};
pub use relaying::relay_of;
pub use streams::{Inbound, Opened, Protocol};
pub use swarm::start;

use admission::Book;
use mesh::identity::{Keys, PeerKey};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use streams::Table;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Statements that wait to be published. Gossip is repaired by the members' digests, so the oldest go.
const PUBLISH_MAX: usize = 1_024;

/// Peers that wait to be dialled: more than a mesh has members is a mistake of the caller.
const DIALS_MAX: usize = mesh::limits::MEMBERS_MAX;

/// What the network needs to know.
pub struct NetConfig {
    /// Who we are.
    pub keys: Keys,
    /// Where to listen. May be empty.
    pub listen: Vec<Multiaddr>,
    /// Who may enter.
    pub admission: Arc<dyn Admission>,
    /// Program and version, told to peers by identify.
    pub agent: String,
    /// Bounds on those who wait for admission.
    pub limits: Limits,
    /// Whether to ask for members on the same network by mDNS, and to answer those who ask.
    pub mdns: bool,
}

/// What the network tells the driver. Its channel is bounded: while nobody takes events, peers wait.
#[derive(Debug)]
pub enum NetEvent {
    /// We listen on this address.
    Listening(Multiaddr),
    /// We no longer listen on this address.
    NotListening(Multiaddr),
    /// The first connection with a peer stands.
    Connected {
        /// Who.
        peer: PeerKey,
        /// How far it is let in.
        level: Level,
        /// The other end. Of a dialled connection, this address is proved by the handshake.
        address: Multiaddr,
        /// Whether we dialled.
        dialed: bool,
    },
    /// Another connection with a peer stands, beside the first: another dial, a spare for blobs, a direct one in
    /// place of a relayed one.
    Another {
        /// Who.
        peer: PeerKey,
        /// The other end.
        address: Multiaddr,
        /// Whether we dialled.
        dialed: bool,
    },
    /// Somebody says by mDNS that a peer is on this network. Nothing has proved it.
    Nearby {
        /// Who is said to be there.
        peer: PeerKey,
        /// Where.
        address: Multiaddr,
    },
    /// A relay will pass on who dials us through it, or does so no longer.
    Reserved {
        /// Which.
        relay: PeerKey,
        /// For people: why not.
        ended: Option<String>,
    },
    /// The last connection with a peer is gone.
    Disconnected {
        /// Who.
        peer: PeerKey,
        /// For people.
        why: String,
    },
    /// A dial, or one address of it, has failed. Nothing comes for a peer that was connected or being
    /// dialled already.
    DialFailed {
        /// Who was dialled.
        peer: PeerKey,
        /// Where.
        address: Option<Multiaddr>,
        /// What happened.
        failure: DialFailure,
    },
    /// A peer that dialled us was not admitted, or did not get that far. All are counted
    /// ([`Net::strangers`]); those that come faster than events are taken are counted only.
    Stranger {
        /// Its proved key, when the handshake succeeded.
        peer: Option<PeerKey>,
        /// Where it came from.
        address: Multiaddr,
        /// Why.
        reason: Reason,
        /// For people.
        text: String,
    },
    /// A peer that dialled us did not accept our credential.
    Rejected {
        /// Who.
        peer: PeerKey,
        /// Where it came from.
        address: Multiaddr,
        /// What it said.
        refusal: Refusal,
    },
    /// A statement, signed by its author and passed on by members.
    Gossip {
        /// The author; the signature has been verified.
        from: PeerKey,
        /// The statement.
        bytes: Vec<u8>,
    },
    /// What a peer says of itself and of us. Claims, all of it.
    Identified {
        /// Who.
        peer: PeerKey,
        /// Where it says that it listens.
        listen: Vec<Multiaddr>,
        /// Where it sees us.
        observed: Multiaddr,
        /// Its program and version.
        agent: String,
    },
}

/// Why a dial failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialFailure {
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// No answer in time.
    #[error("no answer")]
    Timeout,
    /// Another peer answered. Nothing was shown to it; the address is that peer's.
    #[error("{0} answered instead")]
    AnsweredBy(PeerKey),
    /// The peer refused us.
    #[error("it refused us: {0}")]
    RefusedBy(Refusal),
    /// We refused the peer.
    #[error("we refused it: {0}")]
    WeRefused(Refusal),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Why the network could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The transport could not be made.
    #[error("the network cannot start: {0}")]
    Transport(String),
    /// Listening failed.
    #[error(
        "cannot listen on {address}: {text}; is another daemon running, or is the port taken? (listen = … in mesh.toml)"
    )]
    Listen {
        /// Where.
        address: Multiaddr,
        /// Why.
        text: String,
    },
    /// No connection with the peer stands.
    #[error("not connected to {0}")]
    NotConnected(PeerKey),
    /// Opening a stream took too long.
    #[error("{peer} did not open {} in time", protocol.name())]
    OpenTimeout {
        /// With whom.
        peer: PeerKey,
        /// What for.
        protocol: Protocol,
    },
    /// The peer does not offer the protocol to us: another version, or it lets us in for catching up only.
    #[error("{peer} does not offer {} to this host", protocol.name())]
    NotOffered {
        /// With whom.
        peer: PeerKey,
        /// What for.
        protocol: Protocol,
    },
    /// Opening a stream failed.
    #[error("opening {} with {peer} failed: {text}", protocol.name())]
    Open {
        /// With whom.
        peer: PeerKey,
        /// What for.
        protocol: Protocol,
        /// Why.
        text: String,
    },
    /// Somebody else takes the streams of this protocol.
    #[error("streams of {} are accepted elsewhere already", .0.name())]
    AcceptedElsewhere(Protocol),
    /// A peer whose key is weak, or no ed25519 key.
    #[error("a peer of a mesh has a strong ed25519 key")]
    UnusableKey,
}

/// One standing connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// With whom.
    pub peer: PeerKey,
    /// The other end.
    pub address: Multiaddr,
    /// Whether we dialled.
    pub dialed: bool,
    /// Whether it goes through a relay.
    pub relayed: bool,
    /// The relay, when it is known.
    pub relay: Option<PeerKey>,
    /// Over QUIC, without a relay. Should the process at its other end die, no kernel says so, as it does of TCP.
    pub by_quic: bool,
    /// Since when.
    pub since: Instant,
}

/// When a dial makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dial {
    /// No connection stands, and none is being made.
    Apart,
    /// Whatever stands; but not while another dial is under way.
    Beside,
}

/// What the Swarm's task is to do next. One entry a peer, so that it stays small while nobody looks.
#[derive(Default)]
struct Mailbox {
    revoke: BTreeSet<PeerKey>,
    disconnect: BTreeSet<PeerKey>,
    dial: BTreeMap<PeerKey, (Dial, Vec<Multiaddr>)>,
    dial_via: BTreeMap<PeerKey, (Dial, PeerKey)>,
    reserve: BTreeSet<PeerKey>,
    publish: VecDeque<Vec<u8>>,
}

/// Shared by all handles and the Swarm's task.
struct Shared {
    book: Arc<Book>,
    table: Arc<Table>,
    mailbox: Mutex<Mailbox>,
    posted: Notify,
    listening: Mutex<BTreeSet<Multiaddr>>,
    reserved: Mutex<BTreeSet<PeerKey>>,
    strangers: AtomicU64,
}

/// The handle to the network. The network ends with its last handle, or with the receiver of its events.
#[derive(Clone)]
pub struct Net {
    shared: Arc<Shared>,
    _end: Arc<DropGuard>,
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Net({} connections)", self.connections().len())
    }
}

impl Net {
    fn new(book: Arc<Book>, table: Arc<Table>) -> (Net, CancellationToken) {
        let end = CancellationToken::new();
        let shared = Shared {
            book,
            table,
            mailbox: Mutex::default(),
            posted: Notify::new(),
            listening: Mutex::default(),
            reserved: Mutex::default(),
            strangers: AtomicU64::new(0),
        };
        (Net { shared: Arc::new(shared), _end: Arc::new(end.clone().drop_guard()) }, end)
    }

    fn post(&self, write: impl FnOnce(&mut Mailbox)) {
        write(&mut lock(&self.shared.mailbox));
        self.shared.posted.notify_one();
    }

    /// Opens a stream on a standing connection: a direct one before a relayed one, and for blobs one of their
    /// own where there is or can be one. Dials nobody who is not connected.
    ///
    /// # Errors
    /// [`NetError::NotConnected`] at once without a connection; within five seconds when the peer does
    /// not answer or does not offer the protocol.
    pub async fn open(&self, peer: PeerKey, protocol: Protocol) -> Result<Stream, NetError> {
        self.shared.table.open(peer, protocol).await
    }

    /// Takes the streams that peers open in a protocol. Offered to peers from now on, until the
    /// receiver is dropped.
    ///
    /// # Errors
    /// [`NetError::AcceptedElsewhere`] while another receiver lives.
    pub fn accept(&self, protocol: Protocol) -> Result<Inbound, NetError> {
        self.shared.table.accept(protocol)
    }

    /// Dials a peer at these addresses, unless it is connected or being dialled. The result comes as
    /// an event. After [`Net::disconnect`], wait for [`NetEvent::Disconnected`] first.
    pub fn dial(&self, peer: PeerKey, addresses: Vec<Multiaddr>) {
        self.post_dial(peer, Dial::Apart, addresses);
    }

    /// The same for a peer that is connected already, over a relay or where it does not answer: the way to a better
    /// path.
    pub fn dial_beside(&self, peer: PeerKey, addresses: Vec<Multiaddr>) {
        self.post_dial(peer, Dial::Beside, addresses);
    }

    fn post_dial(&self, peer: PeerKey, when: Dial, addresses: Vec<Multiaddr>) {
        self.post(|mail| {
            if mail.dial.len() < DIALS_MAX {
                mail.dial.insert(peer, (when, addresses));
            }
        });
    }

    /// Dials a peer through a relay, unless it is connected. The relay has to be connected directly, and the
    /// peer to have a reservation there; the result comes as an event.
    pub fn dial_via(&self, peer: PeerKey, relay: PeerKey) {
        self.post_circuit(peer, Dial::Apart, relay);
    }

    /// The same for a peer that is connected already, and does not answer there.
    pub fn dial_via_beside(&self, peer: PeerKey, relay: PeerKey) {
        self.post_circuit(peer, Dial::Beside, relay);
    }

    /// A peer has been silent since then on the connection that its streams take: prefers one that is younger, if
    /// any stands. Whether that has changed anything. The old one goes by itself, unless it is the last.
    pub fn turn(&self, peer: PeerKey, silent_since: Instant) -> bool {
        self.shared.table.turn(peer, silent_since)
    }

    fn post_circuit(&self, peer: PeerKey, when: Dial, relay: PeerKey) {
        self.post(|mail| {
            if mail.dial_via.len() < DIALS_MAX {
                mail.dial_via.insert(peer, (when, relay));
            }
        });
    }

    /// Asks a directly connected member to pass on whoever dials us through it, until the connection with it ends.
    /// Told as [`NetEvent::Reserved`].
    pub fn reserve(&self, relay: PeerKey) {
        self.post(|mail| {
            mail.reserve.insert(relay);
        });
    }

    /// The relays that hold a reservation of ours.
    pub fn reserved(&self) -> BTreeSet<PeerKey> {
        lock(&self.shared.reserved).clone()
    }

    /// How a peer is reached now. `None` without a connection.
    pub fn path(&self, peer: PeerKey) -> Option<Path> {
        self.shared.table.path(peer)
    }

    /// Whether the connection with a peer that most streams take is a direct one over QUIC.
    pub fn is_by_quic(&self, peer: PeerKey) -> bool {
        self.shared.table.is_by_quic(peer)
    }

    /// The connection with a peer that most streams take.
    pub fn best(&self, peer: PeerKey) -> Option<Connection> {
        self.shared.table.best(peer)
    }

    /// Closes all connections with a peer. It may come back.
    pub fn disconnect(&self, peer: PeerKey) {
        self.post(|mail| {
            mail.dial.remove(&peer);
            mail.dial_via.remove(&peer);
            mail.disconnect.insert(peer);
        });
    }

    /// Cuts a peer off and denies it until [`Admission::judge`] lets it in again: call this *after*
    /// the roster has changed, so that `judge` no longer does.
    pub fn revoke(&self, peer: PeerKey) {
        self.shared.book.revoke(peer); // at once: from here on nothing of it is taken
        self.post(|mail| {
            mail.dial.remove(&peer);
            mail.dial_via.remove(&peer);
            mail.revoke.insert(peer);
        });
    }

    /// Changes how far a connected peer is let in, for instance when we have caught up and can judge.
    pub fn set_level(&self, peer: PeerKey, level: Level) {
        self.shared.book.set_level(peer, level);
    }

    /// How far a peer is let in. `None` when it has not been admitted since the start, or was revoked.
    pub fn level(&self, peer: PeerKey) -> Option<Level> {
        self.shared.book.level(peer)
    }

    /// Spreads a statement to all members. Lossy: a statement that is too large or comes too fast is
    /// dropped, and those who are away do not get it.
    pub fn publish(&self, bytes: Vec<u8>) {
        self.post(|mail| {
            if mail.publish.len() == PUBLISH_MAX {
                mail.publish.pop_front();
            }
            mail.publish.push_back(bytes);
        });
    }

    /// Whether a connection with the peer stands.
    pub fn is_connected(&self, peer: PeerKey) -> bool {
        self.shared.table.is_connected(peer)
    }

    /// All standing connections, by peer, the oldest first. Mutual dials give two with one peer.
    pub fn connections(&self) -> Vec<Connection> {
        self.shared.table.connections()
    }

    /// Whether there is a connection of which this is true.
    pub fn any_connection(&self, is: impl Fn(&Connection) -> bool) -> bool {
        self.shared.table.any(is)
    }

    /// With whom streams were opened lately, either way.
    pub fn opened(&self) -> Opened {
        self.shared.table.opened()
    }

    /// Where we listen.
    pub fn listening(&self) -> Vec<Multiaddr> {
        lock(&self.shared.listening).iter().cloned().collect()
    }

    /// How many inbound connections were refused since the start.
    pub fn strangers(&self) -> u64 {
        self.shared.strangers.load(Ordering::Relaxed)
    }
}

/// Locks; a panic elsewhere leaves these plain tables as good as they were.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

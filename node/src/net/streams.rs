//! Streams: everything that is neither gossip nor identify. A stream is opened on the best standing
//! connection with a peer ([`super::paths`]), whoever dialled it; nothing here ever dials.
//!
//! A host offers the protocols that somebody here accepts, and to a peer that is let in for catching up
//! [`Protocol::Raft`], [`Protocol::Recover`] and [`Protocol::Warrant`] alone: a warrant shows by itself what the host may
//! have missed. Each protocol has a queue of its own: one that is not read loses its
//! own streams (the opener sees them end) and holds back no other. (libp2p-stream, of which this is a
//! relative, keeps one waiting stream per protocol, drops the rest of a burst, and dials.)

use super::admission::{Book, Level};
use super::paths::{self, Path, Rank, Stream, Usage};
use super::relaying::{bare, is_circuit, relay_of};
use super::{Connection, NetError, lock};
use futures::future::{Ready, ready};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::behaviour::ConnectionClosed;
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound, StreamUpgradeError,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use mesh::identity::PeerKey;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

/// How long opening a stream may take.
pub(crate) const OPEN_DEADLINE: Duration = Duration::from_secs(5);

/// Streams of one protocol that wait for its acceptor.
const WAITING_MAX: usize = 256;

/// Opened streams that are remembered: more than a host opens between two looks.
const OPENED_MAX: usize = 256;

/// Requests for streams that wait for one connection.
const REQUESTS_MAX: usize = 64;

/// How long the first blob waits for a connection of its own before it takes the one that all share.
const SPARE_WAIT: Duration = Duration::from_secs(1);

/// When no connection for blobs could be had, how long until that is tried again.
const SPARE_RETRY: Duration = Duration::from_secs(600);

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Consensus.
    Raft,
    /// Probes of the watchers.
    Probe,
    /// Contents of blobs.
    Blobs,
    /// Live logs.
    Logs,
    /// Entries on their way to the leader.
    Submit,
    /// Co-signatures.
    Cosign,
    /// Comparisons of what two members know of the others.
    Digest,
    /// Round trips, for people.
    Ping,
    /// Warrants, to their target.
    Warrant,
    /// Orders and hellos, to the voters, for their signatures.
    Approve,
    /// Word of a recovery, and how far a log goes.
    Recover,
    /// Bytes to the door of a third host's guard.
    Courier,
    /// Records of signers, to the voters, for their word.
    Vouch,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Protocol; 13] = [
        Protocol::Raft,
        Protocol::Probe,
        Protocol::Blobs,
        Protocol::Logs,
        Protocol::Submit,
        Protocol::Cosign,
        Protocol::Digest,
        Protocol::Ping,
        Protocol::Warrant,
        Protocol::Approve,
        Protocol::Recover,
        Protocol::Courier,
        Protocol::Vouch,
    ];

    /// Its name on the wire, with its version.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Raft => "/mesh/raft/1",
            Protocol::Probe => "/mesh/probe/1",
            Protocol::Blobs => "/mesh/blobs/1",
            Protocol::Logs => "/mesh/logs/2",
            Protocol::Submit => "/mesh/submit/1",
            Protocol::Cosign => "/mesh/cosign/1",
            Protocol::Digest => "/mesh/digest/1",
            Protocol::Ping => "/mesh/ping/1",
            Protocol::Warrant => "/mesh/warrant/1",
            Protocol::Approve => "/mesh/approve/1",
            Protocol::Recover => "/mesh/recover/1",
            Protocol::Courier => "/mesh/courier/1",
            Protocol::Vouch => "/mesh/vouch/1",
        }
    }

    /// Whether a peer of this level may open it here.
    pub const fn open_to(self, level: Level) -> bool {
        match level {
            Level::Member => true,
            Level::CatchUp => matches!(self, Protocol::Raft | Protocol::Recover | Protocol::Warrant),
        }
    }
}

impl AsRef<str> for Protocol {
    fn as_ref(&self) -> &str {
        self.name()
    }
}

/// Streams that peers open here, in one protocol: who opened it, and the stream.
pub type Inbound = mpsc::Receiver<(PeerKey, Stream)>;

type Reply = oneshot::Sender<Result<Stream, NetError>>;

/// Somebody here wants a stream.
#[derive(Debug)]
pub(crate) struct Request {
    protocol: Protocol,
    reply: Reply,
}

struct Standing {
    info: Connection,
    rank: Rank,
    /// Whether it was dialled from a port of its own, so that a second one can be had in the same way.
    plain: bool,
    requests: mpsc::Sender<Request>,
}

/// What stands and what is accepted; shared by handle, behaviour and handlers.
pub(crate) struct Table {
    me: PeerKey,
    book: Arc<Book>,
    connections: Mutex<BTreeMap<PeerKey, BTreeMap<ConnectionId, Standing>>>,
    acceptors: Mutex<BTreeMap<Protocol, mpsc::Sender<(PeerKey, Stream)>>>,
    opened: Mutex<Opened>,
    /// Tells that `connections` has changed.
    changed: Notify,
    spares: Mutex<Spares>,
    /// Tells the Swarm's task that a spare is wanted.
    pub(super) bell: Notify,
}

/// Second connections, for blobs.
#[derive(Default)]
struct Spares {
    wanted: BTreeSet<PeerKey>,
    asked: BTreeMap<PeerKey, Instant>,
}

/// With whom streams were opened lately, either way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// How many there have ever been.
    pub count: u64,
    /// The last of them, the newest at the end.
    pub latest: VecDeque<PeerKey>,
}

impl Table {
    pub(crate) fn new(me: PeerKey, book: Arc<Book>) -> Arc<Self> {
        Arc::new(Table {
            me,
            book,
            connections: Mutex::default(),
            acceptors: Mutex::default(),
            opened: Mutex::default(),
            changed: Notify::new(),
            spares: Mutex::default(),
            bell: Notify::new(),
        })
    }

    pub(crate) fn connections(&self) -> Vec<Connection> {
        let connections = lock(&self.connections);
        connections.values().flat_map(|of_peer| of_peer.values().map(|c| c.info.clone())).collect()
    }

    pub(crate) fn any(&self, is: impl Fn(&Connection) -> bool) -> bool {
        lock(&self.connections).values().any(|of_peer| of_peer.values().any(|c| is(&c.info)))
    }

    /// A peer's connections, the oldest first.
    pub(crate) fn ids(&self, peer: PeerKey) -> Vec<ConnectionId> {
        lock(&self.connections).get(&peer).map(|of_peer| of_peer.keys().copied().collect()).unwrap_or_default()
    }

    pub(crate) fn opened(&self) -> Opened {
        lock(&self.opened).clone()
    }

    fn note_opened(&self, peer: PeerKey) {
        let mut opened = lock(&self.opened);
        opened.count += 1;
        if opened.latest.len() == OPENED_MAX {
            opened.latest.pop_front();
        }
        opened.latest.push_back(peer);
    }

    pub(crate) fn is_connected(&self, peer: PeerKey) -> bool {
        lock(&self.connections).contains_key(&peer)
    }

    /// Looks at the connections with a peer in the order of preference.
    fn sorted<T>(&self, peer: PeerKey, look: impl FnOnce(&[(&Connection, &Rank)]) -> T) -> T {
        let connections = lock(&self.connections);
        let of_peer = connections.get(&peer).into_iter().flat_map(BTreeMap::values);
        look(&paths::sort(of_peer.map(|c| (&c.info, &c.rank))))
    }

    /// Looks at the first of them only.
    fn preferred<T>(&self, peer: PeerKey, look: impl FnOnce(&Connection) -> T) -> Option<T> {
        let connections = lock(&self.connections);
        let of_peer = connections.get(&peer)?.values().map(|c| (&c.info, &c.rank));
        paths::first(of_peer).map(|(info, _)| look(info))
    }

    /// The connection that most streams take.
    pub(crate) fn best(&self, peer: PeerKey) -> Option<Connection> {
        self.preferred(peer, Connection::clone)
    }

    pub(crate) fn path(&self, peer: PeerKey) -> Option<Path> {
        self.preferred(peer, |best| if best.relayed { Path::Relayed(best.relay) } else { Path::Direct })
    }

    pub(crate) fn is_by_quic(&self, peer: PeerKey) -> bool {
        self.preferred(peer, |best| best.by_quic).unwrap_or(false)
    }

    /// Prefers a connection that is younger than the silence of a peer, where one stands; whether that is news.
    pub(crate) fn turn(&self, peer: PeerKey, silent_since: Instant) -> bool {
        let mut connections = lock(&self.connections);
        let Some(of_peer) = connections.get_mut(&peer) else { return false };
        if of_peer.values().all(|c| c.info.since <= silent_since) {
            return false; // nothing better is there
        }
        let old = of_peer.values_mut().filter(|c| c.info.since <= silent_since && c.rank.doubted.is_none());
        let now = Instant::now();
        old.map(|c| c.rank.doubted = Some(now)).count() > 0
    }

    /// Whether there is a peer with more than one connection: of others none is dispensable.
    pub(crate) fn is_crowded(&self) -> bool {
        lock(&self.connections).values().any(|of_peer| of_peer.len() > 1)
    }

    /// Connections that are not needed any more.
    pub(crate) fn dispensable(&self, now: Instant) -> Vec<ConnectionId> {
        let peers: Vec<PeerKey> =
            lock(&self.connections).iter().filter(|(_, of_peer)| of_peer.len() > 1).map(|(peer, _)| *peer).collect();
        peers.into_iter().flat_map(|peer| self.sorted(peer, |s| paths::dispensable(s, self.me, now))).collect()
    }

    pub(crate) fn accept(&self, protocol: Protocol) -> Result<Inbound, NetError> {
        let mut acceptors = lock(&self.acceptors);
        if acceptors.get(&protocol).is_some_and(|sender| !sender.is_closed()) {
            return Err(NetError::AcceptedElsewhere(protocol));
        }
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        acceptors.insert(protocol, sender);
        Ok(receiver)
    }

    pub(crate) async fn open(&self, peer: PeerKey, protocol: Protocol) -> Result<Stream, NetError> {
        if protocol == Protocol::Blobs
            && let Some(until) = self.want_spare(peer)
        {
            let _ = timeout_at(until, self.spare(peer)).await; // without one, blobs go where everything goes
        }
        let requests = {
            let connections = lock(&self.connections);
            let of_peer = connections.get(&peer).ok_or(NetError::NotConnected(peer))?;
            let sorted = paths::sort(of_peer.values().map(|c| (&c.info, &c.rank)));
            let chosen = paths::choose(&sorted, protocol).and_then(|rank| of_peer.get(&rank.id));
            chosen.ok_or(NetError::NotConnected(peer))?.requests.clone()
        };
        let (reply, answer) = oneshot::channel();
        let ask = async {
            let gone = |_| NetError::NotConnected(peer);
            requests.send(Request { protocol, reply }).await.map_err(|_| NetError::NotConnected(peer))?;
            answer.await.map_err(gone)?
        };
        timeout(OPEN_DEADLINE, ask).await.unwrap_or(Err(NetError::OpenTimeout { peer, protocol }))
    }

    /// The direct connection with a peer, when it is the only one and we could dial another like it.
    fn only_direct(&self, peer: PeerKey) -> Option<Multiaddr> {
        let connections = lock(&self.connections);
        let mut direct = connections.get(&peer)?.values().filter(|c| !c.info.relayed);
        let only = direct.next().filter(|_| direct.next().is_none())?;
        (only.rank.dialer == self.me && only.plain).then(|| only.info.address.clone())
    }

    /// Waits until a second connection stands, or none at all.
    async fn spare(&self, peer: PeerKey) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable(); // so that no change falls in between
            if self.only_direct(peer).is_none() {
                return;
            }
            changed.await;
        }
    }

    /// Asks for a second connection for blobs, if this host is the one to dial it; until when to wait for it.
    fn want_spare(&self, peer: PeerKey) -> Option<Instant> {
        self.only_direct(peer)?;
        let mut spares = lock(&self.spares);
        let now = Instant::now();
        let asked = match spares.asked.get(&peer) {
            Some(at) if now < *at + SPARE_RETRY => *at,
            _ => {
                spares.asked.insert(peer, now);
                spares.wanted.insert(peer);
                self.bell.notify_one();
                now
            }
        };
        Some(asked + SPARE_WAIT).filter(|until| now < *until)
    }

    /// Second connections to dial now: to whom, and where.
    pub(super) fn take_wanted(&self) -> Vec<(PeerKey, Multiaddr)> {
        let wanted = std::mem::take(&mut lock(&self.spares).wanted);
        wanted.into_iter().filter_map(|peer| Some((peer, self.only_direct(peer)?))).collect()
    }

    /// What is offered to a peer at this moment.
    fn offered(&self, peer: PeerKey) -> Vec<Protocol> {
        let Some(level) = self.book.level(peer) else { return Vec::new() };
        let acceptors = lock(&self.acceptors);
        let accepted = acceptors.iter().filter(|(protocol, sender)| protocol.open_to(level) && !sender.is_closed());
        accepted.map(|(protocol, _)| *protocol).collect()
    }

    fn deliver(&self, peer: PeerKey, protocol: Protocol, stream: Stream) {
        if protocol == Protocol::Blobs {
            let _ = self.want_spare(peer); // the peer may not be able to dial us: the next one finds it
        }
        if !self.book.level(peer).is_some_and(|level| protocol.open_to(level)) {
            return; // revoked since the protocol was offered
        }
        self.note_opened(peer);
        let acceptor = lock(&self.acceptors).get(&protocol).cloned();
        if acceptor.is_none_or(|acceptor| acceptor.try_send((peer, stream)).is_err()) {
            tracing::warn!(peer = %peer.short(), protocol = protocol.name(), "a stream was dropped: its queue is full");
        }
    }
}

/// The behaviour: a handler for each connection, and the table of them.
pub(crate) struct Streams {
    table: Arc<Table>,
}

impl Streams {
    pub(crate) fn new(table: Arc<Table>) -> Self {
        Streams { table }
    }

    fn attach(
        &self,
        id: ConnectionId,
        peer: PeerId,
        address: Multiaddr,
        dialed: bool,
        role: Endpoint,
        plain: bool,
    ) -> Result<Handler, ConnectionDenied> {
        let Some(peer) = PeerKey::from_peer_id(&peer) else {
            return Err(ConnectionDenied::new(NetError::UnusableKey)); // the gate has denied it before
        };
        let table = &self.table;
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let usage = Usage::new();
        let mut connections = lock(&table.connections);
        let relayed = is_circuit(&address);
        // Of an inbound circuit only the relay's address may be known: it is the relay's that is connected there.
        let at = |c: &Standing| {
            !c.info.relayed && bare(&address).to_string() == format!("{}/p2p-circuit", bare(&c.info.address))
        };
        let relay = relay_of(&address).or_else(|| {
            connections.values().flat_map(BTreeMap::values).find(|c| relayed && at(c)).map(|c| c.info.peer)
        });
        let by_quic = !relayed && address.iter().any(|part| part == libp2p::multiaddr::Protocol::QuicV1);
        let info = Connection { peer, address, dialed, relayed, relay, by_quic, since: Instant::now() };
        let dialer = if role.is_dialer() { table.me } else { peer };
        let rank = Rank { id, dialer, doubted: None, usage: Arc::clone(&usage) };
        connections.entry(peer).or_default().insert(id, Standing { info, rank, plain, requests });
        drop(connections);
        table.changed.notify_waiters();
        Ok(Handler { peer, table: Arc::clone(table), usage, requests: receiver })
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let address = if is_circuit(local) { local } else { remote };
        self.attach(id, peer, address.clone(), false, Endpoint::Listener, false)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.attach(id, peer, address.clone(), true, role, port_use == PortUse::New)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) = event else { return };
        let Some(peer) = PeerKey::from_peer_id(&peer_id) else { return };
        let mut connections = lock(&self.table.connections);
        if let Some(of_peer) = connections.get_mut(&peer) {
            if let Some(ended) = of_peer.remove(&connection_id) {
                ended.rank.usage.end();
            }
            if of_peer.is_empty() {
                connections.remove(&peer);
                lock(&self.table.spares).asked.remove(&peer);
            }
        }
        drop(connections);
        self.table.changed.notify_waiters();
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// One connection's part.
pub(crate) struct Handler {
    peer: PeerKey,
    table: Arc<Table>,
    usage: Arc<Usage>,
    requests: mpsc::Receiver<Request>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Offer;
    type OutboundProtocol = Offer;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Request;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer, ()> {
        SubstreamProtocol::new(Offer(self.table.offered(self.peer)), ())
    }

    fn connection_keep_alive(&self) -> bool {
        true // connections stand until the driver closes them
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Offer, Request, Infallible>> {
        while let Poll::Ready(Some(request)) = self.requests.poll_recv(cx) {
            if request.reply.is_closed() {
                continue; // nobody waits any more
            }
            let protocol = SubstreamProtocol::new(Offer(vec![request.protocol]), request).with_timeout(OPEN_DEADLINE);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Offer, Offer, (), Request>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol), ..
            }) => {
                let stream = Stream::new(stream, self.usage.begin(protocol));
                self.table.deliver(self.peer, protocol, stream);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (stream, protocol),
                info,
            }) => {
                self.table.note_opened(self.peer);
                let stream = Stream::new(stream, self.usage.begin(protocol));
                let _ = info.reply.send(Ok(stream)); // whoever asked may have given up: the stream ends
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: Request { protocol, reply }, error }) => {
                let peer = self.peer;
                let error = match error {
                    StreamUpgradeError::Timeout => NetError::OpenTimeout { peer, protocol },
                    StreamUpgradeError::NegotiationFailed => NetError::NotOffered { peer, protocol },
                    StreamUpgradeError::Io(error) => NetError::Open { peer, protocol, text: error.to_string() },
                    StreamUpgradeError::Apply(never) => match never {},
                };
                let _ = reply.send(Err(error));
            }
            _ => {}
        }
    }
}

/// The upgrade of a stream: agree on the protocol, hand over the stream.
pub(crate) struct Offer(Vec<Protocol>);

impl UpgradeInfo for Offer {
    type Info = Protocol;
    type InfoIter = std::vec::IntoIter<Protocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<libp2p::Stream> for Offer {
    type Output = (libp2p::Stream, Protocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: libp2p::Stream, protocol: Protocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

impl OutboundUpgrade<libp2p::Stream> for Offer {
    type Output = (libp2p::Stream, Protocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: libp2p::Stream, protocol: Protocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catching_up_opens_what_proves_itself_and_nothing_else() {
        for protocol in Protocol::ALL {
            assert!(protocol.open_to(Level::Member));
            let catches_up = matches!(protocol, Protocol::Raft | Protocol::Recover | Protocol::Warrant);
            assert_eq!(protocol.open_to(Level::CatchUp), catches_up);
        }
    }
}

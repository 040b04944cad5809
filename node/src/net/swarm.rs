//! The task that owns the Swarm: commands in, events out.
//!
//! One loop. Events wait in a short outbox while the driver is busy; when it is full the Swarm is not
//! polled any more, and libp2p holds its peers back. Commands are taken all the same, so that neither
//! side can wait for the other in a circle. What relays and hole punching ask of a Swarm is in
//! [`circuits`].

mod circuits;

use super::admission::{self, AdmitError, Level, Usher};
use super::errors::{answered, chain, dial_failure, hung_up, other, verdict};
use super::gate::Gate;
use super::hello::{Reason, Refusal};
use super::introduce::Introduce;
use super::neighbours::{Nearby, Neighbours};
use super::relaying::{self, is_circuit};
use super::streams::{Streams, Table};
use super::{Dial, DialFailure, Mailbox, Net, NetConfig, NetError, NetEvent, Shared, lock, transport as transports};
use crate::seams::{MakeTransport, Spawn};
use futures::StreamExt;
use libp2p::core::connection::ConnectedPoint;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, ListenerId, Transport, TransportError};
use libp2p::identity::Keypair;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionError, DialError, ListenError, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, dcutr, gossipsub, identify, relay};
use mesh::identity::PeerKey;
use mesh::limits::STATEMENT_BYTES_MAX;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Events on their way to the driver.
const EVENTS_MAX: usize = 256;

/// Events that wait for room in that channel before the Swarm is held back.
const OUTBOX_MAX: usize = 64;

/// The one topic of gossip.
const TOPIC: &str = "mesh/statements/v1";

/// Author, signature, key and topic around a statement.
const GOSSIP_OVERHEAD_BYTES: usize = 1_024;

/// How often connections that are not needed any more are looked for, where some peer has more than one.
const TIDY: Duration = Duration::from_secs(1);

/// Addresses taken from one identify message.
const IDENTIFY_ADDRESSES_MAX: usize = 32;

#[derive(NetworkBehaviour)]
#[behaviour(to_swarm = "Told")]
struct Behaviour {
    gate: Gate, // first: what it denies, the others never see
    identify: Introduce,
    gossip: gossipsub::Behaviour,
    streams: Streams,
    relay: relay::Behaviour,
    circuits: relay::client::Behaviour,
    punch: dcutr::Behaviour,
    neighbours: Neighbours,
}

/// What the behaviours tell.
#[derive(Debug)]
enum Told {
    Identify(Box<identify::Event>),
    Gossip(Box<gossipsub::Event>),
    Relay(Box<relay::Event>),
    Circuits(Box<relay::client::Event>),
    Punch(Box<dcutr::Event>),
    Nearby(Nearby),
}

impl From<identify::Event> for Told {
    fn from(event: identify::Event) -> Self {
        Told::Identify(Box::new(event))
    }
}

impl From<gossipsub::Event> for Told {
    fn from(event: gossipsub::Event) -> Self {
        Told::Gossip(Box::new(event))
    }
}

impl From<relay::Event> for Told {
    fn from(event: relay::Event) -> Self {
        Told::Relay(Box::new(event))
    }
}

impl From<relay::client::Event> for Told {
    fn from(event: relay::client::Event) -> Self {
        Told::Circuits(Box::new(event))
    }
}

impl From<dcutr::Event> for Told {
    fn from(event: dcutr::Event) -> Self {
        Told::Punch(Box::new(event))
    }
}

impl From<Nearby> for Told {
    fn from(event: Nearby) -> Self {
        Told::Nearby(event)
    }
}

impl From<std::convert::Infallible> for Told {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// Starts the network: binds the addresses and leaves a task behind.
///
/// # Errors
/// When the transport cannot be made or an address cannot be listened on. Nothing runs then.
pub fn start(
    config: NetConfig,
    transport: MakeTransport,
    spawn: Spawn,
) -> Result<(Net, mpsc::Receiver<NetEvent>), NetError> {
    let pair = config.keys.libp2p();
    let failed = |error: std::io::Error| NetError::Transport(error.to_string());
    let id = pair.public().to_peer_id();
    // A circuit is one more stream of bytes: the same handshake and the same admission as on any other.
    let (circuits, circuits_client) = relay::client::new(id);
    let circuits = transports::secure(circuits.map_err(std::io::Error::other), &pair).map_err(failed)?;
    let raw = transports::either(circuits, transport(&pair).map_err(failed)?);
    let book = Arc::default();
    let table = Table::new(config.keys.key(), Arc::clone(&book));
    let usher = Usher { policy: config.admission, book: Arc::clone(&book) };
    let behaviour = Behaviour {
        gate: Gate::new(Arc::clone(&book), config.limits),
        identify: Introduce(identify(&pair, config.agent)),
        gossip: gossip(&pair).map_err(NetError::Transport)?,
        streams: Streams::new(Arc::clone(&table)),
        relay: relaying::server(id),
        circuits: circuits_client,
        punch: dcutr::Behaviour::new(id),
        neighbours: Neighbours::new(config.mdns, id).map_err(failed)?,
    };
    let mut swarm = assemble(admission::wrap(raw, Arc::new(usher)), behaviour, &pair, spawn);
    // A reservation has to name an address of its relay, and members find a relay by its key. A real address would
    // do harm: libp2p offers what is confirmed to nobody as a place to punch a hole to.
    swarm.add_external_address(Multiaddr::empty().with(libp2p::multiaddr::Protocol::P2p(id)));
    for address in config.listen {
        if let Err(error) = swarm.listen_on(address.clone()) {
            return Err(NetError::Listen { address, text: chain(&error) });
        }
    }
    let (events, receiver) = mpsc::channel(EVENTS_MAX);
    let (net, end) = Net::new(book, table);
    let shared = Arc::clone(&net.shared);
    let task = Task { swarm, shared, outbox: VecDeque::new(), whys: BTreeMap::new(), reservations: Vec::new() };
    spawn(Box::pin(task.run(events, end)));
    Ok((net, receiver))
}

pub(super) fn assemble<B: NetworkBehaviour>(
    transport: Boxed<(PeerId, StreamMuxerBox)>,
    behaviour: B,
    pair: &Keypair,
    spawn: Spawn,
) -> Swarm<B> {
    let config = libp2p::swarm::Config::with_executor(spawn);
    Swarm::new(transport, behaviour, pair.public().to_peer_id(), config)
}

pub(super) fn identify(pair: &Keypair, agent: String) -> identify::Behaviour {
    let config = identify::Config::new("/mesh/1".into(), pair.public())
        .with_agent_version(agent)
        .with_push_listen_addr_updates(false) // presence tells, and in an order of our own
        .with_cache_size(0); // claimed addresses are the driver's business
    identify::Behaviour::new(config)
}

pub(super) fn gossip(pair: &Keypair) -> Result<gossipsub::Behaviour, String> {
    let config = gossipsub::ConfigBuilder::default()
        .max_transmit_size(STATEMENT_BYTES_MAX + GOSSIP_OVERHEAD_BYTES)
        .validation_mode(gossipsub::ValidationMode::Strict)
        .validate_messages() // passed on only after we have seen who says it
        .flood_publish(true)
        .heartbeat_interval(Duration::from_secs(1))
        .message_id_fn(|message| {
            gossipsub::MessageId::from(blake3::hash(&message.data).as_bytes().to_vec()) // not the random number
        })
        .build()
        .map_err(|error| error.to_string())?;
    let authenticity = gossipsub::MessageAuthenticity::Signed(pair.clone());
    let mut gossip = gossipsub::Behaviour::new(authenticity, config)?;
    gossip.subscribe(&gossipsub::IdentTopic::new(TOPIC)).map_err(|error| error.to_string())?;
    Ok(gossip)
}

struct Task {
    swarm: Swarm<Behaviour>,
    shared: Arc<Shared>,
    outbox: VecDeque<NetEvent>,
    /// Why we are closing the connections of a peer.
    whys: BTreeMap<PeerKey, &'static str>,
    /// Listeners at relays, and whose they are.
    reservations: Vec<(ListenerId, PeerKey)>,
}

impl Task {
    async fn run(mut self, events: mpsc::Sender<NetEvent>, end: CancellationToken) {
        let shared = Arc::clone(&self.shared);
        let mut tidied = Instant::now();
        loop {
            let tidy = async {
                match shared.table.is_crowded() {
                    true => tokio::time::sleep_until(tidied + TIDY).await,
                    false => std::future::pending().await, // a connection more is an event of the Swarm's
                }
            };
            tokio::select! {
                biased;
                () = end.cancelled() => break,
                () = shared.posted.notified() => self.collect(),
                () = shared.table.bell.notified() => self.dial_spares(),
                () = tidy => {
                    self.tidy();
                    tidied = Instant::now();
                }
                room = events.reserve(), if !self.outbox.is_empty() => match room {
                    Ok(room) => if let Some(event) = self.outbox.pop_front() { room.send(event) },
                    Err(_) => break, // nobody listens any more
                },
                () = events.closed() => break,
                event = self.swarm.select_next_some(), if self.outbox.len() < OUTBOX_MAX => self.on_event(event),
            }
        }
    }

    /// Does what is in the mailbox.
    fn collect(&mut self) {
        let mail = std::mem::take(&mut *lock(&self.shared.mailbox));
        let Mailbox { revoke, disconnect, dial, dial_via, reserve, publish } = mail;
        for (peers, why) in [(revoke, "revoked"), (disconnect, "closed by this host")] {
            for peer in peers {
                // One by one, the oldest first: the swarm itself would go by the hash of numbers that count per process.
                for id in self.shared.table.ids(peer) {
                    if self.swarm.close_connection(id) {
                        self.whys.entry(peer).or_insert(why);
                    }
                }
            }
        }
        for (peer, (when, addresses)) in dial {
            let condition = match when {
                Dial::Apart => PeerCondition::DisconnectedAndNotDialing,
                Dial::Beside => PeerCondition::NotDialing,
            };
            self.dial(peer, condition, addresses);
        }
        reserve.into_iter().for_each(|relay| self.reserve(relay));
        dial_via.into_iter().for_each(|(peer, (when, relay))| self.dial_via(peer, when, relay));
        for statement in publish {
            if let Err(error) = self.swarm.behaviour_mut().gossip.publish(gossipsub::IdentTopic::new(TOPIC), statement)
            {
                tracing::debug!(%error, "a statement was not published");
            }
        }
    }

    fn dial(&mut self, peer: PeerKey, condition: PeerCondition, addresses: Vec<Multiaddr>) {
        let Some(id) = peer.peer_id() else {
            let failure = DialFailure::Other(NetError::UnusableKey.to_string());
            return self.outbox.push_back(NetEvent::DialFailed { peer, address: None, failure });
        };
        let opts = DialOpts::peer_id(id).condition(condition).addresses(addresses).allocate_new_port().build();
        if let Err(error) = self.swarm.dial(opts) {
            self.on_dial_error(peer, error);
        }
    }

    fn on_event(&mut self, event: SwarmEvent<Told>) {
        match event {
            SwarmEvent::Behaviour(Told::Identify(event)) => self.on_identify(*event),
            SwarmEvent::Behaviour(Told::Gossip(event)) => self.on_gossip(*event),
            SwarmEvent::Behaviour(Told::Nearby(Nearby(found))) => self.on_nearby(found),
            SwarmEvent::Behaviour(told) => self.on_circuits(told),
            SwarmEvent::NewListenAddr { listener_id, address } if is_circuit(&address) => {
                self.on_reserved(listener_id);
            }
            SwarmEvent::ExpiredListenAddr { address, .. } if is_circuit(&address) => {} // its listener closes next
            SwarmEvent::NewListenAddr { address, .. } => {
                lock(&self.shared.listening).insert(address.clone());
                self.outbox.push_back(NetEvent::Listening(address));
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => self.on_closed_listener(address),
            SwarmEvent::ListenerClosed { listener_id, reason, .. } if self.is_reservation(listener_id) => {
                self.on_reservation_ended(listener_id, reason);
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                tracing::warn!(?addresses, ?reason, "a listener has closed");
                addresses.into_iter().for_each(|address| self.on_closed_listener(address));
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a listener reports an error"),
            SwarmEvent::ConnectionEstablished { peer_id, endpoint, num_established, .. } => {
                let Some(peer) = PeerKey::from_peer_id(&peer_id) else { return };
                let dialed = endpoint.is_dialer();
                let address = remote(endpoint);
                self.outbox.push_back(match num_established.get() {
                    1 => {
                        let level = self.shared.book.level(peer).unwrap_or(Level::CatchUp);
                        NetEvent::Connected { peer, level, address, dialed }
                    }
                    _ => NetEvent::Another { peer, address, dialed },
                });
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, cause, .. } => {
                let Some(peer) = PeerKey::from_peer_id(&peer_id) else { return };
                let why = match (self.whys.remove(&peer), cause) {
                    (Some(why), _) => why.to_owned(),
                    (None, Some(ConnectionError::IO(error))) => chain(&error),
                    (None, Some(error)) => error.to_string(),
                    (None, None) => "closed".to_owned(),
                };
                self.outbox.push_back(NetEvent::Disconnected { peer, why });
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer_id), error, .. } => {
                if let Some(peer) = PeerKey::from_peer_id(&peer_id) {
                    self.on_dial_error(peer, error);
                }
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                self.on_inbound_error(send_back_addr, &error);
            }
            // Candidates for external addresses are hearsay: never promoted.
            _ => {}
        }
    }

    fn on_closed_listener(&mut self, address: Multiaddr) {
        if lock(&self.shared.listening).remove(&address) {
            self.outbox.push_back(NetEvent::NotListening(address));
        }
    }

    fn on_identify(&mut self, event: identify::Event) {
        let identify::Event::Received { peer_id, info, .. } = event else { return };
        let Some(peer) = PeerKey::from_peer_id(&peer_id) else { return };
        let mut listen = info.listen_addrs;
        listen.retain(|address| !is_circuit(address)); // where it waits behind relays, its presence says
        listen.truncate(IDENTIFY_ADDRESSES_MAX);
        let (observed, mut agent) = (info.observed_addr, info.agent_version);
        agent.truncate(agent.floor_char_boundary(mesh::limits::TEXT_BYTES_MAX));
        self.outbox.push_back(NetEvent::Identified { peer, listen, observed, agent });
    }

    /// Neighbours, who may be made up: told of while there is room.
    fn on_nearby(&mut self, found: Vec<(PeerId, Multiaddr)>) {
        let room = OUTBOX_MAX.saturating_sub(self.outbox.len());
        let keyed = found.into_iter().filter_map(|(id, address)| Some((PeerKey::from_peer_id(&id)?, address)));
        self.outbox.extend(keyed.take(room).map(|(peer, address)| NetEvent::Nearby { peer, address }));
    }

    /// Takes a statement from a member, and passes it on; what comes through or from a peer that may
    /// only catch up stops here.
    fn on_gossip(&mut self, event: gossipsub::Event) {
        let gossipsub::Event::Message { propagation_source, message_id, message } = event else { return };
        let level = |peer: &PeerId| PeerKey::from_peer_id(peer).and_then(|key| self.shared.book.level(key));
        let author = message.source.as_ref().and_then(PeerKey::from_peer_id);
        // An author that is not connected to us has no level here: its statement says who it is.
        let heard = level(&propagation_source) == Some(Level::Member)
            && message.source.as_ref().is_some_and(|source| level(source) != Some(Level::CatchUp));
        let (verdict, from) = match author {
            Some(from) if heard => (gossipsub::MessageAcceptance::Accept, Some(from)),
            _ => (gossipsub::MessageAcceptance::Ignore, None),
        };
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        gossip.report_message_validation_result(&message_id, &propagation_source, verdict);
        if let Some(from) = from {
            self.outbox.push_back(NetEvent::Gossip { from, bytes: message.data });
        }
    }

    fn on_dial_error(&mut self, peer: PeerKey, error: DialError) {
        let failures: Vec<(Option<Multiaddr>, DialFailure)> = match error {
            DialError::DialPeerConditionFalse(_) => return, // connected, or another dial will tell
            DialError::Transport(errors) => {
                errors.into_iter().map(|(a, error)| (Some(a), dial_failure(&error))).collect()
            }
            DialError::WrongPeerId { obtained, address } => {
                vec![(Some(address), answered(PeerKey::from_peer_id(&obtained)))]
            }
            DialError::LocalPeerId { address } => {
                vec![(Some(address), answered(PeerKey::from_peer_id(self.swarm.local_peer_id())))]
            }
            DialError::Denied { cause } => vec![(None, verdict(&cause).unwrap_or_else(|| other(&cause)))],
            DialError::NoAddresses => vec![(None, DialFailure::Other("no address to dial".into()))],
            error @ DialError::Aborted => vec![(None, other(&error))],
        };
        for (address, failure) in failures {
            self.outbox.push_back(NetEvent::DialFailed { peer, address, failure });
        }
    }

    fn on_inbound_error(&mut self, address: Multiaddr, error: &ListenError) {
        let verdict = match error {
            ListenError::Transport(TransportError::Other(error)) => AdmitError::find(error),
            ListenError::Denied { cause } => AdmitError::find(cause).or_else(|| cause.downcast_ref()),
            _ => None,
        };
        let (peer, refusal) = match verdict {
            Some(AdmitError::WeRefused { peer, refusal }) => (*peer, refusal.clone()),
            Some(AdmitError::RefusedBy { peer, refusal }) => {
                let (peer, refusal) = (*peer, refusal.clone());
                return self.optional(NetEvent::Rejected { peer, address, refusal });
            }
            // A joiner has been served; a member may hang up when another of its dials was quicker.
            Some(AdmitError::Joined { .. } | AdmitError::Lost { .. } | AdmitError::AnsweredBy { .. }) => {
                return tracing::debug!(%address, ?verdict, "an inbound connection ended before it stood");
            }
            None if hung_up(error) => return tracing::debug!(%address, "somebody hung up during the handshake"),
            None => (None, Refusal::new(Reason::Malformed, chain(error))),
        };
        self.shared.strangers.fetch_add(1, Ordering::Relaxed);
        self.optional(NetEvent::Stranger { peer, address, reason: refusal.reason, text: refusal.text });
    }

    /// An event that strangers can cause at will: told only while there is room.
    fn optional(&mut self, event: NetEvent) {
        if self.outbox.is_empty() {
            self.outbox.push_back(event);
        }
    }
}

/// The other end; of a circuit, the circuit.
fn remote(endpoint: ConnectedPoint) -> Multiaddr {
    match endpoint {
        ConnectedPoint::Dialer { address, .. } => address,
        ConnectedPoint::Listener { local_addr, .. } if is_circuit(&local_addr) => local_addr,
        ConnectedPoint::Listener { send_back_addr, .. } => send_back_addr,
    }
}

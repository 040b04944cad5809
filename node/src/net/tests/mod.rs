//! Whole networks in one process: over TCP and QUIC on loopback, and over libp2p's memory transport
//! where a deadline has to pass (tokio's paused clock jumps to it).

mod joining;
mod members;
mod relayed;
mod strangers;

use super::swarm::{assemble, gossip, identify};
use super::*;
use crate::seams::{MakeTransport, Spawn};
use futures::future::poll_fn;
use libp2p::core::Endpoint;
use libp2p::core::Transport as _;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, StreamMuxerExt, SubstreamBox};
use libp2p::core::transport::{Boxed, DialOpts, MemoryTransport, PortUse};
use libp2p::core::upgrade::Version;
use libp2p::swarm::NetworkBehaviour;
use libp2p::{PeerId, Swarm, gossipsub, noise, yamux};
use std::io;
use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const MEMORY: &str = "/memory/0";
const SPAWN: Spawn = |task| {
    tokio::spawn(task);
};

/// A policy without cryptography: a credential is the name of a mesh and the key of its subject.
struct Club {
    credential: Vec<u8>,
    revoked: Mutex<BTreeSet<PeerKey>>,
    catching_up: Mutex<BTreeSet<PeerKey>>,
    invitations: Mutex<BTreeSet<Vec<u8>>>,
}

fn credential(mesh: &str, subject: PeerKey) -> Vec<u8> {
    [mesh.as_bytes(), subject.as_bytes()].concat()
}

impl Club {
    fn presenting(credential: Vec<u8>) -> Arc<Self> {
        Arc::new(Club {
            credential,
            revoked: Mutex::default(),
            catching_up: Mutex::default(),
            invitations: Mutex::default(),
        })
    }
}

#[async_trait::async_trait]
impl Admission for Club {
    fn present(&self) -> Vec<u8> {
        self.credential.clone()
    }

    fn judge(&self, peer: PeerKey, credential: &[u8]) -> Result<Level, Refusal> {
        if credential.is_empty() {
            return Err(Reason::NoCredential.into());
        }
        let subject = credential.strip_prefix(b"home").ok_or(Reason::WrongMesh)?;
        if subject != peer.as_bytes() {
            return Err(Reason::WrongSubject.into());
        }
        if lock(&self.revoked).contains(&peer) {
            return Err(Refusal::new(Reason::Revoked, "evicted by anna"));
        }
        Ok(if lock(&self.catching_up).contains(&peer) { Level::CatchUp } else { Level::Member })
    }

    async fn join(&self, peer: PeerKey, request: Vec<u8>) -> Result<Vec<u8>, Refusal> {
        if request == b"hang" {
            std::future::pending::<()>().await;
        }
        tokio::task::yield_now().await;
        match lock(&self.invitations).remove(&request) {
            true => Ok(credential("home", peer)),
            false => Err(Refusal::new(Reason::InvitationUsed, "ask for another one")),
        }
    }
}

/// Streams opened and accepted on connections, below admission.
#[derive(Default)]
struct Counts {
    opened: AtomicUsize,
    accepted: AtomicUsize,
}

impl Counts {
    fn get(&self) -> (usize, usize) {
        (self.opened.load(Ordering::SeqCst), self.accepted.load(Ordering::SeqCst))
    }
}

struct Counting(StreamMuxerBox, Arc<Counts>);

impl StreamMuxer for Counting {
    type Substream = SubstreamBox;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<SubstreamBox>> {
        let result = self.0.poll_inbound_unpin(cx);
        if let Poll::Ready(Ok(_)) = result {
            self.1.accepted.fetch_add(1, Ordering::SeqCst);
        }
        result
    }
    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<SubstreamBox>> {
        let result = self.0.poll_outbound_unpin(cx);
        if let Poll::Ready(Ok(_)) = result {
            self.1.opened.fetch_add(1, Ordering::SeqCst);
        }
        result
    }
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_close_unpin(cx)
    }
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        self.0.poll_unpin(cx)
    }
}

/// TCP, QUIC and memory, authenticated, multiplexed, counted, without admission.
fn raw(keys: &Keys, counts: &Arc<Counts>) -> Boxed<(PeerId, StreamMuxerBox)> {
    let pair = keys.libp2p();
    let memory = MemoryTransport::new()
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&pair).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
    let counts = Arc::clone(counts);
    memory
        .or_transport(transport::real()(&pair).unwrap())
        .map(move |either, _| {
            let (futures::future::Either::Left((peer, muxer)) | futures::future::Either::Right((peer, muxer))) = either;
            (peer, StreamMuxerBox::new(Counting(muxer, counts)))
        })
        .boxed()
}

fn make(keys: &Keys, counts: &Arc<Counts>) -> MakeTransport {
    let (keys, counts) = (keys.clone(), Arc::clone(counts));
    Box::new(move |_| Ok(raw(&keys, &counts)))
}

fn keys(n: u8) -> Keys {
    Keys::from_seed([n; 32])
}

/// One node, and what it has told.
struct Node {
    key: PeerKey,
    net: Net,
    club: Arc<Club>,
    counts: Arc<Counts>,
    events: mpsc::Receiver<NetEvent>,
    seen: Vec<NetEvent>,
}

impl Node {
    fn member(n: u8, listen: &[&str]) -> Node {
        Node::with(n, listen, Club::presenting(credential("home", keys(n).key())), Limits::default())
    }

    fn with(n: u8, listen: &[&str], club: Arc<Club>, limits: Limits) -> Node {
        let counts = Arc::default();
        let config = NetConfig {
            keys: keys(n),
            listen: listen.iter().map(|a| a.parse().unwrap()).collect(),
            admission: Arc::clone(&club) as Arc<dyn Admission>,
            agent: format!("mesh-test/{n}"),
            limits,
            mdns: false,
        };
        let (net, events) = start(config, make(&keys(n), &counts), SPAWN).unwrap();
        Node { key: keys(n).key(), net, club, counts, events, seen: Vec::new() }
    }

    /// Waits for an event, among those that came before as well, and takes it out.
    async fn wait<T>(&mut self, what: &str, pick: impl Fn(&NetEvent) -> Option<T>) -> T {
        for (i, event) in self.seen.iter().enumerate() {
            if let Some(found) = pick(event) {
                self.seen.remove(i);
                return found;
            }
        }
        let search = async {
            while let Some(event) = self.events.recv().await {
                match pick(&event) {
                    Some(found) => return found,
                    None => self.seen.push(event),
                }
            }
            panic!("the network has ended");
        };
        match timeout(Duration::from_secs(30), search).await {
            Ok(found) => found,
            Err(_) => panic!("no {what}; seen: {:#?}", self.seen),
        }
    }

    async fn listening(&mut self) -> Multiaddr {
        self.wait("listening", |e| match e {
            NetEvent::Listening(address) => Some(address.clone()),
            _ => None,
        })
        .await
    }

    async fn connected(&mut self, to: PeerKey) -> (Level, bool) {
        self.wait("connection", |e| match e {
            NetEvent::Connected { peer, level, dialed, .. } if *peer == to => Some((*level, *dialed)),
            _ => None,
        })
        .await
    }

    async fn disconnected(&mut self, from: PeerKey) -> String {
        self.wait("end of a connection", |e| match e {
            NetEvent::Disconnected { peer, why } if *peer == from => Some(why.clone()),
            _ => None,
        })
        .await
    }

    async fn dial_failed(&mut self, to: PeerKey) -> DialFailure {
        self.wait("failure of a dial", |e| match e {
            NetEvent::DialFailed { peer, failure, .. } if *peer == to => Some(failure.clone()),
            _ => None,
        })
        .await
    }

    async fn stranger(&mut self) -> (Option<PeerKey>, Reason) {
        self.wait("stranger", |e| match e {
            NetEvent::Stranger { peer, reason, .. } => Some((*peer, *reason)),
            _ => None,
        })
        .await
    }

    /// Whether anything of a protocol, or of a connection, was told.
    fn saw_protocols(&mut self) -> bool {
        while let Ok(event) = self.events.try_recv() {
            self.seen.push(event);
        }
        self.seen
            .iter()
            .any(|e| matches!(e, NetEvent::Connected { .. } | NetEvent::Gossip { .. } | NetEvent::Identified { .. }))
    }
}

/// Two members, connected; the second has dialled.
async fn pair(listen: &str) -> (Node, Node) {
    let (mut a, mut b) = (Node::member(1, &[listen]), Node::member(2, &[listen]));
    let address = a.listening().await;
    b.net.dial(a.key, vec![address]);
    assert_eq!(b.connected(a.key).await, (Level::Member, true));
    assert_eq!(a.connected(b.key).await, (Level::Member, false));
    (a, b)
}

/// A libp2p peer as others build them: identify and gossip, and no idea of admission.
#[derive(NetworkBehaviour)]
struct Plain {
    identify: libp2p::identify::Behaviour,
    gossip: gossipsub::Behaviour,
}

fn plain(keys: &Keys, transport: Boxed<(PeerId, StreamMuxerBox)>) -> Swarm<Plain> {
    let pair = keys.libp2p();
    let behaviour = Plain { identify: identify(&pair, "plain".into()), gossip: gossip(&pair).unwrap() };
    assemble(transport, behaviour, &pair, SPAWN)
}

/// A bare connection to a node, without any Swarm.
async fn bare(from: &Keys, to: PeerKey, address: Multiaddr) -> io::Result<StreamMuxerBox> {
    let mut transport = raw(from, &Arc::default());
    let opts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    let dial = transport.dial(address.with_p2p(to.peer_id().unwrap()).unwrap(), opts).unwrap();
    Ok(dial.await?.1)
}

//! Three bare libp2p swarms: gossipsub and a stream echo over Noise and Yamux, one crash, one cut.
//!
//! No node is in it. It shows that transport, clocks and randomness are ruled before anything is built
//! on them, and it is what to bisect with when whole nodes lose their determinism.

use crate::current::{self, Current};
use crate::det;
use crate::network::{Network, Power};
use crate::trace::Trace;
use crate::transport::{self, Place};
use crate::world::{Settings, World, WorldError};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::identity::Keypair;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{Config, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, gossipsub};
use mesh::identity::Keys;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

const HOSTS: u64 = 3;
const PORT: u16 = 7400;
const ECHO: StreamProtocol = StreamProtocol::new("/sim/echo/1");

#[derive(NetworkBehaviour)]
struct Behaviour {
    gossip: gossipsub::Behaviour,
    stream: libp2p_stream::Behaviour,
}

/// Who heard what from whom: (what, at, of) to how often.
type Tally = Rc<RefCell<BTreeMap<(&'static str, PeerId, PeerId), u64>>>;

fn keys(seed: u64, host: u64) -> Keypair {
    Keys::from_seed(det::derive(seed, "host key", host)).libp2p()
}

fn ip(host: u64) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, host as u8 + 1)
}

/// Runs it.
///
/// # Errors
/// When a host fails, or did not hear everybody at the end.
pub fn run(seed: u64, trace: &Trace) -> Result<(), WorldError> {
    let mut world = World::new(Settings::lan(seed), trace.clone());
    let network = Network::flat(trace.clone());
    let tally = Tally::default();
    let peers: Vec<_> = (0..HOSTS)
        .map(|host| {
            let address = transport::to_multiaddr(SocketAddr::new(ip(host).into(), PORT));
            (keys(seed, host).public().to_peer_id(), address)
        })
        .collect();
    for host in 0..HOSTS {
        let name = format!("h{host}");
        let place = Place::new(&name, [("lan".to_owned(), ip(host))].into(), &network, trace);
        network.set_power(&name, Power::Program);
        let (peers, tally) = (peers.clone(), tally.clone());
        let current = Current::new(&name);
        world.host(&name, place.wire, move || {
            current.wrap(swarm(seed, host, place.clone(), peers.clone(), tally.clone()))
        });
    }
    world.run_for(Duration::from_secs(6))?;
    world.crash("h1");
    world.run_for(Duration::from_secs(3))?;
    world.bounce("h1");
    world.run_for(Duration::from_secs(3))?;
    world.hold("h0", "h2");
    world.run_for(Duration::from_secs(2))?;
    world.release("h0", "h2");
    tally.borrow_mut().clear();
    world.run_for(Duration::from_secs(6))?;
    for what in ["gossip", "echo"] {
        for (at, _) in &peers {
            for (of, _) in peers.iter().filter(|(of, _)| of != at) {
                if !tally.borrow().contains_key(&(what, *at, *of)) {
                    return Err(WorldError::Unexpected(format!("{at} has no {what} of {of} after all was mended")));
                }
            }
        }
    }
    Ok(())
}

async fn swarm(seed: u64, host: u64, place: Place, peers: Vec<(PeerId, Multiaddr)>, tally: Tally) -> turmoil::Result {
    let keys = keys(seed, host);
    let me = keys.public().to_peer_id();
    let gossip_config = gossipsub::ConfigBuilder::default().heartbeat_interval(Duration::from_secs(1)).build()?;
    let gossip = gossipsub::Behaviour::new(gossipsub::MessageAuthenticity::Signed(keys.clone()), gossip_config)?;
    let behaviour = Behaviour { gossip, stream: libp2p_stream::Behaviour::new() };
    // Not tokio's own executor: it numbers tasks for the whole process, and drops them by number.
    let spawn = |task: Pin<Box<dyn Future<Output = ()> + Send>>| current::spawn(task);
    let config = Config::with_executor(spawn).with_idle_connection_timeout(Duration::from_secs(3_600));
    let mut swarm = Swarm::new(transport::make(place)(&keys)?, behaviour, me, config);
    swarm.listen_on(transport::to_multiaddr(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT)))?;
    let topic = gossipsub::IdentTopic::new("sim");
    swarm.behaviour_mut().gossip.subscribe(&topic)?;
    let mut control = swarm.behaviour().stream.new_control();
    let mut incoming = control.accept(ECHO)?;
    current::spawn(async move {
        while let Some((_, stream)) = incoming.next().await {
            current::spawn(async move {
                let _ = answer(stream).await; // the asker sees how it ended
            });
        }
    });
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    let mut count = 0_u64;
    loop {
        tokio::select! {
            biased;
            event = swarm.select_next_some() => on_event(event, me, &tally),
            _ = seconds.tick() => {
                count += 1;
                // One side dials: with two connections between a pair, libp2p-stream picks one in the hash
                // order of their ids, which count per process.
                for (peer, address) in peers.iter().skip(host as usize + 1) {
                    let dial = DialOpts::peer_id(*peer).addresses(vec![address.clone()]);
                    // An error says that it is connected, or being dialled.
                    let _ = swarm.dial(dial.condition(PeerCondition::DisconnectedAndNotDialing).build());
                }
                let published = swarm.behaviour_mut().gossip.publish(topic.clone(), format!("{count} of {me}"));
                tracing::debug!(count, published = published.is_ok(), "publish");
                for peer in swarm.connected_peers().copied().collect::<std::collections::BTreeSet<_>>() {
                    let (control, tally) = (control.clone(), tally.clone());
                    current::spawn(async move {
                        let asked = ask(control, peer, count).await;
                        tracing::debug!(%peer, count, ok = asked.is_ok(), "echo");
                        if asked.is_ok() {
                            *tally.borrow_mut().entry(("echo", me, peer)).or_default() += 1;
                        }
                    });
                }
            }
        }
    }
}

fn on_event(event: SwarmEvent<BehaviourEvent>, me: PeerId, tally: &Tally) {
    match event {
        SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } => {
            tracing::info!(%peer_id, dialer = endpoint.is_dialer(), "connected");
        }
        SwarmEvent::ConnectionClosed { peer_id, .. } => tracing::info!(%peer_id, "disconnected"),
        SwarmEvent::Behaviour(BehaviourEvent::Gossip(gossipsub::Event::Message { message, .. })) => {
            tracing::debug!(sequence = message.sequence_number, "heard");
            if let Some(of) = message.source {
                *tally.borrow_mut().entry(("gossip", me, of)).or_default() += 1;
            }
        }
        _ => {}
    }
}

async fn ask(mut control: libp2p_stream::Control, peer: PeerId, count: u64) -> io::Result<()> {
    let mut stream = control.open_stream(peer, ECHO).await.map_err(io::Error::other)?;
    let question = count.to_le_bytes().repeat(100);
    stream.write_all(&question).await?;
    stream.close().await?;
    let mut answer = vec![];
    stream.read_to_end(&mut answer).await?;
    if answer == question { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

async fn answer(mut stream: libp2p::Stream) -> io::Result<()> {
    let mut question = vec![];
    stream.read_to_end(&mut question).await?;
    stream.write_all(&question).await?;
    stream.close().await
}

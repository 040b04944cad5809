//! The simulated network, its masquerade and its faults, each seen from a program on a host.
#![allow(clippy::unwrap_used)] // helpers of tests, which clippy does not exempt

use futures::StreamExt;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{Config, DialError, Swarm, SwarmEvent, dummy};
use libp2p::{Multiaddr, PeerId};
use mesh::identity::Keys;
use sim::det::{self, Options};
use sim::network::{Leg, Network, Power};
use sim::trace::Trace;
use sim::transport::{self, Place, to_multiaddr, to_socket};
use sim::world::{Settings, World, WorldError};
use std::cell::RefCell;
use std::future::{Future, pending};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use topology::Fleet;
use turmoil::net::{TcpListener, TcpStream};

const SECOND: Duration = Duration::from_secs(1);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The world of incident 1: `inner` behind `router`, `far` outside.
const FLEET: &str = r#"
name = "incident 1"
network = [{ name = "site-a", cidr = "10.42.0.0/24" }, { name = "site-b", cidr = "192.168.20.0/24" }]
masquerade = [{ router = "router", inside = "site-b", outside = "site-a", address = "10.42.0.199" }]
host = [
  { name = "router", addresses = { site-a = "10.42.0.199" }, cores = 1, role = "gateway" },
  { name = "inner", addresses = { site-b = "192.168.20.77" }, cores = 1, role = "drone" },
  { name = "far", addresses = { site-a = "10.42.0.201" }, cores = 1, role = "drone" },
]
"#;

fn places(trace: &Trace) -> Vec<Place> {
    let fleet = Fleet::parse("incident 1", FLEET).unwrap();
    let network = Network::of(&fleet, trace.clone());
    let place = |host: &topology::Host| {
        let place = Place::new(&host.name, host.addresses.clone(), &network, trace);
        network.set_power(&host.name, Power::Program);
        place
    };
    fleet.hosts.iter().map(place).collect()
}

fn keys(name: &str) -> Keys {
    Keys::from_seed(det::derive(1, name, 0))
}

fn peer(name: &str) -> PeerId {
    keys(name).libp2p().public().to_peer_id()
}

fn at(ip: IpAddr) -> Multiaddr {
    to_multiaddr(SocketAddr::new(ip, 7400))
}

fn swarm(place: Place) -> Swarm<dummy::Behaviour> {
    let pair = keys(&place.name).libp2p();
    let spawn = |task: Pin<Box<dyn Future<Output = ()> + Send>>| drop(tokio::task::spawn_local(task));
    let config = Config::with_executor(spawn).with_idle_connection_timeout(60 * SECOND);
    let mut swarm =
        Swarm::new(transport::make(place)(&pair).unwrap(), dummy::Behaviour, pair.public().to_peer_id(), config);
    swarm.listen_on(at(ip("0.0.0.0"))).unwrap();
    swarm
}

/// What `far` learns, in order.
#[derive(Default)]
struct Seen {
    from: Option<SocketAddr>,
    at_observed: Option<PeerId>,
    anybody_there: Option<PeerId>,
    inside: Option<io::ErrorKind>,
}

#[test]
fn behind_a_masquerade_an_observed_address_is_the_routers() {
    det::run(1, Options::default(), || {
        let trace = Trace::new(None);
        let mut world = World::new(Settings::lan(1), trace.clone());
        let seen = Rc::new(RefCell::new(Seen::default()));
        for place in places(&trace) {
            let seen = seen.clone();
            world.host(&place.name.clone(), place.wire, move || {
                let (place, seen) = (place.clone(), seen.clone());
                async move {
                    let name = place.name.clone();
                    let mut swarm = swarm(place);
                    let dial = || DialOpts::peer_id(peer("far")).addresses(vec![at(ip("10.42.0.201"))]).build();
                    if &*name == "inner" {
                        swarm.dial(dial())?;
                    }
                    loop {
                        let event = swarm.select_next_some().await;
                        if &*name == "inner" && matches!(event, SwarmEvent::OutgoingConnectionError { .. }) {
                            swarm.dial(dial())?; // it may listen a moment later
                        }
                        if &*name == "far" {
                            far(&mut swarm, event, &mut seen.borrow_mut());
                        }
                    }
                }
            });
        }
        world.run_until("far tried every address", 20 * SECOND, || seen.borrow().inside.is_some()).unwrap();
        let seen = seen.borrow();
        assert_eq!(seen.from.unwrap().ip(), ip("10.42.0.199"), "inner is seen as its router");
        assert_eq!(seen.at_observed, Some(peer("router")), "dialling inner where it was seen gets the router");
        assert_eq!(seen.anybody_there, Some(peer("router")));
        assert_eq!(seen.inside, Some(io::ErrorKind::NetworkUnreachable), "there is no way in");
    });
}

/// One step of `far` after the other, each begun by the end of the one before.
fn far(swarm: &mut Swarm<dummy::Behaviour>, event: SwarmEvent<std::convert::Infallible>, seen: &mut Seen) {
    let expecting = |who: &str, address| {
        DialOpts::peer_id(peer(who)).addresses(vec![address]).condition(PeerCondition::Always).build()
    };
    match event {
        SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } if seen.from.is_none() => {
            assert_eq!(peer_id, peer("inner"));
            seen.from = to_socket(endpoint.get_remote_address());
            let observed = seen.from.unwrap().ip();
            swarm.dial(expecting("inner", at(observed))).unwrap();
        }
        SwarmEvent::OutgoingConnectionError { error: DialError::WrongPeerId { obtained, .. }, .. } => {
            seen.at_observed = Some(obtained);
            // A naive dial, without saying who is meant, would even have succeeded.
            swarm.dial(DialOpts::unknown_peer_id().address(at(ip("10.42.0.199"))).build()).unwrap();
        }
        SwarmEvent::ConnectionEstablished { peer_id, .. } => {
            seen.anybody_there = Some(peer_id);
            swarm.dial(expecting("inner", at(ip("192.168.20.77")))).unwrap();
        }
        SwarmEvent::OutgoingConnectionError { error: DialError::Transport(errors), .. } => {
            let text = format!("{errors:?}");
            seen.inside = text.contains("no route from").then_some(io::ErrorKind::NetworkUnreachable);
        }
        _ => {}
    }
}

type Clocks = (Instant, SystemTime, tokio::time::Instant);

#[test]
fn clocks_agree_between_hosts_and_go_on_after_a_crash() {
    det::run(1, Options::default(), || {
        let mut world = World::new(Settings::lan(1), Trace::new(None));
        let read: Rc<RefCell<Vec<(&str, Clocks)>>> = Rc::default();
        for (name, address) in [("a", "10.0.0.1"), ("b", "10.0.0.2")] {
            let read = read.clone();
            world.host(name, ip(address), move || {
                let read = read.clone();
                async move {
                    loop {
                        let clocks = (Instant::now(), SystemTime::now(), tokio::time::Instant::now());
                        read.borrow_mut().push((name, clocks));
                        tokio::time::sleep(SECOND).await; // virtual: they are read once a second
                    }
                }
            });
        }
        let last = |name: &str| read.borrow().iter().rev().find(|(of, _)| *of == name).unwrap().1;
        world.run_for(10 * SECOND).unwrap();
        let before = last("b");
        world.crash("b");
        world.run_for(5 * SECOND).unwrap();
        world.bounce("b");
        world.run_for(SECOND / 2).unwrap();
        let (a, b) = (last("a"), last("b"));
        for elapsed in [b.0 - before.0, b.1.duration_since(before.1).unwrap(), b.2 - before.2] {
            assert!(elapsed > 5 * SECOND && elapsed < 7 * SECOND, "b's clocks went on by {elapsed:?}");
        }
        assert!(b.0.max(a.0) - b.0.min(a.0) < SECOND && b.1.max(a.1).duration_since(b.1.min(a.1)).unwrap() < SECOND);
    });
}

/// What a client of a counting server sees while `fault` is done to the server: the last count, and how its
/// connection ended, if it did.
fn counting(fault: impl FnOnce(&mut World) -> Result<(), WorldError> + Send) -> (u8, Option<io::ErrorKind>) {
    det::run(1, Options::default(), || {
        let mut world = World::new(Settings::lan(1), Trace::new(None));
        world.host("server", ip("10.0.0.1"), || async {
            let (mut stream, _) = TcpListener::bind("0.0.0.0:80").await?.accept().await?;
            for count in 0..=u8::MAX {
                stream.write_all(&[count]).await?;
                tokio::time::sleep(SECOND / 10).await; // virtual: its pace
            }
            pending().await
        });
        let seen = Rc::new(RefCell::new((0, None)));
        let client = seen.clone();
        world.host("client", ip("10.0.0.2"), move || {
            let seen = client.clone();
            async move {
                let mut stream = TcpStream::connect((ip("10.0.0.1"), 80)).await?;
                loop {
                    match stream.read_u8().await {
                        Ok(count) => seen.borrow_mut().0 = count,
                        Err(error) => {
                            seen.borrow_mut().1 = Some(error.kind());
                            return pending().await;
                        }
                    }
                }
            }
        });
        world.run_for(SECOND).unwrap();
        fault(&mut world).unwrap();
        *seen.borrow()
    })
}

#[test]
fn a_crash_closes_a_power_cut_is_silent_and_a_cut_link_delivers_later() {
    let (count, ended) = counting(|world| {
        world.crash("server");
        world.run_for(SECOND)
    });
    assert!((8..=11).contains(&count) && ended.is_some(), "crash: {count} {ended:?}");
    let (count, ended) = counting(|world| {
        world.power_cut("server");
        world.run_for(10 * SECOND)
    });
    assert!((8..=11).contains(&count) && ended.is_none(), "power cut: {count} {ended:?}");
    let (count, ended) = counting(|world| {
        world.hold("server", "client");
        world.run_for(SECOND)
    });
    assert!((8..=11).contains(&count) && ended.is_none(), "cut link: {count} {ended:?}");
    let (count, ended) = counting(|world| {
        world.hold("server", "client");
        world.run_for(SECOND)?;
        world.release("server", "client");
        world.run_for(SECOND)
    });
    assert!((27..=31).contains(&count) && ended.is_none(), "mended link: {count} {ended:?}");
}

#[test]
fn waiting_for_what_does_not_come_ends_and_says_what() {
    det::run(1, Options::default(), || {
        let mut world = World::new(Settings::lan(1), Trace::new(None));
        world.host("a", ip("10.0.0.1"), pending);
        let error = world.run_until("the moon is blue", SECOND, || false).unwrap_err();
        assert_eq!(error.to_string(), "the moon is blue: not so within 1s, at 1s");
        world.host("b", ip("10.0.0.2"), || async { Err("no disk")? });
        let error = world.run_for(SECOND).unwrap_err().to_string();
        assert!(error.contains("no disk"), "{error}");
    });
}

/// Whom a host finds at the address that `a` has at first, and how many of its connections ended.
#[derive(Default)]
struct Found {
    peers: Vec<PeerId>,
    ended: u32,
}

#[test]
fn after_a_swap_the_old_address_is_answered_by_the_other_host() {
    det::run(1, Options::default(), || {
        let trace = Trace::new(None);
        let mut world = World::new(Settings::lan(1), trace.clone());
        let network = Network::flat(trace.clone());
        let found = Rc::new(RefCell::new(Found::default()));
        for (number, name) in ["asker", "a", "b"].into_iter().enumerate() {
            let address = std::net::Ipv4Addr::new(10, 0, 0, number as u8 + 1);
            let place = Place::new(name, [("lan".to_owned(), address)].into(), &network, &trace);
            network.set_power(name, Power::Program);
            let found = found.clone();
            world.host(name, place.wire, move || {
                let (place, found) = (place.clone(), found.clone());
                async move {
                    let asks = &*place.name == "asker";
                    let mut swarm = swarm(place);
                    let mut seconds = tokio::time::interval(SECOND);
                    loop {
                        tokio::select! {
                            biased;
                            event = swarm.select_next_some() => match event {
                                SwarmEvent::ConnectionEstablished { peer_id, .. } if asks => {
                                    found.borrow_mut().peers.push(peer_id);
                                }
                                SwarmEvent::ConnectionClosed { .. } if asks => found.borrow_mut().ended += 1,
                                _ => {}
                            },
                            _ = seconds.tick() => if asks {
                                swarm.dial(DialOpts::unknown_peer_id().address(at(ip("10.0.0.2"))).build())?;
                            },
                        }
                    }
                }
            });
        }
        world.run_for(3 * SECOND).unwrap();
        assert!(found.borrow().peers.iter().all(|p| *p == peer("a")) && !found.borrow().peers.is_empty());
        assert_eq!(found.borrow().ended, 0);
        network.take_addresses("a", "b", true);
        found.borrow_mut().peers.clear();
        world.run_for(3 * SECOND).unwrap();
        assert!(found.borrow().peers.iter().all(|p| *p == peer("b")) && !found.borrow().peers.is_empty());
        assert!(found.borrow().ended > 0, "connections to an address that moved go on");
    });
}

#[test]
fn a_cut_stops_one_direction_and_a_mended_one_delivers_what_waited() {
    det::run(1, Options::default(), || {
        let trace = Trace::new(None);
        let network = Network::flat(trace.clone());
        let [one, two] = ["one", "two"].map(std::sync::Arc::<str>::from);
        for (number, name) in [&one, &two].into_iter().enumerate() {
            let address = std::net::Ipv4Addr::new(10, 0, 0, number as u8 + 1);
            network.add(name, [("lan".to_owned(), address)].into());
            network.set_power(name, Power::Program);
        }
        let at = |n: u8| SocketAddr::new(std::net::Ipv4Addr::new(10, 0, 0, n).into(), 7400);
        let here = network.stands(Leg::new(&one, &two, vec![], at(1), at(2)));
        let there = network.stands(Leg::new(&two, &one, vec![], at(2), at(1)));
        let blocked = || (here.is_blocked(std::task::Waker::noop()), there.is_blocked(std::task::Waker::noop()));
        assert_eq!(blocked(), (false, false));
        network.set_cut("one", "two", true);
        assert_eq!(blocked(), (false, true), "what one sends does not reach two");
        network.set_cut("one", "two", false);
        assert_eq!(blocked(), (false, false));
    });
}

//! Members among themselves.

use super::*;
use futures::io::{AsyncReadExt, AsyncWriteExt};

/// Echoes each stream's one frame.
pub(super) fn echo(net: &Net, protocol: Protocol) {
    let mut inbound = net.accept(protocol).unwrap();
    tokio::spawn(async move {
        while let Some((_, mut stream)) = inbound.recv().await {
            tokio::spawn(async move {
                let bytes = frame::read_frame(&mut stream, 1 << 20).await.unwrap();
                frame::write_frame(&mut stream, &bytes).await.unwrap();
                stream.close().await.unwrap();
            });
        }
    });
}

pub(super) async fn ask(net: &Net, peer: PeerKey, protocol: Protocol, bytes: &[u8]) -> Vec<u8> {
    let mut stream = net.open(peer, protocol).await.unwrap();
    frame::write_frame(&mut stream, bytes).await.unwrap();
    frame::read_frame(&mut stream, 1 << 20).await.unwrap()
}

/// Publishes until it is heard: who is subscribed spreads by gossip's own messages.
pub(super) async fn gossip_reaches(from: &Node, to: &mut Node, statement: &[u8]) {
    let heard = to.wait("gossip", |e| match e {
        NetEvent::Gossip { from, bytes } if bytes.starts_with(statement) => Some(*from),
        _ => None,
    });
    let say = async {
        let mut every = tokio::time::interval(Duration::from_millis(20));
        for n in 0u32.. {
            every.tick().await;
            from.net.publish([statement, &n.to_be_bytes()].concat());
        }
    };
    let author = tokio::select! { biased; author = heard => author, () = say => unreachable!() };
    assert_eq!(author, from.key);
}

async fn all_works(listen: &str) {
    let (mut a, mut b) = pair(listen).await;
    for (from, to) in [(&a, &b), (&b, &a)] {
        echo(&to.net, Protocol::Probe);
        assert_eq!(ask(&from.net, to.key, Protocol::Probe, b"there?").await, b"there?");
        let missing = from.net.open(to.key, Protocol::Logs).await.unwrap_err();
        assert!(matches!(missing, NetError::NotOffered { .. }), "{missing}");
    }
    let (agent, observed) = a
        .wait("identify", |e| match e {
            NetEvent::Identified { agent, observed, .. } => Some((agent.clone(), observed.clone())),
            _ => None,
        })
        .await;
    assert_eq!(agent, "mesh-test/2");
    assert!(!a.net.listening().is_empty() && !observed.is_empty());
    gossip_reaches(&a, &mut b, b"from a").await;
    gossip_reaches(&b, &mut a, b"from b").await;

    let of_b = a.net.connections();
    assert!(of_b.len() == 1 && of_b[0].peer == b.key && !of_b[0].dialed && b.net.connections()[0].dialed);
    a.net.disconnect(b.key);
    assert_eq!(a.disconnected(b.key).await, "closed by this host");
    b.disconnected(a.key).await;
    assert!(a.net.connections().is_empty() && !b.net.is_connected(a.key));
    let gone = b.net.open(a.key, Protocol::Probe).await.unwrap_err();
    assert!(matches!(gone, NetError::NotConnected(peer) if peer == a.key), "{gone}");
}

#[tokio::test]
async fn all_works_over_tcp() {
    all_works(TCP).await;
}

#[tokio::test]
async fn all_works_over_quic() {
    all_works(QUIC).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_works_on_several_threads() {
    all_works(QUIC).await;
    all_works(TCP).await;
}

#[tokio::test]
async fn all_works_over_a_simulated_network() {
    all_works(MEMORY).await;
}

#[tokio::test]
async fn a_hundred_streams_at_once() {
    for listen in [TCP, QUIC] {
        let (a, b) = pair(listen).await;
        echo(&a.net, Protocol::Blobs);
        let all = (0..100u32).map(|n| {
            let (net, to) = (b.net.clone(), a.key);
            async move { assert_eq!(ask(&net, to, Protocol::Blobs, &n.to_be_bytes()).await, n.to_be_bytes()) }
        });
        futures::future::join_all(all).await;
    }
}

#[tokio::test]
async fn a_protocol_that_is_not_read_holds_back_no_other() {
    let (a, b) = pair(TCP).await;
    let _never_read = a.net.accept(Protocol::Submit).unwrap();
    echo(&a.net, Protocol::Raft);
    let mut kept = Vec::new();
    for _ in 0..300 {
        let Ok(mut stream) = b.net.open(a.key, Protocol::Submit).await else { continue };
        let _ = stream.write_all(b"x").await;
        kept.push(stream);
    }
    assert_eq!(ask(&b.net, a.key, Protocol::Raft, b"vote").await, b"vote");
    // The queue is bounded: streams beyond it have ended.
    let mut ended = 0;
    for stream in &mut kept {
        if timeout(Duration::from_millis(1), stream.read(&mut [0; 1])).await.is_ok() {
            ended += 1;
        }
    }
    assert!((1..=50).contains(&ended), "{ended} of 300 streams have ended");
    assert!(matches!(a.net.accept(Protocol::Submit), Err(NetError::AcceptedElsewhere(_))));
}

#[tokio::test]
async fn catching_up_means_consensus_and_nothing_else() {
    let (mut a, mut b) = (Node::member(1, &[TCP]), Node::member(2, &[]));
    lock(&a.club.catching_up).insert(b.key);
    let address = a.listening().await;
    b.net.dial(a.key, vec![address]);
    assert_eq!(a.connected(b.key).await.0, Level::CatchUp);
    assert_eq!(b.connected(a.key).await.0, Level::Member, "a level is the view of one side");
    echo(&a.net, Protocol::Raft);
    echo(&a.net, Protocol::Probe);
    assert_eq!(ask(&b.net, a.key, Protocol::Raft, b"log").await, b"log");
    assert!(matches!(b.net.open(a.key, Protocol::Probe).await, Err(NetError::NotOffered { .. })));

    gossip_reaches(&a, &mut b, b"down").await; // now b knows that a listens to gossip
    b.net.publish(b"early".to_vec());
    // On one connection, what is said early arrives early: a later Raft answer proves it is past.
    assert_eq!(ask(&b.net, a.key, Protocol::Raft, b"log").await, b"log");
    a.net.set_level(b.key, Level::Member);
    gossip_reaches(&b, &mut a, b"late").await;
    let early = a.seen.iter().any(|e| matches!(e, NetEvent::Gossip { bytes, .. } if bytes == b"early"));
    assert!(!early, "gossip of a peer that may only catch up");
    assert_eq!(ask(&b.net, a.key, Protocol::Probe, b"there?").await, b"there?");
}

#[tokio::test]
async fn mutual_dials_meet() {
    let (mut a, mut b) = (Node::member(1, &[TCP]), Node::member(2, &[TCP]));
    let (at_a, at_b) = (a.listening().await, b.listening().await);
    a.net.dial(b.key, vec![at_b]);
    b.net.dial(a.key, vec![at_a]);
    a.connected(b.key).await;
    b.connected(a.key).await;
    echo(&a.net, Protocol::Cosign);
    assert_eq!(ask(&b.net, a.key, Protocol::Cosign, b"sign").await, b"sign");
    assert!((1..=2).contains(&b.net.connections().len()));
}

#[tokio::test]
async fn revocation_cuts_and_denies() {
    let (mut a, mut b) = pair(QUIC).await;
    echo(&a.net, Protocol::Raft);
    let address = a.net.listening().remove(0);
    lock(&a.club.revoked).insert(b.key);
    a.net.revoke(b.key);
    assert_eq!(a.net.level(b.key), None);
    assert_eq!(a.disconnected(b.key).await, "revoked");
    b.disconnected(a.key).await;
    b.net.dial(a.key, vec![address.clone()]);
    let refusal = Refusal::new(Reason::Revoked, "evicted by anna");
    assert_eq!(b.dial_failed(a.key).await, DialFailure::RefusedBy(refusal));
    assert_eq!(a.stranger().await, (Some(b.key), Reason::Revoked));

    lock(&a.club.revoked).clear(); // invited again
    b.net.dial(a.key, vec![address]);
    a.connected(b.key).await;
}

#[tokio::test]
async fn failed_dials_say_why() {
    let mut a = Node::member(1, &[]);
    let nobody = keys(9).key();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    a.net.dial(nobody, vec![format!("/ip4/127.0.0.1/tcp/{closed}").parse().unwrap()]);
    assert_eq!(a.dial_failed(nobody).await, DialFailure::Refused);
    a.net.dial(nobody, vec![]);
    assert!(matches!(a.dial_failed(nobody).await, DialFailure::Other(_)));
    a.net.dial(nobody, vec!["/ip4/127.0.0.1/tcp/1/ws".parse().unwrap()]);
    assert!(matches!(a.dial_failed(nobody).await, DialFailure::Other(_)));
    a.net.dial(a.key, vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()]);
    a.dial_failed(a.key).await;
}

#[tokio::test(start_paused = true)]
async fn silence_at_an_address_is_a_timeout() {
    let mut a = Node::member(1, &[]);
    let nobody = keys(9).key();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap(); // accepts, says nothing
    a.net.dial(nobody, vec![format!("/ip4/127.0.0.1/tcp/{}", tcp.local_addr().unwrap().port()).parse().unwrap()]);
    assert_eq!(a.dial_failed(nobody).await, DialFailure::Timeout);
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let quic = format!("/ip4/127.0.0.1/udp/{}/quic-v1", udp.local_addr().unwrap().port());
    a.net.dial(nobody, vec![quic.parse().unwrap()]);
    assert_eq!(a.dial_failed(nobody).await, DialFailure::Timeout);
}

#[tokio::test]
async fn a_taken_port_is_told_at_once() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
    let config = NetConfig {
        keys: keys(1),
        listen: vec![listen.parse().unwrap()],
        admission: Club::presenting(Vec::new()),
        agent: "test".into(),
        limits: Limits::default(),
        mdns: false,
    };
    let error = start(config, transport::real(), SPAWN).unwrap_err();
    assert!(matches!(&error, NetError::Listen { .. }) && error.to_string().contains("in use"), "{error}");
}

#[tokio::test]
async fn another_peer_at_the_address_is_named_and_shown_nothing() {
    for listen in [TCP, QUIC] {
        let (mut a, mut b) = (Node::member(1, &[listen]), Node::member(2, &[]));
        let address = a.listening().await;
        b.net.dial(keys(3).key(), vec![address]);
        assert_eq!(b.dial_failed(keys(3).key()).await, DialFailure::AnsweredBy(a.key));
        assert_eq!(b.counts.get(), (0, 0), "no stream, so no credential");
        assert!(!b.saw_protocols());
    }
}

#[tokio::test]
async fn the_network_ends_with_its_handles() {
    let (a, mut b) = pair(TCP).await;
    let key = a.key;
    let Node { net, mut events, .. } = a;
    drop(net);
    while events.recv().await.is_some() {}
    b.disconnected(key).await;
}

#[tokio::test(start_paused = true)]
async fn events_wait_for_a_slow_driver() {
    let (mut a, b) = pair(MEMORY).await;
    let mut published = 0;
    // Far more than all queues hold, while nobody takes an event of `a`.
    while published < 2_000u32 {
        b.net.publish(published.to_be_bytes().to_vec());
        published += 1;
        // The clock stands while anything can still run: this waits for all that follows from it.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(a.events.len(), a.events.max_capacity(), "the driver's channel is full");
    a.net.disconnect(b.key); // a command is taken although the events are not
    a.disconnected(b.key).await;
    let held = a.seen.iter().filter(|e| matches!(e, NetEvent::Gossip { .. })).count();
    assert!(held < 1_000, "{held} of {published} statements were waiting here instead of at their author's");
}

#[tokio::test]
async fn blobs_have_a_connection_of_their_own() {
    for listen in [TCP, QUIC] {
        let (a, b) = pair(listen).await; // `b` has dialled
        echo(&a.net, Protocol::Blobs);
        echo(&b.net, Protocol::Blobs);
        echo(&a.net, Protocol::Raft);
        assert_eq!(ask(&b.net, a.key, Protocol::Blobs, b"first").await, b"first");
        assert_eq!(b.net.connections().len(), 2, "{:?}", b.net.connections());
        assert_eq!(ask(&b.net, a.key, Protocol::Raft, b"vote").await, b"vote");
        assert_eq!(ask(&a.net, b.key, Protocol::Blobs, b"back").await, b"back");
        assert_eq!(a.net.connections().len(), 2, "one spare serves both ways");
    }
    // Who was dialled cannot dial: the first blob goes where everything goes, and the other end sees to the rest.
    let (mut a, b) = pair(TCP).await;
    echo(&b.net, Protocol::Blobs);
    assert_eq!(ask(&a.net, b.key, Protocol::Blobs, b"first").await, b"first");
    let of_b = b.key;
    a.wait("a spare", |e| matches!(e, NetEvent::Another { peer, .. } if *peer == of_b).then_some(())).await;
    assert_eq!(a.net.connections().len(), 2, "{:?}", a.net.connections());
}

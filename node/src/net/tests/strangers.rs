//! Strangers: nothing is opened to them, nothing of theirs is accepted, and both sides know why.

use super::*;
use crate::net::hello::Message;
use crate::net::muxer::{drive, first_stream};
use futures::StreamExt;
use libp2p::core::connection::ConnectedPoint;
use libp2p::swarm::SwarmEvent;
use serde_bytes::ByteBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What strangers of one node present, and what they are told.
fn impostors() -> Vec<(Vec<u8>, Reason)> {
    vec![
        (Vec::new(), Reason::NoCredential),
        (credential("elsewhere", keys(66).key()), Reason::WrongMesh),
        (credential("home", keys(1).key()), Reason::WrongSubject),
    ]
}

#[tokio::test]
async fn impostors_that_dial_are_refused() {
    for listen in [TCP, QUIC] {
        for (shown, reason) in impostors() {
            let mut host = Node::member(1, &[listen]);
            let mut stranger = Node::with(66, &[], Club::presenting(shown), Limits::default());
            let address = host.listening().await;
            stranger.net.dial(host.key, vec![address]);
            let refusal = Refusal::from(reason);
            assert_eq!(stranger.dial_failed(host.key).await, DialFailure::RefusedBy(refusal));
            assert_eq!(host.stranger().await, (Some(stranger.key), reason));
            assert_eq!(host.net.strangers(), 1);
            assert_eq!(host.counts.get(), (0, 1), "the stream of admission and no other");
            assert!(!host.saw_protocols() && !stranger.saw_protocols());
        }
    }
}

#[tokio::test]
async fn impostors_that_are_dialled_are_refused() {
    for listen in [TCP, QUIC] {
        for (shown, reason) in impostors() {
            let mut host = Node::member(1, &[]);
            let mut stranger = Node::with(66, &[listen], Club::presenting(shown), Limits::default());
            let address = stranger.listening().await;
            host.net.dial(stranger.key, vec![address]);
            assert_eq!(host.dial_failed(stranger.key).await, DialFailure::WeRefused(reason.into()));
            let told = stranger.wait("rejection", |e| match e {
                NetEvent::Rejected { peer, refusal, .. } => Some((*peer, refusal.reason)),
                _ => None,
            });
            assert_eq!(told.await, (host.key, reason));
            assert_eq!(host.counts.get(), (1, 0), "the stream of admission and no other");
            assert!(!host.saw_protocols() && !stranger.saw_protocols());
        }
    }
}

#[tokio::test]
async fn a_plain_libp2p_peer_meets_no_protocol() {
    for listen in [TCP, QUIC] {
        let mut host = Node::member(1, &[listen]);
        let mut stranger = plain(&keys(66), raw(&keys(66), &Arc::default()));
        stranger.dial(host.listening().await).unwrap();
        let told = async { while !matches!(stranger.select_next_some().await, SwarmEvent::ConnectionClosed { .. }) {} };
        let ((who, reason), ()) = futures::join!(host.stranger(), told);
        assert_eq!((who, reason), (Some(keys(66).key()), Reason::Malformed));
        assert_eq!(host.counts.get(), (0, 1));
        assert!(!host.saw_protocols());
    }
}

#[tokio::test]
async fn a_plain_libp2p_peer_that_is_dialled_meets_no_protocol() {
    let mut host = Node::member(1, &[]);
    let mut stranger = plain(&keys(66), raw(&keys(66), &Arc::default()));
    stranger.listen_on(TCP.parse().unwrap()).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = stranger.select_next_some().await {
            break address;
        }
    };
    tokio::spawn(async move { while stranger.next().await.is_some() {} });
    host.net.dial(keys(66).key(), vec![address]);
    let failure = host.dial_failed(keys(66).key()).await;
    assert!(matches!(&failure, DialFailure::Other(text) if text.contains("during admission")), "{failure}");
    assert_eq!(host.counts.get(), (1, 0));
    assert!(!host.saw_protocols());
}

/// Says Hello with a made-up credential and does not wait for the verdict.
fn cheating(transport: Boxed<(PeerId, StreamMuxerBox)>) -> Boxed<(PeerId, StreamMuxerBox)> {
    transport
        .and_then(|(peer, mut muxer), _: ConnectedPoint| async move {
            let mut stream = first_stream(&mut muxer, true).await?;
            let hello = Message::Hello(ByteBuf::from(b"let me in".to_vec())).encode();
            drive(&mut muxer, frame::write_frame(&mut stream, &hello)).await?;
            std::mem::drop(stream);
            io::Result::Ok((peer, muxer))
        })
        .boxed()
}

#[tokio::test]
async fn a_cheat_that_opens_protocols_at_once_meets_none() {
    for listen in [TCP, QUIC] {
        let mut host = Node::member(1, &[listen]);
        let (counts, mut told) = (Arc::default(), Vec::new());
        let mut cheat = plain(&keys(66), cheating(raw(&keys(66), &counts)));
        cheat.dial(host.listening().await).unwrap();
        let run = async {
            loop {
                match cheat.select_next_some().await {
                    SwarmEvent::ConnectionClosed { .. } => break,
                    SwarmEvent::Behaviour(event @ PlainEvent::Identify(libp2p::identify::Event::Received { .. })) => {
                        told.push(event);
                    }
                    _ => {}
                }
            }
        };
        let ((who, reason), ()) = futures::join!(host.stranger(), run);
        assert_eq!(who, Some(keys(66).key()));
        assert_eq!(reason, Reason::WrongMesh);
        assert!(counts.get().0 > 1, "it did try");
        assert_eq!(host.counts.get(), (0, 1));
        assert!(!host.saw_protocols() && told.is_empty());
    }
}

#[tokio::test]
async fn the_naive_host_is_caught_by_the_counter() {
    let counts = Arc::default();
    let mut host = plain(&keys(1), raw(&keys(1), &counts)); // the same transport, without admission
    let mut stranger = plain(&keys(66), raw(&keys(66), &Arc::default()));
    host.listen_on(TCP.parse().unwrap()).unwrap();
    let opened = async {
        loop {
            match host.select_next_some().await {
                SwarmEvent::NewListenAddr { address, .. } => stranger.dial(address).unwrap(),
                SwarmEvent::Behaviour(PlainEvent::Identify(_)) => break,
                _ => {}
            }
            // The stranger has to run as well.
            while let Ok(Some(_)) = timeout(Duration::from_millis(5), stranger.next()).await {}
        }
    };
    timeout(Duration::from_secs(10), opened).await.unwrap();
    let (opened, accepted) = counts.get();
    assert!(opened > 0 && accepted > 0, "{opened} opened, {accepted} accepted");
}

#[tokio::test(start_paused = true)]
async fn who_never_speaks_is_sent_away() {
    let mut host = Node::member(1, &[MEMORY]);
    let address = host.listening().await;
    // One opens no stream at all, the other opens one and stops in the middle of a length.
    let mut mute = bare(&keys(66), host.key, address.clone()).await.unwrap();
    let mut slow = bare(&keys(67), host.key, address).await.unwrap();
    let gone = async |muxer: &mut StreamMuxerBox, opens: bool| {
        let mut stream = None;
        if opens {
            let mut opened = first_stream(muxer, true).await.unwrap();
            drive(muxer, futures::AsyncWriteExt::write_all(&mut opened, &[0, 0])).await.unwrap();
            stream = Some(opened);
        }
        while poll_fn(|cx| muxer.poll_unpin(cx)).await.is_ok() {}
        drop(stream);
    };
    let both = async { futures::join!(gone(&mut mute, false), gone(&mut slow, true)) };
    timeout(Duration::from_secs(20), both).await.unwrap();
    let mut strangers = vec![host.stranger().await, host.stranger().await];
    strangers.sort();
    let mut expected = vec![(Some(keys(66).key()), Reason::Deadline), (Some(keys(67).key()), Reason::Deadline)];
    expected.sort();
    assert_eq!(strangers, expected);
    assert_eq!(host.counts.get(), (0, 1));
    assert!(!host.saw_protocols());
}

#[tokio::test]
async fn who_is_revoked_between_welcome_and_accept_stays_outside() {
    let mut host = Node::member(1, &[MEMORY]);
    let address = host.listening().await;
    let slow = keys(2);
    let mut muxer = bare(&slow, host.key, address).await.unwrap();
    let mut stream = first_stream(&mut muxer, true).await.unwrap();
    let told = drive(&mut muxer, async {
        let hello = Message::Hello(ByteBuf::from(credential("home", slow.key()))).encode();
        frame::write_frame(&mut stream, &hello).await.unwrap();
        let welcome = frame::read_frame(&mut stream, Message::MAX).await.unwrap();
        assert!(matches!(Message::decode(&welcome), Ok(Message::Welcome(_))));
        lock(&host.club.revoked).insert(slow.key());
        host.net.revoke(slow.key());
        frame::write_frame(&mut stream, &Message::Accept(()).encode()).await.unwrap();
        frame::read_frame(&mut stream, Message::MAX).await.unwrap()
    });
    let told = Message::decode(&told.await).unwrap();
    assert!(matches!(&told, Message::Refuse((reason, _)) if Reason::from(*reason) == Reason::Revoked), "{told:?}");
    drop((stream, muxer));
    assert_eq!(host.stranger().await, (Some(slow.key()), Reason::Revoked));
    assert!(!host.saw_protocols());
}

#[tokio::test]
async fn noise_on_the_line_is_a_stranger_and_hanging_up_is_none() {
    let mut host = Node::member(1, &[TCP]);
    let address = host.listening().await;
    let port = address.iter().find_map(|part| match part {
        libp2p::multiaddr::Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let to = ("127.0.0.1", port.unwrap());
    // A dialler that goes away in the middle of the handshake, as the slower of two dials does.
    let mut quitter = tokio::net::TcpStream::connect(to).await.unwrap();
    quitter.write_all(b"\x13/multistream/1.0.0\n\x07/noise\n").await.unwrap();
    quitter.read_exact(&mut [0; 28]).await.unwrap();
    drop(quitter);
    let mut browser = tokio::net::TcpStream::connect(to).await.unwrap();
    browser.write_all(&b"GET / HTTP/1.1\r\n".repeat(9)).await.unwrap();
    assert_eq!(host.stranger().await, (None, Reason::Malformed));
    let member = Node::member(2, &[]);
    member.net.dial(host.key, vec![address]);
    host.connected(member.key).await; // whatever came before it has been dealt with
    assert_eq!(host.net.strangers(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_crowd_at_the_door_is_bounded_and_passes() {
    let limits = Limits { pending_max: 4, pending_per_ip_max: 4 };
    let club = Club::presenting(credential("home", keys(1).key()));
    let mut host = Node::with(1, &[MEMORY], club, limits);
    let address = host.listening().await;
    let crowd: Vec<_> = (0..12)
        .map(|n| {
            let (key, address) = (host.key, address.clone());
            tokio::spawn(async move { bare(&keys(100 + n), key, address).await })
        })
        .collect();
    let mut inside = Vec::new();
    for dial in crowd {
        inside.extend(dial.await.unwrap());
    }
    assert_eq!(inside.len(), 4, "as many as may wait");
    assert_eq!(host.stranger().await, (None, Reason::Busy));
    assert_eq!(host.net.strangers(), 8);
    // The four never say anything: after the deadline there is room for a member.
    while host.net.strangers() < 12 {
        host.stranger().await;
    }
    let member = Node::member(2, &[]);
    member.net.dial(host.key, vec![address]);
    host.connected(member.key).await;
}

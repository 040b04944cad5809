//! Members that cannot dial each other, and a member that relays between them.

use super::members::{ask, echo, gossip_reaches};
use super::*;
use crate::net::Path;

/// A hub that relays, and two others that have dialled it.
async fn through_hub(listen: &[&str]) -> (Node, Node, Node) {
    let mut hub = Node::member(1, &[listen.first().unwrap_or(&TCP)]);
    let at = hub.listening().await;
    let (mut a, mut b) = (Node::member(2, listen), Node::member(3, listen));
    for node in [&mut a, &mut b] {
        if !listen.is_empty() {
            node.listening().await;
        }
        node.net.dial(hub.key, vec![at.clone()]);
        node.connected(hub.key).await;
        hub.connected(node.key).await;
        // From the hub it learns how it is seen, which is what it can offer for a hole.
        node.wait("identify", |e| matches!(e, NetEvent::Identified { .. }).then_some(())).await;
    }
    (hub, a, b)
}

impl Node {
    async fn reserved(&mut self, at: PeerKey) -> Result<(), String> {
        self.wait("word of a reservation", |e| match e {
            NetEvent::Reserved { relay, ended } if *relay == at => Some(ended.clone().map_or(Ok(()), Err)),
            _ => None,
        })
        .await
    }

    /// Waits for a state that no event tells of: of several connections with a peer one is gone, or another is spoken on.
    async fn until(&self, what: &str, mut holds: impl FnMut(&Net) -> bool) {
        let look = async {
            while !holds(&self.net) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(30), look)
            .await
            .unwrap_or_else(|_| panic!("{what}: {:#?}", self.net.connections()));
    }
}

#[tokio::test]
async fn all_works_over_a_relay() {
    // Nobody listens, so that no hole can be punched: what works here works over the relay.
    let (hub, mut a, mut b) = through_hub(&[]).await;
    b.net.reserve(hub.key);
    b.reserved(hub.key).await.unwrap();
    assert_eq!(b.net.reserved(), BTreeSet::from([hub.key]));
    a.net.dial_via(b.key, hub.key);
    assert_eq!(a.connected(b.key).await, (Level::Member, true));
    assert_eq!(b.connected(a.key).await, (Level::Member, false));
    assert_eq!(a.net.path(b.key), Some(Path::Relayed(Some(hub.key))));
    assert_eq!(b.net.path(a.key), Some(Path::Relayed(Some(hub.key))));
    assert_eq!(a.net.path(hub.key), Some(Path::Direct));
    for protocol in Protocol::ALL {
        echo(&b.net, protocol);
        assert_eq!(ask(&a.net, b.key, protocol, b"there?").await, b"there?");
    }
    // Many times what the library's own bounds let through in all.
    let much = vec![7; 1 << 20];
    for _ in 0..8 {
        assert_eq!(ask(&a.net, b.key, Protocol::Blobs, &much).await, much);
    }
    gossip_reaches(&a, &mut b, b"from a").await;
}

#[tokio::test]
async fn where_nobody_waits_and_who_is_not_connected_is_no_way() {
    let (hub, mut a, b) = through_hub(&[]).await;
    a.net.dial_via(b.key, hub.key);
    let failed = a.dial_failed(b.key).await;
    assert!(matches!(&failed, DialFailure::Other(text) if text.contains("reservation")), "{failed}");
    a.net.reserve(b.key);
    let refused = a.reserved(b.key).await.unwrap_err();
    assert!(refused.contains("not connected"), "{refused}");
    assert!(a.net.reserved().is_empty());
    a.net.dial_via(hub.key, b.key);
    a.until("connected with the hub as before", |net| net.path(hub.key) == Some(Path::Direct)).await;
}

#[tokio::test]
async fn a_relayed_peer_is_admitted_like_any_other() {
    let (hub, mut a, mut b) = through_hub(&[]).await;
    b.net.reserve(hub.key);
    b.reserved(hub.key).await.unwrap();
    // The hub has not heard that `a` is out; `b` has.
    lock(&b.club.revoked).insert(a.key);
    a.net.dial_via(b.key, hub.key);
    let failed = a.dial_failed(b.key).await;
    assert!(matches!(&failed, DialFailure::RefusedBy(refusal) if refusal.reason == Reason::Revoked), "{failed}");
    assert_eq!(b.stranger().await, (Some(a.key), Reason::Revoked));
    assert!(!b.net.is_connected(a.key) && b.net.is_connected(hub.key));
}

#[tokio::test]
async fn a_relay_that_goes_takes_its_circuits_and_reservations() {
    let (hub, mut a, mut b) = through_hub(&[]).await;
    b.net.reserve(hub.key);
    b.reserved(hub.key).await.unwrap();
    a.net.dial_via(b.key, hub.key);
    a.connected(b.key).await;
    b.connected(a.key).await;
    drop(hub);
    a.disconnected(b.key).await;
    b.reserved(keys(1).key()).await.unwrap_err();
    assert!(b.net.reserved().is_empty());
    a.disconnected(keys(1).key()).await;
    assert!(a.net.connections().is_empty(), "{:?}", a.net.connections());
}

#[tokio::test]
async fn a_punched_hole_sheds_the_relay() {
    for listen in [TCP, QUIC] {
        let (hub, mut a, mut b) = through_hub(&[listen]).await;
        b.net.reserve(hub.key);
        b.reserved(hub.key).await.unwrap();
        a.net.dial_via(b.key, hub.key);
        a.connected(b.key).await;
        b.connected(a.key).await;
        echo(&b.net, Protocol::Raft);
        // A log that began over the relay keeps it; all else moves.
        let mut logs = b.net.accept(Protocol::Logs).unwrap();
        let Ok(mut log) = a.net.open(b.key, Protocol::Logs).await else { panic!("no stream") };
        let began_relayed = a.net.connections().iter().filter(|c| c.peer == b.key).all(|c| c.relayed);
        let (_, mut served) = logs.recv().await.unwrap();
        a.until("a direct connection", |net| net.path(b.key) == Some(Path::Direct)).await;
        b.until("a direct connection", |net| net.path(a.key) == Some(Path::Direct)).await;
        assert_eq!(ask(&a.net, b.key, Protocol::Raft, b"vote").await, b"vote");
        if began_relayed {
            tokio::time::sleep(crate::net::paths::SETTLE + Duration::from_secs(2)).await; // nothing is to happen meanwhile
            frame::write_frame(&mut served, b"line").await.unwrap();
            assert_eq!(frame::read_frame(&mut log, 99).await.unwrap(), b"line");
        }
        drop((log, served));
        let no_circuit = |net: &Net| net.connections().iter().all(|c| !c.relayed);
        a.until("the circuit is closed", no_circuit).await;
        b.until("the circuit is closed", no_circuit).await;
        assert_eq!(a.net.path(b.key), Some(Path::Direct));
    }
}

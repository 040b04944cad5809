//! Joining: one connection, one answer, then anew as a member.

use super::*;
use crate::driver::{Known, Token, ask_all};
use mesh::roster::{Invitation, MeshId};
use mesh::wire::Signed;
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_joiner_gets_its_answer_and_comes_back_as_a_member() {
    for listen in [TCP, QUIC] {
        let mut host = Node::member(1, &[listen]);
        lock(&host.club.invitations).insert(b"token".to_vec());
        let address = host.listening().await;
        let joiner = keys(5);
        let ask = || join_once(&joiner, transport::real(), host.key, address.clone(), b"token".to_vec(), WITHIN);
        let answer = ask().await.unwrap();
        assert_eq!(answer, credential("home", joiner.key()));
        let again = ask().await.unwrap_err();
        let said = Refusal::new(Reason::InvitationUsed, "ask for another one");
        assert!(matches!(&again, JoinError::Refused { refusal, .. } if *refusal == said), "{again}");
        assert_eq!(host.stranger().await, (Some(joiner.key()), Reason::InvitationUsed));
        assert_eq!(host.counts.get().0, 0, "nothing was opened to the joiner");
        assert!(!host.saw_protocols());

        let member = Node::with(5, &[], Club::presenting(answer), Limits::default());
        member.net.dial(host.key, vec![address]);
        assert_eq!(host.connected(joiner.key()).await.0, Level::Member);
    }
}

#[tokio::test]
async fn every_lead_that_leads_nowhere_says_why() {
    let mut host = Node::member(1, &[TCP]);
    let address = host.listening().await;
    let ask = |member: PeerKey, address: Multiaddr| {
        join_once(&JOINER, transport::real(), member, address, b"token".to_vec(), WITHIN)
    };
    let wrong = ask(keys(3).key(), address.clone()).await.unwrap_err();
    assert!(matches!(&wrong, JoinError::WrongPeer { answered, .. } if *answered == host.key.to_string()), "{wrong}");
    assert_eq!(host.counts.get(), (0, 0), "nothing was shown to it");

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let closed: Multiaddr = format!("/ip4/127.0.0.1/tcp/{closed}").parse().unwrap();
    let refused = ask(host.key, closed).await.unwrap_err();
    assert!(matches!(&refused, JoinError::Unreachable { failure: DialFailure::Refused, .. }), "{refused}");

    let odd = ask(host.key, "/unix/tmp".parse().unwrap()).await.unwrap_err();
    assert!(matches!(&odd, JoinError::Unreachable { failure: DialFailure::Other(_), .. }), "{odd}");
}

/// Two members have swapped addresses since the token was made; and one that it names is gone, with a stranger in its
/// place.
#[tokio::test]
async fn who_answers_where_another_member_was_is_asked_itself() {
    let (mut one, mut two, mut other) = (Node::member(1, &[TCP]), Node::member(2, &[TCP]), Node::member(3, &[TCP]));
    let places = [one.listening().await, two.listening().await, other.listening().await];
    let known = |n: u8, at: &Multiaddr| {
        let name = format!("h{n}");
        Known { peer: keys(n).key(), name, addresses: vec![at.to_string()] }
    };
    let invitation = Signed::seal(
        &keys(1),
        &Invitation { mesh: MeshId([7; 32]), key: keys(9).key(), name: "h5".into(), signer: false, expires_ms: 9 },
    );
    let token = |leads| Token { invitation: invitation.clone(), secret: [9; 32], leads };
    let stale = token(vec![known(4, &places[2]), known(1, &places[1]), known(2, &places[0])]);
    lock(&two.club.invitations).insert(b"token".to_vec());
    let answer = ask_all(&JOINER, transport::real, &stale, &[], b"token").await.unwrap();
    assert_eq!(answer, credential("home", JOINER.key()));
    // Nobody has such an invitation any more: each is asked once where it was told to be, and once where it is.
    let failed = ask_all(&JOINER, transport::real, &stale, &[], b"token").await.unwrap_err();
    let names: Vec<&str> = failed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["h4", "h1", "h2", "h2", "h1"], "{failed:?}");
    assert_eq!(failed[0].1.answered_by(), Some(other.key));
    assert!(failed[3..].iter().all(|(_, error)| matches!(error, JoinError::Refused { .. })), "{failed:?}");
    assert_eq!(other.counts.get(), (0, 0), "nothing was shown to whom the token does not name");
}

static JOINER: std::sync::LazyLock<Keys> = std::sync::LazyLock::new(|| keys(5));

#[tokio::test(start_paused = true)]
async fn a_ledger_that_does_not_answer_is_a_reason() {
    let mut host = Node::member(1, &[MEMORY]);
    let address = host.listening().await;
    let ask = |within| {
        join_once(&JOINER, make(&JOINER, &Arc::default()), host.key, address.clone(), b"hang".to_vec(), within)
    };
    let late = ask(WITHIN).await.unwrap_err();
    assert!(matches!(&late, JoinError::Refused { refusal, .. } if refusal.reason == Reason::Deadline), "{late}");
    let short = ask(Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(&short, JoinError::Timeout { .. }), "{short}");
}

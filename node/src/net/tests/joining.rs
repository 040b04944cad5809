//! Joining: one connection, one answer, then anew as a member.

use super::*;
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

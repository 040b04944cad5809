//! Heartbeats to a host that is far away: in virtual time, over a pipe whose other end is late.

use super::super::peers::Peers;
use super::super::rpc::{Client, Network};
use super::super::rt::Scope;
use super::super::types::Vote;
use super::*;
use async_trait::async_trait;
use mesh::identity::Keys;
use mesh::time::Time;
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use openraft::{EmptyNode, RaftNetworkFactory, RaftNetworkV2};
use std::thread_local;
use tokio_util::compat::TokioAsyncReadCompatExt;

const HEARTBEAT: Duration = Duration::from_millis(50);

thread_local! { static START: tokio::time::Instant = tokio::time::Instant::now(); }

fn clock() -> Time {
    Time::from_millis(1) + START.with(tokio::time::Instant::elapsed)
}

fn key(n: u8) -> PeerKey {
    Keys::from_seed([n; 32]).key()
}

/// A host that answers everything after one round trip; a protocol is agreed on in another.
struct Far(Duration);

#[async_trait]
impl Dial for Far {
    async fn open(&self, _: PeerKey) -> io::Result<Box<dyn Duplex>> {
        let round_trip = self.0;
        tokio::time::sleep(round_trip).await;
        let (near, far) = tokio::io::duplex(64 << 10);
        tokio::spawn(async move {
            let mut far = far.compat();
            let Ok(Some(Hello { .. })) = read(&mut far, 1 << 10).await else { return };
            write(&mut far, &Hello { process: Process { start: 1, origin: 1 }, era: 0, voters: None }).await.unwrap();
            while let Ok(Some(Request::Append(_))) = read(&mut far, 1 << 20).await {
                tokio::time::sleep(round_trip).await;
                if write(&mut far, &Reply::Append(AppendEntriesResponse::Success)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Box::new(near.compat()))
    }
}

/// How many of so many heartbeats, one after the other, are answered.
async fn answered(client: &mut Client, heartbeats: usize) -> usize {
    let mut answered = 0;
    let mut beat = tokio::time::interval(HEARTBEAT);
    for _ in 0..heartbeats {
        beat.tick().await;
        let request = AppendEntriesRequest {
            vote: Vote::new_committed(1, key(1)),
            prev_log_id: None,
            entries: vec![],
            leader_commit: None,
        };
        answered += usize::from(client.append_entries(request, RPCOption::new(HEARTBEAT)).await.is_ok());
    }
    answered
}

/// Of ten heartbeats to a host so far away.
async fn at(round_trip: Duration) -> usize {
    at_one_of(round_trip, Arc::new(Peers::default()), 10).await
}

async fn at_one_of(round_trip: Duration, peers: Arc<Peers>, heartbeats: usize) -> usize {
    let scope = Scope::new(clock, |task| drop(tokio::spawn(task)), [1; 32]);
    let dial = Arc::new(Far(round_trip));
    let patience = HEARTBEAT * 10;
    let process = Process { start: 1, origin: 1 };
    let (era, vouched) = (Arc::default(), Arc::default());
    let rounds = super::super::round::Rounds::default();
    let mut network = Network { me: key(1), process, era, dial, peers, vouched, rounds, patience, watch_peers: true };
    let mut client = network.new_client(key(2), &EmptyNode {}).await;
    scope.run(answered(&mut client, heartbeats)).await
}

/// Each stream takes a round trip to open and one to answer: more than a heartbeat together, less each.
#[tokio::test(start_paused = true)]
async fn a_stream_that_takes_longer_to_open_than_a_heartbeat_lasts_comes_about() {
    for ms in [1, 5, 10, 15, 20, 25, 30, 35] {
        let count = at(Duration::from_millis(ms)).await;
        assert!(count >= 8, "{count} of 10 heartbeats are answered at a round trip of {ms} ms");
    }
    assert_eq!(at(HEARTBEAT * 2).await, 0, "a heartbeat must exceed the worst round trip");
}

/// What is answered is what was sent: a heartbeat that is not sent must not count as answered.
#[tokio::test(start_paused = true)]
async fn a_learner_is_told_the_same_once_in_thirty_seconds_and_a_voter_each_time() {
    let (round_trip, heartbeats) = (Duration::from_millis(1), 1_800); // ninety seconds
    let peers = Arc::new(Peers::default());
    assert_eq!(at_one_of(round_trip, peers.clone(), heartbeats).await, heartbeats, "a voter");
    peers.set_learners([key(2)].into());
    assert_eq!(at_one_of(round_trip, peers.clone(), heartbeats).await, 3, "a learner");
    peers.set_learners([key(3)].into());
    assert_eq!(at_one_of(round_trip, peers, heartbeats).await, heartbeats, "another is one");
}

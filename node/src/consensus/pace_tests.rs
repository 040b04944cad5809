//! How often consensus does something while nothing happens.

use super::super::quiet::tests::Log;
use super::*;

/// How often each of these hosts publishes its metrics in ten heartbeats.
async fn published(hosts: &[&Host]) -> Vec<usize> {
    let until = tokio::time::Instant::now() + Timing::default().heartbeat * 10;
    let count = async |host: &Host| {
        let (mut metrics, mut times) = (host.consensus.raft.metrics(), 0);
        while let Ok(Ok(())) = tokio::time::timeout_at(until, metrics.changed()).await {
            times += 1;
        }
        times
    };
    futures::future::join_all(hosts.iter().map(|host| count(host))).await
}

#[tokio::test(start_paused = true)]
async fn nobody_looks_at_a_clock_from_which_nothing_follows() {
    let (net, hosts) = grown(3).await;
    let learner = Host::start(4, &net).await;
    let leader = &hosts[0];
    leader.consensus.add_learner(key(4)).await.expect("added");
    eventually("caught up", || leader.consensus.caught_up().contains(&key(4))).await;
    published(&[leader]).await; // until all of that is told

    let [leads, follows, listens] = published(&[leader, &hosts[1], &learner]).await[..] else { panic!("three counts") };
    assert!((9..=25).contains(&leads), "a heartbeat, and the answers to it together, not {leads}");
    assert!(follows <= 40, "it hears a leader, so that no election can follow, not {follows}");
    assert!(listens <= 1, "nothing follows, not {listens}");
    assert!(leader.consensus.grant().is_some() && hosts[1].consensus.leader() == Some(key(1)));

    for host in [leader, &learner] {
        host.consensus.raft.runtime_config().tick(true); // as openraft is by itself
    }
    let [leads, listens] = published(&[leader, &learner]).await[..] else { panic!("two counts") };
    assert!(leads >= 60 && listens >= 45, "{leads}, {listens}");

    // Whom nobody leads any more looks again.
    for other in 1..=2 {
        net.cut(other, 3);
    }
    published(&[leader]).await;
    let [deaf] = published(&[&hosts[2]]).await[..] else { panic!("one count") };
    assert!(deaf >= 45, "{deaf}");
}

#[tokio::test(start_paused = true)]
async fn whoever_gets_or_keeps_a_vote_elects() {
    let (net, hosts) = grown(3).await;
    let learner = Host::start(4, &net).await;
    hosts[0].consensus.add_learner(key(4)).await.expect("added");
    eventually("caught up", || hosts[0].consensus.caught_up().contains(&key(4))).await;
    hosts[0].consensus.change_voters(keys(&[1, 2, 4])).await.expect("changed");
    eventually("told", || learner.consensus.voters() == keys(&[1, 2, 4])).await;
    hosts[0].crash().await;
    let either = || hosts[1].consensus.grant().is_some() || learner.consensus.grant().is_some();
    eventually("one of the two that are left leads", either).await;
    let (one, other) = match learner.consensus.grant().is_some() {
        true => (&learner, &hosts[1]),
        false => (&hosts[1], &learner),
    };
    one.consensus.change_voters(keys(&[2, 4])).await.expect("changed");
    net.cut(2, 4);
    eventually("a leader that reaches nobody stops", || one.consensus.grant().is_none()).await;
    net.heal(2, 4);
    eventually("and the two agree again", || one.consensus.grant().is_some() || other.consensus.grant().is_some())
        .await;
    assert!(hosts[2].consensus.grant().is_none(), "a learner now");
}

#[tokio::test(start_paused = true)]
async fn a_consensus_that_ends_is_asked_for_nothing() {
    let log = Log::default();
    let _guard = log.start(true);
    for ms in 1_480..=1_500 {
        // A voter asks for the first time a heartbeat after it became one.
        let (_net, hosts) = grown(3).await;
        tokio::time::sleep(Duration::from_millis(ms)).await;
        hosts[1].consensus.shutdown().await;
        // What peers ask it for is what the daemon ends before.
        assert!(!log.text().contains("with_raft_state"), "after {ms} ms: {}", log.text());
    }
}

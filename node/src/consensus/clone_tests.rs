//! Followers whose log goes back: copies of a state folder, old backups, a disk that lied.

use super::*;

const WATCHED: Naive = Naive { quarantine: true, watch_peers: true };
const NAIVE: Naive = Naive { quarantine: true, watch_peers: false };

async fn start(n: u8, net: &Net, disk: TestDisk, naive: Naive, start: u64) -> Host {
    let backend = disk.clone();
    let store: OpenStore = Box::new(move || Ok(Box::new(backend)));
    let (book, consensus) = start_as(n, net, store, naive, false, Some(start)).await;
    Host { n, net: net.clone(), disk, book, consensus }
}

impl Net {
    /// From now on whoever asks for this key gets this host; streams to the one before end.
    fn answers(&self, host: &Host) {
        self.0.lock().unwrap().hosts.insert(key(host.n), host.consensus.clone());
        for other in 1..=3 {
            self.cut(other, host.n);
            self.heal(other, host.n);
        }
    }
}

/// A leader, and a learner with its copy: the copy is what was on the learner's disk thirty entries ago.
async fn leader_and_twins(naive: Naive, twin_start: u64) -> (Net, Host, Host, Host) {
    let net = Net::default();
    let leader = start(1, &net, TestDisk::default(), naive, 1).await;
    leader.consensus.initialize_single().await.unwrap();
    leads(&leader).await;
    let learner = start(2, &net, TestDisk::default(), naive, 1).await;
    leader.consensus.add_learner(key(2)).await.unwrap();
    let first = leader.consensus.propose_many(proposals(20)).await[19].clone().unwrap();
    assert!(learner.consensus.wait_applied(first.index).await);
    let old = learner.disk.after_power_cut();
    let last = leader.consensus.propose_many(proposals(30)).await[29].clone().unwrap();
    assert!(learner.consensus.wait_applied(last.index).await);
    eventually("acknowledged", || leader.consensus.status().lag[&key(2)] == Some(0)).await;
    let twin = start(2, &net, old, naive, twin_start).await;
    net.answers(&learner);
    (net, leader, learner, twin)
}

async fn take_turns(net: &Net, leader: &Host, one: &Host, two: &Host) {
    for i in 0..40 {
        net.answers(if i % 2 == 0 { two } else { one });
        let _ = leader.consensus.propose(proposal(i)).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_outlives_two_copies_of_a_learner_that_answer_in_turn() {
    for twin_start in [1, 2] {
        let (net, leader, learner, twin) = leader_and_twins(WATCHED, twin_start).await;
        take_turns(&net, &leader, &learner, &twin).await;
        assert_eq!(leader.consensus.status().stopped, None);
        assert!(leader.consensus.grant().is_some());
        leader.consensus.propose(proposal(99)).await.expect("goes on");
        // A copy of the same start is never counted; one of a later start is, and is seen to lack what was acknowledged.
        assert_eq!(
            leader.consensus.refused().contains_key(&key(2)),
            twin_start > 1,
            "{:?}",
            leader.consensus.refused()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn without_looking_at_who_answers_the_same_turns_stop_the_leader() {
    let (net, leader, learner, twin) = leader_and_twins(NAIVE, 1).await;
    take_turns(&net, &leader, &learner, &twin).await;
    let stopped = leader.consensus.status().stopped.expect("then the turns show nothing");
    assert!(stopped.contains("panicked"), "{stopped}");
    assert_eq!(leader.consensus.ended().await, stopped, "and who waits for the end hears of it");
    assert!(matches!(leader.consensus.propose(proposal(0)).await, Err(ProposeError::Stopped(_))));
}

#[tokio::test(start_paused = true)]
async fn a_learner_that_went_back_is_sent_everything_once_it_is_added_again() {
    let (net, leader, _learner, twin) = leader_and_twins(WATCHED, 2).await;
    net.answers(&twin);
    eventually("refused", || leader.consensus.refused().contains_key(&key(2))).await;
    let done = leader.consensus.propose(proposal(50)).await.expect("goes on");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(twin.entries().len() < 50, "it is sent nothing");
    leader.consensus.remove(key(2)).await.expect("removed");
    assert!(leader.consensus.refused().is_empty());
    leader.consensus.add_learner(key(2)).await.expect("added");
    assert!(twin.consensus.wait_applied(done.index).await);
    assert_eq!(twin.entries(), leader.entries());
    assert_eq!(leader.consensus.status().stopped, None);
}

/// Three voters. The third loses its last thirty entries and comes back, at a later start.
async fn a_voter_went_back() -> (Net, Vec<Host>) {
    let (net, mut hosts) = grown(3).await;
    let old = hosts[2].disk.after_power_cut();
    let last = hosts[0].consensus.propose_many(proposals(30)).await[29].clone().unwrap();
    assert!(hosts[2].consensus.wait_applied(last.index).await);
    eventually("acknowledged", || hosts[0].consensus.status().lag[&key(3)] == Some(0)).await;
    hosts[2].crash().await;
    hosts[2] = start(3, &net, old, WATCHED, u64::MAX).await;
    net.answers(&hosts[2]);
    eventually("refused", || hosts[0].consensus.refused().contains_key(&key(3))).await;
    (net, hosts)
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_went_back_is_not_counted() {
    let (net, hosts) = a_voter_went_back().await;
    let leader = &hosts[0].consensus;
    assert!(leader.refused()[&key(3)].1, "it voted");
    leader.propose(proposal(0)).await.expect("two of three are a majority");
    assert!(leader.grant().is_some());
    net.cut(1, 2);
    let alone = leader.propose(proposal(1)).await;
    assert!(matches!(alone, Err(ProposeError::Timeout | ProposeError::Lost { .. })), "{alone:?}");
    assert_eq!(leader.grant(), None, "and its word renews no lease");
    assert!(hosts[1].consensus.refused().is_empty(), "only a leader refuses");
    assert_eq!(leader.status().stopped, None);
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_kept_all_is_counted_after_a_restart() {
    let (net, mut hosts) = grown(3).await;
    hosts[0].consensus.propose_many(proposals(30)).await;
    for _ in 0..3 {
        let third = hosts.remove(2).restart(true).await;
        hosts.push(third);
        tokio::time::sleep(Duration::from_secs(2)).await;
        hosts[0].consensus.propose(proposal(0)).await.expect("goes on");
    }
    assert!(hosts[0].consensus.refused().is_empty());
    net.cut(1, 2);
    hosts[0].consensus.propose(proposal(1)).await.expect("with the third alone");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_alive_twice_neither_acknowledges_nor_votes() {
    let (net, hosts) = grown(3).await;
    let leader = &hosts[0].consensus;
    for host in &hosts {
        host.consensus.suspend(keys(&[3]));
    }
    leader.propose(proposal(0)).await.expect("two of three are a majority");
    assert_eq!(hosts[2].entries().len(), 0, "it is sent nothing");
    // Neither the others nor it itself give or take a vote of that key.
    let vote = |n| Request::PreVote(VoteRequest::new(RaftVote::new(99, key(n)), Some(far_ahead())));
    let refused = |reply: Reply| matches!(reply, Reply::Refused(why) if why.contains("alive twice"));
    assert!(refused(ask(&hosts[1], key(3), &vote(3)).await));
    assert!(refused(ask(&hosts[2], key(2), &vote(2)).await));
    net.cut(1, 2);
    assert!(leader.propose(proposal(1)).await.is_err());
    assert_eq!(leader.grant(), None);
    net.heal(1, 2);
    for host in &hosts {
        host.consensus.suspend(keys(&[]));
    }
    eventually("whole again", || hosts.iter().any(|h| h.consensus.grant().is_some())).await;
    let leader = hosts.iter().find(|h| h.consensus.grant().is_some()).unwrap();
    let done = leader.consensus.propose(proposal(2)).await.expect("goes on");
    assert!(hosts[2].consensus.wait_applied(done.index).await);
}

/// Asks a voter for a vote in this term, as one process of the second host.
async fn votes(voter: &Host, process: Process, term: u64) -> bool {
    let vote = Request::Vote(VoteRequest::new(RaftVote::new(term, key(2)), Some(far_ahead())));
    matches!(ask_as(process, voter, key(2), &vote).await, Reply::Vote(reply) if reply.vote_granted)
}

const ONE: Process = Process { start: 1, origin: 1 };
const ANOTHER: Process = Process { start: 2, origin: 2 };

/// The last of three voters: nobody is promised anything any more.
async fn last_voter(naive: Naive) -> Host {
    let (net, hosts) = grown(3).await;
    let disk = hosts[2].crash().await;
    let voter = start(3, &net, disk, naive, u64::MAX - 1).await;
    hosts[0].crash().await;
    hosts[1].crash().await;
    promises_end().await;
    voter
}

async fn promises_end() {
    tokio::time::sleep(2 * Timing::default().quarantine()).await; // virtual
}

#[tokio::test(start_paused = true)]
async fn one_vote_is_not_given_to_two_processes_of_a_key() {
    let voter = last_voter(WATCHED).await;
    assert!(votes(&voter, ONE, 99).await);
    assert!(votes(&voter, ONE, 99).await, "an answer that got lost is given again");
    assert!(!votes(&voter, ANOTHER, 99).await);
    assert!(!votes(&voter, ANOTHER, 100).await, "the first may lead");
    promises_end().await;
    assert!(!votes(&voter, ANOTHER, 99).await, "and may still lead in its term");
    assert!(votes(&voter, ANOTHER, 100).await, "a host that started anew");
    // Which process had the vote is forgotten with a restart, the vote is not.
    let voter = start(3, &voter.net, voter.crash().await, WATCHED, u64::MAX).await;
    promises_end().await;
    assert!(!votes(&voter, ONE, 100).await);
    assert!(votes(&voter, ONE, 101).await);
}

#[tokio::test(start_paused = true)]
async fn without_asking_which_process_it_is_both_may_lead_in_one_term() {
    let voter = last_voter(NAIVE).await;
    assert!(votes(&voter, ONE, 99).await && votes(&voter, ANOTHER, 99).await);
}

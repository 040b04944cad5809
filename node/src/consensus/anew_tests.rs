//! Another log after a recovery: what it begins with, that it is there after any power cut, and that the old one's
//! voters reach nobody who keeps it.

use super::*;
use crate::consensus::anew::era_of;

const RECORD: &[u8] = b"a record";

/// What this host's log holds, as the driver would hand it over: a snapshot of [`Book`].
fn state(host: &Host) -> Vec<u8> {
    host.book.snapshot()
}

async fn restarted(host: Host) -> Host {
    host.restart(true).await
}

/// Three voters of whom the first two are away, and the third goes on.
async fn recovered() -> (Net, Vec<Host>, Host) {
    let (net, mut hosts) = grown(3).await;
    let last = hosts[0].consensus.propose_many(proposals(20)).await[19].clone().unwrap();
    assert!(hosts[2].consensus.wait_applied(last.index).await);
    for lost in [1, 2] {
        net.cut(lost, 3);
    }
    let heir = hosts.pop().expect("three");
    heir.consensus.inherit(5, RECORD.to_vec(), state(&heir)).await.expect("written");
    let heir = restarted(heir).await;
    leads(&heir).await;
    (net, hosts, heir)
}

#[tokio::test(start_paused = true)]
async fn an_heir_goes_on_alone_with_all_it_has_and_above_every_old_fence() {
    let (_net, lost, heir) = recovered().await;
    // The two others still lead the old log.
    let old = eventually_leads(&lost).await;
    let grant = heir.consensus.grant().unwrap();
    assert_eq!((grant.fence.epoch, heir.consensus.epoch()), (5, 5));
    assert!(grant.fence > old && grant.fence.term > 1);
    assert_eq!(heir.consensus.voters(), keys(&[3]));
    assert_eq!(heir.entries(), proposals(20));
    let before = heir.consensus.position().unwrap();
    let done = heir.consensus.propose(proposal(20)).await.expect("alone");
    assert!(done.index > 20, "indexes go on");
    let after = heir.consensus.position().unwrap();
    assert!(after.is_ahead_of(&before) && !before.is_ahead_of(&after) && !after.is_ahead_of(&after));
    let heir = restarted(heir).await;
    leads(&heir).await;
    assert_eq!((heir.entries(), heir.consensus.record().as_deref()), (proposals(21), Some(RECORD)));
}

async fn eventually_leads(hosts: &[Host]) -> mesh::lease::Fence {
    eventually("one of them leads", || hosts.iter().any(|h| h.consensus.grant().is_some())).await;
    hosts.iter().find_map(|h| h.consensus.grant()).expect("just seen").fence
}

#[tokio::test(start_paused = true)]
async fn voters_of_the_old_log_neither_disturb_nor_learn_before_they_follow() {
    let (net, lost, heir) = recovered().await;
    net.heal(1, 3);
    net.heal(2, 3);
    let old = eventually_leads(&lost).await;
    let leader = lost.iter().find(|h| h.consensus.grant().is_some()).expect("just seen");
    leader.consensus.propose(proposal(99)).await.expect("a majority of the old log");
    // The heir counts the others in already, and gets nowhere: they keep another log.
    heir.consensus.add_learner(key(1)).await.expect("alone it decides");
    tokio::time::sleep(Duration::from_secs(30)).await; // virtual
    assert!(heir.consensus.grant().is_some(), "undisturbed");
    assert_eq!(heir.consensus.term(), heir.consensus.grant().unwrap().fence.term);
    assert!(!heir.entries().contains(&proposal(99)) && !heir.consensus.caught_up().contains(&key(1)));
    assert!(heir.consensus.grant().unwrap().fence > old);

    // Told of it, they leave their log, and what it had beyond the heir's with it.
    for host in lost {
        let ground = state(&host);
        assert!(!host.consensus.follow(5, RECORD.to_vec(), ground).await.expect("written"), "it has to start again");
        let host = restarted(host).await;
        assert_eq!(host.consensus.epoch(), 5);
        assert!(host.entries().contains(&proposal(99)), "until the heir's state arrives, what it knew");
        if host.n != 1 {
            heir.consensus.add_learner(key(host.n)).await.expect("added");
        }
        eventually("caught up", || heir.consensus.caught_up().contains(&key(host.n))).await;
        eventually("the same", || host.entries() == heir.entries()).await;
    }
    heir.consensus.change_voters(keys(&[1, 2, 3])).await.expect("three again");
}

#[tokio::test(start_paused = true)]
async fn the_change_is_whole_after_a_power_cut_or_not_there() {
    let (_net, mut hosts) = grown(3).await;
    let last = hosts[0].consensus.propose_many(proposals(5)).await[4].clone().unwrap();
    assert!(hosts[2].consensus.wait_applied(last.index).await);
    let heir = hosts.pop().expect("three");
    // A disk that fails: nothing has changed.
    heir.disk.fail();
    assert!(heir.consensus.inherit(5, RECORD.to_vec(), state(&heir)).await.is_err());
    let heir = restarted(heir).await;
    assert_eq!((heir.consensus.epoch(), heir.consensus.record()), (4, None));
    eventually("applied", || heir.entries() == proposals(5)).await;
    assert_eq!(heir.consensus.voters(), keys(&[1, 2, 3]));
    // One that loses its power as soon as it was said to be written.
    heir.consensus.inherit(5, RECORD.to_vec(), state(&heir)).await.expect("written");
    let torn = heir.disk.after_torn_write();
    let heir = Host::start_with(3, &heir.net.clone(), torn, true).await;
    leads(&heir).await;
    assert_eq!((heir.consensus.epoch(), heir.entries()), (5, proposals(5)));
}

#[tokio::test(start_paused = true)]
async fn a_host_without_a_log_only_says_which_it_will_be() {
    let (net, _lost, heir) = recovered().await;
    let new = Host::start(4, &net).await;
    heir.consensus.add_learner(key(4)).await.expect("added");
    tokio::time::sleep(Duration::from_secs(10)).await; // virtual
    assert!(new.entries().is_empty(), "of another log it takes nothing");
    assert!(new.consensus.follow(5, RECORD.to_vec(), vec![]).await.expect("written"));
    eventually("fed", || new.entries() == proposals(20)).await;
    let new = restarted(new).await;
    assert_eq!((new.consensus.epoch(), new.consensus.record().as_deref()), (5, Some(RECORD)));
    eventually("fed again", || new.entries() == proposals(20)).await;
}

/// The same epoch, another record: two halves of one mesh that were recovered apart.
#[tokio::test(start_paused = true)]
async fn two_recoveries_of_one_epoch_keep_apart() {
    let (net, mut lost, heir) = recovered().await;
    let other = lost.remove(0);
    other.consensus.inherit(5, b"another record".to_vec(), state(&other)).await.expect("written");
    let other = restarted(other).await;
    leads(&other).await;
    net.heal(1, 3);
    heir.consensus.add_learner(key(1)).await.expect("alone it decides");
    other.consensus.add_learner(key(3)).await.expect("alone it decides");
    tokio::time::sleep(Duration::from_secs(30)).await; // virtual
    assert!(heir.consensus.grant().is_some() && other.consensus.grant().is_some());
    assert!(!heir.consensus.caught_up().contains(&key(1)) && !other.consensus.caught_up().contains(&key(3)));
    assert_ne!(era_of(RECORD), era_of(b"another record"));
    let [one, two] = [&heir, &other].map(|host| host.consensus.position().unwrap());
    assert!(one.contends_with(&two) && !one.is_ahead_of(&two) && !two.is_ahead_of(&one));
}

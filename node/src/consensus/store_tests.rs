use super::super::boottime;
use super::super::test_disk::TestDisk;
use super::super::types::Payload;
use super::*;
use mesh::identity::PeerKey;
use openraft::entry::RaftEntry;
use openraft::type_config::alias::CommittedLeaderIdOf;
use openraft::{EntryPayload, Vote as RaftVote};
use openraft_rt::Oneshot;
use openraft_rt_tokio::TokioOneshot;

fn open(disk: &TestDisk) -> (Store, Found) {
    let scope = Scope::new(boottime, |f| drop(tokio::spawn(f)), [1; 32]);
    let (disk, found) = Disk::open(Box::new(disk.clone())).expect("opens");
    (Store::start(disk, &found, &scope, Blocking::Inline), found)
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderIdOf::<TypeConfig>::new(term), index)
}

fn entry(term: u64, index: u64) -> Entry {
    Entry::new(id(term, index), EntryPayload::Normal(Payload(format!("{term}.{index}").into_bytes())))
}

async fn append(store: &mut Store, entries: Vec<Entry>) -> io::Result<()> {
    let (tx, rx) = TokioOneshot::channel();
    store.append(entries, IOFlushed::signal(tx)).await?;
    rx.await.expect("answered")
}

async fn all(store: &mut Store) -> Vec<Entry> {
    store.try_get_log_entries(..).await.expect("reads")
}

#[tokio::test]
async fn what_was_answered_survives_a_power_cut_and_a_torn_write() {
    let disk = TestDisk::default();
    let (mut store, _) = open(&disk);
    let vote = RaftVote::new_committed(3, PeerKey::from_bytes([3; 32]));
    store.save_vote(&vote).await.unwrap();
    append(&mut store, (0..50).map(|i| entry(1, i)).collect()).await.unwrap();
    store.truncate_after(Some(id(1, 39))).await.unwrap();
    store.save_committed(Some(id(1, 30))).await.unwrap();
    append(&mut store, (40..45).map(|i| entry(2, i)).collect()).await.unwrap();
    store.purge(id(1, 9)).await.unwrap();
    store
        .save_snapshot(SnapshotMeta { last_log_id: Some(id(1, 9)), ..SnapshotMeta::default() }, Arc::new(vec![7; 9]))
        .await
        .unwrap();
    let expected: Vec<Entry> = (10..40).map(|i| entry(1, i)).chain((40..45).map(|i| entry(2, i))).collect();
    assert_eq!(all(&mut store).await, expected);

    for disk in [disk.after_power_cut(), disk.after_torn_write()] {
        let (mut store, found) = open(&disk);
        assert_eq!(all(&mut store).await, expected);
        assert_eq!(store.read_vote().await.unwrap(), Some(vote));
        assert_eq!(store.read_committed().await.unwrap(), Some(id(1, 30)));
        let state = store.get_log_state().await.unwrap();
        assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(1, 9)), Some(id(2, 44))));
        assert_eq!(found.snapshot.map(|(meta, bytes)| (meta.last_log_id, bytes)), Some((Some(id(1, 9)), vec![7; 9])));
    }
}

#[tokio::test]
async fn what_waits_together_is_synced_together_and_answered_in_order() {
    let disk = TestDisk::default();
    let (mut store, _) = open(&disk);
    append(&mut store, vec![entry(1, 0)]).await.unwrap();
    let one = disk.syncs();
    append(&mut store, vec![entry(1, 1)]).await.unwrap();
    let each = disk.syncs() - one;
    let mut answers = Vec::new();
    for index in 2..102 {
        let (tx, rx) = TokioOneshot::channel();
        store.append(vec![entry(1, index)], IOFlushed::signal(tx)).await.unwrap(); // the writer had no turn yet
        answers.push(rx);
        assert_eq!(all(&mut store).await.len() as u64, index + 1, "readable before it is synced");
    }
    let before = disk.syncs();
    for answer in answers {
        answer.await.expect("answered").expect("written");
    }
    assert!(disk.syncs() - before <= each, "one batch");
}

#[tokio::test]
async fn a_failed_sync_is_told_to_everybody_and_nothing_is_written_after_it() {
    let disk = TestDisk::default();
    let (mut store, _) = open(&disk);
    append(&mut store, vec![entry(1, 0)]).await.unwrap();
    disk.fail();
    let (tx, first) = TokioOneshot::channel();
    store.append(vec![entry(1, 1)], IOFlushed::signal(tx)).await.unwrap();
    let (tx, second) = TokioOneshot::channel();
    store.append(vec![entry(1, 2)], IOFlushed::signal(tx)).await.unwrap();
    assert!(first.await.expect("answered").unwrap_err().to_string().contains("on fire"));
    assert!(second.await.expect("answered").is_err());
    let vote = RaftVote::new(9, PeerKey::from_bytes([3; 32]));
    assert!(store.save_vote(&vote).await.is_err());
    assert_eq!(store.read_vote().await.unwrap(), None, "a vote that is not on disk was never given");
    let (mut store, _) = open(&disk.after_power_cut());
    assert_eq!(all(&mut store).await, vec![entry(1, 0)]);
}

#[tokio::test]
async fn older_entries_come_from_the_disk_in_bites() {
    let disk = TestDisk::default();
    let (mut store, _) = open(&disk);
    let large = |index| Entry::new(id(1, index), EntryPayload::Normal(Payload(vec![index as u8; 200 << 10])));
    append(&mut store, (0..100).map(large).collect()).await.unwrap();
    assert!(store.memory().recent_bytes <= RECENT_BYTES && store.memory().recent.len() < 100);
    for start in [0, 90] {
        let some = store.limited_get_log_entries(start, 100).await.unwrap();
        assert_eq!(some.iter().map(|e| e.log_id.index).collect::<Vec<_>>(), [start, start + 1], "at most half a MiB");
    }
    let mut stream = store.entries_stream(3..100).await;
    let mut next = 3;
    while let Some(entry) = futures::TryStreamExt::try_next(&mut stream).await.unwrap() {
        assert_eq!(entry, large(next));
        next += 1;
    }
    assert_eq!(next, 100);
}

#[tokio::test]
async fn the_commit_mark_never_runs_ahead_of_the_log_on_disk() {
    let disk = TestDisk::default();
    let (mut store, _) = open(&disk);
    append(&mut store, vec![entry(1, 0)]).await.unwrap();
    store.save_committed(Some(id(1, 5))).await.unwrap(); // the leader says so; the entries are still on their way
    append(&mut store, vec![entry(1, 1)]).await.unwrap();
    let (mut reopened, _) = open(&disk.after_power_cut());
    assert_eq!(reopened.read_committed().await.unwrap(), None);
    append(&mut store, (2..6).map(|i| entry(1, i)).collect()).await.unwrap();
    let (mut reopened, _) = open(&disk.after_power_cut());
    assert_eq!(reopened.read_committed().await.unwrap(), Some(id(1, 5)));
}

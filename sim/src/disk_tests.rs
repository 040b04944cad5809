use super::*;
use redb::{Database, ReadableDatabase, TableDefinition};

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("t");

fn disk() -> Disk {
    Disk::new("h", Trace::new(None))
}

fn open(disk: &Disk) -> Result<Database, redb::DatabaseError> {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(1 << 20);
    builder.create_with_backend(disk.open())
}

fn put(database: &Database, key: u64) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    write.open_table(TABLE)?.insert(key, [key as u8; 3_000].as_slice())?;
    write.commit()?;
    Ok(())
}

/// The keys that are there, each with the value it was given.
fn keys(database: &Database) -> Vec<u64> {
    let read = database.begin_read().unwrap();
    let Ok(table) = read.open_table(TABLE) else { return vec![] };
    let all = redb::ReadableTable::iter(&table).unwrap().map(|pair| {
        let (key, value) = pair.unwrap();
        assert_eq!(value.value(), [key.value() as u8; 3_000]);
        key.value()
    });
    all.collect()
}

#[test]
fn a_crash_between_commits_loses_nothing_committed() {
    for loss in [Loss::Nothing, Loss::Unsynced, Loss::Some(1)] {
        let disk = disk();
        let database = open(&disk).unwrap();
        for key in 0..20 {
            put(&database, key).unwrap();
        }
        disk.crash(loss);
        assert!(put(&database, 20).is_err(), "the handle of a crashed host is dead");
        drop(database); // as its host's tasks are: this must not write anything either
        assert_eq!(keys(&open(&disk).unwrap()), (0..20).collect::<Vec<_>>(), "{loss:?}");
    }
}

#[test]
fn a_power_cut_in_the_midst_of_a_commit_leaves_all_of_it_or_nothing() {
    let mut cut_short = 0;
    for changes in 0..60 {
        for seed in 0..3 {
            let disk = disk();
            let database = open(&disk).unwrap();
            (0..5).for_each(|key| put(&database, key).unwrap());
            disk.fail_after(changes);
            let acknowledged = (5..10).take_while(|key| put(&database, *key).is_ok()).count() as u64;
            cut_short += u64::from(acknowledged < 5);
            disk.crash(Loss::Some(seed));
            drop(database);
            let found = keys(&open(&disk).unwrap());
            let expected = (0..5 + acknowledged).collect::<Vec<_>>();
            // The commit that was cut short may have made it; no other may, and none may be missing.
            assert!(found.starts_with(&expected) && found.len() <= expected.len() + 1, "{changes} {seed}: {found:?}");
        }
    }
    assert!(cut_short > 30, "the power went in the midst of {cut_short} commits only");
}

/// A store that forgets to sync: what a naive backend would do, and what the disk above must catch.
#[derive(Debug)]
struct NeverSynced(Handle);

impl StorageBackend for NeverSynced {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

#[test]
fn who_does_not_sync_loses_what_was_acknowledged() {
    let disk = disk();
    let database = redb::Builder::new().create_with_backend(NeverSynced(disk.open())).unwrap();
    put(&database, 0).unwrap();
    disk.crash(Loss::Unsynced);
    drop(database);
    assert!(disk.is_empty());
    assert_eq!(keys(&open(&disk).unwrap()), Vec::<u64>::new());
}

#[test]
fn commits_are_in_the_trace() {
    let of = |count: u64| {
        let trace = Trace::new(None);
        let database = open(&Disk::new("h", trace.clone())).unwrap();
        (0..count).for_each(|key| put(&database, key).unwrap());
        trace.summary()
    };
    let (two, three) = (of(2), of(3));
    assert_eq!(two, of(2));
    assert!(two.commits < three.commits && two.hash != three.hash);
}

//! What a host keeps for its node when the node, or the machine under it, goes down.
#![allow(clippy::unwrap_used)] // helpers of tests, which clippy does not exempt

use async_trait::async_trait;
use mesh::build::BlobId;
use node::seams::{BlobRead, BlobStore, BlobWrite, Seams};
use redb::{Database, ReadableDatabase, StorageBackend, TableDefinition};
use sim::det::{self, Options};
use sim::host::Host;
use sim::machine::{Markers, SimMachine};
use sim::network::Network;
use sim::trace::Trace;
use sim::transport::Place;
use sim::world::{Settings, World};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const COUNT: TableDefinition<'_, (), u64> = TableDefinition::new("count");
const SECOND: Duration = Duration::from_secs(1);

/// The node under test keeps no blobs.
struct NoBlobs;

#[async_trait]
impl BlobStore for NoBlobs {
    async fn has(&self, _: BlobId) -> bool {
        false
    }
    async fn open(&self, _: BlobId, _: u64) -> io::Result<(u64, Box<dyn BlobRead>)> {
        Err(io::ErrorKind::NotFound.into())
    }
    async fn create(&self, _: Option<BlobId>) -> io::Result<Box<dyn BlobWrite>> {
        Err(io::ErrorKind::StorageFull.into())
    }
    async fn remove(&self, _: BlobId) -> io::Result<()> {
        Ok(())
    }
    async fn verify(&self, _: BlobId) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
    async fn free_bytes(&self) -> u64 {
        0
    }
}

/// redb takes no boxed backend as it is.
#[derive(Debug)]
struct Store(Box<dyn StorageBackend>);

impl StorageBackend for Store {
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
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

/// What a start of the node found, and the last count that it had acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Start {
    seed: [u8; 32],
    boot_id: [u8; 16],
    found: u64,
    acknowledged: u64,
}

/// Counts in its database, ten times a second.
async fn counter(seams: Seams, starts: Rc<RefCell<Vec<Start>>>) -> turmoil::Result {
    let database = Arc::new(Database::builder().set_cache_size(1 << 20).create_with_backend(Store((seams.store)()?))?);
    let read = database.begin_read()?;
    let mut count = match read.open_table(COUNT) {
        Ok(table) => table.get(())?.map_or(0, |value| value.value()),
        Err(_) => 0,
    };
    let boot_id = seams.machine.facts().boot_id;
    starts.borrow_mut().push(Start { seed: seams.seed, boot_id, found: count, acknowledged: count });
    loop {
        count += 1;
        let of_commit = database.clone();
        seams.blocking.run(move || commit(&of_commit, count)).await?;
        starts.borrow_mut().last_mut().unwrap().acknowledged = count;
        tokio::time::sleep(SECOND / 10).await; // virtual: its pace
    }
}

fn commit(database: &Database, count: u64) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    write.open_table(COUNT)?.insert((), count)?;
    Ok(write.commit()?)
}

#[test]
fn committed_data_outlives_crashes_and_power_cuts() {
    let run = |seed| {
        det::run(seed, Options::default(), || {
            let trace = Trace::new(None);
            let mut world = World::new(Settings::lan(seed), trace.clone());
            let network = Network::flat(trace.clone());
            let addresses = [("lan".to_owned(), "10.0.0.1".parse().unwrap())];
            let place = Place::new("a", addresses.into(), &network, &trace);
            let machine = SimMachine::new("a", 4, seed, Markers::default());
            let host = Host::new(place, machine, Arc::new(NoBlobs), seed);
            let starts = Rc::new(RefCell::new(vec![]));
            let of_node = starts.clone();
            host.install(&mut world, move |seams| counter(seams, of_node.clone()));
            world.run_for(2 * SECOND).unwrap();
            host.crash(&mut world);
            world.run_for(SECOND).unwrap();
            host.restart(&mut world);
            world.run_for(2 * SECOND).unwrap();
            host.power_cut(&mut world);
            world.run_for(SECOND).unwrap();
            host.power_on(&mut world);
            world.run_for(2 * SECOND).unwrap();
            assert_eq!(host.starts(), 3);
            (trace.summary(), starts.take())
        })
    };
    let (summary, starts) = run(1);
    let [first, second, third] = &starts[..] else { panic!("{starts:?}") };
    assert!(first.acknowledged >= 15 && third.acknowledged >= second.acknowledged + 15, "{starts:?}");
    assert_eq!((second.found, third.found), (first.acknowledged, second.acknowledged));
    assert_eq!(first.boot_id, second.boot_id, "a crash of the node is no reboot");
    assert_ne!(second.boot_id, third.boot_id, "a power cut is");
    assert!(first.seed != second.seed && second.seed != third.seed);
    assert!(summary.commits > 45, "{summary:?}");
    assert_eq!(run(1), (summary.clone(), starts.clone()));
    assert_ne!(run(2).1[0].seed, first.seed, "each simulation has its own");
}

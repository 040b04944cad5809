//! A disk for tests: forgets what was not synced, and fails on demand.

use redb::StorageBackend;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

#[derive(Debug, Default)]
struct Platter {
    written: Mutex<Vec<u8>>,
    synced: Mutex<Vec<u8>>,
    failing: AtomicBool,
    syncs: AtomicU64,
}

/// Clones share the same bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct TestDisk(Arc<Platter>);

impl TestDisk {
    /// The machine loses its power: a disk with what was synced, apart from the one still in use.
    pub(super) fn after_power_cut(&self) -> TestDisk {
        let bytes = self.0.synced.lock().unwrap().clone();
        TestDisk(Arc::new(Platter {
            written: Mutex::new(bytes.clone()),
            synced: Mutex::new(bytes),
            ..Platter::default()
        }))
    }
    /// As [`TestDisk::after_power_cut`], but every second page of what was not synced arrived all the same.
    pub(super) fn after_torn_write(&self) -> TestDisk {
        const PAGE: usize = 4_096;
        let mut bytes = self.0.synced.lock().unwrap().clone();
        let written = self.0.written.lock().unwrap();
        bytes.resize(written.len().max(bytes.len()), 0);
        for (i, page) in written.chunks(PAGE).enumerate().skip(1).step_by(2) {
            bytes[i * PAGE..i * PAGE + page.len()].copy_from_slice(page);
        }
        TestDisk(Arc::new(Platter {
            written: Mutex::new(bytes.clone()),
            synced: Mutex::new(bytes),
            ..Platter::default()
        }))
    }
    /// From now on no sync succeeds.
    pub(super) fn fail(&self) {
        self.0.failing.store(true, SeqCst);
    }
    pub(super) fn syncs(&self) -> u64 {
        self.0.syncs.load(SeqCst)
    }
}

impl StorageBackend for TestDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.written.lock().unwrap().len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.written.lock().unwrap();
        let at = offset as usize;
        out.copy_from_slice(bytes.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.written.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        if self.0.failing.load(SeqCst) {
            return Err(io::Error::other("the disk is on fire"));
        }
        self.0.syncs.fetch_add(1, SeqCst);
        let written = self.0.written.lock().unwrap();
        self.0.synced.lock().unwrap().clone_from(&written);
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = offset as usize;
        self.0.written.lock().unwrap()[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
}

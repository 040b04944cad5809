//! A blob store in memory, for the simulator and for tests. It keeps the promises of
//! [`crate::blobs::folder`] except that of surviving the process, and can be told to rot.

use super::{CHUNK_BYTES_MAX, corrupt, not_found};
use crate::seams::{BlobRead, BlobStore, BlobWrite};
use async_trait::async_trait;
use bytes::Bytes;
use mesh::build::BlobId;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Blobs = BTreeMap<BlobId, Bytes>;

/// A store that holds at most a given number of bytes.
#[derive(Clone)]
pub struct MemoryBlobs {
    blobs: Arc<Mutex<Blobs>>,
    capacity_bytes: u64,
}

impl MemoryBlobs {
    /// An empty store.
    pub fn new(capacity_bytes: u64) -> Self {
        MemoryBlobs { blobs: Arc::default(), capacity_bytes }
    }

    fn lock(&self) -> MutexGuard<'_, Blobs> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Flips the first bit of a blob, or makes an empty one a byte long: a fault for tests.
    pub fn rot(&self, id: BlobId) {
        if let Some(bytes) = self.lock().get_mut(&id) {
            let mut rotten = bytes.to_vec();
            match rotten.first_mut() {
                Some(byte) => *byte ^= 1,
                None => rotten.push(0),
            }
            *bytes = rotten.into();
        }
    }

    /// All blobs, sorted.
    pub fn ids(&self) -> Vec<BlobId> {
        self.lock().keys().copied().collect()
    }

    /// Whether a blob is here, intact.
    pub fn holds(&self, id: BlobId) -> bool {
        self.lock().get(&id).is_some_and(|bytes| BlobId::of(bytes) == id)
    }

    /// A store of its own with the same blobs: a copied disk.
    pub fn copy(&self) -> Self {
        MemoryBlobs { blobs: Arc::new(Mutex::new(self.lock().clone())), capacity_bytes: self.capacity_bytes }
    }

    /// Puts the blobs of another store in the place of all of this one's.
    pub fn replace(&self, other: &Self) {
        let theirs = other.lock().clone();
        *self.lock() = theirs;
    }

    fn used(&self) -> u64 {
        self.lock().values().map(|b| b.len() as u64).sum()
    }
}

#[async_trait]
impl BlobStore for MemoryBlobs {
    async fn has(&self, id: BlobId) -> bool {
        self.lock().contains_key(&id)
    }

    async fn open(&self, id: BlobId, offset: u64) -> io::Result<(u64, Box<dyn BlobRead>)> {
        let bytes = self.lock().get(&id).cloned().ok_or_else(|| not_found(id))?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        Ok((bytes.len() as u64, Box::new(Reader(bytes.slice(from..)))))
    }

    async fn create(&self, expect: Option<BlobId>) -> io::Result<Box<dyn BlobWrite>> {
        Ok(Box::new(Writer { store: self.clone(), expect, bytes: Vec::new() }))
    }

    async fn remove(&self, id: BlobId) -> io::Result<()> {
        self.lock().remove(&id);
        Ok(())
    }

    async fn verify(&self, id: BlobId) -> io::Result<()> {
        let mut blobs = self.lock();
        let bytes = blobs.get(&id).ok_or_else(|| not_found(id))?;
        if BlobId::of(bytes) != id {
            blobs.remove(&id);
            return Err(corrupt(id));
        }
        Ok(())
    }

    async fn free_bytes(&self) -> u64 {
        self.capacity_bytes.saturating_sub(self.used())
    }
}

struct Reader(Bytes);

#[async_trait]
impl BlobRead for Reader {
    async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        let n = self.0.len().min(CHUNK_BYTES_MAX);
        Ok((n > 0).then(|| self.0.split_to(n)))
    }
}

struct Writer {
    store: MemoryBlobs,
    expect: Option<BlobId>,
    bytes: Vec<u8>,
}

#[async_trait]
impl BlobWrite for Writer {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let free = self.store.capacity_bytes.saturating_sub(self.store.used());
        if (self.bytes.len() + bytes.len()) as u64 > free {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the blob store is full"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> io::Result<BlobId> {
        let id = BlobId::of(&self.bytes);
        if self.expect.is_some_and(|expected| expected != id) {
            return Err(corrupt(self.expect.unwrap_or(id)));
        }
        self.store.lock().insert(id, self.bytes.into());
        Ok(id)
    }
}

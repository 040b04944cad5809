//! Blobs: bytes named by their BLAKE3, kept and moved.
//!
//! A blob is in a store only when it has been verified and synced; a transfer believes nothing that a
//! peer sends until it has hashed it. Who should hold which blob is never decided here, but in
//! [`mesh::placement`]; builds read and write blobs in [`crate::builds`].

pub mod folder;
pub mod memory;
pub mod transfer;

/// Most bytes of one chunk, read or sent: large enough for a disk, small enough for a queue.
pub const CHUNK_BYTES_MAX: usize = 256 << 10;

use crate::seams::BlobStore;
use mesh::build::BlobId;
use std::io;

/// Stores bytes as one blob.
///
/// # Errors
/// When the store fails; nothing is kept then.
pub async fn put(store: &dyn BlobStore, bytes: &[u8]) -> io::Result<BlobId> {
    let mut writer = store.create(Some(BlobId::of(bytes))).await?;
    writer.write(bytes).await?;
    writer.finish().await
}

/// Reads a whole blob of at most `max` bytes and compares it with its name.
///
/// # Errors
/// `NotFound`, or `InvalidData` when it is larger or corrupt.
pub async fn get(store: &dyn BlobStore, id: BlobId, max: u64) -> io::Result<Vec<u8>> {
    let (bytes, mut reader) = store.open(id, 0).await?;
    if bytes > max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("blob {id} has {bytes} bytes, more than the {max} allowed"),
        ));
    }
    let mut all = Vec::with_capacity(bytes as usize);
    while let Some(chunk) = reader.chunk().await? {
        all.extend_from_slice(&chunk);
    }
    if BlobId::of(&all) != id {
        return Err(corrupt(id));
    }
    Ok(all)
}

pub(crate) fn corrupt(id: BlobId) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("blob {id} is corrupted: its bytes do not have that hash"))
}

pub(crate) fn not_found(id: BlobId) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("blob {id} is not in the store"))
}

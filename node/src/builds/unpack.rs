//! Unpacking a tar archive that a stranger may have made.
//!
//! Files, folders and links only; bounded in bytes and entries; no set-user-id bits, no owners, no
//! devices, nothing outside the folder (see [`super::inside`]). Modes and times of files are kept.

use super::inside::{Inside, refuse};
use crate::blobs::corrupt;
use crate::seams::{BlobStore, Blocking};
use bytes::Bytes;
use mesh::build::BlobId;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use tar::EntryType;
use tokio::sync::mpsc;

/// Bounds of an archive, unpacked.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all files.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: usize,
}

/// Unpacks an archive below `below`, relative to the folder. Blocks.
///
/// # Errors
/// `InvalidData` that names the entry which is hostile or beyond a bound. What came before it stays.
pub fn unpack(archive: impl Read, into: &Inside, below: &Path, limits: Limits) -> io::Result<()> {
    let mut archive = tar::Archive::new(archive);
    let (mut bytes, mut entries) = (0u64, 0usize);
    into.make_folder(below, 0o755)?;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let path = below.join(super::inside::parts(&name)?.iter().collect::<PathBuf>());
        let (kind, mode) = (entry.header().entry_type(), entry.header().mode()?);
        entries += 1;
        bytes = bytes.saturating_add(entry.size());
        if entries > limits.entries || bytes > limits.bytes {
            return Err(refuse(&name, &format!("is beyond {} entries or {} bytes", limits.entries, limits.bytes)));
        }
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let mut file = into.make_file(&path, mode)?;
                io::copy(&mut entry, &mut file)?;
                file.set_modified(UNIX_EPOCH + Duration::from_secs(entry.header().mtime()?))?;
            }
            EntryType::Directory => into.make_folder(&path, mode)?,
            EntryType::Symlink => {
                let target = entry.link_name()?.ok_or_else(|| refuse(&name, "is a link to nowhere"))?;
                into.make_link(&path, &target)?;
            }
            EntryType::Link => {
                let first = entry.link_name()?.ok_or_else(|| refuse(&name, "is a link to nowhere"))?;
                let first = below.join(super::inside::parts(&first)?.iter().collect::<PathBuf>());
                into.make_hard_link(&path, &first)?;
            }
            EntryType::XGlobalHeader => {}
            _ => return Err(refuse(&name, "is a device or of an unknown kind; archives here have files and links")),
        }
    }
    Ok(())
}

/// Gives a blob to a blocking reader, chunk by chunk, and checks its hash on the way.
///
/// # Errors
/// What `work` gave, or `InvalidData` when the blob is corrupt: undo `work` then.
pub async fn read_blob<T: Send + 'static>(
    store: &dyn BlobStore,
    id: BlobId,
    work: impl FnOnce(&mut Chunks) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (_, mut reader) = store.open(id, 0).await?;
    let (send, receive) = mpsc::channel(4);
    let worker = Blocking::Pool.run(move || {
        let mut chunks = Chunks { receive, rest: Bytes::new() };
        let done = work(&mut chunks)?;
        io::copy(&mut chunks, &mut io::sink())?; // a tar ends before its padding does; the hash covers both
        Ok(done)
    });
    let pump = async move {
        let mut hasher = blake3::Hasher::new();
        while let Some(chunk) = reader.chunk().await? {
            hasher.update(&chunk);
            send.send(chunk).await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        if *hasher.finalize().as_bytes() == id.0 { Ok(()) } else { Err(corrupt(id)) }
    };
    let (done, pumped): (io::Result<T>, io::Result<()>) = tokio::join!(worker, pump);
    match pumped {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => done,
    }
}

/// The reading end: what an async task sends, as [`Read`].
pub struct Chunks {
    receive: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            self.rest = self.receive.blocking_recv().unwrap_or_default();
        }
        let n = buffer.len().min(self.rest.len());
        buffer[..n].copy_from_slice(&self.rest.split_to(n));
        Ok(n)
    }
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;

//! The blob store on a disk: `ab/cdef…` by hash, two digits of fan-out.
//!
//! A blob appears under its name only when its bytes are hashed and synced, by one rename; a crash
//! leaves at most a temporary file, which the next start removes. A blob that rots is moved to
//! `corrupt/` for a person to look at, never served again. Small blobs live in memory until they are
//! finished, so that each costs one trip to the blocking pool, and one that is here already costs no
//! write at all. Who asks for blobs: [`super::transfer`] and [`crate::builds`].

use super::{CHUNK_BYTES_MAX, corrupt, not_found};
use crate::seams::{BlobRead, BlobStore, BlobWrite, Blocking};
use async_trait::async_trait;
use bytes::Bytes;
use mesh::build::BlobId;
use mesh::limits::BLOB_BYTES_MAX;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Left free on the disk, for the ledger that usually shares it.
pub const RESERVE_BYTES: u64 = 64 << 20;

/// A store in a folder. Clones are the same store.
#[derive(Clone)]
pub struct FolderBlobs(Arc<Inner>);

struct Inner {
    root: PathBuf,
    blocking: Blocking,
    next_temporary: AtomicU64,
}

impl FolderBlobs {
    /// Opens or makes the store, and removes what a crash left half written. Blocks; call it at start.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(root: impl Into<PathBuf>, blocking: Blocking) -> io::Result<Self> {
        let root = root.into();
        let mut dir = DirBuilder::new();
        dir.recursive(true).mode(0o700);
        let temporary = root.join("tmp");
        if temporary.exists() {
            fs::remove_dir_all(&temporary)?;
        }
        for folder in [&root, &temporary, &root.join("corrupt")] {
            dir.create(folder)?;
        }
        fs::set_permissions(&root, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        for n in 0..=255u8 {
            dir.create(root.join(format!("{n:02x}")))?;
        }
        File::open(&root)?.sync_all()?;
        Ok(FolderBlobs(Arc::new(Inner { root, blocking, next_temporary: AtomicU64::new(0) })))
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> T + Send + 'static) -> T {
        let inner = self.0.clone();
        self.0.blocking.run(move || work(&inner)).await
    }
}

impl Inner {
    fn path(&self, id: BlobId) -> PathBuf {
        let hex = id.to_string();
        let (folder, name) = hex.split_at(2);
        self.root.join(folder).join(name)
    }

    fn free(&self) -> u64 {
        nix::sys::statvfs::statvfs(&self.root)
            .map(|s| s.blocks_available().saturating_mul(s.fragment_size()))
            .unwrap_or(0)
            .saturating_sub(RESERVE_BYTES)
    }

    fn room_for(&self, bytes: u64) -> io::Result<()> {
        if self.free() < bytes {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!("no room for blobs in {}: free some space on that disk", self.root.display()),
            ));
        }
        Ok(())
    }

    fn verify(&self, id: BlobId) -> io::Result<()> {
        let path = self.path(id);
        let mut file = open_blob(&path, id)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; CHUNK_BYTES_MAX];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => hasher.update(&buffer[..n]),
            };
        }
        if *hasher.finalize().as_bytes() == id.0 {
            return Ok(());
        }
        fs::rename(&path, self.root.join("corrupt").join(id.to_string()))?;
        Err(corrupt(id))
    }

    /// Whether the bytes are here already. A copy that has rotted is not: it is moved away.
    fn is_here(&self, id: BlobId, bytes: u64) -> bool {
        fs::metadata(self.path(id)).is_ok_and(|m| m.len() == bytes) && self.verify(id).is_ok()
    }

    /// Gives the finished bytes their name.
    fn publish(&self, temporary: &Path, file: &File, id: BlobId) -> io::Result<()> {
        file.sync_all()?;
        let path = self.path(id);
        fs::rename(temporary, &path)?;
        let parent = path.parent().unwrap_or(&self.root);
        File::open(parent)?.sync_all()
    }

    fn temporary(&self) -> io::Result<(PathBuf, File)> {
        let n = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join("tmp").join(n.to_string());
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok((path, file))
    }
}

fn open_blob(path: &Path, id: BlobId) -> io::Result<File> {
    File::open(path).map_err(|e| if e.kind() == io::ErrorKind::NotFound { not_found(id) } else { e })
}

#[async_trait]
impl BlobStore for FolderBlobs {
    async fn has(&self, id: BlobId) -> bool {
        self.run(move |inner| inner.path(id).exists()).await
    }

    async fn open(&self, id: BlobId, offset: u64) -> io::Result<(u64, Box<dyn BlobRead>)> {
        let blocking = self.0.blocking;
        self.run(move |inner| {
            let file = open_blob(&inner.path(id), id)?;
            let bytes = file.metadata()?.len();
            let mut reader = Reader { file: Arc::new(file), at: offset.min(bytes), bytes, first: None, blocking };
            // The first chunk comes along: most blobs have no second one.
            reader.first = read_at(&reader.file, reader.at, bytes)?;
            Ok((bytes, Box::new(reader) as Box<dyn BlobRead>))
        })
        .await
    }

    async fn create(&self, expect: Option<BlobId>) -> io::Result<Box<dyn BlobWrite>> {
        self.0.room_for(0)?;
        Ok(Box::new(Writer {
            store: self.clone(),
            expect,
            hasher: blake3::Hasher::new(),
            buffer: Vec::new(),
            written: 0,
            file: None,
        }))
    }

    async fn remove(&self, id: BlobId) -> io::Result<()> {
        self.run(move |inner| match fs::remove_file(inner.path(id)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        })
        .await
    }

    async fn verify(&self, id: BlobId) -> io::Result<()> {
        self.run(move |inner| inner.verify(id)).await
    }

    async fn free_bytes(&self) -> u64 {
        self.run(|inner| inner.free()).await
    }
}

struct Reader {
    file: Arc<File>,
    at: u64,
    bytes: u64,
    first: Option<Bytes>,
    blocking: Blocking,
}

fn read_at(file: &File, at: u64, end: u64) -> io::Result<Option<Bytes>> {
    let n = end.saturating_sub(at).min(CHUNK_BYTES_MAX as u64) as usize;
    if n == 0 {
        return Ok(None);
    }
    let mut chunk = vec![0; n];
    file.read_exact_at(&mut chunk, at)?;
    Ok(Some(chunk.into()))
}

#[async_trait]
impl BlobRead for Reader {
    async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        let chunk = match self.first.take() {
            Some(first) => Some(first),
            None if self.at >= self.bytes => None,
            None => {
                let (file, at, end) = (self.file.clone(), self.at, self.bytes);
                self.blocking.run(move || read_at(&file, at, end)).await?
            }
        };
        self.at += chunk.as_ref().map_or(0, |c| c.len() as u64);
        Ok(chunk)
    }
}

struct Writer {
    store: FolderBlobs,
    expect: Option<BlobId>,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    written: u64,
    file: Option<(PathBuf, Arc<File>)>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some((path, _)) = self.file.take() {
            let _ = fs::remove_file(path); // what stays is removed at the next start
        }
    }
}

impl Writer {
    fn id(&self) -> BlobId {
        BlobId(*self.hasher.finalize().as_bytes())
    }

    /// Moves the buffer into the temporary file.
    async fn flush(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            let (path, file) = self.store.run(|inner| inner.temporary()).await?;
            self.file = Some((path, Arc::new(file)));
        }
        if let Some((_, file)) = &self.file {
            let (file, at, buffer) = (file.clone(), self.written, std::mem::take(&mut self.buffer));
            self.written += buffer.len() as u64;
            self.store
                .run(move |inner| {
                    inner.room_for(buffer.len() as u64)?;
                    file.write_all_at(&buffer, at)
                })
                .await?;
        }
        Ok(())
    }
}

#[async_trait]
impl BlobWrite for Writer {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.written + (self.buffer.len() + bytes.len()) as u64 > BLOB_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("a blob has at most {BLOB_BYTES_MAX} bytes"),
            ));
        }
        self.hasher.update(bytes);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK_BYTES_MAX { self.flush().await } else { Ok(()) }
    }

    async fn finish(mut self: Box<Self>) -> io::Result<BlobId> {
        let id = self.id();
        if let Some(expected) = self.expect.filter(|expected| *expected != id) {
            return Err(corrupt(expected));
        }
        let bytes = self.written + self.buffer.len() as u64;
        let buffer = std::mem::take(&mut self.buffer);
        let (open, written) = (self.file.clone(), self.written);
        self.store
            .run(move |inner| {
                if inner.is_here(id, bytes) {
                    return Ok(());
                }
                inner.room_for(buffer.len() as u64)?;
                let (path, file) = match open {
                    Some(open) => open,
                    None => inner.temporary().map(|(path, file)| (path, Arc::new(file)))?,
                };
                let done = file.write_all_at(&buffer, written).and_then(|()| inner.publish(&path, &file, id));
                if done.is_err() {
                    let _ = fs::remove_file(&path);
                }
                done
            })
            .await?;
        Ok(id)
    }
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;

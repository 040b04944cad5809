//! Packing the folder of `mesh run` into a tar archive.
//!
//! .gitignore is respected, with or without a git repository; .git itself stays home; hidden files come
//! along. Same files, same bytes: sorted, no owners. Links are kept as links and never followed. The
//! archive streams through a bounded channel into a blob, here or behind an API. Its way back into a
//! folder is [`super::unpack`].

use crate::seams::{BlobWrite, Blocking};
use bytes::Bytes;
use ignore::WalkBuilder;
use mesh::build::BlobId;
use mesh::limits::{WORKSPACE_BYTES_MAX, WORKSPACE_FILES_MAX};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// What was packed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Packed {
    /// Files, folders and links.
    pub entries: usize,
    /// Bytes of the files.
    pub file_bytes: u64,
    /// Bytes of the archive.
    pub archive_bytes: u64,
    /// What was left out, for a person to read.
    pub notes: Vec<String>,
}

/// Bounds of a workspace.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of all files.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { bytes: WORKSPACE_BYTES_MAX, entries: WORKSPACE_FILES_MAX }
    }
}

/// Packs a folder into a blob.
///
/// # Errors
/// When the folder cannot be read, changes meanwhile, or is too large: the largest folders are named.
pub async fn pack(folder: &Path, bounds: Bounds, mut writer: Box<dyn BlobWrite>) -> io::Result<(BlobId, Packed)> {
    let (send, mut receive) = mpsc::channel(4);
    let folder = folder.to_owned();
    let packing = Blocking::Pool.run(move || pack_blocking(&folder, bounds, send));
    let writing = async move {
        while let Some(chunk) = receive.recv().await {
            writer.write(&chunk).await?;
        }
        io::Result::Ok(writer)
    };
    // Both end when one fails: the channel closes.
    let (packed, written): (io::Result<Packed>, _) = tokio::join!(packing, writing);
    let (writer, packed) = match (written, packed) {
        (Ok(writer), packed) => (writer, packed?),
        (Err(error), _) => return Err(error),
    };
    Ok((writer.finish().await?, packed))
}

/// The blocking half of [`pack`], for callers that send the archive elsewhere.
///
/// # Errors
/// As [`pack`]; `BrokenPipe` when the receiver is gone.
pub fn pack_blocking(folder: &Path, bounds: Bounds, chunks: mpsc::Sender<Bytes>) -> io::Result<Packed> {
    let mut packed = Packed::default();
    let entries = walk(folder, bounds, &mut packed)?;
    let sink = Chunks { chunks, bytes: 0 };
    let mut tar = tar::Builder::new(BufWriter::with_capacity(crate::blobs::CHUNK_BYTES_MAX, sink));
    for path in &entries {
        append(&mut tar, folder, path)?;
    }
    let sink = tar.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    packed.archive_bytes = sink.bytes;
    Ok(packed)
}

/// What may go along, sorted, so that a folder comes before what is in it.
fn walk(folder: &Path, bounds: Bounds, packed: &mut Packed) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    let mut sizes: BTreeMap<PathBuf, (u64, usize)> = BTreeMap::new();
    let walk = WalkBuilder::new(folder)
        .hidden(false)
        .ignore(false)
        .git_global(false)
        .require_git(false)
        .follow_links(false)
        .filter_entry(|entry| entry.file_name() != ".git")
        .build();
    for entry in walk {
        let entry = entry.map_err(io::Error::other)?;
        let Ok(path) = entry.path().strip_prefix(folder) else { continue };
        if path.as_os_str().is_empty() {
            continue;
        }
        let meta = fs::symlink_metadata(entry.path())?;
        if !(meta.is_file() || meta.is_dir() || meta.is_symlink()) {
            packed.notes.push(format!("left out {}: a socket, pipe or device", path.display()));
            continue;
        }
        let bytes = if meta.is_file() { meta.len() } else { 0 };
        packed.file_bytes += bytes;
        packed.entries += 1;
        let top: PathBuf = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.components().take(2).collect(),
            _ => PathBuf::from("."),
        };
        let size = sizes.entry(top).or_default();
        *size = (size.0 + bytes, size.1 + 1);
        if packed.entries <= bounds.entries {
            paths.push(path.to_owned()); // beyond it, only the sizes matter
        }
    }
    if packed.file_bytes > bounds.bytes || packed.entries > bounds.entries {
        return Err(too_large(packed, bounds, sizes));
    }
    paths.sort();
    Ok(paths)
}

fn too_large(packed: &Packed, bounds: Bounds, sizes: BTreeMap<PathBuf, (u64, usize)>) -> io::Error {
    let by_bytes = packed.file_bytes > bounds.bytes;
    let mut sizes: Vec<_> = sizes.into_iter().collect();
    sizes.sort_by_key(|(_, (bytes, files))| std::cmp::Reverse(if by_bytes { *bytes } else { *files as u64 }));
    let largest =
        sizes.iter().take(5).map(|(p, (bytes, files))| format!("{} ({} MiB, {files} files)", p.display(), bytes >> 20));
    let text = format!(
        "the folder has {} MiB in {} files; at most {} MiB in {} files go along. Largest: {}. Name what is not needed in .gitignore",
        packed.file_bytes >> 20,
        packed.entries,
        bounds.bytes >> 20,
        bounds.entries,
        largest.collect::<Vec<_>>().join(", ")
    );
    io::Error::new(io::ErrorKind::FileTooLarge, text)
}

fn append(tar: &mut tar::Builder<impl Write>, folder: &Path, path: &Path) -> io::Result<()> {
    let full = folder.join(path);
    let meta = fs::symlink_metadata(&full)?;
    let mut header = tar::Header::new_gnu();
    header.set_mode(meta.mode() & 0o777);
    header.set_mtime(meta.mtime().max(0) as u64);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    if meta.is_symlink() {
        header.set_entry_type(tar::EntryType::Symlink);
        tar.append_link(&mut header, path, fs::read_link(&full)?)
    } else if meta.is_dir() {
        header.set_entry_type(tar::EntryType::Directory);
        tar.append_data(&mut header, path, io::empty())
    } else {
        let file = File::open(&full)?;
        let bytes = file.metadata()?.len();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(bytes);
        let mut file = Counted { file: file.take(bytes), read: 0 };
        tar.append_data(&mut header, path, &mut file)?;
        if file.read == bytes {
            return Ok(());
        }
        Err(io::Error::other(format!("{} changed while it was packed; try again", path.display())))
    }
}

struct Counted {
    file: io::Take<File>,
    read: u64,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.read += n as u64;
        Ok(n)
    }
}

struct Chunks {
    chunks: mpsc::Sender<Bytes>,
    bytes: u64,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(crate::blobs::CHUNK_BYTES_MAX)];
        self.chunks.blocking_send(Bytes::copy_from_slice(bytes)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "workspace_tests.rs"]
mod tests;

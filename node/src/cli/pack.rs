//! What a build starts from, on its way to the daemon: a file as it is, a folder as an archive, .gitignore
//! respected, bounded, and in the same order each time so that the same folder is the same blob.
//! The archive goes through a file without a name: a workspace may be larger than memory.

use super::Failure;
use crate::api::client::Client;
use crate::buildfile::LocalInput;
use crate::config::shorten;
use futures::StreamExt;
use mesh::build::{BlobId, Input, InputKind};
use mesh::limits::{BLOB_BYTES_MAX, WORKSPACE_BYTES_MAX, WORKSPACE_FILES_MAX};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use tokio_util::io::ReaderStream;

/// Bytes of one chunk on the way to the daemon.
const CHUNK_BYTES: usize = 256 << 10;

/// Sends an input's bytes to the daemon, unless it has them already.
pub(crate) async fn send(client: &Client, input: &LocalInput) -> Result<Input, Failure> {
    let source = input.source.clone();
    let folder = input.kind == InputKind::Tar;
    let made = tokio::task::spawn_blocking(move || named(if folder { archive(&source) } else { open(&source) }?)).await;
    let (file, blob, bytes) = made.map_err(|e| Failure::new(e.to_string()))??;
    if client.has_blob(blob).await? {
        return Ok(Input { path: input.path.clone(), blob, bytes, kind: input.kind });
    }
    let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(file), CHUNK_BYTES);
    // What counts is what arrived: a file may change while it is read.
    let (blob, bytes) = client.put_blob(stream.boxed()).await?;
    Ok(Input { path: input.path.clone(), blob, bytes, kind: input.kind })
}

fn failed(path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::new(format!("cannot read {}: {error}", shorten(&path.to_string_lossy())))
}

/// A file, rewound, with the name and size of its content.
fn named(mut file: File) -> Result<(File, BlobId, u64), Failure> {
    let mut hasher = blake3::Hasher::new();
    let bytes = io::copy(&mut file, &mut hasher)?;
    file.rewind()?;
    Ok((file, BlobId(*hasher.finalize().as_bytes()), bytes))
}

fn open(path: &Path) -> Result<File, Failure> {
    let file = File::open(path).map_err(|e| failed(path, e))?;
    let meta = file.metadata().map_err(|e| failed(path, e))?;
    if !meta.is_file() {
        return Err(failed(path, "it is neither a file nor a folder"));
    }
    if meta.len() > BLOB_BYTES_MAX {
        return Err(failed(path, format!("it is larger than {BLOB_BYTES_MAX} bytes")));
    }
    Ok(file)
}

fn nameless() -> io::Result<File> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|e| io::Error::other(e.to_string()))?;
    let path = std::env::temp_dir().join(format!(".mesh-{}", crate::state_folder::hex(&random)));
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// A folder as an archive, rewound.
pub(crate) fn archive(root: &Path) -> Result<File, Failure> {
    let mut tar = tar::Builder::new(io::BufWriter::new(nameless()?));
    tar.follow_symlinks(false);
    let walk = ignore::WalkBuilder::new(root)
        .hidden(false)
        .require_git(false)
        .sort_by_file_name(Ord::cmp)
        .filter_entry(|entry| entry.file_name() != ".git")
        .build();
    let (mut files, mut bytes) = (0, 0);
    for entry in walk {
        let entry = entry.map_err(|e| failed(root, e))?;
        let Ok(name) = entry.path().strip_prefix(root) else { continue };
        let meta = std::fs::symlink_metadata(entry.path()).map_err(|e| failed(entry.path(), e))?;
        let kind = meta.file_type();
        if name.as_os_str().is_empty() || !(kind.is_file() || kind.is_dir() || kind.is_symlink()) {
            continue; // sockets, pipes and devices are not source code
        }
        files += 1;
        bytes += meta.len();
        if files > WORKSPACE_FILES_MAX || bytes > WORKSPACE_BYTES_MAX {
            let limit = format!("{WORKSPACE_FILES_MAX} files or {} MiB", WORKSPACE_BYTES_MAX >> 20);
            return Err(Failure::usage(format!("{} has more than {limit}", root.display()))
                .hint("name what is not needed in .gitignore or .ignore, or use --no-workspace"));
        }
        let mut header = tar::Header::new_gnu();
        header.set_metadata_in_mode(&meta, tar::HeaderMode::Complete);
        // Whose it is here means nothing there; when it changed does, to make.
        header.set_size(if kind.is_file() { meta.len() } else { 0 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mode(if meta.permissions().mode() & 0o111 != 0 { 0o755 } else { 0o644 });
        let done = if kind.is_symlink() {
            std::fs::read_link(entry.path()).and_then(|to| tar.append_link(&mut header, name, to))
        } else if kind.is_dir() {
            tar.append_data(&mut header, name, io::empty())
        } else {
            // A file that grows meanwhile must not break the archive: exactly as much as the header says.
            File::open(entry.path()).and_then(|file| {
                let exact = io::Read::take(file, meta.len());
                tar.append_data(&mut header, name, io::Read::take(io::Read::chain(exact, io::repeat(0)), meta.len()))
            })
        };
        done.map_err(|e| failed(entry.path(), e))?;
    }
    let mut out = tar.into_inner()?;
    out.flush()?;
    let mut file = out.into_inner().map_err(|e| Failure::new(e.to_string()))?;
    file.rewind()?;
    Ok(file)
}

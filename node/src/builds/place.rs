//! Placing outputs: a manifest and a store give files in a folder. Used for `needs/NAME/` of a build
//! and by `mesh fetch`. Every blob is hashed on its way; nothing is written outside the folder.

use super::inside::{Inside, Owner, refuse};
use super::unpack::read_blob;
use crate::blobs::get;
use crate::seams::{BlobStore, Blocking};
use mesh::build::{BlobId, Manifest, stays_inside};
use mesh::limits::{MANIFEST_BYTES_MAX, OUTPUT_FILES_MAX};
use mesh::wire;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest target of a symbolic link, as Linux has it.
pub const LINK_BYTES_MAX: u64 = 4_096;

/// Reads a manifest from the store and checks it as if a stranger had written it.
///
/// # Errors
/// `NotFound`, or `InvalidData` when it is corrupt, unsorted, too long, or names a path outside.
pub async fn load_manifest(store: &dyn BlobStore, id: BlobId) -> io::Result<Manifest> {
    let bytes = get(store, id, MANIFEST_BYTES_MAX as u64).await?;
    check_manifest(&bytes).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, format!("manifest {id}: {why}")))
}

/// Decodes a manifest and checks order, number and paths.
///
/// # Errors
/// A text that says what is wrong.
pub fn check_manifest(bytes: &[u8]) -> Result<Manifest, String> {
    let manifest: Manifest = wire::decode(bytes, MANIFEST_BYTES_MAX).map_err(|e| e.to_string())?;
    if manifest.files.len() > OUTPUT_FILES_MAX {
        return Err(format!("lists more than {OUTPUT_FILES_MAX} files"));
    }
    if !manifest.files.is_sorted_by(|a, b| a.path < b.path) {
        return Err("is not sorted by path, or names a path twice".into());
    }
    match manifest.files.iter().find(|f| f.path.is_empty() || !stays_inside(&f.path)) {
        Some(file) => Err(format!("names `{}`, which leaves its folder", file.path)),
        None => Ok(manifest),
    }
}

/// Writes all files of a manifest below a folder, replacing what has their names.
///
/// # Errors
/// `NotFound` or `InvalidData` when a blob is missing or corrupt, or the folder has a link in the way.
/// Files before it stay.
pub async fn place(manifest: &Manifest, store: &dyn BlobStore, folder: &Path, owner: Owner) -> io::Result<()> {
    let folder = folder.to_owned();
    let inside = Arc::new(Blocking::Pool.run(move || Inside::open(&folder, owner)).await?);
    place_inside(manifest, store, &inside, Path::new("")).await
}

/// As [`place`], below a relative path of a held folder.
///
/// # Errors
/// As [`place`].
pub async fn place_inside(
    manifest: &Manifest,
    store: &dyn BlobStore,
    inside: &Arc<Inside>,
    below: &Path,
) -> io::Result<()> {
    for file in &manifest.files {
        let path: PathBuf = below.join(&file.path);
        let inside = inside.clone();
        if file.symlink {
            let target = get(store, file.blob, LINK_BYTES_MAX).await?;
            Blocking::Pool.run(move || inside.make_link(&path, Path::new(OsStr::from_bytes(&target)))).await?;
        } else {
            place_file(store, file.blob, &inside, path, if file.executable { 0o755 } else { 0o644 }, file.bytes)
                .await?;
        }
    }
    Ok(())
}

/// Writes one blob as a file.
///
/// # Errors
/// As [`place`], and when it has other than the promised number of bytes.
pub async fn place_file(
    store: &dyn BlobStore,
    blob: BlobId,
    inside: &Arc<Inside>,
    path: PathBuf,
    mode: u32,
    bytes: u64,
) -> io::Result<()> {
    let inside = inside.clone();
    read_blob(store, blob, move |chunks| {
        let copied = io::copy(chunks, &mut inside.make_file(&path, mode)?)?;
        if copied == bytes { Ok(()) } else { Err(refuse(&path, &format!("has {copied} bytes instead of {bytes}"))) }
    })
    .await
}

//! Collecting outputs: globs over the build's folder, each match a blob, all of them one manifest.
//!
//! No symbolic link is followed, whatever the build left behind; a matching link becomes an output
//! itself. Equal files give equal bytes of the manifest on every host. The build is over by now: who
//! else may write here is [`super::survivors`]' matter.

use super::inside::Inside;
use crate::blobs::{CHUNK_BYTES_MAX, put};
use crate::seams::{BlobStore, Blocking};
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use globset::{GlobBuilder, GlobMatcher};
use mesh::build::{BlobId, Manifest, OutputFile};
use mesh::limits::{BLOB_BYTES_MAX, OUTPUT_FILES_MAX};
use mesh::wire;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files of a build's folder that are looked at. More is a failure, never a silent half.
const LISTED_MAX: usize = 10 * OUTPUT_FILES_MAX;

/// Blobs written at the same time: they share the disk's syncs.
const STORED_AT_ONCE: usize = 16;

/// What tells that a file has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    bytes: u64,
    mtime: (i64, i64),
    mode: u32,
}

/// The files and links of a folder with their stamps.
pub type Listing = BTreeMap<PathBuf, Stamp>;

/// Lists a folder without following links. Blocks.
///
/// # Errors
/// When a folder cannot be read, or there are too many files.
pub fn list(folder: &Path, without_needs: bool) -> io::Result<Listing> {
    let mut listing = Listing::new();
    let mut folders = vec![PathBuf::new()];
    let mut seen = 0usize;
    while let Some(below) = folders.pop() {
        for entry in fs::read_dir(folder.join(&below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            let meta = entry.metadata()?; // of the link itself
            seen += 1;
            if seen > LISTED_MAX {
                return Err(io::Error::other(format!("the build's folder has more than {LISTED_MAX} files")));
            }
            if meta.is_dir() {
                if !(without_needs && path == Path::new("needs")) {
                    folders.push(path);
                }
            } else if meta.is_file() || meta.is_symlink() {
                let stamp = Stamp { bytes: meta.len(), mtime: (meta.mtime(), meta.mtime_nsec()), mode: meta.mode() };
                listing.insert(path, stamp);
            }
        }
    }
    Ok(listing)
}

/// Which files of a folder are outputs.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Globs relative to the folder; one that names a folder means all in it.
    pub patterns: Vec<String>,
    /// The folder before the command ran, when only changes are wanted. No pattern then means all.
    pub before: Option<Arc<Listing>>,
    /// Whether `needs/` holds outputs of other builds, which are not this one's.
    pub without_needs: bool,
}

fn matchers(pattern: &str) -> io::Result<Vec<GlobMatcher>> {
    let mut pattern = pattern.trim_end_matches('/');
    while let Some(rest) = pattern.strip_prefix("./") {
        pattern = rest;
    }
    let both = match pattern {
        "" | "." => vec!["**".to_owned()],
        other => vec![other.to_owned(), format!("{other}/**")],
    };
    both.iter()
        .map(|glob| GlobBuilder::new(glob).literal_separator(true).build().map(|g| g.compile_matcher()))
        .collect::<Result<_, _>>()
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, format!("output pattern `{pattern}`: {e}")))
}

impl Wanted {
    /// Picks the outputs of a listing.
    ///
    /// # Errors
    /// When a declared pattern is malformed or matches nothing.
    pub fn pick(&self, after: &Listing) -> io::Result<Vec<PathBuf>> {
        let patterns = self.patterns.iter().map(|p| matchers(p)).collect::<io::Result<Vec<_>>>()?;
        let mut hits = vec![false; patterns.len()];
        let mut picked = Vec::new();
        for (path, stamp) in after {
            if self.before.as_ref().is_some_and(|before| before.get(path) == Some(stamp)) {
                continue;
            }
            let mut wanted = self.before.is_some() && patterns.is_empty();
            for (globs, hit) in patterns.iter().zip(&mut hits) {
                if globs.iter().any(|glob| glob.is_match(path)) {
                    (wanted, *hit) = (true, true);
                }
            }
            if wanted {
                picked.push(path.clone());
            }
        }
        if self.before.is_none()
            && let Some(n) = hits.iter().position(|hit| !hit)
        {
            let text = format!("output pattern `{}` matches no file that the build left", self.patterns[n]);
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        if picked.len() > OUTPUT_FILES_MAX {
            let text = format!("{} output files are more than {OUTPUT_FILES_MAX}; pack them into one", picked.len());
            return Err(io::Error::other(text));
        }
        Ok(picked)
    }
}

/// Stores the outputs, then their manifest. `None` when there are none.
///
/// # Errors
/// When a pattern matches nothing, or a file cannot be read or stored. Blobs stored before it stay.
pub async fn collect(folder: &Path, wanted: Wanted, store: &dyn BlobStore) -> io::Result<Option<(BlobId, Manifest)>> {
    let root = folder.to_owned();
    let (inside, picked) = Blocking::Pool
        .run(move || {
            let inside = Inside::open(&root, None)?;
            let picked = wanted.pick(&list(&root, wanted.without_needs)?)?;
            io::Result::Ok((Arc::new(inside), picked))
        })
        .await?;
    if picked.is_empty() {
        return Ok(None);
    }
    // Boxed with a lifetime that is spelled out: the compiler cannot see Send through the closure.
    let stored = picked
        .into_iter()
        .map(|path| -> BoxFuture<'_, io::Result<OutputFile>> { Box::pin(store_one(inside.clone(), path, store)) });
    let stored: Vec<_> = stored.collect();
    let files = futures::stream::iter(stored).buffered(STORED_AT_ONCE).try_collect::<Vec<_>>().await?;
    let mut manifest = Manifest { files };
    manifest.files.sort_by(|a, b| a.path.cmp(&b.path)); // as text: a folder sorts by its slash
    let id = put(store, &wire::encode(&manifest)).await?;
    Ok(Some((id, manifest)))
}

enum Content {
    Link(Vec<u8>),
    File(fs::File, fs::Metadata, Vec<u8>),
}

async fn store_one(inside: Arc<Inside>, path: PathBuf, store: &dyn BlobStore) -> io::Result<OutputFile> {
    let Some(name) = path.to_str().map(str::to_owned) else {
        return Err(super::inside::refuse(&path, "is not UTF-8: name outputs so that every host can write them"));
    };
    let content = Blocking::Pool
        .run(move || {
            if let Ok(target) = inside.read_link(&path) {
                return Ok(Content::Link(target));
            }
            let file = inside.open_file(&path)?;
            let meta = file.metadata()?;
            let mut first = vec![0; meta.len().min(CHUNK_BYTES_MAX as u64) as usize];
            (&file).read_exact(&mut first)?;
            io::Result::Ok(Content::File(file, meta, first))
        })
        .await?;
    match content {
        Content::Link(target) => {
            let blob = put(store, &target).await?;
            Ok(OutputFile { path: name, executable: false, bytes: target.len() as u64, blob, symlink: true })
        }
        Content::File(file, meta, first) => {
            let bytes = meta.len();
            if bytes > BLOB_BYTES_MAX {
                return Err(super::inside::refuse(Path::new(&name), &format!("is larger than {BLOB_BYTES_MAX} bytes")));
            }
            let mut writer = store.create(None).await?;
            writer.write(&first).await?;
            let (file, mut at) = (Arc::new(file), first.len() as u64);
            while at < bytes {
                let file = file.clone();
                let mut chunk = vec![0; (bytes - at).min(CHUNK_BYTES_MAX as u64) as usize];
                at += chunk.len() as u64;
                let from = at - chunk.len() as u64;
                let chunk = Blocking::Pool.run(move || file.read_exact_at(&mut chunk, from).map(|()| chunk)).await?;
                writer.write(&chunk).await?;
            }
            let blob = writer.finish().await?;
            Ok(OutputFile { path: name, executable: meta.mode() & 0o100 != 0, bytes, blob, symlink: false })
        }
    }
}

#[cfg(test)]
#[path = "collect_tests.rs"]
mod tests;

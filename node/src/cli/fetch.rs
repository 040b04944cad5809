//! Outputs on their way into a folder. What a build made is not trusted: no path leaves the folder, no
//! symbolic link is followed on the way, none that is placed leads out, and every file is compared with
//! its name before it takes its place.

use super::{Failure, Out};
use crate::api::client::Client;
use crate::api::types::{BuildState, FetchedFile, VERSION};
use crate::config::shorten;
use futures::StreamExt;
use mesh::build::{BlobId, BuildId, Manifest, OutputFile, stays_inside};
use mesh::limits::{MANIFEST_BYTES_MAX, OUTPUT_FILES_MAX};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

/// Where a symbolic link may point at.
const LINK_BYTES_MAX: usize = 4_096;

pub(super) async fn fetch(client: &Client, out: Out, id: BuildId, into: &Path) -> Result<u8, Failure> {
    let detail = client.build(id).await?;
    if detail.summary.state != BuildState::Done {
        let message = format!("{id} has no outputs: it is {}", detail.summary.state.word());
        return Err(Failure::new(message).hint(format!("`mesh logs {id}` shows what it did")));
    }
    let files = match detail.manifest {
        Some(manifest) => outputs(client, manifest, into).await?,
        None => vec![],
    };
    report(out, &files, into)?;
    Ok(super::EXIT_OK)
}

fn report(out: Out, files: &[OutputFile], into: &Path) -> Result<(), Failure> {
    if out.json {
        let files: Vec<FetchedFile> = files.iter().map(FetchedFile::from).collect();
        return out.json(&serde_json::json!({ "version": VERSION, "into": into, "files": files }));
    }
    files.iter().try_for_each(|file| out.line(into.join(&file.path).display()))
}

/// Brings all files of a manifest into a folder.
pub(super) async fn outputs(client: &Client, manifest: BlobId, into: &Path) -> Result<Vec<OutputFile>, Failure> {
    let bytes = small(client, manifest, MANIFEST_BYTES_MAX).await?;
    let manifest: Manifest = mesh::wire::decode(&bytes, MANIFEST_BYTES_MAX)
        .map_err(|e| Failure::new(format!("the list of outputs is damaged: {e}")))?;
    if manifest.files.len() > OUTPUT_FILES_MAX {
        return Err(Failure::new(format!("{} outputs are more than {OUTPUT_FILES_MAX}", manifest.files.len())));
    }
    // All names first: a bad one must not be found when half of the files are placed.
    for file in &manifest.files {
        parts(&file.path)?;
    }
    std::fs::create_dir_all(into)?;
    let root = open(into, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).map_err(io::Error::from)?;
    for file in &manifest.files {
        place(client, &root, file).await?;
    }
    Ok(manifest.files)
}

/// A whole blob in memory, compared with its name.
async fn small(client: &Client, id: BlobId, max: usize) -> Result<Vec<u8>, Failure> {
    let mut stream = client.get_blob(id).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk?);
        if bytes.len() > max {
            return Err(Failure::new(format!("blob {id} is larger than {max} bytes")));
        }
    }
    if BlobId::of(&bytes) != id { Err(damaged(id)) } else { Ok(bytes) }
}

fn damaged(id: BlobId) -> Failure {
    Failure::new(format!("blob {id} arrived damaged")).hint("try again: another host may hold a good copy")
}

fn refused(path: &str, why: &str) -> Failure {
    Failure::new(format!("output `{}` {why}: nothing was written there", shorten(path)))
        .hint("use another folder with `mesh fetch ID --into FOLDER`")
}

/// The names on the way to a file; the last is its own.
fn parts(path: &str) -> Result<Vec<&str>, Failure> {
    let parts: Vec<&str> = path.split('/').collect();
    let odd = |part: &&str| part.is_empty() || *part == "." || part.len() > 255;
    match !stays_inside(path) || parts.iter().any(odd) {
        true => Err(refused(path, "has a path that leaves the folder or is none")),
        false => Ok(parts),
    }
}

/// Whether a link in a folder `depth` below the root stays inside: relative, and `..` only at its start,
/// so that no other link is walked through upwards.
fn link_stays_inside(target: &str, depth: usize) -> bool {
    let (mut up, mut down) = (0, false);
    !target.is_empty()
        && !target.contains('\0')
        && Path::new(target).components().all(|part| match part {
            Component::ParentDir if !down => {
                up += 1;
                up <= depth
            }
            Component::Normal(_) => {
                down = true;
                true
            }
            Component::CurDir => true,
            _ => false,
        })
}

/// The folder that a file goes into, made as needed, no link followed.
fn folder(root: &OwnedFd, parts: &[&str]) -> Result<OwnedFd, Errno> {
    let mut at = root.try_clone().map_err(|_| Errno::EMFILE)?;
    for part in parts {
        match mkdirat(&at, *part, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error),
        }
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        at = openat(&at, *part, flags, Mode::empty())?;
    }
    Ok(at)
}

async fn place(client: &Client, root: &OwnedFd, file: &OutputFile) -> Result<(), Failure> {
    let parts = parts(&file.path)?;
    let Some((name, way)) = parts.split_last() else { return Err(refused(&file.path, "has no name")) };
    let why = |error: Errno| match error {
        Errno::ELOOP | Errno::ENOTDIR => refused(&file.path, "would go through a symbolic link or a file"),
        error => Failure::new(format!("cannot write `{}`: {error}", shorten(&file.path))),
    };
    let folder = folder(root, way).map_err(why)?;
    let beside = format!(".mesh-{}-{}", std::process::id(), &file.blob.to_string()[..16]);
    // A file of that name is one that an earlier try of ours left.
    let _ = unlinkat(&folder, beside.as_str(), UnlinkatFlags::NoRemoveDir);
    let made = if file.symlink {
        let target = small(client, file.blob, LINK_BYTES_MAX).await?;
        let target = String::from_utf8(target).map_err(|_| refused(&file.path, "is a link to no text"))?;
        if !link_stays_inside(&target, way.len()) {
            return Err(refused(&file.path, "is a link that leaves the folder"));
        }
        symlinkat(target.as_str(), &folder, beside.as_str()).map_err(why)
    } else {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(if file.executable { 0o755 } else { 0o644 });
        let fd = openat(&folder, beside.as_str(), flags, mode).map_err(why)?;
        let written = write(client, File::from(fd), file).await;
        if written.is_err() {
            let _ = unlinkat(&folder, beside.as_str(), UnlinkatFlags::NoRemoveDir);
        }
        written?;
        Ok(())
    };
    made?;
    renameat(&folder, beside.as_str(), &folder, *name).map_err(|error| {
        let _ = unlinkat(&folder, beside.as_str(), UnlinkatFlags::NoRemoveDir);
        why(error)
    })
}

async fn write(client: &Client, mut to: File, file: &OutputFile) -> Result<(), Failure> {
    let mut stream = client.get_blob(file.blob).await?;
    let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        bytes += chunk.len() as u64;
        if bytes > file.bytes {
            return Err(damaged(file.blob));
        }
        hasher.update(&chunk);
        to.write_all(&chunk)?;
    }
    match BlobId(*hasher.finalize().as_bytes()) == file.blob && bytes == file.bytes {
        true => Ok(()),
        false => Err(damaged(file.blob)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_links_stay_inside() {
        for bad in ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a/", "a\0b", &"n".repeat(64 << 10)] {
            assert!(parts(bad).is_err(), "{}", shorten(bad));
        }
        assert_eq!(parts("a/b.c").expect("good"), ["a", "b.c"]);
        for (target, depth, stays) in [
            ("x", 0, true),
            ("../x", 1, true),
            ("../x", 0, false),
            ("../../x", 1, false),
            ("/etc", 3, false),
            ("", 1, false),
            // Lexically inside, but not when `a` is a link to somewhere higher.
            ("a/../x", 3, false),
        ] {
            assert_eq!(link_stays_inside(target, depth), stays, "{target} at {depth}");
        }
    }
}

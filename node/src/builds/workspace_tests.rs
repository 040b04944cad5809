use super::*;
use crate::blobs::memory::MemoryBlobs;
use crate::builds::inside::Inside;
use crate::builds::unpack::{Limits, read_blob, unpack};
use crate::seams::BlobStore;
use std::os::unix::fs::symlink;
use std::time::{Duration, UNIX_EPOCH};

fn tree(root: &Path, order: &[&str]) {
    for path in order {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, path.file_name().unwrap().to_string_lossy().as_bytes()).unwrap();
    }
    fs::write(root.join(".gitignore"), "target/\n*.log\n").unwrap();
    fs::write(root.join("sub/.gitignore"), "!keep.log\n").unwrap();
    fs::create_dir_all(root.join("empty")).unwrap();
    symlink("/etc/passwd", root.join("out")).unwrap();
    for entry in walkdir(root) {
        if fs::symlink_metadata(&entry).unwrap().is_file() {
            File::options()
                .write(true)
                .open(&entry)
                .unwrap()
                .set_modified(UNIX_EPOCH + Duration::from_secs(1_600_000_000))
                .unwrap();
        }
        if fs::symlink_metadata(&entry).unwrap().is_dir() {
            File::open(&entry).unwrap().set_modified(UNIX_EPOCH + Duration::from_secs(1_600_000_000)).unwrap();
        }
    }
    let _ = std::process::Command::new("touch").args(["-hd", "@1600000000"]).arg(root.join("out")).status().unwrap();
}

fn walkdir(root: &Path) -> Vec<PathBuf> {
    let mut all = vec![];
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                todo.push(entry.path());
            }
            all.push(entry.path());
        }
    }
    all
}

const FILES: [&str; 8] =
    ["a", "sub/deep/b", "sub/keep.log", "drop.log", "target/x", ".hidden", ".git/HEAD", "sub/target/y"];

#[tokio::test]
async fn equal_folders_pack_to_equal_bytes_and_unpack_again() {
    let store = MemoryBlobs::new(1 << 24);
    let (one, two, back) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tree(one.path(), &FILES);
    let mut reversed = FILES;
    reversed.reverse();
    tree(two.path(), &reversed);
    let (id, packed) = pack(one.path(), Bounds::default(), store.create(None).await.unwrap()).await.unwrap();
    let (other, _) = pack(two.path(), Bounds::default(), store.create(None).await.unwrap()).await.unwrap();
    assert_eq!(id, other);
    assert_eq!(packed.archive_bytes % 512, 0);
    let inside = Inside::open(back.path(), None).unwrap();
    let limits = Limits { bytes: 1 << 20, entries: 100 };
    read_blob(&store, id, move |tar| unpack(tar, &inside, Path::new(""), limits)).await.unwrap();
    let mut names: Vec<_> =
        walkdir(back.path()).iter().map(|p| p.strip_prefix(back.path()).unwrap().to_owned()).collect();
    names.sort();
    let expected = [
        ".gitignore",
        ".hidden",
        "a",
        "empty",
        "out",
        "sub",
        "sub/.gitignore",
        "sub/deep",
        "sub/deep/b",
        "sub/keep.log",
    ];
    assert_eq!(names, expected.map(PathBuf::from));
    assert_eq!(packed.entries, expected.len());
    assert_eq!(fs::read_link(back.path().join("out")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(fs::metadata(back.path().join("a")).unwrap().mtime(), 1_600_000_000);
}

#[tokio::test]
async fn what_is_too_large_is_named_and_sockets_stay_home() {
    let store = MemoryBlobs::new(1 << 24);
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("assets/video")).unwrap();
    fs::write(dir.path().join("assets/video/film"), vec![0; 3 << 20]).unwrap();
    fs::write(dir.path().join("main.c"), "x").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    for bounds in [Bounds { bytes: 1 << 20, entries: 99 }, Bounds { bytes: 1 << 30, entries: 2 }] {
        let error = pack(dir.path(), bounds, store.create(None).await.unwrap()).await.unwrap_err();
        assert!(error.to_string().contains("assets/video"), "{error}");
        assert!(store.ids().is_empty());
    }
    let (_, packed) = pack(dir.path(), Bounds::default(), store.create(None).await.unwrap()).await.unwrap();
    assert_eq!(packed.notes, ["left out socket: a socket, pipe or device"]);
}

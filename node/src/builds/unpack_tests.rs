use super::*;
use std::fs;

const LIMITS: Limits = Limits { bytes: 1_000, entries: 10 };

/// A header written byte by byte: the `tar` crate refuses to write most of these.
fn entry(name: &str, kind: EntryType, link: &str, data: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    let old = header.as_old_mut();
    old.name[..name.len()].copy_from_slice(name.as_bytes());
    old.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o6755);
    header.set_mtime(1_700_000_000);
    header.set_size(data.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn attempt(entries: &[Vec<u8>]) -> (tempfile::TempDir, io::Result<()>) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("in");
    fs::create_dir(&root).unwrap();
    fs::write(dir.path().join("secret"), "unharmed").unwrap();
    let inside = Inside::open(&root, None).unwrap();
    let mut bytes = entries.concat();
    bytes.extend_from_slice(&[0; 1024]);
    let result = unpack(&bytes[..], &inside, Path::new(""), LIMITS);
    assert_eq!(fs::read_to_string(dir.path().join("secret")).unwrap(), "unharmed");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing beside the folder");
    (dir, result)
}

#[test]
fn a_hostile_archive_gets_out_in_no_way() {
    use EntryType as E;
    let file = |name| entry(name, E::Regular, "", b"evil");
    let hostile: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("dots", vec![file("../secret")]),
        ("dots inside", vec![file("a/../../secret")]),
        ("absolute", vec![file("/tmp/mesh-evil")]),
        ("through a link", vec![entry("l", E::Symlink, "..", b""), file("l/secret")]),
        ("through an absolute link", vec![entry("l", E::Symlink, "/", b""), file("l/mesh-evil")]),
        ("folder over a link", vec![entry("l", E::Symlink, "..", b""), entry("l", E::Directory, "", b"")]),
        ("hard link out", vec![entry("l", E::Link, "../secret", b"")]),
        ("hard link absolute", vec![entry("l", E::Link, "/etc/passwd", b"")]),
        ("hard link through a link", vec![entry("l", E::Symlink, "..", b""), entry("m", E::Link, "l/secret", b"")]),
        ("device", vec![entry("null", E::Char, "", b"")]),
        ("block device", vec![entry("sda", E::Block, "", b"")]),
        ("pipe", vec![entry("pipe", E::Fifo, "", b"")]),
        ("too many", (0..11).map(|n| file(Box::leak(n.to_string().into_boxed_str()))).collect()),
        ("too large", vec![entry("big", E::Regular, "", &[7; 1_001])]),
    ];
    for (what, entries) in hostile {
        let (_dir, result) = attempt(&entries);
        let error = result.expect_err(what);
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{what}: {error}");
    }
    assert!(!Path::new("/tmp/mesh-evil").exists() && !Path::new("/mesh-evil").exists());
}

#[test]
fn a_link_out_is_kept_but_a_file_of_its_name_replaces_it() {
    use std::os::unix::fs::MetadataExt;
    let link = entry("l", EntryType::Symlink, "../secret", b"");
    let (dir, result) = attempt(std::slice::from_ref(&link));
    result.unwrap();
    assert_eq!(fs::read_link(dir.path().join("in/l")).unwrap(), Path::new("../secret"));
    let (dir, result) =
        attempt(&[link, entry("l", EntryType::Regular, "", b"mine"), entry("m", EntryType::Link, "l", b"")]);
    result.unwrap();
    let meta = fs::symlink_metadata(dir.path().join("in/l")).unwrap();
    assert!(meta.is_file() && meta.nlink() == 2);
    assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o755, 1_700_000_000), "no set-user-id, but mode and time");
}

use super::*;
use crate::blobs::{get, put};

fn files(root: &Path) -> usize {
    let below = |p: PathBuf| fs::read_dir(p).map_or(0, |d| d.count());
    (0..=255u8).map(|n| below(root.join(format!("{n:02x}")))).sum::<usize>() + below(root.join("tmp"))
}

#[tokio::test]
async fn a_blob_comes_back_from_any_offset_and_twice_is_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = FolderBlobs::open(dir.path().join("blobs"), Blocking::Pool).unwrap();
    let big: Vec<u8> = (0..700_000u32).map(|n| (n % 251) as u8).collect();
    for bytes in [&big[..], b"", b"small"] {
        let id = put(&store, bytes).await.unwrap();
        assert_eq!(put(&store, bytes).await.unwrap(), id);
        assert_eq!(get(&store, id, 1 << 20).await.unwrap(), bytes);
        store.verify(id).await.unwrap();
    }
    assert_eq!(files(&dir.path().join("blobs")), 3, "a duplicate makes no file and no temporary stays");
    let (all, mut reader) = store.open(BlobId::of(&big), 600_000).await.unwrap();
    let mut rest = Vec::new();
    while let Some(chunk) = reader.chunk().await.unwrap() {
        assert!(chunk.len() <= CHUNK_BYTES_MAX);
        rest.extend_from_slice(&chunk);
    }
    assert_eq!((all, &rest[..]), (700_000, &big[600_000..]));
    assert!(store.free_bytes().await > 0);
    store.remove(BlobId::of(&big)).await.unwrap();
    store.remove(BlobId::of(&big)).await.unwrap();
    assert!(!store.has(BlobId::of(&big)).await);
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(dir.path().join("blobs")).unwrap());
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn what_is_not_as_expected_or_not_finished_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = FolderBlobs::open(dir.path(), Blocking::Pool).unwrap();
    for size in [10, 600_000] {
        let mut writer = store.create(Some(BlobId::of(b"other"))).await.unwrap();
        writer.write(&vec![7; size]).await.unwrap();
        assert_eq!(writer.finish().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let mut writer = store.create(None).await.unwrap();
        writer.write(&vec![7; size]).await.unwrap();
        drop(writer);
    }
    assert_eq!(files(dir.path()), 0);
    fs::write(dir.path().join("tmp/9"), b"of a crash").unwrap();
    FolderBlobs::open(dir.path(), Blocking::Pool).unwrap();
    assert_eq!(files(dir.path()), 0);
}

#[tokio::test]
async fn a_rotten_blob_is_moved_away_and_can_be_stored_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = FolderBlobs::open(dir.path(), Blocking::Inline).unwrap();
    let id = put(&store, b"precious").await.unwrap();
    fs::write(store.0.path(id), b"Precious").unwrap();
    assert_eq!(get(&store, id, 100).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert_eq!(store.verify(id).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert!(!store.has(id).await);
    assert!(dir.path().join("corrupt").join(id.to_string()).exists());
    assert_eq!(store.verify(id).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    put(&store, b"precious").await.unwrap();
    store.verify(id).await.unwrap();
}

#[tokio::test]
async fn many_small_blobs_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = FolderBlobs::open(dir.path(), Blocking::Pool).unwrap();
    let puts = (0..300u32).map(|n| {
        let store = store.clone();
        async move { put(&store, &n.to_le_bytes()).await }
    });
    let ids = futures::future::try_join_all(puts).await.unwrap();
    assert_eq!(files(dir.path()), 300);
    for (n, id) in ids.into_iter().enumerate() {
        assert_eq!(get(&store, id, 4).await.unwrap(), (n as u32).to_le_bytes());
    }
}

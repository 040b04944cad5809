use super::*;
use crate::blobs::memory::MemoryBlobs;
use crate::blobs::{get, put};
use mesh::build::Receipt;
use mesh::identity::Keys;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

struct Signs(Duration);

#[async_trait]
impl Holder for Signs {
    async fn hold(&self, _from: PeerKey, hold: Hold) -> Result<Signed, String> {
        tokio::time::sleep(self.0).await;
        if hold.log.is_none() {
            return Err("no log".into());
        }
        let Hold { mesh, build, attempt, manifest, log } = hold;
        Ok(Signed::seal(&Keys::from_seed([2; 32]), &Receipt { mesh, build, attempt, manifest, log }))
    }

    async fn keep(&self, _: PeerKey, request: Keep) -> Result<(), String> {
        match request.ids.len() {
            1 => Ok(()),
            n => Err(format!("{n} are too many")),
        }
    }
}

fn key() -> PeerKey {
    Keys::from_seed([1; 32]).key()
}

/// A stream whose other end is served from `store`.
fn served(store: &MemoryBlobs) -> Compat<tokio::io::DuplexStream> {
    let (here, there) = tokio::io::duplex(64 << 10);
    let store = store.clone();
    tokio::spawn(async move { serve(&mut there.compat(), key(), &store, &Signs(IDLE * 2)).await });
    here.compat()
}

#[tokio::test]
async fn many_blobs_travel_on_one_stream() {
    let (theirs, ours) = (MemoryBlobs::new(1 << 30), MemoryBlobs::new(1 << 30));
    let mut stream = served(&theirs);
    let mut ids = Vec::new();
    for n in 0..500usize {
        ids.push(put(&theirs, &vec![n as u8; n * 5]).await.unwrap());
    }
    let big = put(&theirs, &vec![9; 1_000_000]).await.unwrap();
    ids.push(big);
    ids.dedup();
    for id in &ids {
        fetch(&mut stream, key(), &ours, *id, 1 << 20).await.unwrap();
    }
    assert_eq!(ours.ids(), theirs.ids());
    let stranger = BlobId::of(b"nobody has this");
    assert_eq!(fetch(&mut stream, key(), &ours, stranger, 9).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(have(&mut stream, key(), &[big, stranger]).await.unwrap(), [true, false]);
    let error = fetch(&mut stream, key(), &MemoryBlobs::new(1 << 20), big, 999_999).await.unwrap_err();
    assert!(error.kind() == io::ErrorKind::InvalidData && error.to_string().contains("1000000"), "{error}");
}

#[tokio::test]
async fn a_corrupted_source_is_named_and_loses_its_copy() {
    let (theirs, ours) = (MemoryBlobs::new(1 << 30), MemoryBlobs::new(1 << 30));
    let mut stream = served(&theirs);
    let id = put(&theirs, &vec![5; 600_000]).await.unwrap();
    theirs.rot(id);
    let error = fetch(&mut stream, key(), &ours, id, 1 << 20).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("corrupted") && error.to_string().contains(&key().to_string()), "{error}");
    assert!(ours.ids().is_empty() && theirs.ids().is_empty());
    assert_eq!(have(&mut stream, key(), &[id]).await.unwrap(), [false], "the stream goes on");
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_was() {
    let (theirs, ours) = (MemoryBlobs::new(1 << 30), MemoryBlobs::new(1 << 30));
    let bytes: Vec<u8> = (0..900_000u32).map(|n| (n % 253) as u8).collect();
    let id = put(&theirs, &bytes).await.unwrap();
    let mut download = Download::new(&ours, id, 1 << 20).await.unwrap();
    let (here, there) = tokio::io::duplex(64 << 10);
    let breaks = async {
        let mut there = there.compat();
        read_frame(&mut there, Request::MAX).await.unwrap();
        answer(&mut there, &Answer::Blob(900_000)).await.unwrap();
        write_frame(&mut there, &bytes[..100_000]).await.unwrap();
    };
    let mut here = here.compat();
    let (broken, ()) = tokio::join!(download.run(&mut here, key()), breaks);
    assert_eq!(broken.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(download.have, 100_000);
    download.run(&mut served(&theirs), key()).await.unwrap();
    download.finish().await.unwrap();
    assert_eq!(get(&ours, id, 1 << 20).await.unwrap(), bytes);
}

/// Answers one request with this much of a blob, then is gone.
fn dying(bytes: &[u8], until: usize) -> Compat<tokio::io::DuplexStream> {
    let (here, there) = tokio::io::duplex(64 << 10);
    let bytes = bytes.to_vec();
    tokio::spawn(async move {
        let mut there = there.compat();
        let asked = read_frame(&mut there, Request::MAX).await.unwrap().unwrap();
        let Ok(Request::Get(get)) = wire::decode(&asked, Request::MAX) else { panic!("not a blob") };
        answer(&mut there, &Answer::Blob(bytes.len() as u64)).await.unwrap();
        for chunk in bytes[get.offset as usize..until].chunks(10_000) {
            write_frame(&mut there, chunk).await.unwrap();
        }
    });
    here.compat()
}

#[tokio::test(start_paused = true)]
async fn a_blob_goes_on_over_other_streams_and_nothing_comes_twice() {
    let (theirs, ours) = (MemoryBlobs::new(1 << 30), MemoryBlobs::new(1 << 30));
    let bytes: Vec<u8> = (0..900_000u32).map(|n| (n % 251) as u8).collect();
    let id = put(&theirs, &bytes).await.unwrap();
    let opened = std::cell::Cell::new(0);
    let open = || {
        opened.set(opened.get() + 1);
        let stream = match opened.get() {
            1 => Ok(dying(&bytes, 300_000)),
            2 | 3 => Err(io::Error::other("not connected")), // a path is being found
            4 => Ok(dying(&bytes, 310_000)),                 // panics if it is asked for what has come already
            _ => Ok(served(&theirs)),
        };
        std::future::ready(stream)
    };
    assert_eq!(fetch_on(open, key(), &ours, id, 1 << 20).await.unwrap(), 900_000);
    assert_eq!(opened.get(), 5);
    assert_eq!(get(&ours, id, 1 << 20).await.unwrap(), bytes);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_gone_is_given_up() {
    let ours = MemoryBlobs::new(1 << 30);
    let id = BlobId::of(b"elsewhere");
    let began = Instant::now();
    let gone = || Err::<Compat<tokio::io::DuplexStream>, _>(io::Error::other("not connected"));
    let never = || std::future::ready(gone());
    fetch_on(never, key(), &ours, id, 1 << 20).await.unwrap_err();
    assert_eq!(began.elapsed(), Duration::ZERO, "nothing has come: another host may have it");
    let once = std::cell::Cell::new(true);
    let open = || {
        let stream = if once.replace(false) { Ok(dying(&[7; 1_000], 500)) } else { gone() };
        std::future::ready(stream)
    };
    fetch_on(open, key(), &ours, id, 1 << 20).await.unwrap_err();
    let waited = began.elapsed();
    assert!(waited >= RESUME_WITHIN && waited < RESUME_WITHIN * 2, "{waited:?}");
}

#[tokio::test]
async fn holding_may_take_long_but_silence_may_not() {
    let store = MemoryBlobs::new(1 << 20);
    let mut stream = served(&store);
    let id = BlobId::of(b"x");
    let ask = Hold { mesh: [3; 32], build: BuildId(1), attempt: Attempt(2), manifest: None, log: Some(id) };
    let receipt: Receipt = hold(&mut stream, key(), ask.clone()).await.unwrap().open().unwrap();
    assert_eq!((receipt.attempt, receipt.log), (Attempt(2), Some(id)));
    let error = hold(&mut stream, key(), Hold { log: None, ..ask }).await.unwrap_err();
    assert!(error.to_string().contains("no log"), "{error}");
    let (silent, _kept) = tokio::io::duplex(1 << 10);
    let error = fetch(&mut silent.compat(), key(), &store, id, 1).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn nonsense_ends_the_stream() {
    let store = MemoryBlobs::new(1 << 20);
    for nonsense in [&[0xffu8; 8][..], b"\0\0\0\x02hi", &[0, 0, 0, 1, 0x80]] {
        let (here, there) = tokio::io::duplex(1 << 10);
        let (mut here, mut there) = (here.compat(), there.compat());
        here.write_all(nonsense).await.unwrap();
        let error = serve(&mut there, key(), &store, &Signs(Duration::ZERO)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}

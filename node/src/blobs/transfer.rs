//! Moving blobs between peers: questions and answers on one stream, many one after another.
//!
//! Nothing is believed: the receiver hashes what arrives and keeps only what it asked for; a source
//! that sent other bytes is named in the error and told, so that it looks at its copy. A download can
//! go on where it broke, on another stream ([`Download`]). Who should hold what is decided by the
//! driver; it answers [`Hold`] through [`Holder`]. The stream itself comes from `node::net`.

use super::{CHUNK_BYTES_MAX, corrupt, not_found};
use crate::seams::{BlobRead, BlobStore, BlobWrite};
use async_trait::async_trait;
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use mesh::build::{Attempt, BlobId, BuildId};
use mesh::identity::PeerKey;
use mesh::wire::{self, Label, Signed};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
use std::future::Future;
use std::io;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// A peer that is silent for this long has gone.
pub const IDLE: Duration = if cfg!(test) { Duration::from_millis(500) } else { Duration::from_secs(30) };

/// How often a peer that works on a long answer says so.
const WORKING: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(10) };

/// How long a blob that broke off waits for a stream that brings more of it: a path is found in a few seconds.
pub const RESUME_WITHIN: Duration = Duration::from_secs(30);

/// Between two tries.
pub const RESUME_PAUSE: Duration = Duration::from_millis(200);

/// Ids in one question. More are asked in turns.
pub const HAVE_IDS_MAX: usize = 1_000;

/// How often one stream may make us read a blob again: each time costs us the disk.
const CORRUPT_MAX: usize = 16;

/// Asks for a blob.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Get {
    /// Which.
    pub id: BlobId,
    /// From which byte on.
    pub offset: u64,
}

/// Asks which blobs are there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Have {
    /// At most [`HAVE_IDS_MAX`].
    pub ids: Vec<BlobId>,
}

/// Says that a blob arrived with other bytes than its name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Corrupt {
    /// Which.
    pub id: BlobId,
}

/// Asks a peer to hold the blobs of an attempt: it pulls those it lacks and signs a receipt.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Hold {
    /// The mesh.
    #[serde(with = "serde_bytes")]
    pub mesh: [u8; 32],
    /// The build.
    pub build: BuildId,
    /// The attempt.
    pub attempt: Attempt,
    /// Its manifest, whose files are meant too.
    pub manifest: Option<BlobId>,
    /// Its log.
    pub log: Option<BlobId>,
}

/// Asks a peer to take blobs into its store: inputs, before the build that wants them is submitted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Keep {
    /// At most [`HAVE_IDS_MAX`].
    pub ids: Vec<BlobId>,
}

mesh::tagged! {
    /// What one side asks.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub enum Request {
        1 => Get(Get),
        2 => Have(Have),
        3 => Corrupt(Corrupt),
        4 => Hold(Hold),
        5 => Keep(Keep),
    }
}

impl Label for Request {
    const LABEL: &'static str = "mesh/blobs-request/v1";
    const MAX: usize = 64 << 10;
}

mesh::tagged! {
    /// What the other answers.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub enum Answer {
        /// All bytes of the blob; those from the offset on follow, in frames of a chunk at most.
        1 => Blob(u64),
        /// It is not here.
        2 => NotFound(()),
        /// One for each id that was asked for, 1 for here.
        3 => Have(Vec<u8>),
        /// The blob was looked at: whether it is (still) here.
        4 => Checked(bool),
        /// A [`mesh::build::Receipt`].
        5 => Receipt(Signed),
        /// No, and why.
        6 => Refused(String),
        /// An answer is being worked on.
        7 => Working(()),
        /// They are here now.
        8 => Kept(()),
    }
}

impl Label for Answer {
    const LABEL: &'static str = "mesh/blobs-answer/v1";
    const MAX: usize = 16 << 10;
}

/// Who answers [`Hold`] and [`Keep`]: the driver.
#[async_trait]
pub trait Holder: Send + Sync {
    /// Pulls from `from` what is lacking, then signs a receipt.
    ///
    /// # Errors
    /// A sentence that says why not.
    async fn hold(&self, from: PeerKey, request: Hold) -> Result<Signed, String>;

    /// Pulls from `from` what is lacking.
    ///
    /// # Errors
    /// A sentence that says why not.
    async fn keep(&self, from: PeerKey, request: Keep) -> Result<(), String>;
}

/// A stream to a peer. Anything that reads and writes.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

async fn awake<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(IDLE, work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("the peer was silent for {IDLE:?}"))),
    }
}

async fn write_frame(stream: &mut impl Duplex, bytes: &[u8]) -> io::Result<()> {
    awake(async {
        stream.write_all(&(bytes.len() as u32).to_be_bytes()).await?;
        stream.write_all(bytes).await?;
        stream.flush().await
    })
    .await
}

/// `None` when the stream ended between two frames.
async fn read_frame(stream: &mut impl Duplex, max: usize) -> io::Result<Option<Vec<u8>>> {
    awake(async {
        let mut len = [0; 4];
        if stream.read(&mut len[..1]).await? == 0 {
            return Ok(None);
        }
        stream.read_exact(&mut len[1..]).await?;
        let len = u32::from_be_bytes(len) as usize;
        if len > max {
            return Err(invalid(format!("a frame of {len} bytes is larger than the {max} allowed")));
        }
        let mut bytes = vec![0; len];
        stream.read_exact(&mut bytes).await?;
        Ok(Some(bytes))
    })
    .await
}

fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

async fn answer(stream: &mut impl Duplex, answer: &Answer) -> io::Result<()> {
    write_frame(stream, &wire::encode(answer)).await
}

async fn ask(stream: &mut impl Duplex, request: &Request) -> io::Result<Answer> {
    write_frame(stream, &wire::encode(request)).await?;
    loop {
        let bytes = read_frame(stream, Answer::MAX).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        match wire::decode(&bytes, Answer::MAX).map_err(|e| invalid(e.to_string()))? {
            Answer::Working(()) => {}
            answer => return Ok(answer),
        }
    }
}

fn unexpected(source: PeerKey, answer: &Answer) -> io::Error {
    match answer {
        Answer::Refused(why) => io::Error::new(io::ErrorKind::PermissionDenied, format!("{source} refused: {why}")),
        other => invalid(format!("{source} gave an answer that was not asked for: {other:?}")),
    }
}

/// A blob on its way here. When a stream breaks, `run` on another goes on where it was.
pub struct Download {
    id: BlobId,
    max_bytes: u64,
    have: u64,
    writer: Box<dyn BlobWrite>,
}

impl Download {
    /// Makes room for a blob of at most `max_bytes`.
    ///
    /// # Errors
    /// When the store is full.
    pub async fn new(store: &dyn BlobStore, id: BlobId, max_bytes: u64) -> io::Result<Self> {
        Ok(Download { id, max_bytes, have: 0, writer: store.create(Some(id)).await? })
    }

    /// Fetches what is still lacking.
    ///
    /// # Errors
    /// `NotFound` when the source has it not; `InvalidData` when it is too large or the source speaks
    /// nonsense; anything else when the stream broke: what had come stays, try another stream.
    pub async fn run(&mut self, stream: &mut impl Duplex, source: PeerKey) -> io::Result<()> {
        let bytes = match ask(stream, &Request::Get(Get { id: self.id, offset: self.have })).await? {
            Answer::Blob(bytes) => bytes,
            Answer::NotFound(()) => {
                return Err(io::Error::new(not_found(self.id).kind(), format!("{source} has no blob {}", self.id)));
            }
            other => return Err(unexpected(source, &other)),
        };
        if bytes > self.max_bytes || bytes < self.have {
            return Err(invalid(format!(
                "{source} says that blob {} has {bytes} bytes; at most {} were expected",
                self.id, self.max_bytes
            )));
        }
        while self.have < bytes {
            let chunk = read_frame(stream, CHUNK_BYTES_MAX).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if chunk.is_empty() || chunk.len() as u64 > bytes - self.have {
                return Err(invalid(format!(
                    "{source} sent other than the {bytes} bytes of blob {} it promised",
                    self.id
                )));
            }
            self.writer.write(&chunk).await?;
            self.have += chunk.len() as u64;
        }
        Ok(())
    }

    /// Checks and keeps the blob; its size.
    ///
    /// # Errors
    /// `InvalidData` when it is another blob; nothing is kept then.
    pub async fn finish(self) -> io::Result<u64> {
        self.writer.finish().await.map(|_| self.have)
    }
}

/// Fetches one blob; its size. More may follow on the same stream.
///
/// # Errors
/// As [`Download`]. When the bytes are corrupted, nothing is kept, the error names the source, and the
/// source has been told to look at its copy.
pub async fn fetch(
    stream: &mut impl Duplex,
    source: PeerKey,
    store: &dyn BlobStore,
    id: BlobId,
    max_bytes: u64,
) -> io::Result<u64> {
    let mut download = Download::new(store, id, max_bytes).await?;
    download.run(stream, source).await?;
    conclude(download, stream, source).await
}

/// The same on streams that `open` gives: when one breaks after something has come, the blob goes on where it was on
/// the next, as long as that brings more within [`RESUME_WITHIN`].
///
/// # Errors
/// As [`fetch`]; and at once what `open` says, or why the first stream broke, when nothing has come yet.
pub async fn fetch_on<S, F>(
    open: impl Fn() -> F,
    source: PeerKey,
    store: &dyn BlobStore,
    id: BlobId,
    max_bytes: u64,
) -> io::Result<u64>
where
    S: Duplex,
    F: Future<Output = io::Result<S>>,
{
    let mut download = Download::new(store, id, max_bytes).await?;
    let mut until = None;
    loop {
        let had = download.have;
        let error = match open().await {
            Ok(mut stream) => match download.run(&mut stream, source).await {
                Ok(()) => return conclude(download, &mut stream, source).await,
                Err(error) => error,
            },
            Err(error) => error,
        };
        if download.have > had {
            until = Some(Instant::now() + RESUME_WITHIN);
        }
        if is_answer(&error) || until.is_none_or(|until| Instant::now() >= until) {
            return Err(error);
        }
        tracing::info!(%source, %id, have = download.have, %error, "a blob broke off, and goes on on another stream");
        sleep(RESUME_PAUSE).await;
    }
}

/// Whether that is what a peer has to say, or this host's own store, and asking again would change nothing.
pub fn is_answer(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, PermissionDenied, StorageFull};
    matches!(error.kind(), NotFound | InvalidData | PermissionDenied | StorageFull)
}

/// Checks and keeps what has come; a source that sent other bytes is told.
async fn conclude(download: Download, stream: &mut impl Duplex, source: PeerKey) -> io::Result<u64> {
    let id = download.id;
    match download.finish().await {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            let told = ask(stream, &Request::Corrupt(Corrupt { id })).await;
            tracing::warn!(%source, %id, ?told, "a peer sent a corrupted blob");
            Err(invalid(format!("{source} sent blob {id} corrupted; fetch it from another host")))
        }
        other => other,
    }
}

/// Asks which of these blobs a peer has.
///
/// # Errors
/// When the stream breaks or the peer speaks nonsense.
pub async fn have(stream: &mut impl Duplex, source: PeerKey, ids: &[BlobId]) -> io::Result<Vec<bool>> {
    let mut all = Vec::with_capacity(ids.len());
    for ids in ids.chunks(HAVE_IDS_MAX) {
        match ask(stream, &Request::Have(Have { ids: ids.to_vec() })).await? {
            Answer::Have(here) if here.len() == ids.len() => all.extend(here.iter().map(|b| *b == 1)),
            other => return Err(unexpected(source, &other)),
        }
    }
    Ok(all)
}

/// Asks a peer to hold an attempt's blobs; the receipt is for the caller to check.
///
/// # Errors
/// `PermissionDenied` with the peer's words when it will not; otherwise as [`have`].
pub async fn hold(stream: &mut impl Duplex, source: PeerKey, request: Hold) -> io::Result<Signed> {
    match ask(stream, &Request::Hold(request)).await? {
        Answer::Receipt(receipt) => Ok(receipt),
        other => Err(unexpected(source, &other)),
    }
}

/// Asks a peer to take blobs into its store, and waits until it has.
///
/// # Errors
/// As [`hold`].
pub async fn keep(stream: &mut impl Duplex, source: PeerKey, ids: &[BlobId]) -> io::Result<()> {
    for ids in ids.chunks(HAVE_IDS_MAX) {
        match ask(stream, &Request::Keep(Keep { ids: ids.to_vec() })).await? {
            Answer::Kept(()) => {}
            other => return Err(unexpected(source, &other)),
        }
    }
    Ok(())
}

/// Answers a peer until it closes the stream or is silent for [`IDLE`].
///
/// # Errors
/// When the stream breaks, or the peer speaks nonsense: close it then.
pub async fn serve(
    stream: &mut impl Duplex,
    from: PeerKey,
    store: &dyn BlobStore,
    holder: &dyn Holder,
) -> io::Result<()> {
    let mut checks = 0;
    while let Some(bytes) = read_frame(stream, Request::MAX).await? {
        match wire::decode(&bytes, Request::MAX).map_err(|e| invalid(e.to_string()))? {
            Request::Get(get) => match store.open(get.id, get.offset).await {
                Ok((bytes, reader)) => send(stream, get, bytes, reader).await?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => answer(stream, &Answer::NotFound(())).await?,
                Err(error) => answer(stream, &Answer::Refused(error.to_string())).await?,
            },
            Request::Have(have) if have.ids.len() <= HAVE_IDS_MAX => {
                let mut here = Vec::with_capacity(have.ids.len());
                for id in have.ids {
                    here.push(u8::from(store.has(id).await));
                }
                answer(stream, &Answer::Have(here)).await?;
            }
            Request::Have(_) => return Err(invalid(format!("more than {HAVE_IDS_MAX} ids in one question"))),
            Request::Corrupt(Corrupt { id }) => {
                checks += 1;
                if checks > CORRUPT_MAX {
                    return Err(invalid("the peer calls too many blobs corrupt"));
                }
                let good = while_working(stream, store.verify(id)).await?;
                if let Err(error) = &good {
                    tracing::warn!(%id, %from, %error, "a peer received this blob corrupted, and our copy is bad");
                }
                answer(stream, &Answer::Checked(good.is_ok())).await?;
            }
            Request::Hold(request) => match while_working(stream, holder.hold(from, request)).await? {
                Ok(receipt) => answer(stream, &Answer::Receipt(receipt)).await?,
                Err(why) => answer(stream, &Answer::Refused(why)).await?,
            },
            Request::Keep(request) if request.ids.len() <= HAVE_IDS_MAX => {
                match while_working(stream, holder.keep(from, request)).await? {
                    Ok(()) => answer(stream, &Answer::Kept(())).await?,
                    Err(why) => answer(stream, &Answer::Refused(why)).await?,
                }
            }
            Request::Keep(_) => return Err(invalid(format!("more than {HAVE_IDS_MAX} ids in one question"))),
        }
    }
    Ok(())
}

async fn send(stream: &mut impl Duplex, get: Get, bytes: u64, mut reader: Box<dyn BlobRead>) -> io::Result<()> {
    if get.offset > bytes {
        return answer(stream, &Answer::Refused(format!("blob {} has only {bytes} bytes", get.id))).await;
    }
    answer(stream, &Answer::Blob(bytes)).await?;
    let mut sent = get.offset;
    while let Some(chunk) = reader.chunk().await? {
        write_frame(stream, &chunk).await?;
        sent += chunk.len() as u64;
    }
    if sent == bytes { Ok(()) } else { Err(corrupt(get.id)) }
}

/// Awaits a long answer and tells the peer from time to time that it is still coming.
async fn while_working<T>(stream: &mut impl Duplex, work: impl Future<Output = T>) -> io::Result<T> {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return Ok(done),
            () = tokio::time::sleep(WORKING) => answer(stream, &Answer::Working(())).await?,
        }
    }
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;

//! The seams: everything a node takes from the world around it, in one struct.
//!
//! The daemon fills them with the real thing ([`crate::machine`], files, TCP and QUIC); the simulator
//! with virtual ones. Time is not here: it is tokio's everywhere, and `libc::clock_gettime` for
//! CLOCK_BOOTTIME and the wall clock, both of which the simulator replaces underneath.

use crate::consensus::Duplex;
use crate::guard::Vault;
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use libp2p::PeerId;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::identity::Keypair;
use mesh::build::{Attempt, BlobId, BuildId, BuildSpec, Outcome};
use mesh::order::Act;
use mesh::warrant::OrderId;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Starts a task. `tokio::spawn` in the daemon; a local task in the simulator, where the order in
/// which tasks are dropped must not depend on a process-wide counter.
pub type Spawn = fn(BoxFuture<'static, ()>);

/// Dials the door of a host's guard over plain TCP: SSH goes over it ([`crate::fallback`]).
pub type DialDoor = fn(SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Duplex>>>;

/// Builds the authenticated, multiplexed transport: TCP with Noise and Yamux, and QUIC, in the
/// daemon; simulated TCP with Noise and Yamux in the simulator. Admission is wrapped around it later.
pub type MakeTransport = Box<dyn FnOnce(&Keypair) -> io::Result<Boxed<(PeerId, StreamMuxerBox)>> + Send>;

/// Opens the file-like thing that the ledger's database lives in.
pub type OpenStore = Box<dyn FnOnce() -> io::Result<Box<dyn redb::StorageBackend>> + Send>;

/// Where blocking work (a commit with its fsync) runs.
#[derive(Clone, Copy, Debug)]
pub enum Blocking {
    /// On tokio's blocking pool: the daemon.
    Pool,
    /// At once, on the calling task: tests that cannot see threads.
    Inline,
    /// On the calling task, after as long as the function says: the simulator, whose disks may be slow.
    Delayed(fn() -> std::time::Duration),
}

impl Blocking {
    /// Runs `work` where this seam says.
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Blocking::Inline => work(),
            Blocking::Delayed(time) => {
                let time = time();
                if !time.is_zero() {
                    tokio::time::sleep(time).await;
                }
                work()
            }
            Blocking::Pool => match tokio::task::spawn_blocking(work).await {
                Ok(value) => value,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => std::future::pending().await, // the runtime is shutting down
                },
            },
        }
    }
}

/// Everything a node takes from its surroundings.
pub struct Seams {
    /// How bytes reach other hosts.
    pub transport: MakeTransport,
    /// Where the ledger is kept.
    pub store: OpenStore,
    /// Where blobs are kept.
    pub blobs: Arc<dyn BlobStore>,
    /// What helps the next start, and may be lost.
    pub notes: Arc<dyn Notes>,
    /// What decides whether this host acts on a warrant.
    pub vault: Arc<dyn Vault>,
    /// The host itself.
    pub machine: Arc<dyn Machine>,
    /// How the doors of guards are dialled.
    pub doors: DialDoor,
    /// Seeds every random choice of the node.
    pub seed: [u8; 32],
    /// How tasks are started.
    pub spawn: Spawn,
    /// Where blocking work runs.
    pub blocking: Blocking,
}

/// A small file that helps a node at its next start. Nothing depends on it: it may be old, torn, or gone.
pub trait Notes: Send + Sync + 'static {
    /// What was written last, if anything can be read.
    fn read(&self) -> Option<Vec<u8>>;

    /// Puts these bytes in the place of what was there.
    ///
    /// # Errors
    /// When the disk says no.
    fn write(&self, bytes: &[u8]) -> io::Result<()>;
}

/// What a host is, as its machine tells. Slow to change; goes into its presence record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Cores offered to builds.
    pub cores: u32,
    /// Memory offered to builds, in MiB.
    pub memory_mib: u64,
    /// Tags offered to builds.
    pub tags: Vec<String>,
    /// Hash of the kernel's boot id and PID 1's start time.
    pub boot_id: [u8; 16],
    /// Hash of the machine-id: two hosts with one key are a clone.
    pub machine_id: [u8; 32],
    /// Whether the service manager starts the mesh at boot; `None` when that is unknown.
    pub boot_enabled: Option<bool>,
    /// Whether builds without a sandbox are allowed here.
    pub allow_none: bool,
    /// Whether builds may use the network here.
    pub allow_network: bool,
}

/// One attempt, ready to run: every blob it needs is in the local store.
#[derive(Clone, Debug)]
pub struct Job {
    /// The build.
    pub build: BuildId,
    /// Which try.
    pub attempt: Attempt,
    /// What to run.
    pub spec: BuildSpec,
    /// Outputs of the builds it needs: name and manifest blob.
    pub needs: Vec<(String, BlobId)>,
}

/// What a host is about to do to itself, and for whom: a licence of [`mesh::warrant`] in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errand {
    /// What.
    pub act: Act,
    /// By which order.
    pub order: OrderId,
    /// Who asked.
    pub requester: String,
    /// Why.
    pub reason: String,
}

/// A host: what it is, running a build on it, and what is done to it by warrant.
#[async_trait]
pub trait Machine: Send + Sync + 'static {
    /// What the host is.
    fn facts(&self) -> Facts;

    /// Runs one attempt to its end and stores its outputs as blobs (files, then the manifest).
    ///
    /// Log bytes go to `log` as they appear, standard output and error alike. When `cancel` fires, the
    /// whole process group is killed and the end is `Cancelled`. Dropping the future kills it too.
    /// The log blob is not this function's: the caller keeps what it was sent.
    async fn run(
        &self,
        job: Job,
        blobs: Arc<dyn BlobStore>,
        log: mpsc::Sender<Bytes>,
        cancel: CancellationToken,
    ) -> Outcome;

    /// Tells the machine's own journal and the users on it, as well as it can: nobody waits for a user.
    async fn tell(&self, line: &str);

    /// Restarts the service or the machine. Returns when that is under way; it may end whoever called.
    ///
    /// # Errors
    /// Why it cannot be done; nothing has begun then, as far as can be told.
    async fn act(&self, errand: &Errand) -> io::Result<()>;
}

/// A content-addressed store. What is in it has been verified and synced.
#[async_trait]
pub trait BlobStore: Send + Sync + 'static {
    /// Whether a blob is here.
    async fn has(&self, id: BlobId) -> bool;

    /// Opens a blob for reading from `offset` on; its size comes along.
    ///
    /// # Errors
    /// `NotFound` when it is not here.
    async fn open(&self, id: BlobId, offset: u64) -> io::Result<(u64, Box<dyn BlobRead>)>;

    /// Starts a blob whose name is not known yet, or is `expect`.
    ///
    /// # Errors
    /// When there is no room.
    async fn create(&self, expect: Option<BlobId>) -> io::Result<Box<dyn BlobWrite>>;

    /// Removes a blob. Removing one that is not here is no error.
    ///
    /// # Errors
    /// When the store fails.
    async fn remove(&self, id: BlobId) -> io::Result<()>;

    /// Reads a blob again and compares it with its name. A corrupt one is moved out of the way.
    ///
    /// # Errors
    /// `NotFound` when it is not here, `InvalidData` when it was corrupt (and is gone now).
    async fn verify(&self, id: BlobId) -> io::Result<()>;

    /// Bytes that can still be stored.
    async fn free_bytes(&self) -> u64;
}

/// Reads a blob, chunk by chunk.
#[async_trait]
pub trait BlobRead: Send {
    /// The next chunk, at most 256 KiB; `None` at the end.
    ///
    /// # Errors
    /// When the store fails.
    async fn chunk(&mut self) -> io::Result<Option<Bytes>>;
}

/// Writes a blob. Dropped before [`BlobWrite::finish`], it leaves nothing behind.
#[async_trait]
pub trait BlobWrite: Send {
    /// Appends bytes.
    ///
    /// # Errors
    /// When there is no room, or the blob exceeds `BLOB_BYTES_MAX`.
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Hashes, syncs and publishes the blob.
    ///
    /// # Errors
    /// `InvalidData` when it is not the blob that was expected; nothing is kept then.
    async fn finish(self: Box<Self>) -> io::Result<BlobId>;
}

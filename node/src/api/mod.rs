//! The daemon's API: HTTP with JSON on a Unix socket in the state folder.
//!
//! [`types`] is what travels, [`Control`] what the driver does for it, [`server`] and [`client`] the two
//! ends. Who may connect may do everything: the socket's mode (0600, or 0660 for one group) is the only
//! door. The command line ([`crate::cli`]) is the first client.

pub mod client;
pub mod doctor;
pub mod healing;
pub mod measures;
pub mod order;
mod ping;
pub mod recovery;
pub mod server;
mod spec;
pub mod succession;
pub(crate) mod tend;
mod tend_client;
mod topology;
pub mod types;
mod why;

pub use tend::Tend;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use mesh::build::{Attempt, BlobId, BuildId, BuildSpec};
use order::{OrderEvent, OrderRequest};
use std::io;
use tokio::sync::mpsc;
use types::{
    ApiError, BuildDetail, BuildFilter, BuildSummary, InviteRequest, LogEvent, MeshFacts, PingReport, RecoveryPlan,
    RenameRequest, ReplaceRequest, Status, Topology, WhyReport,
};

/// A blob on its way, chunk by chunk.
pub type ByteStream = BoxStream<'static, io::Result<Bytes>>;

/// What the daemon does for its users. The driver implements it.
#[async_trait]
pub trait Control: Tend {
    /// How the mesh is, as this host sees it.
    async fn status(&self) -> Status;

    /// Queues builds, all or none. The same request id again gives the same builds.
    ///
    /// # Errors
    /// When a build is refused or no leader commits it in time; with the same id it can be tried again.
    async fn submit(&self, request: [u8; 16], specs: Vec<BuildSpec>) -> Result<Vec<BuildId>, ApiError>;

    /// Builds, the newest first.
    async fn builds(&self, filter: BuildFilter) -> Vec<BuildSummary>;

    /// One build with its attempts.
    ///
    /// # Errors
    /// When there is no such build.
    async fn build(&self, id: BuildId) -> Result<BuildDetail, ApiError>;

    /// Returns as soon as the build's revision differs from `known`; revisions begin at 1.
    ///
    /// # Errors
    /// When there is no such build.
    async fn wait(&self, id: BuildId, known: u64) -> Result<BuildDetail, ApiError>;

    /// Cancels builds. One that has ended stays as it is.
    ///
    /// # Errors
    /// When one does not exist; none is cancelled then.
    async fn cancel(&self, ids: Vec<BuildId>) -> Result<(), ApiError>;

    /// Submits a build that has ended again, as a new build.
    ///
    /// # Errors
    /// When there is no such build, or it has not ended.
    async fn retry(&self, id: BuildId) -> Result<BuildId, ApiError>;

    /// The log of an attempt, the newest when none is named. Ends with [`LogEvent::End`].
    ///
    /// # Errors
    /// When there is no such build or attempt, or nobody who holds its log can be reached.
    async fn logs(
        &self,
        id: BuildId,
        attempt: Option<Attempt>,
        follow: bool,
    ) -> Result<mpsc::Receiver<LogEvent>, ApiError>;

    /// Stores a blob here; its name and size.
    ///
    /// # Errors
    /// When there is no room, or it is not the blob that was expected.
    async fn put_blob(&self, expect: Option<BlobId>, body: ByteStream) -> Result<(BlobId, u64), ApiError>;

    /// Whether a blob is here already, so that nobody needs to send it. Nothing is fetched for it.
    async fn has_blob(&self, id: BlobId) -> bool;

    /// A blob and its size; fetched from another host when it is not here.
    ///
    /// # Errors
    /// When nobody who can be reached has it.
    async fn get_blob(&self, id: BlobId) -> Result<(u64, ByteStream), ApiError>;

    /// Makes an invitation: its token.
    ///
    /// # Errors
    /// When this host is no signer, or the name is taken.
    async fn invite(&self, request: InviteRequest) -> Result<String, ApiError>;

    /// Revokes a host's key.
    ///
    /// # Errors
    /// When there is no such host, this one is no signer, or it is the last.
    async fn evict(&self, host: String, ban: bool, reason: String) -> Result<(), ApiError>;

    /// Gives a host another name.
    ///
    /// # Errors
    /// When there is no such host, the name is taken, or this host is no signer.
    async fn rename(&self, request: RenameRequest) -> Result<(), ApiError>;

    /// Takes a lost host out and invites its successor, in one entry: the successor's token.
    ///
    /// # Errors
    /// When there is no such host, it may live, it is needed, or this host is no signer.
    async fn replace(&self, request: ReplaceRequest) -> Result<String, ApiError>;

    /// What a recovery with this host as the heir would be; with `force` also when voters may live.
    ///
    /// # Errors
    /// When this host's log cannot be read. What speaks against a recovery is in the plan.
    async fn plan_recovery(&self, force: bool) -> Result<RecoveryPlan, ApiError>;

    /// Takes a recovery record, in words: goes on as the heir, or follows it. The daemon starts again then.
    ///
    /// # Errors
    /// When it is not genuine, old, of another log, or cannot be stored.
    async fn recover(&self, record: String) -> Result<String, ApiError>;

    /// How a host is reached: its path, `count` round trips, and what is known of every lead to it.
    ///
    /// # Errors
    /// When there is no such host. That it does not answer is no error but the report.
    async fn ping(&self, host: String, count: u32) -> Result<PingReport, ApiError>;

    /// Where everybody is, as this host sees it.
    async fn topology(&self) -> Topology;

    /// What the daemon knows that `mesh doctor` judges.
    async fn doctor(&self) -> MeshFacts;

    /// The story of one host: what is believed of it, who accuses it, what happened, and what to do.
    ///
    /// # Errors
    /// When no host is called so, or several could be meant; names near it are in the hint.
    async fn why(&self, host: String) -> Result<WhyReport, ApiError>;

    /// Orders a host to restart its service or its machine, on a person's word. What happens comes one by one.
    ///
    /// # Errors
    /// When there is no such host, this one is no signer, or a rule holds the order back; nothing is written then.
    async fn order(&self, host: String, request: OrderRequest) -> Result<mpsc::Receiver<OrderEvent>, ApiError>;

    /// Leaves the mesh for good, then stops.
    ///
    /// # Errors
    /// When the mesh cannot be told.
    async fn leave(&self) -> Result<(), ApiError>;

    /// Stops the daemon.
    async fn shutdown(&self);
}

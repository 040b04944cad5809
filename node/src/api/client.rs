//! The other end of the API: one connection a request over the daemon's Unix socket. Knows no exit
//! codes and prints nothing; [`crate::cli`] does.

use super::order::{OrderEvent, OrderRequest};
use super::types::*;
use super::{ByteStream, types};
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use http_body_util::{BodyExt, BodyStream, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use mesh::build::{BlobId, BuildId, BuildSpec};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::UnixStream;

/// How long a daemon may take to answer a question that needs no waiting.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long it may take to begin sending a blob: it may have to get all of it from another host first.
const FETCH_TIMEOUT: Duration = Duration::from_secs(900);

/// One line of a stream, or one answer.
const JSON_BYTES_MAX: usize = 64 << 20;

/// How often a submission is tried again when the daemon goes away under it.
const SUBMIT_TRIES: u32 = 6;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no daemon runs on {}", .0.display())]
    NoDaemon(PathBuf),
    /// The socket is somebody else's.
    #[error("the daemon of {} belongs to {owner}, and you may not use it", path.display())]
    NotAllowed {
        /// The socket.
        path: PathBuf,
        /// Whose it is.
        owner: String,
    },
    /// The daemon took too long.
    #[error("the daemon did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    TimedOut,
    /// The connection broke. Whether the request had an effect is not known.
    #[error("the connection to the daemon broke: {0}")]
    Broken(String),
    /// The daemon refused, and gave no reason that can be read.
    #[error("the daemon answered {0} without a reason")]
    Unexplained(u16),
    /// The daemon answered, and the answer is no. Nothing was changed.
    #[error(transparent)]
    Api(#[from] ApiError),
}

type Body = UnsyncBoxBody<Bytes, io::Error>;
pub(super) type Result<T> = std::result::Result<T, ClientError>;

fn broken(error: impl std::fmt::Display) -> ClientError {
    ClientError::Broken(error.to_string())
}

/// A daemon, as seen from outside.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Of the daemon behind this socket. Nothing is connected yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Client { socket: socket.into() }
    }

    /// Where the socket is.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    async fn send(&self, method: Method, path: &str, body: Body) -> Result<Response<Incoming>> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoDaemon(self.socket.clone()),
            io::ErrorKind::PermissionDenied => {
                let owner = crate::state_folder::owner_of(&self.socket);
                ClientError::NotAllowed { path: self.socket.clone(), owner }
            }
            _ => broken(error),
        })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection); // ends with the answer's body; its error shows there
        let request = Request::builder().method(method).uri(path).header("host", "mesh").body(body).map_err(broken)?;
        let response = sender.send_request(request).await.map_err(broken)?;
        if response.status().is_success() {
            return Ok(response);
        }
        #[derive(serde::Deserialize)]
        struct Refusal {
            error: ApiError,
        }
        let status = response.status();
        let bytes = collect(response).await?;
        match serde_json::from_slice::<Refusal>(&bytes) {
            Ok(refusal) => Err(refusal.error.into()),
            Err(_) => Err(ClientError::Unexplained(status.as_u16())),
        }
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Body) -> Result<T> {
        let answer = async {
            let bytes = collect(self.send(method, path, body).await?).await?;
            serde_json::from_slice(&bytes).map_err(broken)
        };
        tokio::time::timeout(ANSWER_TIMEOUT, answer).await.unwrap_or(Err(ClientError::TimedOut))
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.ask(Method::GET, path, full(Bytes::new())).await
    }

    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, value: &impl Serialize) -> Result<T> {
        self.ask(Method::POST, path, json(value)?).await
    }

    /// How the mesh is.
    ///
    /// # Errors
    /// As [`ClientError`] says; so for all below.
    pub async fn status(&self) -> Result<Status> {
        self.get("/v1/status").await
    }

    /// Submits builds. Tried again with the same request id when the daemon goes away meanwhile.
    ///
    /// # Errors
    /// When it stays away, or says no.
    pub async fn submit(&self, request: [u8; 16], specs: &[BuildSpec]) -> Result<Vec<BuildId>> {
        let request = SubmitRequest {
            version: VERSION,
            request: crate::state_folder::hex(&request),
            builds: specs.iter().map(SpecJson::from).collect(),
        };
        let mut tries = 1;
        loop {
            match self.post::<BuildIds>("/v1/builds", &request).await {
                Ok(ids) => return Ok(ids.builds),
                Err(ClientError::Broken(_) | ClientError::TimedOut) if tries < SUBMIT_TRIES => {}
                // The first time nobody was there; later, it may be starting again.
                Err(ClientError::NoDaemon(_)) if (2..SUBMIT_TRIES).contains(&tries) => {}
                Err(ClientError::Api(error)) if error.code == "no-leader" && tries < SUBMIT_TRIES => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(Duration::from_millis(250) * tries).await;
            tries += 1;
        }
    }

    /// Builds, the newest first.
    ///
    /// # Errors
    /// As above.
    pub async fn builds(&self, filter: BuildFilter) -> Result<Vec<BuildSummary>> {
        let mut path = format!("/v1/builds?limit={}", filter.limit.unwrap_or(100));
        if let Some(state) = filter.state {
            path += &format!("&state={}", state.word());
        }
        Ok(self.get::<BuildList>(&path).await?.builds)
    }

    /// One build.
    ///
    /// # Errors
    /// As above.
    pub async fn build(&self, id: BuildId) -> Result<BuildDetail> {
        self.get(&format!("/v1/builds/{id}")).await
    }

    /// One build, once it has changed since this revision; waits as long as that takes.
    ///
    /// # Errors
    /// As above.
    pub async fn wait(&self, id: BuildId, known: u64) -> Result<BuildDetail> {
        let path = format!("/v1/builds/{id}?known={known}");
        let bytes = collect(self.send(Method::GET, &path, full(Bytes::new())).await?).await?;
        serde_json::from_slice(&bytes).map_err(broken)
    }

    /// Every change of some builds until all have ended.
    ///
    /// # Errors
    /// As above, at the start or in the stream.
    pub async fn progress(&self, ids: &[BuildId]) -> Result<BoxStream<'static, Result<BuildDetail>>> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Line {
            Error { error: ApiError },
            Detail(Box<BuildDetail>),
        }
        let body = json(&BuildIds { version: VERSION, builds: ids.to_vec() })?;
        let lines = lines(self.send(Method::POST, "/v1/progress", body).await?);
        let details = lines.map(|line| match serde_json::from_slice(&line?).map_err(broken)? {
            Line::Detail(detail) => Ok(*detail),
            Line::Error { error } => Err(error.into()),
        });
        Ok(details.boxed())
    }

    /// Cancels builds.
    ///
    /// # Errors
    /// As above.
    pub async fn cancel(&self, ids: &[BuildId]) -> Result<()> {
        let ids = BuildIds { version: VERSION, builds: ids.to_vec() };
        self.post::<Ok1>("/v1/cancel", &ids).await.map(|_| ())
    }

    /// Submits a build again.
    ///
    /// # Errors
    /// As above.
    pub async fn retry(&self, id: BuildId) -> Result<BuildId> {
        let ids: BuildIds = self.post(&format!("/v1/builds/{id}/retry"), &()).await?;
        ids.builds.first().copied().ok_or_else(|| broken("it named no build"))
    }

    /// A log, piece by piece.
    ///
    /// # Errors
    /// As above, at the start or in the stream.
    pub async fn logs(
        &self,
        id: BuildId,
        attempt: Option<u32>,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<LogEvent>>> {
        let attempt = attempt.map_or(String::new(), |a| format!("&attempt={a}"));
        let path = format!("/v1/builds/{id}/logs?follow={follow}{attempt}");
        let lines = lines(self.send(Method::GET, &path, full(Bytes::new())).await?);
        let events = lines.map(|line| {
            Ok(match serde_json::from_slice(&line?).map_err(broken)? {
                LogLine::Attempt { attempt, host } => LogEvent::Attempt { attempt, host },
                LogLine::Text(text) => LogEvent::Data(text.into()),
                LogLine::Hex(digits) => {
                    let bytes = crate::state_folder::unhex(&digits).ok_or_else(|| broken("bad digits"))?;
                    LogEvent::Data(bytes.into())
                }
                LogLine::Lost(bytes) => LogEvent::Lost(bytes),
                LogLine::End { text } => LogEvent::End { text },
            })
        });
        Ok(events.boxed())
    }

    /// Orders a host to restart; what happens, until it is over.
    ///
    /// # Errors
    /// As above, at the start or in the stream.
    pub async fn order(&self, host: &str, request: &OrderRequest) -> Result<BoxStream<'static, Result<OrderEvent>>> {
        let body = serde_json::to_vec(request).map_err(broken)?;
        let lines = lines(self.send(Method::POST, &format!("/v1/hosts/{host}/order"), full(body.into())).await?);
        Ok(lines.map(|line| serde_json::from_slice(&line?).map_err(broken)).boxed())
    }

    /// Whether the daemon has a blob already.
    ///
    /// # Errors
    /// As above.
    pub async fn has_blob(&self, id: BlobId) -> Result<bool> {
        let path = format!("/v1/blobs/{id}");
        let asked = self.send(Method::HEAD, &path, full(Bytes::new()));
        match tokio::time::timeout(ANSWER_TIMEOUT, asked).await.unwrap_or(Err(ClientError::TimedOut)) {
            Ok(_) => Ok(true),
            // An answer to HEAD has no body, so a refusal comes without its reason.
            Err(ClientError::Unexplained(404)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Stores a blob with the daemon. Takes as long as it takes, as long as bytes move.
    ///
    /// # Errors
    /// As above; when the stream fails, the connection breaks.
    pub async fn put_blob(&self, data: ByteStream) -> Result<(BlobId, u64)> {
        let moved = Arc::new(AtomicU64::new(0));
        let count = moved.clone();
        let data = data.inspect_ok(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let body = StreamBody::new(data.map_ok(Frame::data)).boxed_unsync();
        let mut answer = std::pin::pin!(async {
            let bytes = collect(self.send(Method::POST, "/v1/blobs", body).await?).await?;
            serde_json::from_slice::<StoredBlob>(&bytes).map_err(broken)
        });
        let mut seen = 0;
        loop {
            match tokio::time::timeout(ANSWER_TIMEOUT, &mut answer).await {
                Ok(stored) => return stored.map(|s| (s.blob, s.bytes)),
                Err(_) if moved.load(Ordering::Relaxed) == seen => return Err(ClientError::TimedOut),
                Err(_) => seen = moved.load(Ordering::Relaxed),
            }
        }
    }

    /// A blob, chunk by chunk. The caller compares it with its name.
    ///
    /// # Errors
    /// As above.
    pub async fn get_blob(&self, id: BlobId) -> Result<ByteStream> {
        let path = format!("/v1/blobs/{id}");
        let asked = tokio::time::timeout(FETCH_TIMEOUT, self.send(Method::GET, &path, full(Bytes::new())));
        let chunks = data(asked.await.unwrap_or(Err(ClientError::TimedOut))?).map_err(io::Error::other).boxed();
        let watched = stream::try_unfold(chunks, |mut chunks| async move {
            match tokio::time::timeout(ANSWER_TIMEOUT, chunks.next()).await {
                Ok(chunk) => Ok(chunk.transpose()?.map(|chunk| (chunk, chunks))),
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, ClientError::TimedOut.to_string())),
            }
        });
        Ok(watched.boxed())
    }

    /// Makes an invitation.
    ///
    /// # Errors
    /// As above.
    pub async fn invite(&self, request: &InviteRequest) -> Result<String> {
        Ok(self.post::<types::Invitation>("/v1/invite", request).await?.token)
    }

    /// Revokes a host.
    ///
    /// # Errors
    /// As above.
    pub async fn evict(&self, request: &EvictRequest) -> Result<()> {
        self.post::<Ok1>("/v1/evict", request).await.map(|_| ())
    }

    /// Gives a host another name.
    ///
    /// # Errors
    /// As above.
    pub async fn rename(&self, request: &RenameRequest) -> Result<()> {
        self.post::<Ok1>("/v1/rename", request).await.map(|_| ())
    }

    /// Takes a lost host out; its successor's token.
    ///
    /// # Errors
    /// As above.
    pub async fn replace(&self, request: &ReplaceRequest) -> Result<String> {
        Ok(self.post::<types::Invitation>("/v1/replace", request).await?.token)
    }

    /// What a recovery would be.
    ///
    /// # Errors
    /// As above.
    pub async fn plan_recovery(&self, force: bool) -> Result<RecoveryPlan> {
        self.get(&format!("/v1/recovery?force={force}")).await
    }

    /// Takes a recovery record.
    ///
    /// # Errors
    /// As above.
    pub async fn recover(&self, record: String) -> Result<String> {
        Ok(self.post::<Recovered>("/v1/recovery", &RecoverRequest { record }).await?.text)
    }

    /// How a host is reached.
    ///
    /// # Errors
    /// As above.
    pub async fn ping(&self, host: &str, count: u32) -> Result<PingReport> {
        self.get(&format!("/v1/hosts/{host}/ping?count={count}")).await
    }

    /// Where everybody is, as this host sees it.
    ///
    /// # Errors
    /// As above.
    pub async fn topology(&self) -> Result<Topology> {
        self.get("/v1/topology").await
    }

    /// What the daemon knows that `mesh doctor` judges.
    ///
    /// # Errors
    /// As above.
    pub async fn doctor(&self) -> Result<MeshFacts> {
        self.get("/v1/doctor").await
    }

    /// The story of one host.
    ///
    /// # Errors
    /// As above.
    pub async fn why(&self, host: &str) -> Result<WhyReport> {
        self.get(&format!("/v1/hosts/{host}/why")).await
    }

    /// Leaves the mesh.
    ///
    /// # Errors
    /// As above.
    pub async fn leave(&self) -> Result<()> {
        self.post::<Ok1>("/v1/leave", &()).await.map(|_| ())
    }

    /// Stops the daemon.
    ///
    /// # Errors
    /// As above.
    pub async fn shutdown(&self) -> Result<()> {
        self.post::<Ok1>("/v1/shutdown", &()).await.map(|_| ())
    }
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn json(value: &impl Serialize) -> Result<Body> {
    serde_json::to_vec(value).map(|bytes| full(bytes.into())).map_err(broken)
}

fn data(response: Response<Incoming>) -> impl futures::Stream<Item = hyper::Result<Bytes>> + Send {
    BodyStream::new(response.into_body()).try_filter_map(|frame| async { Ok(frame.into_data().ok()) })
}

async fn collect(response: Response<Incoming>) -> Result<Bytes> {
    let body = http_body_util::Limited::new(response.into_body(), JSON_BYTES_MAX);
    Ok(body.collect().await.map_err(broken)?.to_bytes())
}

/// The lines of a stream, without their ends.
fn lines(response: Response<Incoming>) -> impl futures::Stream<Item = Result<Bytes>> + Send {
    let start = (data(response).boxed(), BytesMut::new(), 0);
    stream::try_unfold(start, |(mut data, mut rest, mut seen)| async move {
        loop {
            if let Some(at) = rest[seen..].iter().position(|b| *b == b'\n') {
                let line = rest.split_to(seen + at + 1).freeze();
                return Ok(Some((line, (data, rest, 0))));
            }
            seen = rest.len();
            if seen > JSON_BYTES_MAX {
                return Err(broken("a line without end"));
            }
            match data.next().await {
                Some(chunk) => rest.extend_from_slice(&chunk.map_err(broken)?),
                None if rest.is_empty() => return Ok(None),
                None => return Err(broken("it ended in the middle of a line")),
            }
        }
    })
}

//! The daemon's end of the API. Knows routes and JSON, decides nothing: every request becomes one call
//! of [`Control`]. Logs and progress are streamed as lines of JSON; blobs as they are.

use super::Control;
use super::order::OrderRequest;
use super::types::*;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use futures::{StreamExt, TryStreamExt};
use mesh::build::{Attempt, BlobId, BuildId, BuildSpec};
use mesh::limits::{INVITATION_MS_MAX, NAME_BYTES_MAX, SUBMISSION_BUILDS_MAX, TEXT_BYTES_MAX};
use mesh::roster::valid_host_name;
use nix::sys::stat::{Mode, umask};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

/// A request's JSON. A submission as large as an entry of the ledger fits several times over.
const JSON_BYTES_MAX: usize = 16 << 20;

/// Round trips of one ping when nothing is said, and at most: all within the time that a client waits.
const PINGS: u32 = 5;
const PINGS_MAX: u32 = 100;

pub(super) type Ctl = State<Arc<dyn Control>>;
pub(super) type Answer = Result<Response, ApiError>;

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        json(status, &serde_json::json!({ "version": VERSION, "error": self }))
    }
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => (status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

pub(super) fn ok<T: Serialize>(value: &T) -> Answer {
    Ok(json(StatusCode::OK, value))
}

pub(super) fn done() -> Answer {
    ok(&Ok1 { version: VERSION })
}

/// Opens the socket, readable by its owner and, when given, one group. The caller holds the folder's
/// lock, so a socket that is there already is a dead daemon's.
///
/// # Errors
/// When the system says no, or the group does not exist.
pub fn listen(path: &std::path::Path, group: Option<&str>) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Born closed: a socket that is opened first and closed later has let somebody in between.
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound?;
    if let Some(name) = group {
        let group = nix::unistd::Group::from_name(name)?.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("there is no group `{name}` ([api] group)"))
        })?;
        nix::unistd::chown(path, None, Some(group.gid))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    }
    Ok(listener)
}

/// Serves until `stop` fires and the requests under way have ended.
///
/// # Errors
/// When the socket fails.
pub async fn serve(listener: UnixListener, control: Arc<dyn Control>, stop: CancellationToken) -> io::Result<()> {
    axum::serve(listener, router(control)).with_graceful_shutdown(stop.cancelled_owned()).await
}

fn router(control: Arc<dyn Control>) -> Router {
    let blobs = Router::new()
        .route("/v1/blobs", post(post_blob))
        .route("/v1/blobs/{id}", put(put_blob).get(get_blob).head(has_blob))
        .layer(DefaultBodyLimit::disable()); // the store has its own bound, BLOB_BYTES_MAX
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/builds", get(builds).post(submit))
        .route("/v1/builds/{id}", get(build))
        .route("/v1/builds/{id}/retry", post(retry))
        .route("/v1/builds/{id}/logs", get(logs))
        .route("/v1/cancel", post(cancel))
        .route("/v1/progress", post(progress))
        .route("/v1/invite", post(invite))
        .route("/v1/evict", post(evict))
        .route("/v1/rename", post(rename))
        .route("/v1/replace", post(replace))
        .route("/v1/doctor", get(doctor))
        .route("/v1/recovery", get(plan_recovery).post(recover))
        .route("/v1/hosts/{name}/ping", get(ping))
        .route("/v1/hosts/{name}/why", get(why))
        .route("/v1/hosts/{name}/order", post(order))
        .route("/v1/topology", get(topology))
        .route("/v1/leave", post(leave))
        .route("/v1/shutdown", post(shutdown))
        .merge(super::tend::routes())
        .layer(DefaultBodyLimit::max(JSON_BYTES_MAX))
        .merge(blobs)
        .fallback(|| async { ApiError::not_found("no such route").hint("is this mesh older than its client?") })
        .method_not_allowed_fallback(|| async { ApiError::new(405, "bad-method", "not with this method") })
        .with_state(control)
}

pub(super) fn body<T: DeserializeOwned>(bytes: Result<Bytes, BytesRejection>) -> Result<T, ApiError> {
    let bytes = bytes.map_err(|e| ApiError::new(e.status().as_u16(), "bad-body", e.body_text()))?;
    serde_json::from_slice(&bytes).map_err(|e| ApiError::bad_request(format!("the request is not as expected: {e}")))
}

pub(super) fn parse<T: std::str::FromStr<Err = String>>(text: &str) -> Result<T, ApiError> {
    match text.len() {
        0..=100 => text.parse().map_err(ApiError::bad_request),
        _ => Err(ApiError::bad_request("that id is too long")),
    }
}

pub(super) fn query<T>(q: Result<Query<T>, axum::extract::rejection::QueryRejection>) -> Result<T, ApiError> {
    q.map(|Query(value)| value).map_err(|e| ApiError::bad_request(e.body_text()))
}

async fn status(State(control): Ctl) -> Answer {
    ok(&control.status().await)
}

async fn submit(State(control): Ctl, bytes: Result<Bytes, BytesRejection>) -> Answer {
    let request: SubmitRequest = body(bytes)?;
    let id = crate::state_folder::unhex(&request.request).and_then(|b| <[u8; 16]>::try_from(b).ok());
    let id = id.ok_or_else(|| ApiError::bad_request("`request` is not 32 hexadecimal digits"))?;
    if !(1..=SUBMISSION_BUILDS_MAX).contains(&request.builds.len()) {
        let message =
            format!("{} builds in one submission; 1 to {SUBMISSION_BUILDS_MAX} are allowed", request.builds.len());
        return Err(ApiError::bad_request(message));
    }
    let specs: Vec<BuildSpec> = request.builds.into_iter().map(BuildSpec::from).collect();
    for spec in &specs {
        spec.check().map_err(|e| ApiError::bad_request(crate::config::shorten(&e)))?;
    }
    ok(&BuildIds { version: VERSION, builds: control.submit(id, specs).await? })
}

async fn builds(
    State(control): Ctl,
    filter: Result<Query<BuildFilter>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    ok(&BuildList { version: VERSION, builds: control.builds(query(filter)?).await })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    known: Option<u64>,
}

async fn build(
    State(control): Ctl,
    Path(id): Path<String>,
    known: Result<Query<Known>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    let id = parse(&id)?;
    match query(known)?.known {
        Some(known) => ok(&control.wait(id, known).await?),
        None => ok(&control.build(id).await?),
    }
}

async fn retry(State(control): Ctl, Path(id): Path<String>) -> Answer {
    ok(&BuildIds { version: VERSION, builds: vec![control.retry(parse(&id)?).await?] })
}

async fn cancel(State(control): Ctl, bytes: Result<Bytes, BytesRejection>) -> Answer {
    control.cancel(ids(bytes)?).await?;
    done()
}

fn ids(bytes: Result<Bytes, BytesRejection>) -> Result<Vec<BuildId>, ApiError> {
    let ids: BuildIds = body(bytes)?;
    match ids.builds.len() {
        1..=SUBMISSION_BUILDS_MAX => Ok(ids.builds),
        n => Err(ApiError::bad_request(format!("{n} builds; 1 to {SUBMISSION_BUILDS_MAX} are allowed"))),
    }
}

fn lines<T: Serialize + Send + 'static>(events: impl futures::Stream<Item = T> + Send + 'static) -> Answer {
    let lines = events.map(|event| {
        let mut line = serde_json::to_vec(&event).map_err(io::Error::other)?;
        line.push(b'\n');
        io::Result::Ok(Bytes::from(line))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// Every change of some builds, a line each, until all have ended.
async fn progress(State(control): Ctl, bytes: Result<Bytes, BytesRejection>) -> Answer {
    let ids = ids(bytes)?;
    let each = ids.into_iter().map(move |id| {
        let control = control.clone();
        let changes = futures::stream::unfold(Some(0), move |known| {
            let control = control.clone();
            async move {
                let detail = control.wait(id, known?).await;
                let next = detail.as_ref().ok().filter(|d| !d.summary.state.is_final()).map(|d| d.revision);
                let line = match detail {
                    Ok(detail) => serde_json::to_value(detail),
                    Err(error) => serde_json::to_value(serde_json::json!({ "error": error })),
                };
                Some((line.unwrap_or_default(), next))
            }
        });
        changes.boxed()
    });
    lines(futures::stream::select_all(each))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogQuery {
    attempt: Option<u32>,
    #[serde(default)]
    follow: bool,
}

async fn logs(
    State(control): Ctl,
    Path(id): Path<String>,
    wish: Result<Query<LogQuery>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    let wish = query(wish)?;
    let events = control.logs(parse(&id)?, wish.attempt.map(Attempt), wish.follow).await?;
    let events = futures::stream::unfold(events, |mut events| async move { Some((events.recv().await?, events)) });
    lines(events.map(LogLine::from))
}

async fn store(control: Arc<dyn Control>, expect: Option<BlobId>, data: Body) -> Answer {
    let stream = data.into_data_stream().map_err(io::Error::other).boxed();
    let (blob, bytes) = control.put_blob(expect, stream).await?;
    ok(&StoredBlob { version: VERSION, blob, bytes })
}

async fn post_blob(State(control): Ctl, data: Body) -> Answer {
    store(control, None, data).await
}

async fn put_blob(State(control): Ctl, Path(id): Path<String>, data: Body) -> Answer {
    store(control, Some(parse(&id)?), data).await
}

async fn has_blob(State(control): Ctl, Path(id): Path<String>) -> Answer {
    match control.has_blob(parse(&id)?).await {
        true => Ok(StatusCode::OK.into_response()),
        false => Err(ApiError::not_found("that blob is not here")),
    }
}

async fn get_blob(State(control): Ctl, Path(id): Path<String>) -> Answer {
    let (bytes, stream) = control.get_blob(parse(&id)?).await?;
    Ok(([(header::CONTENT_LENGTH, bytes.to_string())], Body::from_stream(stream)).into_response())
}

async fn invite(State(control): Ctl, bytes: Result<Bytes, BytesRejection>) -> Answer {
    let request: InviteRequest = body(bytes)?;
    named(&request.name)?;
    if !(1..=INVITATION_MS_MAX).contains(&request.expires_ms) {
        return Err(ApiError::bad_request("an invitation lives for at most 30 days").hint("use --expires 24h"));
    }
    ok(&Invitation { version: VERSION, token: control.invite(request).await? })
}

/// A host's name, when it is one.
pub(super) fn named(name: &str) -> Result<(), ApiError> {
    if valid_host_name(name) { Ok(()) } else { Err(bad_host_name(name)) }
}

/// What to say of a name that is none.
pub fn bad_host_name(name: &str) -> ApiError {
    ApiError::bad_request(format!("`{}` is no host name", crate::config::shorten(name)))
        .hint(format!("use letters, digits and dashes, {NAME_BYTES_MAX} at most, for example `builder-1`"))
}

async fn evict(State(control): Ctl, bytes: Result<Bytes, BytesRejection>) -> Answer {
    let EvictRequest { host, ban, reason } = body(bytes)?;
    named(&host)?;
    if reason.trim().is_empty() || reason.len() > TEXT_BYTES_MAX || reason.contains('\0') {
        let message = format!("the reason is empty, has a zero byte, or is longer than {TEXT_BYTES_MAX} bytes");
        return Err(ApiError::bad_request(message).hint("use --reason \"disk fails\""));
    }
    control.evict(host, ban, reason).await?;
    done()
}

async fn rename(State(control): Ctl, bytes: Result<Bytes, BytesRejection>) -> Answer {
    let request: RenameRequest = body(bytes)?;
    request.check()?;
    control.rename(request).await?;
    done()
}

async fn replace(State(control): Ctl, bytes: Result<Bytes, BytesRejection>) -> Answer {
    let request: ReplaceRequest = body(bytes)?;
    request.check()?;
    ok(&Invitation { version: VERSION, token: control.replace(request).await? })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecoveryQuery {
    #[serde(default)]
    force: bool,
}

async fn plan_recovery(
    State(control): Ctl,
    wish: Result<Query<RecoveryQuery>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    ok(&control.plan_recovery(query(wish)?.force).await?)
}

async fn recover(State(control): Ctl, bytes: Result<Bytes, BytesRejection>) -> Answer {
    let RecoverRequest { record } = body(bytes)?;
    ok(&Recovered { version: VERSION, text: control.recover(record).await? })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PingQuery {
    count: Option<u32>,
}

async fn ping(
    State(control): Ctl,
    Path(host): Path<String>,
    wish: Result<Query<PingQuery>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    named(&host)?;
    let count = query(wish)?.count.unwrap_or(PINGS);
    if !(1..=PINGS_MAX).contains(&count) {
        return Err(ApiError::bad_request(format!("{count} round trips; 1 to {PINGS_MAX} are allowed")));
    }
    ok(&control.ping(host, count).await?)
}

async fn why(State(control): Ctl, Path(host): Path<String>) -> Answer {
    named(&host)?;
    ok(&control.why(host).await?)
}

async fn order(State(control): Ctl, Path(host): Path<String>, bytes: Result<Bytes, BytesRejection>) -> Answer {
    named(&host)?;
    let request: OrderRequest = body(bytes)?;
    request.check()?;
    let events = control.order(host, request).await?;
    lines(futures::stream::unfold(events, |mut events| async move { Some((events.recv().await?, events)) }))
}

async fn doctor(State(control): Ctl) -> Answer {
    ok(&control.doctor().await)
}

async fn topology(State(control): Ctl) -> Answer {
    ok(&control.topology().await)
}

async fn leave(State(control): Ctl) -> Answer {
    control.leave().await?;
    done()
}

async fn shutdown(State(control): Ctl) -> Answer {
    control.shutdown().await;
    done()
}

#[cfg(test)]
#[path = "server_tests.rs"]
pub(crate) mod tests;

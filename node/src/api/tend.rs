//! What the daemon does for those who tend the mesh: measures, policy, plan, trail, and whose fault something is. The
//! driver implements [`Tend`]; here are its routes. Decides nothing.

use super::Control;
use super::healing::{AuditFilter, AuditReport, BuildWhy, PlanReport, PolicyReport, PolicyRequest};
use super::measures::{ClearRequest, LiftRequest, Lifted, Measure, StopRequest, Stopped};
use super::server::{Answer, Ctl, body, done, named, ok, parse, query};
use super::types::{ApiError, VERSION};
use async_trait::async_trait;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use mesh::build::BuildId;
use mesh::limits::POLICY_BYTES_MAX;
use std::sync::Arc;

/// What a person does to the mesh and asks of it.
#[async_trait]
pub trait Tend: Send + Sync + 'static {
    /// Blocks, drains or pauses for a while; instead of the one before, when there is one.
    ///
    /// # Errors
    /// When there is no such host, this host is no signer, or nobody leads.
    async fn put_measure(&self, request: StopRequest) -> Result<Measure, ApiError>;

    /// Ends one early. Of a pause: healing that had frozen goes on as well.
    ///
    /// # Errors
    /// When there is nothing to end, or as above.
    async fn lift(&self, request: LiftRequest) -> Result<Lifted, ApiError>;

    /// Ends a host's case: a person has looked at it.
    ///
    /// # Errors
    /// When it has none, or as above.
    async fn clear(&self, request: ClearRequest) -> Result<(), ApiError>;

    /// The policy of healing.
    async fn policy(&self) -> PolicyReport;

    /// Sets one key of it; the whole as it is then.
    ///
    /// # Errors
    /// When there is no such key or value, or as above.
    async fn set_policy(&self, request: PolicyRequest) -> Result<PolicyReport, ApiError>;

    /// What would be done now, as this host sees it. Nothing is done.
    async fn plan(&self) -> PlanReport;

    /// The trail of healing.
    ///
    /// # Errors
    /// When there is no such host, in the mesh or in the trail.
    async fn audit(&self, filter: AuditFilter) -> Result<AuditReport, ApiError>;

    /// Where a build stands, and whose fault that is.
    ///
    /// # Errors
    /// When there is no such build.
    async fn why_build(&self, id: BuildId) -> Result<BuildWhy, ApiError>;
}

pub(super) fn routes() -> Router<Arc<dyn Control>> {
    Router::new()
        .route("/v1/measures", post(put_measure))
        .route("/v1/measures/lift", post(lift))
        .route("/v1/clear", post(clear))
        .route("/v1/policy", get(policy).post(set_policy))
        .route("/v1/plan", get(plan))
        .route("/v1/audit", get(audit))
        .route("/v1/builds/{id}/why", get(why_build))
}

async fn put_measure(State(control): Ctl, bytes: Result<Bytes, BytesRejection>) -> Answer {
    let request: StopRequest = body(bytes)?;
    request.check()?;
    ok(&Stopped { version: VERSION, measure: control.put_measure(request).await? })
}

async fn lift(State(control): Ctl, bytes: Result<Bytes, BytesRejection>) -> Answer {
    let request: LiftRequest = body(bytes)?;
    request.check()?;
    ok(&control.lift(request).await?)
}

async fn clear(State(control): Ctl, bytes: Result<Bytes, BytesRejection>) -> Answer {
    let request: ClearRequest = body(bytes)?;
    request.check()?;
    control.clear(request).await?;
    done()
}

async fn policy(State(control): Ctl) -> Answer {
    ok(&control.policy().await)
}

async fn set_policy(State(control): Ctl, bytes: Result<Bytes, BytesRejection>) -> Answer {
    let request: PolicyRequest = body(bytes)?;
    if request.key.len() + request.value.len() > POLICY_BYTES_MAX {
        return Err(ApiError::bad_request("that is longer than a whole policy"));
    }
    ok(&control.set_policy(request).await?)
}

async fn plan(State(control): Ctl) -> Answer {
    ok(&control.plan().await)
}

async fn audit(State(control): Ctl, filter: Result<Query<AuditFilter>, QueryRejection>) -> Answer {
    let filter = query(filter)?;
    filter.host.as_deref().map_or(Ok(()), named)?;
    ok(&control.audit(filter).await?)
}

async fn why_build(State(control): Ctl, Path(id): Path<String>) -> Answer {
    ok(&control.why_build(parse(&id)?).await?)
}

#[cfg(test)]
#[path = "tend_tests.rs"]
pub(crate) mod tests;

//! The other end of [`super::tend`]. Errors are as [`ClientError`](super::client::ClientError) says.

use super::client::{Client, Result};
use super::healing::{AuditFilter, AuditReport, BuildWhy, PlanReport, PolicyReport, PolicyRequest};
use super::measures::{ClearRequest, LiftRequest, Lifted, StopRequest, Stopped};
use super::types::Ok1;
use mesh::build::BuildId;

impl Client {
    /// Blocks, drains or pauses.
    ///
    /// # Errors
    /// As above; so for all below.
    pub async fn put_measure(&self, request: &StopRequest) -> Result<Stopped> {
        self.post("/v1/measures", request).await
    }

    /// Ends one early.
    ///
    /// # Errors
    /// As above.
    pub async fn lift(&self, request: &LiftRequest) -> Result<Lifted> {
        self.post("/v1/measures/lift", request).await
    }

    /// Ends a host's case.
    ///
    /// # Errors
    /// As above.
    pub async fn clear(&self, request: &ClearRequest) -> Result<()> {
        self.post::<Ok1>("/v1/clear", request).await.map(|_| ())
    }

    /// The policy.
    ///
    /// # Errors
    /// As above.
    pub async fn policy(&self) -> Result<PolicyReport> {
        self.get("/v1/policy").await
    }

    /// Sets one key of it.
    ///
    /// # Errors
    /// As above.
    pub async fn set_policy(&self, request: &PolicyRequest) -> Result<PolicyReport> {
        self.post("/v1/policy", request).await
    }

    /// What would be done now.
    ///
    /// # Errors
    /// As above.
    pub async fn plan(&self) -> Result<PlanReport> {
        self.get("/v1/plan").await
    }

    /// The trail.
    ///
    /// # Errors
    /// As above.
    pub async fn audit(&self, filter: &AuditFilter) -> Result<AuditReport> {
        let mut asked = vec![];
        asked.extend(filter.host.as_ref().map(|host| format!("host={host}")));
        asked.extend(filter.since_ms.map(|since| format!("since_ms={since}")));
        self.get(&format!("/v1/audit?{}", asked.join("&"))).await
    }

    /// Where a build stands.
    ///
    /// # Errors
    /// As above.
    pub async fn why_build(&self, id: BuildId) -> Result<BuildWhy> {
        self.get(&format!("/v1/builds/{id}/why")).await
    }
}

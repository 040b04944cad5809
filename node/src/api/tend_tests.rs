//! Both ends of what tends the mesh, over a socket, with a daemon that only notes what it is asked.

use super::*;
use crate::api::client::ClientError;
use crate::api::healing::{AuditLine, PlanHeld, PlanStep, PolicyValue, TryWhy};
use crate::api::measures::StopKind;
use crate::api::server::tests::{Fake, served};
use crate::api::types::BuildState;
use mesh::identity::Keys;

#[async_trait]
impl Tend for Fake {
    async fn put_measure(&self, request: StopRequest) -> Result<Measure, ApiError> {
        self.note(format!("{:?} {:?} {}", request.stop, request.host, request.lasts_ms));
        Ok(sample_measure(request.stop, request.host.as_deref()))
    }
    async fn lift(&self, request: LiftRequest) -> Result<Lifted, ApiError> {
        self.note(format!("lift {:?} {:?}", request.stop, request.host));
        let measure = Some(sample_measure(request.stop, request.host.as_deref()));
        Ok(Lifted { version: VERSION, measure, healing: false })
    }
    async fn clear(&self, request: ClearRequest) -> Result<(), ApiError> {
        self.note(format!("clear {}", request.host));
        Ok(())
    }
    async fn policy(&self) -> PolicyReport {
        let value = |key: &str, value: &str| PolicyValue { key: key.into(), value: value.into(), default: "3".into() };
        PolicyReport { version: VERSION, policy: vec![value("storm", "2"), value("observers", "3")] }
    }
    async fn set_policy(&self, request: PolicyRequest) -> Result<PolicyReport, ApiError> {
        self.note(format!("set {} {}", request.key, request.value));
        Ok(self.policy().await)
    }
    async fn plan(&self) -> PlanReport {
        sample_plan()
    }
    async fn audit(&self, filter: AuditFilter) -> Result<AuditReport, ApiError> {
        self.note(format!("{filter:?}"));
        Ok(AuditReport { version: VERSION, lines: vec![sample_line()], missing: vec![] })
    }
    async fn why_build(&self, id: BuildId) -> Result<BuildWhy, ApiError> {
        if id.0 == 404 {
            return Err(ApiError::not_found("there is no build b404"));
        }
        Ok(sample_why_build(id))
    }
}

pub(crate) fn sample_measure(stop: StopKind, host: Option<&str>) -> Measure {
    Measure {
        stop,
        host: host.map(str::to_owned),
        peer: host.map(|_| Keys::from_seed([3; 32]).key()),
        by: "anna".into(),
        reason: "new disk".into(),
        until_ms: 86_400_000,
        left_ms: 3_600_000,
    }
}

pub(crate) fn sample_plan() -> PlanReport {
    let step =
        |host: &str, what: &str| PlanStep { host: host.into(), what: what.into(), why: "its canary failed".into() };
    PlanReport {
        version: VERSION,
        seen_from: "anna".into(),
        leads: true,
        frozen: vec![],
        steps: vec![step("bert", "a restart of the service")],
        held: vec![PlanHeld {
            host: "carl".into(),
            what: "setting it aside".into(),
            rules: vec!["bert is being healed: one host at a time".into(), "its builds make progress".into()],
        }],
        blame: vec!["3 packages fail on bert that are not to blame themselves, while other hosts build (b1.1)".into()],
    }
}

pub(crate) fn sample_line() -> AuditLine {
    AuditLine {
        at_ms: 86_400_000,
        by: "anna".into(),
        by_peer: Keys::from_seed([7; 32]).key(),
        host: Some("bert".into()),
        peer: Some(Keys::from_seed([3; 32]).key()),
        order: Some("o01020304".into()),
        what: "ordered".into(),
        until_ms: None,
        told: "anna wrote an order for bert".into(),
        text: "it failed".into(),
    }
}

pub(crate) fn sample_why_build(id: BuildId) -> BuildWhy {
    let tried = |n: u32, host: &str| TryWhy {
        id: format!("{id}.{n}"),
        host: host.into(),
        came: "failed while its command ran: `make` exited with 2".into(),
        charged: Some("that is the package's fault".into()),
    };
    BuildWhy {
        version: VERSION,
        build: id,
        name: "poison".into(),
        state: BuildState::Queued,
        because: format!("poison is held: its own command fails, on bert, carl ({id}.1, {id}.2)"),
        tries: vec![tried(1, "bert"), tried(2, "carl")],
        blame: vec![],
        next: vec![format!("`mesh logs {id}` shows how poison fails; mend it and submit it anew")],
    }
}

#[tokio::test]
async fn what_is_asked_arrives_and_what_is_answered_comes_back() {
    let served = served();
    let (client, asked) = (&served.client, || served.fake.asked.lock().unwrap().drain(..).collect::<Vec<_>>());
    let block =
        StopRequest { stop: StopKind::Block, host: Some("bert".into()), lasts_ms: 5, reason: "new disk".into() };
    let stopped = client.put_measure(&block).await.unwrap();
    assert_eq!(stopped.measure, sample_measure(StopKind::Block, Some("bert")));
    let lift = LiftRequest { stop: StopKind::Pause, host: None, reason: String::new() };
    assert_eq!(client.lift(&lift).await.unwrap().measure, Some(sample_measure(StopKind::Pause, None)));
    client.clear(&ClearRequest { host: "bert".into(), reason: "looked at".into() }).await.unwrap();
    client.set_policy(&PolicyRequest { key: "storm".into(), value: "2".into() }).await.unwrap();
    assert_eq!(client.plan().await.unwrap(), sample_plan());
    let filter = AuditFilter { host: Some("bert".into()), since_ms: Some(7) };
    assert_eq!(client.audit(&filter).await.unwrap().lines, [sample_line()]);
    assert_eq!(client.audit(&AuditFilter::default()).await.unwrap().lines.len(), 1);
    assert_eq!(client.why_build(BuildId(7)).await.unwrap(), sample_why_build(BuildId(7)));
    assert_eq!(
        asked(),
        [
            "Block Some(\"bert\") 5",
            "lift Pause None",
            "clear bert",
            "set storm 2",
            "AuditFilter { host: Some(\"bert\"), since_ms: Some(7) }",
            "AuditFilter { host: None, since_ms: None }",
        ]
    );
}

#[tokio::test]
async fn what_makes_no_sense_never_reaches_the_daemon() {
    let served = served();
    let client = &served.client;
    let status = |error: ClientError| match error {
        ClientError::Api(error) => error.status,
        other => panic!("{other}"),
    };
    let nobody = StopRequest { stop: StopKind::Block, host: Some(String::new()), lasts_ms: 5, reason: "so".into() };
    assert_eq!(status(client.put_measure(&nobody).await.unwrap_err()), 400);
    let endless = StopRequest { stop: StopKind::Pause, host: None, lasts_ms: u64::MAX, reason: "so".into() };
    assert_eq!(status(client.put_measure(&endless).await.unwrap_err()), 400);
    let all = LiftRequest { stop: StopKind::Block, host: None, reason: String::new() };
    assert_eq!(status(client.lift(&all).await.unwrap_err()), 400);
    assert_eq!(status(client.clear(&ClearRequest { host: "*".into(), reason: "so".into() }).await.unwrap_err()), 400);
    let long = PolicyRequest { key: "k".repeat(POLICY_BYTES_MAX), value: "v".into() };
    assert_eq!(status(client.set_policy(&long).await.unwrap_err()), 400);
    let filter = AuditFilter { host: Some("a/b".into()), since_ms: None };
    assert_eq!(status(client.audit(&filter).await.unwrap_err()), 400);
    assert_eq!(status(client.why_build(BuildId(404)).await.unwrap_err()), 404);
    assert_eq!(served.fake.asked.lock().unwrap()[..], [] as [String; 0]);
}

use super::*;
use crate::api::ByteStream;
use crate::api::client::{Client, ClientError};
use crate::api::order::OrderEvent;
use mesh::identity::Keys;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// A daemon that remembers what it was asked.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) blobs: Mutex<BTreeMap<BlobId, Bytes>>,
    pub(crate) asked: Mutex<Vec<String>>,
    pub(crate) manifest: Mutex<Option<BlobId>>,
    requests: Mutex<BTreeMap<[u8; 16], Vec<BuildId>>>,
}

impl Fake {
    pub(crate) fn note(&self, text: impl Into<String>) {
        self.asked.lock().unwrap().push(text.into());
    }
}

pub(crate) fn sample_status() -> Status {
    let peer = Keys::from_seed([7; 32]).key();
    let address = Address {
        addr: "/ip4/10.0.0.1/tcp/7400".into(),
        source: "identify".into(),
        proved: true,
        age_ms: 5,
        nat_of: Some("edge".into()),
    };
    Status {
        version: VERSION,
        mesh: MeshInfo { id: "ab".into(), name: "home".into() },
        host: "anna".into(),
        leader: Some(Leader { host: "anna".into(), peer, epoch: 1, term: 2, lease_ms: 1_500 }),
        hosts: vec![Host {
            name: "anna".into(),
            peer,
            state: HostState::Alive,
            since_ms: 90_000,
            cores: 4,
            free_cores: 3,
            voter: true,
            protected: false,
            allow_reboot: false,
            boot_id: "00".into(),
            boot_enabled: None,
            path: PathKind::Own,
            relay: None,
            addresses: vec![address],
            version: "0.1.0".into(),
            kept: None,
        }],
        cores: Cores { total: 4, alive: 4 },
        builds: BuildCounts::default(),
        strangers: 0,
        standing: vec![],
        warnings: vec![],
        next: vec!["mesh invite NAME".into()],
    }
}

fn detail(id: BuildId, revision: u64, state: BuildState, manifest: Option<BlobId>) -> BuildDetail {
    BuildDetail {
        version: VERSION,
        revision,
        summary: BuildSummary {
            id,
            name: "n".into(),
            state,
            host: Some("anna".into()),
            attempts: 1,
            submitted_ms: 1,
            ended_ms: None,
            held: false,
            text: String::new(),
        },
        command: vec!["true".into()],
        needs: vec![],
        code: state.is_final().then_some(0),
        manifest,
        attempts_detail: vec![],
    }
}

/// A host behind a relay, whose own address is somebody else's.
pub(crate) fn sample_ping(host: &str, count: u32) -> PingReport {
    let lead = |addr: &str, source: &str| PingLead {
        addr: addr.into(),
        source: source.into(),
        observer: Some(host.into()),
        first_ms: 60_000,
        proved_ms: None,
        failed: None,
        failed_ms: None,
        answered_by: None,
        nat_of: None,
        expires_ms: Some(86_340_000),
    };
    PingReport {
        version: VERSION,
        host: host.into(),
        peer: mesh::identity::Keys::from_seed([3; 32]).key(),
        path: PathKind::Relay,
        relay: Some("hub".into()),
        address: None,
        round_trips_us: (1..=u64::from(count)).map(|n| n * 1_000).collect(),
        error: None,
        leads: vec![
            PingLead { proved_ms: Some(2_000), ..lead("/p2p/12D3/p2p-circuit", "relay") },
            PingLead {
                failed: Some("gate answered".into()),
                failed_ms: Some(1_000),
                answered_by: Some("gate".into()),
                nat_of: Some("gate".into()),
                ..lead("/ip4/10.0.0.1/tcp/7400", "identify")
            },
        ],
    }
}

#[async_trait::async_trait]
impl Control for Fake {
    async fn status(&self) -> Status {
        sample_status()
    }
    async fn order(&self, host: String, request: OrderRequest) -> Result<mpsc::Receiver<OrderEvent>, ApiError> {
        self.note(format!("order {host} {}", request.reboot));
        let (events, receiver) = mpsc::channel(2);
        let written = OrderEvent::Written { order: "o1".into(), host: host.clone(), act: "reboot".into() };
        events.send(written).await.unwrap();
        events.send(OrderEvent::Proved { host, start: 7 }).await.unwrap();
        Ok(receiver)
    }
    async fn submit(&self, request: [u8; 16], specs: Vec<BuildSpec>) -> Result<Vec<BuildId>, ApiError> {
        let mut requests = self.requests.lock().unwrap();
        let first = 1 + requests.values().map(Vec::len).sum::<usize>() as u64;
        let ids = (first..).take(specs.len()).map(BuildId).collect::<Vec<_>>();
        Ok(requests.entry(request).or_insert(ids).clone())
    }
    async fn builds(&self, filter: BuildFilter) -> Vec<BuildSummary> {
        self.note(format!("{filter:?}"));
        vec![detail(BuildId(1), 1, BuildState::Queued, None).summary]
    }
    async fn build(&self, id: BuildId) -> Result<BuildDetail, ApiError> {
        match id.0 {
            404 => Err(ApiError::not_found("no build b404").hint("see `mesh builds`")),
            _ => Ok(detail(id, 3, BuildState::Done, *self.manifest.lock().unwrap())),
        }
    }
    async fn wait(&self, id: BuildId, known: u64) -> Result<BuildDetail, ApiError> {
        if id.0 == 404 {
            return self.build(id).await;
        }
        Ok(detail(id, known + 1, if known < 2 { BuildState::Running } else { BuildState::Done }, None))
    }
    async fn cancel(&self, ids: Vec<BuildId>) -> Result<(), ApiError> {
        self.note(format!("cancel {ids:?}"));
        Ok(())
    }
    async fn retry(&self, id: BuildId) -> Result<BuildId, ApiError> {
        Ok(BuildId(id.0 + 1))
    }
    async fn logs(&self, _: BuildId, a: Option<Attempt>, follow: bool) -> Result<mpsc::Receiver<LogEvent>, ApiError> {
        self.note(format!("logs {a:?} {follow}"));
        let (tx, rx) = mpsc::channel(8);
        for event in log() {
            tx.send(event).await.unwrap();
        }
        Ok(rx)
    }
    async fn put_blob(&self, expect: Option<BlobId>, mut body: ByteStream) -> Result<(BlobId, u64), ApiError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk.map_err(|e| ApiError::internal(e.to_string()))?);
        }
        let id = BlobId::of(&bytes);
        if expect.is_some_and(|e| e != id) {
            return Err(ApiError::conflict("another blob"));
        }
        let len = bytes.len() as u64;
        self.blobs.lock().unwrap().insert(id, bytes.into());
        Ok((id, len))
    }
    async fn has_blob(&self, id: BlobId) -> bool {
        self.blobs.lock().unwrap().contains_key(&id)
    }
    async fn get_blob(&self, id: BlobId) -> Result<(u64, ByteStream), ApiError> {
        let bytes = self.blobs.lock().unwrap().get(&id).cloned().ok_or_else(|| ApiError::not_found("nobody has it"))?;
        Ok((bytes.len() as u64, futures::stream::iter([Ok(bytes)]).boxed()))
    }
    async fn invite(&self, request: InviteRequest) -> Result<String, ApiError> {
        Ok(format!("token-{}-{}", request.name, request.signer))
    }
    async fn evict(&self, host: String, ban: bool, reason: String) -> Result<(), ApiError> {
        self.note(format!("evict {host} {ban} {reason}"));
        Ok(())
    }
    async fn rename(&self, request: RenameRequest) -> Result<(), ApiError> {
        self.note(format!("rename {} {}", request.host, request.name));
        Ok(())
    }
    async fn replace(&self, request: ReplaceRequest) -> Result<String, ApiError> {
        self.note(format!("replace {} {}", request.host, request.force));
        Ok(format!("token-{}", request.host))
    }
    async fn ping(&self, host: String, count: u32) -> Result<PingReport, ApiError> {
        self.note(format!("ping {host} {count}"));
        Ok(sample_ping(&host, count))
    }
    async fn topology(&self) -> Topology {
        sample_topology()
    }
    async fn plan_recovery(&self, force: bool) -> Result<RecoveryPlan, ApiError> {
        self.note(format!("recovery {force}"));
        Err(ApiError::conflict("3 of 3 voters survive"))
    }
    async fn recover(&self, record: String) -> Result<String, ApiError> {
        self.note(format!("recover {record}"));
        Ok("it goes on".into())
    }
    async fn doctor(&self) -> MeshFacts {
        let (host, signers) = ("anna".into(), 2);
        MeshFacts { version: VERSION, host, signers, ..MeshFacts::default() }
    }
    async fn why(&self, host: String) -> Result<WhyReport, ApiError> {
        self.note(format!("why {host}"));
        Ok(sample_why(&host))
    }
    async fn leave(&self) -> Result<(), ApiError> {
        Err(ApiError::no_leader())
    }
    async fn shutdown(&self) {
        self.note("shutdown");
    }
}

/// A voter that died two minutes ago.
pub(crate) fn sample_why(host: &str) -> WhyReport {
    let because = "accused by 2 hosts, and nobody has fresh word of it".to_owned();
    let seen = |relayed| Evidence { attempts: 1, silent_ms: 1_900, heard_ms: Some(2_100), relayed, connected: false };
    let own = Evidence { attempts: 12, silent_ms: 1_700, heard_ms: Some(2_000), relayed: false, connected: true };
    let chapter = |ms, what| Chapter { first_ms: ms, last_ms: ms, times: 1, what };
    let lead = PingLead {
        addr: "/ip4/10.0.0.3/tcp/7400".into(),
        source: "gossip".into(),
        observer: None,
        first_ms: 60_000,
        proved_ms: None,
        failed: Some("refused".into()),
        failed_ms: Some(4_000),
        answered_by: None,
        nat_of: None,
        expires_ms: None,
    };
    WhyReport {
        version: VERSION,
        host: host.into(),
        peer: Keys::from_seed([3; 32]).key(),
        seen_from: "alpha".into(),
        state: HostState::Down,
        since_ms: 130_000,
        because: because.clone(),
        heard_ms: Some(133_000),
        path: PathKind::None,
        relay: None,
        round_trip_us: None,
        late_ms: 0,
        here_late_ms: 0,
        keeps_still: false,
        one_network: false,
        flaps: 0,
        start: Some(4),
        voter: true,
        builds: vec![],
        accusers: vec![
            Accuser { host: "alpha".into(), since_ms: 131_000, evidence: own },
            Accuser { host: "beta".into(), since_ms: 130_000, evidence: seen(true) },
        ],
        story: vec![
            chapter(131_000, Told::Accused { by: "beta".into(), evidence: seen(true), counted: true }),
            chapter(130_000, Told::Became { from: HostState::Suspect, to: HostState::Down, why: because }),
        ],
        leads: vec![lead],
        warnings: vec![],
        healing: crate::api::healing::CaseReport::default(),
        next: vec!["start it there".into()],
    }
}

pub(crate) fn sample_topology() -> Topology {
    let report = sample_ping("anna", 1);
    let place = Place {
        name: "anna".into(),
        peer: report.peer,
        state: HostState::Alive,
        path: report.path,
        relay: report.relay,
        address: None,
        offers_relay: true,
        leads: report.leads,
    };
    Topology { version: VERSION, mesh: "home".into(), host: "anna".into(), hosts: vec![place] }
}

fn log() -> Vec<LogEvent> {
    vec![
        LogEvent::Attempt { attempt: Attempt(2), host: "anna".into() },
        LogEvent::Data(Bytes::from_static(b"text\n\0")),
        LogEvent::Data(Bytes::from_static(b"\xff\xc3")),
        LogEvent::Lost(9),
        LogEvent::End { text: String::new() },
    ]
}

pub(crate) struct Served {
    pub(crate) client: Client,
    pub(crate) fake: Arc<Fake>,
    pub(crate) folder: tempfile::TempDir,
    _stop: tokio_util::sync::DropGuard,
}

pub(crate) fn served() -> Served {
    let folder = tempfile::tempdir().expect("tempdir");
    let path = folder.path().join("mesh.sock");
    let listener = listen(&path, None).expect("listens");
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let fake = Arc::new(Fake::default());
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, fake.clone(), stop.clone()));
    Served { client: Client::new(path), fake, folder, _stop: stop.drop_guard() }
}

#[tokio::test]
async fn every_route_answers() {
    let Served { client, fake, .. } = &served();
    assert_eq!(client.status().await.unwrap(), sample_status());
    let spec = BuildSpec::new("n", vec!["true".into()]);
    let both = [spec.clone(), BuildSpec::new("m", vec!["true".into()])];
    let ids = client.submit([1; 16], &both).await.unwrap();
    assert_eq!(ids, [BuildId(1), BuildId(2)]);
    assert_eq!(client.submit([1; 16], &both).await.unwrap(), ids, "a retry is not a second build");
    assert_eq!(client.submit([2; 16], &[spec]).await.unwrap(), [BuildId(3)]);
    let filter = BuildFilter { state: Some(BuildState::Queued), limit: Some(7) };
    assert_eq!(client.builds(filter).await.unwrap().len(), 1);
    assert_eq!(client.build(BuildId(5)).await.unwrap().revision, 3);
    assert_eq!(client.wait(BuildId(5), 1).await.unwrap().revision, 2);
    let changes: Vec<_> = client.progress(&ids).await.unwrap().collect().await;
    assert_eq!(changes.len(), 6, "two builds, three revisions each");
    let lost: Vec<_> = client.progress(&[BuildId(404)]).await.unwrap().collect().await;
    assert!(matches!(&lost[..], [Err(ClientError::Api(e))] if e.hint.is_some()));
    client.cancel(&ids).await.unwrap();
    assert_eq!(client.retry(BuildId(5)).await.unwrap(), BuildId(6));
    let events: Vec<_> = client.logs(BuildId(5), Some(2), true).await.unwrap().map(Result::unwrap).collect().await;
    assert_eq!(events, log());
    let data = vec![Bytes::from(vec![1; 3 << 20]), Bytes::from_static(b"end")];
    let (id, bytes) = client.put_blob(futures::stream::iter(data.into_iter().map(Ok)).boxed()).await.unwrap();
    assert!(client.has_blob(id).await.unwrap());
    assert!(!client.has_blob(BlobId::of(b"nobody sent this")).await.unwrap());
    assert_eq!(bytes, (3 << 20) + 3);
    let back: Vec<Bytes> = client.get_blob(id).await.unwrap().map(Result::unwrap).collect().await;
    assert_eq!(BlobId::of(&back.concat()), id);
    assert!(matches!(client.get_blob(BlobId([9; 32])).await, Err(ClientError::Api(e)) if e.status == 404));
    let request = InviteRequest { name: "berta".into(), expires_ms: 1, signer: true };
    assert_eq!(client.invite(&request).await.unwrap(), "token-berta-true");
    client.evict(&EvictRequest { host: "berta".into(), ban: true, reason: "r".into() }).await.unwrap();
    client.rename(&RenameRequest { host: "berta".into(), name: "bertha".into() }).await.unwrap();
    let lost = |host: &str, reason: &str, expires_ms| ReplaceRequest {
        host: host.into(),
        reason: reason.into(),
        expires_ms,
        force: true,
    };
    assert_eq!(client.replace(&lost("berta", "r", 1)).await.unwrap(), "token-berta");
    for senseless in [lost("a b", "r", 1), lost("berta", " ", 1), lost("berta", "r", 0), lost("berta", "r", u64::MAX)] {
        let refused = client.replace(&senseless).await;
        assert!(matches!(refused, Err(ClientError::Api(e)) if e.status == 400), "{senseless:?}");
    }
    let request = OrderRequest { reboot: true, reason: "new kernel".into(), force: false, user: "root".into() };
    let events: Vec<_> = client.order("berta", &request).await.unwrap().collect().await;
    assert_eq!(events.len(), 2);
    assert_eq!(events[1].as_ref().unwrap(), &OrderEvent::Proved { host: "berta".into(), start: 7 });
    for (host, bad) in [
        ("b.a", request.clone()),
        ("berta", OrderRequest { reason: " ".into(), ..request.clone() }),
        ("berta", OrderRequest { user: "a\nb".into(), ..request.clone() }),
    ] {
        let refused = client.order(host, &bad).await;
        assert!(matches!(refused, Err(ClientError::Api(ApiError { status: 400, .. }))), "{host} {bad:?}");
    }
    let nameless = client.rename(&RenameRequest { host: "berta".into(), name: "b.a".into() }).await;
    assert!(matches!(nameless, Err(ClientError::Api(e)) if e.status == 400));
    assert_eq!(client.ping("berta", 3).await.unwrap(), sample_ping("berta", 3));
    assert_eq!(client.why("berta").await.unwrap(), sample_why("berta"));
    assert_eq!(client.topology().await.unwrap(), sample_topology());
    assert_eq!(client.doctor().await.unwrap().signers, 2);
    assert!(matches!(client.plan_recovery(true).await, Err(ClientError::Api(e)) if e.status == 409));
    assert_eq!(client.recover("r".into()).await.unwrap(), "it goes on");
    for (host, count) in [("berta", 0), ("berta", 101), ("be%20rta", 1)] {
        assert!(
            matches!(client.ping(host, count).await, Err(ClientError::Api(e)) if e.status == 400),
            "{host} {count}"
        );
    }
    assert!(matches!(client.leave().await, Err(ClientError::Api(e)) if e == ApiError::no_leader()));
    client.shutdown().await.unwrap();
    let asked = fake.asked.lock().unwrap().join("; ");
    assert_eq!(
        asked,
        "BuildFilter { state: Some(Queued), limit: Some(7) }; cancel [b1, b2]; logs Some(Attempt(2)) true; \
         evict berta true r; rename berta bertha; replace berta true; order berta true; ping berta 3; why berta; \
         recovery true; recover r; shutdown"
    );
}

async fn raw(socket: &std::path::Path, request: &[u8]) -> String {
    let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await; // the daemon may hang up on what it refuses
    String::from_utf8_lossy(&answer).into_owned()
}

fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let mut request =
        format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len())
            .into_bytes();
    request.extend_from_slice(body);
    request
}

#[tokio::test]
async fn hostile_requests_get_an_error_and_the_daemon_lives() {
    let Served { client, .. } = &served();
    let long = "n".repeat(64 << 10);
    let named = |name: &str| serde_json::json!({ "name": name, "expires_ms": 1, "signer": false }).to_string();
    let spec = |name: &str| {
        let builds = [serde_json::json!({ "name": name, "command": ["true"] })];
        serde_json::json!({ "version": 1, "request": "00".repeat(16), "builds": builds }).to_string()
    };
    for (path, body) in [
        ("/v1/invite", named(&long).into_bytes()),
        ("/v1/invite", named("a\0b").into_bytes()),
        ("/v1/invite", b"{\"name\":\"\xff\"}".to_vec()),
        ("/v1/invite", b"".to_vec()),
        ("/v1/invite", "[".repeat(100_000).into_bytes()),
        ("/v1/builds", spec(&long).into_bytes()),
        ("/v1/builds", spec("a\0b").into_bytes()),
        ("/v1/builds", b"{\"version\":1,\"request\":\"xy\",\"builds\":[]}".to_vec()),
        ("/v1/cancel", b"{\"version\":1,\"builds\":[]}".to_vec()),
        ("/v1/cancel", b"{\"version\":1,\"builds\":[\"b-1\"]}".to_vec()),
        ("/v1/evict", serde_json::json!({"host":"a","ban":false,"reason":long}).to_string().into_bytes()),
        ("/v1/builds/b99999999999999999999/retry", b"null".to_vec()),
    ] {
        let answer = raw(client.socket(), &post(path, &body)).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{path}: {answer}");
        assert!(answer.len() < 2_000 && answer.contains("\"message\""), "{path}: {} bytes", answer.len());
    }
    let large = raw(client.socket(), &post("/v1/cancel", &vec![b' '; JSON_BYTES_MAX + 1])).await;
    assert!(large.is_empty() || large.starts_with("HTTP/1.1 413"), "{large}");
    let nowhere = raw(client.socket(), &post("/v2/x", b"")).await;
    assert!(nowhere.starts_with("HTTP/1.1 404") && nowhere.contains("\"hint\""), "{nowhere}");
    assert!(client.status().await.is_ok());
}

#[tokio::test]
async fn nobody_there_is_told_from_not_allowed() {
    let tmp = tempfile::tempdir().expect("tempdir");
    let path = tmp.path().join("mesh.sock");
    assert!(matches!(Client::new(&path).status().await, Err(ClientError::NoDaemon(_))));
    drop(listen(&path, None).expect("listens"));
    assert!(matches!(Client::new(&path).status().await, Err(ClientError::NoDaemon(_))), "a dead daemon's socket");
    drop(listen(&path, None).expect("takes the place of a dead daemon's socket"));
    assert!(listen(&path, Some("no-such-group-here")).is_err());
}

#[test]
fn the_shape_of_status_stays() {
    let peer = Keys::from_seed([7; 32]).key().to_string();
    let want = serde_json::json!({
        "version": 1, "mesh": {"id": "ab", "name": "home"}, "host": "anna",
        "leader": {"host": "anna", "peer": peer, "epoch": 1, "term": 2, "lease_ms": 1500},
        "hosts": [{"name": "anna", "peer": peer, "state": "alive", "since_ms": 90000, "cores": 4, "free_cores": 3,
            "voter": true, "protected": false, "allow_reboot": false, "boot_id": "00", "boot_enabled": null,
            "path": "self", "relay": null, "version": "0.1.0", "kept": null,
            "addresses": [{"addr": "/ip4/10.0.0.1/tcp/7400", "source": "identify", "proved": true, "age_ms": 5, "nat_of": "edge"}]}],
        "cores": {"total": 4, "alive": 4},
        "builds": {"queued": 0, "running": 0, "done": 0, "failed": 0, "cancelled": 0},
        "strangers": 0, "standing": [], "warnings": [], "next": ["mesh invite NAME"]
    });
    assert_eq!(serde_json::to_value(sample_status()).unwrap(), want);
}

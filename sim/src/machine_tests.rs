use super::*;
use node::seams::{BlobRead, BlobWrite};
use std::collections::BTreeMap;

/// Just enough of a store.
#[derive(Clone, Default)]
struct Blobs(Arc<Mutex<BTreeMap<BlobId, Vec<u8>>>>);

struct Writer(Blobs, Vec<u8>);

#[async_trait]
impl BlobWrite for Writer {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.1.extend_from_slice(bytes);
        Ok(())
    }
    async fn finish(self: Box<Self>) -> io::Result<BlobId> {
        let id = BlobId::of(&self.1);
        self.0.0.lock().unwrap().insert(id, self.1);
        Ok(id)
    }
}

#[async_trait]
impl BlobStore for Blobs {
    async fn has(&self, id: BlobId) -> bool {
        self.0.lock().unwrap().contains_key(&id)
    }
    async fn open(&self, _: BlobId, _: u64) -> io::Result<(u64, Box<dyn BlobRead>)> {
        Err(io::ErrorKind::Unsupported.into())
    }
    async fn create(&self, _: Option<BlobId>) -> io::Result<Box<dyn BlobWrite>> {
        Ok(Box::new(Writer(self.clone(), vec![])))
    }
    async fn remove(&self, id: BlobId) -> io::Result<()> {
        self.0.lock().unwrap().remove(&id);
        Ok(())
    }
    async fn verify(&self, _: BlobId) -> io::Result<()> {
        Ok(())
    }
    async fn free_bytes(&self) -> u64 {
        u64::MAX
    }
}

fn job(change: impl FnOnce(&mut BuildSpec)) -> Job {
    let mut spec = BuildSpec::new("hello", vec!["make".into()]);
    spec.outputs = vec!["hello".into(), "doc/hello.1".into()];
    change(&mut spec);
    Job { build: BuildId(1), attempt: Attempt(1), spec, needs: vec![] }
}

fn env(spec: &mut BuildSpec, key: &str, value: &str) {
    spec.env.push((key.into(), value.into()));
}

async fn run(name: &str, job: Job, cancel: CancellationToken) -> (Outcome, Blobs, Vec<Marker>) {
    let (blobs, markers) = (Blobs::default(), Markers::default());
    let (log, _kept) = mpsc::channel(8);
    let machine = SimMachine::new(name, 4, 7, markers.clone());
    let outcome = machine.run(job, Arc::new(blobs.clone()), log, cancel).await;
    (outcome, blobs, markers.all())
}

#[tokio::test(start_paused = true)]
async fn two_hosts_build_the_same_bytes_in_virtual_time() {
    let (outcome, blobs, markers) = run("a", job(|spec| env(spec, "SIM_TAKES_MS", "90000")), Default::default()).await;
    assert_eq!((outcome.end, outcome.code, outcome.took_ms), (End::Done, 0, 90_000));
    assert_eq!(markers, [Marker { build: BuildId(1), attempt: Attempt(1), host: "a".into() }]);
    let manifest = outcome.manifest.unwrap();
    let files = wire::decode::<Manifest>(&blobs.0.lock().unwrap()[&manifest], 10_000).unwrap().files;
    assert_eq!(files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["doc/hello.1", "hello"]);
    for file in files {
        assert_eq!(blobs.0.lock().unwrap()[&file.blob].len() as u64, file.bytes);
    }
    let (other, ..) = run("b", job(|spec| env(spec, "SIM_TAKES_MS", "5")), Default::default()).await;
    assert_eq!(other.manifest, Some(manifest));
    let (other, ..) = run("b", job(|spec| spec.command = vec!["gmake".into()]), Default::default()).await;
    assert_ne!(other.manifest, Some(manifest));
}

#[tokio::test(start_paused = true)]
async fn failure_timeout_and_cancel_end_it_when_they_should() {
    let (outcome, ..) = run("a", job(|spec| env(spec, "SIM_EXIT", "3")), Default::default()).await;
    assert_eq!((outcome.end, outcome.phase, outcome.code), (End::Failed, Phase::Command, 3));

    let late = job(|spec| (env(spec, "SIM_TAKES_MS", "60000"), spec.timeout_s = 2).1);
    let (outcome, ..) = run("a", late, Default::default()).await;
    assert_eq!((outcome.end, outcome.took_ms), (End::TimedOut, 2_000));

    let cancel = CancellationToken::new();
    let cancelled = run("a", job(|_| {}), cancel.clone());
    let (ended, ()) = tokio::join!(cancelled, async {
        sleep(Duration::from_millis(300)).await;
        cancel.cancel();
    });
    assert_eq!((ended.0.end, ended.0.took_ms, ended.0.manifest), (End::Cancelled, 300, None));
}

#[tokio::test]
async fn a_job_whose_inputs_are_missing_never_begins() {
    let mut job = job(|_| {});
    job.needs = vec![("lib".into(), BlobId::of(b"elsewhere"))];
    let (outcome, _, markers) = run("a", job, Default::default()).await;
    assert_eq!((outcome.end, outcome.phase, markers), (End::Failed, Phase::Unpack, vec![]));
}

#[test]
fn a_reboot_changes_the_boot_id_and_nothing_else() {
    let machine = SimMachine::new("a", 4, 7, Markers::default()).with_facts(|facts| facts.tags.push("big".into()));
    let before = machine.facts();
    assert_eq!(before, machine.facts());
    machine.reboot();
    let after = machine.facts();
    assert_ne!(before.boot_id, after.boot_id);
    assert_eq!(before, Facts { boot_id: before.boot_id, ..after });
    assert_ne!(before.machine_id, SimMachine::new("b", 4, 7, Markers::default()).facts().machine_id);
}

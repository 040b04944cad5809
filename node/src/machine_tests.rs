use super::*;
use crate::blobs::memory::MemoryBlobs;
use crate::blobs::{get, put};
use mesh::build::{Attempt, BlobId, BuildId, BuildSpec, Input, Manifest, OutputFile};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

struct Host {
    dir: tempfile::TempDir,
    machine: Arc<HostMachine>,
    blobs: Arc<MemoryBlobs>,
}

/// A host of our own. `None` when the tests are told to run without root; otherwise root it must be.
fn host(change: impl FnOnce(&mut MachineConfig)) -> Option<Host> {
    if std::env::var_os("MESH_TESTS_WITHOUT_ROOT").is_some() {
        eprintln!("skipped: MESH_TESTS_WITHOUT_ROOT is set");
        return None;
    }
    assert!(nix::unistd::geteuid().is_root(), "needs root; or set MESH_TESTS_WITHOUT_ROOT=1");
    assert!(Path::new("/usr/bin/bwrap").exists(), "needs bubblewrap: apt-get install bubblewrap");
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut config = MachineConfig { allow_none: true, ..MachineConfig::new(dir.path().join("work"), [0; 32]) };
    change(&mut config);
    let spawn: Spawn = |task| drop(tokio::spawn(task));
    let machine = Arc::new(HostMachine::new(config, spawn).unwrap());
    Some(Host { dir, machine, blobs: Arc::new(MemoryBlobs::new(1 << 30)) })
}

fn job(sandbox: Sandbox, script: &str) -> Job {
    let mut spec = BuildSpec::new("t", vec!["sh".into(), "-c".into(), script.into()]);
    spec.sandbox = sandbox;
    Job { build: BuildId(12), attempt: Attempt(1), spec, needs: vec![] }
}

impl Host {
    async fn run_with(&self, job: Job, cancel: CancellationToken) -> (Outcome, String) {
        let (send, mut receive) = mpsc::channel::<Bytes>(4);
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            while let Some(bytes) = receive.recv().await {
                all.extend_from_slice(&bytes);
            }
            String::from_utf8_lossy(&all).into_owned()
        });
        let outcome = self.machine.run(job, self.blobs.clone(), send, cancel).await;
        (outcome, reading.await.unwrap())
    }
    async fn run(&self, job: Job) -> (Outcome, String) {
        self.run_with(job, CancellationToken::new()).await
    }
    async fn manifest(&self, outcome: &Outcome) -> Manifest {
        load_manifest(&*self.blobs, outcome.manifest.expect("has outputs")).await.unwrap()
    }
    async fn text(&self, file: &OutputFile) -> String {
        String::from_utf8(get(&*self.blobs, file.blob, 1 << 20).await.unwrap()).unwrap()
    }
}

/// Processes whose command line holds `word`.
fn alive(word: &str) -> usize {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|p| fs::read_to_string(p.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(word)).count()
}

async fn gone(word: &str) {
    let until = Instant::now() + Duration::from_secs(5);
    while alive(word) > 0 {
        assert!(Instant::now() < until, "{word} is still alive");
        sleep(Duration::from_millis(5)).await;
    }
}

/// A number of seconds that no other process on this machine sleeps for.
fn odd_seconds(n: u32) -> String {
    format!("{}.{n}", 100_000 + std::process::id())
}

async fn tar_input(host: &Host, files: &[(&str, &str)]) -> Input {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o755);
        header.set_mtime(1_700_000_000);
        tar.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    let bytes = tar.into_inner().unwrap();
    let blob = put(&*host.blobs, &bytes).await.unwrap();
    Input { path: String::new(), blob, bytes: bytes.len() as u64, kind: InputKind::Tar }
}

const BOTH: [Sandbox; 2] = [Sandbox::Bubblewrap, Sandbox::None];

#[tokio::test]
async fn a_workspace_goes_in_and_outputs_come_out() {
    let Some(host) = host(|_| {}) else { return };
    for sandbox in BOTH {
        let mut job = job(sandbox, "echo hello; ./make.sh; mkdir out; cp greeting out/; echo done >&2");
        job.spec.inputs = vec![tar_input(&host, &[("make.sh", "#!/bin/sh\necho hi $WHO > greeting")]).await];
        job.spec.env = vec![("WHO".into(), "world".into())];
        job.spec.outputs = vec!["out".into()];
        let (outcome, log) = host.run(job).await;
        assert_eq!((outcome.end, outcome.code, outcome.text.as_str()), (End::Done, 0, ""), "{log}");
        assert_eq!(log, "hello\ndone\n");
        let manifest = host.manifest(&outcome).await;
        assert_eq!(manifest.files.len(), 1);
        assert_eq!(manifest.files[0].path, "out/greeting");
        assert_eq!(host.text(&manifest.files[0]).await, "hi world\n");
    }
}

#[tokio::test]
async fn the_sandbox_hides_the_host_and_drops_all_rights() {
    let Some(host) = host(|_| {}) else { return };
    let secret = host.dir.path().join("identity");
    fs::write(&secret, "secret").unwrap();
    let script = format!(
        "id -u; id -g; id -G; grep CapEff /proc/self/status; grep NoNewPrivs /proc/self/status; pwd; \
         touch /usr/x 2>/dev/null && echo WROTE; echo x > /proc/sys/kernel/core_pattern && echo WROTE; \
         cat {} 2>/dev/null; ls {} /work /root /home /run/systemd /var/run 2>/dev/null; cat /etc/shadow 2>/dev/null; \
         tail -n +3 /proc/net/dev | cut -d: -f1; ls /proc | grep -c '^[0-9]'; ls /proc/self/fd | tr '\\n' ' '; touch /tmp/ok && echo tmp",
        secret.display(),
        host.dir.path().display()
    );
    let (outcome, log) = host.run(job(Sandbox::Bubblewrap, &script)).await;
    assert_eq!(outcome.end, End::Done, "{log}");
    let words: Vec<&str> = log.split_whitespace().filter(|w| !w.contains("sh:")).collect();
    assert_eq!(words[..3], ["7400", "7400", "7400"], "{log}");
    assert!(
        log.contains("CapEff:\t0000000000000000") && log.contains("NoNewPrivs:\t1") && log.contains("/build"),
        "{log}"
    );
    assert!(!log.contains("WROTE") && !log.contains("secret") && !log.contains("root:"), "{log}");
    assert!(log.contains("    lo\n") && !log.contains("eth"), "{log}");
    assert!(log.contains("\n0 1 2 3 tmp") && log.ends_with("tmp\n"), "no descriptor but those of ls itself: {log}");
    for socket in ["docker", "dbus", "systemd", "mesh.toml"] {
        assert!(!log.contains(socket), "{log}");
    }
    // A library that the build brings along is not loaded while there are still rights.
    let mut hostile = job(Sandbox::Bubblewrap, "id -u");
    hostile.spec.env = vec![("LD_PRELOAD".into(), "/build/evil.so".into())];
    let (_, log) = host.run(hostile).await;
    assert!(log.contains("7400") && !log.contains("setpriv"), "{log}");
    assert!(log.matches("evil.so").count() <= 2, "only sh and id may try to load it: {log}");
    let (_, log) = host.run(job(Sandbox::None, "id -u; grep CapEff /proc/self/status; cat /etc/shadow")).await;
    assert!(log.starts_with("7400\nCapEff:\t0000000000000000") && log.contains("denied"), "{log}");
}

#[tokio::test]
async fn nobody_survives_their_build() {
    let Some(host) = host(|_| {}) else { return };
    for sandbox in BOTH {
        for (n, escape) in [
            "sleep SECONDS &",
            "setsid sleep SECONDS &",
            "setsid sh -c 'setsid sleep SECONDS & exit 0' > /dev/null 2>&1 < /dev/null &",
            "env -i setsid -f sleep SECONDS > /dev/null 2>&1 < /dev/null",
            "(trap '' TERM HUP; setsid sh -c 'sleep SECONDS; sleep SECONDS; sleep SECONDS') &",
        ]
        .iter()
        .enumerate()
        {
            let seconds = odd_seconds(n as u32 + 1);
            let started = Instant::now();
            let script = format!("{}\nsleep 0.1; exit 3", escape.replace("SECONDS", &seconds));
            let (outcome, log) = host.run(job(sandbox, &script)).await;
            assert_eq!((outcome.end, outcome.phase, outcome.code), (End::Failed, Phase::Command, 3), "{log}");
            gone(&seconds).await;
            assert!(started.elapsed() < Duration::from_secs(5), "{escape}");
        }
    }
}

#[tokio::test]
async fn timeout_cancel_and_drop_kill_all_of_it() {
    let Some(host) = host(|_| {}) else { return };
    for sandbox in BOTH {
        let seconds = odd_seconds(7);
        let script = format!("trap '' TERM; setsid sleep {seconds} & echo up; sleep {seconds}; sleep {seconds}");
        let mut late = job(sandbox, &script);
        late.spec.timeout_s = 1;
        let (outcome, log) = host.run(late).await;
        assert_eq!((outcome.end, outcome.manifest), (End::TimedOut, None), "{log}");
        assert!(outcome.text.contains("timeout of 1 s"));
        gone(&seconds).await;

        let cancel = CancellationToken::new();
        let (outcome, ()) = tokio::join!(host.run_with(job(sandbox, &script), cancel.clone()), async {
            while alive(&seconds) < 2 {
                sleep(Duration::from_millis(5)).await;
            }
            cancel.cancel();
        });
        assert_eq!(outcome.0.end, End::Cancelled);
        gone(&seconds).await;

        let plain = format!("sleep {seconds}");
        let dropped = timeout(Duration::from_millis(500), host.run(job(sandbox, &plain))).await;
        assert!(dropped.is_err());
        gone(&seconds).await;
    }
    let cancel = CancellationToken::new();
    cancel.cancel();
    assert_eq!(host.run_with(job(Sandbox::None, "true"), cancel).await.0.end, End::Cancelled);
}

#[tokio::test]
async fn every_failure_says_what_and_whose() {
    let Some(host) = host(|c| c.allow_network = false) else { return };
    for sandbox in BOTH {
        let mut missing = job(sandbox, "true");
        missing.spec.outputs = vec!["*.deb".into()];
        let (outcome, _) = host.run(missing).await;
        assert_eq!((outcome.end, outcome.phase), (End::Failed, Phase::Store));
        assert!(outcome.text.contains("*.deb"), "{}", outcome.text);

        let mut unknown = job(sandbox, "");
        unknown.spec.command = vec!["no-such-program".into()];
        let (outcome, _) = host.run(unknown).await;
        assert_eq!((outcome.end, outcome.phase, outcome.code), (End::Failed, Phase::Command, 127));
        assert!(outcome.text.contains("no-such-program"), "{}", outcome.text);

        let (outcome, _) = host.run(job(sandbox, "kill -SEGV $$")).await;
        assert_eq!((outcome.phase, outcome.code), (Phase::Command, 139), "{}", outcome.text);
    }
    let mut network = job(Sandbox::Bubblewrap, "true");
    network.spec.network = true;
    let (outcome, _) = host.run(network).await;
    assert_eq!((outcome.phase, outcome.code), (Phase::Sandbox, -1));
    assert!(outcome.text.contains("allow_network"));

    let input = tar_input(&host, &[("a", "b")]).await;
    let mut rotten = job(Sandbox::Bubblewrap, "true");
    rotten.spec.inputs = vec![input.clone()];
    host.blobs.rot(input.blob);
    for _ in ["rotten", "then gone"] {
        let (outcome, _) = host.run(rotten.clone()).await;
        assert_eq!((outcome.end, outcome.phase), (End::Failed, Phase::Fetch), "{}", outcome.text);
        assert!(!host.blobs.has(input.blob).await);
    }
    let strict = super::tests::host(|c| c.allow_none = false).unwrap();
    let (outcome, _) = strict.run(job(Sandbox::None, "true")).await;
    assert_eq!((outcome.end, outcome.phase), (End::Failed, Phase::Sandbox));
    assert!(outcome.text.contains("allow_none = true"));
}

#[tokio::test]
async fn changes_alone_are_brought_back_and_needs_are_read_only() {
    let Some(host) = host(|_| {}) else { return };
    let blob = put(&*host.blobs, b"lib").await.unwrap();
    let file = OutputFile { path: "lib.a".into(), executable: false, bytes: 3, blob, symlink: false };
    let manifest = mesh::wire::encode(&Manifest { files: vec![file] });
    let needs = vec![("zlib".to_owned(), put(&*host.blobs, &manifest).await.unwrap())];
    for sandbox in BOTH {
        let mut job = job(
            sandbox,
            "cat needs/zlib/lib.a; echo x >> needs/zlib/lib.a; rm -f needs/zlib/lib.a; echo new > made; echo changed > old; touch same-not; cat same > /dev/null",
        );
        job.needs = needs.clone();
        job.spec.changed_only = true;
        job.spec.inputs = vec![tar_input(&host, &[("old", "old"), ("same", "same")]).await];
        let (outcome, log) = host.run(job).await;
        assert_eq!(outcome.end, End::Done, "{log} {}", outcome.text);
        assert!(log.starts_with("lib"), "{log}");
        let files = host.manifest(&outcome).await.files;
        assert_eq!(files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), ["made", "old", "same-not"]);
        assert!(log.contains("denied") || log.contains("Read-only"), "{log}");
    }
    let mut idle = job(Sandbox::Bubblewrap, "true");
    idle.spec.changed_only = true;
    assert_eq!(host.run(idle).await.0.manifest, None);
}

#[tokio::test]
async fn a_log_that_is_too_long_loses_its_middle() {
    let Some(host) = host(|_| {}) else { return };
    let mib = mesh::limits::LOG_BYTES_MAX / (1 << 20) + 8;
    let script = format!("echo first; head -c {mib}M /dev/zero; echo last");
    let (outcome, log) = host.run(job(Sandbox::None, &script)).await;
    assert_eq!(outcome.end, End::Done);
    assert!(log.starts_with("first\n") && log.ends_with("last\n") && log.contains("bytes of the log were cut"));
    assert!((log.len() as u64) < mesh::limits::LOG_BYTES_MAX + 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_op_builds_cost_little() {
    let Some(host) = host(|_| {}) else { return };
    let cpu = || {
        use nix::sys::resource::{UsageWho, getrusage};
        let of = |who| {
            getrusage(who).map(|u| u.user_time().num_microseconds() + u.system_time().num_microseconds()).unwrap()
        };
        of(UsageWho::RUSAGE_SELF) + of(UsageWho::RUSAGE_CHILDREN)
    };
    use nix::sys::time::TimeValLike;
    for sandbox in [Sandbox::None, Sandbox::Bubblewrap] {
        let (started, before) = (Instant::now(), cpu());
        for n in 0..200 {
            let mut job = job(sandbox, "");
            job.spec.command = vec!["/bin/true".into()];
            job.build = BuildId(n);
            assert_eq!(host.run(job).await.0.end, End::Done);
        }
        eprintln!("{sandbox:?}: {:?} a build, {} us of CPU", started.elapsed() / 200, (cpu() - before) / 200);
    }
    assert_eq!(fs::read_dir(host.dir.path().join("work")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sandboxed_builds_leave_no_remains() {
    let Some(host) = host(|_| {}) else { return };
    for _ in 0..30 {
        host.run(job(Sandbox::Bubblewrap, "true")).await;
    }
    let me = format!(" {} ", std::process::id());
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let stats = processes.filter_map(|p| std::fs::read_to_string(p.path().join("stat")).ok());
    let remains = stats.filter(|s| s.rsplit_once(") Z").is_some_and(|(_, rest)| rest.starts_with(&me))).count();
    assert!(remains <= 1, "{remains} ended processes wait to be reaped"); // the last may be ending just now
}

#[tokio::test]
async fn what_an_earlier_life_left_is_removed() {
    let Some(host) = host(|c| {
        fs::create_dir_all(c.work.join("b1.1/deep")).unwrap();
        fs::write(c.work.join("b1.1/deep/file"), "x").unwrap();
    }) else {
        return;
    };
    assert_eq!(fs::read_dir(host.dir.path().join("work")).unwrap().count(), 0);
    let _: BlobId = put(&*host.blobs, b"").await.unwrap();
}

//! Builds a second over four daemons, beside the same commands without a mesh; and what daemons cost that have nothing
//! to do.

use crate::usage::{cpu_s, rss_mib};
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tests::daemon::{Daemon, PATIENCE, Settings};
use tests::fleet::Fleet;
use tests::wait_for;

pub const HOSTS: [&str; 4] = ["a", "b", "c", "d"];
const CORES: u32 = 2;
const NO_OPS: usize = 1_000;
const SINGLES: usize = 200;
const IDLE: Duration = Duration::from_secs(20);

pub fn run() {
    let fleet = Fleet::up_with(&HOSTS, &Settings { cores: CORES, lan: false, ..Settings::default() });
    let asked = fleet.follower();
    let lanes = HOSTS.len() * CORES as usize;
    println!("four daemons, {CORES} cores each; {NO_OPS} builds of `true`, submitted at a host that does not lead");
    for unsandboxed in [true, false] {
        let kind = if unsandboxed { "none" } else { "bubblewrap" };
        let mesh_s = many(asked, unsandboxed);
        let bare_s = if unsandboxed { bare(lanes, &["true".into()]) } else { bare_sandboxed(&fleet, asked, lanes) };
        let (mesh_rate, bare_rate) = (NO_OPS as f64 / mesh_s, NO_OPS as f64 / bare_s);
        println!(
            "sandbox {kind:<11} {mesh_rate:>7.0} builds/s   bare loop, {lanes} at a time {bare_rate:>7.0}/s   ratio {:.2}",
            mesh_rate / bare_rate
        );
    }
    let mut delays_ms: Vec<f64> = (0..SINGLES).map(|_| submit_to_start_ms(asked)).collect();
    delays_ms.sort_by(f64::total_cmp);
    let at = |share: f64| delays_ms[((SINGLES - 1) as f64 * share) as usize];
    println!("submit to start, {SINGLES} single ones: p50 {:.1} ms   p95 {:.1} ms", at(0.50), at(0.95));
    idle(&fleet);
}

/// Submits all at once; seconds until the last one is done.
fn many(asked: &Daemon, unsandboxed: bool) -> f64 {
    let builds: Vec<Value> = (0..NO_OPS)
        .map(|n| json!({ "name": format!("no-op-{n}"), "command": ["true"], "unsandboxed": unsandboxed }))
        .collect();
    let done = || asked.status().map_or(0, |s| s.builds("done") as usize);
    let before = done();
    let start = Instant::now();
    submit(asked, builds);
    wait_for(PATIENCE * 5, || (done() >= before + NO_OPS).then_some(())).expect("all builds are done");
    start.elapsed().as_secs_f64()
}

/// The same command, spawned and waited for without a mesh, as many at a time as the mesh has cores.
fn bare(lanes: usize, command: &[String]) -> f64 {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < NO_OPS {
                    let ended = Command::new(&command[0])
                        .args(&command[1..])
                        .env_clear()
                        .stdin(Stdio::null())
                        .stdout(Stdio::null())
                        .stderr(Stdio::null())
                        .status();
                    assert!(ended.expect("spawned").success(), "{command:?}");
                }
            });
        }
    });
    start.elapsed().as_secs_f64()
}

/// Reads off a running build how the daemon starts bubblewrap, and starts it in the same way with the same
/// command, inside that build's folder.
fn bare_sandboxed(fleet: &Fleet, asked: &Daemon, lanes: usize) -> f64 {
    let ids = submit(asked, vec![json!({ "name": "template", "command": ["sleep", "86400"] })]);
    let bwrap = || fleet.hosts.iter().find_map(|h| sandbox_of(h.pid()));
    let mut command = wait_for(PATIENCE, bwrap).expect("the template runs");
    assert_eq!(command[command.len() - 2..], ["sleep", "86400"]);
    command.truncate(command.len() - 2);
    command.push("true".into());
    if let Some(at) = command.iter().position(|word| word == "--json-status-fd") {
        command.drain(at..at + 2); // a descriptor that only the daemon has
    }
    let took_s = bare(lanes, &command);
    asked.ok(&["cancel", &ids[0]]);
    took_s
}

/// The command line of a bubblewrap that is a child of this process.
fn sandbox_of(daemon: u32) -> Option<Vec<String>> {
    let tasks = fs::read_dir(format!("/proc/{daemon}/task")).ok()?.flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok()).collect::<String>();
    children.split_whitespace().find_map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<String> = line.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
        let words = words[..words.len().saturating_sub(1)].to_vec();
        (words.first()?.ends_with("bwrap") && words.last()? == "86400").then_some(words)
    })
}

/// The build itself tells when it runs; both ends read the same clock.
fn submit_to_start_ms(asked: &Daemon) -> f64 {
    let before = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let spec = json!({ "name": "clock", "command": ["date", "+%s%N"], "unsandboxed": true });
    let ids = submit(asked, vec![spec]);
    let mut known = 0;
    while asked.get(&format!("/v1/builds/{}?known={known}", ids[0])).is_some_and(|b| {
        known = b["revision"].as_u64().expect("a revision");
        b["state"] != "done"
    }) {}
    let nanos: f64 = asked.ok(&["logs", &ids[0]]).parse().expect("a clock's reading");
    nanos / 1e6 - before.as_secs_f64() * 1e3
}

pub fn submit(asked: &Daemon, builds: Vec<Value>) -> Vec<String> {
    let mut request = [0u8; 16];
    fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut request)).expect("randomness");
    let request: String = request.iter().map(|b| format!("{b:02x}")).collect();
    let body = json!({ "version": 1, "request": request, "builds": builds }).to_string();
    let answer = asked.post("/v1/builds", &body).expect("the daemon answers");
    let ids = answer["builds"].as_array().unwrap_or_else(|| panic!("refused: {answer}"));
    ids.iter().map(|id| id.as_str().expect("an id").to_owned()).collect()
}

/// Memory and processor time of daemons that have nothing to do.
fn idle(fleet: &Fleet) {
    let processes: Vec<u32> = fleet.hosts.iter().map(Daemon::pid).collect();
    let before: Vec<f64> = processes.iter().map(|p| cpu_s(*p)).collect();
    let start = Instant::now();
    std::thread::sleep(IDLE);
    let took_s = start.elapsed().as_secs_f64();
    for ((host, process), before) in fleet.hosts.iter().zip(&processes).zip(before) {
        let percent = 100.0 * (cpu_s(*process) - before) / took_s;
        println!("idle {}: {:>5.1} MiB   {percent:.2} % of a core", host.name, rss_mib(*process));
    }
}

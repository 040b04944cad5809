//! From the command, or from the last needed evidence, to the order delivered: the target has taken it on, stored it, and
//! its stand-in for a restart has begun. One clock, since all hosts are on this machine.

use crate::dispatch::{HOSTS, submit};
use serde_json::json;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use tests::daemon::{Daemon, PATIENCE, Settings};
use tests::fleet::Fleet;
use tests::wait_for;

/// Orders of one mesh: fewer than the ledger remembers open at a time.
const BY_HAND: usize = 40;
const MESHES: usize = 4;
/// The shortest that a policy allows.
const COOL_DOWN: Duration = Duration::from_secs(60);
/// Meshes, of each of which one host is healed by itself, one after the other: a small mesh heals one a day.
const BY_ITSELF: usize = 10;

pub(crate) fn healing() {
    let mut took_ms = vec![];
    for _ in 0..MESHES {
        let fleet = up();
        let (asked, target) = (&fleet[HOSTS[0]], HOSTS[1]);
        for n in 1..=BY_HAND {
            // A host that still carries out the last order takes on no other: whoever asks too early asks again.
            took_ms.push(wait_for(PATIENCE, || by_hand(asked, target)).expect("it is taken on"));
            let lines = || fs::read_to_string(fleet.path("acts")).unwrap_or_default().lines().count();
            wait_for(PATIENCE, || (lines() >= n).then_some(())).expect("it is carried out");
        }
    }
    println!("four daemons; {} restarts of one, by hand at a signer", took_ms.len());
    report("command to taken on", &mut took_ms);
    let measured: Vec<Option<f64>> = (0..BY_ITSELF).map(|_| by_itself()).collect();
    let mut took_ms: Vec<f64> = measured.into_iter().flatten().collect();
    println!(
        "{} of {BY_ITSELF} meshes of four; a host whose canary fails when its cool-down is over is restarted by itself",
        took_ms.len()
    );
    assert!(!took_ms.is_empty(), "each was ordered before the evidence that was to be the last");
    report("end of the canary to the restart's start", &mut took_ms);
}

fn report(what: &str, took_ms: &mut [f64]) {
    took_ms.sort_by(f64::total_cmp);
    let at = |share: f64| took_ms[((took_ms.len() - 1) as f64 * share) as usize];
    println!(
        "{what}: p50 {:.1} ms   p95 {:.1} ms   p99 {:.1} ms   most {:.1} ms",
        at(0.50),
        at(0.95),
        at(0.99),
        at(1.0)
    );
}

/// Four hosts whose restart writes down when it begins.
fn up() -> Fleet {
    Fleet::up_each(&HOSTS, |fleet, name| {
        let record =
            format!("echo {name} $(date +%s%N) >> {}", fleet.file("made", "").with_file_name("acts").display());
        let more = format!("[machine]\nat_boot = true\nrestart_command = ['sh', '-c', '{record}']");
        Settings { more, lan: false, ..Settings::default() }
    })
}

/// Milliseconds from the request to the word that it was taken on; none when the last order is still being carried out.
fn by_hand(asked: &Daemon, target: &str) -> Option<f64> {
    let body = json!({ "reboot": false, "reason": "bench", "force": true, "user": "bench" }).to_string();
    let mut stream = UnixStream::connect(asked.dir.join("mesh.sock")).expect("the daemon listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let start = Instant::now();
    let head = format!("POST /v1/hosts/{target}/order HTTP/1.1\r\nhost: mesh\r\ncontent-type: application/json\r\n");
    write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).expect("asked");
    for line in BufReader::new(stream).lines() {
        let line = line.expect("an answer");
        if line.contains("is carrying out") {
            return None;
        }
        assert!(!line.contains("\"failed\"") && !line.contains("\"error\""), "{line}");
        if line.contains("\"taken-on\"") {
            return Some(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    panic!("{target} has not taken it on");
}

/// Milliseconds from the end of the build that was the last evidence needed to the start of the restart's command; none when
/// builds of before were evidence enough, and what was waited for was the cool-down.
fn by_itself() -> Option<f64> {
    let fleet = up();
    let (asked, sick) = (&fleet[HOSTS[0]], HOSTS[3]);
    asked.ok(&["policy", "set", "cool-down", "1m"]);
    let mut round = 0;
    let set_aside = || {
        fleet[HOSTS[0]].log().contains("a step of healing")
            || fleet.hosts.iter().any(|h| h.log().contains("setting it aside"))
    };
    while !set_aside() {
        broken_on(asked, sick, &format!("r{round}"), 8);
        round += 1;
        assert!(round < 40, "{sick} is not blamed");
    }
    std::thread::sleep(COOL_DOWN + Duration::from_secs(2));
    let canaries = broken_on(asked, sick, "canary", 8);
    let acts = fleet.path("acts");
    let line = wait_for(PATIENCE, || fs::read_to_string(&acts).ok().filter(|text| text.contains('\n')));
    let line = line.unwrap_or_else(|| panic!("{sick} is not restarted\n{}", asked.log_tail(40)));
    let (host, nanos) = line.lines().next().and_then(|line| line.split_once(' ')).expect("host and time");
    assert_eq!(host, sick);
    let began_ms: f64 = nanos.parse::<f64>().expect("a clock's reading") / 1e6;
    // The last end of an attempt of these before that: the failure there, or the success elsewhere that makes it tell.
    let ends = canaries.iter().flat_map(|id| {
        let attempts = asked.build(id)["attempts_detail"].as_array().cloned().unwrap_or_default();
        attempts.into_iter().filter_map(|attempt| attempt["ended_ms"].as_f64())
    });
    let evidence_ms = ends.filter(|ended| *ended <= began_ms).fold(0.0, f64::max);
    (evidence_ms > 0.0).then_some(began_ms - evidence_ms)
}

/// Builds that fail on one host, tried elsewhere then, and have ended when this returns.
fn broken_on(asked: &Daemon, sick: &str, name: &str, count: usize) -> Vec<String> {
    let script = format!("case $PWD in */{sick}/*) exit 1;; esac");
    let builds = (0..count)
        .map(|n| json!({ "name": format!("{name}-{n}"), "command": ["sh", "-c", script], "unsandboxed": true, "retries": 3 }))
        .collect();
    let ids = submit(asked, builds);
    for id in &ids {
        asked.wait_build(id, "ended", |b| b["state"] == "done" || b["state"] == "failed");
    }
    ids
}

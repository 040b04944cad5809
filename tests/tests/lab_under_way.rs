//! What is under way when a path dies, on the real kernel: a blob and a followed log lead over an overlay that goes off
//! without a word. Both go on over the sites: the log without a line lost or twice, the blob from where it was.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tests::daemon::{PATIENCE, said};
use tests::lab::Lab;
use tests::lab::members::Common;
use tests::program::mesh;
use tests::wait_for;

/// Behind the masquerade; it sends the blob and follows the log.
const NEAR: &str = "drone-Tarn";
/// On the other site; it builds.
const FAR: &str = "drone-Izar";
const OVERLAY: &str = "overlay";
/// What the overlay carries of each host: the blob takes some twelve seconds of it.
const BITS_S: u64 = 16_000_000;
const BLOB_BYTES: u64 = 24 << 20;
/// So much of it has been sent when the overlay dies: whoever begins anew sends half as much again.
const CUT_AT_BYTES: u64 = BLOB_BYTES / 2;
/// Less than a reader waits for a peer that is silent: whoever relies on that is caught.
const SOON: Duration = Duration::from_secs(25);
/// Who may hold the blob for the sender.
const OTHERS: [&str; 5] = ["Alpha-Centauri", "Izar-Orchestrator", "drone-Izar", "drone-Tau-Beta", "drone-Meridian"];
/// Lines of the log, ten a second: they go on long after the cut.
const LINES: usize = 400;

/// Bytes that a host has sent by one interface.
fn sent(lab: &Lab, host: &str, interface: &str) -> u64 {
    let table = lab.inside(host, || std::fs::read_to_string("/proc/thread-self/net/dev")).expect("counters");
    let line = table.lines().find_map(|l| l.trim().strip_prefix(&format!("{interface}:")));
    let numbers = line.unwrap_or_else(|| panic!("{host} has no {interface}:\n{table}")).split_whitespace();
    numbers.map(|n| n.parse::<u64>().expect("a number")).nth(8).expect("bytes sent")
}

fn write(lab: &Lab, name: &str, text: &str) {
    std::fs::write(lab.folder(NEAR).join("root").join(name), text).expect("written");
}

/// Ends with the test, however that goes.
struct Ours(Child);

impl Drop for Ours {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn follow(lab: &Lab, id: &str) -> (Ours, mpsc::Receiver<String>) {
    let mut command: Command = lab.command_with(NEAR, mesh(), &["mesh", "logs", "--follow", id]).expect("it runs");
    command.env("NO_COLOR", "1").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().expect("mesh logs");
    let out = child.stdout.take().expect("piped");
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let _ = tell.send(line); // who no longer listens has seen enough
        }
    });
    (Ours(child), told)
}

#[test]
fn a_blob_and_a_followed_log_outlive_the_overlay_that_they_lead_over() {
    let Some(mut lab) = Lab::for_test_limited(topology::ALPHA_CENTAURI, &[(OVERLAY, BITS_S)]) else { return };
    let sites = ["site-a", "site-b"];
    lab.networks(&sites, false).expect("off");
    assert_eq!(lab.found(&Common::default()).unwrap_or_else(|why| panic!("{why}")), Vec::<String>::new());
    lab.networks(&sites, true).expect("on");
    lab.wait(NEAR, "of all", |s| s.alive() == 6);

    write(
        &lab,
        "ticks.toml",
        &format!(
            "[build.ticks]\ncommand = \"for i in $(seq {LINES}); do echo tick $i; sleep 0.1; done\"\ntags = [\"on-{FAR}\"]\n"
        ),
    );
    lab.mesh_ok(NEAR, &["build", "--detach", "/root/ticks.toml"]).unwrap_or_else(|why| panic!("{why}"));
    let builds = lab.wait_builds(NEAR, "running", |b| b.iter().any(|b| b["state"] == "running"));
    let ticks = builds[0]["id"].as_str().unwrap_or_else(|| panic!("no id in {builds:#?}")).to_owned();
    let (mut following, lines) = follow(&lab, &ticks);
    let before: Vec<String> = (0..3).map(|_| lines.recv_timeout(PATIENCE).expect("lines while it runs")).collect();
    assert!(before.iter().any(|l| l == "tick 1"), "{before:?}");

    let mut big = std::fs::File::create(lab.folder(NEAR).join("root").join("big")).expect("a file");
    let random = std::fs::File::open("/dev/urandom").expect("randomness");
    std::io::copy(&mut random.take(BLOB_BYTES), &mut big).expect("written");
    write(
        &lab,
        "sum.toml",
        &format!(
            "[build.sum]\ncommand = \"sha256sum big > sum\"\ninputs = [\"big\"]\noutputs = [\"sum\"]\ntags = [\"on-{FAR}\"]\n"
        ),
    );
    let idle = (sent(&lab, NEAR, OVERLAY), sent(&lab, NEAR, "site-b"));
    // It returns when another host holds the inputs too: that is when the blob is under way.
    let mut submit = lab.command_with(NEAR, mesh(), &["mesh", "build", "--detach", "/root/sum.toml"]).expect("it runs");
    let mut submitting = Ours(submit.stdin(Stdio::null()).spawn().expect("mesh build"));
    let by = |lab: &Lab| (sent(lab, NEAR, OVERLAY) - idle.0, sent(lab, NEAR, "site-b") - idle.1);
    wait_for(PATIENCE, || (by(&lab).0 >= CUT_AT_BYTES).then_some(())).expect("the blob leads over the overlay");
    lab.overlay(false).expect("off");
    let (cut, died) = (by(&lab), Instant::now());
    assert!(cut.0 < BLOB_BYTES && cut.1 < BLOB_BYTES / 10, "cut while under way, and over the overlay: {cut:?}");

    let submitted = wait_for(PATIENCE, || submitting.0.try_wait().expect("our own child"));
    assert!(submitted.is_some_and(|status| status.success()), "{submitted:?}");
    let took = died.elapsed();
    let builds = lab.wait_builds(NEAR, "done", |b| b.iter().any(|b| b["name"] == "sum" && b["state"] == "done"));
    let all = by(&lab);
    let total = all.0 + all.1;
    eprintln!("{cut:?} bytes had been sent by overlay and site when the overlay died, {all:?} in the end");
    assert!(all.1 > BLOB_BYTES / 3, "the rest went over the site: {all:?}");
    // Once to a second host, which broke off, and once to who builds.
    assert!(
        total < 2 * BLOB_BYTES + BLOB_BYTES * 2 / 5,
        "it went on where it was: {total} bytes for {BLOB_BYTES} twice"
    );
    let went_on = |host: &&str| lab.mesh_log(host).contains("a blob broke off, and goes on on another stream");
    assert!(OTHERS.iter().any(went_on), "the blob was under way when the overlay died");
    assert!(took < SOON, "held by a second host only {took:?} after the overlay had died");
    let sum = builds.iter().find(|b| b["name"] == "sum").expect("just seen");
    assert_eq!(sum["tries"].as_u64().unwrap_or(1), 1, "one attempt was enough: {sum:#}");
    lab.mesh_ok(NEAR, &["fetch", sum["id"].as_str().expect("an id"), "--into", "/root/out"])
        .unwrap_or_else(|why| panic!("{why}"));
    let fetched = std::fs::read_to_string(lab.folder(NEAR).join("root/out/sum")).expect("fetched");
    let own = lab.exec(NEAR, &["sha256sum", "/root/big"]);
    let (own, fetched) = (said(&own), fetched.split_whitespace().next().unwrap_or_default().to_owned());
    assert!(fetched.len() == 64 && own.contains(&fetched), "what arrived is what was sent:\n{own}\n{fetched}");

    // Every line once, in order, though they led over a path that died.
    let mut seen = before;
    while let Ok(line) = lines.recv_timeout(PATIENCE) {
        seen.push(line);
    }
    let ended = wait_for(Duration::from_secs(10), || following.0.try_wait().expect("our own child"));
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
    let ticks: Vec<&String> = seen.iter().filter(|line| line.starts_with("tick ")).collect();
    let expected: Vec<String> = (1..=LINES).map(|n| format!("tick {n}")).collect();
    assert!(ticks.iter().copied().eq(expected.iter()), "{} lines of {LINES}: {ticks:?}", ticks.len());
    assert_eq!(lab.mesh_errors(&[]), Vec::<String>::new());
}

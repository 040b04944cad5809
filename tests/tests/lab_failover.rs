//! A path that dies while another stands ready, on the real kernel: the overlay goes off, and nobody is told. Every host
//! has to be heard over its other addresses before anybody takes it for dead.

use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tests::daemon::PATIENCE;
use tests::lab::Lab;
use tests::lab::members::Common;
use tests::program::mesh;
use tests::wait_for;

const HOSTS: [&str; 6] =
    ["Alpha-Centauri", "Izar-Orchestrator", "drone-Izar", "drone-Tau-Beta", "drone-Meridian", "drone-Tarn"];
const SITES: [&str; 2] = ["site-a", "site-b"];
/// Half of what a dead QUIC connection takes to end by itself: whoever waits for that is caught.
const SOON: Duration = Duration::from_secs(6);

/// The reference fleet, all of whose connections lead over the overlay, though its sites are up.
fn over_the_overlay(limits: &[(&str, u64)]) -> Option<Lab> {
    let mut lab = Lab::for_test_limited(topology::ALPHA_CENTAURI, limits)?;
    lab.networks(&SITES, false).expect("off");
    assert_eq!(lab.found(&Common::default()).unwrap_or_else(|why| panic!("{why}")), Vec::<String>::new());
    lab.networks(&SITES, true).expect("on");
    Some(lab)
}

/// Pairs of hosts of which the first does not take the second for alive.
fn missing(lab: &Lab) -> BTreeSet<(&'static str, &'static str)> {
    let by = |host: &'static str| {
        let status = lab.status(host);
        HOSTS
            .into_iter()
            .filter(move |other| status.as_ref().is_none_or(|s| s.state(other) != "alive"))
            .map(move |other| (host, other))
    };
    HOSTS.into_iter().flat_map(by).collect()
}

/// Connections that lead over the overlay; `None` while somebody does not answer.
fn over(lab: &Lab) -> Option<usize> {
    let over = |place: &&Value| place["address"].as_str().is_some_and(|a| a.starts_with("/ip4/100.64."));
    let of = |host: &str| Some(lab.get(host, "/v1/topology")?["hosts"].as_array()?.iter().filter(over).count());
    HOSTS.into_iter().map(of).sum()
}

#[test]
fn when_the_overlay_dies_hosts_are_heard_over_their_sites() {
    let Some(mut lab) = over_the_overlay(&[]) else { return };
    let all = HOSTS.len() * (HOSTS.len() - 1);
    let ready = || (missing(&lab).is_empty() && over(&lab) == Some(all)).then_some(());
    wait_for(PATIENCE, ready).expect("all see all, over the overlay");
    lab.overlay(false).expect("off");
    let begun = Instant::now();
    let (mut last, mut worst) = (Duration::ZERO, BTreeSet::new());
    let elsewhere = || {
        let silent = missing(&lab);
        let whole = silent.is_empty();
        if !whole {
            (last, worst) = (begun.elapsed(), silent);
        }
        (whole && over(&lab) == Some(0)).then(|| begun.elapsed())
    };
    let moved = wait_for(PATIENCE, elsewhere).expect("somebody still uses the overlay");
    eprintln!("all on other paths after {moved:?}; somebody was missing until {last:?}");
    for host in HOSTS {
        let log = lab.mesh_log(host);
        let changes: Vec<&str> = log.lines().filter(|l| l.contains("a host's state changed")).collect();
        assert!(!changes.is_empty(), "the log says what this looks for");
        let downs: Vec<&&str> = changes.iter().filter(|l| l.contains("to=down")).collect();
        assert_eq!(downs, Vec::<&&str>::new(), "{host} took somebody for dead");
    }
    assert!(last < SOON, "{worst:?} were silent for {last:?}");
}

/// The one build that there is, when it is done; it was tried once.
#[track_caller]
fn done_at_once(lab: &Lab, id: &str) {
    lab.wait_builds("drone-Izar", "done", |b| b.iter().any(|b| b["id"] == id && b["state"] == "done"));
    let build = lab.get("drone-Izar", &format!("/v1/builds/{id}")).expect("an answer");
    assert_eq!(build["attempts"].as_array().map(Vec::len), Some(1), "nothing was done twice: {build:#}");
}

fn submit(lab: &Lab, text: &str) -> String {
    std::fs::write(lab.folder("drone-Izar").join("root/build.toml"), text).expect("file");
    lab.mesh_ok("drone-Izar", &["build", "--detach", "/root/build.toml"]).expect("submitted");
    let newest = lab.wait_builds("drone-Izar", "listed", |b| !b.is_empty());
    newest[0]["id"].as_str().expect("an id").to_owned()
}

/// Bytes that a host has sent by the overlay.
fn sent(lab: &Lab) -> u64 {
    let table = lab.inside("drone-Izar", || std::fs::read_to_string("/proc/thread-self/net/dev")).expect("counters");
    let line = table.lines().find_map(|l| l.trim().strip_prefix("overlay:")).expect("an interface");
    line.split_whitespace().nth(8).and_then(|n| n.parse().ok()).expect("a number")
}

/// A blob goes to the far site, and then a log comes from there; each begins on a path that dies half-way.
#[test]
fn a_blob_and_a_log_survive_the_loss_of_their_path() {
    const LINES: usize = 200;
    const BYTES: usize = 24_000_000;
    let Some(mut lab) = over_the_overlay(&[("overlay", 40_000_000)]) else { return };
    let all = HOSTS.len() * (HOSTS.len() - 1);
    let ready = |lab: &Lab| (missing(lab).is_empty() && over(lab) == Some(all)).then_some(());
    wait_for(PATIENCE, || ready(&lab)).expect("all see all, over the overlay");

    let unlike: Vec<u8> = (0..BYTES as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    std::fs::write(lab.folder("drone-Izar").join("root/big"), &unlike).expect("file");
    let before = sent(&lab);
    let id = submit(
        &lab,
        &format!(
            "[build.x]\ncommand = \"[ $(wc -c <big) = {BYTES} ]\"\ntags = [\"on-drone-Tarn\"]\ninputs = [\"big\"]\n"
        ),
    );
    wait_for(PATIENCE, || (sent(&lab) > before + BYTES as u64 / 4).then_some(())).expect("it is on its way");
    lab.overlay(false).expect("off");
    assert!(sent(&lab) < before + BYTES as u64, "it was all there already");
    done_at_once(&lab, &id);

    // Back to the overlay.
    lab.overlay(true).expect("on");
    lab.networks(&SITES, false).expect("off");
    wait_for(PATIENCE, || ready(&lab)).expect("all see all, over the overlay again");
    lab.networks(&SITES, true).expect("on");
    let command = format!("for n in $(seq 1 {LINES}); do echo line $n; sleep 0.05; done");
    let id = submit(&lab, &format!("[build.y]\ncommand = \"{command}\"\ntags = [\"on-drone-Tarn\"]\n"));
    let mut follow = lab.command_with("drone-Izar", mesh(), &["mesh", "logs", "-f", &id]).expect("a command");
    let mut follow = follow.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("spawned");
    let mut lines = vec![];
    for line in BufReader::new(follow.stdout.take().expect("piped")).lines().map_while(Result::ok) {
        if line.starts_with("line ") {
            lines.push(line);
            if lines.len() == LINES / 4 {
                lab.overlay(false).expect("off");
            }
        }
    }
    assert!(follow.wait().expect("our own child").success(), "{} lines", lines.len());
    let expected: Vec<String> = (1..=LINES).map(|n| format!("line {n}")).collect();
    assert_eq!(lines, expected, "nothing is lost, nothing comes twice");
    done_at_once(&lab, &id);
}

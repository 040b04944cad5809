//! A path that dies while another stands ready, on the real kernel: the overlay goes off, and nobody is told. Every host
//! has to be heard over its other addresses before anybody takes it for dead.

use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tests::daemon::PATIENCE;
use tests::lab::Lab;
use tests::lab::members::Common;
use tests::wait_for;

const HOSTS: [&str; 6] =
    ["Alpha-Centauri", "Izar-Orchestrator", "drone-Izar", "drone-Tau-Beta", "drone-Meridian", "drone-Tarn"];
const SITES: [&str; 2] = ["site-a", "site-b"];
/// Half of what a dead QUIC connection takes to end by itself: whoever waits for that is caught.
const SOON: Duration = Duration::from_secs(6);

/// The reference fleet, all of whose connections lead over the overlay, though its sites are up.
fn over_the_overlay() -> Option<Lab> {
    let mut lab = Lab::for_test(topology::ALPHA_CENTAURI)?;
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
    let Some(mut lab) = over_the_overlay() else { return };
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

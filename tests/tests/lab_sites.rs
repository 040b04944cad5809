//! Longer journeys of the mesh on the reference fleet without its overlay, run by `scripts/lab-test`: sites cut from each
//! other, the leader lost, the masquerading host rebooted, two hosts that change their addresses with each other.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use tests::daemon::PATIENCE;
use tests::lab::members::Common;
use tests::lab::{Lab, command};

const SITE_A: [&str; 4] = ["Alpha-Centauri", "Izar-Orchestrator", "drone-Izar", "drone-Tau-Beta"];
const SITE_B: [&str; 2] = ["drone-Meridian", "drone-Tarn"];

fn reference() -> Option<Lab> {
    let mut lab = Lab::for_test(topology::ALPHA_CENTAURI)?;
    lab.overlay(false).expect("off");
    assert_eq!(lab.found(&Common::default()).unwrap_or_else(|why| panic!("{why}")), Vec::<String>::new());
    Some(lab)
}

/// Submits a build that runs on one host; with `hangs`, its first attempt does not end.
fn submit(lab: &Lab, at: &str, name: &str, on: &str, hangs: bool) {
    let hang = if hangs { "; [ $MESH_ATTEMPT != 1 ] || sleep 1000" } else { "" };
    let text =
        format!("[build.{name}]\ncommand = \"echo {name} > out{hang}\"\noutputs = [\"out\"]\ntags = [\"on-{on}\"]\n");
    fs::write(lab.folder(at).join("root/build.toml"), text).expect("file");
    lab.mesh_ok(at, &["build", "--detach", "/root/build.toml"]).unwrap_or_else(|why| panic!("{why}"));
}

fn is(builds: &[Value], name: &str, state: &str) -> bool {
    builds.iter().any(|b| b["name"] == name && b["state"] == state)
}

/// All see all and as many builds done, and in the end name one leader.
#[track_caller]
fn whole(lab: &Lab, done: u64) {
    let all = || SITE_A.into_iter().chain(SITE_B);
    for name in all() {
        lab.wait(name, "whole", |s| s.alive() == 6 && s.leader().is_some() && s.builds("done") == done);
    }
    let leaders =
        || -> BTreeSet<Option<String>> { all().map(|name| lab.status(name)?.leader().map(str::to_owned)).collect() };
    let one = || (leaders().len() == 1 && !leaders().contains(&None)).then_some(());
    tests::wait_for(PATIENCE, one).unwrap_or_else(|| panic!("not one leader: {:?}", leaders()));
}

#[test]
fn two_sites_are_cut_from_each_other_and_healed() {
    let Some(mut lab) = reference() else { return };
    submit(&lab, "drone-Izar", "before", "drone-Tarn", false);
    lab.wait_builds("drone-Izar", "done", |b| is(b, "before", "done"));
    submit(&lab, "drone-Izar", "across", "drone-Tarn", true);
    lab.wait_builds("drone-Izar", "running", |b| is(b, "across", "running"));

    // The gateway has an end on either site: it goes with site A.
    lab.cut("site-a", "site-b").expect("cut");
    for host in SITE_B {
        lab.cut("Alpha-Centauri", host).expect("cut");
    }
    lab.wait("drone-Izar", "without site B", |s| SITE_B.iter().all(|h| s.state(h) == "down") && s.leader().is_some());
    lab.wait("drone-Tarn", "alone with its neighbour", |s| SITE_A.iter().all(|h| s.state(h) != "alive"));
    submit(&lab, "drone-Izar", "meanwhile", "drone-Izar", false);
    lab.wait_builds("drone-Izar", "done", |b| is(b, "meanwhile", "done"));

    lab.mend_all().expect("mended");
    whole(&lab, 3);
    lab.mesh_ok("drone-Tau-Beta", &["fetch", "b2", "--into", "/root/out"]).expect("fetched");
    assert_eq!(fs::read_to_string(lab.folder("drone-Tau-Beta").join("root/out/out")).expect("fetched"), "across\n");
}

#[test]
fn the_masquerading_host_is_rebooted() {
    let Some(mut lab) = reference() else { return };
    lab.power_off("Alpha-Centauri").expect("off");
    lab.wait("drone-Izar", "without its gateway", |s| s.state("Alpha-Centauri") == "down" && s.leader().is_some());
    lab.boot("Alpha-Centauri").expect("boot");
    lab.mesh_up("Alpha-Centauri").expect("up");
    whole(&lab, 0);
    submit(&lab, "drone-Izar", "after", "drone-Tarn", false);
    lab.wait_builds("drone-Izar", "done", |b| is(b, "after", "done"));
    whole(&lab, 1);
}

#[test]
fn the_leader_loses_its_power() {
    let Some(mut lab) = reference() else { return };
    let status = lab.wait("drone-Tarn", "of three voters", |s| s.voters() == 3 && s.leader().is_some());
    let leader = status.leader().expect("just seen").to_owned();
    submit(&lab, "drone-Tarn", "before", "drone-Meridian", false);
    lab.wait_builds("drone-Tarn", "done", |b| is(b, "before", "done"));
    lab.power_off(&leader).expect("off");
    let asked = SITE_A.into_iter().find(|h| *h != leader).expect("four hosts");
    lab.wait(asked, "led by another", |s| s.leader().is_some_and(|l| l != leader) && s.state(&leader) == "down");
    submit(&lab, asked, "after", asked, false);
    lab.wait_builds(asked, "done", |b| is(b, "before", "done") && is(b, "after", "done"));
    lab.boot(&leader).expect("boot");
    lab.mesh_up(&leader).expect("up");
    whole(&lab, 2);
}

#[test]
fn two_hosts_change_their_addresses_with_each_other() {
    let Some(lab) = reference() else { return };
    let pair = ["drone-Izar", "drone-Tau-Beta"];
    let address = |host: &str| lab.fleet.host(host).expect("a host").addresses["site-a"];
    for (host, other) in [(pair[0], pair[1]), (pair[1], pair[0])] {
        let lines = format!("addr flush dev site-a\naddr add {}/24 dev site-a", address(other));
        command::ip(&lab.namespace(host).expect("a host"), &lines).expect("swapped");
    }
    whole(&lab, 0);
    for host in pair {
        submit(&lab, "Alpha-Centauri", host, host, false);
        let builds = lab.wait_builds("Alpha-Centauri", "done", |b| is(b, host, "done"));
        let build = builds.iter().find(|b| b["name"] == host).expect("just seen");
        assert_eq!(build["host"], host, "{build:#}");
    }
    whole(&lab, 2);
}

//! Losses for good on the real kernel, run by `scripts/lab-test`: the leader's whole site, and a host whose place
//! another machine takes. What is queued goes on, and who comes back is one of the mesh.

use serde_json::Value;
use std::fs;
use tests::daemon::PATIENCE;
use tests::lab::Lab;
use tests::lab::members::Common;
use tests::status::Status;
use tests::wait_for;

const SITE_A: [&str; 4] = ["Alpha-Centauri", "Izar-Orchestrator", "drone-Izar", "drone-Tau-Beta"];
const SITE_B: [&str; 2] = ["drone-Meridian", "drone-Tarn"];

fn reference() -> Option<Lab> {
    let lab = Lab::for_test(topology::ALPHA_CENTAURI)?;
    assert_eq!(lab.found(&Common::default()).unwrap_or_else(|why| panic!("{why}")), Vec::<String>::new());
    Some(lab)
}

fn submit(lab: &Lab, at: &str, name: &str, tags: &str) {
    let text = format!("[build.{name}]\ncommand = \"echo {name} > out\"\noutputs = [\"out\"]\ntags = {tags}\n");
    fs::write(lab.folder(at).join("root/build.toml"), text).expect("file");
    lab.mesh_ok(at, &["build", "--detach", "/root/build.toml"]).unwrap_or_else(|why| panic!("{why}"));
}

fn is(builds: &[Value], name: &str, state: &str) -> bool {
    builds.iter().any(|b| b["name"] == name && b["state"] == state)
}

fn epoch(status: &Status) -> u64 {
    status.0["leader"]["epoch"].as_u64().unwrap_or(0)
}

/// Whoever still has a majority of the voters goes on by itself; whoever has not is recovered. Which it is depends on where
/// the voters are; either way the mesh goes on, and who comes back follows.
#[test]
fn the_leader_s_site_loses_its_power() {
    let Some(mut lab) = reference() else { return };
    let status = lab.wait("drone-Tarn", "led by voters", |s| s.voters() >= 3 && s.leader().is_some());
    let leader = status.leader().expect("just seen").to_owned();
    let (lost, left) = match SITE_A.contains(&leader.as_str()) {
        true => (&SITE_A[..], &SITE_B[..]),
        false => (&SITE_B[..], &SITE_A[..]),
    };
    submit(&lab, left[0], "before", "[]");
    lab.wait_builds(left[0], "done", |b| is(b, "before", "done"));
    // Queued, and nobody's yet, when the site goes.
    submit(&lab, left[0], "queued", "[\"on-nobody\"]");
    lab.wait_builds(left[1], "known there", |b| is(b, "queued", "queued"));
    for host in lost {
        lab.power_off(host).expect("off");
    }
    let voters = |s: &Status| {
        let voting = |h: &&&str| s.host(h).is_some_and(|host| host["voter"] == true);
        (left.iter().filter(voting).count(), s.voters())
    };
    let gone = |s: &Status| lost.iter().all(|h| ["down", "suspect"].contains(&s.state(h)));
    let status = lab.wait(left[0], "without the site", gone);
    let (here, all) = voters(&status);
    if here * 2 > all {
        lab.wait(left[0], "led by one of the rest", |s| s.leader().is_some_and(|l| left.contains(&l)));
    } else {
        let heir = wait_for(PATIENCE, || {
            let longest = |h: &&&str| lab.mesh_ok(h, &["recover", "--dry-run", "--force"]).is_ok();
            left.iter().find(longest)
        });
        let heir = heir.expect("one of them has the longest log");
        let key = lab.recovery_key().expect("kept by the lab");
        fs::write(lab.folder(heir).join("root/key"), key).expect("file");
        lab.mesh_ok(heir, &["recover", "--force", "--key", "/root/key"]).unwrap_or_else(|why| panic!("{why}"));
        for host in left {
            lab.wait(host, "recovered", |s| epoch(s) == 1 && left.iter().all(|h| s.state(h) == "alive"));
        }
    }
    submit(&lab, left[1], "after", "[]");
    let builds = lab.wait_builds(left[0], "done", |b| is(b, "after", "done"));
    assert!(is(&builds, "before", "done") && is(&builds, "queued", "queued"), "nothing is lost: {builds:#?}");

    let expected = lab.status(left[0]).map_or(0, |s| epoch(&s));
    for host in lost {
        lab.boot(host).expect("boot");
        lab.mesh_up(host).expect("up");
    }
    for host in SITE_A.iter().chain(&SITE_B) {
        let whole =
            |s: &Status| s.alive() == 6 && s.leader().is_some() && epoch(s) == expected && s.builds("done") == 2;
        lab.wait(host, "whole again", whole);
    }
}

/// Another machine in the place of a drone behind the masquerade: the same name, another key.
#[test]
fn a_lost_drone_is_replaced_and_the_fleet_is_whole() {
    let Some(mut lab) = reference() else { return };
    let cores =
        |s: &Status| s.hosts().filter(|h| h["state"] == "alive").filter_map(|h| h["cores"].as_u64()).sum::<u64>();
    let before = lab.wait("Alpha-Centauri", "whole", |s| s.alive() == 6);
    lab.power_off("drone-Tarn").expect("off");
    lab.wait("Alpha-Centauri", "without it", |s| s.state("drone-Tarn") == "down");
    let token = lab.mesh_ok("Alpha-Centauri", &["replace", "drone-Tarn", "--reason", "burnt"]);
    let token = token.unwrap_or_else(|why| panic!("{why}"));
    // The machine that takes its place is an empty one.
    let folder = lab.mesh_folder("drone-Tarn");
    let config = fs::read(folder.join("mesh.toml")).expect("mesh.toml");
    for entry in fs::read_dir(&folder).expect("folder").flatten() {
        let path = entry.path();
        if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.expect("emptied");
    }
    fs::write(folder.join("mesh.toml"), config).expect("mesh.toml");
    lab.boot("drone-Tarn").expect("boot");
    lab.mesh_ok("drone-Tarn", &["join", &token]).unwrap_or_else(|why| panic!("{why}"));
    lab.mesh_up("drone-Tarn").expect("up");
    // Its first words may come a moment after its first answers: until then it offers nothing.
    let after = lab.wait("Izar-Orchestrator", "whole again", |s| s.alive() == 6 && cores(s) == cores(&before));
    let key = |s: &Status| s.host("drone-Tarn").map(|h| h["peer"].clone());
    assert_ne!(key(&after), key(&before), "another key under the name");
    submit(&lab, "drone-Izar", "there", "[\"on-drone-Tarn\"]");
    let builds = lab.wait_builds("drone-Izar", "done", |b| is(b, "there", "done"));
    assert_eq!(builds[0]["host"], "drone-Tarn");
}

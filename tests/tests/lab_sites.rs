//! Longer journeys of the mesh on the reference fleet without its overlay, run by `scripts/lab-test`: a Debian package built on the far side, sites cut from each
//! other, the leader lost, the masquerading host rebooted, two hosts that change their addresses with each other.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use tests::bounded;
use tests::daemon::{PATIENCE, said};
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

/// Sources come from where the machine has its packages from; its own list of sources stays as it is.
fn debian_source(package: &str, into: &Path) {
    let apt = tempfile::tempdir().expect("folder");
    for folder in ["parts", "lists/partial", "archives/partial"] {
        fs::create_dir_all(apt.path().join(folder)).expect("folder");
    }
    for entry in fs::read_dir("/etc/apt/sources.list.d").expect("a Debian machine").flatten() {
        if entry.path().extension().is_some_and(|e| e == "sources") {
            let text = fs::read_to_string(entry.path()).expect("sources");
            let with_sources =
                |l: &str| if l.starts_with("Types:") { "Types: deb-src".to_owned() } else { l.to_owned() };
            let text: Vec<String> = text.lines().map(with_sources).collect();
            fs::write(apt.path().join("parts").join(entry.file_name()), text.join("\n") + "\n").expect("sources");
        }
    }
    let at = |key: &str, folder: &str| format!("{key}={}", apt.path().join(folder).display());
    let places = [
        "Dir::Etc::sourcelist=/dev/null".to_owned(),
        at("Dir::Etc::sourceparts", "parts"),
        at("Dir::State::lists", "lists"),
        at("Dir::Cache::archives", "archives"),
        "Dir::Cache::pkgcache=".to_owned(),
        "Dir::Cache::srcpkgcache=".to_owned(),
        "APT::Sandbox::User=root".to_owned(),
    ];
    for words in [&["update"][..], &["source", "--download-only", package]] {
        let mut command = Command::new("apt-get");
        command.arg("-qq").args(places.iter().flat_map(|p| ["-o", p])).args(words).current_dir(into);
        let out = bounded::output(&mut command);
        assert!(out.status.success(), "apt-get {words:?}: {}", said(&out));
    }
}

#[test]
fn a_debian_package_is_built_behind_the_masquerade_for_a_leader_of_the_other_site() {
    let Some(lab) = reference() else { return };
    let asked = "Izar-Orchestrator";
    let work = lab.folder(asked).join("root/cowsay");
    fs::create_dir(&work).expect("folder");
    debian_source("cowsay", &work);
    let files = fs::read_dir(&work).expect("folder").flatten().filter_map(|e| e.file_name().into_string().ok());
    let files: Vec<String> = files.collect();
    assert!(files.len() >= 3, "{files:?}");
    let steps = "dpkg-source -x cowsay_*.dsc source && cd source && dpkg-buildpackage -us -uc -b -d";
    let env = "{ DEB_BUILD_OPTIONS = \"nocheck noautodbgsym\", SOURCE_DATE_EPOCH = \"1700000000\" }";
    let text = format!(
        "[build.cowsay]\ncommand = \"{steps}\"\ninputs = {files:?}\noutputs = [\"*.deb\"]\ntags = [\"on-drone-Tarn\"]\nenv = {env}\n"
    );
    fs::write(work.join("build.toml"), text).expect("file");
    let leader = lab.status(asked).and_then(|s| s.leader().map(str::to_owned)).expect("led");
    assert!(SITE_A.contains(&leader.as_str()), "{leader}");
    lab.mesh_ok(asked, &["build", "/root/cowsay/build.toml"]).unwrap_or_else(|why| panic!("{why}"));
    let builds = lab.wait_builds(asked, "done", |b| is(b, "cowsay", "done"));
    assert_eq!(builds[0]["host"], "drone-Tarn", "{builds:#?}");
    lab.mesh_ok(asked, &["fetch", "b1", "--into", "/root/out"]).unwrap_or_else(|why| panic!("{why}"));
    let out = lab.exec(asked, &["sh", "-c", "dpkg-deb -f /root/out/cowsay_*.deb Package"]);
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "cowsay");
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

//! Losses: of hosts in the middle of a graph, of all daemons at once, of a blob, of a builder's time.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tests::daemon::Settings;
use tests::fleet::Fleet;

/// Twelve builds in three layers, one for each host; each leaves a marker of its own for every attempt that got to run.
fn graph_of_twelve(markers: &Path) -> String {
    let mut toml = String::from("[defaults]\nsandbox = \"none\"\noutputs = [\"out\"]\n");
    for layer in 0..3 {
        for n in 0..4 {
            let needs = if layer == 0 {
                vec![]
            } else {
                vec![format!("l{}n{n}", layer - 1), format!("l{}n{}", layer - 1, (n + 1) % 4)]
            };
            let marker = markers.display();
            toml += &format!(
                "[build.l{layer}n{n}]\nneeds = {needs:?}\ncommand = \"echo > {marker}/$MESH_BUILD.$MESH_ATTEMPT.$$; sleep 0.5; cat needs/*/out \
                 > out; echo l{layer}n{n} >> out\"\n"
            );
        }
    }
    toml.replace("cat needs/*/out > out", "cat needs/*/out > out 2>/dev/null || true")
}

/// How many markers each build has left.
fn count_markers(folder: &Path) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("folder").flatten() {
        let name = entry.file_name().into_string().expect("UTF-8");
        *counts.entry(name.split('.').next().expect("build").to_owned()).or_default() += 1;
    }
    counts
}

fn shared_folder(fleet: &Fleet, name: &str) -> PathBuf {
    let folder = fleet.path(name);
    fs::create_dir_all(&folder).expect("folder");
    for path in [folder.parent().expect("work"), &folder] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("permissions");
    }
    folder
}

fn attempts_in<'v>(build: &'v Value, state: &str) -> Vec<&'v Value> {
    build["attempts_detail"].as_array().expect("attempts").iter().filter(|a| a["state"] == state).collect()
}

#[test]
fn a_graph_survives_the_loss_of_the_leader_and_of_a_builder() {
    let one_core = Settings { cores: 1, ..Settings::default() };
    let mut fleet = Fleet::up_with(&["a", "b", "c", "d"], &one_core);
    let markers = shared_folder(&fleet, "markers");
    let file = fleet.file("graph.toml", &graph_of_twelve(&markers));
    // Three of the four vote, and two of those three have to stay: the builder is the one that does not vote.
    let status = fleet.any().wait("of three voters", |s| s.voters() == 3 && s.leader().is_some());
    let leader = status.leader().expect("just seen").to_owned();
    let builder =
        status.hosts().find(|h| h["voter"] == false).expect("four hosts")["name"].as_str().expect("text").to_owned();
    let asked = fleet.hosts.iter().map(|h| h.name.clone()).find(|n| *n != leader && *n != builder).expect("four hosts");
    let ids = fleet.submit(&asked, &file);
    assert_eq!(ids.len(), 12);

    let on_builder = |builds: &[Value]| builds.iter().any(|b| b["state"] == "running" && b["host"] == builder.as_str());
    fleet.wait_builds(&asked, "running on the builder", on_builder);
    fleet[leader.as_str()].kill();
    fleet[asked.as_str()].wait("led by another", |s| s.leader().is_some_and(|l| l != leader));
    fleet.wait_builds(&asked, "running on the builder again", on_builder);
    fleet[builder.as_str()].kill();

    fleet.wait_builds(&asked, "all done", |builds| builds.iter().all(|b| b["state"] == "done"));
    let counts = count_markers(&markers);
    for (name, id) in &ids {
        let build = fleet[asked.as_str()].build(id);
        let ran = counts.get(id).or_else(|| counts.get(name)).copied().unwrap_or(0);
        let lost = attempts_in(&build, "lost").len() as u64;
        assert!(ran >= 1, "{name} left no marker: {counts:?}");
        assert!(
            ran - 1 <= lost,
            "{name} ran {ran} times, but the ledger says that {lost} attempts were lost: {build:#}"
        );
        assert_eq!(attempts_in(&build, "done").len(), 1, "{build:#}");
    }
    // The dead come back and agree with the living.
    for name in [&leader, &builder] {
        fleet[name.as_str()].up();
    }
    fleet.settled();
    for host in &fleet.hosts {
        host.wait("of twelve builds", |s| s.builds("done") == 12);
    }
}

#[test]
fn all_daemons_restart_at_once() {
    let one_core = Settings { cores: 1, ..Settings::default() };
    let mut fleet = Fleet::up_with(&["a", "b", "c"], &one_core);
    let gates = shared_folder(&fleet, "gates");
    let file = fleet.file("one.toml", "[build.before]\ncommand = \"echo kept > out\"\noutputs = [\"out\"]\n");
    fleet["a"].ok(&["build", file.to_str().expect("UTF-8")]);
    let before = fleet.builds("a")[0]["id"].as_str().expect("text").to_owned();
    // Five that want a core each: three run, two wait. A first attempt never ends by itself.
    let mut toml = String::from("[defaults]\nsandbox = \"none\"\noutputs = [\"out\"]\n");
    for n in 0..5 {
        toml += &format!(
            "[build.n{n}]\ncommand = \"echo $MESH_ATTEMPT > out; until [ -e {}/open ]; do sleep 0.05; done\"\n",
            gates.display()
        );
    }
    let ids = fleet.submit("b", &fleet.file("five.toml", &toml));
    let status = fleet["b"].wait("busy", |s| s.builds("running") == 3 && s.builds("queued") == 2);
    assert_eq!(status.builds("done"), 1);
    let ran: Vec<Value> = fleet.builds("b").into_iter().filter(|b| b["state"] == "running").collect();

    let hosts: Vec<String> = fleet.hosts.iter().map(|h| h.name.clone()).collect();
    for name in &hosts {
        fleet[name.as_str()].kill();
    }
    for name in &hosts {
        fleet[name.as_str()].up();
    }
    fleet.settled();
    fs::write(gates.join("open"), "").expect("gate");
    for host in &fleet.hosts {
        host.wait("done with everything", |s| s.builds("done") == 6);
    }
    for build in &ran {
        let build = fleet["c"].build(build["id"].as_str().expect("text"));
        assert_eq!(attempts_in(&build, "lost").len(), 1, "a host that restarted has lost its attempt: {build:#}");
        assert_eq!(attempts_in(&build, "done").len(), 1, "{build:#}");
    }
    assert_eq!(ids.len(), 5);
    let into = fleet.path("after");
    fleet["c"].ok(&["fetch", &before, "--into", into.to_str().expect("UTF-8")]);
    assert_eq!(fs::read_to_string(into.join("out")).expect("fetched"), "kept\n");
    fleet["b"].ok(&["run", "--no-workspace", "--", "true"]);
}

#[test]
fn a_corrupted_blob_is_noticed_and_comes_from_the_other_host() {
    let fleet = Fleet::up(&["a", "b"]);
    let content = "precious ".repeat(1_000);
    let file = fleet
        .file("one.toml", &format!("[build.x]\ncommand = \"printf '%s' '{content}' > out\"\noutputs = [\"out\"]\n"));
    let ids = fleet.submit("a", &file);
    fleet["a"].wait_build(&ids["x"], "done", |b| b["state"] == "done");
    let mut corrupted = vec![];
    for path in files_below(&fleet["a"].dir.join("blobs")) {
        let bytes = fs::read(&path).expect("blob");
        if bytes == content.as_bytes() {
            let mut broken = bytes;
            broken[4_000] ^= 1;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("permissions");
            fs::write(&path, broken).expect("our own file");
            corrupted.push(path);
        }
    }
    assert_eq!(corrupted.len(), 1, "the output is kept once");
    for host in ["a", "b"] {
        let into = fleet.path(host);
        fleet[host].ok(&["fetch", &ids["x"], "--into", into.to_str().expect("UTF-8")]);
        assert_eq!(fs::read_to_string(into.join("out")).expect("fetched"), content, "{host} gives what was built");
    }
    let warned = fleet["a"].wait("warning of its disk", |s| !s.warnings("corrupt-blob").is_empty());
    assert_eq!(warned.warnings("corrupt-blob")[0]["host"], "a", "{warned:?}");
    assert_eq!(fs::read(&corrupted[0]).expect("a copy from b"), content.as_bytes());
    assert_eq!(files_below(&fleet["a"].dir.join("blobs/corrupt")).len(), 1, "the bad copy is there for a person");
}

#[test]
fn a_blob_that_rots_is_noticed_by_the_host_that_asks_for_it() {
    let fleet = Fleet::up(&["a", "b", "c"]);
    let content = "precious ".repeat(1_000);
    let file = fleet
        .file("one.toml", &format!("[build.x]\ncommand = \"printf '%s' '{content}' > out\"\noutputs = [\"out\"]\n"));
    let ids = fleet.submit("a", &file);
    let build = fleet["a"].wait_build(&ids["x"], "done", |b| b["state"] == "done");
    let text = |v: &Value| v.as_str().expect("text").to_owned();
    let holders: Vec<String> =
        attempts_in(&build, "done")[0]["holders"].as_array().expect("holders").iter().map(text).collect();
    assert_eq!(holders.len(), 2);
    let asker = ["a", "b", "c"].into_iter().find(|h| !holders.iter().any(|held| held == h)).expect("three hosts");
    // The holder that is asked first has rotted.
    for path in files_below(&fleet[holders[0].as_str()].dir.join("blobs")) {
        if fs::read(&path).expect("blob") == content.as_bytes() {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("permissions");
            fs::write(&path, content.replacen('p', "q", 1)).expect("our own file");
        }
    }
    let into = fleet.path("into");
    fleet[asker].ok(&["fetch", &ids["x"], "--into", into.to_str().expect("UTF-8")]);
    assert_eq!(fs::read_to_string(into.join("out")).expect("fetched"), content);
    let warned = fleet[asker].wait("warning of a disk", |s| !s.warnings("corrupt-blob").is_empty());
    assert_eq!(warned.warnings("corrupt-blob")[0]["host"], holders[0].as_str(), "{warned:?}");
    let aside = files_below(&fleet[holders[0].as_str()].dir.join("blobs/corrupt"));
    assert_eq!(aside.len(), 1, "the bad copy is moved away where it was");
}

#[test]
fn a_late_report_cannot_end_a_build_that_went_elsewhere() {
    let mut fleet = Fleet::up(&["a", "b", "c", "d"]);
    let gates = shared_folder(&fleet, "gates");
    let file = fleet.file(
        "slow.toml",
        &format!(
            "[build.x]\ncommand = \"echo $MESH_ATTEMPT > out; until [ -e {}/$MESH_ATTEMPT ]; do sleep 0.05; done\"\nsandbox = \
             \"none\"\noutputs = [\"out\"]\n",
            gates.display()
        ),
    );
    let leader = fleet.leader();
    let ids = fleet.submit(&leader, &file);
    let id = &ids["x"];
    let first = fleet[leader.as_str()].wait_build(id, "running", |b| b["state"] == "running");
    let slow = first["host"].as_str().expect("a host").to_owned();
    let witness = fleet.hosts.iter().map(|h| h.name.clone()).find(|n| *n != slow).expect("another host");
    fleet[slow.as_str()].freeze();
    fs::write(gates.join("1"), "").expect("gate"); // its command ends while its daemon is frozen
    fleet[witness.as_str()].wait("without the slow host", |s| s.state(&slow) == "down");
    let second =
        fleet[witness.as_str()].wait_build(id, "running elsewhere", |b| b["attempts"] == 2 && b["state"] == "running");
    assert_ne!(second["host"], slow.as_str());
    fleet[slow.as_str()].thaw();
    fleet[witness.as_str()].wait("with the slow host again", |s| s.state(&slow) == "alive");
    let still = fleet[witness.as_str()].build(id);
    assert_eq!((still["state"].as_str(), still["attempts"].as_u64()), (Some("running"), Some(2)), "{still:#}");
    fs::write(gates.join("2"), "").expect("gate");
    let done = fleet[witness.as_str()].wait_build(id, "done", |b| b["state"] == "done");
    assert_eq!(done["attempts"], 2);
    assert_eq!(attempts_in(&done, "lost").len(), 1, "{done:#}");
    let into = fleet.path("out");
    fleet[witness.as_str()].ok(&["fetch", id, "--into", into.to_str().expect("UTF-8")]);
    assert_eq!(fs::read_to_string(into.join("out")).expect("fetched"), "2\n", "the output is the second attempt's");
    let _ = &mut fleet;
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut out = vec![];
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { out.extend(files_below(&path)) } else { out.push(path) }
    }
    out
}

#[test]
fn a_daemon_whose_ledger_cannot_be_written_ends_with_its_reason() {
    let mut fleet = Fleet::found("a", &Settings::default());
    fleet["a"].excuse("File too large");
    fleet["a"].fill_disk();
    let out = fleet["a"].run(&["invite", "b"]); // something to write; whether it was answered is no matter
    let status = fleet["a"].ended();
    let log = fleet["a"].log();
    assert_eq!(status.code(), Some(1), "{out:?}\n{log}");
    let reasons: Vec<&str> =
        log.lines().filter(|l| l.starts_with("error: the ledger has stopped on this host")).collect();
    assert_eq!(reasons.len(), 1, "{log}");
    assert!(reasons[0].contains("File too large"), "{log}");
    assert!(log.contains("hint: ") && log.contains("`mesh up`"), "{log}");

    // With room on the disk again it is as if nothing had been.
    fleet["a"].up();
    fleet["a"].wait("leading", |s| s.leader() == Some("a"));
    fleet["a"].ok(&["invite", "b"]);
}

/// Founding anew would make a second history of the same mesh, with itself as its only voter.
#[test]
fn a_founder_whose_ledger_is_gone_does_not_found_its_mesh_anew() {
    let mut fleet = Fleet::up(&["a", "b"]);
    fleet.settled();
    fleet["a"].stop();
    let ledger = fleet["a"].dir.join("ledger.redb");
    assert!(ledger.exists(), "{}", ledger.display());
    std::fs::remove_file(&ledger).expect("removed");
    for _ in 0..2 {
        let error = fleet["a"].fails(&["up"]);
        assert!(error.contains("what this host promised when it voted") && error.contains("mesh evict"), "{error}");
    }
}

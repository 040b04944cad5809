//! Hosts that get another name, and machines that take the place of lost ones, with real daemons.

use serde_json::Value;
use tests::daemon::{Settings, said};
use tests::fleet::Fleet;

#[test]
fn a_renamed_host_is_the_same_host_everywhere() {
    let mut fleet = Fleet::up(&["alpha", "beta", "gamma"]);
    let before = fleet["alpha"].status().expect("a daemon");
    let key = |s: &tests::status::Status, name: &str| s.host(name).map(|h| h["peer"].clone());
    let file = fleet.file("one.toml", "[build.x]\ncommand = \"echo kept > out\"\noutputs = [\"out\"]\n");
    let ids = fleet.submit("beta", &file);
    let done = fleet["alpha"].wait_build(&ids["x"], "done", |b| b["state"] == "done");
    let builder = done["host"].as_str().expect("a host").to_owned();
    let pending = fleet["alpha"].ok(&["invite", "builder"]);

    for (host, args, words) in [
        ("alpha", ["rename", "beta", "gamma"], "enrolled already"),
        ("alpha", ["rename", "beto", "builder"], "did you mean beta"),
        ("beta", ["rename", "beta", "builder"], "no signer"),
    ] {
        let refused = fleet[host].fails(&args);
        assert!(refused.contains(words), "{args:?}: {refused}");
    }
    assert_eq!(fleet["alpha"].run(&["rename", "beta", "b.example"]).status.code(), Some(64));

    fleet["alpha"].ok(&["rename", &builder, "builder"]);
    for host in ["alpha", "beta", "gamma"] {
        let status =
            fleet[host].wait("with the new name", |s| s.state("builder") == "alive" && s.state(&builder).is_empty());
        assert_eq!(key(&status, "builder"), key(&before, &builder), "the key stays");
        let build = fleet[host].build(&ids["x"]);
        assert_eq!(build["host"], "builder", "history follows the key: {build:#}");
    }
    // The pending invitation for that name lets nobody in; the old name is free.
    let delta = fleet.stranger("delta");
    let listen = delta.listen.to_string();
    let refused = delta.fails(&["join", &pending, "--listen", &listen]);
    assert!(refused.contains("a host of that name is enrolled already"), "{refused}");
    drop(delta);
    let token = fleet.hosts.iter().find(|h| h.name == "alpha").expect("alpha").ok(&["invite", &builder]);
    let mut heir = fleet.stranger("heir");
    heir.ok(&["join", &token, "--listen", &heir.listen.to_string()]);
    heir.up();
    fleet["gamma"].wait("with a new host of the old name", |s| s.state(&builder) == "alive" && s.alive() == 4);
    // A name outlives its daemon's start.
    let renamed = builder.as_str();
    fleet[renamed].stop();
    fleet[renamed].up();
    fleet["gamma"].wait("with the renamed host again", |s| s.state("builder") == "alive");
}

#[test]
fn a_lost_host_is_replaced_and_its_build_goes_elsewhere() {
    let mut fleet = Fleet::up_with(&["alpha", "beta", "gamma"], &Settings { cores: 1, ..Settings::default() });
    fleet["alpha"].wait("of three voters", |s| s.voters() == 3);
    let gate = fleet.path("gate");
    let toml = format!(
        "[build.x]\ncommand = \"echo $MESH_ATTEMPT > out; until [ -e {} ]; do sleep 0.05; done\"\nsandbox = \"none\"\noutputs = \
         [\"out\"]\ntags = [\"here\"]\n",
        gate.display()
    );
    // The victim is whoever is no signer; it alone fits, until it is gone.
    let file = fleet.file("one.toml", &toml.replace("tags = [\"here\"]\n", ""));
    for _ in 0..3 {
        fleet.submit("alpha", &file); // one on each
    }
    let running =
        fleet.wait_builds("alpha", "running on all", |b| b.iter().filter(|b| b["state"] == "running").count() == 3);
    let victim = "gamma";
    let lost =
        running.iter().find(|b| b["host"] == victim).expect("one on each")["id"].as_str().expect("text").to_owned();

    // While it lives it is not replaced; nor is this host itself, nor by one that may not.
    let alive = fleet["alpha"].fails(&["replace", victim]);
    assert!(alive.contains("gamma is alive") && alive.contains("--force") && alive.contains("mesh why"), "{alive}");
    assert!(fleet["alpha"].fails(&["replace", "alpha"]).contains("mesh leave"));
    assert!(fleet["beta"].fails(&["replace", victim]).contains("no signer"));

    fleet[victim].kill();
    fleet["alpha"].wait("without the victim", |s| s.state(victim) == "down");
    let out = fleet["alpha"].run(&["replace", victim, "--reason", "burnt", "--json"]);
    assert!(out.status.success(), "{}", said(&out));
    let answer: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!(answer["version"], 1, "{answer}");
    let token = answer["token"].as_str().expect("a token").to_owned();
    let gone = fleet["beta"].wait("without its name", |s| s.state(victim).is_empty());
    let notes = gone.warnings("successor");
    assert!(notes.iter().any(|w| w["level"] == "note" && w["host"] == victim), "{gone:?}");
    let taken = fleet["alpha"].fails(&["invite", victim]);
    assert!(taken.contains("kept for its successor"), "{taken}");
    let lost = fleet["alpha"].wait_build(&lost, "lost there", |b| b["attempts_detail"][0]["state"] == "lost");
    assert!(lost["state"] == "queued" || lost["state"] == "running", "{lost:#}");

    // The new machine takes the name; the old one is told at its next start, and nothing listens to it.
    let mut heir = fleet.stranger("heir");
    heir.ok(&["join", &token, "--listen", &heir.listen.to_string()]);
    heir.up();
    let again = fleet["alpha"].wait("with the successor", |s| s.state(victim) == "alive" && s.alive() == 3);
    assert!(again.warnings("successor").is_empty(), "{again:?}");
    let second = fleet.stranger("second");
    let used = second.fails(&["join", &token, "--listen", &second.listen.to_string()]);
    assert!(used.contains("used already"), "{used}");
    std::fs::write(&gate, "").expect("gate");
    fleet["alpha"].wait("done with all", |s| s.builds("done") == 3);
    fleet[victim].up();
    let ended = fleet[victim].ended();
    assert!(ended.success(), "{ended}\n{}", fleet[victim].log_tail(20));
    assert!(fleet[victim].log().contains("taken out of the mesh"), "{}", fleet[victim].log_tail(20));
}

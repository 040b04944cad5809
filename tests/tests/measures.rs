//! What a person puts a stop to for a while, on real daemons: block, drain and pause keep builds away, say why, come first
//! in status, and end by themselves or by a person's word. A package that fails on two hosts is held, and nobody else is
//! to blame. Names that fit nobody do nothing.

use serde_json::Value;
use std::path::PathBuf;
use tests::daemon::{PATIENCE, Settings, said};
use tests::fleet::Fleet;
use tests::wait_for;

/// Builds that end at once, on whichever host.
fn work(fleet: &Fleet, names: &[&str]) -> PathBuf {
    let build = |name: &&str| format!("[build.{name}]\ncommand = \"true\"\nsandbox = \"none\"\nretries = 0\n");
    fleet.file(&format!("{}.toml", names.join("-")), &names.iter().map(build).collect::<Vec<_>>().join("\n"))
}

/// A build that runs until a file is there.
fn waits_for(fleet: &Fleet, name: &str, file: &str) -> PathBuf {
    let path = fleet.path(file);
    std::fs::create_dir_all(path.parent().expect("below the folder")).expect("folder");
    let command = format!("while [ ! -e {} ]; do sleep 0.1; done", path.display());
    fleet.file(&format!("{name}.toml"), &format!("[build.{name}]\ncommand = \"{command}\"\nsandbox = \"none\"\n"))
}

fn host_of(build: &Value) -> String {
    build["host"].as_str().unwrap_or_default().to_owned()
}

fn text_of(build: &Value) -> String {
    build["text"].as_str().unwrap_or_default().to_owned()
}

/// Waits until a host's status tells of exactly this, in this order.
#[track_caller]
fn stands(fleet: &Fleet, at: &str, codes: &[&str]) {
    let mut last = vec![];
    let found = wait_for(PATIENCE, || {
        let status = fleet[at].get("/v1/status")?;
        let told = status["standing"].as_array().expect("a list").iter();
        last = told.map(|s| s["code"].as_str().expect("a code").to_owned()).collect();
        (last == codes).then_some(())
    });
    assert!(found.is_some(), "{at} tells of {last:?}, not of {codes:?}");
}

fn json(fleet: &Fleet, at: &str, words: &[&str]) -> Value {
    let out = fleet[at].run(words);
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{words:?}: {e}\n{}", said(&out)))
}

/// Incident 5: the pause has a reason, an end, and the first line of status; it ends by itself though nothing happens.
#[test]
fn a_pause_holds_everybody_comes_first_and_ends_by_itself() {
    let fleet = Fleet::up(&["alpha", "beta"]);
    let host = &fleet["alpha"];
    for wrong in [&["pause"][..], &["pause", "--for", "8h"], &["pause", "--reason", "so"]] {
        assert_eq!(host.run(wrong).status.code(), Some(64), "{wrong:?}");
    }
    assert_eq!(host.run(&["pause", "--for", "60d", "--reason", "so"]).status.code(), Some(64), "too long");
    let denied = fleet["beta"].fails(&["pause", "--for", "1h", "--reason", "so"]);
    assert!(denied.contains("signer"), "{denied}");
    host.ok(&["drain", "beta", "--for", "1h", "--reason", "slow disk"]);
    host.ok(&["pause", "--for", "1h", "--reason", "new tree"]);
    stands(&fleet, "beta", &["paused", "drained"]); // the pause before all
    let out = host.run(&["status"]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(out.status.code(), Some(1), "{text}");
    let first = text.lines().next().unwrap_or_default();
    assert!(
        first.starts_with("warning: the mesh is paused: nobody gets builds") && first.contains("new tree"),
        "{text}"
    );
    assert!(text.contains("next: `mesh resume`") && text.contains("beta is drained, by alpha until "), "{text}");
    let builds = fleet.submit("beta", &work(&fleet, &["one"]));
    let waiting = fleet.wait_builds("beta", "told", |list| list.iter().any(|b| text_of(b).starts_with("paused for ")));
    assert_eq!(waiting[0]["state"], "queued");
    // A person ends it.
    let ended = json(&fleet, "alpha", &["resume", "--json"]);
    assert_eq!((ended["version"].as_u64(), ended["measure"]["reason"].as_str()), (Some(1), Some("new tree")));
    fleet["beta"].wait_build(&builds["one"], "done", |b| b["state"] == "done");
    assert!(host.fails(&["resume"]).contains("nothing is paused"));
    // And one that nobody ends, ends: in a mesh that does nothing else meanwhile.
    host.ok(&["undrain", "beta"]);
    host.ok(&["pause", "--for", "4s", "--reason", "short"]);
    let builds = fleet.submit("beta", &work(&fleet, &["two"]));
    fleet["beta"].wait_build(&builds["two"], "done", |b| b["state"] == "done");
    stands(&fleet, "beta", &[]);
    assert_eq!(fleet["beta"].run(&["status"]).status.code(), Some(0));
}

/// Incident 4: a block names one host, takes what runs there, and is lifted or ends; a drain lets what runs end.
#[test]
fn a_block_takes_what_runs_and_a_drain_lets_it_end() {
    let fleet = Fleet::up(&["alpha", "beta", "gamma"]);
    let host = &fleet["alpha"];
    for nobody in ["", "*", "bet", "beta gamma"] {
        let out = host.run(&["block", nobody, "--for", "1h", "--reason", "so"]);
        assert!(!out.status.success(), "`{nobody}` is nobody\n{}", said(&out));
    }
    stands(&fleet, "alpha", &[]);

    // Both builds start somewhere; the host of the first is drained, then blocked.
    let builds = fleet.submit("alpha", &waits_for(&fleet, "long", "go"));
    let running = host.wait_build(&builds["long"], "running", |b| b["state"] == "running");
    let first = host_of(&running);
    host.ok(&["drain", &first, "--for", "1h", "--reason", "slow disk"]);
    host.ok(&["drain", &first, "--for", "2h", "--reason", "slow disk"]);
    stands(&fleet, "alpha", &["drained"]); // the same again takes its place
    let more = fleet.submit("alpha", &work(&fleet, &["a", "b", "c", "d", "e", "f"]));
    for id in more.values() {
        let done = host.wait_build(id, "done", |b| b["state"] == "done");
        assert_ne!(host_of(&done), first, "{done:#}");
    }
    let still = host.build(&builds["long"]);
    assert_eq!((still["state"].as_str(), host_of(&still)), (Some("running"), first.clone()), "a drain takes nothing");

    host.ok(&["block", &first, "--for", "1h", "--reason", "it burns"]);
    let moved = host.wait_build(&builds["long"], "elsewhere", |b| host_of(b) != first && b["state"] == "running");
    let lost = &moved["attempts_detail"][0];
    assert_eq!(lost["state"], "lost");
    assert!(text_of(lost).contains("blocked for ") && text_of(lost).contains("it burns"), "{lost:#}");
    std::fs::write(fleet.path("go"), "").expect("file");
    host.wait_build(&builds["long"], "done", |b| b["state"] == "done");
    let why = String::from_utf8_lossy(&host.run(&["why", &first]).stdout).into_owned();
    assert!(why.contains("blocked by alpha until ") && why.contains("drained by alpha until "), "{why}");
    host.ok(&["unblock", &first]);
    host.ok(&["undrain", &first]);
    assert!(host.fails(&["unblock", &first]).contains("is not blocked"));
    let trail = host.ok(&["audit", "--host", &first]);
    let told: Vec<&str> = trail.lines().map(|l| l.split_once("  ").map_or("", |(_, told)| told)).collect();
    assert_eq!(told.len(), 5, "{trail}");
    assert!(
        told[2].starts_with(&format!("alpha blocked {first} until ")) && told[2].ends_with(": it burns"),
        "{trail}"
    );
    assert_eq!(told[3], format!("alpha ended that {first} was blocked"));
    let lines = json(&fleet, "gamma", &["audit", "--since", "1h", "--json"]);
    assert_eq!((lines["version"].as_u64(), lines["lines"].as_array().map(Vec::len)), (Some(1), Some(5)));
    assert_eq!(lines["lines"][2]["what"], "block");
}

/// Incident 9, of one package: two hosts have seen it fail, a third does not, and no host is blamed.
#[test]
fn a_poison_package_is_held_and_nobody_is_punished() {
    let fleet = Fleet::up(&["alpha", "beta", "gamma"]);
    let host = &fleet["alpha"];
    let text = "[build.poison]\ncommand = \"exit 7\"\nsandbox = \"none\"\nretries = 8\n";
    let file = fleet.file("poison.toml", text);
    let id = fleet.submit("alpha", &file)["poison"].clone();
    let held = host.wait_build(&id, "held", |b| b["held"] == true);
    assert_eq!((held["state"].as_str(), held["attempts"].as_u64()), (Some("queued"), Some(2)), "{held:#}");
    assert!(text_of(&held).starts_with("poison is held: its own command fails, on "), "{held:#}");
    let why = host.run(&["why", &id]);
    let told = String::from_utf8_lossy(&why.stdout).into_owned();
    assert_eq!(why.status.code(), Some(1), "{told}");
    assert!(
        told.matches("that is the package's fault").count() == 2 && told.contains(&format!("mesh retry {id}")),
        "{told}"
    );
    // Others build on, everywhere, and nobody is set aside or rests.
    let more = fleet.submit("alpha", &work(&fleet, &["a", "b", "c", "d", "e", "f"]));
    for build in more.values() {
        host.wait_build(build, "done", |b| b["state"] == "done");
    }
    stands(&fleet, "alpha", &[]);
    let plan = json(&fleet, "alpha", &["plan", "--json"]);
    assert_eq!(
        (plan["steps"].as_array().map(Vec::len), plan["held"].as_array().map(Vec::len)),
        (Some(0), Some(0)),
        "{plan:#}"
    );
    // Whoever waits for it does not wait for hours; a person may have it tried once more.
    let out = host.run(&["build", file.to_str().expect("UTF-8")]);
    assert!(!out.status.success() && String::from_utf8_lossy(&out.stderr).contains("poison is held"), "{}", said(&out));
    let again = host.ok(&["retry", &id]);
    assert_eq!(host.build(&id)["state"], "cancelled");
    let tried = host.wait_build(&again, "tried", |b| b["attempts"].as_u64() >= Some(1));
    assert!(tried["held"] != true || tried["attempts"].as_u64() >= Some(2), "{tried:#}");
}

#[test]
fn the_policy_is_the_meshs_and_says_what_is_allowed() {
    let fleet = Fleet::up(&["alpha", "beta"]);
    let host = &fleet["alpha"];
    assert!(host.ok(&["policy"]).lines().any(|line| line.split_whitespace().eq(["storm", "=", "3"])));
    for (key, value, says) in [("heel", "on", "there is no key `heel`"), ("storm", "99", "1 to 10 is allowed")] {
        let said = host.fails(&["policy", "set", key, value]);
        assert!(said.contains(says), "{said}");
        assert_eq!(host.run(&["policy", "set", key, value]).status.code(), Some(64));
    }
    assert!(fleet["beta"].fails(&["policy", "set", "storm", "2"]).contains("signer"));
    host.ok(&["policy", "set", "heal", "off"]);
    let told = json(&fleet, "beta", &["policy", "--json"]);
    let heal = told["policy"].as_array().and_then(|all| all.iter().find(|v| v["key"] == "heal")).expect("listed");
    assert_eq!((heal["value"].as_str(), heal["default"].as_str()), (Some("off"), Some("on")));
    stands(&fleet, "beta", &["healing-off"]);
    let plan = String::from_utf8_lossy(&fleet["beta"].run(&["plan"]).stdout).into_owned();
    assert!(plan.contains("frozen: the policy says `heal = off`") && plan.contains("nothing is due"), "{plan}");
    assert!(host.ok(&["audit"]).contains("alpha set the policy: heal = off"));
    assert!(host.fails(&["clear", "beta", "--reason", "looked at it"]).contains("beta has no case"));
}

/// What no longer fits into the ledger's trail is a blob that the trail names: nothing is lost, and it is read when
/// somebody asks for that time.
#[test]
fn a_trail_that_grows_long_is_put_away_and_read_again() {
    const CHANGES: usize = 1_510;
    let fleet = Fleet::found("alpha", &Settings::default());
    let host = &fleet["alpha"];
    for n in 0..CHANGES {
        let body = format!("{{\"key\":\"storm\",\"value\":\"{}\"}}", 2 + n % 2);
        let told = host.post("/v1/policy", &body).expect("an answer");
        assert_eq!(told["version"].as_u64(), Some(1), "{told:#}");
    }
    let lines = |words: &[&str]| {
        let report = json(&fleet, "alpha", words);
        assert_eq!(report["missing"], serde_json::json!([]), "{report:#}");
        report["lines"].as_array().expect("lines").clone()
    };
    let kept = wait_for(PATIENCE, || Some(lines(&["audit", "--json"])).filter(|kept| kept.len() < CHANGES));
    assert!(kept.is_some_and(|kept| !kept.is_empty()), "the newest stay");
    let all = lines(&["audit", "--json", "--since", "1d"]);
    let values: Vec<&str> = all.iter().map(|line| line["text"].as_str().expect("text")).collect();
    let want: Vec<String> = (0..CHANGES).map(|n| format!("storm = {}", 2 + n % 2)).collect();
    assert_eq!(values, want, "every line, in its order");
}

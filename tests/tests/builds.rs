//! A build's life on a small mesh: done, failed and tried elsewhere, cancelled, timed out, followed, fetched.

use serde_json::{Value, json};
use std::fs;
use tests::bounded::Running;
use tests::daemon::{Settings, said};
use tests::fleet::Fleet;

#[test]
fn outputs_travel_from_need_to_need_and_home() {
    let fleet = Fleet::up(&["a", "b"]);
    let file = fleet.file(
        "build.toml",
        r#"
        [build.lib]
        command = "echo from lib > lib.txt; mkdir -p deep; echo x > deep/er; ln -s lib.txt link; chmod +x lib.txt"
        outputs = ["*.txt", "deep/*", "link"]
        [build.app]
        command = "cat needs/lib/lib.txt > app.txt; test -x needs/lib/lib.txt; test ! -w needs/lib/lib.txt"
        needs = ["lib"]
        outputs = ["app.txt"]
        "#,
    );
    fleet["b"].ok(&["build", file.to_str().expect("UTF-8")]);
    let builds = fleet.builds("a");
    for (name, path) in [("lib", "lib.txt"), ("app", "app.txt")] {
        let id = builds.iter().find(|b| b["name"] == name).expect("listed")["id"].as_str().expect("text");
        let into = fleet.path(name);
        fleet["a"].ok(&["fetch", id, "--into", into.to_str().expect("UTF-8")]);
        assert_eq!(fs::read_to_string(into.join(path)).expect("fetched"), "from lib\n");
        let holders = fleet["a"].build(id)["attempts_detail"][0]["holders"].as_array().map(Vec::len);
        assert_eq!(holders, Some(2), "done means held by two hosts");
    }
    assert!(fs::symlink_metadata(fleet.path("lib").join("link")).expect("fetched").is_symlink());
}

#[test]
fn the_sandbox_hides_the_host_and_has_no_network() {
    let fleet = Fleet::found("a", &Settings::default());
    let dir = fleet["a"].dir.display().to_string();
    let script = format!(
        "id -u; ls {dir} 2>&1; ls /root /home 2>&1; cat /sys/class/net/*/operstate 2>/dev/null; grep -c : /proc/net/dev; touch \
         /usr/x 2>&1; exit 0"
    );
    let out = fleet["a"].run(&["run", "--no-workspace", "--", "sh", "-c", &script]);
    let text = said(&out);
    assert!(out.status.success(), "{text}");
    assert!(!text.contains("mesh.sock") && !text.contains("seed"), "the state folder can be seen: {text}");
    assert!(text.contains("Read-only file system") || text.contains("Permission denied"), "{text}");
    assert!(!text.starts_with("--- stdout\n0\n"), "the build runs as root: {text}");
}

#[test]
fn no_sandbox_is_the_hosts_to_allow() {
    let strict = Settings { allow_none: false, ..Settings::default() };
    let fleet = Fleet::found("a", &strict);
    let file = fleet.file("none.toml", "[build.x]\ncommand = \"true\"\nsandbox = \"none\"\n");
    let ids = fleet.submit("a", &file);
    let build = fleet["a"].wait_build(&ids["x"], "explained", |b| !b["text"].as_str().unwrap_or("").is_empty());
    assert_ne!(build["state"], "done", "{build:#}");
    assert_eq!(build["attempts"], 0, "no host may even try: {build:#}");
}

#[test]
fn a_failure_is_tried_on_another_host_and_then_reported() {
    let fleet = Fleet::up(&["a", "b", "c"]);
    let file = fleet.file(
        "fail.toml",
        "[build.x]\ncommand = \"echo no; exit 3\"\nretries = 1\n[build.y]\ncommand = \"true\"\nneeds = [\"x\"]\n",
    );
    let error = fleet["c"].fails(&["build", file.to_str().expect("UTF-8")]);
    assert!(error.contains('x'), "{error}");
    let builds = fleet.builds("a");
    let x = builds.iter().find(|b| b["name"] == "x").expect("listed");
    assert_eq!((x["state"].as_str(), x["attempts"].as_u64()), (Some("failed"), Some(2)));
    let detail = fleet["a"].build(x["id"].as_str().expect("text"));
    assert_eq!(detail["code"], 3);
    let hosts: Vec<_> =
        detail["attempts_detail"].as_array().expect("attempts").iter().map(|a| a["host"].clone()).collect();
    assert_ne!(hosts[0], hosts[1], "the second try is elsewhere");
    let y = builds.iter().find(|b| b["name"] == "y").expect("listed");
    assert_ne!(y["state"], "done", "what needs a failed build is not built");
    assert_eq!(y["attempts"], 0);
}

#[test]
fn cancelling_kills_the_whole_process_group() {
    let fleet = Fleet::up(&["a", "b"]);
    let marker = format!("31{:05}", std::process::id() % 100_000); // a duration that only this test sleeps
    let file = fleet.file(
        "long.toml",
        &format!("[build.x]\ncommand = \"sleep {marker} & sleep {marker}; wait\"\nsandbox = \"none\"\n[build.y]\ncommand = \"sleep {marker} & sleep {marker}; wait\"\n"),
    );
    let ids = fleet.submit("b", &file);
    for id in ids.values() {
        fleet["a"].wait_build(id, "running", |b| b["state"] == "running");
    }
    tests::wait_for(tests::daemon::PATIENCE, || (sleepers(&marker) >= 4).then_some(())).expect("the commands run");
    let mut words = vec!["cancel"];
    words.extend(ids.values().map(String::as_str));
    fleet["a"].ok(&words);
    for id in ids.values() {
        fleet["b"].wait_build(id, "cancelled", |b| b["state"] == "cancelled");
    }
    tests::wait_for(tests::daemon::PATIENCE, || (sleepers(&marker) == 0).then_some(())).expect("no process is left");
}

#[test]
fn a_timeout_kills_and_says_so() {
    let fleet = Fleet::found("a", &Settings::default());
    let file = fleet.file("slow.toml", "[build.x]\ncommand = \"sleep 1000\"\ntimeout = \"1s\"\nretries = 0\n");
    let error = fleet["a"].fails(&["build", file.to_str().expect("UTF-8")]);
    let build = &fleet.builds("a")[0];
    assert_eq!(build["state"], "failed", "{build:#}");
    let detail = fleet["a"].build(build["id"].as_str().expect("text"));
    assert_eq!(detail["attempts_detail"][0]["state"], "timed-out", "{detail:#}");
    assert!(error.contains("time"), "{error}");
}

#[test]
fn a_log_is_followed_live_from_any_host() {
    let fleet = Fleet::up(&["a", "b"]);
    let gate = fleet.file("gate/closed", "");
    fs::set_permissions(gate.parent().expect("folder"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("permissions");
    let open = gate.with_file_name("open");
    // The build goes on only when the test has read its first line: what is read then was live.
    let file = fleet.file(
        "talk.toml",
        &format!("[build.x]\ncommand = \"echo first; until [ -e {} ]; do sleep 0.05; done; echo last\"\nsandbox = \"none\"\n", open.display()),
    );
    let ids = fleet.submit("a", &file);
    let id = &ids["x"];
    let running = fleet["a"].wait_build(id, "running", |b| b["state"] == "running");
    let other = if running["host"] == "a" { "b" } else { "a" };
    let follower = Running::start(&mut fleet[other].command(&["logs", "-f", id]));
    follower.wait_said("first\n");
    fs::write(&open, "").expect("file");
    let out = follower.end();
    assert!(out.status.success(), "ends with the build\n{}", said(&out));
    assert_eq!(String::from_utf8_lossy(&out.stdout), "first\nlast\n");
    fleet["a"].wait_build(id, "done", |b| b["state"] == "done");
    assert_eq!(fleet["a"].ok(&["logs", id]), "first\nlast", "kept after the end");
}

#[test]
fn confirmed_builds_agree_or_fail() {
    let fleet = Fleet::up(&["a", "b", "c"]);
    let file = fleet.file(
        "confirm.toml",
        "[defaults]\nconfirm = 2\noutputs = [\"out\"]\nretries = 0\n[build.same]\ncommand = \"echo same > out\"\n[build.other]\ncommand = \"head -c 16 \
         /dev/urandom > out\"\n",
    );
    let error = fleet["a"].fails(&["build", file.to_str().expect("UTF-8")]);
    assert!(error.contains("other"), "{error}");
    let builds = fleet.builds("a");
    let build = |name: &str| {
        fleet["a"].build(builds.iter().find(|b| b["name"] == name).expect("listed")["id"].as_str().expect("text"))
    };
    let (same, other) = (build("same"), build("other"));
    assert_eq!(
        (same["state"].as_str(), other["state"].as_str()),
        (Some("done"), Some("failed")),
        "{same:#}\n{other:#}"
    );
    let tries = same["attempts_detail"].as_array().expect("attempts");
    assert_eq!(tries.len(), 2);
    assert_ne!(tries[0]["host"], tries[1]["host"]);
    assert_eq!(tries[0]["manifest"], tries[1]["manifest"]);
}

#[test]
fn the_same_request_is_not_a_second_build() {
    let fleet = Fleet::up(&["a", "b"]);
    let body =
        r#"{"version":1,"request":"00112233445566778899aabbccddeeff","builds":[{"name":"x","command":["true"]}]}"#;
    let first = fleet["a"].post("/v1/builds", body).expect("answer");
    let second = fleet["b"].post("/v1/builds", body).expect("answer");
    assert!(first["builds"][0].is_string(), "{first}");
    assert_eq!(first["builds"], second["builds"]);
    assert_eq!(fleet.builds("a").len(), 1);
}

#[test]
fn a_submission_may_be_as_large_as_an_entry_and_no_larger() {
    let fleet = Fleet::up(&["a", "b"]);
    let leader = fleet.leader();
    let follower = if leader == "a" { "b" } else { "a" };
    // The tag keeps them from running. 1,500 builds with this much environment are just below one entry's bound.
    let submit = |request: u8, env_bytes: usize| {
        let builds: Vec<Value> = (0..1_500)
            .map(|n| json!({ "name": format!("b{n}"), "command": ["true"], "tags": ["nowhere"], "env": [["X", "x".repeat(env_bytes)]] }))
            .collect();
        let body = json!({ "version": 1, "request": format!("{request:032x}"), "builds": builds }).to_string();
        fleet[follower].post("/v1/builds", &body).expect("an answer")
    };
    let taken = submit(1, 640);
    assert_eq!(taken["builds"].as_array().map(Vec::len), Some(1_500), "{taken}");
    let refused = submit(2, 700);
    let text = refused.to_string();
    assert!(text.contains("larger than one entry") && text.contains("fewer builds"), "{text}");
    fleet[&leader].wait("all queued", |s| s.builds("queued") == 1_500);
}

/// Processes on this machine that sleep for exactly this long.
fn sleepers(duration: &str) -> usize {
    let wanted = format!("sleep\0{duration}\0");
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    processes.filter(|p| fs::read(p.path().join("cmdline")).is_ok_and(|c| c == wanted.as_bytes())).count()
}

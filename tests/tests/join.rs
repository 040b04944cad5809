//! Who comes in and who does not: invitations, their single use, eviction of a live host.

use tests::daemon::{PATIENCE, Settings};
use tests::fleet::Fleet;

#[test]
fn hosts_join_by_invitation_through_any_member() {
    let mut fleet = Fleet::up(&["a", "b", "c"]);
    fleet["b"].wait("led by three voters", |s| s.voters() == 3);
    // The one that invited is gone: any other member lets the newcomer in.
    let token = fleet["a"].ok(&["invite", "d"]);
    fleet["a"].stop();
    let mut d = fleet.stranger("d");
    d.ok(&["join", &token, "--listen", &d.listen.to_string()]);
    d.up();
    fleet.hosts.push(d);
    fleet["a"].up();
    let status = fleet.settled();
    assert_eq!(status.hosts().count(), 4);
    assert_eq!(status.voters(), 3, "{status:?}");
    let out = fleet["d"].run(&["status", "--json"]); // it may warn, of a single signer: the code is 1 then
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(tests::status::Status::parse(&text).alive(), 4);
}

#[test]
fn who_may_invite_is_decided_by_an_invitation() {
    let mut fleet = Fleet::found("a", &Settings::default());
    fleet.join_signer("b");
    fleet.join("c");
    fleet.settled();
    let error = fleet["c"].fails(&["invite", "d"]);
    assert!(error.contains("no signer"), "{error}");
    // Another than the founder invites, while the founder is away.
    fleet["b"].wait("led by three voters", |s| s.voters() == 3);
    fleet["a"].stop();
    let token = fleet["b"].ok(&["invite", "d"]);
    let mut d = fleet.stranger("d");
    d.ok(&["join", &token, "--listen", &d.listen.to_string()]);
    d.up();
    fleet.hosts.push(d);
    fleet["a"].up();
    let status = fleet.settled();
    assert!(status.warnings("few-signers").is_empty(), "{status:?}");
}

#[test]
fn two_hosts_say_whose_loss_stops_new_work() {
    let fleet = Fleet::up(&["a", "b"]);
    let status = fleet["b"].wait("warned", |s| s.warnings("two-hosts").len() == 1);
    assert_eq!(status.voters(), 1);
    assert_eq!(status.warnings("two-hosts")[0]["host"], "a", "{status:?}");
}

#[test]
fn strangers_are_refused_counted_and_shown() {
    let fleet = Fleet::found("a", &Settings::default());
    let mut raw = std::net::TcpStream::connect(fleet["a"].listen).expect("it listens");
    std::io::Write::write_all(&mut raw, b"GET / HTTP/1.0\r\n\r\n").expect("sent");
    let status = fleet["a"].wait("aware of a stranger", |s| s.0["strangers"].as_u64() > Some(0));
    assert_eq!(status.warnings("stranger").len(), 1, "{status:?}");
    assert_eq!(status.hosts().count(), 1, "{status:?}");
}

#[test]
fn a_host_of_another_mesh_is_refused_counted_and_shown() {
    let ours = Fleet::up(&["a", "b"]);
    // Another mesh, one of whose hosts looks for the other where ours listens.
    let mut theirs = Fleet::found("x", &Settings::default());
    let token = theirs["x"].ok(&["invite", "y"]);
    let mut y = theirs.stranger("y");
    y.ok(&["join", &token, "--listen", &y.listen.to_string()]);
    let config = std::fs::read_to_string(y.dir.join("mesh.toml")).expect("mesh.toml");
    let lead = format!("leads = [\"/ip4/127.0.0.1/tcp/{}\"]\n{config}", ours["a"].listen.port());
    std::fs::write(y.dir.join("mesh.toml"), lead).expect("mesh.toml");
    theirs["x"].stop();
    y.up();
    theirs.hosts.push(y);

    // It hangs up when it sees who answers, before it has shown anything.
    let status = ours["a"].wait("aware of a stranger", |s| !s.warnings("stranger").is_empty());
    assert!(status.warnings("stranger")[0]["text"].as_str().is_some_and(|t| t.contains("127.0.0.1")), "{status:?}");
    assert!(status.0["strangers"].as_u64() > Some(0), "{status:?}");
    assert_eq!(status.hosts().count(), 2, "{status:?}");
    theirs["x"].up();
    let status = theirs.settled();
    assert_eq!(status.hosts().count(), 2, "and neither of ours is theirs: {status:?}");
    assert_eq!(ours.settled().hosts().count(), 2);
}

#[test]
fn the_mesh_outlives_the_eviction_of_its_leader() {
    let mut fleet = Fleet::found("a", &Settings::default());
    fleet.join_signer("b");
    fleet.join("c");
    fleet.join("d");
    fleet.settled();
    fleet["b"].wait("led by three voters", |s| s.voters() == 3);
    // Two may evict: one of them is not the leader.
    let out = fleet.leader();
    let signer = if out == "b" { "a" } else { "b" };
    fleet[signer].ok(&["ban", &out, "--reason", "stolen"]);
    assert!(fleet[&out].ended().success(), "it has learned of it, and stops");
    let status = fleet[signer].wait("whole again", |s| {
        s.leader().is_some_and(|l| l != out) && s.host(&out).is_none() && s.voters() == 3 && s.alive() == 3
    });
    assert_eq!(status.hosts().count(), 3, "{status:?}");
    let done = fleet[signer].ok(&["run", "--no-workspace", "--", "echo", "still", "building"]);
    assert!(done.contains("still building"), "{done}");
    assert!(fleet.builds(signer).iter().all(|b| b["host"] != out.as_str()), "{:#?}", fleet.builds(signer));
}

#[test]
fn of_two_hosts_the_only_voter_may_leave_and_the_other_goes_on() {
    let mut fleet = Fleet::found("a", &Settings::default());
    fleet.join_signer("b");
    let status = fleet.settled();
    assert_eq!((status.voters(), status.leader()), (1, Some("a")), "{status:?}");
    let error = fleet["b"].fails(&["evict", "a", "--reason", "gone"]);
    assert!(error.contains("only voter"), "{error}");

    // With nobody to take the seat it stays, and leads on.
    fleet["b"].stop();
    fleet["a"].wait("alone", |s| s.alive() == 1);
    let error = fleet["a"].fails(&["leave"]);
    assert!(error.contains("only voter"), "{error}");
    fleet["a"].ok(&["run", "--no-workspace", "--", "true"]);

    fleet["b"].up();
    fleet.settled();
    fleet["a"].ok(&["leave"]);
    assert!(fleet["a"].ended().success());
    let status = fleet["b"].wait("alone and leading", |s| s.leader() == Some("b") && s.host("a").is_none());
    assert_eq!((status.voters(), status.hosts().count()), (1, 1), "{status:?}");
    let done = fleet["b"].ok(&["run", "--no-workspace", "--", "echo", "still", "building"]);
    assert!(done.contains("still building"), "{done}");
}

#[test]
fn a_host_that_leaves_is_gone_at_once_and_its_builds_go_elsewhere() {
    let mut fleet = Fleet::found("a", &Settings::default());
    let tagged = Settings { tags: vec!["here".into()], ..Settings::default() };
    for name in ["b", "c"] {
        let token = fleet["a"].ok(&["invite", name]);
        let mut host = fleet.stranger_with(name, &tagged);
        host.ok(&["join", &token, "--listen", &host.listen.to_string()]);
        host.up();
        fleet.hosts.push(host);
    }
    fleet.settled();
    fleet["a"].wait("led by three voters", |s| s.voters() == 3);
    let gate = fleet.path("go on");
    let command = format!("until [ -e '{}' ]; do sleep 0.1; done", gate.display());
    let text = format!("[build.x]\ncommand = \"{command}\"\ntags = [\"here\"]\nsandbox = \"none\"\n");
    let file = fleet.file("x.toml", &text);
    let id = fleet.submit("a", &file)["x"].clone();
    let build = fleet["a"].wait_build(&id, "running", |b| b["state"] == "running");
    let first = build["host"].as_str().expect("a host").to_owned();
    let other = if first == "b" { "c" } else { "b" };

    fleet[&first].ok(&["leave"]);
    let left = std::time::Instant::now();
    fleet["a"].wait("without it", |s| s.host(&first).is_none());
    fleet[other].wait("without it", |s| s.host(&first).is_none());
    assert!(left.elapsed().as_secs() < 5, "at once, not after the time that silence takes: {:?}", left.elapsed());
    assert!(fleet[&first].ended().success());
    fleet["a"].wait_build(&id, "running elsewhere", |b| b["state"] == "running" && b["host"] == other);
    fleet.file("go on", "");
    let done = fleet["a"].wait_build(&id, "done", |b| b["state"] == "done");
    assert_eq!(done["attempts"], 2, "{done:#}");

    // Started again on the same folder, it knows, and ends.
    let error = fleet[&first].fails(&["up"]);
    assert!(error.contains("this host was taken out of the mesh"), "{error}");
}

#[test]
fn a_cloned_state_folder_is_noticed() {
    let mut fleet = Fleet::found("a", &Settings::default());
    let tagged = Settings { tags: vec!["here".into()], ..Settings::default() };
    let token = fleet["a"].ok(&["invite", "b"]);
    let mut b = fleet.stranger_with("b", &tagged);
    b.ok(&["join", &token, "--listen", &b.listen.to_string()]);
    b.up();
    fleet.hosts.push(b);
    fleet.settled();
    fleet["b"].stop();
    let twin = fleet.twin("b", "twin");
    fleet["b"].up();
    fleet.hosts.push(twin);
    fleet["twin"].up();
    let status = fleet["a"].wait("aware of the clone", |s| !s.warnings("clone").is_empty());
    assert_eq!(status.warnings("clone")[0]["host"], "b", "{status:?}");
    // What only b may build waits, while all else goes on without it.
    let file = fleet.file("x.toml", "[build.x]\ncommand = \"true\"\ntags = [\"here\"]\nsandbox = \"none\"\n");
    let id = fleet.submit("a", &file)["x"].clone();
    for _ in 0..3 {
        fleet["a"].ok(&["run", "--no-workspace", "--", "true"]);
    }
    let held = fleet["a"].build(&id);
    assert!(held["state"] == "queued" && held["attempts"] == 0, "a twin gets no work: {held:#}");
    assert!(fleet.builds("a").iter().all(|b| b["id"] == id.as_str() || b["host"] == "a"), "a twin gets no work");
    let status = fleet["a"].status().expect("answer");
    assert!(status.host("b").is_some_and(|b| b["voter"] == false), "and no vote: {status:?}");
    // With one of the two gone, the other is b again at its next start.
    fleet["twin"].stop();
    fleet["b"].stop();
    fleet["b"].up();
    fleet["a"].wait("rid of the clone", |s| s.warnings("clone").is_empty() && s.state("b") == "alive");
    let done = fleet["a"].wait_build(&id, "done", |b| b["state"] == "done");
    assert_eq!(done["host"], "b", "{done:#}");
}

#[test]
fn a_token_lets_in_one_key_once() {
    let fleet = Fleet::found("a", &Settings::default());
    let token = fleet["a"].ok(&["invite", "b"]);
    let mut b = fleet.stranger("b");
    let listen = b.listen.to_string();
    b.ok(&["join", &token, "--listen", &listen]);
    b.up();

    let thief = fleet.stranger("thief");
    let error = thief.fails(&["join", &token, "--listen", &thief.listen.to_string()]);
    assert!(error.contains("used"), "says that the token was used: {error}");
    assert!(error.contains("hint:"), "and what to do: {error}");
    let status = fleet["a"].wait("of two", |s| s.alive() == 2);
    assert_eq!(status.hosts().count(), 2, "{status:?}");
}

#[test]
fn a_token_that_is_broken_or_expired_is_refused() {
    let fleet = Fleet::found("a", &Settings::default());
    let host = fleet.stranger("b");
    let listen = host.listen.to_string();
    let token = fleet["a"].ok(&["invite", "b"]);
    for broken in ["", "nonsense", &token[..token.len() / 2], &token.replace(['a', 'b', 'c'], "d")] {
        let error = host.fails(&["join", "--listen", &listen, "--", broken]);
        assert!(error.contains("error:"), "`{broken}`: {error}");
        assert!(!error.contains("panicked"), "`{broken}`: {error}");
    }
    let short = fleet["a"].ok(&["invite", "b", "--expires", "1s"]);
    fleet["a"].wait("past the token's life", {
        let start = std::time::Instant::now();
        move |_| start.elapsed().as_millis() > 1_500
    });
    let error = host.fails(&["join", &short, "--listen", &listen]);
    assert!(error.contains("expired"), "{error}");
    // The good one still works: failed tries have not used it.
    host.ok(&["join", &token, "--listen", &listen]);
}

#[test]
fn each_lead_that_failed_is_named() {
    let mut fleet = Fleet::found("a", &Settings::default());
    let token = fleet["a"].ok(&["invite", "b"]);
    let listen = fleet["a"].listen;
    fleet["a"].stop();
    let host = fleet.stranger("b");
    let error = host.fails(&["join", &token, "--listen", &host.listen.to_string()]);
    assert!(error.contains(&listen.port().to_string()), "names the address that did not answer: {error}");
    fleet["a"].up();
    host.ok(&["join", &token, "--listen", &host.listen.to_string()]);
}

#[test]
fn evicting_a_live_host_cuts_it_off() {
    let mut fleet = Fleet::up(&["a", "b", "c"]);
    fleet["a"].ok(&["evict", "c", "--reason", "sold"]);
    for name in ["a", "b"] {
        fleet[name].wait("without c", |s| s.host("c").is_none());
    }
    // The entry may never reach it, but those that refuse it say why.
    assert!(fleet["c"].ended().success());
    let log = fleet["c"].log();
    assert!(log.contains("this host was taken out of the mesh"), "{log}");

    let error = fleet["c"].fails(&["up"]);
    assert!(error.contains("this host was taken out of the mesh"), "it has not forgotten: {error}");

    // And if it had, no member would let it in by the old credential. It may know the address of one member only,
    // whose word alone does not end it; it says so, and is no part of the mesh.
    let mut c = fleet.hosts.pop().expect("three hosts");
    std::fs::remove_file(c.dir.join("outcast")).expect("its note");
    let told = |c: &tests::daemon::Daemon| c.log().matches("a member says that this host was taken out").count();
    let before = told(&c);
    let _ = c.try_up();
    tests::wait_for(PATIENCE, || (told(&c) > before).then_some(()))
        .unwrap_or_else(|| panic!("nobody has told it again\n{}", c.log_tail(40)));
    for name in ["a", "b"] {
        assert!(fleet[name].status().expect("answer").host("c").is_none());
    }

    // Evicted is not banned: a new invitation makes it a host again, as a new key.
    let token = fleet["a"].ok(&["invite", "c"]);
    let mut again = fleet.stranger("c2");
    again.ok(&["join", &token, "--listen", &again.listen.to_string()]);
    again.up();
    fleet["b"].wait("with the new c", |s| s.hosts().any(|h| h["name"] == "c" && h["state"] == "alive"));
    drop(again);
    drop(c);
}

#[test]
fn bad_words_get_a_clear_error_and_a_hint() {
    let fleet = Fleet::found("a", &Settings::default());
    let a = &fleet["a"];
    let broken = fleet.file("broken.toml", "[build.x]\ncommand = \"true\"\ncores = \"many\"\n");
    let cycle = fleet.file(
        "cycle.toml",
        "[build.x]\ncommand = \"true\"\nneeds = [\"y\"]\n[build.y]\ncommand = \"true\"\nneeds = [\"x\"]\n",
    );
    let absurd = fleet.file("absurd.toml", "[build.x]\ncommand = \"true\"\ncores = 1000000\n");
    let path = |p: &std::path::PathBuf| p.to_str().expect("UTF-8").to_owned();
    let cases: [(Vec<String>, &str); 7] = [
        (vec!["evict".into(), "nobody".into(), "--reason".into(), "x".into()], "nobody"),
        (vec!["build".into(), path(&broken)], "broken.toml:3:"),
        (vec!["build".into(), path(&cycle)], "cycle"),
        (vec!["build".into(), path(&absurd)], "cores"),
        (vec!["build".into(), "/nowhere/file.toml".into()], "/nowhere/file.toml"),
        (vec!["logs".into(), "b999".into()], "b999"),
        (vec!["fetch".into(), "b999".into()], "b999"),
    ];
    for (args, part) in cases {
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        let error = a.fails(&words);
        assert!(error.contains(part), "{args:?} does not say `{part}`: {error}");
        assert!(error.contains("error:") && !error.contains("panicked"), "{args:?}: {error}");
    }
    let nobody = fleet.stranger("nobody");
    let out = nobody.run(&["status"]);
    assert_eq!(out.status.code(), Some(3), "no daemon\n{}", tests::daemon::said(&out));
}

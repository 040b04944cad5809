//! Who comes in and who does not: invitations, their single use, eviction of a live host.

use tests::daemon::Settings;
use tests::fleet::Fleet;

#[test]
fn hosts_join_by_invitation_through_any_member() {
    let mut fleet = Fleet::up(&["a", "b"]);
    // The third is invited and let in by the second; the first only hears of it.
    let token = fleet["b"].ok(&["invite", "c"]);
    let mut c = fleet.stranger("c");
    c.ok(&["join", &token, "--listen", &c.listen.to_string()]);
    c.up();
    fleet.hosts.push(c);
    let status = fleet.settled();
    assert_eq!(status.hosts().count(), 3);
    let status = fleet["a"].wait("led by three voters", |s| s.voters() == 3);
    assert_eq!(status.0["cores"]["total"], 6);
    // The command line says the same as the API.
    let text = fleet["c"].ok(&["status", "--json"]);
    assert_eq!(tests::status::Status::parse(&text).alive(), 3);
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
        fleet[name].wait("without c", |s| s.host("c").is_none_or(|h| h["state"] == "left"));
        fleet[name].wait("without a connection to c", |s| s.host("c").is_none_or(|h| h["path"] == "none"));
    }
    // It is alive, knows it by itself or by being refused, and no member lets it in again by the old credential.
    let mut c = fleet.hosts.pop().expect("three hosts");
    c.excuse("evicted");
    c.excuse("revoked");
    c.kill();
    let _ = c.try_up();
    let status =
        fleet["a"].wait("counting strangers or without c", |s| s.host("c").is_none_or(|h| h["state"] != "alive"));
    assert_ne!(status.state("c"), "alive");

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

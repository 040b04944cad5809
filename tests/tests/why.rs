//! `mesh why`: the story of a host as three real daemons have lived it, and names that fit nobody.

use std::process::Output;
use tests::daemon::{PATIENCE, said};
use tests::fleet::Fleet;
use tests::wait_for;

#[test]
fn the_story_of_a_death_and_a_return_is_told() {
    let mut fleet = Fleet::up(&["alpha", "beta", "gamma"]);
    let well = fleet["alpha"].ok(&["why", "gamma"]);
    assert!(well.contains("gamma is alive") && well.contains("next: nothing to do"), "{well}");
    let itself = fleet["alpha"].ok(&["why", "alpha"]);
    assert!(itself.contains("seen from alpha, which is itself"), "{itself}");

    fleet["gamma"].kill();
    fleet["alpha"].wait("without gamma", |s| s.state("gamma") == "down");
    let out = fleet["alpha"].run(&["why", "gamma"]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(out.status.code(), Some(1), "it is not well\n{}", said(&out));
    // Who missed it, with what each tried; what was made of it; where it was looked for; and what to do.
    for words in [
        "gamma is down",
        "because: accused by 2 hosts",
        "who misses it now:\n  alpha (here)",
        "beta ",
        "no answer for ",
        "had last heard it ",
        "what happened, oldest first:",
        "suspect -> down",
        "where it was looked for:",
        "next: ",
    ] {
        assert!(text.contains(words), "`{words}` is missing:\n{text}");
    }
    let json: serde_json::Value =
        serde_json::from_slice(&fleet["beta"].run(&["why", "gamma", "--json"]).stdout).expect("JSON");
    assert_eq!((json["version"].as_u64(), json["seen_from"].as_str()), (Some(1), Some("beta")), "{json:#}");
    assert_eq!(json["state"], "down", "{json:#}");
    assert!(json["accusers"].as_array().is_some_and(|a| a.len() == 2), "{json:#}");

    // The port is closed: the machine answers, and no daemon does.
    let told = fleet["alpha"].get("/v1/hosts/gamma/why").expect("an answer");
    let tried = told["leads"].as_array().into_iter().flatten().any(|l| l["failed"].is_string());
    let first = told["next"][0].as_str().expect("advice").to_owned();
    assert!(!tried || first.contains("no daemon listens") || first.contains("look at gamma"), "{told:#}");

    // Healing has set it aside; it gets builds again when it is back and stays, though nothing is there to build.
    let why = |fleet: &Fleet| fleet["alpha"].run(&["why", "gamma"]);
    let aside = |out: &Output| String::from_utf8_lossy(&out.stdout).contains("set aside, because it is down");
    wait_for(PATIENCE, || Some(why(&fleet)).filter(aside)).expect("it is set aside");
    fleet["gamma"].up();
    fleet.settled();
    let well = wait_for(PATIENCE, || Some(why(&fleet)).filter(|out| out.status.code() == Some(0)));
    let story = well.map_or_else(|| panic!("{}", said(&why(&fleet))), |out| said(&out));
    assert!(story.contains("down -> alive") && story.contains("came back from being down once"), "{story}");
    assert!(story.contains("gets builds again: it was down and nothing else, and has been up for"), "{story}");
    assert_eq!(fleet["beta"].run(&["status"]).status.code(), Some(0), "nor does status warn of it");
}

#[test]
fn a_farewell_is_told_apart_from_a_death() {
    let mut fleet = Fleet::up(&["alpha", "beta", "gamma"]);
    fleet["gamma"].stop();
    let status = fleet["alpha"].wait("without gamma", |s| s.state("gamma") == "left");
    assert!(status.warnings("host-down").is_empty() && !status.warnings("host-left").is_empty(), "{status:?}");
    let out = fleet["alpha"].run(&["why", "gamma"]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(text.contains("gamma has left") || text.contains("gamma is left"), "{text}");
    assert!(text.contains("farewell") && !text.contains("accused by"), "{text}");
    fleet["gamma"].up();
    fleet.settled();
    let story = fleet["alpha"].ok(&["why", "gamma"]);
    assert!(!story.contains("came back from being down"), "who has said farewell does not flap: {story}");
}

#[test]
fn names_that_fit_nobody_are_answered_with_those_near() {
    let fleet = Fleet::up(&["alpha", "beta"]);
    let host = &fleet["alpha"];
    for (name, near) in [("bta", "did you mean beta"), ("Alpha", "did you mean alpha"), ("zzzzz", "mesh status")] {
        let said = host.fails(&["why", name]);
        assert!(said.contains(&format!("no host `{name}`")) && said.contains(near), "{name}: {said}");
    }
    assert_eq!(host.run(&["why", "no name"]).status.code(), Some(64));
    // A key names a host, whole or by its end.
    let peer = host.status().expect("a daemon").host("beta").expect("beta")["peer"].as_str().expect("text").to_owned();
    for key in [&peer[..], &peer[peer.len() - 8..]] {
        assert!(host.ok(&["why", key]).contains("beta is alive"), "{key}");
    }
    host.ok(&["evict", "beta", "--reason", "sold"]);
    let said = host.fails(&["why", "beta"]);
    assert!(said.contains("alpha took it out on ") && said.contains("(sold)"), "{said}");
}

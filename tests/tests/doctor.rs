//! `mesh doctor` with real daemons, and without one.

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tests::daemon::{Daemon, said};
use tests::fleet::Fleet;

/// Exit code, and the findings by their codes.
fn asked(host: &Daemon) -> (Option<i32>, Vec<Value>) {
    let out = host.run(&["doctor", "--json"]);
    let answer: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&out)));
    assert_eq!(answer["version"], 1, "{answer}");
    (out.status.code(), answer["findings"].as_array().expect("findings").clone())
}

fn found<'f>(findings: &'f [Value], code: &str) -> Option<&'f Value> {
    findings.iter().find(|f| f["code"] == code)
}

#[test]
fn a_mesh_is_examined_and_each_finding_has_its_advice() {
    let mut fleet = Fleet::up(&["alpha", "beta", "gamma"]);
    let (code, findings) = asked(&fleet["beta"]);
    assert_eq!(code, Some(1), "{findings:#?}");
    let signers = found(&findings, "few-signers").expect("alpha alone may invite");
    assert!(signers["advice"].as_str().is_some_and(|a| a.contains("mesh invite")), "{signers}");
    assert!(findings.iter().all(|f| f["advice"].as_str().is_some_and(|a| !a.is_empty())), "{findings:#?}");
    for absent in ["no-daemon", "no-leader", "rights", "owner", "config", "host-down", "unreachable", "clock"] {
        assert_eq!(found(&findings, absent), None, "{findings:#?}");
    }
    fleet.join_signer("delta");
    fleet["beta"].wait("with a second signer", |s| s.alive() == 4);
    assert_eq!(found(&asked(&fleet["beta"]).1, "few-signers"), None);

    // What ends soon: an invitation that nobody has used, and what a person has put there.
    let ends = |fleet: &Fleet| {
        let (code, findings) = asked(&fleet["alpha"]);
        let ends = findings.iter().filter(|f| f["code"] == "ends-soon");
        (code, ends.map(|f| f["text"].as_str().expect("text").to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(ends(&fleet).1, Vec::<String>::new(), "those of beta and gamma were used");
    fleet["alpha"].ok(&["invite", "epsilon", "--expires", "2h"]);
    for stop in [&["drain", "beta"][..], &["block", "gamma"], &["pause"]] {
        fleet["alpha"].ok(&[stop, &["--for", "3h", "--reason", "a new disk"]].concat());
    }
    let told = ends(&fleet).1;
    for what in [
        "the invitation of epsilon ends in 1h",
        "the drain of beta ends in 2h",
        "the block of gamma",
        "the pause of the mesh",
    ] {
        assert!(told.iter().any(|text| text.starts_with(what)), "{what}: {told:#?}");
    }
    for stop in [&["undrain", "beta"][..], &["unblock", "gamma"], &["resume"]] {
        fleet["alpha"].ok(stop);
    }
    assert_eq!(ends(&fleet).1.len(), 1, "the invitation alone");

    fleet["gamma"].kill();
    fleet["beta"].wait("without gamma", |s| s.state("gamma") == "down");
    let (code, findings) = asked(&fleet["beta"]);
    let down = found(&findings, "host-down").expect("gamma is down");
    assert_eq!((code, &down["host"]), (Some(1), &"gamma".into()), "{findings:#?}");
    let text = fleet["beta"].run(&["doctor"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("warning: gamma is down") && text.contains("do: "), "{text}");
}

#[test]
fn without_a_daemon_what_can_be_seen_is_seen() {
    let mut fleet = Fleet::up(&["alpha"]);
    fleet["alpha"].stop();
    let (code, findings) = asked(&fleet["alpha"]);
    let none = found(&findings, "no-daemon").expect("nobody answers");
    assert_eq!((code, &none["severity"]), (Some(3), &"error".into()), "{findings:#?}");
    assert!(none["advice"].as_str().is_some_and(|a| a.contains("mesh up")), "{none}");
    assert_eq!(found(&findings, "rights"), None, "{findings:#?}");

    let seed = fleet["alpha"].dir.join("seed");
    fs::set_permissions(&seed, fs::Permissions::from_mode(0o644)).expect("permissions");
    let (code, findings) = asked(&fleet["alpha"]);
    let rights = found(&findings, "rights").expect("the seed is open");
    assert!(rights["advice"].as_str().is_some_and(|a| a.contains("chmod 600")), "{rights}");
    assert_eq!(code, Some(3));
    fs::set_permissions(&seed, fs::Permissions::from_mode(0o600)).expect("permissions");

    let config = fleet["alpha"].dir.join("mesh.toml");
    fs::write(&config, "listn = []\n").expect("mesh.toml");
    let (_, findings) = asked(&fleet["alpha"]);
    let text = found(&findings, "config").expect("misspelt")["text"].as_str().expect("text").to_owned();
    assert!(text.contains("mesh.toml:1:1") && text.contains("listn"), "{text}");

    let nowhere = fleet.stranger("nobody");
    let (code, findings) = asked(&nowhere);
    assert_eq!(code, Some(3), "{findings:#?}");
    assert!(found(&findings, "not-enrolled").is_some() || found(&findings, "no-folder").is_some(), "{findings:#?}");
}

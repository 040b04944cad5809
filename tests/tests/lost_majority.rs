//! A majority of the voters is lost for good: `mesh recover`, with real daemons, and what comes of those that return.

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tests::daemon::{Daemon, PATIENCE, Settings, said};
use tests::fleet::Fleet;
use tests::status::Status;
use tests::wait_for;

/// Recovers with this host as the heir, the key in a file.
#[track_caller]
fn recover(fleet: &Fleet, heir: &str, more: &[&str]) -> String {
    let key = fleet.file("recovery-key", &fleet.recovery_key);
    let out = fleet[heir].run(&[&["recover", "--key", key.to_str().expect("UTF-8")], more].concat());
    assert!(out.status.success(), "{}\n{}", said(&out), fleet[heir].log_tail(60));
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

fn epoch(status: &Status) -> u64 {
    status.0["leader"]["epoch"].as_u64().unwrap_or(0)
}

fn warns(status: &Status, code: &str) -> bool {
    status.0["warnings"].as_array().is_some_and(|all| all.iter().any(|w| w["code"] == code))
}

/// Power cuts. Who is left alone cannot tell whether it is itself the one that is cut off: there a person has to know.
#[track_caller]
fn lost(fleet: &mut Fleet, hosts: &[String], seen_by: &str) {
    for host in hosts {
        fleet[host.as_str()].kill();
    }
    fleet[seen_by].wait("without them and without a leader", |s| {
        s.leader().is_none() && hosts.iter().all(|host| ["down", "suspect"].contains(&s.state(host)))
    });
}

/// Whether one has kept, for its next start, where another is.
fn remembers(host: &Daemon, other: &Daemon) -> bool {
    let kept = fs::read(host.dir.join("leads")).unwrap_or_default();
    String::from_utf8_lossy(&kept).contains(&format!("/tcp/{}", other.listen.port()))
}

/// Two of three, the first host, the only signer and the leader among them.
#[test]
fn the_last_of_three_goes_on_with_what_was_queued() {
    let one_core = Settings { cores: 1, ..Settings::default() };
    let mut fleet = Fleet::up_with(&["a", "b", "c"], &one_core);
    fleet["c"].wait("of three voters", |s| s.voters() == 3);
    let gate = fleet.path("gate");
    fs::create_dir_all(gate.parent().expect("a folder")).expect("folder");
    fs::set_permissions(gate.parent().expect("a folder"), fs::Permissions::from_mode(0o777)).expect("permissions");
    let toml: String = (0..5)
        .map(|n| {
            format!(
                "[build.x{n}]\nsandbox = \"none\"\noutputs = [\"out\"]\ncommand = \"until [ -e {} ]; do sleep 0.05; done; echo {n} > out\"\n",
                gate.display()
            )
        })
        .collect();
    let file = fleet.file("many.toml", &toml);
    let ids = fleet.submit("c", &file);
    let running = |b: &[Value]| b.iter().filter(|b| b["state"] == "running").count() == 3;
    fleet.wait_builds("c", "running on all three", running);

    // While a majority lives there is nothing to recover, and nobody's key is asked for.
    let refused = fleet["c"].fails(&["recover"]);
    assert!(refused.contains("3 of 3 voters survive"), "{refused}");
    // So that it can be told later on: a host that knows nobody's address, and that nobody dials, is told nothing.
    wait_for(PATIENCE, || ["b", "c"].iter().all(|other| remembers(&fleet["a"], &fleet[*other])).then_some(()))
        .unwrap_or_else(|| panic!("a keeps nothing of where the others are\n{}", fleet["a"].log_tail(20)));
    lost(&mut fleet, &["a".into(), "b".into()], "c");
    let out = fleet["c"].run(&["status"]);
    assert_eq!(out.status.code(), Some(2), "{}", said(&out));
    assert!(said(&out).contains("mesh recover"), "{}", said(&out));

    let unsure = fleet["c"].fails(&["recover"]);
    assert!(unsure.contains("it is not certain that") && unsure.contains("--force"), "{unsure}");
    let plan = fleet["c"].run(&["recover", "--dry-run", "--force"]);
    assert!(plan.status.success() && said(&plan).contains("the log of c would go on"), "{}", said(&plan));
    let other = Fleet::found("x", &one_core);
    let wrong = fleet.file("wrong-key", &other.recovery_key);
    let refused = fleet["c"].fails(&["recover", "--force", "--key", wrong.to_str().expect("UTF-8")]);
    assert!(refused.contains("recovery key of another mesh"), "{refused}");
    drop(other);

    let pid = fleet["c"].pid();
    let told = recover(&fleet, "c", &["--force"]);
    assert!(told.contains("c leads (epoch 1"), "{told}");
    let status = fleet["c"].wait("led by itself", |s| s.leader() == Some("c"));
    assert_eq!((epoch(&status), fleet["c"].pid()), (1, pid), "the daemon has started again by itself");
    // Everything is still there; what ran on the lost hosts, and here, is to run again.
    for id in ids.values() {
        let build = fleet["c"].build(id);
        assert!(["queued", "running"].contains(&build["state"].as_str().expect("text")), "{build:#}");
    }
    fs::write(&gate, "").expect("gate");

    // The heir may invite, since nobody else is left who could: a successor for the first host.
    let token = fleet["c"].ok(&["replace", "a", "--force"]);
    let mut heir = fleet.stranger("a2");
    heir.ok(&["join", &token, "--listen", &heir.listen.to_string()]);
    heir.up();
    fleet.wait_builds("c", "done", |b| b.iter().all(|b| b["state"] == "done"));
    for (name, id) in &ids {
        let into = fleet.path(&format!("out-{name}"));
        fleet["c"].ok(&["fetch", id, "--into", into.to_str().expect("UTF-8")]);
        assert_eq!(fs::read_to_string(into.join("out")).expect("the output").trim(), &name[1..]);
    }

    // A lost voter that was not lost after all hears of it, leaves its log, and votes again.
    fleet["b"].up();
    let b = fleet["b"].wait("in the recovered mesh", |s| epoch(s) == 1 && s.alive() == 3 && s.voters() == 3);
    assert!(!warns(&b, "disputed"));
    let build = fleet["b"].build(&ids["x0"]);
    assert_eq!(build["state"], "done");
    // A start finds the log of the recovery again, and its first host's old one counts for nothing.
    fleet["c"].stop();
    fleet["c"].up();
    fleet["c"].wait("in the recovered mesh", |s| epoch(s) == 1 && s.alive() == 3);
    fleet["a"].up();
    fleet["a"].ended();
    let log = fleet["a"].log();
    for word in
        ["host=\"b\" refusal=revoked: a was taken", "host=\"c\" refusal=revoked: a was taken", "it stops, and needs"]
    {
        assert!(log.contains(word), "no {word}\n{}", fleet["a"].log_tail(20));
    }
    let again = fleet["a"].fails(&["up"]);
    assert!(again.contains("this host was taken out of the mesh") && again.contains("new invitation"), "{again}");
    drop(heir);
}

/// A majority of the voters comes back as what it was, after the others had gone on without it.
#[test]
fn a_majority_that_returns_follows_those_that_went_on() {
    const ALL: [&str; 5] = ["a", "b", "c", "d", "e"];
    let mut fleet = Fleet::up(&ALL);
    let status = fleet["e"].wait("of several voters", |s| s.voters() >= 3 && s.leader().is_some());
    let voters = status.voters();
    let votes = |host: &str| status.host(host).is_some_and(|h| h["voter"] == true);
    let leader = status.leader().expect("just seen").to_owned();
    let mut gone = vec![leader.clone()];
    gone.extend(ALL.iter().filter(|h| votes(h) && **h != leader).map(|h| (*h).to_owned()).take(voters / 2));
    let left: Vec<&str> = ALL.into_iter().filter(|h| !gone.iter().any(|g| g == h)).collect();
    lost(&mut fleet, &gone, left[0]);
    // Where the log is shorter nothing is recovered, and where it is longest is said. The record is carried by hand.
    let mut heir = None;
    for host in &left {
        let out = fleet[*host].run(&["recover", "--dry-run", "--force"]);
        match out.status.success() {
            true => heir = heir.or(Some(*host)),
            false => assert!(said(&out).contains("has the longer log"), "{}", said(&out)),
        }
    }
    let heir = heir.expect("one of them has the longest log");
    let record = recover(&fleet, heir, &["--print", "--quiet", "--force"]);
    let record = record.trim();
    assert!(record.starts_with("mesh-record1-"), "{record}");
    let bent = format!("{}A", &record[..record.len() - 1]);
    assert!(!fleet[heir].run(&["recover", "--apply", &bent]).status.success());
    assert!(fleet[heir].status().is_some_and(|s| s.leader().is_none()), "nothing has happened yet");
    fleet[heir].ok(&["recover", "--apply", record]);
    for host in &left {
        fleet[*host].wait("recovered", |s| epoch(s) == 1 && s.alive() == left.len());
    }
    assert!(fleet[heir].ok(&["recover", "--apply", record]).is_empty(), "once more is harmless");

    for host in &gone {
        fleet[host.as_str()].up();
    }
    for host in ALL {
        let status = fleet[host].wait("one mesh", |s| epoch(s) == 1 && s.alive() == 5 && s.voters() >= 3);
        assert!(!warns(&status, "disputed"), "{status:?}");
    }
    let leader = fleet.leader();
    assert!(fleet.hosts.iter().all(|h| h.status().is_some_and(|s| s.leader() == Some(leader.as_str()))));
}

/// Two people recover two halves that do not see each other, with the same key.
#[test]
fn two_recoveries_of_one_epoch_are_told_and_a_third_settles_it() {
    let mut fleet = Fleet::up(&["a", "b", "c"]);
    fleet["c"].wait("of three voters", |s| s.voters() == 3);
    fleet["a"].kill();
    fleet["c"].kill();
    recover_alone(&fleet, "b");
    fleet["b"].stop();
    fleet["c"].up();
    recover_alone(&fleet, "c");
    fleet["b"].up();
    for host in ["b", "c"] {
        let disputed: &Daemon = &fleet[host];
        disputed.wait("disputed", |s| warns(s, "disputed"));
    }
    recover(&fleet, "c", &["--force"]);
    for host in ["b", "c"] {
        let status = fleet[host].wait("settled", |s| epoch(s) == 2 && s.alive() == 2 && !warns(s, "disputed"));
        assert_eq!(status.leader(), Some("c"));
    }
    // Whoever comes last of all hears of the last word only.
    fleet["a"].up();
    fleet["a"].wait("one mesh", |s| epoch(s) == 2 && s.alive() == 3 && s.voters() == 3);
}

#[track_caller]
fn recover_alone(fleet: &Fleet, host: &str) {
    fleet[host].wait("alone", |s| s.leader().is_none() && s.alive() == 1);
    recover(fleet, host, &["--force"]);
    fleet[host].wait("led by itself", |s| epoch(s) == 1 && s.leader() == Some(host));
}

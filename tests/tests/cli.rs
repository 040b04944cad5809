//! The command line as a person meets it: what is asked wrongly, and what happens when a person changes
//! their mind. Every mistake has its exit code, a message that names the thing, and a hint.

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use tests::bounded::{self, Running};
use tests::daemon::{Settings, said, signal};
use tests::fleet::Fleet;
use tests::program::mesh;

const USAGE: i32 = 64;
const NO_DAEMON: i32 = 3;
const FAILED: i32 = 1;

/// The three things that every error owes.
#[track_caller]
fn refused(what: &str, out: &Output, code: i32, names: &str) {
    let said = said(out);
    let err = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{what}: exit code\n{said}");
    assert!(err.starts_with("error:"), "{what}: no error\n{said}");
    assert!(err.contains(names), "{what}: `{names}` is not named\n{said}");
    assert!(err.lines().any(|l| l.starts_with("hint: ") && l.len() > 10), "{what}: no hint\n{said}");
    assert!(out.stdout.is_empty(), "{what}: an error is no data\n{said}");
    assert!(err.len() < 4_096, "{what}: {} bytes of error", err.len());
    assert!(!err.contains("panicked"), "{what}\n{said}");
}

fn mesh_in(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(mesh());
    bounded::output(command.arg("--dir").arg(dir).args(args).env("NO_COLOR", "1"))
}

#[test]
fn bad_words_are_answered_with_a_hint() {
    let fleet = Fleet::found("Alpha-Centauri", &Settings::default());
    let host = fleet.any();
    let long = "n".repeat(64 << 10);
    let huge_id = format!("b{}", "9".repeat(400));
    #[rustfmt::skip]
    let table: &[(&str, &[&str], i32, &str)] = &[
        ("unknown host", &["evict", "nobody", "--reason", "gone"], FAILED, "nobody"),
        ("unknown host to ban", &["ban", "nobody", "--reason", "gone"], FAILED, "nobody"),
        ("no reason", &["evict", "nobody", "--reason", " "], USAGE, "reason"),
        ("empty name", &["invite", ""], USAGE, "``"),
        ("64 KiB name", &["invite", &long], USAGE, "nnnn"),
        ("name with a control character", &["invite", "a\nb"], USAGE, "is no host name"),
        ("name with a dot", &["invite", "a.example.org"], USAGE, "a.example.org"),
        ("name that is taken", &["invite", "Alpha-Centauri"], FAILED, "Alpha-Centauri"),
        ("absurd expiry", &["invite", "beta", "--expires", "9999y"], USAGE, "30 days"),
        ("no expiry", &["invite", "beta", "--expires", "soon"], USAGE, "soon"),
        ("unknown build", &["logs", "b999"], FAILED, "b999"),
        ("unknown build to fetch", &["fetch", "b999"], FAILED, "b999"),
        ("unknown build to cancel", &["cancel", "b999"], FAILED, "b999"),
        ("unknown build to retry", &["retry", "b999"], FAILED, "b999"),
        ("no build id", &["logs", "twelve"], USAGE, "twelve"),
        ("absurd build id", &["logs", &huge_id], USAGE, "b999"),
        ("unknown option", &["status", "--colour"], USAGE, "--colour"),
        ("unknown command", &["statsu"], USAGE, "statsu"),
        ("unknown state", &["builds", "--state", "broken"], USAGE, "broken"),
        ("absurd limit", &["builds", "--limit", "4000000000"], USAGE, "4000000000"),
        ("no command", &["run", "--"], USAGE, "COMMAND"),
        ("absurd cores", &["run", "--cores", "4000000", "--", "true"], USAGE, "cores"),
        ("absurd memory", &["run", "--memory", "9999999PiB", "--", "true"], USAGE, "memory"),
        ("absurd timeout", &["run", "--timeout", "99999y", "--", "true"], USAGE, "timeout"),
        ("unknown sandbox", &["run", "--sandbox", "chroot", "--", "true"], USAGE, "chroot"),
        ("64 KiB option", &["run", "--tag", &long, "--", "true"], USAGE, "tag"),
        ("output outside", &["run", "-o", "../x", "--", "true"], USAGE, "../x"),
        ("missing build file", &["build", "nowhere.toml"], USAGE, "nowhere.toml"),
        ("second init", &["init"], FAILED, "already belongs to a mesh"),
        ("second daemon", &["up"], FAILED, "another daemon"),
        ("second daemon behind", &["up", "--detach"], FAILED, "another daemon"),
        ("the only host leaves", &["leave"], FAILED, "only host"),
    ];
    for (what, args, code, names) in table {
        refused(what, &host.run(args), *code, names);
    }

    // Build files: the message points at line and column.
    #[rustfmt::skip]
    let files: &[(&str, &str, &str)] = &[
        ("broken", "[build.a]\ncommand = \"x", "broken.toml:2:"),
        ("unknown-key", "[build.a]\ncommand = \"x\"\noutput = [\"y\"]\n", "unknown-key.toml:3:1"),
        ("need", "[build.a]\ncommand = \"x\"\nneeds = [\"nobody\"]\n", "need.toml:3:10"),
        ("cycle", "[build.a]\ncommand = \"x\"\nneeds = [\"b\"]\n[build.b]\ncommand = \"x\"\nneeds = [\"a\"]\n", "cycle.toml:"),
        ("cores", "[build.a]\ncommand = \"x\"\ncores = -1\n", "cores.toml:3:9"),
        ("input", "[build.a]\ncommand = \"x\"\ninputs = [\"not-there.c\"]\n", "not-there.c"),
        ("zero", "[build.a]\ncommand = \"a\\u0000b\"\n", "zero.toml:2:11"),
        ("empty", "", "empty.toml:1:1"),
    ];
    for (name, text, names) in files {
        let file = fleet.file(&format!("{name}.toml"), text);
        refused(name, &host.run(&["build", file.to_str().expect("UTF-8")]), USAGE, names);
    }
}

#[test]
fn folders_tokens_and_sockets_that_do_not_fit_are_refused() {
    let mut fleet = Fleet::found("alpha", &Settings::default());
    let folder = fleet.folder().to_owned();
    refused("no folder", &mesh_in(&folder.join("nowhere"), &["status"]), NO_DAEMON, "nowhere");
    refused("no mesh yet", &mesh_in(&folder.join("nowhere"), &["up"]), NO_DAEMON, "nowhere");

    let token = fleet.any().ok(&["invite", "beta"]);
    let cut = &token[..token.len() / 2];
    for (what, token, names) in [
        ("no token", "hello", "not an invitation token"),
        ("empty token", "", "no invitation"),
        ("half a token", cut, "token"),
        ("spaces", "a b", "no invitation"),
    ] {
        refused(what, &mesh_in(&folder.join("eve"), &["join", token, "--listen", "127.0.0.1:1"]), USAGE, names);
    }
    refused("other name", &mesh_in(&folder.join("eve"), &["join", &token, "--name", "gamma"]), USAGE, "gamma");
    refused("bad address", &mesh_in(&folder.join("eve"), &["join", &token, "--listen", "here"]), USAGE, "here");
    let mut beta = fleet.stranger("beta");
    let listen = beta.listen.to_string();
    beta.ok(&["join", &token, "--listen", &listen]);
    let ready = beta.try_up().expect("beta comes up");
    assert!(ready.starts_with("mesh: beta is up"), "by its enrolled name, whatever its ledger has: {ready}");
    refused("used token", &mesh_in(&folder.join("eve"), &["join", &token]), FAILED, "already");

    // A daemon that is down, one whose port is taken, one with a broken mesh.toml, one with an open seed.
    beta.stop();
    refused("no daemon", &beta.run(&["status"]), NO_DAEMON, "no daemon");
    let taken = std::net::TcpListener::bind(beta.listen).expect("the port is free again");
    refused("port taken", &beta.run(&["up"]), FAILED, &beta.listen.port().to_string());
    refused("port taken, behind", &beta.run(&["up", "--detach"]), FAILED, &beta.listen.port().to_string());
    drop(taken);
    let config = fs::read_to_string(beta.dir.join("mesh.toml")).expect("mesh.toml");
    fs::write(beta.dir.join("mesh.toml"), "cores = 2\nalow_none = true\n").expect("written");
    refused("broken mesh.toml", &beta.run(&["up"]), USAGE, "mesh.toml:2:1");
    refused("broken mesh.toml, behind", &beta.run(&["up", "--detach"]), USAGE, "mesh.toml:2:1");
    fs::write(beta.dir.join("mesh.toml"), config).expect("written");
    let seed = beta.dir.join("seed");
    fs::set_permissions(&seed, fs::Permissions::from_mode(0o644)).expect("permissions");
    refused("open seed", &beta.run(&["up"]), FAILED, "seed");
    fs::set_permissions(&seed, fs::Permissions::from_mode(0o600)).expect("permissions");
    fleet.hosts.push(beta);

    // Somebody else on this machine. Only root can become somebody else.
    if nix::unistd::geteuid().is_root() {
        let host = fleet.any();
        // The path to the socket is open, as with a folder below /var/lib: the socket itself decides.
        fs::set_permissions(&host.dir, fs::Permissions::from_mode(0o711)).expect("permissions");
        let other = |args: &[&str]| {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
                .arg(fs::canonicalize(mesh()).expect("path"));
            bounded::output(command.arg("--dir").arg(&host.dir).args(args).current_dir("/"))
        };
        refused("socket of another", &other(&["status"]), NO_DAEMON, "root");
        refused("folder of another", &other(&["up"]), FAILED, "root");
    }
}

#[test]
fn data_is_on_standard_output_and_the_rest_is_not() {
    let fleet = Fleet::found("alpha", &Settings::default());
    let host = fleet.any();
    let file = fleet.file(
        "two.toml",
        "[defaults]\nsandbox = \"none\"\n[build.good]\ncommand = \"echo fine > made\"\noutputs = [\"made\"]\n[build.bad]\ncommand = \"echo why; exit 3\"\n",
    );
    let out = host.run(&["build", file.to_str().expect("UTF-8")]);
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.status.code(), Some(FAILED), "one failed\n{}", said(&out));
    assert!(stdout.contains("failed") && stdout.contains("exited with 3"), "{}", said(&out));
    assert!(stderr.contains("hint: `mesh logs b"), "where its log is\n{}", said(&out));

    for args in
        [&["status"][..], &["builds"], &["cancel", "b1"], &["fetch", "b2", "--into", "/tmp"], &["invite", "beta"]]
    {
        // Which of the two is b1 is not promised; the one that fetches needs the good one.
        let id = fleet.builds(&host.name).iter().find(|b| b["state"] == "done").map(|b| b["id"].clone());
        let id = id.as_ref().and_then(Value::as_str).expect("one is done").to_owned();
        let into = fleet.path("got");
        let args: Vec<&str> = args
            .iter()
            .map(|a| {
                if *a == "b2" {
                    id.as_str()
                } else if *a == "/tmp" {
                    into.to_str().expect("UTF-8")
                } else {
                    a
                }
            })
            .chain(["--json"])
            .collect();
        let out = host.run(&args);
        let json: Value =
            serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}\n{}", said(&out)));
        assert_eq!(json["version"], 1, "{args:?}\n{}", said(&out));
    }
    let status: Value = serde_json::from_str(&host.ok(&["status", "--json"])).expect("JSON");
    let keys = |v: &Value| v.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    for (value, expected) in [
        (&status, &["builds", "cores", "host", "hosts", "leader", "mesh", "next", "version", "warnings"][..]),
        (&status["mesh"], &["id", "name"]),
        (&status["leader"], &["epoch", "host", "lease_ms", "peer", "term"]),
        (&status["cores"], &["alive", "total"]),
        (&status["builds"], &["cancelled", "done", "failed", "queued", "running"]),
        (
            &status["hosts"][0],
            &[
                "name",
                "peer",
                "state",
                "since_ms",
                "cores",
                "free_cores",
                "voter",
                "protected",
                "allow_reboot",
                "boot_id",
                "boot_enabled",
                "path",
                "addresses",
                "version",
            ],
        ),
        (&status["hosts"][0]["addresses"][0], &["addr", "source", "proved", "age_ms", "nat_of"]),
    ] {
        let have = keys(value);
        for key in expected {
            assert!(have.iter().any(|k| k == key), "`{key}` is missing in {value:#}");
        }
    }

    // A reader that has seen enough is no error.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let out = Running::start_into(&mut host.command(&["logs", "b1"]), writer).end();
    assert!(!String::from_utf8_lossy(&out.stderr).contains("error"), "{}", said(&out));
    assert_eq!(out.status.code(), Some(0), "{}", said(&out));
}

#[test]
fn status_tells_what_is_wrong_from_what_is_worth_knowing() {
    let mut fleet = Fleet::up(&["alpha", "beta"]);
    let out = fleet["alpha"].run(&["status"]);
    let text = String::from_utf8_lossy(&out.stdout);
    assert_eq!(out.status.code(), Some(0), "a healthy mesh, however small\n{}", said(&out));
    assert!(text.contains("note: two hosts") && !text.contains("warning: "), "{}", said(&out));

    // What is made while nobody else can hold it waits, and says so.
    fleet["beta"].stop();
    fleet["alpha"].wait("alone", |s| s.state("beta") == "left");
    let text = "[build.a]\nsandbox = \"none\"\ncommand = \"echo x > made\"\noutputs = [\"made\"]\n";
    let ids = fleet.submit("alpha", &fleet.file("one.toml", text));
    let status = fleet["alpha"].wait("waiting for a holder", |s| !s.warnings("no-second-holder").is_empty());
    let warning = status.warnings("no-second-holder")[0];
    assert_eq!((&warning["level"], &warning["host"]), (&"warning".into(), &"alpha".into()), "{status:?}");
    assert!(warning["text"].as_str().is_some_and(|t| t.starts_with(&ids["a"])), "{status:?}");
    let out = fleet["alpha"].run(&["status"]);
    assert_eq!(out.status.code(), Some(FAILED), "{}", said(&out));
    assert!(String::from_utf8_lossy(&out.stdout).contains("next: start the daemon on beta"), "{}", said(&out));

    fleet["beta"].up();
    fleet["alpha"].wait_build(&ids["a"], "done", |b| b["state"] == "done");
    fleet.settled();
    let out = fleet["alpha"].run(&["status"]);
    assert_eq!(out.status.code(), Some(0), "healthy again\n{}", said(&out));
}

#[test]
fn an_interrupted_run_cancels_its_build() {
    let fleet = Fleet::found("alpha", &Settings::default());
    let host = fleet.any();
    let here = fleet.file("src/a.txt", "a");
    let mut command = host.command(&["run", "--sandbox", "none", "--", "sh", "-c", "echo begun; exec sleep 1000"]);
    let run = Running::start(command.current_dir(here.parent().expect("a folder")));
    run.wait_said("begun\n"); // the log comes while the command runs
    signal(run.pid(), libc::SIGINT);
    let out = run.end();
    assert_eq!(out.status.code(), Some(130), "{}", said(&out));
    assert!(String::from_utf8_lossy(&out.stderr).contains("cancelled b1"), "{}", said(&out));
    host.wait_build("b1", "cancelled", |b| b["state"] == "cancelled");
}

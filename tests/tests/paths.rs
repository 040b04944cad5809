//! Two hosts behind a masquerade each, and one that both can dial: they are one mesh all the same.
//!
//! ```text
//! left ---- inside1 ---- gate1 ------ outside ------ gate2 ---- inside2 ---- right
//! 10.9.2.2          10.9.2.1 10.9.1.11   |   10.9.1.12 10.9.3.1         10.9.3.2
//!                                       hub 10.9.1.2
//! ```
//! The gates are no hosts of the mesh. They let in answers only, as the router of a home does.

use serde_json::Value;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tests::daemon::{Daemon, PATIENCE, Settings};
use tests::netns::Lab;
use tests::wait_for;

const PORT: u16 = 7400;

/// What a gate does to the port of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    KeepsPorts,
    DrawsPorts,
}

fn lab(gate: Gate) -> Option<Lab> {
    let mut lab = Lab::new()?;
    for host in ["hub", "gate1", "gate2", "left", "right"] {
        lab.host(host);
    }
    for switch in ["outside", "inside1", "inside2"] {
        lab.switch(switch);
    }
    lab.plug("hub", "eth0", "10.9.1.2/24", "outside");
    for (n, host) in [(1u8, "left"), (2, "right")] {
        let (router, inside) = (format!("gate{n}"), format!("inside{n}"));
        let within = n + 1;
        lab.plug(&router, "out0", &format!("10.9.1.1{n}/24"), "outside");
        lab.plug(&router, "in0", &format!("10.9.{within}.1/24"), &inside);
        lab.plug(host, "eth0", &format!("10.9.{within}.2/24"), &inside);
        lab.default_route(host, Ipv4Addr::new(10, 9, within, 1).into());
        match gate {
            Gate::KeepsPorts => lab.masquerade(&router, "out0"),
            Gate::DrawsPorts => lab.masquerade_random(&router, "out0"),
        }
        lab.answers_only(&router, "out0");
    }
    Some(lab)
}

struct Mesh {
    hub: Daemon,
    left: Daemon,
    right: Daemon,
    folder: TempDir,
    _lab: Lab,
}

/// All three, joined through the hub and up.
fn up(gate: Gate) -> Option<Mesh> {
    let lab = lab(gate)?;
    let folder = tempfile::Builder::new().prefix("mesh-paths-").tempdir().expect("folder");
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).expect("permissions");
    let host = |name: &str| {
        let settings = Settings { tags: vec![format!("on-{name}")], ..Settings::default() };
        let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
        Daemon::new(folder.path(), name, listen, &settings)
            .in_namespace(&lab.namespace(name))
            .with_log("info,openraft=error,libp2p=warn,node=debug")
    };
    let (mut hub, mut left, mut right) = (host("hub"), host("left"), host("right"));
    let listen = format!("0.0.0.0:{PORT}");
    hub.ok(&["init", "--name", "hub", "--mesh", "demo", "--listen", &listen]);
    hub.up();
    for far in [&mut left, &mut right] {
        far.ok(&["join", &hub.ok(&["invite", &far.name]), "--listen", &listen]);
        far.up();
    }
    hub.wait("of three voters", |s| s.alive() == 3 && s.voters() == 3);
    Some(Mesh { hub, left, right, folder, _lab: lab })
}

impl Mesh {
    /// Builds on one host what another submits, and fetches it there.
    fn build(&self, from: &Daemon, on: &Daemon) {
        let work = self.folder.path().join(format!("from-{}-on-{}", from.name, on.name));
        fs::create_dir(&work).expect("folder");
        let file = work.join("build.toml");
        // Larger than the circuits of libp2p's own bounds could carry.
        let text = format!(
            "[build.x]\ncommand = \"head -c 3000000 /dev/zero > out; echo made on {0}\"\ntags = [\"on-{0}\"]\noutputs = [\"out\"]\n",
            on.name
        );
        fs::write(&file, text).expect("file");
        from.ok(&["build", file.to_str().expect("UTF-8")]);
        let builds = from.get("/v1/builds").expect("answer");
        assert_eq!(builds["builds"][0]["host"], on.name.as_str(), "{builds:#}");
        let id = builds["builds"][0]["id"].as_str().expect("text");
        let into = work.join("fetched");
        from.ok(&["fetch", id, "--into", into.to_str().expect("UTF-8")]);
        assert_eq!(fs::metadata(into.join("out")).expect("fetched").len(), 3_000_000);
        assert!(from.ok(&["logs", id]).contains(&format!("made on {}", on.name)));
    }
}

fn ping(from: &Daemon, to: &str) -> Value {
    serde_json::from_str(&from.ok(&["ping", to, "--json"])).expect("JSON")
}

fn lead<'r>(report: &'r Value, begins: &str) -> Option<&'r Value> {
    let leads = report["leads"].as_array()?;
    leads.iter().find(|l| l["addr"].as_str().is_some_and(|a| a.starts_with(begins)))
}

fn middle_us(report: &Value) -> u64 {
    let mut all: Vec<u64> =
        report["round_trips_us"].as_array().expect("list").iter().filter_map(Value::as_u64).collect();
    all.sort_unstable();
    all[all.len() / 2]
}

#[test]
fn hosts_behind_random_masquerades_work_over_the_relay() {
    let Some(mut mesh) = up(Gate::DrawsPorts) else { return };
    let began = Instant::now();
    mesh.left.wait("with right over the relay", |s| s.path("right") == "relay" && s.path("hub") == "direct");
    mesh.right.wait("with left over the relay", |s| s.path("left") == "relay" && s.state("left") == "alive");
    eprintln!("the relayed path was there {:?} after all voted", began.elapsed());

    // The direct leads take their time to fail; meanwhile the relay serves.
    let relayed = wait_for(PATIENCE, || {
        let report = ping(&mesh.left, "right");
        lead(&report, "/ip4/10.9.3.2/tcp").is_some_and(|l| l["failed"].is_string()).then_some(report)
    });
    let relayed = relayed.unwrap_or_else(|| panic!("{:#}", ping(&mesh.left, "right")));
    assert_eq!((&relayed["path"], &relayed["relay"]), (&"relay".into(), &"hub".into()), "{relayed:#}");
    assert_eq!(relayed["round_trips_us"].as_array().expect("list").len(), 5, "{relayed:#}");
    assert!(lead(&relayed, "through hub").is_some_and(|l| l["source"] == "relay"), "{relayed:#}");
    let tried = lead(&relayed, "/ip4/10.9.3.2/tcp").expect("found above");
    assert!(tried["proved_ms"].is_null() && tried["observer"] == "right", "{relayed:#}");
    let text = mesh.left.ok(&["ping", "right"]);
    assert!(text.contains("relay through hub") && text.contains("round trips: min"), "{text}");
    let direct = ping(&mesh.left, "hub");
    assert_eq!((&direct["path"], &direct["relay"]), (&"direct".into(), &Value::Null), "{direct:#}");
    eprintln!("round trip: {} us direct to the hub, {} us relayed", middle_us(&direct), middle_us(&relayed));

    mesh.build(&mesh.right, &mesh.left);

    // The one way between the two goes, and comes back.
    mesh.hub.kill();
    mesh.left.wait("alone", |s| s.path("right") == "none");
    mesh.hub.up();
    let began = Instant::now();
    mesh.left.wait("with right again", |s| s.path("right") == "relay");
    eprintln!("the relayed path was there {:?} after its relay came back", began.elapsed());

    // Until somebody leads from behind a masquerade: whoever is first after the hub's loss.
    let led =
        |mesh: &Mesh| mesh.left.wait("led", |s| s.leader().is_some() && s.alive() == 3 && s.path("right") == "relay");
    let mut status = led(&mesh);
    for _ in 0..8 {
        if status.leader() != Some("hub") {
            break;
        }
        mesh.hub.kill();
        mesh.left.wait("alone", |s| s.leader().is_none());
        mesh.hub.up();
        status = led(&mesh);
    }
    assert_ne!(status.leader(), Some("hub"), "nobody else was ever first");
    let (leader, other) = match status.leader() {
        Some("left") => (&mesh.left, &mut mesh.right),
        _ => (&mesh.right, &mut mesh.left),
    };
    leader.wait("of three", |s| s.alive() == 3);

    // A voter behind a masquerade is lost; the one that leads behind the other goes on with the hub.
    other.kill();
    let gone = other.name.clone();
    leader.wait("without the other", |s| s.state(&gone) == "down" && s.leader() == Some(&leader.name));
    let leader = leader.name.clone();
    let leader = if leader == "left" { &mesh.left } else { &mesh.right };
    mesh.build(&mesh.hub, leader);
    let away = leader.run(&["ping", &gone]);
    assert_eq!(away.status.code(), Some(1), "who is down does not answer");
    assert!(String::from_utf8_lossy(&away.stdout).contains("no connection within"), "{}", tests::daemon::said(&away));
}

#[test]
fn a_hole_through_masquerades_that_keep_ports_sheds_the_relay() {
    let Some(mesh) = up(Gate::KeepsPorts) else { return };
    let began = Instant::now();
    mesh.left.wait("with right directly", |s| s.path("right") == "direct");
    mesh.right.wait("with left directly", |s| s.path("left") == "direct");
    eprintln!("the direct path was there {:?} after all voted", began.elapsed());
    let direct = ping(&mesh.left, "right");
    assert_eq!((&direct["path"], &direct["relay"]), (&"direct".into(), &Value::Null), "{direct:#}");
    assert!(direct["address"].as_str().is_some_and(|a| a.starts_with("/ip4/10.9.1.12/")), "at the gate: {direct:#}");
    eprintln!("round trip: {} us through the hole", middle_us(&direct));
    mesh.build(&mesh.right, &mesh.left);
    // It stays so.
    let still = wait_for(Duration::from_secs(5), || {
        (mesh.left.status().expect("answer").path("right") != "direct").then(|| mesh.left.log_tail(40))
    });
    assert!(still.is_none(), "{still:?}");
    assert!(began.elapsed() < PATIENCE * 2);
}

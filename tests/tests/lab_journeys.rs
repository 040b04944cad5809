//! The mesh on the reference fleet, on the real kernel: with and without the overlay, when a host loses its power
//! without a word, and in the incident that gave the project its first rule. Longer journeys: `lab_sites`.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use tests::daemon::PATIENCE;
use tests::lab::dials::{self, Seen};
use tests::lab::members::Common;
use tests::lab::{Lab, command};
use tests::status::Status;
use tests::wait_for;

const HOSTS: [&str; 6] =
    ["Alpha-Centauri", "Izar-Orchestrator", "drone-Izar", "drone-Tau-Beta", "drone-Meridian", "drone-Tarn"];

/// The reference fleet, with a mesh of all its hosts.
fn reference(overlay: bool) -> Option<Lab> {
    let mut lab = Lab::for_test(topology::ALPHA_CENTAURI)?;
    if !overlay {
        lab.overlay(false).expect("off");
    }
    let outside = lab.found(&Common::default()).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(outside, Vec::<String>::new(), "all of them reach Alpha-Centauri");
    Some(lab)
}

/// The cores of the hosts that the fleet has for building; the others have to offer one, the least there is.
fn cores(lab: &Lab, status: &Status) -> u64 {
    let offers = |h: &&topology::Host| h.cores > 0;
    let of = |name: &str| status.host(name).and_then(|h| h["cores"].as_u64()).unwrap_or(0);
    lab.fleet.hosts.iter().filter(offers).map(|h| of(&h.name)).sum()
}

#[test]
fn the_reference_fleet_joins_with_and_without_its_overlay() {
    for overlay in [true, false] {
        let Some(lab) = reference(overlay) else { return };
        let mut leaders = BTreeSet::new();
        for name in HOSTS {
            let status = lab.wait(name, "of six", |s| s.alive() == HOSTS.len() && s.leader().is_some());
            assert_eq!(cores(&lab, &status), 58, "seen from {name}: {status:?}");
            leaders.insert(status.leader().expect("just seen").to_owned());
        }
        assert_eq!(leaders.len(), 1, "{leaders:?}");
        assert_eq!(lab.mesh_errors(&[]), Vec::<String>::new());
    }
}

#[test]
fn a_host_that_loses_its_power_is_noticed_and_its_build_goes_elsewhere() {
    let Some(mut lab) = reference(true) else { return };
    let file = lab.folder("drone-Izar").join("root/build.toml");
    let command = "echo $MESH_ATTEMPT > out; [ $MESH_ATTEMPT != 1 ] || sleep 1000";
    fs::write(&file, format!("[build.x]\ncommand = \"{command}\"\noutputs = [\"out\"]\ncores = 14\n")).expect("file");
    lab.mesh_ok("drone-Izar", &["build", "--detach", "/root/build.toml"]).expect("submitted");
    let builds = lab.wait_builds("drone-Izar", "running", |b| b.iter().any(|b| b["state"] == "running"));
    let first = builds[0]["host"].as_str().expect("a running build has a host").to_owned();
    let asked = HOSTS.into_iter().find(|h| h.starts_with("drone") && *h != first).expect("four drones");

    lab.power_off(&first).expect("off");
    lab.wait(asked, "without it", |s| s.state(&first) == "down" && s.alive() == HOSTS.len() - 1);
    let builds = lab.wait_builds(asked, "done", |b| b[0]["state"] == "done");
    assert_ne!(builds[0]["host"], first.as_str());
    let id = builds[0]["id"].as_str().expect("text");
    lab.mesh_ok(asked, &["fetch", id, "--into", "/root/out"]).expect("fetched");
    assert_eq!(fs::read_to_string(lab.folder(asked).join("root/out/out")).expect("fetched"), "2\n");

    // It comes back as itself.
    lab.boot(&first).expect("boot");
    lab.mesh_up(&first).expect("up");
    lab.wait(asked, "whole again", |s| s.alive() == HOSTS.len());
}

/// Incident 1: whoever takes the source of a drone's traffic for the drone reaches the gateway.
#[test]
fn a_login_at_the_observed_address_reaches_the_gateway_and_a_dial_by_identity_does_not() {
    let Some(mut lab) = Lab::for_test(topology::ALPHA_CENTAURI) else { return };
    lab.overlay(false).expect("off");
    let seen = dials::dial_with(&lab, "drone-Tarn", "Izar-Orchestrator", 8_100).expect("dial");
    let Seen::Answered { source, .. } = seen else { panic!("the drone registers: {seen:?}") };
    // Stand-ins for sshd: each says whose it is. Naive: `ssh root@SOURCE`, meant for drone-Tarn.
    let reached = dials::dial_any(&lab, "Izar-Orchestrator", (source.ip(), 22).into()).expect("dial");
    assert!(matches!(&reached, Seen::Answered { by, .. } if by == "Alpha-Centauri"), "{reached:?}");

    // The mesh knows the same address, and whose it is.
    assert_eq!(lab.found(&Common::default()).unwrap_or_else(|why| panic!("{why}")), Vec::<String>::new());
    let at_gateway = |s: &Status| -> Vec<serde_json::Value> {
        let addresses = s.host("drone-Tarn").and_then(|h| h["addresses"].as_array().cloned()).unwrap_or_default();
        let is_it = |a: &str| a == source.ip().to_string() || a.starts_with(&format!("/ip4/{}/", source.ip()));
        addresses.into_iter().filter(|a| a["addr"].as_str().is_some_and(is_it)).collect()
    };
    let status = lab.wait("Izar-Orchestrator", "aware of the masquerade", |s| {
        at_gateway(s).iter().any(|a| a["nat_of"] == "Alpha-Centauri")
    });
    assert!(at_gateway(&status).iter().all(|a| a["proved"] == false), "{status:?}");
    // Away, it is away: that somebody answers at its observed address makes nobody take it for alive.
    let gateway_before = lab.mesh_log("Alpha-Centauri").len();
    lab.crash("drone-Tarn").expect("crash");
    for name in HOSTS.into_iter().filter(|h| *h != "drone-Tarn") {
        let status = lab.wait(name, "without drone-Tarn", |s| s.state("drone-Tarn") == "down");
        assert_eq!(status.state("Alpha-Centauri"), "alive", "{status:?}");
    }
    let log = lab.mesh_log("Alpha-Centauri").split_off(gateway_before);
    let misled: Vec<&str> = log.lines().filter(|l| l.contains("a stranger was refused")).collect();
    assert_eq!(misled, Vec::<&str>::new(), "a dial that expects somebody else shows at the gateway");

    // Worse: what is sent to the drone's own address arrives at the gateway, as it would with its address given away.
    let orchestrator = lab.namespace("Izar-Orchestrator").expect("a host");
    command::ip(&orchestrator, "route add 192.168.20.0/24 via 10.42.0.199").expect("route");
    let rule = |protocol| format!("ip daddr 192.168.20.196 {protocol} dport 7400 counter dnat to 10.42.0.199:7400\n");
    let rules = format!("{}{}", rule("tcp"), rule("udp"));
    let table = format!(
        "table ip misled {{\nchain sent {{ type nat hook output priority -100; policy accept;\n{rules}}}\n}}\n"
    );
    command::nft(&orchestrator, &table).expect("rules");
    let dialled = || {
        let out = lab.exec("Izar-Orchestrator", &["nft", "list", "table", "ip", "misled"]);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let counts = text.lines().filter_map(|l| l.split("packets ").nth(1)?.split(' ').next()?.parse::<u64>().ok());
        counts.sum::<u64>()
    };
    let naive = lab.inside("Izar-Orchestrator", || TcpStream::connect("192.168.20.196:7400").map(drop));
    assert!(naive.is_ok(), "whoever asks for no identity is answered by the gateway: {naive:?}");
    let before = dialled();
    wait_for(PATIENCE, || (dialled() > before).then_some(())).expect("the daemon looks for drone-Tarn there");
    // A build later that dial has long ended: nobody was found, and the gateway is who it was.
    let file = lab.folder("Izar-Orchestrator").join("root/build.toml");
    fs::write(file, "[build.x]\ncommand = \"true\"\n").expect("file");
    lab.mesh_ok("Izar-Orchestrator", &["build", "/root/build.toml"]).expect("built meanwhile");
    let status = lab.status("Izar-Orchestrator").expect("it answers");
    let tarn = status.host("drone-Tarn").expect("listed");
    assert_eq!((status.state("drone-Tarn"), &tarn["path"]), ("down", &"none".into()), "{tarn:#}");
    let proved = tarn["addresses"].as_array().into_iter().flatten().filter(|a| a["proved"] == true);
    assert_eq!(proved.count(), 0, "{tarn:#}");
    assert_eq!(status.state("Alpha-Centauri"), "alive");

    lab.boot("drone-Tarn").expect("boot");
    lab.mesh_up("drone-Tarn").expect("up");
    lab.wait("Izar-Orchestrator", "whole again", |s| s.alive() == HOSTS.len());
}

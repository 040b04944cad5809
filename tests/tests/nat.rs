//! Incident 1 on the real kernel: a host behind a masquerade is itself, never the router whose address it
//! is seen with.
//!
//! ```text
//! far ------- outside ------- gate (masquerades) ------- inside ------- near
//! 10.9.1.2                 10.9.1.1   10.9.2.1                        10.9.2.2
//! ```
//! All three are hosts of one mesh and listen on the same port, so that near's observed address is
//! exactly gate's own.

use serde_json::Value;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use tests::daemon::{Daemon, PATIENCE, Settings};
use tests::netns::Lab;
use tests::status::Status;
use tests::wait_for;

const FAR: Ipv4Addr = Ipv4Addr::new(10, 9, 1, 2);
const GATE_OUT: Ipv4Addr = Ipv4Addr::new(10, 9, 1, 1);
const GATE_IN: Ipv4Addr = Ipv4Addr::new(10, 9, 2, 1);
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 9, 2, 2);
const PORT: u16 = 7400;

fn lab() -> Option<Lab> {
    let mut lab = Lab::new()?;
    for host in ["far", "gate", "near"] {
        lab.host(host);
    }
    for switch in ["outside", "inside"] {
        lab.switch(switch);
    }
    lab.plug("far", "eth0", &format!("{FAR}/24"), "outside");
    lab.plug("gate", "out0", &format!("{GATE_OUT}/24"), "outside");
    lab.plug("gate", "in0", &format!("{GATE_IN}/24"), "inside");
    lab.plug("near", "eth0", &format!("{NEAR}/24"), "inside");
    lab.default_route("near", GATE_IN.into());
    lab.masquerade("gate", "out0");
    Some(lab)
}

fn addresses<'s>(status: &'s Status, host: &str) -> Vec<&'s Value> {
    status.host(host).and_then(|h| h["addresses"].as_array()).into_iter().flatten().collect()
}

fn is_at(address: &Value, ip: Ipv4Addr) -> bool {
    address["addr"].as_str().is_some_and(|a| a == ip.to_string() || a.starts_with(&format!("/ip4/{ip}/")))
}

#[test]
fn a_masqueraded_host_builds_and_is_never_taken_for_its_router() {
    let Some(lab) = lab() else { return };
    let folder = tempfile::Builder::new().prefix("mesh-nat-").tempdir().expect("folder");
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).expect("permissions");
    let host = |name: &str, tag: &str| {
        let settings = Settings { tags: vec![tag.into()], ..Settings::default() };
        let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
        Daemon::new(folder.path(), name, listen, &settings)
            .in_namespace(&lab.namespace(name))
            .with_log("info,openraft=error,libp2p=warn,node=debug")
    };
    let listen = format!("0.0.0.0:{PORT}");

    let mut far = host("far", "outer");
    far.ok(&["init", "--name", "far", "--mesh", "demo", "--listen", &listen]);
    far.up();
    let mut gate = host("gate", "middle");
    gate.ok(&["join", &far.ok(&["invite", "gate"]), "--listen", &listen]);
    gate.up();
    far.wait("of two", |s| s.alive() == 2);

    // near has one way in: through the masquerade, to far.
    lab.block("gate", NEAR.into());
    let mut near = host("near", "inner");
    near.ok(&["join", &far.ok(&["invite", "near"]), "--listen", &listen]);
    near.up();
    far.wait("with near", |s| s.state("near") == "alive");

    // It builds, and what it built arrives on the other side, over the connection that it opened.
    let file = folder.path().join("build.toml");
    fs::write(&file, "[build.x]\ncommand = \"echo from near > out\"\ntags = [\"inner\"]\noutputs = [\"out\"]\n")
        .expect("file");
    far.ok(&["build", file.to_str().expect("UTF-8")]);
    let builds = far.get("/v1/builds").expect("answer");
    assert_eq!(builds["builds"][0]["host"], "near", "{builds:#}");
    let into = folder.path().join("fetched");
    far.ok(&["fetch", builds["builds"][0]["id"].as_str().expect("text"), "--into", into.to_str().expect("UTF-8")]);
    assert_eq!(fs::read_to_string(into.join("out")).expect("fetched"), "from near\n");

    // far sees near at gate's address, knows whose NAT that is, and has proved it for gate alone.
    let status = far.wait("aware of the masquerade", |s| {
        addresses(s, "near").iter().any(|a| is_at(a, GATE_OUT) && a["nat_of"] == "gate")
    });
    for address in addresses(&status, "near") {
        if is_at(address, GATE_OUT) {
            assert_eq!(address["proved"], false, "gate's address is not near's: {status:?}");
            assert_eq!(address["nat_of"], "gate", "{status:?}");
        }
    }
    assert!(addresses(&status, "gate").iter().all(|a| a["nat_of"].is_null()), "gate is behind nobody: {status:?}");
    assert_eq!(status.host("near").expect("listed")["path"], "direct");

    // Now near is away, and far looks for it wherever it may be: never where gate is. All in gate's address
    // belongs to gate, and far, which stands in connection with gate, has no reason to dial there.
    let (far_before, gate_before) = (far.log().len(), gate.log().len());
    lab.watch_dials("far", GATE_OUT.into(), "router");
    lab.watch_dials("far", NEAR.into(), "near");
    near.kill();
    far.wait("without near", |s| s.state("near") == "down");
    let dials = |ip: Ipv4Addr| -> Vec<String> {
        let place = format!("/ip4/{ip}/");
        let log = far.log().split_off(far_before);
        log.lines().filter(|l| l.contains("a dial failed") && l.contains(&place)).map(str::to_owned).collect()
    };
    wait_for(PATIENCE, || (dials(NEAR).len() >= 3).then_some(()))
        .unwrap_or_else(|| panic!("far does not look for near at its own address\n{}", far.log_tail(40)));
    assert!(dials(NEAR).iter().all(|l| l.contains("near")), "{:#?}", dials(NEAR));
    assert_eq!(dials(GATE_OUT), Vec::<String>::new());
    assert_eq!(lab.sent("far", "router"), 0, "the kernel has seen no dial to the router either");
    let gate_log = gate.log().split_off(gate_before);
    let misled: Vec<&str> = gate_log
        .lines()
        .filter(|l| l.contains("ended before it stood") || l.contains("a stranger was refused"))
        .filter(|l| l.contains(&format!("/ip4/{FAR}/")))
        .collect();
    assert_eq!(misled, Vec::<&str>::new(), "a dial that expects somebody else shows at gate");
}

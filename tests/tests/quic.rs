//! Where a firewall lets no TCP through, QUIC carries everything; and no longer than that.

use serde_json::Value;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use tests::daemon::{Daemon, PATIENCE, Settings};
use tests::lab::command::nft;
use tests::netns::Lab;
use tests::wait_for;

const PORT: u16 = 7400;

fn address(from: &Daemon, to: &str) -> Option<String> {
    let report: Value = serde_json::from_str(&from.ok(&["ping", to, "--json"])).expect("JSON");
    report["address"].as_str().map(str::to_owned)
}

#[test]
fn quic_carries_a_mesh_until_tcp_gets_through() {
    let Some(mut lab) = Lab::new() else { return };
    lab.switch("wire");
    for (host, address) in [("near", "10.9.1.1/24"), ("far", "10.9.1.2/24")] {
        lab.host(host);
        lab.plug(host, "eth0", address, "wire");
        let wall = "table inet wall {\nchain heard { type filter hook input priority 0; iifname eth0 tcp dport 7400 drop\n}\n}\n";
        nft(&lab.namespace(host), wall).expect("rules");
    }
    let folder = tempfile::Builder::new().prefix("mesh-quic-").tempdir().expect("folder");
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).expect("permissions");
    let host = |name: &str| {
        let settings = Settings { tags: vec![format!("on-{name}")], ..Settings::default() };
        let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
        Daemon::new(folder.path(), name, listen, &settings).in_namespace(&lab.namespace(name))
    };
    let (mut near, mut far) = (host("near"), host("far"));
    let listen = format!("0.0.0.0:{PORT}");
    near.ok(&["init", "--name", "near", "--mesh", "walled", "--listen", &listen]);
    near.up();
    far.ok(&["join", &near.ok(&["invite", "far"]), "--listen", &listen]);
    far.up();
    near.wait("with far", |s| s.state("far") == "alive" && s.path("far") == "direct");
    let build = |n: u8| {
        let file = folder.path().join(format!("build{n}.toml"));
        fs::write(
            &file,
            format!("[build.x{n}]\ncommand = \"echo {n} > out\"\ntags = [\"on-far\"]\noutputs = [\"out\"]\n"),
        )
        .expect("file");
        near.ok(&["build", file.to_str().expect("UTF-8")]);
    };
    build(1);
    let first = address(&near, "far").expect("connected");
    assert!(first.contains("/quic-v1"), "the wall has a hole: {first}");

    for host in ["near", "far"] {
        nft(&lab.namespace(host), "delete table inet wall\n").expect("rules");
    }
    for (from, to) in [(&near, "far"), (&far, "near")] {
        let turned = wait_for(PATIENCE, || address(from, to).filter(|a| a.contains("/tcp/")));
        assert!(turned.is_some(), "{:?}\n{}", address(from, to), from.log_tail(40));
    }
    build(2);
}

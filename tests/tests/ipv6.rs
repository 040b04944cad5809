//! Two hosts that have IPv6 and nothing else: they join, vote, build for each other and fetch, over TCP and QUIC alike.
//!
//! ```text
//! near fd09::1 ---- switch ---- fd09::2 far
//! ```

use serde_json::Value;
use std::fs;
use std::net::{Ipv6Addr, SocketAddr};
use tests::daemon::{Daemon, Settings};
use tests::netns::Lab;

const PORT: u16 = 7400;

#[test]
fn hosts_with_nothing_but_ipv6_are_a_mesh() {
    let Some(mut lab) = Lab::new() else { return };
    lab.switch("wire");
    for (host, address) in [("near", "fd09::1/64"), ("far", "fd09::2/64")] {
        lab.host(host);
        lab.plug(host, "eth0", address, "wire");
    }
    let folder = tempfile::Builder::new().prefix("mesh-ipv6-").tempdir().expect("folder");
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).expect("permissions");
    let host = |name: &str| {
        let settings = Settings { tags: vec![format!("on-{name}")], ..Settings::default() };
        let listen = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT));
        Daemon::new(folder.path(), name, listen, &settings).in_namespace(&lab.namespace(name))
    };
    let (mut near, mut far) = (host("near"), host("far"));
    let listen = format!("[::]:{PORT}");
    near.ok(&["init", "--name", "near", "--mesh", "six", "--listen", &listen]);
    near.up();
    let addresses = |of: &Value| of["addresses"].to_string();
    near.wait("aware of where it is", |s| s.host("near").is_some_and(|h| addresses(h).contains("/ip6/fd09::1/tcp/")));
    far.ok(&["join", &near.ok(&["invite", "far"]), "--listen", &listen]);
    far.up();
    near.wait("with far", |s| s.state("far") == "alive" && s.path("far") == "direct");
    let status = far.wait("with near", |s| s.state("near") == "alive" && s.path("near") == "direct");
    let listed = status.host("near").map(addresses).expect("near is listed");
    assert!(listed.contains("/ip6/fd09::1/udp/") && listed.contains("/ip6/fd09::1/tcp/"), "{listed}");
    assert!(!listed.contains("/ip4/"), "there is none: {listed}");

    let file = folder.path().join("build.toml");
    fs::write(&file, "[build.x]\ncommand = \"echo six > out\"\ntags = [\"on-far\"]\noutputs = [\"out\"]\n")
        .expect("file");
    near.ok(&["build", file.to_str().expect("UTF-8")]);
    let builds = near.get("/v1/builds").expect("answer");
    assert_eq!(builds["builds"][0]["host"], "far", "{builds:#}");
    let into = folder.path().join("fetched");
    near.ok(&["fetch", builds["builds"][0]["id"].as_str().expect("text"), "--into", into.to_str().expect("UTF-8")]);
    assert_eq!(fs::read_to_string(into.join("out")).expect("fetched"), "six\n");
}

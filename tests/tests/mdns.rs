//! mDNS on a network of real kernels: two members whose addresses have both changed find each other, a stranger beside
//! them is left alone, and without mDNS nobody finds anybody.
//!
//! ```text
//! a ------- lan ------- b      x is of another mesh, on the same switch
//! ```

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use tests::daemon::{Daemon, PATIENCE, Settings};
use tests::netns::Lab;
use tests::wait_for;

const PORT: u16 = 7400;
const LOG: &str = "info,openraft=error,libp2p=warn,libp2p_mdns=info,node=debug";

fn host(lab: &Lab, folder: &tempfile::TempDir, name: &str) -> Daemon {
    let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    Daemon::new(folder.path(), name, listen, &Settings::default()).in_namespace(&lab.namespace(name)).with_log(LOG)
}

/// What a lease of DHCP does over a night.
fn moves(lab: &Lab, host: &str, to: &str) {
    lab.exec(host, &["ip", "addr", "flush", "dev", "eth0"]);
    lab.exec(host, &["ip", "addr", "add", to, "dev", "eth0"]);
}

fn wants_mdns(host: &Daemon) {
    let mut file = OpenOptions::new().append(true).open(host.dir.join("mesh.toml")).expect("mesh.toml");
    file.write_all(b"[network]\nmdns = true\n").expect("written");
}

/// Whether one has kept, for its next start, where another is.
fn remembers(host: &Daemon, ip: &str) -> bool {
    let kept = fs::read(host.dir.join("leads")).unwrap_or_default();
    String::from_utf8_lossy(&kept).contains(&format!("/ip4/{ip}/"))
}

#[test]
fn members_that_have_both_moved_find_each_other_and_a_stranger_is_left_alone() {
    let Some(mut lab) = Lab::new() else { return };
    lab.switch("lan");
    for (name, address) in [("a", "10.9.1.1/24"), ("b", "10.9.1.2/24"), ("x", "10.9.1.3/24")] {
        lab.host(name);
        lab.plug(name, "eth0", address, "lan");
    }
    let folder = tempfile::Builder::new().prefix("mesh-mdns-").tempdir().expect("folder");
    let listen = format!("0.0.0.0:{PORT}");
    let [mut a, mut b, mut x] = ["a", "b", "x"].map(|name| host(&lab, &folder, name));
    a.ok(&["init", "--name", "a", "--mesh", "demo", "--listen", &listen]);
    a.up();
    b.ok(&["join", &a.ok(&["invite", "b"]), "--listen", &listen]);
    b.up();
    a.wait("of two", |s| s.alive() == 2);
    b.wait("of two", |s| s.alive() == 2); // it has the ledger, and knows itself by it
    wait_for(PATIENCE, || (remembers(&a, "10.9.1.2") && remembers(&b, "10.9.1.1")).then_some(()))
        .unwrap_or_else(|| panic!("nobody's address is kept\n{}", a.log_tail(20)));
    x.ok(&["init", "--name", "x", "--mesh", "other", "--listen", &listen]);
    wants_mdns(&x);
    x.up();

    // Overnight both move. Each looks for the other where it was.
    a.stop();
    b.stop();
    moves(&lab, "a", "10.9.1.11/24");
    moves(&lab, "b", "10.9.1.12/24");
    let before = (a.log().len(), b.log().len());
    a.up();
    b.up();
    for (who, from, old) in [(&a, before.0, "10.9.1.2"), (&b, before.1, "10.9.1.1")] {
        let missed = |line: &&str| line.contains("a dial failed") && line.contains(&format!("/ip4/{old}/"));
        wait_for(PATIENCE, || (who.log().split_off(from).lines().filter(missed).count() >= 2).then_some(()))
            .unwrap_or_else(|| panic!("{} does not look where the other was\n{}", who.name, who.log_tail(20)));
        let alive = wait_for(PATIENCE, || who.status().map(|s| s.alive()));
        assert_eq!(alive, Some(1), "without mDNS it finds nobody\n{}", who.log_tail(20));
        assert!(!who.log().contains("mDNS"), "nobody has asked for it\n{}", who.log_tail(20));
    }
    a.stop();
    b.stop();

    wants_mdns(&a);
    wants_mdns(&b);
    a.up();
    b.up();
    a.wait("of two again", |s| s.alive() == 2 && s.leader().is_some());
    b.wait("of two again", |s| s.alive() == 2 && s.leader().is_some());
    let found = |who: &Daemon, other: &str, ip: &str| {
        let told = |l: &str| l.contains("mDNS says that a member is near") && l.contains(other) && l.contains(ip);
        who.log().lines().any(told)
    };
    // One was told, and dialled; the other need not have been, before a connection stood.
    assert!(
        found(&a, "host=\"b\"", "/ip4/10.9.1.12/") || found(&b, "host=\"a\"", "/ip4/10.9.1.11/"),
        "{}\n{}",
        a.log_tail(20),
        b.log_tail(20)
    );

    // a has heard of x, and has no lead to it; x was dialled by nobody.
    wait_for(PATIENCE, || {
        let log = a.log();
        let heard = |l: &str| l.contains("discovered peer on address") && l.contains("/ip4/10.9.1.3/");
        log.lines().any(heard).then_some(())
    })
    .unwrap_or_else(|| panic!("a has not heard of x\n{}", a.log_tail(20)));
    assert!(!a.log().contains("near host=\"x\"") && !a.log().contains("address=/ip4/10.9.1.3/tcp/7400 ended"));
    let knocked = ["a stranger was refused", "ended before it stood", "hung up"];
    let log = x.log();
    let lines: Vec<&str> = log.lines().filter(|l| knocked.iter().any(|k| l.contains(k))).collect();
    assert_eq!(lines, Vec::<&str>::new(), "somebody has dialled x");
}

//! Incident 3 on machines that boot: with a real systemd and a real OpenRC, a host whose mesh was installed is back in
//! the mesh after a reboot, by itself; one whose daemon was only started is not, and its status had said so.
//!
//! Minutes, and roots of Debian that `scripts/boot-test` makes: not in the default run.

use std::net::{Ipv4Addr, SocketAddr};
use tests::daemon::{Daemon, Settings};
use tests::guest::{Guest, is_there};
use tests::netns::Lab;
use tests::status::Status;
use tests::wait_for;

const PEER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

/// What differs between the two.
struct Kind {
    init: &'static str,
    /// Shows whether the service runs.
    active: &'static [&'static str],
    reboot: &'static [&'static str],
    /// All that is there when everything is installed.
    files: &'static [&'static str],
}

const SYSTEMD: Kind = Kind {
    init: "systemd",
    active: &["systemctl", "is-active", "mesh.service"],
    reboot: &["systemctl", "reboot"],
    files: &[
        "/etc/systemd/system/mesh.service",
        "/etc/systemd/system/multi-user.target.wants/mesh.service",
        "/etc/systemd/system/mesh-guard.service",
        "/etc/systemd/system/multi-user.target.wants/mesh-guard.service",
        "/etc/mesh-guard/sshd_config",
        "/etc/mesh-guard/host_key",
        "/usr/local/lib/mesh/mesh",
        "/usr/local/lib/mesh/mesh-guard",
    ],
};

const OPENRC: Kind = Kind {
    init: "openrc",
    active: &["rc-service", "mesh", "status"],
    reboot: &["reboot"],
    files: &[
        "/etc/init.d/mesh",
        "/etc/runlevels/default/mesh",
        "/etc/init.d/mesh-guard",
        "/etc/runlevels/default/mesh-guard",
        "/etc/mesh-guard/sshd_config",
        "/etc/mesh-guard/host_key",
        "/usr/local/lib/mesh/mesh",
        "/usr/local/lib/mesh/mesh-guard",
    ],
};

#[test]
fn with_systemd_an_installed_daemon_is_back_after_a_reboot() {
    comes_back(&SYSTEMD);
}

#[test]
fn with_openrc_an_installed_daemon_is_back_after_a_reboot() {
    comes_back(&OPENRC);
}

fn guest_of(status: &Status) -> (String, String, Option<bool>) {
    let row = status.host("guest").cloned().unwrap_or_default();
    let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
    (text("state"), text("boot_id"), row["boot_enabled"].as_bool())
}

fn comes_back(kind: &Kind) {
    let Some(mut lab) = Lab::new() else { return };
    for host in ["peer", "guest"] {
        lab.host(host);
    }
    lab.switch("lan");
    lab.plug("peer", "eth0", &format!("{PEER}/24"), "lan");
    lab.plug("guest", "eth0", &format!("{GUEST}/24"), "lan");
    let folder = tempfile::Builder::new().prefix("mesh-boot-").tempdir().expect("folder");
    let settings = Settings { tags: vec!["peer".into()], ..Settings::default() };
    let mut peer = Daemon::new(folder.path(), "peer", SocketAddr::from((PEER, 7400)), &settings)
        .in_namespace(&lab.namespace("peer"));
    peer.ok(&["init", "--name", "peer", "--mesh", "boot"]);
    peer.up();
    // An invitation made before the daemon knows where it listens names no address.
    peer.wait("aware of its address", |s| {
        s.host("peer").is_some_and(|h| h["addresses"].to_string().contains("/ip4/10.77.0.1/"))
    });
    let token = peer.ok(&["invite", "guest"]);

    let mut guest = Guest::new(kind.init, &lab.namespace("guest"));
    guest.boot();
    guest.ok(&["mesh", "join", &token, "--listen", "10.77.0.2:7400"]);
    let config = guest.state().join("mesh.toml");
    let text = std::fs::read_to_string(&config).expect("mesh.toml");
    std::fs::write(&config, format!("tags = [\"guest\"]\n{text}\n[timing]\nlan = true\n")).expect("mesh.toml");

    // The naive way: it runs, so all seems well.
    guest.ok(&["mesh", "up", "--detach"]);
    let before = peer.wait("of two, and warned", |s| guest_of(s).0 == "alive" && guest_of(s).2 == Some(false));
    let warned = before.0["warnings"].as_array().into_iter().flatten().any(|w| w["code"] == "not-at-boot");
    assert!(warned, "{before:?}");
    guest.reboot_by(kind.reboot);
    assert!(guest.status().is_none(), "nothing starts it");
    peer.wait("without the guest", |s| guest_of(s).0 != "alive");

    // Installed, it is started and stays.
    let (_, said) = guest.ok(&["mesh", "install", "--ssh"]);
    assert!(said.contains("started"), "{said}");
    let (_, said) = guest.ok(&["mesh", "install", "--ssh"]);
    assert!(said.contains("everything was in place"), "{said}");
    assert_eq!(guest.ok(&["mesh", "install", "--check"]).0, "all is as it has to be");
    guest.ok(kind.active);
    let status = peer.wait("of two", |s| guest_of(s).0 == "alive" && guest_of(s).2 == Some(true));
    let boot = guest_of(&status).1;

    // The cage of the service is none for builds: another user, a host name, a network of their own, setuid files.
    let script = "set -e; id -u >out; hostname >>out; cp /bin/true x; chmod 4755 x; stat -c %a x >>out; ls /proc/1 >/dev/null; \
                  ls /sys/class/net /var/lib/mesh >>out 2>&1 || true";
    let out = folder.path().join("brought");
    std::fs::create_dir(&out).expect("folder");
    let mut build =
        peer.command(&["run", "--tag", "guest", "--no-workspace", "--output", "out", "--", "sh", "-c", script]);
    let ran = tests::bounded::output(build.current_dir(&out));
    assert!(ran.status.success(), "{}\n{}", tests::daemon::said(&ran), log(&guest, kind));
    let told = std::fs::read_to_string(out.join("out")).expect("brought back");
    assert!(told.starts_with("7400\nbuild\n4755\n"), "{told}");

    // Killed, it is started again.
    let killed = guest.daemon();
    guest.ok(&["kill", "-9", &killed.to_string()]);
    let back = || guest.status().filter(|_| guest.daemon() != killed);
    assert!(wait_for(PATIENCE, back).is_some(), "it is not started again\n{}", log(&guest, kind));
    peer.wait("of two again", |s| guest_of(s).0 == "alive" && guest_of(s).1 == boot);

    // And after a reboot, with nobody's help.
    guest.reboot_by(kind.reboot);
    let status = peer.wait("of two, rebooted", |s| guest_of(s).0 == "alive" && guest_of(s).1 != boot);
    assert_eq!(guest_of(&status).2, Some(true), "{status:?}");
    assert!(wait_for(PATIENCE, || guest.status().filter(|s| s.alive() == 2)).is_some(), "{}", log(&guest, kind));
    guest.ok(kind.active);

    let present = |guest: &Guest| kind.files.iter().filter(|f| is_there(&guest.root(), f)).count();
    assert_eq!(present(&guest), kind.files.len());
    guest.ok(&["mesh", "uninstall"]);
    assert_eq!(present(&guest), 0);
    assert!(guest.status().is_none(), "it has been stopped");
    assert!(!guest.run(kind.active).status.success());
    peer.wait("without the guest", |s| guest_of(s).0 != "alive");
}

/// What the guest's daemon has logged.
fn log(guest: &Guest, kind: &Kind) -> String {
    let words: &[&str] = match kind.init {
        "systemd" => &["journalctl", "--no-pager", "-n", "80", "-u", "mesh"],
        _ => &["tail", "-n", "80", "/var/log/mesh.log"],
    };
    String::from_utf8_lossy(&guest.run(words).stdout).into_owned()
}

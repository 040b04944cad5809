//! The lab by itself: a host is a host, wires take the time that they should, lossy networks lose what they should, and
//! nothing is left behind, whether it is taken down, dropped, or killed while it is being built.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tests::daemon::{PATIENCE, said};
use tests::lab::dials::{self, Seen};
use tests::lab::{Lab, state};
use tests::{bounded, wait_for};

fn fleet(file: &str) -> &'static str {
    topology::FLEETS.iter().find(|(name, _)| *name == file).unwrap_or_else(|| panic!("no {file}")).1
}

/// What of a lab is there: namespaces by name, its folder, processes that name it.
fn left_of(name: &str) -> Vec<String> {
    let prefix = state::prefix(name);
    let all = std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok());
    let mut left: Vec<String> = all.filter(|n| n.starts_with(&format!("{prefix}-"))).collect();
    left.extend(state::base().join(name).exists().then(|| "its folder".to_owned()));
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        // The guardian is the one who removes all this: it is gone a moment after.
        let its = line.contains(&format!("{prefix}-")) || line.contains(&format!("mesh-lab/{name}/"));
        left.extend(its.then(|| line.chars().take(100).collect::<String>()));
    }
    left
}

fn cli(name: &str, words: &[&str]) -> Output {
    bounded::output(Command::new(env!("CARGO_BIN_EXE_lab")).args(["--lab", name]).args(words).env("NO_COLOR", "1"))
}

#[track_caller]
fn ok(name: &str, words: &[&str]) -> String {
    let out = cli(name, words);
    assert!(out.status.success(), "{words:?}: {}\n{}", out.status, said(&out));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn a_host_has_a_name_processes_and_files_of_its_own() {
    let Some(lab) = Lab::for_test(topology::ALPHA_CENTAURI) else { return };
    let word = |host: &str, words: &[&str]| String::from_utf8_lossy(&lab.exec(host, words).stdout).trim().to_owned();
    let mut machine_ids = BTreeSet::new();
    for host in ["drone-Izar", "drone-Tarn"] {
        assert_eq!(word(host, &["hostname"]), host);
        lab.exec(
            host,
            &[
                "sh",
                "-c",
                "hostname > /etc/mine; hostname > /root/mine; hostname > /var/lib/mine; hostname > /tmp/mine",
            ],
        );
        machine_ids.insert(word(host, &["cat", "/etc/machine-id"]));
        assert_eq!(
            word(host, &["sh", "-c", "ps -e -o pid= -o comm= | grep -cvE 'bash|sleep|sh|ps|grep' || true"]),
            "0"
        );
    }
    for file in ["/etc/mine", "/root/mine", "/var/lib/mine", "/tmp/mine"] {
        assert_eq!(word("drone-Izar", &["cat", file]), "drone-Izar");
        assert!(!std::path::Path::new(file).exists(), "{file} is the machine's");
    }
    assert_eq!(machine_ids.len(), 2);
    assert!(!machine_ids.contains(std::fs::read_to_string("/etc/machine-id").unwrap_or_default().trim()));
}

#[test]
fn a_wire_takes_its_time() {
    for (file, from, to, round_trip_ms) in [
        ("alpha-centauri.toml", "drone-Tarn", "10.42.0.203:9", 38),
        ("two-sites-masqueraded.toml", "east-1", "203.0.113.2:9", 20),
        ("two-sites-masqueraded.toml", "east-1", "192.168.1.11:9", 0),
    ] {
        let Some(lab) = Lab::for_test(fleet(file)) else { return };
        let to: SocketAddr = to.parse().expect("an address");
        assert_eq!(lab.oracle().expect("oracle").dial(from, to).round_trip_ms, round_trip_ms, "{file}: {from} to {to}");
        let best = lab.inside(from, || {
            let once = || {
                let begun = Instant::now();
                let refused = TcpStream::connect_timeout(&to, PATIENCE).expect_err("nobody listens");
                assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
                begun.elapsed()
            };
            (0..10).map(|_| once()).min().expect("ten")
        });
        let expected = Duration::from_millis(round_trip_ms);
        assert!(best >= expected && best < expected + Duration::from_millis(20), "{file}: {from} to {to}: {best:?}");
    }
}

#[test]
fn a_lossy_network_loses_its_share() {
    const SENT: usize = 1_000;
    let Some(mut lab) = Lab::for_test(fleet("container-shares-address.toml")) else { return };
    let arrived = |lab: &Lab| {
        let to = lab.inside("drone", || UdpSocket::bind("10.0.0.6:7000")).expect("bind");
        let from = lab.inside("workstation", || UdpSocket::bind("10.0.0.5:0")).expect("bind");
        to.set_nonblocking(true).expect("a socket");
        let mut arrived = 0;
        for _ in 0..SENT {
            from.send_to(b"x", "10.0.0.6:7000").expect("sent");
            while to.recv(&mut [0; 8]).is_ok() {
                arrived += 1;
            }
        }
        arrived
    };
    // One that waits for the neighbour's address holds up the first few.
    arrived(&lab);
    let all = wait_for(PATIENCE, || (arrived(&lab) >= SENT - 1).then_some(()));
    assert!(all.is_some(), "a network without loss loses");
    lab.loss("office", 200).expect("loss");
    let some = arrived(&lab);
    assert!((700..900).contains(&some), "{some} of {SENT} arrived at 20 % loss");
    lab.mend_all().expect("mended");
    assert!(arrived(&lab) >= SENT - 1);
}

#[test]
fn a_crash_refuses_and_a_power_cut_is_silent() {
    let Some(mut lab) = Lab::for_test(topology::ALPHA_CENTAURI) else { return };
    let to: SocketAddr = "10.42.0.203:7400".parse().expect("an address");
    lab.crash("drone-Izar").expect("crash");
    assert!(!lab.runs("drone-Izar"));
    assert_eq!(dials::dial_from(&lab, "Izar-Orchestrator", to).expect("dial"), Seen::Refused);
    lab.power_off("drone-Izar").expect("off");
    assert_eq!(dials::dial_from(&lab, "Izar-Orchestrator", to).expect("dial"), Seen::Silence);
    lab.boot("drone-Izar").expect("boot");
    assert_eq!(dials::dial_from(&lab, "Izar-Orchestrator", to).expect("dial"), Seen::Refused);
    assert!(lab.boot("drone-Izar").is_err(), "it runs already");
}

#[test]
fn a_lab_of_the_command_line_stays_until_it_is_taken_down() {
    if Lab::for_test(fleet("one-host.toml")).is_none() {
        return;
    }
    let name = format!("c{}", std::process::id());
    ok(&name, &["up", "two-sites-masqueraded", "--bare"]);
    assert!(!cli(&name, &["up", "one-host", "--bare"]).status.success(), "it stands already");
    assert_eq!(ok(&name, &["sh", "east-2", "hostname"]), "east-2\n");
    ok(&name, &["cut", "east-1", "east-2"]);
    ok(&name, &["crash", "east-2"]);
    ok(&name, &["poweroff", "west-1"]);
    let status = ok(&name, &["status"]);
    let line = |host: &str| status.lines().find(|l| l.contains(&format!("host     {host}"))).unwrap_or_default();
    assert!(line("east-2").ends_with("crashed") && line("west-1").ends_with("no power"), "{status}");
    assert!(status.contains("cut      east-1 | east-2"), "{status}");
    assert!(!cli(&name, &["sh", "west-1", "true"]).status.success(), "it has no power");
    ok(&name, &["boot", "west-1"]);
    ok(&name, &["mend"]);
    assert_eq!(ok(&name, &["sh", "west-1", "hostname"]), "west-1\n");
    assert_eq!(cli(&name, &["sh"]).status.code(), Some(64));
    ok(&name, &["down"]);
    assert_eq!(left_of(&name), Vec::<String>::new());
}

#[test]
fn a_lab_that_is_killed_while_it_is_built_leaves_nothing_behind() {
    let Some(lab) = Lab::for_test(fleet("one-host.toml")) else { return };
    let dropped = lab.name().to_owned();
    assert_ne!(left_of(&dropped), Vec::<String>::new(), "there is something to leave");
    drop(lab);
    assert_eq!(left_of(&dropped), Vec::<String>::new());

    // Killed at one moment after the other: each time a bit more of it stands.
    for pieces in [1, 4, 9] {
        let name = format!("k{}-{pieces}", std::process::id());
        let mut building = Command::new(env!("CARGO_BIN_EXE_lab"));
        building.args(["--lab", &name, "up", "two-sites-masqueraded", "--bare"]);
        let mut building = building.stderr(std::process::Stdio::null()).spawn().expect("lab");
        wait_for(PATIENCE, || (left_of(&name).len() > pieces).then_some(())).expect("it is being built");
        building.kill().expect("our own child");
        building.wait().expect("our own child");
        let gone = wait_for(PATIENCE, || left_of(&name).is_empty().then_some(()));
        assert!(gone.is_some(), "left of a lab that was killed with {pieces} pieces: {:?}", left_of(&name));
    }
}

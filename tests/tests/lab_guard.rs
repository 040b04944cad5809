//! The way to a host whose daemon answers nobody, on the real kernel with a real sshd: the pinned host key, the guard that
//! decides by itself, the courier where the bringer has no path; and that nobody else is ever touched, for which each
//! host's stand-in for restart and reboot writes down that it was run.

use mesh::order::{Act, Gently};
use mesh::roster::Cosignature;
use mesh::warrant::{Approval, Authority, Frame, Hello, Order, OrderHash, OrderId, Warrant, approve_by_hand};
use mesh::wire::{Label, Signed, encode, signed_bytes};
use node::fallback::ssh::{self, SshError};
use node::net::frame::{read_frame, write_frame};
use node::state_folder::StateFolder;
use std::net::{SocketAddr, TcpStream};
use tests::bounded::Running;
use tests::lab::dials::{self, Seen};
use tests::lab::doors::{MACHINE, PORT};
use tests::lab::members::Common;
use tests::lab::{Lab, command};
use tests::wait_for;

const HOSTS: [&str; 6] =
    ["Alpha-Centauri", "Izar-Orchestrator", "drone-Izar", "drone-Tau-Beta", "drone-Meridian", "drone-Tarn"];
/// A signer, on site A.
const PERSON: &str = "Izar-Orchestrator";

/// The reference fleet with a mesh, stand-ins everywhere, and doors on some.
fn fleet(overlay: bool, doors: &[&str]) -> Option<Lab> {
    let mut lab = Lab::for_test(topology::ALPHA_CENTAURI)?;
    if !overlay {
        lab.overlay(false).expect("off");
    }
    for host in HOSTS {
        lab.stand_ins(host).expect("stand-ins");
    }
    let common = Common { machine: MACHINE.into(), ..Common::default() };
    assert_eq!(lab.found(&common).unwrap_or_else(|why| panic!("{why}")), Vec::<String>::new());
    for host in doors {
        lab.door(host).unwrap_or_else(|why| panic!("{why}"));
    }
    lab.wait(PERSON, "of six", |s| s.alive() == HOSTS.len() && s.leader().is_some());
    Some(lab)
}

/// What was done anywhere, host by host.
fn acts(lab: &Lab) -> Vec<(&'static str, Vec<String>)> {
    HOSTS.into_iter().map(|host| (host, lab.acts(host))).filter(|(_, acts)| !acts.is_empty()).collect()
}

/// A person orders a restart, whatever healing has begun by itself meanwhile; it has to come to pass.
#[track_caller]
fn restart(lab: &Lab, host: &str) {
    let out =
        lab.mesh(PERSON, &["restart", host, "--force", "--reason", "its daemon answers nobody"]).expect("mesh runs");
    let said = tests::daemon::said(&out);
    assert!(out.status.success(), "{said}\n{}\n--- {PERSON}\n{}", lab.door_log(host), lab.mesh_log(PERSON));
    assert!(said.contains(&format!("{host} is back")), "{said}");
}

#[test]
fn a_frozen_and_a_dead_daemon_are_restarted_through_the_guard() {
    let Some(lab) = fleet(true, &["drone-Izar"]) else { return };
    lab.freeze_daemon("drone-Izar").expect("frozen");
    lab.wait(PERSON, "without it", |s| s.state("drone-Izar") == "down");
    restart(&lab, "drone-Izar");
    assert_eq!(acts(&lab), [("drone-Izar", vec!["restart drone-Izar".to_owned()])]);
    lab.wait(PERSON, "of six", |s| s.alive() == HOSTS.len());
    let log = lab.door_log("drone-Izar");
    assert!(log.contains("userauth-request for user root"), "{log}");

    lab.kill_daemon("drone-Izar").expect("killed");
    lab.wait(PERSON, "without it", |s| s.state("drone-Izar") == "down");
    restart(&lab, "drone-Izar");
    assert_eq!(lab.acts("drone-Izar").len(), 2);
    assert_eq!(acts(&lab).len(), 1, "{:?}", acts(&lab));
    lab.wait(PERSON, "of six", |s| s.alive() == HOSTS.len());
}

/// Incident 1, and what is left of it: the bytes for drone-Tarn arrive at the gateway, whose door is open too.
#[test]
fn a_wrong_host_gets_no_authentication_byte_and_a_courier_finds_the_right_one() {
    let Some(lab) = fleet(false, &["drone-Tarn", "Alpha-Centauri"]) else { return };
    let person = lab.namespace(PERSON).expect("a host");
    command::ip(&person, "route add 192.168.20.0/24 via 10.42.0.199").expect("route");
    let rule = format!("ip daddr 192.168.20.196 tcp dport {PORT} counter dnat to 10.42.0.199:{PORT}");
    let table = format!(
        "table ip misled {{\nchain sent {{ type nat hook output priority -100; policy accept;\n{rule}\n}}\n}}\n"
    );
    command::nft(&person, &table).expect("rules");
    lab.kill_daemon("drone-Tarn").expect("killed");
    lab.wait(PERSON, "without it", |s| s.state("drone-Tarn") == "down");
    restart(&lab, "drone-Tarn");
    assert_eq!(acts(&lab), [("drone-Tarn", vec!["restart drone-Tarn".to_owned()])]);

    let (gateway, tarn) = (lab.door_log("Alpha-Centauri"), lab.door_log("drone-Tarn"));
    assert!(gateway.contains("Connection from 10.42.0.201"), "the person's host was led there\n{gateway}");
    assert!(!gateway.contains("userauth"), "the gateway was asked to let it in\n{gateway}");
    assert!(tarn.contains("userauth-request for user root"), "the check above cannot fail\n{tarn}");
    assert!(!tarn.contains("Connection from 10.42.0.201"), "it has no path of its own\n{tarn}");
    lab.wait(PERSON, "of six", |s| s.alive() == HOSTS.len());
}

#[test]
fn the_guard_hears_members_only_and_refuses_what_is_for_another() {
    let Some(lab) = fleet(true, &["drone-Izar"]) else { return };
    let keys = |host: &str| StateFolder::open(&lab.mesh_folder(host)).expect("folder").keys().expect("keys");
    let (person, target, other) = (keys(PERSON), keys("drone-Izar"), keys("drone-Tau-Beta"));
    let host_key = node::install::door::key_of(&target).1;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let at = SocketAddr::from(([10, 42, 0, 203], PORT));
    let dial = || {
        let stream = lab.inside(PERSON, || TcpStream::connect(at)).expect("the door");
        stream.set_nonblocking(true).expect("a socket");
        tokio::net::TcpStream::from_std(stream).expect("a socket")
    };

    runtime.block_on(async {
        // Who is not enrolled; and who is and may order nothing, unless the one that does not vote is a signer.
        let status = lab.status(PERSON).expect("it answers");
        let names = status.hosts().filter(|h| h["voter"] == false).filter_map(|h| h["name"].as_str());
        let plain = names.filter(|name| !["Alpha-Centauri", PERSON].contains(name)).map(|name| (name, keys(name)));
        let stranger = ("a stranger", mesh::identity::Keys::from_seed([66; 32]));
        for (who, keys) in plain.chain([stranger]) {
            let refused = ssh::enter(dial(), &keys, target.key(), host_key).await;
            assert!(matches!(refused, Err(SshError::NotLetIn(_))), "{who} was let in");
        }
        let wrong = ssh::enter(dial(), &person, target.key(), [1; 32]).await;
        assert!(matches!(wrong, Err(SshError::WrongHost { .. })), "another key was expected");

        let mut entered = ssh::enter(dial(), &person, target.key(), host_key).await.unwrap_or_else(|e| panic!("{e}"));
        let hello = read_frame(&mut entered, 4_096).await.expect("hello");
        let Ok(Frame::Hello(hello)) = Frame::read(&hello) else { panic!("no hello first") };
        assert_eq!(hello.by, target.key());
        let greeting: Hello = hello.open().expect("signed");
        let order = Order {
            mesh: greeting.mesh,
            id: OrderId([7; 16]),
            target: other.key(),
            boot: greeting.boot,
            start: greeting.start,
            act: Act::Reboot(Gently { grace_ms: 0 }),
            authority: Authority::Person,
            requester: "somebody".into(),
            fence: greeting.highest,
            expires_ms: u64::MAX,
            force: false,
            reason: "meant for another".into(),
        };
        let order = Signed::seal(&person, &order);
        assert!(approve_by_hand(&person, &order, &hello).is_err(), "an honest signer signs no such thing");
        let Hello { mesh, nonce, boot, start, epoch, .. } = greeting;
        let hash = OrderHash::of(&order);
        let approval = encode(&Approval { mesh, order: hash, target: other.key(), nonce, boot, start, epoch });
        let sig = person.sign(&signed_bytes(Approval::LABEL, &approval));
        let cosignatures = vec![Cosignature { by: person.key(), sig }];
        let warrant = Frame::Warrant(Warrant { order, approval, cosignatures });
        write_frame(&mut entered, &warrant.write()).await.expect("sent");
        let answer = read_frame(&mut entered, 4_096).await.expect("an answer");
        match Frame::read(&answer) {
            Ok(Frame::Refused(why)) => assert!(why.contains("not this host"), "{why}"),
            answer => panic!("{answer:?}"),
        }
        entered.leave().await;
    });
    // Nothing is done a moment later either: the guard's session is over.
    let sessions = || lab.processes("drone-Izar").into_iter().filter(|p| p.starts_with("mesh-guard")).count();
    assert!(wait_for(tests::daemon::PATIENCE, || (sessions() == 0).then_some(())).is_some());
    assert_eq!(acts(&lab), vec![]);
}

/// Puts an sshd on port 22 of a host, as any machine has one, which reboots it (by its stand-in) for whoever logs in with
/// the swarm's one key.
fn naive_sshd(lab: &Lab, host: &str, key: &str) {
    let root = lab.folder(host).join("root");
    std::fs::write(root.join("authorized"), key).expect("written");
    lab.exec(host, &["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/host-key"]);
    let options =
        ["AuthorizedKeysFile=/root/authorized", "ForceCommand=/root/reboot", "StrictModes=no", "PidFile=none"];
    let mut words = vec!["/usr/sbin/sshd", "-f", "/dev/null", "-p", "22", "-h", "/root/host-key", "-E", "/root/22.log"];
    words.extend(options.iter().flat_map(|option| ["-o", option]));
    lab.exec(host, &words);
}

/// The incident itself: drone-Tarn fails builds behind the masquerade, and is to be rebooted. Whoever goes by the source of
/// its traffic reboots the gateway; an order by its key reboots drone-Tarn, and nothing else.
#[test]
fn the_incident_from_failing_builds_to_the_reboot_of_the_right_host() {
    let Some(mut lab) = fleet(false, &[]) else { return };
    let file = lab.folder(PERSON).join("root/build.toml");
    let failing = "[build.x]\ncommand = \"exit 3\"\ntags = [\"on-drone-Tarn\"]\nretries = 0\n";
    std::fs::write(file, failing).expect("file");
    let failed = lab.mesh(PERSON, &["build", "/root/build.toml"]).expect("mesh runs");
    assert_eq!(failed.status.code(), Some(1), "{}", tests::daemon::said(&failed));

    // Naive: it knows the drone by the source of its traffic.
    lab.exec(PERSON, &["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/swarm"]);
    let key = std::fs::read_to_string(lab.folder(PERSON).join("root/swarm.pub")).expect("made");
    for host in ["Alpha-Centauri", "drone-Tarn"] {
        naive_sshd(&lab, host, &key);
    }
    let seen = dials::dial_with(&lab, "drone-Tarn", PERSON, 8_100).expect("dial");
    let Seen::Answered { source, .. } = seen else { panic!("the drone registers: {seen:?}") };
    let login = format!("root@{}", source.ip());
    let quietly = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"];
    let words: Vec<&str> =
        ["ssh", "-i", "/root/swarm"].into_iter().chain(quietly).chain([login.as_str(), "reboot"]).collect();
    lab.exec(PERSON, &words);
    assert_eq!(acts(&lab), [("Alpha-Centauri", vec![" Alpha-Centauri".to_owned()])], "the gateway goes down");
    std::fs::remove_file(lab.folder("Alpha-Centauri").join("root/acts")).expect("it was there");

    // Ours.
    let words = ["mesh", "reboot", "drone-Tarn", "--force", "--reason", "it fails builds"];
    let mut command = lab.command_with(PERSON, tests::program::mesh(), &words).expect("it runs");
    let ordered = Running::start(&mut command);
    let done = || Some(acts(&lab)).filter(|acts| !acts.is_empty());
    let done = wait_for(tests::daemon::PATIENCE, done);
    assert_eq!(done, Some(vec![("drone-Tarn", vec!["reboot drone-Tarn".to_owned()])]), "{}", ordered.stderr.text());
    // What the stand-in would have done: the power goes and comes, and the machine starts the mesh.
    lab.crash("drone-Tarn").expect("crash");
    lab.boot("drone-Tarn").expect("boot");
    lab.mesh_up("drone-Tarn").expect("up");
    let ended = ordered.end();
    let said = tests::daemon::said(&ended);
    assert!(ended.status.success() && said.contains("drone-Tarn is back"), "{said}");
    lab.wait(PERSON, "of six", |s| s.alive() == HOSTS.len());
    assert_eq!(acts(&lab), [("drone-Tarn", vec!["reboot drone-Tarn".to_owned()])]);
}

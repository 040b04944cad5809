//! Warrants over loopback, between real daemons: a person's order from the command to the proof, and orders that nobody may
//! give. What a host does to itself is a stand-in: it writes down which host did what, and for which order.

mod insiders;

use insiders::{Insider, four};
use mesh::healing::Entry;
use mesh::identity::{Keys, PeerKey};
use mesh::lease::Fence;
use mesh::order::{Act, Gently};
use mesh::roster::{Cosignature, MeshId};
use mesh::warrant::{Approval, Authority, Frame, Hello, Order, OrderHash, OrderId, Warrant};
use mesh::wire::{Label, Signed, encode, signed_bytes};
use node::consensus::Duplex;
use node::driver::{Ask, Inner};
use node::net::frame::{read_frame, write_frame};
use std::fs;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tests::daemon::{PATIENCE, Settings, end_process};
use tests::fleet::Fleet;
use tests::{bounded, wait_for};

/// A host whose restart and reboot are written down. `ends` is what follows a restart: the service manager's part.
fn recorded(fleet: &Fleet, name: &str, more: &str, ends: &str) -> Settings {
    let acts = fleet.path("acts");
    fs::create_dir_all(acts.parent().expect("below the folder")).expect("folder");
    let record = format!("echo $MESH_ACT {name} $MESH_ORDER >> {}", acts.display());
    let more = format!(
        "[machine]\nallow_reboot = true\nat_boot = true\nrestart_command = ['sh', '-c', '{record}{ends}']\nreboot_command = \
         ['sh', '-c', '{record}']\n{more}"
    );
    Settings { more, ..Settings::default() }
}

/// What was done, a line each.
fn acts(fleet: &Fleet) -> Vec<String> {
    let text = fs::read_to_string(fleet.path("acts")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_person_restarts_a_host_and_is_told_each_step() {
    let mut fleet = Fleet::up_each(&["a", "b", "c"], |fleet, name| {
        let more = if name == "c" { "protected = true" } else { "" };
        recorded(fleet, name, more, "; kill -TERM $PPID")
    });
    fleet["a"].wait("led by three voters", |s| s.voters() == 3);

    // Who is meant, and who may.
    for host in ["", "nobody", "b.", "*"] {
        fleet["a"].fails(&["restart", host, "--reason", "leak"]);
    }
    assert!(fleet["a"].fails(&["restart", "b", "--reason", " "]).contains("the reason is empty"));
    assert!(fleet["b"].fails(&["restart", "a", "--reason", "leak"]).contains("no signer"));
    for force in [&[][..], &["--force"]] {
        let error = fleet["a"].fails(&[&["reboot", "c", "--reason", "leak"], force].concat());
        assert!(error.contains("protected by its own mesh.toml"), "{error}");
    }
    assert_eq!(acts(&fleet), Vec::<String>::new());

    let mut restart = fleet["a"].command(&["restart", "b", "--reason", "it leaks"]);
    let asked = std::thread::spawn(move || bounded::output(&mut restart));
    assert!(fleet["b"].ended().success(), "the stand-in asks it to end");
    fleet["b"].up(); // the service manager's part
    let out = asked.join().expect("asked");
    assert!(out.status.success(), "{}", tests::daemon::said(&out));
    assert_eq!(String::from_utf8_lossy(&out.stdout), "b is back: start 2\n");
    let done = acts(&fleet);
    assert!(done.len() == 1 && done[0].starts_with("restart b o"), "{done:?}");
    let log = fleet["b"].log();
    let line = log.lines().find(|line| line.contains("ordered by hand")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("on a: it leaks; signed by 12D3KooW"), "{line}");
    assert_eq!(fleet.settled().alive(), 3);

    // The pace is kept unless it is forced; a reboot is proved by nothing but another boot.
    assert!(fleet["a"].fails(&["reboot", "b", "--reason", "leak"]).contains("the last step was not long ago"));
    let mut reboot = fleet["a"].command(&["reboot", "b", "--reason", "it leaks", "--force", "--json"]);
    let mut waits = reboot.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("spawned");
    let done = wait_for(PATIENCE, || Some(acts(&fleet)).filter(|done| done.len() == 2)).expect("it acts");
    assert!(done[1].starts_with("reboot b o"), "{done:?}");
    assert_eq!(waits.try_wait().expect("our own child"), None, "no proof, no end");
    end_process(waits.id());
    let _ = waits.wait();
    assert_eq!(acts(&fleet).len(), 2, "nobody acts twice");
}

/// Until a target that is busy is asked again.
const AGAIN: Duration = Duration::from_millis(50);

/// A target that has said hello to whoever brings something.
struct Hearing {
    stream: Box<dyn Duplex>,
    signed: Signed,
    hello: Hello,
}

impl Hearing {
    async fn open(by: &Arc<Inner>, target: PeerKey) -> Hearing {
        // A hearing of this bringer's that was given up a moment ago may still have its place: then the target says so.
        let until = Instant::now() + PATIENCE;
        loop {
            let mut stream = by.open_daemon(target).await.expect("a stream");
            let bytes = read_frame(&mut stream, 4_096).await.expect("a frame");
            match Frame::read(&bytes) {
                Ok(Frame::Hello(signed)) => {
                    let hello = signed.open().expect("its own");
                    return Hearing { stream, signed, hello };
                }
                Ok(Frame::Refused(why)) if why.contains("try again") && Instant::now() < until => {
                    tokio::time::sleep(AGAIN).await;
                }
                other => panic!("no hello: {other:?}"),
            }
        }
    }

    /// Signatures of these over this order and this hello, as whoever holds their keys can make them.
    fn signed_by(&self, order: &Signed, keys: &[&Keys]) -> Warrant {
        let Hello { mesh, nonce, boot, start, epoch, .. } = self.hello;
        let target = self.signed.by;
        let approval = encode(&Approval { mesh, order: OrderHash::of(order), target, nonce, boot, start, epoch });
        let message = signed_bytes(Approval::LABEL, &approval);
        let cosignatures = keys.iter().map(|k| Cosignature { by: k.key(), sig: k.sign(&message) }).collect();
        Warrant { order: order.clone(), approval, cosignatures }
    }

    async fn send(mut self, warrant: Warrant) -> Frame {
        write_frame(&mut self.stream, &Frame::Warrant(warrant).write()).await.expect("sent");
        let answer = read_frame(&mut self.stream, 4_096).await.expect("an answer");
        Frame::read(&answer).expect("a frame")
    }
}

fn refusal(answer: Frame) -> String {
    match answer {
        Frame::Refused(why) => why,
        other => panic!("not refused: {other:?}"),
    }
}

/// What an order says when nothing is wrong with it but its author.
struct Draft {
    mesh: MeshId,
    target: PeerKey,
    authority: Authority,
    fence: Fence,
    force: bool,
    id: u8,
}

impl Draft {
    fn write(&self, hello: &Hello, keys: &Keys) -> Signed {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let order = Order {
            mesh: self.mesh,
            id: OrderId([self.id; 16]),
            target: self.target,
            boot: hello.boot,
            start: hello.start,
            act: Act::Restart(Gently { grace_ms: 0 }),
            authority: self.authority,
            requester: "somebody".into(),
            fence: self.fence,
            expires_ms: now.as_millis() as u64 + 600_000,
            force: self.force,
            reason: "because".into(),
        };
        Signed::seal(keys, &order)
    }
}

#[test]
fn orders_that_nobody_may_give_are_refused_and_nothing_is_done() {
    let runtime = insiders::runtime();
    let (fleet, x, y) = four(&runtime, |fleet, name| recorded(fleet, name, "", ""));
    let ledger = x.node.ledger();
    let (mesh, fence) = (ledger.mesh(), ledger.leader().expect("led").1);
    let host = |name: &str| ledger.roster().find(name).expect("enrolled");
    let (b, c) = (host("b"), host("c"));
    let leader = |id| Draft { mesh, target: b, authority: Authority::Leader, fence, force: false, id };
    let person = |id| Draft { authority: Authority::Person, ..leader(id) };
    let stranger = Keys::from_seed([77; 32]);

    // Who brings it, what it says, who wrote it, whose signatures are on it, and in which words it is refused.
    type Lie<'a> = (&'a Insider, Draft, &'a Keys, Vec<&'a Keys>, &'a str);
    let highest = Fence { epoch: u64::MAX, term: u64::MAX };
    let lies: Vec<Lie<'_>> = vec![
        (&y, leader(1), &y.keys, vec![&y.keys], "who does not lead under its fence"),
        (&y, Draft { fence: highest, ..leader(2) }, &y.keys, vec![&y.keys], "who does not lead"),
        (&y, person(3), &y.keys, vec![&y.keys], "who is not a signer"),
        (&x, leader(4), &x.keys, vec![&x.keys], "signed by 1 of the 2 voters needed"),
        (&x, leader(5), &x.keys, vec![&x.keys, &y.keys], "neither a voter nor the order's author"),
        (&x, leader(6), &x.keys, vec![&x.keys, &x.keys], "signed twice"),
        (&x, Draft { force: true, ..leader(7) }, &x.keys, vec![&x.keys], "only a person may force"),
        (&y, leader(8), &x.keys, vec![&y.keys], "neither a voter nor the order's author"),
        (&y, person(9), &x.keys, vec![], "wrote the order and has not signed for this nonce"),
        (&x, Draft { target: c, ..person(10) }, &x.keys, vec![&x.keys], "not this host"),
        (&x, Draft { mesh: MeshId([9; 32]), ..person(11) }, &x.keys, vec![&x.keys], "of another mesh"),
        (&y, person(12), &stranger, vec![&stranger], "who is not a signer"),
    ];
    for (by, draft, author, signers, words) in lies {
        let (why, seen) = runtime.block_on(async {
            let hearing = Hearing::open(&by.control(), b).await;
            let order = draft.write(&hearing.hello, author);
            let (warrant, seen) = (hearing.signed_by(&order, &signers), hearing.hello.highest);
            (refusal(hearing.send(warrant).await), seen)
        });
        assert!(why.contains(words), "order {}: {why}", draft.id);
        assert_eq!(seen, fence, "order {}: a fence that nobody verified was stored", draft.id);
    }
    let garbage = runtime.block_on(async {
        let mut hearing = Hearing::open(&y.control(), b).await;
        write_frame(&mut hearing.stream, &[0xff; 100]).await.expect("sent");
        let answer = read_frame(&mut hearing.stream, 4_096).await.expect("an answer");
        refusal(Frame::read(&answer).expect("a frame"))
    });
    assert!(garbage.contains("not a frame"), "{garbage}");

    // Voters sign nothing on a leader's word alone: not what is not written, nor what is written for no good reason.
    let lied = leader(20);
    let (unwritten, healthy) = runtime.block_on(async {
        let hearing = Hearing::open(&x.control(), b).await;
        let order = lied.write(&hearing.hello, &x.keys);
        let ask = Ask { order: order.clone(), hello: hearing.signed.clone() };
        let unwritten = x.control().ask_approval(c, ask.clone()).await.expect_err("signed");
        let reply = x.control().write_healing(Entry::Order(order), Some(fence)).await.expect("an answer");
        assert!(reply.is_ok(), "{reply:?}");
        (unwritten, x.control().ask_approval(c, ask).await.expect_err("signed"))
    });
    assert!(unwritten.contains("not open in this voter's ledger"), "{unwritten}");
    assert!(healthy.contains("its case stands at Well here"), "{healthy}");
    assert_eq!(acts(&fleet), Vec::<String>::new());

    // A signer's order is carried out once. What is replayed gets its receipt again, and changes nothing.
    let (first, again, other) = runtime.block_on(async {
        let hearing = Hearing::open(&x.control(), b).await;
        let order = person(30).write(&hearing.hello, &x.keys);
        let warrant = hearing.signed_by(&order, &[&x.keys]);
        let other = person(31).write(&hearing.hello, &x.keys);
        let first = hearing.send(warrant.clone()).await;
        let again = Hearing::open(&y.control(), b).await.send(warrant.clone()).await;
        let other = Warrant { order: other, ..warrant };
        (first, again, refusal(Hearing::open(&y.control(), b).await.send(other).await))
    });
    let Frame::Receipt(receipt) = &first else { panic!("not taken on: {first:?}") };
    assert_eq!(receipt.by, b);
    assert_eq!(first, again);
    assert!(other.contains("over another order") || other.contains("is carrying out"), "{other}");
    let id = OrderId([30; 16]);
    let done = wait_for(PATIENCE, || Some(acts(&fleet)).filter(|done| !done.is_empty())).expect("it acts");
    assert_eq!(done, [format!("restart b {id}")]);
    let log = fleet["b"].log();
    assert!(log.contains("a warrant was not carried out"), "refusals are in the target's journal");
    assert_eq!(acts(&fleet).len(), 1);
    insiders::end(runtime, [y, x]);
}

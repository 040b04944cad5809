//! Entries that nobody may write: each is refused with its reason, and changes nothing on any host.
//!
//! Two of the four hosts run inside the test, so that it holds their keys and can write what a daemon never
//! would: as a leader that lies, and as a member that wants more than is its to have.

mod insiders;

use insiders::{Insider, four};
use mesh::build::{Attempt, BuildId, BuildSpec, End, Outcome, Phase, Sandbox};
use mesh::identity::{Keys, PeerKey};
use mesh::lease::Fence;
use mesh::ledger::*;
use mesh::roster::{Cosignature, MeshId, VoterChange};
use mesh::wire::Signed;
use std::collections::BTreeSet;
use tests::daemon::{PATIENCE, Settings};
use tokio::runtime::Runtime;

fn write(by: &Insider, runtime: &Runtime, entry: Signed) -> Reply {
    let control = by.control();
    runtime.block_on(async move { control.submit(entry, PATIENCE).await }).expect("an answer").0
}

/// What an entry could have changed; not the log's own position and time.
fn effects(ledger: &Ledger) -> (Roster, VoterChain, Builds, Option<(PeerKey, Fence)>) {
    (ledger.roster().clone(), ledger.voters().clone(), ledger.builds().clone(), ledger.leader())
}
type Roster = mesh::roster::Roster;
type VoterChain = mesh::roster::VoterChain;

/// Every request is a new one, unless a test repeats it.
fn request(n: u8) -> RequestId {
    RequestId([n; 16])
}

fn spec(name: &str, script: &str, tag: &str) -> BuildSpec {
    BuildSpec {
        name: name.into(),
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        inputs: vec![],
        outputs: vec![],
        changed_only: false,
        env: vec![],
        needs: vec![],
        cores: 1,
        memory_mib: 0,
        tags: vec![tag.into()],
        timeout_s: 600,
        network: false,
        sandbox: Sandbox::None,
        retries: 0,
        confirm: 1,
    }
}

#[test]
fn forged_entries_are_refused_and_change_nothing() {
    let runtime = insiders::runtime();
    let (fleet, x, y) = four(&runtime, |_, _| Settings { tags: vec!["daemon".into()], ..Settings::default() });
    let mesh = x.node.ledger().mesh();
    let gate = fleet.path("gate");

    // A build that runs on a daemon while the entries come.
    let wait = format!("until [ -e {} ]; do sleep 0.05; done", gate.display());
    let submit = Command::Submit(Submit { specs: vec![spec("held", &wait, "daemon")] });
    let held = write(&x, &runtime, Entry::seal(&x.keys, mesh, request(1), None, submit));
    assert!(held.is_ok(), "{held:?}");
    let id = held.builds[0];
    fleet["b"].wait_build(&id.to_string(), "running", |b| b["state"] == "running");

    let ledger = x.node.ledger();
    let (leader, fence) = ledger.leader().expect("led");
    assert_eq!(leader, x.keys.key());
    let older = Fence { term: fence.term - 1, ..fence };
    let daemon = ledger.roster().find("b").expect("enrolled");
    let lose = |build: BuildId| {
        Command::Lose(Lose { attempts: vec![Lost { build, attempt: Attempt(1), reason: "because".into() }] })
    };
    let stranger = Keys::from_seed([77; 32]);
    let cancel = || Command::Cancel(Cancel { builds: vec![id], reason: "because".into() });
    let report = {
        let outcome = Outcome {
            end: End::Done,
            phase: Phase::Command,
            code: 0,
            text: String::new(),
            manifest: None,
            log: None,
            took_ms: 1,
        };
        Command::Report(Report { ends: vec![AttemptEnd { build: id, attempt: Attempt(1), outcome, receipts: vec![] }] })
    };
    let alone = BTreeSet::from([x.keys.key()]);
    let voters = |keys: &[&Keys]| {
        let body = ledger.voters().next(&alone);
        let signatures = keys.iter().map(|k| Cosignature::new(k, &body)).collect();
        Command::Voters(VoterChange { body, signatures })
    };
    let mut of_a_daemon = Entry::seal(&x.keys, mesh, request(2), None, cancel());
    of_a_daemon.by = daemon;
    let mut changed = Entry::seal(&x.keys, mesh, request(3), None, cancel());
    let last = changed.body.len() - 1;
    changed.body[last] ^= 1;
    let other_mesh = MeshId([9; 32]);
    let revoke = Command::Revoke(Revoke { peer: daemon, banned: true, reason: "because".into() });
    let lead = || Command::Lead(Lead { version: "9".into() });

    // Written by the leader itself, which a lying leader would do: every host's own `apply` is what refuses.
    let by_the_leader = [
        ("another member's name", of_a_daemon.clone(), Code::Invalid),
        ("changed after signing", changed, Code::Invalid),
        ("a stranger", Entry::seal(&stranger, mesh, request(4), None, cancel()), Code::Forbidden),
        ("another mesh", Entry::seal(&x.keys, other_mesh, request(5), None, cancel()), Code::Invalid),
        ("a stale fence", Entry::seal(&x.keys, mesh, request(6), Some(older), lose(id)), Code::Stale),
        ("no fence", Entry::seal(&x.keys, mesh, request(7), None, lose(id)), Code::Invalid),
        ("not the leader", Entry::seal(&y.keys, mesh, request(8), Some(fence), lose(id)), Code::Forbidden),
        ("leads, but is no voter", Entry::seal(&y.keys, mesh, request(9), Some(fence), lead()), Code::Forbidden),
        ("another host's attempt", Entry::seal(&x.keys, mesh, request(10), None, report.clone()), Code::Unknown),
        ("no signer", Entry::seal(&y.keys, mesh, request(11), None, revoke), Code::Forbidden),
        (
            "one of three voters",
            Entry::seal(&x.keys, mesh, request(12), Some(fence), voters(&[&x.keys])),
            Code::Forbidden,
        ),
        (
            "one voter twice, one that does not vote, and a stranger",
            Entry::seal(&x.keys, mesh, request(13), Some(fence), voters(&[&x.keys, &x.keys, &y.keys, &stranger])),
            Code::Forbidden,
        ),
    ];
    let before = effects(&x.node.ledger());
    for (what, entry, code) in by_the_leader {
        let index = x.node.ledger().index();
        let reply = write(&x, &runtime, entry);
        assert_eq!(reply.code, code, "{what}: {reply:?}");
        assert!(!reply.text.is_empty(), "{what} has no reason");
        assert!(x.node.ledger().index() > index, "{what} is in the log, and has no effect");
        assert_eq!(effects(&x.node.ledger()), before, "{what}");
    }

    // Sent to the leader by a member: not even written.
    let by_a_member = [
        ("another member's name", of_a_daemon, Code::Invalid),
        ("a leader's entry", Entry::seal(&y.keys, mesh, request(14), Some(fence), lose(id)), Code::Invalid),
        ("a leader's voters", Entry::seal(&y.keys, mesh, request(15), Some(fence), voters(&[&y.keys])), Code::Invalid),
    ];
    for (what, entry, code) in by_a_member {
        let reply = write(&y, &runtime, entry);
        assert_eq!(reply.code, code, "{what}: {reply:?}");
        assert_eq!(effects(&x.node.ledger()), before, "{what}");
    }

    // The same request, whoever brings it and however often, is one build.
    let again = Entry::seal(
        &y.keys,
        mesh,
        request(16),
        None,
        Command::Submit(Submit { specs: vec![spec("once", "true", "daemon")] }),
    );
    let replies = [&y, &x, &y].map(|by| write(by, &runtime, again.clone()));
    assert!(replies[0].is_ok(), "{:?}", replies[0]);
    assert_eq!((&replies[0], &replies[0]), (&replies[1], &replies[2]));

    // What was honest goes on, and all agree.
    fleet.file("gate", "");
    for host in &fleet.hosts {
        for build in [id, replies[0].builds[0]] {
            host.wait_build(&build.to_string(), "done", |b| b["state"] == "done");
        }
        assert_eq!(fleet.builds(&host.name).len(), 2);
        let status = host.status().expect("up");
        assert_eq!((status.voters(), status.hosts().count(), status.leader()), (3, 4, Some("x")));
    }
    let index = x.node.ledger().index();
    let y_has = || (y.node.ledger().index() >= index).then(|| y.node.ledger());
    let theirs = tests::wait_for(PATIENCE, y_has).expect("y follows");
    assert_eq!(effects(&theirs), effects(&x.node.ledger()));
    insiders::end(runtime, [y, x]);
}

//! Golden vectors: the bytes of every signed type. A change here breaks old ledgers and other
//! versions: it needs a new label, not a new vector.

use crate::build::*;
use crate::healing;
use crate::identity::Keys;
use crate::lease::Fence;
use crate::ledger::*;
use crate::order::*;
use crate::roster::*;
use crate::warrant;
use crate::wire::{Label, Signed, encode};
use serde::Serialize;

fn keys(n: u8) -> Keys {
    Keys::from_seed([n; 32])
}

/// Label, body length, and the hash of label and signed bytes.
fn vector<T: Label + Serialize>(value: &T) -> String {
    let signed = Signed::seal(&keys(1), value);
    let mut hash = blake3::Hasher::new();
    hash.update(T::LABEL.as_bytes()).update(&encode(&signed));
    format!("{} {} {}", T::LABEL, signed.body.len(), &hash.finalize().to_hex()[..16])
}

fn outcome() -> Outcome {
    Outcome {
        end: End::Failed,
        phase: Phase::Command,
        code: 2,
        text: "no".into(),
        manifest: Some(BlobId([3; 32])),
        log: None,
        took_ms: 70_000,
    }
}

fn commands() -> Vec<Command> {
    let spec = BuildSpec {
        inputs: vec![Input { path: "".into(), blob: BlobId([4; 32]), bytes: 9, kind: InputKind::Tar }],
        env: vec![("K".into(), "V".into())],
        needs: vec!["a".into()],
        sandbox: Sandbox::None,
        ..BuildSpec::new("b", vec!["make".into()])
    };
    let (build, attempt) = (BuildId(12), Attempt(1));
    let receipt = Receipt { mesh: [9; 32], build, attempt, manifest: None, log: None };
    let receipts = vec![Signed::seal(&keys(2), &receipt)];
    vec![
        Command::Lead(Lead { version: "0.1.0".into() }),
        Command::Enrol(Enrol { join: Signed::seal(&keys(2), &join()) }),
        Command::Revoke(Revoke { peer: keys(2).key(), banned: true, reason: "gone".into() }),
        Command::Voters(VoterChange { body: vec![1, 2], signatures: vec![Cosignature::new(&keys(1), &[1, 2])] }),
        Command::Submit(Submit { specs: vec![spec] }),
        Command::Assign(Assign { attempts: vec![Assignment { build, attempt, host: keys(2).key(), start: 3 }] }),
        Command::Report(Report { ends: vec![AttemptEnd { build, attempt, outcome: outcome(), receipts }] }),
        Command::Lose(Lose { attempts: vec![Lost { build, attempt, reason: "down".into() }] }),
        Command::Cancel(Cancel { builds: vec![build], reason: "stop".into() }),
        Command::Retry(Retry { build }),
        Command::Heal(healing()),
        Command::Rename(Rename { peer: keys(2).key(), name: "c".into() }),
        Command::Replace(Replace {
            peer: keys(2).key(),
            invitation: Signed::seal(&keys(1), &invitation()),
            reason: "burnt".into(),
        }),
        Command::Dispute(recovery().seal(&keys(7))),
    ]
}

fn recovery() -> Recovery {
    let (heir, survivors) = (keys(2).key(), vec![keys(2).key()]);
    Recovery { mesh: MeshId([9; 32]), epoch: 1, previous: [8; 32], heir, survivors, index: 40, head: [7; 32] }
}

fn healing() -> healing::Entry {
    let host = Some(keys(2).key());
    let (by, reason) = (keys(1).key(), "disk".into());
    healing::Entry::Measure(healing::Measure { stop: healing::Stop::Drain, host, by, reason, until_ms: 1 << 40 })
}

/// Every other entry of healing, likewise.
#[test]
fn healing_keeps_its_bytes() {
    use crate::healing::*;
    let (host, order, boot) = (keys(2).key(), warrant::OrderId([4; 16]), BootId([5; 16]));
    let pending = Pending { id: order, boot, start: 3, until_ms: 1 << 40 };
    let (why, signed) = (String::from("so"), Signed::seal(&keys(2), &join()));
    let entries = [
        Entry::Policy(Policy::default()),
        Entry::Lift(Lift { stop: Stop::Block, host: Some(host) }),
        Entry::Order(signed.clone()),
        Entry::Change(Change { host, event: Event::Ordered, why: why.clone(), order: Some(pending) }),
        Entry::Clear(Clear { host: None, why: why.clone() }),
        Entry::Receipt(signed),
        Entry::Remark(Remark { host, order: Some(order), told: Told::Withheld, text: why }),
        Entry::Proof(Proof { order, boot, start: 4 }),
    ];
    let entry =
        |command| crate::ledger::Entry { mesh: MeshId([9; 32]), request: RequestId([1; 16]), fence: None, command };
    let got = entries.map(|entry_of_healing| vector(&entry(Command::Heal(entry_of_healing))));
    assert_eq!(got, GOLDEN_HEALING);
}

const GOLDEN_HEALING: [&str; 8] = [
    "mesh/entry/v1 114 171036aefb5461d6",
    "mesh/entry/v1 97 ecaef2d0759c3df7",
    "mesh/entry/v1 503 8f8827a0c9448f17",
    "mesh/entry/v1 145 acf46d0b0782e997",
    "mesh/entry/v1 64 c7ed9dcab68958ae",
    "mesh/entry/v1 503 a4d21dfa5932d9ea",
    "mesh/entry/v1 117 71f212f496239564",
    "mesh/entry/v1 97 4878e69148aa65ed",
];

fn invitation() -> Invitation {
    Invitation { mesh: MeshId([9; 32]), key: keys(3).key(), name: "b".into(), signer: true, expires_ms: 1 << 40 }
}

fn join() -> JoinRequest {
    JoinRequest {
        mesh: MeshId([9; 32]),
        invitation: Signed::seal(&keys(1), &invitation()),
        proof: keys(3).sign(&invitation_proof(&MeshId([9; 32]), &keys(2).key())),
        machine_id: [5; 32],
        store_id: [6; 16],
    }
}

#[test]
fn signed_types_keep_their_bytes() {
    let genesis = Genesis {
        name: "m".into(),
        host: "a".into(),
        recovery: keys(7).key(),
        wall_ms: 1 << 40,
        nonce: [8; 16],
        machine_id: [5; 32],
        store_id: [6; 16],
    };
    let credential = Credential { mesh: MeshId([9; 32]), peer: keys(2).key(), name: "b".into() };
    let voters = VoterSet { mesh: MeshId([9; 32]), epoch: 1, previous: [9; 32], voters: vec![keys(1).key()] };
    let receipt = Receipt {
        mesh: [9; 32],
        build: BuildId(12),
        attempt: Attempt(1),
        manifest: Some(BlobId([3; 32])),
        log: Some(BlobId([4; 32])),
    };
    let mut got = vec![
        vector(&genesis),
        vector(&invitation()),
        vector(&join()),
        vector(&credential),
        vector(&voters),
        vector(&receipt),
    ];
    for command in commands() {
        let fence = Some(Fence { epoch: 1, term: 2 });
        got.push(vector(&Entry { mesh: MeshId([9; 32]), request: RequestId([1; 16]), fence, command }));
    }
    got.push(vector(&recovery()));
    assert_eq!(got, GOLDEN);
    assert_eq!(mesh_id(&Signed::seal(&keys(1), &genesis)).to_string()[..16], *"6d1a8a5325c1eeb9");
}

/// The signed types of warrants, likewise.
#[test]
fn warrants_keep_their_bytes() {
    let (mesh, boot, fence) = (MeshId([9; 32]), BootId([5; 16]), Fence { epoch: 1, term: 2 });
    let order = warrant::Order {
        mesh,
        id: warrant::OrderId([4; 16]),
        target: keys(2).key(),
        boot,
        start: 3,
        act: Act::Restart(Gently { grace_ms: 70_000 }),
        authority: warrant::Authority::Person,
        requester: "alice on a".into(),
        fence,
        expires_ms: 1 << 40,
        force: true,
        reason: "stuck".into(),
    };
    let hash = warrant::OrderHash::of(&Signed::seal(&keys(1), &order));
    let hello = warrant::Hello { mesh, nonce: [6; 32], boot, start: 3, highest: fence, epoch: 7 };
    let (target, nonce) = (keys(2).key(), [6; 32]);
    let approval = warrant::Approval { mesh, order: hash, target, nonce, boot, start: 3, epoch: 7 };
    let receipt = warrant::Receipt { mesh, id: order.id, order: hash, boot, start: 3 };
    let got = [vector(&order), vector(&hello), vector(&approval), vector(&receipt)];
    assert_eq!(got, GOLDEN_WARRANTS);
}

const GOLDEN_WARRANTS: [&str; 4] = [
    "mesh/order/v2 144 bf434fc4cb961ddb",
    "mesh/target-hello/v1 91 f496760bef2bbd88",
    "mesh/approval/v1 156 020feb99cd0f2760",
    "mesh/warrant-receipt/v1 104 f89d6489e87ad6af",
];

/// What is signed must be one encoding only: every command survives the strict decoder.
#[test]
fn commands_survive_the_strict_decoder() {
    for command in commands() {
        let bytes = encode(&command);
        assert_eq!(crate::wire::decode::<Command>(&bytes, bytes.len()), Ok(command));
    }
}

const GOLDEN: [&str; 21] = [
    "mesh/genesis/v1 116 cba3d3549b40aff3",
    "mesh/invitation/v1 81 dcff6ba79f6872b7",
    "mesh/join/v1 336 0428464ee68037fe",
    "mesh/credential/v1 71 fba2fe8984b39b1b",
    "mesh/voters/v1 105 30c6ac61047d5b07",
    "mesh/storage-receipt/v1 105 38d8267e4ab39785",
    "mesh/entry/v1 65 9640dff1e481e642",
    "mesh/entry/v1 501 326475b4216f1fd4",
    "mesh/entry/v1 100 773d003f7af99f8e",
    "mesh/entry/v1 165 161a2230ba227fea",
    "mesh/entry/v1 130 3309e21a123344c6",
    "mesh/entry/v1 99 b213070b59f4447b",
    "mesh/entry/v1 254 008930f0182ee363",
    "mesh/entry/v1 68 3dc45f95231102ab",
    "mesh/entry/v1 66 baae2a6c9dd9b6f6",
    "mesh/entry/v1 60 9a537acace0c5bfa",
    "mesh/entry/v1 147 306fe5c23cb38b91",
    "mesh/entry/v1 96 0e4081a64a364d56",
    "mesh/entry/v1 284 29502ec85b73d792",
    "mesh/entry/v1 340 c21ba25a22eb83a9",
    "mesh/recovery/v1 175 d0abb6686dd9ccb3",
];

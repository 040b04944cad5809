//! Golden vectors: these bytes may never change, or hosts of two versions stop to understand each other.

use super::world::{MESH, keys};
use super::*;

fn short(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..16].to_string()
}

fn presence() -> Presence {
    Presence {
        mesh: MESH,
        start: 3,
        sequence: 4,
        store: [5; 16],
        machine_id: [6; 32],
        boot_id: [7; 16],
        nonce: 7,
        facts: PresenceFacts {
            name: "alpha".into(),
            addresses: vec!["/ip4/10.42.0.199/tcp/7400".into()],
            cores: 8,
            memory_mib: 16_384,
            tags: vec!["amd64".into()],
            version: "0.1.0".into(),
            boot_enabled: Some(true),
            allow_none: false,
            allow_network: true,
            allow_reboot: false,
            protected: true,
            guard: None,
        },
    }
}

#[test]
fn golden_vectors() {
    let incarnation = Incarnation { start: 3, refutation: 1 };
    let alive = Alive { mesh: MESH, incarnation, stamp_us: 1_000_000, origin: presence().origin() };
    let farewell = Farewell { mesh: MESH, incarnation };
    let evidence = Evidence { silent_ms: 1_650, attempts: 11, heard_ms: Some(2_400), relayed: false, connected: true };
    let accusation =
        Accusation { mesh: MESH, start: 2, sequence: 9, subject: keys(1).key(), incarnation, stamp_us: 999, evidence };
    let statements = [
        ("presence", Statement::Presence(Signed::seal(&keys(0), &presence()))),
        ("alive", Statement::Alive(Signed::seal(&keys(0), &alive))),
        ("accusation", Statement::Accusation(Signed::seal(&keys(0), &accusation))),
        ("farewell", Statement::Farewell(Signed::seal(&keys(0), &farewell))),
    ];
    let got: Vec<String> = statements
        .iter()
        .map(|(name, statement)| {
            let bytes = encode(statement);
            assert_eq!(decode::<Statement>(&bytes, STATEMENT_BYTES_MAX).as_ref(), Ok(statement));
            format!("{name} {} {}", bytes.len(), short(&bytes))
        })
        .collect();
    assert_eq!(got, GOLDEN);

    let probe = Probe { nonce: 7, want_presence: false, want_proof: true, start: 3, origin: 9 };
    assert_eq!(encode(&probe), [0x85, 0x07, 0xf4, 0xf5, 0x03, 0x09]);
    let reply = Reply {
        nonce: 7,
        incarnation,
        stamp_us: 5,
        origin: 6,
        sequence: 4,
        free_cores: 2,
        wall_ms: 1,
        proof: None,
        presence: None,
    };
    assert_eq!(encode(&reply), [0x89, 0x07, 0x82, 0x03, 0x01, 0x05, 0x06, 0x04, 0x02, 0x01, 0xf6, 0xf6]);
}

/// The messages of a comparison.
#[test]
fn golden_comparisons() {
    use super::repair::{Bundle, Digest, Exchange, Row, Rows, Want};
    let peer = keys(1).key();
    let digest = Exchange::Digest(Digest { sums: vec![0, 7, u64::MAX] });
    assert_eq!(
        encode(&digest),
        [0x82, 0x01, 0x4d, 0x81, 0x83, 0x00, 0x07, 0x1b, 255, 255, 255, 255, 255, 255, 255, 255]
    );
    let bundle = Exchange::Bundle(Bundle { statements: vec![vec![1, 2].into(), vec![].into()] });
    assert_eq!(encode(&bundle), [0x82, 0x04, 0x46, 0x81, 0x82, 0x42, 1, 2, 0x40]);
    let rows = Exchange::Rows(Rows { rows: vec![Row { peer, start: 3, sequence: 4, state: 2 }] });
    let want = Exchange::Want(Want { peers: vec![peer] });
    let got: Vec<String> = [&rows, &want].map(|e| format!("{} {}", encode(e).len(), short(&encode(e)))).into();
    assert_eq!(got, ["44 9b94810e486afde0", "40 b8e2f37d27e98b9a"]);
    for exchange in [digest, bundle, rows, want] {
        assert_eq!(decode::<Exchange>(&encode(&exchange), DIGEST_BYTES_MAX), Ok(exchange));
    }
}

const GOLDEN: [&str; 4] = [
    "presence 271 94d61fb9a4d1e5d2",
    "alive 159 3ebf8ebbbc775619",
    "accusation 194 e32da60ba8531e86",
    "farewell 145 34caa0c016dbaf32",
];

#[test]
fn the_largest_presence_fits_into_a_statement_and_a_reply() {
    let mut facts = PresenceFacts {
        name: "ä".repeat(500),
        addresses: vec!["a".repeat(ADDRESS_BYTES_MAX); 99],
        tags: vec!["t".repeat(TAG_BYTES_MAX); 99],
        version: "v".repeat(500),
        cores: u32::MAX,
        memory_mib: u64::MAX,
        guard: Some(GuardDoor { port: u16::MAX, host_key: [255; 32] }),
        ..Default::default()
    };
    facts.clip();
    let big = Presence { start: u64::MAX, sequence: u64::MAX, facts, ..presence() };
    assert!(big.fits());
    let signed = Signed::seal(&keys(0), &big);
    assert_eq!(signed.open::<Presence>(), Ok(big));
    assert!(encode(&Statement::Presence(signed.clone())).len() <= STATEMENT_BYTES_MAX);
    let alive = Alive {
        mesh: MESH,
        incarnation: Incarnation { start: u64::MAX, refutation: u32::MAX },
        stamp_us: u64::MAX,
        origin: u64::MAX,
    };
    let reply = Reply {
        nonce: u64::MAX,
        incarnation: alive.incarnation,
        stamp_us: u64::MAX,
        origin: u64::MAX,
        sequence: u64::MAX,
        free_cores: u32::MAX,
        wall_ms: u64::MAX,
        proof: Some(Signed::seal(&keys(0), &alive)),
        presence: Some(signed),
    };
    assert!(encode(&reply).len() <= PROBE_BYTES_MAX);
}

use super::*;
use proptest::prelude::*;

#[derive(Clone, PartialEq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Probe {
    pub term: u64,
    pub act: String,
    pub tail: Vec<(u8, String)>,
}
impl Label for Probe {
    const LABEL: &'static str = "mesh/test-probe/v1";
    const MAX: usize = 1_000;
}

tagged! {
    #[derive(Clone, PartialEq, Debug)]
    pub enum Word {
        1 => Number(u64),
        7 => Probe(Probe),
    }
}

fn hex(s: &str) -> Vec<u8> {
    let s: String = s.split_whitespace().collect();
    (0..s.len() / 2).map(|i| u8::from_str_radix(&s[2 * i..2 * i + 2], 16).expect("hex")).collect()
}

fn probe() -> Probe {
    Probe { term: 1, act: "x".into(), tail: vec![] }
}

#[test]
fn golden_vectors() {
    assert_eq!(encode(&probe()), hex("83 01 61 78 80"));
    assert_eq!(encode(&Word::Number(5)), hex("82 01 41 05"));
    assert_eq!(encode(&Word::Probe(probe())), hex("82 07 45 83 01 61 78 80"));
    let keys = Keys::from_seed([1; 32]);
    assert_eq!(keys.key().to_string(), "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5");
    let sealed = Signed::seal(&keys, &probe());
    assert_eq!(sealed.body, hex("83 01 61 78 80"));
    // RFC 8032 signatures are deterministic: this one may never change, or old entries stop verifying.
    assert_eq!(blake3::hash(&sealed.sig).to_hex()[..16].to_string(), GOLDEN_SIG);
}
const GOLDEN_SIG: &str = "115746b69abeede0";

/// Each of these decodes with plain ciborium; none may pass here.
#[test]
fn what_ciborium_lets_through_is_refused() {
    let cases = [
        ("long integer", "83 1b0000000000000001 61 78 80"),
        ("long string length", "83 01 78 01 78 80"),
        ("long array header", "98 03 01 61 78 80"),
        ("indefinite array", "9f 01 61 78 80 ff"),
        ("indefinite text", "83 01 7f 61 78 ff 80"),
        ("tagged value", "c0 83 01 61 78 80"),
    ];
    for (what, bytes) in cases {
        let bytes = hex(bytes);
        assert!(ciborium::from_reader::<Probe, _>(&bytes[..]).is_ok(), "the naive decoder takes: {what}");
        assert!(decode::<Probe>(&bytes, 100).is_err(), "{what}");
    }
    let trailing = hex("83 01 61 78 80 00");
    assert_eq!(decode::<Probe>(&trailing, 100), Err(WireError::Trailing(1)));
    assert_eq!(decode::<Probe>(&trailing, 3), Err(WireError::TooLarge { len: 6, max: 3 }));
}

#[test]
fn bombs_cost_little() {
    let deep: Vec<u8> = [0x81].repeat(100_000);
    assert!(decode::<Vec<u64>>(&deep, 200_000).is_err());
    let long = hex("83 01 7b ffffffffffffffff 00");
    assert!(decode::<Probe>(&long, 100).is_err());
}

#[test]
fn an_unknown_kind_says_update() {
    let error = decode::<Word>(&hex("82 09 41 05"), 100).expect_err("kind 9 is unknown");
    assert!(error.to_string().contains("unknown kind 9"), "{error}");
}

proptest! {
    #[test]
    fn what_is_sealed_opens(term: u64, act in ".{0,40}", tail in prop::collection::vec((any::<u8>(), ".{0,9}"), 0..9), seed: [u8; 32]) {
        let value = Probe { term, act, tail };
        let sealed = Signed::seal(&Keys::from_seed(seed), &value);
        prop_assert_eq!(sealed.open::<Probe>(), Ok(value));
        prop_assert_eq!(decode::<Signed>(&encode(&sealed), 4_096), Ok(sealed));
    }

    #[test]
    fn one_flipped_bit_is_noticed(bit in 0usize..800, seed: [u8; 32]) {
        let sealed = encode(&Signed::seal(&Keys::from_seed(seed), &probe()));
        let mut bent = sealed.clone();
        let bit = bit % (bent.len() * 8);
        bent[bit / 8] ^= 1 << (bit % 8);
        let opened = decode::<Signed>(&bent, 4_096).and_then(|s| s.open::<Probe>());
        prop_assert!(opened.is_err());
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode::<Signed>(&bytes, 4_096).and_then(|s| s.open::<Probe>());
        if let Ok(word) = decode::<Word>(&bytes, 4_096) {
            prop_assert_eq!(encode(&word), bytes);
        }
    }
}

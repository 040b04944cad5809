//! What a recovery may do to the chain of voters, and that nobody else can do it.

use super::super::VoterSet;
use super::*;
use proptest::prelude::*;

const MESH: MeshId = MeshId([5; 32]);
const KEY: u8 = 99;

fn keys(n: u8) -> Keys {
    Keys::from_seed([n; 32])
}

fn set(of: &[u8]) -> BTreeSet<PeerKey> {
    of.iter().map(|n| keys(*n).key()).collect()
}

fn next(chain: &VoterChain, voters: &[u8], signers: &[u8]) -> VoterChange {
    let body = chain.next(&set(voters));
    let signatures = signers.iter().map(|n| Cosignature::new(&keys(*n), &body)).collect();
    VoterChange { body, signatures }
}

/// Voters 1, 2 and 3.
fn three() -> VoterChain {
    let mut chain = VoterChain::found(MESH, keys(1).key()).recoverable_by(keys(KEY).key());
    chain.advance(next(&chain, &[1, 2, 3], &[1]), |_| true).unwrap();
    chain
}

fn draft(chain: &VoterChain, heir: u8, survivors: &[u8]) -> Recovery {
    chain.draft(keys(heir).key(), &set(survivors), (40, [7; 32]), false).unwrap()
}

#[test]
fn a_lost_majority_is_followed_by_an_heir_and_then_by_voters_again() {
    let mut chain = three();
    let record = draft(&chain, 3, &[3, 4]);
    assert_eq!((record.epoch, record.survivors.len()), (1, 2));
    let link = record.seal(&keys(KEY));
    chain.advance(link.clone(), |_| true).unwrap();
    assert_eq!((chain.recovery_epoch(), chain.voters()), (1, &set(&[3])));
    assert_eq!(chain.last_recovery(), Some(&link));
    let after = chain.epoch();
    // From here on the ordinary rule holds; those of before have nothing to say any more.
    let lost = chain.advance(next(&chain, &[1, 2, 3], &[1, 2]), |_| true);
    assert!(matches!(lost, Err(VoterError::NoMajority { valid: 0, needed: 1 })), "{lost:?}");
    chain.advance(next(&chain, &[3, 4, 5], &[3]), |_| true).unwrap();
    assert_eq!((chain.recovery_epoch(), chain.epoch()), (1, after + 1));
    // Again, and walked from the genesis.
    chain.advance(draft(&chain, 5, &[5]).seal(&keys(KEY)), |_| true).unwrap();
    assert_eq!((chain.recovery_epoch(), chain.voters()), (2, &set(&[5])));
    chain.verify().unwrap();
    assert!(chain.advance(link, |_| true).is_err(), "an old record comes again");
}

#[test]
fn who_can_decide_without_it_gets_no_recovery() {
    let chain = three();
    let whole = chain.draft(keys(3).key(), &set(&[2, 3]), (40, [7; 32]), false);
    assert_eq!(whole, Err(NotDrafted::Majority { survive: 2, voters: 3, needed: 2 }));
    assert!(chain.draft(keys(3).key(), &set(&[2, 3]), (40, [7; 32]), true).is_ok(), "a person knows better");
    // Of many survivors the voters are named for sure.
    let many: Vec<u8> = (3..90).collect();
    let record = draft(&chain, 60, &many);
    assert!(
        record.is_sound() && record.survivors.contains(&keys(3).key()) && record.survivors.contains(&keys(60).key())
    );
}

#[test]
fn only_the_recovery_key_and_only_for_the_present_set() {
    let chain = three();
    let good = draft(&chain, 3, &[3]);
    let refused = |change: VoterChange| chain.clone().advance(change, |_| true).is_err();
    assert!(refused(good.seal(&keys(3))), "a voter's own");
    assert!(refused(good.seal(&keys(1))), "the first host's");
    let honest = good.seal(&keys(KEY));
    let twice = VoterChange { signatures: [&honest.signatures[..], &honest.signatures[..]].concat(), ..honest.clone() };
    assert!(refused(twice));
    assert!(refused(VoterChange { body: encode(&Recovery { epoch: 2, ..good.clone() }), ..honest.clone() }), "bent");
    for bent in [
        Recovery { mesh: MeshId([6; 32]), ..good.clone() },
        Recovery { previous: [0; 32], ..good.clone() },
        Recovery { epoch: 0, ..good.clone() },
        Recovery { epoch: u64::MAX, ..good.clone() },
        Recovery { survivors: vec![], ..good.clone() },
        Recovery { survivors: vec![keys(3).key(); 2], ..good.clone() },
    ] {
        assert!(refused(bent.seal(&keys(KEY))), "{bent:?}");
    }
    assert!(chain.clone().advance(honest.clone(), |key| *key != keys(3).key()).is_err(), "the heir is no member");
    let mut without = chain.clone();
    without.recovery = None;
    assert!(without.advance(honest, |_| true).is_err(), "nobody knows the key");
}

#[test]
fn a_signature_under_a_voter_set_is_none_under_a_recovery() {
    let chain = three();
    let body = chain.next(&set(&[3]));
    let set_by_recovery_key = VoterChange { signatures: vec![Cosignature::new(&keys(KEY), &body)], body };
    assert!(chain.clone().advance(set_by_recovery_key, |_| true).is_err());
    let record = encode(&draft(&chain, 3, &[3]));
    let sig = keys(KEY).sign(&signed_bytes(VoterSet::LABEL, &record));
    let under_the_other_label =
        VoterChange { signatures: vec![Cosignature { by: keys(KEY).key(), sig }], body: record };
    assert!(chain.clone().advance(under_the_other_label, |_| true).is_err());
}

#[test]
fn without_its_rules_anybody_takes_the_mesh_over() {
    let stolen = |mutant| {
        mutants::with(mutant, || {
            let mut chain = three();
            let taken = chain.advance(draft(&chain, 9, &[9]).seal(&keys(9)), |_| true);
            taken.is_ok() && chain.voters() == &set(&[9])
        })
    };
    assert!(!stolen(None));
    assert!(stolen(Some(Mutant::RecoveryUnsigned)), "the naive variant is caught here");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However voter sets and recoveries follow each other: epochs only grow, the chain verifies from the genesis, and
    /// of two chains the one with more recoveries has the later voters.
    #[test]
    fn chains_grow_and_verify(steps in prop::collection::vec((any::<bool>(), 1u8..8, 1u8..8), 1..12)) {
        let mut chain = VoterChain::found(MESH, keys(1).key()).recoverable_by(keys(KEY).key());
        let mut present = vec![1u8];
        for (recover, a, b) in steps {
            let before = (chain.recovery_epoch(), chain.epoch());
            if recover {
                let record = chain.draft(keys(a).key(), &set(&[a]), (1, [1; 32]), true).unwrap();
                chain.advance(record.seal(&keys(KEY)), |_| true).unwrap();
                present = vec![a];
                prop_assert_eq!(chain.recovery_epoch(), before.0 + 1);
            } else {
                let wanted: Vec<u8> = if a == b { vec![a] } else { vec![a, b, 8] };
                chain.advance(next(&chain, &wanted, &present), |_| true).unwrap();
                present = wanted;
                prop_assert_eq!(chain.recovery_epoch(), before.0);
            }
            prop_assert!(chain.epoch() > before.1);
            chain.verify().unwrap();
            // The recovery key is not kept with the chain, and without it the recoveries do not verify.
            let stored: VoterChain = ciborium::from_reader(&encode(&chain)[..]).unwrap();
            prop_assert_eq!(stored.verify().is_ok(), chain.recovery_epoch() == 0);
            prop_assert_eq!(stored.recoverable_by(keys(KEY).key()), chain.clone());
        }
    }
}

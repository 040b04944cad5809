use super::*;
use crate::identity::Keys;
use std::collections::BTreeSet;

pub(crate) fn keys(n: u8) -> Keys {
    Keys::from_seed([n; 32])
}
pub(crate) const MESH: MeshId = MeshId([9; 32]);
pub(crate) const NOW: u64 = 1_000_000;

pub(crate) fn genesis() -> Genesis {
    Genesis {
        name: "m".into(),
        host: "a".into(),
        recovery: keys(99).key(),
        wall_ms: NOW,
        nonce: [0; 16],
        machine_id: [1; 32],
        store_id: [1; 16],
    }
}

fn invitation(signer: u8, one_time: u8, name: &str) -> Signed {
    Signed::seal(
        &keys(signer),
        &Invitation {
            mesh: MESH,
            key: keys(one_time).key(),
            name: name.into(),
            signer: false,
            expires_ms: NOW + 1_000,
        },
    )
}

pub(crate) fn join(joiner: u8, invitation: Signed, one_time: u8) -> Signed {
    let proof = keys(one_time).sign(&invitation_proof(&MESH, &keys(joiner).key()));
    let request = JoinRequest { mesh: MESH, invitation, proof, machine_id: [joiner; 32], store_id: [joiner; 16] };
    Signed::seal(&keys(joiner), &request)
}

#[test]
fn an_invitation_lets_one_host_in_once() {
    let mut roster = Roster::found(keys(1).key(), &genesis());
    let token = invitation(1, 50, "b");
    assert_eq!(roster.enrol(MESH, &join(2, token.clone(), 50), NOW), Ok(keys(2).key()));
    let before = roster.clone();
    assert_eq!(roster.enrol(MESH, &join(2, token.clone(), 50), NOW + 5_000), Ok(keys(2).key()), "a retry is harmless");
    assert_eq!(roster.enrol(MESH, &join(3, token, 50), NOW), Err(RosterError::Used));
    assert_eq!(roster, before);
    assert_eq!(roster.find("b"), Some(keys(2).key()));
    assert_eq!(roster.find(&keys(2).key().to_string()), Some(keys(2).key()));
    assert_eq!(roster.find(""), None);
}

#[test]
fn a_bad_invitation_changes_nothing() {
    let mut roster = Roster::found(keys(1).key(), &genesis());
    let before = roster.clone();
    let good = invitation(1, 50, "b");
    let mut cases = vec![
        (join(2, invitation(2, 50, "b"), 50), NOW, RosterError::NotSigner),
        (join(2, good.clone(), 51), NOW, RosterError::Invalid),
        (join(2, good.clone(), 50), NOW + 1_000, RosterError::Expired),
        (join(2, invitation(1, 50, "a"), 50), NOW, RosterError::NameTaken),
        (join(2, invitation(1, 50, "-x"), 50), NOW, RosterError::BadName),
        (join(1, good.clone(), 50), NOW, RosterError::AlreadyMember),
    ];
    let mut forged = join(2, good, 50);
    forged.by = keys(3).key();
    cases.push((forged, NOW, RosterError::Invalid));
    for (request, now, expected) in cases {
        assert_eq!(roster.enrol(MESH, &request, now), Err(expected));
        assert_eq!(roster, before);
    }
    let other = MeshId([8; 32]);
    assert_eq!(roster.enrol(other, &join(2, invitation(1, 50, "b"), 50), NOW), Err(RosterError::WrongMesh));
}

#[test]
fn revocation_and_the_last_signer() {
    let mut roster = Roster::found(keys(1).key(), &genesis());
    roster.enrol(MESH, &join(2, invitation(1, 50, "b"), 50), NOW).unwrap();
    assert_eq!(roster.revoke(keys(2).key(), keys(1).key(), false, "", NOW), Err(RosterError::NotSigner));
    assert_eq!(roster.revoke(keys(1).key(), keys(1).key(), false, "", NOW), Err(RosterError::LastSigner));
    roster.revoke(keys(1).key(), keys(2).key(), true, "gone", NOW).unwrap();
    assert_eq!(roster.enrol(MESH, &join(2, invitation(1, 51, "b"), 51), NOW), Err(RosterError::Banned));
    // Evicted, not banned: may be invited again.
    roster.enrol(MESH, &join(3, invitation(1, 52, "c"), 52), NOW).unwrap();
    roster.revoke(keys(3).key(), keys(3).key(), false, "left", NOW).unwrap();
    assert_eq!(roster.enrol(MESH, &join(3, invitation(1, 52, "c"), 52), NOW), Err(RosterError::Used));
    assert!(roster.enrol(MESH, &join(3, invitation(1, 53, "c"), 53), NOW).is_ok());
}

fn set(of: &[u8]) -> BTreeSet<PeerKey> {
    of.iter().map(|n| keys(*n).key()).collect()
}
fn change(chain: &VoterChain, voters: &[u8], signers: &[u8]) -> VoterChange {
    let body = chain.next(&set(voters));
    let signatures = signers.iter().map(|n| Cosignature::new(&keys(*n), &body)).collect();
    VoterChange { body, signatures }
}

#[test]
fn voter_sets_chain_from_the_genesis() {
    let mut chain = VoterChain::found(MESH, keys(1).key());
    chain.advance(change(&chain, &[1, 2, 3], &[1]), |_| true).unwrap();
    // One of three, the same one twice, or outsiders: no majority.
    for signers in [&[1u8][..], &[1, 1], &[1, 7, 8], &[]] {
        let refused = chain.advance(change(&chain, &[1, 2, 4], signers), |_| true);
        assert!(matches!(refused, Err(VoterError::NoMajority { needed: 2, .. })), "{signers:?}: {refused:?}");
    }
    let old = change(&chain, &[1, 2, 4], &[1, 2]);
    chain.advance(old.clone(), |_| true).unwrap();
    assert!(matches!(chain.advance(old, |_| true), Err(VoterError::NotNext { .. })), "no replay");
    assert_eq!(chain.advance(change(&chain, &[1, 2], &[1, 2]), |_| true), Err(VoterError::BadSet), "even");
    assert_eq!(chain.advance(change(&chain, &[5], &[1, 2]), |k| *k == keys(1).key()), Err(VoterError::BadSet));
    assert_eq!(chain.epoch(), 2);
    assert_eq!(chain.verify(), Ok(()));
    let mut bent = chain.clone();
    bent.voters.insert(keys(9).key());
    assert!(bent.verify().is_err());
    let mut bent = chain.clone();
    bent.changes[1].signatures.pop();
    assert!(bent.verify().is_err());
}

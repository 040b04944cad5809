use super::super::tests::{MESH, NOW, genesis, join, keys};
use super::*;
use crate::wire::Signed;

/// Hosts 1 (`a`, a signer), 2 (`b`), 3 (`c`, a signer).
fn roster() -> Roster {
    let mut roster = Roster::found(keys(1).key(), &genesis());
    for (host, name, signer) in [(2, "b", false), (3, "c", true)] {
        let body =
            Invitation { mesh: MESH, key: keys(host + 50).key(), name: name.into(), signer, expires_ms: NOW + 1_000 };
        roster.enrol(MESH, &join(host, Signed::seal(&keys(1), &body), host + 50), NOW).unwrap();
    }
    roster
}

fn successor(by: u8, one_time: u8, change: impl FnOnce(&mut Invitation)) -> Signed {
    let mut body =
        Invitation { mesh: MESH, key: keys(one_time).key(), name: "b".into(), signer: false, expires_ms: NOW + 5_000 };
    change(&mut body);
    Signed::seal(&keys(by), &body)
}

fn replace(roster: &mut Roster, by: u8, of: u8, invitation: &Signed, now: u64) -> Result<(), RosterError> {
    roster.replace(MESH, keys(by).key(), keys(of).key(), invitation, "burnt", now)
}

#[test]
fn a_name_moves_and_nothing_else() {
    let mut roster = roster();
    let before = roster.member(&keys(2).key()).unwrap().clone();
    assert_eq!(roster.rename(keys(1).key(), keys(2).key(), "builder", NOW), Ok(()));
    let after = roster.member(&keys(2).key()).unwrap().clone();
    assert_eq!(after, crate::roster::Member { name: "builder".into(), ..before });
    assert_eq!((roster.find("builder"), roster.find("b")), (Some(keys(2).key()), None));
    assert_eq!(roster.rename(keys(1).key(), keys(2).key(), "builder", NOW), Ok(()), "again is harmless");
    // The old name is free, the new one taken, for invitations as well.
    assert_eq!(roster.rename(keys(1).key(), keys(3).key(), "builder", NOW), Err(RosterError::NameTaken));
    let of = |name: &str| successor(1, 60, |i| i.name = name.into());
    assert_eq!(roster.enrol(MESH, &join(4, of("builder"), 60), NOW), Err(RosterError::NameTaken));
    assert_eq!(roster.enrol(MESH, &join(4, of("b"), 60), NOW), Ok(keys(4).key()));
}

#[test]
fn only_a_signer_renames_and_only_to_a_name_that_is_free() {
    let mut roster = roster();
    let before = roster.clone();
    for (by, of, name, error) in [
        (2, 2, "x", RosterError::NotSigner), // not even itself
        (9, 2, "x", RosterError::NotSigner),
        (1, 9, "x", RosterError::Unknown),
        (1, 2, "c", RosterError::NameTaken),
        (1, 2, "", RosterError::BadName),
        (1, 2, "b.example", RosterError::BadName),
    ] {
        assert_eq!(roster.rename(keys(by).key(), keys(of).key(), name, NOW), Err(error), "{by} {of} {name}");
    }
    assert_eq!(roster, before);
    // Looking at names only, as a naive check does, would give a name away that waits for a successor.
    let token = successor(1, 60, |_| {});
    replace(&mut roster, 1, 2, &token, NOW).unwrap();
    assert_eq!(roster.find("b"), None);
    assert_eq!(roster.rename(keys(1).key(), keys(3).key(), "b", NOW), Err(RosterError::NameKept));
    assert_eq!(roster.rename(keys(1).key(), keys(3).key(), "b", NOW + 5_000), Ok(()), "once it has ended");
}

#[test]
fn a_successor_takes_the_place_and_nobody_else() {
    let mut roster = roster();
    let token = successor(1, 60, |_| {});
    assert_eq!(replace(&mut roster, 1, 2, &token, NOW), Ok(()));
    assert_eq!(roster.revoked(&keys(2).key()).map(|r| (r.banned, r.reason.as_str())), Some((false, "burnt")));
    assert!(roster.is_replaced(&keys(1).key(), &keys(2).key(), &token));
    assert!(!roster.is_replaced(&keys(3).key(), &keys(2).key(), &token), "another's entry is another's");
    assert_eq!(roster.heirs(NOW).map(|(_, heir)| heir.name.as_str()).collect::<Vec<_>>(), ["b"]);
    let other = successor(1, 61, |_| {});
    assert_eq!(roster.enrol(MESH, &join(5, other.clone(), 61), NOW), Err(RosterError::NameKept));
    assert_eq!(roster.enrol(MESH, &join(4, token.clone(), 60), NOW), Ok(keys(4).key()));
    assert_eq!(roster.heirs(NOW).count(), 0, "he has come");
    assert!(roster.is_replaced(&keys(1).key(), &keys(2).key(), &token), "still so, when asked late");
    assert_eq!(roster.enrol(MESH, &join(5, token, 60), NOW), Err(RosterError::Used));
    assert_eq!(roster.enrol(MESH, &join(5, other, 61), NOW), Err(RosterError::NameTaken));
}

#[test]
fn a_successor_that_does_not_come_in_time_loses_the_place() {
    let mut roster = roster();
    let token = successor(1, 60, |_| {});
    replace(&mut roster, 1, 2, &token, NOW).unwrap();
    assert_eq!(roster.enrol(MESH, &join(4, token, 60), NOW + 5_000), Err(RosterError::Expired));
    let other = successor(1, 61, |i| i.expires_ms = NOW + 9_000);
    assert_eq!(roster.enrol(MESH, &join(5, other, 61), NOW + 5_000), Ok(keys(5).key()));
}

#[test]
fn a_replacement_that_is_not_right_changes_nothing() {
    let mut roster = roster();
    let before = roster.clone();
    let good = successor(1, 60, |_| {});
    for (what, by, of, invitation, error) in [
        ("no signer", 2, 2, successor(2, 60, |_| {}), RosterError::NotSigner),
        ("nobody", 1, 9, good.clone(), RosterError::Unknown),
        ("itself", 3, 3, successor(3, 60, |i| (i.name, i.signer) = ("c".into(), true)), RosterError::Itself),
        ("another's invitation", 3, 2, good.clone(), RosterError::Invalid),
        ("another mesh", 1, 2, successor(1, 60, |i| i.mesh = MeshId([8; 32])), RosterError::WrongMesh),
        ("another name", 1, 2, successor(1, 60, |i| i.name = "x".into()), RosterError::NoSuccessor),
        ("more powers", 1, 2, successor(1, 60, |i| i.signer = true), RosterError::NoSuccessor),
        ("ended", 1, 2, successor(1, 60, |i| i.expires_ms = NOW), RosterError::Expired),
        ("too long", 1, 2, successor(1, 60, |i| i.expires_ms = NOW + INVITATION_MS_MAX + 1), RosterError::Expired),
        ("a used key", 1, 2, successor(1, 52, |_| {}), RosterError::Invalid),
    ] {
        assert_eq!(replace(&mut roster, by, of, &invitation, NOW), Err(error), "{what}");
    }
    let mut forged = good;
    forged.sig[0] ^= 1;
    assert_eq!(replace(&mut roster, 1, 2, &forged, NOW), Err(RosterError::Invalid));
    assert_eq!(roster, before);
}

#[test]
fn the_last_signer_has_no_successor() {
    let mut roster = roster();
    let token = successor(3, 60, |i| (i.name, i.signer) = ("a".into(), true));
    assert_eq!(replace(&mut roster.clone(), 3, 1, &token, NOW), Ok(()), "of two signers one can be replaced");
    roster.revoke(keys(1).key(), keys(3).key(), false, "sold", NOW).unwrap();
    let own = successor(1, 61, |i| (i.name, i.signer) = ("a".into(), true));
    assert_eq!(replace(&mut roster, 1, 1, &own, NOW), Err(RosterError::LastSigner));
}

//! A target that was away, and what it lets itself be told.

use super::tests::*;
use super::*;
use crate::ledger::tests::{World, join, keys};
use crate::ledger::{Command, Enrol, Entry, Link, Replace, RequestId, Revoke};
use crate::mutants::{Mutant, with};
use crate::roster::Invitation;

fn introduce(world: &World, join: &Signed, vouchers: &[u8]) -> Introduction {
    let vouch = |n: &u8| Introduction::vouch(&keys(*n), &world.ledger, join).expect("redeemed");
    Introduction { join: join.clone(), vouchers: vouchers.iter().map(vouch).collect() }
}

fn expulsion(world: &World, by: u8, peer: u8) -> Signed {
    let revoke = Revoke { peer: keys(peer).key(), banned: true, reason: "stolen".into() };
    Entry::seal(&keys(by), world.ledger.mesh(), RequestId([1; 16]), None, Command::Revoke(revoke))
}

#[test]
fn a_target_that_is_behind_follows_the_voters() {
    let mut world = world();
    let behind = Known::of(&world.ledger);
    voters(&mut world, &[2, 3, 5], &[1, 2]);
    voters(&mut world, &[3, 5, 1], &[2, 3]);
    let mut scene = Scene { known: behind, cosigners: vec![1, 3, 5], ..Scene::new(&world.ledger) };
    assert_eq!(scene.open().1.epoch, 1, "the hello says what it lacks");
    assert!(matches!(scene.play(), Err(Refusal::NotVoter(_))));
    let changes = world.ledger.voters().changes().to_vec();
    scene.links = changes.iter().cloned().map(Frame::Voters).collect();
    let _ = permit(scene.play()); // what it knows already is passed over
    scene.links.remove(1);
    let missing = Refusal::Link(LinkError::Voters(crate::roster::VoterError::NotNext { have: 1, got: 3 }));
    assert_eq!(scene.play().unwrap_err(), missing);
    // A leader that lies about who votes.
    let mut forged = changes[1].clone();
    forged.signatures.truncate(1);
    scene.links = vec![Frame::Voters(forged)];
    assert!(matches!(scene.play(), Err(Refusal::Link(LinkError::Voters(_)))));
    let naive = with(Some(Mutant::VoterSetsUnchecked), || {
        scene.open().0.receive(&scene.links[0].write(), &scene.guard, crate::time::Time::from_millis(50_000)).is_ok()
    });
    assert!(naive);
}

#[test]
fn links_do_not_make_a_roster_younger() {
    let mut world = world();
    let behind = Known::of(&world.ledger);
    voters(&mut world, &[2, 3, 5], &[1, 2]);
    let links = world.ledger.voters().changes().iter().cloned().map(Frame::Voters).collect();
    let mut scene = Scene { known: behind, cosigners: vec![2, 3, 5], author: 2, links, ..Scene::new(&world.ledger) };
    scene.order.fence = fence(2);
    let _ = permit(scene.play());
    scene.host.wall_ms += crate::limits::ROSTER_MS_MAX + 20;
    assert!(matches!(scene.play(), Err(Refusal::OldRoster { .. })));
}

#[test]
fn a_signer_is_introduced_by_a_signer_and_the_voters() {
    let mut world = world();
    let behind = Known::of(&world.ledger);
    let joined = join(&world, 1, 6, true);
    let enrolled = world.send(1, Command::Enrol(Enrol { join: joined.clone() }));
    assert!(enrolled.is_ok(), "{enrolled:?}");
    let mut scene = Scene { known: behind, author: 6, cosigners: vec![6], ..Scene::by_hand(&world.ledger) };
    assert_eq!(scene.play().unwrap_err(), Refusal::NotSigner(keys(6).key()));
    scene.links = vec![Frame::Introduction(introduce(&world, &joined, &[2, 3]))];
    let _ = permit(scene.play());

    let learn = |introduction: &Introduction| scene.known.clone().introduce(introduction);
    // An invitation that leaked and was never redeemed; or one voter's word, or one voter's twice.
    let unvouched = |valid| Err(LinkError::Unvouched { valid, needed: 2 });
    for (vouchers, valid) in [(&[][..], 0), (&[2], 1), (&[2, 2], 1), (&[2, 5], 1)] {
        let introduction = introduce(&world, &joined, vouchers);
        assert_eq!(learn(&introduction), unvouched(valid));
        assert_eq!(with(Some(Mutant::LinkUnvouched), || learn(&introduction)), Ok(()));
    }
    // Vouched for another's joining.
    let other = join(&world, 1, 7, true);
    let borrowed = Introduction { join: other.clone(), ..introduce(&world, &joined, &[2, 3]) };
    assert_eq!(learn(&borrowed), unvouched(0));
    assert_eq!(Introduction::vouch(&keys(2), &world.ledger, &other), None, "not redeemed");
    // Invited by somebody who may not, or not as a signer.
    let by_two = join(&world, 2, 7, true);
    let vouched = |join: &Signed| Introduction {
        join: join.clone(),
        vouchers: [2, 3]
            .map(|n| Cosignature {
                by: keys(n).key(),
                sig: keys(n).sign(&Introduction::message(&world.ledger.mesh(), join)),
            })
            .into(),
    };
    assert_eq!(learn(&vouched(&by_two)), Err(LinkError::NotSigner(keys(2).key())));
    assert_eq!(with(Some(Mutant::LinkInviterUnchecked), || learn(&vouched(&by_two))), Ok(()));
    assert_eq!(learn(&vouched(&join(&world, 1, 7, false))), Err(LinkError::NotOurs));
    let forged = Signed { by: keys(8).key(), ..other };
    assert!(matches!(learn(&vouched(&forged)), Err(LinkError::Wire(_))));
}

#[test]
fn an_expulsion_counts_by_a_signer_or_by_oneself() {
    let mut world = world();
    let joined = join(&world, 1, 6, true);
    assert!(world.send(1, Command::Enrol(Enrol { join: joined })).is_ok());
    let mut scene = Scene { author: 6, cosigners: vec![6], ..Scene::by_hand(&world.ledger) };
    let _ = permit(scene.play());
    for by in [1, 6] {
        scene.links = vec![Frame::Expulsion(expulsion(&world, by, 6))];
        assert_eq!(scene.play().unwrap_err(), Refusal::Revoked(keys(6).key()));
    }
    let learn = |entry: &Signed| scene.known.clone().expel(entry);
    let by_two = expulsion(&world, 2, 6);
    assert_eq!(learn(&by_two), Err(LinkError::NotSigner(keys(2).key())));
    assert_eq!(with(Some(Mutant::LinkExpelledByAnybody), || learn(&by_two)), Ok(()));
    let mut last = scene.known.clone();
    assert_eq!(last.expel(&expulsion(&world, 1, 6)), Ok(()));
    assert_eq!(last.expel(&expulsion(&world, 1, 1)), Err(LinkError::LastSigner));
    let other = Entry::seal(
        &keys(1),
        MeshId([0; 32]),
        RequestId([1; 16]),
        None,
        Command::Revoke(Revoke { peer: keys(6).key(), banned: false, reason: String::new() }),
    );
    assert_eq!(learn(&other), Err(LinkError::NotOurs));
}

/// What the ledger has kept is what a host that was away needs: its guard, which knows nothing newer, follows voters and
/// signers from the genesis on, and refuses the same warrant without them.
#[test]
fn what_the_ledger_keeps_carries_a_host_that_was_away() {
    let mut world = world();
    let behind = Known::load(&Known::of(&world.ledger).bytes(), world.ledger.mesh()).unwrap();
    let send = |world: &mut World, by, command| assert!(world.send(by, command).is_ok());
    for (inviter, host) in [(1, 6), (6, 7)] {
        let join = join(&world, inviter, host, true);
        send(&mut world, 1, Command::Enrol(Enrol { join }));
    }
    voters(&mut world, &[3, 5, 7], &[1, 2]);
    // Whoever let host 7 in was replaced since: its record is kept, and so is its end.
    let invitation = Invitation {
        mesh: world.ledger.mesh(),
        key: keys(200).key(),
        name: "s6".into(),
        signer: true,
        expires_ms: world.ledger.time_ms() + 60_000,
    };
    let (peer, invitation) = (keys(6).key(), Signed::seal(&keys(1), &invitation));
    send(&mut world, 1, Command::Replace(Replace { peer, invitation, reason: "burnt".into() }));

    let voters_chain = world.ledger.voters().changes().iter().cloned().map(Frame::Voters);
    let shown = world.ledger.links().for_signer(&keys(7).key()).into_iter().map(|link| match link {
        Link::Introduction(join) => Frame::Introduction(introduce(&world, &join, &[5, 7])),
        Link::Expulsion(entry) => Frame::Expulsion(entry),
    });
    let all: Vec<Frame> = voters_chain.chain(shown).collect();
    assert_eq!(all.len() - world.ledger.voters().changes().len(), 3);
    let mut scene = Scene { known: behind, author: 7, cosigners: vec![7], ..Scene::by_hand(&world.ledger) };
    assert_eq!(scene.play().unwrap_err(), Refusal::NotSigner(keys(7).key()), "nothing is carried along");
    scene.links = all.clone();
    let _ = permit(scene.play());
    // Each is needed, and one that is left out is missed.
    for without in 0..all.len() {
        scene.links = all.clone();
        let left_out = scene.links.remove(without);
        let needed = !matches!(left_out, Frame::Expulsion(_));
        let knew = |change| scene.known.voters().epoch_of(change).unwrap() <= scene.known.voters().epoch();
        let new = !matches!(&left_out, Frame::Voters(change) if knew(change));
        assert_eq!(scene.play().is_err(), needed && new, "{left_out:?}");
    }
    // Whoever is out orders nothing, though it was let in before; a host that is up to date passes all of it over.
    scene.links = all.clone();
    let mut told = scene.known.clone();
    for link in &all {
        match link {
            Frame::Voters(change) => told.follow_voters(change.clone()).unwrap(),
            Frame::Introduction(introduction) => told.introduce(introduction).unwrap(),
            Frame::Expulsion(entry) => told.expel(entry).unwrap(),
            other => panic!("{other:?}"),
        }
    }
    assert!(!told.is_signer(&keys(6).key()) && told.is_revoked(&keys(6).key()) && told.is_signer(&keys(7).key()));
    let Frame::Expulsion(end) = &all[all.len() - 1] else { panic!("{all:?}") };
    assert_eq!(told.clone().expel(end), Ok(()));
}

#[test]
fn a_roster_on_disk_is_this_meshs_or_nothing() {
    let world = world();
    let known = Known::of(&world.ledger);
    let mesh = world.ledger.mesh();
    assert_eq!(Known::load(&known.bytes(), mesh), Ok(known.clone()));
    assert_eq!(Known::load(&known.bytes(), MeshId([0; 32])), Err(KnownError::NotOurs));
    assert_eq!(Known::load(&known.bytes()[..100], mesh), Err(KnownError::Damaged));
    assert_eq!(Known::load(&vec![0; crate::limits::KNOWN_BYTES_MAX + 1], mesh), Err(KnownError::Damaged));
    // A chain that begins with somebody else, under this mesh's genesis.
    let mut usurped = crate::roster::VoterChain::found(mesh, keys(9).key());
    let body = usurped.next(&[keys(9).key()].into());
    let signatures = vec![Cosignature::new(&keys(9), &body)];
    usurped.advance(VoterChange { body, signatures }, |_| true).unwrap();
    let mut map: ciborium::Value = ciborium::from_reader(&known.bytes()[..]).unwrap();
    let ciborium::Value::Map(fields) = &mut map else { panic!("a map") };
    let voters = fields.iter_mut().find(|(key, _)| key.as_text() == Some("voters")).unwrap();
    voters.1 = ciborium::from_reader(&encode(&usurped)[..]).unwrap();
    assert_eq!(Known::load(&encode(&map), mesh), Err(KnownError::NotOurs));
}

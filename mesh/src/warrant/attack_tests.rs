//! Whoever lies to a target: each lie is refused with a reason of its own, by one check. A target without that check
//! acts, so the check is what keeps it; and no other mutant leaves it out.

use super::tests::*;
use super::*;
use crate::ledger::Batch;
use crate::ledger::tests::{World, keys};
use crate::mutants::{Mutant, with};
use crate::order::Gently;

struct Attack {
    what: &'static str,
    mutant: Mutant,
    scene: Scene,
    refusal: Refusal,
}

fn attack(
    what: &'static str,
    mutant: Mutant,
    refusal: Refusal,
    mut scene: Scene,
    lie: impl FnOnce(&mut Scene),
) -> Attack {
    lie(&mut scene);
    Attack { what, mutant, scene, refusal }
}

fn attacks(world: &World) -> Vec<Attack> {
    use Mutant::*;
    let good = || Scene::new(&world.ledger);
    let by_hand = || Scene::by_hand(&world.ledger);
    let restart = || {
        let mut scene = good();
        scene.order.act = Act::Restart(Gently { grace_ms: 0 });
        scene
    };
    let other_mesh = MeshId([3; 32]);
    let other = BootId([9; 16]);
    let key = |n: u8| keys(n).key();
    let later = |mut scene: Scene, term| {
        // Another leader's order was taken on under a later fence.
        let mut before = Scene::new(&world.ledger);
        before.order.id = OrderId([6; 16]);
        before.order.fence = fence(term);
        let bytes = permit(before.play()).bytes().to_vec();
        scene.guard = Guard::load(&bytes, world.ledger.mesh(), keys(TARGET).key()).unwrap();
        scene
    };
    let stale = Refusal::Stale { got: fence(1), highest: fence(2) };
    let named_other = Refusal::OtherBoot { named: other, present: BOOT };
    vec![
        attack("order of another mesh", WarrantOfOtherMesh, Refusal::OtherMesh, good(), |s| s.order.mesh = other_mesh),
        attack("approval of another mesh", WarrantOfOtherMesh, Refusal::OtherMesh, good(), |s| {
            s.approval = |a| a.mesh = MeshId([3; 32])
        }),
        attack("order for another host", WarrantForOther, Refusal::NotMe(key(5)), good(), |s| s.order.target = key(5)),
        attack("approval for another host", WarrantForOther, Refusal::NotMe(key(5)), good(), |s| {
            s.approval = |a| a.target = keys(5).key()
        }),
        attack("order for another boot", WarrantOfOtherBoot, named_other.clone(), good(), |s| s.order.boot = other),
        attack("approval for another boot", WarrantOfOtherBoot, named_other, good(), |s| {
            s.approval = |a| a.boot = BootId([9; 16])
        }),
        attack(
            "service restarted since the order",
            WarrantOfOtherStart,
            Refusal::OtherStart { named: 0, present: 1 },
            restart(),
            |s| s.order.start = 0,
        ),
        attack(
            "service restarted since the approval",
            WarrantOfOtherStart,
            Refusal::OtherStart { named: 0, present: 1 },
            restart(),
            |s| s.approval = |a| a.start = 0,
        ),
        attack("replayed signatures over an old nonce", WarrantNonceIgnored, Refusal::OtherNonce, good(), |s| {
            s.approval = |a| a.nonce = [8; 32]
        }),
        attack("replayed signatures of a signer", WarrantNonceIgnored, Refusal::OtherNonce, by_hand(), |s| {
            s.approval = |a| a.nonce = [8; 32]
        }),
        attack("signatures over another order", WarrantOfOtherOrder, Refusal::OtherOrder, good(), |s| {
            s.approval = |a| a.order = OrderHash([0; 32])
        }),
        attack("voters of another epoch", WarrantEpochIgnored, Refusal::OtherEpoch { have: 1, got: 0 }, good(), |s| {
            s.epoch = 0
        }),
        attack("kept back until it suits", WarrantLate, Refusal::Late { took_ms: 10_001 }, good(), |s| {
            s.took_ms = 10_001
        }),
        attack("expired", WarrantExpired, Refusal::Expired, good(), |s| s.order.expires_ms = s.known.as_of_ms()),
        attack("no reason", WarrantUnbounded, Refusal::Unbounded, good(), |s| s.order.reason.clear()),
        attack("nobody asked", WarrantUnbounded, Refusal::Unbounded, good(), |s| s.order.requester.clear()),
        attack("an endless grace", WarrantUnbounded, Refusal::Unbounded, good(), |s| {
            s.order.act = Act::Reboot(Gently { grace_ms: u64::MAX })
        }),
        attack("a protected host", WarrantVetoIgnored, Refusal::Protected, good(), |s| s.host.protected = true),
        attack("a protected host, by force", WarrantVetoIgnored, Refusal::Protected, by_hand(), |s| {
            s.host.protected = true;
            s.order.force = true;
        }),
        attack("a host that is not to be rebooted", WarrantRebootsAnybody, Refusal::RebootNotAllowed, by_hand(), |s| {
            s.host.allow_reboot = false;
            s.order.force = true;
        }),
        attack("an earlier leader", WarrantFenceIgnored, stale.clone(), later(good(), 2), |_| ()),
        attack("an earlier fence by hand", WarrantFenceIgnored, stale, later(by_hand(), 2), |_| ()),
        attack("a second order of one id", WarrantIdShared, Refusal::IdShared, later(good(), 1), |s| {
            s.order.id = OrderId([6; 16]);
            s.order.reason = "another".into();
        }),
        attack(
            "a leader without a majority",
            WarrantNoMajority,
            Refusal::NoMajority { valid: 2, needed: 3 },
            five(&[1, 2]),
            |_| (),
        ),
        attack("a leader and its target", WarrantTooFewOthers, Refusal::TooFewOthers { others: 1 }, good(), |s| {
            s.me = 3;
            s.order.target = key(3);
            s.guard = Guard::new(s.order.mesh, key(3));
            s.cosigners = vec![1, 3];
        }),
        attack("a voter that does not lead", WarrantLeaderUnchecked, Refusal::NotLeader(key(2)), good(), |s| {
            s.author = 2
        }),
        attack("an enrolled peer", WarrantLeaderUnchecked, Refusal::NotLeader(key(5)), good(), |s| {
            s.author = 5;
            s.cosigners = vec![1, 2, 5];
        }),
        attack(
            "a leader that has not signed for the nonce",
            WarrantAuthorAbsent,
            Refusal::AuthorAbsent(key(1)),
            good(),
            |s| s.cosigners = vec![2, 3],
        ),
        attack(
            "a signer that has not signed for the nonce",
            WarrantAuthorAbsent,
            Refusal::AuthorAbsent(key(1)),
            by_hand(),
            |s| s.cosigners = vec![2, 3],
        ),
        attack("a forged co-signature", WarrantCosignatureUnchecked, Refusal::BadCosignature(key(3)), good(), |s| {
            s.warrant = |w| w.cosignatures[2].sig[9] ^= 1
        }),
        attack(
            "a co-signature of another's hand",
            WarrantCosignatureUnchecked,
            Refusal::BadCosignature(key(3)),
            good(),
            |s| {
                s.cosigners = vec![1, 2, 5];
                s.warrant = |w| w.cosignatures[2].by = keys(3).key();
            },
        ),
        attack("one voter twice", WarrantCosignerTwice, Refusal::SignedTwice(key(1)), good(), |s| {
            s.cosigners = vec![1, 1]
        }),
        attack("a forged voter set", WarrantCosignerStranger, Refusal::NotVoter(key(5)), good(), |s| {
            s.cosigners = vec![1, 5]
        }),
        attack(
            "a leader of an old roster",
            WarrantOldRoster,
            Refusal::OldRoster { age_ms: crate::limits::ROSTER_MS_MAX + 1 },
            good(),
            |s| {
                s.host.wall_ms += crate::limits::ROSTER_MS_MAX + 1;
            },
        ),
        attack("a clock that was put back", WarrantOldRoster, Refusal::OldRoster { age_ms: u64::MAX }, future(), |s| {
            s.host.wall_ms -= 60_001
        }),
        attack("a leader's force", WarrantForceByLeader, Refusal::ForceByLeader, good(), |s| s.order.force = true),
        attack("a person who may not", WarrantSignerUnchecked, Refusal::NotSigner(key(2)), by_hand(), |s| {
            s.author = 2;
            s.cosigners = vec![2];
        }),
        attack("an evicted voter's signature", WarrantRevokedSigns, Refusal::Revoked(key(3)), evicted(), |_| ()),
    ]
}

/// Five voters, the given ones sign.
fn five(cosigners: &[u8]) -> Scene {
    let mut world = World::new(6);
    voters(&mut world, &[1, 2, 3], &[1]);
    voters(&mut world, &[1, 2, 3, 5, 6], &[1, 2]);
    Scene { cosigners: cosigners.to_vec(), ..Scene::new(&world.ledger) }
}

/// A ledger of some age, so that a clock can be behind it.
fn future() -> Scene {
    let mut world = world();
    let later = Batch { time_ms: world.ledger.time_ms() + 100_000, entries: vec![] };
    world.ledger.apply(1_000, 1, &encode(&later));
    Scene::new(&world.ledger)
}

/// Host 3 was evicted and still is a voter of the last set.
fn evicted() -> Scene {
    let mut world = world();
    evict(&mut world, 3);
    Scene::new(&world.ledger)
}

#[test]
fn every_lie_is_refused_for_its_own_reason_by_its_own_check() {
    let world = world();
    let _ = permit(Scene::new(&world.ledger).play());
    let attacks = attacks(&world);
    for Attack { what, mutant, scene, refusal } in &attacks {
        let refused = scene.play().expect_err(what);
        assert_eq!(refused, *refusal, "{what}");
        assert!(refused.to_string().len() > 10, "{what}: in words");
        assert!(with(Some(*mutant), || scene.play().is_ok()), "{what}: {mutant} changes nothing");
        // Who takes an address for an identity has no use for these three, and keeps all others.
        let identity = [Mutant::WarrantForOther, Mutant::WarrantOfOtherBoot, Mutant::WarrantOfOtherStart];
        for other in Mutant::ALL.iter().filter(|other| *other != mutant) {
            let taken = with(Some(*other), || scene.play().is_ok());
            let by_address = *other == Mutant::IdentityByAddress && identity.contains(mutant);
            assert_eq!(taken, by_address, "{what}: with {other}");
        }
    }
}

#[test]
fn an_order_taken_on_is_not_carried_out_again() {
    let world = world();
    let mut scene = Scene::new(&world.ledger);
    let bytes = permit(scene.play()).bytes().to_vec();
    scene.guard = Guard::load(&bytes, world.ledger.mesh(), keys(TARGET).key()).unwrap();
    let acts = || matches!(scene.play(), Ok(Step::Permit(_)));
    assert!(!acts());
    assert!(with(Some(Mutant::WarrantAgain), acts));
}

/// Voters of another mesh have no say here, whatever they sign.
#[test]
fn a_roster_of_another_mesh_is_none() {
    let scene = Scene::new(&world().ledger);
    let other = MeshId([3; 32]);
    let mixed = Scene { guard: Guard::new(other, keys(TARGET).key()), ..scene };
    let mut for_it = mixed.clone();
    for_it.order.mesh = other;
    for scene in [mixed, for_it] {
        assert_eq!(scene.play().unwrap_err(), Refusal::OtherMesh);
    }
}

/// A claimed term of u64::MAX locks nobody out: it is stored only when a majority has signed for it.
#[test]
fn a_claimed_fence_is_not_believed() {
    let world = world();
    let highest = |scene: &Scene| {
        let step = scene.play();
        let Ok(Step::Permit(permit)) = step else { return scene.guard.highest() };
        Guard::load(permit.bytes(), world.ledger.mesh(), keys(TARGET).key()).unwrap().highest()
    };
    let mut claims = vec![];
    for author in [1, 2, 5] {
        for cosigners in [vec![], vec![author], vec![author, author], vec![author, 6, 7]] {
            let mut scene = Scene { author, cosigners, ..Scene::new(&world.ledger) };
            scene.order.fence = fence(u64::MAX);
            claims.push(scene);
        }
    }
    for scene in &claims {
        assert!(scene.play().is_err());
        assert_eq!(highest(scene), Fence::default());
    }
    // A signer may order under any later fence, and still sets none.
    let mut by_hand = Scene::by_hand(&world.ledger);
    by_hand.order.fence = fence(u64::MAX);
    assert_eq!(highest(&by_hand), Fence::default());
    assert_eq!(with(Some(Mutant::WarrantFenceBelieved), || highest(&by_hand)), fence(u64::MAX));
}

#[test]
fn frames_that_only_a_target_sends_and_floods_are_refused() {
    let world = world();
    let scene = Scene::new(&world.ledger);
    let (mut hearing, _) = scene.open();
    let now = crate::time::Time::from_millis(50_000);
    let mut hear = |frame: &Frame| hearing.receive(&frame.write(), &scene.guard, now).err();
    for _ in 0..crate::limits::WARRANT_LINKS_MAX {
        assert_eq!(hear(&Frame::Refused("no".into())), Some(Refusal::Unexpected));
    }
    assert_eq!(hear(&Frame::Refused("no".into())), Some(Refusal::TooManyLinks));
    let large = Frame::Refused("x".repeat(WARRANT_FRAME_BYTES_MAX));
    assert!(matches!(hear(&large), Some(Refusal::Malformed(WireError::TooLarge { .. }))));
}

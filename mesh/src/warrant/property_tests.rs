//! Damage of any kind: no flipped bit, no cut, no foreign bytes make a target panic or act.

use super::tests::*;
use super::*;
use crate::ledger::tests::keys;
use crate::time::Time;
use proptest::prelude::*;

fn heard(scene: &Scene, bytes: &[u8]) -> Result<Step, Refusal> {
    let (mut hearing, _) = scene.open();
    hearing.receive(bytes, &scene.guard, Time::from_millis(50_001))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn damage_is_refused(at in any::<prop::sample::Index>(), bit in 0u8..8, cut in any::<bool>(), by_hand in any::<bool>()) {
        let world = world();
        let scene = if by_hand { Scene::by_hand(&world.ledger) } else { Scene::new(&world.ledger) };
        let (_, hello) = scene.open();
        let mut bytes = Frame::Warrant(scene.warrant(&hello)).write();
        prop_assert!(matches!(heard(&scene, &bytes), Ok(Step::Permit(_))));
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
        prop_assert!(heard(&scene, &bytes).is_err(), "byte {at}");
    }

    #[test]
    fn noise_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let world = world();
        let scene = Scene::new(&world.ledger);
        prop_assert!(heard(&scene, &bytes).is_err());
        prop_assert!(Guard::load(&bytes, world.ledger.mesh(), keys(TARGET).key()).is_err());
        prop_assert!(Known::load(&bytes, world.ledger.mesh()).is_err());
        let _ = Notes::load(&bytes);
    }

    /// Whoever signs: only with the leader among them, a majority, and two others.
    #[test]
    fn only_enough_signatures_count(signers in prop::collection::btree_set(1u8..7, 0..6), target in 2u8..5) {
        let world = world();
        let mut scene = Scene { me: target, cosigners: signers.iter().copied().collect(), ..Scene::new(&world.ledger) };
        scene.order.target = keys(target).key();
        scene.guard = Guard::new(world.ledger.mesh(), keys(target).key());
        let strangers = signers.iter().any(|n| *n > 3);
        let others = signers.iter().filter(|n| **n != target).count();
        let enough = !strangers && signers.contains(&1) && signers.len() >= 2 && others >= 2;
        prop_assert_eq!(scene.play().is_ok(), enough);
    }

    /// The highest fence never goes down, whatever comes in whatever order, and an order is carried out once.
    #[test]
    fn fences_rise_and_deeds_are_single(steps in prop::collection::vec((1u64..6, 0u8..4, any::<bool>()), 1..30)) {
        let world = world();
        let mut scene = Scene::new(&world.ledger);
        let mut done = std::collections::BTreeSet::new();
        for (term, id, by_hand) in steps {
            let base = if by_hand { Scene::by_hand(&world.ledger) } else { Scene::new(&world.ledger) };
            scene = Scene { guard: scene.guard.clone(), ..base };
            scene.order.id = OrderId([id; 16]);
            scene.order.fence = fence(term);
            let before = scene.guard.highest();
            match scene.play() {
                Ok(Step::Permit(unstored)) => {
                    prop_assert!(done.insert(id), "carried out twice");
                    prop_assert!(fence(term) >= before);
                    scene.guard = Guard::load(unstored.bytes(), world.ledger.mesh(), keys(TARGET).key()).unwrap();
                }
                Ok(Step::Again(_)) => prop_assert!(done.contains(&id)),
                Ok(Step::More) => prop_assert!(false),
                Err(_) => {}
            }
            prop_assert!(scene.guard.highest() >= before);
        }
    }
}

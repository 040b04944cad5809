//! A lost mesh goes on from its heir's ledger, and nobody else's word counts.

use super::super::tests::{World, keys, spec};
use super::super::{AttemptState, Command, State, Submit};
use super::*;
use crate::identity::Keys;
use crate::lease::Fence;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// The recovery key of [`World`].
fn recovery_key() -> Keys {
    keys(99)
}

fn draft(ledger: &Ledger, heir: u8, survivors: &[u8]) -> Recovery {
    let survivors: BTreeSet<_> = survivors.iter().map(|n| keys(*n).key()).collect();
    ledger.voters().draft(keys(heir).key(), &survivors, (ledger.index(), ledger.head()), true).unwrap()
}

/// Goes on as the heir's consensus would: the next term, under the new epoch.
fn go_on(world: &mut World, change: &VoterChange, heir: u8) {
    world.ledger = world.ledger.recover(change).unwrap();
    world.epoch += 1;
    world.term += 1;
    assert!(world.lead(heir).is_ok());
}

#[test]
fn builds_survive_and_the_lost_voters_are_stale() {
    let mut world = World::new(4);
    world.vote(&[1, 2, 3], &[1]);
    let builds = world.submit(vec![spec("a", &[]), spec("b", &["a"])]);
    assert!(world.assign(builds[0], 1, 1).is_ok());
    let (before, old_fence) = (world.ledger.clone(), Fence { epoch: 0, term: world.term });

    // 1 and 2 are lost, 1 the only signer; 4 never voted, and its log is the longest.
    let change = draft(&world.ledger, 4, &[3, 4]).seal(&recovery_key());
    go_on(&mut world, &change, 4);
    assert_eq!(world.ledger.recovery_epoch(), 1);
    assert_eq!(world.ledger.voters().voters().len(), 1);
    assert!(world.ledger.roster().member(&keys(4).key()).unwrap().signer, "somebody has to be");
    assert_ne!(world.ledger.head(), before.head());
    assert_eq!(world.ledger.builds().get(builds[0]).unwrap().state, State::Running);
    assert_eq!(world.ledger.builds().get(builds[1]).unwrap().state, State::Waiting);
    assert!(world.ledger.leader().unwrap().1 > old_fence);
    let lost = super::super::Lost { build: builds[0], attempt: crate::build::Attempt(1), reason: "down".into() };
    assert!(world.send(4, Command::Lose(super::super::Lose { attempts: vec![lost] })).is_ok());
    assert!(matches!(world.ledger.builds().get(builds[0]).unwrap().attempts[0].state, AttemptState::Lost(_)));
    assert!(world.send(4, Command::Submit(Submit { specs: vec![spec("c", &[])] })).is_ok());

    // A snapshot of it is taken by whoever knows the genesis; one whose epoch was bent is not.
    let restored = before.restore(&world.ledger.snapshot()).unwrap();
    assert_eq!(restored.voters(), world.ledger.voters());
    let bent = Ledger { recovery_epoch: 0, ..world.ledger.clone() };
    assert!(before.restore(&bent.snapshot()).is_err());
}

#[test]
fn a_signer_that_survives_keeps_the_heir_from_becoming_one() {
    let world = World::new(3);
    let after = world.ledger.recover(&draft(&world.ledger, 2, &[1, 2]).seal(&recovery_key())).unwrap();
    assert!(!after.roster().member(&keys(2).key()).unwrap().signer);
}

#[test]
fn another_log_key_or_way_is_refused() {
    let mut world = World::new(3);
    let record = draft(&world.ledger, 2, &[2]);
    assert!(world.ledger.recover(&record.seal(&keys(1))).is_err(), "the first host's key is not the recovery key");
    let in_the_log = world.send(1, Command::Voters(record.seal(&recovery_key())));
    assert_eq!(in_the_log.code, Code::Forbidden, "it is no entry");
    let other = world.ledger.recover(&record.seal(&recovery_key()));
    assert!(matches!(other, Err(RecoverError::OtherLog { .. })), "the log has grown since: {other:?}");
    let stranger = Recovery { heir: keys(9).key(), survivors: vec![keys(9).key()], ..draft(&world.ledger, 2, &[2]) };
    assert!(world.ledger.recover(&stranger.seal(&recovery_key())).is_err());
}

#[test]
fn two_records_of_one_epoch_are_a_dispute_until_a_third() {
    let mut world = World::new(4);
    world.vote(&[1, 2, 3], &[1]);
    let (ours, theirs) = (draft(&world.ledger, 3, &[3]), draft(&world.ledger, 4, &[4]));
    let theirs = theirs.seal(&recovery_key());
    assert_eq!(world.ledger.contends(&theirs), Ok(false), "here nothing was recovered yet");
    assert!(!world.send(2, Command::Dispute(theirs.clone())).is_ok());
    // Drafted again: the refused entry has made the log longer.
    let ours = Recovery { index: world.ledger.index(), head: world.ledger.head(), ..ours }.seal(&recovery_key());
    go_on(&mut world, &ours, 3);
    assert!(!world.send(2, Command::Dispute(ours)).is_ok(), "its own record contends with nothing");
    let forged = Recovery::of(&theirs).unwrap().seal(&keys(4));
    assert!(!world.send(2, Command::Dispute(forged)).is_ok());
    assert!(!world.ledger.disputed());
    assert!(world.send(2, Command::Dispute(theirs.clone())).is_ok());
    assert!(world.ledger.disputed());
    let kept = world.ledger.restore(&world.ledger.snapshot()).unwrap();
    assert!(kept.disputed());

    let third = draft(&world.ledger, 3, &[3]).seal(&recovery_key());
    go_on(&mut world, &third, 3);
    assert!(!world.ledger.disputed(), "settled");
    assert!(!world.send(2, Command::Dispute(theirs)).is_ok(), "old news");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the lost mesh had come to, terms and all: every fence of the recovered one is above every fence of it,
    /// so that nobody who has seen one of the new acts on one of the old.
    #[test]
    fn a_recovered_fence_is_above_every_old_one(terms in 0u64..50, lost_terms in 0u64..1_000, again in 0u8..3) {
        for mutant in [None, Some(Mutant::RecoveryKeepsEpoch)] {
            let above = mutants::with(mutant, || {
                let mut world = World::new(3);
                world.term += terms;
                world.lead(1);
                // What the lost majority led on to, unseen by the heir.
                let mut old = Fence { epoch: 0, term: world.term + lost_terms };
                let mut all = true;
                for _ in 0..=again {
                    let change = draft(&world.ledger, 2, &[2]).seal(&recovery_key());
                    world.ledger = world.ledger.recover(&change).unwrap();
                    world.epoch = world.ledger.recovery_epoch();
                    world.term += 1;
                    all &= world.lead(2).is_ok() && world.ledger.leader().is_some_and(|(_, fence)| fence > old);
                    old = Fence { epoch: world.epoch, term: world.term + lost_terms };
                }
                all
            });
            prop_assert!(above == mutant.is_none() || lost_terms == 0);
        }
    }
}

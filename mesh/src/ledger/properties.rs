//! Random histories: two ledgers that apply the same batches are equal, and no history breaks the rules
//! of a build's life.

use super::tests::*;
use super::*;
use crate::build::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// One step of a history, small enough to collide with others.
#[derive(Clone, Debug)]
enum Step {
    Submit { needs_previous: bool, confirm: u8, retries: u32 },
    Assign { build: u64, attempt: u32, host: u8 },
    End { build: u64, attempt: u32, host: u8, manifest: u8, fails: bool, holders: [u8; 2] },
    Lose { build: u64, attempt: u32 },
    Cancel { build: u64 },
    Retry { build: u64 },
    NewTerm { leader: u8 },
    Evict { host: u8 },
    Snapshot,
}

fn step() -> impl Strategy<Value = Step> {
    let (build, attempt, host) = (1u64..8, 1u32..4, 1u8..5);
    prop_oneof![
        3 => (any::<bool>(), 1u8..3, 0u32..3)
            .prop_map(|(needs_previous, confirm, retries)| Step::Submit { needs_previous, confirm, retries }),
        8 => (build.clone(), attempt.clone(), host.clone())
            .prop_map(|(build, attempt, host)| Step::Assign { build, attempt, host }),
        8 => (build.clone(), attempt.clone(), host.clone(), 1u8..3, any::<bool>(), any::<[u8; 2]>()).prop_map(
            |(build, attempt, host, manifest, fails, holders)| {
                Step::End { build, attempt, host, manifest, fails, holders: holders.map(|h| 1 + h % 4) }
            }
        ),
        2 => (build.clone(), attempt).prop_map(|(build, attempt)| Step::Lose { build, attempt }),
        1 => build.clone().prop_map(|build| Step::Cancel { build }),
        1 => build.prop_map(|build| Step::Retry { build }),
        1 => host.clone().prop_map(|leader| Step::NewTerm { leader }),
        1 => host.prop_map(|host| Step::Evict { host }),
        1 => Just(Step::Snapshot),
    ]
}

fn play(w: &mut World, step: &Step) {
    match step.clone() {
        Step::Submit { needs_previous, confirm, retries } => {
            let first = BuildSpec { confirm, retries, ..spec("x", &[]) };
            let second = if needs_previous { spec("y", &["x"]) } else { spec("y", &[]) };
            w.send(2, Command::Submit(Submit { specs: vec![first, second] }));
        }
        Step::Assign { build, attempt, host } => {
            w.assign(BuildId(build), attempt, host);
        }
        Step::End { build, attempt, host, manifest, fails, holders } => {
            let outcome = if fails { failed(Phase::Command) } else { done(Some(manifest)) };
            w.end_with(BuildId(build), attempt, host, outcome, &holders);
        }
        Step::Lose { build, attempt } => {
            let lost = Lost { build: BuildId(build), attempt: Attempt(attempt), reason: "down".into() };
            w.send(1, Command::Lose(Lose { attempts: vec![lost] }));
        }
        Step::Cancel { build } => {
            w.send(3, Command::Cancel(Cancel { builds: vec![BuildId(build)], reason: String::new() }));
        }
        Step::Retry { build } => {
            w.send(2, Command::Retry(Retry { build: BuildId(build) }));
        }
        Step::NewTerm { leader } => {
            w.term += 1;
            w.lead(leader);
        }
        Step::Evict { host } => {
            let revoke = Revoke { peer: keys(host).key(), banned: false, reason: String::new() };
            w.send(1, Command::Revoke(revoke));
        }
        Step::Snapshot => w.ledger = w.ledger.restore(&w.ledger.snapshot()).expect("its own snapshot"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn histories_keep_the_rules(steps in prop::collection::vec(step(), 1..60)) {
        let (mut w, mut twin) = (World::new(4), World::new(4));
        let mut ends: BTreeMap<BuildId, State> = BTreeMap::new();
        let mut time = 0;
        for step in &steps {
            play(&mut w, step);
            play(&mut twin, step);
            prop_assert!(w.ledger.time_ms() >= time, "ledger time went back");
            time = w.ledger.time_ms();
            for build in w.ledger.builds().iter() {
                // The terminal state is entered once.
                if let Some(end) = ends.get(&build.id) {
                    prop_assert_eq!(build.state, *end);
                }
                if build.state.is_final() {
                    ends.insert(build.id, build.state);
                    prop_assert_eq!(build.running().count(), 0);
                }
                // Never more attempts at once than wanted, never two on one host.
                let running: Vec<_> = build.running().map(|a| a.host).collect();
                prop_assert!(running.len() <= build.spec.confirm as usize);
                prop_assert!(running.windows(2).all(|pair| pair[0] != pair[1]));
                // Done means: enough successes, and each of them held by enough hosts that are members.
                if build.state == State::Done {
                    let good: Vec<_> =
                        build.attempts.iter().filter(|a| a.outcome().is_some_and(|o| o.end == End::Done)).collect();
                    prop_assert_eq!(good.len(), build.spec.confirm as usize);
                    for attempt in good {
                        let one = attempt.outcome().and_then(|o| o.manifest).is_none();
                        prop_assert!(one || attempt.holders.len() >= w.ledger.holders_needed().min(2));
                    }
                }
                // A build that waits has an unfinished need; one that may run has none.
                let open = build.needs.iter().any(|n| !w.ledger.builds().get(*n).is_some_and(|b| b.state.is_final()));
                prop_assert!(build.state.is_final() || (build.state == State::Waiting) == open);
            }
        }
        w.ledger.take_changes();
        twin.ledger.take_changes();
        prop_assert_eq!(&w.ledger, &twin.ledger);
        prop_assert_eq!(w.ledger.head(), twin.ledger.head());
    }
}

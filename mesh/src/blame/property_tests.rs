//! Whatever happened, a verdict rests on what did happen.

use super::tests::*;
use super::*;
use crate::ledger::tests::World;
use proptest::prelude::*;

fn phase() -> impl Strategy<Value = Option<Phase>> {
    prop_oneof![
        3 => Just(None),
        3 => Just(Some(Phase::Command)),
        1 => Just(Some(Phase::Fetch)),
        1 => Just(Some(Phase::Store)),
        1 => Just(Some(Phase::Upload)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn verdicts_rest_on_what_happened(
        tries in prop::collection::vec((0u8..6, 2u8..6, phase(), prop::bool::ANY), 1..60)
    ) {
        let mut world = World::new(6);
        for (package, host, phase, fast) in tries {
            tried_in(&mut world, &format!("p{package}"), &[(host, phase)], if fast { 10 } else { 60_000 });
        }
        let ledger = &world.ledger;
        let verdicts = judge(ledger, &Rules::default());
        prop_assert_eq!(&verdicts, &judge(ledger, &Rules::default()));
        let attempt = |e: &Evidence| {
            let build = ledger.builds().get(e.build).expect("a build");
            (build, build.attempts.iter().find(|a| a.number == e.attempt).expect("an attempt"))
        };
        let held: BTreeSet<&str> = verdicts.iter().filter_map(|v| match v {
            Verdict::Package { name, .. } => Some(name.as_str()),
            _ => None,
        }).collect();
        let frozen = verdicts.iter().any(|v| matches!(v, Verdict::Mesh { .. }));
        for verdict in &verdicts {
            prop_assert!(!verdict.evidence().is_empty() && verdict.evidence().len() <= EVIDENCE_MAX);
            let told: Vec<_> = verdict.evidence().iter().map(attempt).collect();
            prop_assert!(told.iter().all(|(_, a)| failure(a).is_some()), "only failures are evidence");
            match verdict {
                Verdict::Host { host, .. } => {
                    prop_assert!(!frozen, "nobody is blamed while the mesh is");
                    prop_assert!(told.iter().all(|(_, a)| a.host == *host), "nobody is blamed for another's");
                    let of_package = |b: &Build, a: &AttemptRecord| {
                        failure(a) == Some(Failure::Command) && held.contains(b.spec.name.as_str())
                            && ledger.builds().iter().filter(|o| o.spec == b.spec)
                                .any(|o| o.attempts.iter().any(|x| x.host != *host && failure(x) == Some(Failure::Command)))
                    };
                    prop_assert!(!told.iter().any(|(b, a)| of_package(b, a)), "what the package is to blame for");
                }
                Verdict::Rest { host, until_ms, .. } => {
                    prop_assert!(told.iter().all(|(_, a)| a.host == *host));
                    let last = told.iter().map(|(_, a)| a.ended_ms).max().unwrap_or(0);
                    prop_assert!(*until_ms > last && *until_ms <= last + Rules::default().rest_ms_max, "it ends");
                }
                Verdict::Package { hosts, .. } => prop_assert!(hosts.len() >= 2, "it takes two"),
                Verdict::Mesh { hosts, of, .. } => prop_assert!(2 * hosts.len() > *of && hosts.len() >= 2),
            }
        }
    }
}

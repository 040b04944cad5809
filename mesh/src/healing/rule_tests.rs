//! Each rule holds back what nothing else would, says so, and is what keeps the naive variant from harm.

use super::tests::*;
use super::*;
use crate::blame::tests::key;
use crate::identity::Keys;
use crate::ledger::tests::World;
use crate::mutants::with;
use crate::warrant::tests::voters;
use proptest::prelude::*;

#[test]
fn a_person_is_held_back_by_what_does_harm_and_forces_the_pace_alone() {
    let world = hospital();
    let reboot = Act::Reboot(Gently { grace_ms: 0 });
    let held = |lie: &dyn Fn(&mut Ward), force| {
        let mut ward = Ward::new(&world);
        lie(&mut ward);
        ward.with(|facts| by_hand(facts, &key(SICK), reboot, force))
    };
    let off = |w: &mut Ward| w.record.set_policy(Policy { heal: 0, ..Policy::default() }).unwrap();
    assert_eq!(held(&off, false), [], "a person heals though healing is off, and a host that is well");
    let step = |w: &mut Ward| {
        let now = w.ledger.time_ms();
        w.record.step(key(SICK), Rung::Restart, now);
    };
    assert!(matches!(held(&step, false)[..], [Rule::CoolDown { .. }]));
    assert_eq!(held(&step, true), []);
    let busy = |w: &mut Ward| w.sick().progress = true;
    assert_eq!((held(&busy, false), held(&busy, true)), (vec![Rule::Progress], vec![]));
    type Lie = (fn(&mut Sight), Rule);
    let harm: [Lie; 4] = [
        (|s| s.protected = true, Rule::Protected),
        (|s| s.allow_reboot = false, Rule::NotAllowed),
        (|s| s.boot_enabled = None, Rule::NotAtBoot),
        (|s| s.only_path_of = vec![PeerKey::from_bytes([9; 32])], Rule::OnlyPath(vec![PeerKey::from_bytes([9; 32])])),
    ];
    for (lie, rule) in harm {
        assert_eq!(held(&|w: &mut Ward| lie(w.sick()), true), [rule]);
    }
    let stranger = Keys::from_seed([200; 32]).key();
    assert_eq!(Ward::new(&world).with(|f| by_hand(f, &stranger, reboot, true)), [Rule::Unknown]);
}

/// Host 6 is down, its service was ordered to restart in vain, and a reboot is due.
fn due_for_reboot(ward: &mut Ward, wait_ms: u64) {
    ward.down();
    for event in [Event::Down, Event::Ordered, Event::Expired] {
        ward.note(SICK, event);
    }
    ward.pass(wait_ms);
}

struct Case {
    what: &'static str,
    mutant: Mutant,
    rule: fn(&Rule) -> bool,
    ward: Ward,
    host: u8,
}

fn cases() -> Vec<Case> {
    use Mutant::*;
    let world = hospital();
    let base = |lie: &dyn Fn(&mut Ward)| {
        let mut ward = Ward::new(&world);
        due_for_reboot(&mut ward, 120 * MINUTE);
        lie(&mut ward);
        ward
    };
    let case = |what, mutant, rule: fn(&Rule) -> bool, ward| Case { what, mutant, rule, ward, host: SICK };
    let sick = |lie: fn(&mut Sight)| base(&|ward| lie(ward.sick()));
    let stop = |ward: &mut Ward, stop, host| {
        let now = ward.ledger.time_ms();
        let measure = Measure { stop, host, by: key(1), reason: "so".into(), until_ms: now + MINUTE };
        ward.record.measures.put(measure, now).unwrap();
    };
    let mut all = vec![
        case(
            "off",
            HealsWhenOff,
            |r| *r == Rule::Off,
            base(&|w| w.record.set_policy(Policy { heal: 0, ..Policy::default() }).unwrap()),
        ),
        case("paused", HealsWhilePaused, |r| matches!(r, Rule::Paused { .. }), base(&|w| stop(w, Stop::Pause, None))),
        case(
            "blocked",
            HealsHeldHost,
            |r| matches!(r, Rule::Held { .. }),
            base(&|w| stop(w, Stop::Block, Some(key(SICK)))),
        ),
        case(
            "most fails",
            HealsThroughMeshFault,
            |r| matches!(r, Rule::MeshFault(_)),
            base(&|w| {
                w.verdicts = Some(vec![Verdict::Mesh { hosts: vec![key(2)], of: 1, evidence: vec![] }]);
            }),
        ),
        case("cloned", HealsSuspended, |r| *r == Rule::Suspended, sick(|s| s.suspended = true)),
        case("another", HealsManyAtOnce, |r| *r == Rule::Another(key(7)), base(&|w| w.note(7, Event::Blamed))),
        case(
            "budget",
            HealsBeyondBudget,
            |r| *r == Rule::Budget { healed: 2, allowed: 2 },
            base(&|w| {
                for host in [7, 8] {
                    w.note(host, Event::Blamed);
                    w.note(host, Event::Lapsed);
                }
            }),
        ),
        case("progress", HealsProgressing, |r| *r == Rule::Progress, sick(|s| s.progress = true)),
        case(
            "one word",
            HealsOnOneWord,
            |r| *r == Rule::OneWord { accusers: 1, needed: 2 },
            sick(|s| s.accusers = [key(2)].into()),
        ),
        case(
            "its own word",
            HealsOnOneWord,
            |r| *r == Rule::OneWord { accusers: 1, needed: 2 },
            sick(|s| s.accusers = [key(2), key(6)].into()),
        ),
        case(
            "strangers' word",
            HealsOnOneWord,
            |r| *r == Rule::OneWord { accusers: 0, needed: 2 },
            sick(|s| s.accusers = [key(80), key(81)].into()),
        ),
        case("protected", HealsProtected, |r| *r == Rule::Protected, sick(|s| s.protected = true)),
        case("no reboots", HealsNotAllowed, |r| *r == Rule::NotAllowed, sick(|s| s.allow_reboot = false)),
        case("not at boot", HealsNotEnabledAtBoot, |r| *r == Rule::NotAtBoot, sick(|s| s.boot_enabled = Some(false))),
        case("perhaps at boot", HealsNotEnabledAtBoot, |r| *r == Rule::NotAtBoot, sick(|s| s.boot_enabled = None)),
        case(
            "only path",
            HealsOnlyPath,
            |r| *r == Rule::OnlyPath(vec![key(9)]),
            sick(|s| s.only_path_of = vec![key(9)]),
        ),
    ];
    let mut soon = Ward::new(&world);
    due_for_reboot(&mut soon, 15 * MINUTE);
    all.push(case("cool-down", HealsWithoutCoolDown, |r| *r == Rule::CoolDown { left_ms: 5 * MINUTE }, soon));

    let mut storm = Ward::new(&world);
    storm.record.set_policy(Policy { budget_percent: 50, ..Policy::default() }).unwrap();
    for host in [7, 8] {
        for event in [Event::Down, Event::Ordered, Event::Expired, Event::HandedOver] {
            storm.note(host, event);
        }
    }
    due_for_reboot(&mut storm, 30 * MINUTE);
    all.push(case("storm", HealsThroughStorm, |r| matches!(r, Rule::Storm { steps: 3, .. }), storm));

    let alone = World::new(10);
    let mut few = Ward::new(&alone);
    due_for_reboot(&mut few, 120 * MINUTE);
    all.push(case("one voter", HealsWithoutSigners, |r| *r == Rule::FewSigners { up: 1 }, few));

    let mut five = hospital();
    voters(&mut five, &[1, 2, 3, 5, 6], &[1, 2]);
    let mut last = Ward::new(&five);
    due_for_reboot(&mut last, 120 * MINUTE);
    for doubted in [3, 5] {
        last.sights.get_mut(&key(doubted)).unwrap().accusers = [key(9)].into();
    }
    all.push(case("last voters", HealsLastVoters, |r| *r == Rule::LastVoters { up: 2, needed: 3 }, last));

    let mut nobody = Ward::new(&world);
    nobody.down();
    nobody.view.values_mut().for_each(|host| host.alive = false);
    all.push(case("last builder", HealsLastBuilder, |r| *r == Rule::LastBuilder, nobody));
    all
}

/// Whether a deed on the host is planned, not only noted or handed over.
fn acts(ward: &Ward, host: u8) -> bool {
    let deed = |s: &Step| s.host == key(host) && matches!(s.what, What::Order(_) | What::SetAside(_));
    ward.plan().steps.iter().any(deed)
}

#[test]
fn every_rule_holds_back_alone_and_says_so() {
    let mut well = Ward::new(&hospital());
    due_for_reboot(&mut well, 120 * MINUTE);
    assert_eq!(well.says(), Some(What::Order(Rung::Reboot)));
    for Case { what, mutant, rule, ward, host } in cases() {
        assert!(!acts(&ward, host), "{what}");
        let plan = ward.plan();
        let held = plan.held.iter().find(|held| held.host == key(host)).expect(what);
        assert!(matches!(&held.rules[..], [one] if rule(one)), "{what}: {:?}", held.rules);
        let text = held.text(ward.ledger.roster());
        assert!(text.starts_with("h6: ") && text.contains(" is held back: ") && text.len() > 30, "{text}");
        let called = plan.steps.iter().any(|s| s.host == key(host) && s.what == What::HandOver);
        assert_eq!(called, held.rules[0].is_lasting(), "{what}: a human where waiting does not help");
        assert!(with(Some(mutant), || acts(&ward, host)), "{what}: {mutant} changes nothing");
        for other in Mutant::ALL.iter().filter(|other| **other != mutant) {
            assert!(with(Some(*other), || !acts(&ward, host)), "{what}: {other} leaves it out too");
        }
    }
}

#[test]
fn what_has_recovered_is_tried_out_and_not_rebooted() {
    let mut ward = Ward::new(&hospital());
    due_for_reboot(&mut ward, 120 * MINUTE);
    ward.sick().down = false;
    assert_eq!(ward.says(), Some(What::Note(Event::Recovered)));
    assert_eq!(with(Some(Mutant::HealsTheRecovered), || ward.says()), Some(What::Order(Rung::Reboot)));
    ward.sights.remove(&key(SICK));
    assert_eq!(ward.says(), None);
    assert_eq!(ward.plan().held[0].rules, [Rule::Unknown]);
}

#[test]
fn two_that_fall_ill_together_are_healed_one_after_the_other() {
    let mut ward = Ward::new(&hospital());
    ward.down();
    let sick = ward.sick().clone();
    ward.sights.insert(key(7), Sight { boot: BootId([7; 16]), ..sick });
    let deeds = |ward: &Ward| ward.plan().steps.len();
    assert_eq!((deeds(&ward), ward.plan().held.len()), (1, 1));
    assert_eq!(with(Some(Mutant::HealsManyAtOnce), || deeds(&ward)), 2);
    // A host that was put out of the mesh in the middle of it blocks nobody.
    let mut world = hospital();
    let revoke = crate::ledger::Revoke { peer: key(7), banned: false, reason: "sold".into() };
    world.send(1, crate::ledger::Command::Revoke(revoke));
    let mut ward = Ward::new(&world);
    ward.record.set_policy(Policy { budget_percent: 50, ..Policy::default() }).unwrap();
    ward.note(7, Event::Blamed);
    ward.down();
    assert_eq!(ward.says(), Some(What::SetAside(Event::Down)));
}

/// What may befall a host between two looks.
fn weather() -> impl Strategy<Value = (u8, bool, u8, bool, bool, u64)> {
    (1u8..=10, any::<bool>(), 0u8..4, any::<bool>(), prop::bool::weighted(0.2), 0u64..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the weather: every step is legal, one host at a time is acted on, no more than the budget in a day,
    /// nobody on one word or against its veto, never the majority; and what is open ends when all is well.
    #[test]
    fn healing_does_no_harm(days in prop::collection::vec(weather(), 1..120)) {
        let mut ward = Ward::new(&hospital());
        let mut orders: Vec<(u64, PeerKey)> = vec![];
        for (n, (host, down, accusers, progress, protected, minutes)) in days.into_iter().enumerate() {
            ward.pass(minutes * MINUTE);
            let all = ward.ledger.roster().members().map(|(k, _)| *k).filter(|k| *k != key(host));
            let accusers: BTreeSet<PeerKey> = all.take(accusers.into()).collect();
            let sight = ward.sights.get_mut(&key(host)).unwrap();
            (sight.down, sight.progress, sight.protected) = (down, progress, protected);
            sight.accusers = if down { accusers } else { BTreeSet::new() };
            let plan = ward.plan();
            let deeds: Vec<&Step> = plan.steps.iter().filter(|s| matches!(s.what, What::Order(_) | What::SetAside(_))).collect();
            prop_assert!(deeds.len() <= 1);
            for held in &plan.held {
                prop_assert!(!held.rules.is_empty() && !held.text(ward.ledger.roster()).is_empty());
            }
            for Step { host, what, why } in plan.steps.clone() {
                let now = ward.ledger.time_ms();
                let sight = ward.sights[&host].clone();
                let (event, order) = match what {
                    What::SetAside(event) | What::Note(event) => (event, None),
                    What::Canary(_) => (Event::Given, None),
                    What::HandOver => (Event::HandedOver, None),
                    What::Withdraw(order) => panic!("{order} was written by nobody"),
                    What::Order(_) => {
                        prop_assert!(!sight.protected && !sight.progress);
                        prop_assert!(!sight.down || sight.accusers.len() >= 2, "on one word");
                        let up = [1, 2, 3].map(key).into_iter().filter(|v| *v != host && (*v == key(1) || ward.sights[v].accusers.is_empty() && !ward.sights[v].down));
                        prop_assert!(up.count() >= 2, "the majority");
                        let open = ward.record.cases().filter(|(k, c)| **k != host && c.stage.is_open()).count();
                        prop_assert_eq!(open, 0, "one at a time");
                        orders.push((now, host));
                        let day: BTreeSet<PeerKey> = orders.iter().filter(|(at, _)| at + DAY_MS > now).map(|(_, h)| *h).collect();
                        prop_assert!(day.len() <= 2, "the budget of ten hosts");
                        let id = OrderId([n as u8; 16]);
                        (Event::Ordered, Some(Pending { id, boot: sight.boot, start: sight.start, until_ms: now + MINUTE }))
                    }
                };
                let change = Change { host, event, why, order };
                prop_assert!(ward.record.change(change, now).is_ok());
            }
        }
        // All are well again: within a while nobody is being healed.
        for sight in ward.sights.values_mut() {
            (sight.down, sight.progress, sight.protected) = (false, false, false);
            sight.accusers.clear();
        }
        for _ in 0..20 {
            ward.pass(60 * MINUTE);
            for Step { host, what, why } in ward.plan().steps {
                let What::Note(event) = what else { continue };
                let now = ward.ledger.time_ms();
                let change = Change { host, event, why, order: None };
                prop_assert!(ward.record.change(change, now).is_ok());
            }
        }
        prop_assert!(ward.record.cases().all(|(_, case)| !case.stage.is_open()), "{:?}", ward.record.cases().collect::<Vec<_>>());
    }
}

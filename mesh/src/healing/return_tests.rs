//! A host that was down and comes back by itself: let back when that was all, tried out when it was not.

use super::tests::*;
use super::*;
use crate::blame::tests::key;
use crate::build::BuildSpec;
use crate::ledger::tests::{World, spec};
use crate::limits::RETURNED_MS;
use crate::mutants::with;

/// Host 6 was down for a moment, was set aside, and is back.
fn back() -> Ward {
    back_in(&hospital())
}

fn back_in(world: &World) -> Ward {
    let mut ward = Ward::new(world);
    ward.down();
    ward.note(SICK, Event::Down);
    ward.pass(2_000);
    assert_eq!(ward.says(), None, "its cool-down");
    ward.sights.insert(key(SICK), sight(SICK));
    ward.view.get_mut(&key(SICK)).unwrap().alive = true;
    ward.note(SICK, Event::Recovered);
    ward
}

#[test]
fn who_was_down_and_nothing_else_is_let_back_when_it_stays_up() {
    let mut ward = back();
    ward.pass(RETURNED_MS - 1);
    assert_eq!(ward.says(), None, "not at once");
    ward.pass(1);
    assert_eq!(ward.says(), Some(What::Note(Event::Returned)));
    assert_eq!(ward.plan().steps[0].why, "it was down and nothing else, and has been up for 10 s");
    // Gone again before that: it begins anew.
    ward.down();
    assert_eq!(ward.says(), Some(What::Note(Event::Down)));
    ward.note(SICK, Event::Down);
    ward.sights.insert(key(SICK), sight(SICK));
    ward.note(SICK, Event::Recovered);
    assert_eq!(ward.says(), None);
}

#[test]
fn who_comes_and_goes_or_is_missed_or_was_blamed_is_tried_out() {
    type Lie = (&'static str, fn(&mut Ward));
    let lies: [Lie; 5] = [
        ("comes and goes", |w| w.sick().flaps = 2),
        ("is missed by one", |w| w.sick().accusers = [key(2)].into()),
        ("lives twice", |w| w.sick().suspended = true),
        ("is blamed", |w| {
            w.verdicts = Some(vec![Verdict::Host { host: key(SICK), packages: 3, evidence: vec![] }]);
        }),
        ("was blamed before it went down", |w| {
            w.note(SICK, Event::Cleared);
            for event in [Event::Blamed, Event::Down, Event::Recovered] {
                w.note(SICK, event);
            }
        }),
    ];
    for (what, lie) in lies {
        let mut ward = back();
        lie(&mut ward);
        ward.pass(60 * MINUTE);
        assert_eq!(ward.says(), None, "{what}");
        let naive = with(Some(Mutant::ReturnIsHealth), || ward.says());
        assert_eq!(naive, Some(What::Note(Event::Returned)), "{what}");
        ward.pass(ward.record.policy().aside_ms);
        assert_eq!(ward.says(), Some(What::Note(Event::Lapsed)), "{what}: what is temporary ends");
    }
    // One return is forgiven.
    let mut ward = back();
    ward.sick().flaps = 1;
    ward.pass(RETURNED_MS);
    assert_eq!(ward.says(), Some(What::Note(Event::Returned)));
}

/// A build that takes hours would keep it, and it is let back in a moment; one that is not is tried out after all.
#[test]
fn who_is_let_back_in_a_moment_is_given_no_canary_first() {
    let mut world = hospital();
    let id = world.submit(vec![BuildSpec { retries: 9, ..spec("long", &[]) }])[0];
    let mut ward = back_in(&world);
    ward.pass(RETURNED_MS - 1);
    assert_eq!(ward.says(), None);
    let mut flaps = ward.clone();
    ward.pass(1);
    assert_eq!(ward.says(), Some(What::Note(Event::Returned)));
    flaps.sick().flaps = 2;
    flaps.pass(RETURNED_MS);
    assert_eq!(flaps.says(), None);
    flaps.pass(1);
    assert_eq!(flaps.says(), Some(What::Canary(id)));
}

/// Setting aside does nothing to a host, and is no reason to make a person say `--force`; what was really done is.
#[test]
fn a_person_does_not_wait_for_what_was_only_set_aside() {
    let restart = Act::Restart(Gently { grace_ms: 0 });
    let held = |ward: &Ward, host: u8| ward.with(|facts| by_hand(facts, &key(host), restart, false));
    let mut ward = back();
    ward.note(SICK, Event::Returned);
    assert_eq!(held(&ward, SICK), []);
    for host in [7, 8] {
        ward.note(host, Event::Down);
        ward.note(host, Event::Cleared);
    }
    assert_eq!(held(&ward, SICK), [], "nor for what the day's budget has of it");
    // The plan keeps its pace all the same.
    ward.down();
    let rules = &ward.plan().held[0].rules;
    assert!(rules.iter().any(|r| matches!(r, Rule::CoolDown { .. })), "{rules:?}");
    assert!(rules.iter().any(|r| matches!(r, Rule::Budget { healed: 2, .. })), "{rules:?}");
    let now = ward.ledger.time_ms();
    ward.record.step(key(SICK), Rung::Restart, now);
    assert!(matches!(held(&ward, SICK)[..], [Rule::CoolDown { left_ms: 600_000 }]));
    for host in [7, 8] {
        ward.record.step(key(host), Rung::Reboot, now);
    }
    assert!(matches!(held(&ward, 9)[..], [Rule::Budget { healed: 3, .. }]), "{:?}", held(&ward, 9));
}

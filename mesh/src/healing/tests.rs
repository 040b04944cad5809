//! The climb, rung by rung, as a leader would do it; and that it stops.

use super::*;
use crate::blame::judge;
use crate::blame::tests::{key, pass, tried};
use crate::build::{Attempt, BuildSpec, Phase as Failed};
use crate::ledger::tests::{World, done, failed, keys, spec};
use crate::mutants::with;
use crate::warrant::tests::voters;

pub(super) const SICK: u8 = 6;
pub(super) const MINUTE: u64 = 60_000;

/// Hosts 1 to 10, of which 1, 2 and 3 vote; all of them are well, and host 1 looks.
#[derive(Clone)]
pub(super) struct Ward {
    pub ledger: Ledger,
    pub record: Record,
    pub sights: BTreeMap<PeerKey, Sight>,
    pub view: View,
    /// Instead of what blame says.
    pub verdicts: Option<Vec<Verdict>>,
}

pub(super) fn sight(n: u8) -> Sight {
    Sight {
        down: false,
        accusers: BTreeSet::new(),
        progress: false,
        suspended: false,
        boot: BootId([n; 16]),
        start: 1,
        boot_enabled: Some(true),
        allow_reboot: true,
        protected: false,
        only_path_of: vec![],
        flaps: 0,
    }
}

impl Ward {
    pub fn new(world: &World) -> Ward {
        let sights = (1..=10).map(|n| (key(n), sight(n))).collect();
        let builder = HostNow { alive: true, cores: 8, memory_mib: 1_000, ..HostNow::default() };
        let view = (1..=10).map(|n| (key(n), builder.clone())).collect();
        Ward { ledger: world.ledger.clone(), record: Record::default(), sights, view, verdicts: None }
    }

    pub fn with<R>(&self, look: impl FnOnce(&Facts<'_>) -> R) -> R {
        let judged = judge(&self.ledger, &self.record.policy().blame);
        let verdicts = self.verdicts.as_ref().unwrap_or(&judged);
        let Ward { ledger, record, sights, view, .. } = self;
        look(&Facts { me: key(1), ledger, record, verdicts, view, sights })
    }

    pub fn plan(&self) -> Plan {
        self.with(plan)
    }

    pub fn sick(&mut self) -> &mut Sight {
        self.sights.get_mut(&key(SICK)).unwrap()
    }

    pub fn down(&mut self) {
        let sick = self.sick();
        sick.down = true;
        sick.accusers = [key(2), key(3)].into();
        self.view.get_mut(&key(SICK)).unwrap().alive = false;
    }

    /// An entry of the leader.
    pub fn note(&mut self, host: u8, event: Event) {
        let now = self.ledger.time_ms();
        let order = (event == Event::Ordered).then(|| {
            let sight = &self.sights[&key(host)];
            Pending { id: OrderId([host; 16]), boot: sight.boot, start: sight.start, until_ms: now + 15 * MINUTE }
        });
        let change = Change { host: key(host), event, why: "as seen".into(), order };
        self.record.change(change, now).unwrap();
    }

    pub fn pass(&mut self, ms: u64) {
        let batch = crate::ledger::Batch { time_ms: self.ledger.time_ms() + ms, entries: vec![] };
        self.ledger.apply(self.ledger.index(), self.ledger.term(), &crate::wire::encode(&batch));
    }

    /// What the plan says of the sick host.
    pub fn says(&self) -> Option<What> {
        self.plan().steps.into_iter().find(|step| step.host == key(SICK)).map(|step| step.what)
    }
}

pub(super) fn hospital() -> World {
    let mut world = World::new(10);
    voters(&mut world, &[1, 2, 3], &[1]);
    world
}

/// Host 6 fails what others build.
fn epidemic(world: &mut World) {
    for n in 0..3 {
        for host in 2..=5 {
            tried(world, &format!("ok{host}-{n}"), &[(host, None)]);
        }
        tried(world, &format!("p{n}"), &[(SICK, Some(Failed::Store)), (2, None)]);
    }
}

/// Gives the canary that is due, and lets it end.
fn trial(world: &mut World, ward: &mut Ward, name: &str, well: bool) {
    let id = world.submit(vec![BuildSpec { retries: 9, ..spec(name, &[]) }])[0];
    ward.ledger = world.ledger.clone();
    assert_eq!(ward.says(), Some(What::Canary(id)));
    assert!(world.assign(id, 1, SICK).is_ok());
    ward.ledger = world.ledger.clone();
    assert_eq!(ward.says(), Some(What::Note(Event::Given)));
    ward.note(SICK, Event::Given);
    assert_eq!(ward.says(), None, "it runs");
    pass(world, MINUTE);
    let outcome = if well { done(None) } else { failed(Failed::Sandbox) };
    assert!(world.end_with(id, 1, SICK, outcome, &[]).is_ok());
    world.send(1, crate::ledger::Command::Cancel(crate::ledger::Cancel { builds: vec![id], reason: "enough".into() }));
    ward.ledger = world.ledger.clone();
    let told = if well { Event::Passed } else { Event::Failed };
    assert_eq!(ward.says(), Some(What::Note(told)));
    ward.note(SICK, told);
}

/// Waits for the cool-down, then orders what is due, and the host proves it.
fn climb(world: &mut World, ward: &mut Ward, rung: Rung) {
    assert_eq!(ward.says(), None);
    let plan = ward.plan();
    let [Rule::CoolDown { left_ms }] = plan.held[0].rules[..] else { panic!("{plan:?}") };
    pass(world, left_ms);
    ward.ledger = world.ledger.clone();
    assert_eq!(ward.says(), Some(What::Order(rung)));
    ward.note(SICK, Event::Ordered);
    assert_eq!(ward.says(), None, "a receipt is no proof");
    match rung {
        Rung::Reboot => ward.sick().boot = BootId([77; 16]),
        _ => ward.sick().start += 1,
    }
    assert_eq!(ward.says(), Some(What::Note(Event::Proved)));
    ward.note(SICK, Event::Proved);
}

#[test]
fn a_sick_host_climbs_rung_by_rung_to_a_human() {
    let mut world = hospital();
    assert_eq!(Ward::new(&world).plan(), Plan::default(), "nothing to do for the well");
    epidemic(&mut world);
    let mut ward = Ward::new(&world);
    assert_eq!(ward.says(), Some(What::SetAside(Event::Blamed)));
    assert!(ward.plan().steps[0].why.contains("3 packages fail on h6"), "{:?}", ward.plan());
    assert_eq!(ward.with(|facts| no_builds(facts, &key(SICK))), None);
    ward.sick().progress = true;
    assert_eq!(ward.says(), Some(What::SetAside(Event::Blamed)), "what still runs there may end");
    ward.sick().progress = false;
    ward.note(SICK, Event::Blamed);
    assert!(ward.with(|facts| no_builds(facts, &key(SICK))).unwrap().starts_with("set aside"));
    trial(&mut world, &mut ward, "c1", false);
    climb(&mut world, &mut ward, Rung::Restart);
    trial(&mut world, &mut ward, "c2", false);
    climb(&mut world, &mut ward, Rung::Reboot);
    trial(&mut world, &mut ward, "c3", false);
    assert_eq!(ward.says(), Some(What::HandOver));
    ward.note(SICK, Event::HandedOver);
    assert_eq!((ward.says(), ward.record.stage(&key(SICK))), (None, Stage::Human));
    ward.note(SICK, Event::Cleared);
    assert_eq!(ward.record.stage(&key(SICK)), Stage::Well);
}

/// Held back for an hour, by whatever: its canary has to be given again before anything stronger is done.
#[test]
fn what_a_canary_said_counts_for_an_hour() {
    let mut world = hospital();
    epidemic(&mut world);
    let mut ward = Ward::new(&world);
    ward.note(SICK, Event::Blamed);
    trial(&mut world, &mut ward, "c1", false);
    ward.sick().progress = true;
    ward.pass(60 * MINUTE - 1);
    assert_eq!(ward.says(), None);
    assert!(matches!(ward.plan().held[0].rules[..], [Rule::Progress]), "{:?}", ward.plan());
    ward.pass(1);
    ward.sick().progress = false;
    let naive = with(Some(Mutant::HealsOnOldWord), || ward.says());
    assert_eq!(naive, Some(What::Order(Rung::Restart)));
    assert_eq!(ward.says(), Some(What::Note(Event::Outdated)));
    pass(&mut world, 60 * MINUTE);
    ward.note(SICK, Event::Outdated);
    trial(&mut world, &mut ward, "c2", true);
    assert_eq!(ward.record.stage(&key(SICK)), Stage::Well);
}

/// The mesh was off meanwhile: that an order has ended since is no news of its target.
#[test]
fn an_order_that_ended_without_proof_is_no_evidence() {
    let mut world = hospital();
    epidemic(&mut world);
    let mut ward = Ward::new(&world);
    ward.note(SICK, Event::Blamed);
    trial(&mut world, &mut ward, "c1", false);
    ward.pass(20 * MINUTE);
    assert_eq!(ward.says(), Some(What::Order(Rung::Restart)));
    ward.note(SICK, Event::Ordered);
    ward.pass(16 * MINUTE);
    assert_eq!(ward.says(), Some(What::Note(Event::Expired)));
    let mut soon = ward.clone();
    soon.note(SICK, Event::Expired);
    soon.pass(20 * MINUTE);
    assert_eq!(soon.says(), Some(What::Order(Rung::Reboot)), "its canary failed within the hour");
    ward.pass(60 * MINUTE);
    ward.note(SICK, Event::Expired);
    assert_eq!(ward.says(), Some(What::Note(Event::Outdated)));
    assert_ne!(with(Some(Mutant::HealsOnOldWord), || ward.says()), ward.says());
}

/// One power cut of a minute would else take the budget of a day.
#[test]
fn who_was_only_down_for_a_moment_counts_for_no_budget() {
    let mut ward = Ward::new(&hospital());
    for (last, healed) in [(Event::Returned, None), (Event::Lapsed, Some(2))] {
        for host in [7, 8] {
            ward.note(host, Event::Down);
            ward.note(host, Event::Recovered);
            ward.note(host, last);
        }
        ward.down();
        let plan = ward.plan();
        let spent = plan.held.first().map(|held| held.rules.clone());
        assert_eq!(spent, healed.map(|healed| vec![Rule::Budget { healed, allowed: 2 }]), "{last:?}");
    }
    // What was ordered of it counts, though it has helped.
    let mut ward = Ward::new(&hospital());
    for event in [Event::Down, Event::Ordered, Event::Proved, Event::Returned] {
        ward.note(7, event);
    }
    let steps: Vec<_> = ward.record.steps(ward.ledger.time_ms()).map(|s| (s.rung, s.helped, s.idle)).collect();
    assert_eq!(steps, [(Rung::Aside, None, false), (Rung::Restart, Some(true), false)]);
}

#[test]
fn a_canary_that_is_built_ends_the_case() {
    let mut world = hospital();
    epidemic(&mut world);
    let mut ward = Ward::new(&world);
    ward.note(SICK, Event::Blamed);
    trial(&mut world, &mut ward, "c1", false);
    climb(&mut world, &mut ward, Rung::Restart);
    trial(&mut world, &mut ward, "c2", true);
    assert_eq!(ward.record.stage(&key(SICK)), Stage::Well);
    let helped: Vec<_> = ward.record.steps(ward.ledger.time_ms()).map(|s| (s.rung, s.helped)).collect();
    assert_eq!(helped, [(Rung::Aside, Some(false)), (Rung::Restart, Some(true))]);
}

#[test]
fn a_host_that_is_down_needs_no_canary_until_it_is_back() {
    let mut ward = Ward::new(&hospital());
    ward.down();
    assert_eq!(ward.says(), Some(What::SetAside(Event::Down)));
    ward.note(SICK, Event::Down);
    for rung in [Rung::Restart, Rung::Reboot] {
        ward.pass(2 * 60 * MINUTE);
        assert_eq!(ward.says(), Some(What::Order(rung)));
        ward.note(SICK, Event::Ordered);
        ward.sick().boot = BootId([78; 16]);
        assert_eq!(ward.says(), None, "a claim of a host that is down is no proof");
        ward.pass(15 * MINUTE + 1);
        assert_eq!(ward.says(), Some(What::Note(Event::Expired)));
        ward.note(SICK, Event::Expired);
    }
    assert_eq!(ward.says(), Some(What::HandOver));
    // It comes back by itself: tried out, not rebooted.
    (ward.sick().down, ward.sick().accusers) = (false, BTreeSet::new());
    ward.view.get_mut(&key(SICK)).unwrap().alive = true;
    assert_eq!(ward.says(), Some(What::Note(Event::Recovered)));
    ward.note(SICK, Event::Recovered);
    assert_eq!(ward.says(), None, "no build waits that could be a canary");
    ward.pass(ward.record.policy().cool_ms - 1);
    assert_eq!(ward.says(), None, "it was rebooted for nothing else, and may fall again");
    ward.pass(1);
    assert_eq!(ward.says(), Some(What::Note(Event::Returned)), "what is temporary ends");
    ward.note(SICK, Event::Returned);
    assert_eq!(ward.plan(), Plan::default());
}

/// A service that was restarted, and the whole machine with it, is proved restarted.
#[test]
fn proof_is_a_new_start_or_a_new_boot() {
    let order = Pending { id: OrderId([1; 16]), boot: BootId([1; 16]), start: 4, until_ms: 0 };
    for (rung, boot, start, proof) in [
        (Rung::Restart, 1, 4, false),
        (Rung::Restart, 1, 5, true),
        (Rung::Restart, 2, 5, true),
        (Rung::Reboot, 1, 4, false),
        (Rung::Reboot, 1, 5, false),
        (Rung::Reboot, 2, 5, true),
    ] {
        assert_eq!(
            is_proof(rung, (order.boot, order.start), BootId([boot; 16]), start),
            proof,
            "{rung} {boot} {start}"
        );
    }
}

/// Incident 9 with a host that is down as well: nothing is done to anybody.
#[test]
fn a_fault_of_the_mesh_freezes_all_healing() {
    let mut world = hospital();
    for host in [2, 3, 4] {
        for n in 0..3 {
            tried(&mut world, &format!("p{host}-{n}"), &[(host, Some(Failed::Fetch))]);
        }
    }
    let mut ward = Ward::new(&world);
    ward.down();
    let plan = ward.plan();
    assert_eq!(plan.steps, []);
    let text = plan.held[0].text(ward.ledger.roster());
    assert!(text.starts_with("h6: setting it aside is held back: most fails on 3 of the 3 hosts"), "{text}");
}

/// Two records of one epoch of recovery: nobody can tell whose orders were meant.
#[test]
fn a_disputed_recovery_freezes_all_healing() {
    let frozen = |naive| {
        crate::mutants::with(naive, || {
            let mut ward = Ward::new(&disputed());
            ward.down();
            let plan = ward.plan();
            plan.steps.is_empty() && plan.held.iter().any(|held| held.rules.contains(&Rule::Disputed))
        })
    };
    assert!(frozen(None));
    assert!(!frozen(Some(crate::mutants::Mutant::HealsWhileDisputed)), "the naive variant heals on");
}

/// The hospital, recovered once and told of another recovery.
fn disputed() -> World {
    let mut world = hospital();
    let record = |world: &World, heir: u8| {
        let (ledger, key) = (&world.ledger, keys(heir).key());
        let at = (ledger.index(), ledger.head());
        ledger.voters().draft(key, &[key].into(), at, true).unwrap().seal(&keys(99))
    };
    let (ours, theirs) = (record(&world, 1), record(&world, 2));
    world.ledger = world.ledger.recover(&ours).unwrap();
    world.epoch = 1;
    assert!(world.lead(1).is_ok());
    world.vote(&[1, 2, 3], &[1]);
    assert!(world.send(2, crate::ledger::Command::Dispute(theirs)).is_ok());
    world
}

#[test]
fn cool_downs_grow_with_each_step_of_the_day() {
    let mut ward = Ward::new(&hospital());
    ward.down();
    let mut waits = vec![];
    for _ in 0..9 {
        ward.note(SICK, Event::Down);
        ward.note(SICK, Event::Cleared);
        let held = ward.plan().held;
        let [Rule::CoolDown { left_ms }] = held[0].rules[..] else { panic!("{held:?}") };
        waits.push(left_ms / MINUTE);
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1_280, 1_440]);
}

#[test]
fn a_storm_ends_with_a_person_or_a_quiet_hour() {
    let storm = || {
        let mut ward = Ward::new(&hospital());
        ward.record.set_policy(Policy { budget_percent: 50, ..Policy::default() }).unwrap();
        for host in [7, 8, 9] {
            for event in [Event::Down, Event::Ordered, Event::Expired, Event::HandedOver] {
                ward.note(host, event);
            }
        }
        ward.down();
        ward
    };
    let mut ward = storm();
    assert!(matches!(ward.plan().held[0].rules[..], [Rule::Storm { steps: 3, left_ms: 3_600_000 }]));
    ward.pass(3_599_999);
    assert_eq!(ward.says(), None);
    ward.pass(1);
    assert_eq!(ward.says(), Some(What::SetAside(Event::Down)));
    let mut ward = storm();
    ward.record.resume(ward.ledger.time_ms());
    assert_eq!(ward.says(), Some(What::SetAside(Event::Down)));
    // One that helped ends the row.
    let mut ward = Ward::new(&hospital());
    ward.record.set_policy(Policy { budget_percent: 50, ..Policy::default() }).unwrap();
    for (host, end) in [(7, Event::Expired), (8, Event::Proved), (9, Event::Expired)] {
        for event in [Event::Down, Event::Ordered, end] {
            ward.note(host, event);
        }
        if end == Event::Proved {
            ward.note(host, Event::Given);
            ward.note(host, Event::Passed);
        } else {
            ward.note(host, Event::HandedOver);
        }
    }
    ward.down();
    assert_eq!(ward.says(), Some(What::SetAside(Event::Down)));
}

#[test]
fn a_voter_looks_for_itself_before_it_signs() {
    let mut ward = Ward::new(&hospital());
    ward.down();
    let (host, id) = (key(SICK), OrderId([SICK; 16]));
    let reboot = act(Rung::Reboot, ward.record.policy()).unwrap();
    let restart = act(Rung::Restart, ward.record.policy()).unwrap();
    assert_eq!(act(Rung::Aside, ward.record.policy()), None);
    let objects = |ward: &Ward, id, act| ward.with(|facts| objection(facts, &host, id, act));
    let other_case = objects(&ward, id, restart).unwrap();
    assert!(other_case.contains("its case stands at Well here"), "{other_case}");
    ward.note(SICK, Event::Down);
    ward.pass(2 * 60 * MINUTE);
    ward.note(SICK, Event::Ordered);
    assert_eq!(objects(&ward, id, restart), None);
    assert!(objects(&ward, id, reboot).is_some(), "another deed than its case is for");
    assert!(objects(&ward, OrderId([0; 16]), restart).is_some(), "another order");
    // Since the leader looked, it has come back; or this voter sees what the leader does not.
    let mut back = ward.clone();
    back.sick().down = false;
    assert_eq!(objects(&back, id, restart).unwrap(), "it is well again");
    let mut busy = ward.clone();
    busy.sick().progress = true;
    assert_eq!(objects(&busy, id, restart).unwrap(), "its builds make progress");
    let mut alone = ward.clone();
    alone.sick().accusers = [key(2), key(SICK), key(90)].into();
    assert_eq!(objects(&alone, id, restart).unwrap(), "1 hosts say that it is down, it takes 2");
    let mut late = ward.clone();
    late.pass(15 * MINUTE + 1);
    assert!(objects(&late, id, restart).is_some());
}

#[test]
fn the_record_keeps_to_the_table_and_its_bounds() {
    let mut ward = Ward::new(&hospital());
    let before = ward.record.clone();
    let mut change = |event, why: &str, order: Option<Pending>| {
        ward.record.change(Change { host: key(SICK), event, why: why.into(), order }, 5)
    };
    let pending = Pending { id: OrderId([1; 16]), boot: BootId([1; 16]), start: 1, until_ms: 9 };
    let illegal = ChangeError::Illegal { stage: Stage::Well, event: Event::Passed };
    assert_eq!(change(Event::Passed, "so", None), Err(illegal));
    assert_eq!(change(Event::Blamed, "", None), Err(ChangeError::Reason));
    assert_eq!(change(Event::Blamed, "so", Some(pending)), Err(ChangeError::Order));
    assert_eq!(change(Event::Ordered, "so", None), Err(ChangeError::Order));
    assert_eq!(ward.record, before);
    assert_eq!(ward.record.set_policy(Policy { observers: 1, ..Policy::default() }), Err(ChangeError::Policy));
    for n in 0..2 * crate::limits::HEAL_STEPS_MAX {
        let event = if n % 2 == 0 { Event::Blamed } else { Event::Cleared };
        ward.note(SICK, event);
    }
    assert!(ward.record.steps(ward.ledger.time_ms()).count() <= crate::limits::HEAL_STEPS_MAX);
    ward.pass(DAY_MS);
    assert_eq!(ward.record.steps(ward.ledger.time_ms()).count(), 0);
    ward.note(SICK, Event::Blamed);
    ward.record.forget(&key(SICK));
    assert_eq!(ward.record.stage(&key(SICK)), Stage::Well);
    let bytes = crate::wire::encode(&ward.record);
    let again: Record = ciborium::from_reader(&bytes[..]).unwrap();
    assert_eq!(again, ward.record);
}

#[test]
fn who_gets_no_builds_is_told_why_and_until_when() {
    let mut world = hospital();
    for n in 0..3 {
        crate::blame::tests::tried_in(&mut world, &format!("p{n}"), &[(SICK, Some(Failed::Command))], 10);
    }
    let mut ward = Ward::new(&world);
    let why = |ward: &Ward, host: u8| ward.with(|facts| no_builds(facts, &key(host)));
    assert_eq!(why(&ward, 2), None);
    let told = why(&ward, SICK).unwrap();
    assert!(told.starts_with("resting for 30 s more: its last 3 builds failed at once (b"), "{told}");
    ward.pass(31_000);
    assert_eq!(why(&ward, SICK), None);
    let now = ward.ledger.time_ms();
    let stop = |stop, host| Measure { stop, host, by: key(1), reason: "new disk".into(), until_ms: now + 5 * MINUTE };
    ward.record.measures.put(stop(Stop::Drain, Some(key(SICK))), now).unwrap();
    assert_eq!(why(&ward, SICK).unwrap(), "drained for 5 min more: new disk");
    ward.record.measures.put(stop(Stop::Pause, None), now).unwrap();
    assert_eq!(why(&ward, 2).unwrap(), "paused for 5 min more: new disk");
    ward.pass(5 * MINUTE);
    assert_eq!((why(&ward, 2), why(&ward, SICK)), (None, None));
}

#[test]
fn evidence_is_shown_as_people_ask_for_it() {
    let step = crate::blame::Evidence { build: BuildId(7), attempt: Attempt(2) };
    assert_eq!(step.to_string(), "b7.2");
}

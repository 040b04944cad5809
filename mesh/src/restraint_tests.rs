use super::*;
use crate::blame::tests::{key, pass, tried, tried_in};
use crate::blame::{Rules, judge};
use crate::build::{BuildSpec, Phase};
use crate::healing::{Change, Clear, Entry, Event, Lift, Measure, Policy};
use crate::ledger::tests::{World, failed, spec};
use crate::ledger::{Command, Lose};
use crate::limits::{RETURNED_MS, TIME_IDLE_MS_MAX};
use crate::mutants::with;
use crate::placement::{HostNow, Plan, View, held_back, plan};
use proptest::prelude::*;

const MINUTE: u64 = 60_000;

/// All hosts of a small mesh, alive, with room for one build each; host 1 leads and offers nothing.
fn view(hosts: u8) -> View {
    let host = |n: u8| HostNow {
        alive: true,
        start: 1,
        cores: u32::from(n > 1),
        memory_mib: 1_000,
        caught_up: true,
        ..HostNow::default()
    };
    (1..=hosts).map(|n| (key(n), host(n))).collect()
}

fn restraint(world: &World) -> Restraint {
    Restraint::new(&world.ledger, &judge(&world.ledger, &world.ledger.healing().policy().blame))
}

fn planned(world: &World, view: &View) -> Plan {
    plan(&world.ledger, view, &restraint(world))
}

/// Who gets a build now.
fn given(world: &World, hosts: u8) -> Vec<PeerKey> {
    let mut given: Vec<PeerKey> = planned(world, &view(hosts)).assign.iter().map(|a| a.host).collect();
    given.sort_unstable();
    given
}

fn why(world: &World, hosts: u8, id: BuildId) -> String {
    let build = world.ledger.builds().get(id).unwrap();
    held_back(&world.ledger, &view(hosts), &restraint(world), build).unwrap_or_default()
}

fn stop(world: &mut World, stop: Stop, host: Option<u8>, lasts_ms: u64) {
    let until_ms = world.ledger.time_ms() + lasts_ms;
    let measure = Measure { stop, host: host.map(key), by: key(1), reason: "new disk".into(), until_ms };
    assert!(world.send(1, Command::Heal(Entry::Measure(measure))).is_ok());
}

fn case(world: &mut World, host: u8, events: &[Event]) {
    for event in events {
        let change = Change { host: key(host), event: *event, why: "b1.1, b2.1".into(), order: None };
        assert!(world.send_as_leader(1, Command::Heal(Entry::Change(change))).is_ok(), "{event:?}");
    }
}

fn sorted(hosts: &[u8]) -> Vec<PeerKey> {
    let mut keys: Vec<PeerKey> = hosts.iter().map(|n| key(*n)).collect();
    keys.sort_unstable();
    keys
}

/// A build that somebody waits for: tried once.
fn once(name: &str) -> BuildSpec {
    BuildSpec { retries: 0, ..spec(name, &[]) }
}

fn some_work(world: &mut World) -> BuildId {
    world.submit((0..4).map(|n| once(&format!("w{n}"))).collect())[0]
}

/// Incident 4: a block keeps builds away, says why and for how long, and ends by itself.
#[test]
fn a_block_keeps_builds_away_and_takes_what_runs() {
    let mut world = World::new(3);
    let id = some_work(&mut world);
    assert!(world.assign(id, 1, 2).is_ok());
    stop(&mut world, Stop::Block, Some(2), 10 * MINUTE);
    assert_eq!(given(&world, 3), sorted(&[3]));
    let lost = planned(&world, &view(3)).lose;
    assert_eq!((lost.len(), lost[0].build), (1, id));
    assert!(lost[0].reason.starts_with("its host is blocked for 10 min more: new disk"), "{}", lost[0].reason);
    assert!(world.send(1, Command::Lose(Lose { attempts: lost })).is_ok());
    assert_eq!(planned(&world, &view(3)).lose, [], "taken once");
    // With everybody blocked the build says so.
    stop(&mut world, Stop::Drain, Some(3), 10 * MINUTE);
    assert_eq!(given(&world, 3), []);
    let told = why(&world, 3, id);
    assert!(told.starts_with("no host that could run it is given builds: h") && told.contains("drained"), "{told}");
    assert_eq!(with(Some(Mutant::BuildsDespiteMeasures), || given(&world, 3)), sorted(&[2, 3]));
    pass(&mut world, 11 * MINUTE);
    assert_eq!(given(&world, 3), sorted(&[2, 3]), "what is temporary ends");
}

#[test]
fn a_drain_lets_what_runs_end() {
    let mut world = World::new(3);
    let id = some_work(&mut world);
    assert!(world.assign(id, 1, 2).is_ok());
    stop(&mut world, Stop::Drain, Some(2), 10 * MINUTE);
    assert_eq!((planned(&world, &view(3)).lose, given(&world, 3)), (vec![], sorted(&[3])));
    stop(&mut world, Stop::Block, Some(2), 10 * MINUTE);
    assert_eq!(planned(&world, &view(3)).lose.len(), 1);
    assert_eq!(with(Some(Mutant::BlockLeavesBuilds), || planned(&world, &view(3)).lose), []);
}

/// Incident 5: a pause holds everybody, running builds go on, and it ends with its time or with a person's word.
#[test]
fn a_pause_holds_everybody_and_ends() {
    let mut world = World::new(3);
    let id = some_work(&mut world);
    assert!(world.assign(id, 1, 2).is_ok());
    stop(&mut world, Stop::Pause, None, 10 * MINUTE);
    assert_eq!(planned(&world, &view(3)), Plan { voters: planned(&world, &view(3)).voters, ..Plan::default() });
    assert_eq!(why(&world, 3, BuildId(id.0 + 1)), "paused for 10 min more: new disk");
    assert_eq!(with(Some(Mutant::BuildsDespiteMeasures), || given(&world, 3)), sorted(&[3]));
    let lift = Entry::Lift(Lift { stop: Stop::Pause, host: None });
    assert!(world.send(1, Command::Heal(lift)).is_ok());
    assert_eq!(given(&world, 3), sorted(&[3]));
}

/// Ledger time moves with its batches only: somebody has to let it, or a pause of an idle mesh never ends.
#[test]
fn a_leader_knows_when_time_has_to_pass() {
    let mut world = World::new(3);
    let wakes = |world: &World| {
        let verdicts = judge(&world.ledger, &world.ledger.healing().policy().blame);
        wakes_ms(&world.ledger, &verdicts) - world.ledger.time_ms()
    };
    assert_eq!(wakes(&world), TIME_IDLE_MS_MAX, "an idle mesh writes next to nothing");
    stop(&mut world, Stop::Pause, None, 2 * MINUTE);
    for _ in 0..2 * MINUTE / TIME_STANDS_MS_MAX {
        let left = world.ledger.healing().measures.pause(world.ledger.time_ms()).unwrap().until_ms;
        let wake = wakes(&world);
        assert!(wake <= TIME_STANDS_MS_MAX && world.ledger.time_ms() + wake <= left);
        pass(&mut world, wake);
    }
    let paused = world.ledger.healing().measures.pause(world.ledger.time_ms());
    assert_eq!((paused, wakes(&world)), (None, TIME_IDLE_MS_MAX));
    stop(&mut world, Stop::Pause, None, 5_000);
    assert!(wakes(&world) <= 5_000, "not later than its end");
    assert!(with(Some(Mutant::TimeStandsStill), || wakes(&world)) > TIME_IDLE_MS_MAX);
    pass(&mut world, 5_000);
    case(&mut world, 3, &[Event::Blamed]);
    // Who waits for a canary waits for known times: that it has stayed up, that it does so for twice as long, and the end.
    let mut later = world.clone();
    for _ in 0..2 {
        assert_eq!(wakes(&later), RETURNED_MS);
        pass(&mut later, RETURNED_MS);
    }
    assert_eq!(wakes(&later), TIME_STANDS_MS_MAX, "it is to be seen how long that is");
    let aside_ms = later.ledger.healing().policy().aside_ms;
    pass(&mut later, aside_ms - 2 * RETURNED_MS - 1_000);
    assert_eq!(wakes(&later), 1_000);
    // What becomes of its canary is looked at again and again.
    case(&mut world, 3, &[Event::Given]);
    assert_eq!(wakes(&world), HEALING_STANDS_MS);
    let mut later = world.clone();
    pass(&mut later, 80_000);
    assert_eq!(wakes(&later), 10_000, "an eighth of what it has waited");
    pass(&mut later, 60 * MINUTE);
    assert_eq!(wakes(&later), TIME_STANDS_MS_MAX, "and it is to be seen how long that is");
    let clear = Entry::Clear(Clear { host: Some(key(3)), why: "looked at it".into() });
    assert!(world.send(1, Command::Heal(clear)).is_ok());
    // Its cool-down ends to the moment, and so does the day in which the step counts.
    let cool_ms = Policy::default().cool_ms - 1_000;
    assert!((cool_ms..=cool_ms + 1_000).contains(&wakes(&world)), "{}", wakes(&world));
    let soon = wakes(&world);
    pass(&mut world, soon);
    assert_eq!(wakes(&world), TIME_IDLE_MS_MAX);
    for _ in 0..24 {
        let wake = wakes(&world);
        pass(&mut world, wake);
    }
    assert_eq!(world.ledger.healing().steps(world.ledger.time_ms()).count(), 0);
}

#[test]
fn who_is_set_aside_gets_a_canary_and_nothing_else() {
    let mut world = World::new(3);
    case(&mut world, 2, &[Event::Blamed]);
    let id = some_work(&mut world);
    assert_eq!(given(&world, 3), sorted(&[3]), "none of these may fail for a sick host's sake");
    let canary = world.submit(vec![BuildSpec { retries: 1, ..spec("c", &[]) }])[0];
    let plan = planned(&world, &view(3));
    assert_eq!((plan.assign[0].build, plan.assign[0].host, plan.assign.len()), (canary, key(2), 2));
    assert_eq!(with(Some(Mutant::NoCanaries), || given(&world, 3)), sorted(&[3]));
    assert_eq!(with(Some(Mutant::BuildsWhereSetAside), || given(&world, 3)), sorted(&[2, 2, 3]));
    // While a person holds it, or heals nobody, it gets none of these either.
    let mut held = world.clone();
    stop(&mut held, Stop::Drain, Some(2), MINUTE);
    assert_eq!(given(&held, 3), sorted(&[3]));
    let mut off = world.clone();
    assert!(off.send(1, Command::Heal(Entry::Policy(Policy { heal: 0, ..Policy::default() }))).is_ok());
    assert_eq!(given(&off, 3), sorted(&[3]));
    // One at a time, and none once it is handed to a human.
    assert!(world.assign(canary, 1, 2).is_ok());
    world.submit(vec![BuildSpec { retries: 1, ..spec("d", &[]) }]);
    assert_eq!(given(&world, 3), sorted(&[3]));
    case(&mut world, 2, &[Event::Given, Event::Failed, Event::HandedOver]);
    assert!(world.end_with(canary, 1, 2, failed(Phase::Store), &[]).is_ok());
    assert_eq!(given(&world, 3), sorted(&[3]));
    let told = restraint(&world).host(&key(2)).map(str::to_owned);
    assert_eq!(told.as_deref(), Some("set aside: b1.1, b2.1"));
    assert_eq!(why(&world, 3, id), "", "it merely waits for its turn");
}

#[test]
fn who_was_merely_down_has_a_moment_to_be_let_back_before_it_is_tried_out() {
    let mut world = World::new(3);
    case(&mut world, 2, &[Event::Down, Event::Recovered]);
    world.submit(vec![BuildSpec { retries: 1, ..spec("c", &[]) }, BuildSpec { retries: 1, ..spec("d", &[]) }]);
    assert_eq!(given(&world, 3), sorted(&[3]));
    pass(&mut world, 2 * RETURNED_MS);
    assert_eq!(given(&world, 3), sorted(&[2, 3]));
}

/// Incident 8: a host that fails at once rests, longer each time, while the others build.
#[test]
fn who_fails_fast_rests() {
    let mut world = World::new(3);
    for n in 0..3 {
        tried_in(&mut world, &format!("p{n}"), &[(2, Some(Phase::Store))], 10);
    }
    world.submit((0..3).map(|n| spec(&format!("w{n}"), &[])).collect());
    assert_eq!(given(&world, 3), sorted(&[3]));
    let told = restraint(&world).host(&key(2)).unwrap_or_default().to_owned();
    assert!(told.starts_with("resting for 30 s more: its last 3 builds failed at once (b1.1"), "{told}");
    assert_eq!(with(Some(Mutant::BlameNoRest), || given(&world, 3)), sorted(&[2, 3]));
    pass(&mut world, 31_000);
    assert_eq!(given(&world, 3), sorted(&[2, 3]));
}

/// A person who mends a program tries it often: that says nothing of the host, and nobody waits for it.
#[test]
fn what_is_never_tried_elsewhere_puts_nobody_to_rest() {
    let mut world = World::new(3);
    for n in 0..5 {
        let id = world.submit(vec![once(&format!("make{n}"))])[0];
        assert!(world.assign(id, 1, 2).is_ok());
        assert!(world.end_with(id, 1, 2, failed(Phase::Command), &[]).is_ok());
    }
    assert_eq!(restraint(&world).host(&key(2)), None);
    // Of the only host there is nobody to compare with.
    let mut alone = World::new(1);
    for n in 0..5 {
        tried_in(&mut alone, &format!("p{n}"), &[(1, Some(Phase::Store))], 10);
    }
    assert_eq!(restraint(&alone).host(&key(1)), None);
}

/// Incident 9, of one package: not tried on a third host, for a while, unless a person asks.
#[test]
fn a_package_that_failed_on_two_hosts_is_held() {
    let mut world = World::new(4);
    let id = tried(&mut world, "poison", &[(2, Some(Phase::Command)), (3, Some(Phase::Command))]);
    assert_eq!(given(&world, 4), [], "it has eight tries left, and a host that has not seen it");
    assert_eq!(why(&world, 4, id), "poison is held: its own command fails, on h2, h3 (b1.1, b1.2)");
    assert_eq!(with(Some(Mutant::HeldPackagesGoOn), || given(&world, 4).len()), 1);
    // The same again is the same package; another command under its name is not.
    let again = world.submit(vec![BuildSpec { retries: 9, ..spec("poison", &[]) }])[0];
    let other = BuildSpec { command: vec!["mended".into()], retries: 9, ..spec("poison", &[]) };
    let mended = world.submit(vec![other])[0];
    let builds: Vec<BuildId> = planned(&world, &view(4)).assign.iter().map(|a| a.build).collect();
    assert_eq!(builds, [mended]);
    assert!(why(&world, 4, again).starts_with("poison is held"));
    // Whoever waits for one try gets it.
    let waited_for = world.submit(vec![once("poison")])[0];
    assert_eq!(why(&world, 4, waited_for), "");
    // A person asks again; and after the window it is tried by itself.
    let cancel = crate::ledger::Cancel { builds: vec![again], reason: "asked".into() };
    assert!(world.send(1, Command::Cancel(cancel)).is_ok());
    let asked = world.send(1, Command::Retry(crate::ledger::Retry { build: again })).builds[0];
    assert_eq!(why(&world, 4, asked), "");
    let window_ms = Policy::default().blame.window_ms;
    pass(&mut world, window_ms + 1);
    assert_eq!(why(&world, 4, id), "");
    assert!(planned(&world, &view(4)).assign.iter().any(|a| a.build == id));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a person has put a stop to, and whoever is being healed: no build goes there while it holds, and what
    /// is kept from everybody says why.
    #[test]
    fn nothing_is_given_where_something_stands(
        stops in prop::collection::vec((0u8..3, 2u8..6, 1u64..40), 0..6),
        aside in prop::collection::btree_set(2u8..6, 0..4),
        passes in 0u64..40,
    ) {
        let mut world = World::new(6);
        let id = world.submit((0..6).map(|n| once(&format!("w{n}"))).collect())[0];
        for (kind, host, minutes) in &stops {
            let (kind, host) = match kind {
                0 => (Stop::Block, Some(*host)),
                1 => (Stop::Drain, Some(*host)),
                _ => (Stop::Pause, None),
            };
            stop(&mut world, kind, host, minutes * MINUTE);
        }
        for host in &aside {
            case(&mut world, *host, &[Event::Blamed]);
        }
        pass(&mut world, passes * MINUTE);
        let now = world.ledger.time_ms();
        let measures = &world.ledger.healing().measures;
        let given = given(&world, 6);
        for host in &given {
            prop_assert!(measures.pause(now).is_none() && measures.of(host, now).is_none());
            prop_assert!(!aside.iter().any(|n| key(*n) == *host));
        }
        let free = (2..=6).filter(|n| measures.of(&key(*n), now).is_none() && !aside.contains(n)).count();
        let open = measures.pause(now).is_none();
        prop_assert_eq!(given.len(), if open { free } else { 0 });
        prop_assert_eq!(why(&world, 6, id).is_empty(), open && free > 0);
        let standing = measures.in_force(now).next().is_some() || !aside.is_empty();
        prop_assert_eq!(wakes_ms(&world.ledger, &[]) - world.ledger.time_ms() <= TIME_STANDS_MS_MAX, standing);
    }
}

/// Whoever has the inputs may be back in a minute: what nobody could fetch waits a while, longer each time.
#[test]
fn inputs_that_nobody_could_fetch_are_tried_again_after_a_while() {
    let mut world = World::new(4);
    let id = tried(&mut world, "far", &[(2, Some(Phase::Fetch)), (3, Some(Phase::Fetch))]);
    let rest_ms = Rules::default().rest_ms;
    assert!(why(&world, 4, id).starts_with("far is held: nobody can fetch or unpack its inputs"));
    let verdicts = judge(&world.ledger, &Rules::default());
    assert_eq!(wakes_ms(&world.ledger, &verdicts), world.ledger.time_ms() + rest_ms, "time moves for it");
    pass(&mut world, rest_ms);
    assert_eq!(why(&world, 4, id), "");
    assert_eq!(given(&world, 4).len(), 1);
    assert_eq!(with(Some(Mutant::InputsHeldForHours), || given(&world, 4).len()), 0);
    // The same twice more: four times as long.
    tried(&mut world, "far", &[(2, Some(Phase::Fetch)), (4, Some(Phase::Fetch))]);
    pass(&mut world, 4 * rest_ms - 1);
    assert!(why(&world, 4, id).starts_with("far is held"));
    pass(&mut world, 1);
    assert_eq!(why(&world, 4, id), "");
}

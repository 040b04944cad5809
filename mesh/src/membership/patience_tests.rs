//! How the watchers bear loss on connections that keep order, and how little they say: patience, second words,
//! answers for others, repetitions, shared probes. Each rule beside the naive one.

use super::world::*;
use super::*;
use std::collections::BTreeMap;

/// Statements published: accusations, answers.
fn said(world: &World) -> (usize, usize) {
    let kinds = world.published.iter().map(|bytes| decode::<Statement>(bytes, STATEMENT_BYTES_MAX));
    kinds.fold((0, 0), |(accusations, answers), kind| match kind {
        Ok(Statement::Accusation(_)) => (accusations + 1, answers),
        Ok(Statement::Alive(_)) => (accusations, answers + 1),
        _ => (accusations, answers),
    })
}

/// Two minutes of thirty hosts, a quarter of all packets lost, everything on streams that keep order.
fn held_up(config: Config) -> ((usize, usize), usize, Duration) {
    let mut world = World::new(30, 4, config);
    world.ordered = Some(BTreeMap::new());
    world.run(3_000);
    world.loss_percent = 25;
    world.published.clear();
    world.run(120_000);
    let now = world.now;
    let lateness = (0..30).map(|host| world.core(host).lateness(now)).max().unwrap_or_default();
    (said(&world), world.downs().len(), lateness)
}

#[test]
fn a_quarter_lost_on_streams_kills_nobody_and_makes_little_noise() {
    let ((accusations, answers), downs, lateness) = held_up(Config::default());
    assert_eq!(downs, 0);
    assert!(lateness > Duration::from_millis(1_000), "{lateness:?}");
    // Little more than a refutation each.
    assert!(accusations < 60 && answers < accusations * 3, "{accusations} accusations, {answers} answers");

    let hasty = Config { late_factor: 0, vouch: Duration::ZERO, grace_max: Duration::ZERO, ..Config::default() };
    let ((noise, echoes), _, _) = held_up(hasty);
    assert!(noise > 2 * accusations && echoes > 4 * answers, "a fixed patience: {noise} accusations, {echoes} answers");
}

#[test]
fn false_alarms_make_the_late_patient_and_nobody_else() {
    let now = Time::from_millis(1_000);
    let mut world = World::new(12, 5, Config::default());
    let core = world.core(0);
    let wait = Duration::from_secs(2);
    assert_eq!(core.wary(wait, now), wait);
    for _ in 0..8 {
        core.alarms.heard(core.config.alarms_half_life, now);
    }
    assert_eq!(core.wary(wait, now), 2 * wait);
    assert_eq!(core.wary(wait, now + core.config.alarms_half_life), wait * 3 / 2);
    assert_eq!(core.wary(Duration::ZERO, now), Duration::ZERO, "whose answers come at once waits no longer");
}

/// How long thirty hosts need to know of a death, when some of its watchers have lately waited for so long: the mean of
/// five.
fn death_after_waits(late_ms: u64, watchers: usize) -> Duration {
    (6..11).map(|seed| one_after_waits(seed, late_ms, watchers)).sum::<Duration>() / 5
}

fn one_after_waits(seed: u64, late_ms: u64, watchers: usize) -> Duration {
    let mut world = World::new(30, seed, Config::default());
    world.run(3_000);
    let (now, half_life) = (world.now, Config::default().late_half_life);
    let (victim, peer) = (7, keys(7).key());
    let watching: Vec<usize> = (0..30).filter(|h| world.core(*h).watches().any(|p| *p == peer)).collect();
    for watcher in &watching[..watchers] {
        let peers: Vec<PeerKey> = world.core(*watcher).watches().copied().collect();
        for of in peers {
            let subject = world.core(*watcher).subjects.get_mut(&of).expect("watched");
            subject.late.note(Duration::from_millis(late_ms), half_life, now);
        }
    }
    world.run(50);
    let killed = world.now;
    world.kill(victim, false);
    world.run(40_000);
    let downs = world.downs();
    assert_eq!(downs.len(), 29, "{downs:?}");
    downs.iter().map(|d| d.0.since(killed)).max().unwrap_or_default()
}

#[test]
fn patience_of_some_watchers_does_not_delay_the_verdict() {
    let calm = death_after_waits(0, 0);
    assert!(calm < Duration::from_millis(3_200), "{calm:?}");
    // Seven of eight are patient: the eighth accuses, they join it, and wait as long for an answer.
    let mixed = death_after_waits(5_000, 7);
    let Config { grace, grace_max, silence, silence_joined, .. } = Config::default();
    let bound = calm + (grace_max - grace) + (silence - silence_joined) + Duration::from_millis(150);
    assert!(mixed < bound, "{mixed:?}, {calm:?} where nobody is patient");
    let all = death_after_waits(5_000, 8);
    assert!(all > mixed + Duration::from_millis(3_000), "patience is real: {all:?}");
    assert!(all < Duration::from_millis(18_000), "and bounded: {all:?}");
}

/// How often host 2 was wrong about host 4, which has started anew and meets it two seconds later than the others.
fn wrong_about_one_started_anew(config: Config) -> u32 {
    let mut world = World::new(6, 12, config);
    world.run(3_000);
    world.kill(4, true);
    world.run(8_000);
    assert_eq!(world.state(2, 4), State::Down);
    world.cuts.extend([(2, 4), (4, 2)]);
    world.start(4, 2);
    world.run(2_000);
    world.cuts.clear();
    world.run(4_000);
    assert_eq!(world.state(2, 4), State::Alive);
    world.core(2).subjects.get(&keys(4).key()).expect("watched").doublings
}

#[test]
fn one_started_anew_has_time_to_be_met() {
    assert_eq!(wrong_about_one_started_anew(Config::default()), 0);
    let hasty = Config { acquaint: Duration::ZERO, ..Config::default() };
    assert!(
        wrong_about_one_started_anew(hasty) > 0,
        "a watcher that grants none is wrong, and doubts itself for a minute"
    );
}

#[test]
fn the_accused_answers_for_itself() {
    let mut world = World::new(30, 8, Config::default());
    world.run(3_000);
    let watcher = (0..30).find(|h| world.core(*h).watches().any(|p| *p == keys(9).key())).expect("it has eight");
    world.cuts.extend([(watcher, 9), (9, watcher)]);
    world.published.clear();
    world.run(3_500);
    // The two accuse each other.
    let by_nine = |bytes: &&Vec<u8>| match decode::<Statement>(bytes, STATEMENT_BYTES_MAX) {
        Ok(Statement::Alive(signed)) => signed.by == keys(9).key(),
        _ => false,
    };
    assert_eq!(world.published.iter().filter(by_nine).count(), 1, "none of its seven other watchers has to");
}

#[test]
fn the_others_answer_for_one_that_cannot_speak() {
    let mut world = World::new(30, 9, Config::default());
    world.run(3_000);
    let watcher = (0..30).find(|h| world.core(*h).watches().any(|p| *p == keys(9).key())).expect("it has eight");
    world.cuts.extend([(watcher, 9), (9, watcher)]);
    let core = world.core(9);
    core.speak = Some(Time::from_millis(u64::MAX / 2_000)); // its own word never comes
    world.published.clear();
    world.run(4_500);
    let (accusations, answers) = said(&world);
    assert!(accusations >= 1 && answers >= 1, "{accusations} accusations, {answers} answers");
    assert_eq!(world.downs(), []);
}

#[test]
fn the_dead_cost_less_and_less() {
    let mut world = World::new(30, 10, Config::default());
    world.run(3_000);
    world.kill(4, false);
    world.published.clear();
    world.run(60_000);
    let first = said(&world).0;
    world.published.clear();
    world.run(1_200_000);
    let later = said(&world).0;
    assert!((8..=60).contains(&first), "{first} in the first minute");
    assert!(later <= 8 * 8, "{later} in the next twenty");
    // Nobody has forgotten.
    for at in (0..30).filter(|h| *h != 4) {
        assert_eq!(world.state(at, 4), State::Down);
    }
    // A newcomer learns it, and a return is seen at once.
    world.start(12, 2);
    world.run(8_000);
    assert_eq!(world.state(12, 4), State::Down);
    world.start(4, 2);
    world.run(4_000);
    assert!((0..30).all(|at| world.state(at, 4) == State::Alive));
}

#[test]
fn who_asks_but_never_answers_is_noticed() {
    let mut world = World::new(12, 11, Config::default());
    world.run(3_000);
    world.dumb.insert(3);
    let now = world.now;
    world.run(20_000);
    let noticed = world.log.iter().find(|(at, _, output)| {
        *at > now && matches!(output, Output::Changed { peer, to: State::Suspect, .. } if *peer == keys(3).key())
    });
    let at = noticed.map(|(at, ..)| at.since(now));
    assert!(at.is_some_and(|at| at < Duration::from_millis(8_000)), "{at:?}");
}

/// How long five hosts need to know of the second death of the sixth, which started anew a few seconds before it: the mean
/// of thirty.
fn second_deaths(naive: bool) -> Duration {
    let once = |seed: u64| {
        let mut world = World::new(6, seed, Config::default());
        world.run(3_000);
        world.kill(4, true);
        world.run(3_000);
        world.start(4, 2);
        for _ in 0..100 {
            if naive {
                for core in world.cores.iter_mut().flatten() {
                    core.subjects.iter_mut().for_each(|(_, subject)| subject.spread = None);
                }
            }
            world.run(1);
        }
        world.run(4_000 + seed * 97 % 1_250);
        let off = world.now;
        world.kill(4, false);
        world.run(8_000);
        let took: Vec<Duration> = world.downs().iter().filter(|d| d.0 > off).map(|d| d.0.since(off)).collect();
        assert_eq!(took.len(), 5, "{took:?}");
        took.into_iter().max().unwrap_or_default()
    };
    (0..30).map(once).sum::<Duration>() / 30
}

#[test]
fn who_starts_anew_is_not_asked_by_all_at_once() {
    let (ours, naive) = (second_deaths(false), second_deaths(true));
    assert!(ours < Duration::from_millis(2_250), "{ours:?}");
    // It asks all that it connects to, each of them takes that for an answer, and asks a whole period later.
    assert!(naive > ours + Duration::from_millis(100), "{naive:?}, and ours {ours:?}");
}

//! Watchers in a model network: deaths, loss, cuts, restarts, replays, twins.

use super::world::*;
use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn world(hosts: usize, seed: u64) -> World {
    let mut world = World::new(hosts, seed, Config::default());
    world.run(3_000);
    world
}

fn all_alive(world: &World) {
    for at in 0..world.cores.len() {
        for of in 0..world.cores.len() {
            if world.cores[at].is_some() && world.cores[of].is_some() {
                assert_eq!(world.state(at, of), State::Alive, "h{of} in the eyes of h{at} at {:?}", world.now);
            }
        }
    }
}

#[test]
fn all_meet_and_know_each_other() {
    let world = world(6, 1);
    all_alive(&world);
    for core in world.cores.iter().flatten() {
        for (_, view) in core.hosts() {
            assert!(view.presence.as_ref().is_some_and(|p| p.facts.cores == 4));
            assert_eq!(view.free_cores, Some(3));
        }
        assert_eq!(core.refused(), 0);
    }
    let view = world.cores[0].as_ref().unwrap().host(&keys(1).key()).unwrap();
    assert_eq!(view.rtt, Some(Duration::from_millis(4)));
    assert_eq!(view.wall_offset_ms, Some(0));
}

#[test]
fn a_killed_host_is_down_for_all_within_three_seconds() {
    for seed in 0..8 {
        for closes in [false, true] {
            let mut world = world(6, seed);
            world.run(seed * 37);
            let killed = world.now;
            world.kill(5, closes);
            world.run(20_000);
            let downs = world.downs();
            let who: BTreeSet<usize> = downs.iter().map(|d| d.1).collect();
            assert_eq!(who, (0..5).collect(), "seed {seed}");
            assert!(downs.iter().all(|d| d.2 == 5), "seed {seed}: {downs:?}");
            let last = downs.iter().map(|d| d.0.since(killed)).max().unwrap();
            assert!(last < Duration::from_millis(if closes { 1_500 } else { 3_000 }), "seed {seed}: {last:?}");
            all_alive(&world);
        }
    }
}

/// One watcher whose link to a healthy host is broken: rule 5.
fn broken_link(config: Config) -> World {
    let mut world = World::new(6, 3, config);
    world.run(3_000);
    world.cuts.extend([(0, 5), (5, 0)]);
    world.run(120_000);
    world
}

#[test]
fn one_observer_is_not_evidence() {
    let world = broken_link(Config::default());
    assert_eq!(world.downs(), []);
    let core = world.cores[0].as_ref().unwrap();
    let kept: Vec<_> = core.accusations(&keys(5).key()).collect();
    assert!(!kept.is_empty() && kept.iter().all(|a| a.accuser == keys(0).key()));
    // Its doubts become rarer: 1.6, 3.2, 6.4 … 25.6 s.
    assert!(kept.len() < 12, "{} accusations in two minutes", kept.len());

    let naive = Config { accusers: 1, accusers_few: 1, grace: Duration::ZERO, ..Config::default() };
    assert!(!broken_link(naive).downs().is_empty(), "the naive rule takes one host's word");
}

#[test]
fn a_quarter_of_all_packets_lost_kills_nobody() {
    for seed in 0..4 {
        let mut world = world(6, seed);
        world.loss_percent = 25;
        world.run(120_000);
        assert_eq!(world.downs(), [], "seed {seed}");
        world.loss_percent = 0;
        world.run(5_000);
        all_alive(&world);
    }
}

/// Two minutes in which so many packets are lost; how many accusations, how many downs.
fn lossy(percent: u64, seed: u64, config: Config) -> (usize, usize) {
    let mut world = World::new(6, seed, config);
    world.run(3_000);
    world.loss_percent = percent;
    world.run(120_000);
    ((0..6).map(|h| accusations_by(&world, h)).sum(), world.downs().len())
}

/// At a quarter hardly anybody accuses; at a half it is fresh word that saves the accused.
#[test]
fn half_of_all_packets_lost_makes_accusations_but_no_downs() {
    let (accusations, downs) = lossy(50, 0, Config::default());
    assert!(accusations >= 10 && downs == 0, "{accusations} accusations, {downs} downs");
    let (grace, grace_max) = (Duration::ZERO, Duration::ZERO);
    let naive = Config { accusers: 1, accusers_few: 1, grace, grace_max, ..Config::default() };
    assert!(lossy(50, 0, naive).1 > 0, "the naive rule takes each accusation for a death");
}

/// Accusations that one host published.
fn accusations_by(world: &World, host: usize) -> usize {
    let by = |bytes: &&Vec<u8>| match decode::<Statement>(bytes, STATEMENT_BYTES_MAX) {
        Ok(Statement::Accusation(signed)) => signed.by == keys(host).key(),
        _ => false,
    };
    world.published.iter().filter(by).count()
}

fn cut_off(config: Config) -> World {
    let mut world = World::new(6, 5, config);
    world.run(3_000);
    for other in 0..5 {
        world.cuts.extend([(5, other), (other, 5)]);
    }
    world.run(20_000);
    world
}

#[test]
fn who_loses_everybody_keeps_still() {
    let mut world = cut_off(Config::default());
    let downs = world.downs();
    assert!(downs.iter().all(|d| d.1 != 5 && d.2 == 5), "{downs:?}");
    assert_eq!(downs.len(), 5);
    let now = world.now;
    assert!(world.core(5).keeps_still(now));
    assert_eq!(world.state(5, 0), State::Suspect, "shown, but not claimed");
    assert_eq!(accusations_by(&world, 5), 0);
    let naive = cut_off(Config { still_percent: 100, ..Config::default() });
    assert!(accusations_by(&naive, 5) >= 5, "the naive watcher accuses the whole mesh");
    // Down is cheap to reverse, on both sides.
    world.cuts.clear();
    world.run(5_000);
    all_alive(&world);
}

#[test]
fn a_stalled_loop_accuses_nobody() {
    for seed in 0..5 {
        let mut world = world(6, seed);
        // Five seconds: the others miss it, and are right. It must not miss them.
        let wake = world.now + Duration::from_millis(5_000);
        world.stalled.insert(2, wake);
        world.run(5_000);
        assert!(world.downs().iter().all(|d| d.2 == 2));
        world.log.clear();
        world.run(10_000);
        let doubts = |o: &Output| matches!(o, Output::Changed { to: State::Suspect | State::Down, .. });
        assert!(!world.log.iter().any(|(_, at, o)| *at == 2 && doubts(o)), "{:?}", world.log);
        all_alive(&world);
    }
}

/// Three accusations arrive, then the loop sleeps through their grace.
fn asleep_at_the_verdict(config: Config) -> State {
    let mut world = World::new(6, 6, config);
    world.run(3_000);
    for accuser in 1..4 {
        let signed = Signed::seal(&keys(accuser), &accusation(5, MESH));
        world.give(0, Input::Statement(encode(&Statement::Accusation(signed))));
    }
    assert_eq!(world.state(0, 5), State::Suspect);
    let late = world.now + Duration::from_millis(5_000);
    world.core(0).handle_timeout(late); // before it has read what came meanwhile
    world.state(0, 5)
}

#[test]
fn a_verdict_is_not_slept_into() {
    assert_eq!(asleep_at_the_verdict(Config::default()), State::Suspect);
    let naive = Config { stall: Duration::from_secs(3_600), ..Config::default() };
    assert_eq!(asleep_at_the_verdict(naive), State::Down, "the naive loop condemns who has answered long ago");
}

#[test]
fn a_link_that_works_one_way_only_is_one_observers_trouble() {
    for cut in [(0, 5), (5, 0)] {
        let mut world = world(6, 17);
        world.cuts.insert(cut);
        world.run(60_000);
        assert_eq!(world.downs(), []);
        for at in 1..5 {
            assert_eq!(world.state(at, 5), State::Alive);
        }
    }
}

#[test]
fn a_restart_is_noticed_once_by_all() {
    let mut world = world(6, 7);
    world.kill(4, true);
    world.run(300);
    world.start(4, 2);
    world.run(3_000);
    let peer = keys(4).key();
    for at in [0, 1, 2, 3, 5] {
        let noticed: Vec<_> = world
            .log
            .iter()
            .filter(|(_, by, o)| *by == at && matches!(o, Output::Restarted { .. }))
            .map(|(_, _, o)| o.clone())
            .collect();
        assert_eq!(noticed, [Output::Restarted { peer, before: 1, start: 2 }]);
    }
    all_alive(&world);
}

#[test]
fn a_farewell_holds_until_the_next_start() {
    let mut world = world(4, 8);
    let now = world.now;
    world.core(3).leave(now);
    world.drain(3);
    world.run(1_000);
    world.kill(3, true);
    world.run(60_000);
    for at in 0..3 {
        assert_eq!(world.state(at, 3), State::Left);
    }
    assert_eq!(world.downs(), []);
    world.start(3, 2);
    world.run(3_000);
    all_alive(&world);
}

#[test]
fn who_missed_the_farewell_learns_it_by_accusing() {
    let mut world = world(4, 9);
    world.cuts.extend([(3, 0), (3, 1), (3, 2), (0, 3)]);
    world.cuts.remove(&(3, 1));
    world.cuts.extend([(1, 0), (2, 0)]); // h0 hears nothing for a moment
    let now = world.now;
    world.core(3).leave(now);
    world.drain(3);
    world.run(100);
    world.kill(3, false);
    world.cuts.clear();
    world.run(20_000);
    for at in 0..3 {
        assert_eq!(world.state(at, 3), State::Left, "at h{at}");
    }
}

#[test]
fn of_two_hosts_the_survivor_judges_alone_and_slowly() {
    let mut world = world(2, 10);
    let killed = world.now;
    world.kill(1, false);
    world.run(5_000);
    assert_eq!(world.state(0, 1), State::Suspect);
    world.run(10_000);
    let view = world.core(0).host(&keys(1).key()).unwrap().into_owned();
    assert_eq!(view.state, State::Down);
    assert!(view.sole_witness);
    assert!(view.since.since(killed) >= Duration::from_millis(6_400), "{:?}", view.since.since(killed));
    world.start(1, 2);
    world.run(3_000);
    all_alive(&world);
    assert!(!world.core(0).host(&keys(1).key()).unwrap().sole_witness);
}

#[test]
fn a_host_never_heard_is_suspect_then_down_by_the_rules() {
    let mut world = World::new(4, 11, Config::default());
    world.cores[3] = None;
    world.run(9_000);
    assert_eq!(world.state(0, 3), State::Suspect);
    assert_eq!(world.core(0).accusations(&keys(3).key()).count(), 0);
    world.run(10_000);
    for at in 0..3 {
        assert_eq!(world.state(at, 3), State::Down);
    }
    // A newcomer among the watchers comes to the same view.
    world.kill(2, false);
    world.run(10_000);
    world.start(2, 2);
    world.run(25_000);
    assert_eq!(world.state(2, 3), State::Down);
    all_alive(&world);
}

#[test]
fn old_statements_do_nothing() {
    let mut world = world(4, 12);
    world.cuts.extend([(0, 3), (3, 0)]);
    world.run(8_000);
    world.cuts.clear();
    world.kill(2, true);
    world.run(300);
    world.start(2, 2);
    world.run(40_000);
    all_alive(&world);
    let old = world.published.clone();
    assert!(old.len() > 8);
    world.log.clear();
    let views: Vec<String> =
        world.core(1).hosts().map(|(p, v)| format!("{p:?} {:?} {:?}", v.state, v.incarnation)).collect();
    for bytes in old {
        world.give(1, Input::Statement(bytes));
    }
    let after: Vec<String> =
        world.core(1).hosts().map(|(p, v)| format!("{p:?} {:?} {:?}", v.state, v.incarnation)).collect();
    assert_eq!(views, after);
    assert_eq!(world.log, []);
    assert_eq!(world.core(1).refused(), 0, "old is not hostile");
}

fn accusation(subject: usize, mesh: [u8; 32]) -> Accusation {
    let evidence = Evidence { silent_ms: 1_600, attempts: 9, heard_ms: Some(1), relayed: false, connected: true };
    Accusation {
        mesh,
        start: 1,
        sequence: 1,
        subject: keys(subject).key(),
        incarnation: Incarnation { start: u64::MAX, refutation: u32::MAX },
        stamp_us: u64::MAX,
        evidence,
    }
}

#[test]
fn forgeries_are_refused_and_counted() {
    let mut world = world(4, 13);
    world.log.clear();
    let good = Signed::seal(&keys(2), &accusation(3, MESH));
    let forged = Signed { by: keys(1).key(), ..good.clone() };
    let stranger = Signed::seal(&keys(77), &accusation(3, MESH));
    let elsewhere = Signed::seal(&keys(2), &accusation(3, [1; 32]));
    let unknown = Signed::seal(&keys(2), &accusation(77, MESH));
    let itself = Signed::seal(&keys(3), &accusation(3, MESH));
    for (n, signed) in [forged, stranger, elsewhere, unknown, itself].into_iter().enumerate() {
        world.give(0, Input::Statement(encode(&Statement::Accusation(signed))));
        assert_eq!(world.core(0).refused(), n as u64 + 1);
    }
    // One label's signature under another's name.
    world.give(0, Input::Statement(encode(&Statement::Farewell(good.clone()))));
    world.give(0, Input::Statement(b"noise".to_vec()));
    world.give(0, Input::Probe { from: keys(77).key(), bytes: vec![] });
    world.give(0, Input::Reply { from: keys(2).key(), bytes: vec![0] });
    assert_eq!(world.core(0).refused(), 9);
    assert_eq!(world.log, []);
    // The signed one counts, but a claim about the future is answered by the present.
    world.give(0, Input::Statement(encode(&Statement::Accusation(good))));
    assert_eq!(world.state(0, 3), State::Suspect);
    world.run(1_000);
    all_alive(&world);
}

#[test]
fn two_lives_of_one_key_are_noticed() {
    // The same start number in another place.
    let mut world = world(3, 14);
    let twin = Presence {
        mesh: MESH,
        start: 1,
        sequence: 1,
        store: [2; 16],
        machine_id: [2; 32],
        boot_id: [77; 16],
        nonce: 77,
        facts: PresenceFacts::default(),
    };
    let bytes = encode(&Statement::Presence(Signed::seal(&keys(2), &twin)));
    world.give(0, Input::Statement(bytes.clone()));
    world.give(2, Input::Statement(bytes));
    for at in [0, 2] {
        let clone = |o: &Output| matches!(o, Output::Clone { peer, evidence: CloneEvidence::TwoOrigins { .. } } if *peer == keys(2).key());
        assert_eq!(world.log.iter().filter(|(_, by, o)| *by == at && clone(o)).count(), 1, "at h{at}");
        assert!(world.core(at).host(&keys(2).key()).unwrap().cloned);
    }
    // A lower start that answers after a higher one was heard: the higher number is never given up.
    let later = Presence { start: 5, ..twin };
    world.give(1, Input::Statement(encode(&Statement::Presence(Signed::seal(&keys(2), &later)))));
    world.run(3_000);
    let evidence = CloneEvidence::OlderAnswers { newest: 5, answered: 1 };
    assert!(
        world
            .log
            .iter()
            .any(|(_, at, o)| *at == 1 && *o == Output::Clone { peer: keys(2).key(), evidence: evidence.clone() })
    );
    assert_eq!(world.core(1).host(&keys(2).key()).unwrap().incarnation.unwrap().start, 5);
}

/// A copy of a host that connects second is never asked, and gossip takes both for one: it is known by what it asks.
#[test]
fn a_copy_that_only_asks_is_noticed() {
    let mut world = world(3, 17);
    let asks = |start, origin| Input::Probe {
        from: keys(2).key(),
        bytes: encode(&Probe { nonce: 1, want_presence: false, want_proof: false, start, origin }),
    };
    let origin = world.core(2).host(&keys(2).key()).unwrap().presence.as_ref().map(|p| p.origin());
    world.run(2_000);
    world.give(0, asks(1, origin.unwrap_or_default()));
    world.give(0, asks(0, 5));
    assert!(!world.core(0).host(&keys(2).key()).unwrap().cloned, "the host itself, and an echo of its last life");
    world.give(0, asks(1, 5));
    assert!(world.core(0).host(&keys(2).key()).unwrap().cloned);
    world.run(6_000);
    world.give(1, asks(0, 5));
    assert!(world.core(1).host(&keys(2).key()).unwrap().cloned, "no echo lasts so long");
}

/// Members keep to the connection with the original, which answers on; the copy has the higher start.
#[test]
fn a_copy_with_a_higher_start_that_only_asks_is_noticed() {
    let mut world = world(3, 18);
    let asks = |start| Input::Probe {
        from: keys(2).key(),
        bytes: encode(&Probe { nonce: 1, want_presence: false, want_proof: false, start, origin: 5 }),
    };
    world.run(2_000);
    world.give(0, asks(3));
    let cloned = |world: &mut World| world.core(0).host(&keys(2).key()).unwrap().cloned;
    assert!(!cloned(&mut world), "it may have restarted");
    world.run(3_000);
    assert!(cloned(&mut world), "the older start answers what was asked later");
    let evidence = CloneEvidence::OlderAnswers { newest: 3, answered: 1 };
    let said = Output::Clone { peer: keys(2).key(), evidence };
    assert_eq!(world.log.iter().filter(|(_, at, o)| *at == 0 && *o == said).count(), 1, "once");

    // A host that really restarted asks first as well, and is no copy; that one has gone ends the doubt.
    for start in [4, 5] {
        world.kill(2, true);
        world.give(0, asks(start));
        world.start(2, start);
        world.run(5_000);
        assert!(!cloned(&mut world), "start {start}");
        all_alive(&world);
    }
}

#[test]
fn facts_make_a_new_presence_only_when_they_change() {
    let mut world = world(3, 15);
    let now = world.now;
    let facts =
        PresenceFacts { name: "h0".into(), cores: 8, tags: vec!["x".repeat(999), "ok".into()], ..Default::default() };
    world.published.clear();
    world.core(0).set_facts(facts.clone(), now);
    world.core(0).set_facts(facts, now);
    world.drain(0);
    assert_eq!(world.published.len(), 1);
    world.run(100);
    let presence = world.core(1).host(&keys(0).key()).unwrap().presence.clone().unwrap();
    assert_eq!((presence.sequence, presence.facts.cores, &presence.facts.tags), (2, 8, &vec!["ok".to_owned()]));
}

#[test]
fn a_presence_that_gossip_lost_comes_with_a_probe() {
    let mut world = world(3, 16);
    let now = world.now;
    world.core(0).set_facts(PresenceFacts { cores: 64, ..Default::default() }, now);
    while world.core(0).poll().is_some() {} // gossip loses it
    world.run(5_500); // each asks the other now and then
    assert_eq!(world.core(2).host(&keys(0).key()).unwrap().presence.as_ref().unwrap().facts.cores, 64);
}

/// The hash of everything that the cores of a world of four put out.
fn history(seed: u64, acts: &[(u8, u8, u16)]) -> String {
    let mut world = World::new(4, seed, Config::default());
    let mut starts = [1u64; 4];
    let mut highest: BTreeMap<(usize, PeerKey), (Incarnation, (u64, u64))> = BTreeMap::new();
    for &(act, host, wait) in acts {
        let (host, other) = (host as usize % 4, (host as usize / 4) % 4);
        match act % 6 {
            0 => world.kill(host, act > 100),
            1 if world.cores[host].is_none() => {
                starts[host] += 1;
                let start = starts[host];
                highest.retain(|(at, _), _| *at != host);
                world.start(host, start);
            }
            2 if host != other => world.cuts.extend([(host, other)]),
            3 => world.cuts.clear(),
            4 => world.loss_percent = u64::from(act) % 60,
            5 if !world.published.is_empty() && world.cores[host].is_some() => {
                let bytes = world.published[usize::from(wait) % world.published.len()].clone();
                world.give(host, Input::Statement(bytes));
            }
            _ => {}
        }
        world.run(u64::from(wait) % 4_000);
        for (at, core) in world.cores.iter().enumerate() {
            for (peer, view) in core.iter().flat_map(|c| c.hosts()) {
                let new = (view.incarnation.unwrap_or_default(), view.presence.as_ref().map_or((0, 0), |p| p.order()));
                let old = highest.insert((at, *peer), new).unwrap_or_default();
                assert!(old.0 <= new.0 && old.1 <= new.1, "{peer:?} went back at h{at}: {old:?} -> {new:?}");
            }
        }
    }
    // When all is well again, all end with the same view.
    world.cuts.clear();
    world.loss_percent = 0;
    world.run(40_000);
    all_alive(&world);
    let gone: Vec<usize> = (0..4).filter(|h| world.cores[*h].is_none()).collect();
    if gone.len() <= 1 {
        for at in (0..4).filter(|h| world.cores[*h].is_some()) {
            for of in &gone {
                let core = world.cores[at].as_ref().unwrap();
                let kept: Vec<_> = core.accusations(&keys(*of).key()).collect();
                assert_eq!(world.state(at, *of), State::Down, "h{of} at h{at} at {:?}: {kept:#?}", world.now);
            }
        }
    }
    world.trace.finalize().to_hex().to_string()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn nothing_goes_back_and_equal_inputs_give_equal_outputs(seed: u64, acts in prop::collection::vec(any::<(u8, u8, u16)>(), 0..14)) {
        prop_assert_eq!(history(seed, &acts), history(seed, &acts));
    }
}

#[test]
fn watchers_that_never_heard_a_dead_host_still_count() {
    // Three of four die, two come back knowing nothing of the third: with the survivor they convict it.
    history(0, &[(216, 152, 0), (42, 85, 4), (6, 34, 2203), (121, 173, 7755), (247, 136, 38458)]);
}

#[test]
fn who_dies_as_soon_as_it_has_come_is_down_though_one_watcher_never_met_it() {
    let mut world = World::new(3, 7, Config::default());
    world.kill(2, true);
    world.run(5_000);
    // It reaches the first only, lives for a moment, and the second hears nothing of it.
    world.cuts.extend([(1, 2), (2, 1)]);
    world.start(2, 2);
    world.run(300);
    assert_eq!(world.state(0, 2), State::Alive);
    world.kill(2, true);
    world.run(20_000);
    assert_eq!((world.state(0, 2), world.state(1, 2)), (State::Down, State::Down));
}

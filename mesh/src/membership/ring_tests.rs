//! Larger meshes, where a few watch each: detection, mass deaths, partitions, repair, newcomers, memory.

use super::world::*;
use super::*;
use std::collections::BTreeSet;

fn world(hosts: usize, seed: u64, config: Config) -> World {
    let mut world = World::new(hosts, seed, config);
    world.run(3_000);
    world
}

fn living(world: &World) -> Vec<usize> {
    (0..world.cores.len()).filter(|h| world.cores[*h].is_some()).collect()
}

/// How many views of hosts that run are not `Alive`.
fn doubts(world: &World) -> usize {
    let living = living(world);
    living.iter().map(|at| living.iter().filter(|of| world.state(*at, **of) != State::Alive).count()).sum()
}

#[test]
fn a_watcher_asks_eight_whatever_the_size() {
    for hosts in [30, 100] {
        let mut world = world(hosts, 1, Config::default());
        assert_eq!(doubts(&world), 0);
        let watched: usize = world.cores.iter().flatten().map(|c| c.watches().count()).sum();
        assert_eq!(watched, hosts * WATCHERS);
        world.probes = 0;
        world.run(10_000);
        let each = world.probes as f64 / hosts as f64 / 10.0;
        // One for each of eight watchers in two seconds would be four a second; two that watch each other share one.
        assert!((2.0..3.0).contains(&each), "{each} probes a second and host");
        for core in world.cores.iter().flatten() {
            assert!(core.hosts().all(|(_, view)| view.presence.is_some()));
            assert_eq!(core.refused(), 0);
        }
    }
}

/// Runs on; `naive`: each answer is followed by a whole period, also those to what all asked at once.
fn in_step(world: &mut World, millis: u64, naive: bool) {
    for _ in 0..millis {
        if naive {
            for core in world.cores.iter_mut().flatten() {
                core.subjects.iter_mut().for_each(|(_, subject)| subject.in_step = false);
            }
        }
        world.run(1);
    }
}

/// How long until somebody asks a host next, on the mean of all hosts and of many moments.
fn asked_next(naive: bool) -> Duration {
    let mut world = World::new(30, 2, Config::default());
    in_step(&mut world, 500, naive);
    world.run(4_000);
    next_asked(&mut world)
}

/// The same after deaths: whoever is about to accuse asks all others first, whether it is deaf itself.
fn asked_next_after_deaths(naive: bool) -> Duration {
    let mut world = World::new(30, 2, Config::default());
    world.run(4_000);
    for victim in [3, 8, 13] {
        world.kill(victim, true);
    }
    in_step(&mut world, 1_500, naive);
    world.run(4_000);
    next_asked(&mut world)
}

fn next_asked(world: &mut World) -> Duration {
    let (mut sum, mut count) = (Duration::ZERO, 0);
    for _ in 0..20 {
        world.run(170);
        for of in (0..30).filter(|of| world.cores[*of].is_some()) {
            let asked = |core: &Membership| Some(core.subjects.get(&keys(of).key()).filter(|s| s.watched)?.next);
            let next = world.cores.iter().flatten().filter_map(asked).min().expect("somebody watches it");
            sum += next.since(world.now);
            count += 1;
        }
    }
    sum / count
}

#[test]
fn watchers_do_not_march_in_step() {
    let (ours, naive) = (asked_next(false), asked_next(true));
    // Eight that ask at random, each every two seconds: the first of them after a ninth of that.
    assert!(ours < Duration::from_millis(400), "{ours:?}");
    assert!(naive > ours * 3 / 2, "all that connected at once ask at once: {naive:?}, and ours {ours:?}");
}

#[test]
fn a_death_brings_nobody_into_step() {
    let (ours, naive) = (asked_next_after_deaths(false), asked_next_after_deaths(true));
    assert!(ours < Duration::from_millis(400), "{ours:?}");
    assert!(
        naive > ours * 5 / 4,
        "who was asked because of it is asked at once from then on: {naive:?}, ours {ours:?}"
    );
}

#[test]
fn a_second_and_third_word_need_less_silence() {
    let slowest = |silence_joined: Duration| {
        let of = |seed| detection_with(30, seed, 0, Config { silence_joined, ..Config::default() });
        (0..12).map(of).max().unwrap_or_default()
    };
    let (ours, naive) = (slowest(Config::default().silence_joined), slowest(Config::default().silence));
    assert!(ours < Duration::from_millis(3_200), "{ours:?}");
    assert!(naive > ours + Duration::from_millis(200), "each waits for a silence of its own: {naive:?}, ours {ours:?}");
}

/// How long until a killed host is down for all, and for all who lives nobody falsely.
fn detection(hosts: usize, seed: u64, loss_percent: u64) -> Duration {
    detection_with(hosts, seed, loss_percent, Config::default())
}

fn detection_with(hosts: usize, seed: u64, loss_percent: u64, config: Config) -> Duration {
    let mut world = world(hosts, seed, config);
    world.loss_percent = loss_percent;
    world.run(1_000 + seed * 37);
    let (killed, victim) = (world.now, hosts / 2);
    world.kill(victim, false);
    world.run(15_000);
    let downs = world.downs();
    let who: BTreeSet<usize> = downs.iter().map(|d| d.1).collect();
    assert_eq!(who.len(), hosts - 1, "seed {seed}, {hosts} hosts, loss {loss_percent}");
    assert!(downs.iter().all(|d| d.2 == victim), "seed {seed}: {downs:?}");
    let last = |by: usize| downs.iter().filter(|d| d.1 == by).map(|d| d.0.since(killed)).max().unwrap_or_default();
    (0..hosts).map(last).max().unwrap_or_default()
}

#[test]
fn a_killed_host_is_down_for_all_of_thirty() {
    for seed in 0..6 {
        for loss in [0, 5, 25] {
            let took = detection(30, seed, loss);
            let goal = Duration::from_millis(if loss < 25 { 3_200 } else { 5_000 });
            assert!(took < goal, "seed {seed}, loss {loss}: {took:?}");
        }
    }
}

#[test]
fn a_killed_host_is_down_for_all_of_a_hundred() {
    for (seed, loss) in [(0, 0), (1, 5), (2, 25)] {
        let took = detection(100, seed, loss);
        assert!(
            took < Duration::from_millis(if loss < 25 { 3_200 } else { 5_000 }),
            "seed {seed}, loss {loss}: {took:?}"
        );
    }
}

/// Two minutes of thirty hosts in which so many packets are lost: accusations, and false downs.
fn lossy(percent: u64, mute: bool, config: Config) -> (usize, usize) {
    let mut world = world(30, 4, config);
    (world.loss_percent, world.mute) = (percent, mute);
    world.published.clear();
    world.run(120_000);
    let accusation = |b: &&Vec<u8>| matches!(decode(b, STATEMENT_BYTES_MAX), Ok(Statement::Accusation(_)));
    (world.published.iter().filter(accusation).count(), world.downs().len())
}

#[test]
fn loss_makes_accusations_and_fresh_word_answers_them() {
    assert_eq!(lossy(25, false, Config::default()).1, 0);
    let (accusations, downs) = lossy(45, false, Config::default());
    assert!(accusations > 20 && downs == 0, "{accusations} accusations, {downs} downs");
    let (grace, grace_max) = (Duration::ZERO, Duration::ZERO);
    let hasty = Config { accusers: 1, accusers_few: 1, grace, grace_max, ..Config::default() };
    assert!(lossy(45, false, hasty).1 > 0, "who believes one accuser is wrong");
    assert!(lossy(45, true, Config::default()).1 > 0, "and who hears no fresh word");
}

#[test]
fn many_that_die_at_once_are_all_found_and_nobody_else() {
    let mut world = world(60, 5, Config::default());
    for host in 0..36 {
        world.kill(host, false);
    }
    world.run(30_000);
    for at in 36..60 {
        let down: Vec<usize> = (0..60).filter(|of| world.state(at, *of) == State::Down).collect();
        assert_eq!(down, (0..36).collect::<Vec<_>>(), "at h{at}");
    }
    // They come back, and everybody learns it.
    for host in 0..36 {
        world.start(host, 2);
    }
    world.run(10_000);
    assert_eq!(doubts(&world), 0);
    assert!(world.downs().iter().all(|d| d.2 < 36));
}

#[test]
fn a_mesh_in_two_halves_heals() {
    let mut world = world(40, 6, Config::default());
    for a in 0..20 {
        for b in 20..40 {
            world.cuts.extend([(a, b), (b, a)]);
        }
    }
    world.run(30_000);
    let across = |d: &(Time, usize, usize)| (d.1 < 20) != (d.2 < 20);
    assert!(world.downs().iter().all(across), "nobody of the own half");
    assert_eq!(doubts(&world), 2 * 20 * 20, "each half misses the other");
    world.cuts.clear();
    world.run(45_000);
    assert_eq!(doubts(&world), 0);
}

/// Two networks between which nothing passes for a while, while one host of the second dies.
fn networks_apart(network: impl Fn(usize) -> u64) -> World {
    let mut world = World::placed(40, 12, Config::default(), network);
    world.run(3_000);
    for a in 0..20 {
        for b in 20..40 {
            world.cuts.extend([(a, b), (b, a)]);
        }
    }
    world.run(10_000);
    world
}

#[test]
fn another_network_that_is_cut_off_is_unreachable_and_not_down() {
    let mut world = networks_apart(|host| u64::from(host < 20));
    assert_eq!(world.downs(), []);
    assert_eq!(doubts(&world), 2 * 20 * 20);
    let unreachable = |w: &World, at: usize| {
        (0..40).filter(|of| w.cores[at].as_ref().is_some_and(|c| c.unreachable(&keys(*of).key()))).count()
    };
    let most = (0..40).map(|at| unreachable(&world, at)).min();
    assert!(most >= Some(15), "{most:?} of 20");
    world.cuts.clear();
    world.run(45_000);
    assert_eq!((doubts(&world), unreachable(&world, 0)), (0, 0));
    // Who is dead is down for both.
    world.kill(30, false);
    world.run(6_000);
    assert_eq!(world.downs().len(), 39);
    assert!(world.downs().iter().all(|d| d.2 == 30));
    assert!(!networks_apart(|_| 0).downs().is_empty(), "whoever knows of no networks buries the other half");
}

#[test]
fn a_whole_network_that_is_lost_is_down_in_the_end() {
    for hosts in [6, 24] {
        let mut world = World::placed(hosts, 13, Config::default(), |host| u64::from(host < hosts / 3));
        world.run(3_000);
        (0..hosts / 3).for_each(|host| world.kill(host, false));
        world.run(10_000);
        assert_eq!(world.downs(), [], "of {hosts}: the networks may only be cut from each other");
        world.run(40_000);
        for at in hosts / 3..hosts {
            let down: Vec<usize> = (0..hosts).filter(|of| world.state(at, *of) == State::Down).collect();
            assert_eq!(down, (0..hosts / 3).collect::<Vec<_>>(), "at h{at} of {hosts}");
        }
        // One of them comes back: who is still silent there is judged by both again, and is down already.
        world.start(0, 2);
        world.run(10_000);
        assert!((hosts / 3..hosts).all(|at| world.state(at, 0) == State::Alive));
    }
}

#[test]
fn who_is_no_longer_watched_keeps_its_state() {
    let mut world = world(30, 7, Config::default());
    world.kill(7, false);
    world.run(10_000);
    let elsewhere = Members::new((0..30).map(|h| keys(h).key()), 1);
    let now = world.now;
    let mut moved = 0;
    for at in (0..30).filter(|h| *h != 7) {
        let before: Vec<_> = world.core(at).hosts().map(|(p, v)| (*p, v.state, v.incarnation)).collect();
        let watched = world.core(at).watches().any(|p| *p == keys(7).key());
        world.core(at).set_members(&elsewhere, now);
        let after: Vec<_> = world.core(at).hosts().map(|(p, v)| (*p, v.state, v.incarnation)).collect();
        assert_eq!(before, after);
        moved += usize::from(watched && !world.core(at).watches().any(|p| *p == keys(7).key()));
    }
    assert!(moved > 3);
    world.log.clear();
    world.run(60_000);
    assert_eq!(world.log, [], "nothing changes, old watchers or new");
    assert_eq!(world.state(1, 7), State::Down);
    world.start(7, 1); // the same start number: only an answer shows that it lives
    world.run(5_000);
    assert_eq!(doubts(&world), 0);
}

/// Three members lie about a fourth, in bursts and about times to come. They are no watchers of it, nor need be.
fn slandered(mute: bool) -> usize {
    let mut world = world(30, 11, Config::default());
    world.mute = mute;
    let evidence = Evidence { silent_ms: 1_600, attempts: 9, heard_ms: Some(1), relayed: false, connected: true };
    for round in 1..40u64 {
        for liar in 0..3 {
            let refutation = [0, 5, u32::MAX][liar];
            let accusation = Accusation {
                mesh: MESH,
                start: 1,
                sequence: 1_000 + round,
                subject: keys(20).key(),
                incarnation: Incarnation { start: 1, refutation },
                stamp_us: u64::MAX,
                evidence: evidence.clone(),
            };
            let bytes = encode(&Statement::Accusation(Signed::seal(&keys(liar), &accusation)));
            for to in 3..30 {
                world.give(to, Input::Statement(bytes.clone()));
            }
        }
        world.run(if round % 2 == 0 { 700 } else { 110 });
    }
    world.run(1_000);
    world.downs().len()
}

#[test]
fn the_slandered_speak_for_themselves() {
    assert_eq!(slandered(false), 0);
    assert!(slandered(true) > 5, "three words make a host down when nothing answers them");
}

/// A third of all gossip is lost for good, while hosts change, leave and come back.
fn forgetful(digests: bool) -> World {
    let mut world = World::new(24, 8, Config::default());
    (world.unheard_percent, world.digests) = (33, digests);
    world.run(5_000);
    for host in 0..8 {
        let now = world.now;
        world.core(host).set_facts(PresenceFacts { cores: 64, ..Default::default() }, now);
        world.drain(host);
        world.run(500);
    }
    let now = world.now;
    world.core(9).leave(now);
    world.drain(9);
    world.kill(10, false);
    world.kill(11, true);
    world.run(5_000);
    world.start(11, 2);
    world.run(150_000);
    world
}

/// Views that are not what they should be.
fn wrong(world: &World) -> usize {
    let should = |of: usize| match of {
        9 => State::Left,
        10 => State::Down,
        _ => State::Alive,
    };
    let right = |at: usize, of: usize| {
        let view = world.cores[at].as_ref().expect("runs").host(&keys(of).key()).expect("enrolled");
        let newest = of >= 8 || view.presence.as_ref().is_some_and(|p| p.facts.cores == 64);
        view.state == should(of) && newest && (of != 11 || view.incarnation.is_some_and(|i| i.start == 2))
    };
    let judges = living(world).into_iter().filter(|h| *h != 9);
    judges.map(|at| (0..24).filter(|of| !right(at, *of)).count()).sum()
}

#[test]
fn what_gossip_lost_comes_by_comparison() {
    assert_eq!(wrong(&forgetful(true)), 0);
    assert!(wrong(&forgetful(false)) > 5, "without comparisons much is missing");
}

#[test]
fn a_newcomer_learns_all_from_others() {
    let mut world = world(100, 9, Config::default());
    world.kill(20, false);
    let now = world.now;
    world.core(30).leave(now);
    world.drain(30);
    world.kill(50, true);
    world.run(8_000);
    world.start(50, 2);
    world.run(6_000);
    let core = world.cores[50].as_ref().unwrap();
    assert!(core.hosts().all(|(_, view)| view.presence.is_some()));
    assert_eq!((world.state(50, 20), world.state(50, 30)), (State::Down, State::Left));
    assert_eq!((0..100).filter(|of| world.state(50, *of) == State::Alive).count(), 98);
}

#[test]
fn a_comparison_that_nobody_began_is_refused() {
    let mut world = world(12, 10, Config::default());
    world.run(20_000); // no comparison is under way now
    let digest = |bytes: Vec<u8>| Input::Digest { from: keys(1).key(), bytes };
    let before = world.core(0).refused();
    // A bundle of statements, a list, a wish; then noise, a strange digest and a stranger.
    for bytes in [&[0x82, 4, 0x43, 0x81, 0x81, 0x40][..], &[0x82, 2, 0x42, 0x81, 0x80], &[0x82, 3, 0x42, 0x81, 0x80]] {
        world.give(0, digest(bytes.to_vec()));
    }
    world.give(0, digest(b"noise".to_vec()));
    world.give(0, digest(vec![0x82, 1, 0x43, 0x81, 0x81, 0]));
    world.give(0, Input::Digest { from: keys(77).key(), bytes: vec![] });
    assert_eq!(world.core(0).refused(), before + 6);
    assert_eq!(doubts(&world), 0);
}

/// What one of 10,000 hosts keeps, beside what it shares with the others of its process.
#[test]
fn a_host_keeps_little_of_ten_thousand() {
    let now = Time::from_millis(1);
    let seeds = (0u32..10_000).map(|n| Keys::from_seed(*blake3::hash(&n.to_be_bytes()).as_bytes()));
    let presence = |keys: &Keys| {
        let facts = PresenceFacts { name: "host".into(), cores: 4, ..Default::default() };
        let presence = Presence {
            mesh: MESH,
            start: 1,
            sequence: 1,
            store: [1; 16],
            machine_id: [1; 32],
            boot_id: [1; 16],
            nonce: 1,
            facts,
        };
        let signed = Signed::seal(keys, &presence);
        Arc::new(Record::sealed(signed, presence)) // verified elsewhere: 10,000 times takes a second
    };
    let all: Vec<Keys> = seeds.collect();
    let records: Vec<Arc<Record>> = all.iter().map(presence).collect();
    let members = Members::new(all.iter().map(Keys::key), 0);
    let mut core = Membership::new(Own { keys: all[0].clone(), ..own(0, 1) }, 1, Config::default(), now);
    core.set_members(&members, now);
    core.learn(&records, now);
    core.set_facts(PresenceFacts::default(), now);
    let alive = core.hosts().filter(|(_, v)| v.state == State::Alive && v.presence.is_some() || v.connected).count();
    assert_eq!(alive, 10_000 - WATCHERS, "whom it watches it wants to hear itself");
    let each = core.subjects.own_bytes() as f64 / 10_000.0;
    assert!(each < 60.0, "{each} bytes a pair of hosts");
    assert!(Arc::strong_count(&records[5_000]) <= 2 && Arc::strong_count(&members) == 2, "shared, not copied");
    // Nothing happens for a while: probes of eight, and no more subjects than before.
    let mut woken = 0;
    let mut time = now;
    while let Some((at, _)) = core.poll_timeout().filter(|(at, _)| *at < Time::from_millis(9_000)) {
        time = time.max(at);
        core.handle_timeout(time);
        woken += 1;
        while core.poll().is_some() {}
    }
    assert!(woken < 9 * 8 * 11, "{woken} times");
}

/// Thirty join at once, gossip loses somebody's presence, and no random member's turn comes for long.
#[test]
fn who_has_connected_and_is_unheard_of_is_asked_soon() {
    let hosts = 30;
    let members = Members::new((0..hosts).map(|h| keys(h).key()), 0);
    let watched = members.subjects(&keys(0).key());
    let mut others = (1..hosts).map(|h| keys(h).key()).filter(|key| !watched.contains(key));
    let (unheard, heard) = (others.next().expect("one"), others.next().expect("another"));
    let rare = Config { repair: Duration::from_secs(3_600), ..Config::default() };
    let compared = |connects: bool| {
        let begin = Time::from_millis(1_000);
        let mut core = Membership::new(own(0, 1), 7, rare.clone(), begin);
        core.set_members(&members, begin);
        let other = (1..hosts).find(|h| keys(*h).key() == heard).expect("just chosen");
        let facts = PresenceFacts { name: "heard".into(), ..Default::default() };
        let mut speaker = Membership::new(own(other, 1), 8, rare.clone(), begin);
        speaker.set_facts(facts, begin);
        let said = std::iter::from_fn(|| speaker.poll()).find_map(|output| match output {
            Output::Publish(bytes) => Some(bytes),
            _ => None,
        });
        core.handle(Input::Statement(said.expect("its presence")), begin);
        if connects {
            core.handle(Input::Connected(unheard), begin);
            core.handle(Input::Connected(heard), begin);
        }
        let mut asked = vec![];
        // Past the first turn of all, which is anybody's; a partner is asked again as long as nothing comes of it.
        for ms in (2_500..9_000).step_by(50) {
            core.handle_timeout(Time::from_millis(1_000 + ms));
            while let Some(output) = core.poll() {
                if let Output::Digest { to, .. } = output {
                    asked.push(to);
                }
            }
        }
        asked
    };
    let asked = compared(true);
    assert!(asked.iter().filter(|to| **to == unheard).count() >= 3, "{asked:?}");
    assert!(
        asked.iter().filter(|to| **to == heard).count() <= 1,
        "but for the turn of all, who is known is not: {asked:?}"
    );
    assert!(compared(false).len() <= 1, "without a connection only the first turn of all is taken");
}

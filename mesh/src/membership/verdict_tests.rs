//! When a verdict falls: beside the core stands a model that keeps all that was ever said, with its times, and asks at every
//! millisecond who accuses, from which networks, and whether anybody had fresh word. Slow, and without states.

use super::world::*;
use super::*;
use proptest::prelude::*;

const HOSTS: usize = 24;
/// What the accused's clock shows when ours shows `ms`: hosts' clocks have nothing to do with each other.
const AHEAD_US: u64 = 77_000_000;

/// This host, members in two networks or one, whom it judges without watching it, and its watchers.
struct Court {
    members: Arc<Members>,
    accused: usize,
    accusers: Vec<usize>,
    networks: bool,
}

fn court(networks: bool) -> Court {
    let placed = |host: usize| if networks { (host % 2) as u64 } else { 0 };
    let members = Members::placed((0..HOSTS).map(|h| (keys(h).key(), placed(h))), 0);
    let watched = members.subjects(&keys(0).key());
    let accused = (1..HOSTS).find(|h| !watched.contains(&keys(*h).key())).expect("more than eight");
    let watchers = members.watchers(&keys(accused).key());
    let accusers = (1..HOSTS).filter(|h| watchers.contains(&keys(*h).key())).collect();
    Court { members, accused, accusers, networks }
}

/// Said at a time: what the accused said had happened by then, or was missed since then, `back` earlier.
#[derive(Clone, Copy, Debug)]
enum Said {
    Accusation { by: usize, back_ms: u64 },
    Alive { back_ms: u64 },
}

fn stamp(now_ms: u64, back_ms: u64) -> u64 {
    (now_ms - back_ms) * 1_000 + AHEAD_US
}

/// The times (in ms after the start) at which the core convicts and acquits.
fn judged(court: &Court, words: &[(u64, Said)], end_ms: u64, config: &Config) -> Vec<(u64, State)> {
    let begin = 50_000;
    let at = |ms: u64| Time::from_millis(begin + ms);
    let mut core = Membership::new(own(0, 1), 1, config.clone(), at(0));
    core.set_members(&court.members, at(0));
    let (own, peer) = (own(court.accused, 1), keys(court.accused).key());
    let origin = origin(&own.store, &own.machine_id, &own.boot_id, own.nonce);
    let incarnation = Incarnation { start: 1, refutation: 0 };
    let alive = |ms: u64, back_ms: u64| {
        let alive = Alive { mesh: MESH, incarnation, stamp_us: stamp(begin + ms, back_ms), origin };
        Statement::Alive(Signed::seal(&own.keys, &alive))
    };
    // It is heard once before anybody speaks.
    core.handle(Input::Statement(encode(&alive(0, 0))), at(0));
    let mut verdicts = vec![];
    let mut sequence = 0;
    for ms in 0..=end_ms {
        for (_, said) in words.iter().filter(|(when, _)| *when == ms) {
            sequence += 1;
            let statement = match *said {
                Said::Alive { back_ms } => alive(ms, back_ms.min(ms)),
                Said::Accusation { by, back_ms } => {
                    let silent_ms = back_ms.min(ms);
                    let heard_ms = Some(silent_ms);
                    let evidence = Evidence { silent_ms, attempts: 9, heard_ms, relayed: false, connected: true };
                    let stamp_us = stamp(begin + ms, silent_ms);
                    let accusation =
                        Accusation { mesh: MESH, start: 1, sequence, subject: peer, incarnation, stamp_us, evidence };
                    Statement::Accusation(Signed::seal(&keys(court.accusers[by]), &accusation))
                }
            };
            core.handle(Input::Statement(encode(&statement)), at(ms));
        }
        core.handle_timeout(at(ms));
        while let Some(output) = core.poll() {
            if let Output::Changed { peer: of, to, .. } = output
                && of == peer
                && verdicts.last().is_none_or(|(_, last)| *last != to)
            {
                verdicts.push((ms, to));
            }
        }
    }
    verdicts
}

/// The same, from all that was said so far, asked anew at every millisecond. A verdict ends with a word of the accused and
/// with nothing else: an accuser that takes its claim back has heard nothing.
fn model(court: &Court, words: &[(u64, Said)], end_ms: u64) -> Vec<(u64, State)> {
    const GRACE_MS: u64 = 350;
    let mut verdicts = vec![];
    let mut state = State::Alive;
    verdicts.push((0, State::Alive));
    for now in 0..=end_ms {
        let mut said: Vec<(u64, Said)> = words.iter().filter(|(when, _)| *when <= now).copied().collect();
        said.sort_by_key(|(when, _)| *when);
        // Since when each accuser's claim stands: from its first word after the last fresh word that answers it.
        let mut standing: Vec<(usize, u64, u64)> = vec![]; // who, since, silent since by the accused's clock
        let mut fresh = stamp(0, 0);
        let mut spoke = false;
        for (when, said) in said {
            match said {
                Said::Alive { back_ms } => {
                    let word = stamp(when, back_ms.min(when));
                    spoke = when == now && word > fresh;
                    fresh = fresh.max(word);
                    standing.retain(|(_, _, silent)| *silent >= fresh);
                }
                Said::Accusation { by, back_ms } => {
                    let silent = stamp(when, back_ms.min(when));
                    let before = standing.iter().find(|(who, ..)| *who == by).map(|(_, since, _)| *since);
                    standing.retain(|(who, ..)| *who != by);
                    if silent >= fresh {
                        standing.push((by, before.unwrap_or(when), silent));
                    }
                }
            }
        }
        let enough = |accused: &[&(usize, u64, u64)]| {
            let network = |who: usize| court.accusers[who] % 2;
            let both = accused.iter().any(|(who, ..)| network(*who) != network(accused[0].0));
            accused.len() >= 3 && (!court.networks || both)
        };
        let ripe: Vec<_> = standing.iter().filter(|(_, since, _)| since + GRACE_MS <= now).collect();
        let next = match (standing.is_empty(), state) {
            (true, State::Down) if !spoke => State::Down,
            (true, _) => State::Alive,
            (false, State::Down) => State::Down,
            (false, _) if enough(&ripe) => State::Down,
            (false, _) => State::Suspect,
        };
        if next != state {
            state = next;
            verdicts.push((now, state));
        }
    }
    verdicts
}

fn words() -> impl Strategy<Value = Vec<(u64, Said)>> {
    let said = prop_oneof![
        5 => (0..8usize, 0..1_500u64).prop_map(|(by, back_ms)| Said::Accusation { by, back_ms }),
        2 => (0..1_500u64).prop_map(|back_ms| Said::Alive { back_ms }),
    ];
    // No two in one millisecond: their order is another test's affair.
    prop::collection::btree_map(1..2_500u64, said, 0..14).prop_map(|map| map.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn the_core_judges_when_the_model_does(words in words(), networks: bool) {
        let court = court(networks);
        let (end_ms, config) = (3_000, Config::default());
        prop_assert_eq!(judged(&court, &words, end_ms, &config), model(&court, &words, end_ms));
    }
}

#[test]
fn naive_judges_part_from_the_model() {
    let court = court(true);
    let by = |network: usize| (0..8).filter(|n| court.accusers[*n] % 2 == network).collect::<Vec<_>>();
    let accuse = |when: u64, by: usize| (when, Said::Accusation { by, back_ms: 100 });
    let (even, odd) = (by(0), by(1));
    // Of both networks; then the same with a word that comes within the grace.
    let words = [accuse(1_000, even[0]), accuse(1_010, odd[0]), accuse(1_020, even[1])];
    let down = vec![(0, State::Alive), (1_000, State::Suspect), (1_370, State::Down)];
    assert_eq!(model(&court, &words, 2_000), down);
    assert_eq!(judged(&court, &words, 2_000, &Config::default()), down);
    let saved = [words[0], words[1], words[2], (1_300, Said::Alive { back_ms: 0 })];
    assert!(judged(&court, &saved, 2_000, &Config::default()).iter().all(|(_, state)| *state != State::Down));
    for naive in [
        Config { accusers: 2, ..Config::default() },
        Config { accusers: 1, ..Config::default() },
        Config { grace: Duration::ZERO, grace_max: Duration::ZERO, ..Config::default() },
    ] {
        assert_ne!(judged(&court, &words, 2_000, &naive), down, "{naive:?}");
    }
    // Three of one network, where watchers of two could tell, are not enough.
    let one_sided = [accuse(1_000, even[0]), accuse(1_010, even[1]), accuse(1_020, even[2])];
    assert_eq!(model(&court, &one_sided, 2_000).last(), Some(&(1_000, State::Suspect)));
    assert_eq!(judged(&court, &one_sided, 2_000, &Config::default()), model(&court, &one_sided, 2_000));
}

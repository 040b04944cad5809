//! What is believed of a host follows from what was said of it, not from the order or number of times in which
//! that arrived. Beside the core stands a model that reads all statements at once.

use super::world::*;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::OnceLock;

const HOSTS: usize = 20;

/// The hosts: this one, one that it does not watch, and others.
fn cast() -> &'static (Arc<Members>, usize, Vec<usize>) {
    static CAST: OnceLock<(Arc<Members>, usize, Vec<usize>)> = OnceLock::new();
    CAST.get_or_init(|| {
        let members = Members::new((0..HOSTS).map(|h| keys(h).key()), 0);
        let watched = members.subjects(&keys(0).key());
        let spoken_of = (1..HOSTS).find(|h| !watched.contains(&keys(*h).key())).expect("more than eight");
        let others = (1..HOSTS).filter(|h| *h != spoken_of).collect();
        (members, spoken_of, others)
    })
}

#[derive(Clone, Debug)]
enum Word {
    Presence { start: u64, sequence: u64 },
    Alive { life: Incarnation, stamp_us: u64 },
    Accusation { by: usize, sequence: u64, life: Incarnation, stamp_us: u64 },
    Farewell { life: Incarnation },
}

impl Word {
    fn seal(&self) -> Arc<Checked> {
        let (_, of, others) = cast();
        let own = own(*of, 1);
        let origin = origin(&own.store, &own.machine_id, &own.boot_id, own.nonce);
        let statement = match *self {
            Word::Presence { start, sequence } => {
                let Own { store, machine_id, boot_id, nonce, .. } = own;
                let facts = PresenceFacts::default();
                let presence = Presence { mesh: MESH, start, sequence, store, machine_id, boot_id, nonce, facts };
                Statement::Presence(Signed::seal(&own.keys, &presence))
            }
            Word::Alive { life, stamp_us } => {
                Statement::Alive(Signed::seal(&own.keys, &Alive { mesh: MESH, incarnation: life, stamp_us, origin }))
            }
            Word::Accusation { by, sequence, life, stamp_us } => {
                let evidence =
                    Evidence { silent_ms: 1_600, attempts: 9, heard_ms: Some(1), relayed: false, connected: true };
                let (subject, incarnation) = (own.keys.key(), life);
                let accusation =
                    Accusation { mesh: MESH, start: 1, sequence, subject, incarnation, stamp_us, evidence };
                Statement::Accusation(Signed::seal(&keys(others[by]), &accusation))
            }
            Word::Farewell { life } => {
                Statement::Farewell(Signed::seal(&own.keys, &Farewell { mesh: MESH, incarnation: life }))
            }
        };
        Checked::verify(statement).expect("is ours")
    }
}

/// State, life, presence, and who accuses.
type Belief = (State, Option<Incarnation>, Option<(u64, u64)>, Vec<PeerKey>);

fn believe(words: &[Arc<Checked>]) -> Belief {
    let (members, of, _) = cast();
    let now = Time::from_millis(50_000);
    let mut core = Membership::new(own(0, 1), 1, Config::default(), now);
    core.set_members(members, now);
    for word in words {
        core.handle(Input::Checked(word.clone()), now);
    }
    core.handle_timeout(now);
    assert_eq!(core.refused(), 0);
    let peer = keys(*of).key();
    let view = core.host(&peer).expect("enrolled");
    let accusers = core.accusations(&peer).filter(|a| a.ended.is_none()).map(|a| a.accuser).collect();
    (view.state, view.incarnation, view.presence.as_ref().map(|p| p.order()), accusers)
}

/// The same, read from all words at once.
fn model(words: &[Word]) -> Belief {
    let (mut life, mut presence, mut left) = (None, None, None);
    let mut newest: BTreeMap<PeerKey, (u64, Incarnation, u64)> = BTreeMap::new();
    for word in words {
        match *word {
            Word::Presence { start, sequence } => {
                life = life.max(Some(Incarnation { start, refutation: 0 }));
                presence = presence.max(Some((start, sequence)));
            }
            Word::Alive { life: said, .. } => life = life.max(Some(said)),
            Word::Farewell { life: said } => (life, left) = (life.max(Some(said)), left.max(Some(said))),
            Word::Accusation { by, sequence, life, stamp_us } => {
                let new = (sequence, life, stamp_us);
                let entry = newest.entry(keys(cast().2[by]).key()).or_insert(new);
                *entry = (*entry).max(new);
            }
        }
    }
    let known = life.unwrap_or_default();
    let answered = |claimed: Incarnation, silent_us: u64| {
        let word = |w: &Word| match *w {
            Word::Alive { life, stamp_us } => life > claimed || (life.start == claimed.start && stamp_us > silent_us),
            Word::Presence { start, .. } => start > claimed.start,
            Word::Farewell { life } => life >= claimed,
            Word::Accusation { .. } => false,
        };
        words.iter().any(word)
    };
    let accusers: Vec<PeerKey> =
        newest.iter().filter(|(_, (_, claimed, silent))| !answered(*claimed, *silent)).map(|(by, _)| *by).collect();
    let state = match (left.is_some_and(|left| left >= known), accusers.is_empty()) {
        (true, _) => State::Left,
        (false, false) => State::Suspect,
        (false, true) if life.is_some() => State::Alive,
        (false, true) => State::Suspect,
    };
    (state, life, presence, accusers)
}

/// What honest hosts may say of one that has lived so many lives. Only in the last it refutes.
fn word(lives: u64) -> impl Strategy<Value = Word> {
    let life = move || {
        (1..=lives, 0..3u32).prop_map(move |(start, refutation)| Incarnation {
            start,
            refutation: if start == lives { refutation } else { 0 },
        })
    };
    prop_oneof![
        3 => (1..=lives, 1..4u64).prop_map(|(start, sequence)| Word::Presence { start, sequence }),
        4 => (life(), 1..9u64).prop_map(|(life, stamp_us)| Word::Alive { life, stamp_us }),
        4 => (0..3usize, 1..9u64, life(), 1..9u64)
            .prop_map(|(by, sequence, life, stamp_us)| Word::Accusation { by, sequence, life, stamp_us }),
        1 => life().prop_map(|life| Word::Farewell { life }),
    ]
}

/// A history, the order in which it arrives, and which words come a second time.
fn history() -> impl Strategy<Value = (Vec<Word>, Vec<usize>)> {
    let words = (1..4u64).prop_flat_map(|lives| {
        (prop::collection::vec(word(lives), 0..10), Just(Word::Presence { start: lives, sequence: 1 }))
    });
    words.prop_flat_map(|(mut words, last)| {
        words.push(last);
        // Nobody says two things under one number.
        let mut said = std::collections::BTreeSet::new();
        words.retain(|w| match w {
            Word::Accusation { by, sequence, .. } => said.insert((*by, *sequence)),
            _ => true,
        });
        let all: Vec<usize> = (0..words.len()).chain(0..words.len()).collect();
        (Just(words), Just(all).prop_shuffle())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn order_and_repetition_do_not_matter((words, arrival) in history()) {
        let sealed: Vec<Arc<Checked>> = words.iter().map(Word::seal).collect();
        let arrived: Vec<Arc<Checked>> = arrival.iter().map(|i| sealed[*i].clone()).collect();
        prop_assert_eq!(believe(&sealed), model(&words));
        prop_assert_eq!(believe(&arrived), model(&words));
    }
}

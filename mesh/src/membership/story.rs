//! What happened around a host, kept to be shown: who accused it and on what evidence, who had word of it, what was
//! made of that here, and why.
//!
//! A bounded memory of this host's own: the latest of a few hosts about which there was something to say. Nothing is
//! decided by it, and nothing of it is sent; what stands against a host now is in [`super::Membership::accusations`]. Read it with
//! [`super::Membership::story`].

use super::statement::{Evidence, Incarnation};
use super::{Membership, State};
use crate::identity::PeerKey;
use crate::time::Time;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Chapters that are kept of one host: a death with eight accusers and its return make fifteen.
pub const CHAPTERS_MAX: usize = 24;
/// Hosts of which a story is kept; the one about which nothing was said for longest makes room.
pub const STORIES_MAX: usize = 32;
/// Returns from down count as flapping for so long.
const FLAPS_WITHIN: Duration = Duration::from_secs(600);

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Chapter {
    /// When first.
    pub at: Time,
    /// When last.
    pub last: Time,
    /// How often in between; at least 1.
    pub times: u32,
    /// What.
    pub what: Told,
}

/// What can happen around a host.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// Somebody accused it; this host, when `by` is its key. Repetitions keep the newest evidence.
    Accused {
        /// Who.
        by: PeerKey,
        /// The life that was accused.
        incarnation: Incarnation,
        /// What the accuser saw: attempts, silence, the age of its last word and how that came.
        evidence: Evidence,
        /// Whether it counted here; else newer word of the accused was known.
        counted: bool,
    },
    /// Word of it that answered accusers.
    Answered {
        /// The life that spoke.
        incarnation: Incarnation,
        /// It answered this host; else somebody passed its signed word on, or it spoke for itself.
        asked: bool,
        /// How many accusations that ended.
        ended: usize,
    },
    /// This host passed on the signed answer that it was given.
    PassedOn,
    /// This host missed it, but as many others with it: it suspected itself and accused nobody.
    KeptStill {
        /// Hosts that were silent, this one among them.
        silent: usize,
        /// Of so many.
        of: usize,
    },
    /// What is believed of it changed here.
    Became {
        /// From.
        from: State,
        /// To.
        to: State,
        /// Why, in words.
        why: String,
    },
}

/// All stories of one host.
#[derive(Default)]
pub(super) struct Stories(BTreeMap<PeerKey, VecDeque<Chapter>>);

impl Stories {
    pub fn of(&self, peer: &PeerKey) -> impl DoubleEndedIterator<Item = &Chapter> {
        self.0.get(peer).into_iter().flatten()
    }

    /// Forgets whoever is no longer a member.
    pub fn retain(&mut self, stays: impl Fn(&PeerKey) -> bool) {
        self.0.retain(|peer, _| stays(peer));
    }

    pub fn tell(&mut self, peer: PeerKey, what: Told, now: Time) {
        if !self.0.contains_key(&peer) && matches!(what, Told::Became { to: State::Alive, .. }) {
            return; // nothing was wrong before
        }
        if !self.0.contains_key(&peer) && self.0.len() >= STORIES_MAX {
            let last = |story: &VecDeque<Chapter>| story.back().map(|chapter| chapter.last);
            let stalest = self.0.iter().min_by_key(|(_, story)| last(story)).map(|(peer, _)| *peer);
            stalest.and_then(|peer| self.0.remove(&peer));
        }
        let story = self.0.entry(peer).or_default();
        // Said again, with nothing in between that answered it or followed from it.
        let open = story.iter_mut().rev().take_while(|chapter| match (&chapter.what, &what) {
            (Told::Answered { .. }, _) => false,
            (Told::Became { .. }, Told::Accused { .. }) => true,
            (Told::Became { .. }, _) => false,
            _ => true,
        });
        if let Some(same) = open.into_iter().find(|chapter| chapter.what.is_again(&what)) {
            same.times = same.times.saturating_add(1);
            same.last = now;
            same.what = what;
            return;
        }
        if story.len() >= CHAPTERS_MAX {
            story.pop_front();
        }
        story.push_back(Chapter { at: now, last: now, times: 1, what });
    }

    /// Returns from down that are remembered of late.
    pub fn flaps(&self, peer: &PeerKey, now: Time) -> usize {
        let returned = |chapter: &&Chapter| match chapter.what {
            Told::Became { from: State::Down, to, .. } => to != State::Left && now.since(chapter.at) <= FLAPS_WITHIN,
            _ => false,
        };
        self.of(peer).filter(returned).count()
    }
}

impl Membership {
    /// How late a host's answers came of late, those to this host: the longest wait, which halves with time. Zero of one
    /// that this host does not watch.
    pub fn lateness_of(&self, peer: &PeerKey, now: Time) -> Duration {
        self.subjects.get(peer).map_or(Duration::ZERO, |subject| subject.late.now(self.config.late_half_life, now))
    }
}

impl Told {
    fn is_again(&self, other: &Told) -> bool {
        match (self, other) {
            (Told::Accused { by, counted, .. }, Told::Accused { by: again, counted: still, .. }) => {
                (by, counted) == (again, still)
            }
            (Told::KeptStill { .. }, Told::KeptStill { .. }) | (Told::PassedOn, Told::PassedOn) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::world::{World, keys};
    use super::super::{Config, State};
    use super::*;

    fn told(world: &World, at: usize, of: usize) -> Vec<Told> {
        world.cores[at].as_ref().expect("runs").story(&keys(of).key()).map(|chapter| chapter.what.clone()).collect()
    }

    #[test]
    fn a_death_and_a_return_are_told_with_their_evidence() {
        let mut world = World::new(6, 21, Config::default());
        world.run(3_000);
        world.kill(5, false);
        world.run(30_000);
        let story = told(&world, 0, 5);
        let accusers: Vec<PeerKey> = story
            .iter()
            .filter_map(|what| match what {
                Told::Accused { by, evidence, counted: true, .. } => {
                    assert!(
                        evidence.attempts >= 3 && evidence.silent_ms >= 1_600 && evidence.connected,
                        "{evidence:?}"
                    );
                    Some(*by)
                }
                _ => None,
            })
            .collect();
        assert_eq!(accusers.len(), 5, "each once, however often repeated: {story:?}");
        assert!(
            story
                .iter()
                .any(|what| matches!(what, Told::Became { to: State::Down, why, .. } if why.contains("accused by")))
        );
        let now = world.now;
        assert_eq!(world.core(0).flaps(&keys(5).key(), now), 0);
        world.start(5, 2);
        world.run(3_000);
        let story = told(&world, 0, 5);
        assert!(matches!(story.last(), Some(Told::Became { from: State::Down, to: State::Alive, .. })), "{story:?}");
        let now = world.now;
        assert_eq!(world.core(0).flaps(&keys(5).key(), now), 1);
        assert_eq!(world.core(0).flaps(&keys(5).key(), now + FLAPS_WITHIN + Duration::from_secs(1)), 0);
        assert_eq!(told(&world, 0, 1), [], "nothing to say of who is well");
    }

    #[test]
    fn a_lone_accuser_and_the_answer_are_told() {
        let mut world = World::new(6, 22, Config::default());
        world.run(3_000);
        world.cuts.extend([(0, 5), (5, 0)]);
        world.run(8_000);
        let by = |what: &Told| matches!(what, Told::Accused { by, .. } if *by == keys(0).key());
        let answered = |what: &Told| matches!(what, Told::Answered { asked: false, ended: 1, .. });
        let stories: Vec<Vec<Told>> = (1..5).map(|host| told(&world, host, 5)).collect();
        // Whoever has just heard it by itself counts no accusation, and has none to end.
        let tells = |story: &Vec<Told>| story.iter().position(by).is_some_and(|at| story[at..].iter().any(answered));
        assert!(stories.iter().any(tells), "{stories:?}");
        assert!(!stories.iter().flatten().any(|what| matches!(what, Told::Became { to: State::Down, .. })));
    }

    #[test]
    fn who_is_cut_off_tells_that_it_kept_still() {
        let mut world = World::new(6, 23, Config::default());
        world.run(3_000);
        for other in 0..5 {
            world.cuts.extend([(5, other), (other, 5)]);
        }
        world.run(10_000);
        for other in 0..5 {
            let story = told(&world, 5, other);
            assert!(story.iter().any(|what| matches!(what, Told::KeptStill { silent: 5, of: 5 })), "{story:?}");
            assert!(!story.iter().any(|what| matches!(what, Told::Accused { .. })), "{story:?}");
        }
    }

    #[test]
    fn who_was_silent_for_a_while_is_known_to_be_late() {
        let mut world = World::new(6, 24, Config::default());
        world.run(3_000);
        world.cuts.extend([(0, 5), (5, 0)]);
        world.run(4_000);
        world.cuts.clear();
        world.run(3_000);
        let now = world.now;
        let late = world.core(0).lateness_of(&keys(5).key(), now);
        assert!(late >= Duration::from_secs(2), "it was cut off for four seconds: {late:?}");
        let in_time = world.core(0).lateness_of(&keys(1).key(), now);
        assert!(in_time < Duration::from_millis(100), "it answers within a round trip: {in_time:?}");
        assert_eq!(world.core(0).lateness_of(&keys(0).key(), now), Duration::ZERO, "nobody watches itself");
        assert!(world.core(0).lateness_of(&keys(5).key(), now + Duration::from_secs(3_600)) < late / 8);
    }

    #[test]
    fn it_is_bounded() {
        let mut stories = Stories::default();
        for n in 0..10_000u64 {
            let (peer, by) = (keys((n % 60) as usize).key(), keys((n % 100) as usize).key());
            let evidence = Evidence { silent_ms: n, attempts: 3, heard_ms: None, relayed: false, connected: true };
            let incarnation = Incarnation { start: n, refutation: 0 };
            stories.tell(peer, Told::Accused { by, incarnation, evidence, counted: true }, Time::from_millis(n));
            stories.tell(peer, Told::Answered { incarnation, asked: true, ended: 1 }, Time::from_millis(n));
        }
        assert_eq!(stories.0.len(), STORIES_MAX);
        assert!(stories.0.values().all(|story| story.len() <= CHAPTERS_MAX));
        assert!(
            stories
                .of(&keys(9_999 % 60).key())
                .next_back()
                .is_some_and(|chapter| chapter.at == Time::from_millis(9_999))
        );
    }
}

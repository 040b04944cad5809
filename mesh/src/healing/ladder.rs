//! The ladder: set aside, canary, restart of the service, reboot, a human. A table of legal transitions.
//!
//! Each rung is tried out by a canary build before the next one is climbed; whatever proves a host well ends the case.
//! A host that is down can build no canary and goes up at once; one that comes back by itself is tried out first. What a
//! canary has said holds for an hour: who is not healed by then is tried out again.
//! Nothing here knows time, budgets or views: whether a legal step is taken is [`super::plan`]'s.
//!
//! | stage | event | next |
//! |---|---|---|
//! | well | `Blamed` | set aside, canary due |
//! | well | `Down` | set aside, spent |
//! | canary due | `Given` | trial |
//! | canary due | `Down` | spent |
//! | canary due | `Lapsed` | well: a set-aside ends |
//! | canary due | `Returned` | well: it was down and nothing else |
//! | trial | `Passed` | well |
//! | trial | `Failed`, `Down` | spent |
//! | trial | `Vanished` | canary due |
//! | spent | `Recovered`, `Outdated` | canary due |
//! | spent below reboot | `Ordered` | next rung, acting |
//! | spent | `HandedOver` | human |
//! | acting | `Proved` | canary due |
//! | acting | `Expired` | spent |
//! | acting | `Withdrawn` | the rung before, spent: nobody has received the order |
//! | all but well | `Cleared` | well |

use serde::{Deserialize, Serialize};
use serde_repr::{Deserialize_repr, Serialize_repr};
use std::fmt;

/// The strongest thing that was done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize_repr, Deserialize_repr)]
#[repr(u8)]
pub enum Rung {
    /// It gets no builds.
    Aside = 0,
    /// Its service was restarted.
    Restart = 1,
    /// It was rebooted.
    Reboot = 2,
}

impl Rung {
    /// From the lowest.
    pub const ALL: [Rung; 3] = [Rung::Aside, Rung::Restart, Rung::Reboot];

    /// The next stronger one.
    pub fn next(self) -> Option<Rung> {
        match self {
            Rung::Aside => Some(Rung::Restart),
            Rung::Restart => Some(Rung::Reboot),
            Rung::Reboot => None,
        }
    }

    /// The next weaker one.
    pub fn before(self) -> Option<Rung> {
        match self {
            Rung::Aside => None,
            Rung::Restart => Some(Rung::Aside),
            Rung::Reboot => Some(Rung::Restart),
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rung::Aside => "set aside",
            Rung::Restart => "restart of the service",
            Rung::Reboot => "reboot",
        })
    }
}

/// How far a rung has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize_repr, Deserialize_repr)]
#[repr(u8)]
pub enum Phase {
    /// Ordered, and not proved yet.
    Acting = 0,
    /// Done; a canary has to say whether it helped.
    CanaryDue = 1,
    /// The canary is out.
    Trial = 2,
    /// It did not help.
    Spent = 3,
}

/// Where a host stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Stage {
    /// Nothing is known against it.
    Well,
    /// Being healed.
    On(Rung, Phase),
    /// Handed to a human: set aside until a person clears it.
    Human,
}

/// What happens to a host that is being healed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize_repr, Deserialize_repr)]
#[repr(u8)]
pub enum Event {
    /// Blame names it.
    Blamed = 0,
    /// It is down.
    Down = 1,
    /// It was given a canary.
    Given = 2,
    /// Its canary was built.
    Passed = 3,
    /// Its canary failed, and that is its own fault.
    Failed = 4,
    /// Its canary said nothing.
    Vanished = 5,
    /// The next rung was ordered.
    Ordered = 6,
    /// It has proved what was ordered, by a new start number or boot id.
    Proved = 7,
    /// The order ended without proof.
    Expired = 8,
    /// It is back by itself.
    Recovered = 9,
    /// It has been set aside for long enough.
    Lapsed = 10,
    /// A human was called.
    HandedOver = 11,
    /// A person says that all is well.
    Cleared = 12,
    /// Its order reached nobody before its leader was lost, and is taken back.
    Withdrawn = 13,
    /// It was down and nothing else, and has been up for long enough: a set-aside was for nothing, and counts for no
    /// budget; whatever else was done has helped.
    Returned = 14,
    /// What was known against it is old.
    Outdated = 15,
}

impl Event {
    /// All of them.
    pub const ALL: [Event; 16] = [
        Event::Blamed,
        Event::Down,
        Event::Given,
        Event::Passed,
        Event::Failed,
        Event::Vanished,
        Event::Ordered,
        Event::Proved,
        Event::Expired,
        Event::Recovered,
        Event::Lapsed,
        Event::HandedOver,
        Event::Cleared,
        Event::Withdrawn,
        Event::Returned,
        Event::Outdated,
    ];
}

impl Stage {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Stage> {
        let phases = [Phase::Acting, Phase::CanaryDue, Phase::Trial, Phase::Spent];
        let on =
            Rung::ALL.into_iter().flat_map(move |rung| phases.into_iter().map(move |phase| Stage::On(rung, phase)));
        [Stage::Well, Stage::Human].into_iter().chain(on)
    }

    /// The table: where an event leads, when it may happen at all.
    pub fn after(self, event: Event) -> Option<Stage> {
        use Phase::*;
        use Stage::*;
        Some(match (self, event) {
            (Well, Event::Blamed) => On(Rung::Aside, CanaryDue),
            (Well, Event::Down) => On(Rung::Aside, Spent),
            (Human | On(..), Event::Cleared) => Well,
            (On(rung, CanaryDue), Event::Given) => On(rung, Trial),
            (On(rung, CanaryDue | Trial), Event::Down) => On(rung, Spent),
            (On(_, CanaryDue), Event::Lapsed | Event::Returned) => Well,
            (On(_, Trial), Event::Passed) => Well,
            (On(rung, Trial), Event::Failed) => On(rung, Spent),
            (On(rung, Trial), Event::Vanished) => On(rung, CanaryDue),
            (On(rung, Spent), Event::Recovered | Event::Outdated) => On(rung, CanaryDue),
            (On(rung, Spent), Event::Ordered) => On(rung.next()?, Acting),
            (On(_, Spent), Event::HandedOver) => Human,
            (On(rung, Acting), Event::Proved) => On(rung, CanaryDue),
            (On(rung, Acting), Event::Expired) => On(rung, Spent),
            (On(rung, Acting), Event::Withdrawn) => On(rung.before()?, Spent),
            _ => return None,
        })
    }

    /// Whether it is being healed now.
    pub fn is_open(self) -> bool {
        matches!(self, Stage::On(..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Every cell: what is in this list, and nothing else, is legal.
    #[test]
    fn every_cell_of_the_table() {
        use Event::*;
        use Phase::*;
        use Stage::*;
        let mut legal = vec![
            (Well, Blamed, On(Rung::Aside, CanaryDue)),
            (Well, Down, On(Rung::Aside, Spent)),
            (Human, Cleared, Well),
            (On(Rung::Aside, Spent), Ordered, On(Rung::Restart, Acting)),
            (On(Rung::Restart, Spent), Ordered, On(Rung::Reboot, Acting)),
            (On(Rung::Restart, Acting), Withdrawn, On(Rung::Aside, Spent)),
            (On(Rung::Reboot, Acting), Withdrawn, On(Rung::Restart, Spent)),
        ];
        for rung in Rung::ALL {
            legal.extend([
                (On(rung, Acting), Proved, On(rung, CanaryDue)),
                (On(rung, Acting), Expired, On(rung, Spent)),
                (On(rung, Acting), Cleared, Well),
                (On(rung, CanaryDue), Given, On(rung, Trial)),
                (On(rung, CanaryDue), Down, On(rung, Spent)),
                (On(rung, CanaryDue), Lapsed, Well),
                (On(rung, CanaryDue), Returned, Well),
                (On(rung, CanaryDue), Cleared, Well),
                (On(rung, Trial), Passed, Well),
                (On(rung, Trial), Failed, On(rung, Spent)),
                (On(rung, Trial), Down, On(rung, Spent)),
                (On(rung, Trial), Vanished, On(rung, CanaryDue)),
                (On(rung, Trial), Cleared, Well),
                (On(rung, Spent), Recovered, On(rung, CanaryDue)),
                (On(rung, Spent), Outdated, On(rung, CanaryDue)),
                (On(rung, Spent), HandedOver, Human),
                (On(rung, Spent), Cleared, Well),
            ]);
        }
        let mut cells = 0;
        for stage in Stage::all() {
            for event in Event::ALL {
                let expected = legal.iter().find(|(s, e, _)| (*s, *e) == (stage, event)).map(|(.., next)| *next);
                assert_eq!(stage.after(event), expected, "{stage:?} {event:?}");
                cells += 1;
            }
        }
        assert_eq!((cells, legal.len()), (14 * 16, 58));
    }

    proptest! {
        /// No way leads past a rung, and a person's word ends every case.
        #[test]
        fn no_rung_is_left_out(events in prop::collection::vec(0..Event::ALL.len(), 0..80)) {
            let mut stage = Stage::Well;
            let mut ordered = BTreeSet::new();
            for event in events.into_iter().map(|n| Event::ALL[n]) {
                let Some(next) = stage.after(event) else { continue };
                if event == Event::Ordered && let Stage::On(rung, _) = next {
                    prop_assert!(rung == Rung::Restart || ordered.contains(&Rung::Restart), "a reboot before a restart");
                    ordered.insert(rung);
                }
                if next == Stage::Well {
                    ordered.clear();
                }
                if event == Event::Withdrawn && let Stage::On(rung, _) = stage {
                    ordered.remove(&rung); // it was ordered, and never done
                }
                stage = next;
                prop_assert!(stage == Stage::Well || stage.after(Event::Cleared) == Some(Stage::Well));
            }
        }
    }
}

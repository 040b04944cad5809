//! The states of a host in one host's view, as a table. Who may claim which event is decided in
//! [`super::Membership`]; nothing here knows time or evidence.

use std::fmt;

/// What one host believes of another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum State {
    /// It answers.
    Alive,
    /// Somebody misses it, or nobody here has heard it yet. Gets no new builds, loses none.
    Suspect,
    /// Enough watchers miss it and nobody has fresh word. Loses its attempts; one answer ends it.
    Down,
    /// It said farewell. Ends when a higher incarnation speaks.
    Left,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Alive => "alive",
            State::Suspect => "suspect",
            State::Down => "down",
            State::Left => "left",
        })
    }
}

/// What can move a host from one state to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Fresh word of the subject, in the life that is known.
    Word,
    /// A higher incarnation speaks.
    Rise,
    /// The first accusation, or this host's own silence at it.
    Doubt,
    /// Enough watchers accuse, the grace is over, nobody has fresh word.
    Convict,
    /// The subject's own farewell.
    Farewell,
}

impl State {
    /// Every state, for tables and tests.
    pub const ALL: [State; 4] = [State::Alive, State::Suspect, State::Down, State::Left];

    /// Where an event leads; `None` where it changes nothing. Nobody is convicted unaccused.
    pub fn after(self, event: Event) -> Option<State> {
        use State::{Alive, Down, Left, Suspect};
        match (self, event) {
            (Suspect | Down, Event::Word) => Some(Alive),
            (Suspect | Down | Left, Event::Rise) => Some(Alive),
            (Alive, Event::Doubt) => Some(Suspect),
            (Suspect, Event::Convict) => Some(Down),
            (Alive | Suspect | Down, Event::Farewell) => Some(Left),
            _ => None,
        }
    }
}

impl Event {
    /// Every event, for tables and tests.
    pub const ALL: [Event; 5] = [Event::Word, Event::Rise, Event::Doubt, Event::Convict, Event::Farewell];
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written out a second time, by hand: a change of the table has to be meant.
    #[test]
    fn every_cell_of_the_table() {
        //              word  rise  doubt convict farewell
        let table = [
            "alive   - - suspect - left",
            "suspect alive alive - down left",
            "down alive alive - - left",
            "left - alive - - -",
        ];
        for row in table {
            let words: Vec<&str> = row.split_whitespace().collect();
            let state = State::ALL.into_iter().find(|s| s.to_string() == words[0]).expect("a state");
            for (event, want) in Event::ALL.into_iter().zip(&words[1..]) {
                let got = state.after(event).map_or("-".to_owned(), |s| s.to_string());
                assert_eq!(got, *want, "{state} after {event:?}");
            }
        }
    }
}

//! The trail of healing: what was ordered, refused, signed, done and proved, by whom and when, as the ledger has it.
//!
//! Part of the replicated state, written by [`super::Record::apply`] alone, alike on every host, each line from an entry
//! whose signature was checked. It holds no names, only keys, so that a host that is renamed keeps its story; whoever
//! shows it puts names in. Bounded: what is older than ninety days, or one of too many, is put away
//! ([`super::archive`]) before it would have to be dropped. Nothing here judges anything.

use super::{Event, Stop};
use crate::identity::PeerKey;
use crate::limits::AUDIT_LINES_MAX;
use crate::roster::cut;
use crate::warrant::OrderId;
use serde::{Deserialize, Serialize};
use serde_repr::{Deserialize_repr, Serialize_repr};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
use std::collections::VecDeque;

/// What a remark tells of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize_repr, Deserialize_repr)]
#[repr(u8)]
pub enum Told {
    /// The target does nothing, and why.
    Refused = 0,
    /// A voter does not sign, and why.
    Withheld = 1,
    /// Who signed.
    Signed = 2,
    /// The order did not reach its target.
    Undelivered = 3,
    /// The target took it on and could not do it.
    Failed = 4,
    /// A reboot that nobody ordered.
    Unexplained = 5,
}

/// Something worth keeping that changes nothing: see [`super::Entry::Remark`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Remark {
    /// About whom.
    pub host: PeerKey,
    /// About which order.
    pub order: Option<OrderId>,
    /// What.
    pub told: Told,
    /// In words.
    pub text: String,
}

/// What a line of the trail is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Kind {
    /// The policy was set.
    Policy,
    /// A block, drain or pause began.
    Began(Stop),
    /// A block, drain or pause was ended early.
    Lifted(Stop),
    /// An order was written.
    Ordered,
    /// A case moved.
    Case(Event),
    /// A person said that healing may go on.
    Resumed,
    /// The target took the order on.
    Receipt,
    /// The target has proved that it did what was ordered.
    Proved,
    /// See [`Remark`].
    Told(Told),
}

/// One line of the trail.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Ledger time, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who signed it.
    pub by: PeerKey,
    /// About which host; `None` when about all.
    pub host: Option<PeerKey>,
    /// About which order.
    pub order: Option<OrderId>,
    /// What.
    pub kind: Kind,
    /// Ledger time at which it ends, when it does.
    pub until_ms: Option<u64>,
    /// In words: the reason, what was ordered, or what was said.
    pub text: String,
}

impl Line {
    pub(super) fn new(kind: Kind, by: PeerKey, host: Option<PeerKey>, text: &str) -> Line {
        Line { at_ms: 0, by, host, order: None, kind, until_ms: None, text: cut(text) }
    }
    pub(super) fn of(self, order: OrderId) -> Line {
        Line { order: Some(order), ..self }
    }
    pub(super) fn until(self, until_ms: u64) -> Line {
        Line { until_ms: Some(until_ms), ..self }
    }
}

/// The trail, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Audit(VecDeque<Line>);

impl Audit {
    /// The lines, oldest first.
    pub fn lines(&self) -> impl DoubleEndedIterator<Item = &Line> {
        self.0.iter()
    }

    pub(super) fn push(&mut self, line: Line, now_ms: u64) {
        self.0.push_back(Line { at_ms: now_ms, ..line });
        if self.0.len() > AUDIT_LINES_MAX {
            self.0.pop_front();
        }
    }

    /// The oldest lines have been put away.
    pub(super) fn drop_oldest(&mut self, lines: usize) {
        self.0.drain(..lines.min(self.0.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Keys;

    #[test]
    fn the_trail_is_bounded() {
        let by = Keys::from_seed([1; 32]).key();
        let line = || Line::new(Kind::Resumed, by, None, "so");
        let mut audit = Audit::default();
        for n in 0..AUDIT_LINES_MAX as u64 + 5 {
            audit.push(line(), n);
        }
        assert_eq!((audit.lines().count(), audit.lines().next().unwrap().at_ms), (AUDIT_LINES_MAX, 5));
        audit.drop_oldest(3);
        assert_eq!((audit.lines().count(), audit.lines().next().unwrap().at_ms), (AUDIT_LINES_MAX - 3, 8));
        audit.drop_oldest(usize::MAX);
        assert_eq!(audit.lines().count(), 0);
    }
}

//! What the invariants of healing's pace look at: each step of healing as it is newly written in a ledger.

use super::{Fact, HostSeen, Name};
use mesh::healing::{Event, Kind, Line, Taken};
use mesh::identity::PeerKey;
use std::collections::BTreeMap;

/// What was written so shortly before, in milliseconds, the leader may not have known of when it wrote.
pub(super) const UNREAD_MS: u64 = 10_000;

/// Which steps were looked at, and whose are nobody's fault.
#[derive(Default)]
pub(super) struct Steps {
    /// Of each ledger at its last look: its index.
    looked: BTreeMap<Name, u64>,
    /// Of whom a liar writes what it likes: no honest leader answers for that.
    lied: Option<PeerKey>,
}

impl Steps {
    pub fn fact(&mut self, fact: &Fact) {
        if let Fact::Lied { about, ends } = fact {
            self.lied = (!ends).then_some(*about);
        }
    }

    /// Whether a ledger has gone on since the last look.
    pub fn has_gone_on(&mut self, host: &HostSeen<'_>) -> bool {
        let looked = self.looked.entry(host.name.clone()).or_default();
        std::mem::replace(looked, host.ledger.index()) != host.ledger.index()
    }

    /// The step that was just written, among so many newest lines of the trail, and on whom. That a host is noted to be
    /// down is none when it was being healed already.
    pub fn newest<'a>(&self, host: &HostSeen<'a>, lines: usize) -> Option<(PeerKey, &'a Line)> {
        let (record, now) = (host.ledger.healing(), host.ledger.time_ms());
        let opens = |line: &&Line| {
            matches!(line.kind, Kind::Case(Event::Blamed | Event::Down | Event::Ordered)) && line.at_ms == now
        };
        let line = record.audit().lines().rev().take(lines).find(opens)?;
        let taken = |step: &Taken| Some(step.host) == line.host && step.at_ms == now;
        let of = line.host.filter(|of| Some(*of) != self.lied && record.steps(now).any(taken))?;
        Some((of, line))
    }
}

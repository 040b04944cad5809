//! Ledger levels: which kinds of entries a program knows, and from when on a mesh writes the newer ones.
//!
//! A program that meets a kind it does not know stops rather than guess. So a new kind is written only when every
//! voter is known to run a program that knows it, or when the ledger holds entries of its level already: then it was so
//! once. Each host tells its level with its version, as build metadata of it (`0.1.0+level2`), which people need not
//! read. A program that says none is of the first level. Nothing here asks anybody; the driver does before it proposes.

use super::{Command, Ledger};
use crate::identity::PeerKey;

/// The newest level of entries that this program knows. An entry of a later kind stops `apply`.
pub const LEVEL: u32 = 7;

pub(super) fn first() -> u32 {
    1
}

/// What a host says its version is.
pub fn version(program: &str) -> String {
    format!("{program}+level{LEVEL}")
}

/// The version for people, and the ledger level, of what a host says its version is.
pub fn level_of(version: &str) -> (&str, u32) {
    match version.split_once("+level") {
        Some((program, level)) => (program, level.parse().unwrap_or(first())),
        None => (version, first()),
    }
}

impl Ledger {
    /// The highest level of entries that were applied.
    pub fn level(&self) -> u32 {
        self.level
    }

    /// The first voter that is not known to know a command's kind, when it may not be written for that.
    pub fn unready(&self, command: &Command, level: impl Fn(&PeerKey) -> Option<u32>) -> Option<PeerKey> {
        let needed = command.level();
        if needed <= self.level {
            return None;
        }
        self.voters.voters().iter().find(|voter| level(voter).is_none_or(|has| has < needed)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{World, keys};
    use super::super::{Cancel, Code};
    use super::*;
    use crate::healing::{Clear, Entry};

    #[test]
    fn a_version_tells_its_level() {
        assert_eq!(level_of(&version("0.1.0")), ("0.1.0", LEVEL));
        assert_eq!(level_of("0.1.0"), ("0.1.0", 1));
        assert_eq!(level_of("0.1.0+level"), ("0.1.0", 1));
        assert_eq!(level_of("0.1.0+level70000000000"), ("0.1.0", 1));
    }

    #[test]
    fn a_new_kind_waits_for_every_voter_once() {
        let mut world = World::new(2);
        let new = || Command::Heal(Entry::Clear(Clear { host: None, why: "so".into() }));
        let old = Command::Cancel(Cancel { builds: vec![], reason: String::new() });
        let voter = keys(1).key();
        assert_eq!(world.ledger.unready(&old, |_| None), None);
        assert_eq!(world.ledger.unready(&new(), |_| None), Some(voter), "nothing is known of it");
        assert_eq!(world.ledger.unready(&new(), |_| Some(1)), Some(voter));
        assert_eq!(world.ledger.unready(&new(), |key| (*key == voter).then_some(LEVEL)), None, "others do not count");
        // Refused for who asks, but written: whoever votes has got past it.
        assert_eq!(world.send(2, new()).code, Code::Forbidden);
        assert_eq!((world.ledger.level(), world.ledger.unready(&new(), |_| None)), (new().level(), None));
        let again = world.ledger.restore(&world.ledger.snapshot()).unwrap();
        assert_eq!(again.level(), new().level());
    }
}

//! Whether this host has been taken out of the mesh.
//!
//! A host that is evicted is cut off before the ledger's entry can reach it. It learns of it from the members
//! that refuse it at its next dials. No single member's word ends a host: most of those it knows must say so.

use mesh::identity::PeerKey;
use std::collections::{BTreeMap, BTreeSet};

/// Who refused this host as revoked, and what it said.
#[derive(Debug, Default)]
pub struct Outcast(BTreeMap<PeerKey, String>);

impl Outcast {
    /// A peer, whose key the handshake has proved, says that this host is revoked. True when that is new.
    pub fn refused_by(&mut self, peer: PeerKey, text: String) -> bool {
        self.0.insert(peer, text).is_none()
    }

    /// A peer let this host in: whatever it said before no longer holds.
    pub fn admitted_by(&mut self, peer: &PeerKey) {
        self.0.remove(peer);
    }

    /// Those of the other members that say so, with their words.
    pub fn words<'s>(&'s self, others: &'s BTreeSet<PeerKey>) -> impl Iterator<Item = (&'s PeerKey, &'s str)> {
        self.0.iter().filter(|(peer, _)| others.contains(peer)).map(|(peer, text)| (peer, text.as_str()))
    }

    /// Whether most of the other members say so; of one or two, all.
    pub fn is_certain(&self, others: &BTreeSet<PeerKey>) -> bool {
        self.words(others).count() > others.len() / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::identity::Keys;

    fn peer(seed: u8) -> PeerKey {
        Keys::from_seed([seed; 32]).key()
    }

    fn after(words: &[u8], others: &[u8]) -> bool {
        let mut outcast = Outcast::default();
        for seed in words {
            outcast.refused_by(peer(*seed), "sold".into());
        }
        outcast.is_certain(&others.iter().map(|seed| peer(*seed)).collect())
    }

    #[test]
    fn most_of_the_others_must_say_so() {
        assert!(after(&[1], &[1]), "the only other one");
        assert!(!after(&[1], &[1, 2]), "one of two is one peer's word");
        assert!(after(&[1, 2], &[1, 2]));
        assert!(!after(&[1], &[1, 2, 3]));
        assert!(after(&[1, 3], &[1, 2, 3]));
        assert!(!after(&[1, 2], &[1, 2, 3, 4]), "half is not most");
    }

    #[test]
    fn nobody_else_counts_and_a_word_counts_once() {
        assert!(!after(&[], &[]), "alone, and refused by nobody");
        assert!(!after(&[7, 8, 9], &[1, 2]), "they are no members");
        assert!(!after(&[1, 1, 1], &[1, 2, 3]));
    }

    #[test]
    fn who_lets_us_in_has_taken_it_back() {
        let others = [peer(1), peer(2)].into();
        let mut outcast = Outcast::default();
        assert!(outcast.refused_by(peer(1), "sold".into()));
        assert!(!outcast.refused_by(peer(1), "sold".into()), "known");
        assert!(outcast.refused_by(peer(2), "sold".into()));
        outcast.admitted_by(&peer(1));
        assert!(!outcast.is_certain(&others));
        assert_eq!(outcast.words(&others).collect::<Vec<_>>(), [(&peer(2), "sold")]);
    }
}

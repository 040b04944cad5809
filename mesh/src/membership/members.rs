//! The enrolled peers as one sorted table, and who watches whom among them.
//!
//! In a small mesh everybody watches everybody. In a larger one the table has [`RINGS`] rings: orders of all
//! members by a hash of ring number, epoch and key. A host is watched by its nearest neighbours before and
//! behind it on each ring, [`WATCHERS`] different hosts in all, so that who joins or goes changes the watchers of
//! a few only (after Rapid: Suresh et al., USENIX ATC 2018). Who is down or has left is passed over: the next
//! on the ring takes its place, and a subject never runs out of watchers while most of the mesh is dead.
//!
//! The table is a function of members and epoch, the same on every host, and never changes once made: it is
//! shared (`Arc`) by all that look at it. It knows nothing of states; see [`super::Membership`] for those.

use crate::identity::PeerKey;
use std::sync::Arc;

/// Rings. With both neighbours on each: eight watchers, K of the model that met the goals.
pub const RINGS: usize = 4;
/// Watchers of a host in a mesh that is not small.
pub const WATCHERS: usize = 2 * RINGS;
/// Up to so many members everybody watches everybody: that is no more than [`WATCHERS`] each.
pub const SMALL: usize = WATCHERS + 1;
/// Places on a ring that are looked at for a watcher, in one direction. With four of five hosts down, 97 of 100
/// still find one; and nobody watches more than twice this for each ring, whatever happens.
const REACH: usize = 16;

/// Members and rings. About 64 bytes a member; made in some milliseconds for 10,000.
pub struct Members {
    keys: Vec<PeerKey>,
    epoch: u64,
    rings: Vec<Ring>,
}

struct Ring {
    /// Who stands at a place.
    order: Vec<u32>,
    /// Where somebody stands.
    place: Vec<u32>,
}

impl Members {
    /// The table of these members. The epoch moves everybody to other places.
    pub fn new(keys: impl IntoIterator<Item = PeerKey>, epoch: u64) -> Arc<Members> {
        let mut keys: Vec<PeerKey> = keys.into_iter().collect();
        keys.sort();
        keys.dedup();
        let rings = if keys.len() <= SMALL { 0 } else { RINGS };
        let rings = (0..rings).map(|ring| Ring::new(ring, epoch, &keys)).collect();
        Arc::new(Members { keys, epoch, rings })
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The epoch it was made for.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// All of them, in order.
    pub fn keys(&self) -> &[PeerKey] {
        &self.keys
    }

    /// Whether everybody watches everybody.
    pub fn is_small(&self) -> bool {
        self.rings.is_empty()
    }

    /// The number of a member: its place among [`Members::keys`].
    pub fn index(&self, peer: &PeerKey) -> Option<usize> {
        self.keys.binary_search(peer).ok()
    }

    /// Who watches a member while all are well.
    pub fn watchers(&self, peer: &PeerKey) -> Vec<PeerKey> {
        let Some(index) = self.index(peer) else { return vec![] };
        self.watchers_among(index, |_| true).into_iter().map(|i| self.keys[i]).collect()
    }

    /// Whom a member watches while all are well.
    pub fn subjects(&self, peer: &PeerKey) -> Vec<PeerKey> {
        let Some(index) = self.index(peer) else { return vec![] };
        self.subjects_among(index, |_| true).into_iter().map(|i| self.keys[i]).collect()
    }

    /// Who watches a member, when only those that `counts` names can.
    pub(super) fn watchers_among(&self, subject: usize, counts: impl Fn(usize) -> bool) -> Vec<usize> {
        if self.is_small() {
            return (0..self.len()).filter(|i| *i != subject && counts(*i)).collect();
        }
        let mut chosen = Vec::with_capacity(WATCHERS);
        for ring in &self.rings {
            for forward in [true, false] {
                let mut walk = ring.walk(subject, forward);
                if let Some(next) = walk.find(|i| counts(*i) && !chosen.contains(i)) {
                    chosen.push(next);
                }
            }
        }
        chosen
    }

    /// Whom a member watches, when only those that `counts` names watch at all. Dead or alive: somebody has
    /// to notice that the dead come back.
    pub(super) fn subjects_among(&self, watcher: usize, counts: impl Fn(usize) -> bool) -> Vec<usize> {
        if self.is_small() {
            return (0..self.len()).filter(|i| *i != watcher).collect();
        }
        let counts = |i: usize| i == watcher || counts(i);
        let mut near: Vec<usize> =
            self.rings.iter().flat_map(|r| r.walk(watcher, true).chain(r.walk(watcher, false))).collect();
        near.sort_unstable();
        near.dedup();
        near.retain(|subject| self.watchers_among(*subject, counts).contains(&watcher));
        near
    }
}

impl Ring {
    fn new(ring: usize, epoch: u64, keys: &[PeerKey]) -> Ring {
        let mut base = blake3::Hasher::new_derive_key("mesh/ring/v1");
        base.update(&[ring as u8]).update(&epoch.to_be_bytes());
        let mut order: Vec<([u8; 16], u32)> = (0u32..)
            .zip(keys)
            .map(|(index, key)| {
                let mut hash = [0; 16];
                base.clone().update(key.as_bytes()).finalize_xof().fill(&mut hash);
                (hash, index)
            })
            .collect();
        order.sort_unstable();
        let order: Vec<u32> = order.into_iter().map(|(_, index)| index).collect();
        let mut place = vec![0; order.len()];
        for (at, index) in (0u32..).zip(&order) {
            place[*index as usize] = at;
        }
        Ring { order, place }
    }

    /// The others from a member on, nearest first, as far as [`REACH`].
    fn walk(&self, from: usize, forward: bool) -> impl Iterator<Item = usize> {
        let (len, at) = (self.order.len(), self.place[from] as usize);
        (1..=REACH.min(len - 1))
            .map(move |step| self.order[if forward { (at + step) % len } else { (at + len - step) % len }] as usize)
    }
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Members({} in epoch {})", self.len(), self.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn keys(n: u32) -> Vec<PeerKey> {
        (0..n).map(|i| PeerKey::from_bytes(*blake3::hash(&i.to_be_bytes()).as_bytes())).collect()
    }

    #[test]
    fn in_a_small_mesh_everybody_watches_everybody() {
        let members = Members::new(keys(9), 0);
        for key in members.keys() {
            assert_eq!(members.watchers(key).len(), 8);
            assert_eq!(members.subjects(key).len(), 8);
        }
        assert!(members.watchers(&PeerKey::from_bytes([1; 32])).is_empty());
    }

    #[test]
    fn in_a_larger_one_each_has_eight_watchers_who_know_it() {
        for n in [10, 11, 13, 17, 30, 100, 1_000] {
            let mut all = keys(n);
            let members = Members::new(all.iter().copied(), 3);
            all.reverse();
            let same = Members::new(all.iter().copied(), 3);
            let mut watch: BTreeMap<PeerKey, Vec<PeerKey>> = BTreeMap::new();
            for key in members.keys() {
                let mut watchers = members.watchers(key);
                assert_eq!(watchers, same.watchers(key), "whatever the order in which they were told");
                assert!(!watchers.contains(key));
                watchers.iter().for_each(|w| watch.entry(*w).or_default().push(*key));
                watchers.sort();
                watchers.dedup();
                assert_eq!(watchers.len(), WATCHERS, "{n} members");
            }
            for key in members.keys() {
                let subjects = watch.remove(key).unwrap_or_default();
                assert_eq!(members.subjects(key), subjects, "a watcher knows whom it watches");
                assert!((4..=14).contains(&subjects.len()), "{} subjects of one of {n}", subjects.len());
            }
        }
    }

    #[test]
    fn who_joins_changes_the_watchers_of_a_few() {
        let all = keys(1_001);
        let (before, after) = (Members::new(all[1..].iter().copied(), 0), Members::new(all.iter().copied(), 0));
        let changed = before.keys().iter().filter(|k| before.watchers(k) != after.watchers(k)).count();
        assert!((1..=24).contains(&changed), "{changed}");
        let elsewhere = Members::new(all[1..].iter().copied(), 1);
        let changed = before.keys().iter().filter(|k| before.watchers(k) != elsewhere.watchers(k)).count();
        assert!(changed > 990, "another epoch, other watchers: {changed}");
    }

    #[test]
    fn the_dead_are_passed_over() {
        let members = Members::new(keys(1_000), 0);
        let lives = |i: usize| i.is_multiple_of(5); // four of five are dead
        let mut total = 0;
        for index in 0..members.len() {
            let watchers = members.watchers_among(index, lives);
            assert!(watchers.iter().all(|w| lives(*w)));
            assert!(watchers.len() >= 4, "{}", watchers.len());
            total += watchers.len();
            for watcher in watchers.iter().filter(|_| index.is_multiple_of(20)) {
                assert!(members.subjects_among(*watcher, lives).contains(&index));
            }
        }
        assert!(total > 7_500, "{total} of 8,000");
    }
}

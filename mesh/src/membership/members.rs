//! The enrolled peers as one sorted table, and who watches whom among them.
//!
//! In a small mesh everybody watches everybody. In a larger one the table has [`RINGS`] rings: orders of all
//! members by a hash of ring number, epoch and key. A host is watched by its nearest neighbours before and
//! behind it on each ring, [`WATCHERS`] different hosts in all, so that who joins or goes changes the watchers of
//! a few only (after Rapid: Suresh et al., USENIX ATC 2018). Who is down or has left is passed over: the next
//! on the ring takes its place, and a subject never runs out of watchers while most of the mesh is dead.
//!
//! Where the caller says in which network each member is, and there are several, two of the rings are of the
//! members of one network each, and on the two others whoever is in another network is preferred: half of the
//! watchers are near, half look from elsewhere. A host is down then when some of both say so, and *unreachable*
//! when all that accuse it are in one network (see [`super::Membership::unreachable`]).
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
/// Places that are looked at for a watcher in another network, before the nearest will do: nobody of a small
/// network watches more than twice this for each of these rings.
const ACROSS: usize = 4;

/// Members and rings. About 64 bytes a member; made in some milliseconds for 10,000.
pub struct Members {
    keys: Vec<PeerKey>,
    epoch: u64,
    /// Of each member; empty when all are in one.
    networks: Vec<u64>,
    rings: Vec<Ring>,
}

struct Ring {
    /// First place and number of places of the part that somebody stands on, where there are parts.
    parts: Vec<(u32, u32)>,
    /// Who stands at a place.
    order: Vec<u32>,
    /// Where somebody stands.
    place: Vec<u32>,
}

impl Members {
    /// The table of these members. The epoch moves everybody to other places.
    pub fn new(keys: impl IntoIterator<Item = PeerKey>, epoch: u64) -> Arc<Members> {
        Members::placed(keys.into_iter().map(|key| (key, 0)), epoch)
    }

    /// The table of members of which it is known in which network each is: a label, the same for all that reach
    /// each other without a router (say, a hash of the prefix of an interface's address).
    pub fn placed(members: impl IntoIterator<Item = (PeerKey, u64)>, epoch: u64) -> Arc<Members> {
        let mut members: Vec<(PeerKey, u64)> = members.into_iter().collect();
        members.sort();
        members.dedup_by_key(|(key, _)| *key);
        let (keys, mut networks): (Vec<PeerKey>, Vec<u64>) = members.into_iter().unzip();
        if networks.iter().all(|n| Some(n) == networks.first()) {
            networks.clear();
        }
        let rings = if keys.len() <= SMALL { 0 } else { RINGS };
        let near = |ring: usize| if ring < RINGS / 2 { &networks[..] } else { &[] };
        let rings = (0..rings).map(|ring| Ring::new(ring, epoch, &keys, near(ring))).collect();
        Arc::new(Members { keys, epoch, networks, rings })
    }

    /// The network of a member, by its number. The same for all when nothing is known.
    pub(super) fn network(&self, index: usize) -> u64 {
        self.networks.get(index).copied().unwrap_or_default()
    }

    /// Whether they are known to be in several networks.
    pub fn is_placed(&self) -> bool {
        !self.networks.is_empty()
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
                let free = |i: &usize| counts(*i) && !chosen.contains(i);
                let far = |i: &usize| free(i) && self.network(*i) != self.network(subject);
                let across = !self.networks.is_empty() && ring.parts.is_empty();
                let far = ring.walk(subject, forward).take(if across { ACROSS } else { 0 }).find(far);
                if let Some(next) = far.or_else(|| ring.walk(subject, forward).find(free)) {
                    chosen.push(next);
                }
            }
        }
        // Of whose network there are few, others watch it instead.
        let whole = self.rings.iter().filter(|ring| ring.parts.is_empty());
        for (ring, forward) in whole.flat_map(|ring| [(ring, true), (ring, false)]) {
            let missing = WATCHERS.saturating_sub(chosen.len());
            let more: Vec<usize> =
                ring.walk(subject, forward).filter(|i| counts(*i) && !chosen.contains(i)).take(missing).collect();
            chosen.extend(more);
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
    /// One part for each network, when they are given.
    fn new(ring: usize, epoch: u64, keys: &[PeerKey], networks: &[u64]) -> Ring {
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
        let network = |index: u32| networks.get(index as usize).copied().unwrap_or_default();
        order.sort_unstable_by_key(|(hash, index)| (network(*index), *hash, *index));
        let order: Vec<u32> = order.into_iter().map(|(_, index)| index).collect();
        let mut place = vec![0; order.len()];
        for (at, index) in (0u32..).zip(&order) {
            place[*index as usize] = at;
        }
        let mut parts = vec![(0, 0); networks.len()];
        let mut first = 0;
        for part in order.chunk_by(|a, b| network(*a) == network(*b)).filter(|_| !networks.is_empty()) {
            for index in part {
                parts[*index as usize] = (first, part.len() as u32);
            }
            first += part.len() as u32;
        }
        Ring { parts, order, place }
    }

    /// The others from a member on, nearest first, as far as [`REACH`].
    fn walk(&self, from: usize, forward: bool) -> impl Iterator<Item = usize> {
        let (first, len) = self.parts.get(from).map_or((0, self.order.len()), |(f, l)| (*f as usize, *l as usize));
        let at = self.place[from] as usize - first;
        (1..=REACH.min(len - 1)).map(move |step| {
            let at = if forward { (at + step) % len } else { (at + len - step) % len };
            self.order[first + at] as usize
        })
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
    fn half_of_the_watchers_are_in_other_networks() {
        for (small, n) in [(50, 100), (30, 100), (5, 100), (1, 100), (3, 10)] {
            let network = |i: u32| u64::from(i < small);
            let placed: Vec<(PeerKey, u64)> = (0..n).zip(keys(n)).map(|(i, key)| (key, network(i))).collect();
            let networks: BTreeMap<PeerKey, u64> = placed.iter().copied().collect();
            let members = Members::placed(placed, 0);
            let mut watch: BTreeMap<PeerKey, Vec<PeerKey>> = BTreeMap::new();
            let mut both = 0;
            for key in members.keys() {
                let watchers = members.watchers(key);
                assert_eq!(watchers.len(), WATCHERS, "{small} of {n}");
                let near = watchers.iter().filter(|w| networks[*w] == networks[key]).count();
                both += usize::from((1..WATCHERS).contains(&near));
                watchers.iter().for_each(|w| watch.entry(*w).or_default().push(*key));
            }
            if small >= 30 {
                assert!(both as u32 >= n - 2, "{both} of {n} are watched from both networks");
            }
            for key in members.keys() {
                let subjects = watch.remove(key).unwrap_or_default();
                assert_eq!(members.subjects(key), subjects);
                assert!(subjects.len() <= 4 * WATCHERS, "{} subjects, {small} of {n}", subjects.len());
            }
        }
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

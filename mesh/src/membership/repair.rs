//! What gossip lost is made good: now and then two members compare what they know, and the one tells the other.
//!
//! First a digest: the members in buckets by their key, a sum for each bucket. Of buckets that differ the answer
//! lists life, presence and state of each host; then either side gives the signed statements that the other
//! lacks. A newcomer learns all members in the same way, some hundred at a time, and goes on as long as there
//! is news. Every message is bounded; nothing is believed but what its speaker signed (a wrong sum or list costs
//! a message, no more), and nothing is taken from somebody with whom no comparison is under way.
//!
//! The sums are no cryptographic hashes: a member could hide its own presence from them, and gain nothing.

use super::*;
use crate::tagged;
use serde_bytes::ByteBuf;
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
use std::collections::BTreeMap;

/// One message of a comparison: the statements of some hundred hosts.
pub const DIGEST_BYTES_MAX: usize = 128 << 10;
/// Hosts listed in one message: two or three buckets of the largest mesh.
const ROWS_MAX: usize = 256;
/// Buckets: 2,300 bytes in a large mesh, 40 hosts a bucket where there are 10,000.
const BUCKETS: usize = 256;
/// The same in a mesh of less than [`FEW`].
const BUCKETS_FEW: usize = 16;
const FEW: usize = 512;
/// Members that compare with this one at a time; more would only cost.
const PARTNERS_MAX: usize = 8;
/// A comparison takes three round trips.
const PARTNER_FOR: Duration = Duration::from_secs(10);
/// Random members that are looked at for one to compare with.
const TRIES: usize = 16;
/// The first comparison after a start: connections stand by then.
const FIRST: Duration = Duration::from_secs(2);
/// Who is connected and has not been heard of after so long is compared with: gossip that loses its presence, as it
/// does when many join at once, is made good in moments and not at a random member's turn.
const MEET: Duration = Duration::from_secs(1);

const _: () = assert!(ROWS_MAX * 64 < DIGEST_BYTES_MAX && BUCKETS * 9 < DIGEST_BYTES_MAX);

/// What one side knows of a host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Row {
    pub peer: PeerKey,
    /// Of its newest presence; zero when there is none.
    pub start: u64,
    pub sequence: u64,
    /// 0 takes part, 1 is down, 2 has left. Suspicion passes, and is not compared.
    pub state: u8,
}

impl Row {
    fn new(peer: PeerKey, (start, sequence): (u64, u64), state: State) -> Row {
        let state = match state {
            State::Alive | State::Suspect => 0,
            State::Down => 1,
            State::Left => 2,
        };
        Row { peer, start, sequence, state }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Digest {
    pub sums: Vec<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Rows {
    pub rows: Vec<Row>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Want {
    pub peers: Vec<PeerKey>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Bundle {
    /// Encoded [`Statement`]s.
    pub statements: Vec<ByteBuf>,
}

tagged! {
    /// The messages of a comparison.
    #[derive(Clone, PartialEq, Debug)]
    pub enum Exchange {
        1 => Digest(Digest),
        2 => Rows(Rows),
        3 => Want(Want),
        4 => Bundle(Bundle),
    }
}

/// Comparisons under way.
pub(super) struct Repair {
    at: Time,
    /// With whom, until when.
    partners: BTreeMap<PeerKey, Time>,
    /// Members that have connected and whose presence is not known, and when to ask them.
    unmet: BTreeMap<PeerKey, Time>,
}

impl Repair {
    pub fn new(now: Time) -> Repair {
        Repair { at: now + FIRST, partners: BTreeMap::new(), unmet: BTreeMap::new() }
    }

    /// Whether this one may take part now.
    fn begin(&mut self, peer: PeerKey, now: Time) -> bool {
        self.partners.retain(|_, until| *until > now);
        let room = self.partners.len() < PARTNERS_MAX || self.partners.contains_key(&peer);
        if room {
            self.partners.insert(peer, now + PARTNER_FOR);
        }
        room
    }
}

impl Membership {
    pub(super) fn compare_at(&self) -> Option<Time> {
        let first = self.repair.unmet.values().copied().min();
        (self.subjects.members().len() > 1).then(|| first.map_or(self.repair.at, |at| at.min(self.repair.at)))
    }

    /// A member has connected: it is compared with when nothing is heard of it soon.
    pub(super) fn meet(&mut self, peer: PeerKey, now: Time) {
        if self.is_unmet(&peer) {
            let at = now + MEET + self.jitter(MEET);
            self.repair.unmet.entry(peer).or_insert(at);
        }
    }

    fn is_unmet(&self, peer: &PeerKey) -> bool {
        let index = self.subjects.members().index(peer);
        index.is_some_and(|i| self.subjects.connected_at(i) && self.subjects.record_at(i).is_none())
    }

    fn meet_when_due(&mut self, now: Time) {
        let due = |(peer, at): (&PeerKey, &Time)| (*at <= now).then_some(*peer);
        let due: Vec<PeerKey> = self.repair.unmet.iter().filter_map(due).collect();
        for peer in due {
            self.repair.unmet.remove(&peer);
            if self.is_unmet(&peer) {
                self.compare_with(peer, now);
                self.meet(peer, now); // should that get lost as well
            }
        }
    }

    fn compare_with(&mut self, peer: PeerKey, now: Time) {
        if self.repair.begin(peer, now) {
            let buckets = if self.subjects.members().len() < FEW { BUCKETS_FEW } else { BUCKETS };
            self.tell(peer, &Exchange::Digest(Digest { sums: self.sums(buckets) }));
        }
    }

    pub(super) fn compare_when_due(&mut self, now: Time) {
        self.meet_when_due(now);
        if self.subjects.members().len() < 2 || now < self.repair.at {
            return;
        }
        let tenth = self.config.repair / 10;
        self.repair.at = now + 9 * tenth + self.jitter(2 * tenth);
        if let Some(peer) = self.somebody() {
            self.compare_with(peer, now);
        }
    }

    /// A random member that takes part, rather one to whom a connection stands.
    fn somebody(&mut self) -> Option<PeerKey> {
        let members = self.subjects.members().clone();
        let mut other = None;
        for _ in 0..TRIES {
            let index = (self.next_random() % members.len().max(1) as u64) as usize;
            let peer = *members.keys().get(index)?;
            if peer != self.me && self.subjects.counts_at(index) {
                if self.subjects.connected_at(index) {
                    return Some(peer);
                }
                other.get_or_insert(peer);
            }
        }
        other
    }

    pub(super) fn compared(&mut self, from: PeerKey, bytes: &[u8], now: Time) -> Result<(), Refused> {
        self.enrolled(from)?;
        if self.left || from == self.me {
            return Ok(());
        }
        let exchange: Exchange = decode(bytes, DIGEST_BYTES_MAX)?;
        let under_way = self.repair.partners.get(&from).is_some_and(|until| *until > now);
        match exchange {
            Exchange::Digest(digest) => self.answer_digest(from, &digest, now),
            _ if !under_way => Err(Refused::OutOfPlace("part of a comparison that is not under way")),
            Exchange::Rows(rows) => {
                self.answer_rows(from, &rows.rows);
                Ok(())
            }
            Exchange::Want(want) => {
                let wanted: Vec<usize> =
                    want.peers.iter().take(ROWS_MAX).filter_map(|p| self.subjects.members().index(p)).collect();
                self.give(from, &wanted);
                Ok(())
            }
            Exchange::Bundle(bundle) => {
                for bytes in &bundle.statements {
                    match self.stated(bytes, now) {
                        // There may be more where that came from.
                        Ok(()) => self.repair.at = self.repair.at.min(now + self.config.again),
                        Err(Refused::Stale | Refused::NotEnrolled(_)) => {} // or ours is older than theirs
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            }
        }
    }

    /// Lists what is known of the buckets that differ.
    fn answer_digest(&mut self, from: PeerKey, digest: &Digest, now: Time) -> Result<(), Refused> {
        let buckets = digest.sums.len();
        if buckets != BUCKETS && buckets != BUCKETS_FEW {
            return Err(Refused::OutOfPlace("a digest with a strange number of buckets"));
        }
        if !self.repair.begin(from, now) {
            return Ok(());
        }
        let own = self.sums(buckets);
        let start = (self.next_random() % buckets as u64) as usize; // the first ones must not keep out the last
        let mut rows = vec![];
        for bucket in (start..buckets).chain(0..start).filter(|b| own[*b] != digest.sums[*b]) {
            rows.extend(self.bucket(bucket, buckets).map(|index| self.row(index)));
            if rows.len() >= ROWS_MAX {
                rows.truncate(ROWS_MAX);
                break;
            }
        }
        if !rows.is_empty() {
            self.tell(from, &Exchange::Rows(Rows { rows }));
        }
        Ok(())
    }

    /// Gives what the other lacks, and asks for what is newer there.
    fn answer_rows(&mut self, from: PeerKey, rows: &[Row]) {
        let (mut give, mut want) = (vec![], vec![]);
        for theirs in rows.iter().take(ROWS_MAX) {
            let Some(index) = self.subjects.members().index(&theirs.peer) else { continue };
            let mine = self.row(index);
            let (new, old) = ((theirs.start, theirs.sequence), (mine.start, mine.sequence));
            if new > old || (new == old && mine.state != theirs.state) {
                want.push(theirs.peer);
            }
            if old > new || (new == old && mine.state != theirs.state) {
                give.push(index);
            }
        }
        if !want.is_empty() {
            self.tell(from, &Exchange::Want(Want { peers: want }));
        }
        self.give(from, &give);
    }

    /// Everything signed that is known of some hosts, as far as one message carries it.
    fn give(&mut self, to: PeerKey, hosts: &[usize]) {
        let (mut statements, mut room) = (vec![], DIGEST_BYTES_MAX - 64);
        'hosts: for index in hosts {
            for bytes in self.evidence(*index) {
                // Each stands in two byte strings and a list.
                let Some(left) = room.checked_sub(bytes.len() + 8) else { break 'hosts };
                room = left;
                statements.push(ByteBuf::from(bytes));
            }
        }
        if !statements.is_empty() {
            self.tell(to, &Exchange::Bundle(Bundle { statements }));
        }
    }

    fn evidence(&self, index: usize) -> Vec<Vec<u8>> {
        let Some(peer) = self.subjects.members().keys().get(index) else { return vec![] };
        let record = if *peer == self.me { self.own_view.presence.as_ref() } else { self.subjects.record_at(index) };
        let presence = record.map(|r| encode(&Statement::Presence(r.signed().clone())));
        let subject = self.subjects.get(peer);
        let said = subject.into_iter().flat_map(|s| {
            let accusations = s.standing.values().map(|heard| &heard.proof);
            s.farewell.iter().chain(&s.word).chain(accusations).map(|checked| checked.bytes())
        });
        presence.into_iter().chain(said).collect()
    }

    fn row(&self, index: usize) -> Row {
        let peer = self.subjects.members().keys()[index];
        let own = peer == self.me;
        let record = if own { self.own_view.presence.as_ref() } else { self.subjects.record_at(index) };
        Row::new(peer, record.map_or((0, 0), |r| r.order()), self.subjects.state_at(index))
    }

    /// The members of a bucket: keys are in order, and so are buckets.
    fn bucket(&self, bucket: usize, buckets: usize) -> std::ops::Range<usize> {
        let keys = self.subjects.members().keys();
        let first = |bucket: usize| keys.partition_point(|key| bucket_of(key, buckets) < bucket);
        first(bucket)..first(bucket + 1)
    }

    fn sums(&self, buckets: usize) -> Vec<u64> {
        let mut sums = vec![0u64; buckets];
        let order = self.own_view.presence.as_deref().map_or((0, 0), |record| record.order());
        let own = self.subjects.members().index(&self.me).map(|_| (self.me, order, State::Alive));
        for (peer, order, state) in self.subjects.rows().chain(own) {
            let row = Row::new(peer, order, state);
            let sum = &mut sums[bucket_of(&row.peer, buckets)];
            *sum = sum.wrapping_add(mix(&row));
        }
        sums
    }

    fn tell(&mut self, to: PeerKey, exchange: &Exchange) {
        self.outputs.push_back(Output::Digest { to, bytes: encode(exchange) });
    }
}

fn bucket_of(peer: &PeerKey, buckets: usize) -> usize {
    usize::from(peer.as_bytes()[0]) * buckets / 256
}

/// The finaliser of SplitMix64, once for each part.
fn mix(row: &Row) -> u64 {
    let mut prefix = [0; 8];
    prefix.copy_from_slice(&row.peer.as_bytes()[..8]);
    [row.start, row.sequence, u64::from(row.state)].into_iter().fold(u64::from_be_bytes(prefix), |hash, part| {
        let mut z = hash.wrapping_add(part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

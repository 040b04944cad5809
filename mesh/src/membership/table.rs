//! What a host keeps of all others: little of most, everything of a few.
//!
//! Whom this host watches, and who deviates (is accused, down, gone, lately restarted, a clone), has a [`Subject`].
//! Everybody else has a [`Slot`] of 48 bytes, beside a shared list of members and a presence that may be shared
//! too. A subject about which nothing happens any more is folded back into its slot, and unfolded when somebody
//! speaks of it. Also here: the order in which subjects are due, so that time costs what is due and no more.
//!
//! Bookkeeping only. What follows from it is decided in [`super::Membership`].

use super::members::Members;
use super::record::Record;
use super::state::State;
use super::statement::Incarnation;
use super::subject::{HostView, Subject};
use crate::identity::PeerKey;
use crate::time::Time;
use std::borrow::Cow;
use std::collections::{BTreeMap, btree_map};
use std::sync::Arc;

/// What is kept of a host that is not watched and about which there is nothing to say.
#[derive(Clone)]
pub(super) struct Slot {
    pub presence: Option<Arc<Record>>,
    /// Its start, as far as `life`.
    pub start: u64,
    /// See [`Subject::stamp_us`].
    pub stamp_us: u64,
    /// When it was last heard, as far as `heard`.
    pub heard_at: Time,
    pub since: Time,
    pub refutation: u32,
    /// Kept here for subjects as well.
    pub state: State,
    pub life: bool,
    pub heard: bool,
    pub connected: bool,
}

/// 10,000 hosts in one process keep 10,000 times as many of these: five gigabytes.
const _: () = assert!(size_of::<Slot>() <= 48);

impl Slot {
    fn unknown(now: Time) -> Slot {
        Slot {
            presence: None,
            start: 0,
            stamp_us: 0,
            heard_at: now,
            since: now,
            refutation: 0,
            state: State::Suspect,
            life: false,
            heard: false,
            connected: false,
        }
    }

    pub fn incarnation(&self) -> Option<Incarnation> {
        self.life.then_some(Incarnation { start: self.start, refutation: self.refutation })
    }

    fn view(&self) -> HostView {
        HostView {
            state: self.state,
            since: self.since,
            why: Cow::Borrowed(match self.state {
                State::Alive => "nobody accuses it",
                _ => "not heard yet",
            }),
            incarnation: self.incarnation(),
            presence: self.presence.clone(),
            last_heard: self.heard.then_some(self.heard_at),
            connected: self.connected,
            rtt: None,
            wall_offset_ms: None,
            free_cores: None,
            sole_witness: false,
            cloned: false,
        }
    }

    fn unfold(&mut self, now: Time) -> Subject {
        let mut subject = Subject::new(now, now, now);
        subject.view = self.view();
        subject.stamp_us = self.stamp_us;
        // Whatever it did before, it did long ago.
        subject.learned = self.since;
        subject.origin = self.presence.as_ref().filter(|p| p.start == self.start).map(|p| p.origin());
        self.presence = None;
        subject
    }

    fn fold(&mut self, subject: Subject) {
        let view = subject.view;
        *self = Slot {
            start: view.incarnation.map_or(0, |i| i.start),
            refutation: view.incarnation.map_or(0, |i| i.refutation),
            life: view.incarnation.is_some(),
            stamp_us: subject.stamp_us,
            heard_at: view.last_heard.unwrap_or(view.since),
            heard: view.last_heard.is_some(),
            since: view.since,
            state: view.state,
            connected: view.connected,
            presence: view.presence,
        };
    }
}

pub(super) struct Table {
    me: PeerKey,
    members: Arc<Members>,
    slots: Vec<Slot>,
    full: BTreeMap<PeerKey, Box<Subject>>,
    due: BTreeMap<(Time, PeerKey), &'static str>,
    /// Subjects that somebody may have changed since their time was last reckoned.
    dirty: Vec<PeerKey>,
}

impl Table {
    pub fn new(me: PeerKey) -> Table {
        Table {
            me,
            members: Members::new([], 0),
            slots: vec![],
            full: BTreeMap::new(),
            due: BTreeMap::new(),
            dirty: vec![],
        }
    }

    pub fn members(&self) -> &Arc<Members> {
        &self.members
    }

    /// Takes another list. Who is no longer on it is forgotten, with all that it said of others.
    pub fn replace(&mut self, members: &Arc<Members>, now: Time) {
        let old = std::mem::replace(&mut self.members, members.clone());
        let mut had = old.keys().iter().zip(std::mem::take(&mut self.slots)).peekable();
        self.slots.reserve_exact(members.len());
        for key in members.keys() {
            while had.peek().is_some_and(|(k, _)| *k < key) {
                had.next();
            }
            let kept = had.next_if(|(k, _)| *k == key);
            self.slots.push(kept.map_or_else(|| Slot::unknown(now), |(_, slot)| slot));
        }
        let me = self.me;
        let due = &mut self.due;
        self.full.retain(|peer, subject| {
            let stays = *peer != me && members.index(peer).is_some();
            if !stays && let Some(at) = subject.due {
                due.remove(&(at, *peer));
            }
            stays
        });
        for subject in self.iter_mut().map(|(_, s)| s) {
            subject.standing.retain(|accuser, _| *accuser == me || members.index(accuser).is_some());
            subject.taken.retain(|accuser, _| *accuser == me || members.index(accuser).is_some());
        }
    }

    /// Whether it is another member.
    pub fn contains(&self, peer: &PeerKey) -> bool {
        self.full.contains_key(peer) || (*peer != self.me && self.members.index(peer).is_some())
    }

    /// What is watched or deviates.
    pub fn get(&self, peer: &PeerKey) -> Option<&Subject> {
        self.full.get(peer).map(|s| &**s)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, peer: &PeerKey) -> Option<&mut Subject> {
        let subject = self.full.get_mut(peer)?;
        if self.dirty.last() != Some(peer) {
            self.dirty.push(*peer);
        }
        Some(subject)
    }

    /// The subject, unfolded when it was not. `None` when it is no other member.
    pub fn open(&mut self, peer: &PeerKey, now: Time) -> Option<&mut Subject> {
        if !self.full.contains_key(peer) {
            let slot = self.slot_mut(peer)?;
            let subject = Box::new(slot.unfold(now));
            self.full.insert(*peer, subject);
        }
        let subject = self.get_mut(peer)?;
        subject.touched = now;
        Some(subject)
    }

    /// The slot of a member that has no subject.
    pub fn slot_mut(&mut self, peer: &PeerKey) -> Option<&mut Slot> {
        if *peer == self.me || self.full.contains_key(peer) {
            return None;
        }
        let index = self.members.index(peer)?;
        self.slots.get_mut(index)
    }

    /// The same by number, where that is known to be so.
    pub fn slot_at(&mut self, index: usize) -> Option<&mut Slot> {
        let key = self.members.keys().get(index)?;
        if *key == self.me || self.full.contains_key(key) { None } else { self.slots.get_mut(index) }
    }

    pub fn fold(&mut self, peer: &PeerKey) {
        if let (Some(index), Some(subject)) = (self.members.index(peer), self.full.remove(peer)) {
            if let Some(at) = subject.due {
                self.due.remove(&(at, *peer));
            }
            self.slots[index].fold(*subject);
        }
    }

    /// The state of a member by its number. This host's own is alive.
    pub fn state_at(&self, index: usize) -> State {
        match self.members.keys().get(index) {
            Some(key) if *key == self.me => State::Alive,
            _ => self.slots.get(index).map_or(State::Suspect, |s| s.state),
        }
    }

    /// Whether a member takes part: is neither down nor gone.
    pub fn counts_at(&self, index: usize) -> bool {
        !matches!(self.state_at(index), State::Down | State::Left)
    }

    /// Notes a subject's new state.
    pub fn set_state(&mut self, peer: &PeerKey, state: State) {
        if let Some(index) = self.members.index(peer) {
            self.slots[index].state = state;
        }
    }

    /// The newest presence of another member.
    pub fn record_at(&self, index: usize) -> Option<&Arc<Record>> {
        let key = self.members.keys().get(index)?;
        match self.full.get(key) {
            Some(subject) => subject.view.presence.as_ref(),
            None => self.slots.get(index)?.presence.as_ref(),
        }
    }

    pub fn connected_at(&self, index: usize) -> bool {
        let subject = self.members.keys().get(index).and_then(|key| self.full.get(key));
        subject.map_or_else(|| self.slots.get(index).is_some_and(|s| s.connected), |s| s.view.connected)
    }

    pub fn view(&self, peer: &PeerKey) -> Option<Cow<'_, HostView>> {
        if let Some(subject) = self.full.get(peer) {
            return Some(Cow::Borrowed(&subject.view));
        }
        let index = self.members.index(peer).filter(|_| *peer != self.me)?;
        self.slots.get(index).map(|slot| Cow::Owned(slot.view()))
    }

    /// All other members.
    pub fn views(&self) -> impl Iterator<Item = (&PeerKey, Cow<'_, HostView>)> {
        let mut full = self.full.iter().peekable();
        self.members.keys().iter().zip(&self.slots).filter(|(key, _)| **key != self.me).map(move |(key, slot)| {
            match full.next_if(|(k, _)| *k == key) {
                Some((_, subject)) => (key, Cow::Borrowed(&subject.view)),
                None => (key, Cow::Owned(slot.view())),
            }
        })
    }

    /// All other members in order: newest presence, and state.
    pub fn rows(&self) -> impl Iterator<Item = (PeerKey, (u64, u64), State)> {
        let mut full = self.full.iter().peekable();
        self.members.keys().iter().zip(&self.slots).filter(|(key, _)| **key != self.me).map(move |(key, slot)| {
            let subject = full.next_if(|(k, _)| *k == key);
            let record = subject.map_or(slot.presence.as_ref(), |(_, s)| s.view.presence.as_ref());
            (*key, record.map_or((0, 0), |r| r.order()), slot.state)
        })
    }

    /// Those that are watched or deviate.
    pub fn iter(&self) -> impl Iterator<Item = (&PeerKey, &Subject)> {
        self.full.iter().map(|(peer, subject)| (peer, &**subject))
    }

    /// Those that this host watches.
    pub fn watched(&self) -> impl Iterator<Item = (&PeerKey, &Subject)> {
        self.iter().filter(|(_, s)| s.watched)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&PeerKey, &mut Subject)> {
        self.dirty.extend(self.full.keys());
        let all: btree_map::IterMut<'_, PeerKey, Box<Subject>> = self.full.iter_mut();
        all.map(|(peer, subject)| (peer, &mut **subject))
    }

    /// A subject whose time has to be reckoned anew.
    pub fn next_dirty(&mut self) -> Option<PeerKey> {
        self.dirty.pop()
    }

    pub fn set_due(&mut self, peer: &PeerKey, due: Option<(Time, &'static str)>) {
        let Some(subject) = self.full.get_mut(peer) else { return };
        if let Some(old) = subject.due {
            self.due.remove(&(old, *peer));
        }
        subject.due = due.map(|(at, _)| at);
        if let Some((at, why)) = due {
            self.due.insert((at, *peer), why);
        }
    }

    /// What is due first, and why.
    pub fn first_due(&self) -> Option<(Time, &'static str)> {
        self.due.first_key_value().map(|((at, _), why)| (*at, *why))
    }

    /// Who is due by now, in order.
    pub fn due_by(&self, now: Time) -> Vec<PeerKey> {
        self.due.keys().take_while(|(at, _)| *at <= now).map(|(_, peer)| *peer).collect()
    }

    /// Bytes on the heap that belong to this table alone: without the list of members and the presences.
    #[cfg(test)]
    pub fn own_bytes(&self) -> usize {
        let full = self.full.values().map(|s| size_of::<Subject>() + 64 + s.own_bytes()).sum::<usize>();
        self.slots.capacity() * size_of::<Slot>() + full + self.due.len() * 96
    }
}

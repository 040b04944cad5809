//! Who is there: watchers, signed accusations, and what every host says of itself. Sans-IO.
//!
//! Each host has watchers: everybody else in a small mesh, eight neighbours on rings in a larger one
//! ([`Members`]). A watcher asks each subject every second or two ([`Config::probe_share`]); when the
//! answers stop it accuses, signed and with its evidence. The others then ask at once, and whoever
//! gets an answer passes the signed answer on; the subject itself refutes with a higher incarnation.
//! Down needs several accusers and nobody's fresh word, and ends with the first fresh answer. After
//! Rapid (Suresh et al., USENIX ATC 2018), SWIM (2002) and Lifeguard (2017); numbers in [`Config`].
//!
//! A host that was enrolled but not yet heard is *suspect* with `last_heard: None`: nothing is given
//! to it, and nothing is claimed either. After [`Config::newcomer`] its silence counts like any
//! other, so that it goes down by the same rules and by them only.
//!
//! A host that this one does not watch is alive when its presence is known and nobody accuses it. Of such a host
//! only a small record is kept (`table.rs`), and time costs what is due: probes of eight subjects, however
//! large the mesh. What gossip lost, and what a newcomer has never heard, comes by comparing digests with a
//! random member (`repair.rs`). The list of members, presences and verified statements are behind `Arc`s
//! that many cores of one process may share ([`Members`], [`Record`], [`Checked`]).
//!
//! Nothing here opens a connection, knows an address, reads a clock or heals anything. The driver
//! carries probes over the standing connection and statements over gossip ([`Output`]); blame and healing
//! read [`HostView`] elsewhere.

mod config;
mod facts;
mod hearing;
mod lateness;
mod members;
mod network;
mod probing;
mod record;
mod repair;
mod state;
mod statement;
mod story;
mod subject;
mod table;

pub use config::Config;
pub use members::{Members, RINGS, SMALL, WATCHERS};
pub use network::{NETWORK_TAG, Networks, network_of};
pub use record::{Checked, Record};
pub use repair::DIGEST_BYTES_MAX;
pub use state::{Event, State};
pub use statement::*;
pub use story::{CHAPTERS_MAX, Chapter, STORIES_MAX, Told};
pub use subject::{Heard, HostView};

use crate::identity::{Keys, PeerKey};
use crate::limits::STATEMENT_BYTES_MAX;
use crate::mutants::{self, Mutant};
use crate::time::Time;
use crate::wire::{Signed, WireError, decode, encode};
use record::Said;
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use subject::Subject;
use table::Table;

/// Up to so many members [`Config::linger`] holds in full.
const LINGER_FULL: u32 = 64;

/// Who this process is; fixed while it runs.
#[derive(Clone, Debug)]
pub struct Own {
    /// Its keys.
    pub keys: Keys,
    /// The mesh.
    pub mesh: [u8; 32],
    /// Its start number, counted up and fsynced by the caller.
    pub start: u64,
    /// Random id of the state folder.
    pub store: [u8; 16],
    /// Id of the machine, hashed by the caller.
    pub machine_id: [u8; 32],
    /// Id of the machine's (or container's) present boot.
    pub boot_id: [u8; 16],
    /// Random, drawn by this very process: tells two copies of one folder on one machine apart.
    pub nonce: u64,
}

/// What the world tells the core.
#[derive(Clone, Debug)]
pub enum Input {
    /// A connection to the peer stands, the first or another.
    Connected(PeerKey),
    /// The last connection to the peer is gone.
    Disconnected(PeerKey),
    /// A peer asks, on its own connection.
    Probe {
        /// Who, as proved by the connection.
        from: PeerKey,
        /// An encoded [`Probe`].
        bytes: Vec<u8>,
    },
    /// A peer answers, on its own connection.
    Reply {
        /// Who, as proved by the connection.
        from: PeerKey,
        /// An encoded [`Reply`].
        bytes: Vec<u8>,
    },
    /// An encoded [`Statement`], from anybody.
    Statement(Vec<u8>),
    /// The same, verified already: see [`Checked`].
    Checked(Arc<Checked>),
    /// A peer compares what it knows with us, on its own connection.
    Digest {
        /// Who, as proved by the connection.
        from: PeerKey,
        /// What [`Output::Digest`] gave, at most [`DIGEST_BYTES_MAX`].
        bytes: Vec<u8>,
    },
}

/// What the core wants done, or made known.
#[derive(Clone, PartialEq, Debug)]
pub enum Output {
    /// Send to the peer on the standing connection.
    Probe {
        /// To whom.
        to: PeerKey,
        /// An encoded [`Probe`].
        bytes: Vec<u8>,
    },
    /// Send to the peer that asked.
    Reply {
        /// To whom.
        to: PeerKey,
        /// An encoded [`Reply`].
        bytes: Vec<u8>,
    },
    /// No connection stands where a probe is due: dial, if the table of addresses allows it now.
    Reach(PeerKey),
    /// Give to gossip.
    Publish(Vec<u8>),
    /// Send to the peer, when a connection to it stands or is cheap to have; else drop it.
    Digest {
        /// To whom.
        to: PeerKey,
        /// At most [`DIGEST_BYTES_MAX`].
        bytes: Vec<u8>,
    },
    /// A host went from one state to another.
    Changed {
        /// Which.
        peer: PeerKey,
        /// From.
        from: State,
        /// To.
        to: State,
        /// Why, in words.
        why: String,
    },
    /// A newer presence of the peer is known.
    Presence(PeerKey),
    /// The peer has started anew: its attempts are lost.
    Restarted {
        /// Which.
        peer: PeerKey,
        /// Start number known before.
        before: u64,
        /// Start number now.
        start: u64,
    },
    /// Two live starts of one key.
    Clone {
        /// Whose; this host's own key when the twin is ours.
        peer: PeerKey,
        /// What shows it.
        evidence: CloneEvidence,
    },
}

/// What shows that a key lives twice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CloneEvidence {
    /// One start number spoke from two places (state folder, machine, boot).
    TwoOrigins {
        /// The start number.
        start: u64,
        /// Fingerprint heard first.
        first: u64,
        /// And the other.
        second: u64,
    },
    /// A probe sent after a higher start was known got an answer of a lower one.
    OlderAnswers {
        /// The highest start known.
        newest: u64,
        /// The start that answered.
        answered: u64,
    },
}

/// Why an input was refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Bytes or signature are bad.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// It is by, or about, somebody who is not enrolled.
    #[error("{0} is not enrolled")]
    NotEnrolled(PeerKey),
    /// It was said in another mesh.
    #[error("statement of another mesh")]
    OtherMesh,
    /// It is not newer than what is known.
    #[error("nothing new")]
    Stale,
    /// A reply to no probe of ours, or a claim about oneself that only others can make.
    #[error("out of place: {0}")]
    OutOfPlace(&'static str),
}

/// The membership core of one host.
pub struct Membership {
    own: Own,
    me: PeerKey,
    config: Config,
    random: u64,
    own_view: HostView,
    refutation: u32,
    accusations: u64,
    spoken: Option<Time>,
    /// When this host answers those that accuse it.
    speak: Option<Time>,
    publish_presence: Time,
    left: bool,
    free_cores: u32,
    wall: Option<(u64, Time)>,
    subjects: Table,
    /// When whom to watch is reckoned anew: somebody has gone down, or come back.
    rewatch: Option<Time>,
    alarms: lateness::Alarms,
    stories: story::Stories,
    repair: repair::Repair,
    outputs: VecDeque<Output>,
    refused: u64,
}

impl Membership {
    /// A core that knows nobody yet.
    pub fn new(own: Own, seed: u64, config: Config, now: Time) -> Self {
        let me = own.keys.key();
        let mut own_view = Subject::new(now, now, now).view;
        own_view.state = State::Alive;
        own_view.why = Cow::Borrowed("this host");
        own_view.incarnation = Some(Incarnation { start: own.start, refutation: 0 });
        own_view.connected = true;
        own_view.last_heard = Some(now);
        let publish_presence = now + config.presence;
        Membership {
            me,
            own,
            random: seed,
            own_view,
            refutation: 0,
            accusations: 0,
            spoken: None,
            speak: None,
            publish_presence,
            left: false,
            free_cores: 0,
            wall: None,
            subjects: Table::new(me),
            rewatch: None,
            alarms: lateness::Alarms::default(),
            stories: story::Stories::default(),
            repair: repair::Repair::new(now),
            outputs: VecDeque::new(),
            refused: 0,
            config,
        }
    }

    /// The enrolled peers, this host among them or not. Who is no longer one is forgotten, with all
    /// that it said of others. The list may be shared with other cores.
    pub fn set_members(&mut self, members: &Arc<Members>, now: Time) {
        self.subjects.replace(members, now);
        self.stories.retain(|peer| members.index(peer).is_some());
        self.watch(now);
        self.settle(now);
    }

    /// Presences of many others at once, as somebody hands them on to a newcomer; quickest in the order of
    /// their keys. No output comes of hosts that were unknown so far: whoever hands them in knows them. Those of
    /// hosts that are not enrolled, and of other meshes, are passed over.
    pub fn learn<'a>(&mut self, records: impl IntoIterator<Item = &'a Arc<Record>>, now: Time) {
        let (mesh, mut next) = (self.own.mesh, 0);
        for record in records.into_iter().filter(|r| r.mesh == mesh) {
            let peer = record.by();
            let members = self.subjects.members();
            let index = if members.keys().get(next) == Some(&peer) { Some(next) } else { members.index(&peer) };
            let Some(index) = index else { continue };
            next = index + 1;
            let learned = self.subjects.slot_at(index).is_some_and(|slot| hearing::first_presence(slot, record, now));
            if !learned {
                let _ = self.presence(record, None, now); // old news, at worst
            }
        }
        self.settle(now);
    }

    /// Own slow facts. Signs and publishes a new presence, but only when something changed.
    pub fn set_facts(&mut self, mut facts: PresenceFacts, now: Time) {
        facts.clip();
        let old = self.own_view.presence.as_ref();
        if old.is_some_and(|p| p.facts == facts) {
            return;
        }
        let sequence = old.map_or(1, |p| p.sequence + 1);
        self.present(facts, sequence, now);
    }

    fn present(&mut self, facts: PresenceFacts, sequence: u64, now: Time) {
        let presence = Presence {
            mesh: self.own.mesh,
            start: self.own.start,
            sequence,
            store: self.own.store,
            machine_id: self.own.machine_id,
            boot_id: self.own.boot_id,
            nonce: self.own.nonce,
            facts,
        };
        let signed = Signed::seal(&self.own.keys, &presence);
        self.own_view.presence = Some(Arc::new(Record::sealed(signed.clone(), presence)));
        self.publish_presence = now + self.presence_period();
        self.publish(&Statement::Presence(signed));
        self.outputs.push_back(Output::Presence(self.me));
    }

    /// Publishes the own presence anew, with a higher sequence: whoever has just connected, and all behind
    /// it, may have missed the last one, and gossip does not carry the same bytes twice.
    pub fn announce(&mut self, now: Time) {
        if let Some(old) = self.own_view.presence.take() {
            self.present(old.facts.clone(), old.sequence + 1, now);
        }
    }

    /// What all hosts together repeat does not grow with the mesh: each repeats its own more rarely.
    fn presence_period(&self) -> Duration {
        self.config.presence * (self.subjects.members().len() / 32).max(1) as u32
    }

    /// For how long what was said of a host that is not watched is kept: in a large mesh less long, so that it takes
    /// the same room however many there are to be spoken of.
    fn linger(&self) -> Duration {
        let members = u32::try_from(self.subjects.members().len()).unwrap_or(u32::MAX);
        self.config.linger * LINGER_FULL / members.max(LINGER_FULL)
    }

    /// What the leader wants to know often: free cores, and the wall clock at this moment.
    pub fn set_load(&mut self, free_cores: u32, wall_ms: u64, now: Time) {
        self.free_cores = free_cores;
        self.own_view.free_cores = Some(free_cores);
        self.wall = Some((wall_ms, now));
    }

    /// Something happened.
    pub fn handle(&mut self, input: Input, now: Time) {
        self.notice_stall(now);
        let result = match input {
            Input::Connected(peer) => {
                self.connected(peer, now);
                Ok(())
            }
            Input::Disconnected(peer) => {
                self.disconnected(peer, now);
                Ok(())
            }
            Input::Probe { from, bytes } => self.probed(from, &bytes, now),
            Input::Reply { from, bytes } => self.replied(from, &bytes, now),
            Input::Statement(bytes) => self.stated(&bytes, now),
            Input::Checked(checked) => self.enrolled(checked.by()).and_then(|()| self.said(&checked, now)),
            Input::Digest { from, bytes } => self.compared(from, &bytes, now),
        };
        self.settle(now);
        if let Err(error) = result
            && error != Refused::Stale
        {
            self.refused += 1;
            tracing::debug!(%error, "input refused");
        }
    }

    /// Says farewell. From now on this core neither asks nor answers.
    pub fn leave(&mut self, now: Time) {
        if self.left {
            return;
        }
        self.left = true;
        let farewell = Farewell { mesh: self.own.mesh, incarnation: self.incarnation() };
        self.publish(&Statement::Farewell(Signed::seal(&self.own.keys, &farewell)));
        let from = std::mem::replace(&mut self.own_view.state, State::Left);
        self.own_view.since = now;
        self.own_view.why = Cow::Borrowed("said farewell");
        let why = "said farewell".to_owned();
        self.outputs.push_back(Output::Changed { peer: self.me, from, to: State::Left, why });
    }

    /// What to do next for this core, until `None`.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What is believed of a host, this one included. Made on the spot for hosts of which only a small record
    /// is kept.
    pub fn host(&self, peer: &PeerKey) -> Option<Cow<'_, HostView>> {
        if *peer == self.me { Some(Cow::Borrowed(&self.own_view)) } else { self.subjects.view(peer) }
    }

    /// All hosts, this one first.
    pub fn hosts(&self) -> impl Iterator<Item = (&PeerKey, Cow<'_, HostView>)> {
        std::iter::once((&self.me, Cow::Borrowed(&self.own_view))).chain(self.subjects.views())
    }

    /// Whom this host watches now.
    pub fn watches(&self) -> impl Iterator<Item = &PeerKey> {
        self.subjects.watched().map(|(peer, _)| peer)
    }

    /// The members, as told last.
    pub fn members(&self) -> &Arc<Members> {
        self.subjects.members()
    }

    /// Since when a host that this one watches does not answer on the connection that stands, whatever others hear
    /// of it: after long enough the connection is dead, and another way has to be tried.
    pub fn mute_since(&self, peer: &PeerKey) -> Option<Time> {
        self.subjects.get(peer)?.mute_since
    }

    /// Accusations of a host: those that ended, oldest first, then those that stand.
    pub fn accusations(&self, peer: &PeerKey) -> impl Iterator<Item = &Heard> {
        self.subjects.get(peer).into_iter().flat_map(|s| s.past.iter().chain(s.standing.values()).map(|heard| &**heard))
    }

    /// What happened around a host of late, oldest first: who accused it and on what evidence, what answered
    /// them, what was made of it here and why; of this host itself, who accused it. At most [`CHAPTERS_MAX`] chapters of each of
    /// [`STORIES_MAX`] hosts; none of one about which there was nothing to say.
    pub fn story(&self, peer: &PeerKey) -> impl DoubleEndedIterator<Item = &Chapter> {
        self.stories.of(peer)
    }

    /// How often a host has come back from being down in the last ten minutes, as far as its story goes. One that does
    /// so again and again is no place for anything that has to stay.
    pub fn flaps(&self, peer: &PeerKey, now: Time) -> usize {
        self.stories.flaps(peer, now)
    }

    /// Inputs refused so far, but for what was merely old.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Whether this host misses so many others that it suspects itself, and accuses nobody.
    pub fn keeps_still(&self, now: Time) -> bool {
        let silence = self.config.silence;
        let silent = |s: &&Subject| s.silent_since.is_some_and(|since| now.since(since) >= silence);
        let heard = || self.subjects.watched().map(|(_, s)| s).filter(|s| s.counts() && s.view.last_heard.is_some());
        self.most(heard().filter(silent).count(), heard().count())
    }

    /// How late answers come to this host, whoever gives them: the longest wait of late that a quarter of its subjects
    /// have in common. Zero where nothing is lost. Accusations and verdicts wait in proportion.
    pub fn lateness(&self, now: Time) -> Duration {
        let half_life = self.config.late_half_life;
        let watched = self.subjects.watched().map(|(_, s)| s).filter(|s| s.counts() && s.answered.is_some());
        lateness::common(watched.map(|s| s.late.now(half_life, now)).collect())
    }

    /// What a wait becomes when there are false alarms in the mesh.
    fn wary(&self, wait: Duration, now: Time) -> Duration {
        let factor = self.alarms.factor(self.config.alarms, self.config.alarms_half_life, now);
        wait.saturating_mul(u32::try_from(factor).unwrap_or(u32::MAX)) / 1_000
    }

    fn most(&self, silent: usize, all: usize) -> bool {
        silent > 1 && silent * 100 > all * self.config.still_percent
    }

    fn incarnation(&self) -> Incarnation {
        Incarnation { start: self.own.start, refutation: self.refutation }
    }

    fn origin(&self) -> u64 {
        origin(&self.own.store, &self.own.machine_id, &self.own.boot_id, self.own.nonce)
    }

    fn signed_alive(&self, now: Time) -> Signed {
        let alive = Alive {
            mesh: self.own.mesh,
            incarnation: self.incarnation(),
            stamp_us: now.as_micros(),
            origin: self.origin(),
        };
        Signed::seal(&self.own.keys, &alive)
    }

    fn publish(&mut self, statement: &Statement) {
        self.outputs.push_back(Output::Publish(encode(statement)));
    }

    fn step(&mut self, peer: PeerKey, event: Event, why: impl FnOnce() -> String, now: Time) {
        let Some(subject) = self.subjects.get_mut(&peer) else { return };
        let Some(to) = subject.view.state.after(event) else { return };
        if subject.view.state == State::Down && to != State::Left && mutants::on(Mutant::DownIsForEver) {
            return;
        }
        let from = std::mem::replace(&mut subject.view.state, to);
        let why = why();
        subject.view.since = now;
        subject.view.why = Cow::Owned(why.clone());
        if to != State::Down {
            subject.view.sole_witness = false;
        }
        self.subjects.set_state(&peer, to);
        self.stories.tell(peer, Told::Became { from, to, why: why.clone() }, now);
        self.outputs.push_back(Output::Changed { peer, from, to, why });
        let gone = |state| matches!(state, State::Down | State::Left);
        if gone(from) != gone(to) {
            self.watchers_changed(now);
        } else if self.subjects.members().is_placed() {
            self.judge_anew(); // it may have been the last of its network that could tell
        }
    }

    /// Somebody counts no more, or again: others may have to watch in its place, and fewer or more accusers may
    /// be needed for a verdict.
    fn watchers_changed(&mut self, now: Time) {
        if !self.subjects.members().is_small() {
            // Many go together: once for all of them.
            self.rewatch.get_or_insert(now + probing::REWATCH);
        }
        self.judge_anew();
    }

    /// When a verdict falls on those that are accused has to be reckoned anew.
    fn judge_anew(&mut self) {
        let accused = |(peer, s): (&PeerKey, &Subject)| (!s.standing.is_empty()).then_some(*peer);
        let accused: Vec<PeerKey> = self.subjects.iter().filter_map(accused).collect();
        for peer in accused {
            self.subjects.get_mut(&peer);
        }
    }

    /// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): nonces and jitter, nothing that has to be secret.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn jitter(&mut self, below: Duration) -> Duration {
        Duration::from_micros(self.next_random() % (below.as_micros() as u64).max(1))
    }
}

#[cfg(test)]
mod apart_tests;
#[cfg(test)]
mod order_tests;
#[cfg(test)]
mod patience_tests;
#[cfg(test)]
mod ring_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod verdict_tests;
#[cfg(test)]
mod wire_tests;
#[cfg(test)]
mod world;

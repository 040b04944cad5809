//! One watched host: what is believed of it, the probes under way, and who accuses it.
//!
//! Bookkeeping only. What follows from it is decided in [`super::Membership`].

use super::config::Config;
use super::lateness::Lateness;
use super::record::{Checked, Record};
use super::state::State;
use super::statement::{Accusation, Incarnation};
use crate::identity::PeerKey;
use crate::time::Time;
use litemap::LiteMap;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Probes under way to one subject: at one every 100 ms, more than a second's worth.
const SENT_MAX: usize = 16;
/// Refuted or expired accusations that are remembered of one subject, to be shown.
const PAST_MAX: usize = 16;
/// Standing accusations of one subject: three convict, the rest is for show.
const STANDING_MAX: usize = 64;

/// Refutations that an accuser may have heard of and we not, and that the accused takes for possible.
pub(super) const AHEAD: u32 = 16;

/// The clock of a subject may be ahead of what we reckon by as much as the word was late that we reckon from.
const LATE: Duration = Duration::from_secs(10);

/// The life that an accusation counts against: the one it names, when that is possible, else the one known.
fn bounded(claimed: Incarnation, known: Incarnation) -> Incarnation {
    let ahead = claimed.refutation.saturating_sub(known.refutation);
    if claimed.start == known.start && (1..=AHEAD).contains(&ahead) { claimed } else { known }
}

/// What this host believes of another, or of itself.
#[derive(Clone, Debug)]
pub struct HostView {
    /// The verdict.
    pub state: State,
    /// Since when.
    pub since: Time,
    /// Why, in words.
    pub why: Cow<'static, str>,
    /// The life heard last; `None` when it was never heard.
    pub incarnation: Option<Incarnation>,
    /// Its newest presence.
    pub presence: Option<Arc<Record>>,
    /// When it was last heard, directly or by a relayed answer.
    pub last_heard: Option<Time>,
    /// Whether a connection stands.
    pub connected: bool,
    /// Smoothed round trip of its probes.
    pub rtt: Option<Duration>,
    /// Its wall clock less ours, in milliseconds.
    pub wall_offset_ms: Option<i64>,
    /// Cores that no build used at its last answer.
    pub free_cores: Option<u32>,
    /// This host alone judged it: nobody else could be asked.
    pub sole_witness: bool,
    /// Two live starts of its key were seen (a cloned disk, a restored backup). Ends with a higher start.
    pub cloned: bool,
}

/// One accusation, kept and shown.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Who accuses.
    pub accuser: PeerKey,
    /// What it says.
    pub accusation: Accusation,
    /// When it first arrived here.
    pub at: Time,
    /// When it stopped to count: refuted, or no longer repeated.
    pub ended: Option<Time>,
    /// The life accused, as far as known here: a claim about the future counts for the present only.
    pub(super) against: Incarnation,
    /// The time of the subject's clock from which on a word refutes, bounded in the same way.
    pub(super) stamp_us: u64,
    /// The start that this clock belongs to.
    pub(super) clock: u64,
    /// When it last arrived.
    pub(super) renewed: Time,
    /// The statement itself, for whoever missed it.
    pub(super) proof: Arc<Checked>,
}

impl Heard {
    fn refuted_by(&self, incarnation: Incarnation, stamp_us: u64) -> bool {
        incarnation > self.against || (incarnation.start == self.clock && stamp_us > self.stamp_us)
    }
}

pub(super) struct Sent {
    pub nonce: u64,
    pub at: Time,
    pub proof: bool,
}

/// An accusation that somebody else should see answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doubt {
    /// When to ask for an answer; `None` when that was done.
    pub at: Option<Time>,
    incarnation: Incarnation,
    stamp_us: u64,
}

pub(super) struct Subject {
    pub view: HostView,
    /// This host is one of its watchers.
    pub watched: bool,
    /// When it is due, as the table has it.
    pub due: Option<Time>,
    /// When somebody last spoke of it, or it was last watched.
    pub touched: Time,
    /// Its newest signed word, for whoever missed it.
    pub word: Option<Arc<Checked>>,
    /// Highest time of its own clock heard in its present start.
    pub stamp_us: u64,
    /// When its present start number was learned.
    pub learned: Time,
    pub origin: Option<u64>,
    /// A higher start than is known that has asked us, and when it first did.
    pub rival: Option<(u64, Time)>,
    pub relayed: bool,
    /// When it last answered this host itself.
    pub answered: Option<Time>,
    /// Not accused before: it may still be on its way.
    pub credit: Time,

    pub next: Time,
    /// It was asked together with others (they connected at once, this host had stood still, or somebody else had died):
    /// what follows its next answer is spread over a whole period, else all that watch somebody would come to ask it at the
    /// same time.
    pub in_step: bool,
    /// When that was drawn, until it is asked: see [`super::Membership::asked_instead`].
    pub spread: Option<Time>,
    pub sent: VecDeque<Sent>,
    pub silent_since: Option<Time>,
    /// Since when it does not answer on the connection that stands, whatever it answers others.
    pub mute_since: Option<Time>,
    pub attempts: u32,
    /// A newer presence than ours is said to exist.
    pub want_presence: bool,
    /// Others doubt it: ask for a proof, and pass it on.
    pub vouch: bool,
    /// The newest of what they say, and when this host asks, unless a word is passed on before.
    pub doubt: Option<Doubt>,
    /// When the first probe went out since the last answer.
    pub asked_since: Option<Time>,
    /// When its clock was last asked for.
    pub clock_asked: Option<Time>,
    /// Several hosts missed it at once since then.
    pub missed_by_more: bool,
    /// How long its answers took of late.
    pub late: Lateness,
    var: Duration,

    pub doublings: u32,
    pub doubled: Time,
    pub standing: LiteMap<PeerKey, Box<Heard>>,
    /// Newest accusation taken from each accuser, so that a replay is known.
    pub taken: LiteMap<PeerKey, (u64, u64)>,
    pub past: VecDeque<Box<Heard>>,
    pub farewell: Option<Arc<Checked>>,
    /// When this host's own accusation is to be repeated.
    pub repeat: Option<Time>,
    /// How often it was repeated before a verdict.
    pub repeats: u32,
}

impl Subject {
    pub fn new(now: Time, first_probe: Time, credit: Time) -> Self {
        Subject {
            view: HostView {
                state: State::Suspect,
                since: now,
                why: Cow::Borrowed("not heard yet"),
                incarnation: None,
                presence: None,
                last_heard: None,
                connected: false,
                rtt: None,
                wall_offset_ms: None,
                free_cores: None,
                sole_witness: false,
                cloned: false,
            },
            watched: false,
            due: None,
            touched: now,
            word: None,
            stamp_us: 0,
            learned: now,
            origin: None,
            rival: None,
            relayed: false,
            answered: None,
            credit,
            next: first_probe,
            in_step: true,
            spread: None,
            sent: VecDeque::new(),
            silent_since: None,
            mute_since: None,
            attempts: 0,
            want_presence: false,
            vouch: false,
            doubt: None,
            asked_since: None,
            clock_asked: None,
            missed_by_more: false,
            late: Lateness::default(),
            var: Duration::ZERO,
            doublings: 0,
            doubled: now,
            standing: LiteMap::new(),
            taken: LiteMap::new(),
            past: VecDeque::new(),
            farewell: None,
            repeat: None,
            repeats: 0,
        }
    }

    pub fn known(&self) -> Incarnation {
        self.view.incarnation.unwrap_or_default()
    }

    /// Takes part: is neither down nor gone.
    pub fn counts(&self) -> bool {
        !matches!(self.view.state, State::Down | State::Left)
    }

    /// Nothing about it needs more room than a slot has.
    pub fn calm(&self) -> bool {
        let heard = self.view.state == State::Alive || self.view.incarnation.is_none();
        !self.watched && heard && self.counts() && self.standing.is_empty() && !self.view.cloned
    }

    /// This host watches it no longer: nothing it does counts on our own answers now.
    pub fn unwatch(&mut self, now: Time) {
        self.watched = false;
        self.touched = now;
        self.sent.clear();
        self.silent_since = None;
        self.mute_since = None;
        self.attempts = 0;
        self.repeat = None;
        self.want_presence = false;
        self.vouch = false;
        self.doubt = None;
        self.asked_since = None;
        self.late = Lateness::default();
        self.view.rtt = None;
        self.view.free_cores = None;
        self.view.wall_offset_ms = None;
    }

    /// Another life than the one that the accusations speak of has begun, or the first is heard: claims about
    /// it that came early count from now on.
    fn rebind(&mut self, incarnation: Incarnation) {
        for (_, heard) in self.standing.iter_mut() {
            heard.against = bounded(heard.accusation.incarnation, incarnation);
            heard.stamp_us = heard.accusation.stamp_us;
            heard.clock = heard.accusation.incarnation.start;
        }
    }

    #[cfg(test)]
    pub fn own_bytes(&self) -> usize {
        let heard = size_of::<Heard>() + 512;
        let lists = self.standing.len() * heard + self.past.len() * heard + self.taken.len() * 64;
        lists + self.sent.capacity() * size_of::<Sent>() + self.view.why.len()
    }

    /// A probe is missed after this (RFC 6298, with a floor for late schedulers).
    pub fn patience(&self, config: &Config) -> Duration {
        let guess = match self.view.rtt {
            Some(rtt) => rtt + 4 * self.var + Duration::from_millis(25),
            None => Duration::from_millis(300),
        };
        guess.clamp(config.miss_min, config.miss_max)
    }

    pub fn measured(&mut self, rtt: Duration) {
        match self.view.rtt {
            None => {
                self.view.rtt = Some(rtt);
                self.var = rtt / 2;
            }
            Some(srtt) => {
                self.var = (3 * self.var + srtt.abs_diff(rtt)) / 4;
                self.view.rtt = Some((7 * srtt + rtt) / 8);
            }
        }
    }

    /// Silence after which this watcher accuses. `late` is how long answers may take here.
    pub fn window(&self, config: &Config, late: Duration) -> Duration {
        let doubled = 2u32.saturating_pow(self.doublings.min(config.doublings_max));
        if !self.view.connected {
            return config.silence_closed * doubled;
        }
        if self.accused_by_others() {
            // What is patience with a link of our own must not keep back a second and third word.
            return late.clamp(config.silence_joined, config.silence) * doubled;
        }
        (config.silence * doubled).max(late.min(config.silence * 2u32.saturating_pow(config.doublings_max)))
    }

    fn accused_by_others(&self) -> bool {
        self.standing.len() > usize::from(self.repeat.is_some())
    }

    /// Others doubt it: it is to be asked by then, unless a word that answers is passed on before.
    pub fn doubted(&mut self, at: Time, accusation: &Accusation) {
        let new = (accusation.incarnation, accusation.stamp_us);
        let (at, (incarnation, stamp_us)) = match self.doubt {
            Some(old) => (old.at.map_or(at, |old| old.min(at)), new.max((old.incarnation, old.stamp_us))),
            None => (at, new),
        };
        self.doubt = Some(Doubt { at: Some(at), incarnation, stamp_us });
    }

    /// A word was passed on by somebody. When it answers what others say, nobody needs another.
    pub fn passed_on(&mut self, incarnation: Incarnation, stamp_us: u64) {
        let answers = |d: Doubt| {
            incarnation > d.incarnation || (incarnation.start == d.incarnation.start && stamp_us > d.stamp_us)
        };
        if self.doubt.is_some_and(answers) {
            self.doubt = None;
            self.vouch &= !self.standing.is_empty();
        }
    }

    /// For how long an accusation counts that is not repeated.
    pub fn life(config: &Config, accusation: &Accusation) -> Duration {
        let silent = Duration::from_millis(accusation.evidence.silent_ms).min(config.repeat_max);
        config.accusation_life + 2 * silent
    }

    pub fn remember(&mut self, nonce: u64, at: Time, proof: bool) {
        if self.sent.len() >= SENT_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent { nonce, at, proof });
        self.asked_since.get_or_insert(at);
    }

    /// Finds the probe that a reply answers; it and all before it are settled.
    pub fn settle(&mut self, nonce: u64) -> Option<Time> {
        let found = self.sent.iter().position(|s| s.nonce == nonce)?;
        self.sent.drain(..=found).next_back().map(|s| s.at)
    }

    /// When the first probe went out that should have been answered by now. Probes that were under
    /// way when the last answer came do not count: the answer came.
    pub fn first_missed(&self) -> Option<Time> {
        self.sent.iter().map(|s| s.at).find(|at| self.answered.is_none_or(|answered| *at > answered))
    }

    /// The subject's clock at a moment of ours, reckoned from its last word.
    pub fn reckoned_stamp_us(&self, at: Time) -> u64 {
        match self.view.last_heard {
            Some(heard) => self.stamp_us.saturating_add(at.since(heard).as_micros() as u64),
            None => 0,
        }
    }

    /// Notes that this accusation was taken in, whatever became of it.
    pub fn took(&mut self, accuser: PeerKey, accusation: &Accusation) {
        insert(&mut self.taken, accuser, accusation.order());
    }

    /// Takes in an accusation. `true` when this accuser did not accuse before.
    pub fn accused(&mut self, accuser: PeerKey, accusation: Accusation, proof: Arc<Checked>, now: Time) -> bool {
        self.took(accuser, &accusation);
        let known = self.known();
        let behind = accusation.incarnation < known || accusation.evidence.heard_ms.is_none();
        let clock = if behind { known.start } else { accusation.incarnation.start };
        let (against, stamp_us) = match behind {
            // The accuser's clock reckoning is of another life: ours, for as long as it was silent there.
            true => {
                let silent = Duration::from_millis(accusation.evidence.silent_ms);
                (known, self.reckoned_stamp_us(now - silent))
            }
            // Of a clock that was never heard here there is the accuser's word only; a subject that is
            // accused for a time to come answers with a higher incarnation.
            false if self.view.last_heard.is_none() || clock != known.start => {
                (bounded(accusation.incarnation, known), accusation.stamp_us)
            }
            false => {
                (bounded(accusation.incarnation, known), accusation.stamp_us.min(self.reckoned_stamp_us(now + LATE)))
            }
        };
        if let Some(standing) = self.standing.get_mut(&accuser) {
            standing.renewed = now;
            standing.proof = proof;
            standing.accusation = accusation;
            standing.against = against;
            standing.stamp_us = stamp_us;
            standing.clock = clock;
            return false;
        }
        if self.standing.len() >= STANDING_MAX {
            return false;
        }
        let heard = Heard { accuser, accusation, at: now, ended: None, against, stamp_us, clock, renewed: now, proof };
        insert(&mut self.standing, accuser, Box::new(heard));
        self.missed_by_more |= self.standing.len() > 1;
        true
    }

    /// Ends the accusations that a word of the subject answers; a direct one answers all that came
    /// before the probe was sent. `true` when `me` was among the accusers.
    pub fn refute(
        &mut self,
        me: PeerKey,
        incarnation: Incarnation,
        stamp_us: u64,
        asked: Option<Time>,
        now: Time,
    ) -> bool {
        self.end(me, now, |heard| {
            heard.refuted_by(incarnation, stamp_us) || asked.is_some_and(|asked| asked >= heard.at)
        })
    }

    /// Ends what an accuser said before it said something else.
    pub fn superseded(&mut self, me: PeerKey, accuser: PeerKey, now: Time) {
        self.end(me, now, |heard| heard.accuser == accuser);
    }

    /// A farewell: whoever accused that life is answered.
    pub fn left(&mut self, me: PeerKey, incarnation: Incarnation, now: Time) {
        self.end(me, now, |heard| heard.accusation.incarnation <= incarnation);
    }

    /// Ends accusations that their accusers no longer repeat.
    pub fn expire(&mut self, me: PeerKey, config: &Config, now: Time) {
        let repeats = self.watched; // what this host says it goes on saying
        let over = |heard: &Heard| now >= heard.renewed + Subject::life(config, &heard.accusation);
        self.end(me, now, |heard| !(repeats && heard.accuser == me) && over(heard));
    }

    fn end(&mut self, me: PeerKey, now: Time, over: impl Fn(&Heard) -> bool) -> bool {
        let ended: Vec<PeerKey> = self.standing.iter().filter(|(_, h)| over(h)).map(|(p, _)| *p).collect();
        for accuser in &ended {
            if let Some(mut heard) = self.standing.remove(accuser) {
                heard.ended = Some(now);
                if self.past.len() >= PAST_MAX {
                    self.past.pop_front();
                }
                self.past.push_back(heard);
            }
        }
        if self.standing.is_empty() {
            self.standing = LiteMap::new(); // an empty one keeps its room
        }
        let mine = ended.contains(&me);
        if mine {
            self.repeat = None;
            self.repeats = 0;
        }
        mine
    }

    /// A new life: nothing of the old one's clock or accusations holds.
    pub fn reborn(&mut self, me: PeerKey, incarnation: Incarnation, now: Time) {
        self.end(me, now, |heard| heard.accusation.incarnation < incarnation);
        self.rebind(incarnation);
        self.view.cloned = false;
        self.stamp_us = 0;
        self.learned = now;
        self.origin = None;
        self.rival = None; // a copy that is still there asks again
        self.farewell = None;
        self.word = None;
    }

    /// A stall of our own loop: what was not heard meanwhile proves nothing.
    pub fn restart_windows(&mut self, next: Time, now: Time) {
        self.sent.clear();
        self.asked_since = None;
        self.silent_since = self.silent_since.map(|_| now);
        self.mute_since = self.mute_since.map(|_| now);
        self.attempts = 0;
        self.next = next;
        self.in_step = true;
        self.repeat = self.repeat.map(|at| at.max(now));
        for (_, heard) in self.standing.iter_mut() {
            heard.at = now;
            heard.renewed = now;
        }
    }
}

/// Nearly always these lists hold one: without the room for three more that a list makes at first. In a large mesh there
/// are many of them.
fn insert<V>(list: &mut LiteMap<PeerKey, V>, key: PeerKey, value: V) {
    if list.is_empty() {
        *list = LiteMap::with_capacity(1);
    }
    list.insert(key, value);
}

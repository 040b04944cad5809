//! What time does: probes, misses, this host's own accusations, verdicts.

use super::*;
use crate::mutants::{self, Mutant};

/// Attempts that must have failed before an accusation: a single lost packet is no silence.
const ATTEMPTS_MIN: u32 = 3;
/// A subject that asks us answers for itself so often, in probes.
pub(super) const ANSWERS_EVERY: u32 = 4;
/// Whom to watch is reckoned anew so long after the first of some hosts went down: they go together often.
pub(super) const REWATCH: Duration = Duration::from_millis(200);

/// A probe's nonce: of 32 bits, for it only tells answers on one connection apart, and half as long it costs half as much.
/// It tells as well whether the subject's clock is asked for: [`CLOCK_ASKED`].
fn nonce(drawn: u64, clock: bool) -> u64 {
    let short = drawn >> 32;
    short - short % CLOCK_ASKED + u64::from(!clock)
}

/// Between two probes of one subject that ask for its clock: clocks drift by minutes a year, and when one jumps it is
/// told this soon.
const CLOCK_EVERY: Duration = Duration::from_secs(4);

impl Membership {
    /// Time has passed. Called late (by more than [`Config::stall`]) it knows that this host slept,
    /// not the others.
    pub fn handle_timeout(&mut self, now: Time) {
        self.notice_stall(now);
        if self.left {
            return;
        }
        if now >= self.publish_presence {
            self.publish_presence = now + self.presence_period();
            if let Some(record) = self.own_view.presence.clone() {
                self.publish(&Statement::Presence(record.signed().clone()));
            }
        }
        self.speak_when_due(now);
        let linger = self.linger();
        for peer in self.subjects.due_by(now) {
            self.ask_for_others_when_due(peer, now);
            self.attempt_when_due(peer, now);
            self.accuse_when_due(peer, now);
            self.repeat_when_due(peer, now);
            if let Some(subject) = self.subjects.get_mut(&peer) {
                subject.expire(self.me, &self.config, now);
            }
            self.convict_when_due(peer, now);
            self.acquit(peer, now);
            if self.subjects.get(&peer).is_some_and(|s| s.calm() && now >= s.touched + linger) {
                self.subjects.fold(&peer);
            }
        }
        if self.rewatch.is_some_and(|at| now >= at) {
            self.watch(now);
        }
        self.compare_when_due(now);
        self.settle(now);
    }

    /// When to call [`Membership::handle_timeout`] next, and why. Costs the same however many hosts there are.
    pub fn poll_timeout(&self) -> Option<(Time, &'static str)> {
        if self.left {
            return None;
        }
        let own = [
            Some((self.publish_presence, "presence")),
            self.rewatch.map(|at| (at, "whom to watch")),
            self.speak.map(|at| (at, "answer accusers")),
            self.compare_at().map(|at| (at, "compare with another")),
            self.subjects.first_due(),
        ];
        own.into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Reckons anew when those are due that something happened to.
    pub(super) fn settle(&mut self, now: Time) {
        while let Some(peer) = self.subjects.next_dirty() {
            let due = self.subjects.get(&peer).and_then(|subject| self.due_of(&peer, subject, now));
            self.subjects.set_due(&peer, due);
        }
    }

    fn due_of(&self, peer: &PeerKey, subject: &Subject, now: Time) -> Option<(Time, &'static str)> {
        let mut next: Option<(Time, &'static str)> = None;
        let mut sooner = |at: Option<Time>, why| {
            if let Some(at) = at
                && next.is_none_or(|(first, _)| at < first)
            {
                next = Some((at, why));
            }
        };
        if subject.watched && subject.view.state != State::Left {
            sooner(Some(subject.next), "probe");
            sooner(subject.repeat, "repeat accusation");
            sooner(subject.doubt.and_then(|doubt| doubt.at), "answer for it");
            if let (Some(since), None) = (subject.silent_since, subject.repeat) {
                // One that is over and had no effect is looked at again with each probe.
                let window = subject.window(&self.config, self.may_take(subject, now));
                for at in [since + window / 2, since + window, subject.credit] {
                    sooner(Some(at).filter(|at| *at > now && *at >= subject.credit), "accusation");
                }
            }
        }
        sooner(self.convict_at(peer, subject, now).map(|(at, _)| at), "verdict");
        for heard in subject.standing.values().filter(|h| !(subject.watched && h.accuser == self.me)) {
            sooner(Some(heard.renewed + Subject::life(&self.config, &heard.accusation)), "accusation expires");
        }
        if acquitted(subject) {
            sooner(Some(now), "nobody accuses it any longer");
        }
        if subject.calm() {
            sooner(Some(subject.touched + self.linger()), "nothing more of it");
        }
        next
    }

    /// Reckons whom this host watches: all in a small mesh, else its subjects on the rings.
    pub(super) fn watch(&mut self, now: Time) {
        self.rewatch = None;
        let members = self.subjects.members().clone();
        let subjects: Vec<PeerKey> = match members.index(&self.me) {
            Some(own) => members.subjects_among(own, |i| self.subjects.counts_at(i)),
            None if members.is_small() => (0..members.len()).collect(),
            None => vec![], // nobody expects it of us yet
        }
        .into_iter()
        .map(|i| members.keys()[i])
        .collect();
        let others = |(peer, _): (&PeerKey, &Subject)| (subjects.binary_search(peer).is_err()).then_some(*peer);
        let over: Vec<PeerKey> = self.subjects.watched().filter_map(others).collect();
        for peer in over {
            if let Some(subject) = self.subjects.get_mut(&peer) {
                subject.unwatch(now);
            }
            self.acquit(peer, now);
        }
        for peer in subjects {
            if self.subjects.get(&peer).is_some_and(|s| s.watched) {
                continue;
            }
            // Spread over a whole period, so that watchers and subjects do not march in step.
            let first = now + self.jitter(self.period());
            let Some(subject) = self.subjects.open(&peer, now) else { continue };
            subject.watched = true;
            subject.next = first;
            subject.answered = None;
            let unknown = subject.view.incarnation.is_none() && subject.view.presence.is_none();
            subject.credit = match subject.view.connected {
                true if !unknown => now,
                _ => now + if unknown { self.config.newcomer } else { self.config.acquaint },
            };
            // Whoever finds a host that is believed dead tells the others.
            subject.vouch = subject.view.state == State::Down || !subject.standing.is_empty();
        }
    }

    /// Nobody accuses a host any longer that others watch, and no verdict was reached.
    fn acquit(&mut self, peer: PeerKey, now: Time) {
        if self.subjects.get(&peer).is_some_and(acquitted) {
            self.step(peer, Event::Word, || "nobody accuses it any longer".to_owned(), now);
        }
    }

    pub(super) fn notice_stall(&mut self, now: Time) {
        let asked = self.poll_timeout().map(|(at, _)| at);
        if asked.is_some_and(|asked| now.since(asked) > self.config.stall) {
            tracing::debug!("own loop was stalled: windows start over");
            self.publish_presence = self.publish_presence.max(now);
            let peers: Vec<PeerKey> = self.subjects.iter().map(|(peer, _)| *peer).collect();
            for peer in peers {
                let next = now + self.jitter(self.config.again);
                if let Some(subject) = self.subjects.get_mut(&peer) {
                    subject.restart_windows(next, now);
                }
            }
        }
    }

    pub(super) fn connected(&mut self, peer: PeerKey, now: Time) {
        if let Some(slot) = self.subjects.slot_mut(&peer) {
            slot.connected = true;
            self.meet(peer, now);
        } else if let Some(subject) = self.subjects.get_mut(&peer)
            && !subject.view.connected
        {
            subject.view.connected = true;
            subject.mute_since = None;
            subject.next = now;
            subject.in_step = true;
            self.greet(peer, now);
        }
    }

    pub(super) fn disconnected(&mut self, peer: PeerKey, now: Time) {
        if let Some(slot) = self.subjects.slot_mut(&peer) {
            slot.connected = false;
        } else if let Some(subject) = self.subjects.get_mut(&peer)
            && subject.view.connected
        {
            subject.view.connected = false;
            subject.mute_since = None;
            subject.sent.clear();
            subject.asked_since = None;
            subject.next = now;
        }
    }

    /// A host that had left shows itself: only its answer says which life it is in.
    pub(super) fn greet(&mut self, peer: PeerKey, now: Time) {
        let Some(subject) = self.subjects.get_mut(&peer) else { return };
        let asked = subject.sent.back().is_some_and(|s| now.since(s.at) < self.config.probe);
        if subject.view.state == State::Left && subject.view.connected && !asked {
            self.probe(peer, now);
        }
    }

    /// Sends a probe now, whatever is under way; asks for a connection where none stands.
    pub(super) fn probe(&mut self, peer: PeerKey, now: Time) {
        let drawn = self.next_random();
        let Some(subject) = self.subjects.get_mut(&peer) else { return };
        let clock =
            subject.view.wall_offset_ms.is_none() || subject.clock_asked.is_none_or(|at| now >= at + CLOCK_EVERY);
        if clock {
            subject.clock_asked = Some(now);
        }
        let nonce = nonce(drawn, clock);
        subject.attempts = subject.attempts.saturating_add(1);
        if !subject.view.connected {
            subject.silent_since.get_or_insert(now);
            self.outputs.push_back(Output::Reach(peer));
            return;
        }
        subject.remember(nonce, now, subject.vouch);
        subject.spread = None;
        let (want_presence, want_proof) = (subject.want_presence, subject.vouch);
        let probe = Probe { nonce, want_presence, want_proof, start: self.own.start, origin: self.origin() };
        self.outputs.push_back(Output::Probe { to: peer, bytes: encode(&probe) });
    }

    fn attempt_when_due(&mut self, peer: PeerKey, now: Time) {
        let Some(subject) = self.subjects.get_mut(&peer) else { return };
        if now < subject.next || !subject.watched || subject.view.state == State::Left {
            return;
        }
        if let Some(missed) = subject.first_missed() {
            subject.silent_since.get_or_insert(missed);
            if subject.view.connected {
                subject.mute_since.get_or_insert(missed);
            }
        }
        self.probe(peer, now);
        let (again, slow) = (self.jitter(self.config.again), self.pace());
        let Some(subject) = self.subjects.get_mut(&peer) else { return };
        subject.next = now
            + match subject.silent_since {
                None => subject.patience(&self.config),
                // Who has been silent for long is asked at the usual pace.
                Some(since) if subject.repeat.is_some() || now.since(since) > 2 * self.config.silence => slow,
                // Ever more rarely: what is lost is made good by the first that arrives, and on a connection that
                // keeps order each of them can hold up the next.
                Some(_) if subject.view.connected => self.config.again * (1 + subject.attempts / 4) + again,
                Some(_) => self.config.again + again,
            };
    }

    /// Nobody has answered yet for one whom others doubt.
    fn ask_for_others_when_due(&mut self, peer: PeerKey, now: Time) {
        let Some(subject) = self.subjects.get_mut(&peer) else { return };
        if let Some(doubt) = &mut subject.doubt
            && doubt.at.is_some_and(|at| now >= at)
        {
            doubt.at = None;
            self.ask_for_others(peer, now);
        }
    }

    /// How long an answer of this subject may take, as things are.
    fn may_take(&self, subject: &Subject, now: Time) -> Duration {
        let own = subject.late.now(self.config.late_half_life, now);
        self.wary(self.lateness(now).max(own), now) * self.config.late_factor
    }

    /// Asks for a proof that can be passed on, unless that was just done.
    pub(super) fn ask_for_others(&mut self, peer: PeerKey, now: Time) {
        let Some(subject) = self.subjects.get_mut(&peer) else { return };
        subject.vouch = true;
        let asked = subject.sent.iter().any(|s| s.proof && now.since(s.at) < self.config.again);
        if subject.view.connected && !asked {
            self.probe(peer, now);
            let Some(subject) = self.subjects.get_mut(&peer) else { return };
            subject.next = subject.next.min(now + subject.patience(&self.config));
        }
    }

    /// A subject that has just asked us lives. We need not ask it in turn: two hosts that watch each other share
    /// one question and one answer. It has to answer for itself now and then, and whenever there is doubt.
    pub(super) fn asked_instead(&mut self, peer: PeerKey, probe: &Probe, now: Time) {
        let (period, pace, coin) = (self.period(), self.pace(), self.next_random() >> 63 == 0);
        let Some(subject) = self.subjects.get_mut(&peer).filter(|s| s.watched) else { return };
        let lately = subject.answered.is_some_and(|at| now.since(at) < ANSWERS_EVERY * period);
        let itself = probe.start == subject.known().start && subject.origin == Some(probe.origin);
        let doubted = subject.vouch || subject.doubt.is_some() || !subject.standing.is_empty();
        let waiting = subject.asked_since.is_some() || subject.want_presence || subject.silent_since.is_some();
        let odd = subject.rival.is_some() || subject.view.cloned || subject.view.state != State::Alive;
        // After all were asked in step, each has drawn when to ask next. What it asks at once is in step as well, and counts
        // for nothing. Later the first of the two would always go before, or always the second, and pairs would be in step
        // again, near the beginning of a period or near its end: so the coin says whether this host asks when it has drawn.
        let drawn = subject.spread.is_some_and(|at| coin || now.since(at) < self.config.again);
        if lately && itself && !doubted && !waiting && !odd && !drawn {
            subject.spread = None;
            subject.next = subject.next.max(now + pace);
        }
    }

    /// Until the next probe of somebody who is well.
    pub(super) fn pace(&mut self) -> Duration {
        let period = self.period();
        period - period / 10 + self.jitter(period / 5)
    }

    /// The mean of it: the same on all hosts that know the same members.
    pub(super) fn period(&self) -> Duration {
        let watchers = self.subjects.members().len().saturating_sub(1).min(WATCHERS) as u32;
        (self.config.probe_share * watchers).max(self.config.probe)
    }

    pub(super) fn accuse_when_due(&mut self, peer: PeerKey, now: Time) {
        let Some(subject) = self.subjects.get(&peer).filter(|s| s.watched) else { return };
        let Some(since) = subject.silent_since else { return };
        if subject.repeat.is_some() || subject.view.state == State::Left || now < subject.credit {
            return;
        }
        let window = subject.window(&self.config, self.may_take(subject, now));
        if now.since(since) * 2 >= window {
            self.ask_the_others(peer, since, now);
        }
        let Some(subject) = self.subjects.get(&peer) else { return };
        if now.since(since) < window || subject.attempts < ATTEMPTS_MIN {
            return;
        }
        // Only answers to what was asked since then show that it is not us.
        let others =
            || self.subjects.watched().filter(|(p, s)| **p == peer || (s.counts() && s.view.last_heard.is_some()));
        let all = others().count();
        let silent = others().filter(|(p, s)| **p == peer || s.answered.is_none_or(|at| at < since)).count();
        if self.most(silent, all) {
            let why = || format!("silent together with {silent} of {all} hosts: this host may be the one cut off");
            self.stories.tell(peer, Told::KeptStill { silent, of: all }, now);
            self.step(peer, Event::Doubt, why, now);
            return;
        }
        self.accuse(peer, now);
    }

    /// Before anybody is accused: is it us? Whoever has not answered since is asked now.
    fn ask_the_others(&mut self, accused: PeerKey, since: Time, now: Time) {
        let quiet = |s: &Subject| s.first_missed().is_none() && s.answered.is_some_and(|at| at < since);
        let asked = |peer: &PeerKey, s: &Subject| {
            *peer != accused && s.view.connected && s.counts() && quiet(s) && s.next > now
        };
        let others: Vec<PeerKey> = self.subjects.watched().filter(|(p, s)| asked(p, s)).map(|(p, _)| *p).collect();
        for peer in others {
            if let Some(subject) = self.subjects.get_mut(&peer) {
                subject.next = now;
                subject.in_step = true;
            }
        }
    }

    /// Signs and spreads an accusation, and takes it in like anybody else's.
    fn accuse(&mut self, peer: PeerKey, now: Time) {
        self.accusations += 1;
        let Some(subject) = self.subjects.get_mut(&peer) else { return };
        let since = subject.silent_since.unwrap_or(now);
        let silent = now.since(since);
        subject.repeat = Some(match subject.view.state {
            State::Down => now + silent.clamp(self.config.repeat, self.config.repeat_max),
            _ => {
                now + (self.config.repeat_undecided * 2u32.saturating_pow(subject.repeats.min(8)))
                    .min(self.config.repeat)
            }
        });
        subject.repeats = subject.repeats.saturating_add(1);
        // A repetition speaks of the last silence: others may have heard the subject since the first.
        let from = since.max(now - self.config.silence);
        let heard_ms = subject.view.last_heard.map(|at| now.since(at).as_millis() as u64);
        let accusation = Accusation {
            mesh: self.own.mesh,
            start: self.own.start,
            sequence: self.accusations,
            subject: peer,
            incarnation: subject
                .known()
                .max(Incarnation { start: subject.view.presence.as_ref().map_or(0, |p| p.start), refutation: 0 }),
            stamp_us: subject.reckoned_stamp_us(from),
            evidence: Evidence {
                silent_ms: now.since(since).as_millis() as u64,
                attempts: subject.attempts,
                heard_ms,
                relayed: subject.relayed,
                connected: subject.view.connected,
            },
        };
        let signed = Signed::seal(&self.own.keys, &accusation);
        let proof = Arc::new(Checked(Said::Accusation(signed.clone(), accusation.clone())));
        let Accusation { incarnation, evidence, .. } = accusation.clone();
        let first = subject.accused(self.me, accusation, proof, now);
        subject.vouch = true;
        self.stories.tell(peer, Told::Accused { by: self.me, incarnation, evidence, counted: true }, now);
        self.publish(&Statement::Accusation(signed));
        if first {
            self.step(peer, Event::Doubt, || "does not answer this host".to_owned(), now);
            self.convict_when_due(peer, now);
        }
    }

    fn repeat_when_due(&mut self, peer: PeerKey, now: Time) {
        let due = |s: &Subject| s.watched && s.repeat.is_some_and(|at| now >= at) && s.view.state != State::Left;
        if self.subjects.get(&peer).is_some_and(due) {
            self.accuse(peer, now);
        }
    }

    /// When the verdict falls, if nothing refutes until then, and whether this host judges alone.
    fn convict_at(&self, peer: &PeerKey, subject: &Subject, now: Time) -> Option<(Time, bool)> {
        if subject.view.state != State::Suspect || subject.standing.is_empty() {
            return None;
        }
        // A refutation comes one way, an answer both. Where answers are later than any busy host is, packets get lost, and
        // what is sent again gets lost as well.
        let late = self.wary(self.lateness(now), now);
        let (watchers, networks) = self.watchers_of(peer);
        let busy = if watchers <= self.config.few { late } else { late / 2 };
        let grace = busy.max((2 * late).saturating_sub(self.config.grace_lost));
        let grace = grace.min(self.config.grace_max).max(self.config.grace);
        if watchers <= 1 && self.config.accusers > 1 {
            let mine = subject.standing.get(&self.me)?;
            let since = subject.silent_since?;
            let patient = since + self.config.silence * self.config.sole_factor;
            return Some((patient.max(mine.at + grace), true));
        }
        let naive = mutants::on(Mutant::OneAccuserIsEnough);
        let need = if naive { 1 } else { self.needed(watchers) };
        let mut arrivals: Vec<(Time, u64)> =
            subject.standing.values().map(|h| (h.at, self.network_of(&h.accuser))).collect();
        arrivals.sort();
        // As many as are needed, and from two networks where watchers of two could tell.
        let (first, rest) = arrivals.split_first()?;
        let enough = arrivals.get(need.saturating_sub(1))?.0;
        if networks.len() < 2 || naive {
            return Some((enough + grace, false));
        }
        let other = rest.iter().find(|(_, network)| *network != first.1).map(|(at, _)| *at);
        // Nobody elsewhere could tell when nobody elsewhere is heard.
        let elsewhere = || networks.iter().filter(|(network, _)| **network != first.1).map(|(_, mute)| *mute);
        let mute = elsewhere().collect::<Option<Vec<Time>>>().and_then(|all| all.into_iter().max());
        let alone = mute.map(|since| since + self.config.apart);
        let at = [other, alone].into_iter().flatten().min()?;
        Some((enough.max(at) + grace, false))
    }

    /// Accusers that make one down who has so many watchers.
    fn needed(&self, watchers: usize) -> usize {
        if watchers <= self.config.few { self.config.accusers_few } else { self.config.accusers }
    }

    /// Whether one accusation more would be enough for a verdict.
    pub(super) fn nearly_down(&self, peer: &PeerKey) -> bool {
        let standing = self.subjects.get(peer).map_or(0, |s| s.standing.len());
        standing + 1 >= self.needed(self.watchers_of(peer).0)
    }

    /// Whether enough hosts accuse one, but all of them in one network, while others elsewhere could: it may live,
    /// cut off from that network. It is suspect then: it gets no new builds, and loses none.
    pub fn unreachable(&self, peer: &PeerKey) -> bool {
        let Some(subject) = self.subjects.get(peer).filter(|s| s.view.state == State::Suspect) else { return false };
        let (watchers, networks) = self.watchers_of(peer);
        let enough = subject.standing.len() >= self.needed(watchers);
        let mut accusing = subject.standing.keys().map(|accuser| self.network_of(accuser));
        let first = accusing.next();
        networks.len() > 1 && enough && accusing.all(|network| Some(network) == first)
    }

    fn network_of(&self, peer: &PeerKey) -> u64 {
        let members = self.subjects.members();
        members.index(peer).map_or(0, |index| members.network(index))
    }

    /// How many can watch a host now, and in which networks they are; of each network since when all of them there
    /// have been doubted and not heard, if they are. This host can, enrolled or not, where everybody does.
    fn watchers_of(&self, peer: &PeerKey) -> (usize, BTreeMap<u64, Option<Time>>) {
        let members = self.subjects.members();
        let Some(index) = members.index(peer) else { return (0, BTreeMap::new()) };
        let watchers = members.watchers_among(index, |i| self.subjects.counts_at(i));
        let uncounted = members.is_small() && members.index(&self.me).is_none();
        let mut networks: BTreeMap<u64, Option<Time>> = BTreeMap::new();
        for watcher in &watchers {
            let subject = self.subjects.get(&members.keys()[*watcher]);
            // From the last word on, be it one that does not answer every accuser: liars may keep a host doubted.
            let unheard = |s: &Subject| s.view.last_heard.map_or(s.view.since, |at| at.max(s.view.since));
            let doubted = subject.filter(|s| s.view.state == State::Suspect).map(unheard);
            let all = networks.entry(members.network(*watcher)).or_insert(doubted);
            *all = all.zip(doubted).map(|(one, other)| one.max(other));
        }
        (watchers.len() + usize::from(uncounted), networks)
    }

    pub(super) fn convict_when_due(&mut self, peer: PeerKey, now: Time) {
        let Some(subject) = self.subjects.get_mut(&peer) else { return };
        if subject.view.state != State::Suspect {
            return;
        }
        let Some(subject) = self.subjects.get(&peer) else { return };
        let Some((at, sole)) = self.convict_at(&peer, subject, now) else { return };
        if now < at {
            return;
        }
        let accusers = subject.standing.len();
        if let Some(subject) = self.subjects.get_mut(&peer) {
            subject.view.sole_witness = sole;
            subject.view.free_cores = None;
        }
        let why = || match sole {
            true => "does not answer this host; nobody else could be asked".to_owned(),
            false => format!("accused by {accusers} hosts, and nobody has fresh word of it"),
        };
        self.step(peer, Event::Convict, why, now);
    }
}

/// Others watch it, it was heard of, and no accusation stands.
fn acquitted(subject: &Subject) -> bool {
    let heard_of = subject.view.incarnation.is_some();
    !subject.watched && heard_of && subject.standing.is_empty() && subject.view.state == State::Suspect
}

//! What others say: probes, replies, statements. Everything is checked here before it counts.

use super::probing::ANSWERS_EVERY;
use super::table::Slot;
use super::*;
use crate::mutants::{self, Mutant};

/// Own refutations and repetitions are at least this far apart, however many accuse.
const SPEAK_EVERY: Duration = Duration::from_millis(200);
/// An own accusation is repeated for a newcomer's sake no sooner than this.
const ECHO_EVERY: Duration = Duration::from_secs(1);

/// A life, a time of its clock, a place: what every word of a host says.
struct Word<'a> {
    incarnation: Incarnation,
    stamp_us: u64,
    origin: u64,
    /// The statement, when it came by gossip.
    proof: Option<&'a Arc<Checked>>,
    /// When the probe was sent that it answers; `None` when it came by gossip.
    asked: Option<Time>,
}

/// After a restart, what the life before it sent has arrived by then.
const ECHO: Duration = Duration::from_secs(5);

impl Membership {
    pub(super) fn probed(&mut self, from: PeerKey, bytes: &[u8], now: Time) -> Result<(), Refused> {
        self.enrolled(from)?;
        let probe: Probe = decode(bytes, PROBE_BYTES_MAX)?;
        if self.left {
            return Ok(());
        }
        self.asked_by(from, &probe, now);
        self.asked_instead(from, &probe, now);
        let reply = Reply {
            nonce: probe.nonce,
            incarnation: self.incarnation(),
            stamp_us: now.as_micros(),
            origin: self.origin(),
            sequence: self.own_view.presence.as_ref().map_or(0, |p| p.sequence),
            free_cores: self.free_cores,
            wall_ms: self.wall_ms(now).filter(|_| probe.nonce.is_multiple_of(CLOCK_ASKED)).unwrap_or(0),
            proof: probe.want_proof.then(|| self.signed_alive(now)),
            presence: self.own_view.presence.as_ref().filter(|_| probe.want_presence).map(|p| p.signed().clone()),
        };
        self.outputs.push_back(Output::Reply { to: from, bytes: encode(&reply) });
        self.greet(from, now);
        Ok(())
    }

    /// Who asks tells which life it is. We may hear the other one only: of two connections with one key,
    /// a host asks on the older.
    fn asked_by(&mut self, from: PeerKey, probe: &Probe, now: Time) {
        // Of whom only a small record is kept is a copy known by the watchers, and what they tell.
        let Some(subject) = self.subjects.get_mut(&from) else { return };
        let known = subject.known();
        if probe.start > known.start && subject.rival.is_none_or(|(start, _)| probe.start > start) {
            subject.rival = Some((probe.start, now)); // restarted, or a copy: whoever answers from now on tells
        }
        let evidence = match subject.origin {
            Some(first) if probe.start == known.start && probe.origin != first => {
                CloneEvidence::TwoOrigins { start: known.start, first, second: probe.origin }
            }
            // What a life that has ended sent may still arrive for a moment.
            _ if probe.start < known.start && now.since(subject.learned) > ECHO => {
                CloneEvidence::OlderAnswers { newest: known.start, answered: probe.start }
            }
            _ => return,
        };
        self.cloned(from, evidence);
    }

    pub(super) fn replied(&mut self, from: PeerKey, bytes: &[u8], now: Time) -> Result<(), Refused> {
        self.enrolled(from)?;
        let reply: Reply = decode(bytes, PROBE_BYTES_MAX)?;
        let wall = self.wall_ms(now);
        let subject = self.subjects.get_mut(&from).ok_or(Refused::NotEnrolled(from))?;
        let asked = subject.settle(reply.nonce).ok_or(Refused::OutOfPlace("a reply to no probe"))?;
        let Reply { incarnation, stamp_us, origin, .. } = reply;
        // Of whom nobody had word was not late, but away: that says nothing of the next wait.
        let outage = std::mem::take(&mut subject.missed_by_more)
            || subject.view.state == State::Down
            || incarnation.start != subject.known().start;
        // A life that has ended answers nothing that was asked after the next one spoke.
        let rival = subject.rival.filter(|(start, since)| incarnation.start < *start && asked > *since);
        if let Some((newest, _)) = rival {
            self.cloned(from, CloneEvidence::OlderAnswers { newest, answered: incarnation.start });
        }
        self.word(from, Word { incarnation, stamp_us, origin, proof: None, asked: Some(asked) }, now)?;

        let (pace, half_life) = (self.pace(), self.config.late_half_life);
        let spread = self.jitter(self.period());
        let subject = self.subjects.get_mut(&from).ok_or(Refused::NotEnrolled(from))?;
        let rtt = now.since(asked);
        subject.measured(rtt);
        if let Some(since) = subject.asked_since.take().filter(|_| !outage) {
            subject.late.note(now.since(since), half_life, now);
        }
        subject.answered = Some(now);
        subject.silent_since = None;
        subject.mute_since = None;
        subject.attempts = 0;
        subject.spread = std::mem::take(&mut subject.in_step).then_some(now);
        subject.next = now + if subject.spread.is_some() { spread } else { pace };
        subject.view.free_cores = Some(reply.free_cores);
        if let Some(wall) = wall
            && reply.wall_ms > 0
        {
            let sent_ms = i128::from(wall) - rtt.as_millis() as i128 / 2;
            subject.view.wall_offset_ms = i64::try_from(i128::from(reply.wall_ms) - sent_ms).ok();
        }
        if now.since(subject.doubled) >= self.config.forgive && subject.doublings > 0 {
            subject.doublings -= 1;
            subject.doubled = now;
        }
        let have = subject.view.presence.as_ref().map_or((0, 0), |p| p.order());
        let newer = (incarnation.start, reply.sequence) > have && reply.sequence > 0;
        if newer && reply.presence.is_none() {
            // Once at once; when the answer to that gets lost, with the next probe.
            if !subject.want_presence {
                subject.next = now;
            }
        }
        subject.want_presence = newer;
        let unproved = subject.vouch && reply.proof.is_none();
        if unproved && !subject.sent.iter().any(|s| s.proof) {
            subject.next = now;
        }
        if let Some(signed) = reply.presence {
            self.enrolled(signed.by)?;
            self.presence(&Record::open(&signed)?, Some(from), now)?;
        }
        if let Some(signed) = reply.proof {
            self.vouch(from, signed, now)?;
        }
        Ok(())
    }

    pub(super) fn stated(&mut self, bytes: &[u8], now: Time) -> Result<(), Refused> {
        let statement: Statement = decode(bytes, STATEMENT_BYTES_MAX)?;
        self.enrolled(statement.by())?; // before anything is verified for it
        self.said(&Checked::verify(statement)?, now)
    }

    /// A statement of a member, verified.
    pub(super) fn said(&mut self, checked: &Arc<Checked>, now: Time) -> Result<(), Refused> {
        self.in_mesh(checked.mesh())?;
        let by = checked.by();
        match &checked.0 {
            Said::Presence(record) => self.presence(record, None, now),
            Said::Alive(_, alive) if by == self.me => self.own_word(alive.incarnation.start, alive.origin),
            Said::Alive(..) if mutants::on(Mutant::NoFreshWord) || mutants::on(Mutant::OneAccuserIsEnough) => {
                Err(Refused::Stale)
            }
            Said::Alive(_, alive) => {
                let Alive { incarnation, stamp_us, origin, .. } = *alive;
                self.word(by, Word { incarnation, stamp_us, origin, proof: Some(checked), asked: None }, now)
            }
            Said::Accusation(_, accusation) => self.accusation(checked, accusation, now),
            Said::Farewell(_, farewell) => self.farewell(checked, farewell, now),
        }
    }

    /// A word of a host, direct or relayed: the one place where anybody comes back to life.
    fn word(&mut self, peer: PeerKey, word: Word<'_>, now: Time) -> Result<(), Refused> {
        let me = self.me;
        if let Some(slot) = self.subjects.slot_mut(&peer)
            && let Some(result) = undoubted_word(slot, &word, now)
        {
            return result;
        }
        let subject = self.subjects.open(&peer, now).ok_or(Refused::NotEnrolled(peer))?;
        let before = subject.view.incarnation;
        let known = subject.known();
        let Word { incarnation, stamp_us, origin, proof, asked } = word;
        if incarnation.start < known.start {
            let learned = subject.learned;
            if asked.is_some_and(|asked| asked >= learned) {
                let evidence = CloneEvidence::OlderAnswers { newest: known.start, answered: incarnation.start };
                self.cloned(peer, evidence);
            }
            return Err(Refused::Stale);
        }
        if incarnation.start == known.start && before.is_some() {
            if subject.view.state == State::Left && incarnation <= known {
                // It was said before the farewell: no sign of life, but an answer to whoever accuses.
                subject.refute(me, incarnation, stamp_us, None, now);
                subject.stamp_us = subject.stamp_us.max(stamp_us);
                return Err(Refused::Stale);
            }
            if asked.is_none() && incarnation <= known && stamp_us <= subject.stamp_us {
                subject.passed_on(incarnation, stamp_us);
                return Err(Refused::Stale);
            }
        }
        if subject.view.presence.as_ref().is_some_and(|p| incarnation.start < p.start) {
            return Err(Refused::Stale);
        }
        let rises = before.is_some_and(|before| incarnation > before);
        let restarted = before.is_some_and(|before| incarnation.start > before.start);
        if restarted || before.is_none() {
            subject.reborn(me, incarnation, now);
        }
        let accusers = subject.standing.len();
        let mine = subject.refute(me, incarnation, stamp_us, asked, now);
        let ended = accusers - subject.standing.len();
        if ended > 0 {
            self.stories.tell(peer, Told::Answered { incarnation, asked: asked.is_some(), ended }, now);
        }
        if mine && !restarted {
            tracing::debug!(?peer, ?asked, "was wrong about it");
            subject.doublings = (subject.doublings + 1).min(self.config.doublings_max);
            subject.doubled = now;
        }
        subject.view.incarnation = Some(incarnation.max(known));
        if let Some(proof) = proof
            && (subject.word.is_none() || (incarnation, stamp_us) > (known, subject.stamp_us))
        {
            subject.word = Some(proof.clone());
        }
        subject.stamp_us = subject.stamp_us.max(stamp_us);
        subject.view.last_heard = Some(now);
        subject.relayed = asked.is_none();
        if asked.is_none() && subject.silent_since.is_some() {
            subject.silent_since = Some(now); // it lives: our silence at it starts over
        }
        // What it told others says that it lives, not that we have met.
        let met = asked.is_some() || subject.view.connected;
        let until = if met { now } else { now + self.config.acquaint };
        subject.credit = if restarted { until } else { subject.credit.min(until) };
        let clean = subject.standing.is_empty();
        if asked.is_none() {
            subject.passed_on(incarnation, stamp_us);
        }
        if clean && asked.is_none() {
            subject.vouch = false; // somebody else has passed it on
        }
        let first = *subject.origin.get_or_insert(origin);
        if first != origin {
            self.cloned(peer, CloneEvidence::TwoOrigins { start: incarnation.start, first, second: origin });
        }
        if let (true, Some(before)) = (restarted, before) {
            self.outputs.push_back(Output::Restarted { peer, before: before.start, start: incarnation.start });
        }
        if rises && !restarted {
            self.alarms.heard(self.config.alarms_half_life, now);
        }
        if rises {
            let why = || if restarted { "started anew".to_owned() } else { "refuted an accusation".to_owned() };
            self.step(peer, Event::Rise, why, now);
            self.doubt_again(peer, now);
        } else if clean {
            let why = || match asked {
                Some(_) => "answers".to_owned(),
                None => "answered another host".to_owned(),
            };
            self.step(peer, Event::Word, why, now);
        }
        Ok(())
    }

    /// A new life of which somebody has already said that it does not answer.
    fn doubt_again(&mut self, peer: PeerKey, now: Time) {
        let accuser = self.subjects.get(&peer).and_then(|s| s.standing.keys().next().copied());
        if let Some(accuser) = accuser {
            self.step(peer, Event::Doubt, || format!("does not answer {}", accuser.short()), now);
        }
    }

    /// Passes a signed answer on when somebody doubts the subject.
    fn vouch(&mut self, from: PeerKey, signed: Signed, now: Time) -> Result<(), Refused> {
        self.enrolled(signed.by)?;
        let alive: Alive = signed.open()?;
        self.in_mesh(&alive.mesh)?;
        if signed.by != from {
            return Err(Refused::OutOfPlace("a proof by somebody else"));
        }
        let subject = self.subjects.get_mut(&from).ok_or(Refused::NotEnrolled(from))?;
        if std::mem::take(&mut subject.vouch) {
            tracing::debug!(peer = ?from, at = ?now, "vouching");
            subject.word = Some(Arc::new(Checked(Said::Alive(signed.clone(), alive))));
            self.stories.tell(from, Told::PassedOn, now);
            self.publish(&Statement::Alive(signed));
        }
        Ok(())
    }

    pub(super) fn presence(&mut self, record: &Arc<Record>, from: Option<PeerKey>, now: Time) -> Result<(), Refused> {
        self.in_mesh(&record.mesh)?;
        let peer = record.by();
        if from.is_some_and(|from| from != peer) {
            return Err(Refused::OutOfPlace("a presence of somebody else"));
        }
        if peer == self.me {
            return self.own_word(record.start, record.origin());
        }
        if let Some(slot) = self.subjects.slot_mut(&peer) {
            let before = slot.state;
            if first_presence(slot, record, now) {
                let why = "its presence is known".to_owned();
                if before != State::Alive {
                    self.outputs.push_back(Output::Changed { peer, from: before, to: State::Alive, why });
                }
                self.outputs.push_back(Output::Presence(peer));
                return Ok(());
            }
            if same_presence(slot, record) {
                return Err(Refused::Stale);
            }
        }
        let me = self.me;
        let presence = record;
        let subject = self.subjects.open(&peer, now).ok_or(Refused::NotEnrolled(peer))?;
        let (before, origin) = (subject.view.incarnation, presence.origin());
        if presence.start < subject.known().start {
            // Of a life that is over; better than nothing until the present one tells.
            if subject.view.presence.as_ref().is_none_or(|old| presence.order() > old.order()) {
                subject.view.presence = Some(presence.clone());
            }
            return Err(Refused::Stale);
        }
        let risen = before.filter(|before| presence.start > before.start);
        if let Some(before) = risen {
            let incarnation = Incarnation { start: presence.start, refutation: 0 };
            subject.reborn(me, incarnation, now);
            subject.view.incarnation = Some(incarnation);
            // It has just begun to live: nobody's silence at the life before counts against this one.
            subject.silent_since = subject.silent_since.map(|_| now);
            if !subject.view.connected {
                subject.credit = now + self.config.acquaint;
            }
            self.outputs.push_back(Output::Restarted { peer, before: before.start, start: presence.start });
            self.step(peer, Event::Rise, || "started anew".to_owned(), now);
            self.doubt_again(peer, now);
        }
        let subject = self.subjects.get_mut(&peer).ok_or(Refused::NotEnrolled(peer))?;
        let same_start = subject.view.incarnation.is_some_and(|i| i.start == presence.start);
        // A presence alone is no life sign: of a host never heard it leaves the incarnation unknown.
        let first = if same_start { *subject.origin.get_or_insert(origin) } else { origin };
        let old = subject.view.presence.as_ref();
        let twin = old.filter(|old| old.start == presence.start).map_or(first, |old| old.origin());
        let other = if first != origin { first } else { twin };
        let old_counts = mutants::on(Mutant::OldStatementsCount);
        let newer = old.is_none_or(|old| presence.order() > old.order()) || old_counts;
        if newer {
            subject.view.presence = Some(presence.clone());
            subject.want_presence = false;
            let (unheard, start) = (!subject.watched && subject.view.incarnation.is_none(), presence.start);
            self.outputs.push_back(Output::Presence(peer));
            if unheard {
                self.known_by_presence(peer, Incarnation { start, refutation: 0 }, now);
            }
        }
        if other != origin {
            self.cloned(peer, CloneEvidence::TwoOrigins { start: presence.start, first: other, second: origin });
        }
        if newer { Ok(()) } else { Err(Refused::Stale) }
    }

    /// Whom others watch is believed alive until they say otherwise.
    fn known_by_presence(&mut self, peer: PeerKey, incarnation: Incarnation, now: Time) {
        let me = self.me;
        let Some(subject) = self.subjects.get_mut(&peer) else { return };
        subject.reborn(me, incarnation, now);
        subject.view.incarnation = Some(incarnation);
        if subject.standing.is_empty() {
            self.step(peer, Event::Word, || "its presence is known".to_owned(), now);
        }
    }

    fn accusation(&mut self, checked: &Arc<Checked>, accusation: &Accusation, now: Time) -> Result<(), Refused> {
        self.enrolled(accusation.subject)?;
        let (accuser, peer) = (checked.by(), accusation.subject);
        if accuser == peer {
            return Err(Refused::OutOfPlace("a host accuses itself"));
        }
        if accuser == self.me {
            return Err(Refused::Stale); // our own, come back
        }
        let Accusation { incarnation, ref evidence, .. } = *accusation;
        let told = |counted| Told::Accused { by: accuser, incarnation, evidence: evidence.clone(), counted };
        if peer == self.me {
            self.stories.tell(peer, told(false), now);
            self.refute(accusation, now);
            return Ok(());
        }
        let (me, period) = (self.me, self.period());
        let subject = self.subjects.open(&peer, now).ok_or(Refused::NotEnrolled(peer))?;
        let heard_before = subject.taken.get(&accuser).is_some_and(|taken| accusation.order() <= *taken);
        if heard_before && !mutants::on(Mutant::OldStatementsCount) {
            return Err(Refused::Stale);
        }
        let known = subject.known();
        if !subject.watched && accusation.incarnation.start < known.start {
            // Whoever said it will hear of the new life, and then say it of that one.
            subject.took(accuser, accusation);
            subject.superseded(me, accuser, now);
            return Ok(());
        }
        if let (State::Left, Some(farewell)) = (subject.view.state, subject.farewell.clone())
            && accusation.incarnation <= known
        {
            // The accuser has missed the farewell.
            subject.took(accuser, accusation);
            subject.superseded(me, accuser, now);
            if subject.watched {
                self.outputs.push_back(Output::Publish(farewell.bytes()));
            }
            return Ok(());
        }
        let relearned = known.start == accusation.incarnation.start || subject.view.incarnation.is_none();
        // An accuser that knows an older life, or none, still says for how long it had no answer. Word of
        // the present life within that time is better; without it, the accusation is of this life. But only as long as
        // who is well is heard at least: else one that died as soon as it had come would never be accused by whoever had
        // not met it.
        let behind = accusation.incarnation < known || accusation.evidence.heard_ms.is_none();
        let fresh = ANSWERS_EVERY * period + self.config.silence;
        let silent = Duration::from_millis(accusation.evidence.silent_ms).max(self.config.silence_closed).min(fresh);
        let heard_since = subject.view.last_heard.is_some_and(|at| now.since(at) <= silent);
        if (behind && heard_since) || (!behind && relearned && accusation.refuted_by(known, subject.stamp_us)) {
            // Known better. Still its accuser has no word: ask, and pass the answer on.
            self.stories.tell(peer, told(false), now);
            subject.took(accuser, accusation);
            subject.superseded(me, accuser, now);
        } else if subject.accused(accuser, accusation.clone(), checked.clone(), now) {
            self.stories.tell(peer, told(true), now);
            if let Some(mine) = subject.standing.get(&me)
                && now.since(mine.renewed) >= ECHO_EVERY
                && subject.repeat.is_some()
            {
                subject.repeat = Some(now); // the newcomer has not heard ours
            }
            self.step(peer, Event::Doubt, || format!("does not answer {}", accuser.short()), now);
            self.convict_when_due(peer, now);
        } else {
            self.stories.tell(peer, told(true), now);
            return Ok(());
        }
        if self.subjects.get(&peer).is_none_or(|s| !s.watched) {
            return Ok(());
        }
        let urgent = self.nearly_down(&peer);
        let spread = self.jitter(self.config.vouch);
        let Some(subject) = self.subjects.get_mut(&peer) else { return Ok(()) };
        subject.doubted(if urgent { now } else { now + spread }, accusation);
        if urgent {
            if let Some(doubt) = &mut subject.doubt {
                doubt.at = None;
            }
            self.ask_for_others(peer, now);
        }
        self.accuse_when_due(peer, now); // a second word need not wait
        Ok(())
    }

    /// This host is accused, and speaks for itself, with a higher incarnation where that is due.
    fn refute(&mut self, accusation: &Accusation, now: Time) {
        if self.left {
            return;
        }
        if accusation.incarnation >= self.incarnation() {
            let named = Some(accusation.incarnation).filter(|claimed| {
                claimed.start == self.own.start && claimed.refutation - self.refutation <= subject::AHEAD
            });
            self.refutation = named.map_or(self.refutation, |claimed| claimed.refutation).saturating_add(1);
            self.own_view.incarnation = Some(self.incarnation());
        }
        // Every accusation is answered within the grace, however many there are.
        let next = self.spoken.map_or(now, |spoken| spoken + SPEAK_EVERY);
        self.speak.get_or_insert(next);
        self.speak_when_due(now);
    }

    pub(super) fn speak_when_due(&mut self, now: Time) {
        if self.speak.is_some_and(|at| now >= at) {
            self.speak = None;
            self.spoken = Some(now);
            let alive = self.signed_alive(now);
            self.publish(&Statement::Alive(alive));
        }
    }

    fn farewell(&mut self, checked: &Arc<Checked>, farewell: &Farewell, now: Time) -> Result<(), Refused> {
        let (me, peer) = (self.me, checked.by());
        if peer == me {
            return Err(Refused::Stale);
        }
        let subject = self.subjects.open(&peer, now).ok_or(Refused::NotEnrolled(peer))?;
        let again = subject.view.state == State::Left && farewell.incarnation == subject.known();
        if farewell.incarnation < subject.known() || again {
            return Err(Refused::Stale);
        }
        if subject.view.incarnation.is_none_or(|known| farewell.incarnation.start > known.start) {
            subject.reborn(me, farewell.incarnation, now);
        }
        subject.view.incarnation = Some(farewell.incarnation);
        subject.view.free_cores = None;
        subject.left(me, farewell.incarnation, now);
        subject.silent_since = None;
        subject.sent.clear();
        subject.farewell = Some(checked.clone());
        self.step(peer, Event::Farewell, || "said farewell".to_owned(), now);
        Ok(())
    }

    /// Our own key speaks. Either gossip brought back what we said, or there is a second one of us.
    fn own_word(&mut self, start: u64, origin: u64) -> Result<(), Refused> {
        let own = self.origin();
        if start > self.own.start {
            self.cloned(self.me, CloneEvidence::OlderAnswers { newest: start, answered: self.own.start });
        } else if start == self.own.start && origin != own {
            self.cloned(self.me, CloneEvidence::TwoOrigins { start, first: own, second: origin });
        }
        Err(Refused::Stale)
    }

    /// Reports once a start: a twin speaks every second.
    fn cloned(&mut self, peer: PeerKey, evidence: CloneEvidence) {
        let view = match self.subjects.get_mut(&peer) {
            Some(subject) => &mut subject.view,
            None if peer != self.me => return,
            None => &mut self.own_view,
        };
        if !std::mem::replace(&mut view.cloned, true) {
            self.outputs.push_back(Output::Clone { peer, evidence });
        }
    }

    fn wall_ms(&self, now: Time) -> Option<u64> {
        self.wall.map(|(wall, at)| wall + now.since(at).as_millis() as u64)
    }

    pub(super) fn enrolled(&self, peer: PeerKey) -> Result<(), Refused> {
        let known = peer == self.me || self.subjects.contains(&peer);
        if known { Ok(()) } else { Err(Refused::NotEnrolled(peer)) }
    }

    fn in_mesh(&self, mesh: &[u8; 32]) -> Result<(), Refused> {
        if *mesh == self.own.mesh { Ok(()) } else { Err(Refused::OtherMesh) }
    }
}

/// A presence for a slot, when it is the first or a newer one of the same life in the same place. The host is
/// alive then: whoever watches it would say otherwise. `false` leaves the slot as it was.
pub(super) fn first_presence(slot: &mut Slot, record: &Arc<Record>, now: Time) -> bool {
    let (life, start) = (slot.life, slot.start);
    let newer = match &slot.presence {
        Some(old) => record.start == old.start && record.sequence > old.sequence && record.origin() == old.origin(),
        None => true,
    } || mutants::on(Mutant::OldStatementsCount);
    if !newer || (life && record.start != start) {
        return false;
    }
    slot.presence = Some(record.clone());
    slot.start = record.start;
    slot.life = true;
    if slot.state != State::Alive {
        slot.state = State::Alive;
        slot.since = now;
    }
    true
}

/// Whether a slot has this presence already, or a newer one of the same process.
fn same_presence(slot: &Slot, record: &Record) -> bool {
    let old = slot.presence.as_deref().filter(|_| !mutants::on(Mutant::OldStatementsCount));
    old.is_some_and(|old| {
        record.order() <= old.order() && (record.start < old.start || record.origin() == old.origin())
    })
}

/// A word by gossip of a host that nobody here doubts, in the life that is known. `None` when there is more to it.
fn undoubted_word(slot: &mut Slot, word: &Word<'_>, now: Time) -> Option<Result<(), Refused>> {
    let known = slot.incarnation()?;
    if word.incarnation.start < known.start {
        return Some(Err(Refused::Stale));
    }
    let origin = slot.presence.as_deref().filter(|p| p.start == known.start).map(Record::origin);
    if word.incarnation > known || origin.is_some_and(|origin| origin != word.origin) {
        return None;
    }
    if word.stamp_us <= slot.stamp_us {
        return Some(Err(Refused::Stale));
    }
    slot.stamp_us = word.stamp_us;
    slot.heard_at = now;
    slot.heard = true;
    Some(Ok(()))
}

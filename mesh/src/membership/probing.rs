//! What time does: probes, misses, this host's own accusations, verdicts.

use super::*;

/// Attempts that must have failed before an accusation: a single lost packet is no silence.
const ATTEMPTS_MIN: u32 = 3;

impl Membership {
    /// Time has passed. Called late (by more than [`Config::stall`]) it knows that this host slept,
    /// not the others.
    pub fn handle_timeout(&mut self, now: Time) {
        self.notice_stall(now);
        if self.left {
            return;
        }
        if now >= self.publish_presence {
            self.publish_presence = now + self.config.presence;
            if let Some(signed) = self.own_presence.clone() {
                self.publish(&Statement::Presence(signed));
            }
        }
        let peers: Vec<PeerKey> = self.subjects.keys().copied().collect();
        for peer in peers {
            self.attempt_when_due(peer, now);
            self.accuse_when_due(peer, now);
            self.repeat_when_due(peer, now);
            if let Some(subject) = self.subjects.get_mut(&peer) {
                subject.expire(self.me, &self.config, now);
            }
            self.convict_when_due(peer, now);
        }
    }

    /// When to call [`Membership::handle_timeout`] next, and why.
    pub fn poll_timeout(&self) -> Option<(Time, &'static str)> {
        if self.left {
            return None;
        }
        let mut next = (self.publish_presence, "presence");
        let mut sooner = |at: Option<Time>, why| {
            if let Some(at) = at
                && at < next.0
            {
                next = (at, why);
            }
        };
        for (peer, subject) in &self.subjects {
            if subject.view.state != State::Left {
                sooner(Some(subject.next), "probe");
                sooner(subject.repeat, "repeat accusation");
            }
            sooner(self.convict_at(peer, subject).map(|(at, _)| at), "verdict");
            for heard in subject.standing.values().filter(|h| h.accuser != self.me) {
                sooner(Some(heard.renewed + self.config.accusation_life), "accusation expires");
            }
        }
        Some(next)
    }

    pub(super) fn notice_stall(&mut self, now: Time) {
        let asked = self.poll_timeout().map(|(at, _)| at);
        if asked.is_some_and(|asked| now.since(asked) > self.config.stall) {
            tracing::debug!("own loop was stalled: windows start over");
            self.publish_presence = self.publish_presence.max(now);
            let peers: Vec<PeerKey> = self.subjects.keys().copied().collect();
            for peer in peers {
                let next = now + self.jitter(self.config.again);
                if let Some(subject) = self.subjects.get_mut(&peer) {
                    subject.restart_windows(next, now);
                }
            }
        }
    }

    pub(super) fn connected(&mut self, peer: PeerKey, now: Time) {
        if let Some(subject) = self.subjects.get_mut(&peer)
            && !subject.view.connected
        {
            subject.view.connected = true;
            subject.next = now;
            self.greet(peer, now);
        }
    }

    pub(super) fn disconnected(&mut self, peer: PeerKey, now: Time) {
        if let Some(subject) = self.subjects.get_mut(&peer)
            && subject.view.connected
        {
            subject.view.connected = false;
            subject.sent.clear();
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
        let nonce = self.next_random();
        let Some(subject) = self.subjects.get_mut(&peer) else { return };
        subject.attempts = subject.attempts.saturating_add(1);
        if !subject.view.connected {
            subject.silent_since.get_or_insert(now);
            self.outputs.push_back(Output::Reach(peer));
            return;
        }
        subject.remember(nonce, now, subject.vouch);
        let (want_presence, want_proof) = (subject.want_presence, subject.vouch);
        let probe = Probe { nonce, want_presence, want_proof, start: self.own.start, origin: self.origin() };
        self.outputs.push_back(Output::Probe { to: peer, bytes: encode(&probe) });
    }

    fn attempt_when_due(&mut self, peer: PeerKey, now: Time) {
        let Some(subject) = self.subjects.get_mut(&peer) else { return };
        if now < subject.next || subject.view.state == State::Left {
            return;
        }
        if subject.silent_since.is_none()
            && let Some(missed) = subject.first_missed()
        {
            subject.silent_since = Some(missed);
        }
        self.probe(peer, now);
        let tenth = self.config.probe / 10;
        let (again, slow) = (self.jitter(self.config.again), self.jitter(2 * tenth));
        let Some(subject) = self.subjects.get_mut(&peer) else { return };
        subject.next = now
            + match subject.silent_since {
                None => subject.patience(&self.config),
                // Who has been silent for long is asked at the usual pace.
                Some(since) if subject.repeat.is_some() || now.since(since) > 2 * self.config.silence => {
                    self.config.probe - tenth + slow
                }
                Some(_) => self.config.again + again,
            };
    }

    fn accuse_when_due(&mut self, peer: PeerKey, now: Time) {
        let Some(subject) = self.subjects.get(&peer) else { return };
        let Some(since) = subject.silent_since else { return };
        if subject.repeat.is_some() || subject.view.state == State::Left || now < subject.credit {
            return;
        }
        let window = subject.window(&self.config);
        if now.since(since) * 2 >= window {
            self.ask_the_others(peer, since, now);
        }
        let Some(subject) = self.subjects.get(&peer) else { return };
        if now.since(since) < window || subject.attempts < ATTEMPTS_MIN {
            return;
        }
        // Only answers to what was asked since then show that it is not us.
        let others =
            || self.subjects.iter().filter(|(p, s)| **p == peer || (s.counts() && s.view.last_heard.is_some()));
        let all = others().count();
        let silent = others().filter(|(p, s)| **p == peer || s.answered.is_none_or(|at| at < since)).count();
        if self.most(silent, all) {
            let why = || format!("silent together with {silent} of {all} hosts: this host may be the one cut off");
            self.step(peer, Event::Doubt, why, now);
            return;
        }
        self.accuse(peer, now);
    }

    /// Before anybody is accused: is it us? Whoever has not answered since is asked now.
    fn ask_the_others(&mut self, accused: PeerKey, since: Time, now: Time) {
        for (peer, subject) in &mut self.subjects {
            let quiet = subject.first_missed().is_none() && subject.answered.is_some_and(|at| at < since);
            if *peer != accused && subject.view.connected && subject.counts() && quiet {
                subject.next = subject.next.min(now);
            }
        }
    }

    /// Signs and spreads an accusation, and takes it in like anybody else's.
    fn accuse(&mut self, peer: PeerKey, now: Time) {
        self.accusations += 1;
        let Some(subject) = self.subjects.get_mut(&peer) else { return };
        let since = subject.silent_since.unwrap_or(now);
        let undecided = subject.view.state != State::Down;
        subject.repeat = Some(now + if undecided { self.config.repeat_undecided } else { self.config.repeat });
        // A repetition speaks of the last silence: others may have heard the subject since the first.
        let from = since.max(now - self.config.silence);
        let heard_ms = subject.view.last_heard.map(|at| now.since(at).as_millis() as u64);
        let accusation = Accusation {
            mesh: self.own.mesh,
            start: self.own.start,
            sequence: self.accusations,
            subject: peer,
            incarnation: subject.known(),
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
        let first = subject.accused(self.me, accusation, now);
        subject.vouch = true;
        self.publish(&Statement::Accusation(signed));
        if first {
            self.step(peer, Event::Doubt, || "does not answer this host".to_owned(), now);
            self.convict_when_due(peer, now);
        }
    }

    fn repeat_when_due(&mut self, peer: PeerKey, now: Time) {
        let due = |s: &Subject| s.repeat.is_some_and(|at| now >= at) && s.view.state != State::Left;
        if self.subjects.get(&peer).is_some_and(due) {
            self.accuse(peer, now);
        }
    }

    /// When the verdict falls, if nothing refutes until then, and whether this host judges alone.
    fn convict_at(&self, peer: &PeerKey, subject: &Subject) -> Option<(Time, bool)> {
        if subject.view.state != State::Suspect || subject.standing.is_empty() {
            return None;
        }
        let watchers = 1 + self.subjects.iter().filter(|(p, s)| *p != peer && s.counts()).count();
        if watchers == 1 && self.config.accusers > 1 {
            let mine = subject.standing.get(&self.me)?;
            let since = subject.silent_since?;
            let patient = since + self.config.silence * self.config.sole_factor;
            return Some((patient.max(mine.at + self.config.grace), true));
        }
        let few = watchers <= self.config.few;
        let need = if few { self.config.accusers_few } else { self.config.accusers };
        let mut arrivals: Vec<Time> = subject.standing.values().map(|h| h.at).collect();
        arrivals.sort();
        arrivals.get(need.saturating_sub(1)).map(|at| (*at + self.config.grace, false))
    }

    pub(super) fn convict_when_due(&mut self, peer: PeerKey, now: Time) {
        let Some(subject) = self.subjects.get_mut(&peer) else { return };
        if subject.view.state != State::Suspect {
            return;
        }
        let Some(subject) = self.subjects.get(&peer) else { return };
        let Some((at, sole)) = self.convict_at(&peer, subject) else { return };
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

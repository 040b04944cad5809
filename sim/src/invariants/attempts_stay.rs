//! Attempts are not taken from a host that is healthy, reachable and at work, however busy it is.
//!
//! Judged for hosts that have been fit, in one life, for long enough that no word from before can still be on
//! its way, and for attempts of that life. What a leader wrote while somebody held the host to be down may be committed
//! long after, when it has a majority again: that is judged by when the last verdict ended. Never judges how long
//! a build may take.

use super::{Fact, HostSeen, Invariant, Name, Truth};
use mesh::build::{Attempt, BuildId};
use mesh::identity::PeerKey;
use mesh::ledger::AttemptState;
use mesh::membership::State;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Within this time of a fault the mesh may still act on what it saw then: a change of leader, a commit. A tier calls
/// a host fit only when detection has had its time.
const SETTLED: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Default)]
pub struct AttemptsStay {
    keys: BTreeMap<PeerKey, Name>,
    starts: BTreeMap<PeerKey, u64>,
    fit: BTreeMap<Name, Duration>,
    /// Who holds whom to be down.
    down: BTreeSet<(PeerKey, Name)>,
    /// When somebody last ceased to.
    acquitted: BTreeMap<PeerKey, Duration>,
    lost: BTreeSet<(BuildId, Attempt)>,
    last: BTreeMap<Name, u64>,
    judged: u64,
}

impl AttemptsStay {
    fn acquit(&mut self, at: Duration, over: impl Fn(&(PeerKey, Name)) -> bool) {
        for (of, _) in self.down.extract_if(.., |verdict| over(verdict)) {
            self.acquitted.insert(of, at);
        }
    }

    /// When a leader last had reason to take attempts from a host.
    fn blamed(&self, at: Duration, of: &PeerKey) -> Duration {
        let stands = self.down.iter().any(|(peer, _)| peer == of);
        self.acquitted.get(of).copied().filter(|_| !stands).unwrap_or(at)
    }
}

impl Invariant for AttemptsStay {
    fn name(&self) -> &'static str {
        "attempts-stay"
    }

    fn source(&self) -> &'static str {
        "rule 5 of the design: one observer is not evidence; Dadgar et al., Lifeguard (2018)"
    }

    fn fact(&mut self, at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        match fact {
            Fact::Started { host, key, start } => {
                self.starts.insert(*key, *start);
                self.keys.insert(*key, host.clone());
                self.fit.remove(host);
            }
            Fact::Fit { host, fit: true } => {
                self.fit.entry(host.clone()).or_insert(at);
            }
            Fact::Fit { host, fit: false } => {
                self.fit.remove(host);
            }
            Fact::Stopped { host } => {
                self.fit.remove(host);
                self.acquit(at, |(_, by)| by == host);
            }
            Fact::Believes { host, of, state: State::Down } => {
                self.down.insert((*of, host.clone()));
            }
            Fact::Believes { host, of, .. } => self.acquit(at, |(peer, by)| (peer, by) == (of, host)),
            _ => {}
        }
        Ok(())
    }

    fn look(&mut self, at: Duration, host: &HostSeen<'_>, _truth: &dyn Truth) -> Result<(), String> {
        let index = host.ledger.index();
        if self.last.insert(host.name.clone(), index) == Some(index) {
            return Ok(());
        }
        for build in host.ledger.builds().iter() {
            for attempt in build.attempts.iter() {
                let AttemptState::Lost(reason) = &attempt.state else { continue };
                if !host.ledger.roster().is_member(&attempt.host) || !self.lost.insert((build.id, attempt.number)) {
                    continue;
                }
                // What its host's life before had is lost with it, however late a leader can say so.
                if self.starts.get(&attempt.host).is_some_and(|start| attempt.start < *start) {
                    continue;
                }
                self.judged += 1;
                let blamed = self.blamed(at, &attempt.host);
                let of = self.keys.get(&attempt.host);
                let since = of.and_then(|name| self.fit.get(name));
                if let (Some(of), Some(since)) = (of, since.filter(|since| blamed.saturating_sub(**since) > SETTLED)) {
                    let (id, number) = (build.id, attempt.number);
                    return Err(format!("{number} of {id} was taken from {of}, fit since {since:?}: {reason}"));
                }
            }
        }
        Ok(())
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fleet, key, name, second};
    use super::*;

    #[test]
    fn a_busy_host_that_loses_its_attempt_is_caught() {
        let mut fleet = Fleet::of(3);
        let build = fleet.submit(1, 1, "one");
        fleet.assign(build, 1, 2);
        fleet.lose(build, 1);
        for (fit, well) in [(true, false), (false, true)] {
            let mut rule = AttemptsStay::default();
            rule.fact(second(1), &Fact::Started { host: name(2), key: key(2), start: 1 }, &fleet).unwrap();
            rule.fact(second(1), &Fact::Fit { host: name(2), fit: true }, &fleet).unwrap();
            rule.fact(second(70), &Fact::Fit { host: name(2), fit }, &fleet).unwrap();
            assert_eq!(rule.look(second(80), &fleet.seen(1), &fleet).is_ok(), well);
            assert_eq!(rule.exercised(), 1);
        }
    }

    #[test]
    fn a_verdict_that_is_committed_late_is_no_fault_and_one_that_stands_is() {
        for (ends, by, well) in [(20, 3, true), (60, 3, false), (20, 4, false)] {
            let mut fleet = Fleet::of(4);
            let build = fleet.submit(1, 1, "one");
            fleet.assign(build, 1, 2);
            fleet.lose(build, 1);
            let mut rule = AttemptsStay::default();
            let believes = |by: u8, state| Fact::Believes { host: name(by), of: key(2), state };
            let facts = [
                (1, Fact::Started { host: name(2), key: key(2), start: 1 }),
                (5, believes(3, State::Down)),
                (ends, believes(3, State::Alive)),
                (30, Fact::Fit { host: name(2), fit: true }),
                (70, believes(by, if by == 3 { State::Alive } else { State::Down })),
            ];
            for (at, fact) in &facts {
                rule.fact(second(*at), fact, &fleet).unwrap();
            }
            assert_eq!(rule.look(second(80), &fleet.seen(1), &fleet).is_ok(), well);
        }
    }
}

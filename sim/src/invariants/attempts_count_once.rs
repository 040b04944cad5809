//! An attempt counts once: it begins once, on the host that it was given to, and what it ended as stands.
//!
//! A report that comes after its attempt was taken away changes nothing, however true it is (incident 10).
//! Never judges the build as a whole ([`super::ends_once`]).

use super::{Fact, HostSeen, Invariant, Name, Truth};
use mesh::build::{Attempt, BuildId};
use mesh::identity::PeerKey;
use mesh::ledger::AttemptState;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Who has an attempt, and how it ended and when, by ledger time.
type Known = (PeerKey, Option<(AttemptState, u64)>);

/// See the module.
#[derive(Default)]
pub struct AttemptsCountOnce {
    /// Whose each attempt is, how it ended, and the index at which that was first seen.
    known: BTreeMap<(BuildId, Attempt), Known>,
    began: BTreeSet<(Name, u64, BuildId, Attempt)>,
    starts: BTreeMap<Name, u64>,
    last: BTreeMap<Name, u64>,
    judged: u64,
}

impl Invariant for AttemptsCountOnce {
    fn name(&self) -> &'static str {
        "attempts-count-once"
    }

    fn source(&self) -> &'static str {
        "incident 10: the report of an attempt that was taken away; MapReduce (2004), 3.3"
    }

    fn fact(&mut self, _at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        match fact {
            Fact::Started { host, start, .. } => {
                self.starts.insert(host.clone(), *start);
            }
            // A disk that went back counts its starts anew: the same number is another life then.
            Fact::Wiped { host } => self.began.retain(|(of, ..)| of != host),
            Fact::Began { host, key, build, attempt, .. } => {
                self.judged += 1;
                let start = self.starts.get(host).copied().unwrap_or(0);
                if !self.began.insert((host.clone(), start, *build, *attempt)) {
                    return Err(format!("{host} began attempt {attempt} of {build} twice in one life"));
                }
                let of = self.known.get(&(*build, *attempt)).map(|(of, _)| *of);
                if let Some(of) = of.filter(|of| of != key) {
                    return Err(format!("{host} began attempt {attempt} of {build}, which is {of}'s"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn look(&mut self, _at: Duration, host: &HostSeen<'_>, _truth: &dyn Truth) -> Result<(), String> {
        let index = host.ledger.index();
        if self.last.insert(host.name.clone(), index) == Some(index) {
            return Ok(());
        }
        for build in host.ledger.builds().iter() {
            for (n, attempt) in build.attempts.iter().enumerate() {
                let (id, number) = (build.id, attempt.number);
                if number.0 as usize != n + 1 {
                    return Err(format!("{}: attempt {number} of {id} is the {}. one", host.name, n + 1));
                }
                let (of, ended) = self.known.entry((id, number)).or_insert((attempt.host, None));
                if *of != attempt.host {
                    return Err(format!("{}: attempt {number} of {id} changed its host", host.name));
                }
                match ended {
                    Some((state, first)) if index >= *first && *state != attempt.state => {
                        let now = &attempt.state;
                        return Err(format!("{}: attempt {number} of {id} was {state:?}, is {now:?}", host.name));
                    }
                    None if !attempt.is_running() => {
                        self.judged += 1;
                        *ended = Some((attempt.state.clone(), index));
                    }
                    _ => {}
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
    use mesh::mutants::{Mutant, with};

    #[test]
    fn a_late_report_that_counts_is_caught() {
        let mut fleet = Fleet::of(3);
        let mut rule = AttemptsCountOnce::default();
        let build = fleet.submit(1, 1, "one");
        fleet.assign(build, 1, 2);
        fleet.lose(build, 1);
        assert_eq!(rule.look(second(1), &fleet.seen(1), &fleet), Ok(()));
        fleet.done(build, 1, 2, &[2, 3]);
        assert_eq!(rule.look(second(2), &fleet.seen(1), &fleet), Ok(()), "it has no effect");
        with(Some(Mutant::AttemptNumberIgnored), || fleet.done(build, 1, 2, &[2, 3]));
        assert!(rule.look(second(3), &fleet.seen(1), &fleet).is_err());
    }

    #[test]
    fn an_attempt_that_begins_twice_is_caught() {
        let fleet = Fleet::of(2);
        let mut rule = AttemptsCountOnce::default();
        let started = |start| Fact::Started { host: name(1), key: key(1), start };
        let (host, key) = (name(1), key(1));
        let began = Fact::Began { host, key, build: BuildId(1), attempt: Attempt(1), fence: None };
        rule.fact(second(1), &started(1), &fleet).unwrap();
        assert_eq!(rule.fact(second(1), &began, &fleet), Ok(()));
        assert!(rule.fact(second(2), &began, &fleet).is_err());
        // A backup that was put back has the start number of before, and another life.
        rule.fact(second(3), &Fact::Wiped { host: name(1) }, &fleet).unwrap();
        rule.fact(second(3), &started(1), &fleet).unwrap();
        assert_eq!(rule.fact(second(4), &began, &fleet), Ok(()));
        assert!(rule.fact(second(5), &began, &fleet).is_err());
    }
}

//! A healthy host is not held to be down: by nobody for long when all its links work, and not for a moment when
//! a single other host misses it.
//!
//! The first half is accuracy of a failure detector that is eventually perfect; the second is rule 5. Never
//! asks for suspicion, which costs a host no build.

use super::{Fact, Invariant, Name, Truth};
use mesh::identity::PeerKey;
use mesh::membership::State;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a host may hold a healthy, reachable other to be down, counted from when both were fit.
const BOUND: Duration = Duration::from_secs(60);
/// How long a host must have been well before a verdict on it can only come from what is so now.
const SETTLED: Duration = Duration::from_secs(20);

/// See the module.
#[derive(Default)]
pub struct HealthyIsNotDown {
    keys: BTreeMap<PeerKey, Name>,
    /// The key that each host goes by now: who was taken out may be back with another.
    present: BTreeMap<Name, PeerKey>,
    fit: BTreeMap<Name, Duration>,
    well: BTreeMap<Name, Duration>,
    /// Who is cut off from a host by its links, and since when.
    cut: BTreeMap<Name, (BTreeSet<Name>, Duration)>,
    down: BTreeMap<(Name, PeerKey), Duration>,
    judged: u64,
}

impl HealthyIsNotDown {
    fn is_out(&self, host: &Name, truth: &dyn Truth) -> bool {
        self.present.get(host).is_some_and(|key| !truth.is_member(key))
    }

    fn verdict(&self, at: Duration, host: &Name, of: &Name) -> Result<(), String> {
        let long = |since: Duration| at.saturating_sub(since) > SETTLED;
        let well = |name: &Name| self.well.get(name).is_some_and(|since| long(*since));
        let alone = self.cut.get(of).is_some_and(|(from, since)| from.len() <= 1 && long(*since));
        let believer_cut = self.cut.get(host).is_some_and(|(from, since)| from.len() > 1 || !long(*since));
        match well(host) && well(of) && alone && !believer_cut {
            true => Err(format!("{host} holds {of} to be down, which at most one host misses")),
            false => Ok(()),
        }
    }
}

impl Invariant for HealthyIsNotDown {
    fn name(&self) -> &'static str {
        "healthy-is-not-down"
    }

    fn source(&self) -> &'static str {
        "Chandra and Toueg (1996), accuracy; Das et al., SWIM (2002); rule 5 of the design"
    }

    fn fact(&mut self, at: Duration, fact: &Fact, truth: &dyn Truth) -> Result<(), String> {
        let set = |map: &mut BTreeMap<Name, Duration>, host: &Name, is: bool| match is {
            true => drop(map.entry(host.clone()).or_insert(at)),
            false => drop(map.remove(host)),
        };
        match fact {
            Fact::Started { host, key, .. } => {
                self.keys.insert(*key, host.clone());
                self.present.insert(host.clone(), *key);
            }
            Fact::Stopped { host } => {
                self.down.retain(|(believer, _), _| believer != host);
                set(&mut self.fit, host, false);
                set(&mut self.well, host, false);
            }
            Fact::Fit { host, fit } => set(&mut self.fit, host, *fit),
            Fact::Well { host, well } => set(&mut self.well, host, *well),
            Fact::CutOff { host, from } => {
                let from: BTreeSet<Name> = from.iter().cloned().collect();
                if self.cut.get(host).is_none_or(|(now, _)| *now != from) {
                    self.cut.insert(host.clone(), (from, at));
                }
            }
            // Nobody speaks to who is out, and it may not have heard yet that it is: what it believes hurts nobody. What is
            // believed of it is asked for as ever.
            Fact::Believes { host, .. } if self.is_out(host, truth) => {
                self.down.retain(|(believer, _), _| believer != host);
            }
            Fact::Believes { host, of, state: State::Down } => {
                self.down.entry((host.clone(), *of)).or_insert(at);
                if let Some(of) = self.keys.get(of) {
                    self.judged += 1;
                    return self.verdict(at, host, of);
                }
            }
            Fact::Believes { host, of, .. } => {
                self.down.remove(&(host.clone(), *of));
            }
            _ => {}
        }
        Ok(())
    }

    fn step(&mut self, at: Duration) -> Result<(), String> {
        for ((host, of), since) in &self.down {
            let Some(of) = self.keys.get(of) else { continue };
            let (Some(one), Some(two)) = (self.fit.get(host), self.fit.get(of)) else { continue };
            let since = (*since).max(*one).max(*two);
            if at.saturating_sub(since) > BOUND {
                return Err(format!("{host} has held {of} to be down since {since:?}, and both are fit"));
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

    fn told(facts: &[(u64, Fact)]) -> (HealthyIsNotDown, Result<(), String>) {
        let fleet = Fleet::of(2);
        let mut rule = HealthyIsNotDown::default();
        for n in 1..=3 {
            rule.fact(second(0), &Fact::Started { host: name(n), key: key(n), start: 1 }, &fleet).unwrap();
            rule.fact(second(0), &Fact::Fit { host: name(n), fit: true }, &fleet).unwrap();
            rule.fact(second(0), &Fact::Well { host: name(n), well: true }, &fleet).unwrap();
        }
        let heard = facts.iter().try_for_each(|(at, fact)| rule.fact(second(*at), fact, &fleet));
        (rule, heard)
    }

    fn believes(state: State) -> Fact {
        Fact::Believes { host: name(1), of: key(2), state }
    }

    #[test]
    fn down_for_long_is_caught() {
        let (mut rule, heard) = told(&[(10, believes(State::Down))]);
        assert_eq!((heard, rule.step(second(40))), (Ok(()), Ok(())));
        assert!(rule.step(second(90)).is_err());
        let (mut rule, _) = told(&[(10, believes(State::Down)), (50, believes(State::Alive))]);
        assert_eq!(rule.step(second(90)), Ok(()));
        let (mut rule, _) = told(&[(10, believes(State::Down)), (50, Fact::Fit { host: name(2), fit: false })]);
        assert_eq!(rule.step(second(90)), Ok(()));
    }

    #[test]
    fn only_who_is_out_by_the_key_that_it_has_now_is_asked_nothing() {
        let fleet = Fleet::of(3); // of which the fourth is none
        let judge = |keys: &[u8], of: u8| {
            let mut rule = HealthyIsNotDown::default();
            for (host, key_of) in [(1, 1), (2, 2)].into_iter().chain(keys.iter().map(|n| (3, *n))) {
                rule.fact(second(0), &Fact::Started { host: name(host), key: key(key_of), start: 1 }, &fleet).unwrap();
                rule.fact(second(0), &Fact::Fit { host: name(host), fit: true }, &fleet).unwrap();
            }
            let believer = if of == 1 { 3 } else { 1 };
            let down = Fact::Believes { host: name(believer), of: key(of), state: State::Down };
            rule.fact(second(10), &down, &fleet).unwrap();
            rule.step(second(90))
        };
        assert_eq!(judge(&[4], 1), Ok(()), "it has not heard yet that it is out");
        assert!(judge(&[3], 1).is_err());
        assert!(judge(&[4, 3], 1).is_err(), "it was out, and is back with another key");
        assert_eq!(judge(&[3, 4], 1), Ok(()), "its key of now is out");
        assert!(judge(&[4], 2).is_err(), "nobody else is excused by it");
    }

    #[test]
    fn down_on_one_word_is_caught() {
        let cut = |from: &[u8]| Fact::CutOff { host: name(2), from: from.iter().map(|n| name(*n)).collect() };
        let (_, heard) = told(&[(10, cut(&[3])), (90, believes(State::Down))]);
        assert!(heard.is_err());
        let (_, heard) = told(&[(10, cut(&[1, 3])), (90, believes(State::Down))]);
        assert_eq!(heard, Ok(()), "two may be right");
        let (_, heard) = told(&[(10, cut(&[1, 3])), (85, cut(&[3])), (90, believes(State::Down))]);
        assert_eq!(heard, Ok(()), "it was so a moment ago");
    }
}

//! A host that is well is held to be down by nobody who has a witness: a third host, well itself, that has had good
//! links with both.
//!
//! [`super::healthy_is_not_down`] judges what a single host misses, and what lasts; this one judges the verdict itself,
//! however many miss the host. Only what was so for a while counts: a link that has just been mended has not yet
//! carried a word. Never asks for suspicion, which costs a host no build.

use super::{Fact, Invariant, Name, Truth};
use mesh::identity::PeerKey;
use mesh::membership::State;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// For so long a witness must have been one: longer than any verdict takes, and than a connection takes to come back.
const SETTLED: Duration = Duration::from_secs(20);

/// From when on a host was cut off from these, and no others.
type Cuts = VecDeque<(Duration, BTreeSet<Name>)>;

/// See the module.
#[derive(Default)]
pub struct HeardIsNotDown {
    keys: BTreeMap<PeerKey, Name>,
    well: BTreeMap<Name, Duration>,
    cuts: BTreeMap<Name, Cuts>,
    judged: u64,
}

impl HeardIsNotDown {
    fn was_well(&self, at: Duration, host: &Name) -> bool {
        self.well.get(host).is_some_and(|since| at.saturating_sub(*since) > SETTLED)
    }

    /// Everybody from whom a host was cut off at some time of the last while.
    fn missed(&self, at: Duration, host: &Name) -> BTreeSet<&Name> {
        let Some(cuts) = self.cuts.get(host) else { return BTreeSet::new() };
        let end = |n: usize| cuts.get(n + 1).map_or(at, |(next, _)| *next);
        let recent =
            cuts.iter().enumerate().filter(|(n, _)| *n + 1 == cuts.len() || at.saturating_sub(end(*n)) <= SETTLED);
        recent.flat_map(|(_, (_, from))| from).collect()
    }

    fn witness(&self, at: Duration, believer: &Name, of: &Name) -> Option<&Name> {
        let (here, there) = (self.missed(at, believer), self.missed(at, of));
        let fit = |third: &&Name| {
            *third != believer
                && *third != of
                && self.was_well(at, third)
                && !here.contains(third)
                && !there.contains(third)
        };
        self.well.keys().find(fit)
    }
}

impl Invariant for HeardIsNotDown {
    fn name(&self) -> &'static str {
        "heard-is-not-down"
    }

    fn source(&self) -> &'static str {
        "incident 13; Suresh et al., Rapid (2018); rule 5 of the design: witnesses are asked first"
    }

    fn fact(&mut self, at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        match fact {
            Fact::Started { host, key, .. } => {
                self.keys.insert(*key, host.clone());
            }
            Fact::Stopped { host } | Fact::Well { host, well: false } => {
                self.well.remove(host);
            }
            Fact::Well { host, well: true } => {
                self.well.entry(host.clone()).or_insert(at);
            }
            Fact::CutOff { host, from } => {
                let cuts = self.cuts.entry(host.clone()).or_default();
                cuts.push_back((at, from.iter().cloned().collect()));
                while cuts.get(1).is_some_and(|(next, _)| at.saturating_sub(*next) > SETTLED) {
                    cuts.pop_front();
                }
            }
            Fact::Believes { host, of, state: State::Down } => {
                let Some(of) = self.keys.get(of) else { return Ok(()) };
                if self.was_well(at, host) && self.was_well(at, of) {
                    self.judged += 1;
                    if let Some(third) = self.witness(at, host, of) {
                        return Err(format!("{host} holds {of} to be down, whom {third} hears"));
                    }
                }
            }
            _ => {}
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
    fn down_although_a_third_hears_it_is_caught() {
        let down = Fact::Believes { host: name(1), of: key(2), state: State::Down };
        let cut = |of: u8, from: &[u8]| Fact::CutOff { host: name(of), from: from.iter().map(|n| name(*n)).collect() };
        let unwell = Fact::Well { host: name(3), well: false };
        let cases: &[(&[(u64, Fact)], bool)] = &[
            (&[(0, cut(2, &[1])), (90, down.clone())], false),
            (&[(0, cut(2, &[1, 4])), (90, down.clone())], false),
            (&[(0, cut(2, &[1, 3])), (90, down.clone())], true),
            (&[(0, cut(2, &[1, 3])), (80, cut(2, &[1])), (90, down.clone())], true),
            (&[(0, cut(1, &[3, 2])), (90, down.clone())], true),
            (&[(0, cut(2, &[1])), (85, unwell), (90, down.clone())], true),
            (&[(0, cut(2, &[1, 3])), (60, cut(2, &[1])), (90, down)], false),
        ];
        for (facts, well) in cases {
            let (fleet, mut rule) = (Fleet::of(3), HeardIsNotDown::default());
            for n in 1..=3 {
                rule.fact(second(0), &Fact::Started { host: name(n), key: key(n), start: 1 }, &fleet).unwrap();
                rule.fact(second(0), &Fact::Well { host: name(n), well: true }, &fleet).unwrap();
            }
            let heard = facts.iter().try_for_each(|(at, fact)| rule.fact(second(*at), fact, &fleet));
            assert_eq!(heard.is_ok(), *well, "{facts:?}");
        }
    }
}

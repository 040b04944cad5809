//! A build's end is entered once, and the blobs of a build that is done are where it says.
//!
//! Once any ledger shows a final state, every ledger that reaches as far shows the same one with the same
//! result; and at that moment each holder that it names has log and outputs, byte for byte, unless its disk
//! was lost. Never judges whether the result is a good one.

use super::{Fact, HostSeen, Invariant, Name, Truth};
use mesh::build::BuildId;
use mesh::identity::PeerKey;
use mesh::ledger::{Build, State};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a build ended as.
#[derive(PartialEq, Eq, Debug)]
struct End {
    state: State,
    attempt: Option<u32>,
    finished_ms: u64,
}

/// See the module.
#[derive(Default)]
pub struct EndsOnce {
    /// Each end, and the index at which it was first seen.
    ends: BTreeMap<BuildId, (End, u64)>,
    /// Index and holders needed at a host's last look.
    last: BTreeMap<Name, (u64, usize)>,
    keys: BTreeMap<Name, PeerKey>,
    wiped: BTreeSet<PeerKey>,
    judged: u64,
}

impl EndsOnce {
    fn held(&self, build: &Build, needed: usize, truth: &dyn Truth) -> Result<(), String> {
        let Some(result) = build.result() else { return Err(format!("{} is done by no attempt", build.id)) };
        let blobs = result.outcome().map(|o| [o.manifest, o.log].into_iter().flatten().collect::<Vec<_>>());
        let blobs = blobs.unwrap_or_default();
        if !blobs.is_empty() && result.holders.len() < needed {
            return Err(format!("{} is done and held by {} of {needed}", build.id, result.holders.len()));
        }
        for holder in result.holders.iter().filter(|holder| !self.wiped.contains(*holder)) {
            if let Some(blob) = blobs.iter().find(|blob| truth.holds(holder, **blob) == Some(false)) {
                return Err(format!("{} is done, and {holder} does not hold {blob}", build.id));
            }
        }
        Ok(())
    }
}

impl Invariant for EndsOnce {
    fn name(&self) -> &'static str {
        "ends-once"
    }

    fn source(&self) -> &'static str {
        "rule 7 of the design: a success is proved; incidents 10 and 16"
    }

    fn fact(&mut self, _at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        match fact {
            Fact::Started { host, key, .. } => {
                self.keys.insert(host.clone(), *key);
            }
            Fact::Wiped { host } => self.wiped.extend(self.keys.get(host)),
            _ => {}
        }
        Ok(())
    }

    fn look(&mut self, _at: Duration, host: &HostSeen<'_>, truth: &dyn Truth) -> Result<(), String> {
        let index = host.ledger.index();
        let now = mesh::mutants::with(None, || host.ledger.holders_needed());
        let before = self.last.insert(host.name.clone(), (index, now));
        if before.is_some_and(|(last, _)| last == index) {
            return Ok(());
        }
        // The roster may have shrunk since the end was entered: the lesser number is asked for.
        let needed = before.map_or(now, |(_, needed)| needed.min(now));
        for build in host.ledger.builds().iter() {
            let (id, state) = (build.id, build.state);
            match self.ends.get(&id) {
                None if state.is_final() => {
                    self.judged += 1;
                    if state == State::Done {
                        self.held(build, needed, truth).map_err(|text| format!("{}: {text}", host.name))?;
                    }
                    self.ends.insert(id, (end(build), index));
                }
                Some((ended, at)) if index >= *at && *ended != end(build) => {
                    return Err(format!("{}: {id} ended as {ended:?}, and now it is {:?}", host.name, end(build)));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

fn end(build: &Build) -> End {
    End { state: build.state, attempt: build.result().map(|a| a.number.0), finished_ms: build.finished_ms }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fleet, key, second};
    use super::*;

    #[test]
    fn a_build_that_is_done_is_held() {
        let mut fleet = Fleet::of(3);
        let mut rule = EndsOnce::default();
        let build = fleet.submit(1, 1, "one");
        assert_eq!(rule.look(second(1), &fleet.seen(1), &fleet), Ok(()));
        fleet.assign(build, 1, 2);
        let blob = fleet.done(build, 1, 2, &[2, 3]);
        let mut lost = EndsOnce::default();
        fleet.hold(2, blob);
        assert!(lost.look(second(2), &fleet.seen(1), &fleet).is_err(), "a holder has nothing");
        fleet.hold(3, blob);
        assert_eq!(rule.look(second(2), &fleet.seen(1), &fleet), Ok(()));
        assert_eq!(rule.exercised(), 1);
        assert_eq!(fleet.holds(&key(1), blob), Some(false));
    }

    #[test]
    fn another_end_is_caught() {
        let mut fleet = Fleet::of(3);
        let mut rule = EndsOnce::default();
        let build = fleet.submit(1, 1, "one");
        let mut other = fleet.clone();
        fleet.cancel(build);
        assert_eq!(rule.look(second(1), &fleet.seen(1), &fleet), Ok(()));
        assert_eq!(rule.look(second(1), &other.seen(2), &fleet), Ok(()), "behind is well");
        other.submit(1, 2, "two");
        assert!(rule.look(second(2), &other.seen(2), &fleet).is_err());
    }
}

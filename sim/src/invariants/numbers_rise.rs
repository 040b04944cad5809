//! Start numbers and sequence numbers never go back.
//!
//! A host goes by a higher start number each time, unless its disk was lost; and what it knows of another is
//! never replaced by something older. Never compares the numbers of two hosts.

use super::{Fact, HostSeen, Invariant, Name, Truth};
use mesh::identity::PeerKey;
use std::collections::BTreeMap;
use std::time::Duration;

/// What a process knows of others: start number and sequence.
type Seen = BTreeMap<PeerKey, (u64, u64)>;

/// See the module.
#[derive(Default)]
pub struct NumbersRise {
    starts: BTreeMap<Name, (PeerKey, u64)>,
    /// What a host in one life knows of each other.
    known: BTreeMap<Name, Seen>,
    judged: u64,
}

impl Invariant for NumbersRise {
    fn name(&self) -> &'static str {
        "numbers-rise"
    }

    fn source(&self) -> &'static str {
        "Lamport, Time, Clocks (1978); Das et al., SWIM (2002), incarnation numbers"
    }

    fn fact(&mut self, _at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        match fact {
            Fact::Started { host, key, start } => {
                self.judged += 1;
                self.known.remove(host); // it knows nothing of others when it starts
                let before = self.starts.insert(host.clone(), (*key, *start));
                if let Some((_, before)) = before.filter(|(of, before)| of == key && before >= start) {
                    return Err(format!("{host} goes by start {start} after {before}"));
                }
            }
            Fact::Wiped { host } => {
                self.starts.remove(host);
            }
            _ => {}
        }
        Ok(())
    }

    fn look(&mut self, _at: Duration, host: &HostSeen<'_>, _truth: &dyn Truth) -> Result<(), String> {
        let known = self.known.entry(host.name.clone()).or_default();
        for (of, start, sequence) in host.presences {
            self.judged += 1;
            let newest = known.entry(*of).or_default();
            if (*start, *sequence) < *newest {
                return Err(format!("{}: {of} is at {start}.{sequence} after {newest:?}", host.name));
            }
            *newest = (*start, *sequence);
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
    fn a_start_number_that_was_used_is_caught() {
        let fleet = Fleet::of(1);
        let mut rule = NumbersRise::default();
        let started = |start| Fact::Started { host: name(1), key: key(1), start };
        assert_eq!(rule.fact(second(1), &started(1), &fleet), Ok(()));
        assert_eq!(rule.fact(second(2), &started(2), &fleet), Ok(()));
        assert!(rule.fact(second(3), &started(2), &fleet).is_err());
        rule.fact(second(4), &Fact::Wiped { host: name(1) }, &fleet).unwrap();
        assert_eq!(rule.fact(second(5), &started(1), &fleet), Ok(()));
    }

    #[test]
    fn an_older_word_that_replaces_a_newer_is_caught() {
        let fleet = Fleet::of(2);
        let mut rule = NumbersRise::default();
        for (start, sequence, well) in [(1, 5, true), (1, 6, true), (2, 1, true), (1, 9, false)] {
            let presences = [(key(2), start, sequence)];
            let seen = HostSeen { presences: &presences, ..fleet.seen(1) };
            assert_eq!(rule.look(second(1), &seen, &fleet).is_ok(), well, "{start}.{sequence}");
        }
    }
}

//! What people do to healing as a whole, and what the owner does with the recovery key: it may be lost in a second copy,
//! and two recoveries of one epoch contend until a third.

use super::world::{Ill, World};
use crate::invariants::Fact;
use mesh::healing::{self, Clear, Lift, Measure, Stage, Stop};
use mesh::identity::{Keys, PeerKey};
use mesh::lease::Fence;
use mesh::ledger::{Command, Ledger};
use mesh::roster::VoterChange;
use std::collections::BTreeSet;

impl World {
    /// A person changes the policy, or stops something for a while, or ends that.
    pub fn persons_word(&mut self) {
        let Some(by) = self.some(|h| h.signer) else { return };
        let now_ms = self.fresh.time_ms();
        let policy = *self.fresh.healing().policy();
        let sick = self.some(|h| h.ill != Ill::Well).map(|h| self.hosts[h].key());
        let entry = match self.dice.below(5) {
            0 if policy.heal == 0 || self.dice.percent(30) => {
                healing::Entry::Policy(healing::Policy { heal: 1 - policy.heal, ..policy })
            }
            1 | 3 if policy.heal == 0 => healing::Entry::Policy(healing::Policy { heal: 1, ..policy }),
            0..3 => {
                let (stop, host) = match sick {
                    Some(host) if self.dice.percent(60) => (Stop::Drain, Some(host)),
                    _ => (Stop::Pause, None),
                };
                let until_ms = now_ms + self.dice.between(60_000, 3_600_000);
                let by = self.hosts[by].key();
                healing::Entry::Measure(Measure { stop, host, by, reason: "moving house".into(), until_ms })
            }
            3 => match self.fresh.healing().measures.in_force(now_ms).next() {
                Some(measure) => healing::Entry::Lift(Lift { stop: measure.stop, host: measure.host }),
                None => return,
            },
            _ => {
                // Whoever was handed to a human, mostly, for it waits for nothing else.
                let all: Vec<_> = self.fresh.healing().cases().map(|(key, case)| (*key, case.stage)).collect();
                let handed = all.iter().find(|(_, stage)| *stage == Stage::Human).map(|(key, _)| *key);
                let host = handed.filter(|_| self.dice.percent(80)).or(all.first().map(|(key, _)| *key));
                healing::Entry::Clear(Clear { host, why: "looked at it".into() })
            }
        };
        self.count("a person's word");
        self.write(by, None, Command::Heal(entry));
    }

    /// The owner recovers the mesh: one host goes on alone, under a new epoch. Or somebody who has a copy of the key, and
    /// the ledger of before, does so as well, and the mesh hears of it.
    pub fn recover_mesh(&mut self) {
        if let Some(before) = self.before.take() {
            if let Some(record) = self.record(&before, &self.recovery.clone()) {
                let by = self.leader;
                self.disputed |= self.write(by, None, Command::Dispute(record)).is_ok();
                self.count("two recoveries");
            }
            return;
        }
        let key = self.recovery.clone();
        self.recovered(&key);
    }

    /// A member that never had the recovery key shows a record of its own making.
    pub fn false_recovery(&mut self) {
        let Some(liar) = self.some(|h| !h.signer) else { return };
        self.lie("a recovery without its key");
        let keys = self.hosts[liar].keys.clone();
        self.recovered(&keys);
    }

    /// A record by which one of the members that are up goes on with a ledger.
    fn record(&mut self, from: &Ledger, key: &Keys) -> Option<VoterChange> {
        let heir = self.some(|h| h.up())?;
        let up: BTreeSet<PeerKey> =
            self.members().into_iter().filter(|h| self.hosts[*h].up()).map(|h| self.hosts[h].key()).collect();
        let end = (from.index(), from.head());
        let record = from.voters().draft(self.hosts[heir].key(), &up, end, true).ok()?;
        Some(record.seal(key))
    }

    /// The mesh goes on by a record, if it takes it: whoever was ahead or behind has its heir's ledger then.
    fn recovered(&mut self, key: &Keys) {
        let from = self.fresh.clone();
        let Some(record) = self.record(&from, key) else { return };
        let Ok(next) = from.recover(&record) else {
            self.counts.denied += 1;
            return;
        };
        self.count("recovered");
        let heir = next.voters().voters().iter().next().and_then(|key| self.host_of(key));
        // Among the lost, somebody may have led in terms that the heir never heard of.
        let above = Fence { epoch: from.recovery_epoch(), term: self.term + self.dice.below(4) };
        self.deposed.push((self.leader, above));
        (self.fresh, self.late) = (next.clone(), next);
        self.backlog.clear();
        self.verdicts = Default::default();
        (self.before, self.disputed) = (Some(from), false);
        if let Some(heir) = heir {
            // Where no signer survives, the heir becomes one.
            let key = self.hosts[heir].key();
            self.hosts[heir].signer |= self.fresh.roster().member(&key).is_some_and(|member| member.signer);
            self.elect(heir);
        }
        let fence = self.fresh.leader().map(|(_, fence)| fence);
        self.fact(Fact::Recovered { by_owner: key.key() == self.recovery.key(), fence, above });
        let up = self.members().into_iter().filter(|h| self.hosts[*h].up());
        let mut set: BTreeSet<usize> = up.take(3).collect();
        if set.len() == 3 && !set.contains(&self.leader) {
            set.pop_last();
            set.insert(self.leader);
        }
        if set.len() == 3 {
            self.change_voters(&set);
        }
        self.tell_guards();
    }
}

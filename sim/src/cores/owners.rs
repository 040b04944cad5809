//! What owners do about hosts that have lost each other. After `nodes::owners`.
//!
//! When all who know a way to each other have moved at once, or have lost what they knew, no program can help: somebody
//! has to say where the others are. So the owner of such a host writes addresses into configurations: into its own
//! where it can dial, into the others' where they can. But only where nobody of one part of the mesh knows an
//! address at which anybody of another part can be dialled, by the network's own word: while somebody does, finding each
//! other is the program's affair, and the jury watches whether it does.

use super::host::Process;
use super::stage::Cores;
use mesh::addresses::Source;
use mesh::identity::PeerKey;
use mesh::time::Time;
use std::collections::{BTreeMap, BTreeSet};

/// For so long hosts have to be lost before an owner looks after them, in microseconds.
const LOST_FOR: u64 = 20_000_000;

/// Since when hosts are lost to the others.
#[derive(Default)]
pub(super) struct Owners {
    lost: BTreeMap<usize, u64>,
}

impl Cores {
    /// Helps members that nobody can find any more.
    pub(super) fn help_the_lost(&mut self) {
        let (lost, now) = (self.lost(), self.cx.now);
        self.owners.lost.retain(|host, _| lost.contains(host));
        for host in lost {
            let since = *self.owners.lost.entry(host).or_insert(now);
            if now - since < LOST_FOR {
                continue;
            }
            self.owners.lost.remove(&host);
            for other in (0..self.hosts.len()).filter(|other| *other != host) {
                self.introduce(host, other);
                self.introduce(other, host);
            }
        }
    }

    /// Writes into one's configuration where it can dial the other.
    fn introduce(&mut self, one: usize, two: usize) {
        if self.hosts[two].process.is_none() || self.hosts[two].out || self.hosts[two].copy_of.is_some() {
            return;
        }
        let net = &self.cx.net;
        let mut places = net.addresses_of(two);
        places.extend(net.forwards_to(two));
        places.retain(|address| net.way(one, address).is_some_and(|way| way.to == two));
        let peer = self.hosts[two].machine.keys.key();
        self.with(one, |p, env| {
            let now = p.now(env);
            for address in &places {
                p.addresses.learn(peer, address, Source::Configured, None, now);
            }
        });
    }

    /// All of each part of the mesh, but for its largest, that has no way to another part and is known to none.
    fn lost(&self) -> BTreeSet<usize> {
        let ledgers = self.hosts.iter().filter_map(|h| h.process.as_ref()).map(|p| &p.ledger);
        let Some(newest) = ledgers.max_by_key(|ledger| ledger.index()) else { return BTreeSet::new() };
        let member = |host: &usize| {
            let at = &self.hosts[*host];
            let is_one = |p: &Process| newest.roster().is_member(&p.me);
            at.suspended.is_none() && at.copy_of.is_none() && !at.out && at.process.as_deref().is_some_and(is_one)
        };
        let running: Vec<usize> = (0..self.hosts.len()).filter(member).collect();
        let speaks = |one: usize, two: usize| {
            let key = self.hosts[two].machine.keys.key();
            self.hosts[one].process.as_ref().is_some_and(|p| p.lines.contains_key(&key))
        };
        let mut parts: Vec<BTreeSet<usize>> = vec![];
        for host in running.iter().copied() {
            let mut part = BTreeSet::from([host]);
            parts.retain(|known| {
                let joins = known.iter().any(|other| speaks(host, *other) || speaks(*other, host));
                if joins {
                    part.extend(known);
                }
                !joins
            });
            parts.push(part);
        }
        parts.sort_by_key(BTreeSet::len);
        parts.pop();
        let is_lost = |part: &&BTreeSet<usize>| {
            let mut others = running.iter().filter(|other| !part.contains(other));
            !others.any(|other| part.iter().any(|one| self.finds(*one, *other) || self.finds(*other, *one)))
        };
        parts.iter().filter(is_lost).flatten().copied().collect()
    }

    /// Whether the first knows where the second is now.
    fn finds(&self, one: usize, two: usize) -> bool {
        let peer: PeerKey = self.hosts[two].machine.keys.key();
        let at = &self.hosts[one];
        let Some(p) = &at.process else { return false };
        let now = Time::default() + at.machine.clock.own(self.cx.now).since(p.born);
        let known = p.addresses.rows(&peer, now);
        known.iter().any(|row| self.cx.net.way(one, &row.addr).is_some_and(|way| way.to == two))
    }
}

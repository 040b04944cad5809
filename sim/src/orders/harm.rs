//! What befalls hosts, leaders and addresses between two steps of an order. What people do is in `owner.rs`.

use super::world::{Host, Ill, World};
use mesh::ledger::{Command, Revoke};
use std::collections::{BTreeMap, BTreeSet};

/// Something that befalls a run.
pub struct Harm {
    /// How often, against others.
    pub weight: u64,
    /// How many of a hundred runs have it.
    pub percent: u64,
    does: fn(&mut World),
}

const fn harm(weight: u64, percent: u64, does: fn(&mut World)) -> Harm {
    Harm { weight, percent, does }
}

/// Everything that does. Somebody falls sick in every run.
pub const HARMS: [Harm; 18] = [
    harm(14, 100, World::sicken),
    harm(1, 80, World::power),
    harm(1, 80, World::restart),
    harm(4, 80, World::swap),
    harm(2, 80, World::depose),
    harm(2, 80, World::vote),
    harm(2, 80, World::replace),
    harm(2, 80, World::copy),
    harm(2, 80, World::back_up),
    harm(2, 80, World::set_clock),
    harm(4, 80, World::lag),
    harm(2, 80, World::fail_disk),
    harm(2, 80, World::miss),
    harm(2, 60, World::busy),
    harm(3, 80, World::persons_word),
    harm(2, 60, World::tree),
    harm(2, 30, World::recover_mesh),
    harm(2, 100, World::recover),
];

impl World {
    /// One step of the walk.
    pub fn step(&mut self) {
        self.pass();
        let weights = self.temper.weights();
        match self.chosen(&weights) {
            0 => self.advance(),
            1 if self.journeys.len() < 5 => self.begin_by_hand(),
            1 | 2 => self.lead(),
            3 => self.work_on(),
            4 => self.attack(),
            5 => self.replay(),
            6 => {
                let some = self.dice.between(1, 20) as usize;
                self.lag_on(some);
            }
            7 => self.catch_up(),
            _ => self.harm(),
        }
    }

    /// Time goes on: mostly a little, at times until a nonce is old, an order has ended, a day is over.
    fn pass(&mut self) {
        self.now_ms += match self.dice.below(1_000) {
            0..930 => self.dice.below(400),
            930..945 => self.dice.between(9_000, 13_000),
            945..985 => self.dice.between(60_000, 240_000),
            985..994 => self.dice.between(240_000, 900_000),
            994..998 => self.dice.between(1, 8) * 3_600_000,
            _ => self.dice.between(12, 30) * 3_600_000,
        };
        self.deeds_due();
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.harm.entry(what).or_default() += 1;
    }

    /// One of these weights, as often as it says.
    fn chosen(&mut self, weights: &[u64]) -> usize {
        let mut left = self.dice.below(weights.iter().sum());
        let chosen = weights.iter().position(|weight| {
            let here = left < *weight;
            left = left.saturating_sub(*weight);
            here
        });
        chosen.unwrap_or_default()
    }

    fn harm(&mut self) {
        let weights = self.temper.harms.clone();
        let chosen = self.chosen(&weights);
        (HARMS[chosen].does)(self);
    }

    fn sicken(&mut self) {
        let ill = if self.dice.percent(70) { Ill::Hangs } else { Ill::Broken };
        // A few at a time, and mostly others than those that have to sign.
        let sick = self.members().iter().filter(|h| self.hosts[**h].ill != Ill::Well).count();
        if sick >= self.temper.sick_max {
            return;
        }
        let voters: BTreeSet<usize> = self.voters().into_iter().collect();
        let host = self.any();
        if voters.contains(&host) && self.dice.percent(self.temper.spares_voters) {
            return;
        }
        self.count("sick");
        (self.hosts[host].ill, self.hosts[host].ailed_ms) = (ill, self.now_ms);
        self.refresh(host);
    }

    fn recover(&mut self) {
        if let Some(host) = self.some(|h| h.ill != Ill::Well || !h.power) {
            self.count("well again");
            let at = &mut self.hosts[host];
            (at.ailed_ms, at.ill) = (self.now_ms, Ill::Well);
            if !at.power {
                (at.power, at.boots) = (true, at.boots + 1);
                at.start += 1;
            }
            self.refresh(host);
        }
    }

    fn power(&mut self) {
        let host = self.any();
        self.count("power cut");
        let (at, now) = (&mut self.hosts[host], self.now_ms);
        (at.power, at.ailed_ms) = (false, now);
        at.hearings.clear();
        self.refresh(host);
    }

    fn restart(&mut self) {
        let (host, reboot) = (self.any(), self.dice.percent(40));
        self.count("restart");
        if self.hosts[host].power {
            self.begin_anew(host, reboot);
        }
    }

    /// DHCP gives two hosts each other's address; who dials them learns of it later, or not.
    fn swap(&mut self) {
        let (a, b) = (self.any(), self.any());
        let (Some(one), Some(two)) = (self.hosts[a].seat, self.hosts[b].seat) else { return };
        self.count("addresses swapped");
        (self.hosts[a].seat, self.hosts[b].seat) = (Some(two), Some(one));
        (self.seats[two], self.seats[one]) = (Some(a), Some(b));
        if self.dice.percent(50) {
            let (a, b) = (self.hosts[a].key(), self.hosts[b].key());
            self.believed.extend([(a, two), (b, one)]);
        }
    }

    /// Another voter leads, mostly because the leader is lost; who led may not know.
    pub fn depose(&mut self) {
        let voters: Vec<usize> = self.voters().into_iter().filter(|v| self.hosts[*v].up()).collect();
        if let Some(next) = self.dice.one(&voters).copied() {
            self.count("another leader");
            self.elect(next);
            if self.dice.percent(50) {
                self.lag_on(1_000);
            }
        }
    }

    /// Another set of voters; at times without its leader, which leads on until another is elected.
    fn vote(&mut self) {
        let mut members: Vec<usize> = self.members().into_iter().filter(|h| self.hosts[*h].up()).collect();
        self.dice.shuffle(&mut members);
        let count = [3, 3, 5, 7][self.dice.below(4) as usize].min(members.len());
        let mut set: BTreeSet<usize> = members.into_iter().take(count).collect();
        if self.dice.percent(70) {
            set.insert(self.leader);
        }
        if set.len().is_multiple_of(2) {
            let spare = set.iter().copied().find(|h| *h != self.leader);
            spare.map(|h| set.remove(&h));
        }
        if set.len() >= 3 {
            self.count("other voters");
            self.change_voters(&set);
        }
    }

    /// A host is put out, and a new one gets its address.
    fn replace(&mut self) {
        let voters: BTreeSet<usize> = self.voters().into_iter().collect();
        let Some(new) = (0..self.hosts.len()).find(|h| {
            self.hosts[*h].seat.is_none()
                && self.hosts[*h].copy_of.is_none()
                && !self.hosts[*h].member
                && self.fresh.roster().revoked(&self.hosts[*h].key()).is_none()
        }) else {
            return;
        };
        let Some(out) = self.some(|h| h.seat.is_some() && h.machine > 0).filter(|h| *h != self.leader) else { return };
        let by = if self.hosts[0].member { 0 } else { return };
        if voters.contains(&out) && voters.len() <= 3 {
            return;
        }
        let revoke = Revoke { peer: self.hosts[out].key(), banned: true, reason: "sold".into() };
        if !self.write(by, None, Command::Revoke(revoke)).is_ok() {
            return;
        }
        self.count("address reused");
        let key = self.hosts[out].key();
        self.view.remove(&key);
        let place = self.hosts[out].seat.take();
        (self.hosts[out].member, self.hosts[out].power) = (false, false);
        self.joins.remove(&key);
        (self.hosts[new].seat, self.hosts[new].power) = (place, true);
        if let Some(place) = place {
            self.seats[place] = Some(new);
            let new_key = self.hosts[new].key();
            self.believed.insert(new_key, place);
        }
        let signer = self.hosts[out].signer;
        self.enrol(new, signer);
        self.tell_guards();
    }

    /// A second machine with a host's key and disk appears, or goes.
    fn copy(&mut self) {
        if let Some(copy) = (0..self.hosts.len()).find(|h| self.hosts[*h].copy_of.is_some() && self.hosts[*h].power)
            && self.dice.percent(60)
        {
            self.hosts[copy].power = false;
            let of = self.hosts[copy].copy_of.unwrap_or(copy);
            return self.refresh(of);
        }
        if self.hosts.len() > self.seats.len() + 3 {
            return;
        }
        let of = self.any();
        self.count("copied");
        let number = self.hosts.len();
        let from = &self.hosts[of];
        let copy = Host {
            name: format!("{}-copy-{number}", from.name).into(),
            keys: from.keys.clone(),
            machine: number as u64,
            known: from.known.clone(),
            guard: from.guard.clone(),
            notes: from.notes.clone(),
            backup: None,
            only_path_of: vec![],
            ends: vec![],
            missed_by: BTreeSet::new(),
            copy_of: Some(of),
            seat: None,
            hearings: BTreeMap::new(),
            boots: 1,
            ..*from
        };
        self.hosts.push(copy);
        self.refresh(of);
    }

    /// A disk is copied away, or put back while the machine is off.
    fn back_up(&mut self) {
        let host = self.any();
        let voters = self.voters().contains(&host);
        let at = &mut self.hosts[host];
        match at.backup.take().filter(|_| !voters) {
            None => at.backup = Some((at.guard.clone(), at.notes.clone(), at.start)),
            Some((guard, notes, start)) => {
                (at.guard, at.notes, at.start) = (guard, notes, start + 1);
                at.boots += 1;
                at.hearings.clear();
                let host = at.name.clone();
                self.fact(crate::invariants::Fact::Wiped { host });
                self.count("backup put back");
            }
        }
    }

    fn set_clock(&mut self) {
        let host = self.any();
        let days = self.dice.between(6, 9) as i64 * 24 * 3_600_000;
        let all = [0, 0, 30_000, -70_000, days, -days];
        let skew = all[self.dice.below(all.len() as u64) as usize];
        self.count("clock set");
        self.hosts[host].skew_ms = skew;
    }

    /// A host falls behind with the ledger, or catches up.
    fn lag(&mut self) {
        let host = self.any();
        if host != self.leader {
            self.count("lags");
            self.hosts[host].lags = self.dice.percent(25);
        }
        if self.dice.percent(50) {
            self.tell_guards();
        }
    }

    fn fail_disk(&mut self) {
        let host = self.any();
        self.count("disk fails");
        self.hosts[host].disk_fails = true;
    }

    /// One or two hosts cannot hear another.
    fn miss(&mut self) {
        let host = self.any();
        if !self.hosts[host].missed_by.is_empty() {
            self.hosts[host].missed_by.clear();
            return;
        }
        if let Some(heard) = self.some(|h| !h.missed_by.is_empty()) {
            return self.hosts[heard].missed_by.clear();
        }
        let by = if self.dice.percent(70) { self.leader } else { self.any() };
        if by != host {
            self.count("missed by one");
            let by = self.hosts[by].key();
            self.hosts[host].missed_by.insert(by);
        }
    }

    fn busy(&mut self) {
        let whom = self.some(|h| h.ill != Ill::Well);
        let host = whom.unwrap_or_else(|| self.any());
        self.count("busy");
        self.hosts[host].progress = !self.hosts[host].progress && self.dice.percent(30);
    }

    /// A newer tree breaks every package, or is mended.
    fn tree(&mut self) {
        self.bad_tree = !self.bad_tree && self.dice.percent(30);
        self.count("tree");
        if self.bad_tree {
            for _ in 0..12 {
                self.work();
            }
        }
    }
}

//! One order from the ledger to its receipt, a step at a time; anything may happen between two steps.
//!
//! Whoever brings it goes to its target on a connection, which proves who is there, or to the place where the target is
//! believed to sit, where anybody may answer. It asks whoever votes by its own ledger, and brings what it got: a deposed
//! leader goes on as if it led. A delivery that got no answer is tried again, with another hello.

use super::count::kind;
use super::target::Came;
use super::world::World;
use crate::invariants::{Fact, Signature, Voter};
use mesh::healing::{self, Facts, objection};
use mesh::identity::PeerKey;
use mesh::lease::Fence;
use mesh::ledger::Command;
use mesh::mutants::{self, Mutant};
use mesh::order::{Act, Gently};
use mesh::warrant::{
    Approved, Authority, Consent, Frame, Hello, Introduction, Notes, Order, OrderHash, Own, Warrant, approve_by_hand,
    consider,
};
use mesh::wire::Signed;
use std::collections::BTreeMap;

/// Tries of one delivery.
const TRIES_MAX: u32 = 3;

/// An order under way.
pub struct Journey {
    pub signed: Signed,
    pub order: Order,
    /// Who brings it.
    pub by: usize,
    pub stage: Stage,
    pub tries: u32,
}

/// Where it is.
pub enum Stage {
    /// It stands in the ledger.
    Written,
    /// Its target, or somebody, has said hello.
    Greeted(Heard),
    /// It is signed.
    Signed(Heard, Vec<Approved>),
}

/// A hello, and where it came from.
pub struct Heard {
    pub host: usize,
    pub number: u64,
    pub signed: Signed,
    pub hello: Hello,
}

impl World {
    /// An order as a signer's program writes it, from what its host knows.
    pub fn order_by_hand(&mut self, by: usize, target: usize) -> Order {
        let gently = Gently { grace_ms: self.dice.below(3_000) };
        let reboot = self.dice.percent(50);
        let fence = self.ledger(by).leader().map_or(Fence::default(), |l| l.1);
        let ends = [5_000, 60_000, 3_000_000][self.dice.below(3) as usize];
        Order {
            mesh: self.fresh.mesh(),
            id: self.order_id(),
            target: self.hosts[target].key(),
            boot: self.hosts[target].boot(),
            start: self.hosts[target].start,
            act: if reboot { Act::Reboot(gently) } else { Act::Restart(gently) },
            authority: Authority::Person,
            requester: "owner".into(),
            // A person's order may say what it likes: nobody stores it.
            fence: if self.dice.percent(5) { Fence { epoch: 0, term: u64::MAX } } else { fence },
            expires_ms: self.fresh.time_ms() + ends,
            force: self.dice.percent(10),
            reason: "as asked".into(),
        }
    }

    /// A signer orders somebody by hand.
    pub fn begin_by_hand(&mut self) {
        let Some(by) = self.some(|h| h.signer && h.up()) else { return };
        let target = self.any();
        let order = self.order_by_hand(by, target);
        let signed = Signed::seal(&self.hosts[by].keys, &order);
        let reply = self.write(by, None, Command::Heal(healing::Entry::Order(signed.clone())));
        match reply.is_ok() {
            true => {
                self.counts.by_hand += 1;
                self.journeys.push(Journey { signed, order, by, stage: Stage::Written, tries: 0 });
            }
            false => self.counts.unwritten += 1,
        }
    }

    /// One of the orders under way goes on.
    pub fn advance(&mut self) {
        if self.journeys.is_empty() {
            if !self.temper.heals() {
                self.begin_by_hand();
            }
            return;
        }
        // A hello does not wait: mostly one goes on that has got one.
        let begun = self.journeys.iter().position(|j| !matches!(j.stage, Stage::Written));
        let n = match begun.filter(|_| self.dice.percent(70)) {
            Some(n) => n,
            None => self.dice.below(self.journeys.len() as u64) as usize,
        };
        self.go_on(n);
    }

    /// Who has just ordered goes on with that, whatever has become of it meanwhile.
    pub fn press(&mut self) {
        for _ in 0..3 {
            if let Some(newest) = self.journeys.len().checked_sub(1) {
                self.go_on(newest);
            }
        }
    }

    fn go_on(&mut self, n: usize) {
        let mut journey = self.journeys.swap_remove(n);
        let stage = std::mem::replace(&mut journey.stage, Stage::Written);
        let next = match stage {
            Stage::Written => self.reach(&journey),
            Stage::Greeted(heard) => self.gather(&journey, heard),
            Stage::Signed(heard, got) => self.bring(&journey, &heard, got),
        };
        match next {
            Some(next) => journey.stage = next,
            None if journey.tries < TRIES_MAX && self.dice.percent(70) => journey.tries += 1,
            None => return,
        }
        self.journeys.push(journey);
    }

    /// Who answers for a target: itself (or a copy of it) on a connection, or whoever sits at its place.
    pub fn answers(&mut self, by: usize, target: &PeerKey) -> Option<usize> {
        let naive = mutants::on(Mutant::IdentityByAddress);
        if !naive && self.dice.percent(50) {
            let all: Vec<usize> =
                (0..self.hosts.len()).filter(|h| self.hosts[*h].key() == *target && self.hosts[*h].up()).collect();
            return self.dice.one(&all).copied();
        }
        let place = self.believed.get(target).copied()?;
        let router = self.host_of(target).and_then(|host| self.seen_as(host)).filter(|_| naive);
        self.dial(by, router.unwrap_or(place)).or_else(|| {
            // A courier of the target's own site.
            self.seats.get(place).copied().flatten().filter(|host| self.hosts[*host].power)
        })
    }

    fn reach(&mut self, journey: &Journey) -> Option<Stage> {
        let host = self.answers(journey.by, &journey.order.target)?;
        let (number, mut signed, mut hello) = self.greet(host)?;
        if self.dice.percent(12) {
            // Whoever answers lies: about who it is, or about what it has seen.
            self.lie("a false hello");
            match self.hosts[host].key() == journey.order.target {
                true => hello.highest = Fence { epoch: 0, term: u64::MAX },
                false => (hello.boot, hello.start) = (journey.order.boot, journey.order.start),
            }
            signed = Signed::seal(&self.hosts[host].keys, &hello);
        }
        Some(Stage::Greeted(Heard { host, number, signed, hello }))
    }

    fn gather(&mut self, journey: &Journey, heard: Heard) -> Option<Stage> {
        if journey.order.authority == Authority::Person {
            let approved = self.approve(journey.by, &journey.signed, &heard)?;
            return Some(Stage::Signed(heard, vec![approved]));
        }
        let mut asked: Vec<usize> =
            self.ledger(journey.by).voters().voters().clone().iter().filter_map(|key| self.host_of(key)).collect();
        if self.dice.percent(5) {
            asked.push(self.any()); // whoever asks is not always right about who votes
        }
        let mut got = vec![];
        for voter in asked {
            if voter == journey.by || self.dice.percent(92) {
                got.extend(self.ask(voter, &journey.signed, &heard));
            }
        }
        // Those that agree on what they signed.
        let mut alike: BTreeMap<Vec<u8>, Vec<Approved>> = BTreeMap::new();
        for one in got {
            alike.entry(one.approval.clone()).or_default().push(one);
        }
        let got = alike.into_values().max_by_key(Vec::len)?;
        Some(Stage::Signed(heard, got))
    }

    /// A signer signs under its own order.
    pub fn approve(&mut self, by: usize, signed: &Signed, heard: &Heard) -> Option<Approved> {
        match approve_by_hand(&self.hosts[by].keys, signed, &heard.signed) {
            Ok(approved) => {
                self.did_sign(by, signed, heard, heard.hello.epoch, None);
                Some(approved)
            }
            Err(objection) => {
                *self.counts.withheld.entry(kind(&objection)).or_default() += 1;
                None
            }
        }
    }

    fn did_sign(&mut self, by: usize, signed: &Signed, heard: &Heard, epoch: u64, voter: Option<Voter>) {
        let Ok(order) = signed.open::<Order>() else { return };
        let (hash, author, greeter) = (OrderHash::of(signed), signed.by, heard.signed.by);
        let (by, hello) = (self.hosts[by].key(), heard.hello.clone());
        self.fact(Fact::Signed(Box::new(Signature { by, order, hash, author, greeter, hello, epoch, voter })));
    }

    /// A voter is asked to sign, and judges for itself.
    pub fn ask(&mut self, voter: usize, signed: &Signed, heard: &Heard) -> Option<Approved> {
        if !self.hosts[voter].up() {
            return None;
        }
        let me = self.hosts[voter].key();
        let order: Option<Order> = signed.open().ok();
        self.judge(self.hosts[voter].lags);
        let sights = order.as_ref().map(|order| self.sights_for(voter, &[order.target]));
        let suspended = self.cloned(&me);
        let ledger = self.ledger(voter);
        let (now_ms, leader) = (ledger.time_ms(), ledger.leader());
        let written = ledger.healing().is_open(&OrderHash::of(signed), now_ms);
        let verdicts = &self.verdicts[usize::from(self.hosts[voter].lags)].1;
        let held_back = order.as_ref().zip(sights.as_ref()).and_then(|(order, sights)| {
            let facts = Facts { me, ledger, record: ledger.healing(), verdicts, view: &self.view, sights };
            objection(&facts, &order.target, order.id, order.act)
        });
        let (votes, epoch) = (ledger.voters().voters().contains(&me), ledger.voters().epoch());
        let own = Own { ledger, written, suspended, held_back: held_back.clone() };
        let notes = Notes::load(&self.hosts[voter].notes).ok()?;
        match consider(&self.hosts[voter].keys, &notes, signed, &heard.signed, &own) {
            Ok(Consent::Again(approved)) => Some(approved),
            Ok(Consent::New(unstored)) => {
                self.hosts[voter].notes = unstored.bytes().to_vec();
                let notes = self.hosts[voter].notes.clone();
                let approved = unstored.stored(&notes).ok()?;
                let voter_was = Voter { votes, suspended, written, leader, now_ms, held_back };
                self.did_sign(voter, signed, heard, epoch, Some(voter_was));
                self.kept_signatures.push_back(approved.clone());
                if self.kept_signatures.len() > 64 {
                    self.kept_signatures.pop_front();
                }
                Some(approved)
            }
            Err(objection) => {
                *self.counts.withheld.entry(kind(&objection)).or_default() += 1;
                None
            }
        }
    }

    /// The links that a target may lack, as an honest bringer adds them.
    pub fn links(&mut self, epoch: u64, author: &PeerKey) -> Vec<Frame> {
        let lacks = self.fresh.voters().after(epoch).iter();
        let mut links: Vec<Frame> = lacks.cloned().map(Frame::Voters).collect();
        if self.dice.percent(40)
            && let Some(join) = self.joins.get(author).cloned()
        {
            let vouch = |v: usize| Introduction::vouch(&self.hosts[v].keys, self.ledger(v), &join);
            let vouchers = self.voters().into_iter().filter_map(vouch).collect();
            links.push(Frame::Introduction(Introduction { join, vouchers }));
        }
        links
    }

    fn bring(&mut self, journey: &Journey, heard: &Heard, got: Vec<Approved>) -> Option<Stage> {
        let approval = got.first()?.approval.clone();
        let cosignatures = got.into_iter().map(|one| one.cosignature).collect();
        let warrant = Warrant { order: journey.signed.clone(), approval, cosignatures };
        let mut frames: Vec<Vec<u8>> =
            self.links(heard.hello.epoch, &journey.signed.by).iter().map(Frame::write).collect();
        frames.push(Frame::Warrant(warrant).write());
        self.kept.push_back((journey.order.target, frames.clone()));
        if self.kept.len() > 64 {
            self.kept.pop_front();
        }
        if self.dice.percent(3) {
            return None; // lost on the way: it may come late
        }
        let came = self.hear(heard.host, heard.number, &frames);
        if let Came::Acts(receipt) | Came::Again(receipt) = came {
            if self.dice.percent(90) {
                self.write(journey.by, None, Command::Heal(healing::Entry::Receipt(receipt)));
                return self.dice.percent(3).then_some(Stage::Written); // brought once more all the same
            }
            return None;
        }
        None
    }

    /// Somebody who has kept a warrant brings it again, to whoever sits there now.
    pub fn replay(&mut self) {
        let n = self.dice.below(self.kept.len().max(1) as u64) as usize;
        let Some((target, frames)) = self.kept.get(n).cloned() else { return };
        let by = self.any();
        let Some(host) = self.answers(by, &target) else { return };
        let Some((number, ..)) = self.greet(host) else { return };
        self.counts.replayed += 1;
        self.hear(host, number, &frames);
    }
}

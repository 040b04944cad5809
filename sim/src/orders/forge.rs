//! Whoever lies: with the keys that are its own, it makes what it may not, and bends what others made.
//!
//! A liar is a member without powers, a signer whose program is careless, the leader, a leader that was, or the worst:
//! one that holds the keys of a majority of the voters. Each draws a target, makes an order, and bends one thing or
//! more of it, so that at least one check of the target, or of the honest voters that it asks, has to stop it. Where
//! a liar holds every key that is needed and bends nothing, no check can help; that is not played.

use super::journey::Heard;
use super::world::{Ill, World};
use crate::invariants::Fact;
use mesh::healing::{self, Change, Event, Pending, Policy};
use mesh::identity::Keys;
use mesh::lease::Fence;
use mesh::ledger::{Command, Entry, Revoke};
use mesh::order::{Act, BootId, Gently};
use mesh::roster::Cosignature;
use mesh::warrant::{Approval, Authority, Frame, Introduction, Order, OrderHash, Warrant};
use mesh::wire::{Label, Signed, encode, signed_bytes};

pub(super) fn cosign(keys: &Keys, approval: &[u8]) -> Cosignature {
    Cosignature { by: keys.key(), sig: keys.sign(&signed_bytes(Approval::LABEL, approval)) }
}

impl World {
    /// Somebody lies.
    pub fn attack(&mut self) {
        match self.dice.below(22) {
            0..12 => self.bent(),
            12 => self.lying_leader(),
            13 => self.twin(),
            14 => self.deposed_leader(),
            15 => self.unenrolled_signer(),
            16 => self.false_expulsion(),
            17 => self.usurper(),
            18 => self.courier(),
            19 => self.confused_signer(),
            20 => self.taken_back(),
            _ => self.false_recovery(),
        }
    }

    pub fn lie(&mut self, what: &'static str) {
        *self.counts.lies.entry(what).or_default() += 1;
        self.lately.push_back(format!("{what} at {} ms", self.now_ms));
        if self.lately.len() > 4 {
            self.lately.pop_front();
        }
    }

    pub fn an_order(&mut self, author: usize, target: usize, authority: Authority) -> Order {
        let mut order = self.order_by_hand(author, target);
        order.authority = authority;
        let leads = self.fresh.leader().map(|l| l.1).unwrap_or_default();
        (order.fence, order.force) = (leads, false);
        order.expires_ms = self.fresh.time_ms() + 60_000;
        order
    }

    /// The leader opens a case against a host that is well, orders, and asks honest voters; who agrees is enough.
    fn lying_leader(&mut self) {
        let by = self.leader;
        let Some(victim) = self.some(|h| h.up() && h.ill == Ill::Well && h.missed_by.is_empty() && !h.progress) else {
            return;
        };
        if victim == by || !self.hosts[by].up() || self.ails(victim) || self.fresh.healing().cases().next().is_some() {
            return;
        }
        self.lie("a case against the well");
        let host = self.hosts[victim].key();
        let fence = self.fence();
        // What a liar writes is no step of an honest leader.
        self.fact(Fact::Lied { about: host, ends: false });
        let change = Change { host, event: Event::Down, why: "I cannot hear it".into(), order: None };
        if !self.hosts[0].member || !self.write(by, Some(fence), Command::Heal(healing::Entry::Change(change))).is_ok()
        {
            return self.fact(Fact::Lied { about: host, ends: true });
        }
        self.now_ms += 300_000;
        let mut order = self.an_order(by, victim, Authority::Leader);
        order.act = Act::Restart(Gently { grace_ms: 500 });
        order.fence = fence;
        let signed = Signed::seal(&self.hosts[by].keys, &order);
        self.counts.forged += 1;
        self.write(by, Some(fence), Command::Heal(healing::Entry::Order(signed.clone())));
        let until_ms = self.fresh.time_ms() + 60_000;
        let pending = Pending { id: order.id, boot: order.boot, start: order.start, until_ms };
        let change = Change { host, event: Event::Ordered, why: "as I say".into(), order: Some(pending) };
        self.write(by, Some(fence), Command::Heal(healing::Entry::Change(change)));
        self.persuade(by, victim, &signed);
        // A person clears what it made up.
        let clear = healing::Clear { host: Some(host), why: "it is well".into() };
        self.write(0, None, Command::Heal(healing::Entry::Clear(clear)));
        self.fact(Fact::Lied { about: host, ends: true });
    }

    /// Asks all voters for an order, adds the liar's own signature, and brings what there is.
    fn persuade(&mut self, by: usize, target: usize, signed: &Signed) {
        let Some((number, hello_signed, hello)) = self.greet(target) else { return };
        let heard = Heard { host: target, number, signed: hello_signed, hello };
        let mut got = vec![];
        for voter in self.voters().into_iter().filter(|v| *v != by) {
            got.extend(self.ask(voter, signed, &heard));
        }
        let Ok(order) = signed.open::<Order>() else { return };
        let hello = &heard.hello;
        let epoch = self.fresh.voters().epoch();
        let over = Approval {
            mesh: order.mesh,
            order: OrderHash::of(signed),
            target: order.target,
            nonce: hello.nonce,
            boot: hello.boot,
            start: hello.start,
            epoch,
        };
        let approval = encode(&over);
        let mut cosignatures = vec![cosign(&self.hosts[by].keys, &approval)];
        // Who lies under its own order may get nothing for it. Who brings another's has its own vote to give, and one
        // voter of a majority may be a liar: the order is right if its author leads and signs as well.
        if signed.by != cosignatures[0].by {
            let (order, nonce) = (over.order, over.nonce);
            self.fact(Fact::SignedBlindly { by: cosignatures[0].by, order, nonce, epoch });
        }
        cosignatures.extend(got.into_iter().filter(|a| a.approval == approval).map(|a| a.cosignature));
        let frame = Frame::Warrant(Warrant { order: signed.clone(), approval, cosignatures }).write();
        self.hear(target, number, &[frame]);
    }

    /// The leader writes one order, and asks for signatures under another of the same id.
    fn twin(&mut self) {
        let waits = self.journeys.iter().find(|j| j.order.authority == Authority::Leader && j.by == self.leader);
        let Some((order, by)) = waits.map(|j| (j.order.clone(), j.by)) else { return };
        let Some(target) = self.host_of(&order.target) else { return };
        self.lie("a twin of what is written");
        self.counts.forged += 1;
        let grace = Gently { grace_ms: order.act.grace_ms() + 1 };
        let act = if order.act.is_reboot() { Act::Reboot(grace) } else { Act::Restart(grace) };
        let force = self.dice.percent(20);
        let signed = Signed::seal(&self.hosts[by].keys, &Order { act, force, ..order });
        self.persuade(by, target, &signed);
    }

    /// A leader that was goes on: its orders, its fence, and what it would give to whom.
    fn deposed_leader(&mut self) {
        let n = self.dice.below(self.deposed.len().max(1) as u64) as usize;
        let Some((by, fence)) = self.deposed.get(n).copied() else { return };
        let target = self.any();
        if target == by || !self.hosts[by].member {
            return;
        }
        self.lie("a leader that was");
        self.counts.forged += 1;
        let mut order = self.an_order(by, target, Authority::Leader);
        order.fence = fence;
        let signed = Signed::seal(&self.hosts[by].keys, &order);
        if !self.write(by, Some(fence), Command::Heal(healing::Entry::Order(signed.clone()))).is_ok() {
            self.counts.denied += 1;
        }
        self.persuade(by, target, &signed);
        let waits = self.fresh.builds().wanting().next().map(|build| build.id);
        let built = self.some(|h| h.up() && !h.ends.is_empty());
        if let Some((build, host)) = waits.zip(built)
            && !self.give_under(fence, by, build, host)
        {
            self.counts.denied += 1;
        }
    }

    /// A token of a signer has leaked: who has it was never enrolled, and brings itself along.
    fn unenrolled_signer(&mut self) {
        let Some(target) = self.some(|h| h.power && !h.protected && h.allow_reboot) else { return };
        let outsider = (0..self.hosts.len()).find(|h| {
            !self.hosts[*h].member
                && self.hosts[*h].seat.is_none()
                && self.hosts[*h].copy_of.is_none()
                && self.fresh.roster().revoked(&self.hosts[*h].key()).is_none()
        });
        let Some(outsider) = outsider else { return };
        let worst = self.dice.percent(50);
        // One has a real token and no voter's word; the other has the voters' word and a token of its own making.
        let inviter = if worst { self.some(|h| !h.signer) } else { self.some(|h| h.signer) };
        let Some(inviter) = inviter else { return };
        self.catch_up();
        self.lie(if worst { "a token of no signer" } else { "a token that leaked" });
        self.counts.forged += 1;
        let join = self.join_request(outsider, inviter, true);
        let message = Introduction::message(&self.fresh.mesh(), &join);
        let vouch = |v: usize| Cosignature { by: self.hosts[v].key(), sig: self.hosts[v].keys.sign(&message) };
        let vouchers = if worst { self.voters().into_iter().map(vouch).collect() } else { vec![] };
        let link = Frame::Introduction(Introduction { join, vouchers }).write();
        self.by_own_hand(outsider, target, vec![link]);
    }

    /// A person's order that is right in every way but for who that person is, after some links.
    fn by_own_hand(&mut self, by: usize, target: usize, mut frames: Vec<Vec<u8>>) {
        let mut order = self.an_order(by, target, Authority::Person);
        let Some((number, hello_signed, hello)) = self.greet(target) else { return };
        order.fence = order.fence.max(hello.highest);
        let signed = Signed::seal(&self.hosts[by].keys, &order);
        let heard = Heard { host: target, number, signed: hello_signed, hello };
        let Some(approved) = self.approve(by, &signed, &heard) else { return };
        let (approval, cosignatures) = (approved.approval, vec![approved.cosignature]);
        frames.push(Frame::Warrant(Warrant { order: signed, approval, cosignatures }).write());
        self.hear(target, number, &frames);
    }

    /// A member that is no signer says that a signer is out, to who is about to get an order of that signer.
    fn false_expulsion(&mut self) {
        let Some(liar) = self.some(|h| !h.signer) else { return };
        let Some(by) = self.some(|h| h.signer && h.up()) else { return };
        let Some(target) = self.some(|h| h.up() && !h.protected) else { return };
        self.catch_up();
        self.lie("a signer is said to be out");
        let revoke = Revoke { peer: self.hosts[by].key(), banned: true, reason: "so I say".into() };
        let request = self.request();
        let entry = Entry::seal(&self.hosts[liar].keys, self.fresh.mesh(), request, None, Command::Revoke(revoke));
        let order = self.an_order(by, target, Authority::Person);
        let order = Order { act: Act::Restart(Gently { grace_ms: 200 }), ..order };
        let signed = Signed::seal(&self.hosts[by].keys, &order);
        if !self.write(by, None, Command::Heal(healing::Entry::Order(signed.clone()))).is_ok() {
            return;
        }
        self.counts.by_hand += 1;
        let Some((number, hello_signed, hello)) = self.greet(target) else { return };
        let heard = Heard { host: target, number, signed: hello_signed, hello };
        let Some(approved) = self.approve(by, &signed, &heard) else { return };
        let (approval, cosignatures) = (approved.approval, vec![approved.cosignature]);
        let warrant = Frame::Warrant(Warrant { order: signed, approval, cosignatures }).write();
        self.hear(target, number, &[Frame::Expulsion(entry).write(), warrant]);
    }

    /// A member without powers writes what it may not, claims the highest term, and asks voters all the same.
    fn usurper(&mut self) {
        let Some(by) = self.some(|h| !h.signer && h.machine > 4) else { return };
        let target = self.any();
        if target == by {
            return;
        }
        self.lie("a member that would lead");
        self.counts.forged += 1;
        let entry = match self.dice.below(4) {
            0 => healing::Entry::Policy(Policy { storm: 10, ..*self.fresh.healing().policy() }),
            1 => healing::Entry::Clear(healing::Clear { host: None, why: "go on".into() }),
            2 => {
                let host = self.hosts[target].key();
                healing::Entry::Change(Change { host, event: Event::Down, why: "so I say".into(), order: None })
            }
            _ => {
                let order = self.an_order(by, target, Authority::Person);
                healing::Entry::Order(Signed::seal(&self.hosts[by].keys, &order))
            }
        };
        if !self.write(by, None, Command::Heal(entry)).is_ok() {
            self.counts.denied += 1;
        }
        // A leader that notes an order that nobody wrote.
        self.now_ms += 1;
        let (leader, fence) = (self.leader, self.fence());
        let spent = self.fresh.healing().cases().find(|(_, case)| case.order.is_none()).map(|(key, _)| *key);
        if let Some(host) = spent
            && self.dice.percent(50)
        {
            let (boot, start, until_ms) = (BootId([0; 16]), 1, self.fresh.time_ms() + 60_000);
            let order = Some(Pending { id: self.order_id(), boot, start, until_ms });
            let change = Change { host, event: Event::Ordered, why: "as if".into(), order };
            if !self.write(leader, Some(fence), Command::Heal(healing::Entry::Change(change))).is_ok() {
                self.counts.denied += 1;
            }
        }
        let mut order = self.an_order(by, target, Authority::Leader);
        order.fence = Fence { epoch: 0, term: u64::MAX };
        let signed = Signed::seal(&self.hosts[by].keys, &order);
        self.persuade(by, target, &signed);
    }

    /// The leader takes back an order that its target has taken on, or that is its own and on its way.
    fn taken_back(&mut self) {
        let record = self.fresh.healing();
        let waiting = record.cases().find_map(|(host, case)| Some((*host, case.order.as_ref()?.id)));
        let Some((host, id)) = waiting else { return };
        let written = record.orders().find(|w| w.order.id == id);
        let (leader, fence) = (self.leader, self.fence());
        if written.is_none_or(|w| w.receipt.is_none() && w.proof.is_none() && w.order.fence < fence) {
            return; // it may
        }
        self.lie("takes back what arrived");
        let withdraw = healing::Withdraw { host, order: id, why: "as if it never was".into() };
        if !self.write(leader, Some(fence), Command::Heal(healing::Entry::Withdraw(withdraw))).is_ok() {
            self.counts.denied += 1;
        }
    }

    /// Another voter brings the leader's order, without the leader.
    fn courier(&mut self) {
        let waits = self.journeys.iter().find(|j| j.order.authority == Authority::Leader);
        let Some((signed, target, author)) = waits.map(|j| (j.signed.clone(), j.order.target, j.by)) else { return };
        let Some(by) = self.voters().into_iter().find(|v| *v != author && self.hosts[*v].key() != target) else {
            return;
        };
        let Some(target) = self.host_of(&target) else { return };
        self.lie("another brings it");
        self.counts.forged += 1;
        self.persuade(by, target, &signed);
    }

    /// A signer that takes whoever answers for who was meant: it writes an order for one, and signs another's hello.
    fn confused_signer(&mut self) {
        let Some(by) = self.some(|h| h.signer && h.up()) else { return };
        let (meant, reached) = (self.any(), self.any());
        if meant == reached || !self.hosts[reached].power {
            return;
        }
        self.catch_up();
        self.hosts[reached].lags = false;
        self.tell_guards();
        let Some((number, _, hello)) = self.greet(reached) else { return };
        self.lie("whoever answers");
        let mut order = self.an_order(by, meant, Authority::Person);
        (order.boot, order.start) = (hello.boot, hello.start);
        order.fence = order.fence.max(hello.highest);
        let signed = Signed::seal(&self.hosts[by].keys, &order);
        if !self.write(by, None, Command::Heal(healing::Entry::Order(signed.clone()))).is_ok() {
            return;
        }
        self.counts.by_hand += 1;
        let target = if self.dice.percent(50) { order.target } else { self.hosts[reached].key() };
        let (hash, nonce, boot, start) = (OrderHash::of(&signed), hello.nonce, hello.boot, hello.start);
        let over = Approval { mesh: order.mesh, order: hash, target, nonce, boot, start, epoch: hello.epoch };
        let approval = encode(&over);
        let cosignatures = vec![cosign(&self.hosts[by].keys, &approval)];
        let frame = Frame::Warrant(Warrant { order: signed, approval, cosignatures }).write();
        self.hear(reached, number, &[frame]);
    }
}

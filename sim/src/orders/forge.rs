//! Whoever lies: with the keys that are its own, it makes what it may not, and bends what others made.
//!
//! A liar is a member without powers, a signer whose program is careless, the leader, a leader that was, or the worst:
//! one that holds the keys of a majority of the voters. Each draws a target, makes an order, and bends one thing or
//! more of it, so that at least one check of the target, or of the honest voters that it asks, has to stop it. Where
//! a liar holds every key that is needed and bends nothing, no check can help; that is not played.

use super::journey::Heard;
use super::world::{Host, Ill, World};
use crate::invariants::Fact;
use mesh::healing::{self, Change, Event, Pending, Policy};
use mesh::identity::Keys;
use mesh::lease::Fence;
use mesh::ledger::{Command, Entry, Revoke};
use mesh::limits::{GRACE_MS_MAX, NONCE_MS_MAX};
use mesh::order::{Act, BootId, Gently};
use mesh::roster::{Cosignature, MeshId};
use mesh::warrant::{Approval, Authority, Frame, Introduction, Order, OrderHash, Warrant};
use mesh::wire::{Label, Signed, encode, signed_bytes};

/// What a liar bends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Bend {
    Mesh,
    Target,
    Boot,
    Start,
    Nonce,
    Order,
    Epoch,
    Late,
    Ended,
    Silent,
    Endless,
    Vetoed,
    Fence,
    SharedId,
    Minority,
    SelfCounted,
    NotVoter,
    AuthorAbsent,
    Forged,
    Twice,
    Strangers,
    Revoked,
    OldRoster,
    Force,
    ByNobody,
    Flipped,
}

impl Bend {
    const ALL: [Bend; 26] = [
        Bend::Mesh,
        Bend::Target,
        Bend::Boot,
        Bend::Start,
        Bend::Nonce,
        Bend::Order,
        Bend::Epoch,
        Bend::Late,
        Bend::Ended,
        Bend::Silent,
        Bend::Endless,
        Bend::Vetoed,
        Bend::Fence,
        Bend::SharedId,
        Bend::Minority,
        Bend::SelfCounted,
        Bend::NotVoter,
        Bend::AuthorAbsent,
        Bend::Forged,
        Bend::Twice,
        Bend::Strangers,
        Bend::Revoked,
        Bend::OldRoster,
        Bend::Force,
        Bend::ByNobody,
        Bend::Flipped,
    ];

    const fn name(self) -> &'static str {
        match self {
            Bend::Mesh => "another mesh's",
            Bend::Target => "for another",
            Bend::Boot => "another boot",
            Bend::Start => "another start",
            Bend::Nonce => "another nonce",
            Bend::Order => "signatures of another order",
            Bend::Epoch => "another epoch",
            Bend::Late => "late",
            Bend::Ended => "ended",
            Bend::Silent => "without a reason",
            Bend::Endless => "endless grace",
            Bend::Vetoed => "against a veto",
            Bend::Fence => "a lower fence",
            Bend::SharedId => "a shared id",
            Bend::Minority => "no majority",
            Bend::SelfCounted => "the target counted",
            Bend::NotVoter => "by one that does not vote",
            Bend::AuthorAbsent => "the author absent",
            Bend::Forged => "forged signatures",
            Bend::Twice => "one that signs twice",
            Bend::Strangers => "strangers' signatures",
            Bend::Revoked => "one that is out signs",
            Bend::OldRoster => "an old roster",
            Bend::Force => "forced by a leader",
            Bend::ByNobody => "by hand of no signer",
            Bend::Flipped => "flipped bits",
        }
    }
}

fn cosign(keys: &Keys, approval: &[u8]) -> Cosignature {
    Cosignature { by: keys.key(), sig: keys.sign(&signed_bytes(Approval::LABEL, approval)) }
}

impl World {
    /// Somebody lies.
    pub fn attack(&mut self) {
        match self.dice.below(20) {
            0..12 => self.bent(),
            12 => self.lying_leader(),
            13 => self.twin(),
            14 => self.deposed_leader(),
            15 => self.unenrolled_signer(),
            16 => self.false_expulsion(),
            17 => self.usurper(),
            18 => self.courier(),
            _ => self.confused_signer(),
        }
    }

    pub fn lie(&mut self, what: &'static str) {
        *self.counts.lies.entry(what).or_default() += 1;
        self.lately.push_back(format!("{what} at {} ms", self.now_ms));
        if self.lately.len() > 4 {
            self.lately.pop_front();
        }
    }

    fn an_order(&mut self, author: usize, target: usize, authority: Authority) -> Order {
        let mut order = self.order_by_hand(author, target);
        order.authority = authority;
        let leads = self.fresh.leader().map(|l| l.1).unwrap_or_default();
        (order.fence, order.force) = (leads, false);
        order.expires_ms = self.fresh.time_ms() + 60_000;
        order
    }

    /// The worst: the keys of all voters, or of a signer, and one thing or more that is not right.
    fn bent(&mut self) {
        let mut bends = vec![Bend::ALL[self.dice.below(Bend::ALL.len() as u64) as usize]];
        while self.dice.percent(25) {
            bends.push(Bend::ALL[self.dice.below(Bend::ALL.len() as u64) as usize]);
        }
        let by_hand =
            bends.contains(&Bend::ByNobody) || (bends.iter().all(|b| !b.is_leaders()) && self.dice.percent(40));
        let has = |bend| bends.contains(&bend);

        let voters = self.voters();
        let mut target = match (has(Bend::Vetoed), has(Bend::SelfCounted)) {
            (true, _) => self.some(|h| h.up() && (h.protected || !h.allow_reboot)),
            (_, true) => self.dice.one(&voters).copied().filter(|v| self.hosts[*v].up()),
            _ => self.some(Host::up),
        };
        if has(Bend::SharedId) {
            let taken =
                self.fresh.healing().orders().filter(|w| w.receipt.is_some()).map(|w| w.order.target).next_back();
            target = taken.and_then(|key| self.host_of(&key)).filter(|h| self.hosts[*h].up());
        }
        let Some(target) = target else { return };
        // Who is right and current for this target, so that what is bent alone is wrong.
        self.catch_up();
        self.hosts[target].lags = false;
        if !has(Bend::OldRoster) {
            self.hosts[target].skew_ms = 0;
        }
        self.tell_guards();
        if !has(Bend::Vetoed) && (self.hosts[target].protected || !self.hosts[target].allow_reboot) {
            return;
        }
        let voters = self.voters();
        let others: Vec<usize> = voters.iter().copied().filter(|v| *v != target).collect();
        let leader = self.leader;
        if !voters.contains(&leader) || others.len() < 2 || leader == target {
            return;
        }
        let author = match (by_hand, has(Bend::NotVoter), has(Bend::ByNobody)) {
            (_, _, true) => self.some(|h| !h.signer),
            (true, ..) => self.some(|h| h.signer),
            (_, true, _) => self.some(|h| h.machine > 6).filter(|h| !voters.contains(h)),
            _ => Some(leader),
        };
        let Some(author) = author else { return };
        let authority = if by_hand { Authority::Person } else { Authority::Leader };
        let mut order = self.an_order(author, target, authority);
        let skew = if self.dice.percent(50) { 1 } else { -1 };
        if has(Bend::OldRoster) {
            if by_hand {
                return;
            }
            self.hosts[target].skew_ms = skew * 8 * 24 * 3_600_000;
        }
        let Some((number, _, hello)) = self.greet(target) else { return };
        if hello.highest > order.fence {
            return;
        }

        // What is bent of the order.
        if has(Bend::Mesh) {
            order.mesh = MeshId([3; 32]);
        }
        if has(Bend::Target) {
            let other = self.any();
            if other == target {
                return;
            }
            order.target = self.hosts[other].key();
        }
        if has(Bend::Boot) {
            order.boot = BootId([9; 16]);
        }
        if has(Bend::Start) {
            order.start = if self.dice.percent(50) { order.start + 1 } else { u64::MAX };
            order.act = Act::Restart(Gently { grace_ms: 10 });
        }
        if has(Bend::Ended) {
            order.expires_ms = self.fresh.time_ms() - self.dice.below(5_000);
        }
        if has(Bend::Silent) {
            [&mut order.reason, &mut order.requester][self.dice.below(2) as usize].clear();
        }
        if has(Bend::Endless) {
            order.act = Act::Reboot(Gently { grace_ms: GRACE_MS_MAX + 1 + self.dice.below(1_000) });
        }
        if has(Bend::Vetoed) {
            order.act = Act::Reboot(Gently { grace_ms: 10 });
        }
        if has(Bend::Fence) {
            match hello.highest.term.checked_sub(1) {
                Some(term) => order.fence = Fence { term, ..hello.highest },
                None => return,
            }
        }
        if has(Bend::Force) {
            if by_hand {
                return;
            }
            order.force = true;
        }
        if has(Bend::SharedId) {
            let key = self.hosts[target].key();
            let taken = self.fresh.healing().orders().rfind(|w| w.receipt.is_some() && w.order.target == key);
            let Some(taken) = taken else { return };
            let guard = mesh::warrant::Guard::load(&self.hosts[target].guard, self.fresh.mesh(), key);
            if !guard.is_ok_and(|guard| guard.receipt(&taken.hash).is_some()) {
                return; // a backup was put back since: it knows of none
            }
            order.id = taken.order.id;
        }
        self.counts.forged += 1;
        bends.iter().for_each(|bend| self.lie(bend.name()));
        let signed = Signed::seal(&self.hosts[author].keys, &order);

        // What is bent of what the signatures are over.
        let mut over = Approval {
            mesh: order.mesh,
            order: OrderHash::of(&signed),
            target: order.target,
            nonce: hello.nonce,
            boot: order.boot,
            start: if order.act.is_reboot() { hello.start } else { order.start },
            epoch: self.fresh.voters().epoch(),
        };
        if has(Bend::Nonce) {
            over.nonce[3] ^= 1;
        }
        if has(Bend::Order) {
            over.order.0[3] ^= 1;
        }
        if has(Bend::Epoch) {
            if by_hand {
                return;
            }
            over.epoch = if self.dice.percent(50) { over.epoch + 1 } else { over.epoch - 1 };
        }
        let approval = encode(&over);
        let cosignatures = self.signatures(&bends, by_hand, author, target, &approval);
        let Some(cosignatures) = cosignatures else { return };
        if has(Bend::Late) {
            self.now_ms += NONCE_MS_MAX + 1 + self.dice.below(60_000);
        }
        let mut frame = Frame::Warrant(Warrant { order: signed, approval, cosignatures }).write();
        if has(Bend::Flipped) {
            match self.dice.below(3) {
                0 => frame.truncate(self.dice.below(frame.len() as u64) as usize),
                _ => {
                    let at = self.dice.below(frame.len() as u64) as usize;
                    frame[at] ^= 1 << self.dice.below(8);
                }
            }
        }
        self.hear(target, number, &[frame]);
    }

    fn signatures(
        &mut self,
        bends: &[Bend],
        by_hand: bool,
        author: usize,
        target: usize,
        approval: &[u8],
    ) -> Option<Vec<Cosignature>> {
        let has = |bend| bends.contains(&bend);
        let voters = self.voters();
        let mut by: Vec<usize> = match by_hand {
            true => vec![author],
            false => voters.iter().copied().chain([author]).collect(),
        };
        by.sort_unstable();
        by.dedup();
        let majority = self.fresh.voters().majority();
        if has(Bend::Minority) {
            if by_hand {
                return None;
            }
            by.retain(|h| *h == author);
            by.extend(voters.iter().copied().filter(|v| *v != author).take(majority.saturating_sub(2)));
            if majority <= 2 && voters.len() <= 3 {
                by = vec![author];
            }
        }
        if has(Bend::SelfCounted) {
            if by_hand || voters.len() > 3 || !voters.contains(&target) || author == target {
                return None;
            }
            by = vec![author, target];
        }
        if has(Bend::AuthorAbsent) {
            by.retain(|h| *h != author);
        }
        let mut all: Vec<Cosignature> = by.iter().map(|h| cosign(&self.hosts[*h].keys, approval)).collect();
        if has(Bend::Forged) {
            // Its own is good, and what it needs of others it makes up, or has from elsewhere.
            let own = self.hosts[author].key();
            let old = self.kept_signatures.back().map(|a| a.cosignature.sig);
            for one in all.iter_mut().filter(|one| one.by != own || by_hand) {
                one.sig = old.unwrap_or([1; 64]);
            }
        }
        if has(Bend::Twice) {
            if by_hand {
                return None;
            }
            let own = cosign(&self.hosts[author].keys, approval);
            all = vec![own; majority.max(3)];
        }
        if has(Bend::Strangers) {
            if by_hand {
                return None;
            }
            let strangers: Vec<usize> =
                self.members().into_iter().filter(|h| !voters.contains(h) && *h != target).collect();
            if strangers.len() < 3 {
                return None;
            }
            let chosen = strangers.into_iter().take(majority.max(2)).chain([author]);
            all = chosen.map(|h| cosign(&self.hosts[h].keys, approval)).collect();
        }
        if has(Bend::Revoked) {
            // A voter that was put out is a voter until the next set: with it alone there is a majority.
            if by_hand || voters.len() < 5 {
                return None;
            }
            let out = voters.iter().copied().find(|v| *v != author && *v != target && *v != 0)?;
            let revoke = Revoke { peer: self.hosts[out].key(), banned: true, reason: "stolen".into() };
            if !self.hosts[0].member || !self.write(0, None, Command::Revoke(revoke)).is_ok() {
                return None;
            }
            let key = self.hosts[out].key();
            self.view.remove(&key);
            self.hosts[out].member = false;
            self.hosts[out].seat.take().map(|place| self.seats[place].take());
            return self.revoked_signs(author, target, out);
        }
        Some(all)
    }

    /// The target knows that it is out: heard anew, for a hello of before does not.
    fn revoked_signs(&mut self, author: usize, target: usize, out: usize) -> Option<Vec<Cosignature>> {
        self.catch_up();
        let (number, _, hello) = self.greet(target)?;
        let mut order = self.an_order(author, target, Authority::Leader);
        order.fence = order.fence.max(hello.highest);
        let signed = Signed::seal(&self.hosts[author].keys, &order);
        let (nonce, start, boot) = (hello.nonce, hello.start, hello.boot);
        let epoch = self.fresh.voters().epoch();
        let (order_hash, mesh) = (OrderHash::of(&signed), order.mesh);
        let over = Approval { mesh, order: order_hash, target: order.target, nonce, boot, start, epoch };
        let approval = encode(&over);
        let majority = self.fresh.voters().majority();
        let rest = self.voters().into_iter().filter(|v| *v != author && *v != target && *v != out).take(majority - 2);
        let by: Vec<usize> = [author, out].into_iter().chain(rest).collect();
        let cosignatures = by.into_iter().map(|h| cosign(&self.hosts[h].keys, &approval)).collect();
        let frame = Frame::Warrant(Warrant { order: signed, approval, cosignatures }).write();
        self.hear(target, number, &[frame]);
        None
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

    /// A leader that was goes on: its open orders, its fence, and policies of its own.
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

impl Bend {
    /// Whether only a leader's order has it.
    const fn is_leaders(self) -> bool {
        matches!(
            self,
            Bend::Minority
                | Bend::SelfCounted
                | Bend::NotVoter
                | Bend::Twice
                | Bend::Strangers
                | Bend::Revoked
                | Bend::OldRoster
                | Bend::Force
                | Bend::Epoch
        )
    }
}

//! The worst liar: it holds the keys of all voters, or of a signer, and bends one thing or more of an order that is right
//! otherwise.
//!
//! Each bend has to be stopped by the target's own check of it: no voter is asked. What is bent is drawn; a draw that
//! would bend nothing for this target, and so would only be an order that nobody wrote, is dropped.

use super::forge::cosign;
use super::world::{Host, World};
use mesh::lease::Fence;
use mesh::ledger::{Command, Revoke};
use mesh::limits::{GRACE_MS_MAX, NONCE_MS_MAX};
use mesh::order::{Act, BootId, Gently};
use mesh::roster::{Cosignature, MeshId};
use mesh::warrant::{Approval, Authority, Frame, OrderHash, Warrant};
use mesh::wire::{Signed, encode};

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

impl World {
    /// The worst: the keys of all voters, or of a signer, and one thing or more that is not right.
    pub fn bent(&mut self) {
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
}

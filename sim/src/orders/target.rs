//! Hearings of the machines, deeds, and what comes of them: a new start or a new boot, a receipt, a proof.

use super::count::kind;
use super::world::{Host, Ill, World};
use crate::invariants::{Deed, Fact};
use mesh::healing;
use mesh::ledger::Command;
use mesh::limits::CANARY_COUNTS_MS;
use mesh::time::Time;
use mesh::warrant::{Frame, Guard, Hearing, Hello, Known, OrderHash, OrderId, Step, Warrant};
use mesh::wire::Signed;
use std::sync::Arc;

/// Hearings of one machine at a time.
const HEARINGS_MAX: usize = 6;
/// What was wrong so shortly before is wrong still, in milliseconds.
const LATELY_MS: u64 = 30 * 60_000;
/// For how long what builds say against a host may be acted on, in milliseconds: until its leader orders, ten
/// minutes for which the order lives, and the minute by which verdicts are judged.
const EVIDENCE_MS: u64 = CANARY_COUNTS_MS + 11 * 60_000;

/// A hearing that a machine holds.
pub struct Open {
    hearing: Hearing,
    nonce: [u8; 32],
    since: Time,
    /// The life in which it was begun.
    life: (u64, u64),
    /// The machine's wall clock then: whatever is set meanwhile, a hearing goes by that.
    wall_ms: u64,
}

/// Something that a machine has taken on and does when its grace is over.
pub struct Deadline {
    pub at_ms: u64,
    host: usize,
    life: (u64, u64),
    reboot: bool,
    id: OrderId,
    proves: bool,
}

/// What came of a warrant.
#[derive(Debug)]
pub enum Came {
    /// The machine acts; its receipt.
    Acts(Signed),
    /// It has done so before; its receipt.
    Again(Signed),
    /// In words of its own.
    Refused,
    /// Nobody answered.
    Silence,
}

impl World {
    fn life(&self, host: usize) -> mesh::warrant::Host {
        let at = &self.hosts[host];
        let (boot, start, wall_ms) = (at.boot(), at.start, self.wall(host));
        mesh::warrant::Host { boot, start, protected: at.protected, allow_reboot: at.allow_reboot, wall_ms }
    }

    fn known(&self, host: usize) -> Known {
        // The daemon knows by its ledger, the guard by its file.
        match self.hosts[host].up() && host.is_multiple_of(2) {
            true => Known::of(self.ledger(host)),
            false => (*self.hosts[host].known).clone(),
        }
    }

    /// A machine is asked for a hearing.
    pub fn greet(&mut self, host: usize) -> Option<(u64, Signed, Hello)> {
        let at = &self.hosts[host];
        if !at.power || !at.member && at.copy_of.is_none() {
            return None;
        }
        let guard = Guard::load(&at.guard, self.fresh.mesh(), at.key()).ok()?;
        let mut nonce = [0; 32];
        for part in nonce.chunks_mut(8) {
            part.copy_from_slice(&self.dice.number().to_le_bytes());
        }
        let (life, since, wall_ms) = (self.life(host), self.own(host), self.wall(host));
        let (hearing, frame) = Hearing::open(&self.hosts[host].keys, &guard, self.known(host), life, nonce, since);
        let Ok(Frame::Hello(signed)) = Frame::read(&frame) else { return None };
        let hello: Hello = signed.open().ok()?;
        let name = self.hosts[host].name.clone();
        self.fact(Fact::Greeted { host: name, highest: hello.highest });
        let (number, at) = (self.number(), &mut self.hosts[host]);
        let life = (at.boots, at.start);
        at.hearings.insert(number, Open { hearing, nonce, since, life, wall_ms });
        if at.hearings.len() > HEARINGS_MAX {
            at.hearings.pop_first();
        }
        Some((number, signed, hello))
    }

    /// Frames reach a machine under a hearing.
    pub fn hear(&mut self, host: usize, number: u64, frames: &[Vec<u8>]) -> Came {
        let now = self.own(host);
        let mesh = self.fresh.mesh();
        let at = &mut self.hosts[host];
        let Some(mut open) = at.hearings.remove(&number).filter(|open| at.power && open.life == (at.boots, at.start))
        else {
            return Came::Silence;
        };
        let Ok(guard) = Guard::load(&at.guard, mesh, at.key()) else { return Came::Silence };
        for frame in frames {
            match open.hearing.receive(frame, &guard, now) {
                Ok(Step::More) => {}
                Ok(Step::Again(receipt)) => {
                    self.counts.again += 1;
                    return Came::Again(receipt);
                }
                Ok(Step::Permit(unstored)) => {
                    let at = &mut self.hosts[host];
                    if !std::mem::take(&mut at.disk_fails) {
                        at.guard = unstored.bytes().to_vec();
                    }
                    let (stored, read_back) = (at.guard == unstored.bytes(), at.guard.clone());
                    let Ok(licence) = unstored.stored(&read_back) else { return Came::Refused };
                    let Ok(Frame::Warrant(warrant)) = Frame::read(frame) else { return Came::Refused };
                    self.acts(host, &warrant, &open, now, stored);
                    return Came::Acts(licence.receipt().clone());
                }
                Err(refusal) => {
                    *self.counts.refused.entry(kind(&refusal)).or_default() += 1;
                    let host = self.hosts[host].name.clone();
                    self.fact(Fact::Refused { host, refusal: refusal.clone() });
                    if !matches!(refusal, mesh::warrant::Refusal::Link(_)) {
                        return Came::Refused;
                    }
                }
            }
        }
        self.hosts[host].hearings.insert(number, open);
        Came::Silence
    }

    fn acts(&mut self, host: usize, warrant: &Warrant, open: &Open, now: Time, stored: bool) {
        let Ok(order) = warrant.order.open::<mesh::warrant::Order>() else { return };
        // Blame has no fresh word of a host until its next canary: what it was set aside for may be over.
        let blamed = self.fresh.healing().case(&self.hosts[host].key()).is_some_and(|case| !case.down);
        let (life, ails) = (self.life(host), self.ailed_within(host, if blamed { EVIDENCE_MS } else { LATELY_MS }));
        let at = &self.hosts[host];
        let deed = Deed {
            host: at.name.clone(),
            key: at.key(),
            hash: OrderHash::of(&warrant.order),
            author: warrant.order.by,
            life: mesh::warrant::Host { wall_ms: open.wall_ms, ..life },
            nonce: Some(open.nonce),
            took_ms: now.since(open.since).as_millis() as u64,
            known: Arc::new(open.hearing.known().clone()),
            stored,
            ails,
            order,
        };
        let (id, reboot, at_ms) = (deed.order.id, deed.order.act.is_reboot(), self.now_ms + deed.order.act.grace_ms());
        let life = (at.boots, at.start);
        let proves = self.dice.percent(80);
        self.deadlines.push(Deadline { at_ms, host, life, reboot, id, proves });
        self.counts.acts += 1;
        self.fact(Fact::Carried(Box::new(deed)));
    }

    /// Whether something is truly wrong with a host, or was lately.
    pub fn ails(&self, host: usize) -> bool {
        self.ailed_within(host, LATELY_MS)
    }

    /// Whether something is wrong with it, or was within this time.
    pub fn ailed_within(&self, host: usize, ms: u64) -> bool {
        let at = &self.hosts[host];
        at.ill != Ill::Well || !at.power || (at.ailed_ms > 0 && self.now_ms < at.ailed_ms + ms)
    }

    /// The graces that are over.
    pub fn deeds_due(&mut self) {
        let now = self.now_ms;
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.deadlines).into_iter().partition(|d| d.at_ms <= now);
        self.deadlines = later;
        for Deadline { host, life, reboot, id, proves, .. } in due {
            let at = &self.hosts[host];
            if (at.boots, at.start) != life || !at.power {
                continue; // it has died of something else
            }
            self.begin_anew(host, reboot);
            if proves && self.hosts[host].member {
                let (boot, start) = (self.hosts[host].boot(), self.hosts[host].start);
                let proof = healing::Entry::Proof(healing::Proof { order: id, boot, start });
                self.write(host, None, Command::Heal(proof));
            }
        }
    }

    /// A service begins anew, perhaps with its machine; that helps in most cases.
    pub fn begin_anew(&mut self, host: usize, reboot: bool) {
        let helps = self.dice.percent(if reboot { 80 } else { 60 });
        let at: &mut Host = &mut self.hosts[host];
        at.boots += u64::from(reboot);
        at.start += 1;
        at.hearings.clear();
        if helps && at.ill != Ill::Well {
            (at.ill, at.ailed_ms) = (Ill::Well, self.now_ms);
        }
        self.refresh(host);
    }

    /// What a leader would see of a host as a builder.
    pub fn refresh(&mut self, host: usize) {
        let at = &self.hosts[host];
        let (key, up, start) = (at.key(), at.up(), at.start);
        let cloned = self.cloned(&key);
        if let Some(now) = self.view.get_mut(&key) {
            (now.alive, now.down, now.start, now.suspended) = (up, !up, start, cloned);
        }
    }

    /// Whether two machines live under a key.
    pub fn cloned(&self, key: &mesh::identity::PeerKey) -> bool {
        self.hosts.iter().any(|h| h.copy_of.is_some() && h.power && h.key() == *key)
    }
}

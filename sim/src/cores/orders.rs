//! Orders on their way: brought to a target, signed by voters, answered. The leader's own come from `heal.rs`, a person's
//! from the plan.
//!
//! Whoever brings an order asks the target for a hearing, has the voters sign order and hello (or signs as the person
//! who wrote it), and brings the warrant with the links that the target lacks. On the connection that stands, else to
//! the target's address, where its guard answers. Each voter asks its own ledger and its own view
//! ([`mesh::warrant::consider`]), and has on its disk what it signed before anybody gets it.

use super::disk::Write;
use super::host::{Env, Process};
use super::message::{Event, Message, Parcel};
use super::net::Way;
use super::submit::Asker;
use crate::invariants::{Fact, Signature, Voter};
use mesh::addresses::Source;
use mesh::healing::{self, Remark, Told};
use mesh::identity::PeerKey;
use mesh::ledger::{Command, Entry, RequestId};
use mesh::mutants::{self, Mutant};
use mesh::order::{Act, Gently};
use mesh::time::Time;
use mesh::warrant::{
    Approved, Authority, Consent, Frame, Hello, Notes, Order, OrderHash, OrderId, Own, Unstored, Warrant,
    approve_by_hand, consider,
};
use mesh::wire::Signed;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use topology::limits::PORT_DEFAULT;

/// How long an order is brought before whoever brings it gives up.
const BRING_WITHIN: Duration = Duration::from_secs(12);
/// How long the voters have.
const SIGN_WITHIN: Duration = Duration::from_secs(4);
/// How long an entry about an order waits for the ledger.
const TELL_WITHIN: Duration = Duration::from_secs(30);
/// Life of an order, in milliseconds of ledger time.
pub(super) const ORDER_MS: u64 = 60_000;

enum Stage {
    /// It was asked for a hearing.
    Greeting,
    /// Voters are asked.
    Signing { hello: Box<Hello>, waits_for: BTreeSet<PeerKey>, got: Vec<Approved>, until: Time },
    /// The warrant is under way.
    Brought,
}

struct Carry {
    signed: Signed,
    order: Order,
    until: Time,
    stage: Stage,
}

/// Orders that a process brings, and signatures that wait for its disk.
#[derive(Default)]
pub struct Orders {
    carried: BTreeMap<u64, Carry>,
    by_hand: BTreeMap<u64, Signed>,
    unsigned: Vec<(u64, PeerKey, u64, Unstored<Approved>)>,
    /// Orders of which it has told what became of them.
    pub(super) told: BTreeSet<(OrderId, bool)>,
}

impl Orders {
    /// When something is due.
    pub fn due(&self) -> Option<Time> {
        let at = |carry: &Carry| match &carry.stage {
            Stage::Signing { until, .. } => (*until).min(carry.until),
            _ => carry.until,
        };
        self.carried.values().map(at).min()
    }

    /// Orders under way.
    pub fn count(&self) -> usize {
        self.carried.len() + self.by_hand.len() + self.unsigned.len()
    }
}

impl Process {
    /// A person at this host orders a peer to restart: written first, brought when it is in the ledger.
    ///
    /// # Errors
    /// Why there is no order.
    pub fn order_by_hand(&mut self, env: &mut Env<'_>, peer: PeerKey, reboot: bool) -> Result<(), String> {
        self.ledger.roster().member(&self.me).filter(|m| m.signer).ok_or("is no signer")?;
        let fence = self.ledger.leader().ok_or("nobody leads")?.1;
        let presence = self.members.host(&peer).and_then(|h| h.presence.clone()).ok_or("nothing is known of it")?;
        let gently = Gently { grace_ms: env.cx.dice.below(1_500) };
        let order = Order {
            mesh: self.mesh,
            id: order_id(env),
            target: peer,
            boot: mesh::order::BootId(presence.boot_id),
            start: presence.start,
            act: if reboot { Act::Reboot(gently) } else { Act::Restart(gently) },
            authority: Authority::Person,
            requester: format!("owner on {}", env.m.name),
            fence,
            expires_ms: self.ledger.time_ms() + ORDER_MS,
            force: false,
            reason: "as ordered".into(),
        };
        let signed = Signed::seal(&env.m.keys, &order);
        env.cx.numbers += 1;
        let number = env.cx.numbers;
        self.orders.by_hand.insert(number, signed.clone());
        self.tell_of_order(env, healing::Entry::Order(signed), Asker::ByHand(number));
        self.settle(env);
        Ok(())
    }

    /// The ledger has answered a person's order: it is brought only when it stands there.
    pub(super) fn written_by_hand(&mut self, env: &mut Env<'_>, number: u64, written: bool) {
        let Some(signed) = self.orders.by_hand.remove(&number) else { return };
        if written {
            self.bring(env, signed);
        }
    }

    fn tell_of_order(&mut self, env: &mut Env<'_>, entry: healing::Entry, asker: Asker) {
        let request: RequestId = self.request_id(env);
        let entry = Entry::seal(&env.m.keys, self.mesh, request, None, Command::Heal(entry));
        self.submit(env, entry, TELL_WITHIN, asker);
    }

    /// Begins to bring an order that stands in the ledger.
    pub(super) fn bring(&mut self, env: &mut Env<'_>, signed: Signed) {
        let Ok(order) = signed.open::<Order>() else { return };
        env.cx.orders.brought += 1;
        env.cx.numbers += 1;
        let number = env.cx.numbers;
        let until = self.now(env) + BRING_WITHIN;
        self.orders.carried.insert(number, Carry { signed, order, until, stage: Stage::Greeting });
        self.frames_for(env, number, vec![]);
    }

    /// Whether an order is being brought.
    pub(super) fn brings(&self, id: OrderId) -> bool {
        self.orders.carried.values().any(|carry| carry.order.id == id)
    }

    /// Frames for the target: on the connection that stands, else to where it says that it is. The naive variant goes to
    /// the address that the target's traffic comes from.
    fn frames_for(&mut self, env: &mut Env<'_>, number: u64, frames: Vec<Vec<u8>>) {
        let Some(target) = self.orders.carried.get(&number).map(|carry| carry.order.target) else { return };
        let presence = self.members.host(&target).and_then(|h| h.presence.clone());
        let mut addresses = presence.map(|p| p.facts.addresses.clone()).unwrap_or_default();
        let naive = mutants::on(Mutant::IdentityByAddress);
        if naive {
            let rows = self.addresses.rows(&target, env.own());
            let seen = rows.iter().filter(|row| row.source == Source::Observed);
            addresses.splice(0..0, seen.map(|row| format!("/ip4/{}/tcp/{PORT_DEFAULT}", row.addr)));
        }
        if !frames.is_empty() {
            env.cx.keep_order(target, &frames);
        }
        let from = (self.host, self.generation);
        if target == self.me && !naive {
            let (way, back) = (Way::within(self.host), false);
            let parcel = Parcel { from, to: self.host, way, number, frames, back };
            env.cx.queue.push(env.cx.now + 100, Event::Parcel(Box::new(parcel)));
        } else if naive || !self.send(env, target, Message::Bring(number, frames.clone())) {
            env.cx.knock_at(from, &addresses, number, frames);
        }
    }

    /// The target has said something, on its own connection or from a port.
    pub(super) fn answered_by_target(&mut self, env: &mut Env<'_>, from: Option<PeerKey>, number: u64, frame: &[u8]) {
        let Some(carry) = self.orders.carried.get(&number) else { return };
        if from.is_some_and(|peer| peer != carry.order.target) {
            return;
        }
        match Frame::read(frame) {
            Ok(Frame::Hello(hello)) if matches!(carry.stage, Stage::Greeting) => self.greeted(env, number, hello),
            Ok(Frame::Receipt(receipt)) if matches!(carry.stage, Stage::Brought) => {
                self.orders.carried.remove(&number);
                self.tell_of_order(env, healing::Entry::Receipt(receipt), Asker::Nobody);
            }
            Ok(Frame::Refused(text)) if matches!(carry.stage, Stage::Brought) => {
                self.remark(env, number, Told::Refused, text);
            }
            _ => {}
        }
        self.settle(env);
    }

    fn remark(&mut self, env: &mut Env<'_>, number: u64, told: Told, text: String) {
        let Some(carry) = self.orders.carried.remove(&number) else { return };
        let (host, order) = (carry.order.target, Some(carry.order.id));
        let signer = self.ledger.roster().member(&self.me).is_some_and(|m| m.signer);
        if signer {
            let remark = Remark { host, order, told, text };
            self.tell_of_order(env, healing::Entry::Remark(remark), Asker::Nobody);
        }
    }

    fn greeted(&mut self, env: &mut Env<'_>, number: u64, signed_hello: Signed) {
        let now = self.now(env);
        let Some(carry) = self.orders.carried.get_mut(&number) else { return };
        let Ok(hello) = signed_hello.open::<Hello>() else { return };
        if carry.order.authority == Authority::Person {
            let order = carry.signed.clone();
            match approve_by_hand(&env.m.keys, &order, &signed_hello) {
                Ok(approved) => {
                    self.did_sign(env, &order, &signed_hello, hello.epoch, None);
                    self.warrant(env, number, &hello, vec![approved]);
                }
                Err(objection) => self.remark(env, number, Told::Withheld, objection.to_string()),
            }
            return;
        }
        let voters = self.ledger.voters().voters().clone();
        let order = carry.signed.clone();
        let until = now + SIGN_WITHIN;
        carry.stage = Stage::Signing { hello: Box::new(hello), waits_for: voters.clone(), got: vec![], until };
        for voter in voters {
            let pair = Box::new((order.clone(), signed_hello.clone()));
            if voter == self.me {
                self.asked_to_sign(env, voter, number, &pair);
            } else if !self.send(env, voter, Message::Sign(number, pair)) {
                self.signed_by(env, voter, number, Err("there is no way to it".into()));
            }
        }
    }

    fn did_sign(&self, env: &mut Env<'_>, signed: &Signed, hello: &Signed, epoch: u64, voter: Option<Voter>) {
        let (Ok(order), Ok(body)) = (signed.open::<Order>(), hello.open::<Hello>()) else { return };
        let (hash, author, greeter) = (OrderHash::of(signed), signed.by, hello.by);
        let signature = Signature { by: self.me, order, hash, author, greeter, hello: body, epoch, voter };
        env.cx.fact(Fact::Signed(Box::new(signature)));
    }

    /// A leader asks this voter to sign an order for a hello.
    pub(super) fn asked_to_sign(&mut self, env: &mut Env<'_>, from: PeerKey, number: u64, pair: &(Signed, Signed)) {
        let (signed, hello) = pair;
        let now_ms = self.ledger.time_ms();
        let written = self.ledger.healing().is_open(&OrderHash::of(signed), now_ms);
        let suspended = self.members.host(&self.me).is_some_and(|own| own.cloned);
        let held_back = signed.open::<Order>().ok().and_then(|order| self.objection(env, &order));
        let own = Own { ledger: &self.ledger, written, suspended, held_back: held_back.clone() };
        let Some(notes) = Notes::load(env.m.disk.notes()).ok() else { return };
        let answer = match consider(&env.m.keys, &notes, signed, hello, &own) {
            Ok(Consent::Again(approved)) => Ok(approved),
            Ok(Consent::New(unstored)) => {
                let (votes, leader) = (self.ledger.voters().voters().contains(&self.me), self.ledger.leader());
                let voter = Voter { votes, suspended, written, leader, now_ms, held_back };
                self.did_sign(env, signed, hello, self.ledger.voters().epoch(), Some(voter));
                let at = env.m.disk.write(Write::Notes(unstored.bytes().to_vec()));
                self.orders.unsigned.push((at, from, number, unstored));
                return;
            }
            Err(objection) => Err(objection.to_string()),
        };
        self.give_signature(env, from, number, answer);
    }

    fn give_signature(&mut self, env: &mut Env<'_>, to: PeerKey, number: u64, answer: Result<Approved, String>) {
        if to == self.me {
            self.signed_by(env, to, number, answer);
        } else {
            self.send(env, to, Message::Signs(number, answer));
        }
    }

    /// What this voter has signed is on its disk.
    pub(super) fn notes_synced(&mut self, env: &mut Env<'_>, written: u64) {
        let (ready, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.orders.unsigned).into_iter().partition(|(at, ..)| *at <= written);
        self.orders.unsigned = waiting;
        for (_, to, number, unstored) in ready {
            let held = env.m.disk.notes().to_vec();
            // A later signature may be on the disk already, with this one before it.
            let held = if held.len() > unstored.bytes().len() { unstored.bytes().to_vec() } else { held };
            if let Ok(approved) = unstored.stored(&held) {
                self.give_signature(env, to, number, Ok(approved));
            }
        }
    }

    /// A voter has signed, or said why not.
    pub(super) fn signed_by(
        &mut self,
        env: &mut Env<'_>,
        from: PeerKey,
        number: u64,
        answer: Result<Approved, String>,
    ) {
        let Some(carry) = self.orders.carried.get_mut(&number) else { return };
        let Stage::Signing { waits_for, got, .. } = &mut carry.stage else { return };
        if !waits_for.remove(&from) {
            return;
        }
        match answer {
            Ok(approved) if approved.cosignature.by == from => got.push(approved),
            Ok(_) => {}
            Err(text) => *env.cx.orders.withheld.entry(text).or_default() += 1,
        }
        if waits_for.is_empty() {
            self.enough(env, number);
        }
    }

    /// The warrant is made of the signatures that there are, when they can suffice.
    fn enough(&mut self, env: &mut Env<'_>, number: u64) {
        let Some(carry) = self.orders.carried.get_mut(&number) else { return };
        let Stage::Signing { hello, got, .. } = &mut carry.stage else { return };
        let (hello, got) = ((**hello).clone(), std::mem::take(got));
        let majority = self.ledger.voters().majority();
        if got.len() < majority {
            let text = format!("{} of the {majority} voters needed sign it", got.len());
            return self.remark(env, number, Told::Withheld, text);
        }
        self.warrant(env, number, &hello, got);
    }

    fn warrant(&mut self, env: &mut Env<'_>, number: u64, hello: &Hello, got: Vec<Approved>) {
        let Some(carry) = self.orders.carried.get_mut(&number) else { return };
        // Voters that were asked in different epochs sign different things: the most that agree.
        let mut alike: BTreeMap<Vec<u8>, Vec<_>> = BTreeMap::new();
        for Approved { approval, cosignature } in got {
            alike.entry(approval).or_default().push(cosignature);
        }
        let Some((approval, cosignatures)) = alike.into_iter().max_by_key(|(_, by)| by.len()) else { return };
        let warrant = Warrant { order: carry.signed.clone(), approval, cosignatures };
        carry.stage = Stage::Brought;
        let lacks = self.ledger.voters().after(hello.epoch).iter();
        let mut frames: Vec<Vec<u8>> = lacks.map(|change| Frame::Voters(change.clone()).write()).collect();
        frames.push(Frame::Warrant(warrant).write());
        self.frames_for(env, number, frames);
    }

    /// Deadlines of orders under way.
    pub(super) fn orders_due(&mut self, env: &mut Env<'_>) {
        let now = self.now(env);
        let late = |carry: &Carry| matches!(&carry.stage, Stage::Signing { until, .. } if *until <= now);
        let late: Vec<u64> = self.orders.carried.iter().filter(|(_, c)| late(c)).map(|(n, _)| *n).collect();
        for number in late {
            self.enough(env, number);
        }
        let over: Vec<u64> = self.orders.carried.iter().filter(|(_, c)| c.until <= now).map(|(n, _)| *n).collect();
        for number in over {
            self.remark(env, number, Told::Undelivered, "nothing came back from it".into());
        }
    }

    /// What this host took on and the ledger does not know, and the life that came of it.
    pub(super) fn prove_orders(&mut self, env: &mut Env<'_>) {
        let mine = self.ledger.healing().orders().filter(|w| w.order.target == self.me);
        let mesh = self.mesh;
        let guard = env.m.disk.guard().and_then(|bytes| mesh::warrant::Guard::load(bytes, mesh, self.me).ok());
        let Some(guard) = guard else { return };
        let (boot, start) = (env.m.boot(), self.start);
        let mut tell = vec![];
        for written in mine {
            let Order { id, act, .. } = &written.order;
            match (&written.receipt, guard.receipt(&written.hash)) {
                (None, Some(receipt)) if self.orders.told.insert((*id, false)) => {
                    tell.push(healing::Entry::Receipt(receipt.clone()));
                }
                (Some(_), _) if written.proof.is_none() => {
                    let again = boot != written.order.boot || (!act.is_reboot() && start > written.order.start);
                    if again && self.orders.told.insert((*id, true)) {
                        tell.push(healing::Entry::Proof(healing::Proof { order: *id, boot, start }));
                    }
                }
                _ => {}
            }
        }
        for entry in tell {
            self.tell_of_order(env, entry, Asker::Nobody);
        }
    }
}

/// A name that nobody else draws.
pub(super) fn order_id(env: &mut Env<'_>) -> OrderId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&env.cx.dice.draw().to_le_bytes());
    id[8..].copy_from_slice(&env.cx.dice.draw().to_le_bytes());
    OrderId(id)
}

impl super::Cx {
    /// Frames for whoever sits at one of these addresses: the first to which there is a way that carries them.
    pub(super) fn knock_at(&mut self, from: (usize, u64), addresses: &[String], number: u64, frames: Vec<Vec<u8>>) {
        let ways = addresses.iter().filter_map(|address| self.net.way(from.0, address));
        let Some(way) = ways.into_iter().find(|way| self.net.carries(from.0, way.to, way)) else { return };
        let at = self.now + 3 * self.net.delay(way.latency, &mut self.dice);
        let parcel = Parcel { from, to: way.to, way, number, frames, back: false };
        self.queue.push(at, Event::Parcel(Box::new(parcel)));
    }
}

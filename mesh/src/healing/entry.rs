//! Entries of healing: what leader, signers and hosts write into the ledger, and who may write what (rule 3).
//!
//! The ledger holds a [`Record`] and hands each committed entry to [`Record::apply`], with what it knows of the author
//! whose signature it has checked. An order is here before anybody signs a warrant for it, and a case is noted as
//! ordered only for an order that is here. Refusing changes nothing.
//!
//! | entry | by |
//! |---|---|
//! | [`Entry::Policy`], [`Entry::Clear`] | a signer |
//! | [`Entry::Measure`], [`Entry::Lift`] | a signer; a host for itself, but for a pause |
//! | [`Entry::Order`] | its author: the leader under its fence, or a signer |
//! | [`Entry::Change`] | the leader, but for [`Event::Cleared`] |
//! | [`Entry::Archive`] | the leader, and everybody checks it |
//! | [`Entry::Withdraw`] | a leader, of the order of one before it that nobody has taken on |
//! | [`Entry::Receipt`] | any member; the target has signed it |
//! | [`Entry::Remark`] | the leader, a signer; a host about itself |
//! | [`Entry::Proof`] | the target |
//!
//! What had an effect leaves a line in the trail ([`super::Audit`]).

use super::archive::{Archive, Part, due, part};
use super::audit::{Kind, Line, Remark};
use super::{
    Change, ChangeError, Event, Measure, MeasureError, Policy, Record, Rung, Stage, Stop, is_proof, record::acting,
};
use crate::identity::PeerKey;
use crate::lease::Fence;
use crate::limits::{ORDER_MS_MAX, ORDERS_WRITTEN_MAX, TEXT_BYTES_MAX};
use crate::mutants::{self, Mutant};
use crate::order::BootId;
use crate::roster::{MeshId, cut};
use crate::tagged;
use crate::warrant::{Authority, Order, OrderHash, OrderId, Receipt};
use crate::wire::{Signed, WireError};
use serde::{Deserialize, Serialize};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};

tagged! {
    /// What an entry of healing does.
    #[derive(Clone, PartialEq, Debug)]
    pub enum Entry {
        /// Sets the policy.
        1 => Policy(Policy),
        /// Blocks, drains or pauses for a while.
        2 => Measure(Measure),
        /// Ends that early.
        3 => Lift(Lift),
        /// Writes a signed [`Order`].
        4 => Order(Signed),
        /// Moves a case.
        5 => Change(Change),
        /// A person says that a host is well, or that healing may go on.
        6 => Clear(Clear),
        /// Brings a target's signed [`Receipt`].
        7 => Receipt(Signed),
        /// Says something that is worth keeping.
        8 => Remark(Remark),
        /// A target proves that it has done what was ordered.
        9 => Proof(Proof),
        /// The leader has the oldest lines of the trail put away.
        10 => Archive(Archive),
        /// The leader takes back an order that reached nobody before the leader that wrote it was lost.
        11 => Withdraw(Withdraw),
    }
}

/// See [`Entry::Lift`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Lift {
    /// What.
    pub stop: Stop,
    /// Of which host; `None` for a pause.
    pub host: Option<PeerKey>,
}

/// See [`Entry::Clear`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Clear {
    /// Which host's case ends; `None` to end a storm alone.
    pub host: Option<PeerKey>,
    /// Why, in words.
    pub why: String,
}

/// See [`Entry::Proof`]: the life that follows the one in which an order was taken on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Proof {
    /// The order.
    pub order: OrderId,
    /// The present boot.
    pub boot: BootId,
    /// The present start number.
    pub start: u64,
}

/// See [`Entry::Withdraw`]: the case goes back to where it stood before the order, and the order counts for nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Withdraw {
    /// Whose case waits for it.
    pub host: PeerKey,
    /// The order.
    pub order: OrderId,
    /// Why the case stands where it stood, in words.
    pub why: String,
}

/// What the ledger knows of an entry's author.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Author {
    /// Whose signature it has checked.
    pub key: PeerKey,
    /// Whether it is a signer.
    pub signer: bool,
    /// Its fence, when it leads and the entry carries that.
    pub leads: Option<Fence>,
}

/// An order that is in the ledger.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Written {
    /// Its name in signatures.
    pub hash: OrderHash,
    /// What it says.
    pub order: Order,
    /// Who wrote it.
    pub by: PeerKey,
    /// Ledger time.
    pub at_ms: u64,
    /// The target's signed word that it took it on.
    pub receipt: Option<Signed>,
    /// The target's signed word that it was done.
    #[serde(default)]
    pub proof: Option<Proof>,
}

/// Why an entry had no effect. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Denied {
    /// Not by a signer.
    #[error("only a signer may do this")]
    NotSigner,
    /// Not by the leader, or under another fence.
    #[error("only the leader may do this, under its fence")]
    NotLeader,
    /// Not somebody's own.
    #[error("an order is written by its own author")]
    NotAuthor,
    /// A measure.
    #[error("{0}")]
    Measure(#[from] MeasureError),
    /// A case.
    #[error("{0}")]
    Change(#[from] ChangeError),
    /// Encoding or signature.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// Of another mesh, for nobody, or without end.
    #[error("the order is of another mesh, its id is in use, or it does not end within the hour")]
    BadOrder,
    /// The case is to be noted as ordered, and no such order is open.
    #[error("no such order is open in the ledger")]
    NotWritten,
    /// No room.
    #[error("more than {ORDERS_WRITTEN_MAX} orders are open")]
    Full,
    /// Nothing there to end.
    #[error("there is nothing of that kind to end")]
    Nothing,
    /// A remark about somebody else, by somebody who may not.
    #[error("a host writes remarks about itself only")]
    NotOwn,
    /// No proof.
    #[error("that is the life in which the order was taken on, not the one after it")]
    NotProved,
    /// An order that may have been received, or that its own leader still carries.
    #[error("only an order that nobody has taken on is taken back, and only by a later leader than wrote it")]
    NotLost,
    /// Something else would be put away than what is due.
    #[error("that is not the part of the trail that is to be put away")]
    OtherPart,
    /// Too long.
    #[error("a remark has words, of {TEXT_BYTES_MAX} bytes at most")]
    Words,
}

/// Powers: kept, or left out by the naive variant.
fn may(holds: bool, denied: Denied) -> Result<(), Denied> {
    if holds || mutants::on(Mutant::HealByAnybody) { Ok(()) } else { Err(denied) }
}

impl Record {
    /// Applies a committed entry of a member.
    ///
    /// # Errors
    /// [`Denied`]; nothing is changed.
    pub fn apply(&mut self, entry: Entry, author: &Author, mesh: MeshId, now_ms: u64) -> Result<(), Denied> {
        let line = self.effect(entry, author, mesh, now_ms)?;
        if let Some(line) = line {
            self.audit.push(line, now_ms);
        }
        Ok(())
    }

    /// What an entry does, and the line that it leaves; none when it was there before.
    fn effect(&mut self, entry: Entry, author: &Author, mesh: MeshId, now_ms: u64) -> Result<Option<Line>, Denied> {
        let line = |kind, host, text: &str| Line::new(kind, author.key, host, text);
        match entry {
            Entry::Policy(policy) => {
                may(author.signer, Denied::NotSigner)?;
                let changes = policy.changes(self.policy());
                self.set_policy(policy)?;
                Ok(Some(line(Kind::Policy, None, &changes)))
            }
            Entry::Measure(measure) => {
                let own = measure.host == Some(author.key) && measure.stop != Stop::Pause;
                may(author.signer || own, Denied::NotSigner)?;
                let Measure { stop, host, until_ms, .. } = measure;
                let left = line(Kind::Began(stop), host, &measure.reason).until(until_ms);
                // Who put it there is who signed it.
                self.measures.put(Measure { by: author.key, ..measure }, now_ms)?;
                Ok(Some(left))
            }
            Entry::Lift(Lift { stop, host }) => {
                let own = host == Some(author.key);
                // What a signer has put on a host, the host does not lift.
                let by = self.measures.in_force(now_ms).find(|m| (m.stop, m.host) == (stop, host)).map(|m| m.by);
                may(author.signer || (own && by == Some(author.key)), Denied::NotSigner)?;
                let there = self.measures.lift(stop, host, now_ms);
                if there { Ok(Some(line(Kind::Lifted(stop), host, ""))) } else { Err(Denied::Nothing) }
            }
            Entry::Order(signed) => self.write(&signed, author, mesh, now_ms),
            Entry::Change(change) => {
                let leaders = !matches!(change.event, Event::Cleared | Event::Withdrawn);
                may(author.leads.is_some() && leaders, Denied::NotLeader)?;
                if change.event == Event::Ordered
                    && !mutants::on(Mutant::OrderedUnwritten)
                    && !self.is_ordered(&change, now_ms)
                {
                    return Err(Denied::NotWritten);
                }
                let mut left = line(Kind::Case(change.event), Some(change.host), &change.why);
                left.order = change.order.as_ref().map(|order| order.id);
                self.change(change, now_ms)?;
                Ok(Some(left))
            }
            Entry::Clear(Clear { host, why }) => {
                may(author.signer, Denied::NotSigner)?;
                let kind = match host {
                    Some(host) => {
                        self.change(Change { host, event: Event::Cleared, why: cut(&why), order: None }, now_ms)?;
                        Kind::Case(Event::Cleared)
                    }
                    None => {
                        self.resume(now_ms);
                        Kind::Resumed
                    }
                };
                Ok(Some(line(kind, host, &why)))
            }
            Entry::Receipt(signed) => {
                let receipt: Receipt = signed.open()?;
                let its = |w: &&mut Written| (w.hash, w.order.target) == (receipt.order, signed.by);
                let written = self.orders.iter_mut().find(its).ok_or(Denied::NotWritten)?;
                if written.receipt.replace(signed).is_some() {
                    return Ok(None); // brought twice
                }
                let Order { id, target, authority, act, .. } = written.order;
                if authority == Authority::Person {
                    // What a person orders counts for budget and cool-down like any other step.
                    self.step(target, if act.is_reboot() { Rung::Reboot } else { Rung::Restart }, now_ms);
                }
                Ok(Some(line(Kind::Receipt, Some(target), &act.to_string()).of(id)))
            }
            Entry::Remark(Remark { host, order, told, text }) => {
                may(author.signer || author.leads.is_some() || author.key == host, Denied::NotOwn)?;
                if !(1..=TEXT_BYTES_MAX).contains(&text.len()) {
                    return Err(Denied::Words);
                }
                let mut left = line(Kind::Told(told), Some(host), &text);
                left.order = order;
                Ok(Some(left))
            }
            Entry::Archive(archive) => {
                may(author.leads.is_some(), Denied::NotLeader)?;
                self.put_away(archive, mesh, now_ms).map(|()| None)
            }
            Entry::Withdraw(Withdraw { host, order, why }) => {
                let lost = author.leads.is_some_and(|fence| self.is_lost(&host, &order, fence));
                may(author.leads.is_some(), Denied::NotLeader)?;
                if !lost && !mutants::on(Mutant::WithdrawsWhatArrived) {
                    return Err(Denied::NotLost);
                }
                let left = line(Kind::Case(Event::Withdrawn), Some(host), &why).of(order);
                self.change(Change { host, event: Event::Withdrawn, why, order: None }, now_ms)?;
                Ok(Some(left))
            }
            Entry::Proof(proof) => {
                let its = |w: &&mut Written| (w.order.id, w.order.target) == (proof.order, author.key);
                let written = self.orders.iter_mut().find(its).ok_or(Denied::NotWritten)?;
                if written.proof.as_ref() == Some(&proof) {
                    return Ok(None);
                }
                let Order { id, boot, start, act, .. } = written.order;
                let rung = if act.is_reboot() { Rung::Reboot } else { Rung::Restart };
                if written.proof.is_some() || !is_proof(rung, (boot, start), proof.boot, proof.start) {
                    return Err(Denied::NotProved);
                }
                let text = format!("{act}: start {}, boot {:?}", proof.start, proof.boot);
                written.proof = Some(proof);
                Ok(Some(line(Kind::Proved, Some(author.key), &text).of(id)))
            }
        }
    }

    /// Puts the oldest lines away: as many as are due, and as what they are by this host's own reckoning.
    fn put_away(&mut self, archive: Archive, mesh: MeshId, now_ms: u64) -> Result<(), Denied> {
        let right = due(self, mesh, now_ms) == Some(archive) || mutants::on(Mutant::ArchiveUnchecked);
        let (part, bytes) = part(self, mesh, archive.lines).filter(|_| right).ok_or(Denied::OtherPart)?;
        self.audit.drop_oldest(archive.lines as usize);
        self.parts.push(Part { blob: archive.blob, ..part });
        self.put_away.push(bytes);
        Ok(())
    }

    fn write(&mut self, signed: &Signed, author: &Author, mesh: MeshId, now_ms: u64) -> Result<Option<Line>, Denied> {
        let order: Order = signed.open()?;
        may(signed.by == author.key, Denied::NotAuthor)?;
        match order.authority {
            Authority::Leader => may(author.leads == Some(order.fence) && !order.force, Denied::NotLeader)?,
            Authority::Person => may(author.signer, Denied::NotSigner)?,
        }
        let (hash, by) = (OrderHash::of(signed), author.key);
        if self.orders.iter().any(|w| w.hash == hash) {
            return Ok(None); // sent again, because the answer got lost
        }
        let ends = order.expires_ms > now_ms && order.expires_ms <= now_ms.saturating_add(ORDER_MS_MAX);
        if order.mesh != mesh || !ends || self.orders.iter().any(|w| w.order.id == order.id) {
            return Err(Denied::BadOrder);
        }
        // Those that have ended make room, the oldest first.
        if self.orders.len() >= ORDERS_WRITTEN_MAX {
            let ended = self.orders.iter().position(|w| w.order.expires_ms <= now_ms).ok_or(Denied::Full)?;
            self.orders.remove(ended);
        }
        let forced = if order.force { ", forced" } else { "" };
        let text = format!("{}{forced}, asked for by {}: {}", order.act, order.requester, order.reason);
        let left = Line::new(Kind::Ordered, by, Some(order.target), &text).of(order.id).until(order.expires_ms);
        self.orders.push_back(Written { hash, order, by, at_ms: now_ms, receipt: None, proof: None });
        Ok(Some(left))
    }

    /// Orders that the ledger remembers, oldest first.
    pub fn orders(&self) -> impl DoubleEndedIterator<Item = &Written> {
        self.orders.iter()
    }

    /// Whether an order is open here: in the ledger, not expired, and not taken on. For
    /// [`crate::warrant::Own::written`].
    pub fn is_open(&self, hash: &OrderHash, now_ms: u64) -> bool {
        self.orders.iter().any(|w| w.hash == *hash && w.order.expires_ms > now_ms && w.receipt.is_none())
    }

    /// Whether a case waits for this order, which nobody has taken on, and whose leader led before this fence: nobody carries
    /// it any more, and no voter signs for it.
    pub(super) fn is_lost(&self, host: &PeerKey, order: &OrderId, fence: Fence) -> bool {
        let waits = self.case(host).and_then(acting).is_some_and(|(_, pending)| pending.id == *order);
        let lost = |w: &Written| {
            (w.order.id, w.order.target) == (*order, *host)
                && w.order.authority == Authority::Leader
                && w.order.fence < fence
                && w.receipt.is_none()
                && w.proof.is_none()
        };
        waits && self.orders.iter().any(lost)
    }

    /// Whether the order that a case is to wait for is open, and is for this host, this life of it and the next rung.
    fn is_ordered(&self, change: &Change, now_ms: u64) -> bool {
        let (Some(pending), Some(Stage::On(rung, _))) = (&change.order, self.stage(&change.host).after(Event::Ordered))
        else {
            return false;
        };
        let fits = |w: &Written| {
            let Order { id, target, boot, start, act, expires_ms, .. } = &w.order;
            (id, target, boot, start) == (&pending.id, &change.host, &pending.boot, &pending.start)
                && act.is_reboot() == (rung == Rung::Reboot)
                && *expires_ms > now_ms
                && w.receipt.is_none()
        };
        self.orders.iter().any(fits)
    }
}

#[cfg(test)]
#[path = "entry_tests.rs"]
mod tests;

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
//! | [`Entry::Receipt`] | any member; the target has signed it |

use super::{Change, ChangeError, Event, Measure, MeasureError, Policy, Record, Rung, Stage, Stop};
use crate::identity::PeerKey;
use crate::lease::Fence;
use crate::limits::{ORDER_MS_MAX, ORDERS_WRITTEN_MAX};
use crate::mutants::{self, Mutant};
use crate::roster::{MeshId, cut};
use crate::tagged;
use crate::warrant::{Authority, Order, OrderHash, Receipt};
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
        match entry {
            Entry::Policy(policy) => {
                may(author.signer, Denied::NotSigner)?;
                Ok(self.set_policy(policy)?)
            }
            Entry::Measure(measure) => {
                let own = measure.host == Some(author.key) && measure.stop != Stop::Pause;
                may(author.signer || own, Denied::NotSigner)?;
                // Who put it there is who signed it.
                Ok(self.measures.put(Measure { by: author.key, ..measure }, now_ms)?)
            }
            Entry::Lift(Lift { stop, host }) => {
                let own = host == Some(author.key);
                // What a signer has put on a host, the host does not lift.
                let by = self.measures.in_force(now_ms).find(|m| (m.stop, m.host) == (stop, host)).map(|m| m.by);
                may(author.signer || (own && by == Some(author.key)), Denied::NotSigner)?;
                if self.measures.lift(stop, host, now_ms) { Ok(()) } else { Err(Denied::Nothing) }
            }
            Entry::Order(signed) => self.write(&signed, author, mesh, now_ms),
            Entry::Change(change) => {
                may(author.leads.is_some() && change.event != Event::Cleared, Denied::NotLeader)?;
                if change.event == Event::Ordered
                    && !mutants::on(Mutant::OrderedUnwritten)
                    && !self.is_ordered(&change, now_ms)
                {
                    return Err(Denied::NotWritten);
                }
                Ok(self.change(change, now_ms).map(|_| ())?)
            }
            Entry::Clear(Clear { host, why }) => {
                may(author.signer, Denied::NotSigner)?;
                match host {
                    Some(host) => {
                        self.change(Change { host, event: Event::Cleared, why: cut(&why), order: None }, now_ms)?;
                    }
                    None => self.resume(now_ms),
                }
                Ok(())
            }
            Entry::Receipt(signed) => {
                let receipt: Receipt = signed.open()?;
                let open =
                    |w: &&mut Written| (w.hash, w.order.target) == (receipt.order, signed.by) && w.receipt.is_none();
                let written = self.orders.iter_mut().find(open).ok_or(Denied::NotWritten)?;
                written.receipt = Some(signed);
                Ok(())
            }
        }
    }

    fn write(&mut self, signed: &Signed, author: &Author, mesh: MeshId, now_ms: u64) -> Result<(), Denied> {
        let order: Order = signed.open()?;
        may(signed.by == author.key, Denied::NotAuthor)?;
        match order.authority {
            Authority::Leader => may(author.leads == Some(order.fence) && !order.force, Denied::NotLeader)?,
            Authority::Person => may(author.signer, Denied::NotSigner)?,
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
        let (hash, by) = (OrderHash::of(signed), author.key);
        self.orders.push_back(Written { hash, order, by, at_ms: now_ms, receipt: None });
        Ok(())
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

//! An order: what a leader wants a host to do to itself, and the host's own decision whether it does.
//!
//! The target decides (rule 2). [`Target`] accepts only an order that names its key, its present boot, a
//! fence not lower than the highest it has stored, and a number that it has not carried out; it gives what
//! must be stored before it says yes. An order that reaches the wrong host, by an address that DHCP or a
//! hypervisor moved, does nothing there. Nothing here acts, stores or sends; and an order is signed by
//! the leader alone: it serves the simulator's cores until they carry warrants, which a majority of the voters
//! sign for a nonce of the target ([`crate::warrant`]). What an [`Act`] is and what a [`BootId`], is said here for both.

use crate::identity::{Keys, PeerKey};
use crate::lease::Fence;
use crate::limits::{ORDERS_REMEMBERED, TEXT_BYTES_MAX};
use crate::mutants::{self, Mutant};
use crate::roster::MeshId;
use crate::tagged;
use crate::wire::{Label, Signed, WireError};
use serde::{Deserialize, Serialize};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
use std::collections::VecDeque;
use std::fmt;

/// One boot of one machine's kernel, as the kernel names it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(#[serde(with = "serde_bytes")] pub [u8; 16]);

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

tagged! {
    /// What an order asks for.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum Act {
        /// Restart the machine.
        1 => Reboot(Gently),
        /// Restart the daemon's service.
        2 => Restart(Gently),
    }
}

impl Act {
    /// The grace that running builds have.
    pub fn grace_ms(&self) -> u64 {
        match self {
            Act::Reboot(gently) | Act::Restart(gently) => gently.grace_ms,
        }
    }

    /// Whether the whole machine is restarted.
    pub fn is_reboot(&self) -> bool {
        matches!(self, Act::Reboot(_))
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_reboot() { "reboot" } else { "restart of the service" })
    }
}

/// How a restart is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Gently {
    /// How long running builds may take to end, in milliseconds.
    pub grace_ms: u64,
}

/// What a host is to do to itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Order {
    /// The mesh.
    pub mesh: MeshId,
    /// Its number in the mesh; no two orders share one.
    pub number: u64,
    /// Whom it concerns: a key, never a name or an address.
    pub target: PeerKey,
    /// The boot that it is meant for: after a restart nobody wants it any more.
    pub boot: BootId,
    /// What.
    pub act: Act,
    /// The leader's.
    pub fence: Fence,
    /// Why, in words.
    pub reason: String,
}
impl Label for Order {
    const LABEL: &'static str = "mesh/order/v1";
    const MAX: usize = 4_096;
}

/// A target's signed word that it has taken an order on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct OrderReceipt {
    /// The mesh.
    pub mesh: MeshId,
    /// The order's number.
    pub number: u64,
    /// The boot in which it was taken on.
    pub boot: BootId,
    /// The order's fence.
    pub fence: Fence,
}
impl Label for OrderReceipt {
    const LABEL: &'static str = "mesh/order-receipt/v1";
    const MAX: usize = 1_024;
}

/// Why a target does nothing. All it leaves is a record.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// Encoding or signature is wrong.
    #[error("order: {0}")]
    Wire(#[from] WireError),
    /// Of another mesh.
    #[error("the order is of another mesh")]
    OtherMesh,
    /// The author does not lead, as far as this host knows.
    #[error("the order is by {0}, who does not lead under its fence")]
    NotLeader(PeerKey),
    /// It names somebody else.
    #[error("the order names {0}, not this host")]
    NotMe(PeerKey),
    /// It is meant for another boot.
    #[error("the order is for boot {named:?}, this is {present:?}")]
    OtherBoot {
        /// The order's.
        named: BootId,
        /// This one.
        present: BootId,
    },
    /// A later leader has been heard of.
    #[error("the order has fence {got}, {highest} was seen before")]
    Stale {
        /// The order's.
        got: Fence,
        /// The highest stored.
        highest: Fence,
    },
    /// Its reason is too long.
    #[error("the order's reason has more than {TEXT_BYTES_MAX} bytes")]
    TooLong,
}

/// What a target has stored.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize_tuple, Deserialize_tuple)]
pub struct Record {
    /// The highest fence seen in something verified.
    pub highest: Fence,
    /// The newest orders taken on, oldest first, each with its signed receipt. Older ones have lower numbers.
    pub taken: VecDeque<(u64, Signed)>,
    /// Orders up to this number are forgotten, and refused for it.
    pub forgotten: u64,
}

/// What comes of an order that is not refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Store [`Target::record`] to the disk, then answer with the receipt, then act.
    Act {
        /// The order.
        order: Order,
        /// The answer.
        receipt: Signed,
    },
    /// It was taken on before: answer with that receipt and do nothing.
    Again(Signed),
}

/// A host that orders may reach.
#[derive(Debug)]
pub struct Target {
    keys: Keys,
    mesh: MeshId,
    boot: BootId,
    record: Record,
}

impl Target {
    /// The target that a host is in this boot, with what it has stored.
    pub fn new(keys: Keys, mesh: MeshId, boot: BootId, record: Record) -> Target {
        Target { keys, mesh, boot, record }
    }

    /// What is to be stored.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Decides about an order. `leader` is who leads, as this host's ledger knows it.
    ///
    /// # Errors
    /// [`Refusal`]; of what is stored nothing but the highest fence changes, and that only by a genuine order of
    /// the present leader.
    pub fn receive(&mut self, signed: &Signed, leader: Option<(PeerKey, Fence)>) -> Result<Verdict, Refusal> {
        let order: Order = signed.open()?;
        if order.mesh != self.mesh {
            return Err(Refusal::OtherMesh);
        }
        if order.reason.len() > TEXT_BYTES_MAX {
            return Err(Refusal::TooLong);
        }
        let me = self.keys.key();
        if order.target != me && !mutants::on(Mutant::IdentityByAddress) {
            return Err(Refusal::NotMe(order.target));
        }
        let taken = self.record.taken.iter().find(|(number, _)| *number == order.number);
        if let Some((_, receipt)) = taken.filter(|_| !mutants::on(Mutant::OrdersNotRemembered)) {
            return Ok(Verdict::Again(receipt.clone()));
        }
        if order.boot != self.boot && !mutants::on(Mutant::IdentityByAddress) {
            return Err(Refusal::OtherBoot { named: order.boot, present: self.boot });
        }
        let highest = self.record.highest.max(leader.map(|(_, fence)| fence).unwrap_or_default());
        if !mutants::on(Mutant::NoFenceCheck) {
            if order.fence < highest || order.number <= self.record.forgotten {
                return Err(Refusal::Stale { got: order.fence, highest });
            }
            if leader != Some((signed.by, order.fence)) {
                return Err(Refusal::NotLeader(signed.by));
            }
        }
        let stored = OrderReceipt { mesh: self.mesh, number: order.number, boot: self.boot, fence: order.fence };
        let receipt = Signed::seal(&self.keys, &stored);
        self.record.highest = highest.max(order.fence);
        self.record.taken.push_back((order.number, receipt.clone()));
        if self.record.taken.len() > ORDERS_REMEMBERED
            && let Some((oldest, _)) = self.record.taken.pop_front()
        {
            self.record.forgotten = self.record.forgotten.max(oldest);
        }
        Ok(Verdict::Act { order, receipt })
    }
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;

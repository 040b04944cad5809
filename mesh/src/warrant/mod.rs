//! Warrants: an order to act on a host, with the signatures that make it one (rule 2: the target decides).
//!
//! An [`Order`] stands in the ledger before anything happens. Its target gives out a [`Hello`] with a nonce; each voter
//! checks for itself and signs order and hello ([`consider`]); the [`Warrant`] that comes of it is heard by the target
//! ([`Hearing`]), in its daemon and in its guard by this same code, with nothing but values. What it accepted is on its
//! disk before it acts: a [`Licence`] comes out of [`Unstored`] in no other way. The same order again gets the same
//! receipt. Nothing here sends, stores, acts or asks a clock. Why an order was written is [`crate::healing`]'s.
//!
//! ```text
//! bringer                       target
//!    <--------------------- Hello (nonce, boot, start, highest fence, epoch)
//!    Voters*, Introduction*, Expulsion* ->     when its roster is behind
//!    Warrant ->
//!    <--------------------- Receipt, or Refused in words
//! ```
//!
//! | who ordered | signatures over order and hello | fence |
//! |---|---|---|
//! | the leader ([`Authority::Leader`]) | its own and a majority of the voters, two of them not the target | checked, then stored |
//! | a person ([`Authority::Person`]) | the signer's own | checked, never stored: nobody has verified it |

mod cosign;
mod equivocation;
mod guard;
mod hearing;
mod known;
mod refusal;

pub use cosign::{Approved, Consent, Notes, Objection, Own, approve_by_hand, consider};
pub use equivocation::Equivocation;
pub use guard::{Guard, GuardError, NotStored, Unstored};
pub use hearing::{Hearing, Host, Licence, Step};
pub use known::{Introduction, Known, KnownError, LinkError};
pub use refusal::Refusal;

use crate::identity::{Keys, PeerKey};
use crate::lease::Fence;
use crate::limits::{REQUESTER_BYTES_MAX, TEXT_BYTES_MAX, WARRANT_FRAME_BYTES_MAX};
use crate::order::{Act, BootId};
use crate::roster::{Cosignature, MeshId, VoterChange};
use crate::tagged;
use crate::wire::{Label, Signed, WireError, decode, encode, signed_bytes};
use serde::{Deserialize, Serialize};
use serde_repr::{Deserialize_repr, Serialize_repr};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
use std::fmt;

/// Names an order: random, made by who writes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrderId(#[serde(with = "serde_bytes")] pub [u8; 16]);

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("o")?;
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
impl fmt::Debug for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The BLAKE3 of a signed order: what is co-signed and remembered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrderHash(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl OrderHash {
    /// Of this signed order.
    pub fn of(order: &Signed) -> OrderHash {
        OrderHash(*blake3::hash(&encode(order)).as_bytes())
    }
}

/// On whose judgement an order rests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize_repr, Deserialize_repr)]
#[repr(u8)]
pub enum Authority {
    /// The leader's healing; the voters have to agree.
    Leader = 0,
    /// A person at a signer.
    Person = 1,
}

/// What a host is to do to itself, signed by the leader or by a signer. An entry of the ledger before it is anything else.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Order {
    /// The mesh.
    pub mesh: MeshId,
    /// Names it; no two orders share one.
    pub id: OrderId,
    /// Whom it concerns: a key, never a name or an address.
    pub target: PeerKey,
    /// The boot that it is meant for: after a restart nobody wants it any more.
    pub boot: BootId,
    /// The start number that it is meant for, when the service is to be restarted.
    pub start: u64,
    /// What.
    pub act: Act,
    /// On whose judgement.
    pub authority: Authority,
    /// Who asked, in words: the healing, or a user at a host.
    pub requester: String,
    /// The leader's; a person's order has the highest that the target says it has seen.
    pub fence: Fence,
    /// Ledger time at which it ends, in milliseconds since 1970.
    pub expires_ms: u64,
    /// Cool-downs and budgets are overridden. A person's alone; a target's veto is overridden by nobody.
    pub force: bool,
    /// Why, in words.
    pub reason: String,
}
impl Label for Order {
    const LABEL: &'static str = "mesh/order/v2";
    const MAX: usize = 2_048;
}

impl Order {
    /// Whether its words are there and within their bounds, and its grace too.
    fn is_bounded(&self) -> bool {
        (1..=TEXT_BYTES_MAX).contains(&self.reason.len())
            && (1..=REQUESTER_BYTES_MAX).contains(&self.requester.len())
            && self.act.grace_ms() <= crate::limits::GRACE_MS_MAX
    }
}

/// "This is who I am now": a target's nonce and the life that it is good for, signed by the target.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Hello {
    /// The mesh.
    pub mesh: MeshId,
    /// Random, given out once, good for [`crate::limits::NONCE_MS_MAX`].
    #[serde(with = "serde_bytes")]
    pub nonce: [u8; 32],
    /// The present boot.
    pub boot: BootId,
    /// The present start number.
    pub start: u64,
    /// The highest fence that it has verified.
    pub highest: Fence,
    /// The epoch of the voters that it knows: later ones have to be shown to it.
    pub epoch: u64,
}
impl Label for Hello {
    const LABEL: &'static str = "mesh/target-hello/v1";
    const MAX: usize = 512;
}

/// What each co-signature of a warrant covers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Approval {
    /// The mesh.
    pub mesh: MeshId,
    /// The order, signature and all.
    pub order: OrderHash,
    /// The order's target.
    pub target: PeerKey,
    /// The target's.
    #[serde(with = "serde_bytes")]
    pub nonce: [u8; 32],
    /// The target's.
    pub boot: BootId,
    /// The target's.
    pub start: u64,
    /// Of the voters that sign.
    pub epoch: u64,
}
impl Label for Approval {
    const LABEL: &'static str = "mesh/approval/v1";
    const MAX: usize = 512;
}

impl Approval {
    /// Of this order, for this hello, by voters of this epoch.
    fn new(signed: &Signed, order: &Order, hello: &Hello, epoch: u64) -> Approval {
        let Hello { nonce, boot, start, .. } = *hello;
        Approval { mesh: order.mesh, order: OrderHash::of(signed), target: order.target, nonce, boot, start, epoch }
    }
}

/// Signs an encoded approval.
fn cosign(keys: &Keys, approval: &[u8]) -> Cosignature {
    Cosignature { by: keys.key(), sig: keys.sign(&signed_bytes(Approval::LABEL, approval)) }
}

/// Whether a co-signature is its voter's, over this encoded approval.
fn cosigned(cosignature: &Cosignature, approval: &[u8]) -> bool {
    cosignature.by.verify(&signed_bytes(Approval::LABEL, approval), &cosignature.sig).is_ok()
}

/// An order with the signatures that make it one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Warrant {
    /// The signed [`Order`].
    pub order: Signed,
    /// The encoded [`Approval`].
    #[serde(with = "serde_bytes")]
    pub approval: Vec<u8>,
    /// Over the approval.
    pub cosignatures: Vec<Cosignature>,
}

/// A target's signed word that it has taken an order on: it is stored, and acted on next.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Receipt {
    /// The mesh.
    pub mesh: MeshId,
    /// The order's name.
    pub id: OrderId,
    /// The order.
    pub order: OrderHash,
    /// The boot in which it was taken on. A reboot is proved by a later hello with another one (rule 7).
    pub boot: BootId,
    /// The start number in which it was taken on.
    pub start: u64,
}
impl Label for Receipt {
    const LABEL: &'static str = "mesh/warrant-receipt/v1";
    const MAX: usize = 512;
}

tagged! {
    /// One message between who brings a warrant and its target. Over a stream each goes with its length before it.
    #[derive(Clone, PartialEq, Debug)]
    pub enum Frame {
        /// The target's signed [`Hello`], first of all.
        1 => Hello(Signed),
        /// The next voter set.
        2 => Voters(VoterChange),
        /// A signer that the target may not know.
        3 => Introduction(Introduction),
        /// The signed entry that puts a key out.
        4 => Expulsion(Signed),
        /// The warrant, last of what is brought.
        5 => Warrant(Warrant),
        /// The target's signed [`Receipt`].
        6 => Receipt(Signed),
        /// Why the target does nothing, in words.
        7 => Refused(String),
    }
}

impl Frame {
    /// As bytes.
    pub fn write(&self) -> Vec<u8> {
        encode(self)
    }

    /// From bytes, strictly and within [`WARRANT_FRAME_BYTES_MAX`].
    ///
    /// # Errors
    /// As [`decode`].
    pub fn read(bytes: &[u8]) -> Result<Frame, WireError> {
        decode(bytes, WARRANT_FRAME_BYTES_MAX)
    }
}

#[cfg(test)]
mod attack_tests;
#[cfg(test)]
mod cosign_tests;
#[cfg(test)]
mod known_tests;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
pub(crate) mod tests;

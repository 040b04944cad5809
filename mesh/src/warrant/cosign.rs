//! A voter that is asked to sign an order checks for itself, by its own ledger and its own view.
//!
//! A leader cannot speak for the voters: what it claims is not looked at where their own state has the answer. A voter
//! signs one hello for one order, ever; who has two of its signatures for one order can prove it
//! ([`super::Equivocation`]). So what it signed is on its disk before anybody has it, and a delivery that failed is
//! tried again under a new order. Nothing here sends or stores.

use super::{Approval, Authority, Hello, Order, OrderHash, Unstored, cosign};
use crate::identity::{Keys, PeerKey};
use crate::lease::Fence;
use crate::ledger::Ledger;
use crate::limits::{COSIGNED_MAX, GUARD_BYTES_MAX, ORDER_MS_MAX};
use crate::mutants::{self, Mutant};
use crate::roster::Cosignature;
use crate::wire::{Signed, WireError, decode, encode};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};

/// What a voter knows for itself.
#[derive(Clone, Debug)]
pub struct Own<'a> {
    /// Its ledger.
    pub ledger: &'a Ledger,
    /// Whether that ledger holds this very order, by its hash, and neither an end nor a withdrawal of it.
    pub written: bool,
    /// Whether this voter's identity is suspended: two live starts of its key.
    pub suspended: bool,
    /// What its own healing says against the step now, by its own view; `None` when nothing.
    pub held_back: Option<String>,
}

/// Why a voter does not sign. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Objection {
    /// Encoding or signature of the order.
    #[error("order: {0}")]
    Order(WireError),
    /// Encoding or signature of the hello.
    #[error("the target's hello: {0}")]
    Hello(WireError),
    /// Of another mesh.
    #[error("order or hello is of another mesh")]
    OtherMesh,
    /// The hello is somebody else's.
    #[error("the hello is by {0}, who is not the order's target")]
    NotTargets(PeerKey),
    /// The target is not enrolled.
    #[error("{0} is not enrolled")]
    NotEnrolled(PeerKey),
    /// The words or the grace.
    #[error("the order has no reason, no requester, or more of one or of its grace than is allowed")]
    Unbounded,
    /// An order by hand needs nobody else's signature.
    #[error("the order is a person's: the signer signs for it, not the voters")]
    ByHand,
    /// This host may not sign.
    #[error("this host does not vote, or its identity is suspended: it signs nothing")]
    MayNot,
    /// Not in the ledger.
    #[error("the order is not open in this voter's ledger")]
    NotWritten,
    /// The author does not lead.
    #[error("the order is by {0}, who does not lead under its fence as this voter's ledger has it")]
    NotLeader(PeerKey),
    /// Ended, or without an end.
    #[error("the order has expired, or lasts for longer than orders may")]
    Expired,
    /// A leader that forces.
    #[error("only a person may force, and the order is a leader's")]
    Force,
    /// Another boot or start than the order's.
    #[error("the target has restarted since the order was written")]
    Restarted,
    /// The target would refuse.
    #[error("the target has seen fence {0}, later than the order's")]
    Stale(Fence),
    /// Own healing.
    #[error("held back here: {0}")]
    HeldBack(String),
    /// Signed for another hello before.
    #[error("this voter has signed for another hello of the target under this order: a new order is needed")]
    SignedBefore,
    /// Too many orders at once.
    #[error("this voter has signed for as many orders as it remembers, and none has expired yet")]
    Full,
}

/// What a voter has signed, each until its order expires.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize_tuple, Deserialize_tuple)]
pub struct Notes {
    signed: Vec<Note>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
struct Note {
    order: OrderHash,
    #[serde(with = "serde_bytes")]
    approval: Vec<u8>,
    expires_ms: u64,
}

impl Notes {
    /// From the voter's file.
    ///
    /// # Errors
    /// [`WireError`] when it is damaged: then the voter signs nothing until a person has looked.
    pub fn load(bytes: &[u8]) -> Result<Notes, WireError> {
        decode(bytes, GUARD_BYTES_MAX)
    }
    /// For the voter's file.
    pub fn bytes(&self) -> Vec<u8> {
        encode(self)
    }
}

/// A signature and what it is over: what a voter sends back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Approved {
    /// The encoded [`Approval`].
    #[serde(with = "serde_bytes")]
    pub approval: Vec<u8>,
    /// The voter's signature over it.
    pub cosignature: Cosignature,
}

/// A voter that signs.
#[derive(Debug)]
pub enum Consent {
    /// It signed this before; here it is again.
    Again(Approved),
    /// To be had when the notes are stored.
    New(Unstored<Approved>),
}

fn must(holds: bool, naive: Mutant, objection: Objection) -> Result<(), Objection> {
    if holds || mutants::on(naive) { Ok(()) } else { Err(objection) }
}

/// A voter's own judgement of a leader's order for a target that says hello.
///
/// # Errors
/// [`Objection`], whose text is for the leader's log and for `mesh why`.
pub fn consider(
    keys: &Keys,
    notes: &Notes,
    signed: &Signed,
    hello: &Signed,
    own: &Own<'_>,
) -> Result<Consent, Objection> {
    use Mutant::*;
    let Own { ledger, .. } = own;
    let votes = ledger.voters().voters().contains(&keys.key());
    must(votes && !own.suspended, CosignSuspended, Objection::MayNot)?;
    let (order, greeting) = opened(signed, hello)?;
    if order.mesh != ledger.mesh() {
        return Err(Objection::OtherMesh);
    }
    if order.authority == Authority::Person {
        return Err(Objection::ByHand);
    }
    if !ledger.roster().is_member(&order.target) {
        return Err(Objection::NotEnrolled(order.target));
    }
    must(own.written, CosignUnwritten, Objection::NotWritten)?;
    must(ledger.leader() == Some((signed.by, order.fence)), CosignAnyLeader, Objection::NotLeader(signed.by))?;
    let now = ledger.time_ms();
    let lives = order.expires_ms > now && order.expires_ms <= now.saturating_add(ORDER_MS_MAX);
    must(lives, CosignExpired, Objection::Expired)?;
    must(!order.force, CosignForce, Objection::Force)?;
    must(greeting.highest <= order.fence, CosignStale, Objection::Stale(greeting.highest))?;
    if let Some(why) = &own.held_back {
        must(false, CosignHeldBack, Objection::HeldBack(why.clone()))?;
    }
    let approval = encode(&Approval::new(signed, &order, &greeting, ledger.voters().epoch()));
    let approved = Approved { cosignature: cosign(keys, &approval), approval };
    let hash = OrderHash::of(signed);
    if let Some(before) = notes.signed.iter().find(|note| note.order == hash) {
        if before.approval == approved.approval {
            return Ok(Consent::Again(approved));
        }
        must(false, CosignTwice, Objection::SignedBefore)?;
    }
    let mut next = notes.clone();
    next.signed.retain(|note| note.expires_ms > now);
    if next.signed.len() >= COSIGNED_MAX {
        return Err(Objection::Full);
    }
    next.signed.push(Note { order: hash, approval: approved.approval.clone(), expires_ms: order.expires_ms });
    Ok(Consent::New(Unstored::new(next.bytes(), approved)))
}

/// A signer's own signature under its own order by hand, for a target that says hello.
///
/// # Errors
/// [`Objection`] when the hello is not the target's, or the target has restarted since.
pub fn approve_by_hand(keys: &Keys, signed: &Signed, hello: &Signed) -> Result<Approved, Objection> {
    let (order, greeting) = opened(signed, hello)?;
    if greeting.highest > order.fence {
        return Err(Objection::Stale(greeting.highest));
    }
    let approval = encode(&Approval::new(signed, &order, &greeting, greeting.epoch));
    Ok(Approved { cosignature: cosign(keys, &approval), approval })
}

/// Order and hello, when they belong together.
fn opened(signed: &Signed, hello: &Signed) -> Result<(Order, Hello), Objection> {
    let order: Order = signed.open().map_err(Objection::Order)?;
    let greeting: Hello = hello.open().map_err(Objection::Hello)?;
    let anybody = mutants::on(Mutant::IdentityByAddress);
    must(hello.by == order.target || anybody, Mutant::CosignForgedHello, Objection::NotTargets(hello.by))?;
    if greeting.mesh != order.mesh {
        return Err(Objection::OtherMesh);
    }
    if !order.is_bounded() {
        return Err(Objection::Unbounded);
    }
    let same = greeting.boot == order.boot && (greeting.start == order.start || order.act.is_reboot());
    must(same || anybody, Mutant::CosignOtherBoot, Objection::Restarted)?;
    Ok((order, greeting))
}

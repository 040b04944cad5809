//! Why a target does nothing. All that a refused warrant leaves is this, as a record.

use super::LinkError;
use crate::identity::PeerKey;
use crate::lease::Fence;
use crate::limits::{NONCE_MS_MAX, ROSTER_MS_MAX, WARRANT_LINKS_MAX};
use crate::order::BootId;
use crate::wire::WireError;

/// Why a target does nothing. Nothing of what it has stored has changed, its highest fence included.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// Too large, or not a frame.
    #[error("not a frame of a warrant: {0}")]
    Malformed(WireError),
    /// A frame that only a target sends.
    #[error("a warrant or a link was expected, not a target's own frame")]
    Unexpected,
    /// The hearing is over.
    #[error("this nonce has been used: ask the target for another")]
    Spent,
    /// A link of the roster's chain does not hold.
    #[error("the roster that was brought along: {0}")]
    Link(#[from] LinkError),
    /// More links than one hearing follows.
    #[error("more than {WARRANT_LINKS_MAX} links of the roster: let the host catch up with the ledger first")]
    TooManyLinks,
    /// The order's encoding or signature is wrong.
    #[error("order: {0}")]
    Order(WireError),
    /// The approval is not one.
    #[error("approval: {0}")]
    Approval(WireError),
    /// Of another mesh.
    #[error("the warrant is of another mesh")]
    OtherMesh,
    /// It names somebody else.
    #[error("the warrant names {0}, not this host")]
    NotMe(PeerKey),
    /// No reason or requester, one that is too long, or too long a grace.
    #[error("the order has no reason, no requester, or more of one or of its grace than is allowed")]
    Unbounded,
    /// Another order of this id was taken on.
    #[error("another order of the same id was taken on before")]
    IdShared,
    /// `protected = true`.
    #[error("this host is protected: `protected` in its own mesh.toml refuses every warrant")]
    Protected,
    /// `allow_reboot = false`.
    #[error("this host may not be rebooted: `allow_reboot` in its own mesh.toml is false")]
    RebootNotAllowed,
    /// The signatures are over another order.
    #[error("the signatures are over another order than the one that came with them")]
    OtherOrder,
    /// The signatures are over another nonce.
    #[error("the signatures are over a nonce that this host has not just given out")]
    OtherNonce,
    /// It is meant for another boot.
    #[error("the warrant is for boot {named:?}, this is {present:?}")]
    OtherBoot {
        /// The warrant's.
        named: BootId,
        /// This one.
        present: BootId,
    },
    /// It is meant for another start of the service.
    #[error("the warrant is for start {named} of the service, this is {present}")]
    OtherStart {
        /// The warrant's.
        named: u64,
        /// This one.
        present: u64,
    },
    /// The nonce is too old.
    #[error("the warrant came {took_ms} ms after its nonce, {NONCE_MS_MAX} are allowed")]
    Late {
        /// How long it took, on the target's own clock.
        took_ms: u64,
    },
    /// The order has ended.
    #[error("the order has expired")]
    Expired,
    /// A later leader has been heard of.
    #[error("the order has fence {got}, {highest} was seen before")]
    Stale {
        /// The order's.
        got: Fence,
        /// The highest that was verified.
        highest: Fence,
    },
    /// The key is out.
    #[error("{0} is out of the mesh: its signature does not count")]
    Revoked(PeerKey),
    /// Two of one voter.
    #[error("{0} signed twice: that is one signature")]
    SignedTwice(PeerKey),
    /// A co-signature of somebody else.
    #[error("{0} signed, who is neither a voter nor the order's author")]
    NotVoter(PeerKey),
    /// A co-signature that does not verify.
    #[error("the signature of {0} is not over this order and this nonce")]
    BadCosignature(PeerKey),
    /// The order's author did not sign for this nonce.
    #[error("{0} wrote the order and has not signed for this nonce")]
    AuthorAbsent(PeerKey),
    /// A leader's order under a roster that is too old.
    #[error("this host's roster is {age_ms} ms old, more than {ROSTER_MS_MAX}: a signer has to order by hand")]
    OldRoster {
        /// How old; `u64::MAX` when the host's clock is behind its own ledger.
        age_ms: u64,
    },
    /// A leader that forces.
    #[error("only a person may force, and the order is a leader's")]
    ForceByLeader,
    /// The voters are others by now, or were others then.
    #[error("the signatures are of the voters of epoch {got}, this host knows epoch {have}")]
    OtherEpoch {
        /// The epoch that the target knows.
        have: u64,
        /// The warrant's.
        got: u64,
    },
    /// The author does not vote, or somebody else leads under this fence.
    #[error("the order is by {0}, who does not lead under its fence")]
    NotLeader(PeerKey),
    /// Too few of the voters.
    #[error("signed by {valid} of the {needed} voters needed")]
    NoMajority {
        /// Distinct voters whose signatures are good.
        valid: usize,
        /// A majority.
        needed: usize,
    },
    /// Two voters besides the target.
    #[error("signed by {others} voters besides this host, two are needed: a signer has to order by hand")]
    TooFewOthers {
        /// Voters other than the target.
        others: usize,
    },
    /// An order by hand of somebody who may not.
    #[error("the order is by {0}, who is not a signer as far as this host can verify")]
    NotSigner(PeerKey),
}

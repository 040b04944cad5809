//! Proof that a voter signed two different warrants for one order.
//!
//! An honest voter signs one hello for one order ([`super::consider`]). Two signatures of one key over two different
//! approvals of one order can be made by nobody else, so the pair convinces everybody who was not there. Nothing here
//! punishes: a signer who sees it evicts.

use super::{Approval, Approved, cosigned};
use crate::identity::PeerKey;
use crate::wire::{Label, decode};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};

/// Two signatures of one voter that cannot both be honest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Equivocation {
    first: Approved,
    second: Approved,
}

impl Equivocation {
    /// The proof that these two make, if they do.
    pub fn prove(first: Approved, second: Approved) -> Option<Equivocation> {
        let proof = Equivocation { first, second };
        proof.culprit().map(|_| proof)
    }

    /// Who is convicted; `None` when it proves nothing. A proof that came from elsewhere counts only by this.
    pub fn culprit(&self) -> Option<PeerKey> {
        let open = |a: &Approved| decode::<Approval>(&a.approval, Approval::MAX).ok();
        let (first, second) = (open(&self.first)?, open(&self.second)?);
        let by = self.first.cosignature.by;
        let guilty = by == self.second.cosignature.by
            && first != second
            && (first.mesh, first.order) == (second.mesh, second.order)
            && cosigned(&self.first.cosignature, &self.first.approval)
            && cosigned(&self.second.cosignature, &self.second.approval);
        guilty.then_some(by)
    }

    /// In words.
    pub fn text(&self) -> Option<String> {
        let by = self.culprit()?;
        Some(format!("{by} signed two different warrants for one order: its key cannot be trusted; see `mesh evict`"))
    }
}

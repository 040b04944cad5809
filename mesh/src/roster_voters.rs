//! The chain of voter sets: who may vote, provable by anybody from the genesis on.
//!
//! Set n+1 is signed by a majority of set n. When that majority is lost for good, the mesh's recovery key names the
//! next set in its place ([`super::recovery`]): the only other link there is. Nothing here knows who is up.

use super::{MeshId, Recovery};
use crate::identity::{Keys, PeerKey};
use crate::limits::VOTERS_MAX;
use crate::mutants::{self, Mutant};
use crate::wire::{Label, WireError, encode, signed_bytes};
use serde::{Deserialize, Serialize};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
use std::collections::BTreeSet;

/// Who may vote from an epoch on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct VoterSet {
    /// The mesh.
    pub mesh: MeshId,
    /// One more than the set before; the genesis is epoch 0.
    pub epoch: u64,
    /// Hash of the set before; the mesh id for epoch 1.
    #[serde(with = "serde_bytes")]
    pub previous: [u8; 32],
    /// The voters, sorted.
    pub voters: Vec<PeerKey>,
}
impl Label for VoterSet {
    const LABEL: &'static str = "mesh/voters/v1";
    const MAX: usize = 1_024;
}

/// A voter set with the signatures of a majority of the set before it; or a [`Recovery`] with the recovery key's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct VoterChange {
    /// The encoded [`VoterSet`], or [`Recovery`].
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
    /// Who signed it.
    pub signatures: Vec<Cosignature>,
}

/// One voter's signature under a voter set.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Cosignature {
    /// The voter.
    pub by: PeerKey,
    /// Its signature over the label and the body.
    #[serde(with = "serde_bytes")]
    pub sig: [u8; 64],
}

impl Cosignature {
    /// Signs an encoded voter set.
    pub fn new(keys: &Keys, body: &[u8]) -> Self {
        Cosignature { by: keys.key(), sig: keys.sign(&signed_bytes(VoterSet::LABEL, body)) }
    }
}

/// Why a voter set was refused. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VoterError {
    /// Not decodable.
    #[error("voter set: {0}")]
    Wire(#[from] WireError),
    /// Not signed by the recovery key.
    #[error("the recovery record is not signed by this mesh's recovery key")]
    NotRecoveryKey,
    /// Does not follow the present set.
    #[error("voter set of epoch {got} does not follow epoch {have} of this mesh")]
    NotNext {
        /// Present epoch.
        have: u64,
        /// Offered epoch.
        got: u64,
    },
    /// Empty, even, too many, unsorted, or with somebody who is not enrolled.
    #[error("voter set is not an odd number of distinct enrolled hosts, sorted")]
    BadSet,
    /// Too few of the present voters signed.
    #[error("voter set is signed by {valid} of the {needed} voters needed")]
    NoMajority {
        /// Valid signatures of distinct present voters.
        valid: usize,
        /// Majority of the present set.
        needed: usize,
    },
}

/// The chain of voter sets from the genesis to the present one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VoterChain {
    mesh: MeshId,
    first: PeerKey,
    pub(super) epoch: u64,
    pub(super) hash: [u8; 32],
    pub(super) voters: BTreeSet<PeerKey>,
    pub(super) changes: Vec<VoterChange>,
    /// Of the genesis, which stands beside every chain: so it is not kept with it.
    #[serde(skip)]
    pub(super) recovery: Option<PeerKey>,
}

impl VoterChain {
    /// The chain at the genesis: the first host alone. Nobody can recover it before [`VoterChain::recoverable_by`].
    pub fn found(mesh: MeshId, first: PeerKey) -> Self {
        let voters = BTreeSet::from([first]);
        VoterChain { mesh, first, epoch: 0, hash: mesh.0, voters, changes: vec![], recovery: None }
    }

    /// Names the key that may recover it: the genesis' own, whoever has stored the chain.
    pub fn recoverable_by(mut self, key: PeerKey) -> Self {
        self.recovery = Some(key);
        self
    }

    /// The mesh and the first host that the chain begins with.
    pub fn founded(&self) -> (MeshId, PeerKey) {
        (self.mesh, self.first)
    }

    /// The links from the genesis to the present set, oldest first; the first gives epoch 1.
    pub fn changes(&self) -> &[VoterChange] {
        &self.changes
    }

    /// The links that somebody who stands at this epoch lacks, oldest first.
    pub fn after(&self, epoch: u64) -> &[VoterChange] {
        let known = |change: &VoterChange| self.epoch_of(change).is_ok_and(|at| at <= epoch);
        &self.changes[self.changes.partition_point(known)..]
    }

    /// The present voters.
    pub fn voters(&self) -> &BTreeSet<PeerKey> {
        &self.voters
    }

    /// The epoch of the set that a link gives, without looking at who signed it.
    ///
    /// # Errors
    /// When it is no link at all.
    pub fn epoch_of(&self, change: &VoterChange) -> Result<u64, VoterError> {
        if self.is_recovery(change) {
            return Ok(Recovery::of(change)?.voter_epoch());
        }
        Ok(crate::wire::decode::<VoterSet>(&change.body, VoterSet::MAX)?.epoch)
    }

    /// The present epoch; it only grows. Each recovery begins at a number beyond all before it.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many voters make a majority.
    pub fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// The next set, encoded, for the voters to sign.
    pub fn next(&self, voters: &BTreeSet<PeerKey>) -> Vec<u8> {
        encode(&VoterSet {
            mesh: self.mesh,
            epoch: self.epoch + 1,
            previous: self.hash,
            voters: voters.iter().copied().collect(),
        })
    }

    /// Checks a set without its signatures: what a voter does before it signs.
    ///
    /// # Errors
    /// [`VoterError`].
    pub fn check(&self, body: &[u8], is_member: impl Fn(&PeerKey) -> bool) -> Result<VoterSet, VoterError> {
        let set: VoterSet = crate::wire::decode(body, VoterSet::MAX)?;
        if set.mesh != self.mesh || set.epoch != self.epoch + 1 || set.previous != self.hash {
            return Err(VoterError::NotNext { have: self.epoch, got: set.epoch });
        }
        let sorted = set.voters.windows(2).all(|w| w[0] < w[1]);
        if !sorted
            || set.voters.len().is_multiple_of(2)
            || set.voters.len() > VOTERS_MAX
            || !set.voters.iter().all(is_member)
        {
            return Err(VoterError::BadSet);
        }
        Ok(set)
    }

    /// Takes the next set when a majority of the present one signed it, or when it is the recovery key's.
    ///
    /// # Errors
    /// [`VoterError`]; the chain is unchanged then.
    pub fn advance(&mut self, change: VoterChange, is_member: impl Fn(&PeerKey) -> bool) -> Result<(), VoterError> {
        if self.is_recovery(&change) {
            return self.recover(change, is_member);
        }
        let set = self.check(&change.body, is_member)?;
        let message = signed_bytes(VoterSet::LABEL, &change.body);
        let valid: BTreeSet<PeerKey> = change
            .signatures
            .iter()
            .filter(|s| self.voters.contains(&s.by) && s.by.verify(&message, &s.sig).is_ok())
            .map(|s| s.by)
            .collect();
        if valid.len() < self.majority() && !mutants::on(Mutant::VoterSetsUnchecked) {
            return Err(VoterError::NoMajority { valid: valid.len(), needed: self.majority() });
        }
        self.epoch = set.epoch;
        self.hash = *blake3::hash(&change.body).as_bytes();
        self.voters = set.voters.into_iter().collect();
        self.changes.push(change);
        Ok(())
    }

    /// Takes a link that somebody shows, whoever that is; one that is known already is passed over. Who was enrolled at
    /// the time cannot be told any more; who signed can.
    ///
    /// # Errors
    /// [`VoterError`]; the chain is unchanged then.
    pub fn follow(&mut self, change: VoterChange) -> Result<(), VoterError> {
        if self.epoch_of(&change)? <= self.epoch {
            return Ok(());
        }
        self.advance(change, |_| true)
    }

    /// Walks the whole chain again from the genesis. Membership at the time cannot be checked any more;
    /// signatures and links can.
    ///
    /// # Errors
    /// [`VoterError`] at the first link that does not hold.
    pub fn verify(&self) -> Result<(), VoterError> {
        let mut again = VoterChain { recovery: self.recovery, ..VoterChain::found(self.mesh, self.first) };
        for change in &self.changes {
            again.advance(change.clone(), |_| true)?;
        }
        if again != *self {
            return Err(VoterError::NotNext { have: again.epoch, got: self.epoch });
        }
        Ok(())
    }
}

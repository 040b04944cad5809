//! Recovery: what may follow when a majority of the voters is lost for good.
//!
//! Whoever holds the mesh's recovery key signs a [`Recovery`]: of the hosts that survive one, the heir, whose log is the
//! longest, goes on with exactly that log, alone at first; the others follow it, and vote again by the ordinary rules.
//! Its epoch stands before the term in every fence and begins the numbers of voter sets beyond all before it: what the
//! lost voters may still say, should they come back, is stale to whoever has heard of it. It is a link of the chain of
//! voter sets, so that anybody can verify it offline. Two records of one epoch are two meshes of one name: both are
//! genuine, and nobody can tell which was meant, so healing freezes ([`crate::ledger`]) until a third follows one of
//! them. Nothing here knows who is up; that is the word of whoever signs.

use super::{MeshId, VoterChain, VoterChange, VoterError};
use crate::identity::{Keys, PeerKey};
use crate::limits::SURVIVORS_MAX;
use crate::mutants::{self, Mutant};
use crate::roster::Cosignature;
use crate::wire::{Label, decode, encode, signed_bytes};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
use std::collections::BTreeSet;

/// Bits of a voter set's epoch that count the sets since the last recovery: more than can ever be.
const SETS_BITS: u32 = 32;

/// The word of the recovery key. Signed as the one signature of a [`VoterChange`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Recovery {
    /// The mesh.
    pub mesh: MeshId,
    /// The epoch of recovery that it begins: one more than the heir knew of.
    pub epoch: u64,
    /// Hash of the voter set that it replaces, as the heir knew it.
    #[serde(with = "serde_bytes")]
    pub previous: [u8; 32],
    /// Whose log goes on, and who alone votes at first.
    pub heir: PeerKey,
    /// Voters and signers that survive, and the heir; sorted.
    pub survivors: Vec<PeerKey>,
    /// The last batch in the heir's log.
    pub index: u64,
    /// The hash of everything up to it.
    #[serde(with = "serde_bytes")]
    pub head: [u8; 32],
}
impl Label for Recovery {
    const LABEL: &'static str = "mesh/recovery/v1";
    const MAX: usize = 1_024;
}

/// Why there is nothing to recover, or not from here.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotDrafted {
    /// The voters can go on by themselves.
    #[error("{survive} of {voters} voters survive, and {needed} decide: nothing is lost that needs a recovery")]
    Majority {
        /// Voters that survive.
        survive: usize,
        /// All voters.
        voters: usize,
        /// How many decide.
        needed: usize,
    },
    /// The heir is no member, or the epochs are used up.
    #[error("{0}")]
    Impossible(String),
}

impl Recovery {
    /// The record of a link that is one, without looking at its signature.
    ///
    /// # Errors
    /// When it is none.
    pub fn of(change: &VoterChange) -> Result<Recovery, VoterError> {
        Ok(decode(&change.body, Recovery::MAX)?)
    }

    /// Signs it: a link of the chain.
    pub fn seal(&self, recovery: &Keys) -> VoterChange {
        let body = encode(self);
        let sig = recovery.sign(&signed_bytes(Recovery::LABEL, &body));
        VoterChange { signatures: vec![Cosignature { by: recovery.key(), sig }], body }
    }

    /// Whether this link is a record by this key, whoever it is for.
    ///
    /// # Errors
    /// [`VoterError`] when it is not.
    pub fn open(change: &VoterChange, mesh: MeshId, key: &PeerKey) -> Result<Recovery, VoterError> {
        let [signature] = &change.signatures[..] else { return Err(VoterError::NotRecoveryKey) };
        let message = signed_bytes(Recovery::LABEL, &change.body);
        let signed = signature.by == *key && key.verify(&message, &signature.sig).is_ok();
        if !signed && !mutants::on(Mutant::RecoveryUnsigned) {
            return Err(VoterError::NotRecoveryKey);
        }
        let record = Recovery::of(change)?;
        match record.mesh == mesh && record.is_sound() {
            true => Ok(record),
            false => Err(VoterError::BadSet),
        }
    }

    fn is_sound(&self) -> bool {
        self.survivors.windows(2).all(|pair| pair[0] < pair[1])
            && self.survivors.contains(&self.heir)
            && self.survivors.len() <= SURVIVORS_MAX
            && (1..1 << SETS_BITS).contains(&self.epoch)
    }

    /// The epoch of the voter set that it gives.
    pub fn voter_epoch(&self) -> u64 {
        self.epoch << SETS_BITS
    }
}

impl VoterChain {
    /// How often the chain was recovered: the first part of every fence.
    pub fn recovery_epoch(&self) -> u64 {
        self.epoch >> SETS_BITS
    }

    /// Whether a link claims to be the recovery key's, and not the voters'.
    pub fn is_recovery(&self, change: &VoterChange) -> bool {
        let [signature] = &change.signatures[..] else { return false };
        Some(signature.by) == self.recovery || (mutants::on(Mutant::RecoveryUnsigned) && Recovery::of(change).is_ok())
    }

    /// What is to be signed so that `heir` goes on from here, with a log that ends with `index` and `head`. `survives`
    /// is the word of whoever asks. With `force` also when a majority of the voters is said to live: it may be up and
    /// of no use.
    ///
    /// # Errors
    /// [`NotDrafted`].
    pub fn draft(
        &self,
        heir: PeerKey,
        survivors: &BTreeSet<PeerKey>,
        (index, head): (u64, [u8; 32]),
        force: bool,
    ) -> Result<Recovery, NotDrafted> {
        let survive = self.voters.intersection(survivors).count();
        if survive >= self.majority() && !force {
            return Err(NotDrafted::Majority { survive, voters: self.voters.len(), needed: self.majority() });
        }
        let epoch = self.recovery_epoch() + 1;
        let mut named: BTreeSet<PeerKey> = self.voters.intersection(survivors).copied().collect();
        named.extend(survivors.iter().copied().take(SURVIVORS_MAX - 1 - named.len()));
        named.insert(heir);
        let survivors = named.into_iter().collect();
        let record = Recovery { mesh: self.founded().0, epoch, previous: self.hash, heir, survivors, index, head };
        match record.is_sound() {
            true => Ok(record),
            false => Err(NotDrafted::Impossible("this mesh was recovered too often".into())),
        }
    }

    /// Takes a recovery.
    pub(super) fn recover(
        &mut self,
        change: VoterChange,
        is_member: impl Fn(&PeerKey) -> bool,
    ) -> Result<(), VoterError> {
        // A naive chain takes it from whoever signed.
        let key = self.recovery.or(change.signatures.first().map(|s| s.by)).ok_or(VoterError::NotRecoveryKey)?;
        let record = Recovery::open(&change, self.founded().0, &key)?;
        if record.previous != self.hash || record.voter_epoch() <= self.epoch {
            return Err(VoterError::NotNext { have: self.epoch, got: record.voter_epoch() });
        }
        if !is_member(&record.heir) {
            return Err(VoterError::BadSet);
        }
        self.epoch = record.voter_epoch();
        self.hash = *blake3::hash(&change.body).as_bytes();
        self.voters = BTreeSet::from([record.heir]);
        self.changes.push(change);
        Ok(())
    }

    /// The last recovery of the chain.
    pub fn last_recovery(&self) -> Option<&VoterChange> {
        self.changes.iter().rev().find(|change| self.is_recovery(change))
    }
}

#[cfg(test)]
#[path = "roster_recovery_tests.rs"]
mod tests;

//! The ledger's part in a recovery: the heir's ledger as the new epoch begins with it, and the word of a second record.
//!
//! A recovery is no entry: nobody is left who could commit one. The heir applies all of its log, also what was never
//! known to be committed (a voter that is lost may have told somebody that it was), and goes on from that state; every
//! other host takes it over as a snapshot, and verifies it by the chain of voter sets. Who may sign a recovery is
//! [`crate::roster`]'s; how a log begins anew is `node::consensus`'.

use super::{Code, Ledger, Reply};
use crate::mutants::{self, Mutant};
use crate::roster::{Genesis, Recovery, VoterChange, VoterError};
use crate::wire::encode;

/// Why a recovery does not go on from this ledger. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecoverError {
    /// The record or the chain.
    #[error(transparent)]
    Record(#[from] VoterError),
    /// The record was made of another log.
    #[error("the record goes on from batch {wanted} of another log than this host's, which ends with batch {here}")]
    OtherLog {
        /// The record's.
        wanted: u64,
        /// This host's.
        here: u64,
    },
}

impl Ledger {
    /// A record that the recovery key of this mesh has signed, of whichever epoch.
    ///
    /// # Errors
    /// [`VoterError`].
    pub fn open_recovery(&self, change: &VoterChange) -> Result<Recovery, VoterError> {
        let genesis: Genesis = self.genesis.open()?;
        Recovery::open(change, self.mesh, &genesis.recovery)
    }

    /// The ledger that a recovery goes on with. This one has applied everything that its host's log holds.
    ///
    /// # Errors
    /// [`RecoverError`].
    pub fn recover(&self, change: &VoterChange) -> Result<Ledger, RecoverError> {
        let record = self.open_recovery(change)?;
        if (record.index, record.head) != (self.index, self.head) {
            return Err(RecoverError::OtherLog { wanted: record.index, here: self.index });
        }
        let mut next = self.clone();
        next.voters.advance(change.clone(), |key| self.roster.is_member(key))?;
        if !mutants::on(Mutant::RecoveryKeepsEpoch) {
            next.recovery_epoch = record.epoch;
        }
        (next.leader, next.disputed) = (None, None);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.head).update(Recovery::LABEL_BYTES).update(&change.body);
        next.head = *hasher.finalize().as_bytes();
        if !record.survivors.iter().any(|key| self.roster.member(key).is_some_and(|m| m.signer)) {
            next.roster.make_signer(&record.heir); // or nobody could ever invite or revoke again
        }
        (next.roster_changed, next.leader_changed) = (true, true);
        Ok(next)
    }

    /// Whether two records of the present epoch of recovery are known.
    pub fn disputed(&self) -> bool {
        self.disputed.is_some()
    }

    /// Whether a genuine record contends with the recovery that this ledger goes on from.
    ///
    /// # Errors
    /// When it is not genuine.
    pub fn contends(&self, change: &VoterChange) -> Result<bool, VoterError> {
        let record = self.open_recovery(change)?;
        let ours = self.voters.last_recovery();
        Ok(record.epoch == self.recovery_epoch && ours.is_some_and(|ours| ours.body != change.body))
    }

    pub(super) fn dispute(&mut self, change: VoterChange) -> Reply {
        match self.contends(&change) {
            Ok(true) => {
                self.disputed.get_or_insert(change);
                self.healing_changed = true;
                Reply::ok()
            }
            Ok(false) => Reply::refused(Code::Conflict, "the record contends with nothing here"),
            Err(error) => Reply::refused(Code::Invalid, error.to_string()),
        }
    }
}

impl Recovery {
    /// Tells its hash in the ledger's from a batch's.
    const LABEL_BYTES: &'static [u8] = b"mesh/recovered/v1";

    /// As one hash, for people to compare.
    pub fn fingerprint(&self) -> [u8; 32] {
        *blake3::hash(&encode(self)).as_bytes()
    }
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;

//! What a target knows of the roster, and how it learns more of it from whoever brings a warrant.
//!
//! A host that was away may have missed voters and signers. Whoever wants it to act brings the missing links, and each
//! is verified from what is known: voter sets by a majority of the set before, a new signer by the invitation of a known
//! one *and* by a majority of the voters, who vouch that it was redeemed (a token that leaked enrols nobody here), an
//! expulsion by the signed entry of a signer. Links make no roster younger: nobody can prove that there are no more of
//! them. Nothing here is stored; the daemon writes [`Known::bytes`] for the guard whenever the roster changes.

use crate::identity::{Keys, PeerKey};
use crate::lease::Fence;
use crate::ledger::{Command, Entry, Ledger};
use crate::limits::KNOWN_BYTES_MAX;
use crate::mutants::{self, Mutant};
use crate::roster::{
    Cosignature, Invitation, JoinRequest, MeshId, VoterChain, VoterChange, VoterError, invitation_proof, mesh_id,
};
use crate::wire::{Signed, WireError, encode, signed_bytes};
use serde::{Deserialize, Serialize};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
use std::collections::BTreeSet;

/// What a target knows of the roster.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Known {
    genesis: Signed,
    voters: VoterChain,
    signers: BTreeSet<PeerKey>,
    revoked: BTreeSet<PeerKey>,
    leader: Option<(PeerKey, Fence)>,
    as_of_ms: u64,
}

/// A signer that a target may not know: its join request, and voters that vouch for it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Introduction {
    /// The signer's signed [`JoinRequest`], with the invitation in it.
    pub join: Signed,
    /// Voters that saw it redeemed.
    pub vouchers: Vec<Cosignature>,
}

impl Introduction {
    /// What vouchers sign.
    pub fn message(mesh: &MeshId, join: &Signed) -> Vec<u8> {
        let hash = blake3::hash(&encode(join));
        signed_bytes("mesh/introduction/v1", &encode(&(mesh, serde_bytes::Bytes::new(hash.as_bytes()))))
    }

    /// A voter's word that this join request was redeemed, when its own ledger says so: because it has kept it, or, where
    /// it is older than what is kept, because the signer that came of it is there.
    pub fn vouch(keys: &Keys, ledger: &Ledger, join: &Signed) -> Option<Cosignature> {
        let same = || {
            let member = ledger.roster().member(&join.by).filter(|member| member.signer)?;
            let request: JoinRequest = join.open().ok()?;
            let same = (request.machine_id, request.store_id) == (member.machine_id, member.store_id);
            Some(same && request.invitation.by == member.invited_by)
        };
        (ledger.links().has_redeemed(join) || same() == Some(true))
            .then(|| Cosignature { by: keys.key(), sig: keys.sign(&Introduction::message(&ledger.mesh(), join)) })
    }
}

/// Why a link of the roster's chain does not hold. Nothing was learnt.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LinkError {
    /// A voter set that does not follow.
    #[error("{0}")]
    Voters(#[from] VoterError),
    /// An encoding or a signature.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// Of another mesh, or not what it should be.
    #[error("an introduction or expulsion that is none of this mesh's")]
    NotOurs,
    /// Signed by nobody who may.
    #[error("{0} is not a signer as far as this host can verify")]
    NotSigner(PeerKey),
    /// Too few vouch.
    #[error("{valid} of the {needed} voters needed vouch for the signer")]
    Unvouched {
        /// Distinct voters that do.
        valid: usize,
        /// A majority.
        needed: usize,
    },
    /// Out already.
    #[error("{0} is out of the mesh")]
    Revoked(PeerKey),
    /// The last signer stays.
    #[error("the last signer cannot be put out")]
    LastSigner,
}

/// Why stored bytes are of no use.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KnownError {
    /// Too many bytes, or no roster.
    #[error("what is stored of the roster is damaged: start the daemon, which writes it anew")]
    Damaged,
    /// Does not chain from the mesh's genesis.
    #[error("what is stored of the roster does not chain from this mesh's genesis")]
    NotOurs,
}

impl Known {
    /// What this ledger says.
    pub fn of(ledger: &Ledger) -> Known {
        Known {
            genesis: ledger.genesis().clone(),
            voters: ledger.voters().clone(),
            signers: ledger.roster().members().filter(|(_, member)| member.signer).map(|(key, _)| *key).collect(),
            revoked: ledger.roster().all_revoked().map(|(key, _)| *key).collect(),
            leader: ledger.leader(),
            as_of_ms: ledger.time_ms(),
        }
    }

    /// From the daemon's file; the chain of voters is walked again from the genesis.
    ///
    /// # Errors
    /// [`KnownError`].
    pub fn load(bytes: &[u8], mesh: MeshId) -> Result<Known, KnownError> {
        if bytes.len() > KNOWN_BYTES_MAX {
            return Err(KnownError::Damaged);
        }
        let mut known: Known = ciborium::from_reader(bytes).map_err(|_| KnownError::Damaged)?;
        let first = known.genesis.by;
        let Ok(genesis) = known.genesis.open::<crate::roster::Genesis>() else { return Err(KnownError::NotOurs) };
        known.voters = known.voters.recoverable_by(genesis.recovery);
        let ours =
            mesh_id(&known.genesis) == mesh && known.voters.founded() == (mesh, first) && known.voters.verify().is_ok();
        if ours { Ok(known) } else { Err(KnownError::NotOurs) }
    }

    /// For the daemon's file.
    pub fn bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// The mesh.
    pub fn mesh(&self) -> MeshId {
        self.voters.founded().0
    }

    /// The voters.
    pub fn voters(&self) -> &VoterChain {
        &self.voters
    }

    /// Who leads, as far as is known, and under which fence.
    pub fn leader(&self) -> Option<(PeerKey, Fence)> {
        self.leader
    }

    /// Ledger time of the roster.
    pub fn as_of_ms(&self) -> u64 {
        self.as_of_ms
    }

    /// Whether a key is a signer's.
    pub fn is_signer(&self, key: &PeerKey) -> bool {
        self.signers.contains(key) && !self.revoked.contains(key)
    }

    /// Whether a key is out.
    pub fn is_revoked(&self, key: &PeerKey) -> bool {
        self.revoked.contains(key)
    }

    /// How old the roster is by this wall clock; `u64::MAX` when the clock is more than a minute behind the ledger, and
    /// so proves nothing.
    pub fn age_ms(&self, wall_ms: u64) -> u64 {
        match wall_ms.saturating_add(crate::clock::AGREE_MS) < self.as_of_ms {
            true => u64::MAX,
            false => wall_ms.saturating_sub(self.as_of_ms),
        }
    }

    /// Follows a voter set. One that is known already is passed over.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn follow_voters(&mut self, change: VoterChange) -> Result<(), LinkError> {
        Ok(self.voters.follow(change)?)
    }

    /// Learns of a signer. One that is known already is passed over.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn introduce(&mut self, introduction: &Introduction) -> Result<(), LinkError> {
        let Introduction { join, vouchers } = introduction;
        let (mesh, joiner) = (self.mesh(), join.by);
        let request: JoinRequest = join.open()?;
        let invitation: Invitation = request.invitation.open()?;
        if request.mesh != mesh || invitation.mesh != mesh || !invitation.signer {
            return Err(LinkError::NotOurs);
        }
        invitation.key.verify(&invitation_proof(&mesh, &joiner), &request.proof)?;
        if self.is_signer(&joiner) {
            return Ok(());
        }
        if self.is_revoked(&joiner) {
            return Err(LinkError::Revoked(joiner));
        }
        let inviter = request.invitation.by;
        if !self.is_signer(&inviter) && !mutants::on(Mutant::LinkInviterUnchecked) {
            return Err(LinkError::NotSigner(inviter));
        }
        let message = Introduction::message(&mesh, join);
        let good = |v: &&Cosignature| {
            self.voters.voters().contains(&v.by) && !self.is_revoked(&v.by) && v.by.verify(&message, &v.sig).is_ok()
        };
        let valid: BTreeSet<PeerKey> = vouchers.iter().filter(good).map(|v| v.by).collect();
        if valid.len() < self.voters.majority() && !mutants::on(Mutant::LinkUnvouched) {
            return Err(LinkError::Unvouched { valid: valid.len(), needed: self.voters.majority() });
        }
        self.signers.insert(joiner);
        Ok(())
    }

    /// Learns that a key is out, from the signed entry that put it out. One that is known to be is passed over.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn expel(&mut self, signed: &Signed) -> Result<(), LinkError> {
        let entry: Entry = signed.open()?;
        let (peer, own) = match entry.command {
            Command::Revoke(revoke) => (revoke.peer, signed.by == revoke.peer),
            Command::Replace(replace) => (replace.peer, false),
            _ => return Err(LinkError::NotOurs),
        };
        if entry.mesh != self.mesh() {
            return Err(LinkError::NotOurs);
        }
        if self.is_revoked(&peer) {
            return Ok(());
        }
        let may = own || self.is_signer(&signed.by);
        if !may && !mutants::on(Mutant::LinkExpelledByAnybody) {
            return Err(LinkError::NotSigner(signed.by));
        }
        if self.is_signer(&peer) && self.signers.iter().filter(|key| self.is_signer(key)).count() == 1 {
            return Err(LinkError::LastSigner);
        }
        self.signers.remove(&peer);
        self.revoked.insert(peer);
        Ok(())
    }
}

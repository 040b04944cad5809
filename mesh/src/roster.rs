//! Who is enrolled, by whom, with which powers; who is revoked; and who may vote.
//!
//! A mesh begins with a [`Genesis`] that its first host signs; the hash of that is the mesh's id. A
//! signer's [`Invitation`] with a one-time key lets one host in, once, under one name; the ledger
//! redeems it ([`crate::ledger`]), so two members asked at the same time cannot both say yes. Voter
//! sets are chained: set n+1 is signed by a majority of set n, back to the genesis, so that anybody
//! can verify offline who may vote. Nothing here knows an address.

use crate::identity::PeerKey;
use crate::limits::*;
use crate::wire::{Label, Signed, encode, signed_bytes};
use serde::{Deserialize, Serialize};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

#[path = "roster_recovery.rs"]
mod recovery;
#[path = "roster_succession.rs"]
mod succession;
#[path = "roster_voters.rs"]
mod voters;
pub use recovery::{NotDrafted, Recovery};
pub use succession::Heir;
pub use voters::{Cosignature, VoterChain, VoterChange, VoterError, VoterSet};

/// A mesh: the BLAKE3 of its signed genesis.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MeshId(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl fmt::Display for MeshId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}
impl fmt::Debug for MeshId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex()[..12])
    }
}
impl FromStr for MeshId {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        blake3::Hash::from_hex(s).map(|h| MeshId(*h.as_bytes())).map_err(|_| format!("`{s}` is not a mesh id"))
    }
}

/// The first record of a mesh, signed by its first host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Genesis {
    /// What people call the mesh.
    pub name: String,
    /// The first host's name.
    pub host: String,
    /// The offline key that may re-found the mesh when a majority is lost for good.
    pub recovery: PeerKey,
    /// Wall clock at founding, in milliseconds since 1970: where ledger time starts.
    pub wall_ms: u64,
    /// Tells two meshes of one name, host and moment apart.
    #[serde(with = "serde_bytes")]
    pub nonce: [u8; 16],
    /// The first host's machine, hashed.
    #[serde(with = "serde_bytes")]
    pub machine_id: [u8; 32],
    /// The first host's state folder.
    #[serde(with = "serde_bytes")]
    pub store_id: [u8; 16],
}
impl Label for Genesis {
    const LABEL: &'static str = "mesh/genesis/v1";
    const MAX: usize = 1_024;
}

/// The id of the mesh that this signed genesis founds.
pub fn mesh_id(genesis: &Signed) -> MeshId {
    MeshId(*blake3::hash(&encode(genesis)).as_bytes())
}

/// Leave for one host to join, signed by a signer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Invitation {
    /// The mesh it leads into.
    pub mesh: MeshId,
    /// Public half of its one-time key; the joiner proves to hold the other.
    pub key: PeerKey,
    /// The only name it is good for.
    pub name: String,
    /// Whether the new host may enrol and revoke others.
    pub signer: bool,
    /// Ledger time at which it ends, in milliseconds since 1970.
    pub expires_ms: u64,
}
impl Label for Invitation {
    const LABEL: &'static str = "mesh/invitation/v1";
    const MAX: usize = 1_024;
}

/// A host's wish to be enrolled, signed by the host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct JoinRequest {
    /// The mesh it wants to join.
    pub mesh: MeshId,
    /// What it was given.
    pub invitation: Signed,
    /// The invitation key's signature over [`invitation_proof`].
    #[serde(with = "serde_bytes")]
    pub proof: [u8; 64],
    /// The host's machine, hashed.
    #[serde(with = "serde_bytes")]
    pub machine_id: [u8; 32],
    /// The host's state folder.
    #[serde(with = "serde_bytes")]
    pub store_id: [u8; 16],
}
impl Label for JoinRequest {
    const LABEL: &'static str = "mesh/join/v1";
    const MAX: usize = 4_096;
}

/// What an invitation's one-time key signs: this joiner, this mesh. A token overheard on the way
/// cannot be used for another key.
pub fn invitation_proof(mesh: &MeshId, joiner: &PeerKey) -> Vec<u8> {
    signed_bytes("mesh/invitation-proof/v1", &encode(&(mesh, joiner)))
}

/// A member's word that a peer was enrolled. Lets a host that is behind admit a newer one far enough
/// to catch up, no further.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Credential {
    /// The mesh.
    pub mesh: MeshId,
    /// Who was enrolled.
    pub peer: PeerKey,
    /// Under which name.
    pub name: String,
}
impl Label for Credential {
    const LABEL: &'static str = "mesh/credential/v1";
    const MAX: usize = 1_024;
}

/// An enrolled host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Its label; unique, changeable, never an identity.
    pub name: String,
    /// Whether it may enrol, revoke and order by hand.
    pub signer: bool,
    /// Which signer let it in.
    pub invited_by: PeerKey,
    /// Its machine, hashed.
    pub machine_id: [u8; 32],
    /// Its state folder.
    pub store_id: [u8; 16],
    /// Ledger time of its enrolment.
    pub since_ms: u64,
}

/// A key that is out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Revoked {
    /// The name it had.
    pub name: String,
    /// Whether it may never be invited again.
    pub banned: bool,
    /// Who revoked it.
    pub by: PeerKey,
    /// Why.
    pub reason: String,
    /// Ledger time.
    pub at_ms: u64,
}

/// Why a change of the roster was refused. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RosterError {
    /// Signature, proof or encoding is wrong.
    #[error("the invitation or its proof does not verify; ask for a new one with `mesh invite`")]
    Invalid,
    /// For another mesh.
    #[error("the invitation is for another mesh")]
    WrongMesh,
    /// Signed by somebody who is not a signer here.
    #[error("the invitation was not signed by a signer of this mesh")]
    NotSigner,
    /// Past its end.
    #[error("the invitation has expired; ask for a new one with `mesh invite`")]
    Expired,
    /// Redeemed by another key.
    #[error("the invitation was used already by another host; ask for a new one with `mesh invite`")]
    Used,
    /// The name belongs to a member.
    #[error("a host of that name is enrolled already; use another name, or `mesh evict` the old one first")]
    NameTaken,
    /// Not a DNS label.
    #[error("a host name is 1 to 63 letters, digits and dashes")]
    BadName,
    /// The key is banned.
    #[error("this key was banned from the mesh; start anew with a fresh state folder")]
    Banned,
    /// Already a member, under another name.
    #[error("this key is enrolled already under another name")]
    AlreadyMember,
    /// No such member.
    #[error("no such host is enrolled; see `mesh status`")]
    Unknown,
    /// The last signer stays.
    #[error("the last signer cannot be removed: nobody could invite or revoke any more")]
    LastSigner,
    /// The name waits for a successor.
    #[error("that name is kept for the successor of a host that was replaced, until its invitation ends")]
    NameKept,
    /// The invitation does not fit the host that is replaced.
    #[error("a successor has the name and the powers of the host that it replaces")]
    NoSuccessor,
    /// Whoever can ask for it lives.
    #[error("a host does not replace itself: `mesh leave` takes it out")]
    Itself,
    /// No room.
    #[error("the mesh has as many members, or awaits as many successors, as it can hold")]
    Full,
}

/// Who is in and who is out.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Roster {
    members: BTreeMap<PeerKey, Member>,
    revoked: BTreeMap<PeerKey, Revoked>,
    /// Invitation key -> who used it and when the invitation ends (then it may be forgotten).
    used: BTreeMap<PeerKey, (PeerKey, u64)>,
    /// Invitation key -> whose place is kept for whoever redeems it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    heirs: BTreeMap<PeerKey, Heir>,
}

impl Roster {
    /// The roster that a genesis gives: its first host, a signer.
    pub fn found(first: PeerKey, genesis: &Genesis) -> Self {
        let member = Member {
            name: genesis.host.clone(),
            signer: true,
            invited_by: first,
            machine_id: genesis.machine_id,
            store_id: genesis.store_id,
            since_ms: genesis.wall_ms,
        };
        Roster { members: BTreeMap::from([(first, member)]), ..Roster::default() }
    }

    /// An enrolled host.
    pub fn member(&self, peer: &PeerKey) -> Option<&Member> {
        self.members.get(peer)
    }

    /// Whether a peer is enrolled.
    pub fn is_member(&self, peer: &PeerKey) -> bool {
        self.members.contains_key(peer)
    }

    /// All enrolled hosts by key.
    pub fn members(&self) -> impl Iterator<Item = (&PeerKey, &Member)> {
        self.members.iter()
    }

    /// How many hosts are enrolled.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is enrolled, which no valid roster is.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Why a peer is out, if it is.
    pub fn revoked(&self, peer: &PeerKey) -> Option<&Revoked> {
        self.revoked.get(peer)
    }

    /// All revoked keys.
    pub fn all_revoked(&self) -> impl Iterator<Item = (&PeerKey, &Revoked)> {
        self.revoked.iter()
    }

    /// Whether somebody has used the invitation of this one-time key; forgotten when it has ended.
    pub fn is_redeemed(&self, invitation: &PeerKey) -> bool {
        self.used.contains_key(invitation)
    }

    /// How many members may enrol and revoke.
    pub fn signers(&self) -> usize {
        self.members.values().filter(|m| m.signer).count()
    }

    /// The member of this name, or whose peer id this is.
    pub fn find(&self, name_or_peer: &str) -> Option<PeerKey> {
        let by_name = self.members.iter().find(|(_, m)| m.name == name_or_peer).map(|(k, _)| *k);
        by_name.or_else(|| name_or_peer.parse().ok().filter(|k| self.is_member(k)))
    }

    /// Redeems an invitation. A retry by the same key changes nothing and succeeds.
    ///
    /// # Errors
    /// [`RosterError`]; the roster is unchanged then.
    pub fn enrol(&mut self, mesh: MeshId, join: &Signed, now_ms: u64) -> Result<PeerKey, RosterError> {
        let joiner = join.by;
        let request: JoinRequest = join.open().map_err(|_| RosterError::Invalid)?;
        let invitation: Invitation = request.invitation.open().map_err(|_| RosterError::Invalid)?;
        if request.mesh != mesh || invitation.mesh != mesh {
            return Err(RosterError::WrongMesh);
        }
        if invitation.key.verify(&invitation_proof(&mesh, &joiner), &request.proof).is_err() {
            return Err(RosterError::Invalid);
        }
        if let Some((user, _)) = self.used.get(&invitation.key) {
            return match *user == joiner && self.is_member(&joiner) {
                true => Ok(joiner), // a retry: the answer got lost on its way
                false => Err(RosterError::Used),
            };
        }
        if !self.member(&request.invitation.by).is_some_and(|m| m.signer) {
            return Err(RosterError::NotSigner);
        }
        if invitation.expires_ms <= now_ms || invitation.expires_ms > now_ms + INVITATION_MS_MAX {
            return Err(RosterError::Expired);
        }
        if !valid_host_name(&invitation.name) {
            return Err(RosterError::BadName);
        }
        if self.revoked.get(&joiner).is_some_and(|r| r.banned) {
            return Err(RosterError::Banned);
        }
        if self.is_member(&joiner) {
            return Err(RosterError::AlreadyMember);
        }
        if self.members.values().any(|m| m.name == invitation.name) {
            return Err(RosterError::NameTaken);
        }
        if self.kept_for_another(&invitation.name, Some(&invitation.key), now_ms) {
            return Err(RosterError::NameKept);
        }
        if self.members.len() >= MEMBERS_MAX {
            return Err(RosterError::Full);
        }
        // An invitation past its end is refused by its expiry, so its use need not be remembered longer.
        self.used.retain(|_, (_, ends)| *ends > now_ms);
        self.used.insert(invitation.key, (joiner, invitation.expires_ms));
        self.heirs.remove(&invitation.key);
        self.revoked.remove(&joiner);
        self.members.insert(
            joiner,
            Member {
                name: invitation.name,
                signer: invitation.signer,
                invited_by: request.invitation.by,
                machine_id: request.machine_id,
                store_id: request.store_id,
                since_ms: now_ms,
            },
        );
        Ok(joiner)
    }

    /// Who would be taken out, when `by` may do that: a signer, or the host itself when it leaves.
    ///
    /// # Errors
    /// [`RosterError`], as [`Roster::revoke`] would give it.
    pub fn check_revoke(&self, by: PeerKey, peer: PeerKey) -> Result<&Member, RosterError> {
        if by != peer && !self.member(&by).is_some_and(|m| m.signer) {
            return Err(RosterError::NotSigner);
        }
        let member = self.members.get(&peer).ok_or(RosterError::Unknown)?;
        if member.signer && self.signers() == 1 {
            return Err(RosterError::LastSigner);
        }
        Ok(member)
    }

    /// Takes a key out. `by` must be a signer, or the host itself when it leaves.
    ///
    /// # Errors
    /// [`RosterError`]; the roster is unchanged then.
    pub fn revoke(
        &mut self,
        by: PeerKey,
        peer: PeerKey,
        banned: bool,
        reason: &str,
        now_ms: u64,
    ) -> Result<(), RosterError> {
        let name = self.check_revoke(by, peer)?.name.clone();
        self.members.remove(&peer);
        self.revoked.insert(peer, Revoked { name, banned, by, reason: cut(reason), at_ms: now_ms });
        Ok(())
    }
}

/// A DNS label: letters, digits and dashes, 1 to 63 of them, no dash at either end.
pub fn valid_host_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// A person's text within its bound.
pub fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
#[path = "roster_tests.rs"]
mod tests;

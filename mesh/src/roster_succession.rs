//! Another label for a host, and another host for a lost one.
//!
//! A name is a label: renaming moves nothing but the label, the key stays. A replacement takes a key out and lets a
//! successor of the same name and powers in, once, by an invitation that the ledger knows of: until that ends the
//! name is kept for it, so that the place of a lost host is not taken meanwhile. Nothing here knows whether a host
//! lives; the driver asks before, and the ledger looks after voters and builds ([`crate::ledger`]).

use super::{Invitation, Revoked, Roster, RosterError, cut, valid_host_name};
use crate::identity::PeerKey;
use crate::limits::{INVITATION_MS_MAX, SUCCESSORS_MAX};
use crate::roster::MeshId;
use crate::wire::Signed;
use serde::{Deserialize, Serialize};

/// A place that is kept for the successor of a host that was replaced.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Heir {
    /// The name that is kept.
    pub name: String,
    /// Whose place it is.
    pub of: PeerKey,
    /// Who invited.
    pub by: PeerKey,
    /// Ledger time at which the invitation ends, and the name is free again.
    pub expires_ms: u64,
}

impl Roster {
    /// Successors that are awaited, by the keys of their invitations.
    pub fn heirs(&self, now_ms: u64) -> impl Iterator<Item = (&PeerKey, &Heir)> {
        self.heirs.iter().filter(move |(_, heir)| heir.expires_ms > now_ms)
    }

    /// Whether a name is kept for somebody else than the holder of this invitation.
    pub(super) fn kept_for_another(&self, name: &str, invitation: Option<&PeerKey>, now_ms: u64) -> bool {
        self.heirs(now_ms).any(|(key, heir)| heir.name == name && Some(key) != invitation)
    }

    fn check_signer(&self, by: &PeerKey) -> Result<(), RosterError> {
        if self.member(by).is_some_and(|m| m.signer) { Ok(()) } else { Err(RosterError::NotSigner) }
    }

    /// Lets a member invite and revoke: what a recovery does where no signer survives.
    pub(crate) fn make_signer(&mut self, peer: &PeerKey) {
        if let Some(member) = self.members.get_mut(peer) {
            member.signer = true;
        }
    }

    /// Gives a host another name. The same name again changes nothing and succeeds.
    ///
    /// # Errors
    /// [`RosterError`]; the roster is unchanged then.
    pub fn rename(&mut self, by: PeerKey, peer: PeerKey, name: &str, now_ms: u64) -> Result<(), RosterError> {
        self.check_signer(&by)?;
        if !valid_host_name(name) {
            return Err(RosterError::BadName);
        }
        if self.members.iter().any(|(key, m)| m.name == name && *key != peer) {
            return Err(RosterError::NameTaken);
        }
        if self.kept_for_another(name, None, now_ms) {
            return Err(RosterError::NameKept);
        }
        self.members.get_mut(&peer).ok_or(RosterError::Unknown)?.name = name.to_owned();
        Ok(())
    }

    /// Whether a replacement is what the ledger did already: the answer got lost on its way.
    pub(crate) fn is_replaced(&self, by: &PeerKey, peer: &PeerKey, invitation: &Signed) -> bool {
        let Ok(invitation) = invitation.open::<Invitation>() else { return false };
        let written = |heir: &Heir| (heir.of, heir.by) == (*peer, *by);
        !self.is_member(peer)
            && (self.heirs.get(&invitation.key).is_some_and(written) || self.used.contains_key(&invitation.key))
    }

    /// Checks a replacement: by a signer, of another host, with an invitation by that signer of the same name and powers.
    ///
    /// # Errors
    /// [`RosterError`], as [`Roster::replace`] would give it.
    pub fn check_replace(
        &self,
        mesh: MeshId,
        by: PeerKey,
        peer: PeerKey,
        invitation: &Signed,
        now_ms: u64,
    ) -> Result<Invitation, RosterError> {
        self.check_signer(&by)?;
        let member = self.check_revoke(by, peer)?;
        if by == peer {
            return Err(RosterError::Itself);
        }
        let body: Invitation = invitation.open().map_err(|_| RosterError::Invalid)?;
        if body.mesh != mesh {
            return Err(RosterError::WrongMesh);
        }
        if invitation.by != by || self.used.contains_key(&body.key) || self.heirs.contains_key(&body.key) {
            return Err(RosterError::Invalid);
        }
        if (body.name.as_str(), body.signer) != (member.name.as_str(), member.signer) {
            return Err(RosterError::NoSuccessor);
        }
        if body.expires_ms <= now_ms || body.expires_ms > now_ms + INVITATION_MS_MAX {
            return Err(RosterError::Expired);
        }
        if self.heirs(now_ms).count() >= SUCCESSORS_MAX {
            return Err(RosterError::Full);
        }
        Ok(body)
    }

    /// Takes a host's key out and keeps its name for a successor, in one step.
    ///
    /// # Errors
    /// [`RosterError`]; the roster is unchanged then.
    pub fn replace(
        &mut self,
        mesh: MeshId,
        by: PeerKey,
        peer: PeerKey,
        invitation: &Signed,
        reason: &str,
        now_ms: u64,
    ) -> Result<(), RosterError> {
        let body = self.check_replace(mesh, by, peer, invitation, now_ms)?;
        self.heirs.retain(|_, heir| heir.expires_ms > now_ms);
        self.members.remove(&peer);
        let revoked = Revoked { name: body.name.clone(), banned: false, by, reason: cut(reason), at_ms: now_ms };
        self.revoked.insert(peer, revoked);
        self.heirs.insert(body.key, Heir { name: body.name, of: peer, by, expires_ms: body.expires_ms });
        Ok(())
    }
}

#[cfg(test)]
#[path = "roster_succession_tests.rs"]
mod tests;

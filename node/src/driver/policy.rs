//! Who is let in: judged over the ledger's roster, never by an address.
//!
//! An enrolled peer is a member. A peer that this host does not know yet, because its own copy of the
//! ledger is behind, is let in for catching up when a member it does know vouches for it. A joiner's
//! request goes through the ledger, which redeems an invitation once.

use super::Inner;
use super::shared::Shared;
use crate::net::{Admission, Level, Reason, Refusal};
use async_trait::async_trait;
use mesh::identity::PeerKey;
use mesh::ledger::{Code, Command, Enrol, Entry, Reply};
use mesh::limits::HELLO_BYTES_MAX;
use mesh::mutants::{self, Mutant};
use mesh::roster::{Credential, MeshId};
use mesh::wire::{Signed, decode, encode};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

/// How long a joiner waits for the ledger; below the deadline of the exchange.
const ENROL_WITHIN: Duration = Duration::from_secs(12);

/// What a joiner is told: enough to come back as a member of the right mesh.
#[derive(Clone, PartialEq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Joined {
    /// The mesh's founding record; its hash is the mesh's id.
    pub genesis: Signed,
    /// The redeeming member's word that the joiner is enrolled.
    pub credential: Signed,
    /// Members, their names, and where they were last found.
    pub members: Vec<Known>,
}

/// A member as one host tells another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Known {
    /// Its key.
    pub peer: PeerKey,
    /// Its name.
    pub name: String,
    /// Leads to it.
    pub addresses: Vec<String>,
}

/// The roster as admission sees it.
pub struct Policy {
    mesh: MeshId,
    credential: Signed,
    shared: Arc<Shared>,
    /// Members as told by the one that let us in; good until our ledger says otherwise.
    told: BTreeMap<PeerKey, String>,
    inner: OnceLock<Weak<Inner>>,
}

impl Policy {
    /// Over a ledger that may still be behind.
    pub fn new(mesh: MeshId, credential: Signed, shared: Arc<Shared>, told: &[Known]) -> Self {
        let told = told.iter().map(|k| (k.peer, k.name.clone())).collect();
        Policy { mesh, credential, shared, told, inner: OnceLock::new() }
    }

    /// Ties the policy to the running node, so that joiners' requests reach the ledger.
    pub(super) fn attach(&self, inner: &Arc<Inner>) {
        let _ = self.inner.set(Arc::downgrade(inner));
    }

    /// The running node, while it runs.
    pub(super) fn node(&self) -> Option<Arc<Inner>> {
        self.inner.get().and_then(Weak::upgrade)
    }

    /// This host's name, by its credential.
    pub(super) fn own_name(&self) -> Option<String> {
        self.credential.open::<Credential>().ok().map(|c| c.name)
    }

    /// Members as told at joining.
    pub(super) fn told(&self) -> impl Iterator<Item = PeerKey> + '_ {
        self.told.keys().copied()
    }

    /// Members as told at joining, while the ledger is empty.
    pub(super) fn told_members(&self) -> Vec<PeerKey> {
        let empty = self.shared.with(|l| l.index() == 0);
        self.told.keys().copied().filter(|_| empty).collect()
    }

    /// Whether a peer is a member, as far as this host can know: its ledger, or what it was told when
    /// it joined, unless the ledger has caught up and says otherwise.
    pub fn is_member(&self, peer: &PeerKey) -> bool {
        self.shared.with(|ledger| match ledger.roster().is_member(peer) {
            true => true,
            false if mutants::on(Mutant::RevocationIgnored) && ledger.roster().revoked(peer).is_some() => true,
            false => self.told.contains_key(peer) && ledger.roster().revoked(peer).is_none() && ledger.index() == 0,
        })
    }

    fn revoked(&self, peer: &PeerKey) -> Option<Refusal> {
        self.shared.with(|ledger| {
            ledger.roster().revoked(peer).filter(|_| !mutants::on(Mutant::RevocationIgnored)).map(|r| {
                let text = format!("{} was taken out of the mesh: {}", r.name, r.reason);
                Refusal::new(Reason::Revoked, text)
            })
        })
    }
}

#[async_trait]
impl Admission for Policy {
    fn present(&self) -> Vec<u8> {
        encode(&self.credential)
    }

    fn judge(&self, peer: PeerKey, credential: &[u8]) -> Result<Level, Refusal> {
        if let Some(refusal) = self.revoked(&peer) {
            return Err(refusal);
        }
        if mutants::on(Mutant::AdmitAnybody) {
            return Ok(Level::Member);
        }
        if credential.is_empty() {
            return Err(Refusal::new(Reason::NoCredential, "this mesh admits members only; join with an invitation"));
        }
        let signed: Signed = decode(credential, HELLO_BYTES_MAX).map_err(|e| malformed(&e))?;
        let body: Credential = signed.open().map_err(|e| malformed(&e))?;
        if body.mesh != self.mesh {
            return Err(Refusal::new(Reason::WrongMesh, "the credential is of another mesh"));
        }
        if body.peer != peer {
            return Err(Refusal::new(Reason::WrongSubject, "the credential is another peer's"));
        }
        if self.is_member(&peer) {
            return Ok(Level::Member);
        }
        // We may be behind. A member that we know vouches for it: let it in for catching up.
        if self.is_member(&signed.by) && signed.by != peer {
            return Ok(Level::CatchUp);
        }
        Err(Refusal::new(Reason::NotEnrolled, "not enrolled in this mesh, as far as this host knows"))
    }

    async fn join(&self, peer: PeerKey, request: Vec<u8>) -> Result<Vec<u8>, Refusal> {
        self.enrol(peer, request).await
    }
}

impl Policy {
    async fn enrol(&self, peer: PeerKey, request: Vec<u8>) -> Result<Vec<u8>, Refusal> {
        let join: Signed = decode(&request, HELLO_BYTES_MAX).map_err(|e| malformed(&e))?;
        if join.by != peer {
            return Err(Refusal::new(Reason::WrongSubject, "the request is another peer's"));
        }
        let Some(inner) = self.inner.get().and_then(Weak::upgrade) else {
            return Err(Refusal::new(Reason::NotNow, "this member is still starting"));
        };
        // What the ledger would refuse now need not travel there; what it would take is decided there.
        let (mesh, now_ms) = (self.mesh, super::wall_ms());
        let try_here = self.shared.with(|l| l.roster().clone().enrol(mesh, &join, l.time_ms().max(now_ms)));
        if let Err(error) = try_here
            && !matches!(error, mesh::roster::RosterError::NotSigner)
        {
            return Err(refusal_of(&error));
        }
        let entry =
            Entry::seal(&inner.keys, mesh, inner.request_id(), None, Command::Enrol(Enrol { join: join.clone() }));
        match inner.submit(entry, ENROL_WITHIN).await {
            Ok((reply, _)) if reply.is_ok() => Ok(self.welcome(&inner, peer)),
            Ok((reply, _)) => {
                // The roster's own words, by asking it once more: the reply has them as text only.
                let again = self.shared.with(|l| l.roster().clone().enrol(mesh, &join, l.time_ms()));
                Err(again.err().map_or_else(|| refusal_of_reply(&reply), |e| refusal_of(&e)))
            }
            Err(error) => Err(Refusal::new(Reason::NotNow, format!("{error}; try again, or another member"))),
        }
    }

    fn welcome(&self, inner: &Inner, peer: PeerKey) -> Vec<u8> {
        let (genesis, name, members) = self.shared.with(|ledger| {
            let name = ledger.roster().member(&peer).map(|m| m.name.clone()).unwrap_or_default();
            let members: Vec<(PeerKey, String)> =
                ledger.roster().members().filter(|(k, _)| **k != peer).map(|(k, m)| (*k, m.name.clone())).collect();
            (ledger.genesis().clone(), name, members)
        });
        let credential = Signed::seal(&inner.keys, &Credential { mesh: self.mesh, peer, name });
        let mut known: Vec<Known> = members
            .into_iter()
            .map(|(peer, name)| Known { peer, name, addresses: inner.leads_to_tell(&peer) })
            .collect();
        loop {
            let answer =
                encode(&Joined { genesis: genesis.clone(), credential: credential.clone(), members: known.clone() });
            if answer.len() <= HELLO_BYTES_MAX - 256 {
                return answer;
            }
            known.truncate(known.len() / 2); // a large mesh: half of it is enough to start from
        }
    }
}

fn malformed(error: &mesh::wire::WireError) -> Refusal {
    Refusal::new(Reason::Malformed, error.to_string())
}

fn refusal_of(error: &mesh::roster::RosterError) -> Refusal {
    use mesh::roster::RosterError::*;
    let reason = match error {
        Used => Reason::InvitationUsed,
        Expired => Reason::InvitationExpired,
        WrongMesh => Reason::WrongMesh,
        Banned => Reason::Revoked,
        Invalid => Reason::BadSignature,
        NotSigner => Reason::InvitationUnknown,
        _ => Reason::NotEnrolled,
    };
    Refusal::new(reason, error.to_string())
}

fn refusal_of_reply(reply: &Reply) -> Refusal {
    let reason = match reply.code {
        Code::Conflict => Reason::InvitationUsed,
        Code::Forbidden => Reason::InvitationExpired,
        _ => Reason::NotEnrolled,
    };
    Refusal::new(reason, reply.text.clone())
}

//! Who is let in, by the roster and never by an address. After `node::driver::policy` and `node::driver::token`.

use super::disk::Folder;
use super::host::{Env, Process};
use super::message::Knock;
use super::submit::Asker;
use mesh::identity::{Keys, PeerKey};
use mesh::ledger::{Command, Enrol, Reply};
use mesh::limits::INVITATION_MS_MAX;
use mesh::mutants::{Mutant, on};
use mesh::roster::{Credential, Invitation, JoinRequest, invitation_proof};
use mesh::wire::Signed;
use node::driver::{Joined, Known};
use std::time::Duration;

const ENROL_WITHIN: Duration = Duration::from_secs(12);

/// What a member makes of somebody who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Enrolled.
    Member,
    /// Vouched for by a member: may only give us the log.
    CatchUp,
    /// Was taken out.
    Revoked,
    /// Nobody.
    Stranger,
}

impl Process {
    /// Judges a peer by what it presents.
    pub fn judge(&self, peer: PeerKey, credential: Option<&Signed>) -> Verdict {
        if on(Mutant::AdmitAnybody) {
            return Verdict::Member;
        }
        if self.ledger.roster().revoked(&peer).is_some() && !on(Mutant::RevocationIgnored) {
            return Verdict::Revoked;
        }
        let Some((signed, body)) = credential.and_then(|c| Some((c, c.open::<Credential>().ok()?))) else {
            return Verdict::Stranger;
        };
        if body.mesh != self.mesh || body.peer != peer {
            return Verdict::Stranger;
        }
        let was = on(Mutant::RevocationIgnored) && self.ledger.roster().revoked(&peer).is_some();
        if self.is_member(&peer) || was {
            return Verdict::Member;
        }
        match self.is_member(&signed.by) && signed.by != peer {
            true => Verdict::CatchUp,
            false => Verdict::Stranger,
        }
    }

    fn is_member(&self, peer: &PeerKey) -> bool {
        let roster = self.ledger.roster();
        roster.is_member(peer)
            || (self.told.contains(peer) && roster.revoked(peer).is_none() && self.ledger.index() == 0)
    }

    /// A signer's invitation for a host of this name, with the secret half of its one-time key.
    pub fn invite(&self, env: &mut Env<'_>, name: &str) -> Option<(Signed, Keys)> {
        self.ledger.roster().member(&self.me).filter(|m| m.signer)?;
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&env.cx.dice.draw().to_le_bytes());
        let one_time = Keys::from_seed(seed);
        let expires_ms = self.ledger.time_ms() + INVITATION_MS_MAX / 2;
        // Every host may sign, so that every host may take out every other.
        let invitation =
            Invitation { mesh: self.mesh, key: one_time.key(), name: name.to_owned(), signer: true, expires_ms };
        Some((Signed::seal(&env.m.keys, &invitation), one_time))
    }

    /// A joiner's request has come.
    pub fn knocked(&mut self, env: &mut Env<'_>, knock: Knock) {
        let command = Command::Enrol(Enrol { join: knock.request.clone() });
        let number = env.cx.door(knock);
        self.ask(env, command, ENROL_WITHIN, Asker::Joiner(number));
        self.settle(env);
    }

    /// The ledger has answered a joiner's request, or nobody did.
    pub(super) fn enrolled(&mut self, env: &mut Env<'_>, number: u64, reply: Option<Reply>) {
        let Some(mut knock) = env.cx.take_door(number) else { return };
        let peer = knock.request.by;
        knock.answer = Some(match reply {
            Some(reply) if reply.is_ok() => Ok(self.welcome(env, peer)),
            Some(reply) => Err(reply.text),
            None => Err("not now".to_owned()),
        });
        env.cx.answer_door(self.host, knock);
    }

    fn welcome(&self, env: &Env<'_>, peer: PeerKey) -> Joined {
        let roster = self.ledger.roster();
        let name = roster.member(&peer).map(|m| m.name.clone()).unwrap_or_default();
        let credential = Signed::seal(&env.m.keys, &Credential { mesh: self.mesh, peer, name });
        let others = roster.members().filter(|(k, _)| **k != peer);
        let members =
            others.map(|(k, m)| Known { peer: *k, name: m.name.clone(), addresses: self.leads_to_tell(env, k) });
        Joined { genesis: self.ledger.genesis().clone(), credential, members: members.collect() }
    }

    fn leads_to_tell(&self, env: &Env<'_>, peer: &PeerKey) -> Vec<String> {
        if *peer == self.me {
            return env.cx.net.addresses_of(self.host);
        }
        self.addresses.leads(peer, self.now(env))
    }
}

/// A host's wish to be enrolled.
pub fn join_request(keys: &Keys, invitation: &Signed, one_time: &Keys, m: ([u8; 32], [u8; 16])) -> Option<Signed> {
    let mesh = invitation.open::<Invitation>().ok()?.mesh;
    let proof = one_time.sign(&invitation_proof(&mesh, &keys.key()));
    let request = JoinRequest { mesh, invitation: invitation.clone(), proof, machine_id: m.0, store_id: m.1 };
    Some(Signed::seal(keys, &request))
}

/// What the joiner keeps.
pub fn folder_of(joined: Joined) -> Folder {
    Folder { genesis: joined.genesis, credential: joined.credential, known: joined.members }
}

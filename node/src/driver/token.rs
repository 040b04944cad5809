//! Founding a mesh, and the token that lets a host in.
//!
//! A token is text for people to carry: the signed invitation, the secret half of its one-time key, and
//! leads to members. Nothing of it is kept by the mesh but, once it is redeemed, that it was used.

use super::policy::{Joined, Known};
use crate::net::Multiaddr;
use data_encoding::BASE64URL_NOPAD;
use libp2p::multiaddr::Protocol as Part;
use mesh::identity::{Keys, PeerKey};
use mesh::roster::{Credential, Genesis, Invitation, JoinRequest, MeshId, invitation_proof, mesh_id, valid_host_name};
use mesh::wire::{Signed, WireError, decode, encode};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};

/// What a token's text begins with; the number is its version.
const PREFIX: &str = "mesh1-";
/// Bytes of a token: an invitation and leads to a few members.
const TOKEN_BYTES_MAX: usize = 8 << 10;

/// A new mesh.
pub struct Founded {
    /// Its id.
    pub mesh: MeshId,
    /// Its signed founding record.
    pub genesis: Signed,
    /// The first host's credential.
    pub credential: Signed,
    /// The seed of the offline recovery key, in words that can be written down.
    pub recovery: String,
}

/// Founds a mesh: signs its genesis and makes its recovery key.
pub fn found(
    keys: &Keys,
    name: &str,
    host: &str,
    random: &[u8; 48],
    machine_id: [u8; 32],
    store_id: [u8; 16],
) -> Founded {
    let mut seed = [0; 32];
    seed.copy_from_slice(&random[..32]);
    let mut nonce = [0; 16];
    nonce.copy_from_slice(&random[32..]);
    let recovery = Keys::from_seed(seed);
    let genesis = Genesis {
        name: name.to_owned(),
        host: host.to_owned(),
        recovery: recovery.key(),
        wall_ms: super::wall_ms(),
        nonce,
        machine_id,
        store_id,
    };
    let genesis = Signed::seal(keys, &genesis);
    let mesh = mesh_id(&genesis);
    let credential = Signed::seal(keys, &Credential { mesh, peer: keys.key(), name: host.to_owned() });
    Founded { mesh, genesis, credential, recovery: format!("mesh-recovery1-{}", BASE64URL_NOPAD.encode(&seed)) }
}

/// Leave to join, as a person carries it.
#[derive(Clone, PartialEq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Token {
    /// The signed [`Invitation`].
    pub invitation: Signed,
    /// Seed of the invitation's one-time key.
    #[serde(with = "serde_bytes")]
    pub secret: [u8; 32],
    /// Members to ask, and where.
    pub leads: Vec<Known>,
}

/// Why a token is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not text of ours.
    #[error("this is not an invitation token; it begins with `{PREFIX}` and is one word, as `mesh invite` printed it")]
    NotToken,
    /// Damaged or bent.
    #[error("the token is damaged or cut off; copy it again, whole")]
    Damaged(WireError),
    /// Its name cannot be a host's.
    #[error("the token is for the host name `{0}`, which is none")]
    BadName(String),
}

impl Token {
    /// As text.
    pub fn text(&self) -> String {
        format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&encode(self)))
    }

    /// From text, checked as far as it can be without the mesh.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn parse(text: &str) -> Result<(Token, Invitation), TokenError> {
        let body = text.trim().strip_prefix(PREFIX).ok_or(TokenError::NotToken)?;
        if body.len() > TOKEN_BYTES_MAX * 2 {
            return Err(TokenError::NotToken);
        }
        let bytes = BASE64URL_NOPAD.decode(body.as_bytes()).map_err(|_| TokenError::NotToken)?;
        let token: Token = decode(&bytes, TOKEN_BYTES_MAX).map_err(TokenError::Damaged)?;
        let invitation: Invitation = token.invitation.open().map_err(TokenError::Damaged)?;
        if !valid_host_name(&invitation.name) {
            return Err(TokenError::BadName(invitation.name));
        }
        Ok((token, invitation))
    }

    /// Whom to ask and where: what the token says, then what the joiner's own configuration does. A configured
    /// address without a peer may be any member's, and each is expected there in turn.
    pub fn ways<'t>(&'t self, configured: &'t [Multiaddr]) -> impl Iterator<Item = (&'t Known, Multiaddr)> {
        let told =
            self.leads.iter().flat_map(|lead| lead.addresses.iter().filter_map(move |a| Some((lead, a.parse().ok()?))));
        let own = configured.iter().flat_map(|address| {
            let of = named(address);
            self.leads
                .iter()
                .filter(move |lead| of.is_none_or(|of| of == lead.peer))
                .map(|lead| (lead, without_peer(address)))
        });
        told.chain(own)
    }
}

/// The peer that an address names.
pub(super) fn named(address: &Multiaddr) -> Option<PeerKey> {
    address.iter().find_map(|part| match part {
        Part::P2p(id) => PeerKey::from_peer_id(&id),
        _ => None,
    })
}

/// An address without the peer that it names.
pub(super) fn without_peer(address: &Multiaddr) -> Multiaddr {
    address.iter().filter(|part| !matches!(part, Part::P2p(_))).collect()
}

/// A joiner's request, signed by it and by the token's one-time key.
pub fn join_request(keys: &Keys, token: &Token, mesh: MeshId, machine_id: [u8; 32], store_id: [u8; 16]) -> Vec<u8> {
    let proof = Keys::from_seed(token.secret).sign(&invitation_proof(&mesh, &keys.key()));
    let request = JoinRequest { mesh, invitation: token.invitation.clone(), proof, machine_id, store_id };
    encode(&Signed::seal(keys, &request))
}

/// Reads the answer to a join request and checks that it is for this host and of the invitation's mesh.
///
/// # Errors
/// A sentence; the member that answered is broken or lies.
pub fn read_joined(bytes: &[u8], keys: &Keys, mesh: MeshId) -> Result<Joined, String> {
    let joined: Joined = decode(bytes, mesh::limits::HELLO_BYTES_MAX).map_err(|e| e.to_string())?;
    joined.genesis.open::<Genesis>().map_err(|e| e.to_string())?;
    if mesh_id(&joined.genesis) != mesh {
        return Err("the member answered for another mesh than the invitation's".into());
    }
    let credential: Credential = joined.credential.open().map_err(|e| e.to_string())?;
    if credential.peer != keys.key() || credential.mesh != mesh {
        return Err("the member answered with somebody else's credential".into());
    }
    Ok(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_way_and_no_other_text_passes() {
        let (host, one_time) = (Keys::from_seed([1; 32]), Keys::from_seed([2; 32]));
        let founded = found(&host, "m", "a", &[3; 48], [0; 32], [0; 16]);
        let invitation =
            Invitation { mesh: founded.mesh, key: one_time.key(), name: "b".into(), signer: false, expires_ms: 9 };
        let leads = vec![Known { peer: host.key(), name: "a".into(), addresses: vec!["/ip4/127.0.0.1/tcp/1".into()] }];
        let token = Token { invitation: Signed::seal(&host, &invitation), secret: [2; 32], leads };
        let text = token.text();
        assert_eq!(Token::parse(&format!(" {text}\n")), Ok((token, invitation)));
        for bad in ["", "mesh1-", "mesh1-%%", "hello", &text[..text.len() - 4], &format!("{text}AAAA")] {
            assert!(Token::parse(bad).is_err(), "{bad}");
        }
    }
    #[test]
    fn a_joiner_asks_where_the_token_says_and_where_its_own_configuration_does() {
        let known = |n: u8, at: &str| {
            let name = format!("h{n}");
            Known { peer: Keys::from_seed([n; 32]).key(), name, addresses: vec![at.into()] }
        };
        let leads = vec![known(1, "/ip4/192.168.1.10/tcp/7400"), known(2, "nonsense")];
        let founder = Keys::from_seed([1; 32]);
        let founded = found(&founder, "m", "h1", &[3; 48], [0; 32], [0; 16]);
        let token = Token { invitation: founded.credential, secret: [2; 32], leads };
        let forward = "/ip4/203.0.113.1/tcp/7400";
        let of_second = format!("/ip4/203.0.113.2/tcp/7400/p2p/{}", token.leads[1].peer);
        let configured = [forward.parse().unwrap(), of_second.parse().unwrap()];
        let ways: Vec<String> = token.ways(&configured).map(|(lead, at)| format!("{} {at}", lead.name)).collect();
        let all = ["h1 /ip4/192.168.1.10/tcp/7400", "h1 /ip4/203.0.113.1/tcp/7400", "h2 /ip4/203.0.113.1/tcp/7400"];
        assert_eq!(ways[..3], all);
        assert_eq!(ways[3..], ["h2 /ip4/203.0.113.2/tcp/7400"]);
    }
}

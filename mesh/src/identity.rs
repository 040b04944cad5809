//! Who a peer is: an ed25519 key and nothing else.
//!
//! One 32-byte seed gives the signing key here and the libp2p key pair of the transport; both sign
//! alike, so that a handshake and a ledger entry prove the same identity. Weak keys are refused
//! (libp2p accepts the all-zero key as a peer id). Host names and addresses never appear here.

use crate::wire::WireError;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use libp2p_identity::{Keypair, PeerId, PublicKey};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A peer's public key. Shown as its libp2p peer id (`12D3KooW…`), encoded as its 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PeerKey(#[serde(with = "serde_bytes")] [u8; 32]);

impl PeerKey {
    /// Takes raw key bytes. They may still be weak: [`PeerKey::verify`] refuses those.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        PeerKey(bytes)
    }

    /// The raw 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The libp2p peer id that this key has, or `None` when it is no usable key.
    pub fn peer_id(&self) -> Option<PeerId> {
        let key = libp2p_identity::ed25519::PublicKey::try_from_bytes(&self.0).ok()?;
        self.is_strong().then(|| PublicKey::from(key).to_peer_id())
    }

    /// The key inside a peer id. `None` for peer ids of other key types, and for weak keys.
    pub fn from_peer_id(peer: &PeerId) -> Option<Self> {
        let hash = peer.as_ref();
        if hash.code() != 0 {
            return None; // a hash of a key, not an inlined ed25519 key
        }
        let key = PublicKey::try_decode_protobuf(hash.digest()).ok()?.try_into_ed25519().ok()?;
        let key = PeerKey(key.to_bytes());
        key.is_strong().then_some(key)
    }

    /// Whether the key is a point of the curve and not of small order.
    pub fn is_strong(&self) -> bool {
        VerifyingKey::from_bytes(&self.0).is_ok_and(|k| !k.is_weak())
    }

    /// Checks a signature strictly (RFC 8032 with the checks of "Taming the many EdDSAs", 2020).
    ///
    /// # Errors
    /// [`WireError::WeakKey`] or [`WireError::BadSignature`].
    pub fn verify(&self, message: &[u8], sig: &[u8; 64]) -> Result<(), WireError> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| WireError::WeakKey(*self))?;
        if key.is_weak() {
            return Err(WireError::WeakKey(*self));
        }
        key.verify_strict(message, &Signature::from_bytes(sig)).map_err(|_| WireError::BadSignature(*self))
    }

    /// The last eight characters of the peer id: enough for a log line, never for a decision.
    pub fn short(&self) -> String {
        let full = self.to_string();
        full[full.len().saturating_sub(8)..].to_owned()
    }
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer_id() {
            Some(id) => id.fmt(f),
            None => f.write_str("<invalid key>"),
        }
    }
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for PeerKey {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let id = PeerId::from_str(s).map_err(|e| format!("`{s}` is not a peer id: {e}"))?;
        PeerKey::from_peer_id(&id).ok_or_else(|| format!("`{s}` is not the peer id of an ed25519 key"))
    }
}

/// A peer's secret: the seed and what is derived from it. Never printed.
#[derive(Clone)]
pub struct Keys {
    seed: [u8; 32],
    signing: SigningKey,
    key: PeerKey,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.key.short())
    }
}

impl Keys {
    /// All keys of a host from its seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let signing = SigningKey::from_bytes(&seed);
        let key = PeerKey(signing.verifying_key().to_bytes());
        Keys { seed, signing, key }
    }

    /// The public key.
    pub fn key(&self) -> PeerKey {
        self.key
    }

    /// The seed itself, for the state folder.
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The seed of the SSH host key of this host's guard: another key than the host's own, so that an sshd which gives it
    /// away gives away nothing else.
    pub fn ssh_host_seed(&self) -> [u8; 32] {
        blake3::derive_key("mesh/ssh-host-key/v1", &self.seed)
    }

    /// Signs bytes. Callers go through [`crate::wire::Signed`], which adds the domain label.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }

    /// The libp2p key pair of the transport; signs exactly as [`Keys::sign`] does.
    pub fn libp2p(&self) -> Keypair {
        let mut seed = self.seed; // the call zeroes its argument
        match Keypair::ed25519_from_bytes(&mut seed) {
            Ok(pair) => pair,
            Err(_) => unreachable!("any 32 bytes are an ed25519 seed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_identity_everywhere() {
        let keys = Keys::from_seed([7; 32]);
        let pair = keys.libp2p();
        assert_eq!(PeerKey::from_peer_id(&pair.public().to_peer_id()), Some(keys.key()));
        assert_eq!(keys.key().to_string(), pair.public().to_peer_id().to_string());
        assert_eq!(keys.key().to_string().parse::<PeerKey>(), Ok(keys.key()));
        assert_eq!(pair.sign(b"m").expect("signs"), keys.sign(b"m").to_vec());
        assert_eq!(keys.key().verify(b"m", &keys.sign(b"m")), Ok(()));
        assert_ne!(keys.ssh_host_seed(), *keys.seed());
        assert!(matches!(keys.key().verify(b"n", &keys.sign(b"m")), Err(WireError::BadSignature(_))));
    }

    #[test]
    fn weak_keys_are_nobody() {
        let zero = PeerKey([0; 32]);
        assert!(!zero.is_strong());
        assert_eq!(zero.peer_id(), None);
        assert!(matches!(zero.verify(b"", &[0; 64]), Err(WireError::WeakKey(_))));
        // The naive conversion takes it: that is why ours asks.
        assert!(libp2p_identity::ed25519::PublicKey::try_from_bytes(&[0; 32]).is_ok());
    }
}

//! The wire format of everything that is signed: positional CBOR, decoded once and strictly.
//!
//! Signed bytes are exactly the bytes sent: a domain label with a version, then the body. Types that
//! go through here serialise as arrays (`serde_tuple`, [`tagged!`](crate::tagged)), never as maps and never with
//! floats, so that a value has one encoding. [`decode`] refuses everything else: too large, too deep,
//! trailing bytes, or bytes that differ from what the value encodes to. ciborium alone accepts all of
//! those (see the tests). Nothing here knows what a message means.

use crate::identity::{Keys, PeerKey};
use crate::limits::DECODE_DEPTH_MAX;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};

/// Why bytes were refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// More bytes than this kind of message may have.
    #[error("message of {len} bytes is larger than the {max} allowed")]
    TooLarge {
        /// Bytes received.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Not CBOR, or not of the expected shape.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// Bytes behind the end of the value.
    #[error("{0} bytes behind the end of the message")]
    Trailing(usize),
    /// The bytes decode, but the value encodes to other bytes.
    #[error("message is not in its canonical encoding")]
    NotCanonical,
    /// The signature does not belong to these bytes and this key.
    #[error("bad signature by {0}")]
    BadSignature(PeerKey),
    /// The key is of small order and verifies anything, or is no point of the curve at all.
    #[error("weak or invalid key {0}")]
    WeakKey(PeerKey),
}

/// Encodes a value. Infallible for the types of this crate: they hold nothing CBOR cannot express.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    if let Err(error) = ciborium::into_writer(value, &mut out) {
        unreachable!("encoding into memory cannot fail: {error}");
    }
    out
}

/// Decodes exactly one value from exactly these bytes.
///
/// # Errors
/// When the bytes are more than `max`, nested deeper than [`DECODE_DEPTH_MAX`], not a `T`, followed
/// by anything, or not what the decoded value encodes to.
pub fn decode<T: DeserializeOwned + Serialize>(bytes: &[u8], max: usize) -> Result<T, WireError> {
    if bytes.len() > max {
        return Err(WireError::TooLarge { len: bytes.len(), max });
    }
    let mut rest = bytes;
    let value: T = ciborium::de::from_reader_with_recursion_limit(&mut rest, DECODE_DEPTH_MAX)
        .map_err(|e| WireError::Malformed(e.to_string()))?;
    if !rest.is_empty() {
        return Err(WireError::Trailing(rest.len()));
    }
    if encode(&value) != bytes {
        return Err(WireError::NotCanonical);
    }
    Ok(value)
}

/// A type that may be signed, and the domain its signatures live in.
pub trait Label {
    /// Domain and version, for example `mesh/entry/v1`. No two types share one.
    const LABEL: &'static str;
    /// Most bytes that an encoded body may have.
    const MAX: usize;
}

/// Bytes with the signature of the peer that wrote them. The body is opaque until it is verified.
#[derive(Clone, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct Signed {
    /// Who signed.
    pub by: PeerKey,
    /// Ed25519 over label, a zero byte, and body.
    #[serde(with = "serde_bytes")]
    pub sig: [u8; 64],
    /// The encoded value.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Signed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signed({} bytes by {})", self.body.len(), self.by.short())
    }
}

impl Signed {
    /// Encodes and signs a value.
    pub fn seal<T: Label + Serialize>(keys: &Keys, value: &T) -> Signed {
        let body = encode(value);
        let sig = keys.sign(&signed_bytes(T::LABEL, &body));
        Signed { by: keys.key(), sig, body }
    }

    /// Verifies the signature, then decodes the body: nothing is parsed that nobody vouches for.
    ///
    /// # Errors
    /// As [`decode`], and when key or signature are bad.
    pub fn open<T: Label + Serialize + DeserializeOwned>(&self) -> Result<T, WireError> {
        if self.body.len() > T::MAX {
            return Err(WireError::TooLarge { len: self.body.len(), max: T::MAX });
        }
        self.by.verify(&signed_bytes(T::LABEL, &self.body), &self.sig)?;
        decode(&self.body, T::MAX)
    }
}

/// What a signature covers: label, a zero byte, body.
pub fn signed_bytes(label: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(label.len() + 1 + body.len());
    bytes.extend_from_slice(label.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(body);
    bytes
}

/// The wire form of an enum that carries data: `[kind, body]`, so that an unknown kind can be told
/// from a malformed one. Used by [`tagged!`](crate::tagged).
#[derive(Serialize, Deserialize)]
pub struct Tagged(pub u16, #[serde(with = "serde_bytes")] pub Vec<u8>);

/// Declares an enum whose variants each hold one value, encoded as `[kind, body]` with the given
/// numbers. A number, once used, is never given to another variant.
#[macro_export]
macro_rules! tagged {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$vmeta:meta])* $num:literal => $variant:ident($ty:ty),)+ }) => {
        $(#[$meta])*
        pub enum $name { $($(#[$vmeta])* $variant($ty),)+ }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                let tagged = match self {
                    $($name::$variant(value) => $crate::wire::Tagged($num, $crate::wire::encode(value)),)+
                };
                tagged.serialize(s)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let $crate::wire::Tagged(kind, body) = serde::Deserialize::deserialize(d)?;
                match kind {
                    $($num => $crate::wire::decode::<$ty>(&body, body.len())
                        .map($name::$variant).map_err(serde::de::Error::custom),)+
                    other => Err(serde::de::Error::custom(format!(
                        concat!("unknown kind {} of ", stringify!($name), ": update mesh on this host"), other))),
                }
            }
        }
    };
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;

//! The messages of admission, and the reasons for which a peer is refused.
//!
//! A message is the label with its version, a zero byte, then canonical CBOR: a peer that speaks
//! another version is told so instead of being called malformed. Credentials, requests and answers
//! are opaque here; [`super::Admission`] knows what they mean.

use mesh::limits::{HELLO_BYTES_MAX, TEXT_BYTES_MAX};
use mesh::{tagged, wire};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// The version of the exchange. A change of any message changes it.
const LABEL: &str = "mesh/admission/v1";

/// Why a peer was refused. Numbers, once used, keep their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
#[repr(u8)]
pub enum Reason {
    /// A reason that this version does not know; the text says more.
    Unknown = 0,
    /// Presented nothing.
    NoCredential = 1,
    /// A signature does not hold.
    BadSignature = 2,
    /// Belongs to another mesh.
    WrongMesh = 3,
    /// Not in the roster.
    NotEnrolled = 4,
    /// Was in the roster, is out.
    Revoked = 5,
    /// The credential is somebody else's.
    WrongSubject = 6,
    /// Somebody else answered than the peer that was dialled.
    WrongPeer = 7,
    /// Took too long.
    Deadline = 8,
    /// What it said could not be read.
    Malformed = 9,
    /// Too many are waiting to be admitted.
    Busy = 10,
    /// The invitation has been redeemed by another peer.
    InvitationUsed = 11,
    /// The invitation is too old.
    InvitationExpired = 12,
    /// No such invitation, or it was withdrawn.
    InvitationUnknown = 13,
    /// Cannot be settled at present, for instance without a leader: try another member, or later.
    NotNow = 14,
    /// Its key is weak, or no ed25519 key at all.
    BadKey = 15,
    /// Speaks another version of admission.
    OtherVersion = 16,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 17] = [
        Reason::Unknown,
        Reason::NoCredential,
        Reason::BadSignature,
        Reason::WrongMesh,
        Reason::NotEnrolled,
        Reason::Revoked,
        Reason::WrongSubject,
        Reason::WrongPeer,
        Reason::Deadline,
        Reason::Malformed,
        Reason::Busy,
        Reason::InvitationUsed,
        Reason::InvitationExpired,
        Reason::InvitationUnknown,
        Reason::NotNow,
        Reason::BadKey,
        Reason::OtherVersion,
    ];

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Reason::Unknown => "a reason this version does not know",
            Reason::NoCredential => "no credential",
            Reason::BadSignature => "bad signature",
            Reason::WrongMesh => "another mesh",
            Reason::NotEnrolled => "not enrolled",
            Reason::Revoked => "revoked",
            Reason::WrongSubject => "somebody else's credential",
            Reason::WrongPeer => "not the peer that was dialled",
            Reason::Deadline => "took too long",
            Reason::Malformed => "malformed message",
            Reason::Busy => "too many waiting for admission",
            Reason::InvitationUsed => "invitation already used",
            Reason::InvitationExpired => "invitation expired",
            Reason::InvitationUnknown => "unknown invitation",
            Reason::NotNow => "cannot be settled at present",
            Reason::BadKey => "unusable key",
            Reason::OtherVersion => "another version of the protocol",
        }
    }
}

impl From<Reason> for u8 {
    fn from(reason: Reason) -> u8 {
        reason as u8
    }
}

impl From<u8> for Reason {
    /// A later version may know more reasons: they are [`Reason::Unknown`] here, never an error.
    fn from(code: u8) -> Reason {
        Reason::ALL.get(usize::from(code)).copied().unwrap_or(Reason::Unknown)
    }
}

/// A refusal: a reason for programs, a text for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{text}", reason.words(), if text.is_empty() { "" } else { ": " })]
pub struct Refusal {
    /// For programs.
    pub reason: Reason,
    /// For people: what happened and what to do next. May be empty.
    pub text: String,
}

impl Refusal {
    /// A refusal; a text that is too long is cut.
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        Refusal { reason, text }
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Refusal { reason, text: String::new() }
    }
}

tagged! {
    /// One message of the exchange.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum Message {
        /// Dialler to listener: its credential.
        1 => Hello(ByteBuf),
        /// Listener to dialler, once that is admitted: its own credential.
        2 => Welcome(ByteBuf),
        /// Dialler to listener: admitted as well.
        3 => Accept(()),
        /// Either: the end, and why ([`Reason`] and text).
        4 => Refuse((u8, String)),
        /// Joiner to member: the invitation.
        5 => Join(ByteBuf),
        /// Member to joiner: redeemed, and what the joiner needs to come back as a member.
        6 => Joined(ByteBuf),
    }
}

impl Message {
    pub(crate) fn encode(&self) -> Vec<u8> {
        wire::signed_bytes(LABEL, &wire::encode(self))
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Message, Refusal> {
        match bytes.strip_prefix(LABEL.as_bytes()).and_then(|rest| rest.strip_prefix(&[0])) {
            Some(body) => {
                wire::decode(body, HELLO_BYTES_MAX).map_err(|e| Refusal::new(Reason::Malformed, e.to_string()))
            }
            None if bytes.starts_with(b"mesh/admission/") => Err(Refusal::new(
                Reason::OtherVersion,
                format!("this host speaks {LABEL}: update mesh on the older host"),
            )),
            None => Err(Refusal::new(Reason::Malformed, format!("not a message of {LABEL}"))),
        }
    }

    /// Most bytes of an encoded message.
    pub(crate) const MAX: usize = HELLO_BYTES_MAX + LABEL.len() + 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire_and_nothing_else_does() {
        let messages = [
            Message::Hello(ByteBuf::from(vec![1; 900])),
            Message::Welcome(ByteBuf::new()),
            Message::Accept(()),
            Message::Refuse((Reason::Revoked.into(), "evicted by anna".into())),
            Message::Join(ByteBuf::from(vec![2])),
            Message::Joined(ByteBuf::from(vec![3; 3])),
        ];
        for message in messages {
            let bytes = message.encode();
            assert_eq!(Message::decode(&bytes), Ok(message));
            let mut longer = bytes.clone();
            longer.push(0);
            assert_eq!(Message::decode(&longer).unwrap_err().reason, Reason::Malformed);
            assert_eq!(Message::decode(&bytes[..bytes.len() - 1]).unwrap_err().reason, Reason::Malformed);
        }
        assert_eq!(Message::decode(b"\x13/multistream/1.0.0\n").unwrap_err().reason, Reason::Malformed);
        assert_eq!(Message::decode(b"mesh/admission/v2\0\x82\x03\x41\xf6").unwrap_err().reason, Reason::OtherVersion);
        let huge = Message::Hello(ByteBuf::from(vec![0; HELLO_BYTES_MAX])).encode();
        assert_eq!(Message::decode(&huge).unwrap_err().reason, Reason::Malformed);
    }

    #[test]
    fn bytes_on_the_wire_are_these() {
        assert_eq!(Message::Accept(()).encode(), b"mesh/admission/v1\0\x82\x03\x41\xf6");
        assert_eq!(Message::Hello(ByteBuf::from(b"me")).encode(), b"mesh/admission/v1\0\x82\x01\x43\x42me");
    }

    #[test]
    fn reasons_keep_their_numbers() {
        for (i, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(u8::from(reason)), i);
            assert_eq!(Reason::from(i as u8), reason);
        }
        assert_eq!(Reason::from(200), Reason::Unknown);
        assert_eq!(Refusal::new(Reason::Busy, "ä".repeat(2_000)).text.len(), TEXT_BYTES_MAX);
        assert_eq!(Refusal::from(Reason::Revoked).to_string(), "revoked");
        assert_eq!(Refusal::new(Reason::Revoked, "by anna").to_string(), "revoked: by anna");
    }
}

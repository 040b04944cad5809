//! What libp2p's errors mean. They come boxed many times over; nothing here decides anything.

use super::DialFailure;
use super::admission::AdmitError;
use either::Either;
use libp2p::core::transport::TransportError;
use libp2p::{noise, quic};
use mesh::identity::PeerKey;
use std::error::Error as StdError;
use std::io;

pub(super) fn answered(by: Option<PeerKey>) -> DialFailure {
    match by {
        Some(peer) => DialFailure::AnsweredBy(peer),
        None => DialFailure::Other("a peer answered whose key is not ed25519".into()),
    }
}

pub(super) fn other(error: &(dyn StdError + 'static)) -> DialFailure {
    DialFailure::Other(chain(error))
}

/// What one address's error means.
pub(super) fn dial_failure(error: &TransportError<io::Error>) -> DialFailure {
    let TransportError::Other(error) = error else { return other(error) };
    if let Some(failure) = verdict(error) {
        return failure;
    }
    if links(error).any(|link| is_kind(link, &[io::ErrorKind::ConnectionRefused])) {
        return DialFailure::Refused;
    }
    let quic_timeout =
        |link: &(dyn StdError + 'static)| matches!(link.downcast_ref(), Some(quic::Error::HandshakeTimedOut));
    if links(error).any(|link| is_kind(link, &[io::ErrorKind::TimedOut]) || quic_timeout(link)) {
        return DialFailure::Timeout;
    }
    other(error)
}

/// Whether the other side went away in the middle of the handshake. A member does so when another of
/// its dials was quicker, so nobody is called a stranger for it.
pub(super) fn hung_up(error: &(dyn StdError + 'static)) -> bool {
    const ENDS: [io::ErrorKind; 4] = [
        io::ErrorKind::UnexpectedEof,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::BrokenPipe,
    ];
    links(error).any(|link| is_kind(link, &ENDS) || matches!(link.downcast_ref(), Some(quic::Error::Connection(_))))
}

fn is_kind(error: &(dyn StdError + 'static), kinds: &[io::ErrorKind]) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| kinds.contains(&error.kind()))
}

/// An error and all errors inside it.
pub(super) fn links<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| inner(*error))
}

/// The error inside an error. Several kinds skip a level of `source()`: what is inside them is taken
/// out by hand.
fn inner<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    if let Some(payload) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        return Some(payload);
    }
    if let Some(Either::Left(error) | Either::Right(error)) = error.downcast_ref::<Either<io::Error, io::Error>>() {
        return Some(error);
    }
    match (error.downcast_ref::<noise::Error>(), error.downcast_ref::<quic::Error>()) {
        (Some(noise::Error::Io(error)), _) | (_, Some(quic::Error::Io(error))) => Some(error),
        _ => error.source(),
    }
}

/// Admission's part in an error.
pub(super) fn verdict(error: &(dyn StdError + 'static)) -> Option<DialFailure> {
    Some(match AdmitError::find(error)? {
        AdmitError::WeRefused { refusal, .. } => DialFailure::WeRefused(refusal.clone()),
        AdmitError::RefusedBy { refusal, .. } => DialFailure::RefusedBy(refusal.clone()),
        AdmitError::AnsweredBy { answered: by } => answered(*by),
        error @ (AdmitError::Lost { .. } | AdmitError::Joined { .. }) => DialFailure::Other(error.to_string()),
    })
}

/// An error and its causes in one line, each said once.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    for error in links(error) {
        let link = error.to_string().replace('\n', " ");
        if !text.contains(&link) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&link);
        }
    }
    text
}

//! Joining without a daemon: one connection to one member, one request, one answer.
//!
//! No Swarm, no listening, no protocol but admission's Join. The caller tries its leads one by one and
//! prints the error of each.

use super::DialFailure;
use super::admission::{self, AdmitError, CONNECT_DEADLINE};
use super::errors::{chain, dial_failure};
use super::hello::Refusal;
use super::muxer::Mortal;
use crate::seams::MakeTransport;
use futures::future::poll_fn;
use libp2p::Multiaddr;
use libp2p::core::muxing::StreamMuxerExt;
use libp2p::core::transport::{DialOpts, PortUse};
use libp2p::core::{Endpoint, Transport};
use mesh::identity::{Keys, PeerKey};
use std::time::Duration;
use tokio::time::timeout;

/// Why a lead led nowhere. Nothing has changed here; whether the member has redeemed the invitation
/// is open after [`JoinError::Lost`] and [`JoinError::Timeout`]: try again with the same key.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No connection.
    #[error("{address}: {failure}")]
    Unreachable {
        /// The lead.
        address: Multiaddr,
        /// What happened.
        failure: DialFailure,
    },
    /// Another peer answered. Nothing was shown to it.
    #[error("{address}: {answered} answered instead of {wanted}")]
    WrongPeer {
        /// The lead.
        address: Multiaddr,
        /// Who was dialled.
        wanted: PeerKey,
        /// Who answered.
        answered: String,
    },
    /// The member refused the request.
    #[error("{address}: refused: {refusal}")]
    Refused {
        /// The lead.
        address: Multiaddr,
        /// What it said.
        refusal: Refusal,
    },
    /// The connection broke, or what came back could not be read.
    #[error("{address}: {text}")]
    Lost {
        /// The lead.
        address: Multiaddr,
        /// What happened.
        text: String,
    },
    /// No answer within the time that was given.
    #[error("{address}: no answer within {} s", within.as_secs())]
    Timeout {
        /// The lead.
        address: Multiaddr,
        /// The time.
        within: Duration,
    },
}

impl JoinError {
    /// Who answered where another was expected, by its proved key.
    pub fn answered_by(&self) -> Option<PeerKey> {
        match self {
            JoinError::WrongPeer { answered, .. } => answered.parse().ok(),
            JoinError::Unreachable { failure: DialFailure::AnsweredBy(by), .. } => Some(*by),
            _ => None,
        }
    }
}

/// Asks one member at one address to let this key in, and returns its answer.
///
/// # Errors
/// Why this lead led nowhere.
pub async fn join_once(
    keys: &Keys,
    transport: MakeTransport,
    member: PeerKey,
    address: Multiaddr,
    request: Vec<u8>,
    within: Duration,
) -> Result<Vec<u8>, JoinError> {
    let attempt = ask(keys, transport, member, address.clone(), request);
    timeout(within, attempt).await.unwrap_or(Err(JoinError::Timeout { address, within }))
}

async fn ask(
    keys: &Keys,
    transport: MakeTransport,
    member: PeerKey,
    address: Multiaddr,
    request: Vec<u8>,
) -> Result<Vec<u8>, JoinError> {
    let unreachable = |failure| JoinError::Unreachable { address: address.clone(), failure };
    let other = |text: String| unreachable(DialFailure::Other(text));
    let wanted = member.peer_id().ok_or_else(|| other("the member's key is unusable".into()))?;
    let named = address.clone().with_p2p(wanted).map_err(|_| other("the address names another peer".into()))?;
    let mut transport = transport(&keys.libp2p()).map_err(|error| other(chain(&error)))?;
    let opts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    let dial = transport.dial(named, opts).map_err(|error| unreachable(dial_failure(&error)))?;
    let (answered, muxer) = match timeout(CONNECT_DEADLINE, dial).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(unreachable(dial_failure(&libp2p::TransportError::Other(error)))),
        Err(_) => return Err(unreachable(DialFailure::Timeout)),
    };
    if answered != wanted {
        return Err(JoinError::WrongPeer { address, wanted: member, answered: answered.to_string() });
    }
    let mut muxer = Mortal::wrap(muxer);
    let answer = admission::ask_to_join(&mut muxer, member, request).await;
    let _ = poll_fn(|cx| muxer.poll_close_unpin(cx)).await; // bounded; lets the other side see an orderly end
    answer.map_err(|error| match error {
        AdmitError::RefusedBy { refusal, .. } => JoinError::Refused { address, refusal },
        error => JoinError::Lost { address, text: error.to_string() },
    })
}

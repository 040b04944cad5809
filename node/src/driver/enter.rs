//! Asking to be let in: at every place that a token names, until a member answers.
//!
//! A token says where members were when it was made. Who has moved since may be where another member was: it proves by
//! its key who it is, and is asked there for itself (incident 17). Whom the token does not name is shown nothing. Never
//! judges the answer; that is [`super::token::read_joined`].

use super::policy::Known;
use super::token::Token;
use crate::net::{JoinError, Multiaddr, join_once};
use crate::seams::MakeTransport;
use mesh::identity::Keys;
use std::collections::VecDeque;
use std::time::Duration;

/// How long one lead of a token is tried.
const LEAD_WITHIN: Duration = Duration::from_secs(20);

/// Asks the members that a token names, one after another, where it and this host's own configuration say that they
/// are: what the first has answered that lets this key in. Each place is asked for the member that was expected there,
/// and at most once more, for the one that answered instead.
///
/// # Errors
/// Of each lead, by its member's name, why it led nowhere, in the order in which they were tried.
pub async fn ask_all(
    keys: &Keys,
    transport: impl Fn() -> MakeTransport,
    token: &Token,
    configured: &[Multiaddr],
    request: &[u8],
) -> Result<Vec<u8>, Vec<(String, JoinError)>> {
    let mut ways: VecDeque<(&Known, Multiaddr)> = token.ways(configured).collect();
    let told = ways.len();
    let mut failed = vec![];
    while let Some((lead, address)) = ways.pop_front() {
        let asked = join_once(keys, transport(), lead.peer, address.clone(), request.to_vec(), LEAD_WITHIN).await;
        let error = match asked {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        tracing::debug!(lead = lead.name, %error, "a lead led nowhere");
        let instead = error.answered_by().and_then(|by| token.leads.iter().find(|lead| lead.peer == by));
        failed.push((lead.name.clone(), error));
        if let Some(other) = instead.filter(|_| failed.len() <= told) {
            let way = (other, address);
            if !ways.contains(&way) {
                ways.push_back(way);
            }
        }
    }
    Err(failed)
}

//! `mesh restart` and `mesh reboot`: one order, and what becomes of it, step by step. Nothing is decided here.

use super::{Failure, Out};
use crate::api::client::{Client, ClientError};
use crate::api::order::{OrderEvent, OrderRequest};
use crate::api::types::VERSION;
use futures::StreamExt;
use serde::Serialize;

/// One event as a line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    version: u32,
    #[serde(flatten)]
    event: &'a OrderEvent,
}

pub(super) async fn order(
    client: &Client,
    out: Out,
    host: &str,
    reboot: bool,
    reason: String,
    force: bool,
) -> Result<(), Failure> {
    let uid = nix::unistd::geteuid();
    let user = nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| format!("user {uid}"), |user| user.name);
    let request = OrderRequest { reboot, reason, force, user };
    request.check()?;
    if !mesh::roster::valid_host_name(host) {
        return Err(crate::api::server::bad_host_name(host).into());
    }
    let mut events = client.order(host, &request).await?;
    // A daemon that was ordered to restart itself ends in the middle of its answer.
    let ended = || Failure::new("the daemon has ended before it could tell").hint("`mesh status`, when it is back");
    let mut taken_on = false;
    while let Some(event) = events.next().await {
        let event = match event {
            Err(ClientError::Broken(_)) if taken_on => return Err(ended()),
            other => other?,
        };
        if out.json {
            let line = serde_json::to_string(&Line { version: VERSION, event: &event });
            out.line(line.map_err(|error| Failure::new(error.to_string()))?)?;
        }
        match event {
            OrderEvent::Written { order, host, act } => out.note(format!("{order}: a {act} of {host} is ordered")),
            OrderEvent::TakenOn { host } => {
                taken_on = true;
                out.note(format!("{host} has taken it on, and acts"));
            }
            OrderEvent::Proved { host, start } => {
                if !out.json {
                    out.line(format!("{host} is back: start {start}"))?;
                }
                return Ok(());
            }
            OrderEvent::Failed { text, hint } => {
                let failure = Failure::new(text);
                return Err(if hint.is_empty() { failure } else { failure.hint(hint) });
            }
        }
    }
    Err(ended())
}

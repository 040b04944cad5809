//! `mesh rename` and `mesh replace`: one question each. Nothing is decided here.

use super::{Failure, Out, expires_ms};
use crate::api::client::Client;
use crate::api::types::{Invitation, RenameRequest, ReplaceRequest, VERSION};

pub(super) async fn rename(client: &Client, out: Out, host: String, name: String) -> Result<(), Failure> {
    let request = RenameRequest { host, name };
    request.check()?;
    client.rename(&request).await?;
    out.done()?;
    out.note(format!("{} is called {} from now on; its key and its history stay", request.host, request.name));
    Ok(())
}

pub(super) async fn replace(
    client: &Client,
    out: Out,
    host: String,
    reason: String,
    expires: &str,
    force: bool,
) -> Result<(), Failure> {
    let request = ReplaceRequest { host, reason, expires_ms: expires_ms(expires)?, force };
    request.check()?;
    let token = client.replace(&request).await?;
    match out.json {
        true => out.json(&Invitation { version: VERSION, token })?,
        false => out.line(token)?,
    }
    out.note(format!("{} is out: its key is of no more use, and its builds go elsewhere", request.host));
    out.note(format!(
        "the token lets its successor in, valid for {expires}, once; on the new machine: mesh join TOKEN && mesh up --detach"
    ));
    Ok(())
}

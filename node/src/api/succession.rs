//! What `mesh rename` and `mesh replace` ask, as JSON, checked for what makes no sense whatever the mesh is. The driver
//! decides the rest.

use super::types::ApiError;
use mesh::limits::{INVITATION_MS_MAX, TEXT_BYTES_MAX};
use mesh::roster::valid_host_name;
use serde::{Deserialize, Serialize};

/// Gives a host another name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenameRequest {
    /// Its name.
    pub host: String,
    /// Its new one.
    pub name: String,
}

/// Takes a lost host out and invites its successor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplaceRequest {
    /// The lost host's name.
    pub host: String,
    /// Why.
    pub reason: String,
    /// How long the successor's token can be used, from now.
    pub expires_ms: u64,
    /// Also when it may live.
    pub force: bool,
}

impl RenameRequest {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<(), ApiError> {
        named(&self.host)?;
        named(&self.name)
    }
}

impl ReplaceRequest {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<(), ApiError> {
        named(&self.host)?;
        if self.reason.trim().is_empty() || self.reason.len() > TEXT_BYTES_MAX || self.reason.contains('\0') {
            let message = format!("the reason is empty, has a zero byte, or is longer than {TEXT_BYTES_MAX} bytes");
            return Err(ApiError::bad_request(message).hint("use --reason \"disk burnt\""));
        }
        if !(1..=INVITATION_MS_MAX).contains(&self.expires_ms) {
            return Err(ApiError::bad_request("an invitation lives for at most 30 days").hint("use --expires 24h"));
        }
        Ok(())
    }
}

fn named(name: &str) -> Result<(), ApiError> {
    if valid_host_name(name) { Ok(()) } else { Err(super::server::bad_host_name(name)) }
}

//! What `mesh restart` and `mesh reboot` ask, and what they are told, as JSON. The driver decides.

use super::types::ApiError;
use mesh::limits::TEXT_BYTES_MAX;
use serde::{Deserialize, Serialize};

/// Bytes of a user's name.
const USER_BYTES_MAX: usize = 32;

/// A host is to restart its service, or its machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderRequest {
    /// The machine; else the service.
    pub reboot: bool,
    /// Why.
    pub reason: String,
    /// Budget, cool-down and running builds do not hold it back.
    pub force: bool,
    /// The user who asks, by the word of the command line.
    pub user: String,
}

impl OrderRequest {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<(), ApiError> {
        if self.reason.trim().is_empty() || self.reason.len() > TEXT_BYTES_MAX || self.reason.contains('\0') {
            let message = format!("the reason is empty, has a zero byte, or is longer than {TEXT_BYTES_MAX} bytes");
            return Err(ApiError::bad_request(message).hint("use --reason \"new kernel\""));
        }
        if !(1..=USER_BYTES_MAX).contains(&self.user.len()) || self.user.chars().any(char::is_control) {
            return Err(ApiError::bad_request(format!("a user has a name of {USER_BYTES_MAX} bytes at most")));
        }
        Ok(())
    }
}

/// What happens to an order, in the order in which it does. The last is [`OrderEvent::Proved`] or [`OrderEvent::Failed`];
/// a daemon that restarts itself can tell neither.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum OrderEvent {
    /// It is in the ledger.
    Written {
        /// Its name.
        order: String,
        /// To whom.
        host: String,
        /// What.
        act: String,
    },
    /// The target has stored it, and acts next.
    TakenOn {
        /// The target.
        host: String,
    },
    /// The target is back, and has signed what proves it.
    Proved {
        /// The target.
        host: String,
        /// Its start number now.
        start: u64,
    },
    /// It is not carried out, as far as is known.
    Failed {
        /// Why.
        text: String,
        /// What to do next; may be empty.
        hint: String,
    },
}

//! What an order asks for, and what names the life of a machine that it is meant for.
//!
//! Words that a ledger's entry and a warrant share. An order itself, who may give it and whether its target obeys, is
//! [`crate::warrant`]; why one is written is [`crate::healing`]. Nothing here decides anything.

use crate::tagged;
use serde::{Deserialize, Serialize};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
use std::fmt;

/// One boot of one machine's kernel, as the kernel names it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(#[serde(with = "serde_bytes")] pub [u8; 16]);

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

tagged! {
    /// What an order asks for.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum Act {
        /// Restart the machine.
        1 => Reboot(Gently),
        /// Restart the daemon's service.
        2 => Restart(Gently),
    }
}

impl Act {
    /// The grace that running builds have.
    pub fn grace_ms(&self) -> u64 {
        match self {
            Act::Reboot(gently) | Act::Restart(gently) => gently.grace_ms,
        }
    }

    /// Whether the whole machine is restarted.
    pub fn is_reboot(&self) -> bool {
        matches!(self, Act::Reboot(_))
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_reboot() { "reboot" } else { "restart of the service" })
    }
}

/// How a restart is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Gently {
    /// How long running builds may take to end, in milliseconds.
    pub grace_ms: u64,
}

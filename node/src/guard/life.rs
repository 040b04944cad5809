//! The life in which a host is, as its daemon wrote it at its start: what `mesh-guard` says in a hello when that daemon
//! answers nobody any more, and what the next start compares itself with.

use mesh::order::BootId;
use mesh::warrant::Host;
use serde_tuple::{Deserialize_tuple, Serialize_tuple};

/// One life of the daemon, and what the host's owner has decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct Life {
    /// The boot that it began in.
    pub boot: BootId,
    /// Its start number; 0 before the first.
    pub start: u64,
    /// `protected` of mesh.toml.
    pub protected: bool,
    /// `allow_reboot` of mesh.toml.
    pub allow_reboot: bool,
}

impl Life {
    /// Before the first start: it refuses everything.
    pub fn unborn() -> Life {
        Life { boot: BootId([0; 16]), start: 0, protected: true, allow_reboot: false }
    }

    /// As a hearing wants it. A guard names the boot that it is in itself, whatever is written: the machine may have
    /// started anew without the daemon.
    pub fn host(&self, boot: BootId, wall_ms: u64) -> Host {
        let Life { start, protected, allow_reboot, .. } = *self;
        Host { boot, start, protected, allow_reboot, wall_ms }
    }
}

//! What a target stores of warrants, and the one way from a decision to a deed.
//!
//! [`Guard`] lives in one file for daemon and guard alike. Whoever holds a hearing locks that file, loads it, decides,
//! writes what [`Unstored::bytes`] gives, syncs, reads it back, and only then has what it waits for. Nothing here locks,
//! writes or reads. A file that is missing is not an empty one: only `init`, `join` and `install` make [`Guard::new`].

use super::{OrderHash, OrderId};
use crate::identity::PeerKey;
use crate::lease::Fence;
use crate::limits::{GUARD_BYTES_MAX, ORDERS_REMEMBERED};
use crate::mutants::{self, Mutant};
use crate::roster::MeshId;
use crate::wire::{Signed, WireError, decode, encode};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
use std::collections::VecDeque;
use std::fmt;

/// What a target has stored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Guard {
    mesh: MeshId,
    key: PeerKey,
    highest: Fence,
    taken: VecDeque<Taken>,
}

/// An order that was taken on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub(super) struct Taken {
    pub(super) id: OrderId,
    pub(super) order: OrderHash,
    pub(super) receipt: Signed,
}

/// Why stored bytes are of no use. Nobody acts with them; a person has to look.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GuardError {
    /// Damaged.
    #[error("the guard's file is damaged ({0}): look at it, then run `mesh install` again")]
    Damaged(#[from] WireError),
    /// Another host's, or another mesh's.
    #[error("the guard's file is that of another host or mesh")]
    NotMine,
}

impl Guard {
    /// Of a host that has never taken an order on.
    pub fn new(mesh: MeshId, key: PeerKey) -> Guard {
        Guard { mesh, key, highest: Fence::default(), taken: VecDeque::new() }
    }

    /// From the file.
    ///
    /// # Errors
    /// [`GuardError`].
    pub fn load(bytes: &[u8], mesh: MeshId, key: PeerKey) -> Result<Guard, GuardError> {
        let guard: Guard = decode(bytes, GUARD_BYTES_MAX)?;
        match (guard.mesh, guard.key) == (mesh, key) {
            true => Ok(guard),
            false => Err(GuardError::NotMine),
        }
    }

    /// For the file.
    pub fn bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// The mesh.
    pub fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// The highest fence of a warrant that was accepted.
    pub fn highest(&self) -> Fence {
        self.highest
    }

    /// The receipt of an order that was taken on.
    pub fn receipt(&self, order: &OrderHash) -> Option<&Signed> {
        self.taken.iter().find(|taken| taken.order == *order).map(|taken| &taken.receipt)
    }

    pub(super) fn has_id(&self, id: &OrderId) -> bool {
        self.taken.iter().any(|taken| taken.id == *id)
    }

    /// After an order: what a forgotten one would do again is kept from happening by its nonce.
    pub(super) fn after(&self, taken: Taken, verified: Option<Fence>) -> Guard {
        let mut next = self.clone();
        next.highest = next.highest.max(verified.unwrap_or_default());
        next.taken.push_back(taken);
        while next.taken.len() > ORDERS_REMEMBERED {
            next.taken.pop_front();
        }
        next
    }
}

/// Something that may be had only when certain bytes are on the disk.
#[must_use = "nothing happens before the bytes are stored"]
pub struct Unstored<T> {
    bytes: Vec<u8>,
    value: T,
}

impl<T> fmt::Debug for Unstored<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unstored({} bytes)", self.bytes.len())
    }
}

/// What was read back is not what was to be stored. What was to be had is gone; nothing was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the disk does not hold what was to be stored: nothing is done")]
pub struct NotStored;

impl<T> Unstored<T> {
    pub(super) fn new(bytes: Vec<u8>, value: T) -> Unstored<T> {
        Unstored { bytes, value }
    }

    /// What must be on the disk, synced, in place of what was loaded.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives the value for what was read back from the disk after the sync.
    ///
    /// # Errors
    /// [`NotStored`]; the value is gone.
    pub fn stored(self, read_back: &[u8]) -> Result<T, NotStored> {
        match read_back == self.bytes || mutants::on(Mutant::WarrantBeforeStored) {
            true => Ok(self.value),
            false => Err(NotStored),
        }
    }
}

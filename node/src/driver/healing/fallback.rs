//! When a target's daemon answers on no path: another way to the same host, for the same frames.
//!
//! [`super::deliver`] asks for it when no stream can be opened, or when no hello comes. What is on the other end then decides by
//! the same code as the daemon ([`crate::guard`]). The way itself, over SSH and if need be through a courier, is
//! [`super::super::courier`]'s.

use super::super::Inner;
use crate::consensus::Duplex;
use mesh::identity::PeerKey;
use std::sync::Arc;

impl Inner {
    /// A byte stream to the guard of a host: its hello comes first, then it takes frames.
    ///
    /// # Errors
    /// In words, when there is no such way.
    pub(super) async fn open_guard(self: &Arc<Self>, target: PeerKey) -> Result<Box<dyn Duplex>, String> {
        self.open_door(target).await
    }
}

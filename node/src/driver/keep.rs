//! Keeps where peers were over a restart, so that hosts that all start anew find each other again.
//!
//! It is written when it has changed, and seldom; what is lost of it, or torn, is only found out again. What is kept
//! and what it counts for afterwards is [`mesh::addresses::Kept`]'s; where the bytes are is a seam
//! ([`crate::seams::Notes`]). Dialling goes on in [`super::watch`].

use super::Inner;
use super::shared::lock;
use crate::seams::{Blocking, Notes};
use mesh::addresses::Kept;
use std::sync::Arc;
use std::time::Duration;

/// From one write to the next. The first comes at once: a host that ran for a second only may be one of the two that
/// have to find each other, or one that was taken out of the mesh and is told so by nobody whom it cannot dial. In a
/// mesh at rest there is nothing new.
const KEEP_EVERY: Duration = Duration::from_millis(100);

/// What the last start kept, when that is of any use.
pub(super) fn kept(notes: &dyn Notes) -> Kept {
    let Some(bytes) = notes.read() else { return Kept::default() };
    Kept::decode(&bytes).unwrap_or_else(|error| {
        tracing::info!(%error, "what was kept of the others' addresses is damaged: they are found without it");
        Kept::default()
    })
}

impl Inner {
    /// Writes what is to be kept, when it is not what was written last.
    pub(super) async fn run_keeper(self: Arc<Self>, notes: Arc<dyn Notes>, blocking: Blocking, mut written: Kept) {
        loop {
            self.leads_changed.notified().await;
            let kept = lock(&self.addresses).keep();
            if kept == written {
                continue;
            }
            let (bytes, notes) = (kept.encode(), notes.clone());
            match blocking.run(move || notes.write(&bytes)).await {
                Ok(()) => written = kept,
                Err(error) => tracing::warn!(%error, "the others' addresses are not kept for the next start"),
            }
            tokio::time::sleep(KEEP_EVERY).await;
        }
    }
}

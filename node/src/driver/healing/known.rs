//! What the guard knows of the roster when the daemon is gone: written whenever it changes, and now and then for its age.

use super::super::Inner;
use mesh::warrant::Known;
use std::sync::Arc;
use std::time::Duration;

/// Changes come in bursts: what is written after this has the last of them.
const SETTLE: Duration = Duration::from_millis(500);
/// Written anew after this when only its age has changed: small beside the week for which it is good.
const REFRESH: Duration = Duration::from_secs(600);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(60);

impl Inner {
    /// Roster, voters or leader have changed.
    pub(in super::super) fn known_did_change(&self) {
        self.healing.known_changed.notify_one();
    }

    pub(in super::super) async fn run_known_keeper(self: Arc<Self>) {
        // A ledger that is still read from its log knows less than the last start did.
        let mut as_of_ms = self.healing.papers(|store| store.known()).await.map_or(0, |known| known.as_of_ms());
        let mut written = vec![];
        loop {
            let known = self.shared.with(Known::of);
            let bytes = known.bytes();
            let mut next = REFRESH;
            if known.as_of_ms() >= as_of_ms && bytes != written {
                let is_of_ms = known.as_of_ms();
                match self.healing.papers(move |store| store.keep_known(&known)).await {
                    Ok(()) => (as_of_ms, written) = (is_of_ms, bytes),
                    Err(error) => {
                        tracing::warn!(%error, "what the guard knows of the roster is not written");
                        next = AGAIN;
                    }
                }
            }
            let _ = tokio::time::timeout(next, self.healing.known_changed.notified()).await;
            tokio::time::sleep(SETTLE).await;
        }
    }
}

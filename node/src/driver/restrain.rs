//! What keeps builds waiting, as this host sees it, and the time that ends it.
//!
//! Blame and restraint are pure ([`mesh::blame`], [`mesh::restraint`]); here is when they are asked, and the leader's
//! empty batch that lets ledger time pass while nothing else happens: else no pause of an idle mesh would ever end.

use super::Inner;
use super::shared::lock;
use mesh::blame::Verdict;
use mesh::ledger::{Build, Ledger};
use mesh::placement::held_back;
use mesh::restraint::{Restraint, wakes_ms};
use std::sync::Arc;
use std::time::Duration;

/// How long an empty batch may take.
const WITHIN: Duration = Duration::from_secs(5);

/// Why a build waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Waits {
    /// In words; empty when it does not, or merely waits for its turn.
    pub why: String,
    /// Its package has failed on two hosts.
    pub held: bool,
}

impl Inner {
    /// What blame says of this host's copy of the ledger; judged anew when that has changed.
    pub(super) fn judged(&self, ledger: &Ledger) -> Arc<[Verdict]> {
        lock(&self.judge).verdicts(ledger, self.now())
    }

    /// Why builds wait, in their order.
    pub(super) fn why_waiting<'a>(&self, builds: impl IntoIterator<Item = &'a Build>) -> Vec<Waits> {
        self.shared.with(|ledger| {
            let (restraint, view) = (Restraint::new(ledger, &self.judged(ledger)), lock(&self.view));
            let waits = |build| {
                let why = held_back(ledger, &view, &restraint, build).unwrap_or_default();
                Waits { held: !why.is_empty() && restraint.holds(ledger, build).is_some(), why }
            };
            builds.into_iter().map(waits).collect()
        })
    }

    /// As the leader: commits an empty batch when something that stands waits for time. True when time has passed.
    pub(super) async fn let_time_pass(&self) -> bool {
        let at_ms = self.shared.with(|ledger| wakes_ms(ledger, &self.judged(ledger)));
        if self.ledger_time_ms() < at_ms {
            return false;
        }
        match tokio::time::timeout(WITHIN, self.propose(vec![])).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => {
                tracing::debug!(error, "ledger time does not pass now");
                false
            }
            Err(_) => false,
        }
    }
}

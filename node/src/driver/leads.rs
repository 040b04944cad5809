//! Whom this host found and where, kept for its next start.
//!
//! What a host was told when it joined is all that it has after a restart otherwise, and the founder was told
//! nothing: one that comes back at another address would dial nobody, and nobody would know where it is. What is
//! kept are leads, as good as any: a dial expects the key of whom it looks for. Nothing here decides who is a member.

use super::shared::lock;
use super::{Inner, Known};
use mesh::addresses::Source;
use mesh::identity::PeerKey;
use mesh::limits::HELLO_BYTES_MAX;
use mesh::wire::encode;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Writes down whom a host found and where; what was written before is replaced. Returns when it is on the disk.
pub type Keep = Arc<dyn Fn(Vec<Known>) -> io::Result<()> + Send + Sync>;

/// The disk is written at most so often.
const PAUSE: Duration = Duration::from_secs(1);
/// What is kept has to be read again: the state folder bounds its files.
const BYTES_MAX: usize = HELLO_BYTES_MAX;

impl Inner {
    /// Takes what an earlier start has kept.
    pub(super) fn learn_found(&self, found: &[Known]) {
        let now = self.now();
        let mut addresses = lock(&self.addresses);
        for known in found.iter().filter(|known| known.peer != self.me) {
            for address in &known.addresses {
                addresses.learn(known.peer, address, Source::Invitation, None, now);
            }
        }
    }

    /// Keeps leads whenever there are others than before.
    pub(super) async fn run_keeper(self: Arc<Self>, found: Vec<Known>, keep: Keep) {
        let mut kept = found;
        loop {
            self.found_somebody.notified().await;
            let found = self.found_by_now(&kept);
            if found != kept {
                let (keep, written) = (keep.clone(), found.clone());
                match self.blocking.run(move || keep(written)).await {
                    Ok(()) => kept = found,
                    Err(error) => tracing::warn!(%error, "where the others are could not be written down"),
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The members and where they are; of one that is nowhere now, where it was before.
    fn found_by_now(&self, before: &[Known]) -> Vec<Known> {
        let now = self.now();
        let before: BTreeMap<PeerKey, &Known> = before.iter().map(|known| (known.peer, known)).collect();
        let members: Vec<(PeerKey, String)> =
            self.shared.with(|l| l.roster().members().map(|(peer, member)| (*peer, member.name.clone())).collect());
        let addresses = lock(&self.addresses);
        let others = members.into_iter().filter(|(peer, _)| *peer != self.me);
        let mut found: Vec<Known> = others
            .filter_map(|(peer, name)| {
                let leads = addresses.known(&peer, now);
                let leads = if leads.is_empty() { before.get(&peer)?.addresses.clone() } else { leads };
                Some(Known { peer, name, addresses: leads })
            })
            .collect();
        while encode(&found).len() > BYTES_MAX {
            found.truncate(found.len() / 2); // a large mesh: half of it is enough to start from
        }
        found
    }
}

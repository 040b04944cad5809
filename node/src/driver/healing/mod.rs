//! Healing in a daemon: what the pure parts ([`mesh::blame`], [`mesh::healing`], [`mesh::warrant`]) need from the world,
//! and what they ask of it.
//!
//! The leader's task asks [`mesh::healing::plan`] and writes its steps into the ledger, one at a time. An order goes
//! from the ledger to its target by [`deliver`]: hello, the voters' signatures ([`voters`]), warrant, receipt; a person's is
//! signed by the signer alone ([`by_hand`]), who shows how it became one ([`vouch`]). Every
//! host is a target as well ([`target`]) and tells what became of it ([`lives`]). Nothing here judges: rules and checks are the pure
//! parts', and what is on the disk first is [`crate::guard`]'s.

mod by_hand;
mod deliver;
mod fallback;
mod known;
mod leader;
mod lives;
mod sights;
mod target;
mod voters;
mod vouch;

pub use voters::Ask;

use super::Inner;
use crate::api::types::{Level, Warning};
use crate::guard::Store;
use crate::seams::Blocking;
use mesh::healing::Entry;
use mesh::lease::Fence;
use mesh::ledger::{Command, Reply};
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::Notify;

/// How long an entry of healing may take: an election, and some.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// What a node keeps for healing.
pub(super) struct Healing {
    /// The papers by which it decides as a target and as a voter.
    store: Store,
    blocking: Blocking,
    /// Why they are of no use, when they are not; for status.
    broken: Mutex<Option<String>>,
    /// Roster, voters or leader are others than those that were written for the guard.
    known_changed: Notify,
    /// Something that a plan is made from has changed.
    wake: Notify,
    leading: Mutex<leader::Leading>,
    target: Mutex<target::Target>,
    seen: Mutex<voters::Seen>,
    vouched: Mutex<vouch::Vouched>,
}

impl Healing {
    pub(super) fn new(store: Store, blocking: Blocking) -> Healing {
        Healing {
            store,
            blocking,
            broken: Mutex::default(),
            known_changed: Notify::new(),
            wake: Notify::new(),
            leading: Mutex::default(),
            target: Mutex::default(),
            seen: Mutex::default(),
            vouched: Mutex::default(),
        }
    }
}

impl Healing {
    /// Does something with the papers where it may block.
    async fn papers<T: Send + 'static>(&self, work: impl FnOnce(&Store) -> T + Send + 'static) -> T {
        let store = self.store.clone();
        self.blocking.run(move || work(&store)).await
    }
}

impl Inner {
    /// Brings an entry of healing, signed by this host, into the ledger; with a fence as the leader.
    ///
    /// # Errors
    /// In words, when nobody took it. What the ledger says of it is the reply.
    pub async fn write_healing(&self, entry: Entry, fence: Option<Fence>) -> Result<Reply, String> {
        let command = Command::Heal(entry);
        self.all_know(&command)?;
        let entry = mesh::ledger::Entry::seal(&self.keys, self.mesh, self.request_id(), fence, command);
        self.submit(entry, WRITE_WITHIN).await.map(|(reply, _)| reply).map_err(|error| error.to_string())
    }

    /// Tells when this host can neither obey nor sign a warrant, for status.
    pub(super) fn warn_of_papers(&self, name: &str, warnings: &mut Vec<Warning>) {
        if let Some(why) = super::shared::lock(&self.healing.broken).clone() {
            let text = format!("{name} can neither obey nor sign a warrant: {why}");
            warnings.push(Warning { code: "guard".into(), level: Level::Warning, host: Some(name.to_owned()), text });
        }
    }
}

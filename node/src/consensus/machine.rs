//! The state machine as openraft sees it, over the one that the ledger implements.
//!
//! Applied state lives in memory. A start restores the stored snapshot, then openraft applies the log from
//! there to the stored commit mark. A snapshot is taken between two entries and is on the disk before the
//! log it covers is purged. Nothing here knows what an entry means.

use super::store::Store;
use super::types::{Applied, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, term_of};
use futures::{Stream, TryStreamExt};
use mesh::identity::PeerKey;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// What the log is for. Called in the order of the log, by one task at a time.
pub trait StateMachine: Send + Sync + 'static {
    /// Applies one committed entry. Pure in state and payload, and quick: the log waits for it.
    fn apply(&self, index: u64, term: u64, payload: &[u8]) -> Vec<u8>;
    /// The leader of `term` has begun; no entry of a lower term follows.
    fn leader_changed(&self, term: u64, index: u64);
    /// A committed membership. Comes twice for a change of voters: first the union of old and new.
    fn membership(&self, index: u64, voters: &BTreeSet<PeerKey>, learners: &BTreeSet<PeerKey>);
    /// The whole applied state.
    fn snapshot(&self) -> Vec<u8>;
    /// Replaces the whole applied state.
    ///
    /// # Errors
    /// When the bytes are no snapshot of this kind; the state is as before, and the host stops.
    fn restore(&self, bytes: &[u8]) -> Result<(), String>;
}

/// openraft's side of a [`StateMachine`].
pub struct Machine {
    app: Arc<dyn StateMachine>,
    store: Store,
    last: Option<LogId>,
    membership: StoredMembership,
}

impl Machine {
    pub(super) fn new(
        app: Arc<dyn StateMachine>,
        store: Store,
        found: Option<(SnapshotMeta, Vec<u8>)>,
    ) -> io::Result<Self> {
        let mut machine = Machine { app, store, last: None, membership: StoredMembership::default() };
        if let Some((meta, bytes)) = found {
            machine.restore(&meta, &bytes)?;
        }
        Ok(machine)
    }

    fn restore(&mut self, meta: &SnapshotMeta, bytes: &[u8]) -> io::Result<()> {
        self.app.restore(bytes).map_err(|e| {
            io::Error::new(io::ErrorKind::InvalidData, format!("the ledger's snapshot cannot be restored: {e}"))
        })?;
        self.last = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.tell_membership();
        Ok(())
    }

    fn tell_membership(&self) {
        let voters = self.membership.voter_ids().collect();
        let learners = self.membership.membership().learner_ids().collect();
        self.app.membership(self.membership.log_id().map_or(0, |id| id.index), &voters, &learners);
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let (index, term) = (entry.log_id.index, term_of(&entry.log_id));
            self.last = Some(entry.log_id);
            let result = match entry.payload {
                EntryPayload::Blank => {
                    self.app.leader_changed(term, index);
                    Vec::new()
                }
                EntryPayload::Normal(payload) => self.app.apply(index, term, &payload.0),
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                    self.tell_membership();
                    Vec::new()
                }
            };
            if let Some(responder) = responder {
                responder.send(Applied { index, term, result });
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        // The state is taken here, between two entries; it is stored while later ones are applied.
        let meta = SnapshotMeta { last_log_id: self.last, last_membership: self.membership.clone() };
        Builder { store: self.store.clone(), meta, bytes: Arc::new(self.app.snapshot()) }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Vec<u8>) -> io::Result<()> {
        self.restore(meta, &snapshot)?;
        self.store.save_snapshot(meta.clone(), Arc::new(snapshot)).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.store.snapshot().await?.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// A snapshot on its way to the disk.
pub struct Builder {
    store: Store,
    meta: SnapshotMeta,
    bytes: Arc<Vec<u8>>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        self.store.save_snapshot(self.meta.clone(), self.bytes.clone()).await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: self.bytes.to_vec() })
    }
}

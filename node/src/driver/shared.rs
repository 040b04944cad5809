//! The ledger as the parts of a node share it: behind one lock, with waiting for changes.
//!
//! Consensus writes it (it is the replicated state machine), everybody else reads. Locks are held for
//! the length of a look, never across an await.

use crate::consensus::StateMachine;
use mesh::identity::PeerKey;
use mesh::ledger::{Changes, Ledger, Reply};
use mesh::wire::encode;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Locks, also when a thread panicked with it: our locks guard data that is whole between statements.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The shared ledger.
pub struct Shared {
    ledger: Mutex<Ledger>,
    pending: Mutex<Changes>,
    /// Wakes the driver, which takes the changes.
    driver: Notify,
    /// Wakes everybody who waits for something to be in the ledger.
    waiters: Notify,
}

impl Shared {
    /// Around a ledger as founded.
    pub fn new(mut ledger: Ledger) -> Self {
        let pending = ledger.take_changes(); // the founder is news, too
        Shared {
            ledger: Mutex::new(ledger),
            pending: Mutex::new(pending),
            driver: Notify::new(),
            waiters: Notify::new(),
        }
    }

    /// A look at the ledger. Keep it short.
    pub fn with<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&lock(&self.ledger))
    }

    /// Waits until a look gives something.
    pub async fn until<T>(&self, mut look: impl FnMut(&Ledger) -> Option<T>) -> T {
        loop {
            let changed = self.waiters.notified();
            tokio::pin!(changed);
            changed.as_mut().enable(); // before the look: a change between look and wait is not missed
            if let Some(found) = self.with(&mut look) {
                return found;
            }
            changed.await;
        }
    }

    /// For the driver: waits for changes and takes them.
    pub async fn changes(&self) -> Changes {
        loop {
            let changes = std::mem::take(&mut *lock(&self.pending));
            if changes != Changes::default() {
                return changes;
            }
            self.driver.notified().await;
        }
    }

    fn publish(&self, ledger: &mut Ledger) {
        let new = ledger.take_changes();
        {
            let mut pending = lock(&self.pending);
            pending.builds.extend(new.builds);
            pending.roster |= new.roster;
            pending.leader |= new.leader;
            pending.healing |= new.healing;
            pending.put_away.extend(new.put_away);
        }
        self.driver.notify_one();
        self.waiters.notify_waiters();
    }
}

impl StateMachine for Shared {
    fn apply(&self, index: u64, term: u64, payload: &[u8]) -> Vec<u8> {
        let mut ledger = lock(&self.ledger);
        let replies: Vec<Reply> = ledger.apply(index, term, payload);
        for reply in replies.iter().filter(|r| !r.is_ok()) {
            tracing::debug!(index, code = ?reply.code, text = reply.text, "an entry had no effect");
        }
        self.publish(&mut ledger);
        encode(&replies)
    }

    fn leader_changed(&self, term: u64, _index: u64) {
        let mut ledger = lock(&self.ledger);
        ledger.begin_term(term);
        self.publish(&mut ledger);
    }

    fn membership(&self, index: u64, voters: &BTreeSet<PeerKey>, learners: &BTreeSet<PeerKey>) {
        tracing::debug!(index, voters = voters.len(), learners = learners.len(), "consensus membership");
        self.driver.notify_one();
        self.waiters.notify_waiters();
    }

    fn snapshot(&self) -> Vec<u8> {
        self.with(Ledger::snapshot)
    }

    fn restore(&self, bytes: &[u8]) -> Result<(), String> {
        let mut ledger = lock(&self.ledger);
        *ledger = ledger.restore(bytes).map_err(|e| e.to_string())?;
        self.publish(&mut ledger);
        Ok(())
    }
}

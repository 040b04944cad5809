//! What a host tells of its own lives: that this one follows an order which it took on in the one before (rule 7: a success
//! is proved), and that its machine started anew though nobody had ordered it (incident 18).
//!
//! The life before is in the guard's papers, the orders are in the ledger. Nothing here acts.

use super::super::Inner;
use super::super::shared::lock;
use crate::guard::Life;
use mesh::healing::{Entry, Proof, Remark, Told, Written};
use mesh::ledger::Ledger;
use mesh::order::BootId;
use mesh::warrant::{Guard, OrderHash, OrderId};
use mesh::wire::Signed;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// After an entry that nobody took.
const AGAIN: Duration = Duration::from_secs(5);

/// Something that is to be told.
enum Tidings {
    /// A receipt that the ledger lacks: who brought the warrant could not write it.
    Receipt(OrderId, Signed),
    /// What was ordered is done.
    Proof(OrderId),
}

impl Inner {
    pub(in super::super) async fn run_lives(self: Arc<Self>) {
        let (boot, start) = (BootId(self.facts.boot_id), self.start);
        let life = Life { boot, start, protected: self.protected, allow_reboot: self.allow_reboot };
        let begun = self.healing.papers(move |store| Ok((store.begin_life(&life)?, store.guard()?))).await;
        let (before, guard) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                let error: crate::guard::StoreError = error;
                tracing::warn!(%error, "this host can neither obey nor sign a warrant");
                *lock(&self.healing.broken) = Some(error.to_string());
                return;
            }
        };
        if let Some(before) = before.filter(|before| before.boot != boot) {
            self.tell_of_reboot(&before, &guard).await;
        }
        self.tell_of_orders(&guard).await;
    }

    /// Waits until this host's ledger is the present leader's.
    async fn caught_up(&self) {
        self.shared.until(|l| l.leader().filter(|(leader, _)| self.consensus.leader() == Some(*leader))).await;
    }

    async fn tell_of_reboot(&self, before: &Life, guard: &Guard) {
        self.caught_up().await;
        let orders = |l: &Ledger| l.healing().orders().any(|written| explains(written, self, before, guard));
        if self.shared.with(orders) {
            return;
        }
        let text = format!("boot {:?} follows {:?}", BootId(self.facts.boot_id), before.boot);
        tracing::warn!(text, "this machine has started anew, and no order says why");
        let remark = Remark { host: self.me, order: None, told: Told::Unexplained, text };
        while let Err(error) = self.write_healing(Entry::Remark(remark.clone()), None).await {
            tracing::debug!(error, "an unexplained reboot is not in the ledger yet");
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Each order that this host took on is told once: its receipt where that is missing, its proof when it is done.
    /// What it takes on in this life is told by who hears it.
    async fn tell_of_orders(&self, guard: &Guard) {
        let mut told = BTreeSet::new();
        loop {
            let tidings = self.shared.until(|l| {
                l.healing().orders().filter(|w| w.order.target == self.me).find_map(|w| self.tidings(w, guard, &told))
            });
            let (mark, entry) = match tidings.await {
                Tidings::Receipt(id, receipt) => ((id, false), Entry::Receipt(receipt)),
                Tidings::Proof(id) => {
                    let proof = Proof { order: id, boot: BootId(self.facts.boot_id), start: self.start };
                    ((id, true), Entry::Proof(proof))
                }
            };
            match self.write_healing(entry, None).await {
                Ok(reply) => {
                    tracing::info!(order = %mark.0, proof = mark.1, taken = reply.is_ok(), reply.text, "told of an order");
                    told.insert(mark);
                }
                Err(error) => {
                    tracing::debug!(error, "what became of an order is not in the ledger yet");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    fn tidings(&self, w: &Written, guard: &Guard, told: &BTreeSet<(OrderId, bool)>) -> Option<Tidings> {
        let id = w.order.id;
        if w.receipt.is_none() {
            let receipt = guard.receipt(&w.hash).filter(|_| !told.contains(&(id, false)))?;
            return Some(Tidings::Receipt(id, receipt.clone()));
        }
        let booted = w.order.boot != BootId(self.facts.boot_id);
        let done = booted || (!w.order.act.is_reboot() && self.start > w.order.start);
        (done && w.proof.is_none() && !told.contains(&(id, true))).then_some(Tidings::Proof(id))
    }
}

/// Whether an order says why this machine is in another boot than it was.
fn explains(written: &Written, node: &Inner, before: &Life, guard: &Guard) -> bool {
    let taken = |hash: &OrderHash| guard.receipt(hash).is_some();
    let order = &written.order;
    order.target == node.me
        && order.act.is_reboot()
        && order.boot == before.boot
        && (written.receipt.is_some() || taken(&written.hash))
}

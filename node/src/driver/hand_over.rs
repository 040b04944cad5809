//! A sole voter that leaves: it gives its seat to another host first, or stays.
//!
//! Once it is taken out nobody would be left to agree with: no majority of an empty set elects a leader. So it
//! signs the voter set that has another instead, as it signs any ([`super::lead`]), waits until that other leads,
//! and only then asks to be taken out (`control.rs`). Of several voters the others go on without this; that they
//! can is checked. Who the other is, says [`mesh::placement::heir`].

use super::Inner;
use super::shared::lock;
use crate::api::types::ApiError;
use mesh::identity::PeerKey;
use mesh::placement::{View, heir};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long another may take to lead: a change of the voters and an election, several times over.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(20);

impl Inner {
    /// Sees to it that the mesh has a leader without this host. At once when it does not vote.
    pub(super) async fn hand_over(&self) -> Result<(), ApiError> {
        let view = lock(&self.view).clone();
        let (voters, last_signer, heir) = self.shared.with(|l| {
            let last_signer = l.roster().signers() == 1 && l.roster().member(&self.me).is_some_and(|m| m.signer);
            (l.voters().voters().clone(), last_signer, heir(l, &view, &self.me))
        });
        let votes = self.consensus.voters().contains(&self.me); // a change of the voters may be under way
        if last_signer || (!voters.contains(&self.me) && !votes) {
            return Ok(()); // the ledger refuses the last signer, and says why
        }
        if voters.len() > 1 {
            return self.check_majority_without(&self.me);
        }
        let heir = heir.or_else(|| voters.into_iter().find(|voter| *voter != self.me));
        let Some(heir) = heir else {
            return Err(ApiError::conflict(
                "this host is the only voter and no other has caught up with it: without it nobody could lead",
            )
            .hint("start another host and wait until `mesh status` shows it alive, then leave"));
        };
        tracing::info!(to = self.name_of(&heir), "this host leaves, and gives its vote to another");
        self.retiring.store(true, Ordering::Relaxed);
        self.wake_leader.notify_one();
        let handed_over = async {
            let other_leads = self.shared.until(|l| {
                let without_me = !l.voters().voters().contains(&self.me);
                l.leader().filter(|(leader, _)| without_me && *leader != self.me).map(drop)
            });
            other_leads.await;
            let mut changes = self.consensus.changes();
            while self.consensus.voters().contains(&self.me) && changes.next().await.is_some() {}
        };
        let in_time = tokio::time::timeout(HAND_OVER_WITHIN, handed_over).await;
        self.retiring.store(false, Ordering::Relaxed);
        in_time.map_err(|_| {
            ApiError::conflict(format!("{} has not begun to lead: this host stays", self.name_of(&heir)))
                .hint("look at `mesh status`, and try again")
        })
    }

    /// The voter set that the leader wants while it hands over.
    pub(super) fn heirs(&self, view: &View) -> Option<BTreeSet<PeerKey>> {
        let retiring = self.retiring.load(Ordering::Relaxed);
        let heir = || self.shared.with(|l| heir(l, view, &self.me));
        retiring.then(heir).flatten().map(|heir| BTreeSet::from([heir]))
    }

    /// Whether the voters have a majority alive, as far as this host sees, when one is taken out.
    pub(super) fn check_majority_without(&self, out: &PeerKey) -> Result<(), ApiError> {
        let view = lock(&self.view).clone();
        let alive = |v: &PeerKey| *v == self.me || view.get(v).is_some_and(|host| host.alive);
        let away: Option<Vec<PeerKey>> = self.shared.with(|l| {
            let others = l.voters().voters().iter().filter(|v| *v != out);
            let away = others.filter(|v| !(l.roster().is_member(v) && alive(v))).copied();
            (!l.can_spare(out, alive)).then(|| away.collect())
        });
        let Some(away) = away else { return Ok(()) };
        let away: Vec<String> = away.iter().map(|v| self.name_of(v)).collect();
        Err(ApiError::conflict(format!(
            "without {} too few voters are alive to lead the mesh: {} is away",
            self.name_of(out),
            away.join(", ")
        ))
        .hint("start it, or evict it and wait until another host votes in its place; then try again"))
    }

    /// A voter that is needed cannot be put out: what takes it out would leave nobody who leads.
    pub(super) fn check_not_needed(&self, peer: &PeerKey) -> Result<(), ApiError> {
        let only = self.shared.with(|l| l.voters().voters().iter().eq([peer]) && l.roster().len() > 1);
        if !only {
            return self.check_majority_without(peer);
        }
        let name = self.name_of(peer);
        Err(ApiError::conflict(format!("{name} is the only voter: without it nobody could lead"))
            .hint(format!("run `mesh leave` on {name}, which hands its vote over first, or add a third host")))
    }
}

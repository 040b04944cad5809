//! What this host sees of the others, as healing asks it: the facts for the leader's plan, for a voter's own judgement,
//! and for `mesh plan`. Looks only.

use super::super::Inner;
use super::super::shared::lock;
use crate::net::Path;
use mesh::blame::Verdict;
use mesh::build::End;
use mesh::healing::{Facts, Sight};
use mesh::identity::PeerKey;
use mesh::ledger::{AttemptState, Ledger};
use mesh::limits::PROGRESS_MS;
use mesh::membership::State;
use mesh::order::BootId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Inner {
    /// Everything that a plan of healing is made from, as this host knows it now. The ledger is locked meanwhile: keep
    /// the look short. Nothing of it may be asked of this node inside the look.
    pub fn healing_facts<T>(&self, look: impl FnOnce(&Facts<'_>) -> T) -> T {
        let mut sights = self.sights();
        let view = lock(&self.view).clone();
        let verdicts = self.verdicts();
        self.shared.with(|ledger| {
            for host in busy(ledger, &sights) {
                if let Some(sight) = sights.get_mut(&host) {
                    sight.progress = true;
                }
            }
            let record = ledger.healing();
            look(&Facts { me: self.me, ledger, record, verdicts: &verdicts, view: &view, sights: &sights })
        })
    }

    /// What blame says of this host's ledger.
    pub fn verdicts(&self) -> Arc<[Verdict]> {
        self.shared.with(|ledger| self.judged(ledger))
    }

    /// What this host sees of each other one, and of itself, but for the progress of its builds.
    fn sights(&self) -> BTreeMap<PeerKey, Sight> {
        let refused = self.consensus.refused();
        let mut only_paths = self.only_paths();
        let now = self.now();
        let members = lock(&self.members);
        let sight = |(peer, view): (&PeerKey, std::borrow::Cow<'_, mesh::membership::HostView>)| {
            let presence = view.presence.as_ref()?;
            let standing = members.accusations(peer).filter(|heard| heard.ended.is_none());
            let sight = Sight {
                down: view.state == State::Down,
                accusers: standing.map(|heard| heard.accuser).collect(),
                progress: false,
                suspended: view.cloned || refused.contains_key(peer),
                boot: BootId(presence.boot_id),
                start: view.incarnation.map_or(presence.start, |life| life.start.max(presence.start)),
                boot_enabled: presence.facts.boot_enabled,
                allow_reboot: presence.facts.allow_reboot,
                protected: presence.facts.protected,
                only_path_of: only_paths.remove(peer).unwrap_or_default().into_iter().collect(),
                flaps: members.flaps(peer, now),
            };
            Some((*peer, sight))
        };
        members.hosts().filter_map(sight).collect()
    }

    /// Through whom others are reached from here, and in no other way: a relay in use, or the router that they are behind.
    fn only_paths(&self) -> BTreeMap<PeerKey, BTreeSet<PeerKey>> {
        let now = self.now();
        let mut paths: BTreeMap<PeerKey, BTreeSet<PeerKey>> = BTreeMap::new();
        let mut through = |host, other| paths.entry(host).or_default().insert(other);
        for other in self.others() {
            if let Some(Path::Relayed(Some(relay))) = self.net.path(other) {
                through(relay, other);
            }
            for router in lock(&self.addresses).only_behind(&other, now) {
                through(router, other);
            }
        }
        paths
    }
}

/// Hosts whose builds make progress: one was done there a short while ago, or a host that is heard runs one. What a build
/// writes is known to its host alone; one that hangs ends by its own timeout.
fn busy(ledger: &Ledger, sights: &BTreeMap<PeerKey, Sight>) -> BTreeSet<PeerKey> {
    let since_ms = ledger.time_ms().saturating_sub(PROGRESS_MS);
    let heard = |host: &PeerKey| sights.get(host).is_some_and(|sight| !sight.down && sight.accusers.is_empty());
    let mut busy = BTreeSet::new();
    for build in ledger.builds().running() {
        busy.extend(build.running().map(|a| a.host).filter(heard));
    }
    for build in ledger.builds().finished().rev().take_while(|build| build.finished_ms >= since_ms) {
        let done = |state: &AttemptState| matches!(state, AttemptState::Ended(o) if o.end == End::Done);
        let ended = build.attempts.iter().filter(|a| done(&a.state) && a.ended_ms >= since_ms);
        busy.extend(ended.map(|a| a.host));
    }
    busy
}

//! What a leader's plans are made from: each host as this one's watchers see it.

use super::Inner;
use super::shared::lock;
use mesh::identity::PeerKey;
use mesh::membership::{PresenceFacts, State};
use mesh::placement::{FLAPS_MAX, HostNow, View};
use std::sync::Arc;

impl Inner {
    /// The leader's view, made from the watchers'.
    pub(super) fn refresh_view(&self) {
        let now = self.now();
        let refused = self.consensus.refused();
        let view: View = {
            let members = lock(&self.members);
            self.consensus.suspend(members.hosts().filter(|(_, h)| h.cloned).map(|(peer, _)| *peer).collect());
            let networks = lock(&self.networks);
            let caught_up = self.consensus.caught_up();
            let nothing = PresenceFacts::default();
            let host = |peer: &PeerKey, h: &mesh::membership::HostView| {
                let facts = h.presence.as_ref().map_or(&nothing, |p| &p.facts);
                HostNow {
                    alive: h.state == State::Alive && h.presence.is_some(),
                    down: matches!(h.state, State::Down | State::Left),
                    start: h.incarnation.map_or(0, |i| i.start),
                    cores: facts.cores,
                    memory_mib: facts.memory_mib,
                    tags: facts.tags.clone(),
                    allow_none: facts.allow_none,
                    allow_network: facts.allow_network,
                    suspended: h.cloned || refused.contains_key(peer),
                    caught_up: caught_up.contains(peer),
                    steady_ms: now.since(h.since).as_millis() as u64,
                    network: networks.of(peer),
                    flapping: members.flaps(peer, now) > FLAPS_MAX,
                }
            };
            members.hosts().map(|(peer, h)| (*peer, host(peer, &h))).collect()
        };
        let changed = {
            let mut known = lock(&self.view);
            let old = Arc::make_mut(&mut known);
            for (peer, host) in old.iter_mut() {
                host.steady_ms = view.get(peer).map_or(0, |new| new.steady_ms); // it always grows: that is no news
            }
            std::mem::replace(old, view) != *old
        };
        if changed {
            self.wake_leader.notify_one();
            self.wake_healer();
        }
    }
}

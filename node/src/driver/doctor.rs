//! What this host knows that `mesh doctor` judges. Nothing is judged here.

use super::Inner;
use super::shared::lock;
use super::status::state_word;
use crate::api::types::{Ending, HostFacts, MeshFacts, VERSION};
use mesh::identity::PeerKey;
use mesh::ledger::level_of;

impl Inner {
    pub(super) fn make_mesh_facts(&self) -> MeshFacts {
        let status = self.make_status();
        let mut members: Vec<(String, PeerKey)> =
            self.shared.with(|l| l.roster().members().map(|(k, m)| (m.name.clone(), *k)).collect());
        members.sort();
        MeshFacts {
            version: VERSION,
            host: status.host,
            up_ms: self.born.elapsed().as_millis() as u64,
            leader: status.leader.map(|leader| leader.host),
            signers: self.shared.with(|l| l.roster().signers()) as u32,
            reached: self.offers_relay(),
            listening: self.net.listening().iter().map(ToString::to_string).collect(),
            hosts: members.into_iter().map(|(name, peer)| self.host_facts(name, peer)).collect(),
            ending: self.ending(),
            warnings: status.warnings,
        }
    }

    fn host_facts(&self, name: String, peer: PeerKey) -> HostFacts {
        let (path, _) = self.path_to(&peer);
        let (nats, relays) = {
            let addresses = lock(&self.addresses);
            let nats: Vec<PeerKey> = addresses.rows(&peer, self.now()).iter().filter_map(|row| row.nat_of).collect();
            (nats, if peer == self.me { self.offers_relay() } else { addresses.offers_relay(&peer) })
        };
        let mut behind: Vec<String> = nats.iter().map(|nat| self.name_of(nat)).collect();
        behind.sort();
        behind.dedup();
        let members = lock(&self.members);
        let view = members.host(&peer);
        let view = view.as_deref();
        let facts = view.and_then(|v| v.presence.as_ref()).map(|p| p.facts.clone()).unwrap_or_default();
        HostFacts {
            name,
            state: state_word(view.map(|v| v.state)),
            why: view.map(|v| v.why.to_string()).unwrap_or_default(),
            path,
            behind,
            relays,
            clock_ms: view.and_then(|v| v.wall_offset_ms).filter(|_| peer != self.me),
            program: level_of(&facts.version).0.to_owned(),
            boot_enabled: facts.boot_enabled,
        }
    }

    /// What ends by itself: invitations, places that are kept, and measures of people.
    fn ending(&self) -> Vec<Ending> {
        self.shared.with(|ledger| {
            let now = ledger.time_ms();
            let heirs = ledger.roster().heirs(now).map(|(_, heir)| Ending {
                what: format!("the invitation of {}'s successor", heir.name),
                reason: "it was replaced".into(),
                left_ms: heir.expires_ms - now,
                advice: format!("join it on the new machine with the token that `mesh replace {}` printed", heir.name),
            });
            let name = |key: &PeerKey| ledger.roster().member(key).map_or_else(|| key.short(), |m| m.name.clone());
            let measures = ledger.healing().measures.in_force(now).map(|measure| {
                let word = format!("{:?}", measure.stop).to_lowercase();
                let what = match &measure.host {
                    Some(host) => format!("the {word} of {}", name(host)),
                    None => format!("the {word} of the mesh"),
                };
                let advice = match &measure.host {
                    Some(host) => format!("`mesh {word} {} --for TIME --reason TEXT` makes it last longer", name(host)),
                    None => {
                        format!("`mesh {word} --for TIME --reason TEXT` makes it last longer, `mesh resume` ends it")
                    }
                };
                Ending { what, reason: measure.reason.clone(), left_ms: measure.until_ms.saturating_sub(now), advice }
            });
            let mut invitations = lock(&self.invitations);
            let invited = invitations.open(ledger).iter().map(|invitation| Ending {
                what: format!("the invitation of {}", invitation.name),
                reason: "nobody has used it yet".into(),
                left_ms: invitation.expires_ms - now,
                advice: format!("`mesh join TOKEN` on {0}, or a new one later: `mesh invite {0}`", invitation.name),
            });
            invited.chain(heirs).chain(measures).collect()
        })
    }
}

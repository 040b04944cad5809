//! `mesh topology`: every host with every lead to it, as this host knows them. Changes nothing.

use super::Inner;
use super::shared::lock;
use super::status::state_word;
use crate::api::types::{Place, Topology, VERSION};
use mesh::identity::PeerKey;

impl Inner {
    pub(super) fn make_topology(&self) -> Topology {
        let (mesh, mut members): (String, Vec<(String, PeerKey)>) = self.shared.with(|ledger| {
            (ledger.name().to_owned(), ledger.roster().members().map(|(k, m)| (m.name.clone(), *k)).collect())
        });
        members.sort();
        let hosts = members.into_iter().map(|(name, peer)| self.place(name, peer)).collect();
        Topology { version: VERSION, mesh, host: self.name_of(&self.me), hosts }
    }

    fn place(&self, name: String, peer: PeerKey) -> Place {
        let state = state_word(lock(&self.members).host(&peer).map(|view| view.state));
        let (path, relay) = self.path_to(&peer);
        let (rows, offers) = {
            let addresses = lock(&self.addresses);
            (addresses.rows(&peer, self.now()), addresses.offers_relay(&peer))
        };
        Place {
            name,
            peer,
            state,
            path,
            relay: relay.map(|relay| self.name_of(&relay)),
            address: self.address_in_use(peer),
            offers_relay: if peer == self.me { self.offers_relay() } else { offers },
            leads: self.leads_told(rows),
        }
    }
}

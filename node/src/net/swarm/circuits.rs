//! The Swarm's part in relays and hole punching: reservations, circuits, spare connections, and what may be closed.

use super::super::relaying::circuit;
use super::super::{Dial, DialFailure, NetEvent, lock};
use super::{Task, Told, chain};
use libp2p::Multiaddr;
use libp2p::core::transport::ListenerId;
use libp2p::dcutr;
use libp2p::multiaddr::Protocol as Part;
use libp2p::swarm::dial_opts::PeerCondition;
use mesh::identity::PeerKey;
use std::io;
use tokio::time::Instant;

impl Task {
    /// The circuit through a relay, when it is connected directly.
    fn through(&self, relay: PeerKey) -> Option<Multiaddr> {
        let standing = self.shared.table.best(relay).filter(|connection| !connection.relayed)?;
        Some(circuit(&standing.address, relay.peer_id()?))
    }

    pub(super) fn reserve(&mut self, relay: PeerKey) {
        if self.reservations.iter().any(|(_, held)| *held == relay) {
            return;
        }
        let ended = match self.through(relay).map(|address| self.swarm.listen_on(address)) {
            Some(Ok(listener)) => return self.reservations.push((listener, relay)),
            Some(Err(error)) => chain(&error),
            None => "not connected with it".to_owned(),
        };
        self.outbox.push_back(NetEvent::Reserved { relay, ended: Some(ended) });
    }

    pub(super) fn is_reservation(&self, listener: ListenerId) -> bool {
        self.reservations.iter().any(|(id, _)| *id == listener)
    }

    pub(super) fn on_reserved(&mut self, listener: ListenerId) {
        let Some((_, relay)) = self.reservations.iter().find(|(id, _)| *id == listener) else { return };
        if lock(&self.shared.reserved).insert(*relay) {
            self.outbox.push_back(NetEvent::Reserved { relay: *relay, ended: None });
        }
    }

    pub(super) fn on_reservation_ended(&mut self, listener: ListenerId, reason: io::Result<()>) {
        let Some(at) = self.reservations.iter().position(|(id, _)| *id == listener) else { return };
        let (_, relay) = self.reservations.remove(at);
        lock(&self.shared.reserved).remove(&relay);
        let ended = Some(reason.map_or_else(|error| chain(&error), |()| "the connection with it ended".to_owned()));
        self.outbox.push_back(NetEvent::Reserved { relay, ended });
    }

    pub(super) fn dial_via(&mut self, peer: PeerKey, when: Dial, relay: PeerKey) {
        match self.through(relay) {
            // Beside a direct dial, which may take long to fail.
            Some(address) => {
                let condition = match when {
                    Dial::Apart => PeerCondition::Disconnected,
                    Dial::Beside => PeerCondition::Always,
                };
                self.dial(peer, condition, vec![address]);
            }
            None => {
                let address = relay.peer_id().map(|id| Multiaddr::empty().with(Part::P2p(id)).with(Part::P2pCircuit));
                let failure = DialFailure::Other("not connected with the relay".to_owned());
                self.outbox.push_back(NetEvent::DialFailed { peer, address, failure });
            }
        }
    }

    /// Dials second connections for blobs.
    pub(super) fn dial_spares(&mut self) {
        for (peer, address) in self.shared.table.take_wanted() {
            self.dial(peer, PeerCondition::Always, vec![address]);
        }
    }

    /// Closes connections that are not needed any more.
    pub(super) fn tidy(&mut self) {
        for id in self.shared.table.dispensable(Instant::now()) {
            self.swarm.close_connection(id);
        }
    }

    /// All of this is for people who look for a fault; what matters comes as connections and listeners.
    pub(super) fn on_circuits(&mut self, told: Told) {
        match told {
            Told::Relay(event) => tracing::debug!(?event, "relaying"),
            Told::Circuits(event) => tracing::debug!(?event, "circuits"),
            // Without the connection's number, which counts per process: two runs of a seed would differ.
            Told::Punch(event) => {
                let dcutr::Event { remote_peer_id: peer, result } = *event;
                tracing::debug!(%peer, failure = result.err().map(|e| e.to_string()), "hole punching");
            }
            Told::Identify(_) | Told::Gossip(_) | Told::Nearby(_) => {}
        }
    }
}

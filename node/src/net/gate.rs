//! The gate: first behaviour of the Swarm. It denies every connection of a peer that the book of
//! admission does not hold, and every further stranger when too many wait to be admitted already. It
//! speaks no protocol.

use super::admission::{AdmitError, Book};
use super::hello::{Reason, Refusal};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol as Part;
use libp2p::swarm::behaviour::{ConnectionEstablished, ListenFailure};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    dummy,
};
use libp2p::{Multiaddr, PeerId};
use mesh::identity::PeerKey;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

/// How many inbound connections may wait for admission at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From everywhere.
    pub pending_max: usize,
    /// From one IP address: one stranger cannot lock out the rest.
    pub pending_per_ip_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { pending_max: 64, pending_per_ip_max: 16 }
    }
}

pub(crate) struct Gate {
    book: Arc<Book>,
    limits: Limits,
    /// Inbound connections that are not admitted yet.
    pending: BTreeMap<ConnectionId, Option<IpAddr>>,
}

impl Gate {
    pub(crate) fn new(book: Arc<Book>, limits: Limits) -> Self {
        Gate { book, limits, pending: BTreeMap::new() }
    }

    fn check(&self, peer: PeerId) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        let peer = PeerKey::from_peer_id(&peer);
        if peer.is_some_and(|peer| self.book.level(peer).is_some()) {
            return Ok(dummy::ConnectionHandler);
        }
        let refusal = Refusal::new(Reason::Revoked, "no longer admitted");
        Err(ConnectionDenied::new(AdmitError::WeRefused { peer, refusal }))
    }
}

fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Part::Ip4(ip) => Some(ip.into()),
        Part::Ip6(ip) => Some(ip.to_ipv4_mapped().map_or(ip.into(), IpAddr::from)),
        _ => None,
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let ip = ip(remote);
        let same_ip = self.pending.values().filter(|other| ip.is_some() && **other == ip).count();
        if self.pending.len() >= self.limits.pending_max || same_ip >= self.limits.pending_per_ip_max {
            return Err(ConnectionDenied::new(AdmitError::WeRefused { peer: None, refusal: Reason::Busy.into() }));
        }
        self.pending.insert(id, ip);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check(peer)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check(peer)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { connection_id, .. })
            | FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => {
                self.pending.remove(&connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_wait_are_counted_by_address_and_in_all() {
        let limits = Limits { pending_max: 5, pending_per_ip_max: 2 };
        let mut gate = Gate::new(Arc::default(), limits);
        let local: Multiaddr = "/ip4/10.0.0.1/tcp/7400".parse().unwrap();
        let knock = |gate: &mut Gate, id, from: &str| {
            let from: Multiaddr = from.parse().unwrap();
            let id = ConnectionId::new_unchecked(id);
            gate.handle_pending_inbound_connection(id, &local, &from).is_ok()
        };
        assert!(knock(&mut gate, 1, "/ip4/10.0.0.2/tcp/1"));
        assert!(knock(&mut gate, 2, "/ip6/::ffff:10.0.0.2/tcp/2"), "the same address in other clothes");
        assert!(!knock(&mut gate, 3, "/ip4/10.0.0.2/udp/3/quic-v1"), "a third from one address");
        for id in 4..7 {
            assert!(knock(&mut gate, id, &format!("/ip4/10.0.0.{id}/tcp/1")), "others are not locked out");
        }
        assert!(!knock(&mut gate, 7, "/ip4/10.0.0.7/tcp/1"), "a sixth in all");
    }

    #[test]
    fn nobody_enters_who_is_not_in_the_book() {
        let gate = Gate::new(Arc::default(), Limits::default());
        let Err(denied) = gate.check(PeerId::random()) else { panic!("it entered") };
        assert!(matches!(denied.downcast_ref(), Some(AdmitError::WeRefused { .. })));
    }
}

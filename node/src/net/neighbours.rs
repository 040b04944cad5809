//! mDNS: members that are on the same network, where the host's owner has asked for it.
//!
//! Anybody on that network can answer a question of mDNS with any key and any address: what comes of it is a lead of
//! the weakest kind, which the driver takes for members only and which counts once a handshake has proved it. libp2p's
//! behaviour would add what it heard to every dial by itself, and tell other behaviours of it; neither is let through.
//! It says where this host listens itself, and nothing of circuits. What is done with a lead is `mesh::addresses`'s.

use super::relaying::is_circuit;
use libp2p::core::{Endpoint, transport::PortUse};
use libp2p::swarm::behaviour::{ExpiredListenAddr, NewListenAddr};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    dummy,
};
use libp2p::{Multiaddr, PeerId, mdns};
use std::io;
use std::task::{Context, Poll};

/// Answers that libp2p may remember. So many hosts are on no network: somebody makes them up, and mDNS ends here.
const ANSWERS_MAX: usize = 4_096;

/// Hosts that say they are on this network: whose key, and where.
#[derive(Debug)]
pub(super) struct Nearby(pub Vec<(PeerId, Multiaddr)>);

/// Asks for neighbours and answers them, or does nothing.
pub(super) struct Neighbours(Option<mdns::tokio::Behaviour>);

impl Neighbours {
    /// # Errors
    /// When the interfaces of this host cannot be watched.
    pub(super) fn new(wanted: bool, me: PeerId) -> io::Result<Self> {
        let behaviour = wanted.then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), me));
        Ok(Neighbours(behaviour.transpose()?))
    }
}

impl NetworkBehaviour for Neighbours {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Nearby;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let Some(mdns) = &mut self.0 else { return };
        match event {
            FromSwarm::NewListenAddr(NewListenAddr { addr, .. }) if is_circuit(addr) => {}
            FromSwarm::ExpiredListenAddr(ExpiredListenAddr { addr, .. }) if is_circuit(addr) => {}
            event @ (FromSwarm::NewListenAddr(_) | FromSwarm::ExpiredListenAddr(_)) => mdns.on_swarm_event(event),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Nearby, THandlerInEvent<Self>>> {
        while let Some(mdns) = &mut self.0 {
            let Poll::Ready(told) = mdns.poll(cx) else { return Poll::Pending };
            if mdns.discovered_nodes().len() > ANSWERS_MAX {
                tracing::warn!("more than {ANSWERS_MAX} hosts have answered by mDNS: it is off until the next start");
                self.0 = None;
            }
            if let ToSwarm::GenerateEvent(mdns::Event::Discovered(found)) = told {
                return Poll::Ready(ToSwarm::GenerateEvent(Nearby(found)));
            }
        }
        Poll::Pending
    }
}

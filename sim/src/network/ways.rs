//! What an owner can know of the network: who listens, which ports are forwarded, and where a dial ends.

use super::*;

impl Network {
    /// Whether DHCP gives a host its address: not to a router, nor to a container that has none of its own.
    pub fn is_leased(&self, name: &str) -> bool {
        !self.is_router(name) && self.lock().fleet.host(name).is_none_or(|host| host.shares.is_none())
    }

    /// Whether a host listens: a container that has no address and no port of its own can only dial.
    pub fn listens(&self, name: &str) -> bool {
        self.lock().fleet.host(name).is_none_or(|host| host.shares.is_none() || host.port.is_some())
    }

    /// Where a host's owner knows that a port is forwarded to another host: what goes into its configuration.
    pub fn forwards(&self, name: &str) -> Vec<SocketAddr> {
        let table = self.lock();
        let outside = |forward: &topology::Forward| {
            let ip = *table.fleet.host(&forward.router)?.addresses.get(&forward.outside)?;
            (forward.to != name && forward.router != name).then(|| SocketAddr::new(ip.into(), forward.port))
        };
        table.fleet.forwards.iter().filter_map(outside).collect()
    }

    /// Points each forwarded port at where its host is now, as the router's owner does once the host has moved.
    pub fn point_forwards(&self) {
        let mut table = self.lock();
        let Table { fleet, .. } = &mut *table;
        for forward in &mut fleet.forwards {
            let to = fleet.hosts.iter().find(|host| host.name == forward.to);
            let inside = to.and_then(|host| host.addresses.iter().find(|(network, _)| **network != forward.outside));
            if let Some((_, ip)) = inside {
                forward.to_address = *ip;
            }
        }
        table.reroute();
        table.refresh();
    }

    /// Whom a dial of an address reaches, if anybody.
    pub fn leads_to(&self, from: &str, at: SocketAddr) -> Option<Arc<str>> {
        match self.lock().find(from, at) {
            Ok(Found::Way(way)) => Some(way.to),
            _ => None,
        }
    }
}

//! Ways to a host's guard when its daemon answers on none: this host dials the guard's door itself, or has a courier pass
//! the bytes on, and is a courier for others. What a door is and how it is entered says [`crate::fallback`].
//!
//! As one who enters: the addresses that the target attests, and those that were proved to be its own; each is a lead, and
//! whoever answers shows the attested host key or hears nothing. As a courier: for voters and signers only, to enrolled
//! hosts only, to what the host's own signed presence names and nowhere else, a few at a time.

use super::Inner;
use super::shared::lock;
use super::watch::ip_of;
use crate::consensus::Duplex;
use crate::fallback::courier::{self, ERRANDS_MAX};
use crate::fallback::ssh::{self, SshError};
use crate::net::{Multiaddr, Protocol, Stream};
use mesh::identity::PeerKey;
use mesh::membership::{GuardDoor, State};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::compat::FuturesAsyncReadCompatExt;

/// Addresses of one host that are dialled: more have interfaces that nobody dials.
const ADDRESSES_MAX: usize = 8;
/// How long one of them may take to answer: the first packet, and its repetition.
const DIAL_WITHIN: Duration = Duration::from_millis(1_500);
/// Couriers that are asked for one delivery.
const COURIERS_MAX: usize = 4;
/// How many of a courier's answering addresses are tried: more than one only where others answer there.
const SKIPS_MAX: u8 = 2;

impl Inner {
    /// The door of a host as its own signed presence attests it, and the addresses in that.
    fn door_of(&self, host: &PeerKey) -> Option<(GuardDoor, Vec<IpAddr>)> {
        let members = lock(&self.members);
        let presence = members.host(host)?.presence.clone()?;
        let door = presence.facts.guard?;
        let ips = presence.facts.addresses.iter().filter_map(|text| direct_ip(text));
        let ips: BTreeSet<IpAddr> = ips.collect();
        Some((door, ips.into_iter().take(ADDRESSES_MAX).collect()))
    }

    /// A byte stream to the guard of a host: its hello comes first, then it takes frames.
    ///
    /// # Errors
    /// In words, for each way that was tried.
    pub(super) async fn open_door(self: &Arc<Self>, target: PeerKey) -> Result<Box<dyn Duplex>, String> {
        let Some((door, attested)) = self.door_of(&target) else {
            return Err(format!(
                "{} attests no door for its guard (`mesh install --ssh` makes one)",
                self.name_of(&target)
            ));
        };
        let mut tried = vec![];
        let rows = lock(&self.addresses).rows(&target, self.now());
        let proved =
            rows.iter().filter(|row| row.proved && row.nat_of.is_none()).filter_map(|row| direct_ip(&row.addr));
        let mut ips: Vec<IpAddr> = proved.chain(attested).collect();
        let mut seen = BTreeSet::new();
        ips.retain(|ip| seen.insert(*ip));
        for ip in ips.into_iter().take(ADDRESSES_MAX) {
            let at = SocketAddr::new(ip, door.port);
            let entered = match self.dial_door(at).await {
                Ok(bytes) => self.enter(bytes, target, &door).await.map_err(|error| error.to_string()),
                Err(error) => Err(error),
            };
            match entered {
                Ok(stream) => {
                    tracing::info!(host = self.name_of(&target), %at, "entered the door of a guard");
                    return Ok(stream);
                }
                Err(error) => tried.push(format!("{at}: {error}")),
            }
        }
        for courier in self.couriers(&target) {
            match self.through(courier, target, &door).await {
                Ok(stream) => {
                    let (host, courier) = (self.name_of(&target), self.name_of(&courier));
                    tracing::info!(host, courier, "entered the door of a guard through a courier");
                    return Ok(stream);
                }
                Err(error) => tried.push(format!("through {}: {error}", self.name_of(&courier))),
            }
        }
        Err(if tried.is_empty() { "it names no address, and no courier is connected".into() } else { tried.join("; ") })
    }

    async fn dial_door(&self, at: SocketAddr) -> Result<Box<dyn Duplex>, String> {
        match timeout(DIAL_WITHIN, (self.doors)(at)).await {
            Ok(dialled) => dialled.map_err(|error| error.to_string()),
            Err(_) => Err("no answer".into()),
        }
    }

    async fn enter(
        &self,
        bytes: Box<dyn Duplex>,
        target: PeerKey,
        door: &GuardDoor,
    ) -> Result<Box<dyn Duplex>, SshError> {
        let entered = ssh::enter(bytes.compat(), &self.keys, target, door.host_key).await?;
        Ok(Box::new(entered))
    }

    /// Has a courier pass the bytes on.
    async fn through(&self, courier: PeerKey, target: PeerKey, door: &GuardDoor) -> Result<Box<dyn Duplex>, String> {
        let mut last = String::new();
        for skip in 0..SKIPS_MAX {
            let stream = self.net.open(courier, Protocol::Courier).await;
            let mut stream = stream.map_err(|error| error.to_string())?;
            if let Err(error) = courier::ask(&mut stream, target, skip).await {
                return Err(if last.is_empty() { error.to_string() } else { last });
            }
            match self.enter(Box::new(stream), target, door).await {
                Ok(entered) => return Ok(entered),
                Err(error @ SshError::WrongHost { .. }) => last = error.to_string(),
                Err(error) => return Err(error.to_string()),
            }
        }
        Err(last)
    }

    /// Who could pass bytes on to a host, the likeliest first: who masquerades for it, who has an address beside one of
    /// its own, then anybody.
    fn couriers(&self, target: &PeerKey) -> Vec<PeerKey> {
        let (rows, addresses) = {
            let addresses = lock(&self.addresses);
            let of = |peer: &PeerKey| -> Vec<IpAddr> {
                addresses.rows(peer, self.now()).iter().filter_map(|row| direct_ip(&row.addr)).collect()
            };
            let others = self.others();
            (addresses.rows(target, self.now()), others.into_iter().map(|o| (o, of(&o))).collect::<Vec<_>>())
        };
        let routers: BTreeSet<PeerKey> = rows.iter().filter_map(|row| row.nat_of).collect();
        let theirs = self.door_of(target).map(|(_, ips)| ips).unwrap_or_default();
        let members = lock(&self.members);
        let alive = |peer: &PeerKey| members.host(peer).is_some_and(|view| view.state == State::Alive);
        let mut ranked: Vec<(u8, PeerKey)> = addresses
            .into_iter()
            .filter(|(peer, _)| peer != target && *peer != self.me && alive(peer) && self.net.is_connected(*peer))
            .map(|(peer, ips)| {
                let beside = ips.iter().any(|ip| theirs.iter().any(|its| same_network(ip, its)));
                (
                    if routers.contains(&peer) {
                        0
                    } else if beside {
                        1
                    } else {
                        2
                    },
                    peer,
                )
            })
            .collect();
        ranked.sort();
        ranked.into_iter().map(|(_, peer)| peer).take(COURIERS_MAX).collect()
    }

    /// The courier's end of a stream.
    pub(super) async fn serve_courier(self: Arc<Self>, by: PeerKey, stream: Stream) {
        let may = self
            .shared
            .with(|l| l.voters().voters().contains(&by) || l.roster().member(&by).is_some_and(|member| member.signer));
        let place = self.errands.try_acquire(); // held until the last byte
        let free = place.is_ok();
        let this = self.clone();
        let open = async move |target: PeerKey, skip: u8| match (may, free) {
            (false, _) => Err("only a voter or signer brings orders".to_owned()),
            (_, false) => Err(format!("this host carries {ERRANDS_MAX} already")),
            (true, true) => this.open_attested(target, skip).await,
        };
        if let Err(error) = courier::run(stream, open).await {
            tracing::info!(bringer = self.name_of(&by), %error, "an errand as a courier broke off");
        }
    }

    /// The door of an enrolled host, where its own record says that it is.
    async fn open_attested(&self, target: PeerKey, skip: u8) -> Result<Box<dyn Duplex>, String> {
        let name = self.name_of(&target);
        if target == self.me || !self.shared.with(|l| l.roster().member(&target).is_some()) {
            return Err(format!("{name} is none of the other hosts of this mesh"));
        }
        let (door, ips) = self.door_of(&target).ok_or_else(|| format!("{name} attests no door"))?;
        let (mut skipped, mut tried) = (0, vec![]);
        for ip in ips {
            let at = SocketAddr::new(ip, door.port);
            match self.dial_door(at).await {
                Ok(_) if skipped < skip => skipped += 1,
                Ok(bytes) => {
                    tracing::info!(host = name, %at, "carrying to the door of a guard");
                    return Ok(bytes);
                }
                Err(error) => tried.push(format!("{at}: {error}")),
            }
        }
        Err(if tried.is_empty() { "nobody else answers".into() } else { tried.join(", ") })
    }
}

/// The IP of an address that leads straight to its host.
pub(super) fn direct_ip(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip);
    }
    let address: Multiaddr = text.parse().ok()?;
    let relayed = address.iter().any(|part| part == libp2p::multiaddr::Protocol::P2pCircuit);
    ip_of(&address).filter(|ip| !relayed && !ip.is_unspecified())
}

/// As likely on one network as can be told from two addresses.
fn same_network(one: &IpAddr, other: &IpAddr) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => one.octets()[..3] == other.octets()[..3],
        (IpAddr::V6(one), IpAddr::V6(other)) => one.segments()[..4] == other.segments()[..4],
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_leads_straight_to_a_host_is_dialled() {
        for (text, ip) in [
            ("/ip4/10.0.0.1/tcp/7400", Some("10.0.0.1")),
            ("/ip6/fd00::1/udp/7400/quic-v1", Some("fd00::1")),
            ("10.0.0.1", Some("10.0.0.1")),
            ("/ip4/0.0.0.0/tcp/7400", None),
            ("/ip4/10.0.0.1/tcp/1/p2p/12D3KooWA9gMEuoaAEMEB3bVEHwL2tThPqkeSWLw5FQNMLYSS5Jj/p2p-circuit", None),
            ("/dns/build.example/tcp/7400", None), // names are not the target's to attest
            ("relay", None),
        ] {
            assert_eq!(direct_ip(text).map(|ip| ip.to_string()).as_deref(), ip, "{text}");
        }
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(same_network(&ip("10.1.2.3"), &ip("10.1.2.200")) && !same_network(&ip("10.1.2.3"), &ip("10.1.3.3")));
        assert!(same_network(&ip("fd00::1"), &ip("fd00::2")) && !same_network(&ip("fd00::1"), &ip("10.1.2.3")));
    }
}

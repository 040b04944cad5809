//! In which network a host is, as far as that matters for who may judge whom: a label, alike for hosts that share a
//! cable or a site. It says nothing of who reaches whom, and nobody is dialled or trusted by it.
//!
//! A host says it by a tag `net:NAME` (`[network] name` of its configuration). Where it does not, its own interfaces do:
//! those of a private range come first, then the world's, then those of overlays and carriers, which lie over several
//! sites; 24 bits of an IPv4 address, 48 of an IPv6 one. Two sites with the same private range are taken for one by
//! that, which costs only what networks are good for. On to [`super::Members::placed`].

use super::PresenceFacts;
use crate::identity::PeerKey;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

/// What the tag begins with that names a host's network.
pub const NETWORK_TAG: &str = "net:";

/// The network that a host says it is in; `None` when it says nothing that tells.
pub fn network_of(facts: &PresenceFacts) -> Option<u64> {
    if let Some(name) = facts.tags.iter().find_map(|tag| tag.strip_prefix(NETWORK_TAG)) {
        return Some(label(name.as_bytes()));
    }
    let own = facts.addresses.iter().filter_map(|addr| address(addr));
    let best = own.filter_map(|ip| Some((rank(ip)?, ip))).min()?.1;
    Some(match best {
        IpAddr::V4(ip) => label(&ip.octets()[..3]),
        IpAddr::V6(ip) => label(&ip.octets()[..6]),
    })
}

/// The IP of an address that a host listens on itself.
fn address(addr: &str) -> Option<IpAddr> {
    let mut parts = addr.split('/').skip(1);
    let (kind, ip) = (parts.next()?, parts.next()?);
    matches!(kind, "ip4" | "ip6").then(|| ip.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())).flatten()
}

/// The lower the more it says of where a host stands.
fn rank(ip: IpAddr) -> Option<u8> {
    match ip {
        _ if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() => None,
        IpAddr::V4(v4) if v4.is_link_local() => None,
        IpAddr::V4(v4) if v4.is_private() => Some(0),
        // 100.64.0.0/10, RFC 6598: carriers, and overlays that borrow it.
        IpAddr::V4(v4) if v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64 => Some(4),
        IpAddr::V4(_) => Some(1),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => None,
        IpAddr::V6(v6) if is_unique_local(v6) => Some(3),
        IpAddr::V6(_) => Some(2),
    }
}

fn is_unique_local(ip: Ipv6Addr) -> bool {
    ip.octets()[0] & 0xfe == 0xfc
}

fn label(bytes: &[u8]) -> u64 {
    let mut first = [0; 8];
    blake3::Hasher::new_derive_key("mesh/network/v1").update(bytes).finalize_xof().fill(&mut first);
    u64::from_be_bytes(first)
}

/// What is known of where the members are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Networks {
    known: BTreeMap<PeerKey, u64>,
}

impl Networks {
    /// Takes what a member says of itself; whether that is news.
    pub fn learn(&mut self, peer: PeerKey, facts: &PresenceFacts) -> bool {
        let Some(network) = network_of(facts) else { return false };
        self.known.insert(peer, network) != Some(network)
    }

    /// Forgets all but these.
    pub fn retain(&mut self, stays: impl Fn(&PeerKey) -> bool) {
        self.known.retain(|peer, _| stays(peer));
    }

    /// Where a member is. One that has said nothing is taken to be where most are, the same on every host that has
    /// heard the same.
    pub fn of(&self, peer: &PeerKey) -> u64 {
        self.known.get(peer).copied().unwrap_or_else(|| self.usual())
    }

    fn usual(&self) -> u64 {
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        for network in self.known.values() {
            *counts.entry(*network).or_default() += 1;
        }
        counts.into_iter().max_by_key(|(network, count)| (*count, std::cmp::Reverse(*network))).map_or(0, |(n, _)| n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Keys;

    fn at(addresses: &[&str], tags: &[&str]) -> PresenceFacts {
        let own = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        PresenceFacts { addresses: own(addresses), tags: own(tags), ..PresenceFacts::default() }
    }

    #[test]
    fn a_site_is_told_by_its_own_interfaces_and_not_by_an_overlay() {
        let net = |addresses: &[&str]| network_of(&at(addresses, &[]));
        let site_a = net(&["/ip4/100.64.0.7/tcp/7400", "/ip4/10.42.0.203/tcp/7400"]);
        assert_eq!(site_a, net(&["/ip4/10.42.0.199/udp/7400/quic-v1", "/p2p-circuit"]));
        assert_ne!(site_a, net(&["/ip4/100.64.0.8/tcp/7400", "/ip4/192.168.20.196/tcp/7400"]));
        assert!(net(&["/ip4/100.64.0.8/tcp/7400"]).is_some(), "better than nothing");
        for nothing in [&["/ip4/127.0.0.1/tcp/1"][..], &["/ip6/fe80::1/tcp/1"], &["/p2p-circuit"], &["/dns/x"], &[]] {
            assert_eq!(net(nothing), None, "{nothing:?}");
        }
        assert_eq!(net(&["/ip6/2001:db8:1::1/tcp/1"]), net(&["/ip6/2001:db8:1:9::2/tcp/1"]));
        assert_eq!(net(&["/ip6/::ffff:10.42.0.9/tcp/1"]), site_a, "the same address in other clothes");
    }

    #[test]
    fn a_name_says_more_than_addresses() {
        let named = |address: &str| network_of(&at(&[address], &["amd64", "net:cellar"]));
        assert_eq!(named("/ip4/10.0.0.1/tcp/1"), named("/ip4/10.9.0.1/tcp/1"));
        assert_ne!(named("/ip4/10.0.0.1/tcp/1"), network_of(&at(&["/ip4/10.0.0.1/tcp/1"], &["net:attic"])));
    }

    #[test]
    fn who_says_nothing_is_where_most_are() {
        let [a, b, c, d] = [1, 2, 3, 4].map(|n| Keys::from_seed([n; 32]).key());
        let mut networks = Networks::default();
        assert_eq!(networks.of(&a), 0);
        assert!(networks.learn(a, &at(&["/ip4/10.0.0.1/tcp/1"], &[])));
        assert!(networks.learn(b, &at(&["/ip4/10.0.1.1/tcp/1"], &[])));
        assert!(networks.learn(c, &at(&["/ip4/10.0.1.2/tcp/1"], &[])));
        assert!(!networks.learn(c, &at(&["/ip4/10.0.1.3/tcp/1"], &[])) && !networks.learn(d, &at(&[], &[])));
        assert_eq!(networks.of(&d), networks.of(&b));
        assert_ne!(networks.of(&a), networks.of(&b));
        networks.retain(|peer| *peer == a);
        assert_eq!(networks.of(&d), networks.of(&a));
    }
}

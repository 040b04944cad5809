//! Fleets of any size by rule, for the simulator: checked like a file. The same arguments give the same fleet.

use crate::error::{FleetError, Wrong};
use crate::fleet::{Dependence, Fleet, Nat, NetworkKind, Role};
use crate::limits::NETWORKS_MAX;
use crate::raw;
use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use toml::Spanned;

/// Networks of a generated fleet that are no site: the Internet and the overlay.
const COMMON: usize = 2;

fn new<T>(value: T) -> Spanned<T> {
    Spanned::new(0..0, value)
}

/// A network by its first address; all generated ones are valid, and the check would say if not.
fn cidr(first: u32, prefix: u8) -> Result<Ipv4Net, Wrong> {
    let bad = |error: ipnet::PrefixLenError| Wrong { at: 0, field: "network.cidr".into(), text: error.to_string() };
    Ipv4Net::new(Ipv4Addr::from(first), prefix).map_err(bad)
}

impl Fleet {
    /// So many sites (`site-N`, from 0, each 10.x.y.0/20) with so many hosts each (`sN-hM`, one core, port 7400),
    /// a bare router a site (`sN-router`), and `internet` between. With `masqueraded`, nobody can dial into another
    /// site; without, everybody reaches everybody and is seen with its own address. With `overlay`, all hosts (not
    /// routers) are also on `overlay`. `nat` is what the masquerades are like.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] past a bound: no site, more than 1,022 sites, 4,092 hosts a site, or 10,000 hosts
    /// altogether, routers counted.
    pub fn generated(
        sites: usize,
        hosts_per_site: usize,
        masqueraded: bool,
        overlay: bool,
        nat: Nat,
    ) -> Result<Fleet, FleetError> {
        let made = raw_fleet(sites, hosts_per_site, masqueraded, overlay, nat);
        made.and_then(raw::Fleet::check).map_err(|wrong| wrong.placed("generated", ""))
    }

    /// A fleet whose NATs are Linux's; the shortest call.
    ///
    /// # Errors
    /// As [`Fleet::generated`].
    pub fn generated_plain(sites: usize, hosts_per_site: usize, masqueraded: bool) -> Result<Fleet, FleetError> {
        Fleet::generated(sites, hosts_per_site, masqueraded, true, Nat::LINUX)
    }
}

const INTERNET: u32 = u32::from_be_bytes([172, 16, 0, 0]);
const OVERLAY: u32 = u32::from_be_bytes([100, 64, 0, 0]);
const SITES: u32 = u32::from_be_bytes([10, 0, 0, 0]);
/// Addresses of one site: a /20.
const SITE_ADDRESSES: u32 = 4_096;

fn raw_fleet(sites: usize, per_site: usize, masqueraded: bool, overlay: bool, nat: Nat) -> Result<raw::Fleet, Wrong> {
    let bound = |field: &str, text: String| Err(Wrong { at: 0, field: field.into(), text });
    // Before anything of that size is made.
    if sites == 0 || sites > NETWORKS_MAX - COMMON {
        return bound("sites", format!("{sites} of them; 1 to {} are allowed", NETWORKS_MAX - COMMON));
    }
    // First, last and the router's address are taken.
    if per_site > SITE_ADDRESSES as usize - 4 {
        return bound("hosts_per_site", format!("{per_site} of them, and {} are allowed", SITE_ADDRESSES - 4));
    }
    let common = |name: &str, first, kind| -> Result<raw::Network, Wrong> {
        let cidr = new(cidr(first, 16)?);
        Ok(raw::Network { name: new(name.into()), cidr, kind, round_trip_ms: None, loss_per_mille: None })
    };
    let mut fleet = raw::Fleet {
        name: format!("generated-{sites}-by-{per_site}"),
        network: vec![common("internet", INTERNET, NetworkKind::Wan)?],
        masquerade: vec![],
        route: vec![],
        forward: vec![],
        host: vec![],
    };
    if overlay {
        fleet.network.push(common("overlay", OVERLAY, NetworkKind::Overlay)?);
    }
    let mut members = 0;
    for site in 0..sites as u32 {
        let (name, router) = (format!("site-{site}"), format!("s{site}-router"));
        let first = SITES + site * SITE_ADDRESSES;
        let cidr = new(cidr(first, 20)?);
        let (kind, public) = (NetworkKind::Lan, Ipv4Addr::from(INTERNET + 1 + site));
        fleet.network.push(raw::Network {
            name: new(name.clone()),
            cidr,
            kind,
            round_trip_ms: None,
            loss_per_mille: None,
        });
        if masqueraded {
            fleet.masquerade.push(raw::Masquerade {
                router: new(router.clone()),
                inside: new(name.clone()),
                outside: new("internet".into()),
                address: new(public),
                mapping: Some(nat.mapping),
                filtering: Some(nat.filtering),
                ports: nat.ports,
                round_trip_ms: None,
            });
        } else {
            for (from, to) in [(name.as_str(), "internet"), ("internet", name.as_str())] {
                fleet.route.push(raw::Route {
                    router: new(router.clone()),
                    from: new(from.into()),
                    to: new(to.into()),
                    round_trip_ms: None,
                });
            }
        }
        let addresses = [("internet".to_owned(), new(public)), (name.clone(), new(Ipv4Addr::from(first + 1)))];
        fleet.host.push(host(router, addresses.into(), 0, Role::Router));
        for number in 0..per_site as u32 {
            let mut addresses = BTreeMap::from([(name.clone(), new(Ipv4Addr::from(first + 2 + number)))]);
            if overlay {
                members += 1;
                addresses.insert("overlay".into(), new(Ipv4Addr::from(OVERLAY + members)));
            }
            fleet.host.push(host(format!("s{site}-h{number}"), addresses, 1, Role::Drone));
        }
    }
    Ok(fleet)
}

fn host(name: String, addresses: BTreeMap<String, Spanned<Ipv4Addr>>, cores: u32, role: Role) -> raw::Host {
    let (name, cores) = (new(name), new(cores));
    raw::Host { name, addresses, shares: None, port: None, cores, role, protected: false, service: None }
}

/// A NAT for the kinds that people name: `full`, `restricted`, `port-restricted` cone.
impl Nat {
    /// A cone with this filtering: one mapping for all far sides, ports kept.
    pub const fn cone(filtering: Dependence) -> Nat {
        Nat { filtering, ..Nat::LINUX }
    }
}

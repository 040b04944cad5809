//! From the file's form to a fleet: every name found, every address in its network, every bound kept. The
//! first mistake ends it. Generated fleets go through here as well. On to [`crate::Oracle`].

use crate::error::Wrong;
use crate::fleet::{Fleet, Forward, Host, Masquerade, Nat, Network, Role, Route};
use crate::limits::*;
use crate::raw;
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use toml::Spanned;

type Checked<T> = Result<T, Wrong>;

fn wrong<T, V>(place: &Spanned<V>, field: impl Into<String>, text: String) -> Checked<T> {
    Err(Wrong { at: place.span().start, field: field.into(), text })
}

fn within<T: PartialOrd + Copy + std::fmt::Display>(value: &Spanned<T>, field: &str, max: T) -> Checked<T> {
    let given = *value.get_ref();
    if given > max {
        return wrong(value, field, format!("{given} is past the bound of {max}"));
    }
    Ok(given)
}

fn round_trip(value: &Option<Spanned<u64>>, field: &str) -> Checked<u64> {
    value.as_ref().map_or(Ok(0), |ms| within(ms, field, ROUND_TRIP_MS_MAX))
}

fn counted<'a, T>(all: &'a [T], max: usize, field: &str, place: impl Fn(&'a T) -> &'a Spanned<String>) -> Checked<()> {
    match all.get(max) {
        Some(first_over) => wrong(place(first_over), field, format!("{} of them, and {max} are allowed", all.len())),
        None => Ok(()),
    }
}

fn name_of(name: &Spanned<String>, field: &str) -> Checked<String> {
    let text = name.get_ref();
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return wrong(name, field, format!("{} bytes; a name has 1 to {NAME_BYTES_MAX}", text.len()));
    }
    if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return wrong(name, field, format!("{text:?} has a space or a control character in it"));
    }
    Ok(text.clone())
}

fn port_of(port: &Spanned<u16>, field: &str) -> Checked<u16> {
    match *port.get_ref() {
        0 => wrong(port, field, "0 is no port; 1 to 65535 are".into()),
        port => Ok(port),
    }
}

impl raw::Fleet {
    pub(crate) fn check(self) -> Checked<Fleet> {
        if self.host.is_empty() {
            let text = "a fleet has one [[host]] at least".to_owned();
            return Err(Wrong { at: 0, field: "host".into(), text });
        }
        counted(&self.host, HOSTS_MAX, "host", |host| &host.name)?;
        counted(&self.network, NETWORKS_MAX, "network", |network| &network.name)?;
        counted(&self.masquerade, WAYS_MAX / 2, "masquerade", |masquerade| &masquerade.router)?;
        counted(&self.route, WAYS_MAX / 2, "route", |route| &route.router)?;
        counted(&self.forward, FORWARDS_MAX, "forward", |forward| &forward.router)?;
        let networks = networks(&self.network)?;
        let hosts = hosts(&self.host, &networks)?;
        let known = Known { networks: &networks, by_name: hosts.iter().map(|h| (h.name.as_str(), h)).collect() };
        let (masquerades, routes) = known.ways(&self.masquerade, &self.route)?;
        let forwards = known.forwards(&self.forward, &masquerades)?;
        Ok(Fleet { name: self.name, networks, masquerades, routes, forwards, hosts })
    }
}

fn networks(all: &[raw::Network]) -> Checked<BTreeMap<String, Network>> {
    let mut networks = BTreeMap::new();
    let mut by_start: BTreeMap<Ipv4Addr, (Ipv4Net, String)> = BTreeMap::new();
    for raw in all {
        let name = name_of(&raw.name, "network.name")?;
        let cidr = *raw.cidr.get_ref();
        if cidr != cidr.trunc() {
            return wrong(&raw.cidr, "network.cidr", format!("{cidr} has host bits set; write {}", cidr.trunc()));
        }
        // None that starts at or before this one's end may end at or after its start.
        let before = by_start.range(..=cidr.broadcast()).next_back();
        if let Some((_, (other, called))) = before
            && other.broadcast() >= cidr.network()
        {
            let text = format!("{cidr} overlaps with `{called}`, which is {other}");
            return wrong(&raw.cidr, "network.cidr", text);
        }
        by_start.insert(cidr.network(), (cidr, name.clone()));
        let round_trip_ms = round_trip(&raw.round_trip_ms, "network.round_trip_ms")?;
        let loss = raw.loss_per_mille.as_ref();
        let loss_per_mille = loss.map_or(Ok(0), |loss| within(loss, "network.loss_per_mille", LOSS_PER_MILLE_MAX))?;
        let network = Network { cidr, kind: raw.kind, round_trip_ms, loss_per_mille };
        if networks.insert(name.clone(), network).is_some() {
            return wrong(&raw.name, "network.name", format!("a second network is called `{name}`"));
        }
    }
    Ok(networks)
}

fn hosts(all: &[raw::Host], networks: &BTreeMap<String, Network>) -> Checked<Vec<Host>> {
    let mut sharing: BTreeMap<&str, bool> = BTreeMap::new();
    for raw in all {
        name_of(&raw.name, "host.name")?;
        if sharing.insert(raw.name.get_ref(), raw.shares.is_some()).is_some() {
            return wrong(&raw.name, "host.name", format!("a second host is called `{}`", raw.name.get_ref()));
        }
    }
    let mut taken: BTreeMap<Ipv4Addr, &str> = BTreeMap::new();
    let mut hosts = vec![];
    for raw in all {
        let name = raw.name.get_ref();
        let shares = raw.shares.as_ref().map(|shares| shared(raw, shares, &sharing)).transpose()?;
        if shares.is_none() && raw.addresses.is_empty() {
            let text = format!("`{name}` is on no network; give it an address or say whose it `shares`");
            return wrong(&raw.name, "host.addresses", text);
        }
        let mut addresses = BTreeMap::new();
        for (network, address) in &raw.addresses {
            let field = format!("host.addresses.{network}");
            let ip = *address.get_ref();
            let Some(known) = networks.get(network) else {
                return wrong(address, field, format!("no network of this fleet is called `{network}`"));
            };
            if !known.cidr.contains(&ip) {
                return wrong(address, field, format!("{ip} is not in `{network}`, which is {}", known.cidr));
            }
            let of_no_host =
                known.cidr.prefix_len() < 31 && [known.cidr.network(), known.cidr.broadcast()].contains(&ip);
            if of_no_host {
                let text = format!("{ip} is the first or last address of `{network}`, which no host may have");
                return wrong(address, field, text);
            }
            if let Some(by) = taken.insert(ip, name) {
                return wrong(address, field, format!("{ip} is taken by `{by}`"));
            }
            addresses.insert(network.clone(), ip);
        }
        let port = match &raw.port {
            Some(port) => Some(port_of(port, "host.port")?),
            None if shares.is_some() || raw.role == Role::Router => None,
            None => Some(PORT_DEFAULT),
        };
        let cores = within(&raw.cores, "host.cores", CORES_MAX)?;
        let (protected, service) = (raw.protected, raw.service);
        hosts.push(Host { name: name.clone(), addresses, shares, port, cores, role: raw.role, protected, service });
    }
    let mut listening: BTreeSet<(&str, u16)> = BTreeSet::new();
    // Whose addresses they are first, so that a collision is found at the one that shares.
    let (own, sharing): (Vec<_>, Vec<_>) = all.iter().zip(&hosts).partition(|(_, host)| host.shares.is_none());
    for (raw, host) in own.into_iter().chain(sharing) {
        let machine = host.shares.as_ref().unwrap_or(&host.name);
        if let Some(port) = host.port
            && !listening.insert((machine, port))
        {
            let text =
                format!("{port} of `{machine}` is taken already; hosts that share an address need ports of their own");
            let place = raw.port.as_ref().map_or(raw.name.span(), Spanned::span);
            return Err(Wrong { at: place.start, field: "host.port".into(), text });
        }
    }
    Ok(hosts)
}

fn shared(raw: &raw::Host, shares: &Spanned<String>, sharing: &BTreeMap<&str, bool>) -> Checked<String> {
    let (name, of) = (raw.name.get_ref(), shares.get_ref());
    let says = match sharing.get(of.as_str()) {
        None => format!("no host of this fleet is called `{of}`"),
        Some(_) if of == name => format!("`{name}` cannot share with itself"),
        Some(true) => format!("`{of}` shares an address itself; name the host that has it"),
        Some(false) if !raw.addresses.is_empty() => {
            format!("`{name}` has addresses of its own; give it either those or `shares`")
        }
        Some(false) => return Ok(of.clone()),
    };
    wrong(shares, "host.shares", says)
}

/// What the rest of a file refers to.
struct Known<'a> {
    networks: &'a BTreeMap<String, Network>,
    by_name: BTreeMap<&'a str, &'a Host>,
}

impl<'a> Known<'a> {
    fn network(&self, name: &Spanned<String>, field: &str) -> Checked<String> {
        match self.networks.get(name.get_ref()) {
            Some(_) => Ok(name.get_ref().clone()),
            None => wrong(name, field, format!("no network of this fleet is called `{}`", name.get_ref())),
        }
    }

    fn host(&self, name: &Spanned<String>, field: &str) -> Checked<&'a Host> {
        match self.by_name.get(name.get_ref().as_str()) {
            Some(host) => Ok(host),
            None => wrong(name, field, format!("no host of this fleet is called `{}`", name.get_ref())),
        }
    }

    fn ways(&self, masqs: &[raw::Masquerade], plain: &[raw::Route]) -> Checked<(Vec<Masquerade>, Vec<Route>)> {
        let mut between: BTreeSet<(String, String)> = BTreeSet::new();
        let mut masquerades: Vec<Masquerade> = vec![];
        let mut hides: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for raw in masqs {
            let router = self.host(&raw.router, "masquerade.router")?;
            let inside = self.network(&raw.inside, "masquerade.inside")?;
            let outside = self.network(&raw.outside, "masquerade.outside")?;
            if leads(&hides, &outside, &inside) {
                let text =
                    format!("`{outside}` is hidden behind `{inside}` already: masquerades in a circle lead nowhere");
                return wrong(&raw.outside, "masquerade.outside", text);
            }
            hides.entry(inside.clone()).or_default().push(outside.clone());
            let address = *raw.address.get_ref();
            match router.addresses.get(&outside) {
                Some(own) if *own == address => {}
                Some(own) => {
                    let text = format!("{address} is not the address of `{}` on `{outside}`; {own} is", router.name);
                    return wrong(&raw.address, "masquerade.address", text);
                }
                None => {
                    let text = format!("`{}` has no address on `{outside}`", router.name);
                    return wrong(&raw.address, "masquerade.address", text);
                }
            }
            if !between.insert((inside.clone(), outside.clone())) {
                let text = format!("there is a way from `{inside}` to `{outside}` already, and one is allowed");
                return wrong(&raw.outside, "masquerade.outside", text);
            }
            masquerades.push(Masquerade {
                router: router.name.clone(),
                inside,
                outside,
                address,
                nat: Nat {
                    mapping: raw.mapping.unwrap_or(Nat::LINUX.mapping),
                    filtering: raw.filtering.unwrap_or(Nat::LINUX.filtering),
                    ports: raw.ports,
                },
                round_trip_ms: round_trip(&raw.round_trip_ms, "masquerade.round_trip_ms")?,
            });
        }
        let mut routes = vec![];
        for raw in plain {
            let router = self.host(&raw.router, "route.router")?;
            let from = self.network(&raw.from, "route.from")?;
            let to = self.network(&raw.to, "route.to")?;
            for (network, place, field) in [(&from, &raw.from, "route.from"), (&to, &raw.to, "route.to")] {
                if !router.addresses.contains_key(network) {
                    return wrong(place, field, format!("`{}` has no address on `{network}`", router.name));
                }
            }
            if from == to {
                return wrong(&raw.to, "route.to", format!("a route from `{from}` to itself leads nowhere"));
            }
            if !between.insert((from.clone(), to.clone())) {
                let text = format!("there is a way from `{from}` to `{to}` already, and one is allowed");
                return wrong(&raw.to, "route.to", text);
            }
            let round_trip_ms = round_trip(&raw.round_trip_ms, "route.round_trip_ms")?;
            routes.push(Route { router: router.name.clone(), from, to, round_trip_ms });
        }
        Ok((masquerades, routes))
    }

    fn forwards(&self, all: &[raw::Forward], masquerades: &[Masquerade]) -> Checked<Vec<Forward>> {
        let mut taken: BTreeSet<(&str, u16)> = BTreeSet::new();
        let mut forwards = vec![];
        for raw in all {
            let router = self.host(&raw.router, "forward.router")?;
            let outside = self.network(&raw.outside, "forward.outside")?;
            let port = port_of(&raw.port, "forward.port")?;
            let listens =
                |host: &&&Host| host.port == Some(port) && host.shares.as_ref().unwrap_or(&host.name) == &router.name;
            if let Some(own) = self.by_name.values().find(listens) {
                let text = format!("`{}` listens on {port} of `{}` already", own.name, router.name);
                return wrong(&raw.port, "forward.port", text);
            }
            let to = self.host(&raw.to, "forward.to")?;
            let machine = to.shares.as_ref().and_then(|of| self.by_name.get(of.as_str()).copied()).unwrap_or(to);
            let mine = masquerades.iter().filter(|m| m.router == router.name && m.outside == outside);
            let behind = |m: &Masquerade| machine.addresses.get(&m.inside).copied();
            let Some(to_address) = mine.clone().find_map(behind).filter(|_| machine.name != router.name) else {
                let text = format!("`{}` is on no network that `{}` hides from `{outside}`", to.name, router.name);
                return wrong(&raw.to, "forward.to", text);
            };
            let to_port = match (&raw.to_port, to.port) {
                (Some(port), _) => port_of(port, "forward.to_port")?,
                (None, Some(port)) => port,
                (None, None) => {
                    let text = format!("`{}` listens on no port; say which `to_port` is meant", to.name);
                    return wrong(&raw.to, "forward.to_port", text);
                }
            };
            if !taken.insert((&router.name, port)) {
                return wrong(&raw.port, "forward.port", format!("{port} of `{}` is forwarded already", router.name));
            }
            let (router, to) = (router.name.clone(), to.name.clone());
            forwards.push(Forward { router, outside, port, to, to_address, to_port });
        }
        Ok(forwards)
    }
}

/// Whether masquerades lead from one network to another.
fn leads(hides: &BTreeMap<String, Vec<String>>, from: &str, to: &str) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(next) = open.pop() {
        if next == to {
            return true;
        }
        if seen.insert(next) {
            open.extend(hides.get(next).into_iter().flatten().map(String::as_str));
        }
    }
    false
}

//! A second model: packets that machines receive, rename and send on, one by one, with connection tracking, as a
//! kernel does it. It knows nothing of the oracle's index or of its reasoning about ways back, and has to agree
//! with it about every dial of every fleet.
use crate::{Dial, FLEETS, Failure, Fleet, Hop, Oracle, SourcePort};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

const OWN_PORT: u16 = 50_000;
const RANDOM_PORT: u16 = 60_000;
const HOPS_MAX: usize = 64;
const FAR: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packet {
    from: SocketAddrV4,
    to: SocketAddrV4,
}

impl Packet {
    fn answer(self) -> Packet {
        Packet { from: self.to, to: self.from }
    }
}

#[derive(Default)]
struct Faults {
    off: BTreeSet<String>,
    down: BTreeSet<String>,
    cut: Option<(String, String)>,
}

/// Where a packet ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// Taken in by this machine.
    At(String, Packet),
    NoRoute(String),
    Nobody(String),
    Lost(String),
}

/// A network of machines; each remembers what it passed on: the packet as it came, and as it left.
struct World<'a> {
    fleet: &'a Fleet,
    faults: &'a Faults,
    tracked: BTreeMap<String, Vec<(Packet, Packet)>>,
    hops: Vec<Hop>,
    renamed_keeping_the_port: bool,
}

struct Gate<'a> {
    router: &'a str,
    from: &'a str,
    to: &'a str,
}

impl<'a> World<'a> {
    fn gates(&self) -> Vec<Gate<'a>> {
        let fleet = self.fleet;
        let masquerades = fleet.masquerades.iter().map(|m| Gate { router: &m.router, from: &m.inside, to: &m.outside });
        masquerades.chain(fleet.routes.iter().map(|r| Gate { router: &r.router, from: &r.from, to: &r.to })).collect()
    }

    /// Floyd and Warshall's distances between networks.
    fn distances(&self) -> BTreeMap<(&'a str, &'a str), usize> {
        let names: Vec<&str> = self.fleet.networks.keys().map(String::as_str).collect();
        let on = |name: &str| !self.faults.off.contains(name);
        let mut far = BTreeMap::new();
        for gate in self.gates().iter().filter(|gate| on(gate.from) && on(gate.to)) {
            far.insert((gate.from, gate.to), 1);
        }
        far.extend(names.iter().map(|name| ((*name, *name), 0)));
        for via in &names {
            for from in &names {
                for to in &names {
                    let get = |pair| far.get(&pair).copied().unwrap_or(FAR);
                    let new = get((*from, *via)) + get((*via, *to));
                    if new < get((*from, *to)) {
                        far.insert((*from, *to), new);
                    }
                }
            }
        }
        far
    }

    /// The networks a machine is on, and its address there.
    fn links(&self, machine: &str) -> BTreeMap<&'a str, Ipv4Addr> {
        let host = self.fleet.host(machine).unwrap();
        let mut links: BTreeMap<&str, Ipv4Addr> = host.addresses.iter().map(|(n, ip)| (n.as_str(), *ip)).collect();
        for masquerade in self.fleet.masquerades.iter().filter(|m| m.router == machine) {
            links.entry(&masquerade.inside).or_insert(masquerade.address);
        }
        links.retain(|network, _| !self.faults.off.contains(*network));
        links
    }

    fn has(&self, machine: &str, ip: Ipv4Addr) -> bool {
        self.fleet.host(machine).unwrap().addresses.values().any(|own| *own == ip)
    }

    /// The network to send over and the machine to send to.
    fn route(&self, machine: &str, ip: Ipv4Addr) -> Result<(&'a str, &'a str), End> {
        let none = || End::NoRoute(machine.to_owned());
        let (target, _) =
            self.fleet.networks.iter().find(|(_, network)| network.cidr.contains(&ip)).ok_or_else(none)?;
        if self.faults.off.contains(target) {
            return Err(none());
        }
        let links = self.links(machine);
        if links.contains_key(target.as_str()) {
            let owner = self.fleet.hosts.iter().find(|host| self.has(&host.name, ip));
            return owner.map(|o| (target.as_str(), o.name.as_str())).ok_or_else(|| End::Nobody(target.clone()));
        }
        let far = self.distances();
        let mut best = (FAR, None);
        for gate in
            self.gates().into_iter().filter(|gate| links.contains_key(gate.from) && links_on(self.faults, gate.to))
        {
            let distance = 1 + far.get(&(gate.to, target.as_str())).copied().unwrap_or(FAR);
            if distance < best.0 {
                best = (distance, Some((gate.from, gate.router)));
            }
        }
        best.1.ok_or_else(none)
    }

    fn passes(&self, one: &str, other: &str) -> bool {
        let cut = |(a, b): &(String, String)| (a == one && b == other) || (a == other && b == one);
        !self.faults.down.contains(other) && !self.faults.cut.as_ref().is_some_and(cut)
    }

    /// Moves a packet from a machine until somebody takes it in.
    fn send(&mut self, start: &str, mut packet: Packet) -> End {
        let (mut at, mut over): (String, Option<&str>) = (start.to_owned(), None);
        for _ in 0..HOPS_MAX {
            let came = packet;
            // Before routing: an answer to what was passed on is renamed back; a dial to a forward is led inside.
            let known = self.tracked.get(&at).into_iter().flatten().find(|(_, left)| left.answer() == packet);
            let established = known.is_some();
            if let Some((first, _)) = known {
                packet = first.answer();
            } else if let Some(network) = over {
                let forward = self.fleet.forwards.iter().find(|forward| {
                    let address = self.fleet.host(&forward.router).unwrap().addresses[&forward.outside];
                    forward.router == at
                        && forward.outside == network
                        && packet.to == SocketAddrV4::new(address, forward.port)
                });
                if let Some(forward) = forward {
                    packet.to = SocketAddrV4::new(forward.to_address, forward.to_port);
                }
            }
            if self.has(&at, *packet.to.ip()) {
                return End::At(at, packet);
            }
            if over.is_some() {
                self.hops.push(Hop::Router(at.as_str().into()));
            }
            let (out, next) = match self.route(&at, *packet.to.ip()) {
                Ok(way) => way,
                Err(end) => return end,
            };
            if !self.passes(&at, next) {
                return End::Lost(at);
            }
            self.hops.push(Hop::Network(out.into()));
            // After routing.
            if let (Some(came_over), false) = (over, established) {
                let rule = |m: &&crate::Masquerade| m.router == at && m.inside == came_over && m.outside == out;
                if let Some(masquerade) = self.fleet.masquerades.iter().find(rule) {
                    let random = masquerade.nat.ports == crate::Ports::Random;
                    self.renamed_keeping_the_port |= !random;
                    packet.from =
                        SocketAddrV4::new(masquerade.address, if random { RANDOM_PORT } else { packet.from.port() });
                }
                self.tracked.entry(at).or_default().push((came, packet));
            }
            (at, over) = (next.to_owned(), Some(out));
        }
        panic!("{packet:?} goes in a circle");
    }
}

fn links_on(faults: &Faults, network: &str) -> bool {
    !faults.off.contains(network)
}

/// What happens, in the oracle's words.
fn walk(fleet: &Fleet, faults: &Faults, from: &str, to: SocketAddrV4) -> (Vec<Hop>, Dial) {
    let mut world = World { fleet, faults, tracked: BTreeMap::new(), hops: vec![], renamed_keeping_the_port: false };
    let machine_of = |name: &str| fleet.host(name).and_then(|h| h.shares.clone()).unwrap_or(name.to_owned());
    let start = machine_of(from);
    let mut dial = Dial { hops: vec![], seen_as: None, answered_by: None, failure: None, round_trip_ms: 0 };
    let is_down = |name: &str| faults.down.contains(name) || faults.down.contains(&machine_of(name));
    if is_down(from) {
        dial.failure = Some(Failure::Lost { after: from.into() });
        return (vec![], dial);
    }
    // Of its own address while that network is off, a machine knows nothing any more.
    let off = fleet.networks.iter().any(|(name, n)| n.cidr.contains(to.ip()) && faults.off.contains(name));
    if off {
        dial.failure = Some(Failure::NoRoute { at: start.as_str().into() });
        return (vec![], dial);
    }
    let local = world.has(&start, *to.ip());
    let source = match world.route(&start, *to.ip()) {
        _ if local => *to.ip(),
        Ok((over, _)) => world.links(&start)[over],
        Err(_) => Ipv4Addr::UNSPECIFIED,
    };
    let first = Packet { from: SocketAddrV4::new(source, OWN_PORT), to };
    let end = world.send(&start, first);
    let hops = std::mem::take(&mut world.hops);
    let (machine, packet) = match end {
        End::At(machine, packet) => (machine, packet),
        End::NoRoute(at) => return (hops, failed(dial, Failure::NoRoute { at: at.into() })),
        End::Nobody(network) => return (hops, failed(dial, Failure::Nobody { network: network.into() })),
        End::Lost(after) => return (hops, failed(dial, Failure::Lost { after: after.into() })),
    };
    let listens = |host: &&crate::Host| {
        host.port == Some(packet.to.port()) && machine_of(&host.name) == machine && !is_down(&host.name)
    };
    let listener = fleet.hosts.iter().find(listens).map(|host| host.name.clone());
    let answering = listener.clone().unwrap_or(machine.clone());
    if let Some((a, b)) = &faults.cut
        && from != answering
        && [a.as_str(), b.as_str()].contains(&from)
        && [a, b].contains(&&answering)
    {
        return (hops, failed(dial, Failure::Lost { after: from.into() }));
    }
    let port = match (packet.from.port(), world.renamed_keeping_the_port) {
        (RANDOM_PORT, _) => SourcePort::Random,
        (_, true) => SourcePort::OwnIfFree,
        _ => SourcePort::Own,
    };
    dial.seen_as = Some(crate::Source { address: *packet.from.ip(), port });
    let back = if local { End::At(start.clone(), first.answer()) } else { world.send(&machine, packet.answer()) };
    dial.failure = match back {
        End::Lost(after) => Some(Failure::Lost { after: after.into() }),
        End::At(home, answer) if home == start && answer == first.answer() => match &listener {
            Some(_) => None,
            None => Some(Failure::Refused { by: machine.into() }),
        },
        _ => Some(Failure::NoWayBack { at: "".into() }),
    };
    if dial.failure.is_none() {
        dial.answered_by = listener.map(|name| name.as_str().into());
    }
    (hops, dial)
}

fn failed(dial: Dial, failure: Failure) -> Dial {
    Dial { failure: Some(failure), ..dial }
}

/// What kind of end it was.
fn kind(dial: &Dial) -> &'static str {
    match &dial.failure {
        None if dial.hops.len() > 3 => "ok over many",
        None => "ok",
        Some(Failure::NoRoute { .. }) => "no route",
        Some(Failure::Nobody { .. }) => "nobody",
        Some(Failure::Refused { .. }) => "refused",
        Some(Failure::Lost { .. }) => "lost",
        Some(Failure::NoWayBack { .. }) => "no way back",
        Some(Failure::NoSuchHost { .. }) => "no such host",
    }
}

/// Compares both models on all hosts and all addresses worth dialling, and counts the kinds of ends.
fn agree(fleet: &Fleet, oracle: &Oracle, faults: &Faults, ends: &mut BTreeMap<&'static str, usize>) {
    let mut ports: BTreeSet<u16> = fleet.hosts.iter().filter_map(|host| host.port).collect();
    ports.extend(fleet.forwards.iter().map(|forward| forward.port));
    ports.insert(9);
    let mut ips: BTreeSet<Ipv4Addr> = fleet.hosts.iter().flat_map(|host| host.addresses.values().copied()).collect();
    ips.extend(fleet.networks.values().filter_map(|network| network.cidr.hosts().last()));
    ips.insert(Ipv4Addr::new(8, 8, 8, 8));
    for host in &fleet.hosts {
        for (ip, port) in ips.iter().flat_map(|ip| ports.iter().map(move |port| (*ip, *port))) {
            let to = SocketAddrV4::new(ip, port);
            let ours = oracle.dial(&host.name, to.into());
            let (hops, mut theirs) = walk(fleet, faults, &host.name, to);
            *ends.entry(kind(&ours)).or_default() += 1;
            // Where an answer strays is not the same question in both: a kernel renames it and lets it go on.
            if let (Some(Failure::NoWayBack { at }), Some(Failure::NoWayBack { .. })) = (&ours.failure, &theirs.failure)
            {
                theirs.failure = Some(Failure::NoWayBack { at: at.clone() });
            }
            theirs.round_trip_ms = ours.round_trip_ms;
            theirs.hops = hops;
            assert_eq!(ours, theirs, "{} dials {to} in {fleet:#?}", host.name);
        }
    }
}

#[test]
fn the_walker_agrees_on_every_shipped_fleet_with_every_single_fault() {
    for (name, text) in FLEETS {
        let fleet = Fleet::parse(name, text).unwrap();
        let healthy = Oracle::new(&fleet);
        let ends = &mut BTreeMap::new();
        agree(&fleet, &healthy, &Faults::default(), ends);
        for network in fleet.networks.keys() {
            let faults = Faults { off: BTreeSet::from([network.clone()]), ..Faults::default() };
            agree(&fleet, &healthy.clone().without(network).unwrap(), &faults, ends);
        }
        for one in &fleet.hosts {
            let faults = Faults { down: BTreeSet::from([one.name.clone()]), ..Faults::default() };
            agree(&fleet, &healthy.clone().down(&one.name).unwrap(), &faults, ends);
            for other in fleet.hosts.iter().filter(|other| other.name > one.name) {
                let faults = Faults { cut: Some((one.name.clone(), other.name.clone())), ..Faults::default() };
                agree(&fleet, &healthy.clone().cut(&one.name, &other.name).unwrap(), &faults, ends);
            }
        }
    }
}

/// A fleet out of dice: whatever the loader refuses is left out again.
fn diced(dice: &[u16]) -> Fleet {
    let mut dice = dice.iter().copied().cycle();
    let mut roll = |sides: usize| usize::from(dice.next().unwrap_or(0)) % sides;
    let networks = 3 + roll(3);
    let mut text = "name = \"diced\"\n".to_owned();
    for network in 0..networks {
        text += &format!("[[network]]\nname = \"n{network}\"\ncidr = \"10.0.{network}.0/24\"\n");
    }
    let hosts = 3 + roll(5);
    for host in 0..hosts {
        let mut on = BTreeSet::from([roll(networks)]);
        on.extend((0..roll(3)).map(|_| roll(networks)));
        let addresses: Vec<String> = on.iter().map(|n| format!("n{n} = \"10.0.{n}.{}\"", host + 1)).collect();
        let addresses = addresses.join(", ");
        text += &format!("[[host]]\nname = \"h{host}\"\naddresses = {{ {addresses} }}\ncores = 1\nrole = \"drone\"\n");
    }
    text += "[[host]]\nname = \"guest\"\nshares = \"h0\"\nport = 81\ncores = 1\nrole = \"drone\"\n";
    for number in 0..8 + roll(24) {
        let (router, from, to) = (roll(hosts), roll(networks), roll(networks));
        let added = match roll(4) {
            0 | 1 => {
                let ports = ["preserved", "random"][roll(2)];
                format!(
                    "[[masquerade]]\nrouter = \"h{router}\"\ninside = \"n{from}\"\noutside = \"n{to}\"\n\
                     address = \"10.0.{to}.{}\"\nports = \"{ports}\"\n",
                    router + 1
                )
            }
            2 => format!("[[route]]\nrouter = \"h{router}\"\nfrom = \"n{from}\"\nto = \"n{to}\"\n"),
            _ => {
                let target = roll(hosts + 1);
                let target = if target == hosts { "guest".to_owned() } else { format!("h{target}") };
                let port = 100 + number;
                // Now and then to a port that the next router forwards again.
                let to_port = [7400, 81, 9, 99 + number, 101 + number][roll(5)];
                format!(
                    "[[forward]]\nrouter = \"h{router}\"\noutside = \"n{to}\"\nport = {port}\nto = \"{target}\"\nto_port = {to_port}\n"
                )
            }
        };
        if Fleet::parse("diced", &format!("{text}{added}")).is_ok() {
            text += &added;
        }
    }
    Fleet::parse("diced", &text).unwrap()
}

fn compare(dice: &[u16], ends: &mut BTreeMap<&'static str, usize>) {
    let fleet = diced(dice);
    let healthy = Oracle::new(&fleet);
    agree(&fleet, &healthy, &Faults::default(), ends);
    let pick = |from: usize| usize::from(dice[dice.len() - 1 - from]) % fleet.hosts.len();
    let (one, other) = (&fleet.hosts[pick(0)].name, &fleet.hosts[pick(1)].name);
    let off = format!("n{}", usize::from(dice[0]) % fleet.networks.len());
    let down = &fleet.hosts[pick(2)].name;
    let oracle = healthy.without(&off).unwrap().down(down).unwrap().cut(one, other).unwrap();
    let cut = (one != other).then(|| (one.clone(), other.clone()));
    agree(&fleet, &oracle, &Faults { off: [off].into(), down: [down.clone()].into(), cut }, ends);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_walker_agrees_on_any_fleet(dice in prop::collection::vec(any::<u16>(), 40..120)) {
        compare(&dice, &mut BTreeMap::new());
    }
}

/// The dice reach every kind of end, or their agreement would say little.
#[test]
fn the_dice_reach_every_kind_of_end() {
    let mut ends = BTreeMap::new();
    let mut state = 7_u64;
    for _ in 0..96 {
        let dice: Vec<u16> = (0..100)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 48) as u16
            })
            .collect();
        compare(&dice, &mut ends);
    }
    for kind in ["ok", "ok over many", "no route", "nobody", "refused", "lost", "no way back"] {
        assert!(ends.get(kind).is_some_and(|count| *count >= 10), "{kind}: {ends:?}");
    }
}

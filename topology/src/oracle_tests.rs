//! Truth tables, written by hand from what each fleet is: every dialler, every address.
use crate::{ALPHA_CENTAURI, Dial, FLEETS, Failure, Fleet, Hop, Oracle, SourcePort};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

fn fleet(name: &str) -> Fleet {
    let (file, text) = FLEETS.iter().find(|(file, _)| *file == format!("{name}.toml")).unwrap();
    Fleet::parse(file, text).unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// `ADDRESS` when the meant host answers and sees that source (`~` behind it: port kept if free, `?`: any port),
/// `!HOST/SOURCE` when that host refuses, `none` for no route at the dialler, `nobody`.
fn cell(dial: &Dial, from: &str, means: &str) -> String {
    let source = dial.seen_as.map(|source| {
        let mark = match source.port {
            SourcePort::Own => "",
            SourcePort::OwnIfFree => "~",
            SourcePort::Random => "?",
        };
        format!("{}{mark}", source.address)
    });
    match (&dial.failure, source) {
        (None, Some(source)) => {
            assert_eq!(dial.answered_by.as_deref(), Some(means), "{from}: {dial:?}");
            source
        }
        (Some(Failure::Refused { by }), Some(source)) => format!("!{by}/{source}"),
        (Some(Failure::NoRoute { at }), None) if &**at == from => "none".into(),
        (Some(Failure::Nobody { .. }), None) => "nobody".into(),
        other => panic!("{from}: {other:?}"),
    }
}

/// Holds a table against the oracle. A line: who is meant, the address and port, a cell for each dialler in the
/// fleet's order (`-` for one's own). `short` are abbreviations of networks' prefixes.
fn truth(oracle: &Oracle, fleet: &Fleet, short: &[(char, &str)], table: &str) {
    let long = |text: &str| {
        let full = short.iter().find_map(|(letter, prefix)| {
            let start = text.find(&format!("{letter}.")).filter(|at| *at == 0 || text.as_bytes()[at - 1] == b'/')?;
            Some(format!("{}{prefix}{}", &text[..start], &text[start + 2..]))
        });
        full.unwrap_or(text.to_owned())
    };
    let mut covered = vec![];
    for line in table.lines().filter(|line| !line.trim().is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (means, address) = (words[0], at(&long(words[1])));
        assert_eq!(words.len() - 2, fleet.hosts.len(), "{line}");
        covered.push((means.to_owned(), address));
        for (host, expected) in fleet.hosts.iter().zip(&words[2..]).filter(|(_, cell)| **cell != "-") {
            let dial = oracle.dial(&host.name, address);
            assert_eq!(cell(&dial, &host.name, means), long(expected), "{} dials {address}: {dial:?}", host.name);
        }
    }
    for row in oracle.table().rows {
        assert!(covered.contains(&(row.to.to_string(), row.address)), "the truth table leaves out {row:?}");
    }
}

const ALPHA: [(char, &str); 3] = [('a', "10.42.0."), ('b', "192.168.20."), ('o', "100.64.0.")];

#[test]
fn alpha_centauri() {
    let fleet = fleet("alpha-centauri");
    // Site-b dials the gateway itself without being renamed: the packet goes no further than that.
    let wires = "
        Alpha-Centauri    a.199:7400 -     a.201 a.203 a.194 b.77   b.196
        Izar-Orchestrator a.201:7400 a.199 -     a.203 a.194 a.199~ a.199~
        drone-Izar        a.203:7400 a.199 a.201 -     a.194 a.199~ a.199~
        drone-Tau-Beta    a.194:7400 a.199 a.201 a.203 -     a.199~ a.199~
        drone-Meridian    b.77:7400  a.199 none  none  none  -      b.196
        drone-Tarn        b.196:7400 a.199 none  none  none  b.77   -
        -                 a.9:7400   nobody nobody nobody nobody nobody nobody
        -                 8.8.8.8:53 none  none  none  none  none   none";
    let overlay = "
        Alpha-Centauri    o.88:7400  -    o.18 o.126 o.125 o.110 o.91
        Izar-Orchestrator o.18:7400  o.88 -    o.126 o.125 o.110 o.91
        drone-Izar        o.126:7400 o.88 o.18 -     o.125 o.110 o.91
        drone-Tau-Beta    o.125:7400 o.88 o.18 o.126 -     o.110 o.91
        drone-Meridian    o.110:7400 o.88 o.18 o.126 o.125 -     o.91
        drone-Tarn        o.91:7400  o.88 o.18 o.126 o.125 o.110 -";
    let oracle = Oracle::new(&fleet);
    truth(&oracle, &fleet, &ALPHA, &format!("{wires}{overlay}"));
    let off: Vec<String> = overlay
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let cells = words[2..].iter().map(|cell| if *cell == "-" { "-" } else { "none" });
            format!("{} {} {}", words[0], words[1], cells.collect::<Vec<_>>().join(" "))
        })
        .collect();
    truth(&oracle.without("overlay").unwrap(), &fleet, &ALPHA, &format!("{wires}\n{}", off.join("\n")));
}

#[test]
fn one_host() {
    let fleet = fleet("one-host");
    let oracle = Oracle::new(&fleet);
    assert!(oracle.table().rows.is_empty());
    let own = oracle.dial("only", at("192.168.1.10:7400"));
    assert!(own.succeeds() && own.hops.is_empty() && own.answered_by.as_deref() == Some("only"), "{own:?}");
    assert_eq!(cell(&oracle.dial("only", at("192.168.1.10:1")), "only", "-"), "!only/192.168.1.10");
    assert_eq!(cell(&oracle.dial("only", at("192.168.1.11:7400")), "only", "-"), "nobody");
    assert_eq!(oracle.dial("only", at("[::1]:7400")).failure, Some(Failure::NoRoute { at: "only".into() }));
    assert_eq!(oracle.dial("x", at("1.1.1.1:1")).failure, Some(Failure::NoSuchHost { name: "x".into() }));
}

const HOMES: [(char, &str); 3] = [('e', "192.168.1."), ('w', "192.168.2."), ('p', "203.0.113.")];

#[test]
fn two_sites_masqueraded() {
    let fleet = fleet("two-sites-masqueraded");
    let table = "
        east-1 e.10:7400 e.1  none -    e.11 none
        east-2 e.11:7400 e.1  none e.10 -    none
        west-1 w.10:7400 none w.1  none none -
        -      p.1:7400  -    !east-router/p.2 !east-router/e.10 !east-router/e.11 !east-router/p.2~
        -      p.2:7400  !west-router/p.1 - !west-router/p.1~ !west-router/p.1~ !west-router/w.10
        -      w.1:7400  none !west-router/w.1 none none !west-router/w.10";
    truth(&Oracle::new(&fleet), &fleet, &HOMES, table);
}

#[test]
fn carrier_grade() {
    let fleet = fleet("carrier-grade");
    // Nobody on the Internet can dial into the carrier's network, where the home's forward would be.
    let table = "
        home-1 h.10:7400 h.1  none -    none
        home-1 c.7:7400  !home-router/c.7 c.1 !home-router/h.10 none
        public p.50:7400 p.1? p.1  p.1? -
        -      p.1:7400  !carrier-router/c.7 - !carrier-router/c.7~ !carrier-router/p.50
        -      c.9:7400  nobody nobody nobody none";
    truth(&Oracle::new(&fleet), &fleet, &[('h', "192.168.1."), ('c', "100.64.0."), ('p', "203.0.113.")], table);
}

#[test]
fn container_shares_address() {
    let fleet = fleet("container-shares-address");
    let table = "
        workstation o.5:7400 -   o.5 o.5 o.6
        builder     o.5:7401 o.5 -   o.5 o.6
        drone       o.6:7400 o.5 o.5 o.5 -
        -           o.5:7402 !workstation/o.5 !workstation/o.5 !workstation/o.5 !workstation/o.6";
    truth(&Oracle::new(&fleet), &fleet, &[('o', "10.0.0.")], table);
    assert!(Oracle::new(&fleet).reach("drone", "forgotten").is_empty(), "it listens nowhere");
    // The container is down and its host is not, and the other way round.
    let dial = |oracle: Oracle| oracle.dial("drone", at("10.0.0.5:7401")).failure;
    let down = |host: &str| dial(Oracle::new(&fleet).down(host).unwrap());
    assert_eq!(down("builder"), Some(Failure::Refused { by: "workstation".into() }));
    assert_eq!(down("workstation"), Some(Failure::Lost { after: "drone".into() }));
    assert_eq!(down("forgotten"), None);
    let cut = dial(Oracle::new(&fleet).cut("drone", "builder").unwrap());
    assert_eq!(cut, Some(Failure::Lost { after: "drone".into() }));
}

#[test]
fn symmetric_both() {
    let fleet = fleet("symmetric-both");
    let table = "
        east-1 e.10:7400 e.1  none -    none none
        west-1 w.10:7400 none w.1  none -    none
        relay  p.50:7400 p.1  p.2  p.1? p.2? -
        -      p.1:7400  -    !east-router/p.2 !east-router/e.10 !east-router/p.2? !east-router/p.50";
    truth(&Oracle::new(&fleet), &fleet, &HOMES, table);
}

#[test]
fn port_forward() {
    let fleet = fleet("port-forward");
    let table = "
        router h.1:7400  -         h.10 h.11 none
        router p.1:7400  -         h.10 h.11 p.50
        home-1 h.10:7400 h.1       -    h.11 none
        home-1 p.1:7444  !router/p.1 !router/h.10 !router/h.11 p.50
        home-2 h.11:7400 h.1       h.10 -    none
        public p.50:7400 p.1       p.1~ p.1~ -";
    truth(&Oracle::new(&fleet), &fleet, &[('h', "192.168.1."), ('p', "203.0.113.")], table);
}

/// The router's inside address is not the one whose port is opened, even for who comes from outside.
#[test]
fn a_forward_holds_for_the_outside_address_alone() {
    let text = FLEETS.iter().find(|(file, _)| *file == "port-forward.toml").unwrap().1;
    let route = "[[route]]\nrouter = \"router\"\nfrom = \"internet\"\nto = \"home\"\n";
    let oracle = Oracle::new(&Fleet::parse("f", &format!("{text}\n{route}")).unwrap());
    let ends = |to: &str| cell(&oracle.dial("public", at(to)), "public", "home-1");
    assert_eq!(ends("192.168.1.1:7444"), "!router/203.0.113.50");
    assert_eq!(ends("203.0.113.1:7444"), "203.0.113.50");
    assert_eq!(ends("192.168.1.10:7400"), "203.0.113.50");
}

fn over(oracle: &Oracle, from: &str, to: &str) -> String {
    oracle.dial(from, at(to)).hops.iter().map(Hop::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn hops_and_round_trips() {
    let (alpha, carrier) = (Oracle::new(&fleet("alpha-centauri")), Oracle::new(&fleet("carrier-grade")));
    assert_eq!(over(&alpha, "drone-Tarn", "10.42.0.201:7400"), "site-b (Alpha-Centauri) site-a");
    assert_eq!(over(&alpha, "drone-Tarn", "10.42.0.199:7400"), "site-b");
    assert_eq!(over(&alpha, "drone-Tarn", "100.64.0.88:7400"), "overlay");
    assert_eq!(over(&alpha, "drone-Izar", "192.168.20.77:7400"), "");
    let far = "home (home-router) carrier (carrier-router) internet";
    assert_eq!(over(&carrier, "home-1", "203.0.113.50:7400"), far);
    assert_eq!(over(&carrier, "carrier-router", "100.64.0.7:7400"), "carrier (home-router) home");
    assert_eq!(alpha.dial("drone-Tarn", at("10.42.0.201:7400")).round_trip_ms, 38);
    assert_eq!(carrier.dial("home-1", at("203.0.113.50:7400")).round_trip_ms, 28);
}

#[test]
fn faults_lose_what_passes_them_and_nothing_else() {
    let fleet = fleet("alpha-centauri");
    let healthy = Oracle::new(&fleet);
    let wan = at("10.42.0.201:7400");
    let lost = |after: &str| Some(Failure::Lost { after: after.into() });
    let gone = healthy.clone().down("Alpha-Centauri").unwrap();
    assert_eq!(gone.dial("drone-Tarn", wan).failure, lost("drone-Tarn"));
    assert_eq!(gone.dial("Alpha-Centauri", wan).failure, lost("Alpha-Centauri"));
    assert!(gone.dial("drone-Tarn", at("100.64.0.18:7400")).succeeds() && gone.dial("drone-Izar", wan).succeeds());
    let sites = healthy.clone().cut_networks("site-a", "site-b").unwrap();
    assert_eq!(sites.dial("drone-Tarn", wan).failure, lost("Alpha-Centauri"));
    assert!(sites.dial("drone-Tarn", at("10.42.0.199:7400")).succeeds(), "the gateway is on both");
    // Ends that are no neighbours, and neighbours that are no ends.
    let ends = healthy.clone().cut("Izar-Orchestrator", "drone-Tarn").unwrap();
    assert_eq!(ends.dial("drone-Tarn", wan).failure, lost("drone-Tarn"));
    assert!(ends.dial("drone-Meridian", wan).succeeds());
    let neighbours = healthy.clone().cut("Alpha-Centauri", "Izar-Orchestrator").unwrap();
    assert_eq!(neighbours.dial("drone-Tarn", wan).failure, lost("Alpha-Centauri"));
    assert!(neighbours.dial("drone-Tarn", at("10.42.0.203:7400")).succeeds());
    let error = healthy.clone().without("overly").err().unwrap().to_string();
    assert_eq!(error, "no network of this fleet is called `overly`");
    assert!(healthy.clone().down("x").is_err() && healthy.cut("drone-Tarn", "x").is_err());
}

/// What incidents 1 and 2 were: whoever has the source address is taken for the one that dials.
#[test]
fn an_oracle_that_tells_hosts_by_their_source_address_is_caught() {
    let mut taken_for_another = BTreeMap::new();
    for (name, text) in FLEETS {
        let fleet = Fleet::parse(name, text).unwrap();
        let naive = |ip: Ipv4Addr| fleet.hosts.iter().find(|host| host.addresses.values().any(|own| *own == ip));
        let rows = Oracle::new(&fleet).table().rows;
        let reached = rows.iter().filter(|row| row.dial.succeeds());
        let wrong = reached.filter(|row| naive(row.dial.seen_as.unwrap().address).is_some_and(|h| h.name != *row.from));
        taken_for_another.insert(name, wrong.count());
    }
    // Two drones at three hosts of site-a; the home's router and its host at `public`; two containers at three ports,
    // less their own; one host of each home at the relay or at `public`.
    let expected = [
        ("alpha-centauri.toml", 6),
        ("carrier-grade.toml", 2),
        ("container-shares-address.toml", 5),
        ("one-host.toml", 0),
        ("port-forward.toml", 2),
        ("symmetric-both.toml", 2),
        ("two-sites-masqueraded.toml", 0),
    ];
    assert_eq!(taken_for_another, BTreeMap::from(expected));
    let seen = Oracle::new(&fleet("alpha-centauri")).seen_at("drone-Izar");
    let names: Vec<&str> = seen[&Ipv4Addr::new(10, 42, 0, 199)].iter().map(|name| &**name).collect();
    assert_eq!(names, ["Alpha-Centauri", "drone-Meridian", "drone-Tarn"]);
}

#[test]
fn the_table_reads_well_and_route_tables_can_be_built_from_it() {
    let carrier = Oracle::new(&fleet("carrier-grade"));
    let text = carrier.table().to_string();
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = text.lines().map(words).collect();
    assert_eq!(lines[0], "FROM TO AT RESULT OVER SEEN AS");
    let far = "home-1 public 203.0.113.50:7400 ok home (home-router) carrier (carrier-router) internet 203.0.113.1, random port";
    assert!(lines.iter().any(|line| line == far), "{text}");
    assert!(lines.iter().any(|line| line == "public home-1 100.64.0.7:7400 no route at public - -"), "{text}");
    let starts = text.lines().map(|line| line.find("203.0.113.50:7400")).filter(Option::is_some);
    assert!(starts.collect::<Vec<_>>().windows(2).all(|two| two[0] == two[1]), "columns line up");
    let routes = carrier.routes("home-1").unwrap();
    let routes: Vec<String> = routes.iter().map(|r| format!("{} over {} by {}", r.to, r.over, r.router)).collect();
    assert_eq!(routes, ["carrier over home by home-router", "internet over home by home-router"]);
    assert_eq!(carrier.routes("public").unwrap(), []);
}

#[test]
fn a_route_there_without_one_back_is_no_connection() {
    let plain = ALPHA_CENTAURI.replace("[[masquerade]]", "[[route]]").replace("inside =", "from =");
    let plain = plain.replace("outside =", "to =").replace("address = \"10.42.0.199\"\n", "");
    let plain = plain.replace("{ site-a = \"10.42.0.199\"", "{ site-b = \"192.168.20.1\", site-a = \"10.42.0.199\"");
    let oracle = Oracle::new(&Fleet::parse("f", &plain).unwrap());
    let dial = oracle.dial("drone-Tarn", at("10.42.0.201:7400"));
    assert_eq!(dial.failure, Some(Failure::NoWayBack { at: "Izar-Orchestrator".into() }));
    assert_eq!(dial.seen_as.unwrap().address, Ipv4Addr::new(192, 168, 20, 196));
}

#[test]
fn generated_fleets_are_what_they_say() {
    for masqueraded in [true, false] {
        let fleet = Fleet::generated_plain(16, 624, masqueraded).unwrap();
        let oracle = Oracle::new(&fleet).without("overlay").unwrap();
        let lan = |name: &str| {
            oracle.reach("s3-h7", name).into_iter().find(|(at, _)| at.ip().to_string().starts_with("10.")).unwrap().1
        };
        assert_eq!(over(&oracle, "s3-h7", "10.0.48.3:7400"), "site-3");
        assert!(lan("s3-h1").succeeds());
        assert_eq!(lan("s4-h1").succeeds(), !masqueraded);
        let overlaid = Oracle::new(&fleet).reach("s3-h7", "s4-h1");
        assert_eq!(overlaid.iter().filter(|(_, dial)| dial.succeeds()).count(), 2 - usize::from(masqueraded));
    }
}

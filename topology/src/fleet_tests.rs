use crate::limits::*;
use crate::{ALPHA_CENTAURI, Dependence, FLEETS, Fleet, FleetError, Nat, NetworkKind, Ports, Service};
use std::path::Path;

#[test]
fn the_reference_fleet_has_six_hosts_and_58_cores() {
    let fleet = Fleet::alpha_centauri().unwrap();
    assert_eq!((fleet.hosts.len(), fleet.cores(), fleet.networks.len()), (6, 58, 3));
    assert_eq!(fleet.hosts.iter().filter(|host| host.protected).count(), 2);
    assert_eq!(fleet.host("drone-Tau-Beta").unwrap().service, Some(Service::Openrc));
    assert!(fleet.networks["overlay"].kind == NetworkKind::Overlay);
    assert_eq!(fleet.masquerades[0].nat, Nat::LINUX);
    assert!(fleet.hosts.iter().all(|host| host.port == Some(7400)));
}

#[test]
fn every_file_of_the_folder_is_shipped_and_loads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fleets");
    let mut there: Vec<String> =
        std::fs::read_dir(&folder).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    there.sort();
    assert_eq!(there, FLEETS.map(|(name, _)| name));
    for (name, text) in FLEETS {
        let fleet = Fleet::parse(name, text).unwrap();
        assert_eq!(format!("{}.toml", fleet.name), name);
        assert_eq!(Fleet::load(&folder.join(name)).unwrap(), fleet);
        assert!(text.starts_with("# "), "{name} does not say what it stands for");
    }
}

const SMALL: &str = r#"name = "small"

[[network]]
name = "in"
cidr = "10.0.0.0/24"

[[network]]
name = "mid"
cidr = "10.0.1.0/24"

[[network]]
name = "out"
cidr = "10.0.2.0/24"
round_trip_ms = 5
loss_per_mille = 10

[[masquerade]]
router = "r1"
inside = "in"
outside = "mid"
address = "10.0.1.1"
ports = "random"
round_trip_ms = 7

[[masquerade]]
router = "r2"
inside = "mid"
outside = "out"
address = "10.0.2.1"
mapping = "address-dependent"

[[route]]
router = "r2"
from = "out"
to = "mid"
round_trip_ms = 9

[[forward]]
router = "r1"
outside = "mid"
port = 81
to = "a"
to_port = 82

[[host]]
name = "r1"
addresses = { in = "10.0.0.1", mid = "10.0.1.1" }
cores = 0
role = "router"

[[host]]
name = "r2"
addresses = { mid = "10.0.1.2", out = "10.0.2.1" }
cores = 1
role = "router"
port = 80

[[host]]
name = "a"
addresses = { in = "10.0.0.9" }
cores = 2
role = "drone"

[[host]]
name = "c"
shares = "a"
port = 7401
cores = 3
role = "relay"

[[host]]
name = "e"
shares = "a"
cores = 5
role = "drone"
"#;

/// Replaces `from`, which stands there once, and gives where the loader finds fault, in what field, and what it says.
fn broken(text: &str, from: &str, to: &str) -> (usize, usize, String, String) {
    assert_eq!(text.matches(from).count(), 1, "`{from}` has to be found once");
    match Fleet::parse("f", &text.replace(from, to)) {
        Err(FleetError::Invalid { line, column, field, text, .. }) => (line, column, field, text),
        other => panic!("`{to}` gave {other:?}"),
    }
}

/// Line and column at which `text` begins in a fleet.
fn place(fleet: &str, text: &str) -> (usize, usize) {
    let before = &fleet[..fleet.find(text).unwrap()];
    (before.matches('\n').count() + 1, before.len() - before.rfind('\n').map_or(0, |newline| newline + 1) + 1)
}

#[test]
fn mistakes_are_found_at_their_line_column_and_field() {
    // What is replaced, by what, where the fault lies within that, its field, what is said of it.
    for (from, to, at, field, says) in [
        (
            "\"in\"\ncidr",
            "\"mid\"\ncidr",
            "\"mid\"\ncidr = \"10.0.1",
            "network.name",
            "a second network is called `mid`",
        ),
        (
            "\"10.0.0.0/24\"",
            "\"10.0.0.1/24\"",
            "\"10.0.0.1/24\"",
            "network.cidr",
            "10.0.0.1/24 has host bits set; write 10.0.0.0/24",
        ),
        (
            "\"10.0.2.0/24\"",
            "\"10.0.0.0/16\"",
            "\"10.0.0.0/16\"",
            "network.cidr",
            "10.0.0.0/16 overlaps with `mid`, which is 10.0.1.0/24",
        ),
        (
            "\"10.0.2.0/24\"",
            "\"10.0.1.128/25\"",
            "\"10.0.1.128/25\"",
            "network.cidr",
            "10.0.1.128/25 overlaps with `mid`, which is 10.0.1.0/24",
        ),
        (
            "round_trip_ms = 5\n",
            "round_trip_ms = 60001\n",
            "60001",
            "network.round_trip_ms",
            "60001 is past the bound of 60000",
        ),
        (
            "loss_per_mille = 10",
            "loss_per_mille = 1000",
            "1000",
            "network.loss_per_mille",
            "1000 is past the bound of 999",
        ),
        ("\"r1\"\ninside", "\"r9\"\ninside", "\"r9\"", "masquerade.router", "no host of this fleet is called `r9`"),
        (
            "inside = \"in\"",
            "inside = \"inn\"",
            "\"inn\"",
            "masquerade.inside",
            "no network of this fleet is called `inn`",
        ),
        (
            "outside = \"out\"",
            "outside = \"outt\"",
            "\"outt\"",
            "masquerade.outside",
            "no network of this fleet is called `outt`",
        ),
        (
            "address = \"10.0.2.1\"",
            "address = \"10.0.2.9\"",
            "\"10.0.2.9\"",
            "masquerade.address",
            "10.0.2.9 is not the address of `r2` on `out`; 10.0.2.1 is",
        ),
        (
            "outside = \"out\"\naddress",
            "outside = \"in\"\naddress",
            "\"in\"\naddress = \"10.0.2.1\"",
            "masquerade.outside",
            "`in` is hidden behind `mid` already: masquerades in a circle lead nowhere",
        ),
        (
            "outside = \"out\"\naddress",
            "outside = \"mid\"\naddress",
            "\"mid\"\naddress = \"10.0.2.1\"",
            "masquerade.outside",
            "`mid` is hidden behind `mid` already: masquerades in a circle lead nowhere",
        ),
        (
            "\"r2\"\ninside = \"mid\"",
            "\"a\"\ninside = \"mid\"",
            "\"10.0.2.1\"\nmapping",
            "masquerade.address",
            "`a` has no address on `out`",
        ),
        (
            "round_trip_ms = 7",
            "round_trip_ms = 90000",
            "90000",
            "masquerade.round_trip_ms",
            "90000 is past the bound of 60000",
        ),
        ("\"r2\"\nfrom", "\"r9\"\nfrom", "\"r9\"", "route.router", "no host of this fleet is called `r9`"),
        (
            "from = \"out\"\nto = \"mid\"",
            "from = \"mid\"\nto = \"out\"",
            "\"out\"\nround_trip_ms = 9",
            "route.to",
            "there is a way from `mid` to `out` already, and one is allowed",
        ),
        (
            "from = \"out\"",
            "from = \"nowhere\"",
            "\"nowhere\"",
            "route.from",
            "no network of this fleet is called `nowhere`",
        ),
        ("from = \"out\"", "from = \"in\"", "\"in\"\nto = ", "route.from", "`r2` has no address on `in`"),
        (
            "from = \"out\"",
            "from = \"mid\"",
            "\"mid\"\nround_trip_ms = 9",
            "route.to",
            "a route from `mid` to itself leads nowhere",
        ),
        ("\"r1\"\noutside", "\"r9\"\noutside", "\"r9\"", "forward.router", "no host of this fleet is called `r9`"),
        ("port = 81", "port = 0", "0\nto = \"a\"", "forward.port", "0 is no port; 1 to 65535 are"),
        (
            "to = \"a\"",
            "to = \"r2\"",
            "\"r2\"\nto_port",
            "forward.to",
            "`r2` is on no network that `r1` hides from `mid`",
        ),
        (
            "to = \"a\"",
            "to = \"r1\"",
            "\"r1\"\nto_port",
            "forward.to",
            "`r1` is on no network that `r1` hides from `mid`",
        ),
        (
            "to = \"a\"\nto_port = 82",
            "to = \"e\"",
            "\"e\"\n\n[[host]]",
            "forward.to_port",
            "`e` listens on no port; say which `to_port` is meant",
        ),
        (
            "\"a\"\naddresses",
            "\"r1\"\naddresses",
            "\"r1\"\naddresses = { in = \"10.0.0.9\"",
            "host.name",
            "a second host is called `r1`",
        ),
        ("name = \"a\"", "name = \"\"", "\"\"", "host.name", "0 bytes; a name has 1 to 63"),
        ("name = \"a\"", "name = \"a b\"", "\"a b\"", "host.name", "\"a b\" has a space or a control character in it"),
        (
            "in = \"10.0.0.9\"",
            "inn = \"10.0.0.9\"",
            "\"10.0.0.9\"",
            "host.addresses.inn",
            "no network of this fleet is called `inn`",
        ),
        (
            "in = \"10.0.0.9\"",
            "in = \"10.9.0.9\"",
            "\"10.9.0.9\"",
            "host.addresses.in",
            "10.9.0.9 is not in `in`, which is 10.0.0.0/24",
        ),
        (
            "in = \"10.0.0.9\"",
            "in = \"10.0.0.255\"",
            "\"10.0.0.255\"",
            "host.addresses.in",
            "10.0.0.255 is the first or last address of `in`, which no host may have",
        ),
        (
            "in = \"10.0.0.9\"",
            "in = \"10.0.0.1\"",
            "\"10.0.0.1\" }\ncores = 2",
            "host.addresses.in",
            "10.0.0.1 is taken by `r1`",
        ),
        (
            "{ in = \"10.0.0.9\" }",
            "{}",
            "\"a\"\naddresses",
            "host.addresses",
            "`a` is on no network; give it an address or say whose it `shares`",
        ),
        ("shares = \"a\"\nport", "shares = \"z\"\nport", "\"z\"", "host.shares", "no host of this fleet is called `z`"),
        ("shares = \"a\"\nport", "shares = \"c\"\nport", "\"c\"\nport", "host.shares", "`c` cannot share with itself"),
        (
            "shares = \"a\"\nport",
            "shares = \"e\"\nport",
            "\"e\"\nport",
            "host.shares",
            "`e` shares an address itself; name the host that has it",
        ),
        (
            "shares = \"a\"\nport",
            "addresses = { in = \"10.0.0.8\" }\nshares = \"a\"\nport",
            "\"a\"\nport",
            "host.shares",
            "`c` has addresses of its own; give it either those or `shares`",
        ),
        (
            "port = 7401",
            "port = 7400",
            "7400",
            "host.port",
            "7400 of `a` is taken already; hosts that share an address need ports of their own",
        ),
        ("port = 7401", "port = 0", "0\ncores = 3", "host.port", "0 is no port; 1 to 65535 are"),
        ("cores = 3", "cores = 5000", "5000", "host.cores", "5000 is past the bound of 4096"),
    ] {
        let (line, column, in_field, text) = broken(SMALL, from, to);
        assert_eq!((in_field.as_str(), text.as_str()), (field, says), "`{to}`");
        assert_eq!((line, column), place(&SMALL.replace(from, to), at), "{text}");
    }
}

#[test]
fn a_port_is_forwarded_once_and_not_if_the_router_listens_on_it() {
    let again = "[[forward]]\nrouter = \"r1\"\noutside = \"mid\"\nport = 81\nto = \"c\"\n\n[[host]]\nname = \"r1\"";
    let (line, _, field, text) = broken(SMALL, "[[host]]\nname = \"r1\"", again);
    assert_eq!((field.as_str(), text.as_str()), ("forward.port", "81 of `r1` is forwarded already"));
    assert_eq!(line, place(SMALL, "[[host]]").0 + 3);
    let listens = "10.0.1.1\" }\nport = 81\n";
    let (line, _, field, text) = broken(SMALL, "mid = \"10.0.1.1\" }\n", &format!("mid = \"{listens}"));
    assert_eq!((field.as_str(), text.as_str()), ("forward.port", "`r1` listens on 81 of `r1` already"));
    assert_eq!(line, place(SMALL, "port = 81").0);
}

#[test]
fn what_is_no_fleet_at_all_is_refused_with_its_place_too() {
    for (from, to, field, says) in [
        ("cores = 3", "cores = \"many\"", "cores", "expected u32"),
        ("cores = 3", "cors = 3", "cors", "unknown field `cors`, expected one of"),
        ("ports = \"random\"", "ports = \"rnd\"", "ports", "unknown variant `rnd`"),
        ("mapping = \"address-dependent\"", "mapping = \"cone\"", "mapping", "`endpoint-independent`"),
        ("\"10.0.2.0/24\"", "\"10.0.2.0/33\"", "cidr", "invalid IP"),
        ("in = \"10.0.0.9\"", "in = \"ten\"", "addresses", "invalid IPv4 address"),
    ] {
        let (line, _, in_field, text) = broken(SMALL, from, to);
        assert_eq!((line, in_field.as_str()), (place(&SMALL.replace(from, to), to).0, field), "{text}");
        assert!(text.contains(says), "{text}");
    }
    let error = Fleet::parse("my.toml", "name = \"x").unwrap_err().to_string();
    assert!(error.starts_with("my.toml:1:"), "{error}");
    let error = Fleet::parse("my.toml", "name = \"x\"\n").unwrap_err().to_string();
    assert_eq!(error, "my.toml:1:1: host: a fleet has one [[host]] at least");
    let error = Fleet::load(Path::new("/nowhere/f.toml")).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/f.toml: ") && error.contains("give the path"), "{error}");
}

#[test]
fn absurd_sizes_are_refused() {
    let error = Fleet::parse("f", &"#".repeat(FILE_BYTES_MAX + 1)).unwrap_err().to_string();
    assert_eq!(error, format!("f:1:1: fleet: {} bytes, and {FILE_BYTES_MAX} are allowed", FILE_BYTES_MAX + 1));
    let long = format!("name = \"{}\"", "x".repeat(NAME_BYTES_MAX + 1));
    assert_eq!(broken(SMALL, "name = \"c\"", &long).3, "64 bytes; a name has 1 to 63");
    let many = |what: &str, count: usize| {
        let text = format!("{SMALL}\n{}", what.repeat(count));
        let Err(FleetError::Invalid { line, field, text, .. }) = Fleet::parse("f", &text) else { panic!("{what}") };
        (line - SMALL.lines().count(), field, text)
    };
    let network = "[[network]]\nname = \"n\"\ncidr = \"1.0.0.0/24\"\n";
    let (line, field, text) = many(network, NETWORKS_MAX);
    // Three networks stand in the fleet already.
    assert_eq!((line, field.as_str()), ((NETWORKS_MAX - 3) * 3 + 3, "network"));
    assert_eq!(text, format!("{} of them, and {NETWORKS_MAX} are allowed", NETWORKS_MAX + 3));
    let route = "[[route]]\nrouter = \"r\"\nfrom = \"n\"\nto = \"n\"\n";
    assert_eq!(many(route, WAYS_MAX / 2).1, "route");
    let masquerade = "[[masquerade]]\nrouter = \"r\"\ninside = \"n\"\noutside = \"n\"\naddress = \"1.1.1.1\"\n";
    assert_eq!(many(masquerade, WAYS_MAX / 2).1, "masquerade");
    assert_eq!(many("[[forward]]\nrouter = \"r\"\noutside = \"n\"\nport = 1\nto = \"r\"\n", FORWARDS_MAX).1, "forward");
    assert_eq!(many("[[host]]\nname = \"n\"\ncores = 1\nrole = \"drone\"\n", HOSTS_MAX).1, "host");
}

#[test]
fn fleets_of_ten_thousand_hosts_can_be_made_and_no_larger() {
    let fleet = Fleet::generated(16, 624, true, true, Nat::SYMMETRIC).unwrap();
    assert_eq!((fleet.hosts.len(), fleet.networks.len(), fleet.masquerades.len()), (10_000, 18, 16));
    assert_eq!(fleet.masquerades[3].nat.ports, Ports::Random);
    assert_eq!(fleet, Fleet::generated(16, 624, true, true, Nat::SYMMETRIC).unwrap(), "the same again");
    let refused = |sites, hosts| Fleet::generated_plain(sites, hosts, true).unwrap_err().to_string();
    assert_eq!(refused(16, 625), "generated:1:1: host: 10016 of them, and 10000 are allowed");
    assert_eq!(refused(0, 1), "generated:1:1: sites: 0 of them; 1 to 1022 are allowed");
    assert_eq!(refused(1, 5_000), "generated:1:1: hosts_per_site: 5000 of them, and 4092 are allowed");
    assert_eq!(Fleet::generated_plain(1_022, 1, false).unwrap().routes.len(), 2_044);
    assert_eq!(Nat::cone(Dependence::EndpointIndependent).filtering, Dependence::EndpointIndependent);
    assert!(Fleet::parse("f", ALPHA_CENTAURI).is_ok());
}

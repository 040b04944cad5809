use super::*;

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

#[test]
fn the_reference_fleet_has_six_hosts_and_58_cores() {
    let fleet = Fleet::alpha_centauri().unwrap();
    assert_eq!((fleet.hosts.len(), fleet.cores(), fleet.networks.len()), (6, 58, 3));
    assert_eq!(fleet.hosts.iter().filter(|host| host.protected).count(), 2);
    assert_eq!(fleet.host("drone-Tau-Beta").unwrap().service, Some(Service::Openrc));
    assert!(fleet.networks["overlay"].kind == NetworkKind::Overlay);
}

#[test]
fn the_oracle_knows_what_incident_1_was_about() {
    let fleet = Fleet::alpha_centauri().unwrap();
    // Two hosts of site-b are seen on site-a as one address, which is a third host's.
    let gateway = fleet.host("Alpha-Centauri").unwrap().addresses["site-a"];
    for drone in ["drone-Meridian", "drone-Tarn"] {
        let seen = Path::Masqueraded { router: "Alpha-Centauri".into(), seen_as: gateway };
        assert_eq!(fleet.path(drone, ip("10.42.0.201")), seen);
    }
    assert_eq!(fleet.path("drone-Izar", ip("10.42.0.194")), Path::Direct { seen_as: ip("10.42.0.203") });
    assert_eq!(fleet.path("drone-Izar", ip("192.168.20.77")), Path::None, "site-a has no route to site-b");
    assert_eq!(fleet.path("drone-Izar", ip("100.64.0.110")), Path::Direct { seen_as: ip("100.64.0.126") });
    assert_eq!(fleet.path("drone-Izar", ip("8.8.8.8")), Path::None);
    assert_eq!(fleet.path("nobody", ip("10.42.0.194")), Path::None);
}

/// Replaces the first `from`, and gives where the loader finds fault and what it says.
fn broken(from: &str, to: &str) -> (usize, usize, String) {
    assert!(ALPHA_CENTAURI.contains(from), "the fleet has no `{from}`");
    match Fleet::parse("f", &ALPHA_CENTAURI.replacen(from, to, 1)) {
        Err(FleetError::Invalid { line, column, text, .. }) => (line, column, text),
        other => panic!("`{to}` gave {other:?}"),
    }
}

/// Line and column of the first `text` in the fleet.
fn place(text: &str) -> (usize, usize) {
    let before = &ALPHA_CENTAURI[..ALPHA_CENTAURI.find(text).unwrap()];
    (before.matches('\n').count() + 1, before.len() - before.rfind('\n').map_or(0, |newline| newline + 1) + 1)
}

#[test]
fn mistakes_are_found_at_their_line_and_column() {
    for (from, to, says) in [
        ("\"10.42.0.203\"", "\"10.43.0.203\"", "10.43.0.203 is not in `site-a`, which is 10.42.0.0/24"),
        ("\"10.42.0.203\"", "\"10.42.0.201\"", "10.42.0.201 is taken by another host"),
        ("\"drone-Tarn\"", "\"drone-Izar\"", "a second host is called `drone-Izar`"),
        ("\"site-b\"\ncidr", "\"site-a\"\ncidr", "a second network is called `site-a`"),
        ("\"site-b\"\noutside", "\"site-c\"\noutside", "no network of this fleet is called `site-c`"),
        ("\"Alpha-Centauri\"\ninside", "\"Nobody\"\ninside", "no host of this fleet is called `Nobody`"),
        (
            "\"10.42.0.199\"\nround",
            "\"10.42.0.9\"\nround",
            "10.42.0.9 is not the address of `Alpha-Centauri` on `site-a`",
        ),
    ] {
        let (line, column, text) = broken(from, to);
        assert_eq!((line, column), place(from), "{text}");
        assert_eq!(text, says);
    }
}

#[test]
fn what_is_no_fleet_at_all_is_refused_with_its_place_too() {
    let (line, _, text) = broken("cores = 16", "cores = \"many\"");
    assert_eq!((line, text.contains("expected u32")), (place("cores = 16").0, true), "{text}");
    let (line, _, text) = broken("protected = true", "protectd = true");
    assert_eq!((line, text.contains("protectd")), (place("protected = true").0, true), "{text}");
    let error = Fleet::parse("my.toml", "name = \"x").unwrap_err().to_string();
    assert!(error.starts_with("my.toml:1:"), "{error}");
    let error = Fleet::load(FilePath::new("/nowhere/f.toml")).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/f.toml: ") && error.contains("give the path"), "{error}");
}

//! What `mesh topology` shows of a small mesh, in each of its formats.

use super::*;
use crate::api::types::{HostState, PingLead, VERSION};
use mesh::identity::Keys;

fn lead(addr: &str, source: &str) -> PingLead {
    PingLead {
        addr: addr.into(),
        source: source.into(),
        observer: None,
        first_ms: 60_000,
        proved_ms: None,
        failed: None,
        failed_ms: None,
        answered_by: None,
        nat_of: None,
        expires_ms: None,
    }
}

fn place(n: u8, name: &str, path: PathKind, leads: Vec<PingLead>) -> Place {
    Place {
        name: name.into(),
        peer: Keys::from_seed([n; 32]).key(),
        state: HostState::Alive,
        path,
        relay: None,
        address: None,
        offers_relay: false,
        leads,
    }
}

/// A host looks at its neighbour, at a host behind that one's masquerade, and at one that nobody reaches.
fn seen() -> Topology {
    let direct = "/ip4/10.42.0.1/tcp/7400";
    let gate = PingLead { proved_ms: Some(3_000), ..lead(direct, "gossip") };
    let masked =
        PingLead { observer: Some("izar".into()), nat_of: Some("gate".into()), ..lead("10.42.0.1", "observed") };
    Topology {
        version: VERSION,
        mesh: "home".into(),
        host: "izar".into(),
        hosts: vec![
            Place {
                address: Some(direct.into()),
                offers_relay: true,
                ..place(1, "gate", PathKind::Direct, vec![gate])
            },
            place(2, "izar", PathKind::Own, vec![lead("/ip4/10.42.0.9/tcp/7400", "interface")]),
            Place { state: HostState::Down, ..place(3, "lost", PathKind::None, vec![]) },
            Place { relay: Some("gate".into()), ..place(4, "tarn", PathKind::Relay, vec![masked]) },
        ],
    }
}

#[test]
fn the_table_says_what_is_proved_by_whom_seen_and_whose_nat() {
    let text = table(&seen());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "mesh home, seen from izar");
    let has = |line: &str, parts: &[&str]| parts.iter().all(|part| line.contains(part));
    assert!(has(lines[2], &["gate", "direct", "10.42.0.1:7400", "in use, proved 3s ago"]), "{text}");
    assert!(has(lines[3], &["izar", "self", "10.42.0.9:7400", "this host listens here"]), "{text}");
    assert!(has(lines[4], &["lost", "down", "none", "nothing is known"]), "{text}");
    assert!(has(lines[5], &["tarn", "relay gate", "10.42.0.1", "observed", "izar", "the NAT at gate"]), "{text}");
    assert_eq!(&lines[6..], ["tarn is behind the NAT of gate", "relay for others: gate"]);
}

#[test]
fn a_second_lead_of_a_host_has_a_line_without_its_name() {
    let mut seen = seen();
    seen.hosts[0].leads.push(lead("/ip6/fd00::1/udp/7400/quic-v1", "gossip"));
    let text = table(&seen);
    let line = text.lines().nth(3).unwrap();
    assert!(line.starts_with(' ') && line.contains("[fd00::1]:7400/quic") && line.contains("not tried"), "{text}");
}

#[test]
fn mermaid_has_a_box_for_each_host_and_an_edge_for_each_way() {
    let text = mermaid(&seen());
    for part in [
        "graph LR\n",
        "h0[\"gate<br/>alive<br/>10.42.0.1:7400\"]",
        "h2[\"lost<br/>down\"]",
        "h1 -->|direct| h0",
        "h0 -.->|relays| h3",
        "h0 -.-|NAT of| h3",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("h1 -->|direct| h2"), "nobody reaches it");
}

#[test]
fn a_name_from_elsewhere_cannot_end_a_label_or_a_tag() {
    let mut seen = seen();
    seen.hosts[0].name = "x\"]<script>\n".into();
    assert!(mermaid(&seen).contains("[\"x#quot;]<script> <br/>"));
    let picture = svg(&seen);
    assert!(picture.contains("x&quot;]&lt;script&gt; ") && !picture.contains("<script"));
}

#[test]
fn the_picture_has_all_hosts_apart_and_every_line() {
    let mut seen = seen();
    for n in 5..30 {
        seen.hosts.push(place(n, &format!("host-{n}"), PathKind::Direct, vec![]));
    }
    let picture = svg(&seen);
    assert!(picture.starts_with("<svg") && picture.ends_with("</svg>"));
    assert_eq!(picture.matches("<g><title>").count(), seen.hosts.len());
    // The legend has one line of each kind.
    let lines = |style: &str| picture.lines().filter(|l| l.starts_with("<line") && l.contains(style)).count() - 1;
    assert_eq!((lines("#0550ae"), lines("#8250df"), lines("#bc4c00")), (26, 1, 1));
    let boxes: Vec<(f64, f64)> = picture
        .lines()
        .filter(|line| line.starts_with("<g>"))
        .map(|line| {
            let number = |name: &str| -> f64 {
                line.split_once(&format!(" {name}=\"")).unwrap().1.split('"').next().unwrap().parse().unwrap()
            };
            (number("x"), number("y"))
        })
        .collect();
    for (n, a) in boxes.iter().enumerate() {
        for b in &boxes[n + 1..] {
            assert!((a.0 - b.0).abs() > 190.0 || (a.1 - b.1).abs() > 58.0, "{a:?} {b:?} overlap");
        }
    }
}

//! `mesh topology` as a table to read and as a Mermaid graph; [`svg`](mod@svg) draws the picture. Pure: the same value gives
//! the same text. What a lead is worth, `mesh::addresses` has decided.

mod svg;

pub(super) use svg::svg;

use super::show::{lead_result, path_word, plain, state_word, table as columns};
use crate::api::types::{PathKind, Place, Topology};
use std::fmt::Write as _;

/// The way to a host, in words.
fn way(place: &Place) -> String {
    match (place.path, &place.relay) {
        (PathKind::Relay, Some(relay)) => format!("relay {}", plain(relay)),
        (path, _) => path_word(path).to_owned(),
    }
}

/// A multiaddr as people write it, where there is such a way: `10.0.0.1:7400`, with `/quic` behind it for QUIC.
fn short(addr: &str) -> String {
    let parts: Vec<&str> = addr.split('/').collect();
    match parts[..] {
        ["", "ip4" | "ip6" | "dns" | "dns4" | "dns6", host, "tcp", port] => joined(host, port),
        ["", "ip4" | "ip6" | "dns" | "dns4" | "dns6", host, "udp", port, "quic-v1"] => {
            format!("{}/quic", joined(host, port))
        }
        _ => addr.to_owned(),
    }
}

fn joined(host: &str, port: &str) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A line for each lead; what is the host's own stands in its first.
pub(super) fn table(seen: &Topology) -> String {
    let head = ["HOST", "STATE", "PATH", "ADDRESS", "SOURCE", "SEEN BY", "WHAT IS KNOWN"].map(str::to_owned).to_vec();
    let mut rows = vec![head];
    for place in &seen.hosts {
        let mut own = [plain(&place.name), state_word(place.state).to_owned(), way(place)];
        for lead in &place.leads {
            let in_use = place.address.as_ref() == Some(&lead.addr);
            let known = match (place.path, in_use) {
                (PathKind::Own, _) => "this host listens here".to_owned(),
                (_, true) => format!("in use, {}", lead_result(lead)),
                (_, false) => lead_result(lead),
            };
            let by = lead.observer.as_deref().map_or("-".into(), plain);
            let mut row = std::mem::take(&mut own).to_vec();
            row.extend([plain(&short(&lead.addr)), lead.source.clone(), by, known]);
            rows.push(row);
        }
        if place.leads.is_empty() {
            let mut row = own.to_vec();
            row.extend(["-", "-", "-", "nothing is known of where it is"].map(str::to_owned));
            rows.push(row);
        }
    }
    let mut out = format!("mesh {}, seen from {}\n{}", plain(&seen.mesh), plain(&seen.host), columns(&rows));
    for place in &seen.hosts {
        for nat in place.behind() {
            let _ = write!(out, "\n{} is behind the NAT of {}", plain(&place.name), plain(nat));
        }
    }
    let relays: Vec<String> = seen.hosts.iter().filter(|p| p.offers_relay).map(|p| plain(&p.name)).collect();
    if !relays.is_empty() {
        let _ = write!(out, "\nrelay for others: {}", relays.join(", "));
    }
    out
}

/// As Mermaid's text in quotes.
fn quoted(text: &str) -> String {
    plain(text).replace('"', "#quot;")
}

/// A graph of [Mermaid](https://mermaid.js.org): solid arrows are direct connections, dotted ones go through a relay, dotted
/// lines join a host with the one that masquerades for it.
pub(super) fn mermaid(seen: &Topology) -> String {
    let number = |name: &str| seen.hosts.iter().position(|place| place.name == name);
    let mut out = "graph LR".to_owned();
    for (n, place) in seen.hosts.iter().enumerate() {
        let address = place.address.as_deref().map(|a| format!("<br/>{}", quoted(&short(a)))).unwrap_or_default();
        let _ = write!(out, "\n    h{n}[\"{}<br/>{}{address}\"]", quoted(&place.name), state_word(place.state));
    }
    let Some(own) = number(&seen.host) else { return out };
    for (n, place) in seen.hosts.iter().enumerate() {
        match (place.path, place.relay.as_deref().and_then(number)) {
            (PathKind::Direct, _) => drop(write!(out, "\n    h{own} -->|direct| h{n}")),
            (PathKind::Relay, Some(relay)) => drop(write!(out, "\n    h{relay} -.->|relays| h{n}")),
            (PathKind::Relay, None) => drop(write!(out, "\n    h{own} -.->|relay| h{n}")),
            (PathKind::Own | PathKind::None, _) => {}
        }
        for nat in place.behind().into_iter().filter_map(number) {
            let _ = write!(out, "\n    h{nat} -.-|NAT of| h{n}");
        }
    }
    out
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

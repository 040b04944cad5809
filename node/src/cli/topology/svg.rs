//! The picture of `mesh topology`: the host that looks in the middle, the others around it, each beside the one that
//! masquerades for it. Needs nothing but a browser: no script, no font, no other file.

use super::super::show::{plain, state_word};
use super::{short, way};
use crate::api::types::{HostState, PathKind, Place, Topology};
use std::f64::consts::{FRAC_PI_2, TAU};
use std::fmt::Write as _;

/// Of a host's box, in pixels.
const BOX: (f64, f64) = (190.0, 58.0);
/// Room for the words above and the legend below.
const MARGIN: f64 = 40.0;
/// Around the ring, a box and a gap for each host.
const ROOM: f64 = 210.0;
/// The smallest ring; wider than high, as boxes are.
const RING: (f64, f64) = (300.0, 170.0);

/// Text in an SVG.
fn escaped(text: &str) -> String {
    plain(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Border and filling; the word stands in the box as well.
fn colours(state: HostState) -> (&'static str, &'static str) {
    match state {
        HostState::Alive => ("#1a7f37", "#e6f6ea"),
        HostState::Suspect => ("#9a6700", "#fff3cf"),
        HostState::Down => ("#cf222e", "#ffe6e6"),
        HostState::Left => ("#57606a", "#f0f1f3"),
    }
}

/// The others in their order around the ring: each NAT is followed by the hosts behind it.
fn ring(seen: &Topology) -> Vec<&Place> {
    let mut order: Vec<&Place> = seen.hosts.iter().filter(|p| p.name != seen.host).collect();
    // By the first NAT, or by its own name; of one group the NAT itself comes first.
    order.sort_by_key(|p| match p.behind().first() {
        Some(nat) => (nat.to_string(), 1, p.name.clone()),
        None => (p.name.clone(), 0, p.name.clone()),
    });
    order
}

/// The whole picture.
pub(in crate::cli) fn svg(seen: &Topology) -> String {
    let others = ring(seen);
    let grown = (others.len() as f64 * ROOM / TAU / RING.0).max(1.0);
    let (rx, ry) = (RING.0 * grown, RING.1 * grown);
    let (width, height) = (2.0 * (rx + MARGIN) + BOX.0, 2.0 * (ry + MARGIN) + BOX.1);
    let middle = (width / 2.0, height / 2.0);
    let at = |name: &str| -> Option<(f64, f64)> {
        if name == seen.host {
            return Some(middle);
        }
        let n = others.iter().position(|p| p.name == name)?;
        let angle = TAU * n as f64 / others.len() as f64 - FRAC_PI_2;
        Some((middle.0 + rx * angle.cos(), middle.1 + ry * angle.sin()))
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} \
         {height:.0}\" font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"12\" y=\"22\" font-size=\"15\">mesh {}, seen from {}</text>\n",
        escaped(&seen.mesh),
        escaped(&seen.host)
    );
    let mut line = |from: (f64, f64), to: (f64, f64), style: &str| {
        let _ = writeln!(
            out,
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" {style}/>",
            from.0, from.1, to.0, to.1
        );
    };
    for place in &others {
        let Some(there) = at(&place.name) else { continue };
        match (place.path, place.relay.as_deref().and_then(at)) {
            (PathKind::Direct, _) => line(middle, there, DIRECT),
            (PathKind::Relay, relay) => line(relay.unwrap_or(middle), there, RELAYED),
            (PathKind::Own | PathKind::None, _) => {}
        }
        for nat in place.behind().into_iter().filter_map(at) {
            // A little aside, so that a connection between the two is seen as well.
            line((nat.0 + 8.0, nat.1 + 8.0), (there.0 + 8.0, there.1 + 8.0), NAT);
        }
    }
    for place in &seen.hosts {
        if let Some(centre) = at(&place.name) {
            host(&mut out, place, centre);
        }
    }
    legend(&mut out, height);
    out.push_str("</svg>");
    out
}

const DIRECT: &str = "stroke=\"#0550ae\" stroke-width=\"2\"";
const RELAYED: &str = "stroke=\"#8250df\" stroke-width=\"2\" stroke-dasharray=\"8 5\"";
const NAT: &str = "stroke=\"#bc4c00\" stroke-width=\"2\" stroke-dasharray=\"2 4\"";

fn host(out: &mut String, place: &Place, (x, y): (f64, f64)) {
    let ((w, h), (border, filling)) = (BOX, colours(place.state));
    let (left, top) = (x - w / 2.0, y - h / 2.0);
    let address = match (place.path, &place.address, place.leads.first()) {
        (_, Some(address), _) => short(address),
        (PathKind::Own, None, Some(lead)) => short(&lead.addr),
        _ => String::new(),
    };
    let state = format!("{}, {}", state_word(place.state), way(place));
    let _ = writeln!(
        out,
        "<g><title>{}</title><rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{w}\" height=\"{h}\" rx=\"8\" fill=\"{filling}\" \
         stroke=\"{border}\" stroke-width=\"2\"/>",
        escaped(&place.peer.to_string())
    );
    for (n, (text, style)) in
        [(place.name.as_str(), "font-weight=\"600\""), (&state, ""), (&address, "fill=\"#57606a\"")].iter().enumerate()
    {
        let down = top + 18.0 + 16.0 * n as f64;
        let _ =
            writeln!(out, "<text x=\"{x:.1}\" y=\"{down:.1}\" text-anchor=\"middle\" {style}>{}</text>", escaped(text));
    }
    out.push_str("</g>\n");
}

fn legend(out: &mut String, height: f64) {
    let y = height - 14.0;
    for (n, (text, style)) in
        [("direct", DIRECT), ("through a relay, from it on", RELAYED), ("masquerades for", NAT)].iter().enumerate()
    {
        let x = 12.0 + 250.0 * n as f64;
        let _ = writeln!(out, "<line x1=\"{x}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\" {style}/>", x + 30.0);
        let _ = writeln!(out, "<text x=\"{}\" y=\"{}\">{text}</text>", x + 38.0, y + 4.0);
    }
}

//! Status and builds as text for people. Pure: the same value gives the same text.

use crate::api::types::{BuildSummary, HostState, Level, PathKind, PingLead, PingReport, Standing, Status, Warning};
use mesh::build::BuildId;
use std::time::Duration;

/// Columns padded to their widest entry, counted in characters; the last one is not padded.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(i, cell)| {
            let pad = widths[i].saturating_sub(cell.chars().count());
            format!("{cell}{}", " ".repeat(pad))
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Text from elsewhere, without what could move a terminal's cursor.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A time as people say it: two units at most.
pub(crate) fn ago(ms: u64) -> String {
    let text = humantime::format_duration(Duration::from_secs(ms / 1_000)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

pub(crate) fn ids(ids: &[BuildId]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The whole of `mesh status`: what stands for a while first, a pause before all, then warnings, notes, leader, hosts, builds, and what to do.
pub(crate) fn status(s: &Status) -> String {
    let mut warnings: Vec<&Warning> = s.warnings.iter().collect();
    warnings.sort_by_key(|w| w.level);
    let line = |level: Level, text: &str| match level {
        Level::Warning => format!("warning: {}", plain(text)),
        Level::Note => format!("note: {}", plain(text)),
    };
    let mut out: Vec<String> = s.standing.iter().map(|s: &Standing| line(s.level, &s.text)).collect();
    out.extend(warnings.iter().map(|w| line(w.level, &w.text)));
    let id: String = s.mesh.id.chars().take(12).collect();
    out.push(format!("mesh {} ({id}), seen from {}", plain(&s.mesh.name), plain(&s.host)));
    out.push(match &s.leader {
        Some(l) => {
            // What is left of a lease, only the leader itself knows.
            let lease = match l.lease_ms {
                0 => String::new(),
                ms => format!(", lease {:.1} s", ms as f64 / 1_000.0),
            };
            format!("leader {} (epoch {}, term {}{lease})", plain(&l.host), l.epoch, l.term)
        }
        None => "leader: none, nothing new can be decided".into(),
    });
    let head = ["HOST", "STATE", "CORES", "ROLE", "PATH", "SINCE"].map(str::to_owned).to_vec();
    let rows = s.hosts.iter().map(|h| {
        let state = state_word(h.state);
        let path = path_word(h.path);
        let leads = s.leader.as_ref().is_some_and(|l| l.peer == h.peer);
        let mut role = vec![if leads {
            "leader"
        } else if h.voter {
            "voter"
        } else {
            "-"
        }];
        role.extend(h.protected.then_some("protected"));
        role.extend(h.kept.as_deref());
        let cores = format!("{}/{}", h.free_cores, h.cores);
        [plain(&h.name), state.into(), cores, role.join(","), path.into(), ago(h.since_ms)].to_vec()
    });
    out.push(table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()));
    for host in &s.hosts {
        for (address, nat) in host.addresses.iter().filter_map(|a| Some((a, a.nat_of.as_ref()?))) {
            out.push(format!("{} is behind the NAT at {} ({})", plain(&host.name), plain(nat), plain(&address.addr)));
        }
    }
    let b = &s.builds;
    out.push(format!(
        "cores {} of {} alive; builds: {} queued, {} running, {} done, {} failed, {} cancelled",
        s.cores.alive, s.cores.total, b.queued, b.running, b.done, b.failed, b.cancelled
    ));
    if s.strangers > 0 {
        out.push(format!("strangers turned away: {}", s.strangers));
    }
    out.extend(s.next.iter().map(|next| format!("next: {}", plain(next))));
    out.join("\n")
}

pub(super) fn state_word(state: HostState) -> &'static str {
    match state {
        HostState::Alive => "alive",
        HostState::Suspect => "suspect",
        HostState::Down => "down",
        HostState::Left => "left",
    }
}

pub(super) fn path_word(path: PathKind) -> &'static str {
    match path {
        PathKind::Own => "self",
        PathKind::Direct => "direct",
        PathKind::Relay => "relay",
        PathKind::None => "none",
    }
}

/// The whole of `mesh ping`: the path, the round trips, then every lead and what came of it.
pub(crate) fn ping(r: &PingReport) -> String {
    let way = match (r.path, &r.relay) {
        (PathKind::Relay, Some(relay)) => format!("relay through {}", plain(relay)),
        (path, _) => path_word(path).to_owned(),
    };
    let at = r.address.as_deref().map(|a| format!(", {}", plain(a))).unwrap_or_default();
    let mut out = vec![format!("{} {}: {way}{at}", plain(&r.host), r.peer)];
    let ms = |us: u64| us as f64 / 1_000.0;
    if let (Some(min), Some(max)) = (r.round_trips_us.iter().min(), r.round_trips_us.iter().max()) {
        let n = r.round_trips_us.len() as u64;
        let avg = r.round_trips_us.iter().sum::<u64>() / n;
        out.push(format!("{n} round trips: min {:.1} avg {:.1} max {:.1} ms", ms(*min), ms(avg), ms(*max)));
    }
    out.extend(r.error.as_deref().map(|error| format!("no answer: {}", plain(error))));
    if r.leads.is_empty() && r.path != PathKind::Own {
        out.push("no lead to it is known".into());
    } else if !r.leads.is_empty() {
        let head = ["TRIED", "SOURCE", "FROM", "RESULT"].map(str::to_owned).to_vec();
        let row = |l: &PingLead| {
            let from = l.observer.as_deref().map_or("-".into(), plain);
            [plain(&l.addr), l.source.clone(), from, lead_result(l)].to_vec()
        };
        out.push(table(&std::iter::once(head).chain(r.leads.iter().map(row)).collect::<Vec<_>>()));
    }
    out.join("\n")
}

/// What came of a lead.
pub(super) fn lead_result(l: &PingLead) -> String {
    let result = match (&l.failed, l.proved_ms) {
        (Some(why), _) => format!("failed {} ago: {}", ago(l.failed_ms.unwrap_or(0)), plain(why)),
        (None, Some(proved)) => format!("proved {} ago", ago(proved)),
        (None, None) if l.source == "observed" => "seen as the source of its connection; never dialled".into(),
        (None, None) => format!("not tried, known for {}", ago(l.first_ms)),
    };
    match &l.nat_of {
        Some(nat) => format!("{result} (the NAT at {})", plain(nat)),
        None => result,
    }
}

/// 0 healthy, 1 degraded, 2 no leader. Notes do no harm.
pub(crate) fn exit_code(s: &Status) -> u8 {
    let bad = s.hosts.iter().any(|h| matches!(h.state, HostState::Suspect | HostState::Down));
    let stands = s.standing.iter().any(|s| s.level == Level::Warning);
    match (s.leader.is_some(), bad || stands || s.warnings.iter().any(|w| w.level == Level::Warning)) {
        (false, _) => super::EXIT_NO_LEADER,
        (true, true) => super::EXIT_FAILED,
        (true, false) => super::EXIT_OK,
    }
}

/// `mesh builds`.
pub(crate) fn builds(list: &[BuildSummary]) -> String {
    let head = ["ID", "STATE", "HOST", "TRIES", "NAME", ""].map(str::to_owned).to_vec();
    let rows = list.iter().map(|b| {
        let host = b.host.as_deref().map_or("-".into(), plain);
        [b.id.to_string(), b.state.word().into(), host, b.attempts.to_string(), plain(&b.name), plain(&b.text)].to_vec()
    });
    table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

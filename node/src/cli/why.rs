//! `mesh why HOST`: the story of one host, in the words of somebody who tells it to a person woken at night. Pure but
//! for [`why`], which asks. Decides nothing: what to do next came with the report. Of a build [`super::why_build`] tells.

use super::show::{ago, lead_result, path_word, plain, state_word, table};
use super::tend::{left, moment};
use super::{EXIT_FAILED, EXIT_OK, Failure, Out};
use crate::api::client::{Client, ClientError};
use crate::api::healing::{AuditLine, CaseReport, OrderTold};
use crate::api::types::{Accuser, BuildState, Chapter, Evidence, HostState, Level, PathKind, Told, WhyReport};
use mesh::build::BuildId;

/// Asks, tells, and says by the exit code whether the host is well, or the build not given up.
pub(super) async fn why(client: &Client, out: Out, host: &str) -> Result<u8, Failure> {
    // A host may be called like a build: then the build goes first, and the host is asked for by its key.
    if let Ok(id) = host.parse::<BuildId>() {
        match client.why_build(id).await {
            Err(ClientError::Api(error)) if error.status == 404 => {}
            told => {
                let told = told?;
                match out.json {
                    true => out.json(&told)?,
                    false => out.line(super::why_build::text(&told))?,
                }
                let bad =
                    told.state == BuildState::Failed || (told.state == BuildState::Queued && !told.because.is_empty());
                return Ok(if bad { EXIT_FAILED } else { EXIT_OK });
            }
        }
    }
    if !mesh::roster::valid_host_name(host) {
        return Err(crate::api::server::bad_host_name(host).into());
    }
    let report = client.why(host).await?;
    match out.json {
        true => out.json(&report)?,
        false => out.line(text(&report))?,
    }
    let well = report.state == HostState::Alive && matches!(report.healing.stage.as_str(), "" | "well");
    Ok(if well { EXIT_OK } else { EXIT_FAILED })
}

/// The whole story.
fn text(r: &WhyReport) -> String {
    let mut out = vec![];
    let voter = if r.voter { ", a voter" } else { "" };
    out.push(format!("{} is {} for {}{voter}", plain(&r.host), state_word(r.state), ago(r.since_ms)));
    let uneventful = r.state == HostState::Alive && r.story.is_empty();
    if !(r.because.is_empty() || uneventful) {
        out.push(format!("  because: {}", plain(&r.because)));
    }
    let own = r.host == r.seen_from;
    out.push(format!("  seen from {}{}", plain(&r.seen_from), if own { ", which is itself" } else { "" }));
    if !own {
        let heard = r.heard_ms.map_or("never heard".into(), |ms| format!("last heard {} ago", ago(ms)));
        out.push(format!("  {heard}; {}", path(r)));
    }
    if r.late_ms >= 500 {
        let all = if r.here_late_ms >= 500 { ", as those of most hosts do" } else { "" };
        out.push(format!("  its answers came up to {} late of late{all}", seconds(r.late_ms)));
    }
    if r.flaps > 0 {
        out.push(format!("  came back from being down {} in the last ten minutes", times(r.flaps)));
    }
    if !r.builds.is_empty() {
        out.push(format!("  runs {}", super::show::ids(&r.builds)));
    }
    out.extend(r.warnings.iter().map(|w| {
        let level = if w.level == Level::Warning { "warning" } else { "note" };
        format!("  {level}: {}", plain(&w.text))
    }));
    out.extend(healing(&r.healing));
    out.extend(accusers(r));
    if !r.story.is_empty() {
        out.push("what happened, oldest first:".into());
        let rows: Vec<Vec<String>> = r.story.iter().map(|c| chapter(c, r)).collect();
        out.push(indent(&table(&rows)));
    }
    if r.state != HostState::Alive && !r.leads.is_empty() {
        out.push("where it was looked for:".into());
        let row = |l: &crate::api::types::PingLead| vec![plain(&l.addr), lead_result(l)];
        out.push(indent(&table(&r.leads.iter().map(row).collect::<Vec<_>>())));
    }
    out.extend(r.next.iter().map(|next| format!("next: {}", plain(next))));
    out.join("\n")
}

/// What the ledger has on it: nothing when all is well and always was.
fn healing(case: &CaseReport) -> Vec<String> {
    let mut out = vec![];
    if !matches!(case.stage.as_str(), "" | "well") {
        out.push(format!("healing: {} (for {}): {}", plain(&case.told), ago(case.since_ms), plain(&case.why)));
    }
    for m in &case.measures {
        let (by, reason) = (plain(&m.by), plain(&m.reason));
        out.push(format!("{} by {by} until {} ({}): {reason}", m.stop.word(), moment(m.until_ms), left(m.left_ms)));
    }
    // A measure and a case say by themselves that they keep builds away.
    let said = !case.measures.is_empty() || out.iter().any(|line| line.starts_with("healing:"));
    out.extend(case.kept.iter().filter(|_| !said).map(|why| format!("gets no builds: {}", plain(why))));
    out.extend(case.blame.iter().map(|verdict| format!("blame: {}", plain(verdict))));
    for step in &case.next {
        out.push(format!("due now: {}, because {}", plain(&step.what), plain(&step.why)));
    }
    for held in &case.held {
        let rules: Vec<String> = held.rules.iter().map(|rule| plain(rule)).collect();
        out.push(format!("held back: {}: {}", plain(&held.what), rules.join("; ")));
    }
    if !case.orders.is_empty() {
        out.push("orders to it:".into());
        let row = |o: &OrderTold| {
            let asked = format!("asked for by {}: {}", plain(&o.requester), plain(&o.reason));
            vec![moment(o.at_ms), o.id.clone(), plain(&o.act), o.state.clone(), asked]
        };
        out.push(indent(&table(&case.orders.iter().map(row).collect::<Vec<_>>())));
    }
    if !case.trail.is_empty() {
        out.push("what was done about it, oldest first:".into());
        let row = |line: &AuditLine| vec![moment(line.at_ms), plain(&line.told)];
        out.push(indent(&table(&case.trail.iter().map(row).collect::<Vec<_>>())));
    }
    out
}

fn path(r: &WhyReport) -> String {
    let trip = r.round_trip_us.map(|us| format!(", round trip {:.1} ms", us as f64 / 1_000.0)).unwrap_or_default();
    match (r.path, &r.relay) {
        (PathKind::None, _) => "no connection to it now".into(),
        (PathKind::Relay, Some(relay)) => format!("reached through {}{trip}", plain(relay)),
        (PathKind::Relay, None) => format!("reached through a relay{trip}"),
        (kind, _) => format!("{} connection{trip}", path_word(kind)),
    }
}

fn accusers(r: &WhyReport) -> Vec<String> {
    if r.accusers.is_empty() {
        return vec![];
    }
    let row = |a: &Accuser| vec![who(&a.host, r), format!("{} ago", ago(a.since_ms)), saw(&a.evidence)];
    let rows: Vec<Vec<String>> = r.accusers.iter().map(row).collect();
    vec!["who misses it now:".into(), indent(&table(&rows))]
}

/// The host that tells is no stranger to who reads.
fn who(host: &str, r: &WhyReport) -> String {
    if host == r.seen_from { format!("{} (here)", plain(host)) } else { plain(host) }
}

/// What an accuser saw, as it would say it.
fn saw(e: &Evidence) -> String {
    let tried = match (e.connected, e.attempts) {
        (true, 1) => "asked once on its open connection".to_owned(),
        (true, n) => format!("asked {n} times on its open connection"),
        (false, 0) => "had no connection".to_owned(),
        (false, 1) => "tried once to connect".to_owned(),
        (false, n) => format!("tried {n} times to connect"),
    };
    let heard = match (e.heard_ms, e.relayed) {
        (None, _) => "had never heard it".to_owned(),
        (Some(ms), false) => format!("had last heard it {} before", seconds(ms)),
        (Some(ms), true) => format!("had last heard of it by another host {} before", seconds(ms)),
    };
    format!("{tried}, no answer for {}; {heard}", seconds(e.silent_ms))
}

fn chapter(c: &Chapter, r: &WhyReport) -> Vec<String> {
    let what = match &c.what {
        Told::Accused { by, evidence, counted } => {
            let void = if *counted { "" } else { " (did not count: newer word of it was known)" };
            format!("{} missed it: {}{void}", who(by, r), saw(evidence))
        }
        Told::Answered { asked, ended } => {
            let how = if *asked { "it answered this host" } else { "word of it came" };
            match ended {
                0 => how.to_owned(),
                1 => format!("{how}; that answered the accuser"),
                n => format!("{how}; that answered {n} accusers"),
            }
        }
        Told::PassedOn => "this host had an answer of it and passed that on to those who missed it".to_owned(),
        Told::KeptStill { silent, of } => {
            format!("this host missed it, and {silent} of {of} hosts at once: it suspected itself and accused nobody")
        }
        Told::Became { from, to, why } => {
            let why = if why.is_empty() { String::new() } else { format!(": {}", plain(why)) };
            format!("{} -> {}{why}", state_word(*from), state_word(*to))
        }
    };
    let again = match c.times {
        0 | 1 => String::new(),
        n => format!(" ({} in all, first {} ago)", times(n), ago(c.first_ms)),
    };
    vec![format!("{} ago", ago(c.last_ms)), format!("{what}{again}")]
}

fn times(n: u32) -> String {
    match n {
        1 => "once".into(),
        2 => "twice".into(),
        n => format!("{n} times"),
    }
}

/// A short time to a tenth of a second, a longer one as people say it.
fn seconds(ms: u64) -> String {
    if ms < 60_000 { format!("{:.1} s", ms as f64 / 1_000.0) } else { ago(ms) }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::server::tests::sample_why;

    #[test]
    fn a_death_is_told_as_a_person_would() {
        let text = text(&sample_why("gamma"));
        let want = "\
gamma is down for 2m 10s, a voter
  because: accused by 2 hosts, and nobody has fresh word of it
  seen from alpha
  last heard 2m 13s ago; no connection to it now
who misses it now:
  alpha (here)  2m 11s ago  asked 12 times on its open connection, no answer for 1.7 s; had last heard it 2.0 s before
  beta          2m 10s ago  tried once to connect, no answer for 1.9 s; had last heard of it by another host 2.1 s before
what happened, oldest first:
  2m 11s ago  beta missed it: tried once to connect, no answer for 1.9 s; had last heard of it by another host 2.1 s before
  2m 10s ago  suspect -> down: accused by 2 hosts, and nobody has fresh word of it
where it was looked for:
  /ip4/10.0.0.3/tcp/7400  failed 4s ago: refused
next: start it there";
        assert_eq!(text, want);
    }

    #[test]
    fn a_host_that_is_well_is_told_shortly() {
        let dead = sample_why("gamma");
        let well = WhyReport {
            state: HostState::Alive,
            because: "answers".into(),
            path: PathKind::Direct,
            round_trip_us: Some(1_250),
            heard_ms: Some(400),
            voter: false,
            accusers: vec![],
            story: vec![],
            next: vec!["nothing to do: it is well".into()],
            ..dead
        };
        let said = text(&well);
        assert_eq!(
            said,
            "gamma is alive for 2m 10s\n  seen from alpha\n  last heard 0s ago; direct connection, round trip 1.2 ms\nnext: \
             nothing to do: it is well"
        );
        let itself = text(&WhyReport { seen_from: "gamma".into(), ..well });
        assert!(itself.contains("seen from gamma, which is itself") && !itself.contains("last heard"), "{itself}");
    }

    #[test]
    fn a_case_is_told_with_what_holds_the_next_step_back() {
        use crate::api::healing::{PlanHeld, PlanStep};
        use crate::api::measures::StopKind;
        use crate::api::tend::tests::{sample_line, sample_measure};
        let quiet = CaseReport { stage: "well".into(), ..CaseReport::default() };
        assert_eq!(healing(&quiet), Vec::<String>::new(), "of who is well there is nothing to tell");
        let kept = CaseReport { kept: Some("resting for 30 s more".into()), ..quiet.clone() };
        assert_eq!(healing(&kept), ["gets no builds: resting for 30 s more"]);
        let rules = vec!["its builds make progress".into(), "the last step was not long ago: in 9 min".into()];
        let case = CaseReport {
            stage: "spent".into(),
            told: "set aside, and its canary failed".into(),
            why: "b7.1".into(),
            since_ms: 60_000,
            kept: Some("set aside: b7.1".into()),
            measures: vec![sample_measure(StopKind::Drain, Some("bert"))],
            blame: vec!["3 packages fail on bert".into()],
            next: vec![PlanStep { host: "bert".into(), what: "a reboot".into(), why: "b7.1".into() }],
            held: vec![PlanHeld { host: "bert".into(), what: "a restart of the service".into(), rules }],
            orders: vec![],
            trail: vec![sample_line()],
        };
        let want = [
            "healing: set aside, and its canary failed (for 1m): b7.1",
            "drained by anna until 1970-01-02T00:00:00Z (1h left): new disk",
            "blame: 3 packages fail on bert",
            "due now: a reboot, because b7.1",
            "held back: a restart of the service: its builds make progress; the last step was not long ago: in 9 min",
            "what was done about it, oldest first:",
            "  1970-01-02T00:00:00Z  anna wrote an order for bert",
        ];
        assert_eq!(healing(&case), want);
    }

    #[test]
    fn what_answered_and_what_did_not_count_is_told() {
        let r = sample_why("gamma");
        let tell =
            |what: Told, times: u32| chapter(&Chapter { first_ms: 90_000, last_ms: 3_000, times, what }, &r)[1].clone();
        let evidence = Evidence { attempts: 0, silent_ms: 75_000, heard_ms: None, relayed: false, connected: false };
        let missed = tell(Told::Accused { by: "beta".into(), evidence, counted: false }, 4);
        assert_eq!(
            missed,
            "beta missed it: had no connection, no answer for 1m 15s; had never heard it (did not count: newer word of it \
             was known) (4 times in all, first 1m 30s ago)"
        );
        assert_eq!(
            tell(Told::Answered { asked: true, ended: 2 }, 1),
            "it answered this host; that answered 2 accusers"
        );
        assert_eq!(tell(Told::Answered { asked: false, ended: 1 }, 1), "word of it came; that answered the accuser");
        assert!(tell(Told::KeptStill { silent: 4, of: 5 }, 1).contains("4 of 5 hosts at once"));
        assert!(tell(Told::PassedOn, 2).ends_with("(twice in all, first 1m 30s ago)"));
        let evil = Told::Became { from: HostState::Alive, to: HostState::Down, why: "\x1b[2J".into() };
        assert!(!tell(evil, 1).contains('\x1b'), "nothing moves the cursor");
    }
}

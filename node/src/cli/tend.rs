//! The commands of who tends the mesh: block, drain, pause and their opposites, clear, policy, plan, audit. One question
//! each, and the answer in words. Nothing is decided here.

use super::args::{HostStop, PolicyCommand};
use super::show::{ago, plain, table};
use super::{EXIT_FAILED, EXIT_OK, Failure, Out};
use crate::api::client::Client;
use crate::api::healing::{AuditFilter, AuditReport, PlanReport, PolicyReport, PolicyRequest};
use crate::api::measures::{ClearRequest, LiftRequest, Measure, StopKind, StopRequest};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) async fn stop(client: &Client, out: Out, stop: StopKind, wish: HostStop) -> Result<(), Failure> {
    let HostStop { host, lasts, reason } = wish;
    put(client, out, StopRequest { stop, host: Some(host), lasts_ms: lasts_ms(&lasts)?, reason }).await
}

pub(super) async fn pause(client: &Client, out: Out, lasts: &str, reason: String) -> Result<(), Failure> {
    put(client, out, StopRequest { stop: StopKind::Pause, host: None, lasts_ms: lasts_ms(lasts)?, reason }).await
}

async fn put(client: &Client, out: Out, request: StopRequest) -> Result<(), Failure> {
    request.check()?;
    let stopped = client.put_measure(&request).await?;
    if out.json {
        out.json(&stopped)?;
    }
    let Measure { stop, host, until_ms, .. } = &stopped.measure;
    let whom = host.as_deref().map_or("the mesh".into(), plain);
    let end = match host {
        Some(host) => format!("mesh {} {}", stop.opposite(), plain(host)),
        None => "mesh resume".to_owned(),
    };
    out.note(format!("{whom} is {} until {}; `{end}` ends that sooner", stop.word(), moment(*until_ms)));
    Ok(())
}

pub(super) async fn lift(
    client: &Client,
    out: Out,
    stop: StopKind,
    host: Option<String>,
    reason: String,
) -> Result<(), Failure> {
    let request = LiftRequest { stop, host, reason };
    request.check()?;
    let lifted = client.lift(&request).await?;
    if out.json {
        out.json(&lifted)?;
    }
    if let Some(was) = &lifted.measure {
        let whom = was.host.as_deref().map_or("the mesh".into(), plain);
        let text = format!("{whom} is {} no more (it was by {}: {})", stop.word(), plain(&was.by), plain(&was.reason));
        out.note(text);
    }
    if lifted.healing {
        out.note("healing goes on");
    }
    Ok(())
}

pub(super) async fn clear(client: &Client, out: Out, host: String, reason: String) -> Result<(), Failure> {
    let request = ClearRequest { host, reason };
    request.check()?;
    client.clear(&request).await?;
    out.done()?;
    out.note(format!("{} counts as well, and gets builds again", plain(&request.host)));
    Ok(())
}

pub(super) async fn policy(client: &Client, out: Out, what: Option<PolicyCommand>) -> Result<(), Failure> {
    let report = match what {
        None => client.policy().await?,
        Some(PolicyCommand::Set { key, value }) => client.set_policy(&PolicyRequest { key, value }).await?,
    };
    if out.json { out.json(&report) } else { out.line(policy_text(&report)) }
}

/// As `mesh policy set` takes it, a line each; what differs from its default says so.
fn policy_text(report: &PolicyReport) -> String {
    let row = |v: &crate::api::healing::PolicyValue| {
        let differs = v.value != v.default;
        let note = if differs { format!("# {} by default", plain(&v.default)) } else { String::new() };
        vec![plain(&v.key), format!("= {}", plain(&v.value)), note]
    };
    table(&report.policy.iter().map(row).collect::<Vec<_>>())
}

/// Says by the exit code whether anything is due: 0 when nothing is.
pub(super) async fn plan(client: &Client, out: Out) -> Result<u8, Failure> {
    let report = client.plan().await?;
    match out.json {
        true => out.json(&report)?,
        false => out.line(plan_text(&report))?,
    }
    Ok(if report.steps.is_empty() && report.held.is_empty() && report.frozen.is_empty() {
        EXIT_OK
    } else {
        EXIT_FAILED
    })
}

fn plan_text(r: &PlanReport) -> String {
    let mut out = vec![];
    out.push(match r.leads {
        true => format!("as {} sees it, which leads and acts by it", plain(&r.seen_from)),
        false => format!("as {} sees it; the leader acts by its own view", plain(&r.seen_from)),
    });
    out.extend(r.frozen.iter().map(|why| format!("frozen: {}", plain(why))));
    out.extend(r.blame.iter().map(|verdict| format!("blame: {}", plain(verdict))));
    for step in &r.steps {
        out.push(format!("now: {}: {}, because {}", plain(&step.host), plain(&step.what), plain(&step.why)));
    }
    for held in &r.held {
        out.push(format!("held back: {}: {}", plain(&held.host), plain(&held.what)));
        out.extend(held.rules.iter().map(|rule| format!("  - {}", plain(rule))));
    }
    if r.steps.is_empty() && r.held.is_empty() {
        out.push("nothing is due".to_owned());
    }
    out.join("\n")
}

pub(super) async fn audit(
    client: &Client,
    out: Out,
    host: Option<String>,
    since: Option<String>,
) -> Result<u8, Failure> {
    if let Some(host) = host.as_deref().filter(|host| !mesh::roster::valid_host_name(host)) {
        return Err(crate::api::server::bad_host_name(host).into());
    }
    let since_ms = since.map(|since| since_ms(&since, SystemTime::now())).transpose()?;
    let report = client.audit(&AuditFilter { host, since_ms }).await?;
    match out.json {
        true => out.json(&report)?,
        false if report.lines.is_empty() => out.note("nothing is in the trail"),
        false => out.line(audit_text(&report))?,
    }
    for missing in &report.missing {
        out.note(format!("warning: {}", plain(missing)));
    }
    Ok(if report.missing.is_empty() { EXIT_OK } else { EXIT_FAILED })
}

fn audit_text(report: &AuditReport) -> String {
    let line = |line: &crate::api::healing::AuditLine| format!("{}  {}", moment(line.at_ms), plain(&line.told));
    report.lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A moment of ledger time.
pub(super) fn moment(at_ms: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(at_ms / 1_000)).to_string()
}

/// What is left of something.
pub(super) fn left(ms: u64) -> String {
    if ms < 1_000 { "ends now".to_owned() } else { format!("{} left", ago(ms)) }
}

fn lasts_ms(text: &str) -> Result<u64, Failure> {
    let lasts = humantime::parse_duration(text).map_err(|error| {
        Failure::usage(format!("`{}`: {error}", crate::config::shorten(text))).hint("for example --for 8h, or --for 2d")
    })?;
    Ok(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX))
}

/// A moment, as a time ago, a day, or with hour and zone.
fn since_ms(text: &str, now: SystemTime) -> Result<u64, Failure> {
    let day = format!("{text}T00:00:00Z");
    let at = match humantime::parse_duration(text) {
        Ok(ago) => now.checked_sub(ago).unwrap_or(UNIX_EPOCH),
        Err(_) => humantime::parse_rfc3339_weak(text).or_else(|_| humantime::parse_rfc3339(&day)).map_err(|_| {
            Failure::usage(format!("`{}` is no time", crate::config::shorten(text)))
                .hint("for example --since 2d, --since 2026-11-28, or --since 2026-11-28T20:00:00Z")
        })?,
    };
    Ok(at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::healing::PolicyValue;
    use crate::api::tend::tests::{sample_line, sample_plan};

    #[test]
    fn a_plan_says_what_is_due_and_every_rule_that_holds_it_back() {
        let want = "\
as anna sees it, which leads and acts by it
blame: 3 packages fail on bert that are not to blame themselves, while other hosts build (b1.1)
now: bert: a restart of the service, because its canary failed
held back: carl: setting it aside
  - bert is being healed: one host at a time
  - its builds make progress";
        assert_eq!(plan_text(&sample_plan()), want);
        let idle = PlanReport { leads: false, steps: vec![], held: vec![], blame: vec![], ..sample_plan() };
        assert_eq!(plan_text(&idle), "as anna sees it; the leader acts by its own view\nnothing is due");
    }

    #[test]
    fn a_policy_says_what_differs() {
        let value = |key: &str, value: &str| PolicyValue { key: key.into(), value: value.into(), default: "3".into() };
        let report = PolicyReport { version: 1, policy: vec![value("storm", "2"), value("observers", "3")] };
        assert_eq!(policy_text(&report), "storm      = 2  # 3 by default\nobservers  = 3");
    }

    #[test]
    fn the_trail_has_a_line_for_each_thing() {
        let report = AuditReport { version: 1, lines: vec![sample_line()], missing: vec![] };
        assert_eq!(audit_text(&report), "1970-01-02T00:00:00Z  anna wrote an order for bert");
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        let now = UNIX_EPOCH + Duration::from_secs(10 * 86_400);
        let day = 86_400_000;
        assert_eq!(since_ms("2d", now).unwrap(), 8 * day);
        assert_eq!(since_ms("1970-01-03", now).unwrap(), 2 * day);
        assert_eq!(since_ms("1970-01-03T00:00:01Z", now).unwrap(), 2 * day + 1_000);
        assert_eq!(since_ms("1970-01-03 00:00:01", now).unwrap(), 2 * day + 1_000);
        assert_eq!(since_ms("1000d", now).unwrap(), 0);
        assert_eq!(since_ms("yesterday", now).unwrap_err().code, super::super::EXIT_USAGE);
        assert_eq!(lasts_ms("8h").unwrap(), 8 * 3_600_000);
        assert_eq!(lasts_ms("for ever").unwrap_err().code, super::super::EXIT_USAGE);
    }
}

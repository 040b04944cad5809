//! What people are told of a failure: rule, time, hosts, their last events, and the command to see it again.

use super::Io;
use super::play::Outcome;
use super::witness::WORLD;
use crate::action::LEADER;
use crate::stage::Failure;
use std::time::Duration;

/// Who tier 1 says its running hash by; no host.
const HASH: &str = "hash";

/// Events that are shown of all hosts together, the last ones.
const EVENTS_SHOWN_MAX: usize = 60;

/// Tells how a run went; `again` is the command that shows it again.
pub fn outcome(outcome: &Outcome, again: &str, io: &mut Io) {
    let s = &outcome.summary;
    io.say(&format!(
        "{} records, {} bytes delivered, {} commits, {} random bytes, {:.1} s of virtual time, {:.2} CPU s",
        s.records,
        s.bytes,
        s.commits,
        outcome.random_bytes,
        outcome.played.ended.max(s.elapsed).as_secs_f64(),
        outcome.cpu.as_secs_f64()
    ));
    let Some(failure) = &outcome.played.failure else { return };
    tell(failure, outcome, io);
    io.say(&format!("see it again: {again}"));
}

fn tell(failure: &Failure, outcome: &Outcome, io: &mut Io) {
    let at = outcome.played.ended.max(outcome.summary.elapsed);
    match failure {
        Failure::Crash(text) => io.error(&format!("crash at {}: {text}", clock(at))),
        Failure::Safety(violation) => {
            io.error(&format!("safety: {} is broken at {}", violation.invariant, clock(violation.at)));
            io.say(&format!("  {}", violation.text));
        }
        Failure::Liveness { pending } => {
            io.error(&format!("liveness: at {}, all healed, the mesh has not come right", clock(at)));
            pending.iter().for_each(|line| io.say(&format!("  {line}")));
        }
    }
    let text = failure.to_string();
    // What was done to no host in particular, or to one that nobody could name, concerns all.
    let (common, all): (Vec<&String>, Vec<&String>) =
        outcome.last.keys().filter(|host| *host != HASH).partition(|host| [WORLD, LEADER].contains(&host.as_str()));
    let named: Vec<&String> = all.iter().copied().filter(|host| names(&text, host)).collect();
    let mut hosts = if named.is_empty() { all } else { named };
    let list: Vec<&str> = hosts.iter().map(|host| host.as_str()).collect();
    io.say(&format!("hosts: {}", list.join(", ")));
    hosts.extend(common);
    let mut events: Vec<(&(u64, Duration, String), &str)> =
        hosts.iter().flat_map(|host| outcome.last[*host].iter().map(move |event| (event, host.as_str()))).collect();
    events.sort_by_key(|((number, _, _), _)| *number);
    let width = hosts.iter().map(|host| host.chars().count()).max().unwrap_or_default();
    let skip = events.len().saturating_sub(EVENTS_SHOWN_MAX);
    io.say(&format!("the last {} events, in order:", events.len() - skip));
    for ((_, at, line), host) in &events[skip..] {
        io.say(&format!("  {:>12}  {host:<width$}  {line}", clock(*at)));
    }
}

/// Whether a host's name stands in a text by itself, not as a part of another name.
fn names(text: &str, host: &str) -> bool {
    let part = |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '-');
    text.match_indices(host)
        .any(|(at, _)| !part(text[..at].chars().next_back()) && !part(text[at + host.len()..].chars().next()))
}

/// A moment as people read it.
pub fn clock(at: Duration) -> String {
    format!("{:.3} s", at.as_secs_f64())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_host_is_named_only_by_its_whole_name() {
        assert!(super::names("a and b disagree", "a"));
        assert!(super::names("nobody sees b.", "b"));
        assert!(!super::names("nobody sees drone-b", "b"));
    }
}

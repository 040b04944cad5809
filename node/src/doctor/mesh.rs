//! Checks of what a daemon knows of its mesh: one function a check, each over the facts alone.

use super::Severity::{Error, Note, Warning};
use super::{Finding, firewall};
use crate::api::types::{HostFacts, HostState, Level, MeshFacts, PathKind};

/// Wall clocks further apart than this are a warning: expiry is judged by ledger time, but people compare logs.
const CLOCK_MS_MAX: u64 = 30_000;
/// What ends within this is told.
const SOON_MS: u64 = 24 * 3_600_000;
/// So long after its start a daemon has met everybody whom it will meet.
const SETTLED_MS: u64 = 60_000;

/// Codes of status that a check of its own covers.
const COVERED: [&str; 9] = [
    "clock",
    "few-signers",
    "host-down",
    "host-left",
    "host-suspect",
    "no-leader",
    "not-at-boot",
    "successor",
    "version",
];

type Check = fn(&MeshFacts) -> Vec<Finding>;

/// All of them.
const CHECKS: [Check; 9] = [leader, reachability, clocks, relays, versions, signers, at_boot, ending, everything_else];

/// Every finding.
pub fn findings(facts: &MeshFacts) -> Vec<Finding> {
    CHECKS.iter().flat_map(|check| check(facts)).collect()
}

fn others(facts: &MeshFacts) -> impl Iterator<Item = &HostFacts> {
    facts.hosts.iter().filter(|host| host.name != facts.host)
}

fn leader(facts: &MeshFacts) -> Vec<Finding> {
    if facts.leader.is_some() {
        return vec![];
    }
    let advice = "`mesh status` says which voters are missing; when most are lost for good: `mesh recover`";
    vec![Finding::new(Error, "no-leader", "nobody leads: nothing new can be decided", advice)]
}

fn reachability(facts: &MeshFacts) -> Vec<Finding> {
    let judge = |host: &HostFacts| {
        let why = if host.why.is_empty() { String::new() } else { format!(": {}", host.why) };
        let name = &host.name;
        let found = match (host.state, host.path) {
            (HostState::Down, _) => Finding::new(
                Warning,
                "host-down",
                format!("{name} is down{why}"),
                format!(
                    "is it on? `mesh doctor` there, `mesh why {name}` here; when it is lost: `mesh replace {name}`"
                ),
            ),
            (HostState::Suspect, _) => Finding::new(
                Warning,
                "host-suspect",
                format!("{name} does not answer{why}"),
                format!("`mesh why {name}` says who misses it, `mesh ping {name}` what was tried"),
            ),
            (HostState::Left, _) => Finding::new(
                Note,
                "host-left",
                format!("{name} has stopped by itself"),
                "`mesh up --detach` there, when it is to build again".to_owned(),
            ),
            (HostState::Alive, PathKind::None) => Finding::new(
                Warning,
                "unreachable",
                format!("{name} is alive, but this host has no path to it"),
                format!("`mesh ping {name}` says what was tried; a host that both can reach would relay for them"),
            ),
            (HostState::Alive, _) => return None,
        };
        Some(found.of(name))
    };
    others(facts).filter_map(judge).collect()
}

fn clocks(facts: &MeshFacts) -> Vec<Finding> {
    let told: Vec<(&str, i64)> = others(facts).filter_map(|h| Some((h.name.as_str(), h.clock_ms?))).collect();
    let off: Vec<&(&str, i64)> = told.iter().filter(|(_, ms)| ms.unsigned_abs() > CLOCK_MS_MAX).collect();
    let set = "set it (`timedatectl set-ntp true`, or start chronyd)";
    // One that differs from most is the one that is wrong, and that may be this one.
    if off.len() > 1 && off.len() * 2 > told.len() {
        let mut all: Vec<i64> = off.iter().map(|(_, ms)| *ms).collect();
        all.sort_unstable();
        let text = format!("the clock of this host is {} s off that of most others", all[all.len() / 2] / -1_000);
        return vec![Finding::new(Warning, "clock", text, set).of(&facts.host)];
    }
    let found = |(name, ms): &&(&str, i64)| {
        let text = format!("the clock of {name} is {} s off this host's", ms / 1_000);
        Finding::new(Warning, "clock", text, format!("{set} on {name}")).of(name)
    };
    off.iter().map(found).collect()
}

fn relays(facts: &MeshFacts) -> Vec<Finding> {
    let relay = facts.hosts.iter().any(|host| host.relays);
    let hidden: Vec<&HostFacts> = facts.hosts.iter().filter(|host| !host.behind.is_empty()).collect();
    if relay || facts.up_ms < SETTLED_MS {
        return vec![];
    }
    let advice = format!(
        "open the port of one host that the others can reach ({}), or invite one that all can reach: it relays by itself",
        firewall::example(crate::config::DEFAULT_PORT)
    );
    if let [first, ..] = &hidden[..] {
        let names: Vec<&str> = hidden.iter().map(|h| h.name.as_str()).collect();
        let text = format!(
            "{} is behind the masquerade of {}, and nobody relays: hosts on other networks may not reach it",
            names.join(", "),
            first.behind.join(" and ")
        );
        return vec![Finding::new(Warning, "masquerade-without-relay", text, advice)];
    }
    let apart = others(facts).any(|host| host.state == HostState::Alive && host.path == PathKind::None);
    if apart {
        let text = "no host was ever dialled from elsewhere, so none relays for those that cannot reach each other";
        return vec![Finding::new(Warning, "no-relay", text, advice)];
    }
    vec![]
}

fn versions(facts: &MeshFacts) -> Vec<Finding> {
    let Some(own) = facts.hosts.iter().find(|host| host.name == facts.host).map(|host| &host.program) else {
        return vec![];
    };
    let differ = others(facts).filter(|host| !host.program.is_empty() && host.program != *own);
    let found = |host: &HostFacts| {
        let text = format!("{} runs version {}, this host {own}", host.name, host.program);
        Finding::new(
            Note,
            "version",
            text,
            "update the older one: new kinds of entries wait until every voter knows them",
        )
        .of(&host.name)
    };
    differ.map(found).collect()
}

fn signers(facts: &MeshFacts) -> Vec<Finding> {
    if facts.signers >= 2 || facts.hosts.len() < 2 {
        return vec![];
    }
    let text = "only one host may invite and evict; when it is lost, nobody can";
    vec![Finding::new(Warning, "few-signers", text, "`mesh invite NAME --signer` for one more host")]
}

fn at_boot(facts: &MeshFacts) -> Vec<Finding> {
    let off = others(facts).filter(|host| host.boot_enabled == Some(false));
    let found = |host: &HostFacts| {
        let text = format!("{} will not start the mesh when it boots", host.name);
        Finding::new(Warning, "not-at-boot", text, format!("`mesh install` on {}", host.name)).of(&host.name)
    };
    off.map(found).collect()
}

fn ending(facts: &MeshFacts) -> Vec<Finding> {
    let soon = facts.ending.iter().filter(|ending| ending.left_ms <= SOON_MS);
    let found = |ending: &crate::api::types::Ending| {
        let left = humantime::format_duration(std::time::Duration::from_secs(ending.left_ms / 60_000 * 60));
        let text = format!("{} ends in {left} ({})", ending.what, ending.reason);
        Finding::new(Note, "ends-soon", text, ending.advice.clone())
    };
    soon.map(found).collect()
}

/// What status warns of and no check here knows: nothing is hidden by asking the doctor.
fn everything_else(facts: &MeshFacts) -> Vec<Finding> {
    let rest = facts.warnings.iter().filter(|warning| !COVERED.contains(&warning.code.as_str()));
    let found = |warning: &crate::api::types::Warning| Finding {
        code: warning.code.clone(),
        severity: if warning.level == Level::Warning { Warning } else { Note },
        host: warning.host.clone(),
        text: warning.text.clone(),
        advice: "`mesh status` says what to do next".into(),
    };
    rest.map(found).collect()
}

#[cfg(test)]
#[path = "mesh_tests.rs"]
mod tests;

//! Serf's agent with its LAN profile, otherwise as it comes. What it says is read line by line, and the time of each is
//! ours: its own log has whole seconds.

use super::swarm::{Swarm, address, hosts, named};
use ::tests::daemon::PATIENCE;
use ::tests::lab::Lab;
use ::tests::wait_for;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

type Lines = Arc<Mutex<Vec<(SystemTime, String)>>>;

#[derive(Default)]
pub struct Serf {
    agents: Vec<Child>,
    /// Of each host, over all its lives.
    said: BTreeMap<String, Lines>,
}

impl Serf {
    fn lines(&self, host: &str) -> Vec<(SystemTime, String)> {
        self.said.get(host).map(|l| l.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap_or_default()
    }
}

/// What a line says of a member: `Join`, `Failed`, `Leave`, … and whose.
fn event(line: &str) -> Option<(&str, &str)> {
    let (_, event) = line.split_once("serf: EventMember")?;
    let (what, rest) = event.split_once(": ")?;
    Some((what, rest.split_whitespace().next()?))
}

impl Swarm for Serf {
    fn name(&self) -> &'static str {
        "serf"
    }

    fn found(&mut self, lab: &Lab) {
        for host in hosts(lab) {
            let first = self.said.is_empty();
            self.start(lab, &host);
            if first {
                // An agent that cannot join anybody ends.
                wait_for(PATIENCE, || (self.alive(lab, &host) == 1).then_some(())).expect("the first agent serves");
            }
        }
    }

    fn start(&mut self, lab: &Lab, host: &str) {
        let mut words: Vec<String> =
            ["serf", "agent", "-profile=lan", "-log-level=info"].iter().map(ToString::to_string).collect();
        words.extend([format!("-node={host}"), format!("-bind={}:7946", address(host))]);
        // Two, so that one which is away keeps nobody out.
        let known = hosts(lab).into_iter().filter(|h| h != host && self.alive(lab, h) > 0).take(2);
        words.extend(known.map(|h| format!("-join={}:7946", address(&h))));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = lab.command(host, &words).unwrap_or_else(|why| panic!("{why}"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut agent = command.spawn().expect("serf: see scripts/bench");
        let out = agent.stdout.take().expect("piped");
        let lines = self.said.entry(host.to_owned()).or_default();
        lines.lock().unwrap_or_else(PoisonError::into_inner).push((SystemTime::now(), "started".into()));
        let lines = Arc::clone(lines);
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                lines.lock().unwrap_or_else(PoisonError::into_inner).push((SystemTime::now(), line));
            }
        });
        self.agents.push(agent);
    }

    fn processes(&self, lab: &Lab, host: &str) -> Vec<u32> {
        named(lab, host, "serf")
    }

    fn alive(&self, _: &Lab, host: &str) -> usize {
        let lines = self.lines(host);
        let started = lines.iter().rposition(|(_, line)| line == "started").unwrap_or_default();
        let mut last: BTreeMap<&str, &str> = BTreeMap::new();
        last.extend(lines[started..].iter().filter_map(|(_, line)| event(line)).map(|(what, who)| (who, what)));
        last.values().filter(|what| matches!(**what, "Join" | "Update")).count()
    }

    fn down_at(&self, _: &Lab, host: &str, of: &str, after: SystemTime) -> Option<SystemTime> {
        let lines = self.lines(host);
        let told = |(at, line): &&(SystemTime, String)| *at >= after && event(line) == Some(("Failed", of));
        lines.iter().find(told).map(|(at, _)| *at)
    }

    fn role(&self, _: &Lab, _: &str) -> &'static str {
        "other"
    }

    fn log_tail(&self, _: &Lab, host: &str) -> String {
        let lines: Vec<String> = self.lines(host).into_iter().map(|(_, line)| line).collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Serf {
    fn drop(&mut self) {
        // Its hosts are gone, or will be: none of these can be left.
        for agent in &mut self.agents {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read() {
        let line = "2026/11/28 18:40:55 [INFO] serf: EventMemberFailed: h3 10.77.0.3";
        assert_eq!(event(line), Some(("Failed", "h3")));
        assert_eq!(event("2026/11/28 18:40:55 [INFO] agent: joining: [10.77.0.1:7946] replay: false"), None);
    }
}

//! The mesh, as its users have it: `mesh init`, `invite`, `join` and `up --detach` on each host, default configuration.

use super::swarm::{Swarm, named};
use std::time::SystemTime;
use tests::lab::Lab;
use tests::lab::members::Common;

#[derive(Default)]
pub struct Mesh;

impl Swarm for Mesh {
    fn name(&self) -> &'static str {
        "mesh"
    }

    fn found(&mut self, lab: &Lab) {
        let outside = lab.found(&Common::default()).unwrap_or_else(|why| panic!("no mesh: {why}"));
        assert_eq!(outside, Vec::<String>::new());
    }

    fn start(&mut self, lab: &Lab, host: &str) {
        lab.mesh_up(host).unwrap_or_else(|why| panic!("{host} does not come up: {why}"));
    }

    fn processes(&self, lab: &Lab, host: &str) -> Vec<u32> {
        named(lab, host, "mesh")
    }

    fn alive(&self, lab: &Lab, host: &str) -> usize {
        lab.status(host).map_or(0, |status| status.alive())
    }

    fn down_at(&self, lab: &Lab, host: &str, of: &str, after: SystemTime) -> Option<SystemTime> {
        let (of, log) = (format!("host=\"{of}\""), lab.mesh_log(host));
        let told =
            |line: &&str| line.contains("a host's state changed") && line.contains(&of) && line.contains("to=down");
        let at = |line: &str| humantime::parse_rfc3339(line.split_whitespace().next()?).ok();
        log.lines().filter(told).filter_map(at).find(|at| *at >= after)
    }

    fn role(&self, lab: &Lab, host: &str) -> &'static str {
        let status = lab.status(host).unwrap_or_else(|| panic!("{host} does not answer"));
        match status.host(host) {
            _ if status.leader() == Some(host) => "leader",
            Some(row) if row["voter"] == true => "voter",
            _ => "other",
        }
    }

    fn log_tail(&self, lab: &Lab, host: &str) -> String {
        let log = lab.mesh_log(host);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

//! What is asked of either of the two, and the hosts that they run on.

use std::fmt::Write;
use std::time::SystemTime;
use tests::lab::Lab;

/// The one network, and the hosts' interface on it.
pub const NETWORK: &str = "lan";

/// A program that runs on every host of a lab and knows of the others.
pub trait Swarm {
    fn name(&self) -> &'static str;
    /// Starts it on all hosts, so that they find each other.
    fn found(&mut self, lab: &Lab);
    /// Starts it on one that has just been switched on.
    fn start(&mut self, lab: &Lab, host: &str);
    /// Its processes on a host, the main one first, as the machine numbers them.
    fn processes(&self, lab: &Lab, host: &str) -> Vec<u32>;
    /// How many a host sees alive, itself among them.
    fn alive(&self, lab: &Lab, host: &str) -> usize;
    /// When one host first said of another, after this time, that it is gone.
    fn down_at(&self, lab: &Lab, host: &str, of: &str, after: SystemTime) -> Option<SystemTime>;
    /// `leader`, `voter` or `other`.
    fn role(&self, lab: &Lab, host: &str) -> &'static str;
    /// What it said last on a host.
    fn log_tail(&self, lab: &Lab, host: &str) -> String;
}

/// So many hosts, `h1` and on, on one switch.
pub fn fleet(hosts: usize) -> String {
    let mut text = format!("name = \"lan\"\n[[network]]\nname = \"{NETWORK}\"\ncidr = \"10.77.0.0/24\"\n");
    for n in 1..=hosts {
        let _ = write!(
            text,
            "[[host]]\nname = \"h{n}\"\naddresses = {{ {NETWORK} = \"{}\" }}\ncores = 1\nrole = \"drone\"\n",
            address(&format!("h{n}"))
        );
    }
    text
}

/// Where a host is.
pub fn address(host: &str) -> String {
    format!("10.77.0.{}", host.trim_start_matches('h'))
}

/// The hosts of a lab.
pub fn hosts(lab: &Lab) -> Vec<String> {
    lab.fleet.hosts.iter().map(|h| h.name.clone()).collect()
}

/// The ids of a host's processes of this name.
pub fn named(lab: &Lab, host: &str, name: &str) -> Vec<u32> {
    let id = |process: &String| process.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')')?.parse().ok();
    let mut ids: Vec<u32> = lab.processes(host).iter().filter_map(id).collect();
    ids.sort_unstable();
    ids
}

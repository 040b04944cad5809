//! What a process has used, and what a host has sent, as its kernel counts it.

use std::fs;
use tests::lab::Lab;

/// The head of a frame, which is not IP's.
const ETHERNET_BYTES: u64 = 14;

/// Time on the processor of all threads, those that have ended included.
pub fn cpu_s(process: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("the process runs");
    let (_, behind_the_name) = stat.rsplit_once(')').expect("a name in brackets");
    // User and system time are the 14th and 15th of all fields, in hundredths of a second.
    let fields = behind_the_name.split_whitespace().skip(11).take(2);
    fields.map(|ticks| ticks.parse::<f64>().expect("a number")).sum::<f64>() / 100.0
}

/// Memory of a process that is its own or shared, in MiB.
pub fn rss_mib(process: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the process runs");
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).expect("a number") / 1024.0
}

/// Bytes of IP and packets that a host of a lab has sent by one interface since it was switched on.
pub fn sent(lab: &Lab, host: &str, interface: &str) -> (u64, u64) {
    let table = lab.inside(host, || fs::read_to_string("/proc/thread-self/net/dev")).expect("counters");
    let line = table.lines().find_map(|l| l.trim().strip_prefix(&format!("{interface}:")));
    let numbers = line.unwrap_or_else(|| panic!("{host} has no {interface}:\n{table}")).split_whitespace();
    let numbers: Vec<u64> = numbers.map(|n| n.parse().expect("a number")).collect();
    let (bytes, packets) = (numbers[8], numbers[9]);
    (bytes - packets * ETHERNET_BYTES, packets)
}

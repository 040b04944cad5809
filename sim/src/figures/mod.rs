//! Figures of large meshes: detection, false accusations, convergence and traffic against size and loss.
//!
//! Each row is a [`crowd::Crowd`] that lives for 60 virtual seconds: 15 s of peace, in which traffic is counted;
//! then some hosts' processes die; at 35 s some lose their power. It writes a table and a plot, and says what the
//! run itself took. What is shared between the hosts of one process, and how a packet is counted, stands in
//! [`crowd`] and under the table. Nothing here judges: a sweep does.

pub mod crowd;
mod plot;

use crate::det;
use crowd::{Counts, Crowd, Death, PACKET_BYTES, PAYLOAD_MAX};
use std::fmt::Write as _;
use std::time::Duration;

/// Sizes that the shipped figures are made for.
pub const SIZES: [usize; 5] = [6, 30, 100, 1_000, 10_000];
/// Losses, in percent, that they are made for.
pub const LOSSES: [u32; 3] = [0, 5, 25];

const SECOND: u64 = 1_000_000;
/// Traffic is counted from here on, when first probes are over.
const CALM: u64 = 5 * SECOND;
const CRASH: u64 = 15 * SECOND;
const POWER_OFF: u64 = 35 * SECOND;
const END: u64 = 60 * SECOND;
/// Hosts that end in each way: one of a hundred, but enough to say something and few enough to call it a fault.
const DEATHS_MAX: usize = 10;
/// A small mesh lives so often, with other seeds: one death says little.
const LIVES_SMALL: u64 = 5;

/// How long it took until hosts that live knew of a death, over all pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Detection {
    /// Half of the pairs, in seconds.
    pub median_s: f64,
    /// 99 of a hundred.
    pub p99_s: f64,
    /// All that ever did.
    pub all_s: f64,
    /// Pairs that did not within the run.
    pub missed: u64,
}

/// One size under one loss.
#[derive(Clone, Debug)]
pub struct Row {
    /// Hosts.
    pub hosts: usize,
    /// Packets lost, in percent.
    pub loss: u32,
    /// Crashes: the kernel closes connections.
    pub crash: Detection,
    /// Power cuts: nobody is told.
    pub power_off: Detection,
    /// Accusations published of hosts that lived.
    pub false_accusations: u64,
    /// Times that a host held another to be down that lived.
    pub false_downs: u64,
    /// Of a hundred beliefs at the end, those that were right.
    pub right_percent: f64,
    /// Payload a host sends, in bytes a second, in peace.
    pub payload: f64,
    /// The same on the wire, reckoned.
    pub wire: f64,
    /// On the wire, over the whole run.
    pub wire_all: f64,
    /// Virtual time that was simulated.
    pub simulated: Duration,
    /// CPU time that it took.
    pub cpu: Duration,
    /// The process's peak of memory since the row before, in MiB; `None` where the system does not say.
    pub peak_mib: Option<u64>,
}

/// All rows.
#[derive(Clone, Debug)]
pub struct Figures {
    /// By size, then loss.
    pub rows: Vec<Row>,
    /// What all of it came from.
    pub seed: u64,
}

/// Simulates each size under each loss.
pub fn figures(sizes: &[usize], losses: &[u32], seed: u64) -> Figures {
    let rows = sizes.iter().flat_map(|hosts| losses.iter().map(|loss| row(*hosts, *loss, seed)));
    Figures { rows: rows.collect(), seed }
}

fn row(hosts: usize, loss: u32, seed: u64) -> Row {
    forget_peak();
    let cpu = det::cpu_time();
    let lives = if hosts <= 100 { LIVES_SMALL } else { 1 };
    let deaths = (hosts / 100).clamp(1, DEATHS_MAX);
    let (mut all, mut peace) = (Counts::default(), Counts::default());
    let (mut right, mut pairs) = (0.0, [0, 0]);
    for life in 0..lives {
        let mut crowd = Crowd::new(hosts, loss, seed ^ life << 32);
        crowd.run_until(CALM);
        let before = crowd.counts.clone();
        crowd.run_until(CRASH);
        peace.payload += crowd.counts.payload - before.payload;
        peace.wire += crowd.counts.wire - before.wire;
        crowd.kill(deaths, Death::Crash);
        pairs[0] += (deaths * crowd.living()) as u64;
        crowd.run_until(POWER_OFF);
        crowd.kill(deaths, Death::PowerOff);
        pairs[1] += (deaths * crowd.living()) as u64;
        crowd.run_until(END);
        right += crowd.right_percent() / lives as f64;
        add(&mut all, &crowd.counts);
    }
    let per_host = |bytes: u64, span: u64| bytes as f64 / hosts as f64 / (span / SECOND) as f64 / lives as f64;
    let detection = |death, pairs| detection(all.detected.get(&death).cloned().unwrap_or_default(), pairs);
    Row {
        hosts,
        loss,
        crash: detection(Death::Crash, pairs[0]),
        power_off: detection(Death::PowerOff, pairs[1]),
        false_accusations: all.false_accusations,
        false_downs: all.false_downs,
        right_percent: right,
        payload: per_host(peace.payload, CRASH - CALM),
        wire: per_host(peace.wire, CRASH - CALM),
        wire_all: per_host(all.wire, END),
        simulated: Duration::from_micros(END * lives),
        cpu: det::cpu_time().saturating_sub(cpu),
        peak_mib: peak_mib(),
    }
}

fn add(to: &mut Counts, counts: &Counts) {
    to.payload += counts.payload;
    to.wire += counts.wire;
    to.messages += counts.messages;
    to.false_accusations += counts.false_accusations;
    to.false_downs += counts.false_downs;
    for (death, times) in &counts.detected {
        to.detected.entry(*death).or_default().extend(times);
    }
}

fn detection(mut times: Vec<u64>, pairs: u64) -> Detection {
    times.sort_unstable();
    let at = |part: f64| {
        let index = ((times.len() as f64 * part).ceil() as usize).clamp(1, times.len().max(1)) - 1;
        times.get(index).map_or(f64::NAN, |us| *us as f64 / SECOND as f64)
    };
    let missed = pairs.saturating_sub(times.len() as u64);
    Detection { median_s: at(0.5), p99_s: at(0.99), all_s: at(1.0), missed }
}

/// From here on the system reckons the process's peak of memory anew (Linux; elsewhere nothing happens).
fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib / 1_024)
}

impl Figures {
    /// A table, with what has to be known to read it.
    pub fn to_markdown(&self) -> String {
        let mut out = format!(
            "# Membership against size and loss\n\nMade by `sim figures`, seed {}. Each row: 60 virtual seconds; at 15 s \
             one host of a hundred (1 to {DEATHS_MAX}) dies with its process, at 35 s as many lose their power. Meshes of \
             up to 100 hosts live {LIVES_SMALL} times.\n\n",
            self.seed
        );
        out += "| hosts | loss | process dies: median / p99 / all | power goes: median / p99 / all | false accusations | \
                false downs | right at the end | payload a host | on the wire | whole run | CPU | memory |\n";
        out += "|---:|---:|---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n";
        for row in &self.rows {
            let Row { hosts, loss, false_accusations, false_downs, right_percent, payload, wire, wire_all, .. } = row;
            let memory = row.peak_mib.map_or_else(|| "?".to_owned(), |mib| format!("{mib} MiB"));
            let _ = writeln!(
                out,
                "| {hosts} | {loss} % | {} | {} | {false_accusations} | {false_downs} | {right_percent:.2} % | {payload:.0} \
                 B/s | {wire:.0} B/s | {wire_all:.0} B/s | {:.1} s | {memory} |",
                words(&row.crash),
                words(&row.power_off),
                row.cpu.as_secs_f64(),
            );
        }
        let _ = write!(
            out,
            "\nDetection is from the death to the moment at which a host that lives holds the dead one to be down, over all \
             pairs of both; \"all\" is the last pair. \"Right at the end\" are beliefs, alive or down, against the truth, with \
             at most 200 hosts' eyes. Payload and wire are what one host sends in peace (5 to 15 s), \"whole run\" is on the \
             wire over all 60 s. A message counts with {PACKET_BYTES} bytes for each {PAYLOAD_MAX} of its own (Ethernet, IP, \
             TCP with time stamps: 66; Noise and Yamux: 30), and again each time it is sent again; pure acknowledgements and \
             heartbeats of the ledger are not in it. A lost packet is sent again after 200 ms, then 400 ms, and so \
             on, and what follows on the stream waits.\n\nThe cores are those of the program. Shared between all hosts of a \
             run, and therefore not in its memory and CPU as often as there are hosts, are: the table of members, each \
             presence, and each statement with the verification of its signature.\n"
        );
        out
    }

    /// A plot: detection and traffic against size, a line for each loss.
    pub fn to_svg(&self) -> String {
        plot::svg(self)
    }
}

fn words(detection: &Detection) -> String {
    let Detection { median_s, p99_s, all_s, missed } = detection;
    let missed = if *missed > 0 { format!(", {missed} pairs never") } else { String::new() };
    format!("{median_s:.2} / {p99_s:.2} / {all_s:.2} s{missed}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_is_known_to_all_and_nobody_else_is_taken_for_dead() {
        let figures = figures(&[6, 30], &[0, 5], 1);
        for row in &figures.rows {
            assert_eq!((row.false_downs, row.crash.missed, row.power_off.missed), (0, 0, 0), "{row:?}");
            assert!(row.crash.all_s < 10.0 && row.power_off.all_s < 15.0, "{row:?}");
            assert!(row.crash.median_s > 0.3, "a death that is known before anybody could know: {row:?}");
            assert!(row.right_percent > 99.99, "{row:?}");
            assert!(row.payload > 10.0 && row.wire > row.payload, "{row:?}");
        }
        let (table, plot) = (figures.to_markdown(), figures.to_svg());
        assert!(table.contains("| 30 | 5 % |"), "{table}");
        assert!(plot.starts_with("<svg") && plot.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn the_same_seed_gives_the_same_figures() {
        let run = || {
            let mut crowd = Crowd::new(30, 25, 9);
            crowd.run_until(5 * SECOND);
            crowd.kill(2, Death::PowerOff);
            crowd.run_until(12 * SECOND);
            (crowd.counts.payload, crowd.counts.messages, crowd.counts.detected.clone())
        };
        assert_eq!(run(), run());
    }
}

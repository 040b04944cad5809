//! Measures one row: meshes in which hosts die, one in peace, one that starts with nobody known.
//!
//! It knows no table and no goal; the numbers go back to [`super::Figures`].

#[cfg(test)]
use super::Figures;
use super::crowd::{Counts, Crowd, Death};
use super::{Detection, Row, SECOND};
use crate::det;
use std::time::Duration;

/// Traffic and accusations are counted from here on, when first probes are over.
const CALM: u64 = 5 * SECOND;
/// When hosts die in a life, and when it ends.
#[derive(Clone, Copy)]
struct Schedule {
    crash: u64,
    /// `None`: nobody's power goes.
    power_off: Option<u64>,
    end: u64,
}

const SCHEDULE: Schedule = Schedule { crash: 15 * SECOND, power_off: Some(35 * SECOND), end: 60 * SECOND };
/// For a mesh with so many words about false accusations that a minute of them fits no machine.
const SHORT: Schedule = Schedule { crash: 8 * SECOND, power_off: None, end: 24 * SECOND };
/// Loss, in percent, above which that is so beyond [`Effort::whole_max`].
const MUCH: u32 = 10;
/// A cold start that takes longer has failed.
const COLD_MAX: u64 = 120 * SECOND;
/// Hosts that end in each way: one of a hundred, but enough to say something and few enough to call it a fault.
const DEATHS_MAX: usize = 10;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Deaths of each kind that a small mesh has to see, one a life.
    pub deaths: u64,
    /// Host minutes for which those lives may go on together: larger meshes live fewer lives, at least one.
    pub host_minutes: u64,
    /// Length of the life in peace, in seconds.
    pub peace_s: u64,
    /// Meshes beyond this size have no life in peace of their own and no cold start.
    pub whole_max: usize,
}

impl Effort {
    /// For the shipped table.
    pub const FULL: Effort = Effort { deaths: 40, host_minutes: 2_000, peace_s: 600, whole_max: 1_000 };
    /// For tests.
    pub const SMALL: Effort = Effort { deaths: 3, host_minutes: 60, peace_s: 60, whole_max: 100 };
}

/// Simulates each size under each loss.
#[cfg(test)]
pub fn figures(sizes: &[usize], losses: &[u32], seed: u64, effort: Effort) -> Figures {
    let rows = sizes.iter().flat_map(|hosts| losses.iter().map(|loss| row(*hosts, *loss, seed, effort)));
    Figures { rows: rows.collect(), seed }
}

/// Simulates one size under one loss.
pub fn row(hosts: usize, loss: u32, seed: u64, effort: Effort) -> Row {
    forget_peak();
    let cpu = det::cpu_time();
    let lives = effort.deaths.min(effort.host_minutes / hosts as u64).max(1);
    let deaths = (hosts / 100).clamp(1, DEATHS_MAX);
    let (mut all, mut peace) = (Counts::default(), Counts::default());
    let (mut right, mut known) = (0.0, [vec![], vec![]]);
    let mut missed = [0, 0];
    let mut peace_us = 0;
    let whole = hosts <= effort.whole_max;
    let Schedule { crash, power_off, end } = if whole || loss <= MUCH { SCHEDULE } else { SHORT };
    for life in 0..lives {
        let mut crowd = Crowd::new(hosts, loss, seed ^ life << 32);
        crowd.run_until(CALM);
        let before = crowd.counts.clone();
        crowd.run_until(crash);
        add(&mut peace, &crowd.counts);
        take(&mut peace, &before);
        peace_us += crash - CALM;
        crowd.kill(deaths, Death::Crash);
        if let Some(power_off) = power_off {
            crowd.run_until(power_off);
            crowd.kill(deaths, Death::PowerOff);
        }
        crowd.run_until(end);
        right += crowd.right_percent() / lives as f64;
        for ((death, _), times) in &crowd.counts.detected {
            // Who lived until the end has to know; who died later may have known.
            let lived = times.iter().filter(|(host, _)| crowd.lives(**host));
            let (known, missed) = match death {
                Death::Crash => (&mut known[0], &mut missed[0]),
                Death::PowerOff => (&mut known[1], &mut missed[1]),
            };
            *missed += (crowd.living() - lived.clone().count()) as u64;
            known.extend(lived.map(|(_, at)| *at).max());
        }
        add(&mut all, &crowd.counts);
    }
    let mut watched_us = end * lives;
    let mut simulated_us = watched_us;
    let mut accusations = all.false_accusations;
    let mut downs = all.false_downs;
    if whole {
        let mut crowd = Crowd::new(hosts, loss, seed ^ 0xca1a);
        crowd.run_until(CALM);
        let before = crowd.counts.clone();
        crowd.run_until(CALM + effort.peace_s * SECOND);
        add(&mut peace, &crowd.counts);
        take(&mut peace, &before);
        peace_us += effort.peace_s * SECOND;
        watched_us += crowd.now();
        simulated_us += crowd.now();
        accusations += crowd.counts.false_accusations;
        downs += crowd.counts.false_downs;
    }
    let converged_s = whole.then(|| {
        let mut crowd = Crowd::cold(hosts, loss, seed ^ 0xc01d);
        let met = crowd.run_until_met(COLD_MAX);
        simulated_us += crowd.now();
        met.map_or(f64::INFINITY, |us| us as f64 / SECOND as f64)
    });
    let per_host = |amount: u64, us: u64| amount as f64 / hosts as f64 / (us as f64 / SECOND as f64);
    let [crash, power_off] = known;
    Row {
        hosts,
        loss,
        crash: detection(crash, missed[0]),
        power_off: detection(power_off, missed[1]),
        converged_s,
        false_accusations: per_host(accusations, watched_us) * 3_600.0,
        false_downs: downs,
        watched: Duration::from_micros(watched_us),
        right_percent: right,
        payload: per_host(peace.payload, peace_us),
        wire: per_host(peace.wire, peace_us),
        wire_deaths: per_host(all.wire, end * lives),
        kinds: peace.kinds.iter().map(|(k, (n, b))| (*k, (per_host(*n, peace_us), per_host(*b, peace_us)))).collect(),
        simulated: Duration::from_micros(simulated_us),
        cpu: det::cpu_time().saturating_sub(cpu),
        peak_mib: peak_mib(),
    }
}

fn add(to: &mut Counts, counts: &Counts) {
    to.payload += counts.payload;
    to.wire += counts.wire;
    to.false_accusations += counts.false_accusations;
    to.false_downs += counts.false_downs;
    for (kind, (messages, bytes)) in &counts.kinds {
        let sum = to.kinds.entry(*kind).or_default();
        *sum = (sum.0 + messages, sum.1 + bytes);
    }
}

/// Traffic only.
fn take(from: &mut Counts, counts: &Counts) {
    from.payload -= counts.payload;
    from.wire -= counts.wire;
    for (kind, (messages, bytes)) in &counts.kinds {
        let sum = from.kinds.entry(*kind).or_default();
        *sum = (sum.0 - messages, sum.1 - bytes);
    }
}

fn detection(mut times: Vec<u64>, missed: u64) -> Detection {
    times.sort_unstable();
    let at = |part: f64| {
        let index = ((times.len() as f64 * part).ceil() as usize).clamp(1, times.len().max(1)) - 1;
        times.get(index).map_or(f64::NAN, |us| *us as f64 / SECOND as f64)
    };
    Detection { deaths: times.len(), median_s: at(0.5), p99_s: at(0.99), missed }
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

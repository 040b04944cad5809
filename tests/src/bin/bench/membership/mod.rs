//! Membership beside Serf's, on the same hosts of the same lab: real processes in network namespaces on one switch.
//!
//! For each size and each of the two: all join at once; one host after the other is killed, then loses its power, and
//! it is written down when the last of the others has said so in its log; then nothing happens for a while, and what
//! each host sends and uses is counted; then a quarter of all packets is lost, and nobody may be taken for dead. The
//! figures go to a file each, and [`table`] makes the report of what files there are.

mod mesh;
mod serf;
mod swarm;
mod table;

use crate::usage::{Yardstick, cpu_s, rss_mib, sent};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};
use swarm::{NETWORK, Swarm, fleet, hosts};
use tests::lab::{Lab, Wires};
use tests::wait_for;

/// Longer than any of the two takes at 30 hosts on a busy machine; a death that is not known by then counts as this.
const DEATH_WITHIN: Duration = Duration::from_secs(60);
/// The same for joining, and for coming back.
const TOGETHER_WITHIN: Duration = Duration::from_secs(300);
/// After somebody has come back: what that made others say is not the next death's.
const SETTLES: Duration = Duration::from_secs(5);
/// Before idleness is counted.
const CALMS: Duration = Duration::from_secs(20);
/// For how long it is.
const IDLE: Duration = Duration::from_secs(60);

/// What one run has measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Figures {
    pub swarm: String,
    pub hosts: usize,
    pub repeats: usize,
    pub load: String,
    /// From the first word until all see all.
    pub join_s: f64,
    /// From a death until all others have said so.
    pub killed_s: Vec<f64>,
    pub powered_off_s: Vec<f64>,
    pub idle: Vec<Idle>,
    /// What a [`Yardstick`] took meanwhile, % of a core. None in figures of before there was one.
    #[serde(default)]
    pub yardstick_percent: Option<f64>,
    pub lossy: Option<Lossy>,
}

/// One host with nothing to do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Idle {
    pub host: String,
    /// `leader`, `voter`, `other`.
    pub role: String,
    pub sent_bytes_s: f64,
    pub sent_packets_s: f64,
    pub cpu_percent: f64,
    pub memory_mib: f64,
}

/// Some minutes of loss.
#[derive(Debug, Serialize, Deserialize)]
pub struct Lossy {
    pub minutes: f64,
    pub percent: u32,
    /// Pairs of a host and another that it took for dead.
    pub downs: usize,
    pub sent_bytes_s: f64,
}

struct Wanted {
    repeats: usize,
    idle: bool,
    loss_minutes: f64,
}

/// `run SWARM HOSTS REPEATS LOSS_MINUTES FOLDER`, or `table FOLDER`. `None` for words that make no sense.
pub fn run(words: &[&str]) -> Option<()> {
    match *words {
        ["run", swarm, hosts, repeats, loss_minutes, folder] => {
            let hosts = hosts.parse().ok().filter(|n| (2..=200).contains(n))?;
            let wanted =
                Wanted { repeats: repeats.parse().ok()?, idle: true, loss_minutes: loss_minutes.parse().ok()? };
            let figures = match swarm {
                "mesh" => measure(mesh::Mesh, hosts, &wanted),
                "serf" => measure(serf::Serf::default(), hosts, &wanted),
                _ => return None,
            };
            let text = serde_json::to_string_pretty(&figures).expect("figures are JSON");
            fs::write(Path::new(folder).join(format!("{swarm}-{hosts:04}.json")), text).expect("written");
        }
        ["table", folder] => print!("{}", table::table(&table::read(Path::new(folder)))),
        _ => return None,
    }
    Some(())
}

fn measure(mut swarm: impl Swarm, n: usize, wanted: &Wanted) -> Figures {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    let name = format!("b{}-{n}", std::process::id());
    let mut lab = Lab::up(&name, &fleet(n), Wires::Here).expect("a lab");
    let begun = Instant::now();
    swarm.found(&lab);
    together(&swarm, &lab, None);
    let join_s = begun.elapsed().as_secs_f64();
    eprintln!("{} of {n}: all see all after {join_s:.1} s", swarm.name());
    let mut figures = Figures {
        swarm: swarm.name().into(),
        hosts: n,
        repeats: wanted.repeats,
        load,
        join_s,
        killed_s: vec![],
        powered_off_s: vec![],
        idle: vec![],
        yardstick_percent: None,
        lossy: None,
    };
    std::thread::sleep(SETTLES);
    for number in 0..wanted.repeats {
        // Everybody's turn comes, whatever it does for the others.
        let victim = format!("h{}", 1 + (number * 7 + 1) % n);
        figures.killed_s.push(death(&mut swarm, &mut lab, &victim, false));
        figures.powered_off_s.push(death(&mut swarm, &mut lab, &victim, true));
    }
    if wanted.idle {
        std::thread::sleep(CALMS);
        let yardstick = Yardstick::start();
        figures.idle = idle(&swarm, &lab);
        figures.yardstick_percent = Some(yardstick.stop());
    }
    if wanted.loss_minutes > 0.0 {
        figures.lossy = Some(lossy(&swarm, &mut lab, wanted.loss_minutes));
    }
    figures
}

/// Waits until everybody but this one sees all that there are.
fn together(swarm: &impl Swarm, lab: &Lab, but: Option<&str>) {
    let all = hosts(lab);
    let n = all.len() - usize::from(but.is_some());
    for host in all.iter().filter(|h| Some(h.as_str()) != but) {
        let sees = || (swarm.alive(lab, host) == n).then_some(());
        wait_for(TOGETHER_WITHIN, sees)
            .unwrap_or_else(|| panic!("{host} sees {} of {n}\n{}", swarm.alive(lab, host), swarm.log_tail(lab, host)));
    }
}

/// Ends one host, and brings it back. Seconds until all others had said that it is gone.
fn death(swarm: &mut impl Swarm, lab: &mut Lab, victim: &str, power: bool) -> f64 {
    let begun = SystemTime::now();
    match power {
        true => lab.power_off(victim).expect("power off"),
        false => swarm.processes(lab, victim).into_iter().for_each(|pid| tests::daemon::signal(pid, libc::SIGKILL)),
    }
    let others: Vec<String> = hosts(lab).into_iter().filter(|h| h != victim).collect();
    let known = |host: &String| swarm.down_at(lab, host, victim, begun);
    wait_for(DEATH_WITHIN, || others.iter().all(|host| known(host).is_some()).then_some(()));
    let last = others.iter().map(|host| known(host).map_or(DEATH_WITHIN, |at| since(at, begun))).max();
    let took = last.unwrap_or_default().as_secs_f64();
    eprintln!("{}: {victim} {} known by all after {took:.2} s", swarm.name(), if power { "off" } else { "killed" });
    if power {
        lab.boot(victim).expect("boot");
    }
    swarm.start(lab, victim);
    together(swarm, lab, None);
    std::thread::sleep(SETTLES);
    took
}

fn since(at: SystemTime, begun: SystemTime) -> Duration {
    at.duration_since(begun).unwrap_or_default()
}

/// Bytes and packets sent, CPU seconds used, and when that was read.
type Count = ((u64, u64), f64, Instant);

fn idle(swarm: &impl Swarm, lab: &Lab) -> Vec<Idle> {
    let hosts = hosts(lab);
    let pid = |host: &String| *swarm.processes(lab, host).first().unwrap_or_else(|| panic!("{host} has no process"));
    let count = || -> Vec<Count> {
        hosts.iter().map(|host| (sent(lab, host, NETWORK), cpu_s(pid(host)), Instant::now())).collect()
    };
    let before = count();
    std::thread::sleep(IDLE);
    let after = count();
    let one = |(host, (before, after)): (&String, (&Count, &Count))| {
        let took_s = after.2.duration_since(before.2).as_secs_f64();
        Idle {
            host: host.clone(),
            role: swarm.role(lab, host).into(),
            sent_bytes_s: (after.0.0 - before.0.0) as f64 / took_s,
            sent_packets_s: (after.0.1 - before.0.1) as f64 / took_s,
            cpu_percent: 100.0 * (after.1 - before.1) / took_s,
            memory_mib: rss_mib(pid(host)),
        }
    };
    hosts.iter().zip(before.iter().zip(&after)).map(one).collect()
}

fn lossy(swarm: &impl Swarm, lab: &mut Lab, minutes: f64) -> Lossy {
    const PERCENT: u32 = 25;
    let all = hosts(lab);
    let total = |lab: &Lab| -> u64 { all.iter().map(|host| sent(lab, host, NETWORK).0).sum() };
    lab.loss(NETWORK, PERCENT * 10).expect("loss");
    let (begun, before) = (SystemTime::now(), total(lab));
    std::thread::sleep(Duration::from_secs_f64(minutes * 60.0));
    let pairs = all.iter().flat_map(|at| all.iter().map(move |of| (at, of))).filter(|(at, of)| at != of);
    let downs: Vec<(&String, &String)> = pairs.filter(|(at, of)| swarm.down_at(lab, at, of, begun).is_some()).collect();
    for (at, of) in &downs {
        eprintln!("{}: {at} took {of} for dead, which lives", swarm.name());
    }
    let sent_bytes_s = (total(lab) - before) as f64 / (minutes * 60.0) / all.len() as f64;
    lab.mend_all().expect("mended");
    Lossy { minutes, percent: PERCENT, downs: downs.len(), sent_bytes_s }
}

//! What a process has used, and what a host has sent, as its kernel counts it.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tests::lab::Lab;

/// A yardstick wakes so often.
const YARD_EVERY: Duration = Duration::from_millis(50);
/// And reads so much memory each time.
const YARD_BYTES: usize = 256 << 10;
/// A byte of each so many is enough to have all of it read.
const CACHE_LINE: usize = 64;

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

/// What the machine makes of the least that an idle program can do: a thread that wakes twenty times a second and reads
/// 256 KiB of its own. On a machine whose caches others use as well that costs several times as much as on a quiet one,
/// and so does everything that mostly sleeps.
pub struct Yardstick {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<f64>,
}

impl Yardstick {
    pub fn start() -> Yardstick {
        let ends = Arc::new(AtomicBool::new(false));
        let seen = ends.clone();
        let thread = std::thread::spawn(move || {
            let memory = vec![1_u8; YARD_BYTES];
            let (begun, before) = (Instant::now(), thread_cpu());
            while !seen.load(Ordering::Relaxed) {
                std::thread::sleep(YARD_EVERY); // what is measured is the waking from it
                std::hint::black_box(memory.iter().step_by(CACHE_LINE).map(|byte| u64::from(*byte)).sum::<u64>());
            }
            100.0 * (thread_cpu() - before).as_secs_f64() / begun.elapsed().as_secs_f64()
        });
        Yardstick { ends, thread }
    }

    /// Per cent of a core.
    pub fn stop(self) -> f64 {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().expect("it only sleeps and reads")
    }
}

/// What this thread has used of a processor.
fn thread_cpu() -> Duration {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `at` is a valid timespec that outlives the call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut at) } != 0;
    assert!(!failed, "Linux counts each thread's time");
    Duration::new(at.tv_sec as u64, at.tv_nsec as u32)
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

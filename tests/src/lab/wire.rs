//! A wire in user space that takes time, or carries no more than so much: two TAP devices, and what goes in at one comes
//! out at the other later. For kernels without netem. It loses nothing of its own but what would wait too long for its
//! turn and what the far end cannot take, and keeps the order.
//!
//! A wire ends by itself when either device is removed, and both go when it ends.

use super::command::{Done, Trouble, path};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Frames on their way in one direction. More than a second of a gigabit in small frames is nobody's lab.
const FRAMES_MAX: usize = 65_536;
/// Linux's largest frame on a device without segmentation offload, and room for its head.
const FRAME_BYTES_MAX: usize = 65_600;
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;

/// What waits longer for its turn on a wire of limited rate is lost, as it is in a router: TCP slows down by that.
const TURN_MAX: Duration = Duration::from_millis(50);

/// Where a wire runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends {
    /// A namespace and the name of the device there.
    pub one: (String, String),
    /// The other end.
    pub other: (String, String),
    /// What each frame takes.
    pub delay: Duration,
    /// What it carries in each direction; no limit when there is none.
    pub bits_per_s: Option<u64>,
}

/// One direction.
struct Lane {
    waiting: VecDeque<(Instant, Vec<u8>)>,
    delay: Duration,
    bits_per_s: Option<u64>,
    /// When the last frame that it has taken is on its way.
    free: Instant,
}

impl Lane {
    fn new(ends: &Ends) -> Lane {
        Lane { waiting: VecDeque::new(), delay: ends.delay, bits_per_s: ends.bits_per_s, free: Instant::now() }
    }

    fn put(&mut self, frame: &[u8], now: Instant) {
        let turn = self.free.max(now);
        if self.waiting.len() >= FRAMES_MAX || turn - now > TURN_MAX {
            return;
        }
        let takes = self.bits_per_s.map_or(0, |rate| frame.len() as u64 * 8 * 1_000_000_000 / rate.max(1));
        self.free = turn + Duration::from_nanos(takes);
        self.waiting.push_back((self.free + self.delay, frame.to_vec()));
    }
}

/// Makes both devices and passes frames until one of them is gone. `ready` hears when both are there.
///
/// # Errors
/// A device cannot be made.
pub fn run(ends: &Ends, ready: &mpsc::Sender<Done>) -> Done {
    let made = tap(&ends.one).and_then(|one| Ok((one, tap(&ends.other)?)));
    let (mut one, mut other) = match made {
        Ok(made) => made,
        Err(trouble) => {
            let _ = ready.send(Err(Trouble(trouble.0.clone())));
            return Err(trouble);
        }
    };
    let _ = ready.send(Ok(()));
    relay(&mut one, &mut other, Lane::new(ends), Lane::new(ends));
    Ok(())
}

/// Starts a wire on a thread of its own and waits until both devices are there.
///
/// # Errors
/// As [`run`].
pub fn start(ends: Ends) -> Done {
    let (tell, told) = mpsc::channel();
    std::thread::Builder::new().name("wire".into()).spawn(move || {
        let _ = run(&ends, &tell);
    })?;
    told.recv().unwrap_or_else(|_| Err(Trouble("a wire ended before it stood".into())))
}

/// A TAP device in a namespace. The calling thread stays there: it is a wire's own.
fn tap((namespace, name): &(String, String)) -> Done<File> {
    let about = |what: &str, e: &dyn std::fmt::Display| Trouble(format!("wire {namespace}/{name}: {what}: {e}"));
    let there = File::open(path(namespace)).map_err(|e| about("namespace", &e))?;
    nix::sched::setns(there, nix::sched::CloneFlags::CLONE_NEWNET).map_err(|e| about("setns", &e))?;
    // SAFETY: the path is a C string; the descriptor is checked, and owned from here on.
    let device = unsafe {
        match libc::open(c"/dev/net/tun".as_ptr(), libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC) {
            -1 => return Err(about("/dev/net/tun", &std::io::Error::last_os_error())),
            fd => OwnedFd::from_raw_fd(fd),
        }
    };
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the kernel reads and writes one ifreq, which outlives the call.
    match unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF, &raw mut request) } {
        -1 => Err(about("TUNSETIFF", &std::io::Error::last_os_error())),
        _ => Ok(File::from(device)),
    }
}

fn relay(one: &mut File, other: &mut File, mut there: Lane, mut back: Lane) {
    loop {
        let next = [&there, &back].into_iter().filter_map(|lane| lane.waiting.front()).map(|(due, _)| *due).min();
        let Some((first, second)) = wait(one, other, next) else { return };
        if (first && !take(one, &mut there)) || (second && !take(other, &mut back)) {
            return;
        }
        if !give(other, &mut there) || !give(one, &mut back) {
            return;
        }
    }
}

/// Waits for frames or for the time; which devices have something. `None` when one is gone.
fn wait(one: &File, other: &File, until: Option<Instant>) -> Option<(bool, bool)> {
    let poll = |file: &File| libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut polled = [poll(one), poll(other)];
    let left = until.map(|due| due.saturating_duration_since(Instant::now()));
    let time = left.map(|left| libc::timespec {
        tv_sec: left.as_secs() as libc::time_t,
        tv_nsec: left.subsec_nanos() as libc::c_long,
    });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: two valid pollfds, and a timespec that outlives the call or none.
    let ready = unsafe { libc::ppoll(polled.as_mut_ptr(), 2, time, std::ptr::null()) };
    if ready < 0 && std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
        return None;
    }
    let gone = polled.iter().any(|p| p.revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0);
    // A device that is merely down says POLLERR as well; reading tells which.
    let some = |p: &libc::pollfd| ready > 0 && (p.revents & libc::POLLIN != 0 || gone);
    Some((some(&polled[0]), some(&polled[1])))
}

/// Reads what is there, as far as it can be passed on meanwhile. `false` when the device is gone.
fn take(from: &mut File, into: &mut Lane) -> bool {
    /// Frames at once: what is due goes out in between.
    const BURST: usize = 64;
    let mut frame = [0; FRAME_BYTES_MAX];
    for _ in 0..BURST {
        match from.read(&mut frame) {
            Ok(n) => into.put(&frame[..n], Instant::now()),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return true,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}

/// Writes what is due. `false` when the device is gone; one that is down loses the frame.
fn give(to: &mut File, from: &mut Lane) -> bool {
    let now = Instant::now();
    while from.waiting.front().is_some_and(|(due, _)| *due <= now) {
        let Some((_, frame)) = from.waiting.pop_front() else { break };
        if let Err(e) = to.write(&frame)
            && e.raw_os_error() == Some(libc::EBADFD)
        {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_of_limited_rate_takes_turns_and_loses_what_would_wait_too_long() {
        let end = || (String::new(), String::new());
        let ends = |bits_per_s| Ends { one: end(), other: end(), delay: Duration::from_millis(5), bits_per_s };
        let due = |bits_per_s, frames: usize| {
            let (mut lane, now) = (Lane::new(&ends(bits_per_s)), Instant::now());
            (0..frames).for_each(|_| lane.put(&[0; 1_250], now));
            let waits = lane.waiting.iter().map(|(due, _)| due.duration_since(now).as_millis());
            waits.collect::<Vec<_>>()
        };
        assert_eq!(due(None, 3), [5, 5, 5]);
        assert_eq!(due(Some(10_000_000), 3), [6, 7, 8], "a millisecond each");
        assert_eq!(due(Some(10_000_000), 200).len(), 51);
    }
}

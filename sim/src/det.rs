//! One thread's world: seeded randomness and virtual clocks underneath everything that runs on it.
//!
//! [`run`] starts a fresh thread (so that thread-local random generators and hash keys start anew) on
//! which `getrandom` and `clock_gettime` answer from a seed and from simulated time. All other threads
//! see the real thing, so that simulations run beside each other and beside ordinary tests. Reached
//! this way: `RandomState`, `rand::rng()`, getrandom 0.3 and 0.4, Noise's ephemeral keys, `Instant`,
//! `SystemTime`, CLOCK_BOOTTIME. Not reached: getrandom 0.2 and ring, which make the system call
//! themselves; that is why TCP with Noise is simulated, and QUIC is not.
//!
//! The two functions override libc's by being defined in the executable. The linker takes them from
//! this library only because [`run`] needs the same object file; whether it did is checked each time a
//! simulation starts, because one that silently ran on real randomness would be worse than none.
//!
//! This is the one file of the crate that may say `unsafe`.

use crate::current;
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The wall clock when a simulation starts, in seconds since 1970.
pub const EPOCH_S: u64 = 1_800_000_000;

/// The monotonic clocks when a simulation starts, in seconds: not zero, since real hosts have been up
/// for a while, and subtracting from a young `Instant` must not fail only here.
const UPTIME_S: u64 = 1_000_000;

/// Where a simulation takes something from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Source {
    /// From its seed and its virtual time.
    #[default]
    Simulated,
    /// From the real world: a negative control, which must change the trace.
    Real,
}

/// What is simulated; everything, by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Options {
    /// The clocks of the operating system.
    pub clock: Source,
    /// The random bytes of the operating system.
    pub randomness: Source,
}

thread_local! {
    static CLOCK: Cell<bool> = const { Cell::new(false) };
    static RANDOMNESS: Cell<bool> = const { Cell::new(false) };
    static STREAM: RefCell<Option<blake3::OutputReader>> = const { RefCell::new(None) };
    static DRAWN: Cell<u64> = const { Cell::new(0) };
    /// Time since the simulation began, as its harness last told; for code outside of any host.
    static OUTSIDE: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// What `Instant::now` gave when the simulation began.
    static START: Cell<Option<Instant>> = const { Cell::new(None) };
    static ASKING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` on a thread of its own whose randomness and clocks come from `seed`.
///
/// # Panics
/// When `work` does, and when the interposer is not part of this executable.
pub fn run<R: Send>(seed: u64, options: Options, work: impl FnOnce() -> R + Send) -> R {
    let on_thread = move || {
        let _inside = enter(seed, options);
        work()
    };
    std::thread::scope(|scope| match scope.spawn(on_thread).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Tells the clocks how far the simulation has come, for code that runs outside of its hosts. A host's
/// clock starts from here too, so that a restarted host does not go back in time.
pub fn set_elapsed(elapsed: Duration) {
    OUTSIDE.set(elapsed);
}

/// Random bytes that this thread's simulation has drawn: to find where two runs part.
pub fn random_bytes_drawn() -> u64 {
    DRAWN.get()
}

/// 32 bytes that depend on seed, label and number alone: keys of hosts and the like.
pub fn derive(seed: u64, label: &str, number: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("mesh sim 2026 derived seeds v1");
    hasher.update(&seed.to_le_bytes()).update(&number.to_le_bytes()).update(label.as_bytes());
    *hasher.finalize().as_bytes()
}

/// CPU time of this thread, past the interposer; only for reports, never for a simulation's course.
pub fn cpu_time() -> Duration {
    real_clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

struct Inside;

impl Drop for Inside {
    fn drop(&mut self) {
        CLOCK.set(false);
        RANDOMNESS.set(false);
    }
}

// Not generic and not inlined: [`run`] is compiled into other crates, and its call to this function is
// what makes the linker take this object file, and the interposer with it.
#[inline(never)]
fn enter(seed: u64, options: Options) -> Inside {
    let mut hasher = blake3::Hasher::new_derive_key("mesh sim 2026 getrandom v1");
    STREAM.set(Some(hasher.update(&seed.to_le_bytes()).finalize_xof()));
    CLOCK.set(options.clock == Source::Simulated);
    RANDOMNESS.set(options.randomness == Source::Simulated);
    START.set(Some(Instant::now()));
    let inside = Inside;
    if let Err(missing) = check(options) {
        panic!("{missing} is not simulated: this executable was linked without the functions of sim::det");
    }
    inside
}

/// Asks for a random number and for the time the way libraries do.
fn check(options: Options) -> Result<(), &'static str> {
    if options.randomness == Source::Simulated {
        let before = DRAWN.get();
        let _: u64 = rand::random();
        if DRAWN.get() == before {
            return Err("randomness");
        }
    }
    if options.clock == Source::Simulated && SystemTime::now() != UNIX_EPOCH + Duration::from_secs(EPOCH_S) {
        return Err("the clock");
    }
    Ok(())
}

/// Time since the simulation began, as the running host sees it.
fn elapsed() -> Duration {
    // tokio asks the clock of the system when its own is not paused: answer from outside then.
    if ASKING.replace(true) {
        return OUTSIDE.get();
    }
    let host = tokio::runtime::Handle::try_current().ok().and_then(|_| START.get());
    let elapsed = host.map(|start| tokio::time::Instant::now().into_std().saturating_duration_since(start));
    ASKING.set(false);
    elapsed.unwrap_or(OUTSIDE.get())
}

fn moved(time: Duration, by_ms: i64) -> Duration {
    let by = Duration::from_millis(by_ms.unsigned_abs());
    if by_ms < 0 { time.saturating_sub(by) } else { time + by }
}

#[allow(unsafe_code)]
fn real_clock(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec to a pointer that is valid for the whole call.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Replaces libc's for the whole executable; threads that are not inside [`run`] get the kernel's answer.
///
/// # Safety
/// As getrandom(2): `bytes` is valid for writing `len` bytes.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(bytes: *mut libc::c_void, len: libc::size_t, flags: libc::c_uint) -> libc::ssize_t {
    let simulated = RANDOMNESS.get()
        && STREAM.with_borrow_mut(|stream| match stream {
            // The crate getrandom probes with no bytes at a null pointer, and must succeed.
            _ if len == 0 => true,
            Some(stream) => {
                // SAFETY: the caller vouches for `len` writable bytes, and `len` is not zero here.
                stream.fill(unsafe { std::slice::from_raw_parts_mut(bytes.cast::<u8>(), len) });
                DRAWN.set(DRAWN.get() + len as u64);
                true
            }
            None => false,
        });
    if simulated {
        return len as libc::ssize_t;
    }
    // SAFETY: the same arguments as this function's own.
    unsafe { libc::syscall(libc::SYS_getrandom, bytes, len, flags) as libc::ssize_t }
}

/// Replaces libc's for the whole executable; threads that are not inside [`run`] get the kernel's answer.
///
/// # Safety
/// As clock_gettime(2): `time` is valid for writing.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    let shown = match clock {
        _ if !CLOCK.get() => None,
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => {
            let (time, offset_ms) = current::wall_time(elapsed());
            Some(moved(Duration::from_secs(EPOCH_S) + time, offset_ms))
        }
        libc::CLOCK_BOOTTIME => Some(Duration::from_secs(UPTIME_S) + current::boot_time(elapsed())),
        // tokio's timers follow this one and cannot run at a host's own rate: it is always true.
        libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_RAW | libc::CLOCK_MONOTONIC_COARSE => {
            Some(Duration::from_secs(UPTIME_S) + elapsed())
        }
        _ => None, // CPU time is real
    };
    match shown {
        Some(now) => {
            let now = libc::timespec { tv_sec: now.as_secs() as i64, tv_nsec: i64::from(now.subsec_nanos()) };
            // SAFETY: the caller vouches for the pointer.
            unsafe { time.write(now) };
            0
        }
        // SAFETY: the same arguments as this function's own.
        _ => unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int },
    }
}

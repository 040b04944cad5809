//! The host whose program runs at this moment: its clocks, whether it stands still, and how busy it is.
//!
//! A simulation is one thread, and a node asks for the time through libc, where nobody says who asks. So
//! every task of a host's program is wrapped ([`Current::wrap`], and [`spawn`] inside of it), and names
//! its host for as long as it is polled. The same wrapper lets a host stand still: its tasks are
//! then not polled at all, while packets, timers and the true time go on around it.
//!
//! Here is no network ([`crate::network`]) and no disk ([`crate::disk`]). [`crate::det`] asks [`boot_time`]
//! and [`wall_time`] for what a host's clocks show.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// A host as its tasks see it. Clones are the same host.
#[derive(Clone)]
pub struct Current(Arc<Shared>);

struct Shared {
    name: Arc<str>,
    stands: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
    polls: AtomicU64,
    sync_ms: AtomicU64,
    rate: Mutex<Rate>,
    wall_offset_ms: AtomicI64,
}

/// A clock that runs at its own rate since a moment.
#[derive(Clone, Copy, Default)]
struct Rate {
    ppm: i64,
    since: Duration,
    shown: Duration,
}

impl Rate {
    fn at(&self, elapsed: Duration) -> Duration {
        let true_us = elapsed.saturating_sub(self.since).as_micros() as i128;
        let shown_us = true_us + true_us * i128::from(self.ppm) / 1_000_000;
        // Nanoseconds of true time are kept where the rate is true.
        let rest = Duration::from_nanos(u64::from(elapsed.saturating_sub(self.since).subsec_nanos() % 1_000));
        self.shown + Duration::from_micros(shown_us.max(0) as u64) + rest
    }
}

impl Current {
    /// A host whose clocks are right.
    pub fn new(name: &str) -> Current {
        Current(Arc::new(Shared {
            name: name.into(),
            stands: AtomicBool::new(false),
            waiting: Mutex::default(),
            polls: AtomicU64::new(0),
            sync_ms: AtomicU64::new(0),
            rate: Mutex::default(),
            wall_offset_ms: AtomicI64::new(0),
        }))
    }

    /// What it is called.
    pub fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// A task of this host's program.
    pub fn wrap<F: Future>(&self, work: F) -> Task<F> {
        Task { host: self.clone(), work: Box::pin(work) }
    }

    /// Runs something as this host's program: a look at a node asks for the time, too.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        let _inside = Inside(CURRENT.replace(Some(self.clone())));
        work()
    }

    /// Lets its program stand still, or go on.
    pub fn stand_still(&self, still: bool) {
        self.0.stands.store(still, Ordering::Relaxed);
        if !still {
            let waiting = std::mem::take(&mut *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    /// Whether its program stands still.
    pub fn stands(&self) -> bool {
        self.0.stands.load(Ordering::Relaxed)
    }

    /// How often a task of it was polled: when that has not changed, nothing happened in its program.
    pub fn polls(&self) -> u64 {
        self.0.polls.load(Ordering::Relaxed)
    }

    /// From now on its clocks run so many millionths faster; `elapsed` is true time.
    pub fn set_rate(&self, ppm: i64, elapsed: Duration) {
        let mut rate = self.0.rate.lock().unwrap_or_else(PoisonError::into_inner);
        *rate = Rate { ppm, since: elapsed, shown: rate.at(elapsed) };
    }

    /// Sets its wall clock forward or back.
    pub fn jump(&self, ms: i64) {
        self.0.wall_offset_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Sets its wall clock right again; `elapsed` is true time.
    pub fn set_wall_right(&self, elapsed: Duration) {
        let shown = self.shown(elapsed).as_millis() as i64;
        self.0.wall_offset_ms.store(elapsed.as_millis() as i64 - shown, Ordering::Relaxed);
    }

    /// How far its wall clock is off, in milliseconds.
    pub fn wall_error_ms(&self, elapsed: Duration) -> i64 {
        let shown = self.shown(elapsed).as_millis() as i64;
        shown + self.0.wall_offset_ms.load(Ordering::Relaxed) - elapsed.as_millis() as i64
    }

    /// From now on each sync of its disk takes so long.
    pub fn set_sync(&self, time: Duration) {
        self.0.sync_ms.store(time.as_millis() as u64, Ordering::Relaxed);
    }

    /// Whether its clocks run at a rate of their own.
    pub fn has_a_rate(&self) -> bool {
        self.0.rate.lock().unwrap_or_else(PoisonError::into_inner).ppm != 0
    }

    /// See [`Current::set_sync`].
    pub fn sync(&self) -> Duration {
        Duration::from_millis(self.0.sync_ms.load(Ordering::Relaxed))
    }

    fn shown(&self, elapsed: Duration) -> Duration {
        self.0.rate.lock().unwrap_or_else(PoisonError::into_inner).at(elapsed)
    }
}

fn with<T>(look: impl FnOnce(&Current) -> T) -> Option<T> {
    // Clocks are asked for while a thread ends, too.
    CURRENT.try_with(|current| current.try_borrow().ok()?.as_ref().map(look)).ok().flatten()
}

/// What the running host's clock since its boot shows, `elapsed` after the simulation's begin.
pub fn boot_time(elapsed: Duration) -> Duration {
    with(|host| host.shown(elapsed)).unwrap_or(elapsed)
}

/// What the running host's wall clock shows, as time since the simulation's begin and an offset in milliseconds.
pub fn wall_time(elapsed: Duration) -> (Duration, i64) {
    with(|host| (host.shown(elapsed), host.0.wall_offset_ms.load(Ordering::Relaxed))).unwrap_or((elapsed, 0))
}

/// How long a sync of the running host's disk takes.
pub fn sync_time() -> Duration {
    with(|host| Duration::from_millis(host.0.sync_ms.load(Ordering::Relaxed))).unwrap_or_default()
}

/// The name of the host that runs.
pub fn name() -> Option<Arc<str>> {
    with(|host| host.0.name.clone())
}

/// Starts a task of the host that runs.
pub fn spawn<F: Future<Output = ()> + 'static>(work: F) {
    match with(Clone::clone) {
        Some(host) => drop(tokio::task::spawn_local(host.wrap(work))),
        None => drop(tokio::task::spawn_local(work)),
    }
}

struct Inside(Option<Current>);

impl Drop for Inside {
    fn drop(&mut self) {
        let before = self.0.take();
        // What is replaced is dropped outside of the borrow.
        let _ = CURRENT.try_with(|current| current.replace(before));
    }
}

/// A task that names its host while it is polled.
pub struct Task<F> {
    host: Current,
    work: Pin<Box<F>>,
}

impl<F: Future> Future for Task<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if this.host.stands() {
            let mut waiting = this.host.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
        this.host.0.polls.fetch_add(1, Ordering::Relaxed);
        let work = this.work.as_mut();
        this.host.enter(|| work.poll(cx))
    }
}

//! openraft's runtime: tokio, with this node's clock, this node's randomness and this node's way to
//! start tasks.
//!
//! openraft asks for time, random numbers and tasks through functions without a receiver, so the
//! [`Scope`] that answers lives in a task-local: every task that openraft starts inherits it, on
//! whichever thread it runs, and callers enter it by [`Scope::run`]. Time is CLOCK_BOOTTIME (it counts
//! sleep, `Instant` does not on Linux), asked for through libc, where the simulator replaces it. Watch
//! channels are openraft's FIFO ones: tokio's wake their waiters in a random order.

use crate::seams::Spawn;
use futures::FutureExt;
use mesh::time::Time;
use openraft_rt::{AsyncRuntime, OptionalSend};
use rand::Rng;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand_chacha::ChaCha20Rng;
use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;

/// A source of local, monotonic time that counts sleep.
pub type Clock = fn() -> Time;

/// CLOCK_BOOTTIME, through libc.
pub fn boottime() -> Time {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `at` is a valid timespec that outlives the call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut at) } != 0;
    assert!(!failed, "CLOCK_BOOTTIME is missing: Linux 2.6.39 or later is required");
    Time::from_micros(at.tv_sec as u64 * 1_000_000 + at.tv_nsec as u64 / 1_000)
}

/// What one node's openraft runs on.
#[derive(Clone)]
pub struct Scope(Arc<Inner>);

struct Inner {
    clock: Clock,
    spawn: Spawn,
    rng: Mutex<ChaCha20Rng>,
}

tokio::task_local! { static SCOPE: Scope; }

impl Scope {
    /// A scope with its own clock and its own random numbers.
    pub fn new(clock: Clock, spawn: Spawn, seed: [u8; 32]) -> Self {
        Scope(Arc::new(Inner { clock, spawn, rng: Mutex::new(ChaCha20Rng::from_seed(seed)) }))
    }

    /// Runs a future inside the scope.
    pub async fn run<F: Future>(&self, future: F) -> F::Output {
        // On the heap: openraft's futures are large.
        SCOPE.scope(self.clone(), Box::pin(future)).await
    }

    /// Runs a function inside the scope.
    pub fn enter<T>(&self, f: impl FnOnce() -> T) -> T {
        SCOPE.sync_scope(self.clone(), f)
    }

    /// The time on this node's clock.
    pub fn now(&self) -> Time {
        (self.0.clock)()
    }

    /// Starts a task inside the scope.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        (self.0.spawn)(Box::pin(SCOPE.scope(self.clone(), future)));
    }

    fn rng(&self) -> SmallRng {
        let mut rng = self.0.rng.lock().unwrap_or_else(PoisonError::into_inner);
        SmallRng::seed_from_u64(rng.next_u64())
    }

    fn current() -> Scope {
        SCOPE.with(Clone::clone)
    }
}

/// A moment on the clock of the scope that it is used in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Time);

impl Add<Duration> for Moment {
    type Output = Self;
    fn add(self, d: Duration) -> Self {
        Moment(self.0 + d)
    }
}
impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, d: Duration) {
        self.0 = self.0 + d;
    }
}
impl Sub<Duration> for Moment {
    type Output = Self;
    fn sub(self, d: Duration) -> Self {
        Moment(self.0 - d)
    }
}
impl SubAssign<Duration> for Moment {
    fn sub_assign(&mut self, d: Duration) {
        self.0 = self.0 - d;
    }
}
impl Sub for Moment {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.0.since(earlier.0)
    }
}
impl openraft_rt::Instant for Moment {
    fn now() -> Self {
        Moment(SCOPE.with(Scope::now))
    }
}

/// Sleeps until a moment of the node's clock. tokio's timers do not count the machine's sleep and may run
/// at another rate: when one fires, the clock is asked again.
pub struct Sleep {
    deadline: Time,
    scope: Scope,
    timer: Pin<Box<tokio::time::Sleep>>,
}

impl Sleep {
    /// Sleeps on the clock of `scope`.
    pub fn until(scope: Scope, deadline: Time) -> Self {
        let timer = Box::pin(tokio::time::sleep(deadline.since(scope.now())));
        Sleep { deadline, scope, timer }
    }
}

impl Future for Sleep {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        while this.timer.as_mut().poll(cx).is_ready() {
            let left = this.deadline.since(this.scope.now());
            if left.is_zero() {
                return Poll::Ready(());
            }
            this.timer.as_mut().reset(tokio::time::Instant::now() + left);
        }
        Poll::Pending
    }
}

/// The future was not ready in time.
#[derive(Debug, thiserror::Error)]
#[error("deadline has elapsed")]
pub struct Elapsed;

/// A future with a deadline.
pub struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: Sleep,
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(value) = self.future.as_mut().poll(cx) {
            return Poll::Ready(Ok(value));
        }
        Pin::new(&mut self.sleep).poll(cx).map(|()| Err(Elapsed))
    }
}

/// How a task ended without a value.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It panicked.
    #[error("task panicked: {0}")]
    Panicked(String),
    /// Its runtime went away.
    #[error("task was cancelled")]
    Cancelled,
}

/// Waits for a task's value. Dropping it leaves the task running, as with tokio's.
pub struct JoinHandle<T>(oneshot::Receiver<Result<T, JoinError>>);

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|sent| sent.unwrap_or(Err(JoinError::Cancelled)))
    }
}

/// The runtime itself. Never a value: openraft uses its functions only.
#[derive(Debug)]
pub enum NodeRuntime {}

impl AsyncRuntime for NodeRuntime {
    type JoinError = JoinError;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = Moment;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = SmallRng;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        let (tx, rx) = oneshot::channel();
        Scope::current().spawn(async move {
            let end = AssertUnwindSafe(future).catch_unwind().await.map_err(|panic| {
                let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
                JoinError::Panicked(text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default())
            });
            if let Err(error) = &end {
                tracing::error!(%error, "a task of the ledger ended badly");
            }
            tx.send(end).ok(); // nobody has to wait for it
        });
        JoinHandle(rx)
    }

    fn sleep(duration: Duration) -> Sleep {
        let scope = Scope::current();
        let deadline = scope.now() + duration;
        Sleep::until(scope, deadline)
    }
    fn sleep_until(deadline: Moment) -> Sleep {
        Sleep::until(Scope::current(), deadline.0)
    }
    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Timeout<F> {
        Timeout { future: Box::pin(future), sleep: Self::sleep(duration) }
    }
    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Moment, future: F) -> Timeout<F> {
        Timeout { future: Box::pin(future), sleep: Self::sleep_until(deadline) }
    }
    fn is_panic(error: &JoinError) -> bool {
        matches!(error, JoinError::Panicked(_))
    }
    fn thread_rng() -> SmallRng {
        SCOPE.with(Scope::rng)
    }

    type Mpsc = openraft_rt_tokio::TokioMpsc;
    type Watch = openraft_rt_sim::SimWatch;
    type Oneshot = openraft_rt_tokio::TokioOneshot;
    type Mutex<T: OptionalSend + 'static> = openraft_rt_tokio::TokioMutex<T>;

    fn new(_threads: usize) -> Self {
        unreachable!("openraft runs on the daemon's runtime and never makes one")
    }
    fn block_on<F: Future<Output = T>, T>(&mut self, _future: F) -> T {
        match *self {}
    }
}

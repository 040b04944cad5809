//! The API of `futures-timer` 3, driven by tokio's clock.
//!
//! libp2p takes all its timers (heartbeats, time-outs, keep-alives) from `futures-timer`, whose own
//! thread and clock no simulation can rule. Patched in for the whole workspace, so that the shipped
//! daemon runs on the very timers that are simulated; a published crate would get the original. It has
//! no thread and no clock of its own. Each timer that fires says so at TRACE level, which is how the
//! simulator's trace covers timers.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// What "never" is: further ahead than tokio's wheel is ever asked for.
const FAR_AHEAD: Duration = Duration::from_secs(30 * 365 * 24 * 3_600);

/// A future that completes once, after a duration, and can be started anew.
pub struct Delay {
    after: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Delay {
    /// Completes `after` from now; made outside of a runtime, from its first poll.
    pub fn new(after: Duration) -> Delay {
        let inside = tokio::runtime::Handle::try_current().is_ok();
        Delay { after, sleep: inside.then(|| Box::pin(sleep(after))) }
    }

    /// Starts anew: completes `after` from now, whether it had completed or not.
    pub fn reset(&mut self, after: Duration) {
        self.after = after;
        match &mut self.sleep {
            Some(sleep) => {
                let now = Instant::now();
                sleep.as_mut().reset(now.checked_add(after).unwrap_or(now + FAR_AHEAD));
            }
            None => *self = Delay::new(after),
        }
    }
}

impl Future for Delay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let after = self.after;
        ready!(self.sleep.get_or_insert_with(|| Box::pin(sleep(after))).as_mut().poll(cx));
        tracing::trace!(after_us = after.as_micros() as u64, "timer fired");
        Poll::Ready(())
    }
}

impl fmt::Debug for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delay").field("after", &self.after).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_hour_passes_at_once_when_time_is_paused() {
        let start = Instant::now();
        Delay::new(Duration::from_secs(3_600)).await;
        assert_eq!(start.elapsed().as_secs(), 3_600);
    }

    #[tokio::test(start_paused = true)]
    async fn reset_counts_from_now_before_and_after_it_fired() {
        let start = Instant::now();
        let mut delay = Delay::new(Duration::from_secs(5));
        tokio::time::advance(Duration::from_secs(4)).await;
        delay.reset(Duration::from_secs(5));
        (&mut delay).await;
        assert_eq!(start.elapsed().as_secs(), 9);
        delay.reset(Duration::from_secs(1));
        (&mut delay).await;
        assert_eq!(start.elapsed().as_secs(), 10);
    }

    #[test]
    fn made_outside_of_a_runtime_it_starts_at_its_first_poll() {
        let mut delay = Delay::new(Duration::from_secs(1));
        delay.reset(Duration::MAX);
        delay.reset(Duration::from_secs(2));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let start = Instant::now();
            delay.await;
            assert_eq!(start.elapsed().as_secs(), 2);
        });
    }
}

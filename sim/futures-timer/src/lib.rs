//! Simulation-only stand-in for `futures-timer`: the same one-type API, driven by tokio's clock.
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{sleep, Instant, Sleep};

pub struct Delay {
    dur: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Delay {
    pub fn new(dur: Duration) -> Delay {
        // Outside a runtime (e.g. a behaviour built early) the clock starts at the first poll.
        let sleep = tokio::runtime::Handle::try_current().ok().map(|_| Box::pin(sleep(dur)));
        Delay { dur, sleep }
    }
    pub fn reset(&mut self, dur: Duration) {
        self.dur = dur;
        match &mut self.sleep {
            Some(s) => {
                let now = Instant::now();
                let at = now.checked_add(dur).unwrap_or(now + Duration::from_secs(86400 * 365 * 30));
                s.as_mut().reset(at)
            }
            None => *self = Delay::new(dur),
        }
    }
}

impl Future for Delay {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let dur = self.dur;
        self.sleep.get_or_insert_with(|| Box::pin(sleep(dur))).as_mut().poll(cx)
    }
}

impl fmt::Debug for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delay").finish()
    }
}

//! One direction of a connection: whether what is sent arrives now, later, or never.

use super::*;

impl Leg {
    /// One end of a connection between these hosts and addresses.
    pub fn new(host: &Arc<str>, other: &Arc<str>, hops: Vec<Hop>, local: SocketAddr, remote: SocketAddr) -> Leg {
        Leg {
            host: host.clone(),
            other: other.clone(),
            hops,
            local,
            remote,
            blocked: AtomicBool::new(false),
            reset: AtomicBool::new(false),
            wakers: Mutex::default(),
        }
    }

    /// Whether nothing arrives here at the moment. The waker is called when that ends.
    pub fn is_blocked(&self, waker: &Waker) -> bool {
        let blocked = self.blocked.load(Ordering::Relaxed);
        if blocked {
            self.keep(waker);
        }
        blocked
    }

    /// Whether the connection was reset. The waker is called when that comes.
    pub fn is_reset(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }

    /// Remembers whom to wake when something about this leg changes.
    pub fn keep(&self, waker: &Waker) {
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if !wakers.iter().any(|kept| kept.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }

    pub(super) fn wake(&self) {
        let wakers = std::mem::take(&mut *self.wakers.lock().unwrap_or_else(PoisonError::into_inner));
        wakers.into_iter().for_each(Waker::wake);
    }
}

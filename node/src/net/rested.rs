//! A connection that is polled when it has asked for it, and left alone else.
//!
//! A Swarm polls a connection's multiplexer whenever anything of the connection wakes: a timer of gossip, a protocol's
//! handler. Each such poll of Yamux costs time, and makes it send a ping when the last is ten seconds old (it measures
//! round trips when it happens to be polled, whoever does it), on every connection of a mesh in which each host has
//! business with few. A multiplexer that returned [`Poll::Pending`] has to wake its task before another poll can tell
//! anything new: [`Rested`] waits for that.

use futures::task::{ArcWake, AtomicWaker, waker};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, StreamMuxerExt, SubstreamBox};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Waker};

/// What may be waited for, each by itself: to be driven, and a stream from the other side.
const DRIVE: u8 = 1;
const INBOUND: u8 = 2;

/// What has happened since the last poll of each kind, and whom to wake.
struct Bell {
    rung: AtomicU8,
    task: AtomicWaker,
}

impl Bell {
    fn ring(&self) {
        self.rung.fetch_or(DRIVE | INBOUND, Ordering::AcqRel);
    }
}

impl ArcWake for Bell {
    fn wake_by_ref(bell: &Arc<Self>) {
        bell.ring();
        bell.task.wake();
    }
}

/// See the module.
pub(crate) struct Rested {
    inner: StreamMuxerBox,
    bell: Arc<Bell>,
    waker: Waker,
}

impl Rested {
    pub(crate) fn wrap(inner: StreamMuxerBox) -> StreamMuxerBox {
        let bell = Arc::new(Bell { rung: AtomicU8::new(DRIVE | INBOUND), task: AtomicWaker::new() });
        let waker = waker(bell.clone());
        StreamMuxerBox::new(Rested { inner, bell, waker })
    }

    /// Polls for one thing if something has happened since that was last in vain.
    fn when_rung<T>(
        &mut self,
        what: u8,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut StreamMuxerBox, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.bell.task.register(cx.waker());
        if self.bell.rung.fetch_and(!what, Ordering::AcqRel) & what == 0 {
            return Poll::Pending;
        }
        let result = poll(&mut self.inner, &mut Context::from_waker(&self.waker));
        if result.is_ready() {
            self.bell.ring(); // there may be more, and a stream that is new has woken nobody yet
        }
        result
    }
}

impl StreamMuxer for Rested {
    type Substream = SubstreamBox;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<SubstreamBox>> {
        self.when_rung(INBOUND, cx, |inner, cx| inner.poll_inbound_unpin(cx))
    }

    /// Asked for when somebody wants a stream, which is something new by itself.
    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<SubstreamBox>> {
        self.bell.task.register(cx.waker());
        let Self { inner, bell, waker } = &mut *self;
        let stream = inner.poll_outbound_unpin(&mut Context::from_waker(waker));
        bell.ring();
        stream
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_close_unpin(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        self.when_rung(DRIVE, cx, |inner, cx| inner.poll_unpin(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::task::noop_waker_ref;
    use std::sync::Mutex;

    /// Counts its polls, and is woken from outside.
    #[derive(Clone, Default)]
    struct Counted(Arc<Mutex<(usize, Vec<Waker>)>>);

    impl Counted {
        fn poll_once<T>(&self, cx: &mut Context<'_>) -> Poll<T> {
            let (polls, wakers) = &mut *self.0.lock().unwrap();
            *polls += 1;
            wakers.push(cx.waker().clone());
            Poll::Pending
        }
        fn polls(&self) -> usize {
            self.0.lock().unwrap().0
        }
        fn wake(&self) {
            std::mem::take(&mut self.0.lock().unwrap().1).into_iter().for_each(Waker::wake);
        }
    }

    impl StreamMuxer for Counted {
        type Substream = SubstreamBox;
        type Error = io::Error;

        fn poll_inbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<SubstreamBox>> {
            self.poll_once(cx)
        }
        fn poll_outbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<SubstreamBox>> {
            self.poll_once(cx)
        }
        fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.poll_once(cx)
        }
        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
            self.poll_once(cx)
        }
    }

    /// A task's waker that counts.
    #[derive(Default)]
    struct Task(AtomicU8);

    impl ArcWake for Task {
        fn wake_by_ref(task: &Arc<Self>) {
            task.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_has_nothing_to_say_is_not_asked_again() {
        let counted = Counted::default();
        let mut naive = StreamMuxerBox::new(counted.clone());
        let mut cx = Context::from_waker(noop_waker_ref());
        for _ in 0..10 {
            assert!(naive.poll_unpin(&mut cx).is_pending());
        }
        assert_eq!(counted.polls(), 10, "the naive one asks each time");

        let counted = Counted::default();
        let mut rested = Rested::wrap(StreamMuxerBox::new(counted.clone()));
        let task = Arc::new(Task::default());
        let waker = waker(task.clone());
        let mut cx = Context::from_waker(&waker);
        for turn in 1..=3 {
            for _ in 0..10 {
                assert!(rested.poll_unpin(&mut cx).is_pending());
                assert!(rested.poll_inbound_unpin(&mut cx).is_pending());
            }
            assert_eq!(counted.polls(), 2 * turn, "once for each thing that is waited for");
            let woken = task.0.load(Ordering::Relaxed);
            counted.wake();
            assert!(task.0.load(Ordering::Relaxed) > woken, "the task hears of it");
        }
    }

    #[test]
    fn a_new_task_is_woken_though_it_was_not_let_in() {
        let counted = Counted::default();
        let mut rested = Rested::wrap(StreamMuxerBox::new(counted.clone()));
        assert!(rested.poll_unpin(&mut Context::from_waker(noop_waker_ref())).is_pending());
        let task = Arc::new(Task::default());
        let waker = waker(task.clone());
        assert!(rested.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(counted.polls(), 1);
        counted.wake();
        assert_eq!(task.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn whoever_wants_a_stream_always_asks_and_what_is_new_is_driven() {
        let counted = Counted::default();
        let mut rested = Rested::wrap(StreamMuxerBox::new(counted.clone()));
        let mut cx = Context::from_waker(noop_waker_ref());
        assert!(rested.poll_unpin(&mut cx).is_pending());
        for turn in 1..=3 {
            assert!(rested.poll_outbound_unpin(&mut cx).is_pending());
            assert!(rested.poll_unpin(&mut cx).is_pending());
            assert_eq!(counted.polls(), 1 + 2 * turn);
        }
    }
}

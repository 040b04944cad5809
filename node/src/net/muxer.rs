//! Small tools for a multiplexed connection outside a Swarm: drive it, open its first stream, and
//! close it without waiting for a dead peer.

use futures::FutureExt;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, StreamMuxerExt, SubstreamBox};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// How long a connection may take to close. A dead peer would hold it for minutes otherwise, and
/// with it the news that the peer is gone.
const CLOSE_DEADLINE: Duration = Duration::from_millis(500);

/// Runs `f` while giving the connection its mandatory poll: Yamux moves no bytes without it.
pub(crate) async fn drive<F: Future>(muxer: &mut StreamMuxerBox, f: F) -> F::Output {
    let mut f = pin!(f);
    let mut dead = false;
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(output) = f.as_mut().poll(cx) {
                return Poll::Ready(output);
            }
            if dead {
                return Poll::Pending;
            }
            match muxer.poll_unpin(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => dead = true, // streams of a dead connection fail by themselves
            }
        }
    })
    .await
}

/// The first stream of a connection: opened by us, or else accepted.
pub(crate) async fn first_stream(muxer: &mut StreamMuxerBox, opens: bool) -> io::Result<SubstreamBox> {
    poll_fn(|cx| {
        loop {
            let stream = if opens { muxer.poll_outbound_unpin(cx) } else { muxer.poll_inbound_unpin(cx) };
            if stream.is_ready() {
                return stream;
            }
            match muxer.poll_unpin(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
    })
    .await
}

/// A connection that closes in bounded time, whatever the other side does.
pub(crate) struct Mortal {
    inner: StreamMuxerBox,
    closing: Option<Pin<Box<Sleep>>>,
}

impl Mortal {
    pub(crate) fn wrap(inner: StreamMuxerBox) -> StreamMuxerBox {
        StreamMuxerBox::new(Mortal { inner, closing: None })
    }
}

impl StreamMuxer for Mortal {
    type Substream = SubstreamBox;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<SubstreamBox>> {
        self.inner.poll_inbound_unpin(cx)
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<SubstreamBox>> {
        self.inner.poll_outbound_unpin(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(result) = self.inner.poll_close_unpin(cx) {
            return Poll::Ready(result);
        }
        let closing = self.closing.get_or_insert_with(|| Box::pin(sleep(CLOSE_DEADLINE)));
        closing.poll_unpin(cx).map(|()| Ok(()))
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        self.inner.poll_unpin(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    /// A connection with a peer that is gone: it never closes.
    struct Dead;

    impl StreamMuxer for Dead {
        type Substream = SubstreamBox;
        type Error = io::Error;

        fn poll_inbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<SubstreamBox>> {
            Poll::Pending
        }
        fn poll_outbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<SubstreamBox>> {
            Poll::Pending
        }
        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_connection_closes_in_bounded_time() {
        let close = async |mut muxer: StreamMuxerBox| {
            timeout(Duration::from_secs(900), poll_fn(|cx| muxer.poll_close_unpin(cx))).await
        };
        assert!(matches!(close(Mortal::wrap(StreamMuxerBox::new(Dead))).await, Ok(Ok(()))));
        assert!(close(StreamMuxerBox::new(Dead)).await.is_err(), "the naive one waits for the dead");
    }
}

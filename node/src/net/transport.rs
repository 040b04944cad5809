//! The real transport: TCP with Noise and Yamux, and QUIC. Authenticated and multiplexed, and nothing
//! more: who may enter is decided by [`super::admission`], which is wrapped around whatever stands here.

use crate::seams::MakeTransport;
use futures::future::Either;
use futures::io::{AsyncRead, AsyncWrite};
use libp2p::core::Transport;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{PeerId, noise, quic, tcp, yamux};
use std::io;

/// Bytes that one QUIC connection may have under way to a reader that does not read, so that a
/// stranger who is not admitted yet cannot fill the memory with them.
const QUIC_CONNECTION_BYTES_MAX: u32 = 8 << 20;

/// The same for one of its streams.
const QUIC_STREAM_BYTES_MAX: u32 = 4 << 20;

/// Streams open at one time on a QUIC connection, each way. Yamux has 512 of its own.
const QUIC_STREAMS_MAX: u32 = 512;

/// The daemon's transport.
pub fn real() -> MakeTransport {
    Box::new(|keys| {
        let streams = tcp(keys)?;
        Ok(either(streams, quic(keys)))
    })
}

/// Two transports as one: what the first cannot dial or listen on is the second's.
pub(super) fn either(
    first: Boxed<(PeerId, StreamMuxerBox)>,
    second: Boxed<(PeerId, StreamMuxerBox)>,
) -> Boxed<(PeerId, StreamMuxerBox)> {
    first
        .or_transport(second)
        .map(|output, _| match output {
            Either::Left(pair) | Either::Right(pair) => pair,
        })
        .boxed()
}

fn tcp(keys: &Keypair) -> io::Result<Boxed<(PeerId, StreamMuxerBox)>> {
    secure(tcp::tokio::Transport::new(tcp::Config::default().nodelay(true)), keys)
}

/// Noise and Yamux over any transport of plain byte streams, real or simulated.
///
/// # Errors
/// When Noise cannot use the key.
pub fn secure<T>(bytes: T, keys: &Keypair) -> io::Result<Boxed<(PeerId, StreamMuxerBox)>>
where
    T: Transport<Error = io::Error> + Send + Unpin + 'static,
    T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T::Dial: Send,
    T::ListenerUpgrade: Send,
{
    let noise = noise::Config::new(keys).map_err(io::Error::other)?;
    Ok(bytes.map_err(Legible).upgrade(Version::V1Lazy).authenticate(noise).multiplex(yamux::Config::default()).boxed())
}

/// An error one level deeper than it was: the `Either` of libp2p's upgrades skips a level of
/// `source()`, and "connection refused" would be lost with it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Legible(#[source] io::Error);

fn quic(keys: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)> {
    let mut config = quic::Config::new(keys);
    config.max_connection_data = QUIC_CONNECTION_BYTES_MAX;
    config.max_stream_data = QUIC_STREAM_BYTES_MAX;
    config.max_concurrent_stream_limit = QUIC_STREAMS_MAX;
    quic::tokio::Transport::new(config).map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer))).boxed()
}

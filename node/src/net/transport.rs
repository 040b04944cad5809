//! The real transport: TCP with Noise and Yamux, and QUIC. Authenticated and multiplexed, and nothing
//! more: who may enter is decided by [`super::admission`], which is wrapped around whatever stands here.

use crate::seams::MakeTransport;
use futures::future::Either;
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
        let datagrams = quic(keys);
        Ok(streams
            .or_transport(datagrams)
            .map(|output, _| match output {
                Either::Left(pair) | Either::Right(pair) => pair,
            })
            .boxed())
    })
}

/// TCP alone, for hosts without UDP.
///
/// # Errors
/// When Noise cannot use the key.
fn tcp(keys: &Keypair) -> io::Result<Boxed<(PeerId, StreamMuxerBox)>> {
    let noise = noise::Config::new(keys).map_err(io::Error::other)?;
    Ok(tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux::Config::default())
        .boxed())
}

fn quic(keys: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)> {
    let mut config = quic::Config::new(keys);
    config.max_connection_data = QUIC_CONNECTION_BYTES_MAX;
    config.max_stream_data = QUIC_STREAM_BYTES_MAX;
    config.max_concurrent_stream_limit = QUIC_STREAMS_MAX;
    quic::tokio::Transport::new(config).map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer))).boxed()
}

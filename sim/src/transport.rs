//! libp2p over turmoil's TCP, with Noise and Yamux: the simulator's filling of the node's transport seam.
//!
//! Every byte passes a tap on its way into the trace, and every dial asks [`Routes`] for its way. It
//! listens on all addresses and reports the host's one; it knows `/ip4/…/tcp/…` and nothing else.

use crate::nat::{Routes, Way, connect_through};
use crate::trace::{Event, Trace};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{AsyncRead, AsyncWrite, FutureExt, StreamExt};
use libp2p::core::multiaddr::{Multiaddr, Protocol};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent};
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{PeerId, Transport, noise, yamux};
use node::seams::MakeTransport;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};
use turmoil::net::{TcpListener, TcpStream};

/// How long handshake and multiplexing may take.
const UPGRADE_MAX: Duration = Duration::from_secs(10);

/// The host that a transport is for.
#[derive(Clone)]
pub struct Place {
    /// What the trace calls it.
    pub name: Arc<str>,
    /// Its address.
    pub ip: IpAddr,
    /// How it reaches others.
    pub routes: Routes,
    /// Where its bytes are recorded.
    pub trace: Trace,
}

/// The transport seam of a host.
pub fn make(place: Place) -> MakeTransport {
    Box::new(move |keys| authenticated(place, keys))
}

fn authenticated(place: Place, keys: &Keypair) -> io::Result<Boxed<(PeerId, StreamMuxerBox)>> {
    let noise = noise::Config::new(keys).map_err(io::Error::other)?;
    let upgraded = SimTcp::new(place).upgrade(Version::V1Lazy).authenticate(noise);
    let multiplexed = upgraded.multiplex(yamux::Config::default()).timeout(UPGRADE_MAX);
    Ok(multiplexed.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(Nameless(muxer)))).boxed())
}

/// Yamux numbers its connections for the whole process and says the number in the errors of its streams.
/// Whoever logs or sends such an error would tell two runs apart, so the number is left out here.
struct Nameless<M>(M);

impl<M: StreamMuxer<Error: Into<io::Error>> + Unpin> StreamMuxer for Nameless<M>
where
    M::Substream: Unpin,
{
    type Substream = Nameless<M::Substream>;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Self::Substream>> {
        Pin::new(&mut self.0).poll_inbound(cx).map_ok(Nameless).map_err(Into::into)
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Self::Substream>> {
        Pin::new(&mut self.0).poll_outbound(cx).map_ok(Nameless).map_err(Into::into)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx).map_err(Into::into)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        Pin::new(&mut self.0).poll(cx).map_err(Into::into)
    }
}

/// An error of a stream as `{connection}/{stream}: {text}` becomes its text.
fn nameless(error: io::Error) -> io::Error {
    let text = error.to_string();
    match text.split_once(": ") {
        Some((name, text)) if name.bytes().all(|b| b.is_ascii_hexdigit() || b == b'/') => {
            io::Error::new(error.kind(), text.to_owned())
        }
        _ => error,
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Nameless<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf).map_err(nameless)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Nameless<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf).map_err(nameless)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx).map_err(nameless)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx).map_err(nameless)
    }
}

/// The socket address inside a `/ip4/…/tcp/…`, with or without a `/p2p/…` behind it.
pub fn to_socket(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(Protocol::Ip4(ip)), Some(Protocol::Tcp(port)), None | Some(Protocol::P2p(_)), None) => {
            Some(SocketAddr::new(ip.into(), port))
        }
        _ => None,
    }
}

/// The multiaddress of a socket address.
pub fn to_multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port()))
}

type Connecting = BoxFuture<'static, io::Result<Tap>>;
type Accepted = io::Result<(TcpStream, SocketAddr)>;

struct Listener {
    id: ListenerId,
    address: Multiaddr,
    accepted: BoxStream<'static, Accepted>,
}

/// Plain TCP inside turmoil, as libp2p sees a transport.
struct SimTcp {
    place: Place,
    events: VecDeque<TransportEvent<Connecting, io::Error>>,
    listeners: Vec<Listener>,
    waker: Option<Waker>,
}

impl SimTcp {
    fn new(place: Place) -> SimTcp {
        SimTcp { place, events: VecDeque::new(), listeners: vec![], waker: None }
    }

    fn announce(&mut self, event: TransportEvent<Connecting, io::Error>) {
        self.events.push_back(event);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Transport for SimTcp {
    type Output = Tap;
    type Error = io::Error;
    type ListenerUpgrade = Connecting;
    type Dial = Connecting;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        let Some(socket) = to_socket(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        // turmoil's bind is async in name only.
        let bound = TcpListener::bind(("0.0.0.0", socket.port())).now_or_never();
        let bound = bound.unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into())).map_err(TransportError::Other)?;
        let port = bound.local_addr().map_err(TransportError::Other)?.port();
        let address = to_multiaddr(SocketAddr::new(self.place.ip, port));
        self.announce(TransportEvent::NewAddress { listener_id: id, listen_addr: address.clone() });
        let accepted = futures::stream::unfold(bound, |bound| async move { Some((bound.accept().await, bound)) });
        self.listeners.push(Listener { id, address, accepted: accepted.boxed() });
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let before = self.listeners.len();
        self.listeners.retain(|listener| listener.id != id);
        let removed = self.listeners.len() < before;
        if removed {
            self.announce(TransportEvent::ListenerClosed { listener_id: id, reason: Ok(()) });
        }
        removed
    }

    fn dial(&mut self, address: Multiaddr, _: DialOpts) -> Result<Connecting, TransportError<io::Error>> {
        let Some(to) = to_socket(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let place = self.place.clone();
        let connecting = async move {
            let stream = match place.routes.way(place.ip, to.ip())? {
                Way::Direct => TcpStream::connect(to).await?,
                Way::Through(router) => connect_through(router, to).await?,
            };
            Tap::new(stream, to, &place)
        };
        Ok(connecting.boxed())
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Connecting, io::Error>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(event);
        }
        let this = &mut *self;
        for listener in &mut this.listeners {
            if let Poll::Ready(Some(accepted)) = listener.accepted.poll_next_unpin(cx) {
                let listener_id = listener.id;
                return Poll::Ready(match accepted {
                    Ok((stream, from)) => TransportEvent::Incoming {
                        listener_id,
                        local_addr: listener.address.clone(),
                        send_back_addr: to_multiaddr(from),
                        upgrade: std::future::ready(Tap::new(stream, from, &this.place)).boxed(),
                    },
                    Err(error) => TransportEvent::ListenerError { listener_id, error },
                });
            }
        }
        this.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// A stream whose bytes are recorded on their way in and out.
pub struct Tap {
    stream: Compat<TcpStream>,
    local: SocketAddr,
    remote: SocketAddr,
    name: Arc<str>,
    trace: Trace,
}

impl Tap {
    fn new(stream: TcpStream, remote: SocketAddr, place: &Place) -> io::Result<Tap> {
        let local = stream.local_addr()?;
        Ok(Tap { stream: stream.compat(), local, remote, name: place.name.clone(), trace: place.trace.clone() })
    }
}

impl AsyncRead for Tap {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if let Poll::Ready(Ok(len)) = &polled {
            let bytes = &buf[..*len]; // none at the end of the stream, which is recorded as well
            this.trace.record(&this.name, Event::Delivered { local: this.local, remote: this.remote, bytes });
        }
        polled
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(len)) = &polled {
            let bytes = &buf[..*len];
            this.trace.record(&this.name, Event::Sent { local: this.local, remote: this.remote, bytes });
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

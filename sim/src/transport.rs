//! libp2p over turmoil's TCP, with Noise and Yamux: the simulator's filling of the node's transport seam.
//!
//! Every byte passes a tap on its way into the trace, and every dial asks [`Network`] for its way. It
//! listens on all addresses that its host has at the moment; it knows `/ip4/…/tcp/…` and nothing else. The
//! first bytes of a connection are the simulator's own: they tell the far end whose it is ([`Leg`]).

use crate::network::{Leg, Network};
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
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};
use turmoil::net::{TcpListener, TcpStream};

/// How long handshake and multiplexing may take.
const UPGRADE_MAX: Duration = Duration::from_secs(10);
/// Connections whose first bytes are on their way, at one listener.
const MEETING_MAX: usize = 64;
/// After so long a lost packet is sent again: TCP's least time-out on Linux.
const RESEND_AFTER: Duration = Duration::from_millis(200);
/// Bound of the time-outs, so that loss alone ends no connection.
const RESEND_MAX: Duration = Duration::from_secs(7);

/// The host that a transport is for.
#[derive(Clone)]
pub struct Place {
    /// What it is called.
    pub name: Arc<str>,
    /// Its wire: the address of its turmoil host.
    pub wire: IpAddr,
    /// The network that it is on.
    pub network: Network,
    /// Where its bytes are recorded.
    pub trace: Trace,
}

impl Place {
    /// Adds a host to a network.
    pub fn new(name: &str, addresses: BTreeMap<String, Ipv4Addr>, network: &Network, trace: &Trace) -> Place {
        let wire = network.add(name, addresses);
        Place { name: name.into(), wire, network: network.clone(), trace: trace.clone() }
    }

    /// Where its owner's configuration says that others may be found.
    pub fn leads(&self) -> Vec<Multiaddr> {
        self.network.forwards(&self.name).into_iter().map(to_multiaddr).collect()
    }

    /// Where its node listens, if anywhere.
    pub fn port(&self) -> Option<u16> {
        self.network.listens(&self.name).then(|| self.network.port(&self.name))
    }
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

struct Listener {
    id: ListenerId,
    port: u16,
    accepted: BoxStream<'static, Tap>,
}

/// Plain TCP inside turmoil, as libp2p sees a transport.
struct SimTcp {
    place: Place,
    events: VecDeque<TransportEvent<Connecting, io::Error>>,
    listeners: Vec<Listener>,
    addresses: Vec<Ipv4Addr>,
    waker: Option<Waker>,
}

impl SimTcp {
    fn new(place: Place) -> SimTcp {
        SimTcp {
            addresses: place.network.addresses(&place.name),
            place,
            events: VecDeque::new(),
            listeners: vec![],
            waker: None,
        }
    }

    fn announce(&mut self, event: TransportEvent<Connecting, io::Error>) {
        self.events.push_back(event);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The host's addresses may have changed: listeners tell what is new and what is gone, as a real one does.
    fn readdress(&mut self, cx: &Context<'_>) {
        let Some(now) = self.place.network.readdressed(&self.place.name, &self.addresses, cx.waker()) else { return };
        let before = std::mem::replace(&mut self.addresses, now.clone());
        for Listener { id, port, .. } in &self.listeners {
            let at = |ip: Ipv4Addr| to_multiaddr(SocketAddr::new(ip.into(), *port));
            let gone = before.iter().filter(|ip| !now.contains(ip));
            let new = now.iter().filter(|ip| !before.contains(ip));
            self.events.extend(
                gone.map(|ip| TransportEvent::AddressExpired { listener_id: *id, listen_addr: at(*ip) })
                    .chain(new.map(|ip| TransportEvent::NewAddress { listener_id: *id, listen_addr: at(*ip) })),
            );
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
        for own in self.addresses.clone() {
            let listen_addr = to_multiaddr(SocketAddr::new(own.into(), port));
            self.announce(TransportEvent::NewAddress { listener_id: id, listen_addr });
        }
        let place = self.place.clone();
        let accepted = futures::stream::unfold(bound, |bound| async move { Some((bound.accept().await, bound)) });
        let met = accepted.map(move |accepted| meet(accepted, place.clone())).buffer_unordered(MEETING_MAX);
        // One that ends before it has said whose it is was never a connection.
        let met = met.filter_map(|met| std::future::ready(met.ok()));
        self.listeners.push(Listener { id, port, accepted: met.boxed() });
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
            let way = place.network.dial(&place.name, to).await?;
            let mut stream = TcpStream::connect(way.wire).await?;
            let number = place.network.introduce(&place.name, &way, to);
            stream.write_u64(number).await?;
            let local = SocketAddr::new(way.source.into(), stream.local_addr()?.port());
            let leg = Leg::new(&place.name, &way.to, way.hops.clone(), local, to);
            Ok(Tap::new(stream, place.network.stands(leg), &place))
        };
        Ok(connecting.boxed())
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Connecting, io::Error>> {
        self.readdress(cx);
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(event);
        }
        let this = &mut *self;
        for listener in &mut this.listeners {
            if let Poll::Ready(Some(tap)) = listener.accepted.poll_next_unpin(cx) {
                return Poll::Ready(TransportEvent::Incoming {
                    listener_id: listener.id,
                    local_addr: to_multiaddr(tap.leg.local),
                    send_back_addr: to_multiaddr(tap.leg.remote),
                    upgrade: std::future::ready(Ok(tap)).boxed(),
                });
            }
        }
        this.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Learns between which hosts and addresses an accepted connection is.
async fn meet(accepted: io::Result<(TcpStream, SocketAddr)>, place: Place) -> io::Result<Tap> {
    let (mut stream, from) = accepted?;
    let number = stream.read_u64().await?;
    let leg = place.network.accept(number, from.port()).ok_or(io::ErrorKind::ConnectionReset)?;
    Ok(Tap::new(stream, leg, &place))
}

/// A stream whose bytes are recorded on their way in and out, and which the network can hold up or reset.
pub struct Tap {
    stream: Compat<TcpStream>,
    leg: Arc<Leg>,
    network: Network,
    trace: Trace,
    /// A lost packet is sent again then.
    again: Option<Pin<Box<tokio::time::Sleep>>>,
    /// Whether the next packet has had its chance to be lost.
    drawn: bool,
}

impl Tap {
    fn new(stream: TcpStream, leg: Arc<Leg>, place: &Place) -> Tap {
        let (network, trace) = (place.network.clone(), place.trace.clone());
        Tap { stream: stream.compat(), leg, network, trace, again: None, drawn: false }
    }

    fn check(&self) -> io::Result<()> {
        match self.leg.is_reset() {
            true => Err(io::ErrorKind::ConnectionReset.into()),
            false => Ok(()),
        }
    }

    /// Waits until the next packet gets through: each loss costs a time-out, twice as long as the one before.
    fn poll_lossy(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let percent = self.network.loss_percent();
        if self.again.is_none() && !self.drawn && percent > 0 {
            let mut late = Duration::ZERO;
            let mut timeout = RESEND_AFTER;
            while rand::random_range(0..100) < percent && timeout < RESEND_MAX {
                late += timeout;
                timeout *= 2;
            }
            if !late.is_zero() {
                self.again = Some(Box::pin(tokio::time::sleep(late)));
            }
            self.drawn = true;
        }
        if let Some(again) = &mut self.again {
            std::task::ready!(again.as_mut().poll(cx));
            self.again = None;
        }
        Poll::Ready(())
    }

    /// An error that a cut keeps from arriving is no news yet.
    fn held(&self, error: io::Error, cx: &Context<'_>) -> Poll<io::Error> {
        match self.leg.is_blocked(cx.waker()) {
            true => Poll::Pending,
            false => Poll::Ready(error),
        }
    }
}

impl AsyncRead for Tap {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.check()?;
        if this.leg.is_blocked(cx.waker()) {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        match &polled {
            Poll::Ready(Ok(len)) => {
                let bytes = &buf[..*len]; // none at the end of the stream, which is recorded as well
                let Leg { local, remote, .. } = *this.leg;
                this.trace.record(&this.leg.host, Event::Delivered { local, remote, bytes });
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => this.leg.keep(cx.waker()),
        }
        polled
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.check()?;
        std::task::ready!(this.poll_lossy(cx));
        let polled = Pin::new(&mut this.stream).poll_write(cx, buf);
        match polled {
            Poll::Ready(Ok(len)) => {
                this.drawn = false;
                let bytes = &buf[..len];
                let Leg { local, remote, .. } = *this.leg;
                this.trace.record(&this.leg.host, Event::Sent { local, remote, bytes });
                Poll::Ready(Ok(len))
            }
            Poll::Ready(Err(error)) => this.held(error, cx).map(Err),
            Poll::Pending => {
                this.leg.keep(cx.waker());
                Poll::Pending
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

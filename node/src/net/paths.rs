//! Several connections with one peer: which of them a stream takes, and which may go.
//!
//! Direct before relayed, TCP before QUIC (which costs twice as much at rest, and ends without a word); among equals the
//! one whose dialler has the smaller key, then the oldest: both ends choose alike without a word. Blobs take the last of the direct ones and everything else the first, so that a
//! large transfer holds up nothing that somebody waits for. One on which a peer has fallen silent comes after all others
//! as soon as a younger one stands, and goes soon after. A connection that is not the first goes when it is not
//! needed: a relayed one once a direct one has stood for a moment and no log or blob is on its way over it (what
//! stands on it for ever, such as consensus, opens anew on the direct one), a direct one when it lies idle, or when
//! nothing is on it but what stands for ever: two that dialled each other at once have one connection in the end.
//! Nothing here dials; the Swarm's task does what these tables ask for.

use super::Connection;
use super::streams::Protocol;
use futures::io::{AsyncRead, AsyncWrite};
use libp2p::swarm::ConnectionId;
use mesh::identity::PeerKey;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A direct connection that has stood for so long is trusted with what the relay carried.
pub(super) const SETTLE: Duration = Duration::from_secs(2);

/// A connection on which the peer is silent may take so long to show that it only stood still, before what would lose
/// something is torn from it.
pub(super) const GIVE_UP: Duration = Duration::from_secs(10);

/// A spare connection without streams for so long is closed by whoever dialled it.
pub(super) const IDLE: Duration = Duration::from_secs(60);

/// So is one that for so long had no stream but those that open anew elsewhere.
pub(super) const STRANDED: Duration = Duration::from_secs(10);

/// How a peer is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// On a connection of our own.
    Direct,
    /// Over a circuit; the relay, when it is known.
    Relayed(Option<PeerKey>),
}

/// The streams of one connection, of both ends: each stream has an end here.
pub(super) struct Usage {
    counts: Mutex<Counts>,
    /// The connection is no more. Yamux wakes nobody who reads when it is dropped in the middle of its farewell to a peer
    /// that does not answer: the reader would wait until its own patience ends.
    gone: CancellationToken,
}

struct Counts {
    open: usize,
    /// Of these, streams that would lose something if they broke.
    pinned: usize,
    /// When the last stream began or ended.
    changed: Instant,
}

impl Usage {
    pub(super) fn new() -> Arc<Self> {
        let counts = Mutex::new(Counts { open: 0, pinned: 0, changed: Instant::now() });
        Arc::new(Usage { counts, gone: CancellationToken::new() })
    }

    /// The connection has ended, and with it what waits on its streams.
    pub(super) fn end(&self) {
        self.gone.cancel();
    }

    /// Counts a stream until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>, protocol: Protocol) -> Using {
        let pinned = matches!(protocol, Protocol::Logs | Protocol::Blobs);
        let mut counts = super::lock(&self.counts);
        counts.open += 1;
        counts.pinned += usize::from(pinned);
        counts.changed = Instant::now();
        drop(counts);
        Using { usage: Arc::clone(self), pinned }
    }

    fn is_pinned(&self) -> bool {
        super::lock(&self.counts).pinned > 0
    }

    /// Nobody needs this connection, where there is another.
    fn is_idle(&self, now: Instant) -> bool {
        let counts = super::lock(&self.counts);
        let after = if counts.open == 0 { IDLE } else { STRANDED };
        counts.pinned == 0 && now.duration_since(counts.changed) >= after
    }
}

/// A stream that is counted.
pub(super) struct Using {
    usage: Arc<Usage>,
    pinned: bool,
}

impl Drop for Using {
    fn drop(&mut self) {
        let mut counts = super::lock(&self.usage.counts);
        counts.open -= 1;
        counts.pinned -= usize::from(self.pinned);
        counts.changed = Instant::now();
    }
}

/// A stream with a peer.
pub struct Stream {
    inner: libp2p::Stream,
    _using: Using,
    /// For who reads and for who writes: they may be two.
    gone: [Pin<Box<WaitForCancellationFutureOwned>>; 2],
}

impl Stream {
    pub(super) fn new(inner: libp2p::Stream, using: Using) -> Self {
        let gone = [(); 2].map(|()| Box::pin(using.usage.gone.clone().cancelled_owned()));
        Stream { inner, _using: using, gone }
    }

    /// What comes of waiting: nothing more when the connection is no more.
    fn unless_gone<T>(&mut self, by: usize, waits: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        match waits {
            Poll::Pending => self.gone[by]
                .as_mut()
                .poll(cx)
                .map(|()| Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection has ended"))),
            done => done,
        }
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let waits = Pin::new(&mut self.inner).poll_read(cx, into);
        self.unless_gone(0, waits, cx)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let waits = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.unless_gone(1, waits, cx)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let waits = Pin::new(&mut self.inner).poll_flush(cx);
        self.unless_gone(1, waits, cx)
    }
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let waits = Pin::new(&mut self.inner).poll_close(cx);
        self.unless_gone(1, waits, cx)
    }
}

/// What is told apart of a connection.
pub(super) struct Rank {
    pub(super) id: ConnectionId,
    /// Who acted as the dialler.
    pub(super) dialer: PeerKey,
    /// Since when a younger connection is preferred, because the peer was silent on this one.
    pub(super) doubted: Option<Instant>,
    pub(super) usage: Arc<Usage>,
}

/// Puts the connections with one peer in the order in which both ends prefer them.
pub(super) fn sort<'a>(of_peer: impl Iterator<Item = (&'a Connection, &'a Rank)>) -> Vec<(&'a Connection, &'a Rank)> {
    let mut all: Vec<_> = of_peer.collect();
    all.sort_by_key(order);
    all
}

/// The one that is preferred to all others.
pub(super) fn first<'a>(
    of_peer: impl Iterator<Item = (&'a Connection, &'a Rank)>,
) -> Option<(&'a Connection, &'a Rank)> {
    of_peer.min_by_key(order)
}

fn order((info, rank): &(&Connection, &Rank)) -> (bool, bool, bool, PeerKey, ConnectionId) {
    (rank.doubted.is_some(), info.relayed, info.by_quic, rank.dialer, rank.id)
}

/// The one that a new stream takes.
pub(super) fn choose<'a>(sorted: &[(&'a Connection, &'a Rank)], protocol: Protocol) -> Option<&'a Rank> {
    match protocol {
        Protocol::Blobs => {
            sorted.iter().rfind(|(info, rank)| !info.relayed && rank.doubted.is_none()).or(sorted.first())
        }
        _ => sorted.first(),
    }
    .map(|(_, rank)| *rank)
}

/// Those that may go now, as seen by the host `me`.
pub(super) fn dispensable(sorted: &[(&Connection, &Rank)], me: PeerKey, now: Instant) -> Vec<ConnectionId> {
    let sound = |(info, rank): &&(&Connection, &Rank)| !info.relayed && rank.doubted.is_none();
    let direct_since = sorted.iter().filter(sound).map(|(info, _)| info.since).min();
    let settled = direct_since.is_some_and(|since| now.duration_since(since) >= SETTLE);
    let may_go = |(info, rank): &&(&Connection, &Rank)| {
        let dead = rank
            .doubted
            .is_some_and(|since| now.duration_since(since) >= if rank.usage.is_pinned() { GIVE_UP } else { SETTLE });
        dead || (info.relayed && settled && !rank.usage.is_pinned()) || (rank.dialer == me && rank.usage.is_idle(now))
    };
    sorted.iter().skip(1).filter(may_go).map(|(_, rank)| rank.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::identity::Keys;

    fn keys() -> (PeerKey, PeerKey) {
        let [a, b] = [1, 2].map(|n| Keys::from_seed([n; 32]).key());
        (a.min(b), a.max(b))
    }

    fn one(id: usize, relayed: bool, dialer: PeerKey, since: Instant) -> (Connection, Rank) {
        let (_, peer) = keys();
        let address = "/ip4/10.0.0.1/tcp/1".parse().unwrap();
        let info = Connection { peer, address, dialed: true, relayed, relay: None, by_quic: false, since };
        (info, Rank { id: ConnectionId::new_unchecked(id), dialer, doubted: None, usage: Usage::new() })
    }

    fn sorted(all: &[(Connection, Rank)]) -> Vec<(&Connection, &Rank)> {
        sort(all.iter().map(|(info, rank)| (info, rank)))
    }

    fn ids(n: &[usize]) -> Vec<ConnectionId> {
        n.iter().map(|n| ConnectionId::new_unchecked(*n)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn both_ends_choose_alike() {
        let (low, high) = keys();
        let now = Instant::now();
        // The two ends number their connections differently.
        let here = [one(1, true, low, now), one(2, false, high, now), one(3, false, low, now)];
        let there = [one(9, true, low, now), one(5, false, low, now), one(7, false, high, now)];
        for (all, first, last) in [(here, 3, 2), (there, 5, 7)] {
            let sorted = sorted(&all);
            for protocol in Protocol::ALL {
                let expected = if protocol == Protocol::Blobs { last } else { first };
                assert_eq!(choose(&sorted, protocol).unwrap().id, ConnectionId::new_unchecked(expected));
            }
        }
        let relayed = [one(1, true, low, now)];
        assert!(choose(&sorted(&relayed), Protocol::Blobs).is_some(), "better than none");
        assert!(choose(&[], Protocol::Raft).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn quic_gives_way_to_tcp_and_goes() {
        let (low, high) = keys();
        let mut all = [one(1, false, low, Instant::now()), one(2, false, high, Instant::now())];
        all[0].0.by_quic = true;
        assert_eq!(choose(&sorted(&all), Protocol::Raft).unwrap().id, ConnectionId::new_unchecked(2));
        let _probes = all[0].1.usage.begin(Protocol::Probe);
        let later = Instant::now() + STRANDED;
        assert_eq!(dispensable(&sorted(&all), low, later), ids(&[1]), "probes open anew on TCP");
        assert_eq!(dispensable(&sorted(&all), high, later), [], "by whoever dialled it");
        all[1].0.relayed = true;
        assert_eq!(choose(&sorted(&all), Protocol::Raft).unwrap().id, ConnectionId::new_unchecked(1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_relay_is_shed_but_never_under_a_log_or_a_blob() {
        let (low, high) = keys();
        let all = [one(1, true, low, Instant::now()), one(2, false, high, Instant::now())];
        let gone = |at| dispensable(&sorted(&all), low, at);
        assert_eq!(gone(Instant::now()), [], "the direct one has only just come");
        let later = Instant::now() + SETTLE;
        let raft = all[0].1.usage.begin(Protocol::Raft);
        assert_eq!(gone(later), ids(&[1]), "consensus opens anew");
        let log = all[0].1.usage.begin(Protocol::Logs);
        assert_eq!(gone(later), []);
        drop(log);
        assert_eq!(gone(later), ids(&[1]));
        drop(raft);
        assert_eq!(dispensable(&sorted(&all[..1]), low, later), [], "the only one stays");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_silent_comes_last_and_goes() {
        let (low, high) = keys();
        let now = Instant::now();
        let mut all = [one(1, false, low, now), one(2, true, high, now)];
        assert_eq!(choose(&sorted(&all), Protocol::Raft).unwrap().id, ConnectionId::new_unchecked(1));
        all[0].1.doubted = Some(now);
        let first = |all: &[(Connection, Rank)], protocol| choose(&sorted(all), protocol).unwrap().id;
        for protocol in Protocol::ALL {
            assert_eq!(first(&all, protocol), ConnectionId::new_unchecked(2), "a circuit that lives is better");
        }
        let gone = |all: &[(Connection, Rank)], at| dispensable(&sorted(all), high, at);
        assert_eq!(gone(&all, now), []);
        let log = all[0].1.usage.begin(Protocol::Logs);
        assert_eq!(gone(&all, now + SETTLE), [], "it may only have stood still");
        assert_eq!(gone(&all, now + GIVE_UP), ids(&[1]));
        drop(log);
        assert_eq!(gone(&all, now + SETTLE), ids(&[1]), "whoever dialled it, and the circuit stays");
        assert_eq!(gone(&all[..1], now + GIVE_UP), [], "the only one stays");
    }

    #[tokio::test(start_paused = true)]
    async fn a_spare_goes_when_idle_and_only_by_its_dialler() {
        let (low, high) = keys();
        let all = [one(1, false, low, Instant::now()), one(2, false, low, Instant::now())];
        let gone = |me, at| dispensable(&sorted(&all), me, at);
        assert_eq!(gone(low, Instant::now()), []);
        let blob = all[1].1.usage.begin(Protocol::Blobs);
        assert_eq!(gone(low, Instant::now() + 2 * IDLE), [], "a blob is under way");
        drop(blob);
        assert_eq!(gone(low, Instant::now() + IDLE), ids(&[2]));
        assert_eq!(gone(high, Instant::now() + IDLE), [], "the other end waits for that");
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_that_dialled_each_other_at_once_one_goes() {
        let (low, high) = keys();
        let all = [one(1, false, low, Instant::now()), one(2, false, high, Instant::now())];
        let gone = |me, at| dispensable(&sorted(&all), me, at);
        let probes = [0, 1].map(|n: usize| all[n].1.usage.begin(Protocol::Probe));
        assert_eq!(gone(high, Instant::now()), []);
        let log = all[1].1.usage.begin(Protocol::Logs);
        let later = Instant::now() + STRANDED;
        assert_eq!(gone(high, later), [], "a log is on its way");
        drop(log);
        assert_eq!(gone(high, later), ids(&[2]), "probes open anew on the one that both prefer");
        assert_eq!(gone(low, later), [], "the other end waits for that");
        drop(probes);
        assert_eq!(gone(high, later), [], "a spare without streams waits for another blob");
    }
}

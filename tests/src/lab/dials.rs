//! The oracle's table held against the kernel, dial by dial: on every host that can be dialled somebody answers with its
//! name and the source address that it saw, and every row of the table is dialled, all at once. For labs without
//! daemons of the mesh, whose ports these are.

use super::Lab;
use super::command::{Done, Trouble, inside};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread::JoinHandle;
use std::time::Duration;
use topology::{Failure, Oracle, Row, SourcePort};

/// For a dial that the oracle says is lost: many times what the slowest shipped fleet's answer takes. Shorter than the
/// kernel's own patience with a neighbour that is not there, which is 3 s.
const SILENCE: Duration = Duration::from_millis(1_500);
/// For a dial that the oracle says is answered, on a loaded machine.
const ANSWER: Duration = Duration::from_secs(6);

/// What became of a dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Somebody answered: its name, the source that it saw, and the dialler's own.
    Answered { by: String, source: SocketAddr, own: SocketAddr },
    /// At once, by the machine that has the address.
    Refused,
    /// At once: somebody on the way has no route.
    NoRoute,
    /// Nothing came back.
    Silence,
}

/// Somebody who answers on a host's port.
#[derive(Debug)]
struct Answerer {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Answerer {
    fn start(lab: &Lab, host: &str, port: u16) -> Done<Answerer> {
        let listener = inside(&lab.namespace(host)?, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))?;
        let listener = listener.map_err(|e| Trouble(format!("{host}: port {port}: {e}")))?;
        let (accepting, name) = (listener.try_clone()?, host.to_owned());
        let thread = std::thread::spawn(move || {
            while let Ok((mut stream, source)) = accepting.accept() {
                let _ = write!(stream, "{name} {source}");
            }
        });
        Ok(Answerer { listener, thread: Some(thread) })
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        // SAFETY: shuts down a socket that is ours; it wakes the thread that accepts.
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Dials from the namespace that the calling thread is in.
fn dial(to: SocketAddr, patience: Duration) -> Done<Seen> {
    let mut stream = match TcpStream::connect_timeout(&to, patience) {
        Ok(stream) => stream,
        Err(e) => {
            return match e.kind() {
                ErrorKind::ConnectionRefused => Ok(Seen::Refused),
                ErrorKind::NetworkUnreachable => Ok(Seen::NoRoute),
                // Unreachable hosts are those that do not even answer for their address.
                ErrorKind::TimedOut | ErrorKind::WouldBlock | ErrorKind::HostUnreachable => Ok(Seen::Silence),
                _ => Err(Trouble(format!("{to}: {e}"))),
            };
        }
    };
    let own = stream.local_addr()?;
    stream.set_read_timeout(Some(patience))?;
    let mut said = String::new();
    if stream.read_to_string(&mut said).is_err() {
        return Ok(Seen::Silence);
    }
    let _ = stream.shutdown(Shutdown::Both);
    let parsed = said.split_once(' ').and_then(|(by, source)| Some((by.to_owned(), source.parse().ok()?)));
    let (by, source) = parsed.ok_or_else(|| Trouble(format!("{to} answered {said:?}")))?;
    Ok(Seen::Answered { by, source, own })
}

/// Dials every row of an oracle's table on the kernel, but those of diallers without power.
///
/// # Errors
/// A port is taken, or a dial ended as no dial should.
pub fn observe(lab: &Lab, oracle: &Oracle) -> Done<Vec<(Row, Seen)>> {
    let down = lab.down();
    let has_power = |host: &str| super::plan::machine(&lab.fleet, host).is_ok_and(|m| !down.contains(m));
    let listening = lab.fleet.hosts.iter().filter(|h| has_power(&h.name));
    let answerers: Vec<Answerer> = listening
        .filter_map(|h| Some((h, h.port?)))
        .map(|(h, port)| Answerer::start(lab, &h.name, port))
        .collect::<Done<_>>()?;
    let rows: Vec<Row> = oracle.table().rows.into_iter().filter(|row| has_power(&row.from)).collect();
    let seen: Done<Vec<Seen>> = std::thread::scope(|scope| {
        let dialled: Vec<_> = rows
            .iter()
            .map(|row| {
                let namespace = lab.namespace(&row.from);
                let patience = match row.dial.failure {
                    Some(Failure::Lost { .. } | Failure::NoWayBack { .. } | Failure::Nobody { .. }) => SILENCE,
                    _ => ANSWER,
                };
                scope.spawn(move || inside(&namespace?, || dial(row.address, patience))?)
            })
            .collect();
        dialled.into_iter().map(|d| d.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    drop(answerers);
    Ok(rows.into_iter().zip(seen?).collect())
}

/// Dials a host by its first address, where it answers for the moment: what a registration is.
///
/// # Errors
/// No such host, or its port is taken.
pub fn dial_with(lab: &Lab, from: &str, to: &str, port: u16) -> Done<Seen> {
    let answerer = Answerer::start(lab, to, port)?;
    let host = lab.fleet.host(to).ok_or_else(|| Trouble(format!("no host is called {to}")))?;
    let on = host.addresses.iter().find(|(network, _)| !lab.state().faults.off.contains(*network));
    let (_, address) = on.ok_or_else(|| Trouble(format!("{to} has no address of its own")))?;
    let seen = inside(&lab.namespace(from)?, || dial((*address, port).into(), ANSWER))?;
    drop(answerer);
    seen
}

/// Dials an address where nobody was asked to answer, for as long as silence takes.
///
/// # Errors
/// The dialler has no power.
pub fn dial_from(lab: &Lab, from: &str, to: SocketAddr) -> Done<Seen> {
    inside(&lab.namespace(from)?, || dial(to, SILENCE))?
}

/// Dials an address while every machine answers on that port, and says who did.
///
/// # Errors
/// The port is taken somewhere.
pub fn dial_any(lab: &Lab, from: &str, to: SocketAddr) -> Done<Seen> {
    let answerers: Vec<Answerer> =
        lab.machines().iter().map(|host| Answerer::start(lab, host, to.port())).collect::<Done<_>>()?;
    let seen = inside(&lab.namespace(from)?, || dial(to, ANSWER))?;
    drop(answerers);
    seen
}

/// Why a dial is not what the oracle says; `None` when it is.
pub fn disagreement(row: &Row, seen: &Seen) -> Option<String> {
    let agrees = match (&row.dial.failure, seen) {
        (None, Seen::Answered { by, source, own }) => {
            let said = row.dial.seen_as;
            let port = said.is_none_or(|s| s.port != SourcePort::Own || source.port() == own.port());
            row.dial.answered_by.as_deref() == Some(by) && said.is_some_and(|s| source.ip() == s.address) && port
        }
        (Some(Failure::Refused { .. }), Seen::Refused) | (Some(Failure::NoRoute { .. }), Seen::NoRoute) => true,
        (Some(Failure::Lost { .. } | Failure::NoWayBack { .. } | Failure::Nobody { .. }), Seen::Silence) => true,
        _ => false,
    };
    (!agrees).then(|| {
        let Row { from, to, address, dial } = row;
        format!("{from} to {to} at {address}: the oracle says {dial:?}, the kernel {seen:?}")
    })
}

/// All that differs between the oracle and the kernel, and how many dials were compared.
///
/// # Errors
/// As [`observe`].
pub fn compare(lab: &Lab) -> Done<(usize, Vec<String>)> {
    let all = observe(lab, &lab.oracle()?)?;
    Ok((all.len(), all.iter().filter_map(|(row, seen)| disagreement(row, seen)).collect()))
}

/// How often each source port of a dialler was kept on the way, and how often not, by what the oracle says of it.
pub fn ports_kept(all: &[(Row, Seen)]) -> BTreeMap<SourcePort, (usize, usize)> {
    let mut kept: BTreeMap<SourcePort, (usize, usize)> = BTreeMap::new();
    for (row, seen) in all {
        if let (Some(said), Seen::Answered { source, own, .. }) = (row.dial.seen_as, seen) {
            let count = kept.entry(said.port).or_default();
            if source.port() == own.port() {
                count.0 += 1
            } else {
                count.1 += 1
            };
        }
    }
    kept
}

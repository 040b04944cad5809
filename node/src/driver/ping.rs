//! `mesh ping`: how a host is reached, how long a round trip takes over the connection that all else uses, and what
//! came of every lead to it. Changes nothing; a host that is not connected is looked for once more.

use super::Inner;
use super::shared::lock;
use super::status::source_word;
use crate::api::types::{PingLead, PingReport, VERSION};
use crate::net::{Protocol, Stream, frame};
use futures::AsyncWriteExt;
use mesh::addresses::{Failure, Row, relay_in};
use mesh::identity::PeerKey;
use std::io;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Bytes of one question, which comes back as it is.
const BYTES: usize = 32;
/// How long a host that is not connected is looked for: a dial's deadline, and a moment for a relay.
const LOOK_FOR: Duration = Duration::from_secs(12);
/// How often it is looked whether it has come.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Between two round trips.
const PAUSE: Duration = Duration::from_millis(100);
/// A peer that asks nothing more for so long has gone.
const IDLE: Duration = Duration::from_secs(30);

impl Inner {
    pub(super) async fn ping_host(&self, peer: PeerKey, count: u32) -> PingReport {
        let mut round_trips_us = vec![];
        let mut error = None;
        if peer != self.me {
            let found = timeout(LOOK_FOR, async {
                while !self.net.is_connected(peer) {
                    self.dial(peer);
                    sleep(LOOK_EVERY).await;
                }
            });
            if found.await.is_err() {
                error = Some(format!("no connection within {} s", LOOK_FOR.as_secs()));
            } else if let Err(failed) = self.round_trips(peer, count, &mut round_trips_us).await {
                error = Some(failed.to_string());
            }
        }
        let (path, relay) = self.path_to(&peer);
        let rows = lock(&self.addresses).rows(&peer, self.now());
        PingReport {
            version: VERSION,
            host: self.name_of(&peer),
            peer,
            path,
            relay: relay.map(|relay| self.name_of(&relay)),
            address: self.address_in_use(peer),
            round_trips_us,
            error,
            leads: self.leads_told(rows),
        }
    }

    /// The other end of the direct connection to a peer, if there is one.
    pub(super) fn address_in_use(&self, peer: PeerKey) -> Option<String> {
        self.net.best(peer).filter(|c| !c.relayed).map(|c| super::watch::plain(&c.address))
    }

    /// Leads as people are told of them, the one that was proved last first.
    pub(super) fn leads_told(&self, mut rows: Vec<Row>) -> Vec<PingLead> {
        rows.sort_by_key(|row| (!row.proved, row.proved_ms.is_none(), row.proved_ms, row.source));
        rows.into_iter().map(|row| self.told(row)).collect()
    }

    async fn round_trips(&self, peer: PeerKey, count: u32, into: &mut Vec<u64>) -> io::Result<()> {
        let mut stream = self.net.open(peer, Protocol::Ping).await.map_err(io::Error::other)?;
        for n in 0..count {
            if n > 0 {
                sleep(PAUSE).await;
            }
            let mut question = [0; BYTES];
            question[..4].copy_from_slice(&n.to_be_bytes());
            let asked = Instant::now();
            let answer = timeout(ANSWER_WITHIN, async {
                frame::write_frame(&mut stream, &question).await?;
                frame::read_frame(&mut stream, BYTES).await
            });
            let answer = answer.await.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))??;
            if answer != question {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "another answer than the question"));
            }
            into.push(asked.elapsed().as_micros() as u64);
        }
        let _ = stream.close().await;
        Ok(())
    }

    /// A lead as people are told of it.
    fn told(&self, row: Row) -> PingLead {
        let (failed, answered_by) = match &row.failed {
            None => (None, None),
            Some(Failure::Refused) => (Some("refused".to_owned()), None),
            Some(Failure::Timeout) => (Some("no answer".to_owned()), None),
            Some(Failure::Peer(other)) => {
                let other = self.name_of(other);
                (Some(format!("{other} answered")), Some(other))
            }
            Some(Failure::Other(text)) => (Some(text.clone()), None),
        };
        PingLead {
            addr: match relay_in(&row.addr) {
                Some(relay) => format!("through {}", self.name_of(&relay)),
                None => row.addr,
            },
            source: source_word(row.source).to_owned(),
            observer: row.observer.map(|peer| self.name_of(&peer)),
            first_ms: row.first_ms,
            proved_ms: row.proved_ms,
            failed,
            failed_ms: row.failed_ms,
            answered_by,
            nat_of: row.nat_of.map(|peer| self.name_of(&peer)),
            expires_ms: row.expires_ms,
        }
    }
}

/// The other end: what comes goes back.
pub(super) async fn echo(mut stream: Stream) {
    while let Ok(Ok(bytes)) = timeout(IDLE, frame::read_frame(&mut stream, BYTES)).await {
        if !matches!(timeout(IDLE, frame::write_frame(&mut stream, &bytes)).await, Ok(Ok(()))) {
            return;
        }
    }
}

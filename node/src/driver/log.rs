//! Logs of attempts: kept while they run, streamed to whoever follows, a blob when they ended.

use super::Inner;
use super::shared::lock;
use crate::net::{Protocol, Stream, frame};
use bytes::Bytes;
use mesh::build::{Attempt, BlobId, BuildId};
use mesh::identity::PeerKey;
use mesh::limits::LOG_BYTES_MAX;
use mesh::wire::{decode, encode};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
use std::io;
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, mpsc};

/// Bytes in one frame of a followed log.
const CHUNK: usize = 64 << 10;
const REQUEST_BYTES_MAX: usize = 256;

/// The log of an attempt that runs here.
#[derive(Default)]
pub struct LiveLog {
    state: Mutex<(Vec<u8>, bool)>,
    grown: Notify,
}

impl LiveLog {
    /// Appends; beyond the bound nothing more is kept (the runner cuts long logs before that).
    pub fn push(&self, bytes: &[u8]) {
        let mut state = lock(&self.state);
        let room = (LOG_BYTES_MAX as usize).saturating_sub(state.0.len());
        let take = bytes.len().min(room);
        state.0.extend_from_slice(&bytes[..take]);
        drop(state);
        self.grown.notify_waiters();
    }

    /// Nothing more will come. Gives all that came.
    pub fn close(&self) -> Vec<u8> {
        let mut state = lock(&self.state);
        state.1 = true;
        let all = state.0.clone();
        drop(state);
        self.grown.notify_waiters();
        all
    }

    /// The next bytes from `offset` on; waits for some when `follow`. Empty at the end.
    async fn read(&self, offset: usize, follow: bool) -> Bytes {
        loop {
            let grown = self.grown.notified();
            tokio::pin!(grown);
            grown.as_mut().enable();
            {
                let state = lock(&self.state);
                if offset < state.0.len() {
                    let end = state.0.len().min(offset + CHUNK);
                    return Bytes::copy_from_slice(&state.0[offset..end]);
                }
                if state.1 || !follow {
                    return Bytes::new();
                }
            }
            grown.await;
        }
    }
}

/// A place in a live log; one beyond all logs is at its end.
fn offset(from: u64) -> usize {
    from.min(LOG_BYTES_MAX) as usize
}

#[derive(Serialize_tuple, Deserialize_tuple)]
struct Ask {
    build: BuildId,
    attempt: Attempt,
    follow: bool,
    /// From which byte on: a log goes on where its connection broke.
    from: u64,
}

impl Inner {
    /// The live log of an attempt that runs here, if it does.
    fn live_log(&self, build: BuildId, attempt: Attempt) -> Option<Arc<LiveLog>> {
        lock(&self.jobs).get(&(build, attempt)).map(|job| job.log.clone())
    }

    /// Sends a running attempt's log to `out`, from wherever it runs and from byte `sent` on, which moves with what
    /// was sent. Returns when it ended, or when what there is was sent and nobody follows.
    ///
    /// # Errors
    /// `NotFound` when its host no longer has it; anything else when it cannot be asked: ask again.
    pub async fn stream_live_log(
        &self,
        host: PeerKey,
        build: BuildId,
        attempt: Attempt,
        follow: bool,
        sent: &mut u64,
        out: &mpsc::Sender<Bytes>,
    ) -> io::Result<()> {
        if host == self.me {
            let log = self.live_log(build, attempt).ok_or(io::ErrorKind::NotFound)?;
            loop {
                let chunk = log.read(offset(*sent), follow).await;
                if chunk.is_empty() {
                    return Ok(());
                }
                *sent += chunk.len() as u64;
                if out.send(chunk).await.is_err() {
                    return Ok(());
                }
            }
        }
        let mut stream = self.net.open(host, Protocol::Logs).await.map_err(io::Error::other)?;
        frame::write_frame(&mut stream, &encode(&Ask { build, attempt, follow, from: *sent })).await?;
        loop {
            let chunk = frame::read_frame(&mut stream, CHUNK + 1).await?;
            match chunk.split_first() {
                None => return Ok(()),
                Some((0, _)) => return Err(io::ErrorKind::NotFound.into()),
                Some((_, bytes)) => {
                    *sent += bytes.len() as u64;
                    if out.send(Bytes::copy_from_slice(bytes)).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Sends a log that was kept as a blob, from byte `from` on.
    ///
    /// # Errors
    /// When no host that is reachable has it.
    pub async fn stream_kept_log(
        &self,
        log: BlobId,
        holders: &[PeerKey],
        from: u64,
        out: &mpsc::Sender<Bytes>,
    ) -> io::Result<()> {
        self.fetch_blob(log, holders).await?;
        let (_, mut reader) = self.blobs.open(log, from).await?;
        while let Some(chunk) = reader.chunk().await? {
            if out.send(chunk).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// The other end of [`Inner::stream_live_log`]: chunks begin with 1, "not here" is a single 0, the
    /// end is empty.
    pub(super) async fn serve_logs(self: Arc<Self>, mut stream: Stream) {
        let Ok(bytes) = frame::read_frame(&mut stream, REQUEST_BYTES_MAX).await else { return };
        let Ok(ask) = decode::<Ask>(&bytes, REQUEST_BYTES_MAX) else { return };
        let Some(log) = self.live_log(ask.build, ask.attempt) else {
            let _ = frame::write_frame(&mut stream, &[0]).await;
            return;
        };
        let mut at = offset(ask.from);
        loop {
            let chunk = log.read(at, ask.follow).await;
            at += chunk.len();
            let framed = if chunk.is_empty() { vec![] } else { [&[1][..], &chunk].concat() };
            if frame::write_frame(&mut stream, &framed).await.is_err() || chunk.is_empty() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_log_goes_on_from_any_byte_and_ends_once() {
        let log = LiveLog::default();
        log.push(b"first second ");
        let mut got = log.read(0, true).await.to_vec();
        got.truncate(6); // what had come when the connection broke
        log.push(b"third");
        log.close();
        while let chunk @ [_, ..] = &log.read(offset(got.len() as u64), true).await[..] {
            got.extend_from_slice(chunk);
        }
        assert_eq!(got, b"first second third");
        assert!(log.read(offset(u64::MAX), true).await.is_empty(), "no log is so long");
    }
}

//! A stream to one process of a peer, and how it comes about.
//!
//! Opening one takes two round trips: the protocol is agreed on, and the other side says which process it is. A
//! heartbeat may give up before that. What has begun is kept for the next one then: opened anew by each of them, no
//! stream would ever stand between hosts that are far from each other, and a leader that reaches everybody
//! would hear from nobody. Nothing here knows what is asked; [`super::rpc`] does.

use super::peers::Process;
use super::rpc::{Dial, Duplex, Hello, REPLY_BYTES_MAX, Reply, Request, read, write};
use super::rt::NodeRuntime;
use futures::future::BoxFuture;
use mesh::identity::PeerKey;
use openraft_rt::AsyncRuntime;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A stream whose other end has said which process it is.
pub(super) struct Line {
    stream: Box<dyn Duplex>,
    pub process: Process,
    /// See [`Hello::voters`].
    pub voters: Option<u64>,
}

impl Line {
    pub async fn ask(&mut self, request: &Request) -> io::Result<Reply> {
        write(&mut self.stream, request).await?;
        Ok(read(&mut self.stream, REPLY_BYTES_MAX).await?.ok_or(io::ErrorKind::UnexpectedEof)?)
    }
}

/// How far the way to a peer has come.
#[derive(Default)]
pub(super) enum Way {
    /// Nowhere.
    #[default]
    None,
    /// A stream is being opened.
    Opening(BoxFuture<'static, io::Result<Line>>),
    /// One stands, and nobody waits for an answer on it.
    Open(Line),
}

/// Opens a stream as this process, for so long at the most.
pub(super) fn open(
    dial: Arc<dyn Dial>,
    own: Hello,
    peer: PeerKey,
    within: Duration,
) -> BoxFuture<'static, io::Result<Line>> {
    let opening = async move {
        let mut stream = dial.open(peer).await?;
        write(&mut stream, &own).await?;
        let Hello { process, era, voters } =
            read(&mut stream, REPLY_BYTES_MAX).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        match era == own.era {
            true => Ok(Line { stream, process, voters }),
            false => Err(io::Error::other(format!("{peer:?} keeps the log of another recovery of this mesh"))),
        }
    };
    Box::pin(async move {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no stream to {peer:?} in {within:?}"));
        NodeRuntime::timeout(within, opening).await.map_err(late)?
    })
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;

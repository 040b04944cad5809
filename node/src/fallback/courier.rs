//! The courier's trade: a member passes bytes between a leader and the door of a host that the leader cannot dial. The
//! leader names a key; the courier dials the port and the addresses that the holder of that key has signed for, one after
//! the other, and nothing else on earth. It cannot read what it carries, nor change it: SSH sees to that, end to end.
//!
//! ```text
//! leader -> courier   Wanted (whose door)
//! courier -> leader   Way: open, or why not
//!                     then bytes both ways, until one side ends, or there are too many, or it takes too long
//! ```
//!
//! Here are the words and the carrying; who may ask and whom a courier knows is the driver's.

use crate::net::frame::{read_frame, write_frame};
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use mesh::identity::PeerKey;
use mesh::limits::TEXT_BYTES_MAX;
use mesh::tagged;
use mesh::wire::{WireError, decode, encode};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
use std::io;
use std::time::Duration;
use tokio::time::timeout;

/// Carried at one time by one host: each is a single hearing of a host in trouble.
pub const ERRANDS_MAX: usize = 4;

/// Bytes each way: an SSH handshake, the longest roster that a hearing follows, and a warrant.
const CARRIED_BYTES_MAX: u64 = 4 << 20;
/// An errand from first to last byte: the door is found, entered, a warrant heard.
const ERRAND_WITHIN: Duration = Duration::from_secs(60);
/// One of either message.
const MESSAGE_BYTES_MAX: usize = TEXT_BYTES_MAX + 64;
/// Chunk that is passed on.
const CHUNK_BYTES: usize = 16 << 10;

/// What a courier is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct Wanted {
    /// Whose door.
    pub target: PeerKey,
    /// How many of the addresses that answer to pass over: somebody else was found there.
    pub skip: u8,
}

tagged! {
    /// What it answers.
    #[derive(Clone, Debug, PartialEq)]
    pub enum Way {
        /// From now on bytes are passed on.
        1 => Open(()),
        /// Why not, in words.
        2 => Shut(String),
    }
}

/// Asks a courier for the way to a door, over a stream with it; afterwards the stream is the way.
///
/// # Errors
/// The courier's own words, or the stream's.
pub async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), target: PeerKey, skip: u8) -> io::Result<()> {
    let asked = async {
        write_frame(stream, &encode(&Wanted { target, skip })).await?;
        match decode(&read_frame(stream, MESSAGE_BYTES_MAX).await?, MESSAGE_BYTES_MAX).map_err(bad)? {
            Way::Open(()) => Ok(()),
            Way::Shut(why) => Err(io::Error::new(io::ErrorKind::NotConnected, why)),
        }
    };
    timeout(ERRAND_WITHIN, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn bad(error: WireError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

/// Runs one errand to its end: reads whose door is wanted, has `open` find it, and carries.
///
/// # Errors
/// When the asker or the stream fails. A door that is shut is told to the asker and no error.
pub async fn run<S, D>(mut stream: S, open: impl AsyncFnOnce(PeerKey, u8) -> Result<D, String>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: AsyncRead + AsyncWrite + Unpin,
{
    let errand = async {
        let Wanted { target, skip } =
            decode(&read_frame(&mut stream, MESSAGE_BYTES_MAX).await?, MESSAGE_BYTES_MAX).map_err(bad)?;
        match open(target, skip).await {
            Ok(door) => {
                write_frame(&mut stream, &encode(&Way::Open(()))).await?;
                carry(stream, door).await
            }
            Err(mut why) => {
                why.truncate(why.floor_char_boundary(TEXT_BYTES_MAX));
                write_frame(&mut stream, &encode(&Way::Shut(why))).await?;
                stream.close().await
            }
        }
    };
    timeout(ERRAND_WITHIN, errand).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Both ways at once, until both have ended.
async fn carry(one: impl AsyncRead + AsyncWrite + Unpin, other: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let (mut one_in, mut one_out) = one.split();
    let (mut other_in, mut other_out) = other.split();
    let there = pass_on(&mut one_in, &mut other_out);
    let back = pass_on(&mut other_in, &mut one_out);
    futures::future::try_join(there, back).await.map(drop)
}

async fn pass_on(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let (mut chunk, mut carried) = (vec![0; CHUNK_BYTES], 0);
    loop {
        let n = from.read(&mut chunk).await?;
        if n == 0 {
            return to.close().await;
        }
        carried += n as u64;
        if carried > CARRIED_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("more than {CARRIED_BYTES_MAX} bytes")));
        }
        to.write_all(&chunk[..n]).await?;
        to.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::identity::Keys;
    use tokio::io::duplex;
    use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

    fn pipe() -> (Compat<tokio::io::DuplexStream>, Compat<tokio::io::DuplexStream>) {
        let (a, b) = duplex(64 << 10);
        (a.compat(), b.compat())
    }

    #[tokio::test]
    async fn bytes_go_both_ways_to_the_door_that_was_named() {
        let target = Keys::from_seed([1; 32]).key();
        let ((mut leader, courier), (door, mut sshd)) = (pipe(), pipe());
        let errand = tokio::spawn(run(courier, async move |wanted, _| {
            assert_eq!(wanted, target);
            Ok(door)
        }));
        ask(&mut leader, target, 0).await.unwrap();
        leader.write_all(b"SSH-2.0-mesh\r\n").await.unwrap();
        leader.close().await.unwrap();
        let mut got = vec![];
        sshd.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"SSH-2.0-mesh\r\n");
        sshd.write_all(b"answer").await.unwrap();
        sshd.close().await.unwrap();
        let mut got = vec![];
        leader.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"answer");
        errand.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_shut_door_is_told_and_nothing_is_carried() {
        let (mut leader, courier) = pipe();
        let why = "ö".repeat(2_000);
        let errand = tokio::spawn(run(courier, async move |_, _| Err::<Compat<tokio::io::DuplexStream>, _>(why)));
        let error = ask(&mut leader, Keys::from_seed([1; 32]).key(), 0).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
        assert!(error.to_string().starts_with("öö") && error.to_string().len() <= TEXT_BYTES_MAX);
        errand.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn too_much_or_too_long_ends_it() {
        let target = Keys::from_seed([1; 32]).key();
        let ((mut leader, courier), (door, mut sshd)) = (pipe(), pipe());
        let errand = tokio::spawn(run(courier, async move |_, _| Ok(door)));
        ask(&mut leader, target, 0).await.unwrap();
        let flood = tokio::spawn(async move { while leader.write_all(&[0; CHUNK_BYTES]).await.is_ok() {} });
        let mut got = vec![];
        sshd.read_to_end(&mut got).await.unwrap();
        assert!(got.len() as u64 <= CARRIED_BYTES_MAX);
        assert_eq!(errand.await.unwrap().unwrap_err().kind(), io::ErrorKind::InvalidData);
        flood.abort();

        let ((mut leader, courier), (door, _sshd)) = (pipe(), pipe());
        let errand = tokio::spawn(run(courier, async move |_, _| Ok(door)));
        ask(&mut leader, target, 0).await.unwrap();
        assert_eq!(errand.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}

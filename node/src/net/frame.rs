//! One message on a stream: its length as a big-endian `u32`, then its bytes.
//!
//! A reader names the most it takes, and a claimed length alone costs no memory. What the bytes mean
//! is the caller's business.

use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use std::io;

/// Frames up to this size are written in one piece: each piece becomes a packet of its own on a connection.
const ONE_PIECE_BYTES: usize = 64 << 10;

/// Writes one frame and flushes it.
///
/// # Errors
/// When the stream fails, or the message is longer than a length can say.
pub async fn write_frame<W: AsyncWrite + Unpin + ?Sized>(w: &mut W, bytes: &[u8]) -> io::Result<()> {
    let len = u32::try_from(bytes.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a frame holds at most 4 GiB"))?;
    if bytes.len() <= ONE_PIECE_BYTES {
        w.write_all(&[&len.to_be_bytes(), bytes].concat()).await?;
    } else {
        w.write_all(&len.to_be_bytes()).await?;
        w.write_all(bytes).await?;
    }
    w.flush().await
}

/// Reads one frame of at most `max` bytes.
///
/// # Errors
/// `InvalidData` when the frame is longer than `max`, `UnexpectedEof` when the stream ends before it does.
pub async fn read_frame<R: AsyncRead + Unpin>(r: &mut R, max: usize) -> io::Result<Vec<u8>> {
    let mut len = [0; 4];
    r.read_exact(&mut len).await?;
    let len = u32::from_be_bytes(len) as usize;
    if len > max {
        let text = format!("frame of {len} bytes is larger than the {max} allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut bytes = Vec::new(); // grows with what arrives, not with what was claimed
    r.take(len as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::io::Cursor;

    #[tokio::test]
    async fn frames_come_back_one_by_one() {
        let mut wire = Cursor::new(Vec::new());
        let large = vec![7; ONE_PIECE_BYTES + 1];
        for message in [&b"first"[..], b"", b"third", &large] {
            write_frame(&mut wire, message).await.unwrap();
        }
        wire.set_position(0);
        assert_eq!(read_frame(&mut wire, 5).await.unwrap(), b"first");
        assert_eq!(read_frame(&mut wire, 0).await.unwrap(), b"");
        assert_eq!(read_frame(&mut wire, 99).await.unwrap(), b"third");
        assert_eq!(read_frame(&mut wire, large.len()).await.unwrap(), large);
        assert_eq!(read_frame(&mut wire, 99).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn long_and_torn_frames_are_refused() {
        let mut long = Cursor::new(6u32.to_be_bytes().to_vec());
        assert_eq!(read_frame(&mut long, 5).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let mut torn = Cursor::new([&5u32.to_be_bytes()[..], b"abc"].concat());
        assert_eq!(read_frame(&mut torn, 5).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}

//! Entering a guard's door as an SSH client, over whatever carries the bytes. The other side has to show the host key
//! that the target has attested; anybody else gets no byte of authentication, and an error that says so. Then this host
//! shows its own key, and what comes of it is a stream on which the frames of a hearing go.
//!
//! russh runs a session as a task of tokio's own: a simulated node has no door to enter and never comes here.

use super::{MAGIC, PREFACE_BYTES_MAX};
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use mesh::identity::{Keys, PeerKey};
use russh::client::{self, Handle, Msg};
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{Algorithm, PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{ChannelStream, Disconnect};
use std::borrow::Cow;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

/// How long it may take until the guard speaks: a handshake over a slow path, and sshd's command.
const ENTER_WITHIN: Duration = Duration::from_secs(10);
/// The guard acts as root and on nobody else's behalf.
const USER: &str = "root";

/// Why a door could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// Somebody else answers there. No byte of authentication was sent.
    #[error("{shown} answers there, not the door of {target}; nothing was sent to it")]
    WrongHost {
        /// Who was meant.
        target: PeerKey,
        /// What was shown instead.
        shown: String,
    },
    /// The door is the target's, and it does not let us in.
    #[error("{0} does not let this host in: it does not know it as a voter or signer")]
    NotLetIn(PeerKey),
    /// The door is open and no guard is behind it.
    #[error("behind the door no guard speaks: {0}")]
    NoGuard(String),
    /// SSH itself.
    #[error("ssh: {0}")]
    Ssh(#[from] russh::Error),
    /// It took too long.
    #[error("the door was not open within {} s", ENTER_WITHIN.as_secs())]
    Late,
}

struct Doorkey {
    target: PeerKey,
    host_key: [u8; 32],
}

impl client::Handler for Doorkey {
    type Error = SshError;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, SshError> {
        let shown = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => match key.key_data().ed25519() {
                Some(key) if key.0 == self.host_key => return Ok(true),
                _ => key.fingerprint(Default::default()).to_string(),
            },
            PublicKeyOrCertificate::Certificate(_) => "a certificate".to_owned(),
        };
        Err(SshError::WrongHost { target: self.target, shown })
    }
}

/// A stream to a guard that waits to be told something. Dropped, the session ends.
pub struct Entered {
    session: Handle<Doorkey>,
    stream: Compat<ChannelStream<Msg>>,
}

impl Entered {
    /// Ends the session in good order.
    pub async fn leave(self) {
        drop(self.stream);
        let _ = self.session.disconnect(Disconnect::ByApplication, "", "").await;
    }
}

/// Enters the door of `target`, whose record attests `host_key`, over `bytes`.
///
/// # Errors
/// [`SshError`]; nothing has been done on the target.
pub async fn enter<S>(bytes: S, keys: &Keys, target: PeerKey, host_key: [u8; 32]) -> Result<Entered, SshError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let entering = async {
        let config = client::Config {
            inactivity_timeout: Some(ENTER_WITHIN + Duration::from_secs(10)),
            preferred: russh::Preferred {
                key: Cow::Borrowed(&[Algorithm::Ed25519]),
                compression: Cow::Borrowed(&[russh::compression::NONE]),
                ..Default::default()
            },
            ..Default::default()
        };
        let mut session = client::connect_stream(Arc::new(config), bytes, Doorkey { target, host_key }).await?;
        let own = PrivateKey::from(Ed25519Keypair::from_seed(keys.seed()));
        let let_in = session.authenticate_publickey(USER, PrivateKeyWithHashAlg::new(Arc::new(own), None)).await?;
        if !let_in.success() {
            return Err(SshError::NotLetIn(target));
        }
        let channel = session.channel_open_session().await?;
        channel.exec(false, "mesh-guard").await?; // sshd runs its own command, whatever is asked for
        let mut stream = channel.into_stream().compat();
        pass_preface(&mut stream).await.map_err(|error| SshError::NoGuard(error.to_string()))?;
        Ok(Entered { session, stream })
    };
    timeout(ENTER_WITHIN, entering).await.unwrap_or(Err(SshError::Late))
}

/// Passes over what a shell prints before the guard speaks.
async fn pass_preface(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut seen: Vec<u8> = vec![];
    while !seen.ends_with(MAGIC) {
        let mut byte = [0; 1];
        if seen.len() == PREFACE_BYTES_MAX || stream.read(&mut byte).await? == 0 {
            let said: String = String::from_utf8_lossy(&seen).trim().chars().take(100).collect();
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it says `{}`", said.escape_debug())));
        }
        seen.push(byte[0]);
    }
    Ok(())
}

impl AsyncRead for Entered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Entered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::io::Cursor;

    #[tokio::test]
    async fn what_a_shell_says_first_is_passed_over_up_to_a_bound() {
        let mut chatty = Cursor::new([b"Welcome!\nNews: none\n", MAGIC, b"frames"].concat());
        pass_preface(&mut chatty).await.unwrap();
        let mut rest = vec![];
        chatty.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"frames");
        let endless = vec![b'x'; PREFACE_BYTES_MAX + MAGIC.len()];
        let error = pass_preface(&mut Cursor::new(endless)).await.unwrap_err();
        assert!(error.to_string().contains("it says `xxx"), "{error}");
        assert!(pass_preface(&mut Cursor::new(b"This account is not available.\n")).await.is_err());
    }
}

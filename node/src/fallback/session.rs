//! `mesh-guard run`: one hearing over a pipe, on a host whose daemon may be gone. It says who the host is, takes what its
//! roster lacks and one warrant, decides by the same code as the daemon with the same papers on the same disk, answers, and
//! then does what it took on, as the daemon does it ([`crate::machine::act`]).
//!
//! It trusts nothing of who brings the warrant; that name is for the journal. Running builds get no grace: a daemon that
//! does not answer can finish none.

use super::MAGIC;
use crate::config::Config;
use crate::consensus::boottime;
use crate::guard::{FolderVault, Heard, Life, Refused, Store, StoreError};
use crate::machine::act::{self, Commands};
use crate::machine::boot_id;
use crate::net::frame::{read_frame, write_frame};
use crate::seams::Errand;
use crate::state_folder::{FolderError, StateFolder};
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use mesh::identity::Keys;
use mesh::limits::{NONCE_MS_MAX, WARRANT_FRAME_BYTES_MAX};
use mesh::order::BootId;
use mesh::roster::mesh_id;
use mesh::warrant::{Frame, Licence, Refusal};
use mesh::wire::{Signed, WireError, decode};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long the bringer may take: as long as its nonce is good.
const SESSION_WITHIN: Duration = Duration::from_millis(NONCE_MS_MAX);
/// How long the answer has to get away before the deed.
const FAREWELL: Duration = Duration::from_secs(1);
/// The founding record is a few hundred bytes.
const GENESIS_BYTES_MAX: usize = 64 << 10;

/// Why there was no hearing, or nothing came of it. Nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The state folder.
    #[error("{0}")]
    Folder(#[from] FolderError),
    /// Its founding record.
    #[error("the genesis in the state folder is damaged: {0}")]
    Genesis(WireError),
    /// mesh.toml, which has the owner's vetoes.
    #[error("{0}")]
    Config(#[from] crate::config::TextError),
    /// The papers.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The decision.
    #[error("{0}")]
    Refused(#[from] Refused),
    /// No warrant came in time.
    #[error("no warrant came within {} s", SESSION_WITHIN.as_secs())]
    Late,
    /// The pipe.
    #[error("{0}")]
    Pipe(#[from] io::Error),
}

/// What a guard needs of its host.
pub struct Guardhouse {
    keys: Keys,
    store: Store,
    life: Life,
    commands: Commands,
}

impl Guardhouse {
    /// From a state folder. The owner's vetoes hold as the daemon wrote them at its start *or* as mesh.toml says now,
    /// whichever forbids more.
    ///
    /// # Errors
    /// [`SessionError`]: there can be no hearing.
    pub fn open(folder: &StateFolder) -> Result<Guardhouse, SessionError> {
        let config = Config::load(&folder.config())?;
        let (keys, store) = papers(folder)?;
        let mut life = store.life()?;
        life.protected |= config.machine.protected;
        life.allow_reboot &= config.machine.allow_reboot;
        let commands = Commands { restart: config.machine.restart_command, reboot: config.machine.reboot_command };
        Ok(Guardhouse { keys, store, life, commands })
    }

    /// Holds a hearing; the licence that came of it, when something is to be done now. A repeated order is answered and
    /// not done again.
    ///
    /// # Errors
    /// [`SessionError`]; whoever is there has been told.
    pub async fn hear(
        &self,
        input: &mut (impl AsyncRead + Unpin),
        output: &mut (impl AsyncWrite + Unpin),
    ) -> Result<Option<Licence>, SessionError> {
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(|e| io::Error::other(format!("no randomness: {e}")))?;
        let host = self.life.host(BootId(boot_id()), crate::driver::wall_ms());
        let (mut hearing, hello) = self.store.open(&self.keys, self.store.known()?, host, nonce, boottime())?;
        output.write_all(MAGIC).await?;
        write_frame(output, &hello).await?;
        let heard = timeout(SESSION_WITHIN, async {
            loop {
                let frame = read_frame(input, WARRANT_FRAME_BYTES_MAX).await?;
                match self.store.hear(&mut hearing, &frame, boottime) {
                    Ok(Heard::More) => {}
                    Ok(heard) => return Ok(heard),
                    // A link that does not hold teaches nothing; the warrant may do without it.
                    Err(Refused::Rule(Refusal::Link(why))) => {
                        tracing::info!(%why, "a link of the roster was passed over")
                    }
                    Err(refused) => return Err(SessionError::from(refused)),
                }
            }
        });
        let heard = heard.await.unwrap_or(Err(SessionError::Late));
        let (answer, licence) = match heard {
            Ok(Heard::Permit(licence)) => (Frame::Receipt(licence.receipt().clone()), Ok(Some(licence))),
            Ok(Heard::Again(receipt)) => (Frame::Receipt(receipt), Ok(None)),
            Ok(Heard::More) => return Ok(None), // never given out of the loop
            Err(error) => (Frame::Refused(error.to_string()), Err(error)),
        };
        // What was taken on is done whether or not the answer arrives: it is stored, and asked for again it is told again.
        let told = timeout(FAREWELL, async {
            write_frame(output, &answer.write()).await?;
            output.close().await?;
            input.read(&mut [0; 1]).await // its end: the answer has arrived
        });
        let _ = told.await;
        licence
    }

    /// Does what was taken on, after having said so to journal and users.
    ///
    /// # Errors
    /// Why it could not be done.
    pub async fn act(&self, licence: &Licence) -> io::Result<()> {
        act::tell(&licence.journal()).await;
        let order = licence.order();
        let errand = Errand {
            act: order.act,
            order: order.id,
            requester: order.requester.clone(),
            reason: order.reason.clone(),
        };
        self.commands.carry_out(&errand).await
    }
}

/// Keys and papers of a state folder.
///
/// # Errors
/// [`SessionError`].
pub fn papers(folder: &StateFolder) -> Result<(Keys, Store), SessionError> {
    let keys = folder.keys()?;
    let genesis: Signed = decode(&folder.genesis()?, GENESIS_BYTES_MAX).map_err(SessionError::Genesis)?;
    let store = Store::new(Arc::new(FolderVault::of(folder.path())), mesh_id(&genesis), keys.key());
    Ok((keys, store))
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;

//! What a host keeps to decide about warrants, shared by its daemon and by `mesh-guard`: four papers in a [`Vault`].
//!
//! | paper | what | written by |
//! |---|---|---|
//! | [`Paper::Guard`] | the highest fence and the orders taken on ([`mesh::warrant::Guard`]) | whoever holds the hearing |
//! | [`Paper::Known`] | roster, voters, signers, leader ([`mesh::warrant::Known`]) | the daemon, when they change |
//! | [`Paper::Life`] | boot, start and the owner's vetoes ([`Life`]) | the daemon, at each start |
//! | [`Paper::Notes`] | what this host has co-signed as a voter ([`mesh::warrant::Notes`]) | the daemon |
//!
//! They are made when the host comes into its mesh ([`Store::make`]) and never again: a paper that is missing is not an
//! empty one, and who lost what it promised promises nothing more. What is written is on the disk, whole, before
//! anything follows from it; it is read back to see that. Everything here blocks, and nothing here talks to anybody, acts, or
//! judges: that is [`mesh::warrant`]. The daemon's hearing is in `driver::target`.

mod folder;
mod life;

pub use folder::{FolderVault, provide};
pub use life::Life;

use mesh::identity::{Keys, PeerKey};
use mesh::ledger::Ledger;
use mesh::limits::{GUARD_BYTES_MAX, KNOWN_BYTES_MAX};
use mesh::roster::MeshId;
use mesh::time::Time;
use mesh::warrant::{
    Approved, Consent, Guard, Hearing, Host, Known, Licence, NotStored, Notes, Objection, Refusal, Step, Unstored,
};
use mesh::wire::{Signed, decode, encode};
use std::io;
use std::sync::Arc;

/// One of the papers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Paper {
    /// The highest fence and the orders taken on.
    Guard,
    /// What is known of the roster.
    Known,
    /// The present life, and the owner's vetoes.
    Life,
    /// What this host has co-signed.
    Notes,
}

impl Paper {
    /// All of them.
    pub const ALL: [Paper; 4] = [Paper::Guard, Paper::Known, Paper::Life, Paper::Notes];

    /// The name of its file.
    pub const fn name(self) -> &'static str {
        match self {
            Paper::Guard => "guard",
            Paper::Known => "known",
            Paper::Life => "life",
            Paper::Notes => "notes",
        }
    }

    /// Bytes that are read of it at most.
    pub const fn bytes_max(self) -> usize {
        match self {
            Paper::Guard | Paper::Notes | Paper::Life => GUARD_BYTES_MAX,
            Paper::Known => KNOWN_BYTES_MAX,
        }
    }
}

/// Where the papers are: a seam, since a simulated disk loses power as a real one does.
pub trait Vault: Send + Sync + 'static {
    /// Keeps everybody else out, another process included, until it is dropped. Waits for whoever is in there.
    ///
    /// # Errors
    /// When the system says no.
    fn lock(&self) -> io::Result<Box<dyn Send>>;

    /// A paper as it is on the disk; `None` when it is not there.
    ///
    /// # Errors
    /// When the disk says no, or it has more than [`Paper::bytes_max`].
    fn read(&self, paper: Paper) -> io::Result<Option<Vec<u8>>>;

    /// Puts these bytes in a paper's place: whole or not at all, and synced when this returns.
    ///
    /// # Errors
    /// When the disk says no; what was there is there.
    fn write(&self, paper: Paper, bytes: &[u8]) -> io::Result<()>;
}

/// Why the papers are of no use. Nothing was changed, signed or done.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// One is not there.
    #[error("the guard's paper `{}` is missing: restore the state folder, or evict this host and join it anew", .0.name())]
    Missing(Paper),
    /// One cannot be read.
    #[error("the guard's paper `{}` is of no use: {text}", paper.name())]
    Damaged {
        /// Which.
        paper: Paper,
        /// What is wrong.
        text: String,
    },
    /// The disk.
    #[error("the guard's paper `{}`: {error}", paper.name())]
    Disk {
        /// Which.
        paper: Paper,
        /// What the system said.
        error: io::Error,
    },
    /// The disk lied.
    #[error("{0}")]
    NotStored(#[from] NotStored),
}

/// Why a target does nothing.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// By the rules.
    #[error("{0}")]
    Rule(#[from] Refusal),
    /// By its own papers.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// Why a voter does not sign.
#[derive(Debug, thiserror::Error)]
pub enum Unsigned {
    /// By the rules.
    #[error("{0}")]
    Rule(#[from] Objection),
    /// By its own papers.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// What came of a frame; what is permitted is stored.
#[derive(Debug)]
pub enum Heard {
    /// A link: the next frame, please.
    More,
    /// Taken on before: that receipt is the answer, and nothing is done.
    Again(Signed),
    /// Answer with its receipt, then act.
    Permit(Licence),
}

/// The papers of one host.
#[derive(Clone)]
pub struct Store {
    vault: Arc<dyn Vault>,
    mesh: MeshId,
    key: PeerKey,
}

impl Store {
    /// The papers of this host in this mesh.
    pub fn new(vault: Arc<dyn Vault>, mesh: MeshId, key: PeerKey) -> Store {
        Store { vault, mesh, key }
    }

    /// Makes them, for a host that comes into its mesh: it has taken on, signed and led through nothing. Only `init` and
    /// `join` do this, and the first start with a state folder that is older than warrants.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn make(&self, founded: &Ledger) -> Result<(), StoreError> {
        let _held = self.lock(Paper::Guard)?;
        self.write(Paper::Notes, &Notes::default().bytes())?;
        self.write(Paper::Known, &Known::of(founded).bytes())?;
        self.write(Paper::Life, &encode(&Life::unborn()))?;
        self.write(Paper::Guard, &Guard::new(self.mesh, self.key).bytes())
    }

    fn lock(&self, paper: Paper) -> Result<Box<dyn Send>, StoreError> {
        self.vault.lock().map_err(|error| StoreError::Disk { paper, error })
    }

    fn read(&self, paper: Paper) -> Result<Vec<u8>, StoreError> {
        let read = self.vault.read(paper).map_err(|error| StoreError::Disk { paper, error })?;
        read.ok_or(StoreError::Missing(paper))
    }

    fn write(&self, paper: Paper, bytes: &[u8]) -> Result<(), StoreError> {
        self.vault.write(paper, bytes).map_err(|error| StoreError::Disk { paper, error })
    }

    /// Stores what has to be stored, and gives what may be had only then. Call it with the lock held.
    fn redeem<T>(&self, paper: Paper, unstored: Unstored<T>) -> Result<T, StoreError> {
        self.write(paper, unstored.bytes())?;
        Ok(unstored.stored(&self.read(paper)?)?)
    }

    /// What was taken on.
    ///
    /// # Errors
    /// [`StoreError`]: then nothing may be taken on.
    pub fn guard(&self) -> Result<Guard, StoreError> {
        let damaged = |text| StoreError::Damaged { paper: Paper::Guard, text };
        Guard::load(&self.read(Paper::Guard)?, self.mesh, self.key).map_err(|e| damaged(e.to_string()))
    }

    /// What is known of the roster without the daemon.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn known(&self) -> Result<Known, StoreError> {
        let damaged = |text| StoreError::Damaged { paper: Paper::Known, text };
        Known::load(&self.read(Paper::Known)?, self.mesh).map_err(|e| damaged(e.to_string()))
    }

    /// Writes what the daemon knows of the roster, for when it does not run.
    ///
    /// # Errors
    /// When the disk says no; what was known before is there.
    pub fn keep_known(&self, known: &Known) -> Result<(), StoreError> {
        let _held = self.lock(Paper::Known)?;
        self.write(Paper::Known, &known.bytes())
    }

    /// The life that was written last: the daemon's that runs, or ran.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn life(&self) -> Result<Life, StoreError> {
        let damaged = |text| StoreError::Damaged { paper: Paper::Life, text };
        decode(&self.read(Paper::Life)?, Paper::Life.bytes_max()).map_err(|e| damaged(e.to_string()))
    }

    /// Begins a life; the one before it, when there was one.
    ///
    /// # Errors
    /// [`StoreError`]; then the guard goes on with the old one, and refuses what is meant for this.
    pub fn begin_life(&self, life: &Life) -> Result<Option<Life>, StoreError> {
        let _held = self.lock(Paper::Life)?;
        let before = self.life()?;
        self.write(Paper::Life, &encode(life))?;
        Ok((before.start > 0).then_some(before))
    }

    /// Begins a hearing: what to send first. `nonce` is random and used for nothing else; `now` is BOOTTIME.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(
        &self,
        keys: &Keys,
        known: Known,
        host: Host,
        nonce: [u8; 32],
        now: Time,
    ) -> Result<(Hearing, Vec<u8>), StoreError> {
        Ok(Hearing::open(keys, &self.guard()?, known, host, nonce, now))
    }

    /// Takes the next frame of a hearing, under the lock; what is permitted is on the disk when this returns. `now` is
    /// asked when the lock is had.
    ///
    /// # Errors
    /// [`Refused`]: nothing is done.
    pub fn hear(&self, hearing: &mut Hearing, frame: &[u8], now: impl FnOnce() -> Time) -> Result<Heard, Refused> {
        let _held = self.lock(Paper::Guard)?;
        match hearing.receive(frame, &self.guard()?, now())? {
            Step::More => Ok(Heard::More),
            Step::Again(receipt) => Ok(Heard::Again(receipt)),
            Step::Permit(unstored) => Ok(Heard::Permit(self.redeem(Paper::Guard, unstored)?)),
        }
    }

    /// A voter considers an order (`judge` asks [`mesh::warrant::consider`]); what it signs is on the disk when this
    /// returns. The lock is held meanwhile, so that nobody signs in between.
    ///
    /// # Errors
    /// [`Unsigned`]: nothing is signed.
    pub fn cosign(&self, judge: impl FnOnce(&Notes) -> Result<Consent, Objection>) -> Result<Approved, Unsigned> {
        let _held = self.lock(Paper::Notes)?;
        let damaged = |text| StoreError::Damaged { paper: Paper::Notes, text };
        let notes = Notes::load(&self.read(Paper::Notes)?).map_err(|e| damaged(e.to_string()))?;
        match judge(&notes)? {
            Consent::Again(approved) => Ok(approved),
            Consent::New(unstored) => Ok(self.redeem(Paper::Notes, unstored)?),
        }
    }
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;

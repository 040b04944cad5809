//! Blobs between hosts: found, fetched, held for one another.
//!
//! A blob is asked for where it should be, then wherever a connection stands; what arrives is verified
//! by the store. A host that holds an attempt's blobs signs a receipt, and only then. What a host was asked to take it
//! goes on taking when the stream breaks on which it was asked, and whoever asked asks again: a path that dies costs
//! neither what had arrived.

use super::Inner;
use super::shared::lock;
use crate::blobs::transfer::{self, Hold, Holder, Keep, RESUME_PAUSE, RESUME_WITHIN, Request};
use crate::net::{Protocol, Stream};
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::Shared;
use mesh::build::{BlobId, BuildSpec, Receipt};
use mesh::identity::PeerKey;
use mesh::limits::BLOB_BYTES_MAX;
use mesh::membership::State;
use mesh::wire::{Signed, encode};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How long a host may take to pull an attempt's blobs, before another is asked.
const HOLD_WITHIN: Duration = Duration::from_secs(600);

/// A question that lived for so long was answered by somebody who works: its break is another than the last one's.
const LIVED: Duration = Duration::from_secs(15);

/// Others' requests that are being carried out: more at a time would only be slower.
const TAKING_MAX: usize = 64;

/// What comes of a request; the receipt, of one to hold.
type Taken = Result<Option<Signed>, String>;

/// Requests that are being carried out, by the hash of who asks what.
pub(super) type Taking = BTreeMap<[u8; 32], Shared<oneshot::Receiver<Taken>>>;

impl Inner {
    /// Makes sure that a blob is in the local store, intact: asks `first`, then every connected host. A
    /// copy of our own that has rotted is moved away and replaced, so what is read next is what was built.
    ///
    /// # Errors
    /// `NotFound` when nobody who can be reached has it intact.
    pub(super) async fn fetch_blob(&self, id: BlobId, first: &[PeerKey]) -> io::Result<()> {
        match self.blobs.verify(id).await {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                if error.kind() == io::ErrorKind::InvalidData {
                    *lock(&self.corrupt).entry(self.me).or_default() += 1;
                }
                tracing::warn!(%id, %error, "our copy of a blob cannot be used; it is fetched from another host");
            }
        }
        let mut asked = BTreeSet::from([self.me]);
        let connected = self.net.connections().into_iter().map(|c| c.peer);
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("no host that is connected has blob {id}"));
        for peer in first.iter().copied().chain(connected).collect::<Vec<_>>() {
            if !asked.insert(peer) {
                continue;
            }
            match self.fetch_from(peer, id).await {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    if error.kind() == io::ErrorKind::InvalidData {
                        *lock(&self.corrupt).entry(peer).or_default() += 1;
                    }
                    tracing::info!(%id, host = self.name_of(&peer), %error, "a blob could not be fetched there");
                    last = error;
                }
            }
        }
        Err(last)
    }

    async fn fetch_from(&self, peer: PeerKey, id: BlobId) -> io::Result<()> {
        let open = || {
            let net = self.net.clone();
            async move { net.open(peer, Protocol::Blobs).await.map_err(io::Error::other) }
        };
        transfer::fetch_on(open, peer, &*self.blobs, id, BLOB_BYTES_MAX).await.map(drop)
    }

    /// Hosts that the ledger says hold a blob that is some build's manifest or log.
    pub(super) fn holders_of(&self, id: BlobId) -> Vec<PeerKey> {
        self.shared.with(|ledger| {
            let named = |a: &&mesh::ledger::AttemptRecord| {
                a.outcome().is_some_and(|o| o.manifest == Some(id) || o.log == Some(id))
            };
            let attempts = ledger.builds().iter().rev().flat_map(|b| b.attempts.iter());
            attempts.filter(named).map(|a| a.holders.clone()).next().unwrap_or_default()
        })
    }

    /// Other hosts that could hold something, the one with the most free cores first: it is the least busy.
    fn possible_holders(&self) -> Vec<PeerKey> {
        let members = lock(&self.members);
        let mut others: Vec<(u32, PeerKey)> = members
            .hosts()
            .filter(|(peer, h)| **peer != self.me && h.state == State::Alive && !h.cloned)
            .map(|(peer, h)| (h.free_cores.unwrap_or(0), *peer))
            .collect();
        others.sort_by(|a, b| b.cmp(a));
        others.into_iter().map(|(_, peer)| peer).filter(|peer| self.net.is_connected(*peer)).collect()
    }

    /// Asks another host to hold an attempt's blobs. `None` when nobody can now.
    pub(super) async fn find_holder(&self, receipt: &Receipt, have: &[Signed]) -> Option<Signed> {
        let request = Hold {
            mesh: receipt.mesh,
            build: receipt.build,
            attempt: receipt.attempt,
            manifest: receipt.manifest,
            log: receipt.log,
        };
        for peer in self.possible_holders().into_iter().filter(|p| have.iter().all(|r| r.by != *p)) {
            let ask = self.ask_until_answered(peer, |mut stream| {
                let request = request.clone();
                async move { transfer::hold(&mut stream, peer, request).await }
            });
            match tokio::time::timeout(HOLD_WITHIN, ask).await {
                Ok(Ok(signed)) if signed.by == peer && signed.open::<Receipt>().as_ref() == Ok(receipt) => {
                    return Some(signed);
                }
                Ok(Ok(_)) => {
                    tracing::warn!(host = self.name_of(&peer), "a host signed another receipt than it was asked for")
                }
                Ok(Err(error)) => tracing::info!(host = self.name_of(&peer), %error, "a host does not hold our blobs"),
                Err(_) => tracing::info!(host = self.name_of(&peer), "a host took too long to hold our blobs"),
            }
        }
        None
    }

    /// Gives the inputs of builds to a second host before they are submitted, so that losing this one
    /// does not lose them. Best effort: alone, or with nobody reachable, there is nobody to give them to.
    pub(super) async fn spread_inputs(&self, specs: &[BuildSpec]) {
        let mut ids: Vec<BlobId> = specs.iter().flat_map(|s| s.inputs.iter().map(|i| i.blob)).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            return;
        }
        for peer in self.possible_holders() {
            let give = self.ask_until_answered(peer, |mut stream| {
                let ids = &ids;
                async move { transfer::keep(&mut stream, peer, ids).await }
            });
            match tokio::time::timeout(HOLD_WITHIN, give).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => tracing::info!(host = self.name_of(&peer), %error, "inputs were not taken there"),
                Err(_) => tracing::info!(host = self.name_of(&peer), "inputs were not taken there in time"),
            }
        }
    }

    /// Asks a peer for what may take it minutes, on another stream when one breaks: it goes on meanwhile. Not for long
    /// when no stream comes about, and not when it is taken for dead.
    async fn ask_until_answered<T, F>(&self, peer: PeerKey, ask: impl Fn(Stream) -> F) -> io::Result<T>
    where
        F: Future<Output = io::Result<T>>,
    {
        let mut until = None;
        loop {
            let begun = Instant::now();
            let error = match self.net.open(peer, Protocol::Blobs).await {
                Ok(stream) => match ask(stream).await {
                    Ok(done) => return Ok(done),
                    Err(error) if transfer::is_answer(&error) => return Err(error),
                    Err(error) => {
                        until = until.filter(|_| begun.elapsed() < LIVED).or(Some(Instant::now() + RESUME_WITHIN));
                        error
                    }
                },
                Err(error) => io::Error::other(error),
            };
            let gone = |state: State| matches!(state, State::Down | State::Left);
            let lives = lock(&self.members).host(&peer).is_some_and(|h| !gone(h.state));
            if !lives || until.is_none_or(|until| Instant::now() >= until) {
                return Err(error);
            }
            tracing::info!(host = self.name_of(&peer), %error, "a stream broke under a question: it is asked again");
            tokio::time::sleep(RESUME_PAUSE).await;
        }
    }

    /// Carries a request out, in a task of its own; the same once more, by the same peer, waits for that one.
    async fn take_once(self: &Arc<Self>, from: PeerKey, request: Request) -> Taken {
        let key = *blake3::Hasher::new().update(from.as_bytes()).update(&encode(&request)).finalize().as_bytes();
        let done = {
            let mut taking = lock(&self.taking);
            match taking.get(&key) {
                Some(done) => done.clone(),
                None if taking.len() >= TAKING_MAX => {
                    return Err(format!("this host takes {TAKING_MAX} things from others already: ask another"));
                }
                None => {
                    let (tell, done) = oneshot::channel();
                    let done = done.shared();
                    taking.insert(key, done.clone());
                    let this = self.clone();
                    self.task(async move {
                        let taken = this.carry_out(from, request).await;
                        lock(&this.taking).remove(&key);
                        let _ = tell.send(taken); // whoever asked may be gone
                    });
                    done
                }
            }
        };
        done.await.unwrap_or_else(|_| Err("this host is stopping".into()))
    }

    async fn carry_out(&self, from: PeerKey, request: Request) -> Taken {
        let text = |error: io::Error| error.to_string();
        match request {
            Request::Hold(Hold { mesh, build, attempt, manifest, log }) => {
                if mesh != self.mesh.0 {
                    return Err("of another mesh".into());
                }
                if let Some(manifest) = manifest {
                    self.fetch_manifest(manifest, &[from]).await.map_err(text)?;
                }
                if let Some(log) = log {
                    self.fetch_blob(log, &[from]).await.map_err(text)?;
                }
                Ok(Some(Signed::seal(&self.keys, &Receipt { mesh, build, attempt, manifest, log })))
            }
            Request::Keep(Keep { ids }) => {
                for id in ids {
                    self.fetch_blob(id, &[from]).await.map_err(text)?;
                }
                Ok(None)
            }
            _ => Err("nothing that a host takes".into()),
        }
    }

    /// The other end of all of this.
    pub(super) async fn serve_blobs(self: Arc<Self>, peer: PeerKey, mut stream: Stream) {
        let holder = ForPeer(self.clone());
        if let Err(error) = transfer::serve(&mut stream, peer, &*self.blobs, &holder).await {
            tracing::debug!(host = self.name_of(&peer), %error, "a blob stream ended");
        }
    }
}

struct ForPeer(Arc<Inner>);

#[async_trait]
impl Holder for ForPeer {
    async fn hold(&self, from: PeerKey, request: Hold) -> Result<Signed, String> {
        let taken = self.0.take_once(from, Request::Hold(request)).await?;
        taken.ok_or_else(|| "no receipt came of it".into())
    }

    async fn keep(&self, from: PeerKey, request: Keep) -> Result<(), String> {
        self.0.take_once(from, Request::Keep(request)).await.map(drop)
    }
}

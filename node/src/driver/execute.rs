//! Running what the ledger gives this host: fetch, run, keep, copy to a second host, report.
//!
//! An attempt runs here when the ledger says so for this very start of this host, and stops when the
//! ledger says otherwise. Its report goes to the ledger with the storage receipts; until it is taken,
//! or the attempt is taken away, it is sent again.

use super::Inner;
use super::log::LiveLog;
use super::looks::Deed;
use super::shared::lock;
use crate::blobs::put;
use crate::builds::place::load_manifest;
use crate::seams::Job;
use mesh::build::*;
use mesh::identity::PeerKey;
use mesh::ledger::{AttemptEnd, Code, Command, Entry, Report};
use mesh::wire::Signed;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// One try to report; then it is looked at anew whether there is still something to report.
const REPORT_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks for a second holder when there is none.
const HOLDER_PAUSE: Duration = Duration::from_millis(500);
/// Log chunks on their way from the build.
const LOG_CHUNKS: usize = 64;

/// An attempt that runs here.
pub struct Running {
    /// Its log.
    pub log: Arc<LiveLog>,
    /// Kills it.
    pub cancel: CancellationToken,
}

impl Inner {
    /// Looks at builds that changed: starts what is ours and new, stops what is ours no more.
    pub(super) fn follow_builds(self: &Arc<Self>, changed: &BTreeSet<BuildId>) {
        for id in changed {
            let ours: Vec<(Attempt, bool)> = self.shared.with(|ledger| {
                let attempts = ledger.builds().get(*id).map(|b| b.attempts.as_slice()).unwrap_or_default();
                let mine = attempts.iter().filter(|a| a.host == self.me && a.start == self.start);
                mine.map(|a| (a.number, a.is_running())).collect()
            });
            for (attempt, running) in ours {
                match running {
                    true => self.start_attempt(*id, attempt),
                    false => {
                        if let Some(job) = lock(&self.jobs).get(&(*id, attempt)) {
                            job.cancel.cancel();
                        }
                    }
                }
            }
        }
    }

    fn start_attempt(self: &Arc<Self>, id: BuildId, attempt: Attempt) {
        let cancel = CancellationToken::new();
        let log = Arc::new(LiveLog::default());
        {
            let mut jobs = lock(&self.jobs);
            if jobs.contains_key(&(id, attempt)) {
                return;
            }
            jobs.insert((id, attempt), Running { log: log.clone(), cancel: cancel.clone() });
        }
        let this = self.clone();
        (self.spawn)(Box::pin(async move {
            this.run_attempt(id, attempt, log, cancel).await;
            lock(&this.unheld).remove(&id);
            lock(&this.jobs).remove(&(id, attempt));
        }));
    }

    async fn run_attempt(
        self: &Arc<Self>,
        id: BuildId,
        attempt: Attempt,
        log: Arc<LiveLog>,
        cancel: CancellationToken,
    ) {
        let Some((spec, by, needs)) = self.shared.with(|ledger| {
            let build = ledger.builds().get(id)?;
            let mut needs = vec![];
            for need in &build.needs {
                let need = ledger.builds().get(*need)?;
                let result = need.result()?;
                let manifest = result.outcome().and_then(|o| o.manifest);
                needs.push((need.spec.name.clone(), manifest, result.holders.clone()));
            }
            Some((build.spec.clone(), build.by, needs))
        }) else {
            return; // the build is gone from the ledger
        };
        tracing::info!(build = %id, attempt = attempt.0, name = spec.name, "an attempt starts");
        let job = Job {
            build: id,
            attempt,
            spec,
            needs: needs.iter().filter_map(|(name, m, _)| m.map(|m| (name.clone(), m))).collect(),
        };
        let fetched = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(io::Error::other("cancelled")),
            fetched = self.fetch_inputs(&job, by, &needs) => fetched,
        };
        let mut outcome = match fetched {
            Ok(()) => self.run_on_machine(job, &log, cancel.clone()).await,
            Err(error) => host_failure(Phase::Fetch, format!("inputs could not be fetched: {error}")),
        };
        let text = log.close();
        if !text.is_empty() {
            match put(&*self.blobs, &text).await {
                Ok(blob) => outcome.log = Some(blob),
                Err(error) => outcome = host_failure(Phase::Store, format!("the log could not be stored: {error}")),
            }
        }
        self.report(id, attempt, outcome, cancel).await;
    }

    async fn run_on_machine(&self, job: Job, log: &Arc<LiveLog>, cancel: CancellationToken) -> Outcome {
        let (sender, mut chunks) = mpsc::channel(LOG_CHUNKS);
        let run = self.machine.run(job, self.blobs.clone(), sender, cancel);
        let listen = async {
            while let Some(chunk) = chunks.recv().await {
                log.push(&chunk);
            }
        };
        futures::future::join(run, listen).await.0
    }

    async fn fetch_inputs(
        &self,
        job: &Job,
        by: PeerKey,
        needs: &[(String, Option<BlobId>, Vec<PeerKey>)],
    ) -> io::Result<()> {
        for input in &job.spec.inputs {
            self.fetch_blob(input.blob, &[by]).await?;
        }
        for (_, manifest, holders) in needs {
            if let Some(manifest) = manifest {
                self.fetch_manifest(*manifest, holders).await?;
            }
        }
        Ok(())
    }

    /// Fetches a manifest and all files in it.
    pub(super) async fn fetch_manifest(&self, id: BlobId, holders: &[PeerKey]) -> io::Result<Manifest> {
        self.fetch_blob(id, holders).await?;
        let manifest = load_manifest(&*self.blobs, id).await?;
        for file in &manifest.files {
            self.fetch_blob(file.blob, holders).await?;
        }
        Ok(manifest)
    }

    fn still_running(&self, id: BuildId, attempt: Attempt) -> bool {
        self.shared.with(|ledger| {
            let build = ledger.builds().get(id);
            build.is_some_and(|b| b.attempts.iter().any(|a| a.number == attempt && a.host == self.me && a.is_running()))
        })
    }

    /// Gets a second holder where one is needed, and the report into the ledger.
    async fn report(self: &Arc<Self>, id: BuildId, attempt: Attempt, outcome: Outcome, cancel: CancellationToken) {
        let receipt = Receipt { mesh: self.mesh.0, build: id, attempt, manifest: outcome.manifest, log: outcome.log };
        let has_blobs = outcome.manifest.is_some() || outcome.log.is_some();
        let mut receipts: Vec<Signed> = vec![];
        if has_blobs {
            receipts.push(Signed::seal(&self.keys, &receipt));
        }
        let must_hold = outcome.end == End::Done;
        loop {
            // Whoever held it and was taken out since holds it for nobody.
            self.shared.with(|l| receipts.retain(|receipt| receipt.by == self.me || l.roster().is_member(&receipt.by)));
            let wanted = if has_blobs { self.shared.with(|l| l.holders_needed()) } else { 0 };
            if receipts.len() < wanted {
                match self.find_holder(&receipt, &receipts).await {
                    Some(signed) => {
                        lock(&self.unheld).remove(&id);
                        receipts.push(signed);
                    }
                    None if must_hold => {
                        // Nobody can hold it now: wait, for as long as the attempt is ours.
                        lock(&self.unheld).insert(id);
                        let _ = tokio::time::timeout(HOLDER_PAUSE, cancel.cancelled()).await;
                        if !self.still_running(id, attempt) {
                            return;
                        }
                        continue;
                    }
                    None => {}
                }
            }
            self.note(Deed::Ended { build: id, attempt });
            let end = AttemptEnd { build: id, attempt, outcome: outcome.clone(), receipts: receipts.clone() };
            let command = Command::Report(Report { ends: vec![end] });
            let entry = Entry::seal(&self.keys, self.mesh, self.request_id(), None, command);
            match self.submit(entry, REPORT_WITHIN).await {
                Ok((reply, _)) if reply.code == Code::Receipts => {} // the roster changed meanwhile: another holder
                Ok(_) => return,                                     // taken, or no longer ours to report
                Err(error) => tracing::info!(build = %id, %error, "a report is not in the ledger yet"),
            }
            if !self.still_running(id, attempt) {
                return;
            }
        }
    }
}

/// A failure of this host rather than of the command.
pub fn host_failure(phase: Phase, text: String) -> Outcome {
    Outcome { end: End::Failed, phase, code: -1, text: mesh::roster::cut(&text), manifest: None, log: None, took_ms: 0 }
}

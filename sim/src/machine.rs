//! A host that builds nothing and takes its time over it: the simulator's filling of the machine seam.
//!
//! What an attempt does is written in its build, as environment: `SIM_TAKES_MS` (virtual time, default
//! 1000), `SIM_EXIT` (exit code, default 0) and `SIM_BREAKS_ON` (hosts, with commas between, that cannot even
//! unpack it). Each output pattern becomes one file whose bytes depend on the build and the outputs of its needs
//! alone, so that two hosts agree. Every attempt leaves a [`Marker`], as a build with a side effect would:
//! invariants count them.

use crate::det;
use async_trait::async_trait;
use bytes::Bytes;
use mesh::build::{Attempt, BlobId, BuildId, BuildSpec, End, Manifest, Outcome, OutputFile, Phase};
use mesh::order::Act;
use mesh::warrant::OrderId;
use mesh::wire;
use node::seams::{BlobStore, Errand, Facts, Job, Machine};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// An attempt that began somewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Marker {
    /// Which build.
    pub build: BuildId,
    /// Which try of it.
    pub attempt: Attempt,
    /// On which host.
    pub host: String,
}

/// The markers of all hosts of a simulation, in the order in which they were left.
#[derive(Clone, Default)]
pub struct Markers(Arc<Mutex<Vec<Marker>>>);

impl Markers {
    /// All of them up to now.
    pub fn all(&self) -> Vec<Marker> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All but the first `known`.
    pub fn since(&self, known: usize) -> Vec<Marker> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(known..).map(<[Marker]>::to_vec).unwrap_or_default()
    }

    fn leave(&self, marker: Marker) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(marker);
    }
}

/// What a machine was told to do to itself; the harness does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acted {
    /// What.
    pub act: Act,
    /// By which order.
    pub order: OrderId,
}

/// A simulated machine. It outlives the node on it, as a real one does.
pub struct SimMachine {
    name: String,
    facts: Facts,
    seed: u64,
    boots: AtomicU64,
    markers: Markers,
    acts: Mutex<Vec<Acted>>,
}

impl SimMachine {
    /// A machine with this many cores, started for the first time.
    pub fn new(name: &str, cores: u32, seed: u64, markers: Markers) -> SimMachine {
        let facts = Facts {
            cores,
            memory_mib: 4_096,
            tags: vec!["sim".to_owned()],
            boot_id: [0; 16], // comes with the boot count
            machine_id: det::derive(seed, &format!("machine-id of {name}"), 0),
            boot_enabled: Some(true),
            allow_none: false,
            allow_network: true,
        };
        SimMachine { name: name.to_owned(), facts, seed, boots: AtomicU64::new(0), markers, acts: Mutex::default() }
    }

    /// With other facts; its boot id still changes with each boot.
    pub fn with_facts(mut self, change: impl FnOnce(&mut Facts)) -> SimMachine {
        change(&mut self.facts);
        self
    }

    /// The machine itself starts anew (a power cut, a reboot), and not only the node on it.
    pub fn reboot(&self) {
        self.boots.fetch_add(1, Ordering::Relaxed);
    }

    /// What it was told to do to itself since this was asked last.
    pub fn take_acts(&self) -> Vec<Acted> {
        std::mem::take(&mut self.acts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a build says about its own simulation.
struct Work {
    takes: Duration,
    code: i32,
    breaks_on: Vec<String>,
}

impl Work {
    fn of(spec: &BuildSpec) -> Work {
        let text = |key: &str| spec.env.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        let value = |key: &str| text(key).and_then(|v| v.parse::<i64>().ok());
        Work {
            takes: Duration::from_millis(value("SIM_TAKES_MS").map_or(1_000, |ms| ms.max(0) as u64)),
            code: value("SIM_EXIT").unwrap_or(0) as i32,
            breaks_on: text("SIM_BREAKS_ON").map(|v| v.split(',').map(str::to_owned).collect()).unwrap_or_default(),
        }
    }
}

#[async_trait]
impl Machine for SimMachine {
    fn facts(&self) -> Facts {
        let boots = self.boots.load(Ordering::Relaxed);
        let boot = det::derive(self.seed, &format!("boot-id of {}", self.name), boots);
        let mut facts = self.facts.clone();
        facts.boot_id.copy_from_slice(&boot[..16]);
        facts
    }

    async fn run(
        &self,
        job: Job,
        blobs: Arc<dyn BlobStore>,
        log: mpsc::Sender<Bytes>,
        cancel: CancellationToken,
    ) -> Outcome {
        let start = Instant::now();
        let took_ms = move || start.elapsed().as_millis() as u64;
        let ended = |end, phase, code, text: String| Outcome {
            end,
            phase,
            code,
            text,
            manifest: None,
            log: None,
            took_ms: took_ms(),
        };
        let wanted = job.spec.inputs.iter().map(|input| input.blob).chain(job.needs.iter().map(|(_, id)| *id));
        for blob in wanted.collect::<Vec<_>>() {
            if !blobs.has(blob).await {
                return ended(End::Failed, Phase::Unpack, -1, format!("blob {blob} is not on {}", self.name));
            }
        }
        let (build, attempt) = (job.build, job.attempt);
        self.markers.leave(Marker { build, attempt, host: self.name.clone() });
        tracing::debug!(%build, %attempt, "simulated build begins");
        let work = Work::of(&job.spec);
        if work.breaks_on.contains(&self.name) {
            return ended(End::Failed, Phase::Unpack, -1, format!("no room left on {}", self.name));
        }
        // Nobody listening to the log is no reason to stop.
        let _ = log.send(Bytes::from(format!("{}: {}\n", job.spec.name, job.spec.command.join(" ")))).await;

        let limit = Duration::from_secs(job.spec.timeout_s);
        tokio::select! {
            biased;
            () = cancel.cancelled() => {
                return ended(End::Cancelled, Phase::Command, 128 + libc::SIGKILL, "cancelled".into());
            }
            () = sleep(work.takes.min(limit)) => {}
        }
        if work.takes > limit {
            let text = format!("killed after {} s", job.spec.timeout_s);
            return ended(End::TimedOut, Phase::Command, 128 + libc::SIGKILL, text);
        }
        if work.code != 0 {
            let text = format!("`{}` exited with {}", job.spec.command.join(" "), work.code);
            return ended(End::Failed, Phase::Command, work.code, text);
        }
        let _ = log.send(Bytes::from_static(b"done\n")).await;
        match store(&job, blobs.as_ref()).await {
            Ok(manifest) => Outcome { manifest, ..ended(End::Done, Phase::Command, 0, String::new()) },
            Err(error) => ended(End::Failed, Phase::Store, 0, format!("outputs could not be stored: {error}")),
        }
    }

    async fn tell(&self, line: &str) {
        tracing::debug!(line, "the machine's journal");
    }

    async fn act(&self, errand: &Errand) -> io::Result<()> {
        let acted = Acted { act: errand.act, order: errand.order };
        self.acts.lock().unwrap_or_else(PoisonError::into_inner).push(acted);
        Ok(())
    }
}

/// Stores one file for each output pattern, then the manifest.
async fn store(job: &Job, blobs: &dyn BlobStore) -> io::Result<Option<BlobId>> {
    if job.spec.outputs.is_empty() {
        return Ok(None);
    }
    let mut files = vec![];
    for path in &job.spec.outputs {
        let bytes = content(job, path);
        let blob = put(blobs, &bytes).await?;
        files.push(OutputFile {
            path: path.clone(),
            executable: false,
            bytes: bytes.len() as u64,
            blob,
            symlink: false,
        });
    }
    files.sort();
    files.dedup();
    put(blobs, &wire::encode(&Manifest { files })).await.map(Some)
}

/// The bytes of an output: about 4 KiB, of the build and its needs alone.
fn content(job: &Job, path: &str) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new_derive_key("mesh sim 2026 build output v1");
    hasher.update(&wire::encode(&(&job.spec.name, &job.spec.command, &job.needs, path)));
    let mut bytes = vec![0; 4_096];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

async fn put(blobs: &dyn BlobStore, bytes: &[u8]) -> io::Result<BlobId> {
    let mut writer = blobs.create(None).await?;
    writer.write(bytes).await?;
    writer.finish().await
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;

//! The real host: what it is, and one attempt of a build from its blobs to its blobs.
//!
//! It joins [`crate::builds`]: unpack inputs, place needs, run, collect. It never talks to the network
//! and knows nothing of the ledger; the driver fetches blobs before and reports the outcome after.

use crate::builds::collect::{Listing, Wanted, collect, list};
use crate::builds::inside::{Inside, Owner};
use crate::builds::leftovers::end_leftovers;
use crate::builds::place::{load_manifest, place_file, place_inside};
use crate::builds::run::{Ran, Run, Why, run};
use crate::builds::sandbox::{LaunchError, Launcher, SandboxConfig};
use crate::builds::survivors::Children;
use crate::builds::unpack::{Limits, read_blob, unpack};
use crate::seams::{BlobStore, Blocking, Errand, Facts, Job, Machine, Spawn};
use async_trait::async_trait;
use bytes::Bytes;
use mesh::build::{End, InputKind, Outcome, Phase, Sandbox};
use mesh::limits::{BLOB_BYTES_MAX, TEXT_BYTES_MAX, WORKSPACE_FILES_MAX};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

pub mod act;
mod facts;

pub use facts::{boot_enabled, boot_id, machine_id};

use act::Commands;

/// The user that builds run as when the daemon is root, unless configured otherwise.
pub const BUILD_USER: u32 = 7400;

/// Old folders that are being removed at one time; one more is waited for.
const REMOVALS_MAX: usize = 32;

/// What the host's owner configured.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// Folder for builds in progress, emptied at start. Without a sandbox, builds reach theirs through
    /// it, so the folders above it should be passable (`x`) for the build user.
    pub work: PathBuf,
    /// User and group of builds when the daemon is root.
    pub build_user: (u32, u32),
    /// Cores offered, when not all.
    pub cores: Option<u32>,
    /// Memory offered in MiB, when not all.
    pub memory_mib: Option<u64>,
    /// Tags offered.
    pub tags: Vec<String>,
    /// Whether builds without a sandbox are allowed.
    pub allow_none: bool,
    /// Whether builds may use the network.
    pub allow_network: bool,
    /// Folders besides the usual that builds may read.
    pub extra_read_only: Vec<PathBuf>,
    /// How the service and the machine are restarted.
    pub commands: Commands,
    /// The owner's word on whether something starts the mesh at boot, where no known init system can be asked.
    pub at_boot: Option<bool>,
    /// Identifies the machine when it has no /etc/machine-id: random, kept in the state folder.
    pub fallback_machine_id: [u8; 32],
}

impl MachineConfig {
    /// Everything at its default, with builds below `work`.
    pub fn new(work: impl Into<PathBuf>, fallback_machine_id: [u8; 32]) -> Self {
        MachineConfig {
            work: work.into(),
            build_user: (BUILD_USER, BUILD_USER),
            cores: None,
            memory_mib: None,
            tags: vec![],
            allow_none: false,
            allow_network: true,
            extra_read_only: vec![],
            commands: Commands::default(),
            at_boot: None,
            fallback_machine_id,
        }
    }
}

/// This host.
pub struct HostMachine {
    config: MachineConfig,
    owner: Owner,
    launcher: Launcher,
    children: Children,
    removals: Arc<Semaphore>,
    marks: AtomicU64,
    spawn: Spawn,
}

/// Where an attempt failed, and the text to show.
struct Failure(Phase, String);

fn at(phase: Phase) -> impl Fn(io::Error) -> Failure {
    move |error| Failure(phase, error.to_string())
}

/// A blob that is missing or rotten is fetched again elsewhere; everything else is the unpacking.
fn fetch_or_unpack(what: &str, error: &io::Error) -> Failure {
    let fetch = error.kind() == io::ErrorKind::NotFound || error.to_string().contains("corrupted");
    Failure(if fetch { Phase::Fetch } else { Phase::Unpack }, format!("{what}: {error}"))
}

impl HostMachine {
    /// Takes over the work folder: what an earlier life left in it is ended and removed. Blocks; call it at start.
    ///
    /// # Errors
    /// When the work folder cannot be made or emptied.
    pub fn new(config: MachineConfig, spawn: Spawn) -> io::Result<Self> {
        fs::create_dir_all(&config.work)?;
        let passable = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        fs::set_permissions(&config.work, passable)?;
        end_leftovers(&config.work);
        for old in fs::read_dir(&config.work)? {
            remove(&old?.path());
        }
        let owner = nix::unistd::geteuid().is_root().then_some(config.build_user);
        if owner.is_some_and(|(uid, gid)| uid == 0 || gid == 0) {
            return Err(io::Error::other("the build user may not be root: set another one in mesh.toml"));
        }
        let sandbox = SandboxConfig { owner, extra_read_only: config.extra_read_only.clone() };
        let children = Children;
        children.adopt_orphans()?;
        Ok(HostMachine {
            launcher: Launcher::new(&sandbox),
            owner,
            children,
            removals: Arc::new(Semaphore::new(REMOVALS_MAX)),
            marks: AtomicU64::new(0),
            spawn,
            config,
        })
    }

    fn permit(&self, job: &Job) -> Result<(), Failure> {
        let refuse = |what: &str| Err(Failure(Phase::Sandbox, what.to_owned()));
        if job.spec.sandbox == Sandbox::None && !self.config.allow_none {
            return refuse(
                "this host allows no build without a sandbox; set `allow_none = true` below [sandbox] in mesh.toml",
            );
        }
        if job.spec.network && !self.config.allow_network {
            return refuse(
                "this host allows no build to use the network; set `allow_network = true` below [sandbox] in mesh.toml",
            );
        }
        Ok(())
    }

    fn make_folder(&self, job: &Job) -> io::Result<PathBuf> {
        let folder = self.config.work.join(format!("{}.{}", job.build, job.attempt));
        // Three system calls cost less than a trip to the blocking pool.
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                remove(&folder);
                fs::create_dir(&folder)?;
            }
            other => other?,
        }
        if let Some((uid, gid)) = self.owner {
            std::os::unix::fs::chown(&folder, Some(uid), Some(gid))?;
        }
        Ok(folder)
    }

    async fn prepare(&self, job: &Job, folder: &Path, blobs: &dyn BlobStore) -> Result<Option<Arc<Listing>>, Failure> {
        if !job.spec.inputs.is_empty() || !job.needs.is_empty() {
            let inside = Arc::new(Inside::open(folder, self.owner).map_err(at(Phase::Unpack))?);
            for input in &job.spec.inputs {
                let path = PathBuf::from(&input.path);
                let done = match input.kind {
                    InputKind::File => place_file(blobs, input.blob, &inside, path, 0o755, input.bytes).await,
                    InputKind::Tar => {
                        let inside = inside.clone();
                        let limits = Limits { bytes: BLOB_BYTES_MAX, entries: 10 * WORKSPACE_FILES_MAX };
                        read_blob(blobs, input.blob, move |tar| unpack(tar, &inside, &path, limits)).await
                    }
                };
                if let Err(error) = done {
                    let _ = blobs.verify(input.blob).await; // a rotten one is moved away, so that it is fetched anew
                    return Err(fetch_or_unpack(&format!("input `{}`", input.path), &error));
                }
            }
            // Needs belong to the daemon: the build user cannot change them, with or without a sandbox.
            let theirs = Arc::new(Inside::open(folder, None).map_err(at(Phase::Unpack))?);
            for (name, manifest) in &job.needs {
                let below = Path::new("needs").join(name);
                theirs.make_folder(&below, 0o755).map_err(at(Phase::Unpack))?;
                let failed = |error: io::Error| fetch_or_unpack(&format!("outputs of `{name}`"), &error);
                let manifest = load_manifest(blobs, *manifest).await.map_err(failed)?;
                place_inside(&manifest, blobs, &theirs, &below).await.map_err(failed)?;
            }
        }
        if !job.spec.changed_only {
            return Ok(None);
        }
        let (folder, needs) = (folder.to_owned(), !job.needs.is_empty());
        let before = Blocking::Pool.run(move || list(&folder, needs)).await.map_err(at(Phase::Unpack))?;
        Ok(Some(Arc::new(before)))
    }

    async fn attempt(
        &self,
        job: &Job,
        folder: &Path,
        blobs: &dyn BlobStore,
        log: &mpsc::Sender<Bytes>,
        cancel: &CancellationToken,
    ) -> Result<Outcome, Failure> {
        let before = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(outcome(End::Cancelled, Phase::Unpack, "cancelled before it ran")),
            before = Box::pin(self.prepare(job, folder, blobs)) => before?,
        };
        let number = self.marks.fetch_add(1, Ordering::Relaxed);
        let mark = format!("{}.{}.{}.{number}", std::process::id(), job.build, job.attempt);
        let env = [("MESH_BUILD", job.build.to_string()), ("MESH_ATTEMPT", job.attempt.to_string())];
        let request = Run { spec: &job.spec, folder, needs: !job.needs.is_empty(), env, mark };
        let ran = match Box::pin(run(&self.launcher, &self.children, request, log, cancel)).await {
            Ok(ran) => ran,
            Err(error @ LaunchError::Program(..)) => {
                return Ok(Outcome { code: 127, ..outcome(End::Failed, Phase::Command, &error.to_string()) });
            }
            Err(error) => return Err(Failure(Phase::Sandbox, error.to_string())),
        };
        let ended = judge(job, &ran)?;
        if ended.end != End::Done || (job.spec.outputs.is_empty() && !job.spec.changed_only) {
            return Ok(ended);
        }
        let wanted = Wanted { patterns: job.spec.outputs.clone(), before, without_needs: !job.needs.is_empty() };
        let collected = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(Outcome { took_ms: ran.took_ms, ..outcome(End::Cancelled, Phase::Store, "cancelled") }),
            collected = Box::pin(collect(folder, wanted, blobs)) => collected,
        };
        match collected {
            Ok(found) => Ok(Outcome { manifest: found.map(|(id, _)| id), ..ended }),
            Err(error) => Ok(Outcome { end: End::Failed, text: clip(&error.to_string()), ..ended }),
        }
    }

    /// Removes a build's folder, in the background when there is something in it.
    async fn discard(&self, folder: PathBuf) {
        if fs::remove_dir(&folder).is_ok() {
            return;
        }
        let Ok(permit) = self.removals.clone().acquire_owned().await else { return };
        // Under another name, so that a new life of the same attempt is not removed with it.
        let old = self.config.work.join(format!("old-{}", self.marks.fetch_add(1, Ordering::Relaxed)));
        let folder = if fs::rename(&folder, &old).is_ok() { old } else { folder };
        (self.spawn)(Box::pin(async move {
            Blocking::Pool.run(move || remove(&folder)).await;
            drop(permit);
        }));
    }
}

fn outcome(end: End, phase: Phase, text: &str) -> Outcome {
    Outcome { end, phase, code: -1, text: clip(text), manifest: None, log: None, took_ms: 0 }
}

/// Cut so that it fits into an entry.
fn clip(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

/// What a command's end means for its build.
fn judge(job: &Job, ran: &Ran) -> Result<Outcome, Failure> {
    let program = &job.spec.command[0];
    let (end, phase, text) = match (ran.why, ran.code) {
        (Why::Cancelled, _) => (End::Cancelled, Phase::Command, "cancelled".to_owned()),
        (Why::TimedOut, _) => {
            (End::TimedOut, Phase::Command, format!("killed at its timeout of {} s", job.spec.timeout_s))
        }
        (Why::Ended, _) if !ran.started => {
            return Err(Failure(
                Phase::Sandbox,
                "bubblewrap could not set up the sandbox; its message is in the log".into(),
            ));
        }
        (Why::Ended, 0) => (End::Done, Phase::Store, String::new()),
        (Why::Ended, 127) => {
            (End::Failed, Phase::Command, format!("`{program}` or a program it needs was not found (exit 127)"))
        }
        (Why::Ended, code) if code > 128 => {
            (End::Failed, Phase::Command, format!("`{program}` was ended by signal {} (exit {code})", code - 128))
        }
        (Why::Ended, code) => (End::Failed, Phase::Command, format!("`{program}` exited with {code}")),
    };
    Ok(Outcome { code: ran.code, took_ms: ran.took_ms, ..outcome(end, phase, &text) })
}

/// Removes a folder, also one whose owner locked himself out. What stays is removed at the next start.
fn remove(folder: &Path) {
    if fs::remove_dir_all(folder).is_ok() {
        return;
    }
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        let _ = fs::set_permissions(&at, std::os::unix::fs::PermissionsExt::from_mode(0o700));
        for entry in fs::read_dir(&at).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
    if let Err(error) = fs::remove_dir_all(folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %folder.display(), %error, "cannot remove a build's folder");
    }
}

#[async_trait]
impl Machine for HostMachine {
    fn facts(&self) -> Facts {
        facts::facts(&self.config)
    }

    async fn run(
        &self,
        job: Job,
        blobs: Arc<dyn BlobStore>,
        log: mpsc::Sender<Bytes>,
        cancel: CancellationToken,
    ) -> Outcome {
        let failed = |Failure(phase, text): Failure| outcome(End::Failed, phase, &text);
        if let Err(failure) = self.permit(&job) {
            return failed(failure);
        }
        let folder = match self.make_folder(&job) {
            Ok(folder) => folder,
            Err(error) => {
                return failed(Failure(Phase::Unpack, format!("cannot make a folder for the build: {error}")));
            }
        };
        let done = self.attempt(&job, &folder, &*blobs, &log, &cancel).await;
        self.discard(folder).await;
        done.unwrap_or_else(failed)
    }

    async fn tell(&self, line: &str) {
        act::tell(line).await;
    }

    async fn act(&self, errand: &Errand) -> io::Result<()> {
        self.config.commands.carry_out(errand).await
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;

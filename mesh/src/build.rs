//! A build as data: what to run, what it gave, how it ended. Immutable once submitted (incident 16);
//! its attempts are separate and numbered. What may follow what is in [`crate::ledger`]; who runs it
//! is decided in [`crate::placement`].

use crate::identity::PeerKey;
use crate::limits::*;
use crate::wire::Label;
use serde::{Deserialize, Serialize};
use serde_repr::{Deserialize_repr, Serialize_repr};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
use std::fmt;
use std::str::FromStr;

/// A build's number, given by the ledger in the order of submission. Shown as `b12`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BuildId(pub u64);

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}", self.0)
    }
}
impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for BuildId {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let digits = s.strip_prefix('b').unwrap_or(s);
        digits
            .parse()
            .map(BuildId)
            .map_err(|_| format!("`{s}` is not a build id; they look like b12 (see `mesh builds`)"))
    }
}

/// Which try of a build; the first is 1. Only the current attempt can end the build (incident 10).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attempt(pub u32);

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Bytes named by their BLAKE3 hash (O'Connor et al., 2020).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlobId(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl BlobId {
    /// The name of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        BlobId(*blake3::hash(bytes).as_bytes())
    }
}
impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}
impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex()[..12])
    }
}
impl FromStr for BlobId {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        blake3::Hash::from_hex(s)
            .map(|h| BlobId(*h.as_bytes()))
            .map_err(|_| format!("`{s}` is not a blob id (64 hexadecimal digits)"))
    }
}

/// How much of the host a build may see.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize_repr, Deserialize_repr)]
#[repr(u8)]
pub enum Sandbox {
    /// bubblewrap: own namespaces, inputs read-only, no network unless asked.
    #[default]
    Bubblewrap = 0,
    /// None but the build user. Runs only on hosts whose own `mesh.toml` has `allow_none = true`.
    None = 1,
}

/// What form an input has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize_repr, Deserialize_repr)]
#[repr(u8)]
pub enum InputKind {
    /// One file, placed at the input's path.
    File = 0,
    /// A tar archive, unpacked below the input's path.
    Tar = 1,
}

/// Bytes that a build starts from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Input {
    /// Where it goes, relative to the build's folder; empty for the folder itself.
    pub path: String,
    /// The bytes.
    pub blob: BlobId,
    /// How many, so that a host can tell before fetching whether it has room.
    pub bytes: u64,
    /// File or archive.
    pub kind: InputKind,
}

/// A unit of work, as submitted. It never changes afterwards.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct BuildSpec {
    /// What a person calls it; unique within its submission.
    pub name: String,
    /// Program and arguments; no shell is involved.
    pub command: Vec<String>,
    /// What is there when it starts.
    pub inputs: Vec<Input>,
    /// Files to keep, as globs relative to the build's folder.
    pub outputs: Vec<String>,
    /// Keep only files that the command made or changed (`mesh run`).
    pub changed_only: bool,
    /// Environment besides PATH, HOME, LC_ALL, MESH_BUILD and MESH_ATTEMPT.
    pub env: Vec<(String, String)>,
    /// Names of builds of the same submission that must be done first; their outputs are placed at
    /// `needs/NAME/`.
    pub needs: Vec<String>,
    /// Cores it occupies, at least 1.
    pub cores: u32,
    /// Memory it occupies, in MiB; 0 when unknown.
    pub memory_mib: u64,
    /// Tags that its host must have.
    pub tags: Vec<String>,
    /// When its process group is killed, in seconds.
    pub timeout_s: u64,
    /// Whether it may use the network.
    pub network: bool,
    /// How much of the host it may see.
    pub sandbox: Sandbox,
    /// How often a failure of the command is tried again on another host.
    pub retries: u32,
    /// On how many hosts it is built; from 2 on, their outputs must agree.
    pub confirm: u8,
}

impl BuildSpec {
    /// A build of this command with every option at its default.
    pub fn new(name: impl Into<String>, command: Vec<String>) -> Self {
        BuildSpec {
            name: name.into(),
            command,
            inputs: vec![],
            outputs: vec![],
            changed_only: false,
            env: vec![],
            needs: vec![],
            cores: 1,
            memory_mib: 0,
            tags: vec![],
            timeout_s: 3_600,
            network: false,
            sandbox: Sandbox::Bubblewrap,
            retries: 1,
            confirm: 1,
        }
    }

    /// Whether every field is within its bound.
    ///
    /// # Errors
    /// A sentence that names build and field and says what is allowed.
    pub fn check(&self) -> Result<(), String> {
        let name = &self.name;
        if !valid_build_name(name) {
            return Err(format!("build name `{name}`: use 1 to 100 of letters, digits, and `+ - . _ :`"));
        }
        let err = |field: &str, what: String| Err(format!("build `{name}`: {field} {what}"));
        if self.command.is_empty() || self.command[0].is_empty() {
            return err("command", "is empty".into());
        }
        if !(1..=CORES_MAX).contains(&self.cores) {
            return err("cores", format!("= {} is not between 1 and {CORES_MAX}", self.cores));
        }
        if self.memory_mib > MEMORY_MIB_MAX {
            return err("memory", format!("of {} MiB is more than {MEMORY_MIB_MAX}", self.memory_mib));
        }
        if !(1..=TIMEOUT_S_MAX).contains(&self.timeout_s) {
            return err("timeout", format!("of {} s is not between 1 and {TIMEOUT_S_MAX}", self.timeout_s));
        }
        if !(1..=2).contains(&self.confirm) {
            return err("confirm", format!("= {} is not 1 or 2", self.confirm));
        }
        if self.retries >= ATTEMPTS_MAX {
            return err("retries", format!("= {} is more than {}", self.retries, ATTEMPTS_MAX - 1));
        }
        if self.needs.len() > NEEDS_MAX || self.inputs.len() > INPUTS_MAX {
            return err("needs or inputs", format!("are more than {NEEDS_MAX} or {INPUTS_MAX}"));
        }
        if let Some(bad) = self.tags.iter().find(|t| !valid_build_name(t)) {
            let start: String = bad.chars().take(40).collect();
            return err("tags", format!("has `{start}`; use letters, digits and `+ - . _ :`"));
        }
        let words = self.command.len() + self.env.len() + self.outputs.len() + self.tags.len();
        let bytes: usize = self
            .command
            .iter()
            .chain(&self.outputs)
            .chain(&self.tags)
            .chain(&self.needs)
            .map(String::len)
            .sum::<usize>()
            + self.env.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
        if words > WORDS_MAX || bytes > SPEC_BYTES_MAX {
            return err(
                "command, env, outputs and tags",
                format!(
                    "together exceed {WORDS_MAX} words or {SPEC_BYTES_MAX} bytes; put long lists in a file of the workspace"
                ),
            );
        }
        for (key, _) in &self.env {
            if key.is_empty() || key.contains(['=', '\0']) {
                return err("env", format!("has the key `{key}`, which no environment can hold"));
            }
        }
        for pattern in &self.outputs {
            if !stays_inside(pattern) {
                return err("outputs", format!("has `{pattern}`, which leaves the build's folder"));
            }
        }
        for input in &self.inputs {
            if !stays_inside(&input.path) || input.bytes > BLOB_BYTES_MAX {
                return err("inputs", format!("has `{}`, which leaves the build's folder or is too large", input.path));
            }
        }
        Ok(())
    }
}

/// Letters, digits and `+ - . _ :`, at most 100, not starting with a dot or dash: a name is also a folder.
pub fn valid_build_name(name: &str) -> bool {
    (1..=100).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-._:".contains(&b))
        && !name.starts_with(['.', '-'])
}

/// Whether a relative path stays below the folder it is relative to.
pub fn stays_inside(path: &str) -> bool {
    !path.starts_with('/') && !path.contains('\0') && path.split('/').all(|part| part != "..")
}

/// Which part of an attempt failed. All but [`Phase::Command`] are the host's doing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize_repr, Deserialize_repr)]
#[repr(u8)]
pub enum Phase {
    /// Inputs could not be fetched.
    Fetch = 0,
    /// Inputs could not be unpacked.
    Unpack = 1,
    /// The sandbox could not be set up.
    Sandbox = 2,
    /// The command itself ended badly.
    Command = 3,
    /// Outputs could not be collected or stored.
    Store = 4,
    /// Outputs could not be copied to a second host.
    Upload = 5,
}

impl Phase {
    /// Whether the command, rather than the host, is to blame.
    pub fn is_command(self) -> bool {
        self == Phase::Command
    }
}

/// How an attempt ended, as its host reports it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize_repr, Deserialize_repr)]
#[repr(u8)]
pub enum End {
    /// The command exited 0 and its outputs are stored.
    Done = 0,
    /// Something failed; the phase says what.
    Failed = 1,
    /// The process group was killed at the timeout.
    TimedOut = 2,
    /// Killed because the ledger says cancelled.
    Cancelled = 3,
}

/// What an attempt gave, reported by the host that ran it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Which part it ended in.
    pub phase: Phase,
    /// The command's exit code; 128 + signal when a signal ended it; -1 when it never ran.
    pub code: i32,
    /// What to show a person; empty when all is well.
    pub text: String,
    /// The encoded [`Manifest`] as a blob, when there are outputs.
    pub manifest: Option<BlobId>,
    /// Its log as a blob, when there is any.
    pub log: Option<BlobId>,
    /// How long the command ran, in milliseconds.
    pub took_ms: u64,
}

/// One output file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct OutputFile {
    /// Relative to the build's folder, `/` between its parts.
    pub path: String,
    /// Executable or not; other permission bits do not travel.
    pub executable: bool,
    /// Size.
    pub bytes: u64,
    /// Content; for a symbolic link, the blob of its target text.
    pub blob: BlobId,
    /// A symbolic link rather than a file.
    pub symlink: bool,
}

/// The outputs of an attempt, sorted by path. It has no times and no host in it, so that two hosts
/// that build the same thing get the same manifest.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize_tuple, Deserialize_tuple)]
pub struct Manifest {
    /// The files, sorted by path.
    pub files: Vec<OutputFile>,
}

/// A host's signed word that it holds all blobs of an attempt, verified and synced to its disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Receipt {
    /// The mesh it is for.
    #[serde(with = "serde_bytes")]
    pub mesh: [u8; 32],
    /// The build.
    pub build: BuildId,
    /// The attempt whose outputs these are.
    pub attempt: Attempt,
    /// The manifest whose files are held, when there are outputs.
    pub manifest: Option<BlobId>,
    /// The log that is held, when there is one.
    pub log: Option<BlobId>,
}

impl Label for Receipt {
    const LABEL: &'static str = "mesh/storage-receipt/v1";
    const MAX: usize = 1_024;
}

/// Who holds the blobs of a finished attempt.
pub type Holders = Vec<PeerKey>;

//! What travels over the API, as JSON. Fields may be added, never renamed without raising [`VERSION`].

pub use super::doctor::{Ending, HostFacts, MeshFacts};
pub use super::healing::Standing;
pub use super::ping::{PingLead, PingReport};
pub use super::recovery::{RecoverRequest, Recovered, RecoveryHost, RecoveryPlan};
pub use super::spec::{InputJson, SpecJson};
pub use super::succession::{RenameRequest, ReplaceRequest};
pub use super::topology::{Place, Topology};
pub use super::why::{Accuser, Chapter, Evidence, Told, WhyReport};
use bytes::Bytes;
use mesh::build::{Attempt, BlobId, BuildId, OutputFile};
use mesh::identity::PeerKey;
use serde::{Deserialize, Serialize};

/// The version of every shape here.
pub const VERSION: u32 = 1;

/// Things that are written as text (`b12`, `12D3KooW…`, hexadecimal digits).
pub mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::fmt::Display;
    use std::str::FromStr;

    /// As its text.
    pub fn serialize<T: Display, S: Serializer>(value: &T, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(value)
    }
    /// From its text.
    pub fn deserialize<'de, T: FromStr<Err = String>, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
    /// The same for what may be missing.
    pub mod option {
        use super::*;
        use serde::Serialize;
        /// As its text.
        pub fn serialize<T: Display, S: Serializer>(value: &Option<T>, s: S) -> Result<S::Ok, S::Error> {
            value.as_ref().map(ToString::to_string).serialize(s)
        }
        /// From its text.
        pub fn deserialize<'de, T: FromStr<Err = String>, D: Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
            let text = Option::<String>::deserialize(d)?;
            text.map(|t| t.parse().map_err(D::Error::custom)).transpose()
        }
    }
    /// The same for lists.
    pub mod list {
        use super::*;
        /// As their texts.
        pub fn serialize<T: Display, S: Serializer>(values: &[T], s: S) -> Result<S::Ok, S::Error> {
            s.collect_seq(values.iter().map(ToString::to_string))
        }
        /// From their texts.
        pub fn deserialize<'de, T: FromStr<Err = String>, D: Deserializer<'de>>(d: D) -> Result<Vec<T>, D::Error> {
            let texts = Vec::<String>::deserialize(d)?;
            texts.iter().map(|t| t.parse().map_err(D::Error::custom)).collect()
        }
    }
}

/// `mesh status --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// The mesh.
    pub mesh: MeshInfo,
    /// The host that answers.
    pub host: String,
    /// Who leads, when anybody does.
    pub leader: Option<Leader>,
    /// Every host of the roster, this one included, sorted by name.
    pub hosts: Vec<Host>,
    /// Cores of all hosts, and of those alive.
    pub cores: Cores,
    /// Builds by state.
    pub builds: BuildCounts,
    /// Connections refused because nobody vouched for them, since the daemon started.
    pub strangers: u64,
    /// What stands for a while: a pause before all, blocks, drains, healing that is frozen or under way.
    #[serde(default)]
    pub standing: Vec<Standing>,
    /// What is wrong.
    pub warnings: Vec<Warning>,
    /// What to do, in words.
    pub next: Vec<String>,
}

/// The mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshInfo {
    /// Hash of its genesis.
    pub id: String,
    /// What people call it.
    pub name: String,
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Its name.
    pub host: String,
    /// Its key.
    #[serde(with = "text")]
    pub peer: PeerKey,
    /// Epoch of recovery.
    pub epoch: u64,
    /// Term of the ledger.
    pub term: u64,
    /// What is left of its lease. Only the leader itself can know: 0 from any other host.
    pub lease_ms: u64,
}

/// What the view says of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostState {
    /// Answers.
    Alive,
    /// Somebody says that it does not.
    Suspect,
    /// Enough say so.
    Down,
    /// Went by itself.
    Left,
}

/// How this host reaches another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// It is this host.
    #[serde(rename = "self")]
    Own,
    /// A connection of its own.
    Direct,
    /// Through a relay.
    Relay,
    /// Not at all.
    None,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its key.
    #[serde(with = "text")]
    pub peer: PeerKey,
    /// What the view says.
    pub state: HostState,
    /// For how long, in milliseconds.
    pub since_ms: u64,
    /// Cores it offers.
    pub cores: u32,
    /// Cores not taken by builds.
    pub free_cores: u32,
    /// Whether it votes.
    pub voter: bool,
    /// Whether its owner forbids acting on it.
    pub protected: bool,
    /// Whether its owner allows reboots.
    pub allow_reboot: bool,
    /// Which boot it is in; empty when unknown.
    pub boot_id: String,
    /// Whether its service starts at boot, when known.
    pub boot_enabled: Option<bool>,
    /// How it is reached.
    pub path: PathKind,
    /// Through whom, when it is reached over a relay that is known.
    #[serde(default)]
    pub relay: Option<String>,
    /// Where it may be.
    pub addresses: Vec<Address>,
    /// The version it runs; empty when unknown.
    pub version: String,
    /// What keeps builds from it, in a word: `blocked`, `drained`, `set aside`, `resting`.
    #[serde(default)]
    pub kept: Option<String>,
}

/// A lead to a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// A multiaddr.
    pub addr: String,
    /// Who says so.
    pub source: String,
    /// Whether a handshake with the host succeeded on it.
    pub proved: bool,
    /// How old the word is.
    pub age_ms: u64,
    /// The host whose masquerade this is.
    pub nat_of: Option<String>,
}

/// Sums of cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cores {
    /// Of all hosts.
    pub total: u32,
    /// Of those alive.
    pub alive: u32,
}

/// Builds by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct BuildCounts {
    pub queued: u64,
    pub running: u64,
    pub done: u64,
    pub failed: u64,
    pub cancelled: u64,
}

/// Whether something is wrong now, or only worth knowing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Wrong: the mesh is degraded until somebody acts.
    #[default]
    Warning,
    /// All works; somebody may want to do something about it one day.
    Note,
}

/// Something wrong, or worth knowing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// For machines, for example `host-down`.
    pub code: String,
    /// How bad it is. A daemon that does not say so means the worse.
    #[serde(default)]
    pub level: Level,
    /// Which host, when it is one.
    pub host: Option<String>,
    /// For people.
    pub text: String,
}

/// Where a build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum BuildState {
    Queued,
    Running,
    Done,
    Failed,
    Cancelled,
}

impl BuildState {
    /// Whether it stays so.
    pub fn is_final(self) -> bool {
        matches!(self, BuildState::Done | BuildState::Failed | BuildState::Cancelled)
    }

    /// As people and JSON write it.
    pub fn word(self) -> &'static str {
        match self {
            BuildState::Queued => "queued",
            BuildState::Running => "running",
            BuildState::Done => "done",
            BuildState::Failed => "failed",
            BuildState::Cancelled => "cancelled",
        }
    }
}

/// Which builds to list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BuildFilter {
    /// Only those in this state.
    pub state: Option<BuildState>,
    /// At most so many; 100 when not given.
    pub limit: Option<u32>,
}

/// A build in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildSummary {
    /// Its number.
    #[serde(with = "text")]
    pub id: BuildId,
    /// Its name.
    pub name: String,
    /// Where it is.
    pub state: BuildState,
    /// The host of its newest attempt.
    pub host: Option<String>,
    /// How many attempts there were.
    pub attempts: u32,
    /// When it was submitted, in milliseconds of ledger time.
    pub submitted_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// It is not tried again for now, because its package has failed on two hosts; `mesh retry` tries it all the same.
    #[serde(default)]
    pub held: bool,
    /// Why it waits or failed; empty when there is nothing to say.
    pub text: String,
}

/// A build with all that happened to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildDetail {
    /// [`VERSION`].
    pub version: u32,
    /// Raised by every change; see `wait`.
    pub revision: u64,
    /// In a line.
    #[serde(flatten)]
    pub summary: BuildSummary,
    /// What it runs.
    pub command: Vec<String>,
    /// Builds that it needs.
    #[serde(with = "text::list")]
    pub needs: Vec<BuildId>,
    /// The command's exit code, once it has ended.
    pub code: Option<i32>,
    /// Its outputs, once it is done.
    #[serde(with = "text::option")]
    pub manifest: Option<BlobId>,
    /// Its tries, the first first.
    pub attempts_detail: Vec<AttemptDetail>,
}

/// Where an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum AttemptState {
    Assigned,
    Running,
    Done,
    Failed,
    TimedOut,
    Cancelled,
    Lost,
}

/// One try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptDetail {
    /// Its number.
    pub attempt: Attempt,
    /// Who ran it.
    pub host: String,
    /// The key of who ran it.
    #[serde(with = "text")]
    pub peer: PeerKey,
    /// Where it is.
    pub state: AttemptState,
    /// When it was assigned, in milliseconds of ledger time.
    pub started_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// The command's exit code.
    pub code: Option<i32>,
    /// What went wrong; empty when nothing did.
    pub text: String,
    /// Its outputs.
    #[serde(with = "text::option")]
    pub manifest: Option<BlobId>,
    /// Its log.
    #[serde(with = "text::option")]
    pub log: Option<BlobId>,
    /// Hosts with a receipt for its blobs.
    pub holders: Vec<String>,
}

/// A submission.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmitRequest {
    /// [`VERSION`].
    pub version: u32,
    /// 32 hexadecimal digits, made once by the client and used again in its retries.
    pub request: String,
    /// The builds.
    pub builds: Vec<SpecJson>,
}

/// Numbers of builds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildIds {
    /// [`VERSION`].
    pub version: u32,
    /// The builds.
    #[serde(with = "text::list")]
    pub builds: Vec<BuildId>,
}

/// A list of builds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildList {
    /// [`VERSION`].
    pub version: u32,
    /// The builds, the newest first.
    pub builds: Vec<BuildSummary>,
}

/// A stored blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBlob {
    /// [`VERSION`].
    pub version: u32,
    /// Its name.
    #[serde(with = "text")]
    pub blob: BlobId,
    /// Its size.
    pub bytes: u64,
}

/// Asks for an invitation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// The host's name.
    pub name: String,
    /// How long the token can be used, from now.
    pub expires_ms: u64,
    /// Whether the host becomes a signer.
    pub signer: bool,
}

/// An invitation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// [`VERSION`].
    pub version: u32,
    /// What `mesh join` takes.
    pub token: String,
}

/// Revokes a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvictRequest {
    /// Its name.
    pub host: String,
    /// Whether it may never come back.
    pub ban: bool,
    /// Why.
    pub reason: String,
}

/// Done, and nothing more to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ok1 {
    /// [`VERSION`].
    pub version: u32,
}

/// A piece of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// What follows is of this attempt.
    Attempt {
        /// Its number.
        attempt: Attempt,
        /// Who runs it.
        host: String,
    },
    /// What the command wrote.
    Data(Bytes),
    /// Here so many bytes are missing.
    Lost(u64),
    /// Nothing follows. `text` says why when the log is not whole.
    End {
        /// Empty when all is well.
        text: String,
    },
}

/// A piece of a log as a line of JSON. Bytes that are not UTF-8 travel as hexadecimal digits.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLine {
    Attempt { attempt: Attempt, host: String },
    Text(String),
    Hex(String),
    Lost(u64),
    End { text: String },
}

impl From<LogEvent> for LogLine {
    fn from(event: LogEvent) -> Self {
        match event {
            LogEvent::Attempt { attempt, host } => LogLine::Attempt { attempt, host },
            LogEvent::Data(bytes) => match std::str::from_utf8(&bytes) {
                Ok(text) => LogLine::Text(text.to_owned()),
                Err(_) => LogLine::Hex(crate::state_folder::hex(&bytes)),
            },
            LogEvent::Lost(bytes) => LogLine::Lost(bytes),
            LogEvent::End { text } => LogLine::End { text },
        }
    }
}

/// What the API says when it cannot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// For machines, for example `no-leader`.
    pub code: String,
    /// For people.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// HTTP status.
    pub status: u16,
}

impl ApiError {
    /// An error without a hint.
    pub fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        ApiError { code: code.into(), message: message.into(), hint: None, status }
    }
    /// With what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// The request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        ApiError::new(400, "bad-request", message)
    }
    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        ApiError::new(404, "not-found", message)
    }
    /// It clashes with what is.
    pub fn conflict(message: impl Into<String>) -> Self {
        ApiError::new(409, "conflict", message)
    }
    /// Nobody leads, so nothing can be decided.
    pub fn no_leader() -> Self {
        ApiError::new(503, "no-leader", "no host leads the mesh at this moment")
            .hint("`mesh status` says who is missing; nothing is lost, try again")
    }
    /// Something of ours failed.
    pub fn internal(message: impl Into<String>) -> Self {
        ApiError::new(500, "internal", message).hint("see daemon.log in the state folder")
    }
}

/// A fetched file, for `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct FetchedFile {
    pub path: String,
    pub bytes: u64,
    #[serde(with = "text")]
    pub blob: BlobId,
}

impl From<&OutputFile> for FetchedFile {
    fn from(f: &OutputFile) -> Self {
        FetchedFile { path: f.path.clone(), bytes: f.bytes, blob: f.blob }
    }
}

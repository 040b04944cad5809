//! What travels of healing, as JSON: the policy, the plan with what holds it back, the trail, the case of one host.
//! Nothing is decided here; `driver::{plan, audit, cases}` fill these. Ages and rests are in milliseconds, moments in
//! ledger time since 1970.

use super::types::text;
use mesh::build::BuildId;
use mesh::identity::PeerKey;
use serde::{Deserialize, Serialize};

pub use super::measures::Measure;

/// `mesh policy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyReport {
    /// [`super::types::VERSION`].
    pub version: u32,
    /// Every key with its value, in the order in which people read them.
    pub policy: Vec<PolicyValue>,
}

/// One key of the policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyValue {
    /// The key.
    pub key: String,
    /// Its value, as `mesh policy set` takes it.
    pub value: String,
    /// What it is when nobody has said otherwise.
    pub default: String,
}

/// Sets one key of the policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyRequest {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// `mesh plan`: what would be done now, and what holds the rest back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanReport {
    /// [`super::types::VERSION`].
    pub version: u32,
    /// Whose view it is.
    pub seen_from: String,
    /// Whether that is the leader's, which acts by it; another host's may differ.
    pub leads: bool,
    /// What keeps all healing from going on; empty when nothing does.
    pub frozen: Vec<String>,
    /// What would be done now.
    pub steps: Vec<PlanStep>,
    /// What is due and not done.
    pub held: Vec<PlanHeld>,
    /// Whose fault it is that builds fail, with the attempts that say so.
    pub blame: Vec<String>,
}

/// Something that would be done now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanStep {
    /// To whom.
    pub host: String,
    /// What, in words.
    pub what: String,
    /// Why, in words.
    pub why: String,
}

/// Something that is due and not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanHeld {
    /// To whom.
    pub host: String,
    /// What, in words.
    pub what: String,
    /// Every rule that holds it back, in words.
    pub rules: Vec<String>,
}

/// Something that stands for a while, for `mesh status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// For machines: `paused`, `frozen`, `healing-off`, `blocked`, `drained`, `human`, `healing`, `order`, `resting`,
    /// `unexplained-reboot`.
    pub code: String,
    /// How bad it is.
    pub level: super::types::Level,
    /// Which host, when it is one.
    pub host: Option<String>,
    /// For people, with its end when it has one.
    pub text: String,
    /// When it ends by itself, in milliseconds of ledger time; none when a person has to end it.
    pub until_ms: Option<u64>,
    /// What is left of it.
    pub left_ms: Option<u64>,
}

/// Which lines of the trail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditFilter {
    /// Only of this host.
    pub host: Option<String>,
    /// Only what is not older.
    pub since_ms: Option<u64>,
}

/// `mesh audit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReport {
    /// [`super::types::VERSION`].
    pub version: u32,
    /// The lines, oldest first.
    pub lines: Vec<AuditLine>,
    /// What could not be read of it, in words; empty when all is here.
    pub missing: Vec<String>,
}

/// One line of the trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    /// When.
    pub at_ms: u64,
    /// Who signed it.
    pub by: String,
    /// Its key.
    #[serde(with = "text")]
    pub by_peer: PeerKey,
    /// About which host.
    pub host: Option<String>,
    /// Its key.
    #[serde(with = "text::option")]
    pub peer: Option<PeerKey>,
    /// About which order: hexadecimal digits.
    pub order: Option<String>,
    /// For machines, for example `ordered`.
    pub what: String,
    /// When it ends, when it does.
    pub until_ms: Option<u64>,
    /// In words: what happened.
    pub told: String,
    /// The reason that was given, or what was said.
    pub text: String,
}

/// What the ledger has on one host, for `mesh why`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseReport {
    /// Where it stands, for machines: `well`, `set-aside`, `canary-due`, `trial`, `acting`, `human` …
    pub stage: String,
    /// The same in words.
    pub told: String,
    /// Why it stands there.
    pub why: String,
    /// Since when, in milliseconds.
    pub since_ms: u64,
    /// Why it gets no builds; none when it may.
    pub kept: Option<String>,
    /// Blocks and drains.
    pub measures: Vec<Measure>,
    /// What blame says that names it, with evidence.
    pub blame: Vec<String>,
    /// What would be done next, when nothing holds it back.
    pub next: Vec<PlanStep>,
    /// What holds the next step back.
    pub held: Vec<PlanHeld>,
    /// Orders to it that the ledger remembers, oldest first.
    pub orders: Vec<OrderTold>,
    /// What happened to it, oldest first: the last lines of its trail.
    pub trail: Vec<AuditLine>,
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderTold {
    /// Its name: hexadecimal digits.
    pub id: String,
    /// To whom.
    pub host: String,
    /// What, in words.
    pub act: String,
    /// Who wrote it.
    pub by: String,
    /// Who asked.
    pub requester: String,
    /// Why.
    pub reason: String,
    /// When it was written.
    pub at_ms: u64,
    /// When it expires.
    pub until_ms: u64,
    /// `open`, `taken`, `proved` or `expired`.
    pub state: String,
}

/// `mesh why BUILD`: where a build stands, whose fault its failures are, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildWhy {
    /// [`super::types::VERSION`].
    pub version: u32,
    /// Which.
    #[serde(with = "text")]
    pub build: BuildId,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: super::types::BuildState,
    /// Why it stands there; empty when there is no more to say.
    pub because: String,
    /// Its tries, the first first: what came of each, and whose fault it is.
    pub tries: Vec<TryWhy>,
    /// What blame says of its package.
    pub blame: Vec<String>,
    /// What to do, in words.
    pub next: Vec<String>,
}

/// One try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TryWhy {
    /// As evidence names it: `b7.2`.
    pub id: String,
    /// Who had it.
    pub host: String,
    /// What came of it, in words.
    pub came: String,
    /// Whose fault that is, in words; none when it was nobody's or nothing failed.
    pub charged: Option<String>,
}

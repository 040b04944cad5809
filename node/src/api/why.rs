//! What `mesh why` is told, as JSON: the story of one host as one other sees it. Decides nothing; `driver::why`
//! fills it, [`crate::cli`] tells it. Times are ages in milliseconds, so that no two clocks are compared.

use super::ping::PingLead;
use super::types::{HostState, PathKind, Warning, text};
use mesh::build::BuildId;
use mesh::identity::PeerKey;
use serde::{Deserialize, Serialize};

/// One host, what is held against it, and what happened around it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyReport {
    /// [`super::types::VERSION`].
    pub version: u32,
    /// The host's name.
    pub host: String,
    /// Its key.
    #[serde(with = "text")]
    pub peer: PeerKey,
    /// Who tells: another host may have seen it differently.
    pub seen_from: String,
    /// What is believed of it.
    pub state: HostState,
    /// For how long.
    pub since_ms: u64,
    /// Why, in words; empty when there is no more to say.
    pub because: String,
    /// Since its last word, by itself or passed on by another; none when it was never heard.
    pub heard_ms: Option<u64>,
    /// How it is reached.
    pub path: PathKind,
    /// Through whom, when over a relay that is known.
    pub relay: Option<String>,
    /// Smoothed round trip of the questions that are put to it, in microseconds.
    pub round_trip_us: Option<u64>,
    /// How late its answers came of late: the longest wait, which is forgotten with time.
    pub late_ms: u64,
    /// How late everybody's answers come to the host that tells: the fault may be its own.
    pub here_late_ms: u64,
    /// The host that tells misses so many that it suspects itself and accuses nobody.
    pub keeps_still: bool,
    /// All who accuse it are in one network: it may live, cut off from that one only.
    pub one_network: bool,
    /// How often it came back from being down in the last ten minutes.
    pub flaps: u32,
    /// Which start of its daemon was heard last.
    pub start: Option<u64>,
    /// Whether it votes.
    pub voter: bool,
    /// Builds that the ledger has running there.
    #[serde(with = "text::list")]
    pub builds: Vec<BuildId>,
    /// Who accuses it now.
    pub accusers: Vec<Accuser>,
    /// What happened around it, oldest first; nothing when all was well.
    pub story: Vec<Chapter>,
    /// Every lead to it and what came of it, the one that was proved last first.
    pub leads: Vec<PingLead>,
    /// What else is wrong with it, as in `mesh status`.
    pub warnings: Vec<Warning>,
    /// What the ledger has on it: blame, measures, orders, steps taken and withheld.
    #[serde(default)]
    pub healing: super::healing::CaseReport,
    /// What to do, in words, the first first.
    pub next: Vec<String>,
}

/// Somebody whom it does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accuser {
    /// Its name.
    pub host: String,
    /// Since its accusation came here.
    pub since_ms: u64,
    /// What it saw.
    pub evidence: Evidence,
}

/// What an accuser saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// How often it asked without an answer: on its connection when one stood, else by dialling.
    pub attempts: u32,
    /// For how long.
    pub silent_ms: u64,
    /// How old the last word was then; none when the accuser had never heard it.
    pub heard_ms: Option<u64>,
    /// That word had come by somebody else.
    pub relayed: bool,
    /// Its connection stood all the while.
    pub connected: bool,
}

/// One thing that happened, once or several times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chapter {
    /// Since it happened first.
    pub first_ms: u64,
    /// Since it happened last.
    pub last_ms: u64,
    /// How often.
    pub times: u32,
    /// What.
    #[serde(flatten)]
    pub what: Told,
}

/// What can happen around a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Told {
    /// Somebody missed it.
    Accused {
        /// Who.
        by: String,
        /// What it saw.
        evidence: Evidence,
        /// Whether it counted here; else newer word of the accused was known.
        counted: bool,
    },
    /// Its own word answered its accusers.
    Answered {
        /// It answered the host that tells; else somebody passed its signed word on, or it spoke up by itself.
        asked: bool,
        /// Accusations that ended by it.
        ended: u32,
    },
    /// The host that tells had an answer of it, and passed that on to the others.
    PassedOn,
    /// The host that tells missed it and many others at once: it suspected itself.
    KeptStill {
        /// How many were silent.
        silent: u32,
        /// Of how many.
        of: u32,
    },
    /// What is believed of it changed.
    Became {
        /// From.
        from: HostState,
        /// To.
        to: HostState,
        /// Why, in words.
        why: String,
    },
}

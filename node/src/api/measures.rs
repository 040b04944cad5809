//! What `mesh block`, `drain`, `pause`, their opposites and `mesh clear` ask, as JSON, checked for what makes no sense
//! whatever the mesh is. Nothing is done to a host that is not named, or that a name fits only nearly: the driver finds
//! it, and the ledger decides who may.

use super::types::{ApiError, text};
use mesh::healing::Stop;
use mesh::identity::PeerKey;
use mesh::limits::{MEASURE_MS_MAX, TEXT_BYTES_MAX};
use mesh::roster::valid_host_name;
use serde::{Deserialize, Serialize};

/// What is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StopKind {
    /// Nobody gets builds, and nobody is healed.
    Pause,
    /// A host gets no builds, and what runs there goes elsewhere.
    Block,
    /// A host gets no more builds; what runs there ends.
    Drain,
}

impl StopKind {
    /// As people say it of a host or of the mesh.
    pub fn word(self) -> &'static str {
        match self {
            StopKind::Pause => "paused",
            StopKind::Block => "blocked",
            StopKind::Drain => "drained",
        }
    }
    /// The command that makes one.
    pub fn verb(self) -> &'static str {
        match self {
            StopKind::Pause => "pause",
            StopKind::Block => "block",
            StopKind::Drain => "drain",
        }
    }
    /// The command that ends one.
    pub fn opposite(self) -> &'static str {
        match self {
            StopKind::Pause => "resume",
            StopKind::Block => "unblock",
            StopKind::Drain => "undrain",
        }
    }
}

impl From<Stop> for StopKind {
    fn from(stop: Stop) -> StopKind {
        match stop {
            Stop::Pause => StopKind::Pause,
            Stop::Block => StopKind::Block,
            Stop::Drain => StopKind::Drain,
        }
    }
}

impl From<StopKind> for Stop {
    fn from(kind: StopKind) -> Stop {
        match kind {
            StopKind::Pause => Stop::Pause,
            StopKind::Block => Stop::Block,
            StopKind::Drain => Stop::Drain,
        }
    }
}

/// Puts a stop to something for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopRequest {
    /// To what.
    pub stop: StopKind,
    /// Of which host; none for a pause, which is everybody's.
    pub host: Option<String>,
    /// For how long, from now.
    pub lasts_ms: u64,
    /// Why.
    pub reason: String,
}

/// Ends one early.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiftRequest {
    /// What.
    pub stop: StopKind,
    /// Of which host; none for a pause.
    pub host: Option<String>,
    /// Why; may be empty.
    #[serde(default)]
    pub reason: String,
}

/// A person says that a host is well: its case ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClearRequest {
    /// Which.
    pub host: String,
    /// What was done about it.
    pub reason: String,
}

/// A block, drain or pause that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measure {
    /// What.
    pub stop: StopKind,
    /// Of which host; none for a pause.
    pub host: Option<String>,
    /// The key of that host.
    #[serde(with = "text::option")]
    pub peer: Option<PeerKey>,
    /// Who put it there.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When it ends, in milliseconds of ledger time since 1970.
    pub until_ms: u64,
    /// What is left of it.
    pub left_ms: u64,
}

/// What a person did, as the ledger has it now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// [`super::types::VERSION`].
    pub version: u32,
    /// It.
    #[serde(flatten)]
    pub measure: Measure,
}

/// What `mesh resume` ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifted {
    /// [`super::types::VERSION`].
    pub version: u32,
    /// A block, drain or pause; as it was.
    pub measure: Option<Measure>,
    /// Healing had frozen, because nothing had helped, and goes on.
    pub healing: bool,
}

impl StopRequest {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<(), ApiError> {
        target(self.stop, self.host.as_deref())?;
        reason(&self.reason)?;
        if !(1..=MEASURE_MS_MAX).contains(&self.lasts_ms) {
            let message = format!("a {} has an end, within thirty days", self.stop.verb());
            return Err(ApiError::bad_request(message).hint("for example --for 8h, or --for 2d"));
        }
        Ok(())
    }
}

impl LiftRequest {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<(), ApiError> {
        target(self.stop, self.host.as_deref())?;
        if self.reason.is_empty() { Ok(()) } else { reason(&self.reason) }
    }
}

impl ClearRequest {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<(), ApiError> {
        named(&self.host)?;
        reason(&self.reason)
    }
}

fn target(stop: StopKind, host: Option<&str>) -> Result<(), ApiError> {
    match (stop, host) {
        (StopKind::Pause, None) => Ok(()),
        (StopKind::Pause, Some(_)) => {
            Err(ApiError::bad_request("a pause is everybody's and names no host")
                .hint("`mesh drain HOST` is one host's"))
        }
        (_, Some(host)) => named(host),
        (_, None) => Err(ApiError::bad_request(format!("a {} names one host", stop.verb()))),
    }
}

fn named(name: &str) -> Result<(), ApiError> {
    if valid_host_name(name) { Ok(()) } else { Err(super::server::bad_host_name(name)) }
}

/// A reason is written for people who read it days later.
pub(crate) fn reason(reason: &str) -> Result<(), ApiError> {
    if reason.trim().is_empty() || reason.len() > TEXT_BYTES_MAX || reason.contains('\0') {
        let message = format!("the reason is empty, has a zero byte, or is longer than {TEXT_BYTES_MAX} bytes");
        return Err(ApiError::bad_request(message).hint("use --reason \"new disk\""));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_nobody_does_nothing() {
        let stop = |stop, host: Option<&str>| StopRequest {
            stop,
            host: host.map(str::to_owned),
            lasts_ms: 1_000,
            reason: "new disk".into(),
        };
        assert_eq!(stop(StopKind::Block, Some("beta")).check(), Ok(()));
        assert_eq!(stop(StopKind::Pause, None).check(), Ok(()));
        for (kind, host) in [
            (StopKind::Block, None),
            (StopKind::Drain, Some("")),
            (StopKind::Block, Some("*")),
            (StopKind::Block, Some("a b")),
            (StopKind::Pause, Some("beta")),
        ] {
            let error = stop(kind, host).check().expect_err("refused");
            assert_eq!(error.status, 400, "{kind:?} {host:?}: {error}");
            let lift = LiftRequest { stop: kind, host: host.map(str::to_owned), reason: String::new() };
            assert!(lift.check().is_err());
        }
        assert!(ClearRequest { host: String::new(), reason: "so".into() }.check().is_err());
    }

    #[test]
    fn what_is_temporary_has_a_reason_and_an_end() {
        let good = StopRequest { stop: StopKind::Pause, host: None, lasts_ms: 1_000, reason: "new disk".into() };
        for bad in [
            StopRequest { lasts_ms: 0, ..good.clone() },
            StopRequest { lasts_ms: MEASURE_MS_MAX + 1, ..good.clone() },
            StopRequest { reason: "  ".into(), ..good.clone() },
            StopRequest { reason: "x".repeat(TEXT_BYTES_MAX + 1), ..good.clone() },
        ] {
            assert!(bad.check().expect_err("refused").hint.is_some(), "{bad:?}");
        }
        for kind in [StopKind::Pause, StopKind::Block, StopKind::Drain] {
            assert_eq!(StopKind::from(Stop::from(kind)), kind);
        }
    }
}

//! What of the trail was put away: parts of it, each a blob that names the one before, so that none can be left out or
//! changed unseen.
//!
//! The ledger holds the newest lines (ninety days of a quiet mesh); the leader proposes when the oldest should go
//! ([`due`]), and every host that applies the entry computes the part from its own lines: a leader that says otherwise is
//! refused, and every host that was there has the bytes to keep. Where they are kept, and who fetches them later, is not
//! known here.

use super::audit::Line;
use super::record::Record;
use crate::build::BlobId;
use crate::limits::{AUDIT_LINES_MAX, AUDIT_MS_MAX, AUDIT_PARTS_MAX};
use crate::roster::MeshId;
use crate::wire::encode;
use serde::{Deserialize, Serialize};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
use std::collections::VecDeque;

/// With so many lines the older half is put away, well before any has to be dropped.
const LINES_FULL: usize = AUDIT_LINES_MAX / 4 * 3;
/// Lines of one part at most.
const PART_LINES_MAX: usize = LINES_FULL / 2;

/// A part that was put away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Part {
    /// Its bytes: a [`Chapter`].
    pub blob: BlobId,
    /// Ledger time of its first line.
    pub first_ms: u64,
    /// Ledger time of its last.
    pub last_ms: u64,
    /// How many it has.
    pub lines: u64,
}

/// What the bytes of a part say.
#[derive(Clone, PartialEq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Chapter {
    /// Domain and version.
    pub label: String,
    /// Of which mesh.
    pub mesh: MeshId,
    /// The part before; `None` of the first.
    pub before: Option<BlobId>,
    /// The lines, oldest first.
    pub lines: Vec<Line>,
}

/// Domain and version of a chapter's bytes.
const LABEL: &str = "mesh/audit-part/v1";

/// Puts the oldest lines away: see [`super::Entry::Archive`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Archive {
    /// What the part is, by whoever proposes it.
    pub blob: BlobId,
    /// How many lines it has.
    pub lines: u64,
}

/// Why bytes are no part of a trail.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PartError {
    /// Not what was put away.
    #[error("these are not the bytes of part {0:?} of the trail")]
    OtherBytes(BlobId),
    /// They cannot be read.
    #[error("a part of the trail cannot be read: {0}")]
    Malformed(String),
    /// They are of another mesh.
    #[error("this part of the trail is of another mesh")]
    OtherMesh,
}

/// The parts of a trail, oldest first; those that are older still are found by the chain.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Parts(VecDeque<Part>);

impl Parts {
    /// Those that are remembered, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Part> {
        self.0.iter()
    }

    pub(super) fn push(&mut self, part: Part) {
        self.0.push_back(part);
        if self.0.len() > AUDIT_PARTS_MAX {
            self.0.pop_front();
        }
    }
}

/// A part of the oldest lines, and its bytes; `None` when there are not as many.
pub(super) fn part(record: &Record, mesh: MeshId, lines: u64) -> Option<(Part, Vec<u8>)> {
    let lines: Vec<Line> = record.audit().lines().take(usize::try_from(lines).ok()?).cloned().collect();
    let (first_ms, last_ms) = (lines.first()?.at_ms, lines.last()?.at_ms);
    let (before, count) = (record.parts().iter().next_back().map(|part| part.blob), lines.len() as u64);
    let bytes = encode(&Chapter { label: LABEL.to_owned(), mesh, before, lines });
    Some((Part { blob: BlobId::of(&bytes), first_ms, last_ms, lines: count }, bytes))
}

/// What a leader should have put away now: what is older than ninety days, and the older half when there are many.
pub fn due(record: &Record, mesh: MeshId, now_ms: u64) -> Option<Archive> {
    let old = record.audit().lines().take_while(|line| line.at_ms.saturating_add(AUDIT_MS_MAX) < now_ms).count();
    let full = record.audit().lines().count() >= LINES_FULL;
    let lines = if full { old.max(PART_LINES_MAX) } else { old }.min(PART_LINES_MAX) as u64;
    let (part, _) = part(record, mesh, lines)?;
    Some(Archive { blob: part.blob, lines: part.lines })
}

/// Reads a part that was fetched from anywhere.
///
/// # Errors
/// [`PartError`].
pub fn read_part(bytes: &[u8], blob: BlobId, mesh: MeshId) -> Result<Chapter, PartError> {
    if BlobId::of(bytes) != blob {
        return Err(PartError::OtherBytes(blob));
    }
    let chapter: Chapter = ciborium::from_reader(bytes).map_err(|error| PartError::Malformed(error.to_string()))?;
    match chapter.label == LABEL && chapter.mesh == mesh {
        true => Ok(chapter),
        false => Err(PartError::OtherMesh),
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;

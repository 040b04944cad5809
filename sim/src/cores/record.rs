//! What a run did, as one hash: every message that arrives, every sync, every fault, every fact, with its true time.

use crate::trace::Summary;
use std::io::Write;
use std::time::Duration;

/// The running hash, and a timeline for people when one is wanted.
pub struct Record {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    records: u64,
    /// Bytes delivered.
    pub bytes: u64,
    /// Syncs of disks.
    pub commits: u64,
    timeline: Option<Box<dyn Write + Send>>,
}

impl Record {
    /// Begins.
    pub fn new(timeline: Option<Box<dyn Write + Send>>) -> Record {
        let hasher = blake3::Hasher::new_derive_key("mesh sim 2026 cores trace v1");
        Record { hasher, buffer: Vec::with_capacity(1 << 16), records: 0, bytes: 0, commits: 0, timeline }
    }

    /// Something happened at a host; `line` is asked for only when there is a timeline.
    pub fn note(&mut self, now: u64, host: usize, kind: u8, value: u64, line: impl FnOnce() -> String) {
        self.records += 1;
        self.buffer.extend_from_slice(&now.to_le_bytes());
        self.buffer.extend_from_slice(&(host as u32).to_le_bytes());
        self.buffer.push(kind);
        self.buffer.extend_from_slice(&value.to_le_bytes());
        if self.buffer.len() > (1 << 16) - 64 {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
        if let Some(timeline) = &mut self.timeline {
            let (s, us) = (now / 1_000_000, now % 1_000_000);
            let _ = writeln!(timeline, "{s:>5}.{us:06} {host:>3} {}", line()); // a full disk must not change a run
        }
    }

    /// The hash up to now.
    pub fn hash(&mut self) -> String {
        self.hasher.update(&self.buffer);
        self.buffer.clear();
        self.hasher.finalize().to_hex().to_string()
    }

    /// The hash and the counts up to now.
    pub fn summary(&mut self, elapsed: Duration) -> Summary {
        let hash = self.hash();
        if let Some(timeline) = &mut self.timeline {
            let _ = timeline.flush();
        }
        Summary {
            hash,
            records: self.records,
            bytes: self.bytes,
            commits: self.commits,
            errors_count: 0,
            errors: vec![],
            elapsed,
        }
    }
}

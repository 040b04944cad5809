//! Keeps two records of openraft out of a daemon's log: it calls them errors, and they are none.
//!
//! When openraft's core has stopped, in good order or after an error that it has told, tasks that it started
//! still find its channels closed for a moment and say so at ERROR: the worker that sent a heartbeat and has
//! an answer to hand in (`openraft/src/core/heartbeat/worker.rs`, its only error), and the core itself when
//! nobody listens to its metrics any more (`openraft/src/core/raft_core.rs`). Whoever reads a log for errors
//! would look for a failure at each `mesh down`. All else that openraft says passes: errors of the store, of
//! the core, and of whoever asks it for something.

use std::fmt::{self, Write};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// A layer that drops these records, whatever the filter says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl<S: Subscriber> Layer<S> for Quiet {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let holds = match event.metadata().target() {
            "openraft::core::heartbeat::worker" => [" failed to send ", " to RaftCore; when:("],
            "openraft::core::raft_core" => ["failed to report metrics, error: ", ", id: "],
            _ => return true,
        };
        let mut message = Message::default();
        event.record(&mut message);
        !holds.iter().all(|words| message.0.contains(words))
    }
}

#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}"); // a String takes everything
        }
    }
}

#[cfg(test)]
#[path = "quiet_tests.rs"]
pub(super) mod tests;

//! Feeds what the program logs into the trace: the lines of our own crates, and every timer that fires.
//!
//! Installed for the thread of one simulation, never for the process. Lines of other crates are left
//! out: they may hold process-wide counters. A line of ours that does breaks determinism, and the test
//! that runs a seed twice in one process says so.

use crate::current;
use crate::trace::{Event, Trace};
use std::cell::RefCell;
use std::fmt::{self, Write};
use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

thread_local! {
    static FIRST_ERROR: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The first line that this thread's simulation logged as an error.
pub fn first_error() -> Option<String> {
    FIRST_ERROR.with_borrow(Clone::clone)
}

/// Records log lines of this thread until the guard is dropped.
pub fn record(trace: Trace) -> DefaultGuard {
    FIRST_ERROR.set(None);
    tracing::subscriber::set_default(tracing_subscriber::registry().with(Recorder { trace }))
}

struct Recorder {
    trace: Trace,
}

fn of_ours(metadata: &Metadata<'_>) -> bool {
    let root = metadata.target().split("::").next().unwrap_or_default();
    metadata.is_event()
        && match root {
            "mesh" | "node" | "sim" | "topology" => *metadata.level() <= Level::DEBUG,
            "futures_timer" => true,
            _ => false,
        }
}

impl<S: Subscriber> Layer<S> for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        of_ours(metadata)
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let metadata = event.metadata();
        let text = format!("{} {}: {}{}", metadata.level(), metadata.target(), line.message, line.fields);
        let host = current::name();
        let host = host.as_deref().unwrap_or("-");
        self.trace.record(host, Event::Logged(&text));
        if *metadata.level() == Level::ERROR {
            self.trace.error(&format!("{host} {text}"));
            FIRST_ERROR.with_borrow_mut(|first| {
                first.get_or_insert_with(|| format!("{host} {text}"));
            });
        }
    }
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

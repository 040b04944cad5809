//! Feeds what the program logs into the trace: the lines of our own crates, and every timer that fires.
//!
//! Installed for the thread of one simulation, never for the process. Lines of other crates are left
//! out: they may hold process-wide counters. A line of ours that does breaks determinism, and the test
//! that runs a seed twice in one process says so. What libraries' errors bring along is taken out of it.

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
        let text = without_yamux_numbers(&text);
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

/// Yamux begins its errors with the number of the connection, which counts per process, and of the stream:
/// `0000009b/12: `. Only the stream is left.
fn without_yamux_numbers(text: &str) -> String {
    let is_number = |part: &str| part.len() == 8 && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_stream = |rest: &str| {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        digits > 0 && rest[digits..].starts_with(": ")
    };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('/') {
        let cut = before.len().saturating_sub(8);
        let number = before.get(cut..).filter(|number| is_number(number) && is_stream(after));
        out.push_str(number.map_or(before, |_| &before[..cut]));
        out.push('/');
        rest = after;
    }
    out + rest
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_yamux_connection_is_left_out_and_nothing_else() {
        let left = without_yamux_numbers(r#"a stream ended host="h2" error=0000009b/12: connection is closed"#);
        assert_eq!(left, r#"a stream ended host="h2" error=/12: connection is closed"#);
        for kept in ["/ip4/10.0.0.1/tcp/7400", "deadbeef/x: y", "0000009b/12", "9b/12: z", "täglich/1: a", ""] {
            assert_eq!(without_yamux_numbers(kept), kept);
        }
    }
}

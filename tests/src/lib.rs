//! What whole-program tests stand on: daemons with state folders of their own ([`daemon`], [`fleet`]),
//! hosts behind a real masquerade ([`netns`]), machines that boot ([`guest`]), and the project's own sources as data ([`source`], [`tree`]).
//!
//! Nothing here waits by the clock: it waits for a condition and gives up loudly. Every process and
//! namespace that is started here is ended here, by its own id.

pub mod bounded;
pub mod daemon;
pub mod fleet;
pub mod guest;
pub mod lab;
pub mod netns;
pub mod program;
pub mod source;
pub mod status;
pub mod tree;

use std::time::{Duration, Instant};

/// Asks again and again until there is an answer; `None` after `limit`.
///
/// A daemon tells its state when asked, so a condition is waited for by asking every few milliseconds.
pub fn wait_for<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::park_timeout(Duration::from_millis(25));
    }
}

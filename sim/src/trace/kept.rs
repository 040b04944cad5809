//! What is kept of an event for people: small, and put into words only when somebody reads it.

use super::Event;
use super::fact::{self, Keys};
use crate::action::Action;
use crate::invariants::Fact;
use mesh::build::{Attempt, BuildId};
use mesh::identity::PeerKey;
use mesh::lease::Fence;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// Events of a host that are kept for a failure's print-out, without those of wire and disk.
const EVENTS_KEPT_MAX: usize = 12;

/// Segments and syncs of a host that are kept beside: a few, or gossip alone would fill the list.
const FREQUENT_KEPT_MAX: usize = 4;

/// An event, as much of it as people want.
#[derive(Clone, Debug, PartialEq)]
pub enum Kept {
    /// See [`Event::Sent`].
    Sent(SocketAddr, SocketAddr, usize),
    /// See [`Event::Delivered`].
    Delivered(SocketAddr, SocketAddr, usize),
    /// See [`Event::Committed`].
    Committed(u64),
    /// See [`Event::Logged`].
    Logged(String),
    /// See [`Event::Fault`].
    Fault(String),
    /// See [`Event::Acted`].
    Acted(Action),
    /// See [`Event::Skipped`].
    Skipped(String),
    /// See [`Event::Fact`].
    Fact(Fact),
    /// See [`Event::Lease`].
    Lease(Option<Fence>),
    /// See [`Event::Ended`].
    Ended(BuildId, Attempt, PeerKey, &'static str),
    /// See [`Event::Failed`].
    Failed(String),
}

/// An event with its time and host.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its place among all events of the run.
    pub number: u64,
    /// Virtual time.
    pub at: Duration,
    /// Where.
    pub host: String,
    /// What.
    pub what: Kept,
}

impl Kept {
    /// Keeps what matters of an event.
    pub fn of(event: Event<'_>) -> Kept {
        match event {
            Event::Sent { local, remote, bytes } => Kept::Sent(local, remote, bytes.len()),
            Event::Delivered { local, remote, bytes } => Kept::Delivered(local, remote, bytes.len()),
            Event::Committed { len, .. } => Kept::Committed(len),
            Event::Logged(line) => Kept::Logged(line.to_owned()),
            Event::Fault(what) => Kept::Fault(what.to_owned()),
            Event::Acted(action) => Kept::Acted(action.clone()),
            Event::Skipped(why) => Kept::Skipped(why.to_owned()),
            Event::Fact(fact) => Kept::Fact(fact.clone()),
            Event::Lease(fence) => Kept::Lease(fence),
            Event::Ended { build, attempt, host, how } => Kept::Ended(build, attempt, host, how),
            Event::Failed(text) => Kept::Failed(text.to_owned()),
        }
    }

    /// In words, after a mark of its kind.
    pub fn line(&self, keys: &Keys) -> String {
        match self {
            Kept::Sent(local, remote, len) => format!("sent      {local} -> {remote} {len:>6} B"),
            Kept::Delivered(local, remote, len) => format!("delivered {local} <- {remote} {len:>6} B"),
            Kept::Committed(len) => format!("committed {len:>6} B"),
            Kept::Logged(line) => format!("log       {line}"),
            Kept::Fault(what) => format!("FAULT     {what}"),
            Kept::Acted(action) => format!("PLAN      {}", words(action)),
            Kept::Skipped(why) => format!("skipped   {why}"),
            Kept::Fact(fact) => format!("fact      {}", fact::text(fact, keys)),
            Kept::Lease(Some(fence)) => format!("lease     holds the lease of fence {fence}"),
            Kept::Lease(None) => "lease     holds no lease any more".to_owned(),
            Kept::Ended(build, attempt, host, how) => {
                format!("build     {build} attempt {attempt} on {}: {how}", fact::called(keys, host))
            }
            Kept::Failed(text) => format!("FAILED    {text}"),
        }
    }
}

/// An action in a few words.
pub fn words(action: &Action) -> String {
    let kind = action.kind().replace('-', " ");
    match action {
        Action::Submit { host, request, tasks } => {
            let names: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
            format!("request {request} at {host}: {}", names.join(" "))
        }
        Action::Retry { host, task } => format!("retry {task} at {host}"),
        Action::Cancel { host, task } => format!("cancel {task} at {host}"),
        Action::Join { host, by } | Action::Evict { host, by } => format!("{kind} {host} by {by}"),
        Action::Forge { host, what } => format!("forge at {host}: {what:?}"),
        Action::SlowSync { host, ms: 0 } => format!("quick sync at {host}"),
        Action::SlowSync { host, ms } => format!("slow sync at {host}: {ms} ms"),
        Action::LyingSync { host, on } => format!("{} sync at {host}", if *on { "lying" } else { "honest" }),
        Action::ClockRate { host, ppm } => format!("clock rate at {host}: {ppm:+} ppm"),
        Action::ClockJump { host, ms } => format!("clock jump at {host}: {ms:+} ms"),
        Action::Cut { from, to } | Action::Mend { from, to } => format!("{kind} {from} -> {to}"),
        Action::Loss { percent } => format!("loss of {percent} %"),
        Action::ForgetMasquerade { router } => format!("masquerade forgotten at {router}"),
        Action::Network { network, up } => format!("network {network} {}", if *up { "up" } else { "down" }),
        Action::TakeAddress { host, of } => format!("{host} takes the address of {of}"),
        Action::SwapAddresses { a, b } => format!("{a} and {b} swap addresses"),
        Action::Leave { host }
        | Action::Stranger { host }
        | Action::Order { host, .. }
        | Action::ReplayLate { host }
        | Action::Crash { host }
        | Action::Start { host }
        | Action::PowerCut { host }
        | Action::PowerOn { host }
        | Action::Suspend { host }
        | Action::Resume { host }
        | Action::EmptyDisk { host }
        | Action::Backup { host }
        | Action::Restore { host }
        | Action::Clone { host }
        | Action::Unclone { host } => format!("{kind} {host}"),
    }
}

/// The last events of a host.
#[derive(Default)]
pub struct Ring {
    events: VecDeque<(u64, Duration, Kept)>,
    frequent: VecDeque<(u64, Duration, Kept)>,
}

impl Ring {
    /// Adds one; the oldest goes.
    pub fn add(&mut self, number: u64, at: Duration, event: Event<'_>) {
        let (ring, max) = match event {
            Event::Sent { .. } | Event::Delivered { .. } | Event::Committed { .. } => {
                (&mut self.frequent, FREQUENT_KEPT_MAX)
            }
            // A timer that fires says nothing to people.
            Event::Logged(line) if line.starts_with("TRACE") => return,
            _ => (&mut self.events, EVENTS_KEPT_MAX),
        };
        let oldest = if ring.len() < max { None } else { ring.pop_front() };
        let kept = match (oldest, event) {
            // The log is the only frequent event with a text of its own: its memory is used again.
            (Some((_, _, Kept::Logged(mut text))), Event::Logged(line)) => {
                text.clear();
                text.push_str(line);
                Kept::Logged(text)
            }
            _ => Kept::of(event),
        };
        ring.push_back((number, at, kept));
    }

    /// All that is kept, in order.
    pub fn lines(&self, keys: &Keys) -> Vec<(u64, Duration, String)> {
        let mut all: Vec<&(u64, Duration, Kept)> = self.events.iter().chain(&self.frequent).collect();
        all.sort_by_key(|(number, _, _)| *number);
        all.into_iter().map(|(number, at, kept)| (*number, *at, kept.line(keys))).collect()
    }
}

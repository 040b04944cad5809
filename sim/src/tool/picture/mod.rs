//! A picture of a run: a lane a host, time from left to right.
//!
//! What happened is first gathered into spans and marks of each lane (here), then drawn ([`svg`]). It is
//! deterministic, needs nothing but a browser, and says more where the pointer rests.

mod svg;

use super::make::word;
use super::witness::{HEALED, TOGETHER, WORLD};
use crate::action::Action;
use crate::invariants::Fact;
use crate::plan::Plan;
use crate::stage::{Failure, Played};
use crate::trace::{Entry, Kept, Keys, Summary, words};
use mesh::build::{Attempt, BuildId};
use mesh::membership::State;
use std::collections::BTreeMap;
use std::time::Duration;

/// How a thing looks; the legend has a line for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Look {
    Up,
    Suspended,
    Unfit,
    Lease,
    Running,
    Done,
    Failed,
    Lost,
    Fault,
    End,
    Work,
    Skipped,
    Alive,
    Suspect,
    Down,
}

/// From one moment to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub from: Duration,
    pub to: Duration,
    pub look: Look,
    /// What it shows of itself, if there is room.
    pub label: String,
    pub title: String,
}

/// A moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    pub at: Duration,
    pub look: Look,
    pub title: String,
}

/// A host.
#[derive(Default)]
pub struct Lane {
    pub name: String,
    /// Up, suspended: the bar of its process.
    pub process: Vec<Span>,
    pub unfit: Vec<Span>,
    pub leases: Vec<Span>,
    /// In rows, so that none covers another.
    pub builds: Vec<Vec<Span>>,
    /// Faults, their ends, and work.
    pub marks: Vec<Mark>,
    /// Changes of mind about others.
    pub beliefs: Vec<Mark>,
}

/// A run, ready to be drawn.
pub struct Picture {
    pub title: String,
    pub subtitle: String,
    pub failed: bool,
    pub failure_at: Option<Duration>,
    pub end: Duration,
    pub lanes: Vec<Lane>,
    /// Moments of the whole run: together, healed.
    pub moments: Vec<(Duration, String)>,
}

/// What has begun on a host and not ended.
#[derive(Default)]
struct Open {
    up: Option<(Duration, String)>,
    suspended: Option<Duration>,
    unfit: Option<Duration>,
    lease: Option<(Duration, String)>,
    builds: BTreeMap<(BuildId, Attempt), (Duration, String)>,
}

struct Gather<'a> {
    keys: &'a Keys,
    planned: bool,
    lanes: Vec<Lane>,
    open: BTreeMap<String, Open>,
    moments: Vec<(Duration, String)>,
}

impl Picture {
    /// Gathers what is to be drawn.
    pub fn new(plan: Option<&Plan>, history: &[Entry], keys: &Keys, played: &Played, summary: &Summary) -> Picture {
        let hosts = plan.map(|plan| plan.hosts.clone()).unwrap_or_default();
        let mut gather =
            Gather { keys, planned: plan.is_some(), lanes: vec![], open: BTreeMap::new(), moments: vec![] };
        hosts.iter().for_each(|host| {
            gather.lane(host);
        });
        for (n, entry) in history.iter().enumerate() {
            gather.add(entry, skipped(&history[n + 1..]));
        }
        let end = played.ended.max(summary.elapsed).max(Duration::from_millis(1));
        let names: Vec<String> = gather.lanes.iter().map(|lane| lane.name.clone()).collect();
        names.iter().for_each(|name| gather.close(name, end, "at the end"));
        // What concerns no host comes last.
        gather.lanes.sort_by_key(|lane| lane.name == WORLD);

        let title = match plan {
            Some(plan) => {
                let mutant = plan.mutant.map_or(String::new(), |mutant| format!(", without its rule: {mutant}"));
                let (scenario, tier) = (&plan.scenario, word(plan.tier));
                format!("{scenario} on {tier}, seed {}, fleet {}{mutant}", plan.seed, plan.topology)
            }
            None => "a run without a plan".to_owned(),
        };
        let verdict = match &played.failure {
            None => "all went well".to_owned(),
            Some(failure) => failure.to_string(),
        };
        let failure_at = played.failure.as_ref().map(|failure| match failure {
            Failure::Safety(violation) => violation.at,
            _ => end,
        });
        Picture {
            title,
            subtitle: format!("{verdict} ({} records, hash {}…)", summary.records, &summary.hash[..12]),
            failed: played.failure.is_some(),
            failure_at,
            end,
            lanes: gather.lanes,
            moments: gather.moments,
        }
    }
}

/// Why the action just before was not done, if so: the next word about it, before any other action.
fn skipped(after: &[Entry]) -> Option<&str> {
    match &after.iter().find(|entry| matches!(entry.what, Kept::Acted(_) | Kept::Skipped(_)))?.what {
        Kept::Skipped(why) => Some(why),
        _ => None,
    }
}

impl Gather<'_> {
    fn lane(&mut self, name: &str) -> &mut Lane {
        let at = self.lanes.iter().position(|lane| lane.name == name).unwrap_or_else(|| {
            self.lanes.push(Lane { name: name.to_owned(), ..Lane::default() });
            self.lanes.len() - 1
        });
        &mut self.lanes[at]
    }

    fn open(&mut self, name: &str) -> &mut Open {
        self.open.entry(name.to_owned()).or_default()
    }

    fn add(&mut self, entry: &Entry, skipped: Option<&str>) {
        let (at, host) = (entry.at, entry.host.as_str());
        let title = entry.what.line(self.keys);
        let title = title.split_once(' ').map_or("", |(_, words)| words).trim().to_owned();
        match &entry.what {
            Kept::Fact(fact) => self.fact(at, host, fact, title),
            Kept::Acted(action) => self.acted(at, host, action, skipped),
            Kept::Fault(what) if what == HEALED || what == TOGETHER => {
                self.moments.push((at, what.clone()));
                if what == HEALED {
                    let names: Vec<String> = self.open.keys().cloned().collect();
                    names.iter().for_each(|name| self.resume(name, at));
                }
            }
            // A plan's actions are told by themselves, at their hosts.
            Kept::Fault(_) if self.planned && host == WORLD => {}
            Kept::Fault(what) => self.lane(host).marks.push(Mark { at, look: Look::Fault, title: what.clone() }),
            Kept::Lease(fence) => {
                self.end_lease(host, at);
                self.open(host).lease = fence.map(|fence| (at, fence.to_string()));
            }
            Kept::Ended(build, attempt, key, how) => {
                let host = self.keys.get(key).map_or(host.to_owned(), ToString::to_string);
                let look = match *how {
                    "done" => Look::Done,
                    "failed" => Look::Failed,
                    _ => Look::Lost,
                };
                self.end_build(&host, (*build, *attempt), at, look, how);
            }
            // Too many for a picture, or told otherwise.
            Kept::Sent(..)
            | Kept::Delivered(..)
            | Kept::Committed(_)
            | Kept::Logged(_)
            | Kept::Skipped(_)
            | Kept::Failed(_) => {}
        }
    }

    fn fact(&mut self, at: Duration, host: &str, fact: &Fact, title: String) {
        match fact {
            Fact::Started { .. } => self.open(host).up = Some((at, title)),
            Fact::Stopped { .. } => self.close(host, at, "its process ended"),
            Fact::Fit { fit: false, .. } => {
                self.open(host).unfit.get_or_insert(at);
            }
            Fact::Fit { fit: true, .. } => self.end_unfit(host, at),
            Fact::Began { build, attempt, .. } => {
                self.open(host).builds.insert((*build, *attempt), (at, title));
            }
            Fact::Believes { state, .. } => {
                let look = match state {
                    State::Alive => Look::Alive,
                    State::Suspect => Look::Suspect,
                    State::Down | State::Left => Look::Down,
                };
                self.lane(host).beliefs.push(Mark { at, look, title });
            }
            Fact::Accepted { .. } | Fact::Asked { .. } | Fact::Carried(_) | Fact::Refused { .. } => {
                self.lane(host).marks.push(Mark { at, look: Look::Work, title });
            }
            Fact::Wiped { .. } => self.lane(host).marks.push(Mark { at, look: Look::Fault, title }),
            Fact::Spoke { .. }
            | Fact::Signed(_)
            | Fact::SignedBlindly { .. }
            | Fact::Greeted { .. }
            | Fact::Lied { .. }
            | Fact::Given { .. }
            | Fact::Held { .. }
            | Fact::Ordered { .. }
            | Fact::SetAside { .. }
            | Fact::LetBack { .. }
            | Fact::Recovered { .. }
            | Fact::Proposed { .. }
            | Fact::Ended { .. }
            | Fact::Well { .. }
            | Fact::CutOff { .. } => {}
        }
    }

    fn acted(&mut self, at: Duration, host: &str, action: &Action, skipped: Option<&str>) {
        let work = ["submit", "cancel", "join", "order", "backup"].contains(&action.kind());
        let look = match skipped {
            Some(_) => Look::Skipped,
            None if action.is_fault() => Look::Fault,
            None if work => Look::Work,
            None => Look::End,
        };
        let why = skipped.map_or(String::new(), |why| format!(" (skipped: {why})"));
        self.lane(host).marks.push(Mark { at, look, title: format!("{}{why}", words(action)) });
        match action {
            Action::Suspend { .. } if skipped.is_none() => {
                self.open(host).suspended.get_or_insert(at);
            }
            Action::Resume { .. } if skipped.is_none() => self.resume(host, at),
            _ => {}
        }
    }

    fn resume(&mut self, host: &str, at: Duration) {
        if let Some(from) = self.open(host).suspended.take() {
            let title = format!("suspended for {:.3} s", (at - from).as_secs_f64());
            self.lane(host).process.push(Span { from, to: at, look: Look::Suspended, label: String::new(), title });
        }
    }

    fn end_lease(&mut self, host: &str, at: Duration) {
        if let Some((from, fence)) = self.open(host).lease.take() {
            let title = format!("leads with fence {fence} for {:.3} s", (at - from).as_secs_f64());
            self.lane(host).leases.push(Span { from, to: at, look: Look::Lease, label: fence, title });
        }
    }

    fn end_unfit(&mut self, host: &str, at: Duration) {
        if let Some(from) = self.open(host).unfit.take() {
            let title = "not every reason to call it healthy and reachable holds".to_owned();
            self.lane(host).unfit.push(Span { from, to: at, look: Look::Unfit, label: String::new(), title });
        }
    }

    fn end_build(&mut self, host: &str, which: (BuildId, Attempt), at: Duration, look: Look, how: &str) {
        let Some((from, title)) = self.open(host).builds.remove(&which) else { return };
        let label = format!("{}/{}", which.0, which.1);
        let span = Span { from, to: at, look, label, title: format!("{title}: {how}") };
        let rows = &mut self.lane(host).builds;
        match rows.iter_mut().find(|row| row.last().is_none_or(|last: &Span| last.to <= from)) {
            Some(row) => row.push(span),
            None => rows.push(vec![span]),
        }
    }

    /// Ends all that a process has begun.
    fn close(&mut self, host: &str, at: Duration, how: &str) {
        self.resume(host, at);
        self.end_lease(host, at);
        if how == "at the end" {
            self.end_unfit(host, at);
        }
        let builds: Vec<_> = self.open(host).builds.keys().copied().collect();
        for which in builds {
            let look = if how == "at the end" { Look::Running } else { Look::Lost };
            self.end_build(host, which, at, look, how);
        }
        if let Some((from, title)) = self.open(host).up.take() {
            // Before what it was suspended in, which is drawn over it.
            self.lane(host).process.insert(0, Span { from, to: at, look: Look::Up, label: String::new(), title });
        }
    }
}

#[cfg(test)]
mod tests;

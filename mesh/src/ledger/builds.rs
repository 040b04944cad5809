//! The builds of the ledger: states, attempts, and what may follow what.
//!
//! A build waits for its needs, is queued, runs as one or more numbered attempts, and ends exactly once.
//! An attempt that is not running any more can say nothing (incident 10); a failure of the command is
//! tried on another host as often as the build allows; what fails in the host's own phases is tried
//! elsewhere without counting against the package.

use super::entry::*;
use crate::build::*;
use crate::identity::PeerKey;
use crate::limits::*;
use crate::mutants::{self, Mutant};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Failures in a host's own phases before the build is given up: three hosts in a row are no accident.
const HOST_FAILURES_MAX: usize = 3;

/// Where a build stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum State {
    /// A need is not done yet.
    Waiting,
    /// No attempt runs, one is wanted.
    Queued,
    /// At least one attempt runs.
    Running,
    /// Its outputs are verified and held.
    Done,
    /// It will not be tried again.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

impl State {
    /// Whether nothing can follow.
    pub fn is_final(self) -> bool {
        matches!(self, State::Done | State::Failed | State::Cancelled)
    }

    /// The legal transitions. A final state has none: a build ends once.
    pub fn may_become(self, next: State) -> bool {
        use State::*;
        matches!(
            (self, next),
            (Waiting, Queued | Failed | Cancelled)
                | (Queued, Running | Failed | Cancelled)
                | (Running, Queued | Done | Failed | Cancelled)
        )
    }
}

/// How an attempt stands.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum AttemptState {
    /// Its host has it.
    Running,
    /// Its host reported.
    Ended(Outcome),
    /// Taken from its host.
    Lost(String),
    /// Its build was cancelled, or ended by another attempt.
    Cancelled,
}

/// One try of a build on one host.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Its number.
    pub number: Attempt,
    /// Who has it.
    pub host: PeerKey,
    /// The host's start number when it was assigned.
    pub start: u64,
    /// Ledger time of the assignment.
    pub assigned_ms: u64,
    /// Ledger time of its end; 0 while it runs.
    pub ended_ms: u64,
    /// How it stands.
    pub state: AttemptState,
    /// Who signed to hold its blobs.
    pub holders: Holders,
}

impl AttemptRecord {
    /// Whether its host has it now.
    pub fn is_running(&self) -> bool {
        self.state == AttemptState::Running
    }
    /// Its outcome, when it was reported.
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.state {
            AttemptState::Ended(outcome) => Some(outcome),
            _ => None,
        }
    }
    fn succeeded(&self) -> bool {
        self.outcome().is_some_and(|o| o.end == End::Done)
    }
}

/// A build and all that happened to it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Build {
    /// Its number.
    pub id: BuildId,
    /// What was submitted; never changes.
    pub spec: BuildSpec,
    /// Who submitted it.
    pub by: PeerKey,
    /// The builds it needs, by number.
    pub needs: Vec<BuildId>,
    /// The build it repeats, if any.
    pub retry_of: Option<BuildId>,
    /// Where it stands.
    pub state: State,
    /// Why it stands there, in words, when that is not plain.
    pub reason: String,
    /// Its tries.
    pub attempts: Vec<AttemptRecord>,
    /// Ledger time of submission.
    pub submitted_ms: u64,
    /// Ledger time of its end; 0 before.
    pub finished_ms: u64,
    /// Grows with every change.
    pub revision: u64,
}

impl Build {
    /// Attempts that run now.
    pub fn running(&self) -> impl Iterator<Item = &AttemptRecord> {
        self.attempts.iter().filter(|a| a.is_running())
    }

    /// How many more attempts should be running.
    pub fn wanted(&self) -> usize {
        if self.state.is_final() || self.state == State::Waiting || self.attempts.len() >= ATTEMPTS_MAX as usize {
            return 0;
        }
        let runs = |a: &AttemptRecord| a.is_running() && !mutants::on(Mutant::AssignsWhatRuns);
        let have = self.attempts.iter().filter(|a| a.succeeded() || runs(a)).count();
        (self.spec.confirm as usize).saturating_sub(have)
    }

    /// The first attempt that succeeded: its outputs are the build's.
    pub fn result(&self) -> Option<&AttemptRecord> {
        self.attempts.iter().find(|a| a.succeeded())
    }

    /// The attempt whose end says most about the build: the successful one, else the last reported.
    pub fn telling(&self) -> Option<&AttemptRecord> {
        self.result().or_else(|| self.attempts.iter().rev().find(|a| a.outcome().is_some()))
    }

    /// Whether `host` has run this build to an end of its own, or is running it.
    pub fn tried_on(&self, host: &PeerKey) -> bool {
        self.attempts.iter().any(|a| a.host == *host && (a.is_running() || a.outcome().is_some()))
    }
}

/// The table of builds.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Builds {
    all: BTreeMap<BuildId, Build>,
    last: u64,
    /// Not finished and wanting an attempt.
    wanting: BTreeSet<BuildId>,
    /// With at least one running attempt.
    running: BTreeSet<BuildId>,
    /// Finished, oldest first.
    finished: VecDeque<BuildId>,
    /// Build -> builds that need it.
    dependents: BTreeMap<BuildId, Vec<BuildId>>,
    requests: BTreeMap<RequestId, Vec<BuildId>>,
    request_order: VecDeque<RequestId>,
    #[serde(skip)]
    changed: BTreeSet<BuildId>,
}

/// Builds by state, for status.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Waiting for needs or for a host.
    pub queued: u64,
    /// With a running attempt.
    pub running: u64,
    /// Done.
    pub done: u64,
    /// Failed.
    pub failed: u64,
    /// Cancelled.
    pub cancelled: u64,
}

impl Builds {
    /// Those that have ended, the oldest first.
    pub fn finished(&self) -> impl DoubleEndedIterator<Item = &Build> {
        self.finished.iter().filter_map(|id| self.all.get(id))
    }

    /// One build.
    pub fn get(&self, id: BuildId) -> Option<&Build> {
        self.all.get(&id)
    }
    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.all.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
    /// All builds, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Build> {
        self.all.values()
    }
    /// Builds that want an attempt, oldest first.
    pub fn wanting(&self) -> impl Iterator<Item = &Build> {
        self.wanting.iter().filter_map(|id| self.all.get(id))
    }
    /// Builds with running attempts.
    pub fn running(&self) -> impl Iterator<Item = &Build> {
        self.running.iter().filter_map(|id| self.all.get(id))
    }
    /// How many are in each state.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for build in self.all.values() {
            match build.state {
                State::Waiting | State::Queued => counts.queued += 1,
                State::Running => counts.running += 1,
                State::Done => counts.done += 1,
                State::Failed => counts.failed += 1,
                State::Cancelled => counts.cancelled += 1,
            }
        }
        counts
    }

    pub(super) fn take_changed(&mut self) -> BTreeSet<BuildId> {
        std::mem::take(&mut self.changed)
    }

    pub(super) fn mark_changed(&mut self, ids: impl IntoIterator<Item = BuildId>) {
        self.changed.extend(ids);
    }

    pub(super) fn submit(&mut self, by: PeerKey, request: RequestId, specs: Vec<BuildSpec>, now_ms: u64) -> Reply {
        if let Some(builds) = self.answered(&request) {
            return Reply::made(builds.clone());
        }
        if specs.is_empty() || specs.len() > SUBMISSION_BUILDS_MAX {
            return Reply::refused(Code::Full, format!("a submission has 1 to {SUBMISSION_BUILDS_MAX} builds"));
        }
        if self.all.len() - self.finished.len() + specs.len() > OPEN_BUILDS_MAX {
            return Reply::refused(Code::Full, format!("more than {OPEN_BUILDS_MAX} builds would be open"));
        }
        let order = match order_of(&specs) {
            Ok(order) => order,
            Err(text) => return Reply::refused(Code::Invalid, text),
        };
        let mut ids = BTreeMap::new();
        for (n, spec) in specs.iter().enumerate() {
            ids.insert(spec.name.clone(), BuildId(self.last + 1 + n as u64));
        }
        let made: Vec<BuildId> = (0..specs.len()).map(|n| BuildId(self.last + 1 + n as u64)).collect();
        debug_assert_eq!(order.len(), specs.len());
        for (id, spec) in made.iter().zip(specs) {
            let needs = spec.needs.iter().filter_map(|name| ids.get(name).copied()).collect();
            self.add(Build {
                id: *id,
                spec,
                by,
                needs,
                retry_of: None,
                state: State::Waiting,
                reason: String::new(),
                attempts: vec![],
                submitted_ms: now_ms,
                finished_ms: 0,
                revision: 0,
            });
        }
        self.last += made.len() as u64;
        for id in &made {
            self.settle_waiting(*id, now_ms);
        }
        self.remember(request, made.clone());
        Reply::made(made)
    }

    pub(super) fn retry(&mut self, by: PeerKey, request: RequestId, id: BuildId, now_ms: u64) -> Reply {
        if let Some(builds) = self.answered(&request) {
            return Reply::made(builds.clone());
        }
        let Some(old) = self.all.get(&id) else {
            return Reply::refused(Code::Unknown, format!("there is no build {id}"));
        };
        if !matches!(old.state, State::Failed | State::Cancelled) {
            return Reply::refused(
                Code::Conflict,
                format!("{id} has not failed; only failed or cancelled builds are retried"),
            );
        }
        let mut needs = vec![];
        for need in &old.needs {
            // A need that failed may have been retried meanwhile: then the newest try counts.
            let newest = self.all.values().rev().find(|b| b.retry_of == Some(*need)).map_or(*need, |b| b.id);
            match self.all.get(&newest).map(|b| b.state) {
                Some(State::Failed | State::Cancelled) | None => {
                    return Reply::refused(
                        Code::Conflict,
                        format!("{id} needs {newest}, which is not done: retry that first"),
                    );
                }
                Some(_) => needs.push(newest),
            }
        }
        let new = BuildId(self.last + 1);
        let mut spec = old.spec.clone();
        if mutants::on(Mutant::RetryChangesTheBuild) {
            spec.name.push_str("-retry");
        }
        self.last += 1;
        self.add(Build {
            id: new,
            spec,
            by,
            needs,
            retry_of: Some(id),
            state: State::Waiting,
            reason: String::new(),
            attempts: vec![],
            submitted_ms: now_ms,
            finished_ms: 0,
            revision: 0,
        });
        self.settle_waiting(new, now_ms);
        self.remember(request, vec![new]);
        Reply::made(vec![new])
    }

    pub(super) fn assign(&mut self, assignment: Assignment, now_ms: u64) -> Result<(), (Code, String)> {
        let Assignment { build: id, attempt, host, start } = assignment;
        let build = self.all.get_mut(&id).ok_or_else(|| (Code::Unknown, format!("there is no build {id}")))?;
        if build.wanted() == 0 || attempt.0 as usize != build.attempts.len() + 1 {
            return Err((Code::Conflict, format!("{id} wants no attempt {attempt}")));
        }
        if build.attempts.iter().any(|a| a.host == host && (a.is_running() || a.succeeded())) {
            return Err((Code::Conflict, format!("{id} is on that host already")));
        }
        build.attempts.push(AttemptRecord {
            number: attempt,
            host,
            start,
            assigned_ms: now_ms,
            ended_ms: 0,
            state: AttemptState::Running,
            holders: vec![],
        });
        self.settle(id, now_ms);
        Ok(())
    }

    pub(super) fn end(
        &mut self,
        id: BuildId,
        number: Attempt,
        host: PeerKey,
        state: AttemptState,
        holders: Holders,
        now_ms: u64,
    ) -> Result<(), (Code, String)> {
        let build = self.all.get_mut(&id).ok_or_else(|| (Code::Unknown, format!("there is no build {id}")))?;
        let attempt = build
            .attempts
            .iter_mut()
            .find(|a| a.number == number && a.host == host)
            .ok_or_else(|| (Code::Unknown, format!("{id} has no attempt {number} on that host")))?;
        if !attempt.is_running() && !mutants::on(Mutant::AttemptNumberIgnored) {
            return Err((
                Code::Conflict,
                format!("attempt {number} of {id} is not running any more: its report has no effect"),
            ));
        }
        attempt.state = state;
        attempt.ended_ms = now_ms;
        attempt.holders = holders;
        self.judge(id, now_ms);
        Ok(())
    }

    pub(super) fn cancel(&mut self, id: BuildId, reason: &str, now_ms: u64) -> Result<(), (Code, String)> {
        let build = self.all.get(&id).ok_or_else(|| (Code::Unknown, format!("there is no build {id}")))?;
        if build.state.is_final() {
            return Err((Code::Conflict, format!("{id} has ended already")));
        }
        self.finish(id, State::Cancelled, crate::roster::cut(reason), now_ms);
        Ok(())
    }

    /// What a request made when it came first.
    fn answered(&self, request: &RequestId) -> Option<&Vec<BuildId>> {
        self.requests.get(request).filter(|_| !mutants::on(Mutant::RequestIdIgnored))
    }

    fn remember(&mut self, request: RequestId, made: Vec<BuildId>) {
        self.requests.insert(request, made);
        self.request_order.push_back(request);
        if self.request_order.len() > REQUESTS_MAX
            && let Some(oldest) = self.request_order.pop_front()
        {
            self.requests.remove(&oldest);
        }
    }

    fn add(&mut self, build: Build) {
        for need in &build.needs {
            self.dependents.entry(*need).or_default().push(build.id);
        }
        self.changed.insert(build.id);
        self.all.insert(build.id, build);
    }

    /// After an attempt ended: is the build done, given up, or wanted again?
    fn judge(&mut self, id: BuildId, now_ms: u64) {
        let Some(build) = self.all.get(&id) else { return };
        if build.state.is_final() {
            return;
        }
        let good: Vec<&AttemptRecord> = build.attempts.iter().filter(|a| a.succeeded()).collect();
        let manifests: BTreeSet<_> = good.iter().filter_map(|a| a.outcome()).map(|o| o.manifest).collect();
        if manifests.len() > 1 {
            let hosts = good.len();
            return self.finish(
                id,
                State::Failed,
                format!("not reproducible: {hosts} hosts built different outputs"),
                now_ms,
            );
        }
        if good.len() >= build.spec.confirm as usize {
            return self.finish(id, State::Done, String::new(), now_ms);
        }
        let ended = || build.attempts.iter().filter_map(|a| a.outcome()).filter(|o| o.end != End::Done);
        let by_command = ended().filter(|o| o.phase.is_command()).count();
        let by_host = ended().filter(|o| !o.phase.is_command()).count();
        let last = ended().next_back().map(|o| o.text.clone()).unwrap_or_default();
        let given_up = by_command > build.spec.retries as usize || by_host >= HOST_FAILURES_MAX;
        if given_up && !mutants::on(Mutant::RetriesWithoutBound) {
            return self.finish(id, State::Failed, last, now_ms);
        }
        if build.attempts.len() >= ATTEMPTS_MAX as usize && build.running().next().is_none() {
            let text = format!("given up after {ATTEMPTS_MAX} attempts; {last}");
            return self.finish(id, State::Failed, text, now_ms);
        }
        self.settle(id, now_ms);
    }

    fn finish(&mut self, id: BuildId, state: State, reason: String, now_ms: u64) {
        let Some(build) = self.all.get_mut(&id) else { return };
        let legal = build.state.may_become(state) || mutants::on(Mutant::AttemptNumberIgnored);
        debug_assert!(legal, "{id}: {:?} -> {state:?}", build.state);
        build.state = state;
        build.reason = reason;
        build.finished_ms = now_ms;
        build.revision += 1;
        for attempt in build.attempts.iter_mut().filter(|a| a.is_running()) {
            attempt.state = AttemptState::Cancelled;
            attempt.ended_ms = now_ms;
        }
        self.changed.insert(id);
        self.wanting.remove(&id);
        self.running.remove(&id);
        self.finished.push_back(id);
        for dependent in self.dependents.get(&id).cloned().unwrap_or_default() {
            self.settle_waiting(dependent, now_ms);
        }
        self.forget_oldest();
    }

    /// A waiting build whose needs may have changed.
    fn settle_waiting(&mut self, id: BuildId, now_ms: u64) {
        let Some(build) = self.all.get(&id) else { return };
        if build.state != State::Waiting {
            return;
        }
        let mut ready = true;
        for need in &build.needs {
            match self.all.get(need).map(|b| b.state) {
                Some(State::Done) => {}
                Some(State::Failed | State::Cancelled) | None => {
                    let reason = format!("{need}, which it needs, did not get done");
                    return self.finish(id, State::Failed, reason, now_ms);
                }
                Some(_) => ready = false,
            }
        }
        if ready && let Some(build) = self.all.get_mut(&id) {
            build.state = State::Queued;
            build.revision += 1;
            self.wanting.insert(id);
            self.changed.insert(id);
        }
    }

    /// Brings state and indexes in line with the attempts of a build that is neither waiting nor final.
    fn settle(&mut self, id: BuildId, _now_ms: u64) {
        let Some(build) = self.all.get_mut(&id) else { return };
        let running = build.running().next().is_some();
        build.state = if running { State::Running } else { State::Queued };
        build.revision += 1;
        set_member(&mut self.running, id, running);
        let wanted = build.wanted() > 0;
        set_member(&mut self.wanting, id, wanted);
        self.changed.insert(id);
    }

    /// Keeps the table bounded. A finished build that an open one still needs goes to the back.
    fn forget_oldest(&mut self) {
        let most = if mutants::on(Mutant::FinishedForgotten) { 0 } else { FINISHED_BUILDS_MAX };
        for _ in most..self.finished.len() {
            let Some(oldest) = self.finished.pop_front() else { break };
            let dependents = self.dependents.get(&oldest).map(Vec::as_slice).unwrap_or_default();
            let needed = dependents.iter().filter_map(|id| self.all.get(id)).any(|b| !b.state.is_final());
            if needed {
                self.finished.push_back(oldest);
            } else {
                self.dependents.remove(&oldest);
                self.all.remove(&oldest);
            }
        }
    }
}

fn set_member(set: &mut BTreeSet<BuildId>, id: BuildId, is: bool) {
    match is {
        true => set.insert(id),
        false => set.remove(&id),
    };
}

/// An order in which builds of one submission can run.
///
/// # Errors
/// A sentence naming the bad build, the unknown need, or the whole cycle.
pub fn order_of(specs: &[BuildSpec]) -> Result<Vec<usize>, String> {
    let mut by_name = BTreeMap::new();
    for (n, spec) in specs.iter().enumerate() {
        spec.check()?;
        if by_name.insert(spec.name.as_str(), n).is_some() {
            return Err(format!("two builds are named `{}`", spec.name));
        }
    }
    let mut needs_left = vec![0; specs.len()];
    let mut needed_by: Vec<Vec<usize>> = vec![vec![]; specs.len()];
    for (n, spec) in specs.iter().enumerate() {
        let distinct: BTreeSet<&str> = spec.needs.iter().map(String::as_str).collect();
        for need in &distinct {
            let Some(m) = by_name.get(need) else {
                return Err(format!("build `{}` needs `{need}`, which is not in this submission", spec.name));
            };
            needed_by[*m].push(n);
        }
        needs_left[n] = distinct.len();
    }
    let mut ready: BTreeSet<usize> = (0..specs.len()).filter(|n| needs_left[*n] == 0).collect();
    let mut order = vec![];
    while let Some(n) = ready.pop_first() {
        order.push(n);
        for m in &needed_by[n] {
            needs_left[*m] -= 1;
            if needs_left[*m] == 0 {
                ready.insert(*m);
            }
        }
    }
    if order.len() < specs.len() {
        return Err(format!("builds need each other in a circle: {}", circle(specs, &by_name, &needs_left)));
    }
    Ok(order)
}

/// Follows unfinished needs until a build comes again: that is the circle.
fn circle(specs: &[BuildSpec], by_name: &BTreeMap<&str, usize>, needs_left: &[usize]) -> String {
    let mut path: Vec<usize> = vec![];
    let mut at = needs_left.iter().position(|left| *left > 0).unwrap_or(0);
    while !path.contains(&at) {
        path.push(at);
        let next = specs[at].needs.iter().filter_map(|name| by_name.get(name.as_str())).find(|n| needs_left[**n] > 0);
        match next {
            Some(next) => at = *next,
            None => break,
        }
    }
    let from = path.iter().position(|n| *n == at).unwrap_or(0);
    let names: Vec<&str> = path[from..].iter().chain([&at]).map(|n| specs[*n].name.as_str()).collect();
    names.join(" -> ")
}

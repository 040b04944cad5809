//! Running what the ledger gives a host: fetch, run, keep, copy to a second host, report. After
//! `node::driver::execute`. An attempt takes time and leaves blobs that are nothing but their names.

use super::blobs::{Fetch, Purpose};
use super::disk::Write;
use super::host::{Env, Process};
use super::message::Message;
use super::submit::Asker;
use crate::action::Task;
use crate::invariants::Fact;
use mesh::build::{Attempt, BlobId, BuildId, BuildSpec, End, Outcome, Phase, Receipt};
use mesh::identity::PeerKey;
use mesh::ledger::{AttemptEnd, Code, Command, Entry, Reply, Report};
use mesh::membership::State;
use mesh::time::Time;
use mesh::wire::Signed;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

const REPORT_WITHIN: Duration = Duration::from_secs(30);
const HOLDER_PAUSE: Duration = Duration::from_millis(500);

/// Where an attempt is.
#[derive(Debug)]
enum At {
    /// So many needs are not fetched yet.
    Fetching(usize),
    /// The command runs.
    Running(Time),
    /// Its outputs are on their way to the disk.
    Storing(u64),
    /// Another host is asked to hold them, then these.
    Holding(u64, PeerKey, VecDeque<PeerKey>),
    /// Nobody can hold them now.
    Resting(Time),
    /// Its report is on its way.
    Reporting,
}

struct Job {
    at: At,
    spec: BuildSpec,
    needs: Vec<BlobId>,
    outcome: Option<Outcome>,
    receipts: Vec<Signed>,
}

/// The attempts of a process, and the blobs that it fetches.
#[derive(Default)]
pub struct Jobs {
    jobs: BTreeMap<(BuildId, Attempt), Job>,
    pub(super) fetches: BTreeMap<u64, Fetch>,
    pub(super) numbers: u64,
}

impl Jobs {
    /// When something is due.
    pub fn due(&self) -> Option<Time> {
        let at = |job: &Job| match job.at {
            At::Running(at) | At::Resting(at) => Some(at),
            _ => None,
        };
        self.jobs.values().filter_map(at).min()
    }

    /// Attempts and fetches under way.
    pub fn count(&self) -> usize {
        self.jobs.len() + self.fetches.len()
    }
}

/// A build of a scenario as the mesh is given it.
pub fn spec_of(task: &Task) -> BuildSpec {
    let env = [
        ("SIM_TAKES_MS".to_owned(), task.takes_ms.to_string()),
        ("SIM_EXIT".to_owned(), task.exit.to_string()),
        ("SIM_BREAKS_ON".to_owned(), task.breaks_on.join(" ")),
    ];
    let mut spec = BuildSpec::new(&task.name, vec!["build".to_owned(), task.name.clone()]);
    (spec.env, spec.needs, spec.outputs) = (env.into(), task.needs.clone(), vec!["out".to_owned()]);
    spec
}

fn env_of<'a>(spec: &'a BuildSpec, key: &str) -> &'a str {
    spec.env.iter().find(|(k, _)| k == key).map_or("", |(_, value)| value)
}

impl Process {
    /// Starts and stops attempts as the ledger says.
    pub(super) fn follow_builds(&mut self, env: &mut Env<'_>, changed: &BTreeSet<BuildId>) {
        for id in changed {
            let attempts = self.ledger.builds().get(*id).map(|b| b.attempts.as_slice()).unwrap_or_default();
            let mine = attempts.iter().filter(|a| a.host == self.me && a.start == self.start);
            for (attempt, running) in mine.map(|a| (a.number, a.is_running())).collect::<Vec<_>>() {
                match self.jobs.jobs.get_mut(&(*id, attempt)) {
                    None if running => self.begin(env, *id, attempt),
                    Some(job) if !running => {
                        let runs = matches!(job.at, At::Fetching(_) | At::Running(_));
                        if runs {
                            let outcome = ended(End::Cancelled, Phase::Command, -1);
                            self.report(env, *id, attempt, outcome);
                        } else if !matches!(job.at, At::Reporting) {
                            self.jobs.jobs.remove(&(*id, attempt));
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    fn begin(&mut self, env: &mut Env<'_>, id: BuildId, attempt: Attempt) {
        let Some(build) = self.ledger.builds().get(id) else { return };
        let mut needs = vec![];
        for need in &build.needs {
            let Some(result) = self.ledger.builds().get(*need).and_then(|b| b.result()) else { return };
            if let Some(manifest) = result.outcome().and_then(|o| o.manifest) {
                needs.push((manifest, result.holders.clone()));
            }
        }
        let spec = build.spec.clone();
        let (outcome, receipts) = (None, vec![]);
        let job =
            Job { at: At::Fetching(needs.len()), spec, needs: needs.iter().map(|n| n.0).collect(), outcome, receipts };
        self.jobs.jobs.insert((id, attempt), job);
        for (manifest, holders) in &needs {
            let ids = env.cx.whole(*manifest);
            self.fetch(env, ids, holders, Purpose::Job(id, attempt));
        }
        if needs.is_empty() {
            self.run(env, id, attempt);
        }
    }

    /// A need is here, or nowhere.
    pub(super) fn need_fetched(&mut self, env: &mut Env<'_>, id: BuildId, attempt: Attempt, ok: bool) {
        let Some(Job { at: At::Fetching(left), .. }) = self.jobs.jobs.get_mut(&(id, attempt)) else { return };
        *left -= 1;
        let left = *left;
        if !ok {
            self.report(env, id, attempt, ended(End::Failed, Phase::Fetch, -1));
        } else if left == 0 {
            self.run(env, id, attempt);
        }
    }

    fn run(&mut self, env: &mut Env<'_>, id: BuildId, attempt: Attempt) {
        let now = self.now(env);
        let Some(job) = self.jobs.jobs.get_mut(&(id, attempt)) else { return };
        let takes: u64 = env_of(&job.spec, "SIM_TAKES_MS").parse().unwrap_or(1_000);
        let breaks = env_of(&job.spec, "SIM_BREAKS_ON").split(' ').any(|host| host == &*env.m.name);
        job.at = At::Running(now + Duration::from_millis(takes));
        let (host, key, fence) = (env.m.name.clone(), self.me, self.ledger.leader().map(|l| l.1));
        env.cx.fact(Fact::Began { host, key, build: id, attempt, fence });
        if breaks {
            env.m.broke = env.cx.now.max(1);
            self.report(env, id, attempt, ended(End::Failed, Phase::Sandbox, -1));
        }
    }

    /// Commands that have ended, hosts that may be asked again.
    pub(super) fn jobs_due(&mut self, env: &mut Env<'_>) {
        let now = self.now(env);
        let due = |at: &At| matches!(at, At::Running(at) | At::Resting(at) if *at <= now);
        let due: Vec<_> = self.jobs.jobs.iter().filter(|(_, job)| due(&job.at)).map(|(k, _)| *k).collect();
        for (id, attempt) in due {
            match self.jobs.jobs.get(&(id, attempt)).map(|job| &job.at) {
                Some(At::Running(_)) => self.command_ended(env, id, attempt),
                Some(At::Resting(_)) if self.still_running(id, attempt) => self.find_holder(env, id, attempt),
                Some(At::Resting(_)) => drop(self.jobs.jobs.remove(&(id, attempt))),
                _ => {}
            }
        }
    }

    fn command_ended(&mut self, env: &mut Env<'_>, id: BuildId, attempt: Attempt) {
        let Some(job) = self.jobs.jobs.get_mut(&(id, attempt)) else { return };
        let code: i32 = env_of(&job.spec, "SIM_EXIT").parse().unwrap_or(0);
        let mut outcome = ended(if code == 0 { End::Done } else { End::Failed }, Phase::Command, code);
        let log = BlobId::of(format!("log of {id} {attempt}").as_bytes());
        outcome.log = Some(log);
        let mut written = env.m.disk.write(Write::Blob(log));
        if code == 0 {
            // The same on every host: of the build and what it needs.
            let needs: Vec<String> = job.needs.iter().map(ToString::to_string).collect();
            let file = BlobId::of(format!("file of {} {}", job.spec.name, needs.join(" ")).as_bytes());
            let manifest = env.cx.manifest(file);
            outcome.manifest = Some(manifest);
            env.m.disk.write(Write::Blob(file));
            written = env.m.disk.write(Write::Blob(manifest));
        }
        job.outcome = Some(outcome);
        job.at = At::Storing(written);
    }

    /// What was written is on the disk.
    pub(super) fn outputs_synced(&mut self, env: &mut Env<'_>, written: u64) {
        let stored = |job: &Job| matches!(job.at, At::Storing(at) if at <= written);
        let stored: Vec<_> = self.jobs.jobs.iter().filter(|(_, job)| stored(job)).map(|(k, _)| *k).collect();
        for (id, attempt) in stored {
            let Some(outcome) = self.jobs.jobs.get(&(id, attempt)).and_then(|job| job.outcome.clone()) else {
                continue;
            };
            self.report(env, id, attempt, outcome);
        }
    }

    fn still_running(&self, id: BuildId, attempt: Attempt) -> bool {
        let mine = |a: &mesh::ledger::AttemptRecord| a.number == attempt && a.host == self.me && a.is_running();
        self.ledger.builds().get(id).is_some_and(|b| b.attempts.iter().any(mine))
    }

    fn receipt(&self, id: BuildId, attempt: Attempt, outcome: &Outcome) -> Receipt {
        Receipt { mesh: self.mesh.0, build: id, attempt, manifest: outcome.manifest, log: outcome.log }
    }

    fn report(&mut self, env: &mut Env<'_>, id: BuildId, attempt: Attempt, outcome: Outcome) {
        let receipt = self.receipt(id, attempt, &outcome);
        let Some(job) = self.jobs.jobs.get_mut(&(id, attempt)) else { return };
        env.cx.fact(Fact::Ended { key: self.me, build: id, attempt });
        if outcome.manifest.is_some() || outcome.log.is_some() {
            job.receipts = vec![Signed::seal(&env.m.keys, &receipt)];
        }
        job.outcome = Some(outcome);
        self.find_holder(env, id, attempt);
    }

    /// Other hosts that could hold something, the least busy first.
    fn possible_holders(&self) -> Vec<PeerKey> {
        let fit = |peer: &PeerKey| self.lines.get(peer).is_some_and(|lines| lines.iter().any(|l| l.member));
        let others = self.members.hosts().filter(|(peer, h)| **peer != self.me && h.state == State::Alive && !h.cloned);
        let mut others: Vec<(u32, PeerKey)> = others.map(|(peer, h)| (h.free_cores.unwrap_or(0), *peer)).collect();
        others.sort_by(|a, b| b.cmp(a));
        others.into_iter().map(|(_, peer)| peer).filter(fit).collect()
    }

    fn find_holder(&mut self, env: &mut Env<'_>, id: BuildId, attempt: Attempt) {
        let Some(job) = self.jobs.jobs.get_mut(&(id, attempt)) else { return };
        job.receipts.retain(|receipt| receipt.by == self.me || self.ledger.roster().is_member(&receipt.by));
        let wanted = if job.receipts.is_empty() { 0 } else { self.ledger.holders_needed() };
        if job.receipts.len() >= wanted {
            return self.submit_report(env, id, attempt);
        }
        let have: Vec<PeerKey> = job.receipts.iter().map(|r| r.by).collect();
        let candidates = self.possible_holders().into_iter().filter(|p| !have.contains(p)).collect();
        self.ask_holder(env, id, attempt, candidates);
    }

    fn ask_holder(&mut self, env: &mut Env<'_>, id: BuildId, attempt: Attempt, mut candidates: VecDeque<PeerKey>) {
        let Some(outcome) = self.jobs.jobs.get(&(id, attempt)).and_then(|job| job.outcome.clone()) else { return };
        let receipt = self.receipt(id, attempt, &outcome);
        while let Some(peer) = candidates.pop_front() {
            self.jobs.numbers += 1;
            let number = self.jobs.numbers;
            if self.send(env, peer, Message::Hold(number, receipt.clone())) {
                return self.set(id, attempt, At::Holding(number, peer, candidates));
            }
        }
        if outcome.end == End::Done {
            // Nobody can hold it now: wait, for as long as the attempt is ours.
            let until = self.now(env) + HOLDER_PAUSE;
            self.set(id, attempt, At::Resting(until));
        } else {
            self.submit_report(env, id, attempt);
        }
    }

    fn set(&mut self, id: BuildId, attempt: Attempt, at: At) {
        if let Some(job) = self.jobs.jobs.get_mut(&(id, attempt)) {
            job.at = at;
        }
    }

    fn asked_under(&self, number: u64) -> Option<(BuildId, Attempt)> {
        let asked = |job: &Job| matches!(job.at, At::Holding(n, ..) if n == number);
        self.jobs.jobs.iter().find(|(_, job)| asked(job)).map(|(k, _)| *k)
    }

    /// A host holds an attempt's blobs, or does not.
    pub(super) fn held(&mut self, env: &mut Env<'_>, from: PeerKey, number: u64, answer: Result<Signed, String>) {
        let Some((id, attempt)) = self.asked_under(number) else { return };
        let Some(outcome) = self.jobs.jobs.get(&(id, attempt)).and_then(|job| job.outcome.clone()) else { return };
        let receipt = self.receipt(id, attempt, &outcome);
        match answer {
            Ok(signed) if signed.by == from && signed.open::<Receipt>().as_ref() == Ok(&receipt) => {
                if let Some(job) = self.jobs.jobs.get_mut(&(id, attempt)) {
                    job.receipts.push(signed);
                }
                self.find_holder(env, id, attempt);
            }
            _ => self.next_holder(env, id, attempt),
        }
    }

    fn next_holder(&mut self, env: &mut Env<'_>, id: BuildId, attempt: Attempt) {
        let Some(Job { at: At::Holding(_, _, rest), .. }) = self.jobs.jobs.get_mut(&(id, attempt)) else { return };
        let rest = std::mem::take(rest);
        self.ask_holder(env, id, attempt, rest);
    }

    /// The connection to a host is gone that was asked to hold something.
    pub(super) fn holders_failed(&mut self, env: &mut Env<'_>, peer: PeerKey) {
        let asked = |job: &Job| matches!(job.at, At::Holding(_, to, _) if to == peer);
        let asked: Vec<_> = self.jobs.jobs.iter().filter(|(_, job)| asked(job)).map(|(k, _)| *k).collect();
        for (id, attempt) in asked {
            self.next_holder(env, id, attempt);
        }
    }

    fn submit_report(&mut self, env: &mut Env<'_>, id: BuildId, attempt: Attempt) {
        let Some(job) = self.jobs.jobs.get_mut(&(id, attempt)) else { return };
        job.at = At::Reporting;
        let Some(outcome) = job.outcome.clone() else { return };
        let end = AttemptEnd { build: id, attempt, outcome, receipts: job.receipts.clone() };
        let (request, command) = (self.request_id(env), Command::Report(Report { ends: vec![end] }));
        let entry = Entry::seal(&env.m.keys, self.mesh, request, None, command);
        env.cx.keep_report(self.host, &entry);
        self.submit(env, entry, REPORT_WITHIN, Asker::Report(id, attempt));
    }

    /// The ledger has answered a report, or nobody did.
    pub(super) fn reported(&mut self, env: &mut Env<'_>, id: BuildId, attempt: Attempt, reply: Option<Reply>) {
        let again = reply.is_none_or(|reply| reply.code == Code::Receipts);
        if again && self.still_running(id, attempt) {
            self.find_holder(env, id, attempt);
        } else {
            self.jobs.jobs.remove(&(id, attempt));
        }
    }
}

fn ended(end: End, phase: Phase, code: i32) -> Outcome {
    Outcome { end, phase, code, text: String::new(), manifest: None, log: None, took_ms: 0 }
}

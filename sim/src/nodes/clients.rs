//! Those who give work: requests with their builds, kept as a person would keep them, on no host's disk.
//!
//! A request whose host dies before it answers is not lost: its client asks again, under the same request
//! id, when all is well. What was acknowledged must end.

use super::Answer;
use super::stage::NodesStage;
use crate::action::Task;
use crate::held::{restraints, waits_for_a_person};
use crate::invariants::Fact;
use mesh::build::{BuildId, BuildSpec};
use mesh::ledger::Ledger;
use node::api::Control;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a simulated build may run before its host kills it.
const TIMEOUT_S: u64 = 600;
/// Between two tries of a request that was refused.
const AGAIN: Duration = Duration::from_secs(2);

type Submitted = Result<Vec<BuildId>, String>;

/// A request and what became of it.
struct Request {
    host: String,
    tasks: Vec<Task>,
    answer: Option<Answer<Submitted>>,
    builds: Option<Vec<BuildId>>,
    /// When it may be asked again.
    again: Option<Duration>,
}

/// All requests.
#[derive(Default)]
pub struct Clients {
    requests: BTreeMap<u64, Request>,
}

/// A build as its host will simulate it.
fn spec(task: &Task) -> BuildSpec {
    let mut spec = BuildSpec::new(&task.name, vec!["make".into(), task.name.clone()]);
    spec.env = vec![("SIM_TAKES_MS".into(), task.takes_ms.to_string())];
    if task.exit != 0 {
        spec.env.push(("SIM_EXIT".into(), task.exit.to_string()));
    }
    if !task.breaks_on.is_empty() {
        spec.env.push(("SIM_BREAKS_ON".into(), task.breaks_on.join(",")));
    }
    spec.outputs = vec![format!("{}.out", task.name)];
    spec.needs = task.needs.clone();
    spec.timeout_s = TIMEOUT_S;
    spec
}

fn number(request: u64) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&request.to_be_bytes());
    id
}

impl NodesStage {
    /// Submits a request at a host, or submits it again.
    pub(super) fn submit(&mut self, host: &str, request: u64, tasks: &[Task]) {
        if let Some(key) = self.key(host) {
            let names = tasks.iter().map(|task| task.name.clone()).collect();
            self.eyes.untold.push(Fact::Asked { key, request, names });
        }
        let specs: Vec<BuildSpec> = tasks.iter().map(spec).collect();
        let answer = self.nodes.ask(host, move |node| async move {
            Control::submit(&*node, number(request), specs).await.map_err(|error| error.message)
        });
        let entry = self.clients.requests.entry(request).or_insert_with(|| Request {
            host: host.to_owned(),
            tasks: tasks.to_vec(),
            answer: None,
            builds: None,
            again: None,
        });
        host.clone_into(&mut entry.host);
        entry.answer = Some(answer);
        entry.again = None;
    }

    /// Takes answers that have come: request, and its builds.
    pub(super) fn answered(&mut self) -> Vec<(u64, Vec<BuildId>)> {
        let now = crate::stage::Stage::elapsed(self);
        let mut accepted = vec![];
        for (number, request) in &mut self.clients.requests {
            let Some(answer) = request.answer.take_if(|answer| answer.is_there()) else { continue };
            match answer.take() {
                Some(Ok(builds)) => {
                    request.builds = Some(builds.clone());
                    accepted.push((*number, builds));
                }
                _ => request.again = Some(now + AGAIN),
            }
        }
        accepted
    }

    /// Asks again what has no answer and has nobody working on it.
    pub(super) fn ask_again(&mut self) {
        let now = crate::stage::Stage::elapsed(self);
        let due = |r: &Request| r.builds.is_none() && r.answer.is_none() && r.again.is_some_and(|at| at <= now);
        let due: Vec<(u64, String, Vec<Task>)> = self
            .clients
            .requests
            .iter()
            .filter(|(_, r)| due(r))
            .map(|(number, r)| (*number, r.host.clone(), r.tasks.clone()))
            .collect();
        for (number, host, tasks) in due {
            if self.members.contains(&host) && self.runs(&host) {
                self.submit(&host, number, &tasks);
            }
        }
    }

    /// The build of a task, by its name.
    pub(super) fn build_of(&self, task: &str) -> Option<BuildId> {
        self.clients.requests.values().find_map(|request| {
            let at = request.tasks.iter().position(|t| t.name == task)?;
            request.builds.as_ref()?.get(at).copied()
        })
    }
}

impl Clients {
    /// The process on a host is gone, and with it every answer that it owed.
    pub fn gone(&mut self, host: &str) {
        for request in self.requests.values_mut().filter(|r| r.host == host && r.builds.is_none()) {
            request.answer = None;
            request.again = Some(Duration::ZERO);
        }
    }

    /// Whether a request was acknowledged.
    pub fn accepted(&self, request: u64) -> bool {
        self.requests.get(&request).is_some_and(|request| request.builds.is_some())
    }

    /// What was submitted and has not ended, a line each. Who is no member any more is owed no answer.
    pub fn pending(&self, stage: &NodesStage) -> Vec<String> {
        let longest = stage.members.iter().max_by_key(|name| stage.nodes.ledger(name, Ledger::index));
        let mut lines = vec![];
        for (number, request) in &self.requests {
            let Some(builds) = &request.builds else {
                if stage.members.contains(&request.host) {
                    lines.push(format!("request {number} of {} has no answer", request.host));
                }
                continue;
            };
            for (id, task) in builds.iter().zip(&request.tasks) {
                let state = longest.and_then(|name| {
                    let told = |l: &Ledger| l.builds().get(*id).map(|b| (b.state, waits_for_a_person(l, b)));
                    stage.nodes.ledger(name, told).flatten()
                });
                match state {
                    Some((state, held)) if state.is_final() || held => {}
                    Some((state, _)) => lines.push(format!("{} ({id}) is {state:?}", task.name)),
                    None => lines.push(format!("{} ({id}) is in no ledger", task.name)),
                }
            }
        }
        if !lines.is_empty() {
            lines.extend(longest.and_then(|name| stage.nodes.ledger(name, restraints)).unwrap_or_default());
        }
        lines
    }
}

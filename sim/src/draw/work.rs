//! The work of a run, its coming and going of hosts, and its liars.

use super::Draft;
use super::ground::builds;
use crate::action::{Action, Forgery, Task};

/// A submission that was drawn.
pub struct Request {
    pub(super) number: u64,
    pub(super) host: String,
    pub(super) tasks: Vec<Task>,
    pub(super) at_ms: u64,
}

/// A graph of 1 to 8 builds; some fail, some break on one host's toolchain.
pub fn submit(draft: &mut Draft<'_>) {
    let number = draft.requests.len() as u64 + 1;
    let at_ms = draft.moment();
    let host = draft.host_or_leader();
    let mut tasks: Vec<Task> = vec![];
    for n in 0..draft.dice.between(1, 8) {
        // Needs point back only: no circle.
        let earlier: Vec<String> = tasks.iter().map(|task| task.name.clone()).collect();
        let needs = earlier.into_iter().filter(|_| draft.dice.percent(30)).collect();
        let takes_ms = match draft.dice.below(4) {
            0 => draft.dice.between(1, 100),
            1..=2 => draft.dice.between(100, 3_000),
            _ => draft.dice.between(3_000, 20_000),
        };
        let exit = if draft.dice.percent(15) { draft.dice.between(1, 3) as i32 } else { 0 };
        let breaks_on = if draft.dice.percent(10) { vec![draft.host()] } else { vec![] };
        let name = format!("r{number}-{n}");
        draft.tasks.insert(name.clone(), (host.clone(), at_ms));
        tasks.push(Task { name, takes_ms, exit, needs, breaks_on });
    }
    draft.submitted(number, &host, tasks, at_ms);
    // The hardest moment for what was just promised.
    if draft.dice.percent(20) {
        draft.moments.push(at_ms);
    }
}

/// The client saw no answer, or asks another host.
pub fn again(draft: &mut Draft<'_>) {
    let later = draft.dice.between(1, 4_000);
    let elsewhere = draft.dice.percent(20).then(|| draft.host());
    let count = draft.requests.len() as u64;
    let pick = draft.dice.below(count) as usize;
    if let Some(request) = draft.requests.get(pick) {
        let host = elsewhere.unwrap_or_else(|| request.host.clone());
        let action = Action::Submit { host, request: request.number, tasks: request.tasks.clone() };
        let at = request.at_ms + later;
        draft.push(at, action);
    }
}

pub fn cancel(draft: &mut Draft<'_>) {
    let tasks: Vec<(String, (String, u64))> = draft.tasks.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    if let Some((task, (host, at_ms))) = draft.dice.one(&tasks).cloned() {
        let at = at_ms + draft.dice.between(0, 6_000);
        draft.push(at, Action::Cancel { host, task });
    }
}

/// Of a build that has failed by then, or has not: the answer differs.
pub fn retry(draft: &mut Draft<'_>) {
    let tasks: Vec<(String, (String, u64))> = draft.tasks.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    if let Some((task, (host, at_ms))) = draft.dice.one(&tasks).cloned() {
        let at = at_ms + draft.dice.between(2_000, 20_000);
        draft.push(at, Action::Retry { host, task });
    }
}

pub fn join(draft: &mut Draft<'_>) {
    if let Some(host) = draft.spare.pop() {
        let (at, by) = (draft.moment(), draft.host());
        // An invitation leads to who made it; the founder can be dialled by all.
        let by = if draft.ground.can_dial(&host, &by) { by } else { draft.hosts[0].clone() };
        draft.push(at, Action::Join { host, by });
    }
}

/// Never the founder, who signs; never so many that fewer than two are left, or nobody who builds.
pub fn evict(draft: &mut Draft<'_>) {
    let founder = draft.hosts[0].clone();
    let (host, at) = (draft.host(), draft.moment());
    let left: Vec<&String> = draft.hosts.iter().filter(|one| **one != host && !draft.gone.contains(*one)).collect();
    if host != founder && left.len() >= 2 && left.iter().any(|one| builds(draft.fleet, one)) {
        draft.gone.insert(host.clone());
        draft.push(at, Action::Evict { host, by: founder });
    }
}

pub fn leave(draft: &mut Draft<'_>) {
    let (at, host, lasting) = (draft.moment(), draft.host(), draft.lasting());
    draft.push(at, Action::Leave { host: host.clone() });
    if let Some(lasting) = lasting {
        draft.push(at + lasting, Action::Start { host });
    }
}

pub fn stranger(draft: &mut Draft<'_>) {
    if let Some(host) = draft.spare.first().cloned() {
        draft.spare.remove(0); // it is not to be invited as well
        let at = draft.moment();
        draft.push(at, Action::Stranger { host });
    }
}

pub fn forge(draft: &mut Draft<'_>) {
    let all = [Forgery::Submission, Forgery::Report, Forgery::Assignment, Forgery::VoterSet, Forgery::StaleFence];
    let (at, host) = (draft.moment(), draft.host_or_leader());
    let what = all[draft.dice.below(all.len() as u64) as usize];
    draft.push(at, Action::Forge { host, what });
}

pub fn order(draft: &mut Draft<'_>) {
    let (at, host, restart) = (draft.moment(), draft.host_or_leader(), draft.dice.percent(40));
    draft.push(at, Action::Order { host, restart });
}

pub fn replay_late(draft: &mut Draft<'_>) {
    let at = draft.moment() + draft.dice.between(0, 10_000);
    let host = draft.host();
    draft.push(at, Action::ReplayLate { host });
}

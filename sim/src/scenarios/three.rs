//! Three whole nodes: founding, joining, growing to three voters, building, and the loss of the leader.
//!
//! The leader goes while a build and a graph are under way and comes back later, with its old ledger. All is
//! well when the builds are done, every attempt that left a [`Marker`](crate::machine::Marker) is in the
//! ledger, and all three ledgers have one head.

use crate::nodes::Nodes;
use crate::trace::{Event, Trace};
use crate::world::{Settings, World, WorldError};
use mesh::build::{BuildId, BuildSpec, End};
use mesh::ledger::State;
use node::api::Control;
use node::api::types::InviteRequest;
use node::consensus::Timing;
use std::collections::BTreeMap;
use std::time::Duration;

const NAMES: [&str; 3] = ["a", "b", "c"];
const CORES: u32 = 4;
const HOUR_MS: u64 = 3_600_000;

/// How the leader is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its process dies.
    Crash,
    /// Its power goes.
    PowerCut,
}

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn unexpected<T>(text: String) -> Result<T, WorldError> {
    Err(WorldError::Unexpected(text))
}

/// Runs it.
///
/// # Errors
/// When a host fails, something takes too long, or the end is not as it must be.
pub fn run(seed: u64, trace: &Trace, fault: Fault) -> Result<(), WorldError> {
    let world = World::new(Settings::lan(seed), trace.clone());
    let mut nodes = Nodes::new(world, seed, trace.clone(), Timing::default());
    nodes.founder("a", CORES);
    nodes.joiner("b", CORES);
    nodes.joiner("c", CORES);
    assemble(&mut nodes)?;

    let submitted = nodes.ask("b", |node| async move { Control::submit(&*node, [1; 16], graph()).await });
    let builds = nodes.answered("b's builds are queued", seconds(30), &submitted)?;
    let mut builds = builds.or_else(|error| unexpected(format!("b could not submit: {error:?}")))?;
    let first = builds.first().copied();
    nodes.until("the first build runs somewhere", seconds(30), |nodes| {
        first.is_some_and(|id| state(nodes, "b", id) == Some(State::Running))
    })?;

    let Some(old) = leader(&nodes, "a") else { return unexpected("a knows no leader".into()) };
    match fault {
        Fault::Crash => nodes.crash(&old),
        Fault::PowerCut => nodes.power_cut(&old),
    }
    if !nodes.is_gone(&old) {
        return unexpected(format!("{old} was lost, but something of its node is still held"));
    }
    let left: Vec<&str> = NAMES.into_iter().filter(|name| *name != old).collect();
    nodes.until("another host leads", seconds(60), |nodes| {
        left.iter().all(|name| leader(nodes, name).is_some_and(|new| new != old))
    })?;
    nodes.until("the builds are done without the old leader", seconds(300), |nodes| {
        left.iter().all(|name| builds.iter().all(|id| state(nodes, name, *id) == Some(State::Done)))
    })?;

    match fault {
        Fault::Crash => nodes.restart(&old),
        Fault::PowerCut => nodes.power_on(&old),
    }
    let submitted =
        nodes.ask(&old, |node| async move { Control::submit(&*node, [2; 16], vec![spec("after", 500)]).await });
    let more = nodes.answered("the old leader is back and takes a build", seconds(120), &submitted)?;
    builds.extend(more.or_else(|error| unexpected(format!("{old} could not submit: {error:?}")))?);
    nodes.until("all is done everywhere", seconds(120), |nodes| {
        NAMES.iter().all(|name| builds.iter().all(|id| state(nodes, name, *id) == Some(State::Done)))
    })?;
    nodes.until("all ledgers are equally long", seconds(60), |nodes| {
        let lengths: Vec<_> = NAMES.iter().map(|name| nodes.ledger(name, |l| l.index())).collect();
        lengths.iter().all(|length| length.is_some() && *length == lengths[0])
    })?;
    all_meet(&mut nodes)?;
    judge(&nodes, trace)
}

/// Founds the mesh and grows it to three voters.
fn assemble(nodes: &mut Nodes) -> Result<(), WorldError> {
    nodes.until("a leads its mesh", seconds(60), |nodes| leader(nodes, "a").is_some())?;
    for name in ["b", "c"] {
        let request = InviteRequest { name: name.to_owned(), expires_ms: HOUR_MS, signer: true };
        let token = nodes.ask("a", |node| async move { node.invite(request).await });
        match nodes.answered("a invites", seconds(10), &token)? {
            Ok(token) => nodes.hand_token(name, token),
            Err(error) => return unexpected(format!("a could not invite {name}: {error:?}")),
        }
    }
    nodes.until("there are three voters, and all know", seconds(300), |nodes| {
        NAMES.iter().all(|name| nodes.ledger(name, |l| l.voters().voters().len()) == Some(3))
    })?;
    all_meet(nodes)
}

/// Voters that have never met cannot find each other once the host that knows both is lost.
fn all_meet(nodes: &mut Nodes) -> Result<(), WorldError> {
    nodes.until("all hosts see each other alive", seconds(60), |nodes| {
        NAMES.iter().all(|name| NAMES.iter().all(|other| name == other || nodes.sees_alive(name, other)))
    })
}

fn spec(name: &str, takes_ms: u64) -> BuildSpec {
    let mut spec = BuildSpec::new(name, vec!["make".into(), name.into()]);
    spec.env = vec![("SIM_TAKES_MS".into(), takes_ms.to_string())];
    spec.outputs = vec![format!("{name}.out")];
    spec
}

/// One long build beside a diamond.
fn graph() -> Vec<BuildSpec> {
    let needing = |name: &str, needs: &[&str]| {
        let mut spec = spec(name, 2_000);
        spec.needs = needs.iter().map(|&n| n.into()).collect();
        spec
    };
    let (left, right) = (needing("left", &["base"]), needing("right", &["base"]));
    vec![spec("long", 20_000), spec("base", 1_000), left, right, needing("top", &["left", "right"])]
}

/// Who leads, as a host sees it.
fn leader(nodes: &Nodes, at: &str) -> Option<String> {
    let (key, _) = nodes.ledger(at, |l| l.leader())??;
    nodes.name_of(&key).map(str::to_owned)
}

fn state(nodes: &Nodes, at: &str, id: BuildId) -> Option<State> {
    nodes.ledger(at, |l| l.builds().get(id).map(|build| build.state))?
}

/// Holds the end against what must be so.
fn judge(nodes: &Nodes, trace: &Trace) -> Result<(), WorldError> {
    let mut heads = vec![];
    for name in NAMES {
        let Some((index, head)) = nodes.ledger(name, |l| (l.index(), l.head())) else {
            return unexpected(format!("{name} does not run"));
        };
        heads.push((index, head));
    }
    if heads.iter().any(|head| *head != heads[0]) {
        return unexpected(format!("the ledgers differ: {heads:?}"));
    }
    trace.record("world", Event::Fault(&format!("all ledgers end with {heads:?}")));

    // Attempts of the ledger: which host had it, and whether it ended as done there.
    let attempts = nodes.ledger("a", |l| {
        let of = |build: &mesh::ledger::Build| {
            let id = build.id;
            let done = |a: &mesh::ledger::AttemptRecord| a.outcome().is_some_and(|o| o.end == End::Done);
            build.attempts.iter().map(|a| ((id, a.number), (a.host, done(a)))).collect::<Vec<_>>()
        };
        l.builds().iter().flat_map(of).collect::<BTreeMap<_, _>>()
    });
    let mut attempts = attempts.unwrap_or_default();
    for marker in nodes.markers() {
        // Each attempt leaves at most one marker: the first takes it out.
        let Some((host, _)) = attempts.remove(&(marker.build, marker.attempt)) else {
            return unexpected(format!("{marker:?} began twice, or without the ledger"));
        };
        if nodes.name_of(&host) != Some(&marker.host) {
            return unexpected(format!("{marker:?} ran on another host than the ledger's"));
        }
    }
    match attempts.iter().find(|(_, (_, done))| *done) {
        Some((attempt, _)) => unexpected(format!("{attempt:?} is done and never began")),
        None => Ok(()),
    }
}

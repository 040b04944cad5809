//! A plan played by whole nodes: the second tier's [`Stage`].
//!
//! It brings a fleet of the plan together, does to it what the plan says ([`super::faults`]), and after each
//! tick tells the jury what truly happened ([`super::eyes`]). Healing ends every fault, and what is still
//! pending then is judged by what hosts see of each other and by their ledgers.

use super::clients::Clients;
use super::eyes::Eyes;
use super::program::{Entrance, Folder};
use super::{Addresses, Nodes, Station};
use crate::action::{Action, LEADER};
use crate::cores::quick_policy;
use crate::det::{self, Options};
use crate::invariants::Jury;
use crate::log;
use crate::network::Network;
use crate::plan::Plan;
use crate::scenarios::fleets;
use crate::scenarios::incidents::Incident;
use crate::stage::{Failure, Played, Stage, play};
use crate::trace::{Event, Trace};
use crate::world::{Settings, World};
use mesh::healing::Policy;
use mesh::identity::PeerKey;
use node::api::types::InviteRequest;
use node::consensus::Timing;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use topology::Fleet;

/// How finely time passes.
const TICK: Duration = Duration::from_millis(5);
/// Shortest and longest time of a packet on a site.
const LATENCY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(5));
/// How long a founder may take to lead.
const FOUNDED_WITHIN: Duration = Duration::from_secs(60);
/// How long hosts may take to join, to see each other, and to have voters.
const JOINED_WITHIN: Duration = Duration::from_secs(180);
/// How long an invitation is good.
const HOUR_MS: u64 = 3_600_000;

/// Whole nodes, playing a plan.
pub struct NodesStage {
    pub(super) nodes: Nodes,
    pub(super) fleet: Fleet,
    pub(super) eyes: Eyes,
    pub(super) clients: Clients,
    hosts: Vec<String>,
    /// What an owner asks of healing once there is a mesh. Incidents are healed as quickly as on bare cores, for they last
    /// minutes; all other plans as a mesh is whose owners have set nothing.
    policy: Option<Policy>,
    /// Hosts that belong to the mesh as far as the plan goes: their views must agree in the end.
    pub(super) members: BTreeSet<String>,
    /// Joins under way: who was invited by whom, and the token once it is there.
    pub(super) joining: BTreeMap<String, super::Answer<Result<String, String>>>,
    /// By whose key hosts were invited last.
    pub(super) invited: BTreeMap<String, PeerKey>,
    pub(super) faults: super::faults::Standing,
    pub(super) quorum: super::quorum::Quorum,
    pub(super) owners: super::owners::Owners,
    pub(super) failure: Option<Failure>,
    /// Lies that were told.
    pub(super) lies: u64,
}

/// Plays a plan with whole nodes, on a thread of its own; `jury` is called there.
pub fn run_nodes(plan: &Plan, trace: Trace, jury: impl FnOnce() -> Jury + Send) -> Played {
    det::run(plan.seed, Options::default(), move || {
        let mut jury = jury();
        let recording = log::record(trace.clone());
        let played = mesh::mutants::with(plan.mutant, || match NodesStage::new(plan, &trace) {
            Ok(mut stage) => play(plan, &mut stage, &mut jury),
            Err(text) => Played {
                failure: Some(Failure::Crash(text)),
                ended: Duration::ZERO,
                done: BTreeMap::new(),
                skipped: BTreeMap::new(),
                exercised: BTreeMap::new(),
            },
        });
        drop(recording);
        played
    })
}

/// A fleet by its name in a plan: `lan-N` for N hosts called `h1` and so on, a shipped one, or a file.
///
/// # Errors
/// When there is none, in words.
pub fn fleet(name: &str) -> Result<Fleet, String> {
    let Some(count) = name.strip_prefix("lan-").and_then(|n| n.parse::<u32>().ok()) else {
        return fleets::find(name);
    };
    let mut toml = format!("name = \"{name}\"\n[[network]]\nname = \"lan\"\ncidr = \"10.0.0.0/16\"\n");
    for n in 1..=count {
        let ip = format!("10.0.{}.{}", n / 250, n % 250 + 1);
        toml += &format!("[[host]]\nname = \"h{n}\"\naddresses = {{ lan = \"{ip}\" }}\ncores = 4\nrole = \"drone\"\n");
    }
    Fleet::parse(name, &toml).map_err(|e| e.to_string())
}

/// What the owners of a fleet would say in `mesh.toml`: a heartbeat must exceed the worst round trip, with room
/// for one that is late.
fn timing(fleet: &Fleet, network: &Network) -> Timing {
    let trips =
        |one: &topology::Host| fleet.hosts.iter().filter_map(|two| network.round_trip_ms(&one.name, &two.name)).max();
    let worst = Duration::from_millis(fleet.hosts.iter().filter_map(trips).max().unwrap_or_default());
    if worst * 2 <= Timing::lan().heartbeat { Timing::lan() } else { Timing::default() }
}

impl NodesStage {
    /// The plan's fleet, with nobody on it yet.
    ///
    /// # Errors
    /// When the plan names a fleet or a host that there is not.
    pub fn new(plan: &Plan, trace: &Trace) -> Result<NodesStage, String> {
        let fleet = crate::scenarios::fleets::find(&plan.topology)?;
        if let Some(unknown) = plan.hosts.iter().find(|name| fleet.host(name).is_none()) {
            return Err(format!("{} has no host `{unknown}`", fleet.name));
        }
        let settings = Settings { seed: plan.seed, tick: TICK, latency_min: LATENCY.0, latency_max: LATENCY.1 };
        let world = World::new(settings, trace.clone());
        let network = Network::of(&fleet, trace.clone());
        let timing = timing(&fleet, &network);
        Ok(NodesStage {
            nodes: Nodes::on(world, network, plan.seed, trace.clone(), timing),
            fleet,
            eyes: Eyes::default(),
            clients: Clients::default(),
            hosts: plan.hosts.clone(),
            policy: Incident::find(&plan.scenario).map(|_| quick_policy()),
            members: BTreeSet::new(),
            joining: BTreeMap::new(),
            invited: BTreeMap::new(),
            faults: super::faults::Standing::default(),
            quorum: super::quorum::Quorum::default(),
            owners: super::owners::Owners::default(),
            failure: None,
            lies: 0,
        })
    }

    /// The nodes, for looks.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// Whether a request was acknowledged.
    pub fn accepted(&self, request: u64) -> bool {
        self.clients.accepted(request)
    }

    /// Whether a node rightly refuses to start on a host.
    pub fn is_broken(&self, name: &str) -> bool {
        self.faults.is_broken(name)
    }

    pub(super) fn station(&self, name: &str) -> Option<&Station> {
        self.nodes.stations.get(name)
    }

    /// Puts a host of the fleet into the world, with a new state folder.
    pub(super) fn settle(&mut self, name: &str, entrance: Entrance) -> Result<(), String> {
        let host = self.fleet.host(name).ok_or_else(|| format!("the fleet has no host {name}"))?;
        let addresses: Addresses = host.addresses.clone();
        // A gateway builds nothing; it may still be asked to, with one core.
        let (cores, folder) = (host.cores.max(1), Folder::new(self.nodes.seed, name, 0));
        self.nodes.place(name, cores, addresses, folder, entrance);
        self.nodes.install(name);
        self.nodes.stretch(name, LATENCY.1);
        Ok(())
    }

    /// Whether a node runs on a host.
    pub(super) fn runs(&self, name: &str) -> bool {
        self.station(name).is_some_and(Station::runs)
    }

    /// The host that a plan means.
    pub(super) fn named(&self, name: &str) -> Result<String, String> {
        if name == LEADER {
            return self.leader().ok_or_else(|| "nobody leads".to_owned());
        }
        match self.station(name) {
            Some(_) => Ok(name.to_owned()),
            None => Err(format!("{name} is not in this mesh")),
        }
    }

    /// Who leads: by its lease, else by the longest ledger.
    pub(super) fn leader(&self) -> Option<String> {
        let leases = self.nodes.stations.iter().filter(|(_, s)| !s.intrudes()).filter_map(|(name, station)| {
            let node = station.node()?;
            Some((station.host.current().enter(|| node.lease_now())?, name))
        });
        if let Some((_, name)) = leases.max() {
            return Some(name.clone());
        }
        let ledgers = self.members.iter().filter_map(|name| self.nodes.ledger(name, |l| (l.index(), l.leader())));
        let (key, _) = ledgers.max_by_key(|(index, _)| *index)?.1?;
        self.nodes.name_of(&key).map(str::to_owned)
    }

    /// Asks a member for a token for a host.
    pub(super) fn invite(&self, by: &str, name: &str) -> super::Answer<Result<String, String>> {
        let request = InviteRequest { name: name.to_owned(), expires_ms: HOUR_MS, signer: true };
        self.nodes.ask(by, |node| async move {
            node::api::Control::invite(&*node, request).await.map_err(|error| error.message)
        })
    }

    /// Hands tokens over that have come.
    fn hand_tokens(&mut self) -> Result<(), Failure> {
        let come: Vec<String> = self.joining.iter().filter(|(_, a)| a.is_there()).map(|(n, _)| n.clone()).collect();
        for name in come {
            let Some(Some(answer)) = self.joining.remove(&name).map(|a| a.take()) else { continue };
            match answer {
                Ok(token) => self.nodes.hand_token(&name, token),
                Err(text) => {
                    self.nodes.trace.record(&name, Event::Fault(&format!("not invited: {text}")));
                    self.members.remove(&name);
                }
            }
        }
        Ok(())
    }

    fn until(
        &mut self,
        jury: &mut Jury,
        within: Duration,
        what: &str,
        so: impl Fn(&NodesStage) -> bool,
    ) -> Result<(), Failure> {
        let end = self.elapsed() + within;
        while !so(self) {
            if self.elapsed() >= end {
                let mut pending = vec![format!("{what}: not so within {within:?}")];
                pending.extend(self.unsettled());
                return Err(Failure::Liveness { pending });
            }
            self.step(jury)?;
        }
        Ok(())
    }

    /// What keeps the members from being one mesh, a line each.
    fn unsettled(&self) -> Vec<String> {
        let broken = self.members.iter().filter(|name| self.faults.is_broken(name));
        let mut lines: Vec<String> = broken.map(|name| format!("{name} does not start and is a member")).collect();
        let running: Vec<&String> = self.members.iter().filter(|name| !self.faults.is_broken(name)).collect();
        let mut heads: BTreeMap<(u64, [u8; 32]), Vec<&str>> = BTreeMap::new();
        for name in &running {
            if !self.runs(name) {
                lines.push(format!("{name} does not run"));
                continue;
            }
            if let Some(head) = self.nodes.ledger(name, |l| (l.index(), l.head())) {
                heads.entry(head).or_default().push(name.as_str());
            }
            let unseen: Vec<&str> = running
                .iter()
                .filter(|o| **o != *name && !self.nodes.sees_alive(name, o))
                .map(|o| o.as_str())
                .collect();
            if !unseen.is_empty() {
                lines.push(format!("{name} does not see {} alive", unseen.join(", ")));
            }
        }
        if heads.len() > 1 {
            let all: Vec<String> = heads.iter().map(|((i, _), names)| format!("{} at {i}", names.join(", "))).collect();
            lines.push(format!("ledgers differ: {}", all.join("; ")));
        }
        let mut ours = self.nodes.stations.values().filter(|s| !s.intrudes());
        if !ours.any(|s| s.node().is_some_and(|n| s.host.current().enter(|| n.lease_now()).is_some())) {
            lines.push("nobody holds a lease".to_owned());
        }
        lines
    }

    /// Ends programs that have ended by themselves, and says what to make of it.
    fn reap(&mut self) -> Result<(), Failure> {
        let ended: Vec<(String, Result<(), String>)> = self
            .nodes
            .stations
            .iter()
            .filter_map(|(name, station)| Some((name.clone(), station.desk.ended.borrow_mut().take()?)))
            .collect();
        for (name, how) in ended {
            self.nodes.crash(&name);
            match how {
                Ok(()) => self.nodes.trace.record(&name, Event::Fault("has stopped by itself")),
                Err(text) if self.faults.may_refuse(&name) => {
                    self.nodes.trace.record(&name, Event::Fault(&format!("does not start: {text}")));
                    self.faults.ended(&name, true);
                }
                Err(text) => return Err(Failure::Crash(format!("{name} does not start: {text}"))),
            }
            self.clients.gone(&name);
        }
        Ok(())
    }

    /// Key of the host that runs there or ran last.
    pub(super) fn key(&self, name: &str) -> Option<PeerKey> {
        Some(self.station(name)?.desk.key.get())
    }
}

impl Stage for NodesStage {
    fn elapsed(&self) -> Duration {
        self.nodes.world.elapsed()
    }

    fn assemble(&mut self, jury: &mut Jury) -> Result<(), Failure> {
        let hosts = self.hosts.clone();
        for (number, name) in hosts.iter().enumerate() {
            let entrance = if number == 0 { Entrance::Founds } else { Entrance::Joins };
            self.settle(name, entrance).map_err(Failure::Crash)?;
            self.members.insert(name.clone());
        }
        let Some(founder) = hosts.first().cloned() else { return Ok(()) };
        self.until(jury, FOUNDED_WITHIN, "a mesh is founded", |stage| stage.leader() == Some(founder.clone()))?;
        if let Some(policy) = self.policy {
            let entry = mesh::healing::Entry::Policy(policy);
            let set = self.nodes.ask(&founder, |node| async move { node.write_healing(entry, None).await });
            self.until(jury, FOUNDED_WITHIN, "an owner has said how to heal", |_| set.is_there())?;
            match set.take() {
                Some(Ok(reply)) if reply.is_ok() => {}
                other => return Err(Failure::Crash(format!("no policy: {other:?}"))),
            }
        }
        for name in &hosts[1..] {
            let token = self.invite(&founder, name);
            self.joining.insert(name.clone(), token);
        }
        let voters = match hosts.len() {
            0..=2 => 1,
            3 | 4 => 3,
            _ => 5,
        };
        self.until(jury, JOINED_WITHIN, "all have joined", |stage| {
            hosts.iter().all(|name| stage.nodes.ledger(name, |l| l.roster().len()) == Some(hosts.len()))
        })?;
        self.until(jury, JOINED_WITHIN, "there are voters, and all see all", |stage| {
            let enough = |name: &String| stage.nodes.ledger(name, |l| l.voters().voters().len()) >= Some(voters.min(3));
            hosts.iter().all(enough) && stage.unsettled().is_empty()
        })
    }

    fn step(&mut self, jury: &mut Jury) -> Result<(), Failure> {
        self.nodes.world.step().map_err(|error| Failure::Crash(error.to_string()))?;
        if let Some(text) = log::first_error() {
            return Err(Failure::Crash(text));
        }
        self.obey(jury)?;
        self.reap()?;
        self.hand_tokens()?;
        self.look(jury)?;
        self.tend();
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    fn act(&mut self, action: &Action, jury: &mut Jury) -> Result<(), String> {
        self.eyes.acted = true;
        self.perform(action, jury)
    }

    fn heal(&mut self, jury: &mut Jury) {
        self.eyes.acted = true;
        self.end_faults(jury);
    }

    fn pending(&self) -> Vec<String> {
        let mut lines = self.unsettled();
        lines.extend(self.clients.pending(self));
        lines
    }
}

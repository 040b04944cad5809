//! A fleet of this tier as a [`Stage`]: it comes together, plays, is healed, and is looked at.

use super::Cx;
use super::disk::{Disk, Folder};
use super::host::{Machine, Process};
use super::kit::{Clock, WALL_MS};
use super::net::Net;
use super::record::Record;
use crate::action::Action;
use crate::det::derive;
use crate::held::{restraints, waits_for_a_person};
use crate::invariants::{Fact, HostSeen, Jury, Name, Size, Truth};
use crate::plan::Plan;
use crate::stage::{Failure, Played, Stage, play};
use crate::trace::{Event, Summary, Trace};
use mesh::addresses::Source;
use mesh::build::BlobId;
use mesh::identity::{Keys, PeerKey};
use mesh::ledger::{Command, Ledger};
use mesh::membership::State;
use mesh::roster::{Credential, Genesis, mesh_id};
use mesh::wire::Signed;
use node::consensus::Timing;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

/// A step: all events of so much true time.
const STEP: u64 = 10_000;
/// How long a fleet may take to come together.
const ASSEMBLE: Duration = Duration::from_secs(180);
/// After the last harm to a host, its connections and everybody's minds need so long to be right again.
const SETTLES: u64 = 20_000_000;
/// How long two hosts may take to notice that nothing arrives on what was their connection, in microseconds.
const UNNOTICED: u64 = 20_000_000;

/// A host that was invited and asks to be let in.
pub(super) struct Joining {
    pub request: Signed,
    pub tries: usize,
    pub by: usize,
}

/// A host of the simulation.
pub struct Host {
    pub(super) machine: Machine,
    pub(super) process: Option<Box<Process>>,
    /// While the process stands still: what waits for it.
    pub(super) suspended: Option<Vec<super::message::Event>>,
    pub(super) joining: Option<Joining>,
    pub(super) stranger: bool,
    /// It left, or was taken out: its process does not start again.
    pub(super) out: bool,
    /// It was asked to leave, or somebody to put it out: that may still be on its way.
    pub(super) asked_out: bool,
    /// A copy of another, and of which.
    pub(super) copy_of: Option<usize>,
    pub(super) harmed: u64,
    /// When its owner last started it anew because its key was held to be alive twice.
    pub(super) restarted: u64,
    pub(super) fit: bool,
    well: bool,
    cut_off: BTreeSet<usize>,
}

/// The stage.
pub struct Cores {
    pub(super) cx: Cx,
    pub(super) hosts: Vec<Host>,
    pub(super) timing: Timing,
    pub(super) broken: Option<String>,
    /// All faults have ended.
    pub(super) healed: bool,
    /// Whose connection carries nothing (its router has forgotten it, its network is down, an end has moved), and until
    /// when they may not know it: they hear each other no more, though they could meet.
    silent: BTreeMap<(usize, usize), u64>,
    /// When it was last reckoned who is fit.
    refitted: u64,
    /// A process was started while some host was not where the fleet has it: it lacks what others had learned.
    pub(super) forgetful: bool,
    pub(super) owners: super::owners::Owners,
    enrolled: Vec<usize>,
    seed: u64,
    trace: Option<Trace>,
}

impl Cores {
    /// A fleet that has not come together yet.
    ///
    /// # Errors
    /// When the plan names a fleet or hosts that are not there.
    pub fn new(plan: &Plan, timeline: Option<Box<dyn Write + Send>>) -> Result<Cores, String> {
        let fleet = crate::scenarios::fleets::find(&plan.topology)?;
        let mut hosts = vec![];
        for (number, host) in fleet.hosts.iter().enumerate() {
            // An owner lets even a gateway build something in a simulation: otherwise few would.
            let mut made = Host::new(number, &host.name, host.cores.max(2), plan.seed);
            made.machine.protected = host.protected;
            hosts.push(made);
        }
        let net = Net::new(fleet);
        let enrolled: Option<Vec<usize>> = plan.hosts.iter().map(|name| net.number(name)).collect();
        let enrolled = enrolled.ok_or("the plan names a host that the fleet does not have")?;
        if enrolled.is_empty() {
            return Err("the plan enrols nobody".into());
        }
        let seed = plan.seed;
        let mut cx = Cx::new(net, seed, Record::new(timeline));
        cx.keys = hosts.iter().map(|h| (h.machine.keys.key(), h.machine.number)).collect();
        Ok(Cores {
            cx,
            hosts,
            timing: Timing::default(),
            broken: None,
            healed: false,
            silent: BTreeMap::new(),
            owners: super::owners::Owners::default(),
            refitted: 0,
            forgetful: false,
            enrolled,
            seed,
            trace: None,
        })
    }

    /// The same, and every second its hash goes into a trace.
    ///
    /// # Errors
    /// As [`Cores::new`].
    pub fn traced(plan: &Plan, trace: &Trace) -> Result<Cores, String> {
        let mut cores = Cores::new(plan, None)?;
        cores.trace = Some(trace.clone());
        Ok(cores)
    }

    /// What the run has done so far, as a hash.
    pub fn summary(&mut self) -> Summary {
        self.cx.record.summary(Duration::from_micros(self.cx.now))
    }

    pub(super) fn add_copy(&mut self, of: usize) -> Option<usize> {
        let number = self.hosts.len();
        let original = self.cx.net.fleet.hosts[of].clone();
        let mut addresses = original.addresses.clone();
        for (network, ip) in &mut addresses {
            let cidr = self.cx.net.fleet.networks.get(network)?.cidr;
            let taken: BTreeSet<_> = self.cx.net.fleet.hosts.iter().flat_map(|h| h.addresses.values()).collect();
            *ip = cidr.hosts().rfind(|free| !taken.contains(free))?;
        }
        let name = format!("{}-copy-{number}", original.name);
        self.cx.net.add(topology::Host { name: name.clone(), addresses, shares: None, ..original });
        let mut host = Host::new(number, &name, self.hosts[of].machine.cores, self.seed);
        let from = &self.hosts[of].machine;
        (host.machine.keys, host.machine.store_id) = (from.keys.clone(), from.store_id);
        host.machine.disk = from.disk.clone();
        host.machine.disk.settle();
        host.copy_of = Some(of);
        self.hosts.push(host);
        Some(number)
    }

    fn found(&mut self, host: usize) {
        let m = &mut self.hosts[host].machine;
        let genesis = Genesis {
            name: "sim".into(),
            host: m.name.to_string(),
            recovery: Keys::from_seed(derive(self.seed, "recovery", 0)).key(),
            wall_ms: WALL_MS,
            nonce: [7; 16],
            machine_id: m.machine_id,
            store_id: m.store_id,
        };
        let genesis = Signed::seal(&m.keys, &genesis);
        let body = Credential { mesh: mesh_id(&genesis), peer: m.keys.key(), name: m.name.to_string() };
        let credential = Signed::seal(&m.keys, &body);
        m.enrol(Folder { genesis, credential, known: vec![] });
        self.start(host);
    }

    pub(super) fn invite(&mut self, host: usize, by: usize) -> Result<(), String> {
        if self.hosts[host].process.is_some() || self.hosts[host].machine.disk.folder.is_some() {
            return Err("is or was enrolled".into());
        }
        let name = self.hosts[host].machine.name.to_string();
        let invited = self.with(by, |p, env| p.invite(env, &name)).flatten();
        let (invitation, one_time) = invited.ok_or("the inviter does not run, or is no signer")?;
        let m = &self.hosts[host].machine;
        let ids = (m.machine_id, m.store_id);
        let request = super::admit::join_request(&m.keys, &invitation, &one_time, ids).ok_or("no invitation")?;
        self.hosts[host].joining = Some(Joining { request, tries: 0, by });
        let (generation, at) = (m_generation(&self.hosts[host]), self.cx.now + 1);
        self.cx.wake(host, generation, at);
        Ok(())
    }

    /// Hosts that the longest ledger has enrolled, by number; copies are not among them.
    fn members(&self) -> Vec<usize> {
        let Some(ledger) = self.longest() else { return vec![] };
        let enrolled = |h: &&Host| ledger.roster().is_member(&h.machine.keys.key()) && h.copy_of.is_none();
        self.hosts.iter().filter(enrolled).map(|h| h.machine.number).collect()
    }

    fn longest(&self) -> Option<&Ledger> {
        self.hosts.iter().filter_map(|h| h.process.as_ref()).map(|p| &p.ledger).max_by_key(|l| l.index())
    }

    fn tell(&mut self, jury: &mut Jury) -> Result<(), Failure> {
        self.refit();
        let facts = std::mem::take(&mut self.cx.facts);
        for (at, fact) in &facts {
            jury.fact(*at, fact, &World(self)).map_err(Failure::Safety)?;
        }
        Ok(())
    }

    fn look(&self, host: usize, jury: &mut Jury) -> Result<(), Failure> {
        let at = &self.hosts[host];
        let Some(p) = &at.process else { return Ok(()) };
        let lease = p.grant(&at.machine.clock, self.cx.now).map(|grant| grant.fence);
        let mut presences = vec![];
        for (peer, view) in p.members.hosts() {
            if let Some(presence) = view.presence.as_ref().filter(|_| *peer != p.me) {
                presences.push((*peer, presence.start, presence.sequence));
            }
        }
        let seen = HostSeen {
            name: &at.machine.name,
            key: p.me,
            start: p.start,
            ledger: &p.ledger,
            lease,
            presences: &presences,
            sizes: &p.sizes(),
        };
        jury.look(self.elapsed(), &seen, &World(self)).map_err(Failure::Safety)
    }

    /// Reckons anew which hosts everybody has every reason to call healthy.
    fn refit(&mut self) {
        let now = self.cx.now;
        self.cx.dirty |= self.silent.values().any(|until| (self.refitted + 1..=now).contains(until));
        self.refitted = now;
        let cut_off = std::mem::take(&mut self.cx.dirty).then(|| {
            let silent = self.cx.net.silent();
            self.silent.retain(|pair, _| silent.contains(pair));
            for pair in silent {
                self.silent.entry(pair).or_insert(now + UNNOTICED);
            }
            self.cut_off()
        });
        for host in 0..self.hosts.len() {
            if let Some(cut_off) = &cut_off
                && self.hosts[host].cut_off != cut_off[host]
            {
                self.hosts[host].cut_off = cut_off[host].clone();
                let from = cut_off[host].iter().map(|other| self.hosts[*other].machine.name.clone()).collect();
                let name = self.hosts[host].machine.name.clone();
                self.cx.fact(Fact::CutOff { host: name, from });
            }
            let well = self.is_well(host);
            if !well || self.is_alone(host) || !self.hosts[host].cut_off.is_empty() || self.cx.net.loss > 25 {
                self.hosts[host].harmed = self.cx.now;
            }
            let fit = self.cx.now >= self.hosts[host].harmed + SETTLES;
            let name = self.hosts[host].machine.name.clone();
            if std::mem::replace(&mut self.hosts[host].well, well) != well {
                self.cx.fact(Fact::Well { host: name.clone(), well });
            }
            if std::mem::replace(&mut self.hosts[host].fit, fit) != fit {
                self.cx.fact(Fact::Fit { host: name, fit });
            }
        }
    }

    /// No other member of its mesh is well: nobody is left who would have to reach it.
    fn is_alone(&self, host: usize) -> bool {
        let Some(process) = &self.hosts[host].process else { return true };
        let member = |other: usize| process.ledger.roster().is_member(&self.hosts[other].machine.keys.key());
        !(0..self.hosts.len()).any(|other| other != host && member(other) && self.is_well(other))
    }

    /// With whom each host cannot talk at all, or one way only. Who has no power is not cut off.
    fn cut_off(&self) -> Vec<BTreeSet<usize>> {
        let net = &self.cx.net;
        let takes_part = |host: &usize| net.powered[*host] && self.hosts[*host].machine.disk.folder.is_some();
        let hosts: Vec<usize> = (0..self.hosts.len()).filter(takes_part).collect();
        let mut cut_off = vec![BTreeSet::new(); self.hosts.len()];
        let silent = |one: usize, two: usize| self.silent.get(&(one, two)).is_some_and(|until| *until > self.cx.now);
        for one in &hosts {
            for two in hosts.iter().filter(|two| *two > one) {
                if net.loss > 25 || silent(*one, *two) || !net.meet(*one, *two) {
                    cut_off[*one].insert(*two);
                    cut_off[*two].insert(*one);
                }
            }
        }
        cut_off
    }

    fn is_well(&self, host: usize) -> bool {
        let at = &self.hosts[host];
        let twin = |other: &Host| {
            other.machine.number != host && other.process.is_some() && other.machine.keys.key() == at.machine.keys.key()
        };
        at.process.is_some()
            && at.suspended.is_none()
            && at.machine.clock.is_right()
            && at.machine.disk.slow_ms == 0
            && self.cx.net.is_home(host)
            && !self.hosts.iter().any(twin)
    }
}

fn m_generation(host: &Host) -> u64 {
    host.machine.generation
}

impl Host {
    fn new(number: usize, name: &str, cores: u32, seed: u64) -> Host {
        let mut store_id = [0; 16];
        store_id.copy_from_slice(&derive(seed, &format!("store of {name}"), 0)[..16]);
        let machine = Machine {
            number,
            name: Name::from(name),
            keys: Keys::from_seed(derive(seed, &format!("keys of {name}"), 0)),
            clock: Clock::default(),
            disk: Disk::default(),
            backup: None,
            cores,
            boots: 0,
            generation: 0,
            store_id,
            machine_id: derive(seed, &format!("machine-id of {name}"), 0),
            syncing: false,
            proposed: None,
            protected: false,
            allow_reboot: true,
            broke: 0,
            hearings: super::target::Hearings::default(),
        };
        Host {
            machine,
            process: None,
            suspended: None,
            joining: None,
            stranger: false,
            out: false,
            asked_out: false,
            copy_of: None,
            harmed: 0,
            restarted: 0,
            fit: false,
            well: false,
            cut_off: BTreeSet::new(),
        }
    }
}

impl Process {
    /// Tables that must not grow without bound.
    fn sizes(&self) -> Vec<Size> {
        let size = |what, value: usize, bound: usize| Size { what, value: value as u64, bound: bound as u64 };
        let others = self.ledger.roster().len().max(self.told.len() + 1);
        let (mut leads, mut observed) = (0, 0);
        for (peer, _) in self.ledger.roster().members() {
            let rows = self.addresses.rows(peer, mesh::time::Time::default());
            let seen = rows.iter().filter(|row| row.source == Source::Observed).count();
            (leads, observed) = (leads.max(rows.len() - seen), observed.max(seen));
        }
        vec![
            size("leads of one host", leads, mesh::addresses::LEADS_MAX),
            size("observed addresses of one host", observed, mesh::addresses::OBSERVED_MAX),
            size("connections", self.lines.values().map(Vec::len).sum(), others * 8),
            size("attempts and fetches", self.jobs.count(), 10_000),
            size("orders under way", self.orders.count(), 1_000),
        ]
    }
}

struct World<'a>(&'a Cores);

impl Truth for World<'_> {
    fn holds(&self, host: &PeerKey, blob: BlobId) -> Option<bool> {
        let mut with = self.0.hosts.iter().filter(|h| h.machine.keys.key() == *host).peekable();
        with.peek()?;
        Some(with.any(|h| h.machine.disk.shows(blob)))
    }

    fn is_member(&self, key: &PeerKey) -> bool {
        self.0.longest().is_some_and(|ledger| ledger.roster().is_member(key))
    }

    fn leases(&self) -> Vec<(Name, mesh::lease::Fence)> {
        let lease = |at: &Host| {
            let grant = at.process.as_ref()?.grant(&at.machine.clock, self.0.cx.now)?;
            Some((at.machine.name.clone(), grant.fence))
        };
        self.0.hosts.iter().filter_map(lease).collect()
    }
}

impl Stage for Cores {
    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.cx.now)
    }

    fn assemble(&mut self, jury: &mut Jury) -> Result<(), Failure> {
        let all = self.enrolled.clone();
        self.found(all[0]);
        let mut invited = false;
        let end = self.elapsed() + ASSEMBLE;
        loop {
            self.step(jury)?;
            let leads = self.with(all[0], |p, _| p.ledger.leader().is_some()).unwrap_or(false);
            if leads && !invited {
                invited = true;
                self.with(all[0], |p, env| {
                    let policy = Command::Heal(mesh::healing::Entry::Policy(super::heal::policy()));
                    p.ask(env, policy, ASSEMBLE, super::submit::Asker::Nobody);
                });
                for host in &all[1..] {
                    self.invite(*host, all[0]).map_err(Failure::Crash)?;
                }
            }
            if invited && self.cx.now.is_multiple_of(100_000) {
                let pending = self.pending();
                let voters = self.longest().map_or(0, |l| l.voters().voters().len());
                let raft = self.hosts[all[0]].process.as_ref().map_or(0, |p| p.raft.members().voters().len());
                let wanted = mesh::placement::seats(all.len());
                if pending.is_empty() && self.members().len() == all.len() && voters == wanted && raft == wanted {
                    break;
                }
                if self.elapsed() > end {
                    let mut pending = pending;
                    pending.push(format!("{} members, {voters} voters, {raft} of consensus", self.members().len()));
                    return Err(Failure::Liveness { pending });
                }
            }
        }
        for host in all {
            self.hosts[host].harmed = 0; // they run, and see each other: there is nothing to wait for
        }
        Ok(())
    }

    fn step(&mut self, jury: &mut Jury) -> Result<(), Failure> {
        let end = (self.cx.now / STEP + 1) * STEP;
        while let Some((at, event)) = self.cx.queue.pop_by(end) {
            self.cx.now = self.cx.now.max(at);
            self.happen(event);
        }
        self.cx.now = end;
        self.tend();
        if let Some(trace) = self.trace.as_ref().filter(|_| end.is_multiple_of(1_000_000)) {
            trace.record_at(Duration::from_micros(end), "hash", Event::Logged(&self.cx.record.hash()));
        }
        if let Some(text) = self.broken.take() {
            return Err(Failure::Crash(text));
        }
        self.tell(jury)?;
        for host in std::mem::take(&mut self.cx.active) {
            self.look(host, jury)?;
        }
        jury.step(self.elapsed()).map_err(Failure::Safety)
    }

    fn act(&mut self, action: &Action, _jury: &mut Jury) -> Result<(), String> {
        let done = self.perform(action);
        self.cx.dirty |= done.is_ok();
        self.cx.release();
        if done.is_ok() {
            let text = format!("FAULT {action:?}");
            let value = super::message::hash(text.as_bytes());
            self.cx.record.note(self.cx.now, 0, 3, value, || text.clone());
        }
        done
    }

    fn heal(&mut self, _jury: &mut Jury) {
        self.mend_all();
        self.cx.dirty = true;
        self.cx.release();
    }

    fn pending(&self) -> Vec<String> {
        let mut pending = vec![];
        let Some(longest) = self.longest() else { return vec!["nobody runs".into()] };
        let name = |key: &PeerKey| longest.roster().member(key).map_or_else(|| key.short(), |m| m.name.clone());
        let members = self.members();
        for host in &members {
            let host = &self.hosts[*host];
            let Some(p) = &host.process else {
                pending.push(format!("{} does not run", host.machine.name));
                continue;
            };
            if p.ledger.head() != longest.head() {
                let (own, all) = (p.ledger.index(), longest.index());
                pending.push(format!("the ledger of {} is at {own} of {all}", host.machine.name));
            }
            for other in longest.roster().members().map(|(k, _)| k).filter(|k| **k != p.me) {
                let state = p.members.host(other).map(|view| (view.state, view.presence.is_some()));
                if !matches!(state, Some((State::Alive, true))) {
                    pending.push(format!("{} sees {} {state:?}", host.machine.name, name(other)));
                }
            }
        }
        let leads = |host: &usize| {
            let at = &self.hosts[*host];
            at.process.as_ref().and_then(|p| p.grant(&at.machine.clock, self.cx.now)).is_some()
        };
        if !members.iter().any(leads) {
            pending.push("nobody leads".into());
        }
        let settled = pending.len();
        for build in self.cx.accepted.values().flatten() {
            match longest.builds().get(*build) {
                Some(found) if found.state.is_final() || waits_for_a_person(longest, found) => {}
                Some(found) => pending.push(format!("{build} is {:?}", found.state)),
                None => pending.push(format!("{build} is not in the ledger")),
            }
        }
        if pending.len() > settled {
            pending.extend(restraints(longest));
        }
        pending
    }
}

/// Plays a plan on this tier, with a timeline for people when one is wanted.
pub fn run_cores(plan: &Plan, jury: &mut Jury, timeline: Option<Box<dyn Write + Send>>) -> (Played, Summary) {
    run_cores_at(Timing::default(), plan, jury, timeline)
}

/// The same with other times of consensus.
pub fn run_cores_at(
    timing: Timing,
    plan: &Plan,
    jury: &mut Jury,
    timeline: Option<Box<dyn Write + Send>>,
) -> (Played, Summary) {
    mesh::mutants::with(plan.mutant, || match Cores::new(plan, timeline) {
        Ok(mut stage) => {
            stage.timing = timing;
            let played = play(plan, &mut stage, jury);
            (played, stage.summary())
        }
        Err(text) => {
            let failure = Some(Failure::Crash(text));
            let (done, skipped) = Default::default();
            let played = Played { failure, ended: Duration::ZERO, done, skipped, exercised: jury.exercised() };
            (played, Record::new(None).summary(Duration::ZERO))
        }
    })
}

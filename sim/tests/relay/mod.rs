//! A small mesh to try the tools on: the first host that runs gives out the work.
//!
//! Hosts by name, an order among them, and a log that the leader copies to the others. A submission is
//! accepted at the leader, begun by the leader some time later on the next host, and told to the others. If
//! it tells only after it begins ([`HASTY`]), its crash in between makes the next leader begin it again.

use sim::action::{Action, LEADER};
use sim::invariants::{Fact, HostSeen, Invariant, Jury, Name, Truth};
use sim::plan::Plan;
use sim::stage::{Failure, Stage};
use sim::tool::Stages;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mesh::build::{Attempt, BlobId, BuildId};
use mesh::identity::PeerKey;

const STEP: Duration = Duration::from_millis(10);
/// From acceptance to the beginning, and from there to telling the others.
const BEGINS_AFTER: Duration = Duration::from_millis(40);
const TELLS_AFTER: Duration = Duration::from_millis(100);

/// Tells before it begins.
pub const CAREFUL: Stages = stages(|plan, _| Ok(Box::new(Relay::new(plan, Manner::Careful))));
/// Begins before it tells.
pub const HASTY: Stages = stages(|plan, _| Ok(Box::new(Relay::new(plan, Manner::Hasty))));
/// Careful, but its first step takes as long as a coin of the system says.
pub const RESTLESS: Stages = stages(|plan, _| Ok(Box::new(Relay::new(plan, Manner::Restless))));
/// Careful, but its program breaks when a third host crashes.
pub const PANICKY: Stages = stages(|plan, _| Ok(Box::new(Relay::new(plan, Manner::Panicky))));

const fn stages(cores: sim::tool::stages::Open) -> Stages {
    Stages {
        cores,
        nodes: |_, _| Err("the relay has no nodes".to_owned()),
        invariants: || vec![Box::new(BegunOnce::default())],
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Careful,
    Hasty,
    Restless,
    Panicky,
}

struct Host {
    name: Name,
    key: PeerKey,
    starts: u64,
    up: bool,
    /// Builds that it knows to have begun.
    told: BTreeSet<BuildId>,
}

struct Work {
    id: BuildId,
    takes: Duration,
    exit: i32,
    accepted: Duration,
    begun: Option<(Duration, usize)>,
    /// When the others are told, and by whom.
    tells: Option<(Duration, usize)>,
    ended: bool,
}

struct Relay {
    manner: Manner,
    now: Duration,
    hosts: Vec<Host>,
    work: BTreeMap<BuildId, Work>,
    requests: BTreeMap<u64, Vec<BuildId>>,
    crashes: u64,
}

/// The relay keeps no blobs, and nobody is a stranger.
struct Open;

impl Truth for Open {
    fn holds(&self, _host: &PeerKey, _blob: BlobId) -> Option<bool> {
        None
    }
    fn is_member(&self, _key: &PeerKey) -> bool {
        true
    }
}

impl Relay {
    fn new(plan: &Plan, manner: Manner) -> Relay {
        let host = |(n, name): (usize, &String)| Host {
            name: name.as_str().into(),
            key: PeerKey::from_bytes([n as u8 + 1; 32]),
            starts: 0,
            up: false,
            told: BTreeSet::new(),
        };
        let hosts = plan.hosts.iter().enumerate().map(host).collect();
        let (work, requests) = (BTreeMap::new(), BTreeMap::new());
        Relay { manner, now: Duration::ZERO, hosts, work, requests, crashes: 0 }
    }

    fn leader(&self) -> Option<usize> {
        self.hosts.iter().position(|host| host.up)
    }

    fn find(&self, name: &str) -> Result<usize, String> {
        let found = match name {
            LEADER => self.leader(),
            name => self.hosts.iter().position(|host| &*host.name == name),
        };
        found.ok_or_else(|| format!("there is no {name}"))
    }

    fn fact(&self, jury: &mut Jury, fact: &Fact) -> Result<(), Failure> {
        jury.fact(self.now, fact, &Open).map_err(Failure::Safety)
    }

    fn start(&mut self, n: usize, jury: &mut Jury) -> Result<(), Failure> {
        let host = &mut self.hosts[n];
        (host.up, host.starts) = (true, host.starts + 1);
        let fact = Fact::Started { host: host.name.clone(), key: host.key, start: host.starts };
        self.fact(jury, &fact)
    }

    /// What the leader has not heard to have begun, it begins.
    fn give_out(&mut self, leader: usize, jury: &mut Jury) -> Result<(), Failure> {
        let known = self.hosts[leader].told.clone();
        let due = |work: &&Work| !known.contains(&work.id) && self.now >= work.accepted + BEGINS_AFTER;
        let due: Vec<BuildId> = self.work.values().filter(due).map(|work| work.id).collect();
        for id in due {
            let now = self.now;
            let Some(work) = self.work.get_mut(&id) else { continue };
            work.begun = Some((now, leader));
            if self.manner == Manner::Hasty {
                work.tells = Some((now + TELLS_AFTER, leader));
                self.hosts[leader].told.insert(id);
            } else {
                self.hosts.iter_mut().for_each(|host| {
                    host.told.insert(id);
                });
            }
            let Host { name, key, .. } = &self.hosts[leader];
            let fact = Fact::Began { host: name.clone(), key: *key, build: id, attempt: Attempt(1), fence: None };
            self.fact(jury, &fact)?;
        }
        Ok(())
    }
}

impl Stage for Relay {
    fn elapsed(&self) -> Duration {
        self.now
    }

    fn assemble(&mut self, jury: &mut Jury) -> Result<(), Failure> {
        if self.manner == Manner::Restless {
            self.now += STEP * u32::from(rand::random::<u8>());
        }
        self.now += Duration::from_secs(1);
        (0..self.hosts.len()).try_for_each(|n| self.start(n, jury))
    }

    fn step(&mut self, jury: &mut Jury) -> Result<(), Failure> {
        self.now += STEP;
        for work in self.work.values_mut() {
            match work.tells {
                Some((at, by)) if at <= self.now => {
                    work.tells = None;
                    if self.hosts[by].up {
                        self.hosts.iter_mut().for_each(|host| {
                            host.told.insert(work.id);
                        });
                    }
                }
                _ => {}
            }
            if work.begun.is_some_and(|(at, _)| at + work.takes <= self.now) {
                assert!(work.exit != 99, "no such exit code: {}", work.exit);
                work.ended = true;
            }
        }
        self.leader().map_or(Ok(()), |leader| self.give_out(leader, jury))?;
        jury.step(self.now).map_err(Failure::Safety)
    }

    fn act(&mut self, action: &Action, jury: &mut Jury) -> Result<(), String> {
        let text = |failure: Failure| failure.to_string();
        match action {
            Action::Submit { host, request, tasks } => {
                let n = self.find(host)?;
                if !self.hosts[n].up {
                    return Err(format!("{host} is down"));
                }
                let next = self.work.len() as u64 + 1;
                let new: Vec<BuildId> = (next..next + tasks.len() as u64).map(BuildId).collect();
                let known = self.requests.get(request).cloned();
                if known.is_none() {
                    for (id, task) in new.iter().zip(tasks) {
                        let takes = Duration::from_millis(task.takes_ms);
                        let (accepted, exit, id) = (self.now, task.exit, *id);
                        let work = Work { id, takes, exit, accepted, begun: None, tells: None, ended: false };
                        self.work.insert(id, work);
                    }
                    self.requests.insert(*request, new.clone());
                }
                let fact = Fact::Accepted { request: *request, builds: known.unwrap_or(new) };
                self.fact(jury, &fact).map_err(text)
            }
            Action::Crash { host } => {
                let n = self.find(host)?;
                if !std::mem::take(&mut self.hosts[n].up) {
                    return Err(format!("{host} is down"));
                }
                self.crashes += 1;
                assert!(self.manner != Manner::Panicky || self.crashes < 3, "a third crash in one run");
                self.fact(jury, &Fact::Stopped { host: self.hosts[n].name.clone() }).map_err(text)
            }
            Action::Start { host } => {
                let n = self.find(host)?;
                if self.hosts[n].up {
                    return Err(format!("{host} runs"));
                }
                self.start(n, jury).map_err(text)
            }
            other => Err(format!("the relay knows no {}", other.kind())),
        }
    }

    fn heal(&mut self, jury: &mut Jury) {
        for n in 0..self.hosts.len() {
            if !self.hosts[n].up {
                let _ = self.start(n, jury); // a start breaks no rule of this mesh
            }
        }
    }

    fn pending(&self) -> Vec<String> {
        self.work.values().filter(|work| !work.ended).map(|work| format!("{} has not ended", work.id)).collect()
    }
}

/// A build begins once.
#[derive(Default)]
struct BegunOnce {
    begun: BTreeMap<BuildId, Name>,
    judged: u64,
}

impl Invariant for BegunOnce {
    fn name(&self) -> &'static str {
        "begun-once"
    }

    fn source(&self) -> &'static str {
        "rule of the relay"
    }

    fn fact(&mut self, _at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        let Fact::Began { host, build, .. } = fact else { return Ok(()) };
        self.judged += 1;
        match self.begun.insert(*build, host.clone()) {
            Some(first) => Err(format!("{build} begins twice, on {first} and on {host}")),
            None => Ok(()),
        }
    }

    fn look(&mut self, _at: Duration, _host: &HostSeen<'_>, _truth: &dyn Truth) -> Result<(), String> {
        Ok(())
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

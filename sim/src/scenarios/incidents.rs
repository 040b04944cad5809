//! What really happened to fleets like these, played again: each incident with the naive rule that let it happen.
//!
//! An incident is a plan written by hand. With its naive variant (a [`Mutant`]) the run must fail, with
//! our rules it must pass; a test plays both. The numbers are those of the list of incidents that the
//! project was made for; where healing has a part in one, blame, plan, order, warrant and deed are those of `mesh`, and
//! the simulated machine truly restarts.

use crate::action::{Action, LEADER, Task};
use crate::expect::{Ended, Expect};
use crate::plan::{Plan, Tier, Timed};
use mesh::mutants::Mutant;

/// An incident.
pub struct Incident {
    /// `incident-01-masquerade` and so on.
    pub name: &'static str,
    /// What happened, in a line.
    pub text: &'static str,
    /// The naive rule with which it happens again.
    pub naive: Mutant,
    make: fn() -> Script,
}

/// What a plan has beyond its incident's name and seed.
struct Script {
    topology: &'static str,
    hosts: &'static [&'static str],
    actions: Vec<(u64, Action)>,
    expect: Vec<Expect>,
}

/// All of them, by number.
pub const INCIDENTS: &[Incident] = &[
    Incident {
        name: "incident-01-masquerade",
        text: "an order for a host behind a masquerade is carried out by the masquerading router",
        naive: Mutant::IdentityByAddress,
        make: masquerade,
    },
    Incident {
        name: "incident-02-container",
        text: "an order for a container that shares its host's address is carried out by that host",
        naive: Mutant::IdentityByAddress,
        make: container,
    },
    Incident {
        name: "incident-06-uninvited",
        text: "a forgotten machine that nobody invited joins and builds",
        naive: Mutant::AdmitAnybody,
        make: uninvited,
    },
    Incident {
        name: "incident-07-died-building",
        text: "a host dies while it builds, and its build stays with it",
        naive: Mutant::LostHostKeepsItsBuilds,
        make: died_building,
    },
    Incident {
        name: "incident-08-claim-loop",
        text: "a misconfigured host fails the same build again and again",
        naive: Mutant::RetriesWithoutBound,
        make: claim_loop,
    },
    Incident {
        name: "incident-09-bad-tree",
        text: "a bad tree fails every package everywhere, and all hosts are punished for it",
        naive: Mutant::PackageFailureBlamesHost,
        make: bad_tree,
    },
    Incident {
        name: "incident-10-late-report",
        text: "a host that lost its attempt reports it failed, and the other host's attempt with it",
        naive: Mutant::AttemptNumberIgnored,
        make: late_report,
    },
    Incident {
        name: "incident-11-claimed-twice",
        text: "two hosts get the same build",
        naive: Mutant::AssignsWhatRuns,
        make: claimed_twice,
    },
    Incident {
        name: "incident-12-churn",
        text: "work is taken from hosts that are healthy and busy",
        naive: Mutant::BusyHostLosesItsBuilds,
        make: churn,
    },
    Incident {
        name: "incident-13-one-observer",
        text: "one host cannot reach another that everybody else hears, and has it declared down",
        naive: Mutant::OneAccuserIsEnough,
        make: one_observer,
    },
    Incident {
        name: "incident-14-unacknowledged",
        text: "what was built is lost with its builder, while the queue has it as done",
        naive: Mutant::DoneWithoutReceipts,
        make: unacknowledged,
    },
    Incident {
        name: "incident-16-renamed",
        text: "a retry changes the name of what is built",
        naive: Mutant::RetryChangesTheBuild,
        make: renamed,
    },
    Incident {
        name: "incident-17-old-address",
        text: "hosts change their addresses, and the old ones are used for ever",
        naive: Mutant::FirstAddressForEver,
        make: old_address,
    },
];

impl Incident {
    /// By its name.
    pub fn find(name: &str) -> Option<&'static Incident> {
        INCIDENTS.iter().find(|incident| incident.name == name)
    }

    /// Its plan.
    pub fn plan(&self, tier: Tier, seed: u64) -> Plan {
        let script = (self.make)();
        let mut actions: Vec<Timed> =
            script.actions.into_iter().map(|(at_ms, action)| Timed { at_ms, action }).collect();
        actions.sort_by_key(|timed| timed.at_ms); // stable: what is written first is done first
        let last_ms = actions.last().map_or(0, |timed| timed.at_ms);
        Plan {
            scenario: self.name.to_owned(),
            tier,
            seed,
            topology: script.topology.to_owned(),
            mutant: None,
            hosts: script.hosts.iter().map(|&name| name.to_owned()).collect(),
            safety_ms: last_ms + 10_000,
            liveness_ms: 120_000,
            actions,
            expect: script.expect,
        }
    }
}

const REFERENCE: &str = "alpha-centauri";
const GATEWAY: &str = "Alpha-Centauri";
const IZAR: &str = "drone-Izar";
const TAU_BETA: &str = "drone-Tau-Beta";
const MERIDIAN: &str = "drone-Meridian";
const TARN: &str = "drone-Tarn";
const FEW: &[&str] = &[GATEWAY, "Izar-Orchestrator", TARN];
const ALL: &[&str] = &[GATEWAY, "Izar-Orchestrator", IZAR, TAU_BETA, MERIDIAN, TARN];

fn task(name: &str, takes_ms: u64) -> Task {
    Task { name: name.into(), takes_ms, exit: 0, needs: vec![], breaks_on: vec![] }
}

fn submit(request: u64, tasks: Vec<Task>) -> Action {
    Action::Submit { host: GATEWAY.into(), request, tasks }
}

fn ends(task: &str, state: Ended) -> Expect {
    Expect::Ends { task: task.into(), state }
}

fn attempts(task: &str, at_least: usize, at_most: usize) -> Expect {
    Expect::Attempts { task: task.into(), at_least, at_most }
}

fn cut(from: &str, to: &str) -> Action {
    Action::Cut { from: from.into(), to: to.into() }
}

fn network(name: &str, up: bool) -> Action {
    Action::Network { network: name.into(), up }
}

fn carried(host: &str, times: u64) -> Expect {
    Expect::Carried { host: host.into(), times }
}

/// Tarn reaches site A through the gateway's masquerade; on site A its address is the gateway's. Whatever it is given
/// fails on it, and is built elsewhere: it is set aside, fails its canary, and its service is restarted; where that
/// does not help it is rebooted. It, and nobody else.
fn masquerade() -> Script {
    let wave = |request: u64, count: u32| {
        let broken = |n| Task { breaks_on: vec![TARN.into()], ..task(&format!("w{request}-{n:02}"), 1_000) };
        submit(request, (0..count).map(broken).collect())
    };
    let mut actions = vec![(0, network("overlay", false)), (6_000, wave(1, 40))];
    actions.extend((2..20).map(|n| (6_000 + 10_000 * n, wave(n, 3))));
    Script {
        topology: REFERENCE,
        hosts: &["Izar-Orchestrator", GATEWAY, TAU_BETA, TARN],
        actions,
        expect: (0..40)
            .map(|n| ends(&format!("w1-{n:02}"), Ended::Done))
            .chain([
                Expect::Carries { host: TARN.into() },
                carried(GATEWAY, 0),
                carried("Izar-Orchestrator", 0),
                carried(TAU_BETA, 0),
            ])
            .collect(),
    }
}

/// The container goes away; a person orders it to reboot, and later the leader does, for it is down. Its address is its
/// host's, where somebody answers.
fn container() -> Script {
    Script {
        topology: "container-shares-address",
        hosts: &["drone", "workstation", "builder"],
        actions: vec![
            (2_000, Action::Crash { host: "builder".into() }),
            (8_000, Action::Order { host: "builder".into(), restart: false }),
            (90_000, Action::Order { host: "builder".into(), restart: true }),
        ],
        expect: vec![carried("workstation", 0), carried("drone", 0)],
    }
}

fn uninvited() -> Script {
    Script {
        topology: REFERENCE,
        hosts: &[GATEWAY, IZAR, TAU_BETA],
        actions: vec![
            (1_000, Action::Stranger { host: MERIDIAN.into() }),
            (6_000, submit(1, vec![task("hello", 1_000), task("world", 1_000)])),
        ],
        expect: vec![ends("hello", Ended::Done), ends("world", Ended::Done), Expect::Members { count: 3 }],
    }
}

/// Meridian has the most cores and so gets the build; it dies and stays away until everything is healed.
fn died_building() -> Script {
    Script {
        topology: REFERENCE,
        hosts: ALL,
        actions: vec![
            (1_000, submit(1, vec![task("chromium", 20_000)])),
            (4_000, Action::PowerCut { host: MERIDIAN.into() }),
            (60_000, network("overlay", true)),
        ],
        expect: vec![ends("chromium", Ended::Done), attempts("chromium", 2, 2)],
    }
}

fn claim_loop() -> Script {
    let broken = Task { breaks_on: FEW.iter().map(|&name| name.into()).collect(), ..task("hello", 200) };
    Script {
        topology: REFERENCE,
        hosts: FEW,
        actions: vec![(1_000, submit(1, vec![broken])), (20_000, network("overlay", true))],
        expect: vec![ends("hello", Ended::Failed), attempts("hello", 1, 3)],
    }
}

/// Enough for each host to fail some.
const BAD: u32 = 90;

/// Everything of the first tree fails everywhere; what comes after it is mended is built by the same hosts.
fn bad_tree() -> Script {
    let bad = (0..BAD).map(|n| Task { exit: 1, ..task(&format!("bad-{n}"), 300) }).collect();
    let good = (0..4).map(|n| task(&format!("good-{n}"), 300)).collect();
    Script {
        topology: REFERENCE,
        hosts: ALL,
        actions: vec![(1_000, submit(1, bad)), (15_000, submit(2, good))],
        expect: (0..BAD)
            .map(|n| ends(&format!("bad-{n}"), Ended::Failed))
            .chain((0..4).map(|n| ends(&format!("good-{n}"), Ended::Done)))
            .collect(),
    }
}

/// Meridian is cut off while it builds and loses the attempt; its report arrives when another host has the build.
fn late_report() -> Script {
    let mut actions = vec![(1_000, submit(1, vec![task("hello", 8_000)]))];
    for other in ALL.iter().copied().filter(|&name| name != MERIDIAN) {
        for (from, to) in [(MERIDIAN, other), (other, MERIDIAN)] {
            actions.push((3_000, cut(from, to)));
            actions.push((12_000, Action::Mend { from: from.into(), to: to.into() }));
        }
    }
    actions.push((13_000, Action::ReplayLate { host: MERIDIAN.into() }));
    Script {
        topology: REFERENCE,
        hosts: ALL,
        actions,
        expect: vec![ends("hello", Ended::Done), attempts("hello", 2, 2)],
    }
}

fn claimed_twice() -> Script {
    Script {
        topology: REFERENCE,
        hosts: ALL,
        actions: vec![(1_000, submit(1, vec![task("hello", 6_000), task("world", 6_000)]))],
        expect: ["hello", "world"]
            .into_iter()
            .flat_map(|name| [ends(name, Ended::Done), attempts(name, 1, 1), Expect::OneAtATime { task: name.into() }])
            .collect(),
    }
}

/// More work than there are cores, each longer than any patience: all of it stays where it is.
fn churn() -> Script {
    let tasks: Vec<Task> = (0..70).map(|n| task(&format!("long-{n:02}"), 40_000)).collect();
    let expect = tasks.iter().flat_map(|t| [ends(&t.name, Ended::Done), attempts(&t.name, 1, 1)]).collect();
    Script { topology: REFERENCE, hosts: ALL, actions: vec![(1_000, submit(1, tasks))], expect }
}

/// Only Izar does not hear Tau-Beta, which everybody else does; for longer than any patience of healing.
fn one_observer() -> Script {
    Script {
        topology: REFERENCE,
        hosts: &[GATEWAY, "Izar-Orchestrator", IZAR, TAU_BETA],
        actions: vec![(8_000, cut(TAU_BETA, IZAR)), (120_000, Action::Mend { from: TAU_BETA.into(), to: IZAR.into() })],
        expect: vec![Expect::NeverDown { host: TAU_BETA.into() }, carried(TAU_BETA, 0)],
    }
}

/// The builder's power goes in the moment in which it has built: what it made is not held anywhere else yet.
fn unacknowledged() -> Script {
    let cuts = (0..8).map(|n| (4_000 + 25 * n, Action::PowerCut { host: MERIDIAN.into() }));
    let mut actions =
        vec![(1_000, submit(1, (0..20).map(|n| task(&format!("built-{n:02}"), 2_900 + 15 * n)).collect()))];
    actions.extend(cuts);
    actions.push((30_000, network("overlay", true)));
    Script {
        topology: REFERENCE,
        hosts: ALL,
        actions,
        expect: (0..20).map(|n| ends(&format!("built-{n:02}"), Ended::Done)).collect(),
    }
}

fn renamed() -> Script {
    let failing = Task { exit: 1, ..task("hello", 300) };
    Script {
        topology: REFERENCE,
        hosts: FEW,
        actions: vec![
            (1_000, submit(1, vec![failing])),
            (12_000, Action::Retry { host: GATEWAY.into(), task: "hello".into() }),
            (24_000, Action::Retry { host: LEADER.into(), task: "hello".into() }),
        ],
        expect: vec![ends("hello", Ended::Failed), Expect::Builds { task: "hello".into(), count: 3 }],
    }
}

/// All hosts of a site get others' addresses, two by two; they have to find each other again, and nobody is taken for
/// another.
fn old_address() -> Script {
    let swap = |a: &str, b: &str| Action::SwapAddresses { a: a.into(), b: b.into() };
    Script {
        topology: "lan-4",
        hosts: &["h1", "h2", "h3", "h4"],
        actions: vec![
            (5_000, swap("h1", "h2")),
            (50_000, swap("h3", "h4")),
            (100_000, Action::Order { host: "h2".into(), restart: true }),
            (110_000, Action::Submit { host: "h1".into(), request: 1, tasks: vec![task("hello", 500)] }),
        ],
        expect: vec![
            ends("hello", Ended::Done),
            Expect::EndsWithin { task: "hello".into(), ms: 20_000 },
            carried("h1", 0),
        ],
    }
}

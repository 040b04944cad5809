//! Whole nodes heal: by themselves and by hand, in minutes of virtual time.
#![allow(clippy::unwrap_used)] // helpers of tests, which clippy does not exempt

use mesh::build::{BuildSpec, Sandbox};
use mesh::healing::{Entry, Event, Kind, Phase, Policy, Rung, Stage, Told};
use mesh::mutants::{self, Mutant};
use mesh::order::Act;
use node::api::Control;
use node::api::order::{OrderEvent, OrderRequest};
use node::api::types::InviteRequest;
use node::consensus::Timing;
use sim::det::{self, Options};
use sim::machine::Acted;
use sim::nodes::Nodes;
use sim::trace::Trace;
use sim::world::{Settings, World};
use std::time::Duration;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const MINUTE: Duration = Duration::from_secs(60);

/// Four hosts that see each other, three of which vote, and what was done to them.
struct Ward {
    nodes: Nodes,
    done: Vec<(String, Acted)>,
    submitted: u8,
}

impl Ward {
    fn new(seed: u64) -> Ward {
        let trace = Trace::new(None);
        let world = World::new(Settings { tick: Duration::from_millis(10), ..Settings::lan(seed) }, trace.clone());
        let mut nodes = Nodes::new(world, seed, trace, Timing::default());
        nodes.founder("a", 4);
        for name in &NAMES[1..] {
            nodes.joiner(name, 4);
        }
        let mut ward = Ward { nodes, done: vec![], submitted: 0 };
        ward.until("a mesh is founded", |nodes| nodes.ledger("a", |l| l.leader().is_some()) == Some(true));
        for name in &NAMES[1..] {
            let request = InviteRequest { name: (*name).to_owned(), expires_ms: 3_600_000, signer: false };
            let invited = ward.nodes.ask("a", |node| async move { node.invite(request).await });
            let token = ward.nodes.answered("an invitation", MINUTE, &invited).unwrap().unwrap();
            ward.nodes.hand_token(name, token);
        }
        ward.until("all see all, and three vote", |nodes| {
            let sees = |a: &&str| NAMES.iter().all(|b| nodes.sees_alive(a, b));
            NAMES.iter().all(|name| sees(name) && nodes.ledger(name, |l| l.voters().voters().len()) == Some(3))
        });
        let policy = Policy { cool_ms: 60_000, proof_ms: 60_000, grace_ms: 1_000, ..Policy::default() };
        let set = ward.nodes.ask("a", move |node| async move { node.write_healing(Entry::Policy(policy), None).await });
        assert!(ward.nodes.answered("a policy", MINUTE, &set).unwrap().unwrap().is_ok());
        ward
    }

    #[track_caller]
    fn until(&mut self, what: &str, so: impl Fn(&Nodes) -> bool) {
        let end = self.nodes.world.elapsed() + 4 * MINUTE;
        while !so(&self.nodes) {
            assert!(self.nodes.world.elapsed() < end, "not in four minutes: {what}\n{}", self.story());
            self.nodes.step().unwrap();
            self.done.extend(self.nodes.obey());
        }
    }

    /// The trail, for whoever looks at a failure.
    fn story(&self) -> String {
        let lines = self.nodes.ledger("a", |l| {
            let line = |line: &mesh::healing::Line| format!("{} {:?} {}", line.at_ms, line.kind, line.text);
            l.healing().audit().lines().map(line).collect::<Vec<_>>()
        });
        lines.unwrap_or_default().join("\n")
    }

    fn stage(nodes: &Nodes, name: &str) -> Option<Stage> {
        let key = nodes.key(name);
        nodes.ledger("a", |l| l.healing().stage(&key))
    }

    fn kinds(&self, of: &str) -> Vec<Kind> {
        let key = self.nodes.key(of);
        let kinds = self.nodes.ledger("a", |l| {
            l.healing().audit().lines().filter(|line| line.host == Some(key)).map(|line| line.kind).collect()
        });
        kinds.unwrap()
    }

    /// Builds that cannot be unpacked on a host, or can be everywhere.
    fn submit(&mut self, count: u8, breaks_on: Option<&str>) {
        let specs: Vec<BuildSpec> = (0..count).map(|n| spec(&format!("p{}-{n}", self.submitted), breaks_on)).collect();
        let request = [self.submitted; 16];
        self.submitted += 1;
        let submitted = self.nodes.ask("a", move |node| async move { Control::submit(&*node, request, specs).await });
        self.nodes.answered("builds are submitted", MINUTE, &submitted).unwrap().unwrap();
    }

    fn order(&mut self, host: &str, reboot: bool, force: bool) -> Vec<OrderEvent> {
        self.order_at("a", host, reboot, force)
    }

    /// The same of a person at another host.
    fn order_at(&mut self, asked: &str, host: &str, reboot: bool, force: bool) -> Vec<OrderEvent> {
        let request = OrderRequest { reboot, reason: "a new kernel".into(), force, user: "root".into() };
        let host = host.to_owned();
        let told = std::rc::Rc::new(std::cell::RefCell::new(None));
        let heard = told.clone();
        let _asked = self.nodes.ask(asked, move |node| async move {
            let mut all = vec![];
            match node.order(host, request).await {
                Err(error) => all.push(OrderEvent::Failed { text: error.message, hint: String::new() }),
                Ok(mut events) => {
                    while let Some(event) = events.recv().await {
                        all.push(event);
                    }
                }
            }
            *heard.borrow_mut() = Some(all);
        });
        self.until("an order by hand ends", |_| told.borrow().is_some());
        told.take().unwrap()
    }
}

fn spec(name: &str, breaks_on: Option<&str>) -> BuildSpec {
    BuildSpec {
        name: name.into(),
        command: vec!["make".into()],
        inputs: vec![],
        outputs: vec![],
        changed_only: false,
        env: breaks_on.map(|host| ("SIM_BREAKS_ON".to_owned(), host.to_owned())).into_iter().collect(),
        needs: vec![],
        cores: 4,
        memory_mib: 0,
        tags: vec![],
        timeout_s: 600,
        network: false,
        sandbox: Sandbox::Bubblewrap,
        retries: 5,
        confirm: 1,
    }
}

/// Nobody touches `d` but the mesh: its disk is broken, it is blamed, tried, restarted, and tried again.
#[test]
fn a_host_that_fails_builds_is_set_aside_restarted_and_builds_again() {
    det::run(1, Options::default(), || {
        let mut ward = Ward::new(1);
        let well = |nodes: &Nodes| Ward::stage(nodes, "d") == Some(Stage::Well);
        for _ in 0..20 {
            if !well(&ward.nodes) {
                break;
            }
            ward.submit(8, Some("d"));
            ward.until("they end", |nodes| nodes.ledger("a", |l| l.builds().wanting().count() == 0).unwrap_or(false));
        }
        ward.until("it is set aside", |nodes| Ward::stage(nodes, "d").is_some_and(Stage::is_open));
        // Its canary fails, and its service is restarted; what that mends is not simulated, so the next canary is whole.
        ward.submit(8, Some("d"));
        ward.until("it acts", |nodes| Ward::stage(nodes, "d") == Some(Stage::On(Rung::Restart, Phase::Acting)));
        ward.until("it has come back", |nodes| {
            Ward::stage(nodes, "d") == Some(Stage::On(Rung::Restart, Phase::CanaryDue))
        });
        assert_eq!(
            ward.done.iter().map(|(name, acted)| (&name[..], acted.act.is_reboot())).collect::<Vec<_>>(),
            [("d", false)]
        );
        ward.submit(8, None);
        ward.until("it is well", well);
        let kinds = ward.kinds("d");
        let at = |kind| kinds.iter().position(|k| *k == kind).unwrap_or_else(|| panic!("no {kind:?} in {kinds:?}"));
        let way = [
            Kind::Case(Event::Blamed),
            Kind::Case(Event::Failed),
            Kind::Ordered,
            Kind::Case(Event::Ordered),
            Kind::Receipt,
            Kind::Case(Event::Proved),
            Kind::Case(Event::Passed),
        ];
        assert!(way.windows(2).all(|pair| at(pair[0]) < at(pair[1])), "{kinds:?}");
        assert!(kinds.contains(&Kind::Proved) && kinds.contains(&Kind::Told(Told::Signed)), "{kinds:?}");
        assert_eq!(ward.nodes.start_of("d"), 2);
    });
}

/// A host that hangs is down for all; the restart that is ordered reaches nobody, and nobody acts in its place.
#[test]
fn an_order_for_a_host_that_hangs_is_not_delivered_and_ends() {
    det::run(2, Options::default(), || {
        let mut ward = Ward::new(2);
        ward.nodes.host("d").current().stand_still(true);
        ward.until("its restart is ordered", |nodes| {
            Ward::stage(nodes, "d") == Some(Stage::On(Rung::Restart, Phase::Acting))
        });
        ward.until("it did not arrive", |nodes| {
            let key = nodes.key("d");
            let undelivered =
                |line: &mesh::healing::Line| line.host == Some(key) && line.kind == Kind::Told(Told::Undelivered);
            nodes.ledger("a", |l| l.healing().audit().lines().any(undelivered)) == Some(true)
        });
        ward.until("the order is over", |nodes| {
            Ward::stage(nodes, "d") == Some(Stage::On(Rung::Restart, Phase::Spent))
        });
        ward.nodes.host("d").current().stand_still(false);
        ward.until("it is back by itself", |nodes| {
            Ward::stage(nodes, "d") == Some(Stage::On(Rung::Restart, Phase::CanaryDue))
        });
        ward.submit(8, None);
        ward.until("its canary is built", |nodes| Ward::stage(nodes, "d") == Some(Stage::Well));
        assert_eq!(ward.done, [], "nobody acted");
    });
}

/// The leader is lost when its order stands in the ledger and has reached nobody: the next one takes it back, and orders the
/// same again. Nobody is rebooted for a restart that never was.
#[test]
fn an_order_whose_leader_is_lost_is_given_anew_for_the_same_rung() {
    det::run(4, Options::default(), || {
        let mut ward = Ward::new(4);
        // One that does not vote, so that there are voters enough to sign without the leader.
        let sick = NAMES.into_iter().find(|name| {
            let key = ward.nodes.key(name);
            ward.nodes.ledger("a", |l| !l.voters().voters().contains(&key)) == Some(true)
        });
        let sick = sick.expect("three of four vote");
        let stage = |nodes: &Nodes| nodes.ledger("b", |l| l.healing().stage(&nodes.key(sick)));
        let at = |nodes: &Nodes, stage_of: Stage| stage(nodes) == Some(stage_of);
        while at(&ward.nodes, Stage::Well) {
            ward.submit(8, Some(sick));
            ward.until("they end", |nodes| nodes.ledger("b", |l| l.builds().wanting().count() == 0).unwrap_or(false));
        }
        ward.submit(8, Some(sick));
        ward.until("its canary has failed", |nodes| at(nodes, Stage::On(Rung::Aside, Phase::Spent)));
        ward.nodes.host(sick).current().stand_still(true);
        ward.until("its restart is ordered", |nodes| at(nodes, Stage::On(Rung::Restart, Phase::Acting)));
        let leads = ward.nodes.ledger("b", |l| l.leader()).flatten().map(|(leader, _)| leader);
        assert_eq!(leads, Some(ward.nodes.key("a")), "the order is the founder's");
        assert_eq!(ward.done, [], "and has reached nobody");
        ward.nodes.power_cut("a");
        ward.nodes.host(sick).current().stand_still(false);
        ward.until("it has come back", |nodes| at(nodes, Stage::On(Rung::Restart, Phase::CanaryDue)));
        let done: Vec<_> = ward.done.iter().map(|(name, acted)| (&name[..], acted.act.is_reboot())).collect();
        assert_eq!(done, [(sick, false)]);
        let key = ward.nodes.key(sick);
        let (kinds, steps) = ward
            .nodes
            .ledger("b", |l| {
                let record = l.healing();
                let its = record.audit().lines().filter(|line| line.host == Some(key));
                (its.map(|line| line.kind).collect::<Vec<_>>(), record.steps(l.time_ms()).count())
            })
            .unwrap();
        let count = |kind| kinds.iter().filter(|k| **k == kind).count();
        assert_eq!((count(Kind::Case(Event::Withdrawn)), count(Kind::Ordered), steps), (1, 2, 2), "{kinds:?}");
    });
}

/// What the leader says of the target's own vote, when it had to collect signatures twice because another voter was too slow:
/// that it contradicts itself, or that it signs no second time.
fn asked_twice(seed: u64, naive: Option<Mutant>) -> (bool, bool) {
    let mut told = (false, false);
    det::run(seed, Options::default(), || {
        told = mutants::with(naive, || {
            let mut ward = Ward::new(seed);
            let voters: Vec<&str> = NAMES[1..]
                .iter()
                .copied()
                .filter(|name| {
                    let key = ward.nodes.key(name);
                    ward.nodes.ledger("a", |l| l.voters().voters().contains(&key)) == Some(true)
                })
                .collect();
            let [target, slow] = voters[..] else { panic!("{voters:?} vote with a") };
            while Ward::stage(&ward.nodes, target) == Some(Stage::Well) {
                ward.submit(8, Some(target));
                ward.until("they end", |nodes| {
                    nodes.ledger("a", |l| l.builds().wanting().count() == 0).unwrap_or(false)
                });
            }
            ward.submit(8, Some(target));
            ward.until("its canary has failed", |nodes| {
                Ward::stage(nodes, target) == Some(Stage::On(Rung::Aside, Phase::Spent))
            });
            // Its disk is slow: what it signs comes too late, and the leader has to ask once more, for another hello.
            ward.nodes.host(slow).current().set_sync(Duration::from_secs(6));
            let key = ward.nodes.key(target);
            let says = |nodes: &Nodes, kind: Told, words: &str| {
                let of = |line: &mesh::healing::Line| {
                    line.host == Some(key) && line.kind == Kind::Told(kind) && line.text.contains(words)
                };
                nodes.ledger("a", |l| l.healing().audit().lines().any(of)) == Some(true)
            };
            let contradicts = |nodes: &Nodes| says(nodes, Told::Signed, "signed two different warrants for one order");
            let refuses = |nodes: &Nodes| {
                says(nodes, Told::Withheld, &format!("{target}: this voter has signed for another hello"))
            };
            ward.until("it was asked twice", |nodes| contradicts(nodes) || refuses(nodes));
            (contradicts(&ward.nodes), refuses(&ward.nodes))
        });
    });
    told
}

/// A voter that signs two warrants for one order is reported by whoever collects them, with the proof in words; an honest one
/// does not sign twice.
#[test]
fn a_voter_that_signs_two_warrants_for_one_order_is_reported() {
    assert_eq!(asked_twice(5, None), (false, true));
    assert_eq!(asked_twice(5, Some(Mutant::CosignTwice)), (true, false));
}

/// Who was cut off while a signer came is brought that signer's record with its order, and the voters' word for it: it knows
/// the one that orders neither by its ledger nor as a member, and takes the order on.
#[test]
fn a_host_that_was_away_takes_the_order_of_a_signer_that_it_has_never_heard_of() {
    det::run(6, Options::default(), || {
        let mut ward = Ward::new(6);
        let off = Entry::Policy(Policy { heal: 0, proof_ms: 60_000, ..Policy::default() }); // a person's order alone
        let set = ward.nodes.ask("a", move |node| async move { node.write_healing(off, None).await });
        assert!(ward.nodes.answered("a policy", MINUTE, &set).unwrap().unwrap().is_ok());
        for other in ["a", "b", "c"] {
            ward.nodes.network.set_cut("d", other, true);
            ward.nodes.network.set_cut(other, "d", true);
        }
        ward.nodes.joiner("e", 4);
        let request = InviteRequest { name: "e".to_owned(), expires_ms: 3_600_000, signer: true };
        let invited = ward.nodes.ask("a", |node| async move { node.invite(request).await });
        let token = ward.nodes.answered("an invitation", MINUTE, &invited).unwrap().unwrap();
        ward.nodes.hand_token("e", token);
        ward.until("it joins", |nodes| {
            nodes.ledger("e", |l| l.leader().is_some() && l.roster().len() == 5) == Some(true)
        });
        let newcomer = ward.nodes.key("e");
        // It may have no path yet: whoever is not reached is asked again.
        let mut told = vec![];
        for _ in 0..20 {
            told = ward.order_at("e", "d", false, false);
            if told.iter().any(|event| matches!(event, OrderEvent::TakenOn { .. })) {
                break;
            }
            let soon = ward.nodes.world.elapsed() + Duration::from_secs(5);
            ward.until("a while", |nodes| nodes.world.elapsed() >= soon);
        }
        assert!(told.iter().any(|event| matches!(event, OrderEvent::TakenOn { .. })), "{told:?}");
        assert_eq!(ward.nodes.ledger("d", |l| l.roster().is_member(&newcomer)), Some(false), "it never caught up");
        let done: Vec<_> = ward.done.iter().map(|(name, acted)| (&name[..], acted.act.is_reboot())).collect();
        assert_eq!(done, [("d", false)]);
    });
}

/// By hand: the machine that is named starts anew, proves it, and counts for the pace from then on. One that starts anew
/// without an order says so.
#[test]
fn a_person_reboots_a_host_and_a_power_cut_is_unexplained() {
    det::run(3, Options::default(), || {
        let mut ward = Ward::new(3);
        let told = ward.order("b", true, false);
        assert!(matches!(told[0], OrderEvent::Written { .. }), "{told:?}");
        assert!(matches!(told[1..], [OrderEvent::TakenOn { .. }, OrderEvent::Proved { start: 2, .. }]), "{told:?}");
        let [(name, Acted { act: Act::Reboot(_), .. })] = &ward.done[..] else { panic!("{:?}", ward.done) };
        assert_eq!(name, "b");
        let kinds = ward.kinds("b");
        assert_eq!(kinds.iter().filter(|k| **k == Kind::Proved).count(), 1, "{kinds:?}");
        assert!(!kinds.contains(&Kind::Told(Told::Unexplained)), "an order explains it: {kinds:?}");

        let again = ward.order("b", false, false);
        let [OrderEvent::Failed { text, .. }] = &again[..] else { panic!("{again:?}") };
        assert!(text.contains("the last step was not long ago"), "{text}");
        let again = ward.order("b", false, true);
        assert!(matches!(again.last(), Some(OrderEvent::Proved { start: 3, .. })), "{again:?}");

        ward.nodes.power_cut("d");
        ward.nodes.power_on("d");
        ward.until("it says so", |nodes| {
            let key = nodes.key("d");
            let says =
                |line: &mesh::healing::Line| line.host == Some(key) && line.kind == Kind::Told(Told::Unexplained);
            nodes.ledger("a", |l| l.healing().audit().lines().any(says)) == Some(true)
        });
        assert_eq!(ward.done.len(), 2);
    });
}

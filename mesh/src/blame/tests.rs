//! Whose fault it is, case by case; each naive judge is caught by one of them.

use super::*;
use crate::build::{Attempt, BuildId, BuildSpec, Outcome};
use crate::ledger::tests::{World, done, failed, keys, spec};
use crate::ledger::{Batch, Command, Lose, Lost};
use crate::mutants::with;
use crate::wire::encode;

pub(crate) fn key(n: u8) -> PeerKey {
    keys(n).key()
}

/// Time passes in the ledger.
pub(crate) fn pass(world: &mut World, ms: u64) {
    let batch = Batch { time_ms: world.ledger.time_ms() + ms, entries: vec![] };
    world.ledger.apply(world.ledger.index(), world.ledger.term(), &encode(&batch));
}

/// A package tried on hosts in turn: built, or failed in a phase; each try takes a minute.
pub(crate) fn tried(world: &mut World, name: &str, tries: &[(u8, Option<Phase>)]) -> BuildId {
    tried_in(world, name, tries, 60_000)
}

pub(crate) fn tried_in(world: &mut World, name: &str, tries: &[(u8, Option<Phase>)], took_ms: u64) -> BuildId {
    let id = world.submit(vec![BuildSpec { retries: 9, ..spec(name, &[]) }])[0];
    for (n, (host, phase)) in tries.iter().enumerate() {
        let attempt = n as u32 + 1;
        assert!(world.assign(id, attempt, *host).is_ok(), "{name}");
        pass(world, took_ms);
        let outcome: Outcome = phase.map_or(done(None), failed);
        assert!(world.end_with(id, attempt, *host, outcome, &[]).is_ok());
    }
    id
}

fn blamed(world: &World) -> (Vec<String>, Vec<PeerKey>, bool, Vec<PeerKey>) {
    let (mut packages, mut hosts, mut mesh, mut rests) = (vec![], vec![], false, vec![]);
    for verdict in judge(&world.ledger, &Rules::default()) {
        match verdict {
            Verdict::Package { name, .. } => packages.push(name),
            Verdict::Host { host, .. } => hosts.push(host),
            Verdict::Mesh { .. } => mesh = true,
            Verdict::Rest { host, .. } => rests.push(host),
        }
    }
    (packages, hosts, mesh, rests)
}

const COMMAND: Option<Phase> = Some(Phase::Command);

/// Hosts 2 to 5 build well, so that there is somebody to compare with.
fn healthy(world: &mut World) {
    for host in 2..=5 {
        for n in 0..3 {
            tried(world, &format!("ok{host}-{n}"), &[(host, None)]);
        }
    }
}

/// Incident 9, small: a package that is broken is held, and no host is blamed for it.
#[test]
fn what_fails_on_two_hosts_is_the_packages_fault() {
    let mut world = World::new(6);
    healthy(&mut world);
    for n in 0..4 {
        tried(&mut world, &format!("broken{n}"), &[(6, COMMAND), (2, COMMAND)]);
    }
    let (packages, hosts, mesh, _) = blamed(&world);
    assert_eq!((packages.len(), hosts, mesh), (4, vec![], false));
    let naive = with(Some(Mutant::BlamePackageOnHosts), || blamed(&world).1);
    assert!(naive.contains(&key(6)) && naive.contains(&key(2)), "one broken tree, and both are out");
    let verdict = &judge(&world.ledger, &Rules::default())[0];
    assert_eq!(verdict.text(world.ledger.roster()), "broken0 is held: its own command fails, on h2, h6 (b13.1, b13.2)");
    let build = world.ledger.builds().iter().last().unwrap();
    assert_eq!(held(build).map(|v| v.evidence().len()), Some(2));
    assert_eq!(held(world.ledger.builds().iter().next().unwrap()), None);
}

#[test]
fn what_fails_here_and_is_built_elsewhere_is_the_hosts_fault() {
    let mut world = World::new(6);
    healthy(&mut world);
    for n in 0..2 {
        tried(&mut world, &format!("p{n}"), &[(6, COMMAND), (2, None)]);
    }
    assert_eq!(blamed(&world).1, [], "two packages are no pattern");
    assert_eq!(with(Some(Mutant::BlameForOnePackage), || blamed(&world).1), [key(6)]);
    tried(&mut world, "p1", &[(6, COMMAND), (3, None)]);
    assert_eq!(blamed(&world).1, [], "nor is the same one again");
    tried(&mut world, "p2", &[(6, COMMAND), (4, None)]);
    assert_eq!(blamed(&world).1, [key(6)]);
    let text = judge(&world.ledger, &Rules::default()).last().unwrap().text(world.ledger.roster());
    assert_eq!(
        text,
        "3 packages fail on h6 that are not to blame themselves, while other hosts build (b13.1, b14.1, b15.1, b16.1)"
    );
    // As it builds well again, it is cleared by its own successes.
    for n in 0..4 {
        tried(&mut world, &format!("again{n}"), &[(6, None)]);
    }
    assert_eq!(blamed(&world).1, []);
}

#[test]
fn what_nobody_else_has_tried_is_nobodys_fault() {
    let mut world = World::new(6);
    healthy(&mut world);
    for n in 0..5 {
        tried(&mut world, &format!("p{n}"), &[(6, COMMAND)]);
    }
    assert_eq!(blamed(&world).1, []);
    assert_eq!(with(Some(Mutant::BlameWithoutComparison), || blamed(&world).1), [key(6)]);
    // A host alone has nobody to be compared with.
    let mut alone = World::new(1);
    for n in 0..5 {
        tried(&mut alone, &format!("p{n}"), &[(1, Some(Phase::Store))]);
    }
    assert_eq!(blamed(&alone).1, []);
}

#[test]
fn the_hosts_own_phases_are_the_hosts() {
    for phase in [Phase::Fetch, Phase::Unpack, Phase::Sandbox, Phase::Store, Phase::Upload] {
        let mut world = World::new(6);
        healthy(&mut world);
        for n in 0..3 {
            tried(&mut world, &format!("p{n}"), &[(6, Some(phase))]);
        }
        assert_eq!(blamed(&world).1, [key(6)], "{phase:?}");
        assert_eq!(with(Some(Mutant::BlameHostsPhasesOnPackage), || blamed(&world).1), [], "{phase:?}");
    }
    // A damaged archive is damaged for all who unpack it.
    let mut world = World::new(6);
    healthy(&mut world);
    for n in 0..3 {
        tried(&mut world, &format!("p{n}"), &[(6, Some(Phase::Unpack)), (2, Some(Phase::Fetch))]);
    }
    let (packages, hosts, ..) = blamed(&world);
    assert_eq!((packages.len(), hosts), (3, vec![]));
    assert_eq!(with(Some(Mutant::BlameInputsOnHosts), || blamed(&world).1), [key(6)]);
    let text = judge(&world.ledger, &Rules::default())[0].text(world.ledger.roster());
    assert!(text.contains("nobody can fetch or unpack its inputs"), "{text}");
    // They could be fetched again later: that they could not before is not the fault of who tried then.
    for n in 0..3 {
        tried(&mut world, &format!("p{n}"), &[(3, None)]);
    }
    assert_eq!(blamed(&world).1, []);
}

/// Incident 9: a newer tree, all hosts fail all packages. Nobody is blamed, healing has to freeze.
#[test]
fn most_hosts_failing_together_is_nobodys_fault() {
    let mut world = World::new(6);
    for n in 0..4 {
        tried(&mut world, &format!("ok{n}"), &[(5, None)]);
    }
    for host in [2, 3, 4] {
        for n in 0..3 {
            tried(&mut world, &format!("p{host}-{n}"), &[(host, Some(Phase::Fetch))]);
        }
    }
    assert_eq!((blamed(&world).1, blamed(&world).2), (vec![], true));
    let naive = with(Some(Mutant::BlameNeverTheMesh), || blamed(&world).1);
    assert_eq!(naive.len(), 3);
    let verdicts = judge(&world.ledger, &Rules::default());
    let mesh = verdicts.iter().find(|v| matches!(v, Verdict::Mesh { .. })).unwrap();
    assert!(mesh.text(world.ledger.roster()).starts_with("most fails on 3 of the 4 hosts that build (h"));
    assert_eq!(mesh.evidence().len(), 9);
    // Two of four are not most.
    let mut world = World::new(6);
    healthy(&mut world);
    for host in [2, 3] {
        for n in 0..4 {
            tried(&mut world, &format!("p{host}-{n}"), &[(host, Some(Phase::Store))]);
        }
    }
    assert_eq!((blamed(&world).1.len(), blamed(&world).2), (2, false));
}

/// Incident 8: a host that fails at once does not drain the queue.
#[test]
fn a_host_that_fails_fast_rests_longer_each_time() {
    let mut world = World::new(6);
    let rest = |world: &World| {
        judge(&world.ledger, &Rules::default()).into_iter().find_map(|verdict| match verdict {
            Verdict::Rest { until_ms, .. } => Some(until_ms.saturating_sub(world.ledger.time_ms())),
            _ => None,
        })
    };
    let mut rests = vec![];
    for n in 0..12 {
        tried_in(&mut world, &format!("p{n}"), &[(6, Some(Phase::Store))], 10);
        rests.push(rest(&world).unwrap_or(0) / 1_000);
    }
    assert_eq!(rests, [0, 0, 30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600, 3_600]);
    assert_eq!(with(Some(Mutant::BlameNoRest), || rest(&world)), None);
    tried(&mut world, "slow", &[(6, COMMAND)]);
    assert_eq!(rest(&world), None, "a failure that took its time ends the row");
    // What nobody else has tried yet gives others the time to try it, and no more.
    let mut world = World::new(6);
    for n in 0..12 {
        tried_in(&mut world, &format!("p{n}"), &[(6, COMMAND)], 10);
    }
    assert_eq!(rest(&world), Some(Rules::default().rest_ms));
    assert_eq!(with(Some(Mutant::BlameRestsForEach), || rest(&world)), Some(Rules::default().rest_ms_max));
    // Packages that are known to be broken do not count.
    let mut world = World::new(6);
    for n in 0..5 {
        tried_in(&mut world, &format!("broken{n}"), &[(6, COMMAND), (5, COMMAND)], 10);
    }
    assert_eq!(rest(&world), None);
}

/// What a host was given together says the same once: else ten cores of a broken host make it rest for hours.
#[test]
fn what_fails_together_makes_a_rest_longer_once() {
    let mut world = World::new(6);
    healthy(&mut world);
    let mut wave = |name: &str, host: u8| {
        let specs = (0..8).map(|n| BuildSpec { retries: 9, ..spec(&format!("{name}{n}"), &[]) }).collect();
        let ids = world.submit(specs);
        for id in &ids {
            assert!(world.assign(*id, 1, host).is_ok());
        }
        for id in &ids {
            pass(&mut world, 5);
            assert!(world.end_with(*id, 1, host, failed(Phase::Sandbox), &[]).is_ok());
        }
        let rests = || {
            let verdicts = judge(&world.ledger, &Rules::default()).into_iter();
            let rests = verdicts.filter_map(|verdict| match verdict {
                Verdict::Rest { until_ms, .. } => Some(until_ms.saturating_sub(world.ledger.time_ms()) / 1_000),
                _ => None,
            });
            rests.max().unwrap_or(0)
        };
        (rests(), with(Some(Mutant::BlameRestsForEach), rests))
    };
    assert_eq!(wave("first", 6), (30, 960));
    assert_eq!(wave("second", 6), (60, 3_600));
    assert_eq!(wave("third", 6), (120, 3_600));
    // Three of five that build: most hosts fail, and none rests for longer than the first time.
    assert_eq!(wave("fourth", 5), (119, 3_599));
    assert_eq!(wave("fifth", 4), (30, 3_599));
}

#[test]
fn inputs_that_nobody_could_get_hours_ago_are_not_the_next_hosts_fault() {
    let mut world = World::new(6);
    let builds: Vec<BuildId> = (0..3)
        .map(|n| tried(&mut world, &format!("gone{n}"), &[(2, Some(Phase::Fetch)), (4, Some(Phase::Unpack))]))
        .collect();
    pass(&mut world, Rules::default().window_ms);
    healthy(&mut world);
    let mut alone = world.clone();
    for build in builds {
        assert!(world.assign(build, 3, 6).is_ok());
        pass(&mut world, 60_000);
        assert!(world.end_with(build, 3, 6, failed(Phase::Fetch), &[]).is_ok());
    }
    assert_eq!(blamed(&world).1, [], "whoever has them is away still");
    assert_eq!(with(Some(Mutant::BlameInputsOnHosts), || blamed(&world).1), [key(6)]);
    for n in 0..3 {
        tried(&mut alone, &format!("other{n}"), &[(6, Some(Phase::Fetch))]);
    }
    assert_eq!(blamed(&alone).1, [key(6)], "nobody has tried these before");
}

#[test]
fn what_is_long_ago_or_says_nothing_does_not_count() {
    let mut world = World::new(6);
    for n in 0..3 {
        tried(&mut world, &format!("p{n}"), &[(6, Some(Phase::Store))]);
    }
    healthy(&mut world);
    assert_eq!(blamed(&world).1, [key(6)]);
    pass(&mut world, Rules::default().window_ms);
    assert_eq!(blamed(&world), (vec![], vec![], false, vec![]));
    tried(&mut world, "fresh", &[(2, None)]);
    assert_eq!(with(Some(Mutant::BlameForEver), || blamed(&world).1), [key(6)]);
    // Lost with its host, and cancelled: no word on anybody.
    for n in 0..4 {
        let id = world.submit(vec![spec(&format!("l{n}"), &[])])[0];
        world.assign(id, 1, 6);
        let lost = Lost { build: id, attempt: Attempt(1), reason: "its host is down".into() };
        assert!(world.send(1, Command::Lose(Lose { attempts: vec![lost] })).is_ok());
        world.assign(id, 2, 5);
        let outcome = Outcome { end: End::Cancelled, ..failed(Phase::Store) };
        assert!(world.end_with(id, 2, 5, outcome, &[]).is_ok());
    }
    assert_eq!(blamed(&world), (vec![], vec![], false, vec![]));
}

#[test]
fn the_same_name_with_another_definition_is_another_package() {
    let mut world = World::new(4);
    tried(&mut world, "p", &[(2, COMMAND)]);
    let mended = BuildSpec { retries: 9, command: vec!["false".into()], ..spec("p", &[]) };
    let id = world.submit(vec![mended])[0];
    world.assign(id, 1, 3);
    world.end_with(id, 1, 3, failed(Phase::Command), &[]);
    assert_eq!(blamed(&world).0, Vec::<String>::new());
    tried(&mut world, "p", &[(4, COMMAND)]);
    assert_eq!(blamed(&world).0, ["p"]);
}

#[test]
fn a_canary_decides_by_a_build_that_says_something() {
    let mut world = World::new(6);
    let since = |world: &World| world.ledger.time_ms();
    let told = |world: &World, since: u64| canary(&world.ledger, &key(6), since);
    let at = since(&world);
    assert_eq!(told(&world, at), Canary::Wanted);
    let id = world.submit(vec![BuildSpec { retries: 9, ..spec("c", &[]) }])[0];
    assert_eq!(next_canary(&world.ledger, &key(6), |_| true), Some(id));
    assert_eq!(next_canary(&world.ledger, &key(6), |spec| spec.cores > 1), None, "what it cannot run is no canary");
    world.assign(id, 1, 6);
    assert_eq!(told(&world, at), Canary::Running(Evidence { build: id, attempt: Attempt(1) }));
    assert_eq!(next_canary(&world.ledger, &key(6), |_| true), None, "one at a time, and not where it runs");
    pass(&mut world, 60_000);
    world.end_with(id, 1, 6, failed(Phase::Command), &[]);
    assert_eq!(told(&world, at), Canary::Wanted, "nobody else has tried it: it says nothing yet");
    assert_eq!(next_canary(&world.ledger, &key(6), |_| true), None, "not again where it failed");
    world.assign(id, 2, 5);
    pass(&mut world, 60_000);
    world.end_with(id, 2, 5, done(None), &[]);
    assert_eq!(told(&world, at), Canary::Failed(Evidence { build: id, attempt: Attempt(1) }));
    // What is known to build elsewhere is the better canary: its failure says something at once.
    let plain = world.submit(vec![spec("other", &[])])[0];
    let known = world.submit(vec![BuildSpec { retries: 9, ..spec("c", &[]) }])[0];
    assert!(plain < known);
    assert_eq!(next_canary(&world.ledger, &key(6), |_| true), Some(known));
    let at = since(&world);
    assert_eq!(told(&world, at), Canary::Wanted, "what was before says nothing of now");
    world.assign(known, 1, 6);
    pass(&mut world, 60_000);
    world.end_with(known, 1, 6, done(None), &[]);
    assert_eq!(told(&world, at), Canary::Passed(Evidence { build: known, attempt: Attempt(1) }));
    // Inputs that did not come say nothing until another host has had them: whoever has them may be away.
    let at = since(&world);
    let away = world.submit(vec![BuildSpec { retries: 9, ..spec("away", &[]) }])[0];
    world.assign(away, 1, 6);
    pass(&mut world, 60_000);
    world.end_with(away, 1, 6, failed(Phase::Fetch), &[]);
    assert_eq!(told(&world, at), Canary::Wanted);
    let evidence = Evidence { build: away, attempt: Attempt(1) };
    let naive = with(Some(Mutant::BlameWithoutComparison), || told(&world, at));
    assert_eq!(naive, Canary::Failed(evidence));
    world.assign(away, 2, 5);
    pass(&mut world, 60_000);
    let mut gone = world.clone();
    gone.end_with(away, 2, 5, failed(Phase::Fetch), &[]);
    assert_eq!(told(&gone, at), Canary::Wanted, "nor when it could not get them either");
    world.end_with(away, 2, 5, failed(Phase::Command), &[]);
    assert_eq!(told(&world, at), Canary::Failed(evidence), "there they had come");
    // A package that is broken is no canary.
    let at = since(&world);
    let broken = tried(&mut world, "broken", &[(6, COMMAND), (2, COMMAND)]);
    assert_eq!(told(&world, at), Canary::Wanted);
    assert_ne!(next_canary(&world.ledger, &key(3), |_| true), Some(broken));
}

#[test]
fn every_cell_of_the_table() {
    for failure in [Failure::Command, Failure::Inputs, Failure::Host] {
        for bits in 0..8 {
            let others = Others { good: bits & 1 > 0, failed_alike: bits & 2 > 0, lack_inputs: bits & 4 > 0 };
            let expected = match (failure, others.good, others.failed_alike, others.lack_inputs) {
                (Failure::Host, ..) => Charge::Host,
                (Failure::Inputs, .., true) => Charge::Package,
                (Failure::Inputs, .., false) => Charge::Host,
                (Failure::Command, _, true, _) => Charge::Package,
                (Failure::Command, true, false, _) => Charge::Host,
                (Failure::Command, false, false, _) => Charge::Undecided,
            };
            assert_eq!(charge(failure, others), expected, "{failure:?} {others:?}");
        }
    }
}

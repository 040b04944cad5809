//! Builds that a healed mesh may leave open: those of which only a person can say how they go on.
//!
//! A build whose own command failed on two hosts is held, with that reason, until somebody asks for it again or hours
//! have passed (incident 9). Three words have to agree on it: the attempts, the statement of the ledger that people read,
//! and the plan, by which the command fails wherever it is run. A build that is held by any of them alone is lost.

use mesh::blame::{Fault, Verdict, held, judge};
use mesh::build::{BuildSpec, End, Phase};
use mesh::identity::PeerKey;
use mesh::ledger::{Build, Ledger};
use mesh::restraint::Restraint;
use std::collections::BTreeSet;

/// Whether the command of a build truly fails, on whatever host it is run.
fn fails(spec: &BuildSpec) -> bool {
    spec.env.iter().any(|(key, value)| key == "SIM_EXIT" && value != "0")
}

/// Whether the ledger says of a build that it is held since its command failed on these hosts.
fn says(ledger: &Ledger, build: &Build, hosts: &BTreeSet<PeerKey>) -> bool {
    let named = matches!(held(build), Some(Verdict::Package { fault: Fault::Command, hosts: named, .. })
        if named.iter().copied().collect::<BTreeSet<_>>() == *hosts);
    // Of what rests on this build alone: a look at all others is not needed for it.
    named && Restraint::new(ledger, &[]).holds(ledger, build).is_some()
}

/// Whether a build waits for a person and for nothing else: its command failed on two hosts, or that of one it needs.
pub fn waits_for_a_person(ledger: &Ledger, build: &Build) -> bool {
    let broken = |build: &Build| {
        let failed = build.attempts.iter().filter(|attempt| {
            attempt.outcome().is_some_and(|o| matches!(o.end, End::Failed | End::TimedOut) && o.phase == Phase::Command)
        });
        let hosts = failed.map(|attempt| attempt.host).collect::<BTreeSet<PeerKey>>();
        hosts.len() >= 2 && fails(&build.spec) && says(ledger, build, &hosts)
    };
    // Needs come before what needs them: this ends.
    let needed =
        |id| ledger.builds().get(id).is_some_and(|need| !need.state.is_final() && waits_for_a_person(ledger, need));
    build.running().next().is_none() && (broken(build) || build.needs.iter().any(|id| needed(*id)))
}

/// What the mesh itself says keeps builds waiting, a line each: for who reads of a mesh that did not come right.
pub fn restraints(ledger: &Ledger) -> Vec<String> {
    let verdicts = judge(ledger, &ledger.healing().policy().blame);
    let restraint = Restraint::new(ledger, &verdicts);
    let mut lines: Vec<String> = restraint.pause().map(|why| format!("nothing is built: {why}")).into_iter().collect();
    for (key, member) in ledger.roster().members() {
        lines.extend(restraint.host(key).map(|why| format!("{} is {why}", member.name)));
    }
    let open = ledger.builds().iter().filter(|build| !build.state.is_final());
    lines.extend(open.filter_map(|build| restraint.holds(ledger, build).map(|why| format!("{}: {why}", build.id))));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::fixture::Fleet;
    use mesh::build::BuildId;
    use mesh::mutants::{Mutant, with};

    fn waits(fleet: &Fleet, id: BuildId) -> bool {
        waits_for_a_person(&fleet.ledger, fleet.ledger.builds().get(id).expect("submitted"))
    }

    fn bad(name: &str) -> BuildSpec {
        BuildSpec { env: vec![("SIM_EXIT".into(), "1".into())], ..BuildSpec::new(name, vec!["false".into()]) }
    }

    #[test]
    fn two_hosts_hold_a_build_and_one_host_does_not() {
        let mut fleet = Fleet::of(4);
        fleet.elect(1);
        let build = fleet.submit_spec(1, 1, bad("p"));
        assert!(!waits(&fleet, build));
        fleet.fail(build, 1, 2);
        assert!(!waits(&fleet, build), "one host may be broken itself");
        fleet.fail(build, 2, 3);
        assert!(waits(&fleet, build));
        let held = |fleet: &Fleet| with(Some(Mutant::HeldPackagesGoOn), || waits(fleet, build));
        assert!(!held(&fleet), "what the ledger does not hold waits for nobody");
    }

    #[test]
    fn a_good_build_is_lost_though_two_hosts_say_that_it_failed() {
        let mut fleet = Fleet::of(4);
        fleet.elect(1);
        let build = fleet.submit(1, 1, "p");
        fleet.fail(build, 1, 2);
        fleet.fail(build, 2, 3);
        assert!(!waits(&fleet, build));
    }
}

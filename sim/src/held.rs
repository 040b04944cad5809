//! Builds that a healed mesh may leave open: those of which only a person can say how they go on.
//!
//! A build whose own command failed on two hosts is held, with that reason, until somebody asks for it again or hours
//! have passed (incident 9). Told here from the attempts alone, not by the rule that is shipped.

use mesh::build::{End, Phase};
use mesh::identity::PeerKey;
use mesh::ledger::{Build, Ledger};
use std::collections::BTreeSet;

/// Whether a build waits for a person and for nothing else: its command failed on two hosts, or that of one it needs.
pub fn waits_for_a_person(ledger: &Ledger, build: &Build) -> bool {
    let broken = |build: &Build| {
        let failed = build.attempts.iter().filter(|attempt| {
            attempt.outcome().is_some_and(|o| matches!(o.end, End::Failed | End::TimedOut) && o.phase == Phase::Command)
        });
        failed.map(|attempt| attempt.host).collect::<BTreeSet<PeerKey>>().len() >= 2
    };
    // Needs come before what needs them: this ends.
    let needed =
        |id| ledger.builds().get(id).is_some_and(|need| !need.state.is_final() && waits_for_a_person(ledger, need));
    build.running().next().is_none() && (broken(build) || build.needs.iter().any(|id| needed(*id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::fixture::Fleet;
    use mesh::build::BuildId;

    #[test]
    fn two_hosts_hold_a_build_and_one_host_does_not() {
        let mut fleet = Fleet::of(4);
        fleet.elect(1);
        let build = fleet.submit(1, 1, "p");
        let waits = |fleet: &Fleet, id: BuildId| {
            waits_for_a_person(&fleet.ledger, fleet.ledger.builds().get(id).expect("submitted"))
        };
        assert!(!waits(&fleet, build));
        fleet.fail(build, 1, 2);
        assert!(!waits(&fleet, build), "one host may be broken itself");
        fleet.fail(build, 2, 3);
        assert!(waits(&fleet, build));
    }
}

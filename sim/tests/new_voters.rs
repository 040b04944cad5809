//! While voters change: a host that was cut off meanwhile hears the new ones, on bare cores and in whole nodes; where
//! nothing that is shown to it counts, it stays behind for ever, and that is seen (seed 2289). And of voters that leave
//! one after another the last to go waits until it is not needed any more (found with seed 328).

use mesh::mutants::Mutant;
use sim::action::Action;
use sim::cores::run_cores;
use sim::invariants::{Jury, all};
use sim::nodes::run_nodes;
use sim::plan::{Plan, Tier, Timed};
use sim::stage::{Failure, Played};
use sim::trace::Trace;

const HOSTS: [&str; 7] = ["h1", "h2", "h3", "h4", "h5", "h6", "h7"];

/// Those that vote at first. All hosts are alike, so that depends on who was heard first; whoever puts others out does not
/// catch the naive variant.
fn voted(tier: Tier) -> [&'static str; 3] {
    match tier {
        Tier::Cores => ["h1", "h2", "h4"],
        Tier::Nodes => ["h1", "h2", "h6"],
    }
}

/// All links of h7 are cut. One after another, whoever voted is put out; then the links are whole again.
fn plan(tier: Tier, mutant: Option<Mutant>) -> Plan {
    let name = |host: &str| host.to_owned();
    let mut actions: Vec<Timed> = vec![];
    for other in &HOSTS[..6] {
        for (from, to) in [("h7", *other), (*other, "h7")] {
            actions.push(Timed { at_ms: 2_000, action: Action::Cut { from: name(from), to: name(to) } });
        }
    }
    for (number, out) in voted(tier).into_iter().enumerate() {
        let at_ms = 3_000 + 8_000 * number as u64;
        actions.push(Timed { at_ms, action: Action::Evict { host: name(out), by: name("h3") } });
    }
    Plan {
        scenario: "new-voters".into(),
        tier,
        seed: 1,
        topology: "lan-8".into(),
        mutant,
        hosts: HOSTS.iter().map(|&host| host.into()).collect(),
        safety_ms: 31_000,
        liveness_ms: 30_000,
        actions,
        expect: vec![],
    }
}

fn on_cores(mutant: Option<Mutant>) -> Played {
    run_cores(&plan(Tier::Cores, mutant), &mut Jury::new(all()), None).0
}

fn in_nodes(mutant: Option<Mutant>) -> Played {
    run_nodes(&plan(Tier::Nodes, mutant), Trace::new(None), || Jury::new(all()))
}

fn is_heard(played: &Played) {
    assert_eq!(played.failure, None, "skipped: {:?}", played.skipped);
    assert_eq!(played.done.get("evict"), Some(&3), "skipped: {:?}", played.skipped);
}

fn stays_behind(played: &Played) {
    let Some(Failure::Liveness { pending }) = &played.failure else { panic!("{:?}", played.failure) };
    assert!(pending.iter().any(|what| what.contains("h7")), "{pending:?}");
}

#[test]
fn a_host_that_missed_all_voters_hears_the_new_ones_on_bare_cores() {
    is_heard(&on_cores(None));
}

#[test]
fn where_nothing_that_is_shown_counts_it_stays_behind_on_bare_cores() {
    stays_behind(&on_cores(Some(Mutant::NewVotersUnheard)));
}

#[test]
fn a_host_that_missed_all_voters_hears_the_new_ones_in_whole_nodes() {
    is_heard(&in_nodes(None));
}

#[test]
fn where_nothing_that_is_shown_counts_it_stays_behind_in_whole_nodes() {
    stays_behind(&in_nodes(Some(Mutant::NewVotersUnheard)));
}

/// Two of three voters leave, each while the other is away; the third is left with a vote that counts.
fn leavers(mutant: Option<Mutant>) -> Played {
    let [stays, first, second] = ["relay", "east-router", "east-1"].map(str::to_owned);
    let cut = |from: &String| Action::Cut { from: from.clone(), to: first.clone() };
    let actions = [
        (8_584, Action::PowerCut { host: stays.clone() }),
        (8_650, Action::Leave { host: first.clone() }),
        (9_526, Action::PowerCut { host: second.clone() }),
        (9_557, Action::PowerOn { host: second.clone() }),
        (10_976, Action::PowerOn { host: stays.clone() }),
        (11_643, Action::Leave { host: second.clone() }),
        (11_852, cut(&second)),
        (11_852, cut(&stays)),
        (26_590, Action::Mend { from: stays.clone(), to: first.clone() }),
    ];
    let plan = Plan {
        scenario: "leavers".into(),
        tier: Tier::Cores,
        seed: 452, // one of those in which two of the three leave at just these times
        topology: "symmetric-both".into(),
        mutant,
        hosts: vec![stays, first, second],
        safety_ms: 41_590,
        liveness_ms: 60_000,
        actions: actions.map(|(at_ms, action)| Timed { at_ms, action }).into(),
        expect: vec![],
    };
    run_cores(&plan, &mut Jury::new(all()), None).0
}

#[test]
fn who_leaves_while_voters_change_waits_until_it_is_not_needed() {
    let played = leavers(None);
    assert_eq!(played.failure, None, "skipped: {:?}", played.skipped);
    assert_eq!(played.done.get("leave"), Some(&2), "skipped: {:?}", played.skipped);
    let Some(Failure::Liveness { pending }) = leavers(Some(Mutant::LeavesMidChange)).failure else {
        panic!("all is well")
    };
    assert!(pending.iter().any(|what| what == "nobody leads"), "{pending:?}");
}

use super::super::Plan;
use super::*;
use crate::ledger::Command;
use crate::ledger::tests::*;
use crate::roster::VoterChange;

fn plan(ledger: &Ledger, view: &View) -> Plan {
    super::super::plan(ledger, view, &crate::restraint::Restraint::default())
}

fn host() -> HostNow {
    HostNow { alive: true, start: 1, caught_up: true, steady_ms: 60_000, ..HostNow::default() }
}

fn view(hosts: &[(u8, HostNow)]) -> View {
    hosts.iter().map(|(n, h)| (keys(*n).key(), h.clone())).collect()
}

fn all(n: u8) -> Vec<(u8, HostNow)> {
    (1..=n).map(|i| (i, host())).collect()
}

/// So many in a network each, one after the other.
fn placed(of_networks: &[u8]) -> Vec<(u8, HostNow)> {
    let networks = (1u64..).zip(of_networks).flat_map(|(network, n)| std::iter::repeat_n(network, usize::from(*n)));
    (1..).zip(networks).map(|(n, network)| (n, HostNow { network, ..host() })).collect()
}

/// Follows plan after plan until there is none; how many it took.
fn settle(w: &mut World, view: &View) -> usize {
    for steps in 0..20 {
        let Some(next) = plan(&w.ledger, view).voters else { return steps };
        assert!(next.contains(&keys(1).key()), "the leader stays");
        assert!(next.len() % 2 == 1, "{} voters", next.len());
        set(w, &next);
    }
    panic!("it never ends");
}

fn set(w: &mut World, next: &BTreeSet<PeerKey>) {
    let body = w.ledger.voters().next(next);
    let present = w.ledger.voters().voters().clone();
    let signers = (1..=40).map(keys).filter(|k| present.contains(&k.key()));
    let signatures = signers.map(|k| crate::roster::Cosignature::new(&k, &body)).collect();
    assert!(w.send(1, Command::Voters(VoterChange { body, signatures })).is_ok());
}

fn networks_of(w: &World, view: &View) -> Vec<usize> {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for voter in w.ledger.voters().voters() {
        *counts.entry(view[voter].network).or_default() += 1;
    }
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable();
    counts
}

#[test]
fn voters_grow_with_the_mesh_and_stay_odd() {
    for (n, seats) in [(1u8, 1), (2, 1), (3, 3), (8, 3), (9, 5), (24, 5), (25, 7), (40, 7)] {
        let mut w = World::new(n);
        settle(&mut w, &view(&all(n)));
        assert_eq!(w.ledger.voters().voters().len(), seats, "of {n}");
    }
    let mut behind = all(4);
    behind[2].1.caught_up = false;
    behind[3].1.caught_up = false;
    assert_eq!(plan(&World::new(4).ledger, &view(&behind)).voters, None, "never two, never one that is behind");
    let mut some = all(12);
    some[4..].iter_mut().for_each(|(_, h)| h.caught_up = false);
    let mut w = World::new(12);
    settle(&mut w, &view(&some));
    assert_eq!(w.ledger.voters().voters().len(), 3, "four could: three do");
}

#[test]
fn they_are_spread_over_networks() {
    // The leader's network has the lowest keys' hosts: the naive choice.
    for (sizes, spread) in [
        (&[4u8, 3][..], &[1usize, 2][..]),
        (&[1, 1, 5], &[1, 1, 1]),
        (&[10, 5], &[2, 3]),
        (&[20, 1, 9], &[1, 3, 3]),
        (&[6], &[3]),
    ] {
        let n = sizes.iter().sum();
        let mut w = World::new(n);
        settle(&mut w, &view(&placed(sizes)));
        assert_eq!(networks_of(&w, &view(&placed(sizes))), spread, "{sizes:?}");
    }
}

#[test]
fn a_network_that_comes_later_gets_its_seats_one_by_one() {
    let mut w = World::new(7);
    let mut hosts = placed(&[4, 3]);
    let early = view(&hosts[..4]);
    settle(&mut w, &early);
    assert_eq!(networks_of(&w, &early), [3]);
    hosts[4..].iter_mut().for_each(|(_, h)| h.steady_ms = 1_000);
    assert_eq!(plan(&w.ledger, &view(&hosts)).voters, None, "who has just come gets no seat of one that is well");
    hosts[4..].iter_mut().for_each(|(_, h)| h.steady_ms = 60_000);
    let mut shaken = hosts.clone();
    let other = w.ledger.voters().voters().iter().find(|v| **v != keys(1).key()).copied().unwrap();
    shaken.iter_mut().filter(|(n, _)| keys(*n).key() == other).for_each(|(_, h)| h.alive = false);
    assert_eq!(plan(&w.ledger, &view(&shaken)).voters, None, "nor while a voter is missed");
    assert_eq!(settle(&mut w, &view(&hosts)), 1);
    assert_eq!(networks_of(&w, &view(&hosts)), [1, 2]);
}

#[test]
fn one_that_flaps_gets_no_seat_and_gives_its_own_away() {
    let mut hosts = all(5);
    hosts[1].1.flapping = true;
    let mut w = World::new(5);
    settle(&mut w, &view(&hosts));
    assert!(!w.ledger.voters().voters().contains(&keys(2).key()), "the naive choice takes the lowest keys");
    // A voter begins to flap: another takes its seat, if there is one.
    let flapping = w.ledger.voters().voters().iter().find(|v| **v != keys(1).key()).copied().unwrap();
    hosts[1].1.flapping = false;
    hosts.iter_mut().filter(|(n, _)| keys(*n).key() == flapping).for_each(|(_, h)| h.flapping = true);
    let three: Vec<_> =
        hosts.iter().filter(|(n, _)| w.ledger.voters().voters().contains(&keys(*n).key())).cloned().collect();
    assert_eq!(plan(&w.ledger, &view(&three)).voters, None, "better one that flaps than an even number");
    settle(&mut w, &view(&hosts));
    assert!(!w.ledger.voters().voters().contains(&flapping));
    assert_eq!(w.ledger.voters().voters().len(), 3);
}

#[test]
fn a_seat_of_the_dead_is_given_away_after_longer_than_a_reboot() {
    let mut w = World::new(9);
    settle(&mut w, &view(&all(9)));
    let dead = w.ledger.voters().voters().iter().find(|v| **v != keys(1).key()).copied().unwrap();
    let gone = |steady_ms: u64| {
        let mut hosts = all(9);
        let lost = HostNow { alive: false, down: true, steady_ms, ..host() };
        hosts.iter_mut().filter(|(n, _)| keys(*n).key() == dead).for_each(|(_, h)| *h = lost.clone());
        view(&hosts)
    };
    assert_eq!(plan(&w.ledger, &gone(REPLACE_VOTER_AFTER_MS - 1)).voters, None);
    let next = plan(&w.ledger, &gone(REPLACE_VOTER_AFTER_MS)).voters.unwrap();
    assert!(next.len() == 5 && !next.contains(&dead));
}

#[test]
fn a_sole_voter_that_leaves_has_an_heir_that_is_alive_and_has_caught_up() {
    let me = keys(1).key();
    let heir_among = |others: &[(u8, HostNow)]| {
        let all: Vec<_> = [(1, host())].into_iter().chain(others.to_vec()).collect();
        heir(&World::new(2).ledger, &view(&all), &me)
    };
    assert_eq!(heir_among(&[]), None, "not itself");
    assert_eq!(heir_among(&[(2, host())]), Some(keys(2).key()));
    assert_eq!(heir_among(&[(2, HostNow { alive: false, ..host() })]), None);
    assert_eq!(heir_among(&[(2, HostNow { caught_up: false, ..host() })]), None);
    assert_eq!(heir_among(&[(2, HostNow { suspended: true, ..host() })]), None);
    assert_eq!(heir_among(&[(50, host())]), None, "not a stranger");
    let both = view(&[(1, host()), (2, host())]);
    assert_eq!(heir(&World::new(2).ledger, &both, &keys(2).key()), None, "who does not vote has no seat to give");
}

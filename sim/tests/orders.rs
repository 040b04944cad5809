//! Thousands of orders over generated fleets, and not one wrong act. The million is a part of `scripts/sweep`.
#![allow(clippy::unwrap_used)] // helpers of tests, which clippy does not exempt

use mesh::mutants::Mutant;
use sim::draw::Ground;
use sim::nodes::run_orders;
use sim::orders::{Counts, Size, run};
use sim::scenarios::fleets;

/// Seeds of the share that every run of the tests plays; `SIM_SEED_BASE` moves them.
fn base() -> u64 {
    std::env::var("SIM_SEED_BASE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

#[test]
fn no_order_of_thousands_is_carried_out_wrongly() {
    let mut counts = Counts::default();
    for seed in base()..base() + 6 {
        let ran = run(seed, Size { orders: 800, ..Size::LARGE }, None);
        assert_eq!(ran.failure, None, "see it: sim orders --count 800 --seed {seed}");
        counts.add(&ran.counts);
    }
    // Few hosts meet what many do not: each walk knows some harms only, a lost mesh among them.
    for seed in base()..base() + 40 {
        let ran = run(seed, Size::SMALL, None);
        assert_eq!(ran.failure, None, "see it: sim orders --small --count 1 --seed {seed}");
        counts.add(&ran.counts);
    }
    println!("{counts}");
    assert!(counts.orders() >= 4_800 && counts.acts > 200, "{counts}");
    // What was never tried proves nothing.
    let idle: Vec<&str> = counts.judged.iter().filter(|(_, n)| **n == 0).map(|(name, _)| *name).collect();
    assert!(idle.is_empty(), "never judged: {idle:?}");
    assert!(counts.lies.len() >= 30 && counts.refused.len() >= 20, "{counts}");
    for kind in [&counts.by_hand, &counts.leaders, &counts.forged, &counts.replayed, &counts.again, &counts.denied] {
        assert!(*kind > 0, "{counts}");
    }
}

#[test]
fn the_same_seed_gives_the_same_orders() {
    for seed in base()..base() + 4 {
        let first = run(seed, Size::SMALL, None);
        let beside = std::thread::spawn(move || run(seed + 1, Size::SMALL, None).hash);
        assert_eq!(run(seed, Size::SMALL, None), first, "seed {seed}");
        assert_ne!(beside.join().unwrap(), first.hash, "another seed");
    }
}

/// A voter that lies brings an order of the leader, who signs it, and adds its own signature unasked: one voter of a
/// majority may lie, and what is right stays right. The jury has to know of that signature, or it takes the act for one
/// that too few agreed to.
#[test]
fn a_voter_that_lies_may_bring_what_is_right() {
    let mut counts = Counts::default();
    for seed in [200_021, 200_024] {
        let ran = run(seed, Size { orders: 2_000, ..Size::LARGE }, None);
        assert_eq!(ran.failure, None, "see it: sim orders --count 2000 --seed {seed}");
        counts.add(&ran.counts);
    }
    assert!(counts.lies.get("another brings it").is_some_and(|n| *n > 3), "{counts}");
}

fn grounds() -> Vec<Ground> {
    fleets::shipped().unwrap().into_iter().map(|(name, fleet)| Ground::new(name, fleet)).collect()
}

/// A share of the ten thousand that `scripts/sweep` plays.
#[test]
fn no_order_through_whole_nodes_is_carried_out_wrongly() {
    let (grounds, mut counts) = (grounds(), Counts::default());
    for seed in base()..base() + 4 {
        let ran = run_orders(seed, 80, &grounds, None, None).unwrap();
        assert_eq!(ran.failure, None, "see it: sim orders --tier nodes --count 80 --seed {seed}");
        counts.add(&ran.counts);
    }
    println!("{counts}");
    assert!(counts.orders() >= 150 && counts.acts >= 5, "{counts}");
    let of_acts = ["orders-hit-their-target", "acts-are-fenced", "acts-once", "vetoes-hold"];
    assert!(of_acts.iter().all(|name| counts.judged[name] == counts.acts), "{counts}");
    assert!(counts.lies.len() >= 12 && counts.replayed > 0 && counts.by_hand > 0, "{counts}");
}

#[test]
fn a_target_that_leaves_out_a_check_is_caught_in_whole_nodes() {
    let grounds = grounds();
    for mutant in [
        Mutant::WarrantForOther,
        Mutant::WarrantOfOtherBoot,
        Mutant::WarrantNonceIgnored,
        Mutant::WarrantFenceIgnored,
        Mutant::WarrantCosignatureUnchecked,
    ] {
        let caught =
            (base()..base() + 6).find_map(|seed| run_orders(seed, 80, &grounds, Some(mutant), None).unwrap().failure);
        let caught = caught.map(|failure| failure.invariant);
        println!("{mutant}: {caught:?}");
        assert!(caught.is_some_and(|by| by.starts_with("acts-") || by.starts_with("orders-")), "{mutant}: {caught:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_orders_through_whole_nodes() {
    let grounds = grounds();
    let first = run_orders(base(), 40, &grounds, None, None).unwrap();
    assert_eq!(run_orders(base(), 40, &grounds, None, None).unwrap(), first);
    assert_ne!(run_orders(base() + 1, 40, &grounds, None, None).unwrap().hash, first.hash);
}

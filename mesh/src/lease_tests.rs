use super::*;
use proptest::prelude::*;

const LEASE: Duration = Duration::from_millis(5_000);
const MARGIN: Duration = Duration::from_millis(250);

fn input() -> LeaseInput {
    LeaseInput {
        is_leader: true,
        is_voter: true,
        sole_voter: false,
        last_quorum_acked: None,
        lease: LEASE,
        margin: MARGIN,
        epoch: 3,
        term: 7,
    }
}

#[test]
fn every_cell_of_the_table() {
    let now = Time::from_millis(100_000);
    let length = LEASE - MARGIN;
    let acks = [
        (None, None),
        (Some(now), Some(now + length)),
        (Some(now - Duration::from_micros(1)), Some(now - Duration::from_micros(1) + length)),
        (Some(now - length + Duration::from_micros(1)), Some(now + Duration::from_micros(1))),
        (Some(now - length), None),
        (Some(now - LEASE), None),
        (Some(Time::default()), None),
        (Some(now + LEASE), Some(now + length)), // from the future: counted from now
    ];
    for is_leader in [false, true] {
        for is_voter in [false, true] {
            for sole_voter in [false, true] {
                for (last_quorum_acked, several) in acks {
                    let input = LeaseInput { is_leader, is_voter, sole_voter, last_quorum_acked, ..input() };
                    let expected = match (is_leader && is_voter, sole_voter) {
                        (false, _) => None,
                        (true, true) => Some(now + length),
                        (true, false) => several,
                    };
                    let got = grant(&input, now);
                    assert_eq!(got.map(|g| g.until), expected, "{input:?}");
                    assert!(got.is_none_or(|g| g.fence == Fence { epoch: 3, term: 7 } && now < g.until));
                }
            }
        }
    }
    // A margin that eats the lease leaves nothing, not even for a sole voter.
    let none = LeaseInput { sole_voter: true, margin: LEASE, ..input() };
    assert_eq!(grant(&none, now), None);
}

#[test]
fn a_fence_is_ordered_by_epoch_first_and_shown_with_both() {
    let old = Fence { epoch: 1, term: 900 };
    let new = Fence { epoch: 2, term: 1 };
    assert!(old < new && new < Fence { epoch: 2, term: 2 });
    assert_eq!(old.to_string(), "1.900");
    assert_eq!(crate::wire::decode::<Fence>(&crate::wire::encode(&new), 32), Ok(new));
}

/// A clock that starts anywhere and runs at a rate of its own, in thousandths.
#[derive(Clone, Copy, Debug)]
struct Clock {
    start_us: u64,
    rate: u64,
}
impl Clock {
    fn read(self, true_us: u64) -> Time {
        Time::from_micros(self.start_us + true_us * self.rate / 1_000)
    }
}

/// Three voters. Leader 0 sends at `sent`; voter 1 has it at `heard` and acknowledges; 0 gets that some time
/// later. Voter 1 may restart. Voter 2, cut off from 0, campaigns again and again and wins as soon as 1
/// gives it its vote. Returns a moment of true time at which both hold a grant.
fn overlap(
    clocks: [Clock; 3],
    margin: Duration,
    sent: u64,
    heard: u64,
    restart: Option<u64>,
    quarantine: bool,
) -> Option<u64> {
    let step = 5_000;
    let mut elected = None;
    for t in (0..14_000_000).step_by(step) {
        let at = |i: usize| clocks[i].read(t);
        if t > heard && elected.is_none() {
            let restarted = restart.filter(|r| *r > heard && *r <= t);
            let free = match restarted {
                Some(_) if !quarantine => true,
                Some(r) => at(1).since(clocks[1].read(r)) >= LEASE.mul_f64(1.05),
                None => at(1).since(clocks[1].read(heard)) >= LEASE,
            };
            if free {
                elected = Some(t);
            }
        }
        let old = LeaseInput { last_quorum_acked: (t >= heard).then(|| clocks[0].read(sent)), margin, ..input() };
        let new = LeaseInput { last_quorum_acked: elected.map(|e| clocks[2].read(e)), margin, term: 8, ..input() };
        if grant(&old, at(0)).is_some() && elected.is_some() && grant(&new, at(2)).is_some() {
            return Some(t);
        }
    }
    None
}

fn clocks() -> impl Strategy<Value = [Clock; 3]> {
    let clock = (0..1_000_000_000u64, 975..=1_024u64).prop_map(|(start_us, rate)| Clock { start_us, rate });
    [clock.clone(), clock.clone(), clock]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn clocks_five_percent_apart_never_give_two_grants(
        clocks in clocks(), sent in 0..2_000_000u64, trip in 0..400_000u64, after in proptest::option::of(1..5_000_000u64),
    ) {
        let heard = sent + trip;
        prop_assert_eq!(overlap(clocks, MARGIN, sent, heard, after.map(|a| heard + a), true), None);
    }
}

#[test]
fn the_model_catches_what_it_is_there_to_catch() {
    let apart =
        [Clock { start_us: 5, rate: 975 }, Clock { start_us: 900, rate: 1_024 }, Clock { start_us: 0, rate: 1_000 }];
    assert_eq!(overlap(apart, MARGIN, 0, 0, None, true), None);
    assert!(overlap(apart, Duration::ZERO, 0, 0, None, true).is_some(), "no margin");
    assert!(overlap(apart, MARGIN, 0, 0, Some(1_000_000), false).is_some(), "a restart without a quarantine");
    assert_eq!(overlap(apart, MARGIN, 0, 0, Some(1_000), true), None);
}

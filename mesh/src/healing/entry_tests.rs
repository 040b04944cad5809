//! Who may write what of healing, and what does not count though it is written.

use super::*;
use crate::healing::{Pending, Told};
use crate::lease::Fence;
use crate::ledger::tests::keys;
use crate::mutants::with;
use crate::order::{Act, BootId, Gently};
use crate::warrant::OrderId;
use crate::wire::{decode, encode};

const MESH: MeshId = MeshId([9; 32]);
const FENCE: Fence = Fence { epoch: 0, term: 3 };
const NOW: u64 = 1_000_000;

fn key(n: u8) -> PeerKey {
    keys(n).key()
}

/// Host 1 leads, host 2 is a signer, the others are members.
fn author(n: u8) -> Author {
    Author { key: key(n), signer: n == 2, leads: (n == 1).then_some(FENCE) }
}

fn order(n: u8, authority: Authority) -> Order {
    Order {
        mesh: MESH,
        id: OrderId([n; 16]),
        target: key(6),
        boot: BootId([6; 16]),
        start: 4,
        act: Act::Restart(Gently { grace_ms: 0 }),
        authority,
        requester: "healing".into(),
        fence: FENCE,
        expires_ms: NOW + 60_000,
        force: false,
        reason: "b7.1".into(),
    }
}

fn written(n: u8, by: u8, authority: Authority) -> Entry {
    Entry::Order(Signed::seal(&keys(by), &order(n, authority)))
}

fn change(event: Event, order: Option<Pending>) -> Entry {
    Entry::Change(Change { host: key(6), event, why: "so".into(), order })
}

fn measure(stop: Stop, host: Option<u8>) -> Entry {
    let (host, by) = (host.map(key), key(99));
    Entry::Measure(Measure { stop, host, by, reason: "new disk".into(), until_ms: NOW + 5 })
}

/// A case that waits for an order.
fn spent() -> Record {
    let mut record = Record::default();
    record.apply(change(Event::Down, None), &author(1), MESH, NOW).unwrap();
    record
}

#[test]
fn each_entry_is_for_those_who_may() {
    let lift = |host: u8| Entry::Lift(Lift { stop: Stop::Drain, host: Some(key(host)) });
    let clear = Entry::Clear(Clear { host: Some(key(6)), why: "mended".into() });
    // What, and which of leader, signer, host 6 and another host may.
    let table: Vec<(Entry, [bool; 4])> = vec![
        (Entry::Policy(Policy { heal: 0, ..Policy::default() }), [false, true, false, false]),
        (measure(Stop::Pause, None), [false, true, false, false]),
        (measure(Stop::Block, Some(6)), [false, true, true, false]),
        (lift(6), [false, true, false, false]),
        (clear, [false, true, false, false]),
        (change(Event::Recovered, None), [true, false, false, false]),
        (change(Event::Cleared, None), [false, false, false, false]),
        (written(1, 1, Authority::Leader), [true, false, false, false]),
        (written(1, 2, Authority::Person), [false, true, false, false]),
        (written(1, 2, Authority::Leader), [false, false, false, false]),
        (written(1, 6, Authority::Person), [false, false, false, false]),
    ];
    let mut record = spent();
    record.apply(measure(Stop::Drain, Some(6)), &author(2), MESH, NOW).unwrap();
    for (entry, allowed) in table {
        for (who, allowed) in [1, 2, 6, 7].into_iter().zip(allowed) {
            let mut after = record.clone();
            let answer = after.apply(entry.clone(), &author(who), MESH, NOW);
            assert_eq!(answer.is_ok(), allowed, "{entry:?} by {who}: {answer:?}");
            assert_eq!(after != record, allowed, "{entry:?} by {who}");
            assert!(
                with(Some(Mutant::HealByAnybody), || record.clone().apply(entry.clone(), &author(who), MESH, NOW))
                    .is_ok()
            );
        }
        let bytes = encode(&entry);
        assert_eq!(decode::<Entry>(&bytes, bytes.len()), Ok(entry));
    }
    // Whoever signed is who is named; and a host lifts what it has put there itself.
    record.apply(measure(Stop::Drain, Some(7)), &author(7), MESH, NOW).unwrap();
    assert_eq!(record.measures.of(&key(7), NOW).unwrap().by, key(7));
    record.apply(lift(7), &author(7), MESH, NOW).unwrap();
    assert_eq!(record.apply(lift(7), &author(2), MESH, NOW), Err(Denied::Nothing));
}

#[test]
fn a_case_is_ordered_only_by_an_order_that_is_there() {
    let pending = Pending { id: OrderId([1; 16]), boot: BootId([6; 16]), start: 4, until_ms: NOW + 60_000 };
    let ordered = |pending: &Pending| change(Event::Ordered, Some(pending.clone()));
    let mut record = spent();
    assert_eq!(record.apply(ordered(&pending), &author(1), MESH, NOW), Err(Denied::NotWritten));
    let naive = || record.clone().apply(ordered(&pending), &author(1), MESH, NOW);
    assert_eq!(with(Some(Mutant::OrderedUnwritten), naive), Ok(()));
    record.apply(written(1, 1, Authority::Leader), &author(1), MESH, NOW).unwrap();
    for other in [
        Pending { id: OrderId([2; 16]), ..pending.clone() },
        Pending { boot: BootId([7; 16]), ..pending.clone() },
        Pending { start: 5, ..pending.clone() },
    ] {
        assert_eq!(record.clone().apply(ordered(&other), &author(1), MESH, NOW), Err(Denied::NotWritten));
    }
    assert_eq!(record.clone().apply(ordered(&pending), &author(1), MESH, NOW + 60_000), Err(Denied::NotWritten));
    record.apply(ordered(&pending), &author(1), MESH, NOW).unwrap();
    // Another rung than the next.
    let mut twice = record.clone();
    twice.apply(change(Event::Expired, None), &author(1), MESH, NOW).unwrap();
    assert_eq!(
        twice.apply(ordered(&pending), &author(1), MESH, NOW),
        Err(Denied::NotWritten),
        "a restart is no reboot"
    );
    // Taken on: nobody signs for it again.
    let hash = record.orders().next().unwrap().hash;
    assert!(record.is_open(&hash, NOW) && !record.is_open(&hash, NOW + 60_000));
    let receipt = Receipt { mesh: MESH, id: OrderId([1; 16]), order: hash, boot: BootId([6; 16]), start: 4 };
    let forged = Entry::Receipt(Signed::seal(&keys(7), &receipt));
    assert_eq!(record.apply(forged, &author(7), MESH, NOW), Err(Denied::NotWritten), "not the target's");
    record.apply(Entry::Receipt(Signed::seal(&keys(6), &receipt)), &author(7), MESH, NOW).unwrap();
    assert!(!record.is_open(&hash, NOW));
    let bytes = encode(&record);
    let again: Record = ciborium::from_reader(&bytes[..]).unwrap();
    assert_eq!(again, record);
}

#[test]
fn orders_are_bounded_and_end() {
    let mut record = Record::default();
    let mut write = |order: Order| record.apply(Entry::Order(Signed::seal(&keys(1), &order)), &author(1), MESH, NOW);
    let good = |n: u8| order(n, Authority::Leader);
    assert_eq!(write(Order { mesh: MeshId([0; 32]), ..good(1) }), Err(Denied::BadOrder));
    assert_eq!(write(Order { expires_ms: NOW, ..good(1) }), Err(Denied::BadOrder));
    assert_eq!(write(Order { expires_ms: u64::MAX, ..good(1) }), Err(Denied::BadOrder));
    assert_eq!(write(Order { force: true, ..good(1) }), Err(Denied::NotLeader));
    assert_eq!(write(Order { fence: Fence { epoch: 0, term: 4 }, ..good(1) }), Err(Denied::NotLeader));
    for n in 0..ORDERS_WRITTEN_MAX as u8 {
        assert_eq!(write(good(n)), Ok(()));
    }
    assert_eq!(write(good(0)), Ok(()), "the same again is the same");
    let other = Order { reason: "else".into(), ..good(0) };
    assert_eq!(write(other), Err(Denied::BadOrder), "an id is used once");
    assert_eq!(write(good(255)), Err(Denied::Full));
    let late = Order { expires_ms: NOW + 120_000, ..good(255) };
    let late = Entry::Order(Signed::seal(&keys(1), &late));
    assert_eq!(record.apply(late, &author(1), MESH, NOW + 60_000), Ok(()), "the ended ones make room");
    assert_eq!(record.orders().count(), ORDERS_WRITTEN_MAX);
}

/// A restart by hand: written, taken on, proved; each once, by who may, and all of it in the trail.
#[test]
fn the_trail_tells_what_became_of_an_order() {
    let mut record = Record::default();
    let mut apply = |entry: Entry, by: u8| record.apply(entry, &author(by), MESH, NOW);
    apply(written(1, 2, Authority::Person), 2).unwrap();
    let hash = OrderHash::of(&Signed::seal(&keys(2), &order(1, Authority::Person)));
    let receipt = Receipt { mesh: MESH, id: OrderId([1; 16]), order: hash, boot: BootId([6; 16]), start: 4 };
    let receipt = Entry::Receipt(Signed::seal(&keys(6), &receipt));
    apply(receipt.clone(), 2).unwrap();
    apply(receipt, 7).unwrap();
    let remark = |text: &str| {
        let (host, order, text) = (key(6), Some(OrderId([1; 16])), text.to_owned());
        Entry::Remark(Remark { host, order, told: Told::Refused, text })
    };
    assert_eq!(apply(remark("no"), 7), Err(Denied::NotOwn));
    assert_eq!(apply(remark(""), 6), Err(Denied::Words));
    assert_eq!(apply(remark(&"x".repeat(TEXT_BYTES_MAX + 1)), 6), Err(Denied::Words));
    for by in [1, 2, 6] {
        apply(remark("late"), by).unwrap();
    }
    let proof = |boot: u8, start| Entry::Proof(Proof { order: OrderId([1; 16]), boot: BootId([boot; 16]), start });
    assert_eq!(apply(proof(6, 5), 7), Err(Denied::NotWritten), "not the target's");
    assert_eq!(apply(proof(6, 4), 6), Err(Denied::NotProved), "the same life");
    apply(proof(6, 5), 6).unwrap();
    apply(proof(6, 5), 6).unwrap();
    assert_eq!(apply(proof(6, 6), 6), Err(Denied::NotProved), "it was proved before");
    let kinds: Vec<Kind> = record.audit().lines().map(|line| line.kind).collect();
    let refused = Kind::Told(Told::Refused);
    assert_eq!(kinds, [Kind::Ordered, Kind::Receipt, refused, refused, refused, Kind::Proved]);
    assert!(record.audit().lines().all(|line| line.order == Some(OrderId([1; 16])) && line.host == Some(key(6))));
    assert_eq!(
        record.steps(NOW).map(|step| step.rung).collect::<Vec<_>>(),
        [Rung::Restart],
        "it counts for the budget"
    );
}

//! What a target takes on and what it refuses.

use super::*;
use crate::wire::{decode, encode};

fn keys(n: u8) -> Keys {
    Keys::from_seed([n; 32])
}

const MESH: MeshId = MeshId([9; 32]);
const BOOT: BootId = BootId([1; 16]);

fn fence(term: u64) -> Fence {
    Fence { epoch: 0, term }
}

/// An order of host 1, who leads, for host 2 in its present boot.
fn order(number: u64, term: u64) -> Order {
    let act = Act::Reboot(Gently { grace_ms: 1_000 });
    Order { mesh: MESH, number, target: keys(2).key(), boot: BOOT, act, fence: fence(term), reason: "stuck".into() }
}

fn target() -> Target {
    Target::new(keys(2), MESH, BOOT, Record::default())
}

fn led(term: u64) -> Option<(PeerKey, Fence)> {
    Some((keys(1).key(), fence(term)))
}

#[test]
fn an_order_is_taken_on_once_and_answered_as_often_as_it_comes() {
    let mut target = target();
    let signed = Signed::seal(&keys(1), &order(1, 3));
    let Ok(Verdict::Act { order: taken, receipt }) = target.receive(&signed, led(3)) else { panic!("refused") };
    assert_eq!(taken, order(1, 3));
    assert_eq!(receipt.by, keys(2).key());
    let body: OrderReceipt = receipt.open().unwrap();
    assert_eq!(body, OrderReceipt { mesh: MESH, number: 1, boot: BOOT, fence: fence(3) });
    assert_eq!(target.receive(&signed, led(3)), Ok(Verdict::Again(receipt.clone())));
    // After a restart of the machine it knows from its disk that it did; another's boot would not stop it.
    let bytes = encode(target.record());
    let record = decode(&bytes, bytes.len()).unwrap();
    let mut rebooted = Target::new(keys(2), MESH, BootId([2; 16]), record);
    assert_eq!(rebooted.receive(&signed, led(3)), Ok(Verdict::Again(receipt)));
}

#[test]
fn what_is_not_for_this_host_now_is_refused() {
    let refused =
        |order: &Order, by: u8, leader| target().receive(&Signed::seal(&keys(by), order), leader).unwrap_err();
    let good = order(1, 3);
    assert_eq!(refused(&Order { mesh: MeshId([8; 32]), ..good.clone() }, 1, led(3)), Refusal::OtherMesh);
    assert_eq!(refused(&Order { target: keys(3).key(), ..good.clone() }, 1, led(3)), Refusal::NotMe(keys(3).key()));
    let other = BootId([7; 16]);
    let named = Refusal::OtherBoot { named: other, present: BOOT };
    assert_eq!(refused(&Order { boot: other, ..good.clone() }, 1, led(3)), named);
    assert_eq!(refused(&Order { reason: "x".repeat(1_025), ..good.clone() }, 1, led(3)), Refusal::TooLong);
    assert_eq!(refused(&good, 4, led(3)), Refusal::NotLeader(keys(4).key()));
    assert_eq!(refused(&good, 1, None), Refusal::NotLeader(keys(1).key()));
    assert_eq!(refused(&good, 1, led(4)), Refusal::Stale { got: fence(3), highest: fence(4) });
    let forged = Signed { by: keys(1).key(), ..Signed::seal(&keys(4), &good) };
    let error = target().receive(&forged, led(3)).unwrap_err();
    assert_eq!(error, Refusal::Wire(WireError::BadSignature(keys(1).key())));
}

#[test]
fn a_lower_fence_than_the_stored_one_is_refused_whatever_the_ledger_says() {
    let mut target = target();
    assert!(target.receive(&Signed::seal(&keys(1), &order(1, 5)), led(5)).is_ok());
    // The ledger was lost and is behind; the record was not.
    let refused = target.receive(&Signed::seal(&keys(1), &order(2, 4)), led(4));
    assert_eq!(refused, Err(Refusal::Stale { got: fence(4), highest: fence(5) }));
}

#[test]
fn what_is_forgotten_is_not_carried_out_again() {
    let mut target = target();
    let orders: Vec<Signed> =
        (1..=ORDERS_REMEMBERED as u64 + 1).map(|n| Signed::seal(&keys(1), &order(n, 3))).collect();
    for signed in &orders {
        assert!(matches!(target.receive(signed, led(3)), Ok(Verdict::Act { .. })));
    }
    assert_eq!(target.record().taken.len(), ORDERS_REMEMBERED);
    assert!(matches!(target.receive(&orders[0], led(3)), Err(Refusal::Stale { .. })));
    assert!(matches!(target.receive(&orders[1], led(3)), Ok(Verdict::Again(_))));
}

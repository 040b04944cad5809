//! A mesh of one host and an order by hand to it, for the tests of guard and door.

use mesh::identity::{Keys, PeerKey};
use mesh::order::{Act, BootId, Gently};
use mesh::roster::{Genesis, MeshId};
use mesh::warrant::{Authority, Order, OrderId};
use mesh::wire::Signed;

/// The founding record of a host that may order itself about by hand.
pub(crate) fn genesis(founder: &Keys) -> Signed {
    let genesis = Genesis {
        name: "demo".into(),
        host: "alpha".into(),
        recovery: Keys::from_seed([6; 32]).key(),
        wall_ms: 1_000_000,
        nonce: [7; 16],
        machine_id: [8; 32],
        store_id: [9; 16],
    };
    Signed::seal(founder, &genesis)
}

/// A reboot that its signer orders, for this life of the target.
pub(crate) fn reboot(by: &Keys, mesh: MeshId, target: PeerKey, id: u8, (boot, start): (BootId, u64)) -> Signed {
    let order = Order {
        mesh,
        id: OrderId([id; 16]),
        target,
        boot,
        start,
        act: Act::Reboot(Gently { grace_ms: 0 }),
        authority: Authority::Person,
        requester: "root on alpha".into(),
        fence: Default::default(),
        expires_ms: 2_000_000,
        force: false,
        reason: "it hangs".into(),
    };
    Signed::seal(by, &order)
}

//! Which records are kept, and what is shown for whom.

use super::super::tests::{World, join, keys};
use super::super::{Code, Command, Enrol, Revoke};
use super::*;

fn enrol(world: &mut World, inviter: u8, host: u8, signer: bool) -> Signed {
    let join = join(world, inviter, host, signer);
    let reply = world.send(1, Command::Enrol(Enrol { join: join.clone() }));
    assert!(reply.is_ok(), "{reply:?}");
    join
}

fn revoke(world: &mut World, by: u8, host: u8) -> Code {
    let revoke = Revoke { peer: keys(host).key(), banned: false, reason: "sold".into() };
    world.send(by, Command::Revoke(revoke)).code
}

/// Whom the links name, and whether they put it out.
fn told(links: &[Link]) -> Vec<(PeerKey, bool)> {
    let tell = |link: &Link| match link {
        Link::Introduction(join) => (join.by, false),
        Link::Expulsion(entry) => match entry.open::<super::super::Entry>().unwrap().command {
            Command::Revoke(revoke) => (revoke.peer, true),
            other => panic!("{other:?}"),
        },
    };
    links.iter().map(tell).collect()
}

#[test]
fn signers_and_their_ends_are_kept_and_nobody_elses() {
    let mut world = World::new(3);
    assert!(world.ledger.links().is_empty(), "the first signer is in the genesis, the others are none");
    let six = enrol(&mut world, 1, 6, true);
    enrol(&mut world, 6, 7, true);
    enrol(&mut world, 1, 8, true);
    enrol(&mut world, 1, 9, false);
    // A retry, and one that was refused, leave nothing behind.
    assert!(world.send(2, Command::Enrol(Enrol { join: six.clone() })).is_ok());
    let by_nobody = join(&world, 2, 10, true);
    assert!(!world.send(2, Command::Enrol(Enrol { join: by_nobody })).is_ok());
    assert_eq!(revoke(&mut world, 2, 6), Code::Forbidden);
    let key = |n: u8| keys(n).key();
    let kept: Vec<Link> = world.ledger.links().iter().cloned().collect();
    assert_eq!(told(&kept), [(key(6), false), (key(7), false), (key(8), false)]);
    assert!(world.ledger.links().has_redeemed(&six));

    assert_eq!((revoke(&mut world, 1, 6), revoke(&mut world, 1, 9)), (Code::Ok, Code::Ok));
    assert_eq!(revoke(&mut world, 1, 6), Code::Ok, "an answer that got lost");
    let shown = |n: u8| told(&world.ledger.links().for_signer(&key(n)));
    assert_eq!(
        shown(7),
        [(key(6), false), (key(7), false), (key(6), true)],
        "by whom it was let in, and what became of it"
    );
    assert_eq!(shown(8), [(key(8), false), (key(6), true)]);
    assert_eq!((shown(1), shown(2)), (vec![], vec![]));
    let again = world.ledger.restore(&world.ledger.snapshot()).unwrap();
    assert_eq!(again.links(), world.ledger.links());
}

#[test]
fn what_is_kept_is_bounded() {
    let world = World::new(1);
    let mut links = Links::default();
    for _ in 0..LINKS_KEPT_MAX + 5 {
        links.push(Link::Introduction(join(&world, 1, 6, true)));
    }
    assert_eq!(links.iter().count(), LINKS_KEPT_MAX);
}

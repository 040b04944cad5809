//! Warrants that are as they should be, and the scene in which all others are played.

use super::*;
use crate::ledger::Ledger;
use crate::ledger::tests::{World, keys};
use crate::ledger::{Command, Revoke};
use crate::order::Gently;
use crate::time::Time;

pub(crate) const BOOT: BootId = BootId([1; 16]);
pub(super) const TARGET: u8 = 4;
pub(super) const NONCE: [u8; 32] = [7; 32];

/// Hosts 1 to 5; 1, 2 and 3 vote, 1 leads term 1 and is the only signer.
pub(crate) fn world() -> World {
    let mut world = World::new(5);
    voters(&mut world, &[1, 2, 3], &[1]);
    world
}

pub(crate) fn voters(world: &mut World, next: &[u8], signers: &[u8]) {
    let next = next.iter().map(|n| keys(*n).key()).collect();
    let body = world.ledger.voters().next(&next);
    let sign = |n: &u8| Cosignature::new(&keys(*n), &body);
    let signatures = signers.iter().map(sign).collect();
    let reply = world.send(1, Command::Voters(VoterChange { body, signatures }));
    assert!(reply.is_ok(), "{reply:?}");
}

pub(super) fn evict(world: &mut World, host: u8) {
    let revoke = Revoke { peer: keys(host).key(), banned: false, reason: "gone".into() };
    assert!(world.send(1, Command::Revoke(revoke)).is_ok());
}

pub(super) fn fence(term: u64) -> Fence {
    Fence { epoch: 0, term }
}

pub(super) fn order_for(ledger: &Ledger, target: u8) -> Order {
    Order {
        mesh: ledger.mesh(),
        id: OrderId([5; 16]),
        target: keys(target).key(),
        boot: BOOT,
        start: 1,
        act: Act::Reboot(Gently { grace_ms: 1_000 }),
        authority: Authority::Leader,
        requester: "healing".into(),
        fence: fence(1),
        expires_ms: ledger.time_ms() + 60_000,
        force: false,
        reason: "b7, b8 and b9 failed to unpack here, and were built elsewhere".into(),
    }
}

/// One warrant on its way, with everything that can be wrong about it in a field of its own.
#[derive(Clone)]
pub(super) struct Scene {
    pub me: u8,
    pub order: Order,
    pub author: u8,
    pub cosigners: Vec<u8>,
    pub approval: fn(&mut Approval),
    pub warrant: fn(&mut Warrant),
    pub epoch: u64,
    pub host: Host,
    pub known: Known,
    pub guard: Guard,
    pub links: Vec<Frame>,
    pub took_ms: u64,
}

impl Scene {
    pub fn new(ledger: &Ledger) -> Scene {
        let host = Host { boot: BOOT, start: 1, protected: false, allow_reboot: true, wall_ms: ledger.time_ms() };
        Scene {
            me: TARGET,
            order: order_for(ledger, TARGET),
            author: 1,
            cosigners: vec![1, 2, 3],
            approval: |_| (),
            warrant: |_| (),
            epoch: ledger.voters().epoch(),
            host,
            known: Known::of(ledger),
            guard: Guard::new(ledger.mesh(), keys(TARGET).key()),
            links: vec![],
            took_ms: 100,
        }
    }

    pub fn by_hand(ledger: &Ledger) -> Scene {
        let scene = Scene::new(ledger);
        let order = Order { authority: Authority::Person, requester: "alice on h1".into(), ..scene.order.clone() };
        Scene { order, cosigners: vec![1], ..scene }
    }

    pub fn open(&self) -> (Hearing, Hello) {
        let at = Time::from_millis(50_000);
        let (hearing, frame) = Hearing::open(&keys(self.me), &self.guard, self.known.clone(), self.host, NONCE, at);
        let Ok(Frame::Hello(hello)) = Frame::read(&frame) else { panic!("no hello") };
        assert_eq!(hello.by, keys(self.me).key());
        (hearing, hello.open().unwrap())
    }

    pub fn warrant(&self, hello: &Hello) -> Warrant {
        let signed = Signed::seal(&keys(self.author), &self.order);
        let mut approval = Approval::new(&signed, &self.order, hello, self.epoch);
        (self.approval)(&mut approval);
        let approval = encode(&approval);
        let cosignatures = self.cosigners.iter().map(|n| cosign(&keys(*n), &approval)).collect();
        let mut warrant = Warrant { order: signed, approval, cosignatures };
        (self.warrant)(&mut warrant);
        warrant
    }

    pub fn play(&self) -> Result<Step, Refusal> {
        let (mut hearing, hello) = self.open();
        let now = Time::from_millis(50_000 + self.took_ms);
        for link in &self.links {
            assert!(matches!(hearing.receive(&link.write(), &self.guard, now)?, Step::More));
        }
        let frame = Frame::Warrant(self.warrant(&hello)).write();
        assert!(frame.len() <= crate::limits::WARRANT_FRAME_BYTES_MAX);
        hearing.receive(&frame, &self.guard, now)
    }
}

pub(super) fn permit(step: Result<Step, Refusal>) -> Unstored<Licence> {
    match step {
        Ok(Step::Permit(permit)) => permit,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_good_warrant_is_stored_then_acted_on_then_answered_for_ever() {
    let world = world();
    let mut scene = Scene::new(&world.ledger);
    let unstored = permit(scene.play());
    let bytes = unstored.bytes().to_vec();
    let licence = unstored.stored(&bytes).unwrap();
    assert_eq!(licence.act(), scene.order.act);
    let receipt: Receipt = licence.receipt().open().unwrap();
    assert_eq!((receipt.id, receipt.boot, licence.receipt().by), (scene.order.id, BOOT, keys(TARGET).key()));
    for part in ["reboot", "by the leader", "healing", "b7, b8", &keys(3).key().to_string()] {
        assert!(licence.journal().contains(part), "{}", licence.journal());
    }
    scene.guard = Guard::load(&bytes, world.ledger.mesh(), keys(TARGET).key()).unwrap();
    assert_eq!(scene.guard.highest(), fence(1));
    // The same again, even after the reboot that it asked for and long after: the same receipt, and nothing done.
    for boot in [BOOT, BootId([2; 16])] {
        scene.host.boot = boot;
        let Ok(Step::Again(again)) = scene.play() else { panic!("not idempotent") };
        assert_eq!(again, *licence.receipt());
    }
}

#[test]
fn a_hearing_ends_with_its_first_warrant() {
    let world = world();
    let scene = Scene { took_ms: 20_000, ..Scene::new(&world.ledger) };
    let (mut hearing, hello) = scene.open();
    let frame = Frame::Warrant(scene.warrant(&hello)).write();
    let late = Time::from_millis(80_000);
    assert_eq!(hearing.receive(&frame, &scene.guard, late).unwrap_err(), Refusal::Late { took_ms: 30_000 });
    let back_in_time = Time::from_millis(50_001);
    assert_eq!(hearing.receive(&frame, &scene.guard, back_in_time).unwrap_err(), Refusal::Spent);
}

#[test]
fn nothing_comes_out_before_the_disk_holds_it() {
    let world = world();
    for wrong in [&b""[..], &Scene::new(&world.ledger).guard.bytes()] {
        assert_eq!(permit(Scene::new(&world.ledger).play()).stored(wrong), Err(NotStored));
    }
    let naive = || permit(Scene::new(&world.ledger).play()).stored(b"").is_ok();
    assert!(crate::mutants::with(Some(crate::mutants::Mutant::WarrantBeforeStored), naive));
}

#[test]
fn a_person_orders_where_the_voters_cannot() {
    let mut world = world();
    let scene = Scene::by_hand(&world.ledger);
    let bytes = permit(scene.play()).bytes().to_vec();
    let guard = Guard::load(&bytes, world.ledger.mesh(), keys(TARGET).key()).unwrap();
    assert_eq!(guard.highest(), Fence::default(), "a fence that nobody verified is not stored");
    // Old roster, restart instead of reboot, force: all a person's to order.
    let mut old = Scene::by_hand(&world.ledger);
    old.host.wall_ms += crate::limits::ROSTER_MS_MAX + 1;
    old.order.force = true;
    let _ = permit(old.play());
    let mut restart = Scene::by_hand(&world.ledger);
    restart.order.act = Act::Restart(Gently { grace_ms: 0 });
    restart.host.allow_reboot = false;
    let _ = permit(restart.play());
    // One voter alone: its leader may not, its signer may.
    world = World::new(4);
    let alone = Scene { cosigners: vec![1], ..Scene::new(&world.ledger) };
    assert_eq!(alone.play().unwrap_err(), Refusal::TooFewOthers { others: 1 });
    let _ = permit(Scene::by_hand(&world.ledger).play());
}

/// A target that votes counts for the majority, and not for the two others.
#[test]
fn a_voter_is_rebooted_by_two_others() {
    let world = world();
    let mut scene = Scene { me: 3, cosigners: vec![1, 2], ..Scene::new(&world.ledger) };
    scene.order.target = keys(3).key();
    scene.guard = Guard::new(world.ledger.mesh(), keys(3).key());
    let _ = permit(scene.play());
    scene.cosigners = vec![1, 3];
    assert_eq!(scene.play().unwrap_err(), Refusal::TooFewOthers { others: 1 });
}

#[test]
fn a_guards_file_is_its_own_or_nothing() {
    let world = world();
    let guard = Guard::new(world.ledger.mesh(), keys(4).key());
    let bytes = guard.bytes();
    assert_eq!(Guard::load(&bytes, world.ledger.mesh(), keys(4).key()), Ok(guard));
    assert_eq!(Guard::load(&bytes, world.ledger.mesh(), keys(5).key()), Err(GuardError::NotMine));
    assert_eq!(Guard::load(&bytes, MeshId([0; 32]), keys(4).key()), Err(GuardError::NotMine));
    assert!(matches!(Guard::load(&bytes[1..], world.ledger.mesh(), keys(4).key()), Err(GuardError::Damaged(_))));
    assert!(matches!(Guard::load(b"", world.ledger.mesh(), keys(4).key()), Err(GuardError::Damaged(_))));
}

#[test]
fn receipts_are_bounded_and_the_newest_stay() {
    let world = world();
    let mut scene = Scene::new(&world.ledger);
    for n in 0..=crate::limits::ORDERS_REMEMBERED as u8 {
        scene.order.id = OrderId([n; 16]);
        let bytes = permit(scene.play()).bytes().to_vec();
        assert!(bytes.len() <= crate::limits::GUARD_BYTES_MAX);
        scene.guard = Guard::load(&bytes, world.ledger.mesh(), keys(TARGET).key()).unwrap();
    }
    assert!(matches!(scene.play(), Ok(Step::Again(_))));
    scene.order.id = OrderId([0; 16]);
    let _ = permit(scene.play()); // forgotten: but every voter has had to sign for a new nonce
}

#[test]
fn the_largest_warrant_fits_its_frame() {
    let world = world();
    let mut scene = Scene::new(&world.ledger);
    scene.order.reason = "x".repeat(crate::limits::TEXT_BYTES_MAX);
    scene.order.requester = "y".repeat(REQUESTER_BYTES_MAX);
    scene.order.expires_ms = u64::MAX;
    scene.order.start = u64::MAX;
    scene.order.act = Act::Reboot(Gently { grace_ms: crate::limits::GRACE_MS_MAX });
    let (_, hello) = scene.open();
    let mut warrant = scene.warrant(&hello);
    warrant.cosignatures = vec![warrant.cosignatures[0].clone(); crate::limits::VOTERS_MAX + 1];
    let frame = Frame::Warrant(warrant).write();
    assert!(frame.len() <= WARRANT_FRAME_BYTES_MAX, "{}", frame.len());
}

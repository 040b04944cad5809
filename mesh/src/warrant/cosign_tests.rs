//! What a voter signs, and each thing for which it does not.

use super::tests::*;
use super::*;
use crate::ledger::tests::{World, keys};
use crate::limits::ORDER_MS_MAX;
use crate::mutants::{Mutant, with};

/// A leader's question to voter 2, with everything that can be wrong about it.
struct Asked {
    world: World,
    voter: u8,
    order: Order,
    author: u8,
    hello: Hello,
    greeter: u8,
    notes: Notes,
    written: bool,
    suspended: bool,
    held_back: Option<String>,
}

impl Asked {
    fn new() -> Asked {
        let world = world();
        let order = order_for(&world.ledger, TARGET);
        let hello = Scene::new(&world.ledger).open().1;
        let notes = Notes::default();
        let (written, suspended, held_back) = (true, false, None);
        Asked { world, voter: 2, order, author: 1, hello, greeter: TARGET, notes, written, suspended, held_back }
    }

    fn with(lie: impl FnOnce(&mut Asked)) -> Asked {
        let mut asked = Asked::new();
        lie(&mut asked);
        asked
    }

    fn consider(&self) -> Result<Consent, Objection> {
        let order = Signed::seal(&keys(self.author), &self.order);
        let hello = Signed::seal(&keys(self.greeter), &self.hello);
        let Asked { written, suspended, .. } = *self;
        let own = Own { ledger: &self.world.ledger, written, suspended, held_back: self.held_back.clone() };
        consider(&keys(self.voter), &self.notes, &order, &hello, &own)
    }

    /// Signs, and remembers it.
    fn sign(&mut self) -> Approved {
        let Ok(Consent::New(unstored)) = self.consider() else { panic!("{:?}", self.consider()) };
        let bytes = unstored.bytes().to_vec();
        self.notes = Notes::load(&bytes).unwrap();
        unstored.stored(&bytes).unwrap()
    }
}

#[test]
fn what_voters_sign_is_what_the_target_takes() {
    let signed: Vec<Approved> = [1, 2, 3].map(|voter| Asked::with(|a| a.voter = voter).sign()).into();
    assert!(signed.iter().all(|s| s.approval == signed[0].approval));
    let asked = Asked::new();
    let scene = Scene::new(&asked.world.ledger);
    let (mut hearing, _) = scene.open();
    let warrant = Warrant {
        order: Signed::seal(&keys(1), &asked.order),
        approval: signed[0].approval.clone(),
        cosignatures: signed.into_iter().map(|s| s.cosignature).collect(),
    };
    let now = crate::time::Time::from_millis(50_100);
    let _ = permit(hearing.receive(&Frame::Warrant(warrant).write(), &scene.guard, now));
}

#[test]
fn a_voter_objects_for_itself_whatever_the_leader_claims() {
    use Mutant::*;
    let key = |n: u8| keys(n).key();
    type Lie = (&'static str, Mutant, Objection, fn(&mut Asked));
    let lies: Vec<Lie> = vec![
        ("an order that nobody wrote", CosignUnwritten, Objection::NotWritten, |a| a.written = false),
        ("a voter that does not lead", CosignAnyLeader, Objection::NotLeader(key(3)), |a| a.author = 3),
        ("a term that nobody won", CosignAnyLeader, Objection::NotLeader(key(1)), |a| a.order.fence = fence(u64::MAX)),
        ("expired", CosignExpired, Objection::Expired, |a| a.order.expires_ms = a.world.ledger.time_ms()),
        ("for ever", CosignExpired, Objection::Expired, |a| {
            a.order.expires_ms = a.world.ledger.time_ms() + ORDER_MS_MAX + 1;
        }),
        ("a leader's force", CosignForce, Objection::Force, |a| a.order.force = true),
        ("another boot", CosignOtherBoot, Objection::Restarted, |a| a.hello.boot = BootId([9; 16])),
        ("a service restarted since", CosignOtherBoot, Objection::Restarted, |a| {
            a.order.act = Act::Restart(crate::order::Gently { grace_ms: 0 });
            a.hello.start = 2;
        }),
        ("a hello of the leader's own", CosignForgedHello, Objection::NotTargets(key(1)), |a| a.greeter = 1),
        ("a target that has seen later", CosignStale, Objection::Stale(fence(2)), |a| a.hello.highest = fence(2)),
        ("own healing holds back", CosignHeldBack, Objection::HeldBack("frozen".into()), |a| {
            a.held_back = Some("frozen".into());
        }),
        ("a suspended identity", CosignSuspended, Objection::MayNot, |a| a.suspended = true),
        ("no voter", CosignSuspended, Objection::MayNot, |a| a.voter = 5),
    ];
    for (what, mutant, objection, lie) in lies {
        let asked = Asked::with(lie);
        assert_eq!(asked.consider().expect_err(what), objection, "{what}");
        assert!(with(Some(mutant), || asked.consider().is_ok()), "{what}: {mutant} changes nothing");
        // Who takes an address for an identity has no use for these two, and keeps all others.
        for other in Mutant::ALL.iter().filter(|other| **other != mutant) {
            let signs = with(Some(*other), || asked.consider().is_ok());
            let identity = matches!(mutant, CosignForgedHello | CosignOtherBoot);
            assert_eq!(signs, *other == Mutant::IdentityByAddress && identity, "{what}: with {other}");
        }
    }
    // What has no naive variant, for nothing could come of it.
    let objects = |lie: fn(&mut Asked)| Asked::with(lie).consider().expect_err("signed");
    assert_eq!(objects(|a| a.order.authority = Authority::Person), Objection::ByHand);
    assert_eq!(objects(|a| a.hello.mesh = MeshId([0; 32])), Objection::OtherMesh);
    assert_eq!(objects(|a| a.order.reason.clear()), Objection::Unbounded);
    assert_eq!(objects(|a| evict(&mut a.world, TARGET)), Objection::NotEnrolled(key(TARGET)));
    let mut forged = Asked::new();
    forged.order.target = key(50);
    forged.greeter = 50;
    assert_eq!(forged.consider().expect_err("a stranger"), Objection::NotEnrolled(key(50)));
}

#[test]
fn a_voter_signs_one_hello_for_one_order() {
    let mut asked = Asked::new();
    let first = asked.sign();
    let Ok(Consent::Again(again)) = asked.consider() else { panic!("not idempotent") };
    assert_eq!(again, first);
    asked.hello.nonce = [1; 32];
    assert_eq!(asked.consider().expect_err("signed"), Objection::SignedBefore);
    let naive = with(Some(Mutant::CosignTwice), || asked.sign());
    // Who signs twice convicts itself, before everybody.
    let proof = Equivocation::prove(first.clone(), naive.clone()).unwrap();
    assert_eq!(proof.culprit(), Some(keys(2).key()));
    assert!(proof.text().unwrap().contains(&keys(2).key().to_string()));
    let bytes = encode(&proof);
    assert_eq!(decode::<Equivocation>(&bytes, bytes.len()).unwrap().culprit(), Some(keys(2).key()));
    // The same twice, another's signature, a forged one, another order: nothing is proved.
    assert_eq!(Equivocation::prove(first.clone(), first.clone()), None);
    assert_eq!(Equivocation::prove(first.clone(), Asked::with(|a| a.voter = 3).sign()), None);
    let mut forged = naive.clone();
    forged.cosignature.sig[0] ^= 1;
    assert_eq!(Equivocation::prove(first.clone(), forged), None);
    assert_eq!(Equivocation::prove(first, Asked::with(|a| a.order.id = OrderId([1; 16])).sign()), None);
}

#[test]
fn a_voters_notes_are_bounded_and_end_with_their_orders() {
    let mut asked = Asked::new();
    for n in 0..crate::limits::COSIGNED_MAX as u8 {
        asked.order.id = OrderId([n; 16]);
        asked.sign();
    }
    assert!(asked.notes.bytes().len() <= crate::limits::GUARD_BYTES_MAX);
    asked.order.id = OrderId([255; 16]);
    assert_eq!(asked.consider().expect_err("signed"), Objection::Full);
    let later = crate::ledger::Batch { time_ms: asked.order.expires_ms, entries: vec![] };
    asked.world.ledger.apply(1_000, 1, &encode(&later));
    asked.order.expires_ms += 1_000;
    asked.sign();
    assert!(asked.notes.bytes().len() < 400, "the expired ones are gone");
}

#[test]
fn a_signer_signs_by_hand_for_the_target_alone() {
    let world = world();
    let scene = Scene::by_hand(&world.ledger);
    let order = Signed::seal(&keys(1), &scene.order);
    let (mut hearing, hello) = scene.open();
    let greet = |by: u8, hello: &Hello| approve_by_hand(&keys(1), &order, &Signed::seal(&keys(by), hello));
    assert_eq!(greet(5, &hello), Err(Objection::NotTargets(keys(5).key())));
    assert_eq!(greet(TARGET, &Hello { boot: BootId([0; 16]), ..hello.clone() }), Err(Objection::Restarted));
    assert_eq!(greet(TARGET, &Hello { highest: fence(9), ..hello.clone() }), Err(Objection::Stale(fence(9))));
    let approved = greet(TARGET, &hello).unwrap();
    let warrant = Warrant { order, approval: approved.approval, cosignatures: vec![approved.cosignature] };
    let now = crate::time::Time::from_millis(51_000);
    let _ = permit(hearing.receive(&Frame::Warrant(warrant).write(), &scene.guard, now));
}

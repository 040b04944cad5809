//! The whole way of one step, as leader, voters, target and ledger go it: plan, order, signatures, hearing, receipt,
//! proof. And a leader that lies on that way: it gets no majority.

use super::tests::*;
use super::*;
use crate::blame::tests::key;
use crate::lease::Fence;
use crate::ledger::tests::keys;
use crate::roster::Cosignature;
use crate::time::Time;
use crate::warrant::{
    Authority, Consent, Frame, Guard, Hearing, Host, Known, Notes, Objection, Order, OrderHash, Own, Refusal,
    Step as Heard, Warrant, consider,
};
use crate::wire::Signed;

const FENCE: Fence = Fence { epoch: 0, term: 1 };
const T: Time = Time::from_millis(5_000);

struct Journey {
    ward: Ward,
    order: Signed,
    hearing: Hearing,
    hello: Signed,
    guard: Guard,
}

impl Journey {
    /// The leader's order is in the ledger, and the target has said hello. `lies` changes what the leader writes.
    fn new(mut ward: Ward, lies: impl FnOnce(&mut Order)) -> Journey {
        let now = ward.ledger.time_ms();
        let (mesh, sight) = (ward.ledger.mesh(), ward.sights[&key(SICK)].clone());
        let mut order = Order {
            mesh,
            id: OrderId([42; 16]),
            target: key(SICK),
            boot: sight.boot,
            start: sight.start,
            act: act(Rung::Restart, ward.record.policy()).unwrap(),
            authority: Authority::Leader,
            requester: "healing".into(),
            fence: FENCE,
            expires_ms: now + 10 * MINUTE,
            force: false,
            reason: "it is down".into(),
        };
        lies(&mut order);
        let leader = Author { key: key(1), signer: false, leads: Some(FENCE) };
        let signed = Signed::seal(&keys(1), &order);
        let _ = ward.record.apply(Entry::Order(signed.clone()), &leader, mesh, now);
        let pending = Pending { id: order.id, boot: order.boot, start: order.start, until_ms: now + 15 * MINUTE };
        let (host, event) = (key(SICK), Event::Ordered);
        let change = Change { host, event, why: order.reason.clone(), order: Some(pending) };
        let _ = ward.record.apply(Entry::Change(change), &leader, mesh, now);

        let guard = Guard::new(mesh, key(SICK));
        let (boot, start, wall_ms) = (sight.boot, sight.start, now);
        let host = Host { boot, start, protected: sight.protected, allow_reboot: sight.allow_reboot, wall_ms };
        let (hearing, frame) = Hearing::open(&keys(SICK), &guard, Known::of(&ward.ledger), host, [3; 32], T);
        let Ok(Frame::Hello(hello)) = Frame::read(&frame) else { panic!("no hello") };
        Journey { ward, order: signed, hearing, hello, guard }
    }

    /// What a voter answers, by a view of its own.
    fn ask(&self, voter: u8, look: impl FnOnce(&mut Ward)) -> Result<(Vec<u8>, Cosignature), Objection> {
        let mut own = self.ward.clone();
        look(&mut own);
        let order: Order = self.order.open().unwrap();
        let held_back = own.with(|f| objection(&Facts { me: key(voter), ..*f }, &order.target, order.id, order.act));
        let written = own.record.is_open(&OrderHash::of(&self.order), own.ledger.time_ms());
        let own = Own { ledger: &own.ledger, written, suspended: false, held_back };
        match consider(&keys(voter), &Notes::default(), &self.order, &self.hello, &own)? {
            Consent::Again(_) => panic!("it has signed nothing before"),
            Consent::New(unstored) => {
                let bytes = unstored.bytes().to_vec();
                let approved = unstored.stored(&bytes).unwrap();
                Ok((approved.approval, approved.cosignature))
            }
        }
    }

    fn hear(&mut self, signed: Vec<(Vec<u8>, Cosignature)>) -> Result<Heard, Refusal> {
        let approval = signed.first().map(|(approval, _)| approval.clone()).unwrap_or_default();
        let cosignatures = signed.into_iter().map(|(_, cosignature)| cosignature).collect();
        let frame = Frame::Warrant(Warrant { order: self.order.clone(), approval, cosignatures });
        self.hearing.receive(&frame.write(), &self.guard, T)
    }
}

/// Host 6 is down, set aside, and its cool-down is over: the service is to be restarted.
fn due() -> Ward {
    let mut ward = Ward::new(&hospital());
    ward.down();
    ward.note(SICK, Event::Down);
    ward.pass(20 * MINUTE);
    assert_eq!(ward.says(), Some(What::Order(Rung::Restart)));
    ward
}

#[test]
fn from_plan_to_proof() {
    let mut journey = Journey::new(due(), |_| ());
    let signed: Vec<_> = [1, 2, 3].map(|voter| journey.ask(voter, |_| ()).unwrap()).into();
    let Ok(Heard::Permit(unstored)) = journey.hear(signed) else { panic!("refused") };
    let bytes = unstored.bytes().to_vec();
    let licence = unstored.stored(&bytes).unwrap();
    assert_eq!(licence.order().reason, "it is down");
    let mut ward = journey.ward;
    let (mesh, now) = (ward.ledger.mesh(), ward.ledger.time_ms());
    let member = Author { key: key(2), signer: false, leads: None };
    ward.record.apply(Entry::Receipt(licence.receipt().clone()), &member, mesh, now).unwrap();
    assert!(!ward.record.is_open(&OrderHash::of(&journey.order), now), "nobody signs for it again");
    assert_eq!(ward.says(), None, "a receipt is no proof");
    let sick = ward.sick();
    (sick.down, sick.start) = (false, 2);
    assert_eq!(ward.says(), Some(What::Note(Event::Proved)));
}

#[test]
fn voters_that_see_better_keep_a_leader_from_harm() {
    let mut journey = Journey::new(due(), |_| ());
    // Two of three hear the host: the leader is cut off from it, and alone in that.
    let heard = |ward: &mut Ward| ward.sick().down = false;
    assert_eq!(journey.ask(2, heard).unwrap_err(), Objection::HeldBack("it is well again".into()));
    assert!(journey.ask(3, heard).is_err());
    let alone = vec![journey.ask(1, |_| ()).unwrap()];
    assert_eq!(journey.hear(alone).unwrap_err(), Refusal::NoMajority { valid: 1, needed: 2 });
}

#[test]
fn a_leader_that_lies_gets_nobodys_signature() {
    let refused = |ward: Ward, lie: fn(&mut Order), look: fn(&mut Ward)| {
        let journey = Journey::new(ward, lie);
        [2, 3].map(|voter| journey.ask(voter, look).expect_err("signed")).map(|why| why.to_string())
    };
    let well = || Ward::new(&hospital());
    // A healthy host, with a reason that is made up; no case was ever opened for it.
    assert!(refused(well(), |o| o.reason = "b1.1, b2.1, b3.1".into(), |_| ())[0].contains("stands at Well here"));
    // Force, which is not even written; a reboot where a restart is due; another host than the case's.
    assert!(refused(due(), |o| o.force = true, |_| ())[0].contains("not open in this voter's ledger"));
    let reboot = |o: &mut Order| o.act = Act::Reboot(Gently { grace_ms: 0 });
    assert!(refused(due(), reboot, |_| ())[1].contains("its case stands at"));
    assert!(refused(due(), |o| o.target = key(7), |_| ())[0].contains("who is not the order's target"));
    // A policy that only the leader has, a term that it has not won.
    let strict = |ward: &mut Ward| ward.record.set_policy(Policy { heal: 0, ..Policy::default() }).unwrap();
    assert!(refused(due(), |_| (), strict)[0].contains("heal = off"));
    assert!(refused(due(), |o| o.fence.term = u64::MAX, |_| ())[0].contains("not open in this voter's ledger"));
}

/// Another voter leads, as the ledger has it.
fn led_by(ward: &mut Ward, n: u8, term: u64) -> Author {
    use crate::ledger::{Batch, Command, Lead, RequestId};
    let fence = Fence { epoch: 0, term };
    let lead = Command::Lead(Lead { version: "so".into() });
    let entry = crate::ledger::Entry::seal(&keys(n), ward.ledger.mesh(), RequestId([n; 16]), Some(fence), lead);
    let batch = Batch { time_ms: ward.ledger.time_ms(), entries: vec![entry] };
    let replies = ward.ledger.apply(ward.ledger.index() + 1, term, &crate::wire::encode(&batch));
    assert!(replies[0].is_ok(), "{replies:?}");
    Author { key: key(n), signer: false, leads: Some(fence) }
}

/// What the leader's plan says of the sick host, as an entry of that leader.
fn noted(ward: &mut Ward, leader: &Author) {
    let (mesh, now) = (ward.ledger.mesh(), ward.ledger.time_ms());
    let step = ward.plan().steps.into_iter().find(|step| step.host == key(SICK)).expect("a step");
    let (host, why) = (step.host, step.why);
    let entry = match step.what {
        What::Withdraw(order) => Entry::Withdraw(Withdraw { host, order, why }),
        What::Note(event) => Entry::Change(Change { host, event, why, order: None }),
        what => panic!("{what}"),
    };
    ward.record.apply(entry, leader, mesh, now).unwrap();
}

/// The leader is lost between its order and the delivery: the next one orders the same rung, at once and for the same
/// reason, and nothing is counted that was not done.
#[test]
fn an_order_that_reached_nobody_climbs_no_rung() {
    let lost = |naive| {
        crate::mutants::with(naive, || {
            let Journey { mut ward, .. } = Journey::new(due(), |_| ());
            let steps = |ward: &Ward| ward.record.steps(ward.ledger.time_ms()).map(|s| s.rung).collect::<Vec<_>>();
            assert_eq!((ward.says(), steps(&ward)), (None, vec![Rung::Aside, Rung::Restart]), "its leader carries it");
            let next = led_by(&mut ward, 2, 2);
            ward.pass(MINUTE);
            while ward.says().is_none() {
                ward.pass(MINUTE); // the naive leader waits until the order is over, and for the cool-down then
            }
            noted(&mut ward, &next);
            while ward.says().is_none() {
                ward.pass(MINUTE);
            }
            let why = ward.plan().steps[0].why.clone();
            (ward.says(), steps(&ward), why)
        })
    };
    assert_eq!(lost(None), (Some(What::Order(Rung::Restart)), vec![Rung::Aside], "it is down".into()));
    let (naive, steps, _) = lost(Some(crate::mutants::Mutant::LostOrdersClimb));
    assert_eq!((naive, steps.len()), (Some(What::Order(Rung::Reboot)), 2), "a reboot after a restart that never was");
}

#[test]
fn what_may_have_been_received_is_not_taken_back() {
    let Journey { mut ward, order: signed, .. } = Journey::new(due(), |_| ());
    let (mesh, id) = (ward.ledger.mesh(), OrderId([42; 16]));
    let take_back = |ward: &Ward, author: &Author, order| {
        let entry = Entry::Withdraw(Withdraw { host: key(SICK), order, why: "so".into() });
        ward.record.clone().apply(entry, author, mesh, ward.ledger.time_ms())
    };
    let own = Author { key: key(1), signer: true, leads: Some(FENCE) };
    assert_eq!(take_back(&ward, &own, id), Err(Denied::NotLost), "its own leader may still carry it");
    let through_change = Change { host: key(SICK), event: Event::Withdrawn, why: "so".into(), order: None };
    let now = ward.ledger.time_ms();
    assert_eq!(ward.record.clone().apply(Entry::Change(through_change), &own, mesh, now), Err(Denied::NotLeader));
    let next = led_by(&mut ward, 2, 2);
    assert_eq!(take_back(&ward, &Author { leads: None, ..next }, id), Err(Denied::NotLeader));
    assert_eq!(take_back(&ward, &next, OrderId([9; 16])), Err(Denied::NotLost), "the case waits for another");
    assert_eq!(take_back(&ward, &next, id), Ok(()));
    // The target took it on, and its word has come: now its proof is waited for.
    let receipt = crate::warrant::Receipt {
        mesh,
        id,
        order: OrderHash::of(&signed),
        boot: ward.sights[&key(SICK)].boot,
        start: ward.sights[&key(SICK)].start,
    };
    let receipt = Entry::Receipt(Signed::seal(&keys(SICK), &receipt));
    ward.record.apply(receipt, &next, mesh, now).unwrap();
    assert_eq!((take_back(&ward, &next, id), ward.says()), (Err(Denied::NotLost), None));
    let naive = Some(crate::mutants::Mutant::WithdrawsWhatArrived);
    assert_eq!(crate::mutants::with(naive, || take_back(&ward, &next, id)), Ok(()));
}

/// It reached the target after all, and the target has come back before its word did: that is proof, whoever leads.
#[test]
fn a_proof_counts_whoever_leads() {
    let Journey { mut ward, .. } = Journey::new(due(), |_| ());
    led_by(&mut ward, 3, 2);
    assert!(matches!(ward.says(), Some(What::Withdraw(_))));
    let sick = ward.sick();
    (sick.down, sick.start) = (false, 2);
    assert_eq!(ward.says(), Some(What::Note(Event::Proved)));
}

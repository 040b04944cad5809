//! Each mutant really leaves its rule out: a small case for each, with the rule and without.
//!
//! Pure and directed; that the simulator also meets such cases from random seeds is `mutants.rs`. Rules that live
//! in a node's own files (admission, the disk, the start number) are played there by whole simulations.
#![allow(clippy::unwrap_used)] // helpers of tests, which clippy does not exempt

use mesh::addresses::{Addresses, Source};
use mesh::build::{Attempt, BlobId, BuildId, BuildSpec, End, Outcome, Phase, Receipt};
use mesh::clock::LedgerClock;
use mesh::identity::Keys;
use mesh::lease::{Fence, LeaseInput, grant};
use mesh::ledger::*;
use mesh::membership::{self, Checked, Input, Membership};
use mesh::mutants::{Mutant, with};
use mesh::order::{Act, BootId, Gently, Order, Record, Target, Verdict};
use mesh::placement::{HostNow, View, plan};
use mesh::restraint::Restraint;
use mesh::roster::{Cosignature, Genesis, Invitation, JoinRequest, MeshId, VoterChange, invitation_proof};
use mesh::time::Time;
use mesh::wire::{Signed, encode};
use std::time::Duration;

fn keys(n: u8) -> Keys {
    Keys::from_seed([n; 32])
}

/// A mesh of three hosts, led by host 1 in term 2, with one build of which host 2 has the first attempt.
struct Small {
    ledger: Ledger,
    index: u64,
    build: BuildId,
}

const FENCE: Fence = Fence { epoch: 0, term: 2 };

impl Small {
    fn new() -> Small {
        let recovery = keys(99).key();
        let (name, host) = ("m".into(), "h1".into());
        let (nonce, machine_id, store_id) = ([0; 16], [1; 32], [1; 16]);
        let genesis = Genesis { name, host, recovery, wall_ms: 1_000, nonce, machine_id, store_id };
        let ledger = Ledger::found(&Signed::seal(&keys(1), &genesis)).unwrap();
        let mut small = Small { ledger, index: 0, build: BuildId(1) };
        assert!(small.send(1, 0, Command::Lead(Lead { version: "t".into() })).is_ok());
        for host in [2, 3] {
            let (mesh, one_time) = (small.ledger.mesh(), keys(host + 100));
            let invitation =
                Invitation { mesh, key: one_time.key(), name: format!("h{host}"), signer: false, expires_ms: 60_000 };
            let request = JoinRequest {
                mesh,
                invitation: Signed::seal(&keys(1), &invitation),
                proof: one_time.sign(&invitation_proof(&mesh, &keys(host).key())),
                machine_id: [host; 32],
                store_id: [host; 16],
            };
            assert!(small.send(1, host, Command::Enrol(Enrol { join: Signed::seal(&keys(host), &request) })).is_ok());
        }
        assert!(small.submit().is_ok());
        assert!(small.assign(FENCE, 1).is_ok());
        small
    }

    fn commit(&mut self, signed: Signed, time_ms: u64) -> Reply {
        self.index += 1;
        self.ledger.apply(self.index, FENCE.term, &encode(&Batch { time_ms, entries: vec![signed] })).remove(0)
    }

    fn entry(&self, by: u8, request: u8, fence: Option<Fence>, command: Command) -> Signed {
        Entry::seal(&keys(by), self.ledger.mesh(), RequestId([request; 16]), fence, command)
    }

    fn send(&mut self, by: u8, request: u8, command: Command) -> Reply {
        let leaders = matches!(command, Command::Lead(_) | Command::Voters(_) | Command::Assign(_) | Command::Lose(_));
        let signed = self.entry(by, request, leaders.then_some(FENCE), command);
        self.commit(signed, 2_000)
    }

    fn submit(&mut self) -> Reply {
        let specs = vec![BuildSpec::new("one", vec!["true".into()])];
        self.send(1, 50, Command::Submit(Submit { specs }))
    }

    fn assign(&mut self, fence: Fence, attempt: u32) -> Reply {
        let assignment = Assignment { build: self.build, attempt: Attempt(attempt), host: keys(2).key(), start: 1 };
        let command = Command::Assign(Assign { attempts: vec![assignment] });
        let signed = self.entry(1, 51, Some(fence), command);
        self.commit(signed, 2_000)
    }

    fn lose(&mut self) -> Reply {
        let lost = Lost { build: self.build, attempt: Attempt(1), reason: "down".into() };
        self.send(1, 52, Command::Lose(Lose { attempts: vec![lost] }))
    }

    fn report(&mut self, holders: &[u8]) -> Reply {
        let (build, attempt, log) = (self.build, Attempt(1), Some(BlobId::of(b"log")));
        let receipt = Receipt { mesh: self.ledger.mesh().0, build, attempt, manifest: None, log };
        let receipts = holders.iter().map(|n| Signed::seal(&keys(*n), &receipt)).collect();
        let (end, phase, text) = (End::Done, Phase::Command, String::new());
        let outcome = Outcome { end, phase, code: 0, text, manifest: None, log, took_ms: 1 };
        self.send(2, 53, Command::Report(Report { ends: vec![AttemptEnd { build, attempt, outcome, receipts }] }))
    }

    fn view(&self) -> View {
        let host = HostNow { alive: true, start: 1, cores: 2, caught_up: true, ..HostNow::default() };
        (1..=3).map(|n| (keys(n).key(), host.clone())).collect()
    }
}

fn stale_assignment() -> bool {
    let mut small = Small::new();
    small.lose();
    small.assign(Fence { epoch: 0, term: 1 }, 2).is_ok()
}

fn unsigned_voters() -> bool {
    let mut small = Small::new();
    let body = small.ledger.voters().next(&[keys(2).key()].into());
    let signatures = vec![Cosignature::new(&keys(2), &body)];
    small.send(1, 54, Command::Voters(VoterChange { body, signatures })).is_ok()
}

fn forged_submission() -> bool {
    let mut small = Small::new();
    let specs = vec![BuildSpec::new("forged", vec!["true".into()])];
    let signed = small.entry(3, 55, None, Command::Submit(Submit { specs }));
    small.commit(Signed { by: keys(2).key(), ..signed }, 2_000).is_ok()
}

fn done_unheld() -> bool {
    Small::new().report(&[]).is_ok()
}

fn late_report() -> bool {
    let mut small = Small::new();
    small.lose();
    small.report(&[2, 3]).is_ok()
}

fn second_build() -> bool {
    let mut small = Small::new();
    small.submit().builds != vec![small.build]
}

fn time_back() -> bool {
    let mut small = Small::new();
    let again = small.entry(1, 50, None, Command::Cancel(Cancel { builds: vec![], reason: String::new() }));
    small.commit(again, 500);
    small.ledger.time_ms() < 2_000
        && LedgerClock::start(2_000, 500, &[], 1, Time::default()).now_ms(Time::default()) < 2_000
}

fn kept_by_the_lost() -> bool {
    let small = Small::new();
    let mut view = small.view();
    let host = view.get_mut(&keys(2).key()).unwrap();
    (host.alive, host.down) = (false, true);
    plan(&small.ledger, &view, &Restraint::default()).lose.is_empty()
}

fn taken_from_the_busy() -> bool {
    let mut small = Small::new();
    let tick = small.entry(1, 56, None, Command::Cancel(Cancel { builds: vec![], reason: String::new() }));
    small.commit(tick, 100_000);
    !plan(&small.ledger, &small.view(), &Restraint::default()).lose.is_empty()
}

fn old_leader_acts() -> bool {
    let (lease, margin) = (Duration::from_millis(5_000), Duration::from_millis(250));
    let last_quorum_acked = Some(Time::from_millis(0));
    let (is_leader, is_voter, sole_voter, epoch, term) = (true, true, false, 0, 1);
    let input = LeaseInput { is_leader, is_voter, sole_voter, last_quorum_acked, lease, margin, epoch, term };
    grant(&input, Time::from_millis(60_000)).is_some()
}

/// What a target does with an order: how often it acts.
fn acts(order: Order, times: usize, leader: Fence) -> usize {
    let mut target = Target::new(keys(2), MeshId([9; 32]), BootId([1; 16]), Record::default());
    let signed = Signed::seal(&keys(1), &order);
    let acted = |_: &usize| matches!(target.receive(&signed, Some((keys(1).key(), leader))), Ok(Verdict::Act { .. }));
    (0..times).filter(acted).count()
}

fn order() -> Order {
    let (mesh, boot, act) = (MeshId([9; 32]), BootId([1; 16]), Act::Reboot(Gently { grace_ms: 1 }));
    Order { mesh, number: 1, target: keys(2).key(), boot, act, fence: FENCE, reason: "stuck".into() }
}

fn anothers_order() -> bool {
    acts(Order { target: keys(3).key(), ..order() }, 1, FENCE) > 0
}

fn order_again() -> bool {
    acts(order(), 2, FENCE) > 1
}

fn old_order() -> bool {
    acts(order(), 1, Fence { epoch: 0, term: 3 }) > 0
}

fn old_leads() -> bool {
    let (me, peer) = (keys(1).key(), keys(2).key());
    let mut addresses = Addresses::new(me);
    for n in 0..200 {
        addresses.learn(peer, &format!("/ip4/10.0.0.{n}/tcp/1"), Source::Gossip, None, Time::default());
    }
    let kept = addresses.rows(&peer, Time::default()).len();
    let late = Time::default() + Duration::from_secs(30 * 24 * 3_600);
    kept > mesh::addresses::LEADS_MAX && !addresses.rows(&peer, late).is_empty()
}

fn own(n: u8, start: u64) -> membership::Own {
    let (store, machine_id, boot_id) = ([n; 16], [n; 32], [n; 16]);
    membership::Own { keys: keys(n), mesh: [9; 32], start, store, machine_id, boot_id, nonce: start }
}

fn core(n: u8, start: u64) -> Membership {
    let mut core = Membership::new(own(n, start), 1, membership::Config::default(), Time::default());
    let members = membership::Members::new((1..=5).map(|n| keys(n).key()), 0);
    core.set_members(&members, Time::default());
    core
}

/// What a core says of itself, as its addresses change.
fn statements(n: u8, start: u64) -> Vec<Vec<u8>> {
    let mut core = core(n, start);
    let mut said = vec![];
    for at in 1..4 {
        let facts =
            membership::PresenceFacts { addresses: vec![format!("/ip4/10.0.0.{at}/tcp/1")], ..Default::default() };
        core.set_facts(facts, Time::from_millis(at * 20_000));
        while let Some(output) = core.poll() {
            if let membership::Output::Publish(bytes) = output {
                said.push(bytes.to_vec());
            }
        }
    }
    said
}

/// A presence of an earlier sequence that comes after a later one: which is kept.
fn old_statement() -> bool {
    let said = statements(2, 1);
    let mut core = core(1, 1);
    let mut hear = |bytes: &Vec<u8>| {
        let checked = Checked::open(bytes).unwrap();
        core.handle(Input::Checked(checked), Time::from_millis(10));
        core.host(&keys(2).key()).and_then(|view| view.presence.as_ref().map(|p| p.sequence))
    };
    let (first, last) = (hear(&said[0]), hear(&said[said.len() - 1]));
    assert!(first.is_some() && last > first, "{} statements: {first:?} to {last:?}", said.len());
    hear(&said[0]) != last
}

#[test]
fn every_mutant_leaves_its_rule_out() {
    type Case = (Mutant, fn() -> bool);
    let table: &[Case] = &[
        (Mutant::NoFenceCheck, stale_assignment),
        (Mutant::NoFenceCheck, old_order),
        (Mutant::VoterSetsUnchecked, unsigned_voters),
        (Mutant::EntrySignaturesUnchecked, forged_submission),
        (Mutant::DoneWithoutReceipts, done_unheld),
        (Mutant::AttemptNumberIgnored, late_report),
        (Mutant::RequestIdIgnored, second_build),
        (Mutant::LedgerTimeIsWallClock, time_back),
        (Mutant::LostHostKeepsItsBuilds, kept_by_the_lost),
        (Mutant::BusyHostLosesItsBuilds, taken_from_the_busy),
        (Mutant::LeadershipIsLease, old_leader_acts),
        (Mutant::IdentityByAddress, anothers_order),
        (Mutant::OrdersNotRemembered, order_again),
        (Mutant::LeadsNeverExpire, old_leads),
        (Mutant::OldStatementsCount, old_statement),
    ];
    for (mutant, naive) in table {
        assert!(!naive(), "the rule of {mutant} is not kept");
        assert!(with(Some(*mutant), naive), "{mutant} changes nothing");
        for other in Mutant::ALL.iter().filter(|other| *other != mutant) {
            assert!(!with(Some(*other), naive), "{other} leaves out the rule of {mutant}");
        }
    }
}

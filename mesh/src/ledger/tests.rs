//! Rules of the ledger, one by one, and the small world they are played in.

use super::*;
use crate::build::*;
use crate::identity::Keys;
use crate::roster::{Cosignature, Invitation, JoinRequest, VoterChange, invitation_proof};

pub(crate) fn keys(n: u8) -> Keys {
    Keys::from_seed([n; 32])
}

/// A join request by an invitation of some host.
pub(crate) fn join(world: &World, inviter: u8, host: u8, signer: bool) -> Signed {
    let (mesh, one_time) = (world.ledger.mesh(), keys(host + 100));
    let expires_ms = world.ledger.time_ms() + 60_000;
    let invitation = Invitation { mesh, key: one_time.key(), name: format!("s{host}"), signer, expires_ms };
    let request = JoinRequest {
        mesh,
        invitation: Signed::seal(&keys(inviter), &invitation),
        proof: one_time.sign(&invitation_proof(&mesh, &keys(host).key())),
        machine_id: [host; 32],
        store_id: [host; 16],
    };
    Signed::seal(&keys(host), &request)
}

/// A ledger with its log's bookkeeping, as consensus would drive it.
#[derive(Clone)]
pub(crate) struct World {
    pub ledger: Ledger,
    index: u64,
    pub term: u64,
    pub epoch: u64,
    requests: u16,
}

impl World {
    /// Hosts 1..=n enrolled, host 1 leads term 1.
    pub fn new(n: u8) -> World {
        let genesis = Genesis {
            name: "m".into(),
            host: "h1".into(),
            recovery: keys(99).key(),
            wall_ms: 1_000,
            nonce: [0; 16],
            machine_id: [1; 32],
            store_id: [1; 16],
        };
        let ledger = Ledger::found(&Signed::seal(&keys(1), &genesis)).unwrap();
        let mut world = World { ledger, index: 0, term: 1, epoch: 0, requests: 0 };
        world.lead(1);
        for host in 2..=n {
            let join = world.join_request(host, host + 100);
            assert!(world.send(1, Command::Enrol(Enrol { join })).is_ok());
        }
        world
    }

    fn join_request(&self, host: u8, one_time: u8) -> Signed {
        let mesh = self.ledger.mesh();
        let invitation = Invitation {
            mesh,
            key: keys(one_time).key(),
            name: format!("h{host}"),
            signer: false,
            expires_ms: self.ledger.time_ms() + 60_000,
        };
        let request = JoinRequest {
            mesh,
            invitation: Signed::seal(&keys(1), &invitation),
            proof: keys(one_time).sign(&invitation_proof(&mesh, &keys(host).key())),
            machine_id: [host; 32],
            store_id: [host; 16],
        };
        Signed::seal(&keys(host), &request)
    }

    fn fence(&self) -> Fence {
        Fence { epoch: self.epoch, term: self.term }
    }

    pub fn lead(&mut self, host: u8) -> Reply {
        self.send(host, Command::Lead(Lead { version: "t".into() }))
    }

    fn sealed(&mut self, author: u8, fence: Option<Fence>, command: Command) -> Signed {
        self.requests += 1;
        Entry::seal(
            &keys(author),
            self.ledger.mesh(),
            RequestId(std::array::from_fn(|n| self.requests.to_be_bytes()[n % 2])),
            fence,
            command,
        )
    }

    /// Commits one entry; leader's commands carry the present fence.
    pub fn send(&mut self, author: u8, command: Command) -> Reply {
        let leaders = matches!(command, Command::Lead(_) | Command::Voters(_) | Command::Assign(_) | Command::Lose(_));
        let fence = leaders.then(|| self.fence());
        let signed = self.sealed(author, fence, command);
        self.commit(signed)
    }

    /// The same with the present fence, whatever the command.
    pub fn send_as_leader(&mut self, author: u8, command: Command) -> Reply {
        let signed = self.sealed(author, Some(self.fence()), command);
        self.commit(signed)
    }

    pub fn commit(&mut self, signed: Signed) -> Reply {
        self.index += 1;
        let batch = Batch { time_ms: 1_000 + self.index * 10, entries: vec![signed] };
        self.ledger.apply(self.index, self.term, &encode(&batch)).remove(0)
    }

    /// The voters that follow, with signatures. Whoever leads writes it down.
    pub fn vote(&mut self, voters: &[u8], signers: &[u8]) {
        let body = self.ledger.voters().next(&voters.iter().map(|n| keys(*n).key()).collect());
        let signatures = signers.iter().map(|n| Cosignature::new(&keys(*n), &body)).collect();
        let reply = self.send(1, Command::Voters(VoterChange { body, signatures }));
        assert!(reply.is_ok(), "{reply:?}");
    }

    pub(crate) fn submit(&mut self, specs: Vec<BuildSpec>) -> Vec<BuildId> {
        let reply = self.send(1, Command::Submit(Submit { specs }));
        assert!(reply.is_ok(), "{reply:?}");
        reply.builds
    }

    pub(crate) fn assign(&mut self, build: BuildId, attempt: u32, host: u8) -> Reply {
        let assignment = Assignment { build, attempt: Attempt(attempt), host: keys(host).key(), start: 1 };
        self.send(1, Command::Assign(Assign { attempts: vec![assignment] }))
    }

    pub(crate) fn end_with(
        &mut self,
        build: BuildId,
        attempt: u32,
        host: u8,
        outcome: Outcome,
        holders: &[u8],
    ) -> Reply {
        let receipt = Receipt {
            mesh: self.ledger.mesh().0,
            build,
            attempt: Attempt(attempt),
            manifest: outcome.manifest,
            log: outcome.log,
        };
        let receipts = holders.iter().map(|h| Signed::seal(&keys(*h), &receipt)).collect();
        let end = AttemptEnd { build, attempt: Attempt(attempt), outcome, receipts };
        self.send(host, Command::Report(Report { ends: vec![end] }))
    }

    pub(crate) fn state(&self, build: BuildId) -> State {
        self.ledger.builds().get(build).unwrap().state
    }
}

pub(crate) fn spec(name: &str, needs: &[&str]) -> BuildSpec {
    BuildSpec { needs: needs.iter().map(|n| n.to_string()).collect(), ..BuildSpec::new(name, vec!["true".into()]) }
}
pub(crate) fn done(manifest: Option<u8>) -> Outcome {
    Outcome {
        end: End::Done,
        phase: Phase::Command,
        code: 0,
        text: String::new(),
        manifest: manifest.map(|m| BlobId([m; 32])),
        log: None,
        took_ms: 5,
    }
}
pub(crate) fn failed(phase: Phase) -> Outcome {
    Outcome { end: End::Failed, phase, code: 1, text: "no".into(), ..done(None) }
}

#[test]
fn a_build_is_done_when_two_hosts_hold_it() {
    let mut w = World::new(3);
    let id = w.submit(vec![spec("a", &[])])[0];
    assert!(w.assign(id, 1, 2).is_ok());
    assert_eq!(w.end_with(id, 1, 2, done(Some(7)), &[2]).code, Code::Receipts);
    assert_eq!(w.end_with(id, 1, 2, done(Some(7)), &[2, 2]).code, Code::Receipts, "the same host twice is one host");
    assert_eq!(w.end_with(id, 1, 2, done(Some(7)), &[2, 50]).code, Code::Receipts, "a stranger holds nothing");
    assert_eq!(w.state(id), State::Running);
    assert!(w.end_with(id, 1, 2, done(Some(7)), &[2, 3]).is_ok());
    assert_eq!(w.state(id), State::Done);
    // One host alone: its own receipt is enough.
    let mut w = World::new(1);
    let id = w.submit(vec![spec("a", &[])])[0];
    w.assign(id, 1, 1);
    assert!(w.end_with(id, 1, 1, done(Some(7)), &[1]).is_ok());
}

/// Incident 10: a host that lost its attempt reports it failed, later.
#[test]
fn a_late_report_of_an_old_attempt_has_no_effect() {
    let mut w = World::new(3);
    let id = w.submit(vec![spec("a", &[])])[0];
    w.assign(id, 1, 2);
    let lost = Lost { build: id, attempt: Attempt(1), reason: "down".into() };
    assert!(w.send(1, Command::Lose(Lose { attempts: vec![lost] })).is_ok());
    assert_eq!(w.state(id), State::Queued);
    assert!(w.assign(id, 2, 3).is_ok());
    assert_eq!(w.end_with(id, 1, 2, failed(Phase::Command), &[]).code, Code::Conflict);
    assert_eq!(w.end_with(id, 2, 2, failed(Phase::Command), &[]).code, Code::Unknown, "another host's attempt");
    assert_eq!(w.state(id), State::Running);
    assert!(w.end_with(id, 2, 3, done(None), &[]).is_ok());
    assert_eq!(w.end_with(id, 2, 3, failed(Phase::Command), &[]).code, Code::Conflict, "a build ends once");
    assert_eq!(w.state(id), State::Done);
}

#[test]
fn failures_are_tried_elsewhere_within_bounds() {
    let mut w = World::new(3);
    let id = w.submit(vec![spec("a", &[])])[0];
    w.assign(id, 1, 2);
    w.end_with(id, 1, 2, failed(Phase::Fetch), &[]);
    assert_eq!(w.state(id), State::Queued, "the host's failure does not count against the package");
    w.assign(id, 2, 2);
    w.end_with(id, 2, 2, failed(Phase::Command), &[]);
    assert_eq!(w.state(id), State::Queued, "one retry by default");
    w.assign(id, 3, 3);
    w.end_with(id, 3, 3, failed(Phase::Command), &[]);
    assert_eq!(w.state(id), State::Failed);
    assert_eq!(w.assign(id, 4, 1).code, Code::Conflict);
}

#[test]
fn needs_wait_and_failures_cascade() {
    let mut w = World::new(1);
    let ids = w.submit(vec![spec("c", &["b"]), spec("b", &["a"]), spec("a", &[])]);
    assert_eq!([w.state(ids[0]), w.state(ids[1]), w.state(ids[2])], [State::Waiting, State::Waiting, State::Queued]);
    w.assign(ids[2], 1, 1);
    w.end_with(ids[2], 1, 1, done(None), &[]);
    assert_eq!(w.state(ids[1]), State::Queued);
    w.send(1, Command::Cancel(Cancel { builds: vec![ids[1]], reason: "stop".into() }));
    assert_eq!([w.state(ids[1]), w.state(ids[0])], [State::Cancelled, State::Failed]);
    // The dependent can only be retried after what it needs.
    let early = w.send(1, Command::Retry(Retry { build: ids[0] }));
    assert_eq!(early.code, Code::Conflict);
    let again = w.send(1, Command::Retry(Retry { build: ids[1] })).builds[0];
    let top = w.send(1, Command::Retry(Retry { build: ids[0] })).builds[0];
    assert_eq!(w.ledger.builds().get(top).unwrap().needs, vec![again]);
    assert_eq!(w.state(again), State::Queued);
}

#[test]
fn circles_and_unknown_needs_are_refused_by_name() {
    let specs = vec![spec("a", &["b"]), spec("b", &["c"]), spec("c", &["a"]), spec("d", &[])];
    assert_eq!(order_of(&specs), Err("builds need each other in a circle: a -> b -> c -> a".into()));
    assert!(order_of(&[spec("a", &["x"])]).unwrap_err().contains("`x`"));
    assert!(order_of(&[spec("a", &[]), spec("a", &[])]).unwrap_err().contains("two builds"));
    let mut w = World::new(1);
    assert_eq!(w.send(1, Command::Submit(Submit { specs })).code, Code::Invalid);
}

#[test]
fn confirm_wants_two_hosts_that_agree() {
    for (second, expected) in [(7, State::Done), (8, State::Failed)] {
        let mut w = World::new(3);
        let id = w.submit(vec![BuildSpec { confirm: 2, ..spec("a", &[]) }])[0];
        w.assign(id, 1, 1);
        assert_eq!(w.assign(id, 2, 1).code, Code::Conflict, "the same host confirms nothing");
        assert!(w.assign(id, 2, 2).is_ok());
        w.end_with(id, 1, 1, done(Some(7)), &[1, 2]);
        assert_eq!(w.state(id), State::Running);
        w.end_with(id, 2, 2, done(Some(second)), &[1, 2]);
        assert_eq!(w.state(id), expected);
    }
}

#[test]
fn the_same_request_twice_is_one_build() {
    let mut w = World::new(1);
    let submit = w.sealed(1, None, Command::Submit(Submit { specs: vec![spec("a", &[])] }));
    let first = w.commit(submit.clone());
    assert_eq!(w.commit(submit), first);
    assert_eq!(w.ledger.builds().iter().count(), 1);
}

#[test]
fn authors_powers_and_fences_are_checked() {
    let mut w = World::new(2);
    let id = w.submit(vec![spec("a", &[])])[0];
    let assign = || {
        let assignment = Assignment { build: id, attempt: Attempt(1), host: keys(2).key(), start: 1 };
        Command::Assign(Assign { attempts: vec![assignment] })
    };
    // Somebody else's signature, a stranger, a member that does not lead, a stale fence, no fence.
    let mut forged = w.sealed(2, Some(w.fence()), assign());
    forged.by = keys(1).key();
    assert_eq!(w.commit(forged).code, Code::Invalid);
    assert_eq!(w.send(50, Command::Cancel(Cancel { builds: vec![id], reason: "".into() })).code, Code::Forbidden);
    assert_eq!(w.send(2, assign()).code, Code::Forbidden);
    let old = w.sealed(1, Some(w.fence()), assign());
    w.term = 2;
    assert_eq!(w.commit(old).code, Code::Stale);
    assert_eq!(w.send(1, assign()).code, Code::Forbidden, "nobody leads term 2 yet");
    assert_eq!(w.lead(2).code, Code::Forbidden, "host 2 is no voter");
    let bare = w.sealed(1, None, assign());
    assert_eq!(w.commit(bare).code, Code::Invalid);
    assert!(w.lead(1).is_ok());
    assert_eq!(w.state(id), State::Queued);
    assert!(w.send(1, assign()).is_ok());
}

#[test]
fn voter_sets_need_their_majority() {
    let mut w = World::new(3);
    let body = w.ledger.voters().next(&[1, 2, 3].map(|n| keys(n).key()).into());
    let by = |signers: &[u8]| VoterChange {
        signatures: signers.iter().map(|n| Cosignature::new(&keys(*n), &body)).collect(),
        body: body.clone(),
    };
    assert_eq!(w.send(1, Command::Voters(by(&[2, 3]))).code, Code::Forbidden, "host 1 is the only voter yet");
    assert!(w.send(1, Command::Voters(by(&[1]))).is_ok());
    assert_eq!(w.ledger.voters().epoch(), 1);
}

#[test]
fn no_revocation_takes_the_majority_of_the_voters() {
    let revoke = |host: u8| Command::Revoke(Revoke { peer: keys(host).key(), banned: false, reason: "test".into() });
    let mut w = World::new(5);
    w.vote(&[1, 2, 3], &[1]);
    assert!(w.ledger.can_spare(&keys(2).key(), |_| true));
    assert!(!w.ledger.can_spare(&keys(2).key(), |voter| *voter != keys(3).key()), "h3 does not count");
    // Two leave at about the same time, each on its own look at a mesh of three voters.
    assert!(w.send(3, revoke(3)).is_ok());
    let refused = w.send(2, revoke(2));
    assert_eq!(refused.code, Code::Conflict);
    assert!(refused.text.contains("without h2") && refused.text.contains("try again"), "{}", refused.text);
    assert!(w.ledger.roster().is_member(&keys(2).key()));
    assert_eq!(w.send(1, revoke(2)).code, Code::Conflict, "nor by a signer");
    assert!(w.send(3, revoke(3)).code == Code::Forbidden, "it is out");
    assert!(w.send(1, revoke(5)).is_ok(), "who does not vote is never needed");
    // Another votes in the place of the one that went.
    w.vote(&[1, 2, 4], &[1, 2]);
    assert!(w.send(2, revoke(2)).is_ok());
    // An only voter stays, until its vote is another's.
    w.vote(&[4], &[1, 4]);
    assert_eq!(w.send(1, revoke(4)).code, Code::Conflict);
    w.vote(&[1], &[4]);
    assert!(w.send(1, revoke(4)).is_ok());
}

#[test]
fn an_evicted_host_loses_its_work_and_its_voice() {
    let mut w = World::new(3);
    let id = w.submit(vec![spec("a", &[])])[0];
    w.assign(id, 1, 2);
    let revoke = Revoke { peer: keys(2).key(), banned: false, reason: "test".into() };
    assert_eq!(w.send(3, Command::Revoke(revoke.clone())).code, Code::Forbidden, "host 3 is no signer");
    assert!(w.send(1, Command::Revoke(revoke.clone())).is_ok());
    let before = w.ledger.roster().clone();
    assert!(w.send(1, Command::Revoke(revoke)).is_ok(), "sent again: harmless");
    assert_eq!(*w.ledger.roster(), before);
    assert_eq!(w.state(id), State::Queued);
    assert_eq!(w.end_with(id, 1, 2, done(None), &[]).code, Code::Forbidden);
}

#[test]
fn an_unknown_kind_stops_apply_and_says_update() {
    let mut w = World::new(1);
    let mesh = w.ledger.mesh();
    let body = encode(&(mesh, RequestId([7; 16]), None::<Fence>, crate::wire::Tagged(999, vec![0])));
    let sig = keys(1).sign(&crate::wire::signed_bytes("mesh/entry/v1", &body));
    let reply = w.commit(Signed { by: keys(1).key(), sig, body });
    assert!(reply.text.contains("update"), "{reply:?}");
    assert!(w.ledger.halted().is_some());
    let before = w.ledger.clone();
    w.index += 1;
    assert!(w.ledger.apply(w.index, 1, &[]).is_empty());
    assert_eq!(w.ledger, before);
}

#[test]
fn time_and_order_are_kept_and_snapshots_are_faithful() {
    let mut w = World::new(3);
    w.submit(vec![spec("a", &[]), spec("b", &["a"])]);
    let time = w.ledger.time_ms();
    w.ledger.apply(90, 1, &encode(&Batch { time_ms: 0, entries: vec![] }));
    assert_eq!(w.ledger.time_ms(), time, "ledger time never goes back");
    w.ledger.take_changes();
    let copy = w.ledger.restore(&w.ledger.snapshot()).unwrap();
    let mut plain = copy.clone();
    plain.take_changes();
    assert_eq!(plain, w.ledger);
    assert!(matches!(World::new(1).ledger.restore(&[1, 2]), Err(LedgerError::Malformed(_))));
    let other = Genesis { name: "other".into(), ..w.ledger.genesis().open().unwrap() };
    let other = Ledger::found(&Signed::seal(&keys(1), &other)).unwrap();
    assert!(matches!(other.restore(&w.ledger.snapshot()), Err(LedgerError::OtherMesh { .. })));
}

#[test]
fn every_transition_is_legal_or_refused() {
    use State::*;
    let all = [Waiting, Queued, Running, Done, Failed, Cancelled];
    let legal: Vec<(State, State)> =
        all.iter().flat_map(|a| all.iter().map(move |b| (*a, *b))).filter(|(a, b)| a.may_become(*b)).collect();
    assert_eq!(
        legal,
        [
            (Waiting, Queued),
            (Waiting, Failed),
            (Waiting, Cancelled),
            (Queued, Running),
            (Queued, Failed),
            (Queued, Cancelled),
            (Running, Queued),
            (Running, Done),
            (Running, Failed),
            (Running, Cancelled),
        ]
    );
    assert!(all.iter().all(|a| !a.is_final() || all.iter().all(|b| !a.may_become(*b))));
}

/// A snapshot whose voters chain from somebody else than the genesis names, each link signed as it should be.
#[test]
fn a_snapshot_whose_voters_begin_with_another_is_refused() {
    let honest = World::new(3).ledger;
    let mut usurped = honest.clone();
    usurped.voters = VoterChain::found(honest.mesh(), keys(9).key());
    let body = usurped.voters.next(&[keys(9).key()].into());
    let signatures = vec![Cosignature::new(&keys(9), &body)];
    usurped.voters.advance(VoterChange { body, signatures }, |_| true).unwrap();
    assert_eq!(usurped.voters.verify(), Ok(()), "by itself it is sound");
    assert!(matches!(honest.restore(&usurped.snapshot()), Err(LedgerError::Malformed(_))));
}

//! A small mesh for the invariants' own tests: a real ledger, driven by hand, and a truth that can be set.
//!
//! Entries are real, signed and applied by `mesh::ledger`; nothing here is consensus or a network.

use super::{Deed, HostSeen, Name, Signature, Truth, Voter};
use mesh::build::{Attempt, BlobId, BuildId, BuildSpec, End, Outcome, Phase, Receipt};
use mesh::healing::{Change, Entry as Heal, Event, Pending};
use mesh::identity::{Keys, PeerKey};
use mesh::lease::Fence;
use mesh::ledger::*;
use mesh::order::{Act, BootId, Gently};
use mesh::roster::{Cosignature, Genesis, Invitation, JoinRequest, VoterChange, invitation_proof};
use mesh::warrant::{Authority, Hello, Host, Known, Order, OrderHash, OrderId};
use mesh::wire::{Signed, encode};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

fn keys(n: u8) -> Keys {
    Keys::from_seed([n; 32])
}

/// Key of host `n`.
pub fn key(n: u8) -> PeerKey {
    keys(n).key()
}

/// Name of host `n`.
pub fn name(n: u8) -> Name {
    format!("h{n}").into()
}

/// True time.
pub fn second(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A mesh of hosts 1..=n, led by host 1 in term 1.
#[derive(Clone)]
pub struct Fleet {
    /// As every host of it has it.
    pub ledger: Ledger,
    index: u64,
    term: u64,
    leader: u8,
    serial: u64,
    names: Vec<Name>,
    blobs: BTreeMap<PeerKey, BTreeSet<BlobId>>,
}

impl Fleet {
    pub fn of(n: u8) -> Fleet {
        let genesis = Genesis {
            name: "m".into(),
            host: "h1".into(),
            recovery: key(99),
            wall_ms: 1_000,
            nonce: [0; 16],
            machine_id: [1; 32],
            store_id: [1; 16],
        };
        let ledger = Ledger::found(&Signed::seal(&keys(1), &genesis)).unwrap();
        let blobs = (1..=n).map(|n| (key(n), BTreeSet::new())).collect();
        let names = (0..=n).map(name).collect();
        let mut fleet = Fleet { ledger, index: 0, term: 0, leader: 1, serial: 0, names, blobs };
        fleet.elect(1);
        (2..=n).for_each(|host| fleet.enrol(host));
        fleet
    }

    fn enrol(&mut self, host: u8) {
        let mesh = self.ledger.mesh();
        let expires_ms = self.ledger.time_ms() + 60_000;
        let one_time = keys(host + 100);
        let invitation = Invitation { mesh, key: one_time.key(), name: format!("h{host}"), signer: false, expires_ms };
        let request = JoinRequest {
            mesh,
            invitation: Signed::seal(&keys(1), &invitation),
            proof: one_time.sign(&invitation_proof(&mesh, &key(host))),
            machine_id: [host; 32],
            store_id: [host; 16],
        };
        let join = Signed::seal(&keys(host), &request);
        assert!(self.send(1, Command::Enrol(Enrol { join })).is_ok());
    }

    fn commit(&mut self, time_ms: u64, entries: Vec<Signed>) -> Vec<Reply> {
        self.index += 1;
        self.ledger.apply(self.index, self.term, &encode(&Batch { time_ms, entries }))
    }

    fn send_as(&mut self, author: u8, request: RequestId, command: Command) -> Reply {
        let leaders = match &command {
            Command::Lead(_) | Command::Voters(_) | Command::Assign(_) | Command::Lose(_) => true,
            Command::Heal(entry) => matches!(entry, Heal::Change(_) | Heal::Order(_) | Heal::Withdraw(_)),
            _ => false,
        };
        let fence = leaders.then_some(Fence { epoch: 0, term: self.term });
        let signed = Entry::seal(&keys(author), self.ledger.mesh(), request, fence, command);
        let time = self.ledger.time_ms().max(1_000) + 10;
        self.commit(time, vec![signed]).remove(0)
    }

    fn send(&mut self, author: u8, command: Command) -> Reply {
        self.serial += 1;
        let mut request = [0xff; 16];
        request[..8].copy_from_slice(&self.serial.to_be_bytes());
        self.send_as(author, RequestId(request), command)
    }

    /// A new term with this leader, whoever votes.
    pub fn elect(&mut self, host: u8) {
        (self.term, self.leader) = (self.term + 1, host);
        if !self.ledger.voters().voters().contains(&key(host)) {
            self.term -= 1; // who brings it in led before
            self.leader = 1;
            self.lead(1);
            assert!(self.vote_in(&[host], &[1]).is_ok());
            (self.term, self.leader) = (self.term + 1, host);
        }
        self.lead(host);
    }

    fn lead(&mut self, host: u8) {
        assert!(self.send(host, Command::Lead(Lead { version: "t".into() })).is_ok());
    }

    /// The leader brings a voter set with these signatures.
    pub fn vote_in(&mut self, voters: &[u8], signers: &[u8]) -> Reply {
        let body = self.ledger.voters().next(&voters.iter().map(|n| key(*n)).collect());
        let signatures = signers.iter().map(|n| Cosignature::new(&keys(*n), &body)).collect();
        self.send(self.leader, Command::Voters(VoterChange { body, signatures }))
    }

    pub fn submit(&mut self, by: u8, request: u8, name: &str) -> BuildId {
        self.submit_spec(by, request, BuildSpec::new(name, vec!["true".into()]))
    }

    pub fn submit_spec(&mut self, by: u8, request: u8, spec: BuildSpec) -> BuildId {
        let reply = self.send_as(by, RequestId([request; 16]), Command::Submit(Submit { specs: vec![spec] }));
        assert!(reply.is_ok(), "{reply:?}");
        reply.builds[0]
    }

    pub fn assign(&mut self, build: BuildId, attempt: u32, host: u8) {
        let attempts = vec![Assignment { build, attempt: Attempt(attempt), host: key(host), start: 1 }];
        assert!(self.send(self.leader, Command::Assign(Assign { attempts })).is_ok());
    }

    pub fn lose(&mut self, build: BuildId, attempt: u32) {
        let attempts = vec![Lost { build, attempt: Attempt(attempt), reason: "busy".into() }];
        assert!(self.send(self.leader, Command::Lose(Lose { attempts })).is_ok());
    }

    /// A host reports success with a log; whether that counts is the ledger's affair. The log's name.
    pub fn done(&mut self, build: BuildId, attempt: u32, host: u8, holders: &[u8]) -> BlobId {
        let (log, attempt) = (BlobId::of(b"log"), Attempt(attempt));
        let receipt = Receipt { mesh: self.ledger.mesh().0, build, attempt, manifest: None, log: Some(log) };
        let receipts = holders.iter().map(|n| Signed::seal(&keys(*n), &receipt)).collect();
        let outcome = Outcome {
            end: End::Done,
            phase: Phase::Command,
            code: 0,
            text: String::new(),
            manifest: None,
            log: Some(log),
            took_ms: 1,
        };
        self.send(host, Command::Report(Report { ends: vec![AttemptEnd { build, attempt, outcome, receipts }] }));
        log
    }

    /// An attempt that fails by itself.
    pub fn fail(&mut self, build: BuildId, attempt: u32, host: u8) {
        let start = Assignment { build, attempt: Attempt(attempt), host: key(host), start: 1 };
        if !self.send(self.leader, Command::Assign(Assign { attempts: vec![start] })).is_ok() {
            return; // it is not wanted any more
        }
        let (end, phase, text) = (End::Failed, Phase::Command, String::new());
        let outcome = Outcome { end, phase, code: 1, text, manifest: None, log: None, took_ms: 1 };
        let end = AttemptEnd { build, attempt: Attempt(attempt), outcome, receipts: vec![] };
        assert!(self.send(host, Command::Report(Report { ends: vec![end] })).is_ok());
    }

    pub fn retry(&mut self, build: BuildId) {
        assert!(self.send(1, Command::Retry(Retry { build })).is_ok());
    }

    pub fn cancel(&mut self, build: BuildId) {
        assert!(self.send(1, Command::Cancel(Cancel { builds: vec![build], reason: "stop".into() })).is_ok());
    }

    pub fn evict(&mut self, host: u8) {
        let revoke = Revoke { peer: key(host), banned: false, reason: "gone".into() };
        assert!(self.send(1, Command::Revoke(revoke)).is_ok());
    }

    /// These vote, and host 1 leads.
    pub fn voters(&mut self, voters: &[u8]) {
        assert!(self.vote_in(voters, &[1]).is_ok());
    }

    /// The leader moves the case of a host.
    pub fn case(&mut self, host: u8, event: Event) {
        let change = Change { host: key(host), event, why: "as seen".into(), order: None };
        self.heal_by(self.leader, Heal::Change(change));
    }

    /// Of an order that is written: the case of its target waits for it.
    pub fn wait(&mut self, deed: &Deed) {
        let Order { id, boot, start, expires_ms, .. } = deed.order;
        let order = Some(Pending { id, boot, start, until_ms: expires_ms });
        let change = Change { host: deed.key, event: Event::Ordered, why: "as seen".into(), order };
        self.heal_by(self.leader, Heal::Change(change));
    }

    /// Host 1, who signs, says something of healing.
    pub fn heal(&mut self, entry: Heal) {
        self.heal_by(1, entry);
    }

    pub fn heal_by(&mut self, host: u8, entry: Heal) {
        let reply = self.send(host, Command::Heal(entry));
        assert!(reply.is_ok(), "{reply:?}");
    }

    /// An empty batch with this time.
    pub fn stamp(&mut self, time_ms: u64) {
        self.commit(time_ms, vec![]);
    }

    pub fn hold(&mut self, host: u8, blob: BlobId) {
        self.blobs.entry(key(host)).or_default().insert(blob);
    }

    pub fn seen(&self, host: u8) -> HostSeen<'_> {
        HostSeen {
            name: &self.names[host as usize],
            key: key(host),
            start: 1,
            ledger: &self.ledger,
            lease: None,
            presences: &[],
            sizes: &[],
        }
    }

    pub fn seen_with_lease(&self, host: u8, lease: Option<Fence>) -> HostSeen<'_> {
        HostSeen { lease, ..self.seen(host) }
    }
}

impl Truth for Fleet {
    fn holds(&self, host: &PeerKey, blob: BlobId) -> Option<bool> {
        self.blobs.get(host).map(|blobs| blobs.contains(&blob))
    }
    fn is_member(&self, key: &PeerKey) -> bool {
        self.ledger.roster().is_member(key)
    }
}

/// Host `n` carries out the leader's order of this number, as it should.
pub fn deed(fleet: &Fleet, n: u8, number: u8) -> Deed {
    let now = fleet.ledger.time_ms();
    let order = Order {
        mesh: fleet.ledger.mesh(),
        id: OrderId([number; 16]),
        target: key(n),
        boot: BootId([n; 16]),
        start: 1,
        act: Act::Reboot(Gently { grace_ms: 10 }),
        authority: Authority::Leader,
        requester: "healing".into(),
        fence: Fence { epoch: 0, term: fleet.term },
        expires_ms: now + 60_000,
        force: false,
        reason: "it is down".into(),
    };
    Deed {
        host: name(n),
        key: key(n),
        hash: OrderHash::of(&Signed::seal(&keys(fleet.leader), &order)),
        order,
        author: key(fleet.leader),
        life: Host { boot: BootId([n; 16]), start: 1, protected: false, allow_reboot: true, wall_ms: now },
        nonce: Some([number; 32]),
        took_ms: 10,
        known: Arc::new(Known::of(&fleet.ledger)),
        stored: true,
        ails: true,
    }
}

/// The order of a deed, written by the leader.
pub fn write(fleet: &mut Fleet, deed: Deed) -> Deed {
    let signed = Signed::seal(&keys(fleet.leader), &deed.order);
    let reply = fleet.send(fleet.leader, Command::Heal(Heal::Order(signed)));
    assert!(reply.is_ok(), "{reply:?}");
    deed
}

/// What host `by` signs so that a deed may be done.
pub fn signature(fleet: &Fleet, by: u8, deed: &Deed) -> Signature {
    let (order, epoch) = (deed.order.clone(), fleet.ledger.voters().epoch());
    let (boot, start, highest) = (deed.life.boot, deed.life.start, order.fence);
    let hello = Hello { mesh: order.mesh, nonce: deed.nonce.unwrap_or_default(), boot, start, highest, epoch };
    let leader = fleet.ledger.leader();
    let now_ms = fleet.ledger.time_ms();
    let voter = Voter { votes: true, suspended: false, written: true, leader, now_ms, held_back: None };
    let (hash, author, greeter) = (deed.hash, deed.author, deed.key);
    Signature { by: key(by), order, hash, author, greeter, hello, epoch, voter: Some(voter) }
}

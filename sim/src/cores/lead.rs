//! What a leader does: says so, plans, proposes, keeps the voters in order. After `node::driver::lead`: it acts while
//! the lease stands, one step at a time, and the next plan is made from the ledger that the last one gave.

use super::host::{Env, Process};
use super::message::Message;
use super::submit::Asker;
use crate::invariants::Fact;
use mesh::identity::PeerKey;
use mesh::lease::Fence;
use mesh::ledger::{Assign, Coming, Command, Entry, Lead, Lose, Reply, Revoke};
use mesh::mutants::{self, Mutant};
use mesh::placement::{heir, plan};
use mesh::restraint::Restraint;
use mesh::roster::{Cosignature, VoterChange};
use mesh::time::Time;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

const TICK: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the other voters have to sign.
const COSIGN: Duration = Duration::from_secs(2);

/// How long another may take to lead in the place of one that leaves.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(20);
/// How long a wish to leave waits for the ledger.
const LEAVE_WITHIN: Duration = Duration::from_secs(30);

/// Signatures that are being gathered.
struct Gathering {
    number: u64,
    fence: Fence,
    body: Vec<u8>,
    majority: usize,
    signatures: Vec<Cosignature>,
    waits_for: BTreeSet<PeerKey>,
    until: Time,
}

/// Where the leader's loop is.
#[derive(Default)]
pub struct Leading {
    /// When it looks next.
    pub at: Time,
    /// Something has changed.
    pub woken: bool,
    /// When it last let time pass.
    pub let_pass: Time,
    /// An entry of ours is on its way.
    writing: bool,
    /// What the last plan wants written after it.
    todo: VecDeque<(Fence, Command)>,
    gathering: Option<Gathering>,
    /// Voters that it has proposed, while that has no answer.
    pub coming: Coming,
    numbers: u64,
    /// It looked after hosts last, and not after builds.
    healed: bool,
    /// Where the log ended when an entry had no answer: hosts are healed again when it is known what became of it.
    settled_at: u64,
}

impl Process {
    /// One step of the leader's loop, when none is under way.
    pub(super) fn lead(&mut self, env: &mut Env<'_>) {
        let (now, own) = (self.now(env), env.own());
        self.leading.at = now + TICK;
        self.leading.woken = false;
        if self.leading.gathering.as_ref().is_some_and(|g| now >= g.until || g.waits_for.is_empty()) {
            self.gathered(env);
        }
        if self.leading.writing || self.leading.gathering.is_some() {
            return;
        }
        let Some(grant) = self.raft.grant(own) else {
            self.leading.todo.clear();
            return;
        };
        let fence = grant.fence;
        if let Some((of, command)) = self.leading.todo.pop_front() {
            self.write_as_leader(env, of, command);
            return;
        }
        if self.ledger.leader() != Some((self.me, fence)) {
            if !self.ledger.voters().voters().contains(&self.me) {
                return self.follow_voters(env); // elected by the voters of before: those of the ledger are to elect
            }
            let lead = Lead { version: env!("CARGO_PKG_VERSION").into() };
            self.write_as_leader(env, fence, Command::Lead(lead));
            return;
        }
        // A canary is one of the builds that wait: before all of them are given away. Every second time, so that what the
        // ledger refuses keeps nobody from building.
        self.leading.healed = !self.leading.healed;
        let settled = self.raft.applied >= self.leading.settled_at || mutants::on(Mutant::HealsUnsettled);
        if self.leading.healed && settled {
            let steps = self.heal(env, fence);
            self.leading.todo.extend(steps.into_iter().map(|command| (fence, command)));
            if let Some((of, command)) = self.leading.todo.pop_front() {
                self.write_as_leader(env, of, command);
                return self.follow_voters(env);
            }
        }
        let verdicts = self.verdicts(env);
        self.let_time_pass(env, &verdicts);
        let mut plan = plan(&self.ledger, &self.view, &Restraint::new(&self.ledger, &verdicts));
        if let Some(heir) = self.retiring.and_then(|_| heir(&self.ledger, &self.view, &self.me)) {
            plan.voters = Some(BTreeSet::from([heir]));
        }
        let todo = &mut self.leading.todo;
        if !plan.lose.is_empty() {
            todo.push_back((fence, Command::Lose(Lose { attempts: plan.lose })));
        }
        if !plan.assign.is_empty() {
            todo.push_back((fence, Command::Assign(Assign { attempts: plan.assign })));
        }
        if let Some((of, command)) = todo.pop_front() {
            self.write_as_leader(env, of, command);
        } else if let Some(voters) = plan.voters {
            self.gather(env, fence, &voters);
        }
        self.follow_voters(env);
    }

    fn write_as_leader(&mut self, env: &mut Env<'_>, fence: Fence, command: Command) {
        if let Command::Assign(assign) = &command {
            for one in &assign.attempts {
                let (build, attempt, to) = (one.build, one.attempt, one.host);
                env.cx.fact(Fact::Proposed { key: self.me, fence, build, attempt, to });
            }
        }
        self.keep_written(&command);
        let request = self.request_id(env);
        let entry = Entry::seal(&env.m.keys, self.mesh, request, Some(fence), command);
        self.leading.writing = true;
        self.submit(env, entry, PATIENCE, Asker::Leader);
    }

    /// The ledger has answered the leader's entry, or nobody did.
    pub(super) fn led(&mut self, _env: &mut Env<'_>, reply: Option<Reply>) {
        self.leading.writing = false;
        match reply {
            Some(_) => self.leading.coming.answered(),
            None => self.leading.settled_at = self.leading.settled_at.max(self.raft.store.last().0),
        }
        // What was refused is planned anew at the next look, not at once: it would be refused again.
        self.leading.woken |= reply.is_some_and(|r| r.is_ok());
    }

    fn gather(&mut self, env: &mut Env<'_>, fence: Fence, voters: &BTreeSet<PeerKey>) {
        let body = self.ledger.voters().next(voters);
        let (majority, present) = (self.ledger.voters().majority(), self.ledger.voters().voters().clone());
        env.m.proposed = Some((self.ledger.voters().epoch() + 1, voters.clone()));
        self.leading.numbers += 1;
        let (number, until) = (self.leading.numbers, self.now(env) + COSIGN);
        let mut signatures = vec![];
        let mut waits_for = BTreeSet::new();
        for voter in present {
            if voter == self.me {
                signatures.extend(self.cosign(env, voter, &body));
            } else if self.send(env, voter, Message::Cosign(number, body.clone())) {
                waits_for.insert(voter);
            }
        }
        let gathering = Gathering { number, fence, body, majority, signatures, waits_for, until };
        self.leading.gathering = Some(gathering);
        self.leading.woken |= self.leading.gathering.as_ref().is_some_and(|g| g.waits_for.is_empty());
    }

    fn gathered(&mut self, env: &mut Env<'_>) {
        if let Some(g) = self.leading.gathering.take()
            && g.signatures.len() >= g.majority
        {
            let change = VoterChange { body: g.body, signatures: g.signatures };
            self.leading.coming.propose(g.fence, &self.ledger);
            self.write_as_leader(env, g.fence, Command::Voters(change));
        }
    }

    /// A voter has signed, or said why not.
    pub(super) fn cosigned(
        &mut self,
        _env: &mut Env<'_>,
        from: PeerKey,
        number: u64,
        answer: Result<Cosignature, String>,
    ) {
        let Some(gathering) = self.leading.gathering.as_mut().filter(|g| g.number == number) else { return };
        if gathering.waits_for.remove(&from) {
            gathering.signatures.extend(answer);
        }
        self.leading.woken |= gathering.waits_for.is_empty();
    }

    /// The connection to a voter is gone.
    pub(super) fn cosign_failed(&mut self, _env: &mut Env<'_>, peer: PeerKey) {
        if let Some(gathering) = &mut self.leading.gathering {
            gathering.waits_for.remove(&peer);
            self.leading.woken |= gathering.waits_for.is_empty();
        }
    }

    /// Signs the voter set that follows ours, when the asker leads.
    pub(super) fn cosign(&self, env: &Env<'_>, asker: PeerKey, body: &[u8]) -> Result<Cosignature, String> {
        if self.members.host(&self.me).is_some_and(|own| own.cloned) {
            return Err("this key is alive twice, and signs for neither".to_owned());
        }
        if self.ledger.leader().map(|l| l.0) != Some(asker) {
            return Err("the asker does not lead".to_owned());
        }
        if !self.ledger.voters().voters().contains(&self.me) {
            return Err("not a voter".to_owned());
        }
        let check = self.ledger.voters().check(body, |k| self.ledger.roster().is_member(k));
        check.map_err(|e| e.to_string())?;
        Ok(Cosignature::new(&env.m.keys, body))
    }

    /// Leaves the mesh; a sole voter gives its vote to another first, and stays when there is none. After
    /// `node::driver::hand_over`.
    ///
    /// # Errors
    /// Why it stays.
    pub fn leave(&mut self, env: &mut Env<'_>) -> Result<(), String> {
        let voters = self.ledger.voters().voters();
        let signs = self.ledger.roster().member(&self.me).is_some_and(|m| m.signer);
        if !self.ledger.roster().is_member(&self.me) || self.ledger.roster().len() < 2 {
            return Err("is no member, or the only one".into());
        }
        if signs && self.ledger.roster().signers() == 1 {
            return Err("is the last signer".into());
        }
        if !voters.contains(&self.me) && !self.raft.members().voters().contains(&self.me) {
            self.ask_to_leave(env);
        } else if voters.len() > 1 {
            if self.is_needed(&self.me) {
                return Err("is needed: too few other voters are alive".into());
            }
            self.ask_to_leave(env);
        } else {
            let heir = heir(&self.ledger, &self.view, &self.me).or(voters.iter().find(|v| **v != self.me).copied());
            heir.ok_or("is the only voter, and no other has caught up")?;
            self.retiring = Some(self.now(env) + HAND_OVER_WITHIN);
            self.leading.woken = true;
        }
        self.settle(env);
        Ok(())
    }

    /// Whether the voters have no majority alive, as far as this host sees, without one of them.
    pub(super) fn is_needed(&self, out: &PeerKey) -> bool {
        !self.ledger.can_spare(out, |peer| *peer == self.me || self.view.get(peer).is_some_and(|h| h.alive))
    }

    fn ask_to_leave(&mut self, env: &mut Env<'_>) {
        let revoke = Revoke { peer: self.me, banned: false, reason: "left by itself".into() };
        self.ask(env, Command::Revoke(revoke), LEAVE_WITHIN, Asker::Nobody);
    }

    /// Whether another leads by now, with the vote that was this host's.
    pub(super) fn retire(&mut self, env: &mut Env<'_>) {
        let Some(until) = self.retiring else { return };
        let without_me = !self.ledger.voters().voters().contains(&self.me);
        let votes = self.raft.members().voters().contains(&self.me);
        if without_me && !votes && self.ledger.leader().is_some_and(|(leader, _)| leader != self.me) {
            self.retiring = None;
            self.ask_to_leave(env);
        } else if self.now(env) >= until {
            self.retiring = None;
        }
    }

    /// Consensus has the ledger's voters vote, and everybody else listen.
    fn follow_voters(&mut self, env: &mut Env<'_>) {
        if !self.raft.may_change() {
            return;
        }
        let own = env.own();
        let members: BTreeSet<PeerKey> = self.ledger.roster().members().map(|(k, _)| *k).collect();
        let wanted = self.ledger.voters().voters().clone();
        let present = self.raft.members();
        let voters = present.voters();
        let learners: BTreeSet<PeerKey> = members.difference(&voters).copied().collect();
        let kept: BTreeSet<PeerKey> = learners.union(&present.learners).copied().collect();
        if kept != present.learners {
            self.raft.set_learners(kept, own); // with those that are no members any more, while they vote
        } else if voters != wanted && wanted.iter().all(|p| voters.contains(p) || kept.contains(p)) {
            self.raft.set_voters(wanted, own);
        } else if learners != present.learners {
            self.raft.set_learners(learners, own);
        }
    }
}

//! The ledger: the state that the replicated log gives, as a pure state machine.
//!
//! [`Ledger::apply`] takes committed batches in order and does the same on every host. Every entry is
//! signed by its author and checked here, whoever led when it was written: Raft guards against
//! crashes, signatures against a host that lies (rule 3). What only a leader may do carries the fence
//! and is void when that is not the present one (rule 4). Time is what leaders stamped, and never goes
//! back. Nothing here knows how the log is replicated; that is `node::consensus`.

mod builds;
mod coming;
mod entry;
mod heal;
mod level;
mod links;
mod recovery;
mod succession;

pub use builds::{AttemptRecord, AttemptState, Build, Builds, Counts, State, order_of};
pub use coming::Coming;
pub use entry::*;
pub use level::{LEVEL, level_of, version};
pub use links::{Link, Links};
pub use recovery::RecoverError;

use crate::build::{BuildId, End, Holders, Receipt};
use crate::healing::Record;
use crate::identity::PeerKey;
use crate::lease::Fence;
use crate::mutants::{self, Mutant};
use crate::roster::{Genesis, MeshId, Roster, RosterError, VoterChain, VoterChange, VoterError, mesh_id};
use crate::wire::{Signed, WireError, decode, encode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The replicated state.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Ledger {
    mesh: MeshId,
    genesis: Signed,
    name: String,
    recovery_epoch: u64,
    time_ms: u64,
    index: u64,
    head: [u8; 32],
    term: u64,
    leader: Option<(PeerKey, Fence)>,
    roster: Roster,
    voters: VoterChain,
    builds: Builds,
    #[serde(default)]
    healing: Record,
    #[serde(default = "level::first")]
    level: u32,
    #[serde(default, skip_serializing_if = "Links::is_empty")]
    links: Links,
    halted: Option<String>,
    /// Another record of the present epoch of recovery has turned up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disputed: Option<VoterChange>,
    #[serde(skip)]
    roster_changed: bool,
    #[serde(skip)]
    leader_changed: bool,
    #[serde(skip)]
    healing_changed: bool,
}

/// What changed since somebody last asked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Builds that are new or different.
    pub builds: BTreeSet<BuildId>,
    /// Whether members or voters changed.
    pub roster: bool,
    /// Whether something of healing changed.
    pub healing: bool,
    /// Whether there is another leader.
    pub leader: bool,
    /// Parts of the trail that were put away: the bytes of blobs that every host keeps.
    pub put_away: Vec<Vec<u8>>,
}

/// Why a ledger cannot be founded or restored.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LedgerError {
    /// The genesis does not verify.
    #[error("genesis: {0}")]
    Genesis(#[from] WireError),
    /// A snapshot's voter sets do not chain.
    #[error("snapshot: {0}")]
    Voters(#[from] VoterError),
    /// Bytes that are no ledger.
    #[error("snapshot: {0}")]
    Malformed(String),
    /// A snapshot of another mesh.
    #[error("snapshot is of mesh {got:?}, this is {have:?}")]
    OtherMesh {
        /// This mesh.
        have: MeshId,
        /// The snapshot's.
        got: MeshId,
    },
}

impl Ledger {
    /// The ledger before its first entry.
    ///
    /// # Errors
    /// [`LedgerError::Genesis`] when the genesis does not verify.
    pub fn found(genesis: &Signed) -> Result<Self, LedgerError> {
        let body: Genesis = genesis.open()?;
        let mesh = mesh_id(genesis);
        Ok(Ledger {
            mesh,
            name: body.name.clone(),
            recovery_epoch: 0,
            time_ms: body.wall_ms,
            index: 0,
            head: mesh.0,
            term: 0,
            leader: None,
            roster: Roster::found(genesis.by, &body),
            voters: VoterChain::found(mesh, genesis.by).recoverable_by(body.recovery),
            builds: Builds::default(),
            healing: Record::default(),
            level: level::first(),
            links: Links::default(),
            halted: None,
            disputed: None,
            genesis: genesis.clone(),
            roster_changed: true,
            leader_changed: true,
            healing_changed: false,
        })
    }

    /// The mesh.
    pub fn mesh(&self) -> MeshId {
        self.mesh
    }
    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Its signed genesis.
    pub fn genesis(&self) -> &Signed {
        &self.genesis
    }
    /// Ledger time, in milliseconds since 1970. Expiry is judged by this alone.
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }
    /// Index of the last applied batch.
    pub fn index(&self) -> u64 {
        self.index
    }
    /// Hash of all that was applied, in order.
    pub fn head(&self) -> [u8; 32] {
        self.head
    }
    /// Term of the last applied batch.
    pub fn term(&self) -> u64 {
        self.term
    }
    /// How often the mesh was re-founded by its recovery key.
    pub fn recovery_epoch(&self) -> u64 {
        self.recovery_epoch
    }
    /// Who leads, as the ledger knows it, and under which fence.
    pub fn leader(&self) -> Option<(PeerKey, Fence)> {
        self.leader
    }
    /// Who is enrolled.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }
    /// Who may vote.
    pub fn voters(&self) -> &VoterChain {
        &self.voters
    }
    /// Signed records of who became a signer, and who stopped being one.
    pub fn links(&self) -> &Links {
        &self.links
    }
    /// What it remembers of healing.
    pub fn healing(&self) -> &Record {
        &self.healing
    }
    /// Whether a majority of the voters is left without this peer, of those that are enrolled and count: else nobody
    /// could be elected, nor anything decided, once it is out. Who does not vote can always be spared.
    pub fn can_spare(&self, peer: &PeerKey, counts: impl Fn(&PeerKey) -> bool) -> bool {
        let voters = self.voters.voters();
        let stays = |voter: &&PeerKey| *voter != peer && self.roster.is_member(voter) && counts(voter);
        !voters.contains(peer) || voters.iter().filter(stays).count() >= self.voters.majority()
    }
    /// The builds.
    pub fn builds(&self) -> &Builds {
        &self.builds
    }
    /// Why `apply` has stopped, if it has: this program is too old for the ledger.
    pub fn halted(&self) -> Option<&str> {
        self.halted.as_deref()
    }

    /// What changed since the last call.
    pub fn take_changes(&mut self) -> Changes {
        Changes {
            builds: self.builds.take_changed(),
            roster: std::mem::take(&mut self.roster_changed),
            leader: std::mem::take(&mut self.leader_changed),
            healing: std::mem::take(&mut self.healing_changed),
            put_away: self.healing.take_put_away(),
        }
    }

    /// A term has begun: whoever led before leads no more, and its entries are void from here on.
    pub fn begin_term(&mut self, term: u64) {
        if term > self.term {
            self.term = term;
            self.leader = None;
            self.leader_changed = true;
        }
    }

    /// Applies the next committed batch; one reply per entry, in order.
    pub fn apply(&mut self, index: u64, term: u64, payload: &[u8]) -> Vec<Reply> {
        if self.halted.is_some() {
            return vec![];
        }
        self.begin_term(term);
        self.index = index;
        let Ok(batch) = decode::<Batch>(payload, usize::MAX) else {
            return vec![]; // only a broken leader writes such a thing; all hosts skip it alike
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.head).update(&index.to_be_bytes()).update(payload);
        self.head = *hasher.finalize().as_bytes();
        self.time_ms = match mutants::on(Mutant::LedgerTimeIsWallClock) {
            true => batch.time_ms,
            false => self.time_ms.max(batch.time_ms),
        };
        batch.entries.iter().map(|signed| self.apply_entry(signed)).collect()
    }

    fn apply_entry(&mut self, signed: &Signed) -> Reply {
        let opened = match mutants::on(Mutant::EntrySignaturesUnchecked) {
            true => decode(&signed.body, usize::MAX),
            false => signed.open(),
        };
        let entry: Entry = match opened {
            Ok(entry) => entry,
            Err(WireError::Malformed(text)) if text.contains("unknown kind") => {
                // The author is genuine and its program newer than ours: going on would diverge.
                self.halted = Some(text.clone());
                return Reply::refused(Code::Invalid, text);
            }
            Err(error) => return Reply::refused(Code::Invalid, error.to_string()),
        };
        let author = signed.by;
        if entry.mesh != self.mesh {
            return Reply::refused(Code::Invalid, "entry is of another mesh");
        }
        if !self.roster.is_member(&author) {
            return Reply::refused(Code::Forbidden, format!("{author} is not enrolled"));
        }
        if let Some(refusal) = self.check_fence(author, &entry) {
            return refusal;
        }
        let now = self.time_ms;
        self.level = self.level.max(entry.command.level());
        match entry.command {
            Command::Lead(_) => self.lead(author, entry.fence),
            Command::Enrol(enrol) => self.enrol(enrol),
            Command::Revoke(revoke) => self.expelling(revoke.peer, signed, |this| this.revoke(author, revoke)),
            Command::Voters(change) if self.voters.is_recovery(&change) => {
                Reply::refused(Code::Forbidden, "a recovery begins a log of its own: `mesh recover`")
            }
            Command::Voters(change) => match self.voters.advance(change, |k| self.roster.is_member(k)) {
                Ok(()) => self.roster_did_change(),
                Err(error) => Reply::refused(Code::Forbidden, error.to_string()),
            },
            Command::Submit(submit) => self.builds.submit(author, entry.request, submit.specs, now),
            Command::Retry(retry) => self.builds.retry(author, entry.request, retry.build, now),
            Command::Assign(assign) => self.each(assign.attempts, |this, a| match this.roster.is_member(&a.host) {
                true => this.builds.assign(a, now),
                false => Err((Code::Unknown, format!("{} is not enrolled", a.host))),
            }),
            Command::Report(report) => self.each(report.ends, |this, end| this.report(author, end)),
            Command::Lose(lose) => self.each(lose.attempts, |this, lost| {
                let host = this.host_of(lost.build, lost.attempt)?;
                this.builds.end(lost.build, lost.attempt, host, AttemptState::Lost(lost.reason), vec![], now)
            }),
            Command::Cancel(cancel) => {
                let reason = cancel.reason;
                self.each(cancel.builds, |this, id| this.builds.cancel(id, &reason, now))
            }
            Command::Heal(heal) => self.heal(author, entry.fence, heal),
            Command::Rename(rename) => self.rename(author, rename),
            Command::Replace(replace) => self.expelling(replace.peer, signed, |this| this.replace(author, replace)),
            Command::Dispute(record) => self.dispute(record),
        }
    }

    /// Leader's entries carry the present fence; everybody else's carry none.
    fn check_fence(&self, author: PeerKey, entry: &Entry) -> Option<Reply> {
        let leaders =
            matches!(entry.command, Command::Lead(_) | Command::Voters(_) | Command::Assign(_) | Command::Lose(_));
        // Of healing some entries are the leader's, and say so by their fence; whose is whose is looked at there.
        let either = matches!(entry.command, Command::Heal(_));
        match (leaders || (either && entry.fence.is_some()), entry.fence) {
            (false, None) => None,
            (false, Some(_)) => Some(Reply::refused(Code::Invalid, "only a leader's entry carries a fence")),
            (true, None) => Some(Reply::refused(Code::Invalid, "a leader's entry must carry its fence")),
            (true, Some(fence)) => {
                let present = Fence { epoch: self.recovery_epoch, term: self.term };
                if fence != present && !mutants::on(Mutant::NoFenceCheck) {
                    return Some(Reply::refused(
                        Code::Stale,
                        format!("fence {fence:?} is not the present {present:?}"),
                    ));
                }
                let leads = matches!(entry.command, Command::Lead(_))
                    || self.leader == Some((author, fence))
                    || mutants::on(Mutant::NoFenceCheck);
                (!leads).then(|| Reply::refused(Code::Forbidden, format!("{author} does not lead")))
            }
        }
    }

    fn lead(&mut self, author: PeerKey, fence: Option<Fence>) -> Reply {
        if !self.voters.voters().contains(&author) {
            return Reply::refused(Code::Forbidden, format!("{author} is not a voter"));
        }
        match (self.leader, fence) {
            (Some((leader, _)), _) if leader != author => {
                Reply::refused(Code::Conflict, format!("{leader} leads this term"))
            }
            (_, Some(fence)) => {
                self.leader = Some((author, fence));
                self.leader_changed = true;
                Reply::ok()
            }
            (_, None) => Reply::refused(Code::Invalid, "no fence"),
        }
    }

    fn enrol(&mut self, enrol: Enrol) -> Reply {
        let new = !self.roster.is_member(&enrol.join.by);
        match self.roster.enrol(self.mesh, &enrol.join, self.time_ms) {
            Ok(peer) => {
                if new && self.roster.member(&peer).is_some_and(|member| member.signer) {
                    self.links.push(Link::Introduction(enrol.join));
                }
                self.roster_did_change()
            }
            Err(error) => Reply::refused(roster_code(error), error.to_string()),
        }
    }

    /// Keeps the entry that puts a signer out, when it does.
    fn expelling(&mut self, peer: PeerKey, signed: &Signed, out: impl FnOnce(&mut Self) -> Reply) -> Reply {
        let signer = self.roster.member(&peer).is_some_and(|member| member.signer);
        let reply = out(self);
        if signer && !self.roster.is_member(&peer) {
            self.links.push(Link::Expulsion(signed.clone()));
        }
        reply
    }

    fn revoke(&mut self, author: PeerKey, revoke: Revoke) -> Reply {
        let peer = revoke.peer;
        // Sent again by the same author, because the answer got lost: with its leader, say.
        let again = |r: &crate::roster::Revoked| r.by == author && r.banned == revoke.banned;
        if !self.roster.is_member(&peer) && self.roster.revoked(&peer).is_some_and(again) {
            return Reply::ok();
        }
        if let Err(error) = self.roster.check_revoke(author, peer) {
            return Reply::refused(roster_code(error), error.to_string());
        }
        if let Some(needed) = self.needed(&peer) {
            return needed;
        }
        if let Err(error) = self.roster.revoke(author, peer, revoke.banned, &revoke.reason, self.time_ms) {
            return Reply::refused(roster_code(error), error.to_string());
        }
        self.forget(peer, "its host was taken out of the mesh")
    }

    /// The refusal to take out a host without which nothing could be decided.
    fn needed(&self, peer: &PeerKey) -> Option<Reply> {
        // Whoever asked may not have known of another that is going: only here is the order of both known.
        let member = self.roster.member(peer).filter(|_| !self.can_spare(peer, |_| true))?;
        let text = format!("without {} too few of the voters would be enrolled to decide anything", member.name);
        Some(Reply::refused(Code::Conflict, format!("{text}; wait until others vote in their place, and try again")))
    }

    /// What a host that is no longer enrolled leaves behind: its attempts are lost, and go elsewhere.
    fn forget(&mut self, peer: PeerKey, why: &str) -> Reply {
        let held: Vec<_> = self
            .builds
            .running()
            .flat_map(|b| b.running().filter(|a| a.host == peer).map(|a| (b.id, a.number)))
            .collect();
        for (build, attempt) in held {
            let state = AttemptState::Lost(why.to_owned());
            let _ = self.builds.end(build, attempt, peer, state, vec![], self.time_ms); // it runs: we just looked
        }
        self.healing.forget(&peer);
        self.roster_did_change()
    }

    fn roster_did_change(&mut self) -> Reply {
        self.roster_changed = true;
        Reply::ok()
    }

    fn host_of(&self, build: BuildId, attempt: crate::build::Attempt) -> Result<PeerKey, (Code, String)> {
        let found = self.builds.get(build).and_then(|b| b.attempts.iter().find(|a| a.number == attempt));
        found.map(|a| a.host).ok_or_else(|| (Code::Unknown, format!("{build} has no attempt {attempt}")))
    }

    /// How many distinct hosts must hold a build's blobs: two, or the only one enrolled.
    pub fn holders_needed(&self) -> usize {
        match mutants::on(Mutant::DoneWithoutReceipts) {
            true => 0,
            false => self.roster.len().min(2),
        }
    }

    fn report(&mut self, author: PeerKey, end: AttemptEnd) -> Result<(), (Code, String)> {
        let AttemptEnd { build, attempt, outcome, receipts } = end;
        let mut holders: Holders = receipts
            .iter()
            .filter(|r| self.roster.is_member(&r.by))
            .filter_map(|signed| signed.open::<Receipt>().ok().map(|receipt| (signed.by, receipt)))
            .filter(|(_, r)| {
                r.mesh == self.mesh.0
                    && (r.build, r.attempt) == (build, attempt)
                    && (r.manifest, r.log) == (outcome.manifest, outcome.log)
            })
            .map(|(by, _)| by)
            .collect();
        holders.sort_unstable();
        holders.dedup();
        let has_blobs = outcome.manifest.is_some() || outcome.log.is_some();
        if outcome.end == End::Done && has_blobs && holders.len() < self.holders_needed() {
            let text = format!("{build}: held by {} of the {} hosts needed", holders.len(), self.holders_needed());
            return Err((Code::Receipts, text));
        }
        self.builds.end(build, attempt, author, AttemptState::Ended(outcome), holders, self.time_ms)
    }

    /// Applies one part after the other; the reply is the first refusal, and says how many there were.
    fn each<T>(&mut self, parts: Vec<T>, mut f: impl FnMut(&mut Self, T) -> Result<(), (Code, String)>) -> Reply {
        let mut refusals = vec![];
        let total = parts.len();
        for part in parts {
            if let Err(refusal) = f(self, part) {
                refusals.push(refusal);
            }
        }
        match refusals.first() {
            None => Reply::ok(),
            Some((code, text)) if total == 1 => Reply::refused(*code, text.clone()),
            Some((code, text)) => {
                Reply::refused(*code, format!("{} of {total} refused, first: {text}", refusals.len()))
            }
        }
    }

    /// The whole state as bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        encode(self)
    }

    /// The state from such bytes, when they belong to this mesh and their voter sets chain from its genesis.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing is changed.
    pub fn restore(&self, bytes: &[u8]) -> Result<Ledger, LedgerError> {
        let mut ledger: Ledger = ciborium::from_reader(bytes).map_err(|e| LedgerError::Malformed(e.to_string()))?;
        if ledger.mesh != self.mesh || mesh_id(&ledger.genesis) != self.mesh {
            return Err(LedgerError::OtherMesh { have: self.mesh, got: ledger.mesh });
        }
        // The chain verifies from whom it says that it begins with: that has to be this mesh's first host.
        if ledger.voters.founded() != (self.mesh, ledger.genesis.by) {
            return Err(LedgerError::Malformed("its voter sets do not begin with this mesh's first host".into()));
        }
        let genesis: Genesis = ledger.genesis.open()?;
        ledger.voters = ledger.voters.recoverable_by(genesis.recovery);
        ledger.voters.verify()?;
        if ledger.voters.recovery_epoch() != ledger.recovery_epoch && !mutants::on(Mutant::RecoveryKeepsEpoch) {
            return Err(LedgerError::Malformed("its epoch of recovery is not that of its voter sets".into()));
        }
        ledger.roster_changed = true;
        ledger.leader_changed = true;
        ledger.healing_changed = true;
        let all: Vec<BuildId> = ledger.builds.iter().map(|b| b.id).collect();
        ledger.builds.mark_changed(all);
        Ok(ledger)
    }
}

fn roster_code(error: RosterError) -> Code {
    match error {
        RosterError::Invalid | RosterError::WrongMesh | RosterError::BadName => Code::Invalid,
        RosterError::NotSigner | RosterError::Banned | RosterError::Expired | RosterError::LastSigner => {
            Code::Forbidden
        }
        RosterError::NoSuccessor | RosterError::Itself => Code::Invalid,
        RosterError::Used | RosterError::NameTaken | RosterError::NameKept | RosterError::AlreadyMember => {
            Code::Conflict
        }
        RosterError::Unknown => Code::Unknown,
        RosterError::Full => Code::Full,
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
pub(crate) mod tests;

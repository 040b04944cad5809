//! What a leader does: says so in the ledger, plans, proposes, and keeps the voters in order.
//!
//! It acts only while the lease stands ([`mesh::lease`]), and everything it writes carries its fence,
//! so what it wrote a moment too late is void. One step at a time: the next plan is made from the
//! ledger that the last one gave.

use super::Inner;
use super::looks::Deed;
use super::shared::lock;
use crate::net::{Protocol, frame};
use mesh::identity::PeerKey;
use mesh::lease::Fence;
use mesh::ledger::{Assign, Assignment, Command, Entry, Lead, Lose};
use mesh::placement::{Plan, plan};
use mesh::restraint::Restraint;
use mesh::roster::{Cosignature, VoterChange};
use mesh::wire::{Signed, decode};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Who has been elected looks so often whether its lease has begun, until the ledger says that it leads.
const BEGIN_EVERY: Duration = Duration::from_millis(250);
/// How long a leader's own entry may take before the next plan.
const PATIENCE: Duration = Duration::from_secs(5);
/// A voter set and its signature are small.
const COSIGN_BYTES_MAX: usize = 2_048;

impl Inner {
    /// The leader's task: does nothing while somebody else leads.
    pub(super) async fn run_leader(self: Arc<Self>) {
        loop {
            let begins = self.leads_under().is_none().then_some(BEGIN_EVERY);
            self.woken_to_lead(&self.wake_leader, begins).await;
            while self.lead_once().await {}
        }
    }

    /// The fence under which this host leads now, by its lease and by the ledger.
    pub(super) fn leads_under(&self) -> Option<Fence> {
        let fence = self.consensus.grant()?.fence;
        (self.shared.with(|l| l.leader()) == Some((self.me, fence))).then_some(fence)
    }

    /// Until a leader has to look at the world: it was woken (by news, and by the watch at each of its own looks),
    /// has looked `every` so long ago, or leads from now on.
    pub(super) async fn woken_to_lead(&self, wake: &Notify, every: Option<Duration>) {
        let by_itself = async {
            match (self.consensus.leads(), every) {
                (true, Some(every)) => tokio::time::sleep(every).await,
                (true, None) => std::future::pending().await,
                (false, _) => self.consensus.elected().await,
            }
        };
        tokio::select! {
            biased;
            () = wake.notified() => {}
            () = by_itself => {}
        }
    }

    /// One step. True when it changed something, so that the next may follow at once.
    async fn lead_once(&self) -> bool {
        let Some(grant) = self.consensus.grant() else {
            if self.consensus.is_on_its_way_out() {
                self.follow_voters().await; // the first call had no answer in time: half of the change stands
            }
            return false;
        };
        let fence = grant.fence;
        if self.shared.with(|l| l.leader()) != Some((self.me, fence)) {
            if !self.shared.with(|l| l.voters().voters().contains(&self.me)) {
                // Elected by the voters of before: their leader ended before consensus followed the ledger. Here nobody
                // who leads would be heard, so those that the ledger names are to vote, and elect another.
                self.follow_voters().await;
                return false;
            }
            let lead = Lead { version: env!("CARGO_PKG_VERSION").into() };
            let led = self.write_as_leader(fence, Command::Lead(lead)).await;
            if led {
                tracing::info!(term = fence.term, "this host leads");
            }
            return led;
        }
        let view = lock(&self.view).clone();
        let Plan { lose, assign, voters } =
            self.shared.with(|ledger| plan(ledger, &view, &Restraint::new(ledger, &self.judged(ledger))));
        let mut did = self.let_time_pass().await;
        did |= self.put_trail_away(fence).await;
        if !lose.is_empty() {
            for lost in &lose {
                tracing::info!(build = %lost.build, attempt = lost.attempt.0, why = lost.reason, "an attempt is lost");
            }
            did |= self.write_as_leader(fence, Command::Lose(Lose { attempts: lose })).await;
        }
        if !assign.is_empty() {
            for Assignment { build, attempt, host, .. } in &assign {
                self.note(Deed::Proposed { fence, build: *build, attempt: *attempt, to: *host });
            }
            did |= self.write_as_leader(fence, Command::Assign(Assign { attempts: assign })).await;
        }
        if let Some(voters) = self.heirs(&view).or(voters) {
            did |= self.change_voters(fence, voters).await;
        }
        self.follow_voters().await;
        did
    }

    pub(super) async fn write_as_leader(&self, fence: Fence, command: Command) -> bool {
        let entry = Entry::seal(&self.keys, self.mesh, self.request_id(), Some(fence), command);
        let answered = self.submit(entry, PATIENCE).await;
        if answered.is_ok() {
            lock(&self.coming).answered();
        }
        match answered {
            Ok((reply, _)) if reply.is_ok() => true,
            Ok((reply, _)) => {
                tracing::debug!(code = ?reply.code, text = reply.text, "the ledger refused a leader's entry");
                false
            }
            Err(error) => {
                tracing::debug!(%error, "a leader's entry has no answer");
                false
            }
        }
    }

    /// Asks the present voters to sign the next set; with a majority of signatures it goes into the ledger.
    async fn change_voters(&self, fence: Fence, voters: BTreeSet<PeerKey>) -> bool {
        let (present, majority, body) =
            self.shared.with(|l| (l.voters().voters().clone(), l.voters().majority(), l.voters().next(&voters)));
        let mut signatures = vec![];
        for voter in present {
            let signed = match voter == self.me {
                true => self.cosign(self.me, &body),
                false => self.ask_cosignature(voter, &body).await,
            };
            match signed {
                Ok(signature) => signatures.push(signature),
                Err(why) => tracing::info!(voter = %voter.short(), why, "a voter did not sign the next voter set"),
            }
        }
        if signatures.len() < majority {
            return false;
        }
        self.shared.with(|l| lock(&self.coming).propose(fence, l));
        self.write_as_leader(fence, Command::Voters(VoterChange { body, signatures })).await
    }

    /// Whether one of these entries takes out a voter whose yes may be needed for the voters that come.
    pub(super) fn keeps_back(&self, entries: &[Signed]) -> bool {
        let leads = self.consensus.grant().map(|grant| (self.me, grant.fence));
        let voting = self.consensus.voters();
        self.shared.with(|l| lock(&self.coming).keeps_back(l, leads, &voting, entries))
    }

    async fn ask_cosignature(&self, voter: PeerKey, body: &[u8]) -> Result<Cosignature, String> {
        let ask = async {
            let mut stream = self.net.open(voter, Protocol::Cosign).await.map_err(|e| e.to_string())?;
            frame::write_frame(&mut stream, body).await.map_err(|e| e.to_string())?;
            let answer = frame::read_frame(&mut stream, COSIGN_BYTES_MAX).await.map_err(|e| e.to_string())?;
            decode::<Result<Cosignature, String>>(&answer, COSIGN_BYTES_MAX).map_err(|e| e.to_string())?
        };
        tokio::time::timeout(Duration::from_secs(2), ask).await.map_err(|_| "no answer in 2 s".to_owned())?
    }

    /// A voter's own judgement before it signs: asked by the leader it knows, the set follows the present
    /// one, and all in it are enrolled.
    fn cosign(&self, asker: PeerKey, body: &[u8]) -> Result<Cosignature, String> {
        if lock(&self.members).host(&self.me).is_some_and(|own| own.cloned) {
            return Err("this key is alive twice, and signs for neither".to_owned());
        }
        self.shared.with(|ledger| {
            if ledger.leader().map(|l| l.0) != Some(asker) {
                return Err("the asker does not lead".to_owned());
            }
            if !ledger.voters().voters().contains(&self.me) {
                return Err("not a voter".to_owned());
            }
            ledger.voters().check(body, |k| ledger.roster().is_member(k)).map_err(|e| e.to_string())?;
            Ok(Cosignature::new(&self.keys, body))
        })
    }

    /// A voter's end of a cosign stream.
    pub(super) async fn serve_cosign(self: Arc<Self>, peer: PeerKey, mut stream: crate::net::Stream) {
        while let Ok(body) = frame::read_frame(&mut stream, COSIGN_BYTES_MAX).await {
            let answer = self.cosign(peer, &body);
            if frame::write_frame(&mut stream, &mesh::wire::encode(&answer)).await.is_err() {
                return;
            }
        }
    }

    /// Brings consensus in line with roster and voter chain: every member at least a learner, nobody else,
    /// and exactly the chain's voters voting.
    async fn follow_voters(&self) {
        let (members, wanted) = self.shared.with(|l| {
            let members: BTreeSet<PeerKey> = l.roster().members().map(|(k, _)| *k).collect();
            (members, l.voters().voters().clone())
        });
        self.readmit_learners().await;
        let voters = self.consensus.voters();
        let learners = self.consensus.learners();
        for peer in &members {
            if !voters.contains(peer) && !learners.contains(peer) {
                self.log_failure("adding a learner", self.consensus.add_learner(*peer).await);
            }
        }
        if voters != wanted && wanted.iter().all(|p| voters.contains(p) || learners.contains(p)) {
            self.log_failure("changing the voters", self.consensus.change_voters(wanted.clone()).await);
        }
        for peer in learners.iter().chain(&voters) {
            if !members.contains(peer) && !wanted.contains(peer) && !self.consensus.voters().contains(peer) {
                self.log_failure("removing a learner", self.consensus.remove(*peer).await);
            }
        }
    }

    /// Takes a learner whose log went back out of consensus, so that it is added again as if it were new and
    /// sent everything: nothing was counted on it. One that voted then stays out until somebody evicts it, and
    /// one whose key is alive twice until it is not: what it is sent might reach the other copy.
    async fn readmit_learners(&self) {
        let learners = self.consensus.learners();
        for (peer, (why, voted)) in self.consensus.refused() {
            let cloned = lock(&self.members).host(&peer).is_some_and(|h| h.cloned);
            if learners.contains(&peer) && !voted && !cloned {
                tracing::info!(host = self.name_of(&peer), why, "a learner is added anew");
                self.log_failure("removing a learner", self.consensus.remove(peer).await);
            }
        }
    }

    fn log_failure<T, E: std::fmt::Display>(&self, what: &str, result: Result<T, E>) {
        if let Err(error) = result {
            tracing::info!(%error, "{what} did not work yet; it is tried again");
        }
    }
}

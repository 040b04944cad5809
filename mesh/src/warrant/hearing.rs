//! A hearing: a target gives out a nonce, is told what its roster lacks, and decides about one warrant.
//!
//! Each check is a line of its own with the rule that it keeps; the first that fails is the answer. A hearing ends with
//! its first warrant, good or bad, so that a nonce is used once. Refusing changes nothing that is stored. Accepting
//! gives an [`Unstored`] [`Licence`]: first the disk, then receipt and deed.

use super::guard::Taken;
use super::{
    Approval, Authority, Frame, Guard, Hello, Known, Order, OrderHash, Receipt, Refusal, Unstored, Warrant, cosigned,
};
use crate::identity::{Keys, PeerKey};
use crate::lease::Fence;
use crate::limits::{NONCE_MS_MAX, ROSTER_MS_MAX, VOTERS_MAX, WARRANT_LINKS_MAX};
use crate::mutants::{self, Mutant};
use crate::order::{Act, BootId};
use crate::time::Time;
use crate::wire::{Label, Signed, decode};
use std::collections::BTreeSet;

/// What a target knows of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Host {
    /// The present boot.
    pub boot: BootId,
    /// The start number of the daemon that runs, or ran last.
    pub start: u64,
    /// `protected` of its own mesh.toml.
    pub protected: bool,
    /// `allow_reboot` of its own mesh.toml.
    pub allow_reboot: bool,
    /// Its wall clock in milliseconds since 1970, for the age of the roster alone.
    pub wall_ms: u64,
}

/// A target that has given out a nonce.
#[derive(Debug)]
pub struct Hearing {
    keys: Keys,
    known: Known,
    host: Host,
    nonce: [u8; 32],
    issued: Time,
    links: usize,
    spent: bool,
}

/// What came of a frame that was not refused.
#[derive(Debug)]
pub enum Step {
    /// A link: send the next frame.
    More,
    /// The order was taken on before: answer with that receipt and do nothing.
    Again(Signed),
    /// Store, answer with the receipt, act.
    Permit(Unstored<Licence>),
}

/// Leave to act, once what was accepted is stored.
#[derive(PartialEq, Eq, Debug)]
pub struct Licence {
    order: Box<Order>,
    receipt: Box<Signed>,
    by: Vec<PeerKey>,
}

impl Licence {
    /// What to do.
    pub fn act(&self) -> Act {
        self.order.act
    }
    /// The order, with who asked and why.
    pub fn order(&self) -> &Order {
        &self.order
    }
    /// The answer, to be sent before the deed.
    pub fn receipt(&self) -> &Signed {
        &self.receipt
    }
    /// A line for the target's own journal and for the users on it.
    pub fn journal(&self) -> String {
        let Order { id, act, requester, reason, fence, authority, .. } = &*self.order;
        let by: Vec<String> = self.by.iter().map(PeerKey::to_string).collect();
        let authority = if *authority == Authority::Person { "by hand" } else { "by the leader" };
        format!(
            "{id}: {act}, ordered {authority} under fence {fence}, asked for by {requester}: {reason}; signed by {}",
            by.join(", ")
        )
    }
}

/// A check: passed, or left out by its mutant, or refused.
fn must(holds: bool, naive: Mutant, refusal: Refusal) -> Result<(), Refusal> {
    if holds || mutants::on(naive) { Ok(()) } else { Err(refusal) }
}

impl Hearing {
    /// Begins: gives the frame to send. `nonce` is random and used for nothing else; `now` is BOOTTIME.
    pub fn open(
        keys: &Keys,
        guard: &Guard,
        known: Known,
        host: Host,
        nonce: [u8; 32],
        now: Time,
    ) -> (Hearing, Vec<u8>) {
        let Host { boot, start, .. } = host;
        let highest = highest(guard, &known);
        let hello = Hello { mesh: guard.mesh(), nonce, boot, start, highest, epoch: known.voters().epoch() };
        let frame = Frame::Hello(Signed::seal(keys, &hello)).write();
        (Hearing { keys: keys.clone(), known, host, nonce, issued: now, links: 0, spent: false }, frame)
    }

    /// What this target knows of the roster, with the links that it was brought.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Takes the next frame. `guard` is what is stored now, under lock until the step is stored.
    ///
    /// # Errors
    /// [`Refusal`]; nothing stored has changed. After a link that does not hold the hearing goes on without it.
    pub fn receive(&mut self, frame: &[u8], guard: &Guard, now: Time) -> Result<Step, Refusal> {
        if self.spent {
            return Err(Refusal::Spent);
        }
        let frame = Frame::read(frame).map_err(Refusal::Malformed)?;
        if let Frame::Warrant(warrant) = frame {
            self.spent = true;
            return self.decide(&warrant, guard, now);
        }
        self.links += 1;
        if self.links > WARRANT_LINKS_MAX {
            return Err(Refusal::TooManyLinks);
        }
        match frame {
            Frame::Voters(change) => self.known.follow_voters(change)?,
            Frame::Introduction(introduction) => self.known.introduce(&introduction)?,
            Frame::Expulsion(entry) => self.known.expel(&entry)?,
            Frame::Hello(_) | Frame::Receipt(_) | Frame::Refused(_) | Frame::Warrant(_) => {
                return Err(Refusal::Unexpected);
            }
        }
        Ok(Step::More)
    }

    fn decide(&self, warrant: &Warrant, guard: &Guard, now: Time) -> Result<Step, Refusal> {
        use Mutant::*;
        let Warrant { order: signed, approval, cosignatures } = warrant;
        let (me, host) = (self.keys.key(), &self.host);
        if self.known.mesh() != guard.mesh() {
            return Err(Refusal::OtherMesh); // two files of one folder, and not of one mesh: its voters are not ours
        }
        let order: Order = signed.open().map_err(Refusal::Order)?;
        must(order.mesh == guard.mesh(), WarrantOfOtherMesh, Refusal::OtherMesh)?;
        // Who goes by addresses takes whatever has reached this one for its own.
        let anybody = mutants::on(IdentityByAddress);
        must(order.target == me || anybody, WarrantForOther, Refusal::NotMe(order.target))?;
        must(order.is_bounded(), WarrantUnbounded, Refusal::Unbounded)?;
        let hash = OrderHash::of(signed);
        if let Some(receipt) = guard.receipt(&hash).filter(|_| !mutants::on(WarrantAgain)) {
            return Ok(Step::Again(receipt.clone()));
        }
        let again = mutants::on(WarrantAgain) && guard.receipt(&hash).is_some();
        must(!guard.has_id(&order.id) || again, WarrantIdShared, Refusal::IdShared)?;
        must(!host.protected, WarrantVetoIgnored, Refusal::Protected)?;
        must(!order.act.is_reboot() || host.allow_reboot, WarrantRebootsAnybody, Refusal::RebootNotAllowed)?;

        // What the signatures are over.
        let over: Approval = decode(approval, Approval::MAX).map_err(Refusal::Approval)?;
        must(over.mesh == guard.mesh(), WarrantOfOtherMesh, Refusal::OtherMesh)?;
        must(over.order == hash, WarrantOfOtherOrder, Refusal::OtherOrder)?;
        must(over.target == me || anybody, WarrantForOther, Refusal::NotMe(over.target))?;
        must(over.nonce == self.nonce, WarrantNonceIgnored, Refusal::OtherNonce)?;
        for named in [order.boot, over.boot] {
            must(named == host.boot || anybody, WarrantOfOtherBoot, Refusal::OtherBoot { named, present: host.boot })?;
        }
        for named in [order.start, over.start] {
            let same = named == host.start || order.act.is_reboot() || anybody;
            must(same, WarrantOfOtherStart, Refusal::OtherStart { named, present: host.start })?;
        }
        let took_ms = now.since(self.issued).as_millis() as u64;
        // A clock that went back proves nothing either.
        must(took_ms <= NONCE_MS_MAX && now >= self.issued, WarrantLate, Refusal::Late { took_ms })?;
        must(order.expires_ms > self.known.as_of_ms(), WarrantExpired, Refusal::Expired)?;
        let highest = highest(guard, &self.known);
        must(order.fence >= highest, WarrantFenceIgnored, Refusal::Stale { got: order.fence, highest })?;

        let by = self.signatures(warrant)?;
        must(by.contains(&signed.by), WarrantAuthorAbsent, Refusal::AuthorAbsent(signed.by))?;
        let verified = match order.authority {
            Authority::Person => {
                must(self.known.is_signer(&signed.by), WarrantSignerUnchecked, Refusal::NotSigner(signed.by))?;
                mutants::on(WarrantFenceBelieved).then_some(order.fence)
            }
            Authority::Leader => {
                self.leaders(signed.by, &order, over.epoch, &by, cosignatures.len())?;
                Some(order.fence)
            }
        };
        let receipt = Receipt { mesh: order.mesh, id: order.id, order: hash, boot: host.boot, start: host.start };
        let receipt = Signed::seal(&self.keys, &receipt);
        let next = guard.after(Taken { id: order.id, order: hash, receipt: receipt.clone() }, verified);
        let licence = Licence { order: Box::new(order), receipt: Box::new(receipt), by: by.into_iter().collect() };
        Ok(Step::Permit(Unstored::new(next.bytes(), licence)))
    }

    /// Who signed, when every signature is good. One that is not spoils the warrant: who brings it has tampered.
    fn signatures(&self, warrant: &Warrant) -> Result<BTreeSet<PeerKey>, Refusal> {
        use Mutant::*;
        let mut by = BTreeSet::new();
        if warrant.cosignatures.len() > VOTERS_MAX + 1 {
            return Err(Refusal::Unbounded);
        }
        for cosignature in &warrant.cosignatures {
            let who = cosignature.by;
            must(by.insert(who), WarrantCosignerTwice, Refusal::SignedTwice(who))?;
            must(!self.known.is_revoked(&who), WarrantRevokedSigns, Refusal::Revoked(who))?;
            let asked = self.known.voters().voters().contains(&who) || who == warrant.order.by;
            must(asked, WarrantCosignerStranger, Refusal::NotVoter(who))?;
            let good = cosigned(cosignature, &warrant.approval);
            must(good, WarrantCosignatureUnchecked, Refusal::BadCosignature(who))?;
        }
        Ok(by)
    }

    /// A leader's order needs a roster that is fresh, the leader, and the voters.
    fn leaders(
        &self,
        author: PeerKey,
        order: &Order,
        epoch: u64,
        by: &BTreeSet<PeerKey>,
        count: usize,
    ) -> Result<(), Refusal> {
        use Mutant::*;
        let chain = self.known.voters();
        let age_ms = self.known.age_ms(self.host.wall_ms);
        must(age_ms <= ROSTER_MS_MAX, WarrantOldRoster, Refusal::OldRoster { age_ms })?;
        must(!order.force, WarrantForceByLeader, Refusal::ForceByLeader)?;
        must(epoch == chain.epoch(), WarrantEpochIgnored, Refusal::OtherEpoch { have: chain.epoch(), got: epoch })?;
        // Under a fence that is later than what is known, the voters' signatures say who leads.
        let another = self.known.leader().is_some_and(|(leader, fence)| fence == order.fence && leader != author);
        let leads = chain.voters().contains(&author) && !another;
        must(leads, WarrantLeaderUnchecked, Refusal::NotLeader(author))?;
        // The naive variants count what they should not have let pass.
        let counts = |key: &&PeerKey| chain.voters().contains(key) || mutants::on(WarrantCosignerStranger);
        let repeated = count - by.len();
        let valid = repeated + by.iter().filter(counts).count();
        must(valid >= chain.majority(), WarrantNoMajority, Refusal::NoMajority { valid, needed: chain.majority() })?;
        let me = self.keys.key();
        let others = repeated + by.iter().filter(counts).filter(|key| **key != me).count();
        must(others >= 2, WarrantTooFewOthers, Refusal::TooFewOthers { others })
    }
}

/// The highest fence that was verified: of a warrant, or of the ledger.
fn highest(guard: &Guard, known: &Known) -> Fence {
    guard.highest().max(known.leader().map(|(_, fence)| fence).unwrap_or_default())
}

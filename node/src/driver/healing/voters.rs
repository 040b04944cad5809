//! Signatures for an order: asked of the voters by whoever brings it, and given by each voter on its own judgement.
//!
//! A voter looks at nothing that the asker claims where its own ledger and its own view have the answer
//! ([`mesh::warrant::consider`], [`mesh::healing::objection`]), and what it signs is on its disk first. Who asks needs a
//! majority of the voters and two that are not the target ([`enough`]); more are not waited for. It signs last itself:
//! whoever has signed one hello of a target signs no other for the same order, and should it come to nothing, the next try
//! needs every voter that is left. A voter that signs two
//! warrants for one order convicts itself, and is reported.

use super::super::Inner;
use super::super::shared::lock;
use crate::net::{Protocol, Stream, frame};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use mesh::healing::{Entry, Facts, Remark, Told, objection};
use mesh::identity::PeerKey;
use mesh::lease::Fence;
use mesh::limits::{APPROVALS_KEPT, WARRANT_FRAME_BYTES_MAX};
use mesh::roster::VoterChain;
use mesh::warrant::{
    Approval, Approved, Consent, Equivocation, Hello, Notes, Objection, Order, OrderHash, OrderId, Own, consider,
};
use mesh::wire::{Label, Signed, decode, encode, signed_bytes};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How long one voter may take: well within the life of a nonce.
const VOTER_WITHIN: Duration = Duration::from_secs(4);
/// How long a voter waits for an order that its own ledger does not have yet: it follows the leader by a moment.
const WRITTEN_WITHIN: Duration = Duration::from_millis(1_500);
/// An order and a hello, encoded.
const ASK_BYTES_MAX: usize = 2 * WARRANT_FRAME_BYTES_MAX;

/// What a voter is asked to sign for.
#[derive(Clone, Debug, PartialEq, Serialize_tuple, Deserialize_tuple)]
pub struct Ask {
    /// The signed [`Order`].
    pub order: Signed,
    /// The target's signed hello.
    pub hello: Signed,
}

/// What came of asking.
#[derive(Debug, Default)]
pub(super) struct Signatures {
    /// Who signed, over one and the same approval.
    pub signed: BTreeMap<PeerKey, Approved>,
    /// Who did not, and why.
    pub withheld: BTreeMap<PeerKey, String>,
}

/// Signatures that were seen, so that two of one voter for one order are noticed; the oldest go first.
#[derive(Default)]
pub(super) struct Seen(Vec<(OrderHash, Approved)>);

impl Seen {
    /// Remembers one; the proof when its voter has signed another for the same order.
    fn note(&mut self, order: OrderHash, approved: &Approved) -> Option<Equivocation> {
        let by = approved.cosignature.by;
        let mut before = self.0.iter().filter(|(of, other)| *of == order && other.cosignature.by == by);
        let proof = before.find_map(|(_, other)| Equivocation::prove(other.clone(), approved.clone()));
        if !self.0.iter().any(|(of, other)| *of == order && other == approved) {
            if self.0.len() >= APPROVALS_KEPT {
                self.0.remove(0);
            }
            self.0.push((order, approved.clone()));
        }
        proof
    }
}

/// Whether these suffice for a leader's warrant, as the target will count them.
fn enough(chain: &VoterChain, signed: impl Iterator<Item = PeerKey>, leader: &PeerKey, target: &PeerKey) -> bool {
    let valid: BTreeSet<PeerKey> = signed.filter(|by| chain.voters().contains(by)).collect();
    valid.contains(leader) && valid.len() >= chain.majority() && valid.iter().filter(|by| *by != target).count() >= 2
}

/// Whether it is this voter's signature, over whatever it is over.
fn is_by(approved: &Approved, voter: &PeerKey) -> bool {
    let Approved { approval, cosignature } = approved;
    let message = signed_bytes(Approval::LABEL, approval);
    cosignature.by == *voter && voter.verify(&message, &cosignature.sig).is_ok()
}

impl Inner {
    /// Asks all other voters at once, signs when that is all that is missing, and returns then, or when none is left. The
    /// second part says whether enough have signed.
    pub(super) async fn collect(
        self: &Arc<Self>,
        order: &Signed,
        target: PeerKey,
        hello: &Signed,
        greeting: &Hello,
    ) -> (Signatures, bool) {
        let chain = self.shared.with(|l| l.voters().clone());
        let hash = OrderHash::of(order);
        let Hello { mesh, nonce, boot, start, .. } = *greeting;
        let expected = encode(&Approval { mesh, order: hash, target, nonce, boot, start, epoch: chain.epoch() });
        let ask = Ask { order: order.clone(), hello: hello.clone() };
        let others = chain.voters().iter().filter(|voter| **voter != self.me);
        let mut answers: FuturesUnordered<_> = others
            .map(|voter| {
                let (voter, ask) = (*voter, ask.clone());
                async move { (voter, self.ask_approval(voter, ask).await) }
            })
            .collect();
        let mut got = Signatures::default();
        while let Some((voter, answer)) = answers.next().await {
            match answer {
                // One bad signature spoils a warrant: a voter that lies is left out.
                Ok(approved) if !is_by(&approved, &voter) => {
                    got.withheld.insert(voter, "its signature does not hold".into());
                }
                Ok(approved) => {
                    if let Some(proof) = lock(&self.healing.seen).note(hash, &approved) {
                        self.report_equivocation(&proof);
                    }
                    if approved.approval == expected {
                        got.signed.insert(voter, approved);
                    } else {
                        got.withheld.insert(voter, "it signed something else than it was asked to".into());
                    }
                }
                Err(why) => {
                    got.withheld.insert(voter, why);
                }
            }
            if !enough(&chain, got.signed.keys().copied().chain([self.me]), &self.me, &target) {
                continue;
            }
            match self.approve(ask.clone()).await {
                Ok(own) if own.approval == expected => {
                    got.signed.insert(self.me, own);
                    return (got, true);
                }
                Ok(_) => {
                    got.withheld.insert(self.me, "the voters have changed meanwhile".into());
                }
                Err(why) => {
                    got.withheld.insert(self.me, why);
                }
            }
            return (got, false);
        }
        (got, false)
    }

    /// Asks one voter for its signature.
    ///
    /// # Errors
    /// In words: why it does not sign, or that it does not answer.
    pub async fn ask_approval(self: &Arc<Self>, voter: PeerKey, ask: Ask) -> Result<Approved, String> {
        let answer = async {
            let mut stream = self.net.open(voter, Protocol::Approve).await.map_err(|e| e.to_string())?;
            frame::write_frame(&mut stream, &encode(&ask)).await.map_err(|e| e.to_string())?;
            let answer = frame::read_frame(&mut stream, WARRANT_FRAME_BYTES_MAX).await.map_err(|e| e.to_string())?;
            decode::<Result<Approved, String>>(&answer, WARRANT_FRAME_BYTES_MAX).map_err(|e| e.to_string())?
        };
        let late = |_| format!("no answer in {} s", VOTER_WITHIN.as_secs());
        tokio::time::timeout(VOTER_WITHIN, answer).await.map_err(late)?
    }

    /// A voter's end of a stream on which it is asked.
    pub(in super::super) async fn serve_approve(self: Arc<Self>, peer: PeerKey, mut stream: Stream) {
        while let Ok(bytes) = frame::read_frame(&mut stream, ASK_BYTES_MAX).await {
            let answer = match decode::<Ask>(&bytes, ASK_BYTES_MAX) {
                Ok(ask) => self.approve(ask).await,
                Err(error) => Err(error.to_string()),
            };
            if let Err(why) = &answer {
                tracing::info!(asker = self.name_of(&peer), why, "this voter does not sign an order");
            }
            if frame::write_frame(&mut stream, &encode(&answer)).await.is_err() {
                return;
            }
        }
    }

    /// This voter's own judgement, and its signature.
    async fn approve(self: &Arc<Self>, ask: Ask) -> Result<Approved, String> {
        let hash = OrderHash::of(&ask.order);
        let order = ask.order.open::<Order>().map_err(|error| Objection::Order(error).to_string())?;
        let (id, target) = (order.id, order.target);
        let written = self.shared.until(|l| {
            let ours = |case: &mesh::healing::Case| case.order.as_ref().is_some_and(|pending| pending.id == id);
            let noted = l.healing().case(&target).is_some_and(ours);
            (noted && l.healing().is_open(&hash, l.time_ms())).then_some(())
        });
        let _ = tokio::time::timeout(WRITTEN_WITHIN, written).await; // judged either way
        let this = self.clone();
        let judged = self.healing.papers(move |store| store.cosign(|notes| this.judge(notes, &ask, &order))).await;
        judged.map_err(|error| mesh::roster::cut(&error.to_string()))
    }

    fn judge(&self, notes: &Notes, ask: &Ask, order: &Order) -> Result<Consent, Objection> {
        let suspended = lock(&self.members).host(&self.me).is_some_and(|own| own.cloned);
        self.healing_facts(|facts: &Facts<'_>| {
            let written = facts.record.is_open(&OrderHash::of(&ask.order), facts.ledger.time_ms());
            let held_back = objection(facts, &order.target, order.id, order.act);
            let own = Own { ledger: facts.ledger, written, suspended, held_back };
            consider(&self.keys, notes, &ask.order, &ask.hello, &own)
        })
    }

    fn report_equivocation(self: &Arc<Self>, proof: &Equivocation) {
        let (Some(host), Some(text)) = (proof.culprit(), proof.text()) else { return };
        tracing::warn!(host = self.name_of(&host), text, "a voter contradicts itself");
        self.remark(host, None, Told::Signed, text);
    }

    /// Writes a remark when somebody can take it; nobody waits for it.
    pub(super) fn remark(self: &Arc<Self>, host: PeerKey, order: Option<OrderId>, told: Told, text: String) {
        let remark = Remark { host, order, told, text: mesh::roster::cut(&text) };
        let this = self.clone();
        self.task(async move {
            let fence: Option<Fence> = this.leads_under();
            match this.write_healing(Entry::Remark(remark), fence).await {
                Ok(reply) if !reply.is_ok() => tracing::debug!(reply.text, "a remark was refused"),
                Ok(_) => {}
                Err(error) => tracing::debug!(error, "a remark is not in the ledger"),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::identity::Keys;
    use mesh::order::{Act, BootId, Gently};
    use mesh::roster::MeshId;
    use mesh::warrant::{Authority, approve_by_hand};

    fn keys(n: u8) -> Keys {
        Keys::from_seed([n; 32])
    }

    #[test]
    fn two_signatures_for_one_order_convict_their_voter() {
        let (voter, target, mesh) = (keys(1), keys(2), MeshId([3; 32]));
        let order = |id| Order {
            mesh,
            id: OrderId([id; 16]),
            target: target.key(),
            boot: BootId([4; 16]),
            start: 5,
            act: Act::Restart(Gently { grace_ms: 0 }),
            authority: Authority::Leader,
            requester: "healing".into(),
            fence: Fence::default(),
            expires_ms: 1,
            force: false,
            reason: "so".into(),
        };
        let hello = |nonce| {
            let (boot, start, highest) = (BootId([4; 16]), 5, Fence::default());
            Signed::seal(&target, &Hello { mesh, nonce: [nonce; 32], boot, start, highest, epoch: 0 })
        };
        let sign = |order: &Signed, nonce| approve_by_hand(&voter, order, &hello(nonce)).unwrap();
        let (first, second) = (Signed::seal(&voter, &order(1)), Signed::seal(&voter, &order(2)));
        let mut forged = sign(&first, 7);
        assert!(is_by(&forged, &voter.key()) && !is_by(&forged, &target.key()));
        forged.cosignature.sig[3] ^= 1;
        assert!(!is_by(&forged, &voter.key()), "it would spoil the whole warrant");
        let mut seen = Seen::default();
        let note = |seen: &mut Seen, order: &Signed, nonce| seen.note(OrderHash::of(order), &sign(order, nonce));
        assert_eq!(note(&mut seen, &first, 7), None);
        assert_eq!(note(&mut seen, &first, 7), None, "the same again is the same");
        assert_eq!(note(&mut seen, &second, 8), None, "another order, another hello");
        let proof = note(&mut seen, &first, 8).expect("caught");
        assert_eq!(proof.culprit(), Some(voter.key()));
        for n in 0..=APPROVALS_KEPT {
            seen.note(OrderHash([n as u8; 32]), &sign(&second, (n % 200) as u8));
        }
        assert_eq!(seen.0.len(), APPROVALS_KEPT, "bounded");
    }

    #[test]
    fn enough_is_a_majority_with_the_leader_and_two_that_are_not_the_target() {
        let (leader, target, other) = (keys(1).key(), keys(2).key(), keys(3).key());
        let stranger = keys(9).key();
        let mut chain = VoterChain::found(MeshId([3; 32]), leader);
        let next = chain.next(&BTreeSet::from([leader, target, other]));
        let signatures = vec![mesh::roster::Cosignature::new(&keys(1), &next)];
        chain.advance(mesh::roster::VoterChange { body: next, signatures }, |_| true).unwrap();
        let says = |by: &[PeerKey]| enough(&chain, by.iter().copied(), &leader, &target);
        assert!(says(&[leader, other]) && says(&[leader, other, target]));
        assert!(!says(&[leader, target]), "the target is no witness against itself");
        assert!(!says(&[target, other]), "the leader does not sign");
        assert!(!says(&[leader]) && !says(&[leader, stranger]));
    }
}

//! What a leader keeps back while voters change: entries that take out one whose yes may be needed for those that come.
//!
//! The ledger's word on who can be spared ([`Ledger::can_spare`]) is true only while consensus has the voters that stand
//! there, and no others are on their way: else the yes of who goes may be the one without which the voters that come are
//! never decided. Kept back is not refused: whoever asks tries again. And nothing is kept for longer than the leader's
//! proposal has no answer, for what the ledger refused is not coming.

use super::{Ledger, takes_out};
use crate::identity::PeerKey;
use crate::lease::Fence;
use crate::mutants::{Mutant, on};
use crate::wire::Signed;
use std::collections::BTreeSet;

/// Voters that a leader has proposed, while that has no answer: under which fence, and their epoch.
#[derive(Clone, Debug, Default)]
pub struct Coming(Option<(Fence, u64)>);

impl Coming {
    /// The leader of this fence proposes the voters that follow those of its ledger.
    pub fn propose(&mut self, fence: Fence, ledger: &Ledger) {
        self.0 = Some((fence, ledger.voters().epoch() + 1));
    }

    /// The leader's newest entry has an answer. It writes one after another: whatever it had proposed before is taken or
    /// refused by now.
    pub fn answered(&mut self) {
        self.0 = None;
    }

    /// Whether entries have to wait: one of them takes out a peer that votes in consensus (`voting`), while another vote may
    /// be on its way. `leads` is this host and the fence of the lease that it holds; without one everything of the kind waits.
    pub fn keeps_back(
        &self,
        ledger: &Ledger,
        leads: Option<(PeerKey, Fence)>,
        voting: &BTreeSet<PeerKey>,
        entries: &[Signed],
    ) -> bool {
        let settled = leads.is_some_and(|(_, fence)| {
            let coming = self.0.filter(|(of, _)| *of == fence).map(|(_, epoch)| epoch);
            ledger.leader() == leads
                && voting == ledger.voters().voters()
                && coming.is_none_or(|epoch| epoch <= ledger.voters().epoch())
        });
        !settled && !on(Mutant::LeavesMidChange) && entries.iter().any(|entry| takes_out(entry, voting))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{World, keys};
    use super::super::{Code, Command, Entry, RequestId, Revoke};
    use super::*;
    use crate::mutants::with;
    use crate::roster::{Cosignature, VoterChange};

    fn set(of: &[u8]) -> BTreeSet<PeerKey> {
        of.iter().map(|n| keys(*n).key()).collect()
    }

    fn out(world: &World, n: u8) -> [Signed; 1] {
        let revoke = Command::Revoke(Revoke { peer: keys(n).key(), banned: false, reason: "leaves".into() });
        [Entry::seal(&keys(n), world.ledger.mesh(), RequestId([n; 16]), None, revoke)]
    }

    /// Hosts 1 to 3 vote, 4 does not, and 1 leads.
    fn three() -> (World, Option<(PeerKey, Fence)>) {
        let mut world = World::new(4);
        world.vote(&[1, 2, 3], &[1]);
        let leads = world.ledger.leader();
        assert_eq!(leads.map(|(peer, _)| peer), Some(keys(1).key()));
        (world, leads)
    }

    #[test]
    fn a_voter_is_taken_out_only_while_no_other_vote_is_on_its_way() {
        let (world, leads) = three();
        let (ledger, three) = (&world.ledger, set(&[1, 2, 3]));
        let mut coming = Coming::default();
        assert!(!coming.keeps_back(ledger, leads, &three, &out(&world, 2)), "all have what stands here");
        assert!(coming.keeps_back(ledger, leads, &set(&[1, 2]), &out(&world, 2)), "consensus follows yet");
        assert!(coming.keeps_back(ledger, None, &three, &out(&world, 2)), "it may not lead any more");
        let fence = leads.map(|(_, fence)| Fence { term: fence.term + 1, ..fence });
        let newer = fence.map(|fence| (keys(1).key(), fence));
        assert!(coming.keeps_back(ledger, newer, &three, &out(&world, 2)), "its first entry is not in the ledger yet");
        coming.propose(leads.unwrap().1, ledger);
        assert!(coming.keeps_back(ledger, leads, &three, &out(&world, 2)));
        assert!(!coming.keeps_back(ledger, leads, &three, &out(&world, 4)), "who does not vote goes when it likes");
        assert!(!with(Some(Mutant::LeavesMidChange), || { coming.keeps_back(ledger, leads, &three, &out(&world, 2)) }));
    }

    #[test]
    fn what_the_ledger_took_or_refused_keeps_nobody_back() {
        let (mut world, leads) = three();
        let fence = leads.unwrap().1;
        let mut coming = Coming::default();
        // Too few have signed: the ledger refuses it, and nothing is on its way.
        coming.propose(fence, &world.ledger);
        let body = world.ledger.voters().next(&set(&[1, 2, 4]));
        let signatures = vec![Cosignature::new(&keys(1), &body)];
        assert_ne!(world.send(1, Command::Voters(VoterChange { body, signatures })).code, Code::Ok);
        assert!(coming.keeps_back(&world.ledger, leads, &set(&[1, 2, 3]), &out(&world, 2)), "it has not heard yet");
        coming.answered();
        assert!(!coming.keeps_back(&world.ledger, leads, &set(&[1, 2, 3]), &out(&world, 2)));
        // It takes these: whoever votes in consensus as well is held back until that follows, and no longer.
        coming.propose(fence, &world.ledger);
        world.vote(&[1, 2, 4], &[1, 2]);
        assert!(coming.keeps_back(&world.ledger, leads, &set(&[1, 2, 3]), &out(&world, 3)));
        assert!(
            !coming.keeps_back(&world.ledger, leads, &set(&[1, 2, 4]), &out(&world, 4)),
            "they stand in the ledger"
        );
        // What an earlier leader's term had proposed says nothing of this one.
        coming.propose(fence, &world.ledger);
        world.term += 1;
        world.lead(1);
        let leads = world.ledger.leader();
        assert!(!coming.keeps_back(&world.ledger, leads, &set(&[1, 2, 4]), &out(&world, 2)));
    }
}

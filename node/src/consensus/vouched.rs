//! Who may lead although the log here does not say so yet.
//!
//! That is whom this host's own ledger has as voters, whoever a newcomer was told of, and whoever *shows* that it votes: a
//! host that was cut off while the voters changed knows the new ones by neither log nor ledger, and only a leader could
//! tell it of them. Each voter set is signed by a majority of the set before it, so whoever asks brings the links that this
//! host lacks, and they are walked from what this host holds itself. What was shown lets its bearer be heard, and no
//! more: it changes neither log nor ledger, is in memory alone, and is walked anew once the ledger has other voters,
//! so that a set that was signed and never committed is not in the way of the one that was. Nothing here sends.

use mesh::identity::PeerKey;
use mesh::limits::WARRANT_LINKS_MAX;
use mesh::mutants::{self, Mutant};
use mesh::roster::{VoterChain, VoterChange, VoterError};
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// See the module. Shared by those that ask and those that answer.
#[derive(Default)]
pub(super) struct Vouched(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// By the ledger; none before that has been said.
    chain: Option<VoterChain>,
    told: BTreeSet<PeerKey>,
    /// They have shown that they vote: never more than there are members.
    shown: BTreeSet<PeerKey>,
}

impl Vouched {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the ledger says of voters, and whom this host was told of, in place of what was said before.
    pub(super) fn set(&self, chain: VoterChain, told: BTreeSet<PeerKey>) {
        let mut known = self.lock();
        if known.chain.as_ref() != Some(&chain) {
            known.shown.clear();
        }
        (known.chain, known.told) = (Some(chain), told);
    }

    /// Whether a peer may lead.
    pub(super) fn knows(&self, peer: &PeerKey) -> bool {
        let known = self.lock();
        known.chain.as_ref().is_some_and(|chain| chain.voters().contains(peer))
            || known.told.contains(peer)
            || known.shown.contains(peer)
    }

    /// The epoch of the voters that this host's ledger proves.
    pub(super) fn epoch(&self) -> Option<u64> {
        self.lock().chain.as_ref().map(VoterChain::epoch)
    }

    /// What a host lacks that stands at this epoch, oldest first: as much as it will hear at once.
    pub(super) fn links(&self, epoch: u64) -> Vec<VoterChange> {
        let known = self.lock();
        known.chain.iter().flat_map(|chain| chain.after(epoch)).take(WARRANT_LINKS_MAX).cloned().collect()
    }

    /// A peer shows links. Whether it votes by them.
    ///
    /// # Errors
    /// When they do not follow from what this host knows: no honest host has such.
    pub(super) fn show(&self, peer: PeerKey, links: Vec<VoterChange>) -> Result<bool, VoterError> {
        let mut known = self.lock();
        if known.shown.contains(&peer) {
            return Ok(true); // it costs nothing to say so again
        }
        let Some(mut chain) = known.chain.clone() else { return Ok(false) };
        for link in links.into_iter().take(WARRANT_LINKS_MAX) {
            chain.follow(link)?;
        }
        let votes = chain.voters().contains(&peer) && !mutants::on(Mutant::NewVotersUnheard);
        if votes {
            known.shown.insert(peer);
        }
        Ok(votes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::identity::Keys;
    use mesh::mutants::with;
    use mesh::roster::{Cosignature, MeshId};

    fn keys(n: u8) -> Keys {
        Keys::from_seed([n; 32])
    }

    fn key(n: u8) -> PeerKey {
        keys(n).key()
    }

    fn next(chain: &mut VoterChain, voters: &[u8], signers: &[u8]) -> VoterChange {
        let body = chain.next(&voters.iter().map(|n| key(*n)).collect());
        let signatures = signers.iter().map(|n| Cosignature::new(&keys(*n), &body)).collect();
        let change = VoterChange { body, signatures };
        chain.advance(change.clone(), |_| true).unwrap();
        change
    }

    /// Voters 1, 2, 3, then 2, 3, 4, then 4, 5, 6.
    fn chains() -> (VoterChain, VoterChain) {
        let mut chain = VoterChain::found(MeshId([5; 32]), key(1));
        next(&mut chain, &[1, 2, 3], &[1]);
        let before = chain.clone();
        next(&mut chain, &[2, 3, 4], &[1, 2]);
        next(&mut chain, &[4, 5, 6], &[3, 4]);
        (before, chain)
    }

    fn vouched(chain: &VoterChain) -> Vouched {
        let vouched = Vouched::default();
        vouched.set(chain.clone(), BTreeSet::from([key(9)]));
        vouched
    }

    #[test]
    fn whoever_shows_that_it_votes_is_heard() {
        let (before, after) = chains();
        let (behind, ahead) = (vouched(&before), vouched(&after));
        assert_eq!((behind.epoch(), Vouched::default().epoch()), (Some(1), None));
        assert!(behind.knows(&key(3)) && behind.knows(&key(9)) && !behind.knows(&key(5)));
        let links = ahead.links(1);
        assert_eq!((links.len(), ahead.links(3).len(), Vouched::default().links(0).len()), (2, 0, 0));
        assert_eq!(behind.show(key(7), links.clone()), Ok(false), "the links are good, and it is not in them");
        assert!(!behind.knows(&key(7)));
        let naive = vouched(&before);
        assert_eq!(with(Some(Mutant::NewVotersUnheard), || naive.show(key(5), links.clone())), Ok(false));
        assert_eq!(behind.show(key(5), links), Ok(true));
        assert!(behind.knows(&key(5)) && !behind.knows(&key(6)), "each shows it for itself");
        assert_eq!(behind.epoch(), Some(1), "the ledger stands where it stood");
        behind.set(before, BTreeSet::new());
        assert!(behind.knows(&key(5)), "until the ledger has other voters");
        behind.set(after, BTreeSet::new());
        assert!(behind.lock().shown.is_empty() && behind.knows(&key(6)));
    }

    #[test]
    fn links_that_voters_did_not_sign_show_nothing() {
        let (before, after) = chains();
        let behind = vouched(&before);
        let links = vouched(&after).links(1);
        assert!(behind.show(key(5), links[1..].to_vec()).is_err(), "one is missing");
        let mut forged = links.clone();
        forged[1].signatures.truncate(1);
        assert!(behind.show(key(5), forged.clone()).is_err(), "too few signed");
        assert!(!behind.knows(&key(5)));
        assert_eq!(
            with(Some(Mutant::VoterSetsUnchecked), || behind.show(key(5), forged)),
            Ok(true),
            "the naive variant"
        );
    }

    #[test]
    fn a_set_that_was_never_committed_is_not_in_the_way() {
        let (before, after) = chains();
        let behind = vouched(&before);
        // Signed by a majority, and never in the ledger: another was.
        let mut other = before.clone();
        let aborted = next(&mut other, &[1, 7, 8], &[1, 3]);
        assert_eq!(behind.show(key(7), vec![aborted]), Ok(true));
        assert_eq!(behind.show(key(5), vouched(&after).links(1)), Ok(true));
        behind.set(after, BTreeSet::new());
        assert!(!behind.knows(&key(7)));
    }
}

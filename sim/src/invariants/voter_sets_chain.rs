//! Every voter set is signed by a majority of the one before, back to the genesis, and is the same everywhere.
//!
//! The chain is walked with every rule in force, whatever the run leaves out. Never asks who leads or
//! whether the voters answer.

use super::{Fact, HostSeen, Invariant, Name, Truth};
use mesh::identity::PeerKey;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub struct VoterSetsChain {
    sets: BTreeMap<u64, BTreeSet<PeerKey>>,
    /// Start number and epoch at a host's last look.
    last: BTreeMap<Name, (u64, u64)>,
    judged: u64,
}

impl Invariant for VoterSetsChain {
    fn name(&self) -> &'static str {
        "voter-sets-chain"
    }

    fn source(&self) -> &'static str {
        "Ongaro, Consensus (2014), 4.1: one change at a time; rule 3 of the design"
    }

    fn look(&mut self, _at: Duration, host: &HostSeen<'_>, _truth: &dyn Truth) -> Result<(), String> {
        let voters = host.ledger.voters();
        let now = (host.start, voters.epoch());
        let known = self.sets.entry(now.1).or_insert_with(|| voters.voters().clone());
        if known != voters.voters() {
            return Err(format!("{} has other voters than others at epoch {}", host.name, now.1));
        }
        let before = self.last.insert(host.name.clone(), now);
        if before == Some(now) {
            return Ok(());
        }
        self.judged += 1;
        if let Some((start, epoch)) = before.filter(|(start, epoch)| *start == now.0 && *epoch > now.1) {
            return Err(format!("{} went from voter set {epoch} back to {} in start {start}", host.name, now.1));
        }
        let walked = mesh::mutants::with(None, || voters.verify());
        walked.map_err(|error| format!("{}: {error}", host.name))
    }

    fn fact(&mut self, _at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        if let Fact::Wiped { host } = fact {
            self.last.remove(host); // with its disk it may go back, and count its starts from before
        }
        Ok(())
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fleet, name, second};
    use super::*;
    use mesh::mutants::{Mutant, with};

    #[test]
    fn a_set_that_its_predecessors_did_not_sign_is_caught() {
        let mut fleet = Fleet::of(3);
        let mut rule = VoterSetsChain::default();
        assert_eq!(rule.look(second(1), &fleet.seen(1), &fleet), Ok(()));
        assert!(fleet.vote_in(&[1, 2, 3], &[1]).is_ok());
        assert_eq!(rule.look(second(2), &fleet.seen(1), &fleet), Ok(()));
        assert!(!fleet.vote_in(&[2], &[1]).is_ok(), "one of three is no majority");
        assert!(with(Some(Mutant::VoterSetsUnchecked), || fleet.vote_in(&[2], &[1])).is_ok());
        assert!(rule.look(second(3), &fleet.seen(1), &fleet).is_err());
    }

    #[test]
    fn two_sets_of_one_epoch_are_caught() {
        let mut fleet = Fleet::of(3);
        let mut other = fleet.clone();
        let mut rule = VoterSetsChain::default();
        assert!(fleet.vote_in(&[1, 2, 3], &[1]).is_ok());
        assert!(other.vote_in(&[2], &[1]).is_ok());
        assert_eq!(rule.look(second(1), &fleet.seen(1), &fleet), Ok(()));
        assert!(rule.look(second(1), &other.seen(2), &fleet).is_err());
    }

    #[test]
    fn going_back_is_a_fault_but_with_a_disk_that_went_back() {
        let mut fleet = Fleet::of(3);
        let before = fleet.clone();
        let mut rule = VoterSetsChain::default();
        assert!(fleet.vote_in(&[1, 2, 3], &[1]).is_ok());
        assert_eq!(rule.look(second(1), &fleet.seen(1), &fleet), Ok(()));
        assert!(rule.look(second(2), &before.seen(1), &fleet).is_err(), "the same start, an older set");
        assert_eq!(rule.look(second(3), &fleet.seen(1), &fleet), Ok(()));
        assert_eq!(rule.fact(second(4), &Fact::Wiped { host: name(1) }, &fleet), Ok(()));
        assert_eq!(rule.look(second(5), &before.seen(1), &fleet), Ok(()), "its starts are counted from before, too");
    }
}

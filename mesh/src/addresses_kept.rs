//! What is kept of the table of leads over a restart of the process, so that hosts find each other again.
//!
//! Two hosts that both start anew know each other only from an invitation, which may be older than either's address:
//! without anything kept they would wait for a third to tell them. Kept is where this host has proved its peers, and
//! of one that always dialled first where it says that it is, as leads like any other: nothing that is read back
//! counts as proved, nor against anybody else, so an address that is another's by now costs one dial. Nothing here reads or writes a file; the daemon keeps the bytes, writes them seldom, and starts without
//! them when they are gone or torn.

use super::{Addresses, Lead, Source};
use crate::identity::PeerKey;
use crate::membership::ADDRESS_BYTES_MAX;
use crate::time::Time;
use crate::wire::{WireError, decode, encode};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Peers of whom leads are kept: far more than vote, and any of them knows where the others are.
pub const KEPT_PEERS_MAX: usize = 256;
/// Addresses kept of one peer: both families, on a network and an overlay.
pub const KEPT_MAX: usize = 4;
/// All of it, encoded: a key is 32 bytes, and so is what frames it and its addresses at the most.
pub const KEPT_BYTES_MAX: usize = KEPT_PEERS_MAX * (64 + KEPT_MAX * (ADDRESS_BYTES_MAX + 8));

/// Where peers were, in order of peers and of addresses: it differs only when there is something to write.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Kept(Vec<(PeerKey, Vec<String>)>);

impl Kept {
    /// As bytes, for a file.
    pub fn encode(&self) -> Vec<u8> {
        encode(&self.0)
    }

    /// Reads what was written.
    ///
    /// # Errors
    /// When the bytes are torn, too many, or something else.
    pub fn decode(bytes: &[u8]) -> Result<Kept, WireError> {
        decode(bytes, KEPT_BYTES_MAX).map(Kept)
    }

    /// To whom there are leads.
    pub fn peers(&self) -> impl Iterator<Item = PeerKey> {
        self.0.iter().map(|(peer, _)| *peer)
    }

    /// How many peers there are leads to.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Addresses {
    /// What to keep: of each other peer where it was proved here, or before the last restart and not refuted since; of
    /// who was not, where it says that it is.
    pub fn keep(&self) -> Kept {
        let newest = |leads: &BTreeMap<String, Lead>| {
            let ranked = |(addr, lead): (&String, &Lead)| {
                let rank = (Reverse(lead.proved), Reverse(lead.kept), addr.clone());
                (lead.proved.is_some() || lead.kept || lead.claimed).then_some(rank)
            };
            let mut found: Vec<_> = leads.iter().filter_map(ranked).collect();
            found.sort_unstable();
            found.truncate(KEPT_MAX);
            found
        };
        let others = self.peers.iter().filter(|(peer, _)| **peer != self.me);
        let mut kept: Vec<_> = others
            .map(|(peer, leads)| (newest(leads), *peer))
            .filter_map(|(found, peer)| Some((found.first()?.0, found.first()?.1, peer, found)))
            .collect();
        kept.sort_unstable();
        kept.truncate(KEPT_PEERS_MAX);
        let sorted = |found: Vec<(_, _, String)>| {
            let mut addrs: Vec<String> = found.into_iter().map(|(_, _, addr)| addr).collect();
            addrs.sort_unstable();
            addrs
        };
        let mut kept: Vec<_> = kept.into_iter().map(|(_, _, peer, found)| (peer, sorted(found))).collect();
        kept.sort_unstable();
        Kept(kept)
    }

    /// Takes what was kept, as leads. Call [`Addresses::set_members`] once it is known who is enrolled.
    pub fn recall(&mut self, kept: &Kept, now: Time) {
        let me = self.me;
        for (peer, addrs) in kept.0.iter().filter(|(peer, _)| *peer != me).take(KEPT_PEERS_MAX) {
            for addr in addrs.iter().take(KEPT_MAX) {
                if self.learn(*peer, addr, Source::Identify, None, now)
                    && let Some(lead) = self.peers.get_mut(peer).and_then(|leads| leads.get_mut(addr))
                {
                    (lead.kept, lead.was_its) = (true, true);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Failure, LEADS_MAX};
    use super::*;
    use crate::identity::Keys;
    use std::time::Duration;

    fn key(n: u8) -> PeerKey {
        Keys::from_seed([n; 32]).key()
    }

    fn at(seconds: u64) -> Time {
        Time::default() + Duration::from_secs(seconds)
    }

    fn addr(n: u8) -> String {
        format!("/ip4/10.0.0.{n}/tcp/7400")
    }

    fn again(table: &Addresses) -> Addresses {
        let kept = Kept::decode(&table.keep().encode()).unwrap();
        let mut next = Addresses::new(key(1));
        next.recall(&kept, at(0));
        next
    }

    #[test]
    fn where_a_peer_was_is_a_lead_after_restarts_and_no_proof() {
        let mut table = Addresses::new(key(1));
        table.learn(key(1), &addr(1), Source::Interface, None, at(1));
        table.learn(key(2), &addr(4), Source::Identify, Some(key(2)), at(1));
        assert!(table.keep().is_empty(), "neither where this host listens nor what identify makes up");
        table.learn_presence(key(2), &[addr(2), addr(3)], at(1));
        assert_eq!(again(&table).leads(&key(2), at(3)), [addr(2), addr(3)], "it may always have dialled first");
        table.proved(key(2), &addr(3), at(2));
        table.learn_presence(key(2), &[addr(2)], at(3));
        let next = again(&again(&table));
        assert_eq!(next.leads(&key(2), at(3)), [addr(2), addr(3)]);
        assert!(next.rows(&key(2), at(3)).iter().all(|row| !row.proved));
        assert_eq!(next.nat_of(&key(3), &addr(3)), None, "what was kept says nothing of anybody else");
    }

    #[test]
    fn incident_2_a_container_still_dials_the_host_whose_address_it_shares() {
        let (own, host) = ("/ip4/10.0.0.5/tcp/7401", "/ip4/10.0.0.5/tcp/7400");
        let mut table = Addresses::new(key(1));
        table.learn(key(1), own, Source::Interface, None, at(0));
        table.learn_presence(key(2), &[host.to_owned()], at(0));
        let mut next = again(&table);
        next.learn(key(1), own, Source::Interface, None, at(0));
        assert_eq!(next.leads(&key(2), at(1)), [host]);
    }

    #[test]
    fn what_turned_out_to_be_anothers_is_not_kept() {
        let mut table = Addresses::new(key(1));
        table.proved(key(2), &addr(2), at(1));
        let mut next = again(&table);
        next.learn(key(3), &addr(3), Source::Identify, Some(key(3)), at(1));
        next.failed(key(2), &addr(2), Failure::Timeout, at(2));
        assert_eq!(next.keep().len(), 1, "it may be off");
        next.failed(key(2), &addr(2), Failure::Peer(key(3)), at(3));
        assert_eq!(again(&next).leads(&key(2), at(4)), Vec::<String>::new());
        assert_eq!(again(&next).leads(&key(3), at(4)), vec![addr(2)]);
    }

    #[test]
    fn little_is_kept_and_of_it_the_newest() {
        let mut table = Addresses::new(key(1));
        for n in 0..LEADS_MAX as u8 {
            table.proved(key(2), &addr(n + 2), at(u64::from(n)));
        }
        let mut newest: Vec<String> =
            (LEADS_MAX as u8 - KEPT_MAX as u8..LEADS_MAX as u8).map(|n| addr(n + 2)).collect();
        newest.sort_unstable();
        assert_eq!(again(&table).leads(&key(2), at(1)), newest);
        for n in 0..KEPT_PEERS_MAX {
            let mut seed = [9; 32];
            seed[..8].copy_from_slice(&(n as u64).to_le_bytes());
            table.proved(Keys::from_seed(seed).key(), &addr(3), at(100 + n as u64));
        }
        let next = again(&table);
        assert_eq!(next.keep().len(), KEPT_PEERS_MAX);
        assert_eq!(next.leads(&key(2), at(1)), Vec::<String>::new(), "proved longest ago");
        assert!(table.keep().encode().len() < KEPT_BYTES_MAX);
    }

    #[test]
    fn proving_it_again_changes_nothing_of_what_is_kept() {
        let mut table = Addresses::new(key(1));
        table.proved(key(2), &addr(2), at(1));
        table.proved(key(2), &addr(3), at(2));
        let before = table.keep();
        table.proved(key(2), &addr(2), at(3));
        assert_eq!(table.keep(), before);
    }

    #[test]
    fn torn_and_foreign_bytes_are_refused_and_strangers_go() {
        let mut table = Addresses::new(key(1));
        table.proved(key(2), &addr(2), at(1));
        let bytes = table.keep().encode();
        assert!((0..bytes.len()).all(|end| Kept::decode(&bytes[..end]).is_err()));
        assert!(Kept::decode(b"{}").is_err());
        let mut next = again(&table);
        next.set_members(&[key(1), key(3)].into());
        assert_eq!(next.leads(&key(2), at(1)), Vec::<String>::new());
    }
}

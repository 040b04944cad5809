//! Blobs between hosts: found, fetched, held for one another. After `node::driver::replicate`. A blob is its
//! name; it is there when the disk has synced it.

use super::disk::Write;
use super::host::{Env, Process};
use super::message::Message;
use mesh::build::{Attempt, BlobId, BuildId, Receipt};
use mesh::identity::PeerKey;
use mesh::wire::Signed;
use std::collections::VecDeque;

/// What fetched blobs are for.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// A need of an attempt of ours.
    Job(BuildId, Attempt),
    /// Somebody asked us to hold them: who, in which message, for which receipt.
    Hold(PeerKey, u64, Receipt),
}

/// Blobs that are being fetched together.
#[derive(Debug)]
pub struct Fetch {
    ids: Vec<BlobId>,
    asked: Option<PeerKey>,
    rest: VecDeque<PeerKey>,
    purpose: Purpose,
    /// They have come, and are on the disk after so many writes.
    written: Option<u64>,
}

impl Process {
    /// Sees to it that blobs are here: from these hosts, then from whoever is near.
    pub(super) fn fetch(&mut self, env: &mut Env<'_>, mut ids: Vec<BlobId>, first: &[PeerKey], purpose: Purpose) {
        ids.retain(|id| !env.m.disk.shows(*id));
        if ids.is_empty() {
            return self.purpose_met(env, purpose, true);
        }
        let mut rest: VecDeque<PeerKey> = VecDeque::new();
        for peer in first.iter().chain(self.lines.keys()) {
            if *peer != self.me && !rest.contains(peer) {
                rest.push_back(*peer);
            }
        }
        self.jobs.numbers += 1;
        let number = self.jobs.numbers;
        self.jobs.fetches.insert(number, Fetch { ids, asked: None, rest, purpose, written: None });
        self.ask_next(env, number);
    }

    fn ask_next(&mut self, env: &mut Env<'_>, number: u64) {
        loop {
            let Some(fetch) = self.jobs.fetches.get_mut(&number) else { return };
            let (next, ids) = (fetch.rest.pop_front(), fetch.ids.clone());
            fetch.asked = next;
            match next {
                Some(peer) if self.send(env, peer, Message::Want(number, ids)) => return,
                Some(_) => {}
                None => {
                    if let Some(fetch) = self.jobs.fetches.remove(&number) {
                        self.purpose_met(env, fetch.purpose, false);
                    }
                    return;
                }
            }
        }
    }

    /// A host has given blobs, or does not have them.
    pub(super) fn fetched(&mut self, env: &mut Env<'_>, number: u64, has: bool) {
        let Some(fetch) = self.jobs.fetches.get_mut(&number).filter(|f| f.asked.is_some()) else { return };
        if !has {
            return self.ask_next(env, number);
        }
        fetch.asked = None;
        for id in &fetch.ids {
            fetch.written = Some(env.m.disk.write(Write::Blob(*id)));
        }
    }

    /// The disk has synced.
    pub(super) fn blobs_synced(&mut self, env: &mut Env<'_>, written: u64) {
        self.outputs_synced(env, written);
        let synced = |fetch: &Fetch| fetch.written.is_some_and(|at| at <= written);
        let numbers: Vec<u64> = self.jobs.fetches.iter().filter(|(_, f)| synced(f)).map(|(n, _)| *n).collect();
        for number in numbers {
            if let Some(fetch) = self.jobs.fetches.remove(&number) {
                self.purpose_met(env, fetch.purpose, true);
            }
        }
    }

    fn purpose_met(&mut self, env: &mut Env<'_>, purpose: Purpose, ok: bool) {
        match purpose {
            Purpose::Job(id, attempt) => self.need_fetched(env, id, attempt, ok),
            Purpose::Hold(from, number, receipt) => {
                let answer = match ok {
                    true => Ok(Signed::seal(&env.m.keys, &receipt)),
                    false => Err("not to be had".to_owned()),
                };
                self.send(env, from, Message::Held(number, answer));
            }
        }
    }

    /// Somebody asks us to hold an attempt's blobs.
    pub(super) fn asked_to_hold(&mut self, env: &mut Env<'_>, from: PeerKey, number: u64, receipt: Receipt) {
        if receipt.mesh != self.mesh.0 {
            self.send(env, from, Message::Held(number, Err("of another mesh".to_owned())));
            return;
        }
        let mut ids: Vec<BlobId> = receipt.log.into_iter().collect();
        if let Some(manifest) = receipt.manifest {
            ids.extend(env.cx.whole(manifest));
        }
        self.fetch(env, ids, &[from], Purpose::Hold(from, number, receipt));
    }

    /// The connection to a host is gone that was asked for blobs.
    pub(super) fn blobs_failed(&mut self, env: &mut Env<'_>, peer: PeerKey) {
        self.holders_failed(env, peer);
        let asked = |fetch: &Fetch| fetch.asked == Some(peer);
        let numbers: Vec<u64> = self.jobs.fetches.iter().filter(|(_, f)| asked(f)).map(|(n, _)| *n).collect();
        for number in numbers {
            self.ask_next(env, number);
        }
    }
}

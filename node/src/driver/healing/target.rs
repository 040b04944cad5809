//! A target hears a warrant, and does what it says.
//!
//! Each stream is one hearing: hello, links, warrant, receipt ([`mesh::warrant`] has the frames). Whoever is enrolled may
//! bring one, and whoever a member vouches for, since the warrant convicts itself; each peer one at a time, a few in all, and each for [`HEARING_WITHIN`].
//! The receipt leaves when what was accepted is on the disk. Then the host says to its journal and to its users who orders
//! what and why, gives running builds their grace, and acts. The proof is the next life's ([`super::lives`]).

use super::super::Inner;
use super::super::looks::Deed;
use super::super::shared::lock;
use super::super::wall_ms;
use crate::consensus::{Duplex, boottime};
use crate::guard::{Heard, Refused};
use crate::net::frame;
use crate::seams::Errand;
use mesh::healing::{Entry, Told};
use mesh::identity::PeerKey;
use mesh::limits::{NONCE_MS_MAX, WARRANT_FRAME_BYTES_MAX};
use mesh::order::BootId;
use mesh::warrant::{Frame, Host, Known, Licence, Order, OrderId, Warrant};
use rand::RngExt;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A hearing that takes longer than its nonce is good for is of no use to anybody.
const HEARING_WITHIN: Duration = Duration::from_millis(NONCE_MS_MAX + 1_000);
/// Hearings at one time: the leader, its successor, a signer, and some who have no business here.
const HEARINGS_MAX: usize = 8;
/// Those of peers that this host does not know to be enrolled: anybody whom a member vouches for may be one.
const STRANGERS_MAX: usize = 2;
/// How long the receipt may take into the ledger before the host acts without it.
const RECEIPT_WITHIN: Duration = Duration::from_secs(2);
/// Refusals of one bringer are written down this often at most.
const REMARK_EVERY: Duration = Duration::from_secs(60);

/// What this host does as a target.
#[derive(Default)]
pub(super) struct Target {
    /// Who is being heard.
    hearings: Vec<PeerKey>,
    /// What is being carried out.
    carries_out: Option<OrderId>,
    /// When a refusal was last written down.
    remarked: Option<Instant>,
}

/// A hearing's place, given back when it ends.
struct Place<'a>(&'a Inner, PeerKey);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut target = lock(&self.0.healing.target);
        if let Some(at) = target.hearings.iter().position(|by| *by == self.1) {
            target.hearings.swap_remove(at);
        }
    }
}

impl Inner {
    /// The target's end of a stream.
    pub(in super::super) async fn serve_warrant(self: Arc<Self>, by: PeerKey, mut stream: impl Duplex) {
        let heard = match self.take_place(by) {
            Ok(_place) => tokio::time::timeout(HEARING_WITHIN, self.hear(&mut stream)).await,
            Err(why) => Ok(Err(why)),
        };
        let refused = match heard {
            Ok(Ok(Some((licence, known)))) => return self.obey(licence, known).await,
            Ok(Ok(None)) => return, // its receipt was sent again
            Ok(Err(why)) => why,
            Err(_) => format!("no warrant came within {} s", HEARING_WITHIN.as_secs()),
        };
        tracing::warn!(bringer = self.name_of(&by), why = refused, "a warrant was not carried out");
        let answer = Frame::Refused(mesh::roster::cut(&refused)).write();
        let _ = tokio::time::timeout(RECEIPT_WITHIN, frame::write_frame(&mut stream, &answer)).await;
        self.remark_refusal(by, &refused);
    }

    fn take_place(&self, by: PeerKey) -> Result<Place<'_>, String> {
        let members = self.shared.with(|l| l.roster().members().map(|(key, _)| *key).collect::<BTreeSet<_>>());
        let mut target = lock(&self.healing.target);
        let strangers = target.hearings.iter().chain([&by]).filter(|peer| !members.contains(peer)).count();
        let full = target.hearings.len() >= HEARINGS_MAX || (!members.contains(&by) && strangers > STRANGERS_MAX);
        if full || target.hearings.contains(&by) {
            return Err("this host is hearing as many warrants as it can: try again in some seconds".into());
        }
        target.hearings.push(by);
        Ok(Place(self, by))
    }

    /// One order at a time; the one that is being carried out may well be brought again.
    fn check_free(&self, warrant: &Warrant) -> Result<(), String> {
        let Some(present) = lock(&self.healing.target).carries_out else { return Ok(()) };
        match warrant.order.open::<Order>() {
            Ok(order) if order.id != present => Err(format!("this host is carrying out {present}")),
            _ => Ok(()),
        }
    }

    /// One hearing. The licence, when something is to be done; the receipt has been sent then.
    async fn hear(self: &Arc<Self>, stream: &mut impl Duplex) -> Result<Option<(Licence, Arc<Known>)>, String> {
        let host = Host {
            boot: BootId(self.facts.boot_id),
            start: self.start,
            protected: self.protected,
            allow_reboot: self.allow_reboot,
            wall_ms: wall_ms(),
        };
        let (keys, known) = (self.keys.clone(), self.shared.with(Known::of));
        let judges_by = Arc::new(known.clone());
        let nonce: [u8; 32] = lock(&self.random).random();
        let open = move |store: &crate::guard::Store| store.open(&keys, known, host, nonce, boottime());
        let (mut hearing, hello) = self.healing.papers(open).await.map_err(|error| error.to_string())?;
        let lost = |error: std::io::Error| format!("the stream broke: {error}");
        frame::write_frame(stream, &hello).await.map_err(lost)?;
        loop {
            let bytes = frame::read_frame(stream, WARRANT_FRAME_BYTES_MAX).await.map_err(lost)?;
            let is_last = match Frame::read(&bytes) {
                Ok(Frame::Warrant(warrant)) => {
                    self.check_free(&warrant)?;
                    true
                }
                _ => false,
            };
            let hear = move |store: &crate::guard::Store| {
                let heard = store.hear(&mut hearing, &bytes, boottime);
                (hearing, heard)
            };
            let heard;
            (hearing, heard) = self.healing.papers(hear).await;
            match heard {
                Ok(Heard::More) => {}
                Ok(Heard::Again(receipt)) => {
                    frame::write_frame(stream, &Frame::Receipt(receipt).write()).await.map_err(lost)?;
                    return Ok(None);
                }
                Ok(Heard::Permit(licence)) => {
                    // It is taken on, whether its receipt arrives or not.
                    let receipt = Frame::Receipt(licence.receipt().clone()).write();
                    let sent = tokio::time::timeout(RECEIPT_WITHIN, frame::write_frame(stream, &receipt)).await;
                    if !matches!(sent, Ok(Ok(()))) {
                        tracing::info!("the receipt of a warrant did not leave; the ledger gets it");
                    }
                    return Ok(Some((licence, judges_by)));
                }
                // A link that does not hold teaches nothing; the warrant may hold without it.
                Err(Refused::Rule(why)) if !is_last && hearing_goes_on(&why) => {
                    tracing::info!(%why, "a link of the roster was not followed");
                }
                Err(why) => return Err(why.to_string()),
            }
        }
    }

    /// Does what this host has taken on.
    async fn obey(self: &Arc<Self>, licence: Licence, known: Arc<Known>) {
        let order = licence.order();
        let line = licence.journal();
        tracing::warn!("{line}");
        {
            let mut target = lock(&self.healing.target);
            if target.carries_out.is_some() {
                drop(target);
                let text = format!("{} is being carried out already", order.act);
                self.remark(self.me, Some(order.id), Told::Failed, text);
                return;
            }
            target.carries_out = Some(order.id);
        }
        // From here on it is done: whoever leads next finds the receipt, and what is left is courtesy.
        self.note(Deed::Acts { order: order.id, target: order.target, act: licence.act(), fence: order.fence, known });
        let receipt = Entry::Receipt(licence.receipt().clone());
        let told = async {
            let written = tokio::time::timeout(RECEIPT_WITHIN, self.write_healing(receipt, None)).await;
            if !matches!(written, Ok(Ok(_))) {
                tracing::info!(order = %order.id, "its receipt is not in the ledger yet");
            }
        };
        futures::future::join(told, self.machine.tell(&line)).await;
        let grace = Duration::from_millis(licence.act().grace_ms());
        let runs_nothing = self.shared.until(|l| {
            let mine = |b: &mesh::ledger::Build| b.running().any(|a| a.host == self.me && a.start == self.start);
            (!l.builds().running().any(mine)).then_some(())
        });
        if tokio::time::timeout(grace, runs_nothing).await.is_err() {
            tracing::warn!("builds are still running: they begin anew elsewhere");
        }
        let (requester, reason) = (order.requester.clone(), order.reason.clone());
        let errand = Errand { act: licence.act(), order: order.id, requester, reason };
        if let Err(error) = self.machine.act(&errand).await {
            tracing::warn!(order = %order.id, %error, "an order could not be carried out");
            self.remark(self.me, Some(order.id), Told::Failed, error.to_string());
        }
        lock(&self.healing.target).carries_out = None;
    }

    /// Whoever leads or may order by hand tells of a refusal itself. Of others the ledger hears now and then.
    fn remark_refusal(self: &Arc<Self>, by: PeerKey, why: &str) {
        let theirs = self.shared.with(|l| {
            l.leader().is_some_and(|(leader, _)| leader == by) || l.roster().member(&by).is_some_and(|m| m.signer)
        });
        {
            let mut target = lock(&self.healing.target);
            if theirs || target.remarked.is_some_and(|at| at.elapsed() < REMARK_EVERY) {
                return;
            }
            target.remarked = Some(Instant::now());
        }
        let text = format!("a warrant that {} brought: {why}", self.name_of(&by));
        self.remark(self.me, None, Told::Refused, text);
    }
}

/// Whether more may come after a frame that was refused.
fn hearing_goes_on(why: &mesh::warrant::Refusal) -> bool {
    matches!(why, mesh::warrant::Refusal::Link(_))
}

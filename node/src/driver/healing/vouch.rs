//! What a target that was away may lack of the signers, for whoever brings it an order by hand: their signed records from
//! the ledger ([`mesh::ledger::Links`]), and the voters' word that these were redeemed.
//!
//! A voter vouches by its own ledger and for nothing else. Their words stay good for as long as the same voters vote, and
//! are asked for once. A target that knows all this passes it over; one that is told too little refuses, and has to catch
//! up first. The voters' own chain goes with every warrant ([`super::deliver`]).

use super::super::Inner;
use super::super::shared::lock;
use crate::net::{Protocol, Stream, frame};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use mesh::identity::PeerKey;
use mesh::ledger::Link;
use mesh::limits::WARRANT_FRAME_BYTES_MAX;
use mesh::roster::Cosignature;
use mesh::warrant::{Frame, Introduction};
use mesh::wire::{Signed, decode, encode};
use std::sync::Arc;
use std::time::Duration;

/// How long all voters may take: a person waits, and a target that knows the signer needs none of this.
const VOUCH_WITHIN: Duration = Duration::from_secs(2);

/// Introductions that are complete, and of which epoch's voters.
#[derive(Default)]
pub(super) struct Vouched(u64, Vec<Introduction>);

impl Inner {
    /// The links that show this host to be a signer, oldest first; none when the genesis says so.
    pub(super) async fn links_of_signers(self: &Arc<Self>) -> Vec<Frame> {
        let links = self.shared.with(|l| l.links().for_signer(&self.me));
        let mut frames = vec![];
        for link in links {
            frames.push(match link {
                Link::Expulsion(entry) => Frame::Expulsion(entry),
                Link::Introduction(join) => Frame::Introduction(self.introduction(join).await),
            });
        }
        frames.retain(|frame| frame.write().len() <= WARRANT_FRAME_BYTES_MAX);
        frames
    }

    /// A join request with as many voters' words as there are, a majority if possible.
    async fn introduction(self: &Arc<Self>, join: Signed) -> Introduction {
        let chain = self.shared.with(|l| l.voters().clone());
        {
            let mut vouched = lock(&self.healing.vouched);
            if vouched.0 != chain.epoch() {
                *vouched = Vouched(chain.epoch(), vec![]);
            }
            if let Some(known) = vouched.1.iter().find(|known| known.join == join) {
                return known.clone();
            }
        }
        let ask = |voter: PeerKey| {
            let (this, join) = (self.clone(), join.clone());
            async move { if voter == this.me { this.vouch_for(&join) } else { this.ask_to_vouch(voter, &join).await } }
        };
        let mut answers: FuturesUnordered<_> = chain.voters().iter().map(|voter| ask(*voter)).collect();
        let message = Introduction::message(&self.mesh, &join);
        let mut vouchers: Vec<Cosignature> = vec![];
        let gathered = async {
            while vouchers.len() < chain.majority() {
                match answers.next().await {
                    Some(Ok(voucher)) if voucher.by.verify(&message, &voucher.sig).is_ok() => {
                        if chain.voters().contains(&voucher.by) && !vouchers.iter().any(|v| v.by == voucher.by) {
                            vouchers.push(voucher);
                        }
                    }
                    Some(Ok(_)) => tracing::info!("a voter vouched for something else than it was asked to"),
                    Some(Err(why)) => tracing::info!(why, "a voter does not vouch for a signer"),
                    None => return,
                }
            }
        };
        let _ = tokio::time::timeout(VOUCH_WITHIN, gathered).await; // what is there is shown
        let introduction = Introduction { join, vouchers };
        if introduction.vouchers.len() >= chain.majority() {
            let mut vouched = lock(&self.healing.vouched);
            if vouched.0 == chain.epoch() {
                vouched.1.push(introduction.clone()); // at most as many as the ledger keeps
            }
        }
        introduction
    }

    async fn ask_to_vouch(&self, voter: PeerKey, join: &Signed) -> Result<Cosignature, String> {
        let mut stream = self.net.open(voter, Protocol::Vouch).await.map_err(|e| e.to_string())?;
        frame::write_frame(&mut stream, &encode(join)).await.map_err(|e| e.to_string())?;
        let answer = frame::read_frame(&mut stream, WARRANT_FRAME_BYTES_MAX).await.map_err(|e| e.to_string())?;
        decode::<Result<Cosignature, String>>(&answer, WARRANT_FRAME_BYTES_MAX).map_err(|e| e.to_string())?
    }

    fn vouch_for(&self, join: &Signed) -> Result<Cosignature, String> {
        let vouched = self.shared.with(|l| Introduction::vouch(&self.keys, l, join));
        vouched.ok_or_else(|| "no such join request was redeemed here".to_owned())
    }

    /// A voter's end of a stream on which it is asked.
    pub(in super::super) async fn serve_vouch(self: Arc<Self>, mut stream: Stream) {
        while let Ok(bytes) = frame::read_frame(&mut stream, WARRANT_FRAME_BYTES_MAX).await {
            let answer = match decode::<Signed>(&bytes, WARRANT_FRAME_BYTES_MAX) {
                Ok(join) => self.vouch_for(&join),
                Err(error) => Err(error.to_string()),
            };
            if frame::write_frame(&mut stream, &encode(&answer)).await.is_err() {
                return;
            }
        }
    }
}

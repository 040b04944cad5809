//! An order's way to its target: hello, signatures, links, warrant, receipt.
//!
//! The same for the leader and for a person, over a stream to the daemon or, when that does not answer, over another way
//! to the guard ([`super::fallback`]). Who brings a warrant decides nothing: voters and target refuse in words, and the words are kept.
//! A nonce is good for ten seconds, so everything from hello to warrant happens within that or not at all.

use super::super::Inner;
use super::super::courier::direct_ip;
use super::super::shared::lock;
use crate::consensus::Duplex;
use crate::net::{Protocol, frame};
use mesh::identity::PeerKey;
use mesh::limits::{NONCE_MS_MAX, WARRANT_FRAME_BYTES_MAX, WARRANT_LINKS_MAX};
use mesh::mutants::{self, Mutant};
use mesh::roster::Cosignature;
use mesh::warrant::{Approved, Frame, Hello, OrderHash, Receipt, Warrant};
use mesh::wire::Signed;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::compat::TokioAsyncReadCompatExt;

/// How long a daemon may take for its hello before another way is tried: one that is stopped holds its streams open.
const HELLO_WITHIN: Duration = Duration::from_secs(3);
/// The same over another way: several addresses, or a courier, and a login. The nonce is younger than all that.
const GUARD_WITHIN: Duration = Duration::from_secs(20);
/// How long the answer to a warrant may take: it is checked, and synced.
const ANSWER_WITHIN: Duration = Duration::from_millis(NONCE_MS_MAX);
/// With less left of a nonce another is asked for.
const FRESH: Duration = Duration::from_millis(NONCE_MS_MAX / 2);
/// A stream within this host, when it orders itself about.
const OWN_STREAM_BYTES: usize = 64 << 10;

/// A target that has said hello.
pub(super) struct Call {
    stream: Box<dyn Duplex>,
    /// As it was signed.
    pub hello: Signed,
    /// What it says.
    pub greeting: Hello,
    at: Instant,
}

/// Why an order was not taken on.
#[derive(Debug)]
pub(super) enum Failed {
    /// It did not get there, or no answer came back; the target may have taken it on all the same.
    Undelivered(String),
    /// The target refused it.
    Refused(String),
}

impl Call {
    /// Whether there is time enough to collect signatures for it.
    pub fn is_fresh(&self) -> bool {
        self.at.elapsed() < FRESH
    }
}

impl Inner {
    /// Asks a target for its hello, on whatever way there is.
    ///
    /// # Errors
    /// In words, for each way that failed.
    pub(super) async fn call(self: &Arc<Self>, target: PeerKey) -> Result<Call, String> {
        let direct = tokio::time::timeout(HELLO_WITHIN, async { greet(self.open_daemon(target).await?, target).await });
        let late = |within: Duration| format!("no hello came within {} s", within.as_secs());
        let first = match direct.await.unwrap_or_else(|_| Err(late(HELLO_WITHIN))) {
            Ok(call) => return Ok(call),
            Err(why) => why,
        };
        let guard = tokio::time::timeout(GUARD_WITHIN, async { greet(self.open_guard(target).await?, target).await });
        let second = match guard.await.unwrap_or_else(|_| Err(late(GUARD_WITHIN))) {
            Ok(call) => return Ok(call),
            Err(why) => why,
        };
        Err(format!("its daemon: {first}; its guard: {second}"))
    }

    /// A stream to a target's daemon, for one hearing. Its hello comes first.
    ///
    /// # Errors
    /// In words, when none can be opened.
    pub async fn open_daemon(self: &Arc<Self>, target: PeerKey) -> Result<Box<dyn Duplex>, String> {
        if target == self.me {
            let (near, far) = tokio::io::duplex(OWN_STREAM_BYTES);
            self.task(self.clone().serve_warrant(self.me, far.compat()));
            return Ok(Box::new(near.compat()));
        }
        let target = self.told_for(target);
        let stream = self.net.open(target, Protocol::Warrant).await.map_err(|error| error.to_string())?;
        Ok(Box::new(stream))
    }

    /// Who is told what is for a target: the target. Who goes by addresses tells whoever else is at one where the target's
    /// traffic comes from.
    fn told_for(&self, target: PeerKey) -> PeerKey {
        if !mutants::on(Mutant::IdentityByAddress) {
            return target;
        }
        let addresses = lock(&self.addresses);
        let ips = |peer: &PeerKey| -> BTreeSet<IpAddr> {
            addresses.rows(peer, self.now()).iter().filter_map(|row| direct_ip(&row.addr)).collect()
        };
        let at = ips(&target);
        self.others().into_iter().find(|other| *other != target && !ips(other).is_disjoint(&at)).unwrap_or(target)
    }

    /// Brings an order with its signatures, and `more` links after those of the voters: its receipt, checked.
    pub(super) async fn bring(
        &self,
        mut call: Call,
        order: &Signed,
        more: &[Frame],
        signed: impl IntoIterator<Item = Approved>,
    ) -> Result<Signed, Failed> {
        let target = call.hello.by;
        let mut signed = signed.into_iter().peekable();
        let approval = signed.peek().map(|approved| approved.approval.clone()).unwrap_or_default();
        let cosignatures: Vec<Cosignature> = signed.map(|approved| approved.cosignature).collect();
        let epoch = call.greeting.epoch;
        let links = self.shared.with(|l| {
            let room = WARRANT_LINKS_MAX.saturating_sub(more.len());
            let behind = l.voters().after(epoch).iter().take(room);
            behind.cloned().map(Frame::Voters).collect::<Vec<_>>()
        });
        let warrant = Frame::Warrant(Warrant { order: order.clone(), approval, cosignatures });
        let exchange = async {
            for frame in links.iter().chain(more).chain([&warrant]) {
                frame::write_frame(&mut call.stream, &frame.write()).await.map_err(|e| e.to_string())?;
            }
            read_frame(&mut call.stream).await
        };
        let late = |_| "no answer came to the warrant".to_owned();
        match tokio::time::timeout(ANSWER_WITHIN, exchange).await.map_err(late) {
            Ok(Ok(Frame::Receipt(receipt))) => match is_receipt(&receipt, &target, order) {
                true => Ok(receipt),
                false => Err(Failed::Refused("it answered with a receipt that is not for this order".into())),
            },
            Ok(Ok(Frame::Refused(why))) => Err(Failed::Refused(why)),
            Ok(Ok(_)) => Err(Failed::Refused("it answered with neither receipt nor refusal".into())),
            Ok(Err(why)) | Err(why) => Err(Failed::Undelivered(why)),
        }
    }
}

fn is_receipt(receipt: &Signed, target: &PeerKey, order: &Signed) -> bool {
    receipt.by == *target && receipt.open::<Receipt>().is_ok_and(|r| r.order == OrderHash::of(order))
}

async fn read_frame(stream: &mut Box<dyn Duplex>) -> Result<Frame, String> {
    let bytes = frame::read_frame(stream, WARRANT_FRAME_BYTES_MAX).await.map_err(|error| error.to_string())?;
    Frame::read(&bytes).map_err(|error| error.to_string())
}

/// Reads the hello, which has to be the target's own.
async fn greet(mut stream: Box<dyn Duplex>, target: PeerKey) -> Result<Call, String> {
    let at = Instant::now(); // the nonce is made after this
    match read_frame(&mut stream).await? {
        Frame::Hello(hello) if hello.by == target || mutants::on(Mutant::IdentityByAddress) => {
            let greeting: Hello = hello.open().map_err(|error| error.to_string())?;
            Ok(Call { stream, hello, greeting, at })
        }
        Frame::Hello(hello) => Err(format!("{} said hello, who was not asked", hello.by)),
        Frame::Refused(why) => Err(why),
        _ => Err("something else than a hello came".into()),
    }
}

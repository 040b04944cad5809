//! Whoever brings a host an order with a program of its own: right, or bent, or one of before that comes again.
//!
//! It sits on an enrolled host, opens the stream that any host may open to another's daemon, and holds keys: a signer's, or at
//! worst those of all voters. Each lie bends one thing of a warrant that is right otherwise, so that the target's own check
//! of it has to stop it; one that would bend nothing of this target is not told. What is right stands in the ledger
//! first, and is kept, to be brought again later, to its target or to another. Nothing here judges: the jury sees deeds.

use crate::orders::Counts;
use mesh::healing;
use mesh::identity::{Keys, PeerKey};
use mesh::lease::Fence;
use mesh::ledger::{Command, Entry, RequestId};
use mesh::limits::{NONCE_MS_MAX, WARRANT_FRAME_BYTES_MAX};
use mesh::order::{Act, BootId, Gently};
use mesh::roster::Cosignature;
use mesh::warrant::{Approval, Authority, Frame, Hello, Order, OrderHash, OrderId, Warrant};
use mesh::wire::{Label, Signed, encode, signed_bytes};
use node::consensus::Duplex;
use node::driver::Inner;
use node::net::frame::{read_frame, write_frame};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How long a bearer waits for the ledger, a stream or an answer.
const WITHIN: Duration = Duration::from_secs(8);
/// By then a ledger has been looked at.
const LOOKED_AT: Duration = Duration::from_millis(20);
/// Warrants that are kept.
const KEPT_MAX: usize = 64;
/// From one lie to the next that is tried: it has no part in common with their number.
const STRIDE: usize = 7;
/// Of orders, in milliseconds of ledger time.
const LIVES_MS: u64 = 60_000;

/// What is bent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lie {
    AnotherTarget,
    AnotherBoot,
    AnotherStart,
    AnotherNonce,
    AnotherOrder,
    Late,
    Ended,
    Endless,
    SharedId,
    Forged,
    Flipped,
    ByNobody,
    // From here on orders of a leader.
    LowerFence,
    AnotherEpoch,
    NoMajority,
    NotVoter,
    AuthorAbsent,
    Forced,
    Twice,
}

impl Lie {
    const ALL: [Lie; 19] = [
        Lie::AnotherTarget,
        Lie::AnotherBoot,
        Lie::AnotherStart,
        Lie::AnotherNonce,
        Lie::AnotherOrder,
        Lie::Late,
        Lie::Ended,
        Lie::Endless,
        Lie::SharedId,
        Lie::Forged,
        Lie::Flipped,
        Lie::ByNobody,
        Lie::LowerFence,
        Lie::AnotherEpoch,
        Lie::NoMajority,
        Lie::NotVoter,
        Lie::AuthorAbsent,
        Lie::Forced,
        Lie::Twice,
    ];

    const fn name(self) -> &'static str {
        match self {
            Lie::AnotherTarget => "for another",
            Lie::AnotherBoot => "another boot",
            Lie::AnotherStart => "another start",
            Lie::AnotherNonce => "another nonce",
            Lie::AnotherOrder => "signatures of another order",
            Lie::Late => "late",
            Lie::Ended => "ended",
            Lie::Endless => "endless grace",
            Lie::SharedId => "a shared id",
            Lie::Forged => "forged signatures",
            Lie::Flipped => "flipped bits",
            Lie::ByNobody => "by hand of no signer",
            Lie::LowerFence => "a lower fence",
            Lie::AnotherEpoch => "another epoch",
            Lie::NoMajority => "no majority",
            Lie::NotVoter => "by one that does not vote",
            Lie::AuthorAbsent => "the author absent",
            Lie::Forced => "forced by a leader",
            Lie::Twice => "one that signs twice",
        }
    }

    const fn is_leaders(self) -> bool {
        self as u8 >= Lie::LowerFence as u8
    }
}

/// What all bearers of a run have done, and kept.
#[derive(Default)]
pub(super) struct Tally {
    pub counts: Counts,
    /// Warrants: whom they are for, their name, and the frame.
    kept: VecDeque<(PeerKey, OrderId, Vec<u8>)>,
    /// Orders that were taken on, newest last: target and name.
    taken: VecDeque<(PeerKey, OrderId)>,
}

/// As all bearers share it.
pub(super) type Shared = Rc<RefCell<Tally>>;

/// What a bearer is about to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    /// An order of the signer's, as it should be.
    Right,
    /// The same, lost on its way: it may come later.
    Lost,
    /// A lie, whichever fits the target.
    Lie,
    /// A warrant of before.
    Again,
}

/// One way to a target.
pub(super) struct Errand {
    pub what: What,
    pub target: PeerKey,
    /// Of the host that brings it, who is a signer.
    pub pen: Keys,
    /// Of all hosts there are, whoever has gone out among them.
    pub keys: BTreeMap<PeerKey, Keys>,
    /// Random, of this errand alone.
    pub id: [u8; 16],
    pub dice: u64,
    pub tally: Shared,
}

fn cosign(keys: &Keys, approval: &[u8]) -> Cosignature {
    Cosignature { by: keys.key(), sig: keys.sign(&signed_bytes(Approval::LABEL, approval)) }
}

type Stream = Box<dyn Duplex>;

/// A hearing of a target, with its hello.
async fn greet(node: &Arc<Inner>, target: PeerKey) -> Option<(Stream, Hello)> {
    let opened = tokio::time::timeout(WITHIN, async {
        let mut stream = node.open_daemon(target).await.ok()?;
        let frame = Frame::read(&read_frame(&mut stream, WARRANT_FRAME_BYTES_MAX).await.ok()?).ok()?;
        let Frame::Hello(signed) = frame else { return None };
        Some((stream, signed.open::<Hello>().ok()?))
    });
    opened.await.ok()?
}

impl Errand {
    fn count(&self, add: impl FnOnce(&mut Counts)) {
        add(&mut self.tally.borrow_mut().counts);
    }

    /// Goes, from the host of this node.
    pub(super) async fn run(self, node: Arc<Inner>) {
        let Some((stream, hello)) = greet(&node, self.target).await else { return };
        let (word, frame) = match self.what {
            What::Again => ("again", self.old()),
            What::Right | What::Lost => ("right", self.right(&node, &hello).await),
            What::Lie => {
                // The next one that would bend something of this target: each is as likely to be the first.
                let first = self.dice as usize % Lie::ALL.len();
                let turn = Lie::ALL.iter().cycle().skip(first).step_by(STRIDE).take(Lie::ALL.len());
                let told = turn.into_iter().find_map(|lie| Some((*lie, self.bent(&node, &hello, *lie)?)));
                let Some((lie, frame)) = told else { return };
                if lie == Lie::Late {
                    tokio::time::sleep(Duration::from_millis(NONCE_MS_MAX + 1 + self.dice % 5_000)).await;
                }
                (lie.name(), Some(frame))
            }
        };
        if let Some(frame) = frame.filter(|_| self.what != What::Lost) {
            self.bring(stream, word, &frame).await;
        }
    }

    async fn bring(&self, mut stream: Stream, word: &'static str, frame: &[u8]) {
        let answered = tokio::time::timeout(WITHIN, async {
            write_frame(&mut stream, frame).await.ok()?;
            Frame::read(&read_frame(&mut stream, WARRANT_FRAME_BYTES_MAX).await.ok()?).ok()
        });
        let answer = answered.await.ok().flatten();
        match answer {
            Some(Frame::Receipt(_)) if self.what == What::Right => {
                let mut tally = self.tally.borrow_mut();
                tally.taken.push_back((self.target, OrderId(self.id)));
                if tally.taken.len() > KEPT_MAX {
                    tally.taken.pop_front();
                }
            }
            Some(Frame::Receipt(_)) => self.count(|counts| counts.again += 1),
            Some(_) => self.count(|counts| *counts.refused.entry(word.to_owned()).or_default() += 1),
            None => self.count(|counts| *counts.refused.entry("in silence".to_owned()).or_default() += 1),
        }
    }

    /// A warrant of before, whoever it is for.
    fn old(&self) -> Option<Vec<u8>> {
        let tally = self.tally.borrow();
        let own: Vec<&Vec<u8>> = tally.kept.iter().filter(|(to, ..)| *to == self.target).map(|kept| &kept.2).collect();
        // Mostly to whom it is for; now and then to whoever was reached.
        let all: Vec<&Vec<u8>> = match self.dice.is_multiple_of(4) || own.is_empty() {
            true => tally.kept.iter().map(|kept| &kept.2).collect(),
            false => own,
        };
        let frame = all.get((self.dice / 4) as usize % all.len().max(1)).map(|frame| (*frame).clone());
        drop(tally);
        if frame.is_some() {
            self.count(|counts| counts.replayed += 1);
        }
        frame
    }

    fn order(&self, node: &Inner, hello: &Hello) -> Order {
        let gently = Gently { grace_ms: self.dice % 300 };
        let now_ms = node.ledger(|l| l.time_ms());
        Order {
            mesh: hello.mesh,
            id: OrderId(self.id),
            target: self.target,
            boot: hello.boot,
            start: hello.start,
            act: if self.dice.is_multiple_of(2) { Act::Reboot(gently) } else { Act::Restart(gently) },
            authority: Authority::Person,
            requester: "owner".into(),
            fence: hello.highest,
            expires_ms: now_ms + LIVES_MS,
            force: true,
            reason: "as asked".into(),
        }
    }

    fn approval(order: &Order, signed: &Signed, hello: &Hello, epoch: u64) -> Approval {
        let Hello { nonce, boot, start, .. } = *hello;
        Approval { mesh: order.mesh, order: OrderHash::of(signed), target: order.target, nonce, boot, start, epoch }
    }

    /// A signer's order, which stands in the ledger before it is brought.
    async fn right(&self, node: &Arc<Inner>, hello: &Hello) -> Option<Vec<u8>> {
        let order = self.order(node, hello);
        let signed = Signed::seal(&self.pen, &order);
        let command = Command::Heal(healing::Entry::Order(signed.clone()));
        let entry = Entry::seal(&self.pen, order.mesh, RequestId(self.id), None, command);
        match node.submit(entry, WITHIN).await {
            Ok((reply, _)) if reply.is_ok() => self.count(|counts| counts.by_hand += 1),
            _ => {
                self.count(|counts| counts.unwritten += 1);
                return None;
            }
        }
        // A host whose ledger puts it out in this very moment ends before anybody looks: then nobody has seen the order, and
        // nobody shall bring it.
        tokio::time::sleep(LOOKED_AT).await;
        let approval = encode(&Errand::approval(&order, &signed, hello, hello.epoch));
        let cosignatures = vec![cosign(&self.pen, &approval)];
        let frame = Frame::Warrant(Warrant { order: signed, approval, cosignatures }).write();
        let mut tally = self.tally.borrow_mut();
        tally.kept.push_back((self.target, order.id, frame.clone()));
        if tally.kept.len() > KEPT_MAX {
            tally.kept.pop_front();
        }
        drop(tally);
        Some(frame)
    }

    /// A lie. Nobody has written it: what is carried out of it shows.
    fn bent(&self, node: &Arc<Inner>, hello: &Hello, lie: Lie) -> Option<Vec<u8>> {
        let (leader, chain) = node.ledger(|l| (l.leader(), l.voters().clone()));
        let stranger = Keys::from_seed(*blake3::hash(&self.id).as_bytes());
        let mut order = self.order(node, hello);
        let voters: Vec<&Keys> = chain.voters().iter().filter_map(|key| self.keys.get(key)).collect();
        let mut pen = &self.pen;
        let mut by: Vec<&Keys> = vec![pen];
        let mut epoch = hello.epoch;
        if lie.is_leaders() {
            let (leads, fence) = leader?;
            // With fewer voters a leader's word is not enough, whoever signs it.
            if voters.len() < 3 || leads == self.target || fence < hello.highest || chain.epoch() != hello.epoch {
                return None;
            }
            (order.authority, order.force, order.fence) = (Authority::Leader, false, fence);
            (pen, by, epoch) = (self.keys.get(&leads)?, voters.clone(), chain.epoch());
        }
        match lie {
            Lie::AnotherTarget => order.target = *self.keys.keys().find(|key| **key != self.target)?,
            Lie::AnotherBoot => order.boot = BootId([9; 16]),
            Lie::AnotherStart => (order.start, order.act) = (order.start + 1, Act::Restart(Gently { grace_ms: 5 })),
            Lie::Ended => order.expires_ms = node.ledger(|l| l.time_ms()).saturating_sub(LIVES_MS),
            Lie::Endless => order.act = Act::Restart(Gently { grace_ms: mesh::limits::GRACE_MS_MAX + 1 }),
            Lie::SharedId => {
                let tally = self.tally.borrow();
                order.id = tally.taken.iter().rfind(|(target, _)| *target == self.target)?.1;
            }
            Lie::LowerFence => {
                let term = hello.highest.term.checked_sub(1).filter(|term| *term > 0)?;
                order.fence = Fence { term, ..hello.highest };
            }
            Lie::Forced => order.force = true,
            Lie::NotVoter => {
                pen = self.keys.values().find(|keys| !chain.voters().contains(&keys.key()))?;
                by.push(pen);
            }
            Lie::ByNobody => {
                // One that was never enrolled: of who was put out a target that is behind may not have heard.
                pen = &stranger;
                by = vec![pen];
            }
            _ => {}
        }
        let signed = Signed::seal(pen, &order);
        let mut over = Errand::approval(&order, &signed, hello, epoch);
        match lie {
            Lie::AnotherNonce => over.nonce[3] ^= 1,
            Lie::AnotherOrder => over.order.0[3] ^= 1,
            Lie::AnotherEpoch => over.epoch += 1,
            Lie::AnotherBoot => over.boot = order.boot,
            Lie::AnotherStart => over.start = order.start,
            Lie::NoMajority => by = vec![pen],
            Lie::AuthorAbsent => by.retain(|keys| keys.key() != pen.key()),
            _ => {}
        }
        let approval = encode(&over);
        let mut cosignatures: Vec<Cosignature> = by.iter().map(|keys| cosign(keys, &approval)).collect();
        match lie {
            Lie::Forged => cosignatures[0].sig = [1; 64],
            Lie::Twice => cosignatures = vec![cosign(pen, &approval); voters.len()],
            _ => {}
        }
        let mut frame = Frame::Warrant(Warrant { order: signed, approval, cosignatures }).write();
        if lie == Lie::Flipped {
            let at = self.dice as usize % frame.len();
            frame[at] ^= 1 << (self.dice / 7 % 8);
        }
        self.count(|counts| {
            counts.forged += 1;
            *counts.lies.entry(lie.name()).or_default() += 1;
        });
        Some(frame)
    }
}

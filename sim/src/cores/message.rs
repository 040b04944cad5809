//! What hosts of this tier say to each other, and what happens to them.

use super::kit::us;
use super::raft::Talk;
use mesh::build::{BlobId, Receipt};
use mesh::identity::PeerKey;
use mesh::ledger::Reply;
use mesh::membership::Checked;
use mesh::roster::{Cosignature, VoterChange};
use mesh::warrant::Approved;
use mesh::wire::Signed;
use node::driver::Joined;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// A statement on its way by gossip: verified once for all hosts, which the ledger's entries are not.
#[derive(Debug)]
pub struct Said {
    /// The first bytes of its hash, by which it is known again.
    pub id: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The same, verified; `None` when its signature is bad.
    pub checked: Option<Arc<Checked>>,
}

/// A message on a connection.
#[derive(Clone, Debug)]
pub enum Message {
    /// See [`mesh::membership::Output::Probe`].
    Probe(Vec<u8>),
    /// See [`mesh::membership::Output::Reply`].
    Reply(Vec<u8>),
    /// See [`mesh::membership::Output::Digest`].
    Digest(Vec<u8>),
    /// See [`mesh::membership::Output::Publish`].
    Gossip(Rc<Said>),
    /// Consensus.
    Raft(Talk),
    /// "You are no voter that I know of": the epoch of those that this host can prove.
    Stranger(u64),
    /// Links of the voters' chain that the other end lacks.
    Voters(Vec<VoterChange>),
    /// Entries for a leader.
    Submit(u64, Vec<Signed>),
    /// Whether it took them, up to which index the asker should read, and the replies.
    Submitted(u64, Option<(u64, Vec<Reply>)>),
    /// A voter set to sign.
    Cosign(u64, Vec<u8>),
    /// The signature, or why not.
    Cosigned(u64, Result<Cosignature, String>),
    /// Asks for blobs.
    Want(u64, Vec<BlobId>),
    /// Whether they come with this.
    Have(u64, bool),
    /// Asks to hold an attempt's blobs.
    Hold(u64, Receipt),
    /// The signed receipt, or why not.
    Held(u64, Result<Signed, String>),
    /// Frames of [`mesh::warrant`] for a target; none asks for a hearing.
    Bring(u64, Vec<Vec<u8>>),
    /// A frame of the target.
    Answer(u64, Vec<u8>),
    /// An order and its target's hello, for a voter to sign.
    Sign(u64, Box<(Signed, Signed)>),
    /// The signature, or why not.
    Signs(u64, Result<Approved, String>),
}

impl Message {
    /// Its protocol, as the node names it.
    pub fn protocol(&self) -> &'static str {
        match self {
            Message::Probe(_) | Message::Reply(_) => "probe",
            Message::Digest(_) => "digest",
            Message::Gossip(_) => "gossip",
            Message::Raft(_) | Message::Stranger(_) | Message::Voters(_) => "raft",
            Message::Submit(..) | Message::Submitted(..) => "submit",
            Message::Cosign(..) | Message::Cosigned(..) => "cosign",
            Message::Bring(..) | Message::Answer(..) | Message::Sign(..) | Message::Signs(..) => "warrant",
            Message::Want(..) | Message::Have(..) | Message::Hold(..) | Message::Held(..) => "blobs",
        }
    }

    /// Whether it may go to and come from a host that is not known to be a member: it brings the log.
    pub fn brings_the_log(&self) -> bool {
        matches!(self, Message::Raft(_) | Message::Stranger(_) | Message::Voters(_))
    }

    /// What makes two runs comparable: everything that could differ, condensed.
    pub fn digest(&self) -> (u64, usize) {
        match self {
            Message::Probe(bytes) | Message::Reply(bytes) | Message::Digest(bytes) => (hash(bytes), bytes.len()),
            Message::Gossip(said) => (said.id, said.bytes.len()),
            Message::Raft(talk) => match talk {
                Talk::Append { term, before, commit, sent, .. } => {
                    (fold(&[1, *term, before.0, before.1, *commit, sent.as_micros()]), talk.size())
                }
                Talk::Ask { term, pre, last } => (fold(&[2, *term, u64::from(*pre), last.0, last.1]), talk.size()),
                Talk::Vote { term, pre, granted } => {
                    (fold(&[3, *term, u64::from(*pre), u64::from(*granted)]), talk.size())
                }
                Talk::Appended { term, index, sent } => {
                    let (ok, at) = index.map_or_else(|at| (0, at), |at| (1, at));
                    (fold(&[4, *term, ok, at, sent.as_micros()]), talk.size())
                }
            },
            Message::Stranger(epoch) => (fold(&[16, *epoch]), 60),
            Message::Voters(links) => {
                let each = links.iter().map(|link| hash(&link.body)).chain([17]).collect::<Vec<_>>();
                (fold(&each), links.iter().map(|link| link.body.len() + 110 * link.signatures.len()).sum())
            }
            Message::Submit(n, entries) => {
                let sigs: Vec<u64> = entries.iter().map(|e| hash(&e.sig)).chain([*n]).collect();
                (fold(&sigs), entries.iter().map(|e| e.body.len() + 110).sum())
            }
            Message::Submitted(n, answer) => {
                let (index, count) = answer.as_ref().map_or((0, 0), |(i, replies)| (*i, replies.len()));
                (fold(&[5, *n, index, count as u64]), 16 + 16 * count)
            }
            Message::Cosign(n, body) => (fold(&[6, *n, hash(body)]), body.len()),
            Message::Cosigned(n, answer) => (fold(&[7, *n, u64::from(answer.is_ok())]), 110),
            Message::Want(n, ids) => (fold(&[8, *n, ids.len() as u64]), 34 * ids.len()),
            Message::Have(n, has) => (fold(&[9, *n, u64::from(*has)]), 4_096),
            Message::Hold(n, receipt) => (fold(&[10, *n, receipt.build.0, u64::from(receipt.attempt.0)]), 150),
            Message::Held(n, answer) => (fold(&[11, *n, u64::from(answer.is_ok())]), 250),
            Message::Bring(n, frames) => {
                let each = frames.iter().map(|frame| hash(frame)).chain([12, *n]).collect::<Vec<_>>();
                (fold(&each), frames.iter().map(Vec::len).sum())
            }
            Message::Answer(n, frame) => (fold(&[13, *n, hash(frame)]), frame.len()),
            Message::Sign(n, pair) => {
                (fold(&[14, *n, hash(&pair.0.sig), hash(&pair.1.sig)]), pair.0.body.len() + pair.1.body.len() + 220)
            }
            Message::Signs(n, answer) => {
                let over = answer.as_ref().map_or(0, |approved| hash(&approved.approval));
                (fold(&[15, *n, over]), 300)
            }
        }
    }
}

/// The first eight bytes of a BLAKE3.
pub fn hash(bytes: &[u8]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(bytes).as_bytes()[..8]);
    u64::from_le_bytes(first)
}

fn fold(parts: &[u64]) -> u64 {
    parts.iter().fold(0xcbf2_9ce4_8422_2325, |h, part| (h ^ part).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23))
}

/// Why a dial came to nothing.
#[derive(Clone, Debug)]
pub enum NoWay {
    /// Nobody listens there.
    Refused,
    /// Nobody answers.
    Timeout,
    /// Another key answers.
    Peer(PeerKey),
    /// The peer answers, and does not let us in; `true` when it says that we were taken out.
    NotAdmitted(bool),
}

/// An event of the simulation. Hosts are numbers, a process is known by its generation.
#[derive(Debug)]
pub enum Event {
    /// A timer of a process.
    Wake(usize, u64),
    /// A message reaches one end of a connection.
    Arrive(u64, bool, Message),
    /// One end learns that its connection is gone.
    Gone(u64, bool),
    /// A dial has an end.
    Dialled(Box<Dial>),
    /// A joiner's request reaches a member, or is answered.
    Knock(Box<Knock>),
    /// Frames about an order reach the machine at the address that they were sent to, or are answered.
    Parcel(Box<Parcel>),
    /// A machine does what it was ordered: host, generation, whether all of it restarts.
    Act(usize, u64, bool),
    /// It is up again.
    Boot(usize, u64),
    /// The disk of a host has done so many writes.
    Synced(usize, u64, u64),
}

/// A dial under way.
#[derive(Clone, Debug)]
pub struct Dial {
    /// The dialler.
    pub from: (usize, u64),
    /// Whom it wants.
    pub peer: PeerKey,
    /// Where.
    pub address: String,
    /// Known from the first when there is no way at all.
    pub fails: Option<NoWay>,
    /// Who sits at the address, over which network, through which router, seen as what.
    pub way: Option<super::net::Way>,
}

/// Frames about an order between a host and a machine at some address, which is not asked who it is.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Who brings them.
    pub from: (usize, u64),
    /// Whoever sits there.
    pub to: usize,
    /// On which way.
    pub way: super::net::Way,
    /// The hearing.
    pub number: u64,
    /// Frames of [`mesh::warrant`].
    pub frames: Vec<Vec<u8>>,
    /// Whether it is the answer.
    pub back: bool,
}

/// A request to join, on its way there or back.
#[derive(Clone, Debug)]
pub struct Knock {
    /// The joiner.
    pub from: (usize, u64),
    /// The member.
    pub to: usize,
    /// The joiner's signed request.
    pub request: Signed,
    /// The answer, when it is on its way back.
    pub answer: Option<Result<Joined, String>>,
}

/// A kernel sends a packet again after this, then after twice as long (RFC 6298, as Linux has it).
pub const RTO: u64 = us_const(200);

const fn us_const(ms: u64) -> u64 {
    ms * 1_000
}

/// Microseconds of some milliseconds.
pub fn ms(ms: u64) -> u64 {
    us(Duration::from_millis(ms))
}

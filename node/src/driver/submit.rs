//! How entries reach the ledger: gathered into batches, proposed here when this host leads, else sent
//! to the leader over a stream.
//!
//! Every entry is signed and repeatable (its request id, or the attempt it is about, makes a second
//! copy harmless), so whatever ends without an answer is simply sent again until its deadline.

use super::Inner;
use super::shared::lock;
use crate::consensus::ProposeError;
use crate::net::{Protocol, Stream, frame};
use mesh::clock::LedgerClock;
use mesh::identity::PeerKey;
use mesh::ledger::{Batch, Code, Command, LEVEL, Reply, level_of};
use mesh::limits::{BATCH_BYTES_MAX, ENTRY_BYTES_MAX};
use mesh::wire::{Signed, decode, encode};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

/// Entries in one batch: about what one commit can carry without delaying the next.
const BATCH_ENTRIES_MAX: usize = 256;
/// With so many bytes a batch is full; the entry that filled it is in it.
const FULL_BYTES: usize = 2 << 20;
/// Author, signature and lengths of an entry in a batch, beside its body.
const ENTRY_FRAMING_BYTES: usize = 160;
/// Batches on their way at once.
const IN_FLIGHT_MAX: usize = 4;
/// Entries that wait for their batch.
pub const WAITING_MAX: usize = 4_096;
/// One batch on a stream, encoded.
const FRAME_BYTES_MAX: usize = 8 << 20;
/// How long one try may take before it is sent again: two elections.
const TRY: Duration = Duration::from_secs(10);
/// Between two tries when there is no leader.
const PAUSE: Duration = Duration::from_millis(50);

// Whatever is gathered can be proposed, and sent to whoever proposes it.
const _: () = {
    let most = FULL_BYTES + ENTRY_BYTES_MAX + (BATCH_ENTRIES_MAX + 1) * ENTRY_FRAMING_BYTES;
    assert!(most <= BATCH_BYTES_MAX);
    assert!(BATCH_BYTES_MAX <= FRAME_BYTES_MAX);
};

/// What became of an entry: the ledger's reply and where in the log it stands.
pub type Committed = (Reply, u64);

/// An entry on its way.
pub struct Pending {
    /// The entry.
    pub entry: Signed,
    /// When to give up.
    pub deadline: Instant,
    /// Where the reply goes.
    pub done: oneshot::Sender<Result<Committed, SubmitError>>,
}

/// Why an entry has no reply. It may or may not be in the ledger; sending it again is harmless.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Nobody leads, or the leader cannot be reached.
    #[error("no leader could be reached: {0}")]
    NoLeader(String),
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

/// The answer to a batch on a stream.
#[derive(Serialize_tuple, Deserialize_tuple)]
struct Answer {
    /// False: not the leader; nothing was done.
    taken: bool,
    index: u64,
    replies: Vec<Reply>,
}

impl Inner {
    /// Brings an entry into the ledger and waits until this host has applied it.
    ///
    /// # Errors
    /// [`SubmitError`] after `within`.
    pub async fn submit(&self, entry: Signed, within: Duration) -> Result<Committed, SubmitError> {
        self.note_entry(&entry);
        let (done, reply) = oneshot::channel();
        let deadline = Instant::now() + within;
        self.entries.send(Pending { entry, deadline, done }).await.map_err(|_| SubmitError::Stopping)?;
        let (reply, index) = reply.await.map_err(|_| SubmitError::Stopping)??;
        // The leader has applied it; wait until we have, so that our caller reads its own writes.
        let here = self.shared.until(|ledger| (ledger.index() >= index).then_some(()));
        let _ = tokio::time::timeout_at(deadline, here).await;
        Ok((reply, index))
    }

    /// The batcher: one task that gathers what waits and sends it off.
    pub(super) async fn run_batcher(self: Arc<Self>, mut entries: mpsc::Receiver<Pending>) {
        let in_flight = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        while let Some(first) = entries.recv().await {
            let Ok(permit) = in_flight.clone().acquire_owned().await else { return };
            let mut bytes = first.entry.body.len();
            let mut batch = vec![first];
            while batch.len() < BATCH_ENTRIES_MAX && bytes < FULL_BYTES {
                let Ok(next) = entries.try_recv() else { break };
                bytes += next.entry.body.len();
                batch.push(next);
            }
            let this = self.clone();
            (self.spawn)(Box::pin(async move {
                this.deliver(batch).await;
                drop(permit);
            }));
        }
    }

    /// Sends one batch until every entry has its reply or is past its deadline.
    async fn deliver(&self, mut batch: Vec<Pending>) {
        let mut why = String::from("nobody leads");
        loop {
            let now = Instant::now();
            let (late, still): (Vec<_>, Vec<_>) = batch.into_iter().partition(|p| p.deadline <= now);
            for pending in late {
                let _ = pending.done.send(Err(SubmitError::NoLeader(why.clone())));
            }
            batch = still.into_iter().filter(|p| !p.done.is_closed()).collect();
            if batch.is_empty() {
                return;
            }
            let entries: Vec<Signed> = batch.iter().map(|p| p.entry.clone()).collect();
            match self.try_once(entries).await {
                Ok((index, replies)) if replies.len() == batch.len() => {
                    for (pending, reply) in batch.into_iter().zip(replies) {
                        let _ = pending.done.send(Ok((reply, index)));
                    }
                    return;
                }
                Ok(_) => why = "the leader could not read the entry; its version differs".into(),
                Err(text) => why = text,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn try_once(&self, entries: Vec<Signed>) -> Result<(u64, Vec<Reply>), String> {
        match self.consensus.leader() {
            Some(leader) if leader == self.me => self.propose(entries).await,
            Some(leader) => {
                let answer = tokio::time::timeout(TRY, self.forward(leader, entries)).await;
                answer.map_err(|_| "the leader does not answer".to_owned())?
            }
            None => Err("nobody leads".into()),
        }
    }

    /// Proposes a batch as the leader; an empty one lets ledger time pass.
    pub(super) async fn propose(&self, entries: Vec<Signed>) -> Result<(u64, Vec<Reply>), String> {
        if self.keeps_back(&entries) {
            return Err("the voters are being changed, and one who still votes is to go".into());
        }
        let payload = encode(&Batch { time_ms: self.ledger_time_ms(), entries });
        match self.consensus.propose(payload).await {
            Ok(applied) => {
                let replies = decode::<Vec<Reply>>(&applied.result, usize::MAX).map_err(|e| e.to_string())?;
                Ok((applied.index, replies))
            }
            Err(ProposeError::NotLeader { .. }) => Err("this host does not lead any more".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn forward(&self, leader: PeerKey, entries: Vec<Signed>) -> Result<(u64, Vec<Reply>), String> {
        let mut stream = match self.take_submit_stream(leader) {
            Some(stream) => stream,
            None => self.net.open(leader, Protocol::Submit).await.map_err(|e| e.to_string())?,
        };
        frame::write_frame(&mut stream, &encode(&entries)).await.map_err(|e| e.to_string())?;
        let answer = frame::read_frame(&mut stream, FRAME_BYTES_MAX).await.map_err(|e| e.to_string())?;
        let answer: Answer = decode(&answer, FRAME_BYTES_MAX).map_err(|e| e.to_string())?;
        lock(&self.submit_streams).push((leader, stream));
        match answer.taken {
            true => Ok((answer.index, answer.replies)),
            false => Err("the host asked does not lead".into()),
        }
    }

    /// A stream to this leader that is idle; those to earlier leaders are closed.
    fn take_submit_stream(&self, leader: PeerKey) -> Option<Stream> {
        let mut streams = lock(&self.submit_streams);
        streams.retain(|(to, _)| *to == leader);
        streams.pop().map(|(_, stream)| stream)
    }

    /// The leader's end of a submit stream.
    pub(super) async fn serve_submit(self: Arc<Self>, mut stream: Stream) {
        while let Ok(bytes) = frame::read_frame(&mut stream, FRAME_BYTES_MAX).await {
            let answer = match decode::<Vec<Signed>>(&bytes, FRAME_BYTES_MAX) {
                Ok(entries) if self.consensus.leader() == Some(self.me) => self.take_in(entries).await,
                Ok(_) => None,
                Err(_) => return,
            };
            let answer = match answer {
                Some((index, replies)) => Answer { taken: true, index, replies },
                None => Answer { taken: false, index: 0, replies: vec![] },
            };
            if frame::write_frame(&mut stream, &encode(&answer)).await.is_err() {
                return;
            }
        }
    }

    /// Puts others' entries into our own batches. What only a leader may write is not taken from others.
    async fn take_in(&self, entries: Vec<Signed>) -> Option<(u64, Vec<Reply>)> {
        let mut waiting = vec![];
        for entry in entries {
            if let Err(refused) = self.admissible(&entry) {
                waiting.push(Err(refused));
                continue;
            }
            let (done, reply) = oneshot::channel();
            self.entries.send(Pending { entry, deadline: Instant::now() + TRY, done }).await.ok()?;
            waiting.push(Ok(reply));
        }
        let (mut last, mut replies) = (0, vec![]);
        for reply in waiting {
            match reply {
                Err(refused) => replies.push(refused),
                Ok(reply) => {
                    let (reply, index) = reply.await.ok()?.ok()?;
                    last = last.max(index);
                    replies.push(reply);
                }
            }
        }
        Some((last, replies))
    }

    /// Whether an entry of somebody else decodes, is genuinely its author's, is no leader's, and of a kind that every
    /// voter knows.
    fn admissible(&self, entry: &Signed) -> Result<(), Reply> {
        let strange = "an entry that this leader cannot read or that is not the sender's to write";
        let opened = entry.open::<mesh::ledger::Entry>().ok().filter(|e| e.fence.is_none());
        let entry = opened.ok_or_else(|| Reply::refused(Code::Invalid, strange))?;
        self.all_know(&entry.command).map_err(|text| Reply::refused(Code::Conflict, text))
    }

    /// Whether every voter is known to know this kind of entry, or once did.
    ///
    /// # Errors
    /// In words, with the first voter that is not.
    pub(super) fn all_know(&self, command: &Command) -> Result<(), String> {
        let level = |voter: &PeerKey| match *voter == self.me {
            true => Some(LEVEL),
            false => lock(&self.members).host(voter)?.presence.as_ref().map(|p| level_of(&p.facts.version).1),
        };
        match self.shared.with(|ledger| ledger.unready(command, level)) {
            None => Ok(()),
            Some(voter) => Err(format!(
                "the voter {} is not known to run a version that knows this: update it first, or wait until it is heard",
                self.name_of(&voter)
            )),
        }
    }

    /// Ledger time for a batch proposed now.
    pub(super) fn ledger_time_ms(&self) -> u64 {
        let (now, term) = (self.now(), self.consensus.term());
        let mut clock = lock(&self.clock);
        match *clock {
            Some((of, clock)) if of == term => clock.now_ms(now),
            _ => {
                let (last_ms, voters) = self.shared.with(|l| (l.time_ms(), l.voters().voters().clone()));
                let offsets = self.wall_offsets_ms(&voters);
                let new = LedgerClock::start(last_ms, super::wall_ms(), &offsets, voters.len() / 2 + 1, now);
                *clock = Some((term, new));
                new.now_ms(now)
            }
        }
    }
}

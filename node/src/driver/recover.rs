//! `mesh recover`, and what each host does with word of a recovery.
//!
//! A record is made where the longest log is: this host asks the others how far theirs go, and applies all of its own.
//! Whoever holds the recovery key signs it (in the command line: the key never gets here), and the heir goes on from
//! it. From then on every host that follows a recovery tells it to whomever it meets; who hears of a later one than it
//! follows leaves its log for the heir's, whether it was a voter, a learner, or thought lost. The heir's part is taken
//! by hand alone: a host that is only told, its own backup say, would begin the same log a second time. Of two records
//! of one epoch neither gives way; the ledger notes it, and healing freezes. Who may sign what is [`mesh::roster`]'s
//! rule, what is kept on the disk [`crate::consensus`]'s.

use super::Inner;
use super::shared::lock;
use super::status::state_word;
use crate::api::types::{ApiError, HostState, Level, RecoveryHost, RecoveryPlan, VERSION, Warning};
use crate::consensus::Position;
use crate::net::{Protocol, Stream, frame};
use data_encoding::BASE64URL_NOPAD;
use mesh::identity::{Keys, PeerKey};
use mesh::ledger::{Command, Ledger};
use mesh::membership::State;
use mesh::roster::{Genesis, NotDrafted, Recovery, VoterChange};
use mesh::wire::{decode, encode};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A record with its signature, or an answer.
const FRAME_BYTES_MAX: usize = 4 << 10;
/// How long another host may take to say how far its log goes.
const ASK_WITHIN: Duration = Duration::from_secs(5);
/// What a record's text begins with; the number is its version.
const RECORD: &str = "mesh-record1-";
/// What a recovery key's text begins with.
const KEY: &str = "mesh-recovery1-";

/// The answer to either question of [`Protocol::Recover`].
#[derive(Debug, Serialize_tuple, Deserialize_tuple)]
struct Answer {
    epoch: u64,
    era: u64,
    term: u64,
    index: u64,
}

/// A record as a person carries it.
pub fn record_text(change: &VoterChange) -> String {
    format!("{RECORD}{}", BASE64URL_NOPAD.encode(&encode(change)))
}

/// A record from such text; whose it is has still to be looked at.
pub fn record_from(text: &str) -> Option<VoterChange> {
    let body = text.trim().strip_prefix(RECORD).filter(|body| body.len() < 2 * FRAME_BYTES_MAX)?;
    let change: VoterChange = decode(&BASE64URL_NOPAD.decode(body.as_bytes()).ok()?, FRAME_BYTES_MAX).ok()?;
    Recovery::of(&change).is_ok().then_some(change)
}

/// The recovery key from the text that `mesh init` printed.
pub fn recovery_keys(text: &str) -> Option<Keys> {
    let seed = BASE64URL_NOPAD.decode(text.trim().strip_prefix(KEY)?.as_bytes()).ok()?;
    Some(Keys::from_seed(seed.try_into().ok()?))
}

impl Inner {
    /// What a recovery with this host as the heir would be, and what speaks against it.
    pub(super) async fn plan_recovery(&self, force: bool) -> Result<RecoveryPlan, ApiError> {
        let here = self.consensus.position().map_err(|e| disk(&e))?;
        let whole = self.whole_ledger().await.map_err(|e| disk(&e))?;
        let states: BTreeMap<PeerKey, HostState> = {
            let members = lock(&self.members);
            whole.roster().members().map(|(k, _)| (*k, state_word(members.host(k).map(|h| h.state)))).collect()
        };
        let others = states.keys().filter(|peer| **peer != self.me && self.net.is_connected(**peer));
        let asked = others.map(|peer| async move { (*peer, self.ask_position(*peer).await) });
        let positions: BTreeMap<PeerKey, Position> = futures::future::join_all(asked)
            .await
            .into_iter()
            .filter_map(|(peer, at)| Some((peer, at.ok()?)))
            .collect();
        let alive = |peer: &PeerKey| *peer == self.me || states[peer] == HostState::Alive;
        let survivors: BTreeSet<PeerKey> = states.keys().filter(|peer| alive(peer)).copied().collect();
        let host = |peer: &PeerKey| RecoveryHost {
            host: self.name_of(peer),
            state: states[peer],
            voter: whole.voters().voters().contains(peer),
            log: if *peer == self.me { Some(here) } else { positions.get(peer).copied() }.map(position_text),
        };
        let hosts = states.keys().map(host).collect();
        let draft = whole.voters().draft(self.me, &survivors, (whole.index(), whole.head()), force);
        let problem = self.against(here, &positions, &states, &whole, draft.as_ref().err(), force);
        Ok(RecoveryPlan {
            version: VERSION,
            mesh: whole.name().to_owned(),
            heir: self.name_of(&self.me),
            epoch: whole.recovery_epoch() + 1,
            log: position_text(here),
            hosts,
            recovery_key: whole.genesis().open::<Genesis>().map_err(|e| ApiError::internal(e.to_string()))?.recovery,
            record: draft.ok().filter(|_| problem.is_none()).map(|r| crate::state_folder::hex(&encode(&r))),
            hint: problem.as_ref().and_then(|p| p.hint.clone()),
            problem: problem.map(|p| p.message),
        })
    }

    /// What speaks against it, the first thing first.
    fn against(
        &self,
        here: Position,
        positions: &BTreeMap<PeerKey, Position>,
        states: &BTreeMap<PeerKey, HostState>,
        whole: &Ledger,
        draft: Option<&NotDrafted>,
        force: bool,
    ) -> Option<ApiError> {
        let ahead = positions.iter().filter(|(_, at)| at.is_ahead_of(&here));
        if let Some((peer, at)) = ahead.max_by_key(|(_, at)| (at.epoch, at.term, at.index)) {
            let name = self.name_of(peer);
            let text =
                format!("{name} has the longer log ({} against {} here)", position_text(*at), position_text(here));
            return Some(
                ApiError::conflict(text).hint(format!("run `mesh recover` on {name}: what it knows would be lost")),
            );
        }
        if let Some((peer, _)) = positions.iter().find(|(_, at)| at.contends_with(&here)).filter(|_| !force) {
            let name = self.name_of(peer);
            let text = format!("{name} follows another recovery of the same epoch: what only it knows would be lost");
            let hint =
                format!("decide which of the two goes on; --force says this host's, `mesh recover` on {name} its own");
            return Some(ApiError::conflict(text).hint(hint));
        }
        let voters = whole.voters().voters();
        let unsure: Vec<String> = voters
            .iter()
            .filter(|v| **v != self.me && states.get(v) == Some(&HostState::Suspect))
            .map(|v| self.name_of(v))
            .collect();
        if !unsure.is_empty() && !force {
            let text = format!("it is not certain that {} is lost", unsure.join(" and "));
            let hint = "wait until `mesh status` says that it is down; where it cannot tell (this host may be the one that is \
                        cut off), look, and say --force when you know";
            return Some(ApiError::conflict(text).hint(hint));
        }
        match draft? {
            majority @ NotDrafted::Majority { .. } => Some(ApiError::conflict(majority.to_string()).hint(
                "wait for an election, or look at `mesh status`; --force when they live and are of no use for good",
            )),
            other => Some(ApiError::conflict(other.to_string())),
        }
    }

    /// The ledger with all of the log applied, also what may never have been committed.
    async fn whole_ledger(&self) -> io::Result<Ledger> {
        let mut ledger = self.shared.with(Ledger::clone);
        for entry in self.consensus.stored_after(ledger.index()).await? {
            match entry.payload {
                Some(payload) => drop(ledger.apply(entry.index, entry.term, &payload)),
                None => ledger.begin_term(entry.term),
            }
        }
        Ok(ledger)
    }

    /// Takes a record that a person brings.
    pub(super) async fn take_recovery(&self, text: &str) -> Result<String, ApiError> {
        let Some(change) = record_from(text) else {
            return Err(ApiError::bad_request("that is no recovery record, or not all of it")
                .hint("it begins with `mesh-record1-` and is one word, as `mesh recover --print` printed it"));
        };
        let refused = |e: String| {
            ApiError::new(403, "not-genuine", e)
                .hint("it has to be signed with the key that `mesh init` printed when this mesh was founded")
        };
        let record = self.shared.with(|l| l.open_recovery(&change)).map_err(|e| refused(e.to_string()))?;
        let epoch = self.consensus.epoch();
        if record.epoch <= epoch {
            return match self.consensus.record().as_ref() == Some(&encode(&change)) {
                true => Ok("this host follows that recovery already".to_owned()),
                false => Err(ApiError::conflict(format!(
                    "the record is of epoch {}, and this host follows another recovery of epoch {epoch}",
                    record.epoch
                ))
                .hint("`mesh recover` makes one that comes after both")),
            };
        }
        if record.heir != self.me {
            self.follow_recovery(&record, &change).await.map_err(|e| disk(&e))?;
            return Ok(format!("this host follows {} from now on", self.name_of(&record.heir)));
        }
        let whole = self.whole_ledger().await.map_err(|e| disk(&e))?;
        let next = whole.recover(&change).map_err(|e| {
            ApiError::conflict(e.to_string()).hint("run `mesh recover` again: this host's log has changed since")
        })?;
        if self.anew.swap(true, Ordering::Relaxed) {
            return Err(ApiError::internal("the daemon is about to start again: it has heard of another recovery"));
        }
        tracing::warn!(epoch = record.epoch, index = record.index, "this host is the heir of a recovery");
        let begun = self.consensus.inherit(record.epoch, encode(&change), next.snapshot()).await;
        self.begin_anew(&begun);
        begun.map_err(|e| disk(&e))?;
        Ok("this host goes on alone, and the others follow it as they hear of it".to_owned())
    }

    async fn follow_recovery(&self, record: &Recovery, change: &VoterChange) -> io::Result<()> {
        if self.anew.swap(true, Ordering::Relaxed) {
            return Ok(()); // several may tell of it at once
        }
        let heir = self.name_of(&record.heir);
        tracing::warn!(epoch = record.epoch, heir, "the mesh was recovered: this host follows its heir");
        let ground = self.shared.with(Ledger::snapshot);
        let followed = self.consensus.follow(record.epoch, encode(change), ground).await;
        match followed {
            Ok(true) => self.anew.store(false, Ordering::Relaxed), // there was nothing to leave behind
            _ => self.begin_anew(&followed),
        }
        followed.map(drop)
    }

    /// The node ends, to be started with another log; or because it could not be written.
    fn begin_anew<T>(&self, begun: &io::Result<T>) {
        match begun {
            Ok(_) => self.leaving.cancel(),
            Err(error) => {
                self.anew.store(false, Ordering::Relaxed);
                self.end_with(
                    format!("the recovery could not be stored: {error}"),
                    "look at this host's disk (`df`, `dmesg`), then `mesh up` and try again",
                );
            }
        }
    }

    /// Tells a host that has just connected which recovery is followed here.
    pub(super) fn tell_recovery(self: &Arc<Self>, peer: PeerKey) {
        let Some(record) = self.consensus.record() else { return };
        let this = self.clone();
        self.task(async move {
            if let Err(error) = this.exchange(peer, &record).await {
                tracing::debug!(host = this.name_of(&peer), %error, "could not tell of the recovery");
            }
        });
    }

    /// An empty message asks how far the log goes; any other is a record. The answer is the same.
    async fn exchange(&self, peer: PeerKey, message: &[u8]) -> io::Result<Answer> {
        let ask = async {
            let mut stream = self.net.open(peer, Protocol::Recover).await.map_err(io::Error::other)?;
            frame::write_frame(&mut stream, message).await?;
            let answer = frame::read_frame(&mut stream, FRAME_BYTES_MAX).await?;
            decode(&answer, FRAME_BYTES_MAX).map_err(io::Error::other)
        };
        tokio::time::timeout(ASK_WITHIN, ask).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn ask_position(&self, peer: PeerKey) -> io::Result<Position> {
        let Answer { epoch, era, term, index } = self.exchange(peer, &[]).await?;
        Ok(Position { epoch, era, term, index })
    }

    /// The other end.
    pub(super) async fn serve_recovery(self: Arc<Self>, peer: PeerKey, mut stream: Stream) {
        let Ok(message) = frame::read_frame(&mut stream, FRAME_BYTES_MAX).await else { return };
        let Ok(Position { epoch, era, term, index }) = self.consensus.position() else { return };
        // Answered before it is acted upon: then this node ends.
        let _ = frame::write_frame(&mut stream, &encode(&Answer { epoch, era, term, index })).await;
        drop(stream);
        if !message.is_empty() {
            self.hear_recovery(peer, &message).await;
        }
    }

    async fn hear_recovery(&self, from: PeerKey, message: &[u8]) {
        let opened = decode::<VoterChange>(message, FRAME_BYTES_MAX).map_err(|e| e.to_string()).and_then(|change| {
            let record = self.shared.with(|l| l.open_recovery(&change)).map_err(|e| e.to_string())?;
            Ok((change, record))
        });
        let (change, record) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!(host = self.name_of(&from), error, "a host told of a recovery that is not genuine");
                return;
            }
        };
        let epoch = self.consensus.epoch();
        if record.epoch > epoch {
            if let Err(error) = self.follow_recovery(&record, &change).await {
                tracing::error!(%error, "the recovery that was told of could not be stored");
            }
        } else if record.epoch == epoch && self.consensus.record().as_deref() != Some(message) {
            self.dispute(from, change).await;
        }
    }

    /// Another recovery of the same epoch: everybody is to know, and healing stops.
    async fn dispute(&self, from: PeerKey, change: VoterChange) {
        let known = lock(&self.contender).replace(change.clone()).is_some();
        if !known {
            tracing::warn!(
                host = self.name_of(&from),
                "a host follows another recovery of this mesh, of the same epoch"
            );
        }
        if self.shared.with(|l| l.disputed() || l.contends(&change) != Ok(true)) {
            return;
        }
        if let Err(error) = self.ask(self.request_id(), Command::Dispute(change)).await {
            tracing::info!(error = error.message, "the dispute is not in the ledger yet");
        }
    }

    /// Recoveries that contend, for status.
    pub(super) fn warn_of_recoveries(&self, warnings: &mut Vec<Warning>, next: &mut Vec<String>) {
        let contender = lock(&self.contender).as_ref().and_then(|change| Recovery::of(change).ok());
        if contender.is_none() && !self.shared.with(Ledger::disputed) {
            return;
        }
        let with =
            contender.map_or_else(|| "another host's".to_owned(), |r| format!("that of {}", self.name_of(&r.heir)));
        let text = format!("two recoveries of one epoch contend for this mesh, this one and {with}: nothing is healed");
        warnings.push(Warning { code: "disputed".into(), level: Level::Warning, host: None, text });
        next.push("decide which half goes on, and run `mesh recover --force` on a host of it".into());
    }

    /// Voters that are gone for good, for the advice of status.
    pub(super) fn is_lost_majority(&self) -> bool {
        let members = lock(&self.members);
        let away = |v: &PeerKey| members.host(v).is_none_or(|h| h.state != State::Alive);
        self.shared.with(|l| {
            let lost = l.voters().voters().iter().filter(|v| **v != self.me && away(v)).count();
            l.voters().voters().len() - lost < l.voters().majority()
        })
    }
}

fn position_text(at: Position) -> String {
    format!("{}.{}.{}", at.epoch, at.term, at.index)
}

fn disk(error: &io::Error) -> ApiError {
    ApiError::internal(format!("the ledger's database cannot be used: {error}")).hint("look at this host's disk")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::roster::MeshId;

    #[test]
    fn a_record_and_a_key_survive_their_way_and_no_other_text_passes() {
        let keys = Keys::from_seed([7; 32]);
        let heir = Keys::from_seed([2; 32]).key();
        let record = Recovery {
            mesh: MeshId([9; 32]),
            epoch: 1,
            previous: [8; 32],
            heir,
            survivors: vec![heir],
            index: 40,
            head: [7; 32],
        };
        let change = record.seal(&keys);
        let text = record_text(&change);
        assert_eq!(record_from(&format!(" {text}\n")), Some(change));
        for bad in ["", RECORD, "mesh-record1-%%", &text[..text.len() - 4], &format!("{text}AAAA")] {
            assert_eq!(record_from(bad), None, "{bad}");
        }
        let key = format!("{KEY}{}", BASE64URL_NOPAD.encode(&[7; 32]));
        assert_eq!(recovery_keys(&format!("{key}\n")).map(|k| k.key()), Some(keys.key()));
        for bad in ["", KEY, &key[..key.len() - 2], &format!("{key}AA"), &text] {
            assert!(recovery_keys(bad).is_none(), "{bad}");
        }
    }
}

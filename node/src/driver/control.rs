//! What the API asks of a node ([`crate::api::Control`]).

use super::Inner;
use super::restrain::Waits;
use super::shared::lock;
use super::submit::SubmitError;
use crate::api::order::{OrderEvent, OrderRequest};
use crate::api::types::*;
use crate::api::{self, ByteStream, Control};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use mesh::build::{Attempt, BlobId, BuildId, BuildSpec, End};
use mesh::identity::PeerKey;
use mesh::ledger::{self, Build, Cancel, Code, Command, Entry, Reply, RequestId, Retry, Revoke, Submit};
use mesh::limits::INVITATION_MS_MAX;
use mesh::roster::valid_host_name;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a request waits for the ledger: three elections.
const WITHIN: Duration = Duration::from_secs(30);
/// Builds in one list when the client names no number.
const LIST: u32 = 100;
/// Log pieces on their way to a client.
const LOG_EVENTS: usize = 64;
/// Between two looks for the log of an attempt that its host does not know of yet.
const SOON: Duration = Duration::from_millis(50);

impl Inner {
    /// Signs a command as this host and brings it into the ledger.
    pub(super) async fn ask(&self, request: RequestId, command: Command) -> Result<Reply, ApiError> {
        let entry = Entry::seal(&self.keys, self.mesh, request, None, command);
        if entry.body.len() > mesh::limits::ENTRY_BYTES_MAX - 1_024 {
            return Err(ApiError::bad_request("the request is larger than one entry of the ledger may be")
                .hint("submit fewer builds at once"));
        }
        match self.submit(entry, WITHIN).await {
            Ok((reply, _)) if reply.is_ok() => Ok(reply),
            Ok((reply, _)) => Err(api_error(&reply)),
            Err(SubmitError::NoLeader(why)) => {
                tracing::info!(why, "a request found no leader");
                Err(ApiError::no_leader())
            }
            Err(SubmitError::Stopping) => Err(ApiError::internal("the daemon is stopping")),
        }
    }

    fn names(&self) -> BTreeMap<PeerKey, String> {
        self.shared.with(|l| l.roster().members().map(|(k, m)| (*k, m.name.clone())).collect())
    }

    pub(super) fn detail(&self, id: BuildId) -> Result<BuildDetail, ApiError> {
        let names = self.names();
        let build = self.shared.with(|l| l.builds().get(id).cloned()).ok_or_else(|| no_build(id))?;
        let waits = self.why_waiting([&build]).pop().unwrap_or_default();
        Ok(detail(&build, &names, waits))
    }

    async fn follow(&self, id: BuildId, only: Option<Attempt>, follow: bool, out: mpsc::Sender<LogEvent>) {
        let mut shown: u32 = 0;
        let mut problem = String::new();
        loop {
            // The next attempt that is to be shown, or the end of the build.
            let next = self.shared.until(|l| match l.builds().get(id) {
                None => Some(None),
                Some(build) => {
                    let found = match only {
                        Some(n) if shown == 0 => build.attempts.iter().find(|a| a.number == n),
                        Some(_) => None,
                        None if follow => build.attempts.iter().find(|a| a.number.0 > shown),
                        None if shown == 0 => build.telling().or(build.attempts.last()),
                        None => None,
                    };
                    let over = !follow || build.state.is_final() || only.is_some();
                    if found.is_some() || over { Some(found.cloned()) } else { None }
                }
            });
            let Some(attempt) = next.await else { break };
            shown = attempt.number.0;
            let host = self.name_of(&attempt.host);
            let head = LogEvent::Attempt { attempt: attempt.number, host: host.clone() };
            if out.send(head).await.is_err() {
                return;
            }
            // Only the last attempt's matters to who follows: a lost one's log may have gone with its host.
            problem = match self.send_log(id, &attempt, follow, &out).await {
                Ok(()) => String::new(),
                Err(error) => format!("the log of attempt {} on {host} could not be read: {error}", attempt.number),
            };
            if !follow {
                break;
            }
        }
        let _ = out.send(LogEvent::End { text: problem }).await;
    }

    /// One attempt's log: live while it runs, from its blob afterwards.
    async fn send_log(
        &self,
        id: BuildId,
        attempt: &ledger::AttemptRecord,
        follow: bool,
        out: &mpsc::Sender<LogEvent>,
    ) -> io::Result<()> {
        let (bytes, mut chunks) = mpsc::channel::<Bytes>(LOG_EVENTS);
        let read = async {
            let running = || {
                self.shared
                    .with(|l| l.builds().get(id).is_some_and(|b| b.running().any(|a| a.number == attempt.number)))
            };
            let (mut sent, mut broken) = (0, None);
            while running() {
                match self.stream_live_log(attempt.host, id, attempt.number, follow, &mut sent, &bytes).await {
                    // Its host has not read so far in the ledger, or is done with it: look again.
                    Err(error) if error.kind() == io::ErrorKind::NotFound && follow => tokio::time::sleep(SOON).await,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                    // Its connection is gone: it goes on, on another one, for as long as the attempt may be running.
                    Err(error) if follow => {
                        tracing::debug!(host = self.name_of(&attempt.host), %error, sent, "a log broke off");
                        broken = Some(error);
                        tokio::time::sleep(SOON).await;
                    }
                    other => {
                        drop(bytes);
                        return other;
                    }
                }
            }
            let ended = self.shared.until(|l| {
                let build = l.builds().get(id)?;
                let found = build.attempts.iter().find(|a| a.number == attempt.number)?;
                (!found.is_running() || !follow).then(|| found.clone())
            });
            let ended = ended.await;
            let result = match ended.outcome().and_then(|o| o.log) {
                Some(log) => self.stream_kept_log(log, &ended.holders, sent, &bytes).await,
                None => broken.map_or(Ok(()), Err),
            };
            drop(bytes);
            result
        };
        let forward = async {
            while let Some(chunk) = chunks.recv().await {
                if out.send(LogEvent::Data(chunk)).await.is_err() {
                    return;
                }
            }
        };
        futures::future::join(read, forward).await.0
    }
}

#[async_trait]
impl Control for Inner {
    async fn status(&self) -> Status {
        self.make_status()
    }

    async fn submit(&self, request: [u8; 16], specs: Vec<BuildSpec>) -> Result<Vec<BuildId>, ApiError> {
        ledger::order_of(&specs).map_err(ApiError::bad_request)?;
        self.spread_inputs(&specs).await;
        Ok(self.ask(RequestId(request), Command::Submit(Submit { specs })).await?.builds)
    }

    async fn builds(&self, filter: BuildFilter) -> Vec<BuildSummary> {
        let names = self.names();
        let limit = filter.limit.unwrap_or(LIST) as usize;
        let builds: Vec<Build> = self.shared.with(|l| {
            let wanted = |b: &&Build| filter.state.is_none_or(|s| s == state_word(b.state));
            l.builds().iter().rev().filter(wanted).take(limit).cloned().collect()
        });
        let waits = self.why_waiting(builds.iter());
        builds.iter().zip(waits).map(|(build, waits)| summary(build, &names, waits)).collect()
    }

    async fn build(&self, id: BuildId) -> Result<BuildDetail, ApiError> {
        self.detail(id)
    }

    async fn wait(&self, id: BuildId, known: u64) -> Result<BuildDetail, ApiError> {
        self.shared
            .until(|l| match l.builds().get(id) {
                Some(build) if build.revision + 1 == known => None,
                _ => Some(()),
            })
            .await;
        self.detail(id)
    }

    async fn cancel(&self, ids: Vec<BuildId>) -> Result<(), ApiError> {
        let open: Vec<BuildId> = self.shared.with(|l| {
            let mut open = vec![];
            for id in &ids {
                match l.builds().get(*id) {
                    None => return Err(no_build(*id)),
                    Some(build) if build.state.is_final() => {}
                    Some(_) => open.push(*id),
                }
            }
            Ok(open)
        })?;
        if open.is_empty() {
            return Ok(());
        }
        let reason = format!("cancelled on {}", self.name_of(&self.me));
        match self.ask(self.request_id(), Command::Cancel(Cancel { builds: open, reason })).await {
            Err(error) if error.code == "conflict" => Ok(()), // ended in between
            other => other.map(drop),
        }
    }

    async fn retry(&self, id: BuildId) -> Result<BuildId, ApiError> {
        // A person asks for what is held: it ends as it is, and its successor is tried for its own sake.
        if self.detail(id)?.summary.held {
            self.cancel(vec![id]).await?;
        }
        let reply = self.ask(self.request_id(), Command::Retry(Retry { build: id })).await?;
        reply.builds.first().copied().ok_or_else(|| ApiError::internal("a retry made no build"))
    }

    async fn logs(
        &self,
        id: BuildId,
        attempt: Option<Attempt>,
        follow: bool,
    ) -> Result<mpsc::Receiver<LogEvent>, ApiError> {
        let known = self.shared.with(|l| {
            let build = l.builds().get(id)?;
            Some(attempt.is_none_or(|n| build.attempts.iter().any(|a| a.number == n)))
        });
        match (known, attempt) {
            (None, _) => return Err(no_build(id)),
            (Some(false), Some(n)) => return Err(ApiError::not_found(format!("{id} has no attempt {n}"))),
            _ => {}
        }
        let (out, events) = mpsc::channel(LOG_EVENTS);
        let Some(this) = self.policy.node() else { return Err(ApiError::internal("the daemon is stopping")) };
        self.task(async move { this.follow(id, attempt, follow, out).await });
        Ok(events)
    }

    async fn put_blob(&self, expect: Option<BlobId>, mut body: ByteStream) -> Result<(BlobId, u64), ApiError> {
        let store = |error: io::Error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => ApiError::bad_request(error.to_string()),
            _ => ApiError::internal(format!("the blob could not be stored: {error}")),
        };
        let mut blob = self.blobs.create(expect).await.map_err(store)?;
        let mut size = 0;
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(store)?;
            size += chunk.len() as u64;
            blob.write(&chunk).await.map_err(store)?;
        }
        Ok((blob.finish().await.map_err(store)?, size))
    }

    async fn has_blob(&self, id: BlobId) -> bool {
        self.blobs.has(id).await
    }

    async fn get_blob(&self, id: BlobId) -> Result<(u64, ByteStream), ApiError> {
        let holders = self.holders_of(id);
        self.fetch_blob(id, &holders).await.map_err(|error| {
            ApiError::not_found(format!("blob {id} could not be had: {error}"))
                .hint("a host that holds it may be down: see `mesh status`")
        })?;
        let (size, reader) = self.blobs.open(id, 0).await.map_err(|e| ApiError::internal(e.to_string()))?;
        let chunks = futures::stream::try_unfold(reader, |mut reader| async move {
            Ok(reader.chunk().await?.map(|chunk| (chunk, reader)))
        });
        Ok((size, chunks.boxed()))
    }

    async fn invite(&self, request: InviteRequest) -> Result<String, ApiError> {
        let InviteRequest { name, expires_ms, signer } = request;
        if !valid_host_name(&name) {
            return Err(api::server::bad_host_name(&name));
        }
        if expires_ms == 0 || expires_ms > INVITATION_MS_MAX {
            return Err(ApiError::bad_request("an invitation lasts up to 30 days").hint("for example --expires 24h"));
        }
        let (may, taken, kept) = self.shared.with(|l| {
            let may = l.roster().member(&self.me).is_some_and(|m| m.signer);
            let taken = l.roster().members().any(|(_, m)| m.name == name);
            (may, taken, l.roster().heirs(l.time_ms()).any(|(_, heir)| heir.name == name))
        });
        if !may {
            return Err(ApiError::new(403, "not-signer", "this host may not invite: it is no signer")
                .hint("run `mesh invite` on a host that is"));
        }
        if taken {
            return Err(ApiError::conflict(format!("a host named {name} is enrolled already"))
                .hint(format!("choose another name, or put that host out first with `mesh evict {name}`")));
        }
        if kept {
            return Err(ApiError::conflict(format!("{name} was replaced: the name is kept for its successor")).hint(
                "use the token that `mesh replace` printed, or another name; it is free when that token has ended",
            ));
        }
        let token = self.make_token(name, signer, expires_ms);
        lock(&self.invitations).made(&token.invitation);
        Ok(token.text())
    }

    async fn evict(&self, host: String, ban: bool, reason: String) -> Result<(), ApiError> {
        let peer = self.find_host(&host)?;
        self.check_not_needed(&peer)?;
        self.ask(self.request_id(), Command::Revoke(Revoke { peer, banned: ban, reason })).await.map(drop)
    }

    async fn rename(&self, request: RenameRequest) -> Result<(), ApiError> {
        self.rename_host(&request.host, request.name).await
    }

    async fn replace(&self, request: ReplaceRequest) -> Result<String, ApiError> {
        self.replace_host(request).await
    }

    async fn plan_recovery(&self, force: bool) -> Result<RecoveryPlan, ApiError> {
        Inner::plan_recovery(self, force).await
    }

    async fn recover(&self, record: String) -> Result<String, ApiError> {
        self.take_recovery(&record).await
    }

    async fn ping(&self, host: String, count: u32) -> Result<PingReport, ApiError> {
        let peer = self.find_host(&host)?;
        Ok(self.ping_host(peer, count).await)
    }

    async fn topology(&self) -> Topology {
        self.make_topology()
    }

    async fn doctor(&self) -> MeshFacts {
        self.make_mesh_facts()
    }

    async fn why(&self, host: String) -> Result<WhyReport, ApiError> {
        Ok(self.make_why(self.find_host(&host)?))
    }

    async fn order(&self, host: String, request: OrderRequest) -> Result<mpsc::Receiver<OrderEvent>, ApiError> {
        let peer = self.find_host(&host)?;
        let Some(this) = self.policy.node() else { return Err(ApiError::internal("the daemon is stopping")) };
        let (out, events) = mpsc::channel(LOG_EVENTS);
        this.order_by_hand(peer, request, out).await?;
        Ok(events)
    }

    async fn leave(&self) -> Result<(), ApiError> {
        let only = self.shared.with(|l| l.roster().len() == 1);
        if only {
            return Err(ApiError::conflict("this is the only host of the mesh: it cannot leave")
                .hint("stop the daemon and remove its state folder instead"));
        }
        self.hand_over().await?;
        let reason = "left by itself".to_owned();
        let asked = self.ask(self.request_id(), Command::Revoke(Revoke { peer: self.me, banned: false, reason }));
        tokio::select! {
            biased;
            reply = asked => drop(reply?),
            // The others may cut us off before their answer arrives: that they do so is the answer.
            () = self.leaving.cancelled() => {
                if !self.is_outcast() {
                    return Err(ApiError::internal("the daemon is stopping"));
                }
            }
        }
        self.say_farewell();
        Ok(())
    }

    async fn shutdown(&self) {
        self.say_farewell();
    }
}

impl Inner {
    /// Tells the others, and stops.
    fn say_farewell(&self) {
        let now = self.now();
        let mut members = lock(&self.members);
        members.leave(now);
        while let Some(output) = members.poll() {
            if let mesh::membership::Output::Publish(bytes) = output {
                self.net.publish(bytes);
            }
        }
        self.leaving.cancel();
    }
}

fn no_build(id: BuildId) -> ApiError {
    ApiError::not_found(format!("there is no build {id}")).hint("`mesh builds` lists them")
}

fn api_error(reply: &Reply) -> ApiError {
    let text = reply.text.clone();
    match reply.code {
        Code::Invalid => ApiError::bad_request(text),
        Code::Unknown => ApiError::not_found(text).hint("`mesh status` lists the hosts, `mesh builds` the builds"),
        Code::Forbidden => ApiError::new(403, "forbidden", text).hint(
            "only a signer may do this: run it on the host that founded the mesh, or on one invited with --signer",
        ),
        Code::Conflict => ApiError::conflict(text).hint("`mesh status` and `mesh builds` show how things stand"),
        Code::Full => ApiError::new(429, "full", text).hint("wait until builds have ended, or cancel some"),
        Code::Ok | Code::Stale | Code::Receipts => ApiError::internal(text),
    }
}

fn state_word(state: ledger::State) -> BuildState {
    match state {
        ledger::State::Waiting | ledger::State::Queued => BuildState::Queued,
        ledger::State::Running => BuildState::Running,
        ledger::State::Done => BuildState::Done,
        ledger::State::Failed => BuildState::Failed,
        ledger::State::Cancelled => BuildState::Cancelled,
    }
}

fn name_in(names: &BTreeMap<PeerKey, String>, peer: &PeerKey) -> String {
    names.get(peer).cloned().unwrap_or_else(|| peer.short())
}

fn summary(build: &Build, names: &BTreeMap<PeerKey, String>, waits: Waits) -> BuildSummary {
    let waiting = || match build.state {
        ledger::State::Waiting => {
            let needs: Vec<String> = build.needs.iter().map(ToString::to_string).collect();
            format!("waits for {}", needs.join(", "))
        }
        _ => waits.why.clone(),
    };
    BuildSummary {
        id: build.id,
        name: build.spec.name.clone(),
        state: state_word(build.state),
        host: build.attempts.last().map(|a| name_in(names, &a.host)),
        attempts: build.attempts.len() as u32,
        submitted_ms: build.submitted_ms,
        ended_ms: build.state.is_final().then_some(build.finished_ms),
        held: waits.held,
        text: if build.reason.is_empty() { waiting() } else { build.reason.clone() },
    }
}

fn detail(build: &Build, names: &BTreeMap<PeerKey, String>, waits: Waits) -> BuildDetail {
    let attempt = |a: &ledger::AttemptRecord| {
        let outcome = a.outcome();
        AttemptDetail {
            attempt: a.number,
            host: name_in(names, &a.host),
            peer: a.host,
            state: match &a.state {
                ledger::AttemptState::Running => AttemptState::Running,
                ledger::AttemptState::Lost(_) => AttemptState::Lost,
                ledger::AttemptState::Cancelled => AttemptState::Cancelled,
                ledger::AttemptState::Ended(o) => match o.end {
                    End::Done => AttemptState::Done,
                    End::Failed => AttemptState::Failed,
                    End::TimedOut => AttemptState::TimedOut,
                    End::Cancelled => AttemptState::Cancelled,
                },
            },
            started_ms: a.assigned_ms,
            ended_ms: (!a.is_running()).then_some(a.ended_ms),
            code: outcome.map(|o| o.code),
            text: match &a.state {
                ledger::AttemptState::Lost(why) => why.clone(),
                _ => outcome.map(|o| o.text.clone()).unwrap_or_default(),
            },
            manifest: outcome.and_then(|o| o.manifest),
            log: outcome.and_then(|o| o.log),
            holders: a.holders.iter().map(|h| name_in(names, h)).collect(),
        }
    };
    let telling = build.telling().and_then(|a| a.outcome());
    BuildDetail {
        version: VERSION,
        revision: build.revision + 1,
        summary: summary(build, names, waits),
        command: build.spec.command.clone(),
        needs: build.needs.clone(),
        code: telling.filter(|_| build.state.is_final()).map(|o| o.code),
        manifest: build
            .result()
            .filter(|_| build.state == ledger::State::Done)
            .and_then(|a| a.outcome())
            .and_then(|o| o.manifest),
        attempts_detail: build.attempts.iter().map(attempt).collect(),
    }
}

//! `mesh run` and `mesh build`: inputs out, builds submitted, followed to their end, outputs back. When the
//! daemon goes away meanwhile, they wait for it: builds are the mesh's, not the daemon's. Ctrl-C cancels.

use super::args::RunArgs;
use super::{Failure, Out, fetch, log_event, pack, show};
use crate::api::client::{Client, ClientError};
use crate::api::types::{BuildDetail, BuildIds, BuildList, BuildState, BuildSummary, LogEvent, VERSION};
use crate::buildfile::{self, LocalInput};
use futures::StreamExt;
use futures::stream::BoxStream;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mesh::build::{BuildId, BuildSpec, Input, InputKind, valid_build_name};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How often the daemon is looked for when it has gone away, and how long between.
const RECONNECTS_MAX: u32 = 120;
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

/// How long nothing of the log may come after the end of its build, before it counts as broken off.
const LOG_LAG: Duration = Duration::from_secs(10);

fn request_id() -> Result<[u8; 16], Failure> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|e| Failure::new(e.to_string()))?;
    Ok(id)
}

/// A build's name from its command: the program's own name, as far as it can be one.
pub(super) fn name_of(command: &[String]) -> String {
    let program = command.first().map_or("", |word| word.rsplit('/').next().unwrap_or(word));
    let name: String = program.chars().filter(char::is_ascii).take(60).collect();
    if valid_build_name(&name) { name } else { "run".into() }
}

pub(super) fn spec(wish: &RunArgs) -> Result<BuildSpec, Failure> {
    let spec = BuildSpec {
        changed_only: wish.output.is_empty(),
        outputs: if wish.output.is_empty() { vec!["**".into()] } else { wish.output.clone() },
        env: wish.env.clone(),
        cores: wish.cores,
        memory_mib: wish.memory.unwrap_or(0),
        tags: wish.tag.clone(),
        timeout_s: wish.timeout,
        network: wish.network,
        sandbox: wish.sandbox,
        retries: wish.retries,
        confirm: wish.confirm,
        ..BuildSpec::new(name_of(&wish.command), wish.command.clone())
    };
    spec.check().map_err(Failure::usage)?;
    Ok(spec)
}

fn bar(out: Out, total: u64) -> ProgressBar {
    let live = !out.quiet && io::stderr().is_terminal();
    let target = if live { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    let template = if total > 1 { "{bar:30} {pos}/{len} {msg}" } else { "{spinner} {msg}" };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    if live {
        bar.enable_steady_tick(Duration::from_millis(120));
    }
    bar
}

/// The changes of some builds, over the daemon's restarts.
struct Changes<'a> {
    client: &'a Client,
    out: Out,
    open: BTreeMap<BuildId, u64>,
    stream: Option<BoxStream<'static, Result<BuildDetail, ClientError>>>,
    lost: u32,
}

impl<'a> Changes<'a> {
    fn new(client: &'a Client, out: Out, ids: &[BuildId]) -> Self {
        Changes { client, out, open: ids.iter().map(|id| (*id, 0)).collect(), stream: None, lost: 0 }
    }

    /// The next change; `None` when all builds have ended. May be dropped and called again.
    async fn next(&mut self) -> Result<Option<BuildDetail>, Failure> {
        loop {
            if self.open.is_empty() {
                return Ok(None);
            }
            let got = match &mut self.stream {
                Some(stream) => stream.next().await.unwrap_or_else(|| Err(ClientError::Broken("it ended".into()))),
                None => {
                    let ids: Vec<BuildId> = self.open.keys().copied().collect();
                    match self.client.progress(&ids).await {
                        Ok(stream) => {
                            self.stream = Some(stream);
                            continue;
                        }
                        Err(error) => Err(error),
                    }
                }
            };
            match got {
                Ok(detail) => {
                    self.lost = 0;
                    let Some(known) = self.open.get_mut(&detail.summary.id) else { continue };
                    if *known == detail.revision {
                        continue; // seen before the daemon went away
                    }
                    *known = detail.revision;
                    if detail.summary.state.is_final() {
                        self.open.remove(&detail.summary.id);
                    }
                    return Ok(Some(detail));
                }
                Err(ClientError::Broken(_) | ClientError::NoDaemon(_)) if self.lost < RECONNECTS_MAX => {
                    if self.lost == 0 {
                        self.out.note("the daemon went away; waiting for it (the builds go on)");
                    }
                    self.lost += 1;
                    self.stream = None;
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Ctrl-C, noticed from the beginning: what is submitted must not outlive a wish to stop it.
struct Stop(Signal);

impl Stop {
    fn new() -> Result<Self, Failure> {
        Ok(Stop(signal(SignalKind::interrupt())?))
    }

    /// Does work that leaves nothing behind when it is dropped; `None` when interrupted.
    async fn or<T>(&mut self, work: impl Future<Output = Result<T, Failure>>) -> Result<Option<T>, Failure> {
        tokio::select! {
            biased;
            _ = self.0.recv() => Ok(None),
            done = work => done.map(Some),
        }
    }

    /// Submits to the end in spite of an interruption, since only then there is a number to cancel; `None`
    /// when interrupted. A second interruption waits for nothing.
    async fn submit(
        &mut self,
        client: &Client,
        out: Out,
        specs: &[BuildSpec],
    ) -> Result<Option<Vec<BuildId>>, Failure> {
        let mut submit = std::pin::pin!(client.submit(request_id()?, specs));
        tokio::select! {
            biased;
            _ = self.0.recv() => {}
            ids = &mut submit => return Ok(Some(ids?)),
        }
        tokio::select! {
            biased;
            _ = self.0.recv() => {}
            ids = &mut submit => drop(interrupted(client, out, &ids?).await?),
        }
        Ok(None)
    }
}

async fn interrupted(client: &Client, out: Out, ids: &[BuildId]) -> Result<u8, Failure> {
    client.cancel(ids).await?;
    out.note(format!("cancelled {}", if ids.len() > 5 { format!("{} builds", ids.len()) } else { show::ids(ids) }));
    Ok(super::EXIT_INTERRUPTED)
}

/// The exit code that stands for a build's end.
pub(super) fn exit_code(detail: &BuildDetail) -> u8 {
    let code = detail.code.and_then(|code| u8::try_from(code).ok());
    match detail.summary.state {
        BuildState::Done => code.unwrap_or(super::EXIT_OK),
        _ => code.filter(|code| *code != 0).unwrap_or(super::EXIT_FAILED),
    }
}

pub(super) async fn run(client: &Client, out: Out, wish: RunArgs) -> Result<u8, Failure> {
    let mut spec = spec(&wish)?;
    let mut stop = Stop::new()?;
    if !wish.no_workspace {
        let here = LocalInput { source: PathBuf::from("."), path: String::new(), kind: InputKind::Tar };
        let Some(sent) = stop.or(pack::send(client, &here)).await? else { return Ok(super::EXIT_INTERRUPTED) };
        spec.inputs.push(sent);
    }
    let Some(ids) = stop.submit(client, out, &[spec]).await? else { return Ok(super::EXIT_INTERRUPTED) };
    let Some(id) = ids.first().copied() else { return Err(Failure::new("the daemon named no build")) };
    let bar = bar(out, 1);
    let mut changes = Changes::new(client, out, &ids);
    let mut log = Log::new(client, id);
    log.open().await;
    let mut last: Option<BuildDetail> = None;
    while last.as_ref().is_none_or(|d| !d.summary.state.is_final()) {
        tokio::select! {
            biased;
            _ = stop.0.recv() => {
                bar.finish_and_clear();
                return interrupted(client, out, &ids).await;
            }
            event = log.next() => bar.suspend(|| show_log(out, event))?,
            change = changes.next() => {
                let Some(detail) = change? else { break };
                bar.set_message(describe(&detail.summary));
                if bar.is_hidden() {
                    out.note(describe(&detail.summary));
                }
                give_up_held(client, out, &detail.summary).await?;
                last = Some(detail);
            }
            () = tokio::time::sleep(RECONNECT_PAUSE), if log.is_broken() => log.open().await,
        }
    }
    bar.finish_and_clear();
    // What the command wrote last may still be on its way.
    tokio::select! {
        biased;
        _ = stop.0.recv() => {}
        done = log.rest(out) => done?,
    }
    let Some(detail) = last else { return Err(Failure::new(format!("{id} ended without a word"))) };
    if let (BuildState::Done, Some(manifest)) = (detail.summary.state, detail.manifest) {
        let files = fetch::outputs(client, manifest, Path::new(".")).await?;
        out.note(format!("{id}: {} file(s) brought back", files.len()));
    }
    if out.json {
        out.json(&detail)?;
    }
    Ok(exit_code(&detail))
}

/// A build's log, over the daemon's restarts: what was shown once is not shown again.
struct Log<'a> {
    client: &'a Client,
    id: BuildId,
    stream: Option<BoxStream<'static, Result<LogEvent, ClientError>>>,
    ended: bool,
    /// The attempt whose log came last, and how much of it was shown.
    attempt: u32,
    shown: u64,
    /// How much of what comes now is still to be left out.
    skip: u64,
}

impl<'a> Log<'a> {
    fn new(client: &'a Client, id: BuildId) -> Self {
        Log { client, id, stream: None, ended: false, attempt: 0, shown: 0, skip: 0 }
    }

    fn is_broken(&self) -> bool {
        self.stream.is_none() && !self.ended
    }

    /// Begins, or begins anew when it broke off. A daemon that is away says so to [`Changes`] too.
    async fn open(&mut self) {
        if self.is_broken() {
            self.stream = self.client.logs(self.id, None, true).await.ok();
        }
    }

    /// The next piece that was not shown yet. While the log is broken off, and after its end, this waits for
    /// ever: the build's own end is what counts. May be dropped and called again.
    async fn next(&mut self) -> LogEvent {
        loop {
            let Some(stream) = &mut self.stream else { return std::future::pending().await };
            match stream.next().await {
                Some(Ok(LogEvent::Attempt { attempt, host })) => {
                    self.skip = match attempt.0.cmp(&self.attempt) {
                        Ordering::Less => u64::MAX,
                        Ordering::Equal => self.shown,
                        Ordering::Greater => {
                            (self.attempt, self.shown, self.skip) = (attempt.0, 0, 0);
                            return LogEvent::Attempt { attempt, host };
                        }
                    };
                }
                Some(Ok(LogEvent::Data(bytes))) => {
                    let known = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
                    self.skip -= known as u64;
                    if known < bytes.len() {
                        self.shown += (bytes.len() - known) as u64;
                        return LogEvent::Data(bytes.slice(known..));
                    }
                }
                Some(Ok(LogEvent::Lost(bytes))) if self.skip > 0 => self.skip -= bytes.min(self.skip),
                Some(Ok(LogEvent::Lost(bytes))) => {
                    self.shown += bytes;
                    return LogEvent::Lost(bytes);
                }
                Some(Ok(LogEvent::End { text })) => {
                    (self.stream, self.ended) = (None, true);
                    return LogEvent::End { text };
                }
                Some(Err(_)) | None => self.stream = None,
            }
        }
    }

    /// What is left when the build has ended.
    async fn rest(&mut self, out: Out) -> Result<(), Failure> {
        self.open().await;
        while self.stream.is_some() {
            tokio::select! {
                biased;
                event = self.next() => show_log(out, event)?,
                () = tokio::time::sleep(LOG_LAG) => break,
            }
        }
        if !self.ended {
            out.note(format!("the log broke off; `mesh logs {}` has all of it", self.id));
        }
        Ok(())
    }
}

/// What the command writes is data, as if it ran here; with `--json` only the JSON is.
fn show_log(out: Out, event: LogEvent) -> Result<(), Failure> {
    match event {
        LogEvent::Data(bytes) if out.json => Ok(io::stderr().lock().write_all(&bytes)?),
        LogEvent::Attempt { attempt, .. } if attempt.0 <= 1 => Ok(()), // the build's own change says so
        other => log_event(out, other),
    }
}

/// Nobody waits here for a build that is not tried again for hours: it is given up, and its text says why.
async fn give_up_held(client: &Client, out: Out, build: &BuildSummary) -> Result<(), Failure> {
    if build.held {
        out.note(format!("{}: {}", build.id, show::plain(&build.text)));
        out.note(format!(
            "hint: it is given up; `mesh logs {0}` shows what it did, `mesh retry {0}` tries it again",
            build.id
        ));
        client.cancel(&[build.id]).await?;
    }
    Ok(())
}

fn describe(build: &BuildSummary) -> String {
    let host = build.host.as_deref().map_or(String::new(), |host| format!(" on {}", show::plain(host)));
    let text = if build.text.is_empty() { String::new() } else { format!(": {}", show::plain(&build.text)) };
    format!("{} {}: {}{host}{text}", build.id, show::plain(&build.name), build.state.word())
}

pub(super) async fn build(client: &Client, out: Out, file: &Path, detach: bool) -> Result<u8, Failure> {
    let mut stop = Stop::new()?;
    let mut specs = Vec::new();
    let mut sent: BTreeMap<PathBuf, Input> = BTreeMap::new();
    for local in buildfile::load(file)? {
        let mut spec = local.spec;
        for input in &local.inputs {
            // Builds of one file often start from the same folder: it is sent once.
            let made = match sent.get(&input.source) {
                Some(made) => made.clone(),
                None => match stop.or(pack::send(client, input)).await? {
                    Some(made) => made,
                    None => return Ok(super::EXIT_INTERRUPTED),
                },
            };
            spec.inputs.push(Input { path: input.path.clone(), ..made.clone() });
            sent.insert(input.source.clone(), made);
        }
        specs.push(spec);
    }
    let Some(ids) = stop.submit(client, out, &specs).await? else { return Ok(super::EXIT_INTERRUPTED) };
    if detach {
        match out.json {
            true => out.json(&BuildIds { version: VERSION, builds: ids })?,
            false => ids.iter().try_for_each(|id| out.line(id))?,
        }
        return Ok(super::EXIT_OK);
    }
    let bar = bar(out, ids.len() as u64);
    let mut changes = Changes::new(client, out, &ids);
    let mut ended: BTreeMap<BuildId, BuildSummary> = BTreeMap::new();
    loop {
        tokio::select! {
            biased;
            _ = stop.0.recv() => {
                bar.finish_and_clear();
                return interrupted(client, out, &ids).await;
            }
            change = changes.next() => {
                let Some(detail) = change? else { break };
                let line = describe(&detail.summary);
                if bar.is_hidden() {
                    out.note(&line);
                }
                bar.set_message(line);
                give_up_held(client, out, &detail.summary).await?;
                if detail.summary.state.is_final() {
                    bar.inc(1);
                    ended.insert(detail.summary.id, detail.summary);
                }
            }
        }
    }
    bar.finish_and_clear();
    let list: Vec<BuildSummary> = ended.into_values().collect();
    let good = list.iter().all(|b| b.state == BuildState::Done);
    for failed in list.iter().filter(|b| b.state == BuildState::Failed && b.attempts > 0) {
        out.note(format!("hint: `mesh logs {}` shows what {} did", failed.id, show::plain(&failed.name)));
    }
    match out.json {
        true => out.json(&BuildList { version: VERSION, builds: list })?,
        false => out.line(show::builds(&list))?,
    }
    Ok(if good { super::EXIT_OK } else { super::EXIT_FAILED })
}

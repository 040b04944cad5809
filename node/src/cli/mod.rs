//! The command line: words in, one call of the API (or of [`Local`], where there is no daemon yet), words
//! out. Data goes to standard output, everything else to standard error; a closed pipe is no error.
//! It decides nothing about the mesh. [`args`] has the words, [`run`] and [`fetch`] the two commands
//! with a journey of their own, [`daemon`] starts one.

pub mod args;
mod daemon;
mod doctor;
mod fetch;
mod install;
mod notify;
mod order;
mod pack;
mod recover;
mod run;
mod show;
mod succession;
mod tend;
mod topology;
mod why;
mod why_build;

use crate::api::client::{Client, ClientError};
use crate::api::measures::StopKind;
use crate::api::types::{ApiError, BuildList, BuildState, EvictRequest, InviteRequest, LogEvent, Ok1, VERSION};
use crate::config::{Config, TextError};
use crate::state_folder::{FolderError, FolderLock, Places, StateFolder};
use args::{Args, Command, Picture};
use async_trait::async_trait;
use clap::Parser;
use futures::StreamExt;
use std::io::{self, IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// All is well.
pub const EXIT_OK: u8 = 0;
/// Something is degraded or failed.
pub const EXIT_FAILED: u8 = 1;
/// Nobody leads.
pub const EXIT_NO_LEADER: u8 = 2;
/// No daemon, or not one of ours.
pub const EXIT_NO_DAEMON: u8 = 3;
/// The words make no sense.
pub const EXIT_USAGE: u8 = 64;
/// Within this program only: the daemon is to start again.
const EXIT_ANEW: u8 = 75;
/// Ctrl-C.
pub const EXIT_INTERRUPTED: u8 = 130;

/// What `init` is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitArgs {
    /// The host's name.
    pub host: String,
    /// The mesh's name.
    pub mesh: String,
}

/// What `init` made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitDone {
    /// Hash of the genesis.
    pub mesh_id: String,
    /// The host's peer id.
    pub peer: String,
    /// To be shown once and kept offline.
    pub recovery_key: String,
}

/// What `join` is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinArgs {
    /// The invitation.
    pub token: String,
    /// The host's name, when it is not the invitation's.
    pub name: Option<String>,
}

/// What `join` made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinDone {
    /// Hash of the genesis.
    pub mesh_id: String,
    /// The mesh's name.
    pub mesh: String,
    /// The host's name.
    pub host: String,
    /// The host's peer id.
    pub peer: String,
}

/// What a daemon says when it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The host's name.
    pub host: String,
    /// The host's peer id.
    pub peer: String,
    /// Where it listens.
    pub listening: Vec<String>,
}

/// What the command line needs where there is no daemon to ask. The driver implements it.
#[async_trait]
pub trait Local: Send + Sync + 'static {
    /// Founds a mesh in this folder.
    ///
    /// # Errors
    /// As [`Failure`] says; the folder can be used again.
    fn init(&self, folder: &StateFolder, args: InitArgs) -> Result<InitDone, Failure>;

    /// Joins a mesh through whichever lead of the token answers.
    ///
    /// # Errors
    /// Each lead that failed with its reason, in the message.
    async fn join(&self, folder: &StateFolder, config: &Config, args: JoinArgs) -> Result<JoinDone, Failure>;

    /// Runs the daemon until `stop` fires; says `ready` once it serves the API.
    ///
    /// # Errors
    /// Why it cannot start or go on.
    async fn serve(
        &self,
        folder: StateFolder,
        lock: FolderLock,
        config: Config,
        ready: oneshot::Sender<Ready>,
        stop: CancellationToken,
    ) -> Result<Ended, Failure>;
}

/// How a daemon ended that could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// For good.
    Stopped,
    /// To be started again at once: its ledger begins anew.
    Anew,
}

/// A command that did not succeed: what to say, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// What happened.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Failure {
    /// With [`EXIT_FAILED`].
    pub fn new(message: impl Into<String>) -> Self {
        Failure { code: EXIT_FAILED, message: message.into(), hint: None }
    }
    /// With [`EXIT_USAGE`].
    pub fn usage(message: impl Into<String>) -> Self {
        Failure { code: EXIT_USAGE, ..Failure::new(message) }
    }
    /// With what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<FolderError> for Failure {
    fn from(error: FolderError) -> Self {
        let code = if matches!(error, FolderError::Missing(_)) { EXIT_NO_DAEMON } else { EXIT_FAILED };
        Failure { code, ..Failure::new(error.to_string()).hint(error.hint()) }
    }
}

impl From<TextError> for Failure {
    fn from(error: TextError) -> Self {
        Failure::usage(error.to_string()).hint(error.hint)
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let code = match (error.code.as_str(), error.status) {
            ("no-leader", _) => EXIT_NO_LEADER,
            (_, 400) => EXIT_USAGE,
            _ => EXIT_FAILED,
        };
        Failure { code, message: error.message, hint: error.hint }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        let (code, hint) = match error {
            ClientError::Api(error) => return error.into(),
            ClientError::NoDaemon(_) => (EXIT_NO_DAEMON, "start it with `mesh up --detach`".to_owned()),
            ClientError::NotAllowed { owner, .. } => (
                EXIT_NO_DAEMON,
                format!("run as {owner}, or have `[api] group` in its mesh.toml name a group of yours"),
            ),
            ClientError::TimedOut | ClientError::Broken(_) | ClientError::Unexplained(_) => {
                (EXIT_FAILED, "see whether it still runs with `mesh status`; its daemon.log says more".to_owned())
            }
        };
        Failure { code, ..Failure::new(message).hint(hint) }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure { code: EXIT_OK, message: String::new(), hint: None },
            io::ErrorKind::StorageFull => Failure::new(error.to_string()).hint("make room on that disk"),
            _ => Failure::new(error.to_string()),
        }
    }
}

/// Where words go, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    json: bool,
    quiet: bool,
}

impl Out {
    /// A line of data on standard output.
    fn line(self, text: impl std::fmt::Display) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")?;
        Ok(out.flush()?)
    }
    /// A value on standard output.
    fn json(self, value: &impl serde::Serialize) -> Result<(), Failure> {
        self.line(serde_json::to_string_pretty(value).map_err(|e| Failure::new(e.to_string()))?)
    }
    /// Done, and nothing more to say: that is data only as JSON.
    fn done(self) -> Result<(), Failure> {
        if self.json { self.json(&Ok1 { version: VERSION }) } else { Ok(()) }
    }
    /// Something by the way, on standard error. A closed standard error is nobody's business.
    fn note(self, text: impl std::fmt::Display) {
        if !self.quiet {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }
}

fn say(failure: &Failure) {
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let (red, plain) = if colour { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    let mut err = io::stderr().lock();
    let _ = writeln!(err, "{red}error:{plain} {}", failure.message);
    // Who knows more has said so in the failure itself.
    let general = match failure.code {
        EXIT_USAGE => "`mesh help COMMAND` and README.md, \"build files\", say what is allowed",
        _ => "`mesh status` shows how things stand; the daemon's log says more",
    };
    let _ = writeln!(err, "hint: {}", failure.hint.as_deref().unwrap_or(general));
}

/// glibc keeps what was freed, and most of a daemon's memory would be such leftovers. It gives each thread an arena of its
/// own: here all share one. And once a large block was freed it takes later ones of that size from the heap: each dial over
/// QUIC has a receive buffer of three megabytes, of which a few pages are used, and from the heap all of it would be
/// written to and stay. Here large blocks are always mapped, and given back.
fn keep_little_of_what_is_freed() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no other thread runs yet; the calls set numbers.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 256 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 20);
    }
}

/// The whole program: reads the words, does it, says what went wrong; the exit code.
pub fn main(local: impl Local, words: impl IntoIterator<Item = std::ffi::OsString>) -> u8 {
    let args = match Args::try_parse_from(words) {
        Ok(args) => args,
        Err(error) => {
            return bad_words(&error);
        }
    };
    keep_little_of_what_is_freed();
    // One thread for all tasks: they wait nearly always, the machine's cores are for builds, and each event that another
    // thread has to be woken for costs twice. What takes long or waits for a disk runs on tokio's blocking pool.
    let done =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::from).and_then(|runtime| {
            let done = runtime.block_on(Box::pin(dispatch(local, args)));
            runtime.shutdown_timeout(Duration::from_secs(2));
            done
        });
    match done {
        Ok(EXIT_ANEW) => start_again(),
        Ok(code) => code,
        Err(failure) => {
            if !failure.message.is_empty() {
                say(&failure);
            }
            failure.code
        }
    }
}

/// Becomes the same program anew, as it was called: with the same number, and nothing of its memory.
fn start_again() -> u8 {
    let error = std::process::Command::new("/proc/self/exe").args(std::env::args_os().skip(1)).exec();
    say(&Failure::new(format!("the daemon could not start itself again: {error}")).hint("`mesh up` starts it"));
    EXIT_FAILED
}

/// Longer lines of an error repeat what was typed.
const ERROR_LINE_CHARS_MAX: usize = 200;

/// Says what is wrong with the words, in the same form as every other error; or prints the help asked for.
fn bad_words(error: &clap::Error) -> u8 {
    if !error.use_stderr() || error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return if error.use_stderr() { EXIT_USAGE } else { EXIT_OK };
    }
    let text = error.render().to_string();
    let mut err = io::stderr().lock();
    for line in text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with("For more information")) {
        let short: String =
            line.chars().take(ERROR_LINE_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let rest = if line.chars().nth(ERROR_LINE_CHARS_MAX).is_some() { "…" } else { "" };
        let _ = writeln!(err, "{short}{rest}");
    }
    let _ = writeln!(err, "hint: `mesh help` lists the commands, `mesh help COMMAND` its options");
    EXIT_USAGE
}

fn client(places: &Places, out: Out) -> Result<Client, Failure> {
    let found = places.find()?;
    if let Some(note) = found.note {
        out.note(note);
    }
    // The folder itself may be somebody else's, and its socket open to our group: only the socket decides.
    Ok(Client::new(found.path.join("mesh.sock")))
}

/// A reason is written by a person, an expiry as `24h`.
fn expires_ms(text: &str) -> Result<u64, Failure> {
    let duration = humantime::parse_duration(text)
        .map_err(|e| Failure::usage(format!("`{}`: {e}", crate::config::shorten(text))).hint("use --expires 24h"))?;
    Ok(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

async fn dispatch(local: impl Local, args: Args) -> Result<u8, Failure> {
    let out = Out { json: args.json, quiet: args.quiet };
    let places = Places::from_env(args.dir);
    match args.command {
        Command::Init { name, mesh, listen } => daemon::init(&local, &places, out, name, mesh, &listen),
        Command::Join { token, name, listen } => daemon::join(&local, &places, out, token, name, &listen).await,
        Command::Up { detach: true } => daemon::detach(&places, out).await,
        Command::Up { detach: false } => daemon::up(&local, &places, out).await,
        Command::Doctor => doctor::doctor(&places, out).await,
        Command::Install(wish) => install::install(&places, out, wish),
        Command::Uninstall { ssh, root, dry_run } => install::uninstall(out, ssh, root, dry_run),
        other => ask(&client(&places, out)?, out, other).await,
    }
}

/// Commands that ask the daemon.
async fn ask(client: &Client, out: Out, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Init { .. }
        | Command::Join { .. }
        | Command::Up { .. }
        | Command::Install(_)
        | Command::Uninstall { .. }
        | Command::Doctor => {
            return Err(Failure::usage("this command does not ask a daemon"));
        }
        Command::Invite { name, expires, signer } => {
            let request = InviteRequest { name, expires_ms: expires_ms(&expires)?, signer };
            let token = client.invite(&request).await?;
            match out.json {
                true => out.json(&crate::api::types::Invitation { version: VERSION, token })?,
                false => out.line(token)?,
            }
            out.note(format!("valid for {expires}, once; on the new host: mesh join TOKEN && mesh up --detach"));
        }
        Command::Leave => {
            client.leave().await?;
            out.done()?;
            out.note("left the mesh; the daemon stops, and its state folder is of no more use");
        }
        Command::Evict { host, reason } => revoke(client, out, host, reason, false).await?,
        Command::Ban { host, reason } => revoke(client, out, host, reason, true).await?,
        Command::Restart { host, reason, force } => {
            order::order(client, out, &host, false, reason, force).await?;
        }
        Command::Reboot { host, reason, force } => {
            order::order(client, out, &host, true, reason, force).await?;
        }
        Command::Rename { old, new } => succession::rename(client, out, old, new).await?,
        Command::Replace { host, reason, expires, force } => {
            succession::replace(client, out, host, reason, &expires, force).await?;
        }
        Command::Recover { key, print, apply, dry_run, force } => {
            return recover::recover(client, out, recover::Wish { key, print, apply, dry_run, force }).await;
        }
        Command::Status { watch } => return status(client, out, watch).await,
        Command::Ping { host, count } => {
            if !mesh::roster::valid_host_name(&host) {
                return Err(crate::api::server::bad_host_name(&host).into());
            }
            let report = client.ping(&host, count).await?;
            match out.json {
                true => out.json(&report)?,
                false => out.line(show::ping(&report))?,
            }
            return Ok(if report.round_trips_us.is_empty() { EXIT_FAILED } else { EXIT_OK });
        }
        Command::Why { what } => return why::why(client, out, &what).await,
        Command::Block(stop) => tend::stop(client, out, StopKind::Block, stop).await?,
        Command::Drain(stop) => tend::stop(client, out, StopKind::Drain, stop).await?,
        Command::Unblock { host } => tend::lift(client, out, StopKind::Block, Some(host), String::new()).await?,
        Command::Undrain { host } => tend::lift(client, out, StopKind::Drain, Some(host), String::new()).await?,
        Command::Pause { lasts, reason } => tend::pause(client, out, &lasts, reason).await?,
        Command::Resume { reason } => tend::lift(client, out, StopKind::Pause, None, reason).await?,
        Command::Clear { host, reason } => tend::clear(client, out, host, reason).await?,
        Command::Policy { what } => tend::policy(client, out, what).await?,
        Command::Plan => return tend::plan(client, out).await,
        Command::Audit { host, since } => return tend::audit(client, out, host, since).await,
        Command::Topology { format } => {
            let seen = client.topology().await?;
            match if out.json { Picture::Json } else { format } {
                Picture::Json => out.json(&seen)?,
                Picture::Table => out.line(topology::table(&seen))?,
                Picture::Mermaid => out.line(topology::mermaid(&seen))?,
                Picture::Svg => out.line(topology::svg(&seen))?,
            }
        }
        Command::Run(wish) => return run::run(client, out, wish).await,
        Command::Build { file, detach } => return run::build(client, out, &file, detach).await,
        Command::Builds { state, limit } => {
            let builds = client.builds(crate::api::types::BuildFilter { state, limit: Some(limit) }).await?;
            match out.json {
                true => out.json(&BuildList { version: VERSION, builds })?,
                false => out.line(show::builds(&builds))?,
            }
        }
        Command::Logs { id, follow, attempt } => {
            let mut events = client.logs(id, attempt, follow).await?;
            while let Some(event) = events.next().await {
                log_event(out, event?)?;
            }
        }
        Command::Fetch { id, into } => return fetch::fetch(client, out, id, &into).await,
        Command::Cancel { ids } => {
            client.cancel(&ids).await?;
            let mut builds = vec![];
            for id in ids {
                builds.push(client.build(id).await?.summary);
            }
            for build in &builds {
                out.note(match build.state {
                    BuildState::Cancelled => format!("cancelled {}", build.id),
                    state => format!("{} had ended before: {}", build.id, state.word()),
                });
            }
            if out.json {
                out.json(&BuildList { version: VERSION, builds })?;
            }
        }
        Command::Retry { id } => {
            let new = client.retry(id).await?;
            match out.json {
                true => out.json(&crate::api::types::BuildIds { version: VERSION, builds: vec![new] })?,
                false => out.line(new)?,
            }
        }
    }
    Ok(EXIT_OK)
}

/// The log itself is data; what is said about it is not.
fn log_event(out: Out, event: LogEvent) -> Result<(), Failure> {
    match event {
        LogEvent::Data(bytes) => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(&bytes)?;
            stdout.flush()?;
        }
        LogEvent::Attempt { attempt, host } => out.note(format!("attempt {attempt} on {host}")),
        LogEvent::Lost(bytes) => out.note(format!("({bytes} bytes are missing here)")),
        LogEvent::End { text } if !text.is_empty() => out.note(text),
        LogEvent::End { .. } => {}
    }
    Ok(())
}

async fn revoke(client: &Client, out: Out, host: String, reason: String, ban: bool) -> Result<(), Failure> {
    let request = EvictRequest { host, ban, reason };
    client.evict(&request).await?;
    out.done()?;
    out.note(match ban {
        true => format!("{} is banned: its key is out for good", request.host),
        false => format!("{} is out; `mesh invite {}` lets it in again", request.host, request.host),
    });
    Ok(())
}

async fn status(client: &Client, out: Out, watch: bool) -> Result<u8, Failure> {
    loop {
        let status = client.status().await?;
        let text = show::status(&status);
        match (out.json, watch) {
            (true, _) => out.json(&status)?,
            (false, true) if io::stdout().is_terminal() => out.line(format!("\x1b[H\x1b[2J{text}"))?,
            (false, _) => out.line(text)?,
        }
        if !watch {
            return Ok(show::exit_code(&status));
        }
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => return Ok(EXIT_OK),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;

//! `init`, `join`, `up`: where there is no daemon yet. The work is [`Local`]'s; here are the folder, the
//! words, the signals, and the way into the background.

use super::{Ended, Failure, InitArgs, JoinArgs, Local, Out, Ready};
use crate::api::server::bad_host_name;
use crate::config::{Config, parse_address};
use crate::state_folder::{Places, StateFolder};
use mesh::roster::valid_host_name;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, IsTerminal, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How much of a log's end is shown when a daemon did not come up.
const TAIL_BYTES: u64 = 4 << 10;

/// A token is a few hundred bytes; more is somebody's mistake.
const TOKEN_BYTES_MAX: u64 = 64 << 10;

fn check_listen(listen: &[String]) -> Result<(), Failure> {
    for address in listen {
        parse_address(address, true).map_err(|(what, hint)| Failure::usage(what).hint(hint))?;
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), Failure> {
    if valid_host_name(name) { Ok(()) } else { Err(bad_host_name(name).into()) }
}

/// The machine's own name as a host name: its first label in lower case, other characters as `-`.
pub(super) fn own_name(raw: &str) -> Option<String> {
    let label = raw.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let name: String = label.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    let name = name.trim_matches('-');
    valid_host_name(name).then(|| name.to_owned())
}

fn folder(places: &Places, listen: &[String]) -> Result<(StateFolder, Config), Failure> {
    check_listen(listen)?;
    let folder = StateFolder::create(&places.for_new())?;
    folder.write_config(&Config::text(listen))?;
    let config = Config::load(&folder.config())?;
    Ok((folder, config))
}

pub(super) fn init(
    local: &impl Local,
    places: &Places,
    out: Out,
    name: Option<String>,
    mesh: String,
    listen: &[String],
) -> Result<u8, Failure> {
    let host = match name {
        Some(name) => name,
        None => nix::unistd::gethostname().ok().and_then(|n| own_name(&n.to_string_lossy())).ok_or_else(|| {
            Failure::usage("this machine's name is no host name")
                .hint("give one with --name, for example --name builder-1")
        })?,
    };
    check_name(&host)?;
    check_name(&mesh)?;
    let (folder, _) = folder(places, listen)?;
    let _lock = folder.lock()?;
    let done = local.init(&folder, InitArgs { host: host.clone(), mesh: mesh.clone() })?;
    if out.json {
        out.json(&serde_json::json!({
            "version": crate::api::types::VERSION,
            "mesh": { "id": done.mesh_id, "name": mesh },
            "host": host,
            "peer": done.peer,
            "dir": folder.path(),
            "recovery_key": done.recovery_key,
        }))?;
    } else {
        out.note(format!("mesh {mesh} ({}) founded by {host} in {}", done.mesh_id, folder.path().display()));
        out.line(&done.recovery_key)?;
    }
    out.note("warning: this is the recovery key, shown once and stored nowhere: keep it offline");
    out.note("next: mesh up --detach");
    Ok(super::EXIT_OK)
}

pub(super) async fn join(
    local: &impl Local,
    places: &Places,
    out: Out,
    token: String,
    name: Option<String>,
    listen: &[String],
) -> Result<u8, Failure> {
    if let Some(name) = &name {
        check_name(name)?;
    }
    let token = match token.as_str() {
        "-" => {
            let mut text = String::new();
            std::io::stdin().take(TOKEN_BYTES_MAX).read_to_string(&mut text)?;
            text
        }
        _ => token,
    };
    let token = token.trim().to_owned();
    if token.is_empty() || token.len() as u64 >= TOKEN_BYTES_MAX || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(
            Failure::usage("that is no invitation").hint("make one with `mesh invite NAME` on a host of the mesh")
        );
    }
    let (folder, config) = folder(places, listen)?;
    let _lock = folder.lock()?;
    let done = local.join(&folder, &config, JoinArgs { token, name }).await?;
    if out.json {
        out.json(&serde_json::json!({
            "version": crate::api::types::VERSION,
            "mesh": { "id": done.mesh_id, "name": done.mesh },
            "host": done.host,
            "peer": done.peer,
            "dir": folder.path(),
        }))?;
    } else {
        out.note(format!("{} joined mesh {} ({})", done.host, done.mesh, done.mesh_id));
        out.note("next: mesh up --detach");
    }
    Ok(super::EXIT_OK)
}

fn own_folder(places: &Places, out: Out) -> Result<StateFolder, Failure> {
    let found = places.find()?;
    if let Some(note) = found.note {
        out.note(note);
    }
    let folder = StateFolder::open(&found.path)?;
    match folder.is_enrolled() {
        true => Ok(folder),
        false => Err(folder.genesis().err().map_or_else(|| Failure::new("the folder changed meanwhile"), Into::into)),
    }
}

fn ready_line(out: Out, ready: &Ready) -> Result<(), Failure> {
    match out.json {
        true => out.line(serde_json::json!({
            "version": crate::api::types::VERSION,
            "host": ready.host,
            "peer": ready.peer,
            "listening": ready.listening,
        })),
        false => {
            let listening = ready.listening.join(", ");
            out.line(format!("mesh: {} is up, peer {}, listening on {listening}", ready.host, ready.peer))
        }
    }
}

/// In front: one line when ready, then only the log on standard error, until a signal.
pub(super) async fn up(local: &impl Local, places: &Places, out: Out) -> Result<u8, Failure> {
    let folder = own_folder(places, out)?;
    let lock = folder.lock()?;
    let config = Config::load(&folder.config())?;
    let filter = std::env::var("MESH_LOG").unwrap_or_else(|_| "info,openraft=error,libp2p=warn".into());
    let filter = tracing_subscriber::EnvFilter::try_new(&filter)
        .map_err(|e| Failure::usage(format!("MESH_LOG: {e}")).hint("for example MESH_LOG=info,libp2p=debug"))?;
    let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    // Set twice only where a test runs two daemons in one process; the first stays.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(std::io::stderr).finish();
    let _ = log.with(crate::consensus::Quiet).try_init();
    let stop = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (tell, told) = oneshot::channel();
    let mut served = std::pin::pin!(local.serve(folder, lock, config, tell, stop.clone()));
    let mut told = std::pin::pin!(told);
    let mut waiting = true;
    let service = super::notify::Service::from_env();
    let mut alive = tokio::time::interval(service.alive_every());
    loop {
        tokio::select! {
            biased;
            _ = term.recv() => { service.say("STOPPING=1"); stop.cancel(); }
            _ = int.recv() => { service.say("STOPPING=1"); stop.cancel(); }
            _ = alive.tick() => service.say("WATCHDOG=1"),
            ready = &mut told, if waiting => {
                waiting = false;
                if let Ok(ready) = ready {
                    service.say(&format!("READY=1\nSTATUS={} serves as {}", ready.host, ready.peer));
                    // Whoever started us may be gone already; a daemon lives on without its audience.
                    let _ = ready_line(out, &ready);
                }
            }
            done = &mut served => return done.map(|ended| match ended {
                Ended::Stopped => super::EXIT_OK,
                Ended::Anew => super::EXIT_ANEW,
            }),
        }
    }
}

/// Starts this program again in a session of its own. Its standard output is a pipe to us: the ready
/// line comes through it, or its end when it could not start.
pub(super) async fn detach(places: &Places, out: Out) -> Result<u8, Failure> {
    let folder = own_folder(places, out)?;
    Config::load(&folder.config())?;
    drop(folder.lock()?); // says at once who holds it
    let mut log = OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(folder.log())?;
    let begin = log.seek(SeekFrom::End(0))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--dir").arg(folder.path()).args(out.json.then_some("--json")).arg("up");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.try_clone()?).current_dir("/");
    // SAFETY: setsid is async-signal-safe and touches nothing of ours.
    unsafe { command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(Into::into)) };
    let mut child = command.spawn()?;
    let Some(stdout) = child.stdout.take() else { return Err(Failure::new("the daemon has no standard output")) };
    let read = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).map(|_| line)
    });
    let line = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => {
            child.kill()?;
            child.wait()?;
            return Ok(super::EXIT_INTERRUPTED);
        }
        line = read => line.map_err(|e| Failure::new(e.to_string()))??,
    };
    if line.ends_with('\n') {
        out.line(line.trim_end())?;
        return Ok(super::EXIT_OK);
    }
    let status = child.wait()?;
    let said = tail(&folder.log(), begin)?;
    let code = status.code().and_then(|c| u8::try_from(c).ok()).filter(|c| *c != 0).unwrap_or(super::EXIT_FAILED);
    let message = format!("the daemon did not start ({status}); it said:\n{}", said.trim_end());
    Err(Failure { code, ..Failure::new(message).hint(format!("the whole log is {}", folder.log().display())) })
}

/// What was written since `begin`, its end when that is long.
fn tail(path: &Path, begin: u64) -> Result<String, Failure> {
    let mut file = std::fs::File::open(path)?;
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(begin.max(end.saturating_sub(TAIL_BYTES))))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

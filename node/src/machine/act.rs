//! What a host does to itself when it has taken an order on: it says so, and starts a command. Daemon and `mesh-guard` do
//! it alike.
//!
//! The command is the owner's (`[machine] restart_command`, `reboot_command`), else the init system's own. It finds in its
//! environment what it is for: `MESH_ACT` (`restart` or `reboot`), `MESH_ORDER`, `MESH_REQUESTER` and `MESH_REASON`.
//! Whether it may be started at all was decided before ([`crate::guard`]); that it worked is proved by the next life.

use crate::seams::Errand;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// How long a command may take before it is left alone: one that restarts its own daemon need not come back.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);
/// How long telling the users may take: a terminal that is stopped holds its writer.
const WALL_WITHIN: Duration = Duration::from_secs(5);
/// What is kept of a failed command's words.
const WORDS_BYTES_MAX: u64 = 512;
/// Facility daemon, severity warning (RFC 5424, 6.2.1).
const PRIORITY: u8 = 3 * 8 + 4;

/// How the service and the machine are restarted; the init system's own way where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    /// Restarts the mesh's service.
    pub restart: Vec<String>,
    /// Restarts the machine.
    pub reboot: Vec<String>,
}

impl Commands {
    /// The words of the command for an act, on a system whose files are below `root`.
    ///
    /// # Errors
    /// When nobody has said how and no init system is there that knows.
    fn words(&self, reboot: bool, root: &Path) -> io::Result<Vec<String>> {
        let own = if reboot { &self.reboot } else { &self.restart };
        if !own.is_empty() {
            return Ok(own.clone());
        }
        let systemd = root.join("run/systemd/system").is_dir();
        let openrc = root.join("run/openrc").is_dir();
        let words: &[&str] = match (reboot, systemd, openrc) {
            (true, true, _) => &["systemctl", "reboot"],
            (false, true, _) => &["systemctl", "--no-block", "restart", "mesh.service"],
            (true, false, true) => &["openrc-shutdown", "--reboot", "now"],
            (false, false, true) => &["rc-service", "mesh", "restart"],
            (_, false, false) => {
                let (what, key) =
                    if reboot { ("the machine", "reboot_command") } else { ("the service", "restart_command") };
                let text = format!(
                    "no init system is here that could restart {what}: set `{key}` below [machine] in mesh.toml"
                );
                return Err(io::Error::new(io::ErrorKind::Unsupported, text));
            }
        };
        Ok(words.iter().map(|word| (*word).to_owned()).collect())
    }

    /// Starts the command, and waits for its end for a while.
    ///
    /// # Errors
    /// When there is no such command, or it says that it failed.
    pub async fn carry_out(&self, errand: &Errand) -> io::Result<()> {
        let words = self.words(errand.act.is_reboot(), Path::new("/"))?;
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .env("MESH_ACT", if errand.act.is_reboot() { "reboot" } else { "restart" })
            .env("MESH_ORDER", errand.order.to_string())
            .env("MESH_REQUESTER", one_line(&errand.requester))
            .env("MESH_REASON", one_line(&errand.reason))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("`{}` cannot be started: {error}", words[0])))?;
        let mut said = Vec::new();
        let ended = async {
            if let Some(stderr) = child.stderr.take() {
                let _ = stderr.take(WORDS_BYTES_MAX).read_to_end(&mut said).await;
            }
            child.wait().await
        };
        match tokio::time::timeout(COMMAND_WITHIN, ended).await {
            Ok(Ok(status)) if !status.success() => {
                let said = one_line(&String::from_utf8_lossy(&said));
                Err(io::Error::other(format!("`{}` ended with {status}: {said}", words[0])))
            }
            Ok(Err(error)) => Err(error),
            Ok(Ok(_)) | Err(_) => Ok(()),
        }
    }
}

/// What somebody else wrote, for a place where a line is one thing.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

/// Says a line to the system's journal (syslog(3)'s socket, which journald serves too) and to the users who are logged in.
pub async fn tell(line: &str) {
    let line = one_line(line);
    if let Err(error) = log_to(Path::new("/dev/log"), &line) {
        tracing::debug!(%error, "the system's journal was not told");
    }
    let wall = async {
        let mut child =
            Command::new("wall").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(format!("mesh: {line}\n").as_bytes()).await?;
        }
        child.wait().await
    };
    match tokio::time::timeout(WALL_WITHIN, wall).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the users were not told"),
        Err(_) => tracing::debug!("telling the users took too long"),
    }
}

/// Says a line to the system's journal alone: what was not done is nobody's interruption.
pub fn record(line: &str) {
    if let Err(error) = log_to(Path::new("/dev/log"), &one_line(line)) {
        tracing::debug!(%error, "the system's journal was not told");
    }
}

fn log_to(socket: &Path, line: &str) -> io::Result<()> {
    let journal = UnixDatagram::unbound()?;
    journal.set_nonblocking(true)?; // a journal that hangs holds nobody up
    let record = format!("<{PRIORITY}>mesh[{}]: {line}", std::process::id());
    journal.send_to(record.as_bytes(), socket).map(drop)
}

#[cfg(test)]
#[path = "act_tests.rs"]
mod tests;

//! Checks of this host that need no daemon: one function a check, each over the facts alone.

use super::Finding;
use super::Severity::{Error, Note, Warning};
use super::firewall::{Rules, closed};
use crate::api::types::{HostState, MeshFacts};
use std::path::PathBuf;

/// Less room than this is a warning: one large build's outputs.
const FREE_BYTES_LOW: u64 = 5 << 30;
/// Less than this, and the ledger itself may stop.
const FREE_BYTES_LEAST: u64 = 512 << 20;

/// What was seen of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalFacts {
    /// The state folder, when there is one.
    pub folder: Option<PathBuf>,
    /// Where one was looked for.
    pub looked: Vec<PathBuf>,
    /// Whether it belongs to a mesh, and whether this host was taken out of it.
    pub enrolled: bool,
    /// See `enrolled`.
    pub outcast: bool,
    /// Who asks.
    pub me: u32,
    /// The folder itself and the files in it.
    pub files: Vec<FileFact>,
    /// Why `mesh.toml` cannot be used.
    pub config_error: Option<String>,
    /// Whether builds without a sandbox are allowed.
    pub allow_none: bool,
    /// Why no daemon answers, when none does.
    pub no_daemon: Option<String>,
    /// Whether the service manager starts the mesh at boot, when there is one that is known.
    pub boot_enabled: Option<bool>,
    /// Bytes that can still be stored where blobs are, and where builds run.
    pub free_bytes: Vec<(PathBuf, u64)>,
    /// Why bubblewrap cannot run a program.
    pub no_sandbox: Option<String>,
    /// The user that builds run as, when the daemon is root, and the name of a user of that number.
    pub build_user: Option<(u32, Option<String>)>,
    /// Ports that the mesh is to listen on.
    pub ports: Vec<u16>,
    /// This host's firewall, when it has one that can be read.
    pub firewall: Option<Rules>,
    /// What other parts found by themselves: sshd's rules.
    pub others: Vec<Finding>,
}

/// A file, or the state folder (`.`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFact {
    /// Its name in the folder.
    pub name: String,
    /// Its permission bits.
    pub mode: u32,
    /// Its owner.
    pub owner: u32,
}

/// Every finding.
pub fn findings(facts: &LocalFacts, mesh: Option<&MeshFacts>) -> Vec<Finding> {
    if facts.folder.is_none() {
        let looked: Vec<String> = facts.looked.iter().map(|path| path.display().to_string()).collect();
        let text = format!("this host is in no mesh: no state folder at {}", looked.join(" or "));
        let advice = "start a mesh with `mesh init`, join one with `mesh join TOKEN`, or say where with --dir";
        let mut all = vec![Finding::new(Error, "no-folder", text, advice)];
        all.extend(sandbox(facts));
        return all;
    }
    let checks: [fn(&LocalFacts) -> Vec<Finding>; 8] =
        [enrolled, rights, config, daemon, at_boot, disk, sandbox, build_user];
    let mut all: Vec<Finding> = checks.iter().flat_map(|check| check(facts)).collect();
    all.extend(port(facts, mesh));
    all.extend(facts.others.iter().cloned());
    all
}

fn enrolled(facts: &LocalFacts) -> Vec<Finding> {
    match (facts.enrolled, facts.outcast) {
        (false, _) => {
            let text = "the state folder belongs to no mesh yet";
            vec![Finding::new(Error, "not-enrolled", text, "finish it with `mesh init` or `mesh join TOKEN`")]
        }
        (true, true) => {
            let advice = "ask for a new invitation, and join with a fresh state folder (--dir)";
            vec![Finding::new(Error, "outcast", "this host was taken out of the mesh", advice)]
        }
        (true, false) => vec![],
    }
}

/// Files that are secret, or give whoever reads them the rights of this host.
fn is_secret(name: &str) -> bool {
    matches!(name, "seed" | "store-id")
}

fn rights(facts: &LocalFacts) -> Vec<Finding> {
    let Some(folder) = &facts.folder else { return vec![] };
    let owner = facts.files.iter().find(|file| file.name == ".").map(|file| file.owner);
    let mut all = vec![];
    for FileFact { name, mode, owner: of } in &facts.files {
        let path = if name == "." { folder.clone() } else { folder.join(name) };
        let path = path.display();
        if Some(*of) != owner {
            let owner = owner.unwrap_or_default();
            let text = format!("{path} belongs to user {of}, and the folder to user {owner}");
            all.push(Finding::new(Error, "owner", text, format!("chown {owner} {path}")));
        }
        let (bad, severity, right) = match name.as_str() {
            "." => (mode & 0o022, Error, 0o711),
            name if is_secret(name) => (mode & 0o077, Error, 0o600),
            // A group may be let in to the API on purpose.
            "mesh.sock" => (mode & 0o007, Error, 0o600),
            _ => (mode & 0o022, Error, 0o600),
        };
        if bad != 0 {
            let text = format!("{path} is open to others (mode {mode:04o})");
            let mut advice = format!("chmod {right:o} {path}");
            if is_secret(name) {
                advice += "; if somebody may have read it, evict this host and join it anew";
            }
            all.push(Finding::new(severity, "rights", text, advice));
        }
    }
    if owner.is_some_and(|owner| owner != facts.me && facts.me != 0) {
        let text = format!("{} belongs to another user: not everything in it could be looked at", folder.display());
        all.push(Finding::new(Note, "not-yours", text, "run `mesh doctor` as the user that the daemon runs as"));
    }
    all
}

fn config(facts: &LocalFacts) -> Vec<Finding> {
    let advice = "mend mesh.toml: the daemon does not start with it; README.md, \"mesh.toml\", has all keys";
    facts.config_error.iter().map(|error| Finding::new(Error, "config", error.clone(), advice)).collect()
}

fn daemon(facts: &LocalFacts) -> Vec<Finding> {
    let Some(why) = facts.no_daemon.as_ref().filter(|_| facts.enrolled && !facts.outcast) else { return vec![] };
    let advice = match facts.boot_enabled {
        Some(true) => "start its service (`systemctl start mesh`, `rc-service mesh start`), or `mesh up --detach`",
        _ => "`mesh up --detach`; daemon.log in the state folder says why it ended",
    };
    vec![Finding::new(Error, "no-daemon", why.clone(), advice)]
}

fn at_boot(facts: &LocalFacts) -> Vec<Finding> {
    match facts.boot_enabled {
        Some(true) => vec![],
        Some(false) => {
            let text = "this host will not start the mesh when it boots";
            vec![Finding::new(Warning, "not-at-boot", text, "`mesh install` writes the service and enables it")]
        }
        None => {
            let text = "no service manager that is known runs here: whether the mesh starts at boot cannot be told";
            vec![Finding::new(Note, "boot-unknown", text, "see to it that `mesh up` is run at boot")]
        }
    }
}

fn disk(facts: &LocalFacts) -> Vec<Finding> {
    let found = |(path, bytes): &(PathBuf, u64)| {
        let severity = if *bytes < FREE_BYTES_LEAST { Error } else { Warning };
        let text = format!("{} MiB are free at {}", bytes >> 20, path.display());
        let advice =
            "make room: builds cannot store what they make, and a ledger that cannot be written stops this host";
        Finding::new(severity, "disk", text, advice)
    };
    facts.free_bytes.iter().filter(|(_, bytes)| *bytes < FREE_BYTES_LOW).map(found).collect()
}

fn sandbox(facts: &LocalFacts) -> Vec<Finding> {
    let Some(why) = &facts.no_sandbox else { return vec![] };
    let severity = if facts.allow_none { Warning } else { Error };
    let text = format!("bubblewrap does not run here ({why}): builds in a sandbox go to other hosts");
    let advice =
        "install the package `bubblewrap`; where user namespaces are off: `sysctl kernel.unprivileged_userns_clone=1`";
    vec![Finding::new(severity, "no-sandbox", text, advice)]
}

fn build_user(facts: &LocalFacts) -> Vec<Finding> {
    match &facts.build_user {
        None => {
            let text =
                "the daemon is not root: builds run as its own user, and what gets out of the sandbox has its rights";
            vec![Finding::new(
                Note,
                "build-user",
                text,
                "run the daemon as root (`mesh install`) for a build user of its own",
            )]
        }
        Some((0, _)) => {
            let text = "builds would run as root: the daemon refuses to start";
            vec![Finding::new(
                Error,
                "build-user",
                text,
                "set `[sandbox] build_uid` in mesh.toml to a number of its own",
            )]
        }
        Some((uid, Some(name))) if name != "mesh-build" => {
            let text = format!("builds run as user {uid}, which is `{name}` here: they have its rights");
            vec![Finding::new(
                Warning,
                "build-user",
                text,
                "set `[sandbox] build_uid` in mesh.toml to a number of its own",
            )]
        }
        Some(_) => vec![],
    }
}

/// Others have to be able to dial this host: by its own firewall, and by what has come of it.
fn port(facts: &LocalFacts, mesh: Option<&MeshFacts>) -> Vec<Finding> {
    let reached = mesh.is_some_and(|mesh| mesh.reached);
    let mut all = vec![];
    for port in &facts.ports {
        let lines = facts.firewall.as_ref().map(|rules| closed(rules, *port)).unwrap_or_default();
        if !lines.is_empty() {
            let text = format!("the firewall of this host does not let port {port} through");
            all.push(Finding::new(Warning, "port", text, lines.join("; ")));
        }
    }
    // Nobody has tried for long enough, or nobody else is there: then it says nothing.
    let alone = mesh
        .is_none_or(|m| m.up_ms < 120_000 || !m.hosts.iter().any(|h| h.name != m.host && h.state == HostState::Alive));
    if all.is_empty() && !reached && !alone {
        let port = facts.ports.first().copied().unwrap_or(crate::config::DEFAULT_PORT);
        let text =
            "no other host has dialled this one at an address of its own: it is reached by what it dialled itself";
        let advice = format!(
            "where others should be able to dial it, let TCP and UDP port {port} through the firewall and the router"
        );
        all.push(Finding::new(Note, "port", text, advice));
    }
    all
}

#[cfg(test)]
#[path = "local_tests.rs"]
mod tests;

//! Looks at this host for the doctor. Reads, runs a few programs that only print, changes nothing; what cannot be seen
//! is left out of the facts rather than guessed.

use super::firewall::Rules;
use super::local::{FileFact, LocalFacts};
use super::{Finding, Severity};
use crate::config::Config;
use crate::install::check;
use crate::machine::{BUILD_USER, boot_enabled};
use crate::state_folder::{FolderError, Places, StateFolder};
use libp2p::multiaddr::Protocol as Part;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// A program that only prints has printed by then.
const WITHIN: Duration = Duration::from_secs(5);
/// A folder with more files than this is not only ours; the rest is not looked at.
const FILES_MAX: usize = 256;

/// What can be seen of this host. `no_daemon` says why none answered.
pub async fn gather(places: &Places, no_daemon: Option<String>) -> LocalFacts {
    let me = nix::unistd::geteuid();
    let mut facts = LocalFacts {
        me: me.as_raw(),
        no_daemon,
        boot_enabled: boot_enabled(Path::new("/")),
        no_sandbox: no_sandbox().await,
        ..LocalFacts::default()
    };
    let path = match places.find() {
        Ok(found) => found.path,
        Err(FolderError::Missing(looked)) => {
            facts.looked = looked;
            return facts;
        }
        Err(_) => return facts,
    };
    let config = Config::load(&path.join("mesh.toml"));
    facts.config_error = config.as_ref().err().map(ToString::to_string);
    let config = config.unwrap_or_default();
    facts.allow_none = config.sandbox.allow_none;
    facts.enrolled = path.join("genesis").exists();
    facts.outcast = path.join("outcast").exists();
    facts.files = files(&path);
    let owner = facts.files.iter().find(|file| file.name == ".").map_or(facts.me, |file| file.owner);
    if owner == 0 {
        let uid = config.sandbox.build_uid.unwrap_or(BUILD_USER);
        let name = nix::unistd::User::from_uid(uid.into()).ok().flatten().map(|user| user.name);
        facts.build_user = Some((uid, name));
    }
    let work = config.sandbox.work.clone().unwrap_or_else(|| path.join("work"));
    facts.free_bytes = free_bytes(&[path.join("blobs"), work]);
    facts.ports = ports(&config);
    facts.firewall = if me.is_root() { firewall().await } else { None };
    facts.others = others(&path);
    facts.folder = Some(path);
    facts
}

/// What other parts of the program find by themselves: the rules of the guard's own sshd, where that is installed.
fn others(folder: &Path) -> Vec<Finding> {
    let Some(keys) = StateFolder::open(folder).ok().and_then(|folder| folder.keys().ok()) else { return vec![] };
    let door = check::door_installed(Path::new("/"), folder, &keys).into_iter();
    let finding = |check::Finding { severity, what, advice }| {
        let severity = match severity {
            check::Severity::Warning => Severity::Warning,
            check::Severity::Error => Severity::Error,
        };
        Finding::new(severity, "guard-door", what, advice)
    };
    door.map(finding).collect()
}

fn files(folder: &Path) -> Vec<FileFact> {
    let mut paths = vec![(".".to_owned(), folder.to_owned())];
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    paths.extend(entries.take(FILES_MAX).filter_map(|e| Some((e.file_name().into_string().ok()?, e.path()))));
    let known = |(name, path): (String, PathBuf)| {
        let meta = std::fs::symlink_metadata(path).ok()?;
        // What builds leave is theirs, and goes with them.
        (name != "work").then(|| FileFact { name, mode: meta.mode() & 0o7777, owner: meta.uid() })
    };
    let mut all: Vec<FileFact> = paths.into_iter().filter_map(known).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// Each disk once.
fn free_bytes(paths: &[PathBuf]) -> Vec<(PathBuf, u64)> {
    let mut all: Vec<(PathBuf, u64)> = vec![];
    let mut seen = vec![];
    for path in paths {
        let (Ok(stat), Ok(meta)) = (nix::sys::statvfs::statvfs(path), std::fs::metadata(path)) else { continue };
        if !seen.contains(&meta.dev()) {
            seen.push(meta.dev());
            all.push((path.clone(), stat.blocks_available() * stat.fragment_size()));
        }
    }
    all
}

fn ports(config: &Config) -> Vec<u16> {
    let port = |part: Part<'_>| match part {
        Part::Tcp(port) | Part::Udp(port) if port != 0 => Some(port),
        _ => None,
    };
    let mut all: Vec<u16> = config.listen.iter().filter_map(|address| address.iter().find_map(port)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// What a program prints, when it is there and ends well.
async fn printed(program: &str, args: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stderr(Stdio::null()).env("LC_ALL", "C").kill_on_drop(true);
    let out = tokio::time::timeout(WITHIN, command.output()).await.ok()?.ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
}

/// The firewall that this host's owner works with: the friendliest that is in use.
async fn firewall() -> Option<Rules> {
    if let Some(text) = printed("ufw", &["status"]).await.filter(|text| text.contains("Status: active")) {
        return Some(Rules::Ufw(text));
    }
    if printed("firewall-cmd", &["--state"]).await.is_some() {
        return printed("firewall-cmd", &["--list-ports"]).await.map(Rules::Firewalld);
    }
    if let Some(text) = printed("nft", &["list", "ruleset"]).await.filter(|text| text.contains("hook input")) {
        return Some(Rules::Nft(text));
    }
    printed("iptables", &["-S", "INPUT"]).await.map(Rules::Iptables)
}

/// Why bubblewrap cannot run a program here.
async fn no_sandbox() -> Option<String> {
    let mut command = Command::new("bwrap");
    command.args(["--ro-bind", "/", "/", "--unshare-all", "--", "/bin/true"]);
    command.stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(WITHIN, command.output()).await {
        Err(_) => Some("it does not end".into()),
        Ok(Err(error)) => Some(error.to_string()),
        Ok(Ok(out)) if out.status.success() => None,
        Ok(Ok(out)) => Some(String::from_utf8_lossy(&out.stderr).lines().next().unwrap_or("it fails").to_owned()),
    }
}

/// Whether a daemon's folder can be opened as the daemon would; for the advice when none answers.
pub fn why_not_opened(folder: &Path) -> Option<FolderError> {
    StateFolder::open(folder).err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_is_seen_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let folder = StateFolder::create(&dir.path().join("m")).unwrap();
        std::fs::write(folder.config(), "listen = [\"127.0.0.1:7411\"]\n[sandbox]\nallow_none = true\n").unwrap();
        let places = Places { flag: Some(folder.path().to_owned()), ..Places::default() };
        let facts = gather(&places, Some("nobody".into())).await;
        assert_eq!(facts.folder.as_deref(), Some(folder.path()));
        assert!(!facts.enrolled && facts.allow_none && facts.config_error.is_none());
        assert_eq!(facts.ports, [7411]);
        let mode = |name: &str| facts.files.iter().find(|f| f.name == name).map(|f| f.mode);
        assert_eq!((mode("."), mode("seed"), mode("store-id")), (Some(0o711), Some(0o600), Some(0o600)));
        assert_eq!(facts.free_bytes.len(), 1, "one disk");
        assert!(facts.free_bytes[0].1 > 0);

        std::fs::write(folder.config(), "listn = []\n").unwrap();
        assert!(gather(&places, None).await.config_error.is_some_and(|e| e.contains("listn")));
        let nowhere = Places { flag: Some(dir.path().join("x")), ..Places::default() };
        assert_eq!(gather(&nowhere, None).await.looked, [dir.path().join("x")]);
    }
}

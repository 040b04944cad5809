//! What is wrong with an installation: whether the mesh starts at boot, and what sshd insists on for the guard's door.
//! Reads files and nothing else; `mesh install --check` and `mesh doctor` show what it finds.

use super::door::{self, key_of};
use super::{DOOR_SERVICE, Init, PROGRAMS, SERVICE, below, is_ours, read_small, unsafe_part};
use mesh::identity::Keys;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Warning,
    /// Something does not work.
    Error,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// What.
    pub what: String,
    /// What to do.
    pub advice: String,
}

fn finding(severity: Severity, what: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { severity, what: what.into(), advice: advice.into() }
}

/// Looks at the machine below `root` for the daemon of this state folder; its keys tell whether the door's key is the one
/// that it attests. Empty when all is well. The door is looked at only where there is one.
pub fn check(root: &Path, folder: &Path, keys: &Keys) -> Vec<Finding> {
    let mut found = at_boot(root, folder);
    found.extend(door_installed(root, folder, keys));
    found
}

/// What sshd would refuse at the guard's door, where there is one; for `mesh doctor`, which asks of the boot itself.
pub fn door_installed(root: &Path, folder: &Path, keys: &Keys) -> Vec<Finding> {
    if below(root, &door::config()).exists() { at_the_door(root, folder, keys) } else { vec![] }
}

/// Whether the init system starts this daemon when the machine boots (incident 3).
pub fn at_boot(root: &Path, folder: &Path) -> Vec<Finding> {
    let warn = |what: String, advice: &str| vec![finding(Severity::Warning, what, advice)];
    let Some(init) = Init::installed(root) else {
        let what = "neither systemd nor OpenRC is here: nothing starts the mesh at boot";
        return warn(what.into(), "have whatever starts this machine run `mesh up`");
    };
    let (file, link) = init.places(SERVICE);
    if fs::symlink_metadata(below(root, &link)).is_err() {
        return warn(format!("{} does not start the mesh at boot", init.name()), "`mesh install`, as root");
    }
    let text = read_small(&below(root, &file)).unwrap_or_default();
    if is_ours(&below(root, &file)) && !text.contains(&format!("--dir {} ", folder.display())) {
        let what = format!("the service that {} starts at boot is that of another state folder", init.name());
        return warn(what, "`mesh --dir FOLDER install` for the one that is meant");
    }
    let mut found = vec![];
    if let Some(program) = program_of(&text, &["ExecStart=", "command=\""])
        && !below(root, &program).is_file()
    {
        let what = format!("the service runs {}, which is not there", program.display());
        found.push(finding(Severity::Error, what, "`mesh install` again, from a `mesh` that stays where it is"));
    }
    found
}

/// The program that a line of a service's file names.
fn program_of(text: &str, keys: &[&str]) -> Option<PathBuf> {
    let rest = text.lines().find_map(|line| keys.iter().find_map(|key| line.strip_prefix(key)))?;
    let word = rest.split(|c: char| c.is_whitespace() || c == '"').next()?;
    word.starts_with('/').then(|| word.into())
}

/// What sshd insists on: it says nothing to who dials and a line to its own log, and then nobody gets in.
fn at_the_door(root: &Path, folder: &Path, keys: &Keys) -> Vec<Finding> {
    use Severity::Error;
    let mut found = vec![];
    let mut wrong = |what: String, advice: &str| found.push(finding(Error, what, advice));
    let again = "`mesh install --ssh` again, as root";
    let config = read_small(&below(root, &door::config())).unwrap_or_default();
    if !config.contains(&format!("--dir {} ", folder.display())) {
        wrong("the guard's sshd is that of another state folder".into(), again);
    }
    // sshd's safe_path(): the command and all above it.
    if let Some(guard) = program_of(&config, &["AuthorizedKeysCommand "]) {
        if let Some(why) = unsafe_part(root, &guard) {
            let advice = format!("chown root and chmod go-w what is named; or reinstall into {PROGRAMS}");
            wrong(format!("sshd will not run {}: {why}", guard.display()), &advice);
        } else if fs::metadata(below(root, &guard)).is_ok_and(|m| m.mode() & 0o111 == 0) {
            wrong(format!("{} cannot be executed", guard.display()), "chmod 755 it");
        }
    } else {
        wrong(format!("{} names no AuthorizedKeysCommand", door::config().display()), again);
    }
    for path in [door::host_key(), door::config()] {
        match fs::metadata(below(root, &path)) {
            Err(error) => wrong(format!("{}: {error}", path.display()), again),
            Ok(meta) if meta.uid() != 0 || meta.mode() & 0o077 != 0 => {
                let mode = meta.mode() & 0o7777;
                let what = format!("{} is of user {} and mode {mode:04o}", path.display(), meta.uid());
                wrong(what, "chown root and chmod 600 it: sshd ignores a key that others can read");
            }
            Ok(_) => {}
        }
    }
    let public = |text: &str| {
        let key = russh::keys::ssh_key::PrivateKey::from_openssh(text).ok()?;
        key.public_key().key_data().ed25519().map(|key| key.0)
    };
    if public(&read_small(&below(root, &door::host_key())).unwrap_or_default()) != Some(key_of(keys).1) {
        wrong("the guard's sshd has another host key than this host attests: nobody will trust it".into(), again);
    }
    if door::find_sshd(root).is_none() {
        wrong("there is no sshd".into(), "install openssh-server (Gentoo: net-misc/openssh)");
    }
    if let Some(shell) = root_shell(root)
        && (shell.ends_with("nologin") || shell.ends_with("false") || !below(root, Path::new(&shell)).exists())
    {
        wrong(format!("root's shell is {shell}: sshd runs the guard by it"), "chsh -s /bin/sh root");
    }
    let without_pam = config.lines().any(|line| line.trim() == "UsePAM no");
    if door::root_is_locked(root) && without_pam {
        let advice = match door::has_pam(root) {
            true => again,
            false => "`usermod -p '*' root` keeps passwords out and lets keys in",
        };
        wrong("root's account is locked, and an sshd without PAM then lets nobody in".into(), advice);
    }
    if let Some(init) = Init::installed(root)
        && fs::symlink_metadata(below(root, &init.places(DOOR_SERVICE).1)).is_err()
    {
        wrong(format!("{} does not start the guard's sshd at boot", init.name()), again);
    }
    found
}

fn root_shell(root: &Path) -> Option<String> {
    let passwd = fs::read_to_string(root.join("etc/passwd")).ok()?;
    let line = passwd.lines().find(|line| line.starts_with("root:"))?.to_owned();
    line.rsplit(':').next().map(str::to_owned).filter(|shell| !shell.is_empty())
}

/// The state folders that the door is for.
pub fn folders(root: &Path) -> Vec<PathBuf> {
    let config = read_small(&below(root, &door::config())).unwrap_or_default();
    let words: Vec<&str> = config.split_ascii_whitespace().collect();
    words.windows(2).filter(|pair| pair[0] == "--dir").map(|pair| pair[1].into()).collect()
}

//! `mesh install` and `mesh uninstall`: words, the init system's own commands, and [`crate::install`] for all that is
//! written. A machine that runs is told by `systemctl` or `rc-service`; one below `--root` gets its files and no more.

use super::args::InstallArgs;
use super::{EXIT_FAILED, EXIT_OK, Failure, Out};
use crate::api::types::VERSION;
use crate::install::check::{self, Finding, Severity};
use crate::install::door::{self, Door};
use crate::install::{DOOR_SERVICE, Init, InstallError, Item, Plan, SERVICE, Wish, remove};
use crate::state_folder::{Places, StateFolder};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

impl From<InstallError> for Failure {
    fn from(error: InstallError) -> Self {
        Failure::new(error.to_string()).hint(error.hint())
    }
}

/// A machine that runs, or the files of one that does not.
struct Target {
    root: PathBuf,
    runs: bool,
}

impl Target {
    fn new(root: Option<PathBuf>) -> Result<Target, Failure> {
        match root {
            None => Ok(Target { root: "/".into(), runs: true }),
            Some(root) => match std::fs::canonicalize(&root) {
                Ok(root) => Ok(Target { runs: false, root }),
                Err(error) => Err(Failure::usage(format!("{}: {error}", root.display()))),
            },
        }
    }

    fn init(&self) -> Result<Init, Failure> {
        if self.runs {
            return Init::running(&self.root).ok_or_else(|| {
                Failure::new("neither systemd nor OpenRC runs here: nothing would start the mesh at boot")
                    .hint("have whatever starts this machine run `mesh up`; --root FOLDER installs into an image")
            });
        }
        Init::installed(&self.root).ok_or_else(|| {
            Failure::new(format!("neither systemd nor OpenRC is installed below {}", self.root.display()))
                .hint("is that the root of a machine?")
        })
    }

    /// The state folder as the service sees it; on a machine that runs it has to be there and of the right owner.
    fn folder(&self, places: &Places, user: Option<&str>) -> Result<(PathBuf, StateFolder), Failure> {
        let path = match self.runs {
            true => places.find()?.path,
            false => {
                let named = places.flag.clone().unwrap_or_else(|| places.system.clone());
                if !named.is_absolute() {
                    return Err(Failure::usage("with --root, --dir is a path inside of it")
                        .hint("for example --dir /var/lib/mesh"));
                }
                named
            }
        };
        let outside = if self.runs { path.clone() } else { crate::install::below(&self.root, &path) };
        let folder = StateFolder::open(&outside)?;
        if !folder.is_enrolled() {
            return Err(Failure::new(format!("{} belongs to no mesh yet", path.display()))
                .hint("`mesh init` or `mesh join TOKEN` first"));
        }
        let owner = std::fs::metadata(folder.path())?.uid();
        let wanted = match user {
            None => 0,
            Some(_) if !self.runs => owner, // the image's users are not ours
            Some(name) => match nix::unistd::User::from_name(name) {
                Ok(Some(user)) => user.uid.as_raw(),
                _ => return Err(Failure::usage(format!("there is no user {name}")).hint("useradd --system makes one")),
            },
        };
        if owner != wanted && self.runs {
            let owner = crate::state_folder::owner_of(folder.path());
            let service = user.unwrap_or("root");
            return Err(Failure::new(format!(
                "{} belongs to {owner}, and the service would run as {service}",
                path.display()
            ))
            .hint(format!("--user {owner}, or another folder with --dir")));
        }
        Ok((if self.runs { folder.path().to_owned() } else { path }, folder))
    }

    /// The guard's door, when it is wanted.
    fn door(&self, wish: &InstallArgs, folder: &StateFolder) -> Result<Option<Door>, Failure> {
        if !wish.ssh {
            return Ok(None);
        }
        if wish.user.is_some() {
            return Err(Failure::usage("the guard restarts the service and reboots the machine: it has to be root's")
                .hint("leave out --user, or --ssh"));
        }
        let sshd = door::find_sshd(&self.root).ok_or_else(|| {
            Failure::new("there is no sshd").hint("install openssh-server (Gentoo: net-misc/openssh), then again")
        })?;
        let (host_key, _) = door::key_of(&folder.keys()?);
        let pam = door::root_is_locked(&self.root) && door::has_pam(&self.root);
        Ok(Some(Door { port: wish.ssh_port, host_key, sshd, pam }))
    }
}

fn root_only(dry: bool) -> Result<(), Failure> {
    match dry || nix::unistd::geteuid().is_root() {
        true => Ok(()),
        false => Err(Failure::new("services are root's to install").hint("sudo mesh install")),
    }
}

pub(super) fn install(places: &Places, out: Out, wish: InstallArgs) -> Result<u8, Failure> {
    let target = Target::new(wish.root.clone())?;
    if wish.check {
        return look(&target, places, out);
    }
    root_only(wish.dry_run)?;
    let init = target.init()?;
    let (path, folder) = target.folder(places, wish.user.as_deref())?;
    let door = target.door(&wish, &folder)?;
    let program = std::env::current_exe()?;
    let plan = Plan::of(&Wish { init, folder: path, user: wish.user.clone(), program, door }, &target.root)?;
    if wish.dry_run {
        show(&plan, out)?;
        return Ok(EXIT_OK);
    }
    let changed = plan.apply(&target.root)?;
    if wish.ssh {
        folder.write_ssh_port(Some(wish.ssh_port))?;
    }
    if out.json {
        out.json(&serde_json::json!({ "version": VERSION, "init": init.name(), "changed": changed }))?;
    }
    for path in &changed {
        out.note(format!("wrote {}", path.display()));
    }
    if changed.is_empty() {
        out.note("everything was in place already");
    }
    if target.runs {
        start(init, out, &folder, &changed, wish.ssh)?;
    }
    Ok(EXIT_OK)
}

/// Tells the init system what is new, and starts what does not run.
fn start(init: Init, out: Out, folder: &StateFolder, changed: &[PathBuf], door: bool) -> Result<(), Failure> {
    if init == Init::Systemd {
        system(&["systemctl", "daemon-reload"])?;
    }
    let service = |verb: &str, name: &str| match init {
        Init::Systemd => system(&["systemctl", verb, &format!("{name}.service")]),
        Init::OpenRc => system(&["rc-service", name, verb]),
    };
    if door {
        // Its sessions are seconds long: what has changed is used at once.
        let fresh = changed.iter().any(|path| path.starts_with(door::FOLDER) || path.ends_with("mesh-guard.service"));
        service(if fresh { "restart" } else { "start" }, DOOR_SERVICE)?;
    }
    let runs = match init {
        Init::Systemd => is(&["systemctl", "is-active", "--quiet", "mesh.service"]),
        Init::OpenRc => is(&["rc-service", "--quiet", "mesh", "status"]),
    };
    let again = match init {
        Init::Systemd => "systemctl restart mesh",
        Init::OpenRc => "rc-service mesh restart",
    };
    match (runs, folder.holder()) {
        (true, _) if changed.is_empty() => {}
        (true, _) => out.note(format!("next: {again}, which uses what has changed")),
        (false, Some(pid)) => out.note(format!("next: kill {pid} (it was started by hand), then {again}")),
        (false, None) => {
            service("start", SERVICE)?;
            out.note("started; `mesh status` shows how things stand");
        }
    }
    Ok(())
}

fn is(words: &[&str]) -> bool {
    Command::new(words[0]).args(&words[1..]).output().is_ok_and(|done| done.status.success())
}

fn system(words: &[&str]) -> Result<(), Failure> {
    let shown = words.join(" ");
    let done = Command::new(words[0]).args(&words[1..]).output();
    let done = done.map_err(|error| Failure::new(format!("{shown}: {error}")))?;
    match done.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&done.stderr);
            Err(Failure::new(format!("{shown}: {}\n{}", done.status, said.trim_end()))
                .hint("everything is written; mend what it says, then run `mesh install` again"))
        }
    }
}

/// What would be written. A key is named and not shown.
fn show(plan: &Plan, out: Out) -> Result<(), Failure> {
    let text_of = |path: &Path, text: &str| match path == door::host_key() {
        true => "(the host key, derived from this host's seed)\n".to_owned(),
        false => text.to_owned(),
    };
    if out.json {
        let items = plan.0.iter().map(|item| match item {
            Item::File { path, text, mode } => {
                serde_json::json!({ "path": path, "mode": format!("{mode:04o}"), "text": text_of(path, text) })
            }
            Item::Link { path, to } => serde_json::json!({ "path": path, "link": to }),
            Item::Copy { path, from } => serde_json::json!({ "path": path, "copy": from }),
        });
        return out.json(&serde_json::json!({ "version": VERSION, "items": items.collect::<Vec<_>>() }));
    }
    for item in &plan.0 {
        match item {
            Item::File { path, text, mode } => {
                out.line(format!("--- {} ({mode:04o})\n{}", path.display(), text_of(path, text)))?;
            }
            Item::Link { path, to } => out.line(format!("--- {} -> {}", path.display(), to.display()))?,
            Item::Copy { path, from } => out.line(format!("--- {} = {}", path.display(), from.display()))?,
        }
    }
    Ok(())
}

fn look(target: &Target, places: &Places, out: Out) -> Result<u8, Failure> {
    let (path, folder) = match target.runs {
        true => {
            let path = places.find()?.path;
            (path.clone(), StateFolder::open(&path)?)
        }
        false => target.folder(places, None)?,
    };
    let path = if target.runs { std::fs::canonicalize(&path)? } else { path };
    let found = check::check(&target.root, &path, &folder.keys()?);
    if out.json {
        let words = |f: &Finding| {
            let severity = if f.severity == Severity::Error { "error" } else { "warning" };
            serde_json::json!({ "severity": severity, "what": f.what, "advice": f.advice })
        };
        out.json(&serde_json::json!({ "version": VERSION, "findings": found.iter().map(words).collect::<Vec<_>>() }))?;
    } else {
        for Finding { severity, what, advice } in &found {
            let word = if *severity == Severity::Error { "error" } else { "warning" };
            out.line(format!("{word}: {what}\n  {advice}"))?;
        }
        if found.is_empty() {
            out.line("all is as it has to be")?;
        }
    }
    Ok(if found.is_empty() { EXIT_OK } else { EXIT_FAILED })
}

pub(super) fn uninstall(out: Out, door_only: bool, root: Option<PathBuf>, dry: bool) -> Result<u8, Failure> {
    let target = Target::new(root)?;
    root_only(dry)?;
    let init = if target.runs { Init::running(&target.root) } else { None };
    let services: &[&str] = if door_only { &[DOOR_SERVICE] } else { &[DOOR_SERVICE, SERVICE] };
    // Whose the service is says its file, which is about to go.
    let folders = check::folders(&target.root);
    for service in services.iter().filter(|_| !dry) {
        match init.filter(|init| crate::install::below(&target.root, &init.places(service).0).exists()) {
            Some(Init::Systemd) => system(&["systemctl", "stop", &format!("{service}.service")])?,
            Some(Init::OpenRc) if is(&["rc-service", "--quiet", service, "status"]) => {
                system(&["rc-service", service, "stop"])?;
            }
            _ => {}
        }
    }
    let (gone, kept) = remove(&target.root, door_only, dry)?;
    for folder in folders.iter().filter(|_| !dry) {
        if let Ok(folder) = StateFolder::open(&crate::install::below(&target.root, folder)) {
            folder.write_ssh_port(None)?;
        }
    }
    if init == Some(Init::Systemd) && !gone.is_empty() && !dry {
        system(&["systemctl", "daemon-reload"])?;
    }
    if out.json {
        out.json(&serde_json::json!({ "version": VERSION, "removed": gone, "kept": kept }))?;
    }
    for path in &gone {
        out.note(format!("{} {}", if dry { "would remove" } else { "removed" }, path.display()));
    }
    for path in &kept {
        out.note(format!("kept {}, which is not of our making", path.display()));
    }
    if gone.is_empty() {
        out.note("nothing was installed");
    }
    Ok(EXIT_OK)
}

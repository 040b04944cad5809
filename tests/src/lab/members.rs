//! The mesh on a lab: every host of the fleet that listens is founded or joins by an invitation, by the command line of
//! the host itself. A daemon is a child of its host's first process and ends with it. Who can reach nobody of the mesh
//! cannot join, and is named.

use super::Lab;
use super::command::{Done, Trouble};
use crate::daemon::{PATIENCE, ask, unexcused_errors};
use crate::program::mesh;
use crate::status::Status;
use crate::wait_for;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Output;
use topology::Oracle;

/// What is the same on every host.
#[derive(Clone, Debug, Default)]
pub struct Common {
    /// Quicker elections: for fleets whose round trips are far below a heartbeat.
    pub lan: bool,
    /// More lines of mesh.toml's `[machine]`.
    pub machine: String,
    /// More lines of mesh.toml, below its tables.
    pub more: String,
}

impl Lab {
    /// Runs `mesh ARGS` on a host to its end, whatever that is.
    ///
    /// # Errors
    /// The host does not run.
    pub fn mesh(&self, on: &str, args: &[&str]) -> Done<Output> {
        let words: Vec<&str> = std::iter::once("mesh").chain(args.iter().copied()).collect();
        let mut command = self.command_with(on, mesh(), &words)?;
        command.env("NO_COLOR", "1").stdin(std::process::Stdio::null());
        Ok(command.output()?)
    }

    /// The same for a command that has to succeed; its standard output without the last newline.
    ///
    /// # Errors
    /// It fails.
    pub fn mesh_ok(&self, on: &str, args: &[&str]) -> Done<String> {
        let out = self.mesh(on, args)?;
        match out.status.success() {
            true => Ok(String::from_utf8_lossy(&out.stdout).trim_end().to_owned()),
            false => Err(Trouble(format!("{on}: mesh {args:?}: {}\n{}", out.status, crate::daemon::said(&out)))),
        }
    }

    /// Founds a mesh on this lab and joins all hosts that can; the names of those that cannot.
    ///
    /// # Errors
    /// One that can reach a member does not come in.
    pub fn found(&self, common: &Common) -> Done<Vec<String>> {
        let oracle = self.oracle()?;
        let mut waiting: BTreeSet<String> = self
            .fleet
            .hosts
            .iter()
            .filter(|h| h.port.is_some() && self.runs(&h.name))
            .map(|h| h.name.clone())
            .collect();
        // Of equals the first in the file: `max_by_key` gives the last.
        let reached = |to: &str| waiting.iter().filter(|from| reaches(&oracle, from, to)).count();
        let founder =
            self.fleet.hosts.iter().rev().filter(|h| waiting.contains(&h.name)).max_by_key(|h| reached(&h.name));
        let founder = founder.ok_or_else(|| Trouble("no host of this fleet listens".into()))?.name.clone();
        for name in &waiting {
            self.configure(name, common)?;
        }
        waiting.remove(&founder);
        let listen = self.listen(&founder);
        let key =
            self.mesh_ok(&founder, &["init", "--name", &founder, "--mesh", &self.fleet.name, "--listen", &listen])?;
        fs::write(self.recovery_key_path(), key)?;
        self.mesh_up(&founder)?;
        self.knows_its_addresses(&founder)?;
        let mut members = vec![founder.clone()];
        loop {
            let next: Vec<String> =
                waiting.iter().filter(|from| members.iter().any(|to| reaches(&oracle, from, to))).cloned().collect();
            if next.is_empty() {
                self.settled(&members)?;
                return Ok(waiting.into_iter().collect());
            }
            let signer = (members.len() == 1).then(|| next[0].as_str());
            let joined: Done<Vec<()>> = std::thread::scope(|scope| {
                let founder = &founder;
                let join = |name| scope.spawn(move || self.join(founder, name, signer == Some(name)));
                let joins: Vec<_> = next.iter().map(|name| join(name.as_str())).collect();
                joins.into_iter().map(|j| j.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
            });
            joined?;
            waiting.retain(|name| !next.contains(name));
            members.extend(next);
        }
    }

    /// Waits until a host's daemon knows where it listens, which it does a moment after it serves: an invitation made
    /// before that names no address.
    fn knows_its_addresses(&self, name: &str) -> Done {
        let off = &self.state().faults.off;
        let own = self.fleet.host(name).into_iter().flat_map(|h| &h.addresses);
        let own: Vec<String> = own.filter(|(n, _)| !off.contains(*n)).map(|(_, a)| format!("/ip4/{a}/")).collect();
        let known = || {
            let status = self.status(name)?;
            let listed = status.host(name)?["addresses"].to_string();
            own.iter().all(|address| listed.contains(address)).then_some(())
        };
        wait_for(PATIENCE, known).ok_or_else(|| Trouble(format!("{name} does not find its addresses {own:?}")))
    }

    /// Waits until each of these sees all of them alive, and one of them leading.
    fn settled(&self, members: &[String]) -> Done {
        let sees = |name: &String| {
            let status = self.status(name)?;
            (status.leader().is_some() && members.iter().all(|m| status.state(m) == "alive")).then_some(())
        };
        let late = members.iter().find(|name| wait_for(PATIENCE, || sees(name)).is_none());
        late.map_or(Ok(()), |name| {
            Err(Trouble(format!("{name} does not see all others\n{}", self.mesh_log_tail(name))))
        })
    }

    fn join(&self, founder: &str, name: &str, signs: bool) -> Done {
        let invite: &[&str] = if signs { &["invite", name, "--signer"] } else { &["invite", name] };
        let token = self.mesh_ok(founder, invite)?;
        self.mesh_ok(name, &["join", &token, "--listen", &self.listen(name)])?;
        self.mesh_up(name)
    }

    fn listen(&self, name: &str) -> String {
        format!("0.0.0.0:{}", self.fleet.host(name).and_then(|h| h.port).unwrap_or(7400))
    }

    fn configure(&self, name: &str, common: &Common) -> Done {
        let host = self.fleet.host(name).ok_or_else(|| Trouble(format!("no host is called {name}")))?;
        // A host without cores for builds cannot be said yet: the least that the configuration takes is one.
        let cores = host.cores.max(1);
        let text = format!(
            "listen = [\"{}\"]\ncores = {cores}\ntags = [\"on-{name}\"]\n[machine]\nprotected = {}\n{}\n[timing]\nlan = {}\n{}\n",
            self.listen(name),
            host.protected && common.machine.is_empty(),
            common.machine,
            common.lan,
            common.more
        );
        Ok(fs::write(self.mesh_folder(name).join("mesh.toml"), text)?)
    }

    /// Starts the daemon of a host that has joined, and returns when it serves.
    ///
    /// # Errors
    /// It ends instead.
    pub fn mesh_up(&self, name: &str) -> Done {
        self.mesh_ok(name, &["up", "--detach"])
            .map(drop)
            .map_err(|t| Trouble(format!("{t}\n{}", self.mesh_log_tail(name))))
    }

    fn recovery_key_path(&self) -> PathBuf {
        super::state::base().join(self.name()).join("recovery-key")
    }

    /// What `mesh init` printed: kept on no host.
    ///
    /// # Errors
    /// No mesh was founded here.
    pub fn recovery_key(&self) -> Done<String> {
        Ok(fs::read_to_string(self.recovery_key_path())?)
    }

    /// Whether a host has been made ready for the mesh.
    pub fn has_mesh(&self, name: &str) -> bool {
        self.mesh_folder(name).join("mesh.toml").exists()
    }

    /// A host's state folder, as the machine sees it.
    pub fn mesh_folder(&self, name: &str) -> PathBuf {
        self.folder(name).join("mesh")
    }

    /// What a host's daemon answers; `None` while nobody does.
    pub fn get(&self, name: &str, path: &str) -> Option<Value> {
        ask(&self.mesh_folder(name), "GET", path, "")
    }

    /// What a host says of the mesh; `None` while its daemon does not answer.
    pub fn status(&self, name: &str) -> Option<Status> {
        self.get(name, "/v1/status").map(Status)
    }

    /// Waits until a host's status fulfils a condition, and gives that status.
    #[track_caller]
    pub fn wait(&self, name: &str, what: &str, condition: impl Fn(&Status) -> bool) -> Status {
        let mut last = None;
        wait_for(PATIENCE, || {
            last = self.status(name);
            last.clone().filter(&condition)
        })
        .unwrap_or_else(|| panic!("{name}: not {what} within {PATIENCE:?}: {last:?}\n{}", self.mesh_log_tail(name)))
    }

    /// Waits until a host's list of builds fulfils a condition, and gives it, the newest first.
    #[track_caller]
    pub fn wait_builds(&self, name: &str, what: &str, condition: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let mut last = vec![];
        wait_for(PATIENCE, || {
            last = self.get(name, "/v1/builds?limit=10000")?["builds"].as_array()?.clone();
            condition(&last).then(|| last.clone())
        })
        .unwrap_or_else(|| {
            panic!("{name}: builds not {what} within {PATIENCE:?}: {last:#?}\n{}", self.mesh_log_tail(name))
        })
    }

    /// What a host's daemon has logged.
    pub fn mesh_log(&self, name: &str) -> String {
        let bytes = fs::read(self.mesh_folder(name).join("daemon.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn mesh_log_tail(&self, name: &str) -> String {
        let log = self.mesh_log(name);
        let lines: Vec<&str> = log.lines().collect();
        format!("--- log of {name} ({} lines)\n{}", lines.len(), lines[lines.len().saturating_sub(40)..].join("\n"))
    }

    /// Lines at ERROR in any host's log, but those with these words.
    pub fn mesh_errors(&self, excused: &[&str]) -> Vec<String> {
        let of = |name: &String| unexcused_errors(&self.mesh_log(name), excused);
        let names = self.fleet.hosts.iter().map(|h| h.name.clone());
        names.flat_map(|name| of(&name).into_iter().map(move |line| format!("{name}: {line}"))).collect()
    }
}

/// Whether a dial from one host to another by one of its addresses gets there.
fn reaches(oracle: &Oracle, from: &str, to: &str) -> bool {
    from != to
        && oracle.reach(from, to).iter().any(|(_, dial)| dial.answered_by.as_deref() == Some(to) && dial.succeeds())
}

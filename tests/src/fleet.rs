//! Several daemons that are one mesh, joined by invitations over loopback.

use crate::daemon::{Daemon, PATIENCE, Settings, free_port};
use crate::status::Status;
use crate::wait_for;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::ops::{Index, IndexMut};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Hosts by name, each below a folder that goes when the fleet goes.
#[derive(Debug)]
pub struct Fleet {
    // Before `folder`: daemons end before their state is removed.
    pub hosts: Vec<Daemon>,
    folder: TempDir,
    settings: Settings,
    /// What `mesh init` printed.
    pub recovery_key: String,
}

impl Fleet {
    /// These hosts, joined and up, seeing each other alive with a leader.
    #[track_caller]
    pub fn up(names: &[&str]) -> Self {
        Self::up_with(names, &Settings::default())
    }

    /// The same with other settings.
    #[track_caller]
    pub fn up_with(names: &[&str], settings: &Settings) -> Self {
        let mut fleet = Self::found(names[0], settings);
        for name in &names[1..] {
            fleet.join(name);
        }
        fleet.settled();
        fleet
    }

    /// These hosts, each with settings of its own, which may name paths below the fleet's folder.
    #[track_caller]
    pub fn up_each(names: &[&str], settings: impl Fn(&Fleet, &str) -> Settings) -> Self {
        let mut fleet = Self::empty(&Settings::default());
        for name in names {
            let mut host = fleet.stranger_with(name, &settings(&fleet, name));
            let listen = host.listen.to_string();
            match fleet.hosts.is_empty() {
                true => host.ok(&["init", "--name", name, "--mesh", "demo", "--listen", &listen]),
                false => host.ok(&["join", &fleet.any().ok(&["invite", name]), "--listen", &listen]),
            };
            host.up();
            fleet.hosts.push(host);
        }
        fleet.settled();
        fleet
    }

    /// A mesh of one host, up.
    #[track_caller]
    pub fn found(name: &str, settings: &Settings) -> Self {
        let mut fleet = Self::empty(settings);
        let mut first = fleet.stranger(name);
        let listen = first.listen.to_string();
        fleet.recovery_key = first.ok(&["init", "--name", name, "--mesh", "demo", "--listen", &listen]);
        first.up();
        fleet.hosts.push(first);
        fleet
    }

    /// No host yet: for a mesh that is founded in another way.
    pub fn empty(settings: &Settings) -> Self {
        let folder = tempfile::Builder::new().prefix("mesh-test-").tempdir().expect("a folder for the fleet");
        // The build user passes through to a build's own folder.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).expect("permissions");
        Fleet { hosts: vec![], folder, settings: settings.clone(), recovery_key: String::new() }
    }

    /// A daemon with a state folder, not yet a host of this mesh.
    pub fn stranger(&self, name: &str) -> Daemon {
        self.stranger_with(name, &self.settings)
    }

    /// The same with settings of its own.
    pub fn stranger_with(&self, name: &str, settings: &Settings) -> Daemon {
        Daemon::new(self.folder.path(), name, free_port([127, 0, 0, 1]), settings)
    }

    /// A copy of a stopped host's state folder, as a cloned disk is, with a port of its own.
    pub fn twin(&self, of: &str, name: &str) -> Daemon {
        let twin = self.stranger(name);
        let from = self[of].dir.join(".");
        let config = fs::read(twin.dir.join("mesh.toml")).expect("mesh.toml");
        let copied = std::process::Command::new("cp").arg("-a").arg(&from).arg(&twin.dir).status().expect("cp");
        assert!(copied.success(), "cp -a {} failed", from.display());
        fs::write(twin.dir.join("mesh.toml"), config).expect("mesh.toml");
        twin
    }

    /// Invites a new host at the first one that is up, joins it, and starts it.
    #[track_caller]
    pub fn join(&mut self, name: &str) {
        self.join_by(&["invite", name], name);
    }

    /// The same for a host that may invite and evict.
    #[track_caller]
    pub fn join_signer(&mut self, name: &str) {
        self.join_by(&["invite", name, "--signer"], name);
    }

    #[track_caller]
    fn join_by(&mut self, invite: &[&str], name: &str) {
        let token = self.any().ok(invite);
        let mut host = self.stranger(name);
        host.ok(&["join", &token, "--listen", &host.listen.to_string()]);
        host.up();
        self.hosts.push(host);
    }

    /// Waits until every host that is up sees all of these, and only these, alive, and one leader among them.
    #[track_caller]
    pub fn settled(&self) -> Status {
        let up: Vec<&Daemon> = self.hosts.iter().filter(|h| h.is_up()).collect();
        let names: Vec<&str> = up.iter().map(|h| h.name.as_str()).collect();
        let mut last = None;
        for host in up {
            last = Some(host.wait("settled", |s| {
                s.alive() == names.len()
                    && names.iter().all(|n| s.state(n) == "alive")
                    && s.leader().is_some_and(|l| names.contains(&l))
            }));
        }
        last.expect("a fleet has hosts")
    }

    /// A host that is up; the first in order.
    #[track_caller]
    pub fn any(&self) -> &Daemon {
        self.hosts.iter().find(|h| h.is_up()).expect("a host that is up")
    }

    /// The host that leads, as a host that is up sees it.
    #[track_caller]
    pub fn leader(&self) -> String {
        let status = self.any().wait("led", |s| s.leader().is_some_and(|l| self[l].is_up()));
        status.leader().expect("just seen").to_owned()
    }

    /// A host that is up and does not lead.
    #[track_caller]
    pub fn follower(&self) -> &Daemon {
        let leader = self.leader();
        self.hosts.iter().find(|h| h.is_up() && h.name != leader).expect("a host that does not lead")
    }

    /// Submits a build file at a host and returns at once; the builds' numbers by name.
    #[track_caller]
    pub fn submit(&self, at: &str, file: &Path) -> BTreeMap<String, String> {
        let before: Vec<Value> = self.builds(at);
        self[at].ok(&["build", "--detach", file.to_str().expect("UTF-8")]);
        let is_new = |b: &Value| !before.iter().any(|known| known["id"] == b["id"]);
        let text = |v: &Value| v.as_str().expect("text").to_owned();
        self.builds(at).iter().filter(|b| is_new(b)).map(|b| (text(&b["name"]), text(&b["id"]))).collect()
    }

    /// Every build that a host knows of, the newest first.
    #[track_caller]
    pub fn builds(&self, at: &str) -> Vec<Value> {
        let list = self[at].get("/v1/builds?limit=10000").unwrap_or_else(|| panic!("{at} does not answer"));
        list["builds"].as_array().unwrap_or_else(|| panic!("no builds in {list}")).clone()
    }

    /// Waits until a host's list of builds fulfils a condition.
    #[track_caller]
    pub fn wait_builds(&self, at: &str, what: &str, condition: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let mut last = vec![];
        let found = wait_for(PATIENCE, || {
            last = self.builds(at);
            condition(&last).then(|| last.clone())
        });
        found.unwrap_or_else(|| panic!("builds not {what} within {PATIENCE:?}: {last:#?}\n{}", self[at].log_tail(40)))
    }

    /// A file below the fleet's folder, for build files and what they read or leave.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("below the folder")).expect("folder");
        fs::write(&path, content).expect("file");
        path
    }

    /// A path below the fleet's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("work").join(name)
    }

    /// The folder itself, whose children are the state folders.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Index<&str> for Fleet {
    type Output = Daemon;
    fn index(&self, name: &str) -> &Daemon {
        self.hosts.iter().find(|h| h.name == name).unwrap_or_else(|| panic!("no host {name}"))
    }
}

impl IndexMut<&str> for Fleet {
    fn index_mut(&mut self, name: &str) -> &mut Daemon {
        self.hosts.iter_mut().find(|h| h.name == name).unwrap_or_else(|| panic!("no host {name}"))
    }
}

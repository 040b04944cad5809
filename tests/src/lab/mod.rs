//! A fleet of `topology` on the real kernel: a network is a namespace with a bridge, a host is network, mount, UTS and
//! PID namespaces ([`host`]), a router masquerades by nftables, and a network that takes time is a wire in user space
//! ([`wire`]). Faults are the oracle's ([`plan::Faults`]), so that the kernel can be held against it ([`dials`]).
//!
//! Nothing of the machine's own network is touched: all of a lab carries its prefix and is removed when the lab is
//! dropped, or by its guardian when the builder is killed ([`state`]). Daemons of the mesh are put on it by [`members`], doors for their
//! guards by [`doors`].

pub mod build;
pub mod command;
pub mod dials;
pub mod doors;
pub mod faults;
pub mod host;
pub mod members;
pub mod plan;
pub mod state;
pub mod wire;

use command::{Done, Trouble};
use plan::Port;
use state::{Guardian, Process, State};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use topology::{Fleet, Oracle};

/// Set to 1 by who cannot be root and accepts that these tests show nothing then.
const OPT_OUT: &str = "MESH_TESTS_WITHOUT_ROOT";

static LABS: AtomicU32 = AtomicU32::new(0);

/// Where a lab's wires run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wires {
    /// On threads of this process.
    Here,
    /// In processes of their own: this program, called with `wire` and where it runs.
    Program(PathBuf),
}

/// A lab that stands.
#[derive(Debug)]
pub struct Lab {
    /// What it was built from.
    pub fleet: Fleet,
    ports: Vec<Port>,
    state: State,
    wires: Wires,
    guardian: Option<Guardian>,
    /// Parents of the first processes that were started here, to be waited for.
    children: BTreeMap<String, Child>,
}

impl Lab {
    /// Builds a lab for a test; dropped, it is gone. The thread that calls this has to live as long.
    ///
    /// `None` only when the user opted out; without root, `ip` or `nft` it panics, because a test that silently shows
    /// nothing is worse than one that fails.
    #[track_caller]
    pub fn for_test(fleet: &str) -> Option<Lab> {
        Lab::for_test_limited(fleet, &[])
    }

    /// The same with networks that carry so many bits a second for each port, each way.
    #[track_caller]
    pub fn for_test_limited(fleet: &str, limits: &[(&str, u64)]) -> Option<Lab> {
        if std::env::var_os(OPT_OUT).is_some_and(|v| v == "1") {
            eprintln!("{OPT_OUT}=1: the lab is not tested");
            return None;
        }
        assert!(nix::unistd::geteuid().is_root(), "network namespaces need root; {OPT_OUT}=1 leaves them out");
        let name = format!("t{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let lab = Lab::up_limited(&name, fleet, Wires::Here, limits);
        Some(lab.unwrap_or_else(|why| panic!("the lab does not come up: {why}")))
    }

    /// Builds a lab. Dropped before [`Lab::keep`], it is gone.
    ///
    /// # Errors
    /// Why not; nothing is left of it then.
    pub fn up(name: &str, fleet: &str, wires: Wires) -> Done<Lab> {
        Lab::up_limited(name, fleet, wires, &[])
    }

    /// The same with every port on these networks limited to so many bits a second, each way.
    ///
    /// # Errors
    /// As [`Lab::up`].
    pub fn up_limited(name: &str, fleet: &str, wires: Wires, limits: &[(&str, u64)]) -> Done<Lab> {
        let parsed = Fleet::parse(name, fleet).map_err(|e| Trouble(e.to_string()))?;
        state::remove_stale();
        std::fs::create_dir_all(state::base())?;
        let folder = state::base().join(name);
        std::fs::create_dir(&folder).map_err(|e| Trouble(format!("a lab is called {name} already ({e})")))?;
        let guardian = Guardian::start(name, &folder)?;
        let state = State {
            name: name.into(),
            fleet: fleet.into(),
            owner: Process::find(std::process::id()),
            hosts: BTreeMap::new(),
            faults: plan::Faults::default(),
            ports: 0,
        };
        let mut ports = plan::ports(&parsed);
        for port in &mut ports {
            port.bits_per_s = limits.iter().find(|(network, _)| port.network == *network).map(|(_, rate)| *rate);
        }
        let mut lab = Lab { fleet: parsed, ports, state, wires, guardian: Some(guardian), children: BTreeMap::new() };
        lab.state.save()?;
        lab.build()?;
        Ok(lab)
    }

    /// Goes on with a lab that somebody has built and kept.
    ///
    /// # Errors
    /// There is none, or it is not whole.
    pub fn open(name: &str, wires: Wires) -> Done<Lab> {
        let state = State::load(name)?;
        let fleet = Fleet::parse(name, &state.fleet).map_err(|e| Trouble(e.to_string()))?;
        let ports = plan::ports(&fleet);
        Ok(Lab { fleet, ports, state, wires, guardian: None, children: BTreeMap::new() })
    }

    /// Lets it stand when this process ends.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn keep(&mut self) -> Done {
        self.state.owner = None;
        self.state.save()?;
        self.guardian.take().map_or(Ok(()), Guardian::dismiss)
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// What is written down of it.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// A host's own files, as the machine sees them.
    pub fn folder(&self, host: &str) -> PathBuf {
        state::base().join(self.name()).join("hosts").join(host)
    }

    /// The name of the network namespace of a host (its machine's, where it shares).
    ///
    /// # Errors
    /// No host is called so.
    pub fn namespace(&self, host: &str) -> Done<String> {
        Ok(format!("{}-h-{}", state::prefix(self.name()), plan::machine(&self.fleet, host)?))
    }

    /// The name of a network's namespace.
    pub fn network_namespace(&self, network: &str) -> String {
        format!("{}-n-{network}", state::prefix(self.name()))
    }

    /// The machines of the fleet: hosts with addresses of their own.
    pub fn machines(&self) -> Vec<String> {
        self.fleet.hosts.iter().filter(|h| h.shares.is_none()).map(|h| h.name.clone()).collect()
    }

    /// Machines without power.
    pub fn down(&self) -> BTreeSet<String> {
        self.machines().into_iter().filter(|m| !self.state.hosts.get(m).is_some_and(|p| p.on)).collect()
    }

    /// The oracle with this lab's faults.
    ///
    /// # Errors
    /// Never for a lab that stands.
    pub fn oracle(&self) -> Done<Oracle> {
        self.state.faults.oracle(&self.fleet, &self.down())
    }

    /// Whether a host's first process is there.
    pub fn runs(&self, host: &str) -> bool {
        self.init(host).is_ok()
    }

    fn init(&self, host: &str) -> Done<Process> {
        plan::machine(&self.fleet, host)?;
        let init = self.state.hosts.get(host).and_then(|p| p.init);
        init.filter(|init| init.is_there()).ok_or_else(|| Trouble(format!("{host} does not run; boot it first")))
    }

    /// The names of what runs on a host, but for what makes it a host.
    pub fn processes(&self, host: &str) -> Vec<String> {
        let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let Some((init, its)) = self.init(host).ok().and_then(|init| Some((init, namespace(init.pid)?))) else {
            return vec![];
        };
        let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
        let parent = |pid: u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
        };
        let named = |pid: u32| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned();
            let of_init = pid == init.pid || (name == "sleep" && parent(pid) == Some(init.pid));
            (!of_init && namespace(pid).as_ref() == Some(&its)).then(|| format!("{name}({pid})"))
        };
        pids.filter_map(named).collect()
    }

    /// A command on a host, ready to be run.
    ///
    /// # Errors
    /// It does not run.
    pub fn command(&self, host: &str, words: &[&str]) -> Done<Command> {
        let enter = host::enter(self.init(host)?);
        let mut command = Command::new(&enter[0]);
        command.args(&enter[1..]).args(words);
        host::dress(&mut command, None);
        Ok(command)
    }

    /// The same with this `mesh` before all others.
    ///
    /// # Errors
    /// It does not run.
    pub fn command_with(&self, host: &str, mesh: &Path, words: &[&str]) -> Done<Command> {
        let mut command = self.command(host, words)?;
        host::dress(&mut command, Some(mesh));
        Ok(command)
    }

    /// Runs a command on a host to its end; it has to succeed.
    #[track_caller]
    pub fn exec(&self, host: &str, words: &[&str]) -> Output {
        let mut command = self.command(host, words).unwrap_or_else(|why| panic!("{why}"));
        let out = crate::bounded::output(&mut command);
        assert!(out.status.success(), "{host}: {words:?}: {}\n{}", out.status, crate::daemon::said(&out));
        out
    }

    /// Calls a function in a host's network: sockets that it opens are the host's.
    #[track_caller]
    pub fn inside<T: Send>(&self, host: &str, f: impl FnOnce() -> T + Send) -> T {
        let inside = self.namespace(host).and_then(|namespace| command::inside(&namespace, f));
        inside.unwrap_or_else(|why| panic!("{host}: {why}"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let Some(mut guardian) = self.guardian.take() else { return };
        let gone = guardian.dispose();
        for child in self.children.values_mut() {
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir(state::base()); // the last one takes the folder with it
        if !std::thread::panicking() {
            assert!(gone, "something is left of lab {}: see {}", self.name(), state::base().display());
        }
    }
}

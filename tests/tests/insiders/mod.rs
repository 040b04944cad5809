//! Hosts that run inside a test, so that it holds their keys and can say what a daemon never would.

use mesh::identity::Keys;
use node::api::Control;
use node::api::types::InviteRequest;
use node::config::Config;
use node::driver::{HostNode, Inner, Node};
use node::state_folder::StateFolder;
use std::sync::Arc;
use std::time::Duration;
use tests::daemon::{Daemon, PATIENCE, Settings};
use tests::fleet::Fleet;
use tests::wait_for;
use tokio::runtime::Runtime;

/// A host inside the test, and the keys that it signs with.
pub struct Insider {
    // Before the runtime it lives on.
    pub node: Node,
    pub keys: Keys,
}

impl Insider {
    pub fn start(runtime: &Runtime, host: &Daemon) -> Self {
        let folder = StateFolder::open(&host.dir).expect("state folder");
        let config = Config::load(&folder.config()).expect("configuration");
        let node = runtime.block_on(HostNode::start(&folder, &config)).unwrap_or_else(|e| panic!("{e:?}"));
        Insider { node, keys: folder.keys().expect("keys") }
    }

    pub fn control(&self) -> Arc<Inner> {
        self.node.control()
    }
}

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime")
}

/// A mesh of four: `x` (founder, signer and leader) and `y` inside the test, `b` and `c` daemons that vote with `x`.
pub fn four(runtime: &Runtime, daemons: impl Fn(&Fleet, &str) -> Settings) -> (Fleet, Insider, Insider) {
    let mut fleet = Fleet::empty(&Settings::default());
    let founder = fleet.stranger("x");
    founder.ok(&["init", "--name", "x", "--mesh", "demo", "--listen", &founder.listen.to_string()]);
    let x = Insider::start(runtime, &founder);
    let invite = |name: &str| {
        let control = x.control();
        let request = InviteRequest { name: name.into(), expires_ms: 3_600_000, signer: false };
        let token = wait_for(PATIENCE, || runtime.block_on(control.invite(request.clone())).ok());
        token.expect("an invitation")
    };
    for name in ["b", "c"] {
        let mut host = fleet.stranger_with(name, &daemons(&fleet, name));
        host.ok(&["join", &invite(name), "--listen", &host.listen.to_string()]);
        host.up();
        fleet.hosts.push(host);
    }
    for host in &fleet.hosts {
        host.wait("led by x with three voters", |s| s.alive() == 3 && s.voters() == 3 && s.leader() == Some("x"));
    }
    let member = fleet.stranger("y");
    member.ok(&["join", &invite("y"), "--listen", &member.listen.to_string()]);
    let y = Insider::start(runtime, &member);
    for host in &fleet.hosts {
        host.wait("of four", |s| s.alive() == 4 && s.leader() == Some("x"));
    }
    (fleet, x, y)
}

/// Ends them, then what they ran on.
pub fn end(runtime: Runtime, insiders: [Insider; 2]) {
    for insider in insiders {
        runtime.block_on(insider.control().shutdown());
        drop(insider);
    }
    runtime.shutdown_timeout(Duration::from_secs(10));
}

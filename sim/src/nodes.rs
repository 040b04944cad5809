//! Whole nodes in a world: what a host's owner does to them, and what each keeps from start to start.
//!
//! A program on each host plays `mesh init` or `mesh join`, then `mesh up`: the real join exchange and the
//! real [`node::driver`], over simulated seams. The harness talks to a node as its owner does, through
//! [`Control`](node::api::Control), and looks at its ledger. It holds nodes weakly: what is left of one
//! after its crash is a leak, and [`Nodes::is_gone`] tells.

use crate::det;
use crate::host::Host;
use crate::machine::{Marker, Markers, SimMachine};
use crate::nat::Routes;
use crate::trace::Trace;
use crate::transport::{Place, to_multiaddr};
use crate::world::{World, WorldError};
use mesh::identity::{Keys, PeerKey};
use mesh::ledger::Ledger;
use mesh::wire::Signed;
use node::blobs::memory::MemoryBlobs;
use node::consensus::Timing;
use node::driver::{Inner, Known, Node, NodeConfig, Token, found, join_request, read_joined};
use node::net::join_once;
use node::seams::{Machine, Seams};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;

/// Where every node listens.
const PORT: u16 = 7400;
/// Room for blobs on a host.
const BLOBS_BYTES: u64 = 1 << 30;
/// How long a joiner waits for one member's answer.
const LEAD_WITHIN: Duration = Duration::from_secs(20);
/// Between two rounds of a joiner over its leads.
const JOIN_AGAIN: Duration = Duration::from_secs(1);

/// How the host comes into its mesh.
#[derive(Clone)]
enum Entrance {
    Founds,
    /// With a token, once its owner has one.
    Joins,
}

/// What the state folder of a real host holds; written and synced before the node starts.
#[derive(Clone)]
struct Folder {
    genesis: Signed,
    credential: Signed,
    known: Vec<Known>,
}

type Work = Box<dyn FnOnce(Arc<Inner>) -> Pin<Box<dyn Future<Output = ()>>>>;

/// What program and harness share of a host.
#[derive(Default)]
struct Desk {
    folder: RefCell<Option<Folder>>,
    token: RefCell<Option<String>>,
    node: RefCell<Weak<Inner>>,
    work: RefCell<VecDeque<Work>>,
    /// Tells the running program that token or work came.
    called: RefCell<Arc<Notify>>,
}

struct Station {
    host: Host,
    keys: Keys,
    desk: Rc<Desk>,
}

/// What an owner asked of a node, once it is there.
pub struct Answer<T>(Rc<RefCell<Option<T>>>);

impl<T> Answer<T> {
    /// Whether it has come.
    pub fn is_there(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Takes it.
    pub fn take(&self) -> Option<T> {
        self.0.borrow_mut().take()
    }
}

/// A world of whole nodes.
pub struct Nodes {
    /// The network and its faults.
    pub world: World,
    seed: u64,
    trace: Trace,
    timing: Timing,
    markers: Markers,
    stations: BTreeMap<String, Station>,
}

impl Nodes {
    /// A world without hosts.
    pub fn new(world: World, seed: u64, trace: Trace, timing: Timing) -> Nodes {
        Nodes { world, seed, trace, timing, markers: Markers::default(), stations: BTreeMap::new() }
    }

    /// Adds the host that founds the mesh.
    pub fn founder(&mut self, name: &str, cores: u32) {
        self.add(name, cores, Entrance::Founds);
    }

    /// Adds a host that joins as soon as it gets a token.
    pub fn joiner(&mut self, name: &str, cores: u32) {
        self.add(name, cores, Entrance::Joins);
    }

    fn add(&mut self, name: &str, cores: u32, entrance: Entrance) {
        let ip: IpAddr = Ipv4Addr::new(10, 0, 0, self.stations.len() as u8 + 1).into();
        let place = Place { name: name.into(), ip, routes: Routes::default(), trace: self.trace.clone() };
        let machine = SimMachine::new(name, cores, self.seed, self.markers.clone());
        let host = Host::new(place, machine, Arc::new(MemoryBlobs::new(BLOBS_BYTES)), self.seed);
        let keys = Keys::from_seed(host.key_seed());
        let (desk, timing, seed) = (Rc::new(Desk::default()), self.timing, self.seed);
        let program = {
            let (host, keys, desk) = (host.clone(), keys.clone(), desk.clone());
            move |seams| program(host.clone(), keys.clone(), desk.clone(), entrance.clone(), timing, seed, seams)
        };
        host.install(&mut self.world, program);
        self.stations.insert(name.to_owned(), Station { host, keys, desk });
    }

    fn station(&self, name: &str) -> &Station {
        match self.stations.get(name) {
            Some(station) => station,
            None => panic!("the scenario has no host `{name}`"),
        }
    }

    /// The hosts, in the order of their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.stations.keys().map(String::as_str)
    }

    /// A host's key.
    pub fn key(&self, name: &str) -> PeerKey {
        self.station(name).keys.key()
    }

    /// The name of the host with a key.
    pub fn name_of(&self, key: &PeerKey) -> Option<&str> {
        self.stations.iter().find(|(_, s)| s.keys.key() == *key).map(|(name, _)| name.as_str())
    }

    /// A host's disk, to make it fail.
    pub fn host(&self, name: &str) -> &Host {
        &self.station(name).host
    }

    /// The traces of attempts outside of any ledger.
    pub fn markers(&self) -> Vec<Marker> {
        self.markers.all()
    }

    /// A look at a host's ledger; nothing when no node runs there.
    pub fn ledger<T>(&self, name: &str, look: impl FnOnce(&Ledger) -> T) -> Option<T> {
        let node = self.station(name).desk.node.borrow().upgrade()?;
        Some(node.ledger(look))
    }

    /// Whether a host sees another alive.
    pub fn sees_alive(&self, name: &str, other: &str) -> bool {
        let node = self.station(name).desk.node.borrow().upgrade();
        node.is_some_and(|node| node.sees_alive(&self.key(other)))
    }

    /// Whether nothing is left of the node that ran on a host: each task of it has ended.
    pub fn is_gone(&self, name: &str) -> bool {
        self.station(name).desk.node.borrow().strong_count() == 0
    }

    /// Hands a token to the owner of a joining host.
    pub fn hand_token(&self, name: &str, token: String) {
        let desk = &self.station(name).desk;
        desk.token.replace(Some(token));
        desk.called.borrow().notify_one();
    }

    /// Asks something of the node on a host, as its owner: now when it runs, else when it does.
    pub fn ask<T: 'static, F>(&self, name: &str, work: impl FnOnce(Arc<Inner>) -> F + 'static) -> Answer<T>
    where
        F: Future<Output = T> + 'static,
    {
        let slot = Rc::new(RefCell::new(None));
        let answer = Answer(slot.clone());
        let desk = &self.station(name).desk;
        desk.work.borrow_mut().push_back(Box::new(move |node| {
            Box::pin(async move {
                let value = work(node).await;
                slot.replace(Some(value));
            })
        }));
        desk.called.borrow().notify_one();
        answer
    }

    /// Lets time pass until an answer is there.
    ///
    /// # Errors
    /// When a host fails, or it is not there in time.
    pub fn answered<T>(&mut self, what: &str, limit: Duration, answer: &Answer<T>) -> Result<T, WorldError> {
        self.world.run_until(what, limit, || answer.is_there())?;
        answer.take().ok_or_else(|| WorldError::Unexpected(format!("{what}: taken already")))
    }

    /// Lets time pass until something is so of these nodes.
    ///
    /// # Errors
    /// When a host fails, or it is not so in time.
    pub fn until(&mut self, what: &str, limit: Duration, so: impl Fn(&Nodes) -> bool) -> Result<(), WorldError> {
        let end = self.world.elapsed() + limit;
        while !so(self) {
            if self.world.elapsed() >= end {
                let (waited, elapsed) = (limit, self.world.elapsed());
                return Err(WorldError::Waited { what: what.to_owned(), waited, elapsed });
            }
            self.world.run_for(Duration::from_millis(1))?;
        }
        Ok(())
    }

    /// The process on a host dies.
    pub fn crash(&mut self, name: &str) {
        self.host(name).clone().crash(&mut self.world);
    }

    /// The process on a host is started again.
    pub fn restart(&mut self, name: &str) {
        self.host(name).clone().restart(&mut self.world);
    }

    /// A host loses its power.
    pub fn power_cut(&mut self, name: &str) {
        self.host(name).clone().power_cut(&mut self.world);
    }

    /// A host has power again.
    pub fn power_on(&mut self, name: &str) {
        self.host(name).clone().power_on(&mut self.world);
    }
}

async fn program(
    host: Host,
    keys: Keys,
    desk: Rc<Desk>,
    entrance: Entrance,
    timing: Timing,
    seed: u64,
    seams: Seams,
) -> turmoil::Result {
    let called = Arc::new(Notify::new());
    called.notify_one(); // something may have come while nothing ran
    desk.called.replace(called.clone());
    let mut store_id = [0; 16];
    store_id.copy_from_slice(&det::derive(seed, &format!("folder of {}", host.name()), 0)[..16]);
    let kept = desk.folder.borrow().clone();
    let folder = match (kept, entrance) {
        (Some(folder), _) => folder,
        (None, Entrance::Founds) => {
            let mut random = [0; 48];
            random[..32].copy_from_slice(&det::derive(seed, "recovery key", 0));
            random[32..].copy_from_slice(&det::derive(seed, "genesis", 0)[..16]);
            let machine = host.machine().facts().machine_id;
            let founded = found(&keys, "sim", host.name(), &random, machine, store_id);
            Folder { genesis: founded.genesis, credential: founded.credential, known: vec![] }
        }
        (None, Entrance::Joins) => join(&host, &keys, &desk, store_id, &called).await?,
    };
    desk.folder.replace(Some(folder.clone()));
    let config = NodeConfig {
        keys,
        genesis: folder.genesis,
        credential: folder.credential,
        start: host.starts(),
        store_id,
        listen: vec![to_multiaddr(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT))],
        known: folder.known,
        leads: vec![],
        timing,
        allow_reboot: false,
        protected: false,
    };
    let node = Node::start(config, seams).await?;
    desk.node.replace(Arc::downgrade(&node.control()));
    loop {
        tokio::select! {
            biased;
            ended = node.stopped() => return ended.map_err(Into::into),
            () = called.notified() => {}
        }
        loop {
            let Some(work) = desk.work.borrow_mut().pop_front() else { break };
            tokio::task::spawn_local(work(node.control()));
        }
    }
}

/// `mesh join`: over all leads of the token, until a member lets us in.
async fn join(
    host: &Host,
    keys: &Keys,
    desk: &Desk,
    store_id: [u8; 16],
    called: &Notify,
) -> Result<Folder, Box<dyn std::error::Error>> {
    let text = loop {
        let token = desk.token.borrow().clone();
        match token {
            Some(text) => break text,
            None => called.notified().await,
        }
    };
    let (token, invitation) = Token::parse(&text)?;
    let machine_id = host.machine().facts().machine_id;
    let request = join_request(keys, &token, invitation.mesh, machine_id, store_id);
    loop {
        for lead in &token.leads {
            for address in &lead.addresses {
                let address = address.parse()?;
                match join_once(keys, host.transport(), lead.peer, address, request.clone(), LEAD_WITHIN).await {
                    Ok(answer) => {
                        let joined = read_joined(&answer, keys, invitation.mesh)?;
                        called.notify_one(); // work may have come with the token
                        return Ok(Folder {
                            genesis: joined.genesis,
                            credential: joined.credential,
                            known: joined.members,
                        });
                    }
                    Err(error) => tracing::info!(lead = lead.name, %error, "a lead led nowhere"),
                }
            }
        }
        tokio::time::sleep(JOIN_AGAIN).await;
    }
}

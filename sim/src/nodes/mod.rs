//! Whole nodes in a world: what a host's owner does to them, and what each keeps from start to start.
//!
//! A program on each host plays `mesh init` or `mesh join`, then `mesh up`: the real join exchange and the
//! real [`node::driver`], over simulated seams. The harness talks to a node as its owner does, through
//! [`Control`](node::api::Control), and looks at its ledger. It holds nodes weakly: what is left of one
//! after its crash is a leak, and [`Nodes::is_gone`] tells.

mod acts;
mod bearer;
mod clients;
mod eyes;
mod faults;
mod liars;
mod orders;
mod owners;
mod program;
mod quorum;
mod stage;

pub use orders::run_orders;
pub use stage::{NodesStage, fleet, run_nodes};

use crate::host::Host;
use crate::machine::{Marker, Markers, SimMachine};
use crate::network::Network;
use crate::trace::Trace;
use crate::transport::Place;
use crate::world::{World, WorldError};
use mesh::identity::PeerKey;
use mesh::ledger::Ledger;
use mesh::membership::State;
use node::blobs::memory::MemoryBlobs;
use node::consensus::Timing;
use node::driver::Inner;
use program::{Desk, Entrance, Folder, program};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Room for blobs on a host.
const BLOBS_BYTES: u64 = 1 << 30;

type Addresses = BTreeMap<String, Ipv4Addr>;

struct Station {
    host: Host,
    desk: Rc<Desk>,
    blobs: MemoryBlobs,
}

impl Station {
    /// The node that runs here.
    fn node(&self) -> Option<Arc<Inner>> {
        self.desk.node.borrow().upgrade()
    }
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
    /// Hosts, wires and power.
    pub world: World,
    /// Addresses and cuts.
    pub network: Network,
    seed: u64,
    trace: Trace,
    timing: Timing,
    markers: Markers,
    stations: BTreeMap<String, Station>,
}

impl Nodes {
    /// A world without hosts, on one flat network.
    pub fn new(world: World, seed: u64, trace: Trace, timing: Timing) -> Nodes {
        let network = Network::flat(trace.clone());
        Nodes::on(world, network, seed, trace, timing)
    }

    /// A world without hosts, on a network.
    pub fn on(world: World, network: Network, seed: u64, trace: Trace, timing: Timing) -> Nodes {
        Nodes { world, network, seed, trace, timing, markers: Markers::default(), stations: BTreeMap::new() }
    }

    /// Adds the host that founds the mesh.
    pub fn founder(&mut self, name: &str, cores: u32) {
        let addresses = self.flat_address();
        self.add(name, cores, addresses, Folder::new(self.seed, name, 0), Entrance::Founds);
    }

    /// Adds a host that joins as soon as it gets a token.
    pub fn joiner(&mut self, name: &str, cores: u32) {
        let addresses = self.flat_address();
        self.add(name, cores, addresses, Folder::new(self.seed, name, 0), Entrance::Joins);
    }

    fn flat_address(&self) -> Addresses {
        [("lan".to_owned(), Ipv4Addr::new(10, 0, 0, self.stations.len() as u8 + 1))].into()
    }

    fn add(&mut self, name: &str, cores: u32, addresses: Addresses, folder: Folder, entrance: Entrance) {
        self.place(name, cores, addresses, folder, entrance);
        self.install(name);
    }

    /// Puts a host there, without starting it.
    fn place(&mut self, name: &str, cores: u32, addresses: Addresses, folder: Folder, entrance: Entrance) {
        let place = Place::new(name, addresses, &self.network, &self.trace);
        let machine = SimMachine::new(name, cores, self.seed, self.markers.clone());
        let blobs = MemoryBlobs::new(BLOBS_BYTES);
        let host = Host::new(place, machine, Arc::new(blobs.clone()), self.seed);
        let desk = Rc::new(Desk::new(folder, entrance));
        self.stations.insert(name.to_owned(), Station { host, desk, blobs });
    }

    /// Starts a host that was placed.
    fn install(&mut self, name: &str) {
        let Some(Station { host, desk, .. }) = self.stations.get(name) else { return };
        let (host, desk, timing, seed) = (host.clone(), desk.clone(), self.timing, self.seed);
        let of_host = host.clone();
        let software = move |seams| program(of_host.clone(), desk.clone(), timing, seed, seams);
        host.install(&mut self.world, software);
    }

    /// Gives the wires of a host the latency that its fleet says, where that is more than `least`.
    fn stretch(&mut self, name: &str, least: Duration) {
        for other in self.stations.keys().filter(|other| *other != name) {
            let one_way = self.network.round_trip_ms(name, other).map(|ms| Duration::from_millis(ms / 2));
            if let Some(one_way) = one_way.filter(|one_way| *one_way > least) {
                self.world.set_latency(name, other, one_way);
            }
        }
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
        self.station(name).desk.folder.borrow().keys.key()
    }

    /// The name of the host with a key.
    pub fn name_of(&self, key: &PeerKey) -> Option<&str> {
        self.stations.iter().find(|(_, s)| s.desk.folder.borrow().keys.key() == *key).map(|(name, _)| name.as_str())
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

    /// What a host believes of a key; nothing when no node runs there.
    pub fn believes(&self, name: &str, of: &PeerKey) -> Option<State> {
        let node = self.station(name).node()?;
        node.beliefs().into_iter().find(|(key, _)| key == of).map(|(_, state)| state)
    }

    /// Whether a host holds a key to be alive twice.
    pub fn holds_cloned(&self, name: &str, key: &PeerKey) -> bool {
        self.station(name).node().is_some_and(|node| node.clones().contains(key))
    }

    /// Number of a host's last start, by its state folder.
    pub fn start_of(&self, name: &str) -> u64 {
        self.station(name).desk.folder.borrow().start
    }

    /// Connections that were reset from outside of their hosts.
    pub fn resets(&self) -> u64 {
        self.network.resets()
    }

    /// Whether nothing is left of the node that ran on a host: each task of it has ended.
    pub fn is_gone(&self, name: &str) -> bool {
        self.station(name).desk.node.borrow().strong_count() == 0
    }

    /// Hands a token to the owner of a joining host.
    pub fn hand_token(&self, name: &str, token: String) {
        let desk = &self.station(name).desk;
        desk.token.replace(Some(token));
        desk.call();
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
        desk.call();
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
            self.step()?;
        }
        Ok(())
    }

    /// Lets one tick pass.
    ///
    /// # Errors
    /// When a host fails.
    pub fn step(&mut self) -> Result<(), WorldError> {
        self.world.step()?;
        let elapsed = self.world.elapsed();
        for (name, station) in &self.stations {
            let failed = station.desk.ended.borrow().as_ref().and_then(|ended| ended.as_ref().err().cloned());
            if let Some(text) = failed {
                return Err(WorldError::Host { elapsed, text: format!("{name}: {text}") });
            }
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

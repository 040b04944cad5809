//! A host for a whole node: what stays when the node on it dies, and the seams for each of its starts.
//!
//! Disk, blobs and machine belong to the host; a node gets handles to them with [`Host::seams`], anew at
//! each start, with a seed that differs from start to start as a real one would. Faults that concern more
//! than the network are here: [`Host::crash`] kills the process, [`Host::power_cut`] the machine.

use crate::current::{self, Current};
use crate::det;
use crate::disk::{Disk, Loss};
use crate::machine::SimMachine;
use crate::network::Power;
use crate::papers::DiskVault;
use crate::transport::{self, Place};
use crate::world::World;
use node::seams::{BlobStore, Blocking, MakeTransport, Notes, Seams};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A host. Clones are the same host.
#[derive(Clone)]
pub struct Host {
    place: Place,
    disk: Disk,
    blobs: Arc<dyn BlobStore>,
    notes: Arc<Kept>,
    machine: Arc<SimMachine>,
    seed: u64,
    starts: Arc<AtomicU64>,
    current: Current,
}

/// A small file that stays from start to start.
#[derive(Default)]
struct Kept(Mutex<Option<Vec<u8>>>);

impl Notes for Kept {
    fn read(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn write(&self, bytes: &[u8]) -> std::io::Result<()> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes.to_vec());
        Ok(())
    }
}

impl Host {
    /// A host that has never been started. `seed` is the simulation's.
    pub fn new(place: Place, machine: SimMachine, blobs: Arc<dyn BlobStore>, seed: u64) -> Host {
        let disk = Disk::new(&place.name, place.trace.clone());
        let current = Current::new(&place.name);
        Host {
            place,
            disk,
            blobs,
            notes: Arc::default(),
            machine: Arc::new(machine),
            seed,
            starts: Arc::default(),
            current,
        }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.place.name
    }

    /// Its place in the network.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Its clocks, and whether its program stands still.
    pub fn current(&self) -> &Current {
        &self.current
    }

    /// Its identity's seed: a function of the simulation's seed and the name.
    pub fn key_seed(&self) -> [u8; 32] {
        det::derive(self.seed, &format!("key of {}", self.name()), 0)
    }

    /// A transport besides the node's, for what is done before there is a node: joining.
    pub fn transport(&self) -> MakeTransport {
        transport::make(self.place.clone())
    }

    /// The machine under it.
    pub fn machine(&self) -> &SimMachine {
        &self.machine
    }

    /// The disk that its ledger is on.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Its small file becomes what the other's is now.
    pub fn copy_notes(&self, from: &Host) {
        let notes = from.notes.read();
        *self.notes.0.lock().unwrap_or_else(PoisonError::into_inner) = notes;
    }

    /// How often a node was started on it.
    pub fn starts(&self) -> u64 {
        self.starts.load(Ordering::Relaxed)
    }

    /// The seams for one start of a node.
    pub fn seams(&self) -> Seams {
        let start = self.starts.fetch_add(1, Ordering::Relaxed) + 1;
        Seams {
            transport: transport::make(self.place.clone()),
            store: self.disk.open_store(),
            blobs: self.blobs.clone(),
            notes: self.notes.clone(),
            vault: Arc::new(DiskVault::new(&self.disk)),
            machine: self.machine.clone(),
            doors: |_| Box::pin(async { Err(std::io::ErrorKind::Unsupported.into()) }),
            seed: det::derive(self.seed, &format!("starts of {}", self.name()), start),
            spawn: |task| current::spawn(task),
            blocking: Blocking::Delayed(current::sync_time),
        }
    }

    /// Puts it into a world; `node` runs now and after each restart.
    pub fn install<Fut>(&self, world: &mut World, node: impl Fn(Seams) -> Fut + 'static)
    where
        Fut: Future<Output = turmoil::Result> + 'static,
    {
        let host = self.clone();
        self.place.network.set_power(self.name(), Power::Program);
        world.host(self.name(), self.place.wire, move || host.current.wrap(node(host.seams())));
    }

    /// The node dies; its kernel closes its connections and keeps what was written.
    pub fn crash(&self, world: &mut World) {
        // First the disk: what the dying node's destructors write must not count.
        self.disk.crash(Loss::Nothing);
        self.place.network.set_power(self.name(), Power::Kernel);
        world.crash(self.name());
        self.current.stand_still(false);
    }

    /// The power goes, without a word to anybody; unsynced writes are lost in part.
    pub fn power_cut(&self, world: &mut World) {
        let which = det::derive(self.seed, &format!("losses of {}", self.name()), self.starts());
        let [a, b, c, d, e, f, g, h, ..] = which;
        self.disk.crash(Loss::Some(u64::from_le_bytes([a, b, c, d, e, f, g, h])));
        self.machine.reboot();
        self.place.network.set_power(self.name(), Power::Off);
        world.power_cut(self.name());
        self.current.stand_still(false);
    }

    /// Starts the node again after [`Host::crash`].
    pub fn restart(&self, world: &mut World) {
        self.place.network.set_power(self.name(), Power::Program);
        world.bounce(self.name());
    }

    /// Gives the power back after [`Host::power_cut`]; the node starts.
    pub fn power_on(&self, world: &mut World) {
        self.place.network.set_power(self.name(), Power::Program);
        world.power_on(self.name());
    }
}

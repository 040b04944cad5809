//! The driver: one node, joined from its parts.
//!
//! One loop owns what is believed of other hosts ([`mesh::membership`], [`mesh::addresses`]): it takes the
//! network's events, the watchers' timers and the ledger's changes, and does what the core asks for.
//! Beside it run a batcher (entries on their way to the ledger), a leader's task (plans while the lease
//! stands), and a task for each stream and each attempt. `main.rs` starts one of these on a real host,
//! crate `sim` three and more in a simulated one; what differs is in [`Seams`].

mod audit;
mod cases;
mod control;
mod courier;
mod doctor;
mod enter;
mod execute;
mod find;
mod hand_over;
mod healing;
mod invitations;
mod keep;
mod lead;
mod local;
mod log;
mod looks;
mod outcast;
mod paths;
mod ping;
mod plan;
mod policy;
mod recover;
mod replicate;
mod restrain;
mod shared;
mod standing;
mod status;
mod submit;
mod succession;
mod tend;
mod token;
mod topology;
mod view;
mod watch;
mod why;

pub use enter::ask_all;
pub use healing::Ask;
pub use local::HostNode;
pub use looks::{Deed, Word};
pub use policy::{Joined, Known};
pub use recover::{record_from, record_text, recovery_keys};
pub use submit::SubmitError;
pub use token::{Founded, Token, TokenError, found, join_request, read_joined};

use crate::consensus::{Consensus, ConsensusConfig, Process, Timing};
use crate::guard::Store;
use crate::net::{self, Multiaddr, Net, NetConfig, NetEvent, Protocol, Stream};
use crate::seams::{BlobStore, DialDoor, Facts, Machine, OpenStore, Seams, Spawn};
use execute::Running;
use mesh::addresses::Addresses;
use mesh::blame::Judge;
use mesh::build::{Attempt, BuildId};
use mesh::clock::LedgerClock;
use mesh::identity::{Keys, PeerKey};
use mesh::ledger::{Ledger, RequestId};
use mesh::membership::{self, GuardDoor, Membership, Networks, PresenceFacts};
use mesh::placement::View;
use mesh::roster::{MeshId, VoterChange, mesh_id};
use mesh::time::Time;
use mesh::wire::Signed;
use policy::Policy;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;
use shared::{Shared, lock};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use submit::Pending;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What a node is told at its start.
pub struct NodeConfig {
    /// Who it is.
    pub keys: Keys,
    /// The mesh's founding record.
    pub genesis: Signed,
    /// A member's word that this host is enrolled; its own for the first host.
    pub credential: Signed,
    /// Start number, counted up and synced before this call.
    pub start: u64,
    /// Random id of the state folder.
    pub store_id: [u8; 16],
    /// Where to listen.
    pub listen: Vec<Multiaddr>,
    /// Members as told when this host joined.
    pub known: Vec<Known>,
    /// Addresses from the host's own configuration.
    pub leads: Vec<Multiaddr>,
    /// Whether members on the same network are looked for by mDNS.
    pub mdns: bool,
    /// How quick consensus is.
    pub timing: Timing,
    /// Slow facts that the host's owner decided.
    pub allow_reboot: bool,
    /// See `allow_reboot`.
    pub protected: bool,
    /// Where the guard is to be found when this node does not answer, if its host has given it a door.
    pub guard: Option<GuardDoor>,
}

/// Why a node could not start. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The network.
    #[error(transparent)]
    Net(#[from] net::NetError),
    /// The founding record or the stored ledger.
    #[error("the state folder does not hold a usable mesh: {0}")]
    Ledger(String),
    /// Consensus.
    #[error("the ledger's store cannot be opened: {0}")]
    Consensus(String),
}

/// Why a running node cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Broken {
    /// What happened.
    pub what: String,
    /// What to do.
    pub hint: String,
}

/// A running node. Dropped, it stops.
pub struct Node {
    inner: Arc<Inner>,
    _stop: tokio_util::sync::DropGuard,
}

/// What all parts of a node share.
pub struct Inner {
    keys: Keys,
    me: PeerKey,
    mesh: MeshId,
    start: u64,
    config_leads: Vec<Multiaddr>,
    allow_reboot: bool,
    protected: bool,
    guard_door: Option<GuardDoor>,
    doors: DialDoor,
    /// Errands as a courier that run.
    errands: Semaphore,
    facts: Facts,
    shared: Arc<Shared>,
    policy: Arc<Policy>,
    consensus: Consensus,
    net: Net,
    blobs: Arc<dyn BlobStore>,
    machine: Arc<dyn Machine>,
    spawn: Spawn,
    random: Mutex<ChaCha20Rng>,
    born: Instant,
    stop: CancellationToken,
    entries: mpsc::Sender<Pending>,
    submit_streams: Mutex<Vec<(PeerKey, Stream)>>,
    clock: Mutex<Option<(u64, LedgerClock)>>,
    view: Mutex<Arc<View>>,
    /// What blame says of the ledger as it is.
    judge: Mutex<Judge>,
    wake_leader: Notify,
    invitations: Mutex<invitations::Invitations>,
    /// Whom an earlier start had found.
    found: BTreeSet<PeerKey>,
    members: Mutex<Membership>,
    /// Where the members are, and whether one has said so since the watchers were told.
    networks: Mutex<Networks>,
    replaced: AtomicBool,
    addresses: Mutex<Addresses>,
    /// Something was learned of where others are.
    leads_changed: Notify,
    paths: Mutex<paths::Paths>,
    probe_out: Mutex<BTreeMap<PeerKey, mpsc::Sender<Vec<u8>>>>,
    probe_in: Mutex<BTreeMap<PeerKey, mpsc::Sender<Vec<u8>>>>,
    jobs: Mutex<BTreeMap<(BuildId, Attempt), Running>>,
    strangers: Mutex<Vec<status::Stranger>>,
    corrupt: Mutex<BTreeMap<PeerKey, u64>>,
    /// What others have asked this host to take, while it does.
    taking: Mutex<replicate::Taking>,
    /// Builds that ended here and wait for a second host to hold what they made.
    unheld: Mutex<BTreeSet<BuildId>>,
    /// For whoever looks on; see [`looks`].
    deeds: Mutex<looks::Latest<Deed>>,
    words: Mutex<looks::Latest<Word>>,
    healing: healing::Healing,
    outcast: Mutex<outcast::Outcast>,
    leaving: CancellationToken,
    /// This host is about to leave, and as the leader gives its seat to another.
    retiring: AtomicBool,
    /// It has taken a recovery over: its log begins anew at the next start.
    anew: AtomicBool,
    /// A genuine record that contends with the recovery that this host follows.
    contender: Mutex<Option<VoterChange>>,
    /// Voters that this host has proposed as the leader, while that has no answer.
    coming: Mutex<mesh::ledger::Coming>,
    /// Why this node cannot go on, when that is why it is leaving.
    broken: OnceLock<Broken>,
    /// Somebody connected since the last tick.
    newcomers: AtomicBool,
    /// When this host may next say where it is because somebody has.
    announce_at: Mutex<Time>,
}

/// Inputs for the membership core that wait for the loop.
const INPUTS_MAX: usize = 1_024;
/// Between two ticks of the housekeeping (dials, load) while there is something to do.
const TICK: Duration = Duration::from_millis(500);

/// This host's wall clock, in milliseconds since 1970. For people and for ledger time, never for order.
pub fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_millis() as u64)
}

impl Node {
    /// Starts a node: network, consensus, and the tasks that join them. Returns when it listens.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: NodeConfig, seams: Seams) -> Result<Node, StartError> {
        let ledger = Ledger::found(&config.genesis).map_err(|e| StartError::Ledger(e.to_string()))?;
        let (me, mesh) = (config.keys.key(), mesh_id(&config.genesis));
        let first = config.genesis.by == me;
        let shared = Arc::new(Shared::new(ledger));
        let policy = Arc::new(Policy::new(mesh, config.credential.clone(), shared.clone(), &config.known));
        let mut random = ChaCha20Rng::from_seed(seams.seed);
        let facts = seams.machine.facts();

        let net_config = NetConfig {
            keys: config.keys.clone(),
            listen: config.listen.clone(),
            admission: policy.clone(),
            agent: concat!("mesh/", env!("CARGO_PKG_VERSION")).into(),
            limits: net::Limits::default(),
            mdns: config.mdns,
        };
        let (net, events) = net::start(net_config, seams.transport, seams.spawn)?;
        let consensus_seed = random.random();
        let own = membership::Own {
            keys: config.keys.clone(),
            mesh: mesh.0,
            start: config.start,
            store: config.store_id,
            machine_id: facts.machine_id,
            boot_id: facts.boot_id,
            nonce: random.random(),
        };
        let origin = membership::origin(&own.store, &own.machine_id, &own.boot_id, own.nonce);
        let consensus_config = ConsensusConfig {
            me,
            process: Process { start: config.start, origin },
            timing: config.timing,
            store: not_gone(seams.store, config.start),
            spawn: seams.spawn,
            blocking: seams.blocking,
            seed: consensus_seed,
            dial: Arc::new(RaftDial(net.clone())),
            epoch: 0,
            boot_quarantine: true,
            watch_peers: true,
            clock: crate::consensus::boottime,
            machine: shared.clone(),
        };
        let consensus = Consensus::start(consensus_config).await.map_err(|e| StartError::Consensus(e.to_string()))?;
        // Of a recovered mesh another host is the heir, or this one's log says so already.
        if first && consensus.epoch() == 0 {
            consensus.initialize_single().await.map_err(|e| StartError::Consensus(e.to_string()))?;
        }

        let kept = keep::kept(&*seams.notes);
        let born = Instant::now();
        let members = Membership::new(own, random.random(), membership::Config::default(), Time::default());
        let stop = CancellationToken::new();
        let (entries, waiting) = mpsc::channel(submit::WAITING_MAX);
        let inner = Arc::new(Inner {
            me,
            mesh,
            start: config.start,
            config_leads: config.leads,
            allow_reboot: config.allow_reboot,
            protected: config.protected,
            guard_door: config.guard,
            doors: seams.doors,
            errands: Semaphore::new(crate::fallback::courier::ERRANDS_MAX),
            facts,
            shared,
            policy: policy.clone(),
            consensus,
            net,
            blobs: seams.blobs,
            machine: seams.machine,
            spawn: seams.spawn,
            random: Mutex::new(random),
            born,
            stop: stop.clone(),
            entries,
            submit_streams: Mutex::default(),
            clock: Mutex::default(),
            view: Mutex::default(),
            judge: Mutex::default(),
            wake_leader: Notify::new(),
            invitations: Mutex::default(),
            found: kept.peers().collect(),
            members: Mutex::new(members),
            networks: Mutex::default(),
            replaced: AtomicBool::new(false),
            addresses: Mutex::new(Addresses::new(me)),
            leads_changed: Notify::new(),
            paths: Mutex::default(),
            probe_out: Mutex::default(),
            probe_in: Mutex::default(),
            jobs: Mutex::default(),
            strangers: Mutex::default(),
            corrupt: Mutex::default(),
            taking: Mutex::default(),
            unheld: Mutex::default(),
            deeds: Mutex::default(),
            words: Mutex::default(),
            healing: healing::Healing::new(Store::new(seams.vault, mesh, me), seams.blocking),
            outcast: Mutex::default(),
            leaving: CancellationToken::new(),
            retiring: AtomicBool::new(false),
            anew: AtomicBool::new(false),
            contender: Mutex::default(),
            coming: Mutex::default(),
            broken: OnceLock::new(),
            newcomers: AtomicBool::new(false),
            announce_at: Mutex::default(),
            keys: config.keys,
        });
        policy.attach(&inner);
        inner.vouch();
        inner.learn_known(&config.known);
        lock(&inner.addresses).recall(&kept, inner.now());
        inner.task(inner.clone().run_keeper(seams.notes, seams.blocking, kept));
        inner.clone().start_tasks(waiting, events)?;
        Ok(Node { inner, _stop: stop.drop_guard() })
    }

    /// The node's API.
    pub fn control(&self) -> Arc<Inner> {
        self.inner.clone()
    }

    /// The ledger as this host has it now.
    pub fn ledger(&self) -> Ledger {
        self.inner.shared.with(Ledger::clone)
    }

    /// Where it listens.
    pub fn listening(&self) -> Vec<Multiaddr> {
        self.inner.net.listening()
    }

    /// Stops the node in good order: first its tasks, so that nobody asks consensus what it can no longer do.
    pub async fn stop(self) {
        self.inner.stop.cancel();
        self.inner.consensus.shutdown().await;
    }

    /// Whether it has stopped in order to be started again: its ledger begins anew, after a recovery.
    pub fn begins_anew(&self) -> bool {
        self.inner.anew.load(Ordering::Relaxed)
    }

    /// Waits until the node stops by itself: it left the mesh, was asked to stop, or begins anew.
    ///
    /// # Errors
    /// When it cannot go on: its ledger has stopped. Nothing it says of the mesh is new from then on.
    pub async fn stopped(&self) -> Result<(), Broken> {
        self.inner.leaving.cancelled().await;
        self.inner.broken.get().cloned().map_or(Ok(()), Err)
    }
}

impl Inner {
    /// A look at this host's copy of the ledger. Keep it short: everything else of the node waits meanwhile.
    pub fn ledger<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        self.shared.with(look)
    }

    /// Whether this host sees another alive and knows what it is and where.
    pub fn sees_alive(&self, peer: &PeerKey) -> bool {
        lock(&self.view).get(peer).is_some_and(|host| host.alive)
    }

    fn start_tasks(
        self: Arc<Self>,
        waiting: mpsc::Receiver<Pending>,
        events: mpsc::Receiver<NetEvent>,
    ) -> Result<(), StartError> {
        let (inputs, taken) = mpsc::channel(INPUTS_MAX);
        self.task(self.clone().run_batcher(waiting));
        self.task(self.clone().run_leader());
        self.task(self.clone().run_known_keeper());
        self.task(self.clone().run_lives());
        self.task(self.clone().run_healer());
        self.task(self.clone().run_watch(events, taken, inputs.clone()));
        let this = self.clone();
        self.task(async move {
            let why = this.consensus.ended().await;
            if this.anew.load(Ordering::Relaxed) {
                return; // on purpose: another log begins
            }
            let what = format!("the ledger has stopped on this host: {why}");
            this.end_with(
                what,
                "look at this host's disk (`df`, `dmesg`), then `mesh up`: what it acknowledged is kept",
            );
        });
        let this = self.clone();
        self.serve(Protocol::Raft, move |peer, stream| {
            let this = this.clone();
            async move {
                if let Err(error) = this.consensus.serve(peer, Box::new(stream)).await {
                    tracing::debug!(host = this.name_of(&peer), %error, "a consensus stream ended");
                }
            }
        })?;
        let this = self.clone();
        self.serve(Protocol::Submit, move |_, stream| this.clone().serve_submit(stream))?;
        let this = self.clone();
        self.serve(Protocol::Cosign, move |peer, stream| this.clone().serve_cosign(peer, stream))?;
        let this = self.clone();
        self.serve(Protocol::Logs, move |_, stream| this.clone().serve_logs(stream))?;
        self.serve(Protocol::Ping, |_, stream| ping::echo(stream))?;
        let this = self.clone();
        self.serve(Protocol::Warrant, move |peer, stream| this.clone().serve_warrant(peer, stream))?;
        let this = self.clone();
        self.serve(Protocol::Approve, move |peer, stream| this.clone().serve_approve(peer, stream))?;
        let this = self.clone();
        self.serve(Protocol::Vouch, move |_, stream| this.clone().serve_vouch(stream))?;
        let this = self.clone();
        self.serve(Protocol::Recover, move |peer, stream| this.clone().serve_recovery(peer, stream))?;
        let this = self.clone();
        self.serve(Protocol::Blobs, move |peer, stream| this.clone().serve_blobs(peer, stream))?;
        let this = self.clone();
        let digests = inputs.clone();
        self.serve(Protocol::Digest, move |peer, stream| this.clone().serve_digest(peer, stream, digests.clone()))?;
        let this = self.clone();
        self.serve(Protocol::Courier, move |peer, stream| this.clone().serve_courier(peer, stream))?;
        let this = self.clone();
        self.serve(Protocol::Probe, move |peer, stream| this.clone().serve_probes(peer, stream, inputs.clone()))?;
        Ok(())
    }

    /// Ends the node because it cannot go on. The first reason counts; one that is ending ends as it is.
    fn end_with(&self, what: String, hint: &str) {
        if !self.leaving.is_cancelled() {
            let _ = self.broken.set(Broken { what, hint: hint.to_owned() });
            self.leaving.cancel();
        }
    }

    /// Starts a task that ends with the node.
    fn task(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        (self.spawn)(Box::pin(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = work => {}
            }
        }));
    }

    /// Takes the streams of one protocol; each gets a task.
    fn serve<F>(
        self: &Arc<Self>,
        protocol: Protocol,
        handle: impl Fn(PeerKey, Stream) -> F + Send + Sync + 'static,
    ) -> Result<(), StartError>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut streams = self.net.accept(protocol)?;
        let this = self.clone();
        self.task(async move {
            while let Some((peer, stream)) = streams.recv().await {
                this.task(handle(peer, stream));
            }
        });
        Ok(())
    }

    /// Monotonic time since this node was born.
    fn now(&self) -> Time {
        Time::default() + self.born.elapsed()
    }

    fn request_id(&self) -> RequestId {
        RequestId(lock(&self.random).random())
    }

    /// What this host says of itself.
    fn presence_facts(&self) -> PresenceFacts {
        let name = self.shared.with(|l| l.roster().member(&self.me).map(|m| m.name.clone()).unwrap_or_default());
        PresenceFacts {
            name,
            addresses: self.own_addresses(),
            cores: self.facts.cores,
            memory_mib: self.facts.memory_mib,
            tags: self.facts.tags.clone(),
            version: mesh::ledger::version(env!("CARGO_PKG_VERSION")),
            boot_enabled: self.facts.boot_enabled,
            allow_none: self.facts.allow_none,
            allow_network: self.facts.allow_network,
            allow_reboot: self.allow_reboot,
            protected: self.protected,
            guard: self.guard_door,
        }
    }
}

/// Makes the ledger's store at a host's first start, before anything else: from then on it has to be there.
///
/// # Errors
/// When it cannot be made, or what is there is no store.
pub fn make_store(store: OpenStore) -> io::Result<()> {
    crate::consensus::make_store(store)
}

/// A host that has run before and finds its store empty has forgotten what it promised when it voted.
fn not_gone(store: OpenStore, start: u64) -> OpenStore {
    Box::new(move || {
        let backend = store()?;
        match start > 1 && backend.len()? == 0 {
            false => Ok(backend),
            true => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "it is gone, and with it what this host promised when it voted; restore the whole state folder, \
                 or `mesh evict` this host and join it anew with a fresh one",
            )),
        }
    })
}

/// Consensus opens its streams on the standing connections.
struct RaftDial(Net);

#[async_trait::async_trait]
impl crate::consensus::Dial for RaftDial {
    async fn open(&self, peer: PeerKey) -> io::Result<Box<dyn crate::consensus::Duplex>> {
        let stream = self.0.open(peer, Protocol::Raft).await.map_err(io::Error::other)?;
        Ok(Box::new(stream))
    }
}

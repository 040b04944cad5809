//! What runs on a simulated host: `mesh init` or `mesh join`, then `mesh up`, as a program of its own.
//!
//! The join exchange and [`node::driver`] are the real ones. Program and harness share a [`Desk`]: the
//! state folder, a token once there is one, the node while it runs, and what its owner asks of it. The
//! program never ends by itself, since only a crash closes its sockets: it says that it has ended, and the harness ends it.

use crate::det;
use crate::host::Host;
use crate::transport::to_multiaddr;
use mesh::identity::{Keys, PeerKey};
use mesh::ledger::Ledger;
use mesh::wire::Signed;
use node::consensus::Timing;
use node::driver::{Inner, Known, Node, NodeConfig, Token, ask_all, found, join_request, make_store, read_joined};
use node::guard::Store;
use node::seams::{Machine, Seams};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, pending};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;

/// Between two rounds of a joiner over its leads.
const JOIN_AGAIN: Duration = Duration::from_secs(1);

/// How the host comes into its mesh.
#[derive(Clone)]
pub(super) enum Entrance {
    /// It makes one.
    Founds,
    /// With a token, once its owner has one.
    Joins,
    /// Uninvited: it makes a mesh of its own, and dials the members of another.
    Intrudes(Vec<Known>),
}

/// What makes a host a member.
#[derive(Clone)]
pub(super) struct Membership {
    pub genesis: Signed,
    pub credential: Signed,
    pub known: Vec<Known>,
}

/// What the state folder of a real host holds; written and synced before the node starts.
#[derive(Clone)]
pub(super) struct Folder {
    pub keys: Keys,
    pub store_id: [u8; 16],
    /// Number of the last start.
    pub start: u64,
    pub member: Option<Membership>,
}

impl Folder {
    /// A new one, `number` of this host: with a key of its own, and no mesh.
    pub fn new(seed: u64, name: &str, number: u64) -> Folder {
        let mut store_id = [0; 16];
        store_id.copy_from_slice(&det::derive(seed, &format!("folder of {name}"), number)[..16]);
        let keys = Keys::from_seed(det::derive(seed, &format!("key of {name}"), number));
        Folder { keys, store_id, start: 0, member: None }
    }
}

pub(super) type Work = Box<dyn FnOnce(Arc<Inner>) -> Pin<Box<dyn Future<Output = ()>>>>;

/// What program and harness share of a host.
pub(super) struct Desk {
    pub folder: RefCell<Folder>,
    pub entrance: RefCell<Entrance>,
    pub token: RefCell<Option<String>>,
    /// Where the host's owner says that others may be found.
    pub leads: RefCell<Vec<SocketAddr>>,
    pub node: RefCell<Weak<Inner>>,
    pub work: RefCell<VecDeque<Work>>,
    /// Tells the running program that token or work came.
    pub called: RefCell<Arc<Notify>>,
    /// The program is over, with this error if it failed.
    pub ended: RefCell<Option<Result<(), String>>>,
    /// Who the running node is.
    pub key: Cell<PeerKey>,
}

impl Desk {
    pub fn new(folder: Folder, entrance: Entrance) -> Desk {
        Desk {
            key: Cell::new(folder.keys.key()),
            folder: RefCell::new(folder),
            entrance: RefCell::new(entrance),
            token: RefCell::default(),
            leads: RefCell::default(),
            node: RefCell::default(),
            work: RefCell::default(),
            called: RefCell::default(),
            ended: RefCell::default(),
        }
    }

    pub fn call(&self) {
        self.called.borrow().notify_one();
    }
}

pub(super) async fn program(host: Host, desk: Rc<Desk>, timing: Timing, seed: u64, seams: Seams) -> turmoil::Result {
    desk.ended.replace(None);
    let ended = run(host, &desk, timing, seed, seams).await;
    desk.ended.replace(Some(ended.map_err(|error| error.to_string())));
    pending().await
}

async fn run(
    host: Host,
    desk: &Desk,
    timing: Timing,
    seed: u64,
    seams: Seams,
) -> Result<(), Box<dyn std::error::Error>> {
    let called = Arc::new(Notify::new());
    called.notify_one(); // something may have come while nothing ran
    desk.called.replace(called.clone());
    let (keys, store_id) = {
        let mut folder = desk.folder.borrow_mut();
        folder.start += 1;
        (folder.keys.clone(), folder.store_id)
    };
    if desk.folder.borrow().start == 1 {
        make_store(host.disk().open_store())?;
    }
    desk.key.set(keys.key());
    let kept = desk.folder.borrow().member.clone();
    let entrance = desk.entrance.borrow().clone();
    let member = match (kept, entrance) {
        (Some(member), _) => member,
        (None, Entrance::Founds) => found_one(&host, &keys, store_id, seed, vec![]),
        (None, Entrance::Intrudes(known)) => found_one(&host, &keys, store_id, seed, known),
        (None, Entrance::Joins) => join(&host, &keys, desk, store_id, &called).await?,
    };
    if desk.folder.borrow().member.is_none() {
        provide(&seams, &keys, &member.genesis)?;
    }
    desk.folder.borrow_mut().member = Some(member.clone());
    let config = NodeConfig {
        mdns: false,
        keys,
        genesis: member.genesis,
        credential: member.credential,
        start: desk.folder.borrow().start,
        store_id,
        listen: host
            .place()
            .port()
            .map(|port| to_multiaddr(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)))
            .into_iter()
            .collect(),
        known: member.known,
        leads: host.place().leads().into_iter().chain(desk.leads.borrow().iter().copied().map(to_multiaddr)).collect(),
        timing,
        allow_reboot: true,
        protected: false,
        guard: None,
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
            crate::current::spawn(work(node.control()));
        }
    }
}

/// The papers by which the host decides about warrants, made before it is a member.
fn provide(seams: &Seams, keys: &Keys, genesis: &Signed) -> Result<(), Box<dyn std::error::Error>> {
    let founded = Ledger::found(genesis)?;
    Ok(Store::new(seams.vault.clone(), founded.mesh(), keys.key()).make(&founded)?)
}

fn found_one(host: &Host, keys: &Keys, store_id: [u8; 16], seed: u64, known: Vec<Known>) -> Membership {
    let mut random = [0; 48];
    random[..32].copy_from_slice(&det::derive(seed, "recovery key", 0));
    random[32..].copy_from_slice(&det::derive(seed, &format!("genesis of {}", host.name()), 0)[..16]);
    let machine = host.machine().facts().machine_id;
    let founded = found(keys, "sim", host.name(), &random, machine, store_id);
    Membership { genesis: founded.genesis, credential: founded.credential, known }
}

/// `mesh join`: over all leads of the token, until a member lets us in.
async fn join(
    host: &Host,
    keys: &Keys,
    desk: &Desk,
    store_id: [u8; 16],
    called: &Notify,
) -> Result<Membership, Box<dyn std::error::Error>> {
    let machine_id = host.machine().facts().machine_id;
    loop {
        // Its owner may bring another meanwhile.
        let text = desk.token.borrow().clone();
        let Some(text) = text else {
            called.notified().await;
            continue;
        };
        let (token, invitation) = Token::parse(&text)?;
        let request = join_request(keys, &token, invitation.mesh, machine_id, store_id);
        match ask_all(keys, || host.transport(), &token, &host.place().leads(), &request).await {
            Ok(answer) => {
                let joined = read_joined(&answer, keys, invitation.mesh)?;
                called.notify_one(); // work may have come with the token
                let (genesis, credential) = (joined.genesis, joined.credential);
                return Ok(Membership { genesis, credential, known: joined.members });
            }
            Err(failed) => {
                failed.iter().for_each(|(lead, error)| tracing::info!(lead, %error, "a lead led nowhere"));
            }
        }
        tokio::time::sleep(JOIN_AGAIN).await;
    }
}

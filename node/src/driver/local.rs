//! A node on a real host: founded or joined into its state folder, then run as a daemon.

use super::enter::ask_all;
use super::policy::Joined;
use super::token::{Token, found, join_request, read_joined};
use super::{Node, NodeConfig, make_store};
use crate::api;
use crate::blobs::folder::FolderBlobs;
use crate::cli::{Ended, Failure, InitArgs, InitDone, JoinArgs, JoinDone, Local, Ready};
use crate::config::Config;
use crate::consensus::{Duplex, Timing};
use crate::guard::{self, FolderVault};
use crate::install::door::key_of;
use crate::machine::act::Commands;
use crate::machine::{BUILD_USER, HostMachine, MachineConfig};
use crate::net::transport;
use crate::seams::{Blocking, Machine, OpenStore, Seams, Spawn};
use crate::state_folder::{FolderLock, StateFolder};
use async_trait::async_trait;
use mesh::membership::GuardDoor;
use mesh::roster::Genesis;
use mesh::wire::{Signed, decode, encode};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::compat::TokioAsyncReadCompatExt;
use tokio_util::sync::CancellationToken;

/// The host's credential and what it was told of other members: bounded by the joining exchange.
const CREDENTIAL_BYTES_MAX: usize = 64 << 10;
/// How long a farewell has to leave the host.
const FAREWELL: Duration = Duration::from_millis(200);

/// Tasks of the daemon are tokio's.
const SPAWN: Spawn = |work| {
    tokio::spawn(work);
};

/// The commands that work where no daemon runs.
pub struct HostNode;

fn short_id(id: [u8; 32]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&id[..16]);
    short
}

fn machine_config(folder: &StateFolder, config: &Config) -> Result<MachineConfig, Failure> {
    let user = config.sandbox.build_uid.unwrap_or(BUILD_USER);
    let work = config.sandbox.work.clone().unwrap_or_else(|| folder.work());
    Ok(MachineConfig {
        build_user: (user, user),
        cores: config.cores,
        tags: config.tags.clone(),
        allow_none: config.sandbox.allow_none,
        allow_network: config.sandbox.allow_network,
        extra_read_only: config.sandbox.paths.clone(),
        commands: Commands {
            restart: config.machine.restart_command.clone(),
            reboot: config.machine.reboot_command.clone(),
        },
        at_boot: config.machine.at_boot,
        ..MachineConfig::new(work, folder.store_id()?)
    })
}

fn machine_id(folder: &StateFolder, config: &Config) -> Result<[u8; 32], Failure> {
    Ok(crate::machine::machine_id(&machine_config(folder, config)?.fallback_machine_id))
}

fn open_store(path: PathBuf) -> OpenStore {
    Box::new(move || {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path)?;
        let backend = redb::backends::FileBackend::new(file).map_err(std::io::Error::other)?;
        Ok(Box::new(backend))
    })
}

async fn dial_door(at: SocketAddr) -> std::io::Result<Box<dyn Duplex>> {
    let stream = tokio::net::TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream.compat()))
}

impl HostNode {
    /// Starts the node of a state folder, with everything real and without an API.
    ///
    /// # Errors
    /// When the folder or the configuration is of no use, or an address is taken; nothing runs then.
    pub async fn start(folder: &StateFolder, config: &Config) -> Result<Node, Failure> {
        let broken = |what: &str, error: String| {
            Failure::new(format!("the {what} in {} is damaged: {error}", folder.path().display()))
                .hint("restore the folder, or join anew with a fresh one")
        };
        let keys = folder.keys()?;
        let genesis: Signed =
            decode(&folder.genesis()?, CREDENTIAL_BYTES_MAX).map_err(|e| broken("genesis", e.to_string()))?;
        let joined: Joined =
            decode(&folder.credential()?, CREDENTIAL_BYTES_MAX).map_err(|e| broken("credential", e.to_string()))?;
        if guard::provide(folder.path(), &keys, &genesis).map_err(|e| Failure::new(e.to_string()))? {
            tracing::warn!("this state folder is older than warrants: what decides about them is made now, and empty");
        }
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|e| Failure::new(format!("no randomness: {e}")))?;

        let machine = HostMachine::new(machine_config(folder, config)?, SPAWN)?;
        let machine: Arc<dyn Machine> = Arc::new(machine);
        let blobs = FolderBlobs::open(folder.blobs(), Blocking::Pool)?;
        let seams = Seams {
            transport: transport::real(),
            store: open_store(folder.ledger()),
            blobs: Arc::new(blobs),
            notes: Arc::new(folder.clone()),
            vault: Arc::new(FolderVault::of(folder.path())),
            machine,
            doors: |at| Box::pin(dial_door(at)),
            seed,
            spawn: SPAWN,
            blocking: Blocking::Pool,
        };
        let start = folder.next_start()?;
        if start == 1 {
            // At once, before anything can fail: from the second start on, a store that is not there was lost.
            make_store(open_store(folder.ledger())).map_err(|e| broken("ledger", e.to_string()))?;
        }
        let guard = folder.ssh_port().map(|port| GuardDoor { port, host_key: key_of(&keys).1 });
        let node_config = NodeConfig {
            keys,
            genesis,
            credential: joined.credential,
            start,
            store_id: short_id(folder.store_id()?),
            listen: config.listen.clone(),
            known: joined.members,
            leads: config.leads.clone(),
            mdns: config.network.mdns,
            timing: if config.timing.lan { Timing::lan() } else { Timing::default() },
            allow_reboot: config.machine.allow_reboot,
            protected: config.machine.protected,
            guard,
        };
        Node::start(node_config, seams).await.map_err(|e| {
            Failure::new(e.to_string()).hint("`listen` in mesh.toml says where; `ss -lntup` who has a port already")
        })
    }
}

#[async_trait]
impl Local for HostNode {
    fn init(&self, folder: &StateFolder, args: InitArgs) -> Result<InitDone, Failure> {
        let keys = folder.keys()?;
        let config = Config::load(&folder.config())?;
        let mut random = [0; 48];
        getrandom::fill(&mut random).map_err(|e| Failure::new(format!("no randomness: {e}")))?;
        let machine = machine_id(folder, &config)?;
        let founded = found(&keys, &args.mesh, &args.host, &random, machine, short_id(folder.store_id()?));
        let joined = Joined { genesis: founded.genesis.clone(), credential: founded.credential, members: vec![] };
        folder.write_credential(&encode(&joined))?;
        guard::provide(folder.path(), &keys, &founded.genesis).map_err(|e| Failure::new(e.to_string()))?;
        folder.write_genesis(&encode(&founded.genesis))?; // last: with it the folder belongs to a mesh
        Ok(InitDone { mesh_id: founded.mesh.to_string(), peer: keys.key().to_string(), recovery_key: founded.recovery })
    }

    async fn join(&self, folder: &StateFolder, config: &Config, args: JoinArgs) -> Result<JoinDone, Failure> {
        let keys = folder.keys()?;
        let (token, invitation) = Token::parse(&args.token).map_err(|e| {
            Failure::usage(e.to_string()).hint("make one with `mesh invite NAME` on a host of the mesh")
        })?;
        if let Some(name) = args.name.filter(|n| *n != invitation.name) {
            let text = format!("the invitation is for a host named {}, not {name}", invitation.name);
            return Err(Failure::usage(text).hint(format!("leave out --name, or `mesh invite {name}`")));
        }
        let request =
            join_request(&keys, &token, invitation.mesh, machine_id(folder, config)?, short_id(folder.store_id()?));
        let asked = ask_all(&keys, transport::real, &token, &config.leads, &request).await;
        let answer = asked.map_err(|failed| {
            let tried: Vec<String> = failed.iter().map(|(name, error)| format!("  {name}: {error}")).collect();
            let list = if tried.is_empty() { "  the token names no address".to_owned() } else { tried.join("\n") };
            Failure::new(format!("no member let this host in:\n{list}"))
                .hint("is one of them up and reachable from here? an invitation is good for one host and ends; `mesh invite` makes another")
        })?;
        let joined = read_joined(&answer, &keys, invitation.mesh).map_err(Failure::new)?;
        let genesis: Genesis = joined.genesis.open().map_err(|e| Failure::new(e.to_string()))?;
        folder.write_credential(&encode(&joined))?;
        guard::provide(folder.path(), &keys, &joined.genesis).map_err(|e| Failure::new(e.to_string()))?;
        folder.write_genesis(&encode(&joined.genesis))?;
        Ok(JoinDone {
            mesh_id: invitation.mesh.to_string(),
            mesh: genesis.name,
            host: invitation.name,
            peer: keys.key().to_string(),
        })
    }

    async fn serve(
        &self,
        folder: StateFolder,
        _lock: FolderLock,
        config: Config,
        ready: oneshot::Sender<Ready>,
        stop: CancellationToken,
    ) -> Result<Ended, Failure> {
        if folder.is_outcast() {
            return Err(Failure::new("this host was taken out of the mesh")
                .hint("a new invitation and a fresh state folder make it a host again"));
        }
        let node = HostNode::start(&folder, &config).await?;
        let control = node.control();
        let listener = api::server::listen(&folder.socket_path()?, config.api.group.as_deref())?;
        let server = api::server::serve(listener, control.clone(), stop.clone());
        let _ = ready.send(Ready {
            host: control.name_of(&control.me),
            peer: control.me.to_string(),
            listening: node.listening().iter().map(ToString::to_string).collect(),
        });
        let mut end = Ok(Ended::Stopped);
        tokio::select! {
            biased;
            () = stop.cancelled() => api::Control::shutdown(&*control).await,
            ended = node.stopped() => {
                stop.cancel();
                let how = if node.begins_anew() { Ended::Anew } else { Ended::Stopped };
                end = ended.map(|()| how).map_err(|broken| Failure::new(broken.what).hint(broken.hint));
            }
            ended = server => {
                return ended.map(|()| Ended::Stopped).map_err(|e| Failure::new(format!("the API has ended: {e}")));
            }
        }
        if control.is_outcast() {
            folder.write_outcast()?; // started anew it may find too few members to be told again
        }
        tokio::time::sleep(FAREWELL).await;
        node.stop().await;
        end
    }
}

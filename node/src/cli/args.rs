//! The words of the command line.

use crate::api::types::BuildState;
use clap::{Parser, Subcommand};
use mesh::build::BuildId;
use std::path::PathBuf;

/// A build mesh: hosts that build for each other and look after themselves.
#[derive(Debug, Parser)]
#[command(name = "mesh", version, arg_required_else_help = true)]
pub struct Args {
    /// The state folder [default: MESH_DIR, else the user's, else /var/lib/mesh]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
    /// Data as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress and no notes, only data and errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Found a mesh with this host as its first member
    Init {
        /// This host's name [default: its host name]
        #[arg(long)]
        name: Option<String>,
        /// The mesh's name
        #[arg(long, default_value = "mesh")]
        mesh: String,
        /// Where to listen, HOST:PORT or a multiaddr [default: 0.0.0.0:7400]
        #[arg(long)]
        listen: Vec<String>,
    },
    /// Make a token that lets one host in
    Invite {
        /// The new host's name
        name: String,
        /// How long the token can be used
        #[arg(long, default_value = "24h")]
        expires: String,
        /// Let the host invite and evict, too
        #[arg(long)]
        signer: bool,
    },
    /// Join a mesh
    Join {
        /// What `mesh invite` printed; `-` reads it from standard input
        token: String,
        /// This host's name [default: the invitation's]
        #[arg(long)]
        name: Option<String>,
        /// Where to listen, HOST:PORT or a multiaddr [default: 0.0.0.0:7400]
        #[arg(long)]
        listen: Vec<String>,
    },
    /// Run the daemon
    Up {
        /// In the background; returns when it serves
        #[arg(long)]
        detach: bool,
    },
    /// Have the machine start the daemon at boot
    Install(InstallArgs),
    /// Undo `mesh install`; the state folder stays
    Uninstall {
        /// Only the guard's sshd
        #[arg(long)]
        ssh: bool,
        /// Of the machine whose files are below this folder
        #[arg(long, value_name = "FOLDER")]
        root: Option<PathBuf>,
        /// Say what would be removed
        #[arg(long)]
        dry_run: bool,
    },
    /// Leave the mesh for good
    Leave,
    /// Put a host out; it may be invited again
    Evict {
        /// Its name
        host: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Put a host out for good
    Ban {
        /// Its name
        host: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Restart the service of a host
    Restart {
        /// Its name
        host: String,
        /// Why
        #[arg(long)]
        reason: String,
        /// Budget, cool-down and running builds do not hold it back
        #[arg(long)]
        force: bool,
    },
    /// Restart the machine of a host
    Reboot {
        /// Its name
        host: String,
        /// Why
        #[arg(long)]
        reason: String,
        /// Budget, cool-down and running builds do not hold it back
        #[arg(long)]
        force: bool,
    },
    /// Give a host another name
    Rename {
        /// Its name
        old: String,
        /// Its new one
        new: String,
    },
    /// Put a lost host out and make a token for its successor
    Replace {
        /// The lost host's name
        host: String,
        /// Why
        #[arg(long, default_value = "lost")]
        reason: String,
        /// How long the token can be used
        #[arg(long, default_value = "24h")]
        expires: String,
        /// Also when it may live
        #[arg(long)]
        force: bool,
    },
    /// Go on after most voters are lost for good, with the key that `mesh init` printed
    Recover {
        /// Where the recovery key is; `-` asks for it on standard input
        #[arg(long, default_value = "-", value_name = "FILE")]
        key: String,
        /// Only print the signed record, to be taken with --apply
        #[arg(long, conflicts_with = "apply")]
        print: bool,
        /// Take a record that was printed elsewhere; `-` reads it from standard input
        #[arg(long, value_name = "RECORD")]
        apply: Option<String>,
        /// Only show what would be done, and ask for no key
        #[arg(long, conflicts_with_all = ["print", "apply"])]
        dry_run: bool,
        /// Also when voters may live
        #[arg(long)]
        force: bool,
    },
    /// Hosts, leader, builds, warnings, and what to do next
    Status {
        /// Every second anew
        #[arg(long)]
        watch: bool,
    },
    /// What is wrong with this host and its mesh, how bad it is, and what to do
    Doctor,
    /// How a host is reached: path, round trips, and what was tried
    Ping {
        /// Its name
        host: String,
        /// Round trips
        #[arg(long, short, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
        count: u32,
    },
    /// The story of a host: who misses it, what was tried, what happened, and what to do
    Why {
        /// Its name
        host: String,
    },
    /// Where every host is: addresses, what is proved, masquerades, and the paths in use
    Topology {
        /// As what to print it
        #[arg(long, value_enum, default_value_t = Picture::Table)]
        format: Picture,
    },
    /// Run a command on the best host, as if it were here
    Run(RunArgs),
    /// Run the builds of a file
    Build {
        /// A TOML file with [build.NAME] tables
        file: PathBuf,
        /// Print their numbers and return
        #[arg(long)]
        detach: bool,
    },
    /// List builds, the newest first
    Builds {
        /// Only those in this state
        #[arg(long, value_enum)]
        state: Option<BuildState>,
        /// At most so many
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Print a build's log
    Logs {
        /// Its number, for example b12
        id: BuildId,
        /// Go on until it ends
        #[arg(long, short)]
        follow: bool,
        /// Of this attempt [default: the newest]
        #[arg(long)]
        attempt: Option<u32>,
    },
    /// Bring a build's outputs here
    Fetch {
        /// Its number, for example b12
        id: BuildId,
        /// Into this folder
        #[arg(long, default_value = ".", value_name = "FOLDER")]
        into: PathBuf,
    },
    /// Cancel builds
    Cancel {
        /// Their numbers
        #[arg(required = true)]
        ids: Vec<BuildId>,
    },
    /// Submit a build again
    Retry {
        /// Its number
        id: BuildId,
    },
}

/// `mesh install`.
#[derive(Clone, Debug, clap::Args)]
pub struct InstallArgs {
    /// Whom the daemon runs as [default: root]
    #[arg(long)]
    pub user: Option<String>,
    /// Also an sshd of its own, by which a leader reaches this host when the daemon does not answer
    #[arg(long)]
    pub ssh: bool,
    /// The port of that sshd
    #[arg(long, value_name = "PORT", default_value_t = crate::install::door::DEFAULT_PORT)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub ssh_port: u16,
    /// Into the machine whose files are below this folder, which is not running
    #[arg(long, value_name = "FOLDER")]
    pub root: Option<PathBuf>,
    /// Print what would be written
    #[arg(long, conflicts_with = "check")]
    pub dry_run: bool,
    /// Only look whether all is as it has to be
    #[arg(long)]
    pub check: bool,
}

/// As what `mesh topology` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Picture {
    /// To read
    Table,
    /// For programs
    Json,
    /// For a page that draws Mermaid graphs
    Mermaid,
    /// A picture
    Svg,
}

/// `mesh run`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// Files to bring back, as globs [default: what the command makes or changes]
    #[arg(long, short, value_name = "GLOB")]
    pub output: Vec<String>,
    /// A variable of its environment
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub env: Vec<(String, String)>,
    /// Cores it needs
    #[arg(long, default_value_t = 1)]
    pub cores: u32,
    /// Memory it needs, for example 2GiB
    #[arg(long, value_parser = crate::buildfile::parse_memory_mib)]
    pub memory: Option<u64>,
    /// A tag its host must have
    #[arg(long)]
    pub tag: Vec<String>,
    /// When it is killed
    #[arg(long, default_value = "1h", value_parser = crate::buildfile::parse_timeout_s)]
    pub timeout: u64,
    /// Let it use the network
    #[arg(long)]
    pub network: bool,
    /// `bubblewrap`, or `none` (only on hosts that allow it)
    #[arg(long, default_value = "bubblewrap", value_parser = crate::buildfile::parse_sandbox)]
    pub sandbox: mesh::build::Sandbox,
    /// How often a failure is tried again on another host
    #[arg(long, default_value_t = 0)]
    pub retries: u32,
    /// Send nothing of the current folder
    #[arg(long)]
    pub no_workspace: bool,
    /// Build on so many hosts (1 or 2) and compare
    #[arg(long, default_value_t = 1)]
    pub confirm: u8,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".into()),
    }
}

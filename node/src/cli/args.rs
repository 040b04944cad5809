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
    /// The story of a host or a build: what happened, whose fault it is, and what to do
    Why {
        /// A host's name, or a build's number, for example b12
        #[arg(value_name = "HOST|BUILD")]
        what: String,
    },
    /// Give a host no builds for a while, and take from it what runs there
    Block(HostStop),
    /// End a block before its time
    Unblock {
        /// The host's name
        host: String,
    },
    /// Give a host no more builds for a while; what runs there ends
    Drain(HostStop),
    /// End a drain before its time
    Undrain {
        /// The host's name
        host: String,
    },
    /// Give nobody builds and heal nobody for a while
    Pause {
        /// For how long, for example 8h
        #[arg(long = "for", value_name = "TIME")]
        lasts: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// End a pause before its time, and let healing go on that froze because nothing helped
    Resume {
        /// Why
        #[arg(long, default_value = "resumed by hand")]
        reason: String,
    },
    /// Say that a host is well: it gets builds again, whatever its case was
    Clear {
        /// The host's name
        host: String,
        /// What was done about it
        #[arg(long)]
        reason: String,
    },
    /// The policy of healing
    Policy {
        /// What to do with it [default: print it]
        #[command(subcommand)]
        what: Option<PolicyCommand>,
    },
    /// What healing would do now, and which rules hold it back
    Plan,
    /// The trail of healing: what was ordered, refused, signed, done and proved, by whom and when
    Audit {
        /// Only of this host
        #[arg(long)]
        host: Option<String>,
        /// Only what happened since: a time ago (2d), or a moment (2026-11-28, 2026-11-28T20:00:00Z)
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
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

/// `mesh block` and `mesh drain`.
#[derive(Clone, Debug, clap::Args)]
pub struct HostStop {
    /// The host's name
    pub host: String,
    /// For how long, for example 2d
    #[arg(long = "for", value_name = "TIME")]
    pub lasts: String,
    /// Why
    #[arg(long)]
    pub reason: String,
}

/// `mesh policy set`.
#[derive(Clone, Debug, Subcommand)]
pub enum PolicyCommand {
    /// Set one key, for example: cool-down 30m
    Set {
        /// The key
        key: String,
        /// Its value
        value: String,
    },
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

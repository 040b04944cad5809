//! What a scenario does to its hosts: the work it gives them and the faults it makes.
//!
//! An action is data, with hosts by name, so that a run can be written down, replayed and shrunk. Both
//! tiers take the same actions; one that makes no sense at its moment (a crash of a host that is down)
//! is skipped and counted as such. What an action means to a tier is that tier's affair
//! ([`crate::stage::Stage::act`]).

use serde::{Deserialize, Serialize};

/// The name that stands for whichever host leads at the moment.
pub const LEADER: &str = "leader";

/// A build as a scenario gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Its name, unique in the scenario.
    pub name: String,
    /// How long it runs, in milliseconds.
    pub takes_ms: u64,
    /// Its exit code.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub exit: i32,
    /// Builds of the same submission that it needs, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// Hosts on which it fails in the host's own phases, by name: a broken toolchain, a full disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub breaks_on: Vec<String>,
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// Something that is done at a moment of a run. `host` may be [`LEADER`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Action {
    /// The owner of a host submits builds under one request id; the same `request` again is a retry.
    Submit {
        /// Where.
        host: String,
        /// Number of the request.
        request: u64,
        /// What.
        tasks: Vec<Task>,
    },
    /// The owner of a host cancels a build.
    Cancel {
        /// Where.
        host: String,
        /// Which, by name.
        task: String,
    },
    /// The owner of a host has the newest build of a name, which failed or was cancelled, built again.
    Retry {
        /// Where.
        host: String,
        /// Which, by name.
        task: String,
    },
    /// A host of the fleet that is not enrolled yet is invited by a member and joins.
    Join {
        /// Who joins.
        host: String,
        /// Who invites.
        by: String,
    },
    /// A signer takes a host out.
    Evict {
        /// Who goes.
        host: String,
        /// Who says so.
        by: String,
    },
    /// A host says farewell and goes.
    Leave {
        /// Who.
        host: String,
    },
    /// A host that nobody invited begins to dial all members, with a credential of its own making.
    Stranger {
        /// Where it runs.
        host: String,
    },
    /// An enrolled host lies: it proposes entries that it may not make.
    Forge {
        /// Who lies.
        host: String,
        /// How.
        what: Forgery,
    },
    /// A person at the leader orders a host to reboot, or its service to restart; the simulated machine does.
    Order {
        /// Whom it names.
        host: String,
        /// The service alone.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        restart: bool,
    },
    /// Everything sent so far that was kept is sent again, as late as can be: reports, statements, orders.
    ReplayLate {
        /// Whose.
        host: String,
    },
    /// The process dies; the kernel closes its connections.
    Crash {
        /// Where.
        host: String,
    },
    /// The process is started again.
    Start {
        /// Where.
        host: String,
    },
    /// The power goes: unsynced writes are lost, whole or in part, and nobody is told.
    PowerCut {
        /// Where.
        host: String,
    },
    /// The power is back, with a new boot id, and the process starts.
    PowerOn {
        /// Where.
        host: String,
    },
    /// The process stands still, all its clocks but the process's own go on.
    Suspend {
        /// Where.
        host: String,
    },
    /// It goes on.
    Resume {
        /// Where.
        host: String,
    },
    /// From now on syncs of the disk take so long.
    SlowSync {
        /// Where.
        host: String,
        /// Milliseconds of each; 0 mends it.
        ms: u64,
    },
    /// From now on the disk reports syncs that it did not make; a power cut shows.
    LyingSync {
        /// Where.
        host: String,
        /// Whether it lies.
        on: bool,
    },
    /// The host (which is down) comes back with its ledger's store gone.
    EmptyDisk {
        /// Where.
        host: String,
    },
    /// The whole state of a host is copied away.
    Backup {
        /// Where.
        host: String,
    },
    /// The host (which is down) gets its state of the last backup back.
    Restore {
        /// Where.
        host: String,
    },
    /// A second machine starts with a copy of the host's state folder, and its key.
    Clone {
        /// Whose.
        host: String,
    },
    /// The copy is switched off for good.
    Unclone {
        /// Whose.
        host: String,
    },
    /// The host's clocks run faster or slower.
    ClockRate {
        /// Where.
        host: String,
        /// Parts per million against true time; 0 mends it.
        ppm: i64,
    },
    /// The host's wall clock is set.
    ClockJump {
        /// Where.
        host: String,
        /// By how much, in milliseconds.
        ms: i64,
    },
    /// Nothing that `from` sends reaches `to` until it is mended; it waits.
    Cut {
        /// Sender.
        from: String,
        /// Receiver.
        to: String,
    },
    /// Ends a [`Action::Cut`].
    Mend {
        /// Sender.
        from: String,
        /// Receiver.
        to: String,
    },
    /// So many of a hundred packets are lost everywhere; streams make it good, late.
    Loss {
        /// 0 to 50.
        percent: u32,
    },
    /// A masquerading router forgets its connections.
    ForgetMasquerade {
        /// Which host.
        router: String,
    },
    /// An overlay network goes down, or up.
    Network {
        /// Its name.
        network: String,
        /// Whether it carries packets.
        up: bool,
    },
    /// A host (which is not running) gets the address of another, which is not running either, and starts.
    TakeAddress {
        /// Who gets it.
        host: String,
        /// Whose it was.
        of: String,
    },
    /// DHCP gives two hosts each other's address.
    SwapAddresses {
        /// One.
        a: String,
        /// The other.
        b: String,
    },
}

/// How an enrolled host lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forgery {
    /// A submission in another host's name.
    Submission,
    /// A report of an attempt that another host has.
    Report,
    /// A leader's entry by one that does not lead.
    Assignment,
    /// A voter set of its own.
    VoterSet,
    /// A leader's entry with a fence that is out of date.
    StaleFence,
    /// A presence with as many addresses as one may have, at none of which anybody listens.
    Addresses,
}

impl Action {
    /// What it is called in counts and files.
    pub fn kind(&self) -> &'static str {
        match self {
            Action::Submit { .. } => "submit",
            Action::Cancel { .. } => "cancel",
            Action::Retry { .. } => "retry",
            Action::Join { .. } => "join",
            Action::Evict { .. } => "evict",
            Action::Leave { .. } => "leave",
            Action::Stranger { .. } => "stranger",
            Action::Forge { .. } => "forge",
            Action::Order { .. } => "order",
            Action::ReplayLate { .. } => "replay-late",
            Action::Crash { .. } => "crash",
            Action::Start { .. } => "start",
            Action::PowerCut { .. } => "power-cut",
            Action::PowerOn { .. } => "power-on",
            Action::Suspend { .. } => "suspend",
            Action::Resume { .. } => "resume",
            Action::SlowSync { .. } => "slow-sync",
            Action::LyingSync { .. } => "lying-sync",
            Action::EmptyDisk { .. } => "empty-disk",
            Action::Backup { .. } => "backup",
            Action::Restore { .. } => "restore",
            Action::Clone { .. } => "clone",
            Action::Unclone { .. } => "unclone",
            Action::ClockRate { .. } => "clock-rate",
            Action::ClockJump { .. } => "clock-jump",
            Action::Cut { .. } => "cut",
            Action::Mend { .. } => "mend",
            Action::Loss { .. } => "loss",
            Action::ForgetMasquerade { .. } => "forget-masquerade",
            Action::Network { .. } => "network",
            Action::TakeAddress { .. } => "take-address",
            Action::SwapAddresses { .. } => "swap-addresses",
        }
    }

    /// Whether it does harm, as against work given or harm undone.
    pub fn is_fault(&self) -> bool {
        !matches!(
            self,
            Action::Submit { .. }
                | Action::Cancel { .. }
                | Action::Retry { .. }
                | Action::Join { .. }
                | Action::Start { .. }
                | Action::PowerOn { .. }
                | Action::Resume { .. }
                | Action::Mend { .. }
                | Action::Order { .. }
                | Action::Backup { .. }
                | Action::Unclone { .. }
                | Action::LyingSync { on: false, .. }
                | Action::SlowSync { ms: 0, .. }
                | Action::ClockRate { ppm: 0, .. }
                | Action::Loss { percent: 0 }
                | Action::Network { up: true, .. }
        )
    }
}

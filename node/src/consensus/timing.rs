//! How fast the ledger's heart beats.

use std::time::Duration;

/// All times of consensus. Every host of a mesh must use the same.
///
/// `margin` is 5 % of `lease`: clocks may run that much apart (see [`mesh::lease`]). A heartbeat must exceed
/// the worst round trip. Elections start between `election_min` and `lease` after the promise to the last leader has
/// ended: a candidate votes for itself, and must not break its own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From one heartbeat to the next.
    pub heartbeat: Duration,
    /// A follower campaigns this much after the end of a leader's lease at the earliest, `lease` after it at the latest.
    pub election_min: Duration,
    /// How long a voter keeps its promise to a leader.
    pub lease: Duration,
    /// How much before the end of the lease a leader stops.
    pub margin: Duration,
    /// Longest time for sending and installing a snapshot.
    pub snapshot: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            heartbeat: Duration::from_millis(1_500),
            election_min: Duration::from_millis(2_500),
            lease: Duration::from_millis(5_000),
            margin: Duration::from_millis(250),
            snapshot: Duration::from_secs(120),
        }
    }
}

impl Timing {
    /// Ten times quicker, for meshes whose voters share a fast network.
    pub fn lan() -> Self {
        let slow = Timing::default();
        Timing {
            heartbeat: slow.heartbeat / 10,
            election_min: slow.election_min / 10,
            lease: slow.lease / 10,
            margin: slow.margin / 10,
            snapshot: slow.snapshot,
        }
    }

    /// How long a host that has just started gives no votes: a lease by the slowest clock.
    pub fn quarantine(&self) -> Duration {
        self.lease.mul_f64(1.05)
    }

    pub(super) fn config(&self) -> Result<openraft::Config, openraft::ConfigError> {
        let ms = |d: Duration| d.as_millis() as u64;
        openraft::Config {
            cluster_name: "mesh".to_owned(),
            heartbeat_interval: ms(self.heartbeat),
            election_timeout_min: ms(self.election_min),
            election_timeout_max: ms(self.lease), // openraft takes it for the lease as well
            install_snapshot_timeout: ms(self.snapshot),
            max_payload_entries: 1_024,
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(5_000),
            max_in_snapshot_log_to_keep: 1_000,
            purge_batch_size: 256,
            api_channel_size: Some(4_096),
            notification_channel_size: Some(4_096),
            enable_elect: false, // until the quarantine is over
            enable_pre_vote: Some(true),
            enable_leader_restore: Some(false),
            allow_log_reversion: Some(false),
            // After a whole lease no grant from before its removal is left.
            removed_leader_step_down: openraft::StepDownPolicy::After(ms(self.lease)),
            ..openraft::Config::default()
        }
        .validate()
    }
}

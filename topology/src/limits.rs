//! Every bound on a fleet, each with its reason. A file past one of them is refused, never cut short.

/// One fleet file, in bytes: ten thousand hosts at 400 bytes each.
pub const FILE_BYTES_MAX: usize = 4 << 20;

/// Hosts: as many as a mesh takes as members.
pub const HOSTS_MAX: usize = 10_000;

/// Networks: the oracle keeps a table of ways between any two of them, at most a million entries.
pub const NETWORKS_MAX: usize = 1_024;

/// Ways (masquerades and routes together): a way there and one back for each network, and as many to spare.
pub const WAYS_MAX: usize = 4 * NETWORKS_MAX;

/// Port forwards: one for each host.
pub const FORWARDS_MAX: usize = HOSTS_MAX;

/// Length of a name, in bytes: a DNS label and no more, as for a host of the mesh.
pub const NAME_BYTES_MAX: usize = 63;

/// Cores of one host: the largest machines sold have some hundreds.
pub const CORES_MAX: u32 = 4_096;

/// A round trip, in milliseconds: whoever waits longer takes the far side for dead.
pub const ROUND_TRIP_MS_MAX: u64 = 60_000;

/// Loss of a network, in thousandths: at 1,000 nothing passes, which is a cut and not a network.
pub const LOSS_PER_MILLE_MAX: u32 = 999;

/// Where hosts listen that do not say otherwise.
pub const PORT_DEFAULT: u16 = 7400;

//! What hosts say of themselves and of each other, and how it is written.
//!
//! Everything that travels by gossip is a [`Statement`]: signed by its speaker, with the mesh's id
//! inside, in an order of its own so that a replay is recognised. The two messages of a probe travel
//! on a connection that already proves who speaks, and are small; only when somebody doubts the
//! subject does the answer carry a signed [`Alive`] that can be passed on. Nothing here decides
//! anything: see [`super::Membership`].

use crate::identity::PeerKey;
use crate::limits::{NAME_BYTES_MAX, STATEMENT_BYTES_MAX};
use crate::tagged;
use crate::wire::{Label, Signed};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};

/// Addresses in a [`Presence`]: a host with more has interfaces nobody dials.
pub const ADDRESSES_MAX: usize = 16;
/// Bytes of one address: a relayed multiaddr with two peer ids is about 200.
pub const ADDRESS_BYTES_MAX: usize = 256;
/// Tags in a [`Presence`].
pub const TAGS_MAX: usize = 24;
/// Bytes of one tag, and of the version.
pub const TAG_BYTES_MAX: usize = 64;
/// One message of a probe: a reply with a presence in it.
pub const PROBE_BYTES_MAX: usize = STATEMENT_BYTES_MAX + 512;

const PRESENCE_BYTES_MAX: usize = STATEMENT_BYTES_MAX - 256;
const _: () = assert!(
    ADDRESSES_MAX * (ADDRESS_BYTES_MAX + 3) + TAGS_MAX * (TAG_BYTES_MAX + 2) + NAME_BYTES_MAX + TAG_BYTES_MAX + 300
        < PRESENCE_BYTES_MAX
);

/// Which life of a host speaks: its start, and how often it has refuted an accusation in it (SWIM,
/// Das et al., 2002). Compared in this order; never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize_tuple, Deserialize_tuple)]
pub struct Incarnation {
    /// Counted up and fsynced before the daemon speaks: a higher one proves a restart.
    pub start: u64,
    /// Refutations since that start.
    pub refutation: u32,
}

/// What a host says of itself that changes slowly, chosen by its owner.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PresenceFacts {
    /// Its label for people.
    pub name: String,
    /// Where it listens, as multiaddrs: leads, at most [`ADDRESSES_MAX`].
    pub addresses: Vec<String>,
    /// Cores that it offers.
    pub cores: u32,
    /// Memory that it offers.
    pub memory_mib: u64,
    /// What a build may ask for, at most [`TAGS_MAX`].
    pub tags: Vec<String>,
    /// Version of the daemon.
    pub version: String,
    /// Whether the service starts with the machine; `None` when that cannot be told (incident 3).
    pub boot_enabled: Option<bool>,
    /// Runs builds without a sandbox.
    pub allow_none: bool,
    /// Gives builds the network when they ask for it.
    pub allow_network: bool,
    /// May be rebooted by a warrant.
    pub allow_reboot: bool,
    /// Refuses every warrant.
    pub protected: bool,
    /// Where its guard is to be found when the daemon does not answer, if it has been given a door.
    pub guard: Option<GuardDoor>,
}

/// The sshd of a host's guard, as the host attests it: whoever dials it expects this key and no other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct GuardDoor {
    /// Its port, on the addresses that the presence names.
    pub port: u16,
    /// Its SSH host key, ed25519.
    #[serde(with = "serde_bytes")]
    pub host_key: [u8; 32],
}

impl PresenceFacts {
    /// Cuts everything to what a statement may carry.
    pub fn clip(&mut self) {
        clip(&mut self.name, NAME_BYTES_MAX);
        clip(&mut self.version, TAG_BYTES_MAX);
        self.addresses.retain(|a| a.len() <= ADDRESS_BYTES_MAX);
        self.addresses.truncate(ADDRESSES_MAX);
        self.tags.retain(|t| t.len() <= TAG_BYTES_MAX);
        self.tags.truncate(TAGS_MAX);
    }

    fn fits(&self) -> bool {
        let mut clipped = self.clone();
        clipped.clip();
        clipped == *self
    }
}

fn clip(text: &mut String, max: usize) {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

/// A host's record of itself. A higher `(start, sequence)` replaces a lower one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Presence {
    /// The mesh it speaks in.
    #[serde(with = "serde_bytes")]
    pub mesh: [u8; 32],
    /// Start number of the process that speaks.
    pub start: u64,
    /// Counts changes within a start, from 1.
    pub sequence: u64,
    /// Random, made with the state folder: a copied folder has the same.
    #[serde(with = "serde_bytes")]
    pub store: [u8; 16],
    /// Of the machine, hashed by the caller.
    #[serde(with = "serde_bytes")]
    pub machine_id: [u8; 32],
    /// Of the machine's present boot. One start number lives in one boot only.
    #[serde(with = "serde_bytes")]
    pub boot_id: [u8; 16],
    /// Random, drawn by the process that speaks.
    pub nonce: u64,
    /// The rest.
    pub facts: PresenceFacts,
}

impl Presence {
    /// Order among the presences of one host.
    pub fn order(&self) -> (u64, u64) {
        (self.start, self.sequence)
    }

    /// Fingerprint of where the process runs; two of them under one start number are two hosts.
    pub fn origin(&self) -> u64 {
        origin(&self.store, &self.machine_id, &self.boot_id, self.nonce)
    }
}

/// Fingerprint of state folder, machine, boot and process: the first eight bytes of a BLAKE3.
pub fn origin(store: &[u8; 16], machine_id: &[u8; 32], boot_id: &[u8; 16], nonce: u64) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("mesh/origin/v1");
    hasher.update(store).update(machine_id).update(boot_id).update(&nonce.to_be_bytes());
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    u64::from_be_bytes(first)
}

/// "I live, at this time of my clock." Answers a doubted probe, or refutes an accusation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Alive {
    /// The mesh it speaks in.
    #[serde(with = "serde_bytes")]
    pub mesh: [u8; 32],
    /// The life that speaks.
    pub incarnation: Incarnation,
    /// The subject's own monotonic clock in microseconds; compared within one start only.
    pub stamp_us: u64,
    /// See [`Presence::origin`].
    pub origin: u64,
}

/// "I leave." Holds until a higher incarnation speaks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Farewell {
    /// The mesh it speaks in.
    #[serde(with = "serde_bytes")]
    pub mesh: [u8; 32],
    /// The life that ends.
    pub incarnation: Incarnation,
}

/// What an accuser saw. Shown by `mesh why`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Evidence {
    /// How long attempts have failed.
    pub silent_ms: u64,
    /// How many were made: probes while connected, dials else.
    pub attempts: u32,
    /// Age of the last word of the subject; `None` when there never was one.
    pub heard_ms: Option<u64>,
    /// That word came to the accuser by somebody else.
    pub relayed: bool,
    /// A connection stood while the subject was silent.
    pub connected: bool,
}

/// "This host does not answer me." One observer's claim, never more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Accusation {
    /// The mesh it speaks in.
    #[serde(with = "serde_bytes")]
    pub mesh: [u8; 32],
    /// The accuser's start number; with `sequence` the order among its accusations.
    pub start: u64,
    /// Counts the accuser's accusations within its start.
    pub sequence: u64,
    /// Who is accused.
    pub subject: PeerKey,
    /// The life that is accused; zero when the accuser never heard the subject.
    pub incarnation: Incarnation,
    /// From when on it was silent, by the subject's clock as the accuser reckons it.
    pub stamp_us: u64,
    /// What the accuser saw.
    pub evidence: Evidence,
}

impl Accusation {
    /// Order among the accusations of one accuser.
    pub fn order(&self) -> (u64, u64) {
        (self.start, self.sequence)
    }

    /// Whether a word of the subject, spoken in this life at this time of its clock, answers this.
    pub fn refuted_by(&self, incarnation: Incarnation, stamp_us: u64) -> bool {
        incarnation > self.incarnation || (incarnation.start == self.incarnation.start && stamp_us > self.stamp_us)
    }
}

macro_rules! label {
    ($($type:ty = $label:literal, $max:expr;)+) => {
        $(impl Label for $type {
            const LABEL: &'static str = $label;
            const MAX: usize = $max;
        })+
    };
}
label! {
    Presence = "mesh/presence/v1", PRESENCE_BYTES_MAX;
    Alive = "mesh/alive/v1", 128;
    Accusation = "mesh/accusation/v1", 256;
    Farewell = "mesh/farewell/v1", 128;
}

impl Presence {
    /// Whether every text and list is within its bound.
    pub fn fits(&self) -> bool {
        self.facts.fits()
    }
}

tagged! {
    /// One gossip statement. A kind that is not known here is from a newer daemon, and ignored.
    #[derive(Clone, PartialEq, Debug)]
    pub enum Statement {
        /// A [`Presence`].
        1 => Presence(Signed),
        /// An [`Alive`].
        2 => Alive(Signed),
        /// An [`Accusation`].
        3 => Accusation(Signed),
        /// A [`Farewell`].
        4 => Farewell(Signed),
    }
}

/// A probe whose nonce this divides asks for the subject's clock. Every other one does not: the answer is a third shorter.
pub const CLOCK_ASKED: u64 = 8;

/// A watcher's question. Not signed: the connection proves the speaker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Probe {
    /// Comes back in the reply. One that [`CLOCK_ASKED`] divides asks for the subject's wall clock.
    pub nonce: u64,
    /// Asks for the subject's presence.
    pub want_presence: bool,
    /// Asks for a signed [`Alive`], to be shown to others.
    pub want_proof: bool,
    /// The watcher's start number: who asks is heard even where nobody asks it.
    pub start: u64,
    /// The watcher's [`Presence::origin`].
    pub origin: u64,
}

/// The subject's answer. Not signed but for what it carries.
#[derive(Clone, PartialEq, Debug, Serialize_tuple, Deserialize_tuple)]
pub struct Reply {
    /// Of the probe.
    pub nonce: u64,
    /// The life that speaks.
    pub incarnation: Incarnation,
    /// The subject's monotonic clock.
    pub stamp_us: u64,
    /// See [`Presence::origin`].
    pub origin: u64,
    /// Sequence of its newest presence; 0 when it has none yet.
    pub sequence: u64,
    /// Cores that no build uses now.
    pub free_cores: u32,
    /// The subject's wall clock, milliseconds since 1970; 0 when it was not asked for, or not known.
    pub wall_ms: u64,
    /// A signed [`Alive`], when asked for.
    pub proof: Option<Signed>,
    /// A signed [`Presence`], when asked for.
    pub presence: Option<Signed>,
}

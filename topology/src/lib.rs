//! Fleets as data, and the oracle over them: who reaches whom, over which hops, seen as which address,
//! answered by which host.
//!
//! A fleet is a TOML file (`fleets/*.toml`), loaded strictly: an unknown field, a name that nothing has, or an
//! address outside of its network is an error with its line, column and field. [`Oracle`] is what the simulator
//! and the kernel lab ask and are measured by. Nothing here touches a real network; IPv4 only; no address
//! here ever identifies a host (incident 1).
#![warn(missing_docs)]
#![forbid(unsafe_code)]

mod check;
mod error;
mod fleet;
mod generate;
mod index;
pub mod limits;
mod oracle;
mod raw;
mod table;

pub use error::FleetError;
pub use fleet::{Dependence, Fleet, Forward, Host, Masquerade, Nat, Network, NetworkKind, Ports, Role, Route, Service};
pub use oracle::{Dial, Failure, Hop, NextHop, Oracle, Source, SourcePort, UnknownName};
pub use table::{Row, Table};

/// The reference fleet, as shipped.
pub const ALPHA_CENTAURI: &str = include_str!("../fleets/alpha-centauri.toml");

/// Every shipped fleet: the name of its file, and its text.
pub const FLEETS: [(&str, &str); 7] = [
    ("alpha-centauri.toml", ALPHA_CENTAURI),
    ("carrier-grade.toml", include_str!("../fleets/carrier-grade.toml")),
    ("container-shares-address.toml", include_str!("../fleets/container-shares-address.toml")),
    ("one-host.toml", include_str!("../fleets/one-host.toml")),
    ("port-forward.toml", include_str!("../fleets/port-forward.toml")),
    ("symmetric-both.toml", include_str!("../fleets/symmetric-both.toml")),
    ("two-sites-masqueraded.toml", include_str!("../fleets/two-sites-masqueraded.toml")),
];

#[cfg(test)]
mod fleet_tests;

//! Simulation of whole nodes: virtual time, seeded randomness, a network that fails on demand.
//!
//! A scenario comes wholly from its seed: two runs give the same bytes on every wire, disk and log line,
//! which [`trace`] condenses into one hash. [`det`] rules the clocks and the randomness of a thread,
//! [`current`] knows which host runs, [`transport`], [`disk`], [`papers`] and [`machine`] fill the node's seams,
//! [`network`] has addresses, masquerades and cuts, [`host`] joins them, [`world`] puts hosts together and breaks them. What differs between two
//! runs of a seed is a bug of the first order.
#![warn(missing_docs)]
#![deny(unsafe_code)] // but for `det`, which says why

pub mod action;
pub mod cores;
pub mod current;
pub mod det;
pub mod disk;
pub mod draw;
pub mod expect;
pub mod figures;
pub mod held;
pub mod host;
pub mod invariants;
pub mod log;
pub mod machine;
pub mod mutants;
pub mod network;
pub mod nodes;
pub mod orders;
pub mod papers;
pub mod plan;
pub mod scenarios;
pub mod stage;
pub mod tool;
pub mod trace;
pub mod transport;
pub mod world;

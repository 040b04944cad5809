//! The mesh protocol, sans-IO.
//!
//! Identity, wire format, roster, membership, addresses, lease, ledger, placement, blame, healing and
//! warrants as pure state machines: inputs in, outputs out; `now` and every random byte are arguments. Nothing here opens a
//! socket, reads a clock, touches a file or spawns a thread, and nothing iterates in hash order: the
//! same inputs give the same bytes. Crate `node` gives these machines a real world, crate `sim` a
//! simulated one.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

pub mod addresses;
pub mod blame;
pub mod build;
pub mod clock;
pub mod healing;
pub mod identity;
pub mod lease;
pub mod ledger;
pub mod limits;
pub mod membership;
pub mod mutants;
pub mod order;
pub mod placement;
pub mod restraint;
pub mod roster;
pub mod time;
pub mod warrant;
pub mod wire;

#[cfg(test)]
mod golden_tests;

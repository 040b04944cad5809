//! The mesh daemon as a library: what `main.rs` starts on a real host and crate `sim` starts in a
//! simulated one. The protocol itself is in crate `mesh`; here are its network, store, builds, API and
//! command line. What differs between the two worlds enters by [`seams::Seams`] alone.
#![forbid(unsafe_op_in_unsafe_fn)]

pub mod api;
pub mod blobs;
pub mod buildfile;
pub mod builds;
pub mod cli;
pub mod config;
pub mod consensus;
pub mod doctor;
pub mod driver;
pub mod fallback;
pub mod guard;
pub mod install;
pub mod machine;
pub mod net;
pub mod seams;
pub mod state_folder;

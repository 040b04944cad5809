//! Builds on this host: workspaces in, a command in its sandbox, outputs back out.
//!
//! Everything that touches a build's folder goes through [`inside`], which never follows a symbolic
//! link: a build is not a way in. What is built where is never decided here. [`crate::machine`] joins
//! these parts into one attempt.

pub mod collect;
pub mod inside;
pub mod leftovers;
pub mod place;
pub mod run;
pub mod sandbox;
pub mod survivors;
pub mod unpack;
pub mod workspace;

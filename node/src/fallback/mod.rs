//! The way to a host whose daemon answers on no path: over SSH to its guard's door ([`crate::install::door`]), by which
//! `mesh-guard` holds the same hearing that the daemon would have held.
//!
//! ```text
//! leader ── TCP ─────────────────────────────> sshd of the target ── mesh-guard run
//! leader ── stream ── courier ── TCP ────────> the same, where the leader has no path
//! ```
//!
//! [`ssh`] enters: the host key has to be the one that the target attests in its signed presence, or not a byte of
//! authentication is sent. [`courier`] is how a member on the target's network passes the bytes on, to what the target's
//! own record names and nowhere else; it can read none of them. On the target [`offered`] says which keys may enter, and
//! [`session`] holds the hearing. What is said there, and whether it is believed, is [`mesh::warrant`]'s alone.

pub mod courier;
pub mod offered;
pub mod session;
pub mod ssh;

/// What `mesh-guard run` says before its first frame: what a shell's own files print before it is passed over.
pub const MAGIC: &[u8] = b"\nmesh-guard/1\n";

/// Bytes that a shell may say before that.
pub const PREFACE_BYTES_MAX: usize = 8 << 10;

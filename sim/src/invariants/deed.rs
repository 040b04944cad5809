//! What the jury is told of orders: a signature that a host truly gave, and a deed that a host truly did.
//!
//! Taken down by the simulation at the very moment, beside the program: what the machine is then, which nonce it had
//! given out and when, what its disk holds. Nothing here is what a warrant claims, and nothing is judged here.

use super::Name;
use mesh::identity::PeerKey;
use mesh::lease::Fence;
use mesh::warrant::{Hello, Known, Order, OrderHash};
use std::fmt;
use std::sync::Arc;

/// An order was acted on: the service restarts or the machine reboots next.
#[derive(Clone, PartialEq)]
pub struct Deed {
    /// On which host, truly.
    pub host: Name,
    /// Its key.
    pub key: PeerKey,
    /// The order.
    pub order: Order,
    /// Its name in signatures.
    pub hash: OrderHash,
    /// Who signed it.
    pub author: PeerKey,
    /// The host as it is: boot, start, its own vetoes, its wall clock.
    pub life: mesh::warrant::Host,
    /// The nonce that this host had given out for this hearing; `None` from a tier that cannot see it, where nobody tells
    /// of signatures either.
    pub nonce: Option<[u8; 32]>,
    /// How old that was when the warrant came, on the host's own clock, in milliseconds.
    pub took_ms: u64,
    /// What the host knew of the roster, with what it was brought.
    pub known: Arc<Known>,
    /// Whether its disk holds the receipt.
    pub stored: bool,
    /// Whether something is truly wrong with the host: it is or was down or cut off lately, or its builds fail.
    pub ails: bool,
}

impl fmt::Debug for Deed {
    /// Without the roster, which is long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Deed { host, order, hash, author, life, took_ms, stored, ails, .. } = self;
        write!(f, "Deed({host} {order:?} {hash:?} by {author} {life:?} {took_ms} ms {stored} {ails})")
    }
}

/// A signature over an order and a hello, as an honest host gave it.
#[derive(Clone, Debug, PartialEq)]
pub struct Signature {
    /// Whose.
    pub by: PeerKey,
    /// The order.
    pub order: Order,
    /// Its name in signatures.
    pub hash: OrderHash,
    /// Who signed the order.
    pub author: PeerKey,
    /// Who made the hello, by its signature.
    pub greeter: PeerKey,
    /// The hello.
    pub hello: Hello,
    /// The epoch of the voters that it was given for.
    pub epoch: u64,
    /// What a voter's own ledger said then; `None` of a signer under its own order.
    pub voter: Option<Voter>,
}

/// A voter at the moment in which it signed.
#[derive(Clone, Debug, PartialEq)]
pub struct Voter {
    /// Whether its ledger has it among the voters.
    pub votes: bool,
    /// Whether its key is known to be alive twice.
    pub suspended: bool,
    /// Whether its ledger holds the order, open.
    pub written: bool,
    /// Who leads, by its ledger.
    pub leader: Option<(PeerKey, Fence)>,
    /// Its ledger's time.
    pub now_ms: u64,
    /// What its own healing said against the step.
    pub held_back: Option<String>,
}

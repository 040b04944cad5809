//! Relays: what an enrolled host does for others, within which bounds, and how circuits are written down.
//!
//! A circuit is bytes that a relay copies from one member to another: it carries a whole connection with its own
//! handshake and its own admission, so that the relay sees ciphertext and can only drop it. Which relay is asked,
//! and who says that it is worth asking, is the driver's decision (`driver::paths`); nothing here dials.

use libp2p::multiaddr::Protocol as Part;
use libp2p::{Multiaddr, PeerId, relay};
use mesh::identity::PeerKey;
use std::num::NonZeroU32;
use std::time::Duration;

/// Hosts that may wait here for others: all of a large mesh but those that need no relay. One costs a line of a table.
const RESERVATIONS_MAX: usize = 1_024;

/// Of one host: one for each of its connections, and those that are about to go.
const RESERVATIONS_PER_PEER_MAX: usize = 4;

/// A reservation ends with its connection; until then it is renewed in this time, so a stale one is soon gone.
const RESERVATION_LIFE: Duration = Duration::from_secs(3_600);

/// Pairs that talk through here at one time: 45 hosts that reach each other through this one only. Each costs two
/// buffers of 8 KiB.
const CIRCUITS_MAX: usize = 1_024;

/// Of one host: it may need one to every other host behind NAT, and dials from both sides make two.
const CIRCUITS_PER_PEER_MAX: usize = 256;

/// Consensus stands on a circuit for as long as its hosts run; ending it once a day is one reconnect, and no
/// circuit that was forgotten lives for ever. The library's two minutes would elect a leader every two minutes.
const CIRCUIT_LIFE: Duration = Duration::from_secs(24 * 3_600);

/// A day of heartbeats is some 50 MB and the largest blob has 64 GiB; a transfer that breaks here goes on from where it
/// was. The library's 128 KiB would not carry one blob.
const CIRCUIT_BYTES_MAX: u64 = 256 << 30;

/// Circuits and reservations that one host may ask for at once; after that one a second. A restart after a power
/// cut asks for one to each host. There is no bound by IP: all hosts behind one NAT share it.
const ASKS_AT_ONCE: NonZeroU32 = NonZeroU32::MIN.saturating_add(255);
const ASK_EVERY: Duration = Duration::from_secs(1);

/// What this host does for others.
pub(super) fn server(me: PeerId) -> relay::Behaviour {
    let config = relay::Config {
        max_reservations: RESERVATIONS_MAX,
        max_reservations_per_peer: RESERVATIONS_PER_PEER_MAX,
        reservation_duration: RESERVATION_LIFE,
        reservation_rate_limiters: Vec::new(),
        max_circuits: CIRCUITS_MAX,
        max_circuits_per_peer: CIRCUITS_PER_PEER_MAX,
        max_circuit_duration: CIRCUIT_LIFE,
        max_circuit_bytes: CIRCUIT_BYTES_MAX,
        circuit_src_rate_limiters: Vec::new(),
    }
    .reservation_rate_per_peer(ASKS_AT_ONCE, ASK_EVERY)
    .circuit_src_per_peer(ASKS_AT_ONCE, ASK_EVERY);
    let mut server = relay::Behaviour::new(me, config);
    // For every member, always. Who is worth asking says so in its presence; and libp2p tells standing connections
    // of a change in no certain order.
    server.set_status(Some(relay::Status::Enable));
    server
}

/// Whether an address leads through a relay.
pub(super) fn is_circuit(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Part::P2pCircuit)
}

/// The relay that a circuit's address names.
pub fn relay_of(address: &Multiaddr) -> Option<PeerKey> {
    let mut relay = None;
    for part in address {
        match part {
            Part::P2p(peer) => relay = Some(peer),
            Part::P2pCircuit => return relay.as_ref().and_then(PeerKey::from_peer_id),
            _ => {}
        }
    }
    None
}

/// An address without the peers that it names.
pub(super) fn bare(address: &Multiaddr) -> Multiaddr {
    address.iter().filter(|part| !matches!(part, Part::P2p(_))).collect()
}

/// The circuit through a relay that is connected at this address.
pub(super) fn circuit(at: &Multiaddr, relay: PeerId) -> Multiaddr {
    bare(at).with(Part::P2p(relay)).with(Part::P2pCircuit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::identity::Keys;

    #[test]
    fn a_circuit_names_its_relay_and_nothing_else_does() {
        let [relay, target] = [1, 2].map(|n| Keys::from_seed([n; 32]).key());
        let (relay_id, target_id) = (relay.peer_id().unwrap(), target.peer_id().unwrap());
        let at: Multiaddr = "/ip4/10.0.0.1/tcp/7400".parse().unwrap();
        let through = circuit(&at.clone().with(Part::P2p(relay_id)), relay_id);
        assert_eq!(through.to_string(), format!("/ip4/10.0.0.1/tcp/7400/p2p/{relay_id}/p2p-circuit"));
        assert_eq!(relay_of(&through), Some(relay));
        assert_eq!(relay_of(&through.clone().with(Part::P2p(target_id))), Some(relay), "not the one behind it");
        assert!(is_circuit(&through) && !is_circuit(&at));
        assert_eq!(relay_of(&at.with(Part::P2p(target_id))), None);
    }

    #[test]
    fn the_bounds_are_ours() {
        let theirs = relay::Config::default();
        assert!(theirs.max_circuit_bytes < mesh::limits::BLOB_BYTES_MAX, "or these bounds are not needed any more");
        const { assert!(CIRCUIT_BYTES_MAX > mesh::limits::BLOB_BYTES_MAX) };
        const { assert!(CIRCUIT_LIFE.as_secs() <= u32::MAX as u64) }; // libp2p panics beyond
    }
}

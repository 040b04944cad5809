//! Orders: the leader's, sent to a peer, and a target that decides for itself ([`mesh::order`]).
//!
//! Nothing in the program acts on orders yet; what a simulated host carries out is a fact for the jury and no more.

use super::disk::Write;
use super::host::{Env, Process};
use super::message::{Event, Message};
use crate::invariants::Fact;
use mesh::addresses::Source;
use mesh::identity::PeerKey;
use mesh::mutants::{self, Mutant};
use mesh::order::{Act, BootId, Gently, Order, Target, Verdict};
use mesh::roster::MeshId;
use mesh::wire::Signed;
use topology::limits::PORT_DEFAULT;

/// The target that a process is, and orders that wait for its disk.
pub struct Orders {
    target: Target,
    waiting: Vec<(u64, Order)>,
}

impl Orders {
    /// With what the disk remembers.
    pub fn new(env: &Env<'_>, mesh: MeshId, boot: [u8; 16]) -> Orders {
        let target = Target::new(env.m.keys.clone(), mesh, BootId(boot), env.m.disk.orders.clone());
        Orders { target, waiting: vec![] }
    }
}

impl Process {
    /// Issues an order for a peer, as the leader: on the connection that stands, else to where the peer says that
    /// it is. The naive variant sends it to the address that the peer's traffic comes from.
    pub fn order(&mut self, env: &mut Env<'_>, peer: PeerKey, number: u64) -> Result<(), String> {
        let fence = self.raft.grant(env.own()).ok_or("nobody leads")?.fence;
        let presence = self.members.host(&peer).and_then(|h| h.presence.clone()).ok_or("nothing is known of it")?;
        let order = Order {
            mesh: self.mesh,
            number,
            target: peer,
            boot: BootId(presence.boot_id),
            act: Act::Reboot(Gently { grace_ms: 1_000 }),
            fence,
            reason: "as ordered".into(),
        };
        let signed = Signed::seal(&env.m.keys, &order);
        let mut addresses = presence.facts.addresses.clone();
        env.cx.keep_order(&signed, &addresses);
        let sent = if mutants::on(Mutant::IdentityByAddress) {
            let rows = self.addresses.rows(&peer, env.own());
            let seen = rows.iter().filter(|row| row.source == Source::Observed);
            addresses.splice(0..0, seen.map(|row| format!("/ip4/{}/tcp/{PORT_DEFAULT}", row.addr)));
            self.send_order(env, &signed, &addresses)
        } else {
            self.send(env, peer, Message::Order(Box::new(signed.clone()))) || self.send_order(env, &signed, &addresses)
        };
        sent.then_some(()).ok_or("no way to it".to_owned())
    }

    /// Sends an order to whoever sits at an address.
    pub fn send_order(&mut self, env: &mut Env<'_>, signed: &Signed, addresses: &[String]) -> bool {
        let ways = addresses.iter().filter_map(|address| env.cx.net.way(self.host, address));
        let Some(way) = ways.into_iter().find(|way| env.cx.net.carries(self.host, way.to, way)) else { return false };
        let at = env.cx.now + 3 * env.cx.net.delay(way.latency, &mut env.cx.dice);
        env.cx.queue.push(at, Event::Order(way.to, Box::new(signed.clone())));
        true
    }

    /// An order has come.
    pub fn ordered(&mut self, env: &mut Env<'_>, signed: &Signed) {
        if let Ok(Verdict::Act { order, .. }) = self.orders.target.receive(signed, self.ledger.leader()) {
            let written = env.m.disk.write(Write::Orders(self.orders.target.record().clone()));
            self.orders.waiting.push((written, order));
        }
        self.settle(env);
    }

    /// What the target remembers is on the disk: now it acts.
    pub(super) fn orders_synced(&mut self, env: &mut Env<'_>, written: u64) {
        let (ready, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.orders.waiting).into_iter().partition(|(at, _)| *at <= written);
        self.orders.waiting = waiting;
        for (_, order) in ready {
            let (host, key, named) = (env.m.name.clone(), self.me, order.target);
            env.cx.fact(Fact::Carried { host, key, named, order: order.number, fence: order.fence });
        }
    }
}

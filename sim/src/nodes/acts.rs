//! What hosts were ordered to do to themselves, and do: a simulated machine only says what it was told.

use super::{Nodes, NodesStage, Station};
use crate::invariants::{self, Jury};
use crate::machine::Acted;
use crate::stage::{Failure, Stage};
use mesh::identity::PeerKey;
use mesh::lease::Fence;
use mesh::order::{Act, BootId};
use mesh::warrant::{Authority, Host, Known, Order, OrderHash, OrderId};
use node::api::Control;
use node::api::order::OrderRequest;
use node::driver::Inner;
use node::seams::Machine;
use std::sync::Arc;

/// What a node says it acts on.
pub struct Told {
    pub order: OrderId,
    pub target: PeerKey,
    pub act: Act,
    pub fence: Fence,
    pub known: Arc<Known>,
}

impl Nodes {
    /// What machines were told to do to themselves since this was asked last, in the order of their names.
    pub fn take_acts(&self) -> Vec<(String, Acted)> {
        let acts = |(name, station): (&String, &Station)| {
            let acts = station.host.machine().take_acts();
            acts.into_iter().map(|acted| (name.clone(), acted)).collect::<Vec<_>>()
        };
        self.stations.iter().flat_map(acts).collect()
    }

    /// Does what they were told: a restarted service is a crash and a start, a restarted machine a power cut. What was done.
    pub fn obey(&mut self) -> Vec<(String, Acted)> {
        let told = self.take_acts();
        for (name, acted) in &told {
            match acted.act.is_reboot() {
                true => {
                    self.power_cut(name);
                    self.power_on(name);
                }
                false => {
                    self.crash(name);
                    self.restart(name);
                }
            }
        }
        told
    }
}

impl NodesStage {
    /// The same on a stage, which has to know who is down, and what it did in its last moment.
    pub(super) fn obey(&mut self, jury: &mut Jury) -> Result<(), Failure> {
        let at = self.elapsed();
        for (name, Acted { act, order }) in self.nodes.take_acts() {
            if let Some(node) = self.nodes.stations.get(&name).and_then(Station::node) {
                self.look_at_deeds(&name, &node, jury, at)?;
            }
            self.fault(&name, &format!("{act}, ordered by {order}"));
            match act.is_reboot() {
                true => self.cut_power(&name),
                false => self.crash(&name),
            }
            self.start(&name);
        }
        Ok(())
    }
}

impl NodesStage {
    /// What a host acts on, for the jury: the order as some ledger has it, the machine as it is. Which nonce and which
    /// signatures it went by is not seen from outside.
    pub(super) fn deed(&mut self, name: &str, node: &Arc<Inner>, told: &Told) -> invariants::Deed {
        let id = told.order;
        // Those that hold it may be down by now: what was in some ledger before this step counts.
        for other in self.nodes.stations.values().filter_map(Station::node).collect::<Vec<_>>() {
            self.read_orders(&other);
        }
        let found = self.eyes.orders.get(&id).cloned();
        let known = told.known.clone();
        let machine = self.nodes.stations.get(name).map(|station| station.host.machine().facts());
        let boot = BootId(machine.map(|facts| facts.boot_id).unwrap_or_default());
        let start = node.start_number();
        let wall_ms = known.as_of_ms();
        let life = Host { boot, start, protected: false, allow_reboot: true, wall_ms };
        // An order that is in no ledger has no author either: the jury will say so.
        let nobody = || {
            let order = Order {
                mesh: known.mesh(),
                id,
                target: told.target,
                boot,
                start,
                act: told.act,
                authority: Authority::Person,
                requester: String::new(),
                fence: told.fence,
                expires_ms: u64::MAX,
                force: false,
                reason: String::new(),
            };
            (OrderHash([0; 32]), order, node.key())
        };
        let (hash, order, author) = found.unwrap_or_else(nobody);
        let (host, key) = (self.eyes.name(name), node.key());
        let (nonce, took_ms, stored, ails) = (None, 0, true, true);
        invariants::Deed { host, key, order, hash, author, life, nonce, took_ms, known, stored, ails }
    }

    /// Remembers what orders stand in a ledger.
    pub(super) fn read_orders(&mut self, node: &Arc<Inner>) {
        let orders = &mut self.eyes.orders;
        node.ledger(|l| {
            for w in l.healing().orders().rev().take_while(|w| !orders.contains_key(&w.order.id)).collect::<Vec<_>>() {
                orders.insert(w.order.id, (w.hash, w.order.clone(), w.by));
            }
        });
    }

    /// A person at a host orders another to restart; what comes of it is told to nobody, for it is in the ledger.
    pub(super) fn order_by_hand(&mut self, by: &str, host: &str, restart: bool) {
        let request = OrderRequest { reboot: !restart, reason: "as ordered".into(), force: true, user: "owner".into() };
        let host = host.to_owned();
        let _ = self.nodes.ask(by, move |node| async move {
            if let Ok(mut events) = Control::order(&*node, host, request).await {
                while events.recv().await.is_some() {}
            }
        });
    }
}

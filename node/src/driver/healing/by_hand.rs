//! An order that a person gives, on a host that is a signer: `mesh restart` and `mesh reboot`.
//!
//! It goes the same way as the leader's and is held back by the same rules, but for those that ask whether healing may act by
//! itself ([`mesh::healing::by_hand`]). The signer signs alone. Each thing that happens is told as it happens; that nobody
//! listens any more ends nothing.

use super::super::Inner;
use super::super::shared::lock;
use super::super::wall_ms;
use super::deliver::Failed;
use crate::api::order::{OrderEvent, OrderRequest};
use crate::api::types::ApiError;
use mesh::healing::{self, Entry, Kind, Told};
use mesh::identity::PeerKey;
use mesh::order::{Act, Gently};
use mesh::roster::cut;
use mesh::warrant::{Authority, Order, OrderId, approve_by_hand};
use mesh::wire::Signed;
use rand::RngExt;
use std::sync::Arc;
use tokio::sync::mpsc;

/// How long an order by hand is good, in milliseconds of ledger time: it is brought at once or not at all, and clocks may
/// differ by some minutes.
const LIVES_MS: u64 = 600_000;

/// An order that has to be brought.
struct Drawn {
    host: PeerKey,
    name: String,
    act: Act,
    request: OrderRequest,
}

impl Inner {
    /// Orders a host to restart, as a person's word; what happens comes out of `events`.
    ///
    /// # Errors
    /// When this host may not, or a rule holds it back; nothing is written then.
    pub async fn order_by_hand(
        self: &Arc<Self>,
        host: PeerKey,
        request: OrderRequest,
        events: mpsc::Sender<OrderEvent>,
    ) -> Result<(), ApiError> {
        self.check_may(if request.reboot { "reboot" } else { "restart" })?;
        let name = self.name_of(&host);
        let (act, held) = self.healing_facts(|facts| {
            let gently = Gently { grace_ms: facts.record.policy().grace_ms };
            let act = if request.reboot { Act::Reboot(gently) } else { Act::Restart(gently) };
            let roster = facts.ledger.roster();
            let rules = healing::by_hand(facts, &host, act, request.force);
            (act, rules.iter().map(|rule| rule.text(roster)).collect::<Vec<_>>())
        });
        if !held.is_empty() {
            return Err(ApiError::conflict(format!("a {act} of {name} is held back: {}", held.join("; "))).hint(
                match request.force {
                    true => format!("`mesh why {name}` tells more; what the host itself refuses, nobody can force"),
                    false => {
                        format!("`mesh why {name}` tells more; --force overrides budget, cool-down and running builds")
                    }
                },
            ));
        }
        let this = self.clone();
        let drawn = Drawn { host, name, act, request };
        self.task(async move {
            let end = this.carry_by_hand(drawn, &events).await;
            let _ = events.send(end).await;
        });
        Ok(())
    }

    /// From the target's hello to the proof; how it ended.
    async fn carry_by_hand(self: &Arc<Self>, drawn: Drawn, events: &mpsc::Sender<OrderEvent>) -> OrderEvent {
        let Drawn { host, name, act, request } = drawn;
        let failed = |text: String, hint: &str| OrderEvent::Failed { text, hint: hint.to_owned() };
        let links = self.links_of_signers().await; // before there is a nonce that would grow old meanwhile
        let mut call = match self.call(host).await {
            Ok(call) => call,
            Err(why) => {
                return failed(format!("{name} cannot be reached: {why}"), "`mesh why` and `mesh ping` tell more");
            }
        };
        let id = OrderId(lock(&self.random).random());
        let order = Order {
            mesh: self.mesh,
            id,
            target: host,
            boot: call.greeting.boot,
            start: call.greeting.start,
            act,
            authority: Authority::Person,
            requester: self.requester(&request.user),
            fence: call.greeting.highest,
            expires_ms: self.shared.with(|l| l.time_ms()).max(wall_ms()).saturating_add(LIVES_MS),
            force: request.force,
            reason: cut(&request.reason),
        };
        let signed = Signed::seal(&self.keys, &order);
        match self.write_healing(Entry::Order(signed.clone()), None).await {
            Ok(reply) if reply.is_ok() => {}
            Ok(reply) => return failed(format!("the ledger refused the order: {}", reply.text), ""),
            Err(why) => {
                return failed(
                    format!("the order is not in the ledger: {why}"),
                    "look at `mesh status`, then try again",
                );
            }
        }
        let _ =
            events.send(OrderEvent::Written { order: id.to_string(), host: name.clone(), act: act.to_string() }).await;
        if !call.is_fresh() {
            call = match self.call(host).await {
                Ok(call) => call,
                Err(why) => {
                    self.remark(host, Some(id), Told::Undelivered, why.clone());
                    return failed(format!("{name} cannot be reached any more: {why}"), "");
                }
            };
        }
        let approved = match approve_by_hand(&self.keys, &signed, &call.hello) {
            Ok(approved) => approved,
            Err(why) => {
                self.remark(host, Some(id), Told::Withheld, why.to_string());
                return failed(why.to_string(), "give the order again");
            }
        };
        match self.bring(call, &signed, &links, [approved]).await {
            Ok(receipt) => {
                let _ = events.send(OrderEvent::TakenOn { host: name.clone() }).await;
                let _ = self.write_healing(Entry::Receipt(receipt), None).await;
            }
            Err(Failed::Refused(why)) => {
                self.remark(host, Some(id), Told::Refused, why.clone());
                return failed(
                    format!("{name} refuses: {why}"),
                    "what a host refuses, only its owner can change there",
                );
            }
            Err(Failed::Undelivered(why)) => {
                self.remark(host, Some(id), Told::Undelivered, why.clone());
                return failed(format!("{name} may not have got it: {why}"), "`mesh why` tells what became of it");
            }
        }
        self.wait_for_proof(host, &name, id).await
    }

    async fn wait_for_proof(&self, host: PeerKey, name: &str, id: OrderId) -> OrderEvent {
        let became = self.shared.until(|l| {
            let record = l.healing();
            let written = record.orders().find(|w| w.order.id == id)?;
            if let Some(proof) = &written.proof {
                return Some(OrderEvent::Proved { host: name.to_owned(), start: proof.start });
            }
            let told = record.audit().lines().rev().find(|line| line.order == Some(id));
            let failed = told.filter(|line| line.kind == Kind::Told(Told::Failed) && line.by == host)?;
            let text = format!("{name} could not do it: {}", failed.text);
            Some(OrderEvent::Failed { text, hint: format!("look at {name}: its mesh.toml, [machine]") })
        });
        let patience = std::time::Duration::from_millis(self.shared.with(|l| l.healing().policy().proof_ms));
        match tokio::time::timeout(patience, became).await {
            Ok(event) => event,
            Err(_) => OrderEvent::Failed {
                text: format!("{name} has taken the order on and has not come back since"),
                hint: format!("`mesh why {name}` tells more; look at the machine"),
            },
        }
    }

    /// Who asks, for the order and for the target's users.
    fn requester(&self, user: &str) -> String {
        let text = format!("{user} on {}", self.name_of(&self.me));
        text[..text.floor_char_boundary(mesh::limits::REQUESTER_BYTES_MAX)].to_owned()
    }
}

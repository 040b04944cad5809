//! The leader's part in healing: what the plan says, one step at a time, into the ledger; and its orders to their targets.
//!
//! It acts only while the lease stands and the ledger knows it as the leader, and everything it writes carries its fence.
//! What a leader before it has ordered and nobody has received, it takes back, and orders anew when that still holds.
//! Which steps there are, and what holds them back, is [`mesh::healing::plan`]'s; its canaries are given by
//! [`mesh::placement`] with the other builds, and noted here. An order that did not get there is tried again as
//! long as enough voters are left that have signed no hello for it; after that a new one is needed, which is the plan's to
//! give.

use super::super::Inner;
use super::super::shared::lock;
use super::deliver::Failed;
use mesh::healing::{self, Change, Entry, Event, Pending, Plan, Rung, Step, Told, What, Withdraw};
use mesh::identity::PeerKey;
use mesh::lease::Fence;
use mesh::limits::ORDER_MS_MAX;
use mesh::mutants::{self, Mutant};
use mesh::roster::cut;
use mesh::warrant::{Authority, Order, OrderHash, OrderId};
use mesh::wire::Signed;
use rand::RngExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Steps between two looks at most: notes, and one deed.
const STEPS_MAX: usize = 16;
/// After a step that the ledger refused, the host is left alone for this long.
const BALK: Duration = Duration::from_secs(10);
/// Between two tries to deliver one order.
const DELIVER_AGAIN: Duration = Duration::from_secs(15);
/// Rounds of signatures for one order: whoever signed in one signs in no other.
const COLLECTIONS_MAX: u32 = 3;

/// What a leader remembers of its healing.
#[derive(Default)]
pub(super) struct Leading {
    /// Hosts about which the ledger has just refused something.
    balked: BTreeMap<PeerKey, Instant>,
    /// Where the log ended when a step had failed. It may have had no answer only, and be committed yet: until it is known
    /// what became of it, a plan is made from too little, and a second host would be healed, or one twice.
    settled_at: u64,
}

impl Inner {
    /// Something that a plan is made from has changed.
    pub(in super::super) fn wake_healer(&self) {
        self.healing.wake.notify_one();
    }

    /// The leader's healing: does nothing while somebody else leads.
    pub(in super::super) async fn run_healer(self: Arc<Self>) {
        loop {
            self.woken_to_lead(&self.healing.wake, None).await;
            for _ in 0..STEPS_MAX {
                if !self.heal_once().await {
                    break;
                }
            }
        }
    }

    /// One step. True when it changed something.
    async fn heal_once(self: &Arc<Self>) -> bool {
        let Some(fence) = self.leads_under() else { return false };
        let settled = self.consensus.applied() >= lock(&self.healing.leading).settled_at;
        if !settled && !mutants::on(Mutant::HealsUnsettled) {
            return false;
        }
        let Plan { steps, .. } = self.healing_facts(healing::plan);
        let step = {
            let mut leading = lock(&self.healing.leading);
            leading.balked.retain(|_, at| at.elapsed() < BALK);
            let here = |step: &Step| !matches!(step.what, What::Canary(_)) && !leading.balked.contains_key(&step.host);
            steps.into_iter().find(here)
        };
        let Some(step) = step else { return false };
        let host = self.name_of(&step.host);
        match self.take(fence, &step).await {
            Ok(()) => {
                tracing::info!(host, what = %step.what, why = step.why, "a step of healing");
                true
            }
            Err(why) => {
                tracing::info!(host, what = %step.what, why, "a step of healing is not in the ledger");
                let mut leading = lock(&self.healing.leading);
                leading.settled_at = leading.settled_at.max(self.consensus.last_log());
                leading.balked.insert(step.host, Instant::now());
                false
            }
        }
    }

    async fn take(self: &Arc<Self>, fence: Fence, step: &Step) -> Result<(), String> {
        match step.what {
            What::SetAside(event) | What::Note(event) => self.change(fence, step, event, None).await,
            What::HandOver => self.change(fence, step, Event::HandedOver, None).await,
            What::Canary(_) => Ok(()), // placement gives it, before all other builds
            What::Order(rung) => self.order(fence, step, rung).await,
            What::Withdraw(order) => self.withdraw(fence, step, order).await,
        }
    }

    async fn withdraw(&self, fence: Fence, step: &Step, order: OrderId) -> Result<(), String> {
        let withdraw = Withdraw { host: step.host, order, why: cut(&step.why) };
        let done = self.must_write(Entry::Withdraw(withdraw), fence).await;
        let over = self.shared.with(|l| {
            let waits =
                |case: &healing::Case| case.order.as_ref().is_some_and(|o| o.id == order && l.time_ms() > o.until_ms);
            l.healing().case(&step.host).is_some_and(waits)
        });
        match done {
            // A voter of an older program knows no such entry: there the order runs out.
            Err(_) if over => self.change(fence, step, Event::Expired, None).await,
            done => done,
        }
    }

    async fn change(&self, fence: Fence, step: &Step, event: Event, order: Option<Pending>) -> Result<(), String> {
        let change = Change { host: step.host, event, why: cut(&step.why), order };
        self.must_write(Entry::Change(change), fence).await
    }

    async fn must_write(&self, entry: Entry, fence: Fence) -> Result<(), String> {
        let reply = self.write_healing(entry, Some(fence)).await?;
        if reply.is_ok() { Ok(()) } else { Err(reply.text) }
    }

    /// Writes an order and that the case waits for it; then it goes its way by itself.
    async fn order(self: &Arc<Self>, fence: Fence, step: &Step, rung: Rung) -> Result<(), String> {
        let id = OrderId(lock(&self.random).random());
        let me = self.name_of(&self.me);
        let drawn = self.healing_facts(|facts| {
            let sight = facts.sights.get(&step.host)?;
            let (policy, now) = (facts.record.policy(), facts.ledger.time_ms());
            let order = Order {
                mesh: self.mesh,
                id,
                target: step.host,
                boot: sight.boot,
                start: sight.start,
                act: healing::act(rung, policy)?,
                authority: Authority::Leader,
                requester: format!("the healing of {me}"),
                fence,
                expires_ms: now.saturating_add(policy.proof_ms.min(ORDER_MS_MAX)),
                force: false,
                reason: cut(&step.why),
            };
            let until_ms = now.saturating_add(policy.proof_ms).saturating_add(policy.grace_ms);
            Some((Pending { id, boot: sight.boot, start: sight.start, until_ms }, order))
        });
        let (pending, order) = drawn.ok_or("nothing is known of it any more")?;
        let signed = Signed::seal(&self.keys, &order);
        self.must_write(Entry::Order(signed.clone()), fence).await?;
        self.change(fence, step, Event::Ordered, Some(pending)).await?;
        let this = self.clone();
        self.task(async move { this.carry(fence, signed, order).await });
        Ok(())
    }

    /// Takes an order to its target, until that has taken it on, or the order is over.
    async fn carry(self: &Arc<Self>, fence: Fence, signed: Signed, order: Order) {
        let (host, hash) = (self.name_of(&order.target), OrderHash::of(&signed));
        let (mut told, mut tries) = (BTreeSet::new(), 0);
        loop {
            let open = self.shared.with(|l| l.healing().is_open(&hash, l.time_ms()));
            if !open || self.leads_under() != Some(fence) {
                return;
            }
            let call = match self.call(order.target).await {
                Ok(call) => call,
                Err(why) => {
                    tracing::info!(host, order = %order.id, why, "an order does not reach its target yet");
                    if told.insert(order.target) {
                        self.remark(order.target, Some(order.id), Told::Undelivered, why);
                    }
                    tokio::time::sleep(DELIVER_AGAIN).await;
                    continue;
                }
            };
            let (got, enough) = self.collect(&signed, order.target, &call.hello, &call.greeting).await;
            for (voter, why) in &got.withheld {
                let text = format!("{}: {why}", self.name_of(voter));
                tracing::info!(host, order = %order.id, text, "a voter does not sign");
                if told.insert(*voter) {
                    self.remark(order.target, Some(order.id), Told::Withheld, text);
                }
            }
            tries += 1;
            if !enough && tries < COLLECTIONS_MAX {
                tokio::time::sleep(DELIVER_AGAIN).await;
                continue;
            }
            if !enough {
                return; // the plan has the next word
            }
            let names: Vec<String> = got.signed.keys().map(|by| self.name_of(by)).collect();
            let by = names.join(", ");
            self.remark(order.target, Some(order.id), Told::Signed, by.clone());
            match self.bring(call, &signed, &[], got.signed.into_values()).await {
                Ok(receipt) => {
                    tracing::info!(host, order = %order.id, signed = by, "an order was taken on");
                    let _ = self.write_healing(Entry::Receipt(receipt), None).await;
                }
                Err(Failed::Refused(why)) => {
                    tracing::warn!(host, order = %order.id, why, "a target refuses an order");
                    self.remark(order.target, Some(order.id), Told::Refused, why);
                }
                Err(Failed::Undelivered(why)) => {
                    tracing::info!(host, order = %order.id, why, "an order may not have arrived");
                    self.remark(order.target, Some(order.id), Told::Undelivered, why);
                }
            }
            return;
        }
    }
}

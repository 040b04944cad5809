//! A machine as the target of orders: its hearings, what its disk holds of them, and the deed. [`mesh::warrant`] decides.
//!
//! The same code serves the daemon, on a connection that stands, and the guard beside it, which answers at the machine's
//! address whether the daemon runs or not, and knows of the roster what the daemon has written down. What is accepted
//! is on the disk before the receipt is sent and the machine acts; its service then truly ends and begins anew, with
//! another start number, and after a reboot in another boot. Nothing here looks at who brings a warrant.

use super::Cx;
use super::disk::Write;
use super::host::Machine;
use super::message::{Event, Message, Parcel, ms};
use super::stage::Cores;
use crate::invariants::{Deed, Fact};
use mesh::order::BootId;
use mesh::roster::mesh_id;
use mesh::time::Time;
use mesh::warrant::{Frame, Guard, Hearing, Host, Known, Licence, OrderHash, Step, Unstored, Warrant};
use mesh::wire::Signed;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Hearings that one machine holds at a time; the oldest goes.
const HEARINGS_MAX: usize = 16;
/// Something was truly wrong with a host when it was within this time, in microseconds.
const LATELY: u64 = 300_000_000;

/// How whoever brings an order has reached the machine, and gets its answers.
#[derive(Clone, Debug)]
pub enum Path {
    /// On a connection: its number, our end.
    Line(u64, usize),
    /// At an address: what came, to be turned round.
    Port(Box<Parcel>),
}

struct Open {
    hearing: Hearing,
    nonce: [u8; 32],
    since: Time,
}

struct Waiting {
    written: u64,
    unstored: Unstored<Licence>,
    deed: Deed,
    path: Path,
    number: u64,
}

/// The hearings of a machine.
#[derive(Default)]
pub struct Hearings {
    open: BTreeMap<u64, Open>,
    waiting: Vec<Waiting>,
}

impl Hearings {
    /// Nobody remembers them: the process that held them is gone.
    pub fn forget(&mut self) {
        *self = Hearings::default();
    }
}

impl Machine {
    /// The boot that the machine is in.
    pub fn boot(&self) -> BootId {
        let mut boot = [0; 16];
        boot[..8].copy_from_slice(&self.boots.to_le_bytes());
        boot[8..].copy_from_slice(&self.machine_id[..8]);
        BootId(boot)
    }

    fn life(&self, now: u64) -> Host {
        let (boot, start, wall_ms) = (self.boot(), self.disk.start, self.clock.wall(now));
        Host { boot, start, protected: self.protected, allow_reboot: self.allow_reboot, wall_ms }
    }

    fn guard(&self) -> Option<Guard> {
        let mesh = mesh_id(&self.disk.folder.as_ref()?.genesis);
        Guard::load(self.disk.guard()?, mesh, self.keys.key()).ok()
    }
}

/// Frames of whoever brings an order; none of them asks for a hearing.
pub fn brought(m: &mut Machine, cx: &mut Cx, known: Option<Known>, path: Path, number: u64, frames: &[Vec<u8>]) {
    let Some(guard) = m.guard() else { return };
    let now = m.clock.own(cx.now);
    if frames.is_empty() {
        let Some(known) = known else { return };
        let mut nonce = [0; 32];
        nonce[..8].copy_from_slice(&cx.dice.draw().to_le_bytes());
        nonce[8..16].copy_from_slice(&cx.dice.draw().to_le_bytes());
        let (hearing, hello) = Hearing::open(&m.keys, &guard, known, m.life(cx.now), nonce, now);
        m.hearings.open.insert(number, Open { hearing, nonce, since: now });
        while m.hearings.open.len() > HEARINGS_MAX {
            m.hearings.open.pop_first();
        }
        if let Ok(Frame::Hello(signed)) = Frame::read(&hello)
            && let Ok(hello) = signed.open::<mesh::warrant::Hello>()
        {
            cx.fact(Fact::Greeted { host: m.name.clone(), highest: hello.highest });
        }
        return answer(m, cx, &path, number, hello);
    }
    if !m.hearings.waiting.is_empty() {
        return; // the guard's file is locked
    }
    let Some(open) = m.hearings.open.get_mut(&number) else { return };
    for frame in frames {
        match open.hearing.receive(frame, &guard, now) {
            Ok(Step::More) => {}
            Ok(Step::Again(receipt)) => {
                cx.orders.again += 1;
                return answer(m, cx, &path, number, Frame::Receipt(receipt).write());
            }
            Ok(Step::Permit(unstored)) => {
                let (nonce, took_ms) = (open.nonce, now.since(open.since).as_millis() as u64);
                let known = Arc::new(open.hearing.known().clone());
                let Ok(Frame::Warrant(warrant)) = Frame::read(frame) else { return };
                let Some(deed) = deed(m, cx, &warrant, known, nonce, took_ms) else { return };
                let written = m.disk.write(Write::Guard(unstored.bytes().to_vec()));
                m.hearings.waiting.push(Waiting { written, unstored, deed, path, number });
                return cx.sync(m);
            }
            Err(refusal) => {
                let text = refusal.to_string();
                cx.fact(Fact::Refused { host: m.name.clone(), refusal: refusal.clone() });
                *cx.orders.refused.entry(reason(&refusal)).or_default() += 1;
                return answer(m, cx, &path, number, Frame::Refused(text).write());
            }
        }
    }
}

/// The name of what a refusal is, without what it says.
pub fn reason(refusal: &mesh::warrant::Refusal) -> String {
    let text = format!("{refusal:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

fn deed(m: &Machine, cx: &Cx, warrant: &Warrant, known: Arc<Known>, nonce: [u8; 32], took_ms: u64) -> Option<Deed> {
    let order = warrant.order.open().ok()?;
    Some(Deed {
        host: m.name.clone(),
        key: m.keys.key(),
        order,
        hash: OrderHash::of(&warrant.order),
        author: warrant.order.by,
        life: m.life(cx.now),
        nonce: Some(nonce),
        took_ms,
        known,
        stored: false,
        ails: false,
    })
}

fn answer(m: &Machine, cx: &mut Cx, path: &Path, number: u64, frame: Vec<u8>) {
    match path {
        Path::Line(id, end) => cx.send(*id, *end, Message::Answer(number, frame)),
        Path::Port(parcel) => {
            let Parcel { from, way, .. } = &**parcel;
            if cx.net.carries(m.number, from.0, way) {
                let back = Parcel { frames: vec![frame], back: true, ..(**parcel).clone() };
                let at = cx.now + 2 * cx.net.delay(way.latency, &mut cx.dice);
                cx.queue.push(at, Event::Parcel(Box::new(back)));
            }
        }
    }
}

impl Cores {
    /// Something has come to a machine's port, or back from there.
    pub(super) fn parcel(&mut self, parcel: Parcel) {
        if parcel.back {
            if self.cx.replays.contains_key(&parcel.number) {
                return self.replay_on(&parcel);
            }
            let (from, generation) = parcel.from;
            if self.hosts[from].machine.generation == generation
                && let Some(frame) = parcel.frames.first()
            {
                self.with(from, |p, env| p.answered_by_target(env, None, parcel.number, frame));
            }
            return;
        }
        let host = parcel.to;
        if !self.cx.net.powered[host] || self.hosts[host].out {
            return;
        }
        let m = &mut self.hosts[host].machine;
        let Some(folder) = &m.disk.folder else { return };
        let known = m.disk.known.as_ref().and_then(|bytes| Known::load(bytes, mesh_id(&folder.genesis)).ok());
        let (number, frames) = (parcel.number, parcel.frames.clone());
        brought(m, &mut self.cx, known, Path::Port(Box::new(parcel)), number, &frames);
    }

    /// What a machine has accepted is on its disk: it answers, and acts.
    pub(super) fn accepted(&mut self, host: usize, written: u64) {
        let ails = self.ails(host);
        let (m, cx) = (&mut self.hosts[host].machine, &mut self.cx);
        let (ready, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut m.hearings.waiting).into_iter().partition(|w| w.written <= written);
        m.hearings.waiting = waiting;
        for Waiting { unstored, mut deed, path, number, .. } in ready {
            let held = m.disk.guard().unwrap_or_default().to_vec();
            (deed.stored, deed.ails) = (held == unstored.bytes(), ails);
            let Ok(licence) = unstored.stored(&held) else { continue };
            let (act, receipt): (_, Signed) = (licence.act(), licence.receipt().clone());
            cx.orders.acts += 1;
            cx.fact(Fact::Carried(Box::new(deed)));
            answer(m, cx, &path, number, Frame::Receipt(receipt).write());
            let at = cx.now + ms(act.grace_ms());
            cx.queue.push(at, Event::Act(host, m.generation, act.is_reboot()));
        }
    }

    /// Whether something is truly wrong with a host, or was lately.
    fn ails(&self, host: usize) -> bool {
        let at = &self.hosts[host];
        let lately = |when: u64| when > 0 && self.cx.now < when + LATELY;
        at.process.is_none() || lately(at.harmed) || lately(at.machine.broke) || at.suspended.is_some()
    }

    /// The deed: the service ends, the machine may reboot, and all comes back.
    pub(super) fn carry_out(&mut self, host: usize, generation: u64, reboot: bool) {
        if self.hosts[host].machine.generation != generation || !self.cx.net.powered[host] {
            return; // it has died of something else
        }
        self.stop(host);
        let m = &mut self.hosts[host].machine;
        m.disk.settle();
        m.generation += 1;
        m.syncing = false;
        m.hearings.forget();
        let takes = if reboot { 2_000 + self.cx.dice.below(3_000) } else { 200 + self.cx.dice.below(800) };
        if reboot {
            m.boots += 1;
        }
        let generation = m.generation;
        self.cx.dirty = true;
        self.cx.queue.push(self.cx.now + ms(takes), Event::Boot(host, generation));
    }

    /// The machine is up again.
    pub(super) fn boot_up(&mut self, host: usize, generation: u64) {
        if self.hosts[host].machine.generation == generation {
            self.start(host);
        }
    }
}

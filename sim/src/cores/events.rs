//! What the events of the queue do to hosts.

use super::admit::{Verdict, folder_of};
use super::host::{Env, Line, NoStart, Process};
use super::message::{Dial, Event, Knock, Message, NoWay, ms};
use super::stage::{Cores, Joining};
use crate::invariants::Fact;
use mesh::identity::PeerKey;

/// A dial or a handshake without an answer is given up after this.
pub(super) const DIAL_TIMEOUT: u64 = 5_000_000;

impl Cores {
    /// Whom an event is for: held back while that process stands still.
    fn subject(&self, event: &Event) -> Option<usize> {
        match event {
            Event::Wake(host, _) => Some(*host),
            Event::Arrive(id, end, _) | Event::Gone(id, end) => {
                self.cx.net.connections.get(id).map(|c| c.ends[usize::from(*end)].host.0)
            }
            Event::Knock(knock) => Some(if knock.answer.is_some() { knock.from.0 } else { knock.to }),
            Event::Dialled(dial) => Some(dial.from.0),
            Event::Parcel(parcel) => parcel.back.then_some(parcel.from.0),
            Event::Synced(..) | Event::Act(..) | Event::Boot(..) => None, // the kernel goes on
        }
    }

    pub(super) fn happen(&mut self, event: Event) {
        if let Some(host) = self.subject(&event)
            && let Some(held) = &mut self.hosts[host].suspended
        {
            held.push(event);
            return;
        }
        match event {
            Event::Wake(host, generation) => self.wake(host, generation),
            Event::Arrive(id, end, message) => self.arrive(id, usize::from(end), message),
            Event::Gone(id, end) => self.gone(id, usize::from(end)),
            Event::Dialled(dial) => self.dialled(*dial),
            Event::Knock(knock) => self.knock(*knock),
            Event::Parcel(parcel) => self.parcel(*parcel),
            Event::Act(host, generation, reboot) => self.carry_out(host, generation, reboot),
            Event::Boot(host, generation) => self.boot_up(host, generation),
            Event::Synced(host, generation, written) => self.synced(host, generation, written),
        }
    }

    /// Does something with a host's process, when it runs; one that was taken out of its mesh then stops.
    pub(super) fn with<T>(&mut self, host: usize, work: impl FnOnce(&mut Process, &mut Env<'_>) -> T) -> Option<T> {
        let (at, cx) = (&mut self.hosts[host], &mut self.cx);
        let process = at.process.as_mut()?;
        cx.active.insert(host);
        let out = work(process, &mut Env { m: &mut at.machine, cx });
        if process.leaving {
            at.out = true;
            self.stop(host);
        }
        Some(out)
    }

    fn wake(&mut self, host: usize, generation: u64) {
        if self.hosts[host].machine.generation != generation {
            return;
        }
        if self.hosts[host].process.is_some() {
            self.with(host, |p, env| p.woken(env));
        } else if self.hosts[host].joining.is_some() {
            self.knock_again(host, generation);
        } else if self.hosts[host].stranger {
            self.intrude(host, generation);
        }
    }

    fn arrive(&mut self, id: u64, end: usize, message: Message) {
        let Some(connection) = self.cx.net.connections.get(&id) else { return };
        let (at, from) = (&connection.ends[end], connection.ends[1 - end].key);
        let (host, open) = (at.host, at.open);
        let alive = self.hosts[host.0].process.is_some() && self.hosts[host.0].machine.generation == host.1;
        if !alive || !open {
            // The kernel says so, if it can.
            if self.cx.net.powered[host.0] {
                self.cx.tell_gone(id, 1 - end);
            }
            return;
        }
        let (value, len) = message.digest();
        self.cx.record.bytes += len as u64;
        self.cx.record.note(self.cx.now, host.0, 0, value, || format!("<- {} {:?}", from.short(), message));
        self.with(host.0, |p, env| p.arrived(env, (id, end), from, message));
    }

    fn gone(&mut self, id: u64, end: usize) {
        let Some(connection) = self.cx.net.connections.get_mut(&id) else { return };
        let (host, peer) = (connection.ends[end].host, connection.ends[1 - end].key);
        let was_open = std::mem::replace(&mut connection.ends[end].open, false);
        self.cx.dirty = true;
        if connection.ends.iter().all(|end| !end.open) {
            self.cx.net.connections.remove(&id);
        }
        if was_open && self.hosts[host.0].machine.generation == host.1 {
            self.with(host.0, |p, env| p.gone(env, peer, id));
        }
    }

    fn dialled(&mut self, dial: Dial) {
        let (from, generation) = dial.from;
        if self.hosts[from].machine.generation != generation {
            return;
        }
        let wanted = self.hosts[from].process.as_ref().is_some_and(|p| p.dialling.contains_key(&dial.peer));
        if !wanted && !self.hosts[from].stranger {
            return; // another address was quicker
        }
        match self.meet(&dial) {
            Ok(()) => {}
            Err(NoWay::Timeout) if dial.fails.is_none() => {
                let dial = Dial { fails: Some(NoWay::Timeout), ..dial };
                self.cx.queue.push(self.cx.now + DIAL_TIMEOUT, Event::Dialled(Box::new(dial)));
            }
            Err(why) => {
                self.with(from, |p, env| p.dial_failed(env, dial.peer, &dial.address, &why));
            }
        }
    }

    /// The handshake: who is there, and does either let the other in?
    fn meet(&mut self, dial: &Dial) -> Result<(), NoWay> {
        if let Some(why) = &dial.fails {
            return Err(why.clone());
        }
        let from = dial.from.0;
        // Addresses may have moved since.
        let way = self.cx.net.way(from, &dial.address).ok_or(NoWay::Timeout)?;
        let to = way.to;
        let both = self.cx.net.carries(from, to, &way) && self.cx.net.carries(to, from, &way);
        if !both || !self.cx.net.powered[to] || self.hosts[to].suspended.is_some() {
            return Err(NoWay::Timeout);
        }
        let Some(there) = &self.hosts[to].process else { return Err(NoWay::Refused) };
        let (one, two) = (self.hosts[from].machine.keys.key(), self.hosts[to].machine.keys.key());
        if two != dial.peer {
            return Err(NoWay::Peer(two));
        }
        if one == two {
            return Err(NoWay::Refused);
        }
        let of = |host: usize| self.hosts[host].machine.disk.folder.as_ref().map(|f| &f.credential);
        let seen = there.judge(one, of(from));
        let Some(here) = &self.hosts[from].process else {
            return self.intruded(to, one, seen);
        };
        match (seen, here.judge(two, of(to))) {
            (Verdict::Revoked, _) => Err(NoWay::NotAdmitted(true)),
            (Verdict::Stranger, _) => Err(NoWay::NotAdmitted(false)),
            (_, Verdict::Revoked) => {
                self.with(to, |p, _| p.refused_by(one));
                Err(NoWay::NotAdmitted(false))
            }
            (_, Verdict::Stranger) => Err(NoWay::NotAdmitted(false)),
            (seen, sees) => {
                let ends = [(dial.from, one), ((to, self.hosts[to].machine.generation), two)];
                let seen_as = way.seen_as;
                let id = self.cx.net.connect(ends, way, dial.address.clone());
                self.cx.dirty = true;
                let line = |end, verdict| Line { id, end, member: verdict == Verdict::Member };
                self.with(to, |p, env| p.connected(env, one, line(1, seen), seen_as, &dial.address));
                self.with(from, |p, env| p.connected(env, two, line(0, sees), seen_as, &dial.address));
                Ok(())
            }
        }
    }

    /// Somebody without a mesh has dialled a member.
    fn intruded(&mut self, to: usize, key: PeerKey, seen: Verdict) -> Result<(), NoWay> {
        if seen == Verdict::Member {
            let host = self.hosts[to].machine.name.clone();
            self.cx.fact(Fact::Spoke { host, with: key });
            return Ok(());
        }
        Err(NoWay::NotAdmitted(false))
    }

    fn intrude(&mut self, host: usize, generation: u64) {
        let others: Vec<(PeerKey, Vec<String>)> = (0..self.hosts.len())
            .filter(|other| *other != host && self.hosts[*other].process.is_some())
            .map(|other| (self.hosts[other].machine.keys.key(), self.cx.net.addresses_of(other)))
            .collect();
        for (peer, addresses) in others {
            self.cx.dial((host, generation), peer, addresses);
        }
        let at = self.cx.now + ms(1_000);
        self.cx.wake(host, generation, at);
    }

    fn knock_again(&mut self, host: usize, generation: u64) {
        let Some(Joining { request, tries, by }) = &mut self.hosts[host].joining else { return };
        let (request, n) = (request.clone(), *tries);
        *tries += 1;
        // The inviter first, then whoever else a token names.
        let mut members = vec![*by];
        members.extend((0..self.hosts.len()).filter(|m| *m != host && self.hosts[*m].process.is_some()));
        let to = members[n % members.len()];
        if let Some(way) = self.cx.door_way(host, to)
            && self.cx.net.carries(host, to, &way)
        {
            let at = self.cx.now + 3 * self.cx.net.delay(way.latency, &mut self.cx.dice);
            let knock = Knock { from: (host, generation), to, request, answer: None };
            self.cx.queue.push(at, Event::Knock(Box::new(knock)));
        }
        let at = self.cx.now + ms(3_000);
        self.cx.wake(host, generation, at);
    }

    fn knock(&mut self, knock: Knock) {
        let (from, generation) = knock.from;
        if self.hosts[from].machine.generation != generation || self.hosts[from].joining.is_none() {
            return;
        }
        match knock.answer.clone() {
            None => {
                let to = knock.to;
                self.with(to, |p, env| p.knocked(env, knock));
            }
            Some(Ok(joined)) => {
                self.hosts[from].joining = None;
                self.hosts[from].machine.enrol(folder_of(joined));
                self.start(from);
            }
            Some(Err(_)) => {} // another member, another time
        }
    }

    fn synced(&mut self, host: usize, generation: u64, written: u64) {
        let at = &mut self.hosts[host];
        if at.machine.generation != generation {
            return;
        }
        at.machine.syncing = false;
        at.machine.disk.synced(written);
        self.cx.record.commits += 1;
        self.cx.record.note(self.cx.now, host, 2, written, || "synced".to_owned());
        self.accepted(host, written);
        let at = &mut self.hosts[host];
        if let Some(held) = &mut at.suspended {
            held.push(Event::Synced(host, generation, written));
            return;
        }
        self.with(host, |p, env| p.synced(env, written));
    }

    /// A process starts, when the machine has power, a state folder, and none running.
    pub(super) fn start(&mut self, host: usize) {
        let at = &mut self.hosts[host];
        if at.process.is_some() || at.out || !self.cx.net.powered[host] || at.machine.disk.folder.is_none() {
            return;
        }
        at.machine.generation += 1;
        at.machine.syncing = false;
        at.machine.hearings.forget();
        self.cx.active.insert(host);
        self.forgetful |= !self.cx.net.all_home();
        let mut env = Env { m: &mut at.machine, cx: &mut self.cx };
        match Process::start(&mut env, self.timing) {
            Ok(process) => at.process = Some(Box::new(process)),
            // It stays away until somebody puts its store back, or puts it out.
            Err(NoStart::LedgerGone) => {}
            Err(NoStart::Broken(text)) => self.broken = Some(format!("{} does not start: {text}", at.machine.name)),
        }
    }

    /// The process ends, and the kernel closes its connections.
    pub(super) fn stop(&mut self, host: usize) {
        if self.hosts[host].process.take().is_none() {
            return;
        }
        self.hosts[host].suspended = None;
        let name = self.hosts[host].machine.name.clone();
        self.cx.fact(Fact::Stopped { host: name });
        let generation = self.hosts[host].machine.generation;
        self.hosts[host].machine.hearings.forget();
        self.hosts[host].machine.generation += 1;
        let mine = |(id, c): (&u64, &super::net::Connection)| {
            let end = c.ends.iter().position(|end| end.host == (host, generation) && end.open)?;
            Some((*id, end))
        };
        let mine: Vec<(u64, usize)> = self.cx.net.connections.iter().filter_map(mine).collect();
        for (id, end) in mine {
            self.cx.close(id, end);
        }
        self.hosts[host].machine.disk.settle();
    }
}

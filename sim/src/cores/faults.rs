//! What a scenario does to a fleet of this tier, and how all harm is ended.

use super::execute::spec_of;
use super::host::Process;
use super::net;
use super::raft::{Payload, Store};
use super::stage::{Cores, Host};
use super::submit::Asker;
use crate::action::{Action, LEADER, Task};
use crate::invariants::Fact;
use mesh::identity::PeerKey;
use mesh::ledger::{Cancel, Command, Entry, RequestId, Retry, Revoke, State, Submit};
use mesh::placement::heir;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long an owner's request waits for the ledger.
const WITHIN: Duration = Duration::from_secs(30);

/// How often owners look after a healed mesh, in microseconds.
const TEND_EVERY: u64 = 5_000_000;
/// How long an owner waits for what a start of a host has brought, in microseconds.
const RESTART_EVERY: u64 = 15_000_000;

pub(super) type Done = Result<(), String>;

pub(super) fn check(sensible: bool, why: &str) -> Done {
    if sensible { Ok(()) } else { Err(why.to_owned()) }
}

/// The sets of voters that count for a host, by its log, and the one that it proposes, or will when it goes on.
fn sets_of(host: &Host) -> Vec<BTreeSet<PeerKey>> {
    let log = &host.machine.disk.store.log;
    let newest = log.iter().rev().find_map(|item| match &item.payload {
        Payload::Members(members) => Some(members.joint.clone()),
        Payload::Blank | Payload::Batch(_) => None,
    });
    let mut sets: Vec<BTreeSet<PeerKey>> = newest.into_iter().flatten().collect();
    if let Some(process) = &host.process {
        sets.extend(process.raft.members().joint);
        sets.push(process.ledger.voters().voters().clone());
        let heir = process.retiring.and_then(|_| heir(&process.ledger, &process.view, &process.me));
        sets.extend(heir.map(|heir| BTreeSet::from([heir])));
    }
    let epoch = host.process.as_ref().map_or(0, |process| process.ledger.voters().epoch());
    sets.extend(host.machine.proposed.iter().filter(|(at, _)| *at > epoch).map(|(_, set)| set.clone()));
    sets
}

impl Cores {
    pub(super) fn host(&self, name: &str) -> Result<usize, String> {
        if name == LEADER {
            let leads = |host: &usize| {
                let at = &self.hosts[*host];
                at.process.as_ref().and_then(|p| p.grant(&at.machine.clock, self.cx.now)).is_some()
            };
            return (0..self.hosts.len()).find(leads).ok_or_else(|| "nobody leads".to_owned());
        }
        self.cx.net.number(name).ok_or_else(|| format!("no host is called {name}"))
    }

    pub(super) fn running(&self, name: &str) -> Result<usize, String> {
        let host = self.host(name)?;
        check(self.hosts[host].process.is_some() && self.hosts[host].suspended.is_none(), "does not run")?;
        Ok(host)
    }

    fn down(&self, name: &str) -> Result<usize, String> {
        let host = self.host(name)?;
        check(self.hosts[host].process.is_none() && self.hosts[host].joining.is_none(), "runs")?;
        Ok(host)
    }

    /// Does it, or says why it makes no sense now.
    pub(super) fn perform(&mut self, action: &Action) -> Done {
        match action {
            Action::Submit { host, request, tasks } => self.submit_tasks(host, *request, tasks),
            Action::Cancel { host, task } => self.cancel_task(host, task),
            Action::Retry { host, task } => self.retry_task(host, task),
            Action::Join { host, by } => {
                let (host, by) = (self.down(host)?, self.running(by)?);
                check(!self.hosts[host].stranger && self.hosts[host].copy_of.is_none(), "is a stranger or a copy")?;
                self.invite(host, by)
            }
            Action::Evict { host, by } => {
                let out = self.host(host)?;
                self.running(by)?;
                self.may_go(out)?;
                self.revoke(host, by, "evicted")?;
                self.hosts[out].asked_out = true;
                Ok(())
            }
            Action::Leave { host } => {
                let host = self.running(host)?;
                self.may_go(host)?;
                self.with(host, |p, env| p.leave(env)).ok_or("does not run")??;
                self.hosts[host].asked_out = true;
                Ok(())
            }
            Action::Stranger { host } => self.let_stranger(host),
            Action::Forge { host, what } => self.forge(host, *what),
            Action::Order { host, restart } => {
                let (host, leader) = (self.host(host)?, self.host(LEADER)?);
                let peer = self.hosts[host].machine.keys.key();
                self.with(leader, |p, env| p.order_by_hand(env, peer, !restart)).ok_or("nobody leads")?
            }
            Action::ReplayLate { host } => self.replay_late(host),
            Action::Crash { host } => {
                let host = self.host(host)?;
                check(self.hosts[host].process.is_some(), "does not run")?;
                self.stop(host);
                Ok(())
            }
            Action::Start { host } => {
                let host = self.down(host)?;
                let able = self.hosts[host].machine.disk.folder.is_some() && !self.hosts[host].out;
                check(able && self.cx.net.powered[host], "is not enrolled, or has no power")?;
                self.start(host);
                Ok(())
            }
            Action::PowerCut { host } => self.power_cut(host),
            Action::PowerOn { host } => {
                let host = self.host(host)?;
                check(!self.cx.net.powered[host], "has power")?;
                self.power_on(host);
                Ok(())
            }
            Action::Suspend { host } => {
                let host = self.running(host)?;
                self.hosts[host].suspended = Some(vec![]);
                Ok(())
            }
            Action::Resume { host } => {
                let host = self.host(host)?;
                self.resume(host)
            }
            Action::SlowSync { host, ms } => {
                let host = self.host(host)?;
                self.hosts[host].machine.disk.slow_ms = *ms;
                Ok(())
            }
            Action::LyingSync { host, on } => {
                let host = self.host(host)?;
                check(!*on || !self.votes(host), "votes: a voter's disk must not lie")?;
                self.hosts[host].machine.disk.lies = *on;
                Ok(())
            }
            Action::EmptyDisk { host } => {
                let host = self.down(host)?;
                check(self.hosts[host].machine.disk.start > 0, "has never run")?;
                check(self.can_spare(host, true), "votes, and too few other voters have a store, or stay")?;
                let disk = &mut self.hosts[host].machine.disk;
                disk.settle();
                (disk.store, disk.made) = (Store::default(), false);
                self.wiped(host);
                self.start(host);
                Ok(())
            }
            Action::Backup { host } => {
                let host = self.host(host)?;
                let key = self.hosts[host].machine.keys.key();
                let alone = sets_of(&self.hosts[host]).contains(&BTreeSet::from([key]));
                let m = &mut self.hosts[host].machine;
                check(m.disk.folder.is_some(), "is not enrolled")?;
                check(!alone, "is the only voter: brought back later it would lead by itself")?;
                let mut copy = m.disk.clone();
                copy.settle();
                m.backup = Some(copy);
                Ok(())
            }
            Action::Restore { host } => {
                let host = self.down(host)?;
                check(!self.votes(host), "votes: a voter must not go back")?;
                let m = &mut self.hosts[host].machine;
                m.disk = m.backup.clone().ok_or("has no backup")?;
                self.wiped(host);
                Ok(())
            }
            Action::Clone { host } => {
                let host = self.host(host)?;
                let at = &self.hosts[host];
                check(at.machine.disk.folder.is_some() && at.copy_of.is_none() && !at.out, "is not enrolled")?;
                let twin = self.hosts.iter().any(|h| h.copy_of == Some(host) && h.process.is_some());
                check(!twin, "has a copy already")?;
                // Its copy would promise what it does not know of, and each lead with it: a limit that the README states.
                check(!self.votes(host), "votes: a voter must not be two")?;
                // Beside nobody it would be the host itself, may come to vote, and the original go back behind it.
                check(self.hosts[host].process.is_some(), "does not run: its copy would be the host itself")?;
                let copy = self.add_copy(host).ok_or("its network is full")?;
                self.start(copy);
                Ok(())
            }
            Action::Unclone { host } => {
                let host = self.host(host)?;
                let copy = self.hosts.iter().position(|h| h.copy_of == Some(host) && h.process.is_some());
                self.retire(copy.ok_or("has no copy")?);
                Ok(())
            }
            Action::ClockRate { host, ppm } => {
                let host = self.host(host)?;
                self.hosts[host].machine.clock.set_rate(self.cx.now, *ppm);
                self.rewake(host);
                Ok(())
            }
            Action::ClockJump { host, ms } => {
                let host = self.host(host)?;
                self.hosts[host].machine.clock.wall_ms += ms;
                Ok(())
            }
            Action::Cut { from, to } => {
                let pair = (self.host(from)?, self.host(to)?);
                check(pair.0 != pair.1 && self.cx.net.cuts.insert(pair), "is cut")
            }
            Action::Mend { from, to } => {
                let pair = (self.host(from)?, self.host(to)?);
                check(self.cx.net.cuts.remove(&pair), "is not cut")
            }
            Action::Loss { percent } => {
                self.cx.net.loss = (*percent).min(50);
                Ok(())
            }
            Action::ForgetMasquerade { router } => {
                let router = self.host(router)?;
                let routed = |c: &&net::Connection| c.way.masqueraded && c.way.routers.contains(&router);
                let ends = |c: &net::Connection| (c.ends[0].host.0, c.ends[1].host.0);
                let through: Vec<(usize, usize)> = self.cx.net.connections.values().filter(routed).map(ends).collect();
                check(!through.is_empty(), "no connection goes through it")?;
                for (one, two) in through {
                    (self.hosts[one].harmed, self.hosts[two].harmed) = (self.cx.now, self.cx.now);
                }
                self.cx.net.forget(router);
                Ok(())
            }
            Action::Network { network, up } => {
                check(self.cx.net.fleet.networks.contains_key(network), "there is no such network")?;
                let changed =
                    if *up { self.cx.net.down.remove(network) } else { self.cx.net.down.insert(network.clone()) };
                check(changed, "is so already")
            }
            Action::TakeAddress { host, of } => {
                let (host, of) = (self.down(host)?, self.down(of)?);
                check(host != of, "is the same host")?;
                self.movable(host).and(self.movable(of))?;
                self.swap(host, of);
                self.start(host);
                Ok(())
            }
            Action::SwapAddresses { a, b } => {
                let (a, b) = (self.host(a)?, self.host(b)?);
                check(a != b, "is the same host")?;
                self.movable(a).and(self.movable(b))?;
                self.swap(a, b);
                Ok(())
            }
        }
    }

    fn submit_tasks(&mut self, host: &str, request: u64, tasks: &[Task]) -> Done {
        let host = self.running(host)?;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&request.to_le_bytes());
        id[8] = 1; // not of the ids that processes draw
        let specs = tasks.iter().map(spec_of).collect();
        let names = tasks.iter().map(|task| task.name.clone()).collect();
        self.with(host, |p, env| {
            env.cx.fact(Fact::Asked { key: p.me, request, names });
            let entry = Entry::seal(&env.m.keys, p.mesh, RequestId(id), None, Command::Submit(Submit { specs }));
            p.submit(env, entry, WITHIN, Asker::Client(request));
            p.settle(env);
        });
        Ok(())
    }

    fn cancel_task(&mut self, host: &str, task: &str) -> Done {
        let host = self.running(host)?;
        let found = self.with(host, |p, env| {
            let open = |b: &&mesh::ledger::Build| b.spec.name == task && !b.state.is_final();
            let builds: Vec<_> = p.ledger.builds().iter().filter(open).map(|b| b.id).collect();
            let found = !builds.is_empty();
            if found {
                let command = Command::Cancel(Cancel { builds, reason: "its owner changed his mind".into() });
                p.ask(env, command, WITHIN, Asker::Nobody);
                p.settle(env);
            }
            found
        });
        check(found == Some(true), "no such build is open")
    }

    fn retry_task(&mut self, host: &str, task: &str) -> Done {
        let host = self.running(host)?;
        let asked = self.with(host, |p, env| {
            let gone = |b: &&mesh::ledger::Build| matches!(b.state, State::Failed | State::Cancelled);
            let newest = p.ledger.builds().iter().rfind(|b| b.spec.name == task).filter(gone)?.id;
            // Whoever has it built again is whose it is then.
            env.cx.fact(Fact::Asked { key: p.me, request: 0, names: vec![task.to_owned()] });
            p.ask(env, Command::Retry(Retry { build: newest }), WITHIN, Asker::Nobody);
            p.settle(env);
            Some(())
        });
        check(asked.flatten().is_some(), "its newest build has not failed")
    }

    fn revoke(&mut self, host: &str, by: &str, reason: &str) -> Done {
        let (host, by) = (self.host(host)?, self.running(by)?);
        let peer = self.hosts[host].machine.keys.key();
        let asked = self.with(by, |p, env| {
            let roster = p.ledger.roster();
            let needed = p.is_needed(&peer);
            if needed || !roster.is_member(&peer) || roster.len() < 2 || (p.me != peer && !roster.member(&p.me)?.signer)
            {
                return None;
            }
            p.ask(env, Command::Revoke(Revoke { peer, banned: false, reason: reason.into() }), WITHIN, Asker::Nobody);
            p.settle(env);
            Some(())
        });
        check(asked.flatten().is_some(), "is no member, or may not be taken out by that host")
    }

    fn let_stranger(&mut self, host: &str) -> Done {
        let host = self.down(host)?;
        let at = &mut self.hosts[host];
        check(at.machine.disk.folder.is_none() && at.copy_of.is_none() && !at.stranger, "is or was enrolled")?;
        at.stranger = true;
        let generation = at.machine.generation;
        self.cx.wake(host, generation, self.cx.now + 1);
        Ok(())
    }

    fn power_cut(&mut self, host: &str) -> Done {
        let host = self.host(host)?;
        check(self.cx.net.powered[host], "has no power")?;
        self.cx.net.powered[host] = false;
        self.hosts[host].machine.hearings.forget();
        if self.hosts[host].machine.disk.lies && self.votes(host) {
            self.hosts[host].machine.disk.settle(); // it became a voter since it began to lie: it has flushed in time
        }
        let unsynced = self.hosts[host].machine.disk.unsynced() as u64;
        let kept = self.cx.dice.below(unsynced + 1) as usize;
        let wiped = self.hosts[host].machine.disk.cut(kept);
        self.stop(host);
        if wiped {
            self.wiped(host);
        }
        Ok(())
    }

    fn power_on(&mut self, host: usize) {
        self.cx.net.powered[host] = true;
        self.hosts[host].machine.boots += 1;
        self.start(host);
    }

    fn resume(&mut self, host: usize) -> Done {
        let held = self.hosts[host].suspended.take().ok_or("is not suspended")?;
        self.hosts[host].harmed = self.cx.now;
        for event in held {
            self.cx.queue.push(self.cx.now, event);
        }
        Ok(())
    }

    /// All sets of voters that count for some host, by its log.
    fn voter_sets(&self) -> Vec<BTreeSet<PeerKey>> {
        let mut sets = vec![];
        for host in self.hosts.iter().filter(|h| h.copy_of.is_none() && !h.out) {
            sets.extend(sets_of(host));
        }
        sets
    }

    /// Whether any host counts it among the voters.
    fn votes(&self, host: usize) -> bool {
        let key = self.hosts[host].machine.keys.key();
        self.voter_sets().iter().any(|set| set.contains(&key))
    }

    /// Whether a majority of every set of voters keeps its store without this host, and is not on its way out: else
    /// only recovery helps.
    fn can_spare(&self, host: usize, leavers_count: bool) -> bool {
        let key = self.hosts[host].machine.keys.key();
        let stays = |h: &super::stage::Host| !(h.out || leavers_count && h.asked_out);
        let whole = |h: &&super::stage::Host| h.machine.number != host && h.machine.disk.made && stays(h);
        let others: BTreeSet<PeerKey> =
            self.hosts.iter().filter(|h| h.copy_of.is_none()).filter(whole).map(|h| h.machine.keys.key()).collect();
        let spares = |set: &BTreeSet<PeerKey>| !set.contains(&key) || set.intersection(&others).count() > set.len() / 2;
        self.voter_sets().iter().all(spares)
    }

    /// Whether the mesh may lose this host by an owner's word: not the last but one that keeps a voter's store. That
    /// another has lost its own takes seconds to be seen by who could refuse.
    fn may_go(&self, host: usize) -> Done {
        let lost = self.hosts.iter().any(|h| h.machine.disk.start > 0 && !h.machine.disk.made);
        check(!lost || self.can_spare(host, false), "votes, and another voter has lost its store")
    }

    /// What owners do: hosts that nobody can find are told where the others are; in a healed mesh, who cannot start because its ledger is gone is put out, and whose key was alive
    /// twice is started anew, until its start is above its copy's.
    pub(super) fn tend(&mut self) {
        if !self.cx.now.is_multiple_of(TEND_EVERY) {
            return;
        }
        self.help_the_lost();
        if !self.healed {
            return;
        }
        let gone = |h: &&super::stage::Host| h.process.is_none() && h.machine.disk.start > 0 && !h.machine.disk.made;
        let gone: Vec<String> = self.hosts.iter().filter(gone).map(|h| h.machine.name.to_string()).collect();
        for host in gone {
            let _ = self.revoke(&host, LEADER, "its ledger is gone"); // when somebody leads and has enrolled it
        }
        let running = || self.hosts.iter().filter_map(|h| h.process.as_ref());
        let cloned =
            |p: &Process| p.members.hosts().filter(|(_, h)| h.cloned).map(|(peer, _)| *peer).collect::<Vec<_>>();
        let held: BTreeSet<PeerKey> = running().flat_map(|p| cloned(p)).collect();
        let now = self.cx.now;
        let due = |h: &&super::stage::Host| h.process.is_some() && now >= h.restarted + RESTART_EVERY;
        let held = |h: &&super::stage::Host| held.contains(&h.machine.keys.key());
        let held: Vec<usize> = self.hosts.iter().filter(held).filter(due).map(|h| h.machine.number).collect();
        for host in held {
            (self.hosts[host].restarted, self.hosts[host].harmed) = (now, now);
            self.stop(host);
            self.start(host);
        }
    }

    /// What was on a disk is not to be asked for any more.
    fn wiped(&mut self, host: usize) {
        let host = self.hosts[host].machine.name.clone();
        self.cx.fact(Fact::Wiped { host });
    }

    /// A copy is switched off for good. One that has come to vote, of which its original knows nothing, has promised
    /// what the other would not keep: then its owner keeps this one, in the original's place.
    fn retire(&mut self, copy: usize) {
        self.cx.net.powered[copy] = false;
        let of = self.hosts[copy].copy_of;
        self.stop(copy);
        self.hosts[copy].out = true;
        let Some(of) = of else { return };
        self.hosts[of].harmed = self.cx.now;
        let key = self.hosts[of].machine.keys.key();
        let votes = |host: usize| sets_of(&self.hosts[host]).iter().any(|set| set.contains(&key));
        if votes(copy) && !votes(of) {
            self.take_over(of, copy);
        }
    }

    fn take_over(&mut self, of: usize, copy: usize) {
        let ran = self.hosts[of].process.is_some();
        self.stop(of);
        let mut disk = self.hosts[copy].machine.disk.clone();
        let before = &mut self.hosts[of].machine.disk;
        (disk.slow_ms, disk.lies, disk.start) = (before.slow_ms, before.lies, disk.start.max(before.start));
        *before = disk;
        self.wiped(of);
        if ran {
            self.start(of);
        }
    }

    /// Timers of a host are due at other times now.
    fn rewake(&mut self, host: usize) {
        let generation = self.hosts[host].machine.generation;
        self.cx.wake(host, generation, self.cx.now + 1);
    }

    /// Addresses are moved by DHCP: those of routers and of what shares another's stay.
    fn movable(&self, host: usize) -> Done {
        let at = &self.cx.net.fleet.hosts[host];
        let routes = self.cx.net.fleet.masquerades.iter().any(|m| m.router == at.name)
            || self.cx.net.fleet.routes.iter().any(|r| r.router == at.name)
            || self.cx.net.fleet.forwards.iter().any(|f| f.router == at.name || f.to == at.name);
        check(!routes && at.shares.is_none() && self.hosts[host].copy_of.is_none(), "is not given its address by DHCP")
    }

    fn swap(&mut self, a: usize, b: usize) {
        let hosts = &mut self.cx.net.fleet.hosts;
        let networks: Vec<String> =
            hosts[a].addresses.keys().filter(|network| hosts[b].addresses.contains_key(*network)).cloned().collect();
        for network in networks {
            let (one, two) = (hosts[a].addresses[&network], hosts[b].addresses[&network]);
            hosts[a].addresses.insert(network.clone(), two);
            hosts[b].addresses.insert(network, one);
        }
        self.cx.net.moved();
        for host in [a, b] {
            self.rehouse(host);
        }
    }

    /// A host has another address than before.
    fn rehouse(&mut self, host: usize) {
        self.cx.net.unroot(host);
        self.hosts[host].harmed = self.cx.now;
        self.with(host, |p, env| {
            p.listen(env);
            p.settle(env);
        });
    }

    /// Ends every fault that can end.
    pub(super) fn mend_all(&mut self) {
        self.healed = true;
        self.cx.net.loss = 0;
        self.cx.net.cuts.clear();
        self.cx.net.down.clear();
        // What is kept over a restart is where the others were: hosts that have moved, and have all been started anew
        // since, would wait for ever. Who has run all the time finds the others where they are now.
        let runs = |host: usize| self.hosts[host].process.is_some() || self.hosts[host].machine.disk.folder.is_none();
        if self.forgetful || !(0..self.hosts.len()).all(runs) {
            for host in self.cx.net.go_home() {
                self.rehouse(host);
            }
        }
        // Copies first: one that is kept in its original's place starts with the others.
        for host in 0..self.hosts.len() {
            if self.hosts[host].copy_of.is_some() && !self.hosts[host].out {
                self.retire(host);
            }
        }
        for host in 0..self.hosts.len() {
            if self.hosts[host].copy_of.is_some() {
                continue;
            }
            let now = self.cx.now;
            let at = &mut self.hosts[host];
            at.stranger = false;
            at.machine.clock.set_rate(now, 0);
            at.machine.clock.wall_ms = 0;
            at.machine.disk.slow_ms = 0;
            at.machine.disk.lies = false;
            let _ = self.resume(host); // when it is suspended
            self.with(host, |p, env| p.listen(env)); // no lie about addresses lasts
            if !self.cx.net.powered[host] {
                self.power_on(host);
            }
            self.start(host);
            self.rewake(host);
        }
    }
}

//! What actions mean to whole nodes, which faults stand, and how all of them end.
//!
//! A disk that lies, and a backup that is put back, are for hosts that do not vote: a voter that forgets what it
//! synced may vote twice in one term, and Raft promises nothing then (Ongaro, 2014, 3.8). A voter whose
//! store is gone altogether is another matter: it must not start, and does not.

use super::program::{Entrance, Folder};
use super::stage::NodesStage;
use super::{Addresses, Station};
use crate::action::Action;
use crate::invariants::{Fact, Jury};
use crate::stage::Stage;
use crate::transport::to_multiaddr;
use mesh::ledger::State;
use node::blobs::memory::MemoryBlobs;
use node::driver::Known;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// What a copy's machine is called, after the name of the first.
const COPY: &str = "-copy";
/// A wall clock that is off by more is wrong.
const WALL_FIT_MS: u64 = 1_000;
/// Of a hundred packets so many may be lost, and verdicts are right all the same. Of more nothing is promised.
const LOSS_PROMISED: u32 = 25;

/// The whole state of a host.
struct Backup {
    folder: Folder,
    disk: crate::disk::Whole,
    blobs: MemoryBlobs,
}

/// Faults that stand, beside those that network and hosts know themselves.
#[derive(Default)]
pub struct Standing {
    /// Hosts without power.
    off: BTreeSet<String>,
    /// Hosts whose program was killed.
    crashed: BTreeSet<String>,
    /// Hosts whose store may be such that a node must not start on it.
    spoilt: BTreeSet<String>,
    /// Hosts whose node does not start, rightly: somebody has to come.
    pub(super) broken: BTreeSet<String>,
    backups: BTreeMap<String, Backup>,
    /// Machines that run a copy of another host's folder.
    copies: BTreeSet<String>,
    /// Copies that were switched off for good.
    retired: BTreeSet<String>,
    pub(super) healed: bool,
    pub(super) restarted: BTreeMap<String, Duration>,
}

impl Standing {
    /// Whether a node may refuse to start on this host.
    pub fn may_refuse(&self, name: &str) -> bool {
        self.spoilt.contains(name)
    }

    /// A node has refused to start on this host, or has stopped by itself.
    pub fn ended(&mut self, name: &str, refused: bool) {
        if refused {
            self.broken.insert(name.to_owned());
        }
    }

    /// Whether a node rightly refuses to start on this host.
    pub fn is_broken(&self, name: &str) -> bool {
        self.broken.contains(name)
    }
}

fn skip<T>(why: impl Into<String>) -> Result<T, String> {
    Err(why.into())
}

impl Station {
    /// Whether a node runs here.
    pub(super) fn runs(&self) -> bool {
        self.desk.node.borrow().strong_count() > 0
    }

    /// Whether its mesh is another than the plan's.
    pub(super) fn intrudes(&self) -> bool {
        matches!(*self.desk.entrance.borrow(), Entrance::Intrudes(_))
    }
}

impl NodesStage {
    pub(super) fn intrudes(&self, name: &str) -> bool {
        self.station(name).is_some_and(Station::intrudes)
    }

    /// A host whose process runs.
    pub(super) fn up(&self, name: &str) -> Result<String, String> {
        let name = self.named(name)?;
        match self.runs(&name) {
            true => Ok(name),
            false => skip(format!("{name} does not run")),
        }
    }

    /// A host that is down, by a crash or without power.
    fn down(&self, name: &str) -> Result<String, String> {
        let name = self.named(name)?;
        match self.faults.crashed.contains(&name) || self.faults.off.contains(&name) {
            true => Ok(name),
            false => skip(format!("{name} is not down")),
        }
    }

    /// Starts what is down, by its reason. A host whose address is another's by now is given a new one.
    pub(super) fn start(&mut self, name: &str) {
        if self.nodes.network.addresses(name).is_empty()
            && let Some(host) = self.fleet.host(name)
        {
            self.nodes.network.give_spare(name, host.addresses.keys());
        }
        if self.faults.off.remove(name) {
            self.nodes.power_on(name);
        } else if self.faults.crashed.remove(name) {
            self.nodes.restart(name);
        }
    }

    pub(super) fn crash(&mut self, name: &str) {
        self.nodes.crash(name);
        self.clients.gone(name);
        self.faults.crashed.insert(name.to_owned());
    }

    pub(super) fn cut_power(&mut self, name: &str) {
        if let Some(station) = self.station(name)
            && (self.votes(name) || self.may_inherit())
        {
            // It may have become a voter since it began to lie, or be about to: then it has flushed in time.
            let lies = station.host.disk().lies();
            station.host.disk().lie(false);
            station.host.disk().lie(lies);
        }
        self.faults.crashed.remove(name);
        self.nodes.power_cut(name);
        self.clients.gone(name);
        self.faults.off.insert(name.to_owned());
    }

    pub(super) fn perform(&mut self, action: &Action, jury: &mut Jury) -> Result<(), String> {
        match action {
            Action::Submit { host, request, tasks } => {
                let host = self.up(host)?;
                self.submit(&host, *request, tasks);
            }
            Action::Cancel { host, task } => {
                let host = self.up(host)?;
                let Some(build) = self.build_of(task) else { return skip(format!("{task} was not accepted")) };
                drop(self.nodes.ask(&host, move |node| async move {
                    node::api::Control::cancel(&*node, vec![build]).await.map_err(|error| error.message)
                }));
            }
            Action::Retry { host, task } => {
                let host = self.up(host)?;
                let newest = self.nodes.ledger(&host, |l| {
                    let gone = |b: &&mesh::ledger::Build| matches!(b.state, State::Failed | State::Cancelled);
                    l.builds().iter().rfind(|b| b.spec.name == *task).filter(gone).map(|b| b.id)
                });
                let Some(build) = newest.flatten() else { return skip(format!("{task} has not failed")) };
                if let Some(key) = self.key(&host) {
                    self.eyes.untold.push(Fact::Asked { key, request: 0, names: vec![task.clone()] });
                }
                drop(self.nodes.ask(&host, move |node| async move {
                    node::api::Control::retry(&*node, build).await.map_err(|error| error.message)
                }));
            }
            Action::Join { host, by } => {
                let by = self.up(by)?;
                if self.station(host).is_some() {
                    return skip(format!("{host} has been a member"));
                }
                self.settle(host, Entrance::Joins)?;
                self.admit(host, &by);
            }
            Action::Evict { host, by } => {
                let (host, by) = (self.named(host)?, self.up(by)?);
                if host == by || !self.members.contains(&host) {
                    return skip(format!("{host} cannot be evicted by {by}"));
                }
                if self.is_short_of_voters() && self.is_needed(&host) {
                    return skip(format!("without {host} there would never be a majority again"));
                }
                self.note_going(&host);
                self.evict(&host, &by);
            }
            Action::Leave { host } => {
                let host = self.up(host)?;
                if self.is_short_of_voters() && self.is_needed(&host) {
                    return skip(format!("without {host} there would never be a majority again"));
                }
                self.note_going(&host);
                drop(self.nodes.ask(&host, |node| async move {
                    node::api::Control::leave(&*node).await.map_err(|error| error.message)
                }));
            }
            Action::Stranger { host } => {
                if self.station(host).is_some() {
                    return skip(format!("{host} is no stranger"));
                }
                let known = self.members.iter().filter_map(|name| self.known(name)).collect();
                self.settle(host, Entrance::Intrudes(known))?;
            }
            Action::Forge { host, what } => {
                let host = self.up(host)?;
                self.forge(&host, *what)?;
            }
            Action::Crash { host } => {
                let host = self.up(host)?;
                self.crash(&host);
            }
            Action::Start { host } => {
                let host = self.named(host)?;
                if !self.faults.crashed.contains(&host) {
                    return skip(format!("{host} did not crash"));
                }
                self.start(&host);
            }
            Action::PowerCut { host } => {
                let host = self.named(host)?;
                if self.faults.off.contains(&host) || self.faults.broken.contains(&host) {
                    return skip(format!("{host} has no power, or does not start"));
                }
                self.cut_power(&host);
            }
            Action::PowerOn { host } => {
                let host = self.named(host)?;
                if !self.faults.off.contains(&host) {
                    return skip(format!("{host} has power"));
                }
                self.start(&host);
            }
            Action::Suspend { host } => {
                let host = self.up(host)?;
                self.stand_still(&host, true)?;
            }
            Action::Resume { host } => {
                let host = self.up(host)?;
                self.stand_still(&host, false)?;
            }
            Action::SlowSync { host, ms } => {
                let host = self.named(host)?;
                self.fault(&host, &format!("syncs take {ms} ms"));
                self.clocks(&host)?.set_sync(Duration::from_millis(*ms));
            }
            Action::LyingSync { host, on } => self.lie(host, *on)?,
            Action::EmptyDisk { host } => {
                let host = self.down(host)?;
                if self.is_needed(&host) {
                    return skip(format!("without {host} there would never be a majority again"));
                }
                self.fault(&host, "its store is gone");
                self.note_emptied(&host);
                self.wiped(&host, jury)?;
                if let Some(station) = self.station(&host) {
                    station.host.disk().replace(vec![]);
                }
                self.faults.spoilt.insert(host.clone());
                self.start(&host);
            }
            Action::Backup { host } => {
                let host = self.named(host)?;
                if self.votes_alone(&host) {
                    return skip(format!("{host} is the only voter: brought back later it would lead by itself"));
                }
                let Some(station) = self.station(&host) else { return skip("gone") };
                let backup = Backup {
                    folder: station.desk.folder.borrow().clone(),
                    disk: station.host.disk().copy_whole(),
                    blobs: station.blobs.copy(),
                };
                self.faults.backups.insert(host, backup);
            }
            Action::Restore { host } => self.restore(host, jury)?,
            Action::Clone { host } => self.copy(host)?,
            Action::Unclone { host } => {
                let copy = format!("{}{COPY}", self.named(host)?);
                if !self.faults.copies.remove(&copy) {
                    return skip(format!("{host} has no copy"));
                }
                self.retire(copy, jury)?;
            }
            Action::ClockRate { host, ppm } => {
                let (host, now) = (self.named(host)?, self.elapsed());
                self.fault(&host, &format!("its clocks run {ppm} ppm fast"));
                self.clocks(&host)?.set_rate(*ppm, now);
            }
            Action::ClockJump { host, ms } => {
                let host = self.named(host)?;
                self.fault(&host, &format!("its wall clock jumps by {ms} ms"));
                self.clocks(&host)?.jump(*ms);
            }
            Action::Cut { from, to } | Action::Mend { from, to } => {
                let cut = matches!(action, Action::Cut { .. });
                let (from, to) = (self.named(from)?, self.named(to)?);
                if from == to || self.nodes.network.is_cut(&from, &to) == cut {
                    return skip(format!("{from} to {to} is so already"));
                }
                self.nodes.network.set_cut(&from, &to, cut);
            }
            Action::Loss { percent } => self.nodes.network.set_loss(*percent),
            Action::ForgetMasquerade { router } => {
                if !self.nodes.network.forget(router) {
                    return skip(format!("{router} is no router"));
                }
                self.disturb_all();
            }
            Action::Network { network, up } => {
                if !self.nodes.network.set_up(network, *up) {
                    return skip(format!("{network} is so already, or there is none"));
                }
                self.disturb_all();
            }
            Action::TakeAddress { host, of } => self.take_address(host, of)?,
            Action::SwapAddresses { a, b } => {
                let (a, b) = (self.named(a)?, self.named(b)?);
                if a == b || !self.nodes.network.is_leased(&a) || !self.nodes.network.is_leased(&b) {
                    return skip(
                        "one host has one address; a router's is not given by DHCP, and a container's is its host's",
                    );
                }
                self.nodes.network.take_addresses(&a, &b, true);
                self.disturb_all();
            }
            Action::ReplayLate { host } => {
                let host = self.named(host)?;
                self.replay_late(&host)?;
            }
            Action::Order { host, restart } => {
                let (host, by) = (self.named(host)?, self.up(crate::action::LEADER)?);
                self.order_by_hand(&by, &host, *restart);
            }
        }
        Ok(())
    }

    pub(super) fn fault(&self, host: &str, what: &str) {
        self.nodes.trace.record(host, crate::trace::Event::Fault(what));
    }

    fn clocks(&self, name: &str) -> Result<&crate::current::Current, String> {
        self.station(name).map(|s| s.host.current()).ok_or_else(|| format!("{name} is nowhere"))
    }

    fn stand_still(&mut self, name: &str, still: bool) -> Result<(), String> {
        if self.clocks(name)?.stands() == still {
            return skip(format!("{name} is so already"));
        }
        self.fault(name, if still { "stands still" } else { "goes on" });
        self.clocks(name)?.stand_still(still);
        Ok(())
    }

    fn lie(&mut self, name: &str, on: bool) -> Result<(), String> {
        let name = self.named(name)?;
        if on && self.votes(&name) {
            return skip(format!("{name} votes: a voter's disk must not lie"));
        }
        let Some(station) = self.station(&name) else { return skip("gone") };
        if station.host.disk().lies() == on {
            return skip(format!("the disk of {name} is so already"));
        }
        station.host.disk().lie(on);
        self.fault(&name, if on { "its disk lies" } else { "its disk lies no more" });
        if on {
            self.faults.spoilt.insert(name);
        }
        Ok(())
    }

    fn wiped(&mut self, name: &str, jury: &mut Jury) -> Result<(), String> {
        let (at, host) = (self.elapsed(), self.eyes.name(name));
        self.failure = self.tell(jury, at, &Fact::Wiped { host }).err().or(self.failure.take());
        Ok(())
    }

    fn restore(&mut self, name: &str, jury: &mut Jury) -> Result<(), String> {
        let name = self.down(name)?;
        if self.votes(&name) {
            return skip(format!("{name} votes: a voter must not go back"));
        }
        let Some(backup) = self.faults.backups.remove(&name) else { return skip(format!("{name} has no backup")) };
        self.wiped(&name, jury)?;
        self.fault(&name, &format!("goes back to start {}", backup.folder.start));
        if let Some(station) = self.station(&name) {
            station.desk.folder.replace(backup.folder);
            station.host.disk().replace_whole(backup.disk);
            station.blobs.replace(&backup.blobs);
        }
        self.start(&name);
        Ok(())
    }

    /// A second machine with a copy of a host's disks, at addresses of its own.
    fn copy(&mut self, name: &str) -> Result<(), String> {
        let name = self.named(name)?;
        let copy = format!("{name}{COPY}");
        if self.station(&copy).is_some() || self.faults.copies.contains(&name) {
            return skip(format!("{name} was copied before"));
        }
        // Its copy would promise what it does not know of, and each lead with it: a limit that the README states.
        if self.votes(&name) {
            return skip(format!("{name} votes: a voter must not be two"));
        }
        // Beside nobody it would be the host itself, may come to vote, and the original go back behind it.
        if !self.runs(&name) {
            return skip(format!("{name} does not run: its copy would be the host itself"));
        }
        let Some(station) = self.station(&name) else { return skip("gone") };
        let folder = station.desk.folder.borrow().clone();
        if folder.member.is_none() {
            return skip(format!("{name} is in no mesh yet"));
        }
        let (disk, blobs, original) = (station.host.disk().copy_whole(), station.blobs.copy(), station.host.clone());
        let addresses: Addresses = self.nodes.network.spare_addresses(&name);
        self.nodes.place(&copy, 4, addresses, folder, Entrance::Joins);
        if let Some(station) = self.nodes.stations.get(&copy) {
            station.host.disk().replace_whole(disk);
            station.host.copy_notes(&original);
            station.blobs.replace(&blobs);
        }
        self.nodes.install(&copy);
        if self.faults.may_refuse(&name) {
            self.faults.spoilt.insert(copy.clone()); // what is gone here is gone there
        }
        self.faults.copies.insert(copy);
        Ok(())
    }

    /// A copy is switched off for good. One that has come to vote, of which its original knows nothing, has promised
    /// what the other would not keep: then its owner keeps this one, in the original's place. Who does not start is put out.
    fn retire(&mut self, copy: String, jury: &mut Jury) -> Result<(), String> {
        let name = copy.strip_suffix(COPY).unwrap_or(&copy).to_owned();
        let kept = self
            .station(&copy)
            .filter(|_| !self.faults.is_broken(&name) && self.came_to_vote(&copy, &name))
            .map(|station| Backup {
                folder: station.desk.folder.borrow().clone(),
                disk: station.host.disk().copy_whole(),
                blobs: station.blobs.copy(),
            });
        self.nodes.power_cut(&copy);
        self.faults.retired.insert(copy);
        let Some(kept) = kept else { return Ok(()) };
        let ran = self.runs(&name);
        if ran {
            self.crash(&name);
        }
        self.wiped(&name, jury)?;
        self.fault(&name, "its copy takes its place");
        if let Some(station) = self.station(&name) {
            let start = kept.folder.start.max(station.desk.folder.borrow().start);
            station.desk.folder.replace(Folder { start, ..kept.folder });
            station.host.disk().replace_whole(kept.disk);
            station.blobs.replace(&kept.blobs);
        }
        if ran {
            self.start(&name);
        }
        Ok(())
    }

    fn take_address(&mut self, name: &str, of: &str) -> Result<(), String> {
        let of = self.down(of)?;
        if name == of || !self.nodes.network.is_leased(name) || !self.nodes.network.is_leased(&of) {
            return skip("one host has one address; a router's is not given by DHCP, and a container's is its host's");
        }
        if self.station(name).is_none() {
            // A new host: somebody invites it.
            let by = self.leader().filter(|by| self.runs(by)).ok_or("nobody could invite it")?;
            self.settle(name, Entrance::Joins)?;
            self.admit(name, &by);
            self.nodes.network.take_addresses(name, &of, false);
        } else {
            let name = self.down(name)?;
            self.nodes.network.take_addresses(&name, &of, false);
            self.start(&name);
        }
        self.disturb_all();
        Ok(())
    }

    /// Whether a host waits for a token that nobody is about to send.
    pub(super) fn waits(&self, name: &str) -> bool {
        self.station(name).is_some_and(|s| s.desk.token.borrow().is_none())
    }

    pub(super) fn admit(&mut self, name: &str, by: &str) {
        self.members.insert(name.to_owned());
        let token = self.invite(by, name);
        if let Some(by) = self.key(by) {
            self.invited.insert(name.to_owned(), by);
        }
        self.joining.insert(name.to_owned(), token);
    }

    pub(super) fn evict(&mut self, name: &str, by: &str) {
        let host = name.to_owned();
        drop(self.nodes.ask(by, |node| async move {
            let reason = "the plan says so".to_owned();
            node::api::Control::evict(&*node, host, false, reason).await.map_err(|error| error.message)
        }));
    }

    /// A member as somebody from outside could know it.
    fn known(&self, name: &str) -> Option<Known> {
        let port = self.nodes.network.port(name);
        let at = |ip: Ipv4Addr| to_multiaddr(SocketAddr::new(IpAddr::V4(ip), port)).to_string();
        let addresses = self.nodes.network.addresses(name).into_iter().map(at).collect();
        Some(Known { peer: self.key(name)?, name: name.to_owned(), addresses })
    }

    /// Whether a host is well in itself, whatever its links are like.
    pub(super) fn is_well(&self, name: &str) -> bool {
        let Some(station) = self.station(name) else { return false };
        let (clocks, now) = (station.host.current(), self.elapsed());
        station.runs()
            && self.members.contains(name)
            && !clocks.stands()
            && !clocks.has_a_rate()
            && clocks.wall_error_ms(now).unsigned_abs() <= WALL_FIT_MS
            && clocks.sync().is_zero()
            && !station.host.disk().lies()
            && self.faults.copies.iter().all(|copy| copy != name && copy.strip_suffix(COPY) != Some(name))
    }

    /// The members that a host cannot talk with, or only one way, or over links of which nothing is promised; all of them
    /// while the mesh is in parts that know no way to each other.
    pub(super) fn cut_off(&self, name: &str) -> Vec<String> {
        let from_all = self.nodes.network.loss_percent() > LOSS_PROMISED || self.owners.have_lost_some();
        if !from_all && !self.nodes.network.is_harmed() {
            return vec![];
        }
        let others = self.members.iter().filter(|other| *other != name);
        others.filter(|other| from_all || self.nodes.network.is_severed(name, other)).cloned().collect()
    }

    /// Ends every fault that can end.
    pub(super) fn end_faults(&mut self, jury: &mut Jury) {
        self.faults.healed = true;
        let now = self.elapsed();
        self.nodes.network.set_loss(0);
        for network in self.nodes.network.down() {
            self.nodes.network.set_up(&network, true);
        }
        for (from, to) in self.nodes.network.cuts() {
            self.nodes.network.set_cut(&from, &to, false);
        }
        for copy in std::mem::take(&mut self.faults.copies) {
            let _ = self.retire(copy, jury); // what the jury says of it is kept
        }
        for station in self.nodes.stations.values() {
            let clocks = station.host.current();
            clocks.stand_still(false);
            clocks.set_sync(Duration::ZERO);
            clocks.set_rate(0, now);
            clocks.set_wall_right(now);
            station.host.disk().lie(false);
        }
        let down: Vec<String> = self.faults.crashed.union(&self.faults.off).cloned().collect();
        for name in down {
            self.start(&name);
        }
        self.nodes.network.point_forwards();
    }

    /// Ends the node on a host, and starts it.
    pub(super) fn start_anew(&mut self, name: &str) {
        self.crash(name);
        self.start(name);
    }
}

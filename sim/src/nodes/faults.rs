//! What actions mean to whole nodes, which faults stand, and how all of them end.

use super::Station;
use super::program::{Entrance, PORT};
use super::stage::NodesStage;
use crate::action::Action;
use crate::invariants::Jury;
use crate::stage::Stage;
use crate::transport::to_multiaddr;
use node::driver::Known;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

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
    broken: BTreeSet<String>,
}

impl Standing {
    /// Whether a node may refuse to start on this host.
    pub fn may_refuse(&self, name: &str) -> bool {
        self.spoilt.contains(name)
    }

    /// A node has refused to start on this host.
    pub fn is_broken_now(&mut self, name: &str) {
        self.broken.insert(name.to_owned());
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
}

impl NodesStage {
    fn up(&self, name: &str) -> Result<String, String> {
        let name = self.named(name)?;
        if self.faults.off.contains(&name) || self.faults.crashed.contains(&name) || !self.runs(&name) {
            return skip(format!("{name} does not run"));
        }
        Ok(name)
    }

    pub(super) fn perform(&mut self, action: &Action, _jury: &mut Jury) -> Result<(), String> {
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
            Action::Join { host, by } => {
                let by = self.up(by)?;
                if self.station(host).is_some() {
                    return skip(format!("{host} has been a member"));
                }
                self.settle(host, Entrance::Joins)?;
                self.members.insert(host.clone());
                let token = self.invite(&by, host);
                self.joining.insert(host.clone(), token);
            }
            Action::Stranger { host } => {
                if self.station(host).is_some() {
                    return skip(format!("{host} is no stranger"));
                }
                let known = self.members.iter().filter_map(|name| self.known(name)).collect();
                self.settle(host, Entrance::Intrudes(known))?;
            }
            Action::Crash { host } => {
                let host = self.up(host)?;
                self.nodes.crash(&host);
                self.clients.gone(&host);
                self.faults.crashed.insert(host);
            }
            Action::Start { host } => {
                let host = self.named(host)?;
                if !self.faults.crashed.remove(&host) {
                    return skip(format!("{host} did not crash"));
                }
                self.nodes.restart(&host);
            }
            Action::PowerCut { host } => {
                let host = self.named(host)?;
                if self.faults.off.contains(&host) {
                    return skip(format!("{host} has no power"));
                }
                self.faults.crashed.remove(&host);
                self.nodes.power_cut(&host);
                self.clients.gone(&host);
                self.faults.off.insert(host);
            }
            Action::PowerOn { host } => {
                let host = self.named(host)?;
                if !self.faults.off.remove(&host) {
                    return skip(format!("{host} has power"));
                }
                self.nodes.power_on(&host);
            }
            Action::Cut { from, to } | Action::Mend { from, to } => {
                let cut = matches!(action, Action::Cut { .. });
                let (from, to) = (self.named(from)?, self.named(to)?);
                if from == to || self.nodes.network.is_cut(&from, &to) == cut {
                    return skip(format!("{from} to {to} is so already"));
                }
                self.nodes.network.set_cut(&from, &to, cut);
            }
            other => return skip(format!("{} is not simulated with whole nodes", other.kind())),
        }
        Ok(())
    }

    /// A member as somebody from outside could know it.
    fn known(&self, name: &str) -> Option<Known> {
        let at = |ip| to_multiaddr(SocketAddr::new(IpAddr::V4(ip), PORT)).to_string();
        let addresses = self.nodes.network.addresses(name).into_iter().map(at).collect();
        Some(Known { peer: self.key(name)?, name: name.to_owned(), addresses })
    }

    /// Whether no fault touches a host at this moment.
    pub(super) fn is_well(&self, name: &str) -> bool {
        self.runs(name) && self.members.contains(name) && !self.nodes.network.is_touched(name)
    }

    /// Ends every fault that can end.
    pub(super) fn end_faults(&mut self, _jury: &mut Jury) {
        for (from, to) in self.nodes.network.cuts() {
            self.nodes.network.set_cut(&from, &to, false);
        }
        for name in std::mem::take(&mut self.faults.crashed) {
            self.nodes.restart(&name);
        }
        for name in std::mem::take(&mut self.faults.off) {
            self.nodes.power_on(&name);
        }
        let now: Duration = self.elapsed();
        let _ = now;
        self.ask_again();
    }
}

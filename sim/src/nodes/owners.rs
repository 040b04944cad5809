//! What owners do in a healed mesh, and what about hosts that have lost each other.
//!
//! When all who know a way to each other have moved at once, no program can help: somebody has to say where the others
//! are. So in a healed mesh an owner writes addresses into the `mesh.toml` (`leads`) of a host from which they can be
//! dialled (a router takes no connections: who has lost one cannot be helped, the router has to be told), and starts
//! it anew. But only where nobody of one part of the mesh knows an address at which anybody of another part can be dialled
//! now, by the network's own word: while somebody does, finding each other is the program's affair, and the jury
//! watches whether it does.

use super::Station;
use super::stage::NodesStage;
use crate::network::Network;
use crate::stage::Stage;
use crate::transport::to_socket;
use mesh::identity::PeerKey;
use node::driver::{Inner, Token};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// How often owners look after their hosts, once all is healed.
const TEND_EVERY: Duration = Duration::from_millis(500);
/// Between two starts of a host that others hold to be alive twice: what ends that is a higher start number.
const RESTART_EVERY: Duration = Duration::from_secs(10);
/// For so long hosts have to be lost before an owner looks after them.
const LOST_FOR: Duration = Duration::from_secs(20);

/// Since when hosts are lost to the others.
#[derive(Default)]
pub struct Owners {
    lost: BTreeMap<String, Duration>,
}

impl Owners {
    /// Whether somebody has to be told by its owner where the others are.
    pub(super) fn have_lost_some(&self) -> bool {
        !self.lost.is_empty()
    }
}

/// A member that runs.
type Running = (String, PeerKey, Arc<Inner>);

/// Whether the first knows where the second is now.
fn can_find(network: &Network, one: &Running, two: &Running) -> bool {
    let known = one.2.places_of(&two.1);
    let sockets = known.iter().filter_map(|lead| to_socket(&lead.parse().ok()?));
    sockets.into_iter().any(|at| network.leads_to(&one.0, at).as_deref() == Some(two.0.as_str()))
}

/// Whether the second could be dialled from the first, if the first knew where the second is.
fn can_dial(network: &Network, one: &str, two: &str) -> bool {
    addresses(network, two).into_iter().any(|at| network.leads_to(one, at).as_deref() == Some(two))
}

/// Where a host listens.
fn addresses(network: &Network, name: &str) -> Vec<SocketAddr> {
    let port = network.port(name);
    let all = network.addresses(name).into_iter().filter(|_| network.listens(name));
    all.map(|ip| SocketAddr::new(IpAddr::V4(ip), port)).collect()
}

impl NodesStage {
    /// What owners do in a healed mesh: they ask again for what was not answered, invite again whom nobody invites any
    /// more or whose token leads nowhere, put out what does not start any more or has voted and forgot, and start anew what
    /// is held to be alive twice although it is not.
    pub(super) fn tend(&mut self) {
        if !self.faults.healed {
            return;
        }
        let now = self.elapsed();
        if !now.as_millis().is_multiple_of(TEND_EVERY.as_millis()) {
            return;
        }
        self.ask_again();
        self.help_the_lost();
        let due = |stage: &NodesStage, name: &String| {
            stage.faults.restarted.get(name).is_none_or(|at| *at + RESTART_EVERY <= now)
        };
        let leader = self.leader().filter(|by| self.runs(by));
        let back: Vec<_> =
            leader.as_ref().and_then(|by| self.station(by)?.node()).map(|n| n.gone_back()).unwrap_or_default();
        let gone_back = |name: &&String| self.key(name).is_some_and(|key| back.contains(&key));
        let broken = self.members.iter().filter(|name| self.faults.broken.contains(*name) || gone_back(name)).cloned();
        let outside = |name: &&String| self.station(name).is_some_and(|s| s.desk.folder.borrow().member.is_none());
        // With a signer go the invitations that it signed.
        let is_void = |name: &String| {
            let member = |by: &PeerKey| self.nodes.ledger(leader.as_ref()?, |l| l.roster().is_member(by));
            self.invited.get(name).and_then(member) == Some(false)
        };
        let invites = |name: &&String| self.waits(name) || is_void(name) || self.is_astray(name);
        let uninvited = self.members.iter().filter(outside).filter(invites).cloned();
        let (broken, uninvited): (Vec<String>, Vec<String>) = (broken.collect(), uninvited.collect());
        for name in broken.into_iter().filter(|name| due(self, name)).collect::<Vec<_>>() {
            if let Some(by) = &leader {
                self.faults.restarted.insert(name.clone(), now);
                self.evict(&name, by);
            }
        }
        for name in uninvited.into_iter().filter(|name| due(self, name)).collect::<Vec<_>>() {
            if let Some(by) = &leader {
                self.faults.restarted.insert(name.clone(), now);
                self.admit(&name, by);
            }
        }
        let held: BTreeSet<_> = self
            .nodes
            .stations
            .iter()
            .filter(|(name, _)| self.members.contains(*name))
            .filter_map(|(_, station)| station.node())
            .flat_map(|node| node.clones())
            .collect();
        let held: Vec<String> = self
            .members
            .iter()
            .filter(|name| self.key(name).is_some_and(|key| held.contains(&key)) && self.runs(name))
            .filter(|name| due(self, name))
            .cloned()
            .collect();
        for name in held {
            self.faults.restarted.insert(name.clone(), now);
            self.start_anew(&name);
        }
    }

    /// Whether a host was invited to where by now nobody is who could let it in. While one of those whom its token names is at
    /// an address that is in it, finding it there is the program's affair.
    fn is_astray(&self, name: &str) -> bool {
        let token = self.station(name).and_then(|station| station.desk.token.borrow().clone());
        let Some(Ok((token, _))) = token.as_deref().map(Token::parse) else { return false };
        let who = |address: &String| {
            let at = to_socket(&address.parse().ok()?)?;
            let who = self.nodes.network.leads_to(name, at).filter(|who| self.members.contains(&**who))?;
            self.key(&who)
        };
        let all = token.leads.iter().flat_map(|lead| &lead.addresses).filter_map(who);
        !all.into_iter().any(|key| token.leads.iter().any(|lead| lead.peer == key))
    }

    /// Has owners tell members where those are that nobody can find any more.
    fn help_the_lost(&mut self) {
        let now = self.elapsed();
        let lost = self.lost();
        self.owners.lost.retain(|name, _| lost.contains_key(name));
        for (name, others) in lost {
            let since = *self.owners.lost.entry(name.clone()).or_insert(now);
            if now - since < LOST_FOR {
                continue;
            }
            self.owners.lost.remove(&name);
            self.fault(&name, &format!("its owner tells it where to find {}", others.join(", ")));
            let leads = others.iter().flat_map(|other| addresses(&self.nodes.network, other)).collect();
            if let Some(Station { desk, .. }) = self.station(&name) {
                desk.leads.replace(leads);
            }
            self.start_anew(&name);
        }
    }

    /// Who has to be told of whom: for each part of the mesh, but for the largest, that has no way to another part and
    /// is known to none, those of it that could dial others if they knew where; if there are none, those others that
    /// could dial it.
    fn lost(&self) -> BTreeMap<String, Vec<String>> {
        let running: Vec<Running> = self
            .members
            .iter()
            .filter_map(|name| {
                let node = self.station(name)?.node()?;
                Some((name.clone(), node.key(), node))
            })
            .collect();
        let mut parts: Vec<BTreeSet<usize>> = vec![];
        for (at, (_, key, node)) in running.iter().enumerate() {
            let connected: BTreeSet<PeerKey> = node.connections().into_iter().collect();
            let meets = |other: &usize| {
                let (_, theirs, other) = &running[*other];
                connected.contains(theirs) || other.connections().contains(key)
            };
            let mut part = BTreeSet::from([at]);
            parts.retain(|known| {
                let joins = known.iter().any(meets);
                if joins {
                    part.extend(known);
                }
                !joins
            });
            parts.push(part);
        }
        parts.sort_by_key(BTreeSet::len);
        parts.pop();
        let network = &self.nodes.network;
        let finds = |a: usize, b: usize| can_find(network, &running[a], &running[b]);
        let could = |from: &BTreeSet<usize>, to: &BTreeSet<usize>| {
            let name = |at: &usize| running[*at].0.clone();
            let dials = |one: &String| to.iter().map(name).filter(|two| can_dial(network, one, two)).collect();
            let all = from.iter().map(name).map(|one| (dials(&one), one));
            let able: Vec<(String, Vec<String>)> =
                all.map(|(two, one): (Vec<String>, _)| (one, two)).filter(|(_, two)| !two.is_empty()).collect();
            able
        };
        let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for part in &parts {
            let others: BTreeSet<usize> = (0..running.len()).filter(|other| !part.contains(other)).collect();
            if part.iter().any(|one| others.iter().any(|other| finds(*one, *other) || finds(*other, *one))) {
                continue;
            }
            let mut tell = could(part, &others);
            if tell.is_empty() {
                tell = could(&others, part);
            }
            for (name, of) in tell {
                told.entry(name).or_default().extend(of);
            }
        }
        told
    }
}

//! What owners do about hosts that have lost each other.
//!
//! When all who know a way to each other have moved at once, no program can help: somebody has to say where the others
//! are. So in a healed mesh the owner of such a host writes addresses into its `mesh.toml` (`leads`) and starts it
//! anew. But only where nobody of one part of the mesh knows an address at which anybody of another part can be dialled
//! now, by the network's own word: while somebody does, finding each other is the program's affair, and the jury
//! watches whether it does.

use super::Station;
use super::stage::NodesStage;
use crate::network::Network;
use crate::stage::Stage;
use crate::transport::to_socket;
use mesh::identity::PeerKey;
use node::driver::Inner;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// For so long hosts have to be lost before an owner looks after them.
const LOST_FOR: Duration = Duration::from_secs(20);

/// Since when hosts are lost to the others.
#[derive(Default)]
pub struct Owners {
    lost: BTreeMap<String, Duration>,
}

/// A member that runs.
type Running = (String, PeerKey, Arc<Inner>);

/// Whether the first knows where the second is now.
fn can_find(network: &Network, one: &Running, two: &Running) -> bool {
    let known = one.2.places_of(&two.1);
    let sockets = known.iter().filter_map(|lead| to_socket(&lead.parse().ok()?));
    sockets.into_iter().any(|at| network.leads_to(&one.0, at).as_deref() == Some(two.0.as_str()))
}

impl NodesStage {
    /// Helps members that nobody can find any more. True for each host whose node was started anew.
    pub(super) fn help_the_lost(&mut self) {
        let now = self.elapsed();
        let lost = self.lost();
        self.owners.lost.retain(|name, _| lost.contains(name));
        let since: Vec<(String, Duration)> =
            lost.into_iter().map(|name| (name.clone(), *self.owners.lost.entry(name).or_insert(now))).collect();
        for (name, since) in since {
            if now - since < LOST_FOR {
                continue;
            }
            self.owners.lost.remove(&name);
            self.fault(&name, "its owner tells it where the others are");
            let leads: Vec<SocketAddr> = self
                .members
                .iter()
                .filter(|other| **other != name && self.runs(other) && self.nodes.network.listens(other))
                .flat_map(|other| {
                    let port = self.nodes.network.port(other);
                    let all = self.nodes.network.addresses(other);
                    all.into_iter().map(move |ip| SocketAddr::new(IpAddr::V4(ip), port))
                })
                .collect();
            if let Some(Station { desk, .. }) = self.station(&name) {
                desk.leads.replace(leads);
            }
            self.start_anew(&name);
        }
    }

    /// All of each part of the mesh, but for its largest, that has no way to another part and is known to none.
    fn lost(&self) -> Vec<String> {
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
        let is_lost = |part: &BTreeSet<usize>| {
            let others = || (0..running.len()).filter(|other| !part.contains(other));
            let finds = |a: usize, b: usize| can_find(network, &running[a], &running[b]);
            !part.iter().any(|one| others().any(|other| finds(*one, other) || finds(other, *one)))
        };
        parts.iter().filter(|part| is_lost(part)).flatten().map(|at| running[*at].0.clone()).collect()
    }
}

//! What hosts were ordered to do to themselves, and do: a simulated machine only says what it was told.

use super::{Nodes, NodesStage, Station};
use crate::machine::Acted;

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
    /// The same on a stage, which has to know who is down.
    pub(super) fn obey(&mut self) {
        for (name, Acted { act, order }) in self.nodes.take_acts() {
            self.fault(&name, &format!("{act}, ordered by {order}"));
            match act.is_reboot() {
                true => self.cut_power(&name),
                false => self.crash(&name),
            }
            self.start(&name);
        }
    }
}

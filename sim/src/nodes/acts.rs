//! What hosts were ordered to do to themselves, and do: a simulated machine only says what it was told.

use super::NodesStage;
use crate::machine::Acted;

impl NodesStage {
    /// A restarted service is a crash and a start, a restarted machine a power cut: nothing that runs is asked first.
    pub(super) fn obey(&mut self) {
        let told: Vec<(String, Acted)> = {
            let acts = |(name, station): (&String, &super::Station)| {
                let acts = station.host.machine().take_acts();
                acts.into_iter().map(|acted| (name.clone(), acted)).collect::<Vec<_>>()
            };
            self.nodes.stations.iter().flat_map(acts).collect()
        };
        for (name, Acted { act, order }) in told {
            self.fault(&name, &format!("{act}, ordered by {order}"));
            match act.is_reboot() {
                true => self.cut_power(&name),
                false => self.crash(&name),
            }
            self.start(&name);
        }
    }
}

//! Faults of a lab: pairs of hosts or networks that are cut, networks that are off or lose packets. Each is the
//! oracle's fault of the same name; each is put right again by `mend`. Nobody is told of a cut: packets are lost.

use super::command::{Done, Trouble, ip, nft};
use super::{Lab, plan};
use std::collections::BTreeMap;
use topology::NetworkKind;

impl Lab {
    /// Loads all faults into the namespaces anew.
    pub(super) fn apply_faults(&self) -> Done {
        let faults = &self.state.faults;
        for network in self.fleet.networks.keys() {
            let here = |(host, power): (&String, &super::state::Power)| {
                Some((host.clone(), power.devices.get(network)?.clone()))
            };
            let devices: BTreeMap<String, String> = self.state.hosts.iter().filter_map(here).collect();
            nft(&self.network_namespace(network), &faults.on_network(&self.fleet, &self.ports, &devices, network))?;
        }
        let down = self.down();
        for machine in self.machines().into_iter().filter(|m| !down.contains(m)) {
            let namespace = self.namespace(&machine)?;
            nft(&namespace, &faults.on_host(&self.fleet, &self.ports, &machine))?;
            let mut lines = String::new();
            for port in self.ports.iter().filter(|p| p.host == machine) {
                let state = if faults.off.contains(&port.network) { "down" } else { "up" };
                lines += &format!("link set dev {} {state}\n", port.interface);
            }
            ip(&namespace, &lines)?;
        }
        Ok(())
    }

    /// A pair as it is written down: both hosts or both networks.
    fn pair(&self, one: &str, other: &str) -> Done<(bool, (String, String))> {
        let sorted = (one.min(other).to_owned(), one.max(other).to_owned());
        match [one, other].map(|name| self.fleet.networks.contains_key(name)) {
            _ if one == other => Err(Trouble(format!("{one} cannot be cut from itself"))),
            [true, true] => Ok((true, sorted)),
            [false, false] => {
                [one, other].iter().try_for_each(|host| self.is_machine(host))?;
                Ok((false, sorted))
            }
            _ => Err(Trouble(format!("{one} and {other} are not both hosts or both networks"))),
        }
    }

    /// Cuts two hosts, or two networks, from each other.
    ///
    /// # Errors
    /// The fleet has no such pair, or the kernel refuses.
    pub fn cut(&mut self, one: &str, other: &str) -> Done {
        let (networks, pair) = self.pair(one, other)?;
        let faults = &mut self.state.faults;
        if networks {
            faults.networks.insert(pair)
        } else {
            faults.pairs.insert(pair)
        };
        self.state.save()?;
        self.apply_faults()
    }

    /// Joins again what [`Lab::cut`] has cut.
    ///
    /// # Errors
    /// It is not cut, or the kernel refuses.
    pub fn mend(&mut self, one: &str, other: &str) -> Done {
        let (networks, pair) = self.pair(one, other)?;
        let faults = &mut self.state.faults;
        let was_cut = if networks { faults.networks.remove(&pair) } else { faults.pairs.remove(&pair) };
        if !was_cut {
            return Err(Trouble(format!("{one} and {other} are not cut from each other")));
        }
        self.state.save()?;
        self.apply_faults()
    }

    /// Joins all that is cut, and puts every network's loss back to the fleet's. What is off stays off.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn mend_all(&mut self) -> Done {
        self.state.faults = plan::Faults { off: self.state.faults.off.clone(), ..Default::default() };
        self.state.save()?;
        self.apply_faults()
    }

    /// Switches all overlays on or off; ways that led over one lead elsewhere then, or nowhere.
    ///
    /// # Errors
    /// The fleet has none, or the kernel refuses.
    pub fn overlay(&mut self, on: bool) -> Done {
        let overlays = self.fleet.networks.iter().filter(|(_, n)| n.kind == NetworkKind::Overlay);
        let overlays: Vec<String> = overlays.map(|(name, _)| name.clone()).collect();
        if overlays.is_empty() {
            return Err(Trouble(format!("{} has no overlay", self.fleet.name)));
        }
        self.networks(&overlays, on)
    }

    /// The same for networks by their names, which need not be overlays.
    ///
    /// # Errors
    /// The fleet has no such network, or the kernel refuses.
    pub fn networks<N: AsRef<str>>(&mut self, names: &[N], on: bool) -> Done {
        for name in names.iter().map(AsRef::as_ref) {
            if !self.fleet.networks.contains_key(name) {
                return Err(Trouble(format!("no network is called {name}")));
            }
            if on {
                self.state.faults.off.remove(name)
            } else {
                self.state.faults.off.insert(name.to_owned())
            };
        }
        self.state.save()?;
        self.apply_faults()?;
        self.apply_routes(&self.machines())
    }

    /// Loses packets on a network, in thousandths.
    ///
    /// # Errors
    /// The fleet has no such network, or the kernel refuses.
    pub fn loss(&mut self, network: &str, per_mille: u32) -> Done {
        if !self.fleet.networks.contains_key(network) {
            return Err(Trouble(format!("no network is called {network}")));
        }
        self.state.faults.loss_per_mille.insert(network.into(), per_mille.min(1_000));
        self.state.save()?;
        self.apply_faults()
    }
}

//! Building: namespaces, bridges, ports, addresses, ways, first processes; and a host's power. Each step is one call of
//! `ip` or `nft` for as many lines as can go together, which is what makes a fleet stand within a second.

use super::command::{Done, Trouble, inside, ip, nft, run};
use super::state::{Power, Process};
use super::wire::Ends;
use super::{Lab, Wires, host, plan, wire};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Before any interface is there: these are inherited. `accept_redirects` because ways are the oracle's, and a router
/// would shorten them.
const SYSCTLS: [(&str, &str); 9] = [
    ("net/ipv6/conf/all/disable_ipv6", "1"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
];

impl Lab {
    pub(super) fn build(&mut self) -> Done {
        let networks: Vec<String> = self.fleet.networks.keys().cloned().collect();
        let machines = self.machines();
        let mut lines = String::new();
        for network in &networks {
            let _ = writeln!(lines, "netns add {}", self.network_namespace(network));
        }
        run("ip", &["-batch", "-"], &lines)?;
        for network in &networks {
            let namespace = self.network_namespace(network);
            self.sysctls(&namespace, false)?;
            ip(&namespace, "link add switch type bridge forward_delay 0\nlink set switch up")?;
        }
        self.power(&machines)?;
        let all: Vec<String> = self.fleet.hosts.iter().map(|h| h.name.clone()).collect();
        self.start(&all)
    }

    /// Gives machines their namespaces, ports and ways, as in the moment before anything runs on them.
    fn power(&mut self, machines: &[String]) -> Done {
        let mut lines = String::new();
        for machine in machines {
            let _ = writeln!(lines, "netns add {}", self.namespace(machine)?);
        }
        run("ip", &["-batch", "-"], &lines)?;
        for machine in machines {
            self.sysctls(&self.namespace(machine)?, plan::is_router(&self.fleet, machine))?;
            self.state.hosts.entry(machine.clone()).or_default().on = true;
        }
        self.plug(machines)?;
        for machine in machines {
            let namespace = self.namespace(machine)?;
            ip(&namespace, &plan::addresses(&self.ports, &self.fleet, machine))?;
            let translation = plan::translation(&self.ports, &self.fleet, machine);
            if !translation.is_empty() {
                nft(&namespace, &translation)?;
            }
        }
        self.apply_faults()?;
        self.apply_routes(machines)
    }

    fn sysctls(&self, namespace: &str, forward: bool) -> Done {
        let write = |(key, value): (&str, &str)| {
            let file = format!("/proc/sys/{key}");
            // What the kernel was built without needs no switching off.
            match std::path::Path::new(&file).exists() {
                true => std::fs::write(&file, value).map_err(|e| Trouble(format!("{file}: {e}"))),
                false => Ok(()),
            }
        };
        inside(namespace, || {
            let forwarding = [("net/ipv4/ip_forward", if forward { "1" } else { "0" })];
            SYSCTLS.into_iter().chain(forwarding).try_for_each(write)
        })?
    }

    /// Makes the ports of machines: a pair of devices each, or a wire.
    fn plug(&mut self, machines: &[String]) -> Done {
        let mut by_network: BTreeMap<String, String> = BTreeMap::new();
        let ports: Vec<plan::Port> = self.ports.iter().filter(|p| machines.contains(&p.host)).cloned().collect();
        for port in ports {
            self.state.ports += 1;
            let device = format!("p{}", self.state.ports);
            let host = self.namespace(&port.host)?;
            let network = self.network_namespace(&port.network);
            let lines = by_network.entry(port.network.clone()).or_default();
            if port.delay.is_zero() && port.bits_per_s.is_none() {
                let _ = writeln!(lines, "link add name {device} type veth peer name {} netns {host}", port.interface);
            } else {
                let one = (host, port.interface.clone());
                wire_between(
                    &self.wires,
                    Ends { one, other: (network, device.clone()), delay: port.delay, bits_per_s: port.bits_per_s },
                )?;
            }
            let _ = writeln!(lines, "link set dev {device} master switch up");
            let power = self.state.hosts.entry(port.host.clone()).or_default();
            power.devices.insert(port.network.clone(), device);
        }
        self.state.save()?;
        by_network.iter().try_for_each(|(network, lines)| ip(&self.network_namespace(network), lines))
    }

    /// Installs the oracle's ways on machines that have power.
    pub(super) fn apply_routes(&self, machines: &[String]) -> Done {
        let off = &self.state.faults.off;
        // Without what is down or cut: ways are static, and lead into faults.
        let oracle = plan::Faults { off: off.clone(), ..Default::default() }.oracle(&self.fleet, &BTreeSet::new())?;
        for machine in machines.iter().filter(|m| !self.down().contains(*m)) {
            let lines = plan::routes(&self.ports, &self.fleet, &oracle, off, machine)?;
            ip(&self.namespace(machine)?, &format!("route flush proto static\n{lines}"))?;
        }
        Ok(())
    }

    /// Starts the first processes of hosts whose machine has power, all at once.
    fn start(&mut self, hosts: &[String]) -> Done {
        let with_us = self.state.owner.is_some() && self.wires == Wires::Here;
        let starting = |host: &String| host::start(host, &self.namespace(host)?, &self.folder(host), with_us);
        let started: Vec<_> = hosts.iter().map(starting).collect::<Done<_>>()?;
        for (host, starting) in hosts.iter().zip(started) {
            let (init, child) = starting.ready(&self.folder(host))?;
            self.state.hosts.entry(host.clone()).or_default().init = Some(init);
            self.children.insert(host.clone(), child);
        }
        self.state.save()
    }

    /// Ends all that runs on a host; its network stays, so that whoever dials it is refused.
    ///
    /// # Errors
    /// It does not run.
    pub fn crash(&mut self, host: &str) -> Done {
        let init = self.init(host)?;
        self.end(host, init)?;
        self.state.save()
    }

    fn end(&mut self, host: &str, init: Process) -> Done {
        crate::daemon::signal(init.pid, libc::SIGKILL);
        if let Some(mut parent) = self.children.remove(host) {
            parent.wait()?;
        }
        crate::wait_for(crate::daemon::PATIENCE, || (!init.is_there()).then_some(()))
            .ok_or_else(|| Trouble(format!("{host}: process {} does not end", init.pid)))?;
        if let Some(power) = self.state.hosts.get_mut(host) {
            power.init = None;
        }
        Ok(())
    }

    /// Takes the power of a machine and of what shares its addresses: from one moment to the next it is silent, and
    /// what its kernel knew (connections, translations) is gone.
    ///
    /// # Errors
    /// It has none, or it shares another's.
    pub fn power_off(&mut self, host: &str) -> Done {
        self.is_machine(host)?;
        if self.down().contains(host) {
            return Err(Trouble(format!("{host} has no power already")));
        }
        // The cables first: what is killed says goodbye by its kernel.
        let devices = self.state.hosts.get_mut(host).map(|p| std::mem::take(&mut p.devices)).unwrap_or_default();
        for (network, device) in devices {
            ip(&self.network_namespace(&network), &format!("link del dev {device}"))?;
        }
        let on_it: Vec<String> = self
            .fleet
            .hosts
            .iter()
            .filter(|h| h.name == host || h.shares.as_deref() == Some(host))
            .map(|h| h.name.clone())
            .collect();
        for name in on_it {
            if let Ok(init) = self.init(&name) {
                self.end(&name, init)?;
            }
        }
        run("ip", &["netns", "del", &self.namespace(host)?], "")?;
        self.state.hosts.insert(host.into(), Power::default());
        self.state.save()?;
        self.apply_faults()
    }

    /// Starts a host: one that crashed, or a machine without power. What shares a machine's addresses is booted by itself.
    ///
    /// # Errors
    /// It runs already, or its machine has no power.
    pub fn boot(&mut self, host: &str) -> Done {
        if self.runs(host) {
            return Err(Trouble(format!("{host} runs already")));
        }
        let machine = plan::machine(&self.fleet, host)?.to_owned();
        match self.down().contains(&machine) {
            true if machine == host => self.power(&[machine])?,
            true => return Err(Trouble(format!("{host} is on {machine}, which has no power"))),
            false => {}
        }
        self.start(&[host.into()])
    }

    pub(super) fn is_machine(&self, host: &str) -> Done {
        match plan::machine(&self.fleet, host)? {
            machine if machine == host => Ok(()),
            machine => Err(Trouble(format!("{host} has the network of {machine}: name that one"))),
        }
    }
}

fn wire_between(wires: &Wires, ends: Ends) -> Done {
    let Wires::Program(program) = wires else { return wire::start(ends) };
    let (micros, rate) = (ends.delay.as_micros().to_string(), ends.bits_per_s.unwrap_or_default().to_string());
    let mut command = Command::new(program);
    command.args(["wire", &ends.one.0, &ends.one.1, &ends.other.0, &ends.other.1, &micros, &rate]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    // SAFETY: setsid(2) is async-signal-safe. A terminal that goes is nothing to a wire.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut command, || match libc::setsid() {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    let mut child = command.spawn()?;
    let mut line = String::new();
    let out = child.stdout.take().ok_or_else(|| Trouble("no pipe".into()))?;
    BufReader::new(out).read_line(&mut line)?;
    match line.trim() {
        "ready" => Ok(()),
        _ => Err(Trouble(format!("the wire {ends:?} did not come up"))),
    }
}

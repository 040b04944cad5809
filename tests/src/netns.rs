//! A small network of real kernels: hosts in network namespaces, switches between them, and routers that
//! masquerade, as in the fleet of incident 1.
//!
//! Names carry the process id and a number, so that several labs can stand side by side. Everything a lab
//! made it removes when dropped: first the processes in its namespaces, then the namespaces. Addresses
//! exist only inside them.

use std::net::IpAddr;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// Set to 1 by who cannot be root and accepts that these tests show nothing then.
const OPT_OUT: &str = "MESH_TESTS_WITHOUT_ROOT";

static LABS: AtomicU32 = AtomicU32::new(0);

/// Namespaces and the switches that join them.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    namespaces: Vec<String>,
    ports: u32,
}

impl Lab {
    /// An empty lab.
    ///
    /// `None` only when the user opted out; without root, `ip` or `nft` it panics, because a test that
    /// silently shows nothing is worse than one that fails.
    pub fn new() -> Option<Self> {
        if std::env::var_os(OPT_OUT).is_some_and(|v| v == "1") {
            eprintln!("{OPT_OUT}=1: network namespaces are not tested");
            return None;
        }
        assert!(nix::unistd::geteuid().is_root(), "network namespaces need root; {OPT_OUT}=1 leaves them out");
        let prefix = format!("mesh-{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let mut lab = Lab { prefix, namespaces: vec![], ports: 0 };
        lab.host("switch");
        Some(lab)
    }

    /// A host: a namespace of its own with its loopback up.
    pub fn host(&mut self, name: &str) {
        let namespace = self.namespace(name);
        run("ip", &["netns", "add", &namespace]);
        self.namespaces.push(namespace.clone());
        run("ip", &["-n", &namespace, "link", "set", "lo", "up"]);
    }

    /// A switch that hosts are plugged into.
    pub fn switch(&mut self, name: &str) {
        let namespace = self.namespace("switch");
        run("ip", &["-n", &namespace, "link", "add", name, "type", "bridge"]);
        run("ip", &["-n", &namespace, "link", "set", name, "up"]);
    }

    /// Gives a host an interface on a switch, with an address such as `10.9.1.2/24` or `fd09::2/64`.
    pub fn plug(&mut self, host: &str, interface: &str, address: &str, switch: &str) {
        let (host, hub) = (self.namespace(host), self.namespace("switch"));
        self.ports += 1;
        let port = format!("port{}", self.ports);
        run("ip", &["-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", interface, "netns", &host]);
        run("ip", &["-n", &hub, "link", "set", &port, "master", switch, "up"]);
        // Nobody else is there who could have it: it need not be looked for first, which takes IPv6 a second or two.
        let at_once: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
        run("ip", &[&["-n", &host, "addr", "add", address, "dev", interface][..], at_once].concat());
        run("ip", &["-n", &host, "link", "set", interface, "up"]);
    }

    /// Takes a host's interface down (a silent power cut: nobody answers for it) or up again.
    pub fn link(&self, host: &str, interface: &str, up: bool) {
        let state = if up { "up" } else { "down" };
        run("ip", &["-n", &self.namespace(host), "link", "set", interface, state]);
    }

    /// Sends what a host has no better way for to this router.
    pub fn default_route(&self, host: &str, router: IpAddr) {
        run("ip", &["-n", &self.namespace(host), "route", "add", "default", "via", &router.to_string()]);
    }

    /// Makes a host forward, and replace the source of what leaves by `interface` with its own address.
    pub fn masquerade(&self, router: &str, interface: &str) {
        self.masquerade_as(router, interface, "masquerade");
    }

    /// The same with a port drawn anew for each connection: nobody can tell where the next one will come from.
    pub fn masquerade_random(&self, router: &str, interface: &str) {
        self.masquerade_as(router, interface, "masquerade fully-random");
    }

    fn masquerade_as(&self, router: &str, interface: &str, how: &str) {
        self.exec(router, &["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
        let rules = format!(
            "add table ip nat; add chain ip nat post {{ type nat hook postrouting priority srcnat; }}; add rule ip nat post \
             oifname \"{interface}\" counter {how}"
        );
        self.exec(router, &["nft", &rules]);
    }

    /// Drops what comes to a router by an interface and belongs to no connection that was begun behind it, as the
    /// router of a home does.
    pub fn answers_only(&self, router: &str, interface: &str) {
        let chain = |hook: &str| {
            format!(
                "add chain ip home {hook} {{ type filter hook {hook} priority 0; }}; add rule ip home {hook} iifname \
                 \"{interface}\" ct state new,invalid counter drop"
            )
        };
        let rules = format!("add table ip home; {}; {}", chain("input"), chain("forward"));
        self.exec(router, &["nft", &rules]);
    }

    /// Drops every packet that comes to a host from an address.
    pub fn block(&self, host: &str, from: IpAddr) {
        let rules = format!(
            "add table ip wall; add chain ip wall input {{ type filter hook input priority 0; }}; add rule ip wall input ip \
             saddr {from} counter drop"
        );
        self.exec(host, &["nft", &rules]);
    }

    /// Counts packets that a host sends to an address from now on; [`Lab::sent`] reads the count.
    pub fn watch(&self, host: &str, to: IpAddr, comment: &str) {
        let rules = format!(
            "add table ip watch; add chain ip watch output {{ type filter hook output priority 0; }}; add rule ip watch output \
             ip daddr {to} counter comment \"{comment}\""
        );
        self.exec(host, &["nft", &rules]);
    }

    /// The same for TCP connections that it tries to open there.
    pub fn watch_dials(&self, host: &str, to: IpAddr, comment: &str) {
        let rules = format!(
            "add table ip watch; add chain ip watch output {{ type filter hook output priority 0; }}; add rule ip watch output \
             ip daddr {to} tcp flags & (syn | ack) == syn counter comment \"{comment}\""
        );
        self.exec(host, &["nft", &rules]);
    }

    /// How many packets the rule with this comment has seen.
    pub fn sent(&self, host: &str, comment: &str) -> u64 {
        let out = self.exec(host, &["nft", "list", "table", "ip", "watch"]);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let quoted = format!("\"{comment}\"");
        let line = text.lines().find(|l| l.contains(&quoted)).unwrap_or_else(|| panic!("no rule {comment} in\n{text}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|w| *w == "packets").unwrap_or_else(|| panic!("no counter in {line}"));
        words[at + 1].parse().expect("a count")
    }

    /// The name that `ip netns exec` wants.
    pub fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// Runs a program on a host to its end; it has to succeed.
    pub fn exec(&self, host: &str, command: &[&str]) -> Output {
        let mut args = vec!["netns", "exec"];
        let namespace = self.namespace(host);
        args.push(&namespace);
        args.extend(command);
        run("ip", &args)
    }

    /// Calls a function on a host: sockets that it opens are the host's, wherever they are used afterwards.
    pub fn inside<T: Send>(&self, host: &str, f: impl FnOnce() -> T + Send) -> T {
        let file = std::fs::File::open(format!("/run/netns/{}", self.namespace(host))).expect("namespace");
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).expect("setns");
                f()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            let pids = Command::new("ip").args(["netns", "pids", namespace]).output();
            for pid in pids.iter().flat_map(|out| {
                String::from_utf8_lossy(&out.stdout).into_owned().lines().map(str::to_owned).collect::<Vec<_>>()
            }) {
                if let Ok(pid) = pid.parse() {
                    crate::daemon::signal(pid, libc::SIGKILL);
                }
            }
            let _ = Command::new("ip").args(["netns", "del", namespace]).output();
        }
    }
}

#[track_caller]
fn run(program: &str, args: &[&str]) -> Output {
    let out = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}; see scripts/test"));
    assert!(out.status.success(), "{program} {args:?}: {}\n{}", out.status, crate::daemon::said(&out));
    out
}

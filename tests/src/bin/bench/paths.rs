//! Paths between two hosts that cannot simply dial each other, on the kernel's own masquerade: how soon there is one, how
//! often it becomes direct, and what a blob gets of a wire of 200 Mbit/s beside a plain TCP copy over the same.
//!
//! ```text
//! east-1 ---- east ---- east-router ---- internet ---- west-router ---- west ---- west-1
//!                                           relay
//! ```
//! Routers let in answers only, as those of a home do. They are no hosts of the mesh.

use crate::stats::{at, pair};
use crate::usage::sent;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant, SystemTime};
use tests::daemon::{PATIENCE, signal};
use tests::lab::members::Common;
use tests::lab::{Lab, Wires};
use tests::wait_for;

/// A pair that is not direct by then stays on its relay: libp2p punches within seconds, and again hardly ever.
const DIRECT_WITHIN: Duration = Duration::from_secs(30);
const LIMIT_BITS_S: u64 = 200_000_000;
const INTERNET: &str = "internet";

/// What stands between a host and the internet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nat {
    Nothing,
    KeepsPorts,
    DrawsPorts,
}

impl Nat {
    fn text(self) -> &'static str {
        match self {
            Nat::Nothing => "none",
            Nat::KeepsPorts => "keeps ports",
            Nat::DrawsPorts => "draws ports (symmetric)",
        }
    }
}

const KINDS: [(Nat, Nat); 4] = [
    (Nat::Nothing, Nat::KeepsPorts),
    (Nat::KeepsPorts, Nat::KeepsPorts),
    (Nat::KeepsPorts, Nat::DrawsPorts),
    (Nat::DrawsPorts, Nat::DrawsPorts),
];

struct Row {
    kinds: (Nat, Nat),
    usable_s: Vec<f64>,
    direct_s: Vec<f64>,
    tries: usize,
}

struct Carried {
    path: &'static str,
    plain_mbit_s: f64,
    blob_mbit_s: f64,
}

/// So many tries of each kind, and blobs of so many MiB. `None` for words that make no sense.
pub fn run(words: &[&str]) -> Option<()> {
    let [repeats, mib] = *words else { return None };
    let (repeats, mib) = (repeats.parse().ok()?, mib.parse().ok().filter(|mib| (1..=4_096).contains(mib))?);
    let rows: Vec<Row> = KINDS.into_iter().map(|kinds| reach(kinds, repeats)).collect();
    let carried = [
        carry("direct", (Nat::Nothing, Nat::KeepsPorts), mib),
        carry("through a relay", (Nat::DrawsPorts, Nat::DrawsPorts), mib),
    ];
    print!("{}", report(&rows, &carried, mib));
    Some(())
}

fn report(rows: &[Row], carried: &[Carried], mib: u64) -> String {
    let mut out = String::from(
        "| NAT of one | of the other | both start: first path, s, median / p99 | direct | first direct path, s, median / p99 |\n\
         |---|---|---:|---:|---:|\n",
    );
    for row in rows {
        let (one, other) = row.kinds;
        let (usable, direct) = (pair(&row.usable_s, 2), pair(&row.direct_s, 2));
        let share = format!("{} of {}", row.direct_s.len(), row.tries);
        let _ = writeln!(out, "| {} | {} | {usable} | {share} | {direct} |", one.text(), other.text());
    }
    let _ = writeln!(
        out,
        "\n| a blob of {mib} MiB over {} Mbit/s | Mbit/s | a plain TCP copy | share |\n|---|---:|---:|---:|",
        LIMIT_BITS_S / 1_000_000
    );
    for c in carried {
        let share = c.blob_mbit_s / c.plain_mbit_s;
        let _ = writeln!(out, "| {} | {:.0} | {:.0} | {share:.2} |", c.path, c.blob_mbit_s, c.plain_mbit_s);
    }
    if let Some(direct) = carried.first() {
        let share = direct.blob_mbit_s / direct.plain_mbit_s;
        let verdict = if share >= 0.9 { "met" } else { "**falls short**" };
        let _ = writeln!(out, "\nGoal: 0.9 of a plain copy when direct: {verdict}.");
    }
    out
}

fn fleet((east, west): (Nat, Nat)) -> String {
    let mut text = format!(
        "name = \"pair\"\n[[network]]\nname = \"{INTERNET}\"\ncidr = \"203.0.113.0/24\"\nkind = \"wan\"\nround_trip_ms = 20\n\
         [[host]]\nname = \"relay\"\naddresses = {{ {INTERNET} = \"203.0.113.50\" }}\ncores = 1\nrole = \"relay\"\n"
    );
    for (n, side, nat) in [(1, "east", east), (2, "west", west)] {
        let host = |network: &str, address: &str| {
            format!(
                "[[host]]\nname = \"{side}-1\"\naddresses = {{ {network} = \"{address}\" }}\ncores = 1\nrole = \"drone\"\n"
            )
        };
        if nat == Nat::Nothing {
            text += &host(INTERNET, &format!("203.0.113.{n}"));
            continue;
        }
        let ports = match nat {
            Nat::DrawsPorts => {
                "mapping = \"address-and-port-dependent\"\nfiltering = \"address-and-port-dependent\"\nports = \"random\"\n"
            }
            _ => "",
        };
        let _ = write!(
            text,
            "[[network]]\nname = \"{side}\"\ncidr = \"192.168.{n}.0/24\"\n[[masquerade]]\nrouter = \"{side}-router\"\n\
             inside = \"{side}\"\noutside = \"{INTERNET}\"\naddress = \"203.0.113.{n}\"\n{ports}[[host]]\nname = \"{side}-router\"\n\
             addresses = {{ {side} = \"192.168.{n}.1\", {INTERNET} = \"203.0.113.{n}\" }}\ncores = 0\nrole = \"router\"\n"
        );
        text += &host(side, &format!("192.168.{n}.10"));
    }
    text
}

fn lab(kinds: (Nat, Nat), limits: &[(&str, u64)]) -> Lab {
    static LABS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let name = format!("b{}-{}", std::process::id(), LABS.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let lab = Lab::up_limited(&name, &fleet(kinds), Wires::Here, limits).expect("a lab");
    for router in lab.fleet.hosts.iter().map(|h| &h.name).filter(|name| name.ends_with("-router")) {
        let chain = |hook: &str| {
            format!(
                "add chain ip home {hook} {{ type filter hook {hook} priority 0; }}; add rule ip home {hook} iifname \
                 \"{INTERNET}\" ct state new,invalid counter drop"
            )
        };
        lab.exec(router, &["nft", &format!("add table ip home; {}; {}", chain("input"), chain("forward"))]);
    }
    lab
}

/// How one host reaches the other now, if its daemon answers.
fn path(lab: &Lab, from: &str, to: &str) -> String {
    lab.status(from).map_or_else(String::new, |s| s.path(to).to_owned())
}

fn reach(kinds: (Nat, Nat), tries: usize) -> Row {
    let lab = lab(kinds, &[]);
    lab.found(&Common::default()).unwrap_or_else(|why| panic!("no mesh: {why}"));
    let mut row = Row { kinds, usable_s: vec![], direct_s: vec![], tries };
    for _ in 0..tries {
        for host in ["east-1", "west-1"] {
            let daemon = |p: &String| p.strip_prefix("mesh(")?.strip_suffix(')')?.parse::<u32>().ok();
            let ended: Vec<u32> = lab.processes(host).iter().filter_map(daemon).collect();
            ended.iter().for_each(|pid| signal(*pid, libc::SIGKILL));
            let gone = || lab.processes(host).iter().filter_map(daemon).next().is_none().then_some(());
            wait_for(PATIENCE, gone).expect("it ends");
        }
        std::thread::scope(|scope| {
            for host in ["east-1", "west-1"] {
                let lab = &lab;
                scope.spawn(move || lab.mesh_up(host).unwrap_or_else(|why| panic!("{why}")));
            }
        });
        let begun = Instant::now();
        let both = |good: &dyn Fn(&str) -> bool| {
            good(&path(&lab, "east-1", "west-1")) && good(&path(&lab, "west-1", "east-1"))
        };
        let usable = || both(&|p| matches!(p, "direct" | "relay")).then(|| begun.elapsed());
        row.usable_s.push(wait_for(PATIENCE, usable).unwrap_or(PATIENCE).as_secs_f64());
        let direct = wait_for(DIRECT_WITHIN, || both(&|p| p == "direct").then(|| begun.elapsed()));
        row.direct_s.extend(direct.map(|took| took.as_secs_f64()));
        eprintln!(
            "{} / {}: a path after {:.2} s, direct after {direct:.2?}",
            kinds.0.text(),
            kinds.1.text(),
            at(&row.usable_s, 1.0).unwrap_or_default()
        );
    }
    row
}

/// What a blob that goes from west to east gets of the wire.
fn carry(name: &'static str, kinds: (Nat, Nat), mib: u64) -> Carried {
    let lab = lab(kinds, &[(INTERNET, LIMIT_BITS_S)]);
    // Where nothing can be dialled in the east, the relay is as far away.
    let far = if kinds.0 == Nat::Nothing { "east-1" } else { "relay" };
    let bits = (mib * 8) as f64 * 1_048_576.0;
    let plain_mbit_s = bits / plain_copy(&lab, far, mib << 20).as_secs_f64() / 1e6;
    lab.found(&Common::default()).unwrap_or_else(|why| panic!("no mesh: {why}"));
    let wanted = if name == "direct" { "direct" } else { "relay" };
    let there = || (path(&lab, "west-1", "east-1") == wanted).then_some(());
    wait_for(PATIENCE, there).unwrap_or_else(|| panic!("west-1 reaches east-1 by {}", path(&lab, "west-1", "east-1")));
    let root = lab.folder("west-1").join("root");
    let mut big = std::fs::File::create(root.join("big")).expect("a file");
    let random = std::fs::File::open("/dev/urandom").expect("randomness");
    std::io::copy(&mut random.take(mib << 20), &mut big).expect("written");
    std::fs::write(
        root.join("build.toml"),
        "[build.x]\ncommand = \"true\"\ninputs = [\"big\"]\ntags = [\"on-east-1\"]\n",
    )
    .expect("written");
    // A second host may be given it before the builder is: what counts is all that leaves, from its first MiB on.
    let idle = sent(&lab, "west-1", "west").0;
    let (begun, ended) = std::thread::scope(|scope| {
        let build = scope.spawn(|| lab.mesh_ok("west-1", &["build", "/root/build.toml"]));
        let under_way = || (sent(&lab, "west-1", "west").0 > idle + (1 << 20)).then(SystemTime::now);
        let begun = wait_for(PATIENCE, under_way).expect("the blob leaves");
        (begun, build.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    ended.unwrap_or_else(|why| panic!("{why}"));
    let copies = ((sent(&lab, "west-1", "west").0 - idle) / (mib << 20)).max(1) as f64;
    let builds = lab.wait_builds("west-1", "done", |builds| builds.first().is_some_and(|b| b["state"] == "done"));
    let id = builds[0]["id"].as_str().expect("an id");
    let build = lab.get("west-1", &format!("/v1/builds/{id}")).expect("an answer");
    let begun_ms = begun.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1e3;
    let ms = build["ended_ms"].as_f64().unwrap_or_else(|| panic!("{build:#}")) - begun_ms;
    let blob_mbit_s = (copies * bits - 8.0 * 1_048_576.0) / ms / 1e3;
    eprintln!(
        "{name}: plain {plain_mbit_s:.0}, blob {blob_mbit_s:.0} Mbit/s ({copies} copies, {ms:.0} ms until the end)"
    );
    Carried { path: name, plain_mbit_s, blob_mbit_s }
}

/// From west-1 to a host that it can dial.
fn plain_copy(lab: &Lab, to: &str, bytes: u64) -> Duration {
    let address = if to == "relay" { Ipv4Addr::new(203, 0, 113, 50) } else { Ipv4Addr::new(203, 0, 113, 1) };
    let address = SocketAddr::from((address, 9));
    let listener = lab.inside(to, || TcpListener::bind(address)).expect("bound");
    let begun = Instant::now();
    let mut from = lab.inside("west-1", || TcpStream::connect_timeout(&address, PATIENCE)).expect("connected");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let chunk = vec![7; 1 << 16];
            let mut left = bytes;
            while left > 0 {
                let n = left.min(chunk.len() as u64) as usize;
                from.write_all(&chunk[..n]).expect("sent");
                left -= n as u64;
            }
        });
        let (mut stream, _) = listener.accept().expect("accepted");
        assert_eq!(std::io::copy(&mut stream, &mut std::io::sink()).expect("received"), bytes);
    });
    begun.elapsed()
}

#[cfg(test)]
mod checks {
    use super::*;

    #[test]
    fn every_pair_is_a_fleet_in_which_both_reach_the_relay() {
        for kinds in KINDS {
            let fleet = topology::Fleet::parse("pair", &fleet(kinds)).expect("a fleet");
            let oracle = topology::Oracle::new(&fleet);
            for host in ["east-1", "west-1"] {
                assert!(oracle.reach(host, "relay").iter().any(|(_, dial)| dial.succeeds()));
            }
            let dialled = oracle.reach("east-1", "west-1").iter().any(|(_, dial)| dial.succeeds());
            assert!(!dialled, "{} is behind its router", kinds.1.text());
        }
    }
}

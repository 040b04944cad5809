//! `scripts/lab`: a fleet on the real kernel for a person to play with. What it says of the lab is on standard output,
//! everything else on standard error.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tests::lab::command::{Done, Trouble};
use tests::lab::members::Common;
use tests::lab::wire::{self, Ends};
use tests::lab::{Lab, Wires, state};
use tests::program::mesh;

const USAGE: &str = "\
usage: scripts/lab [--lab NAME] COMMAND
  up FLEET [--bare]        build it (a name below topology/fleets, or a file) with a mesh on its hosts, or without
  sh HOST [CMD...]         a shell, or a command, on a host
  cut A B                  let nothing pass between two hosts, or between two networks
  mend [A B]               put that right, or all that is cut or lost
  overlay on|off           switch all overlays
  loss NETWORK PERCENT     lose packets there
  crash HOST               end all that runs on it: dials are refused
  poweroff HOST            the same without a goodbye: dials are lost, and its kernel forgets
  boot HOST                start it again
  status                   hosts, networks, what is cut, what runs
  down                     remove it
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let (name, words) = match words[..] {
        ["--lab", name, ref rest @ ..] => (name, rest.to_vec()),
        _ => ("lab", words),
    };
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        eprintln!("error: {name} is no name for a lab: letters, digits and dashes");
        return ExitCode::from(64);
    }
    match run(name, &words) {
        Ok(Some(())) => ExitCode::SUCCESS,
        Ok(None) => {
            eprint!("{USAGE}");
            ExitCode::from(64)
        }
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// `None` for words that make no sense.
fn run(name: &str, words: &[&str]) -> Done<Option<()>> {
    let open = || Lab::open(name, wires()?);
    match *words {
        ["up", fleet, "--bare"] | ["up", "--bare", fleet] => up(name, fleet, false)?,
        ["up", fleet] | ["up", fleet, "--with-mesh"] => up(name, fleet, true)?,
        ["sh", host, ref command @ ..] => return sh(&open()?, host, command),
        ["cut", one, other] => open()?.cut(one, other)?,
        ["mend", one, other] => open()?.mend(one, other)?,
        ["mend"] => open()?.mend_all()?,
        ["overlay", "on"] => open()?.overlay(true)?,
        ["overlay", "off"] => open()?.overlay(false)?,
        ["loss", network, percent] => {
            let percent: f64 = percent.trim_end_matches('%').parse().map_err(|e| Trouble(format!("{percent}: {e}")))?;
            open()?.loss(network, (percent.clamp(0.0, 100.0) * 10.0).round() as u32)?;
        }
        ["crash", host] => open()?.crash(host)?,
        ["poweroff", host] => open()?.power_off(host)?,
        ["boot", host] => boot(&mut open()?, host)?,
        ["status"] => status(&open()?)?,
        ["down"] => down(name)?,
        ["wire", one, at_one, other, at_other, micros, rate] => {
            let number = |text: &str| text.parse::<u64>().map_err(|e| Trouble(format!("{text}: {e}")));
            let (micros, rate) = (number(micros)?, number(rate)?);
            let (one, other) = ((one.to_owned(), at_one.to_owned()), (other.to_owned(), at_other.to_owned()));
            let bits_per_s = (rate > 0).then_some(rate);
            be_a_wire(&Ends { one, other, delay: Duration::from_micros(micros), bits_per_s })?;
        }
        _ => return Ok(None),
    }
    Ok(Some(()))
}

fn wires() -> Done<Wires> {
    Ok(Wires::Program(std::env::current_exe()?))
}

fn up(name: &str, fleet: &str, with_mesh: bool) -> Done {
    let file = format!("{fleet}.toml");
    let shipped = topology::FLEETS.iter().find(|(shipped, _)| *shipped == file).map(|(_, text)| (*text).to_owned());
    let text = match shipped {
        Some(text) => text,
        None if Path::new(fleet).exists() => std::fs::read_to_string(fleet)?,
        None => {
            let names: Vec<&str> = topology::FLEETS.iter().map(|(name, _)| name.trim_end_matches(".toml")).collect();
            return Err(Trouble(format!("{fleet} is neither a file nor one of {}", names.join(", "))));
        }
    };
    let begun = Instant::now();
    let mut lab = Lab::up(name, &text, wires()?)?;
    eprintln!(
        "{} stands after {:.1} s: {} hosts",
        lab.fleet.name,
        begun.elapsed().as_secs_f64(),
        lab.fleet.hosts.len()
    );
    if with_mesh {
        let outside = lab.found(&Common::default())?;
        eprintln!("its mesh stands after {:.1} s", begun.elapsed().as_secs_f64());
        for host in outside {
            eprintln!("note: {host} reaches no member of the mesh and has not joined");
        }
    }
    lab.keep()
}

fn sh(lab: &Lab, host: &str, words: &[&str]) -> Done<Option<()>> {
    let words = if words.is_empty() { &["bash"] } else { words };
    let mut command = lab.command_with(host, mesh(), words)?;
    Err(Trouble(format!("{host}: {}", command.exec())))
}

fn boot(lab: &mut Lab, host: &str) -> Done {
    lab.boot(host)?;
    if lab.has_mesh(host) {
        lab.mesh_up(host)?;
    }
    Ok(())
}

fn down(name: &str) -> Done {
    for stale in state::remove_stale() {
        eprintln!("removed {stale}, which nobody owns any more");
    }
    state::remove(name)
}

fn be_a_wire(ends: &Ends) -> Done {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        if let Ok(Ok(())) = told.recv() {
            let _ = writeln!(std::io::stdout(), "ready");
        }
    });
    wire::run(ends, &tell)
}

fn status(lab: &Lab) -> Done {
    let state = lab.state();
    let mut out = std::io::stdout().lock();
    let owner = state.owner.map_or(String::new(), |p| format!(", owned by process {}", p.pid));
    writeln!(out, "lab {}: {}{owner}", state.name, lab.fleet.name)?;
    for (name, network) in &lab.fleet.networks {
        let off = if state.faults.off.contains(name) { "  off" } else { "" };
        let loss = state.faults.loss_per_mille.get(name).copied().unwrap_or(network.loss_per_mille);
        let loss = if loss > 0 { format!("  {} % lost", f64::from(loss) / 10.0) } else { String::new() };
        let delay = if network.round_trip_ms > 0 { format!("  {} ms", network.round_trip_ms) } else { String::new() };
        let line = format!("network  {name:<18} {:<18}{delay}{loss}{off}", network.cidr.to_string());
        writeln!(out, "{}", line.trim_end())?;
    }
    for host in &lab.fleet.hosts {
        let addresses: Vec<String> = host.addresses.values().map(ToString::to_string).collect();
        let place = host.shares.as_ref().map_or(addresses.join(" "), |of| format!("on {of}"));
        let what = match (lab.runs(&host.name), lab.down().contains(&host.name)) {
            (true, _) => lab.processes(&host.name).join(" "),
            (false, true) => "no power".into(),
            (false, false) => "crashed".into(),
        };
        writeln!(out, "{}", format!("host     {:<18} {place:<28}  {what}", host.name).trim_end())?;
    }
    for (one, other) in state.faults.networks.iter().chain(&state.faults.pairs) {
        writeln!(out, "cut      {one} | {other}")?;
    }
    Ok(())
}

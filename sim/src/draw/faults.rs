//! Faults of hosts, disks, clocks and networks, each with its end.
//!
//! A fault that hits whoever leads cannot name in advance whom to mend: its end is tried on every host,
//! and is skipped where there is nothing to end.

use super::Draft;
use crate::action::{Action, LEADER};

/// A fault of a host, and what ends it.
fn on_host(draft: &mut Draft<'_>, begin: fn(String) -> Action, end: fn(String) -> Action) {
    let (at, host) = (draft.moment(), draft.host_or_leader());
    let lasting = draft.lasting();
    draft.push(at, begin(host.clone()));
    let Some(lasting) = lasting else { return };
    let whom = if host == LEADER { draft.hosts.clone() } else { vec![host] };
    for host in whom {
        draft.push(at + lasting, end(host));
    }
}

pub fn crash(draft: &mut Draft<'_>) {
    on_host(draft, |host| Action::Crash { host }, |host| Action::Start { host });
}

pub fn power_cut(draft: &mut Draft<'_>) {
    on_host(draft, |host| Action::PowerCut { host }, |host| Action::PowerOn { host });
}

pub fn suspend(draft: &mut Draft<'_>) {
    on_host(draft, |host| Action::Suspend { host }, |host| Action::Resume { host });
}

pub fn slow_sync(draft: &mut Draft<'_>) {
    let (at, host) = (draft.moment(), draft.host_or_leader());
    // A busy disk, a failing one, one that hangs for as long as a lease.
    let ms = [50, 400, 3_000][draft.dice.below(3) as usize];
    draft.push(at, Action::SlowSync { host: host.clone(), ms });
    if let (Some(lasting), true) = (draft.lasting(), host != LEADER) {
        draft.push(at + lasting, Action::SlowSync { host, ms: 0 });
    }
}

pub fn lying_sync(draft: &mut Draft<'_>) {
    let (at, host) = (draft.moment(), draft.frail.clone());
    draft.push(at, Action::LyingSync { host: host.clone(), on: true });
    // A lie shows only when the power goes.
    let cut = at + draft.dice.between(100, 8_000);
    draft.push(cut, Action::PowerCut { host: host.clone() });
    draft.push(cut, Action::LyingSync { host: host.clone(), on: false });
    if let Some(lasting) = draft.lasting() {
        draft.push(cut + lasting, Action::PowerOn { host });
    }
}

pub fn empty_disk(draft: &mut Draft<'_>) {
    let (at, host) = (draft.moment(), draft.frail.clone());
    let down = draft.dice.between(100, 5_000);
    draft.push(at, Action::Crash { host: host.clone() });
    draft.push(at + down, Action::EmptyDisk { host });
}

pub fn restore(draft: &mut Draft<'_>) {
    let (at, host) = (draft.moment(), draft.frail.clone());
    let (meanwhile, down) = (draft.dice.between(500, 15_000), draft.dice.between(10, 3_000));
    draft.push(at, Action::Backup { host: host.clone() });
    draft.push(at + meanwhile, Action::Crash { host: host.clone() });
    draft.push(at + meanwhile + down, Action::Restore { host: host.clone() });
    draft.push(at + meanwhile + down, Action::Start { host });
}

pub fn clone(draft: &mut Draft<'_>) {
    let (at, host) = (draft.moment(), draft.frail.clone());
    draft.push(at, Action::Clone { host: host.clone() });
    if let Some(lasting) = draft.lasting() {
        draft.push(at + lasting, Action::Unclone { host });
    }
}

pub fn clock_rate(draft: &mut Draft<'_>) {
    let (at, host) = (draft.moment(), draft.host_or_leader());
    // A poor crystal, a broken one, and a virtual machine that is starved.
    let ppm = [200, 5_000, 20_000][draft.dice.below(3) as usize];
    let ppm = if draft.dice.percent(50) { ppm } else { -ppm };
    draft.push(at, Action::ClockRate { host: host.clone(), ppm });
    if let (Some(lasting), true) = (draft.lasting(), host != LEADER) {
        draft.push(at + lasting, Action::ClockRate { host, ppm: 0 });
    }
}

pub fn clock_jump(draft: &mut Draft<'_>) {
    let (at, host) = (draft.moment(), draft.host_or_leader());
    // A step of NTP, a wrong time zone, a clock battery that is empty.
    let ms = match draft.dice.below(3) {
        0 => draft.dice.between(500, 60_000) as i64,
        1 => 3_600_000,
        _ => 5 * 365 * 24 * 3_600_000,
    };
    let ms = if draft.dice.percent(50) { ms } else { -ms };
    draft.push(at, Action::ClockJump { host, ms });
}

/// A pair, a host and all others, or the mesh in two parts; one way or both.
pub fn cut(draft: &mut Draft<'_>) {
    let (at, lasting, both) = (draft.moment(), draft.lasting(), draft.dice.percent(60));
    let mut all = draft.hosts.clone();
    draft.dice.shuffle(&mut all);
    let part = match draft.dice.below(4) {
        0 => {
            let (from, to) = draft.pair();
            return sever(draft, at, lasting, both, &[from], &[to]);
        }
        1 => {
            // Whoever leads is cut off from all; nobody can name the links in advance, so healing mends them.
            let leader = [LEADER.to_owned()];
            return sever(draft, at, None, both, &leader, &all);
        }
        2 => 1,
        _ => draft.dice.between(1, all.len() as u64 - 1) as usize,
    };
    let rest = all.split_off(part);
    let (from, to) = if draft.dice.percent(50) { (all, rest) } else { (rest, all) };
    sever(draft, at, lasting, both, &from, &to);
}

fn sever(draft: &mut Draft<'_>, at: u64, lasting: Option<u64>, both: bool, from: &[String], to: &[String]) {
    let links = |from: &str, to: &str| {
        if both { vec![(from, to), (to, from)] } else { vec![(from, to)] }
            .into_iter()
            .map(|(from, to)| (from.to_owned(), to.to_owned()))
            .collect::<Vec<_>>()
    };
    let links: Vec<_> = from.iter().flat_map(|from| to.iter().flat_map(move |to| links(from, to))).collect();
    for (from, to) in links {
        draft.push(at, Action::Cut { from: from.clone(), to: to.clone() });
        if let Some(lasting) = lasting {
            draft.push(at + lasting, Action::Mend { from, to });
        }
    }
}

pub fn loss(draft: &mut Draft<'_>) {
    let at = draft.moment();
    let percent = [1, 5, 20, 50][draft.dice.below(4) as usize];
    draft.push(at, Action::Loss { percent });
    if let Some(lasting) = draft.lasting() {
        draft.push(at + lasting, Action::Loss { percent: 0 });
    }
}

pub fn forget_masquerade(draft: &mut Draft<'_>) {
    let routers: Vec<String> = draft.fleet.masquerades.iter().map(|masquerade| masquerade.router.clone()).collect();
    if let Some(router) = draft.dice.one(&routers).cloned() {
        let at = draft.moment();
        draft.push(at, Action::ForgetMasquerade { router });
    }
}

pub fn network(draft: &mut Draft<'_>) {
    let overlays = draft.overlays();
    if let Some(network) = draft.dice.one(&overlays).cloned() {
        let at = draft.moment();
        draft.push(at, Action::Network { network: network.clone(), up: false });
        if let Some(lasting) = draft.lasting() {
            draft.push(at + lasting, Action::Network { network, up: true });
        }
    }
}

pub fn take_address(draft: &mut Draft<'_>) {
    let at = draft.moment();
    let (host, of) = draft.pair();
    let down = draft.dice.between(100, 10_000);
    draft.push(at, Action::Crash { host: of.clone() });
    draft.push(at + down / 2, Action::Crash { host: host.clone() });
    draft.push(at + down, Action::TakeAddress { host, of });
}

pub fn swap_addresses(draft: &mut Draft<'_>) {
    let at = draft.moment();
    let (a, b) = draft.pair();
    draft.push(at, Action::SwapAddresses { a, b });
}

//! Themes: faults that meet. A seed may have one, beside whatever else it draws.
//!
//! Most defects of a cluster need two or three things that happen close together (Yuan et al., OSDI 2014; Alquraan et
//! al., OSDI 2018): a power cut just after a commit, an order while its target moves, a host that is taken out while
//! it sleeps. Kinds drawn one by one seldom meet so within a minute. A theme draws such a meeting: which hosts, when,
//! for how long and how often is left to the dice, and nothing in it knows the rule that might break. Themes have
//! dice of their own: a seed's other faults and its work are the same with a theme and without.

use super::ground::builds;
use super::{Draft, Kind, fault};
use crate::action::{Action, Forgery, LEADER, Task};

/// Everything that can be a theme; `--faults` takes them as well.
pub const THEMES: &[Kind] = &[
    fault("blackout", "theme: a site with busy disks loses its power in the middle of work", blackout),
    fault("upgrade", "theme: daemons are restarted together while the leader is out of reach", upgrade),
    fault("blind-spot", "theme: one or two hosts miss another, which all others hear", blind_spot),
    fault("ghost", "theme: a host is taken out while it is away, and comes back", ghost),
    fault("absence", "theme: a host is away while others are taken out, and whoever leads is lost", absence),
    fault("moving-day", "theme: addresses move, and orders are issued for those that moved", moving_day),
    fault("late-word", "theme: leaders change, targets are away, and old words arrive late", late_word),
    fault("bad-tree", "theme: most packages of a tree fail, and good ones come after them", bad_tree),
    fault("new-addresses", "theme: all hosts get others' addresses, one pair after another", new_addresses),
    fault("tall-tales", "theme: hosts claim addresses that are nobody's", tall_tales),
    fault("cursed", "theme: a build or two that no host can bring to an end", cursed),
    fault("second-thoughts", "theme: builds are cancelled or fail, and are built again", second_thoughts),
];

/// Seeds of a hundred that have a theme.
pub(super) const THEMED: u64 = 40;

/// A moment that leaves so much of the safety phase for what follows, if the phase is that long.
fn early(draft: &mut Draft<'_>, leaves_ms: u64) -> u64 {
    let end = draft.safety_ms.saturating_sub(leaves_ms).max(3_000);
    draft.dice.between(500, end)
}

fn order(draft: &mut Draft<'_>, at: u64, host: &str) {
    let restart = draft.dice.percent(40);
    draft.push(at, Action::Order { host: host.to_owned(), restart });
}

fn task(name: String, takes_ms: u64, exit: i32) -> Task {
    Task { name, takes_ms, exit, needs: vec![], breaks_on: vec![] }
}

/// Gives builds to the mesh under a request of their own, and remembers them for who cancels or retries.
fn give(draft: &mut Draft<'_>, at: u64, host: &str, make: impl FnOnce(&str) -> Vec<Task>) -> Vec<String> {
    let number = draft.requests.len() as u64 + 1;
    let tasks = make(&format!("r{number}"));
    let names: Vec<String> = tasks.iter().map(|task| task.name.clone()).collect();
    for name in &names {
        draft.tasks.insert(name.clone(), (host.to_owned(), at));
    }
    draft.submitted(number, host, tasks, at);
    names
}

fn link(draft: &mut Draft<'_>, at: u64, until: u64, from: &str, to: &str) {
    draft.push(at, Action::Cut { from: from.to_owned(), to: to.to_owned() });
    draft.push(until, Action::Mend { from: from.to_owned(), to: to.to_owned() });
}

/// Cuts a host off from all others, or only what it sends or hears.
fn isolate(draft: &mut Draft<'_>, at: u64, until: u64, host: &str) {
    let (out, back) = [(true, true), (true, true), (true, false), (false, true)][draft.dice.below(4) as usize];
    for other in draft.hosts.clone().iter().filter(|other| *other != host) {
        if out {
            link(draft, at, until, host, other);
        }
        if back {
            link(draft, at, until, other, host);
        }
    }
}

/// Has a host be away for a while: dead, without power, standing still or cut off.
fn away(draft: &mut Draft<'_>, at: u64, until: u64, host: &str) {
    let host = host.to_owned();
    let (begin, end) = match draft.dice.below(4) {
        0 => (Action::Crash { host: host.clone() }, Action::Start { host }),
        1 => (Action::PowerCut { host: host.clone() }, Action::PowerOn { host }),
        2 => (Action::Suspend { host: host.clone() }, Action::Resume { host }),
        _ => return isolate(draft, at, until, &host),
    };
    draft.push(at, begin);
    draft.push(until, end);
}

/// Whoever leads is lost for a while. Nobody can name it in advance: its return is tried on every host.
fn unseat(draft: &mut Draft<'_>, at: u64, until: u64) {
    let leader = || LEADER.to_owned();
    let (begin, end): (_, fn(String) -> Action) = match draft.dice.below(3) {
        0 => (Action::Crash { host: leader() }, |host| Action::Start { host }),
        1 => (Action::PowerCut { host: leader() }, |host| Action::PowerOn { host }),
        _ => (Action::Suspend { host: leader() }, |host| Action::Resume { host }),
    };
    draft.push(at, begin);
    for host in draft.hosts.clone() {
        draft.push(until, end(host));
    }
}

fn blackout(draft: &mut Draft<'_>) {
    let at = early(draft, 12_000);
    // Work keeps disks busy: what is written waits.
    let (busy, ms) = (at.saturating_sub(draft.dice.between(200, 3_000)), draft.dice.between(100, 2_000));
    for host in draft.hosts.clone() {
        if draft.dice.percent(80) {
            draft.push(busy, Action::SlowSync { host, ms });
        }
    }
    for _ in 0..draft.dice.between(1, 3) {
        let (given, host) = (at.saturating_sub(draft.dice.below(1_500)), draft.host_or_leader());
        give(draft, given, &host, |r| (0..3).map(|n| task(format!("{r}-{n}"), 1_500 * n + 50, 0)).collect());
    }
    let back = at + draft.dice.between(200, 8_000);
    for host in draft.hosts.clone() {
        if draft.dice.percent(90) {
            let (off, on) = (at + draft.dice.below(60), back + draft.dice.below(1_000));
            draft.push(off, Action::PowerCut { host: host.clone() });
            draft.push(on, Action::PowerOn { host: host.clone() });
            draft.push(on, Action::SlowSync { host, ms: 0 });
        }
    }
}

fn upgrade(draft: &mut Draft<'_>) {
    for _ in 0..draft.dice.between(1, 3) {
        let at = early(draft, 10_000);
        let until = at + draft.dice.between(4_000, 12_000);
        let all = draft.hosts.clone();
        // A host that is out of reach is not upgraded: one by its name, or whoever leads then.
        let mut upgraded = all.clone();
        if draft.dice.percent(40) {
            for host in &all {
                draft.push(at, Action::Cut { from: LEADER.to_owned(), to: host.clone() });
                draft.push(at, Action::Cut { from: host.clone(), to: LEADER.to_owned() });
            }
            for from in &all {
                for to in all.iter().filter(|to| *to != from) {
                    draft.push(until, Action::Mend { from: from.clone(), to: to.clone() });
                }
            }
            upgraded.retain(|_| draft.dice.percent(70));
        } else {
            let host = draft.host();
            upgraded.retain(|one| *one != host);
            isolate(draft, at, until, &host);
        }
        let begin = at + draft.dice.below(600);
        for host in upgraded {
            let (down, takes) = (begin + draft.dice.below(400), draft.dice.between(20, 400));
            draft.push(down, Action::Crash { host: host.clone() });
            draft.push(down + takes, Action::Start { host });
        }
    }
}

fn blind_spot(draft: &mut Draft<'_>) {
    let mut all = draft.hosts.clone();
    draft.dice.shuffle(&mut all);
    let Some(missed) = all.pop() else { return };
    let at = early(draft, 12_000);
    let until = at + draft.dice.between(3_000, 30_000);
    // It is never so that nobody is left who hears it.
    let blind = 1 + usize::from(all.len() >= 3 && draft.dice.percent(60));
    for other in all.iter().take(blind) {
        let ways = draft.dice.below(3);
        if ways != 1 {
            link(draft, at, until, &missed, other);
        }
        if ways != 0 {
            link(draft, at, until, other, &missed);
        }
    }
    // Who hears it is asked, and may be slow to answer.
    if draft.dice.percent(30) {
        draft.push(at, Action::Loss { percent: 5 });
        draft.push(until, Action::Loss { percent: 0 });
    }
}

fn ghost(draft: &mut Draft<'_>) {
    let founder = draft.hosts[0].clone();
    let host = draft.host();
    let left: Vec<&String> = draft.hosts.iter().filter(|one| **one != host && !draft.gone.contains(*one)).collect();
    if host == founder || left.len() < 2 || !left.iter().any(|one| builds(draft.fleet, one)) {
        return;
    }
    draft.gone.insert(host.clone());
    let at = early(draft, 15_000);
    let out = at + draft.dice.between(0, 3_000);
    let back = out + draft.dice.between(100, 10_000);
    away(draft, at, back, &host);
    draft.push(out, Action::Evict { host: host.clone(), by: founder.clone() });
    // A refused eviction is asked for again; a voter has given its seat by then.
    draft.push(out + 2_000, Action::Evict { host: host.clone(), by: founder });
    if draft.dice.percent(50) {
        let (again, until) = (back + draft.dice.between(500, 5_000), back + draft.dice.between(6_000, 12_000));
        away(draft, again, until, &host);
    }
}

fn absence(draft: &mut Draft<'_>) {
    let founder = draft.hosts[0].clone();
    let mut others: Vec<String> = draft.hosts[1..].iter().filter(|one| !draft.gone.contains(*one)).cloned().collect();
    draft.dice.shuffle(&mut others);
    let Some(absent) = others.pop() else { return };
    let at = early(draft, 20_000);
    let mut out = at + draft.dice.between(100, 2_000);
    let mut taken = vec![];
    // Two stay at least beside it, one of which builds.
    for _ in 0..draft.dice.between(1, 3) {
        let Some(host) = others.pop() else { break };
        if others.is_empty() || !others.iter().chain([&founder]).any(|one| builds(draft.fleet, one)) {
            break;
        }
        draft.gone.insert(host.clone());
        draft.push(out, Action::Evict { host: host.clone(), by: founder.clone() });
        taken.push(host);
        out += draft.dice.between(1_000, 4_000);
    }
    // A refused eviction is asked for again; a voter has given its seat by then.
    for host in taken {
        draft.push(out, Action::Evict { host, by: founder.clone() });
    }
    let lost = out + draft.dice.between(500, 4_000);
    let found = lost + draft.dice.between(6_000, 15_000);
    let back = found + draft.dice.between(0, 5_000);
    away(draft, at, back, &absent);
    unseat(draft, lost, found);
}

fn moving_day(draft: &mut Draft<'_>) {
    for _ in 0..draft.dice.between(2, 5) {
        let at = early(draft, 4_000);
        let (a, b) = draft.pair();
        if draft.dice.percent(30) {
            let overlays = draft.overlays();
            if let Some(network) = draft.dice.one(&overlays).cloned() {
                let up = at + draft.dice.between(2_000, 20_000);
                draft.push(at.saturating_sub(1_000), Action::Network { network: network.clone(), up: false });
                draft.push(up, Action::Network { network, up: true });
            }
        }
        match draft.dice.below(3) {
            0 => {
                draft.push(at, Action::Crash { host: a.clone() });
                let back = at + draft.dice.between(1_000, 8_000);
                draft.push(back, Action::Start { host: a.clone() });
            }
            _ => draft.push(at, Action::SwapAddresses { a: a.clone(), b: b.clone() }),
        }
        for host in [a, b] {
            for _ in 0..draft.dice.between(1, 3) {
                let then = at + draft.dice.between(20, 4_000);
                order(draft, then, &host);
            }
        }
    }
}

fn new_addresses(draft: &mut Draft<'_>) {
    let mut all = draft.hosts.clone();
    draft.dice.shuffle(&mut all);
    let (mut at, pause) = (early(draft, 15_000), draft.dice.between(100, 4_000));
    for n in (0..all.len()).step_by(2) {
        // The last of an odd number gets that of the first.
        let other = if n + 1 < all.len() { n + 1 } else { 0 };
        draft.push(at, Action::SwapAddresses { a: all[n].clone(), b: all[other].clone() });
        at += pause;
    }
}

fn tall_tales(draft: &mut Draft<'_>) {
    for _ in 0..draft.dice.between(1, 4) {
        let (at, host) = (draft.moment(), draft.host());
        draft.push(at, Action::Forge { host, what: Forgery::Addresses });
    }
}

fn late_word(draft: &mut Draft<'_>) {
    let mut at = draft.dice.between(500, 4_000);
    // Who is asked for something again and again, and is not always there.
    let targets = [draft.host(), draft.host()];
    while at + 8_000 < draft.safety_ms {
        let host = targets[draft.dice.below(2) as usize].clone();
        if draft.dice.percent(60) {
            let back = at + draft.dice.between(500, 6_000);
            away(draft, at, back, &host);
        }
        let ordered = at + draft.dice.between(10, 800);
        order(draft, ordered, &host);
        let (given, by) = (at + draft.dice.below(1_000), draft.host());
        give(draft, given, &by, |r| (0..4).map(|n| task(format!("{r}-{n}"), 700 * n + 300, 0)).collect());
        if draft.dice.percent(70) {
            let (lost, lasts) = (at + draft.dice.between(100, 1_500), draft.dice.between(5_000, 9_000));
            unseat(draft, lost, lost + lasts);
        }
        at += draft.dice.between(7_000, 13_000);
        order(draft, at.saturating_sub(400), &host);
        let (late, whose) = (at.saturating_sub(draft.dice.below(300)), draft.host());
        draft.push(late, Action::ReplayLate { host: whose });
    }
}

fn bad_tree(draft: &mut Draft<'_>) {
    let (at, host) = (early(draft, 20_000), draft.host());
    let (count, everywhere) = (draft.dice.between(12, 60), draft.dice.percent(30));
    let all = draft.hosts.clone();
    let mut bad: Vec<(u64, bool)> = vec![];
    for _ in 0..count {
        bad.push((draft.dice.between(50, 600), draft.dice.percent(90)));
    }
    give(draft, at, &host, |r| {
        let make = |(n, (takes, fails)): (usize, &(u64, bool))| {
            let breaks_on = if *fails && everywhere { all.clone() } else { vec![] };
            Task { breaks_on, ..task(format!("{r}-{n}"), *takes, i32::from(*fails && !everywhere)) }
        };
        bad.iter().enumerate().map(make).collect()
    });
    let (then, host) = (at + draft.dice.between(5_000, 15_000), draft.host());
    give(draft, then, &host, |r| (0..4).map(|n| task(format!("{r}-{n}"), 300, 0)).collect());
}

fn cursed(draft: &mut Draft<'_>) {
    let (at, host, all) = (early(draft, 20_000), draft.host(), draft.hosts.clone());
    let (count, takes) = (draft.dice.between(1, 2), draft.dice.between(50, 2_000));
    let make = |r: &str, n: u64| Task { breaks_on: all.clone(), ..task(format!("{r}-{n}"), takes, 0) };
    give(draft, at, &host, |r| (0..count).map(|n| make(r, n)).collect());
}

fn second_thoughts(draft: &mut Draft<'_>) {
    for _ in 0..draft.dice.between(1, 3) {
        let (at, host) = (early(draft, 12_000), draft.host());
        let mut tasks = vec![];
        for _ in 0..draft.dice.between(2, 5) {
            let fails = draft.dice.percent(50);
            tasks.push((draft.dice.between(50, if fails { 500 } else { 8_000 }), fails));
        }
        let make = |r: &str| {
            let one = |(n, (takes, fails)): (usize, &(u64, bool))| task(format!("{r}-{n}"), *takes, i32::from(*fails));
            tasks.iter().enumerate().map(one).collect()
        };
        let names = give(draft, at, &host, make);
        for (name, (_, fails)) in names.into_iter().zip(&tasks) {
            let stopped = at + draft.dice.between(100, 3_000);
            if !fails && draft.dice.percent(50) {
                draft.push(stopped, Action::Cancel { host: host.clone(), task: name.clone() });
            }
            for n in 1..=draft.dice.between(1, 2) {
                let (again, by) = (stopped + n * draft.dice.between(1_000, 4_000), draft.host_or_leader());
                draft.push(again, Action::Retry { host: by, task: name.clone() });
            }
        }
    }
}

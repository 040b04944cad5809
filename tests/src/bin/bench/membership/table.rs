//! The report: one table of times, one of what idleness costs, and the goals with what was measured.

use super::Figures;
use crate::stats::{at, pair};
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// What there is in a folder, by size and name.
pub fn read(folder: &Path) -> Vec<Figures> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    let json = files.filter(|f| f.extension().is_some_and(|e| e == "json"));
    let mut all: Vec<Figures> = json
        .map(|file| {
            let text = fs::read_to_string(&file).expect("readable");
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
        })
        .collect();
    all.sort_by(|a, b| (a.hosts, &a.swarm).cmp(&(b.hosts, &b.swarm)));
    all
}

/// The report, in Markdown.
pub fn table(all: &[Figures]) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "| hosts | who | all joined at once: all see all, s | killed: known by all, s, median / p99 | powered off: known by \
         all, s, median / p99 | live hosts taken for dead at 25 % loss | sent meanwhile, B/s a host |\n\
         |---:|---|---:|---:|---:|---:|---:|"
    );
    for f in all {
        let (downs, sent) = f.lossy.as_ref().map_or(("–".into(), "–".into()), |l| {
            (format!("{} in {} min", l.downs, l.minutes), format!("{:.0}", l.sent_bytes_s))
        });
        let (killed, off) = (pair(&f.killed_s, 2), pair(&f.powered_off_s, 2));
        let _ = writeln!(out, "| {} | {} | {:.1} | {killed} | {off} | {downs} | {sent} |", f.hosts, f.swarm, f.join_s);
    }
    let _ = writeln!(
        out,
        "\n| hosts | who | idle | sent, IP bytes/s | packets/s | CPU, % of a core | memory, MiB |\n|---:|---|---|---:|---:|---:|---:|"
    );
    for f in all {
        for role in ["leader", "voter", "other"] {
            let Some(row) = Row::of(f, role) else { continue };
            let what = if f.swarm == "mesh" && role == "other" { "non-voter" } else { role };
            let _ = writeln!(
                out,
                "| {} | {} | {what}, {} | {:.0} | {:.1} | {:.2} | {:.1} |",
                f.hosts, f.swarm, row.count, row.sent, row.packets, row.cpu, row.memory
            );
        }
    }
    let _ = writeln!(out, "\n| goal | measured | |\n|---|---|---|");
    for (goal, measured, unit, limit) in goals(all) {
        let verdict = if measured <= limit { "met" } else { "**falls short**" };
        let digits = if measured >= 20.0 { 0 } else { 2 };
        let _ = writeln!(out, "| {goal} | {measured:.digits$}{unit} | {verdict} |");
    }
    let repeats = all.iter().map(|f| f.repeats).min().unwrap_or_default();
    let loads: Vec<String> = all.iter().map(|f| format!("{} of {}: {}", f.swarm, f.hosts, f.load)).collect();
    let _ = writeln!(out, "\n{repeats} deaths of each kind at least. Load before each run: {}.", loads.join("; "));
    let yard = |f: &Figures| Some(format!("{} of {}: {:.2}", f.swarm, f.hosts, f.yardstick_percent?));
    let yards: Vec<String> = all.iter().filter_map(yard).collect();
    if !yards.is_empty() {
        let _ = writeln!(
            out,
            "\nA thread that woke twenty times a second and read 256 KiB took so much of a core while idleness was \
             counted: {}. It tells how quiet the machine was.",
            yards.join("; ")
        );
    }
    out
}

/// Medians over the hosts of one role.
struct Row {
    count: usize,
    sent: f64,
    packets: f64,
    cpu: f64,
    memory: f64,
}

impl Row {
    fn of(figures: &Figures, role: &str) -> Option<Row> {
        let hosts: Vec<_> = figures.idle.iter().filter(|i| i.role == role).collect();
        let middle = |what: fn(&super::Idle) -> f64| at(&hosts.iter().map(|i| what(i)).collect::<Vec<_>>(), 0.5);
        Some(Row {
            count: hosts.len(),
            sent: middle(|i| i.sent_bytes_s)?,
            packets: middle(|i| i.sent_packets_s)?,
            cpu: middle(|i| i.cpu_percent)?,
            memory: middle(|i| i.memory_mib)?,
        })
    }
}

/// What issue-sized goals there are, as far as there are figures: text, figure, unit, at most.
fn goals(all: &[Figures]) -> Vec<(String, f64, &'static str, f64)> {
    let mut goals = vec![];
    for f in all.iter().filter(|f| f.swarm == "mesh") {
        let n = f.hosts;
        let (killed, off) = if n <= 6 { (1.0, 3.0) } else { (1.5, 4.0) };
        if let Some(took) = at(&f.killed_s, 0.5) {
            goals.push((format!("{n} hosts: a killed one known by all in {killed:.1} s (median)"), took, " s", killed));
        }
        if let Some(took) = at(&f.powered_off_s, 0.5) {
            goals.push((format!("{n} hosts: one without power known by all in {off:.1} s (median)"), took, " s", off));
        }
        for (role, what, limit) in
            [("other", "a non-voter", 1_000.0), ("voter", "a voter", 1_500.0), ("leader", "the leader", 4_000.0)]
        {
            let Some(row) = Row::of(f, role) else { continue };
            goals.push((format!("{n} hosts, idle: {what} sends {:.1} kB/s", limit / 1e3), row.sent, " B/s", limit));
            goals.push((format!("{n} hosts, idle: {what} uses 0.3 % of a core"), row.cpu, " %", 0.3));
            goals.push((format!("{n} hosts, idle: {what} takes 30 MiB"), row.memory, " MiB", 30.0));
        }
        if let Some(lossy) = &f.lossy {
            let text = format!(
                "{n} hosts, {} % loss for {} minutes: nobody alive taken for dead",
                lossy.percent, lossy.minutes
            );
            goals.push((text, lossy.downs as f64, "", 0.0));
        }
    }
    goals
}

#[cfg(test)]
mod tests {
    use super::super::{Idle, Lossy};
    use super::*;

    #[test]
    fn a_goal_that_is_missed_is_said_to_be() {
        let idle = |role: &str, sent_bytes_s| Idle {
            host: "h1".into(),
            role: role.into(),
            sent_bytes_s,
            sent_packets_s: 1.0,
            cpu_percent: 0.2,
            memory_mib: 20.0,
        };
        let figures = Figures {
            swarm: "mesh".into(),
            hosts: 6,
            repeats: 1,
            load: String::new(),
            join_s: 1.0,
            killed_s: vec![0.9],
            powered_off_s: vec![3.1],
            idle: vec![idle("leader", 3_999.0), idle("other", 1_001.0)],
            yardstick_percent: None,
            lossy: Some(Lossy { minutes: 10.0, percent: 25, downs: 1, sent_bytes_s: 1.0 }),
        };
        let text = table(&[figures]);
        let verdict = |goal: &str| text.lines().find(|l| l.contains(goal)).expect("a line").contains("falls short");
        assert!(!verdict("a killed one") && verdict("one without power"), "{text}");
        assert!(!verdict("the leader sends") && verdict("a non-voter sends"), "{text}");
        assert!(verdict("nobody alive taken for dead"), "{text}");
        assert!(!text.contains("a voter"), "{text}");
    }
}

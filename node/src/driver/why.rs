//! `mesh why`: what this host has seen of another and heard said of it, and what a person should do about it. Changes
//! nothing. The story itself is kept by [`mesh::membership`]; what follows for a person is in [`advice`].

use super::Inner;
use super::shared::lock;
use super::status::state_word;
use crate::api::types::{Accuser, Chapter, Evidence, HostState, PingLead, Told, VERSION, WhyReport};
use mesh::build::BuildId;
use mesh::identity::PeerKey;
use mesh::membership::{self, State};
use std::collections::BTreeMap;

/// Codes of warnings that the story itself tells better.
const TOLD_BETTER: [&str; 3] = ["host-down", "host-suspect", "host-left"];
/// Returns from down within ten minutes from which on the host, or its link, is the matter.
const FLAPPING: u32 = 2;
/// Answers later than this are worth a word.
const LATE_MS: u64 = 1_000;
/// Builds that are named.
const BUILDS_MAX: usize = 100;

impl Inner {
    pub(super) fn make_why(&self, peer: PeerKey) -> WhyReport {
        let (voter, builds, names) = self.shared.with(|l| {
            let here = |b: &&mesh::ledger::Build| b.running().any(|a| a.host == peer);
            let builds: Vec<BuildId> = l.builds().running().filter(here).map(|b| b.id).take(BUILDS_MAX).collect();
            let names: Names = l.roster().members().map(|(k, m)| (*k, m.name.clone())).collect();
            (l.voters().voters().contains(&peer), builds, names)
        });
        let now = self.now();
        let (path, relay) = self.path_to(&peer);
        let rows = lock(&self.addresses).rows(&peer, now);
        let leads = self.leads_told(rows);
        let warnings = self.make_status().warnings;
        let healing = self.make_case(&peer);
        let host = self.name_of(&peer);
        let seen_from = self.name_of(&self.me);
        let relay = relay.map(|relay| self.name_of(&relay));
        let ms = |since: std::time::Duration| since.as_millis() as u64;
        let members = lock(&self.members);
        let view = members.host(&peer);
        let view = view.as_deref();
        // This host's own word first, as it is who is asked; the others by name.
        let mut accusers: Vec<Accuser> = members
            .accusations(&peer)
            .filter(|heard| heard.ended.is_none())
            .map(|heard| Accuser {
                host: name_in(&names, &heard.accuser),
                since_ms: ms(now.since(heard.at)),
                evidence: evidence(&heard.accusation.evidence),
            })
            .collect();
        accusers.sort_by_key(|accuser| (accuser.host != seen_from, accuser.host.clone()));
        let mut report = WhyReport {
            version: VERSION,
            peer,
            seen_from,
            state: state_word(view.map(|v| v.state)),
            since_ms: view.map_or(0, |v| ms(now.since(v.since))),
            because: view.map(|v| v.why.to_string()).unwrap_or_default(),
            heard_ms: match peer == self.me {
                true => Some(0),
                false => view.and_then(|v| v.last_heard).map(|at| ms(now.since(at))),
            },
            path,
            relay,
            round_trip_us: view.and_then(|v| v.rtt).map(|rtt| rtt.as_micros() as u64),
            late_ms: ms(members.lateness_of(&peer, now)),
            here_late_ms: ms(members.lateness(now)),
            keeps_still: members.keeps_still(now),
            one_network: members.unreachable(&peer),
            flaps: members.flaps(&peer, now) as u32,
            start: view.and_then(|v| v.incarnation).map(|i| i.start),
            voter,
            builds,
            accusers,
            story: members
                .story(&peer)
                .map(|chapter| Chapter {
                    first_ms: ms(now.since(chapter.at)),
                    last_ms: ms(now.since(chapter.last)),
                    times: chapter.times,
                    what: told_of(&names, &chapter.what),
                })
                .collect(),
            leads,
            warnings: warnings
                .into_iter()
                .filter(|w| w.host.as_ref() == Some(&host) && !TOLD_BETTER.contains(&w.code.as_str()))
                .collect(),
            healing,
            next: vec![],
            host,
        };
        drop(members);
        report.next = advice(&report);
        report
    }
}

type Names = BTreeMap<PeerKey, String>;

fn name_in(names: &Names, peer: &PeerKey) -> String {
    names.get(peer).cloned().unwrap_or_else(|| peer.short())
}

fn told_of(names: &Names, what: &membership::Told) -> Told {
    let word = |state: State| state_word(Some(state));
    match what {
        membership::Told::Accused { by, evidence: seen, counted, .. } => {
            Told::Accused { by: name_in(names, by), evidence: evidence(seen), counted: *counted }
        }
        membership::Told::Answered { asked, ended, .. } => Told::Answered { asked: *asked, ended: *ended as u32 },
        membership::Told::PassedOn => Told::PassedOn,
        membership::Told::KeptStill { silent, of } => Told::KeptStill { silent: *silent as u32, of: *of as u32 },
        membership::Told::Became { from, to, why } => {
            Told::Became { from: word(*from), to: word(*to), why: why.clone() }
        }
    }
}

fn evidence(e: &membership::Evidence) -> Evidence {
    Evidence {
        attempts: e.attempts,
        silent_ms: e.silent_ms,
        heard_ms: e.heard_ms,
        relayed: e.relayed,
        connected: e.connected,
    }
}

/// What a person should do, the first first; something in every case.
fn advice(r: &WhyReport) -> Vec<String> {
    let (host, seen_from) = (&r.host, &r.seen_from);
    let mut next = vec![];
    if r.keeps_still && host != seen_from {
        next.push(format!(
            "{seen_from} misses most hosts at once, so the fault may be its own: look at the network of {seen_from}, and \
             ask another host (`mesh why {host}` there)"
        ));
    }
    if r.warnings.iter().any(|w| w.code == "clone") {
        next.push(format!(
            "stop one of the two {host}, or `mesh evict {host}` and join it anew with a fresh state folder"
        ));
    }
    match r.state {
        HostState::Down => next.extend(advice_for_silent(r)),
        HostState::Suspect if r.heard_ms.is_none() => {
            next.push(format!(
                "{seen_from} has not heard {host} since its own start: start it there (`mesh up --detach`)"
            ));
            next.extend(moved(r));
        }
        HostState::Suspect if r.one_network => next.push(format!(
            "only hosts of one network miss {host}: look at the link between that network and the one of {host}; its \
             builds go on meanwhile"
        )),
        HostState::Suspect => {
            next.push(format!("wait some seconds: either {host} answers, or it is down and its builds go elsewhere"));
        }
        HostState::Left => {
            next.push(format!("{host} was stopped by somebody: `mesh up --detach` there starts it again"))
        }
        HostState::Alive => {}
    }
    if r.state == HostState::Alive && r.accusers.iter().any(|a| a.host != *host) {
        let names: Vec<&str> = r.accusers.iter().map(|a| a.host.as_str()).collect();
        next.push(format!("{} cannot hear {host}: look at the network between them", names.join(", ")));
    }
    if r.flaps >= FLAPPING {
        next.push(format!(
            "{host} came back {} times in ten minutes: look at its cable or Wi-Fi, its power, and whether its daemon \
             restarts (`journalctl`, daemon.log)",
            r.flaps
        ));
    } else if r.state == HostState::Alive && r.late_ms > LATE_MS && r.here_late_ms > LATE_MS {
        next.push(format!("answers come late to {seen_from} from many hosts: look at the link of {seen_from}"));
    } else if r.state == HostState::Alive && r.late_ms > LATE_MS {
        next.push(format!("answers of {host} come late: `mesh ping {host}` shows its path; look at its load and link"));
    }
    if next.is_empty() {
        next.push(match r.warnings.is_empty() {
            true => "nothing to do: it is well".to_owned(),
            false => "`mesh status` says what to do about the warnings".to_owned(),
        });
    }
    next
}

/// A host that nobody hears: what its addresses say of the machine.
fn advice_for_silent(r: &WhyReport) -> Vec<String> {
    let host = &r.host;
    let failed = |what: &str| r.leads.iter().any(|l| l.failed.as_deref() == Some(what) && l.answered_by.is_none());
    let mut next: Vec<String> = moved(r).into_iter().collect();
    next.push(match (failed("refused"), failed("no answer")) {
        (true, _) => format!(
            "the machine of {host} answers, but no daemon listens there: log in and start it (`mesh up --detach`), and read \
             the end of its daemon.log or journal"
        ),
        (false, true) => format!(
            "nothing answers at the addresses of {host}: is the machine on, is its cable or network up, does a firewall \
             drop its port?"
        ),
        (false, false) => format!("look at {host}: is it on, and does `mesh status` answer there?"),
    });
    if !r.builds.is_empty() {
        next.push("its builds need nobody: they go to other hosts".to_owned());
    }
    next.push(format!("when it is lost for good: `mesh replace {host}` lets a new machine take its place"));
    next
}

/// Another host answers at its address.
fn moved(r: &WhyReport) -> Option<String> {
    let lead: &PingLead = r.leads.iter().find(|l| l.answered_by.is_some() && l.nat_of.is_none())?;
    let other = lead.answered_by.as_deref()?;
    let host = &r.host;
    Some(format!(
        "at {} now answers {other}: has {host} another address (DHCP), or is it behind a NAT there?",
        lead.addr
    ))
}

#[cfg(test)]
#[path = "why_tests.rs"]
mod tests;

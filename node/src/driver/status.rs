//! `mesh status`: how things are, as this host sees them, and what to do next.

use super::Inner;
use super::shared::lock;
use crate::api::types::{self as api, HostState, Level, PathKind, Warning};
use crate::net::Path;
use mesh::addresses::Source;
use mesh::identity::PeerKey;
use mesh::ledger::level_of;
use mesh::membership::State;
use mesh::restraint::Restraint;
use std::collections::BTreeMap;

/// Strangers that are remembered by name; all are counted.
pub(super) const STRANGERS_MAX: usize = 16;
/// Wall clocks further apart than this are a warning.
const CLOCK_SKEW_MS: i64 = 30_000;

/// Somebody who was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// Its key, when it proved one.
    pub peer: Option<PeerKey>,
    /// Where it came from.
    pub address: String,
    /// Why it was refused.
    pub text: String,
}

/// Keeps the newest few, each once.
pub fn remember(strangers: &mut Vec<Stranger>, new: Stranger) {
    strangers.retain(|old| old.peer != new.peer || (new.peer.is_none() && old.address != new.address));
    if strangers.len() == STRANGERS_MAX {
        strangers.remove(0);
    }
    strangers.push(new);
}

/// Of whom nothing is known, nobody says that it lives.
pub(super) fn state_word(state: Option<State>) -> HostState {
    match state {
        Some(State::Alive) => HostState::Alive,
        Some(State::Down) => HostState::Down,
        Some(State::Left) => HostState::Left,
        Some(State::Suspect) | None => HostState::Suspect,
    }
}

impl Inner {
    pub(super) fn make_status(&self) -> api::Status {
        let (mesh, own_name, names, voters, leader, signers, counts, used, stuck, kept, standing) =
            self.shared.with(|ledger| {
                let names: BTreeMap<PeerKey, String> =
                    ledger.roster().members().map(|(k, m)| (*k, m.name.clone())).collect();
                let own = names.get(&self.me).cloned().unwrap_or_default();
                let mut used: BTreeMap<PeerKey, u32> = BTreeMap::new();
                for build in ledger.builds().running() {
                    for attempt in build.running() {
                        *used.entry(attempt.host).or_default() += build.spec.cores;
                    }
                }
                let view = lock(&self.view);
                let verdicts = self.judged(ledger);
                let restraint = Restraint::new(ledger, &verdicts);
                // Builds that wait for the same reason are told together; of a pause something else tells.
                let mut stuck: BTreeMap<String, (String, u32)> = BTreeMap::new();
                let waiting = ledger.builds().wanting().take(1_000).filter(|_| restraint.pause().is_none());
                for b in waiting {
                    if let Some(why) = mesh::placement::held_back(ledger, &view, &restraint, b) {
                        stuck.entry(why).or_insert_with(|| (format!("{} ({})", b.id, b.spec.name), 0)).1 += 1;
                    }
                }
                let kept: BTreeMap<PeerKey, String> =
                    names.keys().filter_map(|peer| Some((*peer, restraint.word(peer)?.to_owned()))).collect();
                let standing = self.standing(ledger, &verdicts);
                let info = api::MeshInfo { id: ledger.mesh().to_string(), name: ledger.name().to_owned() };
                let voters = ledger.voters().voters().clone();
                (
                    info,
                    own,
                    names,
                    voters,
                    ledger.leader(),
                    ledger.roster().signers(),
                    ledger.builds().counts(),
                    used,
                    stuck,
                    kept,
                    standing,
                )
            });
        let enrolled: BTreeMap<PeerKey, ([u8; 32], [u8; 16])> =
            self.shared.with(|l| l.roster().members().map(|(k, m)| (*k, (m.machine_id, m.store_id))).collect());
        let now = self.now();
        let mut warnings = vec![];
        let (standing, mut next) = standing;
        let mut hosts = vec![];
        {
            let members = lock(&self.members);
            let addresses = lock(&self.addresses);
            for (peer, name) in &names {
                let view = members.host(peer);
                let view = view.as_deref();
                let presence = view.and_then(|v| v.presence.as_ref());
                let facts = presence.map(|p| p.facts.clone()).unwrap_or_default();
                let state = state_word(view.map(|v| v.state));
                let (path, relay) = self.path_to(peer);
                let rows = addresses.rows(peer, now);
                let row = |r: mesh::addresses::Row| api::Address {
                    nat_of: r.nat_of.map(|k| names.get(&k).cloned().unwrap_or_else(|| k.short())),
                    addr: r.addr,
                    source: source_word(r.source).into(),
                    proved: r.proved,
                    age_ms: r.age_ms,
                };
                if let Some(view) = view {
                    self.warn_of_host(name, peer, view, &mut warnings, &mut next);
                    if let (Some(presence), Some(bound)) = (presence, enrolled.get(peer))
                        && (presence.machine_id, presence.store) != *bound
                    {
                        let text =
                            format!("{name} is not on the machine, or in the state folder, that it was enrolled with");
                        warnings.push(warning("machine-changed", Some(name), text));
                        next.push(format!(
                            "if {name} was moved on purpose: `mesh evict {name}`, then join it anew with a fresh state folder"
                        ));
                    }
                }
                hosts.push(api::Host {
                    name: name.clone(),
                    peer: *peer,
                    state,
                    since_ms: view.map_or(0, |v| now.since(v.since).as_millis() as u64),
                    cores: facts.cores,
                    free_cores: facts.cores.saturating_sub(used.get(peer).copied().unwrap_or(0)),
                    voter: voters.contains(peer),
                    protected: facts.protected,
                    allow_reboot: facts.allow_reboot,
                    boot_id: presence.map(|p| crate::state_folder::hex(&p.boot_id)).unwrap_or_default(),
                    boot_enabled: facts.boot_enabled,
                    path,
                    relay: relay.map(|k| names.get(&k).cloned().unwrap_or_else(|| k.short())),
                    addresses: rows.into_iter().map(row).collect(),
                    version: level_of(&facts.version).0.to_owned(),
                    kept: kept.get(peer).cloned(),
                });
            }
        }
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        let leader = self.leader_now(leader, &names);
        if leader.is_none() {
            let alive = hosts.iter().filter(|h| h.voter && h.state == HostState::Alive).count();
            let needed = voters.len() / 2 + 1;
            warnings.insert(
                0,
                warning(
                    "no-leader",
                    None,
                    format!("nobody leads: {alive} of {} voters answer, {needed} are needed", voters.len()),
                ),
            );
            next.insert(
                0,
                match alive >= needed {
                    true => "wait: an election takes a few seconds".to_owned(),
                    false => {
                        let away: Vec<&str> = hosts
                            .iter()
                            .filter(|h| h.voter && h.state != HostState::Alive)
                            .map(|h| h.name.as_str())
                            .collect();
                        let lost = match self.is_lost_majority() {
                            true => "; when they are lost for good: `mesh recover`",
                            false => "",
                        };
                        format!(
                            "start the daemon on {} (`mesh up`); nothing is lost, queued builds go on then{lost}",
                            away.join(", ")
                        )
                    }
                },
            );
        }
        if names.len() == 2 {
            let voter = hosts.iter().find(|h| h.voter).map(|h| h.name.clone()).unwrap_or_default();
            warnings.push(warning(
                "two-hosts",
                Some(&voter),
                format!("two hosts, one voter: while {voter} is away no new work is decided"),
            ));
            next.push("invite a third host, so that any one may be lost (`mesh invite NAME`)".into());
        }
        if signers < 2 && names.len() > 1 {
            warnings.push(warning(
                "few-signers",
                None,
                "only one host may invite and evict; when it is lost, nobody can".into(),
            ));
            next.push("invite another signer: `mesh invite NAME --signer`".into());
        }
        for (why, (build, count)) in stuck.into_iter().take(5) {
            let builds = if count == 1 { format!("{build} is") } else { format!("{build} and {} more are", count - 1) };
            warnings.push(warning("build-held", None, format!("{builds} not placed: {why}")));
            next.push("`mesh why BUILD` says whose fault it is that a build waits, and what to do".into());
        }
        let unheld: Vec<String> = lock(&self.unheld).iter().map(ToString::to_string).collect();
        if let [first, more @ ..] = &unheld[..] {
            let (who, verb, whose) = match more.len() {
                0 => (first.clone(), "is", "its"),
                n => (format!("{first} and {n} more"), "are", "their"),
            };
            let text = format!("{who} {verb} finished but no second host can hold {whose} outputs; bring one up");
            warnings.push(warning("no-second-holder", Some(&own_name), text));
            let away: Vec<&str> = hosts.iter().filter(|h| h.path == PathKind::None).map(|h| h.name.as_str()).collect();
            next.push(match away[..] {
                [] => {
                    "make room on the disks of the other hosts (`df`): builds cannot end without a second copy".into()
                }
                _ => format!("start the daemon on {}, so that builds can end there", away.join(" or ")),
            });
        }
        for (peer, (why, voted)) in self.consensus.refused() {
            let name = names.get(&peer).cloned().unwrap_or_else(|| peer.short());
            warnings.push(warning(
                "log-went-back",
                Some(&name),
                format!("{name} is sent nothing of the ledger, and gets no work and no vote: {why}"),
            ));
            next.push(match voted {
                true => format!("`mesh evict {name}`, then join it anew with a fresh state folder"),
                false => format!("wait: {name} is sent the ledger anew; check its disk, and whether it runs twice"),
            });
        }
        self.warn_of_refusals(&names, &mut warnings, &mut next);
        self.warn_of_strangers(&mut warnings, &mut next);
        self.warn_of_successors(&mut warnings);
        self.warn_of_papers(&own_name, &mut warnings);
        self.warn_of_recoveries(&mut warnings, &mut next);
        for (host, blobs) in lock(&self.corrupt).iter() {
            let name = names.get(host).cloned().unwrap_or_else(|| host.short());
            warnings.push(warning(
                "corrupt-blob",
                Some(&name),
                format!("{name} had {blobs} damaged blobs (bytes that did not match their hash); they were taken from elsewhere"),
            ));
            next.push(format!("check the disk of {name}"));
        }
        next.dedup();
        let total = hosts.iter().map(|h| h.cores).sum();
        let alive = hosts.iter().filter(|h| h.state == HostState::Alive).map(|h| h.cores).sum();
        api::Status {
            version: api::VERSION,
            mesh,
            host: own_name,
            leader,
            hosts,
            cores: api::Cores { total, alive },
            builds: api::BuildCounts {
                queued: counts.queued,
                running: counts.running,
                done: counts.done,
                failed: counts.failed,
                cancelled: counts.cancelled,
            },
            strangers: self.net.strangers(),
            standing,
            warnings,
            next,
        }
    }

    /// How a host is reached now, and through whom.
    pub(super) fn path_to(&self, peer: &PeerKey) -> (PathKind, Option<PeerKey>) {
        match self.net.path(*peer) {
            _ if *peer == self.me => (PathKind::Own, None),
            Some(Path::Direct) => (PathKind::Direct, None),
            Some(Path::Relayed(relay)) => (PathKind::Relay, relay),
            None => (PathKind::None, None),
        }
    }

    /// The leader, as long as there is reason to believe that it leads.
    fn leader_now(
        &self,
        leader: Option<(PeerKey, mesh::lease::Fence)>,
        names: &BTreeMap<PeerKey, String>,
    ) -> Option<api::Leader> {
        let (peer, fence) = leader?;
        let mine = self.consensus.grant();
        let lease_ms = match peer == self.me {
            true => mine?.until.since(self.consensus.now()).as_millis() as u64,
            false => 0,
        };
        // Somebody else's lease cannot be seen from here; that consensus still hears it can.
        if self.consensus.leader() != Some(peer) || (peer != self.me && !self.hears(&peer)) {
            return None;
        }
        let host = names.get(&peer).cloned().unwrap_or_else(|| peer.short());
        Some(api::Leader { host, peer, epoch: fence.epoch, term: fence.term, lease_ms })
    }

    /// Whether a leader is heard, for all that is known here. Who is doubted and has no connection with this host sends
    /// it nothing, also when this host may be the one that is cut off and judges nobody.
    fn hears(&self, peer: &PeerKey) -> bool {
        match lock(&self.members).host(peer).map(|h| h.state) {
            Some(State::Alive) => true,
            Some(State::Suspect) => self.net.is_connected(*peer),
            Some(State::Down | State::Left) | None => false,
        }
    }

    fn warn_of_host(
        &self,
        name: &str,
        peer: &PeerKey,
        view: &mesh::membership::HostView,
        warnings: &mut Vec<Warning>,
        next: &mut Vec<String>,
    ) {
        match view.state {
            State::Down => {
                warnings.push(warning("host-down", Some(name), format!("{name} is down: {}", view.why)));
                next.push(format!("look at {name}: is it on, and does `mesh status` answer there?"));
            }
            State::Suspect => {
                let why = if view.why.is_empty() { "not heard yet" } else { &view.why };
                warnings.push(warning("host-suspect", Some(name), format!("{name} does not answer: {why}")));
            }
            State::Left => warnings.push(warning("host-left", Some(name), format!("{name} has stopped by itself"))),
            State::Alive => {}
        }
        if view.cloned {
            warnings.push(warning(
                "clone",
                Some(name),
                format!(
                    "the key of {name} is alive twice: a cloned disk or a restored backup; it gets no work and no vote"
                ),
            ));
            next.push(format!(
                "stop one of the two {name}, or `mesh evict {name}` and join it anew with a fresh state folder"
            ));
        }
        if let Some(offset) = view.wall_offset_ms
            && offset.abs() > CLOCK_SKEW_MS
            && *peer != self.me
        {
            warnings.push(warning(
                "clock",
                Some(name),
                format!("the clock of {name} is {} s off ours", offset / 1_000),
            ));
            next.push(format!("set the clock of {name} (is a time service running?)"));
        }
        if let Some(presence) = &view.presence {
            if presence.facts.boot_enabled == Some(false) {
                warnings.push(warning(
                    "not-at-boot",
                    Some(name),
                    format!("{name} will not start the mesh when it boots"),
                ));
                next.push(format!("`mesh install` on {name}, as root"));
            }
            let (version, _) = level_of(&presence.facts.version);
            if version != env!("CARGO_PKG_VERSION") {
                let text = format!("{name} runs version {version}, this host {}", env!("CARGO_PKG_VERSION"));
                warnings.push(warning("version", Some(name), text));
            }
        }
    }

    fn warn_of_refusals(&self, names: &BTreeMap<PeerKey, String>, warnings: &mut Vec<Warning>, next: &mut Vec<String>) {
        let others = self.others();
        let outcast = lock(&self.outcast);
        for (peer, text) in outcast.words(&others) {
            let name = names.get(peer).cloned().unwrap_or_else(|| peer.short());
            warnings.push(warning("revoked", Some(&name), format!("{name} no longer lets this host in: {text}")));
            next.push(
                "ask whoever runs the mesh whether this host was evicted; it stops when most members say so".into(),
            );
        }
    }

    fn warn_of_strangers(&self, warnings: &mut Vec<Warning>, next: &mut Vec<String>) {
        let count = self.net.strangers();
        if count == 0 {
            return;
        }
        let strangers = lock(&self.strangers);
        let latest = strangers.last().map(|s| {
            let who = s.peer.map_or_else(|| "an unknown program".to_owned(), |p| p.to_string());
            format!("; the latest: {who} from {} ({})", s.address, s.text)
        });
        let text = format!("{count} connections by strangers were refused{}", latest.unwrap_or_default());
        warnings.push(warning("stranger", None, text));
        next.push("if one of them is yours, let it join with `mesh invite NAME`".into());
    }
}

/// Codes of what is worth knowing while all is well. Everything else is wrong now.
const NOTES: [&str; 5] = ["few-signers", "not-at-boot", "stranger", "two-hosts", "version"];

fn warning(code: &str, host: Option<&str>, text: String) -> Warning {
    let level = if NOTES.contains(&code) { Level::Note } else { Level::Warning };
    Warning { code: code.into(), level, host: host.map(str::to_owned), text }
}

pub(super) fn source_word(source: Source) -> &'static str {
    match source {
        Source::Configured => "configured",
        Source::Invitation => "invitation",
        Source::Interface => "interface",
        Source::Gossip => "gossip",
        Source::Identify => "identify",
        Source::Mdns => "mdns",
        Source::Relay => "relay",
        Source::Observed => "observed",
    }
}

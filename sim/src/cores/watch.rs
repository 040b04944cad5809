//! What a process believes of others: probes, gossip, addresses, dials. After `node::driver::watch`.

use super::host::{Env, Line, Process};
use super::message::{Message, NoWay, Said};
use crate::invariants::Fact;
use mesh::addresses::{Failure, Kept, Source};
use mesh::identity::PeerKey;
use mesh::ledger::Changes;
use mesh::membership::{Input, Members, Output, PresenceFacts, State};
use mesh::placement::{HostNow, View};
use mesh::roster::VoterChange;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

/// A connection on which nothing was heard for so long is dead, whatever the kernel thinks.
const DEAD_AFTER: Duration = Duration::from_secs(15);
/// How often where others are is kept: a node does so when it changes.
const KEEP_EVERY: Duration = Duration::from_secs(1);

impl Process {
    /// Says something to a peer on the oldest connection.
    pub(super) fn send(&mut self, env: &mut Env<'_>, to: PeerKey, message: Message) -> bool {
        let fits = |line: &&Line| line.member || message.brings_the_log();
        let Some(line) = self.lines.get(&to).and_then(|lines| lines.iter().find(fits)).copied() else { return false };
        self.spoke(env, to, &message);
        env.cx.send(line.id, line.end, message);
        true
    }

    /// Tells the jury of a protocol that was opened: once a connection and protocol would do, once a second does.
    pub(super) fn spoke(&mut self, env: &mut Env<'_>, with: PeerKey, message: &Message) {
        let second = env.cx.now / 1_000_000 + 1;
        let protocol = message.protocol().len() as u64 ^ u64::from(message.protocol().as_bytes()[0]) << 8;
        let known = self.known.entry(with).or_default();
        if *known != (second, protocol) {
            *known = (second, protocol);
            let host = env.m.name.clone();
            env.cx.fact(Fact::Spoke { host, with });
        }
    }

    /// Does what the core asks for.
    pub(super) fn drain(&mut self, env: &mut Env<'_>) -> bool {
        let (mut news, mut did) = (false, false);
        while let Some(output) = self.members.poll() {
            did = true;
            match output {
                Output::Probe { to, bytes } => {
                    self.send(env, to, Message::Probe(bytes));
                }
                Output::Reply { to, bytes } => {
                    self.send(env, to, Message::Reply(bytes));
                }
                Output::Digest { to, bytes } => {
                    self.send(env, to, Message::Digest(bytes));
                }
                Output::Reach(peer) => self.dial(env, peer),
                Output::Publish(bytes) => {
                    let said = env.cx.said(bytes);
                    env.cx.keep(self.host, &said);
                    self.gossiped(env, None, &said);
                }
                Output::Changed { peer, to, .. } => {
                    news = true;
                    let host = env.m.name.clone();
                    env.cx.fact(Fact::Believes { host, of: peer, state: to });
                    if to == State::Down {
                        self.disconnect(env, peer);
                    }
                }
                Output::Presence(peer) => {
                    news = true;
                    let listed =
                        self.members.host(&peer).and_then(|h| h.presence.as_ref().map(|p| p.facts.addresses.clone()));
                    if peer != self.me {
                        let now = self.now(env);
                        self.addresses.learn_presence(peer, &listed.unwrap_or_default(), now);
                    }
                }
                Output::Restarted { .. } | Output::Clone { .. } => news = true,
            }
        }
        if news {
            self.refresh_view(env);
        }
        did
    }

    /// A statement from a peer, or our own: to the core when it is new, and on to everybody else who is near.
    pub(super) fn gossiped(&mut self, env: &mut Env<'_>, from: Option<PeerKey>, said: &Rc<Said>) {
        if !self.seen.insert(said.id) {
            return;
        }
        if from.is_some() {
            let Some(checked) = &said.checked else { return };
            let now = self.now(env);
            self.members.handle(Input::Checked(checked.clone()), now);
        }
        let near: Vec<PeerKey> = self.lines.keys().filter(|peer| Some(**peer) != from).copied().collect();
        for peer in near {
            self.send(env, peer, Message::Gossip(said.clone()));
        }
    }

    pub(super) fn listen(&mut self, env: &mut Env<'_>) {
        let now = self.now(env);
        let present = env.cx.net.addresses_of(self.host);
        for old in self.addresses.rows(&self.me, now).into_iter().filter(|row| !present.contains(&row.addr)) {
            self.addresses.forget_own(&old.addr);
        }
        for address in present {
            self.addresses.learn(self.me, &address, Source::Interface, None, now);
        }
        let facts = self.presence_facts(env);
        self.members.set_facts(facts, now);
    }

    /// Claims as many addresses as it may, at none of which anybody listens; until it next says where it is.
    pub(super) fn boast(&mut self, env: &mut Env<'_>) {
        let mut facts = self.presence_facts(env);
        facts.addresses.clear();
        for _ in 0..mesh::addresses::LEADS_MAX {
            let n = env.cx.dice.below(1 << 16);
            facts.addresses.push(format!("/ip4/172.31.{}.{}/tcp/7", n >> 8, n & 255));
        }
        let now = self.now(env);
        self.members.set_facts(facts, now);
        self.settle(env);
    }

    fn presence_facts(&self, env: &Env<'_>) -> PresenceFacts {
        PresenceFacts {
            name: self.ledger.roster().member(&self.me).map(|m| m.name.clone()).unwrap_or_default(),
            addresses: env.cx.net.addresses_of(self.host),
            cores: env.m.cores,
            memory_mib: 4_096,
            tags: vec!["sim".to_owned()],
            version: env!("CARGO_PKG_VERSION").into(),
            boot_enabled: Some(true),
            allow_reboot: env.m.allow_reboot,
            protected: env.m.protected,
            ..PresenceFacts::default()
        }
    }

    /// A connection stands, and both ends have admitted each other.
    pub fn connected(
        &mut self,
        env: &mut Env<'_>,
        peer: PeerKey,
        line: Line,
        seen_as: std::net::Ipv4Addr,
        address: &str,
    ) {
        let now = self.now(env);
        self.outcast.remove(&peer);
        self.lines.entry(peer).or_default().push(line);
        match line.end {
            0 => {
                self.dialling.remove(&peer);
                self.addresses.proved(peer, address, now);
            }
            _ => self.addresses.observed(peer, seen_as.into(), now),
        }
        self.members.handle(Input::Connected(peer), now);
        self.newcomers = true;
        self.leading.woken = true;
        self.settle(env);
    }

    /// This end has learned that a connection is gone.
    pub fn gone(&mut self, env: &mut Env<'_>, peer: PeerKey, id: u64) {
        let Some(lines) = self.lines.get_mut(&peer) else { return };
        lines.retain(|line| line.id != id);
        let last = lines.is_empty();
        if last {
            self.lines.remove(&peer);
            let now = self.now(env);
            self.members.handle(Input::Disconnected(peer), now);
        }
        self.lost_peer(env, peer);
        self.settle(env);
    }

    pub(super) fn disconnect(&mut self, env: &mut Env<'_>, peer: PeerKey) {
        let lines = self.lines.remove(&peer).unwrap_or_default();
        for line in &lines {
            env.cx.close(line.id, line.end);
        }
        if !lines.is_empty() {
            let now = self.now(env);
            self.members.handle(Input::Disconnected(peer), now);
            self.lost_peer(env, peer);
        }
    }

    /// What was asked of a peer on a connection that is gone has no answer.
    fn lost_peer(&mut self, env: &mut Env<'_>, peer: PeerKey) {
        self.forward_failed(env, peer);
        self.blobs_failed(env, peer);
        self.cosign_failed(env, peer);
    }

    /// A dial of ours to one address has failed.
    pub fn dial_failed(&mut self, env: &mut Env<'_>, peer: PeerKey, address: &str, why: &NoWay) {
        let now = self.now(env);
        if let Some(left) = self.dialling.get_mut(&peer) {
            *left -= 1;
            if *left == 0 {
                self.dialling.remove(&peer);
            }
        }
        let failure = match why {
            NoWay::Refused => Failure::Refused,
            NoWay::Timeout => Failure::Timeout,
            NoWay::Peer(other) => Failure::Peer(*other),
            NoWay::NotAdmitted(_) => Failure::Other("not admitted".into()),
        };
        self.addresses.failed(peer, address, failure, now);
        if matches!(why, NoWay::NotAdmitted(true)) {
            self.refused_by(peer);
        }
        self.settle(env);
    }

    /// A member refused us: one that says that we are revoked may know what no longer reaches us.
    pub fn refused_by(&mut self, peer: PeerKey) {
        self.outcast.insert(peer);
        let others = self.others();
        let words = self.outcast.intersection(&others).count();
        self.leaving |= words > others.len() / 2;
    }

    fn others(&self) -> BTreeSet<PeerKey> {
        let told = self.told.iter().filter(|_| self.ledger.index() == 0);
        let all = self.ledger.roster().members().map(|(k, _)| *k).chain(told.copied());
        all.filter(|k| *k != self.me).collect()
    }

    /// The ledger has changed.
    pub(super) fn changed(&mut self, env: &mut Env<'_>, changes: Changes) {
        self.leading.woken = true;
        if changes.roster {
            self.on_roster(env);
        }
        if changes.roster || changes.leader {
            // For the guard, which answers when this process does not.
            let known = mesh::warrant::Known::of(&self.ledger);
            env.m.disk.write(super::disk::Write::Known(known.bytes()));
        }
        self.follow_builds(env, &changes.builds);
        self.refresh_view(env);
    }

    fn on_roster(&mut self, env: &mut Env<'_>) {
        let now = self.now(env);
        let members: BTreeSet<PeerKey> = self.ledger.roster().members().map(|(k, _)| *k).collect();
        let revoked: Vec<PeerKey> = self.ledger.roster().all_revoked().map(|(k, _)| *k).collect();
        // A newcomer's ledger begins with the members of long ago: until it has come to its own enrolment, whoever it was
        // told of is heard as well, or nobody who moved meanwhile could be found.
        let behind = !members.contains(&self.me);
        let told = || self.told.iter().copied().filter(|peer| !revoked.contains(peer));
        let heard = members.iter().copied().chain(told().filter(|_| behind)).chain([self.me]);
        self.members.set_members(&Members::new(heard, self.ledger.recovery_epoch()), now);
        self.addresses.set_members(&members.iter().copied().chain(told()).collect());
        for peer in &members {
            for address in env.cx.configured(self.host, peer) {
                self.addresses.learn(*peer, &address, Source::Configured, None, now);
            }
        }
        // It begins with the voters of long ago as well: whoever it was told of may lead.
        let vouched = self.ledger.voters().voters().iter().copied().chain(told().filter(|_| behind)).collect();
        self.raft.vouch(self.ledger.voters().epoch(), vouched);
        for peer in revoked {
            if peer == self.me && !self.leaving {
                self.leaving = true;
                self.members.leave(now);
                self.drain(env);
                continue;
            }
            if !mesh::mutants::on(mesh::mutants::Mutant::RevocationIgnored) {
                self.disconnect(env, peer);
            }
        }
        for (peer, lines) in &mut self.lines {
            if members.contains(peer) {
                lines.iter_mut().for_each(|line| line.member = true);
                self.members.handle(Input::Connected(*peer), now);
            }
        }
        let facts = self.presence_facts(env);
        self.members.set_facts(facts, now);
    }

    /// A peer whom this host takes for a stranger shows that it votes: the links are walked from what the ledger holds.
    pub(super) fn shown_voters(&mut self, from: PeerKey, links: Vec<VoterChange>) {
        let mut chain = self.ledger.voters().clone();
        let holds = links.into_iter().all(|link| chain.follow(link).is_ok());
        if holds && chain.voters().contains(&from) && !mesh::mutants::on(mesh::mutants::Mutant::NewVotersUnheard) {
            self.raft.shown(from);
        }
    }

    pub(super) fn tick(&mut self, env: &mut Env<'_>) {
        let now = self.now(env);
        let running = self.ledger.builds().running().flat_map(|b| b.running().map(|a| (a.host, b.spec.cores)));
        let used: u32 = running.filter(|(host, _)| *host == self.me).map(|(_, cores)| cores).sum();
        if std::mem::take(&mut self.newcomers) {
            self.members.announce(now);
        }
        self.members.set_load(env.m.cores.saturating_sub(used), env.wall_ms(), now);
        let dead = |peer: &PeerKey| self.members.mute_since(peer).is_some_and(|at| now.since(at) > DEAD_AFTER);
        let dead: Vec<PeerKey> = self.lines.keys().filter(|peer| dead(peer)).copied().collect();
        for peer in dead {
            self.disconnect(env, peer);
        }
        self.retire(env);
        self.prove_orders(env);
        self.addresses.expire(now);
        self.keep_leads(env);
        for peer in self.others() {
            self.dial(env, peer);
        }
        self.refresh_view(env);
    }

    /// Keeps where peers were, over the next start: seldom, and without a sync.
    fn keep_leads(&mut self, env: &mut Env<'_>) {
        let now = self.now(env);
        if now < self.keep_leads_at {
            return;
        }
        self.keep_leads_at = now + KEEP_EVERY;
        env.m.disk.leads = Some(self.addresses.keep().encode());
    }

    /// What is torn is as good as none.
    pub(super) fn recall_leads(&mut self, env: &Env<'_>) {
        if let Some(kept) = env.m.disk.leads.as_ref().and_then(|bytes| Kept::decode(bytes).ok()) {
            let now = self.now(env);
            self.addresses.recall(&kept, now);
        }
    }

    fn dial(&mut self, env: &mut Env<'_>, peer: PeerKey) {
        if self.lines.contains_key(&peer) || self.dialling.contains_key(&peer) {
            return;
        }
        let leads = self.addresses.leads(&peer, self.now(env));
        if !leads.is_empty() {
            self.dialling.insert(peer, leads.len());
            env.cx.dial((self.host, self.generation), peer, leads);
        }
    }

    fn refresh_view(&mut self, env: &Env<'_>) {
        let now = self.now(env);
        let mut view = View::new();
        for (peer, host) in self.members.hosts() {
            let facts = host.presence.as_ref().map(|p| p.facts.clone()).unwrap_or_default();
            let seen = HostNow {
                alive: host.state == State::Alive && host.presence.is_some(),
                down: matches!(host.state, State::Down | State::Left),
                start: host.incarnation.map_or(0, |i| i.start),
                cores: facts.cores,
                memory_mib: facts.memory_mib,
                tags: facts.tags,
                allow_none: facts.allow_none,
                allow_network: facts.allow_network,
                suspended: host.cloned,
                caught_up: self.raft.is_caught_up(peer),
                steady_ms: now.since(host.since).as_millis() as u64,
                network: 0, // told to the watchers of whole nodes only
                flapping: self.members.flaps(peer, now) > mesh::placement::FLAPS_MAX,
            };
            view.insert(*peer, seen);
        }
        let like =
            |a: &HostNow, b: &HostNow| HostNow { steady_ms: 0, ..a.clone() } == HostNow { steady_ms: 0, ..b.clone() };
        let same =
            view.len() == self.view.len() && view.iter().zip(&self.view).all(|((a, x), (b, y))| a == b && like(x, y));
        self.leading.woken |= !same;
        self.view = view;
    }
}

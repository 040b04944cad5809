//! The loop that owns what this host believes of others: probes, accusations, addresses, dials.

use super::shared::lock;
use super::status::{self, Stranger};
use super::token::{named, without_peer};
use super::{INPUTS_MAX, Inner, Known, TICK, wall_ms};
use crate::net::{DialFailure, Level, Multiaddr, NetEvent, Protocol, Reason, Refusal, Stream, frame, relay_of};
use futures::future::{Either, select};
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::multiaddr::Protocol as Part;
use mesh::addresses::{self, Failure, Source};
use mesh::identity::PeerKey;
use mesh::ledger::Changes;
use mesh::membership::{DIGEST_BYTES_MAX, Input, Members, Output, PROBE_BYTES_MAX, State};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Probe messages that wait for one stream; older ones would be answered too late to matter.
const PROBES_WAITING: usize = 8;
/// A message of a comparison is worth nothing after this.
const DIGEST_WITHIN: Duration = Duration::from_secs(10);
/// Each member says anew where it is no sooner than after so long for each that there is: when many join at once,
/// everybody connects to everybody, and what all say to all grows with the square.
const ANNOUNCE_SHARE: Duration = Duration::from_millis(100);
/// A connection on which nothing was heard for so long is dead, whatever the kernel thinks.
const DEAD_AFTER: Duration = Duration::from_secs(15);
/// Between two ticks of the housekeeping while all others are connected directly and nothing happens.
const CALM_TICK: Duration = Duration::from_secs(2);
/// Between two looks at the view where nobody's state changes, at least: for what grows and ends by itself.
const VIEW_EVERY: Duration = Duration::from_secs(1);

impl Inner {
    pub(super) async fn run_watch(
        self: Arc<Self>,
        mut events: mpsc::Receiver<NetEvent>,
        mut taken: mpsc::Receiver<Input>,
        inputs: mpsc::Sender<Input>,
    ) {
        debug_assert!(inputs.max_capacity() == INPUTS_MAX);
        let (mut tick_at, mut view_at) = (Instant::now(), Instant::now());
        loop {
            if self.drain(&inputs) {
                tick_at = tick_at.min(Instant::now() + TICK);
            }
            let due =
                lock(&self.members).poll_timeout().map(|(at, _)| self.born + at.since(mesh::time::Time::default()));
            let timer = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                event = events.recv() => {
                    let Some(event) = event else { return }; // the network has ended: so do we
                    if !matches!(event, NetEvent::Gossip { .. }) {
                        tick_at = tick_at.min(Instant::now() + TICK);
                    }
                    self.on_net(event);
                }
                Some(input) = taken.recv() => lock(&self.members).handle(input, self.now()),
                changes = self.shared.changes() => {
                    tick_at = tick_at.min(Instant::now() + TICK);
                    self.on_changes(changes);
                }
                () = timer => lock(&self.members).handle_timeout(self.now()),
                () = tokio::time::sleep_until(tick_at) => {
                    let calm = self.on_tick();
                    let now = Instant::now();
                    tick_at = now + if calm { CALM_TICK } else { TICK };
                    if now + TICK / 2 >= view_at {
                        view_at = now + VIEW_EVERY;
                        self.look_again();
                    }
                }
            }
        }
    }

    /// Does what the core asks for. True when somebody's state has changed.
    fn drain(self: &Arc<Self>, inputs: &mpsc::Sender<Input>) -> bool {
        let (mut news, mut moved) = (false, false);
        loop {
            let Some(output) = lock(&self.members).poll() else { break };
            match output {
                Output::Probe { to, bytes } => self.send_probe(to, bytes, inputs),
                Output::Reply { to, bytes } => {
                    if let Some(sender) = lock(&self.probe_in).get(&to) {
                        let _ = sender.try_send(bytes); // a full queue: the watcher asks again
                    }
                }
                Output::Reach(peer) => self.dial(peer),
                Output::Publish(bytes) => {
                    self.note_statement(&bytes);
                    self.net.publish(bytes);
                }
                Output::Digest { to, bytes } => self.send_digest(to, bytes),
                Output::Changed { peer, from, to, why } => {
                    moved = true;
                    let host = self.name_of(&peer);
                    tracing::info!(host, %from, %to, why, "a host's state changed");
                    if to == State::Down {
                        self.net.disconnect(peer);
                    }
                }
                Output::Presence(peer) => {
                    news = true;
                    self.learn_presence(peer);
                }
                Output::Restarted { peer, before, start } => {
                    moved = true;
                    tracing::info!(host = self.name_of(&peer), before, start, "a host has restarted");
                }
                Output::Clone { peer, evidence } => {
                    moved = true;
                    tracing::warn!(
                        host = self.name_of(&peer),
                        ?evidence,
                        "two live starts of one key: a cloned disk or a restored backup"
                    );
                }
            }
        }
        if news || moved {
            self.refresh_view();
        }
        moved
    }

    fn on_net(self: &Arc<Self>, event: NetEvent) {
        let now = self.now();
        match event {
            NetEvent::Listening(address) => {
                tracing::info!(%address, "listening");
                lock(&self.addresses).learn(self.me, &plain(&address), Source::Interface, None, now);
                let facts = self.presence_facts();
                lock(&self.members).set_facts(facts, now);
            }
            NetEvent::NotListening(address) => {
                tracing::info!(%address, "no longer listening");
                lock(&self.addresses).forget_own(&plain(&address));
                let facts = self.presence_facts();
                lock(&self.members).set_facts(facts, now);
            }
            NetEvent::Connected { peer, level, address, dialed } => {
                tracing::debug!(host = self.name_of(&peer), ?level, %address, dialed, "connected");
                lock(&self.outcast).admitted_by(&peer);
                self.learn_path(peer, &address, dialed);
                self.tell_recovery(peer);
                lock(&self.members).handle(Input::Connected(peer), now);
                self.newcomers.store(true, Ordering::Relaxed);
                self.wake_leader.notify_one();
            }
            NetEvent::Another { peer, address, dialed } => {
                tracing::debug!(host = self.name_of(&peer), %address, dialed, "connected once more");
                self.learn_path(peer, &address, dialed);
            }
            NetEvent::Nearby { peer, address } => {
                if self.others().contains(&peer) && !is_loopback(&address) {
                    tracing::info!(host = self.name_of(&peer), %address, "mDNS says that a member is near");
                    lock(&self.addresses).learn(peer, &plain(&address), Source::Mdns, None, now);
                }
            }
            NetEvent::Reserved { relay, ended } => self.on_reserved(relay, ended),
            NetEvent::Disconnected { peer, why } => {
                tracing::debug!(host = self.name_of(&peer), why, "disconnected");
                lock(&self.probe_out).remove(&peer);
                lock(&self.members).handle(Input::Disconnected(peer), now);
            }
            NetEvent::DialFailed { peer, address, failure } => {
                tracing::debug!(host = self.name_of(&peer), ?address, %failure, "a dial failed");
                if let DialFailure::RefusedBy(refusal) = &failure {
                    self.on_refused(peer, refusal);
                }
                if let Some(address) = address {
                    self.circuit_settled(peer, &address);
                    let failure = match failure {
                        DialFailure::Refused => Failure::Refused,
                        DialFailure::Timeout => Failure::Timeout,
                        DialFailure::AnsweredBy(other) => Failure::Peer(other),
                        other => Failure::Other(other.to_string()),
                    };
                    lock(&self.addresses).failed(peer, &plain(&address), failure, now);
                    self.leads_changed.notify_one();
                }
            }
            NetEvent::Stranger { peer, address, reason, text } => {
                tracing::info!(peer = peer.map(|p| p.short()), %address, ?reason, text, "a stranger was refused");
                status::remember(&mut lock(&self.strangers), Stranger { peer, address: address.to_string(), text });
            }
            NetEvent::Rejected { peer, address, refusal } => {
                tracing::info!(host = self.name_of(&peer), %address, %refusal, "a peer did not accept our credential");
                self.on_refused(peer, &refusal);
            }
            NetEvent::Gossip { from: _, bytes } => lock(&self.members).handle(Input::Statement(bytes), now),
            NetEvent::Identified { peer, listen, .. } => {
                // Its loopback is ours to us, unless that is where we met.
                let at_home = self.net.best(peer).is_some_and(|c| is_loopback(&c.address));
                for address in listen.into_iter().filter(|a| at_home || !is_loopback(a)) {
                    lock(&self.addresses).learn(peer, &plain(&address), Source::Identify, Some(peer), now);
                }
            }
        }
    }

    /// A member refused us. One that says that we are revoked may know what no longer reaches us.
    fn on_refused(&self, peer: PeerKey, refusal: &Refusal) {
        if refusal.reason != Reason::Revoked {
            return;
        }
        if lock(&self.outcast).refused_by(peer, refusal.text.clone()) {
            tracing::warn!(host = self.name_of(&peer), %refusal, "a member says that this host was taken out of the mesh");
        }
        if self.is_outcast() {
            self.stop_as_outcast("most of the other members");
        }
    }

    /// Whether this host was taken out of the mesh, by its own ledger or by most of the others.
    pub(super) fn is_outcast(&self) -> bool {
        let others = self.others();
        lock(&self.outcast).is_certain(&others) || self.shared.with(|l| l.roster().revoked(&self.me).is_some())
    }

    fn stop_as_outcast(&self, by: &str) {
        if !self.leaving.is_cancelled() {
            tracing::warn!(
                by,
                "this host was taken out of the mesh: it stops, and needs a new invitation and a fresh state folder"
            );
            self.leaving.cancel();
        }
    }

    /// The other members, as far as this host knows.
    pub(super) fn others(&self) -> BTreeSet<PeerKey> {
        let told = self.policy.told_members();
        let mut others: BTreeSet<PeerKey> =
            self.shared.with(|l| l.roster().members().map(|(k, _)| *k).chain(told).collect());
        others.remove(&self.me);
        others
    }

    fn on_changes(self: &Arc<Self>, changes: Changes) {
        self.wake_leader.notify_one(); // what ended made room, and what was submitted wants some
        if changes.roster {
            self.on_roster();
        }
        if changes.roster || changes.leader {
            self.known_did_change();
        }
        if changes.healing || changes.leader || !changes.builds.is_empty() {
            self.wake_healer();
        }
        self.follow_builds(&changes.builds);
        self.keep_parts(changes.put_away);
        self.refresh_view();
        if let Some(text) = self.shared.with(|l| l.halted().map(str::to_owned)) {
            self.end_with(
                format!("the ledger holds entries that this version does not know: {text}"),
                "update mesh on this host",
            );
        }
    }

    fn on_roster(&self) {
        let now = self.now();
        let (members, epoch, revoked) = self.shared.with(|l| {
            let members: BTreeSet<PeerKey> = l.roster().members().map(|(k, _)| *k).collect();
            let naive = mesh::mutants::on(mesh::mutants::Mutant::RevocationIgnored);
            let revoked: Vec<PeerKey> = l.roster().all_revoked().filter(|_| !naive).map(|(k, _)| *k).collect();
            (members, l.recovery_epoch(), revoked)
        });
        lock(&self.networks).retain(|peer| members.contains(peer));
        self.settle_in(&self.heard(&members, &revoked), epoch);
        // Whom we were told of when we joined, or had found, may be missing only because our ledger is behind.
        let told = self.policy.told().chain(self.found.iter().copied()).filter(|peer| !revoked.contains(peer));
        lock(&self.addresses).set_members(&members.iter().copied().chain(told).collect());
        self.leads_changed.notify_one();
        self.learn_configured(&members);
        self.vouch();
        for peer in revoked {
            if peer == self.me {
                self.stop_as_outcast("the ledger");
            }
            self.net.revoke(peer);
        }
        for connection in self.net.connections() {
            if members.contains(&connection.peer) {
                self.net.set_level(connection.peer, Level::Member);
                // It may have connected before we knew that it is one of us.
                lock(&self.members).handle(Input::Connected(connection.peer), now);
            }
        }
        let facts = self.presence_facts();
        lock(&self.members).set_facts(facts, now);
    }

    /// Says who may lead: the voters that the ledger proves. A newcomer's ledger begins with those of long ago: until it
    /// has come to its own enrolment, whoever it was told of when it joined may lead.
    pub(super) fn vouch(&self) {
        let (chain, told) = self.shared.with(|l| {
            let behind = !l.roster().is_member(&self.me);
            let told = self.policy.told().filter(|peer| behind && l.roster().revoked(peer).is_none());
            (l.voters().clone(), told.collect())
        });
        self.consensus.vouch(chain, told);
    }

    /// The view anew, and whoever leads looks at the world, whatever has happened: what follows from time alone can wait
    /// so long.
    fn look_again(&self) {
        self.refresh_view();
        if self.consensus.leads() {
            self.wake_leader.notify_one();
            self.wake_healer();
        }
    }

    /// Housekeeping. True when there is nothing that has to be looked after soon.
    fn on_tick(self: &Arc<Self>) -> bool {
        let now = self.now();
        let used: u32 = self.shared.with(|l| {
            l.builds()
                .running()
                .flat_map(|b| b.running().map(|a| (a.host, b.spec.cores)))
                .filter(|(h, _)| *h == self.me)
                .map(|(_, c)| c)
                .sum()
        });
        let dead: Vec<PeerKey> = {
            let mut members = lock(&self.members);
            let mut announce_at = lock(&self.announce_at);
            if now >= *announce_at && self.newcomers.swap(false, Ordering::Relaxed) {
                members.announce(now); // it, and who is behind it, may not know where we are
                *announce_at = now + ANNOUNCE_SHARE * members.hosts().count() as u32;
            }
            drop(announce_at);
            members.set_load(self.facts.cores.saturating_sub(used), wall_ms(), now);
            let dead = |peer: &PeerKey| members.mute_since(peer).is_some_and(|at| now.since(at) > DEAD_AFTER);
            members.hosts().filter(|(p, h)| h.connected && dead(p)).map(|(p, _)| *p).collect()
        };
        for peer in dead {
            self.net.disconnect(peer);
        }
        lock(&self.addresses).expire(now);
        self.settle_anew();
        self.tend_paths()
    }

    /// Dials a peer at the leads whose turn it is.
    pub(super) fn dial(&self, peer: PeerKey) {
        if self.net.is_connected(peer) {
            return;
        }
        let leads = self.leads_to(&peer);
        if !leads.is_empty() {
            self.net.dial(peer, leads);
        }
    }

    /// The leads to a peer whose turn it is, without relays.
    pub(super) fn leads_to(&self, peer: &PeerKey) -> Vec<Multiaddr> {
        let leads = lock(&self.addresses).first_leads(peer, self.now());
        leads.iter().filter_map(|a| a.parse().ok()).collect()
    }

    /// How far other voters' wall clocks are ahead of ours.
    pub(super) fn wall_offsets_ms(&self, voters: &BTreeSet<PeerKey>) -> Vec<i64> {
        let members = lock(&self.members);
        voters.iter().filter(|v| **v != self.me).filter_map(|v| members.host(v)?.wall_offset_ms).collect()
    }

    /// A host's name, else the end of its peer id.
    pub(super) fn name_of(&self, peer: &PeerKey) -> String {
        let known = self.shared.with(|l| l.roster().member(peer).map(|m| m.name.clone()));
        // A host that has just joined may not find itself in its own ledger yet: its credential knows.
        known.or_else(|| self.policy.own_name().filter(|_| *peer == self.me)).unwrap_or_else(|| peer.short())
    }

    fn send_probe(self: &Arc<Self>, to: PeerKey, bytes: Vec<u8>, inputs: &mpsc::Sender<Input>) {
        self.find_way_around(to);
        let mut streams = lock(&self.probe_out);
        if streams.get(&to).is_some_and(|s| !s.is_closed()) {
            if let Some(sender) = streams.get(&to) {
                let _ = sender.try_send(bytes); // a full queue: the subject does not read, and will be missed
            }
            return;
        }
        let (sender, waiting) = mpsc::channel(PROBES_WAITING);
        let _ = sender.try_send(bytes);
        streams.insert(to, sender);
        drop(streams);
        let (this, inputs) = (self.clone(), inputs.clone());
        self.task(async move {
            if let Ok(stream) = this.net.open(to, Protocol::Probe).await {
                pump(stream, waiting, inputs, |bytes| Input::Reply { from: to, bytes }).await;
            }
        });
    }

    /// The subject's end of a probe stream.
    pub(super) async fn serve_probes(self: Arc<Self>, peer: PeerKey, stream: Stream, inputs: mpsc::Sender<Input>) {
        let (sender, waiting) = mpsc::channel(PROBES_WAITING);
        lock(&self.probe_in).insert(peer, sender);
        pump(stream, waiting, inputs, |bytes| Input::Probe { from: peer, bytes }).await;
        let mut streams = lock(&self.probe_in);
        if streams.get(&peer).is_some_and(mpsc::Sender::is_closed) {
            streams.remove(&peer);
        }
    }

    /// One message of a comparison: a stream of its own, so that it holds back no probe.
    fn send_digest(self: &Arc<Self>, to: PeerKey, bytes: Vec<u8>) {
        if !self.net.is_connected(to) {
            return; // another time, or another member
        }
        let this = self.clone();
        self.task(async move {
            let send = async {
                let mut stream = this.net.open(to, Protocol::Digest).await.map_err(std::io::Error::other)?;
                frame::write_frame(&mut stream, &bytes).await?;
                stream.close().await
            };
            if let Ok(Err(error)) = tokio::time::timeout(DIGEST_WITHIN, send).await {
                tracing::debug!(host = this.name_of(&to), %error, "a comparison was not sent");
            }
        });
    }

    /// The other end of [`Inner::send_digest`].
    pub(super) async fn serve_digest(self: Arc<Self>, from: PeerKey, mut stream: Stream, inputs: mpsc::Sender<Input>) {
        let read = tokio::time::timeout(DIGEST_WITHIN, frame::read_frame(&mut stream, DIGEST_BYTES_MAX)).await;
        if let Ok(Ok(bytes)) = read {
            let _ = inputs.send(Input::Digest { from, bytes }).await; // no loop, no need
        }
    }

    pub(super) fn learn_known(&self, known: &[Known]) {
        let now = self.now();
        let mut addresses = lock(&self.addresses);
        let members = known.iter().map(|k| k.peer).chain([self.me]).collect();
        addresses.set_members(&members);
        for k in known {
            for address in &k.addresses {
                addresses.learn(k.peer, address, Source::Invitation, None, now);
            }
        }
        drop(addresses);
        self.learn_configured(&members);
    }

    /// Members are looked for where this host's own configuration says. A lead without a name may be anybody's:
    /// each member is looked for there.
    fn learn_configured(&self, members: &BTreeSet<PeerKey>) {
        let now = self.now();
        let mut addresses = lock(&self.addresses);
        for lead in &self.config_leads {
            let named = named(lead);
            for peer in members.iter().filter(|p| **p != self.me && named.is_none_or(|n| n == **p)) {
                addresses.learn(*peer, &plain(lead), Source::Configured, None, now);
            }
        }
    }

    fn learn_presence(&self, peer: PeerKey) {
        let facts = {
            let members = lock(&self.members);
            members.host(&peer).and_then(|h| h.presence.as_ref().map(|p| p.facts.clone()))
        };
        let Some(facts) = facts else { return };
        if lock(&self.networks).learn(peer, &facts) {
            self.replaced.store(true, Ordering::Relaxed);
        }
        if peer != self.me {
            lock(&self.addresses).learn_presence(peer, &facts.addresses, self.now());
            self.leads_changed.notify_one();
        }
    }

    /// Tells the watchers who is where.
    fn settle_in(&self, members: &BTreeSet<PeerKey>, epoch: u64) {
        let placed = {
            let networks = lock(&self.networks);
            Members::placed(members.iter().map(|peer| (*peer, networks.of(peer))), epoch)
        };
        lock(&self.members).set_members(&placed, self.now());
    }

    /// The same when somebody has said that it is elsewhere: at most once a tick, for at a start everybody says so.
    fn settle_anew(&self) {
        if self.replaced.swap(false, Ordering::Relaxed) {
            let (members, epoch, revoked) = self.shared.with(|l| {
                let revoked: Vec<PeerKey> = l.roster().all_revoked().map(|(k, _)| *k).collect();
                (l.roster().members().map(|(k, _)| *k).collect(), l.recovery_epoch(), revoked)
            });
            self.settle_in(&self.heard(&members, &revoked), epoch);
        }
    }

    /// Who is heard and watched. A newcomer's ledger begins with the members of long ago: until it has come to its own
    /// enrolment, whoever it was told of counts as well, or nobody who moved meanwhile could be found.
    fn heard(&self, members: &BTreeSet<PeerKey>, revoked: &[PeerKey]) -> BTreeSet<PeerKey> {
        let behind = !members.contains(&self.me);
        let told = self.policy.told().filter(|peer| behind && !revoked.contains(peer));
        members.iter().copied().chain(told).chain(behind.then_some(self.me)).collect()
    }

    /// Where this host can be found, as it tells others: relays that it waits behind, whether it relays itself,
    /// and where it listens. Nothing that others say they have seen is in it.
    pub(super) fn own_addresses(&self) -> Vec<String> {
        let circuits = self.net.reserved().iter().map(addresses::circuit_through).collect();
        let offer = self.offers_relay().then(|| addresses::OFFER.to_owned());
        [circuits, Vec::from_iter(offer), self.own_listeners()].concat() // a long list is cut at its end
    }

    /// Where this host listens: without loopback, unless that is all there is.
    fn own_listeners(&self) -> Vec<String> {
        let all = self.net.listening();
        let outside: Vec<String> = all.iter().filter(|a| !is_loopback(a)).map(plain).collect();
        if outside.is_empty() { all.iter().map(plain).collect() } else { outside }
    }

    /// Leads to a member for somebody who joins.
    pub(super) fn leads_to_tell(&self, peer: &PeerKey) -> Vec<String> {
        if *peer == self.me {
            return self.own_listeners();
        }
        lock(&self.addresses).worth_telling(peer, self.now())
    }
}

/// An address as the table of leads has it: without the peer it ends with, and a circuit by its relay's key.
pub(super) fn plain(address: &Multiaddr) -> String {
    if let Some(relay) = relay_of(address) {
        return addresses::circuit_through(&relay);
    }
    without_peer(address).to_string()
}

pub(super) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Part::Ip4(ip) => Some(ip.into()),
        Part::Ip6(ip) => Some(ip.into()),
        _ => None,
    })
}

fn is_loopback(address: &Multiaddr) -> bool {
    ip_of(address).is_some_and(|ip| ip.is_loopback())
}

/// Carries messages both ways until either side ends.
async fn pump(
    stream: Stream,
    mut out: mpsc::Receiver<Vec<u8>>,
    into: mpsc::Sender<Input>,
    wrap: impl Fn(Vec<u8>) -> Input,
) {
    let (mut reader, mut writer) = stream.split();
    let read = pin!(async {
        while let Ok(bytes) = frame::read_frame(&mut reader, PROBE_BYTES_MAX).await {
            if into.send(wrap(bytes)).await.is_err() {
                return;
            }
        }
    });
    let write = pin!(async {
        while let Some(bytes) = out.recv().await {
            if frame::write_frame(&mut writer, &bytes).await.is_err() {
                return;
            }
        }
    });
    match select(read, write).await {
        Either::Left(_) | Either::Right(_) => {}
    }
}

//! Healing: what a host sees of others, the leader's plan carried out entry by entry, and builds for blame to read.

use super::count::kind;
use super::journey::{Journey, Stage};
use super::world::{End, Ill, WALL_MS, World};
use crate::invariants::Fact;
use mesh::blame::{Verdict, judge};
use mesh::build::{Attempt, BlobId, BuildId, BuildSpec, End as Ends, Outcome, Phase, Receipt};
use mesh::healing::{self, Change, Event, Facts, Pending, Sight, Step, What, act, no_builds, plan};
use mesh::identity::PeerKey;
use mesh::lease::Fence;
use mesh::ledger::{Assign, Assignment, AttemptEnd, Build, Cancel, Command, Report, Submit};
use mesh::warrant::{Authority, Order};
use mesh::wire::Signed;
use std::collections::{BTreeMap, BTreeSet};

/// Builds of a run: blame walks all of them.
const BUILDS_MAX: u64 = 200;

impl World {
    /// What blame says of a ledger, asked again when it has changed by builds.
    pub fn judge(&mut self, lags: bool) {
        let ledger = if lags { &self.late } else { &self.fresh };
        let slot = &mut self.verdicts[usize::from(lags)];
        let said = |b: &Build| 1 + b.attempts.iter().map(|a| if a.is_running() { 3 } else { 7 }).sum::<u64>();
        let count: u64 = ledger.builds().iter().map(said).sum();
        // A minute more or less makes no verdict, a member that is out may; nothing was said before of 0.
        let (roster, minute) = (ledger.roster(), ledger.time_ms() / 60_000);
        let of = [1 + count, minute, roster.len() as u64, roster.all_revoked().count() as u64];
        if slot.0 != of {
            *slot = (of, if count == 0 { vec![] } else { judge(ledger, &ledger.healing().policy().blame) });
        }
    }

    /// What a host sees of some others, and of the voters.
    pub fn sights_for(&self, by: usize, whom: &[PeerKey]) -> BTreeMap<PeerKey, Sight> {
        let me = self.hosts[by].key();
        let all: BTreeSet<PeerKey> = whom.iter().chain(self.ledger(by).voters().voters()).copied().collect();
        let others = |key: &PeerKey| self.view.keys().filter(|k| *k != key).take(3).copied().collect::<BTreeSet<_>>();
        let sight = |key: PeerKey| {
            let at = &self.hosts[self.host_of(&key)?];
            // One whom this host cannot hear is down for it, and accused by those alone that miss it.
            let missed = at.missed_by.contains(&me);
            let down = key != me && (!at.up() || missed);
            let accusers = if at.up() { at.missed_by.clone() } else { others(&key) };
            let seen = Sight {
                down,
                accusers,
                progress: at.progress,
                suspended: self.cloned(&key),
                boot: at.boot(),
                start: at.start,
                boot_enabled: at.boot_enabled,
                allow_reboot: at.allow_reboot,
                protected: at.protected,
                only_path_of: at.only_path_of.iter().filter(|k| self.view.contains_key(k)).copied().collect(),
                flaps: 0,
            };
            Some((key, seen))
        };
        all.into_iter().filter_map(sight).collect()
    }

    /// What the leader does next about hosts that are not well.
    pub fn lead(&mut self) {
        // One thing leads to another; nobody waits between them.
        for _ in 0..4 {
            let (steps, orders) = (self.fresh.index(), self.counts.leaders);
            self.lead_once();
            if self.fresh.index() == steps || self.counts.leaders > orders {
                return;
            }
        }
    }

    /// A leader that waits for something lets the ledger's time go on.
    fn let_time_pass(&mut self) {
        if WALL_MS + self.now_ms > self.fresh.time_ms() + 60_000 {
            self.commit(vec![]);
        }
    }

    fn lead_once(&mut self) {
        let by = self.leader;
        if !self.hosts[by].up() || !self.hosts[by].member {
            return;
        }
        self.let_time_pass();
        self.judge(false);
        let down = |h: &usize| !self.hosts[*h].up() || !self.hosts[*h].missed_by.is_empty();
        let mut whom: Vec<PeerKey> = self.members().into_iter().filter(down).map(|h| self.hosts[h].key()).collect();
        whom.extend(self.fresh.healing().cases().map(|(key, _)| *key));
        whom.extend(self.verdicts[0].1.iter().filter_map(|verdict| match verdict {
            Verdict::Host { host, .. } => Some(*host),
            _ => None,
        }));
        let sights = self.sights_for(by, &whom);
        let (ledger, verdicts) = (&self.fresh, &self.verdicts[0].1);
        let (me, record) = (self.hosts[by].key(), ledger.healing());
        let planned = plan(&Facts { me, ledger, record, verdicts, view: &self.view, sights: &sights });
        for rule in planned.held.iter().flat_map(|held| &held.rules) {
            *self.counts.held.entry(kind(rule)).or_default() += 1;
        }
        // Nothing can be done before tomorrow: it becomes tomorrow.
        let spent = |rule: &healing::Rule| matches!(rule, healing::Rule::Budget { .. });
        if self.temper.heals() && planned.held.iter().any(|held| held.rules.iter().any(spent)) && self.dice.percent(25)
        {
            self.now_ms += healing::DAY_MS;
            return self.let_time_pass();
        }
        if let Some(step) = planned.steps.into_iter().next() {
            self.take(by, step, &sights);
        }
    }

    fn change(&mut self, by: usize, host: PeerKey, event: Event, why: &str, order: Option<Pending>) -> bool {
        let change = Change { host, event, why: why.to_owned(), order };
        let fence = self.fence();
        self.write(by, Some(fence), Command::Heal(healing::Entry::Change(change))).is_ok()
    }

    fn take(&mut self, by: usize, step: Step, sights: &BTreeMap<PeerKey, Sight>) {
        let Step { host, what, why } = step;
        let Some(number) = self.host_of(&host) else { return };
        match what {
            What::SetAside(event) => {
                // Blame looks back for as long as the policy says.
                let back_ms = self.fresh.healing().policy().blame.window_ms + 60_000;
                let ails = self.ailed_within(number, if event == Event::Blamed { back_ms } else { 60_000 });
                let blame = if event == Event::Blamed { self.against_blame(number) } else { None };
                let against = blame.or_else(|| self.against_setting_aside(number));
                if self.change(by, host, event, &why, None) {
                    self.hosts[number].charged = event == Event::Blamed;
                    self.fact(Fact::SetAside { host: self.hosts[number].name.clone(), ails, against });
                }
            }
            What::Note(event) => {
                let against = self.against_return(number);
                let noted = self.change(by, host, event, &why, None);
                self.hosts[number].charged |= noted && event == Event::Failed;
                if noted && matches!(event, Event::Lapsed | Event::Returned) {
                    self.fact(Fact::LetBack { host: self.hosts[number].name.clone(), against });
                }
            }
            What::Withdraw(order) => {
                let withdraw = healing::Withdraw { host, order, why };
                self.write(by, Some(self.fence()), Command::Heal(healing::Entry::Withdraw(withdraw)));
            }
            What::HandOver => drop(self.change(by, host, Event::HandedOver, &why, None)),
            What::Canary(build) => {
                if self.give(by, build, number) {
                    self.change(by, host, Event::Given, &why, None);
                    self.build_ends(build, number, 0);
                }
            }
            What::Order(rung) => {
                let policy = *self.fresh.healing().policy();
                let (Some(act), Some(sight)) = (act(rung, &policy), sights.get(&host)) else { return };
                let now_ms = self.fresh.time_ms();
                let order = Order {
                    mesh: self.fresh.mesh(),
                    id: self.order_id(),
                    target: host,
                    boot: sight.boot,
                    start: sight.start,
                    act,
                    authority: Authority::Leader,
                    requester: "healing".into(),
                    fence: self.fence(),
                    expires_ms: now_ms + 600_000,
                    force: false,
                    reason: why.clone(),
                };
                self.order(by, order, policy.proof_ms, &why);
            }
        }
    }

    /// A leader's order is written, its case noted, and it is on its way.
    pub fn order(&mut self, by: usize, order: Order, proof_ms: u64, why: &str) {
        let signed = Signed::seal(&self.hosts[by].keys, &order);
        let fence = self.fence();
        let Some(number) = self.host_of(&order.target) else { return };
        let against = self.against_ordering(number, order.act.is_reboot());
        if !self.write(by, Some(fence), Command::Heal(healing::Entry::Order(signed.clone()))).is_ok() {
            self.counts.unwritten += 1;
            return;
        }
        self.counts.leaders += 1;
        let until_ms = self.fresh.time_ms() + proof_ms;
        let pending = Pending { id: order.id, boot: order.boot, start: order.start, until_ms };
        if self.change(by, order.target, Event::Ordered, why, Some(pending)) {
            self.fact(Fact::Ordered { host: self.hosts[number].name.clone(), against });
            self.journeys.push(Journey { signed, order, by, stage: Stage::Written, tries: 0 });
            if self.dice.percent(self.temper.lost_percent) {
                self.depose();
                // Who led does not know, and goes on.
                if self.dice.percent(50) {
                    self.press();
                }
            }
        }
    }

    /// What the world has against setting a host aside.
    fn against_setting_aside(&self, host: usize) -> Option<&'static str> {
        let key = self.hosts[host].key();
        let builds =
            |h: &usize| *h != host && self.hosts[*h].up() && self.fresh.healing().case(&self.hosts[*h].key()).is_none();
        let tests = [
            (!self.disputed, "two recoveries contend for the mesh"),
            (self.members().iter().any(builds), "no other host would build"),
            (!self.cloned(&key), "two hosts live under its key"),
            (!self.all_fails(), "everything fails everywhere"),
        ];
        tests.into_iter().find(|(fine, _)| !fine).map(|(_, what)| what)
    }

    /// What the world has against a leader's order, just before it is written.
    fn against_ordering(&self, host: usize, reboot: bool) -> Option<&'static str> {
        let at = &self.hosts[host];
        let key = at.key();
        let voters = self.fresh.voters();
        let up = self.voters().into_iter().filter(|v| {
            let other = &self.hosts[*v];
            let heard = other.up() && other.missed_by.is_empty() && !self.cloned(&other.key());
            *v != host && (heard || *v == self.leader)
        });
        let up = up.count();
        // Who is to blame for what fails on it is so though somebody else cannot hear it.
        let unheard = self.case_is_down(&key) || at.missed_by.contains(&self.hosts[self.leader].key());
        let paths = at.only_path_of.iter().any(|k| self.view.contains_key(k));
        let tests = [
            (!self.disputed, "two recoveries contend for the mesh"),
            (!self.all_fails(), "everything fails everywhere"),
            (!at.protected, "it is protected"),
            (!reboot || at.allow_reboot, "it does not allow reboots"),
            (!reboot || at.boot_enabled == Some(true), "it may not come back"),
            (!paths, "it is the only path of others"),
            (!voters.voters().contains(&key) || up >= voters.majority(), "the other voters are no majority"),
            (up >= 2, "too few voters can sign"),
            (!at.progress, "its builds make progress"),
            (!self.cloned(&key), "two hosts live under its key"),
            (at.up() || at.ill == Ill::Hangs || !at.power, "it is well"),
            (!(at.up() && at.missed_by.len() == 1 && unheard), "one host alone cannot hear it"),
            (
                !(at.up() && at.ill == Ill::Well && at.missed_by.is_empty() && self.case_is_down(&key)),
                "it has come back by itself",
            ),
        ];
        tests.into_iter().find(|(fine, _)| !fine).map(|(_, what)| what)
    }

    /// What the world has against letting a host back without a canary, before it has been set aside for long enough.
    fn against_return(&self, host: usize) -> Option<&'static str> {
        let at = &self.hosts[host];
        let record = self.fresh.healing();
        let case = record.case(&at.key())?;
        if self.fresh.time_ms() >= case.since_ms + record.policy().aside_ms {
            return None;
        }
        let built = at.ends.iter().any(|end| !end.bad && end.at_ms > case.since_ms);
        let tests = [
            (!at.charged || built, "what failed on it was not tried again"),
            (at.missed_by.is_empty(), "somebody cannot hear it"),
            (!self.cloned(&at.key()), "two hosts live under its key"),
        ];
        tests.into_iter().find(|(fine, _)| !fine).map(|(_, what)| what)
    }

    /// The newest ends on a host that still count.
    fn recent(&self, host: usize) -> &[End] {
        let rules = self.fresh.healing().policy().blame;
        let ends = &self.hosts[host].ends;
        let since = self.fresh.time_ms().saturating_sub(rules.window_ms);
        let old = ends.partition_point(|end| end.at_ms <= since);
        let newest = ends.len().saturating_sub(rules.recent as usize);
        &ends[old.max(newest)..]
    }

    /// How many packages failed on a host among its newest ends, when they are more than half of those.
    fn failed(&self, host: usize, such: impl Fn(&End) -> bool) -> u64 {
        let recent = self.recent(host);
        let bad: Vec<u64> = recent.iter().filter(|end| end.bad && such(end)).map(|end| end.build).collect();
        let distinct = bad.iter().collect::<BTreeSet<_>>().len() as u64;
        if 2 * bad.len() > recent.len() { distinct } else { 0 }
    }

    /// Whether most hosts that build at all fail together, as the world had it.
    fn all_fails(&self) -> bool {
        let packages = self.fresh.healing().policy().blame.packages;
        let building: Vec<usize> = self.members().into_iter().filter(|h| !self.recent(*h).is_empty()).collect();
        let failing = building.iter().filter(|h| self.failed(**h, |_| true) >= packages).count();
        failing >= 2 && 2 * failing > building.len()
    }

    /// Whether builds have just failed on a host, fast and by its own fault, one after another.
    fn rests(&self, host: usize) -> bool {
        let rules = self.fresh.healing().policy().blame;
        let ends: Vec<&End> = self.recent_all(host).collect();
        let row = ends.iter().rev().take_while(|end| end.own && end.took_ms < rules.fast_ms).count() as u64;
        row >= rules.fast_failures && ends.last().is_some_and(|end| self.fresh.time_ms() < end.at_ms + rules.rest_ms)
    }

    /// What the world has against blaming a host.
    fn against_blame(&self, host: usize) -> Option<&'static str> {
        let packages = self.fresh.healing().policy().blame.packages;
        let built = |other: usize| other != host && self.recent_all(other).any(|end| !end.bad);
        // Inputs that it alone could not get may count as well, for nobody can tell; a command that failed never does. But
        // enough has to be its own.
        let missed = |other: usize, build: u64| {
            other != host && self.hosts[other].ends.iter().any(|end| end.build == build && end.bad && end.inputs)
        };
        let others: Vec<usize> = self.members();
        let alone = |end: &End| end.inputs && !others.iter().any(|other| missed(*other, end.build));
        let own = self.recent(host).iter().filter(|end| end.bad && end.own).map(|end| end.build);
        if (own.collect::<BTreeSet<_>>().len() as u64) < packages
            || self.failed(host, |end| end.own || alone(end)) < packages
        {
            return Some("too little has failed on it");
        }
        (!self.members().into_iter().any(built)).then_some("nobody else has built anything")
    }

    fn recent_all(&self, host: usize) -> impl Iterator<Item = &End> {
        let rules = self.fresh.healing().policy().blame;
        let since = self.fresh.time_ms().saturating_sub(rules.window_ms);
        self.hosts[host].ends.iter().filter(move |end| end.at_ms > since)
    }

    fn case_is_down(&self, key: &PeerKey) -> bool {
        self.fresh.healing().case(key).is_some_and(|case| case.down)
    }

    /// Somebody submits a build, the leader gives it to a host that may have it, and then to others if it failed.
    pub fn work(&mut self) {
        if self.builds >= BUILDS_MAX {
            return;
        }
        self.builds += 1;
        let spec = BuildSpec { retries: 3, ..BuildSpec::new(format!("p{}", self.builds), vec!["make".into()]) };
        let bad = match self.bad_tree {
            true => "BAD",
            false if self.dice.percent(self.temper.bad_percent) => {
                if self.dice.percent(self.temper.gone_percent) {
                    "GONE"
                } else {
                    "BAD"
                }
            }
            false => "GOOD",
        };
        // Whether inputs are gone shows only when a second host has not got them either.
        let well = |world: &World, h: &usize| world.hosts[*h].ill != Ill::Broken;
        let few = self.builders(None).iter().filter(|h| well(self, h)).count() < 2;
        let bad = if bad == "GONE" && few { "GOOD" } else { bad };
        let spec = BuildSpec { env: vec![("WORLD".into(), bad.into())], ..spec };
        let by = self.leader;
        let reply = self.write(by, None, Command::Submit(Submit { specs: vec![spec] }));
        let Some(build) = reply.builds.first().copied() else { return };
        // Some wait, for a canary to be.
        if bad != "GONE" && self.dice.percent(25) {
            return;
        }
        let (mut left, mut lack) = ([1, 1, 2, 3][self.dice.below(4) as usize], 0_u64);
        while left > 0 || lack == 1 {
            left = u64::saturating_sub(left, 1);
            let Some(host) = self.builder(build) else { break };
            let against = self.rests(host).then_some("it has just failed one after another");
            if !self.give(by, build, host) {
                break;
            }
            self.fact(Fact::Given { host: self.hosts[host].name.clone(), against });
            let takes = self.dice.between(200, 14_000);
            self.now_ms += takes;
            lack += u64::from(bad == "GONE" && well(self, &host));
            if !self.build_ends(build, host, takes) {
                break;
            }
        }
        // Whoever tried it last alone would be to blame, which is right by all that hosts can know, and is no finding.
        if bad == "GONE" && lack < 2 {
            let cancel = Cancel { builds: vec![build], reason: "its inputs are gone".into() };
            self.write(by, None, Command::Cancel(cancel));
        }
    }

    /// Several builds in a row, when there is somebody on whom they may break.
    pub fn work_on(&mut self) {
        let broken = self.some(|h| h.ill == Ill::Broken).is_some();
        let some = if broken && self.dice.percent(70) { self.dice.between(1, 6) } else { 1 };
        (0..some).for_each(|_| self.work());
        self.judge(false);
        let named = |verdict: &Verdict| match verdict {
            Verdict::Package { name, .. } => Some(name.clone()),
            _ => None,
        };
        let held: Vec<String> = self.verdicts[0].1.iter().filter_map(named).collect();
        for package in held {
            let builds = self.fresh.builds().iter().filter(|b| b.spec.name == package);
            let good = builds.flat_map(|b| &b.spec.env).any(|(_, value)| value == "GOOD");
            self.fact(Fact::Held { package, against: good.then_some("it is good") });
        }
    }

    /// Hosts for a build, or for one that is new: those that have not tried it, are up, and are held back by nothing.
    fn builders(&mut self, build: Option<BuildId>) -> Vec<usize> {
        self.judge(false);
        let me = self.hosts[self.leader].key();
        let (ledger, verdicts, sights) = (&self.fresh, &self.verdicts[0].1, BTreeMap::new());
        let facts = Facts { me, ledger, record: ledger.healing(), verdicts, view: &self.view, sights: &sights };
        let found = build.and_then(|build| ledger.builds().get(build));
        let fit = |h: &usize| {
            let at = &self.hosts[*h];
            at.up() && found.is_none_or(|found| !found.tried_on(&at.key())) && no_builds(&facts, &at.key()).is_none()
        };
        self.members().into_iter().filter(fit).collect()
    }

    /// One of them: sick ones first, often, and then the quickest, which gets what comes while it is free.
    fn builder(&mut self, build: BuildId) -> Option<usize> {
        let fit = self.builders(Some(build));
        let broken: Vec<usize> = fit.iter().copied().filter(|h| self.hosts[*h].ill == Ill::Broken).collect();
        if !broken.is_empty() && self.dice.percent(60) {
            return self.dice.one(&broken).copied();
        }
        if self.dice.percent(self.temper.quickest_percent) {
            return fit.last().copied();
        }
        self.dice.one(&fit).copied()
    }

    fn give(&mut self, by: usize, build: BuildId, host: usize) -> bool {
        self.give_under(self.fence(), by, build, host)
    }

    /// Gives a host a build under a fence, whoever has that; an attempt that the ledger takes begins.
    pub fn give_under(&mut self, fence: Fence, by: usize, build: BuildId, host: usize) -> bool {
        let Some(found) = self.fresh.builds().get(build) else { return false };
        let attempt = Attempt(found.attempts.len() as u32 + 1);
        let (key, start) = (self.hosts[host].key(), self.hosts[host].start);
        let attempts = vec![Assignment { build, attempt, host: key, start }];
        let given = self.write(by, Some(fence), Command::Assign(Assign { attempts })).is_ok();
        if given {
            let host = self.hosts[host].name.clone();
            self.fact(Fact::Began { host, key, build, attempt, fence: Some(fence) });
        }
        given
    }

    /// An attempt ends as the world has it: by the host, the package, its inputs, or well.
    fn build_ends(&mut self, build: BuildId, host: usize, took_ms: u64) -> bool {
        let Some(found) = self.fresh.builds().get(build) else { return false };
        let attempt = Attempt(found.attempts.len() as u32);
        let kind = found.spec.env.first().map(|(_, value)| value.clone()).unwrap_or_default();
        let broken = self.hosts[host].ill == Ill::Broken;
        let (end, phase) = match (broken, kind.as_str()) {
            (true, _) if self.dice.percent(50) => (Ends::Failed, Phase::Sandbox),
            (true, _) => (Ends::Failed, Phase::Store),
            (_, "BAD") => (Ends::Failed, Phase::Command),
            (_, "GONE") => (Ends::Failed, Phase::Fetch),
            _ => (Ends::Done, Phase::Command),
        };
        let log = Some(BlobId::of(b"log"));
        let receipt = Receipt { mesh: self.fresh.mesh().0, build, attempt, manifest: None, log };
        let Some(other) = self.members().into_iter().find(|other| *other != host) else { return false };
        let holders = [host, other];
        let receipts = holders.map(|h| Signed::seal(&self.hosts[h].keys, &receipt)).into();
        let code = i32::from(end != Ends::Done);
        let outcome = Outcome { end, phase, code, text: String::new(), manifest: None, log, took_ms: 1 };
        let ends = vec![AttemptEnd { build, attempt, outcome, receipts }];
        if broken {
            self.hosts[host].ailed_ms = self.now_ms;
        }
        if self.write(host, None, Command::Report(Report { ends })).is_ok() {
            let at_ms = self.fresh.time_ms();
            let (bad, inputs) = (end != Ends::Done, phase == Phase::Fetch);
            self.hosts[host].ends.push(End { at_ms, build: build.0, bad, own: broken, inputs, took_ms });
            return true;
        }
        false
    }
}

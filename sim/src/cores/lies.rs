//! What liars of this tier say, and words that come late: entries that a host may not write, and what was true once.

use super::execute::spec_of;
use super::faults::{Done, check};
use super::message::{Message, Parcel};
use super::stage::Cores;
use crate::action::{Forgery, Task};
use crate::invariants::Fact;
use mesh::build::{Attempt, End, Outcome, Phase};
use mesh::identity::{Keys, PeerKey};
use mesh::lease::Fence;
use mesh::ledger::{Assign, Assignment, AttemptEnd, Command, Entry, Lead, Report, Submit};
use mesh::roster::{Cosignature, VoterChange};

impl Cores {
    /// An enrolled host gives the leader, or the log itself, what it may not make.
    pub(super) fn forge(&mut self, host: &str, what: Forgery) -> Done {
        let host = self.running(host)?;
        if what == Forgery::Addresses {
            self.with(host, |p, env| p.boast(env));
            return Ok(());
        }
        let others: Vec<Keys> = self.hosts.iter().map(|h| h.machine.keys.clone()).collect();
        let victim = others.iter().find(|k| k.key() != self.hosts[host].machine.keys.key()).cloned();
        let victim = victim.ok_or("there is nobody else")?;
        let made = self.with(host, |p, env| {
            let request = p.request_id(env);
            let keys = env.m.keys.clone();
            let seal = |fence, command| Entry::seal(&keys, p.mesh, request, fence, command);
            let fence = p.ledger.leader().map(|l| l.1);
            let running = || p.ledger.builds().running().flat_map(|b| b.running().map(|a| (b.id, a.clone())));
            let entry = match what {
                Forgery::Submission => {
                    let task = Task { name: "forged".into(), takes_ms: 1, exit: 0, needs: vec![], breaks_on: vec![] };
                    let mut entry = seal(None, Command::Submit(Submit { specs: vec![spec_of(&task)] }));
                    entry.by = victim.key();
                    entry
                }
                Forgery::Report => {
                    let (build, attempt) = running().find(|(_, a)| a.host != p.me)?;
                    let outcome = Outcome {
                        end: End::Done,
                        phase: Phase::Command,
                        code: 0,
                        text: String::new(),
                        manifest: None,
                        log: None,
                        took_ms: 1,
                    };
                    let end = AttemptEnd { build, attempt: attempt.number, outcome, receipts: vec![] };
                    seal(None, Command::Report(Report { ends: vec![end] }))
                }
                // Of the leader itself it would be no lie.
                Forgery::Assignment if p.ledger.leader().is_none_or(|(leader, _)| leader == p.me) => return None,
                Forgery::Assignment => {
                    let build = p.ledger.builds().wanting().next().or(p.ledger.builds().iter().next_back())?;
                    let attempt = Attempt(build.attempts.len() as u32 + 1);
                    let one = Assignment { build: build.id, attempt, host: p.me, start: p.start };
                    seal(fence, Command::Assign(Assign { attempts: vec![one] }))
                }
                Forgery::VoterSet => {
                    let body = p.ledger.voters().next(&[p.me].into());
                    let signatures = vec![Cosignature::new(&keys, &body)];
                    seal(fence, Command::Voters(VoterChange { body, signatures }))
                }
                Forgery::StaleFence => {
                    let old = fence.and_then(|f| Some(Fence { term: f.term.checked_sub(1)?, ..f }))?;
                    let lead = Lead { version: "forged".into() };
                    match p.ledger.builds().wanting().next() {
                        Some(build) => {
                            let (attempt, to) = (Attempt(build.attempts.len() as u32 + 1), p.me);
                            let build = build.id;
                            let one = Assignment { build, attempt, host: to, start: p.start };
                            env.cx.fact(Fact::Proposed { key: p.me, fence: old, build, attempt, to });
                            seal(Some(old), Command::Assign(Assign { attempts: vec![one] }))
                        }
                        // Nothing is to be given: it leads once more as it led before.
                        None => seal(Some(old), Command::Lead(lead)),
                    }
                }
                Forgery::Addresses => return None, // no entry
            };
            p.slip_in(env, entry);
            Some(())
        });
        check(made.flatten().is_some(), "there is nothing to forge now")
    }

    /// Somebody who has kept a warrant asks its target, or whoever sits there, for a hearing, and brings it again.
    fn replay(&mut self, through: usize, target: &PeerKey, frames: Vec<Vec<u8>>) {
        let Some(to) = self.cx.keys.get(target).copied() else { return };
        self.cx.numbers += 1;
        let number = self.cx.numbers;
        self.cx.replays.insert(number, (to, frames));
        let from = (through, self.hosts[through].machine.generation);
        let addresses = self.cx.net.addresses_of(to);
        self.cx.knock_at(from, &addresses, number, vec![]);
    }

    /// A hearing was granted to who brings an old warrant.
    pub(super) fn replay_on(&mut self, parcel: &Parcel) {
        let Some((to, frames)) = self.cx.replays.remove(&parcel.number) else { return };
        let addresses = self.cx.net.addresses_of(to);
        self.cx.knock_at(parcel.from, &addresses, parcel.number, frames);
    }

    pub(super) fn replay_late(&mut self, host: &str) -> Done {
        let host = self.host(host)?;
        let said: Vec<_> = self.cx.kept.get(&host).into_iter().flatten().cloned().collect();
        let reports: Vec<_> = self.cx.reports.get(&host).into_iter().flatten().cloned().collect();
        check(!said.is_empty() || !reports.is_empty(), "it has said nothing yet")?;
        let runs: Vec<usize> = (0..self.hosts.len()).filter(|h| self.hosts[*h].process.is_some()).collect();
        // The oldest arrives last.
        for said in said.into_iter().rev() {
            // Whoever listens forgets that it has heard this before, and hears it from whoever is near.
            for at in &runs {
                self.with(*at, |p, env| {
                    p.seen.remove(&said.id);
                    let near: Vec<_> = p.lines.keys().copied().collect();
                    for peer in near {
                        p.send(env, peer, Message::Gossip(said.clone()));
                    }
                });
            }
        }
        let through = runs.first().copied().ok_or("nobody runs")?;
        for (target, frames) in self.cx.kept_orders.clone() {
            self.replay(through, &target, frames);
        }
        for entry in reports {
            self.with(through, |p, env| p.slip_in(env, entry));
        }
        Ok(())
    }
}

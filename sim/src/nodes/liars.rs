//! An enrolled host that lies: entries that it may not write, signed with its own key and sent as any other. And
//! words that were true once, and come again.

use super::stage::NodesStage;
use crate::action::Forgery;
use mesh::build::{Attempt, BuildSpec, End, Outcome, Phase};
use mesh::identity::Keys;
use mesh::lease::Fence;
use mesh::ledger::{Assign, Assignment, AttemptEnd, Command, Entry, Ledger, Lose, Lost, Report, RequestId, Submit};
use mesh::roster::{Cosignature, VoterChange};
use mesh::wire::Signed;
use node::driver::Word;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a liar waits for an answer.
const WITHIN: Duration = Duration::from_secs(10);

fn done() -> Outcome {
    let (end, phase) = (End::Done, Phase::Command);
    Outcome { end, phase, code: 0, text: String::new(), manifest: None, log: None, took_ms: 1 }
}

/// The entry; nothing when there is nothing to lie about.
fn entry(keys: &Keys, ledger: &Ledger, request: RequestId, what: Forgery) -> Option<Signed> {
    let mesh = ledger.mesh();
    let (_, fence) = ledger.leader()?;
    let me = keys.key();
    let sealed = |fence: Option<Fence>, command| Some(Entry::seal(keys, mesh, request, fence, command));
    let lose = |build, attempt| Command::Lose(Lose { attempts: vec![Lost { build, attempt, reason: "a lie".into() }] });
    match what {
        Forgery::Submission => {
            let other = ledger.roster().members().map(|(key, _)| *key).find(|key| *key != me)?;
            let spec = BuildSpec::new("forged", vec!["true".into()]);
            let mut entry = sealed(None, Command::Submit(Submit { specs: vec![spec] }))?;
            entry.by = other;
            Some(entry)
        }
        Forgery::Report => {
            let (build, attempt) = ledger
                .builds()
                .running()
                .find_map(|build| build.running().find(|a| a.host != me).map(|a| (build.id, a.number)))?;
            let end = AttemptEnd { build, attempt, outcome: done(), receipts: vec![] };
            sealed(None, Command::Report(Report { ends: vec![end] }))
        }
        Forgery::Assignment => {
            let build = ledger.builds().wanting().chain(ledger.builds().running()).next()?;
            let attempt = Attempt(build.attempts.len() as u32 + 1);
            let assignment = Assignment { build: build.id, attempt, host: me, start: 1 };
            sealed(Some(fence), Command::Assign(Assign { attempts: vec![assignment] }))
        }
        Forgery::VoterSet => {
            let body = ledger.voters().next(&BTreeSet::from([me]));
            let signatures = vec![Cosignature::new(keys, &body)];
            sealed(Some(fence), Command::Voters(VoterChange { body, signatures }))
        }
        Forgery::Addresses => None, // a presence is no entry; the cores' tier has it
        Forgery::StaleFence => {
            let build = ledger.builds().running().next()?;
            let attempt = build.running().next()?.number;
            let older = Fence { term: fence.term.checked_sub(1)?, ..fence };
            sealed(Some(older), lose(build.id, attempt))
        }
    }
}

impl NodesStage {
    /// A host sends a lie to the ledger. That it is refused is for invariants to see.
    pub(super) fn forge(&mut self, host: &str, what: Forgery) -> Result<(), String> {
        let Some(station) = self.station(host) else { return Err("gone".into()) };
        let keys = station.desk.folder.borrow().keys.clone();
        let mut request = [0xf0; 16];
        request[8..].copy_from_slice(&self.lies.to_be_bytes());
        let Some(node) = station.node() else { return Err(format!("{host} does not run")) };
        if what != Forgery::Submission && node.ledger(Ledger::leader).is_some_and(|(leader, _)| leader == keys.key()) {
            return Err(format!("{host} leads: that would be no lie"));
        }
        let Some(entry) = node.ledger(|ledger| entry(&keys, ledger, RequestId(request), what)) else {
            return Err("there is nothing to lie about".into());
        };
        self.lies += 1;
        self.fault(host, &format!("forges {what:?}"));
        drop(self.nodes.ask(host, move |node| async move { node.submit(entry, WITHIN).await }));
        Ok(())
    }

    /// All that was kept of a host's words is said again, the oldest last: statements to everybody, past gossip's
    /// own memory of what it has carried, and entries to the ledger.
    pub(super) fn replay_late(&mut self, host: &str) -> Result<(), String> {
        let words: Vec<Word> = self.eyes.said.get(host).into_iter().flatten().rev().cloned().collect();
        if words.is_empty() {
            return Err(format!("{host} has said nothing yet"));
        }
        let members: Vec<String> = self.members.iter().filter(|name| self.runs(name)).cloned().collect();
        // Through another: a leader brings no entry of its own twice by this way.
        let other = |name: &&String| name.as_str() != host;
        let Some(through) = members.iter().find(other) else { return Err("nobody else runs".into()) };
        self.fault(host, "what it said is said again");
        for word in words {
            match word {
                Word::Statement(bytes) => {
                    for name in &members {
                        let bytes = bytes.clone();
                        drop(self.nodes.ask(name, move |node| async move { node.hear_again(bytes) }));
                    }
                }
                Word::Entry(entry) => {
                    drop(self.nodes.ask(through, move |node| async move { node.submit(entry, WITHIN).await }));
                }
            }
        }
        Ok(())
    }
}

//! Cases of the model of Raft that chaos came upon, each by itself.

use super::*;
use mesh::identity::Keys;

/// Hosts on a network that loses nothing but what a test holds back.
struct Hosts {
    rafts: Vec<Raft>,
    now: Time,
    dice: Dice,
}

fn key(n: u8) -> PeerKey {
    Keys::from_seed([n; 32]).key()
}

impl Hosts {
    /// The first is the only voter of a mesh, and leads; the other is its learner.
    fn of_two() -> Hosts {
        let (now, mut dice) = (Time::default(), Dice::new(1));
        let mut rafts: Vec<Raft> =
            [1, 2].map(|n| Raft::new(key(n), Timing::default(), Store::default(), 0, now, &mut dice)).into();
        rafts[0].initialize();
        let mut hosts = Hosts { rafts, now, dice };
        hosts.run(|_| true, |hosts| hosts.rafts[0].may_change());
        let now = hosts.now;
        hosts.rafts[0].set_learners(BTreeSet::from([key(2)]), now);
        hosts.run(|_| true, |hosts| hosts.rafts[1].store.log.len() == hosts.rafts[0].store.log.len());
        hosts
    }

    /// Until something is so. What is not let through is lost.
    fn run(&mut self, through: impl Fn(&Talk) -> bool, until: impl Fn(&Hosts) -> bool) {
        for _ in 0..3_000 {
            if until(self) {
                return;
            }
            self.now = self.now + Duration::from_millis(10);
            let mut said = vec![];
            for raft in &mut self.rafts {
                if raft.due().is_some_and(|at| self.now >= at) {
                    raft.tick(self.now, &mut self.dice);
                }
                raft.synced(raft.written(), self.now);
                said.extend(raft.out.drain(..).map(|(to, talk)| (raft.me, to, talk)));
            }
            for (from, to, talk) in said.into_iter().filter(|(_, _, talk)| through(talk)) {
                let Some(raft) = self.rafts.iter_mut().find(|raft| raft.me == to) else { continue };
                if raft.hears(&from, &talk) {
                    raft.hear(from, talk, self.now, &mut self.dice);
                }
            }
        }
        panic!("not within 30 s");
    }

    /// Both end, and start over what their disks hold.
    fn restart(&mut self) {
        for raft in &mut self.rafts {
            let store = raft.store.clone();
            *raft = Raft::new(raft.me, raft.timing, store, 0, self.now, &mut self.dice);
        }
    }
}

/// Found by chaos on cores, seed 8979. The other asks for a vote that nobody gives: its log is the shorter one.
#[test]
fn who_is_taken_out_by_an_entry_that_it_alone_has_leads_once_more() {
    let mut hosts = Hosts::of_two();
    let now = hosts.now;
    hosts.rafts[0].set_voters(BTreeSet::from([key(2)]), now);
    let gone = |members: &Members| members.joint == [BTreeSet::from([key(2)])];
    let last = |talk: &Talk| match talk {
        Talk::Append { items, .. } => {
            !items.iter().any(|item| matches!(&item.payload, Payload::Members(members) if gone(members)))
        }
        _ => true,
    };
    hosts.run(last, |hosts| gone(&hosts.rafts[0].members()));
    assert!(!gone(&hosts.rafts[1].members()), "its power goes before the other hears of it");
    hosts.restart();
    hosts.run(|_| true, |hosts| gone(&hosts.rafts[1].members()) && hosts.rafts[1].leads().is_some());
    assert!(hosts.rafts[1].grant(hosts.now).is_none(), "what it has not committed in its term it does not act on");
}

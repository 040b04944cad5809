//! The ledger's part in healing: who the author of an entry is, whom it may name, and the words of a refusal.
//!
//! The signature and the fence were checked before; what an entry does, and who may write it, is
//! [`crate::healing::Record::apply`]'s. Nobody who is not enrolled is blocked, ordered about or remarked upon.

use super::{Code, Ledger, Reply};
use crate::healing::{Author, ChangeError, Denied, Entry, MeasureError};
use crate::identity::PeerKey;
use crate::lease::Fence;
use crate::warrant::Order;

impl Ledger {
    pub(super) fn heal(&mut self, author: PeerKey, fence: Option<Fence>, entry: Entry) -> Reply {
        if let Some(host) = named(&entry).filter(|host| !self.roster.is_member(host)) {
            return Reply::refused(Code::Unknown, format!("{host} is not enrolled"));
        }
        let signer = self.roster.member(&author).is_some_and(|member| member.signer);
        let leads = fence.filter(|fence| self.leader == Some((author, *fence)));
        let author = Author { key: author, signer, leads };
        match self.healing.apply(entry, &author, self.mesh, self.time_ms) {
            Ok(()) => {
                self.healing_changed = true;
                Reply::ok()
            }
            Err(denied) => Reply::refused(code(&denied), denied.to_string()),
        }
    }
}

/// Whom an entry is about, when it has to be a member.
fn named(entry: &Entry) -> Option<PeerKey> {
    match entry {
        Entry::Measure(measure) => measure.host,
        Entry::Change(change) => Some(change.host),
        Entry::Withdraw(withdraw) => Some(withdraw.host),
        Entry::Remark(remark) => Some(remark.host),
        Entry::Order(signed) => signed.open::<Order>().ok().map(|order| order.target),
        Entry::Policy(_)
        | Entry::Lift(_)
        | Entry::Clear(_)
        | Entry::Receipt(_)
        | Entry::Proof(_)
        | Entry::Archive(_) => None,
    }
}

fn code(denied: &Denied) -> Code {
    match denied {
        Denied::NotSigner | Denied::NotLeader | Denied::NotAuthor | Denied::NotOwn => Code::Forbidden,
        Denied::Measure(MeasureError::Full) | Denied::Full => Code::Full,
        Denied::Measure(_) | Denied::Wire(_) | Denied::Words => Code::Invalid,
        Denied::Change(ChangeError::Illegal { .. }) => Code::Conflict,
        Denied::Change(_) => Code::Invalid,
        Denied::BadOrder | Denied::NotWritten | Denied::NotProved | Denied::OtherPart | Denied::NotLost => {
            Code::Conflict
        }
        Denied::Nothing => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{World, keys};
    use super::super::{Command, Revoke};
    use super::*;
    use crate::healing::{Change, Event, Kind, Lift, Measure, Policy, Record, Stage, Stop};

    fn block(host: u8, until_ms: u64) -> Command {
        let host = Some(keys(host).key());
        let by = keys(9).key();
        Command::Heal(Entry::Measure(Measure { stop: Stop::Block, host, by, reason: "new disk".into(), until_ms }))
    }

    fn blamed(host: u8) -> Command {
        let change = Change { host: keys(host).key(), event: Event::Blamed, why: "b1.1".into(), order: None };
        Command::Heal(Entry::Change(change))
    }

    #[test]
    fn a_signer_blocks_and_it_is_in_the_snapshot_and_ends() {
        let mut world = World::new(3);
        assert_eq!(world.send(2, block(3, 50_000)).code, Code::Forbidden, "host 2 is no signer");
        assert_eq!(world.send(1, block(50, 50_000)).code, Code::Unknown, "nobody of that key");
        assert_eq!(world.send(1, block(3, 0)).code, Code::Invalid, "without an end");
        assert_eq!(world.ledger.healing(), &Record::default());
        world.ledger.take_changes();
        assert!(world.send(1, block(3, 50_000)).is_ok());
        assert!(world.ledger.take_changes().healing);
        let measure = world.ledger.healing().measures.of(&keys(3).key(), 2_000).unwrap();
        assert_eq!((measure.by, measure.stop), (keys(1).key(), Stop::Block));
        let again = world.ledger.restore(&world.ledger.snapshot()).unwrap();
        assert_eq!(again.healing(), world.ledger.healing());
        assert_eq!(world.ledger.healing().measures.of(&keys(3).key(), 50_000), None);
        let kinds: Vec<Kind> = world.ledger.healing().audit().lines().map(|line| line.kind).collect();
        assert_eq!(kinds, [Kind::Began(Stop::Block)], "what was refused leaves no line");
        let lift = Entry::Lift(Lift { stop: Stop::Block, host: Some(keys(3).key()) });
        assert!(world.send(1, Command::Heal(lift.clone())).is_ok());
        assert_eq!(world.send(1, Command::Heal(lift)).code, Code::Unknown);
    }

    #[test]
    fn a_leaders_entry_carries_its_fence_and_no_other() {
        let mut world = World::new(3);
        let host = keys(3).key();
        assert_eq!(world.send(1, blamed(3)).code, Code::Forbidden, "the leader, but without its fence");
        assert_eq!(world.send_as_leader(2, blamed(3)).code, Code::Forbidden, "somebody else with it");
        world.term += 1;
        assert_eq!(world.send_as_leader(1, blamed(3)).code, Code::Forbidden, "elected, and has not said so");
        assert!(world.lead(1).is_ok());
        assert!(world.send_as_leader(1, blamed(3)).is_ok());
        assert_ne!(world.ledger.healing().stage(&host), Stage::Well);
        assert_eq!(world.send_as_leader(1, blamed(3)).code, Code::Conflict, "it was blamed before");
        // Out of the mesh, out of mind; but not out of the trail.
        assert!(world.send(1, block(3, 900_000)).is_ok());
        let revoke = Revoke { peer: host, banned: false, reason: "sold".into() };
        assert!(world.send(1, Command::Revoke(revoke)).is_ok());
        assert_eq!(world.ledger.healing().stage(&host), Stage::Well);
        assert_eq!(world.ledger.healing().measures.of(&host, 0), None);
        assert_eq!(world.ledger.healing().audit().lines().filter(|line| line.host == Some(host)).count(), 2);
    }

    #[test]
    fn an_old_snapshot_has_nothing_of_healing() {
        let mut world = World::new(2);
        assert!(world.send(1, Command::Heal(Entry::Policy(Policy { storm: 2, ..Policy::default() }))).is_ok());
        let mut value: ciborium::Value = ciborium::from_reader(&world.ledger.snapshot()[..]).unwrap();
        let ciborium::Value::Map(fields) = &mut value else { panic!("a snapshot is a map") };
        let before = fields.len();
        fields.retain(|(name, _)| !matches!(name.as_text(), Some("healing" | "level")));
        assert_eq!(fields.len(), before - 2);
        let mut bytes = vec![];
        ciborium::into_writer(&value, &mut bytes).unwrap();
        let old = world.ledger.restore(&bytes).unwrap();
        assert_eq!((old.healing(), old.level()), (&Record::default(), 1));
    }
}

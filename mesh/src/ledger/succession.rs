//! The ledger's part in renaming and replacing hosts. Who may do it and how the roster looks after it is
//! [`crate::roster`]'s; here are the voters, of whom a majority has to stay, and the builds, which go elsewhere.

use super::{Ledger, Rename, Replace, Reply, roster_code};
use crate::identity::PeerKey;

impl Ledger {
    pub(super) fn rename(&mut self, author: PeerKey, rename: Rename) -> Reply {
        match self.roster.rename(author, rename.peer, &rename.name, self.time_ms) {
            Ok(()) => self.roster_did_change(),
            Err(error) => Reply::refused(roster_code(error), error.to_string()),
        }
    }

    pub(super) fn replace(&mut self, author: PeerKey, replace: Replace) -> Reply {
        let Replace { peer, invitation, reason } = replace;
        if self.roster.is_replaced(&author, &peer, &invitation) {
            return Reply::ok(); // sent again, because the answer got lost
        }
        let (mesh, now) = (self.mesh, self.time_ms);
        if let Err(error) = self.roster.check_replace(mesh, author, peer, &invitation, now) {
            return Reply::refused(roster_code(error), error.to_string());
        }
        if let Some(needed) = self.needed(&peer) {
            return needed;
        }
        if let Err(error) = self.roster.replace(mesh, author, peer, &invitation, &reason, now) {
            return Reply::refused(roster_code(error), error.to_string());
        }
        self.forget(peer, "its host was replaced")
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{World, keys};
    use super::super::{AttemptState, Code, Command, Enrol, State};
    use super::*;
    use crate::build::BuildSpec;
    use crate::roster::{Invitation, JoinRequest, invitation_proof};
    use crate::wire::Signed;

    fn invitation(world: &World, name: &str, one_time: u8) -> Signed {
        let (mesh, key) = (world.ledger.mesh(), keys(one_time).key());
        let expires_ms = world.ledger.time_ms() + 60_000;
        Signed::seal(&keys(1), &Invitation { mesh, key, name: name.into(), signer: false, expires_ms })
    }

    fn replace(of: u8, invitation: &Signed) -> Command {
        let (peer, invitation) = (keys(of).key(), invitation.clone());
        Command::Replace(Replace { peer, invitation, reason: "burnt".into() })
    }

    #[test]
    fn the_builds_of_a_replaced_host_are_lost_and_wait_for_another() {
        let mut world = World::new(3);
        let build = world.submit(vec![BuildSpec::new("x", vec!["true".into()])])[0];
        assert!(world.assign(build, 1, 2).is_ok());
        world.ledger.take_changes();
        let token = invitation(&world, "h2", 60);
        assert!(world.send(1, replace(2, &token)).is_ok());
        assert!(world.ledger.take_changes().roster);
        let found = world.ledger.builds().get(build).unwrap();
        assert_eq!(found.state, State::Queued);
        assert_eq!(found.attempts[0].state, AttemptState::Lost("its host was replaced".into()));
        assert!(world.assign(build, 2, 3).is_ok(), "elsewhere");
        assert!(world.send(1, replace(2, &token)).is_ok(), "an answer that got lost");

        // The successor takes the place; a snapshot made in between knows of it.
        world.ledger = world.ledger.restore(&world.ledger.snapshot()).unwrap();
        let mesh = world.ledger.mesh();
        let proof = keys(60).sign(&invitation_proof(&mesh, &keys(4).key()));
        let request = JoinRequest { mesh, invitation: token, proof, machine_id: [4; 32], store_id: [4; 16] };
        let join = Signed::seal(&keys(4), &request);
        assert!(world.send(3, Command::Enrol(Enrol { join })).is_ok());
        assert_eq!(world.ledger.roster().find("h2"), Some(keys(4).key()));
        assert_eq!(world.ledger.level(), 3);
    }

    #[test]
    fn a_needed_voter_is_not_replaced_and_no_stranger_renames() {
        let mut world = World::new(3);
        let token = invitation(&world, "h1", 60);
        assert_eq!(world.send(1, replace(1, &token)).code, Code::Forbidden, "the last signer");
        assert_eq!(world.send(2, replace(3, &token)).code, Code::Forbidden, "no signer");
        let rename = |of: u8, name: &str| Command::Rename(Rename { peer: keys(of).key(), name: name.into() });
        assert_eq!(world.send(2, rename(2, "x")).code, Code::Forbidden);
        assert_eq!(world.send(1, rename(2, "h3")).code, Code::Conflict);
        assert_eq!(world.send(1, rename(9, "x")).code, Code::Unknown);
        world.ledger.take_changes();
        assert!(world.send(1, rename(2, "x")).is_ok());
        assert!(world.ledger.take_changes().roster);
        assert_eq!(world.ledger.roster().find("x"), Some(keys(2).key()));
        // With three voters one can go; the next could not, until another votes in its place.
        world.vote(&[1, 2, 3], &[1]);
        assert!(world.send(1, replace(3, &invitation(&world, "h3", 61))).is_ok());
        let needed = world.send(1, replace(2, &invitation(&world, "x", 62)));
        assert_eq!(needed.code, Code::Conflict);
        assert!(needed.text.contains("without x") && needed.text.contains("wait until"), "{}", needed.text);
    }
}

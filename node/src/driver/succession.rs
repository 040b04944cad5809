//! `mesh rename` and `mesh replace`: what has to be asked before the ledger decides. Whether a host lives is this
//! host's view, and only a person's `--force` goes against it; who may do it, which names are free and which voters are
//! needed, the ledger says.

use super::token::Token;
use super::{Inner, Known, wall_ms};
use crate::api::types::{ApiError, Level, ReplaceRequest, Warning};
use mesh::identity::{Keys, PeerKey};
use mesh::ledger::{Command, Rename, Replace};
use mesh::limits::INVITATION_MS_MAX;
use mesh::membership::State;
use mesh::roster::Invitation;
use mesh::wire::Signed;
use rand::RngExt;
use std::time::Duration;

use super::shared::lock;

/// Leads in a token: it has to be carried by hand.
const TOKEN_LEADS: usize = 5;

impl Inner {
    /// An invitation as a person carries it: signed by this host, with leads to it and to others that it is connected with.
    pub(super) fn make_token(&self, name: String, signer: bool, lasts_ms: u64) -> Token {
        let time_ms = self.shared.with(|l| l.time_ms());
        let secret: [u8; 32] = lock(&self.random).random();
        let invitation = Invitation {
            mesh: self.mesh,
            key: Keys::from_seed(secret).key(),
            name,
            signer,
            expires_ms: time_ms.max(wall_ms()).min(time_ms + INVITATION_MS_MAX - lasts_ms) + lasts_ms,
        };
        let others: Vec<PeerKey> =
            self.others().into_iter().filter(|p| self.shared.with(|l| l.roster().is_member(p))).collect();
        let leads = std::iter::once(self.me)
            .chain(others.into_iter().filter(|peer| self.net.is_connected(*peer)))
            .take(TOKEN_LEADS)
            .map(|peer| Known { peer, name: self.name_of(&peer), addresses: self.leads_to_tell(&peer) })
            .collect();
        Token { invitation: Signed::seal(&self.keys, &invitation), secret, leads }
    }

    pub(super) fn check_may(&self, what: &str) -> Result<(), ApiError> {
        match self.shared.with(|l| l.roster().member(&self.me).is_some_and(|m| m.signer)) {
            true => Ok(()),
            false => Err(ApiError::new(403, "not-signer", format!("this host may not {what}: it is no signer"))
                .hint(format!("run `mesh {what}` on a host that is: {}", self.signers()))),
        }
    }

    fn signers(&self) -> String {
        let signers = |l: &mesh::ledger::Ledger| -> Vec<String> {
            l.roster().members().filter(|(_, m)| m.signer).map(|(_, m)| m.name.clone()).collect()
        };
        self.shared.with(signers).join(" or ")
    }

    pub(super) async fn rename_host(&self, host: &str, name: String) -> Result<(), ApiError> {
        self.check_may("rename")?;
        let peer = self.find_host(host)?;
        self.ask(self.request_id(), Command::Rename(Rename { peer, name })).await.map(drop)
    }

    /// The successor's token.
    pub(super) async fn replace_host(&self, request: ReplaceRequest) -> Result<String, ApiError> {
        let ReplaceRequest { host, reason, expires_ms, force } = request;
        self.check_may("replace")?;
        let peer = self.find_host(&host)?;
        if peer == self.me {
            return Err(ApiError::conflict(format!("{host} is this host, and it lives"))
                .hint("`mesh leave` takes this host out; run `mesh replace` on another for one that is lost"));
        }
        let (name, signer, last) = self.shared.with(|l| {
            let member = l.roster().member(&peer).map(|m| (m.name.clone(), m.signer)).unwrap_or_default();
            (member.0, member.1, member.1 && l.roster().signers() == 1)
        });
        if last {
            return Err(ApiError::new(403, "last-signer", format!("{name} is the last signer: nobody could invite any more"))
                .hint("invite another signer first (`mesh invite NAME --signer`); when it is lost for good, `mesh recover` helps"));
        }
        let state = lock(&self.members).host(&peer).map(|h| h.state);
        if !force && let Some(why) = lives(&name, state) {
            return Err(ApiError::conflict(why).hint(format!(
                "`mesh why {name}` tells more; stop it there (or wait until it is down), or say `--force` when it is lost \
                 all the same"
            )));
        }
        self.check_not_needed(&peer)?;
        let token = self.make_token(name, signer, expires_ms);
        let entry = Replace { peer, invitation: token.invitation.clone(), reason };
        self.ask(self.request_id(), Command::Replace(entry)).await?;
        Ok(token.text())
    }

    /// Whose successors are awaited, for status.
    pub(super) fn warn_of_successors(&self, warnings: &mut Vec<Warning>) {
        let awaited: Vec<(String, u64)> = self.shared.with(|l| {
            let now = l.time_ms();
            l.roster().heirs(now).map(|(_, heir)| (heir.name.clone(), heir.expires_ms - now)).collect()
        });
        warnings.extend(awaited.into_iter().map(|(name, left_ms)| {
            let left = humantime::format_duration(Duration::from_secs(left_ms / 60_000 * 60));
            let text = format!(
                "{name} was replaced, and its successor has not joined yet; its invitation ends in {left}, then the name is \
                 free again"
            );
            Warning { code: "successor".into(), level: Level::Note, host: Some(name), text }
        }));
    }
}

/// Why a host is not to be replaced, when it may live.
fn lives(name: &str, state: Option<State>) -> Option<String> {
    match state {
        Some(State::Down | State::Left) => None,
        Some(State::Alive) => Some(format!("{name} is alive: a replacement would cut it off")),
        Some(State::Suspect) | None => Some(format!("it is not certain that {name} is lost: it is not down yet")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_down_or_gone_is_replaced_without_force() {
        let free = |state| lives("x", state).is_none();
        assert!(free(Some(State::Down)) && free(Some(State::Left)));
        assert!(!free(Some(State::Alive)) && !free(Some(State::Suspect)) && !free(None));
        assert_ne!(lives("x", Some(State::Alive)), lives("x", None), "what is known and what is not are told apart");
    }
}

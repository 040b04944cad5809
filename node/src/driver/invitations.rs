//! Invitations that this daemon has made since its start, until somebody has used them or they end: for `mesh doctor`.
//!
//! The mesh itself keeps nothing of an invitation before it is redeemed, so nobody else can tell of these. The token is not
//! kept here either.

use mesh::identity::PeerKey;
use mesh::ledger::Ledger;
use mesh::limits::INVITATIONS_MAX;
use mesh::roster::Invitation;
use mesh::wire::Signed;

/// Those that are open, as far as this daemon knows; the oldest go first when there are too many.
#[derive(Default)]
pub(super) struct Invitations(Vec<Invitation>);

impl Invitations {
    pub fn made(&mut self, invitation: &Signed) {
        self.0.extend(invitation.open::<Invitation>());
        if self.0.len() > INVITATIONS_MAX {
            self.0.remove(0);
        }
    }

    /// Those that nobody has used, and that can still be used.
    pub fn open(&mut self, ledger: &Ledger) -> &[Invitation] {
        let used = |key: &PeerKey| ledger.roster().is_redeemed(key);
        self.0.retain(|invitation| invitation.expires_ms > ledger.time_ms() && !used(&invitation.key));
        &self.0
    }
}

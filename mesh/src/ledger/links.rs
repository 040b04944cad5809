//! What proves to a host that was away who became a signer, and who stopped being one: the signed records themselves, as
//! they stood in the log, for whoever brings it a warrant ([`crate::warrant::Introduction`]).
//!
//! Kept in the order of the log, the newest of them. The first signer needs none: the genesis names it. Records from before
//! this was kept are missing, and whoever lacks those has to catch up first. Nothing is decided by them here; voter sets
//! have a chain of their own.

use crate::identity::PeerKey;
use crate::limits::LINKS_KEPT_MAX;
use crate::roster::{Invitation, JoinRequest};
use crate::wire::Signed;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, VecDeque};

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Link {
    /// A signer's [`JoinRequest`], which was redeemed.
    Introduction(Signed),
    /// The entry that put a signer out.
    Expulsion(Signed),
}

/// All that are kept.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Links(VecDeque<Link>);

impl Links {
    /// Whether none are.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Link> {
        self.0.iter()
    }

    pub(super) fn push(&mut self, link: Link) {
        self.0.push_back(link);
        if self.0.len() > LINKS_KEPT_MAX {
            self.0.pop_front();
        }
    }

    /// Whether this join request was redeemed, and is remembered.
    pub fn has_redeemed(&self, join: &Signed) -> bool {
        self.0.iter().any(|link| matches!(link, Link::Introduction(kept) if kept == join))
    }

    /// What has to be shown for a signer to somebody who may know the first signer alone: who let whom in, down to it, and
    /// who is out since. Oldest first; nothing when it needs none, or its own record is not kept.
    pub fn for_signer(&self, signer: &PeerKey) -> Vec<Link> {
        let mut line = BTreeSet::from([*signer]);
        let mut found = false;
        // Whoever invited was a signer before: one look from the newest to the oldest finds them all.
        for link in self.0.iter().rev() {
            if let Link::Introduction(join) = link
                && line.contains(&join.by)
                && let Some(inviter) = inviter(join)
            {
                found |= join.by == *signer;
                line.insert(inviter);
            }
        }
        let shown = |link: &&Link| match link {
            Link::Introduction(join) => line.contains(&join.by),
            Link::Expulsion(_) => true,
        };
        if found { self.0.iter().filter(shown).cloned().collect() } else { vec![] }
    }
}

fn inviter(join: &Signed) -> Option<PeerKey> {
    let request: JoinRequest = join.open().ok()?;
    let invitation: Invitation = request.invitation.open().ok()?;
    invitation.signer.then_some(request.invitation.by)
}

#[cfg(test)]
#[path = "links_tests.rs"]
mod tests;

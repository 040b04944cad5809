//! Statements whose signature holds. Only by [`Checked::open`] and [`Record::open`] do they come into being, so that
//! whoever holds one knows that it was verified and decoded strictly, and needs not do it again.
//!
//! A core keeps the presences of others as [`Record`]s behind an `Arc`. In a daemon each has one owner; a
//! simulation of many hosts opens a statement once and hands the same `Arc` to every core. Whether the
//! speaker is enrolled, in which mesh it speaks and what follows is judged in [`super::Membership`].

use super::{Accusation, Alive, Farewell, Presence, Refused, Statement};
use crate::identity::PeerKey;
use crate::limits::STATEMENT_BYTES_MAX;
use crate::wire::{Signed, decode, encode};
use std::ops::Deref;
use std::sync::Arc;

/// A verified presence, with the signature that shows it to others.
#[derive(Clone, PartialEq, Debug)]
pub struct Record {
    signed: Signed,
    presence: Presence,
    origin: u64,
}

impl Record {
    /// Verifies and decodes.
    ///
    /// # Errors
    /// When signature or bytes are bad, or a part is beyond its bounds.
    pub fn open(signed: &Signed) -> Result<Arc<Record>, Refused> {
        let presence: Presence = signed.open()?;
        if !presence.fits() {
            return Err(Refused::OutOfPlace("a presence beyond its bounds"));
        }
        Ok(Arc::new(Record::sealed(signed.clone(), presence)))
    }

    /// Of what this host has just signed itself.
    pub(super) fn sealed(signed: Signed, presence: Presence) -> Record {
        let origin = presence.origin();
        Record { signed, presence, origin }
    }

    /// Whose it is.
    pub fn by(&self) -> PeerKey {
        self.signed.by
    }

    /// As it was signed.
    pub fn signed(&self) -> &Signed {
        &self.signed
    }

    /// See [`Presence::origin`].
    pub fn origin(&self) -> u64 {
        self.origin
    }
}

impl Deref for Record {
    type Target = Presence;
    fn deref(&self) -> &Presence {
        &self.presence
    }
}

/// A verified statement of any kind.
#[derive(Clone, PartialEq, Debug)]
pub struct Checked(pub(super) Said);

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Said {
    Presence(Arc<Record>),
    Alive(Signed, Alive),
    Accusation(Signed, Accusation),
    Farewell(Signed, Farewell),
}

impl Checked {
    /// Decodes and verifies what came by gossip.
    ///
    /// # Errors
    /// When signature or bytes are bad, or a part is beyond its bounds.
    pub fn open(bytes: &[u8]) -> Result<Arc<Checked>, Refused> {
        Checked::verify(decode(bytes, STATEMENT_BYTES_MAX)?)
    }

    pub(super) fn verify(statement: Statement) -> Result<Arc<Checked>, Refused> {
        Ok(Arc::new(Checked(match statement {
            Statement::Presence(signed) => Said::Presence(Record::open(&signed)?),
            Statement::Alive(signed) => {
                let alive = signed.open()?;
                Said::Alive(signed, alive)
            }
            Statement::Accusation(signed) => {
                let accusation = signed.open()?;
                Said::Accusation(signed, accusation)
            }
            Statement::Farewell(signed) => {
                let farewell = signed.open()?;
                Said::Farewell(signed, farewell)
            }
        })))
    }

    /// Who says it.
    pub fn by(&self) -> PeerKey {
        match &self.0 {
            Said::Presence(record) => record.by(),
            Said::Alive(signed, _) | Said::Accusation(signed, _) | Said::Farewell(signed, _) => signed.by,
        }
    }

    /// The mesh it was said in.
    pub(super) fn mesh(&self) -> &[u8; 32] {
        match &self.0 {
            Said::Presence(record) => &record.mesh,
            Said::Alive(_, alive) => &alive.mesh,
            Said::Accusation(_, accusation) => &accusation.mesh,
            Said::Farewell(_, farewell) => &farewell.mesh,
        }
    }

    /// The bytes for gossip.
    pub fn bytes(&self) -> Vec<u8> {
        encode(&match &self.0 {
            Said::Presence(record) => Statement::Presence(record.signed.clone()),
            Said::Alive(signed, _) => Statement::Alive(signed.clone()),
            Said::Accusation(signed, _) => Statement::Accusation(signed.clone()),
            Said::Farewell(signed, _) => Statement::Farewell(signed.clone()),
        })
    }
}

impl Statement {
    pub(super) fn by(&self) -> PeerKey {
        let (Statement::Presence(signed)
        | Statement::Alive(signed)
        | Statement::Accusation(signed)
        | Statement::Farewell(signed)) = self;
        signed.by
    }
}

//! A verdict, with its evidence, and in words.

use crate::build::{Attempt, BuildId};
use crate::identity::PeerKey;
use crate::roster::Roster;
use std::fmt;

/// An attempt that a verdict rests on. Shown as `b7.2`; `mesh logs b7` shows what happened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Evidence {
    /// Of which build.
    pub build: BuildId,
    /// Which try of it.
    pub attempt: Attempt,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.build, self.attempt)
    }
}

/// What of a package is at fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Its command.
    Command,
    /// Its inputs, which nobody can fetch or unpack.
    Inputs,
}

/// Whose fault it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// A package's: it is held, and no host is charged with it.
    Package {
        /// What it is called.
        name: String,
        /// What of it.
        fault: Fault,
        /// Where it failed: two or more.
        hosts: Vec<PeerKey>,
        /// The attempts, the newest last.
        evidence: Vec<Evidence>,
    },
    /// Everybody's, so nobody's: the tree, the network. Healing freezes.
    Mesh {
        /// On whom most fails.
        hosts: Vec<PeerKey>,
        /// Of how many that build at all.
        of: usize,
        /// The attempts, the newest last.
        evidence: Vec<Evidence>,
    },
    /// A host's.
    Host {
        /// Which.
        host: PeerKey,
        /// How many distinct packages failed there and not elsewhere.
        packages: usize,
        /// The attempts, the newest last.
        evidence: Vec<Evidence>,
    },
    /// A host that fails fast gets no build until then, whoever is to blame.
    Rest {
        /// Which.
        host: PeerKey,
        /// Ledger time, in milliseconds since 1970.
        until_ms: u64,
        /// Fast failures in a row.
        failures: u64,
        /// The attempts, the newest last.
        evidence: Vec<Evidence>,
    },
}

impl Verdict {
    /// What it rests on.
    pub fn evidence(&self) -> &[Evidence] {
        match self {
            Verdict::Package { evidence, .. }
            | Verdict::Mesh { evidence, .. }
            | Verdict::Host { evidence, .. }
            | Verdict::Rest { evidence, .. } => evidence,
        }
    }

    /// In words, with the names that the roster has for the hosts.
    pub fn text(&self, roster: &Roster) -> String {
        let name = |key: &PeerKey| roster.member(key).map_or_else(|| key.short(), |member| member.name.clone());
        let names = |keys: &[PeerKey]| keys.iter().map(name).collect::<Vec<_>>().join(", ");
        let what = match self {
            Verdict::Package { name, fault: Fault::Command, hosts, .. } => {
                format!("{name} is held: its own command fails, on {}", names(hosts))
            }
            Verdict::Package { name, fault: Fault::Inputs, hosts, .. } => {
                format!("{name} is held: nobody can fetch or unpack its inputs, tried by {}", names(hosts))
            }
            Verdict::Mesh { hosts, of, .. } => format!(
                "most fails on {} of the {of} hosts that build ({}): that is no host's fault; look at the tree or the \
                 network; nothing is healed until it passes",
                hosts.len(),
                names(hosts)
            ),
            Verdict::Host { host, packages, .. } => {
                format!(
                    "{packages} packages fail on {} that are not to blame themselves, while other hosts build",
                    name(host)
                )
            }
            Verdict::Rest { host, failures, .. } => {
                format!("{} has failed {failures} builds in a row at once: it rests", name(host))
            }
        };
        let evidence: Vec<String> = self.evidence().iter().map(Evidence::to_string).collect();
        format!("{what} ({})", evidence.join(", "))
    }
}

//! Whom one failure is charged to: a table over what failed and what others have seen of the same package.

use crate::mutants::{self, Mutant};

/// What failed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Failure {
    /// The command itself, or it took too long.
    Command,
    /// Its inputs could not be fetched or unpacked.
    Inputs,
    /// The sandbox, the disk, storing or copying its outputs.
    Host,
}

/// What other hosts have seen of the same package.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Others {
    /// One has built it.
    pub good: bool,
    /// On one its command failed.
    pub failed_alike: bool,
    /// One could not fetch or unpack its inputs either: whoever has them was away then, or they are damaged.
    pub lack_inputs: bool,
}

/// Whom a failure is charged to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Charge {
    /// The host that reported it.
    Host,
    /// The package.
    Package,
    /// Nobody yet: another host has to say.
    Undecided,
}

/// The table.
///
/// | what failed | elsewhere | charged to |
/// |---|---|---|
/// | the command | its command failed as well | the package |
/// | the command | it was built | the host |
/// | the command | nobody has tried | nobody yet |
/// | inputs | another could not fetch or unpack them either | the package |
/// | inputs | anything else | the host |
/// | the host's own | anything | the host |
pub fn charge(failure: Failure, others: Others) -> Charge {
    match failure {
        Failure::Command if mutants::on(Mutant::BlamePackageOnHosts) => Charge::Host,
        Failure::Command if others.failed_alike => Charge::Package,
        Failure::Command if others.good || mutants::on(Mutant::BlameWithoutComparison) => Charge::Host,
        Failure::Command => Charge::Undecided,
        Failure::Inputs if others.lack_inputs && !mutants::on(Mutant::BlameInputsOnHosts) => Charge::Package,
        Failure::Inputs | Failure::Host => Charge::Host,
    }
}

//! Which invariant catches which mutant, on which tier, and from how many random seeds.
//!
//! A table, not a claim: `tests/mutants.rs` plays it. A seed counts as a catch only when the run with the mutant
//! breaks the invariant that the table names, and the same plan without the mutant does not fail so. The plans
//! are those of the scenario `chaos` with some kinds of faults or a theme enabled (swarm testing), which every seed
//! of `chaos` may have as well: nothing in them names a rule. What only a directed case shows is in [`DIRECTED`],
//! with the reason.

use crate::cores::run_cores;
use crate::draw::{Asked, Ground, draw};
use crate::invariants::{Jury, all};
use crate::orders::{Size, run};
use crate::plan::{Plan, Tier};
use crate::scenarios::fleets;
use crate::stage::Failure;
use mesh::mutants::Mutant;
use std::collections::BTreeSet;

/// How a mutant is caught.
#[derive(Clone, Copy, Debug)]
pub struct Catch {
    /// Which.
    pub mutant: Mutant,
    /// Names of invariants one of which is broken; `liveness` when the healed mesh does not come right.
    pub by: &'static [&'static str],
    /// Where.
    pub tier: Tier,
    /// The fleet.
    pub fleet: &'static str,
    /// Kinds of faults that are enabled, of [`crate::draw::KINDS`] and [`crate::draw::THEMES`]; work is drawn as
    /// always.
    pub faults: &'static [&'static str],
    /// From so many seeds in a row at least one must catch it.
    pub within: u64,
}

const fn cores(mutant: Mutant, by: &'static [&'static str], faults: &'static [&'static str], within: u64) -> Catch {
    Catch { mutant, by, tier: Tier::Cores, fleet: FLEET, faults, within }
}

/// Mutants that random seeds catch.
pub const CAUGHT: &[Catch] = &[
    cores(Mutant::NoBootQuarantine, &["one-lease"], &["upgrade"], 60),
    cores(Mutant::LeadershipIsLease, &["one-lease"], &["cut", "suspend"], 15),
    // What was acknowledged and lost shows as it is missed, or as the number of an attempt that is given again.
    cores(Mutant::AckBeforeSync, &["committed-stays", "attempts-count-once"], &["blackout", "slow-sync"], 30),
    cores(Mutant::VoterSetsUnchecked, &["voter-sets-chain"], &["forge"], 60),
    cores(Mutant::EntrySignaturesUnchecked, &["authorship"], &["forge"], 25),
    cores(Mutant::DoneWithoutReceipts, &["ends-once"], &["crash", "power-cut"], 8),
    cores(Mutant::AttemptNumberIgnored, &["attempts-count-once"], &["upgrade", "late-word", "suspend"], 40),
    cores(Mutant::LostHostKeepsItsBuilds, &["liveness"], &["crash"], 30),
    cores(Mutant::BusyHostLosesItsBuilds, &["attempts-stay"], &["crash"], 30),
    cores(Mutant::IdentityByAddress, &["signatures-are-due"], &["moving-day"], 12),
    cores(Mutant::AdmitAnybody, &["no-strangers"], &["stranger"], 12),
    cores(Mutant::RevocationIgnored, &["no-strangers"], &["ghost"], 20),
    cores(Mutant::OneAccuserIsEnough, &["heard-is-not-down"], &["blind-spot"], 30),
    Catch { fleet: "lan-8", ..cores(Mutant::NewVotersUnheard, &["liveness"], &["absence"], 60) },
    cores(Mutant::NoFreshWord, &["heard-is-not-down"], &["blind-spot"], 60),
    cores(Mutant::LeadsNeverExpire, &["nothing-unbounded"], &["tall-tales"], 8),
    cores(Mutant::StartNumberNotSynced, &["numbers-rise"], &["crash", "power-cut"], 8),
    cores(Mutant::OldStatementsCount, &["numbers-rise"], &["late-word"], 8),
    cores(Mutant::LedgerTimeIsWallClock, &["ledger-time-rises"], &["clock-jump", "late-word"], 60),
    cores(Mutant::RequestIdIgnored, &["requests-count-once"], &["crash"], 15),
    cores(Mutant::RetriesWithoutBound, &["tries-are-bounded"], &["cursed"], 8),
    cores(Mutant::PackageFailureBlamesHost, &["liveness"], &["bad-tree"], 8),
    cores(Mutant::AssignsWhatRuns, &["runs-once"], &["crash"], 8),
    cores(Mutant::RetryChangesTheBuild, &["definition-stays"], &["second-thoughts"], 8),
    cores(Mutant::FinishedForgotten, &["no-build-lost"], &["crash"], 8),
    cores(Mutant::DownIsForEver, &["healthy-is-not-down"], &["crash"], 8),
    // Routers keep their addresses, and in a fleet with one it is always found: here everybody can move.
    Catch { fleet: "lan-6", ..cores(Mutant::FirstAddressForEver, &["liveness"], &["new-addresses"], 8) },
];

/// A mutant of warrants or of healing, and which invariant it breaks on a walk of [`crate::orders`].
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    /// Which.
    pub mutant: Mutant,
    /// Name of the invariant that is broken.
    pub by: &'static str,
    /// From so many seeds in a row at least one must catch it.
    pub within: u64,
}

const fn walk(mutant: Mutant, by: &'static str, within: u64) -> Walk {
    Walk { mutant, by, within }
}

/// Mutants that random walks of small fleets catch: whoever lies there draws what to bend, and knows no rule's name.
pub const WALKS: &[Walk] = &[
    walk(Mutant::WarrantOfOtherMesh, "acts-are-fresh", 20),
    walk(Mutant::WarrantForOther, "orders-hit-their-target", 20),
    walk(Mutant::WarrantOfOtherBoot, "orders-hit-their-target", 20),
    walk(Mutant::WarrantOfOtherStart, "orders-hit-their-target", 20),
    walk(Mutant::WarrantNonceIgnored, "acts-are-agreed", 20),
    walk(Mutant::WarrantOfOtherOrder, "acts-are-agreed", 20),
    walk(Mutant::WarrantEpochIgnored, "acts-are-agreed", 20),
    walk(Mutant::WarrantLate, "acts-are-fresh", 20),
    walk(Mutant::WarrantExpired, "acts-are-fresh", 20),
    walk(Mutant::WarrantUnbounded, "acts-are-agreed", 20),
    walk(Mutant::WarrantVetoIgnored, "vetoes-hold", 20),
    walk(Mutant::WarrantRebootsAnybody, "vetoes-hold", 20),
    walk(Mutant::WarrantFenceIgnored, "acts-are-fenced", 20),
    walk(Mutant::WarrantFenceBelieved, "acts-are-fenced", 20),
    walk(Mutant::WarrantAgain, "acts-once", 20),
    walk(Mutant::WarrantIdShared, "acts-once", 20),
    walk(Mutant::WarrantNoMajority, "acts-are-agreed", 20),
    walk(Mutant::WarrantTooFewOthers, "acts-are-agreed", 20),
    walk(Mutant::WarrantLeaderUnchecked, "acts-are-agreed", 30),
    walk(Mutant::WarrantAuthorAbsent, "acts-are-agreed", 20),
    walk(Mutant::WarrantCosignatureUnchecked, "acts-are-agreed", 20),
    walk(Mutant::WarrantCosignerTwice, "acts-are-agreed", 20),
    walk(Mutant::WarrantCosignerStranger, "acts-are-agreed", 30),
    walk(Mutant::WarrantRevokedSigns, "acts-are-agreed", 20),
    walk(Mutant::WarrantOldRoster, "acts-are-fresh", 20),
    walk(Mutant::WarrantForceByLeader, "acts-are-agreed", 20),
    walk(Mutant::WarrantSignerUnchecked, "acts-are-agreed", 20),
    walk(Mutant::WarrantBeforeStored, "acts-are-fenced", 20),
    walk(Mutant::LinkUnvouched, "acts-are-written", 20),
    walk(Mutant::LinkInviterUnchecked, "acts-are-written", 20),
    walk(Mutant::LinkExpelledByAnybody, "refusals-are-true", 20),
    walk(Mutant::CosignUnwritten, "signatures-are-due", 40),
    walk(Mutant::CosignAnyLeader, "signatures-are-due", 60),
    walk(Mutant::CosignOtherBoot, "signatures-are-due", 20),
    walk(Mutant::CosignForgedHello, "signatures-are-due", 40),
    walk(Mutant::CosignHeldBack, "signatures-are-due", 40),
    walk(Mutant::CosignTwice, "signatures-are-due", 40),
    walk(Mutant::BlameHostsPhasesOnPackage, "heals-do-no-harm", 40),
    walk(Mutant::BlamePackageOnHosts, "healthy-is-not-healed", 100),
    walk(Mutant::HealsWhenOff, "stops-are-heeded", 40),
    walk(Mutant::HealsWhilePaused, "stops-are-heeded", 40),
    walk(Mutant::HealsThroughMeshFault, "heals-do-no-harm", 40),
    walk(Mutant::HealsManyAtOnce, "heals-are-rationed", 40),
    walk(Mutant::HealsBeyondBudget, "heals-are-rationed", 40),
    walk(Mutant::HealsWithoutCoolDown, "stops-are-heeded", 40),
    walk(Mutant::HealsProtected, "heals-do-no-harm", 40),
    walk(Mutant::HealsNotAllowed, "heals-do-no-harm", 40),
    walk(Mutant::HealByAnybody, "healing-has-authors", 20),
    walk(Mutant::LostOrdersClimb, "rungs-are-climbed", 40),
    walk(Mutant::WithdrawsWhatArrived, "rungs-are-climbed", 40),
    walk(Mutant::ReturnIsHealth, "heals-do-no-harm", 40),
    walk(Mutant::HealsThroughStorm, "stops-are-heeded", 60),
    walk(Mutant::HealsWhileDisputed, "heals-do-no-harm", 60),
    walk(Mutant::NoFenceCheck, "fences-rise", 40),
    walk(Mutant::RecoveryUnsigned, "recoveries-are-owned", 20),
    walk(Mutant::RecoveryKeepsEpoch, "recoveries-are-owned", 40),
    walk(Mutant::BlameInputsOnHosts, "healthy-is-not-healed", 60),
    walk(Mutant::BlameWithoutComparison, "heals-do-no-harm", 100),
    walk(Mutant::BlameForOnePackage, "heals-do-no-harm", 40),
    walk(Mutant::BlameNeverTheMesh, "heals-do-no-harm", 40),
    walk(Mutant::BlameNoRest, "heals-do-no-harm", 40),
    walk(Mutant::BlameForEver, "healthy-is-not-healed", 40),
    walk(Mutant::CosignStale, "signatures-are-due", 60),
    walk(Mutant::CosignSuspended, "signatures-are-due", 40),
    walk(Mutant::HealsNotEnabledAtBoot, "heals-do-no-harm", 40),
    walk(Mutant::HealsOnlyPath, "heals-do-no-harm", 40),
    walk(Mutant::HealsLastVoters, "heals-do-no-harm", 40),
    walk(Mutant::HealsProgressing, "heals-do-no-harm", 40),
    walk(Mutant::HealsOnOneWord, "healthy-is-not-healed", 40),
    walk(Mutant::HealsTheRecovered, "heals-do-no-harm", 40),
    walk(Mutant::HealsWithoutSigners, "heals-do-no-harm", 40),
    walk(Mutant::HealsHeldHost, "stops-are-heeded", 40),
    walk(Mutant::HealsLastBuilder, "heals-do-no-harm", 40),
    walk(Mutant::HealsSuspended, "heals-do-no-harm", 40),
    walk(Mutant::OrderedUnwritten, "healing-has-authors", 40),
];

impl Walk {
    fn breaks(&self, seed: u64) -> bool {
        run(seed, Size::SMALL, Some(self.mutant)).failure.is_some_and(|failure| failure.invariant == self.by)
    }

    /// Whether a seed catches the mutant, and passes with all rules in place.
    pub fn catches(&self, seed: u64) -> bool {
        self.breaks(seed) && run(seed, Size::SMALL, None).failure.is_none()
    }

    /// The first of the seeds from `base` that catches it, within the bound; `sound` says whether a seed passes with
    /// all rules in place.
    pub fn first(&self, base: u64, mut sound: impl FnMut(u64) -> bool) -> Option<u64> {
        (base..base + self.within).find(|seed| self.breaks(*seed) && sound(*seed))
    }
}

/// A row of either table.
#[derive(Clone, Copy, Debug)]
pub enum Row {
    /// A plan's.
    Plan(&'static Catch),
    /// A walk's.
    Walk(&'static Walk),
}

impl Row {
    /// All rows, plans first.
    pub fn all() -> impl Iterator<Item = Row> {
        CAUGHT.iter().map(Row::Plan).chain(WALKS.iter().map(Row::Walk))
    }

    /// The mutant, the invariant that it breaks (or one of these), and the bound.
    pub fn says(&self) -> (Mutant, String, u64) {
        match self {
            Row::Plan(row) => (row.mutant, row.by.join(" or "), row.within),
            Row::Walk(row) => (row.mutant, row.by.to_owned(), row.within),
        }
    }

    /// Whether a seed catches the mutant, and passes with all rules in place.
    ///
    /// # Errors
    /// When nothing can be drawn, in words.
    pub fn catches(&self, seed: u64) -> Result<bool, String> {
        match self {
            Row::Plan(row) => row.catches(seed),
            Row::Walk(row) => Ok(row.catches(seed)),
        }
    }
}

/// Mutants that no random seed catches, and why: then `tests/mutants_pure.rs` and the tests of their parts show what
/// they do.
pub const DIRECTED: &[(Mutant, &str)] = &[
    (Mutant::CosignExpired, "an order that has ended is no longer open in a voter's ledger, which is asked first"),
    (
        Mutant::CosignForce,
        "the ledger takes no leader's order that is forced, and what is not written is refused first",
    ),
    (
        Mutant::BlameRestsForEach,
        "a mesh in which much fails is given the time that its rests take; with a shorter bound seeds 18 and 7032 of \
         `bad-tree` show it",
    ),
    (
        Mutant::HealsUnsettled,
        "two hosts have to be down when a leader's step has no answer, its lease to end and to begin again in the same term: \
         two of ten thousand seeds of `chaos` met it before the rule was there, and `tests/cores.rs` does",
    ),
    (
        Mutant::LeavesMidChange,
        "two of three voters have to leave, the second within the change of voters that the first has begun, while the \
         third is away and comes back in time for both: sixty plans of leaves and short absences did not meet it, and \
         `tests/new_voters.rs` does",
    ),
    (
        Mutant::HealsOnOldWord,
        "a step has to be held back for more than an hour while its host recovers, and to be taken up again before the next \
         build says so: sixty walks did not meet it, though their jury takes what builds say for true for little longer; the \
         tests of `mesh::healing` show what it does",
    ),
    (Mutant::BuildsDespiteMeasures, MEASURES),
    (Mutant::BlockLeavesBuilds, MEASURES),
    (Mutant::BuildsWhereSetAside, MEASURES),
    (Mutant::NoCanaries, MEASURES),
    (Mutant::HeldPackagesGoOn, MEASURES),
    (Mutant::InputsHeldForHours, MEASURES),
    (Mutant::TimeStandsStill, MEASURES),
    (Mutant::ArchiveUnchecked, TRAIL),
];

/// Why no random seed shows it.
const MEASURES: &str = "no simulated person blocks, drains or pauses; the tests of `mesh::restraint` show what it does";
/// Why no simulated mesh can show it.
const TRAIL: &str =
    "no simulated trail grows as old as what is put away; the tests of `mesh::healing` show what it does";

/// The fleet of most of these runs.
const FLEET: &str = "alpha-centauri";

impl Catch {
    /// The plan of a seed, without the mutant.
    ///
    /// # Errors
    /// When nothing can be drawn, in words.
    pub fn plan(&self, seed: u64) -> Result<Plan, String> {
        let grounds = [Ground::new(self.fleet.to_owned(), fleets::find(self.fleet)?)];
        let faults: BTreeSet<String> = self.faults.iter().map(|name| (*name).to_owned()).collect();
        let asked = Asked { scenario: "chaos", tier: self.tier, seed, fleets: &grounds, faults: Some(&faults) };
        draw(&asked).map_err(|error| error.to_string())
    }

    fn fails(&self, plan: &Plan) -> bool {
        let (played, _) = run_cores(plan, &mut Jury::new(all()), None);
        match played.failure {
            Some(Failure::Safety(violation)) => self.by.contains(&violation.invariant),
            Some(Failure::Liveness { .. }) => self.by.contains(&"liveness"),
            Some(Failure::Crash(_)) | None => false,
        }
    }

    /// Whether a seed catches the mutant, and the rule itself passes.
    ///
    /// # Errors
    /// When nothing can be drawn, in words.
    pub fn catches(&self, seed: u64) -> Result<bool, String> {
        let strict = self.plan(seed)?;
        let naive = Plan { mutant: Some(self.mutant), ..strict.clone() };
        Ok(self.fails(&naive) && !self.fails(&strict))
    }

    /// The first of the seeds from `base` that catches it, within the bound.
    ///
    /// # Errors
    /// When nothing can be drawn, in words.
    pub fn first(&self, base: u64) -> Result<Option<u64>, String> {
        for seed in base..base + self.within {
            if self.catches(seed)? {
                return Ok(Some(seed));
            }
        }
        Ok(None)
    }
}

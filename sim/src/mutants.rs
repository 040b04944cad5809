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
    /// Name of the invariant that is broken; `liveness` when the healed mesh does not come right.
    pub by: &'static str,
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

const fn cores(mutant: Mutant, by: &'static str, faults: &'static [&'static str], within: u64) -> Catch {
    Catch { mutant, by, tier: Tier::Cores, fleet: FLEET, faults, within }
}

/// Mutants that random seeds catch.
pub const CAUGHT: &[Catch] = &[
    cores(Mutant::NoBootQuarantine, "one-lease", &["upgrade"], 60),
    cores(Mutant::LeadershipIsLease, "one-lease", &["cut", "suspend"], 15),
    cores(Mutant::NoFenceCheck, "fences-rise", &["late-word"], 40),
    cores(Mutant::AckBeforeSync, "committed-stays", &["blackout"], 60),
    cores(Mutant::VoterSetsUnchecked, "voter-sets-chain", &["forge"], 60),
    cores(Mutant::EntrySignaturesUnchecked, "authorship", &["forge"], 25),
    cores(Mutant::DoneWithoutReceipts, "ends-once", &["crash", "power-cut"], 8),
    cores(Mutant::AttemptNumberIgnored, "attempts-count-once", &["upgrade", "late-word", "suspend"], 40),
    cores(Mutant::LostHostKeepsItsBuilds, "liveness", &["crash"], 30),
    cores(Mutant::BusyHostLosesItsBuilds, "attempts-stay", &["crash"], 30),
    cores(Mutant::IdentityByAddress, "orders-hit-their-target", &["moving-day"], 12),
    cores(Mutant::OrdersNotRemembered, "orders-hit-their-target", &["late-word"], 12),
    cores(Mutant::AdmitAnybody, "no-strangers", &["stranger"], 12),
    cores(Mutant::RevocationIgnored, "no-strangers", &["ghost"], 20),
    cores(Mutant::OneAccuserIsEnough, "heard-is-not-down", &["blind-spot"], 30),
    cores(Mutant::NoFreshWord, "heard-is-not-down", &["blind-spot"], 60),
    cores(Mutant::LeadsNeverExpire, "nothing-unbounded", &["tall-tales"], 8),
    cores(Mutant::StartNumberNotSynced, "numbers-rise", &["crash", "power-cut"], 8),
    cores(Mutant::OldStatementsCount, "numbers-rise", &["late-word"], 8),
    cores(Mutant::LedgerTimeIsWallClock, "ledger-time-rises", &["clock-jump", "late-word"], 60),
    cores(Mutant::RequestIdIgnored, "requests-count-once", &["crash"], 15),
    cores(Mutant::RetriesWithoutBound, "tries-are-bounded", &["bad-tree"], 8),
    cores(Mutant::PackageFailureBlamesHost, "liveness", &["bad-tree"], 8),
    cores(Mutant::AssignsWhatRuns, "runs-once", &["crash"], 8),
    cores(Mutant::RetryChangesTheBuild, "definition-stays", &["second-thoughts"], 8),
    cores(Mutant::FinishedForgotten, "no-build-lost", &["crash"], 8),
    cores(Mutant::DownIsForEver, "healthy-is-not-down", &["crash"], 8),
    // Routers keep their addresses, and in a fleet with one it is always found: here everybody can move.
    Catch { fleet: "lan-6", ..cores(Mutant::FirstAddressForEver, "liveness", &["new-addresses"], 8) },
];

/// Mutants that no random seed catches, and why: then `tests/mutants_pure.rs` and the tests of their parts show what
/// they do.
pub const DIRECTED: &[(Mutant, &str)] = &[
    (Mutant::WarrantOfOtherMesh, WARRANTS),
    (Mutant::WarrantForOther, WARRANTS),
    (Mutant::WarrantOfOtherBoot, WARRANTS),
    (Mutant::WarrantOfOtherStart, WARRANTS),
    (Mutant::WarrantNonceIgnored, WARRANTS),
    (Mutant::WarrantOfOtherOrder, WARRANTS),
    (Mutant::WarrantEpochIgnored, WARRANTS),
    (Mutant::WarrantLate, WARRANTS),
    (Mutant::WarrantExpired, WARRANTS),
    (Mutant::WarrantUnbounded, WARRANTS),
    (Mutant::WarrantVetoIgnored, WARRANTS),
    (Mutant::WarrantRebootsAnybody, WARRANTS),
    (Mutant::WarrantFenceIgnored, WARRANTS),
    (Mutant::WarrantFenceBelieved, WARRANTS),
    (Mutant::WarrantAgain, WARRANTS),
    (Mutant::WarrantIdShared, WARRANTS),
    (Mutant::WarrantNoMajority, WARRANTS),
    (Mutant::WarrantTooFewOthers, WARRANTS),
    (Mutant::WarrantLeaderUnchecked, WARRANTS),
    (Mutant::WarrantAuthorAbsent, WARRANTS),
    (Mutant::WarrantCosignatureUnchecked, WARRANTS),
    (Mutant::WarrantCosignerTwice, WARRANTS),
    (Mutant::WarrantCosignerStranger, WARRANTS),
    (Mutant::WarrantRevokedSigns, WARRANTS),
    (Mutant::WarrantOldRoster, WARRANTS),
    (Mutant::WarrantForceByLeader, WARRANTS),
    (Mutant::WarrantSignerUnchecked, WARRANTS),
    (Mutant::WarrantBeforeStored, WARRANTS),
    (Mutant::LinkUnvouched, WARRANTS),
    (Mutant::LinkInviterUnchecked, WARRANTS),
    (Mutant::LinkExpelledByAnybody, WARRANTS),
    (Mutant::CosignUnwritten, WARRANTS),
    (Mutant::CosignAnyLeader, WARRANTS),
    (Mutant::CosignExpired, WARRANTS),
    (Mutant::CosignOtherBoot, WARRANTS),
    (Mutant::CosignForgedHello, WARRANTS),
    (Mutant::CosignHeldBack, WARRANTS),
    (Mutant::CosignTwice, WARRANTS),
    (Mutant::CosignForce, WARRANTS),
    (Mutant::CosignStale, WARRANTS),
    (Mutant::CosignSuspended, WARRANTS),
    (Mutant::BlameHostsPhasesOnPackage, HEALING),
    (Mutant::BlamePackageOnHosts, HEALING),
    (Mutant::BlameInputsOnHosts, HEALING),
    (Mutant::BlameWithoutComparison, HEALING),
    (Mutant::BlameForOnePackage, HEALING),
    (Mutant::BlameNeverTheMesh, HEALING),
    (Mutant::BlameNoRest, HEALING),
    (Mutant::BlameForEver, HEALING),
    (Mutant::HealsWhenOff, HEALING),
    (Mutant::HealsWhilePaused, HEALING),
    (Mutant::HealsThroughMeshFault, HEALING),
    (Mutant::HealsThroughStorm, HEALING),
    (Mutant::HealsManyAtOnce, HEALING),
    (Mutant::HealsBeyondBudget, HEALING),
    (Mutant::HealsWithoutCoolDown, HEALING),
    (Mutant::HealsProtected, HEALING),
    (Mutant::HealsNotAllowed, HEALING),
    (Mutant::HealsNotEnabledAtBoot, HEALING),
    (Mutant::HealsOnlyPath, HEALING),
    (Mutant::HealsLastVoters, HEALING),
    (Mutant::HealsProgressing, HEALING),
    (Mutant::HealsOnOneWord, HEALING),
    (Mutant::HealsTheRecovered, HEALING),
    (Mutant::HealsWithoutSigners, HEALING),
    (Mutant::HealsHeldHost, HEALING),
    (Mutant::HealsLastBuilder, HEALING),
    (Mutant::HealsSuspended, HEALING),
    (Mutant::HealByAnybody, HEALING),
    (Mutant::OrderedUnwritten, HEALING),
    (Mutant::HealsWhileDisputed, HEALING),
    (Mutant::RecoveryUnsigned, RECOVERY),
    (Mutant::RecoveryKeepsEpoch, RECOVERY),
    (Mutant::BuildsDespiteMeasures, MEASURES),
    (Mutant::BlockLeavesBuilds, MEASURES),
    (Mutant::BuildsWhereSetAside, MEASURES),
    (Mutant::NoCanaries, MEASURES),
    (Mutant::HeldPackagesGoOn, MEASURES),
    (Mutant::TimeStandsStill, MEASURES),
    (Mutant::ArchiveUnchecked, HEALING),
];

/// Why no random seed shows it.
const MEASURES: &str = "no simulated person blocks, drains or pauses; the tests of `mesh::restraint` show what it does";
/// Why no simulated mesh can show it.
const RECOVERY: &str = "no simulated owner holds a recovery key; the property tests of `mesh::roster` and `mesh::ledger` show what it does";

/// Why no simulated mesh can show it.
const HEALING: &str = "no simulated mesh heals yet; the tests of `mesh::blame` and `mesh::healing` show what it does";
/// Why no simulated host can show it.
const WARRANTS: &str = "no simulated host takes a warrant yet; the tests of `mesh::warrant` show what it does";

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
            Some(Failure::Safety(violation)) => violation.invariant == self.by,
            Some(Failure::Liveness { .. }) => self.by == "liveness",
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

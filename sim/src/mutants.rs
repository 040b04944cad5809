//! Which invariant catches which mutant, on which tier, and from how many random seeds.
//!
//! A table, not a claim: `tests/mutants.rs` plays it. A seed counts as a catch only when the run with the mutant
//! breaks the invariant that the table names, and the same plan without the mutant does not fail so. The plans
//! are those of the scenario `chaos` with some kinds of faults enabled (swarm testing); nothing in them is made
//! for a mutant. What only a directed case shows so far is in [`DIRECTED`], with the reason.

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
    /// Kinds of faults that are enabled, of [`crate::draw::KINDS`]; work is drawn as always.
    pub faults: &'static [&'static str],
    /// From so many seeds in a row at least one must catch it.
    pub within: u64,
}

const fn cores(mutant: Mutant, by: &'static str, faults: &'static [&'static str], within: u64) -> Catch {
    Catch { mutant, by, tier: Tier::Cores, faults, within }
}

/// Mutants that random seeds catch.
pub const CAUGHT: &[Catch] = &[
    cores(Mutant::LeadershipIsLease, "one-lease", &["cut", "suspend"], 15),
    cores(Mutant::VoterSetsUnchecked, "voter-sets-chain", &["forge"], 30),
    cores(Mutant::EntrySignaturesUnchecked, "authorship", &["forge"], 25),
    cores(Mutant::DoneWithoutReceipts, "ends-once", &["crash", "power-cut"], 8),
    cores(Mutant::AttemptNumberIgnored, "attempts-count-once", &["replay-late", "crash", "suspend", "cut"], 80),
    cores(Mutant::LostHostKeepsItsBuilds, "liveness", &["crash"], 30),
    cores(Mutant::BusyHostLosesItsBuilds, "attempts-stay", &["crash"], 30),
    cores(Mutant::OrdersNotRemembered, "orders-hit-their-target", &["replay-late"], 30),
    cores(Mutant::AdmitAnybody, "no-strangers", &["stranger"], 12),
    cores(Mutant::StartNumberNotSynced, "numbers-rise", &["crash", "power-cut"], 8),
    cores(Mutant::OldStatementsCount, "numbers-rise", &["replay-late", "crash"], 8),
    cores(Mutant::LedgerTimeIsWallClock, "ledger-time-rises", &["clock-jump", "crash"], 150),
    cores(Mutant::RequestIdIgnored, "requests-count-once", &["crash"], 15),
];

/// Mutants that no random seed has caught yet, and why: `tests/mutants_pure.rs` and the tests of their parts
/// show what they do.
pub const DIRECTED: &[(Mutant, &str)] = &[
    (
        Mutant::NoBootQuarantine,
        "a voter has to start within the lease that it has promised; the ledger's own test of a restart shows it",
    ),
    (
        Mutant::IdentityByAddress,
        "incidents 1 and 2: an order has to be issued while only a masquerade leads to its target",
    ),
    (
        Mutant::OneAccuserIsEnough,
        "incident 13: exactly one host has to be cut from another for as long as a verdict takes",
    ),
    (Mutant::NoFenceCheck, "a forged assignment finds a queued build too rarely; no late leader's entry is replayed"),
    (Mutant::AckBeforeSync, "a majority must lose its power within the half millisecond of a sync"),
    (Mutant::RevocationIgnored, "whom a roster has taken out is not dialled by the others in the cores' tier"),
    (Mutant::NoFreshWord, "no drawn cut keeps two hosts, and only two, from a third for as long as a verdict takes"),
    (Mutant::RetriesWithoutBound, "incident 8: a build that breaks everywhere has to be drawn"),
    (Mutant::PackageFailureBlamesHost, "incident 9: as many failures on each host have to be drawn"),
    (Mutant::AssignsWhatRuns, "incident 11: no invariant counts the attempts that run at one time"),
    (Mutant::RetryChangesTheBuild, "incident 16: a retry of what has failed has to be drawn"),
    (Mutant::FirstAddressForEver, "incident 17: the addresses of all hosts of a pair have to change"),
    (Mutant::LeadsNeverExpire, "no run has as many addresses as the bound, nor lasts for a day"),
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
];

/// Why no simulated mesh can show it.
const HEALING: &str = "no simulated mesh heals yet; the tests of `mesh::blame` and `mesh::healing` show what it does";
/// Why no simulated host can show it.
const WARRANTS: &str = "no simulated host takes a warrant yet; the tests of `mesh::warrant` show what it does";

/// The fleet of all these runs.
const FLEET: &str = "alpha-centauri";

impl Catch {
    /// The plan of a seed, without the mutant.
    ///
    /// # Errors
    /// When nothing can be drawn, in words.
    pub fn plan(&self, seed: u64) -> Result<Plan, String> {
        let fleet = fleets::find(FLEET)?;
        let grounds = [Ground::new(FLEET.to_owned(), fleet)];
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

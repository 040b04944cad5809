//! Naive variants of the rules, for the simulator to catch.
//!
//! Every rule that can be broken quietly has a [`Mutant`]: the code asks [`on`] at the very place where
//! the rule is kept, and a simulation that runs with the mutant must fail. A check that no mutant can
//! defeat is a check that nobody has seen working. Without the crate's feature `mutants`, which only
//! `sim` sets (and this crate's own tests have), [`on`] is a constant `false` and the naive code is not in the program. A mutant holds for
//! the thread that called [`with`], so that simulations run beside each other; nothing else is kept here.

use std::fmt;
use std::str::FromStr;

macro_rules! mutants {
    ($($(#[doc = $text:literal])* $variant:ident = $name:literal,)*) => {
        /// A rule left out.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mutant {
            $($(#[doc = $text])* $variant,)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Mutant] = &[$(Mutant::$variant),*];

            /// What the command line calls it.
            pub const fn name(self) -> &'static str {
                match self { $(Mutant::$variant => $name,)* }
            }

            /// What is left out, in words.
            pub const fn text(self) -> &'static str {
                match self { $(Mutant::$variant => concat!($($text),*),)* }
            }
        }
    };
}

mutants! {
    /// A host that has just started votes at once, though it may have promised otherwise before.
    NoBootQuarantine = "no-boot-quarantine",
    /// The leader acts for as long as Raft calls it one, whoever has acknowledged it and when.
    LeadershipIsLease = "leadership-is-lease",
    /// An entry of a leader counts whatever its fence.
    NoFenceCheck = "no-fence-check",
    /// An entry is acknowledged before it is synced to the disk.
    AckBeforeSync = "ack-before-sync",
    /// A new voter set counts without the signatures of a majority of the one before.
    VoterSetsUnchecked = "voter-sets-unchecked",
    /// A voter is taken out while consensus still changes its voters, though its yes is needed for that.
    LeavesMidChange = "leaves-mid-change",
    /// A host that missed a change of voters hears none of the new ones, whatever is shown to it.
    NewVotersUnheard = "new-voters-unheard",
    /// An entry counts whoever signed it.
    EntrySignaturesUnchecked = "entry-signatures-unchecked",
    /// A build is done on its builder's word, before its outputs are held and signed for.
    DoneWithoutReceipts = "done-without-receipts",
    /// A report ends its build whichever attempt it is of.
    AttemptNumberIgnored = "attempt-number-ignored",
    /// The attempts of a host that is gone stay with it.
    LostHostKeepsItsBuilds = "lost-host-keeps-its-builds",
    /// Attempts are taken from a host that is merely busy.
    BusyHostLosesItsBuilds = "busy-host-loses-its-builds",
    /// An order is carried out by whoever is reached at its target's address.
    IdentityByAddress = "identity-by-address",
    /// Whoever knocks is let in.
    AdmitAnybody = "admit-anybody",
    /// A key that was taken out is still spoken to.
    RevocationIgnored = "revocation-ignored",
    /// A host is down on the word of one watcher, and nobody else is asked.
    OneAccuserIsEnough = "one-accuser-is-enough",
    /// Nobody's fresh word of a host is heard.
    NoFreshWord = "no-fresh-word",
    /// Leads are kept for ever, and however many.
    LeadsNeverExpire = "leads-never-expire",
    /// The start number is counted up and not written down.
    StartNumberNotSynced = "start-number-not-synced",
    /// A statement counts though a newer one of its speaker is known.
    OldStatementsCount = "old-statements-count",
    /// Ledger time is the leader's wall clock.
    LedgerTimeIsWallClock = "ledger-time-is-wall-clock",
    /// A submission that is sent again is a second build.
    RequestIdIgnored = "request-id-ignored",
    /// A build is tried again on the host that failed it, however often.
    RetriesWithoutBound = "retries-without-bound",
    /// A host on which packages fail gets no more builds.
    PackageFailureBlamesHost = "package-failure-blames-host",
    /// A build that runs already is given to another host too.
    AssignsWhatRuns = "assigns-what-runs",
    /// A retry changes the definition of the build.
    RetryChangesTheBuild = "retry-changes-the-build",
    /// A build that has ended is forgotten at once.
    FinishedForgotten = "finished-forgotten",
    /// A host that was down once is down for ever.
    DownIsForEver = "down-is-for-ever",
    /// The first address of a peer that was told is the only one ever dialled.
    FirstAddressForEver = "first-address-for-ever",
    /// A target takes a warrant of another mesh.
    WarrantOfOtherMesh = "warrant-of-other-mesh",
    /// A target takes a warrant that names somebody else.
    WarrantForOther = "warrant-for-other",
    /// A target takes a warrant that was meant for another boot.
    WarrantOfOtherBoot = "warrant-of-other-boot",
    /// A service is restarted that has been restarted since.
    WarrantOfOtherStart = "warrant-of-other-start",
    /// A target takes signatures over a nonce that it has not just given out.
    WarrantNonceIgnored = "warrant-nonce-ignored",
    /// A target takes signatures over another order.
    WarrantOfOtherOrder = "warrant-of-other-order",
    /// A target takes a warrant of voters of another epoch.
    WarrantEpochIgnored = "warrant-epoch-ignored",
    /// A target's nonce is good for ever.
    WarrantLate = "warrant-late",
    /// A target takes an order that has expired.
    WarrantExpired = "warrant-expired",
    /// A target takes an order that has no reason, or no end to its grace.
    WarrantUnbounded = "warrant-unbounded",
    /// A protected host acts on a warrant.
    WarrantVetoIgnored = "warrant-veto-ignored",
    /// A host that does not allow it is rebooted.
    WarrantRebootsAnybody = "warrant-reboots-anybody",
    /// A target takes a lower fence than it has seen.
    WarrantFenceIgnored = "warrant-fence-ignored",
    /// A target stores a fence that only a person's order claims.
    WarrantFenceBelieved = "warrant-fence-believed",
    /// An order is carried out as often as a warrant for it comes.
    WarrantAgain = "warrant-again",
    /// Two orders share an id.
    WarrantIdShared = "warrant-id-shared",
    /// A leader's order counts without a majority of the voters.
    WarrantNoMajority = "warrant-no-majority",
    /// A leader's order counts though fewer than two voters besides the target signed.
    WarrantTooFewOthers = "warrant-too-few-others",
    /// A leader's order counts though its author is no voter, or another one leads.
    WarrantLeaderUnchecked = "warrant-leader-unchecked",
    /// A warrant counts without a signature of the order's author over the nonce.
    WarrantAuthorAbsent = "warrant-author-absent",
    /// A co-signature counts whatever it says.
    WarrantCosignatureUnchecked = "warrant-cosignature-unchecked",
    /// Two co-signatures of one voter count as two.
    WarrantCosignerTwice = "warrant-cosigner-twice",
    /// Anybody's co-signature counts.
    WarrantCosignerStranger = "warrant-cosigner-stranger",
    /// The signature of a key that is out counts.
    WarrantRevokedSigns = "warrant-revoked-signs",
    /// A leader's order counts however old the roster is.
    WarrantOldRoster = "warrant-old-roster",
    /// A leader may force.
    WarrantForceByLeader = "warrant-force-by-leader",
    /// Anybody's order by hand counts.
    WarrantSignerUnchecked = "warrant-signer-unchecked",
    /// A target acts before its disk holds what it accepted.
    WarrantBeforeStored = "warrant-before-stored",
    /// A signer counts who was invited and never enrolled.
    LinkUnvouched = "link-unvouched",
    /// A signer counts whoever invited it.
    LinkInviterUnchecked = "link-inviter-unchecked",
    /// Anybody's word puts a signer out.
    LinkExpelledByAnybody = "link-expelled-by-anybody",
    /// A voter signs an order that its ledger does not hold.
    CosignUnwritten = "cosign-unwritten",
    /// A voter signs for whoever says that it leads.
    CosignAnyLeader = "cosign-any-leader",
    /// A voter signs an order that has expired, or never does.
    CosignExpired = "cosign-expired",
    /// A voter signs for another boot or start than the order's.
    CosignOtherBoot = "cosign-other-boot",
    /// A voter signs a hello that somebody else made.
    CosignForgedHello = "cosign-forged-hello",
    /// A voter signs what its own healing would hold back.
    CosignHeldBack = "cosign-held-back",
    /// A voter signs two warrants for one order.
    CosignTwice = "cosign-twice",
    /// A voter signs for a force that no person asked for.
    CosignForce = "cosign-force",
    /// A voter signs an order that its target would refuse as stale.
    CosignStale = "cosign-stale",
    /// A host that is suspended, or does not vote, signs.
    CosignSuspended = "cosign-suspended",
    /// What fails in a host's own phases counts against the package.
    BlameHostsPhasesOnPackage = "blame-hosts-phases-on-package",
    /// A package that fails on many hosts counts against each of them.
    BlamePackageOnHosts = "blame-package-on-hosts",
    /// Inputs that no host can fetch or unpack count against each host.
    BlameInputsOnHosts = "blame-inputs-on-hosts",
    /// A host is blamed for what nobody else has tried.
    BlameWithoutComparison = "blame-without-comparison",
    /// A host is blamed for one package.
    BlameForOnePackage = "blame-for-one-package",
    /// Most hosts that fail together are blamed one by one.
    BlameNeverTheMesh = "blame-never-the-mesh",
    /// A host that fails fast gets the next build at once.
    BlameNoRest = "blame-no-rest",
    /// A host rests twice as long for each failure: whoever's fault it is, and of what was given to it together.
    BlameRestsForEach = "blame-rests-for-each",
    /// A failure long ago counts as one of today.
    BlameForEver = "blame-for-ever",
    /// Healing goes on though the policy says that it is off.
    HealsWhenOff = "heals-when-off",
    /// Healing goes on while a person has paused the mesh.
    HealsWhilePaused = "heals-while-paused",
    /// Hosts are healed while most of them fail together.
    HealsThroughMeshFault = "heals-through-mesh-fault",
    /// Hosts are healed on though no heal has helped.
    HealsThroughStorm = "heals-through-storm",
    /// Several hosts are healed at one time.
    HealsManyAtOnce = "heals-many-at-once",
    /// More hosts are healed in a day than the budget says.
    HealsBeyondBudget = "heals-beyond-budget",
    /// One step follows another at once.
    HealsWithoutCoolDown = "heals-without-cool-down",
    /// A protected host is healed.
    HealsProtected = "heals-protected",
    /// A host is rebooted that does not allow it.
    HealsNotAllowed = "heals-not-allowed",
    /// A host is rebooted that is not known to start the mesh at boot.
    HealsNotEnabledAtBoot = "heals-not-enabled-at-boot",
    /// A host is healed that is the only path of others.
    HealsOnlyPath = "heals-only-path",
    /// A voter is healed without which the others are no majority.
    HealsLastVoters = "heals-last-voters",
    /// A host is healed while its builds make progress.
    HealsProgressing = "heals-progressing",
    /// A host is healed on one observer's word.
    HealsOnOneWord = "heals-on-one-word",
    /// A host is healed that has come right by itself.
    HealsTheRecovered = "heals-the-recovered",
    /// The leader heals on while nobody knows what became of a step of its own that had no answer.
    HealsUnsettled = "heals-unsettled",
    /// The leader orders where fewer than two other voters can sign.
    HealsWithoutSigners = "heals-without-signers",
    /// A host is healed that a person has blocked or drained.
    HealsHeldHost = "heals-held-host",
    /// The last host that builds is set aside.
    HealsLastBuilder = "heals-last-builder",
    /// A host is healed whose identity is suspended.
    HealsSuspended = "heals-suspended",
    /// An entry of healing counts whoever wrote it.
    HealByAnybody = "heal-by-anybody",
    /// A rung counts as climbed though its order reached nobody before its leader was lost.
    LostOrdersClimb = "lost-orders-climb",
    /// A leader takes back an order that was received, or its own.
    WithdrawsWhatArrived = "withdraws-what-arrived",
    /// A host that is back is well, whatever builds have said of it and however often it was gone.
    ReturnIsHealth = "return-is-health",
    /// A host is healed on what a canary said of it long ago.
    HealsOnOldWord = "heals-on-old-word",
    /// A case counts as ordered without an order in the ledger.
    OrderedUnwritten = "ordered-unwritten",
    /// A recovery counts whoever signed it.
    RecoveryUnsigned = "recovery-unsigned",
    /// A recovered mesh goes on under the fences of the lost one.
    RecoveryKeepsEpoch = "recovery-keeps-epoch",
    /// Hosts are healed though two recoveries of one epoch contend for them.
    HealsWhileDisputed = "heals-while-disputed",
    /// A host that a person has blocked or drained gets builds, and so does everybody while the mesh is paused.
    BuildsDespiteMeasures = "builds-despite-measures",
    /// What runs on a host stays there when it is blocked.
    BlockLeavesBuilds = "block-leaves-builds",
    /// A host that is being healed gets builds like any other.
    BuildsWhereSetAside = "builds-where-set-aside",
    /// A host that is set aside gets no build that could say whether it is well.
    NoCanaries = "no-canaries",
    /// A package that failed on two hosts is tried on a third.
    HeldPackagesGoOn = "held-packages-go-on",
    /// Inputs that two hosts could not fetch are not tried again for hours, though whoever has them is back.
    InputsHeldForHours = "inputs-held-for-hours",
    /// The oldest lines of the trail are put away as whatever the leader says.
    ArchiveUnchecked = "archive-unchecked",
    /// Ledger time stands still while nothing happens, and what should end goes on.
    TimeStandsStill = "time-stands-still",
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mutant {
    type Err = String;
    fn from_str(name: &str) -> Result<Mutant, String> {
        let found = Mutant::ALL.iter().find(|mutant| mutant.name() == name);
        found.copied().ok_or_else(|| format!("no mutant is called `{name}`"))
    }
}

#[cfg(any(test, feature = "mutants"))]
std::thread_local! {
    static ON: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Whether a rule is left out on this thread.
#[cfg(any(test, feature = "mutants"))]
pub fn on(mutant: Mutant) -> bool {
    ON.get() == Some(mutant)
}

/// Never: the naive variants are not in this program.
#[cfg(not(any(test, feature = "mutants")))]
pub const fn on(_mutant: Mutant) -> bool {
    false
}

/// Runs `work` on this thread with a rule left out, or with none.
#[cfg(any(test, feature = "mutants"))]
pub fn with<R>(mutant: Option<Mutant>, work: impl FnOnce() -> R) -> R {
    struct Back(Option<Mutant>);
    impl Drop for Back {
        fn drop(&mut self) {
            ON.set(self.0);
        }
    }
    let _back = Back(ON.replace(mutant));
    work()
}

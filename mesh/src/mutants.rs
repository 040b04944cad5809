//! Naive variants of the rules, for the simulator to catch.
//!
//! Every rule that can be broken quietly has a [`Mutant`]: the code asks [`on`] at the very place where
//! the rule is kept, and a simulation that runs with the mutant must fail. A check that no mutant can
//! defeat is a check that nobody has seen working. Without the crate's feature `mutants`, which only
//! `sim` sets, [`on`] is a constant `false` and the naive code is not in the program. A mutant holds for
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
    /// An order that comes again is carried out again.
    OrdersNotRemembered = "orders-not-remembered",
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

#[cfg(feature = "mutants")]
std::thread_local! {
    static ON: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Whether a rule is left out on this thread.
#[cfg(feature = "mutants")]
pub fn on(mutant: Mutant) -> bool {
    ON.get() == Some(mutant)
}

/// Never: the naive variants are not in this program.
#[cfg(not(feature = "mutants"))]
pub const fn on(_mutant: Mutant) -> bool {
    false
}

/// Runs `work` on this thread with a rule left out, or with none.
#[cfg(feature = "mutants")]
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

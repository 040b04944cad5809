//! What must hold at every moment of every run, whatever fails: one invariant a file.
//!
//! Both tiers tell the [`Jury`] what truly happened ([`Fact`], seen from outside, with true time) and show
//! it every host that did something ([`HostSeen`]). An [`Invariant`] judges from that alone; it knows
//! neither tier, and reads nothing that a host merely claims where the truth is at hand. Each counts
//! how often it had something to judge: one that never has proves nothing, and a sweep fails for it.

mod acts_are_agreed;
mod acts_are_fenced;
mod acts_are_fresh;
mod acts_are_written;
mod acts_once;
mod attempts_count_once;
mod attempts_stay;
mod authorship;
mod committed_stays;
mod deed;
mod definition_stays;
mod ends_once;
mod fences_rise;
mod healing_has_authors;
mod heals_are_rationed;
mod heals_do_no_harm;
mod healthy_is_not_down;
mod healthy_is_not_healed;
mod heard_is_not_down;
mod ledger_time_rises;
mod no_build_lost;
mod no_strangers;
mod nothing_unbounded;
mod numbers_rise;
mod one_lease;
mod orders_hit_their_target;
mod recoveries_are_owned;
mod refusals_are_true;
mod requests_count_once;
mod rungs_are_climbed;
mod runs_once;
mod signatures_are_due;
mod steps;
mod stops_are_heeded;
mod tries_are_bounded;
mod vetoes_hold;
mod voter_sets_chain;

pub use deed::{Deed, Signature, Voter};

#[cfg(test)]
pub(crate) mod fixture;

use mesh::build::{Attempt, BlobId, BuildId};
use mesh::identity::PeerKey;
use mesh::lease::Fence;
use mesh::ledger::Ledger;
use mesh::membership::State;
use mesh::warrant::OrderHash;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What a host is called; cheap to copy.
pub type Name = Arc<str>;

/// Something that truly happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// A process with a key started on a host.
    Started {
        /// Where.
        host: Name,
        /// Its key.
        key: PeerKey,
        /// The start number that it goes by.
        start: u64,
    },
    /// The process on a host ended, whatever the reason.
    Stopped {
        /// Where.
        host: Name,
    },
    /// From now on (not) every reason to call this host healthy and reachable holds: it runs, no link of it is cut
    /// or lossy beyond what streams mend in time, its clocks are right, its disk is quick, nobody shares its key.
    Fit {
        /// Which.
        host: Name,
        /// Whether.
        fit: bool,
    },
    /// A host changed its mind about another.
    Believes {
        /// Who.
        host: Name,
        /// Of whom.
        of: PeerKey,
        /// What.
        state: State,
    },
    /// A request was acknowledged to its client with these builds.
    Accepted {
        /// Number of the request.
        request: u64,
        /// The builds.
        builds: Vec<BuildId>,
    },
    /// An attempt began on a host.
    Began {
        /// Where.
        host: Name,
        /// Key of the process that began it.
        key: PeerKey,
        /// Which build.
        build: BuildId,
        /// Which try.
        attempt: Attempt,
        /// The fence of the leader on whose word it began, where the host knows it.
        fence: Option<Fence>,
    },
    /// A protocol other than admission and joining was opened between a host and a key.
    Spoke {
        /// Who.
        host: Name,
        /// With whom.
        with: PeerKey,
    },
    /// An order was carried out.
    Carried(Box<Deed>),
    /// A voter, or a signer under its own order by hand, signed for the hello of a target.
    Signed(Box<Signature>),
    /// A voter that lies signed for a target's hello without looking. Its signature counts as any other does, and nobody
    /// expects it to be due.
    SignedBlindly {
        /// Whose.
        by: PeerKey,
        /// The order.
        order: OrderHash,
        /// The hello's.
        nonce: [u8; 32],
        /// The epoch of the voters that it was given for.
        epoch: u64,
    },
    /// A target did nothing about a warrant or a link, and why.
    Refused {
        /// Which.
        host: Name,
        /// Why.
        refusal: mesh::warrant::Refusal,
    },
    /// From here on, or no more, a liar that leads writes of a host what it likes.
    Lied {
        /// Of whom.
        about: PeerKey,
        /// Whether that is over.
        ends: bool,
    },
    /// A leader wrote an order for a host.
    Ordered {
        /// Which.
        host: Name,
        /// What speaks against it, by the world's word.
        against: Option<&'static str>,
    },
    /// A leader gave a host a build.
    Given {
        /// Which.
        host: Name,
        /// What speaks against it, by the world's word.
        against: Option<&'static str>,
    },
    /// A leader holds a package for broken.
    Held {
        /// What it is called.
        package: String,
        /// What speaks against it, by the world's word.
        against: Option<&'static str>,
    },
    /// A leader set a host aside.
    SetAside {
        /// Which.
        host: Name,
        /// Whether something is truly wrong with it, or was lately.
        ails: bool,
        /// What speaks against it, by the world's word.
        against: Option<&'static str>,
    },
    /// A leader let a host that was set aside have builds again.
    LetBack {
        /// Which.
        host: Name,
        /// What speaks against it, by the world's word.
        against: Option<&'static str>,
    },
    /// The mesh goes on by a record of recovery.
    Recovered {
        /// Whether the owner's key signed it.
        by_owner: bool,
        /// The fence under which it is led then, if it is.
        fence: Option<Fence>,
        /// The highest that anybody had before.
        above: Fence,
    },
    /// A target said hello to whoever brings it an order.
    Greeted {
        /// Which.
        host: Name,
        /// The highest fence that it says it has verified.
        highest: Fence,
    },
    /// The owner of a host asked for builds by these names (before anything was sent).
    Asked {
        /// The key of the host.
        key: PeerKey,
        /// Number of the request.
        request: u64,
        /// Names of the builds.
        names: Vec<String>,
    },
    /// A host that leads put an assignment forward (whether it is committed or not).
    Proposed {
        /// Who.
        key: PeerKey,
        /// Under which fence.
        fence: Fence,
        /// Which build.
        build: BuildId,
        /// Which try.
        attempt: Attempt,
        /// For whom.
        to: PeerKey,
    },
    /// An attempt ended on its host, whatever came of it.
    Ended {
        /// Key of the process that ran it.
        key: PeerKey,
        /// Which build.
        build: BuildId,
        /// Which try.
        attempt: Attempt,
    },
    /// From now on a host is (not) well in itself: it runs, its clocks are right, its disk is quick, nobody shares
    /// its key. Of links it says nothing; that is [`Fact::CutOff`].
    Well {
        /// Which.
        host: Name,
        /// Whether.
        well: bool,
    },
    /// From now on the links between a host and these others, and no more, do not work (one way or both).
    CutOff {
        /// Which.
        host: Name,
        /// The others.
        from: Vec<Name>,
    },
    /// A disk was destroyed, emptied or put back, or lost what it had reported as synced: what was on it is
    /// not to be asked for.
    Wiped {
        /// Whose.
        host: Name,
    },
}

/// A table of a host that must not grow without bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// What is counted.
    pub what: &'static str,
    /// How many there are.
    pub value: u64,
    /// How many there may be.
    pub bound: u64,
}

/// A host as the jury sees it after a step.
pub struct HostSeen<'a> {
    /// Its name.
    pub name: &'a Name,
    /// Its key.
    pub key: PeerKey,
    /// The start number of its process.
    pub start: u64,
    /// Its ledger.
    pub ledger: &'a Ledger,
    /// The fence of the lease that it holds at this moment by its own clock.
    pub lease: Option<Fence>,
    /// The newest presence that it knows of others: start number and sequence.
    pub presences: &'a [(PeerKey, u64, u64)],
    /// Its tables.
    pub sizes: &'a [Size],
}

/// What the world knows and no single host does.
pub trait Truth {
    /// Whether the blobs of a host hold this one, intact; `None` when no host has this key.
    fn holds(&self, host: &PeerKey, blob: BlobId) -> Option<bool>;
    /// Whether a key is enrolled according to the longest ledger there is.
    fn is_member(&self, key: &PeerKey) -> bool;
    /// Every lease that is held at this true moment, each by its holder's own clock; a tier that cannot ask all of
    /// its hosts at any time says nothing here, and the leases that it shows within a step are compared.
    fn leases(&self) -> Vec<(Name, Fence)> {
        vec![]
    }
}

/// A rule that holds at every moment.
pub trait Invariant {
    /// What it is called: its file, with hyphens.
    fn name(&self) -> &'static str;

    /// Where it is from: paper, RFC, or rule of the design.
    fn source(&self) -> &'static str;

    /// Something happened.
    ///
    /// # Errors
    /// How the rule is broken, in words.
    fn fact(&mut self, _at: Duration, _fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        Ok(())
    }

    /// A host did something.
    ///
    /// # Errors
    /// How the rule is broken, in words.
    fn look(&mut self, _at: Duration, _host: &HostSeen<'_>, _truth: &dyn Truth) -> Result<(), String> {
        Ok(())
    }

    /// All hosts of this step have been looked at.
    ///
    /// # Errors
    /// How the rule is broken, in words.
    fn step(&mut self, _at: Duration) -> Result<(), String> {
        Ok(())
    }

    /// The run is over: everything was healed and had its time.
    ///
    /// # Errors
    /// How the rule is broken, in words.
    fn finish(&mut self, _at: Duration) -> Result<(), String> {
        Ok(())
    }

    /// How often it had something to judge.
    fn exercised(&self) -> u64;
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: &'static str,
    /// True time.
    pub at: Duration,
    /// How, in words, with the hosts concerned.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} broken at {:.3} s: {}", self.invariant, self.at.as_secs_f64(), self.text)
    }
}

/// Judged in `sim orders` alone, which knows what is truly wrong with a host when its leader takes a step; a mesh of a
/// minute seldom takes one, and no simulated owner recovers it.
pub const OF_ORDERS: [&str; 4] =
    ["heals-do-no-harm", "healthy-is-not-healed", "recoveries-are-owned", "rungs-are-climbed"];

/// Judged on bare cores, by facts that only they tell: what a voter saw for itself before it signed, and why a target refused.
pub const OF_CORES: [&str; 2] = ["refusals-are-true", "signatures-are-due"];

/// Every invariant there is, fresh for a run.
pub fn all() -> Vec<Box<dyn Invariant>> {
    let mut all = of_orders();
    all.extend(of_the_mesh());
    all
}

/// Those of orders and of healing.
pub fn of_orders() -> Vec<Box<dyn Invariant>> {
    vec![
        // Where a signature is given that may not be, before what comes of it.
        Box::new(signatures_are_due::SignaturesAreDue::default()),
        // Before who signed: that no host acts for another is the heart of it.
        Box::new(orders_hit_their_target::OrdersHitTheirTarget::default()),
        Box::new(vetoes_hold::VetoesHold::default()),
        Box::new(acts_once::ActsOnce::default()),
        Box::new(acts_are_fresh::ActsAreFresh::default()),
        Box::new(acts_are_fenced::ActsAreFenced::default()),
        Box::new(acts_are_agreed::ActsAreAgreed::default()),
        Box::new(healthy_is_not_healed::HealthyIsNotHealed::default()),
        Box::new(acts_are_written::ActsAreWritten::default()),
        Box::new(heals_are_rationed::HealsAreRationed::default()),
        Box::new(healing_has_authors::HealingHasAuthors::default()),
        Box::new(rungs_are_climbed::RungsAreClimbed::default()),
        Box::new(recoveries_are_owned::RecoveriesAreOwned::default()),
        Box::new(stops_are_heeded::StopsAreHeeded::default()),
        Box::new(heals_do_no_harm::HealsDoNoHarm::default()),
        Box::new(refusals_are_true::RefusalsAreTrue::default()),
    ]
}

/// Those of the walks of orders: what they are told of builds is under which fence each began.
pub fn of_walks() -> Vec<Box<dyn Invariant>> {
    let mut all = of_orders();
    all.push(Box::new(fences_rise::FencesRise::default()));
    all
}

fn of_the_mesh() -> Vec<Box<dyn Invariant>> {
    vec![
        // Before `authorship`: a build that changes in a retry is one that nobody asked for.
        Box::new(definition_stays::DefinitionStays::default()),
        Box::new(attempts_count_once::AttemptsCountOnce::default()),
        Box::new(attempts_stay::AttemptsStay::default()),
        Box::new(authorship::Authorship::default()),
        Box::new(committed_stays::CommittedStays::default()),
        Box::new(ends_once::EndsOnce::default()),
        Box::new(fences_rise::FencesRise::default()),
        Box::new(healthy_is_not_down::HealthyIsNotDown::default()),
        Box::new(heard_is_not_down::HeardIsNotDown::default()),
        Box::new(ledger_time_rises::LedgerTimeRises::default()),
        Box::new(no_build_lost::NoBuildLost::default()),
        Box::new(no_strangers::NoStrangers::default()),
        Box::new(nothing_unbounded::NothingUnbounded::default()),
        Box::new(numbers_rise::NumbersRise::default()),
        Box::new(one_lease::OneLease::default()),
        Box::new(requests_count_once::RequestsCountOnce::default()),
        Box::new(runs_once::RunsOnce::default()),
        Box::new(tries_are_bounded::TriesAreBounded::default()),
        Box::new(voter_sets_chain::VoterSetsChain::default()),
    ]
}

/// All invariants of a run.
pub struct Jury {
    invariants: Vec<Box<dyn Invariant>>,
}

impl Jury {
    /// With these invariants.
    pub fn new(invariants: Vec<Box<dyn Invariant>>) -> Jury {
        Jury { invariants }
    }

    fn each(
        &mut self,
        at: Duration,
        mut ask: impl FnMut(&mut dyn Invariant) -> Result<(), String>,
    ) -> Result<(), Violation> {
        for invariant in &mut self.invariants {
            ask(invariant.as_mut()).map_err(|text| Violation { invariant: invariant.name(), at, text })?;
        }
        Ok(())
    }

    /// Something happened.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn fact(&mut self, at: Duration, fact: &Fact, truth: &dyn Truth) -> Result<(), Violation> {
        self.each(at, |invariant| invariant.fact(at, fact, truth))
    }

    /// A host did something.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn look(&mut self, at: Duration, host: &HostSeen<'_>, truth: &dyn Truth) -> Result<(), Violation> {
        self.each(at, |invariant| invariant.look(at, host, truth))
    }

    /// All hosts of this step have been looked at.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn step(&mut self, at: Duration) -> Result<(), Violation> {
        self.each(at, |invariant| invariant.step(at))
    }

    /// The run is over.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn finish(&mut self, at: Duration) -> Result<(), Violation> {
        self.each(at, |invariant| invariant.finish(at))
    }

    /// How often each invariant had something to judge.
    pub fn exercised(&self) -> BTreeMap<&'static str, u64> {
        self.invariants.iter().map(|invariant| (invariant.name(), invariant.exercised())).collect()
    }
}

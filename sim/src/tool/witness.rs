//! Writes down what the jury is shown and what the plan does, alike for both tiers.
//!
//! It sits in the jury, before all others, and judges nothing: so that the fact that breaks a rule is
//! already in the trace.

use crate::action::Action;
use crate::invariants::{Fact, HostSeen, Invariant, Jury, Name, Truth};
use crate::stage::{Failure, Stage};
use crate::trace::{Event, Trace};
use mesh::build::{Attempt, BuildId, End};
use mesh::lease::Fence;
use mesh::ledger::{AttemptRecord, AttemptState};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What counts call it, which leave it out.
pub const NAME: &str = "witness";

/// Who things are told of that concern no host.
pub const WORLD: &str = "world";

/// Told when the actions begin.
pub const TOGETHER: &str = "the fleet has come together";

/// Told when faults end.
pub const HEALED: &str = "everything is healed";

/// The spectator in the jury.
pub struct Witness {
    trace: Trace,
    leases: BTreeMap<Name, Fence>,
    /// Attempts that are known to have ended; only when somebody watches.
    ended: Option<BTreeSet<(BuildId, Attempt)>>,
    /// How far each host's ledger has been read for them.
    read: BTreeMap<Name, u64>,
}

impl Witness {
    /// Writes into this trace.
    pub fn new(trace: Trace) -> Witness {
        let ended = trace.is_watched().then(BTreeSet::new);
        Witness { trace, leases: BTreeMap::new(), ended, read: BTreeMap::new() }
    }

    fn ends(&mut self, at: Duration, host: &HostSeen<'_>) {
        let Some(ended) = &mut self.ended else { return };
        if self.read.insert(host.name.clone(), host.ledger.index()) == Some(host.ledger.index()) {
            return;
        }
        for build in host.ledger.builds().iter() {
            for attempt in build.attempts.iter().filter(|attempt| !attempt.is_running()) {
                if ended.insert((build.id, attempt.number)) {
                    let (build, how) = (build.id, how(attempt));
                    let event = Event::Ended { build, attempt: attempt.number, host: attempt.host, how };
                    self.trace.record_at(at, host.name, event);
                }
            }
        }
    }
}

fn how(attempt: &AttemptRecord) -> &'static str {
    match &attempt.state {
        AttemptState::Running => "running",
        AttemptState::Ended(outcome) if outcome.end == End::Done => "done",
        AttemptState::Ended(_) => "failed",
        AttemptState::Lost(_) => "lost",
        AttemptState::Cancelled => "cancelled",
    }
}

impl Invariant for Witness {
    fn name(&self) -> &'static str {
        NAME
    }

    fn source(&self) -> &'static str {
        "none: it judges nothing"
    }

    fn fact(&mut self, at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        self.trace.fact(at, fact, WORLD);
        // A process that ended holds nothing, and nobody is shown it any more.
        if let Fact::Stopped { host } = fact
            && self.leases.remove(host).is_some()
        {
            self.trace.record_at(at, host, Event::Lease(None));
        }
        Ok(())
    }

    fn look(&mut self, at: Duration, host: &HostSeen<'_>, _truth: &dyn Truth) -> Result<(), String> {
        let before = self.leases.get(host.name).copied();
        if before != host.lease {
            match host.lease {
                Some(fence) => self.leases.insert(host.name.clone(), fence),
                None => self.leases.remove(host.name),
            };
            self.trace.record_at(at, host.name, Event::Lease(host.lease));
        }
        self.ends(at, host);
        Ok(())
    }

    fn exercised(&self) -> u64 {
        0
    }
}

/// A stage whose actions are written down.
pub struct Watched {
    stage: Box<dyn Stage>,
    trace: Trace,
}

impl Watched {
    /// The same stage, watched.
    pub fn new(stage: Box<dyn Stage>, trace: Trace) -> Watched {
        Watched { stage, trace }
    }
}

impl Stage for Watched {
    fn elapsed(&self) -> Duration {
        self.stage.elapsed()
    }

    fn assemble(&mut self, jury: &mut Jury) -> Result<(), Failure> {
        self.stage.assemble(jury)?;
        self.trace.record_at(self.stage.elapsed(), WORLD, Event::Fault(TOGETHER));
        Ok(())
    }

    fn step(&mut self, jury: &mut Jury) -> Result<(), Failure> {
        self.stage.step(jury)
    }

    fn act(&mut self, action: &Action, jury: &mut Jury) -> Result<(), String> {
        let (at, lane) = (self.stage.elapsed(), lane(action));
        // Before it is done, so that what it leads to comes after it.
        self.trace.record_at(at, lane, Event::Acted(action));
        let done = self.stage.act(action, jury);
        if let Err(why) = &done {
            self.trace.record_at(at, lane, Event::Skipped(why));
        }
        done
    }

    fn heal(&mut self, jury: &mut Jury) {
        self.trace.record_at(self.stage.elapsed(), WORLD, Event::Fault(HEALED));
        self.stage.heal(jury);
    }

    fn pending(&self) -> Vec<String> {
        self.stage.pending()
    }
}

/// The host that an action is told of.
fn lane(action: &Action) -> &str {
    match action {
        Action::Submit { host, .. }
        | Action::Cancel { host, .. }
        | Action::Retry { host, .. }
        | Action::Join { host, .. }
        | Action::Evict { host, .. }
        | Action::Leave { host }
        | Action::Stranger { host }
        | Action::Forge { host, .. }
        | Action::Order { host, .. }
        | Action::ReplayLate { host }
        | Action::Crash { host }
        | Action::Start { host }
        | Action::PowerCut { host }
        | Action::PowerOn { host }
        | Action::Suspend { host }
        | Action::Resume { host }
        | Action::SlowSync { host, .. }
        | Action::LyingSync { host, .. }
        | Action::EmptyDisk { host }
        | Action::Backup { host }
        | Action::Restore { host }
        | Action::Clone { host }
        | Action::Unclone { host }
        | Action::ClockRate { host, .. }
        | Action::ClockJump { host, .. }
        | Action::TakeAddress { host, .. } => host,
        Action::Cut { from, .. } | Action::Mend { from, .. } => from,
        Action::ForgetMasquerade { router } => router,
        Action::SwapAddresses { a, .. } => a,
        Action::Loss { .. } | Action::Network { .. } => WORLD,
    }
}

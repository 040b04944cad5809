//! What a scenario expects beyond the invariants: that this build is done, on that host, in one attempt.
//!
//! Expectations are data of a plan, judged by one more member of the jury. Limits (never more attempts
//! than, never believed down) are judged at once, ends when the run is over; each names tasks and
//! hosts as the plan does.

use crate::invariants::{Fact, HostSeen, Invariant, Name, Truth};
use mesh::identity::PeerKey;
use mesh::ledger::{Ledger, State as BuildState};
use mesh::membership::State;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Something that a scenario expects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "that", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Expect {
    /// A task has ended like this.
    Ends {
        /// Its name.
        task: String,
        /// How.
        state: Ended,
    },
    /// So many attempts were made of a task.
    Attempts {
        /// Its name.
        task: String,
        /// At the end, so many or more.
        at_least: usize,
        /// At any time, so many or fewer.
        at_most: usize,
    },
    /// A task has ended soon after its owner asked for it.
    EndsWithin {
        /// Its name.
        task: String,
        /// So many milliseconds.
        ms: u64,
    },
    /// So many builds were made of a task in the end: one, and one for each retry.
    Builds {
        /// Its name.
        task: String,
        /// How many.
        count: usize,
    },
    /// No two attempts of a task run at one time.
    OneAtATime {
        /// Its name.
        task: String,
    },
    /// The order for a host was carried out, there and so often.
    Carried {
        /// Its name.
        host: String,
        /// At the end.
        times: u64,
    },
    /// Some order for a host was carried out there.
    Carries {
        /// Its name.
        host: String,
    },
    /// Nobody ever declares a host down.
    NeverDown {
        /// Its name.
        host: String,
    },
    /// The mesh has so many members in the end.
    Members {
        /// How many.
        count: usize,
    },
}

/// How a task ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// Its outputs are held.
    Done,
    /// It will not be tried again.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

impl Ended {
    fn is(self, state: BuildState) -> bool {
        match self {
            Ended::Done => state == BuildState::Done,
            Ended::Failed => state == BuildState::Failed,
            Ended::Cancelled => state == BuildState::Cancelled,
        }
    }
}

/// What is known of a task: of its newest build, when it was retried.
#[derive(Clone, Copy, Default)]
struct Task {
    state: Option<BuildState>,
    attempts: usize,
    builds: usize,
    ended: Option<Duration>,
}

/// Judges a plan's expectations.
pub struct Expectations {
    expect: Vec<Expect>,
    tasks: BTreeMap<String, Task>,
    index: u64,
    members: usize,
    names: BTreeMap<PeerKey, Name>,
    carried: BTreeMap<Name, u64>,
    asked: BTreeMap<String, Duration>,
    judged: u64,
}

impl Expectations {
    /// Of a plan.
    pub fn new(expect: Vec<Expect>) -> Expectations {
        Expectations {
            expect,
            tasks: BTreeMap::new(),
            index: 0,
            members: 0,
            names: BTreeMap::new(),
            carried: BTreeMap::new(),
            asked: BTreeMap::new(),
            judged: 0,
        }
    }

    fn read(&mut self, at: Duration, ledger: &Ledger) -> Result<(), String> {
        self.index = ledger.index();
        self.members = ledger.roster().len();
        let before = std::mem::take(&mut self.tasks);
        for build in ledger.builds().iter() {
            let name = &build.spec.name;
            let attempts = build.attempts.len();
            let known = before.get(name).and_then(|task| task.ended);
            let ended = build.state.is_final().then(|| known.unwrap_or(at));
            let builds = 1 + self.tasks.get(name).map_or(0, |task| task.builds);
            self.tasks.insert(name.clone(), Task { state: Some(build.state), attempts, builds, ended });
            let running = build.running().count();
            for expect in &self.expect {
                match expect {
                    Expect::Attempts { task, at_most, .. } if task == name && attempts > *at_most => {
                        return Err(format!("attempt {attempts} of {name} was made, at most {at_most} are expected"));
                    }
                    Expect::OneAtATime { task } if task == name && running > 1 => {
                        return Err(format!("{running} attempts of {name} run at one time"));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn met(&self, expect: &Expect) -> Result<(), String> {
        let of = |task: &String| self.tasks.get(task).copied().unwrap_or_default();
        match expect {
            Expect::Ends { task, state } => match of(task).state {
                Some(now) if state.is(now) => Ok(()),
                now => Err(format!("{task} is {now:?} in the end, {state:?} is expected")),
            },
            Expect::Attempts { task, at_least, .. } if of(task).attempts < *at_least => {
                Err(format!("{} attempts were made of {task}, at least {at_least} are expected", of(task).attempts))
            }
            Expect::EndsWithin { task, ms } => {
                let took = of(task).ended.zip(self.asked.get(task)).map(|(ended, asked)| ended.saturating_sub(*asked));
                match took {
                    Some(took) if took <= Duration::from_millis(*ms) => Ok(()),
                    took => Err(format!("{task} took {took:?}, {ms} ms are expected")),
                }
            }
            Expect::Builds { task, count } if of(task).builds != *count => {
                Err(format!("{} builds were made of {task}, {count} are expected", of(task).builds))
            }
            Expect::Carried { host, times } => {
                let carried = self.carried.get(host.as_str()).copied().unwrap_or(0);
                if carried == *times {
                    Ok(())
                } else {
                    Err(format!("{host} carried out {carried} orders, {times} are expected"))
                }
            }
            Expect::Carries { host } if !self.carried.contains_key(host.as_str()) => {
                Err(format!("{host} carried out no order, one at least is expected"))
            }
            Expect::Members { count } if self.members != *count => {
                Err(format!("the mesh has {} members in the end, {count} are expected", self.members))
            }
            _ => Ok(()),
        }
    }
}

impl Invariant for Expectations {
    fn name(&self) -> &'static str {
        "expectations"
    }

    fn source(&self) -> &'static str {
        "the scenario"
    }

    fn fact(&mut self, at: Duration, fact: &Fact, _truth: &dyn Truth) -> Result<(), String> {
        match fact {
            Fact::Started { host, key, .. } => {
                self.names.insert(*key, host.clone());
            }
            Fact::Asked { names, .. } => {
                for name in names {
                    self.asked.entry(name.clone()).or_insert(at);
                }
            }
            Fact::Carried(deed) => *self.carried.entry(deed.host.clone()).or_default() += 1,
            Fact::Believes { host, of, state: State::Down } => {
                let name = self.names.get(of).map_or("?", |name| name);
                if self.expect.iter().any(|e| matches!(e, Expect::NeverDown { host } if host == name)) {
                    return Err(format!("{host} takes {name} for down"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn look(&mut self, at: Duration, host: &HostSeen<'_>, _truth: &dyn Truth) -> Result<(), String> {
        if host.ledger.index() > self.index { self.read(at, host.ledger) } else { Ok(()) }
    }

    fn finish(&mut self, _at: Duration) -> Result<(), String> {
        for expect in &self.expect {
            self.judged += 1;
            self.met(expect)?;
        }
        Ok(())
    }

    fn exercised(&self) -> u64 {
        self.judged
    }
}

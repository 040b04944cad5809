//! What a person does to the mesh: block, drain, pause, and their opposites, clear, policy. Each is an entry of the ledger
//! that this host signs; who may, the ledger says. A name that fits no host, or more than one, does nothing.

use super::{Inner, wall_ms};
use crate::api::Tend;
use crate::api::healing::{AuditFilter, AuditReport, BuildWhy, PlanReport, PolicyReport, PolicyRequest, PolicyValue};
use crate::api::measures::{ClearRequest, LiftRequest, Lifted, Measure, StopRequest};
use crate::api::types::{ApiError, VERSION};
use async_trait::async_trait;
use mesh::build::BuildId;
use mesh::healing::{self, Clear, Entry, Lift, Policy, Rule, Stage, Stop};
use mesh::ledger::{Command, Ledger, Reply};
use mesh::limits::MEASURE_MS_MAX;

impl Inner {
    /// Brings an entry of healing into the ledger, as this host's own.
    async fn tend(&self, entry: Entry) -> Result<Reply, ApiError> {
        let command = Command::Heal(entry);
        self.all_know(&command).map_err(|text| {
            ApiError::conflict(text).hint("`mesh status` shows the version of every host; nothing was changed")
        })?;
        self.ask(self.request_id(), command).await
    }

    /// A measure as people and programs are told of it.
    pub(super) fn measure_told(&self, ledger: &Ledger, measure: &healing::Measure) -> Measure {
        let name = |peer| ledger.roster().member(peer).map_or_else(|| peer.short(), |m| m.name.clone());
        Measure {
            stop: measure.stop.into(),
            host: measure.host.as_ref().map(name),
            peer: measure.host,
            by: name(&measure.by),
            reason: measure.reason.clone(),
            until_ms: measure.until_ms,
            left_ms: measure.until_ms.saturating_sub(ledger.time_ms()),
        }
    }

    /// Why all healing stands still, in words; empty when it does not. A pause is not among them: it stops more.
    pub(super) fn frozen(&self, ledger: &Ledger) -> Vec<String> {
        let mut frozen = vec![];
        if ledger.healing().policy().heal == 0 {
            frozen.push(Rule::Off.text(ledger.roster()));
        }
        let verdicts = self.judged(ledger);
        let mesh = verdicts.iter().find(|v| matches!(v, mesh::blame::Verdict::Mesh { .. }));
        frozen.extend(mesh.map(|verdict| verdict.text(ledger.roster())));
        frozen.extend(healing::storm(ledger.healing(), ledger.time_ms()).map(|rule| rule.text(ledger.roster())));
        frozen
    }
}

#[async_trait]
impl Tend for Inner {
    async fn put_measure(&self, request: StopRequest) -> Result<Measure, ApiError> {
        request.check()?;
        let StopRequest { stop, host, lasts_ms, reason } = request;
        let host = host.map(|host| self.find_host(&host)).transpose()?;
        // The ledger's time may be long ago when nothing happens; a wall clock that is off must not make it too long.
        let time_ms = self.shared.with(Ledger::time_ms);
        let from_ms = time_ms.max(wall_ms()).min(time_ms + MEASURE_MS_MAX - lasts_ms);
        let until_ms = from_ms + lasts_ms;
        let measure = healing::Measure { stop: stop.into(), host, by: self.me, reason, until_ms };
        self.tend(Entry::Measure(measure.clone())).await?;
        Ok(self.shared.with(|ledger| self.measure_told(ledger, &measure)))
    }

    async fn lift(&self, request: LiftRequest) -> Result<Lifted, ApiError> {
        request.check()?;
        let LiftRequest { stop, host, reason } = request;
        let named = host.map(|host| self.find_host(&host)).transpose()?;
        let kind = Stop::from(stop);
        let (measure, storm) = self.shared.with(|ledger| {
            let (now, record) = (ledger.time_ms(), ledger.healing());
            let found = record.measures.in_force(now).find(|m| (m.stop, m.host) == (kind, named));
            (found.map(|m| self.measure_told(ledger, m)), healing::storm(record, now).is_some())
        });
        let storm = storm && kind == Stop::Pause;
        if measure.is_none() && !storm {
            return Err(match named {
                None => ApiError::conflict("nothing is paused, and healing is not frozen by what did not help")
                    .hint("`mesh status` lists what holds, `mesh plan` what keeps healing back"),
                Some(peer) => ApiError::conflict(format!("{} is not {}", self.name_of(&peer), stop.word()))
                    .hint("`mesh status` lists what is blocked and drained, with the end of each"),
            });
        }
        if measure.is_some() {
            self.tend(Entry::Lift(Lift { stop: kind, host: named })).await?;
        }
        if storm {
            let why = if reason.is_empty() { "resumed".to_owned() } else { reason };
            self.tend(Entry::Clear(Clear { host: None, why })).await?;
        }
        Ok(Lifted { version: VERSION, measure, healing: storm })
    }

    async fn clear(&self, request: ClearRequest) -> Result<(), ApiError> {
        request.check()?;
        let peer = self.find_host(&request.host)?;
        if self.shared.with(|ledger| ledger.healing().stage(&peer)) == Stage::Well {
            let message = format!("{} has no case: nothing is known against it", self.name_of(&peer));
            return Err(
                ApiError::conflict(message).hint("`mesh unblock` ends a block, `mesh why` says why it gets no builds")
            );
        }
        self.tend(Entry::Clear(Clear { host: Some(peer), why: request.reason })).await.map(drop)
    }

    async fn policy(&self) -> PolicyReport {
        policy_told(self.shared.with(|ledger| *ledger.healing().policy()))
    }

    async fn set_policy(&self, request: PolicyRequest) -> Result<PolicyReport, ApiError> {
        let PolicyRequest { key, value } = request;
        let present = self.shared.with(|ledger| *ledger.healing().policy());
        let next = present.with(&key, &value).map_err(|error| {
            let text = error.to_string();
            let text = text.strip_prefix("line 1: ").unwrap_or(&text).to_owned();
            ApiError::bad_request(crate::config::shorten(&text))
                .hint("`mesh policy` lists the keys; for example: mesh policy set cool-down 30m")
        })?;
        if next != present {
            self.tend(Entry::Policy(next)).await?;
        }
        Ok(policy_told(next))
    }

    async fn plan(&self) -> PlanReport {
        self.make_plan()
    }

    async fn audit(&self, filter: AuditFilter) -> Result<AuditReport, ApiError> {
        self.make_audit(filter).await
    }

    async fn why_build(&self, id: BuildId) -> Result<BuildWhy, ApiError> {
        self.make_why_build(id)
    }
}

fn policy_told(policy: Policy) -> PolicyReport {
    let pairs = |policy: Policy| -> Vec<(String, String)> {
        let text = policy.to_string();
        text.lines().filter_map(|l| l.split_once(" = ")).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    };
    let both = pairs(policy).into_iter().zip(pairs(Policy::default()));
    PolicyReport {
        version: VERSION,
        policy: both.map(|((key, value), (_, default))| PolicyValue { key, value, default }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_told_whole_with_what_it_is_by_itself() {
        let set = Policy::default().with("storm", "2").expect("a key");
        let told = policy_told(set).policy;
        let storm = told.iter().find(|v| v.key == "storm").expect("listed");
        assert_eq!((storm.value.as_str(), storm.default.as_str()), ("2", "3"));
        assert_eq!(told.iter().filter(|v| v.value != v.default).count(), 1);
        assert_eq!(told.len(), set.to_string().lines().count());
    }
}

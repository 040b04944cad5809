//! `mesh audit`: the trail of healing, in words. The ledger keeps its newest lines; older ones are put away as blobs, of
//! which each names the one before: the leader proposes, every host keeps the bytes, and they are read when somebody asks
//! for that time. Names are put in here, for the trail itself holds only keys.

use super::Inner;
use super::plan::{moment, name};
use crate::api::healing::{AuditFilter, AuditLine, AuditReport};
use crate::api::measures::StopKind;
use crate::api::types::{ApiError, VERSION};
use crate::blobs::{get, put};
use mesh::build::BlobId;
use mesh::healing::{Chapter, Entry, Event, Kind, Line, Part, Told, archive_due, read_part};
use mesh::identity::PeerKey;
use mesh::lease::Fence;
use mesh::ledger::{Command, Ledger};
use std::sync::Arc;

/// Bytes of one part: as many lines as there can be, with room to spare.
const PART_BYTES_MAX: u64 = 4 << 20;

impl Inner {
    pub(super) async fn make_audit(&self, filter: AuditFilter) -> Result<AuditReport, ApiError> {
        let host = filter.host.as_deref().map(|host| self.find_once_host(host)).transpose()?;
        let wanted = |line: &Line| {
            filter.since_ms.is_none_or(|since| line.at_ms >= since) && host.is_none_or(|host| line.host == Some(host))
        };
        let (mut lines, parts): (Vec<Line>, Vec<Part>) = self.shared.with(|ledger| {
            let record = ledger.healing();
            (record.audit().lines().cloned().collect(), record.parts().iter().copied().collect())
        });
        let mut missing = vec![];
        if let (Some(since_ms), Some(newest)) = (filter.since_ms, parts.last()) {
            let (older, error) = self.read_parts(newest.blob, since_ms).await;
            lines.splice(0..0, older);
            missing.extend(error);
        }
        let lines = self
            .shared
            .with(|ledger| lines.iter().filter(|line| wanted(line)).map(|line| line_told(ledger, line)).collect());
        Ok(AuditReport { version: VERSION, lines, missing })
    }

    /// Lines of the parts that were put away, back to some time: oldest first, and why there are not more.
    async fn read_parts(&self, newest: BlobId, since_ms: u64) -> (Vec<Line>, Option<String>) {
        let (mut chapters, mut next) = (vec![], Some(newest));
        while let Some(blob) = next {
            let chapter = match self.read_part(blob).await {
                Ok(chapter) => chapter,
                Err(why) => return (in_order(chapters), Some(format!("an older part of the trail is missing: {why}"))),
            };
            let begins = chapter.lines.first().map_or(0, |line| line.at_ms);
            next = chapter.before.filter(|_| begins > since_ms);
            chapters.push(chapter.lines);
        }
        (in_order(chapters), None)
    }

    async fn read_part(&self, blob: BlobId) -> Result<Chapter, String> {
        self.fetch_blob(blob, &[]).await.map_err(|error| error.to_string())?;
        let bytes = get(&*self.blobs, blob, PART_BYTES_MAX).await.map_err(|error| error.to_string())?;
        read_part(&bytes, blob, self.mesh).map_err(|error| error.to_string())
    }

    /// As the leader: has the oldest lines put away when they are due. True when something changed.
    pub(super) async fn put_trail_away(&self, fence: Fence) -> bool {
        let due = self.shared.with(|ledger| archive_due(ledger.healing(), self.mesh, ledger.time_ms()));
        let Some(archive) = due else { return false };
        let command = Command::Heal(Entry::Archive(archive));
        if let Err(why) = self.all_know(&command) {
            tracing::debug!(why, "the trail's oldest part stays in the ledger for now");
            return false;
        }
        self.write_as_leader(fence, command).await
    }

    /// Keeps the bytes of parts that the ledger has put away.
    pub(super) fn keep_parts(self: &Arc<Self>, parts: Vec<Vec<u8>>) {
        for bytes in parts {
            let this = self.clone();
            self.task(async move {
                match put(&*this.blobs, &bytes).await {
                    Ok(blob) => {
                        tracing::info!(%blob, bytes = bytes.len(), "an old part of healing's trail was put away")
                    }
                    Err(error) => tracing::warn!(%error, "an old part of healing's trail is not kept here"),
                }
            });
        }
    }

    /// A host that is enrolled, or was: its story stays.
    fn find_once_host(&self, said: &str) -> Result<PeerKey, ApiError> {
        let gone = self.shared.with(|ledger| {
            let fits =
                |(peer, revoked): &(&PeerKey, &mesh::roster::Revoked)| revoked.name == said || peer.to_string() == said;
            ledger.roster().all_revoked().filter(fits).max_by_key(|(_, r)| r.at_ms).map(|(peer, _)| *peer)
        });
        match self.find_host(said) {
            Err(error) => gone.ok_or(error),
            found => found,
        }
    }
}

/// Chapters that were read newest first.
fn in_order(chapters: Vec<Vec<Line>>) -> Vec<Line> {
    chapters.into_iter().rev().flatten().collect()
}

/// One line with names.
pub(super) fn line_told(ledger: &Ledger, line: &Line) -> AuditLine {
    let gone = |peer: &PeerKey| ledger.roster().revoked(peer).map(|revoked| revoked.name.clone());
    let name = |peer: &PeerKey| gone(peer).unwrap_or_else(|| name(ledger, peer));
    let host = line.host.as_ref().map(name);
    AuditLine {
        at_ms: line.at_ms,
        by: name(&line.by),
        by_peer: line.by,
        told: told(line, &name(&line.by), host.as_deref()),
        host,
        peer: line.host,
        order: line.order.map(|order| order.to_string()),
        what: code(line.kind).to_owned(),
        until_ms: line.until_ms,
        text: line.text.clone(),
    }
}

/// What happened, in a sentence.
fn told(line: &Line, by: &str, host: Option<&str>) -> String {
    let host = host.unwrap_or("the mesh");
    let until = line.until_ms.map(|ms| format!(" until {}", moment(ms))).unwrap_or_default();
    let text = &line.text;
    let why = if text.is_empty() { String::new() } else { format!(": {text}") };
    let order = line.order.map(|id| format!(" (order {id})")).unwrap_or_default();
    match line.kind {
        Kind::Policy => format!("{by} set the policy{why}"),
        Kind::Began(stop) => format!("{by} {} {host}{until}{why}", StopKind::from(stop).word()),
        Kind::Lifted(stop) => format!("{by} ended that {host} was {}{why}", StopKind::from(stop).word()),
        Kind::Ordered => format!("{by} wrote an order for {host}{order}, good{until}{why}"),
        Kind::Case(Event::Cleared) => format!("{by} says that {host} is well{why}"),
        // What its reason says is not said twice.
        Kind::Case(Event::Blamed | Event::Down) => format!("{host} was set aside{why}"),
        Kind::Case(Event::Returned | Event::Lapsed) => format!("{host} gets builds again{why}"),
        Kind::Case(Event::Recovered) => format!("{host} is back by itself"),
        Kind::Case(event) => format!("{host}: {}{order}{why}", event_words(event)),
        Kind::Resumed => format!("{by} lets healing go on{why}"),
        Kind::Receipt => format!("{host} took the order on{order}{why}"),
        Kind::Proved => format!("{host} has proved that it did it{order}{why}"),
        Kind::Told(told) => format!("{}{order}{why}", told_words(told, by, host)),
    }
}

/// What happened to a case, said of its host.
pub(super) fn event_words(event: Event) -> &'static str {
    match event {
        Event::Blamed => "set aside, because builds fail there that are built elsewhere",
        Event::Down => "set aside, because it is down",
        Event::Given => "was given a canary build",
        Event::Passed => "built its canary: it is well, and gets builds again",
        Event::Failed => "failed its canary",
        Event::Vanished => "its canary said nothing",
        Event::Ordered => "the next step was ordered",
        Event::Proved => "has come back from what was ordered",
        Event::Expired => "did not prove what was ordered in time",
        Event::Recovered => "is back by itself",
        Event::Lapsed => "gets builds again",
        Event::HandedOver => "was handed to a human",
        Event::Cleared => "was said to be well by a person",
        Event::Returned => "was down and nothing else, and gets builds again",
        Event::Outdated => "what was known against it is old: it is tried out again",
        Event::Withdrawn => "its order reached nobody before its leader was lost, and was taken back",
    }
}

fn told_words(told: Told, by: &str, host: &str) -> String {
    match told {
        Told::Refused => format!("{host} refused"),
        Told::Withheld => format!("a voter did not sign for {host} (told by {by})"),
        Told::Signed => format!("signed for {host} (told by {by})"),
        Told::Undelivered => format!("the order did not reach {host} (told by {by})"),
        Told::Failed => format!("{host} took the order on and could not do it"),
        Told::Unexplained => format!("{host} has started anew, and no order says why"),
    }
}

/// For machines.
fn code(kind: Kind) -> &'static str {
    match kind {
        Kind::Policy => "policy",
        Kind::Began(stop) => StopKind::from(stop).verb(),
        Kind::Lifted(stop) => StopKind::from(stop).opposite(),
        Kind::Ordered => "ordered",
        Kind::Resumed => "resumed",
        Kind::Receipt => "receipt",
        Kind::Proved => "proved",
        Kind::Case(Event::Blamed) => "case-blamed",
        Kind::Case(Event::Down) => "case-down",
        Kind::Case(Event::Given) => "case-given",
        Kind::Case(Event::Passed) => "case-passed",
        Kind::Case(Event::Failed) => "case-failed",
        Kind::Case(Event::Vanished) => "case-vanished",
        Kind::Case(Event::Ordered) => "case-ordered",
        Kind::Case(Event::Proved) => "case-proved",
        Kind::Case(Event::Expired) => "case-expired",
        Kind::Case(Event::Recovered) => "case-recovered",
        Kind::Case(Event::Lapsed) => "case-lapsed",
        Kind::Case(Event::HandedOver) => "case-handed-over",
        Kind::Case(Event::Cleared) => "case-cleared",
        Kind::Case(Event::Returned) => "case-returned",
        Kind::Case(Event::Outdated) => "case-outdated",
        Kind::Case(Event::Withdrawn) => "case-withdrawn",
        Kind::Told(Told::Refused) => "refused",
        Kind::Told(Told::Withheld) => "withheld",
        Kind::Told(Told::Signed) => "signed",
        Kind::Told(Told::Undelivered) => "undelivered",
        Kind::Told(Told::Failed) => "failed",
        Kind::Told(Told::Unexplained) => "unexplained-reboot",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::healing::Stop;
    use mesh::identity::Keys;

    fn line(kind: Kind, text: &str, until_ms: Option<u64>) -> Line {
        let by = Keys::from_seed([1; 32]).key();
        Line { at_ms: 0, by, host: Some(by), order: None, kind, until_ms, text: text.into() }
    }

    #[test]
    fn the_trail_reads_as_sentences() {
        let say = |kind, text: &str, until| told(&line(kind, text, until), "alpha", Some("gamma"));
        assert_eq!(
            say(Kind::Began(Stop::Block), "new disk", Some(86_400_000)),
            "alpha blocked gamma until 1970-01-02T00:00:00Z: new disk"
        );
        assert_eq!(say(Kind::Lifted(Stop::Drain), "", None), "alpha ended that gamma was drained");
        assert_eq!(say(Kind::Case(Event::Cleared), "new disk", None), "alpha says that gamma is well: new disk");
        assert_eq!(
            say(Kind::Case(Event::Passed), "b7.1", None),
            "gamma: built its canary: it is well, and gets builds again: b7.1"
        );
        assert_eq!(say(Kind::Case(Event::Down), "it is down", None), "gamma was set aside: it is down");
        assert_eq!(say(Kind::Case(Event::Recovered), "it is back by itself", None), "gamma is back by itself");
        assert_eq!(
            say(Kind::Told(Told::Unexplained), "boot 2 follows 1", None),
            "gamma has started anew, and no order says why: boot 2 follows 1"
        );
        assert_eq!(say(Kind::Told(Told::Refused), "not for me", None), "gamma refused: not for me");
        assert_eq!(told(&line(Kind::Resumed, "seen to", None), "alpha", None), "alpha lets healing go on: seen to");
    }

    #[test]
    fn every_kind_has_a_word_of_its_own() {
        let mut kinds = vec![Kind::Policy, Kind::Ordered, Kind::Resumed, Kind::Receipt, Kind::Proved];
        kinds.extend(
            [Stop::Block, Stop::Drain, Stop::Pause].into_iter().flat_map(|s| [Kind::Began(s), Kind::Lifted(s)]),
        );
        kinds.extend(Event::ALL.map(Kind::Case));
        let told = [Told::Refused, Told::Withheld, Told::Signed, Told::Undelivered, Told::Failed, Told::Unexplained];
        kinds.extend(told.map(Kind::Told));
        let words: std::collections::BTreeSet<&str> = kinds.iter().map(|kind| code(*kind)).collect();
        assert_eq!(words.len(), kinds.len());
    }
}

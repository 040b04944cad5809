//! What a trace keeps of each host, and that keeping it changes no hash.

use super::*;
use std::sync::mpsc;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn key(n: u8) -> PeerKey {
    PeerKey::from_bytes([n; 32])
}

/// A little of everything.
fn fill(trace: &Trace) {
    let end = |n| SocketAddr::from(([10, 0, 0, n], 7400));
    let started = Fact::Started { host: "a".into(), key: key(1), start: 1 };
    trace.fact(ms(1), &started, "world");
    let lease = Event::Lease(Some(Fence { epoch: 0, term: 4 }));
    trace.record_at(ms(2), "a", lease);
    for n in 0..40 {
        trace.record_at(ms(3 + n), "a", Event::Sent { local: end(1), remote: end(2), bytes: b"hello" });
        trace.record_at(ms(3 + n), "a", Event::Logged(&format!("INFO line {n}")));
        trace.record_at(ms(3 + n), "a", Event::Logged("TRACE a timer fires"));
    }
    trace.record_at(ms(50), LEADER, Event::Acted(&Action::Crash { host: LEADER.into() }));
    trace.fact(ms(51), &Fact::Ended { key: key(1), build: BuildId(1), attempt: Attempt(1) }, "world");
}

#[derive(Clone)]
struct Lines(mpsc::Sender<Vec<u8>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.send(bytes.to_vec());
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_is_kept_for_people_leaves_the_hash_alone() {
    let bare = Trace::new(None);
    fill(&bare);
    let (send, lines) = mpsc::channel();
    let watched = Trace::watched(Watch { timeline: Some(Box::new(Lines(send))), history: true });
    fill(&watched);
    let (build, attempt) = (BuildId(1), Attempt(1));
    watched.record_at(ms(51), "a", Event::Ended { build, attempt, host: key(1), how: "done" });
    watched.record_at(ms(51), "world", Event::Failed("two leaders"));
    assert_eq!(bare.summary(), watched.summary());
    assert!(watched.is_watched() && !bare.is_watched());

    drop(watched.take_history());
    drop(watched);
    let text = String::from_utf8(lines.iter().flatten().collect()).unwrap();
    assert_eq!(text.lines().count(), 126);
    assert!(text.contains("    0.002000 a            lease     holds the lease of fence 0.4"), "{text}");
}

#[test]
fn every_part_of_a_fact_is_in_the_hash() {
    let (a, b): (crate::invariants::Name, crate::invariants::Name) = ("a".into(), "b".into());
    let fence = Fence { epoch: 1, term: 2 };
    let (build, attempt) = (BuildId(1), Attempt(1));
    let began = |fence| Fact::Began { host: a.clone(), key: key(1), build, attempt, fence };
    let facts = [
        Fact::Stopped { host: a.clone() },
        Fact::Stopped { host: b.clone() },
        Fact::Wiped { host: a.clone() },
        Fact::Fit { host: a.clone(), fit: true },
        Fact::Fit { host: a.clone(), fit: false },
        Fact::Well { host: a.clone(), well: true },
        began(None),
        began(Some(fence)),
        began(Some(Fence::default())),
        Fact::Accepted { request: 1, builds: vec![] },
        Fact::Accepted { request: 1, builds: vec![BuildId(0)] },
        Fact::Asked { key: key(1), request: 1, names: vec!["ab".into()] },
        Fact::Asked { key: key(1), request: 1, names: vec!["a".into(), "b".into()] },
        Fact::CutOff { host: a.clone(), from: vec![] },
        Fact::CutOff { host: a.clone(), from: vec![b] },
        Fact::Proposed { key: key(1), fence, build, attempt, to: key(2) },
        Fact::Proposed { key: key(1), fence, build, attempt, to: key(3) },
        Fact::Ended { key: key(1), build, attempt },
        Fact::Spoke { host: a, with: key(2) },
    ];
    let hash = |fact: &Fact| {
        let trace = Trace::new(None);
        trace.fact(ms(1), fact, "world");
        trace.summary().hash
    };
    let hashes: std::collections::BTreeSet<String> = facts.iter().map(hash).collect();
    assert_eq!(hashes.len(), facts.len());
}

#[test]
fn the_last_events_of_a_host_are_few_in_order_and_without_timers() {
    let trace = Trace::new(None);
    fill(&trace);
    let last = trace.last_events();
    assert_eq!(last.keys().collect::<Vec<_>>(), ["a"], "what the leader suffers is told of its host");
    let lines = &last["a"];
    assert_eq!(lines.len(), 12 + 4);
    assert!(lines.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert!(lines.iter().all(|(_, _, line)| !line.contains("timer")));
    let texts: Vec<&str> = lines.iter().rev().take(3).map(|(_, _, line)| line.as_str()).collect();
    assert_eq!(texts, ["fact      ends b1 attempt 1", "PLAN      crash leader", "log       INFO line 39"]);
}
